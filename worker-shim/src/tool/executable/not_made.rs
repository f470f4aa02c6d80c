//! A directory of a call that could not be made: who can help, and what of its disk is used up.

use crate::sdk::ToolError;
use cjm_platform::disk::DiskRoom;
use cjm_wire::error::{Resource, ResourceShortfall, no_inode};
use std::io::{Error, ErrorKind};
use std::path::Path;

/// The system's number for a disk that fails.
const EIO: i32 = 5;
const MB_BYTES: f64 = 1024.0 * 1024.0;

/// Whether the disk takes no more: bytes, inodes or the user's share of them are used up.
pub(crate) fn is_full(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Where there is no room it is for lack of it; what has to be looked after first is not tried again.
pub(crate) fn not_made(dir: &Path, error: &Error) -> ToolError {
    let message = format!("the call's directory {} cannot be made: {error}", dir.display());
    match error.kind() {
        // Of a user's share the disk's own numbers say nothing.
        ErrorKind::QuotaExceeded => for_lack_of_room(message, None),
        _ if is_full(error) => for_lack_of_room(message, DiskRoom::of(dir)),
        ErrorKind::OutOfMemory => ToolError::resource(message),
        ErrorKind::NotADirectory | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            ToolError::fatal(message)
        }
        _ if error.raw_os_error() == Some(EIO) => ToolError::fatal(message),
        _ => ToolError::transient(message),
    }
}

/// The system's words name no inodes; its numbers do.
fn for_lack_of_room(message: String, room: Option<DiskRoom>) -> ToolError {
    #[expect(clippy::cast_precision_loss, reason = "no disk has so many bytes")]
    let available = room.map(|room| room.bytes as f64 / MB_BYTES);
    let message = match room {
        Some(DiskRoom { bytes, lacks_inodes: true }) => format!("{message} ({})", no_inode(bytes)),
        _ => message,
    };
    ToolError::resource(message).shortfall(ResourceShortfall {
        resource: Resource::Disk,
        needed: None,
        available,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_wire::error::NO_INODE;

    #[test]
    fn a_disk_without_inodes_is_told_as_that_and_a_full_one_is_not() {
        for (room, speaks) in [
            (Some(DiskRoom { bytes: 4096, lacks_inodes: true }), true),
            (Some(DiskRoom { bytes: 0, lacks_inodes: false }), false),
            (None, false),
        ] {
            let told = for_lack_of_room("full".to_owned(), room).job_error("tool");
            assert_eq!(told.message.contains(NO_INODE), speaks, "{room:?}: {told:?}");
            assert_eq!(told.resource_shortfall.map(|known| known.resource), Some(Resource::Disk));
        }
    }
}
