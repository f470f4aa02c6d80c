//! Room in `journal.db` for what is still in its write-ahead log. Where a disk has little room, the file is made as long as
//! all that is committed, before it is committed. So writing the log back overwrites what the file has already, never
//! needs room, and gives the whole log to the disk: retention, and the next host, find room where a run left none.
//!
//! What must hold: a commit that makes the journal longer leaves room beside it, for deleting needs a log, too: new work
//! more of it than the ends of what runs, also where the file has a free page for it.

use crate::holders::with_holders;
use crate::room::{SMALL_DISK_BYTES, available};
use crate::schema::JOURNAL_FILE;
use rusqlite::{Connection, OpenFlags, ffi};
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// So much a commit that makes the journal longer leaves free, counted with the log, which can be given back at any time:
/// it is kept for retention, and for the ends that a next host writes.
const LEFT_BY_WORK_BYTES: u64 = 384 * 1024;
/// So much small ends of what runs leave.
const LEFT_BY_ENDS_BYTES: u64 = 128 * 1024;
/// How long whoever cuts the log waits for others.
const CUT_WAIT: Duration = Duration::from_secs(1);

/// Files that were made longer. To close one would let go of the locks that SQLite holds on it in this process, so none is
/// closed while it has a name: a process opens few journals.
static LENGTHENED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// What makes the journal longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Longer {
    /// Small commits that tell of what was accepted before.
    Ends,
    /// Large results.
    Results,
    /// New work.
    Work,
}

/// Where a journal lies.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    log: PathBuf,
}

impl Place {
    pub(crate) fn of(data_dir: &Path) -> Self {
        let path = data_dir.join(JOURNAL_FILE);
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Self { path, log: log.into() }
    }

    /// What SQLite says of the database, with whoever holds it where it is locked.
    pub(crate) fn with_holders(&self, message: String) -> String {
        with_holders(message, &self.path)
    }

    /// Bytes in the write-ahead log.
    pub(crate) fn log_bytes(&self) -> u64 {
        fs::metadata(&self.log).map(|found| found.len()).unwrap_or_default()
    }

    /// Bytes that the file lacks of what `connection` sees, its own transaction included.
    pub(crate) fn lacking_bytes(&self, connection: &Connection) -> rusqlite::Result<u64> {
        let bytes = bytes_of(connection, "PRAGMA page_count")?;
        // A file that cannot be looked at is the next statement's trouble.
        Ok(fs::metadata(&self.path).map_or(0, |found| bytes.saturating_sub(found.len())))
    }

    /// Before the commit of `connection`'s transaction: on a disk with little room, makes the file as long as it will be.
    pub(crate) fn make_for(&self, connection: &Connection, what: Longer) -> rusqlite::Result<()> {
        let Some(free) = available(&self.path).filter(|bytes| *bytes < SMALL_DISK_BYTES) else {
            return Ok(());
        };
        let lacking = self.lacking_bytes(connection)?;
        let left = match what {
            Longer::Ends => LEFT_BY_ENDS_BYTES,
            Longer::Results | Longer::Work => LEFT_BY_WORK_BYTES,
        };
        let inside = match (lacking, what) {
            // Whether a page of the file happens to be free for it shall not decide which of two calls is taken.
            (0, Longer::Work) => bytes_of(connection, "PRAGMA freelist_count")?,
            (0, _) => return Ok(()),
            _ => 0,
        };
        if !has_room(free, self.log_bytes() + inside, lacking, left) {
            return Err(full());
        }
        if lacking > 0 { self.lengthen(lacking) } else { Ok(()) }
    }

    fn lengthen(&self, lacking: u64) -> rusqlite::Result<()> {
        let mut files = LENGTHENED.lock().unwrap_or_else(PoisonError::into_inner);
        // One without a name is nobody's any more.
        files.retain(|file| file.metadata().is_ok_and(|found| found.nlink() > 0));
        let Ok(wanted) = fs::metadata(&self.path) else { return Ok(()) };
        let is_it = |file: &File| {
            file.metadata().is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
        };
        let known = files.iter().position(is_it);
        let index = match known {
            Some(index) => index,
            // What cannot be opened is not made longer: the commit itself may work.
            None => match OpenOptions::new().write(true).open(&self.path) {
                Ok(file) => {
                    files.push(file);
                    files.len() - 1
                }
                Err(_) => return Ok(()),
            },
        };
        match fallocate(&files[index], FallocateFlags::empty(), wanted.len(), lacking) {
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT | rustix::io::Errno::FBIG) => Err(full()),
            // A file system that cannot do it goes on as before.
            _ => Ok(()),
        }
    }
}

/// What so many pages take.
fn bytes_of(connection: &Connection, pages: &str) -> rusqlite::Result<u64> {
    let number = |pragma: &str| -> rusqlite::Result<i64> {
        connection.prepare_cached(pragma)?.query_row([], |row| row.get(0))
    };
    Ok(number(pages)?.saturating_mul(number("PRAGMA page_size")?).unsigned_abs())
}

/// Whether the disk has the `lacking` bytes, and `left` beside them, the log counted with it.
fn has_room(free: u64, log: u64, lacking: u64, left: u64) -> bool {
    free >= lacking && free + log >= lacking + left
}

fn full() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        ffi::Error::new(ffi::SQLITE_FULL),
        Some("database or disk is full".to_owned()),
    )
}

/// Writes the log of `data_dir`'s journal back and gives it to the disk, as far as nobody reads it now. Nothing is made.
/// Without anybody beside it this needs no byte: the log's index is kept in memory then.
pub(crate) fn cut_log(data_dir: &Path) {
    let place = Place::of(data_dir);
    // The journal itself is no link, and what leads elsewhere is not written through.
    let is_file = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    if !is_file(&place.path) || !is_file(&place.log) {
        return;
    }
    for mode in ["EXCLUSIVE", "NORMAL"] {
        match cut(&place.path, mode) {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, mode, "the log of the journal could not be cut back"),
        }
    }
}

fn cut(path: &Path, locking_mode: &str) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    if locking_mode != "EXCLUSIVE" {
        connection.busy_timeout(CUT_WAIT)?;
    }
    connection.query_row(&format!("PRAGMA locking_mode = {locking_mode}"), [], |_| Ok(()))?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_journal_leaves_room_beside_it() {
        for (free, log, lacking, left, fits) in [
            (10, 0, 4, 6, true),
            (10, 0, 5, 6, false),
            // The log can be given back at any time, and the file cannot be made longer by it.
            (5, 6, 5, 6, true),
            (4, 9, 5, 6, false),
        ] {
            assert_eq!(has_room(free, log, lacking, left), fits, "{free} and {log} for {lacking} and {left}");
        }
    }

    #[test]
    fn what_has_no_name_any_more_is_not_held_open() {
        let of =
            |file: &Path| std::fs::metadata(file).map(|found| (found.dev(), found.ino())).expect("there");
        let held = || -> Vec<(u64, u64)> {
            let files = LENGTHENED.lock().unwrap_or_else(PoisonError::into_inner);
            files
                .iter()
                .filter_map(|file| file.metadata().ok())
                .map(|found| (found.dev(), found.ino()))
                .collect()
        };
        let lengthened = || {
            let folder = tempfile::tempdir().expect("tempdir");
            let place = Place::of(folder.path());
            fs::write(&place.path, "x").expect("written");
            place.lengthen(4096).expect("there is room");
            (folder, of(&place.path))
        };
        let (first_folder, first) = lengthened();
        assert!(held().contains(&first), "closing it would let go of the locks of SQLite");
        drop(first_folder);
        let (_second_folder, second) = lengthened();
        assert!(held().contains(&second) && !held().contains(&first));
    }
}
