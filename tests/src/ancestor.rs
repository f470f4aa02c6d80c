//! The genuine ancestor, installed from PyPI in an environment of its own, to read what we write.
//!
//! It is run, never imported into anything of ours. What must hold: its data directory is always named, because
//! it writes to the home of the user otherwise.

use crate::world::World;
use crate::{python, repo};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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

    /// Runs its `cjm-ctl` on a data directory.
    #[must_use]
    pub fn ctl(&self, data_dir: &Path, arguments: &[&str]) -> Output {
        Command::new(self.folder.join("bin/cjm-ctl"))
            .args(arguments)
            .env("CJM_DATA_DIR", data_dir)
            .env("NO_COLOR", "1")
            .env("COLUMNS", "400")
            .current_dir(data_dir)
            .output()
            .expect("the ancestor's cjm-ctl runs")
    }
}
