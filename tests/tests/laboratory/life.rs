//! The life of the ancestor's own worker on our host: what it prints and logs, its cancelling, its deaths, and that
//! nothing outlives host or keeper. Two releases.

use super::pair::{HostKind, NAME, WorkerKind, install};
use cjm_platform::process::Signal;
use cjm_tests::ancestor::{Ancestor, VERSIONS};
use cjm_tests::journal;
use cjm_tests::watch::Watch;
use cjm_tests::world::{COMMAND_MAX, Running, World, eventually};
use cjm_wire::describe::exit;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// After the blow nothing may live longer; the goal is a fifth of it.
const CLEAR_MAX: Duration = Duration::from_millis(500);
/// How long a call may take to reach the tool.
const BEGIN_MAX: Duration = Duration::from_secs(60);

/// Plays on the laboratory in the ancestor's own worker, once for each release that can be had.
fn each(test: &str, play: impl Fn(&World, &Ancestor)) {
    for version in VERSIONS {
        let world = World::new();
        let Some(ancestor) = Ancestor::find(&world, test, version) else { continue };
        install(&world, &ancestor, HostKind::Ours, WorkerKind::Theirs);
        play(&world, &ancestor);
        world.assert_nothing_left();
        journal::assert_every_job_ended_once(&world.journal());
    }
}

fn call(world: &World, action: &str, more: &[&str]) -> Running {
    world.start(&[&["call", NAME, "--action", action, "--json"], more].concat())
}

/// Waits until the tool runs a call that it will not end.
fn waiting(world: &World) -> Running {
    let running = call(world, "wait", &[]);
    eventually("running job", BEGIN_MAX, || {
        assert!(!running.has_ended(), "{}{}", running.stdout_so_far(), running.stderr_so_far());
        let rows = journal::rows(&world.journal());
        rows.iter()
            .rfind(|row| row.event_type == "state_transition")
            .filter(|row| row.text("to") == "running")
            .map(|_| ())
    });
    running
}

#[test]
fn what_it_prints_and_logs_is_kept() {
    each("what_it_prints_and_logs_is_kept", |world, _| {
        assert_eq!(world.json(&["call", NAME, "--action", "log", "--json"])["result"], "logged");
        let chunks = world.run(&["logs", "--chunks", "--json"]).expect(exit::OK).stdout;
        assert!(chunks.contains("a line on stdout"), "{chunks}");
        let records = world.run(&["logs", "--json"]).expect(exit::OK).stdout;
        for words in ["a record of info", "a record ☃", "for the record"] {
            assert!(records.contains(words), "{words}: {records}");
        }
        assert!(!records.contains("below the level"), "{records}");
        let failed =
            call(world, "fail", &["kind=RuntimeError"]).wait(COMMAND_MAX).expect(exit::TOOL_FAILED).json();
        assert_eq!(failed["error"]["code"], "call.tool_failed", "{failed:#}");
        assert!(failed["error"]["stderr_tail"].to_string().contains("bare RuntimeError"), "{failed:#}");
    });
}

#[test]
fn code_that_has_parted_from_its_manifest_is_noticed() {
    each("code_that_has_parted_from_its_manifest_is_noticed", |world, _| {
        let path = world.data_dir().join("manifests").join(format!("{NAME}.json"));
        let mut manifest: Value =
            serde_json::from_str(&std::fs::read_to_string(&path).expect("a manifest")).expect("JSON");
        let drifted = |world: &World| {
            assert_eq!(
                world.json(&["call", NAME, "x=1", "--json"])["result"],
                json!({"x": 1}),
                "it runs all the same"
            );
            let rows = journal::rows(&world.journal());
            rows.iter().rfind(|row| row.event_type == "worker_ready").expect("ready").payload["drifted"]
                .clone()
        };
        assert_eq!(drifted(world), Value::Null);
        for key in ["config_schema_hash", "structural_surface_hash"] {
            manifest["drift_tracking"][key] = "sha256:0".into();
        }
        std::fs::write(&path, manifest.to_string()).expect("a manifest");
        assert_eq!(drifted(world), json!(["config_schema", "structural_surface"]));
    });
}

#[test]
fn its_death_is_told_with_a_verdict() {
    each("its_death_is_told_with_a_verdict", |world, _| {
        let died = call(world, "die", &[]).wait(COMMAND_MAX).expect(exit::WORKER_DIED).json();
        assert_eq!(died["error"]["code"], "call.worker_died", "{died:#}");
        let rows = journal::rows(&world.journal());
        let row = rows.iter().rfind(|row| row.event_type == "worker_died").expect("a death");
        assert_eq!((row.text("phase"), &row.payload["returncode"]), ("running", &json!(-9)), "{row:?}");
        assert!(row.payload["evidence"].as_array().is_some_and(|grounds| !grounds.is_empty()), "{row:?}");
    });
}

#[test]
fn a_start_that_fails_says_why() {
    each("a_start_that_fails_says_why", |world, ancestor| {
        let path = world.data_dir().join("manifests").join(format!("{NAME}.json"));
        let good = std::fs::read_to_string(&path).expect("a manifest");
        std::fs::write(&path, good.replace("\"class\": \"Laboratory\"", "\"class\": \"Nowhere\""))
            .expect("a manifest");
        let failed = call(world, "echo", &[]).wait(COMMAND_MAX).expect(exit::WORKER_START).json();
        let tail = failed["error"]["stderr_tail"].to_string();
        assert!(tail.contains("FATAL: Failed to load laboratory:Nowhere"), "{failed:#}");
        // The environment lost the ancestor's package.
        let bare = good.replace("\"PYTHONPATH\"", "\"PYTHONHOME\": \"/nowhere\",\n      \"PYTHONPATH\"");
        std::fs::write(&path, bare).expect("a manifest");
        let failed = call(world, "echo", &[]).wait(COMMAND_MAX).expect(exit::WORKER_START).json();
        assert_eq!(failed["error"]["code"], "worker.died_at_start", "{}: {failed:#}", ancestor.version);
        std::fs::write(&path, good).expect("a manifest");
        let refused = call(world, "echo", &["--config", r#"{"beam": 5, "model": "huge"}"#]).wait(COMMAND_MAX);
        if refused.code != Some(0) {
            assert_eq!(refused.json()["error"]["code"], "worker.bad_configuration", "{}", refused.describe());
        }
    });
}

#[test]
fn a_call_that_is_given_up_ends_cancelled() {
    each("a_call_that_is_given_up_ends_cancelled", |world, _| {
        let running = waiting(world);
        running.signal(Signal::INT);
        let outcome = running.wait(COMMAND_MAX);
        assert_eq!(outcome.code, Some(130), "{}", outcome.describe());
        let statuses = journal::assert_every_job_ended_once(&world.journal());
        assert_eq!(statuses.values().map(String::as_str).collect::<Vec<_>>(), ["cancelled"]);
    });
}

#[test]
fn nothing_of_it_outlives_host_or_keeper() {
    each("nothing_of_it_outlives_host_or_keeper", |world, _| {
        for keeper_too in [false, true] {
            let running = waiting(world);
            let watch = Watch::below(running.pid());
            let [keeper] = watch.children_of(running.pid())[..] else { panic!("one keeper: {watch:?}") };
            let began = Instant::now();
            if keeper_too {
                watch.all().iter().find(|one| one.pid == keeper).expect("watched").signal(Signal::KILL);
            }
            running.signal(Signal::KILL);
            watch.gone_after(began, CLEAR_MAX).unwrap_or_else(|living| panic!("{keeper_too}: {living:#?}"));
            let _ = running.wait(COMMAND_MAX);
            let again: Value = world.json(&["call", NAME, "x=1", "--json"]);
            assert_eq!(again["result"], json!({"x": 1}), "the next host works: {again}");
        }
        // A keeper alone: the host says so, and the worker is gone before its own watchdog looks.
        let running = waiting(world);
        let watch = Watch::below(running.pid());
        let [keeper] = watch.children_of(running.pid())[..] else { panic!("one keeper: {watch:?}") };
        let began = Instant::now();
        watch.all().iter().find(|one| one.pid == keeper).expect("watched").signal(Signal::KILL);
        watch.gone_after(began, CLEAR_MAX).unwrap_or_else(|living| panic!("{living:#?}"));
        let _ = running.wait(COMMAND_MAX).expect(exit::WORKER_DIED);
    });
}
