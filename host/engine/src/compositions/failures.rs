//! Failures of compositions: of an element's job, told with its place; of a node that no job carries; of a run whose time
//! is over, or whose calls were refused.

use crate::error::HostError;
use cjm_decide::composition::NodeError;
use cjm_wire::describe::{ErrorReport, exit};
use cjm_wire::error::{ErrorCategory, Failure, JobError};
use std::time::Duration;

/// The failure that came first, told with its node and element; `known` is what its own job says of it.
pub(super) fn failure_at(first: &NodeError, known: Option<&Failure>) -> Failure {
    let Some(name) = &first.node else {
        return node_failure("output", None, &first.message);
    };
    let Some(mut failure) = known.cloned() else {
        return node_failure(name, first.element, &first.message);
    };
    let place = first.element.map_or_else(|| name.clone(), |element| format!("{name}[{element}]"));
    failure.report.message = format!("node {place}: {}", failure.report.message);
    failure.report.exit_code = exit::COMPOSITION_FAILED;
    failure.report = failure.report.at_node(name.clone(), first.element);
    failure
}

/// The failure of a node that no job of it carries: its references did not bind.
pub(super) fn node_failure(node: &str, element: Option<usize>, message: &str) -> Failure {
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
        .at_node(node, element),
    }
}

/// The failure of what the host refused, in its own terms: what it is to the caller depends on who refused it.
pub(super) fn refusal(what: &str, error: &HostError) -> Failure {
    let category = match error {
        HostError::Store(error) => error.category(),
        HostError::Refused(_) => ErrorCategory::Resource,
        HostError::ShuttingDown => ErrorCategory::Transient,
        _ => ErrorCategory::UserInput,
    };
    let job_error = JobError::new(category, format!("{what}: {error}"));
    let report = ErrorReport { message: job_error.message.clone(), ..ErrorReport::of(error) };
    Failure { report: report.with_job_error(&job_error), error: job_error }
}

/// The failure of a run whose time is over, and of the jobs that were stopped for that.
pub(super) fn deadline_failure(name: &str, timeout: Duration) -> Failure {
    let error = HostError::CompositionDeadline { name: name.to_owned(), seconds: timeout.as_secs_f64() };
    let job_error =
        JobError { retriable: true, ..JobError::new(ErrorCategory::Transient, error.to_string()) };
    Failure { report: ErrorReport::of(&error).with_job_error(&job_error), error: job_error }
}
