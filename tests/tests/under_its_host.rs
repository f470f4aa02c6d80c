//! Workers of ours under the genuine host: its manager, queue, compositions and streams, two releases of it, drive a
//! Python class, a capability in Rust and an executable through `cjm-worker` as `install.python_path`.
//!
//! What must hold: it sees what it would see of its own workers; a host that is killed leaves no process.

use cjm_platform::process::Signal;
use cjm_tests::ancestor::{Ancestor, VERSIONS};
use cjm_tests::watch::Watch;
use cjm_tests::world::{COMMAND_MAX, Outcome, Running, World, eventually};
use cjm_tests::{python, repo};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

/// The first release that asks a worker for its version.
const ASKS_FOR_VERSION: &str = "0.0.74";
/// What a killed host left must be gone by then; the goal is a tenth of it.
const CLEAR_MAX: Duration = Duration::from_secs(1);
/// How long the host may take to bring everything up.
const UP_MAX: Duration = Duration::from_secs(60);

const TOOL: &str = r#"
import logging
import os
import subprocess
import time

from cjm_sdk import Capability, UserInputError

log = logging.getLogger("python-tool")


class Tool(Capability):
    name = "python-tool"
    version = "1.0.0"

    def get_config_schema(self):
        return {"type": "object", "properties": {"volume": {"type": "integer", "default": 3}}}

    def initialize(self, config):
        self.settings = dict(config or {})

    def execute(self, action, **kwargs):
        return getattr(self, "do_" + action)(**kwargs)

    def execute_stream(self, action, to=3, then_fail=False):
        for number in range(to):
            yield {"n": number, "é": 1.5}
        if then_fail:
            raise ConnectionError("broke off")

    def do_shout(self, text):
        log.warning("shouting %s", text)
        print("said aloud", flush=True)
        return text.upper() + "!"

    def do_tell(self, number):
        return {"text": f"it is {number}"}

    def do_fail(self):
        raise UserInputError("bad text", fields_invalid=["text"])

    def do_config(self):
        return self.settings

    def do_wait(self):
        self.report_progress(0.5, "waiting")
        while True:
            self.check_cancel()
            time.sleep(0.005)

    def do_escape(self):
        subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM HUP INT; while true; do sleep 1000; done"])

    def do_die(self):
        os.kill(os.getpid(), 9)
        time.sleep(1000)
"#;

/// Installs the three tools as the ancestor's host wants them; `says` is the version they say they speak.
fn install(world: &World, says: Option<&str>) {
    let worker = repo::binary("cjm-worker").display().to_string();
    let place = |name: &str, code: Value, schema_hash: &str, variables: Value| {
        let mut variables = variables;
        if let Some(says) = says {
            variables["CJM_SUBSTRATE_VERSION"] = says.into();
        }
        let mut section = json!({"name": name, "version": "1.0.0"});
        section.as_object_mut().expect("an object").extend(code.as_object().expect("an object").clone());
        let manifest = json!({
            "format_version": "2.0", "install": {"python_path": worker, "env_vars": variables}, "code": section,
            "drift_tracking": {"config_schema_hash": schema_hash},
        });
        world.install(name, &manifest);
    };
    std::fs::write(world.python_dir().join("python_tool.py"), TOOL).expect("a module");
    let schema = json!({"type": "object", "properties": {"volume": {"type": "integer", "default": 3}}});
    let none = cjm_wire::canonical::canonical_hash_of(&Value::Null);
    place(
        "python-tool",
        json!({"module": "python_tool", "class": "Tool", "config_schema": schema}),
        &cjm_wire::canonical::canonical_hash_of(&schema),
        json!({
            "PYTHONPATH": world.python_dir().display().to_string(),
            "CJM_WORKER_PYTHON": python::interpreter().display().to_string(),
        }),
    );
    let model = json!({"type": "object", "properties": {"model": {"type": "string"}}});
    let native = json!({"kind": "native", "program": repo::binary("cjm-test-native").display().to_string()});
    place(
        "rust-tool",
        json!({"module": "", "class": "", "config_schema": model, "runtime": native}),
        &cjm_wire::canonical::canonical_hash_of(&model),
        json!({}),
    );
    let text = json!({"text": {"type": "string", "required": true}});
    let escape = "setsid sh -c 'trap \"\" TERM HUP INT; while true; do sleep 1000; done' & sleep 1000";
    let script = json!({"kind": "executable", "program": "/bin/sh", "actions": {
        "say": {"parameters": text, "argv": ["-c", "printf %s \"$0\"", "{text}"], "result": "stdout_text"},
        "fail": {"argv": ["-c", "echo broken >&2; exit 3"]},
        "lines": {"argv": ["-c", "echo 1; echo 2"], "result": "stdout_lines"},
        "wait": {"argv": ["-c", escape]},
    }});
    place("script-tool", json!({"module": "", "class": "", "runtime": script}), &none, json!({}));
}

fn start(world: &World, ancestor: &Ancestor, mode: &str) -> Running {
    let mut command = Command::new(ancestor.python());
    command.arg("-B").arg(repo::root().join("tests/fixtures/under_its_host.py")).arg(mode);
    world.start_command(command)
}

fn world() -> World {
    let mut world = World::new();
    world.set("CJM_DATA_DIR", world.data_dir().display().to_string());
    world
}

fn says(version: &str) -> Option<&str> {
    (version == ASKS_FOR_VERSION).then_some(version)
}

/// The last line it printed.
fn told(outcome: &Outcome) -> Value {
    let line = outcome.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}\n{}", outcome.describe()))
}

#[test]
fn its_manager_queue_compositions_and_streams_drive_our_workers() {
    for version in VERSIONS {
        let world = world();
        let test = "its_manager_queue_compositions_and_streams_drive_our_workers";
        let Some(ancestor) = Ancestor::find(&world, test, version) else { continue };
        install(&world, says(version));
        let outcome = start(&world, &ancestor, "drive").wait(COMMAND_MAX).expect(0);
        let seen = told(&outcome);
        for (key, expected) in expected() {
            assert_eq!(seen[key], expected, "{version}: {key}\n{}", outcome.describe());
        }
        // A tool that is killed looks to its host like a worker that is: again after a reload, then given up. It asks
        // whether the process is gone the moment the connection is, and on a busy machine that may be too early, with
        // its own worker as with ours.
        let died = seen["died"]["error"].as_str().unwrap_or_default();
        assert!(["WorkerOOMError", "RemoteProtocolError"].contains(&died), "{died}\n{}", outcome.describe());
        check_rows(&world, version, &seen["job_ids"]);
        world.assert_nothing_left();
        // The same manifests serve our host, on the databases that the other one has written.
        for (arguments, answer) in [
            (["call", "python-tool", "--action", "shout", "text=both"], json!("BOTH!")),
            (["call", "script-tool", "--action", "say", "text=both"], json!("both")),
        ] {
            let outcome = world.run(&[&arguments[..], &["--json"]].concat()).expect(0);
            assert!(outcome.json().to_string().contains(&answer.to_string()), "{}", outcome.describe());
        }
        world.assert_nothing_left();
    }
}

/// What the host must have seen, by the keys of the script.
fn expected() -> Vec<(&'static str, Value)> {
    let all = |value: Value| json!({"python-tool": value, "rust-tool": value, "script-tool": value});
    let stats = json!(["cpu_percent", "memory_rss_mb", "pid", "subtree_pids", "usage"]);
    let completed = |result: Value| json!({"status": "completed", "result": result, "error": null});
    let failed = |category: &str, message: &str, retriable: bool| {
        let error = json!({"category": category, "message": message, "retriable": retriable});
        json!({"status": "failed", "result": null, "error": error})
    };
    // The ancestor ends a job whose tool cooperates as failed: its defect, in both releases.
    let cancelled =
        |name: &str| failed("transient", &format!("Capability '{name}' cancelled by operator"), false);
    let input = |message: &str| json!({"error": "CapabilityInputError", "message": message});
    vec![
        ("loaded", all(json!(true))),
        ("drift", all(json!(false))),
        (
            "calls",
            json!({
                "python": {"result": "A!"},
                "python-fails": input("bad text"),
                "python-config": {"result": {"volume": 3}},
                "rust": {"result": 3},
                "rust-fails": input("argument `left`: invalid type: string \"x\", expected i64"),
                "script": {"result": "b"},
                "script-fails": {"error": "CapabilityFatalError", "message": "sh ended with exit code 3: broken"},
                "script-unknown": input("there is no action `nothing`; there are: say, fail, lines, wait"),
            }),
        ),
        (
            "streams",
            json!({
                "python": [{"n": 0, "é": 1.5}, {"n": 1, "é": 1.5}, {"n": 2, "é": 1.5}],
                "python-fails": [{"n": 0, "é": 1.5}, {"n": 1, "é": 1.5},
                    {"error": "CapabilityTransientError", "message": "broke off"}],
                "rust": [{"n": 0, "é": [1.0, null]}, {"n": 1, "é": [1.0, null]}],
                "script": ["1", "2"],
            }),
        ),
        ("stats", all(stats)),
        (
            "jobs",
            json!({
                "python": completed(json!("É!")),
                "rust": completed(json!(5)),
                "script": completed(json!("hi ☃")),
                "python-fails": failed("user_input", "bad text", true),
                "script-fails": failed("fatal", "sh ended with exit code 3: broken", false),
                "account": completed(json!([true, false])),
            }),
        ),
        (
            "composition",
            json!({"status": "completed",
                "results": {"sum": 42, "text": {"text": "it is 42"}, "said": "it is 42"}}),
        ),
        (
            "cancelled",
            json!({"python-tool": cancelled("python-tool"), "rust-tool": cancelled("rust-tool"),
                "script-tool": cancelled("script-tool")}),
        ),
        ("after_cancel", completed(json!("AFTER!"))),
        ("reloaded", json!({"result": true})),
        ("after_reload", json!({"result": 9})),
    ]
}

fn rows(world: &World, file: &str, query: &str) -> Vec<Vec<Option<String>>> {
    let connection = Connection::open(world.data_dir().join(file)).expect(file);
    let mut statement = connection.prepare(query).expect(query);
    let columns = statement.column_count();
    let text = |row: &rusqlite::Row<'_>| (0..columns).map(|at| row.get(at)).collect();
    let rows = statement.query_map([], text).expect(query);
    rows.collect::<Result<_, _>>().expect(query)
}

/// What stands in its databases.
fn check_rows(world: &World, version: &str, jobs: &Value) {
    let job = |name: &str| Some(jobs[name].as_str().expect("an id").to_owned());
    let records = rows(
        world,
        "diagnostics.db",
        "SELECT level, logger_name, message, job_id, worker_session_id FROM records",
    );
    for (name, wanted) in [
        ("python", ["WARNING", "python-tool", "shouting é"]),
        ("account", ["WARNING", "rust-tool", "accounted"]),
    ] {
        let found = records.iter().find(|record| record[3] == job(name));
        let found = found.unwrap_or_else(|| panic!("{version}: no record of {name}: {records:?}"));
        let said: Vec<&str> = found[..3].iter().flatten().map(String::as_str).collect();
        assert_eq!(said, wanted, "{version}");
        let session = found[4].as_ref().expect("a session");
        let spawned = rows(
            world,
            "journal.db",
            &format!(
                "SELECT capability_instance_id FROM journal WHERE event_type = 'worker_spawned' AND worker_session_id = '{session}'"
            ),
        );
        assert_eq!(spawned.len(), 1, "{version}: the record belongs to a worker of the journal");
    }
    let chunks = rows(world, "diagnostics.db", "SELECT content FROM stream_chunks");
    assert!(chunks.iter().any(|chunk| chunk[0].as_deref() == Some("said aloud")), "{version}: {chunks:?}");
    let accounts = rows(
        world,
        "journal.db",
        "SELECT event_type, payload, job_id FROM journal WHERE worker_reported = 1",
    );
    let account = accounts.iter().find(|row| row[2] == job("account"));
    assert_eq!(
        account.map(|row| row[..2].to_vec()),
        Some(vec![Some("cache_hit".to_owned()), Some("{\"key\": \"\\u00e9\"}".to_owned())]),
        "{version}: {accounts:?}"
    );
    assert!(accounts.iter().all(|row| row[0].as_deref() != Some("state_transition")), "{accounts:?}");
    // What ended a worker reads as it would of the ancestor's own: its SIGTERM, or what killed the tool.
    let deaths = rows(world, "journal.db", "SELECT payload FROM journal WHERE event_type = 'worker_died'");
    let by =
        |code: &str| deaths.iter().filter(|row| row[0].as_ref().is_some_and(|p| p.ends_with(code))).count();
    let killed = by("\"returncode\": -9}");
    assert!((1..=2).contains(&killed), "{version}: {deaths:?}");
    assert_eq!(by("\"returncode\": -15}"), deaths.len() - killed, "{version}: {deaths:?}");
}

#[test]
fn a_release_that_asks_for_the_version_is_told_it_or_refuses() {
    let mut world = world();
    let test = "a_release_that_asks_for_the_version_is_told_it_or_refuses";
    let Some(ancestor) = Ancestor::find(&world, test, ASKS_FOR_VERSION) else { return };
    let load = |world: &World| start(world, &ancestor, "refused").wait(COMMAND_MAX).expect(0);
    for silent_or_wrong in [None, Some("0.0.51")] {
        install(&world, silent_or_wrong);
        let outcome = load(&world);
        let none = json!({"python-tool": false, "rust-tool": false, "script-tool": false});
        assert_eq!(told(&outcome)["loaded"], none, "{}", outcome.describe());
        assert!(outcome.stderr.contains("refused at launch"), "{}", outcome.describe());
        world.assert_nothing_left();
    }
    // The other way a user sets it: for all workers of a host, in the host's own environment.
    install(&world, None);
    world.set("CJM_SUBSTRATE_VERSION", ASKS_FOR_VERSION);
    let outcome = load(&world);
    let all = json!({"python-tool": true, "rust-tool": true, "script-tool": true});
    assert_eq!(told(&outcome)["loaded"], all, "{}", outcome.describe());
    world.assert_nothing_left();
}

#[test]
fn its_host_is_killed_and_nothing_of_ours_lives_on() {
    for version in VERSIONS {
        let world = world();
        let test = "its_host_is_killed_and_nothing_of_ours_lives_on";
        let Some(ancestor) = Ancestor::find(&world, test, version) else { continue };
        install(&world, says(version));
        let host = start(&world, &ancestor, "hang");
        let all_up = || {
            assert!(!host.has_ended(), "{version}: {}{}", host.stdout_so_far(), host.stderr_so_far());
            let watch = Watch::below(host.pid());
            let asleep = watch.living().iter().filter(|line| line.contains("sleep 1000")).count();
            // Python's shell and its sleeper, Rust's sleeper, the script and its shell with a sleeper each.
            (asleep >= 7 && host.stdout_so_far().contains("all of them work")).then_some(watch)
        };
        let watch = eventually("every tool at work, each with an escaped process", UP_MAX, all_up);
        host.signal(Signal::KILL);
        let began = Instant::now();
        let _ = host.wait(COMMAND_MAX);
        match watch.gone_after(began, CLEAR_MAX) {
            Ok(took) => repo::measured(&format!(
                "{} ms until nothing of ours lives after a kill of the host of {version}; goal 100 ms",
                took.as_millis()
            )),
            Err(living) => panic!("{version}: left behind: {living:#?}"),
        }
    }
}
