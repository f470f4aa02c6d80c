//! Reads what workers logged and printed. Never writes, needs no lock, works beside a host and after one. Like the
//! journal's reader it finishes each statement before it returns, and blocks for the time of a query.

use crate::error::StoreError;
use crate::filters::seq_floor;
use crate::query;
use crate::reader::{collect, limit_value, marks, text};
use crate::records::{SeqChunk, SeqRecord};
use crate::schema::{DIAGNOSTICS_FILE, has_table, open_reader};
use cjm_wire::Timestamp;
use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use std::path::Path;

/// Levels by weight, lightest first. Anything else a tool invented is shown at every level.
pub const LEVELS: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];

/// Which records or chunks; empty selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiagnosticsFilter {
    /// Said in this job's call. Output carries no job: for chunks this is not looked at.
    pub job: Option<String>,
    /// Said by this incarnation of a worker.
    pub session: Option<String>,
    /// One of [`LEVELS`], in any case: this one and above. Not looked at for chunks.
    pub level_min: Option<String>,
    /// Said by one of these incarnations; see [`JournalReader::sessions_of`](crate::reader::JournalReader::sessions_of).
    pub sessions: Option<Vec<String>>,
    /// Not older than this.
    pub since: Option<Timestamp>,
}

/// A read-only view of one data directory's diagnostics.
#[derive(Debug)]
pub struct DiagnosticsReader {
    connection: Connection,
}

impl DiagnosticsReader {
    /// Opens the diagnostics of `data_dir`.
    ///
    /// # Errors
    /// [`StoreError::NothingYet`] when there are none; others when they cannot be read.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let connection = open_reader(data_dir, DIAGNOSTICS_FILE)?;
        if !has_table(&connection, "records")? || !has_table(&connection, "stream_chunks")? {
            return Err(StoreError::NothingYet { path: data_dir.join(DIAGNOSTICS_FILE) });
        }
        Ok(Self { connection })
    }

    /// Records after `after_seq`, oldest first, at most `limit` and [`PAGE_ROWS_MAX`](crate::reader::PAGE_ROWS_MAX).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn records(
        &self,
        filter: &DiagnosticsFilter,
        after_seq: i64,
        limit: usize,
    ) -> Result<Vec<SeqRecord>, StoreError> {
        self.query_records(filter, after_seq, limit, "ASC")
    }

    /// The newest `n` records, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn last_records(&self, filter: &DiagnosticsFilter, n: usize) -> Result<Vec<SeqRecord>, StoreError> {
        let mut found = self.query_records(filter, 0, n, "DESC")?;
        found.reverse();
        Ok(found)
    }

    /// Chunks after `after_seq`, oldest first, at most `limit` and [`PAGE_ROWS_MAX`](crate::reader::PAGE_ROWS_MAX).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn chunks(
        &self,
        filter: &DiagnosticsFilter,
        after_seq: i64,
        limit: usize,
    ) -> Result<Vec<SeqChunk>, StoreError> {
        self.query_chunks(filter, after_seq, limit, "ASC")
    }

    /// The newest `n` chunks, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn last_chunks(&self, filter: &DiagnosticsFilter, n: usize) -> Result<Vec<SeqChunk>, StoreError> {
        let mut found = self.query_chunks(filter, 0, n, "DESC")?;
        found.reverse();
        Ok(found)
    }

    fn query_records(
        &self,
        filter: &DiagnosticsFilter,
        after_seq: i64,
        limit: usize,
        order: &str,
    ) -> Result<Vec<SeqRecord>, StoreError> {
        let (mut condition, mut values) = self.place_and_time("records", filter, after_seq)?;
        for (column, value) in [("job_id", &filter.job), ("worker_session_id", &filter.session)] {
            if let Some(value) = value {
                condition.push_str(&format!(" AND {column} = ?"));
                values.push(text(value));
            }
        }
        let lighter = filter.level_min.as_deref().map_or(&[][..], lighter_than);
        if !lighter.is_empty() {
            condition.push_str(&format!(" AND upper(level) NOT IN ({})", marks(lighter.len())));
            values.extend(lighter.iter().map(|level| text(level)));
        }
        values.push(limit_value(limit));
        let sql = format!(
            "SELECT seq, ts, worker_session_id, job_id, level, logger_name, message, exc_text FROM records \
             WHERE {condition} ORDER BY seq {order} LIMIT ?"
        );
        collect(&self.connection, &sql, &values, query::record)
    }

    fn query_chunks(
        &self,
        filter: &DiagnosticsFilter,
        after_seq: i64,
        limit: usize,
        order: &str,
    ) -> Result<Vec<SeqChunk>, StoreError> {
        let (mut condition, mut values) = self.place_and_time("stream_chunks", filter, after_seq)?;
        if let Some(session) = &filter.session {
            condition.push_str(" AND worker_session_id = ?");
            values.push(text(session));
        }
        values.push(limit_value(limit));
        let sql = format!(
            "SELECT seq, ts, worker_session_id, stream, content FROM stream_chunks WHERE {condition} \
             ORDER BY seq {order} LIMIT ?"
        );
        collect(&self.connection, &sql, &values, query::chunk)
    }
}

impl DiagnosticsReader {
    /// What filters of records and of chunks have in common.
    fn place_and_time(
        &self,
        table: &str,
        filter: &DiagnosticsFilter,
        after_seq: i64,
    ) -> Result<(String, Vec<Sql>), StoreError> {
        let floor = seq_floor(&self.connection, table, filter.since.as_ref())?;
        let mut condition = String::from("seq > ?");
        let mut values = vec![Sql::Integer(after_seq.max(floor))];
        if let Some(since) = &filter.since {
            condition.push_str(" AND +ts >= ?");
            values.push(text(since.as_str()));
        }
        if let Some(sessions) = &filter.sessions {
            // One value, however many: a statement has a maximum of them.
            condition.push_str(" AND worker_session_id IN (SELECT value FROM json_each(?))");
            values.push(text(&serde_json::Value::from(sessions.as_slice()).to_string()));
        }
        Ok((condition, values))
    }
}

/// The levels below `level`; none for one that is not known.
fn lighter_than(level: &str) -> &'static [&'static str] {
    let position = LEVELS.iter().position(|known| known.eq_ignore_ascii_case(level)).unwrap_or(0);
    &LEVELS[..position]
}
