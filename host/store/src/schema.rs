//! The two database files: their tables, how their schema moves forward, and how a connection to them is opened.
//!
//! The `journal`, `records` and `stream_chunks` tables are the ancestor's to the column, because it reads and writes
//! the same files. It never looks at `user_version`, so that number is ours: it counts our migrations. Every
//! statement of the first one therefore says IF NOT EXISTS, for the file may be the ancestor's.

use crate::error::{DISK_HAS, NOT_OURS, StoreError};
use crate::not_ours::{files_of, refuse_no_files, refuse_no_folder};
use crate::payload::PAYLOADS_DIR;
use crate::room::{SMALL_DISK_BYTES, available, lacks_inodes};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rusqlite_migration::{Error as MigrationError, M, MigrationDefinitionError, Migrations};
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// File of the journal, jobs and results.
pub const JOURNAL_FILE: &str = "journal.db";
/// File of records and output.
pub const DIAGNOSTICS_FILE: &str = "diagnostics.db";
/// File of the input files' hashes.
pub const INPUT_HASHES_FILE: &str = "input_hash_cache.db";
/// How long one statement waits for another process's lock. The ancestor's figure.
pub const BUSY_TIMEOUT_MS: u64 = 10_000;
/// How long one that writes the journal or the diagnostics does: one host writes them, so it is a person's program that
/// holds them, and callers wait meanwhile.
pub(crate) const WRITER_BUSY_WAIT: Duration = Duration::from_secs(2);
/// What the index of a write-ahead log takes at least: a disk with less room cannot take a database.
const INDEX_BYTES: u64 = 32 * 1024;
/// How often it is asked whether another process is done with opening.
const TURN_RETRY: Duration = Duration::from_millis(2);
/// The write-ahead log is cut back to this after a checkpoint.
const WAL_BYTES_MAX: i64 = 4 * 1024 * 1024;

/// What a commit survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// The death of any process at any instant (`synchronous = NORMAL`).
    #[default]
    Process,
    /// A power cut too (`synchronous = FULL`): each commit waits for the disk.
    Power,
}

pub(crate) const JOURNAL_TABLES: &str = "
CREATE TABLE IF NOT EXISTS journal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    ts TEXT NOT NULL,
    event_type TEXT NOT NULL,
    run_id TEXT, job_id TEXT, composition_id TEXT, node_id TEXT,
    capability_instance_id TEXT, capability_name TEXT, config_hash TEXT,
    task_name TEXT, method TEXT, worker_session_id TEXT, actor TEXT,
    worker_reported INTEGER NOT NULL DEFAULT 0,
    payload TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS idx_journal_job ON journal (job_id);
CREATE INDEX IF NOT EXISTS idx_journal_run ON journal (run_id);
CREATE INDEX IF NOT EXISTS idx_journal_comp ON journal (composition_id);
CREATE INDEX IF NOT EXISTS idx_journal_type_ts ON journal (event_type, ts);
CREATE INDEX IF NOT EXISTS idx_journal_instance_ts ON journal (capability_instance_id, ts);
CREATE INDEX IF NOT EXISTS idx_journal_wsession ON journal (worker_session_id);
";

// Arguments and results stand in tables of their own: SQLite rewrites a whole row when a status changes.
const OUR_TABLES: &str = "
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL UNIQUE,
    composition_id TEXT, node_id TEXT, element_index INTEGER,
    run_id TEXT, actor TEXT,
    capability_name TEXT NOT NULL, target TEXT NOT NULL,
    action TEXT, task_name TEXT, method TEXT,
    priority INTEGER NOT NULL,
    status TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    idempotent INTEGER,
    submitted_at TEXT NOT NULL, started_at TEXT, completed_at TEXT,
    worker_session_id TEXT, instance_id TEXT,
    control TEXT NOT NULL DEFAULT '{}',
    failure TEXT
);
CREATE INDEX idx_jobs_unfinished ON jobs (seq) WHERE status IN ('pending', 'running');
CREATE INDEX idx_jobs_run ON jobs (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX idx_jobs_composition ON jobs (composition_id) WHERE composition_id IS NOT NULL;
CREATE TABLE arguments (
    job_id TEXT PRIMARY KEY REFERENCES jobs (job_id),
    bytes INTEGER NOT NULL, payload_hash TEXT, body BLOB
);
CREATE TABLE results (
    job_id TEXT PRIMARY KEY REFERENCES jobs (job_id),
    bytes INTEGER NOT NULL, payload_hash TEXT, body BLOB
);
CREATE TABLE compositions (
    seq INTEGER PRIMARY KEY,
    composition_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    run_id TEXT, actor TEXT,
    status TEXT NOT NULL,
    submitted_at TEXT NOT NULL, completed_at TEXT,
    failure TEXT
);
CREATE INDEX idx_compositions_unfinished ON compositions (seq) WHERE status IN ('pending', 'running');
CREATE TABLE composition_bodies (
    composition_id TEXT NOT NULL REFERENCES compositions (composition_id),
    kind TEXT NOT NULL,
    bytes INTEGER NOT NULL, payload_hash TEXT, body BLOB,
    PRIMARY KEY (composition_id, kind)
);
CREATE TABLE hosts (
    host_session_id TEXT PRIMARY KEY,
    pid INTEGER NOT NULL,
    started_at TEXT NOT NULL, ended_at TEXT
);
CREATE TABLE workers (
    worker_session_id TEXT PRIMARY KEY,
    host_session_id TEXT NOT NULL,
    instance_id TEXT NOT NULL, capability_name TEXT NOT NULL,
    pid INTEGER NOT NULL,
    spawned_at TEXT NOT NULL, ended_at TEXT
);
CREATE INDEX idx_workers_living ON workers (worker_session_id) WHERE ended_at IS NULL;
";

// What is put into `room_probe` and taken out again says whether the disk takes a small commit. The indexes say whether
// the file of a large body is still named; small bodies have no part in them.
const OUR_LATER_TABLES: &str = "
CREATE TABLE room_probe (id INTEGER PRIMARY KEY, filler BLOB NOT NULL);
CREATE INDEX idx_arguments_payload ON arguments (payload_hash) WHERE payload_hash IS NOT NULL;
CREATE INDEX idx_results_payload ON results (payload_hash) WHERE payload_hash IS NOT NULL;
CREATE INDEX idx_bodies_payload ON composition_bodies (payload_hash) WHERE payload_hash IS NOT NULL;
";

const DIAGNOSTICS_TABLES: &str = "
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    ts TEXT NOT NULL,
    worker_session_id TEXT, job_id TEXT,
    level TEXT NOT NULL DEFAULT 'INFO',
    logger_name TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL,
    exc_text TEXT
);
CREATE INDEX IF NOT EXISTS idx_records_job ON records (job_id);
CREATE INDEX IF NOT EXISTS idx_records_session ON records (worker_session_id);
CREATE INDEX IF NOT EXISTS idx_records_ts ON records (ts);
CREATE TABLE IF NOT EXISTS stream_chunks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    ts TEXT NOT NULL,
    worker_session_id TEXT,
    stream TEXT NOT NULL DEFAULT 'stdout',
    content TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_chunks_session ON stream_chunks (worker_session_id);
CREATE INDEX IF NOT EXISTS idx_chunks_ts ON stream_chunks (ts);
";

const INPUT_HASHES_TABLES: &str = "
CREATE TABLE IF NOT EXISTS input_hash_cache (
    path TEXT NOT NULL,
    mtime_ns INTEGER NOT NULL,
    size INTEGER NOT NULL,
    content_hash TEXT NOT NULL,
    PRIMARY KEY (path, mtime_ns, size)
);
";

const JOURNAL_MIGRATIONS: &[M<'static>] =
    &[M::up(JOURNAL_TABLES), M::up(OUR_TABLES), M::up(OUR_LATER_TABLES)];
const DIAGNOSTICS_MIGRATIONS: &[M<'static>] = &[M::up(DIAGNOSTICS_TABLES)];
const INPUT_HASHES_MIGRATIONS: &[M<'static>] = &[M::up(INPUT_HASHES_TABLES)];

/// Opens `journal.db` of `data_dir` for writing; creates directory (0700) and file (0600) as needed.
pub(crate) fn open_journal(data_dir: &Path, durability: Durability) -> Result<Connection, StoreError> {
    open_writer(data_dir, JOURNAL_FILE, JOURNAL_MIGRATIONS, durability)
}

/// Opens `diagnostics.db` of `data_dir` for writing; creates directory and file as needed.
pub(crate) fn open_diagnostics(data_dir: &Path) -> Result<Connection, StoreError> {
    open_writer(data_dir, DIAGNOSTICS_FILE, DIAGNOSTICS_MIGRATIONS, Durability::Process)
}

/// Opens `input_hash_cache.db` of `data_dir` for writing; creates directory and file as needed.
pub(crate) fn open_input_hashes(data_dir: &Path) -> Result<Connection, StoreError> {
    open_writer(data_dir, INPUT_HASHES_FILE, INPUT_HASHES_MIGRATIONS, Durability::Process)
}

/// Whether somebody keeps others from reading it now.
pub(crate) fn is_held(path: &Path) -> bool {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let asked = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.busy_timeout(Duration::ZERO)?;
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0))
    });
    asked.is_err_and(|error| error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy))
}

/// Opens a database file for reading only. Works while others write, where nobody does, and in a directory that
/// cannot be written.
pub(crate) fn open_reader(data_dir: &Path, file: &str) -> Result<Connection, StoreError> {
    // Who writes follows no link either: what it leads to is not this directory's.
    refuse_what_is_not_ours("read", data_dir, file)?;
    open_named_reader(data_dir, file)
}

/// The same for a file that its user named, which may be a link.
pub(crate) fn open_named_reader(data_dir: &Path, file: &str) -> Result<Connection, StoreError> {
    let path = data_dir.join(file);
    match fs::metadata(&path) {
        // A file of no length was created by somebody who has not come to write its schema.
        Ok(found) if !found.is_file() => {
            return Err(StoreError::File { doing: "read", path, message: NOT_OURS.to_owned() });
        }
        Ok(found) if found.len() > 0 => {}
        Ok(_) => return Err(StoreError::NothingYet { path }),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(StoreError::NothingYet { path });
        }
        Err(error) => return Err(StoreError::file("read", path, &error)),
    }
    let failed = |error: rusqlite::Error| StoreError::database_at("read", &path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS)).map_err(failed)?;
    match connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0)) {
        Ok(0) => Err(StoreError::NothingYet { path }),
        Ok(_) => Ok(connection),
        // Reading a write-ahead log needs its index file, which cannot be made here: the directory is not to be written,
        // or its disk is full. Nobody writes either, then.
        Err(error)
            if matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::CannotOpen
                        | ErrorCode::ReadOnly
                        | ErrorCode::DiskFull
                        | ErrorCode::SystemIoFailure
                )
            ) && !has_log(&path) =>
        {
            let uri = format!("file:{}?immutable=1", percent_encoded(&path));
            let connection = Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
                .map_err(|error| StoreError::database_at("read", &path, &error))?;
            Ok(connection)
        }
        Err(error) => Err(StoreError::database_at("read", &path, &error)),
    }
}

/// True when the table exists in the file the connection reads.
pub(crate) fn has_table(connection: &Connection, table: &str) -> Result<bool, StoreError> {
    connection
        .query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?1", [table], |row| {
            row.get::<_, i64>(0)
        })
        .map(|count| count > 0)
        .map_err(|error| StoreError::database("look for our tables", &error))
}

fn open_writer(
    data_dir: &Path,
    file: &str,
    migrations: &'static [M<'static>],
    durability: Durability,
) -> Result<Connection, StoreError> {
    let path = data_dir.join(file);
    refuse_what_is_not_ours("write", data_dir, file)?;
    create_private(data_dir, &path)?;
    let _turn = turn(data_dir);
    open_for_writing(&path, migrations, durability).map_err(|error| with_cause(error, &path))
}

/// SQLite says that it could not open or write, and not why; the system does.
fn with_cause(error: StoreError, path: &Path) -> StoreError {
    let StoreError::Database { doing, message, damaged: false } = error else { return error };
    let refused = OpenOptions::new().write(true).open(path).err().map(|error| error.to_string());
    let is_full = |bytes: &u64| *bytes < INDEX_BYTES;
    let full = || available(path).filter(is_full).map(|bytes| format!("{DISK_HAS} {bytes} bytes left"));
    let message = match refused.or_else(|| lacks_inodes(path)).or_else(full) {
        Some(cause) => format!("{message} ({cause})"),
        None => message,
    };
    StoreError::Database { doing, message, damaged: false }
}

fn open_for_writing(
    path: &Path,
    migrations: &'static [M<'static>],
    durability: Durability,
) -> Result<Connection, StoreError> {
    let failed = |error: rusqlite::Error| StoreError::database_at("open", path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(WRITER_BUSY_WAIT).map_err(failed)?;
    // A journal on a large disk is spared the few pages more that this writes: where that is full, there is a reserve.
    let gives_back = path.ends_with(DIAGNOSTICS_FILE)
        || path.ends_with(JOURNAL_FILE) && available(path).is_some_and(|bytes| bytes < SMALL_DISK_BYTES);
    if gives_back && fs::metadata(path).is_ok_and(|found| found.len() == 0) {
        // To be said before the first page is written: retention can then give pages back to a full disk.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(failed)?;
    }
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    let synchronous = match durability {
        Durability::Process => "NORMAL",
        Durability::Power => "FULL",
    };
    connection.pragma_update(None, "synchronous", synchronous).map_err(failed)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    migrate(&mut connection, migrations, path)?;
    Ok(connection)
}

/// One at a time opens a database of this directory for writing: two that find it empty would both make its tables. Nobody
/// waits for one that stands still; SQLite's own locks keep the file sound then.
fn turn(data_dir: &Path) -> Option<fs::File> {
    let directory = fs::File::open(data_dir).ok()?;
    let give_up = Instant::now() + Duration::from_millis(BUSY_TIMEOUT_MS);
    while directory.try_lock().is_err() {
        if Instant::now() >= give_up {
            return None;
        }
        std::thread::sleep(TURN_RETRY);
    }
    Some(directory)
}

fn migrate(
    connection: &mut Connection,
    migrations: &'static [M<'static>],
    path: &Path,
) -> Result<(), StoreError> {
    Migrations::from_slice(migrations).to_latest(connection).map_err(|error| match error {
        MigrationError::MigrationDefinition(MigrationDefinitionError::DatabaseTooFarAhead) => {
            StoreError::Newer { path: path.to_owned() }
        }
        MigrationError::RusqliteError { err, .. } => StoreError::database_at("bring up to date", path, &err),
        other => StoreError::Database {
            doing: format!("bring up to date {}", path.display()),
            message: other.to_string(),
            damaged: false,
        },
    })
}

/// The file is private before SQLite writes a byte into it; its log and index take the mode over from it.
pub(crate) fn create_private(data_dir: &Path, path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|error| StoreError::file("create", data_dir, &error))?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => tighten(path),
        Err(error) => Err(StoreError::file("create", path, &error)),
    }
}

/// A file the ancestor created is readable for everybody; it will hold arguments and results from now on. What is no file
/// is refused: SQLite would follow a link and write into whatever it leads to, and so would a change of the mode.
fn tighten(path: &Path) -> Result<(), StoreError> {
    refuse_no_files("write", path)?;
    for name in files_of(path) {
        if fs::symlink_metadata(&name).is_ok_and(|found| found.permissions().mode() & 0o077 != 0) {
            fs::set_permissions(&name, fs::Permissions::from_mode(0o600))
                .map_err(|error| StoreError::file("make private", &name, &error))?;
        }
    }
    Ok(())
}

/// Whoever opens a database hears it in the same words, and before anything runs whose result could not be kept.
fn refuse_what_is_not_ours(doing: &'static str, data_dir: &Path, file: &str) -> Result<(), StoreError> {
    refuse_no_files(doing, &data_dir.join(file))?;
    if file == JOURNAL_FILE {
        refuse_no_folder(doing, &data_dir.join(PAYLOADS_DIR))?;
    }
    Ok(())
}

fn has_log(path: &Path) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    fs::metadata(name).is_ok_and(|found| found.len() > 0)
}

fn percent_encoded(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().iter().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(*byte));
            }
            other => out.push_str(&format!("%{other:02x}")),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_cannot_be_opened_is_told_with_what_the_system_says() {
        let dir = tempfile::tempdir().unwrap();
        let of = |damaged| StoreError::Database {
            doing: "open".to_owned(),
            message: "unable to open database file".to_owned(),
            damaged,
        };
        let told = |damaged, path: &Path| with_cause(of(damaged), path).to_string();
        let gone = told(false, &dir.path().join("gone"));
        assert!(
            gone.ends_with("unable to open database file (No such file or directory (os error 2))"),
            "{gone}"
        );
        let there = dir.path().join("there");
        fs::write(&there, "").unwrap();
        assert!(told(false, &there).ends_with("database file"), "the system has nothing against it");
        assert!(
            told(true, dir.path()).ends_with("database file"),
            "its contents are no matter of the system's"
        );
    }
}
