//! A data directory of its own, tools installed in it, and `cjm-ctl` run on it as a user would.
//!
//! One world at a time per test program: timings would otherwise measure the neighbours, and whatever a world
//! leaves behind falls to this process, which is how it is found. What must hold: a world that ends with a
//! process left over fails its test, whatever the test was about.

use crate::{python, repo, watch};
use cjm_platform::process::{self, Pid, PidFd, Signal};
use cjm_platform::tree;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long any one command may take before the test gives up.
pub const COMMAND_MAX: Duration = Duration::from_secs(240);
/// How long leftovers may take to end after their command has; the keeper reports late by design.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A data directory and what is around it.
#[derive(Debug)]
pub struct World {
    dir: TempDir,
    commands: std::cell::Cell<usize>,
    variables: Vec<(String, String)>,
    _turn: MutexGuard<'static, ()>,
}

/// A command that was run to its end.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// As a person would type it.
    pub command: String,
    /// Exit code; None when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
    /// From start to end.
    pub elapsed: Duration,
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pidfd: PidFd,
    command: String,
    output: PathBuf,
    errors: PathBuf,
    started: Instant,
}

impl World {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        // Orphans of a killed host must fall to us, or nobody would see them.
        process::become_subreaper().expect("subreaper");
        let dir = tempfile::Builder::new().prefix("cjm-").tempdir().expect("a temporary directory");
        for name in ["data/manifests", "run", "files", "python"] {
            std::fs::create_dir_all(dir.path().join(name)).expect(name);
        }
        // The host refuses a directory for sockets that others could enter.
        cjm_platform::runtime_dir::private_dir(&dir.path().join("run")).expect("a private directory");
        Self { dir, commands: std::cell::Cell::new(0), variables: Vec::new(), _turn: turn }
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A path for the test's own files.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("files").join(name)
    }

    /// Writes such a file.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        std::fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// Where imported modules of Python tools lie.
    #[must_use]
    pub fn python_dir(&self) -> PathBuf {
        self.dir.path().join("python")
    }

    /// The journal's file.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.data_dir().join("journal.db")
    }

    /// Sets a variable for all later commands.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// Lets all later commands find uv.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn offer_uv(&mut self) -> Result<(), String> {
        let uv = python::uv(self)?;
        let path = std::env::var("PATH").unwrap_or_default();
        self.set("PATH", format!("{}:{path}", uv.parent().unwrap_or(&uv).display()));
        Ok(())
    }

    /// Lets all later commands look into this folder before others for programs.
    pub fn offer_first(&mut self, folder: &Path) {
        let set = self.variables.iter().rev().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
        let path = set.or_else(|| std::env::var("PATH").ok()).unwrap_or_default();
        self.set("PATH", format!("{}:{path}", folder.display()));
    }

    /// Installs a manifest as it is.
    pub fn install(&self, name: &str, manifest: &Value) -> PathBuf {
        let path = self.data_dir().join(format!("manifests/{name}.json"));
        std::fs::write(&path, manifest.to_string()).expect("a manifest is written");
        path
    }

    /// Installs a program that is described by its manifest alone.
    pub fn install_executable(&self, name: &str, program: &str, actions: &Value) -> PathBuf {
        let runtime = json!({"kind": "executable", "program": program, "actions": actions});
        self.install(name, &manifest(name, &json!({"runtime": runtime}), &json!({})))
    }

    /// Installs a Python class: `source` becomes the module NAME (with `_` for `-`), `class` is in it.
    pub fn install_python(&self, name: &str, class: &str, source: &str) -> PathBuf {
        let module = name.replace('-', "_");
        std::fs::write(self.python_dir().join(format!("{module}.py")), source).expect("a module is written");
        let install = json!({
            "python_path": python::interpreter().display().to_string(),
            "env_vars": {"PYTHONPATH": self.python_dir().display().to_string()},
        });
        self.install(name, &manifest(name, &json!({"module": module, "class": class}), &install))
    }

    /// Starts `cjm-ctl` on this directory.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut command = Command::new(repo::binary("cjm-ctl"));
        command.arg("--data-dir").arg(self.data_dir()).args(arguments);
        self.start_command(command)
    }

    /// Starts any program as a child of the test, with the variables of this world.
    #[must_use]
    pub fn start_command(&self, mut command: Command) -> Running {
        let number = self.commands.get();
        self.commands.set(number + 1);
        let output = self.dir.path().join(format!("{number}.out"));
        let errors = self.dir.path().join(format!("{number}.err"));
        command
            .current_dir(self.dir.path().join("files"))
            .env_remove("CJM_DATA_DIR")
            .env_remove("CI")
            .env("XDG_RUNTIME_DIR", self.dir.path().join("run"))
            .env("XDG_STATE_HOME", self.dir.path().join("state"))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(&output).expect("an output file"))
            .stderr(File::create(&errors).expect("an error file"));
        let text = command_text(&command);
        let started = Instant::now();
        let child = command.spawn().unwrap_or_else(|e| panic!("{text}: {e}"));
        let pid = Pid::from_raw(child.id().cast_signed()).expect("a pid");
        let pidfd = PidFd::open(pid).expect("our own child");
        Running { child, pidfd, command: text, output, errors, started }
    }

    /// Runs `cjm-ctl` to its end.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.start(arguments).wait(COMMAND_MAX)
    }

    /// Runs `cjm-ctl`, which must exit 0 and print one JSON document.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.run(arguments).expect(0).json()
    }

    /// What this process' descendants are now, ended ones not.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let own = Pid::current();
        let found = tree::descendants(own).expect("/proc is readable");
        found
            .iter()
            .filter(|i| i.state != 'Z')
            .map(|i| format!("{} {}", i.pid, watch::command_line(i.pid)))
            .collect()
    }

    /// Fails if any process of this world lives.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let watch = watch::Watch::below(Pid::current());
        if let Err(living) = watch.gone_after(Instant::now(), LEFTOVER_GRACE) {
            panic!("left behind: {living:#?}");
        }
        let _ = process_sweep();
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let watch = watch::Watch::below(Pid::current());
        let left = watch.gone_after(Instant::now(), LEFTOVER_GRACE).err();
        let _ = tree::kill_descendants(&[], Duration::from_secs(5));
        if let Some(left) = left.filter(|_| !std::thread::panicking()) {
            panic!("left behind by the test: {left:#?}");
        }
    }
}

impl Running {
    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).expect("a pid")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.pidfd.send_signal(signal).expect("it lives");
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout_so_far(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr_so_far(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.pidfd.has_exited().expect("a pidfd answers")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When `limit` has passed: with both outputs, after ending it.
    #[must_use]
    pub fn wait(mut self, limit: Duration) -> Outcome {
        let ended = self.pidfd.wait_exit(limit).expect("poll");
        let elapsed = self.started.elapsed();
        if !ended {
            let _ = self.child.kill();
        }
        let status = self.child.wait().expect("our own child");
        let outcome = Outcome {
            command: self.command,
            code: status.code(),
            signal: status.signal(),
            stdout: std::fs::read_to_string(&self.output).unwrap_or_default(),
            stderr: std::fs::read_to_string(&self.errors).unwrap_or_default(),
            elapsed,
        };
        assert!(ended, "not done after {limit:?}\n{}", outcome.describe());
        outcome
    }
}

impl Outcome {
    /// Everything about it, for a message.
    #[must_use]
    pub fn describe(&self) -> String {
        format!(
            "$ {}\nexit {:?}, signal {:?}, {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.code, self.signal, self.elapsed, self.stdout, self.stderr
        )
    }

    /// Itself, if it ended with this code.
    #[track_caller]
    #[must_use]
    pub fn expect(self, code: u8) -> Self {
        assert_eq!(self.code, Some(i32::from(code)), "expected exit code {code}\n{}", self.describe());
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e})\n{}", self.describe()))
    }

    /// Standard output as one JSON document per line.
    #[track_caller]
    #[must_use]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line)
                .unwrap_or_else(|e| panic!("no JSON line ({e}): {line}\n{}", self.describe()))
        };
        self.stdout.lines().filter(|line| !line.is_empty()).map(parse).collect()
    }
}

/// A manifest with the given keys in its sections `code` and `install`.
#[must_use]
pub fn manifest(name: &str, code: &Value, install: &Value) -> Value {
    let mut section = Map::new();
    section.insert("name".into(), name.into());
    section.insert("version".into(), "1.0.0".into());
    section.extend(code.as_object().cloned().unwrap_or_default());
    json!({"format_version": "2.0", "install": install, "code": section})
}

fn command_text(command: &Command) -> String {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}

/// Takes the statuses of ended orphans, so that the process table stays short over many runs.
fn process_sweep() -> std::io::Result<()> {
    for info in tree::descendants(Pid::current())? {
        if info.state == 'Z' && info.ppid == Pid::current().as_raw() {
            process::reap(info.pid)?;
        }
    }
    Ok(())
}

/// Waits until `check` gives something, looking again every few milliseconds: for what another process writes
/// and announces to nobody.
///
/// # Panics
/// When `limit` has passed, naming `what`.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(start.elapsed() < limit, "no {what} after {limit:?}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Writes an executable script.
pub fn write_script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
}
