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
    find_in(beside.into_iter().chain(std::env::split_paths(&path)), program).map_err(|found| match found {
        Some(path) => Lost::NotExecutable(path),
        None => Lost::Nowhere(format!("the host's own directory and the PATH, {}", path.to_string_lossy())),
    })
}

/// The first program of this name in `directories`; or else the first file of it that nobody may execute. A directory that
/// is not absolute is none: it would be another one in each present folder.
fn find_in(directories: impl Iterator<Item = PathBuf>, program: &str) -> Result<PathBuf, Option<PathBuf>> {
    let mut not_executable = None;
    for candidate in directories.map(|directory| directory.join(program)).filter(|path| path.is_absolute()) {
        if is_executable(&candidate) {
            return Ok(candidate);
        }
        if not_executable.is_none() && candidate.is_file() {
            not_executable = Some(candidate);
        }
    }
    Err(not_executable)
}

/// What is wrong with a path that is no program.
pub fn lost(path: PathBuf) -> Lost {
    let what = match std::fs::metadata(&path) {
        Ok(found) if found.is_file() => return Lost::NotExecutable(path),
        Ok(found) if found.is_dir() => ", which is a folder",
        Ok(_) => ", which is no regular file",
        Err(_) if path.is_symlink() => ", which is a link that leads to nothing",
        Err(_) => "",
    };
    Lost::Nowhere(format!("{}{what}", path.display()))
}

/// Whether it is a file that may be executed.
pub fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_a_file_that_may_be_executed_in_an_absolute_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (first, second, third) = (folder("1"), folder("2"), folder("3"));
        // A folder may be entered, which is no execution.
        std::fs::create_dir(first.join("tool")).unwrap();
        let find = |directories: &[PathBuf]| find_in(directories.iter().cloned(), "tool");
        let all = [first, second.clone(), third.clone()];
        assert_eq!(find(&all), Err(None));
        std::fs::write(second.join("tool"), "").unwrap();
        assert_eq!(find(&all), Err(Some(second.join("tool"))));
        std::fs::write(third.join("tool"), "").unwrap();
        std::fs::set_permissions(third.join("tool"), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(&all), Ok(third.join("tool")));
        // The same folder, as seen from the present one.
        let cwd = std::env::current_dir().unwrap();
        let up: PathBuf = cwd.components().skip(1).map(|_| "..").collect();
        let relative = up.join(third.strip_prefix("/").unwrap());
        assert!(is_executable(&relative.join("tool")), "it is there");
        assert_eq!(find(&[PathBuf::new(), relative]), Err(None));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        for (path, words) in [
            (third, "3, which is a folder)"),
            ("/dev/null".into(), "/dev/null, which is no regular file)"),
            (link, "link, which is a link that leads to nothing)"),
            (dir.path().join("gone"), "gone)"),
        ] {
            let told = lost(path).to_string();
            assert!(told.ends_with(words), "{told}");
        }
    }
}
