//! When calls must have ended. One task looks after all of them, so that a call which ends in time wakes nobody: every call
//! has a deadline, and most are a day away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What may be late, and is stopped then, whether or not its caller looks.
pub(crate) trait Late: Send + Sync {
    /// Its time is over.
    fn stop(&self);
}

impl Late for CancellationToken {
    fn stop(&self) {
        self.cancel();
    }
}

/// How long something may take: what was given for it, which is what people are told, and what is left of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout {
    /// What was given.
    pub given: Duration,
    /// What is left of it now.
    pub left: Duration,
}

impl From<Duration> for Timeout {
    /// One that begins now.
    fn from(given: Duration) -> Self {
        Self { given, left: given }
    }
}

/// When something must be over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) at: Instant,
    /// What was given, for people.
    pub(crate) given: Duration,
}

impl Limit {
    /// From now, on the clock of the runtime this is called in.
    pub(crate) fn of(timeout: Timeout) -> Self {
        Self { at: in_time(timeout.left), given: timeout.given }
    }
}

/// What stands for a time that no clock can hold: 30 years.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The deadlines of one host's direct calls.
#[derive(Default)]
pub(crate) struct Deadlines {
    open: Mutex<Open>,
    changed: Notify,
}

#[derive(Default)]
struct Open {
    due: BTreeMap<Key, Arc<dyn Late>>,
    next: u64,
    /// When they are looked at next; of those that are later nobody need be told.
    looks_at: Option<Instant>,
}

/// Unique, and in the order of time.
type Key = (Instant, u64);

/// A deadline that is looked after until this is dropped.
pub(crate) struct Due {
    deadlines: Arc<Deadlines>,
    key: Key,
}

/// When so much time has passed, on the clock of the runtime this is called in.
pub(crate) fn in_time(within: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(within).unwrap_or_else(|| now + FAR)
}

impl Deadlines {
    /// Looks after a call, and stops it at that time.
    pub(crate) fn enter(self: &Arc<Self>, at: Instant, call: Arc<dyn Late>) -> Due {
        let mut open = self.open();
        let key = (at, open.next);
        open.next += 1;
        open.due.insert(key, call);
        if open.looks_at.is_none_or(|looks_at| at < looks_at) {
            open.looks_at = Some(at);
            self.changed.notify_one();
        }
        drop(open);
        Due { deadlines: Arc::clone(self), key }
    }

    /// The task that looks after them.
    pub(crate) async fn keep(self: Arc<Self>) {
        loop {
            let next = self.pass(Instant::now());
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// Stops those whose time is over; gives the next one's.
    fn pass(&self, now: Instant) -> Option<Instant> {
        let mut late = Vec::new();
        let mut open = self.open();
        while let Some(first) = open.due.first_entry().filter(|first| first.key().0 <= now) {
            late.push(first.remove());
        }
        open.looks_at = open.due.first_key_value().map(|((at, _), _)| *at);
        let looks_at = open.looks_at;
        drop(open);
        late.iter().for_each(|call| call.stop());
        looks_at
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        self.deadlines.open().due.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call that nobody stops is told, and holds no test.
    async fn is_stopped(call: &CancellationToken) {
        let stopped = tokio::time::timeout(Duration::from_secs(100), call.cancelled());
        stopped.await.expect("it is stopped");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_due_first_is_stopped_first_and_who_has_ended_is_forgotten() {
        let deadlines = Arc::new(Deadlines::default());
        tokio::spawn(Arc::clone(&deadlines).keep());
        let begun = Instant::now();
        let enter = |within| {
            let call = CancellationToken::new();
            (deadlines.enter(in_time(within), Arc::new(call.clone())), call)
        };
        let after = |seconds| enter(Duration::from_secs(seconds));
        let ((late, stopped_late), (soon, stopped_soon), (ended, never_stopped)) =
            (after(60), after(5), after(1));
        let (never, _) = enter(Duration::MAX);
        drop(ended);
        is_stopped(&stopped_soon).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        // Two may be due in one moment.
        let ((_one, stopped_one), (_other, stopped_other)) = (after(1), after(1));
        for stopped in [stopped_one, stopped_other] {
            is_stopped(&stopped).await;
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(6));
        // One that is entered between two looks is not late.
        let (between, stopped_between) = after(2);
        is_stopped(&stopped_between).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(8));
        is_stopped(&stopped_late).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(60));
        assert!(!never_stopped.is_cancelled());
        drop((late, soon, between));
        assert_eq!(deadlines.open().due.len(), 1);
        drop(never);
        assert!(deadlines.open().due.is_empty());
    }
}
