//! A composition, performed: submits the elements that `decide` asks for, tells it how they ended, and writes the end down
//! with what each node took.
//!
//! A run that fails fast answers its callers with the first failure at once, and goes on until all it had begun has ended;
//! only then its end is written. A host that ends meanwhile waits for that, since it has cut off what ran.

use crate::compositions::failures::{deadline_failure, failure_at, node_failure};
use crate::compositions::monitor::Monitor;
use crate::compositions::state::{CompositionOutcome, Limit, NodeOutcome};
use crate::compositions::tally::Tally;
use crate::host::Host;
use crate::queue::state::{ElementEnd, ElementHook, JobOutcome, object};
use crate::queue::submission::{ElementJob, JobRequest};
use cjm_decide::composition::{
    CompositionEffect, CompositionEvent, CompositionRun, ElementOutcome, Failures, Halt, NodeProgress,
    NodeStatus, SubmitElement,
};
use cjm_decide::queue::{CancelReach, Target};
use cjm_store::{Body, Commit, CompositionEnd, CompositionRecord, StoreError, Write, rows};
use cjm_wire::composition::{Composition, RunOutcome};
use cjm_wire::describe::{Described as _, ErrorReport};
use cjm_wire::error::{Failure, JobError};
use cjm_wire::event::{EventType, JobStatus, JournalRow};
use cjm_wire::json::Json;
use cjm_wire::{InstanceId, JobId, Timestamp};
use cjm_workers::{HostEvent, NodeState};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Where callers are told.
type Told = watch::Sender<Option<Arc<CompositionOutcome>>>;

pub(super) struct Driver {
    host: Host,
    run: CompositionRun,
    record: CompositionRecord,
    monitor: Option<Monitor>,
    limit: Option<Limit>,
    order: Vec<String>,
    tallies: BTreeMap<String, Tally>,
    jobs: HashMap<(String, usize), JobId>,
    ends: mpsc::UnboundedSender<ElementEnd>,
}

impl Driver {
    pub(super) fn new(
        host: Host,
        composition: &Composition,
        run: CompositionRun,
        record: CompositionRecord,
        monitor: Option<Monitor>,
        limit: Option<Limit>,
        ends: mpsc::UnboundedSender<ElementEnd>,
    ) -> Self {
        let nodes = composition.nodes.iter();
        let tallies = nodes.map(|(name, node)| (name.clone(), Tally::new(&node.capability))).collect();
        let order = composition.nodes.keys().cloned().collect();
        Self { host, run, record, monitor, limit, order, tallies, jobs: HashMap::new(), ends }
    }

    pub(super) async fn drive(
        mut self,
        mut ends: mpsc::UnboundedReceiver<ElementEnd>,
        mut cancelled: watch::Receiver<bool>,
        told: Told,
    ) {
        let mut events = VecDeque::from([CompositionEvent::Start]);
        let (mut cancel_told, mut deadline_told, mut answered) = (false, self.limit.is_none(), false);
        let closing = self.host.services().closing.clone();
        loop {
            while let Some(event) = events.pop_front() {
                let effects = match self.run.handle(event) {
                    Ok(effects) => effects,
                    Err(error) => {
                        tracing::error!(%error, "a composition refused an event; this is a defect");
                        continue;
                    }
                };
                if let Some(end) = self.perform(effects, &mut events).await {
                    told.send_replace(Some(Arc::new(end)));
                    return;
                }
            }
            if self.run.halt() == Some(Halt::FirstFailure) && !answered {
                answered = true;
                told.send_replace(Some(Arc::new(self.first_failure().await)));
            }
            tokio::select! {
                biased;
                // The next host ends what this one leaves; but what only ends yet is ended here.
                () = closing.cancelled(), if self.run.halt().is_none() => return,
                // Before the ends of jobs, which may be late for the same reason.
                () = passed(self.limit), if !deadline_told => {
                    deadline_told = true;
                    events.push_back(CompositionEvent::DeadlinePassed);
                }
                Some(end) = ends.recv() => {
                    if let Some(tally) = self.tallies.get_mut(&end.node) {
                        tally.enter(&end.outcome);
                    }
                    self.jobs.remove(&(end.node.clone(), end.element));
                    let ended = element_outcome(&end.outcome);
                    self.tell(&end.node);
                    events.push_back(CompositionEvent::ElementEnded { node: end.node, element: end.element, outcome: ended });
                }
                Ok(_) = cancelled.wait_for(|cancelled| *cancelled), if !cancel_told => {
                    cancel_told = true;
                    events.push_back(CompositionEvent::CancelRequested);
                }
            }
        }
    }

    /// Performs effects; `Some` when the run is over.
    async fn perform(
        &mut self,
        effects: Vec<CompositionEffect>,
        events: &mut VecDeque<CompositionEvent>,
    ) -> Option<CompositionOutcome> {
        let mut submissions = Vec::new();
        let mut over = None;
        for effect in effects {
            match effect {
                CompositionEffect::Submit(element) => submissions.push(element),
                CompositionEffect::CancelElement { node, element, reach } => {
                    // It may be among those that were asked for just now.
                    if !submissions.is_empty() {
                        self.submit(std::mem::take(&mut submissions), events).await;
                    }
                    self.stop(&(node, element), reach);
                }
                // Callers learn it once all of this is performed: the cancels do not wait for the journal.
                CompositionEffect::FirstFailure(_) => {}
                CompositionEffect::NodeEnded { node, status, reason, .. } => {
                    self.node_ended(&node, status, reason);
                }
                CompositionEffect::Advanced { completed_node, enqueued_nodes } => {
                    let payload =
                        json!({ "completed_node": completed_node, "enqueued_nodes": enqueued_nodes });
                    self.host.services().note(JournalRow {
                        composition_id: Some(self.record.composition_id.to_string()),
                        node_id: Some(completed_node),
                        ..JournalRow::new(EventType::CompositionAdvanced, object(payload))
                    });
                }
                CompositionEffect::Ended { outcome, output, failures } => {
                    over = Some((outcome, output, failures));
                }
            }
        }
        if !submissions.is_empty() {
            self.submit(submissions, events).await;
        }
        let (outcome, output, failures) = over?;
        Some(self.end(outcome, output, failures).await)
    }

    /// Stops an element's job for the reason for which the run is halted.
    fn stop(&self, place: &(String, usize), reach: CancelReach) {
        let Some(job) = self.jobs.get(place) else { return };
        match (self.run.halt(), self.limit) {
            (Some(Halt::Deadline), Some(limit)) => {
                self.host.stop_for(job, deadline_failure(&self.record.name, limit.given));
            }
            _ if reach == CancelReach::PendingOnly => self.host.cancel_pending(job),
            _ => self.host.cancel(job),
        }
    }

    async fn submit(&mut self, elements: Vec<SubmitElement>, events: &mut VecDeque<CompositionEvent>) {
        let mut places = Vec::with_capacity(elements.len());
        let mut jobs = Vec::with_capacity(elements.len());
        for element in elements {
            if let Some(tally) = self.tallies.get_mut(&element.node) {
                tally.total = element.elements_total;
                tally.state = NodeState::Running;
            }
            places.push((element.node.clone(), element.element));
            let hook = ElementHook {
                node: element.node.clone(),
                element: element.element,
                kwargs: element.kwargs,
                ends: self.ends.clone(),
            };
            // A name that is no capability is an instance, which was there when the run began. It may be unloaded now and then.
            let target = match self.host.catalog().get(&element.capability) {
                Some(_) => Target::Capability(element.capability),
                None => Target::Instance(InstanceId::from_text(element.capability)),
            };
            let request = JobRequest {
                action: element.action,
                task: element.task.zip(element.method),
                priority: element.priority,
                ..JobRequest::new(target)
            };
            jobs.push(ElementJob { request, composition: self.record.composition_id.clone(), hook });
        }
        let nodes: BTreeSet<String> = places.iter().map(|(node, _)| node.clone()).collect();
        match self.host.submit_elements(jobs).await {
            Ok(ids) => self.jobs.extend(places.into_iter().zip(ids)),
            Err(error) => {
                let message = error.to_string();
                events.extend(places.into_iter().map(|(node, element)| CompositionEvent::ElementEnded {
                    node,
                    element,
                    outcome: ElementOutcome::Failed(message.clone()),
                }));
            }
        }
        for node in nodes {
            self.tell(&node);
        }
    }

    fn node_ended(&mut self, node: &str, status: NodeStatus, reason: Option<String>) {
        let Some(tally) = self.tallies.get_mut(node) else { return };
        tally.state = match status {
            NodeStatus::Completed => NodeState::Completed,
            NodeStatus::Partial => NodeState::Partial,
            NodeStatus::Failed => NodeState::Failed,
            NodeStatus::Cancelled => NodeState::Cancelled,
            NodeStatus::Skipped => NodeState::Skipped,
        };
        tally.reason.clone_from(&reason);
        if status == NodeStatus::Failed && tally.failure.is_none() {
            tally.failure = Some(node_failure(node, &reason.unwrap_or_else(|| "failed".to_owned())));
        }
        self.tell(node);
    }

    fn tell(&self, node: &str) {
        let Some(tally) = self.tallies.get(node) else { return };
        let total = match self.run.progress(node) {
            Some(NodeProgress::Running { elements_total, .. }) => Some(elements_total),
            _ => Some(tally.total).filter(|total| *total > 0),
        };
        self.host.services().tell(HostEvent::Node {
            composition_id: self.record.composition_id.clone(),
            node: node.to_owned(),
            state: tally.state,
            elements_done: tally.ended,
            elements_total: total,
        });
    }

    /// Every node as it stands, in the document's order.
    fn nodes(&self) -> Vec<NodeOutcome> {
        let outcome = |name: &String| {
            Some(self.tallies.get(name)?.clone().outcome(name.clone(), self.monitor.as_ref()))
        };
        self.order.iter().filter_map(outcome).collect()
    }

    /// What callers of a run that fails fast are told while others of its calls are being cancelled. The failure is kept
    /// before it is told, so that a host that dies now leaves it to the next one.
    async fn first_failure(&self) -> CompositionOutcome {
        let (output, failures) = self.run.so_far();
        let mut nodes = self.nodes();
        let failure = failures.first().map(|first| failure_at(first, &nodes));
        let failed = failures.first().and_then(|first| first.node.as_ref());
        for node in nodes.iter_mut().filter(|node| Some(&node.name) == failed) {
            node.status = NodeState::Failed;
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
        }
    }

    async fn end(&mut self, outcome: RunOutcome, output: Json, failures: Failures) -> CompositionOutcome {
        let status = outcome.job_status();
        let nodes = self.nodes();
        if let Some(monitor) = self.monitor.take() {
            monitor.stop(&self.host).await;
        }
        let failure: Option<Failure> = match (self.run.halt(), self.limit) {
            (Some(Halt::Deadline), Some(limit)) => Some(deadline_failure(&self.record.name, limit.given)),
            _ => failures.first().map(|first| failure_at(first, &nodes)),
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
        row.payload.insert("outcome".to_owned(), outcome.as_str().into());
        row.payload.insert("partial".to_owned(), (outcome == RunOutcome::Partial).into());
        let listed = failures.listed().iter();
        let listed = listed.map(|f| json!({"node": f.node, "element": f.element, "message": f.message}));
        row.payload.insert("failures".to_owned(), listed.collect());
        row.payload.insert("failures_left_out".to_owned(), failures.left_out().into());
        let committed = self.commit_end(end, row).await;
        // An end that is not on the disk is no success. The store may write it later, as that of a job.
        let (outcome, status, failure) = match committed {
            Ok(()) => (outcome, status, failure),
            Err(error) => (RunOutcome::Failed, JobStatus::Failed, Some(unwritten(&error))),
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
        }
    }

    /// Of a row that is larger than a row may be, what is told of each node is left out: the journal has it job by job.
    async fn commit_end(&self, end: CompositionEnd, row: JournalRow) -> Result<(), StoreError> {
        let journal = &self.host.services().journal;
        let commit = |row| Commit::telling().write(Write::EndComposition(Box::new(end.clone()))).row(row);
        match journal.commit(commit(row.clone())).await {
            Err(StoreError::TooLarge { .. }) => {
                let mut row = row;
                let failures =
                    row.payload.remove("failures").and_then(|listed| Some(listed.as_array()?.len()));
                let before = row.payload.get("failures_left_out").and_then(serde_json::Value::as_u64);
                let left_out = before.unwrap_or(0) + failures.unwrap_or(0) as u64;
                row.payload.insert("failures".to_owned(), json!([]));
                row.payload.insert("failures_left_out".to_owned(), left_out.into());
                row.payload.remove("nodes");
                journal.commit(commit(row)).await.map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }
}

/// The failure of a run whose end could not be written.
fn unwritten(error: &StoreError) -> Failure {
    let next_step = error.next_step();
    tracing::error!(%error, next_step, "the end of a composition could not be written");
    let message = format!("its end could not be written: {error}");
    let report = ErrorReport { message: message.clone(), ..ErrorReport::of(error) };
    Failure { error: JobError::new(error.category(), message), report }
}

/// Resolves when the time is over; never where there is no end of it.
async fn passed(limit: Option<Limit>) {
    match limit {
        Some(limit) => tokio::time::sleep_until(limit.at).await,
        None => std::future::pending().await,
    }
}

fn element_outcome(outcome: &JobOutcome) -> ElementOutcome {
    match (outcome.status, &outcome.result) {
        (JobStatus::Completed, Some(body)) => match Json::from_slice(body) {
            Ok(value) => ElementOutcome::Completed(value),
            Err(error) => ElementOutcome::Failed(format!("its result does not pass: {error}")),
        },
        (JobStatus::Cancelled, _) => ElementOutcome::Cancelled,
        _ => ElementOutcome::Failed(
            outcome
                .failure
                .as_ref()
                .map_or_else(|| "failed".to_owned(), |failure| failure.report.message.clone()),
        ),
    }
}
