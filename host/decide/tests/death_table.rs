//! The table of verdicts: what was seen, what it is held to be, how sure, and who can do something about it.

use Confidence::{Certain, Likely, Suspected};
use LifePhase::{Calling, Idle, Starting, Stopping};
use cjm_decide::death::{
    Cause, Confidence, Evidence, LifePhase, MemoryEvidence, OwnKill, PLENTY_FREE_MB, SincePhaseBegan,
    TAIL_LINES_MAX, verdict,
};
use cjm_wire::describe::{Described, ErrorReport};
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
    Evidence::new(phase, SincePhaseBegan { output: Vec::new(), elapsed_ms: 1_200 })
}

/// [`at`], with last lines.
fn said(phase: LifePhase, lines: &[&str]) -> Evidence {
    let output = lines.iter().map(|line| (*line).to_owned()).collect();
    Evidence::new(phase, SincePhaseBegan { output, elapsed_ms: 1_200 })
}

fn killed(signal: i32) -> Cause {
    Cause::Killed { signal, free_mb: None }
}

#[test]
fn what_the_host_did_itself_never_reads_as_lack_of_memory() {
    let force = OwnKill::ForceCancel { job: JobId::from_text("j7") };
    for own in [
        OwnKill::Unload,
        OwnKill::HostShutdown,
        force.clone(),
        OwnKill::Evicted,
        OwnKill::StartFailed { why: "x".to_owned() },
        OwnKill::Unresponsive,
        OwnKill::SocketGone,
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
                        ..said(phase, &["MemoryError"])
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
fn an_own_kill_is_judged_before_the_keepers_loss_and_before_the_shims_word() {
    for fault in [None, Some("an unknown frame".to_owned())] {
        let evidence = Evidence {
            own_kill: Some(OwnKill::HostShutdown),
            protocol_fault: fault,
            keeper_lost: true,
            worker: Some(Signal(9)),
            ..at(Stopping)
        };
        check(&evidence, &Cause::HostKill { reason: OwnKill::HostShutdown }, Certain, Transient);
    }
}

#[test]
fn a_signal_to_the_worker_is_the_cause_whatever_it_left_behind() {
    for (worker, tool) in [
        (Some(Code(0)), None),
        (Some(Code(24)), None),
        (Some(Code(0)), Some(Code(0))),
        (Some(Code(24)), Some(Signal(9))),
    ] {
        for signal in [2, 15] {
            let signalled = Some(signal);
            let evidence = Evidence { worker, tool, signalled, ..said(Calling, &["MemoryError"]) };
            check(&evidence, &Cause::Signalled { signal }, Certain, Transient);
            let found = verdict(&evidence);
            let words = format!("in the middle of a call, by a signal to its worker (signal {signal})");
            assert!(found.to_string().ends_with(&words), "{found}");
            assert_eq!(
                (found.code(), found.cause.as_str(), found.memory_hint),
                ("worker.killed", "killed", None)
            );
            let own = Some(OwnKill::Unload);
            let unloaded = Evidence { own_kill: own, worker, tool, signalled, ..at(Stopping) };
            check(&unloaded, &Cause::HostKill { reason: OwnKill::Unload }, Certain, Transient);
        }
    }
}

#[test]
fn a_tool_that_broke_the_protocol_did_not_die_of_memory() {
    let fault = "it announced a frame of 4294967295 bytes";
    for status in [None, Some(Signal(9)), Some(Code(137))] {
        for keeper_lost in [false, true] {
            let evidence = Evidence {
                protocol_fault: Some(fault.to_owned()),
                keeper_lost,
                tool: status,
                ..said(Calling, &["MemoryError"])
            };
            check(&evidence, &Cause::Protocol { fault: fault.to_owned() }, Certain, Fatal);
            let found = verdict(&evidence);
            assert_eq!(
                found.to_string(),
                format!("broke the protocol in the middle of a call, and was ended for it: {fault}")
            );
            assert!(found.next_step().contains("runtime channel"), "{}", found.next_step());
            assert_eq!((found.code(), found.memory_hint), ("worker.protocol", None));
        }
    }
}

/// What the kernel says: counter, free memory.
fn kernel(oom_kill_delta: Option<u64>, available_memory_mb: Option<u64>) -> MemoryEvidence {
    MemoryEvidence { oom_kill_delta, available_memory_mb }
}

#[test]
fn a_kill_from_outside_is_for_memory_as_far_as_the_kernel_says_so() {
    let plenty = Some(PLENTY_FREE_MB);
    let exonerated = Cause::Killed { signal: 9, free_mb: plenty };
    let oom = Cause::SuspectedOom;
    for phase in [Starting, Idle, Calling, Stopping] {
        for (worker, tool) in
            [(None, Some(Signal(9))), (Some(Signal(9)), None), (Some(Signal(9)), Some(Signal(9)))]
        {
            for (memory, cause, confidence, category) in [
                (kernel(None, None), &oom, Suspected, Resource),
                (kernel(None, Some(0)), &oom, Suspected, Resource),
                (kernel(None, plenty), &oom, Suspected, Resource),
                (kernel(Some(0), None), &oom, Suspected, Resource),
                // A guard in user space may have done it.
                (kernel(Some(0), Some(PLENTY_FREE_MB - 1)), &oom, Suspected, Resource),
                (kernel(Some(1), None), &oom, Likely, Resource),
                (kernel(Some(2), plenty), &oom, Likely, Resource),
                (kernel(Some(0), plenty), &exonerated, Certain, Transient),
            ] {
                let evidence = Evidence { worker, tool, memory, ..at(phase) };
                check(&evidence, cause, confidence, category);
                // Words change nothing of it.
                let spoken = said(phase, &["x", "Cannot allocate memory", "y"]);
                let spoken = Evidence { since_phase_began: spoken.since_phase_began, ..evidence };
                check(&spoken, cause, confidence, category);
                assert_eq!(verdict(&spoken).memory_hint, Some("Cannot allocate memory".to_owned()));
            }
        }
    }
    let shell = |memory| Evidence { tool: Some(Code(137)), memory, ..at(Calling) };
    check(&shell(kernel(None, None)), &oom, Suspected, Resource);
    check(&shell(kernel(Some(1), None)), &oom, Suspected, Resource);
    check(&shell(kernel(Some(0), plenty)), &exonerated, Suspected, Transient);
}

#[test]
fn a_kill_from_outside_is_told_with_what_speaks_for_and_against() {
    let with = |memory| verdict(&Evidence { tool: Some(Signal(9)), memory, ..at(Calling) });
    let refuted = with(kernel(Some(0), Some(20_000)));
    assert_eq!(
        refuted.to_string(),
        "was killed by SIGKILL in the middle of a call, from outside or by itself (not for lack of memory: 20000 MB were free and \
         the kernel's OOM counter stood still)"
    );
    assert!(refuted.next_step().contains("who sent it"));
    let unknown = with(kernel(None, None));
    assert_eq!(
        unknown.to_string(),
        "was killed by SIGKILL in the middle of a call: by somebody, by itself, or by the kernel for lack of memory \
         (suspected)"
    );
    assert!(unknown.next_step().starts_with("find out whether somebody sent the signal"));
    let proved = with(kernel(Some(3), Some(5)));
    assert_eq!(proved.to_string(), "died in the middle of a call, for lack of memory (likely)");
    assert_eq!(
        proved.evidence,
        [
            "the tool was killed by SIGKILL, and the host did not send it",
            "the kernel killed 3 process(es) for lack of memory meanwhile",
            "5 MB of memory were available",
            "tool: SIGKILL",
            "1200 ms after it began, in the middle of a call",
        ]
    );
    assert!(proved.next_step().starts_with("look at free memory"));
}

#[test]
fn words_about_memory_are_a_hint_and_change_no_cause() {
    for line in [
        "MemoryError",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "memory allocation of 8589934592 bytes failed",
        "sh: fork: Cannot allocate memory",
        "CUDA ran out of memory. Tried to allocate 2.00 GiB",
        "torch.OutOfMemoryError",
        "constraint=CONSTRAINT_MEMCG oom-kill:",
    ] {
        for (status, cause, confidence) in [
            (Signal(6), Cause::Crash { signal: 6 }, Certain),
            (Code(1), Cause::Exit { code: 1 }, Certain),
            (Code(3), Cause::Exit { code: 3 }, Certain),
            (Code(134), Cause::Crash { signal: 6 }, Likely),
            (Signal(15), killed(15), Certain),
        ] {
            let evidence = Evidence { tool: Some(status), ..said(Calling, &["a", line, "b"]) };
            check(&evidence, &cause, confidence, Transient);
            let found = verdict(&evidence);
            assert_eq!(found.memory_hint.as_deref(), Some(line));
            let ground = format!("a hint and no proof, its output speaks of memory: \"{line}\"");
            assert!(found.evidence.contains(&ground), "{found:?}");
            if !matches!(status, Signal(15)) {
                assert!(found.next_step().contains("if it ran short"), "{}", found.next_step());
            }
        }
    }
    // A good end needs no explanation, and what is not about memory is no hint.
    for (status, line) in [(Code(0), "MemoryError"), (Code(1), "room for 3 GiB"), (Signal(6), "out of range")]
    {
        let evidence = Evidence { tool: Some(status), ..said(Calling, &[line]) };
        assert_eq!(verdict(&evidence).memory_hint, None, "{line}");
    }
}

#[test]
fn as_many_lines_are_looked_at_as_the_maximum_says() {
    let mut lines = vec!["MemoryError"];
    lines.extend(vec!["."; TAIL_LINES_MAX - 1]);
    let exactly = verdict(&Evidence { tool: Some(Code(1)), ..said(Calling, &lines) });
    assert_eq!((exactly.stderr_tail.len(), exactly.memory_hint.is_some()), (TAIL_LINES_MAX, true));
    lines.push(".");
    let beyond = verdict(&Evidence { tool: Some(Code(1)), ..said(Calling, &lines) });
    assert_eq!((beyond.stderr_tail.len(), beyond.memory_hint.is_some()), (TAIL_LINES_MAX, false));
    // Enough for a traceback.
    assert_eq!(TAIL_LINES_MAX, 50);
}

#[test]
fn the_time_is_told_in_the_unit_it_is_in() {
    for (phase, words) in [
        (Starting, "1200 ms after it began, while it started"),
        (Idle, "1200 ms after it began, while it was idle"),
        (Calling, "1200 ms after it began, in the middle of a call"),
        (Stopping, "1200 ms after it began, while it was being stopped"),
    ] {
        assert_eq!(verdict(&at(phase)).evidence.last().map(String::as_str), Some(words));
    }
}

#[test]
fn every_cause_has_its_own_code_and_its_own_next_step() {
    let causes = [
        Evidence { own_kill: Some(OwnKill::Unload), ..at(Idle) },
        Evidence { own_kill: Some(OwnKill::StartTimeout { limit_ms: 5 }), ..at(Starting) },
        Evidence { protocol_fault: Some("x".into()), ..at(Calling) },
        Evidence { keeper_lost: true, ..at(Calling) },
        Evidence { load_failure: Some("x".into()), ..at(Starting) },
        Evidence { tool: Some(Signal(9)), ..at(Calling) },
        Evidence { tool: Some(Signal(11)), ..at(Calling) },
        Evidence { tool: Some(Signal(15)), ..at(Calling) },
        Evidence { tool: Some(Code(1)), ..at(Calling) },
        at(Calling),
    ];
    let of = |tell: fn(&cjm_decide::death::Verdict) -> String| {
        causes.iter().map(|evidence| tell(&verdict(evidence))).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(of(|found| found.code().to_owned()).len(), causes.len());
    assert_eq!(of(|found| found.cause.as_str().to_owned()).len(), causes.len());
    assert_eq!(of(Described::next_step).len(), causes.len());
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
        let ended = Evidence { worker: Some(Signal(signal)), ..at(Idle) };
        check(&ended, &killed(signal), Certain, Transient);
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
    assert_eq!(verdict(&waited).to_string(), "ended by the host: not ready within 30 s");

    let told = Evidence { load_failure: Some("no module x".into()), worker: Some(Code(1)), ..at(Starting) };
    check(&told, &Cause::LoadFailed { message: "no module x".into() }, Certain, Fatal);

    // The host only clears what is left of it.
    for worker in [Code(1), Signal(9)] {
        let why = "no module x".to_owned();
        let own_kill = Some(OwnKill::StartFailed { why: why.clone() });
        let cleared = Evidence { own_kill: own_kill.clone(), worker: Some(worker), ..told.clone() };
        check(&cleared, &Cause::LoadFailed { message: why }, Certain, Fatal);
        let refused = Evidence { own_kill, worker: Some(worker), ..at(Starting) };
        assert_eq!(verdict(&refused).to_string(), "ended by the host: its start failed: no module x");
    }

    let fatal = "FATAL: Failed to load m:C - No module named 'torch'";
    let printed = Evidence { worker: Some(Code(1)), ..said(Starting, &["Traceback", fatal, "bye"]) };
    check(&printed, &Cause::LoadFailed { message: fatal.into() }, Certain, Fatal);

    let left = Evidence { tool: Some(Code(1)), ..said(Starting, &["ImportError: x", " "]) };
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
