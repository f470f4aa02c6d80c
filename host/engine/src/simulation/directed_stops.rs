//! Direct calls that are stopped: which of them are counted, for how long, and why their workers are killed.

use super::directed::{Set, sound_stage};
use super::scenario::{arguments, load};
use cjm_decide::death::OwnKill;
use cjm_decide::queue::CANCEL_GRACE_MS;
use cjm_store::Write;
use cjm_wire::envelope::{CallEnvelope, ExecuteRequest};
use cjm_wire::event::JobStatus;
use cjm_wire::{InstanceId, JobId};
use cjm_workers::{CallError, ChunkStream};
use futures_util::{FutureExt, StreamExt};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

/// What a host may take for what it does at once.
const SOON: Duration = Duration::from_millis(50);
/// A tool that hears has stopped by then, also where the first cancel came before its call.
const ASKED: Duration = Duration::from_millis(500);
/// What the calls here are given.
const GIVEN: Duration = Duration::from_secs(1);

pub(super) fn direct(act: &str) -> ExecuteRequest {
    ExecuteRequest { kwargs: arguments(act, 1, false), ..ExecuteRequest::default() }
}

#[tokio::test(start_paused = true)]
async fn calls_go_where_fewest_are() {
    let Set { host, instance, .. } = sound_stage();
    let ids = ["tool-1", "tool-2", "tool-3"].map(InstanceId::from_text);
    for id in &ids[1..] {
        host.register("tool", &load(id, 1)).expect("registered");
    }
    let least = || host.least_busy(&ids).expect("there are some").clone();
    let mut calls = Vec::new();
    for id in &ids {
        assert_eq!(least(), *id);
        let mut call = Box::pin(host.call(id, direct("hang"), None));
        assert!((&mut call).now_or_never().is_none());
        calls.push(call);
    }
    // A stream is a call, too.
    let stream = host.call_stream(&ids[0], direct("hang")).await.expect("it opens");
    assert_eq!(least(), ids[1]);
    drop(calls);
    tokio::time::sleep(ASKED).await;
    assert_eq!(least(), ids[1], "the stream is left");
    drop(stream);
    tokio::time::sleep(ASKED).await;
    assert_eq!((least(), instance.direct_calls.load(Ordering::Acquire)), (ids[0].clone(), 0));
    host.shutdown().await;
}

/// A tool that does not hear is at its call until its worker is dead, and others go elsewhere for as long.
#[tokio::test(start_paused = true)]
async fn a_dropped_stream_is_counted_until_its_worker_is_dead() {
    for is_cut in [false, true] {
        let Set { host, instance, seen, .. } = sound_stage();
        let mut request = direct("deaf");
        request.kwargs.insert("chunks".to_owned(), 1.into());
        if is_cut {
            request.kwargs.insert("cut".to_owned(), true.into());
        }
        let mut stream = host.call_stream(&instance.id, request).await.expect("it opens");
        while is_cut && stream.next().await.is_some() {}
        drop(stream);
        let counted = || instance.direct_calls.load(Ordering::Acquire);
        let running = || seen.lock().expect("not poisoned").running();
        for _ in 0..CANCEL_GRACE_MS + 100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(counted() >= running(), "{} run, {} are counted", running(), counted());
        }
        assert_eq!((counted(), running()), (0, 0));
        host.shutdown().await;
    }
}

/// A program that a tool has started may have its connection, and outlive it.
#[tokio::test(start_paused = true)]
async fn a_dropped_stream_whose_connection_somebody_else_holds_ends_with_its_worker() {
    let Set { host, instance, .. } = sound_stage();
    let mut request = direct("deaf");
    request.kwargs.insert("held".to_owned(), true.into());
    let stream = host.call_stream(&instance.id, request).await.expect("it opens");
    drop(stream);
    assert_eq!(instance.direct_calls.load(Ordering::Acquire), 1);
    tokio::time::sleep(Duration::from_millis(CANCEL_GRACE_MS) + SOON).await;
    assert_eq!(instance.direct_calls.load(Ordering::Acquire), 0, "it is waited for");
    host.shutdown().await;
}

/// One who looks in the moment in which it is woken, while whoever wakes it waits.
struct LooksAtOnce {
    stream: Mutex<ChunkStream>,
    found: Mutex<mpsc::Sender<Option<String>>>,
}

impl Wake for LooksAtOnce {
    fn wake(self: Arc<Self>) {
        let (looked, looks) = mpsc::channel();
        let stream = Arc::clone(&self);
        std::thread::spawn(move || {
            let mut stream = stream.stream.lock().expect("not poisoned");
            let found = stream.poll_next_unpin(&mut Context::from_waker(Waker::noop()));
            let _ = looked.send(format!("{found:?}"));
        });
        let found = looks.recv_timeout(Duration::from_secs(5)).ok();
        let _ = self.found.lock().expect("not poisoned").send(found);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_woken_for_a_late_stream_may_look_at_once() {
    let Set { host, instance, .. } = sound_stage();
    let stream = host.call_stream_within(&instance.id, direct("deaf"), GIVEN.into()).await.expect("it opens");
    let (found, finds) = mpsc::channel();
    let reader = Arc::new(LooksAtOnce { stream: Mutex::new(stream), found: Mutex::new(found) });
    let waker = Waker::from(Arc::clone(&reader));
    let polled =
        reader.stream.lock().expect("not poisoned").poll_next_unpin(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    tokio::time::sleep(GIVEN + SOON).await;
    let found = finds.try_recv().expect("it was woken").expect("what it looks at was locked");
    assert!(found.contains("DeadlinePassed"), "{found}");
    host.shutdown().await;
}

/// What a call is stopped for is what its worker is killed for.
#[tokio::test(start_paused = true)]
async fn a_worker_is_killed_for_the_deadline_of_a_call_or_because_its_caller_went_away() {
    for is_late in [true, false] {
        for kind in ["call", "stream", "unopened"] {
            let Set { host, instance, seen, .. } = sound_stage();
            let job = JobId::new();
            let envelope = CallEnvelope { job_id: Some(job.clone()), ..CallEnvelope::default() };
            let mut request = ExecuteRequest { envelope, ..direct("deaf") };
            if kind == "unopened" {
                request.kwargs.insert(kind.to_owned(), true.into());
            }
            let given = if is_late { GIVEN } else { Duration::from_secs(60) };
            let (host_too, id) = (host.clone(), instance.id.clone());
            let calling = async move {
                if kind == "call" {
                    return host_too.call(&id, request, Some(given)).await.map(drop);
                }
                let mut stream = host_too.call_stream_within(&id, request, given.into()).await?;
                stream.next().await.expect("it never ends").map(drop)
            };
            let told = tokio::time::timeout(GIVEN + SOON, calling).await;
            assert_eq!(told.is_ok(), is_late, "{kind}");
            if let Ok(told) = told {
                assert!(matches!(told, Err(CallError::DeadlinePassed { .. })), "{kind}: {told:?}");
            }
            assert_eq!(seen.lock().expect("not poisoned").running(), 1, "{kind}: it has its grace");
            tokio::time::sleep(Duration::from_millis(CANCEL_GRACE_MS) + SOON).await;
            let (running, kills) = {
                let seen = seen.lock().expect("not poisoned");
                (seen.running(), seen.kills.clone())
            };
            let expected = if is_late { OwnKill::Deadline { job } } else { OwnKill::ForceCancel { job } };
            assert_eq!((running, kills), (0, vec![expected]), "{kind}");
            host.shutdown().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_call_that_fails_accounted_for_is_kept() {
    let Set { host, instance, journal, .. } = sound_stage();
    host.call(&instance.id, direct("account-and-fail"), None).await.expect_err("it fails");
    let job = host.submit(super::directed::request("account-and-fail")).await.expect("accepted");
    host.wait(&job).await.expect("told");
    host.shutdown().await;
    assert_eq!(journal.kept(|kept| (kept.accounts.len(), kept.broken.clone())), (2, Vec::new()));
}

/// Its reader may hold it for long after.
#[tokio::test(start_paused = true)]
async fn a_stream_that_has_ended_leaves_nothing_behind_though_it_is_held() {
    let Set { host, instance, .. } = sound_stage();
    host.call(&instance.id, direct("ok"), None).await.expect("it lives");
    tokio::time::sleep(SOON).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for act in ["ok", "fail"] {
        let mut request = direct(act);
        request.kwargs.insert("chunks".to_owned(), 2.into());
        let mut stream = host.call_stream(&instance.id, request).await.expect("it opens");
        let mut last = None;
        for _ in 0..2 + usize::from(act == "fail") {
            last = stream.next().await;
        }
        assert_eq!(last.is_some_and(|last| last.is_ok()), act == "ok");
        if act == "ok" {
            assert!(stream.next().await.is_none());
        }
        tokio::time::sleep(SOON).await;
        assert_eq!(instance.direct_calls.load(Ordering::Acquire), 0, "{act}: it is over");
        assert_eq!(tasks(), before, "{act}: nobody looks at its deadline");
        drop(stream);
    }
    host.shutdown().await;
}

/// The store takes back a start that it refuses; what follows must begin where the job stands there.
#[tokio::test(start_paused = true)]
async fn a_job_whose_start_is_refused_ends_from_where_it_stood() {
    let Set { host, journal, seen, .. } = sound_stage();
    journal.refuse(|commit| commit.writes.iter().any(|write| matches!(write, Write::StartJob(_))));
    let job = host.submit(super::directed::request("ok")).await.expect("accepted");
    let told = host.wait(&job).await.expect("told");
    assert_eq!((told.status, told.started_at.is_some()), (JobStatus::Failed, false));
    assert!(!seen.lock().expect("not poisoned").sent.contains(&job), "it was sent");
    journal.refuse(|_| false);
    let next = host.submit(super::directed::request("ok")).await.expect("accepted");
    assert_eq!(host.wait(&next).await.expect("told").status, JobStatus::Completed);
    host.shutdown().await;
    let (end, broken) = journal.kept(|kept| (kept.jobs[&job].clone(), kept.broken.clone()));
    assert_eq!((end.status, end.attempt, broken), (JobStatus::Failed, 0, Vec::new()));
}
