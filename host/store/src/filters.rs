//! What is asked of the journal: which rows and which jobs, and the statements that select them.

use crate::error::StoreError;
use crate::query;
use crate::reader::{collect, failed, limit_value, marks, text};
use crate::records::SeqRow;
use cjm_wire::Timestamp;
use cjm_wire::event::JobStatus;
use rusqlite::Connection;
use rusqlite::types::Value as Sql;

/// How much younger a row may be than rows before it.
const CLOCK_SLACK_MICROS: i64 = 86_400_000_000;

/// How the verdict on a worker begins that the host ended itself.
pub const ENDED_BY_HOST: &str = "ended by the host: ";

/// Of an element. What a tool reported of its job has no element of its own, nor have rows of earlier versions: the job's
/// transitions tell it. What other writers left may be no JSON to SQLite.
const OF_ELEMENT: &str = " AND (CASE WHEN json_valid(payload) THEN payload ->> 'element' = ? END OR EXISTS (SELECT 1 \
                          FROM journal AS told WHERE told.job_id = journal.job_id AND told.event_type = \
                          'state_transition' AND CASE WHEN json_valid(told.payload) THEN told.payload ->> 'element' = ? \
                          END))";

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
    /// Of rows of type `worker_died`, only those of workers that the host ended itself, or only the others.
    pub ended_by_host: Option<bool>,
    /// Of rows of type `direct_call_failed`, only those of calls that were cancelled, or only the others.
    pub direct_call_cancelled: Option<bool>,
    /// Of this node of a composition.
    pub node: Option<String>,
    /// Of this element of a node.
    pub element: Option<u64>,
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

/// Rows of one file.
pub(crate) fn rows_of(
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
    if let Some(by_host) = filter.ended_by_host {
        condition.push_str(
            " AND (+event_type <> 'worker_died' OR CASE WHEN json_valid(payload) THEN \
             coalesce(substr(payload ->> 'verdict', 1, length(?)) = ?, 0) ELSE 0 END = ?)",
        );
        values.extend([text(ENDED_BY_HOST), text(ENDED_BY_HOST), Sql::Integer(i64::from(by_host))]);
    }
    if let Some(cancelled) = filter.direct_call_cancelled {
        condition.push_str(
            " AND (+event_type <> 'direct_call_failed' OR CASE WHEN json_valid(payload) THEN \
             coalesce(payload ->> 'status' = 'cancelled', 0) ELSE 0 END = ?)",
        );
        values.push(Sql::Integer(i64::from(cancelled)));
    }
    if let Some(since) = &filter.since {
        condition.push_str(" AND +ts >= ?");
        values.push(text(since.as_str()));
    }
    if !filter.statuses.is_empty() {
        // How a cancel ended is not how its job did. What other writers left may be no JSON to SQLite.
        let marks = marks(filter.statuses.len());
        condition.push_str(&format!(
            " AND +event_type <> 'cancel_phase_changed' AND CASE WHEN json_valid(payload) THEN \
                 coalesce(payload ->> 'to', payload ->> 'status') IN ({marks}) END"
        ));
        values.extend(filter.statuses.iter().map(|status| text(status.as_str())));
    }
    if let Some(element) = filter.element {
        condition.push_str(OF_ELEMENT);
        let element = Sql::Integer(i64::try_from(element).unwrap_or(i64::MAX));
        values.extend([element.clone(), element]);
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
        .map_err(|error| failed(connection, &error))?;
    let at = format!("SELECT ts FROM {table} WHERE seq >= ?1 ORDER BY seq LIMIT 1");
    // All before `low` are older, as far as was looked at; what is at `high` or after it is not.
    while low < high {
        let middle = low + (high - low) / 2;
        let ts: String = connection
            .prepare_cached(&at)
            .and_then(|mut select| select.query_row([middle], |row| row.get(0)))
            .map_err(|error| failed(connection, &error))?;
        if ts.as_str() < before.as_str() {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low - 1)
}

pub(crate) fn job_condition(filter: &JobFilter, first: &str, after_seq: i64) -> (String, Vec<Sql>) {
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
pub(crate) fn statuses_condition(statuses: &[JobStatus]) -> String {
    if statuses.is_empty() {
        return String::new();
    }
    let words: Vec<String> = statuses.iter().map(|status| format!("'{status}'")).collect();
    format!("AND status IN ({})", words.join(","))
}
