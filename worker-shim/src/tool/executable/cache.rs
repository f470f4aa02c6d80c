//! Files kept for the next call like this one: the directory is named after input and arguments, the record in it says
//! what exactly they are of.
//!
//! ```text
//!   (none) ──program ran, staging renamed──► kept ──same input, arguments, program, files──► given again
//!      ▲                                      │
//!      └────── anything of it differs: run again, replaced as a whole ◄┘
//! ```
//! What must hold: a directory is whole or not there; what is given again is what the call would make, as far as
//! program, arguments, content of the inputs and the files' sizes and times can tell; trouble with it costs the saving
//! and never the call.

use super::Program;
use super::arguments::{Values, text};
use super::hashing::{Hashes, digits, is_unchanged, mtime_ns};
use super::plan::Plan;
use crate::calls::CallState;
use crate::sdk::ToolError;
use cjm_platform::files::read_regular;
use cjm_wire::cache::{FileState, relative_dir};
use cjm_wire::canonical::canonical_hash_of;
use cjm_wire::event::EventType;
use cjm_wire::http::Account;
use cjm_wire::runtime::{Action, ParameterKind};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The record, inside the directory it speaks of.
const RECORD_FILE: &str = ".kept.json";
/// Largest record that is read.
const RECORD_BYTES_MAX: u64 = 1024 * 1024;
/// How often a directory that others fill at the same moment is replaced.
const PUBLISH_ATTEMPTS_MAX: u32 = 4;

/// Where the files of one call are kept, or would be.
#[derive(Debug)]
pub(crate) struct Slot {
    dir: PathBuf,
    key: Key,
    /// All input files of the call, as they were before it.
    inputs: Vec<(PathBuf, FileState)>,
}

/// What the files depend on, in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    action: String,
    input_hash: String,
    config_hash: String,
    /// The program's file and what the manifest says of the action.
    maker_hash: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    key: Key,
    files: BTreeMap<String, KeptFile>,
}

/// A file as it was when the program had made it.
#[derive(Debug, Serialize, Deserialize)]
struct KeptFile {
    name: PathBuf,
    size: u64,
    mtime_ns: i64,
    /// None of a directory, as earlier versions kept them.
    sha256: Option<String>,
}

impl Slot {
    /// The slot of a call; reads its input files where nobody knows them.
    pub(crate) async fn of(
        program: &Program,
        name: &str,
        action: &Action,
        values: &Values,
        hashes: &Hashes,
    ) -> Result<Self, ToolError> {
        let main = action.main_input().unwrap_or_default();
        let mut input = (PathBuf::new(), String::new());
        let (mut inputs, mut config) = (Vec::new(), Map::new());
        for (parameter, value) in values {
            let declared = action.parameters.get(parameter).map(|declared| declared.kind);
            if declared != Some(ParameterKind::InputFile) {
                config.insert(parameter.clone(), value.clone());
                continue;
            }
            let path = PathBuf::from(text(value));
            let state = hashes.state(&path).await.map_err(|error| error.fields([parameter]))?;
            if parameter == main {
                input = (path.clone(), state.content_hash.clone());
            } else {
                config.insert(parameter.clone(), state.content_hash.clone().into());
            }
            inputs.push((path, state));
        }
        let relative = relative_dir(name, &input.0, &input.1, &config);
        let key = Key {
            action: name.to_owned(),
            input_hash: input.1,
            config_hash: canonical_hash_of(&Value::Object(config)),
            maker_hash: maker_hash(program, action),
        };
        Ok(Self { dir: program.data_dir.join(relative), key, inputs })
    }

    /// The directory's final name.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The files as the result names them, if they are here and still what they were. `outputs` are the paths that they
    /// have in this slot.
    pub(crate) async fn find(
        &self,
        outputs: &IndexMap<String, PathBuf>,
        hashes: &Hashes,
    ) -> Option<Map<String, Value>> {
        let record = self.record()?;
        if record.key != self.key {
            return None;
        }
        let mut files = Map::new();
        for (name, path) in outputs {
            let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
            let sha256 = if let Ok(inside) = path.strip_prefix(&self.dir) {
                let kept = record.files.get(name).filter(|kept| kept.name == inside)?;
                if kept.size != found.len() || kept.mtime_ns != mtime_ns(&found) {
                    return None;
                }
                kept.sha256.clone()
            } else {
                // The check of the manifest lets only inputs be named beside what is kept.
                Some(digits(&hashes.state(path).await.ok()?.content_hash).to_owned())
            };
            files.insert(name.clone(), file_value(path, found.len(), sha256.as_deref()));
        }
        Some(files)
    }

    /// Makes the files that the program has left in the plan's staging directory those of this slot, and corrects the
    /// paths in `files`. Where that cannot be they stay where they are, and are good for this call.
    pub(crate) fn keep(&self, plan: &Plan, files: &mut Map<String, Value>) {
        // An input that changed while the program ran: nobody can say which of the two it was made of.
        let is_sound = self
            .inputs
            .iter()
            .all(|(path, before)| std::fs::metadata(path).is_ok_and(|found| is_unchanged(before, &found)));
        if !is_sound || self.publish(plan, files).is_err() {
            return;
        }
        for (name, path) in &plan.outputs {
            if let (Ok(inside), Some(file)) = (path.strip_prefix(&plan.cache_dir), files.get_mut(name)) {
                file["path"] = self.dir.join(inside).to_string_lossy().into();
            }
        }
    }

    /// Tells the journal that files were given again.
    pub(crate) fn account(&self, call: &CallState, files: &Map<String, Value>) {
        // Inputs are named among the files, and nobody made them.
        let is_kept =
            |file: &&Value| file["path"].as_str().is_some_and(|path| Path::new(path).starts_with(&self.dir));
        let kept: Vec<&Value> = files.values().filter(is_kept).collect();
        let bytes: u64 = kept.iter().filter_map(|file| file["bytes"].as_u64()).sum();
        let payload = json!({
            "action": self.key.action,
            "input": self.inputs.first().map(|(path, _)| path.to_string_lossy()),
            "input_hash": self.key.input_hash,
            "config_hash": self.key.config_hash,
            "directory": self.dir.to_string_lossy(),
            "files": kept.len(),
            "bytes": bytes,
        });
        if let Value::Object(payload) = payload {
            call.account(&Account { event_type: EventType::CacheHit.as_str().to_owned(), payload });
        }
    }

    fn record(&self) -> Option<Record> {
        // The folder is the tool's: what lies there under that name may be anything.
        let content = read_regular(&self.dir.join(RECORD_FILE), RECORD_BYTES_MAX).ok()?;
        serde_json::from_slice(&content).ok()
    }

    fn publish(&self, plan: &Plan, files: &Map<String, Value>) -> io::Result<()> {
        let mut kept = BTreeMap::new();
        for (name, path) in &plan.outputs {
            let Ok(inside) = path.strip_prefix(&plan.cache_dir) else { continue };
            if inside.components().any(|part| !matches!(part, Component::Normal(_))) {
                return Err(io::Error::other("an output that lies elsewhere"));
            }
            let found = std::fs::metadata(path)?;
            let sha256 = files.get(name).and_then(|file| file["sha256"].as_str()).map(str::to_owned);
            let file =
                KeptFile { name: inside.to_owned(), size: found.len(), mtime_ns: mtime_ns(&found), sha256 };
            kept.insert(name.clone(), file);
        }
        let record = serde_json::to_vec(&Record { key: self.key.clone(), files: kept })?;
        std::fs::write(plan.cache_dir.join(RECORD_FILE), record)?;
        std::fs::create_dir_all(self.dir.parent().unwrap_or(&self.dir))?;
        for attempt in 0..PUBLISH_ATTEMPTS_MAX {
            match std::fs::rename(&plan.cache_dir, &self.dir) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                    ) =>
                {
                    // What is there is old, or was made by another call at this moment.
                    let aside = plan.work_dir.join(format!("replaced-{attempt}"));
                    if std::fs::rename(&self.dir, &aside).is_ok() {
                        // What cannot be removed is a leftover in the call's own directory.
                        let _ = std::fs::remove_dir_all(&aside);
                    }
                }
                renamed => return renamed,
            }
        }
        Err(io::Error::other("others fill the directory again and again"))
    }
}

/// One entry of a result with files.
pub(crate) fn file_value(path: &Path, bytes: u64, sha256: Option<&str>) -> Value {
    let mut value = json!({"path": path.to_string_lossy(), "bytes": bytes});
    if let Some(sha256) = sha256 {
        value["sha256"] = sha256.into();
    }
    value
}

/// Another program, or the same one told otherwise, makes other files.
fn maker_hash(program: &Program, action: &Action) -> String {
    let file = std::fs::metadata(&program.path).map(|found| json!([found.len(), mtime_ns(&found)]));
    canonical_hash_of(&json!({
        "program": program.path.to_string_lossy(),
        "file": file.unwrap_or_default(),
        "action": serde_json::to_value(action).unwrap_or_default(),
    }))
}
