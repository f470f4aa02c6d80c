//! What the host has not taken yet. The machine counts it and says when it is too much.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use cjm_platform::poll::{self, Interest};
use cjm_platform::seqpacket::{SeqPacket, SeqPacketError};
use cjm_wire::keeper::KeeperToHost;

/// How long the last words wait for a host that does not read.
const FLUSH_WAIT: Duration = Duration::from_millis(500);

/// The messages, oldest first.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<Outgoing>,
    is_closed: bool,
}

struct Outgoing {
    bytes: Vec<u8>,
    fd: Option<OwnedFd>,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the other end was found closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The other end is closed: nothing more is kept.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        self.waiting.clear();
    }

    pub(crate) fn push(&mut self, message: &KeeperToHost, fd: Option<OwnedFd>) {
        let Ok(bytes) = serde_json::to_vec(message) else {
            unreachable!("the messages hold only strings, numbers and lists of them");
        };
        if !self.is_closed {
            self.waiting.push_back(Outgoing { bytes, fd });
        }
    }

    /// Sends what can be sent without waiting; how many messages wait no more.
    pub(crate) fn flush(&mut self, control: &SeqPacket) -> usize {
        let mut count = 0;
        while let Some(next) = self.waiting.front() {
            let fds: Vec<BorrowedFd<'_>> = next.fd.iter().map(AsFd::as_fd).collect();
            match control.try_send(&next.bytes, &fds) {
                Ok(()) => {}
                Err(SeqPacketError::WouldBlock) => return count,
                Err(SeqPacketError::Empty | SeqPacketError::TooLong { .. } | SeqPacketError::TooManyFds) => {
                    // Cannot be sent at all; later messages can.
                }
                Err(SeqPacketError::PeerClosed | SeqPacketError::Io(_)) => {
                    self.close();
                    return count;
                }
            }
            self.waiting.pop_front();
            count += 1;
        }
        count
    }

    /// The last words: waits a little for a slow reader, not for one that has stopped.
    pub(crate) fn flush_finally(&mut self, control: &SeqPacket) {
        self.flush_within(control, FLUSH_WAIT);
    }

    fn flush_within(&mut self, control: &SeqPacket, wait: Duration) {
        let give_up = Instant::now() + wait;
        self.flush(control);
        while !self.waiting.is_empty() {
            let left = give_up.saturating_duration_since(Instant::now());
            match poll::wait(&[(control.as_fd(), Interest::ReadWrite)], Some(left)) {
                Ok(ready) if ready[0].writable && !ready[0].hung_up => self.flush(control),
                _ => return,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_platform::seqpacket::Received;

    /// More than a socket holds.
    const COUNT: usize = 2000;
    /// Longest wait for a reader that reads.
    const WAIT: Duration = Duration::from_secs(20);

    /// What nobody has read yet fills the socket, and the rest waits.
    fn full() -> (Outbox, SeqPacket, SeqPacket) {
        let (ours, theirs) = SeqPacket::pair().expect("a pair");
        let mut outbox = Outbox::default();
        for n in 0..COUNT {
            outbox.push(&KeeperToHost::Trouble { message: n.to_string() }, None);
        }
        outbox.flush(&ours);
        assert!(!outbox.is_empty(), "the socket took all of it");
        (outbox, ours, theirs)
    }

    #[test]
    fn the_last_words_wait_for_a_reader_that_is_slow() {
        let (mut outbox, ours, theirs) = full();
        let reader = std::thread::spawn(move || {
            let mut told = Vec::new();
            while let Some(Received::Message(message)) = theirs.recv_timeout(WAIT).expect("it can be read") {
                match serde_json::from_slice(&message.bytes).expect("a message") {
                    KeeperToHost::Trouble { message } => told.push(message),
                    other => panic!("instead of Trouble came {other:?}"),
                }
            }
            told
        });
        outbox.flush_within(&ours, WAIT);
        drop(ours);
        assert_eq!(reader.join().expect("no panic"), (0..COUNT).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn the_last_words_wait_for_nobody_who_has_stopped_or_gone() {
        let (mut outbox, ours, theirs) = full();
        let begun = Instant::now();
        outbox.flush_finally(&ours);
        assert!(begun.elapsed() >= FLUSH_WAIT && begun.elapsed() < WAIT && !outbox.is_empty());
        drop(theirs);
        outbox.flush_within(&ours, 2 * WAIT);
        assert!(begun.elapsed() < WAIT, "{:?}", begun.elapsed());
    }
}
