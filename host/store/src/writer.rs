//! The journal's one writer: a thread that turns what callers hand in into transactions, many commits in one, and
//! keeps the wedge gate. It must never lose a commit it took without telling its caller, and never tell one before
//! it is durable.
//!
//! ```text
//! open ──BUSY, FULL, IOERR──▶ closed (the whole batch is tried again, with growing pauses) ──success──▶ open
//! ```

use crate::apply::{NotApplied, apply, apply_alone};
use crate::commit::{Prepared, Receipt};
use crate::error::StoreError;
use crate::events::{Event, Gate};
use crate::fault::{Disk, DiskStep};
use crate::payload::Payloads;
use cjm_wire::Timestamp;
use rusqlite::{Connection, ErrorCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch};

/// Most commits in one transaction.
pub const BATCH_COMMITS_MAX: usize = 256;
/// A batch that has come to this size takes no further commit.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// First pause before a failed batch is tried again.
pub const BACKOFF_MS_MIN: u64 = 10;
/// Longest pause. How often it is tried is not limited while the host lives: accepted work is not given up.
pub const BACKOFF_MS_MAX: u64 = 2_000;
/// How often a batch is tried once the host shuts down.
pub const CLOSING_ATTEMPTS_MAX: u32 = 5;

/// What callers send.
pub(crate) enum Message {
    Write(Entry),
    Close,
}

/// A commit that waits to be written.
pub(crate) struct Entry {
    pub(crate) commit: Prepared,
    /// Absent for detached commits.
    pub(crate) reply: Option<oneshot::Sender<Result<Receipt, StoreError>>>,
    /// Its share of the memory that may wait; given back when it is written.
    pub(crate) _share: OwnedSemaphorePermit,
}

/// What writer and callers see both.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) gate: watch::Sender<Gate>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) last_seq: AtomicI64,
    pub(crate) closing: AtomicBool,
    pub(crate) payloads: Payloads,
    pub(crate) disk: Arc<dyn Disk>,
}

pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) queue: mpsc::UnboundedReceiver<Message>,
    pub(crate) shared: Arc<Shared>,
}

/// What became of each commit of a batch.
type Outcomes = Vec<Result<Receipt, StoreError>>;

/// How the commits of one transaction are kept apart, so that a refused one touches no other.
#[derive(Clone, Copy)]
enum Apart {
    /// Not at all: a refused one spoils the transaction. Savepoints would cost more than all else, since SQLite keeps a
    /// copy of every page that changes after one.
    No,
    /// Each can be taken back alone.
    BySavepoints,
}

/// Why a batch was not written.
enum Trouble {
    /// Passing, as far as anybody knows.
    Disk(String),
    /// The file is damaged, or SQLite was misused: trying again is pointless.
    Hopeless(StoreError),
}

impl Writer {
    /// Writes until told to close, and then what is still queued.
    pub(crate) fn run(mut self) {
        while let Some(message) = self.queue.blocking_recv() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            let mut next = Some(message);
            while let Some(message) = next {
                match message {
                    Message::Write(entry) => {
                        bytes += entry.commit.bytes;
                        batch.push(entry);
                    }
                    Message::Close => self.queue.close(),
                }
                let full = batch.len() >= BATCH_COMMITS_MAX || bytes >= BATCH_BYTES_MAX;
                next = if full { None } else { self.queue.try_recv().ok() };
            }
            if !batch.is_empty() {
                self.write(batch);
            }
        }
    }

    fn write(&mut self, mut batch: Vec<Entry>) {
        let mut attempts = 0;
        let mut pause_ms = BACKOFF_MS_MIN;
        loop {
            match self.try_batch(&mut batch) {
                Ok(outcomes) => {
                    self.open_gate();
                    return self.tell(batch, outcomes);
                }
                Err(Trouble::Disk(reason)) => {
                    self.close_gate(&reason);
                    attempts += 1;
                    if self.shared.closing.load(Ordering::Acquire) && attempts >= CLOSING_ATTEMPTS_MAX {
                        tracing::error!(commits = batch.len(), reason, "gave up on unwritten commits");
                        return fail_all(batch, &StoreError::ShutDown { detail: reason });
                    }
                    // Whoever closes the store unparks this thread.
                    thread::park_timeout(Duration::from_millis(pause_ms));
                    pause_ms = (pause_ms * 2).min(BACKOFF_MS_MAX);
                }
                Err(Trouble::Hopeless(error)) => {
                    self.close_gate(&error.to_string());
                    return fail_all(batch, &error);
                }
            }
        }
    }

    /// One transaction. Either it is committed and every commit of it has an outcome, or nothing was written.
    fn try_batch(&mut self, batch: &mut [Entry]) -> Result<Outcomes, Trouble> {
        for entry in batch.iter_mut() {
            // Usually done on the caller's side; what failed there is tried again here until it succeeds.
            write_payloads(&mut entry.commit, &self.shared)
                .map_err(|error| Trouble::Disk(error.to_string()))?;
        }
        // A refused commit is rare, and only then the others must be kept apart from it.
        let done = match self.transaction(batch, Apart::No) {
            Ok(None) => self.transaction(batch, Apart::BySavepoints),
            done => done,
        };
        // With savepoints there are always outcomes.
        done.map(Option::unwrap_or_default).map_err(|error| trouble(&error))
    }

    /// Applies a batch in one transaction. Nothing of it stays in the file unless it returns outcomes; None says that a
    /// commit was refused which was not kept apart.
    fn transaction(&self, batch: &[Entry], apart: Apart) -> rusqlite::Result<Option<Outcomes>> {
        let done = self.apply_batch(batch, apart);
        if !matches!(done, Ok(Some(_)))
            && !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "roll back a failed batch");
        }
        done
    }

    fn apply_batch(&self, batch: &[Entry], apart: Apart) -> rusqlite::Result<Option<Outcomes>> {
        let Self { connection, shared, .. } = self;
        shared.disk.before(DiskStep::Begin, connection)?;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut outcomes = Vec::with_capacity(batch.len());
        for entry in batch {
            shared.disk.before(DiskStep::Write, connection)?;
            let applied = match apart {
                Apart::No => apply(connection, &entry.commit),
                Apart::BySavepoints => apply_alone(connection, &entry.commit),
            };
            outcomes.push(match (applied, apart) {
                (Ok(receipt), _) => Ok(receipt),
                (Err(NotApplied::Own(_)), Apart::No) => return Ok(None),
                (Err(NotApplied::Own(error)), Apart::BySavepoints) => Err(error),
                (Err(NotApplied::Whole(error)), _) => return Err(error),
            });
        }
        shared.disk.before(DiskStep::Commit, connection)?;
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(Some(outcomes))
    }

    /// After the commit: fan out in order, then answer.
    fn tell(&self, batch: Vec<Entry>, outcomes: Outcomes) {
        for (entry, outcome) in batch.into_iter().zip(outcomes) {
            match &outcome {
                Ok(receipt) if !entry.commit.rows.is_empty() => {
                    self.shared.last_seq.store(receipt.last_seq, Ordering::Release);
                    if self.shared.events.receiver_count() > 0 {
                        for (seq, (row, _)) in (receipt.first_seq..).zip(entry.commit.rows) {
                            // No receiver left is no fault.
                            let _ = self.shared.events.send(Event::Row { seq, row: Arc::new(row) });
                        }
                    }
                }
                Err(error) if entry.reply.is_none() => {
                    tracing::warn!(%error, "a detached commit was refused");
                }
                _ => {}
            }
            answer(entry.reply, outcome);
        }
    }

    fn open_gate(&self) {
        self.shared.gate.send_if_modified(|gate| {
            let was_closed = !gate.is_open();
            if was_closed {
                tracing::info!("the journal can be written again");
                *gate = Gate::Open;
            }
            was_closed
        });
    }

    fn close_gate(&self, reason: &str) {
        self.shared.gate.send_if_modified(|gate| match gate {
            Gate::Closed { reason: known, .. } if known == reason => false,
            Gate::Closed { reason: known, .. } => {
                reason.clone_into(known);
                true
            }
            Gate::Open => {
                tracing::error!(reason, "the journal cannot be written: new work is refused");
                *gate = Gate::Closed { since: Timestamp::now(), reason: reason.to_owned() };
                true
            }
        });
    }
}

/// Writes the large bodies of a commit; those written are forgotten, so that it may be repeated.
pub(crate) fn write_payloads(commit: &mut Prepared, shared: &Shared) -> Result<(), StoreError> {
    while let Some(payload) = commit.payloads.last() {
        let dir = shared.payloads.path("");
        shared.disk.before_payload(&dir).map_err(|error| StoreError::file("write", &dir, &error))?;
        shared.payloads.ensure(payload)?;
        commit.payloads.pop();
    }
    Ok(())
}

fn trouble(error: &rusqlite::Error) -> Trouble {
    let passing = matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OutOfMemory
                | ErrorCode::SchemaChanged
        )
    );
    if passing {
        Trouble::Disk(error.to_string())
    } else {
        Trouble::Hopeless(StoreError::database("write the journal", error))
    }
}

fn fail_all(batch: Vec<Entry>, error: &StoreError) {
    for entry in batch {
        answer(entry.reply, Err(error.clone()));
    }
}

fn answer(reply: Option<oneshot::Sender<Result<Receipt, StoreError>>>, outcome: Result<Receipt, StoreError>) {
    if let Some(reply) = reply {
        // A caller that has gone away no longer wants to know.
        let _ = reply.send(outcome);
    }
}
