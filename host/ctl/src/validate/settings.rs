//! Checks a `cjm.yaml`: by the parser that reads it, and for keys that it reads past. Those are warnings, since a file may be
//! shared with programs that know more of them.

use crate::validate::document::Checked;
use crate::validate::finding::Finding;
use cjm_catalog::suggestions::{in_words, suggestions};
use cjm_wire::placed::{Place, Placed};
use cjm_wire::settings_file::{RuntimeSection, SettingsFile, SettingsFileError, SubstrateSection};
use serde::Serialize;
use serde_json::Value;

/// Errors of the file, and warnings.
pub(super) fn check(text: &str) -> Checked {
    let error = SettingsFile::parse(text).err();
    let finding = |error: &SettingsFileError| Finding::of(error, place_in_words(&error.to_string()));
    (
        error.iter().map(finding).collect(),
        Placed::parse(text).map(|file| unread(text, &file)).unwrap_or_default(),
    )
}

/// Keys that nobody reads, each with its place and those that are like it.
fn unread(text: &str, file: &Placed) -> Vec<String> {
    let sections = [
        ("", keys_of(&SettingsFile::default())),
        ("runtime", keys_of(&RuntimeSection::default())),
        ("substrate", keys_of(&SubstrateSection::default())),
    ];
    let mut warnings = Vec::new();
    for (section, known) in sections {
        let there = if section.is_empty() { Some(&file.value) } else { file.value.get(section) };
        for key in there.and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key) {
            if known.contains(key) {
                continue;
            }
            let dotted = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
            let pointer = format!("/{}", dotted.replacen('.', "/", usize::from(!section.is_empty())));
            let place = file.place(&pointer).and_then(|(line, _)| place_of_key(text, line, key));
            let place =
                place.map(|(line, column)| format!("line {line}, column {column}: ")).unwrap_or_default();
            let meant = in_words(&suggestions(key, known.iter().map(String::as_str)));
            warnings.push(format!("{place}{dotted}: there is no such key{meant}, and nobody reads it"));
        }
    }
    warnings
}

/// Where a key stands: at or before its value, of which the reader knows the line.
fn place_of_key(text: &str, value_line: usize, key: &str) -> Option<Place> {
    let lines: Vec<&str> = text.lines().take(value_line).collect();
    let found =
        |(index, line): (usize, &&str)| Some((index + 1, line[..line.find(key)?].chars().count() + 1));
    lines.iter().enumerate().rev().find_map(found)
}

/// The keys of a section, by the type that it is read into.
fn keys_of(section: &impl Serialize) -> Vec<String> {
    let written = serde_json::to_value(section).unwrap_or_default();
    written.as_object().into_iter().flat_map(|all| all.keys().cloned()).collect()
}

/// Where a reader of YAML says it ended: `line 3 column 5`.
fn place_in_words(words: &str) -> Option<Place> {
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    let (_, from_line) = words.split_once("line ")?;
    let (_, from_column) = from_line.split_once("column ")?;
    Some((number(from_line)?, number(from_column)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_is_read_is_known_and_others_are_told_with_place_and_what_is_like_them() {
        let all = "runtime: {mode: local, conda_type: conda, prefix: p, binaries: {anything-x64: b}}\ndata_dir: d\n\
                   capabilities_config: c\nmodels_dir: m\nsubstrate: {drift_detection: true, empirical_tracking: true, \
                   prefetch_stall_threshold_seconds: 1, diagnostics_retention_days: 1, diagnostics_retention_max_mb: 1, \
                   jobs_retention_days: 1, worker_env_pass: []}\n";
        assert_eq!(check(all), (vec![], vec![]));
        let (errors, warnings) = check("data_dirr: d\nsubstrate:\n  drift_detecton: false\nzzz:\n- 1\n");
        assert!(errors.is_empty(), "{errors:?}");
        let expected = [
            "line 1, column 1: data_dirr: there is no such key (did you mean \"data_dir\"?), and nobody reads it",
            "line 4, column 1: zzz: there is no such key, and nobody reads it",
            "line 3, column 3: substrate.drift_detecton: there is no such key (did you mean \"drift_detection\"?), and \
             nobody reads it",
        ];
        assert_eq!(warnings, expected);
    }
}
