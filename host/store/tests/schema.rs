//! The tables the ancestor shares with us, column for column, and files that it made first.

mod common;

use cjm_store::*;
use cjm_wire::event::JobStatus;
use cjm_wire::{Described, Timestamp};
use common::*;
use rusqlite::Connection;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Table, then `name type notnull default pk` per column.
const COLUMNS: [(&str, &str, &[&str]); 3] = [
    (
        JOURNAL_FILE,
        "journal",
        &[
            "seq INTEGER 0 - 1",
            "event_id TEXT 1 - 0",
            "ts TEXT 1 - 0",
            "event_type TEXT 1 - 0",
            "run_id TEXT 0 - 0",
            "job_id TEXT 0 - 0",
            "composition_id TEXT 0 - 0",
            "node_id TEXT 0 - 0",
            "capability_instance_id TEXT 0 - 0",
            "capability_name TEXT 0 - 0",
            "config_hash TEXT 0 - 0",
            "task_name TEXT 0 - 0",
            "method TEXT 0 - 0",
            "worker_session_id TEXT 0 - 0",
            "actor TEXT 0 - 0",
            "worker_reported INTEGER 1 0 0",
            "payload TEXT 1 '{}' 0",
        ],
    ),
    (
        DIAGNOSTICS_FILE,
        "records",
        &[
            "seq INTEGER 0 - 1",
            "ts TEXT 1 - 0",
            "worker_session_id TEXT 0 - 0",
            "job_id TEXT 0 - 0",
            "level TEXT 1 'INFO' 0",
            "logger_name TEXT 1 '' 0",
            "message TEXT 1 - 0",
            "exc_text TEXT 0 - 0",
        ],
    ),
    (
        DIAGNOSTICS_FILE,
        "stream_chunks",
        &[
            "seq INTEGER 0 - 1",
            "ts TEXT 1 - 0",
            "worker_session_id TEXT 0 - 0",
            "stream TEXT 1 'stdout' 0",
            "content TEXT 1 - 0",
        ],
    ),
];

const INDEXES: [(&str, &str, &[&str]); 3] = [
    (
        JOURNAL_FILE,
        "journal",
        &[
            "idx_journal_comp(composition_id)",
            "idx_journal_instance_ts(capability_instance_id,ts)",
            "idx_journal_job(job_id)",
            "idx_journal_run(run_id)",
            "idx_journal_type_ts(event_type,ts)",
            "idx_journal_wsession(worker_session_id)",
            "unique(event_id)",
        ],
    ),
    (
        DIAGNOSTICS_FILE,
        "records",
        &["idx_records_job(job_id)", "idx_records_session(worker_session_id)", "idx_records_ts(ts)"],
    ),
    (DIAGNOSTICS_FILE, "stream_chunks", &["idx_chunks_session(worker_session_id)", "idx_chunks_ts(ts)"]),
];

fn strings(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).expect(sql);
    let found = statement.query_map([], |row| row.get(0)).expect(sql);
    found.map(|text| text.expect("text")).collect()
}

fn columns(connection: &Connection, table: &str) -> Vec<String> {
    let sql = format!(
        "SELECT name || ' ' || type || ' ' || \"notnull\" || ' ' || coalesce(dflt_value, '-') || ' ' || pk \
         FROM pragma_table_xinfo('{table}') ORDER BY cid"
    );
    strings(connection, &sql)
}

fn indexes(connection: &Connection, table: &str) -> Vec<String> {
    let sql = format!(
        "SELECT CASE origin WHEN 'u' THEN 'unique' ELSE name END || '(' || \
         (SELECT group_concat(name, ',') FROM pragma_index_info(list.name)) || ')' AS text \
         FROM pragma_index_list('{table}') AS list ORDER BY text"
    );
    strings(connection, &sql)
}

fn connect(dir: &Path, file: &str) -> Connection {
    Connection::open(dir.join(file)).expect(file)
}

#[test]
fn shared_tables_are_the_ancestors_to_the_column() {
    let (dir, journal) = fresh();
    let diagnostics = SqliteDiagnostics::open(dir.path()).expect("opens");
    for (file, table, expected) in COLUMNS {
        assert_eq!(columns(&connect(dir.path(), file), table), expected, "{table}");
    }
    for (file, table, expected) in INDEXES {
        assert_eq!(indexes(&connect(dir.path(), file), table), expected, "{table}");
        let sql = format!("SELECT sql FROM sqlite_master WHERE name = '{table}'");
        let sql = &strings(&connect(dir.path(), file), &sql)[0];
        assert!(sql.contains("AUTOINCREMENT"), "{table}: a deleted row's seq is never used again");
    }
    journal.close();
    diagnostics.close();
}

/// A journal as the ancestor leaves it: its table and indexes, `user_version` 0, readable by everybody.
fn ancestors_journal(dir: &Path) -> Connection {
    let connection = connect(dir, JOURNAL_FILE);
    connection.pragma_update(None, "journal_mode", "WAL").expect("WAL");
    let columns: Vec<String> = COLUMNS[0]
        .2
        .iter()
        .map(|column| {
            let parts: Vec<&str> = column.split(' ').collect();
            let unique = if parts[0] == "event_id" { " UNIQUE" } else { "" };
            let key = if parts[4] == "1" { " PRIMARY KEY AUTOINCREMENT" } else { "" };
            let null = if parts[2] == "1" { " NOT NULL" } else { "" };
            let default = if parts[3] == "-" { String::new() } else { format!(" DEFAULT {}", parts[3]) };
            format!("{} {}{key}{null}{unique}{default}", parts[0], parts[1])
        })
        .collect();
    connection.execute_batch(&format!("CREATE TABLE journal ({});", columns.join(", "))).expect("table");
    for index in INDEXES[0].2.iter().filter(|index| !index.starts_with("unique")) {
        let (name, on) = index.split_once('(').expect("name(columns)");
        connection.execute_batch(&format!("CREATE INDEX {name} ON journal ({on}")).expect(index);
    }
    let insert = "INSERT INTO journal (event_id, ts, event_type, job_id, payload) VALUES \
                  ('E', '2026-11-20T20:27:04+00:00', 'later_type', 'J', '{\"nan\": NaN, \"x\": 1}')";
    connection.execute_batch(insert).expect("row");
    connection
}

#[tokio::test]
async fn a_journal_the_ancestor_made_is_read_as_it_is_and_taken_over() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ancestor = ancestors_journal(dir.path());
    let reader = JournalReader::open(dir.path()).expect("opens before we ever wrote");
    let rows = reader.last(&JournalFilter::default(), 10).expect("reads");
    assert_eq!((rows.len(), rows[0].row.payload["x"].as_i64()), (1, Some(1)));
    assert_eq!(reader.jobs(&JobFilter::default(), 0, 10).expect("no jobs of ours"), []);
    assert_eq!(reader.living_workers().expect("no workers of ours"), []);

    let journal = open(dir.path());
    let job = run_through(&journal, JobStatus::Completed).await;
    assert_eq!(reader.job(&job.job_id).expect("the reader sees the new tables"), Some(job));
    let insert = "INSERT INTO journal (event_id, ts, event_type) VALUES ('F', 't', 'x')";
    ancestor.execute_batch(insert).expect("the ancestor goes on writing");
    journal.commit(Commit::telling().row(account("J", 1))).await.expect("so do we");
    assert_eq!(reader.last_seq().expect("reads"), 6);
}

#[test]
fn commands_that_begin_together_make_a_new_journal_once() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().expect("a directory");
        std::thread::scope(|scope| {
            let open = || {
                let options = JournalOptions { jobs_days: None, ..JournalOptions::default() };
                SqliteJournal::open(dir.path(), options).map(|journal| journal.close())
            };
            let opening: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            for one in opening {
                one.join().expect("no panic").expect("it opens");
            }
        });
    }
}

#[test]
fn a_file_of_a_later_version_is_refused() {
    let (dir, journal) = fresh();
    journal.close();
    connect(dir.path(), JOURNAL_FILE).pragma_update(None, "user_version", 99).expect("later");
    let error = SqliteJournal::open(dir.path(), JournalOptions::default()).expect_err("later");
    assert_eq!(error.code(), "store.newer");
}

#[test]
fn pragmas_are_as_promised() {
    for (durability, synchronous) in [(Durability::Process, 1), (Durability::Power, 2)] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let disk = std::sync::Arc::new(Inspect::default());
        let options = JournalOptions { durability, disk: disk.clone(), ..JournalOptions::default() };
        let journal = SqliteJournal::open(dir.path(), options).expect("opens");
        journal.commit_blocking(Commit::telling().row(account("j", 0))).expect("written");
        let seen = disk.0.lock().expect("lock").clone().expect("asked");
        assert_eq!(seen, ("wal".to_owned(), synchronous, 2_000));
    }
}

/// Notes journal mode, synchronous and busy timeout of the writer's connection.
#[derive(Debug, Default)]
struct Inspect(std::sync::Mutex<Option<(String, i64, i64)>>);

impl fault::Disk for Inspect {
    fn before(&self, _: fault::DiskStep, connection: &Connection) -> rusqlite::Result<()> {
        let mode = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        let synchronous = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
        let busy = connection.pragma_query_value(None, "busy_timeout", |row| row.get(0))?;
        *self.0.lock().expect("lock") = Some((mode, synchronous, busy));
        Ok(())
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_still_read() {
    let (dir, journal) = fresh();
    let diagnostics = SqliteDiagnostics::open(dir.path()).expect("opens");
    journal.commit_blocking(Commit::telling().row(account("j", 0))).expect("written");
    let record = DiagnosticRecord {
        ts: Timestamp::now(),
        worker_session_id: None,
        job_id: None,
        level: "INFO".into(),
        logger_name: "x".into(),
        message: "m".into(),
        exc_text: None,
    };
    assert!(diagnostics.record(record));
    journal.close();
    diagnostics.close();
    for file in [JOURNAL_FILE, DIAGNOSTICS_FILE] {
        // A clean end leaves the file alone, without log and index: what a copy on a read-only disk looks like.
        assert!(!dir.path().join(format!("{file}-wal")).exists(), "{file}");
    }
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o500)).expect("read-only");
    let rows = JournalReader::open(dir.path()).and_then(|reader| reader.last(&JournalFilter::default(), 9));
    let records = DiagnosticsReader::open(dir.path())
        .and_then(|reader| reader.last_records(&DiagnosticsFilter::default(), 9));
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).expect("writable again");
    assert_eq!(rows.expect("reads").len(), 1);
    assert_eq!(records.expect("reads").len(), 1);
}
