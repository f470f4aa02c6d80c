//! The stamp of a finished environment: written last, removed first, so that an environment with a stamp is whole,
//! and one without is gone on with. Comparing it takes no network and executes nothing.
//!
//! What must hold: an environment that conda keeps for others too says whose it is also while it is not whole, at every instant.

use crate::error::EnvironmentError;
use crate::files::write_whole;
use crate::interpreters::Interpreter;
use crate::manifests::read_existing;
use cjm_catalog::beginning::{STAMP_FILE, UNFINISHED_FILE};
use cjm_catalog::elsewhere::{Holder, identity_of};
use cjm_platform::files::read_regular;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Largest stamp that is read, in bytes.
const STAMP_BYTES_MAX: u64 = 1024 * 1024;

/// What a finished environment was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// Hash over the entry, its folders, and who installs.
    pub(crate) request: String,
    /// The interpreter it was made with.
    pub(crate) python_path: PathBuf,
    /// Its version.
    pub(crate) python_version: String,
    /// Its file's identity, which an upgrade of the system changes.
    python_file: String,
    /// Hash of the lock.
    pub(crate) lock_hash: String,
    /// The capability it holds: its manifest's name.
    pub(crate) capability: String,
    /// File names of its adapters' manifests.
    #[serde(default)]
    pub(crate) adapters: Vec<String>,
    /// Of one that conda keeps for others too: the data directory whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Which directory that is, where the file system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data_dir_identity: Option<String>,
    /// Likewise: it was there before anything of ours, and is somebody's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_found: bool,
}

/// What says whose an environment is that is not whole; [`Holder`] reads it.
#[derive(Serialize)]
struct Begun<'a> {
    capability: &'a str,
    data_dir: &'a Path,
    data_dir_identity: Option<String>,
    lock_hash: &'a str,
    is_found: bool,
}

/// Where an environment came from, by what lies in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An installation of ours made it.
    Installation,
    /// It was there before anything of ours, and is somebody's.
    Found,
    /// Nothing of ours is in it.
    Unsaid,
}

impl Origin {
    /// What an environment says whose files lie in `folder`.
    pub(crate) fn said_in(folder: &Path) -> Self {
        let of_stamp = || Stamp::read(folder).map(|stamp| stamp.is_found);
        let of_unfinished = || Holder::read(folder).map(|holder| holder.is_found);
        match of_stamp().or_else(of_unfinished) {
            Some(true) => Self::Found,
            Some(false) => Self::Installation,
            None => Self::Unsaid,
        }
    }
}

impl Stamp {
    pub(crate) fn new(
        request: String,
        interpreter: &Interpreter,
        lock_hash: String,
        capability: String,
        adapters: Vec<String>,
    ) -> Self {
        Self {
            request,
            python_path: interpreter.path.clone(),
            python_version: interpreter.version.to_string(),
            python_file: file_identity(&interpreter.path).unwrap_or_default(),
            lock_hash,
            capability,
            adapters,
            data_dir: None,
            data_dir_identity: None,
            is_found: false,
        }
    }

    /// Says whose environment it is, of one that conda keeps for others too.
    pub(crate) fn belongs_to(&mut self, data_dir: Option<&Path>) {
        self.data_dir = data_dir.map(Path::to_owned);
        self.data_dir_identity = data_dir.and_then(identity_of);
    }

    /// The stamp of an environment, if it has one that can be read.
    pub(crate) fn read(environment: &Path) -> Option<Self> {
        serde_json::from_slice(&read_regular(&environment.join(STAMP_FILE), STAMP_BYTES_MAX).ok()?).ok()
    }

    pub(crate) fn write(&self, environment: &Path) -> Result<(), EnvironmentError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        write_whole(&environment.join(STAMP_FILE), &text)?;
        // Nobody looks at one that stays until the stamp goes, which takes its place.
        let _ = std::fs::remove_file(environment.join(UNFINISHED_FILE));
        Ok(())
    }

    /// From here on the environment is not whole. One that conda keeps for others too still says whose it is.
    pub(crate) fn remove(environment: &Path) -> Result<(), EnvironmentError> {
        let path = environment.join(STAMP_FILE);
        let says_whose = Self::read(environment).is_some_and(|stamp| stamp.data_dir.is_some());
        let removed = if says_whose {
            std::fs::rename(&path, environment.join(UNFINISHED_FILE))
        } else {
            std::fs::remove_file(&path)
        };
        match removed {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(EnvironmentError::File { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Takes all away that says whose an environment is: it is nobody's of ours from here on.
    pub(crate) fn forget(home: &Path) -> Result<(), EnvironmentError> {
        [STAMP_FILE, UNFINISHED_FILE].iter().try_for_each(|name| {
            let path = home.join(name);
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    Err(EnvironmentError::File { action: "remove", path, source })
                }
                _ => Ok(()),
            }
        })
    }

    /// Says whose an environment is that conda keeps for others too, before anything of ours is put into it: from here on it
    /// is not whole. `is_found`: it was there before, of which nothing tells but this.
    pub(crate) fn begin(
        home: &Path,
        capability: &str,
        data_dir: &Path,
        is_found: bool,
    ) -> Result<(), EnvironmentError> {
        Self::remove(home)?;
        let known = Holder::read(home);
        let is_found = known.as_ref().map_or(is_found, |known| known.is_found);
        let own = known.as_ref().filter(|known| known.is(data_dir));
        let begun = Begun {
            capability: own.map_or(capability, |own| &own.capability),
            data_dir,
            data_dir_identity: identity_of(data_dir),
            lock_hash: own.map_or("", |own| &own.lock_hash),
            is_found,
        };
        let text = serde_json::to_vec_pretty(&begun).unwrap_or_default();
        write_whole(&home.join(UNFINISHED_FILE), &text)
    }

    /// Whether nothing of it has changed: request, interpreter, environment, manifests.
    pub(crate) fn is_current(&self, request: &str, environment: &Path, manifests: &Path) -> bool {
        let python = environment.join("bin/python");
        let installed = || {
            let manifest = read_existing(&manifests.join(format!("{}.json", self.capability)))?;
            Some(manifest.install.python_path)
        };
        self.request == request
            && file_identity(&self.python_path).is_some_and(|identity| identity == self.python_file)
            && python.exists()
            && self.adapters.iter().all(|name| manifests.join(name).is_file())
            && installed().is_some_and(|path| Path::new(&path) == python)
    }
}

/// The version of an installed tool.
pub(crate) fn version_in(manifests: &Path, capability: &str) -> Option<String> {
    read_existing(&manifests.join(format!("{capability}.json"))).map(|manifest| manifest.code.version)
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Size and time of change of what the path leads to.
fn file_identity(path: &Path) -> Option<String> {
    let meta = std::fs::metadata(path).ok()?;
    Some(format!("{}:{}.{}", meta.size(), meta.mtime(), meta.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::PythonVersion;

    #[test]
    fn a_stamp_is_current_until_something_changes() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (environment, manifests) = (folder.path().join("env"), folder.path().join("manifests"));
        let base = folder.path().join("python3");
        let python = environment.join("bin/python");
        std::fs::create_dir_all(environment.join("bin")).expect("mkdir");
        std::fs::write(&base, "interpreter").expect("write");
        std::os::unix::fs::symlink(&base, &python).expect("link");
        let manifest = format!(
            r#"{{"format_version":"2.0","install":{{"python_path":"{}"}},"code":{{"name":"lab","version":"1","module":"m","class":"C"}}}}"#,
            python.display()
        );
        write_whole(&manifests.join("lab.json"), manifest.as_bytes()).expect("write");
        let interpreter =
            Interpreter { path: base.clone(), version: PythonVersion(3, 11, 7), is_default: true };
        let adapters = vec!["adapter-t-A.json".to_owned()];
        write_whole(&manifests.join(&adapters[0]), b"{}").expect("write");
        Stamp::new("r".into(), &interpreter, "l".into(), "lab".into(), adapters)
            .write(&environment)
            .expect("write");
        let stamp = Stamp::read(&environment).expect("read back");
        assert!(stamp.is_current("r", &environment, &manifests));
        assert!(!stamp.is_current("other", &environment, &manifests));
        std::fs::rename(manifests.join("adapter-t-A.json"), manifests.join("a")).expect("rename");
        assert!(!stamp.is_current("r", &environment, &manifests));
        std::fs::rename(manifests.join("a"), manifests.join("adapter-t-A.json")).expect("rename");
        std::fs::write(&base, "interpreter, upgraded").expect("write");
        assert!(!stamp.is_current("r", &environment, &manifests));
        std::fs::remove_file(manifests.join("lab.json")).expect("remove");
        assert!(!Stamp::new("r".into(), &interpreter, "l".into(), "lab".into(), Vec::new()).is_current(
            "r",
            &environment,
            &manifests
        ));
        Stamp::remove(&environment).and_then(|()| Stamp::remove(&environment)).expect("twice is once");
        assert_eq!(Stamp::read(&environment), None);
    }

    #[test]
    fn an_environment_of_conda_s_says_whose_it_is_also_while_it_is_not_whole() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (home, ours) = (folder.path().join("conda/shared"), folder.path().join("ours"));
        std::fs::create_dir_all(&home).expect("mkdir");
        std::fs::create_dir_all(&ours).expect("mkdir");
        let said = || {
            let holder = Holder::read(&home).expect("somebody's");
            assert_eq!(holder.data_dir, ours);
            (Stamp::read(&home).is_some(), holder.capability, holder.lock_hash, holder.is_found)
        };
        Stamp::begin(&home, "entry", &ours, true).expect("begun");
        assert_eq!(said(), (false, "entry".to_owned(), String::new(), true));
        let path = folder.path().join("python3");
        let interpreter = Interpreter { path, version: PythonVersion(3, 11, 7), is_default: true };
        let mut stamp = Stamp::new("r".into(), &interpreter, "l".into(), "tool".into(), Vec::new());
        stamp.belongs_to(Some(&ours));
        stamp.write(&home).expect("whole");
        assert_eq!(said(), (true, "tool".to_owned(), "l".to_owned(), false));
        assert!(!home.join(UNFINISHED_FILE).exists());
        Stamp::remove(&home).and_then(|()| Stamp::remove(&home)).expect("not whole");
        assert_eq!(said(), (false, "tool".to_owned(), "l".to_owned(), false));
        Stamp::begin(&home, "entry", &ours, true).expect("gone on with");
        assert_eq!(said(), (false, "tool".to_owned(), "l".to_owned(), false), "it is known");
        // One that took it over has neither its name nor its lock.
        let theirs = folder.path().join("theirs");
        std::fs::create_dir_all(&theirs).expect("mkdir");
        stamp.write(&home).expect("whole");
        Stamp::begin(&home, "other", &theirs, true).expect("begun");
        let taken = Holder::read(&home).expect("somebody's");
        assert_eq!((taken.data_dir, taken.capability, taken.is_found), (theirs, "other".to_owned(), false));
        assert!(Stamp::read(&home).is_none() && taken.lock_hash.is_empty());
    }
}
