//! `cjm-ctl logs --journal --json` tells the whole story of a run: every worker's life, every job's way, what the
//! composition did; and it tells neither more nor less than the file holds.

use cjm_tests::journal;
use cjm_tests::world::World;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const COMPOSITION: &str = "
name: story
inputs: {words: {}}
capabilities: {upper: {instances: 2}}
nodes:
  shout: {capability: upper, action: shout, map: '${inputs.words}', args: {text: '${item}'}}
  join: {capability: joiner, args: {text: '${shout[0]}-${shout[3]}'}}
output: {joined: '${join}', all: '${shout}'}
";

/// Long enough that two instances must overlap.
const UPPER: &str = "
import time
from cjm_sdk import Capability, action

class Upper(Capability):
    name = 'upper'
    version = '1.0.0'

    @action
    def shout(self, text):
        time.sleep(0.3)
        return text.upper()
";

/// A world in which the story has been played, and what `run` answered.
fn play() -> (World, Value) {
    let world = World::new();
    world.install_python("upper", "Upper", UPPER);
    let actions = json!({"join": {
        "parameters": {"text": {"type": "string", "required": true}},
        "argv": ["{text}"], "result": "stdout_text",
    }});
    world.install_executable("joiner", "echo", &actions);
    let composition = world.write("story.yaml", COMPOSITION).display().to_string();
    let answer = world.json(&["run", &composition, "words=[\"a\",\"b\",\"c\",\"d\"]", "--json"]);
    world.assert_nothing_left();
    (world, answer)
}

fn told(world: &World, more: &[&str]) -> Vec<Value> {
    let arguments = [&["logs", "--journal", "--json"], more].concat();
    let document = world.json(&arguments);
    document.as_array().cloned().unwrap_or_else(|| panic!("a list of rows: {document}"))
}

fn of_type<'a>(rows: &'a [Value], kind: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row["event_type"] == kind).collect()
}

#[test]
fn the_journal_tells_the_run_from_first_spawn_to_last_death() {
    let (world, answer) = play();
    assert!(answer.to_string().contains("A-D"), "{answer}");
    let rows = told(&world, &[]);
    let kinds: Vec<&str> = rows.iter().filter_map(|row| row["event_type"].as_str()).collect();

    // Workers: each spawned, ready, and ended, in this order, in a session of its own.
    let sessions = |kind| -> BTreeSet<String> {
        of_type(&rows, kind).iter().map(|row| row["worker_session_id"].to_string()).collect()
    };
    assert_eq!(sessions("worker_spawned").len(), 3, "two of one tool, one of the other: {kinds:?}");
    assert_eq!(sessions("worker_spawned"), sessions("worker_ready"), "{kinds:?}");
    assert_eq!(sessions("worker_spawned"), sessions("worker_died"), "{kinds:?}");
    for row in of_type(&rows, "worker_spawned") {
        assert!(row["payload"]["pid"].as_u64().is_some(), "{row}");
    }

    // Jobs: five, each admitted, running, completed.
    let mut ways: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in of_type(&rows, "state_transition") {
        let to = row["payload"]["to"].as_str().unwrap_or_default().to_owned();
        ways.entry(row["job_id"].as_str().unwrap_or_default()).or_default().push(to);
    }
    assert_eq!(ways.len(), 5, "{ways:?}");
    for (job, way) in &ways {
        let ends = &way[way.len() - 2..];
        assert_eq!(ends, ["running", "completed"], "{job}: {way:?}");
        let admitted = kinds_of(&rows, job).iter().position(|kind| *kind == "admission_decided");
        assert!(admitted.is_some(), "{job} was admitted: {:?}", kinds_of(&rows, job));
    }
    for row in of_type(&rows, "state_transition").iter().filter(|row| row["payload"]["to"] == "completed") {
        let snapshot = &row["payload"]["job_snapshot"];
        assert_eq!(snapshot["status"], "completed", "{row}");
        assert!(snapshot["composition_id"].is_string() && snapshot["node_id"].is_string(), "{row}");
        assert!(snapshot["started_at"].is_string() && snapshot["completed_at"].is_string(), "{row}");
    }

    // The composition: both nodes, and everybody who asked.
    let advanced: BTreeSet<String> = of_type(&rows, "composition_advanced")
        .iter()
        .map(|r| r["payload"]["completed_node"].to_string())
        .collect();
    assert!(advanced.contains("\"shout\"") && advanced.contains("\"join\""), "{advanced:?}");
    let runs: BTreeSet<String> =
        rows.iter().filter(|r| r["run_id"].is_string()).map(|r| r["run_id"].to_string()).collect();
    assert_eq!(runs.len(), 1, "one run: {runs:?}");
    assert!(
        of_type(&rows, "state_transition").iter().all(|r| r["actor"].is_string()),
        "every job has an actor"
    );
    journal::assert_every_job_ended_once(&world.journal());
}

fn kinds_of<'a>(rows: &'a [Value], job: &str) -> Vec<&'a str> {
    rows.iter().filter(|row| row["job_id"] == job).filter_map(|row| row["event_type"].as_str()).collect()
}

#[test]
fn what_is_told_is_what_the_file_holds() {
    let (world, _) = play();
    let told = told(&world, &[]);
    let held = journal::rows(&world.journal());
    assert_eq!(told.len(), held.len(), "told and held");
    for (told, held) in told.iter().zip(&held) {
        assert_eq!(told["event_id"], held.event_id.as_str());
        assert_eq!(told["event_type"], held.event_type.as_str());
        assert_eq!(told["ts"], held.ts.as_str());
        assert_eq!(told["payload"], held.payload, "{held:?}");
    }
    let job = held.iter().find_map(|row| row.job_id.clone()).expect("a job");
    let of_job = held.iter().filter(|row| row.job_id.as_ref() == Some(&job)).count();
    assert_eq!(self::told(&world, &["--job", &job]).len(), of_job, "--job filters exactly");
    let worker = held.iter().find_map(|row| row.worker.clone()).expect("a worker");
    let of_worker = held.iter().filter(|row| row.worker.as_ref() == Some(&worker)).count();
    assert_eq!(self::told(&world, &["--session", &worker]).len(), of_worker, "--session filters exactly");
    assert_eq!(self::told(&world, &["-n", "3"]).len(), 3, "-n limits");
}

#[test]
fn two_instances_of_one_tool_work_at_the_same_time() {
    let (world, _) = play();
    let rows = journal::rows(&world.journal());
    let spans = journal::spans(&rows, "shout");
    assert_eq!(spans.len(), 4, "{spans:?}");
    let workers: BTreeSet<&String> = spans.iter().map(|span| &span.worker).collect();
    assert_eq!(workers.len(), 2, "{spans:?}");
    assert!(journal::overlap(&spans), "two workers at once: {spans:?}");
}

#[test]
fn a_mistyped_word_is_told_with_those_like_it_and_an_installed_tool_is_not_called_unknown() {
    let world = World::new();
    let actions = json!({"say": {"argv": ["hello"], "result": "stdout_text"}});
    for name in ["greeter", "silent"] {
        world.install_executable(name, "echo", &actions);
    }
    let _ = world.run(&["call", "greeter"]).expect(0);
    for (arguments, code, words) in [
        (["--capability", "gretter"], 1, "did you mean \"greeter\"?"),
        (["--level", "warn"], 2, "did you mean \"WARNING\"?"),
        (["--type", "died"], 2, "did you mean \"worker_died\"?"),
        (["--status", "complete"], 2, "did you mean \"completed\"?"),
        (["--capability", "silent"], 1, "it is installed, and was not called"),
        // What names nothing must not show everything.
        (["--job", ""], 2, "--job is empty: it names nothing"),
        (["--session", " "], 2, "--session is empty: it names nothing"),
        (["--run", ""], 2, "--run is empty: it names nothing"),
        (["--node", ""], 2, "--node is empty: it names nothing"),
        (["--capability", ""], 2, "--capability is empty: it names nothing"),
    ] {
        let told = world.run(&[&["logs"][..], &arguments].concat()).expect(code);
        assert!(told.stderr.contains(words), "{}", told.describe());
    }
    for command in ["remove", "regenerate-manifest"] {
        let told = world.run(&[command, "gretter"]).expect(1);
        assert!(told.stderr.contains("did you mean \"greeter\"?"), "{}", told.describe());
    }
    let of_journal = world.run(&["logs", "--journal", "--capability", "silent"]).expect(1);
    assert!(of_journal.stderr.contains("was not called"), "{}", of_journal.describe());
}

#[test]
fn a_removal_that_is_declined_is_no_success() {
    let world = World::new();
    let manifest = world.install_executable("greeter", "echo", &json!({"say": {"argv": ["hello"]}}));
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "echo n | \"$0\" --data-dir \"$1\" remove greeter"]);
    shell.arg(cjm_tests::repo::binary("cjm-ctl")).arg(world.data_dir());
    let declined = world.start_command(shell).wait(cjm_tests::world::COMMAND_MAX).expect(1);
    assert!(declined.stderr.contains("nothing was done"), "{}", declined.describe());
    assert!(manifest.exists());
}
