//! What can go wrong with a worker, for people: why it did not become ready, and why a call of it gave no result.

use crate::binding::AdapterFault;
use crate::no_folder::{NoFolder, is_sdk_without_room, sdk_without_room};
use crate::required::{Missing, cure_of_configuration, cure_of_failure, names_in};
use crate::start_advice::Hints;
use crate::stored_settings::StoredSettingsFault;
use crate::{start_advice, tool_failure};
use cjm_catalog::ProgramError;
use cjm_catalog::installation::Unfinished;
use cjm_decide::death::Verdict;
use cjm_wire::InstanceId;
use cjm_wire::describe::{Described, ErrorDetails, ErrorReport, Facts, Seconds, exit};
use cjm_wire::error::{ErrorCategory, Failure, JobError};
use cjm_wire::http::{Account, BODY_BYTES_MAX};
use std::path::PathBuf;

/// Status of an answer to a method that the tool does not have.
pub(crate) const NOT_FOUND: u16 = 404;

/// Why a worker did not become ready. All of them leave no process behind.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StartError {
    /// The worker binary, or the tool's program, was not found.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The interpreter is not there.
    #[error("the interpreter {} of \"{capability}\" {problem}", path.display())]
    InterpreterMissing {
        /// The capability.
        capability: String,
        /// From its manifest.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        next_step: String,
    },
    /// Its installation is at work, or was broken off.
    #[error(transparent)]
    Unfinished(#[from] Unfinished),
    /// What is stored for it does not allow it.
    #[error(transparent)]
    StoredSettings(std::sync::Arc<StoredSettingsFault>),
    /// An adapter was asked for that cannot be bound.
    #[error(transparent)]
    Adapter(AdapterFault),
    /// The operating system or the keeper refused to start it.
    #[error("\"{capability}\" could not be started: {message}")]
    Spawn {
        /// The capability.
        capability: String,
        /// What was refused.
        message: String,
        /// What to do.
        next_step: String,
    },
    /// The folder for its data cannot be made.
    #[error(transparent)]
    Folder(#[from] NoFolder),
    /// The tool could not be loaded: its import or constructor failed.
    #[error("\"{capability}\" could not be loaded: {message}{}", missing_text(&hints.not_passed))]
    LoadFailed {
        /// The capability.
        capability: String,
        /// One line from the tool.
        message: Box<str>,
        /// What bears on what to do.
        hints: Box<Hints>,
        /// Variables that its manifest declares and that have no value, and that the failure speaks of.
        unset: Box<[Missing]>,
        /// The signal that ended its process.
        signal: Option<i32>,
        /// Where it failed, if the tool said so.
        traceback: Option<Box<str>>,
        /// The tool's last words.
        stderr_tail: Vec<String>,
    },
    /// It ended before it was ready.
    #[error("\"{capability}\" ended while it started: {verdict}{}", missing_text(&hints.not_passed))]
    Died {
        /// The capability.
        capability: String,
        /// Why, as far as can be told.
        verdict: Box<str>,
        /// What to do where something from outside ended it: its variables and last lines have no part in that.
        next_step: Option<Box<str>>,
        /// See `LoadFailed`.
        hints: Box<Hints>,
        /// See `LoadFailed`.
        unset: Box<[Missing]>,
        /// The tool's last words.
        stderr_tail: Vec<String>,
    },
    /// It did not answer in time, and was killed.
    #[error("\"{capability}\" was not ready after {} and was stopped", Seconds::of(*seconds))]
    NeverReady {
        /// The capability.
        capability: String,
        /// How long it was given.
        seconds: f64,
        /// The tool's last words.
        stderr_tail: Vec<String>,
    },
    /// It failed in `initialize`, and not because of its configuration.
    #[error("\"{capability}\" failed in initialize: {}", tool_failure::words(error))]
    InitializeFailed {
        /// The capability.
        capability: String,
        /// Its own words, in the taxonomy.
        error: Box<JobError>,
        /// See `LoadFailed`.
        unset: Box<[Missing]>,
        /// The tool's last words.
        stderr_tail: Vec<String>,
    },
    /// It refused its configuration.
    #[error("\"{capability}\" refused its configuration: {message}")]
    BadConfiguration {
        /// The capability.
        capability: String,
        /// What it said.
        message: String,
        /// `list` shows what it takes.
        has_schema: bool,
        /// What it must hold and does not.
        keys_missing: Box<[String]>,
        /// Its keys that were refused, where they are known.
        fields: Box<[String]>,
        /// The tool's last words.
        stderr_tail: Vec<String>,
    },
}

/// Why a call gave no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// Somebody asked for it.
    #[error("the call of \"{capability}\" was cancelled")]
    Cancelled {
        /// The capability.
        capability: String,
        /// What its tool said on standard error while the call ran: its time may have been over.
        stderr_tail: Vec<String>,
    },
    /// The tool says why.
    #[error("\"{capability}\" failed: {}", tool_failure::words(error))]
    Tool {
        /// The capability.
        capability: String,
        /// Its own words, in the taxonomy.
        error: Box<JobError>,
        /// What the call accounted for before it failed.
        accounts: Vec<Account>,
        /// Variables that its manifest declares and that have no value, and that the failure speaks of.
        unset: Box<[Missing]>,
        /// Its last lines on standard error.
        stderr_tail: Vec<String>,
    },
    /// The worker died meanwhile.
    #[error("the worker of \"{capability}\" died during the call: {verdict}")]
    Died {
        /// The capability.
        capability: String,
        /// Why, with evidence.
        verdict: Box<Verdict>,
        /// Its last lines on standard error.
        stderr_tail: Vec<String>,
    },
    /// The worker died before its tool had taken the call: nothing of it was done.
    #[error("the worker of \"{capability}\" died before its tool took the call: {verdict}")]
    NotTaken {
        /// The capability.
        capability: String,
        /// It had taken other calls.
        others: bool,
        /// Why, with evidence.
        verdict: Box<Verdict>,
        /// Its last lines on standard error.
        stderr_tail: Vec<String>,
    },
    /// The worker answered with something that is not the contract's.
    #[error("{}", bad_answer_text(capability, *status, excerpt))]
    BadAnswer {
        /// The capability.
        capability: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the body.
        excerpt: String,
        /// The methods of the task, where it has not the one that was called.
        methods: Vec<String>,
        /// Its last lines on standard error.
        stderr_tail: Vec<String>,
    },
    /// The arguments are more than travels to a worker.
    #[error(
        "the arguments for \"{capability}\" are more than the {BODY_BYTES_MAX} bytes that a call may have"
    )]
    TooLarge {
        /// The capability.
        capability: String,
    },
    /// The worker lives, and the connection to it broke.
    #[error("the connection to \"{capability}\" broke: {message}")]
    Connection {
        /// The capability.
        capability: String,
        /// What the client says.
        message: String,
    },
    /// Its deadline passed before it ended; it was stopped.
    #[error("the call of \"{capability}\" did not end within {}, and was stopped", Seconds::of(*seconds))]
    DeadlinePassed {
        /// The capability.
        capability: String,
        /// How long it was given.
        seconds: f64,
        /// What its tool said on standard error while the call ran.
        stderr_tail: Vec<String>,
    },
    /// No instance has this id.
    #[error("no instance \"{instance}\" is loaded")]
    NotLoaded {
        /// The id.
        instance: InstanceId,
    },
    /// The host ends.
    #[error("the call of \"{capability}\" ended with the host")]
    HostEnded {
        /// The capability.
        capability: String,
    },
    /// No worker could be had for the call.
    #[error(transparent)]
    NotStarted(Box<StartError>),
    /// The journal refused, so the request was not sent.
    #[error("the call of \"{capability}\" was not sent, because the journal refused its row: {message}")]
    NotJournaled {
        /// The capability.
        capability: String,
        /// What the store said.
        message: String,
    },
}

impl StartError {
    fn facts(&self) -> Facts {
        let start = |code, next_step: &str| Facts::new(code, exit::WORKER_START, next_step);
        match self {
            Self::Program(error) => Facts::of(error),
            Self::InterpreterMissing { next_step, .. } => start("worker.interpreter_missing", next_step),
            Self::Unfinished(unfinished) => Facts::of(unfinished),
            Self::StoredSettings(fault) => Facts::of(&**fault),
            Self::Adapter(fault) => Facts::of(fault).with_exit(exit::WORKER_START),
            Self::Spawn { next_step, .. } => start("worker.spawn", next_step),
            Self::Folder(refused) => Facts::of(refused),
            Self::LoadFailed { signal: Some(signal), .. } => {
                start("worker.load_failed", start_advice::after_signal(*signal))
            }
            Self::LoadFailed { message, .. } if is_sdk_without_room(message) => sdk_without_room(),
            Self::LoadFailed { capability, unset, hints, .. } => {
                let set = cure_of_failure(capability, unset);
                let next_step = set.unwrap_or_else(|| start_advice::last_lines(hints));
                start("worker.load_failed", &next_step)
            }
            Self::Died { capability, unset, hints, next_step, .. } => {
                let outside = next_step.as_deref().map(str::to_owned);
                let set = outside.or_else(|| cure_of_failure(capability, unset));
                let next_step = set.unwrap_or_else(|| start_advice::last_lines(hints));
                start("worker.died_at_start", &next_step)
            }
            Self::NeverReady { .. } => start(
                "worker.never_ready",
                "see what it waits for (`cjm-ctl logs --chunks`); a tool that loads slowly should do so in its first call",
            ),
            Self::InitializeFailed { capability, error, unset, stderr_tail } => {
                let set = cure_of_failure(capability, unset);
                let next_step =
                    set.unwrap_or_else(|| tool_failure::facts(capability, error, stderr_tail).next_step);
                Facts::new("worker.initialize_failed", exit::TOOL_FAILED, next_step)
            }
            Self::BadConfiguration { has_schema, keys_missing, .. } => {
                let next_step = cure_of_configuration(*has_schema, keys_missing);
                Facts::new("worker.bad_configuration", exit::DOMAIN, next_step)
            }
        }
    }
}

impl Described for StartError {
    fn code(&self) -> &'static str {
        self.facts().code
    }

    fn next_step(&self) -> String {
        self.facts().next_step
    }

    fn exit_code(&self) -> u8 {
        self.facts().exit_code
    }

    fn stderr_tail(&self) -> Vec<String> {
        match self {
            Self::LoadFailed { stderr_tail, .. }
            | Self::Died { stderr_tail, .. }
            | Self::NeverReady { stderr_tail, .. }
            | Self::InitializeFailed { stderr_tail, .. }
            | Self::BadConfiguration { stderr_tail, .. } => stderr_tail.clone(),
            _ => Vec::new(),
        }
    }

    fn details(&self) -> ErrorDetails {
        ErrorDetails::of(&self.job_error())
    }
}

impl StartError {
    /// It in the taxonomy.
    fn job_error(&self) -> JobError {
        let (category, retriable) = match self {
            Self::InitializeFailed { error, .. } => return (**error).clone(),
            Self::BadConfiguration { .. } => (ErrorCategory::UserInput, true),
            Self::Unfinished(unfinished) => unfinished.kind(),
            Self::NeverReady { .. } | Self::Spawn { .. } => (ErrorCategory::Transient, true),
            Self::Folder(refused) => refused.kind(),
            Self::LoadFailed { message, .. } if is_sdk_without_room(message) => {
                (ErrorCategory::Resource, true)
            }
            _ => (ErrorCategory::Fatal, false),
        };
        let mut error = JobError { retriable, ..JobError::new(category, self.to_string()) };
        if let Self::BadConfiguration { fields, .. } = self {
            error.fields_invalid = Some(fields.to_vec()).filter(|fields| !fields.is_empty());
        }
        if let Self::LoadFailed { message, traceback, .. } = self {
            error.traceback = traceback.as_deref().map(str::to_owned);
            // Only an interpreter tells classes; they stand at the beginning of its words.
            let class = message.split_once(':').map_or(&**message, |(class, _)| class);
            if traceback.is_some() && class.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.')) {
                error.original_exc_repr = format!("{class}({message:?})");
            }
        }
        error
    }
}

impl Described for CallError {
    fn code(&self) -> &'static str {
        self.facts().code
    }

    fn next_step(&self) -> String {
        self.facts().next_step
    }

    fn exit_code(&self) -> u8 {
        self.facts().exit_code
    }

    fn stderr_tail(&self) -> Vec<String> {
        match self {
            Self::Cancelled { stderr_tail, .. }
            | Self::Tool { stderr_tail, .. }
            | Self::Died { stderr_tail, .. }
            | Self::NotTaken { stderr_tail, .. }
            | Self::BadAnswer { stderr_tail, .. }
            | Self::DeadlinePassed { stderr_tail, .. } => stderr_tail.clone(),
            Self::NotStarted(error) => error.stderr_tail(),
            _ => Vec::new(),
        }
    }

    fn details(&self) -> ErrorDetails {
        ErrorDetails::of(&self.job_error())
    }
}

impl CallError {
    fn facts(&self) -> Facts {
        match self {
            Self::Cancelled { .. } => {
                Facts::new("call.cancelled", exit::CANCELLED, "submit it again when it is wanted")
            }
            Self::Tool { capability, error, unset, stderr_tail, .. } => {
                let facts = tool_failure::facts(capability, error, stderr_tail);
                match cure_of_failure(capability, unset) {
                    Some(set) => Facts { next_step: set, ..facts },
                    None => facts,
                }
            }
            Self::Died { verdict, .. } | Self::NotTaken { verdict, .. } => {
                Facts::new("call.worker_died", exit::WORKER_DIED, verdict.next_step())
            }
            Self::BadAnswer { status: NOT_FOUND, excerpt, methods, .. } => {
                let step = tool_failure::what_to_name(excerpt, methods);
                Facts::new("call.unknown_method", exit::DOMAIN, step)
            }
            Self::BadAnswer { stderr_tail, .. } => Facts::new(
                "call.bad_answer",
                exit::TOOL_FAILED,
                if stderr_tail.is_empty() {
                    "the fault is in the worker"
                } else {
                    "read the tool's last lines; the fault is in the worker"
                },
            ),
            Self::TooLarge { .. } => Facts::new(
                "call.arguments_too_large",
                exit::DOMAIN,
                "write what is large to a file, and give the tool its path",
            ),
            Self::Connection { .. } => Facts::new(
                "call.connection",
                exit::WORKER_DIED,
                "try again; `cjm-ctl logs --chunks` shows what the worker printed",
            ),
            Self::DeadlinePassed { .. } => {
                Facts::new("call.deadline", exit::TIMED_OUT, "give it more time (`--timeout`), or less to do")
            }
            Self::NotLoaded { .. } => Facts::new(
                "call.not_loaded",
                exit::DOMAIN,
                "load it first; `cjm-ctl list` shows what is installed",
            ),
            Self::HostEnded { .. } => {
                Facts::new("call.host_ended", exit::CANCELLED, "call it again with the next host")
            }
            Self::NotStarted(error) => error.facts(),
            Self::NotJournaled { .. } => Facts::new(
                "call.not_journaled",
                exit::STORE,
                "free disk space or repair the journal, then try again",
            ),
        }
    }

    /// The failure as rows and callers keep it.
    #[must_use]
    pub fn to_failure(&self, instance: &InstanceId) -> Failure {
        let mut error = self.job_error();
        error.capability_instance_id = Some(instance.to_string());
        if error.capability_name.is_none() {
            error.capability_name = self.capability().map(str::to_owned);
        }
        Failure { report: ErrorReport::of(self), error }
    }

    /// It in the taxonomy: whose it is, and whether trying again helps.
    fn job_error(&self) -> JobError {
        let (category, retriable) = match self {
            Self::Cancelled { .. } => (ErrorCategory::Transient, false),
            Self::Tool { error, .. } => (error.category, error.retriable),
            Self::Died { verdict, .. } | Self::NotTaken { verdict, .. } => {
                (verdict.category, verdict.retriable)
            }
            Self::BadAnswer { status: NOT_FOUND, .. } => (ErrorCategory::UserInput, false),
            Self::BadAnswer { .. } => (ErrorCategory::Fatal, false),
            Self::Connection { .. } => (ErrorCategory::Transient, true),
            Self::NotStarted(error) => return error.job_error(),
            Self::DeadlinePassed { .. } | Self::HostEnded { .. } => (ErrorCategory::Transient, true),
            Self::TooLarge { .. } | Self::NotLoaded { .. } => (ErrorCategory::UserInput, false),
            Self::NotJournaled { .. } => (ErrorCategory::Resource, true),
        };
        match self {
            Self::Tool { error, .. } => (**error).clone(),
            other => JobError { retriable, ..JobError::new(category, other.to_string()) },
        }
    }

    /// What the call accounted for before it failed.
    #[must_use]
    pub fn accounts(&self) -> &[Account] {
        match self {
            Self::Tool { accounts, .. } => accounts,
            _ => &[],
        }
    }

    fn capability(&self) -> Option<&str> {
        match self {
            Self::Cancelled { capability, .. }
            | Self::Tool { capability, .. }
            | Self::Died { capability, .. }
            | Self::NotTaken { capability, .. }
            | Self::BadAnswer { capability, .. }
            | Self::TooLarge { capability }
            | Self::Connection { capability, .. }
            | Self::DeadlinePassed { capability, .. }
            | Self::HostEnded { capability }
            | Self::NotJournaled { capability, .. } => Some(capability),
            Self::NotStarted(_) | Self::NotLoaded { .. } => None,
        }
    }
}

/// Of the variables that a worker did not get, those that its failure speaks of.
pub(crate) fn spoken_of<'a>(not_passed: &[String], words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let said = names_in(words);
    not_passed.iter().filter(|name| said.contains(name.as_str())).cloned().collect()
}

fn bad_answer_text(capability: &str, status: u16, excerpt: &str) -> String {
    if status == NOT_FOUND {
        return format!("\"{capability}\" has no such task or method: {excerpt}");
    }
    format!("\"{capability}\" answered with status {status}, which is not an answer to this call: {excerpt}")
}

fn missing_text(not_passed: &[String]) -> String {
    if not_passed.is_empty() {
        String::new()
    } else {
        format!(" (the host has {}, and does not pass it to tools)", not_passed.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_failed(message: &str, traceback: Option<&str>, not_passed: &[&str]) -> StartError {
        let host: Vec<String> = not_passed.iter().map(ToString::to_string).collect();
        StartError::LoadFailed {
            capability: "t".to_owned(),
            unset: Box::default(),
            hints: Box::new(Hints {
                not_passed: spoken_of(&host, [message, traceback.unwrap_or_default()]),
                ..Hints::default()
            }),
            message: message.into(),
            signal: None,
            traceback: traceback.map(Box::from),
            stderr_tail: Vec::new(),
        }
    }

    #[test]
    fn advice_about_a_death_by_signal_says_nothing_of_modules() {
        for (number, advice) in
            [(None, "if a module is missing"), (Some(9), "who killed it"), (Some(11), "ulimit -a")]
        {
            let mut error = load_failed("the tool's process was ended", None, &[]);
            if let StartError::LoadFailed { signal, .. } = &mut error {
                *signal = number;
            }
            let told = error.next_step();
            assert!(told.contains(advice), "{told}");
            assert_eq!(told.contains("install-all"), number.is_none(), "{told}");
        }
    }

    #[test]
    fn only_a_variable_that_the_failure_speaks_of_is_named_and_the_way_to_pass_it_on() {
        let host = ["AWS_CA_BUNDLE", "COLUMNS", "LAB_TOKEN", "MY_MODEL"];
        for (message, named, way) in [
            ("ModuleNotFoundError: No module named 'x'", None, "install-all"),
            ("SyntaxError: invalid syntax (COLUMNS_OF.py)", None, "read what it said last"),
            ("KeyError: 'MY_MODEL'", Some("the host has MY_MODEL,"), "{worker_env_pass: [MY_MODEL]}"),
            ("KeyError: 'LAB_TOKEN'", Some("the host has LAB_TOKEN,"), "set-secret"),
        ] {
            let error = load_failed(message, None, &host);
            let told = error.to_string();
            assert_eq!(told.contains("the host has"), named.is_some(), "{told}");
            assert!(named.is_none_or(|named| told.contains(named)), "{told}");
            assert!(error.next_step().contains(way), "{}", error.next_step());
        }
    }

    #[test]
    fn a_tool_that_does_not_load_tells_class_place_and_category_wherever_it_is_told() {
        let traceback =
            "Traceback (most recent call last):\n  File \"/t/deep.py\", line 7, in go\nKeyError: 'deep'\n";
        let error = load_failed("KeyError: 'deep'", Some(traceback), &[]);
        let of_call = CallError::NotStarted(Box::new(error.clone()));
        for report in [ErrorReport::of(&error), ErrorReport::of(&of_call)] {
            let details = &report.details;
            assert_eq!(
                (details.category, details.retriable, details.exception.as_deref()),
                (Some(ErrorCategory::Fatal), Some(false), Some("KeyError"))
            );
            assert!(
                report.traceback_end().iter().any(|line| line.contains("deep.py\", line 7")),
                "{report:?}"
            );
        }
        let of_program = load_failed("no config file", None, &[]);
        assert_eq!(of_program.details().exception, None);
    }
}
