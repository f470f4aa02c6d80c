//! Where the files of one action on one input with one configuration lie, and what the host already knows of a call's
//! input files. Pure: it names directories and hashes, and looks at no disk.
//!
//! The directory is the ancestor's, `ACTION/STEM/INPUT_CONFIG`, so that a capability finds the same files under either
//! host. The two hashes in it are shortened: who trusts a directory compares the full ones, kept inside it.

use crate::canonical::canonical_hash_of;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Longest stem, in characters.
pub const STEM_CHARS_MAX: usize = 100;
/// Digits of the input's hash in the name.
pub const INPUT_HASH_DIGITS: usize = 6;
/// Digits of the configuration's hash in the name.
pub const CONFIG_HASH_DIGITS: usize = 12;
/// What stands before the digits of a hash.
pub const HASH_PREFIX: &str = "sha256:";

/// Characters of a UUID as sessions have it.
const UUID_CHARS: usize = 36;
/// Ends of the name of the mark that stands beside a call's directory while the call runs.
const RUNNING_MARK: (&str, &str) = (".", ".running");

/// The mark of a call's directory: there while it runs, and locked by whoever runs it.
#[must_use]
pub fn running_mark(work_dir: &Path) -> PathBuf {
    let mut name = OsString::from(RUNNING_MARK.0);
    name.push(work_dir.file_name().unwrap_or_default());
    name.push(RUNNING_MARK.1);
    work_dir.with_file_name(name)
}

/// The call's directory that a mark stands for; none when the path is no mark.
#[must_use]
pub fn marked_directory(mark: &Path) -> Option<PathBuf> {
    let name = mark.file_name()?.to_str()?.strip_prefix(RUNNING_MARK.0)?.strip_suffix(RUNNING_MARK.1)?;
    (!name.is_empty() && !name.starts_with('.')).then(|| mark.with_file_name(name))
}

/// Whether a folder has the name of one in which the calls of a worker run: its session's, a UUID, or `pid-4711` of one that
/// was started by hand. Nobody names folders of one's own like that.
#[must_use]
pub fn is_session_directory(path: &Path) -> bool {
    let is_session = |name: &str| match name.strip_prefix("pid-") {
        Some(pid) => pid.parse::<u32>().is_ok(),
        None => name.len() == UUID_CHARS && uuid::Uuid::try_parse(name).is_ok(),
    };
    path.file_name().and_then(OsStr::to_str).is_some_and(is_session)
}

/// Whether a folder has the name of one in which a call runs: its number, in the folder of its worker.
#[must_use]
pub fn is_call_directory(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str);
    name.is_some_and(|name| name.parse::<u64>().is_ok()) && path.parent().is_some_and(is_session_directory)
}

/// Characters that some file system cannot have in a name.
const UNSAFE_CHARACTERS: [char; 9] = ['<', '>', ':', '"', '/', '\\', '|', '?', '*'];

/// A file as somebody found it: as long as all of this is the same, so is the content.
///
/// Size and time of change alone do not tell: whoever unpacks an archive, copies with times or moves another file into
/// its place sets the time back. That leaves another inode, or another time of the inode's own change, which nobody can
/// set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// Bytes.
    pub size: u64,
    /// Last change of the content, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Number of the inode; a state without it is of no use but to be read.
    #[serde(default)]
    pub inode: Option<u64>,
    /// Last change of the inode, nanoseconds since 1970.
    #[serde(default)]
    pub ctime_ns: Option<i64>,
    /// Content, as `sha256:` and 64 digits.
    pub content_hash: String,
}

/// What the host knows of the files that a call names, by absolute path. Stands beside `args`, `kwargs` and `envelope`
/// in the body of `POST /execute`; a worker that finds a file changed, or none here, reads the file itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownInputs {
    /// The files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub input_files: BTreeMap<String, FileState>,
}

/// Key of [`KnownInputs::input_files`] in a body.
pub const INPUT_FILES_KEY: &str = "input_files";

/// The directory below the capability's own: `ACTION/STEM/INPUT_CONFIG`. `input_hash` is of the input's content,
/// `sha256:` or not; `config` is everything else the result depends on.
#[must_use]
pub fn relative_dir(action: &str, input: &Path, input_hash: &str, config: &Map<String, Value>) -> PathBuf {
    let config_hash = canonical_hash_of(&Value::Object(config.clone()));
    let digits = |hash: &str, count: usize| -> String {
        hash.strip_prefix(HASH_PREFIX).unwrap_or(hash).chars().take(count).collect()
    };
    PathBuf::from(safe_name(action)).join(stem(input)).join(format!(
        "{}_{}",
        digits(input_hash, INPUT_HASH_DIGITS),
        digits(&config_hash, CONFIG_HASH_DIGITS)
    ))
}

/// The last part of a path without its ending, as every file system can have it; `_` when nothing is left.
#[must_use]
pub fn stem(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    safe_name(&stem)
}

/// A name as every file system can have it, which leads nowhere else: that of an action's folder, and of a stem.
#[must_use]
pub fn safe_name(text: &str) -> String {
    let replaced: String = text
        .chars()
        .map(|c| if UNSAFE_CHARACTERS.contains(&c) || u32::from(c) < 0x20 { '_' } else { c })
        .collect();
    let cut: String = replaced.trim_matches(['.', ' ', '\t']).chars().take(STEM_CHARS_MAX).collect();
    if cut.is_empty() { "_".to_owned() } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_host_gives_the_names_of_directories_of_calls() {
        let session = "01a22857-1886-7071-832b-98ab3cc0675c";
        let is_session = |name: &str| is_session_directory(&Path::new("work").join(name));
        assert!(is_session(session) && is_session("pid-4711"));
        for theirs in [
            "photos",
            "2019",
            "pid-",
            "pid-x",
            "01a2285718867071832b98ab3cc0675c",
            "{01a22857-1886-7071-832b-98ab3cc0675c}",
            "a folder of somebody of 36 characters",
        ] {
            assert!(!is_session(theirs), "{theirs}");
        }
        let is_call = |name: &str| is_call_directory(&Path::new("work").join(session).join(name));
        assert!(is_call("1") && is_call("18446744073709551615"));
        for theirs in ["1.5", "-1", "inf", "1e3", "notes", ""] {
            assert!(!is_call(theirs), "{theirs}");
        }
        assert!(!is_call_directory(Path::new("work/photos/1")) && !is_call_directory(Path::new("1")));
    }

    #[test]
    fn stems_are_the_ancestors() {
        for (path, expected) in [
            ("/a/Front_Left.wav", "Front_Left"),
            ("/a/.bashrc", "bashrc"),
            ("/a/..", "_"),
            ("/a/x.", "x"),
            ("/a/ a b .tar.gz", "a b .tar"),
            ("/a/q?<>:|*\"\\z.png", "q________z"),
            ("/a/t\tb\u{1}\u{7f}.png", "t_b_\u{7f}"),
            ("/a/...", "_"),
            ("", "_"),
            ("/a/ .png", "_"),
        ] {
            assert_eq!(stem(Path::new(path)), expected, "{path}");
        }
        assert_eq!(stem(Path::new(&format!("/a/{}.wav", "é".repeat(120)))), "é".repeat(100));
        // Shortened last, so that a cut may end in a dot.
        assert_eq!(stem(Path::new(&format!("/a/{}. y.z", "x".repeat(99)))), format!("{}.", "x".repeat(99)));
    }

    #[test]
    fn directories_are_the_ancestors() {
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let Value::Object(config) = json!({"language": "eng", "dpi": 300, "f": 0.5}) else { panic!() };
        let page = Path::new("/tmp/page one.png");
        assert_eq!(relative_dir("read", page, abc, &config), Path::new("read/page one/ba7816_dfb37f70a126"));
        let none = Map::new();
        let bare = &abc[HASH_PREFIX.len()..];
        assert_eq!(relative_dir("go", page, bare, &none), Path::new("go/page one/ba7816_44136fa355b3"));
        // Here we differ: an action's name cannot lead out of the directory.
        assert_eq!(relative_dir("../up", page, abc, &none), Path::new("_up/page one/ba7816_44136fa355b3"));
    }

    #[test]
    fn known_inputs_ride_in_the_body_of_a_call() {
        let state = FileState {
            size: 3,
            mtime_ns: -1,
            inode: Some(7),
            ctime_ns: Some(i64::MAX),
            content_hash: "sha256:ab".to_owned(),
        };
        let known = KnownInputs { input_files: BTreeMap::from([("/a".to_owned(), state)]) };
        let mut body = serde_json::to_value(&known).expect("writes");
        assert!(body.get(INPUT_FILES_KEY).is_some());
        body["kwargs"] = json!({"x": 1});
        assert_eq!(serde_json::from_value::<KnownInputs>(body.clone()).expect("reads"), known);
        let request: crate::envelope::ExecuteRequest = serde_json::from_value(body).expect("reads");
        assert_eq!(request.kwargs.len(), 1);
        assert_eq!(serde_json::from_str::<KnownInputs>("{}").expect("optional"), KnownInputs::default());
    }

    #[test]
    fn a_mark_names_its_directory_and_nothing_else_is_one() {
        let directory = Path::new("/data/calls/7");
        let mark = running_mark(directory);
        assert_eq!(mark, Path::new("/data/calls/.7.running"));
        assert_eq!(marked_directory(&mark).as_deref(), Some(directory));
        for other in ["/d/7", "/d/7.running", "/d/.running", "/d/..running", "/d/...running"] {
            assert_eq!(marked_directory(Path::new(other)), None, "{other}");
        }
    }
}
