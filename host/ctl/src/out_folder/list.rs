//! What calls wrote into a folder of results: names in it, each with the SHA-256 of its file. It stands in the folder itself,
//! as lines of JSON objects, and is one line when a call has ended.
//!
//! What must hold: nothing of ours has its name in the folder before it stands here, so that a call that is killed at any
//! instant leaves nothing which the next one would take for somebody else's. Until the file is there the list has both, what
//! it holds and what it will hold.

use cjm_platform::files::{append_own, create_fresh, open_regular};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Its file.
pub(super) const LIST: &str = ".cjm-output.json";
/// Longest list that is read.
pub(super) const LIST_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How the name of what is being written begins and ends; between them stands the number of the process.
const PART: (&str, &str) = (".cjm-output.", ".part");

/// Where this process writes what is not whole yet. The name is as long whatever that will be called.
pub(super) fn part_in(folder: &Path) -> PathBuf {
    folder.join(format!("{}{}{}", PART.0, std::process::id(), PART.1))
}

/// Whether a part could have that name.
pub(super) fn is_part(name: &str) -> bool {
    let number = name.strip_prefix(PART.0).and_then(|rest| rest.strip_suffix(PART.1));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The list of one folder.
#[derive(Debug, Default)]
pub(super) struct List {
    folder: PathBuf,
    made: BTreeMap<String, BTreeSet<String>>,
    /// Open for more lines, once there were some.
    lines: Option<File>,
}

impl List {
    /// A list that cannot be read is none: then nothing is overwritten. Nor is what stands in a line that was cut off.
    pub(super) fn of(folder: &Path) -> Self {
        let mut text = String::new();
        let read = open_regular(&folder.join(LIST))
            .ok()
            .and_then(|file| file.take(LIST_BYTES_MAX).read_to_string(&mut text).ok());
        let lines = text.lines().take_while(|_| read.is_some());
        let mut list = Self { folder: folder.to_owned(), ..Self::default() };
        for (name, sha256) in
            lines.flat_map(|line| serde_json::from_str::<BTreeMap<String, String>>(line).unwrap_or_default())
        {
            list.made.entry(name).or_default().insert(sha256);
        }
        list
    }

    /// Whether a call wrote a file of that name, whatever stands there now.
    pub(super) fn has(&self, name: &str) -> bool {
        self.made.contains_key(name)
    }

    /// Whether a call wrote just that.
    pub(super) fn holds(&self, name: &str, sha256: &str) -> bool {
        self.made.get(name).is_some_and(|known| known.contains(sha256))
    }

    /// Says that a file will get that name.
    pub(super) fn announce(&mut self, name: &str, sha256: &str) -> std::io::Result<()> {
        if self.holds(name, sha256) {
            return Ok(());
        }
        let lines = match &mut self.lines {
            Some(lines) => lines,
            none => none.insert(append_own(&self.folder.join(LIST))?),
        };
        // The line before may have been cut off.
        lines.write_all(format!("\n{}", json!({ name: sha256 })).as_bytes())?;
        self.made.entry(name.to_owned()).or_default().insert(sha256.to_owned());
        Ok(())
    }

    /// Says that the file has its name: what stood there before is gone.
    pub(super) fn settle(&mut self, name: &str, sha256: &str) {
        self.made.insert(name.to_owned(), BTreeSet::from([sha256.to_owned()]));
    }

    /// Writes it as it is known now, shorter than its lines, where there were new ones.
    pub(super) fn close(mut self) -> std::io::Result<()> {
        if self.lines.take().is_none() {
            return Ok(());
        }
        let mut text = String::new();
        while !self.made.is_empty() {
            let line: BTreeMap<String, Option<String>> =
                self.made.iter_mut().map(|(name, known)| (name.clone(), known.pop_first())).collect();
            text.push_str(&format!("{}\n", Value::from_iter(line)));
            self.made.retain(|_, known| !known.is_empty());
        }
        let part = part_in(&self.folder);
        let written = create_fresh(&part).and_then(|mut file| file.write_all(text.as_bytes()));
        let named = written.and_then(|()| std::fs::rename(&part, self.folder.join(LIST)));
        named.inspect_err(|_| drop(std::fs::remove_file(&part)))
    }
}
