//! The elements of one running node: one for a plain call, one per entry for `map`. Counts what was submitted,
//! what is in flight and how it ended, and keeps results in their places.

use super::types::{Failures, NodeError, NodeStatus};
use cjm_wire::json::Json;
use std::collections::BTreeSet;

/// Most elements of one node that are in flight at once; further ones are submitted as these end.
pub const NODE_IN_FLIGHT_MAX: usize = 256;

/// Whether the node has `map`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Single,
    /// `None` where the list it runs over has a gap: there is nothing to call with.
    Mapped(Vec<Option<Json>>),
}

/// How one element was told to have ended, against what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    InFlight,
    /// Ended already: late news.
    Ended,
    /// Never submitted.
    NotSubmitted,
}

/// What a node has made.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Output {
    One(Json),
    /// One result per element, `None` where there is none.
    List(Vec<Option<Json>>),
}

impl Output {
    /// As one value: null where a result is missing.
    pub(super) fn whole(&self) -> Json {
        match self {
            Self::One(value) => value.clone(),
            Self::List(results) => {
                let null = Json::null();
                Json::list(results.iter().map(|result| result.as_ref().unwrap_or(&null)))
            }
        }
    }

    /// How many results are missing, and of how many.
    pub(super) fn missing(&self) -> (usize, usize) {
        match self {
            Self::One(_) => (0, 1),
            Self::List(results) => (results.iter().filter(|result| result.is_none()).count(), results.len()),
        }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Elements {
    shape: Shape,
    results: Vec<Option<Json>>,
    next: usize,
    in_flight: BTreeSet<usize>,
    good: usize,
    cancelled: usize,
    /// A call of them had begun when it was cancelled.
    cut_off: bool,
    failures: Failures,
    /// Nothing more is to be submitted.
    halted: bool,
}

/// What came of all of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Conclusion {
    pub(super) status: NodeStatus,
    pub(super) output: Option<Output>,
    pub(super) failures: Failures,
    pub(super) reason: Option<String>,
}

impl Elements {
    pub(super) fn new(shape: Shape) -> Self {
        let total = match &shape {
            Shape::Single => 1,
            Shape::Mapped(items) => items.len(),
        };
        let mut elements = Self {
            shape,
            results: vec![None; total],
            next: 0,
            in_flight: BTreeSet::new(),
            good: 0,
            cancelled: 0,
            cut_off: false,
            failures: Failures::default(),
            halted: false,
        };
        elements.pass_gaps();
        elements
    }

    pub(super) fn total(&self) -> usize {
        self.results.len()
    }

    fn is_gap(&self, element: usize) -> bool {
        matches!(&self.shape, Shape::Mapped(items) if matches!(items.get(element), Some(None)))
    }

    fn pass_gaps(&mut self) {
        while self.is_gap(self.next) {
            self.next += 1;
        }
    }

    /// The element to submit next, if the window has room.
    pub(super) fn next(&self) -> Option<usize> {
        (!self.halted && self.next < self.total() && self.in_flight.len() < NODE_IN_FLIGHT_MAX)
            .then_some(self.next)
    }

    /// The entry of the list that an element runs over; `None` for a plain call.
    pub(super) fn item(&self, element: usize) -> Option<&Json> {
        match &self.shape {
            Shape::Single => None,
            Shape::Mapped(items) => items.get(element)?.as_ref(),
        }
    }

    pub(super) fn submitted(&mut self) {
        self.in_flight.insert(self.next);
        self.next += 1;
        self.pass_gaps();
    }

    /// The next element ends without having been submitted: its arguments do not bind.
    pub(super) fn unbound(&mut self, error: NodeError) {
        self.next += 1;
        self.pass_gaps();
        self.failed(error);
    }

    pub(super) fn known(&self, element: usize) -> Known {
        if self.in_flight.contains(&element) {
            Known::InFlight
        } else if element < self.next && !self.is_gap(element) {
            Known::Ended
        } else {
            Known::NotSubmitted
        }
    }

    pub(super) fn landed(&mut self, element: usize) {
        self.in_flight.remove(&element);
    }

    pub(super) fn completed(&mut self, element: usize, value: Json) {
        if let Some(result) = self.results.get_mut(element) {
            *result = Some(value);
            self.good += 1;
        }
    }

    pub(super) fn failed(&mut self, error: NodeError) {
        self.failures.push(error);
    }

    /// `begun`: its call, which may have waited for its turn until then.
    pub(super) fn cancelled(&mut self, begun: bool) {
        self.cancelled += 1;
        self.cut_off |= begun;
    }

    pub(super) fn halt(&mut self) {
        self.halted = true;
    }

    pub(super) fn in_flight(&self) -> &BTreeSet<usize> {
        &self.in_flight
    }

    /// How many have ended, gaps included.
    pub(super) fn ended_count(&self) -> usize {
        self.next - self.in_flight.len()
    }

    pub(super) fn failed_count(&self) -> usize {
        self.failures.total()
    }

    /// Nothing is in flight and nothing more will be.
    pub(super) fn is_drained(&self) -> bool {
        self.in_flight.is_empty() && (self.halted || self.next == self.total())
    }

    /// What came of a drained node. What its good elements made is kept however it ended.
    pub(super) fn conclude(&mut self, best_effort: bool) -> Conclusion {
        let (good, total) = (self.good, self.total());
        let of =
            |count: usize| format!("{count} of {total} {}", if total == 1 { "element" } else { "elements" });
        let (status, reason) = if good == total {
            (NodeStatus::Completed, None)
        } else if best_effort && !self.halted && good > 0 {
            let missing = total - good;
            let failed = self.failures.total();
            let reason = match failed {
                0 => format!("{} missing", of(missing)),
                failed if failed == missing => format!("{} failed", of(failed)),
                failed => format!("{} missing, {failed} of them failed", of(missing)),
            };
            (NodeStatus::Partial, Some(reason))
        } else if let Some(first) = self.failures.first() {
            let at = first.element.map_or_else(String::new, |element| format!("element [{element}]: "));
            (NodeStatus::Failed, Some(format!("{at}{}", first.message)))
        } else {
            let reason = match (&self.shape, self.halted) {
                _ if good == 0 && !self.cut_off => "it was not begun".to_owned(),
                (Shape::Single, _) => "its call was cancelled".to_owned(),
                (Shape::Mapped(_), true) => format!("{} had completed when it was cancelled", of(good)),
                (Shape::Mapped(_), false) if self.cancelled == 1 => format!("{} was cancelled", of(1)),
                (Shape::Mapped(_), false) => format!("{} were cancelled", of(self.cancelled)),
            };
            (NodeStatus::Cancelled, Some(reason))
        };
        let mut results = std::mem::take(&mut self.results);
        let output = match &self.shape {
            Shape::Single => results.pop().flatten().map(Output::One),
            Shape::Mapped(_) => (good > 0 || total == 0).then_some(Output::List(results)),
        };
        Conclusion { status, output, failures: std::mem::take(&mut self.failures), reason }
    }
}
