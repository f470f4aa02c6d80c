//! Where a program is: a name with a slash is a path, a bare name is looked for beside this program and on the PATH.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Finds `program`; a relative path starts at `relative_to`. `Err` says where was looked, for people.
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

/// Whether it is a file that may be executed.
pub fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
