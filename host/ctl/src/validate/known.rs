//! Holds a composition against what the manifests that were found know of their tools: actions, arguments, keys of the
//! configuration. What a run here refuses before it starts anything is an error; the rest are warnings only, since the file
//! may be meant for another machine; and nothing is guessed: where a manifest does not say what there is, nothing is missing.
//! No tool is asked, since asking would run it.

use cjm_catalog::Catalog;
use cjm_catalog::suggestions::{in_words, suggestions};
use cjm_decide::adapters::choose;
use cjm_decide::composition::{
    DeclaredAction, DeclaredTools, GraphError, Meant, configuration_misfit, literal_faults, meant,
};
use cjm_engine::{StartError, effective_config, keys_missing};
use cjm_wire::Manifest;
use cjm_wire::composition::{Composition, Node, in_short};
use cjm_wire::describe::Described;
use cjm_wire::json::Json;
use cjm_wire::runtime::Runtime;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Of a composition. Of the nodes in `changed` it is not known what they ask of their tools.
pub(super) fn composition_warnings(
    composition: &Composition,
    changed: &BTreeSet<String>,
    catalog: &Catalog,
) -> Vec<String> {
    let (mut warnings, mut tools) = (Vec::new(), DeclaredTools::default());
    // One that names nothing is told as a fault of the form.
    for (name, node) in composition.nodes.iter().filter(|(_, node)| !node.capability.is_empty()) {
        match catalog.get(&node.capability) {
            None => {
                warnings.push(not_there(&format!("nodes.{name}.capability"), &node.capability, catalog));
            }
            Some(_) if changed.contains(name) => {}
            Some(entry) => {
                warnings.extend(node_warnings(name, node, &entry.manifest, &mut tools));
                warnings.extend(task_warning(name, node, &entry.manifest, catalog));
            }
        }
    }
    let called: BTreeSet<&String> = composition.nodes.values().map(|node| &node.capability).collect();
    let called = called.into_iter().filter_map(|name| catalog.get(name));
    warnings.extend(called.filter_map(|entry| keys_not_given(composition, &entry.manifest)));
    if composition.nodes.is_empty() {
        warnings.push("nodes: there is none, so that a run calls no tool".to_owned());
    }
    if let Some(monitor) = composition.monitor.as_ref().filter(|name| catalog.get(name).is_none()) {
        warnings.push(not_there("monitor", monitor, catalog));
    }
    // One that no node calls is a fault by itself.
    let is_called = |name: &String| composition.nodes.values().any(|node| node.capability == *name);
    let absent = |name: &&String| is_called(name) && catalog.get(name).is_none();
    let absent = composition.capabilities.keys().filter(absent);
    warnings.extend(absent.map(|name| not_there(&format!("capabilities.{name}"), name, catalog)));
    warnings
}

/// Arguments that a run refuses before it starts anything, by what the installed tools say of them, in the words of a run.
/// Of the nodes in `changed` it is not known what they ask of their tools.
pub(super) fn refused_arguments(
    composition: &Composition,
    changed: &BTreeSet<String>,
    catalog: &Catalog,
) -> Vec<GraphError> {
    let mut tools = DeclaredTools::default();
    let mut refused = Vec::new();
    for (name, node) in composition.nodes.iter().filter(|(name, _)| !changed.contains(*name)) {
        if let Some(entry) = catalog.get(&node.capability) {
            refused.extend(literal_faults(name, node, &entry.manifest, &mut tools));
        }
    }
    refused
}

/// Configurations that a run refuses by what the installed tools say of them, each with its dotted key, and what is told of
/// it. Said as a run says it.
pub(super) fn configuration_faults(
    composition: &Composition,
    catalog: &Catalog,
) -> Vec<(String, StartError, String)> {
    let mut faults = Vec::new();
    for (name, wanted) in &composition.capabilities {
        let Some(manifest) = catalog.get(name).map(|entry| &entry.manifest) else { continue };
        let Some(config) = wanted.config.as_ref().and_then(Value::as_object) else { continue };
        for (key, value) in config {
            let one = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
            let unfit =
                || configuration_misfit(manifest, key, value).map(|why| unfit(manifest, key, value, &why));
            let Some(error) = effective_config(manifest, Some(&one), false).err().or_else(unfit) else {
                continue;
            };
            let place = format!("capabilities.{name}.config.{key}");
            let message = format!("{place}: {error}{}", like_key(manifest, key));
            faults.push((place, error, message));
            // One that has no configuration has none of any key.
            if matches!(manifest.runtime(), Runtime::Executable(_)) {
                break;
            }
        }
    }
    faults
}

/// Keys of its configuration that a tool requires, and that neither the composition nor a default gives.
fn keys_not_given(composition: &Composition, manifest: &Manifest) -> Option<String> {
    let name = &manifest.code.name;
    let given = composition.capabilities.get(name).and_then(|wanted| wanted.config.as_ref());
    // What is wrong with what is given is told as a fault.
    let config = effective_config(manifest, given, true).ok()?;
    let keys = keys_missing(manifest.code.config_schema.as_ref(), &config);
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    // A kept configuration holds where the composition gives none.
    let is_given = given.and_then(Value::as_object).is_some_and(|given| !given.is_empty());
    let unless = if is_given { "" } else { ", unless its kept configuration has it" };
    let requires = || {
        let keys = keys.join(", ");
        format!("capabilities.{name}.config: \"{name}\" requires {keys}, which nothing gives{unless}")
    };
    (!keys.is_empty()).then(requires)
}

/// A value of another kind than the tool takes.
fn unfit(manifest: &Manifest, key: &str, value: &Value, why: &str) -> StartError {
    StartError::BadConfiguration {
        capability: manifest.code.name.clone(),
        message: format!("`{key}` is {}, and {why}", in_short(&Json::of(value.clone()))),
        has_schema: true,
        keys_missing: Box::default(),
        fields: Box::new([key.to_owned()]),
        stderr_tail: Vec::new(),
    }
}

/// Keys that are like one that there is not, as an error appends them.
fn like_key(manifest: &Manifest, key: &str) -> String {
    let schema = manifest.code.config_schema.as_ref();
    let properties = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    match properties {
        Some(properties) if !properties.contains_key(key) => {
            in_words(&suggestions(key, properties.keys().map(String::as_str)))
        }
        _ => String::new(),
    }
}

/// Of a capability that cannot be had: one that the user has not allowed is there.
fn not_there(place: &str, name: &str, catalog: &Catalog) -> String {
    match (catalog.withheld_of(name), catalog.may_be_unread(name)) {
        (Some(withheld), _) => format!("{place}: {withheld}; {}", withheld.next_step()),
        (None, Some(unread)) => format!("{place}: {unread}; {}", unread.next_step()),
        (None, None) => {
            let names = catalog.entries().map(|entry| entry.manifest.code.name.as_str());
            format!("{place}: \"{name}\" is not installed{}", in_words(&suggestions(name, names)))
        }
    }
}

fn node_warnings<'a>(
    name: &str,
    node: &'a Node,
    manifest: &Manifest,
    tools: &mut DeclaredTools<'a>,
) -> Vec<String> {
    let Some(actions) = tools.actions(&node.capability, manifest) else { return Vec::new() };
    let capability = &node.capability;
    let known = || actions.keys().map(String::as_str);
    let wrong = match meant(node, actions) {
        Meant::Action(action) => return argument_warnings(name, node, action),
        Meant::Open => return Vec::new(),
        Meant::NoSuch(named) => {
            let meant = in_words(&suggestions(&named, known()));
            format!("\"{capability}\" has no action \"{named}\"{meant}")
        }
        Meant::Unnamed => format!("\"{capability}\" has several actions, and none is named"),
    };
    let all = known().collect::<Vec<_>>().join(", ");
    vec![format!("nodes.{name}.action: {wrong}; it has the actions {all}")]
}

/// Of a task that no adapter of the tool serves; a tool that is no Python tool and no program may serve it by itself.
fn task_warning(name: &str, node: &Node, manifest: &Manifest, catalog: &Catalog) -> Option<String> {
    let task = node.task.as_ref().filter(|task| !task.is_empty())?;
    let served: BTreeSet<&str> = match manifest.runtime() {
        Runtime::Python { .. } => {
            let fitting = choose(&manifest.code, catalog.adapters(), None).unwrap_or_default();
            fitting.into_iter().map(|adapter| adapter.task_name.as_str()).collect()
        }
        Runtime::Executable(_) => BTreeSet::new(),
        _ => return None,
    };
    if served.contains(task.as_str()) {
        return None;
    }
    let meant = in_words(&suggestions(task, served.iter().copied()));
    let there =
        if served.is_empty() { "none".to_owned() } else { served.into_iter().collect::<Vec<_>>().join(", ") };
    let capability = &node.capability;
    Some(format!(
        "nodes.{name}.task: \"{capability}\" has no adapter for the task \"{task}\"{meant}; it has {there}"
    ))
}

fn argument_warnings(name: &str, node: &Node, action: &DeclaredAction) -> Vec<String> {
    let unknown = node.args.keys().filter(|key| action.is_unknown(node, key));
    let missing = action.required.iter().filter(|key| !node.args.contains_key(*key));
    unknown
        .map(|key| {
            let meant = in_words(&suggestions(key, action.arguments.iter().map(String::as_str)));
            format!("nodes.{name}.args.{key}: the action has no such parameter{meant}")
        })
        .chain(missing.map(|key| format!("nodes.{name}.args: the action needs `{key}`")))
        .collect()
}
