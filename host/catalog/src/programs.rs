//! Finds programs: the worker binary, a capability's own binary, the program of an executable. Relative paths start at
//! the manifest; how the rest is found is `cjm_platform::programs`'.

use cjm_platform::programs::{is_executable, lost};
use cjm_wire::describe::{Described, exit, shell_word};
use cjm_wire::runtime::Runtime;
use std::path::{Path, PathBuf};

pub use cjm_platform::programs::{Lost, find};

/// Variable that names the worker binary.
pub const WORKER_BINARY_VARIABLE: &str = "CJM_WORKER";
const WORKER_BINARY: &str = "cjm-worker";

/// Why there is no program to run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// The shim's binary was not found.
    #[error("the worker binary `cjm-worker` was not found (looked at {searched})")]
    WorkerBinaryMissing {
        /// Where.
        searched: String,
    },
    /// The file is there, and nobody may execute it.
    #[error("{what} {} is there and is not executable", path.display())]
    NotExecutable {
        /// What it is for, as the beginning of a sentence.
        what: String,
        /// The file.
        path: PathBuf,
    },
    /// Its path is no text, and paths of programs travel as text.
    #[error("the path {} is not UTF-8, so that no worker can be told of it", path.display())]
    NotText {
        /// The path.
        path: PathBuf,
    },
    /// The tool's program was not found.
    #[error("\"{capability}\" needs the program `{program}`, which was not found (looked at {searched})")]
    ProgramMissing {
        /// The capability.
        capability: String,
        /// Its program.
        program: String,
        /// Where.
        searched: String,
    },
}

impl Described for ProgramError {
    fn code(&self) -> &'static str {
        match self {
            Self::WorkerBinaryMissing { .. } => "worker.binary_missing",
            Self::NotExecutable { .. } => "worker.program_not_executable",
            Self::NotText { .. } => "worker.path_not_text",
            Self::ProgramMissing { .. } => "worker.program_missing",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::WorkerBinaryMissing { .. } => {
                "build it (`cargo build --release`) or point CJM_WORKER to it".to_owned()
            }
            Self::NotExecutable { path, .. } => make_executable(path),
            Self::NotText { .. } => {
                "give the folder or file a name in UTF-8, or put it under another folder".to_owned()
            }
            Self::ProgramMissing { program, .. } if program.contains('/') => {
                format!("put the program at `{program}`, or correct `code.runtime.program` in the manifest")
            }
            Self::ProgramMissing { program, .. } => {
                format!(
                    "install `{program}`, or give its absolute path in the manifest (`code.runtime.program`)"
                )
            }
        }
    }

    fn exit_code(&self) -> u8 {
        exit::WORKER_START
    }
}

/// The worker binary: as configured, else as `CJM_WORKER` says, else beside this program, else on the PATH.
///
/// # Errors
/// When it is in none of these places.
pub fn worker_binary(configured: Option<&Path>) -> Result<PathBuf, ProgramError> {
    let named = configured
        .map(Path::to_owned)
        .or_else(|| std::env::var_os(WORKER_BINARY_VARIABLE).map(PathBuf::from));
    if let Some(path) = named {
        return if is_executable(&path) {
            Ok(std::path::absolute(&path).unwrap_or(path))
        } else {
            Err(without_worker(lost(path)))
        };
    }
    find(WORKER_BINARY, None).map_err(without_worker)
}

fn without_worker(lost: Lost) -> ProgramError {
    match lost {
        Lost::Nowhere(searched) => ProgramError::WorkerBinaryMissing { searched },
        Lost::NotExecutable(path) => {
            ProgramError::NotExecutable { what: "the worker binary".to_owned(), path }
        }
    }
}

/// What to do about a file that is to be run and may not be.
#[must_use]
pub fn make_executable(path: &Path) -> String {
    format!("`chmod +x {}` makes it a program", shell_word(&path.to_string_lossy()))
}

/// The program of a capability.
///
/// # Errors
/// When it is nowhere; the message says where was looked.
pub fn capability_program(capability: &str, program: &str, manifest: &Path) -> Result<PathBuf, ProgramError> {
    find(program, manifest.parent()).map_err(|lost| match lost {
        Lost::Nowhere(searched) => ProgramError::ProgramMissing {
            capability: capability.to_owned(),
            program: program.to_owned(),
            searched,
        },
        Lost::NotExecutable(path) => {
            ProgramError::NotExecutable { what: format!("the program of \"{capability}\""), path }
        }
    })
}

/// A path as it travels to keeper and worker. A path that is no text would come out as another one.
///
/// # Errors
/// When it is not UTF-8.
pub fn as_text(path: &Path) -> Result<String, ProgramError> {
    path.to_str().map(str::to_owned).ok_or_else(|| ProgramError::NotText { path: path.to_owned() })
}

/// Arguments of a tool that name files beside its manifest, each with the path that would be right: a tool starts in the
/// folder of whoever calls, and would take what lies there.
#[must_use]
pub fn arguments_beside(runtime: &Runtime, manifest: &Path) -> Vec<String> {
    let Runtime::Channel { args, .. } = runtime else { return Vec::new() };
    let base = manifest.parent().unwrap_or(Path::new("/"));
    let beside = |(index, argument): (usize, &String)| {
        let meant = base.join(argument);
        (Path::new(argument).is_relative() && meant.is_file()).then(|| {
            format!(
                "code.runtime.args.{index}: `{argument}` is looked for in the folder of whoever calls, not beside the manifest: \
                 write {}",
                meant.display()
            )
        })
    };
    args.iter().enumerate().filter_map(beside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_that_names_a_file_beside_the_manifest_is_told_with_its_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("tool.pl");
        std::fs::write(&script, "").expect("written");
        let absolute = script.display().to_string();
        let args = ["-w", "tool.pl", "other.pl", "", &absolute].map(str::to_owned).to_vec();
        let told = |runtime| arguments_beside(&runtime, &folder.path().join("tool.json"));
        let channel = told(Runtime::Channel { program: "perl".to_owned(), args });
        assert_eq!(channel.len(), 1, "{channel:?}");
        assert!(
            channel[0].starts_with("code.runtime.args.1: `tool.pl` ") && channel[0].ends_with(&absolute),
            "{channel:?}"
        );
        let native =
            told(Runtime::Native { program: "tool.pl".to_owned(), args: vec!["tool.pl".to_owned()] });
        assert_eq!(native, Vec::<String>::new());
    }
}
