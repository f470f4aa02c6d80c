//! A worker's process in the host's own hands, for when its keeper can do nothing for it: it stands still, or is gone.
//!
//! What must hold: a number that means another process by now is never signalled; of a tree that is ended here nothing is
//! left below the worker before the worker itself is killed, since nobody would find it afterwards.

use cjm_platform::tree::{descendants, process_info, zombie_status};
use cjm_platform::{Pid, PidFd, Signal, WaitStatus};
use cjm_wire::link::ExitStatus;
use std::collections::BTreeMap;
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
        // Each is waited for: one whose parent has ended is below the worker no more, and may still be dying.
        let mut killed: BTreeMap<(Pid, u64), PidFd> = BTreeMap::new();
        let mut is_clear = false;
        while !is_clear && Instant::now() < give_up && !self.has_ended() {
            let below = descendants(self.pid).unwrap_or_default();
            let living: Vec<_> = below.into_iter().filter(|info| info.state != 'Z').collect();
            is_clear = living.is_empty();
            for info in living {
                let Ok(pidfd) = PidFd::open(info.pid) else { continue };
                let still = process_info(info.pid).is_some_and(|now| now.start_ticks == info.start_ticks);
                if still && pidfd.send_signal(Signal::KILL).is_ok() {
                    killed.insert((info.pid, info.start_ticks), pidfd);
                }
            }
            if !is_clear {
                std::thread::sleep(LOOK_INTERVAL);
            }
        }
        let _ = self.pidfd.send_signal(Signal::KILL);
        let ends = |pidfd: &PidFd| {
            let left = give_up.saturating_duration_since(Instant::now()).max(LOOK_INTERVAL);
            pidfd.wait_exit(left).unwrap_or(true)
        };
        let all = killed.values().chain([&self.pidfd]).fold(is_clear, |all, pidfd| ends(pidfd) && all);
        Ended { all, descendants_killed: u32::try_from(killed.len()).unwrap_or(u32::MAX) }
    }
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
