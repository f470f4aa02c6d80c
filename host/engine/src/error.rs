//! What can go wrong in the host, for people: each with a stable code, the cause, and the next step.

use crate::adapters::AdapterFault;
use crate::kept::KeptFault;
use cjm_catalog::{ProgramError, suggestions};
use cjm_decide::death::Verdict;
use cjm_platform::lock::LockError;
use cjm_platform::runtime_dir::RuntimeDirError;
use cjm_store::StoreError;
use cjm_wire::composition::CompositionError;
use cjm_wire::describe::{Described, ErrorReport, exit};
use cjm_wire::error::{ErrorCategory, Failure, JobError};
use cjm_wire::http::Account;
use cjm_wire::{InstanceId, JobId};
use std::path::PathBuf;

/// Why the host, or one of its operations, could not go on.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Another host executes on this directory.
    #[error("{} is in use by another host ({holder})", path.display())]
    DirectoryInUse {
        /// The directory.
        path: PathBuf,
        /// What that host wrote about itself.
        holder: String,
    },
    /// The processes of a dead host are still there.
    #[error("the processes of an earlier host on {} have not ended within {waited_seconds} s ({holder})", path.display())]
    TreeStillEnding {
        /// The directory.
        path: PathBuf,
        /// Its keeper.
        holder: String,
        /// How long was waited.
        waited_seconds: u64,
    },
    /// A directory or file of the host cannot be used.
    #[error("cannot {action} {}", path.display())]
    Directory {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The directory for sockets cannot be used.
    #[error(transparent)]
    RuntimeDir(#[from] RuntimeDirError),
    /// A store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No manifest has this name.
    #[error("there is no capability named \"{name}\"{}", suggestions::in_words(suggestions))]
    UnknownCapability {
        /// The name asked for.
        name: String,
        /// Names like it.
        suggestions: Vec<String>,
    },
    /// There is a manifest of this name, and it is broken.
    #[error("the manifest {} of \"{name}\" cannot be used: {message}", path.display())]
    BrokenManifest {
        /// The name asked for.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// No instance has this id.
    #[error("no instance \"{0}\" is loaded")]
    UnknownInstance(InstanceId),
    /// The id is taken.
    #[error("an instance \"{0}\" is loaded already")]
    InstanceExists(InstanceId),
    /// The id breaks the rule.
    #[error("\"{0}\" is no instance id")]
    BadInstanceId(String),
    /// A worker could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A direct call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The queue refused the job.
    #[error("the queue refuses the job: {0}")]
    Refused(String),
    /// No adapter of the task is bound.
    #[error(transparent)]
    NoAdapter(AdapterFault),
    /// No such job in this host.
    #[error("there is no job {0}")]
    UnknownJob(JobId),
    /// The composition cannot run.
    #[error(transparent)]
    Composition(#[from] CompositionError),
    /// The composition's graph is not one, or its inputs do not fit.
    #[error("{message}")]
    Graph {
        /// What is wrong.
        message: String,
        /// `decide`'s code for it.
        code: &'static str,
        /// What to do.
        next_step: String,
    },
    /// No composition of this host has this id.
    #[error("there is no composition {0}")]
    UnknownComposition(cjm_wire::CompositionId),
    /// The host is ending.
    #[error("the host is shutting down")]
    ShuttingDown,
}

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
    },
    /// What is kept for it does not allow it.
    #[error(transparent)]
    Kept(std::sync::Arc<KeptFault>),
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
    /// The tool could not be loaded: its import or constructor failed.
    #[error("\"{capability}\" could not be loaded: {message}{}", missing_text(not_passed))]
    LoadFailed {
        /// The capability.
        capability: String,
        /// One line from the tool.
        message: String,
        /// Names of variables that the host has and the worker did not get.
        not_passed: Vec<String>,
        /// The tool's last words.
        stderr_tail: Vec<String>,
    },
    /// It ended before it was ready.
    #[error("\"{capability}\" ended while it started: {verdict}{}", missing_text(not_passed))]
    Died {
        /// The capability.
        capability: String,
        /// Why, as far as can be told.
        verdict: String,
        /// See `LoadFailed`.
        not_passed: Vec<String>,
        /// The tool's last words.
        stderr_tail: Vec<String>,
    },
    /// It did not answer in time, and was killed.
    #[error("\"{capability}\" was not ready after {seconds} s and was stopped")]
    NeverReady {
        /// The capability.
        capability: String,
        /// How long it was given.
        seconds: f64,
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
    },
    /// The tool says why.
    #[error("\"{capability}\" failed: {}", error.message)]
    Tool {
        /// The capability.
        capability: String,
        /// Its own words, in the taxonomy.
        error: Box<JobError>,
        /// What the call accounted for before it failed.
        accounts: Vec<Account>,
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
    /// The worker answered with something that is not the contract's.
    #[error("\"{capability}\" answered with status {status}, which is not an answer to this call: {excerpt}")]
    BadAnswer {
        /// The capability.
        capability: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the body.
        excerpt: String,
        /// Its last lines on standard error.
        stderr_tail: Vec<String>,
    },
    /// The worker lives, and the connection to it broke.
    #[error("the connection to \"{capability}\" broke: {message}")]
    Connection {
        /// The capability.
        capability: String,
        /// What the client says.
        message: String,
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

impl Described for HostError {
    fn code(&self) -> &'static str {
        match self {
            Self::DirectoryInUse { .. } => "host.directory_in_use",
            Self::TreeStillEnding { .. } => "host.tree_still_ending",
            Self::Directory { .. } => "host.directory",
            Self::RuntimeDir(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::UnknownCapability { .. } => "host.unknown_capability",
            Self::BrokenManifest { .. } => "host.broken_manifest",
            Self::UnknownInstance(_) => "host.unknown_instance",
            Self::InstanceExists(_) => "host.instance_exists",
            Self::BadInstanceId(_) => "host.bad_instance_id",
            Self::Start(error) => error.code(),
            Self::Call(error) => error.code(),
            Self::Refused(_) => "queue.refused",
            Self::NoAdapter(fault) => fault.code(),
            Self::UnknownJob(_) => "host.unknown_job",
            Self::Composition(error) => error.code(),
            Self::Graph { code, .. } => code,
            Self::UnknownComposition(_) => "host.unknown_composition",
            Self::ShuttingDown => "host.shutting_down",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::DirectoryInUse { .. } => {
                "wait for it to end or stop it, or use another directory with --data-dir; `cjm-ctl logs --follow` \
                 watches what it does meanwhile"
                    .to_owned()
            }
            Self::TreeStillEnding { .. } => {
                "look at that process (it may be stuck in the kernel), then try again".to_owned()
            }
            Self::Directory { .. } => "check the path, its permissions and the space on its disk".to_owned(),
            Self::RuntimeDir(error) => error.next_step().to_owned(),
            Self::Store(error) => error.next_step(),
            Self::UnknownCapability { .. } => {
                "`cjm-ctl list` shows what is installed; `cjm-ctl install-all` installs what capabilities.yaml names"
                    .to_owned()
            }
            Self::BrokenManifest { path, .. } => {
                format!("correct the file; `cjm-ctl validate {}` shows its faults", path.display())
            }
            Self::UnknownInstance(_) => "load it first".to_owned(),
            Self::InstanceExists(_) => "unload it, or choose another instance id".to_owned(),
            Self::BadInstanceId(_) => "use 1 to 64 letters, digits, `-` or `_`".to_owned(),
            Self::Start(error) => error.next_step(),
            Self::Call(error) => error.next_step(),
            Self::Refused(_) => "try again when fewer jobs wait, or cancel some".to_owned(),
            Self::NoAdapter(fault) => fault.next_step(),
            Self::UnknownJob(_) => "`cjm-ctl logs --journal` shows the jobs there were".to_owned(),
            Self::Composition(error) => error.next_step(),
            Self::Graph { next_step, .. } => next_step.clone(),
            Self::UnknownComposition(_) => "`cjm-ctl logs --journal` shows the compositions there were".to_owned(),
            Self::ShuttingDown => "start a new host".to_owned(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::DirectoryInUse { .. } | Self::TreeStillEnding { .. } => exit::DIRECTORY_IN_USE,
            Self::Store(error) => error.exit_code(),
            Self::Start(error) => error.exit_code(),
            Self::Call(error) => error.exit_code(),
            _ => exit::DOMAIN,
        }
    }

    fn stderr_tail(&self) -> Vec<String> {
        match self {
            Self::Start(error) => error.stderr_tail(),
            Self::Call(error) => error.stderr_tail(),
            _ => Vec::new(),
        }
    }
}

impl Described for StartError {
    fn code(&self) -> &'static str {
        match self {
            Self::Program(error) => error.code(),
            Self::InterpreterMissing { .. } => "worker.interpreter_missing",
            Self::Kept(fault) => fault.code(),
            Self::Adapter(fault) => fault.code(),
            Self::Spawn { .. } => "worker.spawn",
            Self::LoadFailed { .. } => "worker.load_failed",
            Self::Died { .. } => "worker.died_at_start",
            Self::NeverReady { .. } => "worker.never_ready",
            Self::BadConfiguration { .. } => "worker.bad_configuration",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Program(error) => error.next_step(),
            Self::InterpreterMissing { capability, .. } => {
                format!("run `cjm-ctl install-all`, which makes the environment of \"{capability}\" anew")
            }
            Self::Kept(fault) => fault.next_step(),
            Self::Adapter(fault) => fault.next_step(),
            Self::Spawn { next_step, .. } => next_step.clone(),
            Self::LoadFailed { not_passed, .. } | Self::Died { not_passed, .. } if !not_passed.is_empty() => {
                "read the tool's last lines; if it needs one of these variables, set it in the manifest \
                 (`install.env_vars`) or pass it on"
                    .to_owned()
            }
            Self::LoadFailed { .. } | Self::Died { .. } => {
                "read the tool's last lines; if a module is missing, run `cjm-ctl install-all` again".to_owned()
            }
            Self::NeverReady { .. } => {
                "see what it waits for (`cjm-ctl logs --chunks`); a slow tool should load in `prefetch` or its first \
                 call"
                    .to_owned()
            }
            Self::BadConfiguration { .. } => {
                "correct the configuration; `cjm-ctl list --json` shows its schema".to_owned()
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Kept(fault) => fault.exit_code(),
            _ => exit::WORKER_START,
        }
    }

    fn stderr_tail(&self) -> Vec<String> {
        match self {
            Self::LoadFailed { stderr_tail, .. }
            | Self::Died { stderr_tail, .. }
            | Self::NeverReady { stderr_tail, .. }
            | Self::BadConfiguration { stderr_tail, .. } => stderr_tail.clone(),
            _ => Vec::new(),
        }
    }
}

impl Described for CallError {
    fn code(&self) -> &'static str {
        match self {
            Self::Cancelled { .. } => "call.cancelled",
            Self::Tool { .. } => "call.tool_failed",
            Self::Died { .. } => "call.worker_died",
            Self::BadAnswer { .. } => "call.bad_answer",
            Self::Connection { .. } => "call.connection",
            Self::NotStarted(error) => error.code(),
            Self::NotJournaled { .. } => "call.not_journaled",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Cancelled { .. } => "submit it again when it is wanted".to_owned(),
            Self::Tool { error, .. } => match error.category {
                ErrorCategory::UserInput => "correct the arguments and call again".to_owned(),
                ErrorCategory::Transient => match error.retry_after_seconds {
                    Some(seconds) => format!("try again after {seconds} s"),
                    None => "try again".to_owned(),
                },
                ErrorCategory::Resource => "free what it ran short of, then try again".to_owned(),
                ErrorCategory::Fatal => {
                    "read the tool's last lines and the traceback (`cjm-ctl logs --level ERROR`); the fault is in the \
                     tool"
                        .to_owned()
                }
            },
            Self::Died { verdict, .. } => verdict.next_step(),
            Self::BadAnswer { .. } => "read the tool's last lines; the fault is in the worker".to_owned(),
            Self::Connection { .. } => "try again; `cjm-ctl logs --chunks` shows what the worker printed".to_owned(),
            Self::NotStarted(error) => error.next_step(),
            Self::NotJournaled { .. } => "free disk space or repair the journal, then try again".to_owned(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Cancelled { .. } => exit::CANCELLED,
            Self::Tool { .. } | Self::BadAnswer { .. } => exit::TOOL_FAILED,
            Self::Died { .. } | Self::Connection { .. } => exit::WORKER_DIED,
            Self::NotStarted(error) => error.exit_code(),
            Self::NotJournaled { .. } => exit::STORE,
        }
    }

    fn stderr_tail(&self) -> Vec<String> {
        match self {
            Self::Tool { stderr_tail, .. }
            | Self::Died { stderr_tail, .. }
            | Self::BadAnswer { stderr_tail, .. } => stderr_tail.clone(),
            Self::NotStarted(error) => error.stderr_tail(),
            _ => Vec::new(),
        }
    }
}

impl CallError {
    /// The failure as rows and callers keep it.
    #[must_use]
    pub fn to_failure(&self, instance: &InstanceId) -> Failure {
        let (category, retriable) = match self {
            Self::Cancelled { .. } => (ErrorCategory::Transient, false),
            Self::Tool { error, .. } => (error.category, error.retriable),
            Self::Died { verdict, .. } => (verdict.category, verdict.retriable),
            Self::BadAnswer { .. } => (ErrorCategory::Fatal, false),
            Self::Connection { .. } => (ErrorCategory::Transient, true),
            Self::NotStarted(error) => match **error {
                StartError::BadConfiguration { .. } => (ErrorCategory::UserInput, true),
                StartError::NeverReady { .. } | StartError::Spawn { .. } => (ErrorCategory::Transient, true),
                _ => (ErrorCategory::Fatal, false),
            },
            Self::NotJournaled { .. } => (ErrorCategory::Resource, true),
        };
        let mut error = match self {
            Self::Tool { error, .. } => (**error).clone(),
            other => JobError { retriable, ..JobError::new(category, other.to_string()) },
        };
        error.capability_instance_id = Some(instance.to_string());
        if error.capability_name.is_none() {
            error.capability_name = self.capability().map(str::to_owned);
        }
        Failure { error, report: ErrorReport::of(self) }
    }

    /// What the call accounted for before it failed.
    pub(crate) fn accounts(&self) -> &[Account] {
        match self {
            Self::Tool { accounts, .. } => accounts,
            _ => &[],
        }
    }

    fn capability(&self) -> Option<&str> {
        match self {
            Self::Cancelled { capability }
            | Self::Tool { capability, .. }
            | Self::Died { capability, .. }
            | Self::BadAnswer { capability, .. }
            | Self::Connection { capability, .. }
            | Self::NotJournaled { capability, .. } => Some(capability),
            Self::NotStarted(_) => None,
        }
    }
}

impl HostError {
    /// From a failed attempt to take one of the two locks.
    pub(crate) fn from_lock(error: LockError, directory: PathBuf) -> Self {
        match error {
            LockError::Held { holder, .. } => Self::DirectoryInUse {
                path: directory,
                holder: holder.unwrap_or_else(|| "unnamed".to_owned()),
            },
            LockError::Io { path, source } => Self::Directory { action: "lock", path, source },
        }
    }
}

fn missing_text(not_passed: &[String]) -> String {
    if not_passed.is_empty() {
        String::new()
    } else {
        format!(" (variables of the host that it did not get: {})", not_passed.join(", "))
    }
}
