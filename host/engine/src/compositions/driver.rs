//! Compositions, performed: loads what the document names, submits the elements that `decide` asks for, tells it how
//! they ended, and writes the end down with what each node took.

use crate::compositions::monitor::Monitor;
use crate::compositions::state::{CompositionHandle, CompositionOutcome, NodeOutcome};
use crate::compositions::tally::Tally;
use crate::error::HostError;
use crate::host::Host;
use crate::queue::state::{ElementEnd, ElementHook, JobOutcome, object};
use crate::queue::submission::{ElementJob, JobRequest};
use cjm_decide::composition::{
    CompositionEffect, CompositionEvent, CompositionRun, ElementOutcome, Failures, NodeError, NodeProgress,
    NodeStatus, SubmitElement,
};
use cjm_decide::queue::{CancelReach, Target};
use cjm_store::{Body, Commit, CompositionEnd, CompositionRecord, Write, rows};
use cjm_wire::composition::{Composition, RunOutcome};
use cjm_wire::describe::{Described, ErrorReport, exit};
use cjm_wire::error::{ErrorCategory, Failure, JobError};
use cjm_wire::event::{EventType, JobStatus, JournalRow};
use cjm_wire::json::{Arguments, Json};
use cjm_wire::{CompositionId, InstanceId, JobId, Timestamp};
use cjm_workers::{HostEvent, LoadOptions, NodeState};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Compositions whose outcome is kept after they have ended.
const ENDED_COMPOSITIONS_MAX: usize = 256;

impl Host {
    /// Accepts a composition: loads what it needs, then runs it.
    ///
    /// # Errors
    /// When it is malformed, its graph is not one, or a capability does not load.
    pub async fn submit_composition(
        &self,
        composition: Composition,
        inputs: Arguments,
    ) -> Result<CompositionId, HostError> {
        let host = self.clone();
        if self.services().closing.is_cancelled() {
            return Err(HostError::ShuttingDown);
        }
        self.runtime()
            .run(async move {
                let handle = start(host.clone(), composition, inputs).await?;
                let id = handle.id.clone();
                host.keep_composition(handle);
                Ok(id)
            })
            .await
    }

    /// Keeps a handle for whoever asks; of compositions that have ended only the newest.
    fn keep_composition(&self, handle: CompositionHandle) {
        let mut compositions = self.compositions();
        let ended = compositions.iter().filter(|(_, known)| known.outcome.borrow().is_some());
        let mut ended: Vec<CompositionId> = ended.map(|(id, _)| id.clone()).collect();
        if ended.len() >= ENDED_COMPOSITIONS_MAX {
            // Their ids are in the order of their submission.
            ended.sort();
            compositions.remove(&ended[0]);
        }
        compositions.insert(handle.id.clone(), handle);
    }

    /// Waits for the end of a composition.
    ///
    /// # Errors
    /// When this host knows none with this id.
    pub async fn wait_composition(&self, id: &CompositionId) -> Result<Arc<CompositionOutcome>, HostError> {
        let unknown = || HostError::UnknownComposition(id.clone());
        let mut outcome =
            self.compositions().get(id).map(|handle| handle.outcome.clone()).ok_or_else(unknown)?;
        let ended = outcome.wait_for(Option::is_some).await.map_err(|_| HostError::ShuttingDown)?;
        ended.clone().ok_or(HostError::ShuttingDown)
    }

    /// Asks for the end of a composition.
    pub fn cancel_composition(&self, id: &CompositionId) {
        if let Some(handle) = self.compositions().get(id) {
            handle.cancel();
        }
    }
}

/// Loads what the composition needs and starts it.
async fn start(
    host: Host,
    composition: Composition,
    inputs: Arguments,
) -> Result<CompositionHandle, HostError> {
    let run = CompositionRun::new(composition.clone(), inputs.clone(), 0).map_err(|error| {
        HostError::Graph { message: error.to_string(), code: error.code(), next_step: error.next_step() }
    })?;
    load_all(&host, &composition).await?;
    let monitor = match &composition.monitor {
        Some(capability) => Monitor::start(&host, capability).await,
        None => None,
    };
    let id = CompositionId::new();
    let record = CompositionRecord {
        composition_id: id.clone(),
        name: composition.name.clone(),
        run_id: Some(host.run_id().clone()),
        actor: Some(host.services().options.actor.clone()),
        status: JobStatus::Pending,
        submitted_at: Timestamp::now(),
        completed_at: None,
        failure: None,
    };
    let as_text = |value: serde_json::Result<Vec<u8>>| Body::Inline(value.unwrap_or_default());
    let document = as_text(serde_json::to_vec(&composition));
    let commit = Commit::admitting()
        .row(rows::composition_started(&record))
        .write(Write::InsertComposition(
            Box::new(record.clone()),
            document,
            as_text(serde_json::to_vec(&inputs)),
        ))
        .write(Write::StartComposition(id.clone()));
    host.services().journal.commit(commit).await?;
    let (outcome_sender, outcome) = watch::channel(None);
    let (cancel, cancelled) = watch::channel(false);
    let (ends_sender, ends) = mpsc::unbounded_channel();
    let driver = Driver {
        tallies: composition
            .nodes
            .iter()
            .map(|(name, node)| (name.clone(), Tally::new(&node.capability)))
            .collect(),
        order: composition.nodes.keys().cloned().collect(),
        host,
        run,
        record,
        monitor,
        jobs: HashMap::new(),
        ends: ends_sender,
    };
    let tasks = driver.host.services().tasks.clone();
    tasks.spawn(driver.drive(ends, cancelled, outcome_sender));
    Ok(CompositionHandle { id, outcome, cancel })
}

/// Loads every capability of the document that is not loaded yet, all at once. What was loaded stays when another
/// fails: the host's owner decides about it.
async fn load_all(host: &Host, composition: &Composition) -> Result<(), HostError> {
    let mut names: Vec<&str> = composition.nodes.values().map(|node| node.capability.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut loads = Vec::new();
    for name in names {
        let loaded = host.is_loaded(&InstanceId::from_text(name));
        let wanted = composition.capabilities.get(name).cloned().unwrap_or_default();
        if loaded && wanted.instances.is_none() {
            continue;
        }
        if !loaded {
            // Before anything is started: an unknown name must cost nothing.
            host.check(name)?;
        }
        for number in 1..=wanted.instances.unwrap_or(1).max(1) {
            let id = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
            let id = InstanceId::from_text(id);
            if host.is_loaded(&id) {
                continue;
            }
            let options = LoadOptions {
                instance_id: Some(id),
                config: wanted.config.clone(),
                ..LoadOptions::default()
            };
            loads.push(async move { host.load(name, options).await });
        }
    }
    for loaded in futures_util::future::join_all(loads).await {
        loaded?;
    }
    Ok(())
}

struct Driver {
    host: Host,
    run: CompositionRun,
    record: CompositionRecord,
    monitor: Option<Monitor>,
    order: Vec<String>,
    tallies: BTreeMap<String, Tally>,
    jobs: HashMap<(String, usize), JobId>,
    ends: mpsc::UnboundedSender<ElementEnd>,
}

impl Driver {
    async fn drive(
        mut self,
        mut ends: mpsc::UnboundedReceiver<ElementEnd>,
        mut cancelled: watch::Receiver<bool>,
        outcome: watch::Sender<Option<Arc<CompositionOutcome>>>,
    ) {
        let mut events = VecDeque::from([CompositionEvent::Start]);
        let mut cancel_told = false;
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
                    outcome.send_replace(Some(Arc::new(end)));
                    return;
                }
            }
            tokio::select! {
                biased;
                // The next host ends what this one leaves.
                () = closing.cancelled() => return,
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
                    if let Some(job) = self.jobs.get(&(node, element)) {
                        match reach {
                            CancelReach::Any => self.host.cancel(job),
                            CancelReach::PendingOnly => self.host.cancel_pending(job),
                        }
                    }
                }
                // Callers learn it when the run has ended, which the cancels' grace bounds.
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
            // A name that is an instance but no capability means that instance.
            let instance = InstanceId::from_text(&element.capability);
            let target =
                if self.host.catalog().get(&element.capability).is_none() && self.host.is_loaded(&instance) {
                    Target::Instance(instance)
                } else {
                    Target::Capability(element.capability)
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

    async fn end(&mut self, outcome: RunOutcome, output: Json, failures: Failures) -> CompositionOutcome {
        let status = outcome.job_status();
        let mut tallies = std::mem::take(&mut self.tallies);
        let monitor = self.monitor.take();
        let nodes: Vec<NodeOutcome> = self
            .order
            .iter()
            .filter_map(|name| Some(tallies.remove(name)?.outcome(name.clone(), monitor.as_ref())))
            .collect();
        if let Some(monitor) = monitor {
            monitor.stop(&self.host).await;
        }
        let failure = failures.first().map(|first| failure_at(first, &nodes));
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
        let commit = Commit::telling().write(Write::EndComposition(Box::new(end))).row(row);
        if let Err(error) = self.host.services().journal.commit(commit).await {
            let next_step = error.next_step();
            tracing::error!(%error, next_step, "the end of a composition could not be written");
        }
        CompositionOutcome {
            composition_id: self.record.composition_id.clone(),
            outcome,
            status,
            output,
            failure,
            failures,
            nodes,
        }
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

/// The failure of the job that failed first, told with its node and element.
fn failure_at(first: &NodeError, nodes: &[NodeOutcome]) -> Failure {
    let Some(name) = &first.node else {
        return node_failure("output", &first.message);
    };
    let known = nodes.iter().find(|node| node.name == *name).and_then(|node| node.failure.clone());
    let Some(mut failure) = known else { return node_failure(name, &first.message) };
    let place = first.element.map_or_else(|| name.clone(), |element| format!("{name}[{element}]"));
    failure.report.message = format!("node {place}: {}", failure.report.message);
    failure.report.exit_code = exit::COMPOSITION_FAILED;
    failure.report = failure.report.at_node(name.clone(), first.element);
    failure
}

/// The failure of a node that no job of it carries: its references did not bind.
fn node_failure(node: &str, message: &str) -> Failure {
    Failure {
        error: JobError::new(ErrorCategory::UserInput, message),
        report: ErrorReport {
            code: "composition.node_failed".to_owned(),
            message: format!("node `{node}`: {message}"),
            causes: Vec::new(),
            next_step: format!("correct node `{node}` of the composition, or what it refers to"),
            stderr_tail: Vec::new(),
            exit_code: exit::COMPOSITION_FAILED,
            details: Box::default(),
        }
        .at_node(node, None),
    }
}
