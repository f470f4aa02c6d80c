//! What to do about a tool, by the list that it came from: that may have been moved, deleted, or be another user's.
//!
//! What must hold: what cannot be looked at is not told as gone; one look decides whether a list is gone and whether it
//! still asks for something, so that no advice contradicts itself.

use cjm_platform::files::{FileError, open_regular};
use cjm_wire::describe::shell_word;
use std::io::ErrorKind;
use std::path::Path;

/// The command that makes a tool anew, in backticks: from the list that it came from, while that is there.
#[must_use]
pub fn install_all_step(list: Option<&Path>) -> String {
    let command = install_all_command(list);
    let told = list.filter(|list| list.is_absolute()).map(|list| (list.display(), look_at_list(list)));
    match told {
        Some((list, Looked::Gone)) => {
            format!("`{command}` (its list {list} is gone: name the one of today with --capabilities)")
        }
        Some((_, Looked::Unseen(why))) => {
            format!("`{command}` (run by who may read that list: this user was answered \"{why}\")")
        }
        Some((_, Looked::There)) | None => format!("`{command}`"),
    }
}

/// What a look at a list tells of it.
enum Looked {
    There,
    /// It is not where it was: it was moved, or deleted.
    Gone,
    /// It may be there, and cannot be read: in the system's words.
    Unseen(String),
}

fn look_at_list(list: &Path) -> Looked {
    match open_regular(list) {
        Ok(_) => Looked::There,
        Err(error) if is_no_list(&error) => Looked::Gone,
        Err(FileError::Io { source, .. }) => Looked::Unseen(source.to_string()),
        Err(error) => Looked::Unseen(error.to_string()),
    }
}

/// Whether it says that there is no list any more: nothing of this name, or no file.
pub(crate) fn is_no_list(error: &FileError) -> bool {
    matches!(error, FileError::NotRegular { .. })
        || matches!(error.io_kind(), Some(ErrorKind::NotFound | ErrorKind::NotADirectory))
}

/// Whether a list is not where it was: what cannot be looked at is not gone.
#[must_use]
pub fn is_gone(list: &Path) -> bool {
    list.is_absolute() && matches!(look_at_list(list), Looked::Gone)
}

/// The same without backticks, for who adds to it.
#[must_use]
pub fn install_all_command(list: Option<&Path>) -> String {
    match list.filter(|list| list.is_absolute() && !is_gone(list)) {
        Some(list) => {
            format!("cjm-ctl install-all --capabilities {}", shell_word(&list.display().to_string()))
        }
        None => "cjm-ctl install-all".to_owned(),
    }
}

/// What to do about an installation that was broken off and for which its list asks no more; `name` is one that it goes by,
/// and no other tool.
#[must_use]
pub fn taken_away_step(name: &str, list: Option<&Path>) -> String {
    let name = shell_word(name);
    match list.filter(|list| is_gone(list)) {
        Some(list) => format!(
            "its list {} is gone: `cjm-ctl remove {name}` takes it away, and an `install-all` of the list of today goes on \
             with it where that asks for it",
            list.display()
        ),
        None => format!("no list asks for it any more: `cjm-ctl remove {name}` takes it away"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beginning::{Beginning, note_text};

    #[test]
    fn a_list_that_cannot_be_read_is_not_gone_and_one_that_is_gone_asks_for_nothing() {
        let folder = tempfile::tempdir().expect("tempdir");
        let list = folder.path().join("list.yaml");
        let begun = || {
            let (environment, note) = (folder.path().join("envs/one"), folder.path().join("envs/.one.list"));
            std::fs::create_dir_all(folder.path().join("envs")).expect("mkdir");
            std::fs::write(note, note_text(&list, "one", None, false)).expect("written");
            Beginning::read(&environment).is_asked_for()
        };
        let command = format!("`cjm-ctl install-all --capabilities {}`", list.display());
        let steps = || (install_all_step(Some(&list)), taken_away_step("one", Some(&list)));
        std::fs::write(
            &list,
            "capabilities:\n- {name: one, env_name: one, package: p, python_version: '3'}\n",
        )
        .expect("written");
        assert_eq!((steps().0, begun()), (command.clone(), true));
        // One that leads to itself cannot be looked at by anybody; for root no folder is closed.
        std::fs::remove_file(&list).expect("removed");
        std::os::unix::fs::symlink(&list, &list).expect("linked");
        let (again, away) = steps();
        assert!(again.starts_with(&format!("{command} (run by who may read that list")), "{again}");
        assert!(begun() && !again.contains("is gone") && !away.contains("is gone"), "{again} {away}");
        std::fs::remove_file(&list).expect("removed");
        for is_folder in [false, true] {
            if is_folder {
                std::fs::create_dir(&list).expect("a folder");
            }
            let (again, away) = steps();
            let gone = format!("`cjm-ctl install-all` (its list {} is gone", list.display());
            assert!(again.starts_with(&gone) && away.contains("is gone"), "{again} {away}");
            assert!(!begun(), "nothing goes on with it");
        }
    }

    #[test]
    fn a_list_below_what_is_a_file_now_is_gone_and_one_of_whatever_folder_is_not_looked_for() {
        let folder = tempfile::tempdir().expect("tempdir");
        let file = folder.path().join("project");
        std::fs::write(&file, "").expect("written");
        let list = file.join("capabilities.yaml");
        assert!(is_gone(&list) && install_all_step(Some(&list)).contains("is gone"));
        let note = note_text(&list, "one", None, false);
        std::fs::write(crate::beginning::note_beside(&folder.path().join("one")), note).expect("written");
        assert!(!Beginning::read(&folder.path().join("one")).is_asked_for());
        // One of them is there for who stands where this test does.
        for relative in ["Cargo.toml", "none.yaml"].map(Path::new) {
            assert!(!is_gone(relative));
            assert_eq!(install_all_step(Some(relative)), "`cjm-ctl install-all`");
            assert!(!taken_away_step("one", Some(relative)).contains("is gone"));
        }
    }
}
