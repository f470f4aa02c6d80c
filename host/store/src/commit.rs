//! One commit: journal rows and changes of our tables that become true together or not at all. Here is what may be
//! in one, and how it is made ready on the caller's thread; `apply` applies it.
//!
//! ```text
//! job:  (insert) pending ──start──▶ running ──start, higher attempt──▶ running
//!                   │  ◀──waits again───┤
//!                   └──────────── end ──┴──▶ completed | failed | cancelled
//! ```
//! Every other change of a job is refused, to its caller alone.

use crate::error::StoreError;
use crate::payload::{INLINE_BYTES_MAX, PendingPayload, spill};
use crate::records::{
    Body, CompositionEnd, CompositionRecord, HostRecord, JobEnd, JobRecord, JobStart, WorkerRecord,
};
use crate::rows::bounded_failure;
use crate::rows::failure_text;
use cjm_wire::Timestamp;
use cjm_wire::error::Failure;
use cjm_wire::event::JournalRow;
use cjm_wire::ids::{CompositionId, JobId, WorkerSessionId};
use cjm_wire::python_json::{Style, to_string};
use serde_json::Value;

/// A commit up to this size does not fail alone: where it finds no room, nothing does. It is the size of the commit that
/// is tried to find that out, and of what may be written in the room of the reserve.
pub const SMALL_COMMIT_BYTES: usize = 64 * 1024;
/// Longest payload of one journal row.
pub const ROW_PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Most of everything in one commit, large bodies not counted.
pub const COMMIT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a row or change weighs beside its texts.
const ENTRY_BYTES: usize = 512;

/// One change of our own tables.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Accepts a job, with its arguments (JSON as the caller renders it).
    InsertJob(Box<JobRecord>, Body),
    /// Begins an attempt.
    StartJob(JobStart),
    /// Takes back the beginning of an attempt whose call its tool did not take: `running` → `pending`.
    JobWaitsAgain {
        /// The job.
        job_id: JobId,
        /// The attempt.
        attempt: u32,
    },
    /// Ends a job.
    EndJob(Box<JobEnd>),
    /// Accepts a composition: record, document, inputs.
    InsertComposition(Box<CompositionRecord>, Body, Body),
    /// `pending` → `running`.
    StartComposition(CompositionId),
    /// Keeps the first failure of a composition that has not ended yet: it will end `failed` for this reason.
    CompositionFails(CompositionId, Box<Failure>),
    /// Ends a composition.
    EndComposition(Box<CompositionEnd>),
    /// A host begins.
    HostStarted(HostRecord),
    /// Hosts but this one are dead.
    HostsEnded {
        /// The living one.
        except: String,
        /// When that was found out.
        ended_at: Timestamp,
    },
    /// A worker was spawned.
    WorkerSpawned(Box<WorkerRecord>),
    /// A worker and all its descendants are gone.
    WorkerEnded(WorkerSessionId, Timestamp),
}

/// What becomes of a commit that is handed in while the disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenClosed {
    /// It is refused at once: it would accept new work.
    Refuse,
    /// It waits in memory: it tells of work that was accepted before.
    Wait,
}

/// Rows and changes that become true together.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// In this order, after the changes.
    pub rows: Vec<JournalRow>,
    /// In this order.
    pub writes: Vec<Write>,
    /// What becomes of it while the disk fails.
    pub when_closed: WhenClosed,
}

impl Commit {
    /// Accepts new work: refused while the disk fails.
    #[must_use]
    pub fn admitting() -> Self {
        Self { rows: Vec::new(), writes: Vec::new(), when_closed: WhenClosed::Refuse }
    }

    /// Tells of work accepted before: waits while the disk fails.
    #[must_use]
    pub fn telling() -> Self {
        Self { when_closed: WhenClosed::Wait, ..Self::admitting() }
    }

    /// Adds a journal row.
    #[must_use]
    pub fn row(mut self, row: JournalRow) -> Self {
        self.rows.push(row);
        self
    }

    /// Adds a change.
    #[must_use]
    pub fn write(mut self, write: Write) -> Self {
        self.writes.push(write);
        self
    }

    /// Whether a body in it goes into a file. To name that takes a second for some hundred megabytes, and for some tens in a
    /// build without optimisation.
    pub(crate) fn has_large_body(&self) -> bool {
        let is_large =
            |body: &Body| matches!(body, Body::Inline(content) if content.len() > INLINE_BYTES_MAX);
        self.writes.iter().flat_map(bodies).any(is_large)
    }
}

/// The bodies of a change.
fn bodies(write: &Write) -> impl Iterator<Item = &Body> {
    let bodies = match write {
        Write::InsertJob(_, arguments) => [Some(arguments), None],
        Write::EndJob(end) => [end.result.as_ref(), None],
        Write::InsertComposition(_, document, inputs) => [Some(document), Some(inputs)],
        Write::EndComposition(end) => [end.output.as_ref(), None],
        _ => [None, None],
    };
    bodies.into_iter().flatten()
}

/// Where a commit's rows stand in the journal. Sequence numbers start at 1; both are 0 when it had no rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Of its first row.
    pub first_seq: i64,
    /// Of its last row.
    pub last_seq: i64,
}

/// A commit whose texts are rendered, sizes known, and large bodies split off.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) rows: Vec<(JournalRow, String)>,
    pub(crate) writes: Vec<Write>,
    pub(crate) payloads: Vec<PendingPayload>,
    pub(crate) when_closed: WhenClosed,
    pub(crate) bytes: usize,
}

impl Prepared {
    pub(crate) fn of(commit: Commit) -> Result<Self, StoreError> {
        let mut bytes = 0;
        let mut rows = Vec::with_capacity(commit.rows.len());
        for mut row in commit.rows {
            // The map is moved out and back: rendering needs a `Value`.
            let payload = Value::Object(std::mem::take(&mut row.payload));
            let text = to_string(&payload, Style::Payload);
            if let Value::Object(map) = payload {
                row.payload = map;
            }
            if text.len() > ROW_PAYLOAD_BYTES_MAX {
                return Err(StoreError::TooLarge {
                    what: "the payload of a journal row",
                    bytes: text.len(),
                    bytes_max: ROW_PAYLOAD_BYTES_MAX,
                });
            }
            bytes += ENTRY_BYTES + text.len();
            rows.push((row, text));
        }
        let mut payloads = Vec::new();
        let mut writes = Vec::with_capacity(commit.writes.len());
        for mut write in commit.writes {
            prepare_write(&mut write, &mut payloads)?;
            bytes += write_bytes(&write);
            writes.push(write);
        }
        if bytes > COMMIT_BYTES_MAX {
            return Err(StoreError::TooLarge { what: "the commit", bytes, bytes_max: COMMIT_BYTES_MAX });
        }
        Ok(Self { rows, writes, payloads, when_closed: commit.when_closed, bytes })
    }

    /// Names of the files that hold its large bodies.
    pub(crate) fn body_files(&self) -> impl Iterator<Item = &str> {
        self.writes.iter().flat_map(bodies).filter_map(|body| match body {
            Body::File { hash, .. } => Some(hash.as_str()),
            Body::Inline(_) => None,
        })
    }
}

/// Splits large bodies off and cuts errors to their maximum.
fn prepare_write(write: &mut Write, payloads: &mut Vec<PendingPayload>) -> Result<(), StoreError> {
    let mut split = |body: &mut Body| -> Result<(), StoreError> {
        let (kept, pending) = spill(std::mem::replace(body, Body::Inline(Vec::new())))?;
        *body = kept;
        payloads.extend(pending);
        Ok(())
    };
    match write {
        Write::InsertJob(job, arguments) => {
            job.failure = job.failure.as_ref().map(bounded_failure);
            split(arguments)
        }
        Write::EndJob(end) => {
            end.failure = end.failure.as_ref().map(bounded_failure);
            end.result.as_mut().map_or(Ok(()), split)
        }
        Write::CompositionFails(_, why) => {
            **why = bounded_failure(why);
            Ok(())
        }
        Write::InsertComposition(_, document, inputs) => split(document).and_then(|()| split(inputs)),
        Write::EndComposition(end) => {
            end.failure = end.failure.as_ref().map(bounded_failure);
            end.output.as_mut().map_or(Ok(()), split)
        }
        _ => Ok(()),
    }
}

fn write_bytes(write: &Write) -> usize {
    let inline = |body: &Body| match body {
        Body::Inline(bytes) => bytes.len(),
        Body::File { .. } => 0,
    };
    let failure = |failure: &Option<Failure>| failure_text(failure.as_ref()).map_or(0, |text| text.len());
    ENTRY_BYTES
        + match write {
            Write::InsertJob(job, arguments) => inline(arguments) + failure(&job.failure),
            Write::EndJob(end) => end.result.as_ref().map_or(0, inline) + failure(&end.failure),
            Write::InsertComposition(_, document, inputs) => inline(document) + inline(inputs),
            Write::CompositionFails(_, why) => failure_text(Some(why)).map_or(0, |text| text.len()),
            Write::EndComposition(end) => end.output.as_ref().map_or(0, inline) + failure(&end.failure),
            _ => 0,
        }
}
