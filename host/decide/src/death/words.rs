//! A verdict for people: what happened, and what to do about it.

use super::types::{Cause, Confidence, LifePhase, OwnKill, Verdict};
use cjm_wire::describe::{Described, Seconds, exit};
use cjm_wire::link::ExitStatus;
use std::fmt;
use std::time::Duration;

pub(super) const SIGKILL: i32 = 9;

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

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = self.phase.words();
        match &self.cause {
            Cause::HostKill { reason } => write!(f, "ended by the host: {}", Why(reason)),
            Cause::NeverReady { limit_ms } => {
                let reason = OwnKill::StartTimeout { limit_ms: *limit_ms };
                write!(f, "ended by the host: {}", Why(&reason))
            }
            Cause::KeeperLost => f.write_str("the keeper died, and all workers with it"),
            Cause::LoadFailed { message } => write!(f, "the tool could not be loaded: {message}"),
            Cause::Protocol { fault } => {
                write!(f, "broke the protocol {when}, and was ended for it: {fault}")
            }
            Cause::SuspectedOom if self.confidence == Confidence::Suspected => {
                write!(
                    f,
                    "was killed by SIGKILL {when}: by somebody, by itself, or by the kernel for lack of memory (suspected)"
                )
            }
            Cause::SuspectedOom => {
                write!(f, "died {when}, for lack of memory ({})", self.confidence.as_str())
            }
            Cause::Crash { signal } => {
                write!(f, "crashed {when} ({})", crash_name(*signal).unwrap_or("unknown signal"))
            }
            Cause::Killed { signal: SIGKILL, free_mb } => {
                write!(f, "was killed by SIGKILL {when}, from outside or by itself")?;
                match free_mb {
                    Some(mb) => write!(
                        f,
                        " (not for lack of memory: {mb} MB were free and the kernel's OOM counter stood still)"
                    ),
                    None => Ok(()),
                }
            }
            Cause::Killed { signal, .. } => {
                write!(f, "was ended by signal {signal} {when}, from outside or by itself")
            }
            Cause::Signalled { signal } => {
                write!(f, "was ended from outside {when}, by a signal to its worker (signal {signal})")
            }
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
            Cause::Protocol { .. } => "worker.protocol",
            Cause::SuspectedOom => "worker.suspected_oom",
            Cause::Crash { .. } => "worker.crash",
            Cause::Killed { .. } | Cause::Signalled { .. } => "worker.killed",
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
            Cause::KeeperLost => {
                "call again: the host starts another keeper by itself; if nobody ended this one, look for memory shortage"
            }
            Cause::LoadFailed { .. } => {
                "correct what its output names (a missing module, file or program), then load it again"
            }
            Cause::Protocol { .. } => {
                "the fault is in the tool or its adapter: correct what it writes to the runtime channel"
            }
            Cause::SuspectedOom if self.confidence == Confidence::Suspected => {
                "find out whether somebody sent the signal; if nobody did, look at free memory and the kernel log, and \
                 run less beside it or give it smaller input"
            }
            Cause::SuspectedOom => {
                "look at free memory and at the kernel log; run less beside it, or give it smaller input"
            }
            Cause::Killed { signal: SIGKILL, .. } => {
                "find out who sent it: a person, a script, a supervisor, a service manager; then call again"
            }
            Cause::Crash { .. } | Cause::Exit { .. } if self.memory_hint.is_some() => {
                "see its last output, which speaks of memory: if it ran short, run less beside it or give it smaller \
                 input; a fault that repeats with this input is the tool's"
            }
            Cause::Crash { .. } => "see its last output; a fault that repeats with this input is the tool's",
            Cause::Killed { .. } | Cause::Signalled { .. } => {
                "call again; if nobody sent that signal on purpose, find out who did"
            }
            Cause::Exit { .. } => "see its last output: a tool must not exit while it is loaded",
            Cause::Vanished => "call again; `cjm-ctl logs --chunks` shows what it said last",
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
pub(super) struct Why<'a>(pub(super) &'a OwnKill);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            OwnKill::Unload => f.write_str("unloaded"),
            OwnKill::HostShutdown => f.write_str("the host is shutting down"),
            OwnKill::ForceCancel { job } => {
                write!(f, "recycled for job {job}, whose cancel it did not answer")
            }
            OwnKill::Evicted => f.write_str("evicted to make room"),
            OwnKill::StartTimeout { limit_ms } => {
                write!(f, "not ready within {}", Seconds(Duration::from_millis(*limit_ms)))
            }
            OwnKill::StartFailed { why } => write!(f, "its start failed: {why}"),
            OwnKill::Unresponsive => f.write_str("it no longer answered"),
            OwnKill::SocketGone => f.write_str("its socket was removed, and nothing reached it any more"),
            OwnKill::Deadline { job } => write!(f, "job {job} ran past its deadline"),
        }
    }
}

/// Words for a wait status.
pub(super) struct Ended(pub(super) ExitStatus);

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

/// The name of a signal that a process gets through a fault of its own.
pub(super) fn crash_name(signal: i32) -> Option<&'static str> {
    CRASH_SIGNALS.iter().find(|(known, _)| *known == signal).map(|(_, name)| *name)
}
