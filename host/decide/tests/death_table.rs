//! The table of verdicts: what was seen, what it is held to be, how sure, and who can do something about it.

use Confidence::{Certain, Likely, Suspected};
use LifePhase::{Calling, Idle, Starting, Stopping};
use cjm_decide::death::{Cause, Confidence, Evidence, LifePhase, OwnKill, verdict};
use cjm_wire::describe::ErrorReport;
use cjm_wire::error::ErrorCategory::{self, Fatal, Resource, Transient};
use cjm_wire::ids::JobId;
use cjm_wire::link::ExitStatus::{Code, Signal};

fn check(evidence: &Evidence, cause: &Cause, confidence: Confidence, category: ErrorCategory) {
    let found = verdict(evidence);
    assert_eq!(
        (&found.cause, found.confidence, found.category),
        (cause, confidence, category),
        "{evidence:?} → {found:?}"
    );
    assert_eq!(found.retriable, category != Fatal);
    assert!(found.evidence.len() >= 2, "a verdict names its grounds: {found:?}");
    let report = ErrorReport::of(&found);
    assert!(!report.next_step.is_empty() && report.code.starts_with("worker."));
    assert_eq!(report.exit_code, if evidence.phase == Starting { 10 } else { 11 });
}

fn at(phase: LifePhase) -> Evidence {
    Evidence { elapsed_ms: 1_200, ..Evidence::new(phase) }
}

fn said(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

#[test]
fn what_the_host_did_itself_never_reads_as_lack_of_memory() {
    let force = OwnKill::ForceCancel { job: JobId::from_text("j7") };
    let memory = said(&["MemoryError"]);
    for own in [
        OwnKill::Unload,
        OwnKill::HostShutdown,
        force.clone(),
        OwnKill::Evicted,
        OwnKill::Unresponsive,
        OwnKill::Deadline { job: JobId::from_text("j7") },
    ] {
        for phase in [Starting, Idle, Calling, Stopping] {
            for status in
                [None, Some(Signal(9)), Some(Signal(15)), Some(Code(0)), Some(Code(137)), Some(Code(1))]
            {
                for (worker, tool) in [(status, None), (None, status), (status, status)] {
                    let evidence = Evidence {
                        own_kill: Some(own.clone()),
                        worker,
                        tool,
                        stderr_tail: memory.clone(),
                        ..at(phase)
                    };
                    check(&evidence, &Cause::HostKill { reason: own.clone() }, Certain, Transient);
                }
            }
        }
    }
    let sibling = verdict(&Evidence { own_kill: Some(force), worker: Some(Signal(9)), ..at(Calling) });
    assert_eq!(sibling.to_string(), "ended by the host: recycled for job j7, whose cancel it did not answer");
}

#[test]
fn a_kill_from_outside_is_suspected_to_be_for_memory() {
    for phase in [Starting, Idle, Calling, Stopping] {
        for (worker, tool) in
            [(None, Some(Signal(9))), (Some(Signal(9)), None), (Some(Signal(9)), Some(Signal(9)))]
        {
            let silent = Evidence { worker, tool, ..at(phase) };
            check(&silent, &Cause::SuspectedOom, Suspected, Resource);
            let spoken = Evidence { stderr_tail: said(&["x", "Cannot allocate memory", "y"]), ..silent };
            check(&spoken, &Cause::SuspectedOom, Likely, Resource);
        }
    }
    check(&Evidence { tool: Some(Code(137)), ..at(Calling) }, &Cause::SuspectedOom, Suspected, Resource);
}

#[test]
fn words_about_memory_turn_an_own_end_into_lack_of_memory() {
    for line in [
        "MemoryError",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "memory allocation of 8589934592 bytes failed",
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    ] {
        for status in [Signal(6), Code(1), Code(134)] {
            let evidence = Evidence { tool: Some(status), stderr_tail: said(&[line]), ..at(Calling) };
            check(&evidence, &Cause::SuspectedOom, Likely, Resource);
        }
    }
    let fine = Evidence { tool: Some(Code(0)), stderr_tail: said(&["MemoryError"]), ..at(Calling) };
    check(&fine, &Cause::Exit { code: 0 }, Certain, Transient);
}

#[test]
fn faults_signals_and_exits() {
    for signal in [4, 5, 6, 7, 8, 11, 31] {
        for phase in [Starting, Idle, Calling] {
            let tool = Evidence { tool: Some(Signal(signal)), worker: Some(Code(0)), ..at(phase) };
            check(&tool, &Cause::Crash { signal }, Certain, Transient);
        }
        let shell = Evidence { tool: Some(Code(128 + signal)), ..at(Calling) };
        check(&shell, &Cause::Crash { signal }, Likely, Transient);
        // It crashed by itself in the moment in which it was to be ended.
        let stopped =
            Evidence { own_kill: Some(OwnKill::Unload), worker: Some(Signal(signal)), ..at(Stopping) };
        check(&stopped, &Cause::Crash { signal }, Likely, Transient);
    }
    for signal in [1, 2, 15] {
        let killed = Evidence { worker: Some(Signal(signal)), ..at(Idle) };
        check(&killed, &Cause::Killed { signal }, Certain, Transient);
    }
    for code in [0, 1, 3, 255] {
        let exited = Evidence { tool: Some(Code(code)), ..at(Calling) };
        check(&exited, &Cause::Exit { code }, Certain, Transient);
    }
    check(&at(Calling), &Cause::Vanished, Suspected, Transient);
}

#[test]
fn starts_that_fail() {
    let waited = Evidence {
        own_kill: Some(OwnKill::StartTimeout { limit_ms: 30_000 }),
        worker: Some(Signal(9)),
        ..at(Starting)
    };
    check(&waited, &Cause::NeverReady { limit_ms: 30_000 }, Certain, Transient);
    assert_eq!(verdict(&waited).to_string(), "not ready within 30.0 s");

    let told = Evidence { load_failure: Some("no module x".into()), worker: Some(Code(1)), ..at(Starting) };
    check(&told, &Cause::LoadFailed { message: "no module x".into() }, Certain, Fatal);

    let fatal = "FATAL: Failed to load m:C - No module named 'torch'";
    let printed =
        Evidence { worker: Some(Code(1)), stderr_tail: said(&["Traceback", fatal, "bye"]), ..at(Starting) };
    check(&printed, &Cause::LoadFailed { message: fatal.into() }, Certain, Fatal);

    let left = Evidence { tool: Some(Code(1)), stderr_tail: said(&["ImportError: x", " "]), ..at(Starting) };
    check(&left, &Cause::LoadFailed { message: "ImportError: x".into() }, Likely, Fatal);
    let silent = Evidence { tool: Some(Code(0)), ..at(Starting) };
    check(&silent, &Cause::LoadFailed { message: "it said nothing".into() }, Likely, Fatal);
}

#[test]
fn without_the_keeper_all_workers_count_as_dead() {
    for status in [None, Some(Signal(9))] {
        let evidence = Evidence { keeper_lost: true, worker: status, ..at(Calling) };
        check(&evidence, &Cause::KeeperLost, Certain, Transient);
    }
}
