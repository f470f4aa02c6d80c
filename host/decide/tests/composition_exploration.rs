//! Small compositions, explored whole: every graph of up to four nodes, both policies, every way in which references
//! use what is missing, every order in which elements end, every outcome, and a cancel at every point. The bounds are
//! below; the number of states is printed.

use cjm_decide::composition::{
    CompositionEffect, CompositionEvent, CompositionRun, ElementOutcome, NodeProgress, NodeStatus,
};
use cjm_wire::composition::{Composition, RunOutcome};
use cjm_wire::json::{Arguments, Json};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Most nodes of a graph.
const NODES_MAX: usize = 4;
/// Most elements of a mapped node.
const ELEMENTS_MAX: usize = 3;
/// Most elements of all nodes together, by the number of nodes: what bounds the time.
const TOTAL_MAX: [usize; NODES_MAX + 1] = [0, 3, 5, 4, 5];

/// How a node uses what another has made.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Use {
    /// All of it.
    Whole,
    /// All of it, with gaps.
    AllowPartial,
    /// It runs over the first of them that has as many elements.
    MapOver,
}

#[derive(Debug, Clone)]
struct Plan {
    /// What each node needs.
    needs: Vec<Vec<usize>>,
    /// `None`: a plain call.
    elements: Vec<Option<usize>>,
    uses: Use,
    fail_fast: bool,
}

type Place = (usize, usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    InFlight,
    Good,
    Failed,
    Cancelled,
}

/// A state of the run, and what it has said so far.
#[derive(Clone)]
struct State {
    run: CompositionRun,
    fates: BTreeMap<Place, Fate>,
    ends: BTreeMap<usize, NodeStatus>,
    first_failure: Option<Place>,
    cancelled: bool,
    ended: bool,
    /// How it came to this.
    path: Vec<(Place, Fate)>,
}

/// What happened, for a complaint; written out only then.
struct Told<'a>(&'a Plan, Vec<(Place, Fate)>);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} after {:?}", self.0, self.1)
    }
}

/// What tells states apart: what may follow depends on nothing else.
type Key = (Vec<(Place, Fate)>, Vec<(usize, &'static str)>, Option<Place>, bool, bool);

fn number(name: &str) -> usize {
    name[1..].parse().expect("n and a number")
}

fn result(place: Place) -> Value {
    json!([place.0, place.1])
}

impl Plan {
    fn maps_over(&self, node: usize) -> Option<usize> {
        let matching =
            |need: &&usize| self.elements[node].is_some() && self.elements[**need] == self.elements[node];
        self.needs[node].iter().find(matching).copied().filter(|_| self.uses == Use::MapOver)
    }

    fn document(&self) -> Composition {
        let mut nodes = Map::new();
        for (node, needs) in self.needs.iter().enumerate() {
            let over = self.maps_over(node);
            let whole = needs.iter().filter(|need| Some(**need) != over);
            let used: Vec<String> = whole.map(|need| format!("${{n{need}}}")).collect();
            let mut document = json!({"capability": "c", "args": {"used": used}});
            if let Some(elements) = self.elements[node] {
                document["map"] = match over {
                    Some(over) => json!(format!("${{n{over}}}")),
                    None => (0..elements).map(Value::from).collect(),
                };
                document["args"]["item"] = json!("${item}");
            }
            if self.uses == Use::AllowPartial {
                document["allow_partial"] = json!(true);
            }
            nodes.insert(format!("n{node}"), document);
        }
        let failure = if self.fail_fast { "fail_fast" } else { "best_effort" };
        serde_json::from_value(json!({"name": "t", "failure": failure, "nodes": nodes})).expect("a document")
    }

    /// Within the bounds: the total; and of many nodes only the first may have any number of elements, since that is
    /// the one whose gaps the others meet.
    fn is_small(&self) -> bool {
        let nodes = self.needs.len();
        let total: usize = self.elements.iter().map(|elements| elements.unwrap_or(1)).sum();
        let plain = match nodes {
            0..=2 => true,
            3 => self.elements.iter().all(|elements| *elements != Some(0)),
            _ => self.elements[1..].iter().all(Option::is_none) && matches!(self.elements[0], None | Some(2)),
        };
        plain && total <= TOTAL_MAX[nodes]
    }
}

impl State {
    fn key(&self) -> Key {
        (
            self.fates.iter().map(|(place, fate)| (*place, *fate)).collect(),
            self.ends.iter().map(|(node, status)| (*node, status.as_str())).collect(),
            self.first_failure,
            self.cancelled,
            self.ended,
        )
    }

    fn flying(&self) -> Vec<Place> {
        self.fates.iter().filter(|(_, fate)| **fate == Fate::InFlight).map(|(place, _)| *place).collect()
    }

    fn is_halted(&self) -> bool {
        self.cancelled || self.first_failure.is_some()
    }

    /// What a node has made, as the output shows it; `None` when that is nothing.
    fn made(&self, plan: &Plan, node: usize) -> Option<Value> {
        let total = plan.elements[node].unwrap_or(1);
        let good = |element: usize| self.fates.get(&(node, element)) == Some(&Fate::Good);
        let list: Vec<Value> =
            (0..total).map(|e| if good(e) { result((node, e)) } else { Value::Null }).collect();
        let anything = (0..total).any(good) || self.ends.get(&node) == Some(&NodeStatus::Completed);
        anything.then(|| if plan.elements[node].is_some() { list.into() } else { list[0].clone() })
    }

    fn step(&mut self, plan: &Plan, event: CompositionEvent) {
        let told = Told(plan, self.path.clone());
        let effects = self.run.handle(event).unwrap_or_else(|error| panic!("{told}: {error}"));
        for effect in effects {
            self.note(plan, effect, &told);
        }
        self.run.check_invariants().unwrap_or_else(|error| panic!("{told}: {error}"));
        let in_flight: usize = (0..plan.needs.len())
            .filter_map(|node| match self.run.progress(&format!("n{node}"))? {
                NodeProgress::Running { in_flight, .. } => Some(in_flight),
                NodeProgress::Waiting | NodeProgress::Ended(_) => None,
            })
            .sum();
        assert_eq!(in_flight, self.flying().len(), "{told}");
        assert_eq!(self.ended, self.run.has_ended(), "{told}");
        assert!(self.ended || in_flight > 0, "{told}: nothing will ever happen again");
    }

    fn note(&mut self, plan: &Plan, effect: CompositionEffect, told: &Told<'_>) {
        assert!(!self.ended, "{told}: something follows the end: {effect:?}");
        match effect {
            CompositionEffect::Submit(submit) => {
                let place = (number(&submit.node), submit.element);
                assert!(!self.is_halted(), "{told}: submitted after the halt");
                assert!(self.fates.insert(place, Fate::InFlight).is_none(), "{told}: {place:?} twice");
                assert_eq!(submit.elements_total, plan.elements[place.0].unwrap_or(1));
                let over = plan.maps_over(place.0);
                let mut used = Vec::new();
                for need in &plan.needs[place.0] {
                    let made = self.made(plan, *need).unwrap_or_else(|| panic!("{told}: n{need} is missing"));
                    if Some(*need) == over {
                        assert_eq!(submit.kwargs["item"], Json::from(&made[place.1]), "{told}");
                        assert!(!made[place.1].is_null(), "{told}: called with a gap");
                    } else {
                        let whole = self.ends[need] == NodeStatus::Completed;
                        assert!(whole || plan.uses == Use::AllowPartial, "{told}: n{need} has gaps");
                        used.push(made);
                    }
                }
                assert_eq!(submit.kwargs["used"], Json::from(Value::from(used)), "{told}");
            }
            CompositionEffect::CancelElement { node, element, .. } => {
                assert!(self.is_halted(), "{told}: cancelled without need");
                let fate = self.fates.get(&(number(&node), element));
                assert_eq!(fate, Some(&Fate::InFlight), "{told}: cancelled what does not fly");
            }
            CompositionEffect::FirstFailure(error) => {
                let place = (number(error.node.as_deref().expect("a node")), error.element.unwrap_or(0));
                assert!(plan.fail_fast && !self.is_halted(), "{told}: told without need");
                self.first_failure = Some(place);
            }
            CompositionEffect::NodeEnded { node, status, .. } => {
                let node = number(&node);
                assert!(self.flying().iter().all(|(at, _)| *at != node), "{told}: n{node} still flies");
                assert!(self.ends.insert(node, status).is_none(), "{told}: n{node} ended twice");
            }
            CompositionEffect::Advanced { .. } => {}
            CompositionEffect::Ended { outcome, output, failures } => {
                self.ended = true;
                self.check_end(plan, outcome, &output, failures.total(), told);
            }
        }
    }

    fn check_end(&self, plan: &Plan, outcome: RunOutcome, output: &Json, failures: usize, told: &Told<'_>) {
        assert!(self.flying().is_empty(), "{told}: ended in flight");
        assert_eq!(self.ends.len(), plan.needs.len(), "{told}: a node has not ended");
        let made = |node| Some((format!("n{node}"), self.made(plan, node)?));
        let expected: Map<String, Value> = (0..plan.needs.len()).filter_map(made).collect();
        assert_eq!(output, &Json::from(Value::Object(expected)), "{told}: a good element is lost");
        assert_eq!(failures, self.fates.values().filter(|fate| **fate == Fate::Failed).count(), "{told}");
        let whole = self.ends.values().all(|status| *status == NodeStatus::Completed);
        let good = self.ends.values().any(|s| matches!(s, NodeStatus::Completed | NodeStatus::Partial));
        let expected = match (self.first_failure, self.cancelled) {
            (Some(_), _) => RunOutcome::Failed,
            (None, true) => RunOutcome::Cancelled,
            (None, false) if whole => RunOutcome::Completed,
            (None, false) if !plan.fail_fast && good => RunOutcome::Partial,
            (None, false) if failures > 0 => RunOutcome::Failed,
            (None, false) => RunOutcome::Cancelled,
        };
        assert_eq!(outcome, expected, "{told}: {:?}", self.ends);
    }

    /// Every state that can follow.
    fn next(&self, plan: &Plan) -> Vec<Self> {
        let mut next = Vec::new();
        for place in self.flying() {
            for fate in [Fate::Good, Fate::Failed, Fate::Cancelled] {
                let mut state = self.clone();
                state.fates.insert(place, fate);
                state.path.push((place, fate));
                state.step(plan, ended(place, fate));
                // Said again: late news.
                let late = state.run.handle(ended(place, Fate::Failed)).expect("late news is no error");
                assert_eq!(late, Vec::new());
                next.push(state);
            }
        }
        self.check_deadline();
        let mut cancelled = self.clone();
        if self.ended || self.is_halted() {
            let late = cancelled.run.handle(CompositionEvent::CancelRequested).expect("late");
            assert_eq!(late, Vec::new());
        } else {
            cancelled.cancelled = true;
            cancelled.step(plan, CompositionEvent::CancelRequested);
            next.push(cancelled);
        }
        next
    }
}

impl State {
    /// That the time of the run is over means what a cancel means, at every moment, but for how the run ends and what is
    /// said.
    fn check_deadline(&self) {
        let [mut late, mut cancelled] = [self.run.clone(), self.run.clone()];
        let found = late.handle(CompositionEvent::DeadlinePassed).expect("it may come at any moment");
        let mut expected = cancelled.handle(CompositionEvent::CancelRequested).expect("likewise");
        for effect in &mut expected {
            match effect {
                CompositionEffect::NodeEnded { reason: Some(reason), .. } => {
                    *reason = reason.replace("the run was cancelled", "the time of the run was over");
                }
                CompositionEffect::Ended { outcome, .. } => *outcome = RunOutcome::Failed,
                _ => {}
            }
        }
        assert_eq!(found, expected);
        late.check_invariants().expect("it is whole");
    }
}

fn ended(place: Place, fate: Fate) -> CompositionEvent {
    let outcome = match fate {
        Fate::Good => ElementOutcome::Completed(Json::from(result(place))),
        Fate::Failed => ElementOutcome::Failed("it failed".to_owned()),
        Fate::Cancelled | Fate::InFlight => ElementOutcome::Cancelled { begun: true },
    };
    CompositionEvent::ElementEnded { node: format!("n{}", place.0), element: place.1, outcome }
}

/// How many states and transitions a plan has; each is checked.
fn explore(plan: &Plan) -> (usize, usize) {
    let run = CompositionRun::new(plan.document(), Arguments::new(), 0).expect("a run");
    let fresh = State {
        run,
        fates: BTreeMap::new(),
        ends: BTreeMap::new(),
        first_failure: None,
        cancelled: false,
        ended: false,
        path: Vec::new(),
    };
    let mut before = fresh.clone();
    before.cancelled = true;
    before.step(plan, CompositionEvent::CancelRequested);
    assert!(before.ended, "a run that never began is over at once");
    let mut started = fresh;
    started.step(plan, CompositionEvent::Start);
    let mut known = BTreeSet::from([started.key()]);
    let (mut left, mut transitions) = (vec![started], 2);
    while let Some(state) = left.pop() {
        for next in state.next(plan) {
            transitions += 1;
            if known.insert(next.key()) {
                left.push(next);
            }
        }
    }
    (known.len() + 1, transitions)
}

/// Every plan within the bounds.
fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for nodes in 1..=NODES_MAX {
        let edges: Vec<(usize, usize)> =
            (0..nodes).flat_map(|to| (0..to).map(move |from| (from, to))).collect();
        let shapes = ELEMENTS_MAX + 2;
        for shape in 0..shapes.pow(u32::try_from(nodes).expect("few")) {
            let elements: Vec<Option<usize>> = (0..nodes)
                .map(|node| (shape / shapes.pow(u32::try_from(node).expect("few")) % shapes).checked_sub(1))
                .collect();
            for graph in 0..1_usize << edges.len() {
                let chosen = edges.iter().enumerate().filter(|(at, _)| graph >> at & 1 == 1);
                let mut needs = vec![Vec::new(); nodes];
                chosen.for_each(|(_, (from, to))| needs[*to].push(*from));
                for uses in [Use::Whole, Use::AllowPartial, Use::MapOver] {
                    for fail_fast in [false, true] {
                        let plan = Plan { needs: needs.clone(), elements: elements.clone(), uses, fail_fast };
                        let same = uses != Use::Whole && graph == 0
                            || uses == Use::MapOver && (0..nodes).all(|node| plan.maps_over(node).is_none());
                        if plan.is_small() && !same {
                            plans.push(plan);
                        }
                    }
                }
            }
        }
    }
    plans
}

#[test]
#[expect(clippy::print_stdout, reason = "how much was explored belongs into the log of the tests")]
fn every_small_composition_keeps_its_rules_whatever_happens_in_whatever_order() {
    let plans = plans();
    let (mut states, mut transitions) = (0, 0);
    for plan in &plans {
        let (of_plan, its_transitions) = explore(plan);
        states += of_plan;
        transitions += its_transitions;
    }
    println!(
        "EXPLORED composition: {states} states, {transitions} transitions, {} compositions",
        plans.len()
    );
    assert!(states > 100_000, "only {states} states: the bounds have shrunk");
}
