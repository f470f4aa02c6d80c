//! The composition document: a DAG of calls whose arguments bind to outputs when they run. This is the file users
//! write and the object programs submit; binding and scheduling are `decide`'s.
//!
//! A string in `args`, `map` or `output` may hold references: `${inputs.NAME}`, `${NODE}`, `${NODE.field[0].x}`,
//! and inside a mapped node `${item}`, `${item.field}` and `${index}`. A string that is one reference and nothing
//! else becomes the value itself, of any type; inside longer text the value is written out. `$${` is a plain `${`.

use crate::describe::Described;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// Most nodes of one composition.
pub const NODES_MAX: usize = 10_000;
/// Most elements one mapped node may run over.
pub const MAP_ELEMENTS_MAX: usize = 100_000;
/// Largest composition file, in bytes.
pub const COMPOSITION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Node names that would hide something else.
pub const RESERVED_NODE_NAMES: [&str; 3] = ["inputs", "item", "index"];

/// A composition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Composition {
    /// For people and journal.
    pub name: String,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Values given when it is run (`key=value`).
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub inputs: IndexMap<String, Input>,
    /// What a failed node means for the others.
    #[serde(default)]
    pub failure: FailurePolicy,
    /// Loaded for the time of the run, watches what each step uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
    /// Capabilities to load in more than one instance, and their configurations.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub capabilities: IndexMap<String, CapabilityUse>,
    /// The calls, by node name.
    pub nodes: IndexMap<String, Node>,
    /// What the whole returns: a template; all nodes' outputs when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

/// A value the composition is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// What it is.
    #[serde(default, rename = "type")]
    pub kind: InputKind,
    /// Used when it is not given; without one it must be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// Types of inputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputKind {
    /// Any JSON value; text that is not JSON is a string.
    #[default]
    Any,
    /// Text as it is.
    String,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One file, made absolute; must exist.
    File,
    /// A list of files: a list of paths, one path, a directory, or a pattern with `*`; sorted by name, absolute.
    Files,
    /// One path, made absolute; need not exist.
    Path,
}

/// How a capability is loaded for a composition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapabilityUse {
    /// How many instances to load; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Configuration of every instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
}

/// What a failed node means for the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// Pending nodes are cancelled, running ones finish.
    #[default]
    FailFast,
    /// Only what depends on the failed node is skipped.
    BestEffort,
}

/// One call, or one call per element of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Capability by name, or one instance by id.
    pub capability: String,
    /// Action of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Task of an adapter, with `method`, instead of an action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Method of the adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Template that gives a list: the node runs once per element, its output is the list of results, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<Value>,
    /// Named arguments; references bind when the node runs.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub args: serde_json::Map<String, Value>,
    /// Nodes that must complete first though nothing of them is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Higher runs first; 0 inherits the composition's.
    #[serde(default)]
    pub priority: i32,
}

/// One step of a reference's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathStep {
    /// `.name`
    Field(String),
    /// `[3]`
    Index(usize),
}

/// One reference, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `inputs`, `item`, `index`, or a node.
    pub root: String,
    /// What to take of it.
    pub path: Vec<PathStep>,
}

/// One part of a template string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextPart {
    /// As it is.
    Text(String),
    /// `${…}`
    Reference(Reference),
}

/// Why a composition is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompositionError {
    /// Not YAML of this shape; the message carries line and column.
    #[error("{0}")]
    Malformed(String),
    /// A rule beyond the types is broken.
    #[error("{place}: {message}")]
    Invalid {
        /// Dotted path.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// Above [`COMPOSITION_BYTES_MAX`].
    #[error("{0} bytes long, more than the {COMPOSITION_BYTES_MAX} allowed")]
    TooLarge(usize),
}

impl Described for CompositionError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "composition.malformed",
            Self::Invalid { .. } => "composition.invalid",
            Self::TooLarge(_) => "composition.too_large",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Malformed(_) => "correct the file where the message points".to_owned(),
            Self::Invalid { place, .. } => format!("correct `{place}`"),
            Self::TooLarge(_) => "pass bulky data as files".to_owned(),
        }
    }
}

impl Composition {
    /// Reads a composition from YAML (or JSON, which is YAML) and checks everything that can be known without
    /// running it, but for cycles and unknown nodes, which belong to the graph (`decide`).
    ///
    /// # Errors
    /// The first fault found, with its place.
    pub fn parse(text: &str) -> Result<Self, CompositionError> {
        if text.len() > COMPOSITION_BYTES_MAX {
            return Err(CompositionError::TooLarge(text.len()));
        }
        let composition: Self =
            serde_saphyr::from_str(text).map_err(|error| CompositionError::Malformed(error.to_string()))?;
        composition.check()?;
        Ok(composition)
    }

    /// The checks of [`Self::parse`], for a composition made by a program.
    ///
    /// # Errors
    /// The first fault found, with its place.
    pub fn check(&self) -> Result<(), CompositionError> {
        let invalid = |place: String, message: String| Err(CompositionError::Invalid { place, message });
        if self.nodes.len() > NODES_MAX {
            return invalid("nodes".into(), format!("{} nodes, more than {NODES_MAX}", self.nodes.len()));
        }
        for (name, node) in &self.nodes {
            let place = format!("nodes.{name}");
            if RESERVED_NODE_NAMES.contains(&name.as_str()) || !is_name(name) {
                return invalid(
                    place,
                    "a node's name is letters, digits, `-` and `_`, and not `inputs`, `item` or `index`"
                        .into(),
                );
            }
            if node.task.is_some() != node.method.is_some() {
                return invalid(place, "`task` and `method` go together".into());
            }
            if node.task.is_some() && node.action.is_some() {
                return invalid(place, "`action` and `task` exclude each other".into());
            }
            let mut references = Vec::new();
            let args = Value::Object(node.args.clone());
            for (key, template) in [("map", node.map.as_ref()), ("args", Some(&args))] {
                let Some(template) = template else { continue };
                references.clear();
                collect_references(template, &mut references).map_err(|message| {
                    CompositionError::Invalid { place: format!("{place}.{key}"), message }
                })?;
                let element_allowed = key == "args" && node.map.is_some();
                if let Some(stray) =
                    references.iter().find(|r| !element_allowed && (r.root == "item" || r.root == "index"))
                {
                    return invalid(
                        format!("{place}.{key}"),
                        format!("`${{{}}}` exists only in the args of a node with `map`", stray.root),
                    );
                }
                self.check_inputs(&place, key, &references)?;
            }
        }
        if let Some(output) = &self.output {
            let mut references = Vec::new();
            collect_references(output, &mut references)
                .map_err(|message| CompositionError::Invalid { place: "output".into(), message })?;
            self.check_inputs("output", "", &references)?;
        }
        Ok(())
    }

    fn check_inputs(&self, place: &str, key: &str, references: &[Reference]) -> Result<(), CompositionError> {
        for reference in references.iter().filter(|r| r.root == "inputs") {
            let known = matches!(reference.path.first(), Some(PathStep::Field(name)) if self.inputs.contains_key(name));
            if !known {
                let place = if key.is_empty() { place.to_owned() } else { format!("{place}.{key}") };
                return Err(CompositionError::Invalid {
                    place,
                    message: format!("`{reference}` is not declared under `inputs`"),
                });
            }
        }
        Ok(())
    }
}

/// All references in a template, in order.
///
/// # Errors
/// What is wrong with the first malformed one.
pub fn collect_references(template: &Value, into: &mut Vec<Reference>) -> Result<(), String> {
    match template {
        Value::String(text) => {
            into.extend(parse_text(text)?.into_iter().filter_map(|part| match part {
                TextPart::Reference(reference) => Some(reference),
                TextPart::Text(_) => None,
            }));
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(|item| collect_references(item, into)),
        Value::Object(map) => map.values().try_for_each(|value| collect_references(value, into)),
        _ => Ok(()),
    }
}

/// Splits a string into text and references.
///
/// # Errors
/// What is wrong with the first malformed reference.
pub fn parse_text(text: &str) -> Result<Vec<TextPart>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            literal.push_str(&rest[..at - 1]);
            literal.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        literal.push_str(&rest[..at]);
        let after = &rest[at + 2..];
        let end = after.find('}').ok_or_else(|| format!("a `${{` without its `}}` in \"{text}\""))?;
        if !literal.is_empty() {
            parts.push(TextPart::Text(std::mem::take(&mut literal)));
        }
        parts.push(TextPart::Reference(parse_reference(&after[..end])?));
        rest = &after[end + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() || parts.is_empty() {
        parts.push(TextPart::Text(literal));
    }
    Ok(parts)
}

/// Reads the inside of `${…}`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_reference(inside: &str) -> Result<Reference, String> {
    let wrong = || format!("`${{{inside}}}` is no reference (write `${{node.field[0]}}`)");
    let inside_trimmed = inside.trim();
    let root_end = inside_trimmed.find(['.', '[']).unwrap_or(inside_trimmed.len());
    let root = &inside_trimmed[..root_end];
    if !is_name(root) {
        return Err(wrong());
    }
    let mut path = Vec::new();
    let mut rest = &inside_trimmed[root_end..];
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = after.find(']').ok_or_else(wrong)?;
            path.push(PathStep::Index(after[..end].parse().map_err(|_| wrong())?));
            rest = &after[end + 1..];
        } else {
            let after = rest.strip_prefix('.').ok_or_else(wrong)?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            if end == 0 {
                return Err(wrong());
            }
            path.push(PathStep::Field(after[..end].to_owned()));
            rest = &after[end..];
        }
    }
    Ok(Reference { root: root.to_owned(), path })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${{{}", self.root)?;
        for step in &self.path {
            match step {
                PathStep::Field(name) => write!(f, ".{name}")?,
                PathStep::Index(index) => write!(f, "[{index}]")?,
            }
        }
        f.write_str("}")
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_parse_and_print_back() {
        for text in ["${a}", "${a.b}", "${a[0].b-c[12]}", "${inputs.x}"] {
            let parts = parse_text(text).expect(text);
            let [TextPart::Reference(reference)] = parts.as_slice() else {
                panic!("{text} is one reference")
            };
            assert_eq!(reference.to_string(), text);
        }
        for text in ["${", "${}", "${a..b}", "${a[x]}", "${a[1}", "${a b}", "${.a}"] {
            assert!(parse_text(text).is_err(), "{text}");
        }
        assert_eq!(parse_text("cost $${x} now").expect("escaped"), [TextPart::Text("cost ${x} now".into())]);
        assert_eq!(parse_text("").expect("empty"), [TextPart::Text(String::new())]);
    }

    #[test]
    fn faults_carry_their_place() {
        let base = "name: t\ninputs: {n: {type: number}}\nnodes:\n";
        for (nodes, place) in [
            ("  inputs: {capability: c}", "nodes.inputs"),
            ("  a: {capability: c, task: t}", "nodes.a"),
            ("  a: {capability: c, args: {x: '${item}'}}", "nodes.a.args"),
            ("  a: {capability: c, map: '${item}'}", "nodes.a.map"),
            ("  a: {capability: c, args: {x: ['${inputs.m}']}}", "nodes.a.args"),
            ("  a: {capability: c, args: {x: '${b'}}", "nodes.a.args"),
        ] {
            match Composition::parse(&format!("{base}{nodes}\n")) {
                Err(CompositionError::Invalid { place: found, .. }) => assert_eq!(found, place),
                other => panic!("{nodes}: {other:?}"),
            }
        }
        let malformed = Composition::parse(&format!("{base}  a: {{capability: c, unknown: 1}}\n"));
        assert!(matches!(malformed, Err(CompositionError::Malformed(_))), "{malformed:?}");
        Composition::parse(&format!(
            "{base}  a: {{capability: c, map: '${{inputs.n}}', args: {{x: '${{item}} of ${{index}}'}}}}\n"
        ))
        .expect("a good one");
    }
}
