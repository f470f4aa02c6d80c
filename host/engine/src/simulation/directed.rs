//! What no random scenario comes upon, or none would miss: single moments, over the same simulated workers and journal.

use super::body::Seen;
use super::journal::SimulatedJournal;
use super::making::host;
use super::scenario::{arguments, load};
use super::seed::Seed;
use super::workers::SimulatedWorkers;
use crate::error::HostError;
use crate::host::Host;
use crate::instances::Instance;
use crate::queue::submission::JobRequest;
use cjm_decide::death::OwnKill;
use cjm_decide::queue::{CANCEL_GRACE_MS, QueueError, QueueLimits, Target};
use cjm_wire::InstanceId;
use cjm_wire::composition::{Composition, RunOutcome};
use cjm_wire::envelope::ExecuteRequest;
use cjm_wire::event::JobStatus;
use cjm_wire::json::Arguments;
use cjm_workers::{LoadOptions, NodeState};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Seeds that are tried until one makes a worker whose start hangs.
const SEEDS_MAX: u64 = 100;
/// A start that does not hang is over by then.
const START_MAX: Duration = Duration::from_millis(100);

/// A host with one instance, and what it is made of.
pub(super) struct Set {
    pub(super) host: Host,
    pub(super) instance: Arc<Instance>,
    pub(super) journal: Arc<SimulatedJournal>,
    pub(super) seen: Arc<Mutex<Seen>>,
    pub(super) keeper_stands: watch::Sender<bool>,
}

/// A host with one instance. Of a hundred starts so many fail.
pub(super) fn stage(limits: QueueLimits, seed: u64, start_failures: u64) -> (Host, Arc<Instance>) {
    let Set { host, instance, .. } = stage_of(limits, seed, start_failures);
    (host, instance)
}

/// One whose worker does not die by itself, which some do.
pub(super) fn sound_stage() -> Set {
    stage_of(QueueLimits::default(), 2, 0)
}

pub(super) fn stage_of(limits: QueueLimits, seed: u64, start_failures: u64) -> Set {
    let mut seed = Seed::new(seed);
    let journal = SimulatedJournal::new(seed.fork());
    tokio::spawn(Arc::clone(&journal).write_on());
    let workers = SimulatedWorkers::new(Arc::clone(&journal), seed.fork(), 1, start_failures);
    let (seen, keeper_stands) = (Arc::clone(&workers.seen), workers.keeper_stands.clone());
    let host = host(limits, &journal, Arc::new(workers));
    let id = InstanceId::from_text("tool-1");
    host.register("tool", &load(&id, 1)).expect("registered");
    let instance = host.instances().get(&id).expect("registered");
    Set { host, instance, journal, seen, keeper_stands }
}

pub(super) fn request(act: &str) -> JobRequest {
    let mut request = JobRequest::new(Target::Capability("tool".to_owned()));
    request.kwargs = arguments(act, 1, true).into_iter().map(|(name, value)| (name, value.into())).collect();
    request
}

#[tokio::test(start_paused = true)]
async fn killing_an_incarnation_that_has_no_process_announces_the_next_one() {
    let (host, instance) = stage(QueueLimits::default(), 1, 0);
    let runner = host.runner();
    let before = instance.session();
    instance.recycle(&runner.services, &runner.jobs, &before, OwnKill::Evicted);
    assert_ne!(instance.session(), before);
    // The queue was told: what it admits now is found.
    let job = host.submit(request("ok")).await.expect("accepted");
    let told = tokio::time::timeout(Duration::from_secs(1), host.wait(&job)).await.expect("it runs");
    let told = told.expect("told");
    assert_eq!(
        (told.status, told.worker_session_id.clone()),
        (JobStatus::Completed, Some(instance.session().to_string()))
    );
    host.shutdown().await;
}

/// A host with one instance whose worker is being started, which takes for ever.
pub(super) async fn hanging_start() -> (Host, Arc<Instance>, JoinHandle<Result<(), ()>>) {
    for seed in 1..SEEDS_MAX {
        let (host, instance) = stage(QueueLimits::default(), seed, 100);
        let (starts, runner) = (Arc::clone(&instance), host.runner().clone());
        let starting = tokio::spawn(async move {
            starts.ensure_worker(&runner.services, &runner.jobs, None).await.map(|_| ()).map_err(|_| ())
        });
        tokio::time::sleep(START_MAX).await;
        if !starting.is_finished() {
            return (host, instance, starting);
        }
        host.shutdown().await;
    }
    panic!("no start hangs");
}

#[tokio::test(start_paused = true)]
async fn killing_an_incarnation_that_starts_ends_its_start() {
    let (host, instance, starting) = hanging_start().await;
    let (begun, session) = (Instant::now(), instance.session());
    let runner = host.runner();
    instance.recycle(&runner.services, &runner.jobs, &session, OwnKill::Evicted);
    assert_eq!(starting.await.expect("no panic"), Err(()), "it was killed");
    assert!(begun.elapsed() < START_MAX, "{:?}", begun.elapsed());
    assert_ne!(instance.session(), session);
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_unloaded_while_it_starts_is_killed() {
    let (host, instance, starting) = hanging_start().await;
    let begun = Instant::now();
    host.unload(&instance.id).await.expect("unloaded");
    assert_eq!(starting.await.expect("no panic"), Err(()), "it was killed");
    assert!(begun.elapsed() < START_MAX, "{:?}", begun.elapsed());
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_late_is_told_of_the_process_too() {
    let (host, _) = stage(QueueLimits::default(), 1, 0);
    let mut told = Vec::new();
    for _ in 0..3 {
        let job = host.submit(request("ok")).await.expect("accepted");
        told.push(host.wait(&job).await.expect("told"));
    }
    for outcome in told {
        let late = host.wait(&outcome.job_id).await.expect("told");
        assert!(late.worker_pid.is_some(), "{late:?}");
        assert_eq!(late.worker_pid, outcome.worker_pid);
    }
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_counted_against_what_may_wait() {
    let limits = QueueLimits { pending_max: 2, ..QueueLimits::default() };
    let (host, instance) = stage(limits, 1, 0);
    host.unload(&instance.id).await.expect("unloaded");
    let waiting = [request("ok"), request("ok")].map(|request| host.submit(request));
    let waiting = futures_util::future::join_all(waiting).await;
    // The owner has counted them.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let refused = host.submit(request("ok")).await.expect_err("full");
    let full = QueueError::PendingFull { pending: 2, asked: 1, max: 2 };
    assert!(matches!(&refused, HostError::Refused(error) if *error == full), "{refused:?}");
    let first = waiting[0].as_ref().expect("accepted");
    host.cancel(first);
    assert_eq!(host.wait(first).await.expect("told").status, JobStatus::Cancelled);
    host.submit(request("ok")).await.expect("there is room again");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn killing_one_incarnation_spares_the_next() {
    let (host, instance) = stage(QueueLimits::default(), 1, 0);
    let runner = host.runner();
    let first = instance.session();
    instance.recycle(&runner.services, &runner.jobs, &first, OwnKill::Evicted);
    let second = instance.session();
    instance.recycle(&runner.services, &runner.jobs, &first, OwnKill::Evicted);
    assert_eq!(instance.session(), second, "it had nothing to do with that");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_ends_with_its_instance_is_told_with_its_process() {
    let (host, instance) = stage(QueueLimits::default(), 1, 0);
    let job = host.submit(request("deaf")).await.expect("accepted");
    while host.job_status(&job).await.expect("known") != JobStatus::Running {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let pid = instance.worker().expect("it lives").facts().pid;
    // It ends after the instance is forgotten.
    host.unload(&instance.id).await.expect("unloaded");
    let told = host.wait(&job).await.expect("told");
    assert!(told.status == JobStatus::Failed && told.started_at.is_some(), "{told:?}");
    assert_eq!(told.worker_pid, Some(pid));
    host.shutdown().await;
}

pub(super) fn composition(document: serde_json::Value) -> Composition {
    serde_json::from_value(document).expect("a composition")
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_beside_what_does_not_bind_is_cancelled() {
    let Set { host, journal, .. } = sound_stage();
    let document = composition(json!({"name": "t", "nodes": {
        "runs": {"capability": "tool", "args": {"do": "deaf", "job": true}},
        "bad": {"capability": "tool", "map": [1], "args": {"do": "${item.nothing}"}},
    }}));
    let (begun, id) = (Instant::now(), host.submit_composition(document, Arguments::new()).await);
    let id = id.expect("accepted");
    let told = host.wait_composition(&id).await.expect("told");
    assert_eq!((told.outcome, told.still_running), (RunOutcome::Failed, 1));
    let place = told.failures.first().map(|first| (first.node.as_deref(), first.element));
    assert_eq!(place, Some((Some("bad"), Some(0))));
    assert!(journal.kept(|kept| kept.failing.contains_key(&id)), "told before it is kept");
    let end = host.wait_composition_end(&id).await.expect("it ends");
    assert_eq!(end.nodes[0].status, NodeState::Cancelled);
    assert!(begun.elapsed() < Duration::from_millis(CANCEL_GRACE_MS + 1_000), "{:?}", begun.elapsed());
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_nobody_asked_for_is_a_failure_of_the_tool() {
    let (host, instance) = stage(QueueLimits::default(), 1, 0);
    let job = host.submit(request("claims")).await.expect("accepted");
    let told = host.wait(&job).await.expect("told");
    assert_eq!(told.status, JobStatus::Failed, "{told:?}");
    let why = told.failure.clone().expect("it says why").report.message;
    assert!(why.contains("nobody had asked"), "{why}");
    let direct = ExecuteRequest { kwargs: arguments("claims", 1, false), ..ExecuteRequest::default() };
    let told = host.call(&instance.id, direct, None).await.expect_err("a failure");
    assert!(told.to_string().contains("nobody had asked"), "{told}");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_past_its_time_fails_and_so_do_the_jobs_it_stopped() {
    let Set { host, journal, .. } = sound_stage();
    let document = composition(json!({"name": "t", "failure": "best_effort", "nodes": {
        "good": {"capability": "tool", "args": {"do": "ok", "job": true}},
        "runs": {"capability": "tool", "after": ["good"], "args": {"do": "hang", "job": true}},
        "too": {"capability": "tool", "after": ["good"], "args": {"do": "hang", "job": true}},
        "after": {"capability": "tool", "after": ["runs"]},
    }}));
    let timeout = Duration::from_secs(1);
    let id = host
        .submit_composition_within(document, Arguments::new(), Some(timeout.into()))
        .await
        .expect("accepted");
    let told = host.wait_composition(&id).await.expect("told");
    let code = told.failure.as_ref().map(|failure| failure.report.code.as_str());
    assert_eq!((told.outcome, code), (RunOutcome::Failed, Some("composition.deadline")));
    let states: Vec<NodeState> = told.nodes.iter().map(|node| node.status).collect();
    assert_eq!(states, [NodeState::Completed, NodeState::Failed, NodeState::Failed, NodeState::Cancelled]);
    let codes: Vec<String> = journal.kept(|kept| {
        kept.jobs.values().filter_map(|job| Some(job.failure.as_ref()?.report.code.clone())).collect()
    });
    assert_eq!(codes, ["composition.deadline", "composition.deadline"]);
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_composition_is_not_run_with_another_configuration_than_it_names() {
    let (host, instance) = stage(QueueLimits::default(), 1, 0);
    host.unload(&instance.id).await.expect("unloaded");
    let loaded = LoadOptions { config: Some(json!({"size": 2, "same": 1})), ..LoadOptions::default() };
    host.register("tool", &loaded).expect("registered");
    let naming = |config: serde_json::Value| {
        let document = json!({"name": "t", "capabilities": {"tool": {"config": config}}, "nodes": {
            "one": {"capability": "tool", "args": {"do": "ok", "job": true}},
        }});
        host.submit_composition(composition(document), Arguments::new())
    };
    for (other, differ) in [(json!({"size": 3, "same": 1}), "size"), (json!({"size": 2}), "same")] {
        let refused = naming(other).await.expect_err("another one");
        let HostError::OtherConfiguration { keys, .. } = &refused else { panic!("{refused:?}") };
        assert_eq!(*keys, [differ]);
    }
    for same in [json!({"same": 1, "size": 2}), json!({}), json!(null)] {
        let id = naming(same).await.expect("the same, or none");
        assert_eq!(host.wait_composition(&id).await.expect("told").outcome, RunOutcome::Completed);
    }
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_takes_no_call_is_not_started_for_ever() {
    let limits = QueueLimits { lanes: 2, ..QueueLimits::default() };
    let (host, _) = stage(limits, 1, 0);
    let job = host.submit(request("untaken")).await.expect("accepted");
    let next = host.submit(request("ok")).await.expect("accepted");
    let told = host.wait(&job).await.expect("told");
    assert_eq!(told.status, JobStatus::Failed, "{told:?}");
    let why = told.failure.clone().expect("it says why").report;
    assert_eq!((why.code.as_str(), why.exit_code), ("call.worker_died", 11), "{why:?}");
    assert!(why.message.contains("died before its tool took the call"), "{why:?}");
    assert_eq!(host.wait(&next).await.expect("told").status, JobStatus::Completed, "nobody else suffers");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_urgent_runs_first_and_what_needs_an_adapter_is_refused_without_one() {
    let limits = QueueLimits { lanes: 1, ..QueueLimits::default() };
    let (host, _) = stage(limits, 2, 0);
    let priorities = [0, 1, 9, 4];
    let mut jobs = Vec::new();
    for priority in priorities {
        jobs.push(host.submit(JobRequest { priority, ..request("ok") }).await.expect("accepted"));
    }
    let told = futures_util::future::join_all(jobs.iter().map(|job| host.wait(job))).await;
    let mut begun: Vec<_> = told
        .into_iter()
        .zip(priorities)
        .map(|(told, priority)| (told.expect("told").started_at.clone().expect("it ran"), priority))
        .collect();
    begun.sort();
    // The first found a free lane.
    assert_eq!(begun.iter().map(|(_, priority)| *priority).collect::<Vec<_>>(), [0, 9, 4, 1]);
    let python = host.register("python", &LoadOptions::default()).expect("registered");
    let mut task = JobRequest::new(Target::Instance(python));
    task.task = Some(("segment".to_owned(), "run".to_owned()));
    let refused = host.submit(task).await;
    assert!(matches!(refused, Err(HostError::NoAdapter(_))), "{refused:?}");
    host.shutdown().await;
}
