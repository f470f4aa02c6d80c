//! The life of one job in the queue, and the one function that moves it. Ended jobs are forgotten, so that
//! late words about them find nothing to change.
//!
//! ```text
//!  Submitted
//!      │         Admitted
//!      ▼ ─────────────────────▶        AttemptEnded
//!  ┌─Pending                  Running ──────────────────────▶ ended: completed | failed | cancelled
//!  │     ◀─────────────────────  │
//!  │ AttemptEnded: not run/taken │
//!  │ StopAsked                   │ StopAsked (reach: any)
//!  │                             ▼        AttemptEnded, however
//!  │                         Stopping ──────────────────────▶ ended: cancelled, or failed at its deadline
//!  │                             │ GraceOver                      ▲
//!  │                             ▼        AttemptEnded, however   │
//!  │                          Forcing ────────────────────────────┤
//!  └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! A result that arrives before the stop is handled wins (the job has ended, the stop finds nothing). Once the
//! stop is handled the job ends as its reason says, whatever the call still returns: who asked for an end must
//! not be told later that it went on, and a tool that fails *because* it was stopped has cooperated.
//!
//! An attempt that did not find the incarnation it was admitted to has not run: nothing was committed for it,
//! and the job takes its old place in its line again, under the same attempt number. An attempt whose worker died before
//! its tool took the call has a row, and so its number is used; the job takes its old place all the same.

use super::ladder::BlockReason;
use super::lines::OrderKey;
use super::types::{AttemptOutcome, CancelPhase, CancelReach, StopReason, Target};
use cjm_wire::event::JobStatus;
use cjm_wire::{CompositionId, InstanceId, WorkerSessionId};

/// One job that has not ended.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) target: Target,
    pub(super) priority: i32,
    pub(super) composition: Option<CompositionId>,
    pub(super) submitted_ms: u64,
    /// When it must have ended.
    pub(super) due_ms: Option<u64>,
    /// Attempts that found a tool which took no call at all.
    pub(super) not_taken: u32,
    pub(super) life: Life,
}

/// Where an attempt runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) attempt: u32,
    pub(super) instance: InstanceId,
    pub(super) session: WorkerSessionId,
    pub(super) since_ms: u64,
    /// Its place in the line, to which it goes back when the attempt did not run.
    pub(super) key: OrderKey,
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
    Stopping { run: Run, reason: StopReason, grace_ends_ms: u64 },
    Forcing { run: Run, reason: StopReason },
}

/// What moves it.
#[derive(Debug, Clone)]
pub(super) enum LifeEvent {
    Admitted(Run),
    StopAsked { reach: CancelReach, reason: StopReason, grace_ends_ms: u64 },
    GraceOver,
    AttemptEnded { attempt: u32, session: WorkerSessionId, outcome: AttemptOutcome },
}

/// Where that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Late or repeated: nothing changes.
    Stay,
    Become(Life),
    End(JobStatus),
    /// It was stopped; its status is the reason's.
    Stopped(StopReason),
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

            (Self::Pending { .. }, LifeEvent::StopAsked { reason, .. }) => Ok(Next::Stopped(reason)),
            (Self::Running(run), LifeEvent::StopAsked { reach: CancelReach::Any, reason, grace_ends_ms }) => {
                Ok(Next::Become(Self::Stopping { run: run.clone(), reason, grace_ends_ms }))
            }
            (_, LifeEvent::StopAsked { .. }) => Ok(Next::Stay),

            (Self::Stopping { run, reason, .. }, LifeEvent::GraceOver) => {
                Ok(Next::Become(Self::Forcing { run: run.clone(), reason: *reason }))
            }
            (_, LifeEvent::GraceOver) => Err(illegal),

            (Self::Pending { attempts_done, .. }, LifeEvent::AttemptEnded { attempt, .. }) => {
                if attempt <= *attempts_done { Ok(Next::Stay) } else { Err(illegal) }
            }
            (Self::Running(run), LifeEvent::AttemptEnded { attempt, session, outcome }) => {
                let next = match outcome.status() {
                    Some(status) => Next::End(status),
                    None => {
                        // One that did not run gives its number to the next.
                        let unused = u32::from(outcome == AttemptOutcome::NotRun);
                        let attempts_done = run.attempt - unused;
                        Next::Become(Self::Pending { key: run.key, attempts_done, block: None })
                    }
                };
                Self::attempt_ended(run, attempt, &session, next, illegal)
            }
            (
                Self::Stopping { run, reason, .. } | Self::Forcing { run, reason },
                LifeEvent::AttemptEnded { attempt, session, .. },
            ) => Self::attempt_ended(run, attempt, &session, Next::Stopped(*reason), illegal),
        }
    }

    /// An older attempt, or one on another incarnation, is late news.
    fn attempt_ended(
        run: &Run,
        attempt: u32,
        session: &WorkerSessionId,
        next: Next,
        illegal: Illegal,
    ) -> Result<Next, Illegal> {
        match attempt.cmp(&run.attempt) {
            std::cmp::Ordering::Less => Ok(Next::Stay),
            std::cmp::Ordering::Equal if *session != run.session => Ok(Next::Stay),
            std::cmp::Ordering::Equal => Ok(next),
            std::cmp::Ordering::Greater => Err(illegal),
        }
    }

    /// The running attempt, if there is one.
    pub(super) fn run(&self) -> Option<&Run> {
        match self {
            Self::Pending { .. } => None,
            Self::Running(run) | Self::Stopping { run, .. } | Self::Forcing { run, .. } => Some(run),
        }
    }

    /// How far its cancel has come.
    pub(super) fn cancel_phase(&self) -> CancelPhase {
        match self {
            Self::Pending { .. } | Self::Running(_) => CancelPhase::None,
            Self::Stopping { .. } => CancelPhase::Cooperative,
            Self::Forcing { .. } => CancelPhase::Force,
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
            Self::Stopping { .. } => "being stopped",
            Self::Forcing { .. } => "being ended by force",
        }
    }
}

impl LifeEvent {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Admitted(_) => "admitted",
            Self::StopAsked { .. } => "stop_asked",
            Self::GraceOver => "grace_over",
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
            key: OrderKey::new(0, 1),
        }
    }

    fn check(life: &Life, event: LifeEvent, expected: &Result<Next, Illegal>) {
        let name = event.name();
        assert_eq!(&life.next(event), expected, "{} × {name}", life.name());
    }

    fn pending() -> Life {
        Life::Pending { key: OrderKey::new(0, 1), attempts_done: 1, block: None }
    }

    fn stop(reach: CancelReach, reason: StopReason) -> LifeEvent {
        LifeEvent::StopAsked { reach, reason, grace_ends_ms: 9 }
    }

    fn over(attempt: u32, outcome: AttemptOutcome) -> LifeEvent {
        LifeEvent::AttemptEnded { attempt, session: WorkerSessionId::from_text("s"), outcome }
    }

    fn illegal(life: &Life, event: &'static str) -> Result<Next, Illegal> {
        Err(Illegal { state: life.name(), event })
    }

    #[test]
    fn a_job_that_waits_or_runs_has_one_answer_to_every_event() {
        use AttemptOutcome::{Cancelled, Completed, Failed, NotRun, NotTaken};
        let (pending, running) = (pending(), Life::Running(run(2)));
        let end = |status| Ok(Next::End(status));
        check(&pending, LifeEvent::Admitted(run(2)), &Ok(Next::Become(running.clone())));
        check(&pending, LifeEvent::Admitted(run(3)), &illegal(&pending, "admitted"));
        for reason in [StopReason::Cancel, StopReason::Deadline] {
            check(&pending, stop(CancelReach::Any, reason), &Ok(Next::Stopped(reason)));
            check(&pending, stop(CancelReach::PendingOnly, reason), &Ok(Next::Stopped(reason)));
            let stopping = Life::Stopping { run: run(2), reason, grace_ends_ms: 9 };
            check(&running, stop(CancelReach::Any, reason), &Ok(Next::Become(stopping)));
            check(&running, stop(CancelReach::PendingOnly, reason), &Ok(Next::Stay));
        }
        check(&pending, LifeEvent::GraceOver, &illegal(&pending, "grace_over"));
        check(&pending, over(1, Completed), &Ok(Next::Stay));
        check(&pending, over(2, Completed), &illegal(&pending, "attempt_ended"));

        check(&running, LifeEvent::Admitted(run(3)), &illegal(&running, "admitted"));
        check(&running, LifeEvent::GraceOver, &illegal(&running, "grace_over"));
        check(&running, over(1, Completed), &Ok(Next::Stay));
        check(&running, over(2, Completed), &end(JobStatus::Completed));
        check(&running, over(2, Failed), &end(JobStatus::Failed));
        check(&running, over(2, Cancelled), &end(JobStatus::Cancelled));
        check(&running, over(3, Completed), &illegal(&running, "attempt_ended"));
        check(&running, over(2, NotRun), &Ok(Next::Become(pending)));
        let again = Life::Pending { key: OrderKey::new(0, 1), attempts_done: 2, block: None };
        check(&running, over(2, NotTaken { others: false }), &Ok(Next::Become(again)));
    }

    #[test]
    fn a_job_that_is_stopped_ends_as_the_reason_says_however_its_call_ends() {
        use AttemptOutcome::{Cancelled, Completed, Failed, NotRun, NotTaken};
        for reason in [StopReason::Cancel, StopReason::Deadline] {
            let stopping = Life::Stopping { run: run(2), reason, grace_ends_ms: 9 };
            let forcing = Life::Forcing { run: run(2), reason };
            check(&stopping, LifeEvent::GraceOver, &Ok(Next::Become(forcing.clone())));
            check(&forcing, LifeEvent::GraceOver, &illegal(&forcing, "grace_over"));
            for life in [&stopping, &forcing] {
                check(life, LifeEvent::Admitted(run(3)), &illegal(life, "admitted"));
                for other in [StopReason::Cancel, StopReason::Deadline] {
                    check(life, stop(CancelReach::Any, other), &Ok(Next::Stay));
                    check(life, stop(CancelReach::PendingOnly, other), &Ok(Next::Stay));
                }
                check(life, over(1, Failed), &Ok(Next::Stay));
                check(life, over(3, Failed), &illegal(life, "attempt_ended"));
                for outcome in [Completed, Failed, Cancelled, NotRun, NotTaken { others: true }] {
                    check(life, over(2, outcome), &Ok(Next::Stopped(reason)));
                }
            }
        }
    }

    #[test]
    fn the_word_of_another_incarnation_changes_nothing() {
        let late = |outcome| LifeEvent::AttemptEnded {
            attempt: 2,
            session: WorkerSessionId::from_text("an earlier one"),
            outcome,
        };
        let reason = StopReason::Cancel;
        for life in [
            Life::Running(run(2)),
            Life::Stopping { run: run(2), reason, grace_ends_ms: 9 },
            Life::Forcing { run: run(2), reason },
        ] {
            check(&life, late(AttemptOutcome::Completed), &Ok(Next::Stay));
            check(&life, late(AttemptOutcome::NotRun), &Ok(Next::Stay));
        }
    }
}
