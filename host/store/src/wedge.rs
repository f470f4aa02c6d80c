//! What the journal's writer does while the disk fails: the wedge gate.
//!
//! ```text
//! open ──a commit is not taken, and a small one neither──▶ closed ──all is written, the reserve is there──▶ open
//! ```
//! A large commit that does not fit while a small one does fails alone, and the gate stays open. While it is closed, new work
//! is refused, and the reserve is given up for what tells of work that was accepted before, and for nothing else: small
//! commits are written in its room, ends of jobs, of workers, of compositions. What does not fit there waits in memory, in
//! order and bounded. Whoever waits for a commit is told after [`COMMIT_WAIT_MAX`]; the commit itself goes on waiting.

use crate::commit::{SMALL_COMMIT_BYTES, WhenClosed};
use crate::error::StoreError;
use crate::fault::DiskStep;
use crate::keeping::PAYLOAD_REST;
use crate::place::Longer;
use crate::schema::WRITER_BUSY_WAIT;
use crate::writer::{BATCH_COMMITS_MAX, Entry, Message, Trouble, Writer, answer, fail_all};
use cjm_wire::describe::Described;
use std::collections::VecDeque;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// First pause before the disk is tried again.
pub const BACKOFF_MS_MIN: u64 = 10;
/// Longest pause. How often it is tried is not limited while the host lives: accepted work is not given up.
pub const BACKOFF_MS_MAX: u64 = 1_000;
/// How often the disk is tried once the host shuts down.
pub const CLOSING_ATTEMPTS_MAX: u32 = 5;
/// How long a caller waits for its commit while the gate is closed; then it is told [`StoreError::Unwritten`].
pub const COMMIT_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long one that comes when a disk has failed for that long waits at least.
const LATE_COMMIT_WAIT_MAX: Duration = Duration::from_millis(200);
/// Of the database, and of its log.
const PAGE_BYTES: u64 = 4096;
/// Takes as many pages as the largest small commit.
const PROBE_SQL: &str = "INSERT INTO room_probe (filler) VALUES (zeroblob(65536))";
/// Said where SQLite was not asked.
const FULL: &str = "the disk of the data directory is full";
/// How long a statement waits for another process while the gate is closed: callers must be told in time.
const BUSY_TIMEOUT_CLOSED: Duration = Duration::from_millis(100);

/// The commits that wait, and since when.
struct Waiting {
    entries: VecDeque<Entry>,
    since: Instant,
    pause_ms: u64,
    attempts_closing: u32,
}

impl Waiting {
    /// How long until the next of those who wait is told that it was not written.
    fn next_told(&self) -> Option<Duration> {
        let awaited = self.entries.iter().filter(|entry| entry.reply.is_some());
        let next = awaited.map(|entry| told_at(entry, self.since)).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }
}

/// When whoever waits for a commit is told that it is not written. A disk that has taken nothing for so long is not believed
/// to work in another while.
fn told_at(entry: &Entry, failing_since: Instant) -> Instant {
    (failing_since + COMMIT_WAIT_MAX).max(entry.queued_at + LATE_COMMIT_WAIT_MAX)
}

/// How an attempt ended.
enum Attempt {
    /// Nothing waits any more.
    AllWritten,
    /// The first of those that wait was not written.
    Stuck(Stuck),
}

struct Stuck {
    reason: String,
    /// There is no room, which the reserve can help.
    for_room: bool,
}

impl Writer {
    /// Writes `batch`, which was just refused, and what comes meanwhile, until the disk works again or the store closes.
    /// `passing` says why no smaller part of it can be written either; without it, there was no room for all of it.
    pub(crate) fn write_on_failing_disk(&mut self, batch: Vec<Entry>, passing: Option<String>) {
        self.wait_for_others(BUSY_TIMEOUT_CLOSED);
        let mut waiting = Waiting {
            entries: batch.into(),
            since: Instant::now(),
            pause_ms: BACKOFF_MS_MIN,
            attempts_closing: 0,
        };
        let mut attempt = match passing {
            None => self.attempt(&mut waiting.entries),
            Some(reason) => Attempt::Stuck(Stuck { reason, for_room: false }),
        };
        loop {
            match &attempt {
                Attempt::AllWritten if self.is_well() => break,
                // The reserve has no room yet.
                Attempt::AllWritten => {}
                Attempt::Stuck(stuck) => {
                    self.shared.close_gate(&stuck.reason);
                    let was_new = refuse_new_work(&mut waiting.entries, &stuck.reason);
                    // What new work does not get, what is left may: it leaves less room beside it. And where nothing is left,
                    // the next host would take the room of a reserve that was given up for nothing.
                    if was_new || stuck.for_room && self.use_reserve() {
                        attempt = self.attempt(&mut waiting.entries);
                        continue;
                    }
                }
            }
            if self.rest(&mut waiting, &attempt) {
                break;
            }
            attempt = self.attempt(&mut waiting.entries);
        }
        self.checkpoint_by_itself(true);
        self.wait_for_others(WRITER_BUSY_WAIT);
    }

    /// Sleeps for a while, takes in what came, and tells those who waited long enough. True when the store closes.
    fn rest(&mut self, waiting: &mut Waiting, attempt: &Attempt) -> bool {
        let reason = match attempt {
            Attempt::Stuck(stuck) => stuck.reason.as_str(),
            Attempt::AllWritten => FULL,
        };
        if self.shared.closing.load(Ordering::Acquire) {
            if waiting.attempts_closing == 0 {
                waiting.pause_ms = BACKOFF_MS_MIN;
            }
            waiting.attempts_closing += 1;
            if waiting.entries.is_empty() && self.queue.is_empty() {
                return true;
            }
            if waiting.attempts_closing > CLOSING_ATTEMPTS_MAX {
                let next_step = StoreError::Closed { reason: reason.to_owned() }.next_step();
                let commits = waiting.entries.len();
                tracing::error!(commits, reason, next_step, "rows of the journal were given up unwritten");
                let error = StoreError::ShutDown { detail: reason.to_owned() };
                fail_all(waiting.entries.drain(..), &error);
                return true;
            }
        }
        // Whoever closes the store, or hands something in, unparks this thread.
        let pause = Duration::from_millis(waiting.pause_ms);
        thread::park_timeout(waiting.next_told().map_or(pause, |at| at.min(pause)));
        waiting.pause_ms = (waiting.pause_ms * 2).min(BACKOFF_MS_MAX);
        while let Ok(message) = self.queue.try_recv() {
            match message {
                Message::Write(entry) => waiting.entries.push_back(entry),
                Message::Close => self.queue.close(),
            }
        }
        refuse_new_work(&mut waiting.entries, reason);
        // Retention, in another process, must not take what these will name.
        let bodies = waiting.entries.iter().flat_map(|entry| entry.commit.body_files());
        bodies.for_each(|hash| self.shared.payloads.keep(hash, PAYLOAD_REST / 4));
        for entry in &mut waiting.entries {
            if told_at(entry, waiting.since) <= Instant::now() && entry.reply.is_some() {
                let waited_s = waiting.since.elapsed().as_secs();
                let error = StoreError::Unwritten { waited_s, reason: reason.to_owned() };
                answer(entry.reply.take(), Err(error));
            }
        }
        false
    }

    /// Writes what waits, in order, until something is not taken.
    fn attempt(&mut self, waiting: &mut VecDeque<Entry>) -> Attempt {
        // First one alone: on a full disk most attempts end with it.
        let mut together = 1;
        let mut log_was_cut = false;
        let mut together_max = if self.reserve.is_given_up() { 1 } else { BATCH_COMMITS_MAX };
        while let Some(first) = waiting.front() {
            let first_is_small = is_small(first);
            if self.reserve.is_given_up() && !first_is_small {
                self.fail_alone(waiting, FULL);
                continue;
            }
            let count = waiting.len().min(together);
            match self.try_batch(&waiting.make_contiguous()[..count]) {
                Ok(outcomes) => {
                    // Where the file was moved away, they were told so; `is_well` sees it too.
                    self.tell(waiting.drain(..count), outcomes, false);
                    log_was_cut = false;
                    together = together_max;
                }
                Err(Trouble::Room(_)) if count > 1 => {
                    together = 1;
                    together_max = 1;
                }
                // For the last ends of a host, what the log gives back may be enough.
                Err(Trouble::Room(_))
                    if !log_was_cut && self.shared.closing.load(Ordering::Acquire) && self.shorten_log() =>
                {
                    log_was_cut = true;
                }
                Err(Trouble::Room(reason)) => {
                    if first_is_small || self.probe(Longer::Ends).is_err() {
                        return Attempt::Stuck(Stuck { reason, for_room: true });
                    }
                    self.fail_alone(waiting, &reason);
                }
                Err(Trouble::Passing(reason)) => return Attempt::Stuck(Stuck { reason, for_room: false }),
                Err(Trouble::Hopeless(error)) => self.give_up(waiting.drain(..), &error),
            }
        }
        Attempt::AllWritten
    }

    /// The first commit of those that wait fails, and no other.
    fn fail_alone(&self, waiting: &mut VecDeque<Entry>, reason: &str) {
        let Some(entry) = waiting.pop_front() else { return };
        let error = StoreError::NoRoom { bytes: entry.commit.bytes, reason: reason.to_owned() };
        if entry.reply.is_none() {
            tracing::warn!(%error, "rows that nobody waits for were lost");
        }
        answer(entry.reply, Err(error));
        // The log grew while it was tried.
        self.shorten_log();
    }

    /// True when nothing is left to do here. The gate is open then, unless the file was moved away: the disk takes a
    /// small commit of new work, and the reserve is there for the next time.
    fn is_well(&mut self) -> bool {
        if let Err(error) = self.shared.files.lock().unwrap_or_else(PoisonError::into_inner).check() {
            self.shared.close_gate(&error.to_string());
            return true;
        }
        let log_bytes = u64::from(self.checkpoint_pages) * PAGE_BYTES;
        if self.reserve.is_given_up() && !self.reserve.restore(log_bytes) {
            return false;
        }
        if !self.shared.gate.borrow().is_open() && self.probe(Longer::Work).is_err() {
            return false;
        }
        self.shared.open_gate();
        true
    }

    /// Gives the reserve up, if it is there.
    fn use_reserve(&mut self) -> bool {
        // What the log gives back may be enough already, and checkpoints end here.
        self.shorten_log();
        if !self.reserve.give_up() {
            return false;
        }
        tracing::warn!("the disk is full: the ends of running jobs are written in the room of the reserve");
        self.checkpoint_by_itself(false);
        true
    }

    /// What the ends of this host did not need of the reserve: the next one would take it for room.
    pub(crate) fn leave_reserve(self) {
        let Self { connection, mut reserve, .. } = self;
        // It gives its log to the disk.
        drop(connection);
        if reserve.is_given_up() {
            reserve.leave();
        }
    }

    /// Whether the disk takes a commit of [`SMALL_COMMIT_BYTES`] of this kind.
    fn probe(&self, what: Longer) -> Result<(), Trouble> {
        let (connection, disk) = (&self.connection, &self.shared.disk);
        let put = || {
            disk.before(DiskStep::Begin, connection)?;
            connection.execute_batch("BEGIN IMMEDIATE")?;
            disk.before(DiskStep::Write, connection)?;
            connection.execute(PROBE_SQL, [])?;
            disk.before(DiskStep::Commit, connection)?;
            self.place.make_for(connection, what)?;
            connection.execute_batch("COMMIT")?;
            Ok(Some(()))
        };
        self.transaction(put).map_err(|error| self.trouble(&error))?;
        // What stays is taken away with the next one.
        let remove = || connection.execute("DELETE FROM room_probe", []).map(Some);
        if let Err(error) = self.transaction(remove) {
            tracing::debug!(%error, "the probe stays in the journal for now");
        }
        Ok(())
    }

    /// Writes the log back and gives it to the disk; true when it got shorter. In the room of the reserve only for the last
    /// ends of a host, lest a run go on and on there, and only where the database has its place already: else its pages
    /// would take that room.
    fn shorten_log(&self) -> bool {
        let before = self.place.log_bytes();
        let is_last = || self.shared.closing.load(Ordering::Acquire);
        let has_place = || self.place.lacking_bytes(&self.connection).is_ok_and(|bytes| bytes == 0);
        if before == 0 || self.reserve.is_given_up() && !(is_last() && has_place()) {
            return false;
        }
        let done = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = done {
            tracing::debug!(%error, "the log could not be shortened");
        }
        self.place.log_bytes() < before
    }

    fn checkpoint_by_itself(&self, on: bool) {
        let pages = if on { self.checkpoint_pages } else { 0 };
        if let Err(error) = self.connection.pragma_update(None, "wal_autocheckpoint", pages) {
            tracing::debug!(%error, pages, "the checkpoints go on as before");
        }
    }

    fn wait_for_others(&self, timeout: Duration) {
        if let Err(error) = self.connection.busy_timeout(timeout) {
            tracing::debug!(%error, "the time to wait for other processes stays as it was");
        }
    }
}

/// New work is not accepted while the gate is closed, also where it was handed in just before. True when there was some.
fn refuse_new_work(waiting: &mut VecDeque<Entry>, reason: &str) -> bool {
    let (new, told): (VecDeque<Entry>, VecDeque<Entry>) =
        waiting.drain(..).partition(|entry| entry.commit.when_closed == WhenClosed::Refuse);
    *waiting = told;
    let was_new = !new.is_empty();
    for entry in new {
        answer(entry.reply, Err(StoreError::Closed { reason: reason.to_owned() }));
    }
    was_new
}

fn is_small(entry: &Entry) -> bool {
    entry.commit.bytes <= SMALL_COMMIT_BYTES
}
