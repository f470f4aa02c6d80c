//! Checks documents: by the parser that reads them when they are used, whose word counts, and by the published schema,
//! which finds all faults where the parser ends at the first.

use crate::named_list::with_list;
use crate::validate::finding::Finding;
use crate::validate::known;
use crate::validate::machine;
pub(crate) use crate::validate::machine::base_of;
use crate::validate::mended::{Mended, mended};
use crate::validate::mended_manifest;
use crate::validate::schema::{
    ADAPTER_FAULT, CAPABILITIES_FILE_FAULT, COMPOSITION_FAULT, First, MANIFEST_FAULT, gather,
};
use cjm_catalog::plain_path::plain_path;
use cjm_catalog::{Catalog, MANIFEST_BYTES_MAX};
use cjm_decide::composition::{Graph, GraphError};
use cjm_environments::{EnvironmentError, Refusal, refusals};
use cjm_platform::files::read_regular_to_string;
use cjm_wire::Manifest;
use cjm_wire::adapter::{AdapterError, AdapterManifest};
use cjm_wire::capabilities_file::{CapabilitiesFile, CapabilitiesFileError, Entry, WrongKind};
use cjm_wire::composition::{Composition, CompositionError};
use cjm_wire::describe::ErrorReport;
use cjm_wire::manifest::ManifestError;
use cjm_wire::placed::{Place, Placed};
use cjm_wire::suggestions::{in_words, suggestions};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::Path;

/// Resource keys that the host once read; what a tool needs is measured now.
const STALE_RESOURCES: [&str; 3] = ["min_gpu_vram_mb", "recommended_gpu_vram_mb", "min_system_ram_mb"];

/// A key of `code` that looking into a class gives.
const SAID_BY_CLASS: &str = "actions";

const MANIFEST_SCHEMA: &str = include_str!("../../../../manifests/schema/manifest-2.0.schema.json");
const ADAPTER_SCHEMA: &str = include_str!("../../../../manifests/schema/adapter-manifest.schema.json");
const CAPABILITIES_SCHEMA: &str = include_str!("../../../../manifests/schema/capabilities.schema.json");
const COMPOSITION_SCHEMA: &str = include_str!("../../../../manifests/schema/composition.schema.json");

/// Errors, and warnings when there are none.
pub(crate) type Checked = (Vec<Finding>, Vec<String>);

/// Checks a capability's manifest.
pub(crate) fn manifest(path: &Path, text: &str) -> Checked {
    let document = json(text);
    let Some(put_in) = document.as_ref().and_then(|document| with_runtime_in_code(&document.value)) else {
        return manifest_as_it_is(path, text, document.as_ref());
    };
    let message = "belongs into `code`".to_owned();
    let misplaced = ManifestError::Invalid { key: "runtime".to_owned(), message };
    let mut errors = vec![Finding {
        message: misplaced.to_string(),
        ..Finding::of(&misplaced, place_of(document.as_ref(), "runtime"))
    }];
    // What is no fault with it in its place is none.
    let (left, _) = manifest(path, &put_in.to_string());
    let (found, _) = manifest_as_it_is(path, text, document.as_ref());
    errors.extend(found.into_iter().filter(|one| left.iter().any(|other| other.message == one.message)));
    (errors, Vec::new())
}

/// The manifest with the `runtime` in `code` that stands beside it, where nobody reads it; None where none does.
fn with_runtime_in_code(document: &Value) -> Option<Value> {
    let mut manifest = document.as_object()?.clone();
    let runtime = manifest.remove("runtime")?;
    let code = manifest.entry("code").or_insert_with(|| Value::Object(Map::new())).as_object_mut()?;
    if code.contains_key("runtime") {
        return None;
    }
    code.insert("runtime".to_owned(), runtime);
    Some(Value::Object(manifest))
}

fn manifest_as_it_is(path: &Path, text: &str, document: Option<&Placed>) -> Checked {
    let (parsed, faults) = match Manifest::read(text) {
        Ok(manifest) => {
            let faults = manifest.faults();
            (Some(manifest), faults)
        }
        Err(error) => {
            // A manifest of another version may differ in any key; in this one a fault of form hides no rule.
            let of_form = document.filter(|_| matches!(error, ManifestError::Malformed { .. }));
            let rules =
                of_form.map(|document| mended_manifest::rules_broken(&document.value, MANIFEST_SCHEMA));
            (None, std::iter::once(error).chain(rules.unwrap_or_default()).collect())
        }
    };
    let mended = parsed.is_none();
    let first = |error: ManifestError| {
        let (place, key) = match &error {
            ManifestError::Malformed { line, column, .. } => (Some((*line, *column)), None),
            ManifestError::Invalid { key, .. } => (place_of(document, key), Some(key.clone())),
            ManifestError::UnsupportedVersion { .. } => (place_of(document, "format_version"), None),
            ManifestError::TooLarge(_) => (None, None),
        };
        let message = match &error {
            ManifestError::Malformed { message, .. } => message.clone(),
            other => other.to_string(),
        };
        // A manifest of another version may differ in any key.
        let alone = matches!(error, ManifestError::UnsupportedVersion { .. } | ManifestError::TooLarge(_));
        let finding = Box::new(Finding { message, ..Finding::of(&error, place) });
        First { finding, key, alone, mended }
    };
    let firsts: Vec<First> = faults.into_iter().map(first).collect();
    let errors = gather(&firsts, document, MANIFEST_SCHEMA, MANIFEST_FAULT);
    let warnings = match &parsed {
        Some(manifest) if errors.is_empty() => {
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
        let finding = Box::new(Finding { message, ..Finding::of(&error, place) });
        First { finding, key, alone: false, mended: false }
    });
    let errors = gather(
        parsed.as_ref().err().map_or(&[], std::slice::from_ref),
        document.as_ref(),
        ADAPTER_SCHEMA,
        ADAPTER_FAULT,
    );
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

/// Checks a list of capabilities, and holds it against the `manifests` of what is installed, where that is known.
pub(crate) fn capabilities(path: &Path, text: &str, manifests: Option<&Path>) -> Checked {
    let document = Placed::parse(text).ok();
    let parsed = CapabilitiesFile::parse_each(text);
    let firsts: Vec<First> = match &parsed {
        Ok(file) => {
            let entries = file.capabilities.iter().enumerate();
            let faults = entries.filter_map(|(index, entry)| Some((index, entry.fault.as_ref()?)));
            faults.flat_map(|(index, fault)| firsts_of_list(fault, document.as_ref(), Some(index))).collect()
        }
        Err(error) => firsts_of_list(error, document.as_ref(), None),
    };
    let mut errors = gather(&firsts, document.as_ref(), CAPABILITIES_SCHEMA, CAPABILITIES_FILE_FAULT);
    if let Ok(file) = &parsed {
        errors.extend(refused(file, document.as_ref(), &plain_path(path), manifests));
    }
    errors.iter_mut().for_each(|error| error.next_step = with_list(&error.next_step, path));
    let Ok(file) = parsed else { return (errors, Vec::new()) };
    let mut warnings = file.unread.clone();
    let of_entry = |entry: &Entry| {
        let name = entry.name.clone();
        entry.unread.clone().into_iter().map(move |key| format!("entry \"{name}\": {key}"))
    };
    warnings.extend(file.capabilities.iter().flat_map(of_entry));
    if errors.is_empty() {
        warnings.extend(machine::capabilities_warnings(&file, &base_of(path)));
    }
    (errors, warnings)
}

/// What the parser says of a list or of the entry of this index in it: of values of a wrong kind, of each at its own
/// place. Its name would not do: several may have it.
fn firsts_of_list(
    error: &CapabilitiesFileError,
    document: Option<&Placed>,
    index: Option<usize>,
) -> Vec<First> {
    // Without the list there is nothing that a schema could say more of.
    use CapabilitiesFileError::{NoKey, NoList, NotAList};
    let alone = matches!(error, NoList(_) | NoKey | NotAList(_));
    let first = |pointer: Option<&str>, finding: Finding| {
        let key = pointer.map(|pointer| pointer.trim_start_matches('/').replace('/', "."));
        First { finding: Box::new(finding), key, alone, mended: false }
    };
    match error {
        CapabilitiesFileError::WrongKind { entry, faults } => {
            let of_one = |fault: &WrongKind| {
                let message = format!("entry {entry}: {}", fault.message);
                let alone =
                    CapabilitiesFileError::WrongKind { entry: entry.clone(), faults: vec![fault.clone()] };
                first(Some(&fault.pointer), Finding { message, ..Finding::of(&alone, fault.place) })
            };
            faults.iter().map(of_one).collect()
        }
        CapabilitiesFileError::Invalid { .. } => {
            let pointer = index.map(|index| format!("/capabilities/{index}"));
            let place = pointer.as_ref().and_then(|pointer| document?.place(pointer));
            vec![first(pointer.as_deref(), Finding::of(error, place))]
        }
        NotAList(_) => {
            let place = document.and_then(|document| document.place("/capabilities"));
            vec![first(None, Finding::of(error, place))]
        }
        CapabilitiesFileError::Malformed(_) | NoList(_) | NoKey => {
            vec![first(None, Finding::of(error, None))]
        }
    }
}

/// What `install-all` would refuse of the entries; where that is a manifest, all that is wrong with it.
fn refused(
    file: &CapabilitiesFile,
    document: Option<&Placed>,
    list: &Path,
    manifests: Option<&Path>,
) -> Vec<Finding> {
    let base = list.parent().unwrap_or(Path::new("/"));
    let mut errors = Vec::new();
    for Refusal { entry, error } in refusals(file, list, manifests) {
        let named = &file.capabilities[entry];
        if let (EnvironmentError::Manifest { .. }, Some(named)) = (&error, &named.manifest) {
            let manifest_path = plain_path(&base.join(named));
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
                let ErrorReport { message, causes, .. } = ErrorReport::of(&error);
                let words = std::iter::once(message).chain(causes).collect::<Vec<_>>().join(": ");
                let message = format!("entry \"{}\": {words}", named.name);
                Finding { message, ..Finding::of(&error, place) }
            }
        });
    }
    errors
}

/// Checks a composition, and holds it against what is installed, where that is known.
pub(crate) fn composition(text: &str, catalog: Option<&Catalog>) -> Checked {
    let document = Placed::parse(text).ok();
    let first = |error: GraphError| {
        let key = key_of(&error);
        let place = key.as_ref().and_then(|key| place_of(document.as_ref(), key));
        let alone = matches!(error, GraphError::Document(CompositionError::TooLarge(_)));
        First { finding: Box::new(Finding::of(&error, place)), key, alone, mended: true }
    };
    let mut changed = BTreeSet::new();
    let (readable, faults, refused) = match Composition::read(text) {
        Ok(composition) => {
            let faults = Graph::faults(&composition);
            (Some(composition), faults, None)
        }
        // What has another form than it should hides nothing of the rest.
        Err(error) => {
            let document = document.as_ref().filter(|_| !matches!(error, CompositionError::TooLarge(_)));
            let mended = document.and_then(|document| mended(&document.value, COMPOSITION_SCHEMA));
            let faults = mended.as_ref().map(Mended::faults).unwrap_or_default();
            let readable = mended.map(|mended| {
                changed = mended.changed;
                mended.composition
            });
            (readable, faults, Some(error))
        }
    };
    let refused = refused.map(GraphError::from).into_iter();
    let known = readable.iter().zip(catalog);
    let refused_here =
        known.flat_map(|(readable, known)| known::refused_arguments(readable, &changed, known));
    let mut firsts: Vec<First> = refused.chain(faults).chain(refused_here).map(first).collect();
    let not_taken = readable
        .iter()
        .zip(catalog)
        .flat_map(|(readable, known)| known::configuration_faults(readable, known));
    firsts.extend(not_taken.map(|(key, error, message)| {
        let finding = Finding::of(&error, place_of(document.as_ref(), &key));
        let finding = Box::new(Finding { message, ..finding });
        First { finding, key: Some(key), alone: false, mended: true }
    }));
    let errors = gather(&firsts, document.as_ref(), COMPOSITION_SCHEMA, COMPOSITION_FAULT);
    let warnings = readable
        .zip(catalog)
        .map(|(readable, catalog)| known::composition_warnings(&readable, &changed, catalog));
    (errors, warnings.unwrap_or_default())
}

/// The dotted path of what a fault is about.
fn key_of(error: &GraphError) -> Option<String> {
    match error {
        GraphError::Document(CompositionError::Invalid { place, .. })
        | GraphError::UnknownNode { place, .. }
        | GraphError::SelfReference { place, .. }
        | GraphError::Uncalled { place, .. }
        | GraphError::ArgumentType { place, .. } => Some(place.clone()),
        GraphError::Cycle { path } => path.first().map(|node| format!("nodes.{node}")),
        GraphError::Document(_) => None,
    }
}

/// A YAML reader takes more than JSON; what is no JSON has no places.
fn json(text: &str) -> Option<Placed> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    Placed::parse(text).ok()
}

fn place_of(document: Option<&Placed>, dotted: &str) -> Option<Place> {
    document.and_then(|document| document.place_of_keys(dotted))
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
    single.chain(stale).chain(mistyped_in_manifest(manifest)).collect()
}

/// Keys beside those that are read, where one is like them: others a manifest may have, which survive a rewrite.
fn mistyped_in_manifest(manifest: &Manifest) -> Vec<String> {
    let schema: Value = serde_json::from_str(MANIFEST_SCHEMA).unwrap_or_default();
    let mistyped = |(within, at, unknown): (&str, &str, &Map<String, Value>)| -> Vec<String> {
        let known = schema.pointer(at).and_then(Value::as_object);
        let told = |key: &String| {
            let meant = suggestions(key, known.into_iter().flatten().map(|(known, _)| known.as_str()));
            let words = in_words(&meant);
            (!meant.is_empty())
                .then(|| format!("{within}{key}: there is no such key{words}, and nobody reads it"))
        };
        unknown.keys().filter(|key| *key != SAID_BY_CLASS).filter_map(told).collect()
    };
    let places = [
        ("", "/properties", &manifest.unknown),
        ("code.", "/properties/code/properties", &manifest.code.unknown),
    ];
    places.into_iter().flat_map(mistyped).collect()
}
