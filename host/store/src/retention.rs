//! Forgets old records and output of `diagnostics.db`. The journal is never touched; what jobs leave in its file is
//! `keeping`'s.
//!
//! What must hold: each batch is a transaction of its own and short, so that workers and a host write on meanwhile.

use crate::diagnostics_reader::DiagnosticsReader;
use crate::error::StoreError;
use crate::lent_reserve::with_reserve;
use crate::room::{SMALL_DISK_BYTES, available};
use crate::schema::{self, DIAGNOSTICS_FILE};
use cjm_wire::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, params};
use std::path::Path;

/// Most rows of one table that one transaction deletes. The ancestor's figure; it takes so many of both, whatever their
/// age, where a size decides.
pub const RETENTION_BATCH_ROWS: i64 = 500;
/// Most batches of each table when a host starts; what is left goes the next time.
pub const SWEEP_BATCHES_MAX: u64 = 100;
/// Most rows that one transaction deletes where there is little room: each row touches a page of each index.
const TIGHT_BATCH_ROWS: i64 = 25;
/// Pages that one transaction gives back to the disk.
const TIGHT_VACUUM_PAGES: i64 = 32;
/// What goes at least in one step where a size decides, however little would do: no step for each row, and of small ones as many
/// as the ancestor takes.
const BATCH_BYTES_MIN: f64 = MB_BYTES;
const DAY_MICROS: f64 = 86_400e6;
pub(crate) const MB_BYTES: f64 = 1024.0 * 1024.0;

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
    /// Size of the file before, in bytes. It does not shrink at once: what is free in it is used again first.
    pub file_bytes: u64,
    /// How much of the file is free now, in bytes.
    pub free_bytes: u64,
}

/// Applies a retention to the diagnostics of `data_dir`. Works on a full disk too, in smaller steps: the log is cut back
/// after each, freed pages are given back to the disk where the file was made for it, and the journal's reserve lends its
/// room. Blocks.
///
/// # Errors
/// [`StoreError::NothingYet`] when there are none; others when they cannot be read or written.
pub fn apply_retention(data_dir: &Path, retention: &Retention) -> Result<Forgotten, StoreError> {
    with_reserve(data_dir, || forget(data_dir, retention))
}

fn forget(data_dir: &Path, retention: &Retention) -> Result<Forgotten, StoreError> {
    // Opening for writing would make the file.
    drop(DiagnosticsReader::open(data_dir)?);
    let path = data_dir.join(DIAGNOSTICS_FILE);
    let file_bytes = std::fs::metadata(&path).map(|meta| meta.len()).unwrap_or_default();
    let connection = schema::open_diagnostics(data_dir)?;
    let is_tight = available(data_dir).is_some_and(|bytes| bytes < SMALL_DISK_BYTES);
    let steps = Steps { connection: &connection, is_tight, batches_max: u64::MAX };
    let failed = |error| StoreError::database_of("delete old rows of", &connection, &error);
    let forgotten = steps.sweep(retention).map_err(failed)?;
    if is_tight {
        give_back(&connection, TIGHT_VACUUM_PAGES).map_err(failed)?;
    }
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA freelist_count").map_err(failed)?;
    let free_bytes = pages.saturating_mul(number("PRAGMA page_size").map_err(failed)?).unsigned_abs();
    Ok(Forgotten { file_bytes, free_bytes, ..forgotten })
}

/// Deletes what is old, in at most so many batches of each table.
pub(crate) fn sweep(
    connection: &Connection,
    retention: &Retention,
    batches_max: u64,
) -> rusqlite::Result<Forgotten> {
    Steps { connection, is_tight: false, batches_max }.sweep(retention)
}

/// How it is forgotten: each batch in a transaction of its own.
struct Steps<'a> {
    connection: &'a Connection,
    /// There is little room: small batches, and the log is cut back after each.
    is_tight: bool,
    batches_max: u64,
}

impl Steps<'_> {
    fn sweep(&self, retention: &Retention) -> rusqlite::Result<Forgotten> {
        let mut forgotten = Forgotten::default();
        if let Some(days) = retention.age_max_days {
            let cutoff = cutoff(days);
            forgotten.records += self.delete_older("records", &cutoff)?;
            forgotten.chunks += self.delete_older("stream_chunks", &cutoff)?;
        }
        if let Some(mb) = retention.size_max_mb {
            let bytes_max = mb * MB_BYTES;
            let mut batches = 0;
            while batches < self.batches_max {
                let held = held_bytes(self.connection)?;
                if held <= bytes_max {
                    break;
                }
                batches += 1;
                let (records, chunks) = self.delete_oldest(self.rows_of(held - bytes_max, held)?)?;
                forgotten.records += records;
                forgotten.chunks += chunks;
                if records + chunks == 0 {
                    break;
                }
            }
        }
        Ok(forgotten)
    }

    /// How many rows go in a step that is to free so many bytes of those held. Of large ones no more than has to, where there is
    /// time for small steps.
    fn rows_of(&self, bytes: f64, held: f64) -> rusqlite::Result<i64> {
        if self.batches_max < u64::MAX {
            return Ok(self.rows());
        }
        let rows = bytes.max(BATCH_BYTES_MIN) / held * rows_held(self.connection)?;
        #[expect(clippy::cast_possible_truncation, reason = "`as` saturates, and more is not taken")]
        Ok((rows as i64).clamp(1, self.rows()))
    }

    fn rows(&self) -> i64 {
        if self.is_tight { TIGHT_BATCH_ROWS } else { RETENTION_BATCH_ROWS }
    }

    /// Timestamps are text whose order is that of time.
    fn delete_older(&self, table: &str, cutoff: &Timestamp) -> rusqlite::Result<u64> {
        let sql = format!(
            "DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} WHERE ts < ?1 ORDER BY ts LIMIT ?2)"
        );
        let mut deleted = 0;
        for _ in 0..self.batches_max {
            let batch = self.connection.execute(&sql, params![cutoff.as_str(), self.rows()])?;
            deleted += batch as u64;
            self.shorten_log()?;
            if batch == 0 {
                break;
            }
        }
        Ok(deleted)
    }

    /// One step over both tables, by time: nothing goes while something older stays in the other table, however many
    /// `rows` either has. Returns how many records and chunks went.
    fn delete_oldest(&self, rows: i64) -> rusqlite::Result<(u64, u64)> {
        let last_of =
            |table| format!("SELECT max(ts) AS ts FROM (SELECT ts FROM {table} ORDER BY ts LIMIT ?1)");
        let sql =
            format!("SELECT min(ts) FROM ({} UNION ALL {})", last_of("records"), last_of("stream_chunks"));
        let cutoff: Value = self.connection.query_row(&sql, [rows], |row| row.get(0))?;
        let records = self.delete_until("records", &cutoff, rows)?;
        Ok((records, self.delete_until("stream_chunks", &cutoff, rows)?))
    }

    fn delete_until(&self, table: &str, cutoff: &Value, rows: i64) -> rusqlite::Result<u64> {
        let sql = format!(
            "DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} WHERE ts <= ?1 ORDER BY ts, seq LIMIT ?2)"
        );
        let deleted = self.connection.execute(&sql, params![cutoff, rows])? as u64;
        self.shorten_log()?;
        Ok(deleted)
    }

    fn shorten_log(&self) -> rusqlite::Result<()> {
        if self.is_tight { shorten_log(self.connection) } else { Ok(()) }
    }
}

/// Gives free pages back to the disk, so many at a time, where the file was made for it.
pub(crate) fn give_back(connection: &Connection, pages: i64) -> rusqlite::Result<()> {
    let sql = format!("PRAGMA incremental_vacuum({pages})");
    let mut free = pragma(connection, "freelist_count")?;
    while free > 0 {
        connection.execute_batch(&sql)?;
        shorten_log(connection)?;
        let left = pragma(connection, "freelist_count")?;
        if left >= free {
            break;
        }
        free = left;
    }
    Ok(())
}

fn shorten_log(connection: &Connection) -> rusqlite::Result<()> {
    // A reader may be in the way; then the next one does it.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

pub(crate) fn cutoff(days: f64) -> Timestamp {
    let now = Timestamp::now().as_micros().unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, reason = "`as` saturates, and nothing is older than that")]
    Timestamp::from_micros(now.saturating_sub((days * DAY_MICROS) as i64).max(0))
}

/// Records and chunks; one at least.
fn rows_held(connection: &Connection) -> rusqlite::Result<f64> {
    let sql = "SELECT (SELECT count(*) FROM records) + (SELECT count(*) FROM stream_chunks)";
    connection.query_row(sql, [], |row| row.get::<_, f64>(0)).map(|rows| rows.max(1.0))
}

/// What the file holds, without the pages that are free.
#[expect(clippy::cast_precision_loss, reason = "exact up to 8 PB")]
pub(crate) fn held_bytes(connection: &Connection) -> rusqlite::Result<f64> {
    let pages = pragma(connection, "page_count")? - pragma(connection, "freelist_count")?;
    Ok((pages * pragma(connection, "page_size")?) as f64)
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
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

    #[test]
    fn no_more_goes_than_has_to() {
        let folder = tempfile::tempdir().expect("tempdir");
        fill(folder.path(), &[2; 100], 60_000);
        let mb =
            held_bytes(&schema::open_diagnostics(folder.path()).expect("opens")).expect("reads") / MB_BYTES;
        let size = Retention { age_max_days: None, size_max_mb: Some(mb - 0.5) };
        let forgotten = apply_retention(folder.path(), &size).expect("applies").records;
        assert!((5..40).contains(&forgotten), "{forgotten} of 100");
    }

    #[test]
    fn the_oldest_go_first_whatever_index_is_shorter() {
        let folder = tempfile::tempdir().expect("tempdir");
        let store = SqliteDiagnostics::open(folder.path()).expect("opens");
        for n in 0..2000 {
            let mut record = DiagnosticRecord {
                ts: Timestamp::now(),
                worker_session_id: None,
                job_id: Some(format!("job-{:04}", 2000 - n)),
                level: "INFO".into(),
                logger_name: "t".into(),
                message: "m".repeat(1000),
                exc_text: None,
            };
            // Later rows have smaller ids of jobs: time alone says what is older, and the place of what is as old.
            record.ts = Timestamp::from_micros(2_000_000_000 + n / 7);
            assert!(store.record(record));
        }
        store.close();
        let size = Retention { age_max_days: None, size_max_mb: Some(1.5) };
        let forgotten = apply_retention(folder.path(), &size).expect("applies").records;
        assert!((500..2000).contains(&forgotten), "{forgotten}");
        let reader = DiagnosticsReader::open(folder.path()).expect("opens");
        let left = reader.records(&DiagnosticsFilter::default(), 0, 5000).expect("reads");
        assert_eq!(left.first().map(|found| found.seq), Some(i64::try_from(forgotten).expect("small") + 1));
        assert_eq!(left.len() as u64, 2000 - forgotten);
    }

    /// A tool that prints much must not cost what others said after it.
    #[test]
    fn what_is_newer_in_one_table_outlives_what_is_older_in_the_other() {
        let folder = tempfile::tempdir().expect("tempdir");
        let store = SqliteDiagnostics::open(folder.path()).expect("opens");
        let chunk = |n: i64| {
            let ts = Timestamp::from_micros(n);
            let content = format!("{n} {}", "c".repeat(1000));
            store.chunk(StreamChunk { ts, worker_session_id: None, stream: "stderr".into(), content })
        };
        let record = |n: i64| {
            store.record(DiagnosticRecord {
                ts: Timestamp::from_micros(n),
                worker_session_id: None,
                job_id: None,
                level: "ERROR".into(),
                logger_name: "t".into(),
                message: format!("record {n}"),
                exc_text: None,
            })
        };
        assert!((0..4000).all(&chunk) && (0..10).all(&record), "old ones");
        assert!((5000..5010).all(&record) && (6000..6100).all(&chunk), "new ones");
        store.close();
        let size = Retention { age_max_days: None, size_max_mb: Some(1.5) };
        let forgotten = apply_retention(folder.path(), &size).expect("applies");
        let reader = DiagnosticsReader::open(folder.path()).expect("opens");
        let all = DiagnosticsFilter::default();
        let records = reader.records(&all, 0, 100).expect("reads");
        let chunks = reader.chunks(&all, 0, 5000).expect("reads");
        assert_eq!(records.len(), 10, "the old ones went, and none of the new: {forgotten:?}");
        assert_eq!(records[0].record.message, "record 5000");
        assert!((101..2000).contains(&chunks.len()), "and of the output the oldest: {forgotten:?}");
        let rest = Retention { age_max_days: None, size_max_mb: Some(0.0) };
        apply_retention(folder.path(), &rest).expect("applies");
        assert_eq!(held(folder.path()), (0, 0), "one table without rows holds nothing back");
    }

    #[test]
    fn no_more_is_held_than_the_maximum_while_the_store_is_open() {
        let folder = tempfile::tempdir().expect("tempdir");
        let size = Retention { age_max_days: None, size_max_mb: Some(2.0) };
        let store = SqliteDiagnostics::open_keeping(folder.path(), size).expect("opens");
        for n in 0..8000 {
            let ts = Timestamp::now();
            let content = format!("{n} {}", "c".repeat(2000));
            store.chunk(StreamChunk { ts, worker_session_id: None, stream: "stdout".into(), content });
            if n % 500 == 0 {
                store.flush_blocking();
            }
        }
        store.close();
        let connection = Connection::open(folder.path().join(DIAGNOSTICS_FILE)).expect("opens");
        let held = held_bytes(&connection).expect("reads");
        assert!(held < 2.0 * MB_BYTES * 1.6, "{held}");
        let reader = DiagnosticsReader::open(folder.path()).expect("opens");
        let last = reader.last_chunks(&DiagnosticsFilter::default(), 1).expect("reads");
        assert!(last[0].chunk.content.starts_with("7999 "), "the newest stay");
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
        assert!(forgotten.file_bytes > 0 && forgotten.free_bytes <= forgotten.file_bytes);
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
