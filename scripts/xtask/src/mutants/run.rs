//! One run of a test, in whatever language: how long it may take, and what became of it.
//!
//! What must hold: nothing that a planted fault left behind lives on, or keeps the next run waiting.

use anyhow::{Context as _, Result};
use cjm_platform::process::become_subreaper;
use cjm_platform::tree::kill_descendants;
use std::ffi::OsStr;
use std::fs;
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// Longest that one test may run. The simulator takes a few seconds; a machine that is shared takes some more.
const TEST_SECONDS_MAX: u32 = 240;
/// After this time more, a test that does not hear that it is to end is killed.
const KILL_AFTER_SECONDS: u32 = 5;
/// What `timeout` says of a command that it ended, and of one that it killed.
const TIMED_OUT_CODES: [i32; 2] = [124, 137];

/// What became of a test.
pub(crate) enum Run {
    /// It passed; so many tests did.
    Passed(usize),
    Failed,
    TimedOut,
    /// It could not be built: what the compiler says.
    NotBuilt(String),
}

impl Run {
    /// By how the command ended that `limited` made; `passed`: as many tests as it says.
    pub(super) fn of(status: ExitStatus, passed: usize) -> Self {
        match status.code() {
            Some(0) => Self::Passed(passed),
            Some(code) if TIMED_OUT_CODES.contains(&code) => Self::TimedOut,
            _ => Self::Failed,
        }
    }
}

/// Longest that it may take to end what a run left behind.
const CLEAR_MAX: Duration = Duration::from_secs(10);

/// How a run ended, and what it said.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Runs a command that `limited` made, and ends what it leaves behind.
pub(super) fn to_its_end(command: &mut Command) -> Result<Ended> {
    become_subreaper().context("what a run leaves behind would not fall to us")?;
    // Files: a pipe stays open for as long as anything lives that has it.
    let folder = tempfile::tempdir()?;
    let (out, err) = (folder.path().join("stdout"), folder.path().join("stderr"));
    let status = command.stdout(fs::File::create(&out)?).stderr(fs::File::create(&err)?).status();
    let status = status.context("timeout (of coreutils) did not start")?;
    kill_descendants(&[], CLEAR_MAX).context("what a run left behind lives on")?;
    let said = |path| fs::read(path).map(|said| String::from_utf8_lossy(&said).into_owned());
    Ok(Ended { status, stdout: said(out)?, stderr: said(err)? })
}

/// A command that runs a program for as long as one test may run.
pub(super) fn limited(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.arg(format!("--kill-after={KILL_AFTER_SECONDS}")).arg(TEST_SECONDS_MAX.to_string());
    command.arg(program);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_a_run_leaves_behind_is_ended_and_keeps_nobody_waiting() {
        let start = Instant::now();
        let mut leaves = limited("sh");
        let ended =
            to_its_end(leaves.args(["-c", "setsid sleep 600 & echo $!; echo said >&2"])).expect("it ran");
        assert!(ended.status.success() && ended.stderr.contains("said"), "{}", ended.stderr);
        assert!(start.elapsed() < Duration::from_secs(60), "it was waited for");
        let left = format!("/proc/{}", ended.stdout.trim());
        assert!(!std::path::Path::new(&left).exists(), "{left} lives on");
    }
}
