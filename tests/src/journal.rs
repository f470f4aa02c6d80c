//! The journal as a stranger reads it: plain SQL on the file, nothing of our store in between.
//!
//! What must hold: reading never writes, also while a host writes.

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Statuses that end a job.
pub const TERMINAL: [&str; 3] = ["completed", "failed", "cancelled"];

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its place.
    pub seq: i64,
    /// Its name.
    pub event_id: String,
    /// When, as text.
    pub ts: String,
    /// What.
    pub event_type: String,
    /// Of which job.
    pub job_id: Option<String>,
    /// Of which composition.
    pub composition_id: Option<String>,
    /// Of which node.
    pub node_id: Option<String>,
    /// On which instance.
    pub instance: Option<String>,
    /// By which worker.
    pub worker: Option<String>,
    /// The rest.
    pub payload: Value,
}

impl Row {
    /// A text of the payload; empty if there is none.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.payload[key].as_str().unwrap_or("")
    }

    /// The status this row ends a job with, if it does.
    #[must_use]
    pub fn terminal(&self) -> Option<&str> {
        let to = self.text("to");
        (self.event_type == "state_transition" && TERMINAL.contains(&to)).then_some(to)
    }
}

/// All committed rows, oldest first; none if there is no journal yet.
///
/// # Panics
/// If the file cannot be read as a journal.
#[must_use]
pub fn rows(path: &Path) -> Vec<Row> {
    if !path.is_file() {
        return Vec::new();
    }
    let connection = open(path);
    let tables = "SELECT count(*) FROM sqlite_master WHERE name = 'journal'";
    // A host that starts has made the file and not yet the table.
    if connection.query_row(tables, [], |row| row.get::<_, i64>(0)).expect("a database") == 0 {
        return Vec::new();
    }
    let mut statement = connection
        .prepare(
            "SELECT seq, event_id, ts, event_type, job_id, composition_id, node_id, capability_instance_id,
                    worker_session_id, payload FROM journal ORDER BY seq",
        )
        .expect("the journal's table");
    let read = statement.query_map([], |row| {
        let payload: String = row.get(9)?;
        Ok(Row {
            seq: row.get(0)?,
            event_id: row.get(1)?,
            ts: row.get(2)?,
            event_type: row.get(3)?,
            job_id: row.get(4)?,
            composition_id: row.get(5)?,
            node_id: row.get(6)?,
            instance: row.get(7)?,
            worker: row.get(8)?,
            payload: serde_json::from_str(&payload).unwrap_or(Value::Null),
        })
    });
    read.expect("a query").map(|row| row.expect("a row")).collect()
}

/// Fails unless the file is sound and every job in it ended exactly once. Returns job → its last status.
#[track_caller]
pub fn assert_every_job_ended_once(path: &Path) -> BTreeMap<String, String> {
    let check: String =
        open(path).query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("integrity_check");
    assert_eq!(check, "ok");
    let rows = rows(path);
    let mut ends: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in &rows {
        if let (Some(job), "state_transition") = (&row.job_id, row.event_type.as_str()) {
            ends.entry(job.clone()).or_default().extend(row.terminal().map(str::to_owned));
        }
    }
    let wrong: Vec<_> = ends.iter().filter(|(_, statuses)| statuses.len() != 1).collect();
    assert!(wrong.is_empty(), "jobs that did not end exactly once: {wrong:?}\n{}", tell(&rows));
    ends.into_iter().filter_map(|(job, statuses)| Some((job, statuses.into_iter().next()?))).collect()
}

/// Fails unless `after` begins with all rows of `before`, unchanged.
#[track_caller]
pub fn assert_nothing_lost(before: &[Row], after: &[Row]) {
    assert!(after.len() >= before.len(), "{} rows were committed, {} are left", before.len(), after.len());
    for (old, new) in before.iter().zip(after) {
        assert_eq!(old, new, "a committed row changed");
    }
}

/// When one job of a node ran, and in which worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The worker session.
    pub worker: String,
    /// When it began to run; texts of one format and zone compare as times.
    pub from: String,
    /// When it ended.
    pub to: String,
}

/// The spans of all completed jobs of a node.
#[must_use]
pub fn spans(rows: &[Row], node: &str) -> Vec<Span> {
    let of_node = |row: &&Row| row.node_id.as_deref() == Some(node) && row.event_type == "state_transition";
    let running: BTreeMap<&String, &Row> = rows
        .iter()
        .filter(of_node)
        .filter(|row| row.text("to") == "running")
        .filter_map(|row| Some((row.job_id.as_ref()?, row)))
        .collect();
    rows.iter()
        .filter(of_node)
        .filter(|row| row.text("to") == "completed")
        .filter_map(|end| {
            let start = running.get(end.job_id.as_ref()?)?;
            let worker = end.worker.clone().or_else(|| start.worker.clone())?;
            Some(Span { worker, from: start.ts.clone(), to: end.ts.clone() })
        })
        .collect()
}

/// Whether two spans of different workers share an instant.
#[must_use]
pub fn overlap(spans: &[Span]) -> bool {
    spans.iter().any(|a| spans.iter().any(|b| a.worker != b.worker && a.from < b.to && b.from < a.to))
}

/// Rows, one line each, for a message.
#[must_use]
pub fn tell(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let job = row.job_id.as_deref().unwrap_or("-");
        format!("{} {} {} job={job} {:?} {}", row.seq, row.ts, row.event_type, row.instance, row.payload)
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn open(path: &Path) -> Connection {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    connection.busy_timeout(Duration::from_secs(10)).expect("a busy timeout");
    connection
}
