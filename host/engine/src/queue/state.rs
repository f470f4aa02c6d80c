//! What the queue's parts share: a job that has not ended, how one ended, whom to tell the end, and what is said to the
//! owner.

use cjm_decide::queue::{QueueEvent, Target};
use cjm_store::JobRecord;
use cjm_wire::error::Failure;
use cjm_wire::event::JobStatus;
use cjm_wire::{InstanceId, JobId, Timestamp};
use cjm_workers::{CallError, Reply};
use serde_json::{Map, Value};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// Outcomes kept for callers who ask late; older ones are read from the store.
pub(crate) const FINISHED_KEPT_MAX: usize = 1024;

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
    pub(crate) ends: mpsc::UnboundedSender<ElementEnd>,
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
pub(crate) struct Finished {
    by_id: HashMap<JobId, Arc<JobOutcome>>,
    order: VecDeque<JobId>,
}

impl Finished {
    pub(crate) fn get(&self, job: &JobId) -> Option<Arc<JobOutcome>> {
        self.by_id.get(job).cloned()
    }

    pub(crate) fn keep(&mut self, outcome: Arc<JobOutcome>) {
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
    pub(crate) fn record(&self) -> std::sync::MutexGuard<'_, JobRecord> {
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
