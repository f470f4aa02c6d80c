//! What a file is, by its name and its content.

use crate::cli::Format;
use cjm_wire::adapter::is_adapter;
use serde_json::Value;
use std::path::Path;

/// Largest file that is looked at, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// By name; a YAML file by its content.
pub(crate) fn detect(path: &Path, text: &str) -> Option<Format> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let keyed: Option<Value> = serde_json::from_str(text).ok();
    match extension {
        "json" if keyed.as_ref().is_some_and(|value| value.get("nodes").is_some()) => {
            Some(Format::Composition)
        }
        "json" if is_adapter(text) => Some(Format::Adapter),
        "json" => Some(Format::Manifest),
        "yaml" | "yml" => {
            let has = |key: &str| {
                text.lines().any(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))
            };
            Some(if has("nodes") { Format::Composition } else { Format::CapabilitiesYaml })
        }
        _ => None,
    }
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
            ("capabilities.yml", "capabilities:\n- nodes: 1\n", Some(Format::CapabilitiesYaml)),
            ("x.txt", "", None),
        ] {
            assert_eq!(detect(Path::new(name), text), format, "{name}");
        }
    }
}
