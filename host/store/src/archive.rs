//! Moves old rows of the journal into files of their own, below `archives/`: the ancestor's `journal` table in its exact
//! form, so that our readers and the ancestor's open them.
//!
//! What must hold: at every instant a row is in the archive or in the journal, or in both; never in neither. A batch is
//! on disk in the archive before it leaves the journal, and only rows that were found there leave it. Rows that stand in
//! both after a crash are told once, for they have the same place.

use crate::error::StoreError;
use crate::query::ROW_COLUMNS;
use crate::schema::{Durability, JOURNAL_FILE, JOURNAL_TABLES, create_private, open_journal};
use cjm_wire::Timestamp;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params, params_from_iter};
use std::path::{Path, PathBuf};

/// Folder of the archives in the data directory.
pub const ARCHIVES_DIR: &str = "archives";
/// Rows of one transaction.
const BATCH_ROWS: i64 = 500;
/// Archives that are read together.
pub const ARCHIVES_MAX: usize = 1000;

/// What was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// Rows that left the journal.
    pub rows: u64,
    /// The file they are in; it was not made when there were none.
    pub path: PathBuf,
}

/// Moves the rows of `data_dir`'s journal that are older than `before` into `archives/journal-before-….db`. Rows of
/// unfinished jobs and compositions and of living workers stay. Works beside a host. May be repeated, also after it was
/// cut off. Blocks.
///
/// # Errors
/// [`StoreError::NothingYet`] when there is no journal, [`StoreError::Refused`] when `before` is no instant or the
/// archive holds rows of another journal; others when a file cannot be read or written.
pub fn archive_journal(data_dir: &Path, before: &Timestamp) -> Result<Archived, StoreError> {
    let journal_path = data_dir.join(JOURNAL_FILE);
    if !journal_path.exists() {
        return Err(StoreError::NothingYet { path: journal_path });
    }
    let micros = before
        .as_micros()
        .ok_or_else(|| StoreError::Refused { what: format!("`{before}` is no instant") })?;
    let before = Timestamp::from_micros(micros);
    let path = data_dir.join(ARCHIVES_DIR).join(file_name(&before));
    let journal = open_journal(data_dir, Durability::Process)?;
    let mut archive = None;
    let (mut rows, mut after_seq) = (0, 0);
    loop {
        let batch = old_rows(&journal, &before, after_seq)
            .map_err(|error| StoreError::database("read the journal", &error))?;
        let Some(Row { seq, .. }) = batch.last() else { break };
        after_seq = *seq;
        if archive.is_none() {
            archive = Some(open_archive(&path)?);
        }
        if let Some(archive) = &mut archive {
            copy(archive, &batch, &path)?;
        }
        rows += leave(&journal, &batch)
            .map_err(|error| StoreError::database("take rows out of the journal", &error))?;
    }
    Ok(Archived { rows, path })
}

/// The archives of `data_dir`, oldest first.
#[must_use]
pub fn archives(data_dir: &Path) -> Vec<PathBuf> {
    let Ok(files) = std::fs::read_dir(data_dir.join(ARCHIVES_DIR)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = files
        .flatten()
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "db"))
        .take(ARCHIVES_MAX)
        .collect();
    paths.sort();
    paths
}

/// One row, column by column.
struct Row {
    seq: i64,
    event_id: String,
    columns: Vec<Sql>,
}

fn file_name(before: &Timestamp) -> String {
    // To the second: `20261029T080738`.
    let instant: String = before.as_str().chars().take(19).filter(char::is_ascii_alphanumeric).collect();
    format!("journal-before-{instant}.db")
}

fn old_rows(journal: &Connection, before: &Timestamp, after_seq: i64) -> rusqlite::Result<Vec<Row>> {
    let sql = format!(
        "SELECT {ROW_COLUMNS} FROM journal WHERE seq > ?1 AND ts < ?2 \
         AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.job_id = journal.job_id \
                         AND status IN ('pending', 'running')) \
         AND NOT EXISTS (SELECT 1 FROM compositions AS c WHERE c.composition_id = journal.composition_id \
                         AND status IN ('pending', 'running')) \
         AND NOT EXISTS (SELECT 1 FROM workers AS w WHERE w.worker_session_id = journal.worker_session_id \
                         AND w.ended_at IS NULL) \
         ORDER BY seq LIMIT ?3"
    );
    let mut select = journal.prepare_cached(&sql)?;
    let count = select.column_count();
    let rows = select.query_map(params![after_seq, before.as_str(), BATCH_ROWS], |row| {
        let columns = (0..count).map(|column| row.get(column)).collect::<rusqlite::Result<Vec<Sql>>>()?;
        Ok(Row { seq: row.get(0)?, event_id: row.get(1)?, columns })
    })?;
    rows.collect()
}

/// Its journal mode is SQLite's own, so that one file is all of it; what was written is on disk when it is committed.
fn open_archive(path: &Path) -> Result<Connection, StoreError> {
    create_private(path.parent().unwrap_or(path), path)?;
    let failed = |error: rusqlite::Error| StoreError::database(format!("open {}", path.display()), &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let archive = Connection::open_with_flags(path, flags).map_err(failed)?;
    archive.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    archive.execute_batch(JOURNAL_TABLES).map_err(failed)?;
    Ok(archive)
}

/// Puts a batch into the archive; rows that are there already stay as they are.
fn copy(archive: &mut Connection, batch: &[Row], path: &Path) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| StoreError::database(format!("write {}", path.display()), &error);
    let marks = vec!["?"; ROW_COLUMNS.split(',').count()].join(",");
    let insert = format!("INSERT OR IGNORE INTO journal ({ROW_COLUMNS}) VALUES ({marks})");
    let transaction = archive.transaction().map_err(failed)?;
    for row in batch {
        transaction
            .prepare_cached(&insert)
            .and_then(|mut insert| insert.execute(params_from_iter(&row.columns)))
            .map_err(failed)?;
        let kept: Option<String> = transaction
            .prepare_cached("SELECT event_id FROM journal WHERE seq = ?1")
            .and_then(|mut select| select.query_row([row.seq], |row| row.get(0)).optional())
            .map_err(failed)?;
        if kept.as_deref() != Some(row.event_id.as_str()) {
            let what = format!("{} holds rows of another journal; move it away first", path.display());
            return Err(StoreError::Refused { what });
        }
    }
    transaction.commit().map_err(failed)
}

fn leave(journal: &Connection, batch: &[Row]) -> rusqlite::Result<u64> {
    let transaction = journal.unchecked_transaction()?;
    let mut gone = 0;
    for row in batch {
        gone += transaction
            .prepare_cached("DELETE FROM journal WHERE seq = ?1 AND event_id = ?2")?
            .execute(params![row.seq, row.event_id])?;
    }
    transaction.commit()?;
    Ok(gone as u64)
}
