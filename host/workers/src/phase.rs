//! Where a worker is in its life, since when, and what it has printed since then. A verdict looks at nothing older: a
//! complaint about an earlier call, or the time since the worker was started, would mislead.

use crate::death::millis;
use crate::pump::Tail;
use cjm_decide::death::{LifePhase, MemoryEvidence, SincePhaseBegan};
use cjm_platform::usage;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The kernel's count of processes killed for lack of memory is read again for a call that begins so long after the last
/// reading: it takes longer to read than a short call takes.
const OOM_KILLS_AGE_MAX: Duration = Duration::from_secs(1);

/// Shared by whoever calls the worker and the task that accompanies it.
#[derive(Clone)]
pub(crate) struct Phases {
    now: Arc<Mutex<Now>>,
    tail: Tail,
    /// Of one that takes no more calls: those that it has are fewer.
    fewer: Arc<Notify>,
}

struct Now {
    phase: LifePhase,
    calls: usize,
    lost: usize,
    /// It takes no more calls.
    leaves: bool,
    /// The connection of one of its calls has ever broken.
    broke: bool,
    began: Instant,
    lines_before: u64,
    oom_kills: Option<u64>,
    oom_kills_read: Instant,
}

/// How one that takes no more calls came to have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastCall {
    Ended,
    /// Or one before it, which may be the first that is known of a death.
    Broke,
}

/// Counts one call as running until it is dropped.
pub(crate) struct Running(Phases);

impl Drop for Running {
    fn drop(&mut self) {
        let mut now = self.0.now();
        now.calls -= 1;
        if now.calls == 0 {
            self.0.begin(&mut now);
        }
        if now.leaves {
            self.0.fewer.notify_waiters();
        }
    }
}

/// Counts one of the calls as one that its worker hears no more until it is dropped.
pub(crate) struct Lost(Phases);

impl Drop for Lost {
    fn drop(&mut self) {
        self.0.now().lost -= 1;
    }
}

impl Phases {
    pub(crate) fn starting(tail: Tail) -> Self {
        let now = Now {
            phase: LifePhase::Starting,
            calls: 0,
            lost: 0,
            leaves: false,
            broke: false,
            began: Instant::now(),
            lines_before: 0,
            oom_kills: usage::oom_kills(),
            oom_kills_read: Instant::now(),
        };
        Self { now: Arc::new(Mutex::new(now)), tail, fewer: Arc::default() }
    }

    /// It has come to another phase.
    pub(crate) fn set(&self, phase: LifePhase) {
        let mut now = self.now();
        now.phase = phase;
        self.begin(&mut now);
    }

    /// A call begins; of calls that run side by side the first one counts. False: it is not to be sent.
    pub(crate) fn call_begins(&self) -> (Running, bool) {
        let mut now = self.now();
        now.calls += 1;
        if now.calls == 1 {
            self.begin(&mut now);
        }
        let is_taken = !now.leaves;
        drop(now);
        (Running(self.clone()), is_taken)
    }

    /// The connection of a call that is counted has broken, or there was none and nothing of it was sent.
    pub(crate) fn call_is_lost(&self, sent: bool) -> Lost {
        let mut now = self.now();
        now.lost += 1;
        now.broke |= sent;
        drop(now);
        self.fewer.notify_waiters();
        Lost(self.clone())
    }

    /// It takes no more calls. True: nor has it one that it can still answer.
    pub(crate) fn leaves(&self) -> bool {
        let mut now = self.now();
        now.leaves = true;
        now.calls <= now.lost
    }

    /// Of one that takes no more calls: resolves when it has none that it can still answer.
    pub(crate) async fn last_call_ended(&self) -> LastCall {
        loop {
            let mut fewer = pin!(self.fewer.notified());
            fewer.as_mut().enable();
            if self.leaves() {
                return if self.now().broke { LastCall::Broke } else { LastCall::Ended };
            }
            fewer.await;
        }
    }

    /// What is known at the moment of its death.
    pub(crate) fn at_death(&self) -> (LifePhase, SincePhaseBegan, MemoryEvidence) {
        let now = self.now();
        let phase = match now.phase {
            LifePhase::Idle if now.calls > 0 => LifePhase::Calling,
            phase => phase,
        };
        let since = SincePhaseBegan {
            output: self.tail.lines_since(now.lines_before),
            elapsed_ms: millis(now.began.elapsed()),
        };
        let memory = MemoryEvidence {
            oom_kill_delta: now
                .oom_kills
                .zip(usage::oom_kills())
                .map(|(before, after)| after.saturating_sub(before)),
            available_memory_mb: usage::sample_machine()
                .ok()
                .map(|machine| machine.memory_available_bytes / (1024 * 1024)),
        };
        (phase, since, memory)
    }

    fn begin(&self, now: &mut Now) {
        now.began = Instant::now();
        now.lines_before = self.tail.lines_ever();
        if now.began.duration_since(now.oom_kills_read) > OOM_KILLS_AGE_MAX {
            now.oom_kills = usage::oom_kills();
            now.oom_kills_read = now.began;
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn a_verdict_sees_what_was_printed_since_the_phase_or_the_first_running_call_began() {
        let tail = Tail::default();
        let phases = Phases::starting(tail.clone());
        let seen = || {
            let (phase, since, _) = phases.at_death();
            (phase, since.output)
        };
        tail.push("loading");
        assert_eq!(seen(), (LifePhase::Starting, vec!["loading".to_owned()]));
        phases.set(LifePhase::Idle);
        assert_eq!(seen(), (LifePhase::Idle, Vec::new()));
        let (first, _) = phases.call_begins();
        tail.push("MemoryError: handled");
        let second = phases.call_begins();
        tail.push("more");
        let both = vec!["MemoryError: handled".to_owned(), "more".to_owned()];
        assert_eq!(seen(), (LifePhase::Calling, both.clone()));
        drop(first);
        assert_eq!(seen(), (LifePhase::Calling, both));
        drop(second);
        assert_eq!(seen(), (LifePhase::Idle, Vec::new()), "the call that printed it is over");
        let _third = phases.call_begins();
        assert_eq!(seen(), (LifePhase::Calling, Vec::new()));
    }

    #[tokio::test]
    async fn one_that_leaves_takes_no_call_and_waits_for_those_that_it_can_still_answer() {
        let phases = Phases::starting(Tail::default());
        let (one, is_taken) = phases.call_begins();
        let (other, _) = phases.call_begins();
        assert!(is_taken);
        drop(phases.call_is_lost(false));
        assert!(!phases.leaves());
        let (late, is_taken) = phases.call_begins();
        assert!(!is_taken);
        let mut last = pin!(phases.last_call_ended());
        assert!(last.as_mut().now_or_never().is_none());
        let _late_is_lost = phases.call_is_lost(false);
        drop(one);
        assert!(last.as_mut().now_or_never().is_none(), "the other one may end well");
        drop(other);
        let told = tokio::time::timeout(Duration::from_secs(10), last).await.expect("it is told");
        assert_eq!(told, LastCall::Ended);
        drop(phases.call_is_lost(true));
        assert_eq!(phases.last_call_ended().await, LastCall::Broke);
        drop(late);
    }

    #[test]
    fn of_more_lines_than_are_kept_the_last_are_seen() {
        let tail = Tail::default();
        let phases = Phases::starting(tail.clone());
        for n in 0..10 * crate::flood::TAIL_LINES_MAX {
            tail.push(&n.to_string());
        }
        let (_, since, memory) = phases.at_death();
        assert_eq!(since.output, tail.lines());
        assert!(memory.available_memory_mb.is_some_and(|mb| mb > 0), "{memory:?}");
    }
}
