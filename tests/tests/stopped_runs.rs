//! Runs and streams that somebody stops, or that stop themselves, over a tool that does not: a run that fails fast answers
//! at once and ends all it had begun; a run past its deadline says so; a stream that nobody reads any more is ended by force.
//! Nothing is left, no row without its end. `CJM_ROUNDS` repeats.

use cjm_host::{CompositionOutcome, Events, Pipeline, PipelineBuilder, PipelineEvent, create_pipeline};
use cjm_platform::process::Signal;
use cjm_tests::journal::{self, Row};
use cjm_tests::repo;
use cjm_tests::world::{World, eventually};
use cjm_wire::composition::{Composition, RunOutcome};
use cjm_wire::describe::{Described, exit};
use cjm_wire::json::Arguments;
use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
/// Between the row of the first failure and the answer.
const AT_ONCE: Duration = Duration::from_secs(1);
/// What a cancel may take: three seconds of asking, then the kill.
const GRACE: Duration = Duration::from_secs(5);

/// Sleeps and ignores being asked to stop, until it is killed.
const DEAF: &str = r#"
import time
from cjm_sdk import Capability, action

class Deaf(Capability):
    name = "deaf"
    version = "1.0.0"
    config_schema = {"size": 1}

    @action
    def sleep(self, seconds=30, at=None):
        if at:
            open(at, "w").close()
        time.sleep(seconds)
        return "slept"

    @action
    def say(self, word="word"):
        return [word, self.config["size"]]

    @action
    def count(self):
        yield {"n": 0}
        time.sleep(30)
        yield {"n": 1}
"#;

/// Fails once the file is there.
const FAILING: &str = r#"
import os, time
from cjm_sdk import Capability, action

class Failing(Capability):
    name = "failing"
    version = "1.0.0"

    @action
    def fail(self, after):
        while not os.path.exists(after):
            time.sleep(0.005)
        raise RuntimeError("no such page")
"#;

/// Makes a result of tens of megabytes, in many small values.
const LARGE: &str = r#"
from cjm_sdk import Capability, action

class Large(Capability):
    name = "large"
    version = "1.0.0"

    @action
    def make(self, count=700000):
        return [{"n": n, "word": "word"} for n in range(count)]

    @action
    def take(self, rows):
        return len(rows)
"#;

fn rounds() -> usize {
    std::env::var("CJM_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn world() -> World {
    let world = World::new();
    world.install_python("deaf", "Deaf", DEAF);
    world.install_python("failing", "Failing", FAILING);
    world
}

fn builder(world: &World, names: &[&str]) -> PipelineBuilder {
    create_pipeline(names.iter().copied())
        .data_dir(world.data_dir())
        .worker_binary(repo::binary("cjm-worker"))
        .lanes(8)
}

/// Fails when `file` is there, beside a call that sleeps.
fn failing_beside_sleeping(file: &str) -> String {
    format!(
        "name: hasty\nnodes:\n  deaf: {{ capability: deaf, action: sleep }}\n  bad: {{ capability: failing, map: [1], args: {{ after: '{file}' }} }}\n  after: {{ capability: deaf, action: say, after: [deaf] }}\n"
    )
}

fn composition(text: &str) -> Composition {
    Composition::parse(text).expect(text)
}

/// Waits until the job of a node is said to run, in the journal.
fn until_it_runs(world: &World, node: &str) {
    eventually("running job", LONG, || {
        let rows = journal::rows(&world.journal());
        rows.into_iter().find(|row| row.node_id.as_deref() == Some(node) && row.text("to") == "running")
    });
}

/// Nothing is left without its end: jobs, workers, compositions.
fn assert_all_has_ended(world: &World) -> Vec<Row> {
    journal::assert_every_job_ended_once(&world.journal());
    let rows = journal::rows(&world.journal());
    let of = |kind: &str, id: fn(&Row) -> Option<String>| -> BTreeSet<String> {
        rows.iter().filter(|row| row.event_type == kind).filter_map(id).collect()
    };
    let worker = |row: &Row| row.worker.clone();
    assert_eq!(of("worker_spawned", worker), of("worker_died", worker), "{}", journal::tell(&rows));
    let composition = |row: &Row| row.composition_id.clone();
    assert_eq!(of("run_started", composition), of("run_finished", composition), "{}", journal::tell(&rows));
    world.assert_nothing_left();
    rows
}

fn assert_names_the_failure(outcome: &CompositionOutcome) {
    let failure = outcome.failure.as_ref().expect("a failure");
    assert_eq!(outcome.outcome, RunOutcome::Failed);
    let place = (failure.report.details.node.as_deref(), failure.report.details.element);
    assert_eq!(place, (Some("bad"), Some(0)), "{failure:?}");
    assert!(failure.report.message.contains("no such page"), "{failure:?}");
}

/// Waits until the job of a node is said to have come so far.
async fn until(events: &mut Events, node: &str, status: &str) {
    let told = async {
        loop {
            match events.next().await.expect("the host lives") {
                PipelineEvent::Row { row, .. }
                    if row.node_id.as_deref() == Some(node)
                        && row.payload.get("to") == Some(&json!(status)) =>
                {
                    return;
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(LONG, told).await.expect(node);
}

/// Runs it in a pipeline; gives the answer and how long after the failure it came.
async fn run_hasty(world: &World, pipeline: &Pipeline, round: usize) -> (Arc<CompositionOutcome>, Instant) {
    let file = world.file(&format!("go-{round}"));
    let document = composition(&failing_beside_sleeping(&file.display().to_string()));
    let mut events = pipeline.events();
    let id = pipeline.host().submit_composition(document, Arguments::new()).await.expect("it begins");
    until(&mut events, "deaf", "running").await;
    std::fs::write(&file, "").expect("written");
    until(&mut events, "bad", "failed").await;
    let failed = Instant::now();
    let outcome = pipeline.host().wait_composition(&id).await.expect("an answer");
    assert!(failed.elapsed() < AT_ONCE, "answered {:?} after the failure", failed.elapsed());
    (outcome, failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_fast_answers_at_once_and_the_next_one_runs() {
    let world = world();
    let pipeline = builder(&world, &["deaf", "failing"]).start().await.expect("a pipeline");
    for round in 0..rounds() {
        let (answer, failed) = run_hasty(&world, &pipeline, round).await;
        assert_names_the_failure(&answer);
        assert_eq!(answer.still_running, 1, "{answer:?}");
        // Another composition on the same host waits for the instance, no longer than the grace.
        let next = composition(
            "name: next\nnodes: { say: { capability: deaf, action: say } }\noutput: '${say[0]}'\n",
        );
        let next = pipeline.run(next, Map::new()).await.expect("it runs");
        assert_eq!((next.outcome, next.output.as_text().as_deref()), (RunOutcome::Completed, Some("word")));
        assert!(failed.elapsed() < GRACE + AT_ONCE, "after {:?}", failed.elapsed());
        let end = pipeline.host().wait_composition_end(&answer.composition_id).await.expect("an end");
        assert_names_the_failure(&end);
        assert_eq!(end.still_running, 0);
        let states: Vec<_> =
            end.nodes.iter().map(|node| format!("{} {:?}", node.name, node.status)).collect();
        assert_eq!(states, ["deaf Cancelled", "bad Failed", "after Cancelled"]);
        assert_eq!(end.nodes[0].pids.len(), 1, "what was killed ran in a process");
    }
    pipeline.shutdown().await;
    assert_all_has_ended(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_ends_right_after_the_answer_ends_what_still_runs() {
    for round in 0..rounds() {
        let world = world();
        let pipeline = builder(&world, &["deaf", "failing"]).start().await.expect("a pipeline");
        let (answer, _) = run_hasty(&world, &pipeline, round).await;
        assert_eq!(answer.still_running, 1, "{answer:?}");
        let asked = Instant::now();
        assert!(pipeline.shutdown().await.tree_cleared);
        assert!(asked.elapsed() < GRACE, "{:?}", asked.elapsed());
        let rows = assert_all_has_ended(&world);
        let end = rows.iter().find(|row| row.event_type == "run_finished").expect("an end");
        assert_eq!(end.text("outcome"), "failed");
        assert!(end.payload["report"]["message"].to_string().contains("bad[0]"), "{end:?}");
    }
}

#[test]
fn the_command_tells_the_first_failure_at_once_and_waits_no_longer_than_the_grace() {
    for _ in 0..rounds() {
        let world = world();
        let go = world.file("go");
        let file = world.write("hasty.yaml", failing_beside_sleeping(&go.display().to_string()));
        let running = world.start(&["run", &file.display().to_string()]);
        until_it_runs(&world, "deaf");
        until_it_runs(&world, "bad");
        std::fs::write(&go, "").expect("written");
        eventually("row of the failure", LONG, || {
            let rows = journal::rows(&world.journal());
            rows.into_iter()
                .find(|row| row.node_id.as_deref() == Some("bad") && row.terminal() == Some("failed"))
        });
        let failed = Instant::now();
        eventually("word of the failure", AT_ONCE, || {
            let told = running.stderr_so_far();
            (told.contains("bad[0]") && told.contains("cancelling 1 running call")).then_some(())
        });
        let outcome = running.wait(LONG).expect(exit::COMPOSITION_FAILED);
        assert!(failed.elapsed() < GRACE, "{:?}", failed.elapsed());
        let told = outcome.describe();
        assert!(told.contains("no such page") && told.contains("cancelled"), "{told}");
        assert_all_has_ended(&world);
    }
}

/// Whoever asks twice has waited enough: all ends at once, and is told and written as what was asked for first.
#[test]
fn what_does_not_obey_says_so_and_ends_at_once_when_it_is_asked_again() {
    const PATIENT_MIN: Duration = Duration::from_millis(1_700);
    let world = world();
    // One that is asked before it has begun does obey.
    let at = world.file("at").display().to_string();
    let text = format!(
        "name: slow\nnodes:\n  deaf: {{ capability: deaf, action: sleep, args: {{at: '{at}'}} }}\n  after: {{ capability: deaf, action: say, after: [deaf] }}\n"
    );
    let file = world.write("slow.yaml", text).display().to_string();
    for (arguments, words, document) in [
        (&["run", &file][..], "composition \"slow\" is cancelled and has not ended yet", false),
        (&["run", &file, "--json"], "composition \"slow\" is cancelled and has not ended yet", true),
        (&["call", "deaf", "--action", "count", "--stream"], "\"deaf\" has not ended yet", false),
    ] {
        let known = journal::rows(&world.journal()).len();
        let running = world.start(arguments);
        if arguments[0] == "run" {
            eventually("call", LONG, || std::fs::remove_file(&at).ok());
        } else {
            eventually("chunk", LONG, || running.stdout_so_far().contains("\"n\"").then_some(()));
        }
        let asked = Instant::now();
        running.signal(Signal::INT);
        eventually("word of what is waited for", LONG, || {
            let said = running.stderr_so_far();
            assert!(!running.has_ended(), "{arguments:?} has ended: {said}");
            said.contains(words).then_some(())
        });
        running.signal(Signal::INT);
        let outcome = running.wait(LONG).expect(130);
        assert!(asked.elapsed() < PATIENT_MIN, "{:?}: {}", asked.elapsed(), outcome.describe());
        if document {
            let document = outcome.json();
            assert_eq!(document["outcome"], "cancelled", "{document}");
            assert_eq!(document["nodes"][0]["status"], "cancelled", "{document}");
        } else {
            assert!(outcome.stderr.contains("interrupted"), "{}", outcome.describe());
            assert_eq!(
                outcome.stderr.contains("cancelled  "),
                arguments[0] == "run",
                "{}",
                outcome.describe()
            );
        }
        let rows = assert_all_has_ended(&world);
        let news = &rows[known..];
        let told = |kind: &str| news.iter().filter(|row| row.event_type == kind).collect::<Vec<_>>();
        let ends = [told("run_finished"), told("direct_call_failed")].concat();
        let statuses: Vec<_> = ends.iter().map(|row| row.text("status")).collect();
        assert_eq!(statuses, ["cancelled"], "{}", journal::tell(news));
    }
}

/// A second key soon after the first is a second wish, also while no word has been said.
#[test]
fn whoever_presses_twice_in_haste_does_not_wait() {
    let world = world();
    let at = world.file("at");
    let running = world.start(&["call", "deaf", "--action", "sleep", &format!("at={}", at.display())]);
    eventually("call", LONG, || at.exists().then_some(()));
    let asked = Instant::now();
    running.signal(Signal::INT);
    while asked.elapsed() < Duration::from_millis(100) {
        assert!(!running.has_ended(), "it was asked once");
    }
    running.signal(Signal::INT);
    let _ = running.wait(LONG).expect(130);
    assert!(asked.elapsed() < Duration::from_millis(1_700), "{:?}", asked.elapsed());
    let rows = assert_all_has_ended(&world);
    assert!(rows.iter().any(|row| row.terminal() == Some("cancelled")), "{}", journal::tell(&rows));
}

/// Nothing runs yet that could be cancelled, and yet it is told what became of the run.
#[test]
fn whoever_presses_twice_while_a_run_loads_is_told_all_the_same() {
    let world = World::new();
    let at = world.file("at");
    let loads = format!("import time\nopen({:?}, 'w').close()\ntime.sleep(600)\n", at.display().to_string());
    world.install_python("deaf", "Deaf", &format!("{loads}{DEAF}"));
    let text = "name: slow\nnodes:\n  deaf: { capability: deaf, action: sleep }\n";
    let file = world.write("slow.yaml", text).display().to_string();
    for json in [false, true] {
        let _ = std::fs::remove_file(&at);
        let command: &[&str] = if json { &["run", &file, "--json"] } else { &["run", &file] };
        let running = world.start(command);
        eventually("it loads", LONG, || at.exists().then_some(()));
        let asked = Instant::now();
        running.signal(Signal::INT);
        while asked.elapsed() < Duration::from_millis(70) && !running.has_ended() {
            std::thread::yield_now();
        }
        if !running.has_ended() {
            running.signal(Signal::INT);
        }
        let told = running.wait(LONG).expect(130);
        if json {
            assert_eq!(told.json()["error"]["code"], "ctl.interrupted", "{}", told.describe());
        }
        assert!(told.describe().contains("interrupted"), "{}", told.describe());
        assert_all_has_ended(&world);
    }
}

/// What a run that failed fast has cancelled does not obey: one Ctrl-C waits no longer, and the last table says how it ended.
#[test]
fn whoever_leaves_a_run_that_failed_is_told_how_all_of_it_ended() {
    let world = world();
    let (go, at) = (world.file("go"), world.file("at"));
    let text = failing_beside_sleeping(&go.display().to_string());
    let sleeps = format!("action: sleep, args: {{at: '{}'}} }}", at.display());
    let file = world.write("hasty.yaml", text.replacen("action: sleep }", &sleeps, 1));
    let running = world.start(&["run", &file.display().to_string(), "--json"]);
    eventually("call", LONG, || at.exists().then_some(()));
    until_it_runs(&world, "bad");
    std::fs::write(&go, "").expect("written");
    eventually("word of what is waited for", LONG, || {
        running.stderr_so_far().contains("what runs of it is cancelled and has not ended yet").then_some(())
    });
    let asked = Instant::now();
    running.signal(Signal::INT);
    let outcome = running.wait(LONG).expect(exit::COMPOSITION_FAILED);
    assert!(asked.elapsed() < Duration::from_millis(1_300), "{:?}", asked.elapsed());
    let document = outcome.json();
    assert_eq!(document["nodes"][0]["status"], "cancelled", "{document}");
    assert_eq!(document["nodes"][1]["status"], "failed", "{document}");
    assert_all_has_ended(&world);
}

#[test]
fn a_run_past_its_deadline_is_told_as_one_in_the_journal() {
    let world = world();
    let text = "name: slow\nnodes:\n  deaf: { capability: deaf, action: sleep }\n  after: { capability: deaf, action: say, after: [deaf] }\n";
    let file = world.write("slow.yaml", text).display().to_string();
    let running = world.start(&["run", &file, "--timeout", "3", "--json"]);
    until_it_runs(&world, "deaf");
    let outcome = running.wait(LONG).expect(exit::TIMED_OUT);
    assert!(outcome.elapsed < Duration::from_millis(3_000) + GRACE, "{:?}", outcome.elapsed);
    let document = outcome.json();
    assert_eq!(document["error"]["code"], "composition.deadline", "{document}");
    assert_eq!(document["error"]["retriable"], true, "{document}");
    let rows = assert_all_has_ended(&world);
    let end = rows.iter().find(|row| row.event_type == "run_finished").expect("an end");
    assert_eq!(
        (end.text("status"), &end.payload["report"]["code"]),
        ("failed", &json!("composition.deadline"))
    );
    // So does what was stopped for it, and the death of what did not stop.
    let stopped = rows.iter().find(|row| row.terminal() == Some("failed")).expect("the call has failed");
    assert_eq!(stopped.payload["report"]["code"], "composition.deadline", "{stopped:?}");
    let died = rows.iter().find(|row| row.event_type == "worker_died").expect("it was killed");
    assert!(died.text("verdict").contains("deadline"), "{died:?}");
    let told = world.run(&["run", &file, "--timeout", "3"]).expect(exit::TIMED_OUT);
    let words = "composition \"slow\" is late and has not ended yet: it is killed within 3 s";
    assert!(told.stderr.contains(words), "{}", told.describe());
    assert!(told.stderr.contains("\"slow\" did not end within 3 s"), "{}", told.describe());
    assert!(!told.stderr.contains("died"), "the host has killed it: {}", told.describe());
    let logs = world.run(&["logs", "--journal"]).expect(exit::OK);
    assert!(logs.stdout.contains("composition.deadline"), "{}", logs.describe());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_reads_any_more_is_ended_by_force() {
    let world = world();
    let pipeline = builder(&world, &["deaf"]).start().await.expect("a pipeline");
    let deaf = pipeline.binding("deaf").expect("bound");
    for round in 1..=rounds() {
        let mut stream = deaf.stream("count", ()).await.expect("it begins");
        assert_eq!(stream.next().await.expect("a chunk").expect("good").get(), "{\"n\": 0}");
        drop(stream);
        let dropped = Instant::now();
        let deaths = || {
            let rows = journal::rows(&world.journal());
            let died = rows.into_iter().filter(|row| row.event_type == "worker_died");
            let died: Vec<Row> = died.collect();
            (died.len() == round).then_some(died)
        };
        let died = eventually("death of a worker that does not stop", GRACE, deaths);
        assert!(died[round - 1].text("verdict").contains("cancel"), "{died:?}");
        assert!(dropped.elapsed() > Duration::from_secs(2), "it was asked first: {:?}", dropped.elapsed());
        assert_eq!(deaf.call::<Value>("say", json!({})).await.expect("another worker"), json!(["word", 1]));
    }
    pipeline.shutdown().await;
    assert_all_has_ended(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_composition_that_names_another_configuration_is_refused() {
    let world = world();
    let pipeline =
        builder(&world, &[]).capability(("deaf", json!({"size": 2}))).start().await.expect("a pipeline");
    let naming = |config: &str| {
        composition(&format!(
            "name: sized\ncapabilities: {{ deaf: {{ instances: 2, config: {config} }} }}\nnodes: {{ say: {{ capability: deaf, action: say, map: [1, 2, 3, 4] }} }}\n"
        ))
    };
    let spawned =
        || journal::rows(&world.journal()).iter().filter(|row| row.event_type == "worker_spawned").count();
    // 1 is what the schema says, and not what the instance has.
    for other in ["{size: 3}", "{size: 1}"] {
        let error = pipeline.run(naming(other), Map::new()).await.expect_err("it is another one");
        assert_eq!((error.code(), error.exit_code()), ("composition.other_configuration", exit::DOMAIN));
        assert!(error.to_string().contains("size") && error.next_step().contains("unload"), "{error}");
        assert_eq!(spawned(), 1, "nothing was begun for it");
    }
    // The same, or none: it runs, and what is added is as what is there.
    for same in ["{size: 2}", "{}"] {
        let outcome = pipeline.run(naming(same), Map::new()).await.expect("it runs");
        let said = outcome.output.to_value().expect("a value");
        assert_eq!(said, json!({"say": [["word", 2], ["word", 2], ["word", 2], ["word", 2]]}), "{same}");
        assert_eq!(spawned(), if same == "{}" { 3 } else { 2 });
        pipeline.host().unload(&cjm_wire::InstanceId::from_text("deaf-2")).await.expect("it was loaded");
    }
    // The next step is one: without the instance the composition loads it as it says.
    pipeline.binding("deaf").expect("bound").unload().await.expect("unloaded");
    let outcome = pipeline.run(naming("{size: 3}"), Map::new()).await.expect("it runs");
    assert_eq!(outcome.output.to_value().expect("a value")["say"][0], json!(["word", 3]));
    pipeline.shutdown().await;
    assert_all_has_ended(&world);
}

#[test]
fn a_run_that_is_stopped_tells_what_was_made_before() {
    let text = "name: b\nfailure: best_effort\ninputs: {l: {}}\nnodes:\n  each: {capability: sleeper, action: nap, map: \
                '${inputs.l}', args: {s: '${item}'}}\noutput: ${each}\n";
    let actions = json!({"nap": {"parameters": {"s": {"type": "integer", "required": true}},
        "argv": ["-c", "sleep $0; echo x$0", "{s}"], "result": "stdout_text"}});
    // Two signals at once are one wish: so `timeout` ends its command.
    for (signals, code, outcome, error) in [
        (&[][..], exit::TIMED_OUT, "failed", "composition.deadline"),
        (&[Signal::INT], 130, "cancelled", "ctl.interrupted"),
        (&[Signal::TERM, Signal::TERM], 143, "cancelled", "ctl.interrupted"),
    ] {
        let world = world();
        world.install_executable("sleeper", "sh", &actions);
        let file = world.write("b.yaml", text).display().to_string();
        let late: &[&str] = if signals.is_empty() { &["--timeout", "5"] } else { &[] };
        let running = world.start(&[&["run", &file, "l:=[0,0,0,3600]", "--json"], late].concat());
        until_it_runs(&world, "each");
        eventually("three elements to end", LONG, || {
            let rows = journal::rows(&world.journal());
            (rows.iter().filter(|row| row.terminal() == Some("completed")).count() == 3).then_some(())
        });
        for signal in signals {
            running.signal(*signal);
        }
        let document = running.wait(LONG).expect(code).json();
        assert_eq!(document["outcome"], outcome, "{document}");
        assert_eq!(document["output"], json!(["x0", "x0", "x0", null]), "{document}");
        assert_eq!(document["error"]["code"], error, "{document}");
        assert!(document["run_id"].is_string() && document["composition_id"].is_string(), "{document}");
        assert_eq!(document["failures"].as_array().map_or(0, Vec::len), late.len() / 2, "{document}");
        assert_all_has_ended(&world);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_run_ended_is_told_by_the_next_host_too() {
    let world = world();
    let go = world.write("go", "").display().to_string();
    let text = format!(
        "name: both\nfailure: best_effort\nnodes:\n  say: {{ capability: deaf, action: say }}\n  bad: {{ capability: failing, action: fail, args: {{ after: '{go}' }} }}\noutput: '${{say[0]}}'\n"
    );
    let names = ["deaf", "failing"];
    let pipeline = builder(&world, &names).start().await.expect("a pipeline");
    let told = pipeline.run(composition(&text), Map::new()).await.expect("it runs");
    pipeline.shutdown().await;
    let next = builder(&world, &[]).start().await.expect("a pipeline");
    let stored = next.host().wait_composition_end(&told.composition_id).await.expect("it is known");
    assert_eq!((stored.outcome, stored.output.as_text().as_deref()), (RunOutcome::Partial, Some("word")));
    assert_eq!((stored.status, &stored.failures), (told.status, &told.failures));
    let message = |told: &CompositionOutcome| told.failure.clone().expect("a failure").report.message;
    assert_eq!(message(&stored), message(&told));
    assert_eq!(json!(stored.nodes), json!(told.nodes));
    next.shutdown().await;
    assert_all_has_ended(&world);
}

/// Whatever is done with a large result when it comes, a signal is obeyed within the grace of a cancel.
#[test]
fn a_large_result_holds_no_signal() {
    let text = "name: large\nnodes:\n  make: {capability: large, action: make}\n  take: {capability: large, action: take, args: {rows: '${make}'}}\noutput: '${make}'\n";
    for _ in 0..rounds() {
        for (node, to) in [("make", "running"), ("make", "completed"), ("take", "running")] {
            let world = World::new();
            world.install_python("large", "Large", LARGE);
            let file = world.write("large.yaml", text).display().to_string();
            let running = world.start(&["run", &file, "--json"]);
            eventually("the moment", LONG, || {
                let rows = journal::rows(&world.journal());
                rows.into_iter().find(|row| row.node_id.as_deref() == Some(node) && row.text("to") == to)
            });
            let asked = Instant::now();
            running.signal(Signal::TERM);
            let outcome = running.wait(LONG).expect(143);
            assert!(asked.elapsed() < GRACE, "{:?} after {node} was {to}", asked.elapsed());
            assert_eq!(outcome.json()["outcome"], "cancelled", "{node} {to}");
            assert_all_has_ended(&world);
        }
    }
}

/// Longer than a tool has that asks for nothing.
#[test]
fn a_tool_has_the_time_to_end_well_that_its_manifest_says() {
    let world = World::new();
    let (begun, tidied) = (world.file("begun"), world.file("tidied"));
    let script = format!(
        "trap 'sleep 3.3; touch {tidied}; exit 1' INT; touch {begun}; while :; do sleep 0.05; done",
        tidied = tidied.display(),
        begun = begun.display(),
    );
    let cancel = json!({"signal": "SIGINT", "grace_ms": 20_000});
    let action = |result| json!({"argv": ["-c", script], "cancel": cancel, "result": result});
    let actions = json!({"work": action("stdout_text"), "lines": action("stdout_lines")});
    world.install_executable("tidy", "sh", &actions);
    let text = "name: once\nnodes:\n  only: { capability: tidy, action: work }\n";
    let file = world.write("once.yaml", text).display().to_string();
    let (call, stream) =
        (["call", "tidy", "--action", "work"], ["call", "tidy", "--action", "lines", "--stream"]);
    let late = [&call[..], &["--timeout", "2"]].concat();
    for command in [&call[..], &["run", &file], &stream, &late] {
        for file in [&begun, &tidied] {
            let _ = std::fs::remove_file(file);
        }
        let running = world.start(command);
        eventually("the tool to work", LONG, || begun.exists().then_some(()));
        if !command.contains(&"--timeout") {
            running.signal(Signal::INT);
        }
        let outcome = running.wait(LONG);
        assert!(tidied.exists(), "{}", outcome.describe());
        assert!(outcome.stderr.contains("is killed within 21 s"), "{}", outcome.describe());
        let rows = journal::rows(&world.journal());
        let killed = rows.iter().any(|row| row.payload["to"] == "force");
        assert!(!killed, "{}", journal::tell(&rows));
    }
    assert_all_has_ended(&world);
}

#[test]
fn a_worker_that_dies_by_itself_is_told_while_its_run_goes_on() {
    let world = World::new();
    world.install_executable("mean", "/bin/sh", &json!({"go": {"argv": ["-c", "kill -9 $PPID"]}}));
    let file = world.write("mean.yaml", "name: mean\nnodes:\n  a: { capability: mean }\n");
    let failed = world.run(&["run", &file.display().to_string()]);
    assert_ne!(failed.code, Some(0), "{}", failed.describe());
    assert!(failed.stderr.contains("the worker of mean died"), "{}", failed.describe());
}
