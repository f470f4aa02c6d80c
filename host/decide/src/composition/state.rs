//! The state of one run of a composition, and what its references stand for. How it changes is told in `run` and
//! `ends`.

use super::bind::{Args, Found, Scope};
use super::elements::{Elements, Output};
use super::graph::Graph;
use super::inputs;
use super::types::{CompositionError, Failures, Halt, NodeProgress, NodeStatus};
use cjm_wire::composition::{Composition, FailurePolicy, Node, PathStep, Reference};
use cjm_wire::json::{Arguments, Json};
use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Most elements of one run that are in flight at once. Above a node's own maximum, so that one long `map`
/// does not keep a side branch waiting.
pub const RUN_IN_FLIGHT_MAX: usize = 4_096;

#[derive(Debug, Clone)]
pub(super) enum NodeState {
    Waiting { needs: usize },
    Running { elements: Elements, args: Args },
    Ended { status: NodeStatus, output: Option<Output>, elements_ended: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    NotStarted,
    Running,
    Ended,
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
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
    /// Shared by the copies of a run, which tests make by the million.
    pub(super) composition: Arc<Composition>,
    pub(super) graph: Arc<Graph>,
    pub(super) inputs: Arguments,
    pub(super) priority: i32,
    pub(super) stage: Stage,
    pub(super) nodes: Vec<NodeState>,
    pub(super) unended: usize,
    pub(super) in_flight: usize,
    /// Nodes whose needs are met and which have not begun.
    pub(super) opening: VecDeque<usize>,
    /// Running nodes with an element to submit and room for it, best first.
    pub(super) submittable: BTreeSet<(Reverse<i32>, usize)>,
    pub(super) halt: Option<Halt>,
    pub(super) failures: Failures,
}

impl CompositionRun {
    /// A run that has not begun. `priority` is what nodes without one inherit.
    ///
    /// # Errors
    /// A document that is no graph; inputs that do not fit.
    pub fn new(composition: Composition, given: Arguments, priority: i32) -> Result<Self, CompositionError> {
        let graph = Graph::build(&composition)?;
        let nodes = (0..graph.len())
            .map(|node| NodeState::Waiting { needs: graph.dependencies(node).len() })
            .collect();
        Ok(Self {
            inputs: inputs::complete(&composition, given)?,
            priority,
            stage: Stage::NotStarted,
            nodes,
            unended: graph.len(),
            in_flight: 0,
            opening: VecDeque::new(),
            submittable: BTreeSet::new(),
            halt: None,
            failures: Failures::default(),
            composition: Arc::new(composition),
            graph: Arc::new(graph),
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
            NodeState::Running { elements, .. } => NodeProgress::Running {
                elements_total: elements.total(),
                in_flight: elements.in_flight().len(),
                ended: elements.ended_count(),
                failed: elements.failed_count(),
            },
            NodeState::Ended { status, .. } => NodeProgress::Ended(*status),
        })
    }

    /// How many elements of a node have ended in any way, those that could not begin included.
    #[must_use]
    pub fn elements_ended(&self, node: &str) -> usize {
        match self.graph.find(node).and_then(|node| self.nodes.get(node)) {
            Some(NodeState::Running { elements, .. }) => elements.ended_count(),
            Some(NodeState::Ended { elements_ended, .. }) => *elements_ended,
            Some(NodeState::Waiting { .. }) | None => 0,
        }
    }

    pub(super) fn node(&self, node: usize) -> &Node {
        &self.composition.nodes[node]
    }

    pub(super) fn elements(&mut self, node: usize) -> Option<&mut Elements> {
        match self.nodes.get_mut(node)? {
            NodeState::Running { elements, .. } => Some(elements),
            NodeState::Waiting { .. } | NodeState::Ended { .. } => None,
        }
    }

    pub(super) fn priority_of(&self, node: usize) -> i32 {
        match self.node(node).priority {
            0 => self.priority,
            own => own,
        }
    }

    pub(super) fn is_best_effort(&self) -> bool {
        self.composition.failure == FailurePolicy::BestEffort
    }

    /// Nothing more is to begin.
    pub(super) fn is_halted(&self) -> bool {
        self.halt.is_some()
    }

    /// Why nothing more is to begin, where that is so: what is in flight is being stopped, and nothing changes how the run
    /// ends.
    #[must_use]
    pub fn halt(&self) -> Option<Halt> {
        self.halt
    }

    /// Elements that were submitted and have not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }
}

/// What references stand for in a run.
pub(super) struct RunScope<'a> {
    pub(super) run: &'a CompositionRun,
    pub(super) element: Option<(&'a Json, usize)>,
    /// For a node that has made nothing.
    pub(super) absent: Found,
}

impl<'a> RunScope<'a> {
    /// What every element of a node sees.
    pub(super) fn of_node(run: &'a CompositionRun) -> Self {
        Self { run, element: None, absent: Found::Unknown }
    }
}

impl Scope for RunScope<'_> {
    fn value_of(&self, reference: &Reference) -> Found {
        match (reference.root.as_str(), self.element) {
            ("inputs", _) => match reference.path.first() {
                Some(PathStep::Field(name)) => self.run.inputs.get(name).cloned(),
                Some(PathStep::Index(_)) | None => None,
            }
            .map_or(Found::Unknown, |input| Found::Value(input, 1)),
            ("item", Some((item, _))) => Found::Value(item.clone(), 0),
            ("index", Some((_, index))) => Found::Value(Json::of(index), 0),
            (root, _) => match self.run.graph.find(root).and_then(|node| self.run.nodes.get(node)) {
                Some(NodeState::Ended { output: Some(output), .. }) => of_output(output, reference),
                Some(_) => self.absent.clone(),
                None => Found::Unknown,
            },
        }
    }
}

/// A single result of a mapped node is taken from its place: the list is not written out for it.
fn of_output(output: &Output, reference: &Reference) -> Found {
    match (output, reference.path.first()) {
        (Output::List(results), Some(PathStep::Index(index))) => match results.get(*index) {
            Some(Some(result)) => Found::Value(result.clone(), 1),
            Some(None) => Found::Null,
            None => Found::Value(output.whole(), 0),
        },
        _ => Found::Value(output.whole(), 0),
    }
}
