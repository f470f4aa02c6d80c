//! Checks named arguments against an action's typed parameters. Pure but for one question to the disk: whether
//! an input file is there.

use super::before::NotBegun;
use crate::sdk::ToolError;
use cjm_wire::runtime::{Action, Parameter, ParameterKind};
use cjm_wire::runtime_check::check_value;
use indexmap::IndexMap;
use serde_json::{Map, Value};
use std::fs::FileType;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

/// Wrong arguments of which is said what is wrong; the others are counted.
const SAID_MAX: usize = 5;

/// What each parameter is; one that has no value is not in it.
pub(crate) type Values = IndexMap<String, Value>;

/// The values of all parameters, defaults filled in. A null counts as not given.
pub(crate) fn check(
    action_name: &str,
    action: &Action,
    kwargs: &Map<String, Value>,
) -> Result<Values, NotBegun> {
    let known = || action.parameters.keys().map(String::as_str).collect::<Vec<_>>();
    let unknown: Vec<&String> = kwargs.keys().filter(|name| !action.parameters.contains_key(*name)).collect();
    if !unknown.is_empty() {
        let given = unknown.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let message = match known().as_slice() {
            [] => format!("action `{action_name}` takes no arguments, and {given} was given"),
            names => {
                format!("action `{action_name}` has no parameter {given}; there are: {}", names.join(", "))
            }
        };
        return Err(ToolError::unfit(message).fields(unknown).into());
    }
    let missing: Vec<&String> = action
        .parameters
        .iter()
        .filter(|(name, parameter)| parameter.required && kwargs.get(*name).is_none_or(Value::is_null))
        .map(|(name, _)| name)
        .collect();
    if let [first, ..] = missing.as_slice() {
        let hint = describe(&action.parameters[*first]);
        let names = missing.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let message =
            format!("action `{action_name}` needs {names}{hint}; its parameters are: {}", known().join(", "));
        return Err(ToolError::unfit(message).fields(missing).into());
    }
    let (mut values, mut wrong) = (Values::new(), Vec::new());
    for (name, parameter) in &action.parameters {
        let given = kwargs.get(name).filter(|value| !value.is_null());
        let Some(value) = given.or(parameter.default.as_ref()) else { continue };
        match check_argument(parameter, value) {
            Ok(()) => drop(values.insert(name.clone(), value.clone())),
            Err(why) => wrong.push((name, format!("argument `{name}` {why}"))),
        }
    }
    if wrong.is_empty() { Ok(values) } else { Err(all_wrong(wrong).into()) }
}

/// Arguments that do not fit: all their names, and what is wrong with the first of them.
fn all_wrong(wrong: Vec<(&String, String)>) -> ToolError {
    let (names, mut said): (Vec<&String>, Vec<String>) = wrong.into_iter().unzip();
    let more = said.len().saturating_sub(SAID_MAX);
    said.truncate(SAID_MAX);
    said.extend((more > 0).then(|| format!("and {more} more")));
    ToolError::unfit(said.join("; ")).fields(names)
}

/// The value as text of an argument.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What is wrong with a value, as the end of a sentence.
fn check_argument(parameter: &Parameter, value: &Value) -> Result<(), String> {
    check_value(parameter, value)?;
    if parameter.kind == ParameterKind::InputFile {
        let path = value.as_str().unwrap_or_default();
        return check_input_file(Path::new(path));
    }
    Ok(())
}

fn check_input_file(path: &Path) -> Result<(), String> {
    let shown = path.display();
    if !path.is_absolute() {
        // The program runs in a directory of its own, where a relative path means something else.
        return Err(format!("is {shown}, and an absolute path is expected"));
    }
    match std::fs::metadata(path) {
        // Whoever reads a pipe or a device may wait for ever, and finds something else the second time.
        Ok(meta) => match kind_of_file(meta.file_type()) {
            "file" => Ok(()),
            kind => Err(format!("is {shown}, which is a {kind} and no file")),
        },
        Err(error) => Err(format!("is {shown}, which cannot be read: {error}")),
    }
}

/// What stands at a path, in a word; `file` is a regular one.
pub(crate) fn kind_of_file(found: FileType) -> &'static str {
    match found {
        _ if found.is_file() => "file",
        _ if found.is_dir() => "directory",
        _ if found.is_fifo() => "named pipe",
        _ if found.is_socket() => "socket",
        _ => "device",
    }
}

fn describe(parameter: &Parameter) -> String {
    if parameter.description.is_empty() { String::new() } else { format!(" ({})", parameter.description) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn action() -> Action {
        serde_json::from_value(json!({
            "argv": [],
            "parameters": {
                "input": {"type": "input_file", "required": true, "description": "what to read"},
                "rate": {"type": "integer", "default": 16000, "minimum": 8000, "maximum": 48000},
                "gain": {"type": "number", "maximum": 2.5},
                "codec": {"type": "string", "enum": ["wav", "mp3"]},
                "mono": {"type": "boolean"},
            },
        }))
        .expect("an action")
    }

    #[test]
    fn good_values_are_taken_and_defaults_filled_in() {
        let kwargs = json!({"input": "/bin/sh", "gain": 1, "codec": null, "mono": false});
        let Value::Object(kwargs) = kwargs else { panic!("an object") };
        let values = check("convert", &action(), &kwargs).expect("is good");
        assert_eq!(json!(values), json!({"input": "/bin/sh", "rate": 16000, "gain": 1, "mono": false}));
    }

    #[test]
    fn bad_values_are_refused_with_what_would_be_good() {
        for (kwargs, field, words) in [
            (json!({}), "input", "needs `input` (what to read)"),
            (json!({"input": null}), "input", "needs `input`"),
            (json!({"input": "/bin/sh", "x": 1}), "x", "there are: input, rate, gain, codec, mono"),
            (json!({"input": 1}), "input", "text is expected"),
            (json!({"input": "/dev/null/nothing"}), "input", "cannot be read"),
            (json!({"input": "/bin/"}), "input", "is a directory"),
            (json!({"input": "/dev/null"}), "input", "is a device and no file"),
            (json!({"input": "sh"}), "input", "absolute path"),
            (json!({"input": "/bin/sh", "rate": 1.5}), "rate", "a whole number"),
            (json!({"input": "/bin/sh", "rate": "8000"}), "rate", "a whole number"),
            (json!({"input": "/bin/sh", "rate": -0.0}), "rate", "is -0, and a whole number is expected"),
            (json!({"input": "/bin/sh", "rate": 7999}), "rate", "below the minimum of 8000"),
            (json!({"input": "/bin/sh", "gain": 2.6}), "gain", "above the maximum of 2.5"),
            (json!({"input": "/bin/sh", "codec": "ogg"}), "codec", "only these are allowed: wav, mp3"),
            (json!({"input": "/bin/sh", "codec": "a\u{0}b"}), "codec", "NUL"),
            (json!({"input": "/bin/sh", "mono": "yes"}), "mono", "true or false"),
            (json!({"input": "/bin/sh", "codec": vec!["wav"; 20_000]}), "codec", "…, and text is expected"),
            (json!({"input": "/bin/sh", "codec": "x".repeat(20_000)}), "codec", "…, and only these"),
        ] {
            let Value::Object(map) = kwargs.clone() else { panic!("an object") };
            let error = check("convert", &action(), &map).expect_err("is refused");
            let error = crate::sdk::ToolError::from(error);
            assert!(error.to_string().contains(words), "{kwargs}: {error}");
            // It is kept, and shown more than once.
            assert!(error.to_string().len() < 400, "{error}");
            let fields = error.job_error("lab").fields_invalid;
            assert_eq!(fields.as_deref(), Some([field.to_owned()].as_slice()), "{kwargs}");
        }
    }

    #[test]
    fn all_that_do_not_fit_are_named_at_once_and_some_of_them_explained() {
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let parameters: Map<_, _> =
            names.map(|name| (name.to_owned(), json!({"type": "integer"}))).into_iter().collect();
        let action: Action =
            serde_json::from_value(json!({"argv": [], "parameters": parameters})).expect("an action");
        for (wrong, said, more) in [(2, 2, false), (SAID_MAX, SAID_MAX, false), (7, SAID_MAX, true)] {
            let given = names.iter().enumerate();
            let given =
                given.map(|(at, name)| ((*name).to_owned(), if at < wrong { json!(1.5) } else { json!(1) }));
            let error = ToolError::from(check("go", &action, &given.collect()).expect_err("is refused"));
            let text = error.to_string();
            assert_eq!(text.matches("is 1.5, and a whole number is expected").count(), said, "{text}");
            assert_eq!(text.contains("; and 2 more"), more, "{text}");
            let fields = error.job_error("lab").fields_invalid.expect("named");
            assert_eq!(fields, names[..wrong], "{text}");
        }
    }
}
