//! From columns to records. Tolerant where the ancestor writes more loosely than we do (NaN in payloads, event types
//! of other versions), strict with what only we write.

use crate::error::StoreError;
use crate::records::{
    Body, CompositionRecord, DiagnosticRecord, JobRecord, SeqChunk, SeqJob, SeqRecord, SeqRow, StreamChunk,
    WorkerRecord,
};
use cjm_wire::Timestamp;
use cjm_wire::event::{JobStatus, JournalRow};
use cjm_wire::ids::{CompositionId, EventId, JobId, RunId, WorkerSessionId};
use rusqlite::types::FromSql;
use rusqlite::{Connection, Row};
use serde_json::{Map, Value};

pub(crate) const ROW_COLUMNS: &str = "seq, event_id, ts, event_type, run_id, job_id, composition_id, node_id, \
     capability_instance_id, capability_name, config_hash, task_name, method, worker_session_id, actor, \
     worker_reported, payload";

pub(crate) const JOB_COLUMNS: &str = "seq, job_id, composition_id, node_id, element_index, run_id, actor, \
     capability_name, target, action, task_name, method, priority, status, attempt, idempotent, submitted_at, \
     started_at, completed_at, worker_session_id, instance_id, control, failure";

pub(crate) const COMPOSITION_COLUMNS: &str =
    "seq, composition_id, name, run_id, actor, status, submitted_at, completed_at, failure";

/// One row of an answer.
pub(crate) struct Columns<'row, 'statement>(pub(crate) &'row Row<'statement>);

impl Columns<'_, '_> {
    fn get<T: FromSql>(&self, index: usize) -> Result<T, StoreError> {
        self.0.get(index).map_err(|error| StoreError::database("read a column", &error))
    }

    fn id<T>(&self, index: usize, make: fn(String) -> T) -> Result<Option<T>, StoreError> {
        Ok(self.get::<Option<String>>(index)?.map(make))
    }

    fn status(&self, index: usize) -> Result<JobStatus, StoreError> {
        let word: String = self.get(index)?;
        JobStatus::parse(&word).ok_or_else(|| StoreError::unreadable(format!("no such status: `{word}`")))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, index: usize) -> Result<Option<T>, StoreError> {
        let Some(text) = self.get::<Option<String>>(index)? else { return Ok(None) };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| StoreError::unreadable(format!("a stored object does not read back: {error}")))
    }
}

/// The first column, a count.
pub(crate) fn count(columns: &Columns<'_, '_>) -> Result<usize, StoreError> {
    Ok(usize::try_from(columns.get::<i64>(0)?).unwrap_or(0))
}

/// The first column.
pub(crate) fn text(columns: &Columns<'_, '_>) -> Result<String, StoreError> {
    columns.get(0)
}

pub(crate) fn row(columns: &Columns<'_, '_>) -> Result<SeqRow, StoreError> {
    let row = JournalRow {
        event_id: EventId::from_text(columns.get::<String>(1)?),
        ts: Timestamp::from_text(columns.get::<String>(2)?),
        event_type: columns.get(3)?,
        run_id: columns.get(4)?,
        job_id: columns.get(5)?,
        composition_id: columns.get(6)?,
        node_id: columns.get(7)?,
        capability_instance_id: columns.get(8)?,
        capability_name: columns.get(9)?,
        config_hash: columns.get(10)?,
        task_name: columns.get(11)?,
        method: columns.get(12)?,
        worker_session_id: columns.get(13)?,
        actor: columns.get(14)?,
        worker_reported: columns.get(15)?,
        payload: payload(&columns.get::<String>(16)?),
    };
    Ok(SeqRow { seq: columns.get(0)?, row })
}

pub(crate) fn job(columns: &Columns<'_, '_>) -> Result<SeqJob, StoreError> {
    let job = JobRecord {
        job_id: JobId::from_text(columns.get::<String>(1)?),
        composition_id: columns.id(2, CompositionId::from_text)?,
        node_id: columns.get(3)?,
        element_index: columns.get(4)?,
        run_id: columns.id(5, RunId::from_text)?,
        actor: columns.get(6)?,
        capability_name: columns.get(7)?,
        target: columns.get(8)?,
        action: columns.get(9)?,
        task_name: columns.get(10)?,
        method: columns.get(11)?,
        priority: columns.get(12)?,
        status: columns.status(13)?,
        attempt: columns.get(14)?,
        idempotent: columns.get(15)?,
        submitted_at: Timestamp::from_text(columns.get::<String>(16)?),
        started_at: columns.id(17, Timestamp::from_text)?,
        completed_at: columns.id(18, Timestamp::from_text)?,
        worker_session_id: columns.id(19, WorkerSessionId::from_text)?,
        instance_id: columns.get(20)?,
        control: columns.json(21)?.unwrap_or_default(),
        failure: columns.json(22)?,
    };
    Ok(SeqJob { seq: columns.get(0)?, job })
}

pub(crate) fn body(columns: &Columns<'_, '_>) -> Result<Body, StoreError> {
    let hash: Option<String> = columns.get(1)?;
    Ok(match hash {
        Some(hash) => Body::File { hash, bytes: columns.get::<i64>(0)?.unsigned_abs() },
        None => Body::Inline(columns.get(2)?),
    })
}

pub(crate) fn composition(columns: &Columns<'_, '_>) -> Result<(i64, CompositionRecord), StoreError> {
    let record = CompositionRecord {
        composition_id: CompositionId::from_text(columns.get::<String>(1)?),
        name: columns.get(2)?,
        run_id: columns.id(3, RunId::from_text)?,
        actor: columns.get(4)?,
        status: columns.status(5)?,
        submitted_at: Timestamp::from_text(columns.get::<String>(6)?),
        completed_at: columns.id(7, Timestamp::from_text)?,
        failure: columns.json(8)?,
    };
    Ok((columns.get(0)?, record))
}

pub(crate) fn worker(columns: &Columns<'_, '_>) -> Result<WorkerRecord, StoreError> {
    Ok(WorkerRecord {
        worker_session_id: WorkerSessionId::from_text(columns.get::<String>(0)?),
        host_session_id: columns.get(1)?,
        instance_id: columns.get(2)?,
        capability_name: columns.get(3)?,
        pid: columns.get(4)?,
        spawned_at: Timestamp::from_text(columns.get::<String>(5)?),
        ended_at: columns.id(6, Timestamp::from_text)?,
    })
}

pub(crate) fn session(columns: &Columns<'_, '_>) -> Result<WorkerSessionId, StoreError> {
    Ok(WorkerSessionId::from_text(columns.get::<String>(0)?))
}

pub(crate) fn record(columns: &Columns<'_, '_>) -> Result<SeqRecord, StoreError> {
    let record = DiagnosticRecord {
        ts: Timestamp::from_text(columns.get::<String>(1)?),
        worker_session_id: columns.get(2)?,
        job_id: columns.get(3)?,
        level: columns.get(4)?,
        logger_name: columns.get(5)?,
        message: columns.get(6)?,
        exc_text: columns.get(7)?,
    };
    Ok(SeqRecord { seq: columns.get(0)?, record })
}

pub(crate) fn chunk(columns: &Columns<'_, '_>) -> Result<SeqChunk, StoreError> {
    let chunk = StreamChunk {
        ts: Timestamp::from_text(columns.get::<String>(1)?),
        worker_session_id: columns.get(2)?,
        stream: columns.get(3)?,
        content: columns.get(4)?,
    };
    Ok(SeqChunk { seq: columns.get(0)?, chunk })
}

/// The highest place that was ever given, also to rows that were archived since; 0 in a new journal.
pub(crate) fn last_seq(connection: &Connection) -> Result<i64, StoreError> {
    let sql = "SELECT max(coalesce((SELECT max(seq) FROM journal), 0), \
               coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'journal'), 0))";
    connection
        .query_row(sql, [], |row| row.get(0))
        .map_err(|error| StoreError::database_of("read", connection, &error))
}

/// Places and names of the first row that is there and of the last.
pub(crate) fn outer_places(connection: &Connection) -> Result<Vec<(i64, String)>, StoreError> {
    let failed = |error| StoreError::database_of("read", connection, &error);
    let sql = "SELECT seq, event_id FROM journal WHERE seq IN ((SELECT min(seq) FROM journal), (SELECT max(seq) FROM journal))";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
    rows.collect::<rusqlite::Result<_>>().map_err(failed)
}

/// Whether another row stands at a place.
pub(crate) fn has_other_at(connection: &Connection, seq: i64, event: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS(SELECT 1 FROM journal WHERE seq = ?1 AND event_id <> ?2)";
    connection
        .query_row(sql, (seq, event), |row| row.get(0))
        .map_err(|error| StoreError::database_of("read", connection, &error))
}

/// A payload as any writer left it. What is not JSON is kept as text under `unparsed`: a reader of a journal of
/// years must not stop at one row.
fn payload(text: &str) -> Map<String, Value> {
    let parsed = serde_json::from_str(text).or_else(|_| serde_json::from_str(&without_nan(text)));
    match parsed {
        Ok(Value::Object(map)) => map,
        Ok(other) => Map::from_iter([("unparsed".to_owned(), other)]),
        Err(_) => Map::from_iter([("unparsed".to_owned(), text.into())]),
    }
}

/// Python writes NaN and infinities as bare words; they become null.
fn without_nan(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        if rest.starts_with('"') {
            let bytes = rest.as_bytes();
            let mut end = 1;
            while end < bytes.len() && bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            // Payloads of the ancestor are ASCII, but a byte count past a quote is a boundary in any case.
            let end = rest.ceil_char_boundary((end + 1).min(rest.len()));
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        } else if let Some(word) =
            ["NaN", "-Infinity", "Infinity"].into_iter().find(|word| rest.starts_with(word))
        {
            out.push_str("null");
            rest = &rest[word.len()..];
        } else {
            let end = rest.ceil_char_boundary(1);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn payloads_of_any_writer_read() {
        for (text, expected) in [
            (r#"{"a": 1}"#, json!({"a": 1})),
            (
                r#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \"Infinity\\"}"#,
                json!({"a": null, "b": [null, null], "c": "NaN \"Infinity\\"}),
            ),
            ("[1]", json!({"unparsed": [1]})),
            ("{\"", json!({"unparsed": "{\""})),
            ("\"\\\u{fc}", json!({"unparsed": "\"\\\u{fc}"})),
        ] {
            assert_eq!(Value::Object(payload(text)), expected, "{text}");
        }
    }
}
