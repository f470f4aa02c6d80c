//! The keys of `cjm.yaml`, and what belongs under each, in the words of refusals. The reader of YAML says where a value is
//! wrong, and not of which key. It reads nothing by itself.

use serde_json::{Value, json};

/// As a refused number is told.
pub(crate) const NO_NUMBER: &str = " is not a number of ";
const SECTION: &str = "a section: keys with values, each on its own line and indented";
const PATH: &str = "a path";
const SWITCH: &str = "true or false";
const DAYS: &str = "a number of days, at most 1000000 (0 or less: for ever)";

/// Section, if it is in one, key, and what belongs there.
const KEYS: [(Option<&str>, &str, &str); 16] = [
    (Some("runtime"), "mode", "local or system"),
    (Some("runtime"), "conda_type", "micromamba, miniforge or conda"),
    (Some("runtime"), "prefix", PATH),
    (Some("runtime"), "binaries", "platforms with their programs, as in {linux-x64: bin/micromamba}"),
    (Some("substrate"), "drift_detection", SWITCH),
    (Some("substrate"), "empirical_tracking", SWITCH),
    (Some("substrate"), "prefetch_stall_threshold_seconds", "a number of seconds, 0 or more"),
    (Some("substrate"), "diagnostics_retention_days", DAYS),
    (Some("substrate"), "diagnostics_retention_max_mb", "a number of MB, from 0.1 to 1000000000"),
    (Some("substrate"), "jobs_retention_days", DAYS),
    (Some("substrate"), "worker_env_pass", "a list of names of variables, as in [MY_VARIABLE]"),
    (None, "runtime", SECTION),
    (None, "substrate", SECTION),
    (None, "data_dir", PATH),
    (None, "capabilities_config", PATH),
    (None, "models_dir", PATH),
];

/// What the reader of YAML said of `text`, with the key that is meant, where its value is wrong. As it was, without the
/// reader's own \"error\", where the text is no YAML.
pub(crate) fn named(words: &str, text: &str, is_file: impl Fn(Value) -> bool) -> String {
    let words = words.strip_prefix("error: ").unwrap_or(words);
    let (head, drawn) = words.split_once('\n').unwrap_or((words, ""));
    let Some((place, _)) = head.split_once(": ").filter(|(place, _)| place.starts_with("line ")) else {
        return words.to_owned();
    };
    // Syntax has no key.
    let document = match crate::yaml::from_str::<Value>(text) {
        Ok(document) => document,
        // JSON cannot hold `.nan`: the line alone tells the key.
        Err(_) if head.contains(NO_NUMBER) => Value::Null,
        Err(_) => return words.to_owned(),
    };
    if !matches!(document, Value::Object(_) | Value::Null) {
        return format!("{place}: the file is not keys with values, as in `data_dir: ./.cjm`\n{drawn}");
    }
    let line = place.split(' ').nth(1).and_then(|line| line.parse::<usize>().ok()).unwrap_or(0);
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let key_of_line = line.split_once(':').map(|(key, _)| key.trim());
    // A section's own key stands before what is wrong in it, too, where all is on one line.
    let is_wrong =
        |(section, key, _): &&(Option<&str>, &str, &str)| is_refused(&document, *section, key, &is_file);
    let on_line = KEYS.iter().find(|(_, key, wanted)| Some(*key) == key_of_line && *wanted != SECTION);
    match on_line.or_else(|| KEYS.iter().find(is_wrong)) {
        Some((section, key, wanted)) => {
            let section = section.map(|section| format!("{section}.")).unwrap_or_default();
            format!("{place}: `{section}{key}` is not {wanted}\n{drawn}")
        }
        None => words.to_owned(),
    }
}

/// Whether a file with this key alone would be refused.
fn is_refused(document: &Value, section: Option<&str>, key: &str, is_file: impl Fn(Value) -> bool) -> bool {
    let alone = match section {
        Some(section) => document[section].get(key).map(|value| json!({ section: { key: value } })),
        // What is in a section has been looked at by itself.
        None => document.get(key).map(|value| json!({ key: value })),
    };
    alone.is_some_and(|alone| !is_file(alone))
}
