//! The Python SDK inside this binary, put on the disk where an interpreter can read it.
//!
//! What must hold: the folder is named by the hash of what it holds; a file appears whole or not at all, so that
//! several workers may unpack at once; what was damaged is written again.

use cjm_platform::files::read_regular;
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Path below the folder → content, in the order of the paths.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/python_sdk.rs"));
/// The script that is the tool's process.
const SCRIPT: &str = "cjm_sdk/run.py";
/// Characters of the hash in the folder's name.
const HASH_CHARS: usize = 16;

/// Unpacks the SDK where that has not been done and returns the script's path. Tries the user's cache folder,
/// then `fallback`.
pub(crate) fn unpack(fallback: &Path) -> io::Result<PathBuf> {
    let name = format!("sdk-{}", content_hash());
    let user = cache_folder(|variable| std::env::var_os(variable));
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for base in user.iter().map(PathBuf::as_path).chain([fallback]) {
        let folder = base.join(&name);
        match write_all(&folder) {
            Ok(()) => return Ok(folder.join(SCRIPT)),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// `$XDG_CACHE_HOME/cjm`, or `~/.cache/cjm`.
fn cache_folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("cjm"))
}

fn content_hash() -> String {
    let mut hash = Sha256::new();
    for (name, content) in FILES {
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name.as_bytes());
        hash.update((content.len() as u64).to_be_bytes());
        hash.update(content);
    }
    let mut text = String::new();
    for byte in hash.finalize() {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.truncate(HASH_CHARS);
    text
}

fn write_all(folder: &Path) -> io::Result<()> {
    for (name, content) in FILES {
        let path = folder.join(name);
        if read_regular(&path, content.len() as u64).is_ok_and(|found| found == *content) {
            continue;
        }
        let parent = path.parent().unwrap_or(folder);
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        let unique = format!(".{}-{}.tmp", std::process::id(), name.replace('/', "-"));
        let temporary = parent.join(unique);
        let written = std::fs::write(&temporary, content).and_then(|()| std::fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_sdk_is_embedded() {
        // Tests start in the folder of their package.
        let mut found: Vec<String> = std::fs::read_dir("python/cjm_sdk")
            .expect("is there")
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .filter(|name| name.ends_with(".py"))
            .map(|name| format!("cjm_sdk/{name}"))
            .collect();
        found.sort();
        let embedded: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(embedded, found, "touch worker-shim/build.rs: a file of the SDK is new");
        assert!(embedded.contains(&SCRIPT));
    }

    #[test]
    fn what_is_damaged_is_written_again_and_an_unwritable_home_has_a_fallback() {
        let base = tempfile::tempdir().expect("a folder");
        let folder = base.path().join("sdk");
        write_all(&folder).expect("writes");
        std::fs::write(folder.join(SCRIPT), "garbage").expect("writes");
        std::fs::remove_file(folder.join("cjm_sdk/__init__.py")).expect("removes");
        write_all(&folder).expect("writes again");
        for (name, content) in FILES {
            assert_eq!(std::fs::read(folder.join(name)).expect("is there"), *content, "{name}");
        }
        assert!(write_all(Path::new("/proc/nowhere")).is_err());
        for (variables, expected) in [
            (vec![("XDG_CACHE_HOME", "/x"), ("HOME", "/h")], Some("/x/cjm")),
            (vec![("XDG_CACHE_HOME", "relative"), ("HOME", "/h")], Some("/h/.cache/cjm")),
            (vec![], None),
        ] {
            let found = cache_folder(|name| {
                variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).into())
            });
            assert_eq!(found, expected.map(PathBuf::from));
        }
    }
}
