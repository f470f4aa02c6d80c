//! The elements of one running node: one for a plain call, one per entry for `map`. Counts what was submitted,
//! what is in flight and how it ended, and keeps results in order.

use serde_json::Value;
use std::collections::BTreeSet;

/// Most elements of one node that are in flight at once; further ones are submitted as these end.
pub const NODE_IN_FLIGHT_MAX: usize = 256;

/// Whether the node has `map`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Single,
    Mapped(Vec<Value>),
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

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Elements {
    shape: Shape,
    results: Vec<Option<Value>>,
    next: usize,
    in_flight: BTreeSet<usize>,
    failed: usize,
    cancelled: usize,
    first_error: Option<String>,
    /// Nothing more is to be submitted.
    halted: bool,
}

/// What came of all of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Completed(Value),
    Failed(String),
    Cancelled,
}

impl Elements {
    pub(super) fn new(shape: Shape) -> Self {
        let total = match &shape {
            Shape::Single => 1,
            Shape::Mapped(items) => items.len(),
        };
        Self {
            shape,
            results: vec![None; total],
            next: 0,
            in_flight: BTreeSet::new(),
            failed: 0,
            cancelled: 0,
            first_error: None,
            halted: false,
        }
    }

    pub(super) fn total(&self) -> usize {
        self.results.len()
    }

    /// The element to submit next, if the window has room.
    pub(super) fn next(&self) -> Option<usize> {
        (!self.halted && self.next < self.total() && self.in_flight.len() < NODE_IN_FLIGHT_MAX)
            .then_some(self.next)
    }

    /// The entry of the list that an element runs over; `None` for a plain call.
    pub(super) fn item(&self, element: usize) -> Option<&Value> {
        match &self.shape {
            Shape::Single => None,
            Shape::Mapped(items) => items.get(element),
        }
    }

    pub(super) fn submitted(&mut self) {
        self.in_flight.insert(self.next);
        self.next += 1;
    }

    /// The next element ends without having been submitted: its arguments do not bind.
    pub(super) fn unbound(&mut self, message: String) {
        self.next += 1;
        self.failed(message);
    }

    pub(super) fn known(&self, element: usize) -> Known {
        if self.in_flight.contains(&element) {
            Known::InFlight
        } else if element < self.next {
            Known::Ended
        } else {
            Known::NotSubmitted
        }
    }

    pub(super) fn landed(&mut self, element: usize) {
        self.in_flight.remove(&element);
    }

    pub(super) fn completed(&mut self, element: usize, value: Value) {
        if let Some(result) = self.results.get_mut(element) {
            *result = Some(value);
        }
    }

    pub(super) fn failed(&mut self, message: String) {
        self.failed += 1;
        self.first_error.get_or_insert(message);
    }

    pub(super) fn cancelled(&mut self) {
        self.cancelled += 1;
    }

    pub(super) fn halt(&mut self) {
        self.halted = true;
    }

    pub(super) fn in_flight(&self) -> &BTreeSet<usize> {
        &self.in_flight
    }

    /// How many have ended.
    pub(super) fn ended_count(&self) -> usize {
        self.next - self.in_flight.len()
    }

    pub(super) fn failed_count(&self) -> usize {
        self.failed
    }

    /// Nothing is in flight and nothing more will be.
    pub(super) fn is_drained(&self) -> bool {
        self.in_flight.is_empty() && (self.halted || self.next == self.total())
    }

    /// What came of a drained node.
    pub(super) fn outcome(&mut self) -> Outcome {
        if self.failed > 0 {
            return Outcome::Failed(self.first_error.take().unwrap_or_default());
        }
        if self.cancelled > 0 || self.next < self.total() {
            return Outcome::Cancelled;
        }
        let mut results = std::mem::take(&mut self.results).into_iter().map(Option::unwrap_or_default);
        Outcome::Completed(match &self.shape {
            Shape::Single => results.next().unwrap_or_default(),
            Shape::Mapped(_) => results.collect(),
        })
    }
}
