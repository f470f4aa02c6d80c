//! What a host does with what dead hosts left in the store: their unfinished jobs and compositions end `failed`,
//! transient, retriable, "host restarted". Nothing is run again here.

use crate::commit::{Commit, Write};
use crate::error::StoreError;
use crate::filters::JobFilter;
use crate::journal::Journal;
use crate::reader::JournalReader;
use crate::records::{
    CompositionBody, CompositionEnd, CompositionRecord, HostRecord, JobEnd, JobRecord, SeqJob, WorkerRecord,
};
use crate::rows::{self, ToldFailure};
use cjm_wire::Timestamp;
use cjm_wire::composition::{Composition, FAILURES_LISTED_MAX, FailurePolicy, RunOutcome};
use cjm_wire::describe::{ErrorReport, exit};
use cjm_wire::error::{ErrorCategory, Failure, JobError};
use cjm_wire::event::JobStatus;

/// Message of what ended because its host did.
pub const HOST_RESTARTED: &str = "host restarted";
/// Jobs ended in one commit.
const JOBS_PER_COMMIT: usize = 64;
/// Most spawns without a record of their worker, newest first, that a new host looks for ends of.
const SPAWNS_LOOKED_AT: usize = 1000;
/// States that only a living host can leave.
const UNFINISHED: [JobStatus; 2] = [JobStatus::Pending, JobStatus::Running];

/// What dead hosts had left.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    /// Ended now.
    pub jobs: Vec<JobRecord>,
    /// Ended now.
    pub compositions: Vec<CompositionRecord>,
    /// Not known to be gone. The caller looks for their processes, ends them, and calls [`end_dead_workers`].
    pub workers: Vec<WorkerRecord>,
}

/// Writes down that `host` began and every other host is dead, and ends what those left unfinished, at `now`. The
/// caller holds the directory's lock and has accepted nothing yet. Blocks. May be repeated after a failure.
///
/// # Errors
/// When the store cannot be read or written; what was ended before stays ended.
pub fn begin_host(
    journal: &dyn Journal,
    reader: &JournalReader,
    host: &HostRecord,
    now: &Timestamp,
) -> Result<Recovered, StoreError> {
    let ended = Write::HostsEnded { except: host.host_session_id.clone(), ended_at: now.clone() };
    journal.commit_blocking(Commit::telling().write(Write::HostStarted(host.clone())).write(ended))?;
    let mut recovered = Recovered { workers: reader.living_workers()?, ..Recovered::default() };
    recovered.workers.retain(|worker| worker.host_session_id != host.host_session_id);

    let filter = JobFilter { statuses: UNFINISHED.to_vec(), ..JobFilter::default() };
    let mut after_seq = 0;
    loop {
        let page = reader.jobs(&filter, after_seq, JOBS_PER_COMMIT)?;
        let Some(last) = page.last() else { break };
        after_seq = last.seq;
        let jobs = page.into_iter().map(|found| found.job).collect();
        recovered.jobs.extend(end_jobs(journal, jobs, now)?);
    }
    let mut after_seq = 0;
    loop {
        let page = reader.compositions(&UNFINISHED, after_seq, JOBS_PER_COMMIT)?;
        let Some((last, _)) = page.last() else { break };
        after_seq = *last;
        for (_, composition) in page {
            let document = document_of(reader, &composition)?;
            let cut_off = cut_off(&recovered.jobs, &composition);
            let reason = cut_off_with_its_host(cut_off, document.as_ref(), now);
            let known = known_of(reader, &composition, document.as_ref())?;
            recovered.compositions.push(end_composition(journal, composition, reason, &known, now)?);
        }
    }
    Ok(recovered)
}

/// How a job fails when the host that ran it is gone.
#[must_use]
pub fn host_restarted(capability_name: &str, instance_id: Option<&str>, now: &Timestamp) -> Failure {
    let mut error = JobError::new(ErrorCategory::Transient, HOST_RESTARTED);
    error.capability_name = (!capability_name.is_empty()).then(|| capability_name.to_owned());
    error.capability_instance_id = instance_id.map(str::to_owned);
    error.occurred_at = Some(now.clone());
    let report = ErrorReport {
        code: "host.restarted".into(),
        message: HOST_RESTARTED.into(),
        causes: vec!["the host ended before this did".into()],
        next_step: "run it again; look first at what the tool may have done already".into(),
        stderr_tail: Vec::new(),
        exit_code: exit::WORKER_DIED,
        details: Box::default(),
    }
    .with_job_error(&error);
    Failure { error, report }
}

/// How a job fails that had not begun when its host ended.
#[must_use]
pub fn never_begun(capability_name: &str, now: &Timestamp) -> Failure {
    let mut failure = host_restarted(capability_name, None, now);
    failure.report.causes = vec!["the host ended before this began".into()];
    failure.report.next_step = "submit it again: it had not begun, so nothing of it was done".into();
    failure
}

/// Ends in the store what dead hosts' workers left open, once the caller knows that their processes are gone: the record
/// of each worker, and a `worker_died` row for each `worker_spawned` that has none. Returns how many rows were written.
/// Blocks. May be repeated.
///
/// # Errors
/// When the store cannot be read or written.
pub fn end_dead_workers(
    journal: &dyn Journal,
    reader: &JournalReader,
    host_session_id: &str,
    now: &Timestamp,
) -> Result<usize, StoreError> {
    let mut written = 0;
    loop {
        let mut dead = reader.living_workers()?;
        dead.retain(|worker| worker.host_session_id != host_session_id);
        if dead.is_empty() {
            break;
        }
        for worker in dead {
            if let Some(spawned) = reader.spawned_without_its_end(worker.worker_session_id.as_str())? {
                written += tell_death(journal, &spawned, now)?;
            }
            let ended = Write::WorkerEnded(worker.worker_session_id, now.clone());
            journal.commit_blocking(Commit::telling().write(ended))?;
        }
    }
    // Those of which there is no record.
    for spawned in reader.spawned_without_end(SPAWNS_LOOKED_AT)? {
        written += tell_death(journal, &spawned, now)?;
    }
    Ok(written)
}

/// How many rows were written.
fn tell_death(journal: &dyn Journal, spawned: &crate::SeqRow, now: &Timestamp) -> Result<usize, StoreError> {
    match journal.commit_blocking(Commit::telling().row(rows::died_with_its_host(&spawned.row, now))) {
        // Another row has the id: it was written before, and archived or forgotten since.
        Err(StoreError::Refused { .. }) => Ok(0),
        other => other.map(|_| 1),
    }
}

fn end_jobs(
    journal: &dyn Journal,
    jobs: Vec<JobRecord>,
    now: &Timestamp,
) -> Result<Vec<JobRecord>, StoreError> {
    let ended: Vec<(JobStatus, JobRecord)> = jobs
        .into_iter()
        .map(|mut job| {
            let from = job.status;
            job.status = JobStatus::Failed;
            job.completed_at = Some(now.clone());
            // Counted before a request can reach the tool.
            job.failure = Some(if job.attempt == 0 {
                never_begun(&job.capability_name, now)
            } else {
                host_restarted(&job.capability_name, job.instance_id.as_deref(), now)
            });
            (from, job)
        })
        .collect();
    let together = ended.iter().fold(Commit::telling(), |commit, (from, job)| {
        commit.write(end_of(job)).row(rows::terminal(job, *from))
    });
    match journal.commit_blocking(together) {
        // One of them has a terminal row already, which only somebody else's writing can explain. The others must
        // not suffer for it.
        // Or all together do not fit on a full disk, and each alone may.
        Err(StoreError::Refused { .. } | StoreError::NoRoom { .. }) => {
            for (from, job) in &ended {
                let with_row = Commit::telling().write(end_of(job)).row(rows::terminal(job, *from));
                match journal.commit_blocking(with_row) {
                    Err(StoreError::Refused { what }) => {
                        tracing::warn!(job = %job.job_id, what, "ended without a terminal row of its own");
                        journal.commit_blocking(Commit::telling().write(end_of(job)))?;
                    }
                    other => {
                        other?;
                    }
                }
            }
        }
        other => {
            other?;
        }
    }
    Ok(ended.into_iter().map(|(_, job)| job).collect())
}

fn end_of(job: &JobRecord) -> Write {
    Write::EndJob(Box::new(JobEnd {
        job_id: job.job_id.clone(),
        status: job.status,
        completed_at: job.completed_at.clone().unwrap_or_else(|| job.submitted_at.clone()),
        failure: job.failure.clone(),
        result: None,
    }))
}

/// Of a composition's jobs, the first that a tool was at when its host ended; else the first that waited.
fn cut_off<'a>(jobs: &'a [JobRecord], composition: &CompositionRecord) -> Option<&'a JobRecord> {
    let of_it = || jobs.iter().filter(|job| job.composition_id.as_ref() == Some(&composition.composition_id));
    of_it().find(|job| job.attempt > 0).or_else(|| of_it().next())
}

/// The document that it was submitted with; None where that cannot be read any more.
fn document_of(
    reader: &JournalReader,
    composition: &CompositionRecord,
) -> Result<Option<Composition>, StoreError> {
    let body = reader.composition_body(&composition.composition_id, CompositionBody::Document)?;
    // A file that is lost must not keep a host from its start.
    let text = body.and_then(|body| String::from_utf8(reader.load(&body).ok()?).ok());
    Ok(text.and_then(|text| Composition::read(&text).ok()))
}

/// The element of a job as a run tells it: that of a plain call has none.
fn element_of(job: &JobRecord, document: Option<&Composition>) -> Option<usize> {
    let node = job.node_id.as_ref().and_then(|node| document?.nodes.get(node));
    job.element_index.filter(|_| node.is_none_or(|node| node.map.is_some())).map(|element| element as usize)
}

/// How a composition fails whose host is gone: with the place of what was cut off.
fn cut_off_with_its_host(
    job: Option<&JobRecord>,
    document: Option<&Composition>,
    now: &Timestamp,
) -> Failure {
    let mut failure = host_restarted("", None, now);
    if let Some((job, node)) = job.and_then(|job| Some((job, job.node_id.as_ref()?))) {
        failure.report = failure.report.at_node(node, element_of(job, document));
        failure.report.details.job_id = Some(job.job_id.clone());
    }
    failure
}

/// What the store knows of a run that its host did not end.
struct Known {
    outcome: RunOutcome,
    failures: Vec<ToldFailure>,
    failures_left_out: usize,
}

/// What came of a run whose jobs have all ended, as its own host would have told it.
fn known_of(
    reader: &JournalReader,
    composition: &CompositionRecord,
    document: Option<&Composition>,
) -> Result<Known, StoreError> {
    let of_it = |status| JobFilter {
        statuses: vec![status],
        composition: Some(composition.composition_id.to_string()),
        ..JobFilter::default()
    };
    let goes_on = document.is_some_and(|document| document.failure == FailurePolicy::BestEffort);
    let completed = reader.count_jobs(&of_it(JobStatus::Completed))?;
    let is_partial = goes_on && completed > 0;
    let listed = reader.failed_first(&composition.composition_id, FAILURES_LISTED_MAX)?;
    let failed = reader.count_jobs(&of_it(JobStatus::Failed))?;
    let mut failures: Vec<ToldFailure> = listed
        .into_iter()
        .map(|SeqJob { job, .. }| ToldFailure {
            element: element_of(&job, document),
            message: job.failure.map_or_else(|| "failed".to_owned(), |failure| failure.report.message),
            node: job.node_id,
        })
        .collect();
    let mut failures_left_out = failed.saturating_sub(failures.len());
    // What callers were told of a node that no job carries.
    if let Some(Failure { error, report }) = &composition.failure
        && let (Some(node), element) = (&report.details.node, report.details.element)
        && !failures.iter().any(|known| known.node.as_ref() == Some(node) && known.element == element)
    {
        let message = error.message.clone();
        failures.insert(0, ToldFailure { node: Some(node.clone()), element, message });
        failures_left_out += failures.len().saturating_sub(FAILURES_LISTED_MAX);
        failures.truncate(FAILURES_LISTED_MAX);
    }
    if failures.is_empty() {
        let told = composition.failure.as_ref().map(|failure| failure.error.message.clone());
        let message = told.unwrap_or_else(|| between_calls(completed));
        failures.push(ToldFailure { node: None, element: None, message });
    }
    let outcome = if is_partial { RunOutcome::Partial } else { RunOutcome::Failed };
    Ok(Known { outcome, failures, failures_left_out })
}

/// What is told of a run of which no call had failed or was cut off: no job says why it has no result.
fn between_calls(completed: usize) -> String {
    let when = match completed {
        0 => "before the first call of this run".to_owned(),
        _ => format!("when {completed} of this run's calls had completed, and before the next"),
    };
    format!("{HOST_RESTARTED}: the host ended {when}")
}

fn end_composition(
    journal: &dyn Journal,
    mut composition: CompositionRecord,
    reason: Failure,
    known: &Known,
    now: &Timestamp,
) -> Result<CompositionRecord, StoreError> {
    let end = CompositionEnd {
        composition_id: composition.composition_id.clone(),
        status: known.outcome.job_status(),
        completed_at: now.clone(),
        // What its callers were told already stays the reason.
        failure: composition.failure.clone().or(Some(reason)),
        output: None,
    };
    let mut row = rows::composition_finished(&composition, &end);
    rows::tell_outcome(&mut row, known.outcome, &known.failures, known.failures_left_out);
    composition.status = end.status;
    composition.completed_at = Some(now.clone());
    composition.failure.clone_from(&end.failure);
    let commit = |row| Commit::telling().write(Write::EndComposition(Box::new(end.clone()))).row(row);
    match journal.commit_blocking(commit(row.clone())) {
        Err(StoreError::TooLarge { .. }) => {
            rows::shorten_end(&mut row);
            journal.commit_blocking(commit(row))?;
        }
        other => {
            other?;
        }
    }
    Ok(composition)
}
