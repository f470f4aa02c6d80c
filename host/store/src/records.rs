//! What the store remembers of jobs, compositions, hosts and workers, as plain data. These are the columns of our
//! own tables; how they change is `commit`'s, how they become journal rows is `rows`'.

use cjm_wire::Timestamp;
use cjm_wire::error::Failure;
use cjm_wire::event::{JobStatus, JournalRow};
use cjm_wire::ids::{CompositionId, JobId, RunId, WorkerSessionId};
use serde::Serialize;
use serde_json::{Map, Value};

/// Arguments, results and documents: JSON text. Kept in the database up to
/// [`INLINE_BYTES_MAX`](crate::payload::INLINE_BYTES_MAX), above it in a file named by its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The bytes themselves. A body of any size is handed to a commit like this.
    Inline(Vec<u8>),
    /// A file under `payloads/`.
    File {
        /// SHA-256 of the content, lower-case hexadecimal: the file's name.
        hash: String,
        /// Its length.
        bytes: u64,
    },
}

impl Body {
    /// JSON text of `value`.
    #[must_use]
    pub fn of_json(value: &Value) -> Self {
        Self::Inline(value.to_string().into_bytes())
    }

    /// Length of the content in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File { bytes, .. } => *bytes,
        }
    }
}

/// One job, whole life.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobRecord {
    /// Its name.
    pub job_id: JobId,
    /// The composition it is a node of.
    pub composition_id: Option<CompositionId>,
    /// Which node.
    pub node_id: Option<String>,
    /// Which element of a mapped node.
    pub element_index: Option<u32>,
    /// The run it belongs to.
    pub run_id: Option<RunId>,
    /// Who asked for it.
    pub actor: Option<String>,
    /// The capability.
    pub capability_name: String,
    /// What was asked for: a capability or one of its instances.
    pub target: String,
    /// Action of the call.
    pub action: Option<String>,
    /// Task of an adapter call.
    pub task_name: Option<String>,
    /// Method of an adapter call.
    pub method: Option<String>,
    /// Higher runs first.
    pub priority: i32,
    /// Where it is.
    pub status: JobStatus,
    /// 0 until it first runs, then 1 and up.
    pub attempt: u32,
    /// Whether running it twice does no harm; unknown when nobody said.
    pub idempotent: Option<bool>,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// When its latest attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// The worker of its latest attempt.
    pub worker_session_id: Option<WorkerSessionId>,
    /// The instance of its latest attempt.
    pub instance_id: Option<String>,
    /// Flags of the call, as in its envelope.
    pub control: Map<String, Value>,
    /// How it failed, when it did.
    pub failure: Option<Failure>,
}

impl JobRecord {
    /// A pending job for `capability_name`, submitted at `now`, everything else empty.
    #[must_use]
    pub fn new(job_id: JobId, capability_name: impl Into<String>, now: Timestamp) -> Self {
        let capability_name = capability_name.into();
        Self {
            job_id,
            composition_id: None,
            node_id: None,
            element_index: None,
            run_id: None,
            actor: None,
            target: capability_name.clone(),
            capability_name,
            action: None,
            task_name: None,
            method: None,
            priority: 0,
            status: JobStatus::Pending,
            attempt: 0,
            idempotent: None,
            submitted_at: now,
            started_at: None,
            completed_at: None,
            worker_session_id: None,
            instance_id: None,
            control: Map::new(),
            failure: None,
        }
    }
}

/// `running`, with which attempt on which worker. A retry is the same with a higher attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStart {
    /// Which job.
    pub job_id: JobId,
    /// Counted from 1.
    pub attempt: u32,
    /// Where it runs.
    pub instance_id: String,
    /// The worker, when it is known.
    pub worker_session_id: Option<WorkerSessionId>,
    /// When the attempt began.
    pub started_at: Timestamp,
}

/// The end of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobEnd {
    /// Which job.
    pub job_id: JobId,
    /// A terminal status.
    pub status: JobStatus,
    /// When.
    pub completed_at: Timestamp,
    /// For `failed`, and where a cancelled job has something to say.
    pub failure: Option<Failure>,
    /// For `completed`.
    pub result: Option<Body>,
}

/// One composition, whole life, without its bodies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CompositionRecord {
    /// Its id.
    pub composition_id: CompositionId,
    /// Its name, for people.
    pub name: String,
    /// The run it belongs to.
    pub run_id: Option<RunId>,
    /// Who asked for it.
    pub actor: Option<String>,
    /// The same words as for jobs.
    pub status: JobStatus,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// How it failed, when it did.
    pub failure: Option<Failure>,
}

/// The end of a composition.
#[derive(Debug, Clone, PartialEq)]
pub struct CompositionEnd {
    /// Which one.
    pub composition_id: CompositionId,
    /// A terminal status.
    pub status: JobStatus,
    /// When.
    pub completed_at: Timestamp,
    /// Why it failed, when it did.
    pub failure: Option<Failure>,
    /// What it returns.
    pub output: Option<Body>,
}

/// Which body of a composition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompositionBody {
    /// The document as submitted.
    Document,
    /// The values it was given.
    Inputs,
    /// What it returned.
    Output,
}

impl CompositionBody {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::Inputs => "inputs",
            Self::Output => "output",
        }
    }
}

/// One life of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostRecord {
    /// Names this life; the store's rows of workers refer to it.
    pub host_session_id: String,
    /// Process id.
    pub pid: u32,
    /// When it began.
    pub started_at: Timestamp,
}

/// One spawn of one worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerRecord {
    /// Its incarnation; also in the environment of all its processes (`CJM_WORKER_SESSION_ID`).
    pub worker_session_id: WorkerSessionId,
    /// The host that had it spawned.
    pub host_session_id: String,
    /// The instance it is.
    pub instance_id: String,
    /// The capability.
    pub capability_name: String,
    /// Process id, which is also its session.
    pub pid: u32,
    /// When.
    pub spawned_at: Timestamp,
    /// When it was seen to be gone; absent while it lives, as far as the store knows.
    pub ended_at: Option<Timestamp>,
}

/// A committed journal row with its place in the order of commits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeqRow {
    /// Place; grows, has gaps, starts at 1.
    pub seq: i64,
    /// The row.
    #[serde(flatten)]
    pub row: JournalRow,
}

/// One job of a listing, with its place in the order of acceptance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeqJob {
    /// Place; pages continue after it.
    pub seq: i64,
    /// The job.
    #[serde(flatten)]
    pub job: JobRecord,
}

/// One structured log record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiagnosticRecord {
    /// When it was said.
    pub ts: Timestamp,
    /// By which incarnation of a worker.
    pub worker_session_id: Option<String>,
    /// In whose call.
    pub job_id: Option<String>,
    /// `DEBUG`, `INFO`, `WARNING`, `ERROR`, `CRITICAL`, or whatever a tool invented.
    pub level: String,
    /// Dotted name.
    pub logger_name: String,
    /// The message.
    pub message: String,
    /// Formatted traceback.
    pub exc_text: Option<String>,
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamChunk {
    /// When it was read.
    pub ts: Timestamp,
    /// By which incarnation of a worker.
    pub worker_session_id: Option<String>,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The text.
    pub content: String,
}

/// A record with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeqRecord {
    /// Place; pages continue after it.
    pub seq: i64,
    /// The record.
    #[serde(flatten)]
    pub record: DiagnosticRecord,
}

/// A chunk with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeqChunk {
    /// Place; pages continue after it.
    pub seq: i64,
    /// The chunk.
    #[serde(flatten)]
    pub chunk: StreamChunk,
}
