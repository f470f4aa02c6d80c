//! The genuine ancestor, installed from PyPI in an environment of its own, to read what we write.
//!
//! It is run, never imported into anything of ours. What must hold: its data directory is always named, because
//! it writes to the home of the user otherwise.

use crate::world::World;
use crate::{python, repo};
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// The releases that must agree with us: the one the wire was taken from, and a later one.
pub const VERSIONS: [&str; 2] = ["0.0.51", "0.0.74"];
/// It needs at least this Python.
pub const PYTHON_MIN: (u32, u32) = (3, 12);

/// One installed release.
#[derive(Debug, Clone)]
pub struct Ancestor {
    /// Its version.
    pub version: &'static str,
    folder: PathBuf,
}

impl Ancestor {
    /// Installs a release, or finds it installed. None, after saying so loudly, where that cannot be; in CI that
    /// fails the test.
    #[must_use]
    pub fn find(turn: &World, test: &str, version: &'static str) -> Option<Self> {
        let Some(interpreter) = python::at_least(PYTHON_MIN.0, PYTHON_MIN.1) else {
            repo::skip(test, &format!("no Python >= {}.{} answers here", PYTHON_MIN.0, PYTHON_MIN.1));
            return None;
        };
        let requirement = format!("cjm-substrate=={version}");
        match python::environment(turn, &format!("ancestor-{version}"), &interpreter, &[&requirement]) {
            Ok(folder) => Some(Self { version, folder }),
            Err(error) => {
                repo::skip(test, &format!("{requirement} could not be installed: {error}"));
                None
            }
        }
    }

    /// The interpreter of its environment.
    #[must_use]
    pub fn python(&self) -> PathBuf {
        self.folder.join("bin/python")
    }

    /// Its `cjm-ctl`.
    #[must_use]
    pub fn ctl_path(&self) -> PathBuf {
        self.folder.join("bin/cjm-ctl")
    }

    /// Runs its `cjm-ctl` on a data directory.
    #[must_use]
    pub fn ctl(&self, data_dir: &Path, arguments: &[&str]) -> Output {
        Command::new(self.ctl_path())
            .args(arguments)
            .env("CJM_DATA_DIR", data_dir)
            .env("NO_COLOR", "1")
            .env("COLUMNS", "400")
            .current_dir(data_dir)
            .output()
            .expect("the ancestor's cjm-ctl runs")
    }
}

/// Its `cjm-ctl`, imported once and forked for each command line. Ended when dropped.
#[derive(Debug)]
pub struct Forks {
    server: Child,
    answers: BufReader<ChildStdout>,
    streams: PathBuf,
}

impl Forks {
    /// Starts it by the interpreter `python`, with a folder for what command lines read and say.
    #[must_use]
    pub fn start(mut python: Command, streams: &Path) -> Self {
        std::fs::create_dir_all(streams).expect("a folder");
        let started = python
            .args(["-c", include_str!("../fixtures/ancestor_forks.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut server = started.expect("the ancestor's Python runs");
        let answers = BufReader::new(server.stdout.take().expect("a pipe"));
        Self { server, answers, streams: streams.to_owned() }
    }

    /// Runs `command` as it stands there: its exit code, and what it said on standard output and standard error.
    pub fn run(&mut self, command: &Command, stdin: &str) -> (Option<i32>, [String; 2]) {
        let text = |value: &OsStr| value.to_str().expect("text").to_owned();
        let mut env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => env.insert(name.to_owned(), value.to_owned()),
                None => env.remove(name),
            };
        }
        let [read, said, failed] = ["stdin", "stdout", "stderr"].map(|name| self.streams.join(name));
        std::fs::write(&read, stdin).expect("written");
        let argv: Vec<String> =
            std::iter::once(command.get_program()).chain(command.get_args()).map(text).collect();
        let env: BTreeMap<String, String> = env
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?.into(), value.to_str()?.into())))
            .collect();
        let line = json!({"argv": argv, "cwd": command.get_current_dir(), "env": env,
            "stdin": read, "stdout": said, "stderr": failed});
        writeln!(self.server.stdin.as_mut().expect("a pipe"), "{line}").expect("it lives");
        let mut code = String::new();
        self.answers.read_line(&mut code).expect("it answers");
        let code: i32 = code.trim().parse().expect("a number");
        let said = [said, failed]
            .map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned());
        ((code >= 0).then_some(code), said)
    }
}

impl Drop for Forks {
    fn drop(&mut self) {
        drop(self.server.stdin.take());
        let _ = self.server.wait();
    }
}
