//! Whose an environment is that conda keeps for all data directories of a machine: its stamp names the data directory that
//! made it, and how.
//!
//! A directory that was moved is known by what moved along: its link still leads there, and the manifest there speaks of the
//! same installation as the stamp. What names a directory that is gone may have been moved or removed, which nobody can tell.

use crate::beginning::STAMP_FILE;
use crate::plain_path::is_same_file;
use cjm_platform::files::{read_regular, read_regular_to_string};
use cjm_wire::manifest::{MANIFEST_BYTES_MAX, Manifest};
use serde::Deserialize;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

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
    lock_hash: String,
    #[serde(skip)]
    home: PathBuf,
}

impl Holder {
    /// Who made the environment at `home`; none where it is not whole, or is one of which no data directory is known.
    #[must_use]
    pub fn read(home: &Path) -> Option<Self> {
        let text = read_regular(&home.join(STAMP_FILE), STAMP_BYTES_MAX).ok()?;
        let read: Self = serde_json::from_slice(&text).ok()?;
        Some(Self { home: home.to_owned(), ..read })
    }

    /// Who made the environment that this link of `data_dir` leads to, where that is not this data directory, wherever it lay.
    #[must_use]
    pub fn other_behind(link: &Path, data_dir: &Path) -> Option<Self> {
        let home = std::fs::read_link(link).ok()?;
        Self::read(&home).filter(|holder| !holder.is(data_dir) && !holder.was_moved_to(data_dir))
    }

    /// Whether it is this data directory, by its path.
    #[must_use]
    pub fn is(&self, data_dir: &Path) -> bool {
        is_same_file(&self.data_dir, data_dir)
    }

    /// Whether its data directory still has the environment.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.is_led_to_from(&self.data_dir)
    }

    /// Whether nothing lies where its data directory was.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.data_dir.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }

    /// Whether it is `data_dir`, which has lain elsewhere before.
    #[must_use]
    pub fn was_moved_to(&self, data_dir: &Path) -> bool {
        let manifest = data_dir.join("manifests").join(format!("{}.json", self.capability));
        let read =
            || Manifest::parse(&read_regular_to_string(&manifest, MANIFEST_BYTES_MAX as u64).ok()?).ok();
        !self.lives() && self.is_led_to_from(data_dir) && read().is_some_and(|manifest| self.made(&manifest))
    }

    /// Whether the manifest is of the installation that made it.
    fn made(&self, manifest: &Manifest) -> bool {
        manifest.install.unknown.get(LOCK_KEY).and_then(|hash| hash.as_str()) == Some(&self.lock_hash)
    }

    fn is_led_to_from(&self, data_dir: &Path) -> bool {
        let name = self.home.file_name().unwrap_or_default();
        match std::fs::read_link(data_dir.join("envs").join(name)) {
            Ok(led_to) => is_same_file(&led_to, &self.home),
            // What another user has hidden may be there.
            Err(error) => error.kind() == ErrorKind::PermissionDenied,
        }
    }
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
        assert!(Holder::read(&home).is_some_and(|holder| holder.is_gone() && !holder.lives()));
    }
}
