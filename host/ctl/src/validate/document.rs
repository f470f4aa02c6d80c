//! Checks documents: by the parser that reads them when they are used, whose word counts, and by the published schema,
//! which finds all faults where the parser ends at the first.

use crate::validate::finding::Finding;
use crate::validate::machine;
pub(crate) use crate::validate::machine::base_of;
use cjm_catalog::{Catalog, MANIFEST_BYTES_MAX};
use cjm_decide::composition::{Graph, GraphError};
use cjm_environments::{EnvironmentError, Refusal, refusals};
use cjm_platform::files::read_regular_to_string;
use cjm_wire::Manifest;
use cjm_wire::adapter::{AdapterError, AdapterManifest};
use cjm_wire::capabilities_file::{CapabilitiesFile, CapabilitiesFileError};
use cjm_wire::composition::{Composition, CompositionError};
use cjm_wire::describe::Described;
use cjm_wire::manifest::ManifestError;
use cjm_wire::placed::{Place, Placed};
use serde_json::Value;
use std::path::Path;

/// A manifest is not what its schema asks for
const MANIFEST_FAULT: &str = "manifest.schema";
/// The manifest of an adapter is not what its schema asks for
const ADAPTER_FAULT: &str = "adapter.schema";
/// A list of capabilities is not what its schema asks for
const CAPABILITIES_FILE_FAULT: &str = "capabilities_file.schema";
/// A composition is not what its schema asks for
const COMPOSITION_FAULT: &str = "composition.schema";

/// Most faults of one document that are listed.
pub(crate) const FINDINGS_MAX: usize = 50;
/// Resource keys that the host once read; what a tool needs is measured now.
const STALE_RESOURCES: [&str; 3] = ["min_gpu_vram_mb", "recommended_gpu_vram_mb", "min_system_ram_mb"];

const MANIFEST_SCHEMA: &str = include_str!("../../../../manifests/schema/manifest-2.0.schema.json");
const ADAPTER_SCHEMA: &str = include_str!("../../../../manifests/schema/adapter-manifest.schema.json");
const CAPABILITIES_SCHEMA: &str = include_str!("../../../../manifests/schema/capabilities.schema.json");
const COMPOSITION_SCHEMA: &str = include_str!("../../../../manifests/schema/composition.schema.json");

/// Errors, and warnings when there are none.
pub(crate) type Checked = (Vec<Finding>, Vec<String>);

/// Checks a capability's manifest.
pub(crate) fn manifest(path: &Path, text: &str) -> Checked {
    let document = json(text);
    let parsed = Manifest::parse(text).map_err(|error| {
        let (place, key) = match &error {
            ManifestError::Malformed { line, column, .. } => (Some((*line, *column)), None),
            ManifestError::Invalid { key, .. } => (place_of(document.as_ref(), key), Some(key.clone())),
            ManifestError::UnsupportedVersion(_) => (place_of(document.as_ref(), "format_version"), None),
            ManifestError::TooLarge(_) => (None, None),
        };
        let message = match &error {
            ManifestError::Malformed { message, .. } => message.clone(),
            other => other.to_string(),
        };
        // A manifest of another version may differ in any key.
        let alone = matches!(error, ManifestError::UnsupportedVersion(_) | ManifestError::TooLarge(_));
        First { finding: Box::new(Finding { message, ..Finding::of(&error, place) }), key, alone }
    });
    let errors = gather(parsed.as_ref().err(), document.as_ref(), MANIFEST_SCHEMA, MANIFEST_FAULT);
    let warnings = match &parsed {
        Ok(manifest) if errors.is_empty() => {
            let mut warnings = machine::manifest_warnings(manifest, path);
            warnings.extend(odd_in_manifest(manifest));
            warnings
        }
        _ => Vec::new(),
    };
    (errors, warnings)
}

/// Checks an adapter's manifest.
pub(crate) fn adapter(path: &Path, text: &str) -> Checked {
    let document = json(text);
    let parsed = AdapterManifest::parse(text).map_err(|error| {
        let (place, key) = match &error {
            AdapterError::Malformed { line, column, .. } => (Some((*line, *column)), None),
            AdapterError::Empty { key } => (place_of(document.as_ref(), key), Some((*key).to_owned())),
            AdapterError::OtherUnit(_) => (place_of(document.as_ref(), "unit"), Some("unit".to_owned())),
            AdapterError::TooLarge(_) => (None, None),
        };
        let message = match &error {
            AdapterError::Malformed { message, .. } => message.clone(),
            other => other.to_string(),
        };
        First { finding: Box::new(Finding { message, ..Finding::of(&error, place) }), key, alone: false }
    });
    let errors = gather(parsed.as_ref().err(), document.as_ref(), ADAPTER_SCHEMA, ADAPTER_FAULT);
    let mut warnings = Vec::new();
    if let (Ok(adapter), true) = (&parsed, errors.is_empty()) {
        let named = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let in_manifests = std::path::absolute(path)
            .is_ok_and(|path| path.parent().is_some_and(|dir| dir.ends_with("manifests")));
        if let Some(expected) =
            adapter.file_name().filter(|expected| in_manifests && named.as_ref() != Some(expected))
        {
            warnings.push(format!("the file should be named {expected}"));
        }
        let members = &adapter.protocol_members;
        if members.methods.is_empty() && members.properties.is_empty() {
            warnings.push("protocol_members: asks for nothing, so that every tool fits".to_owned());
        }
    }
    (errors, warnings)
}

/// Checks a list of capabilities.
pub(crate) fn capabilities(path: &Path, text: &str) -> Checked {
    let document = Placed::parse(text).ok();
    let parsed = CapabilitiesFile::parse(text).map_err(|error| {
        let pointer = match &error {
            CapabilitiesFileError::Invalid { entry, .. } => entry_pointer(document.as_ref(), entry),
            CapabilitiesFileError::Malformed(_) => None,
        };
        let place = pointer.as_ref().and_then(|pointer| document.as_ref()?.place(pointer));
        let key = pointer.map(|pointer| pointer.trim_start_matches('/').replace('/', "."));
        First { finding: Box::new(Finding::of(&error, place)), key, alone: false }
    });
    let errors =
        gather(parsed.as_ref().err(), document.as_ref(), CAPABILITIES_SCHEMA, CAPABILITIES_FILE_FAULT);
    match &parsed {
        Ok(file) if errors.is_empty() => entries(file, document.as_ref(), path),
        _ => (errors, Vec::new()),
    }
}

/// What `install-all` would refuse of the entries; where that is a manifest, all that is wrong with it.
fn entries(file: &CapabilitiesFile, document: Option<&Placed>, path: &Path) -> Checked {
    let base = base_of(path);
    let mut errors = Vec::new();
    for Refusal { entry, error } in refusals(file, &base) {
        let named = &file.capabilities[entry];
        if let (EnvironmentError::Manifest { .. }, Some(named)) = (&error, &named.manifest) {
            let manifest_path = base.join(named);
            let text = read_regular_to_string(&manifest_path, MANIFEST_BYTES_MAX as u64).unwrap_or_default();
            let found = manifest(&manifest_path, &text).0;
            errors.extend(found.into_iter().map(|finding| finding.in_file(&manifest_path)));
            continue;
        }
        errors.push(match &error {
            EnvironmentError::BrokenProject { path, line, column, message } => {
                let place = Some((*line, *column));
                let finding = Finding { message: message.clone(), ..Finding::of(&error, place) };
                finding.in_file(path)
            }
            _ => {
                let place = document.and_then(|document| document.place(&format!("/capabilities/{entry}")));
                let message = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source())
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(": ");
                let message = format!("entry \"{}\": {message}", named.name);
                Finding { message, ..Finding::of(&error, place) }
            }
        });
    }
    (errors, machine::capabilities_warnings(file, &base))
}

/// Checks a composition.
pub(crate) fn composition(text: &str, catalog: &Catalog) -> Checked {
    let document = Placed::parse(text).ok();
    let first = |error: &dyn Described, key: Option<String>| {
        let place = key.as_ref().and_then(|key| place_of(document.as_ref(), key));
        First { finding: Box::new(Finding::of(error, place)), key, alone: false }
    };
    let parsed = Composition::parse(text)
        .map_err(|error| {
            let key = match &error {
                CompositionError::Invalid { place, .. } => Some(place.clone()),
                CompositionError::Malformed(_)
                | CompositionError::Inexact
                | CompositionError::TooLarge(_) => None,
            };
            first(&error, key)
        })
        .and_then(|composition| match Graph::build(&composition) {
            Ok(_) => Ok(composition),
            Err(error) => {
                let key = match &error {
                    GraphError::UnknownNode { place, .. } | GraphError::SelfReference { place, .. } => {
                        Some(place.clone())
                    }
                    GraphError::Cycle { path } => path.first().map(|node| format!("nodes.{node}")),
                    GraphError::Document(_) => None,
                };
                Err(first(&error, key))
            }
        });
    let errors = gather(parsed.as_ref().err(), document.as_ref(), COMPOSITION_SCHEMA, COMPOSITION_FAULT);
    let warnings = match &parsed {
        Ok(composition) if errors.is_empty() => machine::composition_warnings(composition, catalog),
        _ => Vec::new(),
    };
    (errors, warnings)
}

/// A YAML reader takes more than JSON; what is no JSON has no places.
fn json(text: &str) -> Option<Placed> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    Placed::parse(text).ok()
}

/// What the parser ended at.
struct First {
    finding: Box<Finding>,
    /// Dotted keys of what it is about.
    key: Option<String>,
    /// Nothing else is worth saying.
    alone: bool,
}

/// The parser's fault first, then those of the schema that are about something else.
fn gather(first: Option<&First>, document: Option<&Placed>, schema: &str, code: &str) -> Vec<Finding> {
    let mut findings: Vec<Finding> = first.iter().map(|first| (*first.finding).clone()).collect();
    let Some(document) = document.filter(|_| first.is_none_or(|first| !first.alone)) else { return findings };
    let schema: Value = serde_json::from_str(schema).unwrap_or_default();
    let Ok(validator) = jsonschema::validator_for(&schema) else { return findings };
    for error in validator.iter_errors(&document.value) {
        let pointer = error.instance_path().to_string();
        let key = pointer.trim_start_matches('/').replace('/', ".");
        let place = document.place(&pointer);
        if let Some(first) = first.filter(|first| says_the_same(first, &key, place)) {
            // A reader of YAML has its place in its words alone.
            if first.finding.place.is_none() && findings[0].place.is_none() {
                findings[0].place = place;
            }
            continue;
        }
        let message = if key.is_empty() { error.to_string() } else { format!("{key}: {error}") };
        let next_step = "correct it; `manifests/schema` describes every key".to_owned();
        let finding = Finding { code: code.to_owned(), message, next_step, file: None, place };
        if findings.len() < FINDINGS_MAX && !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings
}

/// Whether a fault of the schema at `key` is about what the parser ended at: the same thing, something in it, or that
/// which holds it.
fn says_the_same(first: &First, key: &str, place: Option<Place>) -> bool {
    let within = |inner: &str, outer: &str| {
        inner == outer
            || outer.is_empty()
            || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
    };
    match &first.key {
        Some(known) => within(known, key) || within(key, known),
        None => {
            first.finding.place.is_none()
                || place.map(|(line, _)| line) == first.finding.place.map(|(line, _)| line)
        }
    }
}

fn place_of(document: Option<&Placed>, dotted: &str) -> Option<Place> {
    document.and_then(|document| document.place_of_keys(dotted))
}

/// Where the entry is that the parser calls `"name"` or `number 3`.
fn entry_pointer(document: Option<&Placed>, entry: &str) -> Option<String> {
    let entries = document?.value.get("capabilities")?.as_array()?;
    let index = match entry.strip_prefix("number ") {
        Some(number) => number.parse::<usize>().ok()?.checked_sub(1)?,
        // Of two with one name, the second is the one too many.
        None => entries
            .iter()
            .rposition(|known| known.get("name").and_then(Value::as_str) == Some(entry.trim_matches('"')))?,
    };
    Some(format!("/capabilities/{index}"))
}

/// What is allowed and of no use.
fn odd_in_manifest(manifest: &Manifest) -> Vec<String> {
    let schema = manifest.code.config_schema.as_ref();
    let properties = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    let single = properties.into_iter().flatten().filter_map(|(name, property)| {
        let choices = property.get("enum")?.as_array().filter(|choices| choices.len() == 1)?;
        Some(format!("code.config_schema.properties.{name}.enum: {} is the only choice there is", choices[0]))
    });
    let resources = manifest.code.resources.as_ref();
    let stale = STALE_RESOURCES
        .iter()
        .filter(|key| resources.is_some_and(|resources| resources.get(**key).is_some()))
        .map(|key| format!("code.resources.{key}: nobody reads it; what a tool needs is measured"));
    single.chain(stale).collect()
}
