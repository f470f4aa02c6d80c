//! Reads the journal: rows, jobs, results, compositions, workers. Never writes, needs no lock, works beside a host
//! and after one. Every method finishes its statement before it returns: an open cursor would keep the write-ahead
//! log from being cut back. All of them block for the time of a query.

use crate::archives::{Archives, open_file, open_journal_table};
use crate::error::StoreError;
use crate::filters::{JobFilter, JournalFilter, job_condition, rows_of, statuses_condition};
use crate::payload::Payloads;
use crate::query::{self, Columns};
use crate::records::{Body, CompositionBody, CompositionRecord, JobRecord, SeqJob, SeqRow, WorkerRecord};
use crate::schema::{JOURNAL_FILE, JOURNAL_TABLES, has_table, is_held};
use cjm_wire::event::{EventType, JobStatus};
use cjm_wire::ids::{CompositionId, JobId, WorkerSessionId};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use std::cell::RefCell;
use std::path::Path;

/// Most rows of one page.
pub const PAGE_ROWS_MAX: usize = 10_000;

/// A read-only view of one data directory's journal. Each call sees what was committed when it began.
#[derive(Debug)]
pub struct JournalReader {
    connection: Connection,
    /// Files into which old rows were moved, if they are to be read.
    archives: Option<Box<RefCell<Archives>>>,
    /// The journal itself is gone; its archives are read all the same.
    lost: Option<StoreError>,
    payloads: Payloads,
}

impl JournalReader {
    /// Opens the journal of `data_dir`.
    ///
    /// # Errors
    /// [`StoreError::NothingYet`] when there is none; others when it cannot be read.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let connection = open_journal_table(data_dir, JOURNAL_FILE)?;
        let payloads = Payloads::of(data_dir);
        Ok(Self { connection, archives: None, lost: None, payloads })
    }

    /// [`Self::open`], and reads what was moved into archives as if it had stayed. An archive that cannot be read keeps
    /// nobody from the rest: [`Self::unreadable`] names it; and the journal, where it is missing and archives are there.
    ///
    /// # Errors
    /// As there; [`StoreError::NothingYet`] where there are no archives either.
    pub fn open_with_archives(data_dir: &Path) -> Result<Self, StoreError> {
        let mut archives = Archives::of(data_dir);
        let mut reader = match Self::open(data_dir) {
            Err(StoreError::NothingYet { path }) if archives.holds_something() => {
                let connection = empty_journal()?;
                let lost = Some(StoreError::JournalLost { path, another: false });
                Self { connection, archives: None, lost, payloads: Payloads::of(data_dir) }
            }
            opened => opened?,
        };
        if reader.lost.is_none() && archives.are_of_another_than(&reader.connection)? {
            reader.lost = Some(StoreError::JournalLost { path: data_dir.join(JOURNAL_FILE), another: true });
        }
        Ok(Self { archives: Some(Box::new(RefCell::new(archives))), ..reader })
    }

    /// Why the journal of `data_dir` is not the one that its archives are of, where it is not; whoever goes on with it writes
    /// beside rows that it does not have. Blocks.
    #[must_use]
    pub fn lost(data_dir: &Path) -> Option<StoreError> {
        // Few have archives, and the others are to wait for nothing; nor for who holds the journal, as its host is about to.
        let is_to_look = Archives::of(data_dir).holds_something() && !is_held(&data_dir.join(JOURNAL_FILE));
        is_to_look.then(|| Self::open_with_archives(data_dir).ok()?.lost).flatten()
    }

    /// Why archives, or the journal beside them, could not be read so far; their rows are missing in every answer.
    #[must_use]
    pub fn unreadable(&self) -> Vec<StoreError> {
        let of_archives = self.archives.as_ref().map(|archives| archives.borrow().unreadable());
        self.lost.iter().cloned().chain(of_archives.unwrap_or_default()).collect()
    }

    /// Opens one file of rows, such as an archive that was moved elsewhere.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_archive(path: &Path) -> Result<Self, StoreError> {
        let payloads = Payloads::of(path.parent().unwrap_or(path));
        Ok(Self { connection: open_file(path)?, archives: None, lost: None, payloads })
    }

    /// The journal itself.
    pub(crate) fn live(&self) -> &Connection {
        &self.connection
    }

    /// Asks every file that is read, the journal first: what leaves it meanwhile stands in an archive that has its name
    /// by then.
    pub(crate) fn ask_each(
        &self,
        mut ask: impl FnMut(&Connection) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        ask(&self.connection)?;
        if let Some(archives) = &self.archives {
            archives.borrow_mut().ask_each(ask);
        }
        Ok(())
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
        query::last_seq(&self.connection)
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

    /// How many jobs there are of that kind.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn count_jobs(&self, filter: &JobFilter) -> Result<usize, StoreError> {
        let (condition, values) = job_condition(filter, "seq >= ?", 0);
        let found =
            self.ours(&format!("SELECT COUNT(*) FROM jobs WHERE {condition}"), &values, query::count)?;
        Ok(found.first().copied().unwrap_or(0))
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

    /// The `n` jobs of a composition that failed first.
    pub(crate) fn failed_first(&self, of: &CompositionId, n: usize) -> Result<Vec<SeqJob>, StoreError> {
        let sql = format!(
            "SELECT {} FROM jobs WHERE composition_id = ? AND +status = 'failed' ORDER BY completed_at, seq LIMIT ?",
            query::JOB_COLUMNS
        );
        self.ours(&sql, &[text(of.as_str()), limit_value(n)], query::job)
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

    /// One worker, living or dead, as long as it is remembered.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn worker(&self, session: &WorkerSessionId) -> Result<Option<WorkerRecord>, StoreError> {
        let sql = "SELECT worker_session_id, host_session_id, instance_id, capability_name, pid, spawned_at, \
                   ended_at FROM workers WHERE worker_session_id = ?1";
        Ok(self.ours(sql, &[text(session.as_str())], query::worker)?.pop())
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

    /// Those of [`Self::living_workers`] that load their tool still: the journal tells of their start and not that they
    /// are ready. The row of a start is archived before that, so its lack says nothing.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn starting_workers(&self) -> Result<Vec<WorkerSessionId>, StoreError> {
        let row = |kind: EventType| {
            format!(
                "EXISTS (SELECT 1 FROM journal WHERE journal.worker_session_id = workers.worker_session_id AND \
                 +event_type = '{}')",
                kind.as_str()
            )
        };
        let (spawned, ready) = (row(EventType::WorkerSpawned), row(EventType::WorkerReady));
        let sql = format!(
            "SELECT worker_session_id FROM workers WHERE ended_at IS NULL AND {spawned} AND NOT {ready} \
             ORDER BY worker_session_id LIMIT ?"
        );
        self.ours(&sql, &[limit_value(PAGE_ROWS_MAX)], query::session)
    }

    fn rows(
        &self,
        filter: &JournalFilter,
        after_seq: Option<i64>,
        limit: usize,
        order: &str,
    ) -> Result<Vec<SeqRow>, StoreError> {
        let mut found = Vec::new();
        self.ask_each(|file| {
            found.extend(rows_of(file, filter, after_seq, limit, order)?);
            Ok(())
        })?;
        if self.archives.is_some() {
            // A row may stand in two files where a move was cut off.
            found.sort_by_key(|row| row.seq);
            found.dedup_by(|a, b| a.seq == b.seq && a.row.event_id == b.row.event_id);
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

/// What is asked in place of a journal that is gone.
fn empty_journal() -> Result<Connection, StoreError> {
    let failed = |error| StoreError::database("stand in for a journal that is gone", &error);
    let connection = Connection::open_in_memory().map_err(failed)?;
    connection.execute_batch(JOURNAL_TABLES).map_err(failed)?;
    Ok(connection)
}

/// Runs one query to its end.
pub(crate) fn collect<T>(
    connection: &Connection,
    sql: &str,
    values: &[Sql],
    read: fn(&Columns<'_, '_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(|error| failed(connection, &error))?;
    let mut rows = statement.query(params_from_iter(values)).map_err(|error| failed(connection, &error))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(|error| failed(connection, &error))? {
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

pub(crate) fn failed(connection: &Connection, error: &rusqlite::Error) -> StoreError {
    StoreError::database_of("read", connection, error)
}
