//! What a composition needs is loaded before it begins. What is loaded already is used as it is, so it must be what the
//! document asks for.

use crate::error::HostError;
use crate::host::Host;
use crate::instances::Instance;
use cjm_wire::InstanceId;
use cjm_wire::composition::{CapabilityUse, Composition};
use cjm_workers::{LoadOptions, effective_config};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Loads every capability of the document that is not loaded yet, all at once. What was loaded stays when another
/// fails: the host's owner decides about it.
pub(super) async fn load_all(host: &Host, composition: &Composition) -> Result<(), HostError> {
    let mut names: Vec<&str> = composition.nodes.values().map(|node| node.capability.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut loads = Vec::new();
    for name in names {
        let mut wanted = composition.capabilities.get(name).cloned().unwrap_or_default();
        let there = instances_for(host, name);
        check_loaded(host, name, &wanted, &there)?;
        if names_none(&wanted) {
            // Calls go to any of them, so what is added is as what is there.
            wanted.config = there.first().map(|instance| Value::Object(instance.plan.config.clone()));
        }
        let loaded = host.is_loaded(&InstanceId::from_text(name));
        if loaded && wanted.instances.is_none() {
            continue;
        }
        if !loaded {
            // Before anything is started: an unknown name must cost nothing.
            host.check(name)?;
        }
        for number in 1..=wanted.instances.unwrap_or(1).max(1) {
            let id = InstanceId::numbered(name, number);
            if !host.is_loaded(&id) {
                loads.push(load_one(host, name, id, wanted.clone()));
            }
        }
    }
    for loaded in futures_util::future::join_all(loads).await {
        loaded?;
    }
    Ok(())
}

/// Loads one instance; what others have loaded meanwhile is used like what was there before.
pub(crate) async fn load_one(
    host: &Host,
    name: &str,
    id: InstanceId,
    wanted: CapabilityUse,
) -> Result<(), HostError> {
    let options =
        LoadOptions { instance_id: Some(id), config: wanted.config.clone(), ..LoadOptions::default() };
    match host.load(name, options).await {
        // Somebody was faster.
        Err(HostError::InstanceExists(_)) => check_loaded(host, name, &wanted, &instances_for(host, name)),
        loaded => loaded.map(|_| ()),
    }
}

/// What the calls of a node may run on.
fn instances_for(host: &Host, name: &str) -> Vec<Arc<Instance>> {
    host.instances().all(|instance| instance.plan.capability == name || instance.id.as_str() == name)
}

/// Whether the document leaves the configuration to others.
fn names_none(wanted: &CapabilityUse) -> bool {
    match &wanted.config {
        None | Some(Value::Null) => true,
        Some(config) => config.as_object().is_some_and(Map::is_empty),
    }
}

/// Refuses a configuration that a loaded instance does not have: its calls would silently run with another one.
fn check_loaded(
    host: &Host,
    name: &str,
    wanted: &CapabilityUse,
    there: &[Arc<Instance>],
) -> Result<(), HostError> {
    if names_none(wanted) {
        return Ok(());
    }
    for instance in there {
        let Some(entry) = host.catalog().get(&instance.plan.capability) else { continue };
        let wanted = effective_config(&entry.manifest, wanted.config.as_ref(), false)?;
        let has = &instance.plan.config;
        let mut keys: Vec<String> = wanted.keys().chain(has.keys()).cloned().collect();
        keys.retain(|key| wanted.get(key) != has.get(key));
        keys.sort();
        keys.dedup();
        if !keys.is_empty() {
            return Err(HostError::OtherConfiguration {
                name: name.to_owned(),
                instance: instance.id.clone(),
                keys,
            });
        }
    }
    Ok(())
}
