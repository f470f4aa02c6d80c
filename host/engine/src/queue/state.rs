//! What the queue's parts share: a job that has not ended, how one ended, whom to tell the end, and what is said to the
//! owner.

use crate::deadlines::Timeout;
use cjm_decide::queue::{QueueError, QueueEvent, QueueLimits, Target};
use cjm_store::JobRecord;
use cjm_wire::error::Failure;
use cjm_wire::event::JobStatus;
use cjm_wire::{InstanceId, JobId, Timestamp, WorkerSessionId};
use cjm_workers::{CallError, Reply};
use serde_json::{Map, Value};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Outcomes kept for callers who ask late; older ones are read from the store.
const FINISHED_KEPT_MAX: usize = 1024;

/// What is said to the queue's owner.
pub(crate) enum Command {
    /// Something that happened to an instance, or a cancel.
    Event(QueueEvent),
    /// A job was accepted and committed; it is counted by its place until the queue counts it.
    Submitted(Arc<ActiveJob>, Place),
    /// An attempt is over.
    AttemptOver { job: JobId, attempt: u32, session: WorkerSessionId, end: AttemptEnd },
}

/// How an attempt ended.
pub(crate) enum AttemptEnd {
    /// The call is over.
    Over(Result<Reply, CallError>),
    /// The incarnation it was admitted to is not the present one: nothing was committed, nothing was sent.
    NotRun,
    /// The worker died before its tool had taken the call.
    NotTaken {
        /// How.
        error: CallError,
        /// It had taken others.
        others: bool,
    },
}

/// A job that has not ended.
pub(crate) struct ActiveJob {
    pub(crate) id: JobId,
    pub(crate) target: Target,
    pub(crate) path: &'static str,
    /// The request as it goes out, envelope included.
    pub(crate) body: Vec<u8>,
    pub(crate) record: Mutex<JobRecord>,
    /// The process of the worker of its last attempt: the instance, who knew it too, may be unloaded before the job is told.
    pub(crate) worker_pid: Mutex<Option<u32>>,
    /// How long it may take, from its submission.
    pub(crate) timeout: Timeout,
    pub(crate) outcome: watch::Sender<Option<Arc<JobOutcome>>>,
    /// Why it is stopped, where that is not its own deadline.
    pub(crate) stopped_for: OnceLock<Failure>,
    /// The queue has asked for the end of the attempt that runs.
    pub(crate) stopping: CancellationToken,
    /// Keeps the stores open from the first attempt to the terminal row.
    pub(crate) keeps_open: Mutex<Option<TaskTrackerToken>>,
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

/// Jobs that are being committed, counted against those that may wait until it is dropped.
pub(crate) struct Place {
    committing: Arc<AtomicUsize>,
    jobs: usize,
}

impl Place {
    /// A part of it, for one job.
    fn split_one(&mut self) -> Self {
        self.jobs -= 1;
        Self { committing: Arc::clone(&self.committing), jobs: 1 }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.committing.fetch_sub(self.jobs, Ordering::AcqRel);
    }
}

/// The jobs of one host: those that have not ended, the newest that have, and the way to the queue's owner.
pub(crate) struct Jobs {
    limits: QueueLimits,
    /// To the queue's owner. Unbounded as a channel, bounded by what may be in it: every job is counted against
    /// `pending_max` before it is accepted, and has a handful of events in its life.
    queue: mpsc::UnboundedSender<Command>,
    /// Jobs on their way into the queue.
    committing: Arc<AtomicUsize>,
    /// Jobs that wait in the queue, as its owner counted them last.
    pub(crate) pending: AtomicUsize,
    active: Mutex<HashMap<JobId, Arc<ActiveJob>>>,
    finished: Mutex<Finished>,
    /// The host has ended: what has no end yet gets none here.
    closed: CancellationToken,
}

impl Jobs {
    pub(crate) fn new(queue: mpsc::UnboundedSender<Command>, limits: QueueLimits) -> Self {
        Self {
            limits,
            queue,
            committing: Arc::default(),
            pending: 0.into(),
            active: Mutex::default(),
            finished: Mutex::default(),
            closed: CancellationToken::new(),
        }
    }

    /// Tells the queue's owner what happened.
    pub(crate) fn tell_queue(&self, event: QueueEvent) {
        // The owner ends last; without it nothing is decided any more.
        let _ = self.queue.send(Command::Event(event));
    }

    /// Counts jobs that are about to be committed.
    ///
    /// # Errors
    /// When too many would wait.
    pub(crate) fn take_places(&self, asked: usize) -> Result<Place, QueueError> {
        let before = self.committing.fetch_add(asked, Ordering::AcqRel);
        let place = Place { committing: Arc::clone(&self.committing), jobs: asked };
        self.limits.may_submit(before + self.pending.load(Ordering::Acquire), asked)?;
        Ok(place)
    }

    /// Places that are taken.
    #[cfg(test)]
    pub(crate) fn places_taken(&self) -> usize {
        self.committing.load(Ordering::Acquire)
    }

    /// Hands committed jobs to the owner. They are known before the queue knows them, so that a waiter finds them at once.
    pub(crate) fn submitted(&self, jobs: Vec<Arc<ActiveJob>>, mut place: Place) {
        for job in jobs {
            self.active().insert(job.id.clone(), Arc::clone(&job));
            // Without an owner the host has ended, and the next one finds them pending.
            let _ = self.queue.send(Command::Submitted(job, place.split_one()));
        }
    }

    /// Tells the owner that an attempt is over.
    pub(crate) fn attempt_over(&self, job: JobId, attempt: u32, session: WorkerSessionId, end: AttemptEnd) {
        // The owner outlives every attempt; it ends only with the jobs.
        let _ = self.queue.send(Command::AttemptOver { job, attempt, session, end });
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

    /// Waits for the end of a job. `None`: it is not in memory.
    pub(crate) async fn wait(&self, job: &JobId) -> Option<Result<Arc<JobOutcome>, HostGone>> {
        if let Some(active) = self.get(job) {
            let mut outcome = active.outcome.subscribe();
            let told = tokio::select! {
                biased;
                told = outcome.wait_for(Option::is_some) => told.ok().and_then(|told| told.clone()),
                () = self.closed.cancelled() => None,
            };
            return Some(told.ok_or(HostGone));
        }
        self.finished().get(job).map(Ok)
    }

    /// Resolves once the job has ended, or the host has; it keeps neither alive.
    pub(crate) fn over(&self, job: &JobId) -> impl Future<Output = ()> + Send + use<> {
        let outcome = self.get(job).map(|active| active.outcome.subscribe());
        let closed = self.closed.clone();
        async move {
            let Some(mut outcome) = outcome else { return };
            tokio::select! {
                biased;
                _ = outcome.wait_for(Option::is_some) => {}
                () = closed.cancelled() => {}
            }
        }
    }

    /// The host has ended: whoever waits is told.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Whether the host has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    fn active(&self) -> MutexGuard<'_, HashMap<JobId, Arc<ActiveJob>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finished(&self) -> MutexGuard<'_, Finished> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host ended before the job did.
pub(crate) struct HostGone;

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

impl JobOutcome {
    /// How the job of this record ended, which ran in this process.
    pub(crate) fn of(record: &JobRecord, result: Option<bytes::Bytes>, worker_pid: Option<u32>) -> Self {
        Self {
            job_id: record.job_id.clone(),
            status: record.status,
            result,
            failure: record.failure.clone(),
            submitted_at: record.submitted_at.clone(),
            started_at: record.started_at.clone(),
            completed_at: record.completed_at.clone(),
            instance_id: record.instance_id.clone().map(InstanceId::from_text),
            worker_session_id: record.worker_session_id.as_ref().map(ToString::to_string),
            worker_pid,
        }
    }
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
    /// From now on the stores wait for its end.
    pub(crate) fn keep_open(&self, tasks: &TaskTracker) {
        self.keeps_open.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| tasks.token());
    }

    /// The stores wait no longer for its end.
    pub(crate) fn let_close(&self) {
        self.keeps_open.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, JobRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ran_in(&self, worker_pid: Option<u32>) {
        *self.worker_pid.lock().unwrap_or_else(PoisonError::into_inner) = worker_pid;
    }

    pub(crate) fn worker_pid(&self) -> Option<u32> {
        *self.worker_pid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The object of a payload.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
