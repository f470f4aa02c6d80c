//! Why a worker or tool is held to have died: a pure function over what is known, with the grounds it stands
//! on and how sure it is. What the host did itself is looked at first, so that its own kill never reads as
//! lack of memory; a SIGKILL from outside without proof is *suspected* lack of memory and takes that path.
//!
//! It gathers nothing: wait statuses, the ledger of own kills and the last output come from the shell. Kernel
//! evidence (`memory.events`, the kernel log) will be further fields of [`Evidence`] and earlier rules.

use cjm_wire::JobId;
use cjm_wire::describe::{Described, exit};
use cjm_wire::error::ErrorCategory;
use cjm_wire::link::ExitStatus;
use std::fmt;

/// Most lines of output a verdict looks at, newest last.
pub const TAIL_LINES_MAX: usize = 50;
/// Longest quotation of a line in the grounds, in characters.
const QUOTE_CHARS_MAX: usize = 200;

const SIGKILL: i32 = 9;

/// Signals by which a process ends itself through a fault of its own.
const CRASH_SIGNALS: [(i32, &str); 7] = [
    (4, "SIGILL"),
    (5, "SIGTRAP"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (11, "SIGSEGV"),
    (31, "SIGSYS"),
];

/// What allocators and runtimes print when memory is out, in lower case.
const MEMORY_WORDS: [&str; 7] = [
    "memoryerror",
    "std::bad_alloc",
    "memory allocation of",
    "cannot allocate memory",
    "out of memory",
    "outofmemoryerror",
    "oom-kill",
];

/// What the worker prints when its tool cannot be loaded (the ancestor's words).
const LOAD_FAILURE_PREFIX: &str = "FATAL: Failed to load";

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
    fn words(self) -> &'static str {
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
    /// A call ran past its deadline.
    Deadline {
        /// The job.
        job: JobId,
    },
}

/// What is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The host's own doing, from its ledger, entered before the signal was sent.
    pub own_kill: Option<OwnKill>,
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
    /// Last lines of standard error since the phase began, newest last: an older complaint would mislead.
    pub stderr_tail: Vec<String>,
    /// Since the phase began.
    pub elapsed_ms: u64,
}

impl Evidence {
    /// Nothing is known but where it was.
    #[must_use]
    pub fn new(phase: LifePhase) -> Self {
        Self {
            own_kill: None,
            keeper_lost: false,
            worker: None,
            tool: None,
            phase,
            load_failure: None,
            stderr_tail: Vec::new(),
            elapsed_ms: 0,
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
    /// Memory ran out, or so it looks.
    SuspectedOom,
    /// A fault of its own.
    Crash {
        /// The signal.
        signal: i32,
    },
    /// A signal from outside that is no sign of a fault.
    Killed {
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
    /// Last lines of standard error, newest last.
    pub stderr_tail: Vec<String>,
}

/// Judges. The order of the rules: the host's own doing, the keeper, what the worker said itself, the wait
/// status of the tool, that of the worker.
#[must_use]
pub fn verdict(evidence: &Evidence) -> Verdict {
    let tail_start = evidence.stderr_tail.len().saturating_sub(TAIL_LINES_MAX);
    let tail = &evidence.stderr_tail[tail_start..];
    let status = telling_status(evidence);
    let (cause, confidence, grounds) = by_own_kill(evidence, status)
        .or_else(|| by_keeper(evidence))
        .or_else(|| by_load_failure(evidence, tail))
        .or_else(|| status.map(|(who, status)| by_status(who, status, evidence, tail)))
        .unwrap_or_else(|| {
            (Cause::Vanished, Confidence::Suspected, vec!["there is no wait status".to_owned()])
        });
    let mut all = grounds;
    for (who, status) in [("tool", evidence.tool), ("worker", evidence.worker)] {
        all.extend(status.map(|status| format!("{who}: {}", Ended(status))));
    }
    all.push(format!("{} ms, {}", evidence.elapsed_ms, evidence.phase.words()));
    let category = category_of(&cause);
    Verdict {
        cause,
        confidence,
        evidence: all,
        category,
        retriable: category.retriable_by_default(),
        phase: evidence.phase,
        stderr_tail: tail.to_vec(),
    }
}

type Finding = (Cause, Confidence, Vec<String>);

/// The tool's own status says more than the worker's: it was told by a worker that outlived the tool.
fn telling_status(evidence: &Evidence) -> Option<(&'static str, ExitStatus)> {
    evidence.tool.map(|status| ("tool", status)).or_else(|| evidence.worker.map(|status| ("worker", status)))
}

fn by_own_kill(evidence: &Evidence, status: Option<(&'static str, ExitStatus)>) -> Option<Finding> {
    let reason = evidence.own_kill.clone()?;
    // A fault of its own can come before the signal that the host had just noted down.
    if let Some((_, ExitStatus::Signal(signal))) = status
        && crash_name(signal).is_some()
    {
        let ground =
            format!("the host was ending it ({}), but no signal of the host does this", Why(&reason));
        return Some((Cause::Crash { signal }, Confidence::Likely, vec![ground]));
    }
    let ground = format!("the host ended it: {}", Why(&reason));
    let cause = match reason {
        OwnKill::StartTimeout { limit_ms } => Cause::NeverReady { limit_ms },
        reason => Cause::HostKill { reason },
    };
    Some((cause, Confidence::Certain, vec![ground]))
}

fn by_keeper(evidence: &Evidence) -> Option<Finding> {
    let ground = "the keeper is gone; every worker is cleared with it".to_owned();
    evidence.keeper_lost.then_some((Cause::KeeperLost, Confidence::Certain, vec![ground]))
}

fn by_load_failure(evidence: &Evidence, tail: &[String]) -> Option<Finding> {
    if let Some(message) = &evidence.load_failure {
        let cause = Cause::LoadFailed { message: message.clone() };
        return Some((cause, Confidence::Certain, vec!["the worker said so".to_owned()]));
    }
    if evidence.phase != LifePhase::Starting {
        return None;
    }
    let line = tail.iter().rev().find(|line| line.trim_start().starts_with(LOAD_FAILURE_PREFIX))?;
    let cause = Cause::LoadFailed { message: quote(line) };
    Some((cause, Confidence::Certain, vec!["its output says so".to_owned()]))
}

fn by_status(who: &str, status: ExitStatus, evidence: &Evidence, tail: &[String]) -> Finding {
    let memory_line = tail.iter().rev().find(|line| {
        let line = line.to_lowercase();
        MEMORY_WORDS.iter().any(|word| line.contains(word))
    });
    let says_memory = |line: &String| format!("its last output speaks of memory: \"{}\"", quote(line));
    match status {
        ExitStatus::Signal(SIGKILL) => {
            let mut grounds = vec![format!("the {who} was killed by SIGKILL, and the host did not send it")];
            grounds.extend(memory_line.map(says_memory));
            let confidence = if memory_line.is_some() { Confidence::Likely } else { Confidence::Suspected };
            (Cause::SuspectedOom, confidence, grounds)
        }
        ExitStatus::Signal(signal) => match (crash_name(signal), memory_line) {
            (Some(name), Some(line)) => {
                let grounds = vec![says_memory(line), format!("the {who} ended itself by {name}")];
                (Cause::SuspectedOom, Confidence::Likely, grounds)
            }
            (Some(name), None) => {
                let ground = format!("the {who} ended by {name}, a fault of its own");
                (Cause::Crash { signal }, Confidence::Certain, vec![ground])
            }
            (None, _) => {
                let ground = format!("the {who} was ended by signal {signal}, and the host did not send it");
                (Cause::Killed { signal }, Confidence::Certain, vec![ground])
            }
        },
        ExitStatus::Code(code) => by_code(who, code, evidence, memory_line.map(says_memory)),
    }
}

fn by_code(who: &str, code: i32, evidence: &Evidence, says_memory: Option<String>) -> Finding {
    if let Some(ground) = says_memory.filter(|_| code != 0) {
        let grounds = vec![ground, format!("the {who} exited with code {code}")];
        return (Cause::SuspectedOom, Confidence::Likely, grounds);
    }
    // A shell reports the signal that ended its command as 128 plus its number.
    if code == 128 + SIGKILL {
        let ground = format!("the {who} exited with code {code}, as a shell does whose command got SIGKILL");
        return (Cause::SuspectedOom, Confidence::Suspected, vec![ground]);
    }
    if let Some(name) = crash_name(code - 128) {
        let ground = format!("the {who} exited with code {code}, as a shell does whose command got {name}");
        return (Cause::Crash { signal: code - 128 }, Confidence::Likely, vec![ground]);
    }
    if evidence.phase == LifePhase::Starting {
        let said = evidence.stderr_tail.iter().rev().find(|line| !line.trim().is_empty());
        let said = said.map_or_else(|| "it said nothing".to_owned(), |line| quote(line));
        let ground = format!("the {who} exited with code {code} before it was ready");
        return (Cause::LoadFailed { message: said }, Confidence::Likely, vec![ground]);
    }
    (Cause::Exit { code }, Confidence::Certain, vec![format!("the {who} exited by itself with code {code}")])
}

/// As the ancestor has it: lack of memory is a resource error, every other death transient; what cannot be
/// loaded will not be loadable later either.
fn category_of(cause: &Cause) -> ErrorCategory {
    match cause {
        Cause::SuspectedOom => ErrorCategory::Resource,
        Cause::LoadFailed { .. } => ErrorCategory::Fatal,
        Cause::HostKill { .. }
        | Cause::NeverReady { .. }
        | Cause::KeeperLost
        | Cause::Crash { .. }
        | Cause::Killed { .. }
        | Cause::Exit { .. }
        | Cause::Vanished => ErrorCategory::Transient,
    }
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
            Self::SuspectedOom => "suspected_oom",
            Self::Crash { .. } => "crash",
            Self::Killed { .. } => "killed",
            Self::Exit { .. } => "exit",
            Self::Vanished => "vanished",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = self.phase.words();
        match &self.cause {
            Cause::HostKill { reason } => write!(f, "ended by the host: {}", Why(reason)),
            Cause::NeverReady { limit_ms } => {
                write!(f, "not ready within {}.{} s", limit_ms / 1000, limit_ms % 1000 / 100)
            }
            Cause::KeeperLost => f.write_str("the keeper died, and all workers with it"),
            Cause::LoadFailed { message } => write!(f, "the tool could not be loaded: {message}"),
            Cause::SuspectedOom => {
                write!(f, "died {when}, for lack of memory ({})", self.confidence.as_str())
            }
            Cause::Crash { signal } => {
                write!(f, "crashed {when} ({})", crash_name(*signal).unwrap_or("unknown signal"))
            }
            Cause::Killed { signal } => write!(f, "was ended from outside {when} (signal {signal})"),
            Cause::Exit { code } => write!(f, "exited by itself {when}, with code {code}"),
            Cause::Vanished => write!(f, "vanished {when}"),
        }
    }
}

impl std::error::Error for Verdict {}

impl Described for Verdict {
    fn code(&self) -> &'static str {
        match self.cause {
            Cause::HostKill { .. } => "worker.host_kill",
            Cause::NeverReady { .. } => "worker.never_ready",
            Cause::KeeperLost => "worker.keeper_lost",
            Cause::LoadFailed { .. } => "worker.load_failed",
            Cause::SuspectedOom => "worker.suspected_oom",
            Cause::Crash { .. } => "worker.crash",
            Cause::Killed { .. } => "worker.killed",
            Cause::Exit { .. } => "worker.exit",
            Cause::Vanished => "worker.vanished",
        }
    }

    fn next_step(&self) -> String {
        let text = match &self.cause {
            Cause::HostKill { .. } => "call again: the instance is loaded anew",
            Cause::NeverReady { .. } => {
                "see its output for what it waited for; allow it more time to start if it only needs longer"
            }
            Cause::KeeperLost => "start the host again; if nobody ended the keeper, look for memory shortage",
            Cause::LoadFailed { .. } => {
                "correct what its output names (a missing module, file or program), then load it again"
            }
            Cause::SuspectedOom => {
                "look at free memory and at the kernel log; run less beside it, or give it smaller input"
            }
            Cause::Crash { .. } => "see its last output; a fault that repeats with this input is the tool's",
            Cause::Killed { .. } => "call again; if nobody sent that signal on purpose, find out who did",
            Cause::Exit { .. } => "see its last output: a tool must not exit while it is loaded",
            Cause::Vanished => "call again; `cjm-ctl logs --session` shows what it said last",
        };
        text.to_owned()
    }

    fn exit_code(&self) -> u8 {
        match self.phase {
            LifePhase::Starting => exit::WORKER_START,
            LifePhase::Idle | LifePhase::Calling | LifePhase::Stopping => exit::WORKER_DIED,
        }
    }

    fn stderr_tail(&self) -> Vec<String> {
        self.stderr_tail.clone()
    }
}

/// Words for a kill of the host's own.
struct Why<'a>(&'a OwnKill);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            OwnKill::Unload => f.write_str("unloaded"),
            OwnKill::HostShutdown => f.write_str("the host is shutting down"),
            OwnKill::ForceCancel { job } => {
                write!(f, "recycled for job {job}, whose cancel it did not answer")
            }
            OwnKill::Evicted => f.write_str("evicted to make room"),
            OwnKill::StartTimeout { limit_ms } => write!(f, "not ready within {limit_ms} ms"),
            OwnKill::Unresponsive => f.write_str("it no longer answered"),
            OwnKill::Deadline { job } => write!(f, "job {job} ran past its deadline"),
        }
    }
}

/// Words for a wait status.
struct Ended(ExitStatus);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ExitStatus::Code(code) => write!(f, "exit code {code}"),
            ExitStatus::Signal(SIGKILL) => f.write_str("SIGKILL"),
            ExitStatus::Signal(signal) => match crash_name(signal) {
                Some(name) => f.write_str(name),
                None => write!(f, "signal {signal}"),
            },
        }
    }
}

fn crash_name(signal: i32) -> Option<&'static str> {
    CRASH_SIGNALS.iter().find(|(known, _)| *known == signal).map(|(_, name)| *name)
}

fn quote(line: &str) -> String {
    line.trim().chars().take(QUOTE_CHARS_MAX).collect()
}
