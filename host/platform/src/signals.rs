//! Signals as this process takes them: blocked, ignored, or read from a descriptor.
//!
//! No handler is ever installed. What must hold: a spawned program sees none of this (`spawn` gives it the
//! default dispositions and an empty mask).

#![expect(unsafe_code, reason = "signal masks and signalfd have no safe form in rustix")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::process::Signal;

/// Ignores `signals` from now on. Survives exec, so programs are spawned by `spawn` only.
pub fn ignore(signals: &[Signal]) -> io::Result<()> {
    for signal in signals {
        // SAFETY: SIG_IGN is a valid disposition and installs no code of ours.
        if unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether this process ignores the signal, as one that was started by `nohup`, or behind `&` by a shell without job control.
pub fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal.as_raw() - 1) & 1 == 1
}

/// Gives `signals` their default disposition.
pub fn set_default(signals: &[Signal]) -> io::Result<()> {
    for signal in signals {
        // SAFETY: SIG_DFL is a valid disposition and installs no code of ours.
        if unsafe { libc::signal(signal.as_raw(), libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A descriptor that is readable while one of its signals is pending; those signals are blocked in the
/// calling thread, so make it before starting threads.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks `signals` and opens the descriptor (non-blocking, CLOEXEC).
    pub fn block(signals: &[Signal]) -> io::Result<Self> {
        let mut set = empty_set();
        for signal in signals {
            // SAFETY: set is an initialised sigset_t and the number is in range.
            unsafe { libc::sigaddset(&raw mut set, signal.as_raw()) };
        }
        set_mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: set is valid; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes all pending signals and returns their numbers, coalesced as the kernel does. At most 64, one
    /// for each number, are returned in a call.
    pub fn drain(&self) -> io::Result<Vec<Signal>> {
        const DRAIN_MAX: usize = 64;
        let mut taken = Vec::new();
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        while taken.len() < DRAIN_MAX {
            match rustix::io::read(&self.0, &mut info) {
                Ok(read) if read == info.len() => {
                    let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                    taken.extend(i32::try_from(number).ok().and_then(Signal::from_raw));
                }
                Ok(_) | Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(taken)
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// All signals are blocked in the calling thread while this lives; dropping it restores the old mask.
pub(crate) struct AllBlocked {
    old: libc::sigset_t,
}

impl AllBlocked {
    pub(crate) fn new() -> io::Result<Self> {
        let mut all = empty_set();
        // SAFETY: all is an initialised sigset_t.
        unsafe { libc::sigfillset(&raw mut all) };
        Ok(Self { old: set_mask(libc::SIG_SETMASK, &all)? })
    }
}

impl Drop for AllBlocked {
    fn drop(&mut self) {
        // The old mask was given by the kernel, so setting it again cannot fail.
        let _ = set_mask(libc::SIG_SETMASK, &self.old);
    }
}

pub(crate) fn empty_set() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data; sigemptyset makes it a proper empty set.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        set
    }
}

fn set_mask(how: i32, set: &libc::sigset_t) -> io::Result<libc::sigset_t> {
    let mut old = empty_set();
    // SAFETY: both sets are valid for the call.
    match unsafe { libc::pthread_sigmask(how, set, &raw mut old) } {
        0 => Ok(old),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_blocked_signal_is_read_from_the_descriptor() {
        // Sent to this thread alone: the test harness's other threads do not block it.
        let fd = SignalFd::block(&[Signal::USR2]).unwrap();
        assert!(fd.drain().unwrap().is_empty());
        // SAFETY: raise sends to the calling thread, where the signal is blocked.
        unsafe { libc::raise(libc::SIGUSR2) };
        assert!(crate::process::poll_readable(fd.as_fd(), Duration::from_secs(5)).unwrap());
        assert_eq!(fd.drain().unwrap(), [Signal::USR2]);
        assert!(fd.drain().unwrap().is_empty());
    }
}
