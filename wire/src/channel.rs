//! The runtime channel: frames between the shim and the tool it owns (one stream socketpair, `frame` layout).
//! `docs/RUNTIME-CHANNEL.md` is the same for authors of adapters in other languages.
//!
//! It is a trust boundary. The tool may lie, flood, or stop reading: sizes are bounded, a stream's chunks are
//! bounded by credit, and nothing a tool says here is believed beyond its own calls.

use crate::Timestamp;
use crate::cut::{self, without_middle};
use crate::error::{JobError, JobErrorBody, MESSAGE_BYTES_MAX};
use crate::http::DetailBody;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Environment variable that tells the tool the channel's descriptor number.
pub const CHANNEL_FD_VARIABLE: &str = "CJM_CHANNEL_FD";
/// The descriptor the shim uses.
pub const CHANNEL_FD: i32 = 3;
/// Chunks a tool may send on a stream before it is granted more.
pub const STREAM_CREDIT_INITIAL: u32 = 64;
/// Longest payload of a READY.
pub const READY_BYTES_MAX: usize = crate::frame::SMALL_PAYLOAD_BYTES_MAX;
/// Bytes of the message of a [`LoadFailure`] that are passed on; the rest is cut.
pub const LOAD_FAILURE_MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of its traceback that are passed on: the last ones.
pub const LOAD_FAILURE_TRACEBACK_BYTES_MAX: usize = 32 * 1024;
/// Bytes of the body of a [`CallFailure`] that may be passed on unread.
const FAILURE_BYTES_MAX: usize = 128 * 1024;
/// Version of the channel, in [`ToolStart`] and [`ToolReady`].
pub const CHANNEL_VERSION: u32 = 1;

/// Kinds of frames, shim → tool. The payload is what the HTTP request carried, unparsed, unless said otherwise.
pub mod to_tool {
    /// First frame: [`super::ToolStart`].
    pub const START: u8 = 0x01;
    /// `POST /execute`.
    pub const EXECUTE: u8 = 0x02;
    /// `POST /execute_stream`; answered by chunks and an end, or a failure.
    pub const EXECUTE_STREAM: u8 = 0x03;
    /// `POST /task`.
    pub const TASK: u8 = 0x04;
    /// `POST /initialize`.
    pub const INITIALIZE: u8 = 0x05;
    /// `POST /reconfigure`.
    pub const RECONFIGURE: u8 = 0x06;
    /// `POST /prefetch`.
    pub const PREFETCH: u8 = 0x07;
    /// `POST /on_disable`.
    pub const ON_DISABLE: u8 = 0x08;
    /// `POST /on_enable`.
    pub const ON_ENABLE: u8 = 0x09;
    /// `POST /cleanup`.
    pub const CLEANUP: u8 = 0x0a;
    /// `GET /config`.
    pub const CONFIG: u8 = 0x0b;
    /// `GET /config_schema`.
    pub const CONFIG_SCHEMA: u8 = 0x0c;
    /// `GET /config_options`.
    pub const CONFIG_OPTIONS: u8 = 0x0d;
    /// `GET /structural_surface`.
    pub const STRUCTURAL_SURFACE: u8 = 0x0e;
    /// `POST /get_system_status`.
    pub const GET_SYSTEM_STATUS: u8 = 0x0f;
    /// `POST /list_processes`.
    pub const LIST_PROCESSES: u8 = 0x10;
    /// Stop the call of this id (0: all of them). No payload, no answer of its own.
    pub const CANCEL: u8 = 0x20;
    /// End: run `cleanup()` once if it has not run, then exit. No payload.
    pub const SHUTDOWN: u8 = 0x21;
    /// More chunks are welcome on the stream of this call id: four bytes, big-endian, how many.
    pub const CREDIT: u8 = 0x22;
}

/// Kinds of frames, tool → shim.
pub mod to_shim {
    /// Loaded: [`super::ToolReady`].
    pub const READY: u8 = 0x81;
    /// The call succeeded: the body of the 200 answer, JSON.
    pub const RESULT: u8 = 0x82;
    /// The call failed: [`super::CallFailure`].
    pub const FAILURE: u8 = 0x83;
    /// One line of a stream: JSON without a newline.
    pub const CHUNK: u8 = 0x84;
    /// The stream ended well. No payload.
    pub const END: u8 = 0x85;
    /// [`crate::http::Progress`] of this call (id 0: of the tool).
    pub const PROGRESS: u8 = 0x86;
    /// [`super::Record`].
    pub const RECORD: u8 = 0x87;
    /// Usage of this call: a JSON object.
    pub const USAGE: u8 = 0x88;
    /// [`crate::http::Account`] of this call.
    pub const ACCOUNT: u8 = 0x89;
    /// The tool could not be loaded: [`super::LoadFailure`]; the tool exits after it.
    pub const LOAD_FAILED: u8 = 0x8a;
}

/// What the tool is told first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolStart {
    /// [`CHANNEL_VERSION`].
    pub channel_version: u32,
    /// The capability's name.
    pub capability_name: String,
    /// Its version.
    pub capability_version: String,
    /// Python module; empty for a tool that is no Python class.
    pub module: String,
    /// Python class; likewise.
    pub class: String,
    /// Task adapters to bind, `module:Class`.
    #[serde(default)]
    pub adapters: Vec<String>,
    /// Variables that must not stand in any other process's environment. The tool puts them into its own.
    #[serde(default)]
    pub secrets: Map<String, Value>,
    /// Least level of records to send: `DEBUG`, `INFO`, …
    pub log_level: String,
}

/// The tool is loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolReady {
    /// [`CHANNEL_VERSION`].
    pub channel_version: u32,
    /// What the tool calls itself.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// Hooks and methods it has beyond `execute`: names of the surface, such as `prefetch`, `execute_stream`; and
    /// `task/NAME` for each task that an adapter is bound for.
    #[serde(default)]
    pub supports: Vec<String>,
    /// Calls it will run side by side; further ones wait in the tool.
    pub concurrency_max: u32,
}

/// A call that did not succeed, as the HTTP answer it becomes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CallFailure {
    /// Status of the answer: 400, 404, 409 (cancelled), 500, 501.
    pub status: u16,
    /// Body of the answer, JSON: `{"detail": …}` or `{"_job_error": …}`. Without it the answer is the
    /// framework's `500 text/plain Internal Server Error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<RawValue>>,
}

/// One structured log record, on the runtime channel and on the host link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, as the tool says it; see [`made_at`](Self::made_at).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<Timestamp>,
    /// `DEBUG`, `INFO`, `WARNING`, `ERROR`, `CRITICAL`.
    pub level: String,
    /// Dotted name.
    #[serde(default)]
    pub logger_name: String,
    /// The message, formatted.
    pub message: String,
    /// Formatted traceback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exc_text: Option<String>,
    /// The job in whose call it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
}

impl Record {
    /// When it was made, written as the stores write it. What is kept goes by its time, so none is later than the present:
    /// a tool whose clock is ahead would keep its records, and those of all others would go.
    #[must_use]
    pub fn made_at(&self, now: Timestamp) -> Timestamp {
        let told = self.ts.as_ref().and_then(Timestamp::as_micros);
        told.filter(|told| now.as_micros().is_none_or(|now| *told <= now)).map_or(now, Timestamp::from_micros)
    }
}

/// Why a tool could not be loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadFailure {
    /// One line: `ModuleNotFoundError: No module named 'x'`.
    pub message: String,
    /// Formatted traceback.
    #[serde(default)]
    pub traceback: Option<String>,
    /// The signal that ended the tool's process before it could say more; the shim says this, not a tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

/// How the shim's words begin where it cannot write its files for Python; the system's words follow.
pub const SDK_NOT_WRITTEN: &str = "the Python SDK cannot be written";

impl LoadFailure {
    /// The same as the host takes it: of a long message the middle is missing, of a long traceback the beginning.
    #[must_use]
    pub fn shortened(&self) -> Self {
        let Self { message, traceback, signal } = self;
        let end = |text: &String| cut::end(text, LOAD_FAILURE_TRACEBACK_BYTES_MAX).into_owned();
        Self {
            message: without_middle(message, LOAD_FAILURE_MESSAGE_BYTES_MAX).into_owned(),
            traceback: traceback.as_ref().map(end),
            signal: *signal,
        }
    }
}

impl CallFailure {
    /// A 500 that carries the taxonomy's error.
    #[must_use]
    pub fn job_error(error: &JobError) -> Self {
        Self::with_body(500, &serde_json::json!({ "_job_error": error }))
    }

    /// `{"detail": …}` with the given status.
    #[must_use]
    pub fn detail(status: u16, detail: &str) -> Self {
        Self::with_body(status, &serde_json::json!({ "detail": detail }))
    }

    /// `{"detail": …}` with the taxonomy's error beside it, for hosts that read it.
    #[must_use]
    pub fn detail_of(status: u16, detail: &str, error: &JobError) -> Self {
        Self::with_body(status, &serde_json::json!({ "detail": detail, "_job_error": error }))
    }

    /// The answer of a cancelled call.
    #[must_use]
    pub fn cancelled(capability: &str) -> Self {
        Self::detail(409, &format!("Capability '{capability}' cancelled by operator"))
    }

    /// The same with the middle of its long texts taken out: an answer has a maximum, and a line of a stream a lower one.
    #[must_use]
    pub fn shortened(self) -> Self {
        let Self { status, body: Some(body) } = self else { return self };
        let text = body.get();
        if text.len() <= FAILURE_BYTES_MAX {
            return Self { status, body: Some(body) };
        }
        let error = serde_json::from_str::<JobErrorBody>(text).ok().map(|body| body.job_error.shortened());
        let detail = serde_json::from_str::<DetailBody>(text).ok();
        let detail = detail.as_ref().map(|body| without_middle(&body.detail, MESSAGE_BYTES_MAX));
        match (detail, error) {
            (None, Some(error)) => Self { status, ..Self::job_error(&error) },
            (Some(detail), None) => Self::detail(status, &detail),
            (Some(detail), Some(error)) => Self::detail_of(status, &detail, &error),
            (None, None) => Self::detail(status, &without_middle(text, MESSAGE_BYTES_MAX)),
        }
    }

    fn with_body(status: u16, body: &Value) -> Self {
        Self { status, body: RawValue::from_string(body.to_string()).ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_record_is_made_at_no_time_that_is_to_come_and_text_order_is_time_order() {
        let now = "2026-11-20T20:27:12.224970+00:00";
        for (ts, made_at) in [
            (None, now),
            (Some("yesterday"), now),
            (Some("2026-11-20 20:27:12"), now),
            (Some("2026-11-20T20:27:12.224971+00:00"), now),
            (Some("9999-01-01T00:00:00+00:00"), now),
            (Some("2026-11-20T19:27:12+00:00"), "2026-11-20T19:27:12+00:00"),
            (Some("2026-11-20T20:57:12+02:00"), "2026-11-20T18:57:12+00:00"),
            (Some("2026-11-20T20:27:12.2Z"), "2026-11-20T20:27:12.200000+00:00"),
            (Some(now), now),
        ] {
            let record = json!({"ts": ts, "level": "INFO", "message": "m"});
            let record: Record = serde_json::from_value(record).expect("a record");
            assert_eq!(record.made_at(Timestamp::from_text(now)).as_str(), made_at, "{ts:?}");
        }
    }

    #[test]
    fn a_failure_that_is_passed_on_has_a_maximum() {
        let long = format!("begin{}end", "x".repeat(1_000_000));
        let error = json!({"category": "user_input", "message": long, "retriable": true, "traceback": long});
        for (status, body, words) in [
            (500, json!({"_job_error": error}), r#""category":"user_input""#),
            (400, json!({"_job_error": error, "detail": long}), r#""detail":"beginx"#),
            (404, json!({"detail": long}), r#"{"detail":"beginx"#),
            (400, json!({"why": long}), r#"{"detail":"{\"why\":\"beginx"#),
        ] {
            let short = CallFailure::with_body(status, &body).shortened();
            let told = short.body.as_ref().expect("a body").get();
            assert!(told.contains(words) && told.contains("xend"), "{told}");
            assert!(
                told.len() <= FAILURE_BYTES_MAX && told.contains(" bytes dropped here]"),
                "{}",
                told.len()
            );
            assert_eq!(short.status, status);
            assert_eq!(
                short.clone().shortened().body.expect("a body").get(),
                told,
                "a second time changes nothing"
            );
        }
        let short = json!({"a": 1});
        assert_eq!(
            CallFailure::with_body(400, &short).shortened().body.expect("a body").get(),
            short.to_string()
        );
    }
}
