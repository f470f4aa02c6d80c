//! Why a job waits or what it runs on, in numbers: the same rules and the same state that decide, asked for
//! one job. Nothing here changes anything.

use super::job::Life;
use super::ladder::{self, BlockReason};
use super::owner::Queue;
use super::types::{CancelPhase, Target};
use cjm_wire::event::JobStatus;
use cjm_wire::{CompositionId, InstanceId, JobId, WorkerSessionId};
use std::fmt;

/// Most instances an explanation lists.
pub const EXPLAIN_INSTANCES_MAX: usize = 16;

/// What is known of a job that has not ended. Its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The job.
    pub job: JobId,
    /// `pending` or `running`.
    pub status: JobStatus,
    /// Whom it is for.
    pub target: Target,
    /// Higher runs first.
    pub priority: i32,
    /// The composition it belongs to.
    pub composition: Option<CompositionId>,
    /// Since it was submitted.
    pub age_ms: u64,
    /// Pending: what its line waits for.
    pub block: Option<BlockReason>,
    /// Pending, at the head of its line: since when it waits for that. Behind others: `None`.
    pub blocked_ms: Option<u64>,
    /// Pending: how many jobs for the same target go first.
    pub ahead: usize,
    /// Running: where.
    pub running: Option<RunningOn>,
    /// How far its cancel has come.
    pub cancel_phase: CancelPhase,
    /// Attempts that run now.
    pub lanes_in_use: u32,
    /// Attempts that may.
    pub lanes_max: u32,
    /// Jobs that wait, for any target.
    pub pending: usize,
    /// Why nothing may start, while nothing may.
    pub admission_closed: Option<String>,
    /// What could run it, and how busy that is; at most [`EXPLAIN_INSTANCES_MAX`].
    pub instances: Vec<InstanceLoad>,
    /// Instances beyond those.
    pub instances_left_out: usize,
}

/// How busy an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceLoad {
    /// The instance.
    pub instance: InstanceId,
    /// Calls it works on.
    pub running: u32,
    /// Calls it takes at once.
    pub concurrency_max: u32,
    /// It is being killed and loaded again.
    pub reloading: bool,
}

/// Where a job runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningOn {
    /// The instance.
    pub instance: InstanceId,
    /// Its incarnation.
    pub session: WorkerSessionId,
    /// From 1.
    pub attempt: u32,
    /// For how long.
    pub for_ms: u64,
}

impl Queue {
    /// Explains a job; `None` when it is unknown or has ended (then the journal knows).
    #[must_use]
    pub fn explain(&self, id: &JobId, now_ms: u64) -> Option<Explanation> {
        let job = self.jobs.get(id)?;
        let (block, blocked_ms, ahead) = match &job.life {
            Life::Pending { key, block, .. } => {
                let reason = ladder::climb(&self.facts(&job.target)).reason();
                let ahead = self.lines.ahead_of(&job.target, *key);
                let since = block.filter(|block| ahead == 0 && Some(block.reason) == reason);
                (reason, since.map(|block| now_ms.saturating_sub(block.since_ms)), ahead)
            }
            Life::Running(_) | Life::Stopping { .. } | Life::Forcing { .. } => (None, None, 0),
        };
        let loads = self.pool.instances_for(&job.target).map(|(instance, state)| InstanceLoad {
            instance: instance.clone(),
            running: state.load(),
            concurrency_max: state.concurrency_max,
            reloading: state.recycle.is_some(),
        });
        Some(Explanation {
            job: id.clone(),
            status: job.life.status(),
            target: job.target.clone(),
            priority: job.priority,
            composition: job.composition.clone(),
            age_ms: now_ms.saturating_sub(job.submitted_ms),
            block,
            blocked_ms,
            ahead,
            running: job.life.run().map(|run| RunningOn {
                instance: run.instance.clone(),
                session: run.session.clone(),
                attempt: run.attempt,
                for_ms: now_ms.saturating_sub(run.since_ms),
            }),
            cancel_phase: job.life.cancel_phase(),
            lanes_in_use: self.lanes_in_use,
            lanes_max: self.limits.lanes,
            pending: self.lines.len(),
            admission_closed: self.gate_closed.clone(),
            instances: loads.take(EXPLAIN_INSTANCES_MAX).collect(),
            instances_left_out: self
                .pool
                .instances_for(&job.target)
                .count()
                .saturating_sub(EXPLAIN_INSTANCES_MAX),
        })
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(run) = &self.running {
            write!(f, "runs on {} (attempt {}) for {}", run.instance, run.attempt, seconds(run.for_ms))?;
            return match self.cancel_phase {
                CancelPhase::None => Ok(()),
                CancelPhase::Cooperative => {
                    f.write_str("; the tool was asked to cancel and has not answered yet")
                }
                CancelPhase::Force | CancelPhase::Reloading | CancelPhase::Completed => f.write_str(
                    "; it did not answer a cancel in time, so its instance is being killed and reloaded",
                ),
            };
        }
        write!(f, "waits for {}", seconds(self.age_ms))?;
        match self.block {
            None => f.write_str(", next in turn")?,
            Some(reason) => {
                f.write_str(": ")?;
                self.write_block(reason, f)?;
            }
        }
        if let Some(blocked_ms) = self.blocked_ms {
            write!(f, " (since {})", seconds(blocked_ms))?;
        }
        match self.ahead {
            0 => Ok(()),
            1 => write!(f, "; 1 job for the same {} goes first", self.target),
            many => write!(f, "; {many} jobs for the same {} go first", self.target),
        }
    }
}

impl Explanation {
    fn write_block(&self, reason: BlockReason, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match reason {
            BlockReason::NoInstance => match &self.target {
                Target::Capability(name) => write!(f, "no instance of {name} is loaded"),
                Target::Instance(instance) => write!(f, "instance {instance} is not loaded"),
            },
            BlockReason::InstanceReloading => write!(f, "{} is being reloaded after a kill", self.target),
            BlockReason::InstanceBusy => {
                write!(f, "{} is busy (", self.target)?;
                for (place, load) in self.instances.iter().enumerate() {
                    let comma = if place == 0 { "" } else { ", " };
                    write!(f, "{comma}{} runs {} of {}", load.instance, load.running, load.concurrency_max)?;
                }
                if self.instances_left_out > 0 {
                    write!(f, ", and {} more", self.instances_left_out)?;
                }
                f.write_str(")")
            }
            BlockReason::AdmissionClosed => {
                write!(f, "nothing may start: {}", self.admission_closed.as_deref().unwrap_or("closed"))
            }
            BlockReason::LanesFull => {
                write!(f, "all lanes are in use ({} of {})", self.lanes_in_use, self.lanes_max)
            }
        }
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
