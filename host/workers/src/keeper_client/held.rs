//! A worker's process in the host's own hands, for when its keeper can do nothing for it: it stands still, or is gone.
//!
//! What must hold: a number that means another process by now is never signalled; of a tree that is ended here nothing is
//! left below the worker before the worker itself is killed, since nobody would find it afterwards.

use cjm_platform::tree::{ProcessInfo, descendants, process_info, zombie_status};
use cjm_platform::{Pid, PidFd, Signal, WaitStatus};
use cjm_wire::link::ExitStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
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
        process_info(self.pid).is_some_and(|info| matches!(info.state, 'T' | 't'))
    }

    /// How it ended, as long as its keeper has not taken that; None if that cannot be told.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        zombie_status(self.pid).filter(|_| self.has_ended()).map(|status| match status {
            WaitStatus::Exited { code } => ExitStatus::Code(code),
            WaitStatus::Signaled { signal, .. } => ExitStatus::Signal(signal),
        })
    }

    /// Ends all that is below the worker, then the worker itself. Takes at most about so long.
    pub(crate) fn end_tree(&self, limit: Duration) -> Ended {
        let give_up = Instant::now() + limit;
        // What stands still starts nothing more, and its orphans fall to it.
        let _ = self.pidfd.send_signal(Signal::STOP);
        let mut doomed = Doomed::default();
        let is_clear = doomed.until_clear(give_up, || match self.has_ended() {
            true => None,
            false => Some(descendants(self.pid).unwrap_or_default()),
        });
        let _ = self.pidfd.send_signal(Signal::KILL);
        let all = doomed.have_ended(give_up) && ends(&self.pidfd, give_up) && is_clear;
        Ended { all, descendants_killed: doomed.count() }
    }
}

/// Ends what fell to a keeper that stands still: all below it that is neither one of its living workers nor below one.
pub(crate) fn end_orphans_of(keeper: Pid, workers: &BTreeSet<Pid>, limit: Duration) -> Ended {
    let give_up = Instant::now() + limit;
    let mut doomed = Doomed::default();
    let all = doomed.until_clear(give_up, || {
        let below = descendants(keeper).unwrap_or_default();
        let parents: BTreeMap<i32, i32> = below.iter().map(|info| (info.pid.as_raw(), info.ppid)).collect();
        let is_of_a_worker = |pid: Pid| {
            let above = std::iter::successors(Some(pid.as_raw()), |pid| parents.get(pid).copied());
            above.into_iter().any(|above| workers.iter().any(|worker| worker.as_raw() == above))
        };
        Some(below.into_iter().filter(|info| !is_of_a_worker(info.pid)).collect())
    });
    Ended { all: doomed.have_ended(give_up) && all, descendants_killed: doomed.count() }
}

/// Processes that were killed. Each is waited for: one whose parent has ended stands elsewhere, and may still be dying.
#[derive(Default)]
struct Doomed(BTreeMap<(Pid, u64), PidFd>);

impl Doomed {
    /// Kills what `look` finds until it finds nothing that lives; false when it gives up first, or `look` does.
    fn until_clear(&mut self, give_up: Instant, mut look: impl FnMut() -> Option<Vec<ProcessInfo>>) -> bool {
        while let Some(found) = look().filter(|_| Instant::now() < give_up) {
            let living: Vec<_> = found.into_iter().filter(|info| info.state != 'Z').collect();
            if living.is_empty() {
                return true;
            }
            for info in living {
                let Ok(pidfd) = PidFd::open(info.pid) else { continue };
                let still = process_info(info.pid).is_some_and(|now| now.start_ticks == info.start_ticks);
                if still && pidfd.send_signal(Signal::KILL).is_ok() {
                    self.0.insert((info.pid, info.start_ticks), pidfd);
                }
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        false
    }

    fn have_ended(&self, give_up: Instant) -> bool {
        self.0.values().all(|pidfd| ends(pidfd, give_up))
    }

    fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
}

fn ends(pidfd: &PidFd, give_up: Instant) -> bool {
    let left = give_up.saturating_duration_since(Instant::now()).max(LOOK_INTERVAL);
    pidfd.wait_exit(left).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_platform::process;
    use std::process::{Command, Stdio};

    /// A shell with a child that ignores what it can, and with a grandchild in a session of its own.
    fn tree() -> (std::process::Child, Held) {
        let script = "trap '' TERM HUP INT; (setsid sleep 1000 & exec sleep 1000) & echo; exec sleep 1000";
        let mut child =
            Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().expect("a shell");
        let mut line = [0];
        std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut line).expect("it runs");
        let held = Held::child_of(Pid::current(), child.id().cast_signed()).expect("ours");
        // A shell is no subreaper, as a worker is: what is started by one that is being killed would be lost.
        while descendants(held.pid).expect("readable").len() < 2 {
            std::thread::yield_now();
        }
        (child, held)
    }

    #[test]
    fn a_tree_is_ended_from_below_also_where_it_stands_still() {
        process::become_subreaper().expect("subreaper");
        for stopped in [false, true] {
            let (mut child, held) = tree();
            let below = descendants(held.pid).expect("readable");
            if stopped {
                held.pidfd.send_signal(Signal::STOP).expect("sent");
            }
            assert!(!held.has_ended() && held.status().is_none());
            let ended = held.end_tree(Duration::from_secs(20));
            assert!(ended.all && ended.descendants_killed >= 2, "{ended:?}");
            let living = |info: &cjm_platform::tree::ProcessInfo| {
                process_info(info.pid)
                    .is_some_and(|now| now.state != 'Z' && now.start_ticks == info.start_ticks)
            };
            assert!(!below.iter().any(living));
            assert_eq!(held.status(), Some(ExitStatus::Signal(9)), "a zombie tells how it ended");
            child.wait().expect("ours");
            assert!(held.has_ended() && held.status().is_none(), "its parent has taken that");
        }
    }

    #[test]
    fn a_process_of_somebody_else_is_not_held() {
        let (mut child, held) = tree();
        assert!(Held::child_of(held.pid, child.id().cast_signed()).is_none(), "another parent");
        assert!(
            Held::child_of(Pid::current(), i32::MAX).is_none() && Held::child_of(Pid::current(), 0).is_none()
        );
        assert!(held.end_tree(Duration::from_secs(20)).all);
        child.wait().expect("ours");
    }
}
