//! Records without a host of ours: rows of the ancestor's `diagnostics.db`, as its own worker writes them. Where the
//! host names no database they go to standard error.
//!
//! It is not the store: no retention, no reading, no output of processes (the host's pump writes that). What must
//! hold: nothing waits for the disk but this module's thread; a database that cannot be written costs records and a
//! line on standard error, never a call; the file is opened by the first record, so a worker that says nothing opens
//! none.

use crate::frames::Frame;
use crate::link::RecordSink;
use cjm_wire::Timestamp;
use cjm_wire::channel::Record;
use cjm_wire::link::{Dropped, to_host};
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Records between the link's queue and the thread.
const WAITING_MAX: usize = 64;
/// Rows of one transaction at most.
const BATCH_ROWS_MAX: usize = 64;
/// How long another writer may keep the database busy; the ancestor's own figure.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// The ancestor's table, made where its host has not made it yet.
const TABLE: &str = "
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
";
const INSERT: &str = "INSERT INTO records \
    (ts, worker_session_id, job_id, level, logger_name, message, exc_text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// Hands records to the thread that writes them.
#[derive(Debug)]
pub(crate) struct Recorder {
    words: mpsc::Sender<Word>,
}

#[derive(Debug)]
enum Word {
    Record(Record),
    /// Answered when all before it is written, or given up.
    Settle(oneshot::Sender<()>),
}

impl Recorder {
    /// Starts the thread. It ends with the last word.
    pub(crate) fn start(database: Option<PathBuf>, session: Option<String>) -> Self {
        let (words, received) = mpsc::channel(WAITING_MAX);
        let writer = Writer { database, session, connection: None, complained: false };
        let thread = std::thread::Builder::new().name("cjm-records".to_owned());
        if let Err(error) = thread.spawn(move || writer.run(received)) {
            eprintln!("records of this worker are lost, there is no thread to write them: {error}");
        }
        Self { words }
    }
}

impl RecordSink for Recorder {
    fn put<'a>(&'a self, frame: &'a Frame) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.take(frame))
    }

    fn settle<'a>(&'a self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.written())
    }
}

impl Recorder {
    async fn take(&self, frame: &Frame) {
        let record = match frame.kind {
            to_host::RECORD => serde_json::from_slice(&frame.payload).ok(),
            to_host::DROPPED => {
                serde_json::from_slice(&frame.payload).ok().map(|dropped: Dropped| lost(&dropped))
            }
            // This host asks for the rest, or sees it.
            _ => None,
        };
        if let Some(record) = record {
            // An error means that there is no thread, which was said.
            let _ = self.words.send(Word::Record(record)).await;
        }
    }

    async fn written(&self) {
        let (done, written) = oneshot::channel();
        if self.words.send(Word::Settle(done)).await.is_ok() {
            let _ = written.await;
        }
    }
}

fn lost(dropped: &Dropped) -> Record {
    Record {
        ts: Some(Timestamp::now()),
        level: "WARNING".to_owned(),
        logger_name: "cjm_worker.records".to_owned(),
        message: format!("{} record(s) were dropped before this one", dropped.records),
        exc_text: None,
        job_id: dropped.job_id.clone(),
    }
}

struct Writer {
    database: Option<PathBuf>,
    session: Option<String>,
    connection: Option<Connection>,
    complained: bool,
}

impl Writer {
    fn run(mut self, mut words: mpsc::Receiver<Word>) {
        while let Some(first) = words.blocking_recv() {
            let mut records = Vec::new();
            let mut settled = Vec::new();
            let mut next = Some(first);
            while let Some(word) = next {
                match word {
                    Word::Record(record) => records.push(record),
                    Word::Settle(done) => settled.push(done),
                }
                next = if records.len() < BATCH_ROWS_MAX { words.try_recv().ok() } else { None };
            }
            self.write(&records);
            for done in settled {
                let _ = done.send(());
            }
        }
    }

    fn write(&mut self, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        let Some(database) = self.database.clone() else {
            records.iter().for_each(say);
            return;
        };
        if let Err(error) = self.insert(&database, records) {
            // Opened anew next time, since the file may have been removed.
            self.connection = None;
            if !std::mem::replace(&mut self.complained, true) {
                eprintln!("records cannot be written to {}, and are said here: {error}", database.display());
            }
            records.iter().for_each(say);
        }
    }

    fn insert(&mut self, database: &Path, records: &[Record]) -> rusqlite::Result<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            closed => closed.insert(open(database)?),
        };
        let transaction = connection.transaction()?;
        {
            let mut statement = transaction.prepare_cached(INSERT)?;
            for record in records {
                let ts = record.made_at(Timestamp::now());
                statement.execute(params![
                    ts.as_str(),
                    self.session,
                    record.job_id,
                    record.level,
                    record.logger_name,
                    record.message,
                    record.exc_text
                ])?;
            }
        }
        transaction.commit()
    }
}

fn open(database: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(database)?;
    connection.busy_timeout(BUSY_MAX)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.execute_batch(TABLE)?;
    Ok(connection)
}

fn say(record: &Record) {
    eprintln!("{} {}: {}", record.level, record.logger_name, record.message);
    if let Some(text) = &record.exc_text {
        eprintln!("{}", text.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(message: &str) -> Frame {
        let mut record = lost(&Dropped { records: 0, job_id: None });
        record.message = message.to_owned();
        record.ts = Some(Timestamp::from_text("9999-01-01T00:00:00.000000+00:00"));
        record.job_id = Some("job".to_owned());
        Frame::json(to_host::RECORD, 0, &record)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn rows_are_the_ancestors_and_a_bad_place_costs_nobody_anything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("diagnostics.db");
        let recorder = Recorder::start(Some(path.clone()), Some("session".to_owned()));
        recorder.settle().await;
        assert!(!path.exists(), "nothing was said yet");
        for step in 0..200 {
            recorder.put(&frame(&format!("é {step}"))).await;
        }
        recorder.put(&Frame::json(to_host::DROPPED, 0, &Dropped { records: 7, job_id: None })).await;
        recorder.put(&Frame::json(to_host::READY, 0, &serde_json::json!({}))).await;
        recorder.settle().await;
        let rows: Vec<(String, String, Option<String>)> = Connection::open(&path)
            .unwrap()
            .prepare("SELECT message, worker_session_id, job_id FROM records ORDER BY seq")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(rows.len(), 201);
        assert_eq!(rows[199], ("é 199".into(), "session".into(), Some("job".into())));
        assert!(rows[200].0.contains("7 record"), "{rows:?}");
        let to_come =
            "SELECT count(*) FROM records WHERE ts > strftime('%Y-%m-%dT%H:%M:%f', 'now', '+1 hour')";
        let to_come: i64 = Connection::open(&path).unwrap().query_row(to_come, [], |row| row.get(0)).unwrap();
        assert_eq!(to_come, 0, "a tool's clock is not believed where it is ahead");

        let nowhere = Recorder::start(Some(folder.path().join("no/such/folder.db")), None);
        nowhere.put(&frame("said on standard error")).await;
        nowhere.settle().await;
    }
}
