//! A journal in memory, with the promises of the real one and a disk that fails when the seed says so. It applies commits
//! in the order in which they were queued, after a while, and holds each change against the rules of a job's life.

use super::seed::Seed;
use crate::services::{History, StoredJob};
use cjm_store::{
    Body, Commit, Gate, JobRecord, Journal, Receipt, StoreError, Subscription, WhenClosed, Write,
};
use cjm_wire::error::Failure;
use cjm_wire::event::{EventType, JobStatus, JournalRow};
use cjm_wire::{CompositionId, JobId, Timestamp, WorkerSessionId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

/// As with the real one.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(2);
/// Results longer than this never fit.
pub(super) const RESULT_BYTES_MAX: usize = 1_000;

type Reply = oneshot::Sender<Result<Receipt, StoreError>>;

/// What the simulated store holds.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) jobs: BTreeMap<JobId, JobRecord>,
    pub(super) results: BTreeMap<JobId, Vec<u8>>,
    pub(super) ended_at: BTreeMap<JobId, Instant>,
    pub(super) spawned: BTreeSet<WorkerSessionId>,
    pub(super) died: BTreeSet<WorkerSessionId>,
    pub(super) workers_open: BTreeSet<WorkerSessionId>,
    /// Processes of workers, dead ones too.
    pids: BTreeMap<WorkerSessionId, u32>,
    pub(super) terminal_rows: BTreeMap<String, u32>,
    /// How compositions have ended; None: not yet.
    pub(super) compositions: BTreeMap<CompositionId, Option<JobStatus>>,
    /// Why those fail that have not ended.
    pub(super) failing: BTreeMap<CompositionId, Failure>,
    row_ids: BTreeSet<String>,
    rows: i64,
    /// What must never be.
    pub(super) broken: Vec<String>,
}

#[derive(Debug)]
struct State {
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

impl SimulatedJournal {
    pub(super) fn new(seed: Seed) -> Arc<Self> {
        let state =
            State { kept: Kept::default(), queue: VecDeque::new(), seed, failing: false, closed: false };
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
            let outcome = state.kept.apply(&commit);
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
            let worker_pid =
                record.worker_session_id.as_ref().and_then(|worker| kept.pids.get(worker).copied());
            Some(StoredJob { record, result: kept.results.get(job).cloned(), worker_pid })
        }))
    }
}

impl Kept {
    /// Applies a commit, or nothing of it.
    fn apply(&mut self, commit: &Commit) -> Result<Receipt, StoreError> {
        for write in &commit.writes {
            self.check(write)?;
        }
        if let Some(row) = commit.rows.iter().find(|row| self.row_ids.contains(row.event_id.as_str())) {
            self.broken.push(format!("a second row {}", row.event_id));
            return Err(refused("a second row of one id"));
        }
        commit.writes.iter().for_each(|write| self.write(write));
        for row in &commit.rows {
            self.rows += 1;
            self.row_ids.insert(row.event_id.to_string());
            self.note(row);
        }
        Ok(Receipt { first_seq: self.rows - commit.rows.len() as i64 + 1, last_seq: self.rows })
    }

    /// The rules of a job's life, as the real store has them.
    fn check(&mut self, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::InsertJob(job, _) if self.jobs.contains_key(&job.job_id) => {
                self.broken.push(format!("{} is accepted twice", job.job_id));
                Err(refused("a job of this id"))
            }
            Write::StartJob(start) => {
                let job = self.jobs.get(&start.job_id);
                let may = job.is_some_and(|job| !job.status.is_terminal() && job.attempt < start.attempt);
                if !may {
                    self.broken
                        .push(format!("{} cannot start attempt {}: {job:?}", start.job_id, start.attempt));
                    return Err(refused("a start that cannot be"));
                }
                Ok(())
            }
            Write::JobWaitsAgain { job_id, attempt } => {
                let job = self.jobs.get(job_id);
                let may = job.is_some_and(|job| job.status == JobStatus::Running && job.attempt == *attempt);
                if !may {
                    self.broken.push(format!("{job_id} cannot wait again after attempt {attempt}: {job:?}"));
                    return Err(refused("an attempt that is not"));
                }
                Ok(())
            }
            Write::EndJob(end) => {
                let job = self.jobs.get(&end.job_id);
                if job.is_none_or(|job| job.status.is_terminal()) {
                    // A second end is told apart from a first one by its being refused.
                    if job.is_none() {
                        self.broken.push(format!("{} ends and was never accepted", end.job_id));
                    }
                    return Err(refused("an end that cannot be"));
                }
                match &end.result {
                    Some(Body::Inline(bytes)) if bytes.len() > RESULT_BYTES_MAX => {
                        Err(StoreError::NoRoom { bytes: bytes.len(), reason: "the disk is full".to_owned() })
                    }
                    _ => Ok(()),
                }
            }
            Write::CompositionFails(id, _) => self.check_runs(id),
            Write::EndComposition(end) => {
                self.check_runs(&end.composition_id)?;
                // What its callers were told stays.
                let told = self.failing.get(&end.composition_id).map(|failure| &failure.report.message);
                let ends = end.failure.as_ref().map(|failure| &failure.report.message);
                if told.is_some() && (told != ends || end.status != JobStatus::Failed) {
                    self.broken.push(format!("told {told:?}, ended {} {ends:?}", end.status));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_runs(&mut self, id: &CompositionId) -> Result<(), StoreError> {
        if self.compositions.get(id) == Some(&None) {
            return Ok(());
        }
        self.broken.push(format!("{id} does not run: {:?}", self.compositions.get(id)));
        Err(refused("a composition that does not run"))
    }

    fn write(&mut self, write: &Write) {
        match write {
            Write::InsertJob(job, _) => {
                self.jobs.insert(job.job_id.clone(), (**job).clone());
            }
            Write::StartJob(start) => {
                let job = self.jobs.get_mut(&start.job_id).expect("checked");
                job.status = JobStatus::Running;
                job.attempt = start.attempt;
                job.worker_session_id.clone_from(&start.worker_session_id);
            }
            Write::JobWaitsAgain { job_id, .. } => {
                self.jobs.get_mut(job_id).expect("checked").status = JobStatus::Pending;
            }
            Write::EndJob(end) => {
                let job = self.jobs.get_mut(&end.job_id).expect("checked");
                job.status = end.status;
                job.failure.clone_from(&end.failure);
                self.ended_at.insert(end.job_id.clone(), Instant::now());
                if let Some(Body::Inline(bytes)) = &end.result {
                    self.results.insert(end.job_id.clone(), bytes.clone());
                }
            }
            Write::InsertComposition(composition, _, _) => {
                self.compositions.insert(composition.composition_id.clone(), None);
            }
            Write::CompositionFails(id, failure) => {
                self.failing.insert(id.clone(), (**failure).clone());
            }
            Write::EndComposition(end) => {
                self.compositions.insert(end.composition_id.clone(), Some(end.status));
            }
            Write::WorkerSpawned(worker) => {
                self.workers_open.insert(worker.worker_session_id.clone());
                self.pids.insert(worker.worker_session_id.clone(), worker.pid);
            }
            Write::WorkerEnded(session, _) => {
                self.workers_open.remove(session);
            }
            _ => {}
        }
    }

    fn note(&mut self, row: &JournalRow) {
        let session = row.worker_session_id.as_deref().map(WorkerSessionId::from_text);
        let first = match (EventType::parse(&row.event_type), session) {
            (Some(EventType::WorkerSpawned), Some(session)) => self.spawned.insert(session),
            (Some(EventType::WorkerDied), Some(session)) => self.died.insert(session),
            _ => true,
        };
        if !first {
            self.broken.push(format!("{:?} has a second row {}", row.worker_session_id, row.event_type));
        }
        if let Some(job) = row.job_id.as_ref().filter(|_| row.event_id.as_str().ends_with(":terminal")) {
            *self.terminal_rows.entry(job.clone()).or_default() += 1;
        }
    }

    /// Where a job stands, for a worker that is asked to run it.
    pub(super) fn runs_on(&self, job: &JobId) -> Option<&WorkerSessionId> {
        let job = self.jobs.get(job).filter(|job| job.status == JobStatus::Running)?;
        job.worker_session_id.as_ref()
    }
}

fn refused(what: &str) -> StoreError {
    StoreError::Refused { what: what.to_owned() }
}

/// How long the disk fails, and when it begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct FullDisk {
    pub(super) after: Duration,
    pub(super) lasts: Duration,
}
