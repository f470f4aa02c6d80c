//! A worker's process in the host's own hands, for when its keeper can do nothing for it: it stands still, or is gone.
//!
//! What must hold: a number that means another process by now is never signalled; of a tree that is ended here nothing is
//! left below the worker before the worker itself is killed, since nobody would find it afterwards.

use cjm_platform::tree::{
    self, ProcessInfo, descendants, descendants_among, process_info, processes, zombie_status,
};
use cjm_platform::{Pid, PidFd, Signal, WaitStatus};
use cjm_wire::link::ExitStatus;
use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a tree that is being ended is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// A worker's process.
#[derive(Debug)]
pub(crate) struct Held {
    pid: Pid,
    pidfd: PidFd,
}

/// What came of ending a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Whether all of it has ended.
    pub(crate) all: bool,
    /// Processes below the worker that had to be killed.
    pub(crate) descendants_killed: u32,
}

impl Held {
    /// The process `pid`, which must be a child of `parent`; None when it is gone already.
    pub(crate) fn child_of(parent: Pid, pid: i32) -> Option<Self> {
        let pid = Pid::from_raw(pid)?;
        let pidfd = PidFd::open(pid).ok()?;
        // Looked at once it is held: the number cannot change its meaning any more.
        let is_child = process_info(pid).is_some_and(|info| info.ppid == parent.as_raw());
        is_child.then_some(Self { pid, pidfd })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Becomes readable when the process ends.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(crate) fn has_ended(&self) -> bool {
        // An error says that there is nothing left to ask about.
        self.pidfd.has_exited().unwrap_or(true)
    }

    /// Whether it stands still by a signal, or under a debugger.
    pub(crate) fn is_stopped(&self) -> bool {
        tree::is_stopped(self.pid)
    }

    /// How it ended, as long as its keeper has not taken that; None if that cannot be told.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        // What stands there of one whose first thread alone has ended is not how it ends.
        let status = if self.has_ended() { zombie_status(self.pid) } else { None };
        status.map(|status| match status {
            WaitStatus::Exited { code } => ExitStatus::Code(code),
            WaitStatus::Signaled { signal, .. } => ExitStatus::Signal(signal),
        })
    }

    /// Ends all that is below the worker, then the worker itself. Takes at most about so long.
    pub(crate) fn end_tree(self: &Arc<Self>, limit: Duration) -> Ended {
        let mut ending = Ending::begin(Arc::clone(self), limit);
        loop {
            if let Some(ended) = ending.look(&LazyCell::new(look_at_all)) {
                return ended;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
}

/// A worker's tree that is being ended. Nobody waits in here, so that many of them end side by side.
pub(crate) struct Ending {
    held: Arc<Held>,
    doomed: Doomed,
    give_up: Instant,
    /// Whether the worker was seen to stand still: what is read of all processes after that misses nothing of it.
    stood_still: bool,
    /// Whether nothing lived below the worker when it was killed; None until it is.
    was_clear: Option<bool>,
}

impl Ending {
    /// Begins; what is not over after so long is given up.
    pub(crate) fn begin(held: Arc<Held>, limit: Duration) -> Self {
        // What stands still starts nothing more, and its orphans fall to it.
        let _ = held.pidfd.send_signal(Signal::STOP);
        let give_up = Instant::now() + limit;
        Self { held, doomed: Doomed::default(), give_up, stood_still: false, was_clear: None }
    }

    /// Goes on with it; what came of it once it is over, or given up. `all` are the processes of now, read after the last
    /// look; None where they cannot be read.
    pub(crate) fn look<F: FnOnce() -> Option<Vec<ProcessInfo>>>(
        &mut self,
        all: &LazyCell<Option<Vec<ProcessInfo>>, F>,
    ) -> Option<Ended> {
        let is_late = Instant::now() >= self.give_up;
        let Some(was_clear) = self.was_clear else {
            let stood_still = std::mem::replace(&mut self.stood_still, self.held.is_stopped());
            let below = all.as_ref().map(|all| descendants_among(self.held.pid, all));
            let was_clear = self.doomed.kill_living(below.as_deref()) && stood_still;
            // What was below a worker that has ended hangs elsewhere by now.
            let has_ended = self.held.has_ended();
            if was_clear || has_ended || is_late {
                let _ = self.held.pidfd.send_signal(Signal::KILL);
                self.was_clear = Some(was_clear && !has_ended);
            }
            return None;
        };
        let have_ended = self.held.has_ended() && self.doomed.have_ended();
        let all = was_clear && have_ended;
        (have_ended || is_late).then_some(Ended { all, descendants_killed: self.doomed.count() })
    }
}

/// Ends what fell to a keeper that stands still: all below it that is neither one of its living workers nor below one. One
/// that goes on meanwhile does that itself, and may start a worker that is not among these.
pub(crate) fn end_orphans_of(
    keeper: Pid,
    workers: &BTreeSet<Pid>,
    limit: Duration,
    stands_still: impl Fn() -> bool,
) -> Ended {
    let give_up = Instant::now() + limit;
    let mut doomed = Doomed::default();
    let is_clear = doomed.until_clear(give_up, || {
        let below = descendants(keeper).ok()?;
        // Asked after the look, so that nothing in it is younger than the answer.
        if !stands_still() {
            return Some(Vec::new());
        }
        let parents: BTreeMap<i32, i32> = below.iter().map(|info| (info.pid.as_raw(), info.ppid)).collect();
        let is_of_a_worker = |pid: Pid| {
            let above = std::iter::successors(Some(pid.as_raw()), |pid| parents.get(pid).copied());
            above.into_iter().any(|above| workers.iter().any(|worker| worker.as_raw() == above))
        };
        Some(below.into_iter().filter(|info| !is_of_a_worker(info.pid)).collect())
    });
    doomed.ended(is_clear, give_up)
}

/// Processes that were killed. Each is waited for: one whose parent has ended stands elsewhere, and may still be dying.
#[derive(Default)]
struct Doomed(BTreeMap<(Pid, u64), PidFd>);

impl Doomed {
    /// Kills what `look` finds until it finds nothing that lives, since more may come while it is killed; false when there
    /// is no time left. None: what is there cannot be read.
    fn until_clear(&mut self, give_up: Instant, mut look: impl FnMut() -> Option<Vec<ProcessInfo>>) -> bool {
        while !self.kill_living(look().as_deref()) {
            if Instant::now() >= give_up {
                return false;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        true
    }

    /// Kills those that live; whether there were none. What cannot be read is not taken for none.
    fn kill_living(&mut self, found: Option<&[ProcessInfo]>) -> bool {
        let mut were_none = found.is_some();
        for info in found.into_iter().flatten() {
            let pidfd = PidFd::open(info.pid);
            // A zombie lives as long as it has other threads than its first: the kernel does not tell its end before.
            let has_exited = |pidfd: &PidFd| pidfd.has_exited().unwrap_or(false);
            if info.state == 'Z' && pidfd.as_ref().is_ok_and(has_exited) {
                continue;
            }
            were_none = false;
            let Ok(pidfd) = pidfd else { continue };
            let still = process_info(info.pid).is_some_and(|now| now.start_ticks == info.start_ticks);
            if still && pidfd.send_signal(Signal::KILL).is_ok() {
                self.0.insert((info.pid, info.start_ticks), pidfd);
            }
        }
        were_none
    }

    /// What came of it, once the killed have ended or there is no time left.
    fn ended(&self, is_clear: bool, give_up: Instant) -> Ended {
        while !self.have_ended() && Instant::now() < give_up {
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ended { all: is_clear && self.have_ended(), descendants_killed: self.count() }
    }

    fn have_ended(&self) -> bool {
        self.0.values().all(|pidfd| pidfd.has_exited().unwrap_or(true))
    }

    fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
}

/// All processes; None where they cannot be read.
pub(crate) fn look_at_all() -> Option<Vec<ProcessInfo>> {
    processes().ok()
}

#[cfg(test)]
pub(super) mod tests;
