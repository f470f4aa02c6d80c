//! Interpreters and environments for tests: Debian's Python for tools, a newer one where the ancestor needs it.
//!
//! What must hold: an interpreter counts only after it has been executed and said its version; names on the
//! PATH may be version shims that fail. What starts longer work takes a world, because a world that ends clears
//! everything below this process.

use crate::repo;
use crate::world::World;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The interpreter that runs the tools of tests.
#[must_use]
pub fn interpreter() -> PathBuf {
    std::env::var_os("CJM_TEST_PYTHON").map_or_else(|| PathBuf::from("/usr/bin/python3"), PathBuf::from)
}

/// (major, minor) of an interpreter that really runs.
#[must_use]
pub fn version_of(path: &Path) -> Option<(u32, u32)> {
    let output = Command::new(path)
        .args(["-I", "-c", "import sys; print(sys.version_info[0], sys.version_info[1])"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.split_whitespace().map(|n| n.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// The oldest interpreter of at least this version: what is oldest has most wheels. Looked for once in a process, since
/// each candidate is run.
#[must_use]
pub fn at_least(major: u32, minor: u32) -> Option<PathBuf> {
    type Found = BTreeMap<(u32, u32), Option<PathBuf>>;
    static FOUND: Mutex<Found> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    found.entry((major, minor)).or_insert_with(|| look_for(major, minor)).clone()
}

fn look_for(major: u32, minor: u32) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let pyenv = std::env::var_os("PYENV_ROOT").map_or_else(|| home.join(".pyenv"), PathBuf::from);
    let versions = std::fs::read_dir(pyenv.join("versions")).into_iter().flatten().flatten();
    let installed = versions.map(|entry| entry.path().join("bin/python"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named: Vec<PathBuf> = std::env::split_paths(&path)
        // These are scripts that look for the versions above, and take up to a second for each.
        .filter(|folder| *folder != pyenv.join("shims"))
        .flat_map(|folder| (minor..minor + 4).map(move |m| folder.join(format!("python{major}.{m}"))))
        .collect();
    let mut found: Vec<((u32, u32), PathBuf)> = installed
        .chain(named)
        .chain(["/usr/bin/python3".into()])
        .filter(|path| path.is_file())
        .filter_map(|path| Some((version_of(&path)?, path)))
        .filter(|(version, _)| *version >= (major, minor))
        .collect();
    found.sort();
    found.into_iter().next().map(|(_, path)| path)
}

/// uv: on the PATH, or in an environment of its own in the cache, made on first use.
///
/// # Errors
/// The last lines of what failed.
pub fn uv(_turn: &World) -> Result<PathBuf, String> {
    let _held = hold("uv")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = repo::cache().join("uv/venv");
    let own = home.join("bin/uv");
    let works = |uv: &PathBuf| Command::new(uv).arg("--version").output().is_ok_and(|o| o.status.success());
    if let Some(uv) =
        std::env::split_paths(&path).map(|folder| folder.join("uv")).chain([own.clone()]).find(works)
    {
        return Ok(uv);
    }
    run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&home))?;
    run(Command::new(home.join("bin/pip")).args(["install", "--quiet", "uv"]))?;
    Ok(own)
}

/// An environment with these requirements, made once and kept in the cache.
///
/// # Errors
/// The last lines of what failed.
pub fn environment(
    turn: &World,
    name: &str,
    interpreter: &Path,
    requirements: &[&str],
) -> Result<PathBuf, String> {
    let _held = hold(name)?;
    let folder = repo::cache().join(name);
    let python = folder.join("bin/python");
    let stamp = folder.join(".complete");
    // Compiled ahead, or every start of a tool would compile it anew where PYTHONDONTWRITEBYTECODE is set.
    let wanted = format!("{}\nbytecode", requirements.join("\n"));
    if std::fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) && version_of(&python).is_some() {
        return Ok(folder);
    }
    let uv = uv(turn)?;
    let _ = std::fs::remove_dir_all(&folder);
    run(Command::new(&uv)
        .args(["venv", "--quiet", "--no-project", "--python"])
        .arg(interpreter)
        .arg(&folder))?;
    run(Command::new(&uv)
        .args(["pip", "install", "--quiet", "--compile-bytecode", "--python"])
        .arg(&python)
        .args(requirements)
        .env("UV_PYTHON_DOWNLOADS", "never"))?;
    std::fs::write(&stamp, wanted).map_err(|e| format!("{}: {e}", stamp.display()))?;
    Ok(folder)
}

/// Keeps other test programs from making the same thing in the cache, until it is dropped.
fn hold(name: &str) -> Result<File, String> {
    let path = repo::cache().join(format!("{name}.lock"));
    let lock = || {
        std::fs::create_dir_all(repo::cache())?;
        let file = File::create(&path)?;
        file.lock()?;
        Ok(file)
    };
    lock().map_err(|e: std::io::Error| format!("{}: {e}", path.display()))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = errors.lines().collect();
    Err(format!("{command:?}: {}", lines[lines.len().saturating_sub(6)..].join("\n")))
}
