//! Where a test makes the disk fail. In production nothing is asked.

use rusqlite::Connection;
use std::fmt;
use std::path::Path;

/// What the writer is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskStep {
    /// Begin a transaction.
    Begin,
    /// Write the rows of one commit.
    Write,
    /// End the transaction.
    Commit,
}

/// A hook the writer asks before each step, on its own thread. It may refuse the step with an error, which then
/// counts as SQLite's, or use the connection to bring about a real failure.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Before `step` on the database.
    ///
    /// # Errors
    /// To make the step fail.
    fn before(&self, step: DiskStep, connection: &Connection) -> rusqlite::Result<()>;

    /// Before a payload file is written in `dir`.
    ///
    /// # Errors
    /// To make the write fail.
    fn before_payload(&self, _dir: &Path) -> std::io::Result<()> {
        Ok(())
    }
}

/// The disk as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn before(&self, _step: DiskStep, _connection: &Connection) -> rusqlite::Result<()> {
        Ok(())
    }
}
