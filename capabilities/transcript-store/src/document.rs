//! What is stored: a transcript of a recording or of a page, where it comes from, and on whose behalf it was stored.

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

/// What a document was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A recording.
    #[default]
    Sound,
    /// The picture of a page.
    Page,
}

impl Kind {
    /// As it stands in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Page => "page",
        }
    }
}

/// One transcript as it is given; keys this version does not know are left out.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Document {
    /// What it was made of; sound when absent.
    #[serde(default)]
    pub(crate) kind: Kind,
    /// What was recorded, or the picture of the page: the file a person knows. `audio` when absent.
    #[serde(default, alias = "page")]
    pub(crate) recording: Option<String>,
    /// The file that was listened to, often a conversion of the recording.
    #[serde(default)]
    pub(crate) audio: Option<String>,
    /// What was said, or stands on the page; empty when nothing does.
    pub(crate) text: String,
    /// Whether there was speech; when absent, whether there is text and it was sound.
    #[serde(default)]
    pub(crate) speech: Option<bool>,
    /// When what was said, or the sentences of a page.
    #[serde(default)]
    pub(crate) segments: Vec<Segment>,
    /// Who made it, in order: capability, version, engine of each step.
    #[serde(default)]
    pub(crate) steps: Vec<Value>,
}

/// A stretch of a recording, or a sentence of a page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Segment {
    /// Seconds from the start of the recording.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<f64>,
    #[serde(default)]
    pub(crate) text: String,
    /// Scores, numbers of sentences and the like, kept as they are.
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
        self.speech.unwrap_or_else(|| self.kind == Kind::Sound && !self.text.trim().is_empty())
    }

    /// Whether what was said has times: a search answers with them.
    pub(crate) fn check(&self, index: usize) -> Result<(), StoreError> {
        let untimed = |segment: &Segment| segment.start.is_none() || segment.end.is_none();
        match self.segments.iter().position(untimed) {
            Some(segment) if self.kind == Kind::Sound => Err(StoreError::BadArgument {
                field: "documents",
                message: format!(
                    "documents[{index}].segments[{segment}] needs `start` and `end`, in seconds; only a page (kind: page) \
                     has none"
                ),
            }),
            _ => Ok(()),
        }
    }

    /// The file whose content identifies it.
    pub(crate) fn recording(&self, index: usize) -> Result<&str, StoreError> {
        self.recording.as_deref().or(self.audio.as_deref()).filter(|path| !path.is_empty()).ok_or_else(|| {
            StoreError::BadArgument {
                field: "documents",
                message: format!("documents[{index}] names no `recording`, no `page` and no `audio` file"),
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
