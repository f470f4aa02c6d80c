//! Bounds under load: the write-ahead log beside a reader that pages, and memory beside a flood of output.

mod common;

use cjm_store::diagnostics::{
    CHUNKS_WAITING_BYTES_MAX, OWN_LOGGER, RECORDS_WAITING_BYTES_MAX, TEXT_BYTES_MAX,
};
use cjm_store::fault::{Disk, DiskStep};
use cjm_store::*;
use cjm_wire::Timestamp;
use common::*;
use rusqlite::{Connection, ffi};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

fn record(level: &str, message: impl Into<String>) -> DiagnosticRecord {
    DiagnosticRecord {
        ts: Timestamp::now(),
        worker_session_id: Some("S".into()),
        job_id: Some("J".into()),
        level: level.into(),
        logger_name: "tool".into(),
        message: message.into(),
        exc_text: None,
    }
}

fn chunk(session: &str, content: impl Into<String>) -> StreamChunk {
    StreamChunk {
        ts: Timestamp::now(),
        worker_session_id: Some(session.into()),
        stream: "stderr".into(),
        content: content.into(),
    }
}

#[test]
fn the_log_stays_small_beside_a_reader_that_pages() {
    const ROWS: i64 = 60_000;
    let (dir, journal) = fresh();
    let reader = JournalReader::open(dir.path()).expect("opens");
    let wal = dir.path().join("journal.db-wal");
    let mut longest = 0;
    let mut read = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for from in (0..ROWS).step_by(100) {
                let commit =
                    (from..from + 100).fold(Commit::telling(), |commit, n| commit.row(account("j", n)));
                journal.commit_blocking(commit).expect("written");
            }
        });
        let mut after = 0;
        while read < ROWS {
            for found in reader.page(&JournalFilter::default(), after, 500).expect("reads") {
                assert_eq!(found.row.payload["part"], read, "in order, none missing");
                (after, read) = (found.seq, read + 1);
            }
            longest = longest.max(std::fs::metadata(&wal).map_or(0, |found| found.len()));
        }
    });
    assert!(longest < 12 * 1024 * 1024, "the log grew to {longest} bytes");
}

#[tokio::test]
async fn records_and_output_are_kept_in_order_and_filtered() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = SqliteDiagnostics::open(dir.path()).expect("opens");
    for (n, level) in ["DEBUG", "INFO", "WARNING", "error", "CRITICAL", "NOTICE"].into_iter().enumerate() {
        let mut one = record(level, format!("{n}"));
        one.job_id = (n % 2 == 0).then(|| "even".to_owned());
        one.exc_text = (n == 3).then(|| "Traceback".to_owned());
        assert!(store.record(one));
        assert!(store.chunk(chunk(if n < 3 { "A" } else { "B" }, format!("{n}"))));
    }
    store.flush().await;
    let reader = DiagnosticsReader::open(dir.path()).expect("opens");
    let records = |job: &str, level: &str, after: i64| -> String {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let filter =
            DiagnosticsFilter { job: some(job), level_min: some(level), ..DiagnosticsFilter::default() };
        reader
            .records(&filter, after, 10)
            .expect("reads")
            .iter()
            .map(|found| found.record.message.as_str())
            .collect()
    };
    for (job, level, after, expected) in [
        ("", "", 0, "012345"),
        ("", "warning", 0, "2345"),
        ("", "CRITICAL", 0, "45"),
        ("even", "", 0, "024"),
        ("even", "INFO", 0, "24"),
        ("", "", 4, "45"),
        ("", "nonsense", 0, "012345"),
    ] {
        assert_eq!(records(job, level, after), expected, "{job} {level} {after}");
    }
    let all = DiagnosticsFilter::default();
    let last = reader.last_records(&all, 3).expect("reads");
    assert_eq!((last.len(), last[0].record.exc_text.as_deref()), (3, Some("Traceback")));
    let of_b = DiagnosticsFilter { session: Some("B".into()), ..all.clone() };
    let chunks = reader.chunks(&of_b, 0, 10).expect("reads");
    assert_eq!(chunks.iter().map(|found| found.chunk.content.as_str()).collect::<String>(), "345");
    assert_eq!(reader.last_chunks(&all, 1).expect("reads")[0].seq, chunks[2].seq);
    assert_eq!(
        reader.records(&DiagnosticsFilter { session: Some("A".into()), ..all }, 0, 10).expect("reads"),
        []
    );
    for name in ["diagnostics.db", "diagnostics.db-wal", "diagnostics.db-shm"] {
        let mode = std::fs::metadata(dir.path().join(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// Holds the writer while it is locked; fails while it is told to; counts transactions.
#[derive(Debug, Default)]
struct SlowDisk {
    hold: Mutex<()>,
    fail: AtomicBool,
    commits: AtomicU64,
}

impl SlowDisk {
    fn held(&self) -> MutexGuard<'_, ()> {
        self.hold.lock().expect("lock")
    }
}

impl Disk for SlowDisk {
    fn before(&self, step: DiskStep, _: &Connection) -> rusqlite::Result<()> {
        let _turn = self.held();
        if step == DiskStep::Commit {
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        if self.fail.load(Ordering::Relaxed) {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None));
        }
        Ok(())
    }
}

#[test]
fn a_flood_of_output_is_dropped_and_counted_and_records_still_get_through() {
    const LINES: u64 = 100_000;
    const LINE_BYTES: usize = 10_000;
    let dir = tempfile::tempdir().expect("temporary directory");
    let disk = Arc::new(SlowDisk::default());
    let store = SqliteDiagnostics::open_on(dir.path(), disk.clone()).expect("opens");
    let held = disk.held();
    // A gigabyte against a disk that stands still.
    let line = "x".repeat(LINE_BYTES);
    let taken = (0..LINES).filter(|_| store.chunk(chunk("S", line.as_str()))).count() as u64;
    let in_memory_max = (CHUNKS_WAITING_BYTES_MAX + diagnostics::DIAGNOSTICS_BATCH_BYTES_MAX) as u64;
    assert!(taken * LINE_BYTES as u64 <= in_memory_max, "{taken} lines were taken");
    assert!(store.record(record("ERROR", "heard through the flood")));
    drop(held);
    store.flush_blocking();

    let dropped = store.dropped();
    assert_eq!((dropped.chunks, dropped.records), (LINES - taken, 0));
    assert_eq!(dropped.bytes, dropped.chunks * LINE_BYTES as u64);
    let reader = DiagnosticsReader::open(dir.path()).expect("opens");
    let messages: Vec<String> = reader
        .records(&DiagnosticsFilter::default(), 0, 100)
        .expect("reads")
        .into_iter()
        .map(|found| format!("{} {}", found.record.logger_name, found.record.message))
        .collect();
    assert!(messages.contains(&"tool heard through the flood".to_owned()), "{messages:?}");
    // In one record, or in two where the writer began while the flood was on.
    let told = messages.iter().filter_map(|message| {
        let rest = message.strip_prefix(&format!("{OWN_LOGGER} dropped 0 records and "))?;
        let (lines, rest) = rest.split_once(" lines of output (")?;
        Some((lines.parse::<u64>().ok()?, rest.split_once(" bytes)")?.0.parse::<u64>().ok()?))
    });
    let told = told.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert_eq!(told, (dropped.chunks, dropped.bytes), "{messages:?}");
    assert_eq!(reader.chunks(&DiagnosticsFilter::default(), 0, 10_000).expect("reads").len() as u64, taken);
    assert!(disk.commits.load(Ordering::Relaxed) < taken / 10, "rows share transactions");
}

#[test]
fn a_flood_of_records_is_bounded_too_and_long_texts_are_cut() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let disk = Arc::new(SlowDisk::default());
    let store = SqliteDiagnostics::open_on(dir.path(), disk.clone()).expect("opens");
    let held = disk.held();
    let taken = (0..200).filter(|_| store.record(record("INFO", "\u{fc}".repeat(TEXT_BYTES_MAX)))).count();
    let bytes_max = RECORDS_WAITING_BYTES_MAX + diagnostics::DIAGNOSTICS_BATCH_BYTES_MAX;
    assert!(taken > 0 && taken * TEXT_BYTES_MAX <= bytes_max, "{taken} taken");
    drop(held);
    store.close();
    assert!(!store.record(record("INFO", "late")), "closed");
    store.flush_blocking();
    let reader = DiagnosticsReader::open(dir.path()).expect("opens");
    let found = reader.records(&DiagnosticsFilter::default(), 0, 1000).expect("reads");
    let longest = found.iter().map(|found| found.record.message.len()).max();
    assert!(longest.expect("some") < TEXT_BYTES_MAX + 100, "{longest:?}");
    assert!(found.len() >= taken);
}

#[test]
fn a_disk_that_fails_costs_rows_and_says_how_many() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let disk = Arc::new(SlowDisk::default());
    let store = SqliteDiagnostics::open_on(dir.path(), disk.clone()).expect("opens");
    disk.fail.store(true, Ordering::Relaxed);
    store.record(record("INFO", "lost"));
    store.flush_blocking();
    assert_eq!(store.dropped(), DroppedCounts { records: 1, chunks: 0, bytes: 12 });
    disk.fail.store(false, Ordering::Relaxed);
    store.record(record("INFO", "kept"));
    store.flush_blocking();
    let reader = DiagnosticsReader::open(dir.path()).expect("opens");
    let found = reader.records(&DiagnosticsFilter::default(), 0, 10).expect("reads");
    let messages: Vec<&str> = found.iter().map(|found| found.record.message.as_str()).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(
        messages[0].starts_with("dropped 1 records and 0 lines") && messages[1] == "kept",
        "{messages:?}"
    );
}

/// How many records each row of the store itself tells as lost.
fn told(dir: &std::path::Path) -> Vec<u64> {
    let reader = DiagnosticsReader::open(dir).expect("opens");
    let found = reader.records(&DiagnosticsFilter::default(), 0, 100).expect("reads");
    let own = found.iter().filter(|found| found.record.logger_name == OWN_LOGGER);
    own.map(|found| {
        found.record.message.split(' ').nth(1).and_then(|count| count.parse().ok()).expect("a count")
    })
    .collect()
}

#[test]
fn each_loss_is_told_once_whatever_is_waited_for_meanwhile() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let disk = Arc::new(SlowDisk::default());
    let store = SqliteDiagnostics::open_on(dir.path(), disk.clone()).expect("opens");
    let lose = |count: usize| {
        disk.fail.store(true, Ordering::Relaxed);
        (0..count).for_each(|_| assert!(store.record(record("INFO", "lost"))));
        store.flush_blocking();
        // Nothing but this is waited for, and the disk fails still.
        store.flush_blocking();
        disk.fail.store(false, Ordering::Relaxed);
    };
    for (count, so_far) in [(7, vec![7]), (3, vec![7, 3])] {
        lose(count);
        store.record(record("INFO", "kept"));
        store.flush_blocking();
        store.record(record("INFO", "kept"));
        store.flush_blocking();
        assert_eq!(told(dir.path()), so_far);
    }
    lose(5);
    store.flush_blocking();
    assert_eq!(told(dir.path()), [7, 3, 5], "a flush alone brings it too");
    lose(2);
    store.close();
    assert_eq!(told(dir.path()), [7, 3, 5, 2], "and so does the end");
    assert_eq!(store.dropped().records, 17);
}

#[test]
fn what_cannot_wait_finds_room_where_other_output_and_other_records_find_none() {
    const LAST_WORDS: usize = 20 * 16 * 1024;
    let dir = tempfile::tempdir().expect("temporary directory");
    let disk = Arc::new(SlowDisk::default());
    let store = SqliteDiagnostics::open_on(dir.path(), disk.clone()).expect("opens");
    let held = disk.held();
    let line = "x".repeat(16 * 1024);
    while store.has_room() {
        assert!(store.chunk(chunk("S", line.as_str())), "where there is said to be room, there is");
    }
    for _ in 0..LAST_WORDS / line.len() {
        assert!(store.chunk(chunk("S", line.as_str())), "the last words of a worker");
    }
    while store.has_room_for_records() {
        assert!(store.record(record("INFO", line.as_str())), "and so is it with records");
    }
    for _ in 0..LAST_WORDS / line.len() {
        assert!(store.record(record("ERROR", line.as_str())), "the last words of a worker");
    }
    drop(held);
    store.flush_blocking();
    assert!(store.has_room() && store.has_room_for_records());
    assert_eq!(store.dropped(), DroppedCounts::default());
}
