//! Finds programs: the worker binary, a capability's own binary, the program of an executable. Relative paths start at
//! the manifest; how the rest is found is `cjm_platform::programs`'.

use crate::error::StartError;
use cjm_platform::programs::is_executable;
use std::path::{Path, PathBuf};

pub use cjm_platform::programs::find;

/// Variable that names the worker binary.
pub const WORKER_BINARY_VARIABLE: &str = "CJM_WORKER";
const WORKER_BINARY: &str = "cjm-worker";

/// The worker binary: as told, else as `CJM_WORKER` says, else beside this program, else on the PATH.
///
/// # Errors
/// When it is in none of these places.
pub fn worker_binary(told: Option<&Path>) -> Result<PathBuf, StartError> {
    let named =
        told.map(Path::to_owned).or_else(|| std::env::var_os(WORKER_BINARY_VARIABLE).map(PathBuf::from));
    if let Some(path) = named {
        return if is_executable(&path) {
            Ok(std::path::absolute(&path).unwrap_or(path))
        } else {
            Err(StartError::WorkerBinaryMissing { searched: path.display().to_string() })
        };
    }
    find(WORKER_BINARY, None).map_err(|searched| StartError::WorkerBinaryMissing { searched })
}

/// The program of a capability.
///
/// # Errors
/// When it is nowhere; the message says where was looked.
pub fn capability_program(capability: &str, program: &str, manifest: &Path) -> Result<PathBuf, StartError> {
    find(program, manifest.parent()).map_err(|searched| StartError::ProgramMissing {
        capability: capability.to_owned(),
        program: program.to_owned(),
        searched,
    })
}
