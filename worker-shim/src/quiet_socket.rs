//! Unix sockets that wake their reader only when there is something to read.
//!
//! tokio's stream also hears each time that the peer has read something, since there might be room to write: one
//! wake-up more for every answer, and a small call is little more than its wake-ups. Here room is waited for only after
//! a write found none, through a second descriptor.

use cjm_platform::read::read_behind;
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// Accepts connections as `axum::serve` wants them.
#[derive(Debug)]
pub(crate) struct QuietListener(pub(crate) tokio::net::UnixListener);

impl axum::serve::Listener for QuietListener {
    type Io = QuietSocket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (QuietSocket, SocketAddr) {
        loop {
            // It waits where accept fails for want of descriptors, and tries again.
            let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
            match stream.into_std().and_then(QuietSocket::new) {
                Ok(socket) => return (socket, address.into()),
                Err(error) => eprintln!("a connection is lost: {error}"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr().map(Into::into)
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct QuietSocket {
    readable: AsyncFd<UnixStream>,
    /// Made when a write has to wait for the first time.
    writable: Option<AsyncFd<UnixStream>>,
}

impl QuietSocket {
    /// Of a stream that does not block.
    fn new(stream: UnixStream) -> io::Result<Self> {
        Ok(Self { readable: register(stream, Interest::READABLE)?, writable: None })
    }

    fn poll_write_with(
        &mut self,
        context: &mut Context<'_>,
        mut write: impl FnMut(&mut &UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let writable = match &mut self.writable {
            Some(writable) => writable,
            none => match write(&mut self.readable.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let again = self.readable.get_ref().try_clone()?;
                    none.insert(register(again, Interest::WRITABLE)?)
                }
                done => return Poll::Ready(done),
            },
        };
        loop {
            let mut room = ready!(writable.poll_write_ready(context))?;
            if let Ok(done) = room.try_io(|stream| write(&mut stream.get_ref())) {
                return Poll::Ready(done);
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe because some types may lie about their descriptor; a stream owns its own"
)]
fn register(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::try_with_interest(stream, interest).map_err(Into::into)
}

impl AsyncRead for QuietSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining();
        loop {
            let mut ready = ready!(self.readable.poll_read_ready(context))?;
            match ready.try_io(|stream| read_behind(stream.get_ref(), buffer)) {
                Ok(Ok(read)) => {
                    // Less than there was room for: nothing is left, and the next look would only find that out.
                    if 0 < read && read < room {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for QuietSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_with(context, |stream| stream.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_with(context, |stream| stream.write_vectored(pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.readable.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// More than a socket's buffers hold.
    const MUCH: usize = 4 * 1024 * 1024;

    #[tokio::test(flavor = "current_thread")]
    async fn what_does_not_fit_waits_for_room_and_all_arrives_in_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        for stream in [&ours, &theirs] {
            stream.set_nonblocking(true).unwrap();
        }
        let mut ours = QuietSocket::new(ours).unwrap();
        let mut theirs = tokio::net::UnixStream::from_std(theirs).unwrap();
        let sent: Vec<u8> = (0..MUCH).map(|at| (at % 251) as u8).collect();
        let expected = sent.clone();
        let echo = tokio::spawn(async move {
            let mut got = vec![0; MUCH];
            theirs.read_exact(&mut got).await.unwrap();
            theirs.write_all(&got).await.unwrap();
            let mut rest = Vec::new();
            theirs.read_to_end(&mut rest).await.unwrap();
            rest
        });
        ours.write_all(&sent).await.unwrap();
        assert!(ours.writable.is_some(), "it had to wait");
        let mut back = vec![0; MUCH];
        ours.read_exact(&mut back).await.unwrap();
        assert!(back == expected);
        ours.write_all(b"the end").await.unwrap();
        ours.shutdown().await.unwrap();
        assert_eq!(echo.await.unwrap(), b"the end");
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"", "the peer is gone");
    }
}
