//! Looks into an installed package with the interpreter of its own environment: which capability it holds, its
//! configuration, its surface, its adapters. What it answers comes from foreign code and is checked like any input.

use super::command::{command, run};
use super::error::EnvironmentError;
use super::package::{Package, Requirements};
use cjm_wire::capabilities_file::Entry;
use cjm_wire::manifest::Code;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;
use std::time::Duration;

/// How long importing a package may take; big ones read gigabytes.
const INTROSPECTION_TIMEOUT: Duration = Duration::from_secs(300);

/// What was found.
#[derive(Debug, Deserialize)]
pub(super) struct Introspected {
    /// The manifest's section `code`.
    pub(super) code: Code,
    /// Manifests of the adapters the entry names.
    #[serde(default)]
    pub(super) adapters: Vec<Map<String, Value>>,
}

/// Imports the entry's package and describes it.
///
/// # Errors
/// When it does not import, holds no capability or several, or describes itself in another shape.
pub(super) async fn introspect(
    python: &Path,
    sdk: &Path,
    entry: &Entry,
    requirements: &Requirements,
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<Introspected, EnvironmentError> {
    let mut question = command(python);
    question.env("PYTHONPATH", sdk).env("PYTHONDONTWRITEBYTECODE", "1").current_dir("/");
    question.args(["-m", "cjm_sdk.introspect"]);
    question.arg("--distribution").arg(distribution(requirements));
    for adapter in &entry.adapters {
        question.arg("--adapter").arg(&adapter.implementation);
    }
    let answer = run(question, "introspecting", INTROSPECTION_TIMEOUT, on_line).await?;
    if !answer.success {
        let last = answer.stderr_tail.last().cloned().unwrap_or_else(|| answer.ending.clone());
        return Err(EnvironmentError::Introspection { message: last, stderr_tail: answer.stderr_tail });
    }
    serde_json::from_slice(&answer.stdout).map_err(|error| EnvironmentError::Introspection {
        message: format!("it described itself in a shape we cannot read: {error}"),
        stderr_tail: answer.stderr_tail,
    })
}

/// Name of the entry's own distribution: of its folder, or the beginning of its requirement.
fn distribution(requirements: &Requirements) -> String {
    match requirements.packages.first() {
        Some(Package::Folder(folder)) => folder.distribution.clone().unwrap_or_else(|| {
            folder.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        }),
        Some(Package::Named(text)) => requirement_name(text).to_owned(),
        None => String::new(),
    }
}

fn requirement_name(text: &str) -> &str {
    let named = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    // `git+https://host/name.git@v1` has no name in front; its last part is one more often than not.
    let text = if text.contains("://") && !text.contains(" @ ") {
        let path = text.split(['@', '#', '?']).next().unwrap_or(text);
        path.trim_end_matches('/').rsplit('/').next().unwrap_or(path).trim_end_matches(".git")
    } else {
        text
    };
    let end = text.find(|c| !named(c)).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirement_names_its_distribution() {
        for (text, name) in [
            ("lab", "lab"),
            ("lab-capability==1.0", "lab-capability"),
            ("lab[extra]>=2,<3", "lab"),
            ("lab @ https://host/lab-1.0-py3-none-any.whl", "lab"),
            ("git+https://host/team/lab-tool.git@v1", "lab-tool"),
        ] {
            assert_eq!(requirement_name(text), name, "{text}");
        }
    }
}
