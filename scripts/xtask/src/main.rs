//! Tasks of developers: `cargo xtask TASK`. It starts cargo and scripts and reads nothing of the product.
//!
//! What must hold: a task ends with a code other than 0 if anything it ran did, and names it.

mod bench;
mod mutants;
mod steps;

use crate::steps::{cargo, root, step};
use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::{Command, ExitCode};

/// Rounds of a soak when none are asked for.
const ROUNDS_DEFAULT: u32 = 50;
/// Most rounds: a mistyped number should not run for a week.
const ROUNDS_MAX: u32 = 100_000;
/// Seconds of fuzzing for each target when none are asked for.
const FUZZ_SECONDS_DEFAULT: u32 = 600;
/// Most of them: a week.
const FUZZ_SECONDS_MAX: u32 = 7 * 24 * 3600;

#[derive(Debug, Parser)]
#[command(name = "xtask", about = "Tasks of developers")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// What should be green before a push: format, lints, tidy, unit tests
    Prepush,
    /// Measures the product against floors of the same run, and fails where a gated row misses
    Bench(bench::Bench),
    /// Plants known faults one at a time, in a copy of the tree, and fails where no test finds one
    Mutants {
        /// Only faults whose name or file contains one of these texts; all when none is given
        names: Vec<String>,
    },
    /// Long runs of short tests
    Soak {
        #[command(subcommand)]
        what: Soak,
    },
}

#[derive(Debug, Subcommand)]
enum Soak {
    /// The kill journey: every victim and every kind of tool, again and again on one data directory
    Kill {
        /// Rounds of each case
        #[arg(long, default_value_t = ROUNDS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(ROUNDS_MAX)))]
        count: u32,
    },
    /// Fuzzing: `scripts/fuzz`, for longer
    Fuzz {
        /// Seconds for each target
        #[arg(long, default_value_t = FUZZ_SECONDS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(FUZZ_SECONDS_MAX)))]
        seconds: u32,
        /// Which; all when none is named
        targets: Vec<String>,
    },
}

fn main() -> Result<ExitCode> {
    match Cli::parse().task {
        Task::Prepush => prepush(),
        // What missed is in the table; there is nothing to add.
        Task::Bench(asked) => match bench::bench(&asked)? {
            true => Ok(()),
            false => return Ok(ExitCode::FAILURE),
        },
        Task::Mutants { names } => match mutants::mutants(&names)? {
            true => Ok(()),
            false => return Ok(ExitCode::FAILURE),
        },
        Task::Soak { what: Soak::Kill { count } } => soak_kill(count),
        Task::Soak { what: Soak::Fuzz { seconds, targets } } => soak_fuzz(seconds, &targets),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn prepush() -> Result<()> {
    step("format", cargo().args(["fmt", "--all", "--check"]))?;
    step(
        "lints",
        cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )?;
    // The binaries, which tests start and cargo would not build for them.
    step("build", cargo().args(["build", "--quiet", "--workspace"]))?;
    step("tidy", cargo().args(["test", "--quiet", "--package", "cjm-tests", "--test", "tidy"]))?;
    step("tests", cargo().args(["test", "--quiet", "--workspace", "--lib", "--bins"]))
}

fn soak_kill(count: u32) -> Result<()> {
    step("build", cargo().args(["build", "--quiet", "--workspace"]))?;
    let mut command = cargo();
    command.args(["test", "--quiet", "--package", "cjm-tests", "--test", "kill"]);
    command.env("CJM_SOAK_ROUNDS", count.to_string());
    step(&format!("{count} rounds of each kill"), &mut command)
}

fn soak_fuzz(seconds: u32, targets: &[String]) -> Result<()> {
    let mut command = Command::new(root().join("scripts/fuzz"));
    command.arg("--seconds").arg(seconds.to_string()).args(targets);
    step(&format!("{seconds} s of fuzzing each"), &mut command)
}
