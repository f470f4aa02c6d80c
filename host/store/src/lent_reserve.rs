//! The reserve, lent to what makes room on a full disk: retention.
//!
//! What must hold: the reserve is there again afterwards, whatever came of the work.

use crate::error::StoreError;
use crate::place::cut_log;
use crate::room::{RESERVE_BYTES, available, give_up_reserve, make_reserve};
use std::path::Path;

/// Gives the journal's log to the disk where there is little room; then does `work`, and where it fails on a full disk, once
/// more in the room of the reserve, which is only lent to it.
///
/// # Errors
/// Those of `work`.
pub(crate) fn with_reserve<T>(
    data_dir: &Path,
    work: impl FnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    if available(data_dir).is_some_and(|bytes| bytes < RESERVE_BYTES) {
        cut_log(data_dir);
    }
    with_reserve_on(|| available(data_dir), data_dir, work)
}

/// The same on a disk with so much room.
fn with_reserve_on<T>(
    free: impl FnOnce() -> Option<u64>,
    data_dir: &Path,
    mut work: impl FnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match work() {
        Err(StoreError::NothingYet { path }) => Err(StoreError::NothingYet { path }),
        Err(_) if free().is_some_and(|bytes| bytes < RESERVE_BYTES) && give_up_reserve(data_dir) => {
            let done = work();
            // What it occupied goes back to it first.
            make_reserve(data_dir, 0);
            done
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::RESERVE_FILE;

    #[test]
    fn the_reserve_is_lent_on_a_full_disk_and_is_there_again_afterwards() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join(RESERVE_FILE);
        assert!(make_reserve(dir.path(), 0));
        let done = |free: u64, failures: usize| {
            let mut seen = Vec::new();
            let work = || {
                seen.push(path.exists());
                let failed = StoreError::Overloaded { waiting_bytes_max: 0 };
                if seen.len() > failures { Ok(()) } else { Err(failed) }
            };
            let done = with_reserve_on(|| Some(free), dir.path(), work);
            assert!(path.exists(), "free: {free}");
            (done.is_ok(), seen)
        };
        assert_eq!(done(0, 0), (true, vec![true]));
        assert_eq!(done(0, 1), (true, vec![true, false]), "in its room");
        assert_eq!(done(0, 2), (false, vec![true, false]), "once");
        assert_eq!(done(RESERVE_BYTES, 1), (false, vec![true]), "room is not what it lacks");
    }
}
