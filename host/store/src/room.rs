//! Room on the disk: how much there is, and the reserve, a file that does nothing but occupy some. On a full disk it is
//! given up, so that the ends of running jobs can still be written, and it is made again before new work is accepted.
//!
//! ```text
//! held ──the disk is full──▶ given up ──there is room for it again──▶ held
//! none: the disk was too small or too full when the store was opened
//! ```
//! The room of the reserve serves the write-ahead log alone, which grows at its end: while it is given up, no checkpoint
//! runs, for that would spend it on the pages of the database.

use cjm_wire::error::no_inode;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// File of the reserve, in the data directory.
pub const RESERVE_FILE: &str = "journal.reserve";
/// How much it occupies: about 25 ends of jobs, each in a transaction of its own (10 to 15 pages of 4 KiB).
pub const RESERVE_BYTES: u64 = 1024 * 1024;
/// Nothing but the journal takes the last so many bytes of a disk: diagnostics are dropped, large bodies refused.
pub const LEFT_FREE_BYTES: u64 = 512 * 1024;
/// On a disk with less room than this when the store is opened, the write-ahead log is kept short.
pub(crate) const SMALL_DISK_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes that this user may still write on the disk of `path`; None when the system does not say.
pub(crate) fn available(path: &Path) -> Option<u64> {
    let found = statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// True when the error says that there is no room: a full disk, a quota, a file of the greatest length allowed.
#[must_use]
pub fn is_about_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge | ErrorKind::WriteZero
    )
}

/// What is to be said of an error where `path` was to be written: the system's words, and what they leave out. A disk whose
/// inodes are all in use is called full, too.
#[must_use]
pub fn said_of(error: &io::Error, path: &Path) -> String {
    let lacks = is_about_room(error).then(|| lacks_inodes(path)).flatten();
    lacks.map_or_else(|| error.to_string(), |lacks| format!("{error} ({lacks})"))
}

/// That no file can be made on the disk of `path`, or of the folder it would be in, though bytes are free; None otherwise.
pub(crate) fn lacks_inodes(path: &Path) -> Option<String> {
    let found = path.ancestors().find_map(|path| statvfs(path).ok())?;
    let bytes = found.f_bavail.saturating_mul(found.f_frsize);
    // A file system without a number of inodes has as many as it needs.
    let lacks = found.f_files > 0 && found.f_favail == 0 && bytes > 0;
    lacks.then(|| no_inode(bytes))
}

/// Makes the reserve of `data_dir` if there is none and so many bytes stay free beside it. True when it is there.
pub(crate) fn make_reserve(data_dir: &Path, left_bytes: u64) -> bool {
    let path = data_dir.join(RESERVE_FILE);
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() && found.len() >= RESERVE_BYTES => return true,
        // Too short, or no file of ours: a data directory may have come from elsewhere, with a link or a FIFO of this name.
        Ok(_) => drop(fs::remove_file(&path)),
        Err(_) => {}
    }
    if !has_place(available(data_dir), left_bytes) {
        return false;
    }
    match occupy(&path) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%error, path = %path.display(), "no room for the reserve");
            // What was written of it is of no use and in the way.
            let _ = fs::remove_file(&path);
            false
        }
    }
}

/// Whether a disk with so much room may be asked for the reserve; one that does not say so is tried.
fn has_place(available: Option<u64>, left_bytes: u64) -> bool {
    available.is_none_or(|bytes| bytes >= RESERVE_BYTES + left_bytes)
}

/// Gives the room of the reserve back to the disk. False when there was none.
pub(crate) fn give_up_reserve(data_dir: &Path) -> bool {
    fs::remove_file(data_dir.join(RESERVE_FILE)).is_ok()
}

fn occupy(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = [0; 64 * 1024];
            for _ in 0..RESERVE_BYTES / zeros.len() as u64 {
                file.write_all(&zeros)?;
            }
            file.sync_all()
        }
        other => other.map_err(io::Error::from),
    }
}

/// The reserve as the journal's writer knows it.
#[derive(Debug)]
pub(crate) struct Reserve {
    data_dir: PathBuf,
    state: ReserveState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReserveState {
    None,
    Held,
    GivenUp,
}

impl Reserve {
    pub(crate) fn of(data_dir: &Path) -> Self {
        let state =
            if make_reserve(data_dir, LEFT_FREE_BYTES) { ReserveState::Held } else { ReserveState::None };
        Self { data_dir: data_dir.to_owned(), state }
    }

    /// True when there was room to give up.
    pub(crate) fn give_up(&mut self) -> bool {
        if self.state != ReserveState::Held {
            return false;
        }
        self.state = ReserveState::GivenUp;
        give_up_reserve(&self.data_dir)
    }

    /// True when new work may be accepted: the reserve is there, or there never was one. `log_bytes`: so much the log takes
    /// again of what it gave back when the disk was full; without that the reserve would be lost to the next call already.
    pub(crate) fn restore(&mut self, log_bytes: u64) -> bool {
        if self.state == ReserveState::GivenUp && make_reserve(&self.data_dir, LEFT_FREE_BYTES + log_bytes) {
            self.state = ReserveState::Held;
        }
        self.state != ReserveState::GivenUp
    }

    /// Makes it again for the next host, where its room is there still.
    pub(crate) fn leave(&mut self) {
        if make_reserve(&self.data_dir, 0) {
            self.state = ReserveState::Held;
        }
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.state == ReserveState::GivenUp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_made_only_where_it_leaves_room_to_others() {
        for (available, left_bytes, has) in [
            (Some(RESERVE_BYTES), 0, true),
            (Some(RESERVE_BYTES + LEFT_FREE_BYTES), LEFT_FREE_BYTES, true),
            (Some(RESERVE_BYTES + LEFT_FREE_BYTES - 1), LEFT_FREE_BYTES, false),
            (Some(0), 0, false),
            (None, LEFT_FREE_BYTES, true),
        ] {
            assert_eq!(has_place(available, left_bytes), has, "{available:?} {left_bytes}");
        }
    }

    #[test]
    fn a_reserve_occupies_room_until_it_is_given_up() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join(RESERVE_FILE);
        let mut reserve = Reserve::of(dir.path());
        assert_eq!(fs::metadata(&path).expect("made").len(), RESERVE_BYTES);
        assert!(reserve.restore(0) && !reserve.is_given_up());
        assert!(reserve.give_up() && !path.exists());
        assert!(reserve.is_given_up() && !reserve.give_up(), "it can be given up once");
        assert!(
            !reserve.restore(u64::MAX / 2) && reserve.restore(0) && path.exists() && !reserve.is_given_up()
        );
        let victim = dir.path().join("victim");
        fs::write(&victim, "mine").expect("written");
        fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink(&victim, &path).expect("linked");
        assert!(make_reserve(dir.path(), 0) && path.symlink_metadata().is_ok_and(|found| found.is_file()));
        assert_eq!(fs::read(&victim).expect("reads"), b"mine", "a link is not followed");
        let missing = Reserve::of(&dir.path().join("not/there"));
        assert_eq!(missing.state, ReserveState::None);
    }
}
