//! What a file is, by its name and its content.

use crate::cli::Format;
use cjm_wire::adapter::is_adapter;
use cjm_wire::placed::Placed;
use cjm_wire::settings_file::SETTINGS_FILE;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Largest file that is looked at, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The list of a project, by its usual names.
const LISTS: [&str; 2] = ["capabilities.yaml", "capabilities.yml"];
/// What an entry of a list has.
const ENTRY_KEYS: [&str; 3] = ["name", "package", "manifest"];
/// Only compositions have it.
const NODES: &str = "nodes";
/// What a composition has whose author missed the name of its nodes.
const NEARLY_NODES: [&str; 2] = ["node", "inputs"];

/// By name; a YAML file by its keys. None when it is nothing that we know.
pub(crate) fn detect(path: &Path, text: &str) -> Option<Format> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension {
        _ if name == SETTINGS_FILE => Some(Format::Settings),
        "json" if has_nodes(text) => Some(Format::Composition),
        "json" if is_adapter(text) => Some(Format::Adapter),
        "json" => Some(Format::Manifest),
        "yaml" | "yml" => {
            let keys = keys(text);
            let has = |key: &str| keys.iter().any(|known| known == key);
            if has(NODES) {
                Some(Format::Composition)
            } else if has("capabilities") || LISTS.contains(&name) {
                Some(Format::CapabilitiesYaml)
            } else if NEARLY_NODES.iter().any(|key| has(key)) {
                Some(Format::Composition)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// Whether it is a list of capabilities without its key. Other programs have lists of things with names, too: that is asked
/// of a file that somebody names, and not of one that lies somewhere.
pub(crate) fn is_bare_list(path: &Path, text: &str) -> bool {
    let Some(Placed { value, .. }) = is_yaml(path).then(|| Placed::parse(text).ok()).flatten() else {
        return false;
    };
    let is_entry = |element: &Value| ENTRY_KEYS.iter().any(|key| element.get(key).is_some());
    value.as_array().is_some_and(|elements| !elements.is_empty() && elements.iter().all(is_entry))
}

/// Whether nothing is in it: of a YAML file, nothing but comments.
pub(crate) fn is_empty(path: &Path, text: &str) -> bool {
    let is_nothing = || Placed::parse(text).is_ok_and(|document| document.value.is_null());
    text.trim().is_empty() || (is_yaml(path) && is_nothing())
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Whether it is a composition for certain: other programs' files have inputs as well.
pub(crate) fn has_nodes(text: &str) -> bool {
    keys(text).iter().any(|key| key == NODES)
}

/// The keys of the whole document; of one that cannot be read, those that begin a line.
pub(crate) fn keys(text: &str) -> Vec<String> {
    if let Ok(document) = Placed::parse(text) {
        return document.value.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default();
    }
    // How deep JSON is says nothing of its own keys.
    if let Ok(document) = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(text) {
        return document.into_keys().collect();
    }
    let named = |c: char| c.is_alphanumeric() || c == '_';
    let key = |line: &str| {
        let (key, _) = line.split_once(':')?;
        (!key.is_empty() && key.chars().all(named)).then(|| key.to_owned())
    };
    text.lines().filter_map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_name_and_content() {
        for (name, text, format) in [
            ("m.json", "{", Some(Format::Manifest)),
            ("m.json", "{\"unit\": \"adapter\"}", Some(Format::Adapter)),
            ("c.json", "{\"nodes\": {}}", Some(Format::Composition)),
            ("c.yaml", "capabilities:\n  a: {}\nnodes:\n  x: 1\n", Some(Format::Composition)),
            ("c.yaml", "{name: f, nodes: {}}", Some(Format::Composition)),
            ("c.yaml", "name: f\nnode:\n  x: 1\n", Some(Format::Composition)),
            ("c.yaml", "nodes:\n  x: [\n", Some(Format::Composition)),
            ("capabilities.yml", "capabilities:\n- nodes: 1\n", Some(Format::CapabilitiesYaml)),
            ("capabilities.yaml", "capabilites: []\n", Some(Format::CapabilitiesYaml)),
            ("tools.yaml", "{capabilities: []}", Some(Format::CapabilitiesYaml)),
            ("tools.yaml", "capabilites: []\n", None),
            ("x.yaml", "foo: 1\n", None),
            ("x.yaml", "- 1\n", None),
            ("cjm.yaml", "capabilities: 1\n", Some(Format::Settings)),
            ("x.txt", "", None),
            (
                "c.json",
                &format!("{{\"nodes\": {}{}}}", "[".repeat(5_000), "]".repeat(5_000)),
                Some(Format::Composition),
            ),
        ] {
            assert_eq!(detect(Path::new(name), text), format, "{name}: {text}");
        }
    }
}
