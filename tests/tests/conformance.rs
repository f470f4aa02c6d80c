//! The conformance suite, as its program, against workers of all our runtimes and against the genuine worker of two
//! releases, whose known defects are listed as such.
//!
//! What must hold: ours pass everything that their fixture can be asked; the genuine one fails what is listed and
//! nothing else, and what is listed is still so.

use cjm_tests::ancestor::{Ancestor, VERSIONS};
use cjm_tests::world::{COMMAND_MAX, Outcome, World};
use cjm_tests::{python, repo};
use serde_json::Value;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Fewest checks that must pass: Rust has no types that register themselves and no adapters, a script has no more than
/// its output and its exit code.
const PASSED_MIN: [(&str, u64); 4] = [("rust", 47), ("python", 51), ("script", 32), ("genuine", 46)];

/// What is known of the genuine worker, which is the same in both releases.
const KNOWN: [&str; 5] =
    ["health.busy", "accounts.forged", "stream.abandoned", "cancel.one_call", "progress.new_call"];

/// A worker on a socket of the test's.
struct Worker {
    process: Child,
    address: String,
}

impl Worker {
    /// Starts `program` as the ancestor's host starts a worker.
    fn start(program: &Path, listener: OwnedFd, address: String, variables: &[(&str, String)]) -> Self {
        let ppid = std::process::id().to_string();
        let process = Command::new(program)
            .args(["-m", "cjm_substrate.core.worker", "--module", "conformance_fixture"])
            .args(["--class", "Fixture", "--adapters", "conformance_fixture:Adapter"])
            .args(["--fd", "0", "--ppid", &ppid])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONPATH", fixtures().join("python"))
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(listener))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the worker starts");
        Self { process, address }
    }

    fn on_a_port(program: &Path, variables: &[(&str, String)]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        Self::start(program, listener.into(), address, variables)
    }

    fn on_a_path(program: &Path, path: &Path, variables: &[(&str, String)]) -> Self {
        let listener = UnixListener::bind(path).expect("a socket");
        Self::start(program, listener.into(), format!("unix:{}", path.display()), variables)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let pid = cjm_platform::Pid::from_raw(self.process.id().cast_signed()).expect("a pid");
        // Its own end, so that it clears what it has.
        let _ =
            cjm_platform::PidFd::open(pid).and_then(|worker| worker.send_signal(cjm_platform::Signal::TERM));
        let _ = self.process.wait();
    }
}

fn fixtures() -> PathBuf {
    repo::root().join("worker-shim/conformance/fixtures")
}

fn examine(world: &World, worker: &Worker, more: &[&str]) -> Outcome {
    let mut command = Command::new(repo::binary("cjm-conformance"));
    command.arg("--json").args(more).arg(&worker.address);
    world.start_command(command).wait(COMMAND_MAX)
}

/// Ids with this verdict.
fn ids<'a>(report: &'a Value, verdict: &str) -> Vec<&'a str> {
    let checks = report["checks"].as_array().expect("checks");
    let chosen = checks.iter().filter(|check| check["verdict"] == verdict);
    chosen.filter_map(|check| check["id"].as_str()).collect()
}

fn assert_good(name: &str, outcome: &Outcome, known: &[&str]) {
    let report = outcome.clone().expect(0).json();
    assert_eq!(ids(&report, "fail"), Vec::<&str>::new(), "{name}: {}", outcome.describe());
    assert_eq!(ids(&report, "known-defect"), known, "{name}: {}", outcome.describe());
    let passed = report["summary"]["pass"].as_u64().expect("a count");
    let least = PASSED_MIN.iter().find(|(kind, _)| name.starts_with(kind)).expect("a kind").1;
    assert!(passed >= least, "{name}: {passed} passed, and {least} must: {}", outcome.describe());
}

#[test]
fn our_workers_speak_the_contract_in_every_runtime() {
    let world = World::new();
    let worker = repo::binary("cjm-worker");
    let native = repo::binary("cjm-conformance-fixture");
    let interpreter = python::interpreter().display().to_string();
    let data_dir = ("CAPABILITY_DATA_DIR", world.file("data-of-the-tool").display().to_string());
    let hosted = [("CJM_WORKER_PYTHON", interpreter), data_dir.clone()];
    let manifest = fixtures().join("shell/fixture.json").display().to_string();
    let described = [("CJM_WORKER_MANIFEST", manifest), data_dir.clone()];
    for (name, program, variables) in [
        ("rust", &native, &[data_dir][..]),
        ("python", &worker, &hosted[..]),
        ("script", &worker, &described[..]),
    ] {
        let on_a_port = Worker::on_a_port(program, variables);
        assert_good(name, &examine(&world, &on_a_port, &[]), &[]);
        let path = world.file(&format!("{name}.socket"));
        let on_a_path = Worker::on_a_path(program, &path, variables);
        assert_good(name, &examine(&world, &on_a_path, &[]), &[]);
    }
}

#[test]
fn the_genuine_worker_has_its_known_defects_and_no_others() {
    for version in VERSIONS {
        let world = World::new();
        let test = "the_genuine_worker_has_its_known_defects_and_no_others";
        let Some(ancestor) = Ancestor::find(&world, test, version) else { continue };
        let data_dir = world.data_dir().display().to_string();
        let worker = Worker::on_a_port(&ancestor.python(), &[("CJM_DATA_DIR", data_dir)]);
        let outcome = examine(&world, &worker, &["--known-defects-of", version]);
        assert_good(&format!("genuine {version}"), &outcome, &KNOWN);
        // Told of no release, it is a worker like any other.
        let strict = examine(&world, &worker, &["--only", "accounts"]).expect(1).json();
        assert_eq!(ids(&strict, "fail"), ["accounts.forged"], "{strict}");
    }
}

/// The class of the genuine kind, in our shim: what its author wrote is the same, and none of the defects is.
#[test]
fn a_genuine_class_in_our_shim_has_none_of_the_defects() {
    for version in VERSIONS {
        let world = World::new();
        let test = "a_genuine_class_in_our_shim_has_none_of_the_defects";
        let Some(ancestor) = Ancestor::find(&world, test, version) else { continue };
        let variables = [
            ("CJM_WORKER_PYTHON", ancestor.python().display().to_string()),
            ("CJM_DATA_DIR", world.data_dir().display().to_string()),
            ("CAPABILITY_DATA_DIR", world.file("data-of-the-tool").display().to_string()),
        ];
        let worker = Worker::on_a_port(&repo::binary("cjm-worker"), &variables);
        let report = examine(&world, &worker, &[]).json();
        assert_eq!(report["worker"]["substrate_version"], version, "{report}");
        assert_eq!(ids(&report, "fail"), Vec::<&str>::new(), "{version}: {report:#}");
        assert_eq!(ids(&report, "skipped"), Vec::<&str>::new(), "{version}: {report:#}");
    }
}
