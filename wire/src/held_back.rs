//! What is held back of a flood, on each side of the host link: its last words, of grave ones rather later ones, and how
//! many were dropped before them.
//!
//! What must hold: a bounded number of items; the middle is dropped and counted, never the end, because what a tool says
//! last is why it failed.

use crate::channel::Record;
use std::collections::{BTreeMap, VecDeque};

/// The last items that are held back, and as many grave ones that came before them.
pub const HELD_BACK_MAX: usize = 20;
/// Jobs whose losses are told apart; those of further ones are told without a job.
const JOBS_MAX: usize = 64;

/// Something of which many may come.
pub trait Word {
    /// Whether it is held longer than others.
    fn is_grave(&self) -> bool {
        false
    }
    /// The job in whose call it was said.
    fn job_id(&self) -> Option<&str> {
        None
    }
}

/// What a tool of any language may call what went wrong.
const GRAVE_LEVELS: [&str; 3] = ["ERROR", "CRITICAL", "FATAL"];

impl Word for String {}

impl Word for Record {
    fn is_grave(&self) -> bool {
        GRAVE_LEVELS.iter().any(|level| self.level.eq_ignore_ascii_case(level))
    }

    fn job_id(&self) -> Option<&str> {
        self.job_id.as_deref()
    }
}

/// The end of a flood.
#[derive(Debug)]
pub struct HeldBack<T> {
    /// Older than the last ones.
    grave: VecDeque<T>,
    last: VecDeque<T>,
    dropped: BTreeMap<Option<String>, u64>,
}

impl<T> Default for HeldBack<T> {
    fn default() -> Self {
        Self { grave: VecDeque::new(), last: VecDeque::new(), dropped: BTreeMap::new() }
    }
}

impl<T: Word> HeldBack<T> {
    /// Holds an item, and drops another for it where there is no room.
    pub fn push(&mut self, item: T) {
        self.last.push_back(item);
        if self.last.len() <= HELD_BACK_MAX {
            return;
        }
        let mut gone = self.last.pop_front();
        if let Some(grave) = gone.take_if(|gone| gone.is_grave()) {
            self.grave.push_back(grave);
            gone = if self.grave.len() > HELD_BACK_MAX { self.grave.pop_front() } else { None };
        }
        if let Some(gone) = gone {
            self.count(gone.job_id(), 1);
        }
    }

    /// Counts what was dropped elsewhere.
    pub fn count(&mut self, job_id: Option<&str>, items: u64) {
        let job_id = job_id.map(str::to_owned);
        let is_told_apart = self.dropped.contains_key(&job_id) || self.dropped.len() < JOBS_MAX;
        *self.dropped.entry(job_id.filter(|_| is_told_apart)).or_default() += items;
    }

    /// Whether an item is held.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.last.is_empty()
    }

    /// Whether nothing is held, and nothing left to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.holds() && self.dropped.is_empty()
    }

    /// How many were dropped of which job, once.
    pub fn next_dropped(&mut self) -> Option<(Option<String>, u64)> {
        self.dropped.pop_first()
    }

    /// The first that is held, if there is room for it.
    pub fn let_go_first(&mut self, has_room: impl FnOnce(&T) -> bool) -> Option<T> {
        let first = if self.grave.is_empty() { &mut self.last } else { &mut self.grave };
        first.pop_front_if(|item| has_room(item))
    }

    /// What was held, in its order.
    pub fn let_go(&mut self) -> impl Iterator<Item = T> + '_ {
        self.grave.drain(..).chain(self.last.drain(..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(level: &str, number: usize, job_id: &str) -> Record {
        Record {
            ts: None,
            level: level.to_owned(),
            logger_name: String::new(),
            message: number.to_string(),
            exc_text: None,
            job_id: Some(job_id.to_owned()),
        }
    }

    #[test]
    fn of_a_flood_the_last_are_held_and_of_grave_ones_later_ones_and_each_loss_is_counted_by_its_job() {
        let mut held = HeldBack::default();
        for number in 0..1000 {
            let level = if number < 100 { "ERROR" } else { "INFO" };
            held.push(record(level, number, if number < 500 { "a" } else { "b" }));
        }
        held.count(None, 3);
        let dropped: Vec<_> = std::iter::from_fn(|| held.next_dropped()).collect();
        let of = |job: &str| Some(job.to_owned());
        assert_eq!(dropped, [(None, 3), (of("a"), 500 - 20), (of("b"), 500 - 20)]);
        let kept: Vec<usize> = held.let_go().map(|record| record.message.parse().unwrap()).collect();
        assert_eq!(kept, (80..100).chain(980..1000).collect::<Vec<_>>());
        assert!(held.is_empty());
    }

    #[test]
    fn what_went_wrong_is_grave_however_it_is_written() {
        for (level, is_grave) in
            [("ERROR", true), ("CRITICAL", true), ("FATAL", true), ("error", true), ("WARNING", false)]
        {
            assert_eq!(record(level, 1, "a").is_grave(), is_grave, "{level}");
        }
    }

    #[test]
    fn losses_of_many_jobs_are_counted_in_bounded_memory() {
        let mut held = HeldBack::<Record>::default();
        for number in 0..1000 {
            held.count(Some(&number.to_string()), 1);
        }
        assert!(held.dropped.len() <= JOBS_MAX + 1);
        assert_eq!(held.dropped.values().sum::<u64>(), 1000);
    }
}
