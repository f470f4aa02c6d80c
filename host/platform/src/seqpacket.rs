//! AF_UNIX SOCK_SEQPACKET: whole messages with descriptors attached, between host and keeper.
//!
//! It knows nothing of what the messages say. What must hold: a message arrives whole with all its
//! descriptors or is an error; every descriptor received is CLOEXEC and owned, also on the error path; a
//! peer's end is distinguished from an error.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Most bytes in one message. Below the default send buffer of 208 KiB, above any environment we pass on.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;
/// Most descriptors with one message (the kernel allows 253).
pub const MESSAGE_FDS_MAX: usize = 16;

/// What `recv` found.
#[derive(Debug)]
pub enum Received {
    /// One whole message.
    Message(Message),
    /// The peer closed its end (or died) and nothing it sent is left.
    Closed,
}

/// One message.
#[derive(Debug)]
pub struct Message {
    /// Its bytes, 1 to `MESSAGE_BYTES_MAX`.
    pub bytes: Vec<u8>,
    /// Its descriptors in the order they were attached, CLOEXEC.
    pub fds: Vec<OwnedFd>,
}

/// Why a message was not sent or received.
#[derive(Debug, thiserror::Error)]
pub enum SeqPacketError {
    /// A message must hold at least one byte, since an empty one looks like the peer's end.
    #[error("an empty message cannot be sent")]
    Empty,
    /// More than the named maximum, on either side.
    #[error("a message of {bytes} bytes exceeds the maximum of {MESSAGE_BYTES_MAX}")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// More descriptors than the named maximum, or than this process may open.
    #[error("a message came with more descriptors than could be taken (at most {MESSAGE_FDS_MAX})")]
    TooManyFds,
    /// Non-blocking, and there is nothing to read or no room to write.
    #[error("the socket is not ready")]
    WouldBlock,
    /// The peer closed its end, so nothing can be sent to it.
    #[error("the peer has closed the socket")]
    PeerClosed,
    /// Any other error of the kernel.
    #[error("socket error: {0}")]
    Io(#[from] io::Error),
}

impl SeqPacketError {
    /// Stable code for logs and callers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "seqpacket.empty",
            Self::TooLong { .. } => "seqpacket.too_long",
            Self::TooManyFds => "seqpacket.too_many_fds",
            Self::WouldBlock => "seqpacket.would_block",
            Self::PeerClosed => "seqpacket.peer_closed",
            Self::Io(_) => "seqpacket.io",
        }
    }
}

/// One end of a connected SOCK_SEQPACKET socket.
#[derive(Debug)]
pub struct SeqPacket(OwnedFd);

impl SeqPacket {
    /// A connected pair, both ends CLOEXEC and blocking.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (left, right) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(left), Self(right)))
    }

    /// Takes an end that came from elsewhere.
    pub fn from_owned(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Gives the descriptor away, as to a child's standard input.
    pub fn into_owned(self) -> OwnedFd {
        self.0
    }

    /// A second handle on the same end.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Makes `send` and `recv` fail with `WouldBlock` instead of waiting.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        crate::fds::set_nonblocking(&self.0, on)
    }

    /// Sends one message with copies of `fds` attached. Raises no SIGPIPE.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), SeqPacketError> {
        self.send_flags(bytes, fds, SendFlags::NOSIGNAL)
    }

    /// As `send`, but never waits: `WouldBlock` if the peer's queue is full.
    pub fn try_send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), SeqPacketError> {
        self.send_flags(bytes, fds, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    /// Receives the next message; waits for it unless the socket is non-blocking.
    pub fn recv(&self) -> Result<Received, SeqPacketError> {
        self.recv_flags(RecvFlags::empty())
    }

    /// As `recv`, but never waits: `WouldBlock` if there is none.
    pub fn try_recv(&self) -> Result<Received, SeqPacketError> {
        self.recv_flags(RecvFlags::DONTWAIT)
    }

    /// As `recv`, but waits at most `timeout`; None if nothing came.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Received>, SeqPacketError> {
        if crate::process::poll_readable(self.0.as_fd(), timeout)? { self.recv().map(Some) } else { Ok(None) }
    }

    fn send_flags(
        &self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> Result<(), SeqPacketError> {
        if bytes.is_empty() {
            return Err(SeqPacketError::Empty);
        }
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(SeqPacketError::TooLong { bytes: bytes.len() });
        }
        if fds.len() > MESSAGE_FDS_MAX {
            return Err(SeqPacketError::TooManyFds);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(SeqPacketError::TooManyFds);
        }
        loop {
            match rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut ancillary, flags) {
                // SEQPACKET sends a message whole or not at all.
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(SeqPacketError::WouldBlock),
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => {
                    return Err(SeqPacketError::PeerClosed);
                }
                Err(err) => return Err(io::Error::from(err).into()),
            }
        }
    }

    fn recv_flags(&self, flags: RecvFlags) -> Result<Received, SeqPacketError> {
        // Asks for the size first, so that a waiting reader holds no large buffer.
        let size = match self.recv_raw(&mut [], None, flags | RecvFlags::PEEK | RecvFlags::TRUNC)? {
            None => return Ok(Received::Closed),
            Some((size, _)) => size,
        };
        let mut bytes = vec![0; size.min(MESSAGE_BYTES_MAX)];
        let mut fds = Vec::new();
        let Some((read, returned)) =
            self.recv_raw(&mut bytes, Some(&mut fds), RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC)?
        else {
            return Ok(Received::Closed);
        };
        if returned.contains(ReturnFlags::TRUNC) || read > bytes.len() {
            return Err(SeqPacketError::TooLong { bytes: read });
        }
        if returned.contains(ReturnFlags::CTRUNC) || fds.len() > MESSAGE_FDS_MAX {
            return Err(SeqPacketError::TooManyFds);
        }
        bytes.truncate(read);
        Ok(Received::Message(Message { bytes, fds }))
    }

    /// One recvmsg: its true length and flags, or None at the peer's end.
    fn recv_raw(
        &self,
        bytes: &mut [u8],
        fds: Option<&mut Vec<OwnedFd>>,
        flags: RecvFlags,
    ) -> Result<Option<(usize, ReturnFlags)>, SeqPacketError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS_MAX))];
        let mut none = [];
        let mut ancillary =
            RecvAncillaryBuffer::new(if fds.is_some() { &mut space[..] } else { &mut none[..] });
        let received = loop {
            match rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(bytes)], &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(SeqPacketError::WouldBlock),
                // A peer that ended with messages of ours unread resets the connection.
                Err(Errno::CONNRESET) => return Ok(None),
                Err(err) => return Err(io::Error::from(err).into()),
                Ok(received) => break received,
            }
        };
        if let Some(fds) = fds {
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    fds.extend(received);
                }
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        Ok(Some((received.bytes, received.flags)))
    }
}

impl AsFd for SeqPacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for SeqPacket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn message(received: Received) -> Message {
        match received {
            Received::Message(message) => message,
            Received::Closed => panic!("closed"),
        }
    }

    #[test]
    fn messages_keep_their_borders_and_descriptors() {
        let (left, right) = SeqPacket::pair().unwrap();
        let pipe = crate::fds::pipe_cloexec().unwrap();
        left.send(b"one", &[pipe.write.as_fd(), pipe.read.as_fd()]).unwrap();
        left.send(&vec![7; MESSAGE_BYTES_MAX], &[]).unwrap();
        drop(pipe);
        let first = message(right.recv().unwrap());
        assert_eq!(first.bytes, b"one");
        let [write, read] = <[OwnedFd; 2]>::try_from(first.fds).unwrap();
        for fd in [&write, &read] {
            assert!(rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        }
        rustix::io::write(&write, b"through").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(rustix::io::read(&read, &mut buffer).unwrap(), 7);
        let second = message(right.recv().unwrap());
        assert_eq!(second.bytes.len(), MESSAGE_BYTES_MAX);
        assert!(second.fds.is_empty());
    }

    #[test]
    fn the_end_is_told_from_silence() {
        let (left, right) = SeqPacket::pair().unwrap();
        assert!(matches!(right.try_recv(), Err(SeqPacketError::WouldBlock)));
        assert!(right.recv_timeout(Duration::from_millis(1)).unwrap().is_none());
        left.send(b"last", &[]).unwrap();
        drop(left);
        assert_eq!(message(right.recv().unwrap()).bytes, b"last");
        assert!(matches!(right.recv().unwrap(), Received::Closed));
        assert!(matches!(right.send(b"x", &[]), Err(SeqPacketError::PeerClosed)));
    }

    #[test]
    fn a_peer_that_dies_with_unread_messages_is_an_end_not_an_error() {
        let (left, right) = SeqPacket::pair().unwrap();
        right.send(b"never read", &[]).unwrap();
        drop(left);
        assert!(matches!(right.recv().unwrap(), Received::Closed));
    }

    #[test]
    fn limits_are_refused_on_both_sides() {
        let (left, right) = SeqPacket::pair().unwrap();
        assert!(matches!(left.send(b"", &[]), Err(SeqPacketError::Empty)));
        let long = vec![0; MESSAGE_BYTES_MAX + 1];
        assert!(matches!(left.send(&long, &[]), Err(SeqPacketError::TooLong { .. })));
        // A peer that does not keep our limits.
        rustix::net::send(&left, &long, SendFlags::empty()).unwrap();
        assert!(matches!(right.recv(), Err(SeqPacketError::TooLong { bytes }) if bytes == long.len()));
        left.send(b"after", &[]).unwrap();
        assert_eq!(message(right.recv().unwrap()).bytes, b"after");
        let fds = vec![left.as_fd(); MESSAGE_FDS_MAX + 1];
        assert!(matches!(left.send(b"x", &fds), Err(SeqPacketError::TooManyFds)));
    }

    #[test]
    fn a_full_queue_is_reported_not_waited_for() {
        const SENDS_MAX: usize = 10_000;
        let (left, _right) = SeqPacket::pair().unwrap();
        let refused = (0..SENDS_MAX).find_map(|_| left.try_send(&[1; 4096], &[]).err());
        assert!(matches!(refused, Some(SeqPacketError::WouldBlock)));
    }
}
