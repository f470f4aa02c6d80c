//! The body of `/execute_stream`: one line for each chunk, pulled as the client reads, so that a slow reader
//! slows the tool and not this process' memory.

use super::state::Surface;
use crate::calls::CallState;
use crate::tool::{CancelScope, ChunkReader, StreamLine};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The body; dropping it before its end cancels the call, since nobody could read the rest.
pub(crate) fn body(surface: Arc<Surface>, state: Arc<CallState>, chunks: ChunkReader) -> Body {
    Body::from_stream(Lines { surface, state, chunks, ended: false })
}

struct Lines {
    surface: Arc<Surface>,
    state: Arc<CallState>,
    chunks: ChunkReader,
    /// The last word was taken, or will never come.
    ended: bool,
}

impl Stream for Lines {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let word = ready!(this.chunks.lines.poll_recv(context));
        if matches!(word, Some(StreamLine::Failed(_)) | None)
            && this.surface.calls.withholds_failure(&this.state)
        {
            // No last line, and nobody to wake: the stream is cut with the process, after its last words.
            return Poll::Pending;
        }
        this.ended = !matches!(word, Some(StreamLine::Chunk(_)));
        let line = match word {
            Some(StreamLine::Chunk(line) | StreamLine::Failed(line)) => line,
            Some(StreamLine::End) => return Poll::Ready(None),
            // The tool is gone and its stream has no end. The connection is broken off: an answer that ended would look
            // complete.
            None => return Poll::Ready(Some(Err(io::Error::other("the tool ended before its stream")))),
        };
        if let Some(credit) = &mut this.chunks.credit {
            credit.chunk_taken();
        }
        let mut out = BytesMut::with_capacity(line.len() + 1);
        out.extend_from_slice(&line);
        out.extend_from_slice(b"\n");
        Poll::Ready(Some(Ok(out.freeze())))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.ended {
            self.state.cancel.cancel();
            self.surface.tool.cancel(std::slice::from_ref(&self.state), CancelScope::These);
        }
    }
}
