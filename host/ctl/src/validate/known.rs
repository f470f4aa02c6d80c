//! Holds a composition against what the manifests that were found know of their tools: actions, arguments, keys of the
//! configuration. Warnings only, since the file may be meant for another machine; and nothing is guessed: where a manifest
//! does not say what there is, nothing is missing. No tool is asked, since asking would run it.

use cjm_catalog::suggestions::{in_words, suggestions};
use cjm_catalog::{Catalog, CatalogEntry};
use cjm_decide::adapters::choose;
use cjm_decide::composition::{DeclaredAction, DeclaredTools, Meant, argument_faults, meant};
use cjm_engine::{StartError, effective_config};
use cjm_wire::Manifest;
use cjm_wire::composition::{CapabilityUse, Composition, Node};
use cjm_wire::describe::Described;
use cjm_wire::runtime::Runtime;
use serde_json::Value;
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
    if let Some(monitor) = composition.monitor.as_ref().filter(|name| catalog.get(name).is_none()) {
        warnings.push(not_there("monitor", monitor, catalog));
    }
    // One that no node calls is a fault by itself.
    let is_called = |name: &String| composition.nodes.values().any(|node| node.capability == *name);
    for (name, wanted) in composition.capabilities.iter().filter(|(name, _)| is_called(name)) {
        let place = format!("capabilities.{name}");
        match catalog.get(name) {
            None => warnings.push(not_there(&place, name, catalog)),
            Some(entry) => warnings.extend(configuration_warnings(&place, wanted.config.as_ref(), entry)),
        }
    }
    warnings
}

/// Configurations that no machine takes, each with its dotted key: of a tool that has none whatever is given. Said as a run
/// says it.
pub(super) fn configuration_faults(
    composition: &Composition,
    catalog: &Catalog,
) -> Vec<(String, StartError)> {
    let refused = |(name, wanted): (&String, &CapabilityUse)| {
        let manifest = &catalog.get(name)?.manifest;
        let key = wanted.config.as_ref()?.as_object()?.keys().next()?;
        let place = format!("capabilities.{name}.config.{key}");
        match manifest.runtime() {
            Runtime::Executable(_) => {
                Some((place, effective_config(manifest, wanted.config.as_ref(), false).err()?))
            }
            _ => None,
        }
    };
    composition.capabilities.iter().filter_map(refused).collect()
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
        .chain(argument_faults(name, node, action).iter().map(ToString::to_string))
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
