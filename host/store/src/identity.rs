//! Whether the files a host holds open are still the ones their names lead to. Whoever removes or replaces one leaves the
//! host with a file without a name: what is written there is lost with the process.
//!
//! A number of an inode is not given to another file while the first is open, so that comparing it is proof.

use crate::error::StoreError;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often files beside the journal are looked at; the journal's own are looked at before each success is told.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A file as it was when it was opened.
#[derive(Debug)]
struct Known {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Known {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    fn check(&self) -> Result<(), StoreError> {
        match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => Ok(()),
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
    looked: Instant,
}

impl HeldFiles {
    /// `others`: files beside the journal, such as the lock of the directory. Those that are not there are left out.
    pub(crate) fn of(journal: &Path, others: &[PathBuf]) -> Self {
        let mut log_path = journal.as_os_str().to_owned();
        log_path.push("-wal");
        Self {
            journal: Known::of(journal),
            log_path: log_path.into(),
            log: None,
            others: others.iter().filter_map(|path| Known::of(path)).collect(),
            looked: Instant::now(),
        }
    }

    /// To be asked after each commit and before its success is told.
    pub(crate) fn check(&mut self) -> Result<(), StoreError> {
        if let Some(journal) = &self.journal {
            journal.check()?;
        }
        match &self.log {
            Some(log) => log.check()?,
            // It is there from the first commit to the end of the connection.
            None => self.log = Known::of(&self.log_path),
        }
        if self.looked.elapsed() >= LOOK_INTERVAL {
            self.check_others()?;
        }
        Ok(())
    }

    /// Looks at the files beside the journal too, however long ago that was done.
    pub(crate) fn check_all(&mut self) -> Result<(), StoreError> {
        self.check()?;
        self.check_others()
    }

    fn check_others(&mut self) -> Result<(), StoreError> {
        for other in &self.others {
            other.check()?;
        }
        self.looked = Instant::now();
        Ok(())
    }
}
