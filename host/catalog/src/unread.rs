//! Keys of a `cjm.yaml` that nobody reads. They are no errors, since a file may be shared with programs that know more of
//! them; but a mistyped one would be silently without effect.

use cjm_wire::placed::{Placed, place_of_key};
use cjm_wire::settings_file::{RuntimeSection, SettingsFile, SubstrateSection};
use cjm_wire::suggestions::{in_words, suggestions};
use serde::Serialize;
use serde_json::Value;

/// How many of them are told: each is looked for in the text, by every command.
const TOLD_MAX: usize = 8;

/// What of a settings file nobody reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    /// Each key in words, with its place and those that are like it.
    pub told: Vec<String>,
    /// Its keys, where not one of them is a key of settings.
    pub all: Vec<String>,
}

impl Unread {
    /// Of the text of a file; nothing of one that is no YAML.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let Ok(file) = Placed::parse(text) else { return Self::default() };
        let sections = [
            ("", keys_of(&SettingsFile::default())),
            ("runtime", keys_of(&RuntimeSection::default())),
            ("substrate", keys_of(&SubstrateSection::default())),
        ];
        let keys: Vec<String> =
            file.value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
        let is_known = |key: &String| sections[0].1.contains(key);
        let all = if keys.iter().any(is_known) { Vec::new() } else { keys };
        let mut unread = Vec::new();
        for (section, known) in &sections {
            let there = if section.is_empty() { Some(&file.value) } else { file.value.get(*section) };
            for key in there.and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key) {
                if !known.contains(key) {
                    unread.push((section, key));
                }
            }
        }
        let mut told: Vec<String> = Vec::new();
        for (section, key) in unread.iter().take(TOLD_MAX) {
            let known =
                sections.iter().find(|(name, _)| name == *section).map_or(&[][..], |(_, known)| known);
            told.push(in_its_place(text, &file, section, key, known));
        }
        if unread.len() > TOLD_MAX {
            told.push(format!("{} more keys that nobody reads", unread.len() - TOLD_MAX));
        }
        Self { told, all }
    }
}

fn in_its_place(text: &str, file: &Placed, section: &str, key: &str, known: &[String]) -> String {
    let dotted = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
    let pointer = format!("/{}", dotted.replacen('.', "/", usize::from(!section.is_empty())));
    let place = file.place(&pointer).and_then(|(line, _)| place_of_key(text, line, key));
    let place = place.map(|(line, column)| format!("line {line}, column {column}: ")).unwrap_or_default();
    let meant = in_words(&suggestions(key, known.iter().map(String::as_str)));
    format!("{place}{dotted}: there is no such key{meant}, and nobody reads it")
}

/// The keys of a section, by the type that it is read into.
fn keys_of(section: &impl Serialize) -> Vec<String> {
    let written = serde_json::to_value(section).unwrap_or_default();
    written.as_object().into_iter().flat_map(|all| all.keys().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_keys_some_are_told_and_the_others_counted() {
        let text: String = (0..3000).map(|number| format!("key{number}: 1\n")).collect();
        let told = Unread::of(&text).told;
        assert_eq!(told.len(), TOLD_MAX + 1);
        assert_eq!(told.last().map(String::as_str), Some("2992 more keys that nobody reads"));
    }

    #[test]
    fn a_file_none_of_whose_keys_is_known_names_them_all() {
        for (text, all) in [
            ("", &[][..]),
            ("data_dir:\nlater: 1\n", &[]),
            ("name: f\nnodes: {}\n", &["name", "nodes"]),
            ("- 1\n", &[]),
        ] {
            assert_eq!(Unread::of(text).all, all, "{text:?}");
        }
    }
}
