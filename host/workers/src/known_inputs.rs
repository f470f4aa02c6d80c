//! Tells an executable what its input files hold, where the host knows it: a call whose files are kept is named after
//! its input's content, and an unchanged file need not be read again to know that.
//!
//! It only spares work: a file that cannot be read here is left out, and the worker says what is wrong with it.

use crate::plan::WorkerPlan;
use cjm_store::InputHashes;
use cjm_wire::cache::{FileState, INPUT_FILES_KEY};
use cjm_wire::envelope::{ACTION_KEY, ExecuteRequest};
use cjm_wire::link::Launch;
use cjm_wire::runtime::{Action, Executable, ParameterKind};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The body with what is known of its input files; the body as it is where nothing need be known. Who drops it ends the
/// reading.
pub async fn with_known_hashes(hashes: &Arc<InputHashes>, plan: &WorkerPlan, body: &[u8]) -> Vec<u8> {
    let Launch::Executable { executable, .. } = &plan.launch else { return body.to_vec() };
    let paths = input_paths(executable, body);
    if paths.is_empty() {
        return body.to_vec();
    }
    let hashes = Arc::clone(hashes);
    let given_up = CancellationToken::new();
    let _waits = given_up.clone().drop_guard();
    let reading = tokio::task::spawn_blocking(move || {
        let known = paths.into_iter().filter_map(|path| {
            let state = hashes.state(Path::new(&path), &|| given_up.is_cancelled()).ok()?;
            Some((path, state))
        });
        known.collect::<BTreeMap<String, FileState>>()
    });
    match reading.await {
        Ok(known) if !known.is_empty() => with_files(body, &known),
        _ => body.to_vec(),
    }
}

/// Absolute paths of the input files of a call whose outputs are kept.
fn input_paths(executable: &Executable, body: &[u8]) -> Vec<String> {
    if !executable.actions.values().any(Action::uses_cache_dir) {
        return Vec::new();
    }
    let Ok(request) = serde_json::from_slice::<ExecuteRequest>(body) else { return Vec::new() };
    let action = match request.kwargs.get(ACTION_KEY).and_then(Value::as_str) {
        Some(name) => executable.actions.get(name),
        None if executable.actions.len() == 1 => executable.actions.values().next(),
        None => None,
    };
    let Some(action) = action.filter(|action| action.uses_cache_dir()) else { return Vec::new() };
    let inputs = action.parameters.iter().filter(|(_, parameter)| parameter.kind == ParameterKind::InputFile);
    inputs
        .filter_map(|(name, _)| request.kwargs.get(name)?.as_str())
        .filter(|path| Path::new(path).is_absolute())
        .map(str::to_owned)
        .collect()
}

/// Puts the files beside the other keys. As text: a value read and written again could lose digits.
fn with_files(body: &[u8], known: &BTreeMap<String, FileState>) -> Vec<u8> {
    let Ok(text) = serde_json::to_vec(known) else { return body.to_vec() };
    let Some(rest) = body.strip_prefix(b"{") else { return body.to_vec() };
    let comma: &[u8] = if rest.trim_ascii_start().starts_with(b"}") { b"" } else { b"," };
    [b"{\"", INPUT_FILES_KEY.as_bytes(), b"\":", &text, comma, rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_wire::cache::KnownInputs;
    use serde_json::json;

    fn executable() -> Executable {
        let file = json!({"type": "input_file", "required": true});
        serde_json::from_value(json!({"program": "x", "actions": {
            "kept": {"argv": [], "parameters": {"a": file, "b": {"type": "input_file"}, "c": {"type": "string"}},
                "outputs": {"o": "{cache_dir}/o"}, "result": "files"},
            "fresh": {"argv": [], "parameters": {"a": file}},
        }}))
        .expect("an executable")
    }

    #[test]
    fn only_input_files_of_calls_that_keep_theirs_are_read() {
        for (kwargs, expected) in [
            (json!({"action": "kept", "a": "/a", "b": "/b", "c": "/c"}), vec!["/a", "/b"]),
            (json!({"action": "kept", "a": "relative", "b": 3}), vec![]),
            (json!({"action": "fresh", "a": "/a"}), vec![]),
            (json!({"a": "/a"}), vec![]),
        ] {
            let body = json!({"kwargs": kwargs}).to_string();
            assert_eq!(input_paths(&executable(), body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn of_a_program_with_one_action_that_one_is_meant() {
        let mut executable = executable();
        executable.actions.shift_remove("fresh");
        let body = json!({"kwargs": {"a": "/a"}}).to_string();
        assert_eq!(input_paths(&executable, body.as_bytes()), ["/a"]);
    }

    #[test]
    fn the_rest_of_the_body_stays_as_it_is() {
        let content_hash = "sha256:aa".to_owned();
        let state = FileState { size: 1, mtime_ns: 2, inode: Some(3), ctime_ns: Some(4), content_hash };
        let known = BTreeMap::from([("/a \"b\"".to_owned(), state)]);
        for body in [r#"{"kwargs":{"n":123456789012345678901234567890}}"#, "{}", "{ }"] {
            let whole = with_files(body.as_bytes(), &known);
            let text = String::from_utf8(whole).expect("text");
            assert!(text.ends_with(&body[1..]), "{text}");
            let read: KnownInputs = serde_json::from_str(&text).expect("JSON");
            assert_eq!(read.input_files, known);
        }
    }
}
