//! Why a worker or tool is held to have died: a pure function over what is known, with the grounds it stands
//! on and how sure it is. What the host did itself is looked at first, so that its own kill never reads as
//! lack of memory; then what our shim did. A SIGKILL from outside is *suspected* lack of memory, unless the kernel says
//! otherwise: its counter proves it likely, plenty of free memory and a counter that stood still refute it. Words in the
//! output are a hint and never a proof.
//!
//! It gathers nothing: wait statuses, the ledger of own kills, the kernel's figures and the last output come from the
//! shell. More kernel evidence (`memory.events`, the kernel log) will be further fields and earlier rules.

use super::types::{Cause, Confidence, Evidence, LifePhase, MemoryEvidence, OwnKill, Verdict};
use super::words::{Ended, SIGKILL, Why, crash_name};
use cjm_wire::error::ErrorCategory;
use cjm_wire::link::ExitStatus;

/// Most lines of output a verdict looks at, newest last.
pub const TAIL_LINES_MAX: usize = 50;
/// Longest quotation of a line in the grounds, in characters.
const QUOTE_CHARS_MAX: usize = 200;
/// Available memory, in MB, from which nothing is killed for lack of it.
pub const PLENTY_FREE_MB: u64 = 1_024;

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

/// Judges. The order of the rules: the host's own doing, that of our shim, the keeper, what the worker said itself, the wait
/// status of the tool, that of the worker.
#[must_use]
pub fn verdict(evidence: &Evidence) -> Verdict {
    let output = &evidence.since_phase_began.output;
    let tail = &output[output.len().saturating_sub(TAIL_LINES_MAX)..];
    let status = telling_status(evidence);
    let (cause, confidence, grounds) = by_own_kill(evidence, status)
        .or_else(|| by_protocol_fault(evidence))
        .or_else(|| by_keeper(evidence))
        .or_else(|| by_signal(evidence))
        .or_else(|| by_load_failure(evidence, tail))
        .or_else(|| status.map(|(who, status)| by_status(who, status, evidence, tail)))
        .unwrap_or_else(|| {
            (Cause::Vanished, Confidence::Suspected, vec!["there is no wait status".to_owned()])
        });
    let mut all = grounds;
    for (who, status) in [("tool", evidence.tool), ("worker", evidence.worker)] {
        all.extend(status.map(|status| format!("{who}: {}", Ended(status))));
    }
    let memory_hint = memory_line(&cause, tail);
    all.extend(
        memory_hint
            .iter()
            .map(|line| format!("a hint and no proof, its output speaks of memory: \"{line}\"")),
    );
    all.push(format!(
        "{} ms after it began, {}",
        evidence.since_phase_began.elapsed_ms,
        evidence.phase.words()
    ));
    let category = category_of(&cause);
    Verdict {
        cause,
        confidence,
        evidence: all,
        category,
        retriable: category.retriable_by_default(),
        phase: evidence.phase,
        memory_hint,
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
    // What the host ended had failed by then: its own word says how.
    if let (OwnKill::StartFailed { .. }, Some(failed)) = (&reason, by_load_failure(evidence, &[])) {
        return Some(failed);
    }
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

/// The worker was told to end, by whomever, and ended its tool: whatever the wait statuses are, they follow from that.
fn by_signal(evidence: &Evidence) -> Option<Finding> {
    let signal = evidence.signalled?;
    let ground = format!("the worker says that signal {signal} told it to end, and the host did not send it");
    Some((Cause::Signalled { signal }, Confidence::Certain, vec![ground]))
}

fn by_protocol_fault(evidence: &Evidence) -> Option<Finding> {
    let fault = evidence.protocol_fault.as_deref().map(quote)?;
    let ground = format!("our shim ended the tool: {fault}");
    Some((Cause::Protocol { fault }, Confidence::Certain, vec![ground]))
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
    match status {
        ExitStatus::Signal(SIGKILL) => {
            let ground = format!("the {who} was killed by SIGKILL, and the host did not send it");
            by_outside_kill(ground, evidence.memory)
        }
        ExitStatus::Signal(signal) => match crash_name(signal) {
            Some(name) => {
                let ground = format!("the {who} ended by {name}, a fault of its own");
                (Cause::Crash { signal }, Confidence::Certain, vec![ground])
            }
            None => {
                let ground = format!("the {who} was ended by signal {signal}, and the host did not send it");
                (Cause::Killed { signal, free_mb: None }, Confidence::Certain, vec![ground])
            }
        },
        ExitStatus::Code(code) => by_code(who, code, evidence, tail),
    }
}

/// A SIGKILL that neither host nor shim sent: what the kernel says decides.
fn by_outside_kill(ground: String, memory: MemoryEvidence) -> Finding {
    let free = memory.available_memory_mb.map(|mb| format!("{mb} MB of memory were available"));
    let counter = memory.oom_kill_delta.map(|killed| match killed {
        0 => "the kernel's OOM counter stood still".to_owned(),
        killed => format!("the kernel killed {killed} process(es) for lack of memory meanwhile"),
    });
    let mut grounds = vec![ground];
    grounds.extend(counter);
    grounds.extend(free);
    match (memory.oom_kill_delta, memory.available_memory_mb) {
        (Some(1..), _) => (Cause::SuspectedOom, Confidence::Likely, grounds),
        (Some(0), Some(free_mb)) if free_mb >= PLENTY_FREE_MB => {
            (Cause::Killed { signal: SIGKILL, free_mb: Some(free_mb) }, Confidence::Certain, grounds)
        }
        // A guard in user space kills for lack of memory without the kernel's counter.
        _ => (Cause::SuspectedOom, Confidence::Suspected, grounds),
    }
}

fn by_code(who: &str, code: i32, evidence: &Evidence, tail: &[String]) -> Finding {
    // A shell reports the signal that ended its command as 128 plus its number.
    if code == 128 + SIGKILL {
        let ground = format!("the {who} exited with code {code}, as a shell does whose command got SIGKILL");
        let (cause, _, grounds) = by_outside_kill(ground, evidence.memory);
        // A program may exit with this number for reasons of its own.
        return (cause, Confidence::Suspected, grounds);
    }
    if let Some(name) = crash_name(code - 128) {
        let ground = format!("the {who} exited with code {code}, as a shell does whose command got {name}");
        return (Cause::Crash { signal: code - 128 }, Confidence::Likely, vec![ground]);
    }
    if evidence.phase == LifePhase::Starting {
        let said = tail.iter().rev().find(|line| !line.trim().is_empty());
        let said = said.map_or_else(|| "it said nothing".to_owned(), |line| quote(line));
        let ground = format!("the {who} exited with code {code} before it was ready");
        return (Cause::LoadFailed { message: said }, Confidence::Likely, vec![ground]);
    }
    (Cause::Exit { code }, Confidence::Certain, vec![format!("the {who} exited by itself with code {code}")])
}

/// The newest line that speaks of memory, where the cause leaves open what was behind it.
fn memory_line(cause: &Cause, tail: &[String]) -> Option<String> {
    match cause {
        Cause::Exit { code: 0 }
        | Cause::HostKill { .. }
        | Cause::NeverReady { .. }
        | Cause::KeeperLost
        | Cause::Signalled { .. }
        | Cause::Protocol { .. } => return None,
        Cause::LoadFailed { .. }
        | Cause::SuspectedOom
        | Cause::Crash { .. }
        | Cause::Killed { .. }
        | Cause::Exit { .. }
        | Cause::Vanished => {}
    }
    let speaks = |line: &&String| {
        let line = line.to_lowercase();
        MEMORY_WORDS.iter().any(|word| line.contains(word))
    };
    tail.iter().rev().find(speaks).map(|line| quote(line))
}

/// As the ancestor has it: lack of memory is a resource error, every other death transient; what cannot be
/// loaded, or breaks the protocol, will do so again.
fn category_of(cause: &Cause) -> ErrorCategory {
    match cause {
        Cause::SuspectedOom => ErrorCategory::Resource,
        Cause::LoadFailed { .. } | Cause::Protocol { .. } => ErrorCategory::Fatal,
        Cause::HostKill { .. }
        | Cause::NeverReady { .. }
        | Cause::KeeperLost
        | Cause::Crash { .. }
        | Cause::Killed { .. }
        | Cause::Signalled { .. }
        | Cause::Exit { .. }
        | Cause::Vanished => ErrorCategory::Transient,
    }
}

fn quote(line: &str) -> String {
    line.trim().chars().take(QUOTE_CHARS_MAX).collect()
}
