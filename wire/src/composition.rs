//! The composition document: a DAG of calls whose arguments bind to outputs when they run. This is the file users
//! write and the object programs submit; binding and scheduling are `decide`'s.
//!
//! A string in `args`, `map` or `output` may hold references: `${inputs.NAME}`, `${NODE}`, `${NODE.field[0].x}`,
//! and inside a mapped node `${item}`, `${item.field}` and `${index}`. A string that is one reference and nothing
//! else becomes the value itself, of any type; inside longer text the value is written out. `$${` is a plain `${`.

use crate::describe::Described;
use crate::event::JobStatus;
use crate::exact_yaml;
use crate::json::{Arguments, Json, JsonError, JsonKind};
use crate::left_out::{or_default, or_defaults};
use crate::template::{Template, is_name};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::fmt;

pub use crate::input_kind::{InputKind, in_short};
pub use crate::template::{PathStep, Reference, TEMPLATE_DEPTH_MAX, TextPart, parse_reference, parse_text};
pub use crate::yaml::DOCUMENT_DEPTH_MAX;

/// Most nodes of one composition.
pub const NODES_MAX: usize = 10_000;
/// Most elements one mapped node may run over.
pub const MAP_ELEMENTS_MAX: usize = 100_000;
/// Most failures of a node or a run that are told one by one; the rest is counted.
pub const FAILURES_LISTED_MAX: usize = 100;
/// Most instances of one capability: each is a process, and a machine runs few of them well.
pub const INSTANCES_MAX: u32 = 256;
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
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Values given when it is run (`key=value`).
    #[serde(default, deserialize_with = "or_defaults", skip_serializing_if = "IndexMap::is_empty")]
    pub inputs: IndexMap<String, Input>,
    /// What a failure means for the rest.
    #[serde(default, deserialize_with = "or_default")]
    pub failure: FailurePolicy,
    /// Loaded for the time of the run, watches what each step uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
    /// Capabilities to load in more than one instance, and their configurations.
    #[serde(default, deserialize_with = "or_defaults", skip_serializing_if = "IndexMap::is_empty")]
    pub capabilities: IndexMap<String, CapabilityUse>,
    /// The calls, by node name.
    pub nodes: IndexMap<String, Node>,
    /// What the whole returns: a template; all nodes' outputs when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Json>,
}

/// A value the composition is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// What it is.
    #[serde(default, deserialize_with = "or_default", rename = "type")]
    pub kind: InputKind,
    /// Used when it is not given; without one it must be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Json>,
    /// For people.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// How a capability is loaded for a composition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapabilityUse {
    /// How many instances to load, at most [`INSTANCES_MAX`]; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Configuration of every instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<serde_json::Value>,
}

/// What a failure means for the rest of the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// The first failure ends the run: callers are told at once, what waits does not begin, and what runs is cancelled
    /// (cooperatively, then by force, as any cancelled job). The run is `failed`.
    #[default]
    FailFast,
    /// Everything that can still be made is made. A mapped node of which some elements failed is `partial`: its good
    /// results stay in their places, with null at the others. Of what comes after it, only what needs a missing element
    /// is skipped: `${each[2]}` needs one element, `${each}` all of them (unless the node says `allow_partial`), and
    /// `map: ${each}` runs over those that are there. The run is `partial`, or `failed` where nothing good came of it.
    BestEffort,
}

/// How a whole run ended. Wider than [`JobStatus`], which is the ancestor's and knows no success in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// Everything completed.
    Completed,
    /// Best effort: something failed, and what did not is there.
    Partial,
    /// It failed.
    Failed,
    /// Somebody asked for its end.
    Cancelled,
}

impl RunOutcome {
    /// For rows and people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status in the ancestor's words. A partial success is `failed` there: who reads only this must not take it
    /// for a whole one.
    #[must_use]
    pub fn job_status(self) -> JobStatus {
        match self {
            Self::Completed => JobStatus::Completed,
            Self::Partial | Self::Failed => JobStatus::Failed,
            Self::Cancelled => JobStatus::Cancelled,
        }
    }
}

impl fmt::Display for RunOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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
    pub map: Option<Json>,
    /// Named arguments; references bind when the node runs.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Arguments::is_empty")]
    pub args: Arguments,
    /// Nodes that must complete first though nothing of them is used.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Whether a list of which some elements are missing will do: it then comes with null at their places. Without it
    /// this node is skipped when it uses such a list as a whole.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub allow_partial: bool,
    /// Higher runs first; 0 inherits the composition's.
    #[serde(default, deserialize_with = "or_default")]
    pub priority: i32,
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
    /// A number beyond 64 bits that is written so that its digits are lost.
    #[error("a number beyond 64 bits, whose digits this way of writing it would lose")]
    Inexact,
    /// Above [`COMPOSITION_BYTES_MAX`].
    #[error("{0} bytes long, more than the {COMPOSITION_BYTES_MAX} allowed")]
    TooLarge(usize),
}

impl Described for CompositionError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "composition.malformed",
            Self::Invalid { .. } => "composition.invalid",
            Self::Inexact => "composition.inexact",
            Self::TooLarge(_) => "composition.too_large",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Malformed(_) => "correct the file where the message points".to_owned(),
            Self::Invalid { place, .. } => format!("correct `{place}`"),
            Self::Inexact => "write the number in plain digits, or as text".to_owned(),
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
        let composition = Self::read(text)?;
        composition.check()?;
        Ok(composition)
    }

    /// [`Self::parse`] without the checks beyond the types, for who wants all [`Self::faults`].
    ///
    /// # Errors
    /// When it is no document of this shape.
    pub fn read(text: &str) -> Result<Self, CompositionError> {
        if text.len() > COMPOSITION_BYTES_MAX {
            return Err(CompositionError::TooLarge(text.len()));
        }
        let (mut composition, infinite): (Self, _) =
            crate::yaml::with_infinite(text).map_err(CompositionError::Malformed)?;
        let configs = composition.capabilities.values().filter_map(|wanted| wanted.config.as_ref());
        let may_be_rounded = configs.map(Json::from).any(|config| exact_yaml::may_be_rounded(&config));
        let is_other = may_be_rounded || composition.values().any(exact_yaml::may_be_rounded);
        if is_other || infinite.is_some() || exact_yaml::may_have_leading_zeros(text) {
            let inexact = || infinite.map_or(CompositionError::Inexact, CompositionError::Malformed);
            composition.take_exact(&exact_yaml::parse(text).ok_or_else(inexact)?)?;
        }
        let written = exact_yaml::Written::of(text);
        for (name, input) in composition.inputs.iter_mut().filter(|(_, input)| input.kind.is_text()) {
            let default = input.default.iter_mut();
            default.for_each(|value| written.keep_text(value, &["inputs", name, "default"], input.kind));
        }
        Ok(composition)
    }

    /// Every value in it that reaches a tool.
    fn values(&self) -> impl Iterator<Item = &Json> {
        let inputs = self.inputs.values().filter_map(|input| input.default.as_ref());
        let nodes = self.nodes.values().flat_map(|node| node.args.values().chain(&node.map));
        inputs.chain(nodes).chain(&self.output)
    }

    /// Puts the numbers of the document in the place of those that its reader rounded.
    fn take_exact(&mut self, exact: &Json) -> Result<(), CompositionError> {
        let fields = |value: Option<&Json>| value.and_then(Json::fields).unwrap_or_default();
        let exact = fields(Some(exact));
        let [inputs, nodes, capabilities] =
            ["inputs", "nodes", "capabilities"].map(|key| fields(exact.get(key)));
        let put = |value: &mut Json, exact: Option<&Json>| {
            if let Some(exact) = exact {
                *value = exact.clone();
            }
        };
        for (name, input) in &mut self.inputs {
            let exact = fields(inputs.get(name));
            input.default.iter_mut().for_each(|value| put(value, exact.get("default")));
        }
        for (name, node) in &mut self.nodes {
            let exact = fields(nodes.get(name));
            node.map.iter_mut().for_each(|value| put(value, exact.get("map")));
            let exact = fields(exact.get("args"));
            node.args.iter_mut().for_each(|(key, value)| put(value, exact.get(key)));
        }
        self.output.iter_mut().for_each(|value| put(value, exact.get("output")));
        // Configurations are kept as parsed values, and no such number fits into one.
        for (name, wanted) in self.capabilities.iter_mut().filter(|(_, wanted)| wanted.config.is_some()) {
            if let Some(exact) = fields(capabilities.get(name)).get("config") {
                let refused =
                    |error: JsonError| invalid(format!("capabilities.{name}.config"), error.to_string());
                wanted.config = Some(exact.to_value().map_err(refused)?);
            }
        }
        Ok(())
    }

    /// The checks of [`Self::parse`], for a composition made by a program.
    ///
    /// # Errors
    /// The first fault found, with its place.
    pub fn check(&self) -> Result<(), CompositionError> {
        self.faults().into_iter().next().map_or(Ok(()), Err)
    }

    /// Everything that [`Self::check`] finds, each with its place.
    #[must_use]
    pub fn faults(&self) -> Vec<CompositionError> {
        if self.nodes.len() > NODES_MAX {
            let message = format!("{} nodes, more than {NODES_MAX}", self.nodes.len());
            return vec![invalid("nodes".to_owned(), message)];
        }
        let inputs = self.inputs.iter().filter_map(|(name, input)| {
            let default = input.default.as_ref()?;
            let wanted = input.kind.misses(default)?;
            let message = format!("the default must be {wanted}, and is {}", in_short(default));
            Some(invalid(format!("inputs.{name}.default"), message))
        });
        let capabilities = self.capabilities.iter().filter_map(|(name, wanted)| {
            let message = match wanted.instances? {
                0 => "0 instances run nothing; leave the key out for one".to_owned(),
                instances if instances > INSTANCES_MAX => {
                    format!("more than the {INSTANCES_MAX} instances allowed")
                }
                _ => return None,
            };
            Some(invalid(format!("capabilities.{name}.instances"), message))
        });
        let mut faults: Vec<CompositionError> = inputs.chain(capabilities).collect();
        for (name, node) in &self.nodes {
            self.node_faults(name, node, &mut faults);
        }
        if let Some(output) = &self.output {
            faults.extend(self.template_faults("output", output, false));
        }
        faults
    }

    fn node_faults(&self, name: &str, node: &Node, faults: &mut Vec<CompositionError>) {
        let place = format!("nodes.{name}");
        if RESERVED_NODE_NAMES.contains(&name) || !is_name(name) {
            let message =
                "a node's name is letters, digits, `-` and `_`, and not `inputs`, `item` or `index`"
                    .to_owned();
            faults.push(invalid(place.clone(), message));
        }
        let names = [
            ("capability", Some(&node.capability)),
            ("task", node.task.as_ref()),
            ("method", node.method.as_ref()),
        ];
        for (key, _) in names.into_iter().filter(|(_, name)| name.is_some_and(String::is_empty)) {
            faults.push(invalid(format!("{place}.{key}"), "it is empty, and names nothing".to_owned()));
        }
        if node.task.is_some() != node.method.is_some() {
            faults.push(invalid(place.clone(), "`task` and `method` go together".to_owned()));
        }
        if node.task.is_some() && node.action.is_some() {
            faults.push(invalid(place.clone(), "`action` and `task` exclude each other".to_owned()));
        }
        if let Some(map) = &node.map {
            let place = format!("{place}.map");
            let before = faults.len();
            faults.extend(self.template_faults(&place, map, false));
            if faults.len() == before {
                faults.extend(self.check_map(&place, map).err());
            }
        }
        for (key, template) in &node.args {
            let place = format!("{place}.args.{key}");
            faults.extend(self.template_faults(&place, template, node.map.is_some()));
        }
    }

    /// What is wrong with a template by itself, each thing once.
    fn template_faults(&self, place: &str, template: &Json, element_allowed: bool) -> Vec<CompositionError> {
        let (template, mut faults) = Template::read(template);
        for reference in template.references() {
            let is_element = reference.root == "item" || reference.root == "index";
            if is_element && !element_allowed {
                faults.insert(format!(
                    "`${{{}}}` exists only in the args of a node with `map`",
                    reference.root
                ));
            }
            if reference.root == "inputs" && !self.is_declared(reference) {
                faults.insert(format!("`{reference}` is not declared under `inputs`"));
            }
        }
        faults.into_iter().map(|message| invalid(place.to_owned(), message)).collect()
    }

    /// Refuses a `map` that is known to give no list, whatever the run is given.
    fn check_map(&self, place: &str, map: &Json) -> Result<(), CompositionError> {
        let found = match Template::parse(map) {
            Ok(Template::Plain(value)) if value.kind() != JsonKind::List => in_short(&value),
            Ok(Template::Text(_)) => "text with a reference in it".to_owned(),
            Ok(Template::Object(_)) => "an object".to_owned(),
            Ok(Template::Reference(reference)) => match self.scalar_input(&reference) {
                Some(wanted) => format!("`{reference}`, an input that is {wanted}"),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        Err(invalid(place.to_owned(), format!("`map` takes a list, and this is {found}")))
    }

    /// What the input is that a reference takes, where that is never a list.
    fn scalar_input(&self, reference: &Reference) -> Option<&'static str> {
        let Some(PathStep::Field(name)) = reference.path.first().filter(|_| reference.root == "inputs")
        else {
            return None;
        };
        match self.inputs.get(name)?.kind {
            InputKind::Any | InputKind::Files => None,
            scalar => Some(scalar.in_words()),
        }
    }

    fn is_declared(&self, input: &Reference) -> bool {
        matches!(input.path.first(), Some(PathStep::Field(name)) if self.inputs.contains_key(name))
    }
}

fn invalid(place: String, message: String) -> CompositionError {
    CompositionError::Invalid { place, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_carry_their_place() {
        let base = "name: t\ninputs: {n: {type: number}}\nnodes:\n";
        for (nodes, place) in [
            ("  inputs: {capability: c}", "nodes.inputs"),
            ("  a: {capability: c, task: t}", "nodes.a"),
            ("  a: {capability: c, args: {x: '${item}'}}", "nodes.a.args.x"),
            ("  a: {capability: c, map: '${item}'}", "nodes.a.map"),
            ("  a: {capability: c, args: {x: ['${inputs.m}']}}", "nodes.a.args.x"),
            ("  a: {capability: c, args: {x: '${b'}}", "nodes.a.args.x"),
            ("  a: {capability: c, map: [1]}\noutput: {r: '${a}', i: '${item}'}", "output"),
        ] {
            match Composition::parse(&format!("{base}{nodes}\n")) {
                Err(CompositionError::Invalid { place: found, .. }) => assert_eq!(found, place),
                other => panic!("{nodes}: {other:?}"),
            }
        }
        let instances =
            |count| format!("{base}  a: {{capability: c}}\ncapabilities:\n  c: {{instances: {count}}}\n");
        let many = Composition::parse(&instances(INSTANCES_MAX + 1)).expect_err("too many");
        assert!(
            many.to_string().contains("capabilities.c.instances") && many.to_string().contains("256"),
            "{many}"
        );
        Composition::parse(&instances(INSTANCES_MAX)).expect("just enough");
        let config = |number: &str| {
            format!("{base}  a: {{capability: c}}\ncapabilities:\n  c: {{config: {{deep: [{number}]}}}}\n")
        };
        for fits in ["18446744073709551615", "1.5e300"] {
            Composition::parse(&config(fits)).expect(fits);
        }
        let rounded = Composition::parse(&config("18446744073709551617")).expect_err("it would be rounded");
        assert!(rounded.to_string().contains("capabilities.c.config"), "{rounded}");
        let malformed = Composition::parse(&format!("{base}  a: {{capability: c, unknown: 1}}\n"));
        assert!(matches!(malformed, Err(CompositionError::Malformed(_))), "{malformed:?}");
        Composition::parse(&format!(
            "{base}  a: {{capability: c, map: ['${{inputs.n}}'], args: {{x: '${{item}} of ${{index}}'}}}}\n"
        ))
        .expect("a good one");
    }

    #[track_caller]
    fn check_faults(inputs: &str, rest: &str, expected: &[&str]) {
        let text = format!("name: t\ninputs: {{{inputs}}}\n{rest}\n");
        let composition = Composition::read(&text).expect(&text);
        let found: Vec<String> = composition.faults().iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{text}");
        assert_eq!(composition.check().err().map(|error| error.to_string()), found.first().cloned());
    }

    #[test]
    fn every_fault_is_found_and_not_only_the_first() {
        check_faults(
            "n: {type: number, default: x}, s: {type: string, default: [1]}, b: {type: boolean, default: 1}",
            "capabilities: {c: {instances: 0}}\nnodes:\n  a: {capability: c, task: t, args: {x: '${item}', y: '${b'}}\n\
             \x20 index: {capability: c, map: 3}\noutput: '${inputs.m}'",
            &[
                "inputs.n.default: the default must be a number, and is \"x\"",
                "inputs.s.default: the default must be text, and is [1]",
                "inputs.b.default: the default must be true or false, and is 1",
                "capabilities.c.instances: 0 instances run nothing; leave the key out for one",
                "nodes.a: `task` and `method` go together",
                "nodes.a.args.x: `${item}` exists only in the args of a node with `map`",
                "nodes.a.args.y: a `${` without its `}` in \"${b\"",
                "nodes.index: a node's name is letters, digits, `-` and `_`, and not `inputs`, `item` or `index`",
                "nodes.index.map: `map` takes a list, and this is 3",
                "output: `${inputs.m}` is not declared under `inputs`",
            ],
        );
    }

    #[test]
    fn a_default_fits_its_type_and_a_map_may_be_a_list() {
        let nodes = "nodes: {a: {capability: c}}";
        for fits in [
            "n: {type: number, default: 1.5}, s: {type: string, default: 7}, b: {type: boolean, default: true}",
            "f: {type: file, default: a.wav}, p: {type: path, default: 12}, a: {default: {x: [1]}}",
            "f: {type: files, default: '*.wav'}, g: {type: files, default: [a, 1]}, n: {type: number, default: null}",
        ] {
            check_faults(fits, nodes, &[]);
        }
        for (wrong, wanted, shown) in [
            ("{type: file, default: [a]}", "the path of a file", "[\"a\"]"),
            ("{type: path, default: true}", "a path", "true"),
            ("{type: files, default: []}", "files", "[]"),
            ("{type: files, default: {a: 1}}", "files", "{\"a\":1}"),
            ("{type: number, default: '1'}", "a number", "\"1\""),
        ] {
            let told = format!("inputs.i.default: the default must be {wanted}, and is {shown}");
            check_faults(&format!("i: {wrong}"), nodes, &[&told]);
        }
        let inputs = "l: {}, f: {type: files}, s: {type: string}";
        let map = |map: &str| format!("nodes: {{a: {{capability: c, map: {map}}}, b: {{capability: c}}}}");
        for list in
            ["[1, 2]", "[]", "['${inputs.s}']", "'${inputs.l}'", "'${inputs.f}'", "'${b}'", "'${b.x[0]}'"]
        {
            check_faults(inputs, &map(list), &[]);
        }
        for (none, found) in [
            ("text", "\"text\""),
            ("{x: 1}", "{\"x\":1}"),
            ("{x: '${b}'}", "an object"),
            ("'all ${b}'", "text with a reference in it"),
            ("'${inputs.s}'", "`${inputs.s}`, an input that is text"),
        ] {
            check_faults(
                inputs,
                &map(none),
                &[&format!("nodes.a.map: `map` takes a list, and this is {found}")],
            );
        }
    }

    #[test]
    fn a_document_is_as_deep_as_its_page_says_in_yaml_and_in_json() {
        // The keys of the document itself are four levels.
        let written = |levels: usize| {
            let list = |value: &str| format!("{}{value}{}", "[".repeat(levels - 4), "]".repeat(levels - 4));
            let (in_yaml, in_json) = (list("'${inputs.x}'"), list("\"${inputs.x}\""));
            let block = "- ".repeat(levels - 4);
            [
                format!(
                    "name: f\ninputs: {{x: {{}}}}\nnodes:\n  a:\n    capability: c\n    args:\n      v: {in_yaml}\n"
                ),
                format!("name: f\nnodes:\n  a:\n    capability: c\n    args:\n      v:\n        {block}1\n"),
                format!(
                    r#"{{"name": "f", "inputs": {{"x": {{}}}}, "nodes": {{"a": {{"capability": "c", "args": {{"v": {in_json}}}}}}}}}"#
                ),
            ]
        };
        for text in written(DOCUMENT_DEPTH_MAX) {
            let read = Composition::parse(&text).expect(&text);
            let kept = serde_json::to_string(&read).expect("writes");
            assert_eq!(serde_json::from_str::<Composition>(&kept).expect("its own text"), read);
        }
        for text in written(DOCUMENT_DEPTH_MAX + 1) {
            let refused = Composition::parse(&text).expect_err(&text).to_string();
            assert!(
                refused.starts_with("line ") && refused.contains("nested deeper than the 64 levels"),
                "{refused}"
            );
        }
    }

    #[test]
    fn numbers_of_a_document_keep_their_digits() {
        let of_yaml = Composition::parse(
            "name: t\ninputs: {n: {default: 18446744073709551616}}\nnodes:\n  a:\n    capability: c\n    map: [-9223372036854775809]\n    args:\n      block: {x: [1, 18446744073709551617, 1e20, 0.5, '18446744073709551618', +18446744073709551619]}\noutput: 340282366920938463463374607431768211457\n",
        )
        .expect("a good one");
        let texts: Vec<String> = of_yaml.values().map(Json::compact).collect();
        assert_eq!(
            texts,
            [
                "18446744073709551616",
                "{\"x\":[1,18446744073709551617,1e20,0.5,\"18446744073709551618\",18446744073709551619]}",
                "[-9223372036854775809]",
                "340282366920938463463374607431768211457",
            ]
        );
        let written = serde_json::to_string(&of_yaml).expect("writes");
        assert_eq!(serde_json::from_str::<Composition>(&written).expect("its own text"), of_yaml);
        assert_eq!(Composition::parse(&written).expect("JSON is YAML"), of_yaml);
    }
}
