//! What a host tells whoever listens, live: what is too fleeting to be a row, or is shown before its row is read. The
//! journal is the record, and its own subscription the way to follow it.

use cjm_wire::{CompositionId, InstanceId, JobId};

/// Events a slow listener may be behind before it loses some (it is told how many).
pub const EVENTS_BEHIND_MAX: usize = 4096;

/// One event.
#[derive(Debug, Clone)]
pub enum HostEvent {
    /// A tool says how far it is.
    Progress {
        /// The job, when the call has one.
        job_id: Option<JobId>,
        /// The instance.
        instance_id: InstanceId,
        /// 0.0 to 1.0, or -1.0.
        progress: f64,
        /// What it is doing.
        message: String,
    },
    /// A node of a composition moved on.
    Node {
        /// The composition.
        composition_id: CompositionId,
        /// The node.
        node: String,
        /// Where it stands.
        state: NodeState,
        /// Elements that have ended (1 for a node without `map`).
        elements_done: usize,
        /// All elements, once known.
        elements_total: Option<usize>,
    },
    /// A worker moved on.
    Worker {
        /// The instance.
        instance_id: InstanceId,
        /// Where it stands.
        state: WorkerState,
        /// Its process, once there is one.
        pid: Option<u32>,
    },
}

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// For others.
    Waiting,
    /// At least one element was submitted.
    Running,
    /// All elements completed.
    Completed,
    /// Best effort: some elements completed.
    Partial,
    /// An element failed; best effort: none completed.
    Failed,
    /// Somebody asked.
    Cancelled,
    /// Something it depends on failed.
    Skipped,
}

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Being started.
    Starting,
    /// Takes calls.
    Ready,
    /// Died by itself; the next call starts it again.
    Dead,
    /// Ended by the host, which may start it again for the next call.
    Unloaded,
}
