//! The peers, side by side with ours in the same run: the ancestor in two versions, and Ray. Each is installed from PyPI
//! into an environment of its own, kept in the cache; each is measured by a script that runs inside it.
//!
//! Their figures are shown and gate nothing. Ray writes nothing down; its tasks stand beside durable jobs all the same,
//! because people compare them.

use crate::measure::{median, run};
use crate::row::{Goal, Row, Unit};
use crate::{calls, jobs, world};
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The ancestor's versions: the one the wire was taken from, and a later one.
const ANCESTORS: [&str; 2] = ["0.0.51", "0.0.74"];
/// What all peers have wheels for.
const PYTHON: (u32, u32) = (3, 12);

/// What each peer's script prints as its last line.
#[derive(Debug, Deserialize)]
struct Figures {
    call_p50_us: f64,
    jobs_per_s: f64,
    worker_mb: f64,
}

/// Rows of peers, ours first.
pub(crate) fn rows(short: bool) -> Result<Vec<Row>> {
    let ours = ours(short)?;
    let scale = |count: usize| if short { count / 5 } else { count };
    let mut rows = shown("ours (Python tool)", "", &ours, &ours);
    for version in ANCESTORS {
        let requirement = format!("cjm-substrate=={version}");
        let python = environment(&format!("ancestor-{version}"), &requirement)?;
        let figures = measure(&python, "peer_ancestor.py", scale(100), scale(100))?;
        rows.extend(shown(&format!("ancestor {version}"), "", &figures, &ours));
    }
    let python = environment("ray", "ray")?;
    let version = run(Command::new(&python).args(["-c", "import ray; print(ray.__version__)"]))?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let figures = measure(&python, "peer_ray.py", scale(2000), scale(5000))?;
    rows.extend(shown(
        &format!("Ray {version}"),
        "actor calls; tasks, of which nothing is kept",
        &figures,
        &ours,
    ));
    Ok(rows)
}

fn shown(who: &str, note: &str, figures: &Figures, ours: &Figures) -> Vec<Row> {
    let row = |what: &str, unit, figure: f64, ours: f64| {
        let mut row = Row::alone(format!("{what}: {who}"), figure, unit, Goal::Shown).note(note);
        row.floor = Some(("ours".to_owned(), ours));
        row.ratio = Some(figure / ours);
        row
    };
    vec![
        row("call p50", Unit::Micros, figures.call_p50_us, ours.call_p50_us),
        row("jobs", Unit::PerSecond, figures.jobs_per_s, ours.jobs_per_s),
        row("worker, resident", Unit::Megabytes, figures.worker_mb, ours.worker_mb),
    ]
}

/// Our own figures with a Python tool, as the peers' tools are; shim and tool counted together.
fn ours(short: bool) -> Result<Figures> {
    let (taken, worker_mb) = calls::python_calls(if short { 500 } else { 5000 })?;
    let rate = jobs::python_rate(if short { 1000 } else { 10_000 })?;
    Ok(Figures { call_p50_us: median(taken), jobs_per_s: rate, worker_mb })
}

fn measure(python: &Path, script: &str, calls: usize, jobs: usize) -> Result<Figures> {
    // Ray's sockets need short paths.
    let dir = tempfile::Builder::new().prefix("cjmb").tempdir()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
    let output = run(Command::new(python)
        .arg(&script)
        .arg(dir.path().join("d"))
        .args([calls.to_string(), jobs.to_string()])
        .current_dir(dir.path())
        .env("CJM_DATA_DIR", dir.path().join("d")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("{} printed: {last}", script.display()))
}

/// The interpreter of an environment with this requirement; made once.
fn environment(name: &str, requirement: &str) -> Result<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).context("HOME is not set")?;
    let cache = home.join(".cache/cjm-substrate");
    let folder = cache.join("peers").join(name);
    let python = folder.join("bin/python");
    let stamp = folder.join(".complete");
    if std::fs::read_to_string(&stamp).is_ok_and(|made| made == requirement) {
        return Ok(python);
    }
    eprintln!("installing {requirement} into {}", folder.display());
    let uv = uv(&cache)?;
    run(Command::new(&uv)
        .args(["venv", "--quiet", "--clear", "--no-project", "--python"])
        .arg(interpreter(&home)?)
        .arg(&folder))?;
    run(Command::new(&uv)
        .args(["pip", "install", "--quiet", "--python"])
        .arg(&python)
        .arg(requirement)
        .env("UV_PYTHON_DOWNLOADS", "never"))?;
    std::fs::write(&stamp, requirement)?;
    Ok(python)
}

/// uv: on the PATH, or in an environment of its own in the cache.
fn uv(cache: &Path) -> Result<PathBuf> {
    let own = cache.join("uv/venv/bin/uv");
    let works = |uv: &PathBuf| Command::new(uv).arg("--version").output().is_ok_and(|o| o.status.success());
    if let Some(uv) = [PathBuf::from("uv"), own.clone()].into_iter().find(works) {
        return Ok(uv);
    }
    let venv = cache.join("uv/venv");
    run(Command::new(world::interpreter()).args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "uv"]))?;
    Ok(own)
}

/// A Python of the right version that really runs: names on the PATH may be shims that fail.
fn interpreter(home: &Path) -> Result<PathBuf> {
    let (major, minor) = PYTHON;
    let pyenv = std::env::var_os("PYENV_ROOT").map_or_else(|| home.join(".pyenv"), PathBuf::from);
    let installed = std::fs::read_dir(pyenv.join("versions")).into_iter().flatten().flatten();
    let found = [PathBuf::from(format!("python{major}.{minor}"))]
        .into_iter()
        .chain(installed.map(|entry| entry.path().join("bin/python")))
        .find(|python| {
            let ask = "import sys; print(sys.version_info[0], sys.version_info[1])";
            let said = Command::new(python).args(["-I", "-c", ask]).output();
            said.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).trim() == format!("{major} {minor}"))
        });
    let Some(found) = found else { bail!("the peers need Python {major}.{minor}, and none answers here") };
    Ok(found)
}
