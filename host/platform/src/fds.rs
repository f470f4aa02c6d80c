//! Descriptors: pipes and socket pairs to hand to other processes, descriptors inherited from a parent, and
//! the limit on how many may be open.
//!
//! What must hold: every descriptor made or taken here is CLOEXEC, so that it crosses an exec only where a
//! spawn request names it.

#![expect(unsafe_code, reason = "taking ownership of an inherited descriptor number is unsafe by nature")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::io::FdFlags;
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

/// `/dev/null`, open for reading and writing.
pub fn dev_null() -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).write(true).open("/dev/null")?.into())
}

/// Takes over descriptor `number`, which the parent process left open for us, and sets CLOEXEC on it.
///
/// Fails with EBADF if it is not open. Call it once for each number, before anything else in the process can
/// have opened descriptors: two owners of one number would close each other's.
pub fn take_inherited(number: i32) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: F_GETFD on any number is harmless and tells whether it is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the documented contract nobody else in this process owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
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
        let pipe = pipe_cloexec().unwrap();
        rustix::io::fcntl_setfd(&pipe.read, FdFlags::empty()).unwrap();
        let taken = take_inherited(pipe.read.into_raw_fd()).unwrap();
        assert!(is_cloexec(&taken));
        rustix::io::write(&pipe.write, b"x").unwrap();
        assert_eq!(rustix::io::read(&taken, &mut [0; 4]).unwrap(), 1);
        assert_eq!(take_inherited(1_000_000).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(take_inherited(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
