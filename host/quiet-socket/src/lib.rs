//! Unix sockets that wake their reader only when there is something to read.
//!
//! tokio's stream also hears each time that the peer has read something, since there might be room to write: one
//! wake-up more for every answer, and a small call is little more than its wake-ups. Here room is waited for only after
//! a write found none, through a second descriptor.

use cjm_platform::read::read_behind;
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, Join, ReadBuf, join};
use tokio::time::{Sleep, sleep};

/// How often a write that waits for room is tried all the same: while there is none, nobody is told that the peer has
/// shut down what it reads.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How often it is tried while there is no descriptor to wait with.
const REST: Duration = Duration::from_millis(20);

/// One end of a connection; [`Join::into_inner`] gives its two directions, for two tasks.
pub type QuietSocket = Join<QuietReader, QuietWriter>;

/// What comes of a connection.
#[derive(Debug)]
pub struct QuietReader(Arc<AsyncFd<UnixStream>>);

/// What goes into a connection; the peer hears of its end when it is dropped.
#[derive(Debug)]
pub struct QuietWriter {
    stream: Arc<AsyncFd<UnixStream>>,
    /// Made when a write has to wait for the first time.
    writable: Option<AsyncFd<UnixStream>>,
    /// While a write waits: when it is tried again, whatever is told until then.
    again: Option<Pin<Box<Sleep>>>,
}

/// One end of a pair, or of an accepted connection, on the runtime this is called in.
///
/// # Errors
/// When the runtime does not take it.
pub fn register(stream: UnixStream) -> io::Result<QuietSocket> {
    stream.set_nonblocking(true)?;
    let stream = Arc::new(attend(stream, Interest::READABLE)?);
    Ok(join(QuietReader(Arc::clone(&stream)), QuietWriter { stream, writable: None, again: None }))
}

/// Connects to what listens at `path`.
///
/// # Errors
/// When nobody listens there, or no descriptor is to be had.
pub async fn connect(path: &Path) -> io::Result<QuietSocket> {
    register(tokio::net::UnixStream::connect(path).await?.into_std()?)
}

#[expect(
    deprecated,
    reason = "its successor is unsafe because some types may lie about their descriptor; a stream owns its own"
)]
fn attend(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::try_with_interest(stream, interest).map_err(Into::into)
}

impl AsyncRead for QuietReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining();
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
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

impl QuietWriter {
    fn poll_write_with(
        &mut self,
        context: &mut Context<'_>,
        mut write: impl FnMut(&mut &UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let waits = match (&self.writable, &mut self.again) {
                (Some(writable), again) => match writable.poll_write_ready(context)? {
                    Poll::Ready(mut room) => {
                        if let Ok(done) = room.try_io(|stream| write(&mut stream.get_ref())) {
                            self.again = None;
                            return Poll::Ready(done);
                        }
                        continue;
                    }
                    Poll::Pending => Some(again.get_or_insert_with(|| Box::pin(sleep(LOOK_INTERVAL)))),
                },
                (None, again) => again.as_mut(),
            };
            if let Some(waits) = waits {
                ready!(waits.as_mut().poll(context));
                self.again = None;
            }
            match write(&mut self.stream.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.begin_to_wait(),
                done => return Poll::Ready(done),
            }
        }
    }

    /// Has room waited for, or the next try where there is no descriptor for that: what is half written goes on.
    fn begin_to_wait(&mut self) {
        if self.writable.is_some() {
            return;
        }
        let second = self.stream.get_ref().try_clone();
        match second.and_then(|second| attend(second, Interest::WRITABLE)) {
            Ok(second) => self.writable = Some(second),
            Err(_) => self.again = Some(Box::pin(sleep(REST))),
        }
    }
}

impl AsyncWrite for QuietWriter {
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
        Poll::Ready(self.stream.get_ref().shutdown(Shutdown::Write))
    }
}

impl Drop for QuietWriter {
    fn drop(&mut self) {
        // One that is broken has ended already.
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::Read as _;
    use std::pin::pin;
    use std::time::Instant;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// More than a socket's buffers hold.
    const MUCH: usize = 4 * 1024 * 1024;

    #[tokio::test(flavor = "current_thread")]
    async fn what_does_not_fit_waits_for_room_and_all_arrives_in_order() {
        let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
        let mut ours = register(ours.into_std().unwrap()).unwrap();
        let sent: Vec<u8> = (0..MUCH).map(|at| (at % 251) as u8).collect();
        let expected = sent.clone();
        let echo = tokio::spawn(async move {
            let mut got = vec![0; MUCH];
            theirs.read_exact(&mut got).await.unwrap();
            theirs.write_all(&got).await.unwrap();
            let mut rest = Vec::new();
            theirs.read_to_end(&mut rest).await.unwrap();
            theirs.write_all(b"heard").await.unwrap();
            rest
        });
        ours.write_all(&sent).await.unwrap();
        assert!(ours.writer().writable.is_some(), "it had to wait");
        let mut back = vec![0; MUCH];
        ours.read_exact(&mut back).await.unwrap();
        assert!(back == expected);
        ours.write_all(b"the end").await.unwrap();
        ours.shutdown().await.unwrap();
        assert_eq!(echo.await.unwrap(), b"the end");
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"heard", "what is written has ended, not what is read");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_waits_for_an_answer_is_not_woken_when_its_question_is_read() {
        const ROUNDS: u64 = 50;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let peer = std::thread::spawn(move || {
            let (mut stream, mut byte) = (listener.accept().unwrap().0, [0]);
            while stream.read(&mut byte).unwrap() > 0 {
                // Long enough for the one who asked to be woken by what was read, if it were.
                std::thread::sleep(std::time::Duration::from_millis(1));
                stream.write_all(&byte).unwrap();
            }
        });
        let mut ours = connect(&path).await.unwrap();
        let (metrics, mut byte) = (tokio::runtime::Handle::current().metrics(), [0]);
        let before = metrics.worker_park_count(0);
        for _ in 0..ROUNDS {
            ours.write_all(b"?").await.unwrap();
            ours.read_exact(&mut byte).await.unwrap();
        }
        let parked = metrics.worker_park_count(0) - before;
        drop(ours);
        peer.join().unwrap();
        assert!(parked < ROUNDS * 3 / 2, "it slept {parked} times for {ROUNDS} answers");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_a_reader_had_no_room_for_it_gets_next() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = register(ours).unwrap();
        theirs.write_all(b"one and another").unwrap();
        for expected in ["one ", "and ", "anot", "her"] {
            let mut got = vec![0; expected.len()];
            let read = tokio::time::timeout(Duration::from_secs(20), ours.read_exact(&mut got)).await;
            read.expect("it is there").unwrap();
            assert_eq!(got, expected.as_bytes());
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_lies_in_pieces_is_written_at_once() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = register(ours).unwrap();
        assert!(ours.is_write_vectored());
        let pieces = [io::IoSlice::new(b"head"), io::IoSlice::new(b"body")];
        assert_eq!(ours.write_vectored(&pieces).await.unwrap(), 8);
        let mut got = [0; 8];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"headbody");
    }

    #[test]
    fn a_write_without_room_keeps_no_thread_and_goes_on_as_soon_as_there_is_some() {
        const ROUNDS: u32 = 20;
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (filled, fills) = std::sync::mpsc::channel();
        let writing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut ours = register(ours).unwrap();
                for _ in 0..ROUNDS {
                    let mut write = pin!(ours.write_all(&[7; MUCH]));
                    // It has filled what room there is.
                    let waits =
                        poll_fn(|context| Poll::Ready(write.as_mut().poll(context).is_pending())).await;
                    filled.send(waits).unwrap();
                    write.await.unwrap();
                }
            });
        });
        let (begun, mut got) = (Instant::now(), vec![0; MUCH]);
        for _ in 0..ROUNDS {
            assert!(fills.recv_timeout(Duration::from_secs(20)).expect("its thread goes on"), "all had room");
            theirs.read_exact(&mut got).unwrap();
        }
        writing.join().unwrap();
        // Not by the next look, of which each round would need many.
        assert!(begun.elapsed() < ROUNDS * LOOK_INTERVAL, "{:?}", begun.elapsed());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_write_without_room_is_tried_once_in_each_interval() {
        const LOOKS: u32 = 4;
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (_reader, mut writer) = register(ours).unwrap().into_inner();
        let mut tries = 0;
        let mut write = |_: &mut &UnixStream| {
            tries += 1;
            assert!(tries < 10 * LOOKS, "it is tried without end");
            Err(io::ErrorKind::WouldBlock.into())
        };
        let waiting = poll_fn(|context| writer.poll_write_with(context, &mut write));
        assert!(tokio::time::timeout(LOOKS * LOOK_INTERVAL, waiting).await.is_err(), "it has no room");
        // Once more at the beginning, and where the kernel says that there is room.
        assert!((2..=LOOKS + 2).contains(&tries), "{tries}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_write_without_room_ends_when_the_peer_shuts_down_what_it_reads() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut ours = register(ours).unwrap();
        let writing = tokio::spawn(async move { ours.write_all(&vec![7; MUCH]).await });
        tokio::time::sleep(LOOK_INTERVAL / 2).await;
        assert!(!writing.is_finished(), "it waits for room");
        theirs.shutdown(Shutdown::Read).unwrap();
        let ended =
            tokio::time::timeout(20 * LOOK_INTERVAL, writing).await.expect("it does not wait for ever");
        assert_eq!(ended.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_halves_work_side_by_side_and_the_peer_hears_of_the_end_of_each() {
        let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
        let (mut reader, mut writer) = register(ours.into_std().unwrap()).unwrap().into_inner();
        let sent = vec![7; MUCH];
        let writing = tokio::spawn(async move {
            writer.write_all(&sent).await.unwrap();
        });
        theirs.write_all(b"meanwhile").await.unwrap();
        let mut word = [0; 9];
        reader.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"meanwhile");
        let mut got = Vec::new();
        // Though the reader holds the connection open.
        theirs.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), MUCH);
        writing.await.unwrap();
        theirs.write_all(b"and later").await.unwrap();
        reader.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"and later");
        drop(reader);
        assert!(theirs.write_all(b"nobody").await.is_err());
    }
}
