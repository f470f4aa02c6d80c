//! A folder for a capability's data that cannot be made: who can help.

use cjm_store::room::{is_about_room, said_of};
use cjm_wire::channel::SDK_NOT_WRITTEN;
use cjm_wire::describe::{Described, Facts, exit};
use cjm_wire::error::{ErrorCategory, NO_INODE};
use std::io::Error;
use std::path::{Path, PathBuf};

/// Why a worker was not started.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NoFolder {
    /// Its disk, or this user's share of it, takes no more bytes.
    #[error("\"{capability}\" could not be started: its folder {} cannot be made: {message}", path.display())]
    NoRoom {
        /// Of the folder.
        capability: String,
        /// The folder.
        path: PathBuf,
        /// What the system says.
        message: String,
    },
    /// Its disk takes no more files.
    #[error("\"{capability}\" could not be started: its folder {} cannot be made: {message}", path.display())]
    NoInode {
        /// Of the folder.
        capability: String,
        /// The folder.
        path: PathBuf,
        /// What the system says, with its numbers.
        message: String,
    },
    /// Something is in its way, or it may not be made there.
    #[error("\"{capability}\" could not be started: its folder {} cannot be made: {message}", path.display())]
    Refused {
        /// Of the folder.
        capability: String,
        /// The folder.
        path: PathBuf,
        /// What the system says.
        message: String,
    },
}

impl NoFolder {
    /// Makes the folder for a tool's data.
    pub(crate) fn make(capability: &str, path: &Path) -> Result<(), Self> {
        std::fs::create_dir_all(path).map_err(|error| Self::new(capability, path, &error))
    }

    fn new(capability: &str, path: &Path, error: &Error) -> Self {
        let (capability, message) = (capability.to_owned(), said_of(error, path));
        let path = path.to_owned();
        match is_about_room(error) {
            true if message.contains(NO_INODE) => Self::NoInode { capability, path, message },
            true => Self::NoRoom { capability, path, message },
            false => Self::Refused { capability, path, message },
        }
    }

    /// Its category, and whether the same may succeed later.
    pub(crate) fn kind(&self) -> (ErrorCategory, bool) {
        match self {
            Self::NoRoom { .. } | Self::NoInode { .. } => (ErrorCategory::Resource, true),
            Self::Refused { .. } => (ErrorCategory::Fatal, false),
        }
    }
}

impl Described for NoFolder {
    fn code(&self) -> &'static str {
        match self {
            Self::NoRoom { .. } => "worker.no_room",
            Self::NoInode { .. } => "worker.no_inode",
            Self::Refused { .. } => "worker.no_folder",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::NoRoom { .. } => "free space on that disk, then try again".to_owned(),
            Self::NoInode { .. } => {
                "remove files from that disk (`df -i` counts inodes), then try again".to_owned()
            }
            Self::Refused { .. } => {
                "see what is in its way there, and whether you may write there".to_owned()
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NoRoom { .. } | Self::NoInode { .. } => exit::STORE,
            Self::Refused { .. } => exit::WORKER_START,
        }
    }
}

/// The disk has no room for the files that Python tools are started with, neither in the user's cache nor in the data directory.
const SDK_NO_ROOM: &str = "worker.sdk_no_room";

/// What is told of it.
pub(crate) fn sdk_without_room() -> Facts {
    Facts::new(
        SDK_NO_ROOM,
        exit::STORE,
        "free space on the disk of your cache (`~/.cache`) or of the data directory, then try again",
    )
}

/// Whether a worker that did not load its tool says that the disk had no room for the files of its shim.
pub(crate) fn is_sdk_without_room(message: &str) -> bool {
    let number = || message.rsplit_once("(os error ")?.1.split_once(')')?.0.parse().ok();
    message.starts_with(SDK_NOT_WRITTEN)
        && number().is_some_and(|number| is_about_room(&Error::from_raw_os_error(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_for_the_shims_files_is_no_fault_of_the_tool() {
        for (message, is_about_room) in [
            ("the Python SDK cannot be written, neither here: No space left on device (os error 28)", true),
            ("the Python SDK cannot be written, neither here: Read-only file system (os error 30)", false),
            ("OSError: No space left on device (os error 28)", false),
        ] {
            assert_eq!(is_sdk_without_room(message), is_about_room, "{message}");
        }
    }

    use std::io::ErrorKind;

    #[test]
    fn a_folder_is_refused_by_its_disk_or_by_what_is_there() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("taken");
        std::fs::write(&path, "").expect("written");
        let taken = std::fs::create_dir_all(&path).expect_err("a file is there");
        for (error, exit_code, category) in [
            (taken, exit::WORKER_START, ErrorCategory::Fatal),
            (ErrorKind::StorageFull.into(), exit::STORE, ErrorCategory::Resource),
            (ErrorKind::QuotaExceeded.into(), exit::STORE, ErrorCategory::Resource),
        ] {
            let refused = NoFolder::new("tool", &path, &error);
            assert!(refused.to_string().contains(&*path.to_string_lossy()), "{refused}");
            assert_eq!((refused.exit_code(), refused.kind().0), (exit_code, category), "{refused}");
        }
    }
}
