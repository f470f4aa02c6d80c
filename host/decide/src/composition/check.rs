//! What must hold of a run after every event, checked whole.

use super::state::{CompositionRun, NodeState, RUN_IN_FLIGHT_MAX, Stage};
use super::types::NodeStatus;

impl CompositionRun {
    /// Checks the whole state; linear in it, for tests and for asking a suspect host.
    ///
    /// # Errors
    /// The first violation found, in words.
    pub fn check_invariants(&self) -> Result<(), String> {
        let (mut in_flight, mut unended) = (0, 0);
        for (node, state) in self.nodes.iter().enumerate() {
            let name = self.graph.name(node);
            match state {
                NodeState::Waiting { needs } => {
                    unended += 1;
                    self.check_waiting(node, *needs)?;
                }
                NodeState::Running { elements, .. } => {
                    unended += 1;
                    in_flight += elements.in_flight().len();
                    if elements.is_drained() {
                        return Err(format!("{name} is drained and has not ended"));
                    }
                    if elements.next().is_some()
                        && self.in_flight < RUN_IN_FLIGHT_MAX
                        && self.stage == Stage::Running
                    {
                        return Err(format!("{name} has room and an element left to submit"));
                    }
                }
                NodeState::Ended { .. } => {}
            }
        }
        if (in_flight, unended) != (self.in_flight, self.unended) {
            return Err(format!(
                "{in_flight} in flight and {unended} unended, counted as {} and {}",
                self.in_flight, self.unended
            ));
        }
        if self.has_ended() && (unended > 0 || !self.submittable.is_empty() || !self.opening.is_empty()) {
            return Err("something is left over at the end".to_owned());
        }
        Ok(())
    }

    fn check_waiting(&self, node: usize, needs: usize) -> Result<(), String> {
        let name = self.graph.name(node);
        let is_open = |need: &&usize| match &self.nodes[**need] {
            NodeState::Ended { status, .. } => !matches!(status, NodeStatus::Completed | NodeStatus::Partial),
            NodeState::Waiting { .. } | NodeState::Running { .. } => true,
        };
        if self.graph.dependencies(node).iter().filter(is_open).count() != needs {
            return Err(format!("{name} miscounts what it needs"));
        }
        if needs == 0 && self.stage == Stage::Running {
            return Err(format!("{name} waits for nothing"));
        }
        if self.is_halted() {
            return Err(format!("{name} waits in a run that is halted"));
        }
        Ok(())
    }
}
