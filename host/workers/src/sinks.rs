//! Where the words of workers go: lines and records to the diagnostics store, progress to whoever watches. Never
//! blocks a worker: a store that cannot keep up drops and counts.

use crate::events::HostEvent;
use crate::flood::{FloodStore, STORED_BYTES_PER_SECOND_MAX, dropped_lines};
use cjm_store::{DiagnosticRecord, Diagnostics, StreamChunk};
use cjm_wire::channel::Record;
use cjm_wire::link::ProgressReport;
use cjm_wire::{InstanceId, JobId, Timestamp, WorkerSessionId};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::broadcast;

/// A stream of a worker, as the store names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputStreamName {
    Stdout,
    Stderr,
}

/// The sinks of one host.
pub struct Sinks {
    /// Where lines and records go.
    pub diagnostics: Arc<dyn Diagnostics>,
    /// Where progress goes.
    pub events: broadcast::Sender<HostEvent>,
}

impl Sinks {
    pub(crate) fn chunk(&self, session: &WorkerSessionId, stream: OutputStreamName, line: String) {
        self.diagnostics.chunk(StreamChunk {
            ts: Timestamp::now(),
            worker_session_id: Some(session.to_string()),
            stream: match stream {
                OutputStreamName::Stdout => "stdout".to_owned(),
                OutputStreamName::Stderr => "stderr".to_owned(),
            },
            content: line,
        });
    }

    pub(crate) fn record(&self, session: &WorkerSessionId, record: Record) {
        self.diagnostics.record(DiagnosticRecord {
            ts: record.made_at(Timestamp::now()),
            worker_session_id: Some(session.to_string()),
            job_id: record.job_id,
            level: record.level,
            logger_name: record.logger_name,
            message: record.message,
            exc_text: record.exc_text,
        });
    }

    pub(crate) fn progress(&self, instance: &InstanceId, report: ProgressReport) {
        // An error only says that nobody watches.
        let _ = self.events.send(HostEvent::Progress {
            job_id: report.job_id.map(JobId::from_text),
            instance_id: instance.clone(),
            progress: report.progress,
            message: report.message,
        });
    }
}

/// The lines of one stream of a worker, in the diagnostics store.
pub(crate) struct StoredLines {
    pub(crate) sinks: Arc<Sinks>,
    pub(crate) session: WorkerSessionId,
    pub(crate) stream: OutputStreamName,
}

impl FloodStore for StoredLines {
    type Item = String;
    const BYTES_PER_SECOND_MAX: usize = STORED_BYTES_PER_SECOND_MAX;

    fn bytes(line: &String) -> usize {
        line.len()
    }

    fn has_room(&self) -> bool {
        self.sinks.diagnostics.has_room()
    }

    fn keep(&mut self, line: String) {
        self.sinks.chunk(&self.session, self.stream, line);
    }

    fn keep_dropped(&mut self, lines: u64, _: Option<String>) {
        self.keep(dropped_lines(lines));
    }

    fn settled(&self) -> BoxFuture<'static, ()> {
        self.sinks.diagnostics.flush()
    }
}

/// The records of a worker, in the diagnostics store.
pub(crate) struct StoredRecords {
    pub(crate) sinks: Arc<Sinks>,
    pub(crate) session: WorkerSessionId,
}

impl FloodStore for StoredRecords {
    type Item = Record;
    /// The worker's own queue bounds them; what the store has room for is kept.
    const BYTES_PER_SECOND_MAX: usize = usize::MAX;

    fn has_room(&self) -> bool {
        self.sinks.diagnostics.has_room_for_records()
    }

    fn bytes(record: &Record) -> usize {
        record.message.len()
    }

    fn keep(&mut self, record: Record) {
        self.sinks.record(&self.session, record);
    }

    fn keep_dropped(&mut self, records: u64, job_id: Option<String>) {
        self.keep(Record {
            ts: None,
            level: "WARNING".to_owned(),
            logger_name: "cjm.records".to_owned(),
            message: format!(
                "[{records} log records dropped here: they came faster than they could be kept, or could not be read]"
            ),
            exc_text: None,
            job_id,
        });
    }

    fn settled(&self) -> BoxFuture<'static, ()> {
        self.sinks.diagnostics.flush()
    }
}

#[cfg(test)]
pub(crate) mod nowhere {
    //! Sinks that keep nothing but progress.

    use super::*;
    use cjm_store::NoDiagnostics;

    pub(crate) fn nowhere() -> (Arc<Sinks>, broadcast::Receiver<HostEvent>) {
        let (sender, events) = broadcast::channel(64);
        (Arc::new(Sinks { diagnostics: Arc::new(NoDiagnostics), events: sender }), events)
    }
}
