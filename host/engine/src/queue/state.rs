//! What the queue's parts share: a job that has not ended, how one ended, whom to tell the end, and what is said to the
//! owner.

use cjm_decide::queue::{PENDING_MAX_DEFAULT, QueueEvent, Target};
use cjm_store::JobRecord;
use cjm_wire::error::Failure;
use cjm_wire::event::JobStatus;
use cjm_wire::{InstanceId, JobId, Timestamp};
use cjm_workers::{CallError, Reply};
use serde_json::{Map, Value};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};

/// Outcomes kept for callers who ask late; older ones are read from the store.
const FINISHED_KEPT_MAX: usize = 1024;

/// What is said to the queue's owner.
pub(crate) enum Command {
    /// Something that happened to an instance, or a cancel.
    Event(QueueEvent),
    /// A job was accepted and committed.
    Submitted(Arc<ActiveJob>),
    /// The call of an attempt is over.
    AttemptOver { job: JobId, attempt: u32, result: Result<Reply, CallError> },
}

/// A job that has not ended.
pub(crate) struct ActiveJob {
    pub(crate) id: JobId,
    pub(crate) target: Target,
    pub(crate) path: &'static str,
    /// The request as it goes out, envelope included.
    pub(crate) body: Vec<u8>,
    pub(crate) record: Mutex<JobRecord>,
    pub(crate) outcome: watch::Sender<Option<Arc<JobOutcome>>>,
    /// Who waits for it as an element of a composition.
    pub(crate) element: Option<ElementHook>,
}

/// How an element's job ended.
pub(crate) struct ElementEnd {
    pub(crate) node: String,
    pub(crate) element: usize,
    pub(crate) outcome: Arc<JobOutcome>,
}

/// Where the end of a composition's element is told.
#[derive(Clone)]
pub(crate) struct ElementHook {
    pub(crate) node: String,
    pub(crate) element: usize,
    /// Arguments of the call; taken when its job is made.
    pub(crate) kwargs: cjm_wire::json::Arguments,
    pub(crate) ends: mpsc::UnboundedSender<ElementEnd>,
}

/// The jobs of one host: those that have not ended, the newest that have, and the way to the queue's owner.
pub(crate) struct Jobs {
    /// To the queue's owner. Unbounded as a channel, bounded by what may be in it: every job is counted against
    /// `pending_max` before it is accepted, and has a handful of events in its life.
    queue: mpsc::UnboundedSender<Command>,
    /// Jobs accepted and not yet running, with those being committed.
    waiting: AtomicUsize,
    active: Mutex<HashMap<JobId, Arc<ActiveJob>>>,
    finished: Mutex<Finished>,
}

impl Jobs {
    pub(crate) fn new(queue: mpsc::UnboundedSender<Command>) -> Self {
        Self { queue, waiting: 0.into(), active: Mutex::default(), finished: Mutex::default() }
    }

    /// Tells the queue's owner what happened.
    pub(crate) fn tell_queue(&self, event: QueueEvent) {
        // The owner ends last; without it nothing is decided any more.
        let _ = self.queue.send(Command::Event(event));
    }

    /// Counts jobs that are about to wait.
    ///
    /// # Errors
    /// When too many would; how many wait already is the error.
    pub(crate) fn take_places(&self, asked: usize) -> Result<(), usize> {
        let before = self.waiting.fetch_add(asked, Ordering::AcqRel);
        // The queue itself refuses nothing that is committed, so the count is kept here.
        if before + asked > PENDING_MAX_DEFAULT {
            self.give_places_back(asked);
            return Err(before);
        }
        Ok(())
    }

    /// These wait no longer.
    pub(crate) fn give_places_back(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::AcqRel);
    }

    /// Hands a committed job to the owner. It is known before the queue knows it, so that a waiter finds it at once.
    /// False when there is no owner any more.
    pub(crate) fn submitted(&self, job: Arc<ActiveJob>) -> bool {
        self.active().insert(job.id.clone(), Arc::clone(&job));
        self.queue.send(Command::Submitted(job)).is_ok()
    }

    /// Tells the owner that the call of an attempt is over.
    pub(crate) fn attempt_over(&self, job: JobId, attempt: u32, result: Result<Reply, CallError>) {
        // The owner outlives every attempt; it ends only with the jobs.
        let _ = self.queue.send(Command::AttemptOver { job, attempt, result });
    }

    /// A job that has not ended.
    pub(crate) fn get(&self, job: &JobId) -> Option<Arc<ActiveJob>> {
        self.active().get(job).cloned()
    }

    /// Moves a job to those that have ended, then tells who waits.
    pub(crate) fn ended(&self, job: &ActiveJob, outcome: Arc<JobOutcome>) {
        self.finished().keep(Arc::clone(&outcome));
        self.active().remove(&job.id);
        job.outcome.send_replace(Some(Arc::clone(&outcome)));
        if let Some(hook) = &job.element {
            // The composition may have ended meanwhile.
            let _ = hook.ends.send(ElementEnd { node: hook.node.clone(), element: hook.element, outcome });
        }
    }

    /// Waits for the end of a job; `None` when it is not known.
    pub(crate) async fn wait(&self, job: &JobId) -> Option<Arc<JobOutcome>> {
        if let Some(active) = self.get(job) {
            let mut outcome = active.outcome.subscribe();
            if let Ok(outcome) = outcome.wait_for(Option::is_some).await
                && let Some(outcome) = outcome.clone()
            {
                return Some(outcome);
            }
        }
        self.finished().get(job)
    }

    fn active(&self) -> MutexGuard<'_, HashMap<JobId, Arc<ActiveJob>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finished(&self) -> MutexGuard<'_, Finished> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct JobOutcome {
    /// The job.
    pub job_id: JobId,
    /// `completed`, `failed` or `cancelled`.
    pub status: JobStatus,
    /// The result, JSON, when it completed.
    pub result: Option<bytes::Bytes>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When its last attempt began; `None` when it never ran.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Where it ran.
    pub instance_id: Option<InstanceId>,
    /// The worker's incarnation.
    pub worker_session_id: Option<String>,
    /// The worker's process.
    pub worker_pid: Option<u32>,
}

/// The newest outcomes.
#[derive(Default)]
struct Finished {
    by_id: HashMap<JobId, Arc<JobOutcome>>,
    order: VecDeque<JobId>,
}

impl Finished {
    fn get(&self, job: &JobId) -> Option<Arc<JobOutcome>> {
        self.by_id.get(job).cloned()
    }

    fn keep(&mut self, outcome: Arc<JobOutcome>) {
        if self.order.len() == FINISHED_KEPT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
        self.order.push_back(outcome.job_id.clone());
        self.by_id.insert(outcome.job_id.clone(), outcome);
    }
}

impl ActiveJob {
    pub(crate) fn record(&self) -> MutexGuard<'_, JobRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The object of a payload.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
