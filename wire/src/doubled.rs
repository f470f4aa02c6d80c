//! Keys that stand twice in an object of JSON: a reader takes one of the two values, and nobody is told of the other.

use std::borrow::Cow;
use std::collections::HashSet;

/// The first such key of valid JSON text, however deep. Nothing recurses, so that no depth exhausts a stack.
#[must_use]
pub fn doubled_key(text: &str) -> Option<String> {
    doubled_key_at(text).map(|(key, _)| key)
}

/// As [`doubled_key`], with the byte at which it stands for the second time.
pub(crate) fn doubled_key_at(text: &str) -> Option<(String, usize)> {
    let bytes = text.as_bytes();
    let mut open: Vec<HashSet<Cow<'_, str>>> = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => open.push(HashSet::new()),
            b'}' | b']' => drop(open.pop()),
            b'"' => {
                let end = end_of_string(bytes, at);
                let behind = bytes.get(end..).unwrap_or_default();
                let is_key = behind.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
                if let (true, Some(keys), Some(quoted)) = (is_key, open.last_mut(), text.get(at..end)) {
                    let key = unquoted(quoted);
                    if keys.contains(&key) {
                        return Some((key.into_owned(), at));
                    }
                    keys.insert(key);
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Behind the closing quote of the string that begins there.
fn end_of_string(bytes: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// What a string says. One with half a character of UTF-16 stays as it is written.
fn unquoted(quoted: &str) -> Cow<'_, str> {
    let bare = quoted.trim_matches('"');
    match quoted.contains('\\') {
        false => Cow::Borrowed(bare),
        true => serde_json::from_str(quoted).map_or(Cow::Borrowed(bare), Cow::Owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_in_one_object_is_found_at_any_depth() {
        let deep = format!("{}{{\"a\":1,\"a\":2}}{}", "[".repeat(9_000), "]".repeat(9_000));
        for (text, key) in [
            (r#"{"n": 1, "n": 2}"#, Some("n")),
            (r#"{"n": 1, "\u006e" : 2}"#, Some("n")),
            (r#"[{"x": {"b": [], "c": {}, "b": 0}}]"#, Some("b")),
            (&deep, Some("a")),
            (r#"{"": 0, "": 0}"#, Some("")),
            (r#"{"\"": 0, "\"": 0}"#, Some("\"")),
            (r#"{"\ud800": 0, "\ud800": 0}"#, Some(r"\ud800")),
            (r#"{"n": {"n": "n"}, "m": ["n", "n", {"n": 1}, {"n": 1}]}"#, None),
            (r#"{"a": "\"n\": 1, \"n\": 2", "b": "{\"n\":", "c": "\\"}"#, None),
            (r#""a""#, None),
        ] {
            assert_eq!(doubled_key(text).as_deref(), key, "{text:.60}");
        }
    }
}
