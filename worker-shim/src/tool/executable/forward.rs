//! Passes a program's output on to the host's pipe. The host always reads; where it does not keep up, the oldest that
//! waits is dropped and counted, and this process never waits for it.
//!
//! What must hold: the middle goes and never the end, because what a program says last is why it failed; what is here
//! when the worker ends is written before it ends.

use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::Notify;

/// Bytes that wait for the host at most.
const FORWARD_BYTES_MAX: usize = 1024 * 1024;

/// The way to descriptor 1 or 2. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Forwarder {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Notify,
    /// All was written, or nobody will write any more.
    drained: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// Dropped behind what was written last.
    dropped_bytes: u64,
    writing: bool,
    closed: bool,
}

impl Forwarder {
    /// Starts writing to `descriptor` (1 or 2).
    pub(crate) fn start(descriptor: i32) -> Self {
        let forwarder = Self::default();
        let shared = Arc::clone(&forwarder.shared);
        match open_pipe(descriptor) {
            Ok(pipe) => drop(tokio::spawn(shared.write_all(pipe))),
            // A file or a terminal, when somebody tries things by hand.
            Err(_) => {
                let copy = match descriptor {
                    1 => io::stdout().as_fd().try_clone_to_owned(),
                    _ => io::stderr().as_fd().try_clone_to_owned(),
                };
                if let Ok(copy) = copy {
                    let file = tokio::fs::File::from_std(std::fs::File::from(copy));
                    tokio::spawn(shared.write_all(file));
                }
            }
        }
        forwarder
    }

    /// Queues output; the oldest that waits makes room for it.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut queue = self.shared.lock();
        if queue.closed {
            return;
        }
        queue.bytes += bytes.len();
        queue.pieces.push_back(Bytes::copy_from_slice(bytes));
        while queue.bytes > FORWARD_BYTES_MAX {
            let Some(oldest) = queue.pieces.pop_front() else { break };
            queue.bytes -= oldest.len();
            queue.dropped_bytes += oldest.len() as u64;
        }
        drop(queue);
        self.shared.filled.notify_one();
    }

    /// Waits until all that was queued is written, at most `limit`.
    pub(crate) async fn flush(&self, limit: Duration) {
        let all_written = async {
            loop {
                let drained = self.shared.drained.notified();
                if self.shared.lock().is_idle() {
                    return;
                }
                drained.await;
            }
        };
        // A host that does not read gets no more than its pipe holds.
        let _ = tokio::time::timeout(limit, all_written).await;
    }
}

impl Shared {
    async fn write_all(self: Arc<Self>, mut out: impl AsyncWrite + Unpin) {
        loop {
            let filled = self.filled.notified();
            let next = self.lock().next();
            let Some(piece) = next else {
                self.drained.notify_waiters();
                filled.await;
                continue;
            };
            // A host that closed its pipe wants no output.
            if out.write_all(&piece).await.is_err() || out.flush().await.is_err() {
                break;
            }
        }
        let mut queue = self.lock();
        *queue = Queue { closed: true, ..Queue::default() };
        drop(queue);
        self.drained.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// What to write now; before what follows a gap, how large the gap is.
    fn next(&mut self) -> Option<Bytes> {
        let dropped = std::mem::take(&mut self.dropped_bytes);
        let next = if dropped > 0 {
            Some(format!("\n[{dropped} bytes of output dropped: nobody read them]\n").into())
        } else {
            self.pieces.pop_front().inspect(|piece| self.bytes -= piece.len())
        };
        self.writing = next.is_some();
        next
    }

    fn is_idle(&self) -> bool {
        self.closed || (self.pieces.is_empty() && self.dropped_bytes == 0 && !self.writing)
    }
}

/// An open file of its own on the same pipe: its O_NONBLOCK is not seen by programs that inherited ours. Fails
/// for what is no pipe.
fn open_pipe(descriptor: i32) -> io::Result<pipe::Sender> {
    pipe::OpenOptions::new().open_sender(format!("/proc/self/fd/{descriptor}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test(flavor = "current_thread")]
    async fn the_middle_of_a_flood_goes_its_end_stays_and_what_went_is_counted() {
        let forwarder = Forwarder::default();
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let writing = tokio::spawn(Arc::clone(&forwarder.shared).write_all(ours));
        let mut sent = 0_usize;
        let mut push = |text: &[u8]| {
            forwarder.push(text);
            sent += text.len();
        };
        push(b"first words\n");
        tokio::task::yield_now().await;
        for _ in 0..200 {
            push(&[b'x'; 64 * 1024]);
            tokio::task::yield_now().await;
        }
        push(b"\nlast words\n");
        let reading = tokio::spawn(async move {
            let mut text = Vec::new();
            theirs.read_to_end(&mut text).await.unwrap();
            String::from_utf8(text).unwrap()
        });
        forwarder.flush(Duration::from_secs(30)).await;
        assert!(forwarder.shared.lock().is_idle());
        writing.abort();
        let text = reading.await.unwrap();
        assert!(
            text.starts_with("first words\n") && text.ends_with("\nlast words\n"),
            "{} bytes",
            text.len()
        );
        assert!(text.len() < 2 * FORWARD_BYTES_MAX);
        let (before, rest) = text.split_once("\n[").unwrap();
        let (dropped, after) = rest.split_once(" bytes of output dropped: nobody read them]\n").unwrap();
        assert_eq!(before.len() + dropped.parse::<usize>().unwrap() + after.len(), sent);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_reader_that_is_gone_holds_nobody() {
        let forwarder = Forwarder::default();
        let (ours, theirs) = tokio::io::duplex(16);
        drop(theirs);
        let writing = tokio::spawn(Arc::clone(&forwarder.shared).write_all(ours));
        forwarder.push(b"for nobody");
        forwarder.flush(Duration::from_secs(30)).await;
        writing.await.unwrap();
        forwarder.push(b"and this");
        assert!(forwarder.shared.lock().pieces.is_empty());
    }
}
