//! Samples as they are answered: figures of the kernel under the names of the wire, rounded.
//!
//! MB are 2^20 bytes, as everywhere on the wire.

use crate::gpu;
use cjm_platform::Pid;
use cjm_platform::usage::{self, MachineSample, ProcessUsage};
use serde::Serialize;
use std::io;

const MB: f64 = 1_048_576.0;

/// The machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SystemStatus {
    pub(crate) gpu_free_memory_mb: f64,
    pub(crate) gpu_total_memory_mb: f64,
    pub(crate) gpu_type: &'static str,
    pub(crate) gpu_load_percent: Option<f64>,
    pub(crate) memory_available_mb: f64,
    pub(crate) memory_total_mb: f64,
    pub(crate) swap_free_mb: f64,
    pub(crate) cpu_count: usize,
    /// Of all processors together, since the previous question of the same asker, 0 to 100.
    pub(crate) cpu_percent: f64,
    pub(crate) load_average: [f64; 3],
}

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ProcessRow {
    pub(crate) pid: i32,
    pub(crate) ppid: i32,
    pub(crate) gpu_memory_mb: f64,
    pub(crate) gpu_index: Option<u32>,
    pub(crate) cpu_seconds: f64,
    pub(crate) memory_rss_mb: f64,
    pub(crate) threads: u64,
    /// The program's name; arguments may hold secrets.
    pub(crate) command: String,
}

/// One process in a stream, where every byte counts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TreeRow {
    pub(crate) pid: i32,
    pub(crate) ppid: i32,
    pub(crate) cpu_seconds: f64,
    pub(crate) memory_rss_mb: f64,
}

/// Measures how busy the processors were between two questions.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    busy_seconds: f64,
    total_seconds: f64,
    percent: f64,
}

impl CpuMeter {
    /// Begins to measure.
    pub(crate) fn start() -> io::Result<Self> {
        let machine = usage::sample_machine()?;
        Ok(Self {
            busy_seconds: machine.cpu_busy_seconds,
            total_seconds: machine.cpu_total_seconds,
            percent: 0.0,
        })
    }

    fn percent(&mut self, machine: &MachineSample) -> f64 {
        let total = machine.cpu_total_seconds - self.total_seconds;
        // The kernel counts in hundredths of a second: within one, the last answer is the best there is.
        if total > 0.0 {
            let busy = machine.cpu_busy_seconds - self.busy_seconds;
            self.percent = (100.0 * busy / total).clamp(0.0, 100.0);
            self.busy_seconds = machine.cpu_busy_seconds;
            self.total_seconds = machine.cpu_total_seconds;
        }
        self.percent
    }
}

/// The machine now.
pub(crate) fn system(meter: &mut CpuMeter) -> io::Result<SystemStatus> {
    let machine = usage::sample_machine()?;
    let gpu = gpu::sample();
    Ok(SystemStatus {
        gpu_free_memory_mb: gpu.free_memory_mb,
        gpu_total_memory_mb: gpu.total_memory_mb,
        gpu_type: gpu.kind,
        gpu_load_percent: gpu.load_percent,
        memory_available_mb: megabytes(machine.memory_available_bytes),
        memory_total_mb: megabytes(machine.memory_total_bytes),
        swap_free_mb: megabytes(machine.swap_free_bytes),
        cpu_count: machine.cpu_count,
        cpu_percent: rounded(meter.percent(&machine), 10.0),
        load_average: machine.load_averages,
    })
}

/// Every process of the machine that we can see.
pub(crate) fn processes() -> io::Result<Vec<ProcessRow>> {
    let row = |usage: ProcessUsage| {
        let pid = usage.pid.as_raw();
        let gpu = gpu::share_of(pid.unsigned_abs());
        let command = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        ProcessRow {
            pid,
            ppid: usage.ppid,
            gpu_memory_mb: gpu.memory_mb,
            gpu_index: gpu.index,
            cpu_seconds: usage.cpu_seconds,
            memory_rss_mb: megabytes(usage.rss_bytes),
            threads: usage.threads,
            command: String::from_utf8_lossy(&command).trim_end().to_owned(),
        }
    };
    Ok(usage::sample_each()?.into_iter().map(row).collect())
}

/// The descendants of `root`, itself not.
pub(crate) fn tree(root: Pid) -> io::Result<Vec<TreeRow>> {
    let row = |usage: ProcessUsage| TreeRow {
        pid: usage.pid.as_raw(),
        ppid: usage.ppid,
        cpu_seconds: usage.cpu_seconds,
        memory_rss_mb: megabytes(usage.rss_bytes),
    };
    Ok(usage::sample_each_below(root)?.into_iter().map(row).collect())
}

fn megabytes(bytes: u64) -> f64 {
    rounded(bytes as f64 / MB, 100.0)
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_answers_with_the_keys_hosts_read() {
        let mut meter = CpuMeter::start().unwrap();
        let status = serde_json::to_value(system(&mut meter).unwrap()).unwrap();
        for key in [
            "gpu_free_memory_mb",
            "gpu_total_memory_mb",
            "memory_available_mb",
            "memory_total_mb",
            "cpu_percent",
        ] {
            assert!(status[key].is_number(), "{key}: {status}");
        }
        assert_eq!(
            (&status["gpu_type"], &status["gpu_load_percent"]),
            (&"none".into(), &serde_json::Value::Null)
        );
        assert!(status["memory_available_mb"].as_f64() <= status["memory_total_mb"].as_f64());
        assert!(status["cpu_count"].as_u64() >= Some(1));
        assert_eq!(status["load_average"].as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn the_meter_measures_between_questions() {
        let machine = |busy, total| MachineSample {
            memory_total_bytes: 1,
            memory_available_bytes: 1,
            swap_total_bytes: 0,
            swap_free_bytes: 0,
            load_averages: [0.0; 3],
            cpu_count: 1,
            cpu_busy_seconds: busy,
            cpu_total_seconds: total,
        };
        let mut meter = CpuMeter { busy_seconds: 10.0, total_seconds: 100.0, percent: 0.0 };
        assert_eq!(meter.percent(&machine(11.0, 104.0)), 25.0);
        assert_eq!(meter.percent(&machine(11.0, 104.0)), 25.0);
        assert_eq!(meter.percent(&machine(13.0, 106.0)), 100.0);
    }

    #[test]
    fn processes_and_trees_show_a_child_and_not_the_root() {
        let mut child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let (own, pid) = (Pid::current(), child.id().cast_signed());
        let rows = processes().unwrap();
        let below = tree(own).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let row = rows.iter().find(|row| row.pid == pid).unwrap();
        assert_eq!((row.ppid, row.gpu_memory_mb, row.gpu_index), (own.as_raw(), 0.0, None));
        assert!(
            below.iter().any(|row| row.pid == pid && row.ppid == own.as_raw() && row.memory_rss_mb > 0.0)
        );
        assert!(below.iter().all(|row| row.pid != own.as_raw()));
    }
}
