//! What goes into a run of a composition and what comes out: events, effects, statuses and refusals. Plain data;
//! the meaning of each pair of state and event is in `run`.

use super::graph::GraphError;
use super::inputs::InputsError;
use crate::queue::CancelReach;
use cjm_wire::composition::{FAILURES_LISTED_MAX, RunOutcome};
use cjm_wire::describe::Described;
use cjm_wire::json::{Arguments, Json};
use std::fmt;

/// What happens to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum CompositionEvent {
    /// Begin. Once.
    Start,
    /// A submitted element's job is terminal. A repetition is ignored.
    ElementEnded {
        /// The node.
        node: String,
        /// From 0.
        element: usize,
        /// How.
        outcome: ElementOutcome,
    },
    /// The queue or the store did not take these elements. None of them has begun, and none is to blame. One that is known to
    /// have ended is passed over.
    Refused {
        /// Nodes and elements.
        elements: Vec<(String, usize)>,
    },
    /// Somebody wants the run ended. A repetition is ignored, and so is it once the run is halted for another reason.
    CancelRequested,
    /// The time of the run is over. Likewise.
    DeadlinePassed,
}

/// Why a run begins nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// It fails fast.
    FirstFailure,
    /// Somebody wants it ended.
    Cancelled,
    /// Its time is over.
    Deadline,
    /// Calls of it were refused, by the queue or by the store.
    Refused,
}

impl CompositionEvent {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::ElementEnded { .. } => "element_ended",
            Self::CancelRequested => "cancel_requested",
            Self::DeadlinePassed => "deadline_passed",
            Self::Refused { .. } => "refused",
        }
    }
}

/// How an element's job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum ElementOutcome {
    /// With this result.
    Completed(Json),
    /// With an error; the text is for people.
    Failed(String),
    /// Cancelled.
    Cancelled {
        /// Whether its call had begun.
        begun: bool,
    },
}

/// How a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStatus {
    /// All its elements completed.
    Completed,
    /// Best effort: some of its elements completed, and their results are there.
    Partial,
    /// An element failed, or its references did not bind; best effort: no element completed.
    Failed,
    /// It did not run to its end because somebody asked, or because the run fails fast.
    Cancelled,
    /// Something it needs did not complete.
    Skipped,
}

impl NodeStatus {
    /// For rows and people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

/// One call to submit.
#[derive(Debug, Clone, PartialEq)]
pub struct SubmitElement {
    /// The node.
    pub node: String,
    /// From 0.
    pub element: usize,
    /// 1 for a plain call.
    pub elements_total: usize,
    /// Whether the node has `map`.
    pub mapped: bool,
    /// Capability by name, or one instance by id.
    pub capability: String,
    /// Action of the call.
    pub action: Option<String>,
    /// Task of an adapter call.
    pub task: Option<String>,
    /// Method of an adapter call.
    pub method: Option<String>,
    /// Arguments, bound; without the action.
    pub kwargs: Arguments,
    /// Inherited already.
    pub priority: i32,
}

/// What the shell is to do, in this order.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum CompositionEffect {
    /// Submit a job.
    Submit(SubmitElement),
    /// Cancel a submitted job.
    CancelElement {
        /// The node.
        node: String,
        /// From 0.
        element: usize,
        /// How far the cancel goes.
        reach: CancelReach,
    },
    /// The run fails fast and this is why: callers are to be told now. What still runs is being cancelled, and the
    /// run's `Ended` follows when all is quiet. At most once, before the cancels that it causes.
    FirstFailure(NodeError),
    /// A node is over.
    NodeEnded {
        /// The node.
        node: String,
        /// How.
        status: NodeStatus,
        /// Its own failures.
        failures: Failures,
        /// In words, of every node that did not complete: why.
        reason: Option<String>,
    },
    /// A node completed, in part at least: the `composition_advanced` row.
    Advanced {
        /// The node.
        completed_node: String,
        /// Nodes that begin because of it.
        enqueued_nodes: Vec<String>,
    },
    /// The run is over. Exactly once.
    Ended {
        /// How.
        outcome: RunOutcome,
        /// The bound `output`, or what all nodes have made, by name. Of a node that ended in part it is a list with null
        /// at the places of the elements that are missing; a node that made nothing counts as null in a template, and is
        /// left out without one.
        output: Json,
        /// Everything that failed, the first one first.
        failures: Failures,
    },
}

/// A failure, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeError {
    /// The node; `None` when a reference in the run's `output` did not bind.
    pub node: Option<String>,
    /// The element of a mapped node.
    pub element: Option<usize>,
    /// For people.
    pub message: String,
    /// What would do, where it is known.
    pub next_step: Option<String>,
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.node, self.element) {
            (Some(node), Some(element)) => write!(f, "{node}[{element}]: {}", self.message),
            (Some(node), None) => write!(f, "{node}: {}", self.message),
            (None, _) => write!(f, "output: {}", self.message),
        }
    }
}

/// Failures in the order in which they happened, the first [`FAILURES_LISTED_MAX`] of them, and how many more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failures {
    listed: Vec<NodeError>,
    left_out: usize,
}

impl Failures {
    /// Adds one.
    pub fn push(&mut self, error: NodeError) {
        if self.listed.len() < FAILURES_LISTED_MAX {
            self.listed.push(error);
        } else {
            self.left_out += 1;
        }
    }

    /// These, and so many more that are not known one by one.
    #[must_use]
    pub fn with_left_out(mut self, more: usize) -> Self {
        self.left_out += more;
        self
    }

    /// The first one.
    #[must_use]
    pub fn first(&self) -> Option<&NodeError> {
        self.listed.first()
    }

    /// Those that are told one by one.
    #[must_use]
    pub fn listed(&self) -> &[NodeError] {
        &self.listed
    }

    /// How many more there were.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// How many there were in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.listed.len() + self.left_out
    }

    /// Whether there were none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeProgress {
    /// Needs others first.
    Waiting,
    /// Under way.
    Running {
        /// Elements of the node.
        elements_total: usize,
        /// Of them, submitted and not ended.
        in_flight: usize,
        /// Of them, ended in any way, or with nothing to do because what they need is missing.
        ended: usize,
        /// Of those, failed.
        failed: usize,
    },
    /// Over.
    Ended(NodeStatus),
}

/// Why a run cannot be, or an event cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompositionError {
    /// The document is no graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The inputs do not fit.
    #[error(transparent)]
    Inputs(#[from] InputsError),
    /// A pair of state and event that cannot be.
    #[error("{subject} is {state}, where `{event}` cannot happen")]
    Illegal {
        /// The run, or `node[element]`.
        subject: String,
        /// What it is.
        state: &'static str,
        /// What was said to have happened.
        event: &'static str,
    },
}

impl Described for CompositionError {
    fn code(&self) -> &'static str {
        match self {
            Self::Graph(error) => error.code(),
            Self::Inputs(error) => error.code(),
            Self::Illegal { .. } => "composition.illegal_transition",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Graph(error) => error.next_step(),
            Self::Inputs(error) => error.next_step(),
            Self::Illegal { .. } => {
                "this is a defect of the host: report it with the journal of the composition".to_owned()
            }
        }
    }
}
