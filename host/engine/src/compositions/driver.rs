//! A composition, performed: what `decide` asks for is done (elements are submitted in `submitting`), and it is told how
//! elements ended. How the run ends is in `ending`.
//!
//! A run that fails fast answers its callers with the first failure at once, and goes on until all it had begun has ended;
//! only then its end is written. A host that ends meanwhile waits for that, since it has cut off what ran. A run that has no
//! reason to end is left to the next host.

use crate::compositions::ends::Ends;
use crate::compositions::failures::{at_its_place, deadline_failure, failure_at, is_of_deadline};
use crate::compositions::monitor::Monitor;
use crate::compositions::state::{CompositionOutcome, Wish};
use crate::compositions::tally::Tally;
use crate::deadlines::Limit;
use crate::error::HostError;
use crate::host::Host;
use crate::queue::state::{ElementEnd, object};
use cjm_decide::composition::{
    CompositionEffect, CompositionEvent, CompositionRun, ElementOutcome, Halt, NodeError, NodeProgress,
    NodeStatus,
};
use cjm_decide::queue::CancelReach;
use cjm_store::{CompositionRecord, Gate, StoreError};
use cjm_wire::JobId;
use cjm_wire::composition::Composition;
use cjm_wire::error::Failure;
use cjm_wire::event::{EventType, JournalRow};
use cjm_workers::{HostEvent, NodeState};
use serde_json::json;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How long a disk may take nothing before calls that wait for it are given up.
const STARVED_AFTER: Duration = Duration::from_secs(1);

/// Where callers are told.
type Told = watch::Sender<Option<Arc<CompositionOutcome>>>;

pub(crate) struct Driver {
    pub(super) host: Host,
    pub(super) run: CompositionRun,
    pub(super) record: CompositionRecord,
    pub(super) monitor: Option<Monitor>,
    pub(super) monitor_fault: Option<String>,
    pub(super) limit: Option<Limit>,
    pub(super) order: Vec<String>,
    pub(super) tallies: BTreeMap<String, Tally>,
    pub(crate) jobs: HashMap<(String, usize), JobId>,
    pub(super) ends: mpsc::UnboundedSender<ElementEnd>,
    /// What the tool said whose call was stopped first at the deadline of the run, of those that said something.
    pub(super) said_when_stopped: Vec<String>,
    /// Why calls of it were refused.
    pub(super) refusal: Option<Failure>,
    /// The host ends, and leaves the run to the next one.
    pub(super) left: bool,
}

impl Driver {
    pub(crate) fn new(
        host: Host,
        composition: &Composition,
        run: CompositionRun,
        record: CompositionRecord,
        monitor: Option<Result<Monitor, String>>,
        limit: Option<Limit>,
        ends: mpsc::UnboundedSender<ElementEnd>,
    ) -> Self {
        let nodes = composition.nodes.iter();
        let tallies = nodes.map(|(name, node)| (name.clone(), Tally::new(&node.capability))).collect();
        let order = composition.nodes.keys().cloned().collect();
        let jobs = HashMap::new();
        let (monitor, monitor_fault) = match monitor {
            Some(Ok(monitor)) => (Some(monitor), None),
            Some(Err(fault)) => (None, Some(fault)),
            None => (None, None),
        };
        Self {
            host,
            run,
            record,
            monitor,
            monitor_fault,
            limit,
            order,
            tallies,
            jobs,
            ends,
            said_when_stopped: Vec::new(),
            refusal: None,
            left: false,
        }
    }

    pub(super) async fn drive(mut self, mut ends: Ends, mut wishes: watch::Receiver<Wish>, told: Told) {
        let mut events = VecDeque::from([CompositionEvent::Start]);
        let (mut granted, mut deadline_told, mut answered) = (Wish::GoOn, self.limit.is_none(), false);
        let mut force = false;
        let closing = self.host.services().closing.clone();
        let mut gate = self.host.services().journal.gate();
        let mut starves_at = starved(&gate.borrow_and_update());
        loop {
            if let Some(end) = self.handle_all(&mut events).await {
                told.send_replace(Some(Arc::new(end)));
                return;
            }
            if self.left {
                return;
            }
            if std::mem::take(&mut force) {
                // Nothing begins any more: these are all that there are.
                self.jobs.values().for_each(|job| self.host.cancel_at_once(job));
            }
            if self.run.halt() == Some(Halt::FirstFailure) && !answered {
                answered = true;
                told.send_replace(Some(Arc::new(self.first_failure().await)));
            }
            tokio::select! {
                biased;
                // The next host ends what this one leaves; but what only ends yet is ended here.
                () = closing.cancelled(), if self.run.halt().is_none() => return,
                // Before the ends of jobs, which may be late for the same reason, and may come one behind the other for as
                // long as there are elements.
                () = passed(self.limit), if !deadline_told => {
                    deadline_told = true;
                    events.push_back(CompositionEvent::DeadlinePassed);
                }
                Ok(wish) = wishes.wait_for(|wish| *wish > granted), if granted < Wish::EndAtOnce => {
                    if granted == Wish::GoOn {
                        events.push_back(CompositionEvent::CancelRequested);
                    }
                    granted = *wish;
                    force = granted == Wish::EndAtOnce;
                }
                // What waits for a disk would wait for as long as it is full.
                () = at(starves_at), if starves_at.is_some() && self.run.halt().is_none() => {
                    starves_at = None;
                    if let Gate::Closed { reason, .. } = &*gate.borrow() {
                        let error = HostError::Store(StoreError::Closed { reason: reason.clone() });
                        self.refuse(Vec::new(), &error, &mut events);
                        if self.left {
                            return;
                        }
                    }
                }
                // That it is closed for another reason is no news to who waits for it to open.
                Ok(()) = gate.changed() => {
                    let anew = starved(&gate.borrow_and_update());
                    starves_at = anew.map(|anew| starves_at.map_or(anew, |known| known.min(anew)));
                }
                Some((end, read)) = ends.next() => events.push_back(self.element_ended(end, read)),
            }
        }
    }

    /// Handles all that has come, and what that brings; `Some` when the run is over.
    async fn handle_all(&mut self, events: &mut VecDeque<CompositionEvent>) -> Option<CompositionOutcome> {
        while let Some(event) = events.pop_front() {
            let ended = match &event {
                CompositionEvent::ElementEnded { node, .. } => Some(node.clone()),
                _ => None,
            };
            let effects = match self.run.handle(event) {
                Ok(effects) => {
                    ended.iter().for_each(|node| self.tell_progress(node));
                    effects
                }
                Err(error) => {
                    tracing::error!(%error, "a composition refused an event; this is a defect");
                    continue;
                }
            };
            let over = self.perform(effects, events).await;
            if over.is_some() || self.left {
                return over;
            }
        }
        None
    }

    /// Takes in how an element's job ended; `read` is what its result is.
    pub(crate) fn element_ended(&mut self, end: ElementEnd, read: ElementOutcome) -> CompositionEvent {
        let ElementEnd { node, element, outcome } = end;
        if let Some(tally) = self.tallies.get_mut(&node) {
            tally.enter(element, &outcome, matches!(read, ElementOutcome::Completed(_)));
        }
        if self.said_when_stopped.is_empty()
            && let Some(stopped) = outcome.failure.as_ref().filter(|failure| is_of_deadline(failure))
        {
            self.said_when_stopped.clone_from(&stopped.report.stderr_tail);
        }
        let place = (node, element);
        // Only what is in flight is known here, however many elements there are.
        self.jobs.remove(&place);
        CompositionEvent::ElementEnded { node: place.0, element, outcome: read }
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
                CompositionEffect::NodeEnded { node, status, reason, failures } => {
                    self.node_ended(&node, status, reason, failures.first());
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

    fn node_ended(
        &mut self,
        node: &str,
        status: NodeStatus,
        reason: Option<String>,
        first: Option<&NodeError>,
    ) {
        let document = &self.run.composition().nodes;
        let Some(tally) = self.tallies.get_mut(node) else { return };
        tally.state = match status {
            NodeStatus::Completed => NodeState::Completed,
            NodeStatus::Partial => NodeState::Partial,
            NodeStatus::Failed => NodeState::Failed,
            NodeStatus::Cancelled => NodeState::Cancelled,
            NodeStatus::Skipped => NodeState::Skipped,
        };
        tally.reason = reason;
        if let Some(first) = first {
            tally.fail_with(first, |known| match known {
                Some(known) => at_its_place(first, known),
                // No job carries what did not bind, or whose result does not pass.
                None => failure_at(first, None, document.get(node)),
            });
        }
        self.tell(node);
    }

    /// Tells how far a node is that goes on; the end of one is told with what it means for others.
    fn tell_progress(&self, node: &str) {
        if matches!(self.run.progress(node), Some(NodeProgress::Running { .. })) {
            self.tell(node);
        }
    }

    pub(super) fn tell(&self, node: &str) {
        let Some(tally) = self.tallies.get(node) else { return };
        let total = match self.run.progress(node) {
            Some(NodeProgress::Running { elements_total, .. }) => Some(elements_total),
            _ => Some(tally.total).filter(|total| *total > 0),
        };
        self.host.services().tell(HostEvent::Node {
            composition_id: self.record.composition_id.clone(),
            node: node.to_owned(),
            state: tally.state,
            elements_done: self.run.elements_ended(node),
            elements_total: total,
        });
    }
}

/// Resolves when the time is over; never where there is no end of it.
async fn passed(limit: Option<Limit>) {
    at(limit.map(|limit| limit.at)).await;
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// When a run gives up the calls that wait for a disk that takes nothing.
fn starved(gate: &Gate) -> Option<Instant> {
    (!gate.is_open()).then(|| Instant::now() + STARVED_AFTER)
}
