//! What a disk still takes. The kernel calls a disk full whether bytes or inodes are used up; its numbers tell which.

use std::path::Path;

/// What the disk of a path still takes from this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskRoom {
    /// Bytes that are free.
    pub bytes: u64,
    /// No inode is free for another file, though bytes are.
    pub lacks_inodes: bool,
}

impl DiskRoom {
    /// Of the disk of `path`, or of the nearest folder above it that is there; none where the system does not say.
    pub fn of(path: &Path) -> Option<Self> {
        let found = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok())?;
        let bytes = found.f_bavail.saturating_mul(found.f_frsize);
        Some(Self { bytes, lacks_inodes: lacks_inodes(bytes, found.f_files, found.f_favail) })
    }
}

/// A file system without a number of inodes has as many as it needs.
fn lacks_inodes(free_bytes: u64, inodes: u64, free_inodes: u64) -> bool {
    inodes > 0 && free_inodes == 0 && free_bytes > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_yet_is_on_the_disk_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let room = DiskRoom::of(&dir.path().join("not/yet")).unwrap();
        assert!(room.bytes > 0 && !room.lacks_inodes, "{room:?}");
    }

    #[test]
    fn inodes_lack_where_they_are_counted_and_bytes_are_free() {
        for (bytes, inodes, free, lacks) in
            [(9, 5, 0, true), (9, 5, 1, false), (0, 5, 0, false), (9, 0, 0, false)]
        {
            assert_eq!(lacks_inodes(bytes, inodes, free), lacks, "{free} of {inodes}, {bytes} bytes");
        }
    }
}
