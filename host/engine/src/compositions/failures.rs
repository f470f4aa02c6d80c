//! Failures of compositions: of an element's job, told with its place; of a node that no job carries; of a run whose time
//! is over.

use crate::compositions::state::NodeOutcome;
use crate::error::HostError;
use cjm_decide::composition::NodeError;
use cjm_wire::describe::{ErrorReport, exit};
use cjm_wire::error::{ErrorCategory, Failure, JobError};
use std::time::Duration;

/// The failure of the job that failed first, told with its node and element.
pub(super) fn failure_at(first: &NodeError, nodes: &[NodeOutcome]) -> Failure {
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
pub(super) fn node_failure(node: &str, message: &str) -> Failure {
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

/// The failure of a run whose time is over, and of the jobs that were stopped for that.
pub(super) fn deadline_failure(name: &str, timeout: Duration) -> Failure {
    let error = HostError::CompositionDeadline { name: name.to_owned(), seconds: timeout.as_secs_f64() };
    let job_error =
        JobError { retriable: true, ..JobError::new(ErrorCategory::Transient, error.to_string()) };
    Failure { report: ErrorReport::of(&error).with_job_error(&job_error), error: job_error }
}
