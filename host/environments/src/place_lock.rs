//! Who changes an environment that conda keeps for all data directories: one command at a time, whichever data directory it
//! works on.
//!
//! The lock lies in the user's cache: where conda puts an environment is not known before it has made it, and what lies beside
//! one is conda's. It goes by name, and by the place as well once that is known. Two programs may make their environments in one
//! folder, so one name is one environment, whichever conda it is of: to wait harms nobody. In a project's own prefix the name is
//! the place.
//!
//! What must hold: it is taken before anything is looked at that decides what is done; a command that was killed is at work
//! until what it had started has ended, which holds the lock of its data directory.

use crate::error::EnvironmentError;
use crate::steps::Changed;
use cjm_catalog::installer::{Installer, Signature};
use cjm_catalog::plain_path::is_same_file;
use cjm_platform::lock::{FileLock, LockError};
use cjm_wire::canonical::hex;
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a lock is waited for: whoever asks whether somebody holds it has it for an instant.
const ASKING_MAX: Duration = Duration::from_millis(100);

/// The right to change one environment of conda's, held until it is dropped.
#[derive(Debug)]
pub(crate) struct PlaceLock {
    key: PathBuf,
    _lock: Option<FileLock>,
}

/// Who wants to change it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) data_dir: &'a Path,
    pub(crate) command: &'static str,
    pub(crate) env_name: &'a str,
}

impl PlaceLock {
    /// Takes all that there are of an environment of the conda with these `names`, whose place is `home` where that is known.
    ///
    /// # Errors
    /// Who works on it.
    pub(crate) fn of(
        asker: Asker<'_>,
        names: &Path,
        home: Option<&Path>,
    ) -> Result<Vec<Self>, EnvironmentError> {
        let mut held = vec![Self::by_name(asker, names)?];
        home.map_or(Ok(()), |home| Self::also_at(&mut held, asker, home))?;
        Ok(held)
    }

    /// Takes it, of an environment of the conda with these `names`.
    ///
    /// # Errors
    /// Who works on it.
    pub(crate) fn by_name(asker: Asker<'_>, names: &Path) -> Result<Self, EnvironmentError> {
        Self::take(asker, named(names, asker.env_name))
    }

    /// Takes it as well, where none of those that are `held` is that of this place.
    ///
    /// # Errors
    /// Who works on it.
    pub(crate) fn also_at(
        held: &mut Vec<Self>,
        asker: Asker<'_>,
        home: &Path,
    ) -> Result<(), EnvironmentError> {
        if held.iter().all(|one| one.key != place(home)) {
            held.push(Self::at(asker, home)?);
        }
        Ok(())
    }

    /// Takes it, of an environment that conda has here.
    ///
    /// # Errors
    /// Who works on it.
    pub(crate) fn at(asker: Asker<'_>, home: &Path) -> Result<Self, EnvironmentError> {
        Self::take(asker, place(home))
    }

    fn take(asker: Asker<'_>, key: PathBuf) -> Result<Self, EnvironmentError> {
        let lock = take(asker, &key)?;
        Ok(Self { key, _lock: lock })
    }
}

/// None where no lock can be made: a user without a home installs as well.
fn take(asker: Asker<'_>, key: &Path) -> Result<Option<FileLock>, EnvironmentError> {
    let Some(folder) = folder() else { return Ok(None) };
    take_in(&folder, asker, key)
}

fn take_in(folder: &Path, asker: Asker<'_>, key: &Path) -> Result<Option<FileLock>, EnvironmentError> {
    let name = hex(&Sha256::digest(key.as_os_str().as_bytes()));
    let (path, of) = (folder.join(format!("{name}.lock")), folder.join(format!("{name}.of")));
    let read_of = || std::fs::read(&of).ok().map(|before| PathBuf::from(OsStr::from_bytes(&before)));
    // A command of this data directory would hold the lock of that.
    let of_other = || read_of().filter(|before| !is_same_file(before, asker.data_dir));
    let in_use = |by: Installer| {
        let what = Changed::Conda(key.to_owned(), of_other());
        Err(EnvironmentError::InUse { what, by: Box::new(by) })
    };
    let other = of_other();
    let text = Signature::new(asker.command).text([asker.env_name]);
    let made =
        std::fs::create_dir_all(folder).map_err(|source| LockError::Io { path: folder.to_owned(), source });
    let lock = match made.and_then(|()| FileLock::acquire(&path, &text, ASKING_MAX)) {
        Ok(lock) => lock,
        Err(LockError::Held { path, holder }) => {
            return in_use(Installer::read(&path, &holder.unwrap_or_default()));
        }
        Err(error @ LockError::Io { .. }) => {
            let next_step = "let this user write there; until then install one project at a time";
            tracing::warn!(%error, next_step, "that a conda environment is worked on cannot be said");
            return Ok(None);
        }
    };
    let is_left = |by: &Installer| by.was_killed && by.concerns(asker.env_name);
    if let Some(by) = other.and_then(|other| Installer::at_work(&other)).filter(is_left) {
        return in_use(by);
    }
    // One who is not named is not looked for.
    let _ = std::fs::write(&of, asker.data_dir.as_os_str().as_bytes());
    Ok(Some(lock))
}

/// One name, or the place that it is in.
fn named(names: &Path, env_name: &str) -> PathBuf {
    if names.as_os_str().is_empty() { PathBuf::from(env_name) } else { real(names).join(env_name) }
}

/// It may not be there yet.
fn place(home: &Path) -> PathBuf {
    real(home.parent().unwrap_or(Path::new("/"))).join(home.file_name().unwrap_or_default())
}

fn real(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| cjm_catalog::plain_path::plain_path(folder))
}

/// `$XDG_CACHE_HOME/cjm/environments`, or that below `~/.cache`.
fn folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("cjm/environments"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conda::CondaOptions;
    use crate::files::{input_of_helper, lock};
    use cjm_catalog::installer::INSTALL_ALL;
    use cjm_wire::settings_file::CondaType;
    use std::process::Stdio;

    #[tokio::test]
    async fn what_a_killed_command_had_started_keeps_other_data_directories_away_as_that_did() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (locks, ours, theirs) =
            (folder.path().join("locks"), folder.path().join("ours"), folder.path().join("theirs"));
        std::fs::create_dir(&ours).expect("mkdir");
        let asker = |data_dir| Asker { data_dir, command: INSTALL_ALL, env_name: "shared" };
        let take = |data_dir, key: &str| take_in(&locks, asker(data_dir), Path::new(key));
        let held = take(&ours, "/conda/shared").expect("free");
        let told = take(&theirs, "/conda/shared").expect_err("it is at work").to_string();
        let us = format!("for the data directory {}: process {}", ours.display(), std::process::id());
        assert!(told.contains("/conda/shared") && told.contains(&us), "{told}");
        assert!(take(&theirs, "/conda/other").is_ok(), "nobody works on that");

        let claim = lock(&ours, INSTALL_ALL, ["shared"]).expect("free");
        let helper = claim.during(async { input_of_helper().expect("shared") }).await;
        let mut cat = std::process::Command::new("/bin/sh");
        // Until its error stream, which it does not use, is closed by whoever reads it.
        cat.args(["-c", "while sleep 0.01 && echo >&2; do :; done"]).stdin(helper).stdout(Stdio::null());
        let mut running = cat.stderr(Stdio::piped()).spawn().expect("starts");
        // The kernel closes descriptors the same way when their process is killed.
        drop((cat, claim, held));
        // Children of other tests, which run beside this one, may have a lock for a moment.
        let since = std::time::Instant::now();
        let asked = |is_so: &dyn Fn(Option<String>) -> bool| {
            let told = || take(&theirs, "/conda/shared").err().map(|told| told.to_string());
            while !is_so(told()) {
                assert!(since.elapsed() < Duration::from_secs(20), "{:?}", told());
            }
        };
        let helper = format!("process {}", running.id());
        asked(&|told| told.is_some_and(|told| told.contains(&helper)));
        drop(running.stderr.take());
        running.wait().expect("ends");
        asked(&|told| told.is_none());
    }

    #[test]
    fn one_name_is_one_environment_whichever_conda_it_is_of_and_in_a_prefix_the_place_is() {
        let folder = tempfile::tempdir().expect("tempdir");
        let asker = Asker { data_dir: folder.path(), command: INSTALL_ALL, env_name: "shared" };
        let prefix = |name: &str| Some(folder.path().join(name));
        let take = |prefix: Option<PathBuf>, kind| {
            let options = CondaOptions { kind, prefix, program: None, not_yours: None };
            take_in(folder.path(), asker, &named(&options.names(), "shared"))
        };
        let _held = take(None, CondaType::Conda).expect("free");
        assert!(take(None, CondaType::Miniforge).is_err(), "both may make it in one folder");
        let _other = take(prefix("one"), CondaType::Conda).expect("free");
        assert!(take(prefix("one"), CondaType::Micromamba).is_err(), "it is worked on");
        assert!(take(prefix("other"), CondaType::Conda).is_ok());
    }
}
