//! Whether this user may look into the data directory at all, and change it; and whether what stands in the place of its
//! locks are locks. Asked once for every command, so that one cause has one answer wherever a command would come upon it
//! first.

use crate::assign::lock_not_asked;
use crate::fault::Fault;
use cjm_catalog::installer::INSTALL_LOCK;
use cjm_platform::files::{may_be_written, refuse_what_is_no_file};
use cjm_store::{DIAGNOSTICS_FILE, JOURNAL_FILE};
use cjm_wire::describe::{exit, shell_word};
use std::fs::{File, metadata, read_dir};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Locks of a data directory in use.
const LOCKS: [&str; 3] = ["host.lock", "tree.lock", INSTALL_LOCK];
/// Its other files. Only its owner may read any of them.
const STORES: [&str; 2] = [JOURNAL_FILE, DIAGNOSTICS_FILE];

/// Refuses a data directory of somebody else, and what is none. One that is not there yet is nobody's.
pub(crate) fn check_may_be_read(data_dir: &Path) -> Result<(), Fault> {
    if let Some((path, source)) = unread(data_dir) {
        return Err(Fault::new(
            "ctl.data_dir_unreadable",
            format!("this user may not read {}: {source}", path.display()),
            format!(
                "run it as the user whose that is (`namei -l {}` shows it), `chown` it where it is yours, or name another data \
                 directory with --data-dir",
                word(&path)
            ),
        )
        .with_exit(exit::STORE));
    }
    if metadata(data_dir).is_ok_and(|found| !found.is_dir()) {
        return Err(Fault::new(
            "ctl.data_dir_not_a_directory",
            format!("{} is no directory, and so no data directory", data_dir.display()),
            "name a directory with --data-dir; one that is not there is made",
        ));
    }
    let locks = LOCKS.map(|name| data_dir.join(name));
    locks.iter().try_for_each(|lock| refuse_what_is_no_file(lock)).map_err(|error| lock_not_asked(&error))
}

/// Refuses a data directory in which this user may change nothing.
pub(crate) fn check_may_be_written(data_dir: &Path) -> Result<(), Fault> {
    let files = LOCKS.iter().chain(&STORES).map(|name| data_dir.join(name));
    let looks = std::iter::once(data_dir.to_owned()).chain(files).map(|path| (may_be_written(&path), path));
    let Some((path, source)) = first_refused(looks) else { return Ok(()) };
    Err(Fault::new(
        "ctl.data_dir_unwritable",
        format!("this user may not write {}: {source}", path.display()),
        format!(
            "run it as the user whose that is (`namei -l {}` shows it), let this user write there, or name another data \
             directory with --data-dir",
            word(&path)
        ),
    )
    .with_exit(exit::STORE))
}

fn word(path: &Path) -> String {
    shell_word(&path.to_string_lossy())
}

/// The first thing that the kernel refuses to show for want of a right.
fn unread(data_dir: &Path) -> Option<(PathBuf, io::Error)> {
    // What is no regular file says so elsewhere; opening it may wait for somebody.
    let open = |path: &Path| match metadata(path)? {
        found if found.is_file() => File::open(path).map(drop),
        _ => Ok(()),
    };
    let files = LOCKS.iter().chain(&STORES).map(|name| data_dir.join(name)).map(|path| (open(&path), path));
    first_refused(std::iter::once((read_dir(data_dir).map(drop), data_dir.to_owned())).chain(files))
}

/// Of looks, the first that failed for want of a right: what is not there, or full, is told by whoever needs it.
fn first_refused(looks: impl Iterator<Item = (io::Result<()>, PathBuf)>) -> Option<(PathBuf, io::Error)> {
    let refused = |(looked, path): (io::Result<()>, PathBuf)| Some((path, looked.err()?));
    looks.filter_map(refused).find(|(_, error)| error.kind() == ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_or_no_file_is_no_question_of_rights() {
        let folder = tempfile::tempdir().expect("tempdir");
        assert!(unread(&folder.path().join("nowhere")).is_none());
        assert!(unread(folder.path()).is_none());
        std::fs::create_dir(folder.path().join("journal.db")).expect("made");
        assert!(unread(folder.path()).is_none());
    }
}
