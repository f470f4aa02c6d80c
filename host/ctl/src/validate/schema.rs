//! The faults that the published schema finds in a document, each at the key it is about, beside the one at which the
//! parser ended.

use crate::validate::finding::{Finding, listed};
use cjm_catalog::suggestions::{in_words as in_words_of, suggestions};
use cjm_wire::placed::Placed;
use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Longest value that a message shows, in bytes of its JSON.
const VALUE_BYTES_MAX: usize = 80;

/// A manifest is not what its schema asks for
pub(super) const MANIFEST_FAULT: &str = "manifest.schema";
/// The manifest of an adapter is not what its schema asks for
pub(super) const ADAPTER_FAULT: &str = "adapter.schema";
/// A list of capabilities is not what its schema asks for
pub(super) const CAPABILITIES_FILE_FAULT: &str = "capabilities_file.schema";
/// A composition is not what its schema asks for
pub(super) const COMPOSITION_FAULT: &str = "composition.schema";

/// Keys that other programs have, and ours.
const KEYS_ELSEWHERE: [(&str, &str); 6] = [
    ("needs", "after"),
    ("depends_on", "after"),
    ("requires", "after"),
    ("uses", "capability"),
    ("with", "args"),
    ("arguments", "args"),
];
/// Types that other programs have, and those of manifests, which know whole numbers and files of their own, or of inputs.
const TYPES_ELSEWHERE: [(&str, &str); 14] = [
    ("int", "integer"),
    ("file", "input_file"),
    ("integer", "number"),
    ("int", "number"),
    ("float", "number"),
    ("text", "string"),
    ("str", "string"),
    ("bool", "boolean"),
    ("input_file", "file"),
    ("array", "any"),
    ("list", "any"),
    ("object", "any"),
    ("dict", "any"),
    ("json", "any"),
];

/// What the parser ended at.
pub(super) struct First {
    pub(super) finding: Box<Finding>,
    /// Dotted keys of what it is about; where the parser does not know them, the schema's words are better.
    pub(super) key: Option<String>,
    /// Nothing else is worth saying.
    pub(super) alone: bool,
    /// It was found in what the document is once its form is mended: what was mended is another fault.
    pub(super) mended: bool,
}

/// The parser's faults before those of the schema that are about something else.
pub(super) fn gather(firsts: &[First], document: Option<&Placed>, schema: &str, code: &str) -> Vec<Finding> {
    let of_parser = |first: &First| (*first.finding).clone();
    let mut faults = Vec::new();
    if let Some(document) = document.filter(|_| !firsts.iter().any(|first| first.alone)) {
        faults = all_faults(&document.value, schema);
    }
    // Of a value that has the wrong form, the parser knows neither the key nor, often, the place.
    let kept = firsts.iter().filter(|first| faults.is_empty() || first.key.is_some());
    let mut findings: Vec<Finding> = kept.map(of_parser).collect();
    let mut seen = BTreeSet::new();
    faults.retain(|fault| seen.insert((fault.pointer.clone(), fault.message.clone())));
    for SchemaFault { pointer, message, mend } in faults {
        let key = pointer.trim_start_matches('/').replace('/', ".").replace("~1", "/").replace("~0", "~");
        if firsts.iter().any(|first| says_the_same(first, &key, mend.as_ref())) {
            continue;
        }
        findings.push(Finding {
            code: code.to_owned(),
            message: if key.is_empty() { message } else { format!("{key}: {message}") },
            next_step: match form_of(code, &key, mend.as_ref()) {
                Some(form) => format!("write {form}; {} describes every key", page_of(code)),
                None => format!("correct it; {} describes every key", page_of(code)),
            },
            file: None,
            place: document.and_then(|document| document.place(&pointer)),
        });
    }
    listed(findings)
}

/// The page that says what may stand in a document whose faults have this code.
fn page_of(code: &str) -> &'static str {
    match code {
        CAPABILITIES_FILE_FAULT => "docs/ENVIRONMENTS.md",
        COMPOSITION_FAULT => "docs/COMPOSITIONS.md",
        _ => "docs/MANIFESTS.md",
    }
}

/// What is to be written where a composition has something else than values by name.
fn form_of(code: &str, key: &str, mend: Option<&Mend>) -> Option<&'static str> {
    if code != COMPOSITION_FAULT || !matches!(mend, Some(Mend::Other { .. })) {
        return None;
    }
    Some(match key.split('.').collect::<Vec<_>>().as_slice() {
        ["nodes"] => "calls by name, as in `nodes: {NAME: {capability: NAME}}`",
        ["nodes", _] => "a call, as in `{capability: NAME, args: {NAME: VALUE}}`",
        ["nodes", _, "args"] => "arguments by name, as in `args: {NAME: VALUE}`",
        ["inputs"] => "inputs by name, as in `inputs: {NAME: {type: string}}`",
        ["inputs", _] => "what the input is, as in `{type: string, default: VALUE}`",
        ["capabilities"] => "settings by capability, as in `capabilities: {NAME: {instances: 2}}`",
        ["capabilities", _, "config"] => "a configuration by key, as in `config: {KEY: VALUE}`",
        _ => return None,
    })
}

/// Everything that is wrong with a document by its schema.
pub(super) fn all_faults(document: &Value, schema: &str) -> Vec<SchemaFault> {
    let schema: Value = serde_json::from_str(schema).unwrap_or_default();
    let mut faults = Vec::new();
    if let Ok(validator) = jsonschema::validator_for(&schema) {
        validator.iter_errors(document).for_each(|error| faults_of(&error, &schema, &mut faults));
    }
    faults
}

/// Whether a fault of the schema at `key` is about what the parser ended at: the same thing, something in it, or that
/// which holds it.
fn says_the_same(first: &First, key: &str, mend: Option<&Mend>) -> bool {
    if first.mended {
        return first.key.as_deref() == Some(key) && matches!(mend, None | Some(Mend::Limit | Mend::NoForm));
    }
    let within = |inner: &str, outer: &str| {
        inner == outer
            || outer.is_empty()
            || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
    };
    first.key.as_ref().is_some_and(|known| within(known, key) || within(key, known))
}

/// One fault, and the JSON pointer of what it is about.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SchemaFault {
    pub(super) pointer: String,
    message: String,
    /// How the document is read on in spite of it.
    pub(super) mend: Option<Mend>,
}

/// What makes a form of what is none.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Mend {
    /// A key that there is not, and the one that was meant, where one is like it.
    Stray { meant: Option<String> },
    /// The emptiest value in the place of a key that is missing.
    Missing { name: String, blank: Value },
    /// The emptiest value in the place of one of another type; none where the key may be left out.
    Other { blank: Option<Value> },
    /// Without a number that is too small or too large.
    Limit,
    /// Without an element of a list that has none of the forms that are possible there.
    NoForm,
}

impl SchemaFault {
    fn new(pointer: String, message: String) -> Self {
        Self { pointer, message, mend: None }
    }

    fn mended_by(self, mend: Mend) -> Self {
        Self { mend: Some(mend), ..self }
    }
}

/// The faults behind an error: of a value that may have several forms, those of the form it was meant to have.
fn faults_of(error: &ValidationError<'_>, schema: &Value, faults: &mut Vec<SchemaFault>) {
    let pointer = error.instance_path().to_string();
    match error.kind() {
        ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context } => {
            let meant: Vec<_> = context.iter().filter(|form| !form.iter().any(is_about_a_mark)).collect();
            if let ([form], true) = (meant.as_slice(), context.len() > 1) {
                form.iter().for_each(|error| faults_of(error, schema, faults));
            } else if let (true, Some((pointer, message))) = (meant.is_empty(), no_such_mark(context)) {
                faults.push(SchemaFault::new(pointer, message));
            } else {
                let message = missing_mark(context).unwrap_or_else(|| {
                    format!("{} has none of the forms that are possible here", shown(error))
                });
                faults.push(SchemaFault::new(pointer, message).mended_by(Mend::NoForm));
            }
        }
        ValidationErrorKind::OneOfMultipleValid { .. } => {
            let forms = holder(schema, error)["oneOf"].as_array();
            let needed = forms.into_iter().flatten().filter_map(|form| form["required"][0].as_str());
            let needed: Vec<String> = needed.map(|name| format!("`{name}`")).collect();
            let message = match needed.is_empty() {
                true => format!("{} has several of the forms of which it can have one", shown(error)),
                false => format!("{} exclude each other", needed.join(" and ")),
            };
            faults.push(SchemaFault::new(pointer, message));
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let known = known_keys(schema, error);
            for name in unexpected {
                let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                let meant = meant(name, &known, &KEYS_ELSEWHERE);
                let message = format!("there is no such key{}", in_words_of(&meant));
                let mend = Mend::Stray { meant: meant.into_iter().next() };
                faults.push(SchemaFault::new(pointer, message).mended_by(mend));
            }
        }
        ValidationErrorKind::Required { property: Value::String(name) } => {
            let wanted = &holder(schema, error)["properties"][name.as_str()];
            let mend = Mend::Missing { name: name.clone(), blank: blank_or_first(wanted) };
            faults.push(SchemaFault::new(pointer, format!("needs `{name}`")).mended_by(mend));
        }
        ValidationErrorKind::Enum { options } => {
            let words: Vec<String> = options.as_array().into_iter().flatten().filter_map(text_of).collect();
            let meant = error.instance().as_str().map(|given| meant(given, &words, &TYPES_ELSEWHERE));
            let options = in_words(options.as_array().into_iter().flatten());
            let like = in_words_of(&meant.unwrap_or_default());
            let message = format!("{} is none of {options}{like}", shown(error));
            faults.push(SchemaFault::new(pointer, message).mended_by(Mend::Other { blank: None }));
        }
        ValidationErrorKind::PropertyNames { error: of_name } => {
            let name = of_name.instance().as_str().unwrap_or_default().replace('~', "~0").replace('/', "~1");
            let message = of_name.masked_with(shown(of_name)).to_string();
            faults.push(SchemaFault::new(format!("{pointer}/{name}"), message));
        }
        kind => {
            let fault = SchemaFault::new(pointer, in_plain_words(error));
            faults.push(match kind {
                ValidationErrorKind::Type { .. } => {
                    let blank = blank(&holder(schema, error)["type"]);
                    fault.mended_by(Mend::Other { blank })
                }
                ValidationErrorKind::Minimum { .. } | ValidationErrorKind::Maximum { .. } => {
                    fault.mended_by(Mend::Limit)
                }
                _ => fault,
            });
        }
    }
}

/// What is like a word, or what it is called here where it has another name elsewhere.
fn meant(given: &str, known: &[String], elsewhere: &[(&str, &str)]) -> Vec<String> {
    let is_known = |name: &str| known.iter().any(|one| one == name);
    match elsewhere.iter().find(|(other, ours)| *other == given && is_known(ours)) {
        Some((_, ours)) => vec![(*ours).to_owned()],
        None => suggestions(given, known.iter().map(String::as_str)),
    }
}

fn text_of(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// What the library says of a fault; of a text of another type than it should have, that it is one: `"object" is not of type
/// "object"` would be a riddle.
fn in_plain_words(error: &ValidationError<'_>) -> String {
    let message = error.masked_with(shown(error)).to_string();
    let is_type = matches!(error.kind(), ValidationErrorKind::Type { .. });
    // A long one is not shown.
    let is_shown_text = error.instance().is_string() && message.starts_with('"');
    if is_type && is_shown_text { format!("the text {message}") } else { message }
}

/// The emptiest value of the types that a schema names.
fn blank(wanted: &Value) -> Option<Value> {
    let is_wanted =
        |name: &str| wanted == name || wanted.as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let blanks = [
        ("string", Value::from("")),
        ("object", Value::Object(Map::new())),
        ("array", Value::from(Vec::<Value>::new())),
    ];
    blanks.into_iter().find(|(name, _)| is_wanted(name)).map(|(_, blank)| blank)
}

/// [`blank`], or the first value of several that are possible.
fn blank_or_first(wanted: &Value) -> Value {
    let number = || (wanted["type"] == "integer").then(|| Value::from(0));
    blank(&wanted["type"]).or_else(number).unwrap_or_else(|| wanted["enum"][0].clone())
}

/// The keys that there are where a fault is of one that there is not.
fn known_keys(schema: &Value, error: &ValidationError<'_>) -> Vec<String> {
    let properties = holder(schema, error)["properties"].as_object();
    properties.into_iter().flat_map(|all| all.keys().cloned()).collect()
}

/// The part of the schema that refuses a value.
fn holder<'a>(schema: &'a Value, error: &ValidationError<'_>) -> &'a Value {
    let mut at = schema;
    let mut steps: Vec<&str> = error.schema_path().as_str().split('/').skip(1).collect();
    steps.pop();
    for step in steps {
        let step = step.replace("~1", "/").replace("~0", "~");
        let next = match (step.as_str(), at) {
            ("$ref", at) => at["$ref"].as_str().and_then(|to| schema.pointer(to.strip_prefix('#')?)),
            (index, Value::Array(items)) => index.parse().ok().and_then(|index: usize| items.get(index)),
            (key, at) => at.get(key),
        };
        let Some(next) = next else { return &Value::Null };
        at = next;
    }
    at
}

/// The value it is about, or a word for one that is long.
fn shown(error: &ValidationError<'_>) -> String {
    let value = error.instance().to_string();
    if value.len() > VALUE_BYTES_MAX { "it".to_owned() } else { value }
}

fn in_words(values: impl IntoIterator<Item = impl ToString>) -> String {
    values.into_iter().map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
}

/// Whether it is about a key with one possible value, which tells the forms of a value apart.
fn is_about_a_mark(error: &ValidationError<'_>) -> bool {
    matches!(error.kind(), ValidationErrorKind::Constant { .. })
}

/// A key that is not there: one that every form needs, or one of several, where forms differ in nothing else.
fn missing_mark(context: &[Vec<ValidationError<'_>>]) -> Option<String> {
    fn needed<'a>(error: &'a ValidationError<'_>) -> Option<&'a str> {
        match error.kind() {
            ValidationErrorKind::Required { property } => property.as_str(),
            _ => None,
        }
    }
    let by_all =
        |name: &&str| context.iter().all(|form| form.iter().filter_map(needed).any(|other| other == *name));
    if let Some(name) = context.first()?.iter().filter_map(needed).find(by_all) {
        return Some(format!("needs `{name}`"));
    }
    let one_each = context.iter().map(|form| match form.as_slice() {
        [error] => needed(error).map(|name| format!("`{name}`")),
        _ => None,
    });
    Some(format!("needs {}", one_each.collect::<Option<Vec<_>>>()?.join(" or ")))
}

/// Where no form has the mark that is there: the place of the mark, and what it may be.
fn no_such_mark(context: &[Vec<ValidationError<'_>>]) -> Option<(String, String)> {
    let mut marks = context.iter().flatten().filter(|error| is_about_a_mark(error)).map(|error| {
        let ValidationErrorKind::Constant { expected_value } = error.kind() else { return None };
        Some((error.instance_path().to_string(), error.instance().to_string(), expected_value.to_string()))
    });
    let (pointer, found, first) = marks.next()??;
    let mut expected = vec![first];
    for mark in marks {
        let (other, _, value) = mark?;
        if other != pointer {
            return None;
        }
        expected.push(value);
    }
    Some((pointer, format!("{found} is none of {}", in_words(expected))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SCHEMA: &str = r#"{"type": "object", "additionalProperties": {"type": "integer"}}"#;

    fn messages(document: &Value) -> Vec<String> {
        let document = Placed::parse(&document.to_string()).expect("a document");
        gather(&[], Some(&document), SCHEMA, "x.schema").into_iter().map(|found| found.message).collect()
    }

    #[test]
    fn one_thing_that_schema_and_parser_see_is_told_once() {
        let first = |key: &str, mended: bool| {
            let finding = Finding {
                code: "x".to_owned(),
                message: "the parser's words".to_owned(),
                next_step: String::new(),
                file: None,
                place: None,
            };
            First { finding: Box::new(finding), key: Some(key.to_owned()), alone: false, mended }
        };
        for (parser, mended, schema, mend, same) in [
            ("nodes.a", false, "nodes.a", None, true),
            ("nodes.a.map", false, "nodes.a", None, true),
            ("nodes.a", false, "nodes.a.map", None, true),
            ("nodes.a", false, "nodes.ab", None, false),
            ("nodes.a", false, "inputs.n", None, false),
            ("nodes.a", false, "", None, true),
            ("nodes.a", true, "nodes.a", None, true),
            ("nodes.a", true, "nodes.a", Some(Mend::Limit), true),
            ("nodes.a", true, "nodes.a", Some(Mend::Stray { meant: None }), false),
            ("nodes.a", true, "nodes", None, false),
        ] {
            let said = says_the_same(&first(parser, mended), schema, mend.as_ref());
            assert_eq!(said, same, "{parser} (mended: {mended}), {schema}, {mend:?}");
        }
    }

    #[test]
    fn of_values_by_name_the_form_is_told() {
        let schema = r#"{"type": "object", "properties": {"nodes": {"type": ["null", "object"]}, "name": {"type": "string"}}}"#;
        let document = Placed::parse("nodes: [a]\nname: {}\n").expect("a document");
        let found = gather(&[], Some(&document), schema, COMPOSITION_FAULT);
        let step = |key: &str| {
            let one = found.iter().find(|one| one.message.starts_with(key)).expect("told");
            one.next_step.clone()
        };
        assert!(step("nodes").starts_with("write calls by name, as in `nodes: {NAME: "), "{found:?}");
        assert!(step("name:").starts_with("correct it; "), "{found:?}");
    }

    #[test]
    fn what_is_called_otherwise_elsewhere_is_known() {
        let known = ["after", "args", "number"].map(str::to_owned);
        for (given, ours) in [("needs", "after"), ("arguments", "args"), ("afer", "after")] {
            assert_eq!(meant(given, &known, &KEYS_ELSEWHERE), [ours], "{given}");
        }
        assert_eq!(meant("integer", &known, &TYPES_ELSEWHERE), ["number"]);
        assert_eq!(
            meant("needs", &known[1..], &KEYS_ELSEWHERE),
            [""; 0],
            "it is nothing where ours is not known"
        );
    }

    #[test]
    fn a_value_is_shown_as_long_as_it_is_short_and_faults_are_listed_up_to_a_number() {
        let fits = "x".repeat(VALUE_BYTES_MAX - 2);
        let told = messages(&json!({"a": fits, "b": format!("{fits}x")}));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("a: ") && told[0].contains(&fits), "{told:?}");
        assert!(told[1].starts_with("b: it is"), "{told:?}");
        let many: serde_json::Map<String, Value> =
            (0..60).map(|n| (format!("key{n:02}"), json!("x"))).collect();
        let told = messages(&Value::Object(many));
        assert_eq!(told.len(), 51);
        assert_eq!(told[50], "10 more of this kind are not listed");
    }
}
