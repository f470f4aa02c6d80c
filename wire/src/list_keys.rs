//! Keys of a list of capabilities that nobody reads. They are no errors, since the list may be shared with programs that
//! know more of them; but a mistyped one would be silently without effect.

use crate::placed::{Place, Placed, place_of_key};
use crate::suggestions::{in_words, suggestions};
use serde_json::Value;

/// Of the file itself.
const FILE: &[&str] = &["capabilities"];
/// Of an entry; the ancestor knows all but `manifest` and `worker`.
const ENTRY: &[&str] = &[
    "name",
    "manifest",
    "env_name",
    "package",
    "env_file",
    "python_version",
    "interface_libs",
    "adapters",
    "worker",
];
/// Of an adapter of an entry.
const ADAPTER: &[&str] = &["impl", "lib"];

/// A key that nobody reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) name: String,
    /// The place in the list of the entry that has it; none of a key of the file itself.
    pub(crate) entry: Option<usize>,
    known: &'static [&'static str],
    place: Option<Place>,
}

impl Unread {
    /// With its place, and what is like it.
    pub(crate) fn in_words(&self) -> String {
        let place = self.place.map(|(line, column)| format!("line {line}, column {column}: "));
        let meant = in_words(&suggestions(&self.name, self.known.iter().copied()));
        format!(
            "{}`{}`: there is no such key{meant}, and nobody reads it",
            place.unwrap_or_default(),
            self.name
        )
    }
}

/// All of them in the text of a file; none of one that is no YAML.
pub(crate) fn unread(text: &str) -> Vec<Unread> {
    let Ok(file) = Placed::parse(text) else { return Vec::new() };
    let mut found = Vec::new();
    let mut look = |pointer: &str, entry: Option<usize>, known: &'static [&'static str]| {
        let keys = file.value.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
        for (name, _) in keys.filter(|(name, _)| !known.contains(&name.as_str())) {
            let value = file.place(&format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")));
            let place = value.and_then(|(line, _)| place_of_key(text, line, name));
            found.push(Unread { name: name.clone(), entry, known, place });
        }
    };
    let length = |pointer: &str| file.value.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len);
    look("", None, FILE);
    for entry in 0..length("/capabilities") {
        let pointer = format!("/capabilities/{entry}");
        look(&pointer, Some(entry), ENTRY);
        for adapter in 0..length(&format!("{pointer}/adapters")) {
            look(&format!("{pointer}/adapters/{adapter}"), Some(entry), ADAPTER);
        }
    }
    found
}
