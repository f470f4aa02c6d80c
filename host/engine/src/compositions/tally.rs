//! What is known of a composition's node so far, entered as its elements end.

use crate::compositions::monitor::Monitor;
use crate::compositions::state::{NodeOutcome, NodeUsage};
use crate::queue::state::JobOutcome;
use cjm_wire::Timestamp;
use cjm_wire::error::Failure;
use cjm_wire::event::JobStatus;
use cjm_workers::NodeState;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a node so far.
#[derive(Clone)]
pub(crate) struct Tally {
    capability: String,
    pub(crate) total: usize,
    completed: usize,
    pub(crate) state: NodeState,
    spans: BTreeMap<u32, Vec<(i64, i64)>>,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    busy_seconds: f64,
    instances: BTreeSet<String>,
    pub(crate) reason: Option<String>,
    /// The first failure of an element, and which one; of a node that no job failed, its own.
    pub(crate) failure: Option<(usize, Failure)>,
}

impl Tally {
    pub(crate) fn new(capability: &str) -> Self {
        Self {
            capability: capability.to_owned(),
            total: 0,
            completed: 0,
            state: NodeState::Waiting,
            spans: BTreeMap::new(),
            started_at: None,
            completed_at: None,
            busy_seconds: 0.0,
            instances: BTreeSet::new(),
            reason: None,
            failure: None,
        }
    }

    /// The failure of this element, where it is the one that is kept.
    pub(crate) fn failure_of(&self, element: usize) -> Option<&Failure> {
        self.failure.as_ref().filter(|(of, _)| *of == element).map(|(_, failure)| failure)
    }

    pub(crate) fn enter(&mut self, element: usize, outcome: &JobOutcome) {
        self.completed += usize::from(outcome.status == JobStatus::Completed);
        if self.failure.is_none() {
            self.failure = outcome.failure.clone().map(|failure| (element, failure));
        }
        self.instances.extend(outcome.instance_id.as_ref().map(ToString::to_string));
        let (Some(start), Some(end)) = (&outcome.started_at, &outcome.completed_at) else { return };
        if self.started_at.as_ref().is_none_or(|known| start < known) {
            self.started_at = Some(start.clone());
        }
        if self.completed_at.as_ref().is_none_or(|known| end > known) {
            self.completed_at = Some(end.clone());
        }
        if let (Some(from), Some(to)) = (start.as_micros(), end.as_micros()) {
            self.busy_seconds += (to - from) as f64 / 1e6;
            if let Some(pid) = outcome.worker_pid {
                self.spans.entry(pid).or_default().push((from, to));
            }
        }
    }

    pub(crate) fn outcome(self, name: String, monitor: Option<&Monitor>) -> NodeOutcome {
        let mut usage: Option<NodeUsage> = None;
        for (pid, spans) in &self.spans {
            if let Some(of_worker) = monitor.and_then(|monitor| monitor.usage(*pid, spans)) {
                let sum = usage.get_or_insert_default();
                sum.cpu_seconds += of_worker.cpu_seconds;
                sum.peak_rss_mb = sum.peak_rss_mb.max(of_worker.peak_rss_mb);
            }
        }
        let micros = |stamp: &Option<Timestamp>| stamp.as_ref().and_then(Timestamp::as_micros);
        let wall_seconds = match (micros(&self.started_at), micros(&self.completed_at)) {
            (Some(from), Some(to)) => (to - from) as f64 / 1e6,
            _ => 0.0,
        };
        NodeOutcome {
            name,
            capability: self.capability,
            status: self.state,
            elements_total: self.total,
            elements_completed: self.completed,
            started_at: self.started_at,
            completed_at: self.completed_at,
            wall_seconds,
            busy_seconds: self.busy_seconds,
            instances: self.instances,
            pids: self.spans.into_keys().collect(),
            usage,
            reason: self.reason,
            failure: self.failure.map(|(_, failure)| failure),
        }
    }
}
