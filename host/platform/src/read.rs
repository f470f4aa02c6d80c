//! Reading into memory that holds nothing yet.

#![expect(
    unsafe_code,
    reason = "memory that was not written before may be read only as far as the kernel filled it"
)]

use bytes::BufMut;
use std::io;
use std::os::fd::AsFd;

/// Reads once from `fd` behind what `buffer` holds; how many bytes came, 0 at the end.
pub fn read_behind(fd: impl AsFd, buffer: &mut impl BufMut) -> io::Result<usize> {
    // SAFETY: what the slice shows is only written to, by the kernel, and never made uninitialised.
    let room = unsafe { buffer.chunk_mut().as_uninit_slice_mut() };
    let read = rustix::io::read(fd, room)?.0.len();
    // SAFETY: the kernel has written the first `read` bytes of this very slice.
    unsafe { buffer.advance_mut(read) };
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn what_comes_stands_behind_what_was_there() {
        let (mut writer, reader) = std::os::unix::net::UnixStream::pair().unwrap();
        writer.write_all(b"world").unwrap();
        drop(writer);
        let mut buffer = Vec::with_capacity(64);
        buffer.extend_from_slice(b"hello ");
        assert_eq!(read_behind(&reader, &mut buffer).unwrap(), 5);
        assert_eq!(read_behind(&reader, &mut buffer).unwrap(), 0);
        assert_eq!(buffer, b"hello world");
    }
}
