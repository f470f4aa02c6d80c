//! The pending jobs, one ordered line per target, and the index of line heads that could go ahead. Every
//! operation costs the logarithm of what waits.

use super::types::Target;
use cjm_wire::JobId;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Place in a line: priority first, then the order of submission. Unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OrderKey(Reverse<i32>, u64);

impl OrderKey {
    pub(super) fn new(priority: i32, sequence: u64) -> Self {
        Self(Reverse(priority), sequence)
    }
}

#[derive(Debug, Default, Clone)]
struct Line {
    waiting: BTreeMap<OrderKey, JobId>,
    /// Under which key the line stands in `ready`.
    indexed: Option<OrderKey>,
}

/// See the module.
#[derive(Debug, Default, Clone)]
pub(super) struct Lines {
    lines: BTreeMap<Target, Line>,
    /// Heads of the lines whose target has room, best first.
    ready: BTreeMap<OrderKey, Target>,
    waiting_count: usize,
}

impl Lines {
    pub(super) fn insert(&mut self, target: &Target, key: OrderKey, job: JobId) {
        let line = match self.lines.get_mut(target) {
            Some(line) => line,
            None => self.lines.entry(target.clone()).or_default(),
        };
        let replaced = line.waiting.insert(key, job);
        debug_assert!(replaced.is_none(), "order keys are unique");
        self.waiting_count += 1;
    }

    /// Takes a job out; [`Self::reindex`] must follow.
    pub(super) fn remove(&mut self, target: &Target, key: OrderKey) {
        let removed = self.lines.get_mut(target).and_then(|line| line.waiting.remove(&key));
        debug_assert!(removed.is_some(), "a pending job stands in its line");
        self.waiting_count -= usize::from(removed.is_some());
    }

    /// Brings the index up to date after a change of the line or of its target's room.
    pub(super) fn reindex(&mut self, target: &Target, has_room: bool) {
        let Some(line) = self.lines.get_mut(target) else { return };
        let head = line.waiting.first_key_value().map(|(key, _)| *key);
        let indexed = head.filter(|_| has_room);
        if line.indexed != indexed {
            if let Some(old) = line.indexed {
                self.ready.remove(&old);
            }
            if let Some(new) = indexed {
                self.ready.insert(new, target.clone());
            }
            line.indexed = indexed;
        }
        if head.is_none() {
            self.lines.remove(target);
        }
    }

    /// The candidates, best first.
    pub(super) fn ready(&self) -> impl Iterator<Item = (OrderKey, &Target)> {
        self.ready.iter().map(|(key, target)| (*key, target))
    }

    pub(super) fn head(&self, target: &Target) -> Option<&JobId> {
        self.lines.get(target)?.waiting.first_key_value().map(|(_, job)| job)
    }

    /// How many stand before this place in its line.
    pub(super) fn ahead_of(&self, target: &Target, key: OrderKey) -> usize {
        self.lines.get(target).map_or(0, |line| line.waiting.range(..key).count())
    }

    pub(super) fn len(&self) -> usize {
        self.waiting_count
    }

    /// All that waits, for the invariants.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Target, OrderKey, &JobId)> {
        self.lines
            .iter()
            .flat_map(|(target, line)| line.waiting.iter().map(move |(key, job)| (target, *key, job)))
    }

    /// The targets that have a line.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.lines.keys()
    }
}
