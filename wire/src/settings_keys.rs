//! The keys of `cjm.yaml`, and what belongs under each, in the words of refusals. The reader of YAML says where a value is
//! wrong, and not of which key. It reads nothing by itself.

use crate::yaml::NOT_FINITE;
use serde_json::{Value, json};

/// As a refused number is told.
pub(crate) const NO_NUMBER: &str = " is not a number of ";
/// As the reader of YAML tells one that no double holds, where a number is wanted.
const NO_FLOAT: &str = "invalid floating point";
/// How the words for each key of a number begin.
const A_NUMBER: &str = "a number of ";
const SECTION: &str = "a section: keys with values, each on its own line and indented";
const PATH: &str = "a path";
const SWITCH: &str = "true or false";
/// What is true or false for the ancestor, too.
const SWITCH_WORDS: [&str; 6] = ["yes", "no", "on", "off", "y", "n"];
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
    let Ok((document, _)) = crate::yaml::with_infinite::<Value>(text) else { return words.to_owned() };
    // What is no number, as `.nan`, comes as null.
    let is_no_number = [NO_NUMBER, NOT_FINITE, NO_FLOAT].iter().any(|words| head.contains(words));
    if !matches!(document, Value::Object(_) | Value::Null) {
        return format!("{place}: the file is not keys with values, as in `data_dir: ./.cjm`\n{drawn}");
    }
    let line = place.split(' ').nth(1).and_then(|line| line.parse::<usize>().ok()).unwrap_or(0);
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let key_of_line = line.split_once(':').map(|(key, _)| key.trim());
    // A section's own key stands before what is wrong in it, too, where all is on one line.
    let is_wrong = |(section, key, wanted): &&(Option<&str>, &str, &str)| {
        let is_null = || value_of(&document, *section, key).is_some_and(Value::is_null);
        is_refused(&document, *section, key, &is_file)
            || (is_no_number && wanted.starts_with(A_NUMBER) && is_null())
    };
    // The reader ended at the first of them.
    let first_wrong =
        KEYS.iter().filter(is_wrong).min_by_key(|(section, key, _)| position(&document, *section, key));
    let on_line = || KEYS.iter().find(|(_, key, wanted)| Some(*key) == key_of_line && *wanted != SECTION);
    match first_wrong.or_else(on_line) {
        Some((section, key, wanted)) => {
            let section = section.map(|section| format!("{section}.")).unwrap_or_default();
            format!("{place}: `{section}{key}` is not {wanted}\n{drawn}")
        }
        None => words.to_owned(),
    }
}

/// A switch says yes or no in words, which a document that was read anew holds as texts.
pub(crate) fn take_words_for_switches(document: &mut Value) {
    for (section, key, _) in KEYS.iter().filter(|(_, _, wanted)| *wanted == SWITCH) {
        let holder = match section {
            Some(section) => document.get_mut(section),
            None => Some(&mut *document),
        };
        let value = holder.and_then(|holder| holder.get_mut(*key));
        if let Some(value) = value
            && value.as_str().is_some_and(|word| SWITCH_WORDS.contains(&word.to_lowercase().as_str()))
        {
            *value = true.into();
        }
    }
}

/// Takes the value of a dotted key out of the document; whether it was there.
pub(crate) fn remove(document: &mut Value, dotted: &str) -> bool {
    let (holder, key) = match dotted.split_once('.') {
        Some((section, key)) => (document.get_mut(section), key),
        None => (Some(document), dotted),
    };
    holder.and_then(Value::as_object_mut).is_some_and(|keys| keys.shift_remove(key).is_some())
}

fn value_of<'a>(document: &'a Value, section: Option<&str>, key: &str) -> Option<&'a Value> {
    section.map_or(Some(document), |section| document.get(section))?.get(key)
}

/// Where a key stands among all, in the order of the document; a section after what is in it.
fn position(document: &Value, section: Option<&str>, key: &str) -> (Option<usize>, usize) {
    let index = |holder: Option<&Value>, key: &str| {
        holder.and_then(Value::as_object).and_then(|keys| keys.keys().position(|known| known == key))
    };
    match section {
        Some(section) => {
            let within = index(document.get(section), key).unwrap_or(usize::MAX);
            (index(Some(document), section), within)
        }
        None => (index(Some(document), key), usize::MAX),
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
