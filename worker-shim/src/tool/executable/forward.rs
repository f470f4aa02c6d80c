//! Passes a program's output on to the host's pipe. The host always reads; if it does not, output is dropped in
//! the middle and counted, and this process never waits for it.

use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
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
}

#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    dropped_bytes: u64,
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

    /// Queues output, or drops it and counts.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.bytes + bytes.len() > FORWARD_BYTES_MAX {
            queue.dropped_bytes += bytes.len() as u64;
            return;
        }
        if queue.dropped_bytes > 0 {
            let note = format!("\n[{} bytes of output dropped: nobody read them]\n", queue.dropped_bytes);
            queue.dropped_bytes = 0;
            queue.bytes += note.len();
            queue.pieces.push_back(note.into());
        }
        queue.bytes += bytes.len();
        queue.pieces.push_back(Bytes::copy_from_slice(bytes));
        drop(queue);
        self.shared.filled.notify_one();
    }
}

impl Shared {
    async fn write_all(self: Arc<Self>, mut out: impl AsyncWrite + Unpin) {
        loop {
            let filled = self.filled.notified();
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pieces.pop_front();
            let Some(piece) = next else {
                filled.await;
                continue;
            };
            // A host that closed its pipe wants no output; the queue then fills and drops.
            if out.write_all(&piece).await.is_err() || out.flush().await.is_err() {
                return;
            }
            self.queue.lock().unwrap_or_else(PoisonError::into_inner).bytes -= piece.len();
        }
    }
}

/// An open file of its own on the same pipe: its O_NONBLOCK is not seen by programs that inherited ours. Fails
/// for what is no pipe.
fn open_pipe(descriptor: i32) -> io::Result<pipe::Sender> {
    pipe::OpenOptions::new().open_sender(format!("/proc/self/fd/{descriptor}"))
}
