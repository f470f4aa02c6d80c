//! Strikes out the secrets of a capability from what its tool says, before it is written or shown: lines, frames of the
//! link, answers. A tool may print its settings, and a library put a token into its exception.
//!
//! Values are looked for as they are, as JSON writes them, and line by line. Shorter ones than [`SECRET_BYTES_MIN`] would
//! strike out innocent words and are left.

use serde_json::{Map, Value};
use std::borrow::Cow;

/// Shortest value that is struck out.
pub(crate) const SECRET_BYTES_MIN: usize = 8;
/// What stands in its place.
const MARK: &str = "[secret]";

/// The values of one worker, longest first.
#[derive(Default)]
pub(crate) struct Redaction(Vec<String>);

impl Redaction {
    pub(crate) fn of(secrets: &Map<String, Value>) -> Self {
        let mut values = Vec::new();
        for secret in secrets.values().filter_map(Value::as_str) {
            for value in std::iter::once(secret).chain(secret.lines()) {
                let value = value.trim();
                if value.len() < SECRET_BYTES_MIN {
                    continue;
                }
                let quoted = Value::from(value).to_string();
                let escaped = quoted[1..quoted.len() - 1].to_owned();
                values.extend([ascii_only(&escaped), escaped, value.to_owned()]);
            }
        }
        values.sort_unstable_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        values.dedup();
        Self(values)
    }

    /// The text without them.
    pub(crate) fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut struck = Cow::Borrowed(text);
        for value in &self.0 {
            if struck.contains(value.as_str()) {
                struck = Cow::Owned(struck.replace(value.as_str(), MARK));
            }
        }
        struck
    }

    /// The bytes without them; what is no text stays as it is, since no value could be found in it.
    pub(crate) fn bytes(&self, bytes: bytes::Bytes) -> bytes::Bytes {
        if self.0.is_empty() {
            return bytes;
        }
        match std::str::from_utf8(&bytes).map(|text| self.text(text)) {
            Ok(Cow::Owned(struck)) => bytes::Bytes::from(struck),
            Ok(Cow::Borrowed(_)) | Err(_) => bytes,
        }
    }
}

/// As writers do that write ASCII alone: every other character by its number.
fn ascii_only(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii
}

impl std::fmt::Debug for Redaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redaction of {} values", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_struck_out_however_they_are_written() {
        let secrets = json!({"TOKEN": "tok-\"1234\"-ä", "KEY": "first line\nsecond line", "PIN": "1234"});
        let redaction = Redaction::of(secrets.as_object().expect("an object"));
        for (said, shown) in [
            (r#"url?t=tok-"1234"-ä&x"#, "url?t=[secret]&x"),
            (r#"{"t": "tok-\"1234\"-ä"}"#, r#"{"t": "[secret]"}"#),
            (r#"{"t": "tok-\"1234\"-\u00e4"}"#, r#"{"t": "[secret]"}"#),
            ("first line\nsecond line", "[secret]"),
            ("only the second line of it", "only the [secret] of it"),
            ("the PIN is 1234", "the PIN is 1234"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(redaction.text(said), shown);
            assert_eq!(redaction.bytes(bytes::Bytes::from(said)), shown.as_bytes());
        }
        assert_eq!(redaction.bytes(bytes::Bytes::from_static(b"\xff")), b"\xff".as_slice());
        assert!(!format!("{redaction:?}").contains("tok-"));
    }
}
