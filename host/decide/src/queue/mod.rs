//! The queue's choices: which accepted job runs next, on which instance, and how a cancel proceeds. It holds
//! no arguments, results or rows, and starts nothing; the shell does what the returned effects say.
//!
//! Must hold after every event: lanes in use equal the attempts running, no instance is over its cap, a job is
//! in one place, and each submitted job ends exactly once ([`Queue::check_invariants`]).

mod explain;
mod invariants;
mod job;
mod ladder;
mod lines;
mod owner;
mod pool;
mod types;

pub use explain::{EXPLAIN_INSTANCES_MAX, Explanation, InstanceLoad, RunningOn};
pub use ladder::{BlockReason, SKIP_AHEAD_MAX};
pub use owner::Queue;
pub use types::{
    AttemptOutcome, CANCEL_GRACE_MS, CancelPhase, CancelReach, LANES_DEFAULT, NOT_TAKEN_MAX,
    PENDING_MAX_DEFAULT, QueueEffect, QueueError, QueueEvent, QueueLimits, QueuedJob, Start, StopReason,
    Target, cancel_grace, end_grace,
};
