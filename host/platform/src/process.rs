//! One process: its id, its pidfd, its wait status, and the attributes a process sets on itself.
//!
//! It does not start processes (see `spawn`) and knows nothing of trees (see `tree`). What must hold: only
//! a pid given by the caller is ever reaped. There is no `waitpid(-1)` here, because it would steal the
//! exit statuses of children that belong to a library in the same process.

#![expect(unsafe_code, reason = "waitid's si_pid, pidfd_send_signal and getsid have no safe form in rustix")]

use std::fmt;
use std::io;
use std::num::NonZeroI32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::process::{PidfdFlags, WaitId, WaitIdOptions};

use crate::poll::{self, Interest};

/// A process id, always positive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(NonZeroI32);

impl Pid {
    /// The pid `raw`, or None unless it is positive.
    pub fn from_raw(raw: i32) -> Option<Self> {
        NonZeroI32::new(raw).filter(|raw| raw.get() > 0).map(Self)
    }

    /// This process.
    pub fn current() -> Self {
        Self(rustix::process::getpid().as_raw_nonzero())
    }

    /// The parent of this process, or None if it lives outside our pid namespace.
    pub fn parent() -> Option<Self> {
        rustix::process::getppid().map(|pid| Self(pid.as_raw_nonzero()))
    }

    /// The plain number.
    pub fn as_raw(self) -> i32 {
        self.0.get()
    }

    pub(crate) fn to_rustix(self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(self.0.get()).expect("a Pid is positive")
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pid({})", self.0)
    }
}

/// A signal number that the kernel knows (1 to 64).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

impl Signal {
    /// The terminal hung up.
    pub const HUP: Self = Self(libc::SIGHUP);
    /// Interrupt, as by Ctrl-C.
    pub const INT: Self = Self(libc::SIGINT);
    /// Quit with a core dump.
    pub const QUIT: Self = Self(libc::SIGQUIT);
    /// Abort, as by `abort(3)`.
    pub const ABRT: Self = Self(libc::SIGABRT);
    /// Kill; cannot be caught.
    pub const KILL: Self = Self(libc::SIGKILL);
    /// Invalid memory access.
    pub const SEGV: Self = Self(libc::SIGSEGV);
    /// Write to a pipe without a reader.
    pub const PIPE: Self = Self(libc::SIGPIPE);
    /// Polite termination.
    pub const TERM: Self = Self(libc::SIGTERM);
    /// First user signal.
    pub const USR1: Self = Self(libc::SIGUSR1);
    /// Second user signal.
    pub const USR2: Self = Self(libc::SIGUSR2);
    /// A child changed state.
    pub const CHLD: Self = Self(libc::SIGCHLD);
    /// Go on after a stop.
    pub const CONT: Self = Self(libc::SIGCONT);
    /// A file would grow beyond the limit.
    pub const XFSZ: Self = Self(libc::SIGXFSZ);
    /// Stop; cannot be caught.
    pub const STOP: Self = Self(libc::SIGSTOP);

    /// The signal `raw`, or None outside 1..=64.
    pub fn from_raw(raw: i32) -> Option<Self> {
        (1..=64).contains(&raw).then_some(Self(raw))
    }

    /// The plain number.
    pub fn as_raw(self) -> i32 {
        self.0
    }

    /// The usual name, such as `SIGKILL`, or None for a real-time or rare signal.
    pub fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            libc::SIGHUP => "SIGHUP",
            libc::SIGINT => "SIGINT",
            libc::SIGQUIT => "SIGQUIT",
            libc::SIGILL => "SIGILL",
            libc::SIGTRAP => "SIGTRAP",
            libc::SIGABRT => "SIGABRT",
            libc::SIGBUS => "SIGBUS",
            libc::SIGFPE => "SIGFPE",
            libc::SIGKILL => "SIGKILL",
            libc::SIGUSR1 => "SIGUSR1",
            libc::SIGSEGV => "SIGSEGV",
            libc::SIGUSR2 => "SIGUSR2",
            libc::SIGPIPE => "SIGPIPE",
            libc::SIGALRM => "SIGALRM",
            libc::SIGTERM => "SIGTERM",
            libc::SIGCHLD => "SIGCHLD",
            libc::SIGCONT => "SIGCONT",
            libc::SIGSTOP => "SIGSTOP",
            libc::SIGXCPU => "SIGXCPU",
            libc::SIGXFSZ => "SIGXFSZ",
            libc::SIGSYS => "SIGSYS",
            _ => return None,
        })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({self})")
    }
}

/// How a process ended, as its parent sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitStatus {
    /// It returned or called `exit`.
    Exited {
        /// The exit code, 0 to 255.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core dump.
        core_dumped: bool,
    },
}

impl fmt::Display for WaitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exited { code } => write!(f, "exit code {code}"),
            Self::Signaled { signal, core_dumped } => {
                let dumped = if core_dumped { " (core dumped)" } else { "" };
                match Signal::from_raw(signal) {
                    Some(signal) => write!(f, "{signal}{dumped}"),
                    None => write!(f, "signal {signal}{dumped}"),
                }
            }
        }
    }
}

/// A handle on one process that stays with that process even after its number was given to another.
///
/// It becomes readable when the process has exited (all its threads gone), also for a process that is not
/// our child.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens a handle on `pid`. It refers to the process meant only if that cannot have been reaped before:
    /// it is our unreaped child, or the caller verifies the start time afterwards.
    pub fn open(pid: Pid) -> io::Result<Self> {
        Ok(Self(rustix::process::pidfd_open(pid.to_rustix(), PidfdFlags::empty())?))
    }

    /// Takes a pidfd that came from elsewhere, as by SCM_RIGHTS.
    pub fn from_owned(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Gives the descriptor away.
    pub fn into_owned(self) -> OwnedFd {
        self.0
    }

    /// A second handle on the same process.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Sends `signal`. ESRCH if the process was reaped.
    pub fn send_signal(&self, signal: Signal) -> io::Result<()> {
        // SAFETY: pidfd_send_signal reads nothing from our memory when info is null; the descriptor is ours.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal.as_raw(),
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Whether the process has exited by now.
    pub fn has_exited(&self) -> io::Result<bool> {
        self.wait_exit(Duration::ZERO)
    }

    /// Waits at most `timeout` for the exit; true once it has exited. Reaps nothing.
    pub fn wait_exit(&self, timeout: Duration) -> io::Result<bool> {
        poll_readable(self.0.as_fd(), timeout)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Waits at most `timeout` until `fd` is readable, hung up or in error; survives interruptions by signals.
pub fn poll_readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    Ok(poll::wait(&[(fd, Interest::Read)], Some(timeout))?[0].readable)
}

/// How the child `pid` ended, or None while it lives. It stays a zombie: its number cannot be given to
/// another process until `reap`. ECHILD if it is no child of ours.
pub fn peek_exit(pid: Pid) -> io::Result<Option<WaitStatus>> {
    wait_on(pid, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT)
}

/// Takes the status of the child `pid` and frees its number; None while it still lives. Call it only for a
/// process that this process spawned or, as a subreaper, adopted.
pub fn reap(pid: Pid) -> io::Result<Option<WaitStatus>> {
    wait_on(pid, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
}

/// What `peek_any_exit` found among the children of this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChildPeek {
    /// This process has no children at all, hence, if it is a subreaper, no descendants.
    NoChildren,
    /// All children live.
    NoneExited,
    /// This child is a zombie. The kernel names the same one until it is reaped.
    Exited(Pid),
}

/// Looks at all children of this process at once, without taking a status. The answer `NoChildren` is exact:
/// the kernel gives it under the lock that also guards forking, so unlike a walk it cannot miss a newborn.
pub fn peek_any_exit() -> io::Result<ChildPeek> {
    // SAFETY: siginfo_t is plain data for which all zeroes is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: info is a valid siginfo_t for the kernel to write; WNOWAIT leaves every child in place.
        let rc = unsafe {
            libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)
        };
        if rc == 0 {
            break;
        }
        let err = io::Error::last_os_error();
        match err.raw_os_error() {
            Some(libc::ECHILD) => return Ok(ChildPeek::NoChildren),
            Some(libc::EINTR) => {}
            _ => return Err(err),
        }
    }
    // SAFETY: waitid filled the SIGCHLD member of the union or left it zeroed when no child had exited.
    let pid = unsafe { info.si_pid() };
    Ok(Pid::from_raw(pid).map_or(ChildPeek::NoneExited, ChildPeek::Exited))
}

/// Makes this process the one that orphaned descendants fall to. Lasts through exec, not through fork.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(Pid::current().to_rustix()))?)
}

/// Asks for `signal` when the *thread* that spawned this process ends. EPIPE-like races are the caller's:
/// compare `Pid::parent` with the expected parent after this returned.
pub fn set_parent_death_signal(signal: Option<Signal>) -> io::Result<()> {
    let raw = signal.map_or(0, Signal::as_raw);
    // SAFETY: PR_SET_PDEATHSIG takes a plain number and touches no memory of ours.
    let rc = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, raw as libc::c_ulong) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Starts a new session led by this process. EPERM if it already leads a process group.
pub fn new_session() -> io::Result<Pid> {
    Ok(Pid(rustix::process::setsid()?.as_raw_nonzero()))
}

/// Whether this process leads the session it belongs to.
///
/// Not through rustix, which holds a session to be a positive number: in a PID namespace whose session leader
/// is outside (a container, `unshare --pid`) the kernel answers 0.
pub fn leads_session() -> io::Result<bool> {
    // SAFETY: getsid takes a number and gives one.
    match unsafe { libc::getsid(0) } {
        -1 => Err(io::Error::last_os_error()),
        session => Ok(session == Pid::current().as_raw()),
    }
}

/// Names this process (its main thread) in `ps` and `/proc`; at most 15 bytes are kept.
pub fn set_name(name: &str) -> io::Result<()> {
    let name = std::ffi::CString::new(name)?;
    Ok(rustix::thread::set_name(&name)?)
}

fn wait_on(pid: Pid, options: WaitIdOptions) -> io::Result<Option<WaitStatus>> {
    loop {
        match rustix::process::waitid(WaitId::Pid(pid.to_rustix()), options) {
            Ok(None) => return Ok(None),
            Ok(Some(status)) => {
                return Ok(Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => WaitStatus::Exited { code },
                    (None, signal) => {
                        WaitStatus::Signaled { signal: signal.unwrap_or(0), core_dumped: status.dumped() }
                    }
                }));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[expect(clippy::zombie_processes, reason = "the tests reap by pid, which is what they test")]
    fn spawn(script: &str) -> (Pid, PidFd) {
        let child = Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        (pid, PidFd::open(pid).unwrap())
    }

    #[test]
    fn pid_and_signal_numbers_are_checked() {
        assert_eq!(Pid::from_raw(0), None);
        assert_eq!(Pid::from_raw(-1), None);
        assert_eq!(Pid::from_raw(7).map(Pid::as_raw), Some(7));
        assert_eq!(Signal::from_raw(0), None);
        assert_eq!(Signal::from_raw(65), None);
        assert_eq!(Signal::from_raw(9), Some(Signal::KILL));
        assert_eq!(Signal::from_raw(40).unwrap().to_string(), "signal 40");
    }

    #[test]
    fn peeking_keeps_the_zombie_and_reaping_ends_it() {
        let (pid, pidfd) = spawn("exit 7");
        assert!(pidfd.wait_exit(Duration::from_secs(10)).unwrap());
        let expected = Some(WaitStatus::Exited { code: 7 });
        assert_eq!(peek_exit(pid).unwrap(), expected);
        assert_eq!(peek_exit(pid).unwrap(), expected, "a peek leaves the status in place");
        pidfd.send_signal(Signal::TERM).expect("a zombie still takes signals");
        assert_eq!(reap(pid).unwrap(), expected);
        assert_eq!(peek_exit(pid).unwrap_err().raw_os_error(), Some(libc::ECHILD));
        assert_eq!(pidfd.send_signal(Signal::TERM).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_signal_is_seen_as_the_cause() {
        let (pid, pidfd) = spawn("exec sleep 100");
        assert!(!pidfd.has_exited().unwrap());
        assert_eq!(peek_exit(pid).unwrap(), None);
        assert!(!pidfd.wait_exit(Duration::from_millis(5)).unwrap());
        pidfd.send_signal(Signal::KILL).unwrap();
        assert!(pidfd.wait_exit(Duration::from_secs(10)).unwrap());
        let status = reap(pid).unwrap().unwrap();
        assert_eq!(status, WaitStatus::Signaled { signal: 9, core_dumped: false });
        assert_eq!(status.to_string(), "SIGKILL");
    }
}
