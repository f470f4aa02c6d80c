//! Where a worker is in its life, since when, and what it has printed since then. A verdict looks at nothing older: a
//! complaint about an earlier call, or the time since the worker was started, would mislead.

use crate::death::millis;
use crate::pump::Tail;
use cjm_decide::death::{LifePhase, MemoryEvidence, SincePhaseBegan};
use cjm_platform::usage;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The kernel's count of processes killed for lack of memory is read again for a call that begins so long after the last
/// reading: it takes longer to read than a short call takes.
const OOM_KILLS_AGE_MAX: Duration = Duration::from_secs(1);

/// Shared by whoever calls the worker and the task that accompanies it.
#[derive(Clone)]
pub(crate) struct Phases {
    now: Arc<Mutex<Now>>,
    tail: Tail,
}

struct Now {
    phase: LifePhase,
    calls: usize,
    lost: usize,
    began: Instant,
    lines_before: u64,
    oom_kills: Option<u64>,
    oom_kills_read: Instant,
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
            began: Instant::now(),
            lines_before: 0,
            oom_kills: usage::oom_kills(),
            oom_kills_read: Instant::now(),
        };
        Self { now: Arc::new(Mutex::new(now)), tail }
    }

    /// It has come to another phase.
    pub(crate) fn set(&self, phase: LifePhase) {
        let mut now = self.now();
        now.phase = phase;
        self.begin(&mut now);
    }

    /// A call begins; of calls that run side by side the first one counts.
    pub(crate) fn call_begins(&self) -> Running {
        let mut now = self.now();
        now.calls += 1;
        if now.calls == 1 {
            self.begin(&mut now);
        }
        drop(now);
        Running(self.clone())
    }

    /// The connection of a call that is counted has broken, or there was none.
    pub(crate) fn call_is_lost(&self) -> Lost {
        self.now().lost += 1;
        Lost(self.clone())
    }

    /// Whether there is a call that its worker can still answer.
    pub(crate) fn is_called(&self) -> bool {
        let now = self.now();
        now.calls > now.lost
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
        let first = phases.call_begins();
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
