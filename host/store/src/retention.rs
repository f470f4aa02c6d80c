//! Forgets old records and output. Only `diagnostics.db` has a retention: the journal is never touched.
//!
//! What must hold: each batch is a transaction of its own and short, so that workers and a host write on meanwhile.

use crate::diagnostics_reader::DiagnosticsReader;
use crate::error::StoreError;
use crate::schema::{self, DIAGNOSTICS_FILE};
use cjm_wire::Timestamp;
use rusqlite::{Connection, params};
use std::path::Path;

/// Most rows of one table that one transaction deletes. The ancestor's figure: where a size decides, both stop at the
/// same row.
pub const RETENTION_BATCH_ROWS: i64 = 500;
/// Most batches of each table when a host starts; what is left goes the next time.
pub const SWEEP_BATCHES_MAX: u64 = 100;
const DAY_MICROS: f64 = 86_400e6;
const MB_BYTES: f64 = 1024.0 * 1024.0;

/// What is old.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Retention {
    /// What is older goes.
    pub age_max_days: Option<f64>,
    /// The oldest goes until no more than this is held.
    pub size_max_mb: Option<f64>,
}

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Records.
    pub records: u64,
    /// Chunks of output.
    pub chunks: u64,
    /// Size of the file before, in bytes. It does not shrink at once: freed pages are used again first.
    pub file_bytes: u64,
}

/// Applies a retention to the diagnostics of `data_dir`. Blocks.
///
/// # Errors
/// [`StoreError::NothingYet`] when there are none; others when they cannot be read or written.
pub fn apply_retention(data_dir: &Path, retention: &Retention) -> Result<Forgotten, StoreError> {
    // Opening for writing would make the file.
    drop(DiagnosticsReader::open(data_dir)?);
    let path = data_dir.join(DIAGNOSTICS_FILE);
    let file_bytes = std::fs::metadata(&path).map(|meta| meta.len()).unwrap_or_default();
    let connection = schema::open_diagnostics(data_dir)?;
    let forgotten = sweep(&connection, retention, u64::MAX)
        .map_err(|error| StoreError::database("delete old diagnostics", &error))?;
    Ok(Forgotten { file_bytes, ..forgotten })
}

/// Deletes what is old, in at most so many batches of each table.
pub(crate) fn sweep(
    connection: &Connection,
    retention: &Retention,
    batches_max: u64,
) -> rusqlite::Result<Forgotten> {
    let mut forgotten = Forgotten::default();
    if let Some(days) = retention.age_max_days {
        let cutoff = cutoff(days);
        forgotten.records += delete_older(connection, "records", &cutoff, batches_max)?;
        forgotten.chunks += delete_older(connection, "stream_chunks", &cutoff, batches_max)?;
    }
    if let Some(mb) = retention.size_max_mb {
        let mut batches = 0;
        while batches < batches_max && held_bytes(connection)? > mb * MB_BYTES {
            batches += 1;
            let records = delete_oldest(connection, "records")?;
            let chunks = delete_oldest(connection, "stream_chunks")?;
            forgotten.records += records;
            forgotten.chunks += chunks;
            if records + chunks == 0 {
                break;
            }
        }
    }
    Ok(forgotten)
}

fn cutoff(days: f64) -> Timestamp {
    let now = Timestamp::now().as_micros().unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, reason = "`as` saturates, and nothing is older than that")]
    Timestamp::from_micros(now.saturating_sub((days * DAY_MICROS) as i64).max(0))
}

/// Timestamps are text whose order is that of time.
fn delete_older(
    connection: &Connection,
    table: &str,
    cutoff: &Timestamp,
    batches_max: u64,
) -> rusqlite::Result<u64> {
    let sql = format!(
        "DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} WHERE ts < ?1 ORDER BY ts LIMIT ?2)"
    );
    let mut deleted = 0;
    for _ in 0..batches_max {
        let batch = connection.execute(&sql, params![cutoff.as_str(), RETENTION_BATCH_ROWS])?;
        deleted += batch as u64;
        if batch == 0 {
            break;
        }
    }
    Ok(deleted)
}

fn delete_oldest(connection: &Connection, table: &str) -> rusqlite::Result<u64> {
    let sql = format!("DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} ORDER BY seq LIMIT ?1)");
    connection.execute(&sql, [RETENTION_BATCH_ROWS]).map(|deleted| deleted as u64)
}

/// What the file holds, without the pages that are free.
#[expect(clippy::cast_precision_loss, reason = "exact up to 8 PB")]
fn held_bytes(connection: &Connection) -> rusqlite::Result<f64> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    Ok(((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::{Diagnostics, SqliteDiagnostics};
    use crate::diagnostics_reader::DiagnosticsFilter;
    use crate::records::{DiagnosticRecord, StreamChunk};

    fn fill(data_dir: &Path, days: &[i64], bytes: usize) {
        let store = SqliteDiagnostics::open(data_dir).expect("opens");
        let now = Timestamp::now().as_micros().expect("now");
        for day in days {
            let ts = Timestamp::from_micros(now - day * 86_400_000_000);
            let record = DiagnosticRecord {
                ts: ts.clone(),
                worker_session_id: None,
                job_id: None,
                level: "INFO".into(),
                logger_name: "t".into(),
                message: "m".repeat(bytes),
                exc_text: None,
            };
            assert!(store.record(record));
            let stream = "stdout".to_owned();
            assert!(store.chunk(StreamChunk { ts, worker_session_id: None, stream, content: "c".into() }));
        }
        store.close();
    }

    fn held(data_dir: &Path) -> (usize, usize) {
        let reader = DiagnosticsReader::open(data_dir).expect("opens");
        let all = DiagnosticsFilter::default();
        (
            reader.last_records(&all, usize::MAX).expect("records").len(),
            reader.last_chunks(&all, usize::MAX).expect("chunks").len(),
        )
    }

    #[test]
    fn what_is_older_goes_and_nothing_else() {
        let folder = tempfile::tempdir().expect("tempdir");
        let nothing = apply_retention(folder.path(), &Retention::default());
        assert!(matches!(nothing, Err(StoreError::NothingYet { .. })), "{nothing:?}");
        assert!(!folder.path().join(DIAGNOSTICS_FILE).exists(), "nothing was made");
        fill(folder.path(), &[40, 20, 5, 0], 10);
        let kept = apply_retention(folder.path(), &Retention::default()).expect("applies");
        assert_eq!((kept.records, kept.chunks), (0, 0));
        let age = Retention { age_max_days: Some(10.0), size_max_mb: None };
        let forgotten = apply_retention(folder.path(), &age).expect("applies");
        assert_eq!((forgotten.records, forgotten.chunks), (2, 2));
        assert!(forgotten.file_bytes > 0);
        assert_eq!(held(folder.path()), (2, 2));
        let far = Retention { age_max_days: Some(1e300), size_max_mb: None };
        assert_eq!(apply_retention(folder.path(), &far).expect("applies").records, 0);
    }

    #[test]
    fn a_store_that_is_opened_forgets_what_is_old() {
        let folder = tempfile::tempdir().expect("tempdir");
        fill(folder.path(), &[40, 0], 10);
        let age = Retention { age_max_days: Some(30.0), size_max_mb: None };
        let store = SqliteDiagnostics::open_keeping(folder.path(), age).expect("opens");
        store.flush_blocking();
        assert_eq!(held(folder.path()), (1, 1));
        store.close();
    }

    #[test]
    fn the_oldest_go_until_the_size_is_kept_while_another_writes() {
        let folder = tempfile::tempdir().expect("tempdir");
        fill(folder.path(), &vec![1; 3000], 1000);
        let writer = SqliteDiagnostics::open(folder.path()).expect("a host has it open");
        let size = Retention { age_max_days: None, size_max_mb: Some(2.0) };
        let forgotten = apply_retention(folder.path(), &size).expect("applies");
        assert!((500..3000).contains(&forgotten.records), "{forgotten:?}");
        assert_eq!(held(folder.path()).0 as u64, 3000 - forgotten.records);
        let all = Retention { age_max_days: None, size_max_mb: Some(0.0) };
        apply_retention(folder.path(), &all).expect("ends although an empty file has a size");
        assert_eq!(held(folder.path()), (0, 0));
        writer.close();
    }
}
