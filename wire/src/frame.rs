//! The one framing of the host link (host ↔ shim) and the runtime channel (shim ↔ tool), without I/O.
//!
//! ```text
//! offset  size  field
//!      0     4  payload length, bytes, big-endian, at most FRAME_PAYLOAD_BYTES_MAX
//!      4     1  kind (see `channel` and `link`)
//!      5     3  reserved, zero
//!      8     8  call id, big-endian; 0 = belongs to no call
//!     16     …  payload
//! ```
//! A frame that breaks a rule ends the channel: after it nothing on the stream can be trusted.

/// Bytes before the payload.
pub const FRAME_HEADER_BYTES: usize = 16;
/// Largest payload: the largest body, and room for what wraps it.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = crate::http::BODY_BYTES_MAX + 64 * 1024;
/// Largest payload of a record, progress, usage or account frame; longer ones are cut or dropped by the sender.
pub const SMALL_PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of payload that follow.
    pub payload_bytes: usize,
    /// What it is; the meaning belongs to the channel.
    pub kind: u8,
    /// The call it belongs to, 0 for none.
    pub call_id: u64,
}

/// Why a stream of frames cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Announced longer than [`FRAME_PAYLOAD_BYTES_MAX`].
    #[error("a frame of {0} bytes was announced, more than the {FRAME_PAYLOAD_BYTES_MAX} allowed")]
    TooLong(usize),
    /// Reserved bytes are not zero: the peer lost step or speaks another protocol.
    #[error("a frame header has reserved bytes set: the peer does not speak this protocol")]
    Reserved,
}

impl FrameHeader {
    /// The sixteen bytes on the stream.
    #[must_use]
    pub fn encode(self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0u8; FRAME_HEADER_BYTES];
        let length = u32::try_from(self.payload_bytes).unwrap_or(u32::MAX);
        out[..4].copy_from_slice(&length.to_be_bytes());
        out[4] = self.kind;
        out[8..].copy_from_slice(&self.call_id.to_be_bytes());
        out
    }

    /// Reads a head; nothing of the payload is looked at.
    ///
    /// # Errors
    /// When the length is above the maximum or reserved bytes are set.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, FrameError> {
        let [l0, l1, l2, l3, kind, r0, r1, r2, call_id @ ..] = *bytes;
        if (r0, r1, r2) != (0, 0, 0) {
            return Err(FrameError::Reserved);
        }
        let payload_bytes = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if payload_bytes > FRAME_PAYLOAD_BYTES_MAX {
            return Err(FrameError::TooLong(payload_bytes));
        }
        Ok(Self { payload_bytes, kind, call_id: u64::from_be_bytes(call_id) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_decodes(payload_bytes in 0..=FRAME_PAYLOAD_BYTES_MAX, kind: u8, call_id: u64) {
            let header = FrameHeader { payload_bytes, kind, call_id };
            prop_assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn any_sixteen_bytes_decode_or_are_refused(bytes: [u8; FRAME_HEADER_BYTES]) {
            if let Ok(header) = FrameHeader::decode(&bytes) {
                prop_assert!(header.payload_bytes <= FRAME_PAYLOAD_BYTES_MAX);
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }

    #[test]
    fn broken_heads_are_named() {
        assert_eq!(
            FrameHeader::decode(b"\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0"),
            Err(FrameError::TooLong(u32::MAX as usize))
        );
        assert_eq!(FrameHeader::decode(b"HTTP/1.1 200 OK\r"), Err(FrameError::Reserved));
    }
}
