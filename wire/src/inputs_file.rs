//! Inputs of a composition in a file of their own: one object by name, JSON or YAML. Values keep their digits.

use crate::composition::CompositionError;
use crate::exact_yaml;
use crate::json::{Arguments, Json};

/// Reads the text of such a file.
///
/// # Errors
/// When it is no object, or has a number whose digits its reader would lose.
pub fn parse_inputs(text: &str) -> Result<Arguments, CompositionError> {
    if let Some(inputs) = Json::parse(text).ok().and_then(|json| json.fields()) {
        return Ok(inputs);
    }
    let (inputs, infinite): (Arguments, _) =
        crate::yaml::with_infinite(text).map_err(CompositionError::Malformed)?;
    if !exact_yaml::may_have_leading_zeros(text) && !inputs.values().any(exact_yaml::may_be_rounded) {
        return Ok(inputs);
    }
    let exact = exact_yaml::parse(text).and_then(|exact| exact.fields());
    exact.ok_or_else(|| infinite.map_or(CompositionError::Inexact, CompositionError::Malformed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_give_the_same_values_digit_by_digit() {
        let json = r#"{"a": 18446744073709551616, "b": ["x", 1.10], "c": {"d": null}}"#;
        let yaml = "a: 18446744073709551616\nb: [x, 1.10]\nc:\n  d: null\n";
        for text in [json, yaml] {
            let inputs = parse_inputs(text).expect(text);
            assert_eq!(inputs["a"].text(), "18446744073709551616", "{text}");
            assert_eq!(inputs["b"].items().expect("a list")[0], Json::of("x"), "{text}");
            assert_eq!(inputs["c"].compact(), r#"{"d":null}"#, "{text}");
        }
        // Words that were booleans before YAML 1.2.
        let words = parse_inputs("a: [de, no, y, on, Off]\nb: true\n").expect("read");
        assert_eq!(words["a"].compact(), r#"["de","no","y","on","Off"]"#);
        assert_eq!(words["b"].text(), "true");
        for text in ["[1]", "3", "a: [", "a: 1\na: 2"] {
            assert!(parse_inputs(text).is_err(), "{text}");
        }
    }
}
