//! What stands in the place of the store's own files and folders, and is none: a link, a FIFO, a folder; a file where large
//! bodies are kept. SQLite would follow it, wait for it, or say that it cannot open the database.

use crate::error::{NO_FOLDER, NOT_OURS, StoreError};
use std::fs;
use std::path::{Path, PathBuf};

/// A database, its log and the log's index.
pub(crate) fn files_of(database: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| with_suffix(database, suffix))
}

fn with_suffix(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Refuses what is no file in the place of one of a database's.
pub(crate) fn refuse_no_files(doing: &'static str, database: &Path) -> Result<(), StoreError> {
    let is_other = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|found| !found.is_file());
    // SQLite looks for what a writer without a log would have left, also where nobody writes so.
    let left_behind = with_suffix(database, "-journal");
    match files_of(database).into_iter().chain([left_behind]).find(is_other) {
        Some(path) => Err(StoreError::File { doing, path, message: NOT_OURS.to_owned() }),
        None => Ok(()),
    }
}

/// Refuses what is no folder in the place of one. A link to a folder is the user's word.
pub(crate) fn refuse_no_folder(doing: &'static str, folder: &Path) -> Result<(), StoreError> {
    if folder.is_dir() || folder.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(StoreError::File { doing, path: folder.to_owned(), message: NO_FOLDER.to_owned() })
}
