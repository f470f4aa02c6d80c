//! What is known of a composition's node so far, entered as its elements end.

use crate::compositions::monitor::Monitor;
use crate::compositions::state::{NodeOutcome, NodeUsage};
use crate::queue::state::JobOutcome;
use cjm_decide::composition::NodeError;
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

    /// The node ended, and this failed first: `tell` makes it of what its job said, if one carries it. The job of another
    /// element may have failed before the node did, and after this.
    pub(crate) fn fail_with(&mut self, first: &NodeError, tell: impl FnOnce(Option<&Failure>) -> Failure) {
        // An element without a place in a list is the only one.
        let element = first.element.unwrap_or(0);
        let failure = tell(self.failure_of(element));
        self.failure = Some((element, failure));
    }

    /// Of a job that completed, `passes` says whether its result does.
    pub(crate) fn enter(&mut self, element: usize, outcome: &JobOutcome, passes: bool) {
        self.completed += usize::from(outcome.status == JobStatus::Completed && passes);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compositions::failures::node_failure;
    use cjm_wire::{InstanceId, JobId};

    fn outcome(span: (&str, &str), instance: &str, pid: u32) -> JobOutcome {
        let stamp = |second: &str| Timestamp::from_text(format!("2026-01-01T00:00:{second}.000000+00:00"));
        JobOutcome {
            job_id: JobId::new(),
            status: JobStatus::Completed,
            result: None,
            failure: None,
            submitted_at: stamp("00"),
            started_at: Some(stamp(span.0)),
            completed_at: Some(stamp(span.1)),
            instance_id: Some(InstanceId::from_text(instance)),
            worker_session_id: None,
            worker_pid: Some(pid),
        }
    }

    #[test]
    fn a_node_that_failed_by_one_element_is_not_told_with_the_words_of_another() {
        let of_job = |words: &str| node_failure("many", None, words);
        let failed = JobOutcome { failure: Some(of_job("of the job")), ..outcome(("10", "11"), "tool-1", 7) };
        for (first, expected) in [(None, Some("of the job")), (Some(0), Some("of the job")), (Some(1), None)]
        {
            let mut tally = Tally::new("tool");
            tally.enter(0, &failed, false);
            let error = NodeError {
                node: Some("many".to_owned()),
                element: first,
                message: String::new(),
                next_step: None,
            };
            tally.fail_with(&error, |known| {
                assert_eq!(known.map(|known| known.error.message.as_str()), expected, "{first:?}");
                of_job("of the node")
            });
            let kept = tally.failure_of(first.unwrap_or(0)).map(|failure| failure.error.message.as_str());
            assert_eq!(kept, Some("of the node"), "{first:?}");
        }
    }

    #[test]
    fn a_node_lasts_from_its_first_element_to_its_last_in_whatever_order_they_end() {
        let mut tally = Tally::new("tool");
        tally.total = 5;
        tally.enter(1, &outcome(("10", "14"), "tool-1", 7), true);
        tally.enter(0, &outcome(("12", "13"), "tool-2", 8), true);
        tally.enter(2, &outcome(("09", "11"), "tool-1", 7), true);
        // Never begun.
        let waited = JobOutcome { started_at: None, ..outcome(("01", "59"), "tool-3", 9) };
        tally.enter(3, &JobOutcome { status: JobStatus::Cancelled, instance_id: None, ..waited }, false);
        // Completed, and its result is no JSON.
        tally.enter(4, &outcome(("10", "11"), "tool-1", 7), false);
        let node = tally.outcome("many".to_owned(), None);
        assert_eq!((node.elements_completed, node.elements_total), (3, 5));
        assert_eq!((node.wall_seconds, node.busy_seconds), (5.0, 8.0));
        assert_eq!(node.instances, BTreeSet::from(["tool-1".to_owned(), "tool-2".to_owned()]));
        assert_eq!((node.pids, node.usage), (BTreeSet::from([7, 8]), None));
    }
}
