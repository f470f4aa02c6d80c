//! What can go wrong in the host, for people: each with a stable code, the cause, and the next step.

use cjm_catalog::{MayBeUnread, NotAllowed, suggestions};
use cjm_decide::queue::QueueError;
use cjm_platform::lock::{LockError, NO_HOST, host_process};
use cjm_platform::runtime_dir::RuntimeDirError;
use cjm_platform::tree::is_stopped;
use cjm_store::StoreError;
use cjm_store::room::is_about_room;
use cjm_wire::composition::CompositionError;
use cjm_wire::describe::{Described, ErrorDetails, Facts, Seconds, exit, shell_word};
use cjm_wire::error::NO_INODE;
use cjm_wire::{InstanceId, JobId};
use cjm_workers::{AdapterFault, CallError, StartError};
use std::path::{Path, PathBuf};

/// Why the host, or one of its operations, could not go on.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Another host executes on this directory.
    #[error("{} is in use by {}", path.display(), in_use_by(holder))]
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
        /// The keeper's process, if it stands still.
        stopped_keeper: Option<u32>,
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
    /// The file system takes nothing.
    #[error("cannot {action} {}: its file system is read-only", path.display())]
    ReadOnly {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The disk has room, and takes no further file.
    #[error("cannot {action} {}: {said}", path.display())]
    NoInode {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer, and what it leaves out.
        said: String,
    },
    /// The disk is full.
    #[error("cannot {action} {}: there is no room on its disk", path.display())]
    NoRoom {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// This user's processes may write no file of that length, whatever room there is.
    #[error("cannot {action} {}: no file may be so long here", path.display())]
    LengthLimit {
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
    #[error(
        "there is no capability named \"{name}\"{}; looked in {}{}",
        suggestions::in_words(suggestions),
        paths(searched),
        may_be_broken(nameless)
    )]
    UnknownCapability {
        /// The name asked for.
        name: String,
        /// Names like it.
        suggestions: Vec<String>,
        /// The folders of manifests that were looked at.
        searched: Vec<PathBuf>,
        /// Broken files there that do not say whose they are.
        nameless: Vec<PathBuf>,
    },
    /// There is a manifest of this name, and the user has not allowed it.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
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
    /// There may be a manifest of this name, where nobody can look.
    #[error(transparent)]
    MayBeUnread(#[from] MayBeUnread),
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
    /// A composition names a configuration that a loaded instance does not have.
    #[error(
        "the composition names another configuration of \"{name}\" than its loaded instance \"{instance}\" has; they \
         differ in {}",
        keys.join(", ")
    )]
    OtherConfiguration {
        /// The capability, as the composition names it.
        name: String,
        /// The instance.
        instance: InstanceId,
        /// The keys that differ.
        keys: Vec<String>,
    },
    /// The time of a composition was over.
    #[error("the composition \"{name}\" did not end within {}, and was stopped", Seconds::of(*seconds))]
    CompositionDeadline {
        /// The composition.
        name: String,
        /// How long it was given.
        seconds: f64,
    },
    /// Neither this host nor its store has a composition with this id, or one that is another host's to end.
    #[error("there is no composition {0}")]
    UnknownComposition(cjm_wire::CompositionId),
    /// The host is ending.
    #[error("the host is shutting down")]
    ShuttingDown,
}

impl Described for HostError {
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
            Self::Start(error) => error.stderr_tail(),
            Self::Call(error) => error.stderr_tail(),
            _ => Vec::new(),
        }
    }

    fn details(&self) -> ErrorDetails {
        match self {
            Self::Start(error) => error.details(),
            Self::Call(error) => error.details(),
            _ => ErrorDetails::of_exit(self.exit_code()),
        }
    }
}

/// What whoever finds another host waits for, and how it is stopped, where that host says who it is. One that stands still
/// ends by no wait, and hears no signal before it goes on.
fn its_end(directory: &Path, holder: &str) -> String {
    match host_process(directory, holder) {
        Some(pid) if is_stopped(pid) => {
            format!("that host is stopped: `kill -CONT {pid}` lets it go on, and `kill {pid}` then ends it")
        }
        Some(pid) => format!("wait for it to end, or stop it with `kill {pid}`"),
        None if holder.starts_with(NO_HOST) => "see what that program is, and wait for its end".to_owned(),
        None => "wait for it to end".to_owned(),
    }
}

fn in_use_by(holder: &str) -> String {
    if holder.starts_with(NO_HOST) { holder.to_owned() } else { format!("another host ({holder})") }
}

impl HostError {
    fn facts(&self) -> Facts {
        let domain = |code, next_step: &str| Facts::new(code, exit::DOMAIN, next_step);
        match self {
            Self::DirectoryInUse { path, holder } => Facts::new(
                "host.directory_in_use",
                exit::DIRECTORY_IN_USE,
                format!(
                    "{}; or use another directory with --data-dir; `cjm-ctl status` shows what it does",
                    its_end(path, holder)
                ),
            ),
            Self::TreeStillEnding { stopped_keeper, .. } => Facts::new(
                "host.tree_still_ending",
                exit::DIRECTORY_IN_USE,
                stopped_keeper.map_or_else(
                    || "look at that process (it may be stuck in the kernel), then try again".to_owned(),
                    |pid| format!("the keeper is stopped: `kill -CONT {pid}`, and it ends what is left; then try again"),
                ),
            ),
            Self::NoRoom { .. } => Facts::new("host.no_room", exit::STORE, "free space on that disk, then run it again"),
            Self::LengthLimit { .. } => Facts::new("host.length_limit", exit::STORE, "raise the limit on it (`ulimit -f`)"),
            Self::ReadOnly { .. } => Facts::new("host.read_only", exit::STORE, "make it writable, or give another one (--data-dir)"),
            Self::NoInode { .. } => Facts::new("host.no_inode", exit::STORE, "remove files from that disk (`df -i` counts inodes)"),
            Self::Directory { .. } => {
                domain("host.directory", "check the path, its permissions and the space on its disk")
            }
            Self::RuntimeDir(error) => domain(error.code(), error.next_step()),
            Self::Store(error) => Facts::of(error),
            Self::UnknownCapability { nameless, .. } => {
                domain("host.unknown_capability", &look_for_it(nameless))
            }
            Self::NotAllowed(error) => Facts::of(error),
            Self::BrokenManifest { path, .. } => domain(
                "host.broken_manifest",
                &format!("correct the file; `cjm-ctl validate {}` shows its faults", shell_word(&path.to_string_lossy())),
            ),
            Self::MayBeUnread(error) => Facts::of(error),
            Self::UnknownInstance(_) => domain("host.unknown_instance", "load it first"),
            Self::InstanceExists(_) => domain("host.instance_exists", "unload it, or choose another id"),
            Self::BadInstanceId(_) => domain("host.bad_instance_id", "use 1 to 64 letters, digits, `-`, `_`"),
            Self::Start(error) => Facts::of(error),
            Self::Call(error) => Facts::of(error),
            Self::Refused(error) => Facts::of(error),
            Self::Threads { .. } => domain(
                "host.threads",
                "raise the limit of processes (`ulimit -u`), of open files (`ulimit -n`) or of memory (`ulimit -v`)",
            ),
            Self::Keeper { next_step, .. } => Facts::new("host.keeper", exit::WORKER_START, next_step),
            Self::NoAdapter(fault) => Facts::of(fault),
            Self::UnknownJob(_) => domain("host.unknown_job", "`cjm-ctl logs --journal` shows all there were"),
            Self::Composition(error) => Facts::of(error),
            Self::Graph { code, next_step, .. } => domain(code, next_step),
            Self::OtherConfiguration { name, instance, .. } => domain(
                "composition.other_configuration",
                &format!(
                    "unload \"{instance}\", and \"{name}\" is loaded as the composition says; or leave `config` out of it"
                ),
            ),
            Self::CompositionDeadline { .. } => {
                Facts::new("composition.deadline", exit::TIMED_OUT, "give it more time (`--timeout`), or less to do")
            }
            Self::UnknownComposition(_) => domain(
                "host.unknown_composition",
                "`cjm-ctl logs --journal` shows the compositions there were",
            ),
            Self::ShuttingDown => domain("host.shutting_down", "start a new host"),
        }
    }

    /// From a failed attempt to take one of the two locks.
    pub(crate) fn from_lock(error: LockError, directory: PathBuf) -> Self {
        match error {
            LockError::Held { holder, .. } => Self::DirectoryInUse {
                path: directory,
                holder: holder.unwrap_or_else(|| "unnamed".to_owned()),
            },
            LockError::Io { path, source } => Self::writing("lock", path, source),
        }
    }

    /// What the system answered where something was to be written.
    pub(crate) fn writing(action: &'static str, path: PathBuf, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::FileTooLarge {
            Self::LengthLimit { action, path, source }
        } else if is_about_room(&source) {
            let said = cjm_store::room::said_of(&source, &path);
            if said.contains(NO_INODE) {
                return Self::NoInode { action, path, said };
            }
            Self::NoRoom { action, path, source }
        } else if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem {
            Self::ReadOnly { action, path, source }
        } else {
            Self::Directory { action, path, source }
        }
    }
}

/// How to find what has another name, or is not installed, or whose manifest is broken.
fn look_for_it(nameless: &[PathBuf]) -> String {
    match nameless.first() {
        Some(path) => format!(
            "`cjm-ctl validate {}` shows what is wrong there; `cjm-ctl list` shows what is installed",
            shell_word(&path.to_string_lossy())
        ),
        None => "`cjm-ctl list` shows what is installed; `cjm-ctl install-all` installs what capabilities.yaml names"
            .to_owned(),
    }
}

/// Broken manifests, one of which may be what was asked for.
fn may_be_broken(nameless: &[PathBuf]) -> String {
    const NAMED_MAX: usize = 3;
    if nameless.is_empty() {
        return String::new();
    }
    let named = paths(nameless.get(..NAMED_MAX).unwrap_or(nameless));
    let more = nameless.len().saturating_sub(NAMED_MAX);
    let more = if more == 0 { String::new() } else { format!(" (or of {more} more)") };
    format!("; it may be that of {named}{more}, which is broken and does not say whose it is")
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_no_host_is_not_called_one_and_its_end_is_waited_for() {
        let folder = tempfile::tempdir().expect("tempdir");
        let found = |holder: &str| {
            let error =
                HostError::DirectoryInUse { path: folder.path().to_owned(), holder: holder.to_owned() };
            (error.to_string(), error.next_step())
        };
        let (said, step) = found(&format!("{NO_HOST} (pid 7)"));
        assert!(said.contains(NO_HOST) && !said.contains("another host"), "{said}");
        assert!(step.starts_with("see what that program is, and wait for its end"), "{step}");
        let (said, step) = found("pid 7 since 1");
        assert!(said.contains("another host (pid 7 since 1)"), "{said}");
        assert!(step.starts_with("wait for it to end; or use another directory"), "{step}");
    }

    #[test]
    fn a_limit_on_the_size_of_files_is_no_full_disk() {
        let of = |number| {
            let source = std::io::Error::from_raw_os_error(number);
            let error = HostError::writing("lock", PathBuf::from("/there/host.lock"), source);
            (error.to_string(), error.exit_code())
        };
        let (long, full) = (of(27), of(28));
        assert_eq!(
            long,
            ("cannot lock /there/host.lock: no file may be so long here".to_owned(), exit::STORE)
        );
        assert_eq!(full.0, "cannot lock /there/host.lock: there is no room on its disk");
    }
}
