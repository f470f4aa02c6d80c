//! One run of a test, in whatever language: how long it may take, and what became of it. It starts nothing itself.

use std::ffi::OsStr;
use std::process::{Command, ExitStatus};

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

/// A command that runs a program for as long as one test may run.
pub(super) fn limited(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.arg(format!("--kill-after={KILL_AFTER_SECONDS}")).arg(TEST_SECONDS_MAX.to_string());
    command.arg(program);
    command
}
