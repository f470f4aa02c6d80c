//! The folders of a data directory are the user's own, whatever umask made them: what tools keep there may be anything.
//! And what killed calls left in theirs goes with the next host: nothing lives there any more.

use cjm_platform::lock::{DirectoryLock, FileLock};
use cjm_platform::mounts::remove_tree;
use cjm_store::work_dirs::sessions;
use cjm_wire::cache::{is_call_directory, marked_directory};
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bits of a mode that let others in.
const OTHERS: u32 = 0o077;

/// Makes a data directory that is not there yet, for its user alone. One that is there keeps its mode.
pub(crate) fn make(directory: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Makes the folder of what tools keep, or closes it to others. One that belongs to somebody else stays as it is, and so does
/// one that a link leads to: it is not the data directory's own. What failed is told with what was tried, and on what.
pub(crate) fn keep_private(data_dir: &Path) -> Result<(), (&'static str, PathBuf, std::io::Error)> {
    let folder = data_dir.join("data");
    let failed = |action| {
        let folder = folder.clone();
        move |source| (action, folder, source)
    };
    make(&folder).map_err(failed("make"))?;
    let meta = std::fs::symlink_metadata(&folder).map_err(failed("look at"))?;
    if meta.is_dir() && meta.uid() == cjm_platform::runtime_dir::effective_uid() && meta.mode() & OTHERS != 0
    {
        std::fs::set_permissions(&folder, Permissions::from_mode(meta.mode() & !OTHERS & 0o7777))
            .map_err(failed("close to others"))?;
    }
    Ok(())
}

/// Removes the directories of calls that were killed; says how many. Results of calls that ended well, and files kept for
/// later calls, have no mark and stay. The caller holds the host's lock, and no worker of a dead host lives.
pub(crate) fn clear_killed_calls(data_dir: &Path) -> usize {
    let mut unread = Vec::new();
    let sessions = sessions(data_dir, &mut unread);
    for (path, error) in unread {
        tracing::debug!(path = %path.display(), error, "what killed calls left there is not seen");
    }
    let mut cleared = 0;
    for session in sessions {
        for mark in children(&session) {
            let Some(left) = marked_directory(&mark).filter(|path| is_call_directory(path)) else { continue };
            // A worker of the ancestor's host may be at work here; its call holds the lock.
            let Ok(_lock) = FileLock::try_acquire(&mark, "") else { continue };
            // Nor does anybody copy from it, or begin to.
            let is_directory = std::fs::symlink_metadata(&left).is_ok_and(|meta| meta.is_dir());
            let alone = is_directory.then(|| DirectoryLock::try_acquire(&left)).transpose();
            if !matches!(alone, Ok(None | Some(Some(_)))) {
                tracing::info!(path = %left.display(), ?alone, "what a killed call left is used, and stays");
                continue;
            }
            match remove_tree(&left) {
                // What stays is found again by the next host.
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %left.display(), %error, "what a killed call left cannot be removed");
                }
                _ => {
                    let _ = std::fs::remove_file(&mark);
                    cleared += 1;
                }
            }
        }
        // Succeeds when nothing else lies there.
        let _ = std::fs::remove_dir(&session);
    }
    cleared
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(listing) = std::fs::read_dir(folder) else { return Vec::new() };
    listing.filter_map(Result::ok).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_keep_is_closed_to_others() {
        let folder = tempfile::tempdir().expect("tempdir");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
        let fresh = folder.path().join("fresh");
        make(&fresh).expect("made");
        keep_private(&fresh).expect("made");
        assert_eq!((mode(&fresh), mode(&fresh.join("data"))), (0o700, 0o700));
        std::fs::set_permissions(fresh.join("data"), Permissions::from_mode(0o777)).expect("chmod");
        std::fs::set_permissions(&fresh, Permissions::from_mode(0o755)).expect("chmod");
        make(&fresh).expect("kept");
        keep_private(&fresh).expect("kept");
        assert_eq!((mode(&fresh), mode(&fresh.join("data"))), (0o755, 0o700));
        // What a link leads to is not ours to close.
        let elsewhere = folder.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).expect("mkdir");
        std::fs::set_permissions(&elsewhere, Permissions::from_mode(0o755)).expect("chmod");
        std::fs::remove_dir(fresh.join("data")).expect("removed");
        std::os::unix::fs::symlink(&elsewhere, fresh.join("data")).expect("linked");
        keep_private(&fresh).expect("left as it is");
        assert_eq!(mode(&elsewhere), 0o755);
    }

    #[test]
    fn what_stands_in_the_place_of_the_folder_is_named() {
        let folder = tempfile::tempdir().expect("tempdir");
        std::fs::write(folder.path().join("data"), "a file").expect("written");
        let (action, path, _) = keep_private(folder.path()).expect_err("it is no folder");
        assert_eq!((action, path), ("make", folder.path().join("data")));
    }

    #[test]
    fn what_killed_calls_left_goes_and_results_and_kept_files_stay() {
        use cjm_wire::cache::running_mark;
        let folder = tempfile::tempdir().expect("tempdir");
        let work = folder.path().join("data/tool").join("work");
        let session = work.join("01a22857-1886-7071-832b-98ab3cc0675c");
        let call = |name: &str| {
            let path = session.join(name);
            std::fs::create_dir_all(&path).expect("mkdir");
            std::fs::write(path.join("file"), "x").expect("write");
            path
        };
        let (killed, result, runs) = (call("1"), call("2"), call("3"));
        std::fs::write(running_mark(&killed), "").expect("write");
        let held = FileLock::try_acquire(&running_mark(&runs), "").expect("lock");
        let kept = folder.path().join("data/tool/act/page/abc");
        std::fs::create_dir_all(&kept).expect("mkdir");
        // What somebody keeps there, with names that are not the host's.
        let others = [work.join("photos/1"), work.join("empty"), session.join("mine")];
        for other in &others {
            std::fs::create_dir_all(other).expect("mkdir");
            std::fs::write(running_mark(other), "").expect("write");
        }
        let elsewhere = folder.path().join("elsewhere").join(session.file_name().expect("a name"));
        std::fs::create_dir_all(elsewhere.join("1")).expect("mkdir");
        std::fs::write(running_mark(&elsewhere.join("1")), "").expect("write");
        std::fs::create_dir(folder.path().join("data/linked")).expect("mkdir");
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), folder.path().join("data/linked/work"))
            .expect("linked");
        let copied = DirectoryLock::try_share(&killed).expect("asked").expect("locked");
        assert_eq!(clear_killed_calls(folder.path()), 0);
        assert!(killed.join("file").exists(), "somebody copies it");
        drop(copied);
        assert_eq!(clear_killed_calls(folder.path()), 1);
        assert!(!killed.exists() && !running_mark(&killed).exists());
        assert!(result.join("file").exists() && runs.join("file").exists() && kept.exists());
        drop(held);
        assert_eq!(clear_killed_calls(folder.path()), 1);
        assert!(!runs.exists() && result.exists());
        assert!(others.iter().all(|other| other.exists()) && elsewhere.join("1").exists());
    }
}
