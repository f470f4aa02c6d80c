//! Finds uv, or makes it: uv is in no Debian package and pip refuses system installs, so it gets a home of its own
//! below the data directory. It resolves and installs; what to install is decided elsewhere.

use crate::command::{Answer, command, run, run_well};
use crate::error::{EnvironmentError, speaks_of_room};
use crate::interpreters::Interpreter;
use crate::pip_settings;
use cjm_platform::disk::DiskRoom;
use cjm_wire::Described;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the machine trusts, on Debian and its kin.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// How long `uv --version` may take.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the installation of uv may take.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(600);
/// How long one uv command may take: big wheels over a slow line.
const UV_TIMEOUT: Duration = Duration::from_secs(3600);
/// What uv takes at least, in bytes.
const UV_BYTES: u64 = 30_000_000;
/// Interpreters tried before giving up.
const BOOTSTRAP_ATTEMPTS_MAX: usize = 4;

/// A uv that answers.
#[derive(Debug, Clone)]
pub(crate) struct Uv {
    path: PathBuf,
    /// `uv 0.13.8`, as it says itself.
    pub(crate) version: String,
    /// Where it keeps what it fetched, if not in its usual place.
    cache: Option<PathBuf>,
}

impl Uv {
    /// On the PATH, in the places its own installer uses, or made by us earlier.
    pub(crate) async fn find(data_dir: &Path) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let folders = std::env::split_paths(&path)
            .chain(home.into_iter().flat_map(|home| [home.join(".local/bin"), home.join(".cargo/bin")]))
            .chain([own_home(data_dir).join("bin")]);
        for folder in folders.filter(|folder| folder.is_absolute()) {
            if let Some(uv) = Self::probe(&folder.join("uv")).await {
                return Some(uv);
            }
        }
        None
    }

    async fn probe(path: &Path) -> Option<Self> {
        if !path.is_file() {
            return None;
        }
        let mut question = command(path);
        question.arg("--version");
        let answer = run(question, "looking for uv", VERSION_TIMEOUT, &|_| {}).await.ok()?;
        let text = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        let mut words = text.split_whitespace();
        let named = words.next() == Some("uv");
        let version = words.next()?;
        (answer.success && named).then(|| Self {
            path: path.to_owned(),
            version: format!("uv {version}"),
            cache: None,
        })
    }

    /// Installs uv below the data directory with the first interpreter that can.
    ///
    /// # Errors
    /// When none can; the error carries the last words of the last attempt.
    pub(crate) async fn bootstrap(
        data_dir: &Path,
        interpreters: &[Interpreter],
        on_line: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Self, EnvironmentError> {
        let home = own_home(data_dir);
        let mut last = None;
        for interpreter in interpreters.iter().take(BOOTSTRAP_ATTEMPTS_MAX) {
            match install_with(interpreter, &home, on_line).await {
                Ok(()) => {
                    if let Some(uv) = Self::probe(&home.join("bin/uv")).await {
                        return Ok(uv);
                    }
                }
                Err(error) => last = Some(error),
            }
        }
        let free_bytes = DiskRoom::of(&home).map(|room| room.bytes);
        if last.as_ref().is_some_and(|error| is_for_room(error, free_bytes)) {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(EnvironmentError::NoRoom { action: "install uv into", path: home, source });
        }
        Err(no_uv(last.as_ref(), interpreters.is_empty()))
    }

    /// Gives it a cache below the data directory where its usual place cannot be written (a user without a home).
    pub(crate) fn with_usable_cache(mut self, data_dir: &Path) -> Self {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if named("UV_CACHE_DIR").is_some() {
            return self;
        }
        let usual = named("XDG_CACHE_HOME").or_else(|| named("HOME").map(|home| home.join(".cache")));
        let usable = usual.is_some_and(|folder| {
            let folder = folder.join("uv");
            std::fs::create_dir_all(&folder).is_ok()
                && rustix::fs::access(&folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
                    .is_ok()
        });
        if !usable {
            self.cache = Some(data_dir.join("tools/uv-cache"));
        }
        self
    }

    /// A command of this uv, deaf to projects around the working directory.
    pub(crate) fn command(&self, arguments: &[&str], offline: bool) -> tokio::process::Command {
        let mut command = command(&self.path);
        command.args(arguments).args(["--no-progress", "--color", "never"]);
        if let Some(cache) = &self.cache {
            command.env("UV_CACHE_DIR", cache);
        }
        // As pip does on Debian: what the machine trusts, a company's proxy included, not a list of uv's own.
        if std::env::var_os("UV_SYSTEM_CERTS").is_none() && Path::new(SYSTEM_CERTIFICATES).exists() {
            command.env("UV_SYSTEM_CERTS", "true");
        }
        if offline {
            command.arg("--offline");
        }
        command
    }

    /// Runs such a command well.
    ///
    /// # Errors
    /// With uv's last lines.
    pub(crate) async fn run(
        &self,
        command: tokio::process::Command,
        what: &str,
        on_line: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Answer, EnvironmentError> {
        run_well(command, what, UV_TIMEOUT, on_line).await
    }
}

fn own_home(data_dir: &Path) -> PathBuf {
    data_dir.join("tools/uv")
}

/// In a virtual environment; where the system lacks `ensurepip`, with the interpreter's own pip into a folder.
async fn install_with(
    interpreter: &Interpreter,
    home: &Path,
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<(), EnvironmentError> {
    crate::files::remove_dir(home)?;
    let mut venv = command(&interpreter.path);
    venv.args(["-m", "venv"]).arg(home);
    let made = run_well(venv, "making a home for uv", BOOTSTRAP_TIMEOUT, on_line).await;
    let mut pip = if made.is_ok() {
        let mut pip = command(&home.join("bin/python"));
        pip.args(["-m", "pip", "install"]);
        pip
    } else {
        crate::files::remove_dir(home)?;
        let mut pip = command(&interpreter.path);
        pip.args(["-m", "pip", "install", "--target"]).arg(home);
        pip
    };
    let python = if made.is_ok() { home.join("bin/python") } else { interpreter.path.clone() };
    pip.envs(pip_settings::for_registry_alone(&python).await);
    pip.args(["--disable-pip-version-check", "--no-input", "--only-binary", ":all:", "uv"]);
    match run_well(pip, "installing uv", BOOTSTRAP_TIMEOUT, on_line).await {
        Ok(_) => Ok(()),
        // Without venv and without pip, what venv said is the useful message.
        Err(error) => Err(made.err().unwrap_or(error)),
    }
}

/// Whether it failed since the disk is full. pip and its helpers do not always say what they failed at.
fn is_for_room(error: &EnvironmentError, free_bytes: Option<u64>) -> bool {
    let is_full = free_bytes.is_some_and(|bytes| bytes < UV_BYTES);
    is_full || speaks_of_room(&error.stderr_tail())
}

fn no_uv(last: Option<&EnvironmentError>, no_interpreter: bool) -> EnvironmentError {
    let stderr_tail = last.map(EnvironmentError::stderr_tail).unwrap_or_default();
    let (reason, next_step) = if no_interpreter {
        ("there is no Python 3 on this machine".to_owned(), "apt-get install python3 python3-venv".to_owned())
    } else {
        let lacks_venv =
            stderr_tail.iter().any(|line| line.contains("ensurepip") || line.contains("python3-venv"));
        let reason = last.map_or_else(|| "it does not run".to_owned(), ToString::to_string);
        if let Some(loud @ EnvironmentError::HelperTooLoud { .. }) = last {
            return EnvironmentError::NoUv { reason, next_step: loud.next_step(), stderr_tail };
        }
        if lacks_venv {
            (
                reason,
                "`apt-get install python3-venv`, or install uv yourself, then run install-all again"
                    .to_owned(),
            )
        } else {
            (reason, "check the network, or install uv yourself (https://docs.astral.sh/uv), then run install-all again".to_owned())
        }
    };
    EnvironmentError::NoUv { reason, next_step, stderr_tail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::PythonVersion;
    use cjm_wire::describe::exit;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_disk_without_room_is_the_cause_whether_or_not_a_helper_says_so() {
        let failed = |words: &str| EnvironmentError::HelperFailed {
            what: "installing uv".to_owned(),
            program: "pip".to_owned(),
            ending: "exit code 1".to_owned(),
            stderr_tail: vec![words.to_owned()],
        };
        let says_so = "OSError: [Errno 28] No space left on device";
        for (words, free_bytes, expected) in [
            ("pip failed", Some(UV_BYTES - 1), true),
            ("pip failed", Some(UV_BYTES), false),
            ("pip failed", None, false),
            (says_so, Some(UV_BYTES), true),
            (says_so, None, true),
        ] {
            assert_eq!(is_for_room(&failed(words), free_bytes), expected, "{words} {free_bytes:?}");
        }
    }

    #[test]
    fn the_step_after_uv_was_not_to_be_had_is_about_what_failed() {
        let failed = |line: &str| EnvironmentError::HelperFailed {
            what: "installing uv".to_owned(),
            program: "python3".to_owned(),
            ending: "exit code 1".to_owned(),
            stderr_tail: vec![line.to_owned()],
        };
        let (what, program) = ("installing uv".to_owned(), "python3".to_owned());
        let loud = EnvironmentError::HelperTooLoud { what, program, bytes_max: 1 };
        for (last, no_interpreter, step) in [
            (Some(&failed("No module named ensurepip")), false, "apt-get install python3-venv"),
            (Some(&failed("no route to host")), false, "check the network"),
            (Some(&loud), false, "see what that program prints"),
            (None, false, "check the network"),
            (None, true, "apt-get install python3 python3-venv"),
        ] {
            let told = no_uv(last, no_interpreter);
            assert!(told.next_step().contains(step), "{told}: {}", told.next_step());
            assert_eq!(told.stderr_tail(), last.map(EnvironmentError::stderr_tail).unwrap_or_default());
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_told_as_one_and_not_as_a_network() {
        let folder = tempfile::tempdir().expect("tempdir");
        let python = folder.path().join("python3");
        for (words, code, exit_code) in [
            ("OSError: [Errno 28] No space left on device", "install.no_room", exit::STORE),
            ("no route to host", "install.no_uv", exit::DOMAIN),
        ] {
            let script = format!("#!/bin/sh\necho '{words}' >&2\nexit 1\n");
            crate::files::write_whole(&python, script.as_bytes()).expect("write");
            std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).expect("chmod");
            let interpreter =
                Interpreter { path: python.clone(), version: PythonVersion(3, 11, 0), is_default: true };
            let refused = Uv::bootstrap(folder.path(), &[interpreter], &|_| {}).await.expect_err("it fails");
            assert_eq!((refused.code(), refused.exit_code()), (code, exit_code), "{refused}");
            assert_eq!(refused.next_step().contains("free space"), exit_code == exit::STORE);
        }
    }
}
