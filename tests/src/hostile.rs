//! A tool whose processes try to outlive it (`fixtures/hostile.py`), in each kind of runtime, and the ear that
//! hears from every one of them before a test strikes.

use crate::watch::Watch;
use crate::world::{World, manifest};
use crate::{python, repo};
use cjm_platform::process::{Pid, Signal};
use serde_json::json;
use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Every process of the family reports in one of these roles.
pub const ROLES: [&str; 8] = ["child", "daemon", "deaf", "grandchild", "group", "session", "stopped", "tool"];
/// How long the family may take to be complete.
const COMPLETE_MAX: Duration = Duration::from_secs(60);

/// Where the family reports.
#[derive(Debug)]
pub struct Ear {
    socket: UnixDatagram,
    /// Its path, the tool's argument.
    pub path: PathBuf,
}

impl Ear {
    /// Opens one in the world.
    #[must_use]
    pub fn open(world: &World) -> Self {
        let path = world.file("ear");
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        Self { socket, path }
    }

    /// Waits until all have reported; role → pid.
    ///
    /// # Panics
    /// When they have not after a minute, or when `context` says why waiting is vain (its `Ok` is shown with the
    /// former).
    pub fn hear_all(&self, context: impl Fn() -> Result<String, String>) -> BTreeMap<String, Pid> {
        let start = Instant::now();
        let mut heard = BTreeMap::new();
        let mut buffer = [0_u8; 128];
        while heard.len() < ROLES.len() {
            if let Ok(length) = self.socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let (role, pid) = text.split_once(' ').expect("ROLE PID");
                // The daemon reports from the process it has become.
                let role = if role == "naked" { "daemon" } else { role };
                let pid = pid.parse().ok().and_then(Pid::from_raw).expect("a pid");
                heard.insert(role.to_owned(), pid);
            } else if let Err(reason) = context() {
                panic!("the family is incomplete ({heard:?}): {reason}");
            }
            assert!(start.elapsed() < COMPLETE_MAX, "only {heard:?} reported: {:?}", context());
        }
        heard
    }
}

/// The script's path.
#[must_use]
pub fn script() -> PathBuf {
    repo::root().join("tests/fixtures/hostile.py")
}

/// Installs it as a program described by its manifest alone: `hostile`, argument `ear`.
pub fn install_executable(world: &World) {
    let actions = json!({"raise": {
        "parameters": {"ear": {"type": "path", "required": true}},
        "argv": [script().display().to_string(), "{ear}"],
    }});
    world.install_executable("hostile", &python::interpreter().display().to_string(), &actions);
}

/// Installs it as a Python class that starts the family from inside: `hostile`, argument `ear`.
pub fn install_python(world: &World) {
    let source = format!(
        r#"
import subprocess
import sys

from cjm_sdk import Capability, action


class Hostile(Capability):
    name = "hostile"
    version = "1.0.0"

    @action("raise")
    def raise_family(self, ear):
        subprocess.run([sys.executable, {script:?}, ear], start_new_session=True)
"#,
        script = script().display().to_string()
    );
    world.install_python("hostile", "Hostile", &source);
}

/// Installs it as a native tool, a test program of the worker crate that runs the argument `argv`: `hostile`.
pub fn install_native(world: &World) {
    let program = repo::binary("cjm-test-native").display().to_string();
    let runtime = json!({"kind": "native", "program": program});
    world.install("hostile", &manifest("hostile", &json!({"runtime": runtime}), &json!({})));
}

/// The command line that raises the family by hand.
#[must_use]
pub fn command(ear: &Ear) -> Vec<String> {
    [&python::interpreter(), &script(), &ear.path].map(|path| path.display().to_string()).to_vec()
}

/// How long the kernel alone needs to end such a family, when each member is killed by pidfd at once: the floor
/// to which a clearing is compared.
#[must_use]
pub fn floor(world: &World) -> Duration {
    let ear = Ear::open(world);
    let mut child = Command::new(python::interpreter())
        .arg(script())
        .arg(&ear.path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("python runs");
    let family = ear.hear_all(|| Ok("the floor".to_owned()));
    let mut watch = Watch::default();
    family.values().for_each(|pid| watch.add(*pid));
    let start = Instant::now();
    watch.all().iter().for_each(|watched| watched.signal(Signal::KILL));
    let elapsed = watch.gone_after(start, Duration::from_secs(10)).expect("SIGKILL ends everything");
    let _ = child.wait();
    elapsed
}
