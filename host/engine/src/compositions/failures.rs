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
            next_step: format!("correct node `{node}` of the composition, or what it refers to (inputs are given with the run)"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_decide::queue::QueueError;
    use cjm_store::StoreError;

    #[test]
    fn what_a_refusal_is_to_the_caller_depends_on_who_refused() {
        let closed = StoreError::Closed { reason: "the disk is full".to_owned() };
        let full = QueueError::PendingFull { pending: 2, asked: 1, max: 2 };
        for (error, category) in [
            (HostError::ShuttingDown, ErrorCategory::Transient),
            (HostError::Refused(full), ErrorCategory::Resource),
            (HostError::Store(closed), ErrorCategory::Resource),
            (HostError::BadInstanceId("?".to_owned()), ErrorCategory::UserInput),
        ] {
            let failure = refusal("calls were refused", &error);
            assert_eq!(failure.error.category, category, "{error}");
            let own = ErrorReport::of(&error);
            assert_eq!((failure.report.code, failure.report.exit_code), (own.code, own.exit_code), "{error}");
            assert_eq!(failure.report.message, format!("calls were refused: {error}"));
        }
    }

    #[test]
    fn a_run_that_fails_has_one_exit_code_whatever_that_of_the_job_which_failed() {
        let first = NodeError { node: Some("many".to_owned()), element: Some(3), message: "no".to_owned() };
        let mut job = node_failure("many", Some(3), "no");
        (job.report.exit_code, job.report.code) = (exit::OK + 12, "call.tool_failed".to_owned());
        for known in [Some(&job), None] {
            let failure = failure_at(&first, known);
            assert_eq!(failure.report.exit_code, exit::COMPOSITION_FAILED, "{failure:?}");
            assert_eq!(failure.report.details.element, Some(3));
        }
        let told = failure_at(&first, Some(&job)).report;
        assert_eq!(told.code, "call.tool_failed", "what happened is told as its job tells it");
        assert!(told.message.starts_with("node many[3]: "), "{}", told.message);
    }
}
