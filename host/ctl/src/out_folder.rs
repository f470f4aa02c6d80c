//! `-o DIR`: what a call made, in a folder of the caller's: its files, and its result as a file.
//!
//! A file of a result is an object with `path` and `bytes`, as executables give it, unless the path is one that the
//! caller gave. What must hold: a copy is whole or not there, and holds what the result says it holds; no file is lost
//! that somebody else wrote, or that was changed since it was written here; of the result nothing changes but the paths of
//! what was copied.

use crate::fault::Fault;
use cjm_platform::disk::DiskRoom;
use cjm_platform::files::{create_fresh, open_regular};
use cjm_platform::lock::{DirectoryLock, is_for_nobody};
use cjm_platform::mounts::remove_tree;
use cjm_wire::cache::is_call_directory;
use cjm_wire::canonical::hex;
use cjm_wire::error::no_inode;
use cjm_wire::json::Arguments;
use list::{LIST, List, is_part, part_in};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use told::{Told, look_through, renamed};

mod list;
mod of_house;
mod told;

/// The files that hold results.
const RESULTS: [&str; 2] = ["result.json", "result.txt"];
/// Most files of one result, those in folders included.
const FILES_MAX: usize = 100_000;
/// Files that a result names in another way and that are told.
const UNTOLD_MAX: usize = 1_000;
/// Directories of calls that are locked before the first file is copied; each takes a descriptor, of which a process has
/// often no more than 1024.
const LOCKED_AHEAD_MAX: usize = 256;
/// Copies of one name at most.
const SAME_NAME_MAX: usize = 10_000;
/// Longest name of a file, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Longest ending that stays one where a number comes before it.
const ENDING_BYTES_MAX: usize = 32;
/// What the system says of a disk that takes no more.
const DISK_FULL: &str = "No space left on device";
/// How long another call may be about to let go of the folder.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(500);
/// How often the lock is tried again.
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(5);
/// Bytes copied at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Asked before each part of a long work: whether it goes on, or ends with that.
pub(crate) type GoOn<'a> = &'a dyn Fn() -> Result<(), Fault>;

/// What was written.
#[derive(Debug)]
pub(crate) struct Written {
    /// The result, its files named where they are now.
    pub(crate) result: Box<RawValue>,
    /// Every file and its length, the result last.
    pub(crate) files: Vec<(PathBuf, u64)>,
    /// What lies in the tool's folders and was not copied: links, pipes, devices.
    pub(crate) left_out: Vec<PathBuf>,
    /// Files that the result names in another way than files are told: they were not copied.
    pub(crate) untold: Vec<PathBuf>,
}

/// The folder, in which no other command writes until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Claimed {
    _lock: Option<File>,
}

/// Makes the folder and looks at what is there, so that a call is not made whose result has nowhere to go. What a call that
/// was killed had not finished goes. Blocks, for as long as `go_on` lets it.
///
/// # Errors
/// When it is a host's own, as `data_dir` is, cannot be made or written to, another command writes there, or the place of the
/// result or of the list is taken; what `go_on` says.
pub(crate) fn make(folder: &Path, data_dir: &Path, go_on: GoOn<'_>) -> Result<Claimed, Fault> {
    // Its lock would keep the very host of this call out, or another one.
    of_house::refuse(folder, data_dir)?;
    if folder.symlink_metadata().is_ok() && !folder.is_dir() {
        let message = format!("{} is there, and is no folder", folder.display());
        let next_step = "name a folder with --output; one that is not there is made";
        return Err(Fault::new("ctl.output", message, next_step));
    }
    std::fs::create_dir_all(folder).map_err(|error| failed("make the folder", folder, &error))?;
    // Two would take each other's files for somebody else's. Where the folder may not be read, or its file system has no locks,
    // nobody is kept away.
    let lock = File::open(folder).ok();
    if lock.as_ref().is_some_and(is_locked_by_another) {
        let message = format!("another call writes into {} now", folder.display());
        return Err(Fault::new(
            "ctl.output",
            message,
            "wait for its end, or name another folder with --output",
        ));
    }
    let list = folder.join(LIST);
    if list.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        return Err(taken(&list, "no plain file"));
    }
    let made = List::of(folder);
    let place = |name| Place { folder, name, made: &made };
    RESULTS.iter().try_for_each(|name| place(name).check(None, go_on))?;
    if lock.is_some() {
        clear_parts(folder, &made);
    }
    let part = part_in(folder);
    let tried = create_fresh(&part).and_then(|_| std::fs::remove_file(&part));
    tried.map_err(|error| failed("write into", folder, &error))?;
    Ok(Claimed { _lock: lock })
}

/// Takes the lock, and says whether another one keeps it. What a call that has just ended was starting has it until it is
/// another program.
fn is_locked_by_another(folder: &File) -> bool {
    let since = Instant::now();
    while let Err(TryLockError::WouldBlock) = folder.try_lock() {
        if since.elapsed() >= LOCK_WAIT_MAX {
            return true;
        }
        std::thread::sleep(LOCK_RETRY_PAUSE);
    }
    false
}

/// Removes what was being written when a call was killed. What cannot be removed is in nobody's way.
fn clear_parts(folder: &Path, made: &List) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_ours = |name: &str| is_part(name) && !made.has(name);
    for entry in entries.filter(|entry| entry.file_name().to_str().is_some_and(is_ours)) {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let remove = if is_folder { remove_tree } else { |path: &Path| std::fs::remove_file(path) };
        if let Err(error) = remove(&entry.path()) {
            tracing::debug!(%error, path = %entry.path().display(), "a part of a file stays");
        }
    }
}

fn taken(target: &Path, what: &str) -> Fault {
    let message = format!("{} is {what}, and is not overwritten", target.display());
    Fault::new("ctl.output", message, "move it away, or name another folder with --output")
}

/// Where a file is to stand.
#[derive(Clone, Copy)]
struct Place<'a> {
    folder: &'a Path,
    name: &'a str,
    made: &'a List,
}

impl Place<'_> {
    /// Refuses to write where something stands that no call wrote, or that was changed since; `new` is the hash of what is
    /// to be written.
    fn check(self, new: Option<&str>, go_on: GoOn<'_>) -> Result<(), Fault> {
        let target = self.folder.join(self.name);
        let Ok(standing) = std::fs::symlink_metadata(&target) else { return Ok(()) };
        let opened = if standing.is_symlink() { None } else { open_regular(&target).ok() };
        let mut opened = opened.ok_or_else(|| taken(&target, "no plain file"))?;
        // Whatever it holds: it may be large.
        if !self.made.has(self.name) && new.is_none() {
            return Err(taken(&target, "no file that a call wrote here"));
        }
        let found = match read_all(&mut opened, go_on, |_| Ok(())) {
            Ok(found) => found.sha256,
            Err(Broken::Stopped(fault)) => return Err(fault),
            Err(Broken::Read(error) | Broken::Write(error)) => return Err(failed("read", &target, &error)),
        };
        match self.made.has(self.name) {
            _ if self.made.holds(self.name, &found) || new == Some(found.as_str()) => Ok(()),
            true => Err(taken(&target, "another file than the call wrote here: it was changed since")),
            false => Err(taken(&target, "no file that a call wrote here")),
        }
    }
}

/// Writes the files of `result` and the result itself into `folder`. `kept` is where tools keep what is theirs, `given` what
/// the caller said. Blocks, for as long as `go_on` lets it.
///
/// # Errors
/// When a file is gone, is not what the result says, or cannot be written; what `go_on` says.
pub(crate) fn write(
    folder: &Path,
    kept: &Path,
    result: &RawValue,
    given: &Arguments,
    go_on: GoOn<'_>,
) -> Result<Written, Fault> {
    let mut out = Out {
        go_on,
        folder,
        kept,
        made: List::of(folder),
        given: BTreeSet::new(),
        copies: BTreeMap::new(),
        taken: BTreeSet::from([LIST.to_owned()]),
        files: Vec::new(),
        left_out: Vec::new(),
        untold: Vec::new(),
    };
    let written = out.write(result, given);
    // Its lines say the same where it cannot be written anew.
    if let Err(error) = out.made.close() {
        tracing::debug!(%error, "the list of a folder of results stays long");
    }
    let result = written?;
    Ok(Written { result, files: out.files, left_out: out.left_out, untold: out.untold })
}

/// A file or folder in the folder.
#[derive(Clone)]
struct Copied {
    name: String,
    /// None: a folder, of which a result says nothing that could be compared.
    content: Option<Content>,
}

/// What a file holds.
#[derive(Clone, PartialEq, Eq)]
struct Content {
    bytes: u64,
    sha256: String,
}

/// What a result says that a file holds.
struct Promised {
    bytes: u64,
    sha256: Option<String>,
}

impl Promised {
    /// Before it is copied: it may be larger than any disk.
    fn check_length(&self, path: &Path, bytes: u64) -> Result<(), Fault> {
        if self.bytes == bytes {
            return Ok(());
        }
        Err(Self::differs(path, &format!("it holds {bytes} bytes, and the result says {}", self.bytes)))
    }

    fn check(&self, path: &Path, content: &Content) -> Result<(), Fault> {
        self.check_length(path, content.bytes)?;
        let is_another = self.sha256.as_ref().is_some_and(|sha256| *sha256 != content.sha256);
        match is_another {
            true => Err(Self::differs(path, "it has another SHA-256 than the result says")),
            false => Ok(()),
        }
    }

    fn differs(path: &Path, differs: &str) -> Fault {
        let next_step = "call again if something has changed the file since the tool made it; if nothing has, the fault \
                         is in the tool, whose result is to say what its file holds";
        let message = format!("{} is not what the result says: {differs}", path.display());
        Fault::new("ctl.output", message, next_step)
    }
}

struct Out<'a> {
    go_on: GoOn<'a>,
    folder: &'a Path,
    /// Where tools keep what is theirs.
    kept: &'a Path,
    /// Names of files in the folder that calls wrote, with their hashes.
    made: List,
    /// Paths that the caller gave.
    given: BTreeSet<String>,
    /// Path of the tool's → its copy.
    copies: BTreeMap<PathBuf, Copied>,
    taken: BTreeSet<String>,
    files: Vec<(PathBuf, u64)>,
    left_out: Vec<PathBuf>,
    untold: Vec<PathBuf>,
}

impl Out<'_> {
    fn write(&mut self, result: &RawValue, given: &Arguments) -> Result<Box<RawValue>, Fault> {
        let json = result.get();
        let text: Option<String> = serde_json::from_str(json).ok();
        let name = if text.is_some() { "result.txt" } else { "result.json" };
        self.taken.insert(name.to_owned());
        for argument in given.values() {
            self.given.extend(look_through(argument.text()).texts);
        }
        let told = look_through(json);
        let _held = lock_ahead(&told)?;
        let copied = self.copy_files(&told.files)?;
        self.untold = self.untold_files(&told);
        let content = text.unwrap_or_else(|| renamed(json, &copied)) + "\n";
        let path = self.folder.join(name);
        let hash = hex(&Sha256::digest(content.as_bytes()));
        let written =
            create_fresh(&part_in(self.folder)).and_then(|mut file| file.write_all(content.as_bytes()));
        let named =
            written.map_err(|error| failed("write", &path, &error)).and_then(|()| self.put(name, &hash));
        self.or_no_part(named)?;
        self.files.push((path, content.len() as u64));
        // In the folder names are relative to it; who reads the command's output stands where the command stood.
        let absolute = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        let copied: Vec<_> = copied.into_iter().map(|(place, name)| (place, absolute(&name))).collect();
        Ok(RawValue::from_string(renamed(json, &copied)).unwrap_or_else(|_| result.to_owned()))
    }

    /// Those files of a result that the caller did not give and nobody has copied: named by a text alone, or from a folder
    /// that only the tool knows.
    fn untold_files(&self, told: &Told) -> Vec<PathBuf> {
        let paths = told.texts.iter().filter(|text| text.starts_with('/')).map(PathBuf::from);
        let copied = |path: &Path| path.ancestors().any(|folder| self.copies.contains_key(folder));
        let kept = self.kept.canonicalize().unwrap_or_else(|_| self.kept.to_owned());
        let is_ours = |path: &Path| path.starts_with(self.kept) || path.starts_with(&kept);
        let is_given = |path: &Path| path.to_str().is_some_and(|path| self.given.contains(path));
        // Also by a folder in which it lies, but what tools keep lies in one of ours, whoever names a folder above it.
        let given = |path: &Path| {
            is_given(path)
                || !is_ours(path) && path.ancestors().skip(1).any(|up| up.parent().is_some() && is_given(up))
        };
        let unknown = paths.filter(|path| !copied(path) && !given(path)).take(FILES_MAX);
        // A folder is seldom a result, and what is a pipe or a device is no file that anybody would take.
        let absolute = unknown.filter(|path| path.is_file());
        let relative: BTreeSet<PathBuf> =
            told.files.iter().filter_map(|file| file.path.as_ref()).map(PathBuf::from).collect();
        let relative = relative.into_iter().filter(|path| path.is_relative() && !is_given(path));
        relative.chain(absolute).take(UNTOLD_MAX).collect()
    }

    /// Copies all files that a result tells of, unless the caller gave them; says where the path of each stands and what it
    /// is called here.
    fn copy_files(&mut self, files: &[told::File]) -> Result<Vec<(Range<usize>, String)>, Fault> {
        let mut copied = Vec::new();
        for file in files {
            let Some(path) = &file.path else {
                let message = "the result names a file by a text that is no Unicode";
                let next_step = "call without --output, and take what is needed; the fault is in the tool, whose files are to \
                                 have names in Unicode";
                return Err(Fault::new("ctl.output", message, next_step));
            };
            if self.given.contains(path) || Path::new(path).is_relative() {
                continue;
            }
            let promised = Promised { bytes: file.bytes, sha256: file.sha256.clone() };
            let _held = call_directory_of(path).map(locked).transpose()?;
            copied.push((file.place.clone(), self.copy(Path::new(path), &promised)?));
        }
        Ok(copied)
    }

    /// Copies one file or folder, once; returns its name.
    fn copy(&mut self, path: &Path, promised: &Promised) -> Result<String, Fault> {
        if let Some(Copied { name, content }) = self.copies.get(path) {
            content.as_ref().map_or(Ok(()), |content| promised.check(path, content))?;
            return Ok(name.clone());
        }
        let name = self.free_name(path)?;
        let target = self.folder.join(&name);
        let found = std::fs::metadata(path).map_err(|error| failed("read", path, &error))?;
        let content = if found.is_dir() {
            if target.symlink_metadata().is_ok() {
                let message = format!("the folder {} is there already", target.display());
                return Err(Fault::new(
                    "ctl.output",
                    message,
                    "remove it, or name another one with --output",
                ));
            }
            if holds(path, self.folder) {
                let message = format!("{} holds the folder of --output", path.display());
                return Err(Fault::new("ctl.output", message, "name a folder outside of it with --output"));
            }
            self.copy_folder(path, &target)?;
            None
        } else {
            // What is no file is told as that.
            if found.is_file() {
                promised.check_length(path, found.len())?;
            }
            Some(self.copy_file(path, &name, Some(promised))?)
        };
        self.copies.insert(path.to_owned(), Copied { name: name.clone(), content });
        Ok(name)
    }

    /// Under another name until it is whole.
    fn copy_folder(&mut self, from: &Path, to: &Path) -> Result<(), Fault> {
        let part = part_in(self.folder);
        let copied = self.copy_tree(from, &part, to);
        let named =
            copied.and_then(|()| std::fs::rename(&part, to).map_err(|error| failed("write", to, &error)));
        self.or_no_part(named)
    }

    /// Copies what is in `from` into the new folder `part`, which is going to be `to`.
    fn copy_tree(&mut self, from: &Path, part: &Path, to: &Path) -> Result<(), Fault> {
        std::fs::create_dir(part).map_err(|error| failed("make the folder", to, &error))?;
        let listing = std::fs::read_dir(from).map_err(|error| failed("read", from, &error))?;
        for entry in listing {
            (self.go_on)()?;
            let entry = entry.map_err(|error| failed("read", from, &error))?;
            let kind = entry.file_type().map_err(|error| failed("read", &entry.path(), &error))?;
            let (part, to) = (part.join(entry.file_name()), to.join(entry.file_name()));
            if kind.is_dir() {
                self.copy_tree(&entry.path(), &part, &to)?;
            } else if kind.is_file() {
                let content = self.copy_content(&entry.path(), &part, &to)?;
                self.files.push((to, content.bytes));
            } else {
                // Links would lead out of the folder, and pipes have no content.
                self.left_out.push(entry.path());
            }
        }
        Ok(())
    }

    fn copy_file(&mut self, from: &Path, name: &str, promised: Option<&Promised>) -> Result<Content, Fault> {
        let to = self.folder.join(name);
        let copied = self.copy_content(from, &part_in(self.folder), &to).and_then(|content| {
            promised.map_or(Ok(()), |promised| promised.check(from, &content))?;
            self.put(name, &content.sha256)?;
            Ok(content)
        });
        let content = self.or_no_part(copied)?;
        self.files.push((to, content.bytes));
        Ok(content)
    }

    fn copy_content(&self, from: &Path, part: &Path, to: &Path) -> Result<Content, Fault> {
        if self.files.len() >= FILES_MAX {
            let message = format!("the result names more than {FILES_MAX} files");
            return Err(Fault::new("ctl.output", message, "call without --output, and take what is needed"));
        }
        let mut source = open_regular(from).map_err(|error| failed("read", from, &error))?;
        let mut target = create_fresh(part).map_err(|error| failed("write", to, &error))?;
        read_all(&mut source, self.go_on, |bytes| target.write_all(bytes)).map_err(|broken| match broken {
            Broken::Read(error) => failed("read", from, &error),
            Broken::Write(error) => failed("write", to, &error),
            Broken::Stopped(fault) => fault,
        })
    }

    /// Gives what was written its name, if what stands there may go.
    fn put(&mut self, name: &str, sha256: &str) -> Result<(), Fault> {
        Place { folder: self.folder, name, made: &self.made }.check(Some(sha256), self.go_on)?;
        let announced = self.made.announce(name, sha256);
        announced.map_err(|error| failed("write", &self.folder.join(LIST), &error))?;
        let target = self.folder.join(name);
        let named = std::fs::rename(part_in(self.folder), &target);
        named.map_err(|error| failed("write", &target, &error))?;
        self.made.settle(name, sha256);
        Ok(())
    }

    /// Where something failed, what was written until then goes.
    fn or_no_part<T>(&self, done: Result<T, Fault>) -> Result<T, Fault> {
        done.inspect_err(|_| {
            let part = part_in(self.folder);
            // What cannot be removed could not be written either, or the next call removes it.
            let _ = std::fs::remove_file(&part).or_else(|_| remove_tree(&part));
        })
    }

    /// The file's own name, or with a number before its ending when another file has it.
    fn free_name(&mut self, path: &Path) -> Result<String, Fault> {
        let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        let name = text(path.file_name()).unwrap_or_else(|| "file".to_owned());
        let ending = text(path.extension()).map_or_else(String::new, |ending| format!(".{ending}"));
        let ending = Some(ending).filter(|ending| ending.len() <= ENDING_BYTES_MAX).unwrap_or_default();
        let stem = name.strip_suffix(&ending).unwrap_or(&name);
        let numbered = |turn: usize| {
            let end = format!("-{turn}{ending}");
            format!("{}{end}", &stem[..stem.floor_char_boundary(NAME_BYTES_MAX.saturating_sub(end.len()))])
        };
        (1..=SAME_NAME_MAX)
            .map(|turn| if turn == 1 { name.clone() } else { numbered(turn) })
            .find(|name| !is_part(name) && self.taken.insert(name.clone()))
            .ok_or_else(|| {
                let message = format!("more than {SAME_NAME_MAX} files are named {name}");
                Fault::new("ctl.output", message, "call without --output, and take what is needed")
            })
    }
}

/// Locks the directories of calls in which files of the result lie: retention leaves them alone then, however old they are.
/// Of very many the last ones are locked when it is their turn.
///
/// # Errors
/// When one of them is going.
fn lock_ahead(told: &Told) -> Result<Vec<DirectoryLock>, Fault> {
    let paths = told.files.iter().filter_map(|file| file.path.as_deref());
    let directories: BTreeSet<&Path> = paths.filter_map(call_directory_of).collect();
    let ahead = directories.into_iter().take(LOCKED_AHEAD_MAX);
    // What else keeps one from being locked is told in its turn, if it does so then.
    let locked = ahead.filter_map(|call| DirectoryLock::try_share(call).ok().map(|lock| (call, lock)));
    locked.map(|(call, lock)| lock.ok_or_else(|| forgotten(call))).collect()
}

fn call_directory_of(path: &str) -> Option<&Path> {
    Path::new(path).ancestors().find(|folder| is_call_directory(folder))
}

/// Shared with whoever else copies from it. What nobody can lock is forgotten by nobody; else no copy begins without the lock.
fn locked(call: &Path) -> Result<Option<DirectoryLock>, Fault> {
    match DirectoryLock::try_share(call) {
        Ok(lock) => lock.map(Some).ok_or_else(|| forgotten(call)),
        Err(error) if is_for_nobody(&error) => Ok(None),
        Err(error) => Err(failed("lock", call, &error)),
    }
}

fn forgotten(call: &Path) -> Fault {
    let message = format!("the files in {} are being forgotten, with the jobs of their age", call.display());
    Fault::new("ctl.output", message, "call again, so that they are made anew")
}

/// Whether `outer` is `inner`, or a folder above it, whatever links lead there.
fn holds(outer: &Path, inner: &Path) -> bool {
    outer.canonicalize().is_ok_and(|outer| inner.canonicalize().is_ok_and(|inner| inner.starts_with(outer)))
}

/// Why a file was not read to its end.
enum Broken {
    Read(std::io::Error),
    Write(std::io::Error),
    Stopped(Fault),
}

/// Hands what is left of a file to `take`, and says what it is.
fn read_all(
    source: &mut File,
    go_on: GoOn<'_>,
    mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<Content, Broken> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    loop {
        go_on().map_err(Broken::Stopped)?;
        let count = source.read(&mut chunk).map_err(Broken::Read)?;
        if count == 0 {
            return Ok(Content { bytes, sha256: hex(&hasher.finalize()) });
        }
        hasher.update(&chunk[..count]);
        take(&chunk[..count]).map_err(Broken::Write)?;
        bytes += count as u64;
    }
}

fn failed(doing: &str, path: &Path, error: &dyn ToString) -> Fault {
    let message = format!("cannot {doing} {}", path.display());
    let said = error.to_string();
    // The kernel calls a disk full whose inodes are all in use.
    let room = said.contains(DISK_FULL).then(|| DiskRoom::of(path)).flatten();
    match room.filter(|room| room.lacks_inodes) {
        Some(room) => {
            let next_step = "remove files that are not needed from that disk (`df -i` counts inodes), or name a folder on \
                             another one with --output";
            Fault::new("ctl.output", message, next_step)
                .caused_by(&format!("{said} ({})", no_inode(room.bytes)))
        }
        None => {
            let next_step = "check the path, its permissions and the space on its disk";
            Fault::new("ctl.output", message, next_step).caused_by(&said)
        }
    }
}

#[cfg(test)]
mod tests;
