//! What every error of the product must be able to say of itself, and the exit codes of `cjm-ctl`.
//! Public text lives here; details for a log stay in each error's `Debug`.

use serde::{Deserialize, Serialize};

/// Exit codes of `cjm-ctl`. 0, 1 and 2 are the ancestor's; further ones start at 10. Ended by a signal: 128+n.
pub mod exit {
    /// All went well.
    pub const OK: u8 = 0;
    /// The request could not be met: bad input files, unknown names, failed entries.
    pub const DOMAIN: u8 = 1;
    /// The command line itself is wrong.
    pub const USAGE: u8 = 2;
    /// A worker could not be started or did not become ready.
    pub const WORKER_START: u8 = 10;
    /// A worker died while it worked.
    pub const WORKER_DIED: u8 = 11;
    /// The tool ran and reported a failure.
    pub const TOOL_FAILED: u8 = 12;
    /// A deadline passed.
    pub const TIMED_OUT: u8 = 13;
    /// The work was cancelled.
    pub const CANCELLED: u8 = 14;
    /// Another host owns the data directory.
    pub const DIRECTORY_IN_USE: u8 = 15;
    /// A composition ran and did not complete.
    pub const COMPOSITION_FAILED: u8 = 16;
    /// A store refused to read or write.
    pub const STORE: u8 = 17;
}

/// An error that can be shown to a person: a stable code, what happened (`Display`), the causes (`source`),
/// and what to do next.
pub trait Described: std::error::Error {
    /// Stable, dotted, lower case: `manifest.malformed`. Scripts may match on it.
    fn code(&self) -> &'static str;
    /// What the reader should do now; never empty.
    fn next_step(&self) -> String;
    /// Exit code of `cjm-ctl` for this error.
    fn exit_code(&self) -> u8 {
        exit::DOMAIN
    }
    /// Last lines of the tool's standard error, newest last; empty when no tool is involved.
    fn stderr_tail(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What an error says of itself besides its words, in one place: an enum answers it with one match, and
/// [`Described`] from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// See [`Described::code`].
    pub code: &'static str,
    /// See [`Described::exit_code`].
    pub exit_code: u8,
    /// See [`Described::next_step`].
    pub next_step: String,
}

impl Facts {
    /// Of a case with these.
    #[must_use]
    pub fn new(code: &'static str, exit_code: u8, next_step: impl Into<String>) -> Self {
        Self { code, exit_code, next_step: next_step.into() }
    }

    /// Of an error that another one only passes on.
    #[must_use]
    pub fn of(error: &dyn Described) -> Self {
        Self { code: error.code(), exit_code: error.exit_code(), next_step: error.next_step() }
    }

    /// With another exit code.
    #[must_use]
    pub fn with_exit(self, exit_code: u8) -> Self {
        Self { exit_code, ..self }
    }
}

/// An error as it leaves the process: what `--json` prints under `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// See [`Described::code`].
    pub code: String,
    /// What happened.
    pub message: String,
    /// Causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do next.
    pub next_step: String,
    /// See [`Described::stderr_tail`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stderr_tail: Vec<String>,
    /// See [`Described::exit_code`].
    pub exit_code: u8,
}

/// Longest chain of causes that is followed.
const CAUSES_MAX: usize = 8;

impl ErrorReport {
    /// Collects what `error` says of itself.
    #[must_use]
    pub fn of(error: &dyn Described) -> Self {
        let message = error.to_string();
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source.filter(|_| causes.len() < CAUSES_MAX) {
            let text = cause.to_string();
            // A message that already quotes its cause would say it twice.
            if !message.contains(&text) && !causes.iter().any(|known: &String| known.contains(&text)) {
                causes.push(text);
            }
            source = cause.source();
        }
        Self {
            code: error.code().to_owned(),
            message,
            causes,
            next_step: error.next_step(),
            stderr_tail: error.stderr_tail(),
            exit_code: error.exit_code(),
        }
    }
}
