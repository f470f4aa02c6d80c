//! What the system answered where something was to be written or removed, as the error that says most of it.

use crate::error::EnvironmentError;
use cjm_platform::disk::DiskRoom;
use cjm_platform::mounts::is_mounted_over;
use cjm_store::room::is_about_room;
use std::path::{Path, PathBuf};

impl EnvironmentError {
    /// What the system answered where something was to be removed.
    pub(crate) fn removing(path: PathBuf, source: std::io::Error) -> Self {
        let action = "remove";
        Self::mounted_over(action, &path, &source).unwrap_or(Self::File { action, path, source })
    }

    fn mounted_over(action: &'static str, path: &Path, source: &std::io::Error) -> Option<Self> {
        let is_mount = source.kind() == std::io::ErrorKind::ResourceBusy && is_mounted_over(path);
        is_mount.then(|| Self::MountedOver { action, path: path.to_owned() })
    }

    /// What the system answered where something was to be written.
    pub(crate) fn writing(action: &'static str, path: PathBuf, source: std::io::Error) -> Self {
        if let Some(mounted) = Self::mounted_over(action, &path, &source) {
            mounted
        } else if is_about_room(&source) && lacks_inodes(&path) {
            Self::NoInode { action, path, stderr_tail: Vec::new() }
        } else if is_about_room(&source) {
            Self::NoRoom { action, path, source }
        } else if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem {
            Self::ReadOnly { action, path, source }
        } else {
            Self::File { action, path, source }
        }
    }
}

/// Whether the disk of this path takes no further file though bytes are free, which the system calls full, too.
pub(crate) fn lacks_inodes(path: &Path) -> bool {
    DiskRoom::of(path).is_some_and(|room| room.lacks_inodes)
}
