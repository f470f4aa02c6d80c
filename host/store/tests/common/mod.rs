//! Builders shared by the store's tests.
#![allow(dead_code, reason = "each test binary uses some of them")]

pub(crate) mod faulty;

use cjm_store::*;
use cjm_wire::Timestamp;
use cjm_wire::event::{EventType, JobStatus, JournalRow};
use cjm_wire::ids::{CompositionId, JobId};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

pub(crate) fn fresh() -> (TempDir, Arc<SqliteJournal>) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let journal = open(dir.path());
    (dir, journal)
}

pub(crate) fn open(dir: &Path) -> Arc<SqliteJournal> {
    // Instants in tests are long past, and nothing must be forgotten meanwhile.
    let options = JournalOptions { jobs_days: None, ..JournalOptions::default() };
    Arc::new(SqliteJournal::open(dir, options).expect("opens"))
}

pub(crate) fn job(capability: &str) -> JobRecord {
    JobRecord::new(JobId::new(), capability, Timestamp::from_micros(1_000_001))
}

pub(crate) fn composition(name: &str) -> CompositionRecord {
    CompositionRecord {
        composition_id: CompositionId::new(),
        name: name.to_owned(),
        run_id: None,
        actor: Some("test".into()),
        status: JobStatus::Pending,
        submitted_at: Timestamp::from_micros(1_000_000),
        completed_at: None,
        failure: None,
    }
}

pub(crate) fn started(job: &JobRecord, attempt: u32) -> JobRecord {
    let mut job = job.clone();
    job.status = JobStatus::Running;
    job.attempt = attempt;
    job.instance_id = Some(job.capability_name.clone());
    job.started_at = Some(Timestamp::from_micros(2_000_000));
    job
}

pub(crate) fn ended(job: &JobRecord, status: JobStatus) -> JobRecord {
    let mut job = job.clone();
    job.status = status;
    job.completed_at = Some(Timestamp::from_micros(3_000_000));
    job
}

pub(crate) fn accept(job: &JobRecord, arguments: &Value) -> Commit {
    Commit::admitting()
        .write(Write::InsertJob(Box::new(job.clone()), Body::of_json(arguments)))
        .row(rows::pending(job))
}

pub(crate) fn begin(job: &JobRecord, from: JobStatus) -> Commit {
    let start = JobStart {
        job_id: job.job_id.clone(),
        attempt: job.attempt,
        instance_id: job.instance_id.clone().expect("started"),
        worker_session_id: job.worker_session_id.clone(),
        started_at: job.started_at.clone().expect("started"),
    };
    Commit::telling().write(Write::StartJob(start)).row(rows::running(job, from))
}

pub(crate) fn finish(job: &JobRecord, result: Option<&Value>) -> Commit {
    let end = JobEnd {
        job_id: job.job_id.clone(),
        status: job.status,
        completed_at: job.completed_at.clone().unwrap_or_else(|| job.submitted_at.clone()),
        failure: job.failure.clone(),
        result: result.map(Body::of_json),
    };
    Commit::telling().write(Write::EndJob(Box::new(end))).row(rows::terminal(job, JobStatus::Running))
}

/// A job of `asr` from its acceptance to `status`.
pub(crate) async fn run_through(journal: &SqliteJournal, status: JobStatus) -> JobRecord {
    let job = job("asr");
    journal.commit(accept(&job, &json!({}))).await.expect("accepted");
    let running = started(&job, 1);
    journal.commit(begin(&running, JobStatus::Pending)).await.expect("begun");
    let done = ended(&running, status);
    journal.commit(finish(&done, None)).await.expect("ended");
    done
}

/// A small row about a job.
pub(crate) fn account(job: &str, part: i64) -> JournalRow {
    let mut row = JournalRow::new(EventType::TaskAccount, Map::from_iter([("part".to_owned(), json!(part))]));
    row.job_id = Some(job.to_owned());
    row
}

pub(crate) fn last_seq(dir: &Path) -> i64 {
    JournalReader::open(dir).and_then(|reader| reader.last_seq()).expect("reads")
}
