//! An attempt of a job, a task of its own: worker, row, call, and the end of the job when the queue says so.
//!
//! What must hold: `running` is committed before a request leaves the host; a waiter is told after the terminal row is
//! committed.

use crate::instances::Instances;
use crate::instances::NoWorker;
use crate::queue::state::{ActiveJob, AttemptEnd, JobOutcome, Jobs, object};
use crate::services::Services;
use cjm_decide::queue::{Start, StopReason};
use cjm_store::ends::{end_without_result, is_too_large_to_keep};
use cjm_store::{Body, Commit, JobEnd, JobRecord, JobStart, StoreError, Write, rows};
use cjm_wire::describe::Described;
use cjm_wire::error::Failure;
use cjm_wire::event::{EventType, JobStatus, JournalRow};
use cjm_wire::{InstanceId, JobId, Timestamp};
use cjm_workers::{CallError, Reply, Worker, with_known_hashes};
use futures_util::FutureExt;
use serde_json::{Value, json};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A cancel is repeated after this time while the call goes on.
pub(crate) const CANCEL_REPEAT: Duration = Duration::from_millis(250);
/// How often it is sent: one that is lost is sent again, and a tool that has a longer grace has heard of it by then.
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
pub(crate) async fn ask_to_cancel(active: Arc<ActiveJob>, worker: Arc<dyn Worker>) {
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
    let end = try_attempt(&runner, &active, &start).await;
    runner.jobs.attempt_over(start.job, start.attempt, start.session, end);
}

async fn try_attempt(runner: &Runner, active: &ActiveJob, start: &Start) -> AttemptEnd {
    let capability = active.record().capability_name.clone();
    let cancelled = || AttemptEnd::Over(Err(CallError::cancelled(&capability)));
    let Some(instance) = runner.instances.get(&start.instance) else { return AttemptEnd::NotRun };
    let worker = tokio::select! {
        biased;
        // Whoever is stopped before its request is out need not wait for the worker.
        () = active.stopping.cancelled() => return cancelled(),
        worker = instance.ensure_worker(&runner.services, &runner.jobs, Some(&start.session)) => worker,
    };
    let worker = match worker {
        Ok(worker) => worker,
        Err(NoWorker::Missed | NoWorker::Retired) => return AttemptEnd::NotRun,
        Err(NoWorker::Failed(error, pid)) => {
            let mut record = active.record();
            record.instance_id = Some(start.instance.to_string());
            record.worker_session_id = Some(start.session.clone());
            active.ran_in(pid);
            return AttemptEnd::Over(Err(CallError::NotStarted(error)));
        }
    };
    let (record, commit) = running_commit(active, start, &*worker);
    // The record follows what is queued: a stop does not take that back, and the job's next row begins where this one ends.
    let before = std::mem::replace(&mut *active.record(), record);
    active.ran_in(Some(worker.facts().pid));
    let committed = tokio::select! {
        biased;
        committed = runner.services.journal.commit(commit) => committed,
        () = active.stopping.cancelled() => return cancelled(),
    };
    if let Err(error) = committed {
        if !matches!(error, StoreError::Unwritten { .. }) {
            *active.record() = before;
        }
        let message = error.to_string();
        return AttemptEnd::Over(Err(CallError::NotJournaled { capability, message }));
    }
    let body = tokio::select! {
        biased;
        // A large file takes its time to be read.
        () = active.stopping.cancelled() => return cancelled(),
        body = with_known_hashes(&runner.services.input_hashes, &instance.plan, &active.body) => body,
    };
    match worker.call(active.path, body.into()).await {
        Err(error @ CallError::NotTaken { others, .. }) => AttemptEnd::NotTaken { error, others },
        Err(error) => AttemptEnd::Over(Err(instance.told(error, active.stopping.is_cancelled()))),
        answer => AttemptEnd::Over(answer),
    }
}

/// Commits that the job waits again, as before the attempt: queued at once, before its next attempt can be.
pub(crate) fn wait_again(runner: &Runner, active: &ActiveJob, error: &CallError) {
    let mut record = active.record();
    record.status = JobStatus::Pending;
    record.started_at = None;
    let write = Write::JobWaitsAgain { job_id: active.id.clone(), attempt: record.attempt };
    let row = rows::waits_again(&record, &error.to_string(), Timestamp::now());
    runner.services.write(Commit::telling().write(write).row(row));
}

/// The job as it is once it runs on `worker`, and the rows and changes that make it so.
fn running_commit(active: &ActiveJob, start: &Start, worker: &dyn Worker) -> (JobRecord, Commit) {
    let mut record = active.record().clone();
    let from = record.status;
    let facts = worker.facts();
    let started_at = Timestamp::now();
    record.status = JobStatus::Running;
    record.attempt = start.attempt;
    record.started_at = Some(started_at.clone());
    record.instance_id = Some(start.instance.to_string());
    record.worker_session_id = Some(facts.session.clone());
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
    admission.ts = started_at.clone();
    let mut running = rows::running(&record, from);
    running.payload.insert("worker_pid".into(), facts.pid.into());
    running.payload.insert("tool_pid".into(), facts.ready.tool_pid.into());
    let commit = Commit::telling()
        .write(Write::StartJob(JobStart {
            job_id: active.id.clone(),
            attempt: start.attempt,
            instance_id: start.instance.to_string(),
            worker_session_id: Some(facts.session.clone()),
            started_at,
        }))
        .row(admission)
        .row(running);
    (record, commit)
}

/// What the queue says of a job that has ended, with what its last attempt brought.
pub(crate) struct End {
    pub(crate) status: JobStatus,
    pub(crate) stopped: Option<StopReason>,
    pub(crate) result: Option<Result<Reply, CallError>>,
}

impl End {
    /// What had not begun when the time of its run was over has not failed: it was cancelled.
    fn told_for(self, active: &ActiveJob) -> Self {
        let is_for_its_run = self.stopped == Some(StopReason::Deadline) && active.stopped_for.get().is_some();
        if is_for_its_run && active.record().started_at.is_none() {
            return Self { status: JobStatus::Cancelled, stopped: Some(StopReason::Cancel), ..self };
        }
        self
    }
}

/// Commits the end of a job, then tells who waits. An end that is not durable is no success: whoever waits is told that
/// the job failed, with the store's reason. One that failed in any case is told as it is. Where the end only waits for
/// the disk, the store says later how it ended.
pub(crate) async fn finish(runner: Runner, active: Arc<ActiveJob>, end: End) {
    let from = active.record().status;
    let (body, commit) = end_commit(&active, end.told_for(&active));
    let outcome = match runner.services.journal.commit(commit).await {
        Ok(_) => outcome_of(&active, body),
        Err(error) => {
            if !error.is_said_by_writer() {
                let next_step = error.next_step();
                tracing::error!(%error, job = %active.id, next_step, "the end of a job could not be written");
            }
            if active.record().status == JobStatus::Failed && !is_too_large_to_keep(&error) {
                return tell_end(&runner, &active, outcome_of(&active, None));
            }
            let (failed, commit) = end_without_result(&active.record(), from, &error, &Timestamp::now());
            let failure = failed.failure.clone().map(|failure| of_job(failure, &failed));
            *active.record() = JobRecord { failure, ..failed };
            let second = runner.services.journal.commit(commit);
            if matches!(error, StoreError::Unwritten { .. }) {
                // The end waits for the disk, and its result may yet find no room: then this one, queued behind it, is
                // the end. Otherwise the store refuses it, as any second end.
                drop(second.now_or_never());
            } else if is_too_large_to_keep(&error)
                && let Err(error) = second.await
            {
                let next_step = error.next_step();
                tracing::error!(%error, next_step, "nor could its failure; the next host ends it");
            }
            outcome_of(&active, None)
        }
    };
    tell_end(&runner, &active, outcome);
}

fn tell_end(runner: &Runner, active: &Arc<ActiveJob>, outcome: JobOutcome) {
    runner.jobs.ended(active, Arc::new(outcome));
    active.let_close();
}

/// Rows and changes of a job's end; its result, when it has one.
fn end_commit(active: &ActiveJob, end: End) -> (Option<bytes::Bytes>, Commit) {
    let End { status, stopped, result } = end;
    let mut record = active.record();
    let from = record.status;
    record.status = status;
    record.completed_at = Some(Timestamp::now());
    let instance = InstanceId::from_text(record.instance_id.clone().unwrap_or_else(|| record.target.clone()));
    record.failure = match (&result, stopped) {
        (_, Some(StopReason::Deadline)) if active.stopped_for.get().is_some() => {
            active.stopped_for.get().cloned().map(|mut failure| {
                failure.report.stderr_tail = said_last(result.as_ref());
                failure
            })
        }
        (_, Some(StopReason::Deadline)) => {
            let seconds = active.timeout.given.as_secs_f64();
            let stderr_tail = said_last(result.as_ref());
            let capability = record.capability_name.clone();
            let error = CallError::DeadlinePassed { capability, seconds, stderr_tail };
            Some(error.to_failure(&instance))
        }
        (Some(Err(error)), _) if status == JobStatus::Failed => Some(error.to_failure(&instance)),
        _ => None,
    };
    record.failure = record.failure.take().map(|failure| of_job(failure, &record));
    let accounts = match &result {
        Some(Ok(reply)) => reply.accounts.clone(),
        Some(Err(error)) => error.accounts().to_vec(),
        None => Vec::new(),
    };
    let reply = result.and_then(Result::ok);
    let body = reply.filter(|_| status == JobStatus::Completed).map(|reply| reply.body);
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
    (body, commit.row(terminal_row(&record, from)))
}

/// What the tool said before it was stopped.
fn said_last(result: Option<&Result<Reply, CallError>>) -> Vec<String> {
    result.and_then(|result| result.as_ref().err()).map(Described::stderr_tail).unwrap_or_default()
}

/// A failure that names its job.
fn of_job(failure: Failure, record: &JobRecord) -> Failure {
    let report = failure.report.of_job(record.job_id.clone(), record.run_id.clone());
    Failure { report, ..failure }
}

fn terminal_row(record: &JobRecord, from: JobStatus) -> JournalRow {
    let mut terminal = rows::terminal(record, from);
    if let Some(failure) = &record.failure {
        let report = serde_json::to_value(&failure.report).unwrap_or_default();
        terminal.payload.insert("report".into(), report);
    }
    terminal
}

/// How a job ended, as its record says.
fn outcome_of(active: &ActiveJob, result: Option<bytes::Bytes>) -> JobOutcome {
    JobOutcome::of(&active.record(), result, active.worker_pid())
}
