//! Memory of this process that can be had again at any time.

#![expect(unsafe_code, reason = "giving pages back is safe only for pages that equal their file")]

use std::io;

/// Longest list of mappings that is looked at; a small helper has some thirty.
const MAPPINGS_MAX: usize = 4096;

/// Gives back pages that only starting needed: clean pages of programs and libraries, which the kernel maps again
/// from its cache when they are touched (some microseconds for sixteen). Returns how many bytes of address space
/// were looked at.
///
/// For a helper that has started and will wait for a long time: a dynamic loader touches most of what it loads.
pub fn release_clean_file_pages() -> io::Result<usize> {
    let mut released = 0;
    for line in std::fs::read_to_string("/proc/self/maps")?.lines().take(MAPPINGS_MAX) {
        let Some((start, length)) = clean_file_mapping(line) else { continue };
        // SAFETY: the range was just read from the kernel, is page-aligned and belongs to a private mapping of a file
        // that was never writable (see `clean_file_mapping`): its pages hold what the file holds, and come back as they were.
        let rc = unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        released += length;
    }
    Ok(released)
}

/// Start and length of a mapping of which no page can differ from its file: code, and the read-only head of an ELF
/// file. What the loader relocates and then protects (`.data.rel.ro`) is readable alone too, but never at offset 0.
///
/// Code equals its file unless the loader had to relocate it (`DT_TEXTREL`). Neither our position-independent
/// programs nor the C library have such text relocations: the linkers refuse to make them unless told otherwise.
fn clean_file_mapping(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let (_device, _inode, path) = (fields.next()?, fields.next()?, fields.next()?);
    let is_head = usize::from_str_radix(offset, 16).is_ok_and(|offset| offset == 0);
    if !path.starts_with('/') || !(permissions == "r-xp" || permissions == "r--p" && is_head) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_equals_its_file_is_given_back() {
        let taken = |line| clean_file_mapping(line).is_some();
        assert_eq!(
            clean_file_mapping("55d0-55e0 r-xp 00001000 fd:00 17 /usr/bin/true"),
            Some((0x55d0, 0x10))
        );
        assert!(taken("55d0-55e0 r--p 00000000 fd:00 17 /usr/bin/true"));
        assert!(!taken("55d0-55e0 r--p 00003000 fd:00 17 /usr/bin/true"), "may be relocated");
        assert!(!taken("55d0-55e0 rw-p 00000000 fd:00 17 /usr/bin/true"));
        assert!(!taken("55d0-55e0 r-xs 00000000 fd:00 17 /usr/bin/true"), "shared");
        assert!(!taken("55d0-55e0 rw-p 00000000 00:00 0 [heap]"));
        assert!(!taken("7ffe-7fff r-xp 00000000 00:00 0 [vdso]"));
        assert!(!taken("7ffe-7fff rw-p 00000000 00:00 0"));
        assert!(!taken("nonsense"));
    }

    #[test]
    fn the_process_goes_on_with_less() {
        let resident = || crate::usage::sample_processes(&[crate::Pid::current()]).rss_bytes;
        let before = resident();
        let released = release_clean_file_pages().unwrap();
        let after = resident();
        assert!(released > 0);
        assert!(after < before, "{before} before, {after} after");
    }
}
