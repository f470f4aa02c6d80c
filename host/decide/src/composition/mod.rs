//! Compositions: what a document means as a graph, how its references bind, and what a run does next. Nothing
//! here submits or stores; the shell submits the elements that the effects name and reports how they ended.
//!
//! Must hold: every node ends exactly once, every element in flight is named by one `SubmitElement`, and a run
//! ends exactly once, when no node is left ([`CompositionRun::check_invariants`]).

mod bind;
mod check;
mod declared;
mod elements;
mod ends;
mod graph;
mod inputs;
mod literals;
mod run;
mod sources;
mod state;
mod types;

pub use bind::{BindError, Found, Scope, bind};
pub use cjm_wire::composition::FAILURES_LISTED_MAX;
pub use declared::{DeclaredAction, DeclaredTools, Meant, meant};
pub use elements::NODE_IN_FLIGHT_MAX;
pub use graph::{Graph, GraphError};
pub use inputs::InputsError;
pub use literals::{configuration_misfit, literal_faults};
pub use sources::sources;
pub use state::{CompositionRun, RUN_IN_FLIGHT_MAX};
pub use types::{
    CompositionEffect, CompositionError, CompositionEvent, ElementOutcome, Failures, Halt, NodeError,
    NodeProgress, NodeStatus, SubmitElement,
};
