//! The bench: measures the product and its floors in the same run and prints one table. `cargo xtask bench` builds and
//! runs it.
//!
//! Each part of the table is measured by a process of its own, so that no part inherits another's threads, memory or
//! affinity. What must hold: the exit code is 1 when a gated row misses, and a part that cannot be measured is an error
//! and never a row less.

mod bare;
mod calls;
mod floor_http;
mod jobs;
mod journal;
mod measure;
mod memory;
mod peers;
mod row;
mod starts;
mod table;
mod world;

use anyhow::{Context as _, Result, bail};
use calls::Effort;
use clap::{Parser, Subcommand, ValueEnum};
use row::{Row, Verdict};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

#[derive(Debug, Parser)]
#[command(name = "cjm-bench", about = "Measures the product against floors of the same run")]
struct Cli {
    #[command(subcommand)]
    inner: Option<Inner>,
    /// Parts to measure; all of them when none is named
    #[arg(long, value_delimiter = ',')]
    rows: Vec<Part>,
    /// Short counts, and no journal of ten million rows
    #[arg(long)]
    short: bool,
    /// Beside ours: the ancestor, two versions of it, and Ray
    #[arg(long)]
    peers: bool,
    /// Print rows as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Inner {
    /// The floor's server (started by the bench itself)
    #[command(hide = true)]
    ServeFloor { socket: PathBuf },
    /// One part of the table, as JSON (started by the bench itself)
    #[command(hide = true)]
    Measure { part: Part },
}

/// The parts of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Warm direct calls, pinned to one core
    Calls,
    /// Warm direct calls, unpinned
    Unpinned,
    /// Large results, pinned to one core
    Payloads,
    /// Starts and ends of workers
    Starts,
    /// Durable jobs
    Jobs,
    /// Rows of the journal, 10⁵ in it
    Journal,
    /// Rows of the journal, 10⁷ in it
    JournalLong,
    /// Resident memory
    Memory,
    /// The ancestor and Ray
    Peers,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.inner {
        Some(Inner::ServeFloor { socket }) => floor_http::serve(socket).map(|()| true),
        Some(Inner::Measure { part }) => measure_part(*part, cli.short).map(|()| true),
        None => run(&cli),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

/// Measures all that was asked for; false when a gated row misses.
fn run(cli: &Cli) -> Result<bool> {
    let mut rows = Vec::new();
    for part in Part::value_variants() {
        let wanted = if cli.rows.is_empty() {
            match part {
                Part::Peers => false,
                Part::JournalLong => !cli.short,
                _ => true,
            }
        } else {
            cli.rows.contains(part)
        };
        if wanted || (cli.peers && *part == Part::Peers) {
            rows.extend(in_process(*part, cli.short)?);
        }
    }
    let mut out = std::io::stdout().lock();
    if cli.json {
        serde_json::to_writer_pretty(&mut out, &rows)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", table::render(&rows))?;
    }
    let missed = rows.iter().filter(|row| row.verdict() == Verdict::Missed).count();
    if missed > 0 {
        eprintln!("{missed} gated row(s) missed");
    }
    Ok(missed == 0)
}

/// Measures one part in a process of its own.
fn in_process(part: Part, short: bool) -> Result<Vec<Row>> {
    let name = part.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let start = Instant::now();
    let mut command = Command::new(std::env::current_exe()?);
    if short {
        command.arg("--short");
    }
    let output = command
        .args(["measure", &name])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("measure {name}"))?;
    if !output.status.success() {
        bail!("{name} could not be measured ({})", output.status);
    }
    eprintln!("{name}: {:.1} s", start.elapsed().as_secs_f64());
    serde_json::from_slice(&output.stdout).with_context(|| format!("the rows of {name}"))
}

fn measure_part(part: Part, short: bool) -> Result<()> {
    let effort = |rounds, calls| {
        if short { Effort { rounds: 5, calls: calls / 4 } } else { Effort { rounds, calls } }
    };
    let rounds = |long: usize| if short { 3 } else { long };
    let rows = match part {
        Part::Calls => {
            measure::pin()?;
            calls::warm(true, effort(31, 1000))?
        }
        Part::Unpinned => calls::warm(false, effort(15, 1000))?,
        Part::Payloads => {
            // Else it is decided by chance, for the floor too, whether peers share a processor's cache: 180 or 480 µs.
            measure::pin()?;
            calls::payloads(Effort { calls: 100, rounds: rounds(11) })?
        }
        Part::Starts => starts::rows(rounds(15))?,
        Part::Jobs => jobs::rows(rounds(5), if short { 2_000 } else { 20_000 })?,
        Part::Journal => journal::rows(rounds(6), 100_000, "10⁵")?,
        Part::JournalLong => journal::rows(rounds(6), 10_000_000, "10⁷")?,
        Part::Memory => memory::rows()?,
        Part::Peers => peers::rows(short)?,
    };
    serde_json::to_writer(std::io::stdout().lock(), &rows)?;
    Ok(())
}
