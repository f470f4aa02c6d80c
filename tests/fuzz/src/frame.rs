//! Frames: any stream, however it is cut, gives frames whose heads encode to what was read, until it ends or breaks a
//! rule; and no announcement makes the reader hold memory for bytes that have not come.
#![no_main]

use cjm_wire::frame::{FRAME_HEADER_BYTES, FrameHeader};
use cjm_worker::fuzzing::Frames;
use libfuzzer_sys::fuzz_target;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// What the reader may hold beyond twice what has come.
const CAPACITY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Gives at most `piece` bytes at once, and every other time none.
struct Cut<'a> {
    rest: &'a [u8],
    piece: usize,
    waits: bool,
}

impl AsyncRead for Cut<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.waits = !self.waits;
        if self.waits {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = self.piece.min(self.rest.len()).min(out.remaining());
        let (now, later) = self.rest.split_at(count);
        out.put_slice(now);
        self.rest = later;
        Poll::Ready(Ok(()))
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((piece, stream)) = data.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(read(stream, usize::from(*piece) + 1));
});

async fn read(stream: &[u8], piece: usize) {
    let mut frames = Frames::new(Cut { rest: stream, piece, waits: false });
    let mut at = 0;
    let ended = loop {
        match frames.next().await {
            Ok(Some((kind, call_id, payload))) => {
                let head = FrameHeader { payload_bytes: payload.len(), kind, call_id }.encode();
                assert_eq!(stream[at..at + FRAME_HEADER_BYTES], head);
                at += FRAME_HEADER_BYTES;
                assert_eq!(stream[at..at + payload.len()], payload);
                at += payload.len();
            }
            Ok(None) => break true,
            Err(message) => {
                assert!(!message.is_empty());
                break false;
            }
        }
        assert!(frames.capacity() <= 2 * stream.len() + CAPACITY_BYTES_MAX, "{} bytes", frames.capacity());
    };
    assert!(frames.capacity() <= 2 * stream.len() + CAPACITY_BYTES_MAX, "{} bytes", frames.capacity());
    assert_eq!(ended, at == stream.len(), "a stream ends well exactly where a frame does");
    if let Some(head) = stream[at..].first_chunk::<FRAME_HEADER_BYTES>()
        && let Ok(header) = FrameHeader::decode(head)
    {
        assert_eq!(header.encode(), *head);
        assert!(
            stream.len() - at < FRAME_HEADER_BYTES + header.payload_bytes,
            "a whole frame was not given out"
        );
    }
}
