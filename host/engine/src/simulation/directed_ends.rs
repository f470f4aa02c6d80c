//! The end of a host at single moments: what is joined before the stores close, and how long that takes.

use super::directed::{Set, composition, request, sound_stage};
use super::scenario::arguments;
use crate::error::HostError;
use crate::host::ShutdownReport;
use cjm_decide::death::OwnKill;
use cjm_wire::InstanceId;
use cjm_wire::envelope::ExecuteRequest;
use cjm_wire::event::JobStatus;
use cjm_wire::json::Arguments;
use cjm_workers::CallError;
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// A host that nothing holds ends faster; workers take a part of it.
const END_MAX: Duration = Duration::from_secs(1);
/// Until a call has reached its tool.
const SENT: Duration = Duration::from_millis(100);

fn direct(act: &str) -> ExecuteRequest {
    ExecuteRequest { kwargs: arguments(act, 1, false), ..ExecuteRequest::default() }
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_call_is_joined_from_the_moment_it_is_dropped() {
    let Set { host, instance, .. } = sound_stage();
    host.call(&instance.id, direct("ok"), None).await.expect("it lives");
    let tasks = &host.services().tasks;
    let before = tasks.len();
    let mut call = Box::pin(host.call(&instance.id, direct("deaf"), None));
    assert!((&mut call).now_or_never().is_none());
    drop(call);
    assert_eq!(tasks.len(), before + 1, "the call");
    let stream = host.call_stream(&instance.id, direct("deaf")).await.expect("it opens");
    assert_eq!(tasks.len(), before + 1, "a stream that is read is its reader's");
    drop(stream);
    assert_eq!(tasks.len(), before + 2, "the stream");
    let begun = Instant::now();
    host.clone().shutdown().await;
    assert!(begun.elapsed() < END_MAX, "{:?}", begun.elapsed());
    assert!(tasks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_driver_of_a_run_is_joined_and_a_run_that_goes_on_is_left() {
    let Set { host, instance, journal, .. } = sound_stage();
    let document = json!({"name": "t", "nodes": {
        "one": {"capability": instance.id.as_str(), "args": {"do": "ok", "job": true}},
    }});
    let begun = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
    assert_eq!(host.services().tasks.len(), 1, "its driver: no worker is there, and its job is on its way");
    host.wait_composition(&begun).await.expect("told");
    let document = json!({"name": "t", "nodes": {
        "one": {"capability": instance.id.as_str(), "args": {"do": "deaf", "job": true}},
        "two": {"capability": "tool", "after": ["one"], "args": {"do": "ok", "job": true}},
    }});
    let run = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
    tokio::time::sleep(SENT).await;
    let begun = Instant::now();
    host.clone().shutdown().await;
    assert!(begun.elapsed() < END_MAX, "{:?}", begun.elapsed());
    host.wait_composition(&run).await.expect_err("the next host ends it");
    assert_eq!(journal.kept(|kept| kept.compositions[&run]), None);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_goes_on_between_two_elements_is_left_to_the_next_host() {
    let Set { host, journal, .. } = sound_stage();
    let document = json!({"name": "t", "failure": "best_effort", "nodes": {
        "one": {"capability": "tool", "args": {"do": "ok", "job": true}},
        "two": {"capability": "tool", "after": ["one"], "args": {"do": "ok", "job": true}},
    }});
    // The host ends in the moment in which the first element's end is written, before the next one is submitted.
    let closing = host.services().closing.clone();
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    journal.watch(move |_, commit| {
        if commit.rows.iter().any(|row| row.event_type == "composition_advanced") {
            closing.cancel();
            told.store(true, Ordering::Relaxed);
        }
        false
    });
    let run = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
    host.wait_composition(&run).await.expect_err("the next host ends it");
    assert!(ended.load(Ordering::Relaxed));
    assert_eq!(journal.kept(|kept| kept.compositions[&run]), None);
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_call_accounted_for_is_kept_though_its_caller_looks_late() {
    let Set { host, instance, journal, .. } = sound_stage();
    host.call(&instance.id, direct("ok"), None).await.expect("it lives");
    let answers_ms = 50;
    let request = ExecuteRequest { kwargs: arguments("account", answers_ms, false), ..direct("ok") };
    let mut call = Box::pin(host.call(&instance.id, request, None));
    // It has reached its tool.
    let _ = tokio::time::timeout(Duration::from_millis(answers_ms / 2), &mut call).await;
    let ending = tokio::spawn(host.clone().shutdown());
    // Its worker is gone by now, and its answer was there before.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!ending.is_finished(), "the caller has not looked");
    call.await.expect("it was answered");
    let begun = Instant::now();
    ending.await.expect("no panic");
    assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
    assert_eq!(journal.kept(|kept| kept.accounts.len()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_does_not_look_holds_no_host() {
    let Set { host, instance, .. } = sound_stage();
    host.call(&instance.id, direct("ok"), None).await.expect("it lives");
    let mut call = Box::pin(host.call(&instance.id, direct("deaf"), None));
    assert!((&mut call).now_or_never().is_none());
    let stream = host.call_stream(&instance.id, direct("deaf")).await.expect("it opens");
    let begun = Instant::now();
    host.clone().shutdown().await;
    assert!(begun.elapsed() < END_MAX, "{:?}", begun.elapsed());
    call.await.expect_err("cut off");
    assert!(stream.collect::<Vec<_>>().await.iter().any(Result::is_err), "cut off");
}

#[tokio::test(start_paused = true)]
async fn deaths_that_a_stopped_keeper_did_not_tell_are_written_once_it_is_gone() {
    let Set { host, instance, journal, keeper_stands, .. } = sound_stage();
    host.call(&instance.id, direct("ok"), None).await.expect("it lives");
    keeper_stands.send_replace(true);
    host.shutdown().await;
    assert_eq!(journal.kept(|kept| (kept.spawned.len(), kept.died.len())), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_death_says_whether_its_instance_was_being_unloaded() {
    let Set { host, instance, journal, .. } = sound_stage();
    let phase_of = |session| journal.kept(|kept| kept.phases.get(session).cloned());
    let mut sessions = Vec::new();
    for _ in 0..2 {
        host.call(&instance.id, direct("ok"), None).await.expect("it lives");
        sessions.push(instance.session());
        if sessions.len() == 1 {
            let runner = host.runner();
            instance.recycle(&runner.services, &runner.jobs, &sessions[0], OwnKill::Evicted);
            tokio::time::sleep(SENT).await;
        }
    }
    host.unload(&instance.id).await.expect("unloaded");
    tokio::time::sleep(SENT).await;
    assert_eq!(phase_of(&sessions[0]).as_deref(), Some("running"));
    assert_eq!(phase_of(&sessions[1]).as_deref(), Some("cleanup"));
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_what_never_ran_is_told_that_the_host_has_ended() {
    let Set { host, instance, .. } = sound_stage();
    host.unload(&instance.id).await.expect("unloaded");
    let job = host.submit(request("ok")).await.expect("accepted");
    let (waits, id) = (host.clone(), job.clone());
    let waiting = tokio::spawn(async move { waits.wait(&id).await.map(drop) });
    let over = tokio::spawn(host.job_over(&job));
    tokio::time::sleep(SENT).await;
    assert!(!waiting.is_finished() && !over.is_finished());
    host.clone().shutdown().await;
    let soon = Duration::from_millis(1);
    let told = tokio::time::timeout(soon, waiting).await.expect("at once").expect("no panic");
    assert!(matches!(told, Err(HostError::ShuttingDown)), "{told:?}");
    tokio::time::timeout(soon, over).await.expect("at once").expect("no panic");
    let late = host.wait(&job).await.map(drop);
    assert!(matches!(late, Err(HostError::ShuttingDown)), "{late:?}");
}

/// A job that is being stopped and finds no incarnation is written before the stores may close.
#[tokio::test(start_paused = true)]
async fn a_stopped_job_that_has_not_run_keeps_the_stores_open_until_its_end() {
    let Set { host, instance, journal, .. } = sound_stage();
    let body = async move {
        let tasks = host.services().tasks.clone();
        // The queue still believes in it.
        host.instances().remove(&instance.id).expect("known");
        tasks.close();
        let held = tasks.token();
        let (waits, kept) = (tasks.clone(), Arc::clone(&journal));
        let closes = tokio::spawn(async move {
            waits.wait().await;
            kept.kept(|kept| kept.jobs.values().map(|job| job.status).collect::<Vec<_>>())
        });
        let job = host.submit(request("ok")).await.expect("accepted");
        host.cancel(&job);
        // After the owner has taken both, and before the attempt that it has begun.
        let counted = tasks.clone();
        tokio::spawn(async move {
            assert_eq!(counted.len(), 2, "the job keeps the stores open");
            drop(held);
        })
        .await
        .expect("no panic");
        assert_eq!(closes.await.expect("no panic"), [JobStatus::Cancelled]);
        host.shutdown().await;
    };
    tokio::spawn(body).await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn an_end_is_told_with_what_it_ended() {
    let Set { host, instance, .. } = sound_stage();
    host.register("tool", &super::scenario::load(&InstanceId::from_text("tool-2"), 1)).expect("registered");
    host.call(&instance.id, direct("ok"), None).await.expect("it lives");
    let ended = host.ended();
    assert!(!*ended.borrow());
    // Of two instances one has a worker.
    assert_eq!(host.shutdown().await, ShutdownReport { workers_ended: 1, tree_cleared: true });
    assert!(*ended.borrow());
}

#[tokio::test(start_paused = true)]
async fn nothing_new_begins_in_a_host_that_has_ended() {
    let Set { host, instance, journal, .. } = sound_stage();
    host.clone().shutdown().await;
    let refused = host.submit(request("ok")).await;
    assert!(matches!(refused, Err(HostError::ShuttingDown)), "{refused:?}");
    let refused = host.call(&instance.id, direct("ok"), None).await.map(drop);
    assert!(matches!(refused, Err(CallError::NotLoaded { .. })), "{refused:?}");
    assert_eq!(journal.kept(|kept| (kept.jobs.len(), kept.spawned.len())), (0, 0));
}
