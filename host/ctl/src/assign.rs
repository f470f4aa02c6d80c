//! `key=value` on the command line becomes named arguments. What the tool declares decides how a value is read; where it
//! declares nothing, text stays text unless it plainly is something else. Numbers keep their digits.

use crate::fault::Fault;
use cjm_platform::files::{FileError, read_regular_to_string};
use cjm_wire::doubled::doubled_key;
use cjm_wire::json::{Arguments, Json, JsonKind};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::Path;

const HELP: &str = "write key=value, key:=JSON, key=@PATH, or key=@- for standard input";
/// Longest file of arguments, in bytes.
pub(crate) const ARGUMENTS_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What is known of the type of an argument before its value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Declared {
    /// Text, whatever it looks like.
    Text,
    /// A number, or text that the tool will refuse.
    Number,
    /// `true` or `false`, or text that the tool will refuse.
    Boolean,
    /// Nothing.
    Unknown,
}

/// Named arguments from `--args` and, above them, from the assignments; paths are relative to `cwd`, and `stdin` is the
/// file of standard input, if it was asked for.
///
/// # Errors
/// When one cannot be understood, or names a file that is not there.
pub(crate) fn arguments(
    object: Option<&str>,
    assignments: &[String],
    cwd: &Path,
    stdin: Option<&Path>,
    declared: impl Fn(&str) -> Declared,
) -> Result<Arguments, Fault> {
    let mut all = object.map(|text| exact_object(text, "--args")).transpose()?.unwrap_or_default();
    let mut assigned = BTreeSet::new();
    for assignment in assignments {
        let (key, value) = parse(assignment, cwd, stdin, &declared)?;
        if !assigned.insert(key.clone()) {
            return Err(Fault::usage(
                format!("`{key}` is given twice"),
                format!("give it once; a list is `{key}:=[…]`"),
            ));
        }
        all.insert(key, value);
    }
    Ok(all)
}

/// A JSON object given to an option.
///
/// # Errors
/// When it is not one.
pub(crate) fn json_object(text: &str, option: &str) -> Result<Map<String, Value>, Fault> {
    match Json::parse(text) {
        Ok(json) => match no_key_twice(&json, option)?.to_value() {
            Ok(Value::Object(map)) => Ok(map),
            Ok(_) => Err(no_object(option)),
            Err(error) => Err(Fault::usage(
                format!("{option} cannot be kept: {error}"),
                "write fewer levels, or the number as text",
            )),
        },
        Err(error) => Err(no_json(option).caused_by(&error)),
    }
}

/// A JSON object whose values keep their digits.
///
/// # Errors
/// When it is not one.
pub(crate) fn exact_object(text: &str, what: &str) -> Result<Arguments, Fault> {
    let json = Json::parse(text).map_err(|error| no_json(what).caused_by(&error))?;
    no_key_twice(&json, what)?.fields().ok_or_else(|| no_object(what))
}

/// Refuses a key that stands twice: one of its values would silently have no effect.
fn no_key_twice<'j>(json: &'j Json, what: &str) -> Result<&'j Json, Fault> {
    match doubled_key(json.text()) {
        Some(key) => Err(Fault::usage(format!("{what} has the key `{key}` twice"), "give it once")),
        None => Ok(json),
    }
}

fn no_object(what: &str) -> Fault {
    Fault::usage(format!("{what} is JSON, but not an object"), "write {\"key\": value}")
}

fn no_json(what: &str) -> Fault {
    let next_step = "write {\"key\": value}, in the option itself or in a file that it names as @FILE";
    Fault::usage(format!("{what} is not JSON"), next_step)
}

fn parse(
    assignment: &str,
    cwd: &Path,
    stdin: Option<&Path>,
    declared: &impl Fn(&str) -> Declared,
) -> Result<(String, Json), Fault> {
    let Some((left, right)) = assignment.split_once('=') else {
        return Err(Fault::usage(format!("`{assignment}` has no `=`"), HELP));
    };
    let (key, forced) = match left.strip_suffix(':') {
        Some(key) => (key, true),
        None => (left, false),
    };
    if key.is_empty() {
        return Err(Fault::usage(format!("`{assignment}` has no name before its `=`"), HELP));
    }
    let value = if forced {
        let json = Json::parse(right).map_err(|error| {
            Fault::usage(
                format!("the value of `{key}:=` is not JSON: {right}"),
                "quote text: key:='\"text\"'",
            )
            .caused_by(&error)
        })?;
        no_key_twice(&json, &format!("the value of `{key}:=`"))?.clone()
    } else if let (Some(path), "@-") = (stdin, right) {
        Json::of(absolute_text(key, path)?)
    } else if right == "@" {
        return Err(Fault::usage(format!("`{assignment}` names no file"), HELP));
    } else if let Some(path) = right.strip_prefix('@') {
        Json::of(existing_file(key, path, cwd)?)
    } else {
        plain(key, right, declared(key))?
    };
    Ok((key.to_owned(), value))
}

/// The text as a value of the declared type, else the text itself.
///
/// # Errors
/// When it is taken as JSON that has a key twice.
fn plain(key: &str, text: &str, declared: Declared) -> Result<Json, Fault> {
    let wanted = |kind: JsonKind| match declared {
        Declared::Text => false,
        Declared::Number => kind == JsonKind::Number,
        Declared::Boolean => kind == JsonKind::Boolean,
        Declared::Unknown => kind != JsonKind::Text,
    };
    match Json::parse(text) {
        Ok(json) if wanted(json.kind()) => {
            no_key_twice(&json, &format!("the value of `{key}=`"))?;
            Ok(json)
        }
        _ => Ok(Json::of(text)),
    }
}

/// The absolute path of a file or folder that must be there. What is neither, such as a pipe, is refused: a tool would
/// wait for it.
///
/// # Errors
/// When it is not.
pub(crate) fn existing_file(key: &str, path: &str, cwd: &Path) -> Result<String, Fault> {
    let absolute = cwd.join(path);
    match std::fs::metadata(&absolute) {
        Ok(meta) if meta.is_file() || meta.is_dir() => absolute_text(key, &absolute),
        Ok(_) => Err(Fault::new(
            "ctl.file_irregular",
            format!("the file for `{key}` is a pipe, a device or a socket: {}", absolute.display()),
            format!("name a regular file; {key}=@- makes one of standard input"),
        )),
        Err(error) => Err(Fault::new(
            "ctl.file_missing",
            format!("the file for `{key}` is not there: {}", absolute.display()),
            "correct the path (it is relative to the present directory)",
        )
        .caused_by(&error)),
    }
}

/// The text of a file that a person named.
///
/// # Errors
/// When it is no regular file, is too long, or cannot be read.
pub(crate) fn text_of_file(path: &Path, bytes_max: u64) -> Result<String, Fault> {
    read_regular_to_string(path, bytes_max).map_err(|error| unreadable(&error))
}

/// Why a file that a person named was not read.
pub(crate) fn unreadable(error: &FileError) -> Fault {
    Fault::new(error.code(), error.to_string(), error.next_step())
}

/// Why nobody knows whether a host runs: something else lies where its lock is.
pub(crate) fn lock_not_asked(error: &FileError) -> Fault {
    match error {
        FileError::NotRegular { .. } => {
            let next_step =
                "remove it: it is no lock of a host; or use another data directory with --data-dir";
            Fault::new(error.code(), error.to_string(), next_step)
        }
        _ => unreadable(error),
    }
}

/// A path as JSON can carry it.
///
/// # Errors
/// When it is not UTF-8.
pub(crate) fn absolute_text(key: &str, path: &Path) -> Result<String, Fault> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.into_os_string().into_string().map_err(|path| {
        Fault::new(
            "ctl.path_not_text",
            format!("the path for `{key}` is not UTF-8: {}", path.to_string_lossy()),
            "rename the file",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(assignment: &str, declared: Declared) -> Json {
        let (key, value) = parse(assignment, Path::new("/"), None, &|_: &str| declared).expect(assignment);
        assert_eq!(key, "k", "{assignment}");
        value
    }

    #[test]
    fn the_declared_type_decides_how_a_value_is_read_and_numbers_keep_their_digits() {
        use Declared::{Boolean, Number, Text, Unknown};
        for (assignment, declared, expected) in [
            ("k=42", Text, "\"42\""),
            ("k=1.10", Text, "\"1.10\""),
            ("k=true", Text, "\"true\""),
            ("k=[1]", Text, "\"[1]\""),
            ("k=42", Number, "42"),
            ("k=true", Number, "\"true\""),
            ("k=true", Boolean, "true"),
            ("k=1", Boolean, "\"1\""),
            ("k=18446744073709551616", Number, "18446744073709551616"),
            ("k=123456789012345678901234567890", Unknown, "123456789012345678901234567890"),
            ("k=1e400", Unknown, "1e400"),
            ("k:=42", Text, "42"),
            ("k:=18446744073709551617", Unknown, "18446744073709551617"),
        ] {
            assert_eq!(read(assignment, declared).text(), expected, "{assignment} as {declared:?}");
        }
        let all = arguments(Some(r#"{"n": 18446744073709551616}"#), &[], Path::new("/"), None, |_| Unknown);
        assert_eq!(all.expect("an object")["n"].text(), "18446744073709551616");
    }

    fn check(assignment: &str, expected: Value) {
        assert_eq!(read(assignment, Declared::Unknown), Json::from(expected), "{assignment}");
    }

    #[test]
    fn values_are_json_when_they_plainly_are_and_text_otherwise() {
        for (assignment, expected) in [
            ("k=1", json!(1)),
            ("k=-2.5", json!(-2.5)),
            ("k=true", json!(true)),
            ("k=null", json!(null)),
            ("k=[1, \"a\"]", json!([1, "a"])),
            ("k={\"a\": 1}", json!({"a": 1})),
            ("k=text", json!("text")),
            ("k=\"quoted\"", json!("\"quoted\"")),
            ("k=", json!("")),
            ("k=a=b", json!("a=b")),
            ("k=007", json!("007")),
            ("k=1 2", json!("1 2")),
            ("k:=\"text\"", json!("text")),
            ("k:=[1]", json!([1])),
        ] {
            check(assignment, expected);
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_the_right_exit_code() {
        for (assignment, exit) in
            [("k", 2), ("=1", 2), (":=1", 2), ("k:=text", 2), ("k=@/nowhere/at/all", 1), ("k=@", 2)]
        {
            match parse(assignment, Path::new("/"), None, &|_: &str| Declared::Unknown) {
                Err(Fault::Shown(report)) => assert_eq!(report.exit_code, exit, "{assignment}"),
                other => panic!("{assignment}: {other:?}"),
            }
        }
        let twice = ["k=1".to_owned(), "k:=2".to_owned()];
        match arguments(None, &twice, Path::new("/"), None, |_| Declared::Unknown) {
            Err(Fault::Shown(report)) => assert_eq!(report.message, "`k` is given twice"),
            other => panic!("{other:?}"),
        }
        for (assignment, declared, refused) in [
            ("k:={\"n\": 1, \"n\": 2}", Declared::Text, Some("the value of `k:=` has the key `n` twice")),
            ("k=[{\"n\": 1, \"n\": 2}]", Declared::Unknown, Some("the value of `k=` has the key `n` twice")),
            // There it is text, all of which arrives.
            ("k={\"n\": 1, \"n\": 2}", Declared::Text, None),
        ] {
            let told = match parse(assignment, Path::new("/"), None, &|_: &str| declared) {
                Err(Fault::Shown(report)) => Some((report.message, report.exit_code)),
                _ => None,
            };
            assert_eq!(told, refused.map(|words| (words.to_owned(), 2)), "{assignment}");
        }
        for text in ["{\"n\": 1, \"n\": 2}", "{\"a\": [{\"n\": 1, \"\\u006e\": 1}]}"] {
            let (object, exact) = (json_object(text, "--x").map(drop), exact_object(text, "--x").map(drop));
            for refused in [object, exact] {
                let Err(Fault::Shown(report)) = refused else { panic!("{text}") };
                assert_eq!((report.message.as_str(), report.exit_code), ("--x has the key `n` twice", 2));
            }
        }
        assert!(json_object("[1]", "--args").is_err() && json_object("{", "--args").is_err());
        let deep = format!("{{\"a\": {}1{}}}", "[".repeat(200), "]".repeat(200));
        for text in [deep.as_str(), "{\"a\": 18446744073709551616}"] {
            let Err(Fault::Shown(report)) = json_object(text, "--config") else { panic!("{text}") };
            assert!(report.message.starts_with("--config cannot be kept: "), "{report:?}");
        }
    }

    #[test]
    fn assignments_win_over_the_object_and_files_become_absolute() {
        let folder = tempfile::tempdir().expect("tempdir");
        std::fs::write(folder.path().join("a.wav"), "").expect("write");
        let given = ["x=2".to_owned(), "f=@./a.wav".to_owned()];
        let any = |_: &str| Declared::Unknown;
        let of_stdin = parse("k=@-", folder.path(), Some(Path::new("/tmp/x/stdin")), &any).expect("a file");
        assert_eq!(of_stdin.1, Json::of("/tmp/x/stdin"));
        assert!(parse("k=@-", folder.path(), None, &any).is_err(), "there is no file of that name");
        let all =
            arguments(Some(r#"{"x": 1, "y": 3}"#), &given, folder.path(), None, any).expect("arguments");
        let path = folder.path().join("a.wav");
        assert_eq!(json!(all), json!({"x": 2, "y": 3, "f": path}));
    }
}
