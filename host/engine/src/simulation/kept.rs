//! What the simulated store holds, and the rules it holds each change against, as the real one has them.

use crate::compositions::submitting::BATCH_BYTES_MAX;
use cjm_store::rows::died_id;
use cjm_store::{Body, Commit, CompositionRecord, JobRecord, Receipt, StoreError, Write};
use cjm_wire::error::Failure;
use cjm_wire::event::{EventType, JobStatus, JournalRow};
use cjm_wire::{CompositionId, JobId, WorkerSessionId};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// Results longer than this never fit.
pub(super) const RESULT_BYTES_MAX: usize = 1_000;

/// What a request holds beside the arguments, at most.
const ENVELOPE_BYTES_MAX: usize = 1_000;

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
    /// What is kept of each, with its output.
    pub(super) runs: BTreeMap<CompositionId, (CompositionRecord, Option<Vec<u8>>)>,
    /// Why those fail that have not ended.
    pub(super) failing: BTreeMap<CompositionId, Failure>,
    /// Accounts of tools.
    pub(super) accounts: Vec<JournalRow>,
    /// Of calls that are no jobs and brought no result: their rows.
    pub(super) direct_calls_failed: Vec<JournalRow>,
    /// What the last rows of runs say.
    pub(super) finished: BTreeMap<CompositionId, Map<String, Value>>,
    /// Workers that have a row which says that they were ready.
    pub(super) ready: BTreeSet<WorkerSessionId>,
    /// How far the cancel of a job has come, as its rows say.
    cancels: BTreeMap<String, String>,
    /// What a job waits for, as its rows say.
    blocks: BTreeMap<String, String>,
    /// In which phase of its life a worker died, for its rows.
    pub(super) phases: BTreeMap<WorkerSessionId, String>,
    /// What the last row of a job says that it is.
    stands: BTreeMap<String, String>,
    row_ids: BTreeSet<String>,
    rows: i64,
    /// What must never be.
    pub(super) broken: Vec<String>,
}

impl Kept {
    /// Applies a commit, or nothing of it.
    pub(super) fn apply(&mut self, commit: &Commit) -> Result<Receipt, StoreError> {
        self.check_size(commit);
        for write in &commit.writes {
            self.check(write)?;
        }
        if let Some(row) = commit.rows.iter().find(|row| self.row_ids.contains(row.event_id.as_str())) {
            self.broken.push(format!("a second row {}", row.event_id));
            return Err(refused("a second row of one id"));
        }
        commit.writes.iter().for_each(|write| self.write(write));
        let of_calls = |row: &&JournalRow| row.event_type == EventType::DirectCallFailed.as_str();
        self.direct_calls_failed.extend(commit.rows.iter().filter(of_calls).cloned());
        for row in &commit.rows {
            self.rows += 1;
            self.row_ids.insert(row.event_id.to_string());
            self.note(row);
        }
        Ok(Receipt { first_seq: self.rows - commit.rows.len() as i64 + 1, last_seq: self.rows })
    }

    /// What is committed together is bounded, but for a single job that is larger by itself.
    fn check_size(&mut self, commit: &Commit) {
        let sizes = commit.writes.iter().filter_map(|write| match write {
            Write::InsertJob(_, Body::Inline(body)) => Some(body.len().saturating_sub(ENVELOPE_BYTES_MAX)),
            _ => None,
        });
        let sizes: Vec<usize> = sizes.collect();
        if sizes.len() > 1 && sizes.iter().sum::<usize>() > BATCH_BYTES_MAX {
            self.broken.push(format!("jobs of {sizes:?} bytes are committed together"));
        }
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
            Write::CompositionFails(id, _) => {
                if self.failing.contains_key(id) {
                    self.broken.push(format!("why {id} fails is written twice"));
                }
                self.check_runs(id)
            }
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
                self.runs.insert(composition.composition_id.clone(), ((**composition).clone(), None));
            }
            Write::CompositionFails(id, failure) => {
                self.failing.insert(id.clone(), (**failure).clone());
            }
            Write::EndComposition(end) => {
                self.compositions.insert(end.composition_id.clone(), Some(end.status));
                let (record, output) = self.runs.get_mut(&end.composition_id).expect("checked");
                record.status = end.status;
                record.failure.clone_from(&end.failure);
                if let Some(Body::Inline(bytes)) = &end.output {
                    *output = Some(bytes.clone());
                }
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
            (Some(EventType::WorkerReady), Some(session)) => self.ready.insert(session),
            _ => true,
        };
        if !first {
            self.broken.push(format!("{:?} has a second row {}", row.worker_session_id, row.event_type));
        }
        match EventType::parse(&row.event_type) {
            Some(EventType::TaskAccount) => {
                self.accounts.push(row.clone());
                let session = row.worker_session_id.as_deref().map(WorkerSessionId::from_text);
                let is_known = session.is_some_and(|session| self.spawned.contains(&session));
                if !is_known || row.capability_instance_id.is_none() || !row.worker_reported {
                    self.broken.push(format!("whose account is it? {row:?}"));
                }
            }
            Some(EventType::RunFinished) => {
                let id = row.composition_id.as_deref().map(CompositionId::from_text);
                self.finished.extend(id.map(|id| (id, row.payload.clone())));
            }
            Some(EventType::CancelPhaseChanged) => self.follow_words(row, |kept| &mut kept.cancels, false),
            // A job that ran and waits again begins anew.
            Some(EventType::BlockReasonChanged) => self.follow_words(row, |kept| &mut kept.blocks, true),
            Some(EventType::WorkerDied) => {
                let id = row.worker_session_id.as_deref().map(died_id);
                if id.as_ref() != Some(&row.event_id) {
                    self.broken.push(format!("another host can tell this end a second time: {row:?}"));
                }
                let (session, phase) = (row.worker_session_id.as_deref(), row.payload.get("phase"));
                if let (Some(session), Some(phase)) = (session, phase.and_then(|phase| phase.as_str())) {
                    self.phases.insert(WorkerSessionId::from_text(session), phase.to_owned());
                }
            }
            Some(EventType::StateTransition) => self.follow(row),
            _ => {}
        }
        if let Some(job) = row.job_id.as_ref().filter(|_| row.event_id.as_str().ends_with(":terminal")) {
            *self.terminal_rows.entry(job.clone()).or_default() += 1;
        }
    }

    /// The same of what is said of it beside that.
    fn follow_words(
        &mut self,
        row: &JournalRow,
        words: impl Fn(&mut Self) -> &mut BTreeMap<String, String>,
        may_begin_anew: bool,
    ) {
        let text = |key: &str| row.payload.get(key).and_then(Value::as_str).map(str::to_owned);
        let (Some(job), Some(to)) = (row.job_id.clone(), text("to")) else { return };
        let (stands, from) = (words(self).insert(job.clone(), to), text("from"));
        if stands != from && !(may_begin_anew && from.is_none()) {
            self.broken.push(format!("{job}: {stands:?}, and then {} {:?}", row.event_type, row.payload));
        }
    }

    /// Each row of a job begins where the one before ended.
    fn follow(&mut self, row: &JournalRow) {
        let text = |key: &str| row.payload.get(key).and_then(|text| text.as_str()).map(str::to_owned);
        let (Some(job), Some(to)) = (row.job_id.clone(), text("to")) else { return };
        let (stands, from) = (self.stands.insert(job.clone(), to), text("from"));
        if stands != from {
            self.broken.push(format!("{job} is {stands:?}, and its next row says {:?}", row.payload));
        }
    }

    /// The process of a worker, dead or not.
    pub(super) fn pid_of(&self, worker: &WorkerSessionId) -> Option<u32> {
        self.pids.get(worker).copied()
    }

    /// Where a job stands, for a worker that is asked to run it.
    pub(super) fn runs_on(&self, job: &JobId) -> Option<&WorkerSessionId> {
        let job = self.jobs.get(job).filter(|job| job.status == JobStatus::Running)?;
        job.worker_session_id.as_ref()
    }
}

pub(super) fn refused(what: &str) -> StoreError {
    StoreError::Refused { what: what.to_owned() }
}
