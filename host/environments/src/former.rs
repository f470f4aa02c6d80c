//! What was installed is kept while an installation works on its environment: only one that came to its end takes its
//! place. A copy lies beside the environment; its files are links to the same content, so that it takes next to no room.
//!
//! Manifests go back with their environment: before the first of them is replaced, those that lie there are copied into
//! the copy, and then a note says which will be written or removed.
//!
//! What must hold: a copy is whole or has another name; an environment that has a stamp is newer than its copy; no manifest
//! is touched before the note is there, and the note goes before the environment takes its place again, but after the
//! manifests have; each step can be done twice, so that a kill at any of them changes nothing of the end; a manifest that
//! has come to name another environment since is newer than what is kept, and stays.

use crate::error::EnvironmentError;
use crate::files::{remove_dir, write_whole};
use crate::manifests::pass_word_on;
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
        recover(environment, manifests)?;
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

    /// The new one has its stamp: the copy is not needed any more.
    pub(crate) fn let_go(self) {
        // What stays is removed by the next installation.
        let _ = remove_dir(&former_of(&self.environment));
    }
}

impl Drop for Former {
    fn drop(&mut self) {
        if let Err(error) = recover(&self.environment, &self.manifests) {
            let next_step = "run install-all again, which puts it back first";
            tracing::error!(%error, next_step, "the environment as it was could not be put back");
        }
    }
}

/// Puts back what an installation that came to no end had kept, and removes what one left that did.
///
/// # Errors
/// When it stays as it is.
pub(crate) fn recover(environment: &Path, manifests: &Path) -> Result<(), EnvironmentError> {
    let copy = former_of(environment);
    if !copy.is_dir() {
        return Ok(());
    }
    if Stamp::read(environment).is_some() {
        return remove_dir(&copy);
    }
    put_back_manifests(environment, manifests)?;
    clear_place(environment)?;
    std::fs::rename(&copy, environment)
        .map_err(|source| EnvironmentError::writing("put back", environment.to_owned(), source))
}

fn put_back_manifests(environment: &Path, manifests: &Path) -> Result<(), EnvironmentError> {
    let copy = former_of(environment);
    let read = |path: &Path| read_regular(path, u64::MAX).map_err(|error| unreadable(path, error));
    let (note, kept) = (copy.join(NOTE), copy.join(KEPT));
    if note.is_file() {
        for name in String::from_utf8_lossy(&read(&note)?).lines().filter(|name| is_manifest_name(name)) {
            let (path, before) = (manifests.join(name), kept.join(name));
            if names_another(&path, environment) {
                continue;
            }
            if before.symlink_metadata().is_ok_and(|found| found.is_file()) {
                let content = read(&before)?;
                // Nobody has touched it, and its folder may take nothing.
                if read(&path).is_ok_and(|now| now == content) {
                    continue;
                }
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
mod tests {
    use super::*;

    const STAMP: &str = r#"{"request":"r","python_path":"p","python_version":"3","python_file":"f",
                            "lock_hash":"l","capability":"c"}"#;

    /// An environment with a stamp, and what it holds as text.
    fn environment() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("tempdir");
        let home = folder.path().join("envs/tool");
        for (name, text) in [("bin/tool", "old"), ("lib/python3/site-packages/m.py", "old")] {
            let path = home.join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        }
        std::fs::write(home.join("cjm-stamp.json"), STAMP).expect("write");
        symlink("lib", home.join("lib64")).expect("link");
        (folder, home)
    }

    /// Beside the environments, as in a data directory.
    fn manifests(home: &Path) -> PathBuf {
        home.parent().and_then(Path::parent).expect("a data directory").join("manifests")
    }

    fn module(home: &Path) -> String {
        std::fs::read_to_string(home.join("lib64/python3/site-packages/m.py")).unwrap_or_default()
    }

    /// As an installer does: the file is another one.
    fn replace(home: &Path) {
        Stamp::remove(home).expect("removed");
        std::fs::write(home.join("bin/tool"), "new").expect("written into");
        let path = home.join("lib/python3/site-packages/m.py");
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(path, "new").expect("written");
    }

    #[test]
    fn what_was_installed_comes_back_unless_the_new_one_came_to_its_end() {
        let (folder, home) = environment();
        let former = Former::keep(&home, &manifests(&home)).expect("kept").expect("something was installed");
        replace(&home);
        drop(former);
        assert_eq!(
            (module(&home), std::fs::read_to_string(home.join("bin/tool")).expect("there")),
            ("old".into(), "old".into())
        );
        assert!(Stamp::read(&home).is_some());

        let former = Former::keep(&home, &manifests(&home)).expect("kept").expect("something was installed");
        replace(&home);
        std::fs::write(home.join("cjm-stamp.json"), STAMP).expect("write");
        former.let_go();
        assert_eq!(module(&home), "new");
        let left = std::fs::read_dir(folder.path().join("envs")).expect("there").count();
        assert_eq!(left, 1, "nothing but the environment");
    }

    #[test]
    fn one_that_was_killed_is_put_back_by_the_next() {
        let (folder, home) = environment();
        // A kill runs no destructor.
        std::mem::forget(Former::keep(&home, &manifests(&home)).expect("kept"));
        replace(&home);
        remove_dir(&home).expect("killed when it made the environment anew");
        recover(&home, &manifests(&home)).expect("put back");
        assert_eq!(module(&home), "old");
        std::fs::create_dir_all(beside(&home, "copying")).expect("killed when it copied");
        std::mem::forget(Former::keep(&home, &manifests(&home)).expect("kept"));
        recover(&home, &manifests(&home)).expect("the copy is removed");
        assert_eq!(std::fs::read_dir(folder.path().join("envs")).expect("there").count(), 1);
        remove_dir(&home).expect("removed");
        assert!(Former::keep(&home, &manifests(&home)).expect("looked").is_none(), "nothing is installed");
    }

    /// Names of manifests, each with what it says.
    fn written(home: &Path) -> Vec<(String, String)> {
        let files = std::fs::read_dir(manifests(home)).expect("a folder").flatten();
        let mut all: Vec<_> = files
            .map(|file| {
                let text = std::fs::read_to_string(file.path()).expect("a manifest");
                (file.file_name().to_string_lossy().into_owned(), text)
            })
            .collect();
        all.sort();
        all
    }

    /// An update, up to the instant of its kill: how many of its steps it did. The capability `c` becomes `d`, its adapter
    /// `a` is written anew and gets a companion, `b`.
    fn update(home: &Path, steps: usize) {
        let folder = manifests(home);
        let write = |name: &str| write_whole(&folder.join(name), b"new").expect("written");
        let mut former = None;
        for step in 0..steps {
            match step {
                0 => former = Former::keep(home, &folder).expect("kept"),
                1 => replace(home),
                2 => {
                    let names = ["a.json", "b.json", "d.json", "c.json"].map(str::to_owned);
                    former.as_ref().expect("kept").keep_manifests(&names).expect("kept");
                }
                3 => write("a.json"),
                4 => write("b.json"),
                5 => write("d.json"),
                6 => std::fs::remove_file(folder.join("c.json")).expect("removed"),
                7 => write_whole(&home.join("cjm-stamp.json"), STAMP.as_bytes()).expect("written"),
                _ => former.take().expect("kept").let_go(),
            }
        }
        // A kill runs no destructor.
        std::mem::forget(former);
    }

    const STEPS: usize = 9;

    #[test]
    fn manifests_and_environment_are_put_back_together_at_whatever_step_it_was_killed() {
        let old = [("a.json", "old"), ("c.json", "old"), ("other.json", "old")];
        let new = [("a.json", "new"), ("b.json", "new"), ("d.json", "new"), ("other.json", "old")];
        for steps in 0..=STEPS {
            // The recovery is killed as well: after so many of its own.
            for recovered in 0..4 {
                let (folder, home) = environment();
                for (name, text) in old {
                    write_whole(&manifests(&home).join(name), text.as_bytes()).expect("written");
                }
                update(&home, steps);
                let copy = former_of(&home);
                if copy.is_dir() && Stamp::read(&home).is_none() {
                    if recovered > 0 {
                        put_back_manifests(&home, &manifests(&home)).expect("put back");
                    }
                    if recovered > 1 {
                        std::fs::remove_file(home.join("bin/tool")).expect("killed when it removed");
                    }
                    if recovered > 2 {
                        remove_dir(&home).expect("removed");
                    }
                }
                recover(&home, &manifests(&home)).expect("put back");
                let is_done = steps > 7;
                let expected = if is_done { &new[..] } else { &old[..] };
                let expected: Vec<_> =
                    expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
                assert_eq!(written(&home), expected, "killed after {steps} and {recovered} steps");
                assert_eq!(module(&home), if is_done { "new" } else { "old" }, "{steps} and {recovered}");
                assert!(Stamp::read(&home).is_some(), "{steps} and {recovered}");
                let left = std::fs::read_dir(folder.path().join("envs")).expect("there").count();
                assert_eq!(left, 1, "nothing but the environment: {steps} and {recovered}");
                assert!(!home.join(NOTE).exists() && !home.join(KEPT).exists(), "{steps} and {recovered}");
            }
        }
    }

    #[test]
    fn the_note_comes_after_what_it_speaks_of_and_goes_before_it() {
        let (_folder, home) = environment();
        write_whole(&manifests(&home).join("c.json"), b"old").expect("written");
        // What a package brings under these names is none.
        write_whole(&home.join(NOTE), b"c.json").expect("written");
        std::fs::create_dir(home.join(KEPT)).expect("mkdir");
        let former = Former::keep(&home, &manifests(&home)).expect("kept").expect("something was installed");
        let (note, kept) = (former_of(&home).join(NOTE), former_of(&home).join(KEPT));
        assert!(!note.exists() && !kept.exists());
        // A manifest that cannot be kept, since something stands in its place.
        std::fs::create_dir_all(kept.join("c.json/x")).expect("mkdir");
        assert!(former.keep_manifests(&["c.json".to_owned()]).is_err());
        assert!(!note.exists(), "the manifest would be taken for one that was not there");
        remove_dir(&kept).expect("removed");
        former.keep_manifests(&["c.json".to_owned()]).expect("kept");
        // What is kept cannot be removed.
        write_whole(&note, b"").expect("written");
        remove_dir(&kept).expect("removed");
        std::fs::write(&kept, "").expect("written");
        assert!(put_back_manifests(&home, &manifests(&home)).is_err());
        assert!(!note.exists(), "a note without what it speaks of removes manifests");
        std::fs::remove_file(&kept).expect("removed");
        former.let_go();
        std::fs::write(note_beside(&home), "list.yaml").expect("written");
        for begun in [former_of(&home), beside(&home, "copying")] {
            std::fs::create_dir_all(begun.join("lib")).expect("made");
        }
        forget(&home).expect("forgotten");
        let left = std::fs::read_dir(home.parent().expect("a folder")).expect("there").flatten();
        assert_eq!(left.map(|one| one.path()).collect::<Vec<_>>(), [home]);
    }

    /// The tool was installed into another environment after an update had been killed.
    #[test]
    fn a_manifest_that_names_another_environment_since_is_newer_than_what_is_kept() {
        let tool = |env_name: &str, version: &str| {
            format!(
                r#"{{"format_version":"2.0","install":{{"python_path":"/p","conda_env":"{env_name}"}},"code":{{"name":"c","version":"{version}",
                "module":"m","class":"C"}}}}"#
            )
        };
        let adapter = |env_name: &str| {
            let class = r#""unit":"adapter","name":"m.A","task_name":"t","module":"m","class":"A""#;
            format!(r#"{{{class},"conda_env":"{env_name}"}}"#)
        };
        // One that names no environment is of nobody who could have written it since.
        for (env_name, stays) in [("tool", false), ("", false), ("other", true)] {
            let (_folder, home) = environment();
            let write = |name: &str, text: &str| {
                write_whole(&manifests(&home).join(name), text.as_bytes()).expect("written");
            };
            let old = [("a.json", adapter("tool")), ("c.json", tool("tool", "1"))];
            old.iter().for_each(|(name, text)| write(name, text));
            let former =
                Former::keep(&home, &manifests(&home)).expect("kept").expect("something was installed");
            replace(&home);
            former.keep_manifests(&["a.json", "b.json", "c.json"].map(str::to_owned)).expect("kept");
            std::mem::forget(former);
            let new = [
                ("a.json", adapter(env_name)),
                ("b.json", adapter(env_name)),
                ("c.json", tool(env_name, "2")),
            ];
            new.iter().for_each(|(name, text)| write(name, text));
            recover(&home, &manifests(&home)).expect("put back");
            assert_eq!(module(&home), "old");
            let expected = if stays { &new[..] } else { &old[..] };
            let expected: Vec<_> =
                expected.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
            assert_eq!(written(&home), expected, "{env_name}");
        }
    }

    /// A copy of an environment may have come with a folder from elsewhere.
    #[test]
    fn a_note_speaks_of_manifests_beside_each_other_and_of_nothing_else() {
        let (folder, home) = environment();
        let mine = folder.path().join("mine.json");
        write_whole(&mine, b"mine").expect("written");
        let copy = former_of(&home);
        write_whole(&manifests(&home).join("keep.txt"), b"mine").expect("written");
        write_whole(&manifests(&home).join("c.json"), b"new").expect("written");
        let inner = manifests(&home).join("inner");
        write_whole(&inner.join("d.json"), b"mine").expect("written");
        let absolute = mine.display();
        let note = format!("../mine.json\n{absolute}\ninner/d.json\nkeep.txt\n\n..\nc.json");
        write_whole(&copy.join(NOTE), note.as_bytes()).expect("written");
        put_back_manifests(&home, &manifests(&home)).expect("put back");
        assert!(mine.is_file() && inner.join("d.json").is_file());
        assert!(manifests(&home).join("keep.txt").is_file());
        assert!(!manifests(&home).join("c.json").exists(), "what was not there before goes");
    }

    #[test]
    fn a_manifest_that_nobody_touched_is_left_since_its_folder_may_take_nothing() {
        let (_folder, home) = environment();
        write_whole(&manifests(&home).join("c.json"), b"old").expect("written");
        let former = Former::keep(&home, &manifests(&home)).expect("kept").expect("something was installed");
        replace(&home);
        former.keep_manifests(&["c.json".to_owned()]).expect("kept");
        // What is written into a folder first has these names.
        for taken in ["c.link", "c.json.new"] {
            let place = manifests(&home).join(format!("{taken}-{}", std::process::id()));
            std::fs::create_dir_all(place.join("x")).expect("made");
        }
        drop(former);
        assert_eq!(module(&home), "old");
        assert!(Stamp::read(&home).is_some());
    }

    #[test]
    fn an_update_that_fails_puts_its_manifests_back() {
        let (_folder, home) = environment();
        write_whole(&manifests(&home).join("c.json"), b"old").expect("written");
        let former = Former::keep(&home, &manifests(&home)).expect("kept").expect("something was installed");
        replace(&home);
        former.keep_manifests(&["c.json".to_owned()]).expect("kept");
        write_whole(&manifests(&home).join("c.json"), b"new").expect("written");
        drop(former);
        assert_eq!(written(&home), [("c.json".to_owned(), "old".to_owned())]);
    }
}
