//! What the code of a package leaves running when it was looked into: a process in a session of its own is in no group that
//! ends with the interpreter. It falls to this process, and is known by a mark among its variables, which children inherit.
//!
//! What must hold: nothing is killed that does not descend from this process and carry this mark.

use cjm_platform::process::{Pid, PidFd, Signal, become_subreaper, reap};
use cjm_platform::tree::descendants;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::process::Command;

/// The variable of the mark.
const MARK: &str = "CJM_LOOKED_INTO";
/// Longest that it may take to end all of them. What is in the middle of input or output ends by itself later.
const END_MAX: Duration = Duration::from_secs(5);
/// Ends, when it is dropped, what descends from a helper and lives on.
#[derive(Debug)]
pub(crate) struct LeftRunning(String);

impl LeftRunning {
    /// Of this helper, which is started next.
    pub(crate) fn of(helper: &mut Command) -> Self {
        static HELPERS: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), HELPERS.fetch_add(1, Ordering::Relaxed));
        helper.env(MARK, &mark);
        if let Err(error) = become_subreaper() {
            let next_step = "look with `ps` whether it has left something, and end that";
            tracing::warn!(%error, next_step, "what a package starts when it is looked into may live on");
        }
        Self(format!("{MARK}={mark}"))
    }

    fn living(&self) -> Vec<Pid> {
        let is_marked = |pid: &Pid| {
            let variables = std::fs::read(format!("/proc/{}/environ", pid.as_raw())).unwrap_or_default();
            variables.split(|byte| *byte == 0).any(|one| one == self.0.as_bytes())
        };
        let all = descendants(Pid::current()).unwrap_or_default();
        all.into_iter().map(|info| info.pid).filter(is_marked).collect()
    }
}

impl Drop for LeftRunning {
    fn drop(&mut self) {
        let started = Instant::now();
        loop {
            // The number is held before it is looked at, so that no later process of it is hit.
            let held: Vec<(Pid, PidFd)> =
                self.living().into_iter().filter_map(|pid| Some((pid, PidFd::open(pid).ok()?))).collect();
            let still = self.living();
            let doomed: Vec<_> = held.into_iter().filter(|(pid, _)| still.contains(pid)).collect();
            if doomed.is_empty() || started.elapsed() > END_MAX {
                return;
            }
            for (_, fd) in &doomed {
                // One that has ended in this instant needs no signal.
                let _ = fd.send_signal(Signal::KILL);
            }
            // While it ends it has no variables any more by which it would be found again.
            for (_, fd) in &doomed {
                let _ = fd.wait_exit(END_MAX.saturating_sub(started.elapsed()));
            }
            for (pid, _) in doomed {
                // One whose parent lives is reaped by that.
                let _ = reap(pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{command, run};
    use std::path::Path;

    #[tokio::test]
    async fn what_a_helper_leaves_in_a_session_of_its_own_ends_with_it_and_nothing_else_does() {
        let folder = tempfile::tempdir().expect("tempdir");
        let file = folder.path().join("pid");
        let script = format!(
            "(setsid sh -c 'echo $$ >{0}.new; mv {0}.new {0}; exec sleep 300' >/dev/null 2>&1 &); while [ ! -e {0} ]; do sleep 0.01; done",
            file.display()
        );
        let mut other = std::process::Command::new("sleep").arg("300").spawn().expect("started");
        let mut helper = command(Path::new("/bin/sh"));
        helper.arg("-c").arg(script);
        let left = LeftRunning::of(&mut helper);
        assert!(run(helper, "try", Duration::from_secs(20), &|_| {}).await.expect("ran").success);
        let pid = std::fs::read_to_string(&file).expect("a number");
        let process = Path::new("/proc").join(pid.trim());
        assert!(process.exists(), "it lives on until it is ended");
        drop(left);
        assert!(!process.exists());
        assert!(other.try_wait().expect("asked").is_none(), "it is none of the helper's");
        other.kill().and_then(|()| other.wait()).expect("ended");
    }
}
