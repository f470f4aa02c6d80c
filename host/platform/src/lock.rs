//! One owner per file: `flock(2)` with the owner's name inside.
//!
//! The lock belongs to the open file, not to the process: a copy of the descriptor in another process keeps
//! it. That is meant, since a keeper holds `tree.lock` on behalf of a host that is gone. What must hold: the
//! kernel releases it when the last copy is closed, however its holders die.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::files::{FileError, refuse_link_or_no_file};
use crate::mounts::mounted_in;
use crate::process::Pid;
use rustix::fs::FlockOperation;

/// How often a waiting `acquire` tries again. flock has no timeout of its own, and a signal to interrupt it
/// would be felt by the whole embedding process.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// Longest owner text that is read back.
const OWNER_BYTES_MAX: u64 = 4096;

/// What the kernel calls an exclusive lock.
const EXCLUSIVE: &str = "WRITE";

/// An exclusive lock, held until this and every copy of its descriptor are closed.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("{path} is locked by {}", holder.as_deref().unwrap_or("an unnamed process"))]
    Held {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote about itself, if it got so far.
        holder: Option<String>,
    },
    /// The file could not be opened, locked or written.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl LockError {
    /// Stable code for logs and callers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Held { .. } => "lock.held",
            Self::Io { .. } => "lock.io",
        }
    }
}

impl FileLock {
    /// Takes the lock now or fails with `LockError::Held`. Creates the file (0600) and writes `owner` into it.
    pub fn try_acquire(path: &Path, owner: &str) -> Result<Self, LockError> {
        Self::acquire(path, owner, Duration::ZERO)
    }

    /// As `try_acquire`, but waits at most `timeout` for the holder to let go.
    pub fn acquire(path: &Path, owner: &str, timeout: Duration) -> Result<Self, LockError> {
        let failed = |source: io::Error| LockError::Io { path: path.to_owned(), source };
        // A FIFO opens, and takes no text at a place.
        refuse_link_or_no_file(path).map_err(|error| failed(io::Error::other(error)))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(failed)?;
        let start = Instant::now();
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let left = timeout.saturating_sub(start.elapsed());
                    if left.is_zero() {
                        return Err(LockError::Held { path: path.to_owned(), holder: holder(path) });
                    }
                    std::thread::sleep(left.min(RETRY_PAUSE));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(err) => return Err(failed(err.into())),
            }
        }
        let lock = Self { file, path: path.to_owned() };
        lock.set_owner(owner).map_err(failed)?;
        Ok(lock)
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a new text about the owner, of one line, as when its socket is known. The line is written whole before what
    /// is left of a longer one is cut off, so that whoever reads meanwhile finds a line that was meant.
    pub fn set_owner(&self, owner: &str) -> io::Result<()> {
        let line = format!("{owner}\n");
        self.file.write_all_at(line.as_bytes(), 0)?;
        self.file.set_len(line.len() as u64)
    }

    /// Whether the path still leads to the locked file. False once it was removed, replaced or moved away with its
    /// directory: somebody else can then lock the path beside us, and what stands under it is not ours any more.
    pub fn still_named(&self) -> io::Result<bool> {
        let locked = self.file.metadata()?;
        match std::fs::symlink_metadata(&self.path) {
            Ok(named) => Ok((named.dev(), named.ino()) == (locked.dev(), locked.ino())),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// A copy of the descriptor for another process, which then holds the lock as well.
    pub fn share(&self) -> io::Result<OwnedFd> {
        crate::fds::copy_of(&self.file)
    }

    /// The descriptor itself; the lock lives as long as that.
    pub fn into_owned(self) -> OwnedFd {
        self.file.into()
    }
}

/// A lock of a directory, for which no file is made; held until this and every copy of its descriptor are closed.
#[derive(Debug)]
pub struct DirectoryLock {
    _directory: File,
}

impl DirectoryLock {
    /// Takes the lock now, alone; none where somebody else holds it, or shares it.
    ///
    /// # Errors
    /// When there is no such directory, or it cannot be locked.
    pub fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        Self::take(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes the lock now beside others who share it; none where somebody holds it alone.
    ///
    /// # Errors
    /// As for [`DirectoryLock::try_acquire`].
    pub fn try_share(path: &Path) -> io::Result<Option<Self>> {
        Self::take(path, FlockOperation::NonBlockingLockShared)
    }

    fn take(path: &Path, how: FlockOperation) -> io::Result<Option<Self>> {
        let directory = open_directory(path)?;
        match rustix::fs::flock(&directory, how) {
            Ok(()) => Ok(Some(Self { _directory: directory })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether somebody holds it alone. Asking takes the lock, shared, for an instant.
    ///
    /// # Errors
    /// When there is no such directory, or it cannot be asked.
    pub fn is_held(path: &Path) -> io::Result<bool> {
        match rustix::fs::flock(&open_directory(path)?, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether an error of [`DirectoryLock`] says that nobody of this user can lock that path, whenever he tries: there is no such
/// directory, or its file system has no locks. Of others, as of too many open files, somebody else may know nothing.
#[must_use]
pub fn is_for_nobody(error: &io::Error) -> bool {
    let without_locks = [libc::ENOSYS, libc::EOPNOTSUPP, libc::ENOLCK];
    let no_such_directory = [libc::ENOENT, libc::ENOTDIR, libc::ELOOP, libc::EACCES];
    let is_one = |code: &i32| error.raw_os_error() == Some(*code);
    without_locks.iter().chain(&no_such_directory).any(is_one)
}

fn open_directory(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}

/// The process that holds the lock of a file or a directory, where the kernel shows it: those of other users and of other
/// containers are hidden.
pub fn locking_process(path: &Path) -> Option<Pid> {
    process_with_lock(path, EXCLUSIVE)
}

/// A process that holds the lock of a file together with others, likewise. Nobody of ours does for longer than an instant.
pub fn sharing_process(path: &Path) -> Option<Pid> {
    process_with_lock(path, "READ")
}

fn process_with_lock(path: &Path, kind: &str) -> Option<Pid> {
    let (_, inode) = file_of(path)?;
    let inode = format!(":{inode}");
    // `1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`, and `1: -> FLOCK …` for one that waits (proc_locks(5)).
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let holders = locks.lines().filter_map(|line| {
        let [_, "FLOCK", _, found, pid, file, ..] = *line.split_whitespace().collect::<Vec<_>>() else {
            return None;
        };
        Pid::from_raw(pid.parse().ok()?).filter(|_| found == kind && file.ends_with(&inode))
    });
    // The number of a file is another file's on another disk.
    holders.into_iter().find(|pid| has_open(*pid, path))
}

/// The folders of a data directory that a host locks, those of them that there are, beside its `host.lock`: somebody may
/// remove that, and any of them, too. The lock of the data directory itself is that of whoever makes a database in it, and what a link leads to may be
/// another's, too.
const FOLDERS_OF_HOST: [&str; 3] = ["payloads", "data", "manifests"];

/// The file of a data directory that names its host.
const HOST_LOCK: &str = "host.lock";
/// How [`holder_without_file`] begins of a program that is none.
pub const NO_HOST: &str = "a program that is no host and has locked a folder there";

/// The locks that a host has of folders of its data directory.
#[derive(Debug)]
#[must_use]
pub struct FoldersOfHost(Vec<DirectoryLock>);

impl FoldersOfHost {
    /// Whether there was no folder that can be locked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, or none where somebody has one.
    fn try_acquire(data_dir: &Path) -> Option<Self> {
        // One that is not there, or cannot be locked, keeps nobody out.
        let tried = folders_of_host(data_dir).filter_map(|folder| DirectoryLock::try_acquire(&folder).ok());
        tried.collect::<Option<_>>().map(Self)
    }
}

/// Those of a data directory, without what is mounted there: other data directories may have the same.
fn folders_of_host(data_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let mounted = mounted_in(data_dir);
    let own = FOLDERS_OF_HOST.iter().filter(move |name| mounted.iter().all(|mount| mount != *name));
    own.map(|name| data_dir.join(name))
}

/// Takes the locks of the folders of a host, and waits at most `timeout` for whoever has one. Blocks.
///
/// # Errors
/// `WouldBlock` when somebody has it.
pub fn take_folders_of_host(data_dir: &Path, timeout: Duration) -> io::Result<FoldersOfHost> {
    let start = Instant::now();
    loop {
        if let Some(folders) = FoldersOfHost::try_acquire(data_dir) {
            return Ok(folders);
        }
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        std::thread::sleep(left.min(RETRY_PAUSE));
    }
}

/// Whether a host has the lock of a folder of its own. Asking takes the lock, shared, for an instant. One that cannot be asked has no
/// lock of a host: it is not there yet, or its file system has no such locks.
pub fn is_folder_of_host_held(data_dir: &Path) -> bool {
    folders_of_host(data_dir).any(|folder| DirectoryLock::is_held(&folder).unwrap_or(false))
}

fn processes_with_a_folder(data_dir: &Path) -> impl Iterator<Item = Pid> {
    folders_of_host(data_dir).filter_map(|folder| locking_process(&folder))
}

/// The host among them.
fn host_with_a_folder(data_dir: &Path) -> Option<Pid> {
    let data_dir = std::fs::canonicalize(data_dir).ok()?;
    processes_with_a_folder(&data_dir).find(|pid| has_lock_of_host(*pid, &data_dir))
}

/// Whether a process has open what is or was the lock of the host of this directory; false where that is hidden.
fn has_lock_of_host(process: Pid, data_dir: &Path) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let mut names = descriptors.filter_map(|one| std::fs::read_link(one.path()).ok());
    // With ` (deleted)` behind it where it is gone.
    let is_lock = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(HOST_LOCK.as_bytes());
    names.any(|name| name.file_name().is_some_and(is_lock) && name.parent() == Some(data_dir))
}

/// What is known of whoever holds the locks of the folders of a host, where no file names it: the host whose file was
/// removed, or another program that has locked one of them.
pub fn holder_without_file(data_dir: &Path) -> String {
    if let Some(pid) = host_with_a_folder(data_dir) {
        return format!("pid {pid}, whose {HOST_LOCK} was removed");
    }
    match processes_with_a_folder(data_dir).next() {
        Some(pid) => format!("{NO_HOST} (pid {pid})"),
        None => format!("a process, whose {HOST_LOCK} was removed"),
    }
}

/// The process of the host that runs on a directory, by what it wrote into its lock, or by the kernel's word where that
/// is gone.
pub fn host_process(data_dir: &Path, holder: &str) -> Option<Pid> {
    holding_process(&data_dir.join(HOST_LOCK), holder).or_else(|| host_with_a_folder(data_dir))
}

/// What the present or the last holder of `path` wrote about itself; None if nothing can be read. Only means
/// "is held by" right after a failed attempt to lock.
pub fn holder(path: &Path) -> Option<String> {
    let mut text = String::new();
    crate::files::open_regular(path).ok()?.take(OWNER_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text.lines().next()?.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What whoever holds the lock of `path` wrote about itself (nothing, if it did not get so far); none where nobody holds
/// it. Asking takes the lock, shared, for an instant.
///
/// # Errors
/// When there is a lock, and it cannot be asked.
pub fn held_by(path: &Path) -> Result<Option<String>, FileError> {
    let file = match crate::files::open_regular(path) {
        Ok(file) => file,
        // Nobody has been there yet.
        Err(error) if error.io_kind() == Some(io::ErrorKind::NotFound) => return Ok(None),
        Err(error) => return Err(error),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(holder(path).unwrap_or_default())),
        Err(error) => {
            Err(FileError::Io { path: path.to_owned(), action: "asked for its lock", source: error.into() })
        }
        Ok(()) => Ok(None),
    }
}

/// The process that a host's text names (`pid 7 since 2026-11-28T…, sockets in …`), if it has the lock's file open: a
/// number that was left behind, or comes from another container, is somebody else's here.
pub fn holding_process(path: &Path, holder: &str) -> Option<Pid> {
    let pid = holder.strip_prefix("pid ")?.split([' ', ',']).next()?.parse().ok()?;
    Pid::from_raw(pid).filter(|pid| has_open(*pid, path))
}

/// Whether a process has this file open; false where that is hidden.
pub fn has_open(process: Pid, path: &Path) -> bool {
    let Some(wanted) = file_of(path) else { return false };
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd"));
    descriptors.is_ok_and(|mut all| all.any(|one| one.is_ok_and(|one| file_of(&one.path()) == Some(wanted))))
}

/// At most so many processes that hold the lock of this file, and have not taken it themselves; those of others are hidden.
pub fn processes_lent_the_lock(path: &Path, most: usize) -> Vec<Pid> {
    let (Some(wanted), Ok(processes)) = (file_of(path), std::fs::read_dir("/proc")) else {
        return Vec::new();
    };
    let pids = processes.flatten().filter_map(|one| Pid::from_raw(one.file_name().to_str()?.parse().ok()?));
    let taker = locking_process(path);
    let others = pids.filter(|pid| Some(*pid) != taker);
    others.filter(|pid| holds_lock_by_a_descriptor(*pid, wanted)).take(most).collect()
}

/// A descriptor tells of the lock which was taken by it, or by the one that it was inherited or copied from (proc(5), fdinfo);
/// whoever only asks at this moment has another one, and locks of other kinds are no matter of ours.
fn holds_lock_by_a_descriptor(process: Pid, wanted: (u64, u64)) -> bool {
    let all = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let of_file = all.filter(|one| file_of(&one.path()) == Some(wanted));
    of_file.into_iter().any(|one| {
        let told = PathBuf::from(format!("/proc/{process}/fdinfo")).join(one.file_name());
        std::fs::read_to_string(told).is_ok_and(|told| told.lines().any(tells_of_our_lock))
    })
}

/// `lock:  1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`
fn tells_of_our_lock(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    matches!(*words, ["lock:", _, "FLOCK", _, EXCLUSIVE, ..])
}

fn file_of(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok()
}

/// Since when that host runs.
pub fn since_of(holder: &str) -> Option<&str> {
    holder.split_once(" since ")?.1.split([' ', ',']).next()
}

#[cfg(test)]
#[path = "lock_tests.rs"]
mod tests;
