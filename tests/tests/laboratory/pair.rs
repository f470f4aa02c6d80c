//! One pair of host and worker: brings it up on a data directory of its own, asks all that `steps` lists, and says what
//! it answered, what the journal holds and what the diagnostics hold.

use super::http::{Address, ask, ask_and_cancel};
use super::steps;
use cjm_tests::ancestor::Ancestor;
use cjm_tests::repo;
use cjm_tests::world::{COMMAND_MAX, World, eventually};
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a worker may take to be told in the journal.
const UP_MAX: Duration = Duration::from_secs(60);
/// What it all is about.
pub(crate) const NAME: &str = "laboratory";

/// Which host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostKind {
    /// Ours.
    Ours,
    /// The ancestor's.
    Theirs,
}

/// Which worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerKind {
    /// Our shim.
    Ours,
    /// The ancestor's.
    Theirs,
}

/// Everything one pair said.
#[derive(Debug)]
pub(crate) struct Told {
    /// Request → answer.
    pub(crate) surface: Vec<(String, Value)>,
    /// Call → outcome.
    pub(crate) calls: Map<String, Value>,
    /// Rows of the journal, column → value.
    pub(crate) rows: Vec<Map<String, Value>>,
    /// Records of the diagnostics.
    pub(crate) records: Vec<Map<String, Value>>,
    /// Where it all lay.
    pub(crate) data_dir: PathBuf,
}

impl Told {
    /// The job of a call through the host.
    pub(crate) fn job(&self, call: &str) -> Option<&str> {
        self.calls[call]["job"].as_str()
    }
}

/// The laboratory's folder.
pub(crate) fn fixtures() -> PathBuf {
    repo::root().join("tests/fixtures/laboratory")
}

/// Installs the laboratory, described by our introspection in the ancestor's environment, and its adapters.
pub(crate) fn install(world: &World, ancestor: &Ancestor, host: HostKind, worker: WorkerKind) {
    let mut command = Command::new(ancestor.python());
    command
        .arg(repo::root().join("worker-shim/python/cjm_sdk/introspect.py"))
        .args(["laboratory", "--class", "Laboratory", "--adapters"])
        .arg("laboratory:LaboratoryAdapter,laboratory:GreedyAdapter")
        .env("PYTHONPATH", fixtures())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().expect("the interpreter runs");
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    assert!(document.get("error").is_none(), "{document:#}");
    for adapter in document["adapters"].as_array().expect("adapters") {
        let text = adapter.to_string();
        let adapter = cjm_wire::AdapterManifest::parse(&text).expect("an adapter");
        let path = world.data_dir().join("manifests").join(adapter.file_name().expect("a name"));
        std::fs::write(path, adapter.to_file_text()).expect("a manifest");
    }
    let shim = repo::binary("cjm-worker").display().to_string();
    let own = ancestor.python().display().to_string();
    let mut variables =
        json!({"PYTHONPATH": fixtures().display().to_string(), "PYTHONDONTWRITEBYTECODE": "1"});
    let python_path = match (host, worker) {
        (HostKind::Theirs, WorkerKind::Ours) => {
            variables["CJM_WORKER_PYTHON"] = own.into();
            shim
        }
        _ => own,
    };
    let mut manifest: cjm_wire::Manifest = serde_json::from_value(json!({
        "format_version": "2.0",
        "install": {"python_path": python_path, "env_vars": variables},
        "code": {
            "name": NAME, "version": "1.2.3", "module": "laboratory", "class": "Laboratory",
            "config_schema": document["config_schema"], "worker_env": document["worker_env"],
            "structural_surface": document["structural_surface"],
        },
    }))
    .expect("a manifest");
    if (host, worker) == (HostKind::Ours, WorkerKind::Theirs) {
        let genuine = cjm_wire::runtime::PythonWorker::Genuine;
        manifest.code.runtime = Some(cjm_wire::runtime::Runtime::Python { worker: genuine });
    }
    manifest.seal();
    let path = world.data_dir().join("manifests").join(manifest.file_name());
    std::fs::write(path, manifest.to_file_text()).expect("a manifest");
}

/// Plays everything with one pair.
pub(crate) fn play(ancestor: &Ancestor, host: HostKind, worker: WorkerKind) -> Told {
    let world = World::new();
    install(&world, ancestor, host, worker);
    let stored = world.run(&["set-secret", NAME, "LABORATORY_KEY", "--value", "a key ☃"]).expect(0);
    assert!(!stored.stdout.contains('☃'), "{}", stored.describe());
    let (surface, calls) = match host {
        HostKind::Ours => super::ours::play(&world),
        HostKind::Theirs => theirs(&world, ancestor),
    };
    Told {
        surface,
        calls,
        rows: table(&world.journal(), "SELECT * FROM journal ORDER BY seq"),
        records: table(&world.data_dir().join("diagnostics.db"), "SELECT * FROM records ORDER BY seq"),
        data_dir: world.data_dir(),
    }
}

/// Asks everything at the surface of the worker that the journal tells of.
pub(crate) fn ask_surface(journal: &Path) -> Vec<(String, Value)> {
    let address = eventually("worker in the journal", UP_MAX, || {
        let rows = table(journal, "SELECT * FROM journal WHERE event_type = 'worker_spawned'");
        let payload: Value = serde_json::from_str(rows.first()?["payload"].as_str()?).ok()?;
        match (payload["socket"].as_str(), payload["port"].as_u64()) {
            (Some(path), _) => Some(Address::Socket(path.into())),
            (None, Some(port)) => Some(Address::Port(u16::try_from(port).ok()?)),
            (None, None) => None,
        }
    });
    let answer = |request: &steps::Request| match request.cancel_at {
        Some(message) => ask_and_cancel(&address, request, message),
        None => ask(&address, request),
    };
    steps::requests().iter().map(|request| (request.id.clone(), answer(request))).collect()
}

fn theirs(world: &World, ancestor: &Ancestor) -> (Vec<(String, Value)>, Map<String, Value>) {
    let list = world.write("steps.json", steps::calls().to_string());
    let go = world.file("go");
    let mut command = Command::new(ancestor.python());
    command.arg(fixtures().join("genuine_host.py")).arg(list).arg(&go);
    let data_dir = world.data_dir().display().to_string();
    // The world takes the variable away; a shell gives it back.
    let mut shell = Command::new("sh");
    shell.args(["-c", "export CJM_DATA_DIR=\"$0\"; exec \"$@\"", &data_dir]).arg(command.get_program());
    shell.args(command.get_args());
    let running = world.start_command(shell);
    eventually("loaded laboratory", UP_MAX, || {
        assert!(!running.has_ended(), "{}\n{}", running.stdout_so_far(), running.stderr_so_far());
        running.stdout_so_far().contains("\"loaded\": true").then_some(())
    });
    let surface = ask_surface(&world.journal());
    std::fs::write(go, "").expect("a file");
    let outcome = running.wait(COMMAND_MAX).expect(0);
    let last = outcome.stdout.lines().last().unwrap_or_default();
    let seen: Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}\n{}", outcome.describe()));
    (surface, seen.as_object().cloned().unwrap_or_default())
}

/// A table as it is in the file.
fn table(path: &Path, query: &str) -> Vec<Map<String, Value>> {
    let Ok(connection) = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY) else {
        return Vec::new();
    };
    connection.busy_timeout(Duration::from_secs(10)).expect("a pragma");
    let Ok(mut statement) = connection.prepare(query) else { return Vec::new() };
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let read = statement.query_map([], |row| {
        let mut map = Map::new();
        for (index, name) in names.iter().enumerate() {
            map.insert(
                name.clone(),
                match row.get_ref(index)? {
                    rusqlite::types::ValueRef::Integer(number) => number.into(),
                    rusqlite::types::ValueRef::Text(text) => {
                        String::from_utf8_lossy(text).into_owned().into()
                    }
                    _ => Value::Null,
                },
            );
        }
        Ok(map)
    });
    read.expect("a query").map(|row| row.expect("a row")).collect()
}
