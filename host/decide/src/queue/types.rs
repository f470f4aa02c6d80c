//! What goes into the queue and what comes out: events, effects, limits and refusals. Plain data; the meaning
//! of each pair of state and event is in `job` and `owner`.

use super::ladder::BlockReason;
use cjm_wire::describe::Described;
use cjm_wire::event::JobStatus;
use cjm_wire::runtime::Runtime;
use cjm_wire::{CompositionId, InstanceId, JobId, WorkerSessionId};
use std::fmt;
use std::time::Duration;

/// Attempts that run side by side when nothing else is configured.
pub const LANES_DEFAULT: u32 = 4;
/// Jobs that may wait when nothing else is configured.
pub const PENDING_MAX_DEFAULT: usize = 100_000;
/// How long a tool may take to notice a cancel, in milliseconds; then its instance is recycled.
pub const CANCEL_GRACE_MS: u64 = 3_000;
/// What a worker has, in milliseconds, to kill a program whose own grace is over and to say so.
const KILL_MS: u64 = 1_000;

/// How long a call of the tool may take to notice a cancel: the program that it started is killed before its worker is.
#[must_use]
pub fn cancel_grace(runtime: &Runtime) -> Duration {
    let Runtime::Executable(executable) = runtime else { return Duration::from_millis(CANCEL_GRACE_MS) };
    let rules = executable.actions.values().filter_map(|action| action.cancel.as_ref());
    let longest_ms = rules.map(|rule| rule.grace_ms).max().unwrap_or(0);
    Duration::from_millis(longest_ms.saturating_add(KILL_MS).max(CANCEL_GRACE_MS))
}

/// How long the worker of a tool with this cancel grace may take to end: as long as `usual`, unless its tool asks for more
/// than others do.
#[must_use]
pub fn end_grace(usual: Duration, cancel_grace: Duration) -> Duration {
    if cancel_grace > Duration::from_millis(CANCEL_GRACE_MS) { cancel_grace.max(usual) } else { usual }
}

/// Attempts of one job that may find an incarnation which dies without having taken any call; then the job fails.
pub const NOT_TAKEN_MAX: u32 = 4;

/// The queue's maxima.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Attempts that run side by side; 0 counts as 1.
    pub lanes: u32,
    /// Jobs that may wait.
    pub pending_max: usize,
    /// See [`CANCEL_GRACE_MS`]; an instance may be given more.
    pub cancel_grace_ms: u64,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { lanes: LANES_DEFAULT, pending_max: PENDING_MAX_DEFAULT, cancel_grace_ms: CANCEL_GRACE_MS }
    }
}

/// Whom a job is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Any instance of the capability with this name.
    Capability(String),
    /// This instance and no other.
    Instance(InstanceId),
}

impl QueueLimits {
    /// Whether `asked` more jobs may be accepted while `waiting` wait or are being committed. To be asked before a job
    /// is committed: an accepted job is never refused afterwards.
    ///
    /// # Errors
    /// [`QueueError::PendingFull`].
    pub fn may_submit(&self, waiting: usize, asked: usize) -> Result<(), QueueError> {
        let max = self.pending_max;
        if waiting.saturating_add(asked) > max {
            return Err(QueueError::PendingFull { pending: waiting, asked, max });
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capability(name) => write!(f, "capability {name}"),
            Self::Instance(instance) => write!(f, "instance {instance}"),
        }
    }
}

/// An accepted job as the queue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedJob {
    /// Its id.
    pub id: JobId,
    /// Whom it is for.
    pub target: Target,
    /// Higher runs first.
    pub priority: i32,
    /// The composition it belongs to.
    pub composition: Option<CompositionId>,
    /// Milliseconds from its submission until it must have ended; `None`: whenever.
    pub deadline_ms: Option<u64>,
}

/// What happens to the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueEvent {
    /// A worker is ready. Another `session` under a known instance replaces it (a reload); the same one again
    /// is a repetition and changes nothing.
    InstanceAdded {
        /// The instance.
        instance: InstanceId,
        /// This incarnation of its worker.
        session: WorkerSessionId,
        /// The capability it is an instance of.
        capability: String,
        /// Calls it takes at once; 0 (unset) counts as 1.
        concurrency_max: u32,
        /// How long its tool may take to notice a cancel, in milliseconds, where that is more than the queue's own.
        cancel_grace_ms: u64,
    },
    /// An incarnation is gone, unloaded or dead. Its calls still end by their own `AttemptEnded`.
    InstanceRemoved {
        /// The instance.
        instance: InstanceId,
        /// The incarnation; another one than the present one is late news and ignored.
        session: WorkerSessionId,
    },
    /// A job was accepted and committed.
    Submitted {
        /// The job.
        job: QueuedJob,
    },
    /// Somebody wants a job ended. Of an unknown or ended job, or a second time: ignored.
    CancelRequested {
        /// The job.
        job: JobId,
        /// Whether a running attempt is meant too.
        reach: CancelReach,
    },
    /// Somebody wants a job ended now: it is cancelled, and its worker is killed without a grace, or without what is left of
    /// it. Of an unknown or ended job, or a second time: ignored.
    ForceRequested {
        /// The job.
        job: JobId,
    },
    /// The time of what a job is part of is over: it is stopped as if it were its own. Of an unknown or ended job, or a second
    /// time: ignored.
    DeadlinePassed {
        /// The job.
        job: JobId,
    },
    /// An attempt is over, whatever ended it. Every [`QueueEffect::Start`] is answered by one.
    AttemptEnded {
        /// The job.
        job: JobId,
        /// The number its `Start` carried; an older one is late news and ignored.
        attempt: u32,
        /// The incarnation its `Start` named; another one than the job is on is late news and ignored.
        session: WorkerSessionId,
        /// How.
        outcome: AttemptOutcome,
    },
    /// The store takes no rows: nothing may start.
    AdmissionClosed {
        /// Why, for people.
        reason: String,
    },
    /// The store takes rows again.
    AdmissionOpened,
    /// The time asked for by [`QueueEffect::WakeAt`] has come.
    Tick,
}

/// What a cancel may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReach {
    /// The job, running or not: a person asked.
    Any,
    /// Only while it waits: a fail-fast composition lets running calls finish.
    PendingOnly,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// With a result.
    Completed,
    /// With an error, or the death of its worker.
    Failed,
    /// The tool says that it was cancelled.
    Cancelled,
    /// The incarnation that it was admitted to is no longer the present one. Nothing was committed, nothing was sent.
    NotRun,
    /// The incarnation that it ran on has died and its tool had not taken the call.
    NotTaken {
        /// It had taken others: where each incarnation does, all calls have their turn.
        others: bool,
    },
}

impl AttemptOutcome {
    /// Final status of a job after an attempt with this outcome, if nobody stopped the job. `None`: it waits again.
    #[must_use]
    pub fn status(self) -> Option<JobStatus> {
        match self {
            Self::Completed => Some(JobStatus::Completed),
            Self::Failed => Some(JobStatus::Failed),
            Self::Cancelled => Some(JobStatus::Cancelled),
            Self::NotRun | Self::NotTaken { .. } => None,
        }
    }
}

/// Why a job is ended before its call has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopReason {
    /// Somebody asked.
    Cancel,
    /// Its deadline passed.
    Deadline,
}

impl StopReason {
    /// Final status of a job that was stopped for this reason.
    #[must_use]
    pub fn status(self) -> JobStatus {
        match self {
            Self::Cancel => JobStatus::Cancelled,
            Self::Deadline => JobStatus::Failed,
        }
    }
}

/// How far the cancel of a running job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CancelPhase {
    /// Nobody asked.
    None,
    /// The tool was asked and has its grace.
    Cooperative,
    /// It did not answer: its instance is being killed.
    Force,
    /// The call is gone; the instance comes back or does not.
    Reloading,
    /// Nothing is left to be done for it.
    Completed,
}

impl CancelPhase {
    /// The text in rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cooperative => "cooperative",
            Self::Force => "force",
            Self::Reloading => "reloading",
            Self::Completed => "completed",
        }
    }
}

/// An attempt to start, with the numbers of its `admission_decided` row.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// The job.
    pub job: JobId,
    /// Where.
    pub instance: InstanceId,
    /// On which incarnation of it.
    pub session: WorkerSessionId,
    /// From 1; `AttemptEnded` must repeat it.
    pub attempt: u32,
    /// How long the job waited.
    pub waited_ms: u64,
    /// Lanes in use once this one runs.
    pub lanes_in_use: u32,
    /// Nothing else may run beside it. False until admission goes by measurement.
    pub exclusive: bool,
    /// GPU memory reserved by what runs, MB. 0 until admission goes by measurement.
    pub gpu_reserved_mb: f64,
    /// Whether a measured profile was used. False until admission goes by measurement.
    pub stats_available: bool,
}

/// What the shell is to do. In order: rows are written in the order of the effects.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum QueueEffect {
    /// Commit `pending → running`, then send the call.
    Start(Start),
    /// Ask the tool to cancel this call.
    SendCancel {
        /// The job.
        job: JobId,
        /// Where it runs.
        instance: InstanceId,
        /// On which incarnation.
        session: WorkerSessionId,
        /// Which attempt.
        attempt: u32,
    },
    /// Kill this incarnation and load the instance again; its other calls end as transient failures.
    ForceRecycle {
        /// For the sake of this job.
        job: JobId,
        /// The instance.
        instance: InstanceId,
        /// The incarnation to kill.
        session: WorkerSessionId,
        /// Why.
        reason: StopReason,
    },
    /// A cancel moved on. From `reloading` to `completed` may come after the job's `Ended`.
    CancelPhaseChanged {
        /// The job.
        job: JobId,
        /// Before.
        from: CancelPhase,
        /// Now.
        to: CancelPhase,
    },
    /// A job at the head of its line waits for something else than before.
    BlockReasonChanged {
        /// The job.
        job: JobId,
        /// Before; `None` when it had not come to the head yet.
        from: Option<BlockReason>,
        /// Now.
        to: BlockReason,
    },
    /// Terminal. Exactly once for each submitted job.
    Ended {
        /// The job.
        job: JobId,
        /// `pending` or `running`.
        from: JobStatus,
        /// `completed`, `failed` or `cancelled`.
        status: JobStatus,
        /// The attempt that ended it; `None` when it never ran.
        attempt: Option<u32>,
        /// Why it was stopped, when it was.
        stopped: Option<StopReason>,
    },
    /// Send a [`QueueEvent::Tick`] at this time; replaces an earlier wish.
    WakeAt {
        /// On the clock of `now_ms`.
        at_ms: u64,
    },
}

/// Why the queue refuses an event. The state is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// A pair of state and event that cannot be.
    #[error("job {job} is {state}, where `{event}` cannot happen")]
    Illegal {
        /// The job.
        job: JobId,
        /// What it is.
        state: &'static str,
        /// What was said to have happened.
        event: &'static str,
    },
    /// Too many wait.
    #[error("{pending} jobs wait already and {asked} more would exceed the {max} allowed")]
    PendingFull {
        /// Waiting now, or being committed.
        pending: usize,
        /// How many more were asked for.
        asked: usize,
        /// The limit.
        max: usize,
    },
}

impl Described for QueueError {
    fn code(&self) -> &'static str {
        match self {
            Self::Illegal { .. } => "queue.illegal_transition",
            Self::PendingFull { .. } => "queue.pending_full",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Illegal { job, .. } => {
                format!("this is a defect of the host: report it with the journal of job {job}")
            }
            Self::PendingFull { .. } => {
                "submit again when some have ended, cancel what is not needed, or raise the queue's pending_max"
                    .to_owned()
            }
        }
    }
}
