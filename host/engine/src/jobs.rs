//! The queue's shell: one task owns `decide`'s queue, feeds it what happens and performs what it decides. Each attempt
//! is a task of its own that commits, calls, and reports back; the owner never waits for I/O.
//!
//! What must hold: `running` is committed before a request leaves the host; a waiter is told after the terminal row is
//! committed; a job ends exactly once (the queue says so, and the journal's unique id enforces it).

use crate::compositions::ElementEnd;
use crate::context::Context;
use cjm_decide::death::OwnKill;
use cjm_decide::queue::{
    AttemptOutcome, CancelPhase, Queue, QueueEffect, QueueEvent, QueueLimits, QueuedJob, Start, Target,
};
use cjm_store::{Body, Commit, Gate, JobEnd, JobRecord, JobStart, Write, rows};
use cjm_wire::error::Failure;
use cjm_wire::event::{EventType, JobStatus, JournalRow};
use cjm_wire::{InstanceId, JobId, Timestamp};
use cjm_workers::Reply;
use cjm_workers::Worker;
use cjm_workers::with_known_hashes;
use cjm_workers::{CallError, StartError};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Outcomes kept for callers who ask late; older ones are read from the store.
pub(crate) const FINISHED_KEPT_MAX: usize = 1024;
/// A cancel is repeated after this time while the call goes on.
const CANCEL_REPEAT: Duration = Duration::from_millis(250);
/// How often it is sent; the queue's grace ends before.
const CANCEL_REQUESTS_MAX: u32 = 12;
/// Commands taken at once.
const COMMANDS_AT_ONCE_MAX: usize = 256;

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
    pub(crate) fn record(&self) -> std::sync::MutexGuard<'_, JobRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The owner's task; ends when every sender is gone.
pub(crate) async fn own_queue(
    context: std::sync::Weak<Context>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    limits: QueueLimits,
    mut gate: watch::Receiver<Gate>,
) {
    let mut owner = Owner {
        queue: Queue::new(limits),
        context,
        started: Instant::now(),
        results: HashMap::new(),
        wake_at: None,
    };
    let mut batch = Vec::new();
    loop {
        let wake_at = owner.wake_at;
        tokio::select! {
            count = commands.recv_many(&mut batch, COMMANDS_AT_ONCE_MAX) => {
                if count == 0 {
                    return;
                }
                for command in batch.drain(..) {
                    owner.take(command);
                }
            }
            () = sleep_until(wake_at), if wake_at.is_some() => {
                owner.wake_at = None;
                owner.feed(QueueEvent::Tick);
            }
            Ok(()) = gate.changed() => {
                let event = match &*gate.borrow_and_update() {
                    Gate::Open => QueueEvent::AdmissionOpened,
                    Gate::Closed { reason, .. } => QueueEvent::AdmissionClosed { reason: reason.clone() },
                };
                owner.feed(event);
            }
        }
    }
}

struct Owner {
    queue: Queue,
    /// Weak: the context holds the sender whose end ends this task.
    context: std::sync::Weak<Context>,
    started: Instant,
    /// Results of attempts that are over, until the queue says what the job becomes.
    results: HashMap<JobId, Result<Reply, CallError>>,
    wake_at: Option<Instant>,
}

impl Owner {
    fn take(&mut self, command: Command) {
        match command {
            Command::Event(event) => self.feed(event),
            Command::Submitted(active) => {
                let Some(context) = self.context.upgrade() else { return };
                let (priority, composition) = {
                    let record = active.record();
                    (record.priority, record.composition_id.clone())
                };
                let job =
                    QueuedJob { id: active.id.clone(), target: active.target.clone(), priority, composition };
                context.active().insert(active.id.clone(), active);
                self.feed(QueueEvent::Submitted { job });
            }
            Command::AttemptOver { job, attempt, result } => {
                let outcome = match &result {
                    Ok(_) => AttemptOutcome::Completed,
                    Err(CallError::Cancelled { .. }) => AttemptOutcome::Cancelled,
                    Err(_) => AttemptOutcome::Failed,
                };
                self.results.insert(job.clone(), result);
                self.feed(QueueEvent::AttemptEnded { job, attempt, outcome });
            }
        }
    }

    fn feed(&mut self, event: QueueEvent) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match self.queue.handle(event, now_ms) {
            Ok(effects) => effects.into_iter().for_each(|effect| self.perform(effect)),
            Err(error) => tracing::error!(%error, "the queue refused an event; this is a defect"),
        }
    }

    fn perform(&mut self, effect: QueueEffect) {
        let Some(context) = self.context.upgrade() else { return };
        match effect {
            QueueEffect::Start(start) => {
                let Some(active) = context.active().get(&start.job).cloned() else { return };
                context.waiting.fetch_sub(1, Ordering::AcqRel);
                tokio::spawn(run_attempt(context, active, start));
            }
            QueueEffect::SendCancel { job, instance, .. } => {
                let active = context.active().get(&job).cloned();
                let worker = context.instance(&instance).and_then(|instance| instance.worker());
                if let (Some(active), Some(worker)) = (active, worker) {
                    tokio::spawn(ask_to_cancel(active, worker));
                }
            }
            QueueEffect::ForceRecycle { job, instance, session } => {
                let worker = context.instance(&instance).and_then(|instance| instance.worker());
                if let Some(worker) = worker.filter(|worker| *worker.session() == session) {
                    tokio::spawn(async move { worker.kill(OwnKill::ForceCancel { job }).await });
                }
            }
            QueueEffect::CancelPhaseChanged { job, from, to } => {
                // Where nobody has asked yet, the ancestor's rows say null.
                let from = (from != CancelPhase::None).then(|| from.as_str());
                let payload = json!({ "from": from, "to": to.as_str() });
                note_about_job(&context, &job, EventType::CancelPhaseChanged, payload);
            }
            QueueEffect::BlockReasonChanged { job, from, to } => {
                let payload = json!({ "from": from.map(|reason| reason.as_str()), "to": to.as_str() });
                note_about_job(&context, &job, EventType::BlockReasonChanged, payload);
            }
            QueueEffect::Ended { job, from, status, .. } => {
                if from == JobStatus::Pending {
                    context.waiting.fetch_sub(1, Ordering::AcqRel);
                }
                let result = self.results.remove(&job);
                let active = context.active().get(&job).cloned();
                if let Some(active) = active {
                    tokio::spawn(finish(context, active, status, result));
                }
            }
            QueueEffect::WakeAt { at_ms } => self.wake_at = Some(self.started + Duration::from_millis(at_ms)),
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

/// Asks until the call has ended: a job is `running` a moment before its request reaches the worker, and a cancel that
/// overtakes the request finds nothing to stop.
async fn ask_to_cancel(active: Arc<ActiveJob>, worker: Arc<Worker>) {
    let mut outcome = active.outcome.subscribe();
    for _ in 0..CANCEL_REQUESTS_MAX {
        worker.cancel(&active.id).await;
        if tokio::time::timeout(CANCEL_REPEAT, outcome.wait_for(Option::is_some)).await.is_ok() {
            return;
        }
    }
}

fn note_about_job(context: &Context, job: &JobId, kind: EventType, payload: Value) {
    let mut row = JournalRow::new(kind, object(payload));
    if let Some(active) = context.active().get(job) {
        rows::describe_job(&mut row, &active.record());
    } else {
        row.job_id = Some(job.to_string());
    }
    context.note(row);
}

/// One attempt: worker, row, call.
async fn run_attempt(context: Arc<Context>, active: Arc<ActiveJob>, start: Start) {
    let result = try_attempt(&context, &active, &start).await;
    // The owner outlives every attempt; it ends only with the context.
    let _ = context.queue.send(Command::AttemptOver { job: start.job, attempt: start.attempt, result });
}

async fn try_attempt(context: &Arc<Context>, active: &ActiveJob, start: &Start) -> Result<Reply, CallError> {
    let capability = active.record().capability_name.clone();
    let instance = context.instance(&start.instance).ok_or_else(|| {
        CallError::NotStarted(Box::new(StartError::Spawn {
            capability: capability.clone(),
            message: "its instance was unloaded".to_owned(),
            next_step: "load it again".to_owned(),
        }))
    })?;
    {
        let mut record = active.record();
        record.instance_id = Some(start.instance.to_string());
        record.worker_session_id = Some(instance.incarnation());
    }
    let worker =
        instance.ensure_worker(context).await.map_err(|error| CallError::NotStarted(Box::new(error)))?;
    let commit = running_commit(active, start, &worker);
    context.journal.commit(commit).await.map_err(|error| CallError::NotJournaled {
        capability: capability.clone(),
        message: error.to_string(),
    })?;
    let body = with_known_hashes(&context.input_hashes, &instance.plan, &active.body).await;
    worker.call(active.path, body).await
}

/// The rows and changes that make a job `running` on `worker`.
fn running_commit(active: &ActiveJob, start: &Start, worker: &Worker) -> Commit {
    let mut record = active.record();
    let from = record.status;
    record.status = JobStatus::Running;
    record.attempt = start.attempt;
    record.started_at = Some(Timestamp::now());
    record.worker_session_id = Some(worker.session().clone());
    let mut admission = JournalRow::new(
        EventType::AdmissionDecided,
        object(json!({
            "exclusive": start.exclusive,
            "gpu_reserved_mb": start.gpu_reserved_mb,
            "lanes_in_use": start.lanes_in_use,
            "stats_available": start.stats_available,
            "waited_ms": start.waited_ms,
        })),
    );
    rows::describe_job(&mut admission, &record);
    admission.ts = record.started_at.clone().unwrap_or_else(Timestamp::now);
    let mut running = rows::running(&record, from);
    running.payload.insert("worker_pid".into(), worker.pid.into());
    running.payload.insert("tool_pid".into(), worker.ready.tool_pid.into());
    Commit::telling()
        .write(Write::StartJob(JobStart {
            job_id: active.id.clone(),
            attempt: start.attempt,
            instance_id: start.instance.to_string(),
            worker_session_id: Some(worker.session().clone()),
            started_at: record.started_at.clone().unwrap_or_else(Timestamp::now),
        }))
        .row(admission)
        .row(running)
}

/// Commits the end of a job, then tells who waits.
async fn finish(
    context: Arc<Context>,
    active: Arc<ActiveJob>,
    status: JobStatus,
    result: Option<Result<Reply, CallError>>,
) {
    let (outcome, commit) = {
        let mut record = active.record();
        let from = record.status;
        record.status = status;
        record.completed_at = Some(Timestamp::now());
        let instance =
            InstanceId::from_text(record.instance_id.clone().unwrap_or_else(|| record.target.clone()));
        record.failure = match &result {
            Some(Err(error)) if status == JobStatus::Failed => Some(error.to_failure(&instance)),
            _ => None,
        };
        let accounts = match &result {
            Some(Ok(reply)) => reply.accounts.clone(),
            Some(Err(error)) => error.accounts().to_vec(),
            None => Vec::new(),
        };
        let reply = result.and_then(Result::ok);
        let body = reply.as_ref().filter(|_| status == JobStatus::Completed).map(|reply| reply.body.clone());
        let mut commit = Commit::telling().write(Write::EndJob(Box::new(JobEnd {
            job_id: active.id.clone(),
            status,
            completed_at: record.completed_at.clone().unwrap_or_else(Timestamp::now),
            failure: record.failure.clone(),
            result: body.as_ref().map(|body| Body::Inline(body.to_vec())),
        })));
        for account in accounts {
            let mut row = JournalRow::new(EventType::TaskAccount, account.payload);
            row.event_type = account.event_type;
            row.worker_reported = true;
            rows::describe_job(&mut row, &record);
            commit = commit.row(row);
        }
        let mut terminal = rows::terminal(&record, from);
        if let Some(failure) = &record.failure {
            terminal
                .payload
                .insert("report".into(), serde_json::to_value(&failure.report).unwrap_or_default());
        }
        let outcome = outcome_of(&context, &active.id, &record, body);
        (outcome, commit.row(terminal))
    };
    if let Err(error) = context.journal.commit(commit).await {
        // Whoever waits still learns the truth; the journal does not, and says so in the log.
        tracing::error!(%error, job = %active.id, "the end of a job could not be written");
    }
    let outcome = Arc::new(outcome);
    context.finished().keep(Arc::clone(&outcome));
    context.active().remove(&active.id);
    active.outcome.send_replace(Some(Arc::clone(&outcome)));
    if let Some(hook) = &active.element {
        // The composition may have ended meanwhile.
        let _ = hook.ends.send(ElementEnd { node: hook.node.clone(), element: hook.element, outcome });
    }
}

fn outcome_of(
    context: &Context,
    job: &JobId,
    record: &JobRecord,
    result: Option<bytes::Bytes>,
) -> JobOutcome {
    let instance_id = record.instance_id.clone().map(InstanceId::from_text);
    let worker_pid = instance_id
        .as_ref()
        .and_then(|id| context.instance(id))
        .and_then(|instance| instance.last_pid(record.worker_session_id.as_ref()));
    JobOutcome {
        job_id: job.clone(),
        status: record.status,
        result,
        failure: record.failure.clone(),
        submitted_at: record.submitted_at.clone(),
        started_at: record.started_at.clone(),
        completed_at: record.completed_at.clone(),
        instance_id,
        worker_session_id: record.worker_session_id.as_ref().map(ToString::to_string),
        worker_pid,
    }
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
