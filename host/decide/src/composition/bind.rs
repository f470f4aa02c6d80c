//! Binding: a template and what its references stand for become a value. A string that is one reference and
//! nothing else becomes the value itself; inside longer text the value is written out, text as it is and all
//! else as compact JSON. Paths look through the tags of typed results.

use cjm_wire::composition::{PathStep, Reference, TextPart, parse_text};
use cjm_wire::describe::Described;
use cjm_wire::result::untag;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Deepest nesting of a template.
pub const BIND_DEPTH_MAX: usize = 128;
/// Most tags looked through at one place.
const TAG_DEPTH_MAX: usize = 8;
/// Most field names an error lists.
const FIELDS_SHOWN_MAX: usize = 12;

/// What the roots of references stand for.
pub trait Scope {
    /// The value of `inputs`, `item`, `index` or a node.
    fn value_of(&self, root: &str) -> Found<'_>;
}

/// Answer of a [`Scope`].
#[derive(Debug, Clone, PartialEq)]
pub enum Found<'a> {
    /// This.
    Value(Cow<'a, Value>),
    /// Known, and has no value: the whole reference is null.
    Null,
    /// Not known here.
    Unknown,
}

/// Why a template cannot be bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// A reference that does not parse.
    #[error("{0}")]
    Malformed(String),
    /// Its root has no value here.
    #[error("`{reference}`: `{root}` has no value here")]
    Unknown {
        /// The reference.
        reference: String,
        /// Its root.
        root: String,
    },
    /// A step finds nothing.
    #[error("`{reference}`: {problem}")]
    Path {
        /// The reference.
        reference: String,
        /// Where it ends.
        problem: String,
    },
    /// `map` did not give a list.
    #[error("`map` gave {found}, not a list")]
    NotAList {
        /// What it gave.
        found: &'static str,
    },
    /// Too many elements.
    #[error("`map` gave a list of {elements}, more than the {max} allowed")]
    TooManyElements {
        /// How many.
        elements: usize,
        /// The limit.
        max: usize,
    },
    /// Nested beyond [`BIND_DEPTH_MAX`].
    #[error("nested deeper than {BIND_DEPTH_MAX} levels")]
    TooDeep,
}

impl Described for BindError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "composition.bind.malformed",
            Self::Unknown { .. } => "composition.bind.unknown",
            Self::Path { .. } => "composition.bind.path",
            Self::NotAList { .. } => "composition.bind.not_a_list",
            Self::TooManyElements { .. } => "composition.bind.too_many_elements",
            Self::TooDeep => "composition.bind.too_deep",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Malformed(_) => {
                "write references as `${node.field[0]}`, and `$${` for a plain `${`".to_owned()
            }
            Self::Unknown { root, .. } => format!("give `{root}` a value, or refer to something else"),
            Self::Path { .. } => {
                "compare the reference with what the node really returned (see its job's result)".to_owned()
            }
            Self::NotAList { .. } => {
                "let `map` refer to a list, for example to a field of the result".to_owned()
            }
            Self::TooManyElements { .. } => "split the list into several runs".to_owned(),
            Self::TooDeep => "flatten the arguments".to_owned(),
        }
    }
}

/// Replaces every reference in `template` by what it stands for.
///
/// # Errors
/// The first reference that stands for nothing.
pub fn bind(template: &Value, scope: &dyn Scope) -> Result<Value, BindError> {
    bind_at(template, scope, 0)
}

/// Like [`bind`], for the arguments of a call.
pub(super) fn bind_args(
    args: &Map<String, Value>,
    scope: &dyn Scope,
) -> Result<Map<String, Value>, BindError> {
    args.iter().map(|(key, template)| Ok((key.clone(), bind_at(template, scope, 1)?))).collect()
}

fn bind_at(template: &Value, scope: &dyn Scope, depth: usize) -> Result<Value, BindError> {
    if depth > BIND_DEPTH_MAX {
        return Err(BindError::TooDeep);
    }
    match template {
        Value::String(text) => bind_text(text, scope),
        Value::Array(items) => items
            .iter()
            .map(|item| bind_at(item, scope, depth + 1))
            .collect::<Result<_, _>>()
            .map(Value::Array),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| Ok((key.clone(), bind_at(value, scope, depth + 1)?)))
            .collect::<Result<_, _>>()
            .map(Value::Object),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(template.clone()),
    }
}

fn bind_text(text: &str, scope: &dyn Scope) -> Result<Value, BindError> {
    if !text.contains("${") {
        return Ok(Value::from(text));
    }
    let parts = parse_text(text).map_err(BindError::Malformed)?;
    if let [TextPart::Reference(reference)] = parts.as_slice() {
        return resolve(reference, scope).map(Cow::into_owned);
    }
    let mut bound = String::with_capacity(text.len());
    for part in parts {
        match part {
            TextPart::Text(literal) => bound.push_str(&literal),
            TextPart::Reference(reference) => match resolve(&reference, scope)?.as_ref() {
                Value::String(value) => bound.push_str(value),
                other => bound.push_str(&other.to_string()),
            },
        }
    }
    Ok(Value::String(bound))
}

fn resolve<'a>(reference: &Reference, scope: &'a dyn Scope) -> Result<Cow<'a, Value>, BindError> {
    let root = match scope.value_of(&reference.root) {
        Found::Value(root) => root,
        Found::Null => return Ok(Cow::Owned(Value::Null)),
        Found::Unknown => {
            return Err(BindError::Unknown {
                reference: reference.to_string(),
                root: reference.root.clone(),
            });
        }
    };
    match root {
        Cow::Borrowed(value) => walk(reference, value).map(Cow::Borrowed),
        Cow::Owned(value) => walk(reference, &value).cloned().map(Cow::Owned),
    }
}

fn walk<'a>(reference: &Reference, root: &'a Value) -> Result<&'a Value, BindError> {
    let mut at = root;
    for (done, step) in reference.path.iter().enumerate() {
        at = take(at, step).ok_or_else(|| BindError::Path {
            reference: reference.to_string(),
            problem: problem(reference, done, at, step),
        })?;
    }
    Ok(at)
}

/// One step. A tag's own two keys can be reached where the value inside has no such field.
fn take<'a>(at: &'a Value, step: &PathStep) -> Option<&'a Value> {
    let inner = look_through(at);
    match step {
        PathStep::Field(name) => inner.get(name.as_str()).or_else(|| at.get(name.as_str())),
        PathStep::Index(index) => inner.get(*index),
    }
}

/// The value inside the tags of a typed result.
pub(super) fn look_through(value: &Value) -> &Value {
    let mut inner = value;
    for _ in 0..TAG_DEPTH_MAX {
        match untag(inner) {
            Some((_, data)) => inner = data,
            None => break,
        }
    }
    inner
}

fn problem(reference: &Reference, done: usize, at: &Value, step: &PathStep) -> String {
    let before = Reference { root: reference.root.clone(), path: reference.path[..done].to_vec() };
    let before = before.to_string();
    let before = before.trim_start_matches("${").trim_end_matches('}');
    match (look_through(at), step) {
        (Value::Object(map), PathStep::Field(name)) => {
            let fields: Vec<&str> = map.keys().take(FIELDS_SHOWN_MAX).map(String::as_str).collect();
            let more = if map.len() > FIELDS_SHOWN_MAX { ", …" } else { "" };
            format!("`{before}` has no field `{name}` (it has: {}{more})", fields.join(", "))
        }
        (Value::Array(items), PathStep::Index(index)) => {
            format!("`{before}` has {} elements, so there is no [{index}]", items.len())
        }
        (other, PathStep::Field(name)) => {
            format!("`{before}` is {}, which has no field `{name}`", kind(other))
        }
        (other, PathStep::Index(index)) => format!("`{before}` is {}, which has no [{index}]", kind(other)),
    }
}

/// What a value is, for people.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Table(Value);

    impl Scope for Table {
        fn value_of(&self, root: &str) -> Found<'_> {
            match self.0.get(root) {
                Some(_) if root == "absent" => Found::Null,
                Some(value) => Found::Value(Cow::Borrowed(value)),
                None if root == "index" => Found::Value(Cow::Owned(json!(7))),
                None => Found::Unknown,
            }
        }
    }

    fn check(template: &Value, expected: Result<Value, &str>) {
        let scope = Table(json!({
            "inputs": {"path": "/a b", "n": 3},
            "plain": {"text": "hi", "list": [1, {"x": null}], "data": 5},
            "typed": {"__wire__": "t", "data": {"text": "in", "deep": {"__wire__": "u", "data": [10, 20]}}},
            "odd": {"__wire__": "t", "data": "bare"},
            "absent": 1,
        }));
        let found = bind(template, &scope).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{template}");
    }

    #[test]
    fn references_become_values_or_named_problems() {
        for (template, expected) in [
            (json!("plain"), Ok(json!("plain"))),
            (
                json!({"a": [1, true, null, "${plain.list}"]}),
                Ok(json!({"a": [1, true, null, [1, {"x": null}]]})),
            ),
            (json!("${inputs.n}"), Ok(json!(3))),
            (json!("n=${inputs.n}, ${plain.list[1]}, ${plain.text}"), Ok(json!("n=3, {\"x\":null}, hi"))),
            (json!("${index}"), Ok(json!(7))),
            (json!("no. ${index}"), Ok(json!("no. 7"))),
            (json!("$${plain} ${plain.data}"), Ok(json!("${plain} 5"))),
            (json!("$${plain}"), Ok(json!("${plain}"))),
            (json!("${typed.text}"), Ok(json!("in"))),
            (json!("${typed.deep[1]}"), Ok(json!(20))),
            (json!("${odd.data}"), Ok(json!("bare"))),
            (json!("${odd}"), Ok(json!({"__wire__": "t", "data": "bare"}))),
            (json!("${absent.x.y}"), Ok(Value::Null)),
            (json!(["${nobody.x}"]), Err("`${nobody.x}`: `nobody` has no value here")),
            (
                json!("${plain.wrong}"),
                Err("`${plain.wrong}`: `plain` has no field `wrong` (it has: text, list, data)"),
            ),
            (
                json!("${plain.list[2]}"),
                Err("`${plain.list[2]}`: `plain.list` has 2 elements, so there is no [2]"),
            ),
            (
                json!("${plain.text.x}"),
                Err("`${plain.text.x}`: `plain.text` is text, which has no field `x`"),
            ),
            (json!("${plain[0]}"), Err("`${plain[0]}`: `plain` is an object, which has no [0]")),
            (json!("${plain"), Err("a `${` without its `}` in \"${plain\"")),
        ] {
            check(&template, expected);
        }
    }

    #[test]
    fn nesting_has_a_maximum() {
        let mut template = json!("x");
        for _ in 0..=BIND_DEPTH_MAX {
            template = json!([template]);
        }
        check(&template, Err("nested deeper than 128 levels"));
    }
}
