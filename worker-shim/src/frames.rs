//! Frames over a stream: the one reader and writer for the host link and the runtime channel. The layout is
//! `cjm_wire::frame`'s; meanings belong to `link` and `tool::channel`.
//!
//! What must hold: reading survives being dropped between polls (nothing read is lost); memory follows what has come,
//! not what was announced; a payload is copied at most once on its way in, once more at most while a large one grows,
//! and never on its way out.

use bytes::{Buf, Bytes, BytesMut};
use cjm_wire::frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes asked for at once while no large payload is expected.
const READ_BYTES: usize = 16 * 1024;
/// Bytes for which room is made on a frame's word alone; from there on room doubles as they come. Growing moves no
/// bytes where the allocator can remap them, as it does for blocks this large.
const ANNOUNCED_BYTES_MAX: usize = 1024 * 1024;

/// One frame.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// What it is; the meaning belongs to the channel.
    pub(crate) kind: u8,
    /// The call it belongs to, 0 for none.
    pub(crate) call_id: u64,
    /// What it says.
    pub(crate) payload: Bytes,
}

impl Frame {
    /// A frame of no call with a JSON payload.
    pub(crate) fn json(kind: u8, call_id: u64, value: &impl serde::Serialize) -> Self {
        // Types of `wire` have string keys and no maps that could fail; an empty payload is refused by every
        // reader, so a failure would be seen.
        Self { kind, call_id, payload: serde_json::to_vec(value).unwrap_or_default().into() }
    }

    /// A frame without payload.
    pub(crate) fn empty(kind: u8, call_id: u64) -> Self {
        Self { kind, call_id, payload: Bytes::new() }
    }
}

/// Why the stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// A frame breaks the rules.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It ended inside a frame.
    #[error("the stream ended inside a frame")]
    Cut,
    /// A system call failed.
    #[error("reading failed: {0}")]
    Io(#[from] io::Error),
}

/// Reads frames, one after the other.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame, or None at the end of the stream. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            let wanted = match self.take()? {
                Taken::Frame(frame) => return Ok(Some(frame)),
                Taken::Missing(bytes) => bytes,
            };
            let believed = wanted.min(self.buffer.len().max(ANNOUNCED_BYTES_MAX));
            self.buffer.reserve(believed.max(READ_BYTES));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ReadError::Cut) };
            }
        }
    }

    /// Bytes that the reader holds memory for.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    fn take(&mut self) -> Result<Taken, FrameError> {
        let Some(head) = self.buffer.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(Taken::Missing(FRAME_HEADER_BYTES));
        };
        let header = FrameHeader::decode(head)?;
        let whole = FRAME_HEADER_BYTES + header.payload_bytes;
        if self.buffer.len() < whole {
            return Ok(Taken::Missing(whole - self.buffer.len()));
        }
        self.buffer.advance(FRAME_HEADER_BYTES);
        let payload = self.buffer.split_to(header.payload_bytes).freeze();
        Ok(Taken::Frame(Frame { kind: header.kind, call_id: header.call_id, payload }))
    }
}

enum Taken {
    Frame(Frame),
    Missing(usize),
}

/// Writes one frame; head and payload leave in one system call where the kernel takes them.
pub(crate) async fn write_frame<W: AsyncWrite + Unpin>(stream: &mut W, frame: Frame) -> io::Result<()> {
    let header = FrameHeader { payload_bytes: frame.payload.len(), kind: frame.kind, call_id: frame.call_id };
    let head = Bytes::copy_from_slice(&header.encode());
    stream.write_all_buf(&mut head.chain(frame.payload)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_wire::frame::FRAME_PAYLOAD_BYTES_MAX;
    use tokio::io::duplex;

    #[tokio::test(flavor = "current_thread")]
    async fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let (mut left, right) = duplex(7);
        let sizes = [0_usize, 1, 15, 16, 17, 70_000];
        let writer = tokio::spawn(async move {
            for (index, size) in sizes.into_iter().enumerate() {
                let payload = Bytes::from(vec![index as u8; size]);
                write_frame(&mut left, Frame { kind: 3, call_id: index as u64, payload }).await.unwrap();
            }
        });
        let mut reader = FrameReader::new(right);
        for (index, size) in sizes.into_iter().enumerate() {
            let frame = reader.next().await.unwrap().unwrap();
            assert_eq!((frame.kind, frame.call_id, frame.payload.len()), (3, index as u64, size));
            assert!(frame.payload.iter().all(|byte| *byte == index as u8));
        }
        writer.await.unwrap();
        assert!(reader.next().await.unwrap().is_none());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_cut_and_a_foreign_stream_are_errors() {
        let mut cut = FrameReader::new(&b"\0\0\0\x05\x01\0\0\0\0\0\0\0\0\0\0\0ab"[..]);
        assert!(matches!(cut.next().await, Err(ReadError::Cut)));
        let mut foreign = FrameReader::new(&b"GET / HTTP/1.1\r\nHost: x"[..]);
        assert!(matches!(foreign.next().await, Err(ReadError::Frame(_))));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_long_frame_takes_memory_as_it_comes_and_not_as_it_is_announced() {
        let announced = FrameHeader { payload_bytes: FRAME_PAYLOAD_BYTES_MAX, kind: 1, call_id: 1 };
        let head = announced.encode();
        let mut liar = FrameReader::new(&head[..]);
        assert!(matches!(liar.next().await, Err(ReadError::Cut)));
        assert!(liar.capacity() <= 2 * ANNOUNCED_BYTES_MAX, "{} bytes", liar.capacity());

        let length = 5 * ANNOUNCED_BYTES_MAX + 3;
        let header = FrameHeader { payload_bytes: length, kind: 1, call_id: 1 };
        let sent: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let stream = [&header.encode()[..], &sent, b"\0"].concat();
        let mut reader = FrameReader::new(&stream[..]);
        assert!(reader.next().await.unwrap().unwrap().payload == sent);
        assert!(matches!(reader.next().await, Err(ReadError::Cut)));
    }
}
