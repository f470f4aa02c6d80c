//! What can go wrong when an environment is made, for people.

use crate::constraint::PythonVersion;
use crate::steps::{
    Changed, ONE_NAME_STEP, OTHER_VERSION_STEP, Whence, another_entry_step, another_name_step, broken_step,
    changed_step, conda_step, environment_step, folder_step, gets, host_step, install_step, interpreter_step,
    list_step, mounted_step, old_interpreter_step, out_of_folder_step, own_name_step, rest_step, source_step,
};
use cjm_catalog::allowed::AllowedError;
use cjm_catalog::installation::Unfinished;
use cjm_catalog::installer::Installer;
use cjm_catalog::programs::make_executable;
use cjm_catalog::{MayBeUnread, NotAllowed, NotYours, unread_step};
use cjm_platform::files::FileError;
use cjm_wire::capabilities_file::CapabilitiesFileError;
use cjm_wire::describe::{Described, ErrorDetails, exit};
use cjm_wire::error::NO_INODE;
use cjm_wire::manifest::ManifestError;
use cjm_wire::settings_file::CondaType;
use std::borrow::Cow;
use std::path::PathBuf;

/// Why the installation, or one entry of it, failed.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// The list of capabilities is not there.
    #[error("cannot read {}", path.display())]
    CapabilitiesUnreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: FileError,
    },
    /// The list of capabilities is not one.
    #[error("{}: {source}", path.display())]
    CapabilitiesInvalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CapabilitiesFileError,
    },
    /// Another installation works on it.
    #[error("another command is changing what is installed in {what}: {by}")]
    InUse {
        /// The data directory, or an environment.
        what: Changed,
        /// Which.
        by: Box<Installer>,
    },
    /// A running host has a worker of what would go or change.
    #[error("\"{capability}\" runs in a host ({holder}), and would be taken from under it")]
    HostRuns {
        /// The capability.
        capability: String,
        /// What the host wrote about itself.
        holder: String,
        /// Its process.
        pid: Option<i32>,
    },
    /// A file or directory cannot be used.
    #[error("cannot {action} {}", path.display())]
    File {
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
    /// The disk takes no further file, though bytes are free.
    #[error("cannot {action} {}: {NO_INODE} on its disk", path.display())]
    NoInode {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Last words of the helper that tried it.
        stderr_tail: Vec<String>,
    },
    /// No interpreter satisfies the entry.
    #[error("no Python {wanted} on this machine (found: {found})")]
    NoInterpreter {
        /// The entry's `python_version`.
        wanted: String,
        /// The versions there are.
        found: String,
    },
    /// The interpreter that the entry comes to is older than those that the SDK runs on.
    #[error("a Python tool needs Python 3.9 or later, and this entry {}", gets(*version))]
    OldInterpreter {
        /// The one that was chosen; none where what it says takes no other.
        version: Option<PythonVersion>,
        /// What the entry says of it; none where it is the one of its conda environment.
        wanted: Option<String>,
    },
    /// `python_version` cannot be read.
    #[error("`python_version: {0}` is no version and no constraint")]
    BadConstraint(String),
    /// uv is missing and was not to be had.
    #[error("uv is not on the PATH and could not be installed: {reason}")]
    NoUv {
        /// Why not.
        reason: String,
        /// What to do.
        next_step: String,
        /// Last words of the attempt.
        stderr_tail: Vec<String>,
    },
    /// A helper program could not be started or read.
    #[error("{what}: cannot run {program}")]
    HelperNotRun {
        /// The step.
        what: String,
        /// The program.
        program: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A helper program took too long and was stopped.
    #[error("{what}: {program} did not end within {seconds} s and was stopped")]
    HelperTooSlow {
        /// The step.
        what: String,
        /// The program.
        program: String,
        /// How long it was given.
        seconds: u64,
    },
    /// A helper program printed more than is kept, and was stopped.
    #[error("{what}: {program} was stopped: it printed more than {bytes_max} bytes")]
    HelperTooLoud {
        /// The step.
        what: String,
        /// The program.
        program: String,
        /// How much it may print.
        bytes_max: usize,
    },
    /// A helper program ended badly.
    #[error("{what} failed: {program} ended with {ending}")]
    HelperFailed {
        /// The step.
        what: String,
        /// The program.
        program: String,
        /// Exit code or signal.
        ending: String,
        /// Its last words.
        stderr_tail: Vec<String>,
    },
    /// The package is a folder and cannot be installed as it is.
    #[error("the folder {} {problem}", path.display())]
    BadFolder {
        /// The folder.
        path: PathBuf,
        /// What it lacks.
        problem: String,
    },
    /// Building the package would read what has no end, or wait for whoever writes.
    #[error("the package folder {} holds {what}, or a link to one: {}", folder.display(), path.display())]
    NoFileInFolder {
        /// The folder.
        folder: PathBuf,
        /// What lies in it.
        path: PathBuf,
        /// What that is.
        what: &'static str,
    },
    /// The package's own description is no such thing.
    #[error("{}:{line}:{column}: {message}", path.display())]
    BrokenProject {
        /// The `pyproject.toml`.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// Something of the entry is for a later version.
    #[error("{0} is not supported by this version")]
    Unsupported(String),
    /// Two entries want the same thing.
    #[error("`env_name: {env_name}` is already the environment of \"{other}\"")]
    SharedEnvironment {
        /// The environment.
        env_name: String,
        /// The other entry.
        other: String,
    },
    /// A folder that is written as the name of a package of a registry is.
    #[error(
        "`{text}` would be looked for in a registry of packages, and there is a folder of that name or it is a path"
    )]
    FolderAsName {
        /// As it is written.
        text: String,
    },
    /// Whether a tool lives in an environment that was to go cannot be told.
    #[error("nothing of \"{capability}\" was removed: {} cannot be read, and what it says of environments is not known: {message}", path.display())]
    ManifestsUnread {
        /// What was to be removed.
        capability: String,
        /// A manifest, or a folder of them.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// It was not found, and may be in a manifest that cannot be read.
    #[error(transparent)]
    MayBeUnread(#[from] MayBeUnread),
    /// While it was asked whether to remove it, another tool came to live in its environment.
    #[error("nothing was removed: \"{other}\" lives in the environment of \"{capability}\" by now")]
    SharedSince {
        /// What was to be removed.
        capability: String,
        /// The other tool.
        other: String,
    },
    /// The tool is gone, and something of it could not be deleted.
    #[error("\"{capability}\" is removed, but {} cannot be deleted: {source}", path.display())]
    RestStays {
        /// What was removed.
        capability: String,
        /// What lies there still.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Deleting it would go through to what is another's.
    #[error("nothing of {} was deleted: {} is mounted in it", path.display(), mount.display())]
    Mounted {
        /// What was to be deleted.
        path: PathBuf,
        /// Where in it.
        mount: PathBuf,
    },
    /// What was to be written or removed is a mount itself.
    #[error("cannot {action} {}: something is mounted in its place", path.display())]
    MountedOver {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The capability cannot be looked into.
    #[error("the installed package cannot be introspected: {message}")]
    Introspection {
        /// What the introspection said.
        message: String,
        /// What to do.
        next_step: Cow<'static, str>,
        /// Last words of the interpreter.
        stderr_tail: Vec<String>,
    },
    /// A manifest that the entry names is not one.
    #[error("the manifest {}: {source}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ManifestError,
    },
    /// The program of a manifest is nowhere.
    #[error("the program `{program}` was not found (searched: {searched})")]
    ProgramMissing {
        /// The program as the manifest names it.
        program: String,
        /// Where was looked.
        searched: String,
    },
    /// The program of a manifest is there, and nobody may execute it.
    #[error("the program {} is there and is not executable", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
    /// The program that makes conda environments is not there.
    #[error("{} is not to be had: {reason}", kind.as_str())]
    NoConda {
        /// Which one.
        kind: CondaType,
        /// Why not.
        reason: String,
    },
    /// It answered something else than was asked.
    #[error("{program} answered what cannot be read: {message}")]
    CondaAnswer {
        /// The program.
        program: String,
        /// What is wrong with the answer.
        message: String,
    },
    /// There is no such environment.
    #[error("there is no environment \"{env_name}\"")]
    EnvironmentMissing {
        /// Its name.
        env_name: String,
    },
    /// An environment that conda made holds no Python that answers.
    #[error("the conda environment \"{env_name}\" holds no Python that answers ({})", python.display())]
    NoPythonInside {
        /// Its name.
        env_name: String,
        /// Where it should be.
        python: PathBuf,
    },
    /// The settings name no place.
    #[error("Cannot determine micromamba binary path")]
    NoPlaceForMicromamba,
    /// An adapter was named in another way.
    #[error("adapter target must be 'module:ClassName', got '{0}'")]
    AdapterTarget(String),
    /// There is no such capability.
    #[error(
        "Capability manifest not found: {capability}{like}\nExpected at: {}{}",
        expected.display(),
        broken.as_ref().map(|why| format!("\nThere is a file, and it is broken: {why}")).unwrap_or_default()
    )]
    NotInstalled {
        /// Its name.
        capability: String,
        /// What is like it, as the end of a sentence.
        like: String,
        /// Where its manifest would be.
        expected: PathBuf,
        /// What is wrong with the file that is there.
        broken: Option<String>,
    },
    /// Its manifest says neither what it was installed from nor where its code is.
    #[error(
        "the manifest {} of \"{capability}\" was put there by hand: there is nothing to look into that it could be made from",
        path.display()
    )]
    ByHand {
        /// Its name.
        capability: String,
        /// The manifest.
        path: PathBuf,
    },
    /// Its manifest lies where nobody set it up, and the user has not allowed it.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// Likewise of what lies there and is no manifest.
    #[error(transparent)]
    NotYours(#[from] NotYours),
    /// Its environment is not whole.
    #[error(transparent)]
    Unfinished(#[from] Unfinished),
    /// What was allowed cannot be read or kept.
    #[error(transparent)]
    Allowed(#[from] AllowedError),
    /// An entry whose tool has another name now, which is that of another list's tool.
    #[error("\"{capability}\" is installed from {}, and this entry gave \"{before}\" until now", list.display())]
    CapabilityOfAnotherList {
        /// The name that it gives now.
        capability: String,
        /// The list that the tool of this name came from.
        list: PathBuf,
        /// The name that it gave before.
        before: String,
    },
    /// Another version of a package is installed than was told.
    #[error("{name} {wanted} is not installed: it is {installed}")]
    OtherVersion {
        /// The package.
        name: String,
        /// The version that was told.
        wanted: String,
        /// The one that is there.
        installed: String,
    },
    /// What an installed tool was made from has another name now.
    #[error("it calls itself \"{now}\" now, not \"{capability}\"; install it under its new name")]
    AnotherName {
        /// The name that it is installed under.
        capability: String,
        /// The name that it gives now.
        now: String,
        /// The list that it came from.
        list: Option<PathBuf>,
    },
    /// The environment of an entry holds the tool of another list, or of another data directory.
    #[error("`env_name: {env_name}` is the environment of \"{capability}\", which is installed {whence}")]
    EnvironmentOfAnotherList {
        /// The environment.
        env_name: String,
        /// The tool that lives there.
        capability: String,
        /// Where it came from.
        whence: Whence,
    },
    /// The same capability comes from two entries.
    #[error("\"{capability}\" is already installed by the entry \"{other}\"")]
    CapabilityTwice {
        /// The capability.
        capability: String,
        /// The entry that came first.
        other: String,
    },
    /// An entry gives the name of what another one has installed, and may have another name for by now.
    #[error("\"{capability}\" is already installed by the entry \"{other}\"")]
    CapabilityOfAnotherEntry {
        /// The capability.
        capability: String,
        /// The entry that it is installed from.
        other: String,
    },
}

/// Whether a helper that failed says that its disk is full.
pub(crate) fn speaks_of_room(stderr_tail: &[String]) -> bool {
    const FULL: [&str; 3] = ["No space left on device", "[Errno 28]", "Disk quota exceeded"];
    stderr_tail.iter().any(|line| FULL.iter().any(|words| line.contains(words)))
}

/// Whether it is a folder, a device or the like, which no right and no room on a disk would mend.
fn is_no_file(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<FileError>());
    matches!(cause, Some(FileError::NotRegular { .. }))
}

impl Described for EnvironmentError {
    fn code(&self) -> &'static str {
        match self {
            Self::CapabilitiesUnreadable { .. } => "install.capabilities_unreadable",
            Self::CapabilitiesInvalid { .. } => "install.capabilities_invalid",
            Self::InUse { .. } => "install.in_use",
            Self::HostRuns { .. } => "install.host_runs",
            Self::File { .. } => "install.file",
            Self::NoRoom { .. } => "install.no_room",
            Self::NoInode { .. } => "install.no_inode",
            Self::ReadOnly { .. } => "install.read_only",
            Self::NoInterpreter { .. } => "install.no_interpreter",
            Self::OldInterpreter { .. } => "install.old_interpreter",
            Self::BadConstraint(_) => "install.bad_python_version",
            Self::NoUv { .. } => "install.no_uv",
            Self::HelperNotRun { .. } => "install.helper_not_run",
            Self::HelperTooSlow { .. } => "install.helper_too_slow",
            Self::HelperTooLoud { .. } => "install.helper_too_loud",
            Self::HelperFailed { .. } => "install.helper_failed",
            Self::BadFolder { .. } => "install.bad_folder",
            Self::NoFileInFolder { .. } => "install.no_file_in_folder",
            Self::BrokenProject { .. } => "install.broken_project",
            Self::Unsupported(_) => "install.unsupported",
            Self::SharedEnvironment { .. } => "install.shared_environment",
            Self::FolderAsName { .. } => "install.folder_as_name",
            Self::ManifestsUnread { .. } => "remove.manifests_unread",
            Self::MayBeUnread(error) => error.code(),
            Self::SharedSince { .. } => "remove.shared_since",
            Self::RestStays { .. } => "remove.rest_stays",
            Self::Mounted { .. } | Self::MountedOver { .. } => "remove.mounted",
            Self::Introspection { .. } => "install.introspection",
            Self::Manifest { source, .. } => source.code(),
            Self::ProgramMissing { .. } => "install.program_missing",
            Self::NotExecutable { .. } => "install.program_not_executable",
            Self::NoConda { .. } => "install.no_conda",
            Self::CondaAnswer { .. } => "install.conda_answer",
            Self::EnvironmentMissing { .. } => "install.no_environment",
            Self::NoPythonInside { .. } => "install.no_python_inside",
            Self::NoPlaceForMicromamba => "install.no_place_for_micromamba",
            Self::AdapterTarget(_) => "install.adapter_target",
            Self::NotInstalled { .. } => "install.not_installed",
            Self::ByHand { .. } => "install.by_hand",
            Self::NotAllowed(error) => error.code(),
            Self::NotYours(error) => error.code(),
            Self::Allowed(error) => error.code(),
            Self::Unfinished(error) => error.code(),
            Self::OtherVersion { .. } => "install.other_version",
            Self::AnotherName { .. } => "install.another_name",
            Self::EnvironmentOfAnotherList { .. } => "install.environment_of_another_list",
            Self::CapabilityTwice { .. } | Self::CapabilityOfAnotherEntry { .. } => {
                "install.capability_twice"
            }
            Self::CapabilityOfAnotherList { .. } => "install.capability_of_another_list",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::CapabilitiesUnreadable { source, .. } => list_step(source),
            Self::CapabilitiesInvalid { source, .. } => source.next_step(),
            Self::HostRuns { pid, .. } => host_step(*pid),
            Self::InUse { by, what } => by.next_step(&changed_step(what)),
            Self::ReadOnly { .. } => "make that file system writable, or name another directory".to_owned(),
            Self::NoRoom { path, .. } => {
                format!("free space on the disk of {}, then run it again: it goes on where it stopped", path.display())
            }
            Self::NoInode { .. } => "remove files from that disk (`df -i` counts inodes), then run it again: it goes on".to_owned(),
            Self::File { source, path, .. } if is_no_file(source) => {
                format!("name a file in the place of {}, or put one there", path.display())
            }
            Self::File { .. } => "check the path, its permissions and the space on its disk".to_owned(),
            Self::NoInterpreter { wanted, .. } => interpreter_step(wanted),
            Self::BadConstraint(_) => "write `3.11`, `3.11.7`, or `>=3.9,<3.14`".to_owned(),
            Self::NoUv { next_step, .. } => next_step.clone(),
            Self::HelperNotRun { program, .. } => format!("see that `{program}` can be executed, then run install-all again"),
            Self::HelperTooLoud { .. } => "see what that program prints, and that it is the one which it is meant to be; then run the same command again".to_owned(),
            Self::HelperTooSlow { .. } => "check the network, then run install-all again: it goes on where it stopped".to_owned(),
            Self::HelperFailed { stderr_tail, .. } if speaks_of_room(stderr_tail) => {
                "free space on its disk, then run install-all again: it goes on where it stopped".to_owned()
            }
            Self::HelperFailed { .. } => "read the last lines; correct the entry or the network, then run install-all again".to_owned(),
            Self::BadFolder { .. } | Self::BrokenProject { .. } => {
                "see docs/ENVIRONMENTS.md, \"Your own folder\", for a pyproject.toml that suffices".to_owned()
            }
            Self::NoFileInFolder { path, .. } => out_of_folder_step(path),
            Self::Unsupported(_) => "write it in another way; see docs/ENVIRONMENTS.md".to_owned(),
            Self::SharedEnvironment { .. } => "give each entry an `env_name` of its own".to_owned(),
            Self::ManifestsUnread { path, .. } => unread_step(path),
            Self::MayBeUnread(error) => error.next_step(),
            Self::FolderAsName { text } => folder_step(text),
            Self::SharedSince { .. } => "run it again: it says what goes now, and leaves that environment".to_owned(),
            Self::RestStays { path, .. } => rest_step(path),
            Self::Mounted { mount: path, .. } | Self::MountedOver { path, .. } => mounted_step(path),
            Self::Introspection { next_step, .. } => next_step.clone().into_owned(),
            Self::OldInterpreter { wanted, .. } => old_interpreter_step(wanted.as_deref()),
            Self::Manifest { source, path } => source_step(source, path),
            Self::ProgramMissing { program, .. } => install_step(program),
            Self::NotExecutable { path } => format!("{}; then run install-all again", make_executable(path)),
            Self::NoConda { kind, .. } => conda_step(*kind),
            Self::CondaAnswer { program, .. } => format!("see that `{program} env list --json` works"),
            Self::EnvironmentMissing { .. } => "`cjm-ctl install-all` makes it; `cjm-ctl list --envs` shows which there are".to_owned(),
            Self::NoPythonInside { .. } => "name `python` among the dependencies of the `env_file`, then run \
                                            `cjm-ctl install-all --force`"
                .to_owned(),
            Self::NoPlaceForMicromamba => "Set 'runtime.prefix' or 'runtime.binaries' in cjm.yaml, or give --conda-prefix".to_owned(),
            Self::AdapterTarget(_) => "write the module, a colon, and the class in it".to_owned(),
            Self::NotInstalled { capability, broken: Some(_), .. } => broken_step(capability),
            Self::NotInstalled { .. } => "`cjm-ctl list` shows what is installed".to_owned(),
            Self::ByHand { path, .. } => format!("edit the file itself: {}", path.display()),
            Self::NotAllowed(error) => error.next_step(),
            Self::NotYours(error) => error.next_step(),
            Self::Allowed(error) => error.next_step(),
            Self::Unfinished(error) => error.next_step(),
            Self::OtherVersion { .. } => OTHER_VERSION_STEP.to_owned(),
            Self::AnotherName { list, .. } => own_name_step(list.as_deref()),
            Self::EnvironmentOfAnotherList { capability, whence, .. } => environment_step(capability, whence),
            Self::CapabilityTwice { .. } => ONE_NAME_STEP.to_owned(),
            Self::CapabilityOfAnotherEntry { capability, other } => another_entry_step(capability, other),
            Self::CapabilityOfAnotherList { capability, .. } => another_name_step(capability),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::InUse { .. } | Self::HostRuns { .. } => exit::DIRECTORY_IN_USE,
            Self::Unfinished(error) => error.exit_code(),
            Self::NoRoom { .. } | Self::NoInode { .. } | Self::ReadOnly { .. } => exit::STORE,
            Self::HelperFailed { stderr_tail, .. } if speaks_of_room(stderr_tail) => exit::STORE,
            _ => exit::DOMAIN,
        }
    }

    fn details(&self) -> ErrorDetails {
        match self {
            Self::Unfinished(error) => error.details(),
            _ => ErrorDetails::of_exit(self.exit_code()),
        }
    }

    fn stderr_tail(&self) -> Vec<String> {
        match self {
            Self::NoUv { stderr_tail, .. }
            | Self::NoInode { stderr_tail, .. }
            | Self::HelperFailed { stderr_tail, .. }
            | Self::Introspection { stderr_tail, .. } => stderr_tail.clone(),
            _ => Vec::new(),
        }
    }
}
