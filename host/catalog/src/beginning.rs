//! Installations of tools that no manifest speaks for yet: a note beside the environment, written before anything of it is
//! made and removed once it is whole, says who asks for it.
//!
//! What must hold: the note is there before the first deed, so that whatever was broken off is told by its names.

use crate::list_steps::is_no_list;
use cjm_platform::files::read_regular_to_string;
use cjm_wire::InstanceId;
use cjm_wire::capabilities_file::{CapabilitiesFile, Entry};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// In an environment that is whole: it is removed before anything else of it changes, and written last.
pub const STAMP_FILE: &str = "cjm-stamp.json";
/// In one that conda keeps for others too and that is not whole: whose it is, as in its stamp.
pub const UNFINISHED_FILE: &str = "cjm-unfinished.json";

/// What a note is called, between a dot and this: the name of its environment.
const NOTE_SUFFIX: &str = ".list";
/// The line of a note that says whom else was asked.
const OF_CONDA: &str = "conda";
/// Largest list that is looked into.
const LIST_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Longest note that is read: a path and two names.
const NOTE_BYTES_MAX: u64 = 8192;

/// Whether an environment that our installation makes has come to its end.
#[must_use]
pub fn is_whole(environment: &Path) -> bool {
    environment.join(STAMP_FILE).is_file()
}

/// The note beside an environment that is made for the first time.
#[must_use]
pub fn note_beside(environment: &Path) -> PathBuf {
    let name = environment.file_name().unwrap_or_default().to_string_lossy();
    environment.with_file_name(format!(".{name}{NOTE_SUFFIX}"))
}

/// What the note says, one a line: the list that asks for the environment, the name of its entry, that of the tool once it
/// is known, and that conda was asked to make it, where it was.
#[must_use]
pub fn note_text(list: &Path, entry: &str, capability: Option<&str>, of_conda: bool) -> String {
    let list = list.display().to_string();
    // It is told to people, and ends with its line.
    let list = if list.contains(char::is_control) { String::new() } else { list };
    let mut lines = vec![list.as_str(), entry];
    lines.extend(capability.or(of_conda.then_some("")));
    lines.extend(of_conda.then_some(OF_CONDA));
    lines.join("\n")
}

/// An environment that was begun and is not whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// Its name.
    pub env_name: String,
    /// Where it is, or would be.
    pub environment: PathBuf,
    /// Whether there is a note; what an earlier version or another program began has none.
    pub is_noted: bool,
    /// The list that asks for it.
    pub list: Option<PathBuf>,
    /// The entry of that list.
    pub entry: Option<String>,
    /// Its tool, once that is known.
    pub capability: Option<String>,
    /// Whether conda was asked to make it, and has not removed it since: then something may lie where conda puts it.
    pub of_conda: bool,
}

impl Beginning {
    /// What the note says of this environment, whole or not; nothing but its name where there is none.
    #[must_use]
    pub fn read(environment: &Path) -> Self {
        let text = read_regular_to_string(&note_beside(environment), NOTE_BYTES_MAX).ok();
        // It may have come along with a folder, and is told to people.
        let mut lines = text
            .as_deref()
            .unwrap_or_default()
            .lines()
            .map(|line| (!line.is_empty() && !line.contains(char::is_control)).then(|| line.to_owned()));
        let mut next = || lines.next().flatten();
        Self {
            env_name: environment.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            environment: environment.to_owned(),
            list: next().map(PathBuf::from),
            entry: next(),
            capability: next(),
            of_conda: next().as_deref() == Some(OF_CONDA),
            is_noted: text.is_some(),
        }
    }

    /// All of a data directory, by name: environments, also those of which nothing but the note is there.
    #[must_use]
    pub fn unended(data_dir: &Path) -> Vec<Self> {
        let environments = data_dir.join("envs");
        let listing = std::fs::read_dir(&environments).into_iter().flatten().flatten();
        let mut found = BTreeMap::new();
        for one in listing {
            let Ok(file) = one.file_name().into_string() else { continue };
            let noted = file.strip_prefix('.').and_then(|rest| rest.strip_suffix(NOTE_SUFFIX));
            let name = noted.unwrap_or(&file);
            let environment = environments.join(name);
            let is_one = InstanceId::is_valid(name) && !is_whole(&environment);
            if is_one && (noted.is_some() || one.path().is_dir() || one.path().is_symlink()) {
                found.entry(name.to_owned()).or_insert_with(|| Self::read(&environment));
            }
        }
        found.into_values().collect()
    }

    /// Whether its list still asks for it: only then an installation goes on with it. A list that cannot be read may do so, and
    /// of what is in no note nobody knows.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        let Some(list) = &self.list else { return true };
        let text = match read_regular_to_string(list, LIST_BYTES_MAX) {
            Ok(text) => text,
            Err(error) => return !is_no_list(&error),
        };
        let Ok(file) = CapabilitiesFile::parse_each(&text) else { return true };
        // Of one with a fault not all names can be read.
        let asks = |entry: &Entry| match entry.fault {
            None => entry.manifest.is_none() && entry.env_name == self.env_name,
            Some(_) => entry.env_name == self.env_name || self.entry.as_ref() == Some(&entry.name),
        };
        file.capabilities.iter().any(asks)
    }

    /// Whether somebody may ask for it by this name: its tool's, its entry's or its own.
    #[must_use]
    pub fn goes_by(&self, name: &str) -> bool {
        self.env_name == name || [&self.entry, &self.capability].into_iter().flatten().any(|one| one == name)
    }

    /// That it came to no end, by the names that are known of it.
    #[must_use]
    pub fn broken_off(&self) -> String {
        let of_entry = self.entry.as_ref().filter(|entry| *entry != self.label());
        let of_entry = of_entry.map(|entry| format!(" (entry \"{entry}\")")).unwrap_or_default();
        format!("the installation of \"{}\"{of_entry} failed or was broken off", self.label())
    }

    /// What people call it: its tool, as far as that is known.
    #[must_use]
    pub fn label(&self) -> &str {
        self.capability.as_deref().or(self.entry.as_deref()).unwrap_or(&self.env_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_is_known_by_its_note_or_its_folder_until_it_is_whole() {
        let data = tempfile::tempdir().expect("tempdir");
        let home = |name: &str| data.path().join("envs").join(name);
        std::fs::create_dir_all(home("bare")).expect("a folder");
        std::fs::create_dir_all(home(".bare.former")).expect("a folder");
        std::fs::write(home("a-file"), "").expect("written");
        std::fs::write(note_beside(&home("noted")), note_text(Path::new("/l.yaml"), "speech", None, true))
            .expect("written");
        let text = note_text(Path::new("/two\nlines"), "e", Some("tool"), false);
        std::fs::write(note_beside(&home("other")), text).expect("written");
        let all = Beginning::unended(data.path());
        let labels: Vec<&str> = all.iter().map(Beginning::label).collect();
        assert_eq!(labels, ["bare", "speech", "tool"], "{all:?}");
        assert_eq!(all[1].list.as_deref(), Some(Path::new("/l.yaml")));
        assert_eq!((&all[2].list, all[2].entry.as_deref()), (&None, Some("e")));
        assert_eq!(all.iter().map(|one| one.of_conda).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(all[1].capability, None, "its line is there and empty");
        assert!(["other", "e", "tool"].iter().all(|name| all[2].goes_by(name)) && !all[2].goes_by("speech"));
        std::fs::create_dir_all(home("noted")).expect("a folder");
        std::fs::write(home("noted").join(STAMP_FILE), "").expect("written");
        assert_eq!(Beginning::unended(data.path()).len(), 2, "one is whole, though its note is there yet");
    }

    #[test]
    fn a_link_that_leads_nowhere_was_begun_as_well_and_a_folder_is_no_stamp() {
        let data = tempfile::tempdir().expect("tempdir");
        let home = |name: &str| data.path().join("envs").join(name);
        std::fs::create_dir_all(home("made").join(STAMP_FILE)).expect("a folder");
        std::os::unix::fs::symlink("/nonexistent/of-conda", home("of-conda")).expect("linked");
        let all = Beginning::unended(data.path());
        assert_eq!(all.iter().map(Beginning::label).collect::<Vec<_>>(), ["made", "of-conda"]);
    }
}
