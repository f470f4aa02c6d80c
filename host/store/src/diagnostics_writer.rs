//! The one writer of `diagnostics.db` in a host: a thread that puts what waits into transactions. What cannot be written
//! is dropped and counted: at once where there is no room, after a few attempts where another process is in the way.
//!
//! What must hold: nobody waits for it, it never takes the last room of a disk, and the file holds no more than its
//! maximum (the oldest go first).

use crate::diagnostics::{
    DIAGNOSTICS_BATCH_BYTES_MAX, DIAGNOSTICS_MB_MAX_DEFAULT, DroppedCounts, Item, Queue,
};
use crate::error::StoreError;
use crate::fault::{Disk, DiskStep};
use crate::holders::with_holders;
use crate::records::{DiagnosticRecord, StreamChunk};
use crate::retention::{MB_BYTES, Retention, SWEEP_BATCHES_MAX, held_bytes, sweep};
use crate::room::{SMALL_DISK_BYTES, available};
use crate::schema::{DIAGNOSTICS_FILE, open_diagnostics};
use rusqlite::{Connection, ErrorCode, params};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// What whoever reads of a loss can do.
const MAKE_ROOM: &str = "free space on the disk of the data directory, as `cjm-ctl retention --jobs-max-age-days 0.00001 \
                         --max-total-mb 0` does (it forgets all jobs that have ended, and all logs)";
/// What whoever reads of a loss can do where another process holds the file.
const LET_GO: &str = "end what holds diagnostics.db of the data directory, or wait for it";
/// What whoever reads of a loss can do where the file is damaged.
const MOVE_AWAY: &str = "end the host, move diagnostics.db of the data directory away, and check the disk";
/// How long another process is waited for in each attempt: short, so that the end of the host is heard between two.
const BUSY_WAIT: Duration = Duration::from_millis(50);
/// How long it is waited for in all before a batch is dropped and counted.
const OTHERS_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long it is waited for with all that is left when the host ends, which waits for this.
const CLOSING_WAIT_MAX: Duration = Duration::from_millis(300);
/// How often a batch is tried that fails for another reason.
const DIAGNOSTICS_ATTEMPTS_MAX: u32 = 5;
/// First pause between the attempts; each further one is twice as long, where it is not for another process.
const PAUSE_MS: u64 = 20;
/// A disk with less room than this, beside what a batch takes in log and file, gets no diagnostics.
const LEFT_TO_OTHERS_BYTES: u64 = 1024 * 1024;
/// A batch on a small disk takes no more than this.
const SMALL_BATCH_BYTES: usize = 128 * 1024;
/// Pages in the log of a small disk after which they are written back.
const CHECKPOINT_PAGES_SMALL: u32 = 128;
/// Most batches of each table that are forgotten between two transactions.
const SWEEP_TURN_BATCHES: u64 = 4;
/// The maximum is looked at whenever this share of it was written.
const LOOK_SHARE: f64 = 0.02;
/// Beyond this multiple of the maximum nothing is taken until enough was forgotten.
const OVER_FACTOR: f64 = 1.1;

pub(crate) struct Writer {
    connection: Connection,
    queue: Arc<Queue>,
    disk: Arc<dyn Disk>,
    data_dir: PathBuf,
    retention: Retention,
    /// Most the file may hold.
    bytes_max: f64,
    /// Written since the maximum was looked at.
    unlooked_bytes: f64,
    /// More is held than may be.
    is_over: bool,
    /// That rows are lost was said, and they still are.
    is_losing: bool,
    /// Since when the host waits for what is left to be written.
    closing_since: Option<Instant>,
}

/// Why a batch was not written.
struct Refused {
    reason: String,
    next_step: &'static str,
}

impl Refused {
    fn for_want_of_room(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), next_step: MAKE_ROOM }
    }
}

impl Writer {
    pub(crate) fn open(
        data_dir: &Path,
        queue: Arc<Queue>,
        disk: Arc<dyn Disk>,
        retention: Retention,
    ) -> Result<Self, StoreError> {
        let connection = open_diagnostics(data_dir)?;
        connection
            .busy_timeout(BUSY_WAIT)
            .map_err(|error| StoreError::database("set up the diagnostics", &error))?;
        if is_small_disk(data_dir) {
            connection
                .pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES_SMALL)
                .map_err(|error| StoreError::database("set up the diagnostics", &error))?;
        }
        let mb_max = retention.size_max_mb.unwrap_or(DIAGNOSTICS_MB_MAX_DEFAULT);
        Ok(Self {
            connection,
            queue,
            disk,
            data_dir: data_dir.to_owned(),
            retention: Retention { size_max_mb: Some(mb_max), ..retention },
            bytes_max: mb_max * MB_BYTES,
            unlooked_bytes: 0.0,
            is_over: false,
            is_losing: false,
            closing_since: None,
        })
    }

    pub(crate) fn run(mut self) {
        self.forget(&self.retention, SWEEP_BATCHES_MAX);
        loop {
            let bytes_max =
                if is_small_disk(&self.data_dir) { SMALL_BATCH_BYTES } else { DIAGNOSTICS_BATCH_BYTES_MAX };
            let Some((batch, untold)) = self.queue.take(bytes_max) else { break };
            let written = self.write(&batch, untold);
            self.queue.settle(&batch, written.then_some(untold));
            for item in batch {
                if let Item::Flush(done) = item {
                    // Whoever asked may have gone.
                    let _ = done.send(());
                }
            }
        }
    }

    fn write(&mut self, batch: &[Item], untold: DroppedCounts) -> bool {
        let bytes: usize = batch.iter().map(Item::bytes).sum();
        if bytes == 0 && untold == DroppedCounts::default() {
            return true;
        }
        self.keep_maximum(bytes);
        let refused = if self.is_over {
            let reason = "diagnostics.db holds its maximum, and more came than could be forgotten";
            Err(Refused::for_want_of_room(reason))
        } else if !self.has_room(bytes) {
            Err(Refused::for_want_of_room("the disk is almost full"))
        } else if self.is_losing && !self.is_patient() {
            Err(Refused { reason: "another process holds the file".to_owned(), next_step: LET_GO })
        } else {
            self.try_some_times(batch, untold)
        };
        match refused {
            Ok(()) => self.is_losing = false,
            Err(Refused { reason, next_step }) => {
                // Said once: a flood of losses would be a flood of words. Where only a flush waits, nothing is lost.
                if bytes > 0 && !self.is_losing {
                    let rows = batch.len();
                    tracing::error!(
                        reason,
                        rows,
                        next_step,
                        "records and output of tools are not kept from here on"
                    );
                }
                self.is_losing |= bytes > 0;
                return false;
            }
        }
        true
    }

    fn has_room(&self, bytes: usize) -> bool {
        available(&self.data_dir).is_none_or(|free| free >= LEFT_TO_OTHERS_BYTES + 2 * bytes as u64)
    }

    /// Forgets the oldest when the file holds more than its maximum.
    fn keep_maximum(&mut self, bytes: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        let bytes = bytes as f64;
        self.unlooked_bytes += bytes;
        if !self.is_over && self.unlooked_bytes < self.bytes_max * LOOK_SHARE {
            return;
        }
        self.unlooked_bytes = 0.0;
        let size = Retention { age_max_days: None, ..self.retention };
        self.forget(&size, SWEEP_TURN_BATCHES);
        self.is_over = held_bytes(&self.connection).is_ok_and(|held| held > self.bytes_max * OVER_FACTOR);
    }

    fn forget(&self, retention: &Retention, batches_max: u64) {
        if let Err(error) = sweep(&self.connection, retention, batches_max) {
            tracing::warn!(%error, "old records and output could not be forgotten");
        }
    }

    fn try_some_times(&mut self, batch: &[Item], untold: DroppedCounts) -> Result<(), Refused> {
        let begun = Instant::now();
        let mut attempt = 0;
        loop {
            let Err(error) = self.transaction(batch, untold) else { return Ok(()) };
            if !self.connection.is_autocommit()
                && let Err(error) = self.connection.execute_batch("ROLLBACK")
            {
                tracing::warn!(%error, "roll back a failed batch of diagnostics");
            }
            if is_busy(&error) {
                if begun.elapsed() >= OTHERS_WAIT_MAX || !self.is_patient() {
                    let reason = with_holders(error.to_string(), &self.data_dir.join(DIAGNOSTICS_FILE));
                    return Err(Refused { reason, next_step: LET_GO });
                }
                thread::sleep(Duration::from_millis(PAUSE_MS));
                continue;
            }
            attempt += 1;
            if is_damaged(&error) {
                return Err(Refused { reason: error.to_string(), next_step: MOVE_AWAY });
            }
            // Room does not come back within the time that anybody could wait.
            let is_full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
            if is_full || attempt == DIAGNOSTICS_ATTEMPTS_MAX {
                return Err(Refused::for_want_of_room(error.to_string()));
            }
            thread::sleep(Duration::from_millis(PAUSE_MS << attempt));
        }
    }

    /// Whether another process is waited for on: once the host ends, not much longer, whatever is still to be written.
    fn is_patient(&mut self) -> bool {
        if self.closing_since.is_none() && self.queue.is_closing() {
            self.closing_since = Some(Instant::now());
        }
        self.closing_since.is_none_or(|since| since.elapsed() < CLOSING_WAIT_MAX)
    }

    fn transaction(&self, batch: &[Item], untold: DroppedCounts) -> rusqlite::Result<()> {
        let Self { connection, disk, .. } = self;
        disk.before(DiskStep::Begin, connection)?;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        if untold != DroppedCounts::default() {
            insert_record(connection, &untold.as_record())?;
        }
        for item in batch {
            match item {
                Item::Record(record) => insert_record(connection, record)?,
                Item::Chunk(chunk) => insert_chunk(connection, chunk)?,
                Item::Flush(_) => {}
            }
        }
        disk.before(DiskStep::Commit, connection)?;
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn is_damaged(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn is_small_disk(data_dir: &Path) -> bool {
    available(data_dir).is_some_and(|bytes| bytes < SMALL_DISK_BYTES)
}

fn insert_record(connection: &Connection, record: &DiagnosticRecord) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO records (ts, worker_session_id, job_id, level, logger_name, message, exc_text) \
             VALUES (?1,?2,?3,?4,?5,?6,?7)",
        )?
        .execute(params![
            record.ts.as_str(),
            record.worker_session_id,
            record.job_id,
            record.level,
            record.logger_name,
            record.message,
            record.exc_text
        ])?;
    Ok(())
}

fn insert_chunk(connection: &Connection, chunk: &StreamChunk) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO stream_chunks (ts, worker_session_id, stream, content) VALUES (?1,?2,?3,?4)",
        )?
        .execute(params![chunk.ts.as_str(), chunk.worker_session_id, chunk.stream, chunk.content])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicI32, Ordering};
    use tracing::field::{Field, Visit};
    use tracing::span;

    /// Refuses each transaction with this code of SQLite's, unless it is 0; counts them.
    #[derive(Debug, Default)]
    struct Refusing {
        code: AtomicI32,
        begun: AtomicI32,
    }

    impl Disk for Refusing {
        fn before(&self, step: DiskStep, _: &Connection) -> rusqlite::Result<()> {
            let code = self.code.load(Ordering::Relaxed);
            if step == DiskStep::Begin {
                self.begun.fetch_add(1, Ordering::Relaxed);
            }
            if code == 0 { Ok(()) } else { Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)) }
        }
    }

    /// What was said in the log of this thread, each with its fields.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);

    impl tracing::Subscriber for Log {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            struct Words(String);
            impl Visit for Words {
                fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                    self.0.push_str(&format!("{field}={value:?} "));
                }
            }
            let mut words = Words(String::new());
            event.record(&mut words);
            self.0.lock().expect("lock").push(words.0);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn a_loss_is_said_once_with_its_reason_and_a_later_one_again() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let disk = Arc::new(Refusing::default());
        let queue = Queue::new();
        let mut writer =
            Writer::open(dir.path(), Arc::new(queue), disk.clone(), Retention::default()).expect("opens");
        let log = Log::default();
        let batch = || vec![Item::Record(DroppedCounts::default().as_record())];
        let said = || log.0.lock().expect("lock").len();
        tracing::subscriber::with_default(log.clone(), || {
            for (losses, code) in
                (1..).zip([ffi::SQLITE_FULL, ffi::SQLITE_FULL, ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB])
            {
                disk.code.store(code, Ordering::Relaxed);
                for _ in 0..3 {
                    assert!(!writer.write(&batch(), DroppedCounts::default()));
                    assert_eq!(said(), losses, "a flood of losses is no flood of words");
                }
                disk.code.store(0, Ordering::Relaxed);
                assert!(writer.write(&batch(), DroppedCounts::default()));
            }
        });
        let full = ["reason=", "database or disk is full", "rows=1", "next_step=\"free space"];
        let damaged = ["reason=", "rows=1", "next_step=\"end the host, move diagnostics.db", "away"];
        for (words, parts) in log.0.lock().expect("lock").iter().zip([full, full, damaged, damaged]) {
            for part in parts {
                assert!(words.contains(part), "{words}");
            }
        }
    }

    #[test]
    fn a_full_disk_is_tried_once_a_broken_one_some_times_and_one_in_use_for_a_while() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let disk = Arc::new(Refusing::default());
        let mut writer = Writer::open(dir.path(), Arc::new(Queue::new()), disk.clone(), Retention::default())
            .expect("opens");
        let batch = [Item::Record(DroppedCounts::default().as_record())];
        let tries = |writer: &mut Writer, code| {
            disk.code.store(code, Ordering::Relaxed);
            disk.begun.store(0, Ordering::Relaxed);
            writer.is_losing = false;
            let begun = Instant::now();
            assert!(!writer.write(&batch, DroppedCounts::default()));
            (disk.begun.load(Ordering::Relaxed).unsigned_abs(), begun.elapsed())
        };
        assert_eq!(tries(&mut writer, ffi::SQLITE_FULL).0, 1);
        assert_eq!(tries(&mut writer, ffi::SQLITE_IOERR).0, DIAGNOSTICS_ATTEMPTS_MAX);
        let (count, took) = tries(&mut writer, ffi::SQLITE_BUSY);
        assert!(count > DIAGNOSTICS_ATTEMPTS_MAX && took >= OTHERS_WAIT_MAX, "{count} in {took:?}");
        writer.closing_since = Some(Instant::now());
        let (count, took) = tries(&mut writer, ffi::SQLITE_BUSY);
        assert!(count > 1 && took >= CLOSING_WAIT_MAX && took < OTHERS_WAIT_MAX, "{count} in {took:?}");
        assert_eq!(tries(&mut writer, ffi::SQLITE_BUSY).0, 1, "what comes later waits no more");
        writer.closing_since = None;
        disk.code.store(0, Ordering::Relaxed);
        assert!(writer.write(&batch, DroppedCounts { records: 5, chunks: 0, bytes: 0 }));
        let rows = |table: &str| -> i64 {
            let sql = format!("SELECT count(*) FROM {table}");
            writer.connection.query_row(&sql, [], |row| row.get(0)).expect("counts")
        };
        assert_eq!(rows("records"), 2, "the record, and that others were lost");
        assert_eq!(rows("records WHERE message LIKE 'dropped 5 records%'"), 1);
    }
}
