//! The canonical form: any JSON has one, in ASCII, which is its own canonical form and means the same; what is not
//! JSON has none. Python's spelling of the numbers is pinned by the vectors in `wire`, not here.
#![no_main]

use cjm_wire::canonical::{canonical_hash, canonical_hash_of, canonical_text};
use cjm_wire::python_json::{Style, to_string};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// A float beyond every float, as Python's `json` writes it. It is no JSON, and neither form can hold it.
const BEYOND: &str = "Infinity";

fuzz_target!(|text: &str| {
    let Ok(canonical) = canonical_text(text) else { return };
    assert!(canonical.is_ascii());
    if canonical.contains(BEYOND) {
        return;
    }
    assert_eq!(canonical_text(&canonical).expect("its own text"), canonical);
    assert_eq!(canonical_hash(&canonical).expect("its own text"), canonical_hash(text).expect("as before"));
    let Ok(value) = serde_json::from_str::<Value>(text) else { return };
    let meant: Value = serde_json::from_str(&canonical).expect("JSON");
    assert!(same(&meant, &value), "{canonical}");
    assert!(canonical_hash_of(&value).starts_with("sha256:"));
    for style in [Style::Payload, Style::Default] {
        let written = to_string(&value, style);
        assert!(written.is_ascii());
        assert_eq!(serde_json::from_str::<Value>(&written).expect("JSON"), value, "{written}");
    }
});

/// Equal but for the sign of zero: `-0` is an integer for Python, and a float for `serde_json`.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, l)| right.get(key).is_some_and(|r| same(l, r)))
        }
        _ => left == right,
    }
}
