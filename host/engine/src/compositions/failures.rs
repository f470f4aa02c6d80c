//! Failures of compositions: of an element's job, told with its place; of a node that no job carries; of a run whose time
//! is over, or whose calls were refused.

use crate::error::HostError;
use cjm_decide::composition::{NodeError, sources};
use cjm_wire::composition::Node;
use cjm_wire::describe::{ErrorReport, exit};
use cjm_wire::error::{ErrorCategory, Failure, JobError};
use std::time::Duration;

// Of `node_failure`.
const NODE_FAILED: &str = "composition.node_failed";
// Of `HostError::CompositionDeadline`.
const RUN_DEADLINE: &str = "composition.deadline";
// Of the crate that talks to workers.
const ARGUMENTS_REFUSED: &str = "call.arguments_refused";
// Of the workers, of an argument whose name the action does not have.
const NO_PARAMETER: &str = "has no parameter";

/// The failure that came first, told with its node and element; `known` is what its own job says of it, `node` is as the
/// document has it.
pub(super) fn failure_at(first: &NodeError, known: Option<&Failure>, node: Option<&Node>) -> Failure {
    let Some(name) = &first.node else {
        return output_failure(&first.message);
    };
    // What was kept of a node that no job carries names it already, and not what would do.
    let Some(mut failure) = known.filter(|known| known.report.code != NODE_FAILED).cloned() else {
        let mut failure = node_failure(name, first.element, &first.message);
        if let Some(step) = &first.next_step {
            failure.report.next_step = format!("at node `{}`: {step}", place(name, first.element));
        }
        return failure;
    };
    failure.report.message = format!("node {}: {}", place(name, first.element), failure.report.message);
    failure.report.exit_code = exit::COMPOSITION_FAILED;
    failure.report = failure.report.at_node(name.clone(), first.element);
    if let Some(what) = what_to_correct(name, node, first.element, &failure) {
        failure.report.next_step = format!("correct {what} and run it again; the tool has not run");
    }
    failure
}

/// The failure of a node's job, in its own words, with the node and the element that it is of.
pub(super) fn at_its_place(first: &NodeError, known: &Failure) -> Failure {
    let mut failure = known.clone();
    if let Some(name) = &first.node {
        failure.report = failure.report.at_node(name.clone(), first.element);
    }
    failure
}

/// A node, or one element of it, as people are told.
fn place(node: &str, element: Option<usize>) -> String {
    element.map_or_else(|| node.to_owned(), |element| format!("{node}[{element}]"))
}

/// Of a call that was refused for its arguments: where they stand. That is the composition, which has no options, or what it
/// refers to, and then the reference is right.
fn what_to_correct(
    name: &str,
    node: Option<&Node>,
    element: Option<usize>,
    failure: &Failure,
) -> Option<String> {
    let fields = failure.error.fields_invalid.as_deref().filter(|fields| !fields.is_empty())?;
    // Others say what is amiss with the tool.
    if failure.report.code != ARGUMENTS_REFUSED || !failure.report.next_step.starts_with("correct `") {
        return None;
    }
    // Of a parameter that there is not, the name is wrong, whatever its value.
    let node = node.filter(|_| !failure.error.message.contains(NO_PARAMETER));
    let (mut written, mut referred) = (Vec::new(), Vec::new());
    for field in fields {
        let key = match field.as_str() {
            "action" => format!("`nodes.{name}.action`"),
            field => format!("`nodes.{name}.args.{field}`"),
        };
        match node.map(|node| sources(node, field, element)).unwrap_or_default().as_slice() {
            [] => written.push(key),
            found => referred.push(format!("{}, to which {key} refers,", found.join(" or "))),
        }
    }
    let written = (!written.is_empty()).then(|| format!("{} in the composition", written.join(", ")));
    Some(written.into_iter().chain(referred).collect::<Vec<_>>().join(", and "))
}

/// The failure of a node that no job of it carries: its references did not bind.
pub(super) fn node_failure(node: &str, element: Option<usize>, message: &str) -> Failure {
    let place = place(node, element);
    Failure {
        error: JobError::new(ErrorCategory::UserInput, message),
        report: ErrorReport {
            code: "composition.node_failed".to_owned(),
            message: format!("node `{place}`: {message}"),
            causes: Vec::new(),
            next_step: format!("correct node `{node}` of the composition, or what it refers to (inputs are given with the run)"),
            stderr_tail: Vec::new(),
            exit_code: exit::COMPOSITION_FAILED,
            details: Box::default(),
        }
        .at_node(node, element),
    }
}

/// The failure of a run's `output`, which is no node's: what it refers to was not there.
fn output_failure(message: &str) -> Failure {
    let mut failure = node_failure("output", None, message);
    failure.report.message = format!("output: {message}");
    failure.report.next_step = "correct `output` of the composition, or what it refers to".to_owned();
    failure.report.details = Box::default();
    failure
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

/// Whether it is that of a call that was stopped because the time of its run was over.
pub(super) fn is_of_deadline(failure: &Failure) -> bool {
    failure.report.code == RUN_DEADLINE
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

    fn at(next_step: Option<&str>) -> NodeError {
        NodeError {
            node: Some("a".to_owned()),
            element: None,
            message: "words".to_owned(),
            next_step: next_step.map(str::to_owned),
        }
    }

    #[test]
    fn a_call_that_was_stopped_for_its_run_is_known_by_its_failure() {
        assert!(is_of_deadline(&deadline_failure("t", Duration::from_secs(1))));
        assert!(!is_of_deadline(&node_failure("a", None, "words")));
    }

    #[test]
    fn a_node_that_no_job_carries_is_named_once_with_what_would_do() {
        let known = node_failure("a", None, "words");
        for known in [Some(&known), None] {
            let report = failure_at(&at(Some("refer to a list")), known, None).report;
            assert_eq!(
                (&*report.message, &*report.next_step),
                ("node `a`: words", "at node `a`: refer to a list")
            );
            assert!(failure_at(&at(None), known, None).report.next_step.starts_with("correct node `a` "));
            let third = NodeError { element: Some(2), ..at(Some("compare")) };
            let report = failure_at(&third, known, None).report;
            assert_eq!(
                (&*report.message, &*report.next_step, report.details.element),
                ("node `a[2]`: words", "at node `a[2]`: compare", Some(2))
            );
        }
    }

    #[test]
    fn the_output_of_a_run_is_no_node() {
        let of_run = NodeError { node: None, ..at(None) };
        let report = failure_at(&of_run, None, None).report;
        assert_eq!((&*report.message, report.details.node.as_deref()), ("output: words", None));
        assert!(report.next_step.starts_with("correct `output` of the composition"), "{}", report.next_step);
    }

    #[test]
    fn what_was_refused_of_a_call_is_corrected_where_the_composition_has_it() {
        let mut known = node_failure("a", None, "words");
        known.report.code = "call.arguments_refused".to_owned();
        known.report.next_step =
            "correct `action` (`--action NAME`) and call again; the tool has not run".to_owned();
        known.error.fields_invalid = Some(vec!["action".to_owned(), "text".to_owned()]);
        let step = failure_at(&at(None), Some(&known), None).report.next_step;
        assert!(
            step.starts_with("correct `nodes.a.action`, `nodes.a.args.text` in the composition"),
            "{step}"
        );
        let node =
            r#"{"capability": "c", "action": "go", "map": "${inputs.all}", "args": {"text": "${item}"}}"#;
        let node = serde_json::from_str(node).expect("a node");
        let third = NodeError { element: Some(2), ..at(None) };
        assert_eq!(
            failure_at(&third, Some(&known), Some(&node)).report.next_step,
            "correct `nodes.a.action` in the composition, and the input `all[2]`, to which `nodes.a.args.text` refers, and \
             run it again; the tool has not run"
        );
        // What the tool lacks is corrected there.
        known.report.next_step = "mark a method".to_owned();
        assert_eq!(failure_at(&at(None), Some(&known), None).report.next_step, "mark a method");
    }

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
        let first = NodeError {
            node: Some("many".to_owned()),
            element: Some(3),
            message: "no".to_owned(),
            next_step: None,
        };
        let mut job = node_failure("many", Some(3), "no");
        (job.report.exit_code, job.report.code) = (exit::OK + 12, "call.tool_failed".to_owned());
        for known in [Some(&job), None] {
            let failure = failure_at(&first, known, None);
            assert_eq!(failure.report.exit_code, exit::COMPOSITION_FAILED, "{failure:?}");
            assert_eq!(failure.report.details.element, Some(3));
        }
        let told = failure_at(&first, Some(&job), None).report;
        assert_eq!(told.code, "call.tool_failed", "what happened is told as its job tells it");
        assert!(told.message.starts_with("node many[3]: "), "{}", told.message);
    }
}
