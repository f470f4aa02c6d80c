//! Why a worker cannot find out what to run for the ancestor's host.

use cjm_platform::runtime_dir::RuntimeDirError;
use cjm_wire::describe::Described;
use cjm_wire::manifest::ManifestError;
use std::io;
use std::path::PathBuf;

/// Each becomes the `FATAL` line that the host shows.
#[derive(Debug, thiserror::Error)]
pub(super) enum AncestorStartError {
    /// Nothing says what the host means.
    #[error("no manifest of {wanted} is in {looked}")]
    NoManifest {
        /// A capability's name, or a module and a class.
        wanted: String,
        /// Folders and files, for people.
        looked: String,
    },
    /// Several manifests have this module and class.
    #[error("several manifests name {wanted}: {names}")]
    Ambiguous {
        /// Module and class.
        wanted: String,
        /// The capabilities.
        names: String,
    },
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no manifest.
    #[error("{} is no manifest that can be used", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// A Python tool whose interpreter is not named.
    #[error("the manifest of {0} names this program as its interpreter and no other")]
    NoInterpreter(String),
    /// The manifest's program is not there.
    #[error("the program {program} of {capability} cannot be run: {why}")]
    NoProgram {
        /// The capability.
        capability: String,
        /// As the manifest names it.
        program: String,
        /// Why not.
        why: String,
    },
    /// There is no place for the tool's files.
    #[error("the host gave no directory, and the user's own cannot be used")]
    Directory(#[from] RuntimeDirError),
    /// A capability in Rust was found, and did not start in the place of this process.
    #[error("{} could not be started", program.display())]
    Exec {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Described for AncestorStartError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoManifest { .. } => "worker.no_manifest",
            Self::Ambiguous { .. } => "worker.ambiguous_manifest",
            Self::Unreadable { .. } => "worker.unreadable_manifest",
            Self::Manifest { .. } => "worker.bad_manifest",
            Self::NoInterpreter(_) => "worker.no_interpreter",
            Self::NoProgram { .. } => "worker.no_program",
            Self::Directory(_) => "worker.no_directory",
            Self::Exec { .. } => "worker.program_did_not_start",
        }
    }

    fn next_step(&self) -> String {
        let manifest = super::MANIFEST_VARIABLE;
        match self {
            Self::NoManifest { .. } | Self::Ambiguous { .. } => {
                format!("name the manifest's path by {manifest} in its `install.env_vars`")
            }
            Self::Unreadable { .. } => "correct its permissions, or the path".to_owned(),
            Self::Manifest { source, .. } => source.next_step(),
            Self::NoInterpreter(_) => {
                format!("name the interpreter by {} in `install.env_vars`", super::PYTHON_VARIABLE)
            }
            Self::NoProgram { .. } => {
                "install it or make it executable (`chmod +x`), or correct `code.runtime.program`".to_owned()
            }
            Self::Directory(source) => {
                format!("set {}, or {}", super::DATA_DIR_VARIABLE, source.next_step())
            }
            Self::Exec { .. } => "run the program by hand with --help to see what ails it".to_owned(),
        }
    }
}
