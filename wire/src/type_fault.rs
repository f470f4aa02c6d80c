//! Where in a JSON document a value stands that is not of its type. The reader keeps no places of what it has to hold until it
//! knows what it is (a tagged form, keys beside those it knows): it blames the line at which that ends, or nothing but the
//! whole. So what is at fault is found by trying each part alone.

use crate::json::{VALUE_DEPTH_MAX, inexact};
use crate::placed::{Placed, place_of_key};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Editors of some systems put it before text, where nobody sees it.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// How the reader begins when a key stands twice, and where its name ends.
const TWICE: (&str, char) = ("duplicate field `", '`');

/// A value that is not of its type.
#[derive(Debug, PartialEq)]
pub(crate) struct TypeFault {
    /// JSON pointer to it.
    pub(crate) pointer: String,
    /// What the reader says of it.
    pub(crate) words: String,
}

/// What is at fault in the object at `pointer`, which is to be a `T`: one of its keys, else the whole. `blank` is a `T` with
/// no more keys than it must have. None where there is nothing, or no fault.
pub(crate) fn in_part<T: DeserializeOwned>(
    document: &Value,
    pointer: &str,
    blank: &Value,
) -> Option<TypeFault> {
    let refused = |value: Value| serde_json::from_value::<T>(value).err().map(|error| error.to_string());
    let part = document.pointer(pointer)?;
    let whole = refused(part.clone())?;
    let of_key = |(key, value): (&String, &Value)| {
        let mut alone = blank.clone();
        alone.as_object_mut()?.insert(key.clone(), value.clone());
        let pointer = format!("{pointer}/{}", escaped(key));
        Some(TypeFault { pointer, words: refused(alone)? })
    };
    let of_a_key = part.as_object().and_then(|fields| fields.iter().find_map(of_key));
    Some(of_a_key.unwrap_or_else(|| TypeFault { pointer: pointer.to_owned(), words: whole }))
}

/// A key as JSON pointers have it.
pub(crate) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Line, column and words for what the reader says of a document; `find` knows the types of its parts.
pub(crate) fn told(
    text: &str,
    error: &serde_json::Error,
    find: impl FnOnce(&Value) -> Option<TypeFault>,
) -> (usize, usize, String) {
    let words = words_without_place(text, error);
    // Where the text is no JSON, the reader is at the place itself.
    let document = error.is_data().then(|| serde_json::from_str(text).ok()).flatten();
    let Some(document) = document else { return (error.line(), error.column(), words) };
    if let Some(TypeFault { pointer, words }) = find(&document)
        && let Some((line, column)) = Placed::parse(text).ok().and_then(|placed| placed.place(&pointer))
    {
        let key = pointer.trim_start_matches('/').replace('/', ".").replace("~1", "/").replace("~0", "~");
        let message = if key.is_empty() { words } else { format!("{key}: {words}") };
        return (line, column, message);
    }
    // A key that stands twice is one value here.
    let twice = words.strip_prefix(TWICE.0).and_then(|rest| rest.split(TWICE.1).next());
    let place = twice.and_then(|key| place_of_key(text, error.line(), &format!("\"{key}\"")));
    let (line, column) = place.unwrap_or((error.line(), error.column()));
    (line, column, words)
}

/// The first number in valid JSON text that the reader would round: line and column, and what is wrong with it.
pub(crate) fn first_inexact(text: &str) -> Option<(usize, usize, String)> {
    let (number, error) = inexact(text)?;
    // It is a part of the text.
    let before = &text[..number.as_ptr() as usize - text.as_ptr() as usize];
    let line = before.matches('\n').count() + 1;
    let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
    Some((line, column, format!("{error} and would be rounded; as text it keeps its digits")))
}

/// What the parser says without the place that it ends with.
fn words_without_place(text: &str, error: &serde_json::Error) -> String {
    if text.starts_with(BYTE_ORDER_MARK) {
        return "it begins with a byte order mark (BOM), which JSON does not know: save it as UTF-8 without one".to_owned();
    }
    if text.trim().is_empty() {
        return "it is empty".to_owned();
    }
    let words = error.to_string();
    let words = words.rfind(" at line ").map_or(words.as_str(), |at| &words[..at]);
    match words {
        "recursion limit exceeded" => format!("nested deeper than the {VALUE_DEPTH_MAX} levels allowed"),
        words => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::manifest::{Manifest, ManifestError};

    #[test]
    fn an_integer_that_would_be_rounded_is_refused_at_its_place_and_others_pass() {
        let with = |number: &str| {
            let text = format!(
                "{{\"format_version\": \"2.0\", \"install\": {{\"python_path\": \"p\"}}, \"overrides\": {{\"n\": \"99\",\n \
                 \"k\": [{number}]}}, \"code\": {{\"name\": \"a\", \"version\": \"1\", \"module\": \"m\", \"class\": \"C\"}}}}"
            );
            Manifest::parse(&text).map(|manifest| manifest.overrides["k"][0].to_string())
        };
        for fits in ["18446744073709551615", "-9223372036854775808", "0.1", "\"18446744073709551616\""] {
            assert_eq!(with(fits).expect("it fits"), fits);
        }
        for rounded in ["18446744073709551616", "-9223372036854775809"] {
            match with(rounded) {
                Err(ManifestError::Malformed { line: 2, column: 8, message }) => {
                    let words =
                        format!("the number {rounded} does not fit into 64 bits and would be rounded");
                    assert!(message.starts_with(&words), "{message}");
                }
                other => panic!("{rounded}: {other:?}"),
            }
        }
    }
}
