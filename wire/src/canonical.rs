//! The canonical hash: one digest for one JSON value, whoever computes it. It keys the empirical records, the
//! drift witnesses and the cache directories, and must equal the ancestor's (`facts` vectors in the tests).
//!
//! Works on JSON *text*, not on a parsed value, because integers of any size keep their digits.

use crate::python_json::{escape_ascii, number_text};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Deepest nesting accepted; deeper input is refused instead of exhausting the stack.
pub const CANONICAL_DEPTH_MAX: usize = 128;

/// Why a text has no canonical form.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// The text is not JSON (NaN and Infinity included: they are not JSON).
    #[error("not valid JSON: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Nested deeper than [`CANONICAL_DEPTH_MAX`].
    #[error("nested deeper than {CANONICAL_DEPTH_MAX} levels")]
    TooDeep,
}

/// `sha256:` and the hexadecimal digest of the canonical form; `null` counts as `{}`.
///
/// # Errors
/// When the text is not JSON or is nested too deeply.
pub fn canonical_hash(json_text: &str) -> Result<String, CanonicalError> {
    let text = canonical_text(json_text)?;
    let text = if text == "null" { "{}" } else { &text };
    Ok(format!("sha256:{}", hex(&Sha256::digest(text.as_bytes()))))
}

/// [`canonical_hash`] of a value already parsed. Infallible but for absurd depth, which hashes as `{}`
/// never: `serde_json` itself refuses to build values that deep from text.
#[must_use]
pub fn canonical_hash_of(value: &serde_json::Value) -> String {
    canonical_hash(&value.to_string()).unwrap_or_else(|error| format!("sha256:invalid-{error}"))
}

/// The canonical form: keys sorted by code point, no spaces, ASCII only, floats as Python's `repr`.
///
/// # Errors
/// When the text is not JSON or is nested too deeply.
pub fn canonical_text(json_text: &str) -> Result<String, CanonicalError> {
    let raw: &RawValue = serde_json::from_str(json_text)?;
    let mut out = String::with_capacity(json_text.len());
    write(&mut out, raw.get(), 0)?;
    Ok(out)
}

fn write(out: &mut String, raw: &str, depth: usize) -> Result<(), CanonicalError> {
    if depth > CANONICAL_DEPTH_MAX {
        return Err(CanonicalError::TooDeep);
    }
    match raw.as_bytes().first() {
        Some(b'{') => {
            let map: BTreeMap<String, &RawValue> = serde_json::from_str(raw)?;
            out.push('{');
            for (index, (key, value)) in map.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                escape_ascii(out, &key);
                out.push(':');
                write(out, value.get(), depth + 1)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(raw)?;
            out.push('[');
            for (index, value) in items.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(out, value.get(), depth + 1)?;
            }
            out.push(']');
        }
        Some(b'"') => escape_ascii(out, &serde_json::from_str::<String>(raw)?),
        Some(b't' | b'f' | b'n') => out.push_str(raw),
        _ => out.push_str(&number_text(raw)),
    }
    Ok(())
}

/// Lower-case hexadecimal of some bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input text, canonical text, digest: captured from the ancestor.
    const VECTORS: [(&str, &str, &str); 6] = [
        ("{}", "{}", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
        ("null", "null", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
        (
            r#"{ "model":"base", "beam":5, "note":null,"temperature": 0.50 }"#,
            r#"{"beam":5,"model":"base","note":null,"temperature":0.5}"#,
            "c01d1dde916c5438423dbb6bba8a3bc3c5c176970224f1275861b29c7b895c00",
        ),
        (
            r#"{"b":1,"a":[1.0,2.5,1e16,1e-07,-0.0,100000000000000000000]}"#,
            r#"{"a":[1.0,2.5,1e+16,1e-07,-0.0,100000000000000000000],"b":1}"#,
            "5f07260e2d1b89da449c2ec769a2e22f3082b48643394ae9b7e295c314da7bb3",
        ),
        (
            "{\"\u{43a}\u{43b}\u{44e}\u{447}\":\"h\u{e9}llo \u{2603} \u{1f600}\",\"a\u{7f}\":\"\\t\\\"\\\\/\"}",
            r#"{"a\u007f":"\t\"\\/","\u043a\u043b\u044e\u0447":"h\u00e9llo \u2603 \ud83d\ude00"}"#,
            "31c7cc86f42b48941a0b71d76700942aafee3121aa286b26f9272b083572f8d1",
        ),
        (
            "{\"\u{1f600}\":2,\"\u{fb00}\":1,\"\u{e9}\":4,\"z\":3}",
            r#"{"z":3,"\u00e9":4,"\ufb00":1,"\ud83d\ude00":2}"#,
            "286737ad19073014b53c537696df78e346afba6ee2735bad85bb5700e907e93c",
        ),
    ];

    #[test]
    fn every_captured_vector_hashes_equal() {
        for (input, canonical, digest) in VECTORS {
            assert_eq!(canonical_text(input).expect(input), canonical);
            assert_eq!(canonical_hash(input).expect(input), format!("sha256:{digest}"));
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for input in ["", "{", "NaN", "{\"a\":Infinity}", &"[".repeat(5000)] {
            assert!(canonical_hash(input).is_err(), "{input:.20}");
        }
        let deep = format!("{}1{}", "[".repeat(127), "]".repeat(127));
        assert!(canonical_hash(&deep).is_ok());
    }
}
