//! Runs with many elements, and many runs: how far they are is told, and no more is kept of them than the maximum.

use super::directed::{Set, composition, sound_stage};
use crate::compositions::begin::ENDED_COMPOSITIONS_MAX;
use crate::compositions::driver::Driver;
use crate::compositions::ends::{completed_with, element_outcome};
use crate::queue::state::{ElementEnd, JobOutcome};
use cjm_decide::composition::CompositionRun;
use cjm_store::CompositionRecord;
use cjm_wire::composition::RunOutcome;
use cjm_wire::event::JobStatus;
use cjm_wire::json::Arguments;
use cjm_wire::{CompositionId, JobId, Timestamp};
use cjm_workers::{HostEvent, NodeState};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

#[tokio::test(start_paused = true)]
async fn each_element_that_ends_is_told_while_its_node_goes_on() {
    let Set { host, .. } = sound_stage();
    let mut events = host.events();
    let document = composition(json!({"name": "t", "nodes": {
        "many": {"capability": "tool", "map": [1, 2, 3], "args": {"do": "ok", "job": true}},
    }}));
    let id = host.submit_composition(document, Arguments::new()).await.expect("accepted");
    host.wait_composition_end(&id).await.expect("told");
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let HostEvent::Node { state, elements_done, elements_total, .. } = event {
            assert_eq!(elements_total, Some(3));
            told.push((state, elements_done));
        }
    }
    let running = NodeState::Running;
    assert_eq!(told, [(running, 0), (running, 1), (running, 2), (NodeState::Completed, 3)]);
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn of_the_elements_of_a_run_only_those_in_flight_are_known() {
    let Set { host, .. } = sound_stage();
    let document = composition(json!({"name": "t", "nodes": {
        "many": {"capability": "tool", "map": [1, 2], "args": {"do": "ok", "job": true}},
    }}));
    let run = CompositionRun::new(document.clone(), Arguments::new(), 0).expect("a graph");
    let record = CompositionRecord {
        composition_id: CompositionId::new(),
        name: "t".to_owned(),
        run_id: None,
        actor: None,
        status: JobStatus::Running,
        submitted_at: Timestamp::now(),
        completed_at: None,
        failure: None,
    };
    let (ends, _) = mpsc::unbounded_channel();
    let mut driver = Driver::new(host.clone(), &document, run, record, None, None, ends);
    let jobs = [JobId::new(), JobId::new()];
    for (element, job) in jobs.iter().enumerate() {
        driver.jobs.insert(("many".to_owned(), element), job.clone());
    }
    let outcome = JobOutcome { job_id: jobs[0].clone(), ..completed_with("1") };
    let read = element_outcome(&outcome);
    let end = ElementEnd { node: "many".to_owned(), element: 0, outcome: Arc::new(outcome) };
    driver.element_ended(end, read);
    assert_eq!(driver.jobs.into_values().collect::<Vec<_>>(), jobs[1..]);
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn many_runs_that_end_at_once_leave_no_more_handles_than_the_maximum() {
    const MORE: usize = 60;
    let Set { host, seen, .. } = sound_stage();
    let document = composition(json!({"name": "t", "nodes": {
        "one": {"capability": "tool", "args": {"do": "hang", "job": true}},
    }}));
    let mut ids = Vec::new();
    for _ in 0..ENDED_COMPOSITIONS_MAX + MORE {
        ids.push(host.submit_composition(document.clone(), Arguments::new()).await.expect("accepted"));
    }
    while seen.lock().expect("not poisoned").entered == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(host.compositions().len(), ids.len(), "none has ended");
    let waiting = futures_util::future::join_all(ids.iter().map(|id| host.wait_composition_end(id)));
    ids.iter().for_each(|id| host.cancel_composition(id));
    for told in waiting.await {
        assert_eq!(told.expect("whoever waited is told").outcome, RunOutcome::Cancelled);
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(host.compositions().len(), ENDED_COMPOSITIONS_MAX);
    // Those that are not kept any more are read from the store.
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(host.compositions().contains_key(id), number >= MORE, "{number}");
        assert_eq!(host.wait_composition(id).await.expect("known").outcome, RunOutcome::Cancelled);
    }
    host.shutdown().await;
}
