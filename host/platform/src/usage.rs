//! What processes and the machine use right now, read from `/proc`.
//!
//! Samples only: no history, no thread, no opinion. What must hold: a process that ends during the sample is
//! left out, not an error; figures of a tree come from one walk.

use std::collections::BTreeMap;
use std::io;

use crate::proc_stat::{self, Stat};
use crate::process::Pid;
use crate::tree;

/// What a set of processes uses.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct UsageSample {
    /// The processes found, ascending.
    pub pids: Vec<Pid>,
    /// Processor time used so far by them and the children they have reaped, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory in bytes; pages shared between them count for each.
    pub rss_bytes: u64,
    /// How many threads they have.
    pub threads: u64,
}

/// Samples `root` and all its descendants; empty if `root` is gone.
pub fn sample_tree(root: Pid) -> io::Result<UsageSample> {
    Ok(sample_trees(&[root])?.pop().unwrap_or_default())
}

/// Samples several trees in one walk, in the order of `roots`.
pub fn sample_trees(roots: &[Pid]) -> io::Result<Vec<UsageSample>> {
    let stats: BTreeMap<i32, Stat> =
        proc_stat::pids()?.filter_map(proc_stat::read).map(|stat| (stat.pid, stat)).collect();
    let parents: Vec<(i32, i32)> = stats.values().map(|stat| (stat.pid, stat.ppid)).collect();
    let sample = |root: &Pid| {
        let mut members = tree::below(root.as_raw(), &parents);
        members.insert(root.as_raw());
        sum(members.iter().filter_map(|pid| stats.get(pid)))
    };
    Ok(roots.iter().map(sample).collect())
}

/// How many processes the kernel has killed for lack of memory since it booted (`oom_kill` in `/proc/vmstat`); `None` where
/// it does not say.
#[must_use]
pub fn oom_kills() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// Samples exactly these processes.
pub fn sample_processes(pids: &[Pid]) -> UsageSample {
    let stats: Vec<Stat> = pids.iter().filter_map(|pid| proc_stat::read(pid.as_raw())).collect();
    sum(stats.iter())
}

/// What one process uses.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ProcessUsage {
    /// Its id.
    pub pid: Pid,
    /// Its parent's id; 0 for one outside our pid namespace.
    pub ppid: i32,
    /// Processor time used so far by it and the children it has reaped, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// How many threads it has.
    pub threads: u64,
}

/// Samples every process of this pid namespace, each for itself, in one walk.
pub fn sample_each() -> io::Result<Vec<ProcessUsage>> {
    Ok(proc_stat::pids()?.filter_map(proc_stat::read).filter_map(|stat| usage_of(&stat)).collect())
}

/// Samples the descendants of `root`, each for itself, `root` itself not, in one walk.
pub fn sample_each_below(root: Pid) -> io::Result<Vec<ProcessUsage>> {
    let all = sample_each()?;
    let parents: Vec<(i32, i32)> = all.iter().map(|usage| (usage.pid.as_raw(), usage.ppid)).collect();
    let below = tree::below(root.as_raw(), &parents);
    Ok(all.into_iter().filter(|usage| below.contains(&usage.pid.as_raw())).collect())
}

/// What the machine has and uses.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MachineSample {
    /// All memory in bytes.
    pub memory_total_bytes: u64,
    /// What could be given to a new program without swapping, as the kernel estimates it.
    pub memory_available_bytes: u64,
    /// All swap space in bytes.
    pub swap_total_bytes: u64,
    /// Unused swap space in bytes.
    pub swap_free_bytes: u64,
    /// Runnable and blocked processes, averaged over 1, 5 and 15 minutes.
    pub load_averages: [f64; 3],
    /// Processors this process may run on.
    pub cpu_count: usize,
    /// Processor time of all processors since boot that was not idle, in seconds.
    pub cpu_busy_seconds: f64,
    /// Processor time of all processors since boot, in seconds.
    pub cpu_total_seconds: f64,
}

/// Samples the machine.
pub fn sample_machine() -> io::Result<MachineSample> {
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kib = |name: &str| meminfo_kib(&memory, name).map(|kib| kib * 1024);
    let missing = |name: &str| io::Error::other(format!("/proc/meminfo has no {name}"));
    let (busy, total) = cpu_ticks(&std::fs::read_to_string("/proc/stat")?);
    Ok(MachineSample {
        memory_total_bytes: kib("MemTotal").ok_or_else(|| missing("MemTotal"))?,
        memory_available_bytes: kib("MemAvailable").ok_or_else(|| missing("MemAvailable"))?,
        swap_total_bytes: kib("SwapTotal").unwrap_or(0),
        swap_free_bytes: kib("SwapFree").unwrap_or(0),
        load_averages: load_averages(&std::fs::read_to_string("/proc/loadavg")?),
        cpu_count: std::thread::available_parallelism().map_or(1, usize::from),
        cpu_busy_seconds: busy as f64 / ticks_per_second(),
        cpu_total_seconds: total as f64 / ticks_per_second(),
    })
}

fn sum<'a>(stats: impl Iterator<Item = &'a Stat>) -> UsageSample {
    let page_bytes = rustix::param::page_size() as u64;
    let mut sample = UsageSample::default();
    let mut ticks = 0;
    for stat in stats {
        sample.pids.extend(Pid::from_raw(stat.pid));
        sample.rss_bytes += stat.rss_pages * page_bytes;
        sample.threads += stat.threads;
        ticks += stat.cpu_ticks;
    }
    sample.cpu_seconds = ticks as f64 / ticks_per_second();
    sample
}

fn usage_of(stat: &Stat) -> Option<ProcessUsage> {
    Some(ProcessUsage {
        pid: Pid::from_raw(stat.pid)?,
        ppid: stat.ppid,
        cpu_seconds: stat.cpu_ticks as f64 / ticks_per_second(),
        rss_bytes: stat.rss_pages * rustix::param::page_size() as u64,
        threads: stat.threads,
    })
}

fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

fn meminfo_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn load_averages(text: &str) -> [f64; 3] {
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0.0));
    std::array::from_fn(|_| fields.next().unwrap_or(0.0))
}

/// Busy and all ticks from the first line of `/proc/stat`. Guest time is already part of user time.
fn cpu_ticks(text: &str) -> (u64, u64) {
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> =
        line.split_ascii_whitespace().skip(1).take(8).map(|field| field.parse().unwrap_or(0)).collect();
    let total: u64 = fields.iter().sum();
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    (total - idle, total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::process::Stdio;

    #[test]
    fn kernel_texts_are_read() {
        let memory = "MemTotal:       16384 kB\nMemAvailable:    8192 kB\nSwapTotal: 0 kB\n";
        assert_eq!(meminfo_kib(memory, "MemAvailable"), Some(8192));
        assert_eq!(meminfo_kib(memory, "Mem"), None);
        assert_eq!(load_averages("0.50 1.25 2.00 1/300 4711\n"), [0.5, 1.25, 2.0]);
        assert_eq!(cpu_ticks("cpu  10 20 30 400 50 6 7 8 90 100\ncpu0 1\n"), (81, 531));
    }

    #[test]
    fn the_machine_answers() {
        let machine = sample_machine().unwrap();
        assert!(machine.memory_available_bytes <= machine.memory_total_bytes);
        assert!(machine.memory_available_bytes > 0);
        assert!(machine.cpu_count > 0);
        assert!(machine.cpu_busy_seconds <= machine.cpu_total_seconds);
    }

    #[test]
    fn a_tree_sums_its_members_and_a_dead_one_is_empty() {
        let own = Pid::current();
        // It has said a word: one that has only been started may have no memory yet.
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", "echo up; read over"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let mut word = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
        let child_pid = Pid::from_raw(child.id() as i32).unwrap();
        let tree = sample_tree(own).unwrap();
        assert!(tree.pids.contains(&own) && tree.pids.contains(&child_pid));
        let single = sample_processes(&[child_pid]);
        assert_eq!(single.pids, [child_pid]);
        assert!(tree.rss_bytes >= single.rss_bytes);
        let below = sample_each_below(own).unwrap();
        let each = below.iter().find(|usage| usage.pid == child_pid).unwrap();
        assert_eq!((each.ppid, each.threads), (own.as_raw(), 1));
        assert!(each.rss_bytes > 0);
        assert!(below.iter().all(|usage| usage.pid != own));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(sample_tree(child_pid).unwrap(), UsageSample::default());
    }
}
