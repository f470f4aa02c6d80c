//! When calls must have ended. One task looks after all of them, so that a call which ends in time wakes nobody: every call
//! has a deadline, and most are a day away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

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
    due: BTreeMap<Key, Entered>,
    next: u64,
    /// When they are looked at next; of those that are later nobody need be told.
    looks_at: Option<Instant>,
}

/// One call's.
struct Entered {
    passed: CancellationToken,
    /// What stops the call, whether or not its caller looks.
    stop: Box<dyn FnOnce() + Send>,
}

/// Unique, and in the order of time.
type Key = (Instant, u64);

/// A deadline that is looked after until this is dropped.
pub(crate) struct Due {
    deadlines: Arc<Deadlines>,
    key: Key,
    passed: CancellationToken,
}

/// When so much time has passed, on the clock of the runtime this is called in.
pub(crate) fn in_time(within: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(within).unwrap_or_else(|| now + FAR)
}

impl Deadlines {
    /// Looks after a call that may take so long from now, on the clock of this runtime; `stop` stops it then.
    pub(crate) fn enter(
        self: &Arc<Self>,
        runtime: &Handle,
        within: Duration,
        stop: impl FnOnce() + Send + 'static,
    ) -> Due {
        let at = {
            let _its_clock = runtime.enter();
            in_time(within)
        };
        let passed = CancellationToken::new();
        let mut open = self.open();
        let key = (at, open.next);
        open.next += 1;
        open.due.insert(key, Entered { passed: passed.clone(), stop: Box::new(stop) });
        if open.looks_at.is_none_or(|looks_at| at < looks_at) {
            open.looks_at = Some(at);
            self.changed.notify_one();
        }
        drop(open);
        Due { deadlines: Arc::clone(self), key, passed }
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

    /// Tells those whose time is over; gives the next one's.
    fn pass(&self, now: Instant) -> Option<Instant> {
        let mut late = Vec::new();
        let mut open = self.open();
        while let Some(first) = open.due.first_entry().filter(|first| first.key().0 <= now) {
            late.push(first.remove());
        }
        open.looks_at = open.due.first_key_value().map(|((at, _), _)| *at);
        let looks_at = open.looks_at;
        drop(open);
        for Entered { passed, stop } in late {
            // Before its caller learns it, who then finds nothing to drop.
            stop();
            passed.cancel();
        }
        looks_at
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Due {
    /// Resolves when the time is over.
    pub(crate) async fn passed(&self) {
        self.passed.cancelled().await;
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn whoever_is_due_first_is_told_first_and_who_has_ended_is_forgotten() {
        let (deadlines, runtime) = (Arc::new(Deadlines::default()), Handle::current());
        tokio::spawn(Arc::clone(&deadlines).keep());
        let begun = Instant::now();
        let stopped = Arc::new(AtomicUsize::new(0));
        let stop = || {
            let stopped = Arc::clone(&stopped);
            move || {
                stopped.fetch_add(1, Ordering::Relaxed);
            }
        };
        let enter = |seconds| deadlines.enter(&runtime, Duration::from_secs(seconds), stop());
        let (late, soon, ended) = (enter(60), enter(5), enter(1));
        let never = deadlines.enter(&runtime, Duration::MAX, stop());
        drop(ended);
        soon.passed().await;
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        // Two may be due in one moment.
        let (one, other) = (enter(1), enter(1));
        for due in [&one, &other] {
            let told = tokio::time::timeout(Duration::from_secs(5), due.passed());
            told.await.expect("each is told");
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(6));
        drop((one, other));
        // One that is entered between two looks is not late.
        enter(2).passed().await;
        assert_eq!(begun.elapsed(), Duration::from_secs(8));
        late.passed().await;
        assert_eq!(begun.elapsed(), Duration::from_secs(60));
        assert_eq!(stopped.load(Ordering::Relaxed), 5, "those that were late, each once");
        drop((late, soon));
        assert_eq!(deadlines.open().due.len(), 1);
        drop(never);
        assert!(deadlines.open().due.is_empty());
    }
}
