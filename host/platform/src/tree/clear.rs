//! Clearing all that hangs below this process, to the last one, except what is spared.
//!
//! It kills what it finds, again and again, while it looks: a process that forked just before its SIGKILL leaves an
//! orphan, which falls to us if we are a subreaper and is found by the next look. Looks begin at our own children,
//! as the kernel lists them, and pass living spared trees by, so that they cost what the doomed tree costs and not
//! what the machine has; where the kernel has no such lists, all processes are looked at.
//!
//! What must hold: no signal goes to a process that does not descend from us, nor to a spared one or its
//! descendants; each target is verified by its start time behind a pidfd, so that a number reused between the look
//! and the kill is not hit. "Nothing is left" is only said after a look that began when all that had been found
//! before was gone: what a dying process leaves falls to us before it can be reaped.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::ProcessInfo;
use crate::proc_stat;
use crate::process::{self, ChildPeek, Pid, PidFd, Signal};

/// How many dying processes are watched at most while a blocking clearing waits; the next look finds the others.
const AWAITED_MAX: usize = 64;
/// How long it waits at most for one of them before it looks again.
const EXIT_WAIT: Duration = Duration::from_millis(1);
/// From this look on, when there still are processes not seen before, whole process groups are killed at once,
/// which a forking group cannot outrun.
const GROUP_LOOK_MIN: u32 = 2;
/// Where a look cannot be relied on to see all, this many in a row must find nothing that is new or gone.
const QUIET_LOOKS: u32 = 2;
/// Most looks of one sweep; the next sweep goes on.
const LOOKS_MAX: u32 = 4;

/// How a look finds what descends from us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// By the kernel's lists of children, from ours on.
    Children,
    /// By the parents of all processes.
    Scan,
}

impl Look {
    /// The cheapest one that this kernel allows.
    pub fn best() -> Self {
        if proc_stat::lists_children() { Self::Children } else { Self::Scan }
    }
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
    /// How many sweeps it took.
    pub sweeps: u32,
    /// How long it took.
    pub elapsed: Duration,
}

/// Clears all descendants of this process. For the end of a shim, and of a keeper: SIGKILL, reap, look again,
/// until the kernel says that no child is left. `spare`d processes and what descends from them live on.
pub fn kill_descendants(spare: &[Pid], limit: Duration) -> io::Result<ClearReport> {
    Clear { spare, ..Clear::own(limit) }.run()
}

/// A clearing that waits until it is done. For processes that have nothing else to do meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Clear<'a> {
    /// Neither these, nor their descendants, nor an orphan in a session that one of these leads is touched.
    pub spare: &'a [Pid],
    /// Children of ours that are killed but left as zombies, so that their status can be read afterwards.
    pub keep_zombies: &'a [Pid],
    /// Longest time to go on.
    pub limit: Duration,
    /// How to look.
    pub look: Look,
}

impl Clear<'static> {
    /// All descendants of this process, all reaped.
    pub fn own(limit: Duration) -> Self {
        Self { spare: &[], keep_zombies: &[], limit, look: Look::best() }
    }
}

impl Clear<'_> {
    /// Clears the tree. Blocks the calling thread for at most about `limit`.
    pub fn run(&self) -> io::Result<ClearReport> {
        let start = Instant::now();
        let exact = self.spare.is_empty() && self.keep_zombies.is_empty();
        let mut clearing = Clearing::new(self.look);
        let mut report = ClearReport::default();
        loop {
            if exact && process::peek_any_exit()? == ChildPeek::NoChildren {
                report.complete = true;
                break;
            }
            let sweep = clearing.sweep(self.spare, self.keep_zombies)?;
            report.sweeps += 1;
            let struck = sweep.doomed.iter().filter(|doomed| doomed.was_struck).count();
            report.killed = report.killed.saturating_add(u32::try_from(struck).unwrap_or(u32::MAX));
            let left = sweep.doomed.into_iter().filter(|doomed| doomed.is_left);
            report.survivors = left.map(|doomed| doomed.info).collect();
            if report.survivors.is_empty() && !exact {
                report.complete = true;
                break;
            }
            if start.elapsed() >= self.limit {
                break;
            }
            clearing.wait_for_an_exit()?;
        }
        if report.complete {
            report.survivors.clear();
        }
        report.elapsed = start.elapsed();
        Ok(report)
    }
}

/// One process that is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Doomed {
    /// What was seen of it. Of a child that `/proc` hides from us all but the pid is 0.
    pub info: ProcessInfo,
    /// Our child that it hangs below, or itself.
    pub top: Pid,
    /// It lived, and got its SIGKILL in this sweep.
    pub was_struck: bool,
    /// It was still there when the sweep ended.
    pub is_left: bool,
}

/// What one sweep found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sweep {
    /// All that was seen and is not spared. Nothing doomed is left below us when none of these is.
    pub doomed: Vec<Doomed>,
    /// How many processes it read: what it cost.
    pub looked_at: usize,
}

/// A clearing in sweeps, none of which waits, for a process that has other things to do.
#[derive(Debug)]
pub struct Clearing {
    look: Look,
    own: Pid,
    /// Start time by pid of everything that got its SIGKILL and was there at the last look.
    struck: BTreeMap<i32, u64>,
    awaited: Vec<PidFd>,
    /// How many looks in a row have found somebody.
    looks: u32,
}

/// What one look finds.
#[derive(Default)]
struct Found {
    doomed: BTreeMap<i32, Doomed>,
    /// Doomed children of ours, struck when all below them have been.
    children: Vec<Pid>,
    looked_at: usize,
    /// Whether somebody was found that no earlier look had struck.
    has_new: bool,
    /// Whether it can have missed nobody.
    is_exact: bool,
}

/// Who is not to be touched.
struct Spared {
    /// In order.
    trees: Vec<i32>,
    /// Kept zombies that had ended before the look began: all that they left had fallen to us by then.
    ended: BTreeSet<i32>,
}

impl Spared {
    fn is_tree(&self, pid: i32) -> bool {
        self.trees.binary_search(&pid).is_ok()
    }
}

impl Clearing {
    /// Nothing is done yet.
    pub fn new(look: Look) -> Self {
        Self { look, own: Pid::current(), struck: BTreeMap::new(), awaited: Vec::new(), looks: 0 }
    }

    /// Strikes all that is doomed, reaps what has ended, and says who is left. Waits for nobody. `spare` and
    /// `keep_zombies` are as in `Clear`, and are children of ours.
    pub fn sweep(&mut self, spare: &[Pid], keep_zombies: &[Pid]) -> io::Result<Sweep> {
        let keep: BTreeSet<i32> = keep_zombies.iter().map(|pid| pid.as_raw()).collect();
        let mut trees: Vec<i32> = spare.iter().map(|pid| pid.as_raw()).collect();
        trees.sort_unstable();
        let mut spared = Spared { trees, ended: BTreeSet::new() };
        let mut all: BTreeMap<i32, Doomed> = BTreeMap::new();
        let mut looked_at = 0;
        let mut quiet = 0;
        for _ in 0..LOOKS_MAX {
            let has_ended = |pid: &Pid| !matches!(process::peek_exit(*pid), Ok(None));
            spared.ended.extend(keep_zombies.iter().filter(|pid| has_ended(pid)).map(|pid| pid.as_raw()));
            let found = self.look_once(&spared)?;
            looked_at += found.looked_at;
            all.values_mut().for_each(|doomed| doomed.is_left = false);
            let mut has_changed = false;
            for (pid, mut doomed) in found.doomed {
                // Counted as left even if it is reaped here: only a look that begins later says what it left.
                has_changed |= self.is_done(&doomed, keep.contains(&pid));
                match all.get(&pid) {
                    Some(before) => doomed.was_struck |= before.was_struck,
                    None => has_changed |= !found.is_exact,
                }
                all.insert(pid, doomed);
            }
            quiet = if has_changed { 0 } else { quiet + 1 };
            if quiet > 0 && found.is_exact || quiet >= QUIET_LOOKS {
                break;
            }
        }
        if all.values().all(|doomed| !doomed.is_left) {
            (self.looks, self.struck) = (0, BTreeMap::new());
            self.awaited.clear();
        }
        Ok(Sweep { doomed: all.into_values().collect(), looked_at })
    }

    /// Whether a found process needs no more from us: reaped, or kept as a zombie on purpose.
    fn is_done(&self, doomed: &Doomed, keep: bool) -> bool {
        let pid = doomed.info.pid;
        if doomed.top != pid {
            // Its parent dies too, and it falls to us.
            return false;
        }
        // ECHILD: already reaped.
        !matches!(if keep { process::peek_exit(pid) } else { process::reap(pid) }, Ok(None))
    }

    /// Strikes what belongs to the tree the moment it is seen, and returns all of it.
    ///
    /// Only our own children are struck last. They are the ones that could clear the rest should this process be
    /// killed amid the look: a keeper that had ended its shims first would leave their tools to nobody.
    fn look_once(&mut self, spared: &Spared) -> io::Result<Found> {
        self.looks = self.looks.saturating_add(1);
        let mut found = match self.look {
            Look::Children => self.look_at_children(spared)?,
            Look::Scan => self.look_at_all(spared)?,
        };
        for child in std::mem::take(&mut found.children) {
            self.strike(&mut found, child);
        }
        if self.looks >= GROUP_LOOK_MIN && found.has_new {
            self.strike_groups(&found, spared);
        }
        self.struck.retain(|pid, _| found.doomed.contains_key(pid));
        Ok(found)
    }

    fn look_at_children(&mut self, spared: &Spared) -> io::Result<Found> {
        let own = proc_stat::children(self.own.as_raw())?;
        // One thread's list only grows at its end while we read it, since we alone reap.
        let mut found = Found { is_exact: own.threads == 1, ..Found::default() };
        let untouched = |pid: &i32| spared.is_tree(*pid) || spared.ended.contains(pid);
        for pid in own.pids.into_iter().filter(|pid| !untouched(pid)).filter_map(Pid::from_raw) {
            found.looked_at += 1;
            match super::process_info(pid) {
                // The number is another's by now.
                Some(info) if info.ppid != self.own.as_raw() => {}
                // An orphan in the session of a spared process can only descend from that one.
                Some(info) if spared.is_tree(info.sid) => {
                    let _ = process::reap(pid);
                }
                Some(info) => self.add(&mut found, info, pid),
                // Hidden from us, or we are out of descriptors; unless another thread has reaped it.
                None if matches!(process::peek_exit(pid), Ok(None)) => {
                    self.add(&mut found, hidden(pid), pid);
                }
                None => {}
            }
        }
        let mut open: Vec<(Pid, Pid)> = found.children.iter().map(|child| (*child, *child)).collect();
        while let Some((parent, top)) = open.pop() {
            for pid in proc_stat::children(parent.as_raw())?.pids.into_iter().filter_map(Pid::from_raw) {
                if untouched(&pid.as_raw()) || found.doomed.contains_key(&pid.as_raw()) {
                    continue;
                }
                found.looked_at += 1;
                // With another parent it has fallen to us, or its number is a stranger's by now.
                let info = super::process_info(pid).filter(|info| info.ppid == parent.as_raw());
                if let Some(info) = info {
                    self.add(&mut found, info, top);
                    open.push((pid, top));
                }
            }
            if parent != top {
                self.strike(&mut found, parent);
            }
        }
        Ok(found)
    }

    fn look_at_all(&mut self, spared: &Spared) -> io::Result<Found> {
        let mut found = Found::default();
        let mut spared_below: BTreeSet<i32> = spared.trees.iter().chain(&spared.ended).copied().collect();
        // Parents mostly come before their children; those that do not are tried again.
        let mut waiting = Vec::new();
        for pid in proc_stat::pids()? {
            found.looked_at += 1;
            if let Some(info) = Pid::from_raw(pid).and_then(super::process_info) {
                waiting.push(info);
            }
        }
        loop {
            let before = waiting.len();
            waiting.retain(|info| !self.place(&mut found, &mut spared_below, spared, info));
            if waiting.len() == before {
                return Ok(found);
            }
        }
    }

    /// Whether it is known now to whom this process belongs.
    fn place(
        &mut self,
        found: &mut Found,
        spared_below: &mut BTreeSet<i32>,
        spared: &Spared,
        info: &ProcessInfo,
    ) -> bool {
        let pid = info.pid.as_raw();
        let is_child = info.ppid == self.own.as_raw();
        let top = found.doomed.get(&info.ppid).map(|parent| parent.top);
        if info.pid == self.own || spared_below.contains(&pid) {
            return true;
        }
        if spared_below.contains(&info.ppid) || is_child && spared.is_tree(info.sid) {
            spared_below.insert(pid);
            if is_child {
                let _ = process::reap(info.pid);
            }
            return true;
        }
        let Some(top) = top.or_else(|| is_child.then_some(info.pid)) else { return false };
        self.add(found, *info, top);
        if !is_child {
            self.strike(found, info.pid);
        }
        true
    }

    fn add(&self, found: &mut Found, info: ProcessInfo, top: Pid) {
        let pid = info.pid.as_raw();
        found.has_new |= self.struck.get(&pid) != Some(&info.start_ticks);
        if info.pid == top {
            found.children.push(top);
        }
        found.doomed.insert(pid, Doomed { info, top, was_struck: false, is_left: true });
    }

    /// Sends SIGKILL to exactly the process that was seen, once.
    fn strike(&mut self, found: &mut Found, pid: Pid) {
        let Some(doomed) = found.doomed.get_mut(&pid.as_raw()) else { return };
        let info = doomed.info;
        if self.struck.get(&pid.as_raw()) == Some(&info.start_ticks) {
            return;
        }
        let Ok(pidfd) = PidFd::open(pid) else {
            // Gone meanwhile, or out of descriptors; the next look tries again.
            self.awaited.clear();
            return;
        };
        // The handle is on whoever has the number now; only if that still is the one seen may it be killed.
        if proc_stat::read(pid.as_raw()).is_none_or(|now| now.start_ticks != info.start_ticks) {
            return;
        }
        // A zombie is struck as well: its first thread may have ended before the others.
        if pidfd.send_signal(Signal::KILL).is_ok() {
            self.struck.insert(pid.as_raw(), info.start_ticks);
            if info.state != 'Z' {
                doomed.was_struck = true;
                if self.awaited.len() < AWAITED_MAX {
                    self.awaited.push(pidfd);
                }
            }
        }
    }

    /// Kills the groups of doomed processes as a whole, where no stranger can be a member: the group is neither
    /// ours nor a spared process', and either its session began below us or its leader is doomed too.
    fn strike_groups(&self, found: &Found, spared: &Spared) {
        let Some(own) = proc_stat::read(self.own.as_raw()) else { return };
        let mut groups: BTreeSet<i32> = found
            .doomed
            .values()
            .map(|doomed| &doomed.info)
            .filter(|info| info.state != 'Z' && info.pgid != own.pgid)
            .filter(|info| info.sid != own.sid || found.doomed.contains_key(&info.pgid))
            .map(|info| info.pgid)
            .collect();
        if groups.is_empty() {
            return;
        }
        for stat in spared.trees.iter().filter_map(|pid| proc_stat::read(*pid)) {
            groups.remove(&stat.pgid);
        }
        for group in groups.into_iter().filter_map(Pid::from_raw) {
            // ESRCH: all members have ended.
            let _ = rustix::process::kill_process_group(group.to_rustix(), rustix::process::Signal::KILL);
        }
    }

    /// Waits for one of the struck to end, at most `EXIT_WAIT`, so that looks do not steal the processor time that
    /// the dying need to die.
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

fn hidden(pid: Pid) -> ProcessInfo {
    ProcessInfo { pid, ppid: 0, pgid: 0, sid: 0, state: '?', start_ticks: 0 }
}
