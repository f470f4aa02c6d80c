//! `cargo xtask bench`: builds the bench and what it measures, optimised, and runs it. What is measured and what gates
//! is the bench's own (`tests/bench`).

use crate::steps::{cargo, step, target_folder};
use anyhow::{Context as _, Result, bail};
use clap::Args;

/// What is passed on to the bench.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Parts to measure, separated by commas: calls, unpinned, payloads, starts, jobs, journal, journal-long, memory
    #[arg(long)]
    rows: Option<String>,
    /// Short counts, as CI runs them
    #[arg(long)]
    short: bool,
    /// Beside ours: the ancestor, two versions of it, and Ray, installed from PyPI
    #[arg(long)]
    peers: bool,
    /// Print rows as JSON
    #[arg(long)]
    json: bool,
}

/// Builds and runs it; false when a gated row misses, which the bench has said.
pub(crate) fn bench(asked: &Bench) -> Result<bool> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--release", "--package", "cjm-bench", "--package", "cjm-worker"]);
    step("build", &mut build)?;
    let mut command = std::process::Command::new(target_folder().join("release/cjm-bench"));
    if let Some(rows) = &asked.rows {
        command.args(["--rows", rows]);
    }
    for (flag, set) in [("--short", asked.short), ("--peers", asked.peers), ("--json", asked.json)] {
        if set {
            command.arg(flag);
        }
    }
    let status = command.status().with_context(|| format!("{command:?} did not start"))?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("the bench failed ({status})"),
    }
}
