//! The body of `/execute_stream`: one line for each chunk, pulled as the client reads, so that a slow reader
//! slows the tool and not this process' memory.
//!
//! What must hold: no chunk looks like the line that ends a call; only what failed the call does.

use super::state::Surface;
use crate::calls::CallState;
use crate::tool::channel::checked_chunk;
use crate::tool::{CancelScope, ChunkReader, StreamLine};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use cjm_wire::ndjson::chunk_text;
use futures_util::Stream;
use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The body; dropping it before its end cancels the call, since nobody could read the rest.
pub(crate) fn body(surface: Arc<Surface>, state: Arc<CallState>, chunks: ChunkReader) -> Body {
    Body::from_stream(Lines { surface, state, chunks, looking: None, ended: false })
}

/// A look at a chunk: the chunk, or the line that ends the stream instead.
type Looking = Pin<Box<dyn Future<Output = Result<Bytes, Bytes>> + Send>>;

struct Lines {
    surface: Arc<Surface>,
    state: Arc<CallState>,
    chunks: ChunkReader,
    looking: Option<Looking>,
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
        let word = ready!(this.poll_word(context));
        if matches!(word, Some(StreamLine::Failed(_)) | None)
            && this.surface.calls.withholds_failure(&this.state)
        {
            // No last line, and nobody to wake: the stream is cut with the process, after its last words.
            return Poll::Pending;
        }
        this.ended = !matches!(word, Some(StreamLine::Chunk(_)));
        let line = match word {
            Some(StreamLine::Chunk(chunk)) => match chunk_text(&chunk) {
                Cow::Borrowed(_) => chunk,
                Cow::Owned(text) => text.into(),
            },
            Some(StreamLine::Failed(line)) => line,
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

impl Lines {
    /// What comes next. A chunk that is no JSON fails the call, whose tool need not go on.
    fn poll_word(&mut self, context: &mut Context<'_>) -> Poll<Option<StreamLine>> {
        if self.looking.is_none() {
            match ready!(self.chunks.lines.poll_recv(context)) {
                Some(StreamLine::Chunk(chunk)) if self.chunks.is_unchecked => {
                    let looked = self.surface.calls.unwritten().looked_at();
                    self.looking = Some(Box::pin(async move {
                        let _looked = looked;
                        checked_chunk(chunk).await
                    }));
                }
                word => return Poll::Ready(word),
            }
        }
        let Some(looking) = &mut self.looking else { return Poll::Pending };
        let looked = ready!(looking.as_mut().poll(context));
        self.looking = None;
        Poll::Ready(Some(match looked {
            Ok(chunk) => StreamLine::Chunk(chunk),
            Err(line) => {
                self.cancel();
                StreamLine::Failed(line)
            }
        }))
    }

    fn cancel(&self) {
        self.state.cancel.cancel();
        self.surface.tool.cancel(std::slice::from_ref(&self.state), CancelScope::These);
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.ended {
            self.cancel();
        }
    }
}
