//! What workers log and print, kept for people: the [`Diagnostics`] promise and its SQLite writer. It is best effort
//! by design: nothing waits for it, and what comes faster than the disk takes it is dropped and counted, and the
//! count is written. Reading is `diagnostics_reader`'s.

use crate::blocking::block_on;
use crate::diagnostics_writer::Writer;
use crate::error::StoreError;
use crate::fault::{Disk, RealDisk};
use crate::records::{DiagnosticRecord, StreamChunk};
use crate::retention::Retention;
use cjm_wire::Timestamp;
use std::collections::VecDeque;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use tokio::sync::oneshot;

/// Most bytes of records that wait to be written. Output cannot push records out: it has a maximum of its own.
pub const RECORDS_WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most bytes of output that wait to be written.
pub const CHUNKS_WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What of either is left to what cannot wait, such as the last words of a worker.
const RESERVE_BYTES: usize = 1024 * 1024;
/// Longest message, traceback or chunk; the rest of a longer one is cut off.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Most rows in one transaction.
pub const DIAGNOSTICS_BATCH_ROWS_MAX: usize = 1024;
/// A batch that has come to this size takes no further row.
pub const DIAGNOSTICS_BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most that is held where nobody says otherwise, in MB; the oldest go first.
pub const DIAGNOSTICS_MB_MAX_DEFAULT: f64 = 500.0;
/// What a row weighs beside its texts.
const ROW_BYTES: usize = 256;
/// Logger name of the store's own records.
pub const OWN_LOGGER: &str = "cjm.diagnostics";

/// How much was not written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DroppedCounts {
    /// Records.
    pub records: u64,
    /// Chunks of output.
    pub chunks: u64,
    /// Bytes of both.
    pub bytes: u64,
}

/// Ready when everything handed in before is written or dropped.
pub type Flushing = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// Takes what workers say.
///
/// Promises: a row handed in is written within the time of a few transactions or counted as dropped, and a record
/// tells how many were dropped, once there is room for it; the last room on a disk is left to the journal; no more is held
/// than the maximum, for which the oldest go; order is kept among records and among chunks; no call waits for the disk; what
/// waits takes at most [`RECORDS_WAITING_BYTES_MAX`] and [`CHUNKS_WAITING_BYTES_MAX`]. If the host dies, what
/// waited is lost.
pub trait Diagnostics: Send + Sync + std::fmt::Debug {
    /// Hands a record in. False when it was dropped.
    fn record(&self, record: DiagnosticRecord) -> bool;
    /// Hands a chunk of output in. False when it was dropped.
    fn chunk(&self, chunk: StreamChunk) -> bool;
    /// Whether there is room for a chunk that can wait. What cannot wait may be handed in without asking: the last part
    /// of what output may take is left to it.
    fn has_room(&self) -> bool {
        true
    }
    /// The same of a record.
    fn has_room_for_records(&self) -> bool {
        true
    }
    /// All that was dropped since the store was opened.
    fn dropped(&self) -> DroppedCounts;
    /// Waits for what was handed in before.
    fn flush(&self) -> Flushing;
    /// [`Self::flush`] for threads outside a runtime.
    fn flush_blocking(&self) {
        block_on(self.flush());
    }
    /// Writes what is queued and ends; what comes later is dropped. Blocks. May be repeated.
    fn close(&self);
}

/// `diagnostics.db` of a data directory. Genuine Python workers write the same file.
#[derive(Debug)]
pub struct SqliteDiagnostics {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    record_bytes: usize,
    chunk_bytes: usize,
    /// Since the store was opened.
    dropped: DroppedCounts,
    /// Of these, already told in a record.
    told: DroppedCounts,
    closing: bool,
    told_at_close: bool,
}

#[derive(Debug)]
pub(crate) enum Item {
    Record(DiagnosticRecord),
    Chunk(StreamChunk),
    Flush(oneshot::Sender<()>),
}

impl SqliteDiagnostics {
    /// Opens the diagnostics of `data_dir`, creates them as needed, and starts their writer. Blocks.
    ///
    /// # Errors
    /// When the file cannot be opened or was written by a later version.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        Self::open_on(data_dir, Arc::new(RealDisk))
    }

    /// [`Self::open`], and forgets what is old before anything is written, as far as that goes quickly
    /// ([`SWEEP_BATCHES_MAX`](crate::retention::SWEEP_BATCHES_MAX)). Without a maximum in `retention`, no more than
    /// [`DIAGNOSTICS_MB_MAX_DEFAULT`] is held. What exceeds the maximum while the store is open goes as well.
    ///
    /// # Errors
    /// As there.
    pub fn open_keeping(data_dir: &Path, retention: Retention) -> Result<Self, StoreError> {
        Self::open_with(data_dir, Arc::new(RealDisk), retention)
    }

    /// [`Self::open`], with a disk that may fail.
    ///
    /// # Errors
    /// As there.
    pub fn open_on(data_dir: &Path, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        Self::open_with(data_dir, disk, Retention::default())
    }

    fn open_with(data_dir: &Path, disk: Arc<dyn Disk>, retention: Retention) -> Result<Self, StoreError> {
        let queue = Arc::new(Queue::new());
        let writer = Writer::open(data_dir, Arc::clone(&queue), disk, retention)?;
        let thread = thread::Builder::new()
            .name("cjm-diagnostics".into())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::file("start the writer of", data_dir, &error))?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }
}

impl Diagnostics for SqliteDiagnostics {
    fn record(&self, mut record: DiagnosticRecord) -> bool {
        cut(&mut record.message);
        if let Some(text) = &mut record.exc_text {
            cut(text);
        }
        self.queue.push(Item::Record(record))
    }

    fn chunk(&self, mut chunk: StreamChunk) -> bool {
        cut(&mut chunk.content);
        self.queue.push(Item::Chunk(chunk))
    }

    fn has_room(&self) -> bool {
        self.queue.lock().chunk_bytes <= CHUNKS_WAITING_BYTES_MAX - RESERVE_BYTES
    }

    fn has_room_for_records(&self) -> bool {
        self.queue.lock().record_bytes <= RECORDS_WAITING_BYTES_MAX - RESERVE_BYTES
    }

    fn dropped(&self) -> DroppedCounts {
        self.queue.lock().dropped
    }

    fn flush(&self) -> Flushing {
        let (done, waiting) = oneshot::channel();
        self.queue.push(Item::Flush(done));
        // An answer that never comes means that the writer has ended, with everything written.
        Box::pin(async move { waiting.await.unwrap_or_default() })
    }

    fn close(&self) {
        self.queue.lock().closing = true;
        self.queue.arrived.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the writer of the diagnostics panicked");
        }
    }
}

impl Drop for SqliteDiagnostics {
    fn drop(&mut self) {
        self.close();
    }
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    fn push(&self, item: Item) -> bool {
        let bytes = item.bytes();
        let mut state = self.lock();
        let State { record_bytes, chunk_bytes, closing, .. } = &mut *state;
        let (used, bytes_max) = match &item {
            Item::Record(_) => (record_bytes, RECORDS_WAITING_BYTES_MAX),
            Item::Chunk(_) => (chunk_bytes, CHUNKS_WAITING_BYTES_MAX),
            Item::Flush(_) if *closing => return false,
            Item::Flush(_) => (record_bytes, usize::MAX),
        };
        if *closing || *used + bytes > bytes_max {
            state.dropped.count(&item);
            return false;
        }
        *used += bytes;
        state.items.push_back(item);
        drop(state);
        self.arrived.notify_one();
        true
    }

    /// What was dropped in `batch`, or told by it.
    pub(crate) fn settle(&self, batch: &[Item], told: Option<DroppedCounts>) {
        let mut state = self.lock();
        match told {
            Some(told) => state.told = state.told.plus(told),
            None => batch.iter().for_each(|item| state.dropped.count(item)),
        }
    }

    /// The next batch, and what was dropped and not told so far; `None` when closed and empty. A store that closes tries once
    /// more to tell what was dropped.
    pub(crate) fn take(&self, bytes_max: usize) -> Option<(Vec<Item>, DroppedCounts)> {
        let mut state = self.lock();
        while state.items.is_empty() {
            let untold = state.dropped.less(state.told);
            if state.closing && untold != DroppedCounts::default() && !state.told_at_close {
                state.told_at_close = true;
                return Some((Vec::new(), untold));
            }
            if state.closing {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        while batch.len() < DIAGNOSTICS_BATCH_ROWS_MAX && batch_bytes < bytes_max {
            let Some(item) = state.items.pop_front() else { break };
            let bytes = item.bytes();
            match &item {
                Item::Chunk(_) => state.chunk_bytes -= bytes,
                _ => state.record_bytes -= bytes,
            }
            batch_bytes += bytes;
            batch.push(item);
        }
        let untold = state.dropped.less(state.told);
        Some((batch, untold))
    }
}

impl Item {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Record(record) => {
                let exc_text = record.exc_text.as_ref().map_or(0, String::len);
                ROW_BYTES + record.message.len() + record.logger_name.len() + record.level.len() + exc_text
            }
            Self::Chunk(chunk) => ROW_BYTES + chunk.content.len(),
            Self::Flush(_) => 0,
        }
    }
}

impl DroppedCounts {
    fn count(&mut self, item: &Item) {
        match item {
            Item::Record(_) => self.records += 1,
            Item::Chunk(_) => self.chunks += 1,
            Item::Flush(_) => return,
        }
        self.bytes += (item.bytes() - ROW_BYTES) as u64;
    }

    fn less(self, other: Self) -> Self {
        Self {
            records: self.records - other.records,
            chunks: self.chunks - other.chunks,
            bytes: self.bytes - other.bytes,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            records: self.records + other.records,
            chunks: self.chunks + other.chunks,
            bytes: self.bytes + other.bytes,
        }
    }

    pub(crate) fn as_record(self) -> DiagnosticRecord {
        let Self { records, chunks, bytes } = self;
        DiagnosticRecord {
            ts: Timestamp::now(),
            worker_session_id: None,
            job_id: None,
            level: "WARNING".into(),
            logger_name: OWN_LOGGER.into(),
            message: format!(
                "dropped {records} records and {chunks} lines of output ({bytes} bytes): they came faster than \
                 they could be written, or there was no room for them"
            ),
            exc_text: None,
        }
    }
}

fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        let end = text.floor_char_boundary(TEXT_BYTES_MAX);
        let left_out = text.len() - end;
        text.truncate(end);
        text.shrink_to_fit();
        text.push_str(&format!(" [… {left_out} bytes left out]"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Item {
        let mut record = DroppedCounts::default().as_record();
        record.message = "abc".into();
        Item::Record(record)
    }

    #[test]
    fn a_store_that_closes_tries_once_to_tell_its_losses_and_ends() {
        let queue = Queue::new();
        queue.settle(&[record(), record()], None);
        queue.lock().closing = true;
        let lost = DroppedCounts { records: 2, chunks: 0, bytes: 6 + 2 * (OWN_LOGGER.len() + 7) as u64 };
        assert!(matches!(queue.take(1), Some((batch, untold)) if batch.is_empty() && untold == lost));
        // It could not be written.
        queue.settle(&[], None);
        assert!(queue.take(1).is_none(), "a disk that stays full holds no host");
        assert!(!queue.push(record()), "what comes later is dropped");
        assert_eq!(queue.lock().dropped.records, 3);
    }

    #[test]
    fn a_store_that_closes_waits_for_nobody_who_holds_its_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = SqliteDiagnostics::open(dir.path()).expect("opens");
        let other = rusqlite::Connection::open(dir.path().join("diagnostics.db")).expect("opens");
        other.execute_batch("BEGIN IMMEDIATE").expect("locked");
        // More than one transaction takes.
        for _ in 0..3 {
            let Item::Record(mut record) = record() else { unreachable!("a record") };
            record.message = "x".repeat(DIAGNOSTICS_BATCH_BYTES_MAX);
            assert!(store.record(record));
        }
        let begun = std::time::Instant::now();
        store.close();
        assert!(begun.elapsed() < std::time::Duration::from_secs(8), "{:?}", begun.elapsed());
        assert_eq!(store.dropped().records, 3, "what could not be written is counted");
    }

    #[test]
    fn what_was_told_is_not_told_again_and_a_loss_says_why() {
        let queue = Queue::new();
        queue.settle(&[record()], None);
        assert!(queue.push(record()));
        let Some((batch, untold)) = queue.take(usize::MAX) else { panic!("a batch") };
        assert_eq!((batch.len(), untold.records), (1, 1));
        queue.settle(&batch, Some(untold));
        assert!(queue.push(record()));
        let Some((_, untold)) = queue.take(usize::MAX) else { panic!("a batch") };
        assert_eq!(untold, DroppedCounts::default());
        let told = DroppedCounts { records: 1, chunks: 2, bytes: 3 }.as_record();
        for words in
            ["dropped 1 records and 2 lines", "3 bytes", "faster than they could be written", "no room"]
        {
            assert!(told.message.contains(words), "{}", told.message);
        }
        assert_eq!((told.level.as_str(), told.logger_name.as_str()), ("WARNING", OWN_LOGGER));
    }

    #[test]
    fn a_batch_ends_at_its_bytes_and_at_its_rows() {
        let queue = Queue::new();
        let bytes = record().bytes();
        for _ in 0..DIAGNOSTICS_BATCH_ROWS_MAX + 1 {
            assert!(queue.push(record()));
        }
        let take = |bytes_max: usize| queue.take(bytes_max).map(|(batch, _)| batch.len());
        assert_eq!(take(2 * bytes), Some(2));
        assert_eq!(take(2 * bytes + 1), Some(3));
        assert!(queue.push(record()) && queue.push(record()) && queue.push(record()) && queue.push(record()));
        assert!(queue.push(record()));
        assert_eq!(take(usize::MAX), Some(DIAGNOSTICS_BATCH_ROWS_MAX));
        assert_eq!(queue.lock().record_bytes, bytes);
        assert_eq!(take(usize::MAX), Some(1));
        assert_eq!(queue.lock().record_bytes, 0, "what has gone makes room");
    }
}
