//! Where a program is: a name with a slash is a path, a bare name is looked for beside this program and on the PATH.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why there is no program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// It is in none of these places, which are told to people.
    Nowhere(String),
    /// This file is there, and nobody may execute it.
    NotExecutable(PathBuf),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere(searched) => write!(f, "it was not found (looked at {searched})"),
            Self::NotExecutable(path) => write!(f, "{} is there and is not executable", path.display()),
        }
    }
}

/// Finds `program`; a relative path starts at `relative_to`.
pub fn find(program: &str, relative_to: Option<&Path>) -> Result<PathBuf, Lost> {
    if program.contains('/') {
        let path = relative_to.map_or_else(|| PathBuf::from(program), |base| base.join(program));
        let path = std::path::absolute(&path).unwrap_or(path);
        return if is_executable(&path) { Ok(path) } else { Err(lost(path)) };
    }
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = beside.into_iter().chain(std::env::split_paths(&path));
    let mut not_executable = None;
    for candidate in directories.map(|directory| directory.join(program)).filter(|path| path.is_absolute()) {
        if is_executable(&candidate) {
            return Ok(candidate);
        }
        if not_executable.is_none() && candidate.is_file() {
            not_executable = Some(candidate);
        }
    }
    Err(match not_executable {
        Some(path) => Lost::NotExecutable(path),
        None => Lost::Nowhere(format!("the host's own directory and the PATH, {}", path.to_string_lossy())),
    })
}

/// What is wrong with a path that is no program.
pub fn lost(path: PathBuf) -> Lost {
    if path.is_file() { Lost::NotExecutable(path) } else { Lost::Nowhere(path.display().to_string()) }
}

/// Whether it is a file that may be executed.
pub fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
