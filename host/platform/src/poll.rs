//! Waiting for several descriptors at once, for the single-threaded processes that use no runtime.
//!
//! What must hold: a hang-up is told apart from data, so that a keeper can put its host's death before its
//! host's last words.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

/// What is waited for. Hang-ups and errors always are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Something to read.
    Read,
    /// Something to read, or room to write.
    ReadWrite,
    /// Room to write.
    Write,
    /// Nothing but the peer's end.
    End,
}

/// What one descriptor is ready for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Readiness {
    /// A read will not wait: data, the peer's end, or an error.
    pub readable: bool,
    /// A write will not wait.
    pub writable: bool,
    /// The peer is gone. There may still be data to read.
    pub hung_up: bool,
}

/// Waits until one of `watched` is ready, at most `timeout` (None: for ever). The answers are in the order of
/// `watched`; all are empty if the time ran out.
pub fn wait(watched: &[(BorrowedFd<'_>, Interest)], timeout: Option<Duration>) -> io::Result<Vec<Readiness>> {
    let mut polled: Vec<PollFd<'_>> = watched
        .iter()
        .map(|(fd, interest)| {
            let flags = match interest {
                Interest::Read => PollFlags::IN,
                Interest::ReadWrite => PollFlags::IN | PollFlags::OUT,
                Interest::Write => PollFlags::OUT,
                Interest::End => PollFlags::empty(),
            };
            PollFd::from_borrowed_fd(*fd, flags)
        })
        .collect();
    let start = Instant::now();
    loop {
        let left = timeout.map(|timeout| timespec(timeout.saturating_sub(start.elapsed())));
        match rustix::event::poll(&mut polled, left.as_ref()) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(polled.iter().map(|polled| readiness(polled.revents())).collect())
}

fn readiness(flags: PollFlags) -> Readiness {
    let hung_up = flags.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
    Readiness {
        readable: hung_up || flags.contains(PollFlags::IN),
        writable: flags.contains(PollFlags::OUT),
        hung_up,
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seqpacket::SeqPacket;
    use std::os::fd::AsFd;

    #[test]
    fn data_room_silence_and_the_end_are_told_apart() {
        let (left, right) = SeqPacket::pair().unwrap();
        let wait_left = |interest| wait(&[(left.as_fd(), interest)], Some(Duration::ZERO)).unwrap()[0];
        assert_eq!(wait_left(Interest::Read), Readiness::default());
        let writable = Readiness { writable: true, ..Readiness::default() };
        assert_eq!(wait_left(Interest::ReadWrite), writable);
        right.send(b"x", &[]).unwrap();
        assert_eq!(wait_left(Interest::Read), Readiness { readable: true, ..Readiness::default() });
        assert_eq!(wait_left(Interest::Write), writable);
        assert_eq!(wait_left(Interest::End), Readiness::default());
        drop(right);
        assert!(wait_left(Interest::Read).hung_up && wait_left(Interest::End).hung_up);
    }
}
