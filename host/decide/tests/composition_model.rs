//! Compositions against a model: random graphs with random failures, in random order of events. Without haste
//! (best effort) the model knows every node's end whatever the order; failing fast and cancels are held to the
//! rules that no order may break. Then one graph whose every node fails in turn.

use cjm_decide::composition::{
    CompositionEffect, CompositionEvent, CompositionRun, ElementOutcome, Failures, NodeStatus,
};
use cjm_decide::queue::CancelReach;
use cjm_wire::composition::{Composition, RunOutcome};
use cjm_wire::json::{Arguments, Json};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Ten nodes of five elements.
const EVENTS_MAX: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Complete,
    Fail,
    Cancel,
}

#[derive(Debug, Clone)]
struct PlanNode {
    needs: BTreeSet<usize>,
    /// `None`: a plain call.
    elements: Option<usize>,
    fates: Vec<Fate>,
}

#[derive(Debug, Clone)]
struct Plan {
    nodes: Vec<PlanNode>,
    fail_fast: bool,
    /// After how many events somebody cancels.
    cancel_after: Option<usize>,
    /// After how many events half of what is in flight is refused.
    refuse_after: Option<usize>,
    /// Which element in flight ends next.
    picks: Vec<usize>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let fate = prop_oneof![8 => Just(Fate::Complete), 1 => Just(Fate::Fail), 1 => Just(Fate::Cancel)];
    let node = (any::<u16>(), prop::option::weighted(0.4, 0..5_usize), prop::collection::vec(fate, 5));
    (
        prop::collection::vec(node, 0..10),
        any::<bool>(),
        prop::option::weighted(0.3, 0..12_usize),
        prop::option::weighted(0.2, 0..12_usize),
        prop::collection::vec(any::<usize>(), 60),
    )
        .prop_map(|(nodes, fail_fast, cancel_after, refuse_after, picks)| Plan {
            nodes: nodes
                .into_iter()
                .enumerate()
                .map(|(at, (bits, elements, fates))| PlanNode {
                    needs: (0..at).filter(|need| bits >> need & 3 == 3).collect(),
                    elements,
                    fates,
                })
                .collect(),
            fail_fast,
            cancel_after,
            refuse_after,
            picks,
        })
}

impl PlanNode {
    fn total(&self) -> usize {
        self.elements.unwrap_or(1)
    }

    fn fates(&self) -> &[Fate] {
        &self.fates[..self.total()]
    }

    fn output(&self, node: usize) -> Value {
        match self.elements {
            None => result(node, 0),
            Some(total) => (0..total).map(|element| result(node, element)).collect(),
        }
    }
}

fn result(node: usize, element: usize) -> Value {
    json!({"__wire__": "t", "data": {"made_by": format!("n{node}[{element}]")}})
}

impl Plan {
    fn document(&self) -> Composition {
        let nodes: Map<String, Value> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(at, node)| {
                let needs: Vec<String> = node.needs.iter().map(|need| format!("${{n{need}}}")).collect();
                let mut document = json!({"capability": "c", "args": {"needs": needs}});
                if let Some(elements) = node.elements {
                    document["map"] = (0..elements).map(|element| json!({"e": element})).collect();
                    document["args"]["e"] = json!("${item.e}/${index}");
                }
                (format!("n{at}"), document)
            })
            .collect();
        let failure = if self.fail_fast { "fail_fast" } else { "best_effort" };
        serde_json::from_value(json!({"name": "t", "failure": failure, "nodes": nodes})).expect("a document")
    }

    fn kwargs(&self, node: usize, element: usize) -> Value {
        let needs: Vec<Value> =
            self.nodes[node].needs.iter().map(|need| self.nodes[*need].output(*need)).collect();
        let mut kwargs = json!({"needs": needs});
        if self.nodes[node].elements.is_some() {
            kwargs["e"] = json!(format!("{element}/{element}"));
        }
        kwargs
    }

    /// How every node ends when nothing is hasty and nobody cancels. Each uses all that the others have made.
    fn ends(&self) -> Vec<NodeStatus> {
        let mut ends: Vec<NodeStatus> = Vec::new();
        for node in &self.nodes {
            let good = node.fates().iter().filter(|fate| **fate == Fate::Complete).count();
            ends.push(if node.needs.iter().any(|need| ends[*need] != NodeStatus::Completed) {
                NodeStatus::Skipped
            } else if good == node.total() {
                NodeStatus::Completed
            } else if good > 0 {
                NodeStatus::Partial
            } else if node.fates().contains(&Fate::Fail) {
                NodeStatus::Failed
            } else {
                NodeStatus::Cancelled
            });
        }
        ends
    }

    /// What the run gives, of what completed.
    fn outputs(&self, told: &Told) -> Value {
        let mut outputs = Map::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let made: Vec<Value> = (0..node.total())
                .map(|element| match told.completed.contains(&(at, element)) {
                    true => result(at, element),
                    false => Value::Null,
                })
                .collect();
            let nothing = made.iter().all(Value::is_null) && told.ends[&at] != NodeStatus::Completed;
            if !nothing {
                let whole = if node.elements.is_some() { made.into() } else { made[0].clone() };
                outputs.insert(format!("n{at}"), whole);
            }
        }
        Value::Object(outputs)
    }
}

/// What a run did.
#[derive(Debug, Default)]
struct Told {
    flying: Vec<(usize, usize)>,
    submitted: BTreeSet<(usize, usize)>,
    completed: BTreeSet<(usize, usize)>,
    ends: BTreeMap<usize, NodeStatus>,
    end: Option<(RunOutcome, Json, Failures)>,
    /// What callers of a run that fails fast were told.
    first_failure: Option<String>,
    /// Nothing may be submitted any more.
    halted: bool,
}

fn number(name: &str) -> usize {
    name[1..].parse().expect("n and a number")
}

impl Told {
    fn note(&mut self, plan: &Plan, effects: Vec<CompositionEffect>) {
        for effect in effects {
            assert!(self.end.is_none(), "nothing follows the end: {effect:?}");
            match effect {
                CompositionEffect::Submit(submit) => {
                    let place = (number(&submit.node), submit.element);
                    assert!(!self.halted, "submitted after the halt: {place:?}");
                    assert!(self.submitted.insert(place), "submitted twice: {place:?}");
                    assert_eq!(
                        serde_json::to_value(&submit.kwargs).expect("an object"),
                        plan.kwargs(place.0, place.1)
                    );
                    assert_eq!(submit.elements_total, plan.nodes[place.0].total());
                    for need in &plan.nodes[place.0].needs {
                        assert_eq!(
                            self.ends.get(need),
                            Some(&NodeStatus::Completed),
                            "{place:?} needs {need}"
                        );
                    }
                    self.flying.push(place);
                }
                CompositionEffect::CancelElement { node, element, reach } => {
                    assert!(self.halted, "cancelled without need");
                    assert!(
                        reach == CancelReach::Any || !plan.fail_fast,
                        "what fails fast goes on with nothing"
                    );
                    assert!(self.flying.contains(&(number(&node), element)), "cancelled what does not fly");
                }
                CompositionEffect::FirstFailure(error) => {
                    assert!(plan.fail_fast && self.halted, "told without need");
                    assert!(self.first_failure.replace(error.to_string()).is_none(), "told twice");
                }
                CompositionEffect::NodeEnded { node, status, failures, reason } => {
                    assert_eq!(reason.is_some(), status != NodeStatus::Completed);
                    assert!(!failures.is_empty() || status != NodeStatus::Failed);
                    assert!(failures.listed().iter().all(|error| error.node.as_ref() == Some(&node)));
                    assert!(self.ends.insert(number(&node), status).is_none(), "{node} ended twice");
                }
                CompositionEffect::Advanced { completed_node, .. } => {
                    let status = self.ends.get(&number(&completed_node));
                    assert!(matches!(status, Some(NodeStatus::Completed | NodeStatus::Partial)));
                }
                CompositionEffect::Ended { outcome, output, failures } => {
                    self.end = Some((outcome, output, failures));
                }
            }
        }
    }
}

fn ended(node: usize, element: usize, fate: Fate) -> CompositionEvent {
    let outcome = match fate {
        Fate::Complete => ElementOutcome::Completed(Json::from(result(node, element))),
        Fate::Fail => ElementOutcome::Failed(format!("n{node}[{element}] failed")),
        Fate::Cancel => ElementOutcome::Cancelled { begun: true },
    };
    CompositionEvent::ElementEnded { node: format!("n{node}"), element, outcome }
}

/// Plays a plan to its end and holds it to the rules that no order may break.
fn play(plan: &Plan) -> Told {
    let mut run = CompositionRun::new(plan.document(), Arguments::new(), 0).expect("a run");
    let mut told = Told::default();
    let mut picks = plan.picks.iter().copied().chain(std::iter::repeat(0));
    let step = |run: &mut CompositionRun, told: &mut Told, event: CompositionEvent| {
        let described = format!("{event:?}");
        let effects = run.handle(event).expect(&described);
        told.note(plan, effects);
        run.check_invariants().expect(&described);
    };
    step(&mut run, &mut told, CompositionEvent::Start);
    let (mut cancelled, mut refused) = (false, false);
    for events in 0..=EVENTS_MAX {
        if plan.cancel_after == Some(events) && told.end.is_none() {
            // One whose calls were refused goes on with what it has begun, if it takes parts.
            cancelled = !told.halted || (refused && !plan.fail_fast);
            told.halted = true;
            step(&mut run, &mut told, CompositionEvent::CancelRequested);
        }
        if plan.refuse_after == Some(events) && !told.flying.is_empty() {
            refused = !told.halted;
            told.halted = true;
            let places = told.flying.split_off(told.flying.len() / 2).into_iter();
            let elements = places.map(|(node, element)| (format!("n{node}"), element)).collect();
            step(&mut run, &mut told, CompositionEvent::Refused { elements });
        }
        if told.flying.is_empty() {
            break;
        }
        let at = picks.next().unwrap_or_default() % told.flying.len();
        let (node, element) = told.flying.swap_remove(at);
        let fate = plan.nodes[node].fates[element];
        told.halted |= plan.fail_fast && fate == Fate::Fail;
        if fate == Fate::Complete {
            told.completed.insert((node, element));
        }
        step(&mut run, &mut told, ended(node, element, fate));
        // Said twice, and differently: late news.
        let late = run.handle(ended(node, element, Fate::Fail)).expect("late news is no error");
        assert_eq!(late, Vec::new());
    }
    assert_eq!(told.ends.len(), plan.nodes.len(), "every node has ended");
    let (outcome, output, failures) = told.end.clone().expect("the run has ended");
    assert_eq!(run.handle(CompositionEvent::CancelRequested).expect("late"), Vec::new());
    let is = |wanted: NodeStatus| told.ends.values().any(|status| *status == wanted);
    let good = is(NodeStatus::Completed) || is(NodeStatus::Partial);
    let expected = match (cancelled, &told.first_failure) {
        (true, _) => RunOutcome::Cancelled,
        _ if refused => RunOutcome::Failed,
        (false, Some(_)) => RunOutcome::Failed,
        _ if told.ends.values().all(|status| *status == NodeStatus::Completed) => RunOutcome::Completed,
        _ if !plan.fail_fast && good => RunOutcome::Partial,
        _ if is(NodeStatus::Failed) => RunOutcome::Failed,
        _ => RunOutcome::Cancelled,
    };
    assert_eq!(outcome, expected, "{:?}", told.ends);
    assert!(!failures.is_empty() || !is(NodeStatus::Failed));
    if let Some(first) = &told.first_failure {
        assert_eq!(failures.first().map(ToString::to_string).as_ref(), Some(first), "it stays the first");
    }
    assert_eq!(output.to_value().expect("a value"), plan.outputs(&told));
    for (node, status) in &told.ends {
        let unmet = plan.nodes[*node].needs.iter().any(|need| told.ends[need] != NodeStatus::Completed);
        let ran = told.submitted.iter().any(|(at, _)| at == node);
        assert!(!(unmet && ran), "n{node} ran though something it needs did not complete");
        assert!(*status != NodeStatus::Skipped || unmet, "n{node} was skipped without need");
    }
    told
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs_with_random_failures_end_as_they_must(plan in plan()) {
        let told = play(&plan);
        if !plan.fail_fast && plan.cancel_after.is_none() && plan.refuse_after.is_none() {
            let ends: Vec<NodeStatus> = told.ends.into_values().collect();
            prop_assert_eq!(ends, plan.ends());
            let total: usize = plan
                .nodes
                .iter()
                .zip(plan.ends())
                .filter(|(_, end)| *end != NodeStatus::Skipped)
                .map(|(node, _)| node.total())
                .sum();
            prop_assert_eq!(told.submitted.len(), total);
        }
    }
}

/// Two branches that meet, one of them mapped, and one that stands alone.
fn diamond() -> Vec<PlanNode> {
    let node = |needs: &[usize], elements| PlanNode {
        needs: needs.iter().copied().collect(),
        elements,
        fates: vec![Fate::Complete; 5],
    };
    vec![
        node(&[], None),
        node(&[0], Some(3)),
        node(&[0], None),
        node(&[1, 2], None),
        node(&[3], Some(2)),
        node(&[], None),
    ]
}

#[test]
fn each_node_in_turn_fails_and_nothing_is_left_over() {
    let downstream = [vec![1, 2, 3, 4], vec![3, 4], vec![3, 4], vec![4], vec![], vec![]];
    for (failing, below) in downstream.iter().enumerate() {
        for element in 0..diamond()[failing].total() {
            for fail_fast in [false, true] {
                let mut nodes = diamond();
                nodes[failing].fates[element] = Fate::Fail;
                let plan =
                    Plan { nodes, fail_fast, cancel_after: None, refuse_after: None, picks: Vec::new() };
                let told = play(&plan);
                let partial = !fail_fast && told.ends[&failing] == NodeStatus::Partial;
                assert!(partial || told.ends[&failing] == NodeStatus::Failed);
                assert_eq!(partial, !fail_fast && diamond()[failing].total() > 1);
                for node in below {
                    assert_eq!(told.ends[node], NodeStatus::Skipped, "n{node} below n{failing}");
                }
                let (outcome, _, failures) = told.end.expect("ended");
                assert_eq!(outcome, if fail_fast { RunOutcome::Failed } else { RunOutcome::Partial });
                let error = failures.first().expect("the failure is named");
                assert_eq!(error.node, Some(format!("n{failing}")));
                assert_eq!(error.element, diamond()[failing].elements.map(|_| element));
                assert_eq!(error.message, format!("n{failing}[{element}] failed"));
                if !fail_fast {
                    let others =
                        told.ends.iter().filter(|(node, _)| **node != failing && !below.contains(node));
                    assert!(others.into_iter().all(|(_, status)| *status == NodeStatus::Completed));
                }
            }
        }
    }
}

#[test]
fn a_cancel_at_every_moment_leaves_nothing_over() {
    let elements: usize = diamond().iter().map(PlanNode::total).sum();
    for cancel_after in 0..elements {
        for fail_fast in [false, true] {
            let plan = Plan { cancel_after: Some(cancel_after), ..undisturbed(fail_fast) };
            let (outcome, _, failures) = play(&plan).end.expect("ended");
            assert_eq!((outcome, failures.total()), (RunOutcome::Cancelled, 0), "after {cancel_after}");
        }
    }
}

#[test]
fn a_refusal_at_every_moment_leaves_nothing_over_and_blames_nobody() {
    let elements: usize = diamond().iter().map(PlanNode::total).sum();
    for refuse_after in 0..elements {
        for fail_fast in [false, true] {
            let told = play(&Plan { refuse_after: Some(refuse_after), ..undisturbed(fail_fast) });
            let (outcome, _, failures) = told.end.expect("ended");
            assert_eq!((outcome, failures.total()), (RunOutcome::Failed, 0), "after {refuse_after}");
            assert_eq!(told.first_failure, None);
        }
    }
}

fn undisturbed(fail_fast: bool) -> Plan {
    Plan { nodes: diamond(), fail_fast, cancel_after: None, refuse_after: None, picks: Vec::new() }
}
