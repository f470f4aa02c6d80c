//! Process trees: who descends from whom, and the reaping of what fell to this process.
//!
//! It spawns nothing and knows nothing of workers. Parentage cannot be forged: sessions, groups, double forks and
//! environments play no role in it. `clear` ends a tree to the last process.

mod clear;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::proc_stat::{self, Stat};
use crate::process::{self, ChildPeek, Pid, WaitStatus};

pub use clear::{Clear, ClearReport, Clearing, Doomed, Look, Sweep, kill_descendants};

/// How many zombies one sweep takes at most.
const SWEEP_MAX: usize = 4096;

/// What `/proc` says of one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessInfo {
    /// Its id.
    pub pid: Pid,
    /// Its parent's id; 0 for one outside our pid namespace.
    pub ppid: i32,
    /// Its process group.
    pub pgid: i32,
    /// Its session.
    pub sid: i32,
    /// R, S, D, T, t, Z, X or I, as in proc(5). Z may still have threads that run.
    pub state: char,
    /// When it started, in clock ticks since boot; with the pid it names one process for good.
    pub start_ticks: u64,
}

impl ProcessInfo {
    fn from_stat(stat: &Stat) -> Option<Self> {
        Some(Self {
            pid: Pid::from_raw(stat.pid)?,
            ppid: stat.ppid,
            pgid: stat.pgid,
            sid: stat.sid,
            state: stat.state,
            start_ticks: stat.start_ticks,
        })
    }
}

/// What `/proc` says of `pid`, or None if it is gone.
pub fn process_info(pid: Pid) -> Option<ProcessInfo> {
    ProcessInfo::from_stat(&proc_stat::read(pid.as_raw())?)
}

/// How the zombie `pid` ended; None if it lives, is gone, or is hidden from us. For those who are not its parent.
pub fn zombie_status(pid: Pid) -> Option<WaitStatus> {
    let stat = proc_stat::read(pid.as_raw()).filter(|stat| stat.state == 'Z')?;
    let signal = stat.exit_code & 0x7f;
    Some(match signal {
        0 => WaitStatus::Exited { code: (stat.exit_code >> 8) & 0xff },
        _ => WaitStatus::Signaled { signal, core_dumped: stat.exit_code & 0x80 != 0 },
    })
}

/// `PF_EXITING` of the kernel: set before a process that ends closes its first file.
const EXITING: u32 = 0x4;

/// Whether `pid` is on its way out, or has ended and is not reaped yet. Its files may be closed some time before its end
/// can be waited for, where processors are busy.
pub fn is_exiting(pid: Pid) -> bool {
    proc_stat::read(pid.as_raw()).is_some_and(|stat| stat.flags & EXITING != 0)
}

/// Whether `pid` stands still, by a signal or under a debugger, with all threads that it has left: the first one may have
/// ended before the others.
pub fn is_stopped(pid: Pid) -> bool {
    let mut states = proc_stat::thread_states(pid.as_raw()).unwrap_or_default();
    states.retain(|state| !matches!(state, 'Z' | 'X'));
    !states.is_empty() && states.iter().all(|state| matches!(state, 'T' | 't'))
}

/// All processes of this pid namespace. Not one instant's picture: what starts or ends meanwhile may be
/// missing. An error where one of them cannot be read: it is not one that is gone.
pub fn processes() -> io::Result<Vec<ProcessInfo>> {
    let mut all = Vec::new();
    for pid in proc_stat::pids()? {
        all.extend(proc_stat::try_read(pid)?.and_then(|stat| ProcessInfo::from_stat(&stat)));
    }
    Ok(all)
}

/// The descendants of `root`, zombies included, `root` itself not. Orphans count only while they hang below
/// `root`, so it should be a subreaper.
pub fn descendants(root: Pid) -> io::Result<Vec<ProcessInfo>> {
    Ok(descendants_among(root, &processes()?))
}

/// The same among processes that were looked at already, for those who ask about several roots.
pub fn descendants_among(root: Pid, all: &[ProcessInfo]) -> Vec<ProcessInfo> {
    let parents: Vec<(i32, i32)> = all.iter().map(|info| (info.pid.as_raw(), info.ppid)).collect();
    let below = below(root.as_raw(), &parents);
    all.iter().filter(|info| below.contains(&info.pid.as_raw())).copied().collect()
}

/// The members of `(pid, parent)` pairs below `root`.
pub(crate) fn below(root: i32, parents: &[(i32, i32)]) -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (pid, parent) in parents {
        children.entry(*parent).or_default().push(*pid);
    }
    let mut found = BTreeSet::new();
    let mut open = vec![root];
    while let Some(next) = open.pop() {
        for child in children.get(&next).into_iter().flatten() {
            if *child != root && found.insert(*child) {
                open.push(*child);
            }
        }
    }
    found
}

/// Takes the exit statuses of children that were not spawned here but fell to us as a subreaper: all zombie
/// children except `keep`. Returns how many. The caller names in `keep` every child it spawned itself.
pub fn reap_adopted(keep: &[Pid]) -> io::Result<usize> {
    let mut reaped = 0;
    while reaped < SWEEP_MAX {
        match process::peek_any_exit()? {
            ChildPeek::NoChildren | ChildPeek::NoneExited => return Ok(reaped),
            // The kernel keeps naming this one, so the others are asked after one by one.
            ChildPeek::Exited(pid) if keep.contains(&pid) => return Ok(reaped + reap_each(keep)?),
            ChildPeek::Exited(pid) => {
                process::reap(pid)?;
                reaped += 1;
            }
        }
    }
    Ok(reaped)
}

/// Asks after each child that is not to be kept.
fn reap_each(keep: &[Pid]) -> io::Result<usize> {
    let keep: BTreeSet<i32> = keep.iter().map(|pid| pid.as_raw()).collect();
    let mut reaped = 0;
    for pid in own_children()?.into_iter().filter(|pid| !keep.contains(&pid.as_raw())) {
        // ECHILD: another thread has reaped it, or, found by a scan, it is none of ours any more.
        if matches!(process::reap(pid), Ok(Some(_))) {
            reaped += 1;
        }
    }
    Ok(reaped)
}

/// The children of this process: from the kernel's own list, or, where it keeps none, from a scan of all processes.
fn own_children() -> io::Result<Vec<Pid>> {
    let own = Pid::current();
    if Look::best() == Look::Children {
        let listed = proc_stat::children(own.as_raw())?;
        return Ok(listed.pids.into_iter().filter_map(Pid::from_raw).collect());
    }
    let all = processes()?.into_iter().filter(|info| info.ppid == own.as_raw());
    Ok(all.map(|info| info.pid).collect())
}
