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

/// A composition that was accepted.
pub(crate) struct CompositionHandle {
    pub(crate) outcome: watch::Receiver<Option<Arc<CompositionOutcome>>>,
    pub(crate) cancel: watch::Sender<Wish>,
}

/// What callers have asked a run to do, the strongest of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    #[default]
    GoOn,
    /// To end: its calls are asked, and have their grace.
    End,
    /// To end without a grace.
    EndAtOnce,
}

impl CompositionHandle {
    /// Whether nothing of it runs any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.outcome.borrow().as_ref().is_some_and(|outcome| outcome.still_running == 0)
    }

    /// Asks for this, and takes back nothing that was asked before.
    pub(crate) fn ask(&self, wish: Wish) {
        self.cancel.send_if_modified(|asked| {
            let is_stronger = wish > *asked;
            if is_stronger {
                *asked = wish;
            }
            is_stronger
        });
    }
}

/// What a composition came to: how it ended, or, of one that fails fast, its first failure while others of its calls still
/// end. What it says of its status is final in both cases.
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
    /// Calls that had not ended when this was told, running or waiting, and are being cancelled; 0 once all of it has ended.
    pub still_running: usize,
    /// How many of those a worker was at; the others waited.
    pub calls_running: usize,
    /// Why the monitor that the document names has measured nothing, or stopped before the end.
    pub monitor_fault: Option<String>,
}

/// How a node ended, and what it took.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
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
    /// Its first failure; not of a run that is read from the store.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// What a step used.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NodeUsage {
    /// Processor time, user and system, of the worker's whole tree.
    pub cpu_seconds: f64,
    /// Largest resident memory of one worker's whole tree, MB (2^20 bytes).
    pub peak_rss_mb: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(still_running: usize) -> CompositionOutcome {
        CompositionOutcome {
            composition_id: CompositionId::new(),
            outcome: RunOutcome::Failed,
            status: JobStatus::Failed,
            output: Json::default(),
            failure: None,
            failures: Failures::default(),
            nodes: Vec::new(),
            still_running,
            calls_running: 0,
            monitor_fault: None,
        }
    }

    #[test]
    fn one_that_has_told_its_first_failure_has_not_ended_and_a_weaker_wish_takes_no_stronger_one_back() {
        let ((tells, outcome), (cancel, _asked)) = (watch::channel(None), watch::channel(Wish::GoOn));
        let handle = CompositionHandle { outcome, cancel };
        assert!(!handle.has_ended());
        for (still_running, has_ended) in [(2, false), (0, true)] {
            tells.send_replace(Some(Arc::new(told(still_running))));
            assert_eq!(handle.has_ended(), has_ended, "{still_running}");
        }
        for wish in [Wish::EndAtOnce, Wish::End, Wish::GoOn] {
            handle.ask(wish);
            assert_eq!(*handle.cancel.borrow(), Wish::EndAtOnce, "{wish:?}");
        }
    }
}
