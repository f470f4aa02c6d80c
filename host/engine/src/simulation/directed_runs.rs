//! Runs of compositions at single moments: refused before they begin, refused while they run, ended without a disk.

use super::directed::{Set, composition, request, sound_stage, stage_of};
use super::journal::{Moment, SimulatedJournal};
use super::making::host_over;
use super::scenario::load;
use super::seed::Seed;
use super::workers::SimulatedWorkers;
use crate::error::HostError;
use cjm_decide::queue::{NOT_TAKEN_MAX, QueueLimits};
use cjm_store::{JobRecord, JournalFilter, JournalOptions, JournalReader, SqliteJournal, StoreError, Write};
use cjm_wire::composition::RunOutcome;
use cjm_wire::describe::exit;
use cjm_wire::error::ErrorCategory;
use cjm_wire::event::JobStatus;
use cjm_wire::json::{Arguments, Json};
use cjm_wire::{CompositionId, InstanceId};
use cjm_workers::NodeState;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn one_call(act: &str) -> Value {
    json!({"capability": "tool", "args": {"do": act, "job": true}})
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_refused_leaves_no_monitor() {
    let Set { host, journal, .. } = sound_stage();
    let watched =
        || composition(json!({"name": "t", "monitor": "monitor", "nodes": {"one": one_call("ok")}}));
    let monitors = || host.instances().all(|instance| instance.plan.capability == "monitor").len();
    // The disk fails once the monitor is there.
    journal.watch(|moment, commit| {
        let accepts = commit.writes.iter().any(|write| matches!(write, Write::InsertComposition(..)));
        accepts && moment == Moment::HandedIn
    });
    let refused = host.submit_composition(watched(), Arguments::new()).await.expect_err("the disk fails");
    assert!(matches!(refused, HostError::Store(StoreError::Closed { .. })), "{refused:?}");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(monitors(), 0, "after a refusal");
    journal.watch(|_, _| false);
    journal.set_failing(false);
    let id = host.submit_composition(watched(), Arguments::new()).await.expect("accepted");
    assert_eq!(monitors(), 1);
    assert_eq!(host.wait_composition(&id).await.expect("told").outcome, RunOutcome::Completed);
    assert_eq!(monitors(), 0, "after its end");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_calls_find_no_room_says_so_and_blames_no_node() {
    let limits = QueueLimits { pending_max: 2, ..QueueLimits::default() };
    for policy in ["fail_fast", "best_effort"] {
        let Set { host, journal, .. } = stage_of(limits, 2, 0);
        let document = json!({"name": "t", "failure": policy, "nodes": {
            "one": one_call("ok"),
            "many": {"capability": "tool", "after": ["one"], "map": [1, 2, 3, 4, 5],
                     "args": {"do": "ok", "job": true}},
        }});
        let id = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
        let told = host.wait_composition(&id).await.expect("told");
        assert_eq!((told.outcome, told.still_running), (RunOutcome::Failed, 0));
        let failure = told.failure.as_ref().expect("why");
        let details = &failure.report.details;
        assert_eq!(failure.report.code, "queue.pending_full");
        assert_eq!((failure.error.category, failure.error.retriable), (ErrorCategory::Resource, true));
        assert_eq!((details.category, details.retriable), (Some(ErrorCategory::Resource), Some(true)));
        assert_eq!((details.node.as_deref(), told.failures.total()), (None, 0), "{failure:?}");
        let nodes: Vec<NodeState> = told.nodes.iter().map(|node| node.status).collect();
        assert_eq!(nodes, [NodeState::Completed, NodeState::Cancelled], "what was made is kept");
        assert_eq!(journal.kept(|kept| kept.compositions[&id]), Some(JobStatus::Failed));
        host.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_calls_the_disk_refuses_says_so_and_blames_no_node() {
    let Set { host, journal, .. } = sound_stage();
    journal.watch(|moment, commit| {
        let accepts = commit.writes.iter().any(|write| matches!(write, Write::InsertJob(..)));
        accepts && moment == Moment::HandedIn
    });
    let document = json!({"name": "t", "nodes": {"one": one_call("ok")}});
    let id = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
    let healed = Arc::clone(&journal);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        healed.watch(|_, _| false);
        healed.set_failing(false);
    });
    let told = host.wait_composition(&id).await.expect("told");
    let failure = told.failure.as_ref().expect("why");
    assert_eq!((failure.report.code.as_str(), failure.report.exit_code), ("store.closed", exit::STORE));
    assert_eq!(
        (failure.error.category, failure.report.details.node.as_deref()),
        (ErrorCategory::Resource, None)
    );
    assert_eq!(told.nodes[0].status, NodeState::Cancelled);
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_of_the_element_that_failed_first() {
    let Set { host, .. } = sound_stage();
    // The first does not bind, the second fails as a job.
    let document = json!({"name": "t", "failure": "best_effort", "nodes": {
        "many": {"capability": "tool", "map": [{"no": 1}, {"do": "fail"}],
                 "args": {"do": "${item.do}", "job": true}},
    }});
    let id = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
    let told = host.wait_composition(&id).await.expect("told");
    let failure = told.failure.as_ref().expect("why");
    assert_eq!(failure.report.details.element, Some(0), "{failure:?}");
    assert!(failure.report.message.contains("has no field `do`"), "{failure:?}");
    assert_eq!(told.failures.listed()[1].element, Some(1));
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_not_on_the_disk_is_told_as_a_failure() {
    let Set { host, journal, .. } = sound_stage();
    journal.watch(|moment, commit| {
        let ends = commit.writes.iter().any(|write| matches!(write, Write::EndComposition(_)));
        ends && moment == Moment::HandedIn
    });
    let document = json!({"name": "t", "nodes": {"one": one_call("ok")}});
    let id = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
    let told = host.wait_composition(&id).await.expect("told");
    let failure = told.failure.as_ref().expect("why");
    assert_eq!((told.outcome, told.status), (RunOutcome::Failed, JobStatus::Failed));
    assert_eq!((failure.report.code.as_str(), failure.report.exit_code), ("store.unwritten", exit::STORE));
    assert_eq!(failure.error.category, ErrorCategory::Resource);
    assert_eq!(journal.kept(|kept| kept.compositions[&id]), None, "it waits for the disk");
    journal.watch(|_, _| false);
    journal.set_failing(false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(journal.kept(|kept| kept.compositions[&id]), Some(JobStatus::Completed));
    host.shutdown().await;
}

/// A failure stays what it was; no other end is told that nobody may find again.
#[tokio::test(start_paused = true)]
async fn a_cancelled_or_partial_run_whose_end_is_not_on_the_disk_has_failed() {
    let document = |policy, acts: [&str; 2]| {
        let [one, two] = acts.map(one_call);
        composition(json!({"name": "t", "failure": policy, "nodes": {"one": one, "two": two}}))
    };
    for (policy, acts, code) in [
        ("best_effort", ["ok", "fail"], "store.unwritten"),
        ("fail_fast", ["ok", "hang"], "store.unwritten"),
        ("best_effort", ["fail", "fail"], "call.tool_failed"),
    ] {
        let Set { host, journal, .. } = sound_stage();
        journal.watch(|moment, commit| {
            let ends = commit.writes.iter().any(|write| matches!(write, Write::EndComposition(_)));
            ends && moment == Moment::HandedIn
        });
        let id = host.submit_composition(document(policy, acts), Arguments::new()).await.expect("accepted");
        tokio::time::sleep(Duration::from_millis(100)).await;
        if acts[1] == "hang" {
            host.cancel_composition(&id);
        }
        let told = host.wait_composition(&id).await.expect("told");
        let failure = told.failure.as_ref().expect("why");
        assert_eq!(
            (told.outcome, told.status),
            (RunOutcome::Failed, JobStatus::Failed),
            "{policy}, {acts:?}"
        );
        assert_eq!(failure.report.code, code, "{policy}, {acts:?}");
        journal.set_failing(false);
        host.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_without_room_ends_its_job_though_its_end_had_to_wait() {
    let Set { host, journal, .. } = sound_stage();
    journal.watch(|moment, commit| {
        let ends = commit.writes.iter().any(|write| matches!(write, Write::EndJob(_)));
        ends && moment == Moment::HandedIn
    });
    let job = host.submit(request("large")).await.expect("accepted");
    let told = host.wait(&job).await.expect("told");
    assert_eq!(told.status, JobStatus::Failed);
    journal.watch(|_, _| false);
    journal.set_failing(false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(journal.kept(|kept| kept.jobs[&job].status), JobStatus::Failed, "nobody would ever end it");
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_taken_waits_again_for_everybody_to_see() {
    let Set { host, journal, .. } = sound_stage();
    let waited = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&waited);
    journal.watch(move |moment, commit| {
        let again = |write: &Write| matches!(write, Write::JobWaitsAgain { .. });
        if moment == Moment::Written && commit.writes.iter().any(again) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        false
    });
    let job = host.submit(request("untaken")).await.expect("accepted");
    assert_eq!(host.wait(&job).await.expect("told").status, JobStatus::Failed);
    // After the last attempt it has ended, and waits for nothing.
    assert_eq!(waited.load(Ordering::Relaxed), NOT_TAKEN_MAX - 1);
    assert_eq!(journal.kept(|kept| kept.broken.clone()), Vec::<String>::new());
    host.shutdown().await;
}

/// Over the real store: what it refuses is not simulated.
#[tokio::test]
async fn a_run_whose_row_is_too_large_is_kept_with_its_outcome() {
    const NODES: usize = 6_000;
    const BAD: usize = 3;
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteJournal::open(folder.path(), JournalOptions::default()).expect("a store");
    let simulated = SimulatedJournal::new(Seed::new(1));
    let workers = SimulatedWorkers::new(Arc::clone(&simulated), Seed::new(1), 1, 0);
    let host = host_over(QueueLimits::default(), Arc::new(store), simulated, Arc::new(workers));
    host.register("tool", &cjm_workers::LoadOptions::default()).expect("registered");
    // They run over nothing, and so each completes by itself.
    let node = json!({"capability": "tool", "map": [], "args": {}});
    let mut nodes: Map<String, Value> =
        (0..NODES).map(|number| (format!("node-number-{number}"), node.clone())).collect();
    // A few do not bind.
    let bad = json!({"capability": "tool", "map": "${inputs.number}", "args": {}});
    nodes.extend((0..BAD).map(|number| (format!("bad-{number}"), bad.clone())));
    let inputs = Arguments::from_iter([("number".to_owned(), Json::of(7))]);
    let document =
        json!({"name": "large", "failure": "best_effort", "inputs": {"number": {}}, "nodes": nodes});
    let id = host.submit_composition(composition(document), inputs).await.expect("accepted");
    let told = host.wait_composition(&id).await.expect("told");
    assert_eq!((told.outcome, told.nodes.len()), (RunOutcome::Partial, NODES + BAD), "{:?}", told.failure);
    host.shutdown().await;
    let reader = JournalReader::open(folder.path()).expect("opens");
    let kept = reader.composition(&id).expect("reads").expect("kept");
    assert_eq!(kept.status, JobStatus::Failed);
    let rows = reader.last(&JournalFilter::default(), 10).expect("reads");
    let end = rows.iter().find(|row| row.row.event_type == "run_finished").expect("a row");
    assert_eq!(end.row.payload.get("outcome"), Some(&json!("partial")));
    assert_eq!(end.row.payload.get("failures_left_out"), Some(&json!(BAD)), "nor did what failed");
    assert_eq!(end.row.payload.get("nodes"), None, "they did not fit");
}

/// There is always another end while there are elements, and the cancel is not behind all of them.
#[tokio::test(start_paused = true)]
async fn a_cancel_is_heard_while_elements_end_one_behind_the_other() {
    let Set { host, seen, .. } = stage_of(QueueLimits { lanes: 16, ..QueueLimits::default() }, 3, 0);
    host.register("tool", &load(&InstanceId::from_text("tool-2"), 16)).expect("registered");
    let items: Vec<usize> = (0..2000).collect();
    let document = json!({"name": "t", "failure": "best_effort", "nodes": {
        "many": {"capability": "tool", "map": items, "args": {"do": "ok", "job": true}},
    }});
    let id = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
    let entered = || seen.lock().expect("not poisoned").entered;
    while entered() < 200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    host.cancel_composition(&id);
    let told = host.wait_composition_end(&id).await.expect("told");
    assert_eq!(told.outcome, RunOutcome::Cancelled);
    assert!(entered() < 400, "{} of 2000 were begun", entered());
    host.shutdown().await;
}

/// Whatever a run ends for, what is left of the grace of its calls is waived.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_to_end_at_once_does_not_wait_for_tools_that_do_not_obey() {
    for (why, first, outcome) in [
        ("it was not asked before", "hang", RunOutcome::Cancelled),
        ("it was cancelled", "hang", RunOutcome::Cancelled),
        ("it failed fast", "fail", RunOutcome::Failed),
        ("its time was over", "hang", RunOutcome::Failed),
        ("it has made something", "ok", RunOutcome::Cancelled),
    ] {
        let Set { host, journal, .. } = sound_stage();
        host.register("tool", &load(&InstanceId::from_text("tool-2"), 4)).expect("registered");
        let failure = if first == "ok" { "best_effort" } else { "fail_fast" };
        let document = json!({"name": "t", "failure": failure, "nodes": {
            "many": {"capability": "tool", "map": [1, 2, 3], "args": {"do": "deaf", "job": true}},
            "first": one_call(first),
            "never": {"capability": "tool", "after": ["many"], "args": {"do": "ok", "job": true}},
        }});
        let time = (why == "its time was over").then_some(Duration::from_millis(500));
        let id = host
            .submit_composition_within(composition(document), Arguments::new(), time.map(Into::into))
            .await;
        let id = id.expect("accepted");
        tokio::time::sleep(Duration::from_secs(1)).await;
        if why == "it was cancelled" {
            host.cancel_composition(&id);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(running(&journal, &id) > 0, "{why}: they do not obey");
        let asked = tokio::time::Instant::now();
        host.cancel_composition_at_once(&id);
        let told = host.wait_composition_end(&id).await.expect("told");
        assert!(asked.elapsed() < Duration::from_millis(200), "{why}: {:?}", asked.elapsed());
        assert_eq!(told.outcome, outcome, "{why}: {:?}", told.failure);
        assert_eq!(running(&journal, &id), 0, "{why}");
        // Asked once more, and for less: nothing changes.
        host.cancel_composition(&id);
        host.shutdown().await;
    }
}

/// Jobs of a run that have not ended, as the journal has them.
fn running(journal: &SimulatedJournal, id: &CompositionId) -> usize {
    let is_of_it = |job: &&JobRecord| job.composition_id.as_ref() == Some(id) && !job.status.is_terminal();
    journal.kept(|kept| kept.jobs.values().filter(is_of_it).count())
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_after_a_refusal_can_be_cancelled_and_has_a_time() {
    for time in [None, Some(Duration::from_secs(5))] {
        let Set { host, journal, .. } = sound_stage();
        host.register("tool", &load(&InstanceId::from_text("tool-2"), 2)).expect("registered");
        let document = json!({"name": "t", "failure": "best_effort", "nodes": {
            "long": one_call("hang"), "first": one_call("ok"),
            "second": {"capability": "tool", "after": ["first"], "args": {"do": "ok", "job": true}},
        }});
        let run =
            host.submit_composition_within(composition(document), Arguments::new(), time.map(Into::into));
        let id = run.await.expect("accepted");
        journal.watch(|moment, commit| {
            let accepts = commit.writes.iter().any(
                |write| matches!(write, Write::InsertJob(job, _) if job.node_id.as_deref() == Some("second")),
            );
            accepts && moment == Moment::HandedIn
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        journal.watch(|_, _| false);
        journal.set_failing(false);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let begun = tokio::time::Instant::now();
        if time.is_none() {
            host.cancel_composition(&id);
        }
        let told = host.wait_composition_end(&id).await.expect("told");
        assert!(begun.elapsed() < Duration::from_secs(10), "{time:?}: {:?}", begun.elapsed());
        let expected = if time.is_none() { RunOutcome::Cancelled } else { RunOutcome::Failed };
        assert_eq!(told.outcome, expected, "{:?}", told.failure);
        host.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_status_tells_an_end_that_is_not_on_the_disk() {
    let Set { host, journal, .. } = sound_stage();
    journal.watch(|moment, commit| {
        let ends = commit.writes.iter().any(|write| matches!(write, Write::EndJob(..)));
        ends && moment == Moment::HandedIn
    });
    let job = host.submit(request("ok")).await.expect("accepted");
    loop {
        let status = host.job_status(&job).await.expect("known");
        assert_ne!(status, JobStatus::Completed, "the disk has failed");
        if status.is_terminal() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_does_not_wait_for_a_disk_that_is_full() {
    for policy in ["fail_fast", "best_effort"] {
        let Set { host, journal, seen, .. } = sound_stage();
        let items: Vec<usize> = (0..30).collect();
        let document = json!({"name": "t", "failure": policy, "nodes": {
            "many": {"capability": "tool", "map": items, "args": {"do": "ok", "job": true}},
        }});
        let id = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
        while seen.lock().expect("not poisoned").entered < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        journal.set_failing(true);
        let begun = tokio::time::Instant::now();
        let told = host.wait_composition_end(&id).await.expect("told");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(7), "{policy}: {took:?}");
        assert_eq!(told.outcome, RunOutcome::Failed, "{policy}");
        assert_eq!(told.failure.as_ref().map(|failure| failure.report.exit_code), Some(exit::STORE));
        journal.set_failing(false);
        host.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_are_not_counted_as_running() {
    const DEAF: usize = 30;
    let Set { host, .. } = sound_stage();
    let items: Vec<&str> = std::iter::once("fail").chain(std::iter::repeat_n("deaf", DEAF)).collect();
    let document = composition(json!({"name": "t", "capabilities": {"tool": {"instances": 2}}, "nodes": {
        "each": {"capability": "tool", "map": items, "args": {"do": "${item}", "job": true}},
    }}));
    let id = host.submit_composition(document, Arguments::new()).await.expect("accepted");
    let told = host.wait_composition(&id).await.expect("told");
    assert_eq!(told.outcome, RunOutcome::Failed);
    // As many as the instances hold; none of the others has ended when this is told.
    assert_eq!(told.still_running, DEAF);
    // Its node has failed, although calls of it run.
    assert_eq!(told.nodes[0].status, NodeState::Failed);
    assert!((1..DEAF / 2).contains(&told.calls_running), "{} run", told.calls_running);
    let end = host.wait_composition_end(&id).await.expect("it ends");
    assert_eq!((end.still_running, end.calls_running), (0, 0));
    host.shutdown().await;
}
