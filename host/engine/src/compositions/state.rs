//! A composition as others see it: a handle while it runs, and how it and its nodes ended.

use cjm_decide::composition::Failures;
use cjm_wire::composition::RunOutcome;
use cjm_wire::error::Failure;
use cjm_wire::event::JobStatus;
use cjm_wire::json::Json;
use cjm_wire::{CompositionId, Timestamp};
use cjm_workers::NodeState;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;

/// A composition that runs.
pub(crate) struct CompositionHandle {
    pub(crate) id: CompositionId,
    pub(crate) outcome: watch::Receiver<Option<Arc<CompositionOutcome>>>,
    pub(crate) cancel: watch::Sender<bool>,
}

impl CompositionHandle {
    pub(crate) fn cancel(&self) {
        self.cancel.send_replace(true);
    }
}

/// How a composition ended.
#[derive(Debug, Clone)]
pub struct CompositionOutcome {
    /// Its id.
    pub composition_id: CompositionId,
    /// How.
    pub outcome: RunOutcome,
    /// The same in the words of jobs: what completed in part is `failed`.
    pub status: JobStatus,
    /// The bound `output`, or what all nodes have made, by name.
    pub output: Json,
    /// The first failure.
    pub failure: Option<Failure>,
    /// All of them, with node and element.
    pub failures: Failures,
    /// Every node, in the document's order.
    pub nodes: Vec<NodeOutcome>,
}

/// How a node ended, and what it took.
#[derive(Debug, Clone, serde::Serialize)]
pub struct NodeOutcome {
    /// Its name.
    pub name: String,
    /// The capability it calls.
    pub capability: String,
    /// Where it stands at the end.
    pub status: NodeState,
    /// Elements it had, 1 without `map`; 0 when it never began.
    pub elements_total: usize,
    /// Elements that completed.
    pub elements_completed: usize,
    /// When its first element began.
    pub started_at: Option<Timestamp>,
    /// When its last element ended.
    pub completed_at: Option<Timestamp>,
    /// Seconds from the one to the other.
    pub wall_seconds: f64,
    /// Seconds its elements took together.
    pub busy_seconds: f64,
    /// Instances it ran on.
    pub instances: BTreeSet<String>,
    /// Worker processes it ran in.
    pub pids: BTreeSet<u32>,
    /// What it used, when a monitor watched.
    pub usage: Option<NodeUsage>,
    /// In words, where it did not complete: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its first failure.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// What a step used.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct NodeUsage {
    /// Processor time, user and system, of the worker's whole tree.
    pub cpu_seconds: f64,
    /// Largest resident memory of one worker's whole tree, MB (2^20 bytes).
    pub peak_rss_mb: f64,
}
