//! Files kept for the next call like this one: the directory is named after input and arguments, the record in it says
//! what exactly they are of.
//!
//! ```text
//!   (none) ──program ran, staging renamed──► kept ──same input, arguments, maker, files──► given again
//!      ▲                                      │
//!      └────── anything of it differs: run again, replaced as a whole ◄┘
//! ```
//! What must hold: a directory is whole or not there; of calls that make the same at one moment the first to be done is
//! kept and given to all (`publish`); what is given again is what the call would make, as far as
//! program, settings, arguments, content of the inputs and which files the arguments name can tell; trouble with it
//! costs the saving and never the call.

mod publish;

use super::Program;
use super::arguments::{Values, text};
use super::before::NotBegun;
use super::hashing::{Hashes, digits, mtime_ns, unread_state};
use super::plan::argument_templates;
use crate::calls::CallState;
use cjm_platform::files::read_regular;
use cjm_wire::cache::{FileState, relative_dir};
use cjm_wire::canonical::canonical_hash_of;
use cjm_wire::event::EventType;
use cjm_wire::http::Account;
use cjm_wire::runtime::{Action, ParameterKind};
use cjm_wire::runtime_check::{TemplatePart, parse_template};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// The record, inside the directory it speaks of.
const RECORD_FILE: &str = ".kept.json";
/// Largest record that is read.
const RECORD_BYTES_MAX: u64 = 1024 * 1024;

/// Where the files of one call are kept, or would be.
#[derive(Debug)]
pub(crate) struct Slot {
    dir: PathBuf,
    key: Key,
    /// All input files of the call, as they were before it.
    inputs: Vec<(PathBuf, FileState)>,
    /// What the call was told to replace.
    replaces: Option<Mark>,
}

/// Which record lies in a slot.
type Mark = (u64, i64);

/// What the files depend on, in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    action: String,
    input_hash: String,
    config_hash: String,
    /// See [`maker_hash`].
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
    /// None where an earlier version kept it, of this and the next.
    inode: Option<u64>,
    ctime_ns: Option<i64>,
    /// None of a directory, as earlier versions kept them.
    sha256: Option<String>,
}

impl KeptFile {
    /// The SHA-256 of the file at `path`, where it still holds what the program wrote. What cannot be the same file by all
    /// that the system says of it is read: other bytes may have its length and its time, and a data directory that was
    /// copied has all its files anew.
    async fn sha256_of(&self, path: &Path, hashes: &Hashes) -> Option<&str> {
        let (sha256, found) = (self.sha256.as_deref()?, unread_state(path)?);
        if self.size != found.size {
            return None;
        }
        if self.mtime_ns == found.mtime_ns && (self.inode, self.ctime_ns) == (found.inode, found.ctime_ns) {
            return Some(sha256);
        }
        let read = hashes.state(path).await.ok()?;
        (digits(&read.content_hash) == sha256).then_some(sha256)
    }
}

impl Slot {
    /// The slot of a call; reads its input files where nobody knows them.
    pub(crate) async fn of(
        program: &Program,
        name: &str,
        action: &Action,
        values: &Values,
        hashes: &Hashes,
    ) -> Result<Self, NotBegun> {
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
            let state = hashes.state(&path).await.map_err(|unread| unread.of_argument(parameter))?;
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
            maker_hash: maker_hash(program, action, values),
        };
        Ok(Self { dir: program.data_dir.join(relative), key, inputs, replaces: None })
    }

    /// The call makes these files anew, although they may be there.
    pub(crate) fn replace(&mut self) {
        self.replaces = self.mark();
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
                kept.sha256_of(path, hashes).await?.to_owned()
            } else {
                // The check of the manifest lets only inputs be named beside what is kept.
                digits(&hashes.state(path).await.ok()?.content_hash).to_owned()
            };
            files.insert(name.clone(), file_value(path, found.len(), Some(&sha256)));
        }
        Some(files)
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

    /// Whether the record is another one than that which the call was told to replace.
    fn is_of_another(&self) -> bool {
        self.replaces.is_none() || self.mark() != self.replaces
    }

    fn mark(&self) -> Option<Mark> {
        let found = std::fs::symlink_metadata(self.dir.join(RECORD_FILE)).ok()?;
        Some((found.ino(), mtime_ns(&found)))
    }

    fn record(&self) -> Option<Record> {
        // The folder is the tool's: what lies there under that name may be anything.
        let content = read_regular(&self.dir.join(RECORD_FILE), RECORD_BYTES_MAX).ok()?;
        serde_json::from_slice(&content).ok()
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

/// Another program, or the same one told otherwise or with other files in its hands, makes other files.
fn maker_hash(program: &Program, action: &Action, values: &Values) -> String {
    let states = files_named(program, action, values)
        .filter_map(|path| Some((path.to_string_lossy().into_owned(), unread_state(&path)?)));
    canonical_hash_of(&json!({
        "program": program.path.to_string_lossy(),
        "settings": program.settings_hash,
        "files": states.collect::<BTreeMap<_, _>>(),
        "action": serde_json::to_value(action).unwrap_or_default(),
    }))
}

/// Of the variables of these names. The rest of an environment is of whoever started the host: with it nothing would be
/// given again in another shell. The values, of which some are secret, cannot be read from it.
pub(crate) fn settings_hash(environment: &[(OsString, OsString)], names: &BTreeSet<&String>) -> String {
    let set = environment.iter().filter_map(|(name, value)| {
        let name = name.to_str().filter(|name| names.iter().any(|own| own == name))?;
        Some((name.to_owned(), Value::from(value.to_string_lossy())))
    });
    canonical_hash_of(&Value::Object(set.collect()))
}

/// What may be files that the program reads, beside its inputs: it itself, what its arguments name whoever calls
/// (`FILE`, `--option=FILE`), and parameters that are paths.
fn files_named<'a>(
    program: &'a Program,
    action: &'a Action,
    values: &'a Values,
) -> impl Iterator<Item = PathBuf> + 'a {
    let literals = argument_templates(action, values).filter_map(|template| literal(template));
    let literals = literals.flat_map(|text| {
        let of_option = text.split_once('=').map(|(_, value)| value.to_owned());
        std::iter::once(text).chain(of_option)
    });
    let is_path = |name: &String| {
        action.parameters.get(name).is_some_and(|declared| declared.kind == ParameterKind::Path)
    };
    let paths = values.iter().filter(move |(name, _)| is_path(name)).map(|(_, value)| text(value));
    let named = literals.chain(paths).map(|name| as_the_program_sees(&program.work_dir, &name));
    std::iter::once(program.path.clone()).chain(named)
}

/// A template that stands for nothing but itself.
fn literal(template: &str) -> Option<String> {
    let parts = parse_template(template).ok()?.into_iter().map(|part| match part {
        TemplatePart::Text(text) => Some(text),
        TemplatePart::Name { .. } => None,
    });
    parts.collect()
}

/// The path of what the program calls so: it starts in an empty directory below `work_dir`, which is not made yet.
fn as_the_program_sees(work_dir: &Path, name: &str) -> PathBuf {
    let mut directory = work_dir.join("of-the-call");
    let mut parts = Path::new(name).components();
    while let Some(first @ (Component::ParentDir | Component::CurDir)) = parts.clone().next() {
        parts.next();
        if first == Component::ParentDir {
            directory.pop();
        }
    }
    directory.join(parts.as_path())
}
