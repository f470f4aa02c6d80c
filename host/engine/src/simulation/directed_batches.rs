//! Runs with many or large elements: what is submitted together, what is stopped, what is told and written of them.

use super::answering::RSS_MB_PER_PID;
use super::directed::{Set, composition, request, sound_stage, stage_of};
use super::journal::Moment;
use super::scenario::load;
use crate::compositions::state::CompositionOutcome;
use crate::error::HostError;
use cjm_decide::composition::FAILURES_LISTED_MAX;
use cjm_decide::queue::{CANCEL_GRACE_MS, QueueLimits};
use cjm_store::{JobRecord, StoreError, Write};
use cjm_wire::composition::RunOutcome;
use cjm_wire::event::JobStatus;
use cjm_wire::json::{Arguments, Json};
use cjm_wire::{CompositionId, InstanceId};
use cjm_workers::{HostEvent, LoadOptions, NodeState};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// An argument of which a batch holds one.
const LARGE_BYTES: usize = 3 * 1024 * 1024;
/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node whose elements do not fit into one batch.
fn large(act: &str, elements: usize) -> Value {
    let items: Vec<usize> = (0..elements).collect();
    json!({"name": "t", "inputs": {"pad": {"type": "string"}}, "nodes": {
        "many": {"capability": "tool", "map": items,
                 "args": {"do": act, "job": true, "pad": "${inputs.pad}"}},
    }})
}

fn pad() -> Arguments {
    Arguments::from_iter([("pad".to_owned(), Json::of("x".repeat(LARGE_BYTES)))])
}

#[tokio::test(start_paused = true)]
async fn every_batch_of_a_run_is_reached_by_its_cancel() {
    let Set { host, journal, seen, .. } = sound_stage();
    let id = host.submit_composition(composition(large("hang", 3)), pad()).await.expect("accepted");
    while seen.lock().expect("not poisoned").entered == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    host.cancel_composition(&id);
    let begun = Instant::now();
    let told = tokio::time::timeout(PATIENCE, host.wait_composition_end(&id)).await.expect("it ends");
    assert_eq!(told.expect("told").outcome, RunOutcome::Cancelled);
    assert!(begun.elapsed() < Duration::from_millis(CANCEL_GRACE_MS), "{:?}", begun.elapsed());
    assert_eq!(seen.lock().expect("not poisoned").entered, 1);
    assert_eq!(journal.kept(|kept| kept.broken.clone()), Vec::<String>::new());
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_a_batch_that_is_refused_is_refused_with_it() {
    let Set { host, journal, .. } = sound_stage();
    let batches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&batches);
    // The disk takes the first batch alone.
    journal.watch(move |moment, commit| {
        let accepts = commit.writes.iter().any(|write| matches!(write, Write::InsertJob(..)));
        accepts && moment == Moment::HandedIn && counted.fetch_add(1, Ordering::Relaxed) == 1
    });
    let id = host.submit_composition(composition(large("ok", 4)), pad()).await.expect("accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(batches.load(Ordering::Relaxed), 2, "nothing more is tried");
    journal.watch(|_, _| false);
    journal.set_failing(false);
    let told = tokio::time::timeout(PATIENCE, host.wait_composition_end(&id)).await.expect("it ends");
    let told = told.expect("told");
    assert_eq!(told.failure.as_ref().map(|why| why.report.code.as_str()), Some("store.closed"));
    assert_eq!(journal.kept(|kept| kept.jobs.len()), 1);
    host.shutdown().await;
}

/// There is always another end while there are elements, and the time of the run is not behind all of them.
#[tokio::test(start_paused = true)]
async fn the_time_of_a_run_is_looked_at_while_its_elements_end() {
    let Set { host, .. } = stage_of(QueueLimits { lanes: 16, ..QueueLimits::default() }, 3, 0);
    host.register("tool", &load(&InstanceId::from_text("tool-2"), 16)).expect("registered");
    let items: Vec<usize> = (0..2000).collect();
    let document = json!({"name": "t", "failure": "best_effort", "nodes": {
        "many": {"capability": "tool", "map": items, "args": {"do": "ok", "job": true}},
    }});
    let given = Duration::from_millis(500);
    let (begun, document) = (Instant::now(), composition(document));
    let id = host
        .submit_composition_within(document, Arguments::new(), Some(given.into()))
        .await
        .expect("accepted");
    let told = tokio::time::timeout(PATIENCE, host.wait_composition_end(&id)).await.expect("it ends");
    let told = told.expect("told");
    let failure = told.failure.as_ref().expect("why");
    assert_eq!((told.outcome, failure.report.code.as_str()), (RunOutcome::Failed, "composition.deadline"));
    assert_eq!((failure.error.retriable, failure.report.details.retriable), (true, Some(true)));
    let most = given + Duration::from_millis(CANCEL_GRACE_MS);
    assert!((given..most).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    host.shutdown().await;
}

/// The job of a node that waited for its turn ends `failed`, with the run's deadline; of the node nothing has failed.
#[tokio::test(start_paused = true)]
async fn what_had_not_begun_when_the_time_of_its_run_was_over_is_told_as_that() {
    let limits = QueueLimits { lanes: 1, ..QueueLimits::default() };
    let Set { host, seen, journal, .. } = stage_of(limits, 3, 0);
    let node = json!({"capability": "tool", "args": {"do": "hang", "job": true}});
    let mut half = node.clone();
    half["map"] = json!([1, 2, 3]);
    let document = json!({"name": "t", "failure": "best_effort", "nodes": {"one": half, "two": node}});
    let given = Some(Duration::from_millis(500));
    let id =
        host.submit_composition_within(composition(document), Arguments::new(), given.map(Into::into)).await;
    let id = id.expect("accepted");
    let told = tokio::time::timeout(PATIENCE, host.wait_composition_end(&id)).await.expect("it ends");
    let told = told.expect("told");
    assert_eq!(seen.lock().expect("not poisoned").entered, 1);
    let code = told.failure.as_ref().map(|failure| failure.report.code.as_str());
    assert_eq!((told.outcome, code), (RunOutcome::Failed, Some("composition.deadline")));
    let (begun, waited): (Vec<_>, Vec<_>) = told.nodes.iter().partition(|node| node.started_at.is_some());
    assert_eq!((begun.len(), begun[0].status, begun[0].failure.is_some()), (1, NodeState::Failed, true));
    let said = (waited[0].status, waited[0].reason.as_deref(), waited[0].failure.is_none());
    assert_eq!(said, (NodeState::Cancelled, Some("it was not begun"), true));
    // The journal says the same, of the elements beside the one that ran too.
    let told = |job: &JobRecord| (job.status.as_str(), job.failure.is_some());
    let mut ends: Vec<_> = journal.kept(|kept| kept.jobs.values().map(told).collect());
    ends.sort_unstable();
    let cancelled = ("cancelled", false);
    assert_eq!(ends, [cancelled, cancelled, cancelled, ("failed", true)]);
    host.shutdown().await;
}

/// Nobody cancelled it: that it had no turn in time is why it failed.
#[tokio::test(start_paused = true)]
async fn what_waits_past_its_own_deadline_has_failed() {
    let Set { host, .. } = stage_of(QueueLimits { lanes: 1, ..QueueLimits::default() }, 3, 0);
    let first = host.submit(request("hang")).await.expect("accepted");
    let mut late = request("ok");
    late.timeout = Some(Duration::from_millis(500).into());
    let late = host.submit(late).await.expect("accepted");
    let told = tokio::time::timeout(PATIENCE, host.wait(&late)).await.expect("it ends").expect("told");
    let code = told.failure.as_ref().map(|failure| failure.report.code.as_str());
    assert_eq!(
        (told.status, code, told.started_at.is_none()),
        (JobStatus::Failed, Some("call.deadline"), true)
    );
    host.cancel(&first);
    host.shutdown().await;
}

/// What is said of a run does not depend on how many ended after it.
#[tokio::test(start_paused = true)]
async fn the_oldest_runs_that_have_ended_are_told_from_the_store_as_they_were() {
    const KEPT: usize = 256;
    let Set { host, .. } = sound_stage();
    let told_as = |told: &CompositionOutcome| {
        let nodes: Vec<_> = told.nodes.iter().map(|node| serde_json::to_value(node).expect("JSON")).collect();
        let failure = told.failure.as_ref().map(|failure| failure.report.message.clone());
        let words = (told.outcome, told.status, told.output.compact(), failure, told.failures.clone());
        (words, nodes, (told.still_running, told.calls_running, told.monitor_fault.clone()))
    };
    let mut first = Vec::new();
    for (policy, acts) in
        [("best_effort", ["ok", "fail"]), ("fail_fast", ["fail", "ok"]), ("fail_fast", ["ok", "ok"])]
    {
        let document = composition(json!({"name": "t", "failure": policy, "nodes": {"each":
            {"capability": "tool", "map": acts, "args": {"do": "${item}", "job": true}}}}));
        let id = host.submit_composition(document, Arguments::new()).await.expect("accepted");
        first.push((id.clone(), told_as(&host.wait_composition_end(&id).await.expect("told"))));
    }
    for _ in 0..KEPT {
        let none = composition(json!({"name": "t", "nodes": {"none": {"capability": "tool", "map": []}}}));
        let id = host.submit_composition(none, Arguments::new()).await.expect("accepted");
        assert_eq!(host.wait_composition(&id).await.expect("told").outcome, RunOutcome::Completed);
    }
    let mut outcomes = Vec::new();
    for (id, told) in first {
        assert!(!host.compositions().contains_key(&id), "the newest are kept");
        outcomes.push(told.0.0);
        assert_eq!(told_as(&host.wait_composition(&id).await.expect("known")), told);
    }
    assert_eq!(outcomes, [RunOutcome::Partial, RunOutcome::Failed, RunOutcome::Completed]);
    let unknown = host.wait_composition_end(&CompositionId::new()).await;
    assert!(matches!(unknown, Err(HostError::UnknownComposition(_))), "{unknown:?}");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_does_not_fit_its_instance_is_told_with_what_it_lacks() {
    let Set { host, journal, .. } = sound_stage();
    host.register("python", &LoadOptions::default()).expect("registered");
    let document = json!({"name": "t", "failure": "best_effort", "nodes": {
        "good": {"capability": "tool", "args": {"do": "ok", "job": true}},
        "many": {"capability": "python", "map": [1, 2], "task": "segment", "method": "run", "args": {}},
    }});
    let id = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
    let told = host.wait_composition_end(&id).await.expect("told");
    assert_eq!(told.outcome, RunOutcome::Partial);
    let failure = told.failure.as_ref().expect("why");
    assert_eq!(failure.report.code, "adapter.not_bound", "{failure:?}");
    assert_eq!(failure.report.details.element, Some(0));
    assert!(failure.report.message.starts_with("node many[0]: "), "{failure:?}");
    assert_eq!(journal.kept(|kept| kept.jobs.len()), 1, "the others are no jobs");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_ended_without_having_begun_is_counted_as_ended() {
    let Set { host, .. } = sound_stage();
    let mut events = host.events();
    let document = json!({"name": "t", "failure": "best_effort", "nodes": {
        "many": {"capability": "tool", "map": [{"do": "ok"}, {"no": 1}, {"do": "ok"}],
                 "args": {"do": "${item.do}", "job": true}},
        "next": {"capability": "tool", "map": "${many}", "args": {"do": "ok", "job": true}},
    }});
    let id = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
    host.wait_composition_end(&id).await.expect("told");
    let mut last = std::collections::BTreeMap::new();
    while let Ok(event) = events.try_recv() {
        if let HostEvent::Node { node, state, elements_done, elements_total, .. } = event {
            last.insert(node, (state, elements_done, elements_total));
        }
    }
    let expected = (NodeState::Partial, 3, Some(3));
    assert_eq!((last["many"], last["next"]), (expected, expected));
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn failures_beyond_the_maximum_are_counted() {
    const MORE: usize = 5;
    let Set { host, journal, .. } = sound_stage();
    let items: Vec<&str> =
        std::iter::once("ok").chain(std::iter::repeat_n("fail", FAILURES_LISTED_MAX + MORE)).collect();
    let document = json!({"name": "t", "failure": "best_effort", "nodes": {
        "many": {"capability": "tool", "map": items, "args": {"do": "${item}", "job": true}},
    }});
    let id = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
    let told = host.wait_composition_end(&id).await.expect("told");
    assert_eq!((told.failures.listed().len(), told.failures.left_out()), (FAILURES_LISTED_MAX, MORE));
    let failure = told.failure.as_ref().expect("why");
    assert!(failure.report.message.starts_with("node many[1]: "), "{failure:?}");
    let row = journal.kept(|kept| kept.finished[&id].clone());
    assert_eq!(row["failures"].as_array().map(Vec::len), Some(FAILURES_LISTED_MAX));
    assert_eq!((&row["failures_left_out"], &row["partial"]), (&json!(MORE), &json!(true)));
    assert_eq!(row["outcome"], json!("partial"));
    host.shutdown().await;
}

/// Two workers of one node: what they used together is summed, but for memory, which is that of the larger one.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_watched_tells_what_its_nodes_used() {
    let Set { host, journal, .. } = sound_stage();
    let document = json!({"name": "t", "monitor": "monitor", "capabilities": {"tool": {"instances": 2}},
        "nodes": {"many": {"capability": "tool", "map": ["hang", "hang", "ok", "ok"],
                           "args": {"do": "ok", "ms": 120, "job": true}}}});
    let id = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
    let told = host.wait_composition_end(&id).await.expect("told");
    assert_eq!((told.outcome, &told.monitor_fault), (RunOutcome::Completed, &None));
    let node = &told.nodes[0];
    let usage = node.usage.expect("it was watched");
    let larger = node.pids.iter().max().expect("workers");
    assert!(node.pids.len() > 1, "{node:?}");
    assert!((usage.peak_rss_mb - f64::from(*larger) * RSS_MB_PER_PID).abs() < 1e-9, "{node:?}");
    let row = journal.kept(|kept| kept.finished[&id].clone());
    assert_eq!(row["nodes"], serde_json::to_value(&told.nodes).expect("JSON"));
    host.shutdown().await;
}

/// A monitor that takes its time to end holds nobody.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_run_does_not_wait_for_its_monitor() {
    let Set { host, journal, .. } = sound_stage();
    let monitors = || host.instances().all(|instance| instance.plan.capability == "monitor").len();
    let there = Arc::new(AtomicUsize::new(0));
    let (seen, host_too) = (Arc::clone(&there), host.clone());
    journal.watch(move |moment, commit| {
        let ends = commit.writes.iter().any(|write| matches!(write, Write::EndComposition(_)));
        if ends && moment == Moment::HandedIn {
            let left = host_too.instances().all(|instance| instance.plan.capability == "monitor");
            seen.store(left.len(), Ordering::Relaxed);
        }
        false
    });
    let document = json!({"name": "t", "monitor": "monitor", "nodes": {
        "one": {"capability": "tool", "args": {"do": "ok", "job": true}},
    }});
    let id = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
    host.wait_composition(&id).await.expect("told");
    assert_eq!(there.load(Ordering::Relaxed), 1, "its end is written first");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(monitors(), 0);
    journal.watch(|_, _| false);
    host.shutdown().await;
}

/// What waits for a disk that fails is not begun on a worker that happens to be free.
#[tokio::test(start_paused = true)]
async fn nothing_begins_while_the_journal_takes_nothing() {
    let Set { host, journal, .. } = sound_stage();
    let slow = || {
        let mut request = super::directed::request("ok");
        request.kwargs.insert("ms".to_owned(), Json::of(300));
        host.submit(request)
    };
    let first = slow().await.expect("accepted");
    let second = slow().await.expect("accepted");
    while host.job_status(&first).await.expect("known") != JobStatus::Running {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&begun);
    journal.set_failing(true);
    journal.watch(move |moment, commit| {
        let starts = commit.writes.iter().any(|write| matches!(write, Write::StartJob(_)));
        if starts && moment == Moment::HandedIn {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        false
    });
    let refused = loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Err(error) = slow().await {
            break error;
        }
    };
    assert!(matches!(refused, HostError::Store(StoreError::Closed { .. })), "{refused:?}");
    host.wait(&first).await.expect("told");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(begun.load(Ordering::Relaxed), 0, "its row cannot be written");
    journal.set_failing(false);
    assert_eq!(host.wait(&second).await.expect("told").status, JobStatus::Completed);
    journal.watch(|_, _| false);
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_run_says_why() {
    let Set { host, journal, .. } = sound_stage();
    let advanced = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&advanced);
    journal.watch(move |moment, commit| {
        let rows = commit.rows.iter().filter(|row| row.event_type == "composition_advanced");
        if moment == Moment::Written {
            seen.lock().expect("not poisoned").extend(rows.map(|row| row.node_id.clone()));
        }
        false
    });
    let call =
        |after: &str| json!({"capability": "tool", "after": [after], "args": {"do": "ok", "job": true}});
    let document = json!({"name": "t", "failure": "best_effort", "nodes": {
        "good": {"capability": "tool", "args": {"do": "ok", "job": true}},
        "bad": {"capability": "tool", "map": "${good}", "args": {"do": "ok", "job": true}},
        "next": call("bad"), "last": call("next"),
    }});
    let id = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
    let told = host.wait_composition_end(&id).await.expect("told");
    let nodes: Vec<(NodeState, Option<&str>)> =
        told.nodes.iter().map(|node| (node.status, node.reason.as_deref())).collect();
    assert_eq!(nodes[0], (NodeState::Completed, None));
    let (state, why) = nodes[1];
    assert!(state == NodeState::Failed && why.is_some_and(|why| why.contains("list")), "{why:?}");
    assert_eq!(
        nodes[2..],
        [(NodeState::Skipped, Some("it needs bad")), (NodeState::Skipped, Some("it needs next")),]
    );
    let failure = told.nodes[1].failure.as_ref().expect("its own").report.clone();
    assert_eq!(failure.details.node.as_deref(), Some("bad"));
    host.shutdown().await;
    assert_eq!(*advanced.lock().expect("not poisoned"), [Some("good".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_does_not_work_is_told_and_fails_nothing() {
    // Its tool lives; of the starts that follow all fail.
    for seed in 1..20 {
        let Set { host, journal, .. } = stage_of(QueueLimits::default(), seed, 100);
        let document = json!({"name": "t", "monitor": "monitor", "nodes": {
            "none": {"capability": "tool-1", "map": []},
        }});
        let id = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
        let told = host.wait_composition(&id).await.expect("told");
        assert_eq!(told.outcome, RunOutcome::Completed, "seed {seed}: {:?}", told.failure);
        let fault = told.monitor_fault.clone().expect("why nothing was measured");
        assert_eq!(journal.kept(|kept| kept.finished[&id]["monitor_fault"].clone()), json!(fault));
        host.shutdown().await;
    }
}
