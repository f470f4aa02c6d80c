//! The files that a result tells of, found in its text as it stands: a parsed value would round its numbers, and not every
//! text can be one.
//!
//! What must hold: what [`renamed`] gives differs from the text in the paths that were replaced and in nothing else; no
//! depth exhausts a stack.

use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::Range;

/// What a JSON text tells.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Objects with a `path` and its `bytes`, in the order in which they begin. Of a key that stands twice the last one
    /// counts.
    pub(super) files: Vec<File>,
    /// Every text, names of fields aside. One that is no Unicode names nothing.
    pub(super) texts: BTreeSet<String>,
}

/// One file as a result tells it.
#[derive(Debug)]
pub(super) struct File {
    /// Where its object begins.
    begin: usize,
    /// Where its path stands, quotes included.
    pub(super) place: Range<usize>,
    /// None: half of a character stands in it.
    pub(super) path: Option<String>,
    pub(super) bytes: u64,
    pub(super) sha256: Option<String>,
}

/// Looks through a text that is JSON.
pub(super) fn look_through(json: &str) -> Told {
    let mut told = Told::default();
    let mut open: Vec<Open> = Vec::new();
    let bytes = json.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => {
                if let Some(around) = open.last_mut() {
                    around.take(None);
                }
                open.push(Open { is_object: *byte == b'{', begin: at, ..Open::default() });
                at += 1;
            }
            b'}' | b']' => {
                told.files.extend(open.pop().and_then(|closed| closed.file(json)));
                at += 1;
            }
            b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' => at += 1,
            _ => {
                let place = at..end_of(bytes, at);
                at = place.end;
                match open.last_mut() {
                    Some(object) if object.awaits_name() => object.key = Some(Key::of(&json[place])),
                    around => {
                        told.texts.extend(text(&json[place.clone()]));
                        if let Some(around) = around {
                            around.take(Some(place));
                        }
                    }
                }
            }
        }
    }
    told.files.sort_by_key(|file| file.begin);
    told
}

/// The text with other paths in these places, which stand in the order of the text or not.
pub(super) fn renamed(json: &str, places: &[(Range<usize>, String)]) -> String {
    let mut places: Vec<_> = places.iter().collect();
    places.sort_by_key(|(place, _)| place.start);
    let (mut text, mut at) = (String::with_capacity(json.len()), 0);
    for (place, path) in places {
        text.push_str(&json[at..place.start]);
        text.push_str(&Value::from(path.as_str()).to_string());
        at = place.end;
    }
    text.push_str(&json[at..]);
    text
}

/// A list or an object that is not closed yet.
#[derive(Default)]
struct Open {
    is_object: bool,
    begin: usize,
    /// The name whose value is next.
    key: Option<Key>,
    path: Option<Range<usize>>,
    size: Option<Range<usize>>,
    sha256: Option<Range<usize>>,
}

enum Key {
    Path,
    Bytes,
    Sha256,
    Other,
}

impl Key {
    fn of(name: &str) -> Self {
        match text(name).as_deref() {
            Some("path") => Self::Path,
            Some("bytes") => Self::Bytes,
            Some("sha256") => Self::Sha256,
            _ => Self::Other,
        }
    }
}

impl Open {
    fn awaits_name(&self) -> bool {
        self.is_object && self.key.is_none()
    }

    /// Takes the value of the name before it; none for a list or an object.
    fn take(&mut self, value: Option<Range<usize>>) {
        match self.key.take() {
            Some(Key::Path) => self.path = value,
            Some(Key::Bytes) => self.size = value,
            Some(Key::Sha256) => self.sha256 = value,
            Some(Key::Other) | None => {}
        }
    }

    fn file(self, json: &str) -> Option<File> {
        let place = self.path.filter(|place| json[place.clone()].starts_with('"'))?;
        let bytes = json[self.size?].parse().ok()?;
        let path = text(&json[place.clone()]);
        let sha256 = self.sha256.and_then(|place| text(&json[place]));
        Some(File { begin: self.begin, place, path, bytes, sha256 })
    }
}

/// The characters of a text; none of another value, and of a text with half of a character.
fn text(value: &str) -> Option<String> {
    value.starts_with('"').then(|| serde_json::from_str(value).ok()).flatten()
}

/// Where a text, number or word ends that begins there.
fn end_of(bytes: &[u8], begin: usize) -> usize {
    let rest = &bytes[begin + 1..];
    let length = if bytes[begin] == b'"' {
        let mut is_escaped = false;
        let quote = rest.iter().position(|byte| {
            let ends = *byte == b'"' && !is_escaped;
            is_escaped = *byte == b'\\' && !is_escaped;
            ends
        });
        quote.map(|quote| quote + 1)
    } else {
        rest.iter().position(|byte| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'))
    };
    begin + 1 + length.unwrap_or(rest.len())
}
