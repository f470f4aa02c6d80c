//! What the tool says, frame by frame. A trust boundary: a tool is believed about its own calls and nothing else.

use super::waiting::Misfit;
use super::{Shared, stream_line_of};
use crate::calls::Calls;
use crate::frames::{Frame, FrameReader, ReadError};
use crate::json_text::show_lone_surrogates;
use crate::link::HostLink;
use crate::watch::ReaderWatch;
use cjm_quiet_socket::QuietReader;
use cjm_wire::Timestamp;
use cjm_wire::channel::{CallFailure, Record, to_shim};
use cjm_wire::frame::SMALL_PAYLOAD_BYTES_MAX;
use cjm_wire::http::{Account, Progress};
use cjm_wire::long_numbers::long_numbers_as_text;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a tool that closed its channel may take to exit by itself.
const EXIT_AFTER_CLOSE_MAX: Duration = Duration::from_secs(2);

/// What is said of a tool that closed its channel, or one direction of it, and lived on.
const CLOSED: &str = "it closed its channel, or shut it down, and went on running";

/// A frame that may not be: the tool is ended for it.
#[derive(Debug, thiserror::Error)]
enum Offence {
    #[error(transparent)]
    Misfit(#[from] Misfit),
    #[error("it sent a failure that cannot be read ({0})")]
    Failure(serde_json::Error),
    #[error("it said that it is ready, or failed to load, after it was ready")]
    Again,
    #[error("it sent a frame of the unknown kind {0:#04x}")]
    Kind(u8),
}

/// Reads until the channel ends or its rules are broken; in both cases the process will have to end.
pub(super) async fn read_all(shared: &Shared, reader: &mut FrameReader<QuietReader>) {
    let why = loop {
        match reader.next().await {
            Ok(Some(frame)) => {
                if let Err(offence) = take(shared, frame) {
                    return shared.condemn(&offence.to_string());
                }
            }
            Ok(None) => break CLOSED.to_owned(),
            // A process that is killed while it writes looks like this too, a moment before its exit.
            Err(error) if matches!(error, ReadError::Cut | ReadError::Io(_)) => {
                note_reset(shared, &error);
                break error.to_string();
            }
            Err(error) => return shared.condemn(&error.to_string()),
        }
    };
    // Whoever called this ends it when the process has exited.
    tokio::time::sleep(EXIT_AFTER_CLOSE_MAX).await;
    shared.condemn(&why);
}

/// Waits until the tool can hear nothing more, and ends it unless it ends; what it says meanwhile is `read_all`'s.
pub(super) async fn stops_hearing(shared: &Shared, hears: Option<&ReaderWatch>) {
    match hears {
        // Of one that leaves while a frame waits for room only the write is told.
        Some(hears) => tokio::select! {
            () = hears.left() => {}
            () = shared.outgoing.breaks() => {}
        },
        None => std::future::pending().await,
    }
    tokio::time::sleep(EXIT_AFTER_CLOSE_MAX).await;
    shared.condemn(CLOSED);
}

/// Takes what an exited tool has left in the channel.
pub(super) async fn read_last(shared: &Shared, reader: &mut FrameReader<QuietReader>) {
    loop {
        match reader.next().await {
            Ok(Some(frame)) => {
                if let Err(offence) = take(shared, frame) {
                    return shared.condemn(&offence.to_string());
                }
            }
            Ok(None) => return,
            Err(error) => return note_reset(shared, &error),
        }
    }
}

/// The kernel resets a channel whose other end was closed before all was read from it.
fn note_reset(shared: &Shared, error: &ReadError) {
    if matches!(error, ReadError::Io(error) if error.kind() == io::ErrorKind::ConnectionReset) {
        shared.reset.store(true, Ordering::Relaxed);
    }
}

/// Progress of the tool as a whole.
pub(super) fn tool_progress(calls: &Calls, payload: &[u8]) {
    if let Some(progress) = small::<Progress>(payload) {
        calls.report_tool_progress(progress.progress, &progress.message);
    }
}

/// A record that belongs to no call.
pub(super) fn tool_record(link: &HostLink, payload: &[u8]) {
    let Some(mut record) = small::<Record>(payload) else { return link.count_dropped(1) };
    record.job_id = None;
    record.ts.get_or_insert_with(Timestamp::now);
    link.record(&record);
}

fn take(shared: &Shared, frame: Frame) -> Result<(), Offence> {
    let Frame { kind, call_id, payload } = frame;
    match kind {
        to_shim::RESULT => shared.waiting.result(call_id, payload)?,
        to_shim::FAILURE => {
            let failure: CallFailure =
                serde_json::from_slice(&show_lone_surrogates(&payload)).map_err(Offence::Failure)?;
            shared.waiting.failure(call_id, failure.shortened(), stream_line_of)?;
        }
        to_shim::CHUNK => shared.waiting.chunk(call_id, payload)?,
        to_shim::END => shared.waiting.end(call_id)?,
        to_shim::PROGRESS => {
            if call_id == 0 {
                tool_progress(&shared.context.calls, &payload);
            } else if let (Some(call), Some(said)) =
                (shared.waiting.call(call_id), small::<Progress>(&payload))
            {
                call.report_progress(said.progress, &said.message);
            }
        }
        to_shim::USAGE => {
            let usage = small::<Map<String, Value>>(&payload);
            if let (Some(call), Some(usage)) = (shared.waiting.call(call_id), usage) {
                call.report_usage(usage);
            }
        }
        to_shim::ACCOUNT => {
            if let Some(call) = shared.waiting.call(call_id) {
                // What is not kept is counted and said with the header.
                match small::<Account>(&payload) {
                    Some(account) => drop(call.account(&account)),
                    None => call.drop_account(),
                }
            }
        }
        to_shim::RECORD => record(shared, call_id, &payload),
        to_shim::READY | to_shim::LOAD_FAILED => return Err(Offence::Again),
        unknown => return Err(Offence::Kind(unknown)),
    }
    Ok(())
}

/// Passes a record on. The job in it is the call's, whatever the tool says.
fn record(shared: &Shared, call_id: u64, payload: &[u8]) {
    let Some(mut record) = small::<Record>(payload) else { return shared.context.link.count_dropped(1) };
    record.job_id = match shared.waiting.call(call_id) {
        Some(call) => call.job_id.clone(),
        None => record.job_id.filter(|job_id| shared.waiting.has_job(job_id)),
    };
    record.ts.get_or_insert_with(Timestamp::now);
    shared.context.link.record(&record);
}

/// A report within its size, with numbers of any length; what is no report is dropped, since nobody waits for it.
fn small<T: DeserializeOwned>(payload: &[u8]) -> Option<T> {
    if payload.len() > SMALL_PAYLOAD_BYTES_MAX {
        return None;
    }
    let payload = long_numbers_as_text(payload);
    serde_json::from_slice(&payload).or_else(|_| serde_json::from_slice(&show_lone_surrogates(&payload))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_account_is_told_apart_from_one() {
        let deep = format!(
            "{{\"event_type\": \"result_saved\", \"payload\": {{\"a\": {}}}}}",
            "[".repeat(200) + &"]".repeat(200)
        );
        for payload in [br#"{"event_type": "result_saved", "payload": ["x"]}"#.as_slice(), deep.as_bytes()] {
            assert!(small::<Account>(payload).is_none());
        }
    }

    #[test]
    fn a_number_beyond_64_bits_is_accounted_for_digit_by_digit() {
        let payload = br#"{"event_type": "result_saved", "payload": {"a": 1180591620717411303424, "b": 1}}"#;
        let account = small::<Account>(payload).expect("an account");
        assert_eq!(Value::from(account.payload).to_string(), r#"{"a":"1180591620717411303424","b":1}"#);
    }
}
