//! What can go wrong in the store, and whose business it is.

use cjm_worker::ToolError;
use std::path::PathBuf;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// An argument cannot be used.
    #[error("{message}")]
    BadArgument { field: &'static str, message: String },
    /// The recording that a document names cannot be read.
    #[error("documents[{index}]: the recording {} cannot be read: {source}", path.display())]
    Recording { index: usize, path: PathBuf, source: std::io::Error },
    /// The full-text query is not one.
    #[error(
        "the query `{query}` cannot be read ({fault}): put phrases and words with signs in double quotes, as in \
         \"front left\"; between words write AND, OR or NOT; `fro*` finds what begins so"
    )]
    BadQuery { query: String, fault: String },
    /// No document has this number.
    #[error("there is no document {0}; `list` names those there are")]
    NoSuchDocument(i64),
    /// Somebody asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The database refused.
    #[error("the transcript database: {0}")]
    Database(#[from] rusqlite::Error),
    /// The database is from another version.
    #[error("the transcript database cannot be brought to this version: {0}")]
    Migration(#[from] rusqlite_migration::Error),
    /// A stored text is no JSON any more.
    #[error("the transcript database holds what this version cannot read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The folder cannot be used.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
}

impl From<StoreError> for ToolError {
    fn from(error: StoreError) -> Self {
        use rusqlite::ErrorCode;
        let message = error.to_string();
        match error {
            StoreError::BadArgument { field, .. } => Self::user_input(message).fields([field]),
            StoreError::Recording { .. } => Self::user_input(message).fields(["documents"]),
            StoreError::BadQuery { .. } => Self::user_input(message).fields(["query"]),
            StoreError::NoSuchDocument(_) => Self::user_input(message).fields(["id"]),
            StoreError::Cancelled => Self::cancelled(),
            StoreError::Database(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::transient(message),
                Some(ErrorCode::DiskFull | ErrorCode::OutOfMemory) => Self::resource(message),
                Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => Self::transient(message),
                _ => Self::fatal(message),
            },
            StoreError::Migration(_) | StoreError::Unreadable(_) => Self::fatal(message),
            StoreError::File { source, .. } => Self::from(std::io::Error::new(source.kind(), message)),
        }
    }
}
