//! Binding: a template and what its references stand for become a value. A string that is one reference and
//! nothing else becomes the value itself; inside longer text the value is written out, text as it is and all
//! else as compact JSON. Paths look through the tags of typed results. Values pass as the text they came as: a path
//! opens the levels it goes through and no others, so that nothing is rounded and no depth is too deep.

use cjm_wire::composition::{PathStep, Reference, TextPart};
use cjm_wire::describe::Described;
use cjm_wire::json::{Arguments, Json, JsonKind, Piece};
use cjm_wire::result::{DATA_KEY, KIND_KEY};
use cjm_wire::template::Template;
use indexmap::IndexMap;

/// Most tags looked through at one place.
const TAG_DEPTH_MAX: usize = 8;
/// Most field names an error lists.
const FIELDS_SHOWN_MAX: usize = 12;

/// What references stand for.
pub trait Scope {
    /// The value of `inputs`, `item`, `index` or a node, or already what one of its elements is.
    fn value_of(&self, reference: &Reference) -> Found;
}

/// Answer of a [`Scope`].
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// This, with so many steps of the path already taken.
    Value(Json, usize),
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
    #[error("`map: {reference}` gave {found}, not a list")]
    NotAList {
        /// What `map` says.
        reference: String,
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
}

impl Described for BindError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "composition.bind.malformed",
            Self::Unknown { .. } => "composition.bind.unknown",
            Self::Path { .. } => "composition.bind.path",
            Self::NotAList { .. } => "composition.bind.not_a_list",
            Self::TooManyElements { .. } => "composition.bind.too_many_elements",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Malformed(_) => {
                "write references as `${node.field[0]}`, and `$${` for a plain `${`".to_owned()
            }
            Self::Unknown { root, .. } => format!("give `{root}` a value, or refer to something else"),
            Self::Path { reference, .. } => compare_step(reference).to_owned(),
            Self::NotAList { .. } => {
                "let `map` refer to a list, for example to a field of the result, or give the input a list"
                    .to_owned()
            }
            Self::TooManyElements { .. } => "split the list into several runs".to_owned(),
        }
    }
}

/// What to do where a reference leads nowhere, by what it begins with.
fn compare_step(reference: &str) -> &'static str {
    match reference.trim_start_matches("${").split(['.', '[', '}']).next() {
        Some("item") => "compare the reference with the elements of the list that `map` names",
        Some("inputs") => "compare the reference with what the input was given",
        _ => {
            "compare the reference with what the node returns: a `call` of its capability with the same arguments shows it"
        }
    }
}

/// Replaces every reference in `template` by what it stands for.
///
/// # Errors
/// The first reference that stands for nothing.
pub fn bind(template: &Json, scope: &dyn Scope) -> Result<Json, BindError> {
    bind_template(&Template::parse(template).map_err(BindError::Malformed)?, scope)
}

/// [`bind`] for a template that was read before.
pub(super) fn bind_template(template: &Template, scope: &dyn Scope) -> Result<Json, BindError> {
    bind_with(template, &|reference| resolve(reference, scope))
}

/// [`bind`] that goes on where a reference stands for nothing: it becomes null, and its error is kept.
pub(super) fn bind_leniently(template: &Json, scope: &dyn Scope) -> (Json, Vec<BindError>) {
    let template = match Template::parse(template) {
        Ok(template) => template,
        Err(message) => return (Json::null(), vec![BindError::Malformed(message)]),
    };
    let errors = std::cell::RefCell::new(Vec::new());
    let bound = bind_with(&template, &|reference| {
        Ok(resolve(reference, scope).unwrap_or_else(|error| {
            errors.borrow_mut().push(error);
            Json::null()
        }))
    });
    (bound.unwrap_or_default(), errors.into_inner())
}

/// The arguments of a call, read and bound as far as that is possible before an element is chosen: what does not
/// depend on the element is looked up once, however many elements there are.
#[derive(Debug, Clone)]
pub(super) struct Args(Vec<(String, Template)>);

impl Args {
    pub(super) fn prepare(args: &Arguments, scope: &dyn Scope) -> Result<Self, BindError> {
        args.iter()
            .map(|(key, template)| {
                let template = Template::parse(template).map_err(BindError::Malformed)?;
                Ok((key.clone(), known(template, scope)))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(super) fn bind(&self, scope: &dyn Scope) -> Result<Arguments, BindError> {
        self.0.iter().map(|(key, template)| Ok((key.clone(), bind_template(template, scope)?))).collect()
    }
}

/// Whole references that stand for something already; all else stays as it is, and fails where it must later.
fn known(template: Template, scope: &dyn Scope) -> Template {
    match template {
        Template::Reference(reference) => match resolve(&reference, scope) {
            Ok(value) => Template::Plain(value),
            Err(_) => Template::Reference(reference),
        },
        Template::List(items) => Template::List(items.into_iter().map(|item| known(item, scope)).collect()),
        Template::Object(fields) => {
            let fields = fields.into_iter();
            Template::Object(fields.map(|(key, value)| (key, known(value, scope))).collect())
        }
        Template::Plain(_) | Template::Text(_) => template,
    }
}

type Resolve<'a> = dyn Fn(&Reference) -> Result<Json, BindError> + 'a;

fn bind_with(template: &Template, resolve: &Resolve<'_>) -> Result<Json, BindError> {
    match template {
        Template::Plain(json) => Ok(json.clone()),
        Template::Reference(reference) => resolve(reference),
        Template::Text(parts) => {
            let values = parts
                .iter()
                .map(|part| match part {
                    TextPart::Text(_) => Ok(None),
                    TextPart::Reference(reference) => resolve(reference).map(Some),
                })
                .collect::<Result<Vec<_>, _>>()?;
            Ok(Json::text_of(parts.iter().zip(&values).filter_map(|(part, value)| match (part, value) {
                (_, Some(value)) => Some(Piece::Value(value)),
                (TextPart::Text(literal), None) => Some(Piece::Literal(literal)),
                (TextPart::Reference(_), None) => None,
            })))
        }
        Template::List(items) => {
            let items: Vec<Json> =
                items.iter().map(|item| bind_with(item, resolve)).collect::<Result<_, _>>()?;
            Ok(Json::list(&items))
        }
        Template::Object(fields) => {
            let fields: Vec<(&str, Json)> = fields
                .iter()
                .map(|(key, value)| Ok((key.as_str(), bind_with(value, resolve)?)))
                .collect::<Result<_, _>>()?;
            Ok(Json::object(fields.iter().map(|(key, value)| (*key, value))))
        }
    }
}

fn resolve(reference: &Reference, scope: &dyn Scope) -> Result<Json, BindError> {
    let (mut at, taken) = match scope.value_of(reference) {
        Found::Value(value, taken) => (value, taken),
        Found::Null => return Ok(Json::null()),
        Found::Unknown => {
            return Err(BindError::Unknown {
                reference: reference.to_string(),
                root: reference.root.clone(),
            });
        }
    };
    for (done, step) in reference.path.iter().enumerate().skip(taken) {
        let inner = look_through(&at);
        at = take(&at, &inner, step).ok_or_else(|| BindError::Path {
            reference: reference.to_string(),
            problem: problem(reference, done, &inner, step),
        })?;
    }
    Ok(at)
}

/// One step. A tag's own two keys can be reached where the value inside has no such field.
fn take(at: &Json, inner: &Json, step: &PathStep) -> Option<Json> {
    let field = |value: &Json, name: &str| value.fields()?.swap_remove(name);
    match step {
        PathStep::Field(name) => field(inner, name).or_else(|| field(at, name)),
        PathStep::Index(index) => inner.items()?.into_iter().nth(*index),
    }
}

/// The value inside the tags of a typed result.
pub(super) fn look_through(value: &Json) -> Json {
    let mut inner = value.clone();
    for _ in 0..TAG_DEPTH_MAX {
        match untagged(&inner) {
            Some(data) => inner = data,
            None => break,
        }
    }
    inner
}

/// As `cjm_wire::result::untag`, on text.
fn untagged(value: &Json) -> Option<Json> {
    // Most values have no tag, and are not opened to find that out.
    let tagged = value.kind() == JsonKind::Object && value.text().contains(KIND_KEY);
    let mut fields: IndexMap<String, Json> = if tagged { value.fields()? } else { return None };
    if fields.len() != 2 || fields.get(KIND_KEY)?.kind() != JsonKind::Text {
        return None;
    }
    fields.swap_remove(DATA_KEY)
}

fn problem(reference: &Reference, done: usize, inner: &Json, step: &PathStep) -> String {
    let before = Reference { root: reference.root.clone(), path: reference.path[..done].to_vec() };
    let before = before.to_string();
    let before = before.trim_start_matches("${").trim_end_matches('}');
    match (inner.kind(), step) {
        (JsonKind::Object, PathStep::Field(name)) => {
            let Some(fields) = inner.fields() else {
                return format!("`{before}` has a key that cannot be read (a lone surrogate)");
            };
            let shown: Vec<&str> = fields.keys().take(FIELDS_SHOWN_MAX).map(String::as_str).collect();
            let more = if fields.len() > FIELDS_SHOWN_MAX { ", …" } else { "" };
            format!("`{before}` has no field `{name}` (it has: {}{more})", shown.join(", "))
        }
        (JsonKind::List, PathStep::Index(index)) => {
            let elements = inner.items().map_or(0, |items| items.len());
            let elements =
                if elements == 1 { "1 element".to_owned() } else { format!("{elements} elements") };
            format!("`{before}` has {elements}, so there is no [{index}]")
        }
        (_, PathStep::Field(name)) => {
            format!("`{before}` is {}, which has no field `{name}`", kind(inner))
        }
        (_, PathStep::Index(index)) => format!("`{before}` is {}, which has no [{index}]", kind(inner)),
    }
}

/// What a value is, for people.
pub(super) fn kind(value: &Json) -> &'static str {
    match value.kind() {
        JsonKind::Null => "null",
        JsonKind::Boolean => "a boolean",
        JsonKind::Number => "a number",
        JsonKind::Text => "text",
        JsonKind::List => "a list",
        JsonKind::Object => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    struct Table(Value);

    impl Scope for Table {
        fn value_of(&self, reference: &Reference) -> Found {
            match self.0.get(&reference.root) {
                Some(_) if reference.root == "absent" => Found::Null,
                Some(value) => Found::Value(Json::from(value), 0),
                None if reference.root == "index" => Found::Value(Json::of(7), 0),
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
        let template = Json::from(template);
        let found = bind(&template, &scope).map_err(|error| error.to_string());
        assert_eq!(found, expected.map(Json::from).map_err(str::to_owned), "{template}");
        // In two steps, as the arguments of a mapped node are bound.
        let args = Args::prepare(&Arguments::from([("x".to_owned(), template.clone())]), &scope);
        let bound = args.and_then(|args| args.bind(&scope)).map(|mut args| args.swap_remove("x"));
        assert_eq!(bound.map_err(|error| error.to_string()), found.map(Some), "{template}");
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
    fn where_a_reference_leads_nowhere_its_step_says_what_to_compare_it_with() {
        let scope = Table(json!({"inputs": {"n": 3}, "item": {"k": 1}, "plain": {"text": "hi"}}));
        for (template, words) in [
            ("${item.x}", "with the elements of the list that `map` names"),
            ("${inputs.n.x}", "with what the input was given"),
            ("${plain.x}", "with what the node returns"),
        ] {
            let error = bind(&Json::from(json!(template)), &scope).expect_err(template);
            assert!(error.next_step().contains(words), "{template}: {}", error.next_step());
        }
    }

    #[test]
    fn what_a_parsed_value_cannot_hold_is_bound_unchanged() {
        struct One(Json);
        impl Scope for One {
            fn value_of(&self, _: &Reference) -> Found {
                Found::Value(self.0.clone(), 0)
            }
        }
        let deep = format!("{}18446744073709551616{}", "[".repeat(5_000), "]".repeat(5_000));
        for text in ["18446744073709551616", "1e400", r#""\udc00""#, &deep] {
            let value = Json::parse(&format!("{{\"v\":{{\"__wire__\":\"t\",\"data\":[{text}]}}}}"));
            let scope = One(value.expect(text));
            let bound = |template: Value| bind(&Json::from(template), &scope).expect(text);
            assert_eq!(bound(json!("${a.v[0]}")).text(), text);
            assert_eq!(bound(json!({"x": ["${a.v[0]}"]})).text(), format!("{{\"x\":[{text}]}}"));
            assert_eq!(
                bound(json!("v=${a.v[0]}")).text(),
                format!("\"v={}\"", text.trim_matches('"')),
                "a string is spliced in as it is escaped"
            );
        }
    }

    #[test]
    fn a_lenient_binding_keeps_what_is_there() {
        let scope = Table(json!({"good": {"x": 1}}));
        let template = json!({"a": "${good.x}", "b": "${good.y}", "c": ["${nobody}"], "d": "see ${good.z}"});
        let (bound, errors) = bind_leniently(&Json::from(template), &scope);
        assert_eq!(bound, Json::from(json!({"a": 1, "b": null, "c": [null], "d": "see null"})));
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 3);
        assert_eq!(errors[0], "`${good.y}`: `good` has no field `y` (it has: x)");
    }

    proptest::proptest! {
        /// What a reference takes out of a value is what stood there, whatever it was.
        #[test]
        fn what_is_put_in_comes_out(
            number in "-?[1-9][0-9]{0,60}(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,6})?",
            text in proptest::prelude::any::<String>(),
            levels in 0_usize..600,
            steps in proptest::collection::vec((0_usize..3, "[a-z_]{1,6}"), 0..6),
        ) {
            struct One(Json);
            impl Scope for One {
                fn value_of(&self, _: &Reference) -> Found {
                    Found::Value(self.0.clone(), 0)
                }
            }
            let inner = format!("{{\"n\":{number},\"t\":{}}}", Value::from(text));
            let core = format!("{}{inner}{}", "[".repeat(levels), "]".repeat(levels));
            let (mut value, mut path) = (core.clone(), String::new());
            for (kind, name) in &steps {
                value = match kind {
                    0 => format!("[null, {value}]"),
                    1 => format!("{{\"{name}\":{value}}}"),
                    _ => format!("{{\"__wire__\":\"k\",\"data\":[{value}]}}"),
                };
                path = match kind {
                    0 => format!("[1]{path}"),
                    1 => format!(".{name}{path}"),
                    _ => format!("[0]{path}"),
                };
            }
            let scope = One(Json::parse(&value).expect("JSON"));
            let bound = bind(&Json::of(format!("${{a{path}}}")), &scope).expect("it is there");
            proptest::prop_assert_eq!(bound.text(), core);
        }
    }
}
