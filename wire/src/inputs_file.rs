//! Inputs of a composition in a file of their own: one object by name, JSON or YAML. Values keep their digits.

use crate::composition::CompositionError;
use crate::exact_yaml::{self, Written};
use crate::json::{Arguments, Json, JsonKind};

/// Reads the text of such a file. A number where `is_text` says that text is wanted is the text as it is written.
///
/// # Errors
/// When it is no object, or has a number whose digits its reader would lose.
pub fn parse_inputs(text: &str, is_text: impl Fn(&str) -> bool) -> Result<Arguments, CompositionError> {
    if let Some(mut inputs) = Json::parse(text).ok().and_then(|json| json.fields()) {
        // A number of JSON is kept as it is written.
        let wanted =
            inputs.iter_mut().filter(|(name, value)| value.kind() == JsonKind::Number && is_text(name));
        wanted.for_each(|(_, value)| *value = Json::of(value.text()));
        return Ok(inputs);
    }
    let mut inputs = parse(text)?;
    let written = Written::of(text);
    for (name, value) in inputs.iter_mut().filter(|(name, _)| is_text(name)) {
        written.keep_text(value, &[name]);
    }
    Ok(inputs)
}

/// Of YAML.
fn parse(text: &str) -> Result<Arguments, CompositionError> {
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

    fn parse_inputs(text: &str) -> Result<Arguments, CompositionError> {
        super::parse_inputs(text, |_| false)
    }

    #[test]
    fn a_number_is_the_text_that_is_written_where_text_is_wanted() {
        let text = "page: 007\nother: 007\nversion: 1.10\nlong: 123456789012345678901234567890\nword: x\nlist: [007]\n";
        let inputs = super::parse_inputs(text, |name| name != "other").expect("inputs");
        let texts: Vec<String> = inputs.values().map(Json::compact).collect();
        assert_eq!(texts, ["\"007\"", "7", "\"1.10\"", "\"123456789012345678901234567890\"", "\"x\"", "[7]"]);
        let json = super::parse_inputs(r#"{"version": 1.10, "page": "007"}"#, |_| true).expect("inputs");
        assert_eq!((json["version"].text(), json["page"].text()), ("\"1.10\"", "\"007\""));
        let document = "name: t\ninputs:\n  page: {type: string, default: 007}\n  n: {type: number, default: 007}\nnodes: {}\n";
        let composition = crate::composition::Composition::parse(document).expect("a composition");
        let defaults: Vec<_> =
            composition.inputs.values().filter_map(|input| input.default.as_ref()).collect();
        assert_eq!((defaults[0].text(), defaults[1].text()), ("\"007\"", "7"));
    }

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
