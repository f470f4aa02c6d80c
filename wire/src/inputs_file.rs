//! Inputs of a composition in a file of their own: one object by name, JSON or YAML. Values keep their digits.

use crate::composition::CompositionError;
use crate::doubled::doubled_key_at;
use crate::exact_yaml::{self, Written};
use crate::input_kind::InputKind;
use crate::json::{Arguments, Json, JsonKind};

/// Reads the text of such a file. A number where text is wanted, by the `kind` of that name, is the text as it is written.
///
/// # Errors
/// When it is no object, has a key twice, or has a number whose digits its reader would lose.
pub fn parse_inputs(text: &str, kind: impl Fn(&str) -> InputKind) -> Result<Arguments, CompositionError> {
    if let Some(mut inputs) = Json::parse(text).ok().and_then(|json| json.fields()) {
        if let Some((key, at)) = doubled_key_at(text) {
            return Err(CompositionError::Malformed(twice(text, &key, at)));
        }
        inputs.iter_mut().for_each(|(name, value)| keep_text(value, kind(name)));
        return Ok(inputs);
    }
    let mut inputs = parse(text)?;
    let written = Written::of(text);
    for (name, value) in &mut inputs {
        let kind = kind(name);
        if kind.is_text() {
            written.keep_text(value, &[name], kind);
        }
    }
    Ok(inputs)
}

/// A key that stands twice, with the place of the second: one of its values would silently have no effect.
fn twice(text: &str, key: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or_default();
    let line_begins = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    let column = before.get(line_begins..).map_or(0, |begun| begun.chars().count()) + 1;
    format!("line {line} column {column}: the key `{key}` stands twice in its object")
}

/// Of JSON, whose numbers are kept as they are written.
fn keep_text(value: &mut Json, kind: InputKind) {
    let text = |value: &mut Json| {
        if value.kind() == JsonKind::Number {
            *value = Json::of(value.text());
        }
    };
    match value.items() {
        Some(mut items) if kind == InputKind::Files => {
            items.iter_mut().for_each(text);
            *value = Json::list(&items);
        }
        _ if kind.is_text() => text(value),
        _ => {}
    }
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
        super::parse_inputs(text, |_| InputKind::Any)
    }

    #[test]
    fn a_number_is_the_text_that_is_written_where_text_is_wanted() {
        let text = "page: 007\nother: 007\nversion: 1.10\nlong: 123456789012345678901234567890\nword: x\nlist: [007, 1.10, x, [007]]\n";
        let kind = |name: &str| match name {
            "other" => InputKind::Any,
            "list" => InputKind::Files,
            _ => InputKind::String,
        };
        let inputs = super::parse_inputs(text, kind).expect("inputs");
        let texts: Vec<String> = inputs.values().map(Json::compact).collect();
        let list = "[\"007\",\"1.10\",\"x\",[7]]";
        assert_eq!(texts, ["\"007\"", "7", "\"1.10\"", "\"123456789012345678901234567890\"", "\"x\"", list]);
        let json = super::parse_inputs(r#"{"version": 1.10, "page": "007", "list": [1.10, "x"]}"#, kind);
        let json = json.expect("inputs");
        assert_eq!((json["version"].text(), json["page"].text()), ("\"1.10\"", "\"007\""));
        assert_eq!(json["list"].compact(), r#"["1.10","x"]"#);
        let document = "name: t\ninputs:\n  page: {type: string, default: 007}\n  n: {type: number, default: 007}\n  \
                        f: {type: files, default: [007, 1.10]}\n  one: {type: files, default: 1.10}\nnodes: {}\n";
        let composition = crate::composition::Composition::parse(document).expect("a composition");
        let defaults: Vec<_> =
            composition.inputs.values().filter_map(|input| input.default.as_ref()).collect();
        let defaults: Vec<String> = defaults.into_iter().map(Json::compact).collect();
        assert_eq!(defaults, ["\"007\"", "7", "[\"007\",\"1.10\"]", "\"1.10\""]);
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
        for (text, words) in [
            (r#"{"t": "a", "t": "b c"}"#, "line 1 column 12: the key `t` stands twice in its object"),
            (
                "{\n  \"ü\": {\"n\": 1, \"\\u006e\": 2}}",
                "line 2 column 17: the key `n` stands twice in its object",
            ),
        ] {
            assert_eq!(parse_inputs(text), Err(CompositionError::Malformed(words.to_owned())), "{text}");
        }
        for text in ["[1]", "3", "a: [", "a: 1\na: 2"] {
            assert!(parse_inputs(text).is_err(), "{text}");
        }
    }
}
