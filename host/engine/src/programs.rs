//! Finds programs: the worker binary, a capability's own binary, the program of an executable. A name with a slash
//! is a path (relative ones start at the manifest); a bare name is looked for beside the host's own binaries and on
//! the PATH.

use crate::error::StartError;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

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

/// Finds `program`; `Err` says where was looked.
///
/// # Errors
/// The places, for people.
pub fn find(program: &str, relative_to: Option<&Path>) -> Result<PathBuf, String> {
    if program.contains('/') {
        let path = relative_to.map_or_else(|| PathBuf::from(program), |base| base.join(program));
        let path = std::path::absolute(&path).unwrap_or(path);
        return if is_executable(&path) { Ok(path) } else { Err(path.display().to_string()) };
    }
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_absolute() && is_executable(candidate))
        .ok_or_else(|| format!("the host's own directory and the PATH, {}", path.to_string_lossy()))
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
