//! Writes JSON as Python's `json.dumps` does, because hashes, journal payloads and the accounts header are
//! compared byte by byte with rows the ancestor wrote. Not a parser: values come from `serde_json`.
//! Floats never include NaN here: `serde_json` cannot hold one.

use bytes::BufMut;
use serde_json::{Number, Value};

/// How `write` separates and escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Keys sorted by code point, `", "` and `": "`, ASCII only: journal payloads.
    Payload,
    /// Keys in order, `", "` and `": "`, ASCII only: headers and stream lines (`json.dumps` as it comes).
    Default,
    /// Keys in order, `","` and `":"`, UTF-8 as it is: bodies of unary answers.
    Compact,
}

/// Bytes looked at together for one that needs an escape.
const RUN_BYTES: usize = 32;

/// Renders `value` in the given style.
#[must_use]
pub fn to_string(value: &Value, style: Style) -> String {
    let mut out = Vec::new();
    write(&mut out, value, style);
    String::from_utf8(out).expect("text was written, and ASCII between it")
}

/// Appends `value` in the given style, as UTF-8.
pub fn write(out: &mut impl BufMut, value: &Value, style: Style) {
    match value {
        Value::Null => out.put_slice(b"null"),
        Value::Bool(true) => out.put_slice(b"true"),
        Value::Bool(false) => out.put_slice(b"false"),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_text(out, text, style),
        Value::Array(items) => {
            out.put_u8(b'[');
            for (index, item) in items.iter().enumerate() {
                separate(out, index, style);
                write(out, item, style);
            }
            out.put_u8(b']');
        }
        Value::Object(map) => {
            out.put_u8(b'{');
            if style == Style::Payload {
                let mut members: Vec<(&String, &Value)> = map.iter().collect();
                members.sort_by_key(|(key, _)| *key);
                write_members(out, members.into_iter(), style);
            } else {
                write_members(out, map.iter(), style);
            }
            out.put_u8(b'}');
        }
    }
}

fn write_members<'a>(
    out: &mut impl BufMut,
    members: impl Iterator<Item = (&'a String, &'a Value)>,
    style: Style,
) {
    for (index, (key, value)) in members.enumerate() {
        separate(out, index, style);
        write_text(out, key, style);
        out.put_slice(if style == Style::Compact { b":" } else { b": " });
        write(out, value, style);
    }
}

fn separate(out: &mut impl BufMut, index: usize, style: Style) {
    if index > 0 {
        out.put_slice(if style == Style::Compact { b"," } else { b", " });
    }
}

fn write_number(out: &mut impl BufMut, number: &Number) {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(value) => out.put_slice(float_repr(value).as_bytes()),
        None => out.put_slice(number.to_string().as_bytes()),
    }
}

/// Appends `text` as a JSON string: what needs no escape as it is, in runs; the rest, and all that is not ASCII where
/// the style wants ASCII, escaped as `json.dumps` does (surrogate pairs, lower case hexadecimal, DEL in ASCII styles).
fn write_text(out: &mut impl BufMut, text: &str, style: Style) {
    let plain_run = if style == Style::Compact { plain_run::<false> } else { plain_run::<true> };
    out.put_u8(b'"');
    let mut rest = text;
    loop {
        let run = plain_run(rest.as_bytes());
        out.put_slice(&rest.as_bytes()[..run]);
        // What ends a run is ASCII, or the first byte of a character: a run ends where a character begins.
        let mut chars = rest[run..].chars();
        let Some(c) = chars.next() else { break };
        write_escape(out, c);
        rest = chars.as_str();
    }
    out.put_u8(b'"');
}

/// How many bytes from the start need no escape.
fn plain_run<const ASCII: bool>(bytes: &[u8]) -> usize {
    let needs_escape = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\') | (ASCII & (byte > b'~'));
    // In blocks of one size without a branch inside: the compiler makes vector instructions of it, and long texts are
    // mostly plain.
    let (blocks, _) = bytes.as_chunks::<RUN_BYTES>();
    let is_plain =
        |block: &&[u8; RUN_BYTES]| !block.iter().fold(false, |found, byte| found | needs_escape(*byte));
    let start = blocks.iter().take_while(is_plain).count() * RUN_BYTES;
    bytes[start..].iter().position(|byte| needs_escape(*byte)).map_or(bytes.len(), |at| start + at)
}

fn write_escape(out: &mut impl BufMut, c: char) {
    let short = match c {
        '"' => b'"',
        '\\' => b'\\',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        _ => {
            let mut units = [0u16; 2];
            for unit in c.encode_utf16(&mut units) {
                out.put_slice(format!("\\u{unit:04x}").as_bytes());
            }
            return;
        }
    };
    out.put_slice(&[b'\\', short]);
}

/// Appends `text` as a JSON string in which everything outside 0x20–0x7E is escaped (surrogate pairs, lower
/// case hexadecimal, DEL too).
pub fn escape_ascii(out: &mut String, text: &str) {
    let mut json = Vec::with_capacity(text.len() + 2);
    write_text(&mut json, text, Style::Default);
    out.push_str(&String::from_utf8(json).expect("ASCII"));
}

/// Rewrites one JSON number as Python would after `json.loads`: integers of any size stay (`-0` is `0`),
/// anything with a fraction or an exponent becomes the `repr` of a float.
#[must_use]
pub fn number_text(raw: &str) -> String {
    let is_float = raw.contains(['.', 'e', 'E']);
    if !is_float {
        return if raw == "-0" { "0".to_owned() } else { raw.to_owned() };
    }
    match raw.parse::<f64>() {
        Ok(value) => float_repr(value),
        Err(_) => raw.to_owned(),
    }
}

/// Python's `repr(float)`: shortest digits that read back, exponent form below 1e-4 and from 1e16 on.
#[must_use]
pub fn float_repr(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() };
    }
    let is_usual = value == 0.0 || (1e-4..1e16).contains(&value.abs());
    if is_usual {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    // Rust's `{:e}` prints the same shortest digits; only the layout differs.
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, text) in [
            (1.0, "1.0"),
            (2.5, "2.5"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (1e-7, "1e-07"),
            (1e-4, "0.0001"),
            (-0.0, "-0.0"),
            (1.5e300, "1.5e+300"),
            (0.1 + 0.2, "0.30000000000000004"),
        ] {
            assert_eq!(float_repr(value), text);
        }
        assert_eq!(number_text("-0"), "0");
        assert_eq!(number_text("100000000000000000000"), "100000000000000000000");
    }

    proptest! {
        #[test]
        fn texts_of_any_length_are_escaped_wherever_they_need_it(text in "[a-z \"\\\\\n\u{1}\u{7f}é☃😀]{0,100}") {
            let value = json!({&text: [&text, 1, -7, true, null]});
            let compact = to_string(&value, Style::Compact);
            prop_assert_eq!(&compact, &serde_json::to_string(&value).unwrap());
            let ascii = to_string(&value, Style::Default);
            prop_assert!(ascii.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(serde_json::from_str::<Value>(&ascii).unwrap(), value);
        }

        #[test]
        fn floats_read_back_and_are_laid_out_alike(value in proptest::num::f64::NORMAL) {
            let text = float_repr(value);
            prop_assert_eq!(text.parse::<f64>().unwrap(), value);
            let usual = (1e-4..1e16).contains(&value.abs());
            prop_assert_eq!(text.contains('e'), !usual);
        }
    }

    #[test]
    fn payloads_are_sorted_spaced_and_ascii() {
        let value = json!({"b": [1, 2.0, null], "a": "h\u{e9} \u{1f600}\u{7f}"});
        assert_eq!(
            to_string(&value, Style::Payload),
            r#"{"a": "h\u00e9 \ud83d\ude00\u007f", "b": [1, 2.0, null]}"#
        );
        assert!(to_string(&value, Style::Default).starts_with(r#"{"b": [1"#));
    }
}
