//! Taking figures: pinning, medians, rounds in which figure and floor take turns, and what the kernel says of a process.

use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::time::{Duration, Instant};

/// The processor everything is pinned to where wake-ups would decide.
const PINNED_CPU: usize = 0;

/// Figure and floor of the same rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    /// Median of the rounds' figures.
    pub(crate) figure: f64,
    /// Median of the rounds' floors.
    pub(crate) floor: f64,
    /// Median of the rounds' ratios.
    pub(crate) ratio: f64,
}

impl Pair {
    /// Medians of rounds of (figure, floor).
    pub(crate) fn of(rounds: &[(f64, f64)]) -> Self {
        Self {
            figure: median(rounds.iter().map(|(figure, _)| *figure)),
            floor: median(rounds.iter().map(|(_, floor)| *floor)),
            ratio: median(rounds.iter().map(|(figure, floor)| figure / floor)),
        }
    }
}

/// The middle of some figures; NaN of none.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    percentile(figures, 50)
}

/// The figure that this many percent are not above; NaN of none.
pub(crate) fn percentile(figures: impl IntoIterator<Item = f64>, percent: usize) -> f64 {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len().saturating_sub(1) * percent).div_ceil(100);
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// Pins this process and all it starts from now on. Call it before there are threads.
pub(crate) fn pin() -> Result<()> {
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(PINNED_CPU);
    rustix::thread::sched_setaffinity(None, &cpus).context("pin to one processor")
}

/// Microseconds.
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// How long `work` took, in milliseconds.
pub(crate) fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(millis(start.elapsed()))
}

/// Resident memory of a process, in megabytes (10⁶ bytes).
pub(crate) fn resident_mb(pid: i32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read what is resident")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .context("the kernel says nothing of resident memory")?;
    Ok(kib * 1024.0 / 1e6)
}

/// Bytes a process has moved through read and write calls so far, and the largest size it ever had resident.
pub(crate) fn moved_and_peak(pid: i32) -> Result<(f64, f64)> {
    let number = |path: &str, name: &str| -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("a figure is missing")?;
        Ok(line.split_whitespace().next().context("an empty figure")?.parse()?)
    };
    let moved = number("io", "rchar:")? + number("io", "wchar:")?;
    Ok((moved, number("status", "VmHWM:")? * 1024.0))
}

/// Runs a program to its end; it must succeed.
pub(crate) fn run(command: &mut std::process::Command) -> Result<std::process::Output> {
    let output = command.output().with_context(|| format!("{command:?} did not start"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(output)
}

/// A binary beside this one.
pub(crate) fn beside(name: &str) -> Result<std::path::PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    let path = own.parent().unwrap_or(Path::new(".")).join(name);
    if !path.is_file() {
        bail!("{} is missing; run `cargo xtask bench`, which builds it", path.display());
    }
    Ok(path)
}
