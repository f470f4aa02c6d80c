//! Whose an environment is that conda keeps for all data directories of a machine: its stamp names the data directory that
//! made it, and how; so does another file in one that is not whole.
//!
//! A path alone says nothing: another directory may lie there by now. A directory that was moved is known by its identity,
//! which a copy has not; where none is known, by what moved along: its link still leads there, and the manifest there speaks
//! of the same installation as the stamp. Where the very directory is not found, it was moved or removed, which nobody can
//! tell. A copy runs the same code, so its calls are in nobody's way; it owns nothing, unless it lies where the original was.

use crate::beginning::{STAMP_FILE, UNFINISHED_FILE, is_whole};
use crate::plain_path::is_same_file;
use cjm_platform::files::{read_regular, read_regular_to_string};
use cjm_wire::manifest::{MANIFEST_BYTES_MAX, Manifest};
use serde::Deserialize;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Largest stamp that is read, in bytes.
const STAMP_BYTES_MAX: u64 = 1024 * 1024;
/// In section `install` of a manifest that our installation wrote: the hash of what its environment holds.
const LOCK_KEY: &str = "lock_hash";

/// Who made an environment, as its stamp has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Holder {
    /// The tool that lives there.
    pub capability: String,
    /// The data directory whose that is.
    pub data_dir: PathBuf,
    /// Which directory that was; an older version wrote none down.
    #[serde(default)]
    data_dir_identity: Option<String>,
    /// The hash of what it holds; empty of one that was never whole.
    pub lock_hash: String,
    /// Whether it was there before anything of ours, and is somebody's.
    #[serde(default)]
    pub is_found: bool,
    #[serde(skip)]
    home: PathBuf,
}

/// Which directory a path leads to: a move keeps it, a copy and a new directory at the same path have another. The device is
/// no part of it, whose number a restart may change. None where the file system does not say when a directory was made: its
/// number alone may be that of a later one.
#[must_use]
pub fn identity_of(folder: &Path) -> Option<String> {
    let found = folder.metadata().ok()?;
    let born = found.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{} {}", found.ino(), born.as_nanos()))
}

impl Holder {
    /// Who made the environment at `home`, or began to; none of one of which no data directory is known.
    #[must_use]
    pub fn read(home: &Path) -> Option<Self> {
        Self::read_beside(home, home)
    }

    /// As [`Holder::read`], of one whose files lie in `folder` for now.
    #[must_use]
    pub fn read_beside(home: &Path, folder: &Path) -> Option<Self> {
        let file = if is_whole(folder) { STAMP_FILE } else { UNFINISHED_FILE };
        let text = read_regular(&folder.join(file), STAMP_BYTES_MAX).ok()?;
        let read: Self = serde_json::from_slice(&text).ok()?;
        Some(Self { home: home.to_owned(), ..read })
    }

    /// Who made the environment that this link of `data_dir` leads to, where that is not this data directory, wherever it lay,
    /// nor one that this is a copy of.
    #[must_use]
    pub fn other_behind(link: &Path, data_dir: &Path) -> Option<Self> {
        let home = std::fs::read_link(link).ok()?;
        Self::read(&home).filter(|holder| !holder.is(data_dir) && !holder.is_copied_to(data_dir))
    }

    /// Whether it is this data directory, wherever that lay.
    #[must_use]
    pub fn is(&self, data_dir: &Path) -> bool {
        if is_same_file(&self.data_dir, data_dir) {
            // One that was restored in its place, or whose disk was replaced, goes on as it was.
            let never_was_whole = || self.lock_hash.is_empty() && self.is_led_to_from(data_dir);
            return self.may_be(data_dir) || self.has_what_was_made(data_dir) || never_was_whole();
        }
        match &self.data_dir_identity {
            Some(known) => {
                let is = |folder: &Path| identity_of(folder).as_ref() == Some(known);
                // A snapshot of a file system has the same identities.
                is(data_dir) && !(is(&self.data_dir) && self.is_led_to_from(&self.data_dir))
            }
            None => self.is_copied_to(data_dir),
        }
    }

    /// Whether its data directory still has the environment. What another user has hidden may be there.
    #[must_use]
    pub fn lives(&self) -> bool {
        match self.data_dir.metadata() {
            Err(error) => !is_missing(&error),
            Ok(_) => {
                let is_it = || self.may_be(&self.data_dir) || self.has_manifest_of_it(&self.data_dir);
                self.is_led_to_from(&self.data_dir) && is_it()
            }
        }
    }

    /// Whether its very data directory has the environment no more. Anything else that is found in its place, or not found,
    /// says nothing of that.
    #[must_use]
    pub fn has_given_up(&self) -> bool {
        self.may_be(&self.data_dir) && !self.is_led_to_from(&self.data_dir)
    }

    /// Whether `data_dir` is as its data directory was when it made the environment, and that has gone.
    fn is_copied_to(&self, data_dir: &Path) -> bool {
        !self.lives() && self.has_what_was_made(data_dir)
    }

    /// Whether nothing speaks against that its data directory lies there.
    fn may_be(&self, folder: &Path) -> bool {
        let known = self.data_dir_identity.as_ref();
        folder.is_dir() && known.is_none_or(|known| identity_of(folder).is_none_or(|found| found == *known))
    }

    fn has_what_was_made(&self, data_dir: &Path) -> bool {
        self.is_led_to_from(data_dir) && self.has_manifest_of_it(data_dir)
    }

    /// Whether the manifest there is of the installation that made it.
    fn has_manifest_of_it(&self, data_dir: &Path) -> bool {
        let path = data_dir.join("manifests").join(format!("{}.json", self.capability));
        let read = || Manifest::parse(&read_regular_to_string(&path, MANIFEST_BYTES_MAX as u64).ok()?).ok();
        read().is_some_and(|manifest| {
            let made = manifest.install.unknown.get(LOCK_KEY);
            made.and_then(|hash| hash.as_str()) == Some(&self.lock_hash)
        })
    }

    fn is_led_to_from(&self, data_dir: &Path) -> bool {
        let link = data_dir.join("envs").join(self.home.file_name().unwrap_or_default());
        match std::fs::read_link(&link) {
            Ok(led_to) => is_same_file(&led_to, &self.home),
            // What conda made in the data directory itself needs no link.
            Err(error) if error.kind() == ErrorKind::InvalidInput => is_same_file(&link, &self.home),
            // What another user has hidden may be there.
            Err(error) => !is_missing(&error),
        }
    }
}

fn is_missing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;
    use crate::installation::{Installation, Unfinished};

    #[test]
    fn a_data_directory_that_was_moved_keeps_its_environment_until_another_one_has_it() {
        let folder = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| folder.path().join(name);
        let home = at("conda/shared");
        std::fs::create_dir_all(home.join("bin")).expect("mkdir");
        std::fs::write(home.join("bin/python"), "").expect("written");
        let stamp = |of: &str, lock: &str| {
            let stamp = serde_json::json!({"capability": "c", "data_dir": at(of), "lock_hash": lock});
            std::fs::write(home.join(STAMP_FILE), stamp.to_string()).expect("written");
        };
        let has = |name: &str| {
            std::fs::create_dir_all(at(name).join("envs")).expect("mkdir");
            std::fs::create_dir_all(at(name).join("manifests")).expect("mkdir");
            std::os::unix::fs::symlink(&home, at(name).join("envs/shared")).expect("linked");
            let manifest = serde_json::json!({"format_version": "2.0", "code": {"name": "c", "version": "1", "module": "m",
                "class": "C"}, "install": {"conda_env": "shared", "python_path": home.join("bin/python"),
                "installer_version": "cjm-ctl 1", "lock_hash": "first"}});
            std::fs::write(at(name).join("manifests/c.json"), manifest.to_string()).expect("written");
        };
        let refused = |name: &str| {
            let catalog = Catalog::discover(&[at(name).join("manifests").into()]);
            match Installation::of(catalog.get("c").expect("installed"))?.unfinished()? {
                Unfinished::OfAnother { data_dir, .. } => Some(data_dir),
                other => panic!("{other}"),
            }
        };
        has("ours");
        stamp("ours", "first");
        assert_eq!(refused("ours"), None, "it is its own");
        std::fs::rename(at("ours"), at("moved")).expect("moved");
        assert_eq!(refused("moved"), None, "it has the same environment at its new place");
        has("theirs");
        stamp("theirs", "first");
        assert_eq!(refused("moved"), Some(at("theirs")), "a living one has it");
        assert_eq!(refused("theirs"), None);
        stamp("theirs", "second");
        std::fs::rename(at("theirs"), at("theirs-moved")).expect("moved");
        assert_eq!(
            refused("moved"),
            Some(at("theirs")),
            "nor is it what it was where that one has moved as well"
        );
        assert!(Holder::read(&home).is_some_and(|holder| !holder.has_given_up() && !holder.lives()));
    }

    #[test]
    fn a_data_directory_is_known_by_its_identity_and_a_copy_or_another_one_at_its_path_is_not_it() {
        let folder = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| folder.path().join(name);
        let home = at("conda/shared");
        std::fs::create_dir_all(&home).expect("mkdir");
        let has = |name: &str, lock: &str| {
            std::fs::create_dir_all(at(name).join("envs")).expect("mkdir");
            std::fs::create_dir_all(at(name).join("manifests")).expect("mkdir");
            let _ = std::os::unix::fs::symlink(&home, at(name).join("envs/shared"));
            let manifest = serde_json::json!({"format_version": "2.0", "code": {"name": "c", "version": "1", "module": "m",
                "class": "C"}, "install": {"conda_env": "shared", "python_path": "/p", "installer_version": "cjm-ctl 1",
                "lock_hash": lock}});
            std::fs::write(at(name).join("manifests/c.json"), manifest.to_string()).expect("written");
        };
        has("ours", "first");
        let Some(identity) = identity_of(&at("ours")) else { return };
        let stamp = serde_json::json!({"capability": "c", "data_dir": at("ours"), "data_dir_identity": identity,
            "lock_hash": "first"});
        std::fs::write(home.join(STAMP_FILE), stamp.to_string()).expect("written");
        let holder = || Holder::read(&home).expect("a stamp");
        let may_call = |name: &str| Holder::other_behind(&at(name).join("envs/shared"), &at(name)).is_none();
        has("copy", "first");
        assert!(holder().is(&at("ours")) && holder().lives() && !holder().has_given_up());
        assert!(!holder().is(&at("copy")) && !may_call("copy"));
        std::fs::rename(at("ours"), at("moved")).expect("moved");
        assert!(holder().is(&at("moved")) && may_call("moved"), "wherever it is now");
        assert!(!holder().is(&at("copy")) && may_call("copy"), "it runs the same code, and owns nothing");
        // Whatever lies in its place by now.
        let is_open = || !holder().lives() && !holder().has_given_up() && holder().is(&at("moved"));
        assert!(is_open());
        std::fs::create_dir(at("ours")).expect("another one");
        assert!(is_open() && !holder().is(&at("ours")));
        std::fs::remove_dir(at("ours")).expect("removed");
        std::fs::write(at("ours"), "").expect("a file");
        assert!(is_open());
        std::fs::remove_file(at("ours")).expect("removed");
        std::os::unix::fs::symlink(at("nowhere"), at("ours")).expect("linked");
        assert!(is_open());
        std::fs::remove_file(at("ours")).expect("removed");
        // One that was restored there goes on as it was; of another installation it is no more than any.
        has("ours", "first");
        assert!(holder().is(&at("ours")) && holder().lives());
        has("ours", "second");
        assert!(is_open() && !holder().is(&at("ours")));
        std::fs::remove_dir_all(at("ours")).expect("removed");
        std::fs::rename(at("moved"), at("ours")).expect("moved back");
        std::fs::remove_file(at("ours/envs/shared")).expect("removed");
        assert!(holder().has_given_up(), "it is the very one, and has it no more");
    }
}
