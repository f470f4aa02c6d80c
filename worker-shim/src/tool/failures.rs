//! Why there is no tool, in the words of this process.

use cjm_wire::channel::LoadFailure;

/// A load failure without a traceback.
pub(crate) fn failure(message: &str) -> LoadFailure {
    LoadFailure { message: message.to_owned(), traceback: None, signal: None }
}
