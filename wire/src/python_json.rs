//! Writes JSON as Python's `json.dumps` does, because hashes, journal payloads and the accounts header are
//! compared byte by byte with rows the ancestor wrote. Not a parser: values come from `serde_json`.
//! Floats never include NaN here: `serde_json` cannot hold one.

use serde_json::Value;

/// How `write` separates and escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Keys sorted by code point, `", "` and `": "`, ASCII only: journal payloads.
    Payload,
    /// Keys in order, `", "` and `": "`, ASCII only: headers and stream lines (`json.dumps` as it comes).
    Default,
}

/// Renders `value` in the given style.
#[must_use]
pub fn to_string(value: &Value, style: Style) -> String {
    let mut out = String::new();
    write(&mut out, value, style);
    out
}

fn write(out: &mut String, value: &Value, style: Style) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => out.push_str(&number_text(&number.to_string())),
        Value::String(text) => escape_ascii(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write(out, item, style);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            if style == Style::Payload {
                keys.sort();
            }
            out.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                escape_ascii(out, key);
                out.push_str(": ");
                write(out, &map[key], style);
            }
            out.push('}');
        }
    }
}

/// Appends `text` as a JSON string in which everything outside 0x20–0x7E is escaped (surrogate pairs, lower
/// case hexadecimal, DEL too).
pub fn escape_ascii(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                let mut units = [0u16; 2];
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
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
    // Rust's `{:e}` prints the same shortest digits; only the layout differs.
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{value}");
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

#[cfg(test)]
mod tests {
    use super::*;
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
