//! A failure of a call before its program ran.
//!
//! What must hold: whoever is told of it learns that the tool has not run. So all that leads to a program answers with
//! this type, into which `?` turns any other failure, and only from it comes what the caller is told.

use crate::sdk::ToolError;

/// Why a program was not run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NotBegun(ToolError);

impl From<ToolError> for NotBegun {
    fn from(error: ToolError) -> Self {
        Self(error.not_begun())
    }
}

impl From<NotBegun> for ToolError {
    fn from(NotBegun(error): NotBegun) -> Self {
        error
    }
}
