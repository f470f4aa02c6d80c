//! Applies one commit inside the writer's transaction, whole or not at all: the SQL of every change. Tells a commit's
//! own fault from trouble of the whole transaction; what follows from either is the writer's.

use crate::commit::{Prepared, Receipt, Write};
use crate::error::StoreError;
use crate::records::{
    Body, CompositionBody, CompositionEnd, CompositionRecord, JobEnd, JobRecord, JobStart, WorkerRecord,
};
use crate::rows::failure_text;
use cjm_wire::Timestamp;
use cjm_wire::error::Failure;
use cjm_wire::event::JournalRow;
use cjm_wire::ids::{CompositionId, JobId, WorkerSessionId};
use rusqlite::{Connection, ErrorCode, params};
use serde_json::Value;

/// Why a commit was not applied.
#[derive(Debug)]
pub(crate) enum NotApplied {
    /// Its own fault: the others of the batch go on.
    Own(StoreError),
    /// The whole transaction is in doubt.
    Whole(rusqlite::Error),
}

impl From<rusqlite::Error> for NotApplied {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
                Self::Own(StoreError::Refused { what: error.to_string() })
            }
            None => Self::Own(StoreError::database("write a row", &error)),
            Some(_) => Self::Whole(error),
        }
    }
}

/// Applies one commit inside the open transaction, whole or not at all. Its savepoint has SQLite copy every page that
/// the commit touches, which costs more than the commit.
pub(crate) fn apply_alone(connection: &Connection, commit: &Prepared) -> Result<Receipt, NotApplied> {
    connection.prepare_cached("SAVEPOINT one_commit")?.execute([])?;
    match apply(connection, commit) {
        Ok(receipt) => {
            connection.prepare_cached("RELEASE one_commit")?.execute([])?;
            Ok(receipt)
        }
        Err(NotApplied::Own(error)) if !connection.is_autocommit() => {
            connection.prepare_cached("ROLLBACK TO one_commit")?.execute([])?;
            connection.prepare_cached("RELEASE one_commit")?.execute([])?;
            Err(NotApplied::Own(error))
        }
        Err(other) => Err(other),
    }
}

/// Applies one commit inside the open transaction. When it is not applied, part of it may be: the transaction is then
/// good for nothing but being rolled back.
pub(crate) fn apply(connection: &Connection, commit: &Prepared) -> Result<Receipt, NotApplied> {
    for write in &commit.writes {
        apply_write(connection, write)?;
    }
    let mut receipt = Receipt::default();
    for (row, payload) in &commit.rows {
        let seq = insert_row(connection, row, payload)?;
        if receipt.first_seq == 0 {
            receipt.first_seq = seq;
        }
        receipt.last_seq = seq;
    }
    Ok(receipt)
}

fn insert_row(connection: &Connection, row: &JournalRow, payload: &str) -> Result<i64, NotApplied> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO journal (event_id, ts, event_type, run_id, job_id, composition_id, node_id, \
         capability_instance_id, capability_name, config_hash, task_name, method, worker_session_id, actor, \
         worker_reported, payload) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16)",
    )?;
    let done = statement.insert(params![
        row.event_id.as_str(),
        row.ts.as_str(),
        row.event_type,
        row.run_id,
        row.job_id,
        row.composition_id,
        row.node_id,
        row.capability_instance_id,
        row.capability_name,
        row.config_hash,
        row.task_name,
        row.method,
        row.worker_session_id,
        row.actor,
        row.worker_reported,
        payload,
    ]);
    match done {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Err(refused(format!("the journal already has a row with the id `{}`", row.event_id)))
        }
        other => Ok(other?),
    }
}

fn apply_write(connection: &Connection, write: &Write) -> Result<(), NotApplied> {
    match write {
        Write::InsertJob(job, arguments) => {
            insert_job(connection, job)?;
            put_body(
                connection,
                "INSERT INTO arguments (job_id, bytes, payload_hash, body) VALUES (?1,?2,?3,?4)",
                job.job_id.as_str(),
                arguments,
            )
        }
        Write::StartJob(start) => start_job(connection, start),
        Write::JobWaitsAgain { job_id, attempt } => wait_again(connection, job_id, *attempt),
        Write::EndJob(end) => end_job(connection, end),
        Write::InsertComposition(composition, document, inputs) => {
            insert_composition(connection, composition)?;
            let id = &composition.composition_id;
            put_composition_body(connection, id, CompositionBody::Document, document)?;
            put_composition_body(connection, id, CompositionBody::Inputs, inputs)
        }
        Write::StartComposition(id) => {
            let changed = connection
                .prepare_cached("UPDATE compositions SET status = 'running' WHERE composition_id = ?1 AND status = 'pending'")?
                .execute([id.as_str()])?;
            expect_one(changed, || format!("composition `{id}` is not pending"))
        }
        Write::CompositionFails(id, why) => fail_composition(connection, id, why),
        Write::EndComposition(end) => end_composition(connection, end),
        Write::HostStarted(host) => {
            connection
                .prepare_cached("INSERT INTO hosts (host_session_id, pid, started_at) VALUES (?1,?2,?3)")?
                .execute(params![host.host_session_id, host.pid, host.started_at.as_str()])?;
            Ok(())
        }
        Write::HostsEnded { except, ended_at } => {
            connection
                .prepare_cached(
                    "UPDATE hosts SET ended_at = ?2 WHERE ended_at IS NULL AND host_session_id <> ?1",
                )?
                .execute([except, ended_at.as_str()])?;
            Ok(())
        }
        Write::WorkerSpawned(worker) => insert_worker(connection, worker),
        Write::WorkerEnded(session, ended_at) => {
            // Said twice is no harm: a restart may find what a verdict already told.
            connection
                .prepare_cached(
                    "UPDATE workers SET ended_at = ?2 WHERE worker_session_id = ?1 AND ended_at IS NULL",
                )?
                .execute([session.as_str(), ended_at.as_str()])?;
            Ok(())
        }
    }
}

fn insert_worker(connection: &Connection, worker: &WorkerRecord) -> Result<(), NotApplied> {
    connection
        .prepare_cached(
            "INSERT INTO workers (worker_session_id, host_session_id, instance_id, capability_name, pid, spawned_at) \
             VALUES (?1,?2,?3,?4,?5,?6)",
        )?
        .execute(params![
            worker.worker_session_id.as_str(),
            worker.host_session_id,
            worker.instance_id,
            worker.capability_name,
            worker.pid,
            worker.spawned_at.as_str()
        ])?;
    Ok(())
}

fn insert_job(connection: &Connection, job: &JobRecord) -> Result<(), NotApplied> {
    connection
        .prepare_cached(
            "INSERT INTO jobs (job_id, composition_id, node_id, element_index, run_id, actor, capability_name, \
             target, action, task_name, method, priority, status, attempt, idempotent, submitted_at, started_at, \
             completed_at, worker_session_id, instance_id, control, failure) VALUES \
             (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22)",
        )?
        .execute(params![
            job.job_id.as_str(),
            job.composition_id.as_ref().map(CompositionId::as_str),
            job.node_id,
            job.element_index,
            job.run_id.as_ref().map(AsRef::<str>::as_ref),
            job.actor,
            job.capability_name,
            job.target,
            job.action,
            job.task_name,
            job.method,
            job.priority,
            job.status.as_str(),
            job.attempt,
            job.idempotent,
            job.submitted_at.as_str(),
            job.started_at.as_ref().map(Timestamp::as_str),
            job.completed_at.as_ref().map(Timestamp::as_str),
            job.worker_session_id.as_ref().map(WorkerSessionId::as_str),
            job.instance_id,
            Value::Object(job.control.clone()).to_string(),
            failure_text(job.failure.as_ref()),
        ])?;
    Ok(())
}

fn start_job(connection: &Connection, start: &JobStart) -> Result<(), NotApplied> {
    let changed = connection
        .prepare_cached(
            "UPDATE jobs SET status = 'running', attempt = ?2, instance_id = ?3, worker_session_id = ?4, \
             started_at = ?5 WHERE job_id = ?1 AND status IN ('pending', 'running') AND attempt < ?2",
        )?
        .execute(params![
            start.job_id.as_str(),
            start.attempt,
            start.instance_id,
            start.worker_session_id.as_ref().map(WorkerSessionId::as_str),
            start.started_at.as_str()
        ])?;
    expect_one(changed, || {
        let JobStart { job_id, attempt, .. } = start;
        format!("job `{job_id}` cannot begin attempt {attempt}: unknown, ended, or past that attempt")
    })
}

fn wait_again(connection: &Connection, job_id: &JobId, attempt: u32) -> Result<(), NotApplied> {
    let changed = connection
        .prepare_cached(
            "UPDATE jobs SET status = 'pending', started_at = NULL WHERE job_id = ?1 AND status = 'running' \
             AND attempt = ?2",
        )?
        .execute(params![job_id.as_str(), attempt])?;
    expect_one(changed, || format!("job `{job_id}` is not in its attempt {attempt}"))
}

fn end_job(connection: &Connection, end: &JobEnd) -> Result<(), NotApplied> {
    let JobEnd { job_id, status, .. } = end;
    if !status.is_terminal() {
        return Err(refused(format!("job `{job_id}` cannot end as {status}")));
    }
    let changed = connection
        .prepare_cached(
            "UPDATE jobs SET status = ?2, completed_at = ?3, failure = ?4 \
             WHERE job_id = ?1 AND status IN ('pending', 'running')",
        )?
        .execute(params![
            job_id.as_str(),
            status.as_str(),
            end.completed_at.as_str(),
            failure_text(end.failure.as_ref())
        ])?;
    expect_one(changed, || format!("job `{job_id}` cannot end as {status}: unknown, or already ended"))?;
    let Some(result) = &end.result else { return Ok(()) };
    put_body(
        connection,
        "INSERT INTO results (job_id, bytes, payload_hash, body) VALUES (?1,?2,?3,?4)",
        job_id.as_str(),
        result,
    )
}

fn insert_composition(connection: &Connection, composition: &CompositionRecord) -> Result<(), NotApplied> {
    connection
        .prepare_cached(
            "INSERT INTO compositions (composition_id, name, run_id, actor, status, submitted_at, completed_at, \
             failure) VALUES (?1,?2,?3,?4,?5,?6,?7,?8)",
        )?
        .execute(params![
            composition.composition_id.as_str(),
            composition.name,
            composition.run_id.as_ref().map(AsRef::<str>::as_ref),
            composition.actor,
            composition.status.as_str(),
            composition.submitted_at.as_str(),
            composition.completed_at.as_ref().map(Timestamp::as_str),
            failure_text(composition.failure.as_ref()),
        ])?;
    Ok(())
}

fn fail_composition(connection: &Connection, id: &CompositionId, why: &Failure) -> Result<(), NotApplied> {
    let changed = connection
        .prepare_cached(
            "UPDATE compositions SET failure = ?2 WHERE composition_id = ?1 AND status IN ('pending', 'running')",
        )?
        .execute(params![id.as_str(), failure_text(Some(why))])?;
    expect_one(changed, || format!("composition `{id}` does not run"))
}

fn end_composition(connection: &Connection, end: &CompositionEnd) -> Result<(), NotApplied> {
    let CompositionEnd { composition_id: id, status, .. } = end;
    if !status.is_terminal() {
        return Err(refused(format!("composition `{id}` cannot end as {status}")));
    }
    let changed = connection
        .prepare_cached(
            "UPDATE compositions SET status = ?2, completed_at = ?3, failure = ?4 \
             WHERE composition_id = ?1 AND status IN ('pending', 'running')",
        )?
        .execute(params![
            id.as_str(),
            status.as_str(),
            end.completed_at.as_str(),
            failure_text(end.failure.as_ref())
        ])?;
    expect_one(changed, || format!("composition `{id}` cannot end as {status}: unknown, or already ended"))?;
    match &end.output {
        Some(output) => put_composition_body(connection, id, CompositionBody::Output, output),
        None => Ok(()),
    }
}

fn put_body(connection: &Connection, sql: &str, id: &str, body: &Body) -> Result<(), NotApplied> {
    let (hash, inline) = body_columns(body);
    connection.prepare_cached(sql)?.execute(params![id, stored_length(body), hash, inline])?;
    Ok(())
}

fn put_composition_body(
    connection: &Connection,
    id: &CompositionId,
    kind: CompositionBody,
    body: &Body,
) -> Result<(), NotApplied> {
    let (hash, inline) = body_columns(body);
    connection
        .prepare_cached(
            "INSERT INTO composition_bodies (composition_id, kind, bytes, payload_hash, body) VALUES (?1,?2,?3,?4,?5)",
        )?
        .execute(params![id.as_str(), kind.as_str(), stored_length(body), hash, inline])?;
    Ok(())
}

fn body_columns(body: &Body) -> (Option<&str>, Option<&[u8]>) {
    match body {
        Body::Inline(bytes) => (None, Some(bytes)),
        Body::File { hash, .. } => (Some(hash), None),
    }
}

fn refused(what: String) -> NotApplied {
    NotApplied::Own(StoreError::Refused { what })
}

fn expect_one(changed: usize, what: impl FnOnce() -> String) -> Result<(), NotApplied> {
    if changed == 1 { Ok(()) } else { Err(refused(what())) }
}

/// SQLite's integers are signed; no body comes near their end.
fn stored_length(body: &Body) -> i64 {
    i64::try_from(body.bytes()).unwrap_or(i64::MAX)
}
