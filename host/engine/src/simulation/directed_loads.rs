//! What a run loads before it begins: within its time, all or nothing for a name that is not known, like what is there.

use super::directed::{Set, composition, request, sound_stage, stage_of};
use super::directed_stops::direct;
use crate::compositions::loading::load_one;
use crate::deadlines::Timeout;
use crate::error::HostError;
use crate::queue::submission::JobRequest;
use cjm_decide::queue::QueueLimits;
use cjm_wire::InstanceId;
use cjm_wire::composition::{CapabilityUse, RunOutcome};
use cjm_wire::json::Arguments;
use cjm_workers::LoadOptions;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

fn one(capability: &str) -> Value {
    json!({"capability": capability, "args": {"do": "ok", "job": true}})
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_run_covers_what_it_loads() {
    let (given, mut late) = (Duration::from_millis(200), 0);
    for seed in 1..20 {
        let Set { host, .. } = stage_of(QueueLimits::default(), seed, 100);
        let document = composition(json!({"name": "t", "nodes": {"one": one("tool")}}));
        let begun = Instant::now();
        let told = host.submit_composition_within(document, Arguments::new(), Some(given.into())).await;
        assert!(begun.elapsed() <= given + Duration::from_millis(1), "seed {seed}: {:?}", begun.elapsed());
        match told.expect_err("no start succeeds") {
            HostError::CompositionDeadline { .. } => late += 1,
            HostError::Start(_) => {}
            other => panic!("seed {seed}: {other:?}"),
        }
        host.shutdown().await;
    }
    assert!(late > 0, "none of the starts hangs");
}

/// Starting a host and loading a tool have taken some of it.
#[tokio::test(start_paused = true)]
async fn a_deadline_is_told_in_the_time_that_was_given_and_holds_for_what_is_left() {
    let Set { host, instance, journal, .. } = sound_stage();
    let timeout = Timeout { given: Duration::from_secs(7), left: Duration::from_millis(500) };
    let begun = Instant::now();
    let late = JobRequest { timeout: Some(timeout), ..request("hang") };
    let late = host.submit(late).await.expect("accepted");
    let mut stream = host.call_stream_within(&instance.id, direct("hang"), timeout).await.expect("it opens");
    let document = composition(json!({"name": "t", "nodes": {
        "one": {"capability": "tool", "args": {"do": "hang", "job": true}},
    }}));
    let run =
        host.submit_composition_within(document, Arguments::new(), Some(timeout)).await.expect("accepted");
    let of_stream = stream.next().await.expect("it is told").expect_err("it hangs").to_string();
    let of_job = host.wait(&late).await.expect("told").failure.clone().expect("it hangs").report.message;
    let of_run = host.wait_composition_end(&run).await.expect("told");
    let of_run = of_run.failure.as_ref().expect("it hangs").report.message.clone();
    assert!(begun.elapsed() < timeout.given, "{:?}", begun.elapsed());
    let kept = journal.kept(|kept| {
        let failures = kept.jobs.values().filter_map(|job| job.failure.as_ref());
        failures.map(|failure| failure.report.message.clone()).collect::<Vec<_>>()
    });
    assert_eq!(kept.len(), 2);
    for told in [of_stream, of_job, of_run].iter().chain(&kept) {
        assert!(told.contains("within 7 s"), "{told}");
    }
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_nothing_has_costs_no_start() {
    for document in [
        json!({"name": "t", "nodes": {"one": one("tool"), "two": one("nothing")}}),
        json!({"name": "t", "nodes": {"one": one("tool"), "two": one("zzz")}}),
        json!({"name": "t", "monitor": "nothing", "nodes": {"one": one("tool")}}),
    ] {
        let Set { host, seen, .. } = sound_stage();
        let is_monitor = document.get("monitor").is_some();
        let told = host.submit_composition(composition(document), Arguments::new()).await;
        let error = told.expect_err("refused");
        assert_eq!(cjm_wire::describe::Described::code(&error), "host.unknown_capability", "{error}");
        assert_eq!(error.to_string().starts_with("monitor: "), is_monitor, "{error}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(seen.lock().expect("not poisoned").sessions.is_empty());
        host.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_added_is_configured_as_what_is_there() {
    let Set { host, instance, .. } = sound_stage();
    host.unload(&instance.id).await.expect("unloaded");
    let config = json!({"size": 2});
    let loaded = LoadOptions { config: Some(config.clone()), ..LoadOptions::default() };
    host.register("tool", &loaded).expect("registered");
    let document =
        json!({"name": "t", "capabilities": {"tool": {"instances": 3}}, "nodes": {"one": one("tool")}});
    let id = host.submit_composition(composition(document), Arguments::new()).await.expect("accepted");
    assert_eq!(host.wait_composition(&id).await.expect("told").outcome, RunOutcome::Completed);
    let of_the_tool = host.instances().all(|instance| instance.plan.capability == "tool");
    let configs: Vec<Value> =
        of_the_tool.iter().map(|instance| Value::Object(instance.plan.config.clone())).collect();
    assert_eq!(configs, [config.clone(), config.clone(), config]);
    let ids = ["tool", "tool-2", "tool-3"].map(InstanceId::from_text);
    assert!(of_the_tool.iter().map(|instance| &instance.id).eq(&ids));
    host.shutdown().await;
}

/// Two runs may find a capability missing at once; the one that loads it later has looked at nothing.
#[tokio::test(start_paused = true)]
async fn what_somebody_loaded_faster_is_used_only_with_the_configuration_that_was_asked_for() {
    let Set { host, instance, .. } = sound_stage();
    host.unload(&instance.id).await.expect("unloaded");
    let faster = LoadOptions { config: Some(json!({"size": 2})), ..LoadOptions::default() };
    host.register("tool", &faster).expect("registered");
    let load = async |config: Value| {
        let wanted = CapabilityUse { config: Some(config), ..CapabilityUse::default() };
        load_one(&host, "tool", InstanceId::from_text("tool"), wanted).await
    };
    load(json!({"size": 2})).await.expect("the same");
    load(json!(null)).await.expect("none is named");
    let refused = load(json!({"size": 3})).await.expect_err("another one");
    let HostError::OtherConfiguration { keys, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(*keys, ["size"]);
    host.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_loaded_into_a_host_that_ends() {
    let Set { host, seen, .. } = sound_stage();
    host.clone().shutdown().await;
    let told = host.load("tool", LoadOptions::default()).await;
    assert!(matches!(told, Err(HostError::ShuttingDown)), "{told:?}");
    let document = composition(json!({"name": "t", "nodes": {"one": one("tool")}}));
    let told = host.submit_composition(document, Arguments::new()).await;
    assert!(matches!(told, Err(HostError::ShuttingDown)), "{told:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(seen.lock().expect("not poisoned").sessions.is_empty());
}
