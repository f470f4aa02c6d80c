//! What is wrong with the kinds of values in an entry of a list of capabilities, in words of the entry. The reader that
//! refuses one ends at the first, and speaks of its own work.

use crate::placed::{Place, Placed};
use crate::suggestions::{in_words, suggestions};
use crate::word::is_yes_or_no;
use serde_json::Value;

/// Longest value that a message shows, in bytes of its JSON.
const VALUE_BYTES_MAX: usize = 80;
/// Who may serve the surface of a Python class.
const WORKERS: [&str; 2] = ["shim", "genuine"];

/// A value of another kind than its key takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongKind {
    /// JSON pointer of the value.
    pub pointer: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// What is wrong with it.
    pub message: String,
    /// What to write instead.
    pub cure: &'static str,
}

impl WrongKind {
    /// With its place.
    pub(crate) fn in_words(&self) -> String {
        match self.place {
            Some((line, column)) => format!("line {line}, column {column}: {}", self.message),
            None => self.message.clone(),
        }
    }
}

/// What a key takes.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A version, as text or number, or nothing at all.
    MaybeVersion,
    /// Text that looks like no number, and neither like `true`.
    Word,
    /// Such text, or nothing at all.
    MaybeWord,
    Texts,
    Adapters,
    Worker,
}

/// The keys of an entry: what each takes, and what to write.
const ENTRY: [(&str, Kind, &str); 9] = [
    ("name", Kind::Word, "write `name: NAME`, one word, in quotes where it looks like a number"),
    ("manifest", Kind::MaybeWord, "write `manifest: FILE`, one path, in quotes where it looks like a number"),
    ("env_name", Kind::Word, "write `env_name: NAME`, one word, in quotes where it looks like a number"),
    ("package", Kind::Word, "write `package: ./FOLDER` or `package: NAME==VERSION`, one text"),
    ("env_file", Kind::MaybeWord, "write `env_file: FILE`, one path, in quotes where it looks like a number"),
    ("python_version", Kind::MaybeVersion, "write `python_version: \">=3.10\"`, one text"),
    ("interface_libs", Kind::Texts, "write `interface_libs: [NAME==VERSION]`, a list of texts"),
    ("adapters", Kind::Adapters, "write `adapters: [{impl: \"MODULE:CLASS\", lib: NAME==VERSION}]`, a list"),
    ("worker", Kind::Worker, "write `worker: shim` or `worker: genuine`, or leave it out"),
];

/// Everything of the kind in an entry of the list, by its place in it.
pub(crate) fn wrong_kinds(file: &Placed, entry: usize) -> Vec<WrongKind> {
    let mut look = Look { file, found: Vec::new() };
    let pointer = format!("/capabilities/{entry}");
    match file.value.pointer(&pointer) {
        Some(Value::Object(keys)) => {
            for (name, kind, cure) in ENTRY {
                if let Some(value) = keys.get(name) {
                    look.at_key(&format!("{pointer}/{name}"), (name, kind, cure), value);
                }
            }
        }
        Some(other) => {
            let cure = "write `{name: NAME, manifest: FILE}`, or a `package` with its `env_name` in place of the manifest";
            look.tell(&pointer, format!("it is {}, and must be keys with values", shown(other)), cure);
        }
        None => {}
    }
    look.found
}

struct Look<'a> {
    file: &'a Placed,
    found: Vec<WrongKind>,
}

impl Look<'_> {
    fn at_key(&mut self, pointer: &str, (name, kind, cure): (&str, Kind, &'static str), value: &Value) {
        let is = |wanted: &str| format!("`{name}` is {}, and must be {wanted}", shown(value));
        match (kind, value) {
            (Kind::MaybeVersion | Kind::MaybeWord | Kind::Texts | Kind::Adapters, Value::Null) => {}
            (Kind::Word | Kind::MaybeWord, Value::String(_)) => {}
            (Kind::MaybeVersion, value) if is_version(value) => {}
            (Kind::MaybeVersion | Kind::Word | Kind::MaybeWord, _) => {
                self.tell(pointer, is("one text"), cure);
            }
            (Kind::Worker, Value::String(worker)) if WORKERS.contains(&worker.as_str()) => {}
            (Kind::Worker, _) => {
                let near = suggestions(value.as_str().unwrap_or_default(), WORKERS.into_iter());
                self.tell(pointer, format!("{}{}", is("`shim` or `genuine`"), in_words(&near)), cure);
            }
            (Kind::Texts | Kind::Adapters, Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    let pointer = format!("{pointer}/{index}");
                    match kind {
                        Kind::Adapters => self.at_adapter(&pointer, item, cure),
                        _ if item.is_string() => {}
                        _ => {
                            let message = format!("`{name}` holds {}, and must hold texts", shown(item));
                            self.tell(&pointer, message, cure);
                        }
                    }
                }
            }
            (Kind::Texts | Kind::Adapters, _) => self.tell(pointer, is("a list"), cure),
        }
    }

    fn at_adapter(&mut self, pointer: &str, adapter: &Value, cure: &'static str) {
        let Value::Object(keys) = adapter else {
            let message = format!("`adapters` holds {}, and must hold keys with values", shown(adapter));
            return self.tell(pointer, message, cure);
        };
        match keys.get("impl") {
            None => self.tell(pointer, "an adapter needs an `impl`".to_owned(), cure),
            Some(value) => self.at_key(&format!("{pointer}/impl"), ("impl", Kind::Word, cure), value),
        }
        if let Some(value) = keys.get("lib") {
            self.at_key(&format!("{pointer}/lib"), ("lib", Kind::MaybeWord, cure), value);
        }
    }

    fn tell(&mut self, pointer: &str, message: String, cure: &'static str) {
        let place = self.file.place(pointer);
        self.found.push(WrongKind { pointer: pointer.to_owned(), place, message, cure });
    }
}

/// A number is read as the text that it is written as where a version is meant, and nowhere else.
fn is_version(value: &Value) -> bool {
    value.is_number() || value.as_str().is_some_and(|text| !is_yes_or_no(text))
}

/// The value, or a word for one that is long.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match value {
        Value::Null => "empty".to_owned(),
        Value::Array(_) if text.len() > VALUE_BYTES_MAX => "a list".to_owned(),
        Value::Object(_) if text.len() > VALUE_BYTES_MAX => "keys with values".to_owned(),
        _ if text.len() > VALUE_BYTES_MAX => "a long text".to_owned(),
        _ => text,
    }
}
