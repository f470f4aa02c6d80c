//! Process trees: who descends from whom, and how a tree is cleared to the last process.
//!
//! It spawns nothing and knows nothing of workers. A tree is cleared by killing what a walk over `/proc`
//! finds, again and again, while it walks: a process that forked just before its SIGKILL leaves an orphan,
//! which falls to us if we are a subreaper and is found by the next pass. Sessions, groups, double forks and
//! environments play no role, since parentage cannot be forged.
//!
//! What must hold: no signal goes to a process that is not a descendant of the root, nor to a spared one
//! or its descendants; each target is verified by its start time behind a pidfd, so that a number reused
//! between the look and the kill is not hit. `Clear::run` ends only when nothing is left or its limit passed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use crate::proc_stat::{self, Stat};
use crate::process::{self, ChildPeek, Pid, PidFd, Signal};

/// How many exiting processes a pass waits for at most; the next pass finds the others.
const AWAITED_MAX: usize = 64;
/// How long a pass waits at most for one of them before it looks again.
const EXIT_WAIT: Duration = Duration::from_millis(1);
/// From this pass on whole process groups are killed at once, which a forking group cannot outrun.
const GROUP_PASS_MIN: u32 = 2;
/// Where the kernel cannot say "no descendants", this many passes in a row must find nothing.
const QUIET_PASSES: u32 = 2;
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

/// All processes of this pid namespace. Not one instant's picture: what starts or ends meanwhile may be
/// missing.
pub fn processes() -> io::Result<Vec<ProcessInfo>> {
    Ok(proc_stat::pids()?
        .filter_map(proc_stat::read)
        .filter_map(|stat| ProcessInfo::from_stat(&stat))
        .collect())
}

/// The descendants of `root`, zombies included, `root` itself not. Orphans count only while they hang below
/// `root`, so it should be a subreaper.
pub fn descendants(root: Pid) -> io::Result<Vec<ProcessInfo>> {
    let all = processes()?;
    let parents: Vec<(i32, i32)> = all.iter().map(|info| (info.pid.as_raw(), info.ppid)).collect();
    let below = below(root.as_raw(), &parents);
    Ok(all.into_iter().filter(|info| below.contains(&info.pid.as_raw())).collect())
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

/// What clearing a tree did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClearReport {
    /// How many living processes got SIGKILL.
    pub killed: u32,
    /// Whether nothing is left. False with no survivors named: something lives that `/proc` does not show us.
    pub complete: bool,
    /// What was still there when the limit passed.
    pub survivors: Vec<ProcessInfo>,
    /// How many walks it took.
    pub passes: u32,
    /// How long it took.
    pub elapsed: Duration,
}

/// Clears all descendants of this process. For the end of a shim, and of a keeper: SIGKILL, reap, look again,
/// until the kernel says that no child is left. `spare`d processes and what descends from them live on.
pub fn kill_descendants(spare: &[Pid], limit: Duration) -> io::Result<ClearReport> {
    Clear { spare, ..Clear::own(limit) }.run()
}

/// Which tree to clear, and what to leave.
#[derive(Clone, Copy, Debug)]
pub struct Clear<'a> {
    /// Its descendants are killed, it itself is not. Only this process' own can also be reaped; of another
    /// root, orphans are missed unless it is a subreaper.
    pub root: Pid,
    /// Neither these, nor their descendants, nor an orphan in a session that one of these leads is touched.
    pub spare: &'a [Pid],
    /// Children of ours that are killed but left as zombies, so that their status can be read afterwards.
    pub keep_zombies: &'a [Pid],
    /// Longest time to go on.
    pub limit: Duration,
}

impl Clear<'static> {
    /// All descendants of this process, all reaped.
    pub fn own(limit: Duration) -> Self {
        Self { root: Pid::current(), spare: &[], keep_zombies: &[], limit }
    }
}

impl Clear<'_> {
    /// Clears the tree. Blocks the calling thread for at most about `limit`.
    pub fn run(&self) -> io::Result<ClearReport> {
        let start = Instant::now();
        let own_root = self.root == Pid::current();
        let exact = own_root && self.spare.is_empty() && self.keep_zombies.is_empty();
        let mut state = ClearState::new(self);
        let mut quiet = 0;
        loop {
            if exact && process::peek_any_exit()? == ChildPeek::NoChildren {
                return Ok(state.report(start, Left::Nothing));
            }
            let found = state.pass()?;
            let left: Vec<ProcessInfo> = found.into_iter().filter(|info| !self.is_done(info)).collect();
            if left.is_empty() && !exact {
                quiet += 1;
                if quiet >= QUIET_PASSES {
                    return Ok(state.report(start, Left::Nothing));
                }
                continue;
            }
            quiet = 0;
            if start.elapsed() >= self.limit {
                return Ok(state.report(start, Left::Survivors(left)));
            }
            state.wait_for_an_exit()?;
        }
    }

    /// Whether a found process needs no more from us: reaped, kept on purpose, or a zombie of somebody else's.
    fn is_done(&self, info: &ProcessInfo) -> bool {
        if info.ppid != Pid::current().as_raw() {
            // Its parent either dies in this clearing, and it falls to us, or is the foreign root.
            return self.root != Pid::current() && info.state == 'Z' && info.ppid == self.root.as_raw();
        }
        if self.keep_zombies.contains(&info.pid) {
            return !matches!(process::peek_exit(info.pid), Ok(None));
        }
        // ECHILD: already reaped.
        !matches!(process::reap(info.pid), Ok(None))
    }
}

/// Takes the exit statuses of children that were not spawned here but fell to us as a subreaper: all zombie
/// children except `keep`. Returns how many. The caller names in `keep` every child it spawned itself.
pub fn reap_adopted(keep: &[Pid]) -> io::Result<usize> {
    let mut reaped = 0;
    while reaped < SWEEP_MAX {
        match process::peek_any_exit()? {
            ChildPeek::NoChildren | ChildPeek::NoneExited => return Ok(reaped),
            // The kernel keeps naming this one, so others have to be found by a walk.
            ChildPeek::Exited(pid) if keep.contains(&pid) => return Ok(reaped + reap_by_walk(keep)?),
            ChildPeek::Exited(pid) => {
                process::reap(pid)?;
                reaped += 1;
            }
        }
    }
    Ok(reaped)
}

fn reap_by_walk(keep: &[Pid]) -> io::Result<usize> {
    let own = Pid::current().as_raw();
    let mut reaped = 0;
    for info in processes()? {
        if info.ppid == own
            && info.state == 'Z'
            && !keep.contains(&info.pid)
            && process::reap(info.pid)?.is_some()
        {
            reaped += 1;
        }
    }
    Ok(reaped)
}

/// What one clearing remembers from pass to pass.
struct ClearState<'a> {
    clear: &'a Clear<'a>,
    spare: BTreeSet<i32>,
    /// Groups that hold the root or a spared process and so must not be killed as a whole.
    spared_groups: BTreeSet<i32>,
    root_sid: i32,
    /// Start time by pid of everything that got its SIGKILL.
    struck: BTreeMap<i32, u64>,
    awaited: Vec<PidFd>,
    killed: u32,
    passes: u32,
}

/// How a clearing ended.
enum Left {
    Nothing,
    Survivors(Vec<ProcessInfo>),
}

/// Who is what in one walk.
#[derive(Default)]
struct Walk {
    doomed: BTreeMap<i32, ProcessInfo>,
    spared: BTreeSet<i32>,
    /// Seen before their parents, as happens once pid numbers have wrapped around.
    unplaced: Vec<ProcessInfo>,
    /// Doomed children of the root, struck when all below them have been.
    children: Vec<ProcessInfo>,
}

impl<'a> ClearState<'a> {
    fn new(clear: &'a Clear<'a>) -> Self {
        let spare: BTreeSet<i32> = clear.spare.iter().map(|pid| pid.as_raw()).collect();
        let root = proc_stat::read(clear.root.as_raw());
        let spared_groups = spare
            .iter()
            .filter_map(|pid| proc_stat::read(*pid))
            .chain(root)
            .chain(proc_stat::read(Pid::current().as_raw()))
            .map(|stat| stat.pgid)
            .collect();
        Self {
            clear,
            spare,
            spared_groups,
            root_sid: root.map_or(0, |stat| stat.sid),
            struck: BTreeMap::new(),
            awaited: Vec::new(),
            killed: 0,
            passes: 0,
        }
    }

    fn report(&self, start: Instant, left: Left) -> ClearReport {
        let (complete, survivors) = match left {
            Left::Nothing => (true, Vec::new()),
            Left::Survivors(survivors) => (false, survivors),
        };
        ClearReport {
            killed: self.killed,
            complete,
            survivors,
            passes: self.passes,
            elapsed: start.elapsed(),
        }
    }

    /// One walk. Strikes what belongs to the tree the moment it is seen, and returns all of it.
    ///
    /// Only the root's own children are struck last. They are the ones that could clear the rest should this
    /// process be killed amid the walk: a keeper that had ended its shims first would leave their tools to nobody.
    fn pass(&mut self) -> io::Result<Vec<ProcessInfo>> {
        self.passes += 1;
        let mut walk = Walk::default();
        for pid in proc_stat::pids()? {
            let Some(info) = proc_stat::read(pid).and_then(|stat| ProcessInfo::from_stat(&stat)) else {
                continue;
            };
            self.place(&mut walk, info);
        }
        loop {
            let waiting = std::mem::take(&mut walk.unplaced);
            let before = waiting.len();
            for info in waiting {
                self.place(&mut walk, info);
            }
            if walk.unplaced.len() == before {
                break;
            }
        }
        for child in std::mem::take(&mut walk.children) {
            self.strike(&child);
        }
        if self.passes >= GROUP_PASS_MIN {
            self.strike_groups(&walk);
        }
        Ok(walk.doomed.into_values().collect())
    }

    fn place(&mut self, walk: &mut Walk, info: ProcessInfo) {
        let pid = info.pid.as_raw();
        if info.pid == self.clear.root {
            return;
        }
        let spared = |pid| self.spare.contains(&pid) || walk.spared.contains(&pid);
        if spared(pid) || spared(info.ppid) {
            walk.spared.insert(pid);
        } else if info.ppid == self.clear.root.as_raw() || walk.doomed.contains_key(&info.ppid) {
            if self.spare.contains(&info.sid) {
                // An orphan in the session of a spared process can only descend from that one.
                walk.spared.insert(pid);
                return;
            }
            if info.ppid == self.clear.root.as_raw() {
                walk.children.push(info);
            } else {
                self.strike(&info);
            }
            walk.doomed.insert(pid, info);
        } else {
            walk.unplaced.push(info);
        }
    }

    /// Sends SIGKILL to exactly the process that `info` describes, once.
    fn strike(&mut self, info: &ProcessInfo) {
        let pid = info.pid.as_raw();
        if self.struck.get(&pid) == Some(&info.start_ticks) {
            return;
        }
        let Ok(pidfd) = PidFd::open(info.pid) else {
            // Gone meanwhile, or out of descriptors; the next pass tries again.
            self.awaited.clear();
            return;
        };
        // The handle is on whoever has the number now; only if that still is the one seen may it be killed.
        if proc_stat::read(pid).is_none_or(|now| now.start_ticks != info.start_ticks) {
            return;
        }
        // A zombie is struck as well: its first thread may have ended before the others.
        if pidfd.send_signal(Signal::KILL).is_ok() {
            self.struck.insert(pid, info.start_ticks);
            if info.state != 'Z' {
                self.killed += 1;
                if self.awaited.len() < AWAITED_MAX {
                    self.awaited.push(pidfd);
                }
            }
        }
    }

    /// Kills the groups of doomed processes as a whole, where no stranger can be a member: the group is
    /// neither the root's, ours nor a spared process', and either its session began below the root or its
    /// leader is doomed too.
    fn strike_groups(&mut self, walk: &Walk) {
        let groups: BTreeSet<i32> = walk
            .doomed
            .values()
            .filter(|info| info.state != 'Z' && !self.spared_groups.contains(&info.pgid))
            .filter(|info| info.sid != self.root_sid || walk.doomed.contains_key(&info.pgid))
            .map(|info| info.pgid)
            .collect();
        for group in groups.into_iter().filter_map(Pid::from_raw) {
            // ESRCH: all members have ended.
            let _ = rustix::process::kill_process_group(group.to_rustix(), rustix::process::Signal::KILL);
        }
    }

    /// Waits for one of the struck to end, at most `EXIT_WAIT`, so that passes do not steal the processor time
    /// that the dying need to die.
    fn wait_for_an_exit(&mut self) -> io::Result<()> {
        self.awaited.retain(|pidfd| !pidfd.has_exited().unwrap_or(true));
        let mut polled: Vec<PollFd<'_>> =
            self.awaited.iter().map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)).collect();
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: EXIT_WAIT.subsec_nanos().into() };
        match rustix::event::poll(&mut polled, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(err) => Err(err.into()),
        }
    }
}
