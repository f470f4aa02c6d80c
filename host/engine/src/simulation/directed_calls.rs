//! Direct calls and streams at single moments: deadlines, cancels that nobody asked for, connections that break.

use super::directed::{Set, hanging_start, request, sound_stage, stage_of};
use super::journal::Moment;
use super::scenario::arguments;
use crate::deadlines::Timeout;
use crate::error::HostError;
use crate::host::Host;
use crate::instances::{Instance, NoWorker};
use cjm_decide::queue::{CANCEL_GRACE_MS, NOT_TAKEN_MAX, QueueLimits};
use cjm_store::Write;
use cjm_wire::envelope::ExecuteRequest;
use cjm_wire::event::JobStatus;
use cjm_wire::{InstanceId, RunId};
use cjm_workers::{CallError, LoadOptions};
use futures_util::{FutureExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What a host may take for what it does at once.
const SOON: Duration = Duration::from_millis(50);
/// Loads that are tried until one hangs.
const LOADS_MAX: usize = 100;

pub(super) fn direct(act: &str) -> ExecuteRequest {
    ExecuteRequest { kwargs: arguments(act, 1, false), ..ExecuteRequest::default() }
}

fn x() -> InstanceId {
    InstanceId::from_text("x")
}

fn streamed(act: &str, chunks: u64) -> ExecuteRequest {
    let mut request = direct(act);
    request.kwargs.insert("chunks".to_owned(), chunks.into());
    request
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_call_covers_the_start_of_its_worker() {
    let (host, instance, starting) = hanging_start().await;
    let given = Duration::from_millis(200);
    let begun = Instant::now();
    let told = host.call(&instance.id, direct("ok"), Some(given)).await.expect_err("no worker");
    assert!(matches!(told, CallError::DeadlinePassed { .. }), "{told:?}");
    let told = host.call_stream_within(&instance.id, direct("ok"), given.into()).await.map(drop);
    assert!(matches!(told, Err(CallError::DeadlinePassed { .. })), "{told:?}");
    assert!(begun.elapsed() < 2 * given + SOON, "{:?}", begun.elapsed());
    assert!(!starting.is_finished(), "it starts for others");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_direct_call_that_no_tool_has_taken_is_sent_again_some_times() {
    for is_stream in [false, true] {
        let Set { host, instance, seen, .. } = sound_stage();
        let called = async {
            match is_stream {
                true => host.call_stream(&instance.id, streamed("untaken", 1)).await.map(drop),
                false => host.call(&instance.id, direct("untaken"), None).await.map(drop),
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(60), called).await.expect("it gives up");
        assert!(matches!(told, Err(CallError::NotTaken { .. })), "{told:?}");
        let sessions = seen.lock().expect("not poisoned").sessions.len();
        assert_eq!(sessions, usize::try_from(NOT_TAKEN_MAX).expect("a few"), "each had a worker of its own");
        host.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_no_tool_has_taken_is_not_sent_again_once_nobody_waits_for_it() {
    for is_stream in [false, true] {
        let Set { host, instance, seen, .. } = sound_stage();
        host.call(&instance.id, direct("ok"), None).await.expect("a worker lives");
        // It is on its way when its caller goes, and its worker dies before it arrives.
        match is_stream {
            true => drop(host.call_stream(&instance.id, streamed("untaken", 1)).now_or_never()),
            false => drop(host.call(&instance.id, direct("untaken"), None).now_or_never()),
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(instance.worker().is_none(), "it was sent");
        assert_eq!(
            seen.lock().expect("not poisoned").sessions.len(),
            1,
            "another worker was started for nobody"
        );
        host.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_while_its_worker_starts_is_not_sent() {
    let Set { host, instance, seen, .. } = sound_stage();
    let mut call = Box::pin(host.call(&instance.id, direct("ok"), None));
    assert!((&mut call).now_or_never().is_none());
    let mut opening = Box::pin(host.call_stream(&instance.id, direct("ok")));
    assert!((&mut opening).now_or_never().is_none());
    drop((call, opening));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(instance.worker().is_some(), "its start goes on");
    assert_eq!(seen.lock().expect("not poisoned").entered, 0);
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_names_no_time_has_that_of_its_host() {
    let Set { host, instance, seen, .. } = sound_stage();
    let limit = host.services().options.call_timeout;
    let begun = Instant::now();
    let told = host.call(&instance.id, direct("deaf"), None).await.expect_err("it never answers");
    assert!(matches!(told, CallError::DeadlinePassed { .. }), "{told:?}");
    assert!(begun.elapsed() >= limit && begun.elapsed() < limit + SOON, "{:?}", begun.elapsed());
    tokio::time::sleep(Duration::from_millis(CANCEL_GRACE_MS) + SOON).await;
    // A stream, too, and whether or not anybody reads it.
    let mut unread = host.call_stream(&instance.id, streamed("deaf", 1)).await.expect("it opens");
    let begun = Instant::now();
    tokio::time::sleep(limit + Duration::from_millis(CANCEL_GRACE_MS) + SOON).await;
    assert_eq!(seen.lock().expect("not poisoned").running(), 0, "it was stopped");
    assert!(matches!(unread.next().await, Some(Err(CallError::DeadlinePassed { .. }))));
    assert!(unread.next().await.is_none() && begun.elapsed() < limit + Duration::from_secs(4));
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_told_as_cancelled_that_nobody_cancelled_is_a_failure_of_the_tool() {
    let Set { host, instance, .. } = sound_stage();
    let stream = host.call_stream(&instance.id, streamed("claims", 1)).await.expect("it opens");
    let items: Vec<_> = stream.collect().await;
    let told = items.into_iter().last().expect("an end").expect_err("a failure");
    assert!(told.to_string().contains("nobody had asked"), "{told}");
    // Whoever unloads the instance asks all its calls to end.
    let mut stream = host.call_stream(&instance.id, streamed("hang", 0)).await.expect("it opens");
    host.unload(&instance.id).await.expect("unloaded");
    let told = stream.next().await.expect("an end").expect_err("cut off");
    assert!(!told.to_string().contains("nobody had asked"), "{told}");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_connection_broke_is_ended_by_force_once_nobody_reads_it() {
    let Set { host, instance, seen, .. } = sound_stage();
    let mut request = streamed("deaf", 1);
    request.kwargs.insert("cut".to_owned(), true.into());
    let mut stream = host.call_stream(&instance.id, request).await.expect("it opens");
    assert!(matches!(stream.next().await, Some(Ok(_))));
    assert!(matches!(stream.next().await, Some(Err(CallError::Connection { .. }))));
    assert!(stream.next().await.is_none());
    drop(stream);
    tokio::time::sleep(SOON).await;
    assert_eq!(seen.lock().expect("not poisoned").running(), 1, "it has its grace");
    tokio::time::sleep(Duration::from_millis(CANCEL_GRACE_MS)).await;
    assert_eq!(seen.lock().expect("not poisoned").running(), 0, "it runs on for nobody");
    host.shutdown().await;
}

/// So that they are found by run and by capability, and say who asked.
#[tokio::test(start_paused = true)]
async fn all_rows_of_a_direct_call_say_whose_it_is() {
    let Set { host, instance, journal, .. } = sound_stage();
    let (run, actor) = (RunId::new(), "somebody".to_owned());
    let mut asked = direct("account-and-fail");
    (asked.envelope.run_id, asked.envelope.actor) = (Some(run.clone()), Some(actor.clone()));
    host.call(&instance.id, asked, None).await.expect_err("it fails");
    host.call(&instance.id, direct("account-and-fail"), None).await.expect_err("it fails");
    let worker = instance.worker().expect("it lives").facts().session.to_string();
    let own = (host.services().run_id.to_string(), host.services().options.actor.clone());
    host.shutdown().await;
    let rows = journal.kept(|kept| [kept.accounts.clone(), kept.direct_calls_failed.clone()]);
    for [of_the_caller, of_the_host] in rows.map(|rows| <[_; 2]>::try_from(rows).expect("a row of each")) {
        for (row, (run, actor)) in
            [(of_the_caller, (run.to_string(), actor.clone())), (of_the_host, own.clone())]
        {
            assert_eq!((row.run_id, row.actor), (Some(run), Some(actor)), "{}", row.event_type);
            assert_eq!(row.capability_name.as_deref(), Some("tool"), "{}", row.event_type);
            assert_eq!(row.capability_instance_id, Some(instance.id.to_string()), "{}", row.event_type);
            assert_eq!(row.worker_session_id.as_deref(), Some(worker.as_str()), "{}", row.event_type);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stopped_while_its_row_is_written_is_not_sent() {
    let Set { host, journal, seen, .. } = sound_stage();
    let job = host.submit(request("hang")).await.expect("accepted");
    let (stops, jobs) = (job.clone(), host.runner().jobs.clone());
    journal.watch(move |moment, commit| {
        let starts = commit.writes.iter().any(|write| matches!(write, Write::StartJob(_)));
        if starts && moment == Moment::Written {
            jobs.get(&stops).expect("it runs").stopping.cancel();
        }
        false
    });
    // Stopped in the moment in which the row is written: the queue has said so, and asks.
    let (host_too, cancelled) = (host.clone(), job.clone());
    tokio::spawn(async move {
        while !host_too.jobs().get(&cancelled).is_some_and(|active| active.stopping.is_cancelled()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        host_too.cancel(&cancelled);
    });
    let told = host.wait(&job).await.expect("told");
    assert_eq!((told.status, told.started_at.is_some()), (JobStatus::Cancelled, true), "{told:?}");
    assert!(!seen.lock().expect("not poisoned").sent.contains(&job), "it was sent");
    host.shutdown().await;
}

fn load_x() -> LoadOptions {
    LoadOptions { instance_id: Some(x()), ..LoadOptions::default() }
}

/// A host with an instance that is being loaded, which hangs until it fails.
async fn hanging_load() -> (Host, Arc<Instance>, JoinHandle<Result<(), HostError>>) {
    let (host, _, starting) = hanging_start().await;
    starting.abort();
    for _ in 0..LOADS_MAX {
        let loads = host.clone();
        let loading = tokio::spawn(async move { loads.load("tool", load_x()).await.map(drop) });
        // One that does not hang is over by then.
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Some(instance) = host.instances().get(&x()) {
            return (host, instance, loading);
        }
    }
    panic!("no load hangs");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_overtakes_its_request_is_repeated() {
    for seed in 1..20 {
        let Set { host, seen, .. } = stage_of(QueueLimits::default(), seed, 0);
        let job = host.submit(request("hang")).await.expect("accepted");
        while seen.lock().expect("not poisoned").entered == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        host.cancel(&job);
        host.wait(&job).await.expect("told");
        let kills = seen.lock().expect("not poisoned").kills.clone();
        assert!(kills.is_empty(), "seed {seed}: {kills:?}, and it would have ended when asked");
        host.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_that_fails_takes_away_its_own_instance_and_no_other() {
    let (host, earlier, loading) = hanging_load().await;
    host.unload(&x()).await.expect("unloaded");
    // Faster than the end of the first load.
    host.register("tool", &load_x()).expect("the id is free");
    loading.await.expect("no panic").expect_err("it was unloaded");
    let known = host.instances().get(&x()).expect("the second is still there");
    assert!(!Arc::ptr_eq(&known, &earlier));
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_load_failed_starts_nothing_more() {
    let (host, instance, loading) = hanging_load().await;
    loading.await.expect("no panic").expect_err("it was never ready");
    assert!(!host.is_loaded(&x()));
    let runner = host.runner();
    let entered = instance.ensure_worker(&runner.services, &runner.jobs, None).await;
    assert!(matches!(entered, Err(NoWorker::Retired)), "nobody would ever end its worker");
    host.shutdown().await;
}

/// Whoever does other things meanwhile has a deadline all the same.
#[tokio::test(start_paused = true)]
async fn a_call_whose_caller_does_not_look_is_stopped_at_its_deadline() {
    let Set { host, instance, seen, .. } = sound_stage();
    let mut call = Box::pin(host.call(&instance.id, direct("hang"), Some(Duration::from_secs(1))));
    let _ = tokio::time::timeout(Duration::from_millis(100), &mut call).await;
    assert_eq!(seen.lock().expect("not poisoned").running(), 1);
    tokio::time::sleep(Duration::from_secs(1) + Duration::from_millis(CANCEL_GRACE_MS) + SOON).await;
    assert_eq!(seen.lock().expect("not poisoned").running(), 0);
    let told = call.await.expect_err("it was late");
    assert!(matches!(told, CallError::DeadlinePassed { .. }), "{told:?}");
    host.shutdown().await;
}

/// A tool that stops when it is asked, or had ended before, costs no innocent its worker because its reader looks away.
#[tokio::test(start_paused = true)]
async fn a_late_stream_that_nobody_reads_harms_nobody_else() {
    for request in [streamed("hang", 1), streamed("ok", 2)] {
        let Set { host, instance, .. } = sound_stage();
        let mut stream = host
            .call_stream_within(&instance.id, request, Duration::from_secs(1).into())
            .await
            .expect("it opens");
        let session = instance.worker().expect("a worker").facts().session.clone();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let now = instance.worker().map(|worker| worker.facts().session.clone());
        assert_eq!(now, Some(session), "its worker lives on");
        let mut last = None;
        while let Some(item) = stream.next().await {
            last = Some(item);
        }
        assert!(matches!(last, Some(Err(CallError::DeadlinePassed { .. }))), "{last:?}");
        host.shutdown().await;
    }
}

/// Whoever has spent a part of the time already gave the whole of it.
#[tokio::test(start_paused = true)]
async fn what_is_late_is_told_in_the_time_that_was_given() {
    let timeout = Timeout { given: Duration::from_secs(7), left: Duration::from_secs(2) };
    let seconds = |told: &CallError| match told {
        CallError::DeadlinePassed { seconds, .. } => *seconds,
        other => panic!("{other:?}"),
    };
    let (host, instance, _starting) = hanging_start().await;
    let (begun, seven) = (Instant::now(), 7.0);
    let opening = host.call_stream_within(&instance.id, direct("ok"), timeout).await.map(drop);
    assert_eq!(seconds(&opening.expect_err("no worker")), seven);
    assert!(begun.elapsed() < timeout.left + SOON, "{:?}", begun.elapsed());
    host.shutdown().await;

    let set = sound_stage();
    let Set { host, instance, .. } = &set;
    let mut late =
        host.call_stream_within(&instance.id, streamed("hang", 0), timeout).await.expect("it opens");
    assert_eq!(seconds(&late.next().await.expect("an end").expect_err("it is late")), seven);
    drop(host.call(&instance.id, direct("stubborn"), Some(timeout.given)).await.expect_err("it is late"));
    tokio::time::sleep(timeout.given).await;
    let messages: Vec<String> = set.journal.kept(|kept| {
        let rows = kept.direct_calls_failed.iter();
        rows.map(|row| row.payload["report"]["message"].as_str().unwrap_or_default().to_owned()).collect()
    });
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages.iter().all(|message| message.contains("within 7 s")), "{messages:?}");
    set.host.shutdown().await;
}

/// What the journal says of calls that are no jobs: how they ended, their code, and for whom.
fn told_of_calls(set: &Set) -> Vec<[String; 3]> {
    let text =
        |value: Option<&serde_json::Value>| value.and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    set.journal.kept(|kept| {
        let rows = kept.direct_calls_failed.iter();
        rows.map(|row| {
            let code = row.payload.get("report").and_then(|report| report.get("code"));
            [text(row.payload.get("status")), text(code), row.run_id.clone().unwrap_or_default()]
        })
        .collect()
    })
}

/// Whoever reads the journal would think that its caller has it.
#[tokio::test(start_paused = true)]
async fn a_result_that_nobody_got_any_more_is_told_as_the_end_of_its_call() {
    let set = sound_stage();
    let Set { host, instance, .. } = &set;
    let second = Duration::from_secs(1);
    host.call(&instance.id, direct("stubborn"), Some(second)).await.expect_err("it is late");
    tokio::time::sleep(second).await;
    tokio::time::timeout(second, host.call(&instance.id, direct("stubborn"), None)).await.expect_err("hangs");
    tokio::time::sleep(second).await;
    let own = host.services().run_id.to_string();
    let expected = [["failed", "call.deadline", &own], ["cancelled", "call.cancelled", &own]];
    assert_eq!(told_of_calls(&set), expected.map(|row| row.map(str::to_owned)).to_vec());
    assert!(set.seen.lock().expect("not poisoned").kills.is_empty(), "both answered when they were asked");
    set.host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_no_job_and_brings_no_result_has_its_row() {
    let set = sound_stage();
    let Set { host, instance, .. } = &set;
    let second = Duration::from_secs(1);
    host.call(&instance.id, direct("ok"), None).await.expect("it answers");
    let whole = host.call_stream(&instance.id, streamed("ok", 2)).await.expect("it opens");
    assert_eq!(whole.filter(|item| std::future::ready(item.is_ok())).count().await, 2);
    assert_eq!(told_of_calls(&set), Vec::<[String; 3]>::new(), "what went well needs none");

    let mut of_a_run = direct("fail");
    of_a_run.envelope.run_id = Some(RunId::from_text("theirs"));
    host.call(&instance.id, of_a_run, None).await.expect_err("it fails");
    host.call(&instance.id, direct("hang"), Some(second)).await.expect_err("it is late");
    drop(tokio::time::timeout(second, host.call(&instance.id, direct("hang"), None)).await);
    tokio::time::sleep(10 * second).await;
    let failing = host.call_stream(&instance.id, streamed("fail", 1)).await.expect("it opens");
    assert_eq!(failing.filter(|item| std::future::ready(item.is_err())).count().await, 1);
    let late =
        host.call_stream_within(&instance.id, streamed("hang", 1), second.into()).await.expect("it opens");
    assert_eq!(late.filter(|item| std::future::ready(item.is_err())).count().await, 1);
    drop(host.call_stream(&instance.id, streamed("hang", 1)).await.expect("it opens"));
    tokio::time::sleep(10 * second).await;

    let own = host.services().run_id.to_string();
    let expected = [
        ["failed", "call.tool_failed", "theirs"],
        ["failed", "call.deadline", &own],
        ["cancelled", "call.cancelled", &own],
        ["failed", "call.tool_failed", &own],
        ["failed", "call.deadline", &own],
        ["cancelled", "call.cancelled", &own],
    ];
    assert_eq!(told_of_calls(&set), expected.map(|row| row.map(str::to_owned)).to_vec());
    set.host.shutdown().await;
}
