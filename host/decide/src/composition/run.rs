//! One run of a composition, from its start to its one end. Nodes move through
//!
//! ```text
//!                    all it needs completed
//!   Waiting ────────────────────────────────▶ Running (elements) ──▶ Ended: completed | failed | cancelled
//!      │                                         ▲
//!      │ something it needs did not complete ────┼──────────────────▶ Ended: skipped
//!      │ the run is cancelled, or fails fast ────┼──────────────────▶ Ended: cancelled
//!      │ its `map` does not bind ────────────────┼──────────────────▶ Ended: failed
//!      └─────────────────────────────────────────┘
//! ```
//!
//! Failing fast begins with the first failed element: what needs its node is skipped, other waiting nodes are
//! cancelled, nothing more is submitted, and what is submitted already is cancelled as long as it waits; what
//! runs may finish. Best effort only skips what needs the failed node. Only a failure fails fast: a single
//! element that somebody cancelled makes its node `cancelled`, what needs it is skipped, the rest goes on.

use super::bind::{self, BindError, Found, Scope, look_through};
use super::elements::{Elements, Known, Outcome, Shape};
use super::graph::Graph;
use super::inputs;
use super::types::{
    CompositionEffect, CompositionError, CompositionEvent, ElementOutcome, NodeError, NodeProgress,
    NodeStatus, SubmitElement,
};
use crate::queue::CancelReach;
use cjm_wire::composition::{Composition, FailurePolicy, MAP_ELEMENTS_MAX, Node};
use cjm_wire::event::JobStatus;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

/// Most elements of one run that are in flight at once. Above a node's own maximum, so that one long `map`
/// does not keep a side branch waiting.
pub const RUN_IN_FLIGHT_MAX: usize = 4_096;

#[derive(Debug, Clone)]
enum NodeState {
    Waiting { needs: usize },
    Running(Elements),
    Ended { status: NodeStatus, output: Option<Value> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    NotStarted,
    Running,
    Ended,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::NotStarted => "not started",
            Self::Running => "running",
            Self::Ended => "ended",
        }
    }
}

/// State of one run. Owned by one task.
#[derive(Debug, Clone)]
pub struct CompositionRun {
    composition: Composition,
    graph: Graph,
    inputs: Value,
    priority: i32,
    stage: Stage,
    nodes: Vec<NodeState>,
    unended: usize,
    in_flight: usize,
    /// Nodes whose needs are met and which have not begun.
    opening: VecDeque<usize>,
    /// Running nodes with an element to submit and room for it, best first.
    submittable: BTreeSet<(Reverse<i32>, usize)>,
    cancel_requested: bool,
    failing_fast: bool,
    first_error: Option<NodeError>,
}

impl CompositionRun {
    /// A run that has not begun. `priority` is what nodes without one inherit.
    ///
    /// # Errors
    /// A document that is no graph; inputs that do not fit.
    pub fn new(
        composition: Composition,
        given: Map<String, Value>,
        priority: i32,
    ) -> Result<Self, CompositionError> {
        let graph = Graph::build(&composition)?;
        let inputs = Value::Object(inputs::complete(&composition, given)?);
        let nodes = (0..graph.len())
            .map(|node| NodeState::Waiting { needs: graph.dependencies(node).len() })
            .collect();
        Ok(Self {
            inputs,
            priority,
            stage: Stage::NotStarted,
            nodes,
            unended: graph.len(),
            in_flight: 0,
            opening: VecDeque::new(),
            submittable: BTreeSet::new(),
            cancel_requested: false,
            failing_fast: false,
            first_error: None,
            composition,
            graph,
        })
    }

    /// The graph it runs.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The document it runs.
    #[must_use]
    pub fn composition(&self) -> &Composition {
        &self.composition
    }

    /// Whether it is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// How far a node is.
    #[must_use]
    pub fn progress(&self, node: &str) -> Option<NodeProgress> {
        Some(match self.nodes.get(self.graph.find(node)?)? {
            NodeState::Waiting { .. } => NodeProgress::Waiting,
            NodeState::Running(elements) => NodeProgress::Running {
                elements_total: elements.total(),
                in_flight: elements.in_flight().len(),
                ended: elements.ended_count(),
                failed: elements.failed_count(),
            },
            NodeState::Ended { status, .. } => NodeProgress::Ended(*status),
        })
    }

    /// Takes one event and says what to do.
    ///
    /// # Errors
    /// An event that cannot be; then nothing has changed.
    pub fn handle(&mut self, event: CompositionEvent) -> Result<Vec<CompositionEffect>, CompositionError> {
        let mut effects = Vec::new();
        let name = event.name();
        match event {
            CompositionEvent::Start => match self.stage {
                Stage::NotStarted => self.start(),
                // Cancelled before it began: the start is late news.
                Stage::Ended if self.cancel_requested => return Ok(effects),
                stage @ (Stage::Running | Stage::Ended) => {
                    return Err(illegal("the run".to_owned(), stage.name(), name));
                }
            },
            CompositionEvent::ElementEnded { node, element, outcome } => {
                let Some(index) = self.submitted(&node, element, name)? else { return Ok(effects) };
                self.element_ended(index, element, outcome, &mut effects);
            }
            CompositionEvent::CancelRequested => {
                if self.cancel_requested || self.stage == Stage::Ended {
                    return Ok(effects);
                }
                self.stage = Stage::Running;
                self.cancel_requested = true;
                self.halt(None, CancelReach::Any, &mut effects);
            }
        }
        self.advance(&mut effects);
        self.end_if_done(&mut effects);
        Ok(effects)
    }

    fn start(&mut self) {
        self.stage = Stage::Running;
        self.opening.extend(
            self.nodes
                .iter()
                .enumerate()
                .filter(|(_, state)| matches!(state, NodeState::Waiting { needs: 0 }))
                .map(|(node, _)| node),
        );
    }

    /// The number of a node whose element is in flight; `None` for late news.
    fn submitted(
        &self,
        node: &str,
        element: usize,
        event: &'static str,
    ) -> Result<Option<usize>, CompositionError> {
        let not_submitted = || illegal(format!("{node}[{element}]"), "not submitted", event);
        let index = self.graph.find(node).ok_or_else(|| illegal(node.to_owned(), "unknown", event))?;
        match self.nodes.get(index) {
            None | Some(NodeState::Waiting { .. }) => Err(not_submitted()),
            Some(NodeState::Ended { .. }) => Ok(None),
            Some(NodeState::Running(elements)) => match elements.known(element) {
                Known::InFlight => Ok(Some(index)),
                Known::Ended => Ok(None),
                Known::NotSubmitted => Err(not_submitted()),
            },
        }
    }

    fn element_ended(
        &mut self,
        node: usize,
        element: usize,
        outcome: ElementOutcome,
        effects: &mut Vec<CompositionEffect>,
    ) {
        let Some(NodeState::Running(elements)) = self.nodes.get_mut(node) else { return };
        elements.landed(element);
        self.in_flight -= 1;
        match outcome {
            ElementOutcome::Completed(value) => elements.completed(element, value),
            ElementOutcome::Cancelled => elements.cancelled(),
            ElementOutcome::Failed(message) => {
                elements.failed(message.clone());
                self.element_failed(node, element, message, effects);
            }
        }
        self.after_element(node, effects);
    }

    fn element_failed(
        &mut self,
        node: usize,
        element: usize,
        message: String,
        effects: &mut Vec<CompositionEffect>,
    ) {
        let element = self.node(node).map.is_some().then_some(element);
        self.node_failed(node, element, message, effects);
    }

    /// Remembers the first error and fails fast where that is the policy.
    fn node_failed(
        &mut self,
        node: usize,
        element: Option<usize>,
        message: String,
        effects: &mut Vec<CompositionEffect>,
    ) {
        let name = self.graph.name(node).to_owned();
        self.first_error.get_or_insert(NodeError { node: Some(name), element, message });
        let fast = self.composition.failure == FailurePolicy::FailFast;
        if fast && !self.failing_fast && !self.cancel_requested {
            self.failing_fast = true;
            self.halt(Some(node), CancelReach::PendingOnly, effects);
        }
    }

    /// Ends what waits and submits nothing more; what is in flight ends by its own events.
    fn halt(&mut self, failed: Option<usize>, reach: CancelReach, effects: &mut Vec<CompositionEffect>) {
        if let Some(failed) = failed {
            self.skip_dependents(failed, effects);
        }
        self.opening.clear();
        self.submittable.clear();
        for node in 0..self.nodes.len() {
            match self.nodes.get_mut(node) {
                Some(NodeState::Waiting { .. }) => {
                    self.end_node(node, NodeStatus::Cancelled, None, None, effects);
                }
                Some(NodeState::Running(elements)) => {
                    elements.halt();
                    let name = self.graph.name(node);
                    effects.extend(elements.in_flight().iter().map(|element| {
                        CompositionEffect::CancelElement { node: name.to_owned(), element: *element, reach }
                    }));
                    if Some(node) != failed {
                        self.close_if_drained(node, effects);
                    }
                }
                None | Some(NodeState::Ended { .. }) => {}
            }
        }
    }

    /// Begins nodes and submits elements until there is nothing to begin or no room. A loop instead of
    /// recursion: chains may be as long as a composition.
    fn advance(&mut self, effects: &mut Vec<CompositionEffect>) {
        loop {
            if let Some(node) = self.opening.pop_front() {
                self.open(node, effects);
            } else if let Some((_, node)) = self.submittable.first().copied()
                && self.in_flight < RUN_IN_FLIGHT_MAX
            {
                self.submit_next(node, effects);
            } else {
                break;
            }
        }
    }

    fn open(&mut self, node: usize, effects: &mut Vec<CompositionEffect>) {
        if !matches!(self.nodes.get(node), Some(NodeState::Waiting { .. })) {
            return;
        }
        match self.bind_shape(node) {
            Ok(shape) => {
                if let Some(state) = self.nodes.get_mut(node) {
                    *state = NodeState::Running(Elements::new(shape));
                }
                self.after_element(node, effects);
            }
            Err(error) => {
                let message = error.to_string();
                self.end_node(node, NodeStatus::Failed, None, Some(message.clone()), effects);
                self.node_failed(node, None, message, effects);
            }
        }
    }

    fn bind_shape(&self, node: usize) -> Result<Shape, BindError> {
        let Some(template) = &self.node(node).map else { return Ok(Shape::Single) };
        let scope = RunScope { run: self, element: None, absent: Found::Unknown };
        let mut bound = bind::bind(template, &scope)?;
        if !bound.is_array() {
            bound = look_through(&bound).clone();
        }
        match bound {
            Value::Array(items) if items.len() > MAP_ELEMENTS_MAX => {
                Err(BindError::TooManyElements { elements: items.len(), max: MAP_ELEMENTS_MAX })
            }
            Value::Array(items) => Ok(Shape::Mapped(items)),
            other => Err(BindError::NotAList { found: bind::kind(&other) }),
        }
    }

    fn submit_next(&mut self, node: usize, effects: &mut Vec<CompositionEffect>) {
        match self.bind_next(node) {
            Some((_, Ok(submit))) => {
                effects.push(CompositionEffect::Submit(submit));
                self.in_flight += 1;
                if let Some(NodeState::Running(elements)) = self.nodes.get_mut(node) {
                    elements.submitted();
                }
            }
            Some((element, Err(error))) => {
                let message = error.to_string();
                if let Some(NodeState::Running(elements)) = self.nodes.get_mut(node) {
                    elements.unbound(message.clone());
                }
                self.element_failed(node, element, message, effects);
            }
            None => {}
        }
        self.after_element(node, effects);
    }

    fn bind_next(&self, node: usize) -> Option<(usize, Result<SubmitElement, BindError>)> {
        let NodeState::Running(elements) = self.nodes.get(node)? else { return None };
        let element = elements.next()?;
        let item = elements.item(element);
        let scope = RunScope { run: self, element: item.map(|item| (item, element)), absent: Found::Unknown };
        let call = self.node(node);
        let submit = bind::bind_args(&call.args, &scope).map(|kwargs| SubmitElement {
            node: self.graph.name(node).to_owned(),
            element,
            elements_total: elements.total(),
            mapped: call.map.is_some(),
            capability: call.capability.clone(),
            action: call.action.clone(),
            task: call.task.clone(),
            method: call.method.clone(),
            kwargs,
            priority: self.priority_of(node),
        });
        Some((element, submit))
    }

    /// Ends the node if that was all, and keeps its place among the submittable in step.
    fn after_element(&mut self, node: usize, effects: &mut Vec<CompositionEffect>) {
        let more =
            matches!(self.nodes.get(node), Some(NodeState::Running(elements)) if elements.next().is_some());
        let place = (Reverse(self.priority_of(node)), node);
        if more {
            self.submittable.insert(place);
        } else {
            self.submittable.remove(&place);
        }
        self.close_if_drained(node, effects);
    }

    fn close_if_drained(&mut self, node: usize, effects: &mut Vec<CompositionEffect>) {
        let Some(NodeState::Running(elements)) = self.nodes.get_mut(node) else { return };
        if !elements.is_drained() {
            return;
        }
        match elements.outcome() {
            Outcome::Completed(output) => {
                self.end_node(node, NodeStatus::Completed, Some(output), None, effects);
            }
            Outcome::Failed(message) => {
                self.end_node(node, NodeStatus::Failed, None, Some(message), effects);
            }
            Outcome::Cancelled => self.end_node(node, NodeStatus::Cancelled, None, None, effects),
        }
    }

    fn end_node(
        &mut self,
        node: usize,
        status: NodeStatus,
        output: Option<Value>,
        error: Option<String>,
        effects: &mut Vec<CompositionEffect>,
    ) {
        let Some(state) = self.nodes.get_mut(node) else { return };
        *state = NodeState::Ended { status, output };
        self.unended -= 1;
        effects.push(CompositionEffect::NodeEnded { node: self.graph.name(node).to_owned(), status, error });
        match status {
            NodeStatus::Completed => self.release_dependents(node, effects),
            // A run that is being halted has ended, or is about to end, all that waits.
            NodeStatus::Failed | NodeStatus::Cancelled if !self.failing_fast && !self.cancel_requested => {
                self.skip_dependents(node, effects);
            }
            NodeStatus::Failed | NodeStatus::Cancelled | NodeStatus::Skipped => {}
        }
    }

    fn release_dependents(&mut self, node: usize, effects: &mut Vec<CompositionEffect>) {
        let mut enqueued_nodes = Vec::new();
        for dependent in self.graph.dependents(node) {
            if let Some(NodeState::Waiting { needs }) = self.nodes.get_mut(*dependent) {
                *needs -= 1;
                if *needs == 0 {
                    self.opening.push_back(*dependent);
                    enqueued_nodes.push(self.graph.name(*dependent).to_owned());
                }
            }
        }
        let completed_node = self.graph.name(node).to_owned();
        effects.push(CompositionEffect::Advanced { completed_node, enqueued_nodes });
    }

    /// Skips all that waits and needs `node`, at any distance.
    fn skip_dependents(&mut self, node: usize, effects: &mut Vec<CompositionEffect>) {
        let mut left: VecDeque<usize> = self.graph.dependents(node).iter().copied().collect();
        while let Some(dependent) = left.pop_front() {
            if matches!(self.nodes.get(dependent), Some(NodeState::Waiting { .. })) {
                self.end_node(dependent, NodeStatus::Skipped, None, None, effects);
                left.extend(self.graph.dependents(dependent));
            }
        }
    }

    fn end_if_done(&mut self, effects: &mut Vec<CompositionEffect>) {
        if self.stage != Stage::Running || self.unended > 0 {
            return;
        }
        self.stage = Stage::Ended;
        let mut status = self.final_status();
        let output = self.output().unwrap_or_else(|error| {
            if status == JobStatus::Completed {
                status = JobStatus::Failed;
            }
            let message = format!("output: {error}");
            self.first_error.get_or_insert(NodeError { node: None, element: None, message });
            Value::Null
        });
        let first_error = self.first_error.clone();
        effects.push(CompositionEffect::Ended { status, output, first_error });
    }

    fn final_status(&self) -> JobStatus {
        let any = |wanted: NodeStatus| {
            self.nodes.iter().any(|node| matches!(node, NodeState::Ended { status, .. } if *status == wanted))
        };
        if self.cancel_requested {
            JobStatus::Cancelled
        } else if any(NodeStatus::Failed) && self.composition.failure == FailurePolicy::FailFast {
            JobStatus::Failed
        } else if any(NodeStatus::Cancelled) {
            JobStatus::Cancelled
        } else {
            JobStatus::Completed
        }
    }

    /// What did not complete counts as null in a template, and is left out without one.
    fn output(&self) -> Result<Value, BindError> {
        if let Some(template) = &self.composition.output {
            return bind::bind(template, &RunScope { run: self, element: None, absent: Found::Null });
        }
        let outputs = self.nodes.iter().enumerate().filter_map(|(node, state)| match state {
            NodeState::Ended { output: Some(output), .. } => {
                Some((self.graph.name(node).to_owned(), output.clone()))
            }
            NodeState::Ended { .. } | NodeState::Waiting { .. } | NodeState::Running(_) => None,
        });
        Ok(Value::Object(outputs.collect()))
    }

    fn node(&self, node: usize) -> &Node {
        &self.composition.nodes[node]
    }

    fn priority_of(&self, node: usize) -> i32 {
        match self.node(node).priority {
            0 => self.priority,
            own => own,
        }
    }

    /// Checks the whole state; linear in it, for tests and for asking a suspect host.
    ///
    /// # Errors
    /// The first violation found, in words.
    pub fn check_invariants(&self) -> Result<(), String> {
        let (mut in_flight, mut unended) = (0, 0);
        for (node, state) in self.nodes.iter().enumerate() {
            let name = self.graph.name(node);
            match state {
                NodeState::Waiting { needs } => {
                    unended += 1;
                    let open = |need: &&usize| {
                        !matches!(self.nodes[**need], NodeState::Ended { status: NodeStatus::Completed, .. })
                    };
                    if self.graph.dependencies(node).iter().filter(open).count() != *needs {
                        return Err(format!("{name} miscounts what it needs"));
                    }
                    if *needs == 0 && self.stage == Stage::Running {
                        return Err(format!("{name} waits for nothing"));
                    }
                }
                NodeState::Running(elements) => {
                    unended += 1;
                    in_flight += elements.in_flight().len();
                    if elements.is_drained() {
                        return Err(format!("{name} is drained and has not ended"));
                    }
                    if elements.next().is_some()
                        && self.in_flight < RUN_IN_FLIGHT_MAX
                        && self.stage == Stage::Running
                    {
                        return Err(format!("{name} has room and an element left to submit"));
                    }
                }
                NodeState::Ended { .. } => {}
            }
        }
        if (in_flight, unended) != (self.in_flight, self.unended) {
            return Err(format!(
                "{in_flight} in flight and {unended} unended, counted as {} and {}",
                self.in_flight, self.unended
            ));
        }
        if self.has_ended() && (unended > 0 || !self.submittable.is_empty() || !self.opening.is_empty()) {
            return Err("something is left over at the end".to_owned());
        }
        Ok(())
    }
}

fn illegal(subject: String, state: &'static str, event: &'static str) -> CompositionError {
    CompositionError::Illegal { subject, state, event }
}

/// What references stand for in a run.
struct RunScope<'a> {
    run: &'a CompositionRun,
    element: Option<(&'a Value, usize)>,
    /// For a node that has not completed.
    absent: Found<'static>,
}

impl Scope for RunScope<'_> {
    fn value_of(&self, root: &str) -> Found<'_> {
        match (root, self.element) {
            ("inputs", _) => Found::Value(Cow::Borrowed(&self.run.inputs)),
            ("item", Some((item, _))) => Found::Value(Cow::Borrowed(item)),
            ("index", Some((_, index))) => Found::Value(Cow::Owned(Value::from(index))),
            _ => match self.run.graph.find(root).and_then(|node| self.run.nodes.get(node)) {
                Some(NodeState::Ended { output: Some(output), .. }) => Found::Value(Cow::Borrowed(output)),
                Some(_) => self.absent.clone(),
                None => Found::Unknown,
            },
        }
    }
}
