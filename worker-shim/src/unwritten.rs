//! Answers that a tool has given and that their clients do not have yet. One that ended right after its answer has
//! given it all the same, and a large one does not fit into a socket at once.
//!
//! What must hold: a connection counts while its last write found no room, and an answer while it is looked at; a call
//! without an answer never does. Who waits does so for a bounded time.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::Instant;

/// How long whoever reads may take for what was given.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// How long nobody may take anything of what is left.
    still: Duration,
    /// How long the rest may take in all, however steadily it is read.
    all: Duration,
}

/// Where only those who read are kept.
const WITH_READERS: Patience = Patience { still: Duration::from_secs(2), all: Duration::from_secs(30) };
/// Since somebody else waits for the end of the worker, which is all the answer that he gets.
const WITH_OTHERS: Patience = Patience { still: Duration::from_millis(500), all: Duration::from_secs(5) };
/// Time between two looks at what is left.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// The answers of one worker. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unwritten {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Answers that are looked at before they are written.
    looks: AtomicUsize,
    /// Connections whose last write found no room.
    full: AtomicUsize,
    /// Writes that found room after one that did not.
    moved: AtomicU64,
}

/// Something that a client is still to get, until this is dropped.
#[derive(Debug)]
pub(crate) struct Owed {
    to: Unwritten,
    why: Why,
}

#[derive(Debug, Clone, Copy)]
enum Why {
    Looked,
    Full,
}

impl Unwritten {
    /// An answer is looked at, until what this returns is dropped.
    pub(crate) fn looked_at(&self) -> Owed {
        self.owe(Why::Looked)
    }

    fn owe(&self, why: Why) -> Owed {
        self.count(why).fetch_add(1, Ordering::Relaxed);
        Owed { to: self.clone(), why }
    }

    fn count(&self, why: Why) -> &AtomicUsize {
        match why {
            Why::Looked => &self.shared.looks,
            Why::Full => &self.shared.full,
        }
    }

    fn owes(&self, why: Why) -> bool {
        self.count(why).load(Ordering::Relaxed) > 0
    }

    /// Waits until all that was given is written, or until nobody reads it, or until it takes too long for others, who wait
    /// for the end of this worker: while `others_wait`. For the thread that serves, on which nothing else runs: what was
    /// handed over in memory has been tried to be written when that thread has slept since.
    pub(crate) async fn written(&self, others_wait: impl Fn() -> bool) {
        let metrics = Handle::current().metrics();
        let began = Instant::now();
        let (mut moved, mut moved_at) = (self.moved(), began);
        let mut others_since = None;
        loop {
            let slept = metrics.worker_park_count(0);
            tokio::time::sleep(LOOK_INTERVAL).await;
            let (now, has_slept) = (Instant::now(), metrics.worker_park_count(0) != slept);
            if has_slept && !self.owes(Why::Looked) && !self.owes(Why::Full) {
                return;
            }
            let moved_before = std::mem::replace(&mut moved, self.moved());
            if moved != moved_before || self.owes(Why::Looked) {
                moved_at = now;
            }
            others_since = others_wait().then(|| others_since.unwrap_or(now));
            let is_over = |patience: Patience, since: Instant| {
                now - moved_at.max(since) > patience.still || now - since > patience.all
            };
            if is_over(WITH_READERS, began) || others_since.is_some_and(|since| is_over(WITH_OTHERS, since)) {
                return;
            }
        }
    }

    fn moved(&self) -> u64 {
        self.shared.moved.load(Ordering::Relaxed)
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.to.count(self.why).fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection on which answers are written.
#[derive(Debug)]
pub(crate) struct Answering<S> {
    stream: S,
    unwritten: Unwritten,
    /// While its last write found no room.
    owed: Option<Owed>,
}

impl<S> Answering<S> {
    pub(crate) fn new(stream: S, unwritten: Unwritten) -> Self {
        Self { stream, unwritten, owed: None }
    }

    fn note<T>(&mut self, written: Poll<T>) -> Poll<T> {
        if written.is_pending() {
            self.owed.get_or_insert_with(|| self.unwritten.owe(Why::Full));
        } else if self.owed.take().is_some() {
            self.unwritten.shared.moved.fetch_add(1, Ordering::Relaxed);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Answering<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Answering<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.note(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, pieces);
        this.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// How long what is owed is waited for.
    async fn waited(unwritten: &Unwritten, others_wait: impl Fn() -> bool) -> Duration {
        let began = Instant::now();
        unwritten.written(others_wait).await;
        began.elapsed()
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn what_is_read_is_waited_for_and_who_does_not_read_is_not() {
        let unwritten = Unwritten::default();
        for (patience, others_wait) in [(WITH_READERS, false), (WITH_OTHERS, true)] {
            let waited = async || waited(&unwritten, || others_wait).await;
            let Patience { still, all } = patience;
            assert!(waited().await < still / 2, "nothing is owed");

            let (ours, mut theirs) = tokio::io::duplex(1);
            let mut ours = Answering::new(ours, unwritten.clone());
            let writing = tokio::spawn(async move { ours.write_all(b"12345").await.map(|()| ours) });
            let reading = tokio::spawn(async move {
                let mut last = 0;
                for _ in 0..5 {
                    tokio::time::sleep(still * 4 / 5).await;
                    last = theirs.read_u8().await.expect("read");
                }
                (last, theirs)
            });
            assert!(waited().await > still * 3, "longer in all, since it is read on");
            let (mut ours, (last, theirs)) =
                (writing.await.expect("ends").expect("written"), reading.await.expect("ends"));
            assert_eq!(last, b'5');

            let writing = tokio::spawn(async move { ours.write_all(b"1234").await });
            let took = waited().await;
            assert!((still..still * 3 / 2).contains(&took), "nobody reads: {took:?}");
            writing.abort();
            let _ = writing.await;
            drop(theirs);
            assert!(waited().await < still / 2, "a connection that is gone waits for nothing");

            // A byte in each short time, for ever.
            let (ours, mut theirs) = tokio::io::duplex(1);
            let mut ours = Answering::new(ours, unwritten.clone());
            let writing = tokio::spawn(async move { while ours.write_all(b"1").await.is_ok() {} });
            let reading = tokio::spawn(async move {
                loop {
                    tokio::time::sleep(still / 2).await;
                    theirs.read_u8().await.expect("read");
                }
            });
            let took = waited().await;
            assert!((all..all + still).contains(&took), "however steadily it is read: {took:?}");
            reading.abort();
            let _ = (reading.await, writing.await);

            let looked = unwritten.looked_at();
            let looking = tokio::spawn(async move {
                tokio::time::sleep(still * 3 / 2).await;
                drop(looked);
            });
            assert!(waited().await > still * 5 / 4, "whoever looks is no slow reader");
            looking.await.expect("ends");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_was_handed_over_is_waited_for_before_its_thread_came_to_write_it() {
        let unwritten = Unwritten::default();
        let (ours, mut theirs) = tokio::io::duplex(1);
        let mut ours = Answering::new(ours, unwritten.clone());
        let writing = tokio::spawn(async move {
            // So much else is to be done first that many looks find nothing which has begun to be written.
            let begun = std::time::Instant::now();
            while begun.elapsed() < LOOK_INTERVAL * 50 {
                tokio::task::yield_now().await;
            }
            ours.write_all(b"12").await
        });
        let reading = tokio::spawn(async move { theirs.read_u16().await });
        unwritten.written(|| false).await;
        assert!(writing.is_finished());
        reading.await.expect("ends").expect("read");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn who_comes_later_and_waits_for_the_end_waits_no_longer_than_one_who_was_there() {
        let unwritten = Unwritten::default();
        let (ours, mut theirs) = tokio::io::duplex(1);
        let mut ours = Answering::new(ours, unwritten.clone());
        let writing = tokio::spawn(async move { while ours.write_all(b"1").await.is_ok() {} });
        let reading = tokio::spawn(async move {
            loop {
                tokio::time::sleep(WITH_OTHERS.still / 2).await;
                theirs.read_u8().await.expect("read");
            }
        });
        let (began, comes_after) = (Instant::now(), WITH_OTHERS.all * 2);
        let took = waited(&unwritten, || began.elapsed() > comes_after).await;
        let expected = comes_after + WITH_OTHERS.all;
        assert!((expected..expected + WITH_OTHERS.still).contains(&took), "{took:?}");
        reading.abort();
        let _ = (reading.await, writing.await);
    }
}
