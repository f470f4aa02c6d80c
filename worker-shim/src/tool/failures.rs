//! Why there is no tool, in the words of this process.

use cjm_wire::channel::{LOAD_FAILURE_MESSAGE_BYTES_MAX, LOAD_FAILURE_TRACEBACK_BYTES_MAX, LoadFailure};

/// A load failure without a traceback.
pub(crate) fn failure(message: &str) -> LoadFailure {
    LoadFailure { message: message.to_owned(), traceback: None, signal: None }
}

/// The same as the host takes it: the beginning of the message and the end of the traceback.
pub(crate) fn shortened(failure: &LoadFailure) -> LoadFailure {
    let LoadFailure { message, traceback, signal } = failure;
    let message = match message.floor_char_boundary(LOAD_FAILURE_MESSAGE_BYTES_MAX) {
        all if all == message.len() => message.clone(),
        end => format!("{} … (cut)", &message[..end]),
    };
    let traceback = traceback.as_ref().map(|traceback| {
        match traceback.ceil_char_boundary(traceback.len().saturating_sub(LOAD_FAILURE_TRACEBACK_BYTES_MAX)) {
            0 => traceback.clone(),
            begin => format!("(cut) … {}", &traceback[begin..]),
        }
    });
    LoadFailure { message, traceback, signal: *signal }
}
