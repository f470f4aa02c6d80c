//! One run of a composition, from its start to its one end. Nodes move through
//!
//! ```text
//!                    all it needs is there
//!   Waiting ────────────────────────────────▶ Running (elements) ──▶ Ended: completed | partial | failed | cancelled
//!      │                                         ▲
//!      │ something it needs is missing ──────────┼──────────────────▶ Ended: skipped
//!      │ the run is halted ──────────────────────┼──────────────────▶ Ended: cancelled
//!      │ its `map` does not bind ────────────────┼──────────────────▶ Ended: failed
//!      └─────────────────────────────────────────┘
//! ```
//!
//! A run is halted once, for the reason that comes first: it fails fast, is cancelled, its time is over, or calls of it are
//! refused. Failing fast begins with the first failed element: the failure is told at once, what needs its node is skipped,
//! other waiting nodes are cancelled, nothing more is submitted, and what is submitted already is cancelled, running or
//! not. Best effort goes on with everything that does not need what is missing. Only a failure fails fast: a single
//! element that somebody cancelled makes its node `cancelled`, what needs it is skipped, the rest goes on.
//!
//! This file takes events and begins things; how nodes and the run end is in `ends`.

use super::bind::{self, Args, BindError, look_through};
use super::elements::{Elements, Known, Output, Shape};
use super::state::{CompositionRun, NodeState, RUN_IN_FLIGHT_MAX, RunScope, Stage};
use super::types::{
    CompositionEffect, CompositionError, CompositionEvent, ElementOutcome, Failures, Halt, NodeError,
    NodeStatus, SubmitElement,
};
use crate::queue::CancelReach;
use cjm_wire::composition::{MAP_ELEMENTS_MAX, Reference};
use cjm_wire::describe::Described as _;
use cjm_wire::json::{Json, JsonKind};
use cjm_wire::template::Template;
use std::cmp::Reverse;

impl CompositionRun {
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
                // Halted before it began: the start is late news.
                Stage::Ended if self.is_halted() => return Ok(effects),
                stage @ (Stage::Running | Stage::Ended) => {
                    return Err(illegal("the run".to_owned(), stage.name(), name));
                }
            },
            CompositionEvent::ElementEnded { node, element, outcome } => {
                let Some(index) = self.submitted(&node, element, name)? else { return Ok(effects) };
                self.element_ended(index, element, outcome, &mut effects);
            }
            CompositionEvent::Refused { elements } => self.refused(&elements, name, &mut effects)?,
            event @ (CompositionEvent::CancelRequested | CompositionEvent::DeadlinePassed) => {
                // A run that is halted has stopped everything already, and its callers may know how it ends; but for one
                // whose calls were refused and whose others go on.
                if (self.is_halted() && !self.goes_on()) || self.stage == Stage::Ended {
                    return Ok(effects);
                }
                self.stage = Stage::Running;
                let late = event == CompositionEvent::DeadlinePassed;
                self.stop(if late { Halt::Deadline } else { Halt::Cancelled }, None, &mut effects);
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
            Some(NodeState::Running { elements, .. }) => match elements.known(element) {
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
        let Some(elements) = self.elements(node) else { return };
        elements.landed(element);
        match outcome {
            ElementOutcome::Completed(value) => elements.completed(element, value),
            ElementOutcome::Cancelled { begun } => elements.cancelled(begun),
            ElementOutcome::Failed(message) => {
                let error = self.error_of(node, Some(element), message);
                if let Some(elements) = self.elements(node) {
                    elements.failed(error.clone());
                }
                self.node_failed(node, error, effects);
            }
        }
        self.in_flight -= 1;
        self.after_element(node, effects);
    }

    /// Elements that were asked for have not begun: they count as cancelled, and the run begins nothing more. What runs goes on
    /// where the run makes all it can, and is cancelled otherwise.
    fn refused(
        &mut self,
        refused: &[(String, usize)],
        event: &'static str,
        effects: &mut Vec<CompositionEffect>,
    ) -> Result<(), CompositionError> {
        let mut places = Vec::with_capacity(refused.len());
        for (node, element) in refused {
            places.extend(self.submitted(node, *element, event)?.map(|index| (index, *element)));
        }
        for (node, element) in &places {
            if let Some(elements) = self.elements(*node) {
                elements.landed(*element);
                elements.cancelled(false);
            }
            self.in_flight -= 1;
        }
        if !self.is_halted() {
            self.stop(Halt::Refused, None, effects);
        }
        for (node, _) in places {
            self.close_if_drained(node, effects);
        }
        Ok(())
    }

    fn error_of(&self, node: usize, element: Option<usize>, message: String) -> NodeError {
        let element = element.filter(|_| self.node(node).map.is_some());
        NodeError { node: Some(self.graph.name(node).to_owned()), element, message, next_step: None }
    }

    /// Of a node or an element whose references did not bind.
    fn unbound(&self, node: usize, element: Option<usize>, error: &BindError) -> NodeError {
        NodeError { next_step: Some(error.next_step()), ..self.error_of(node, element, error.to_string()) }
    }

    /// Remembers a failure and fails fast where that is the policy.
    fn node_failed(&mut self, node: usize, error: NodeError, effects: &mut Vec<CompositionEffect>) {
        self.failures.push(error.clone());
        if !self.is_best_effort() && !self.is_halted() {
            effects.push(CompositionEffect::FirstFailure(error));
            self.stop(Halt::FirstFailure, Some(node), effects);
        }
    }

    /// Whether what a halted run has begun goes on: its results are good.
    fn goes_on(&self) -> bool {
        self.halt == Some(Halt::Refused) && self.is_best_effort()
    }

    /// Ends what waits and submits nothing more; what is in flight is cancelled, and ends by its own events.
    fn stop(&mut self, halt: Halt, failed: Option<usize>, effects: &mut Vec<CompositionEffect>) {
        self.halt = Some(halt);
        // What has begun and goes on is left alone; what waits to begin is not.
        let reach = if self.goes_on() { CancelReach::PendingOnly } else { CancelReach::Any };
        if let Some(failed) = failed {
            self.skip_all_after(failed, effects);
        }
        for node in 0..self.nodes.len() {
            match self.nodes.get_mut(node) {
                Some(NodeState::Waiting { .. }) => {
                    let reason = match failed {
                        Some(failed) => format!("{} failed, and the run fails fast", self.graph.name(failed)),
                        None if halt == Halt::Deadline => {
                            "the time of the run was over before it was begun".to_owned()
                        }
                        None if halt == Halt::Refused => {
                            "calls of the run were refused before it was begun".to_owned()
                        }
                        None => "the run was cancelled before it was begun".to_owned(),
                    };
                    self.end_node(
                        node,
                        NodeStatus::Cancelled,
                        None,
                        Failures::default(),
                        Some(reason),
                        effects,
                    );
                }
                Some(NodeState::Running { elements, .. }) => {
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
        match self.bind_node(node) {
            Ok((shape, args)) => {
                if let Some(state) = self.nodes.get_mut(node) {
                    *state = NodeState::Running { elements: Elements::new(shape), args };
                }
                self.after_element(node, effects);
            }
            Err(error) => {
                let error = self.unbound(node, None, &error);
                let mut failures = Failures::default();
                failures.push(error.clone());
                let reason = Some(error.message.clone());
                self.end_node(node, NodeStatus::Failed, None, failures, reason, effects);
                self.node_failed(node, error, effects);
            }
        }
    }

    fn bind_node(&self, node: usize) -> Result<(Shape, Args), BindError> {
        let scope = RunScope::of_node(self);
        let args = Args::prepare(&self.node(node).args, &scope)?;
        let Some(map) = &self.node(node).map else { return Ok((Shape::Single, args)) };
        let template = Template::parse(map).map_err(BindError::Malformed)?;
        if let Template::Reference(reference) = &template
            && let Some(results) = self.results_of(reference)
        {
            return Ok((Shape::Mapped(results.clone()), args));
        }
        let mut bound = bind::bind_template(&template, &scope)?;
        if bound.kind() != JsonKind::List {
            bound = look_through(&bound);
        }
        match bound.items() {
            Some(items) if items.len() > MAP_ELEMENTS_MAX => {
                Err(BindError::TooManyElements { elements: items.len(), max: MAP_ELEMENTS_MAX })
            }
            Some(items) => Ok((Shape::Mapped(items.into_iter().map(Some).collect()), args)),
            None => Err(BindError::NotAList {
                reference: map.to_string().trim_matches('"').to_owned(),
                found: bind::kind(&bound),
            }),
        }
    }

    /// The results of a mapped node, gaps and all, where the reference is to all of them.
    pub(super) fn results_of(&self, reference: &Reference) -> Option<&Vec<Option<Json>>> {
        match self.nodes.get(self.graph.find(&reference.root)?)? {
            NodeState::Ended { output: Some(Output::List(results)), .. } if reference.path.is_empty() => {
                Some(results)
            }
            _ => None,
        }
    }

    fn submit_next(&mut self, node: usize, effects: &mut Vec<CompositionEffect>) {
        match self.bind_next(node) {
            Some((_, Ok(submit))) => {
                effects.push(CompositionEffect::Submit(submit));
                self.in_flight += 1;
                if let Some(elements) = self.elements(node) {
                    elements.submitted();
                }
            }
            Some((element, Err(error))) => {
                let error = self.unbound(node, Some(element), &error);
                if let Some(elements) = self.elements(node) {
                    elements.unbound(error.clone());
                }
                self.node_failed(node, error, effects);
            }
            None => {}
        }
        self.after_element(node, effects);
    }

    fn bind_next(&self, node: usize) -> Option<(usize, Result<SubmitElement, BindError>)> {
        let NodeState::Running { elements, args } = self.nodes.get(node)? else { return None };
        let element = elements.next()?;
        let item = elements.item(element);
        let scope = RunScope { element: item.map(|item| (item, element)), ..RunScope::of_node(self) };
        let call = self.node(node);
        let submit = args.bind(&scope).map(|kwargs| SubmitElement {
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
        let more = self.elements(node).is_some_and(|elements| elements.next().is_some());
        let place = (Reverse(self.priority_of(node)), node);
        if more {
            self.submittable.insert(place);
        } else {
            self.submittable.remove(&place);
        }
        self.close_if_drained(node, effects);
    }
}

fn illegal(subject: String, state: &'static str, event: &'static str) -> CompositionError {
    CompositionError::Illegal { subject, state, event }
}
