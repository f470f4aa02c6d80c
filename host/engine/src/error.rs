//! What can go wrong in the host, for people: each with a stable code, the cause, and the next step.

use cjm_catalog::suggestions;
use cjm_decide::queue::QueueError;
use cjm_platform::lock::LockError;
use cjm_platform::runtime_dir::RuntimeDirError;
use cjm_store::StoreError;
use cjm_wire::composition::CompositionError;
use cjm_wire::describe::{Described, exit};
use cjm_wire::{InstanceId, JobId};
use cjm_workers::{AdapterFault, CallError, StartError};
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
    Refused(#[from] QueueError),
    /// The operating system gives no threads.
    #[error("the host's threads cannot be started")]
    Threads {
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The process that starts workers cannot be started.
    #[error("the keeper cannot be started: {message}")]
    Keeper {
        /// What was refused.
        message: String,
        /// What to do.
        next_step: String,
    },
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
            Self::Refused(error) => error.code(),
            Self::Threads { .. } => "host.threads",
            Self::Keeper { .. } => "host.keeper",
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
            Self::Refused(error) => error.next_step(),
            Self::Threads { .. } => {
                "raise the limit of processes (`ulimit -u`), or end some of this user's".to_owned()
            }
            Self::Keeper { next_step, .. } => next_step.clone(),
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
            Self::Keeper { .. } => exit::WORKER_START,
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
