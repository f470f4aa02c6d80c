//! How a run ends: what its callers are told, and what is written of it.

use crate::compositions::driver::Driver;
use crate::compositions::failures::{deadline_failure, failure_at, refusal};
use crate::compositions::state::{CompositionOutcome, NodeOutcome};
use crate::error::HostError;
use cjm_decide::composition::{Failures, Halt};
use cjm_store::rows::ToldFailure;
use cjm_store::{Body, Commit, CompositionEnd, StoreError, Write, rows};
use cjm_wire::Timestamp;
use cjm_wire::composition::RunOutcome;
use cjm_wire::describe::Described as _;
use cjm_wire::error::Failure;
use cjm_wire::event::{JobStatus, JournalRow};
use cjm_wire::json::Json;
use cjm_workers::NodeState;

impl Driver {
    /// Every node as it stands, in the document's order.
    fn nodes(&self) -> Vec<NodeOutcome> {
        let outcome = |name: &String| {
            Some(self.tallies.get(name)?.clone().outcome(name.clone(), self.monitor.as_ref()))
        };
        self.order.iter().filter_map(outcome).collect()
    }

    /// Why figures of the monitor are missing, if some are.
    fn fault_of_monitor(&self) -> Option<String> {
        match &self.monitor {
            Some(monitor) => monitor.fault(),
            None => self.monitor_fault.clone(),
        }
    }

    /// The failure that came first.
    fn first_of(&self, failures: &Failures) -> Option<Failure> {
        let first = failures.first()?;
        let tally = first.node.as_ref().and_then(|node| self.tallies.get(node));
        // An element without a place in a list is the only one.
        let known = tally.and_then(|tally| tally.failure_of(first.element.unwrap_or(0)));
        let nodes = &self.run.composition().nodes;
        Some(failure_at(first, known, first.node.as_ref().and_then(|node| nodes.get(node))))
    }

    /// What callers of a run that fails fast are told while others of its calls are being cancelled. The failure is kept
    /// before it is told, so that a host that dies now leaves it to the next one.
    pub(super) async fn first_failure(&self) -> CompositionOutcome {
        let is_running = |job| {
            let job = self.host.jobs().get(job);
            job.is_some_and(|job| job.record().status == JobStatus::Running)
        };
        let calls_running = self.jobs.values().filter(|job| is_running(job)).count();
        let (output, failures) = self.run.so_far();
        let mut nodes = self.nodes();
        let failure = self.first_of(&failures);
        let failed = failures.first().and_then(|first| first.node.as_ref());
        for node in nodes.iter_mut().filter(|node| Some(&node.name) == failed) {
            node.status = NodeState::Failed;
            // Kept of its job where one carries it; of what did not bind there is none.
            node.failure = node.failure.take().or_else(|| failure.clone());
        }
        if let Some(failure) = failure.clone() {
            let id = self.record.composition_id.clone();
            let commit = Commit::telling().write(Write::CompositionFails(id, Box::new(failure)));
            if let Err(error) = self.host.services().journal.commit(commit).await {
                tracing::warn!(%error, "the first failure of a composition is told before it is kept");
            }
        }
        CompositionOutcome {
            composition_id: self.record.composition_id.clone(),
            outcome: RunOutcome::Failed,
            status: RunOutcome::Failed.job_status(),
            output,
            failure,
            failures,
            nodes,
            still_running: self.run.in_flight(),
            calls_running,
            monitor_fault: self.fault_of_monitor(),
        }
    }

    pub(super) async fn end(
        &self,
        outcome: RunOutcome,
        output: Json,
        failures: Failures,
    ) -> CompositionOutcome {
        let status = outcome.job_status();
        // The monitor goes with the driver: no end waits for it, neither on its way to the disk nor to who is told.
        let (nodes, monitor_fault) = (self.nodes(), self.fault_of_monitor());
        let failure: Option<Failure> = match (self.run.halt(), self.limit) {
            (Some(Halt::Deadline), Some(limit)) => {
                let mut failure = deadline_failure(&self.record.name, limit.given);
                failure.report.stderr_tail = self.said_when_stopped.clone();
                Some(failure)
            }
            (Some(Halt::Refused), _) => self.refusal.clone(),
            _ => self.first_of(&failures),
        };
        let end = CompositionEnd {
            composition_id: self.record.composition_id.clone(),
            status,
            completed_at: Timestamp::now(),
            failure: failure.clone(),
            output: Some(Body::Inline(output.text().as_bytes().to_vec())),
        };
        let mut row = rows::composition_finished(&self.record, &end);
        row.payload.insert("nodes".to_owned(), serde_json::to_value(&nodes).unwrap_or_default());
        if let Some(fault) = &monitor_fault {
            row.payload.insert("monitor_fault".to_owned(), fault.as_str().into());
        }
        let listed = failures.listed().iter();
        let listed: Vec<ToldFailure> = listed
            .map(|f| ToldFailure { node: f.node.clone(), element: f.element, message: f.message.clone() })
            .collect();
        rows::tell_outcome(&mut row, outcome, &listed, failures.left_out());
        let committed = self.commit_end(end, row).await;
        // An end that is not on the disk is no success. The store may write it later, as that of a job.
        let (outcome, status, failure) = match committed {
            Ok(()) => (outcome, status, failure),
            // It failed in any case, and why stays true.
            Err(error) if outcome == RunOutcome::Failed => {
                unwritten(error);
                (outcome, status, failure)
            }
            Err(error) => (RunOutcome::Failed, JobStatus::Failed, Some(unwritten(error))),
        };
        CompositionOutcome {
            composition_id: self.record.composition_id.clone(),
            outcome,
            status,
            output,
            failure,
            failures,
            nodes,
            still_running: 0,
            calls_running: 0,
            monitor_fault,
        }
    }

    /// A row that is larger than a row may be is shortened.
    async fn commit_end(&self, end: CompositionEnd, row: JournalRow) -> Result<(), StoreError> {
        let journal = &self.host.services().journal;
        let commit = |row| Commit::telling().write(Write::EndComposition(Box::new(end.clone()))).row(row);
        match journal.commit(commit(row.clone())).await {
            Err(StoreError::TooLarge { .. }) => {
                let mut row = row;
                rows::shorten_end(&mut row);
                journal.commit(commit(row)).await.map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }
}

/// The failure of a run whose end could not be written.
fn unwritten(error: StoreError) -> Failure {
    if !error.is_said_by_writer() {
        let next_step = error.next_step();
        tracing::error!(%error, next_step, "the end of a composition could not be written");
    }
    refusal("its end could not be written", &HostError::Store(error))
}
