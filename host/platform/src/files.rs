//! Opening files that somebody else names: only regular files, and only so much of them.
//!
//! A path from a manifest, a list or a command line may lead to a FIFO, on which opening waits for ever, or to
//! `/dev/zero`, which never ends. What must hold: nothing here waits for another process, and no file takes more
//! memory than its reader allowed, also when it grows while it is read.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why a file was not opened or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is something else than a regular file.
    #[error("{path} is {what}, not a regular file")]
    NotRegular {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It holds more than the reader allows.
    #[error("{path} holds more than {bytes_max} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        bytes_max: u64,
    },
    /// It was to be text, and is not UTF-8.
    #[error("{path} is not UTF-8 text: byte {offset} begins no character")]
    NotText {
        /// The file.
        path: PathBuf,
        /// How many bytes are good.
        offset: usize,
    },
    /// A system call failed.
    #[error("{path} cannot be {action}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: opened, read, written.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl FileError {
    /// Stable code for logs and callers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotRegular { .. } => "file.not_regular",
            Self::TooLarge { .. } => "file.too_large",
            Self::NotText { .. } => "file.not_text",
            Self::Io { .. } => "file.io",
        }
    }

    /// What the reader can do about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::NotRegular { .. } => "name a regular file",
            Self::TooLarge { .. } => "check that it is the file you mean, and make it smaller",
            Self::NotText { .. } => "save it as UTF-8, or name another file",
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "check the path; the file does not exist (any more)"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "give your user the right to it (ls -l shows who has it)"
            }
            Self::Io { .. } => "check the path and the disk it is on",
        }
    }

    /// The kernel's answer, where there is one.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            _ => None,
        }
    }
}

/// Opens the regular file `path` for reading; a link is followed. Anything else is refused at once.
pub fn open_regular(path: &Path) -> Result<File, FileError> {
    let failed = |source| FileError::Io { path: path.to_owned(), action: "opened", source };
    // Asked first, since opening alone can disturb: it lets a writer of a FIFO go on, and some devices act on it.
    refuse_irregular(path, std::fs::metadata(path).map_err(failed)?.file_type())?;
    // The name may lead elsewhere by now, so opening must not wait, and what was opened is asked again.
    let file = OpenOptions::new().read(true).custom_flags(GUARD_FLAGS).open(path).map_err(failed)?;
    refuse_irregular(path, file.metadata().map_err(failed)?.file_type())?;
    Ok(file)
}

/// Makes the new file `path`. What stands there goes first: a link, a pipe or a file that somebody left is neither followed
/// nor written to.
pub fn create_fresh(path: &Path) -> io::Result<File> {
    let create = || OpenOptions::new().write(true).create_new(true).open(path);
    create().or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => std::fs::remove_file(path).and_then(|()| create()),
        _ => Err(error),
    })
}

/// Opens `path` for adding to its end: a new file, or a regular one of ours. A link is not followed, nothing is waited for.
pub fn append_own(path: &Path) -> io::Result<File> {
    open_own(path, OpenOptions::new().append(true).create(true))
}

/// Opens `path` as a file to be locked, of this user alone where it is made. A link is not followed, nothing is waited for.
pub fn open_to_lock(path: &Path) -> io::Result<File> {
    open_own(path, OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600))
}

/// Opens `path`, which is there, for writing over it. A link is not followed, nothing is waited for.
pub fn open_own_to_write(path: &Path) -> io::Result<File> {
    open_own(path, OpenOptions::new().write(true))
}

/// Opens what must be a regular file by that very name.
fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // As for reading: asked before, since opening can disturb, and after, since the name may lead elsewhere by then.
    refuse_what_is_no_file(path).map_err(io::Error::other)?;
    let file = options.custom_flags(GUARD_FLAGS | libc::O_NOFOLLOW).open(path)?;
    refuse_irregular(path, file.metadata()?.file_type()).map_err(io::Error::other)?;
    Ok(file)
}

/// Opens `path` for writing, empty: a new file, or a regular one that is there. Anything else is refused at once
/// and left as it is.
pub fn create_regular(path: &Path) -> Result<File, FileError> {
    let failed = |source| FileError::Io { path: path.to_owned(), action: "written", source };
    match std::fs::metadata(path) {
        Ok(meta) => refuse_irregular(path, meta.file_type())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).custom_flags(GUARD_FLAGS);
    let file = options.open(path).map_err(failed)?;
    refuse_irregular(path, file.metadata().map_err(failed)?.file_type())?;
    file.set_len(0).map_err(failed)?;
    Ok(file)
}

/// Reads the regular file `path` whole, unless it holds more than `bytes_max`.
pub fn read_regular(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Io { path: path.to_owned(), action: "read", source };
    let too_large = || FileError::TooLarge { path: path.to_owned(), bytes_max };
    let file = open_regular(path)?;
    let told = file.metadata().map_err(failed)?.len();
    if told > bytes_max {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(told).unwrap_or(0));
    // One more than allowed: a file may grow meanwhile, and those of /proc say that they are empty.
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(too_large());
    }
    Ok(bytes)
}

/// As `read_regular`, for text.
pub fn read_regular_to_string(path: &Path, bytes_max: u64) -> Result<String, FileError> {
    String::from_utf8(read_regular(path, bytes_max)?).map_err(|error| FileError::NotText {
        path: path.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })
}

/// Refuses what stands at `path` where that is something else than a regular file; a link is followed.
///
/// # Errors
/// What it is. Whatever else hinders a look is left to whoever opens it.
pub fn refuse_what_is_no_file(path: &Path) -> Result<(), FileError> {
    std::fs::metadata(path).map_or(Ok(()), |found| refuse_irregular(path, found.file_type()))
}

/// The same for a file that is nobody else's, which a link may lead to.
///
/// # Errors
/// As for [`refuse_what_is_no_file`], and where there is a symbolic link, wherever it leads.
pub fn refuse_link_or_no_file(path: &Path) -> Result<(), FileError> {
    if path.is_symlink() {
        return Err(FileError::NotRegular { path: path.to_owned(), what: "a symbolic link" });
    }
    refuse_what_is_no_file(path)
}

/// Whether the kernel would let this user write there. By the older of its two calls: what old containers do not know of
/// the other one they refuse.
///
/// # Errors
/// Why not.
pub fn may_be_written(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::access(path, rustix::fs::Access::WRITE_OK)?)
}

/// Lets two paths of one file system change places, so that at no moment anything is missing at either.
///
/// # Errors
/// When one of them is not there, or the file system cannot (`InvalidInput`).
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// Opening returns at once, whatever it is, and gives us no controlling terminal. CLOEXEC is the standard library's.
const GUARD_FLAGS: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;

fn refuse_irregular(path: &Path, kind: FileType) -> Result<(), FileError> {
    match irregular(kind) {
        None => Ok(()),
        Some(what) => Err(FileError::NotRegular { path: path.to_owned(), what }),
    }
}

/// What something is, in words, that is no regular file and no link.
#[must_use]
pub fn irregular(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_fifo() {
        Some("a FIFO")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    fn check_refused(path: &Path, code: &str, part: &str) {
        for error in [read_regular(path, 10).unwrap_err(), read_regular_to_string(path, 10).unwrap_err()] {
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(part) && error.to_string().contains("the-file"), "{error}");
            assert!(error.next_step().len() > 10);
        }
    }

    fn fifo(path: &Path) {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("the-file");
        let irregular = |what| check_refused(&path, "file.not_regular", what);
        fifo(&path);
        irregular("a FIFO");
        assert_eq!(create_regular(&path).unwrap_err().code(), "file.not_regular");
        std::fs::remove_file(&path).unwrap();
        symlink("/dev/zero", &path).unwrap();
        irregular("a device");
        std::fs::remove_file(&path).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        irregular("a socket");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        irregular("a directory");
    }

    #[test]
    fn two_directories_change_places_with_what_is_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        std::fs::create_dir(&old).unwrap();
        exchange(&old, &new).unwrap_err();
        std::fs::create_dir(&new).unwrap();
        std::fs::write(old.join("1"), "").unwrap();
        exchange(&old, &new).unwrap();
        assert!(new.join("1").exists() && old.is_dir() && !old.join("1").exists());
    }

    #[test]
    fn what_became_a_fifo_after_the_first_look_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("the-file");
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The name changes hands all the time, each time by a rename, so it always leads somewhere.
                let (plain, pipe) = (dir.path().join("plain"), dir.path().join("pipe"));
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::fs::write(&plain, "text").unwrap();
                    std::fs::rename(&plain, &path).unwrap();
                    fifo(&pipe);
                    std::fs::rename(&pipe, &path).unwrap();
                }
            });
            for _ in 0..2_000 {
                match read_regular(&path, 10) {
                    Ok(bytes) => assert_eq!(bytes, b"text"),
                    Err(FileError::NotRegular { what, .. }) => assert_eq!(what, "a FIFO"),
                    Err(error) => assert_eq!(error.io_kind(), Some(io::ErrorKind::NotFound), "{error}"),
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn no_more_is_read_than_was_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("the-file");
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(read_regular_to_string(&path, 10).unwrap(), "0123456789");
        std::fs::write(&path, "0123456789a").unwrap();
        check_refused(&path, "file.too_large", "more than 10 bytes");
        // It says that it is empty, and is not.
        let own = read_regular(Path::new("/proc/self/status"), 20).unwrap_err();
        assert_eq!(own.code(), "file.too_large");
        assert!(!read_regular(Path::new("/proc/self/status"), 100_000).unwrap().is_empty());
    }

    #[test]
    fn what_is_missing_forbidden_or_no_text_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("the-file");
        check_refused(&path, "file.io", "cannot be opened");
        symlink(dir.path().join("nowhere"), &path).unwrap();
        assert_eq!(open_regular(&path).unwrap_err().io_kind(), Some(io::ErrorKind::NotFound));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"good \xff").unwrap();
        let error = read_regular_to_string(&path, 10).unwrap_err();
        assert_eq!((error.code(), error.to_string().contains("byte 5")), ("file.not_text", true), "{error}");
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
        // Root reads all.
        if crate::runtime_dir::effective_uid() != 0 {
            let error = read_regular(&path, 10).unwrap_err();
            assert_eq!(error.io_kind(), Some(io::ErrorKind::PermissionDenied));
            assert!(error.next_step().contains("right"));
        }
    }

    #[test]
    fn a_file_of_ours_is_no_link_and_nothing_that_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (path, theirs) = (dir.path().join("the-file"), dir.path().join("theirs"));
        std::fs::write(&theirs, "theirs").unwrap();
        let opened = || [append_own(&path), open_to_lock(&path), open_own_to_write(&path)];
        fifo(&path);
        assert!(opened().iter().all(Result::is_err));
        std::fs::remove_file(&path).unwrap();
        symlink(&theirs, &path).unwrap();
        assert!(opened().iter().all(Result::is_err));
        std::fs::remove_file(&path).unwrap();
        assert!(open_own_to_write(&path).is_err(), "it makes none");
        assert!(opened().iter().all(Result::is_ok));
        append_own(&path).unwrap().write_all(b"one").unwrap();
        append_own(&path).unwrap().write_all(b" two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one two");
        assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "theirs");
    }

    #[test]
    fn a_result_is_written_to_a_new_file_or_over_a_regular_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("the-file");
        for text in ["a longer text", "short"] {
            create_regular(&path).unwrap().write_all(text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let missing = create_regular(&dir.path().join("no/folder")).unwrap_err();
        assert_eq!((missing.code(), missing.io_kind()), ("file.io", Some(io::ErrorKind::NotFound)));
    }
}
