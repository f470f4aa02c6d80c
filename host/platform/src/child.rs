//! What a parent does with a child beyond starting it: signal its whole group, and reap it with what it used.
//!
//! What must hold: a group is signalled only while its leader is an unreaped child of ours, so that the number
//! cannot belong to anybody else.

#![expect(unsafe_code, reason = "wait4, the call that also tells what a child used, has no safe form")]

use std::io;
use std::time::Duration;

use crate::process::{Pid, Signal, WaitStatus};

/// What a process and the descendants it waited for used in their lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LifetimeUsage {
    /// Processor time in its own code.
    pub cpu_user: Duration,
    /// Processor time in the kernel.
    pub cpu_system: Duration,
    /// Largest resident memory of any one of them, in bytes.
    pub rss_bytes_max: u64,
}

/// Sends `signal` to the process group that the child `leader` leads. The child must not have been reaped.
/// ESRCH if no member is left.
pub fn signal_group(leader: Pid, signal: Signal) -> io::Result<()> {
    // SAFETY: killpg takes two numbers and touches no memory of ours.
    let rc = unsafe { libc::killpg(leader.as_raw(), signal.as_raw()) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the status of the child `pid` with what it used, and frees its number; None while it still lives.
/// Call it only for a process that this process spawned or, as a subreaper, adopted.
pub fn reap_with_usage(pid: Pid) -> io::Result<Option<(WaitStatus, LifetimeUsage)>> {
    let mut status: libc::c_int = 0;
    // SAFETY: rusage is plain data for which all zeroes is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live locals of the right types.
        let rc = unsafe { libc::wait4(pid.as_raw(), &raw mut status, libc::WNOHANG, &raw mut usage) };
        match rc {
            0 => return Ok(None),
            rc if rc > 0 => break,
            _ => {}
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
    let status = if libc::WIFSIGNALED(status) {
        WaitStatus::Signaled { signal: libc::WTERMSIG(status), core_dumped: libc::WCOREDUMP(status) }
    } else {
        WaitStatus::Exited { code: libc::WEXITSTATUS(status) }
    };
    let usage = LifetimeUsage {
        cpu_user: duration(usage.ru_utime),
        cpu_system: duration(usage.ru_stime),
        // Linux counts in KiB.
        rss_bytes_max: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    };
    Ok(Some((status, usage)))
}

/// The direct children of this process, zombies included, or None where the kernel does not list them. Much
/// cheaper than a walk over all processes. Exact for the question "is nobody there but the ones I know".
pub fn own_children() -> Option<Vec<Pid>> {
    let mut children = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        // A thread that ended meanwhile has handed its children to another one, which may be behind us.
        let text = std::fs::read_to_string(task.ok()?.path().join("children")).ok()?;
        children.extend(text.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)));
    }
    Some(children)
}

fn duration(time: libc::timeval) -> Duration {
    let micros = u32::try_from(time.tv_usec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), micros.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn::{SessionMode, SpawnRequest, spawn};

    fn start(script: &str) -> crate::spawn::Spawned {
        let mut request = SpawnRequest::new("/bin/sh");
        request.argv = ["sh", "-c", script].map(Into::into).to_vec();
        request.session = SessionMode::NewGroup;
        spawn(request).unwrap()
    }

    #[test]
    fn a_group_dies_together_and_its_leader_tells_what_it_used() {
        let child = start("sleep 100 & i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; wait");
        assert!(own_children().is_none_or(|children| children.contains(&child.pid)));
        assert_eq!(reap_with_usage(child.pid).unwrap(), None);
        signal_group(child.pid, Signal::KILL).unwrap();
        assert!(child.pidfd.wait_exit(Duration::from_secs(10)).unwrap());
        let (status, usage) = reap_with_usage(child.pid).unwrap().unwrap();
        assert_eq!(status, WaitStatus::Signaled { signal: 9, core_dumped: false });
        assert!(usage.rss_bytes_max > 100 * 1024, "{usage:?}");
        assert_eq!(reap_with_usage(child.pid).unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }
}
