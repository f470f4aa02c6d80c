//! JSON as text: what passes through this process is changed, where it must be, without being parsed, so that no number
//! loses digits and no depth exhausts a stack.
//!
//! But for [`json_fault`], the texts given here are JSON already; of any other text nothing is promised but that there is
//! no panic.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Python escapes it as it escapes what is not ASCII.
const DEL: u8 = 0x7f;
/// Digits that always fit 64 bits.
const FITTING_DIGITS: usize = 18;

/// The first number that a parsed value would not hold as it is: an integer beyond 64 bits, or a number beyond the
/// largest double.
pub(crate) fn unfit_number(json: &[u8]) -> Option<&str> {
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => at = after_string(json, at),
            b'-' | b'0'..=b'9' => {
                let rest = &json[at..];
                let length = rest.iter().position(|byte| !is_of_number(*byte)).unwrap_or(rest.len()).max(1);
                let number = std::str::from_utf8(&rest[..length]).unwrap_or_default();
                if !is_held(number) {
                    return Some(number);
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    None
}

/// What keeps `text` from being one JSON value; `None` where it is one. Nothing is built, no number is read and no depth
/// is too deep, so that it costs about what a copy costs.
pub(crate) fn json_fault(text: &[u8]) -> Option<serde_json::Error> {
    serde_json::from_slice::<&RawValue>(text).err()
}

/// The text as one line of a stream: Python's separators, ASCII. Numbers keep their digits.
pub(crate) fn stream_line(json: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(json.len() + json.len() / 8);
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                let end = after_string(json, at);
                put_ascii(&mut out, &json[at..end]);
                at = end;
            }
            b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            b',' | b':' => {
                out.put_slice(&[*byte, b' ']);
                at += 1;
            }
            _ => {
                out.put_u8(*byte);
                at += 1;
            }
        }
    }
    out.freeze()
}

/// The text with each `\udXXX` that stands alone written as text of six characters: half a surrogate pair has no
/// meaning that every reader could take, and so it is shown.
pub(crate) fn show_lone_surrogates(json: &[u8]) -> Cow<'_, [u8]> {
    let mut out: Vec<u8> = Vec::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = json[at..].iter().position(|byte| *byte == b'\\') {
        at += found;
        match surrogate(&json[at..]) {
            Some(Half::High) if surrogate(&json[at + 6..]) == Some(Half::Low) => at += 12,
            Some(_) => {
                out.extend_from_slice(&json[copied..at]);
                out.push(b'\\');
                copied = at;
                at += 6;
            }
            None => at = (at + 2).min(json.len()),
        }
    }
    if copied == 0 && out.is_empty() {
        return Cow::Borrowed(json);
    }
    out.extend_from_slice(&json[copied..]);
    Cow::Owned(out)
}

/// Whether half of a surrogate pair stands alone somewhere.
pub(crate) fn has_lone_surrogate(json: &[u8]) -> bool {
    matches!(show_lone_surrogates(json), Cow::Owned(_))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    High,
    Low,
}

/// Which half of a pair the escape at the start of `json` is.
fn surrogate(json: &[u8]) -> Option<Half> {
    let [b'\\', b'u', b'd' | b'D', second, third, fourth, ..] = json else { return None };
    if !third.is_ascii_hexdigit() || !fourth.is_ascii_hexdigit() {
        return None;
    }
    match second {
        b'8' | b'9' | b'a' | b'b' | b'A' | b'B' => Some(Half::High),
        b'c'..=b'f' | b'C'..=b'F' => Some(Half::Low),
        _ => None,
    }
}

/// Where the string that begins at `start` has ended.
fn after_string(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(rest) = json.get(at..) {
        match rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
            Some(found) if rest[found] == b'"' => return at + found + 1,
            // What is escaped is no end.
            Some(found) => at += found + 2,
            None => break,
        }
    }
    json.len()
}

fn is_of_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')
}

fn is_held(number: &str) -> bool {
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if is_plain {
        number.len() <= FITTING_DIGITS || number.parse::<u64>().is_ok() || number.parse::<i64>().is_ok()
    } else {
        number.parse::<f64>().is_ok_and(f64::is_finite)
    }
}

/// Appends a JSON string, what is not ASCII in it escaped.
fn put_ascii(out: &mut BytesMut, string: &[u8]) {
    let mut rest = string;
    while !rest.is_empty() {
        let plain = rest.iter().position(|byte| *byte >= DEL).unwrap_or(rest.len());
        out.put_slice(&rest[..plain]);
        rest = &rest[plain..];
        let foreign = rest.iter().position(|byte| *byte < DEL).unwrap_or(rest.len());
        for unit in String::from_utf8_lossy(&rest[..foreign]).encode_utf16() {
            out.put_slice(format!("\\u{unit:04x}").as_bytes());
        }
        rest = &rest[foreign..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_wire::python_json::{Style, to_string};
    use serde_json::{Value, json};

    #[test]
    fn numbers_that_a_value_would_round_are_found_wherever_they_stand() {
        for (text, expected) in [
            (r#"{"a":18446744073709551615,"b":-9223372036854775808,"c":1.5e300,"d":0}"#, None),
            (r#"{"a":[1,{"b":18446744073709551616}]}"#, Some("18446744073709551616")),
            ("-9223372036854775809", Some("-9223372036854775809")),
            ("[1e400]", Some("1e400")),
            ("[-1E+400,2]", Some("-1E+400")),
            (r#"{"18446744073709551616":"1e400 \" 1e400 \\"}"#, None),
            (r#"{"x":"unended 1e400"#, None),
            ("", None),
        ] {
            assert_eq!(unfit_number(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_json_is_told_from_what_is_not() {
        let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
        for text in
            ["null", " [1, 2]\n", r#"{"a":"\udc80"}"#, "1e400", "123456789012345678901234567890", &deep]
        {
            assert!(json_fault(text.as_bytes()).is_none(), "{text}");
        }
        let foreign: [&[u8]; 9] =
            [b"", b" ", b"NaN", b"{nope", b"\xff", b"\"\xff\"", b"1 2", b"1,\"evil\":2", b"\"unended"];
        for text in foreign {
            assert!(json_fault(text).is_some(), "{text:?}");
        }
    }

    #[test]
    fn a_line_is_written_as_python_writes_it_and_keeps_what_a_value_cannot_hold() {
        let value = json!({"b": [1, -2.5, null, true, {}, []], "é☃😀": "a\"\\\n, : \u{7f}"});
        let line = stream_line(value.to_string().as_bytes());
        assert_eq!(std::str::from_utf8(&line).unwrap(), to_string(&value, Style::Default));
        assert_eq!(serde_json::from_slice::<Value>(&line).unwrap(), value);
        let deep = format!("{}18446744073709551616{}", "[".repeat(2000), "]".repeat(2000));
        assert_eq!(stream_line(deep.as_bytes()), deep);
        assert_eq!(stream_line(br#"{ "a" : "\udc80" }"#), r#"{"a": "\udc80"}"#);
    }

    #[test]
    fn half_a_pair_is_shown_and_a_whole_one_stays() {
        for (text, expected) in [
            (r#""caf\udce9.txt""#, r#""caf\\udce9.txt""#),
            (r#""\ud83d\ude00 \uD83D\uDE00""#, r#""\ud83d\ude00 \uD83D\uDE00""#),
            (r#""\ud83d x \ude00""#, r#""\\ud83d x \\ude00""#),
            (r#""\\udce9 \u00e9 \n""#, r#""\\udce9 \u00e9 \n""#),
            (r#""\udce9\udce9""#, r#""\\udce9\\udce9""#),
            (r#""\ud8"#, r#""\ud8"#),
            ("\\", "\\"),
        ] {
            let shown = show_lone_surrogates(text.as_bytes());
            assert_eq!(std::str::from_utf8(&shown).unwrap(), expected);
            if text.len() > 6 {
                serde_json::from_slice::<String>(&shown).unwrap();
            }
        }
    }
}
