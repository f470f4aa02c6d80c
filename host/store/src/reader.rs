//! Reads the journal: rows, jobs, results, compositions, workers. Never writes, needs no lock, works beside a host
//! and after one. Every method finishes its statement before it returns: an open cursor would keep the write-ahead
//! log from being cut back. All of them block for the time of a query.

use crate::archive::archives;
use crate::error::StoreError;
use crate::payload::Payloads;
use crate::query::{self, Columns};
use crate::records::{Body, CompositionBody, CompositionRecord, JobRecord, SeqJob, SeqRow, WorkerRecord};
use crate::schema::{JOURNAL_FILE, has_table, open_reader};
use cjm_wire::Timestamp;
use cjm_wire::event::{EventType, JobStatus};
use cjm_wire::ids::{CompositionId, JobId};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use std::path::Path;

/// Most rows of one page.
pub const PAGE_ROWS_MAX: usize = 10_000;
/// How much younger a row may be than rows before it.
const CLOCK_SLACK_MICROS: i64 = 86_400_000_000;

/// Which journal rows; empty selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalFilter {
    /// Of this job.
    pub job: Option<String>,
    /// Of this run.
    pub run: Option<String>,
    /// Of this incarnation of a worker.
    pub session: Option<String>,
    /// Of this composition.
    pub composition: Option<String>,
    /// Of these types, as text.
    pub event_types: Vec<String>,
    /// Of this node of a composition.
    pub node: Option<String>,
    /// Of this capability.
    pub capability: Option<String>,
    /// That tell of a job or composition becoming one of these.
    pub statuses: Vec<JobStatus>,
    /// Not older than this.
    pub since: Option<Timestamp>,
}

/// Which jobs; empty selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// In one of these.
    pub statuses: Vec<JobStatus>,
    /// Of this run.
    pub run: Option<String>,
    /// Of this composition.
    pub composition: Option<String>,
    /// Of this capability.
    pub capability: Option<String>,
    /// Of this node of a composition.
    pub node: Option<String>,
    /// Accepted at this instant or later.
    pub since: Option<Timestamp>,
}

/// A read-only view of one data directory's journal. Each call sees what was committed when it began.
#[derive(Debug)]
pub struct JournalReader {
    connection: Connection,
    /// Files into which old rows were moved.
    archives: Vec<Connection>,
    payloads: Payloads,
}

impl JournalReader {
    /// Opens the journal of `data_dir`.
    ///
    /// # Errors
    /// [`StoreError::NothingYet`] when there is none; others when it cannot be read.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let connection = open_journal_table(data_dir, JOURNAL_FILE)?;
        Ok(Self { connection, archives: Vec::new(), payloads: Payloads::of(data_dir) })
    }

    /// [`Self::open`], and reads what was moved into [`archives`](crate::archive::archives) as if it had stayed.
    ///
    /// # Errors
    /// As there.
    pub fn open_with_archives(data_dir: &Path) -> Result<Self, StoreError> {
        let mut reader = Self::open(data_dir)?;
        for path in archives(data_dir) {
            reader.archives.push(open_file(&path)?);
        }
        Ok(reader)
    }

    /// Opens one file of rows, such as an archive that was moved elsewhere.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_archive(path: &Path) -> Result<Self, StoreError> {
        let payloads = Payloads::of(path.parent().unwrap_or(path));
        Ok(Self { connection: open_file(path)?, archives: Vec::new(), payloads })
    }

    /// The journal itself.
    pub(crate) fn live(&self) -> &Connection {
        &self.connection
    }

    /// Every file that is read, the journal first.
    pub(crate) fn connections(&self) -> impl Iterator<Item = &Connection> {
        std::iter::once(&self.connection).chain(&self.archives)
    }

    /// Rows after `after_seq`, oldest first, at most `limit` and [`PAGE_ROWS_MAX`]. The last row's `seq` is where
    /// the next page begins.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn page(
        &self,
        filter: &JournalFilter,
        after_seq: i64,
        limit: usize,
    ) -> Result<Vec<SeqRow>, StoreError> {
        self.rows(filter, Some(after_seq), limit, "ASC")
    }

    /// The newest `n` rows (at most [`PAGE_ROWS_MAX`]), oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn last(&self, filter: &JournalFilter, n: usize) -> Result<Vec<SeqRow>, StoreError> {
        let mut rows = self.rows(filter, None, n, "DESC")?;
        rows.reverse();
        Ok(rows)
    }

    /// What the host saw of one job, and what its worker may account for; rows a worker forged in other hosts' days
    /// are left out. Oldest first, at most [`PAGE_ROWS_MAX`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn history(&self, job: &JobId) -> Result<Vec<SeqRow>, StoreError> {
        let filter = JournalFilter { job: Some(job.to_string()), ..JournalFilter::default() };
        let mut rows = self.page(&filter, 0, PAGE_ROWS_MAX)?;
        rows.retain(|found| {
            let row = &found.row;
            !row.worker_reported
                || EventType::parse(&row.event_type).is_some_and(EventType::is_worker_account)
        });
        Ok(rows)
    }

    /// The highest `seq`, 0 in an empty journal.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn last_seq(&self) -> Result<i64, StoreError> {
        last_seq(&self.connection)
    }

    /// One job.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn job(&self, job: &JobId) -> Result<Option<JobRecord>, StoreError> {
        let sql = format!("SELECT {} FROM jobs WHERE job_id = ?1", query::JOB_COLUMNS);
        Ok(self.ours(&sql, &[text(job.as_str())], query::job)?.pop().map(|found| found.job))
    }

    /// Jobs accepted after the one at `after_seq`, in that order, at most `limit` and [`PAGE_ROWS_MAX`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn jobs(&self, filter: &JobFilter, after_seq: i64, limit: usize) -> Result<Vec<SeqJob>, StoreError> {
        let (condition, mut values) = job_condition(filter, "seq > ?", after_seq);
        values.push(limit_value(limit));
        let sql = format!("SELECT {} FROM jobs WHERE {condition} ORDER BY seq LIMIT ?", query::JOB_COLUMNS);
        self.ours(&sql, &values, query::job)
    }

    /// The `n` jobs accepted last, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn last_jobs(&self, filter: &JobFilter, n: usize) -> Result<Vec<SeqJob>, StoreError> {
        let (condition, mut values) = job_condition(filter, "seq >= ?", 0);
        values.push(limit_value(n));
        let sql =
            format!("SELECT {} FROM jobs WHERE {condition} ORDER BY seq DESC LIMIT ?", query::JOB_COLUMNS);
        let mut jobs = self.ours(&sql, &values, query::job)?;
        jobs.reverse();
        Ok(jobs)
    }

    /// What a job was called with; `None` for an unknown job, or once it is past its retention.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn arguments(&self, job: &JobId) -> Result<Option<Body>, StoreError> {
        let sql = "SELECT bytes, payload_hash, body FROM arguments WHERE job_id = ?1";
        Ok(self.ours(sql, &[text(job.as_str())], query::body)?.pop())
    }

    /// What a job returned; `None` when it has not completed, or once it is past its retention.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn result(&self, job: &JobId) -> Result<Option<Body>, StoreError> {
        let sql = "SELECT bytes, payload_hash, body FROM results WHERE job_id = ?1";
        Ok(self.ours(sql, &[text(job.as_str())], query::body)?.pop())
    }

    /// The content of a body, read from its file where it has one, and checked.
    ///
    /// # Errors
    /// When its file is missing or damaged.
    pub fn load(&self, body: &Body) -> Result<Vec<u8>, StoreError> {
        self.payloads.load(body)
    }

    /// One composition.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn composition(&self, id: &CompositionId) -> Result<Option<CompositionRecord>, StoreError> {
        let sql =
            format!("SELECT {} FROM compositions WHERE composition_id = ?1", query::COMPOSITION_COLUMNS);
        Ok(self.ours(&sql, &[text(id.as_str())], query::composition)?.pop().map(|(_, found)| found))
    }

    /// Compositions in one of `statuses` (all when empty) after `after_seq`, with their places.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn compositions(
        &self,
        statuses: &[JobStatus],
        after_seq: i64,
        limit: usize,
    ) -> Result<Vec<(i64, CompositionRecord)>, StoreError> {
        let values = [Sql::Integer(after_seq), limit_value(limit)];
        let condition = statuses_condition(statuses);
        let sql = format!(
            "SELECT {} FROM compositions WHERE seq > ? {condition} ORDER BY seq LIMIT ?",
            query::COMPOSITION_COLUMNS
        );
        self.ours(&sql, &values, query::composition)
    }

    /// One body of a composition.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn composition_body(
        &self,
        id: &CompositionId,
        kind: CompositionBody,
    ) -> Result<Option<Body>, StoreError> {
        let sql = "SELECT bytes, payload_hash, body FROM composition_bodies WHERE composition_id = ?1 AND kind = ?2";
        Ok(self.ours(sql, &[text(id.as_str()), text(kind.as_str())], query::body)?.pop())
    }

    /// Workers that are not known to be gone, at most [`PAGE_ROWS_MAX`]. Those of a dead host are leftovers, or
    /// gone unseen.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn living_workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        let sql = "SELECT worker_session_id, host_session_id, instance_id, capability_name, pid, spawned_at, \
                   ended_at FROM workers WHERE ended_at IS NULL ORDER BY worker_session_id LIMIT ?";
        self.ours(sql, &[limit_value(PAGE_ROWS_MAX)], query::worker)
    }

    fn rows(
        &self,
        filter: &JournalFilter,
        after_seq: Option<i64>,
        limit: usize,
        order: &str,
    ) -> Result<Vec<SeqRow>, StoreError> {
        let mut found = Vec::new();
        for connection in self.connections() {
            found.extend(rows_of(connection, filter, after_seq, limit, order)?);
        }
        if !self.archives.is_empty() {
            // A row may stand in two files where a move was cut off.
            found.sort_by_key(|row| row.seq);
            found.dedup_by_key(|row| row.seq);
            if order == "DESC" {
                found.reverse();
            }
            found.truncate(limit.min(PAGE_ROWS_MAX));
        }
        Ok(found)
    }

    /// A query of our own tables, which a file of the ancestor does not have.
    fn ours<T>(
        &self,
        sql: &str,
        values: &[Sql],
        read: fn(&Columns<'_, '_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        match collect(&self.connection, sql, values, read) {
            Err(_) if !has_table(&self.connection, "jobs")? => Ok(Vec::new()),
            other => other,
        }
    }
}

fn open_journal_table(data_dir: &Path, file: &str) -> Result<Connection, StoreError> {
    let connection = open_reader(data_dir, file)?;
    if !has_table(&connection, "journal")? {
        return Err(StoreError::NothingYet { path: data_dir.join(file) });
    }
    Ok(connection)
}

fn open_file(path: &Path) -> Result<Connection, StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    open_journal_table(path.parent().unwrap_or(path), &name)
}

/// The highest place that was ever given, also to rows that were archived since; 0 in a new journal.
pub(crate) fn last_seq(connection: &Connection) -> Result<i64, StoreError> {
    let sql = "SELECT max(coalesce((SELECT max(seq) FROM journal), 0), \
               coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'journal'), 0))";
    connection.query_row(sql, [], |row| row.get(0)).map_err(|error| failed(&error))
}

/// Rows of one file.
fn rows_of(
    connection: &Connection,
    filter: &JournalFilter,
    after_seq: Option<i64>,
    limit: usize,
    order: &str,
) -> Result<Vec<SeqRow>, StoreError> {
    let floor = seq_floor(connection, "journal", filter.since.as_ref())?;
    let mut values = vec![Sql::Integer(after_seq.unwrap_or(0).max(floor))];
    let mut condition = String::from("seq > ?");
    for (column, value) in [
        ("job_id", &filter.job),
        ("run_id", &filter.run),
        ("worker_session_id", &filter.session),
        ("composition_id", &filter.composition),
        ("+node_id", &filter.node),
        ("+capability_name", &filter.capability),
    ] {
        if let Some(value) = value {
            condition.push_str(&format!(" AND {column} = ?"));
            values.push(text(value));
        }
    }
    if !filter.event_types.is_empty() {
        // The plus keeps SQLite from an index in the order of time, which would have to be sorted by seq.
        condition.push_str(&format!(" AND +event_type IN ({})", marks(filter.event_types.len())));
        values.extend(filter.event_types.iter().map(|kind| text(kind)));
    }
    if let Some(since) = &filter.since {
        condition.push_str(" AND +ts >= ?");
        values.push(text(since.as_str()));
    }
    if !filter.statuses.is_empty() {
        // What other writers left may be no JSON to SQLite.
        let marks = marks(filter.statuses.len());
        condition.push_str(&format!(
            " AND CASE WHEN json_valid(payload) THEN \
                 coalesce(payload ->> 'to', payload ->> 'status') IN ({marks}) END"
        ));
        values.extend(filter.statuses.iter().map(|status| text(status.as_str())));
    }
    values.push(limit_value(limit));
    let sql =
        format!("SELECT {} FROM journal WHERE {condition} ORDER BY seq {order} LIMIT ?", query::ROW_COLUMNS);
    collect(connection, &sql, &values, query::row)
}

/// A place before which nothing is as young as `since`, so that years need not be looked through. Places are in the order
/// of commits, which is that of time but for rows that waited and clocks that were set; a day is left for both.
pub(crate) fn seq_floor(
    connection: &Connection,
    table: &str,
    since: Option<&Timestamp>,
) -> Result<i64, StoreError> {
    let Some(micros) = since.and_then(Timestamp::as_micros) else { return Ok(0) };
    let before = Timestamp::from_micros(micros.saturating_sub(CLOCK_SLACK_MICROS).max(0));
    let ends = format!("SELECT coalesce(min(seq), 1), coalesce(max(seq), 0) FROM {table}");
    let (mut low, mut high): (i64, i64) = connection
        .query_row(&ends, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(|error| failed(&error))?;
    let at = format!("SELECT ts FROM {table} WHERE seq >= ?1 ORDER BY seq LIMIT 1");
    // All before `low` are older, as far as was looked at; what is at `high` or after it is not.
    while low < high {
        let middle = low + (high - low) / 2;
        let ts: String = connection
            .prepare_cached(&at)
            .and_then(|mut select| select.query_row([middle], |row| row.get(0)))
            .map_err(|error| failed(&error))?;
        if ts.as_str() < before.as_str() {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low - 1)
}

/// Runs one query to its end.
pub(crate) fn collect<T>(
    connection: &Connection,
    sql: &str,
    values: &[Sql],
    read: fn(&Columns<'_, '_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(|error| failed(&error))?;
    let mut rows = statement.query(params_from_iter(values)).map_err(|error| failed(&error))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(|error| failed(&error))? {
        found.push(read(&Columns(row))?);
    }
    Ok(found)
}

pub(crate) fn limit_value(limit: usize) -> Sql {
    Sql::Integer(i64::try_from(limit.min(PAGE_ROWS_MAX)).unwrap_or(i64::MAX))
}

pub(crate) fn text(value: &str) -> Sql {
    Sql::Text(value.to_owned())
}

pub(crate) fn marks(count: usize) -> String {
    vec!["?"; count].join(",")
}

fn job_condition(filter: &JobFilter, first: &str, after_seq: i64) -> (String, Vec<Sql>) {
    let mut values = vec![Sql::Integer(after_seq)];
    let mut condition = first.to_owned();
    for (column, value) in [
        ("run_id", &filter.run),
        ("composition_id", &filter.composition),
        ("capability_name", &filter.capability),
        ("node_id", &filter.node),
    ] {
        if let Some(value) = value {
            condition.push_str(&format!(" AND {column} = ?"));
            values.push(text(value));
        }
    }
    if let Some(since) = &filter.since {
        condition.push_str(" AND submitted_at >= ?");
        values.push(text(since.as_str()));
    }
    condition.push(' ');
    condition.push_str(&statuses_condition(&filter.statuses));
    (condition, values)
}

/// The words are written into the statement, so that the index over unfinished rows is used.
fn statuses_condition(statuses: &[JobStatus]) -> String {
    if statuses.is_empty() {
        return String::new();
    }
    let words: Vec<String> = statuses.iter().map(|status| format!("'{status}'")).collect();
    format!("AND status IN ({})", words.join(","))
}

fn failed(error: &rusqlite::Error) -> StoreError {
    StoreError::database("read the journal", error)
}
