//! What is resident: a program that embeds the host and has loaded nothing, its keeper, and a shim.

use crate::calls::worker_pid;
use crate::measure::{beside, resident_mb};
use crate::row::{Goal, Row, Unit};
use crate::world::{self, World};
use anyhow::{Context as _, Result, ensure};
use cjm_platform::process::Pid;
use cjm_platform::tree;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const HOST_MB: f64 = 15.0;
const KEEPER_MB: f64 = 3.0;
const SHIM_MB: f64 = 5.0;

/// Rows of memory.
pub(crate) fn rows() -> Result<Vec<Row>> {
    let (host, keeper) = embedder()?;
    let max = |what: &str, figure, max| Row::alone(what, figure, Unit::Megabytes, Goal::Max(max));
    let mut rows = vec![
        max("resident: host program with nothing loaded", host, HOST_MB),
        max("resident: keeper", keeper, KEEPER_MB),
    ];
    rows.extend(workers()?);
    Ok(rows)
}

/// Host program and keeper, in megabytes.
fn embedder() -> Result<(f64, f64)> {
    let world = World::new()?;
    let mut child = Command::new(beside("cjm-bench-embedder")?)
        .arg(world.data_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the embedding program")?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
    ensure!(line == "ready\n", "the embedding program said {line:?}");
    let pid = i32::try_from(child.id())?;
    let below = tree::descendants(Pid::from_raw(pid).context("a process id")?)?;
    ensure!(below.len() == 1, "{} processes where the keeper alone should be", below.len());
    let figures = (resident_mb(pid)?, resident_mb(below[0].pid.as_raw())?);
    drop(child.stdin.take());
    ensure!(child.wait()?.success(), "the embedding program ended badly");
    Ok(figures)
}

#[tokio::main]
async fn workers() -> Result<Vec<Row>> {
    let world = World::new()?;
    let host = world.host().await?;
    let mut rows = Vec::new();
    for (what, capability, goal) in [
        ("resident: shim of a Python tool", world::PYTHON, Goal::Max(SHIM_MB)),
        ("resident: shim of an executable", world::EXECUTABLE, Goal::Max(SHIM_MB)),
        ("resident: capability in Rust, surface and tool", world::RUST, Goal::Shown),
    ] {
        let id = world::load(&host, capability, capability).await?;
        rows.push(Row::alone(what, resident_mb(worker_pid(&host, &id).await?)?, Unit::Megabytes, goal));
    }
    host.shutdown().await;
    Ok(rows)
}
