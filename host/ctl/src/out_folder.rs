//! `-o DIR`: what a call made, in a folder of the caller's: its files, and its result as a file.
//!
//! A file of a result is an object with `path` and `bytes`, as executables give it, unless the path is one that the
//! caller gave. What must hold: a copy is whole or not there, and holds what the result says it holds; no file is lost
//! that somebody else wrote, or that was changed since it was written here.

use crate::fault::Fault;
use cjm_platform::files::open_regular;
use cjm_wire::canonical::hex;
use cjm_wire::json::Arguments;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// What calls wrote into the folder: names in it, and the SHA-256 of each file.
const LIST: &str = ".cjm-output.json";
/// Longest list that is read.
const LIST_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The files that hold results.
const RESULTS: [&str; 2] = ["result.json", "result.txt"];
/// Most files of one result, those in folders included.
const FILES_MAX: usize = 100_000;
/// Copies of one name at most.
const SAME_NAME_MAX: usize = 10_000;
/// Bytes copied at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// What was written.
#[derive(Debug)]
pub(crate) struct Written {
    /// The result, its files named where they are now.
    pub(crate) result: Box<RawValue>,
    /// Every file and its length, the result last.
    pub(crate) files: Vec<(PathBuf, u64)>,
    /// What lies in the tool's folders and was not copied: links, pipes, devices.
    pub(crate) left_out: Vec<PathBuf>,
}

/// Makes the folder and looks at what is there, so that a call is not made whose result has nowhere to go.
///
/// # Errors
/// When it cannot be made, or the place of the result is taken.
pub(crate) fn make(folder: &Path) -> Result<(), Fault> {
    std::fs::create_dir_all(folder).map_err(|error| failed("make the folder", folder, &error))?;
    let made = made_before(folder);
    RESULTS.iter().try_for_each(|name| check_place(folder, Path::new(name), &made, None))
}

/// What earlier calls wrote into the folder. A list that cannot be read is none: then nothing is overwritten.
fn made_before(folder: &Path) -> BTreeMap<String, String> {
    let mut text = String::new();
    let read = open_regular(&folder.join(LIST))
        .ok()
        .and_then(|file| file.take(LIST_BYTES_MAX).read_to_string(&mut text).ok());
    read.and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Refuses to write where something stands that no call wrote, or that was changed since; `new` is the hash of what is to
/// be written.
fn check_place(
    folder: &Path,
    name: &Path,
    made: &BTreeMap<String, String>,
    new: Option<&str>,
) -> Result<(), Fault> {
    let target = folder.join(name);
    if std::fs::symlink_metadata(&target).is_err() {
        return Ok(());
    }
    let taken = |what: &str| {
        let message = format!("{} is {what}, and is not overwritten", target.display());
        Fault::new("ctl.output", message, "move it away, or name another folder with --output")
    };
    let is_link = std::fs::symlink_metadata(&target).is_ok_and(|meta| meta.is_symlink());
    let mut hasher = Sha256::new();
    let is_read = !is_link
        && open_regular(&target)
            .is_ok_and(|mut file| std::io::copy(&mut file, &mut HashOf(&mut hasher)).is_ok());
    if !is_read {
        return Err(taken("no plain file"));
    }
    let found = hex(&hasher.finalize());
    let is_own = made.get(&*name.to_string_lossy()) == Some(&found);
    if is_own || new == Some(found.as_str()) { Ok(()) } else { Err(taken("no file that a call wrote here")) }
}

struct HashOf<'a>(&'a mut Sha256);

impl Write for HashOf<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes the files of `result` and the result itself into `folder`.
///
/// # Errors
/// When a file is gone, is not what the result says, or cannot be written.
pub(crate) fn write(folder: &Path, result: &RawValue, given: &Arguments) -> Result<Written, Fault> {
    let made = made_before(folder);
    let mut out = Out {
        folder,
        made: made.clone(),
        given: BTreeSet::new(),
        names: BTreeMap::new(),
        taken: BTreeSet::new(),
        files: Vec::new(),
        left_out: Vec::new(),
    };
    let written = out.write(result, given);
    // Also where it failed: what was written until then may be overwritten the next time.
    if out.made != made {
        let list = serde_json::to_string(&out.made).unwrap_or_default() + "\n";
        replace(&folder.join(LIST), |file| file.write_all(list.as_bytes()), || Ok(()))?;
    }
    let result = written?;
    Ok(Written { result, files: out.files, left_out: out.left_out })
}

struct Out<'a> {
    folder: &'a Path,
    /// Names of files in the folder that calls wrote, with their hashes.
    made: BTreeMap<String, String>,
    /// Paths that the caller gave.
    given: BTreeSet<String>,
    /// Path of the tool's → name in the folder.
    names: BTreeMap<PathBuf, String>,
    taken: BTreeSet<String>,
    files: Vec<(PathBuf, u64)>,
    left_out: Vec<PathBuf>,
}

impl Out<'_> {
    fn write(&mut self, result: &RawValue, given: &Arguments) -> Result<Box<RawValue>, Fault> {
        let mut value: Value = serde_json::from_str(result.get()).unwrap_or_default();
        let name = if value.is_string() { "result.txt" } else { "result.json" };
        self.taken.insert(name.to_owned());
        for argument in given.values() {
            // What a value cannot hold is nested deeper than any list of paths.
            collect_texts(&argument.to_value().unwrap_or_default(), &mut self.given);
        }
        let is_changed = self.copy_files(&mut value)?;
        let content = match &value {
            Value::String(text) => text.clone() + "\n",
            // A number of many digits would lose some on the way through a value.
            _ if !is_changed => result.get().to_owned() + "\n",
            value => serde_json::to_string_pretty(value).unwrap_or_default() + "\n",
        };
        let path = self.folder.join(name);
        let hash = hex(&Sha256::digest(content.as_bytes()));
        let check = || check_place(self.folder, Path::new(name), &self.made, Some(&hash));
        replace(&path, |file| file.write_all(content.as_bytes()), check)?;
        self.made.insert(name.to_owned(), hash);
        self.files.push((path, content.len() as u64));
        Ok(if is_changed {
            // In the folder names are relative to it; who reads the command's output stands where the command stood.
            prefix_paths(&mut value, self.folder, &self.names.values().cloned().collect());
            to_raw_value(&value).unwrap_or_else(|_| result.to_owned())
        } else {
            result.to_owned()
        })
    }

    /// Copies all files that `value` names and renames them in it; true when there was one.
    fn copy_files(&mut self, value: &mut Value) -> Result<bool, Fault> {
        match value {
            Value::Array(items) => {
                items.iter_mut().try_fold(false, |any, item| Ok(self.copy_files(item)? | any))
            }
            Value::Object(map) => {
                let Some(path) = produced(map).filter(|path| !self.given.contains(*path)) else {
                    return map.values_mut().try_fold(false, |any, item| Ok(self.copy_files(item)? | any));
                };
                let path = PathBuf::from(path);
                let sha256 = map.get("sha256").and_then(Value::as_str).map(str::to_owned);
                let name = self.copy(&path, sha256.as_deref())?;
                map.insert("path".to_owned(), name.into());
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Copies one file or folder, once; returns its name.
    fn copy(&mut self, path: &Path, sha256: Option<&str>) -> Result<String, Fault> {
        if let Some(name) = self.names.get(path) {
            return Ok(name.clone());
        }
        let name = self.free_name(path)?;
        let target = self.folder.join(&name);
        let found = std::fs::metadata(path).map_err(|error| failed("read", path, &error))?;
        if found.is_dir() {
            if target.exists() {
                let message = format!("the folder {} is there already", target.display());
                return Err(Fault::new(
                    "ctl.output",
                    message,
                    "remove it, or name another one with --output",
                ));
            }
            self.copy_folder(path, &target)?;
        } else {
            self.copy_file(path, &target, sha256)?;
        }
        self.names.insert(path.to_owned(), name.clone());
        Ok(name)
    }

    fn copy_folder(&mut self, from: &Path, to: &Path) -> Result<(), Fault> {
        std::fs::create_dir_all(to).map_err(|error| failed("make the folder", to, &error))?;
        let listing = std::fs::read_dir(from).map_err(|error| failed("read", from, &error))?;
        for entry in listing {
            let entry = entry.map_err(|error| failed("read", from, &error))?;
            let kind = entry.file_type().map_err(|error| failed("read", &entry.path(), &error))?;
            let target = to.join(entry.file_name());
            if kind.is_dir() {
                self.copy_folder(&entry.path(), &target)?;
            } else if kind.is_file() {
                self.copy_file(&entry.path(), &target, None)?;
            } else {
                // Links would lead out of the folder, and pipes have no content.
                self.left_out.push(entry.path());
            }
        }
        Ok(())
    }

    fn copy_file(&mut self, from: &Path, to: &Path, sha256: Option<&str>) -> Result<(), Fault> {
        if self.files.len() >= FILES_MAX {
            let message = format!("the result names more than {FILES_MAX} files");
            return Err(Fault::new("ctl.output", message, "call without --output, and take what is needed"));
        }
        let mut source = open_regular(from).map_err(|error| failed("read", from, &error))?;
        let (mut hasher, mut bytes) = (Sha256::new(), 0);
        let mut is_other = false;
        let hash = RefCell::new(String::new());
        let name = to.strip_prefix(self.folder).unwrap_or(to);
        replace(
            to,
            |target| {
                let mut chunk = vec![0; CHUNK_BYTES];
                loop {
                    let count = source.read(&mut chunk)?;
                    if count == 0 {
                        break;
                    }
                    hasher.update(&chunk[..count]);
                    target.write_all(&chunk[..count])?;
                    bytes += count as u64;
                }
                hash.replace(hex(&hasher.finalize_reset()));
                is_other = sha256.is_some_and(|sha256| sha256 != *hash.borrow());
                if is_other {
                    Err(std::io::Error::other("it has changed since the tool made it"))
                } else {
                    Ok(())
                }
            },
            || check_place(self.folder, name, &self.made, Some(&hash.borrow())),
        )?;
        self.made.insert(name.to_string_lossy().into_owned(), hash.into_inner());
        self.files.push((to.to_owned(), bytes));
        Ok(())
    }

    /// The file's own name, or with a number before its ending when another file has it.
    fn free_name(&mut self, path: &Path) -> Result<String, Fault> {
        let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        let name = text(path.file_name()).unwrap_or_else(|| "file".to_owned());
        let stem = text(path.file_stem()).unwrap_or_else(|| name.clone());
        let ending = text(path.extension()).map_or_else(String::new, |ending| format!(".{ending}"));
        (1..=SAME_NAME_MAX)
            .map(|turn| if turn == 1 { name.clone() } else { format!("{stem}-{turn}{ending}") })
            .find(|name| self.taken.insert(name.clone()))
            .ok_or_else(|| {
                let message = format!("more than {SAME_NAME_MAX} files are named {name}");
                Fault::new("ctl.output", message, "call without --output, and take what is needed")
            })
    }
}

/// The path of a file that a result names: absolute, with its length beside it.
fn produced(map: &Map<String, Value>) -> Option<&str> {
    let path = map.get("path")?.as_str()?;
    (map.get("bytes")?.is_u64() && Path::new(path).is_absolute()).then_some(path)
}

/// Every text in a value.
fn collect_texts(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            into.insert(text.clone());
        }
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, into)),
        Value::Object(map) => map.values().for_each(|item| collect_texts(item, into)),
        _ => {}
    }
}

fn prefix_paths(value: &mut Value, folder: &Path, names: &BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| prefix_paths(item, folder, names)),
        Value::Object(map) => {
            if let Some(Value::String(path)) =
                map.get_mut("path").filter(|path| path.as_str().is_some_and(|p| names.contains(p)))
            {
                *path = folder.join(&*path).to_string_lossy().into_owned();
            }
            map.values_mut().for_each(|item| prefix_paths(item, folder, names));
        }
        _ => {}
    }
}

/// Writes beside the target and, if `check` allows it, renames.
fn replace(
    target: &Path,
    write: impl FnOnce(&mut File) -> std::io::Result<()>,
    check: impl FnOnce() -> Result<(), Fault>,
) -> Result<(), Fault> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let beside = target.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let fail = |error: std::io::Error| failed("write", target, &error);
    let written = File::create(&beside).and_then(|mut file| write(&mut file)).map_err(fail);
    let put = written.and_then(|()| check()).and_then(|()| std::fs::rename(&beside, target).map_err(fail));
    put.inspect_err(|_| {
        // What cannot be removed could not be written either.
        let _ = std::fs::remove_file(&beside);
    })
}

fn failed(doing: &str, path: &Path, error: &dyn ToString) -> Fault {
    let message = format!("cannot {doing} {}", path.display());
    Fault::new("ctl.output", message, "check the path, its permissions and the space on its disk")
        .caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Lab {
        folder: tempfile::TempDir,
    }

    impl Lab {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().expect("tempdir") }
        }

        fn file(&self, name: &str, content: &str) -> PathBuf {
            let path = self.folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
            std::fs::write(&path, content).expect("write");
            path
        }

        fn out(&self) -> PathBuf {
            self.folder.path().join("out")
        }

        fn write(&self, result: &Value, given: &Value) -> Result<Written, String> {
            let given = cjm_wire::Json::from(given).fields().expect("an object");
            make(&self.out()).expect("a folder");
            let result = to_raw_value(result).expect("raw");
            write(&self.out(), &result, &given).map_err(|fault| match fault {
                Fault::Shown(report) => format!("{} {:?}", report.message, report.causes),
                Fault::OutputClosed => "closed".to_owned(),
            })
        }

        fn read(&self, name: &str) -> String {
            std::fs::read_to_string(self.out().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
        }
    }

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn files_are_copied_and_inputs_are_not() {
        let lab = Lab::new();
        let (page, first, second) =
            (lab.file("page.png", "x"), lab.file("1/a.txt", "abc"), lab.file("2/a.txt", "other"));
        let result = json!({
            "image": {"path": page, "bytes": 1}, "text": {"path": first, "bytes": 3, "sha256": ABC},
            "more": [{"path": second, "bytes": 5}, {"path": first, "bytes": 3}],
            "no_file": {"path": "/etc/hostname"}, "count": 2,
        });
        let written = lab.write(&result, &json!({"page": page})).expect("written");
        assert_eq!((lab.read("a.txt").as_str(), lab.read("a-2.txt").as_str()), ("abc", "other"));
        assert!(!lab.out().join("page.png").exists() && !lab.out().join("hostname").exists());
        let names: Vec<String> = written
            .files
            .iter()
            .map(|(path, bytes)| {
                format!("{} {bytes}", path.strip_prefix(lab.out()).expect("inside").display())
            })
            .take(2)
            .collect();
        assert_eq!(names, ["a.txt 3", "a-2.txt 5"]);
        let kept: Value = serde_json::from_str(&lab.read("result.json")).expect("JSON");
        assert_eq!((&kept["text"]["path"], &kept["more"][1]["path"]), (&json!("a.txt"), &json!("a.txt")));
        assert_eq!((&kept["image"]["path"], &kept["count"]), (&json!(page), &json!(2)));
        let told: Value = serde_json::from_str(written.result.get()).expect("JSON");
        assert_eq!(told["more"][0]["path"], json!(lab.out().join("a-2.txt")));
        // Again, over what is there.
        lab.write(&result, &json!({"page": page})).expect("written");
        let mut left: Vec<_> =
            std::fs::read_dir(lab.out()).expect("a folder").map(|e| e.expect("entry").file_name()).collect();
        left.sort();
        assert_eq!(left, [LIST, "a-2.txt", "a.txt", "result.json"]);
    }

    #[test]
    fn what_somebody_else_wrote_or_changed_is_not_overwritten() {
        let lab = Lab::new();
        let made = lab.file("1/a.txt", "abc");
        let result = json!({"path": made, "bytes": 3});
        let refused = |at: &str| {
            let error = lab.write(&result, &json!({})).expect_err("refused");
            assert!(error.contains(&format!("{} is no ", lab.out().join(at).display())), "{error}");
        };
        std::fs::create_dir(lab.out()).expect("a folder");
        std::fs::write(lab.out().join("a.txt"), "mine").expect("written");
        refused("a.txt");
        assert_eq!(lab.read("a.txt"), "mine");
        // The same content may stand there, whoever wrote it; and what a call wrote gives way to the next one's.
        std::fs::write(lab.out().join("a.txt"), "abc").expect("written");
        for content in ["abc", "other"] {
            std::fs::write(&made, content).expect("written");
            lab.write(&result, &json!({})).expect("written");
            assert_eq!(lab.read("a.txt"), content);
        }
        std::fs::write(lab.out().join("a.txt"), "corrected by hand").expect("written");
        refused("a.txt");
        std::fs::remove_file(lab.out().join("a.txt")).expect("removed");
        lab.write(&result, &json!({})).expect("written");
        // Known before the call.
        for name in RESULTS {
            let _ = std::fs::remove_file(lab.out().join(name));
            std::fs::create_dir(lab.out().join(name)).expect("a folder");
            assert!(make(&lab.out()).is_err(), "{name}");
            std::fs::remove_dir(lab.out().join(name)).expect("removed");
            std::os::unix::fs::symlink("/etc/hostname", lab.out().join(name)).expect("a link");
            assert!(make(&lab.out()).is_err(), "{name}");
            std::fs::remove_file(lab.out().join(name)).expect("removed");
            make(&lab.out()).expect("free");
        }
    }

    #[test]
    fn results_without_files_are_written_as_they_are() {
        let lab = Lab::new();
        assert_eq!(lab.write(&json!("some\ntext"), &json!({})).expect("written").files.len(), 1);
        assert_eq!(lab.read("result.txt"), "some\ntext\n");
        let many = RawValue::from_string("{\"n\": 123456789012345678901234567890}".to_owned()).expect("JSON");
        let written = write(&lab.out(), &many, &Arguments::new()).expect("written");
        assert_eq!((lab.read("result.json").trim_end(), written.result.get()), (many.get(), many.get()));
    }

    #[test]
    fn a_folder_is_copied_whole_and_never_over_another() {
        let lab = Lab::new();
        lab.file("pages/1.txt", "one");
        lab.file("pages/deep/2.txt", "two");
        let result = json!({"path": lab.folder.path().join("pages"), "bytes": 4096});
        lab.write(&result, &json!({})).expect("written");
        assert_eq!(lab.read("pages/deep/2.txt"), "two");
        let error = lab.write(&result, &json!({})).expect_err("refused");
        assert!(error.contains("is there already"), "{error}");
    }

    #[test]
    fn what_is_no_file_is_told_and_hangs_nobody() {
        let lab = Lab::new();
        lab.file("pages/1.txt", "one");
        let pages = lab.folder.path().join("pages");
        std::os::unix::fs::symlink("/etc/hostname", pages.join("link")).expect("a link");
        let pipe = pages.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            let error = lab.write(&json!({"path": path, "bytes": 1}), &json!({})).expect_err("refused");
            assert!(error.contains(&format!("cannot read {}", path.display())), "{error}");
        }
        let mut written = lab.write(&json!({"path": pages, "bytes": 4096}), &json!({})).expect("written");
        written.left_out.sort();
        assert_eq!(
            (lab.read("pages/1.txt").as_str(), &written.left_out),
            ("one", &vec![pages.join("link"), pipe])
        );
    }

    #[test]
    fn a_file_that_is_gone_or_another_is_told() {
        let lab = Lab::new();
        let error = lab.write(&json!({"path": "/nowhere/x", "bytes": 1}), &json!({})).expect_err("refused");
        assert!(error.contains("cannot read /nowhere/x"), "{error}");
        let path = lab.file("a", "abcd");
        let error =
            lab.write(&json!({"path": path, "bytes": 3, "sha256": ABC}), &json!({})).expect_err("refused");
        assert!(error.contains("changed since the tool made it"), "{error}");
        assert_eq!(std::fs::read_dir(lab.out()).expect("a folder").count(), 0, "nothing half is left");
    }
}
