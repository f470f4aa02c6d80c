//! The private directory for sockets, and binding a socket in it.
//!
//! What must hold: the directory is a real directory, ours, and closed to everybody else, or it is refused;
//! `/tmp` is shared, so a name found there may be somebody else's trap.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Longest path of a socket in bytes: sun_path is 108 with its final NUL.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

const NAME: &str = "cjm";

/// Why there is no directory or no socket.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// It exists but is not safe to use.
    #[error("{path} cannot hold sockets: {why}")]
    Refused {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The socket's path does not fit into the kernel's address.
    #[error("the socket path {path} has {bytes} bytes; the kernel takes {SOCKET_PATH_BYTES_MAX}")]
    PathTooLong {
        /// The socket.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// A system call failed.
    #[error("{step} {path} failed: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl RuntimeDirError {
    /// Stable code for logs and callers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "runtime_dir.refused",
            Self::PathTooLong { .. } => "runtime_dir.path_too_long",
            Self::Io { .. } => "runtime_dir.io",
        }
    }

    /// What the reader can do about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Refused { .. } => {
                "remove it, or set XDG_RUNTIME_DIR to a directory that belongs to you with mode 0700"
            }
            Self::PathTooLong { .. } => "set XDG_RUNTIME_DIR to a shorter path",
            Self::Io { .. } => {
                "check that the directory above it exists and is writable, and the disk not full"
            }
        }
    }
}

/// The numeric user id this process acts as.
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Makes or verifies the runtime directory: `cjm` in `xdg` (the value of XDG_RUNTIME_DIR) if that is an
/// absolute path to a directory of ours, else `/tmp/cjm-UID`.
pub fn runtime_dir(xdg: Option<&Path>) -> Result<PathBuf, RuntimeDirError> {
    let uid = effective_uid();
    let usable = |dir: &&Path| {
        dir.is_absolute() && std::fs::metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid)
    };
    let path = match xdg.filter(usable) {
        Some(base) => base.join(NAME),
        None => Path::new("/tmp").join(name_in_tmp()),
    };
    private_dir(&path)?;
    Ok(path)
}

/// A short name for what belongs to `path`: the same for the same bytes, another for any others, UTF-8 or not; and for a
/// directory at them the same only while it is that one. Two containers that share `/tmp` may each have one at `/data`.
pub fn name_for(path: &Path) -> String {
    let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir);
    let place = found.map(|found| [found.dev().to_le_bytes(), found.ino().to_le_bytes()]);
    let bytes = path.as_os_str().as_bytes().iter().chain(place.iter().flatten().flatten());
    // FNV-1a, 64 bits, of which 48 are shown: a socket's path has little room. Names of one user's own
    // directories need no protection from that user.
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{:012x}", (hash >> 48) ^ (hash & 0xffff_ffff_ffff))
}

/// Makes `path` a directory that only we can enter, or verifies that it is one. The directory above must
/// exist. One of ours with a wider mode is narrowed; a symlink or somebody else's is refused.
pub fn private_dir(path: &Path) -> Result<(), RuntimeDirError> {
    let failed = |step| move |source| RuntimeDirError::Io { step, path: path.to_owned(), source };
    let refused = |why: String| RuntimeDirError::Refused { path: path.to_owned(), why };
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(failed("making")(err)),
        Ok(()) | Err(_) => {}
    }
    let meta = std::fs::symlink_metadata(path).map_err(failed("looking at"))?;
    if !meta.is_dir() {
        return Err(refused("it is not a directory (a symlink is not followed)".to_owned()));
    }
    if meta.uid() != effective_uid() {
        return Err(refused(format!("it belongs to uid {}, not to {}", meta.uid(), effective_uid())));
    }
    if meta.mode() & 0o777 != 0o700 {
        // Ours and no symlink, and the sticky bit of /tmp keeps others from exchanging it.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed("closing"))?;
    }
    Ok(())
}

/// Binds and listens on a socket of that name, which must not exist, in the folder of a data directory; says where it stands.
/// The folder is looked at before each, as when its host began: who clears runtime directories (the end of a login, a cleaner
/// of `/tmp`) does not ask who lives there, and somebody else may have made another in its place.
pub fn bind_unix_listener(folder: &Path, name: &str) -> Result<(PathBuf, UnixListener), RuntimeDirError> {
    let path = private_folder(folder)?.join(name);
    let bytes = path.as_os_str().as_bytes().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        return Err(RuntimeDirError::PathTooLong { path, bytes });
    }
    match UnixListener::bind(&path) {
        Ok(listener) => Ok((path, listener)),
        Err(source) => Err(RuntimeDirError::Io { step: "binding", path, source }),
    }
}

/// The folder of a data directory and the one above, which all of a user's share, made again where they are gone: below `/tmp`
/// where XDG_RUNTIME_DIR itself is, which goes with the last login.
fn private_folder(folder: &Path) -> Result<PathBuf, RuntimeDirError> {
    let (Some(above), Some(name)) = (folder.parent(), folder.file_name()) else {
        return private_dir(folder).map(|()| folder.to_owned());
    };
    let above = match above.file_name() {
        Some(shared) if shared == NAME => runtime_dir(above.parent())?,
        Some(shared) if *shared == *name_in_tmp() => private_dir(above).map(|()| above.to_owned())?,
        // A caller's own, whose mode is not ours to change.
        _ => above.to_owned(),
    };
    let folder = above.join(name);
    private_dir(&folder)?;
    Ok(folder)
}

/// Where sockets of that folder stand that were made while XDG_RUNTIME_DIR was gone, if there is a directory of ours for them.
pub fn folder_in_tmp(folder: &Path) -> Option<PathBuf> {
    below_ours(&Path::new("/tmp").join(name_in_tmp()), folder)
}

fn below_ours(above: &Path, folder: &Path) -> Option<PathBuf> {
    let found = std::fs::symlink_metadata(above).ok()?;
    (found.is_dir() && found.uid() == effective_uid()).then_some(above.join(folder.file_name()?))
}

fn name_in_tmp() -> String {
    format!("{NAME}-{}", effective_uid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn it_is_made_verified_and_narrowed() {
        let base = tempfile::tempdir().unwrap();
        let dir = runtime_dir(Some(base.path())).unwrap();
        assert_eq!(dir, base.path().join("cjm"));
        assert_eq!(mode(&dir), 0o700);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(runtime_dir(Some(base.path())).unwrap(), dir);
        assert_eq!(mode(&dir), 0o700);
    }

    #[test]
    fn the_folder_of_a_socket_is_made_again_where_it_was_cleared_away() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("cjm/0123");
        let (path, listener) = bind_unix_listener(&folder, "w.sock").unwrap();
        assert_eq!(path, folder.join("w.sock"));
        assert_eq!((mode(&folder), mode(&base.path().join("cjm"))), (0o700, 0o700));
        drop(listener);
        std::fs::remove_dir_all(base.path().join("cjm")).unwrap();
        symlink(base.path(), base.path().join("cjm")).unwrap();
        let refused = bind_unix_listener(&folder, "w.sock").unwrap_err();
        assert!(matches!(refused, RuntimeDirError::Refused { .. }), "{refused}");
        let refused = bind_unix_listener(&base.path().join("run/user/7"), "w.sock").unwrap_err();
        assert!(matches!(refused, RuntimeDirError::Io { step: "making", .. }), "{refused}");
        // Nobody's but its caller's, and as it was.
        let own = base.path().join("run");
        std::fs::create_dir(&own).unwrap();
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755)).unwrap();
        bind_unix_listener(&own.join("0123"), "w.sock").unwrap();
        assert_eq!((mode(&own), mode(&own.join("0123"))), (0o755, 0o700));
    }

    #[test]
    fn what_stands_in_the_place_of_a_folder_of_sockets_is_looked_at_before_each() {
        let base = tempfile::tempdir().unwrap();
        let (above, folder) = (base.path().join("cjm"), base.path().join("cjm/0123"));
        for (turn, place) in [&above, &folder].into_iter().enumerate() {
            bind_unix_listener(&folder, &format!("{turn}.sock")).unwrap();
            std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o777)).unwrap();
            bind_unix_listener(&folder, &format!("{turn}.wide.sock")).unwrap();
            assert_eq!(mode(place), 0o700, "ours, and closed to others again");
            std::fs::remove_dir_all(place).unwrap();
            if effective_uid() == 0 {
                std::fs::create_dir_all(&folder).unwrap();
                std::os::unix::fs::chown(place, Some(65534), None).unwrap();
                let refused = bind_unix_listener(&folder, "w.sock").unwrap_err();
                assert!(
                    matches!(&refused, RuntimeDirError::Refused { path, .. } if path == place),
                    "{refused}"
                );
                std::os::unix::fs::chown(place, Some(0), None).unwrap();
            }
        }
    }

    #[test]
    fn sockets_are_in_tmp_while_the_directory_of_a_login_is_gone() {
        let base = tempfile::tempdir().unwrap();
        let login = base.path().join("login");
        std::fs::create_dir(&login).unwrap();
        let name = name_for(base.path());
        let folder = runtime_dir(Some(&login)).unwrap().join(&name);
        bind_unix_listener(&folder, "1.sock").unwrap();
        std::fs::remove_dir_all(&login).unwrap();
        let in_tmp = Path::new("/tmp").join(name_in_tmp()).join(&name);
        assert_eq!(bind_unix_listener(&folder, "2.sock").unwrap().0, in_tmp.join("2.sock"));
        assert_eq!(folder_in_tmp(&folder), Some(in_tmp.clone()));
        std::fs::create_dir(&login).unwrap();
        assert_eq!(bind_unix_listener(&folder, "3.sock").unwrap().0, folder.join("3.sock"));
        std::fs::remove_dir_all(&in_tmp).unwrap();
    }

    /// What stands below it is removed with a host.
    #[test]
    fn a_folder_below_tmp_is_only_ours_where_it_is_a_directory_of_ours() {
        let base = tempfile::tempdir().unwrap();
        let (above, link, folder) =
            (base.path().join("above"), base.path().join("link"), Path::new("/run/user/7/cjm/0123"));
        assert_eq!(below_ours(&above, folder), None);
        std::fs::create_dir(&above).unwrap();
        symlink(&above, &link).unwrap();
        assert_eq!((below_ours(&above, folder), below_ours(&link, folder)), (Some(above.join("0123")), None));
        if effective_uid() == 0 {
            std::os::unix::fs::chown(&above, Some(65534), None).unwrap();
            assert_eq!(below_ours(&above, folder), None, "somebody else's");
        }
    }

    #[test]
    fn without_a_usable_xdg_directory_it_is_in_tmp() {
        let expected = PathBuf::from(format!("/tmp/cjm-{}", effective_uid()));
        for xdg in [None, Some(Path::new("relative")), Some(Path::new("/dev/null/nothing"))] {
            assert_eq!(runtime_dir(xdg).unwrap(), expected);
        }
        assert_eq!(mode(&expected), 0o700);
    }

    #[test]
    fn names_differ_where_the_bytes_of_the_path_do() {
        use std::ffi::OsStr;
        let name = |bytes: &[u8]| name_for(Path::new(OsStr::from_bytes(bytes)));
        let base = tempfile::tempdir().unwrap();
        let (data, kept) = (base.path().join("data"), base.path().join("kept"));
        std::fs::create_dir(&data).unwrap();
        let first = name_for(&data);
        assert_eq!(name_for(&data), first);
        std::fs::rename(&data, &kept).unwrap();
        std::fs::create_dir(&data).unwrap();
        assert_ne!(name_for(&data), first, "another directory at the same path");
        // What people are shown of the first two is the same.
        let paths: [&[u8]; 5] =
            [b"/no/data/\xfe", b"/no/data/\xff", b"/no/data/\xef\xbf\xbd", b"/no/data", b"/no/data/"];
        let names: std::collections::BTreeSet<String> = paths.iter().map(|path| name(path)).collect();
        assert_eq!(names.len(), paths.len());
        assert!(names.iter().all(|name| name.len() == 12 && name.chars().all(|c| c.is_ascii_hexdigit())));
        assert_eq!(name(b"/home/a/data"), "7b8a7636619e");
    }

    #[test]
    fn traps_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let elsewhere = base.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, base.path().join("link")).unwrap();
        std::fs::write(base.path().join("file"), "").unwrap();
        for name in ["link", "file"] {
            let err = private_dir(&base.path().join(name)).unwrap_err();
            assert_eq!(err.code(), "runtime_dir.refused", "{name}: {err}");
        }
        // Owned by root or, for root, by somebody else.
        if effective_uid() != 0 {
            assert_eq!(private_dir(Path::new("/usr")).unwrap_err().code(), "runtime_dir.refused");
        } else {
            std::os::unix::fs::chown(&elsewhere, Some(65534), None).unwrap();
            assert_eq!(private_dir(&elsewhere).unwrap_err().code(), "runtime_dir.refused");
        }
    }

    #[test]
    fn a_socket_path_has_its_limit() {
        let base = tempfile::tempdir().unwrap();
        let used = base.path().as_os_str().len() + 1;
        let fits = "s".repeat(SOCKET_PATH_BYTES_MAX - used);
        bind_unix_listener(base.path(), &fits).unwrap();
        let err = bind_unix_listener(base.path(), &format!("{fits}s"));
        assert_eq!(err.unwrap_err().code(), "runtime_dir.path_too_long");
        assert_eq!(bind_unix_listener(base.path(), &fits).unwrap_err().code(), "runtime_dir.io");
    }
}
