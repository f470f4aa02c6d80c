//! The tool behind the surface, whichever kind it is: one enum, and what the surface asks of every kind.
//!
//! What must hold: a call's `RunningCall` moves into whatever carries the call, so that the call counts as
//! running until the tool is done with it, also when nobody waits for its answer any more.

pub(crate) mod channel;
pub(crate) mod executable;
pub(crate) mod failures;
pub(crate) mod loaded;
pub(crate) mod native;
mod panics;
mod pool;
mod program;

use crate::calls::{CallState, RunningCall};
use crate::json_text::{has_lone_surrogate, unfit_number};
use crate::sdk::ToolError;
use bytes::Bytes;
use cjm_wire::channel::CallFailure;
use cjm_wire::cut;
use cjm_wire::error::{ErrorCategory, JobError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Chunks that wait for a reader of a stream at most.
pub(crate) const STREAM_CHUNKS_MAX: usize = 64;

/// Bodies above this are looked into on another thread, so that `/health` does not wait for it.
pub(crate) const INLINE_BYTES_MAX: usize = 256 * 1024;
/// Longest number quoted in an error.
const NUMBER_BYTES_SHOWN_MAX: usize = 80;
/// Bytes of a result that is no JSON quoted in an error.
const RESULT_BYTES_SHOWN_MAX: usize = 200;

/// What the surface asks a tool to do, one answer each. Streams and cancels are methods of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Execute,
    Task,
    Initialize,
    Reconfigure,
    Prefetch,
    OnDisable,
    OnEnable,
    Cleanup,
    Config,
    ConfigSchema,
    ConfigOptions,
    StructuralSurface,
    GetSystemStatus,
    ListProcesses,
}

/// Whom a cancel means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CancelScope {
    /// Whatever runs.
    All,
    /// The calls that are named.
    These,
}

/// The body of a 200 answer, or another answer.
pub(crate) type Outcome = Result<Bytes, CallFailure>;

/// A tool of any kind.
#[derive(Debug)]
pub(crate) enum Tool {
    Executable(executable::ExecutableTool),
    Native(native::NativeTool),
    Channel(channel::ChannelTool),
}

/// What comes out of a stream, one by one. Closed without a last word it was cut: nobody knows what is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamLine {
    /// One chunk, without newline.
    Chunk(Bytes),
    /// The error of a failed call; the last word.
    Failed(Bytes),
    /// All was sent; the last word.
    End,
}

/// A stream of chunks on its way out; dropping it early cancels the call.
#[derive(Debug)]
pub(crate) struct ChunkReader {
    pub(crate) lines: mpsc::Receiver<StreamLine>,
    /// Told of each chunk taken.
    pub(crate) credit: Option<channel::Credit>,
    /// The chunks may be anything: each is looked at before it is passed on.
    pub(crate) is_unchecked: bool,
}

impl Tool {
    /// Runs one operation to its end.
    pub(crate) async fn call(&self, operation: Operation, call: RunningCall, body: Bytes) -> Outcome {
        match self {
            Self::Executable(tool) => tool.call(operation, call, body).await,
            Self::Native(tool) => tool.call(operation, call, body).await,
            Self::Channel(tool) => tool.call(operation, call, body).await,
        }
    }

    /// Starts a streaming call.
    pub(crate) fn stream(&self, call: RunningCall, body: Bytes) -> ChunkReader {
        match self {
            Self::Executable(tool) => tool.stream(call, body),
            Self::Native(tool) => tool.stream(call, body),
            Self::Channel(tool) => tool.stream(call, body),
        }
    }

    /// Tells the tool that the flags of `calls` were raised. Does not wait.
    pub(crate) fn cancel(&self, calls: &[Arc<CallState>], scope: CancelScope) {
        match self {
            // Each call's own task watches its flag.
            Self::Executable(_) => {}
            Self::Native(tool) => tool.cancel(calls, scope),
            Self::Channel(tool) => tool.cancel(calls, scope),
        }
    }

    /// The tool's process is gone while the worker ends: whoever waits for an answer gets none.
    pub(crate) fn forget_calls(&self) {
        match self {
            Self::Executable(_) | Self::Native(_) => {}
            Self::Channel(tool) => tool.forget_calls(),
        }
    }

    /// Runs the tool's cleanup unless it has run, and ends it. Called when no call is running any more.
    pub(crate) async fn finish(&self) {
        match self {
            Self::Executable(tool) => tool.finish().await,
            Self::Native(tool) => tool.finish().await,
            Self::Channel(tool) => tool.finish().await,
        }
    }
}

/// Why a call cannot be taken.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// It has not the form of a call.
    Malformed(String),
    /// It says something that this tool cannot be told as it is.
    Unfit(ToolError),
}

/// Reads a call for a tool that gets parsed values. The surface has seen that it is a JSON object. What a parsed value
/// would have to round, or cannot hold, is refused.
pub(crate) fn read_call<T: DeserializeOwned>(body: &[u8]) -> Result<T, Unreadable> {
    let unfit = |why: &str| Unreadable::Unfit(unfit_call(body, why));
    if let Some(number) = unfit_number(body) {
        let shown = cut::beginning(number, NUMBER_BYTES_SHOWN_MAX);
        return Err(unfit(&format!(
            "the number {shown} is beyond what this tool can be given (integers of 64 bits, floats of double precision), \
             and it is not rounded"
        )));
    }
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Syntax if has_lone_surrogate(body) => unfit(
            "it has half of a surrogate pair (`\\ud800` to `\\udfff` alone), which is no character: leave it out, or \
             write both halves",
        ),
        serde_json::error::Category::Syntax => {
            unfit("it is nested more deeply than this tool can be given: flatten it, or pass a file")
        }
        _ => Unreadable::Malformed(error.to_string()),
    })
}

/// The refusal of a call that is JSON and cannot be had as values; names the arguments that it is about.
fn unfit_call(body: &[u8], why: &str) -> ToolError {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow, default)]
        kwargs: BTreeMap<Cow<'a, str>, &'a RawValue>,
    }
    let kwargs = serde_json::from_slice::<Head<'_>>(body).map(|head| head.kwargs).unwrap_or_default();
    let is_unfit = |value: &RawValue| {
        let text = value.get();
        unfit_number(text.as_bytes()).is_some() || serde_json::from_str::<Value>(text).is_err()
    };
    let names: Vec<String> =
        kwargs.iter().filter(|(_, value)| is_unfit(value)).map(|(name, _)| name.to_string()).collect();
    let of = if names.is_empty() { String::new() } else { format!("`{}`: ", names.join("`, `")) };
    ToolError::unfit(format!("{of}{why}")).fields(names)
}

impl Unreadable {
    /// The answer of a unary call.
    pub(crate) fn failure(&self, capability: &str) -> CallFailure {
        match self {
            Self::Malformed(_) => internal_server_error(),
            Self::Unfit(error) => error.failure(capability),
        }
    }
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed(why) => f.write_str(why),
            Self::Unfit(error) => error.fmt(f),
        }
    }
}

impl From<Unreadable> for ToolError {
    /// For streams, whose answer is the last line.
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Malformed(why) => Self::unfit(format!("the call cannot be read: {why}")),
            Unreadable::Unfit(error) => error,
        }
    }
}

/// `{"status": …}` as a 200 body.
pub(crate) fn status_body(status: &str) -> Bytes {
    serde_json::json!({ "status": status }).to_string().into()
}

/// The framework's answer to a fault without a description: 500 `text/plain`.
pub(crate) fn internal_server_error() -> CallFailure {
    CallFailure { status: 500, body: None }
}

/// The failure of a call whose tool gave a result, or a chunk of it, that is not JSON. Its class is the one that the Python SDK has for
/// results which cannot be written, so that hosts give the same advice.
pub(crate) fn not_json(what: &str, fault: &serde_json::Error, result: &[u8]) -> CallFailure {
    let shown = quote(result, RESULT_BYTES_SHOWN_MAX);
    let message = if result.is_empty() {
        format!("{what} is empty, and no JSON")
    } else {
        format!("{what} is no JSON ({fault}): {shown:?}")
    };
    let repr = format!("Unwritable({message:?})");
    CallFailure::job_error(&JobError {
        original_exc_repr: repr,
        ..JobError::new(ErrorCategory::Fatal, message)
    })
}

/// The beginning of what is no JSON, perhaps no text, and how much more there is.
fn quote(said: &[u8], bytes_max: usize) -> String {
    // A byte that is no text is shown as three.
    let looked_at = &said[..said.len().min(bytes_max + cut::MARK_BYTES_MAX + 4)];
    let text = String::from_utf8_lossy(looked_at);
    if looked_at.len() == said.len() {
        return cut::beginning(&text, bytes_max).into_owned();
    }
    let end = text.floor_char_boundary(bytes_max);
    let kept = text[..end].chars().map(|c| if c == char::REPLACEMENT_CHARACTER { 1 } else { c.len_utf8() });
    format!("{}{}", &text[..end], cut::mark(said.len().saturating_sub(kept.sum())))
}

/// A failure that is the worker's own, not the tool's.
pub(crate) fn worker_failure(category: ErrorCategory, message: impl Into<String>) -> CallFailure {
    CallFailure::job_error(&JobError::new(category, message))
}
