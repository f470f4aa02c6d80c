//! Descriptors: pipes and socket pairs to hand to other processes, descriptors inherited from a parent, and
//! the limit on how many may be open.
//!
//! What must hold: every descriptor made or taken here is CLOEXEC, so that it crosses an exec only where a
//! spawn request names it.

#![expect(unsafe_code, reason = "taking ownership of an inherited descriptor number is unsafe by nature")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, FdFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit};

/// A pipe.
#[derive(Debug)]
pub struct Pipe {
    /// Reads what is written to `write`; EOF when all copies of `write` are closed.
    pub read: OwnedFd,
    /// EPIPE when all copies of `read` are closed.
    pub write: OwnedFd,
}

/// A new pipe, both ends CLOEXEC and blocking.
pub fn pipe_cloexec() -> io::Result<Pipe> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok(Pipe { read, write })
}

/// A new AF_UNIX stream socket pair, both ends CLOEXEC and blocking.
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Whether somebody can still read what is written to this end of a stream pair. Poll does not say so of a peer that shut its
/// reading down alone; a write of nothing does.
pub fn has_a_reader(stream: BorrowedFd<'_>) -> bool {
    use rustix::net::{SendFlags, send};
    !matches!(
        send(stream, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT),
        Err(Errno::PIPE | Errno::CONNRESET)
    )
}

/// `/dev/null`, open for reading and writing.
pub fn dev_null() -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).write(true).open("/dev/null")?.into())
}

/// The right to the descriptors that the parent process left open for us. There is one in a process, ever.
#[derive(Debug)]
pub struct Inherited(());

static CLAIMED: AtomicBool = AtomicBool::new(false);

impl Inherited {
    /// Claims the right; None if it was claimed before. For the first lines of `main`: until then, nothing else
    /// may have taken an inherited number for its own.
    pub fn claim() -> Option<Self> {
        (!CLAIMED.swap(true, Ordering::Relaxed)).then_some(Self(()))
    }

    /// Takes over descriptor `number` and sets CLOEXEC on it.
    ///
    /// EBADF if it is not open, or was not inherited: what comes through an exec has no CLOEXEC, and all that
    /// this process opens or has taken over before has it. So no number gets two owners.
    pub fn take(&mut self, number: i32) -> io::Result<OwnedFd> {
        let not_inherited = || io::Error::from_raw_os_error(libc::EBADF);
        if number < 0 {
            return Err(not_inherited());
        }
        // SAFETY: F_GETFD on any number is harmless and tells whether it is open.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if flags < 0 {
            return Err(io::Error::last_os_error());
        }
        if flags & libc::FD_CLOEXEC != 0 {
            return Err(not_inherited());
        }
        // SAFETY: it is open, came from the parent, and was not taken before; only the one holder of this token takes.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        Ok(fd)
    }

    /// Closes every descriptor from 3 up except `keep`, and gives the right up.
    ///
    /// For a helper program that has opened nothing yet: a host that forgot CLOEXEC would else live on in our
    /// descriptors. Anything this process opened itself and does not name becomes invalid.
    pub fn close_all_but(self, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut kept: Vec<u32> =
            keep.iter().map(|fd| fd.as_raw_fd().unsigned_abs()).filter(|fd| *fd >= 3).collect();
        kept.sort_unstable();
        let mut first = 3_u32;
        for fd in kept.into_iter().chain([u32::MAX]) {
            if fd > first {
                // SAFETY: the token was claimed before this process opened anything beyond `keep`.
                let rc = unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
                if rc != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            first = fd.saturating_add(1);
        }
        Ok(())
    }
}

/// Sets or clears O_NONBLOCK on the open file behind `fd` (shared by all its copies).
pub fn set_nonblocking(fd: &OwnedFd, on: bool) -> io::Result<()> {
    let mut flags = rustix::fs::fcntl_getfl(fd)?;
    flags.set(rustix::fs::OFlags::NONBLOCK, on);
    Ok(rustix::fs::fcntl_setfl(fd, flags)?)
}

/// The soft limit on open descriptors as it was before `raise_nofile_soft_limit`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NofileLimit {
    /// The soft limit; None is "unlimited".
    pub soft: Option<u64>,
    /// The hard limit; None is "unlimited".
    pub hard: Option<u64>,
}

/// Raises the soft limit of this process on open descriptors to the hard one and returns the limits as they
/// were. Programs that still use `select(2)` break above 1024, so a spawn should give them the old one.
pub fn raise_nofile_soft_limit() -> io::Result<NofileLimit> {
    let old = nofile_limit();
    set_nofile(NofileLimit { soft: old.hard, hard: old.hard })?;
    Ok(old)
}

/// Sets back the limit that `raise_nofile_soft_limit` returned.
pub fn restore_nofile(old: NofileLimit) -> io::Result<()> {
    set_nofile(old)
}

/// The limit on open descriptors as it is now.
pub fn nofile_limit() -> NofileLimit {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    NofileLimit { soft: current, hard: maximum }
}

/// How many descriptors this process has open, for leak checks.
pub fn open_fd_count() -> io::Result<usize> {
    // The listing itself holds one descriptor.
    Ok(std::fs::read_dir("/proc/self/fd")?.count().saturating_sub(1))
}

/// An independent copy of `file`'s descriptor for another process.
pub fn copy_of(file: &File) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(file, 3)?)
}

/// A CLOEXEC copy of `fd` whose number is at least `number_min`.
pub(crate) fn copy_above(fd: &OwnedFd, number_min: i32) -> io::Result<OwnedFd> {
    let copy = rustix::io::fcntl_dupfd_cloexec(fd, number_min)?;
    debug_assert!(copy.as_raw_fd() >= number_min);
    Ok(copy)
}

fn set_nofile(limit: NofileLimit) -> io::Result<()> {
    Ok(rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.soft, maximum: limit.hard })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    fn is_cloexec(fd: &OwnedFd) -> bool {
        rustix::io::fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC)
    }

    #[test]
    fn made_descriptors_are_cloexec() {
        let pipe = pipe_cloexec().unwrap();
        let (left, right) = stream_pair().unwrap();
        for fd in [&pipe.read, &pipe.write, &left, &right, &dev_null().unwrap()] {
            assert!(is_cloexec(fd));
        }
    }

    #[test]
    fn an_inherited_descriptor_is_taken_and_sealed_and_a_closed_one_refused() {
        let mut inherited = Inherited::claim().unwrap();
        assert!(Inherited::claim().is_none(), "there is one right in a process");
        let pipe = pipe_cloexec().unwrap();
        let number = pipe.read.into_raw_fd();
        let mut refused = |number| inherited.take(number).unwrap_err().raw_os_error() == Some(libc::EBADF);
        assert!(refused(number), "this process opened it itself");
        assert!(refused(1_000_000) && refused(-1), "nothing is open there");
        // As if it had come through an exec.
        // SAFETY: the number is open, and only flags are changed.
        unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
        let taken = inherited.take(number).unwrap();
        assert!(is_cloexec(&taken));
        assert!(inherited.take(number).is_err(), "it has its owner now");
        rustix::io::write(&pipe.write, b"x").unwrap();
        assert_eq!(rustix::io::read(&taken, &mut [0; 4]).unwrap(), 1);
    }
}
