//! A journal in memory, with the promises of the real one and a disk that fails when the seed says so. It applies commits
//! in the order in which they were queued, after a while, and holds each change against the rules of a job's life.

use super::kept::{Kept, refused};
use super::seed::Seed;
use crate::compositions::stored::StoredComposition;
use crate::services::{History, StoredJob};
use cjm_store::{Commit, Gate, Journal, Receipt, StoreError, Subscription, WhenClosed};
use cjm_wire::event::JournalRow;
use cjm_wire::{CompositionId, JobId, Timestamp};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

/// As with the real one.
const COMMIT_WAIT_MAX: Duration = cjm_store::COMMIT_WAIT_MAX;
type Reply = oneshot::Sender<Result<Receipt, StoreError>>;

/// When a watcher looks at a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// It is handed in.
    HandedIn,
    /// It is written, and nobody knows yet.
    Written,
}

/// Looks at commits; true: from now on the disk fails.
struct Watcher(Box<Look>);

type Look = dyn FnMut(Moment, &Commit) -> bool + Send;

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher")
    }
}

#[derive(Debug)]
struct State {
    watcher: Option<Watcher>,
    /// Commits that are refused for themselves.
    refuses: fn(&Commit) -> bool,
    kept: Kept,
    queue: VecDeque<(Commit, Option<Reply>, Instant)>,
    seed: Seed,
    failing: bool,
    closed: bool,
}

#[derive(Debug)]
pub(super) struct SimulatedJournal {
    state: Arc<Mutex<State>>,
    arrived: Arc<Notify>,
    gate: watch::Sender<Gate>,
}

impl State {
    fn look(&mut self, moment: Moment, commit: &Commit) {
        if let Some(Watcher(look)) = &mut self.watcher {
            self.failing |= look(moment, commit);
        }
    }
}

impl SimulatedJournal {
    pub(super) fn new(seed: Seed) -> Arc<Self> {
        let (kept, queue) = (Kept::default(), VecDeque::new());
        let state =
            State { watcher: None, refuses: |_| false, kept, queue, seed, failing: false, closed: false };
        Arc::new(Self {
            state: Arc::new(Mutex::new(state)),
            arrived: Arc::default(),
            gate: watch::Sender::new(Gate::Open),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    pub(super) fn kept<T>(&self, look: impl FnOnce(&Kept) -> T) -> T {
        look(&self.state().kept)
    }

    /// Makes the disk fail, or work again.
    pub(super) fn set_failing(&self, failing: bool) {
        self.state().failing = failing;
        self.arrived.notify_one();
    }

    /// From now on `look` sees every commit.
    pub(super) fn watch(&self, look: impl FnMut(Moment, &Commit) -> bool + Send + 'static) {
        self.state().watcher = Some(Watcher(Box::new(look)));
    }

    /// From now on these commits are refused, and no others with them.
    pub(super) fn refuse(&self, which: fn(&Commit) -> bool) {
        self.state().refuses = which;
    }

    /// Writes what is queued, one after the other, each after a while.
    pub(super) async fn write_on(self: Arc<Self>) {
        loop {
            let pause = {
                let mut state = self.state();
                if state.closed {
                    return;
                }
                if state.queue.is_empty() || state.failing { None } else { Some(state.seed.millis(3)) }
            };
            let Some(pause) = pause else {
                self.tell_gate();
                self.tell_unwritten();
                // While the disk fails those who wait are told after a while.
                let _ = tokio::time::timeout(COMMIT_WAIT_MAX / 4, self.arrived.notified()).await;
                continue;
            };
            tokio::time::sleep(pause).await;
            let mut state = self.state();
            if state.failing {
                continue;
            }
            let Some((commit, reply, _)) = state.queue.pop_front() else { continue };
            let outcome = if (state.refuses)(&commit) {
                Err(refused("what is to be refused"))
            } else {
                state.kept.apply(&commit)
            };
            state.look(Moment::Written, &commit);
            drop(state);
            self.tell_gate();
            if let Some(reply) = reply {
                let _ = reply.send(outcome);
            }
        }
    }

    /// Refuses new work, and tells those who have waited long enough; their commits go on waiting.
    fn tell_unwritten(&self) {
        let mut state = self.state();
        if !state.failing {
            return;
        }
        for (commit, reply, since) in std::mem::take(&mut state.queue) {
            let (error, goes_on) = match commit.when_closed {
                WhenClosed::Refuse => (StoreError::Closed { reason: "the disk is full".to_owned() }, false),
                WhenClosed::Wait => {
                    (StoreError::Unwritten { waited_s: 2, reason: "the disk is full".to_owned() }, true)
                }
            };
            let reply = match reply {
                Some(reply) if !goes_on || since.elapsed() >= COMMIT_WAIT_MAX => {
                    let _ = reply.send(Err(error));
                    None
                }
                reply => reply,
            };
            if goes_on {
                state.queue.push_back((commit, reply, since));
            }
        }
    }

    fn tell_gate(&self) {
        let failing = self.state().failing;
        self.gate.send_if_modified(|gate| {
            let changed = gate.is_open() == failing;
            if changed {
                *gate = if failing {
                    Gate::Closed { since: Timestamp::now(), reason: "the disk is full".to_owned() }
                } else {
                    Gate::Open
                };
            }
            changed
        });
    }

    fn hand_in(&self, commit: Commit, reply: Option<Reply>) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.closed {
            return Err(StoreError::ShutDown { detail: String::new() });
        }
        state.look(Moment::HandedIn, &commit);
        if state.failing && commit.when_closed == WhenClosed::Refuse {
            return Err(StoreError::Closed { reason: "the disk is full".to_owned() });
        }
        state.queue.push_back((commit, reply, Instant::now()));
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }
}

impl Journal for SimulatedJournal {
    fn commit(
        &self,
        commit: Commit,
    ) -> Pin<Box<dyn Future<Output = Result<Receipt, StoreError>> + Send + 'static>> {
        let (state, arrived, gate) = (Arc::clone(&self.state), Arc::clone(&self.arrived), self.gate.clone());
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            Self { state, arrived, gate }.hand_in(commit, Some(reply))?;
            answer.await.unwrap_or_else(|_| Err(StoreError::ShutDown { detail: "gone".to_owned() }))
        })
    }

    fn commit_detached(&self, commit: Commit) -> Result<(), StoreError> {
        self.hand_in(commit, None)
    }

    fn announce(&self, _: JournalRow) {}

    fn subscribe(&self) -> Subscription {
        unreachable!("nobody follows the simulated journal")
    }

    fn gate(&self) -> watch::Receiver<Gate> {
        self.gate.subscribe()
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        while let Some((commit, reply, _)) = state.queue.pop_front() {
            let outcome = if state.failing {
                Err(StoreError::ShutDown { detail: "the disk is full".to_owned() })
            } else {
                state.kept.apply(&commit)
            };
            if let Some(reply) = reply {
                let _ = reply.send(outcome);
            }
        }
        drop(state);
        self.arrived.notify_one();
    }
}

impl History for SimulatedJournal {
    fn job(&self, job: &JobId) -> Result<Option<StoredJob>, StoreError> {
        Ok(self.kept(|kept| {
            let record = kept.jobs.get(job)?.clone();
            let worker_pid = record.worker_session_id.as_ref().and_then(|worker| kept.pid_of(worker));
            Some(StoredJob { record, result: kept.results.get(job).cloned(), worker_pid })
        }))
    }

    fn composition(&self, id: &CompositionId) -> Result<Option<StoredComposition>, StoreError> {
        Ok(self.kept(|kept| {
            let (record, output) = kept.runs.get(id)?.clone();
            Some(StoredComposition { record, output, end: kept.finished.get(id).cloned() })
        }))
    }
}

/// How long the disk fails, and when it begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct FullDisk {
    pub(super) after: Duration,
    pub(super) lasts: Duration,
}
