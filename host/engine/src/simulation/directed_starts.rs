//! Starts that fail, and those that are given up: who is told what, and what is kept of them.

use super::directed::{Set, request, sound_stage, stage_of};
use super::scenario::load;
use crate::error::HostError;
use crate::instances::NoWorker;
use cjm_decide::death::OwnKill;
use cjm_decide::queue::QueueLimits;
use cjm_wire::InstanceId;
use cjm_wire::event::JobStatus;
use std::time::Duration;
use tokio::time::Instant;

/// Enough for starts that fail in every way.
const JOBS: usize = 30;
/// Seeds of workers whose starts end in different ways.
const SEEDS: u64 = 8;
/// A start that does not hang has ended by then.
const START_MS_MAX: u64 = 70;

/// Nobody starts it again for each of them.
#[tokio::test(start_paused = true)]
async fn all_who_wait_for_a_start_are_told_why_it_failed() {
    for seed in 1..SEEDS {
        let Set { host, instance, seen, .. } = stage_of(QueueLimits::default(), seed, 100);
        let runner = host.runner();
        let asks = || instance.ensure_worker(&runner.services, &runner.jobs, None);
        let told = futures_util::future::join_all([asks(), asks(), asks()]).await;
        let why = told.iter().map(|told| match told {
            Err(NoWorker::Failed(error, _)) => error.to_string(),
            _ => panic!("seed {seed}: it did not fail for everybody"),
        });
        let why: Vec<String> = why.collect();
        assert!(why.iter().all(|other| *other == why[0]), "seed {seed}: {why:?}");
        assert!(seen.lock().expect("not poisoned").sessions.len() <= 1, "seed {seed}: it was started again");
        host.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_worker_did_not_start_names_incarnation_and_process() {
    let Set { host, journal, seen, .. } = stage_of(QueueLimits::default(), 3, 100);
    for _ in 0..JOBS {
        let job = host.submit(request("ok")).await.expect("accepted");
        let told = host.wait(&job).await.expect("told");
        assert_eq!(told.status, JobStatus::Failed);
        let session = told.worker_session_id.clone().expect("an incarnation");
        let session = cjm_wire::WorkerSessionId::from_text(session);
        // None where nothing was spawned.
        assert_eq!(told.worker_pid, journal.kept(|kept| kept.pid_of(&session)));
    }
    let spawned = seen.lock().expect("not poisoned").sessions.len();
    assert!(spawned > JOBS / 2, "{spawned} of {JOBS} were spawned");
    host.shutdown().await;
}

/// Also where it was ready in the moment in which it was given up.
#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_load_that_was_given_up() {
    let mut given_up = 0;
    for (seed, moment) in (1..SEEDS).flat_map(|seed| (0..START_MS_MAX).map(move |moment| (seed, moment))) {
        let Set { host, seen, .. } = stage_of(QueueLimits::default(), seed, 0);
        let (loads, id) = (host.clone(), InstanceId::from_text("x"));
        let options = load(&id, 1);
        let loading = tokio::spawn(async move { loads.load("tool", options).await });
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        host.unload(&id).await.expect("it is there");
        let told = loading.await.expect("no panic");
        given_up += usize::from(told.is_err());
        let living = seen.lock().expect("not poisoned").living.clone();
        assert!(living.is_empty(), "seed {seed}, {moment} ms: {living:?} lives when that is told");
        host.shutdown().await;
    }
    assert!(given_up > 0, "every start was over before");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_while_its_keeper_stands_has_its_end_in_the_journal() {
    for seed in 1..SEEDS {
        let Set { host, journal, keeper_stands, .. } = stage_of(QueueLimits::default(), seed, 100);
        keeper_stands.send_replace(true);
        let options = load(&InstanceId::from_text("x"), 1);
        let loads = host.clone();
        let loading = tokio::spawn(async move { loads.load("tool", options).await });
        // One that dies by itself is not known to have, while the keeper stands.
        tokio::time::sleep(Duration::from_secs(10)).await;
        host.shutdown().await;
        let told = loading.await.expect("no panic").expect_err("no worker");
        let closed = matches!(told, HostError::ShuttingDown | HostError::UnknownInstance(_));
        assert!(closed || matches!(told, HostError::Start(_)), "seed {seed}: {told:?}");
        journal.kept(|kept| assert_eq!(kept.spawned, kept.died, "seed {seed}: {told:?}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_hangs_dies_of_its_time() {
    let mut hung = 0;
    for seed in 1..40 {
        let Set { host, instance, journal, .. } = stage_of(QueueLimits::default(), seed, 100);
        let (begun, session, runner) = (Instant::now(), instance.session(), host.runner());
        let told = instance.ensure_worker(&runner.services, &runner.jobs, None).await;
        assert!(told.is_err(), "seed {seed}");
        let expected = if begun.elapsed() < host.services().options.ready_timeout {
            "startup"
        } else {
            hung += 1;
            "startup_timeout"
        };
        host.shutdown().await;
        let phase = journal.kept(|kept| kept.phases.get(&session).cloned());
        assert!(phase.as_deref().is_none_or(|phase| phase == expected), "seed {seed}: {phase:?}");
    }
    assert!(hung > 0, "none of them hangs");
}

/// A kill that comes before there is a process is not lost.
#[tokio::test(start_paused = true)]
async fn a_start_that_is_given_up_before_it_has_a_process_ends_soon() {
    let mut given_up = 0;
    for seed in 1..40 {
        let Set { host, instance, seen, .. } = stage_of(QueueLimits::default(), seed, 100);
        let (starts, runner) = (instance.clone(), host.runner().clone());
        let starting =
            tokio::spawn(
                async move { starts.ensure_worker(&runner.services, &runner.jobs, None).await.is_ok() },
            );
        tokio::task::yield_now().await;
        // Some have a process at once.
        let spawned = || seen.lock().expect("not poisoned").sessions.len();
        let before = spawned();
        let begun = Instant::now();
        host.unload(&instance.id).await.expect("unloaded");
        assert!(!starting.await.expect("no panic"));
        assert!(begun.elapsed() < Duration::from_millis(START_MS_MAX), "seed {seed}: {:?}", begun.elapsed());
        given_up += spawned() - before;
        host.shutdown().await;
    }
    assert!(given_up > 0, "nothing was spawned after it was given up");
}

/// What was asked of one start says nothing of the next.
#[tokio::test(start_paused = true)]
async fn a_kill_ends_one_start_and_not_the_next() {
    let Set { host, instance, .. } = sound_stage();
    let runner = host.runner().clone();
    let (starts, first) = (instance.clone(), instance.session());
    let of = runner.clone();
    let starting =
        tokio::spawn(async move { starts.ensure_worker(&of.services, &of.jobs, None).await.is_ok() });
    tokio::task::yield_now().await;
    instance.recycle(&runner.services, &runner.jobs, &first, OwnKill::Evicted);
    starting.await.expect("no panic");
    while instance.session() == first {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let next = instance.ensure_worker(&runner.services, &runner.jobs, None).await;
    assert!(next.is_ok_and(|worker| worker.facts().session != first));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(instance.worker().is_some(), "it was killed for the one before");
    host.shutdown().await;
}
