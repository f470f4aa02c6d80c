//! What was installed is kept while an installation works on its environment: only one that came to its end takes its
//! place. A copy lies beside the environment; its files are links to the same content, so that it takes next to no room.
//!
//! What must hold: a copy is whole or has another name; an environment that has a stamp is newer than its copy.

use crate::error::EnvironmentError;
use crate::files::remove_dir;
use crate::stamp::Stamp;
use cjm_catalog::installation::former_of;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Below the environment, where files are replaced and never written into: packages.
const REPLACED: &str = "lib";

/// The copy of an environment, which takes its place again unless it is [let go](Former::let_go).
#[derive(Debug)]
pub(crate) struct Former {
    environment: PathBuf,
}

impl Former {
    /// Keeps what is installed, if something is. What conda made lies elsewhere, and cannot be kept.
    ///
    /// # Errors
    /// When it cannot be copied; nothing was changed then.
    pub(crate) fn keep(environment: &Path) -> Result<Option<Self>, EnvironmentError> {
        recover(environment)?;
        if environment.is_symlink() || Stamp::read(environment).is_none() {
            return Ok(None);
        }
        let copying = beside(environment, "copying");
        remove_dir(&copying)?;
        let whole = copy(environment, &copying, false)
            .and_then(|()| std::fs::rename(&copying, former_of(environment)))
            .map_err(|source| EnvironmentError::writing("keep a copy of", environment.to_owned(), source));
        if whole.is_err() {
            // What stays is removed by the next one.
            let _ = remove_dir(&copying);
        }
        whole.map(|()| Some(Self { environment: environment.to_owned() }))
    }

    /// The new one has its stamp: the copy is not needed any more.
    pub(crate) fn let_go(self) {
        // What stays is removed by the next installation.
        let _ = remove_dir(&former_of(&self.environment));
    }
}

impl Drop for Former {
    fn drop(&mut self) {
        if let Err(error) = recover(&self.environment) {
            let next_step = "run install-all again, which puts it back first";
            tracing::error!(%error, next_step, "the environment as it was could not be put back");
        }
    }
}

/// Puts back what an installation that came to no end had kept, and removes what one left that did.
///
/// # Errors
/// When it stays as it is.
pub(crate) fn recover(environment: &Path) -> Result<(), EnvironmentError> {
    let copy = former_of(environment);
    if !copy.is_dir() {
        return Ok(());
    }
    if Stamp::read(environment).is_some() {
        return remove_dir(&copy);
    }
    if environment.is_symlink() {
        std::fs::remove_file(environment)
            .map_err(|source| EnvironmentError::writing("remove", environment.to_owned(), source))?;
    }
    remove_dir(environment)?;
    std::fs::rename(&copy, environment)
        .map_err(|source| EnvironmentError::writing("put back", environment.to_owned(), source))
}

/// Removes what is kept of an environment that goes.
///
/// # Errors
/// When it stays.
pub(crate) fn forget(environment: &Path) -> Result<(), EnvironmentError> {
    remove_dir(&former_of(environment))?;
    remove_dir(&beside(environment, "copying"))
}

/// As [`former_of`].
fn beside(environment: &Path, what: &str) -> PathBuf {
    let name = environment.file_name().unwrap_or_default().to_string_lossy();
    environment.with_file_name(format!(".{name}.{what}"))
}

fn copy(from: &Path, to: &Path, linked: bool) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, target, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type()?);
        if kind.is_symlink() {
            symlink(std::fs::read_link(&path)?, &target)?;
        } else if kind.is_dir() {
            copy(&path, &target, linked || entry.file_name() == REPLACED)?;
        } else if kind.is_file() && !(linked && std::fs::hard_link(&path, &target).is_ok()) {
            std::fs::copy(&path, &target)?;
        }
    }
    Ok(())
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
        let former = Former::keep(&home).expect("kept").expect("something was installed");
        replace(&home);
        drop(former);
        assert_eq!(
            (module(&home), std::fs::read_to_string(home.join("bin/tool")).expect("there")),
            ("old".into(), "old".into())
        );
        assert!(Stamp::read(&home).is_some());

        let former = Former::keep(&home).expect("kept").expect("something was installed");
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
        std::mem::forget(Former::keep(&home).expect("kept"));
        replace(&home);
        remove_dir(&home).expect("killed when it made the environment anew");
        recover(&home).expect("put back");
        assert_eq!(module(&home), "old");
        std::fs::create_dir_all(beside(&home, "copying")).expect("killed when it copied");
        std::mem::forget(Former::keep(&home).expect("kept"));
        recover(&home).expect("the copy is removed");
        assert_eq!(std::fs::read_dir(folder.path().join("envs")).expect("there").count(), 1);
        remove_dir(&home).expect("removed");
        assert!(Former::keep(&home).expect("looked").is_none(), "nothing is installed");
    }
}
