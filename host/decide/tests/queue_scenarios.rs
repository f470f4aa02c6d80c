//! The queue's behaviour, told as scripts: one line an event, and the effects it must have, all of them and in
//! this order. Grammar in [`event`] and [`text`].

use cjm_decide::queue::{
    AttemptOutcome, CANCEL_GRACE_MS, CancelReach, Queue, QueueEffect, QueueError, QueueEvent, QueueLimits,
    QueuedJob, StopReason, Target,
};
use cjm_wire::describe::{Described, ErrorReport};
use cjm_wire::{CompositionId, InstanceId, JobId, WorkerSessionId};

/// `@MS` before an event sets the clock. `add INSTANCE/SESSION CAPABILITY CAP`, `remove INSTANCE/SESSION`,
/// `submit JOB CAPABILITY|=INSTANCE PRIORITY [DEADLINE_MS]`, `cancel JOB`, `cancel-pending JOB`,
/// `end JOB#ATTEMPT[@SESSION] ok|fail|gone|missed|untaken|passed-over` (session `s` when unsaid), `close`, `open`, `tick`.
fn event(words: &[&str]) -> QueueEvent {
    let instance = |text: &str| {
        let (instance, session) = text.split_once('/').expect("INSTANCE/SESSION");
        (InstanceId::from_text(instance), WorkerSessionId::from_text(session))
    };
    let job = JobId::from_text;
    match *words {
        ["add", name, capability, cap, ref grace @ ..] => {
            let (instance, session) = instance(name);
            let concurrency_max = cap.parse().expect("a cap");
            QueueEvent::InstanceAdded {
                instance,
                session,
                capability: capability.to_owned(),
                concurrency_max,
                cancel_grace_ms: grace.first().map_or(0, |ms| ms.parse().expect("a grace")),
            }
        }
        ["remove", name] => {
            let (instance, session) = instance(name);
            QueueEvent::InstanceRemoved { instance, session }
        }
        ["submit", id, target, priority, ref deadline @ ..] => QueueEvent::Submitted {
            job: QueuedJob {
                id: job(id),
                target: match target.strip_prefix('=') {
                    Some(instance) => Target::Instance(InstanceId::from_text(instance)),
                    None => Target::Capability(target.to_owned()),
                },
                priority: priority.parse().expect("a priority"),
                composition: Some(CompositionId::from_text("c")),
                deadline_ms: deadline.first().map(|ms| ms.parse().expect("a deadline")),
            },
        },
        ["cancel", id] => QueueEvent::CancelRequested { job: job(id), reach: CancelReach::Any },
        ["force", id] => QueueEvent::ForceRequested { job: job(id) },
        ["time-over", id] => QueueEvent::DeadlinePassed { job: job(id) },
        ["cancel-pending", id] => {
            QueueEvent::CancelRequested { job: job(id), reach: CancelReach::PendingOnly }
        }
        ["end", id, outcome] => {
            let (id, attempt) = id.split_once('#').expect("JOB#ATTEMPT");
            let (attempt, session) = attempt.split_once('@').unwrap_or((attempt, "s"));
            let session = WorkerSessionId::from_text(session);
            let outcome = match outcome {
                "ok" => AttemptOutcome::Completed,
                "fail" => AttemptOutcome::Failed,
                "missed" => AttemptOutcome::NotRun,
                "untaken" => AttemptOutcome::NotTaken { others: false },
                "passed-over" => AttemptOutcome::NotTaken { others: true },
                _ => AttemptOutcome::Cancelled,
            };
            QueueEvent::AttemptEnded {
                job: job(id),
                attempt: attempt.parse().expect("a number"),
                session,
                outcome,
            }
        }
        ["close"] => QueueEvent::AdmissionClosed { reason: "the disk is full".to_owned() },
        ["open"] => QueueEvent::AdmissionOpened,
        ["tick"] => QueueEvent::Tick,
        _ => panic!("no event: {words:?}"),
    }
}

fn text(effect: &QueueEffect) -> String {
    match effect {
        QueueEffect::Start(start) => {
            format!("start {}#{} {}/{}", start.job, start.attempt, start.instance, start.session)
        }
        QueueEffect::SendCancel { job, instance, session, attempt } => {
            format!("send-cancel {job}#{attempt} {instance}/{session}")
        }
        QueueEffect::ForceRecycle { job, instance, session, reason } => match reason {
            StopReason::Cancel => format!("recycle {instance}/{session} for {job}"),
            StopReason::Deadline => format!("recycle {instance}/{session} for the deadline of {job}"),
        },
        QueueEffect::CancelPhaseChanged { job, from, to } => {
            format!("phase {job} {}>{}", from.as_str(), to.as_str())
        }
        QueueEffect::BlockReasonChanged { job, from, to } => {
            format!("block {job} {}>{}", from.map_or("", |from| from.as_str()), to.as_str())
        }
        QueueEffect::Ended { job, from, status, stopped, .. } => match stopped {
            Some(StopReason::Deadline) => format!("ended {job} {from}>{status} at its deadline"),
            Some(StopReason::Cancel) | None => format!("ended {job} {from}>{status}"),
        },
        QueueEffect::WakeAt { at_ms } => format!("wake {at_ms}"),
    }
}

fn check_with(limits: QueueLimits, script: &[(&str, &[&str])]) -> Queue {
    let mut queue = Queue::new(limits);
    let mut now_ms = 0;
    for (line, expected) in script {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if let Some(at) = words.first().and_then(|word| word.strip_prefix('@')) {
            now_ms = at.parse().expect("a time");
            words.remove(0);
        }
        let found = match queue.handle(event(&words), now_ms) {
            Ok(effects) => effects.iter().map(text).collect(),
            Err(error) => {
                assert!(!ErrorReport::of(&error).next_step.is_empty());
                vec![format!("{}: {error}", error.code())]
            }
        };
        assert_eq!(found, *expected, "{line}");
        queue.check_invariants().expect(line);
    }
    queue
}

fn check(script: &[(&str, &[&str])]) -> Queue {
    check_with(QueueLimits::default(), script)
}

#[test]
fn priority_comes_before_order_of_submission() {
    check(&[
        ("add a/s asr 1", &[]),
        ("submit j1 asr 0", &["start j1#1 a/s"]),
        ("submit j2 asr 0", &["block j2 >instance_busy"]),
        ("submit j3 asr 0", &[]),
        ("submit j4 asr 5", &["block j4 >instance_busy"]),
        ("end j1#1 ok", &["ended j1 running>completed", "start j4#1 a/s"]),
        ("end j4#1 fail", &["ended j4 running>failed", "start j2#1 a/s", "block j3 >instance_busy"]),
        ("end j2#1 gone", &["ended j2 running>cancelled", "start j3#1 a/s"]),
    ]);
}

#[test]
fn a_busy_line_does_not_hold_up_another() {
    check(&[
        ("add a/s asr 1", &[]),
        ("add b/s tts 1", &[]),
        ("submit j1 asr 9", &["start j1#1 a/s"]),
        ("submit j2 asr 9", &["block j2 >instance_busy"]),
        ("submit j3 nobody 9", &["block j3 >no_instance"]),
        ("submit j4 tts 0", &["start j4#1 b/s"]),
    ]);
}

#[test]
fn a_capability_takes_the_least_loaded_then_the_longest_idle_instance() {
    check(&[
        ("@1 add a/s asr 2", &[]),
        ("@2 add b/s asr 2", &[]),
        ("@3 submit j1 asr 0", &["start j1#1 a/s"]),
        ("@3 submit j2 asr 0", &["start j2#1 b/s"]),
        ("@4 end j1#1 ok", &["ended j1 running>completed"]),
        ("@5 end j2#1 ok", &["ended j2 running>completed"]),
        ("@6 submit j3 =b 0", &["start j3#1 b/s"]),
        ("@6 submit j4 asr 0", &["start j4#1 a/s"]),
        ("@7 end j4#1 ok", &["ended j4 running>completed"]),
        ("@8 end j3#1 ok", &["ended j3 running>completed"]),
        ("@9 submit j5 asr 0", &["start j5#1 a/s"]),
    ]);
}

#[test]
fn lanes_bound_all_instances_together() {
    let limits = QueueLimits { lanes: 2, ..QueueLimits::default() };
    check_with(
        limits,
        &[
            ("add a/s asr 9", &[]),
            ("add b/s tts 9", &[]),
            ("submit j1 asr 0", &["start j1#1 a/s"]),
            ("submit j2 tts 0", &["start j2#1 b/s"]),
            ("submit j3 asr 0", &["block j3 >lanes_full"]),
            ("submit j4 tts 1", &["block j4 >lanes_full"]),
            ("end j1#1 ok", &["ended j1 running>completed", "start j4#1 b/s"]),
            ("end j2#1 ok", &["ended j2 running>completed", "start j3#1 a/s"]),
        ],
    );
}

#[test]
fn a_cancel_while_pending_ends_at_once() {
    check(&[
        ("submit j1 asr 0", &["block j1 >no_instance"]),
        ("submit j2 asr 0", &[]),
        ("cancel j1", &["ended j1 pending>cancelled", "block j2 >no_instance"]),
        ("cancel j1", &[]),
        ("cancel-pending j2", &["ended j2 pending>cancelled"]),
        ("add a/s asr 1", &[]),
        ("end j1#1 ok", &[]),
    ]);
}

#[test]
fn a_tool_that_cooperates_ends_cancelled_however_its_call_returns() {
    for outcome in ["ok", "fail", "gone"] {
        let end = format!("@20 end j1#1 {outcome}");
        check(&[
            ("add a/s asr 1", &[]),
            ("submit j1 asr 0", &["start j1#1 a/s"]),
            ("cancel-pending j1", &[]),
            ("@10 cancel j1", &["phase j1 none>cooperative", "send-cancel j1#1 a/s", "wake 3010"]),
            ("@11 cancel j1", &[]),
            (&end, &["phase j1 cooperative>completed", "ended j1 running>cancelled"]),
            ("@21 end j1#1 ok", &[]),
            ("@3010 tick", &[]),
        ]);
    }
}

#[test]
fn a_result_before_the_cancel_wins() {
    check(&[
        ("add a/s asr 1", &[]),
        ("submit j1 asr 0", &["start j1#1 a/s"]),
        ("end j1#1 ok", &["ended j1 running>completed"]),
        ("cancel j1", &[]),
    ]);
}

#[test]
fn a_cancel_without_answer_recycles_the_instance() {
    check(&[
        ("add a/s1 asr 2", &[]),
        ("submit j1 asr 0", &["start j1#1 a/s1"]),
        ("submit j2 asr 0", &["start j2#1 a/s1"]),
        ("submit j3 asr 0", &["block j3 >instance_busy"]),
        ("@10 cancel j1", &["phase j1 none>cooperative", "send-cancel j1#1 a/s1", "wake 3010"]),
        ("@3009 tick", &[]),
        (
            "@3010 tick",
            &[
                "phase j1 cooperative>force",
                "recycle a/s1 for j1",
                "block j3 instance_busy>instance_reloading",
            ],
        ),
        ("@3011 end j2#1@s1 fail", &["ended j2 running>failed"]),
        ("@3012 end j1#1@s1 fail", &["phase j1 force>reloading", "ended j1 running>cancelled"]),
        ("@3020 add a/s2 asr 2", &["phase j1 reloading>completed", "start j3#1 a/s2"]),
        ("remove a/s1", &[]),
        ("end j3#1@s2 ok", &["ended j3 running>completed"]),
    ]);
}

#[test]
fn a_tool_that_asks_for_a_longer_grace_has_it_and_a_shorter_one_is_the_queues_own() {
    for (grace, ends) in [("10000", 10_010), ("1", 3_010)] {
        let (add, wake) = (format!("add a/s asr 1 {grace}"), format!("wake {ends}"));
        let (before, at) = (format!("@{} tick", ends - 1), format!("@{ends} tick"));
        check(&[
            (&add, &[]),
            ("submit j1 asr 0", &["start j1#1 a/s"]),
            ("@10 cancel j1", &["phase j1 none>cooperative", "send-cancel j1#1 a/s", &wake]),
            (&before, &[]),
            (&at, &["phase j1 cooperative>force", "recycle a/s for j1"]),
        ]);
    }
}

#[test]
fn whoever_will_not_wait_waives_the_grace() {
    let kill = "recycle a/s for j1";
    check(&[
        ("add a/s asr 1", &[]),
        ("submit j1 asr 0", &["start j1#1 a/s"]),
        ("submit j2 asr 0", &["block j2 >instance_busy"]),
        ("@10 cancel j1", &["phase j1 none>cooperative", "send-cancel j1#1 a/s", "wake 3010"]),
        ("@20 force j1", &["phase j1 cooperative>force", kill, "block j2 instance_busy>instance_reloading"]),
        // Once is enough, and what waits has nothing to be killed.
        ("@21 force j1", &[]),
        ("@22 force j2", &["ended j2 pending>cancelled"]),
        ("@30 end j1#1 fail", &["phase j1 force>reloading", "ended j1 running>cancelled"]),
        ("@31 force j1", &[]),
        ("@3010 tick", &[]),
    ]);
}

#[test]
fn one_recycle_serves_all_who_wait_for_it() {
    check(&[
        ("add a/s1 asr 2", &[]),
        ("submit j1 asr 0", &["start j1#1 a/s1"]),
        ("submit j2 asr 0", &["start j2#1 a/s1"]),
        ("@1 cancel j1", &["phase j1 none>cooperative", "send-cancel j1#1 a/s1", "wake 3001"]),
        ("@2 cancel j2", &["phase j2 none>cooperative", "send-cancel j2#1 a/s1"]),
        ("@3001 tick", &["phase j1 cooperative>force", "recycle a/s1 for j1", "wake 3002"]),
        ("@3002 tick", &["phase j2 cooperative>force"]),
        ("end j1#1@s1 fail", &["phase j1 force>reloading", "ended j1 running>cancelled"]),
        ("remove a/s1", &["phase j1 reloading>completed"]),
        (
            "end j2#1@s1 fail",
            &["phase j2 force>reloading", "phase j2 reloading>completed", "ended j2 running>cancelled"],
        ),
    ]);
}

#[test]
fn the_words_of_an_older_incarnation_change_nothing() {
    check(&[
        ("add a/s1 asr 1", &[]),
        ("add a/s1 asr 5", &[]),
        ("submit j1 asr 0", &["start j1#1 a/s1"]),
        ("submit j2 asr 0", &["block j2 >instance_busy"]),
        ("add a/s2 asr 1", &["start j2#1 a/s2"]),
        ("remove a/s1", &[]),
        // The old call's cancel kills nobody: its worker is gone, its end is on the way.
        ("@1 cancel j1", &["phase j1 none>cooperative", "send-cancel j1#1 a/s1", "wake 3001"]),
        ("@3001 tick", &[]),
        ("end j1#0@s1 fail", &[]),
        ("end j1#1@s1 fail", &["phase j1 cooperative>completed", "ended j1 running>cancelled"]),
        ("end j2#1@s2 ok", &["ended j2 running>completed"]),
        // The present one is still there.
        ("submit j3 asr 0", &["start j3#1 a/s2"]),
    ]);
}

#[test]
fn the_gate_stops_starts_and_nothing_else() {
    check(&[
        ("add a/s asr 2", &[]),
        ("submit j1 asr 0", &["start j1#1 a/s"]),
        ("close", &[]),
        ("submit j2 asr 0", &["block j2 >admission_closed"]),
        ("submit j3 asr 0", &[]),
        ("end j1#1 ok", &["ended j1 running>completed"]),
        ("cancel j2", &["ended j2 pending>cancelled", "block j3 >admission_closed"]),
        ("open", &["start j3#1 a/s"]),
    ]);
}

#[test]
fn what_cannot_be_is_refused_with_both_names_and_changes_nothing() {
    check(&[
        ("submit j1 asr 0", &["block j1 >no_instance"]),
        (
            "end j1#1 ok",
            &["queue.illegal_transition: job j1 is pending, where `attempt_ended` cannot happen"],
        ),
        (
            "submit j1 asr 0",
            &["queue.illegal_transition: job j1 is pending, where `submitted` cannot happen"],
        ),
        ("add a/s asr 1", &["start j1#1 a/s"]),
        (
            "end j1#2 ok",
            &["queue.illegal_transition: job j1 is running, where `attempt_ended` cannot happen"],
        ),
    ]);
}

#[test]
fn a_full_queue_refuses_with_numbers_before_anything_is_committed() {
    let limits = QueueLimits { pending_max: 2, ..QueueLimits::default() };
    assert_eq!(limits.may_submit(1, 1), Ok(()));
    assert_eq!(limits.may_submit(2, 0), Ok(()));
    let refused = QueueError::PendingFull { pending: 1, asked: 2, max: 2 };
    assert_eq!(refused.to_string(), "1 jobs wait already and 2 more would exceed the 2 allowed");
    assert_eq!(limits.may_submit(1, 2), Err(refused));
    assert!(limits.may_submit(usize::MAX, 1).is_err());
    // What was accepted is never refused afterwards.
    check_with(
        QueueLimits { pending_max: 0, ..limits },
        &[("submit j1 asr 0", &["block j1 >no_instance"]), ("submit j2 asr 0", &[])],
    );
}

#[test]
fn an_attempt_that_missed_its_incarnation_takes_its_old_place_again() {
    check(&[
        ("submit j1 asr 0", &["block j1 >no_instance"]),
        ("submit j2 asr 0", &[]),
        ("add a/s asr 1", &["start j1#1 a/s", "block j2 >instance_busy"]),
        // The news of the end came first, and the next incarnation is there: same attempt number, nothing skipped.
        ("remove a/s", &["block j2 instance_busy>no_instance"]),
        ("add a/t asr 1", &["start j2#1 a/t"]),
        ("end j1#1 missed", &["block j1 >instance_busy"]),
        ("end j2#1@t ok", &["ended j2 running>completed", "start j1#1 a/t"]),
        // The first incarnation's word about the same attempt comes too late.
        ("end j1#1@s ok", &[]),
        ("end j1#1@t ok", &["ended j1 running>completed"]),
    ]);
    // Without that news the attempt itself brings it; else the job would be sent back at once, for ever.
    check(&[
        ("add a/s asr 1", &[]),
        ("submit j1 asr 0", &["start j1#1 a/s"]),
        ("end j1#1 missed", &["block j1 >no_instance"]),
        ("remove a/s", &[]),
        ("add a/t asr 1", &["start j1#1 a/t"]),
        ("cancel j1", &["phase j1 none>cooperative", "send-cancel j1#1 a/t", "wake 3000"]),
        ("end j1#1@t missed", &["phase j1 cooperative>completed", "ended j1 running>cancelled"]),
        ("add a/u asr 1", &[]),
    ]);
}

#[test]
fn a_call_that_its_tool_did_not_take_waits_again_and_not_for_ever() {
    let limits = QueueLimits { lanes: 1, ..QueueLimits::default() };
    check_with(
        limits,
        &[
            ("add a/s asr 1", &[]),
            ("submit j1 asr 0", &["start j1#1 a/s"]),
            ("submit j2 asr 0", &["block j2 >instance_busy"]),
            // It comes before what was submitted after it, and the attempt has its number.
            ("end j1#1 untaken", &["block j1 >no_instance"]),
            ("remove a/s", &[]),
            ("add a/t asr 1", &["start j1#2 a/t"]),
            ("end j1#2@t untaken", &["block j1 >no_instance"]),
            ("add a/u asr 1", &["start j1#3 a/u"]),
            ("end j1#3@u untaken", &["block j1 >no_instance"]),
            // Where others have their turn, it will have its own.
            ("add a/x asr 1", &["start j1#4 a/x"]),
            ("end j1#4@x passed-over", &["block j1 >no_instance"]),
            ("add a/v asr 1", &["start j1#5 a/v"]),
            ("end j1#5@v untaken", &["ended j1 running>failed", "block j2 instance_busy>no_instance"]),
            ("add a/w asr 1", &["start j2#1 a/w"]),
            ("cancel j2", &["phase j2 none>cooperative", "send-cancel j2#1 a/w", "wake 3000"]),
            ("end j2#1@w untaken", &["phase j2 cooperative>completed", "ended j2 running>cancelled"]),
        ],
    );
}

#[test]
fn a_start_says_how_long_its_job_waited_and_how_many_run_with_it() {
    let mut queue = Queue::new(QueueLimits::default());
    let mut starts = Vec::new();
    for (now_ms, line) in [
        (0, "submit j1 asr 0"),
        (5, "submit j2 asr 0"),
        (7, "add a/s asr 2"),
        (9, "end j1#1 ok"),
        (11, "submit j3 asr 0"),
    ] {
        let words: Vec<&str> = line.split_whitespace().collect();
        for effect in queue.handle(event(&words), now_ms).expect(line) {
            if let QueueEffect::Start(start) = effect {
                starts.push((start.job.to_string(), start.waited_ms, start.lanes_in_use));
            }
        }
    }
    assert_eq!(starts, [("j1".to_owned(), 7, 1), ("j2".to_owned(), 2, 2), ("j3".to_owned(), 0, 2)]);
}

#[test]
fn the_time_of_what_a_job_is_part_of_stops_it_as_its_own_would() {
    check(&[
        ("add a/s asr 1", &[]),
        ("submit j1 asr 0", &["start j1#1 a/s"]),
        ("submit j2 asr 0", &["block j2 >instance_busy"]),
        ("@50 time-over j2", &["ended j2 pending>failed at its deadline"]),
        ("@50 time-over j1", &["phase j1 none>cooperative", "send-cancel j1#1 a/s", "wake 3050"]),
        ("@51 time-over j1", &[]),
        ("@52 cancel j1", &[]),
        (
            "@60 end j1#1 cancelled",
            &["phase j1 cooperative>completed", "ended j1 running>failed at its deadline"],
        ),
        ("@61 time-over j1", &[]),
    ]);
}

#[test]
fn a_deadline_ends_a_job_that_waits_and_stops_one_that_runs() {
    check(&[
        ("submit j1 asr 0 50", &["block j1 >no_instance", "wake 50"]),
        ("submit j2 asr 0 100", &[]),
        ("@50 tick", &["ended j1 pending>failed at its deadline", "block j2 >no_instance", "wake 100"]),
        ("@60 add a/s asr 1", &["start j2#1 a/s"]),
        ("@100 tick", &["phase j2 none>cooperative", "send-cancel j2#1 a/s", "wake 3100"]),
        // A cancel comes too late to change the reason.
        ("@101 cancel j2", &[]),
        ("@3100 tick", &["phase j2 cooperative>force", "recycle a/s for the deadline of j2"]),
        ("@3101 end j2#1 ok", &["phase j2 force>reloading", "ended j2 running>failed at its deadline"]),
    ]);
    // What ends in time is not touched by its deadline, and a cancel comes before it.
    check(&[
        ("add a/s asr 2", &[]),
        ("submit j1 asr 0 50", &["start j1#1 a/s", "wake 50"]),
        ("submit j2 asr 0 60", &["start j2#1 a/s"]),
        ("@10 end j1#1 ok", &["ended j1 running>completed", "wake 60"]),
        ("@20 cancel j2", &["phase j2 none>cooperative", "send-cancel j2#1 a/s"]),
        ("@60 tick", &["wake 3020"]),
        ("@61 end j2#1 fail", &["phase j2 cooperative>completed", "ended j2 running>cancelled"]),
    ]);
}

#[test]
fn explanations_say_what_is_waited_for_in_numbers() {
    let limits = QueueLimits { lanes: 1, ..QueueLimits::default() };
    let mut queue = check_with(
        limits,
        &[
            ("add a/s asr 1", &[]),
            ("submit j1 asr 0", &["start j1#1 a/s"]),
            ("@1000 submit j2 asr 0", &["block j2 >instance_busy"]),
            ("@2000 submit j3 asr 0", &[]),
            ("submit j4 tts 0", &["block j4 >no_instance"]),
            ("@2500 submit j5 =b 0", &["block j5 >no_instance"]),
        ],
    );
    let check = |queue: &Queue, job: &str, expected: &str| {
        let explanation = queue.explain(&JobId::from_text(job), 4_500).expect(job);
        assert_eq!(explanation.to_string(), expected, "{job}");
    };
    check(&queue, "j1", "runs on a (attempt 1) for 4.5 s");
    check(&queue, "j2", "waits for 3.5 s: capability asr is busy (a runs 1 of 1) (since 3.5 s)");
    check(
        &queue,
        "j3",
        "waits for 2.5 s: capability asr is busy (a runs 1 of 1); 1 job for the same capability asr goes first",
    );
    check(&queue, "j4", "waits for 2.5 s: no instance of tts is loaded (since 2.5 s)");
    check(&queue, "j5", "waits for 2.0 s: instance b is not loaded (since 2.0 s)");
    let add = event(&["add", "t/s", "tts", "1"]);
    let effects = queue.handle(add, 3_000).expect("an instance");
    assert_eq!(effects.iter().map(text).collect::<Vec<_>>(), ["block j4 no_instance>lanes_full"]);
    check(&queue, "j4", "waits for 2.5 s: all lanes are in use (1 of 1) (since 1.5 s)");
    let _ = queue.handle(event(&["close"]), 3_000).expect("closes");
    check(&queue, "j4", "waits for 2.5 s: nothing may start: the disk is full (since 1.5 s)");
    let _ = queue.handle(event(&["cancel", "j1"]), 4_000).expect("cancels");
    check(
        &queue,
        "j1",
        "runs on a (attempt 1) for 4.5 s; the tool was asked to cancel and has not answered yet",
    );
    assert_eq!(queue.explain(&JobId::from_text("j0"), 0), None);
    assert_eq!(CANCEL_GRACE_MS, 3_000, "the ancestor's grace");
}

#[test]
fn a_hundred_thousand_wait_and_go_in_order() {
    const JOBS: usize = 100_000;
    const TARGETS: usize = 50;
    let mut queue = Queue::new(QueueLimits { lanes: 8, ..QueueLimits::default() });
    for job in 0..JOBS {
        let (id, target) = (format!("j{job}"), format!("t{}", job % TARGETS));
        let effects = queue.handle(event(&["submit", &id, &target, "0"]), 0).expect("accepted");
        assert!(effects.len() <= 1, "{effects:?}");
    }
    let mut running = std::collections::VecDeque::new();
    let mut last = [None; TARGETS];
    let mut started = 0;
    let mut note = |effects: Vec<QueueEffect>, running: &mut std::collections::VecDeque<JobId>| {
        for effect in effects {
            if let QueueEffect::Start(start) = effect {
                let job: usize = start.job.as_str()[1..].parse().expect("a number");
                assert!(last[job % TARGETS].replace(job) < Some(job), "order within a line");
                started += 1;
                running.push_back(start.job);
            }
        }
        started
    };
    for target in 0..TARGETS {
        let (instance, capability) = (format!("i{target}/s"), format!("t{target}"));
        note(queue.handle(event(&["add", &instance, &capability, "2"]), 1).expect("added"), &mut running);
    }
    while let Some(job) = running.pop_front() {
        let outcome = AttemptOutcome::Completed;
        let end =
            QueueEvent::AttemptEnded { job, attempt: 1, session: WorkerSessionId::from_text("s"), outcome };
        note(queue.handle(end, 2).expect("ended"), &mut running);
    }
    assert_eq!(note(Vec::new(), &mut running), JOBS);
    assert_eq!((queue.pending_count(), queue.lanes_in_use()), (0, 0));
    queue.check_invariants().expect("empty");
}
