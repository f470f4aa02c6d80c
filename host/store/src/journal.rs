//! The journal as the host writes it: what is promised ([`Journal`]) and how SQLite keeps the promise
//! ([`SqliteJournal`]). Reading is `reader`'s; what a commit may hold is `commit`'s.

use crate::blocking::block_on;
use crate::commit::{Commit, Prepared, Receipt, WhenClosed};
use crate::error::StoreError;
use crate::events::{Event, Gate, SUBSCRIBER_EVENTS_MAX, Subscription};
use crate::fault::{Disk, RealDisk};
use crate::identity::HeldFiles;
use crate::keeping::{JOBS_DAYS_DEFAULT, Keeping};
use crate::payload::{Payloads, PendingPayload};
use crate::place::Place;
use crate::query::last_seq;
use crate::room::{Reserve, SMALL_DISK_BYTES, available};
use crate::schema::{Durability, JOURNAL_FILE, open_journal};
use crate::writer::{Entry, Message, Shared, Writer};
use cjm_wire::event::JournalRow;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot, watch};

/// Most bytes of commits that may wait for the writer; further callers wait until there is room.
pub const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most bytes of detached commits that may wait; further ones are refused.
pub const DETACHED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Pages in the log after which they are written back. SQLite's own figure.
const CHECKPOINT_PAGES: u32 = 1000;
/// On a small disk the log takes room that the rows need.
const CHECKPOINT_PAGES_SMALL: u32 = 128;
/// Shares of the waiting memory are counted in this unit.
const SHARE_BYTES: usize = 1024;

/// The answer to a commit.
pub type Committing = Pin<Box<dyn Future<Output = Result<Receipt, StoreError>> + Send + 'static>>;

/// What the host writes of jobs, compositions and events.
///
/// Promises, whatever is killed at whatever instant:
/// - A commit that was answered `Ok` is in the store, whole. One that was not answered is there whole or not at all.
/// - Commits are applied in the order in which they were queued; `seq` is that order.
/// - A commit that breaks a rule is answered with its own error and touches no other, though they share a
///   transaction.
/// - A commit that does not fit on the disk while small ones do fails alone ([`StoreError::NoRoom`]), and so does one
///   whose large body cannot be written.
/// - While the disk takes nothing, admitting commits are refused at once; the others wait and are written, in order, when
///   it works again, small ones before in the room of a reserve. Who waits for one is told after
///   [`COMMIT_WAIT_MAX`](crate::wedge::COMMIT_WAIT_MAX) that it is not written so far. What waits is lost if the host dies
///   meanwhile.
/// - No success is told once the journal's file was removed or replaced ([`StoreError::Moved`]).
/// - Rows are fanned out after their commit, in order.
pub trait Journal: Send + Sync + std::fmt::Debug {
    /// Queues a commit once the future is polled; ready when it is durable or refused. Dropping the future does not
    /// take back what was queued.
    fn commit(&self, commit: Commit) -> Committing;

    /// Queues a commit whose outcome nobody awaits: the rows of direct calls. Blocks for bodies above
    /// [`INLINE_BYTES_MAX`](crate::payload::INLINE_BYTES_MAX), so give it none.
    ///
    /// # Errors
    /// When too much is waiting or the store is closed. Later trouble is logged.
    fn commit_detached(&self, commit: Commit) -> Result<(), StoreError>;

    /// [`Self::commit`] for threads outside a runtime.
    ///
    /// # Errors
    /// As there.
    fn commit_blocking(&self, commit: Commit) -> Result<Receipt, StoreError> {
        block_on(self.commit(commit))
    }

    /// Fans out an event that is not a row.
    fn announce(&self, row: JournalRow);

    /// Receives everything fanned out from now on.
    fn subscribe(&self) -> Subscription;

    /// Whether new work is accepted, and since when not.
    fn gate(&self) -> watch::Receiver<Gate>;

    /// Whether the files the journal works with still have their names, looked at now. It is also looked at before each
    /// success is told, and closes the gate. The default says that all is well.
    ///
    /// # Errors
    /// [`StoreError::Moved`] names the file that was removed or replaced.
    fn check_files(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Writes what is queued and ends; later commits are answered [`StoreError::ShutDown`]. Blocks, at most a few
    /// seconds even where the disk fails. May be repeated.
    fn close(&self);
}

/// How a journal is opened.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// What a commit survives.
    pub durability: Durability,
    /// How many days ended jobs and compositions are kept; None: for ever.
    pub jobs_days: Option<f64>,
    /// Files beside the journal that must keep their names while it is written, such as the lock of the directory.
    pub guarded: Vec<PathBuf>,
    /// Where tests make the disk fail.
    pub disk: Arc<dyn Disk>,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            jobs_days: Some(JOBS_DAYS_DEFAULT),
            guarded: Vec::new(),
            disk: Arc::new(RealDisk),
        }
    }
}

/// `journal.db` of a data directory. The caller holds the directory's lock: one host writes.
#[derive(Debug)]
pub struct SqliteJournal {
    handle: Handle,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a commit in flight needs; outlives the journal in futures.
#[derive(Debug, Clone)]
struct Handle {
    queue: mpsc::UnboundedSender<Message>,
    shares: Arc<Semaphore>,
    detached_shares: Arc<Semaphore>,
    shared: Arc<Shared>,
}

impl SqliteJournal {
    /// Opens the journal of `data_dir`, creates or migrates it as needed, and starts its writer. Blocks.
    ///
    /// # Errors
    /// When the file cannot be opened or was written by a later version.
    pub fn open(data_dir: &Path, options: JournalOptions) -> Result<Self, StoreError> {
        let connection = open_journal(data_dir, options.durability)?;
        let last_seq = last_seq(&connection)?;
        let payloads = Payloads::of(data_dir);
        payloads.remove_half_written();
        let keeping = options.jobs_days.map(|days| Keeping::new(data_dir, days));
        let (queue, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            gate: watch::Sender::new(Gate::Open),
            events: broadcast::Sender::new(SUBSCRIBER_EVENTS_MAX),
            last_seq: AtomicI64::new(last_seq),
            closing: AtomicBool::new(false),
            payloads,
            disk: options.disk,
            files: Mutex::new(HeldFiles::of(&data_dir.join(JOURNAL_FILE), &options.guarded)),
            sleeper: OnceLock::new(),
        });
        let is_small_disk = available(data_dir).is_some_and(|bytes| bytes < SMALL_DISK_BYTES);
        let checkpoint_pages = if is_small_disk { CHECKPOINT_PAGES_SMALL } else { CHECKPOINT_PAGES };
        connection
            .pragma_update(None, "wal_autocheckpoint", checkpoint_pages)
            .map_err(|error| StoreError::database("set up the journal", &error))?;
        let reserve = Reserve::of(data_dir);
        let shared_too = Arc::clone(&shared);
        let writer = Writer {
            connection,
            queue: receiver,
            shared: shared_too,
            reserve,
            place: Place::of(data_dir),
            checkpoint_pages,
            keeping,
        };
        let thread = thread::Builder::new()
            .name("cjm-journal".into())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::file("start the writer of", data_dir, &error))?;
        let handle = Handle {
            queue,
            shares: Arc::new(Semaphore::new(WAITING_BYTES_MAX / SHARE_BYTES)),
            detached_shares: Arc::new(Semaphore::new(DETACHED_BYTES_MAX / SHARE_BYTES)),
            shared,
        };
        Ok(Self { handle, thread: Mutex::new(Some(thread)) })
    }
}

impl Journal for SqliteJournal {
    fn commit(&self, commit: Commit) -> Committing {
        let handle = self.handle.clone();
        Box::pin(async move { handle.commit(commit).await })
    }

    fn commit_detached(&self, commit: Commit) -> Result<(), StoreError> {
        let mut commit = Prepared::of(commit)?;
        let share = Arc::clone(&self.handle.detached_shares)
            .try_acquire_many_owned(shares_of(&commit))
            .map_err(|_| StoreError::Overloaded { waiting_bytes_max: DETACHED_BYTES_MAX })?;
        write_payloads(&std::mem::take(&mut commit.payloads), &self.handle.shared)?;
        self.handle.send(commit, None, share)
    }

    fn announce(&self, row: JournalRow) {
        // No receiver is no fault.
        let _ = self.handle.shared.events.send(Event::Live(Arc::new(row)));
    }

    fn subscribe(&self) -> Subscription {
        // First the number, then the receiver: a row in between can be read twice, never missed.
        let seen = self.handle.shared.last_seq.load(Ordering::Acquire);
        Subscription::new(self.handle.shared.events.subscribe(), seen)
    }

    fn gate(&self) -> watch::Receiver<Gate> {
        self.handle.shared.gate.subscribe()
    }

    fn check_files(&self) -> Result<(), StoreError> {
        let found = self.handle.shared.files.lock().unwrap_or_else(PoisonError::into_inner).check_all();
        if let Err(error) = &found {
            self.handle.shared.close_gate(&error.to_string());
        }
        found
    }

    fn close(&self) {
        self.handle.shared.closing.store(true, Ordering::Release);
        // Refused only when the writer is gone already.
        let _ = self.handle.queue.send(Message::Close);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the journal's writer panicked");
            }
        }
    }
}

impl Drop for SqliteJournal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Handle {
    async fn commit(self, commit: Commit) -> Result<Receipt, StoreError> {
        let mut commit = match commit.has_large_body() {
            false => Prepared::of(commit)?,
            true => beside(move || Prepared::of(commit)).await?,
        };
        self.check_gate(commit.when_closed)?;
        if !commit.payloads.is_empty() {
            self.write_payloads(std::mem::take(&mut commit.payloads)).await?;
        }
        let share = self.share(&commit).await?;
        self.check_gate(commit.when_closed)?;
        let (reply, answer) = oneshot::channel();
        self.send(commit, Some(reply), share)?;
        answer.await.unwrap_or_else(|_| Err(StoreError::ShutDown { detail: String::new() }))
    }

    /// A share of the memory that may wait. While the gate is closed nobody waits for one: it may be closed for long.
    async fn share(&self, commit: &Prepared) -> Result<OwnedSemaphorePermit, StoreError> {
        let closed = |_| StoreError::ShutDown { detail: String::new() };
        if let Ok(share) = Arc::clone(&self.shares).try_acquire_many_owned(shares_of(commit)) {
            return Ok(share);
        }
        let mut gate = self.shared.gate.subscribe();
        tokio::select! {
            biased;
            share = Arc::clone(&self.shares).acquire_many_owned(shares_of(commit)) => share.map_err(closed),
            _ = gate.wait_for(|gate| !gate.is_open()) => {
                Err(StoreError::Overloaded { waiting_bytes_max: WAITING_BYTES_MAX })
            }
        }
    }

    /// Large bodies are written before the writer is bothered: their fsync would hold up everybody's commit. One that
    /// cannot be written fails its own commit and no other.
    async fn write_payloads(&self, payloads: Vec<PendingPayload>) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        beside(move || write_payloads(&payloads, &shared)).await
    }

    fn check_gate(&self, when_closed: WhenClosed) -> Result<(), StoreError> {
        let reason = match (&*self.shared.gate.borrow(), when_closed) {
            (Gate::Closed { reason, .. }, WhenClosed::Refuse) => reason.clone(),
            _ => return Ok(()),
        };
        // Where the file was taken away, room on the disk is not the cure.
        self.shared.files.lock().unwrap_or_else(PoisonError::into_inner).check()?;
        Err(StoreError::Closed { reason })
    }

    fn send(
        &self,
        commit: Prepared,
        reply: Option<oneshot::Sender<Result<Receipt, StoreError>>>,
        share: OwnedSemaphorePermit,
    ) -> Result<(), StoreError> {
        self.queue
            .send(Message::Write(Entry { commit, reply, queued_at: Instant::now(), _share: share }))
            .map_err(|_| StoreError::ShutDown { detail: String::new() })?;
        if !self.shared.gate.borrow().is_open()
            && let Some(writer) = self.shared.sleeper.get()
        {
            // It sleeps between two attempts; a small commit may be written in the room of the reserve.
            writer.unpark();
        }
        Ok(())
    }
}

/// Does what takes long where no task waits for its turn; at once where there is no runtime.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime
            .spawn_blocking(work)
            .await
            .map_err(|error| StoreError::ShutDown { detail: error.to_string() })?,
        Err(_) => work(),
    }
}

fn write_payloads(payloads: &[PendingPayload], shared: &Shared) -> Result<(), StoreError> {
    for payload in payloads {
        let dir = shared.payloads.path("");
        shared
            .disk
            .before_payload(&dir)
            .map_err(|error| StoreError::writing("write", &dir, payload.content.len(), &error))?;
        shared.payloads.ensure(payload)?;
    }
    Ok(())
}

fn shares_of(commit: &Prepared) -> u32 {
    u32::try_from(commit.bytes / SHARE_BYTES + 1).unwrap_or(u32::MAX)
}
