//! Reads and writes `wire` frames on an async stream: the host's end of the link.

use crate::redaction::Said;
use cjm_wire::frame::{FRAME_HEADER_BYTES, FrameHeader};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// One frame.
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) payload: Said,
}

/// The next frame; `None` at the end of the stream. A frame longer than `payload_bytes_max` is an error, because
/// the host link carries small things only.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    payload_bytes_max: usize,
) -> io::Result<Option<Frame>> {
    let mut head = [0u8; FRAME_HEADER_BYTES];
    match stream.read_exact(&mut head).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let header = FrameHeader::decode(&head).map_err(io::Error::other)?;
    if header.payload_bytes > payload_bytes_max {
        return Err(io::Error::other(format!("a link frame of {} bytes", header.payload_bytes)));
    }
    let mut payload = vec![0u8; header.payload_bytes];
    stream.read_exact(&mut payload).await?;
    Ok(Some(Frame { kind: header.kind, payload: Said::new(payload) }))
}

/// Writes one frame that belongs to no call.
pub(crate) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: u8,
    payload: &[u8],
) -> io::Result<()> {
    let header = FrameHeader { payload_bytes: payload.len(), kind, call_id: 0 }.encode();
    let mut message = Vec::with_capacity(header.len() + payload.len());
    message.extend_from_slice(&header);
    message.extend_from_slice(payload);
    stream.write_all(&message).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redaction::Redaction;

    #[tokio::test]
    async fn a_frame_beyond_the_maximum_is_refused_before_it_is_read_and_an_end_is_an_end() {
        let (mut here, mut there) = tokio::io::duplex(4096);
        for payload in ["12345", "123456"] {
            write(&mut here, 3, payload.as_bytes()).await.expect("written");
        }
        let frame = read(&mut there, 5).await.expect("fits").expect("one");
        assert_eq!((frame.kind, Redaction::default().words(&frame.payload).as_str()), (3, "12345"));
        let refused = read(&mut there, 5).await.err().expect("too long");
        assert!(refused.to_string().contains("6 bytes"), "{refused}");
        let (here, mut there) = tokio::io::duplex(64);
        drop(here);
        assert!(read(&mut there, 5).await.expect("an end").is_none());
    }
}
