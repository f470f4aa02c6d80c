//! An attempt of a job, a task of its own: worker, row, call, and the end of the job when the queue says so.
//!
//! What must hold: `running` is committed before a request leaves the host; a waiter is told after the terminal row is
//! committed.

use crate::instances::Instances;
use crate::queue::state::{ActiveJob, JobOutcome, Jobs, object};
use crate::services::Services;
use cjm_decide::queue::Start;
use cjm_store::{Body, Commit, JobEnd, JobRecord, JobStart, Write, rows};
use cjm_wire::event::{EventType, JobStatus, JournalRow};
use cjm_wire::{InstanceId, JobId, Timestamp};
use cjm_workers::{CallError, Reply, StartError, Worker, with_known_hashes};
use serde_json::{Value, json};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A cancel is repeated after this time while the call goes on.
const CANCEL_REPEAT: Duration = Duration::from_millis(250);
/// How often it is sent; the queue's grace ends before.
const CANCEL_REQUESTS_MAX: u32 = 12;

/// What runs jobs.
#[derive(Clone)]
pub(crate) struct Runner {
    pub(crate) services: Arc<Services>,
    pub(crate) instances: Arc<Instances>,
    pub(crate) jobs: Arc<Jobs>,
}

/// A [`Runner`] that keeps nothing alive, for the queue's owner: the jobs hold the sender whose end ends it.
pub(crate) struct WeakRunner {
    services: Weak<Services>,
    instances: Weak<Instances>,
    jobs: Weak<Jobs>,
}

impl Runner {
    pub(crate) fn downgrade(&self) -> WeakRunner {
        WeakRunner {
            services: Arc::downgrade(&self.services),
            instances: Arc::downgrade(&self.instances),
            jobs: Arc::downgrade(&self.jobs),
        }
    }
}

impl WeakRunner {
    pub(crate) fn upgrade(&self) -> Option<Runner> {
        Some(Runner {
            services: self.services.upgrade()?,
            instances: self.instances.upgrade()?,
            jobs: self.jobs.upgrade()?,
        })
    }
}

/// Asks until the call has ended: a job is `running` a moment before its request reaches the worker, and a cancel that
/// overtakes the request finds nothing to stop.
pub(crate) async fn ask_to_cancel(active: Arc<ActiveJob>, worker: Arc<Worker>) {
    let mut outcome = active.outcome.subscribe();
    for _ in 0..CANCEL_REQUESTS_MAX {
        worker.cancel(&active.id).await;
        if tokio::time::timeout(CANCEL_REPEAT, outcome.wait_for(Option::is_some)).await.is_ok() {
            return;
        }
    }
}

pub(crate) fn note_about_job(runner: &Runner, job: &JobId, kind: EventType, payload: Value) {
    let mut row = JournalRow::new(kind, object(payload));
    if let Some(active) = runner.jobs.get(job) {
        rows::describe_job(&mut row, &active.record());
    } else {
        row.job_id = Some(job.to_string());
    }
    runner.services.note(row);
}

/// One attempt: worker, row, call.
pub(crate) async fn run_attempt(runner: Runner, active: Arc<ActiveJob>, start: Start) {
    let result = try_attempt(&runner, &active, &start).await;
    runner.jobs.attempt_over(start.job, start.attempt, result);
}

async fn try_attempt(runner: &Runner, active: &ActiveJob, start: &Start) -> Result<Reply, CallError> {
    let capability = active.record().capability_name.clone();
    let instance = runner.instances.get(&start.instance).ok_or_else(|| {
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
    let worker = instance
        .ensure_worker(&runner.services, &runner.jobs)
        .await
        .map_err(|error| CallError::NotStarted(Box::new(error)))?;
    let commit = running_commit(active, start, &worker);
    runner.services.journal.commit(commit).await.map_err(|error| CallError::NotJournaled {
        capability: capability.clone(),
        message: error.to_string(),
    })?;
    let body = with_known_hashes(&runner.services.input_hashes, &instance.plan, &active.body).await;
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
pub(crate) async fn finish(
    runner: Runner,
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
            Some(Err(error)) if status == JobStatus::Failed => {
                let mut failure = error.to_failure(&instance);
                failure.report = failure.report.of_job(active.id.clone(), record.run_id.clone());
                if let Some(node) = &record.node_id {
                    // Only of a mapped node does the number of an element say anything.
                    failure.report = failure.report.at_node(node.clone(), None);
                }
                Some(failure)
            }
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
        let outcome = outcome_of(&runner, &active.id, &record, body);
        (outcome, commit.row(terminal))
    };
    if let Err(error) = runner.services.journal.commit(commit).await {
        // Whoever waits still learns the truth; the journal does not, and says so in the log.
        tracing::error!(%error, job = %active.id, "the end of a job could not be written");
    }
    runner.jobs.ended(&active, Arc::new(outcome));
}

fn outcome_of(runner: &Runner, job: &JobId, record: &JobRecord, result: Option<bytes::Bytes>) -> JobOutcome {
    let instance_id = record.instance_id.clone().map(InstanceId::from_text);
    let worker_pid = instance_id
        .as_ref()
        .and_then(|id| runner.instances.get(id))
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
