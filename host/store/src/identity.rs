//! Whether the files a host holds open are still the ones their names lead to. Whoever removes or replaces one leaves the
//! host with a file without a name: what is written there is lost with the process.
//!
//! A number of an inode is not given to another file while the first is open, so that comparing it is proof.

use crate::error::StoreError;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the log and files beside the journal are looked at; the journal itself before each success is told.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A file as it was when it was opened.
#[derive(Debug)]
struct Known {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// It held something, and is as good as gone once it does not.
    holds_something: bool,
}

impl Known {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self { path: path.to_owned(), device: found.dev(), inode: found.ino(), holds_something: false })
    }

    /// A lock may be empty at any time; what holds rows is not.
    fn with_content(path: &Path) -> Option<Self> {
        let holds_something = fs::metadata(path).is_ok_and(|found| found.len() > 0);
        Self::of(path).map(|known| Self { holds_something, ..known })
    }

    fn is_it(&self, found: &fs::Metadata) -> bool {
        (found.dev(), found.ino()) == (self.device, self.inode) && (found.len() > 0 || !self.holds_something)
    }

    fn check(&self) -> Result<(), StoreError> {
        match fs::metadata(&self.path) {
            Ok(found) if self.is_it(&found) => Ok(()),
            // A folder that cannot be entered for once is no proof.
            Err(error)
                if !matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(())
            }
            _ => Err(StoreError::Moved { path: self.path.clone() }),
        }
    }
}

/// The files that must keep their names while a journal is written.
#[derive(Debug)]
pub(crate) struct HeldFiles {
    journal: Option<Known>,
    log_path: PathBuf,
    log: Option<Known>,
    others: Vec<Known>,
    /// When all of them were last found in their places; None after one was not.
    all_well_at: Option<Instant>,
}

impl HeldFiles {
    /// `others`: files beside the journal, such as the lock of the directory. Those that are not there are left out.
    pub(crate) fn of(journal: &Path, others: &[PathBuf]) -> Self {
        let mut log_path = journal.as_os_str().to_owned();
        log_path.push("-wal");
        Self {
            journal: Known::with_content(journal),
            log_path: log_path.into(),
            log: None,
            others: others.iter().filter_map(|path| Known::of(path)).collect(),
            all_well_at: Some(Instant::now()),
        }
    }

    /// To be asked after each commit and before its success is told. The journal is looked at each time; its log and the
    /// others once a second, and each time after one was missed.
    pub(crate) fn check(&mut self) -> Result<(), StoreError> {
        let is_recent = self.all_well_at.is_some_and(|at| at.elapsed() < LOOK_INTERVAL);
        if !is_recent || self.log.is_none() {
            return self.check_all();
        }
        self.check_journal()
    }

    /// Whether what is written is kept: the journal and its log have their names, whatever became of the others.
    pub(crate) fn keep_rows(&self) -> bool {
        self.check_journal().is_ok() && self.log.as_ref().is_none_or(|log| log.check().is_ok())
    }

    /// Looks at all of them, however long ago that was done.
    pub(crate) fn check_all(&mut self) -> Result<(), StoreError> {
        self.all_well_at = None;
        self.check_journal()?;
        match &self.log {
            Some(log) => log.check()?,
            // It is there from the first commit to the end of the connection.
            None => self.log = Known::of(&self.log_path),
        }
        for other in &self.others {
            other.check()?;
        }
        self.all_well_at = Some(Instant::now());
        Ok(())
    }

    fn check_journal(&self) -> Result<(), StoreError> {
        self.journal.as_ref().map_or(Ok(()), Known::check)
    }
}
