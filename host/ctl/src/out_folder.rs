//! `-o DIR`: what a call made, in a folder of the caller's: its files, and its result as a file.
//!
//! A file of a result is an object with `path` and `bytes`, as executables give it, unless the path is one that the
//! caller gave. What must hold: a copy is whole or not there, and holds what the result says it holds.

use crate::fault::Fault;
use cjm_platform::files::open_regular;
use cjm_wire::canonical::hex;
use cjm_wire::json::Arguments;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

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

/// Makes the folder, so that a call is not made whose result has nowhere to go.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn make(folder: &Path) -> Result<(), Fault> {
    std::fs::create_dir_all(folder).map_err(|error| failed("make the folder", folder, &error))
}

/// Writes the files of `result` and the result itself into `folder`.
///
/// # Errors
/// When a file is gone, is not what the result says, or cannot be written.
pub(crate) fn write(folder: &Path, result: &RawValue, given: &Arguments) -> Result<Written, Fault> {
    let mut value: Value = serde_json::from_str(result.get()).unwrap_or_default();
    let name = if value.is_string() { "result.txt" } else { "result.json" };
    let mut out = Out {
        folder,
        given: BTreeSet::new(),
        names: BTreeMap::new(),
        taken: BTreeSet::new(),
        files: Vec::new(),
        left_out: Vec::new(),
    };
    out.taken.insert(name.to_owned());
    for argument in given.values() {
        // What a value cannot hold is nested deeper than any list of paths.
        collect_texts(&argument.to_value().unwrap_or_default(), &mut out.given);
    }
    let is_changed = out.copy_files(&mut value)?;
    let content = match &value {
        Value::String(text) => text.clone() + "\n",
        // A number of many digits would lose some on the way through a value.
        _ if !is_changed => result.get().to_owned() + "\n",
        value => serde_json::to_string_pretty(value).unwrap_or_default() + "\n",
    };
    let path = folder.join(name);
    replace(&path, |file| file.write_all(content.as_bytes()))?;
    out.files.push((path, content.len() as u64));
    let result = if is_changed {
        // In the folder names are relative to it; who reads the command's output stands where the command stood.
        prefix_paths(&mut value, folder, &out.names.into_values().collect());
        to_raw_value(&value).unwrap_or_else(|_| result.to_owned())
    } else {
        result.to_owned()
    };
    Ok(Written { result, files: out.files, left_out: out.left_out })
}

struct Out<'a> {
    folder: &'a Path,
    /// Paths that the caller gave.
    given: BTreeSet<String>,
    /// Path of the tool's → name in the folder.
    names: BTreeMap<PathBuf, String>,
    taken: BTreeSet<String>,
    files: Vec<(PathBuf, u64)>,
    left_out: Vec<PathBuf>,
}

impl Out<'_> {
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
        replace(to, |target| {
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
            is_other = sha256.is_some_and(|sha256| sha256 != hex(&hasher.finalize_reset()));
            if is_other {
                Err(std::io::Error::other("it has changed since the tool made it"))
            } else {
                Ok(())
            }
        })?;
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

/// Writes beside the target and renames.
fn replace(target: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<(), Fault> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let beside = target.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let written = File::create(&beside).and_then(|mut file| write(&mut file));
    written.and_then(|()| std::fs::rename(&beside, target)).map_err(|error| {
        // What cannot be removed could not be written either.
        let _ = std::fs::remove_file(&beside);
        failed("write", target, &error)
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
        assert_eq!(left, ["a-2.txt", "a.txt", "result.json"]);
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
