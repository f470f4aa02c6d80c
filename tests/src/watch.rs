//! Real processes, watched from outside by pidfd: who descends from whom, how long they live after a blow.
//!
//! It asks neither host nor keeper. What must hold: a watched process is never mistaken for another that got
//! its number, and a process that ends between the look and the handle counts as ended.

use cjm_platform::poll::{self, Interest};
use cjm_platform::process::{Pid, PidFd, Signal};
use cjm_platform::tree;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long a watch lasts at most.
const WATCH_MAX: Duration = Duration::from_secs(20);

/// One process under watch.
#[derive(Debug)]
pub struct Watched {
    /// Its number.
    pub pid: Pid,
    /// Its command line when the watch began.
    pub command: String,
    /// Its parent's number when the watch began.
    pub parent: i32,
    pidfd: PidFd,
}

/// Several processes under watch.
#[derive(Debug, Default)]
pub struct Watch {
    watched: Vec<Watched>,
}

impl Watch {
    /// All that descends from `root` now, `root` itself not.
    #[must_use]
    pub fn below(root: Pid) -> Self {
        let mut watch = Self::default();
        watch.add_below(root);
        watch
    }

    /// Adds what descends from `root` now.
    pub fn add_below(&mut self, root: Pid) {
        for info in tree::descendants(root).expect("/proc is readable") {
            if info.state != 'Z' {
                self.add(info.pid);
            }
        }
    }

    /// Adds one process; nothing if it has ended already.
    pub fn add(&mut self, pid: Pid) {
        if self.watched.iter().any(|known| known.pid == pid) {
            return;
        }
        let Some(before) = tree::process_info(pid) else { return };
        let Ok(pidfd) = PidFd::open(pid) else { return };
        // The number could have been given away between the look and the handle.
        if tree::process_info(pid).is_some_and(|after| after.start_ticks == before.start_ticks) {
            self.watched.push(Watched { pid, command: command_line(pid), parent: before.ppid, pidfd });
        }
    }

    /// All of them, ended ones too.
    #[must_use]
    pub fn all(&self) -> &[Watched] {
        &self.watched
    }

    /// Those whose parent was `parent` when the watch began.
    #[must_use]
    pub fn children_of(&self, parent: Pid) -> Vec<Pid> {
        self.watched
            .iter()
            .filter(|watched| watched.parent == parent.as_raw())
            .map(|watched| watched.pid)
            .collect()
    }

    /// The same watch without one process that is to live on.
    #[must_use]
    pub fn without(mut self, spared: Pid) -> Self {
        self.watched.retain(|watched| watched.pid != spared);
        self
    }

    /// What lives, one line each.
    #[must_use]
    pub fn living(&self) -> Vec<String> {
        let lives = |w: &&Watched| !w.pidfd.has_exited().expect("a pidfd answers");
        self.watched.iter().filter(lives).map(|w| format!("{} {}", w.pid, w.command)).collect()
    }

    /// Waits until all have ended, and says how long after `since` the last one did.
    ///
    /// # Errors
    /// What still lives when the limit has passed.
    pub fn gone_after(&self, since: Instant, limit: Duration) -> Result<Duration, Vec<String>> {
        let limit = limit.min(WATCH_MAX);
        for watched in &self.watched {
            let left = limit.saturating_sub(since.elapsed());
            poll::wait(&[(watched.pidfd.as_fd(), Interest::Read)], Some(left)).expect("poll");
        }
        let elapsed = since.elapsed();
        let living = self.living();
        if living.is_empty() { Ok(elapsed) } else { Err(living) }
    }
}

impl Watched {
    /// Sends a signal to exactly this process; nothing if it has ended meanwhile.
    ///
    /// # Panics
    /// If it lives and cannot be signalled.
    pub fn signal(&self, signal: Signal) {
        if let Err(error) = self.pidfd.send_signal(signal) {
            let ended = self.pidfd.has_exited().expect("a pidfd answers");
            assert!(ended, "{signal} to {} {}: {error}", self.pid, self.command);
        }
    }
}

/// The arguments of a process, with spaces between; its short name in brackets when it has none.
#[must_use]
pub fn command_line(pid: Pid) -> String {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&raw).trim_end_matches('\0').replace('\0', " ");
    if !text.is_empty() {
        return text;
    }
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("[{}]", name.trim())
}
