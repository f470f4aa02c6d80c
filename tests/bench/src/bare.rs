//! SQLite without a store around it: the floors of jobs and journal rows. One connection, prepared statements, the
//! store's schema, pragmas and transactions, and nothing else: no queue, no checks, no events.

use anyhow::{Context as _, Result};
use cjm_host::wire::event::JournalRow;
use cjm_host::wire::python_json::{Style, to_string};
use cjm_store::{JOURNAL_FILE, Journal as _, JournalOptions, SqliteJournal};
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, params, params_from_iter};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// How many a second.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub(crate) fn rate(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

fn open(file: &Path) -> Result<Connection> {
    let connection = Connection::open(file).with_context(|| file.display().to_string())?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", 4 * 1024 * 1024)?;
    Ok(connection)
}

const INSERT_ROW: &str = "INSERT INTO journal (event_id, ts, event_type, run_id, job_id, composition_id, node_id, \
    capability_instance_id, capability_name, config_hash, task_name, method, worker_session_id, actor, \
    worker_reported, payload) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16)";

/// Inserts journal rows.
pub(crate) struct Inserter(Connection);

impl Inserter {
    /// On a journal that has its tables.
    pub(crate) fn open(file: &Path) -> Result<Self> {
        Ok(Self(open(file)?))
    }

    /// Inserts rows, so many in each transaction. The payloads' text is made here, as the store makes it.
    pub(crate) fn insert(&mut self, rows: &[JournalRow], batch: usize) -> Result<()> {
        for batch in rows.chunks(batch) {
            let transaction = self.0.transaction()?;
            {
                let mut statement = transaction.prepare_cached(INSERT_ROW)?;
                for row in batch {
                    let payload = to_string(&Value::Object(row.payload.clone()), Style::Payload);
                    statement.execute(params![
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
                    ])?;
                }
            }
            transaction.commit()?;
        }
        Ok(())
    }
}

type Cells = Vec<Cell>;

/// One job as the host left it: its rows, in three commits.
struct JobRows {
    job: Cells,
    arguments: Cells,
    result: Cells,
    /// `pending`; `admission_decided` and `running`; the terminal one.
    rows: Vec<Cells>,
}

/// Jobs read from a journal, to be written again by a bare loop.
pub(crate) struct Replay(Vec<JobRows>);

const JOB_COLUMNS: &str = "job_id, composition_id, node_id, element_index, run_id, actor, capability_name, target, \
    action, task_name, method, priority, status, attempt, idempotent, submitted_at, started_at, completed_at, \
    worker_session_id, instance_id, control, failure";
/// Positions in [`JOB_COLUMNS`] of what a job is not yet when it is accepted.
const STATUS: usize = 12;
const ATTEMPT: usize = 13;
const STARTED_AT: usize = 16;
const COMPLETED_AT: usize = 17;
const SESSION: usize = 18;
const INSTANCE: usize = 19;

impl Replay {
    /// Reads the jobs that completed.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let connection = open(file)?;
        let select = format!("SELECT {JOB_COLUMNS} FROM jobs WHERE status = 'completed' ORDER BY seq");
        let jobs = cells(&connection, &select, &[])?;
        let read = |sql: &str, id: &Cell| cells(&connection, sql, std::slice::from_ref(id));
        let jobs = jobs.into_iter().map(|job| {
            let id = &job[0];
            Ok(JobRows {
                arguments: one(read("SELECT job_id, bytes, payload_hash, body FROM arguments WHERE job_id = ?1", id)?)?,
                result: one(read("SELECT job_id, bytes, payload_hash, body FROM results WHERE job_id = ?1", id)?)?,
                rows: read(
                    "SELECT event_id, ts, event_type, run_id, job_id, composition_id, node_id, \
                     capability_instance_id, capability_name, config_hash, task_name, method, worker_session_id, \
                     actor, worker_reported, payload FROM journal WHERE job_id = ?1 ORDER BY seq",
                    id,
                )?,
                job,
            })
        });
        Ok(Self(jobs.collect::<Result<_>>()?))
    }

    /// How many there are.
    pub(crate) fn jobs(&self) -> usize {
        self.0.len()
    }

    /// Jobs a second of a bare loop in a new directory: each job's three commits, so many in one transaction.
    pub(crate) fn run(&self, dir: &Path, commits_each: usize) -> Result<f64> {
        SqliteJournal::open(dir, JournalOptions::default())?.close();
        let connection = open(&dir.join(JOURNAL_FILE))?;
        let start = Instant::now();
        let mut open_commits = 0;
        // Jobs overlap: while one is accepted, an earlier one runs and a third ends.
        for job in &self.0 {
            for step in [accept, begin, end] {
                if open_commits == 0 {
                    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
                }
                step(&connection, job)?;
                open_commits += 1;
                if open_commits == commits_each {
                    connection.prepare_cached("COMMIT")?.execute([])?;
                    open_commits = 0;
                }
            }
        }
        if open_commits > 0 {
            connection.prepare_cached("COMMIT")?.execute([])?;
        }
        Ok(rate(self.jobs(), start.elapsed()))
    }
}

fn accept(connection: &Connection, job: &JobRows) -> Result<()> {
    let mut pending = job.job.clone();
    pending[STATUS] = Cell::Text("pending".to_owned());
    pending[ATTEMPT] = Cell::Integer(0);
    for later in [STARTED_AT, COMPLETED_AT, SESSION, INSTANCE] {
        pending[later] = Cell::Null;
    }
    let marks = "?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22";
    let insert = format!("INSERT INTO jobs ({JOB_COLUMNS}) VALUES ({marks})");
    connection.prepare_cached(&insert)?.execute(params_from_iter(&pending))?;
    put(
        connection,
        "INSERT INTO arguments (job_id, bytes, payload_hash, body) VALUES (?1,?2,?3,?4)",
        &job.arguments,
    )?;
    rows(connection, &job.rows[..1])
}

fn begin(connection: &Connection, job: &JobRows) -> Result<()> {
    let JobRows { job: cells, .. } = job;
    connection
        .prepare_cached(
            "UPDATE jobs SET status = 'running', attempt = ?2, instance_id = ?3, worker_session_id = ?4, \
             started_at = ?5 WHERE job_id = ?1",
        )?
        .execute(params![cells[0], cells[ATTEMPT], cells[INSTANCE], cells[SESSION], cells[STARTED_AT]])?;
    rows(connection, &job.rows[1..job.rows.len() - 1])
}

fn end(connection: &Connection, job: &JobRows) -> Result<()> {
    connection
        .prepare_cached("UPDATE jobs SET status = 'completed', completed_at = ?2 WHERE job_id = ?1")?
        .execute(params![job.job[0], job.job[COMPLETED_AT]])?;
    put(
        connection,
        "INSERT INTO results (job_id, bytes, payload_hash, body) VALUES (?1,?2,?3,?4)",
        &job.result,
    )?;
    rows(connection, &job.rows[job.rows.len() - 1..])
}

fn rows(connection: &Connection, rows: &[Cells]) -> Result<()> {
    rows.iter().try_for_each(|row| put(connection, INSERT_ROW, row))
}

fn put(connection: &Connection, sql: &str, cells: &Cells) -> Result<()> {
    connection.prepare_cached(sql)?.execute(params_from_iter(cells))?;
    Ok(())
}

fn cells(connection: &Connection, sql: &str, arguments: &[Cell]) -> Result<Vec<Cells>> {
    let mut statement = connection.prepare_cached(sql)?;
    let columns = statement.column_count();
    let found = statement.query_map(params_from_iter(arguments), |row| {
        (0..columns).map(|column| row.get(column)).collect::<rusqlite::Result<Cells>>()
    })?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

fn one(mut rows: Vec<Cells>) -> Result<Cells> {
    rows.pop().context("a job without arguments or result")
}
