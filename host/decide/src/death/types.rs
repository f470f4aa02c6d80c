//! What is known of a death, and what it is held to be. Plain data.

use cjm_wire::JobId;
use cjm_wire::error::ErrorCategory;
use cjm_wire::link::ExitStatus;

/// Where the instance was in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifePhase {
    /// Not ready yet.
    Starting,
    /// Ready, nothing to do.
    Idle,
    /// At least one call in flight.
    Calling,
    /// Told to end.
    Stopping,
}

impl LifePhase {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Starting => "while it started",
            Self::Idle => "while it was idle",
            Self::Calling => "in the middle of a call",
            Self::Stopping => "while it was being stopped",
        }
    }
}

/// Why the host ended it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnKill {
    /// It was unloaded.
    Unload,
    /// The host itself ends.
    HostShutdown,
    /// A job's cancel was not answered in time.
    ForceCancel {
        /// The job.
        job: JobId,
    },
    /// Its place was needed.
    Evicted,
    /// It was not ready in time.
    StartTimeout {
        /// How long it had.
        limit_ms: u64,
    },
    /// It no longer answered.
    Unresponsive,
    /// Its socket was removed by somebody, and it could be called no more.
    SocketGone,
    /// It did not come to its first call: what the tool said, or what was found out about it.
    StartFailed {
        /// Why.
        why: String,
    },
    /// A call ran past its deadline.
    Deadline {
        /// The job.
        job: JobId,
    },
}

/// What happened since the present phase began: the start, the last load, or the first of the calls in flight. Its name
/// is its rule: a complaint about an earlier call, or the time since the worker was started, would mislead.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SincePhaseBegan {
    /// Last lines of output, newest last.
    pub output: Vec<String>,
    /// How long ago that was.
    pub elapsed_ms: u64,
}

/// What the kernel can say about memory at the time of the death.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvidence {
    /// By how much the kernel's count of processes killed for lack of memory (`oom_kill` in `/proc/vmstat`) grew since
    /// the phase began.
    pub oom_kill_delta: Option<u64>,
    /// MB (2^20 bytes) of memory that were available when the death was seen (`MemAvailable`).
    pub available_memory_mb: Option<u64>,
}

/// What is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The host's own doing, from its ledger, entered before the signal was sent.
    pub own_kill: Option<OwnKill>,
    /// Our own shim ended the tool because it broke the protocol: how it did.
    pub protocol_fault: Option<String>,
    /// The worker says that a signal told it to end; the host sends it none.
    pub signalled: Option<i32>,
    /// The keeper is gone, and with it every worker.
    pub keeper_lost: bool,
    /// Wait status of the worker process (the shim, or a tool that is its own worker).
    pub worker: Option<ExitStatus>,
    /// Wait status of the tool, where it is a process of its own and its worker reported it.
    pub tool: Option<ExitStatus>,
    /// Where the instance was.
    pub phase: LifePhase,
    /// What the worker said about a tool that it could not load.
    pub load_failure: Option<String>,
    /// What happened in that phase.
    pub since_phase_began: SincePhaseBegan,
    /// What the kernel says about memory.
    pub memory: MemoryEvidence,
}

impl Evidence {
    /// Nothing is known but where it was, and what happened since that began.
    #[must_use]
    pub fn new(phase: LifePhase, since_phase_began: SincePhaseBegan) -> Self {
        Self {
            own_kill: None,
            protocol_fault: None,
            signalled: None,
            keeper_lost: false,
            worker: None,
            tool: None,
            phase,
            load_failure: None,
            since_phase_began,
            memory: MemoryEvidence::default(),
        }
    }
}

/// What it died of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The host ended it.
    HostKill {
        /// Why.
        reason: OwnKill,
    },
    /// The host ended it because it was not ready in time.
    NeverReady {
        /// How long it had.
        limit_ms: u64,
    },
    /// The keeper is gone.
    KeeperLost,
    /// The tool could not be loaded.
    LoadFailed {
        /// What it said.
        message: String,
    },
    /// Our shim ended the tool because it broke the protocol.
    Protocol {
        /// How it did.
        fault: String,
    },
    /// Memory ran out, or so it looks.
    SuspectedOom,
    /// A fault of its own.
    Crash {
        /// The signal.
        signal: i32,
    },
    /// A signal that is no sign of a fault, from outside or sent to itself.
    Killed {
        /// The signal.
        signal: i32,
        /// Of a SIGKILL: how many MB were free, so that it was not for lack of memory.
        free_mb: Option<u64>,
    },
    /// A signal to its worker, which ended the tool in good order.
    Signalled {
        /// The signal.
        signal: i32,
    },
    /// It ended itself.
    Exit {
        /// Its code.
        code: i32,
    },
    /// It is gone and nobody knows how.
    Vanished,
}

/// How sure a verdict is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// It fits, and so would other things.
    Suspected,
    /// There are signs of it.
    Likely,
    /// It was seen.
    Certain,
}

impl Confidence {
    /// For rows and people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspected => "suspected",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What it died of.
    pub cause: Cause,
    /// How sure that is.
    pub confidence: Confidence,
    /// What it stands on, in words, most telling first.
    pub evidence: Vec<String>,
    /// Of the error that its calls end with.
    pub category: ErrorCategory,
    /// Whether the same call may be tried again.
    pub retriable: bool,
    /// Where it was.
    pub phase: LifePhase,
    /// A line of its output that speaks of memory. A word is no proof, so that it changes neither cause nor category.
    pub memory_hint: Option<String>,
    /// Last lines of output, newest last.
    pub stderr_tail: Vec<String>,
}

impl Cause {
    /// For rows: stable, snake case.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::HostKill { .. } => "host_kill",
            Self::NeverReady { .. } => "never_ready",
            Self::KeeperLost => "keeper_lost",
            Self::LoadFailed { .. } => "load_failed",
            Self::Protocol { .. } => "protocol",
            Self::SuspectedOom => "suspected_oom",
            Self::Crash { .. } => "crash",
            Self::Killed { .. } | Self::Signalled { .. } => "killed",
            Self::Exit { .. } => "exit",
            Self::Vanished => "vanished",
        }
    }
}
