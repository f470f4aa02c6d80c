//! The journal's one writer: a thread that turns what callers hand in into transactions, many commits in one. It must
//! never lose a commit it took without telling its caller, and never tell one before it is durable. What it does while
//! the disk fails is `wedge`'s.

use crate::apply::{NotApplied, apply, apply_alone};
use crate::blocking::block_until;
use crate::commit::{Prepared, Receipt, SMALL_COMMIT_BYTES, WhenClosed};
use crate::error::StoreError;
use crate::events::{Event, Gate};
use crate::fault::{Disk, DiskStep};
use crate::identity::HeldFiles;
use crate::keeping::Keeping;
use crate::payload::Payloads;
use crate::place::{Longer, Place};
use crate::room::Reserve;
use cjm_wire::Timestamp;
use cjm_wire::describe::Described;
use rusqlite::{Connection, ErrorCode};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch};

/// Most commits in one transaction.
pub const BATCH_COMMITS_MAX: usize = 256;
/// A batch that has come to this size takes no further commit.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What callers send.
pub(crate) enum Message {
    Write(Entry),
    Close,
}

/// A commit that waits to be written.
pub(crate) struct Entry {
    pub(crate) commit: Prepared,
    /// Absent for detached commits, and once a caller was told that it waited long enough.
    pub(crate) reply: Option<oneshot::Sender<Result<Receipt, StoreError>>>,
    /// When it was handed in.
    pub(crate) queued_at: Instant,
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
    pub(crate) files: Mutex<HeldFiles>,
    /// The writer, while it may sleep between two attempts.
    pub(crate) sleeper: OnceLock<Thread>,
}

pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) queue: mpsc::UnboundedReceiver<Message>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reserve: Reserve,
    pub(crate) place: Place,
    /// Pages in the log after which SQLite writes them back into the database.
    pub(crate) checkpoint_pages: u32,
    /// Forgets old jobs, unless they are kept for ever.
    pub(crate) keeping: Option<Keeping>,
}

impl Shared {
    pub(crate) fn open_gate(&self) {
        self.gate.send_if_modified(|gate| {
            let was_closed = !gate.is_open();
            if was_closed {
                tracing::info!("the journal can be written again");
                *gate = Gate::Open;
            }
            was_closed
        });
    }

    pub(crate) fn close_gate(&self, reason: &str) {
        self.gate.send_if_modified(|gate| match gate {
            Gate::Closed { reason: known, .. } if known == reason => false,
            Gate::Closed { reason: known, .. } => {
                reason.clone_into(known);
                true
            }
            Gate::Open => {
                let next_step = StoreError::Closed { reason: reason.to_owned() }.next_step();
                tracing::error!(reason, next_step, "the journal cannot be written: new work is refused");
                *gate = Gate::Closed { since: Timestamp::now(), reason: reason.to_owned() };
                true
            }
        });
    }
}

/// What became of each commit of a batch.
pub(crate) type Outcomes = Vec<Result<Receipt, StoreError>>;

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
pub(crate) enum Trouble {
    /// The disk did not take it. Less of it may fit.
    Room(String),
    /// Passing, as far as anybody knows, and the same for every commit.
    Passing(String),
    /// The file is damaged, or SQLite was misused: trying again is pointless.
    Hopeless(StoreError),
}

impl Writer {
    /// Writes until told to close, and then what is still queued.
    pub(crate) fn run(mut self) {
        // Set once, by the only thread that runs this.
        let _ = self.shared.sleeper.set(std::thread::current());
        loop {
            // A host in which nothing happens forgets, too.
            let turn_at = self.keeping.as_ref().map(Keeping::due);
            let mut next = match block_until(self.queue.recv(), turn_at) {
                Some(None) => return self.leave_reserve(),
                Some(message) => message,
                None => None,
            };
            let mut batch = Vec::new();
            let mut bytes = 0;
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
            self.forget_if_due();
        }
    }

    fn forget_if_due(&mut self) {
        let Some(keeping) = self.keeping.as_mut().filter(|keeping| keeping.due() <= Instant::now()) else {
            return;
        };
        // Where the file has lost its name, the bodies may be another journal's.
        match self.shared.files.lock().unwrap_or_else(PoisonError::into_inner).check() {
            Ok(()) => keeping.turn_if_due(&self.connection),
            Err(_) => keeping.put_off(),
        }
    }

    fn write(&mut self, batch: Vec<Entry>) {
        match self.try_batch(&batch) {
            Ok(outcomes) => {
                self.tell(batch, outcomes, true);
            }
            Err(Trouble::Hopeless(error)) => self.give_up(batch, &error),
            Err(Trouble::Room(_)) => self.write_on_failing_disk(batch, None),
            Err(Trouble::Passing(reason)) => self.write_on_failing_disk(batch, Some(reason)),
        }
    }

    pub(crate) fn give_up(&self, batch: impl IntoIterator<Item = Entry>, error: &StoreError) {
        self.shared.close_gate(&error.to_string());
        fail_all(batch, error);
    }

    /// One transaction. Either it is committed and every commit of it has an outcome, or nothing was written.
    pub(crate) fn try_batch(&self, batch: &[Entry]) -> Result<Outcomes, Trouble> {
        // A refused commit is rare, and only then the others must be kept apart from it.
        let done = match self.transaction(|| self.apply_batch(batch, Apart::No)) {
            Ok(None) => self.transaction(|| self.apply_batch(batch, Apart::BySavepoints)),
            done => done,
        };
        // With savepoints there are always outcomes.
        done.map(Option::unwrap_or_default).map_err(|error| self.trouble(&error))
    }

    /// Does `work`, which begins and ends a transaction. Nothing of it stays in the file unless it returns something.
    pub(crate) fn transaction<T>(
        &self,
        work: impl FnOnce() -> rusqlite::Result<Option<T>>,
    ) -> rusqlite::Result<Option<T>> {
        let done = work();
        if !matches!(done, Ok(Some(_)))
            && !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "roll back a failed batch");
        }
        done
    }

    pub(crate) fn trouble(&self, error: &rusqlite::Error) -> Trouble {
        match error.sqlite_error_code() {
            // A quota and the greatest length of a file are told as errors of the disk.
            Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => Trouble::Room(error.to_string()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Trouble::Passing(self.place.with_holders(error.to_string()))
            }
            Some(
                ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OutOfMemory
                | ErrorCode::SchemaChanged,
            ) => Trouble::Passing(error.to_string()),
            _ => Trouble::Hopeless(StoreError::database_of("write", &self.connection, error)),
        }
    }

    /// Applies a batch. None says that a commit was refused which was not kept apart.
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
        self.place.make_for(connection, longer_by(batch))?;
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(Some(outcomes))
    }

    /// After the commit: open the gate where that is due, fan out in order, then answer. Where the file has lost its name,
    /// nobody is told of a success, for those rows end with this process. Where another file has, a lock say, they are kept,
    /// and only new work is refused.
    pub(crate) fn tell(&self, batch: impl IntoIterator<Item = Entry>, outcomes: Outcomes, opens_gate: bool) {
        let (found, rows_are_kept) = {
            let mut files = self.shared.files.lock().unwrap_or_else(PoisonError::into_inner);
            let found = files.check();
            let are_kept = found.is_ok() || files.keep_rows();
            (found, are_kept)
        };
        match found {
            Err(error) if !rows_are_kept => return self.give_up(batch, &error),
            Err(error) => self.shared.close_gate(&error.to_string()),
            Ok(()) if opens_gate => self.shared.open_gate(),
            Ok(()) => {}
        }
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
                    tracing::warn!(%error, "a commit that nobody waits for was refused");
                }
                _ => {}
            }
            answer(entry.reply, outcome);
        }
    }
}

/// What a batch makes the journal longer by.
fn longer_by(batch: &[Entry]) -> Longer {
    if batch.iter().any(|entry| entry.commit.when_closed == WhenClosed::Refuse) {
        Longer::Work
    } else if batch.iter().all(|entry| entry.commit.bytes <= SMALL_COMMIT_BYTES) {
        Longer::Ends
    } else {
        Longer::Results
    }
}

pub(crate) fn fail_all(batch: impl IntoIterator<Item = Entry>, error: &StoreError) {
    for entry in batch {
        answer(entry.reply, Err(error.clone()));
    }
}

pub(crate) fn answer(
    reply: Option<oneshot::Sender<Result<Receipt, StoreError>>>,
    outcome: Result<Receipt, StoreError>,
) {
    if let Some(reply) = reply {
        // A caller that has gone away no longer wants to know.
        let _ = reply.send(outcome);
    }
}
