//! Holds a composition against what the manifests that were found know of their tools: actions, arguments, keys of the
//! configuration. Warnings only, since the file may be meant for another machine; and nothing is guessed: where a manifest
//! does not say what there is, nothing is missing. No tool is asked, since asking would run it.

use cjm_catalog::suggestions::{in_words, suggestions};
use cjm_catalog::{Catalog, CatalogEntry};
use cjm_decide::composition::argument_faults;
use cjm_wire::Manifest;
use cjm_wire::composition::{Composition, Node};
use cjm_wire::describe::Described;
use cjm_wire::runtime::{Executable, Runtime};
use serde_json::Value;
use std::collections::BTreeMap;

/// The argument by which a call names its action where it does not say `action` beside its arguments.
const ACTION: &str = "action";

/// Of a composition.
pub(super) fn composition_warnings(composition: &Composition, catalog: &Catalog) -> Vec<String> {
    let mut warnings = Vec::new();
    // One that names nothing is told as a fault of the form.
    for (name, node) in composition.nodes.iter().filter(|(_, node)| !node.capability.is_empty()) {
        match catalog.get(&node.capability) {
            None => {
                warnings.push(not_there(&format!("nodes.{name}.capability"), &node.capability, catalog));
            }
            Some(entry) => warnings.extend(node_warnings(name, node, &entry.manifest)),
        }
    }
    if let Some(monitor) = composition.monitor.as_ref().filter(|name| catalog.get(name).is_none()) {
        warnings.push(not_there("monitor", monitor, catalog));
    }
    for (name, wanted) in &composition.capabilities {
        let place = format!("capabilities.{name}");
        match catalog.get(name) {
            None => warnings.push(not_there(&place, name, catalog)),
            Some(entry) => warnings.extend(configuration_warnings(&place, wanted.config.as_ref(), entry)),
        }
    }
    warnings
}

/// Of a capability that cannot be had: one that the user has not allowed is there.
fn not_there(place: &str, name: &str, catalog: &Catalog) -> String {
    match catalog.withheld_of(name) {
        Some(withheld) => format!("{place}: {withheld}; {}", withheld.next_step()),
        None => {
            let names = catalog.entries().map(|entry| entry.manifest.code.name.as_str());
            format!("{place}: \"{name}\" is not installed{}", in_words(&suggestions(name, names)))
        }
    }
}

/// What a manifest says of one action.
#[derive(Debug, Default)]
struct Known {
    arguments: Vec<String>,
    required: Vec<String>,
    /// Other arguments are refused.
    closed: bool,
    /// The JSON Schema of the arguments.
    schema: Value,
}

/// The actions of a tool by name; none where its manifest does not say which there are.
fn actions_of(manifest: &Manifest) -> Option<BTreeMap<String, Known>> {
    let actions: BTreeMap<String, Known> = match manifest.runtime() {
        Runtime::Executable(executable) => executable
            .actions
            .iter()
            .map(|(name, action)| (name.clone(), Known::of(&Executable::arguments_schema(action))))
            .collect(),
        _ => {
            let said = manifest.code.unknown.get("actions")?.as_array()?;
            let known = |action: &Value| match action {
                Value::String(name) => Some((name.clone(), Known::default())),
                other => Some((other.get("name")?.as_str()?.to_owned(), Known::of(&other["arguments"]))),
            };
            said.iter().map(known).collect::<Option<_>>()?
        }
    };
    (!actions.is_empty()).then_some(actions)
}

impl Known {
    /// From the JSON Schema of the arguments.
    fn of(schema: &Value) -> Self {
        let names = |names: &Value| -> Vec<String> {
            names.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            arguments: schema["properties"]
                .as_object()
                .into_iter()
                .flat_map(|all| all.keys().cloned())
                .collect(),
            required: names(&schema["required"]),
            closed: schema["additionalProperties"] == Value::Bool(false) && schema["properties"].is_object(),
            schema: schema.clone(),
        }
    }
}

fn node_warnings(name: &str, node: &Node, manifest: &Manifest) -> Vec<String> {
    // What an adapter takes, its own manifest does not say.
    if node.task.is_some() {
        return Vec::new();
    }
    let Some(actions) = actions_of(manifest) else { return Vec::new() };
    let capability = &node.capability;
    let is_executable = matches!(manifest.runtime(), Runtime::Executable(_));
    let among = node.args.get(ACTION).filter(|_| node.action.is_none() && !is_executable);
    // One that is bound when the node runs may be any.
    let among_text = among.map(|said| serde_json::from_str::<String>(&said.to_string()).unwrap_or_default());
    let named = match (&node.action, &among_text) {
        (None, Some(text)) if text.is_empty() || text.contains("${") => return Vec::new(),
        (action, text) => action.as_deref().or(text.as_deref()),
    };
    let known = || actions.keys().map(String::as_str);
    let all = || known().collect::<Vec<_>>().join(", ");
    let action = match named {
        Some(named) => actions.get(named).ok_or_else(|| {
            let meant = in_words(&suggestions(named, known()));
            format!("\"{capability}\" has no action \"{named}\"{meant}")
        }),
        None if actions.len() == 1 => actions.values().next().ok_or_else(String::new),
        None => Err(format!("\"{capability}\" has several actions, and none is named")),
    };
    match action {
        Err(wrong) => vec![format!("nodes.{name}.action: {wrong}; it has the actions {}", all())],
        Ok(action) => argument_warnings(name, node, action, among.is_some()),
    }
}

/// `named_inside`: the action is named among the arguments, and is none of them.
fn argument_warnings(name: &str, node: &Node, action: &Known, named_inside: bool) -> Vec<String> {
    let is_known = |key: &String| action.arguments.contains(key) || (named_inside && key == ACTION);
    let unknown = node.args.keys().filter(|key| action.closed && !is_known(key));
    let missing = action.required.iter().filter(|key| !node.args.contains_key(*key));
    unknown
        .map(|key| {
            let meant = in_words(&suggestions(key, action.arguments.iter().map(String::as_str)));
            format!("nodes.{name}.args.{key}: the action has no such parameter{meant}")
        })
        .chain(argument_faults(name, node, &action.schema).iter().map(ToString::to_string))
        .chain(missing.map(|key| format!("nodes.{name}.args: the action needs `{key}`")))
        .collect()
}

/// Keys that a load refuses.
fn configuration_warnings(place: &str, config: Option<&Value>, entry: &CatalogEntry) -> Vec<String> {
    let schema = entry.manifest.code.config_schema.as_ref();
    let properties = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    let (Some(properties), Some(config)) = (properties, config.and_then(Value::as_object)) else {
        return Vec::new();
    };
    let known = || properties.keys().map(String::as_str);
    let unknown = config.keys().filter(|key| !properties.contains_key(*key));
    unknown
        .map(|key| {
            let meant = in_words(&suggestions(key, known()));
            let all = known().collect::<Vec<_>>();
            let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
            format!(
                "{place}.config.{key}: \"{}\" has no such key in its configuration{meant}; it has {all}",
                entry.manifest.code.name
            )
        })
        .collect()
}
