//! Compositions told as scripts: what happens, line by line, and what the run then does.

use cjm_decide::composition::{
    CompositionEffect, CompositionEvent, CompositionRun, ElementOutcome, NodeStatus,
};
use cjm_decide::queue::CancelReach;
use cjm_wire::composition::Composition;
use cjm_wire::describe::Described;
use cjm_wire::json::{Arguments, Json};
use serde_json::Value;

pub(crate) fn arguments(inputs: &Value) -> Arguments {
    inputs.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), Json::from(value))).collect()
}

pub(crate) fn run_of(document: &str, inputs: &Value) -> CompositionRun {
    let composition = Composition::parse(document).expect(document);
    CompositionRun::new(composition, arguments(inputs), 3).expect(document)
}

pub(crate) fn text(effect: &CompositionEffect) -> String {
    match effect {
        CompositionEffect::Submit(submit) => {
            let element = if submit.mapped { format!("[{}]", submit.element) } else { String::new() };
            let kwargs = Json::object(submit.kwargs.iter().map(|(key, value)| (key.as_str(), value)));
            format!("submit {}{element} {}", submit.node, kwargs.compact())
        }
        CompositionEffect::CancelElement { node, element, reach } => {
            let reach = if *reach == CancelReach::Any { "any" } else { "pending" };
            format!("cancel {node}[{element}] {reach}")
        }
        CompositionEffect::FirstFailure(error) => format!("first {error}"),
        CompositionEffect::NodeEnded { node, status, reason, .. } => {
            let shown = matches!(status, NodeStatus::Failed | NodeStatus::Partial);
            let reason =
                reason.as_ref().filter(|_| shown).map_or(String::new(), |reason| format!(": {reason}"));
            format!("{} {node}{reason}", status.as_str())
        }
        CompositionEffect::Advanced { completed_node, enqueued_nodes } => {
            format!("advanced {completed_node} > {}", enqueued_nodes.join(" "))
        }
        CompositionEffect::Ended { outcome, output, failures } => {
            let errors: Vec<String> = failures.listed().iter().map(ToString::to_string).collect();
            let errors = if errors.is_empty() { String::new() } else { format!(" ({})", errors.join("; ")) };
            format!("ended {outcome} {}{errors}", output.compact())
        }
    }
}

/// `start`, `cancel`, `deadline`, `refused NODE[ELEMENT] …`, `NODE[ELEMENT] JSON`, `NODE[ELEMENT] !message`, `NODE[ELEMENT] ~` (cancelled),
/// `NODE[ELEMENT] -` (cancelled before its call began).
pub(crate) fn event(line: &str) -> CompositionEvent {
    match line {
        "start" => CompositionEvent::Start,
        "cancel" => CompositionEvent::CancelRequested,
        "deadline" => CompositionEvent::DeadlinePassed,
        _ if line.starts_with("refused ") => {
            CompositionEvent::Refused { elements: line.split(' ').skip(1).map(place_of).collect() }
        }
        _ => {
            let (place, outcome) = line.split_once(' ').expect("a place and an outcome");
            let (node, element) = place_of(place);
            let outcome = match outcome.strip_prefix('!') {
                Some(message) => ElementOutcome::Failed(message.to_owned()),
                None if outcome == "~" => ElementOutcome::Cancelled { begun: true },
                None if outcome == "-" => ElementOutcome::Cancelled { begun: false },
                None => ElementOutcome::Completed(Json::parse(outcome).expect(outcome)),
            };
            CompositionEvent::ElementEnded { node, element, outcome }
        }
    }
}

fn place_of(text: &str) -> (String, usize) {
    let (node, element) = text.trim_end_matches(']').split_once('[').expect("NODE[ELEMENT]");
    (node.to_owned(), element.parse().expect("a number"))
}

pub(crate) fn check(document: &str, inputs: &Value, script: &[(&str, &[&str])]) -> CompositionRun {
    let mut run = run_of(document, inputs);
    for (line, expected) in script {
        let found = match run.handle(event(line)) {
            Ok(effects) => effects.iter().map(text).collect(),
            Err(error) => {
                assert!(!error.next_step().is_empty());
                vec![format!("{}: {error}", error.code())]
            }
        };
        assert_eq!(found, *expected, "{line}");
        run.check_invariants().expect(line);
    }
    run
}
