//! What was installed is kept while an installation works on its environment: only one that came to its end takes its
//! place. A copy lies beside the environment; its files are links to the same content, so that it takes next to no room.
//!
//! Manifests go back with their environment: before the first of them is replaced, those that lie there are copied into
//! the copy, and then a note says which will be written or removed.
//!
//! What must hold: a copy is whole or has another name; an environment that has a stamp is newer than its copy; no manifest
//! is touched before the note is there, and the note goes before the environment takes its place again, but after the
//! manifests have; each step can be done twice, so that a kill at any of them changes nothing of the end; a manifest that
//! has come to name another environment since is newer than what is kept, and stays; a text that no installation wrote is
//! kept beside its place before another one takes that.

use crate::error::EnvironmentError;
use crate::files::{remove_dir, write_whole};
use crate::manifests::{keep_replaced, pass_word_on, write_installed};
use crate::stamp::Stamp;
use cjm_catalog::MANIFEST_BYTES_MAX;
use cjm_catalog::beginning::note_beside;
use cjm_catalog::installation::{env_name_of, former_of};
use cjm_platform::files::{FileError, read_regular, read_regular_to_string};
use cjm_platform::mounts::remove_tree;
use cjm_wire::{AdapterManifest, Manifest};
use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Below the environment, where files are replaced and never written into: packages.
const REPLACED: &str = "lib";

/// In the copy: the manifests as they were.
const KEPT: &str = "cjm-manifests";
/// In there, at the end of a manifest's name: what the installation writes in its place.
const WRITTEN: &str = ".written";
/// In the copy: the file names of the manifests that are replaced, one a line; those that are not kept were not there.
const NOTE: &str = "cjm-replaced-manifests";

/// How the name of an environment ends that is being removed.
const REMOVED: &str = "removed";

/// The copy of an environment, which takes its place again unless it is [let go](Former::let_go).
#[derive(Debug)]
pub(crate) struct Former {
    environment: PathBuf,
    manifests: PathBuf,
}

impl Former {
    /// Keeps what is installed, if something is. What conda made lies elsewhere, and cannot be kept.
    ///
    /// # Errors
    /// When it cannot be copied; nothing was changed then.
    pub(crate) fn keep(environment: &Path, manifests: &Path) -> Result<Option<Self>, EnvironmentError> {
        // What a removal could not delete, it has told of; it is in nobody's way.
        rests_of(environment).iter().for_each(|rest| drop(remove_dir(rest)));
        recover(environment, manifests, &mut Vec::new())?;
        if environment.is_symlink() || Stamp::read(environment).is_none() {
            return Ok(None);
        }
        let copying = beside(environment, "copying");
        remove_dir(&copying)?;
        let whole = copy(environment, &copying, false)
            // What lies in the environment under these names is no note of an update.
            .and_then(|()| gone(std::fs::remove_file(copying.join(NOTE))))
            .and_then(|()| gone(remove_tree(&copying.join(KEPT))))
            .and_then(|()| std::fs::rename(&copying, former_of(environment)))
            .map_err(|source| EnvironmentError::writing("keep a copy of", environment.to_owned(), source));
        if whole.is_err() {
            // What stays is removed by the next one.
            let _ = remove_dir(&copying);
        }
        let (environment, manifests) = (environment.to_owned(), manifests.to_owned());
        whole.map(|()| Some(Self { environment, manifests }))
    }

    /// Keeps the manifests of these file names, which are written or removed next.
    ///
    /// # Errors
    /// When one cannot be kept; nothing was changed then.
    pub(crate) fn keep_manifests(&self, names: &[String]) -> Result<(), EnvironmentError> {
        let copy = former_of(&self.environment);
        for name in names {
            let path = self.manifests.join(name);
            match read_regular(&path, u64::MAX) {
                Ok(content) => {
                    let kept = copy.join(KEPT).join(name);
                    put(&path, &kept, &content)?;
                    pass_word_on(&path, &kept, &content);
                }
                Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => {}
                Err(error) => return Err(unreadable(&path, error)),
            }
        }
        write_whole(&copy.join(NOTE), names.join("\n").as_bytes())
    }

    /// Writes an installed manifest. Of an update it is written down first: another text that stands there after a kill is
    /// somebody's.
    ///
    /// # Errors
    /// When it is not written.
    pub(crate) fn write(former: Option<&Self>, path: &Path, text: &[u8]) -> Result<(), EnvironmentError> {
        if let (Some(former), Some(name)) = (former, path.file_name()) {
            write_whole(&written_of(&former_of(&former.environment).join(KEPT).join(name)), text)?;
        }
        write_installed(path, text)
    }

    /// The new one has its stamp: the copy is not needed any more.
    pub(crate) fn let_go(self) {
        // What stays is removed by the next installation.
        let _ = remove_dir(&former_of(&self.environment));
    }
}

impl Drop for Former {
    fn drop(&mut self) {
        let mut kept = Vec::new();
        if let Err(error) = recover(&self.environment, &self.manifests, &mut kept) {
            let next_step = "run install-all again, which puts it back first";
            tracing::error!(%error, next_step, "the environment as it was could not be put back");
        }
        kept.iter().for_each(|kept| tracing::warn!("{kept}"));
    }
}

/// Puts back what an installation that came to no end had kept, and removes what one left that did. `told` gets what somebody
/// has written since, and where that is kept.
///
/// # Errors
/// When it stays as it is.
pub(crate) fn recover(
    environment: &Path,
    manifests: &Path,
    told: &mut Vec<String>,
) -> Result<(), EnvironmentError> {
    let copy = former_of(environment);
    if !copy.is_dir() {
        return Ok(());
    }
    if Stamp::read(environment).is_some() {
        return remove_dir(&copy);
    }
    put_back_manifests(environment, manifests, told)?;
    clear_place(environment)?;
    std::fs::rename(&copy, environment)
        .map_err(|source| EnvironmentError::writing("put back", environment.to_owned(), source))
}

/// The file names of the manifests that an installation writes or removes.
pub(crate) fn names_touched(
    adapters: &[(String, AdapterManifest)],
    now: &str,
    before: Option<&Stamp>,
) -> Vec<String> {
    let held = before.map(|old| old.capability.as_str());
    let capabilities = std::iter::once(now).chain(held).map(|name| format!("{name}.json"));
    adapters.iter().map(|(name, _)| name.clone()).chain(capabilities).collect()
}

fn put_back_manifests(
    environment: &Path,
    manifests: &Path,
    told: &mut Vec<String>,
) -> Result<(), EnvironmentError> {
    let copy = former_of(environment);
    let read = |path: &Path| read_regular(path, u64::MAX).map_err(|error| unreadable(path, error));
    let (note, kept) = (copy.join(NOTE), copy.join(KEPT));
    if note.is_file() {
        for name in String::from_utf8_lossy(&read(&note)?).lines().filter(|name| is_manifest_name(name)) {
            let (path, before) = (manifests.join(name), kept.join(name));
            if names_another(&path, environment) {
                continue;
            }
            let was_there = before.symlink_metadata().is_ok_and(|found| found.is_file());
            let content = was_there.then(|| read(&before)).transpose()?;
            let now = read(&path).ok();
            // Nobody has touched it, and its folder may take nothing.
            if now.is_some() && now == content {
                continue;
            }
            if now.is_some_and(|now| {
                !now.is_empty() && !read(&written_of(&before)).is_ok_and(|ours| ours == now)
            }) {
                told.push(keep_replaced(&path)?);
            }
            if let Some(content) = content {
                put(&before, &path, &content)?;
                pass_word_on(&before, &path, &content);
            } else {
                remove_file(&path)?;
            }
        }
        // Before what it speaks of, which is needed as long as it is there.
        remove_file(&note)?;
    }
    remove_dir(&kept)
}

/// Where in the copy that is which the installation writes in the place of what is kept as `kept`.
fn written_of(kept: &Path) -> PathBuf {
    let mut written = kept.as_os_str().to_owned();
    written.push(WRITTEN);
    PathBuf::from(written)
}

/// Whether the manifest that lies there is of a tool or an adapter in another environment: made since, under another name.
fn names_another(manifest: &Path, environment: &Path) -> bool {
    let Ok(text) = read_regular_to_string(manifest, MANIFEST_BYTES_MAX as u64) else { return false };
    let of_tool = Manifest::parse(&text).ok().and_then(|manifest| env_name_of(&manifest));
    let named = of_tool.or_else(|| Some(AdapterManifest::parse(&text).ok()?.conda_env));
    named.is_some_and(|name| !name.is_empty() && environment.file_name() != Some(OsStr::new(&name)))
}

/// Gives a manifest a second name, in the place of what has it now. That needs no room on the disk; manifests are replaced
/// and never written into. Where it cannot be done, a copy is written.
fn put(manifest: &Path, name: &Path, content: &[u8]) -> Result<(), EnvironmentError> {
    let folder = name.parent().unwrap_or(Path::new("/"));
    let beside = name.with_extension(format!("link-{}", std::process::id()));
    let linked = std::fs::create_dir_all(folder)
        .and_then(|()| gone(std::fs::remove_file(&beside)))
        .and_then(|()| std::fs::hard_link(manifest, &beside))
        .and_then(|()| std::fs::rename(&beside, name))
        // Of two names of one file the other one stays: renaming it does nothing then.
        .and_then(|()| gone(std::fs::remove_file(&beside)));
    linked.or_else(|_| write_whole(name, content))
}

/// A note may have come with a folder from elsewhere: it speaks of manifests beside each other, and of nothing else.
fn is_manifest_name(name: &str) -> bool {
    name.ends_with(".json") && !name.contains('/')
}

fn unreadable(path: &Path, error: FileError) -> EnvironmentError {
    EnvironmentError::File { action: "read", path: path.to_owned(), source: std::io::Error::other(error) }
}

fn remove_file(path: &Path) -> Result<(), EnvironmentError> {
    gone(std::fs::remove_file(path)).map_err(|source| EnvironmentError::removing(path.to_owned(), source))
}

/// What is missing is removed already.
pub(crate) fn gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes what is kept of an environment that goes.
///
/// # Errors
/// When it stays.
pub(crate) fn forget(environment: &Path) -> Result<(), EnvironmentError> {
    remove_file(&note_beside(environment))?;
    remove_dir(&former_of(environment))?;
    remove_dir(&beside(environment, "copying"))
}

/// A place for an environment that is removed or made anew, until all of it is deleted. What earlier removals could not delete stays in
/// nobody's way.
pub(crate) fn free_place(environment: &Path) -> PathBuf {
    let place = |number: u32| beside(environment, &format!("{REMOVED}-{number}"));
    let is_free = |place: &PathBuf| place.symlink_metadata().is_err();
    (1..u32::MAX).map(place).find(is_free).unwrap_or_else(|| place(0))
}

/// Sees that nothing lies where an environment goes. What of an earlier one this user cannot delete gets another name.
///
/// # Errors
/// When it stays there.
pub(crate) fn clear_place(environment: &Path) -> Result<(), EnvironmentError> {
    let Err(refused) = remove_dir(environment) else { return Ok(()) };
    if matches!(refused, EnvironmentError::Mounted { .. }) {
        return Err(refused);
    }
    std::fs::rename(environment, free_place(environment)).map_err(|_| refused)
}

/// The environment of which this is what a removal could not delete.
pub(crate) fn removed_name(file_name: &str) -> Option<&str> {
    let (name, kind) = file_name.strip_prefix('.')?.rsplit_once('.')?;
    let number = kind.strip_prefix(REMOVED)?.strip_prefix('-')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(name)
}

/// What removals of an environment have not deleted, sorted.
pub(crate) fn rests_of(environment: &Path) -> Vec<PathBuf> {
    let listing = environment.parent().map(std::fs::read_dir).into_iter().flatten().flatten().flatten();
    let is_one = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).and_then(removed_name);
        name.is_some_and(|name| environment.file_name() == Some(OsStr::new(name)))
    };
    let mut rests: Vec<PathBuf> = listing.map(|entry| entry.path()).filter(is_one).collect();
    rests.sort();
    rests
}

/// As [`former_of`].
fn beside(environment: &Path, what: &str) -> PathBuf {
    let name = environment.file_name().unwrap_or_default().to_string_lossy();
    environment.with_file_name(format!(".{name}.{what}"))
}

fn copy(from: &Path, to: &Path, linked: bool) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).map_err(|error| with_path(from, &error))? {
        let entry = entry?;
        let (path, target, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type()?);
        if kind.is_symlink() {
            symlink(std::fs::read_link(&path)?, &target)?;
        } else if kind.is_dir() {
            copy(&path, &target, linked || entry.file_name() == REPLACED)?;
        } else if kind.is_file() && !(linked && std::fs::hard_link(&path, &target).is_ok()) {
            std::fs::copy(&path, &target).map_err(|error| with_path(&path, &error))?;
        }
    }
    Ok(())
}

/// The same error, with what it is about.
fn with_path(path: &Path, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
