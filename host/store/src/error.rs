//! What can go wrong with a store, told apart by who must hear of it: the caller whose rows were refused, everybody
//! who waits while the disk fails, or a person because a file is not what it should be.

use crate::holders::{LOCKED, with_holders};
use crate::room::{is_about_room, said_of};
use cjm_wire::describe::{Described, exit};
use cjm_wire::error::ErrorCategory;
use cjm_wire::error::NO_INODE;
use rusqlite::Connection;
use std::path::{Path, PathBuf};

/// What is said of a database that is a link, a FIFO, a folder.
pub(crate) const NOT_OURS: &str = "it is not a regular file";
/// What is said of something else in the place of a folder.
pub(crate) const NO_FOLDER: &str = "it is not a folder";

/// The database with archives, the journal, as its path ends. What opens it needs this module.
const HAS_ARCHIVES: &str = "/journal.db";

/// What SQLite says of a file that is damaged, in the reasons that are kept as text.
const DAMAGED: [&str; 2] = ["database disk image is malformed", "file is not a database"];

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The file does not exist: nothing has run on this data directory.
    #[error("no store at {} (nothing has run here yet)", .path.display())]
    NothingYet {
        /// Where it would be.
        path: PathBuf,
    },
    /// This commit breaks a rule of the store, such as a second terminal row; others were not affected.
    #[error("the store refused the commit: {what}")]
    Refused {
        /// Which rule, with the ids.
        what: String,
    },
    /// Somebody else does the same now.
    #[error("{what}")]
    Busy {
        /// What, and where.
        what: String,
    },
    /// There are more archives than are read together.
    #[error("{count} archives are left out: more are there than are read together, the newest of these is {}", .last.display())]
    LeftOut {
        /// How many.
        count: usize,
        /// The newest of them.
        last: PathBuf,
    },
    /// An archive, or a part of it, cannot be read; the rest of the journal can.
    #[error("the archive {} cannot be read: {reason}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The journal is gone, and what was moved out of it is not.
    #[error("{} is {}", .path.display(), if *.another { "not the one whose rows stand in `archives`" } else { "missing or empty, though it has archives" })]
    JournalLost {
        /// Where it would be.
        path: PathBuf,
        /// Another one stands there.
        another: bool,
    },
    /// Larger than one commit may be.
    #[error("{what} is {bytes} bytes long, more than the {bytes_max} allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The named maximum.
        bytes_max: usize,
    },
    /// No new work is accepted while the disk fails.
    #[error("new work is not accepted while the journal cannot be written: {reason}")]
    Closed {
        /// What the disk said.
        reason: String,
    },
    /// This commit did not fit on the disk, while smaller ones do: it fails alone.
    #[error("the disk of the data directory did not take {bytes} bytes: {reason}")]
    NoRoom {
        /// Its size.
        bytes: usize,
        /// What the disk said.
        reason: String,
    },
    /// Not written after the longest time a caller waits. It stays in memory and is written when the disk works again;
    /// it is lost if the host ends before.
    #[error("not written after {waited_s} s, since the journal cannot be written: {reason}")]
    Unwritten {
        /// How long the caller waited.
        waited_s: u64,
        /// What the disk said.
        reason: String,
    },
    /// A file the host works with has lost its name: what is written to it would be lost.
    #[error("{} {MOVED}", .path.display())]
    Moved {
        /// The name.
        path: PathBuf,
    },
    /// Too much is waiting to be written; this was not queued.
    #[error(
        "the store has more waiting than it may hold ({waiting_bytes_max} bytes); the row was not queued"
    )]
    Overloaded {
        /// The named maximum.
        waiting_bytes_max: usize,
    },
    /// The writer is gone: the host shuts down, or gave up on a failing disk while it did.
    #[error("the store is closed{}{detail}", if .detail.is_empty() { "" } else { ": " })]
    ShutDown {
        /// What was going on, if anything.
        detail: String,
    },
    /// Written by a later version of this program.
    #[error("{} was written by a later version of cjm-substrate", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// SQLite could not do it.
    #[error("{doing}: {message}")]
    Database {
        /// What was being done.
        doing: String,
        /// SQLite's words.
        message: String,
        /// The file is damaged, not merely busy or the disk full.
        damaged: bool,
    },
    /// The file system could not do it.
    #[error("{doing} {}: {message}", .path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's words.
        message: String,
    },
    /// A stored value cannot be read back: a payload file is missing or is not what its name says, or a column
    /// holds what no version writes.
    #[error("{what}")]
    Unreadable {
        /// Which, and how.
        what: String,
    },
}

impl StoreError {
    /// Whether the journal's writer says this itself, once for all that it does not take.
    #[must_use]
    pub fn is_said_by_writer(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Unwritten { .. } | Self::Moved { .. })
    }

    /// Whether a disk without room is the cause, of bytes: those of which inodes are all in use lack something else.
    #[must_use]
    pub fn is_about_room(&self) -> bool {
        let Self::Database { message, damaged: false, .. } = self else { return false };
        (message.contains(FULL) || message.contains(DISK_HAS)) && !message.contains(NO_INODE)
    }

    pub(crate) fn database(doing: impl Into<String>, error: &rusqlite::Error) -> Self {
        let damaged = matches!(
            error.sqlite_error_code(),
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
        );
        Self::Database { doing: doing.into(), message: error.to_string(), damaged }
    }

    /// [`Self::database_at`] for what is done to whatever file this is a connection to.
    pub(crate) fn database_of(doing: &str, connection: &Connection, error: &rusqlite::Error) -> Self {
        Self::database_at(doing, Path::new(connection.path().unwrap_or("the database")), error)
    }

    /// [`Self::database`] for what is done to the file itself: where others lock it, they are named.
    pub(crate) fn database_at(doing: &str, path: &Path, error: &rusqlite::Error) -> Self {
        let doing = format!("{doing} {}", path.display());
        match Self::database(doing, error) {
            Self::Database { doing, message, damaged } => {
                Self::Database { doing, message: with_holders(message, path), damaged }
            }
            other => other,
        }
    }

    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        let path = path.into();
        let message = said_of(error, &path);
        Self::File { doing, path, message }
    }

    /// A file could not be written: for want of room, or for another reason.
    pub(crate) fn writing(
        doing: &'static str,
        path: impl Into<PathBuf>,
        bytes: usize,
        error: &std::io::Error,
    ) -> Self {
        let path = path.into();
        if is_about_room(error) {
            Self::NoRoom { bytes, reason: said_of(error, &path) }
        } else {
            Self::file(doing, path, error)
        }
    }

    /// What kind of failure a job has that this error ended.
    #[must_use]
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::NoRoom { .. } | Self::Closed { .. } | Self::Unwritten { .. } | Self::Overloaded { .. } => {
                ErrorCategory::Resource
            }
            Self::TooLarge { .. } => ErrorCategory::UserInput,
            Self::Busy { .. } | Self::ShutDown { .. } => ErrorCategory::Transient,
            _ => ErrorCategory::Fatal,
        }
    }

    pub(crate) fn unreadable(what: impl Into<String>) -> Self {
        Self::Unreadable { what: what.into() }
    }
}

/// Said of a file that has lost its name, and found again where only the words of an error are left.
const MOVED: &str = "was removed, replaced or emptied while the host was using it";

/// What to do then.
const MOVED_STEP: &str = "end this host and start another one; where the file was renamed, put it back first";

/// What the system says of a file system that takes nothing.
const READ_ONLY: &str = "Read-only file system";
/// What is said of a disk without room where SQLite only says that it could not write.
pub(crate) const DISK_HAS: &str = "its disk has";
/// What SQLite says of a disk that takes no more.
const FULL: &str = "database or disk is full";

impl Described for StoreError {
    fn code(&self) -> &'static str {
        match self {
            Self::NothingYet { .. } => "store.nothing_yet",
            Self::Refused { .. } => "store.refused",
            Self::Busy { .. } => "store.busy",
            Self::LeftOut { .. } => "store.left_out",
            Self::Archive { .. } => "store.archive",
            Self::JournalLost { .. } => "store.journal_lost",
            Self::TooLarge { .. } => "store.too_large",
            Self::Closed { .. } => "store.closed",
            Self::NoRoom { .. } => "store.no_room",
            Self::Unwritten { .. } => "store.unwritten",
            Self::Moved { .. } => "store.moved",
            Self::Overloaded { .. } => "store.overloaded",
            Self::ShutDown { .. } => "store.shut_down",
            Self::Newer { .. } => "store.newer",
            Self::Database { damaged: true, .. } => "store.damaged",
            Self::Database { .. } => "store.database",
            Self::File { .. } => "store.file",
            Self::Unreadable { .. } => "store.unreadable",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::NothingYet { .. } => "run something first, or name the right directory with --data-dir".into(),
            Self::Refused { .. } => "look the job up in the journal: something else ended or started it first".into(),
            Self::Busy { .. } => "wait until that has ended, then run this again".into(),
            Self::Archive { .. } => "put the file back from a backup, or move it out of the folder; its rows are missing".into(),
            Self::LeftOut { .. } => "move archives that are not needed out of the folder, then run this again".into(),
            Self::JournalLost { .. } => {
                "put back from a backup the one that its archives are of, or move the folder `archives` away: another one counts \
                 its rows from one again"
                    .into()
            }
            Self::TooLarge { .. } => "pass bulky data as files and give their paths".into(),
            Self::Closed { reason } | Self::Unwritten { reason, .. } if reason.contains(LOCKED) => {
                "end the other program that holds the database of the data directory; a host that still lives then writes what waits"
                    .into()
            }
            Self::Closed { reason } | Self::Unwritten { reason, .. } if reason.contains(MOVED) => MOVED_STEP.into(),
            // A new journal counts its rows from one again; what else is damaged has no archives.
            Self::Database { doing, damaged: true, .. } if doing.contains(HAS_ARCHIVES) => {
                "keep the file, restore a backup or move it away (the journal with the folder `archives`, whose rows would be \
                 told among those of a new one), and check the disk"
                    .into()
            }
            Self::Database { damaged: true, .. } => {
                "keep the file, restore a backup or move it away, and check the disk".into()
            }
            Self::Closed { reason } | Self::Unwritten { reason, .. } if DAMAGED.iter().any(|said| reason.contains(said)) => {
                Self::Database { doing: reason.clone(), message: reason.clone(), damaged: true }.next_step()
            }
            Self::Closed { reason: said } | Self::Unwritten { reason: said, .. } | Self::NoRoom { reason: said, .. }
            | Self::Database { message: said, damaged: false, .. } | Self::File { message: said, .. }
                if said.contains(NO_INODE) =>
            {
                "remove files that are not needed from that disk, or give it more inodes (`df -i` counts them); then run it again".into()
            }
            Self::Database { message, damaged: false, .. } | Self::File { message, .. } if message.contains(READ_ONLY) => {
                "make the file system of the data directory writable, or name another directory with --data-dir".into()
            }
            Self::Closed { .. } => {
                "free space on the disk of the data directory, as `cjm-ctl retention --jobs-max-age-days 0.00001 --max-total-mb 0` does (it forgets all jobs that have ended, and all logs), or make it writable; work is accepted again by itself".into()
            }
            Self::NoRoom { .. } => {
                "free space on the disk of the data directory, as `cjm-ctl retention --jobs-max-age-days 0.00001 --max-total-mb 0` does (it forgets all jobs that have ended, and all logs), or pass bulky data as files elsewhere; then run it again".into()
            }
            Self::Unwritten { .. } => {
                "free space on the disk of the data directory, as `cjm-ctl retention --jobs-max-age-days 0.00001 --max-total-mb 0` does (it forgets all jobs that have ended, and all logs), or make it writable; a host that still lives then writes what waits".into()
            }
            Self::Moved { .. } => MOVED_STEP.into(),
            Self::Overloaded { .. } => "send fewer calls at a time, or wait for each to be written".into(),
            Self::ShutDown { .. } => "start the host again; what was committed is kept".into(),
            Self::Newer { .. } => "use the version of cjm-substrate that wrote it, or another data directory".into(),
            Self::Database { message, .. } if message.contains(LOCKED) => {
                "end the other program that holds the database, then try again".into()
            }
            Self::Database { .. } if self.is_about_room() => {
                "free space on the disk of the data directory, as `cjm-ctl retention --jobs-max-age-days 0.00001 --max-total-mb 0` does (it forgets all jobs that have ended, and all logs), then try again".into()
            }
            Self::Database { .. } => "check free space and permissions of the data directory, then try again".into(),
            Self::File { message, .. } if message.contains(NOT_OURS) => {
                "move it away, or put the file itself there".into()
            }
            Self::File { message, .. } if message.contains(NO_FOLDER) => {
                "move it away; the folder is made again, or put back the one that was there".into()
            }
            Self::File { .. } => "check that the data directory is yours, writable and on a healthy disk".into(),
            Self::Unreadable { .. } => "restore the data directory from a backup, or run the job again".into(),
        }
    }

    fn exit_code(&self) -> u8 {
        exit::STORE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_names_a_next_step_and_a_code_of_its_own() {
        let path = PathBuf::from("/d/journal.db");
        let all = [
            StoreError::NothingYet { path: path.clone() },
            StoreError::Refused { what: "x".into() },
            StoreError::Busy { what: "x".into() },
            StoreError::TooLarge { what: "the row", bytes: 2, bytes_max: 1 },
            StoreError::Closed { reason: "disk full".into() },
            StoreError::Overloaded { waiting_bytes_max: 1 },
            StoreError::NoRoom { bytes: 1, reason: "disk full".into() },
            StoreError::Unwritten { waited_s: 1, reason: "disk full".into() },
            StoreError::Moved { path: path.clone() },
            StoreError::JournalLost { path: path.clone(), another: true },
            StoreError::ShutDown { detail: String::new() },
            StoreError::Newer { path: path.clone() },
            StoreError::Database { doing: "open".into(), message: "m".into(), damaged: false },
            StoreError::Database { doing: "open".into(), message: "m".into(), damaged: true },
            StoreError::File { doing: "write", path, message: "m".into() },
            StoreError::unreadable("x"),
        ];
        let codes: std::collections::BTreeSet<&str> = all.iter().map(Described::code).collect();
        assert_eq!(codes.len(), all.len());
        for error in &all {
            assert!(!error.next_step().is_empty() && !error.to_string().is_empty(), "{error:?}");
            // What closes the gate decides what is to be done, not that the gate is closed.
            let closed = StoreError::Closed { reason: error.to_string() };
            let is_moved = matches!(error, StoreError::Moved { .. });
            assert_eq!(closed.next_step() == MOVED_STEP, is_moved, "{error:?}");
            assert!(!closed.next_step().starts_with("keep the file"), "{error:?}");
            assert_eq!(error.exit_code(), exit::STORE);
        }
        assert_eq!(StoreError::ShutDown { detail: String::new() }.to_string(), "the store is closed");
        for (file, has_archives) in [("/d/journal.db", true), ("/d/diagnostics.db", false)] {
            let (doing, message) = (format!("read {file}"), "file is not a database".to_owned());
            let damaged = StoreError::Database { doing, message, damaged: true };
            assert_eq!(damaged.next_step().contains("archives"), has_archives, "{file}");
        }
        for said in ["database disk image is malformed", "file is not a database"] {
            let error =
                StoreError::Database { doing: "write /d".into(), message: said.into(), damaged: true };
            let closed = StoreError::Closed { reason: error.to_string() };
            let unwritten = StoreError::Unwritten { waited_s: 1, reason: error.to_string() };
            for told in [&error, &closed, &unwritten] {
                assert!(
                    told.next_step().starts_with("keep the file"),
                    "no room on a disk mends it: {told:?}"
                );
            }
        }
    }
}
