//! One command line, given to the ancestor's `cjm-ctl` and to ours in the same place: the same data directory, made
//! anew for each, the same stand-ins for conda on the PATH, the same words on standard input.
//!
//! What must hold: neither sees what the other left, and neither finds the home of the user.

use crate::ancestor::{Ancestor, Forks};
use crate::repo;
use crate::world::{World, write_script};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Names by which the stand-in for conda can be called.
const CONDA_NAMES: [&str; 3] = ["conda", "mamba", "micromamba"];
/// What stands in for conda.
const STAND_IN: &str = include_str!("../fixtures/conda_stand_in.sh");

/// A place where both run.
#[derive(Debug)]
pub struct Both {
    /// The release.
    pub ancestor: Ancestor,
    /// The folder both run in.
    pub folder: PathBuf,
    bin: PathBuf,
    root: PathBuf,
    python: PathBuf,
    path: String,
    /// Once it has run a command line.
    forks: Mutex<Option<Forks>>,
}

/// What one of them said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Who runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The ancestor.
    Theirs,
    /// We.
    Ours,
}

impl Both {
    /// A place in `world`, with `python` to make environments of.
    #[must_use]
    pub fn new(world: &World, ancestor: Ancestor, python: &Path) -> Self {
        let home = world.file(&format!("both-{}", ancestor.version));
        let bin = home.join("bin");
        std::fs::create_dir_all(&bin).expect("a folder");
        for name in CONDA_NAMES {
            write_script(&bin.join(name), STAND_IN);
        }
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        Self {
            ancestor,
            folder: home.join("folder"),
            root: home.join("conda"),
            bin,
            python: python.to_owned(),
            path,
            forks: Mutex::default(),
        }
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A path in the folder both run in.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file there.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// Puts a program on the PATH of both.
    pub fn add_program(&self, name: &str, program: &Path) {
        std::os::unix::fs::symlink(program, self.bin.join(name)).expect("a link");
    }

    /// Puts a script on the PATH of both, before all others.
    pub fn add_script(&self, name: &str, text: &str) {
        write_script(&self.bin.join(name), text);
    }

    /// Where the stand-in keeps an environment.
    #[must_use]
    pub fn environment(&self, name: &str) -> PathBuf {
        self.root.join("envs").join(name)
    }

    /// Lets the stand-in make an environment.
    pub fn make_environment(&self, name: &str) -> PathBuf {
        let file = self.write("environment.yml", "dependencies: [python]\n");
        let made = self
            .prepared(Command::new(self.bin.join("conda")))
            .args(["env", "create", "-n", name, "-f"])
            .arg(file)
            .output()
            .expect("the stand-in runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        self.environment(name)
    }

    /// All that the stand-in was asked since the last [`Both::empty`].
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.root.with_extension("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Begins anew, with nothing but an empty data directory.
    pub fn empty(&self) {
        for path in [&self.folder, &self.root] {
            let _ = std::fs::remove_dir_all(path);
        }
        let _ = std::fs::remove_file(self.root.with_extension("log"));
        std::fs::create_dir_all(self.data().join("manifests")).expect("a data directory");
    }

    /// One of them runs the command line in the place as it is.
    #[must_use]
    pub fn run(&self, who: Who, arguments: &[&str], stdin: &str) -> Said {
        self.run_with(who, arguments, stdin, &[("CJM_DATA_DIR", &self.data().display().to_string())])
    }

    /// As [`Both::run`], with these variables; without `CJM_DATA_DIR` when they do not name it.
    #[must_use]
    pub fn run_with(&self, who: Who, arguments: &[&str], stdin: &str, variables: &[(&str, &str)]) -> Said {
        if who == Who::Theirs {
            return self.forked(arguments, stdin, variables);
        }
        let mut child = self
            .prepared(Command::new(repo::binary("cjm-ctl")))
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cjm-ctl runs");
        // One that reads nothing may be gone already.
        let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
        let output = child.wait_with_output().expect("cjm-ctl ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    fn forked(&self, arguments: &[&str], stdin: &str, variables: &[(&str, &str)]) -> Said {
        let mut command = self.prepared(Command::new(self.ancestor.ctl_path()));
        command.args(arguments).envs(variables.iter().copied());
        let mut forks = self.forks.lock().unwrap_or_else(PoisonError::into_inner);
        let forks = forks.get_or_insert_with(|| {
            let server = self.prepared(Command::new(self.ancestor.python()));
            Forks::start(server, &self.bin.with_file_name("streams"))
        });
        let (code, [stdout, stderr]) = forks.run(&command, stdin);
        Said { code, stdout, stderr }
    }

    /// Runs a program of the ancestor's, which prints one JSON document.
    #[must_use]
    pub fn ask(&self, script: &str, arguments: &[&str]) -> serde_json::Value {
        let output = self
            .prepared(Command::new(self.ancestor.python()))
            .args(["-c", script])
            .args(arguments)
            .env("CJM_DATA_DIR", self.data())
            .output()
            .expect("the ancestor's Python runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", self.ancestor.version);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"))
    }

    fn prepared(&self, mut command: Command) -> Command {
        command
            .current_dir(&self.folder)
            .env("PATH", &self.path)
            .env("HOME", &self.folder)
            .env_remove("XDG_STATE_HOME")
            .env("STAND_IN_ROOT", &self.root)
            .env("STAND_IN_LOG", self.root.with_extension("log"))
            .env("STAND_IN_PYTHON", &self.python)
            .env("COLUMNS", "400")
            .env("NO_COLOR", "1")
            .env_remove("CJM_DATA_DIR")
            .env_remove("CJM_CONDA_TYPE")
            .env_remove("CJM_CONDA_PREFIX");
        command
    }
}
