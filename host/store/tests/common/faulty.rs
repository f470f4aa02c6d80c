//! A disk that fails as a test tells it.

use cjm_store::fault::{Disk, DiskStep};
use cjm_store::*;
use rusqlite::{Connection, ffi};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;

/// Fails as it is told.
#[derive(Debug, Default)]
pub(crate) struct FaultyDisk {
    plan: Mutex<Plan>,
    /// Transactions that came to their end.
    pub(crate) ends: AtomicUsize,
    /// Transactions that were about to begin.
    pub(crate) begins: watch::Sender<usize>,
    /// How long each of them would have waited for another process, in milliseconds.
    pub(crate) patience_ms: Mutex<Vec<i64>>,
    /// For each of them, whether the reserve was there, and after how many pages a checkpoint would have run.
    pub(crate) checkpoints: Mutex<Vec<(bool, i64)>>,
}

#[derive(Debug, Default)]
pub(crate) enum Plan {
    #[default]
    Healthy,
    /// Every step of this kind fails with this SQLite result code.
    Fail(DiskStep, i32),
    /// So many transactions fail to begin with this SQLite result code, and then none.
    FailTimes(u32, i32),
    /// The database may not grow by another page: SQLite itself finds it full.
    Full,
    /// The database may grow by so many pages and no more.
    PagesLeft(i64),
    /// Wait for other processes' locks this short.
    Impatient,
    /// It was limited so.
    Limited,
    /// Payload files cannot be written.
    NoPayloads,
    /// The next transaction waits for a word, and does then what the plan of that moment says.
    Hold(mpsc::Receiver<()>),
}

impl FaultyDisk {
    pub(crate) fn set(&self, plan: Plan) {
        *self.plan.lock().expect("lock") = plan;
    }

    /// Waits until so many transactions were about to begin.
    pub(crate) async fn has_begun(&self, count: usize) {
        self.begins.subscribe().wait_for(|begins| *begins >= count).await.expect("ours");
    }

    /// Notes that a transaction is about to begin, and holds it where that is the plan.
    fn about_to_begin(&self, connection: &Connection) -> rusqlite::Result<()> {
        let patience = connection.pragma_query_value(None, "busy_timeout", |row| row.get(0))?;
        self.patience_ms.lock().expect("lock").push(patience);
        let pages = connection.pragma_query_value(None, "wal_autocheckpoint", |row| row.get(0))?;
        let has_reserve = connection
            .path()
            .is_some_and(|path| Path::new(path).with_file_name(cjm_store::room::RESERVE_FILE).exists());
        self.checkpoints.lock().expect("lock").push((has_reserve, pages));
        let held = {
            let mut plan = self.plan.lock().expect("lock");
            matches!(*plan, Plan::Hold(_)).then(|| std::mem::take(&mut *plan))
        };
        self.begins.send_modify(|begins| *begins += 1);
        if let Some(Plan::Hold(word)) = held {
            word.recv().expect("a word");
        }
        Ok(())
    }
}

impl Disk for FaultyDisk {
    fn before(&self, step: DiskStep, connection: &Connection) -> rusqlite::Result<()> {
        if step == DiskStep::Commit {
            self.ends.fetch_add(1, Ordering::Relaxed);
        }
        if step == DiskStep::Begin {
            self.about_to_begin(connection)?;
        }
        let mut plan = self.plan.lock().expect("lock");
        match (&*plan, step) {
            (Plan::Fail(at, code), step) if *at == step => {
                return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(*code), None));
            }
            (Plan::FailTimes(left, code), DiskStep::Begin) if *left > 0 => {
                let error = ffi::Error::new(*code);
                *plan = Plan::FailTimes(*left - 1, *code);
                return Err(rusqlite::Error::SqliteFailure(error, None));
            }
            (Plan::Full, DiskStep::Begin) => {
                let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
                connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
            }
            (Plan::PagesLeft(left), DiskStep::Begin) => {
                let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
                let limit = pages + left;
                *plan = Plan::Limited;
                connection.pragma_update_and_check(None, "max_page_count", limit, |_| Ok(()))?;
            }
            (Plan::Healthy, DiskStep::Begin) => {
                connection.pragma_update_and_check(None, "max_page_count", 1 << 30, |_| Ok(()))?;
            }
            (Plan::Impatient, DiskStep::Begin) => connection.busy_timeout(Duration::from_millis(20))?,
            _ => {}
        }
        Ok(())
    }

    fn before_payload(&self, _: &Path) -> std::io::Result<()> {
        match *self.plan.lock().expect("lock") {
            Plan::NoPayloads => Err(std::io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

pub(crate) fn faulty() -> (TempDir, Arc<FaultyDisk>, Arc<SqliteJournal>) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (disk, journal) = faulty_in(dir.path());
    (dir, disk, journal)
}

pub(crate) fn faulty_in(data_dir: &Path) -> (Arc<FaultyDisk>, Arc<SqliteJournal>) {
    let disk = Arc::new(FaultyDisk::default());
    let options = JournalOptions { disk: disk.clone(), jobs_days: None, ..JournalOptions::default() };
    let journal = Arc::new(SqliteJournal::open(data_dir, options).expect("opens"));
    (disk, journal)
}
