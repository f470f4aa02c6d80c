//! What is stored: a transcript, where it comes from, and on whose behalf it was stored.

use crate::error::StoreError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

/// Most documents of one call.
pub(crate) const DOCUMENTS_MAX: usize = 100_000;
/// Bytes of a recording that are hashed between two looks at the cancel flag.
const HASH_CHUNK_BYTES: usize = 1024 * 1024;

/// One transcript as it is given; keys this version does not know are left out.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Document {
    /// What was recorded: the file a person knows. `audio` when absent.
    #[serde(default)]
    pub(crate) recording: Option<String>,
    /// The file that was listened to, often a conversion of the recording.
    #[serde(default)]
    pub(crate) audio: Option<String>,
    /// What was said; empty when nothing was.
    pub(crate) text: String,
    /// Whether there was speech; whether there is text when absent.
    #[serde(default)]
    pub(crate) speech: Option<bool>,
    /// When what was said.
    #[serde(default)]
    pub(crate) segments: Vec<Segment>,
    /// Who made it, in order: capability, version, engine of each step.
    #[serde(default)]
    pub(crate) steps: Vec<Value>,
}

/// A stretch of a recording, in seconds from its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub(crate) start: f64,
    pub(crate) end: f64,
    #[serde(default)]
    pub(crate) text: String,
    /// Scores and the like, kept as they are.
    #[serde(flatten)]
    pub(crate) further: Map<String, Value>,
}

/// On whose behalf a call stores, and who stores.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    pub(crate) run_id: Option<String>,
    pub(crate) composition_id: Option<String>,
    pub(crate) node_id: Option<String>,
    pub(crate) job_id: Option<String>,
    pub(crate) actor: Option<String>,
    /// This capability, its version and instance, as the last step.
    pub(crate) stored_by: Value,
}

impl Document {
    /// Whether somebody spoke.
    pub(crate) fn has_speech(&self) -> bool {
        self.speech.unwrap_or_else(|| !self.text.trim().is_empty())
    }

    /// The file whose content identifies it.
    pub(crate) fn recording(&self, index: usize) -> Result<&str, StoreError> {
        self.recording.as_deref().or(self.audio.as_deref()).filter(|path| !path.is_empty()).ok_or_else(|| {
            StoreError::BadArgument {
                field: "documents",
                message: format!("documents[{index}] names neither a `recording` nor an `audio` file"),
            }
        })
    }
}

/// The SHA-256 of a file's content, in hex.
pub(crate) fn content_hash(
    index: usize,
    path: &str,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<String, StoreError> {
    let failed = |source| StoreError::Recording { index, path: Path::new(path).to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; HASH_CHUNK_BYTES];
    loop {
        if is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let count = file.read(&mut chunk).map_err(failed)?;
        if count == 0 {
            break;
        }
        hasher.update(&chunk[..count]);
    }
    Ok(hasher.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
