//! Finds Python interpreters by executing candidates: a version shim on the PATH may exist and fail, so that only
//! an answer counts. It chooses; it installs nothing.

use crate::command::{command, run};
use crate::constraint::{PythonVersion, Wanted};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most candidates executed.
const CANDIDATES_MAX: usize = 64;
/// Candidates executed side by side.
const PROBES_AT_ONCE: usize = 4;
/// How long one may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// Asks an interpreter what it is; `-I` keeps the caller's packages out of the answer.
const PROBE: &str = "import sys, json; print(json.dumps([sys.implementation.name, list(sys.version_info[:3]), \
                     getattr(sys, '_base_executable', None) or sys.executable]))";

/// An interpreter that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    /// Absolute path of the interpreter itself, not of a shim or of a virtual environment.
    pub path: PathBuf,
    /// What it says it is.
    pub version: PythonVersion,
    /// Found as `python3` or `python` on the PATH: the one the user means when nothing else is said.
    pub is_default: bool,
}

#[derive(Deserialize)]
struct ProbeAnswer(String, (u32, u32, u32), PathBuf);

/// All CPython interpreters of this machine that answer: those named plainly on the PATH first, then the newest.
pub async fn discover() -> Vec<Interpreter> {
    let (plain, versioned) = all_candidates();
    let mut found = probe_all(plain).await;
    found.extend(probe_all(versioned).await);
    in_order(found)
}

/// As [`discover`], but looks no further than the plainly named ones when they satisfy all of `wanted`.
pub(crate) async fn discover_for(wanted: &[Wanted]) -> Vec<Interpreter> {
    let (plain, versioned) = all_candidates();
    let mut found = in_order(probe_all(plain).await);
    let has_none = |wanted: &Wanted| found.iter().all(|one| !wanted.is_met_by(one.version));
    if wanted.iter().any(has_none) {
        found.extend(probe_all(versioned).await);
    }
    in_order(found)
}

/// The one that is meant when nothing is said: the first of the plainly named that answers. A version shim takes its time,
/// so that no more are asked.
pub(crate) async fn usual() -> Option<Interpreter> {
    for (candidate, is_default) in all_candidates().0 {
        if let Some(found) = probe(&candidate, is_default).await {
            return Some(found);
        }
    }
    None
}

type Candidates = Vec<(PathBuf, bool)>;

fn all_candidates() -> (Candidates, Candidates) {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    candidates(&std::env::split_paths(&path).collect::<Vec<_>>(), home.as_deref())
        .into_iter()
        .partition(|(_, is_default)| *is_default)
}

async fn probe_all(candidates: Candidates) -> Vec<Interpreter> {
    stream::iter(candidates)
        .map(|(candidate, is_default)| async move { probe(&candidate, is_default).await })
        .buffered(PROBES_AT_ONCE)
        .filter_map(|found| async { found })
        .collect()
        .await
}

fn in_order(mut found: Vec<Interpreter>) -> Vec<Interpreter> {
    let mut seen = HashSet::new();
    found.retain(|interpreter| seen.insert(interpreter.path.clone()));
    // Stable: the PATH's order stays among the plainly named.
    found.sort_by_key(|interpreter| {
        let age = if interpreter.is_default { PythonVersion(0, 0, 0) } else { interpreter.version };
        (!interpreter.is_default, std::cmp::Reverse(age))
    });
    found
}

/// The first of `interpreters` that the entry can use; where there is none, the first that satisfies what it says, and is
/// too old.
#[must_use]
pub(crate) fn choose<'a>(interpreters: &'a [Interpreter], wanted: &Wanted) -> Option<&'a Interpreter> {
    let mut all = interpreters.iter();
    all.find(|one| wanted.is_met_by(one.version))
        .or_else(|| interpreters.iter().find(|one| wanted.constraint.accepts(one.version)))
}

/// What the interpreter at `path` says of itself; `None` when it does not answer or is not CPython.
pub(crate) async fn probe(path: &Path, is_default: bool) -> Option<Interpreter> {
    let mut question = command(path);
    question.args(["-I", "-c", PROBE]);
    let answer = run(question, "looking for Python", PROBE_TIMEOUT, &|_| {}).await.ok()?;
    if !answer.success {
        return None;
    }
    let ProbeAnswer(implementation, (major, minor, patch), executable) =
        serde_json::from_slice(&answer.stdout).ok()?;
    if implementation != "cpython" || !executable.is_absolute() {
        return None;
    }
    Some(Interpreter { path: executable, version: PythonVersion(major, minor, patch), is_default })
}

fn candidates(path: &[PathBuf], home: Option<&Path>) -> Candidates {
    let mut list = Vec::new();
    for name in ["python3", "python"] {
        list.extend(path.iter().map(|folder| (folder.join(name), true)));
    }
    let mut folders: Vec<PathBuf> = path.to_vec();
    folders.extend(["/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    for folder in folders {
        let mut named: Vec<PathBuf> =
            children(&folder).into_iter().filter(|path| is_versioned(path)).collect();
        named.sort();
        list.extend(named.into_iter().map(|path| (path, false)));
    }
    let pyenv =
        std::env::var_os("PYENV_ROOT").map(PathBuf::from).or_else(|| home.map(|home| home.join(".pyenv")));
    let managed = home.map(|home| home.join(".local/share/uv/python"));
    for versions in [pyenv.map(|root| root.join("versions")), managed].into_iter().flatten() {
        let mut installed = children(&versions);
        installed.sort();
        list.extend(installed.into_iter().map(|version| (version.join("bin/python3"), false)));
    }
    let mut seen = HashSet::new();
    list.retain(|(candidate, _)| match candidate.canonicalize() {
        Ok(real) => {
            candidate.is_absolute() && seen.insert((real, candidate.file_name().map(ToOwned::to_owned)))
        }
        Err(_) => false,
    });
    list.truncate(CANDIDATES_MAX);
    list
}

fn children(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder)
        .map(|listing| listing.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
        .unwrap_or_default()
}

/// `python3.11`, but not `python3.11-config`.
fn is_versioned(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix("python3."))
        .is_some_and(|minor| {
            !minor.is_empty() && minor.len() <= 2 && minor.bytes().all(|byte| byte.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::Constraint;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn only_an_answer_counts() {
        let folder = tempfile::tempdir().expect("tempdir");
        let script = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("write");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
            path
        };
        let shim = script("python3.12", "#!/bin/sh\necho 'command not found' >&2\nexit 127\n");
        let good =
            script("python3.11", "#!/bin/sh\necho '[\"cpython\", [3, 11, 7], \"/opt/p/bin/python3.11\"]'\n");
        let other = script("python3.10", "#!/bin/sh\necho '[\"pypy\", [3, 10, 1], \"/opt/pypy\"]'\n");
        script("python3.11-config", "#!/bin/sh\nexit 0\n");
        let named = candidates(&[folder.path().to_owned()], None);
        let here: Vec<_> =
            named.iter().map(|(path, _)| path).filter(|p| p.starts_with(folder.path())).collect();
        assert_eq!(here, [&other, &good, &shim]);
        assert_eq!(probe(&shim, true).await, None);
        assert_eq!(probe(&other, true).await, None);
        let found = probe(&good, false).await.expect("answers");
        assert_eq!(
            (found.path.to_str(), found.version),
            (Some("/opt/p/bin/python3.11"), PythonVersion(3, 11, 7))
        );
    }

    #[test]
    fn the_default_is_preferred_then_the_newest() {
        let interpreter = |minor, is_default| Interpreter {
            path: PathBuf::from(format!("/p{minor}")),
            version: PythonVersion(3, minor, 0),
            is_default,
        };
        let all = [interpreter(11, true), interpreter(13, false), interpreter(12, false)];
        let minor_of = |all: &[Interpreter], text: &str, is_ours: bool| {
            let wanted = Wanted::new(Constraint::parse(text).expect(text), is_ours);
            choose(all, &wanted).map(|interpreter| interpreter.version.1)
        };
        let minor_for = |text: &str| minor_of(&all, text, true);
        assert_eq!(minor_for(">=3.9"), Some(11));
        assert_eq!(minor_for(">=3.12"), Some(13));
        assert_eq!(minor_for("3.12"), Some(12));
        assert_eq!(minor_for("3.14"), None);
        // One that is too old is taken only where there is no other, to be told; the ancestor's own worker may run on it.
        let all = [interpreter(8, true), interpreter(13, false), interpreter(12, false)];
        let minor_for = |text: &str| minor_of(&all, text, true);
        assert_eq!((minor_for(">=3.8"), minor_for("<3.13")), (Some(13), Some(12)));
        assert_eq!((minor_for("3.8"), minor_for("<3.10")), (Some(8), Some(8)));
        assert_eq!(minor_of(&all, ">=3.8", false), Some(8));
    }
}
