//! The two streams a program writes to, without a buffer: who owns the waiting and the order is the caller.
//!
//! What must hold: a write that is cut or would wait is told as such, also where another program made the pipe
//! non-blocking; and that a stream this program was started without takes nothing, as it would say itself if the standard
//! library did not put `/dev/null` in its place.

#![expect(
    unsafe_code,
    reason = "that a stream was closed can be seen only before the standard library begins"
)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use crate::poll::{Interest, wait};

/// Most bytes in one write, so that its end is told soon.
const PART_BYTES_MAX: usize = 64 * 1024;

/// A stream of this program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteTo {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// Whether standard output was closed when the program began.
static HAD_NO_STDOUT: AtomicBool = AtomicBool::new(false);

/// Runs before the standard library opens `/dev/null` for streams that are closed, after which nobody can tell.
#[used]
// SAFETY: the loader calls what stands in this section, as a function of C; this one needs nothing that is made later.
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STDOUT: extern "C" fn() = look_at_stdout;

extern "C" fn look_at_stdout() {
    // SAFETY: it asks about a descriptor, whether or not there is one, and changes nothing.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    HAD_NO_STDOUT.store(flags < 0, Ordering::Relaxed);
}

impl WriteTo {
    /// Whether the program was started without it.
    pub fn was_closed(self) -> bool {
        self == Self::Stdout && HAD_NO_STDOUT.load(Ordering::Relaxed)
    }

    fn with<T>(self, act: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        match self {
            Self::Stdout => act(std::io::stdout().as_fd()),
            Self::Stderr => act(std::io::stderr().as_fd()),
        }
    }

    /// Columns and rows, if it is a terminal that says so.
    pub fn terminal_size(self) -> Option<(u16, u16)> {
        let size = self.with(|fd| rustix::termios::tcgetwinsize(fd)).ok()?;
        (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
    }

    /// Whether nobody can read what is written any more: the pipe has no reader, the terminal is gone.
    pub fn has_no_reader(self) -> bool {
        let ready = self.with(|fd| wait(&[(fd, Interest::End)], Some(Duration::ZERO)));
        // Where it cannot be asked, a write will tell.
        ready.is_ok_and(|ready| ready.iter().any(|ready| ready.hung_up))
    }
}

/// Writes the first part of `bytes` and returns how much that was; waits while there is no room.
///
/// # Errors
/// EPIPE when nobody reads; EBADF where there is no such stream; what else the file says.
pub fn write_part(to: WriteTo, bytes: &[u8]) -> io::Result<usize> {
    if to.was_closed() {
        return Err(Errno::BADF.into());
    }
    let part = &bytes[..bytes.len().min(PART_BYTES_MAX)];
    to.with(|fd| {
        loop {
            match rustix::io::write(fd, part) {
                Ok(0) if !part.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    wait(&[(fd, Interest::Write)], None)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    })
}

/// Whether both streams lead to one file, so that the order between them can be seen.
pub fn is_one_file() -> bool {
    let file = |to: WriteTo| to.with(|fd| rustix::fs::fstat(fd)).map(|stat| (stat.st_dev, stat.st_ino));
    match (file(WriteTo::Stdout), file(WriteTo::Stderr)) {
        (Ok(out), Ok(err)) => out == err,
        // What cannot be told apart is kept in order.
        _ => true,
    }
}
