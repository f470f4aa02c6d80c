//! What each side keeps beside the journal is read and written by the other: configurations in both schemas,
//! measurements, secrets. And it is not only read: our host starts a worker with it.

use cjm_store::{
    Configs, Empirical, FileSecrets, InputHashes, InstanceConfig, Measured, Sample, Secrets, SqliteConfigs,
    SqliteEmpirical,
};
use cjm_tests::ancestor::{Ancestor, PYTHON_MIN, VERSIONS};
use cjm_tests::both::{Both, Who};
use cjm_tests::python;
use cjm_tests::world::{World, manifest};
use cjm_wire::Timestamp;
use cjm_wire::describe::exit;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Writes and reads configurations with the ancestor's own store: `FILE [NAME CONFIG ENABLED]…`.
const CONFIGS: &str = "
import json, sys
from pathlib import Path
from cjm_substrate.core.config_store import LocalCapabilityConfigStore, CapabilityConfigRecord
store = LocalCapabilityConfigStore(Path(sys.argv[1]))
for name, config, enabled in zip(*[iter(sys.argv[2:])] * 3):
    store.set(name, CapabilityConfigRecord(config=json.loads(config), enabled=enabled == 'yes'))
print(json.dumps({name: [r.config, r.enabled, getattr(r, 'worker_env', {})] for name, r in store.list_all().items()}))
";

/// Folds samples in with the ancestor's own store, and prints all records: `FILE SAMPLES`.
const EMPIRICAL: &str = "
import json, sys
from datetime import datetime
from pathlib import Path
from cjm_substrate.core.empirical_store import LocalEmpiricalResourceStore, ResourceSample
store = LocalEmpiricalResourceStore(Path(sys.argv[1]))
for s in json.loads(sys.argv[2]):
    s['observed_at'] = datetime.fromisoformat(s['observed_at'])
    store.record_sample('lab', 'lab', 'sha256:0', ResourceSample(**s))
print(json.dumps([[r.instance_id, r.sample_count, r.success_rate, r.cpu_percent_mean, r.memory_mb_peak_max,
    r.memory_mb_peak_mean, r.gpu_memory_mb_peak_mean, r.duration_seconds_mean, r.last_observed.isoformat(),
    r.api_usage_totals] for r in store.list_records('lab')]))
";

/// Reads and writes secrets with the ancestor's own store: `FOLDER [KEY VALUE]…`.
const SECRETS: &str = "
import json, sys
from pathlib import Path
from cjm_substrate.core.secret_store import LocalSecretStore
store = LocalSecretStore(Path(sys.argv[1]))
for key, value in zip(*[iter(sys.argv[2:])] * 2):
    store.set_secret('lab', key, value)
print(json.dumps({key: store.get_secret('lab', key) for key in store.list_keys('lab')}))
";

/// What the ancestor takes the content hash of a file to be: `DATABASE FILE`.
const INPUT_HASH: &str = "
import json, sys
from pathlib import Path
from cjm_substrate.utils import cache_paths
print(json.dumps(cache_paths._hash_input_with_stat_cache(Path(sys.argv[2]), cache_path=Path(sys.argv[1]))))
";

/// Writes a journal and diagnostics with the ancestor's own stores: `FOLDER`.
const STORES: &str = "
import json, sys
from pathlib import Path
from cjm_substrate.core.diagnostics_store import DiagnosticRecord, LocalDiagnosticsStore, StreamChunk
from cjm_substrate.core.journal_store import JournalEvent, LocalJournalStore
folder = Path(sys.argv[1])
journal = LocalJournalStore(folder / 'journal.db')
for number in range(3):
    journal.append(JournalEvent(event_type='state_transition', job_id='job-%d-1234567' % number, run_id='R',
        capability_instance_id='lab', capability_name='lab', payload={'from': 'pending', 'to': 'running', 'é': [number]}))
journal.append(JournalEvent(event_type='task_account', worker_reported=True, payload={'task': 't', 'ok': True}))
diagnostics = LocalDiagnosticsStore(folder / 'diagnostics.db')
diagnostics.append_record(DiagnosticRecord(message='went wrong ☃', level='ERROR', logger_name='lab', job_id='job-1-1234567',
    worker_session_id='0123456789abcdef', exc_text='Traceback'))
diagnostics.append_chunk(StreamChunk(content='loading model', worker_session_id='0123456789abcdef'))
print(json.dumps(True))
";

fn with_each_release(test: &str, run: impl Fn(&Both)) {
    for version in VERSIONS {
        let world = World::new();
        let Some(ancestor) = Ancestor::find(&world, test, version) else { continue };
        let python =
            python::at_least(PYTHON_MIN.0, PYTHON_MIN.1).expect("the ancestor was installed with it");
        let both = Both::new(&world, ancestor, &python);
        both.empty();
        run(&both);
        // With what it still runs to fork from.
        drop(both);
        world.assert_nothing_left();
    }
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

fn text(path: &std::path::Path) -> String {
    path.display().to_string()
}

#[test]
fn configurations_are_read_and_written_in_the_schema_that_is_there() {
    with_each_release("configurations_are_read_and_written_in_the_schema_that_is_there", |both| {
        let file = text(&both.data().join("capability_configs.db"));
        let later = both.ancestor.version != "0.0.51";
        let store = SqliteConfigs::of(&both.data());
        let row = |config: Value, enabled: bool| InstanceConfig {
            config: object(&config),
            enabled,
            ..Default::default()
        };
        // A new file of ours, then theirs goes on with it (the later release changes its schema), then we do.
        store.set("ours", &row(json!({"a": [1, 2.5], "é": null}), true)).expect("set");
        let read = both.ask(CONFIGS, &[&file, "theirs", "{\"b\": \"☃\"}", "no"]);
        assert_eq!(read["ours"], json!([{"a": [1, 2.5], "é": null}, true, {}]), "{read}");
        let theirs = store.get("theirs").expect("get").expect("there");
        assert_eq!((Value::Object(theirs.config), theirs.enabled), (json!({"b": "☃"}), false));
        let mut changed = row(json!({"b": 2}), true);
        if later {
            changed.worker_env = object(&json!({"VAR": "1"}));
        }
        store.set("theirs", &changed).expect("set");
        assert!(store.remove("ours").expect("removed"));
        let read = both.ask(CONFIGS, &[&file]);
        let worker_env = if later { json!({"VAR": "1"}) } else { json!({}) };
        assert_eq!(read, json!({"theirs": [{"b": 2}, true, worker_env]}));
        let connection = rusqlite::Connection::open(&file).expect("opens");
        let key: String = connection
            .query_row("SELECT name FROM pragma_table_info('capability_configs') WHERE pk = 1", [], |row| {
                row.get(0)
            })
            .expect("a key");
        assert_eq!(key, if later { "instance_id" } else { "capability_name" });
    });
}

#[test]
fn measurements_fold_into_the_same_row_whoever_measured() {
    with_each_release("measurements_fold_into_the_same_row_whoever_measured", |both| {
        let file = text(&both.data().join("empirical_resources.db"));
        let alone = text(&both.data().join("alone.db"));
        let store = SqliteEmpirical::of(&both.data());
        let of =
            Measured { instance: "lab".into(), capability: "lab".into(), config_hash: "sha256:0".into() };
        let samples: Vec<Value> = (0..6)
            .map(|turn| {
                let x = f64::from(turn);
                json!({"cpu_percent": 10.1 * x, "memory_mb_peak": 100.0 / (x + 1.0), "gpu_memory_mb_peak": x * 0.3,
                       "duration_seconds": 0.1 * x, "success": turn % 3 != 0,
                       "observed_at": format!("2026-11-20T20:27:1{turn}.25+00:00"), "api_usage": {"tokens": 0.1 * x}})
            })
            .collect();
        let number = |sample: &Value, key: &str| sample[key].as_f64().expect(key);
        for (turn, sample) in samples.iter().enumerate() {
            if turn % 2 == 0 {
                let mine = Sample {
                    cpu_percent: number(sample, "cpu_percent"),
                    memory_mb: number(sample, "memory_mb_peak"),
                    gpu_memory_mb: number(sample, "gpu_memory_mb_peak"),
                    duration_s: number(sample, "duration_seconds"),
                    success: sample["success"] == true,
                    observed_at: Timestamp::from_text(format!("2026-11-20T20:27:1{turn}.250000+00:00")),
                    usage: BTreeMap::from([("tokens".to_owned(), number(&sample["api_usage"], "tokens"))]),
                };
                store.record(&of, &mine).expect("record");
            } else {
                let _ = both.ask(EMPIRICAL, &[&file, &json!([sample]).to_string()]);
            }
        }
        let together = both.ask(EMPIRICAL, &[&file, "[]"]);
        let theirs = both.ask(EMPIRICAL, &[&alone, &json!(samples).to_string()]);
        assert_eq!(together, theirs, "the same bits as if the ancestor had measured all");
        let known = store.get("lab", "sha256:0").expect("get").expect("known");
        assert_eq!((known.samples, known.successes), (6, 4));
        assert_eq!(json!(known.memory_mb_mean), theirs[0][5]);
    });
}

#[test]
fn secrets_and_the_last_configuration_reach_the_worker_of_our_host() {
    with_each_release("secrets_and_the_last_configuration_reach_the_worker_of_our_host", |both| {
        let folder = text(&both.data().join("secrets"));
        let secrets = FileSecrets::of(&both.data());
        secrets.set(None, "lab", "OURS", "o").expect("set");
        let read = both.ask(SECRETS, &[&folder, "THEIRS", "t é"]);
        assert_eq!(read, json!({"OURS": "o", "THEIRS": "t é"}));
        assert_eq!(secrets.get(None, "lab", "THEIRS").expect("get").as_deref(), Some("t é"));

        let module = "
import os
from cjm_sdk import Capability, action


class Lab(Capability):
    name = 'lab'
    version = '1'

    def initialize(self, config=None):
        self.given = dict(config or {})

    @action
    def told(self):
        return {'config': self.given, 'variables': {n: os.environ.get(n) for n in ('OURS', 'THEIRS', 'UNDECLARED')}}
";
        both.write("lab.py", module);
        let secret = |name: &str| json!({"name": name, "secret": true});
        let manifest = json!({
            "format_version": "2.0",
            "install": {"python_path": python::interpreter(), "env_vars": {"PYTHONPATH": both.folder}},
            "code": {"name": "lab", "version": "1", "module": "lab", "class": "Lab",
                     "config_schema": {"properties": {"model": {"default": "base"}, "beam": {"default": 5}}},
                     "worker_env": [secret("OURS"), secret("THEIRS"), secret("NOT_SET")]},
        });
        both.write("data/manifests/lab.json", &manifest.to_string());
        secrets.set(None, "lab", "UNDECLARED", "u").expect("set");
        let call = |config: Option<&str>| {
            let mut arguments = vec!["call", "lab", "--action", "told"];
            arguments.extend(config.iter().flat_map(|config| ["--config", config]));
            let said = both.run(Who::Ours, &arguments, "");
            assert_eq!(said.code, Some(0), "{said:?}");
            serde_json::from_str::<Value>(&said.stdout).expect("JSON")
        };
        let told = call(None);
        assert_eq!(told["variables"], json!({"OURS": "o", "THEIRS": "t é", "UNDECLARED": null}));
        assert_eq!(told["config"], json!({"model": "base", "beam": 5}));

        let file = text(&both.data().join("capability_configs.db"));
        let _ = both.ask(CONFIGS, &[&file, "lab", "{\"model\": \"large\", \"gone\": 1}", "yes"]);
        assert_eq!(call(None)["config"], json!({"model": "large", "beam": 5}), "what the ancestor kept");
        assert_eq!(
            call(Some("{\"beam\": 1}"))["config"],
            json!({"model": "base", "beam": 1}),
            "what is told wins"
        );
        let _ = both.ask(CONFIGS, &[&file, "lab", "{}", "no"]);
        let said = both.run(Who::Ours, &["call", "lab", "--action", "told", "--json"], "");
        assert_eq!(said.code, Some(i32::from(exit::WORKER_START)), "{said:?}");
        assert!(said.stdout.contains("worker.disabled"), "{said:?}");
    });
}

/// Runs a program on a terminal of its own, types TYPED when it asks, and says what the terminal showed:
/// `TYPED PROGRAM…`.
const TERMINAL: &str = r"
import json, os, pty, sys, termios
echo = lambda fd: bool(termios.tcgetattr(fd)[3] & termios.ECHO)
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
shown = b''
while not shown.endswith(b': '):
    shown += os.read(fd, 1000)
while_asked = echo(fd)
os.write(fd, sys.argv[1].encode())
while True:
    try:
        more = os.read(fd, 1000)
    except OSError:
        break
    if not more:
        break
    shown += more
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(json.dumps({'shown': shown.decode(), 'code': code, 'echo_while_asked': while_asked, 'echo_after': echo(fd)}))
";

#[test]
fn a_secret_is_asked_for_without_echo_and_the_echo_comes_back() {
    let world = World::new();
    let secrets = ["A_KEY", "B_KEY"].map(|name| json!({"name": name, "secret": true}));
    let code = json!({"worker_env": secrets, "runtime": {"kind": "native", "program": "/bin/true"}});
    world.install("lab", &cjm_tests::world::manifest("lab", &code, &json!({})));
    let data_dir = text(&world.data_dir());
    let set = [text(&cjm_tests::repo::binary("cjm-ctl")), "--data-dir".into(), data_dir, "set-secret".into()];
    let ask = |typed: &str, key: &str| {
        let mut command = std::process::Command::new(python::interpreter());
        command.args(["-c", TERMINAL, typed]).args(&set).args(["lab", key]);
        world.start_command(command).wait(cjm_tests::world::COMMAND_MAX).expect(0).json()
    };
    let typed = ask("hush hush\n", "A_KEY");
    assert_eq!(
        (&typed["code"], &typed["echo_while_asked"], &typed["echo_after"]),
        (&json!(0), &json!(false), &json!(true))
    );
    assert!(!typed["shown"].to_string().contains("hush"), "{typed}");
    let secrets = FileSecrets::of(&world.data_dir());
    assert_eq!(secrets.get(None, "lab", "A_KEY").expect("get").as_deref(), Some("hush hush"));
    // Ctrl-C in the middle of the answer.
    let interrupted = ask("half\u{3}", "B_KEY");
    assert_eq!(
        (&interrupted["code"], &interrupted["echo_after"]),
        (&json!(130), &json!(true)),
        "{interrupted}"
    );
    let nothing = ask("\n", "B_KEY");
    assert_eq!((&nothing["code"], &nothing["echo_after"]), (&json!(1), &json!(true)), "{nothing}");
    assert_eq!(secrets.get(None, "lab", "B_KEY").expect("get"), None);
    world.assert_nothing_left();
}

#[test]
fn what_install_all_makes_of_a_bare_program_is_valid_there_and_found() {
    with_each_release("what_install_all_makes_of_a_bare_program_is_valid_there_and_found", |both| {
        let actions = json!({"count": {"argv": ["-w"]}});
        let runtime = json!({"kind": "executable", "program": "wc", "actions": actions});
        let bare = json!({"format_version": "2.0", "code": {"name": "bare", "version": "1.0.0", "runtime": runtime}});
        both.write("bare.json", &bare.to_string());
        both.write("capabilities.yaml", "capabilities:\n- name: bare\n  manifest: ./bare.json\n");
        let installed = both.run(Who::Ours, &["install-all"], "");
        assert_eq!(installed.code, Some(0), "{installed:?}");
        let written = both.data().join("manifests/bare.json").display().to_string();
        let verdict = both.run(Who::Theirs, &["validate", "--format", "manifest", &written], "");
        assert_eq!(verdict.code, Some(0), "{verdict:?}");
        let listed = both.run(Who::Theirs, &["list"], "");
        assert!(listed.stdout.contains("bare v1.0.0"), "{listed:?}");
    });
}

/// Each finds the row of the other: a hash planted there is what the next one answers.
#[test]
fn hashes_of_input_files_are_looked_up_in_the_same_rows() {
    with_each_release("hashes_of_input_files_are_looked_up_in_the_same_rows", |both| {
        let database = text(&both.data().join("input_hash_cache.db"));
        let planted = format!("sha256:{}", "5".repeat(64));
        let plant = |file: &str| {
            let connection = rusqlite::Connection::open(&database).expect("opens");
            let change = "UPDATE input_hash_cache SET content_hash = ?1 WHERE path = ?2";
            assert_eq!(connection.execute(change, [&planted, file]).expect("planted"), 1, "{file}");
        };
        // What changed within the last second is not remembered by us.
        let file = |name: &str| {
            let path = both.write(name, name);
            let then = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
            std::fs::File::options()
                .write(true)
                .open(&path)
                .and_then(|f| f.set_modified(then))
                .expect("aged");
            text(&path)
        };
        // A row that says nothing of the inode is believed of a file that nobody touched after it was written.
        let (ours, theirs) = (file("ours.txt"), text(&both.write("theirs.txt", "theirs.txt")));
        let hashes = InputHashes::of(&both.data());
        let first = hashes.state(std::path::Path::new(&ours), &|| false).expect("hashed").content_hash;
        plant(&ours);
        assert_eq!(both.ask(INPUT_HASH, &[&database, &ours]), planted, "the ancestor reads our row");
        assert_ne!(first, planted);
        let read = both.ask(INPUT_HASH, &[&database, &theirs]);
        plant(&theirs);
        let known = hashes.state(std::path::Path::new(&theirs), &|| false).expect("known").content_hash;
        assert_eq!(known, planted, "we read the ancestor's row");
        assert_eq!(read.as_str().map(str::len), Some(first.len()));
    });
}

#[test]
fn what_its_stores_wrote_is_told_by_both_in_the_same_words() {
    with_each_release("what_its_stores_wrote_is_told_by_both_in_the_same_words", |both| {
        assert_eq!(both.ask(STORES, &[&text(&both.data())]), json!(true));
        for arguments in [
            &["logs", "--journal"][..],
            &["logs", "--journal", "--job", "job-1-1234567"],
            &["logs"],
            &["logs", "--level", "ERROR"],
            &["logs", "--chunks", "-n", "5"],
        ] {
            let (theirs, ours) = (both.run(Who::Theirs, arguments, ""), both.run(Who::Ours, arguments, ""));
            assert_eq!(theirs, ours, "{arguments:?}");
            assert!(theirs.code == Some(0) && !theirs.stdout.trim().is_empty(), "{arguments:?} {theirs:?}");
        }
        let rows = both.run(Who::Ours, &["logs", "--journal", "--json"], "");
        let rows: Value = serde_json::from_str(&rows.stdout).expect("one document");
        assert_eq!(rows.as_array().map(Vec::len), Some(4), "{rows}");
    });
}

/// What a tool makes is of its settings too, also where the next host keeps nothing else of it.
#[test]
fn files_are_made_anew_with_another_setting_or_secret_of_their_tool() {
    let world = World::new();
    let page = text(&world.write("page", "abc"));
    let install = |region: &str| {
        let action = json!({
            "argv": ["-c", "echo \"$REGION $LEVEL $A_KEY\" > \"$1\"", "sh", "{out}"],
            "parameters": {"page": {"type": "input_file", "required": true}},
            "outputs": {"out": "{cache_dir}/out"},
            "result": "files",
        });
        let runtime = json!({"kind": "executable", "program": "/bin/sh", "actions": {"tell": action}});
        let declared = json!([{"name": "LEVEL", "default": "low"}, {"name": "A_KEY", "secret": true}]);
        let code = json!({"runtime": runtime, "worker_env": declared});
        world.install("lab", &manifest("lab", &code, &json!({"env_vars": {"REGION": region}})));
    };
    let argument = format!("page={page}");
    let made = || {
        let answer = world.json(&["call", "lab", &argument, "--json"]);
        let path = answer["result"]["out"]["path"].as_str().unwrap_or_else(|| panic!("{answer:#}"));
        std::fs::read_to_string(path).expect("a file")
    };
    let hits = || {
        let rows = world.json(&["logs", "--journal", "-n", "0", "--json"]);
        let rows = rows.as_array().expect("rows").iter();
        rows.filter(|row| row["event_type"] == "cache_hit").count()
    };
    install("eu");
    assert_eq!((made(), made(), hits()), ("eu low \n".into(), "eu low \n".into(), 1));
    install("us");
    assert_eq!((made(), made(), hits()), ("us low \n".into(), "us low \n".into(), 2));
    for (key, expected) in [("s3cret-one", 3), ("s3cret-two", 4)] {
        let _ = world.run(&["set-secret", "lab", "A_KEY", "--value", key]).expect(0);
        let told = format!("us low {key}\n");
        assert_eq!((made(), made(), hits()), (told.clone(), told, expected), "{key}");
    }
    world.assert_nothing_left();
}
