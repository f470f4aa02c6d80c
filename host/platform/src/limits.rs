//! What the system allows this process, and how our programs live with it.
//!
//! What must hold: a limit is met as an error, which can be told with a next step, and not as a death without a word; a
//! user's umask never closes our own files to us.

use std::io;

use rustix::fs::Mode;
use rustix::process::{Resource, getrlimit, umask};

use crate::process::Signal;

/// A limit that our programs run into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// Open descriptors of a process.
    OpenFiles,
    /// Processes and threads of a user.
    Processes,
    /// Bytes of a file.
    FileSize,
    /// Bytes of address space.
    Memory,
}

/// The limit as it is in force; None is "unlimited".
pub fn soft(limit: Limit) -> Option<u64> {
    let resource = match limit {
        Limit::OpenFiles => Resource::Nofile,
        Limit::Processes => Resource::Nproc,
        Limit::FileSize => Resource::Fsize,
        Limit::Memory => Resource::As,
    };
    getrlimit(resource).current
}

/// Bytes of addresses that a thread takes, most of which never become memory: its stack, and what glibc's allocator sets
/// aside for it.
const THREAD_ADDRESS_BYTES: u64 = (2 + 64) * MIB;
const MIB: u64 = 1024 * 1024;
/// What blocks gets threads when it comes, and a thread that cannot be had then ends the process.
const SPARE_THREADS: u64 = 3;

/// Whether this process may have the addresses of so many more threads. Where it may not, anything may fail: a library that
/// gets no memory ends the process.
///
/// # Errors
/// The limit, and what would be needed.
pub fn check_addresses(threads: u64) -> io::Result<()> {
    let Some(limit) = soft(Limit::Memory) else { return Ok(()) };
    let needed = crate::proc_stat::address_bytes()? + (threads + SPARE_THREADS) * THREAD_ADDRESS_BYTES;
    if needed <= limit {
        return Ok(());
    }
    let (limit, needed) = (limit / MIB, needed.div_ceil(MIB));
    let words =
        format!("the address space is limited to {limit} MiB (`ulimit -v`), and {needed} MiB are needed");
    Err(io::Error::new(io::ErrorKind::OutOfMemory, words))
}

/// For the first lines of a program of ours, before it has threads: a file that may not grow is an error of the write
/// (EFBIG) instead of a signal that kills, and what is made is open to its owner whatever the umask is. Programs that
/// `spawn` starts have the signal's default again; the umask, with the owner's bits, is theirs too.
///
/// # Errors
/// When the signal cannot be ignored.
pub fn prepare() -> io::Result<()> {
    let others = Mode::RWXG | Mode::RWXO;
    umask(umask(others) & others);
    crate::signals::ignore(&[Signal::XFSZ])
}
