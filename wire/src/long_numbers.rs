//! Numbers that a parsed value would round, in what is parsed all the same: they stay as text, digit by digit. A tool may
//! account for `2**70`, and a secret may be all digits: what was rounded is neither the number nor found again.

use crate::json::{inexact, numbers};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// This JSON text with each such number as a string; anything else as it is, also what is no JSON.
#[must_use]
pub fn long_numbers_as_text(json: &[u8]) -> Cow<'_, [u8]> {
    let Ok(text) = std::str::from_utf8(json) else { return Cow::Borrowed(json) };
    let mut out = String::new();
    let mut copied = 0;
    // What only looks like a number must not become a string, and the text valid.
    let is_number = |number: &&str| serde_json::from_str::<&RawValue>(number).is_ok();
    for number in numbers(text).filter(|number| inexact(number).is_some()).filter(is_number) {
        let begin = number.as_ptr().addr() - text.as_ptr().addr();
        out.push_str(&text[copied..begin]);
        out.push('"');
        out.push_str(number);
        out.push('"');
        copied = begin + number.len();
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_would_be_rounded_stay_as_text_and_all_else_as_it_is() {
        for (json, kept) in [
            (
                r#"{"a": 1180591620717411303424, "b": [-9223372036854775809,1e400]}"#,
                r#"{"a": "1180591620717411303424", "b": ["-9223372036854775809","1e400"]}"#,
            ),
            ("18446744073709551616", r#""18446744073709551616""#),
            (
                r#"{"99999999999999999999": "a \" 99999999999999999999", "b": 18446744073709551615}"#,
                r#"{"99999999999999999999": "a \" 99999999999999999999", "b": 18446744073709551615}"#,
            ),
            ("[0.1, -1, 1.5e300]", "[0.1, -1, 1.5e300]"),
            ("2026-11-30 is no JSON", "2026-11-30 is no JSON"),
            ("[1-2, 99999999999999999999e]", "[1-2, 99999999999999999999e]"),
        ] {
            assert_eq!(long_numbers_as_text(json.as_bytes()), kept.as_bytes(), "{json}");
        }
        assert_eq!(
            long_numbers_as_text(b"99999999999999999999 \xff"),
            b"99999999999999999999 \xff".as_slice()
        );
    }
}
