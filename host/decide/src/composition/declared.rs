//! What a manifest declares of a tool's actions, whatever kind of tool it is, and which of them a node means. Nothing is
//! guessed: where a manifest does not say what there is, nothing is missing.

use cjm_wire::Manifest;
use cjm_wire::composition::Node;
use cjm_wire::runtime::{Executable, Parameter, ParameterKind, Runtime};
use serde_json::Value;
use std::collections::BTreeMap;

/// The argument by which a call names its action where it does not say `action` beside its arguments.
const ACTION: &str = "action";

/// What a manifest says of one action.
#[derive(Debug, Default)]
pub struct DeclaredAction {
    /// Names of its arguments.
    pub arguments: Vec<String>,
    /// Those that must be given.
    pub required: Vec<String>,
    /// Other arguments are refused.
    pub closed: bool,
    /// The JSON Schema of the arguments.
    pub(super) schema: Value,
    /// Those that are files of a program, which it is given by absolute paths alone.
    pub(super) files: Vec<String>,
    /// It is a program that its manifest describes: null is no value, and a number has 64 bits.
    pub(super) of_program: bool,
    /// A number with a point is no whole number to whoever checks the arguments. To JSON Schema 5.0 is one, and a program
    /// with code of its own may think so, too.
    pub(super) strict: bool,
}

/// What the manifests of a composition's tools declare. Each is read once, however many nodes call the tool.
#[derive(Debug, Default)]
pub struct DeclaredTools<'a>(BTreeMap<&'a str, Option<BTreeMap<String, DeclaredAction>>>);

impl<'a> DeclaredTools<'a> {
    /// The actions of a capability, by name; none where its manifest does not say which there are.
    pub fn actions(
        &mut self,
        capability: &'a str,
        manifest: &Manifest,
    ) -> Option<&BTreeMap<String, DeclaredAction>> {
        self.0.entry(capability).or_insert_with(|| declared_actions(manifest)).as_ref()
    }
}

/// The actions of a tool by name; none where its manifest does not say which there are.
fn declared_actions(manifest: &Manifest) -> Option<BTreeMap<String, DeclaredAction>> {
    let actions: BTreeMap<String, DeclaredAction> = match manifest.runtime() {
        Runtime::Executable(executable) => executable
            .actions
            .iter()
            .map(|(name, action)| {
                let schema = Executable::arguments_schema(action);
                let is_file = |(_, parameter): &(_, &Parameter)| parameter.kind == ParameterKind::InputFile;
                let files = action.parameters.iter().filter(is_file).map(|(name, _)| name.clone()).collect();
                (name.clone(), DeclaredAction { strict: true, files, ..DeclaredAction::of(&schema, true) })
            })
            .collect(),
        _ => {
            let strict = matches!(manifest.runtime(), Runtime::Python { .. });
            let said = manifest.code.unknown.get("actions")?.as_array()?;
            let declared = |action: &Value| match action {
                Value::String(name) => Some((name.clone(), DeclaredAction::default())),
                other => {
                    let name = other.get("name")?.as_str()?.to_owned();
                    Some((name, DeclaredAction { strict, ..DeclaredAction::of(&other["arguments"], false) }))
                }
            };
            said.iter().map(declared).collect::<Option<_>>()?
        }
    };
    (!actions.is_empty()).then_some(actions)
}

impl DeclaredAction {
    /// From the JSON Schema of the arguments.
    fn of(schema: &Value, of_program: bool) -> Self {
        let names = |names: &Value| -> Vec<String> {
            names.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let properties = schema["properties"].as_object().into_iter();
        Self {
            arguments: properties.flat_map(|all| all.keys().cloned()).collect(),
            required: names(&schema["required"]),
            closed: schema["additionalProperties"] == Value::Bool(false) && schema["properties"].is_object(),
            schema: schema.clone(),
            files: Vec::new(),
            of_program,
            strict: false,
        }
    }

    /// Whether a node gives an argument that the action does not have.
    #[must_use]
    pub fn is_unknown(&self, node: &Node, key: &str) -> bool {
        // The action itself may be named among the arguments, and is none of them.
        let names_action = key == ACTION && node.action.is_none() && !self.of_program;
        self.closed && !names_action && !self.arguments.iter().any(|known| known == key)
    }
}

/// Which action a node means.
#[derive(Debug)]
pub enum Meant<'a> {
    /// This one.
    Action(&'a DeclaredAction),
    /// One that there is not.
    NoSuch(String),
    /// None is named, and there are several.
    Unnamed,
    /// One that is bound when the node runs, and may be any; or the method of an adapter, whose manifest says nothing of its
    /// arguments.
    Open,
}

/// Which of the actions of its tool a node means.
#[must_use]
pub fn meant<'a>(node: &Node, actions: &'a BTreeMap<String, DeclaredAction>) -> Meant<'a> {
    let of_program = actions.values().any(|action| action.of_program);
    let among = node.args.get(ACTION).filter(|_| node.action.is_none() && !of_program);
    let among_text = among.map(|said| said.as_text().unwrap_or_default());
    match (&node.action, among_text) {
        _ if node.task.is_some() => Meant::Open,
        (None, Some(text)) if text.is_empty() || text.contains("${") => Meant::Open,
        (None, None) => match actions.values().next().filter(|_| actions.len() == 1) {
            Some(only) => Meant::Action(only),
            None => Meant::Unnamed,
        },
        (Some(named), _) => actions.get(named).map_or_else(|| Meant::NoSuch(named.clone()), Meant::Action),
        (None, Some(named)) => actions.get(&named).map_or(Meant::NoSuch(named), Meant::Action),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_once_however_many_nodes_call_its_tool() {
        let manifest = |action: &str| {
            let text = format!(
                r#"{{"format_version": "2.0", "code": {{"name": "c", "version": "1", "module": "m", "class": "C",
                    "actions": ["{action}"]}}, "install": {{"python_path": "/usr/bin/python3"}}}}"#
            );
            Manifest::parse(&text).expect("a manifest")
        };
        let mut tools = DeclaredTools::default();
        let first = std::ptr::from_ref(tools.actions("c", &manifest("go")).expect("declared"));
        let again = tools.actions("c", &manifest("other")).expect("declared");
        assert!(std::ptr::eq(first, again) && again.contains_key("go"), "{again:?}");
        assert!(tools.actions("d", &manifest("other")).expect("declared").contains_key("other"));
    }
}
