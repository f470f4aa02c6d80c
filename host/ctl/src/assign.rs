//! `key=value` on the command line becomes named arguments. Text stays text unless it plainly is something else.

use crate::fault::Fault;
use serde_json::{Map, Value};
use std::path::Path;

const HELP: &str = "write key=value, key:=JSON, key=@PATH, or key=@- for standard input";

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
) -> Result<Map<String, Value>, Fault> {
    let mut all = object.map(|text| json_object(text, "--args")).transpose()?.unwrap_or_default();
    for assignment in assignments {
        let (key, value) = parse(assignment, cwd, stdin)?;
        all.insert(key, value);
    }
    Ok(all)
}

/// A JSON object given to an option.
///
/// # Errors
/// When it is not one.
pub(crate) fn json_object(text: &str, option: &str) -> Result<Map<String, Value>, Fault> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Fault::usage(format!("{option} is JSON, but not an object"), "write {\"key\": value}")),
        Err(error) => {
            Err(Fault::usage(format!("{option} is not JSON"), "write {\"key\": value}").caused_by(&error))
        }
    }
}

fn parse(assignment: &str, cwd: &Path, stdin: Option<&Path>) -> Result<(String, Value), Fault> {
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
        serde_json::from_str(right).map_err(|error| {
            Fault::usage(
                format!("the value of `{key}:=` is not JSON: {right}"),
                "quote text: key:='\"text\"'",
            )
            .caused_by(&error)
        })?
    } else if let (Some(path), "@-") = (stdin, right) {
        Value::from(absolute_text(key, path)?)
    } else if let Some(path) = right.strip_prefix('@') {
        Value::from(existing_file(key, path, cwd)?)
    } else {
        plain(right)
    };
    Ok((key.to_owned(), value))
}

/// JSON that is not a bare string, else the text itself.
fn plain(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::String(_)) | Err(_) => Value::from(text),
        Ok(value) => value,
    }
}

/// The absolute path of a file that must be there.
///
/// # Errors
/// When it is not.
pub(crate) fn existing_file(key: &str, path: &str, cwd: &Path) -> Result<String, Fault> {
    let absolute = cwd.join(path);
    match std::fs::metadata(&absolute) {
        Ok(_) => absolute_text(key, &absolute),
        Err(error) => Err(Fault::new(
            "ctl.file_missing",
            format!("the file for `{key}` is not there: {}", absolute.display()),
            "correct the path (it is relative to the present directory)",
        )
        .caused_by(&error)),
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

    fn check(assignment: &str, expected: Value) {
        let (key, value) = parse(assignment, Path::new("/"), None).expect(assignment);
        assert_eq!((key.as_str(), value), ("k", expected), "{assignment}");
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
        for (assignment, exit) in [("k", 2), ("=1", 2), (":=1", 2), ("k:=text", 2), ("k=@/nowhere/at/all", 1)]
        {
            match parse(assignment, Path::new("/"), None) {
                Err(Fault::Shown(report)) => assert_eq!(report.exit_code, exit, "{assignment}"),
                other => panic!("{assignment}: {other:?}"),
            }
        }
        assert!(json_object("[1]", "--args").is_err() && json_object("{", "--args").is_err());
    }

    #[test]
    fn assignments_win_over_the_object_and_files_become_absolute() {
        let folder = tempfile::tempdir().expect("tempdir");
        std::fs::write(folder.path().join("a.wav"), "").expect("write");
        let given = ["x=2".to_owned(), "f=@./a.wav".to_owned()];
        let of_stdin = parse("k=@-", folder.path(), Some(Path::new("/tmp/x/stdin"))).expect("a file");
        assert_eq!(of_stdin.1, json!("/tmp/x/stdin"));
        assert!(parse("k=@-", folder.path(), None).is_err(), "there is no file of that name");
        let all = arguments(Some(r#"{"x": 1, "y": 3}"#), &given, folder.path(), None).expect("arguments");
        let path = folder.path().join("a.wav");
        assert_eq!(Value::Object(all), json!({"x": 2, "y": 3, "f": path}));
    }
}
