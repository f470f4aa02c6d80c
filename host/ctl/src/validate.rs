//! `validate`: says what is wrong with a file, with its place, and what on this machine it would lack. It runs
//! nothing.

use crate::cli::{Format, Global, ValidateArgs};
use crate::fault::{CommandResult, Fault};
use crate::output::Output;
use crate::validate_machine as machine;
use cjm_decide::composition::{Graph, GraphError};
use cjm_engine::Catalog;
use cjm_wire::Manifest;
use cjm_wire::capabilities_file::{CapabilitiesFile, CapabilitiesFileError};
use cjm_wire::composition::{Composition, CompositionError};
use cjm_wire::describe::{Described, exit};
use cjm_wire::manifest::ManifestError;
use serde_json::{Value, json};
use std::path::Path;

/// Largest file that is looked at, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    code: String,
    message: String,
    next_step: String,
    /// Line and column, from 1.
    place: Option<(usize, usize)>,
}

/// Runs the command.
pub(crate) fn run(global: &Global, args: &ValidateArgs, output: &Output) -> CommandResult {
    let path = &args.path;
    let text = read(path)?;
    let format = match args.format.or_else(|| detect(path, &text)) {
        Some(format) => format,
        None => {
            return Err(Fault::new(
                "validate.unknown_format",
                format!("{} is neither JSON nor YAML by its name", path.display()),
                "say what it is with --format manifest, capabilities_yaml or composition",
            ));
        }
    };
    let checked = match format {
        Format::Manifest => check_manifest(path, &text),
        Format::CapabilitiesYaml => check_capabilities(path, &text),
        Format::Composition => {
            let catalog = Catalog::discover(&global.settings()?.manifest_dirs());
            check_composition(&text, &catalog)
        }
    };
    let (errors, warnings) = match checked {
        Ok(warnings) => (Vec::new(), warnings),
        Err(finding) => (vec![finding], Vec::new()),
    };
    let code = if errors.is_empty() { exit::OK } else { exit::DOMAIN };
    if output.json {
        let list = |findings: &[Finding]| findings.iter().map(Finding::document).collect::<Value>();
        output.document(&json!({
            "path": path,
            "kind": kind(format),
            "valid": errors.is_empty(),
            "errors": list(&errors),
            "warnings": warnings,
        }))?;
        return Ok(code);
    }
    show(output, path, kind(format), &errors, &warnings)?;
    Ok(code)
}

fn show(
    output: &Output,
    path: &Path,
    kind: &str,
    errors: &[Finding],
    warnings: &[String],
) -> Result<(), Fault> {
    let path = path.display();
    if errors.is_empty() {
        let qualified = if warnings.is_empty() { "" } else { " (with warnings)" };
        output.line(&format!("✓ {path} ({kind}): valid{qualified}"))?;
    } else {
        let mut text = format!("✗ {path} ({kind}): {} error(s)", errors.len());
        for error in errors {
            text.push_str(&format!("\n  - {}\n    next: {}", error.text(), error.next_step));
        }
        output.error(&text);
    }
    if !warnings.is_empty() {
        let mut text = format!("⚠ {path} ({kind}): {} warning(s)", warnings.len());
        for warning in warnings {
            text.push_str(&format!("\n  - {warning}"));
        }
        output.error(&text);
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Fault> {
    let failed = |error: std::io::Error| {
        Fault::new("validate.unreadable", format!("cannot read {}", path.display()), "check the path")
            .caused_by(&error)
    };
    let meta = std::fs::metadata(path).map_err(failed)?;
    if meta.is_dir() {
        return Err(Fault::new(
            "validate.directory",
            format!("{} is a directory", path.display()),
            "name a manifest, a capabilities.yaml or a composition in it",
        ));
    }
    if meta.len() > FILE_BYTES_MAX {
        return Err(Fault::new(
            "validate.too_large",
            format!("{} is {} bytes long, more than any such file is", path.display(), meta.len()),
            "check the path",
        ));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// By name; a YAML file by its content.
fn detect(path: &Path, text: &str) -> Option<Format> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let keyed: Option<Value> = serde_json::from_str(text).ok();
    match extension {
        "json" if keyed.as_ref().is_some_and(|value| value.get("nodes").is_some()) => {
            Some(Format::Composition)
        }
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

fn kind(format: Format) -> &'static str {
    match format {
        Format::Manifest => "manifest",
        Format::CapabilitiesYaml => "capabilities.yaml",
        Format::Composition => "composition",
    }
}

fn check_manifest(path: &Path, text: &str) -> Result<Vec<String>, Finding> {
    if serde_json::from_str::<Value>(text)
        .is_ok_and(|value| value.get("unit").is_some_and(|unit| unit == "adapter"))
    {
        return Err(Finding {
            code: "manifest.adapter".into(),
            message: "is the manifest of an adapter, not of a capability".into(),
            next_step: "validate the capability's manifest; install-all writes the adapter's".into(),
            place: None,
        });
    }
    let manifest = Manifest::parse(text).map_err(|error| {
        let place = match &error {
            ManifestError::Malformed { line, column, .. } => Some((*line, *column)),
            ManifestError::Invalid { key, .. } => locate(text, key),
            ManifestError::UnsupportedVersion(_) => locate(text, "format_version"),
            ManifestError::TooLarge(_) => None,
        };
        let message = match &error {
            ManifestError::Malformed { message, .. } => message.clone(),
            other => other.to_string(),
        };
        Finding { message, ..Finding::of(&error, place) }
    })?;
    Ok(machine::manifest_warnings(&manifest, path))
}

fn check_capabilities(path: &Path, text: &str) -> Result<Vec<String>, Finding> {
    let file = CapabilitiesFile::parse(text).map_err(|error| {
        let place = match &error {
            CapabilitiesFileError::Invalid { entry, .. } => locate_text(text, entry.trim_matches('"')),
            CapabilitiesFileError::Malformed(_) => None,
        };
        Finding::of(&error, place)
    })?;
    Ok(machine::capabilities_warnings(&file, path))
}

fn check_composition(text: &str, catalog: &Catalog) -> Result<Vec<String>, Finding> {
    let composition = Composition::parse(text).map_err(|error| {
        let place = match &error {
            CompositionError::Invalid { place, .. } => locate(text, place),
            CompositionError::Malformed(_) | CompositionError::TooLarge(_) => None,
        };
        Finding::of(&error, place)
    })?;
    if let Err(error) = Graph::build(&composition) {
        let place = match &error {
            GraphError::UnknownNode { place, .. } | GraphError::SelfReference { place, .. } => {
                locate(text, place)
            }
            GraphError::Cycle { path } => {
                path.first().and_then(|node| locate(text, &format!("nodes.{node}")))
            }
            GraphError::Document(_) => None,
        };
        return Err(Finding::of(&error, place));
    }
    Ok(machine::composition_warnings(&composition, catalog))
}

impl Finding {
    fn of(error: &dyn Described, place: Option<(usize, usize)>) -> Self {
        Self {
            code: error.code().to_owned(),
            message: error.to_string(),
            next_step: error.next_step(),
            place,
        }
    }

    fn text(&self) -> String {
        match self.place {
            Some((line, column)) => {
                format!("line {line}, column {column}: {}", self.message.trim_end().replace('\n', "\n    "))
            }
            None => self.message.trim_end().replace('\n', "\n    "),
        }
    }

    fn document(&self) -> Value {
        json!({
            "code": self.code,
            "message": self.message,
            "line": self.place.map(|(line, _)| line),
            "column": self.place.map(|(_, column)| column),
            "next_step": self.next_step,
        })
    }
}

/// Where a dotted path of keys stands in JSON or YAML: each key after the one before it. Good enough to lead a reader
/// to the line; a key that is missing leads to its parent.
fn locate(text: &str, dotted: &str) -> Option<(usize, usize)> {
    let mut at = 0;
    let mut found = None;
    for key in dotted.split('.') {
        let rest = &text[at..];
        let candidates = [format!("\"{key}\""), format!("{key}:"), format!("'{key}'")];
        let next = candidates.iter().filter_map(|written| {
            rest.match_indices(written.as_str()).map(|(offset, _)| offset).find(|offset| {
                let before = rest[..*offset].chars().next_back();
                before.is_none_or(|c| !c.is_alphanumeric() && !"_-\"'".contains(c))
            })
        });
        let Some(offset) = next.min() else { break };
        found = Some(at + offset);
        at += offset + key.len();
    }
    found.map(|offset| line_and_column(text, offset))
}

fn locate_text(text: &str, needle: &str) -> Option<(usize, usize)> {
    text.find(needle).map(|offset| line_and_column(text, offset))
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_where_they_stand() {
        let json = "{\n  \"install\": {\"name\": 1},\n  \"code\": {\n    \"name\": \"x\"\n  }\n}";
        assert_eq!(locate(json, "code.name"), Some((4, 5)));
        assert_eq!(locate(json, "code.missing"), Some((3, 3)));
        assert_eq!(locate(json, "nowhere"), None);
        let yaml = "nodes:\n  ab: {}\n  b:\n    args: {}\n";
        assert_eq!(locate(yaml, "nodes.b.args"), Some((4, 5)));
    }

    #[test]
    fn files_are_known_by_name_and_content() {
        for (name, text, format) in [
            ("m.json", "{", Some(Format::Manifest)),
            ("c.json", "{\"nodes\": {}}", Some(Format::Composition)),
            ("c.yaml", "capabilities:\n  a: {}\nnodes:\n  x: 1\n", Some(Format::Composition)),
            ("capabilities.yml", "capabilities:\n- nodes: 1\n", Some(Format::CapabilitiesYaml)),
            ("x.txt", "", None),
        ] {
            assert_eq!(detect(Path::new(name), text), format, "{name}");
        }
    }
}
