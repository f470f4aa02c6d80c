//! The folders of a data directory are the user's own, whatever umask made them: what tools keep there may be anything.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Bits of a mode that let others in.
const OTHERS: u32 = 0o077;

/// Makes a data directory that is not there yet, for its user alone. One that is there keeps its mode.
pub(crate) fn make(directory: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Makes the folder of what tools keep, or closes it to others. One that belongs to somebody else stays as it is.
pub(crate) fn keep_private(data_dir: &Path) -> std::io::Result<()> {
    let folder = data_dir.join("data");
    make(&folder)?;
    let meta = std::fs::metadata(&folder)?;
    if meta.uid() == cjm_platform::runtime_dir::effective_uid() && meta.mode() & OTHERS != 0 {
        std::fs::set_permissions(&folder, Permissions::from_mode(meta.mode() & !OTHERS & 0o7777))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_keep_is_closed_to_others() {
        let folder = tempfile::tempdir().expect("tempdir");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
        let fresh = folder.path().join("fresh");
        make(&fresh).and_then(|()| keep_private(&fresh)).expect("made");
        assert_eq!((mode(&fresh), mode(&fresh.join("data"))), (0o700, 0o700));
        std::fs::set_permissions(fresh.join("data"), Permissions::from_mode(0o777)).expect("chmod");
        std::fs::set_permissions(&fresh, Permissions::from_mode(0o755)).expect("chmod");
        make(&fresh).and_then(|()| keep_private(&fresh)).expect("kept");
        assert_eq!((mode(&fresh), mode(&fresh.join("data"))), (0o755, 0o700));
    }
}
