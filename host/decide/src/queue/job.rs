//! The life of one job in the queue, and the one function that moves it. Ended jobs are forgotten, so that
//! late words about them find nothing to change.
//!
//! ```text
//!  Submitted
//!      │
//!      ▼         Admitted                 AttemptEnded
//!  ┌─Pending────────────────▶ Running ──────────────────────▶ ended: completed | failed | cancelled
//!  │                             │
//!  │ CancelRequested             │ CancelRequested (reach: any)
//!  │                             ▼        AttemptEnded, however
//!  │                         Cancelling ────────────────────▶ ended: cancelled
//!  │                             │ CancelOverdue                  ▲
//!  │                             ▼        AttemptEnded, however   │
//!  │                          Forcing ────────────────────────────┤
//!  └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! A result that arrives before the cancel is handled wins (the job has ended, the cancel finds nothing). Once
//! the cancel is handled the job ends `cancelled`, whatever the call still returns: who asked for an end must
//! not be told later that it went on, and a tool that fails *because* it was cancelled has cooperated.

use super::ladder::BlockReason;
use super::lines::OrderKey;
use super::types::{AttemptOutcome, CancelPhase, CancelReach, Target};
use cjm_wire::event::JobStatus;
use cjm_wire::{CompositionId, InstanceId, WorkerSessionId};

/// One job that has not ended.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) target: Target,
    pub(super) priority: i32,
    pub(super) composition: Option<CompositionId>,
    pub(super) submitted_ms: u64,
    pub(super) life: Life,
}

/// Where an attempt runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) attempt: u32,
    pub(super) instance: InstanceId,
    pub(super) session: WorkerSessionId,
    pub(super) since_ms: u64,
}

/// What a job waits for, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) reason: BlockReason,
    pub(super) since_ms: u64,
}

/// See the diagram above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    Pending { key: OrderKey, attempts_done: u32, block: Option<Block> },
    Running(Run),
    Cancelling { run: Run, deadline_ms: u64 },
    Forcing(Run),
}

/// What moves it.
#[derive(Debug, Clone)]
pub(super) enum LifeEvent {
    Admitted(Run),
    CancelRequested { reach: CancelReach, deadline_ms: u64 },
    CancelOverdue,
    AttemptEnded { attempt: u32, outcome: AttemptOutcome },
}

/// Where that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Late or repeated: nothing changes.
    Stay,
    Become(Life),
    End(JobStatus),
}

/// A pair of state and event that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Illegal {
    pub(super) state: &'static str,
    pub(super) event: &'static str,
}

impl Life {
    /// The one transition function.
    pub(super) fn next(&self, event: LifeEvent) -> Result<Next, Illegal> {
        let illegal = Illegal { state: self.name(), event: event.name() };
        match (self, event) {
            (Self::Pending { attempts_done, .. }, LifeEvent::Admitted(run)) => {
                if run.attempt == attempts_done + 1 {
                    Ok(Next::Become(Self::Running(run)))
                } else {
                    Err(illegal)
                }
            }
            (_, LifeEvent::Admitted(_)) => Err(illegal),

            (Self::Pending { .. }, LifeEvent::CancelRequested { .. }) => Ok(Next::End(JobStatus::Cancelled)),
            (Self::Running(run), LifeEvent::CancelRequested { reach: CancelReach::Any, deadline_ms }) => {
                Ok(Next::Become(Self::Cancelling { run: run.clone(), deadline_ms }))
            }
            (_, LifeEvent::CancelRequested { .. }) => Ok(Next::Stay),

            (Self::Cancelling { run, .. }, LifeEvent::CancelOverdue) => {
                Ok(Next::Become(Self::Forcing(run.clone())))
            }
            (_, LifeEvent::CancelOverdue) => Err(illegal),

            (Self::Pending { attempts_done, .. }, LifeEvent::AttemptEnded { attempt, .. }) => {
                if attempt <= *attempts_done { Ok(Next::Stay) } else { Err(illegal) }
            }
            (Self::Running(run), LifeEvent::AttemptEnded { attempt, outcome }) => {
                Self::ended(run, attempt, outcome.status(), illegal)
            }
            (Self::Cancelling { run, .. } | Self::Forcing(run), LifeEvent::AttemptEnded { attempt, .. }) => {
                Self::ended(run, attempt, JobStatus::Cancelled, illegal)
            }
        }
    }

    fn ended(run: &Run, attempt: u32, status: JobStatus, illegal: Illegal) -> Result<Next, Illegal> {
        match attempt.cmp(&run.attempt) {
            std::cmp::Ordering::Less => Ok(Next::Stay),
            std::cmp::Ordering::Equal => Ok(Next::End(status)),
            std::cmp::Ordering::Greater => Err(illegal),
        }
    }

    /// The running attempt, if there is one.
    pub(super) fn run(&self) -> Option<&Run> {
        match self {
            Self::Pending { .. } => None,
            Self::Running(run) | Self::Cancelling { run, .. } | Self::Forcing(run) => Some(run),
        }
    }

    /// How far its cancel has come.
    pub(super) fn cancel_phase(&self) -> CancelPhase {
        match self {
            Self::Pending { .. } | Self::Running(_) => CancelPhase::None,
            Self::Cancelling { .. } => CancelPhase::Cooperative,
            Self::Forcing(_) => CancelPhase::Force,
        }
    }

    /// As rows spell it.
    pub(super) fn status(&self) -> JobStatus {
        if self.run().is_some() { JobStatus::Running } else { JobStatus::Pending }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Running(_) => "running",
            Self::Cancelling { .. } => "cancelling",
            Self::Forcing(_) => "being ended by force",
        }
    }
}

impl LifeEvent {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Admitted(_) => "admitted",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::CancelOverdue => "cancel_overdue",
            Self::AttemptEnded { .. } => "attempt_ended",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(attempt: u32) -> Run {
        Run {
            attempt,
            instance: InstanceId::from_text("i"),
            session: WorkerSessionId::from_text("s"),
            since_ms: 0,
        }
    }

    fn check(life: &Life, event: LifeEvent, expected: &Result<Next, Illegal>) {
        let name = event.name();
        assert_eq!(&life.next(event), expected, "{} × {name}", life.name());
    }

    #[test]
    fn every_pair_of_state_and_event_has_one_answer() {
        let pending = Life::Pending { key: OrderKey::new(0, 1), attempts_done: 1, block: None };
        let running = Life::Running(run(2));
        let cancelling = Life::Cancelling { run: run(2), deadline_ms: 9 };
        let forcing = Life::Forcing(run(2));
        let cancel = |reach| LifeEvent::CancelRequested { reach, deadline_ms: 9 };
        let over = |attempt, outcome| LifeEvent::AttemptEnded { attempt, outcome };
        let illegal = |life: &Life, event| Err(Illegal { state: life.name(), event });
        let end = |status| Ok(Next::End(status));
        use AttemptOutcome::{Cancelled, Completed, Failed};

        check(&pending, LifeEvent::Admitted(run(2)), &Ok(Next::Become(running.clone())));
        check(&pending, LifeEvent::Admitted(run(3)), &illegal(&pending, "admitted"));
        check(&pending, cancel(CancelReach::Any), &end(JobStatus::Cancelled));
        check(&pending, cancel(CancelReach::PendingOnly), &end(JobStatus::Cancelled));
        check(&pending, LifeEvent::CancelOverdue, &illegal(&pending, "cancel_overdue"));
        check(&pending, over(1, Completed), &Ok(Next::Stay));
        check(&pending, over(2, Completed), &illegal(&pending, "attempt_ended"));

        check(&running, LifeEvent::Admitted(run(3)), &illegal(&running, "admitted"));
        check(&running, cancel(CancelReach::Any), &Ok(Next::Become(cancelling.clone())));
        check(&running, cancel(CancelReach::PendingOnly), &Ok(Next::Stay));
        check(&running, LifeEvent::CancelOverdue, &illegal(&running, "cancel_overdue"));
        check(&running, over(1, Completed), &Ok(Next::Stay));
        check(&running, over(2, Completed), &end(JobStatus::Completed));
        check(&running, over(2, Failed), &end(JobStatus::Failed));
        check(&running, over(2, Cancelled), &end(JobStatus::Cancelled));
        check(&running, over(3, Completed), &illegal(&running, "attempt_ended"));

        check(&cancelling, LifeEvent::CancelOverdue, &Ok(Next::Become(forcing.clone())));
        check(&forcing, LifeEvent::CancelOverdue, &illegal(&forcing, "cancel_overdue"));
        for life in [&cancelling, &forcing] {
            check(life, LifeEvent::Admitted(run(3)), &illegal(life, "admitted"));
            check(life, cancel(CancelReach::Any), &Ok(Next::Stay));
            check(life, cancel(CancelReach::PendingOnly), &Ok(Next::Stay));
            check(life, over(1, Failed), &Ok(Next::Stay));
            check(life, over(3, Failed), &illegal(life, "attempt_ended"));
            for outcome in [Completed, Failed, Cancelled] {
                check(life, over(2, outcome), &end(JobStatus::Cancelled));
            }
        }
    }
}
