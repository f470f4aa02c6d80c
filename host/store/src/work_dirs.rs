//! Directories in which calls of programs ran and left their results: `WORKER/CALL` in the folder `work` of each capability's
//! own data. They go with the jobs of their age.
//!
//! What must hold: a call that runs keeps its directory; no link is followed, nothing goes of what is mounted at the folder
//! of a worker or in that of a call, and nothing that has not the name which the host gives: a disk may be mounted above
//! with files of another kind.

use cjm_platform::lock::DirectoryLock;
use cjm_platform::mounts::{mounted_in, remove_tree};
use cjm_wire::cache::{is_call_directory, is_session_directory, running_mark};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) directories: u64,
    pub(crate) bytes: u64,
    /// What could not be removed or looked into, with the reason.
    pub(crate) left: Vec<(PathBuf, String)>,
}

/// Removes the directories that were last changed before that. One that cannot be removed stays for the next time.
pub(crate) fn forget(data_dir: &Path, before: SystemTime) -> Gone {
    let mut gone = Gone::default();
    let left = &mut gone.left;
    for worker in sessions(data_dir, left) {
        for call in folders(&worker, left).into_iter().filter(|path| is_call_directory(path)) {
            if !is_older(&call, before) {
                continue;
            }
            let bytes = bytes_below(&call);
            match forget_unused(&call) {
                Ok(true) => {
                    gone.directories += 1;
                    gone.bytes += bytes;
                }
                Ok(false) => {}
                // By somebody else, meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => left.push((call, error.to_string())),
            }
        }
        // Succeeds where nothing is left in it.
        let _ = fs::remove_dir(&worker);
    }
    gone
}

/// The folders in which the calls of workers ran. What has another name is not ours, nor is what is mounted there. What
/// cannot be looked into is added to `left`.
pub fn sessions(data_dir: &Path, left: &mut Vec<(PathBuf, String)>) -> Vec<PathBuf> {
    // Whoever has put `data` on another disk has put these there, too; in one that came along no link stands there.
    let Ok(data) = fs::canonicalize(data_dir.join("data")) else { return Vec::new() };
    let mut all = Vec::new();
    for capability in folders(&data, left) {
        let work = capability.join("work");
        let workers = folders(&work, left);
        let mounted = if workers.is_empty() { Vec::new() } else { mounted_in(&work) };
        let is_mounted = |path: &Path| mounted.iter().any(|name| path.file_name() == Some(name));
        all.extend(workers.into_iter().filter(|path| is_session_directory(path) && !is_mounted(path)));
    }
    all
}

/// Removes the directory of a call; false where somebody uses it.
fn forget_unused(call: &Path) -> io::Result<bool> {
    let unseen = |error: io::Error| io::Error::new(error.kind(), format!("who uses it is not seen: {error}"));
    let Some(_alone) = taken(call).map_err(unseen)? else { return Ok(false) };
    remove_tree(call)?;
    let _ = fs::remove_file(running_mark(call));
    Ok(true)
}

/// Folders in a folder, without links; none of one that is a link itself: what that leads to is not the data directory's.
/// One that cannot be looked into is left.
fn folders(folder: &Path, left: &mut Vec<(PathBuf, String)>) -> Vec<PathBuf> {
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let entries = fs::symlink_metadata(folder).and_then(|found| match found.is_dir() {
        true => fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>(),
        false => Ok(Vec::new()),
    });
    match entries {
        Ok(entries) => entries.into_iter().filter(is_folder).map(|entry| entry.path()).collect(),
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                left.push((folder.to_owned(), format!("it cannot be looked into: {error}")));
            }
            Vec::new()
        }
    }
}

fn is_older(folder: &Path, before: SystemTime) -> bool {
    fs::symlink_metadata(folder).and_then(|meta| meta.modified()).is_ok_and(|changed| changed < before)
}

/// A directory that nobody uses, with its lock, so that nobody begins to copy from it while it goes; none where its mark is
/// there and locked, as while the call runs, or the directory itself is, as while somebody copies what the call has made.
///
/// # Errors
/// When that cannot be seen. Of one that nobody can lock somebody may make a copy all the same.
fn taken(call: &Path) -> io::Result<Option<DirectoryLock>> {
    if runs(call)? { Ok(None) } else { DirectoryLock::try_acquire(call) }
}

fn runs(call: &Path) -> io::Result<bool> {
    let mark = running_mark(call);
    let is_file = match fs::metadata(&mark) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        found => found?.is_file(),
    };
    // A tool may have put a FIFO there, which nobody else would open.
    if !is_file {
        return Ok(false);
    }
    match File::open(mark)?.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The bytes of all files in a folder and below it; links lead nowhere.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    /// A call's directory with so many bytes in it, last changed so long ago.
    fn call(folder: &Path, path: &str, bytes: usize, hours: u64) -> PathBuf {
        let call = folder.join(path);
        fs::create_dir_all(call.join("deep")).expect("made");
        fs::write(call.join("deep/result"), vec![b'x'; bytes]).expect("written");
        let changed = SystemTime::now() - Duration::from_secs(hours * 3600);
        File::open(&call).expect("opens").set_modified(changed).expect("set");
        call
    }

    #[test]
    fn what_is_old_goes_unless_it_runs_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        let data = dir.join("data");
        let session = |number: u8| format!("01a22857-1886-7071-832b-00000000000{number}");
        let [w1, w2, w3, w4, w5, w6] = [1, 2, 3, 4, 5, 6].map(session);
        let [sort, other] = ["sort", "other"].map(|name| data.join(name).join("work"));
        let old = call(&sort, &format!("{w1}/1"), 10, 5);
        let older = call(&sort, &format!("{w1}/2"), 20, 50);
        let new = call(&sort, &format!("{w2}/1"), 40, 0);
        let running = call(&sort, &format!("{w3}/1"), 80, 50);
        let killed = call(&other, &format!("{w4}/1"), 160, 50);
        let lock = File::create(running_mark(&running)).expect("made");
        lock.lock().expect("locked");
        File::create(running_mark(&killed)).expect("made");
        let own = call(&data.join("sort/models"), &format!("{w5}/1"), 320, 50);
        let elsewhere = dir.join("elsewhere");
        let outside = call(&elsewhere.join("work"), &format!("{w6}/1"), 640, 50);
        symlink(&elsewhere, data.join("linked")).expect("linked");
        symlink(&outside, sort.join(&w2).join("7")).expect("linked");
        fs::create_dir(data.join("own")).expect("made");
        symlink(elsewhere.join("work"), data.join("own/work")).expect("linked");
        // What somebody keeps on a disk that is mounted there.
        let photos = call(&sort, "photos/2019", 1280, 50);
        let empty = sort.join("plans");
        fs::create_dir(&empty).expect("made");
        let named = call(&sort, &format!("{w6}/2019-07"), 2560, 50);
        let before = SystemTime::now() - Duration::from_secs(3600);
        assert_eq!(forget(dir, before), Gone { directories: 3, bytes: 190, left: Vec::new() });
        assert!([&old, &older, &killed].iter().all(|gone| !gone.exists()));
        assert!(
            [&new, &running, &own, &outside, &photos, &named]
                .iter()
                .all(|kept| kept.join("deep/result").exists())
        );
        assert!(empty.is_dir(), "it was never ours");
        assert!(!sort.join(&w1).exists() && !other.join(&w4).exists());
        drop(lock);
        // Nor goes what somebody copies.
        let copied = [(); 2].map(|()| DirectoryLock::try_share(&running).expect("asked").expect("locked"));
        assert_eq!(forget(dir, before), Gone::default());
        drop(copied);
        // Nor does anybody begin to copy what goes.
        let going = taken(&running).expect("asked").expect("nobody uses it");
        assert!(DirectoryLock::try_share(&running).expect("asked").is_none());
        drop(going);
        assert_eq!(forget(dir, before), Gone { directories: 1, bytes: 80, left: Vec::new() });
        assert_eq!(forget(&dir.join("nowhere"), before), Gone::default());
        // The user has put it on another disk.
        let named = dir.join("named");
        fs::create_dir(&named).expect("made");
        symlink(&data, named.join("data")).expect("linked");
        let again = call(&sort, &format!("{w1}/1"), 10, 5);
        assert_eq!(forget(&named, before).directories, 1);
        assert!(!again.exists() && photos.exists() && outside.exists());
    }

    #[test]
    fn what_cannot_be_asked_who_uses_it_stays_and_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let work = dir.path().join("data/sort/work");
        let [asked, unseen] = ["1", "2"]
            .map(|number| call(&work, &format!("01a22857-1886-7071-832b-000000000001/{number}"), 10, 50));
        // The kernel follows it for as long as it does.
        symlink(running_mark(&unseen), running_mark(&unseen)).expect("linked");
        let gone = forget(dir.path(), SystemTime::now() - Duration::from_secs(3600));
        assert_eq!((gone.directories, gone.left.len()), (1, 1), "{gone:?}");
        assert!(!asked.exists() && unseen.join("deep/result").exists());
        assert!(gone.left[0].0 == unseen && gone.left[0].1.contains("who uses it is not seen"), "{gone:?}");
        // As with the directory itself.
        let linked = work.join("01a22857-1886-7071-832b-000000000001/3");
        symlink(&unseen, &linked).expect("linked");
        assert!(taken(&linked).is_err() && taken(&work.join("none")).is_err());
    }
}
