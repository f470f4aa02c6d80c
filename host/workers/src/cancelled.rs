//! The end of a call that was cancelled, or whose tool says so.

use crate::error::CallError;
use cjm_wire::error::{ErrorCategory, JobError};

impl CallError {
    /// The end of a call of which nothing is known to have been said.
    #[must_use]
    pub fn cancelled(capability: &str) -> Self {
        Self::Cancelled { capability: capability.to_owned(), stderr_tail: Vec::new() }
    }

    /// This end of a call as it is where nobody has asked for a cancel: then only the tool says that there was one.
    #[must_use]
    pub fn where_nobody_asked(self) -> Self {
        match self {
            Self::Cancelled { capability, stderr_tail } => {
                let message = "it says that the call was cancelled, and nobody had asked for that";
                let error = JobError::new(ErrorCategory::Transient, message);
                Self::Tool {
                    capability,
                    error: Box::new(error),
                    accounts: Vec::new(),
                    unset: Box::default(),
                    stderr_tail,
                }
            }
            other => other,
        }
    }
}
