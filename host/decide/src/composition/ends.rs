//! How nodes end, what that means for those after them, and how the run ends.

use super::bind::{self, Found};
use super::elements::Output;
use super::state::{CompositionRun, NodeState, RunScope, Stage};
use super::types::{CompositionEffect, Failures, Halt, NodeError, NodeStatus};
use cjm_wire::composition::{PathStep, RunOutcome};
use cjm_wire::json::Json;
use cjm_wire::template::Template;
use std::collections::VecDeque;

impl CompositionRun {
    pub(super) fn close_if_drained(&mut self, node: usize, effects: &mut Vec<CompositionEffect>) {
        let best_effort = self.is_best_effort();
        let Some(elements) = self.elements(node).filter(|elements| elements.is_drained()) else { return };
        let end = elements.conclude(best_effort);
        self.end_node(node, end.status, end.output, end.failures, end.reason, effects);
    }

    pub(super) fn end_node(
        &mut self,
        node: usize,
        status: NodeStatus,
        output: Option<Output>,
        failures: Failures,
        reason: Option<String>,
        effects: &mut Vec<CompositionEffect>,
    ) {
        let elements_ended = self.elements(node).map_or(0, |elements| elements.ended_count());
        let Some(state) = self.nodes.get_mut(node) else { return };
        *state = NodeState::Ended { status, output, elements_ended };
        self.unended -= 1;
        let name = self.graph.name(node).to_owned();
        effects.push(CompositionEffect::NodeEnded { node: name, status, failures, reason });
        match status {
            NodeStatus::Completed | NodeStatus::Partial => self.release_dependents(node, effects),
            // A run that is being halted has ended, or is about to end, all that waits.
            NodeStatus::Failed | NodeStatus::Cancelled if !self.is_halted() => {
                self.skip_all_after(node, effects);
            }
            NodeStatus::Failed | NodeStatus::Cancelled | NodeStatus::Skipped => {}
        }
    }

    fn release_dependents(&mut self, node: usize, effects: &mut Vec<CompositionEffect>) {
        let mut enqueued_nodes = Vec::new();
        let mut without = VecDeque::new();
        for dependent in self.graph.dependents(node) {
            if !matches!(self.nodes.get(*dependent), Some(NodeState::Waiting { .. })) {
                continue;
            }
            if let Some(reason) = self.what_it_misses(*dependent, node) {
                without.push_back((*dependent, reason));
            } else if let Some(NodeState::Waiting { needs }) = self.nodes.get_mut(*dependent) {
                *needs -= 1;
                if *needs == 0 {
                    self.opening.push_back(*dependent);
                    enqueued_nodes.push(self.graph.name(*dependent).to_owned());
                }
            }
        }
        let completed_node = self.graph.name(node).to_owned();
        effects.push(CompositionEffect::Advanced { completed_node, enqueued_nodes });
        self.skip(without, effects);
    }

    /// Why `dependent` cannot do with what `node` has made; `None` when it can. A reference to one element needs that
    /// element. A list as a whole is needed whole, unless the document says otherwise, or the node runs over it: then
    /// it runs over what is there.
    fn what_it_misses(&self, dependent: usize, node: usize) -> Option<String> {
        let Some(NodeState::Ended { output: Some(output), .. }) = self.nodes.get(node) else { return None };
        let (missing, total) = output.missing();
        let call = self.node(dependent);
        if missing == 0 || call.allow_partial {
            return None;
        }
        let name = self.graph.name(node);
        let whole = |how: &str| {
            Some(format!(
                "{how} {name}, of which {missing} of {total} elements are missing (`allow_partial: true` would do with that)"
            ))
        };
        if call.after.iter().any(|earlier| earlier == name) {
            return whole("it comes after all of");
        }
        let maps_over = |template: &Template| matches!(template, Template::Reference(reference) if self.results_of(reference).is_some());
        // They were read when the graph was built.
        let map = call.map.iter().filter_map(|map| Template::parse(map).ok()).filter(|map| !maps_over(map));
        let args = call.args.values().filter_map(|template| Template::parse(template).ok());
        for template in map.chain(args) {
            for reference in template.references().into_iter().filter(|reference| reference.root == name) {
                match reference.path.first() {
                    Some(PathStep::Index(index)) if is_there(output, *index) => {}
                    Some(PathStep::Index(index)) => {
                        return Some(format!("it uses {name}[{index}], which is missing"));
                    }
                    Some(PathStep::Field(_)) | None => return whole("it uses all of"),
                }
            }
        }
        None
    }

    /// Skips all that waits and needs `node`, at any distance.
    pub(super) fn skip_all_after(&mut self, node: usize, effects: &mut Vec<CompositionEffect>) {
        let reason = format!("it needs {}", self.graph.name(node));
        let dependents = self.graph.dependents(node).iter();
        self.skip(dependents.map(|dependent| (*dependent, reason.clone())).collect(), effects);
    }

    fn skip(&mut self, mut left: VecDeque<(usize, String)>, effects: &mut Vec<CompositionEffect>) {
        while let Some((node, reason)) = left.pop_front() {
            if matches!(self.nodes.get(node), Some(NodeState::Waiting { .. })) {
                self.end_node(node, NodeStatus::Skipped, None, Failures::default(), Some(reason), effects);
                let reason = format!("it needs {}", self.graph.name(node));
                left.extend(self.graph.dependents(node).iter().map(|dependent| (*dependent, reason.clone())));
            }
        }
    }

    pub(super) fn end_if_done(&mut self, effects: &mut Vec<CompositionEffect>) {
        if self.stage != Stage::Running || self.unended > 0 {
            return;
        }
        self.stage = Stage::Ended;
        let mut outcome = self.outcome_of_nodes();
        let (output, unbound) = self.output();
        if outcome == RunOutcome::Completed && !unbound.is_empty() {
            outcome = if self.is_best_effort() { RunOutcome::Partial } else { RunOutcome::Failed };
        }
        for message in unbound {
            self.failures.push(NodeError { node: None, element: None, message, next_step: None });
        }
        effects.push(CompositionEffect::Ended {
            outcome,
            output,
            failures: std::mem::take(&mut self.failures),
        });
    }

    fn outcome_of_nodes(&self) -> RunOutcome {
        let any = |wanted: NodeStatus| {
            self.nodes.iter().any(|node| matches!(node, NodeState::Ended { status, .. } if *status == wanted))
        };
        let is_whole = self
            .nodes
            .iter()
            .all(|node| matches!(node, NodeState::Ended { status: NodeStatus::Completed, .. }));
        if let Some(halt) = self.halt {
            match halt {
                Halt::FirstFailure | Halt::Deadline | Halt::Refused => RunOutcome::Failed,
                Halt::Cancelled => RunOutcome::Cancelled,
            }
        } else if is_whole {
            RunOutcome::Completed
        } else if self.is_best_effort() && (any(NodeStatus::Completed) || any(NodeStatus::Partial)) {
            RunOutcome::Partial
        } else if any(NodeStatus::Failed) {
            RunOutcome::Failed
        } else {
            RunOutcome::Cancelled
        }
    }

    /// What callers of a run that fails fast are told at once: the output as it is, and what has failed. A node that runs
    /// counts as one that made nothing.
    #[must_use]
    pub fn so_far(&self) -> (Json, Failures) {
        (self.output().0, self.failures.clone())
    }

    /// What nodes have made nothing counts as null in a template, and is left out without one. A reference that does
    /// not bind takes nothing else with it.
    fn output(&self) -> (Json, Vec<String>) {
        if let Some(template) = &self.composition.output {
            let scope = RunScope { absent: Found::Null, ..RunScope::of_node(self) };
            let (output, errors) = bind::bind_leniently(template, &scope);
            return (output, errors.iter().map(ToString::to_string).collect());
        }
        let outputs: Vec<(&str, Json)> = self
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(node, state)| match state {
                NodeState::Ended { output: Some(output), .. } => {
                    Some((self.graph.name(node), output.whole()))
                }
                NodeState::Ended { .. } | NodeState::Waiting { .. } | NodeState::Running { .. } => None,
            })
            .collect();
        (Json::object(outputs.iter().map(|(name, output)| (*name, output))), Vec::new())
    }
}

/// Whether an element's result is there; one beyond the end is left to the binding, which says so.
fn is_there(output: &Output, index: usize) -> bool {
    !matches!(output, Output::List(results) if matches!(results.get(index), Some(None)))
}
