//! Whether this user may look into the data directory at all: asked once for every command, so that one cause has one answer
//! wherever a command would come upon it first.

use crate::fault::Fault;
use cjm_wire::describe::{exit, shell_word};
use std::fs::{File, metadata, read_dir};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Files of every data directory in use. Only its owner may read them.
const FILES: [&str; 3] = ["host.lock", "journal.db", "diagnostics.db"];

/// Refuses a data directory of somebody else. One that is not there yet is nobody's.
pub(crate) fn check_may_be_read(data_dir: &Path) -> Result<(), Fault> {
    let Some((path, source)) = refused(data_dir) else { return Ok(()) };
    Err(Fault::new(
        "ctl.data_dir_unreadable",
        format!("this user may not read {}: {source}", path.display()),
        format!(
            "run it as the user whose that is (`namei -l {}` shows it), `chown` it where it is yours, or name another data \
             directory with --data-dir",
            shell_word(&path.to_string_lossy())
        ),
    )
    .with_exit(exit::STORE))
}

/// The first thing that the kernel refuses for want of a right.
fn refused(data_dir: &Path) -> Option<(PathBuf, io::Error)> {
    // What is no regular file says so elsewhere; opening it may wait for somebody.
    let open = |path: &Path| match metadata(path)? {
        found if found.is_file() => File::open(path).map(drop),
        _ => Ok(()),
    };
    let looks = [(data_dir.to_owned(), read_dir(data_dir).map(drop))];
    let opened = FILES.map(|name| {
        let path = data_dir.join(name);
        let result = open(&path);
        (path, result)
    });
    let mut all = looks.into_iter().chain(opened);
    all.find_map(|(path, result)| {
        result.err().filter(|error| error.kind() == ErrorKind::PermissionDenied).map(|error| (path, error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_or_no_file_is_no_question_of_rights() {
        let folder = tempfile::tempdir().expect("tempdir");
        assert!(refused(&folder.path().join("nowhere")).is_none());
        assert!(refused(folder.path()).is_none());
        std::fs::create_dir(folder.path().join("journal.db")).expect("made");
        assert!(refused(folder.path()).is_none());
    }
}
