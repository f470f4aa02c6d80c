//! What goes into a run of a composition and what comes out: events, effects, statuses and refusals. Plain data;
//! the meaning of each pair of state and event is in `run`.

use super::graph::GraphError;
use super::inputs::InputsError;
use crate::queue::CancelReach;
use cjm_wire::describe::Described;
use cjm_wire::event::JobStatus;
use serde_json::{Map, Value};

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
    /// Somebody wants the run ended. A repetition is ignored.
    CancelRequested,
}

impl CompositionEvent {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::ElementEnded { .. } => "element_ended",
            Self::CancelRequested => "cancel_requested",
        }
    }
}

/// How an element's job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum ElementOutcome {
    /// With this result.
    Completed(Value),
    /// With an error; the text is for people.
    Failed(String),
    /// Cancelled.
    Cancelled,
}

/// How a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStatus {
    /// All its elements completed.
    Completed,
    /// An element failed, or its references did not bind.
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
    pub kwargs: Map<String, Value>,
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
        /// Failing fast lets running calls finish.
        reach: CancelReach,
    },
    /// A node is over.
    NodeEnded {
        /// The node.
        node: String,
        /// How.
        status: NodeStatus,
        /// Of a failed node: why.
        error: Option<String>,
    },
    /// A node completed: the `composition_advanced` row.
    Advanced {
        /// The node.
        completed_node: String,
        /// Nodes that begin because of it.
        enqueued_nodes: Vec<String>,
    },
    /// The run is over. Exactly once.
    Ended {
        /// `completed`, `failed` or `cancelled`.
        status: JobStatus,
        /// The bound `output`, or the outputs of all completed nodes by name.
        output: Value,
        /// The first failure, also of a best-effort run that completed.
        first_error: Option<NodeError>,
    },
}

/// A failure, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeError {
    /// The node; `None` when the run's `output` did not bind.
    pub node: Option<String>,
    /// The element of a mapped node.
    pub element: Option<usize>,
    /// For people.
    pub message: String,
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
        /// Of them, ended in any way.
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
