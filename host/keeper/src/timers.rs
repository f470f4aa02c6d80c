//! What the machine asked to be told later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest time to clear what one worker left; then the host is told who survived.
const CLEAR_LIMIT: Duration = Duration::from_secs(2);
/// Longest time to clear everything at the end; then the keeper goes, and `tree.lock` with it.
const END_LIMIT: Duration = Duration::from_secs(60);
/// How soon a sweep is repeated at first when no descendant's end comes before, and at last: what dies of its SIGKILL
/// does so at once, or stays long.
const SWEEP_PAUSE: Duration = Duration::from_millis(1);
const SWEEP_PAUSE_MAX: Duration = Duration::from_millis(100);

/// The deadlines that are set.
#[derive(Default)]
pub(crate) struct Timers {
    clears: BTreeMap<String, Instant>,
    end: Option<Instant>,
    sweep: Option<Instant>,
    /// The last pause between sweeps.
    pause: Duration,
}

impl Timers {
    /// How long to wait for anything else, or None for as long as it takes.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let first = self.clears.values().copied().chain(self.end).chain(self.sweep).min()?;
        Some(first.saturating_duration_since(now))
    }

    pub(crate) fn set_clear(&mut self, worker: String, now: Instant) {
        self.clears.insert(worker, now + CLEAR_LIMIT);
    }

    pub(crate) fn forget_clear(&mut self, worker: &str) {
        self.clears.remove(worker);
    }

    /// Takes the workers whose time has passed.
    pub(crate) fn overdue_clears(&mut self, now: Instant) -> Vec<String> {
        let overdue = |at: &Instant| *at <= now;
        let workers: Vec<String> =
            self.clears.iter().filter(|(_, at)| overdue(at)).map(|(worker, _)| worker.clone()).collect();
        self.clears.retain(|_, at| !overdue(at));
        workers
    }

    pub(crate) fn set_end(&mut self, now: Instant) {
        self.end = Some(now + END_LIMIT);
    }

    pub(crate) fn end_is_overdue(&self, now: Instant) -> bool {
        self.end.is_some_and(|at| at <= now)
    }

    /// Sweeps are soon again after something new has ended.
    pub(crate) fn hurry(&mut self) {
        self.pause = Duration::ZERO;
    }

    pub(crate) fn sweep_soon(&mut self, now: Instant) {
        self.pause = (self.pause * 2).clamp(SWEEP_PAUSE, SWEEP_PAUSE_MAX);
        self.sweep = Some(now + self.pause);
    }

    /// Whatever it was wished for, a sweep finds.
    pub(crate) fn forget_sweep(&mut self) {
        self.sweep = None;
    }

    pub(crate) fn sweeps_soon(&self) -> bool {
        self.sweep.is_some()
    }

    /// Takes the wish for a sweep if it is time, or if a descendant has ended.
    pub(crate) fn take_sweep(&mut self, now: Instant, child_ended: bool) -> bool {
        let is_due = self.sweep.is_some_and(|at| child_ended || at <= now);
        if is_due {
            self.sweep = None;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_deadline_is_waited_for_and_taken_once() {
        let now = Instant::now();
        let mut timers = Timers::default();
        assert_eq!(timers.wait(now), None);
        timers.set_end(now);
        assert_eq!(timers.wait(now), Some(END_LIMIT));
        timers.set_clear("a".to_owned(), now);
        timers.set_clear("b".to_owned(), now + SWEEP_PAUSE);
        assert_eq!(timers.wait(now), Some(CLEAR_LIMIT));
        let late = now + CLEAR_LIMIT;
        assert_eq!(
            (timers.overdue_clears(late), timers.overdue_clears(late)),
            (vec!["a".to_owned()], vec![])
        );
        assert_eq!(timers.wait(late), Some(SWEEP_PAUSE));
        timers.forget_clear("b");
        assert!(!timers.end_is_overdue(late) && timers.end_is_overdue(now + END_LIMIT));
    }

    #[test]
    fn sweeps_come_at_an_end_or_after_pauses_that_grow_to_their_maximum() {
        let now = Instant::now();
        let mut timers = Timers::default();
        assert!(!timers.take_sweep(now, true), "nobody wants one");
        let mut pauses = Vec::new();
        for _ in 0..10 {
            timers.sweep_soon(now);
            assert!(timers.sweeps_soon());
            pauses.extend(timers.wait(now));
            assert!(timers.take_sweep(now, true), "a descendant has ended");
        }
        assert_eq!((pauses[0], pauses[1], pauses[9]), (SWEEP_PAUSE, SWEEP_PAUSE * 2, SWEEP_PAUSE_MAX));
        timers.hurry();
        timers.sweep_soon(now);
        assert_eq!(timers.wait(now), Some(SWEEP_PAUSE));
        assert!(!timers.take_sweep(now, false) && timers.take_sweep(now + SWEEP_PAUSE, false));
    }
}
