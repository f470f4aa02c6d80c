//! Small file work of an installation: its lock, whole-file writes that survive a crash, and the hash of a folder's
//! content.

use crate::error::EnvironmentError;
use crate::place_lock::PlaceLock;
use crate::steps::Changed;
use cjm_catalog::installer::{INSTALL_LOCK, Installer, Signature};
use cjm_platform::files::{FileError, create_fresh, irregular};
use cjm_platform::lock::{FileLock, LockError, held_by, holder_without_file, is_folder_of_host_held};
use cjm_platform::mounts::{mounted_within, remove_tree};
use cjm_wire::canonical::hex;
use rustix::buffer::spare_capacity;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::fs::{File, Metadata, Permissions};
use std::io::{Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the lock is waited for: whoever asks whether somebody holds it has it for an instant.
const ASKING_MAX: Duration = Duration::from_millis(100);
/// How often a lock is asked for again: no change of it is told.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// Where the system keeps the list of who may read and write a file beside its owner and its group, and how long it may be.
const ACCESS_LIST: &str = "system.posix_acl_access";
const ACCESS_LIST_BYTES_MAX: usize = 64 * 1024;
/// Most files of one package folder.
pub(crate) const FOLDER_FILES_MAX: usize = 20_000;
/// Deepest nesting of one package folder.
const FOLDER_DEPTH_MAX: usize = 32;
/// Most of one package folder that is looked at for what is no file.
const LOOKED_AT_MAX: usize = 100_000;
/// What of a package folder is large and no builder reads.
const NOT_BUILT: [&str; 6] = [".git", ".hg", ".venv", "__pycache__", "node_modules", "venv"];
/// What a package folder may hold besides its source; hidden files and folders are skipped too.
const NOT_SOURCE: [&str; 6] = ["__pycache__", "build", "dist", "node_modules", "target", "venv"];

tokio::task_local! {
    /// The lock of the work that this task does.
    static HELD: Arc<FileLock>;
}

/// The right to change what is installed in a data directory.
#[derive(Debug)]
pub struct Claim {
    lock: Arc<FileLock>,
    signature: Signature,
    places: Vec<PlaceLock>,
}

impl Claim {
    /// Does work that needs the right: the helpers (uv, pip) that it starts hold the lock as well, so that those of an
    /// installation that was killed have ended before the next one begins. Nothing else that this process starts does.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        HELD.scope(Arc::clone(&self.lock), work).await
    }

    /// Has nobody change this environment of conda's either.
    pub(crate) fn keep(&mut self, places: Vec<PlaceLock>) {
        self.places.extend(places);
    }

    /// Says which environments are still to be changed, so that nobody waits for others.
    pub(crate) fn works_on<'e>(&self, environments: impl IntoIterator<Item = &'e str>) {
        // Whoever reads the old text waits longer than needed, which is no reason to fail the work.
        let _ = self.lock.set_owner(&self.signature.text(environments));
    }
}

/// What a helper gets as its standard input, which says nothing: the lock, where its task holds one. There a helper's own
/// children have it too, whatever else they close.
pub(crate) fn input_of_helper() -> std::io::Result<Stdio> {
    HELD.try_with(|lock| lock.share().map(Stdio::from)).unwrap_or_else(|_| Ok(Stdio::null()))
}

/// The data directory that this task works on, where it has the right to.
pub(crate) fn data_dir_of_work() -> Option<PathBuf> {
    HELD.try_with(|lock| lock.path().parent().map(Path::to_owned)).ok().flatten()
}

/// One installation at a time works on a data directory: who has the lock, and what `command` does to which
/// environments, is told to the next.
pub(crate) fn lock<'e>(
    data_dir: &Path,
    command: &'static str,
    environments: impl IntoIterator<Item = &'e str>,
) -> Result<Claim, EnvironmentError> {
    let (path, signature) = (data_dir.join(INSTALL_LOCK), Signature::new(command));
    let lock =
        FileLock::acquire(&path, &signature.text(environments), ASKING_MAX).map_err(|error| match error {
            LockError::Held { path, holder } => EnvironmentError::InUse {
                by: Box::new(Installer::read(&path, &holder.unwrap_or_default())),
                what: Changed::DataDir(data_dir.to_owned()),
            },
            LockError::Io { path, source } => EnvironmentError::writing("lock", path, source),
        })?;
    Ok(Claim { lock: Arc::new(lock), signature, places: Vec::new() })
}

/// Refuses what an installation that is at work would refuse in the end, before anything is looked at that it may be
/// changing.
pub(crate) fn check_nobody_installs(data_dir: &Path) -> Result<(), EnvironmentError> {
    match Installer::at_work(data_dir) {
        Some(by) => {
            Err(EnvironmentError::InUse { what: Changed::DataDir(data_dir.to_owned()), by: Box::new(by) })
        }
        None => Ok(()),
    }
}

/// What the host that runs on this directory says of itself, if one does, also where its `host.lock` was removed. Asking
/// takes the locks, shared, for an instant.
///
/// # Errors
/// When there is a lock, and it cannot be asked.
pub fn running_host(data_dir: &Path) -> Result<Option<String>, FileError> {
    let since = Instant::now();
    loop {
        let holder = held_by(&data_dir.join("host.lock"))?;
        if let Some(said) = holder {
            return Ok(Some(if said.is_empty() { "unnamed".to_owned() } else { said }));
        }
        if !is_folder_of_host_held(data_dir) {
            return Ok(None);
        }
        // Of one that begins or ends, both are free or held in an instant.
        if since.elapsed() >= ASKING_MAX {
            return Ok(Some(holder_without_file(data_dir)));
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}

/// Where an environment of ours is, and where a link to conda's is.
pub(crate) fn own_home(data_dir: &Path, env_name: &str) -> PathBuf {
    data_dir.join("envs").join(env_name)
}

/// Writes a file in one step: readers see the old or the new text, never half of it. Who could not read the old one cannot
/// read the new one.
pub(crate) fn write_whole(path: &Path, text: &[u8]) -> Result<(), EnvironmentError> {
    let failed = |source| EnvironmentError::writing("write", path.to_owned(), source);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let beside = path.with_file_name(name);
    let replaced = std::fs::metadata(path).ok().filter(Metadata::is_file);
    let written = create_fresh(&beside).and_then(|mut file| {
        // Before there is anything to read.
        replaced.map_or(Ok(()), |replaced| read_by_the_same(&file, path, &replaced))?;
        file.write_all(text)
    });
    written.and_then(|()| std::fs::rename(&beside, path)).map_err(|source| {
        // What cannot be renamed is of no use; that it stays is no second error.
        let _ = std::fs::remove_file(&beside);
        failed(source)
    })
}

/// Gives the file the group, the mode and the list of who else may read what it replaces; no rights of a group where it
/// cannot have those.
fn read_by_the_same(file: &File, path: &Path, replaced: &Metadata) -> std::io::Result<()> {
    let is_of_group =
        file.metadata()?.gid() == replaced.gid() || fchown(file, None, Some(replaced.gid())).is_ok();
    // The group's bits of a file with such a list are the most that anybody in it has, and no right of its group.
    let is_listed = is_of_group && take_over_list(file, path);
    let mode = replaced.mode() & if is_listed { 0o7777 } else { 0o7707 };
    file.set_permissions(Permissions::from_mode(mode))
}

/// Whether the file has the list of what it replaces by now, or none as that. What is made in a folder may have got one by it.
fn take_over_list(file: &File, replaced: &Path) -> bool {
    match access_list(replaced) {
        Ok(Some(list)) => set_access_list(file, &list).is_ok(),
        Ok(None) => match rustix::fs::fremovexattr(file, ACCESS_LIST) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => true,
            Err(_) => false,
        },
        Err(_) => false,
    }
}

/// The list of users and groups that may read a file beside its owner and its group, as the system keeps it (acl(5)).
fn access_list(path: &Path) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut list = Vec::with_capacity(ACCESS_LIST_BYTES_MAX);
    match rustix::fs::getxattr(path, ACCESS_LIST, spare_capacity(&mut list)) {
        Ok(_) => Ok(Some(list)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

fn set_access_list(file: &File, list: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(file, ACCESS_LIST, list, XattrFlags::empty())
}

/// Removes what writes of processes that are gone have left among the manifests. To be done by who holds the lock.
pub(crate) fn remove_begun_writes(manifests: &Path) {
    let is_begun = |name: &str| {
        let process = name.rsplit_once(".json.new-").map(|(_, process)| process);
        process
            .and_then(|id| id.parse::<u32>().ok())
            .is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists())
    };
    for one in std::fs::read_dir(manifests).into_iter().flatten().flatten() {
        if one.file_name().to_str().is_some_and(is_begun) {
            // One that stays is in nobody's way.
            let _ = std::fs::remove_file(one.path());
        }
    }
}

/// Refuses a folder in which something is mounted: deleting would go through to what is another's.
pub(crate) fn check_nothing_mounted(path: &Path) -> Result<(), EnvironmentError> {
    match mounted_within(path) {
        Ok(None) => Ok(()),
        Ok(Some(mount)) => Err(EnvironmentError::Mounted { path: path.to_owned(), mount }),
        Err(source) => Err(EnvironmentError::File { action: "look at", path: path.to_owned(), source }),
    }
}

/// Removes a directory with all it holds; one that is missing is removed already, and one in which something is mounted
/// stays whole.
pub(crate) fn remove_dir(path: &Path) -> Result<(), EnvironmentError> {
    check_nothing_mounted(path)?;
    match remove_tree(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(EnvironmentError::File { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// `sha256:…` of some bytes.
pub(crate) fn hash_bytes(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// Hash over the names and contents of a folder's source files, whatever their times.
///
/// # Errors
/// When the folder cannot be read, or is larger than a package is.
pub(crate) fn hash_folder(folder: &Path) -> Result<String, EnvironmentError> {
    let mut files = Vec::new();
    collect(folder, folder, 0, &mut files)?;
    files.sort();
    let mut whole = Sha256::new();
    for relative in &files {
        let path = folder.join(relative);
        let unreadable = |source| EnvironmentError::File { action: "read", path: path.clone(), source };
        let mut hash = Sha256::new();
        if path.is_symlink() {
            hash.update(std::fs::read_link(&path).map_err(unreadable)?.as_os_str().as_encoded_bytes());
        } else {
            let mut file = std::fs::File::open(&path).map_err(unreadable)?;
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let count = file.read(&mut buffer).map_err(unreadable)?;
                if count == 0 {
                    break;
                }
                hash.update(&buffer[..count]);
            }
        }
        whole.update(relative.as_os_str().as_encoded_bytes());
        whole.update([0]);
        whole.update(hash.finalize());
    }
    Ok(format!("sha256:{}", hex(&whole.finalize())))
}

/// Refuses a package folder that holds something else than files, folders and links to them: whoever builds it reads a
/// device until the memory ends, and waits at a FIFO for ever. Links to folders are not followed.
///
/// # Errors
/// What lies there. What may not be looked at is told by who needs it.
pub(crate) fn check_holds_files_alone(root: &Path) -> Result<(), EnvironmentError> {
    let mut folders = vec![(root.to_owned(), 0)];
    let mut looked_at = 0;
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            looked_at += 1;
            if looked_at > LOOKED_AT_MAX {
                return Ok(());
            }
            let (path, own) = (entry.path(), entry.file_type());
            let is_link = own.as_ref().is_ok_and(std::fs::FileType::is_symlink);
            let kind = if is_link { path.metadata().map(|meta| meta.file_type()) } else { own };
            let Ok(kind) = kind else { continue };
            if kind.is_dir() {
                let is_built = !is_link && !NOT_BUILT.iter().any(|name| entry.file_name() == *name);
                if is_built && depth < FOLDER_DEPTH_MAX {
                    folders.push((path, depth + 1));
                }
            } else if let Some(what) = irregular(kind) {
                return Err(EnvironmentError::NoFileInFolder { folder: root.to_owned(), path, what });
            }
        }
    }
    Ok(())
}

fn collect(
    root: &Path,
    folder: &Path,
    depth: usize,
    files: &mut Vec<PathBuf>,
) -> Result<(), EnvironmentError> {
    let unreadable = |source| EnvironmentError::File { action: "read", path: folder.to_owned(), source };
    let problem = |problem: String| Err(EnvironmentError::BadFolder { path: root.to_owned(), problem });
    if depth > FOLDER_DEPTH_MAX {
        return problem(format!("is nested deeper than {FOLDER_DEPTH_MAX} levels"));
    }
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') || NOT_SOURCE.contains(&name.as_ref()) || name.ends_with(".egg-info") {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_dir() {
            collect(root, &path, depth + 1, files)?;
        } else if kind.is_file() || kind.is_symlink() {
            files.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
        }
        if files.len() > FOLDER_FILES_MAX {
            return problem(format!("holds more than {FOLDER_FILES_MAX} files"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_platform::lock::take_folders_of_host;

    #[test]
    fn who_could_not_read_a_file_cannot_read_what_takes_its_place() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = |name: &str| folder.path().join(name);
        let mode = |name: &str| path(name).metadata().expect("there").permissions().mode() & 0o777;
        for (name, set) in [("private", 0o600), ("read-only", 0o440), ("shared", 0o664)] {
            std::fs::write(path(name), "old").expect("written");
            std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(set)).expect("set");
            write_whole(&path(name), b"new").expect("replaced");
            assert_eq!(
                (mode(name), std::fs::read(path(name)).expect("reads")),
                (set, b"new".to_vec()),
                "{name}"
            );
        }
        // Who owns the file may be of another group by now.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(path("private"), None, Some(4_242)).expect("chown");
            write_whole(&path("private"), b"new").expect("replaced");
            assert_eq!(path("private").metadata().expect("there").gid(), 4_242);
        }
        // Of users beside the owner and the group; their mask stands where the group's rights stand otherwise.
        let entry = |tag: u16, may: u16, id: u32| {
            [&tag.to_le_bytes()[..], &may.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let none = u32::MAX;
        let one_user = [
            2_u32.to_le_bytes().to_vec(),
            entry(0x01, 6, none),
            entry(0x02, 4, 4_242),
            entry(0x04, 0, none),
            entry(0x10, 4, none),
            entry(0x20, 0, none),
        ]
        .concat();
        std::fs::write(path("listed"), "old").expect("written");
        set_access_list(&File::open(path("listed")).expect("opens"), &one_user).expect("set");
        write_whole(&path("listed"), b"new").expect("replaced");
        assert_eq!((access_list(&path("listed")), mode("listed")), (Ok(Some(one_user.clone())), 0o640));
        // A folder may give a list to all that is made in it: what had none has none.
        let of_folder = File::open(folder.path()).expect("opens");
        rustix::fs::fsetxattr(&of_folder, "system.posix_acl_default", &one_user, XattrFlags::empty())
            .expect("set");
        write_whole(&path("read-only"), b"newer").expect("replaced");
        assert_eq!((access_list(&path("read-only")), mode("read-only")), (Ok(None), 0o440));
        rustix::fs::fremovexattr(&of_folder, "system.posix_acl_default").expect("removed");
        // A link is replaced by a file that is as private as what it led to, which stays.
        std::os::unix::fs::symlink("private", path("link")).expect("linked");
        write_whole(&path("link"), b"other").expect("replaced");
        assert_eq!((mode("link"), std::fs::read(path("private")).expect("reads")), (0o600, b"new".to_vec()));
    }

    #[test]
    fn the_hash_of_a_folder_is_its_source_and_nothing_else() {
        let folder = tempfile::tempdir().expect("tempdir");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        };
        write("p/a.py", "1");
        write("b.py", "2");
        let first = hash_folder(folder.path()).expect("hash");
        write("p/__pycache__/a.pyc", "x");
        write(".venv/b", "x");
        write("p.egg-info/c", "x");
        assert_eq!(hash_folder(folder.path()).expect("hash"), first);
        write("p/a.py", "3");
        let changed = hash_folder(folder.path()).expect("hash");
        assert_ne!(changed, first);
        std::fs::rename(folder.path().join("b.py"), folder.path().join("c.py")).expect("rename");
        assert_ne!(hash_folder(folder.path()).expect("hash"), changed);
        // A link is what it says, whether or not something is there.
        let mut hashes = std::collections::BTreeSet::new();
        write("d.py", "1");
        write("e.py", "1");
        for target in ["d.py", "e.py", "nothing.py"] {
            let link = folder.path().join("link.py");
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(target, link).expect("linked");
            hashes.insert(hash_folder(folder.path()).expect("hash"));
        }
        assert_eq!(hashes.len(), 3);
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("new/x.json");
        for text in ["one", "two"] {
            write_whole(&path, text.as_bytes()).expect("write");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
        }
        let names: Vec<_> = std::fs::read_dir(folder.path().join("new")).expect("list").collect();
        assert_eq!(names.len(), 1, "nothing is left beside it");
        std::fs::create_dir_all(folder.path().join("new/y.json/in")).expect("mkdir");
        assert!(write_whole(&folder.path().join("new/y.json"), b"three").is_err(), "a folder stands there");
        let names: Vec<_> = std::fs::read_dir(folder.path().join("new")).expect("list").collect();
        assert_eq!(names.len(), 2, "nothing is left beside it");
        assert!(remove_dir(&folder.path().join("missing")).is_ok());
    }

    #[test]
    fn what_writers_of_manifests_that_are_gone_have_left_goes_and_nothing_else() {
        let folder = tempfile::tempdir().expect("tempdir");
        let alive = format!("a.json.new-{}", std::process::id());
        // No process has such a number.
        let names =
            ["a.json", "a.json.new-4294967295", "a.json.new-mine", "a.json.broken-4294967295", &alive];
        names.iter().for_each(|name| std::fs::write(folder.path().join(name), "").expect("written"));
        remove_begun_writes(folder.path());
        let stays = |name: &&&str| folder.path().join(name).exists();
        assert_eq!(names.iter().filter(stays).count(), 4);
        assert!(!folder.path().join(names[1]).exists());
    }

    #[tokio::test]
    async fn what_a_killed_installation_had_started_keeps_the_next_one_away_and_nothing_else_does() {
        let folder = tempfile::tempdir().expect("tempdir");
        let held = lock(folder.path(), "install-all", []).expect("free");
        let waits = |input: Stdio| {
            let mut command = std::process::Command::new("/bin/sh");
            // Until its error stream, which it does not use, is closed by whoever reads it.
            command.args(["-c", "while sleep 0.01 && echo >&2; do :; done"]).stdin(input);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts")
        };
        let mut helper = held.during(async { waits(input_of_helper().expect("shared")) }).await;
        // Another program of this process, which has nothing to do with the installation.
        let mut other = waits(Stdio::null());
        // The kernel closes descriptors the same way when their process is killed.
        drop(held);
        let refused = lock(folder.path(), "install-all", []).expect_err("the helper is at work");
        assert!(matches!(refused, EnvironmentError::InUse { .. }), "{refused}");
        drop(helper.stderr.take());
        helper.wait().expect("ends");
        let path = folder.path().join("install.lock");
        // Children of other tests, which run beside this one, may have it for a moment.
        FileLock::acquire(&path, "next", std::time::Duration::from_secs(20)).expect("free");
        assert!(other.try_wait().expect("asked").is_none(), "and it is still there");
        drop(other.stderr.take());
        other.wait().expect("ends");
    }

    #[test]
    fn a_running_host_is_named_by_its_lock_and_by_the_kernel_where_that_was_removed() {
        let folder = tempfile::tempdir().expect("tempdir");
        assert_eq!(running_host(folder.path()).expect("asked"), None);
        std::fs::create_dir(folder.path().join("data")).expect("made");
        let lock = FileLock::try_acquire(&folder.path().join("host.lock"), "pid 7 since then").expect("lock");
        let own = take_folders_of_host(folder.path(), ASKING_MAX).expect("free");
        assert!(!own.is_empty());
        std::fs::remove_file(folder.path().join("host.lock")).expect("removed");
        let said = running_host(folder.path()).expect("asked").expect("it is in use");
        assert_eq!(said, format!("pid {}, whose host.lock was removed", std::process::id()));
        drop((own, lock));
        let path = folder.path().join("host.lock");
        let lock = FileLock::try_acquire(&path, "pid 7 since then").expect("lock");
        assert_eq!(running_host(folder.path()).expect("asked").as_deref(), Some("pid 7 since then"));
        drop(lock);
        // A process that another test starts now has the lock until it executes its program.
        let patience = std::time::Duration::from_secs(20);
        drop(FileLock::acquire(&path, "pid 8 since then", patience).expect("free"));
        let since = std::time::Instant::now();
        while let Some(holder) = running_host(folder.path()).expect("asked") {
            assert!(since.elapsed() < patience, "the text stays, the host does not: {holder}");
            std::thread::yield_now();
        }
    }
}
