//! The manifest of a task adapter (`"unit": "adapter"`): which task it serves, which class it is, and what it asks of
//! the tool it is bound to. It lies beside the manifests of capabilities, `adapter-TASK-CLASS.json`, and is read and
//! written back like them: unknown keys survive, keys keep the ancestor's order.
//!
//! Which capability it fits is `decide`'s question; whether it can be imported there is its environment's.

use crate::InstanceId;
use crate::describe::Described;
use crate::manifest::MANIFEST_BYTES_MAX;
use crate::type_fault::{TypeFault, first_inexact, in_part, told};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The `unit` that tells such a manifest from a capability's, which has none.
pub const ADAPTER_UNIT: &str = "adapter";

/// One adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterManifest {
    /// [`ADAPTER_UNIT`].
    pub unit: String,
    /// `module.Class`, unique.
    pub name: String,
    /// Version of the package it comes from.
    #[serde(default = "no_version")]
    pub version: String,
    /// The task it serves, such as `graph-storage`.
    pub task_name: String,
    /// Module to import, in the environment of the tool.
    pub module: String,
    /// Class in it.
    pub class: String,
    /// Full name of the protocol that a tool has to fit; for people, nobody imports it.
    #[serde(default)]
    pub required_tool_protocol: String,
    /// What that protocol asks for.
    #[serde(default)]
    pub protocol_members: Members,
    /// JSON Schema of the adapter's own configuration (ancestor ≥ 0.0.74).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<Value>,
    /// When it was looked at.
    #[serde(default)]
    pub generated_at: String,
    /// The environment it was looked at in. Others may hold the same adapter.
    #[serde(default)]
    pub conda_env: String,
    /// Keys this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Public members of a class: of an adapter's protocol, or of a capability (`code.structural_surface`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Members {
    /// Methods, sorted by name.
    #[serde(default)]
    pub methods: Vec<Method>,
    /// Names of properties, sorted.
    #[serde(default)]
    pub properties: Vec<String>,
    /// Keys this version does not know, and a capability's `attributes`.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// One method.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// Its name.
    pub name: String,
    /// As Python writes it; for people, never compared.
    #[serde(default)]
    pub signature: String,
    /// Names of its parameters without `self`; absent when nobody recorded them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Vec<String>>,
    /// Keys this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Why an adapter's manifest is not one.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// Not JSON, or a key has the wrong type or is missing.
    #[error("line {line}, column {column}: {message}")]
    Malformed {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// It is the manifest of something else.
    #[error("`unit` is \"{0}\", not \"{ADAPTER_UNIT}\"")]
    OtherUnit(String),
    /// A key that must say something is empty.
    #[error("{key}: is empty")]
    Empty {
        /// The key.
        key: &'static str,
    },
    /// Above [`MANIFEST_BYTES_MAX`].
    #[error("{0} bytes long, more than the {MANIFEST_BYTES_MAX} allowed")]
    TooLarge(usize),
}

impl Described for AdapterError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "adapter.malformed",
            Self::OtherUnit(_) => "adapter.other_unit",
            Self::Empty { .. } => "adapter.invalid",
            Self::TooLarge(_) => "adapter.too_large",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Malformed { .. } | Self::Empty { .. } => {
                "run `cjm-ctl install-all --force`, which writes the manifests of all `adapters` of capabilities.yaml anew"
                    .to_owned()
            }
            Self::OtherUnit(_) => "use the manifest of an adapter; a capability's has no `unit`".to_owned(),
            Self::TooLarge(_) => "remove the file; no adapter needs that much".to_owned(),
        }
    }
}

impl AdapterManifest {
    /// Reads and checks an adapter's manifest.
    ///
    /// # Errors
    /// The first fault found.
    pub fn parse(text: &str) -> Result<Self, AdapterError> {
        if text.len() > MANIFEST_BYTES_MAX {
            return Err(AdapterError::TooLarge(text.len()));
        }
        let adapter: Self = serde_json::from_str(text).map_err(|error| {
            let (line, column, message) = told(text, &error, type_fault);
            AdapterError::Malformed { line, column, message }
        })?;
        if let Some((line, column, message)) = first_inexact(text) {
            return Err(AdapterError::Malformed { line, column, message });
        }
        if adapter.unit != ADAPTER_UNIT {
            return Err(AdapterError::OtherUnit(adapter.unit));
        }
        for (key, value) in [
            ("name", &adapter.name),
            ("task_name", &adapter.task_name),
            ("module", &adapter.module),
            ("class", &adapter.class),
        ] {
            if value.is_empty() {
                return Err(AdapterError::Empty { key });
            }
        }
        Ok(adapter)
    }

    /// The text of the file: the ancestor's key order, two spaces, a final newline.
    #[must_use]
    pub fn to_file_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The file name below a `manifests` directory; `None` when task or class cannot be part of one.
    #[must_use]
    pub fn file_name(&self) -> Option<String> {
        let fit = InstanceId::is_valid(&self.task_name) && InstanceId::is_valid(&self.class);
        fit.then(|| format!("adapter-{}-{}.json", self.task_name, self.class))
    }

    /// What a worker is told to bind: `module:Class`.
    #[must_use]
    pub fn spec(&self) -> String {
        format!("{}:{}", self.module, self.class)
    }
}

/// Whether a manifest's text is an adapter's. What cannot be read is none.
#[must_use]
pub fn is_adapter(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Unit {
        #[serde(default)]
        unit: Option<String>,
    }
    serde_json::from_str::<Unit>(text)
        .is_ok_and(|Unit { unit }| unit.is_some_and(|unit| unit == ADAPTER_UNIT))
}

fn no_version() -> String {
    "0.0.0".to_owned()
}

/// What in the manifest of an adapter is not of its type.
fn type_fault(document: &Value) -> Option<TypeFault> {
    let methods = document.pointer("/protocol_members/methods").and_then(Value::as_array).map_or(0, Vec::len);
    let mut places = (0..methods).map(|index| format!("/protocol_members/methods/{index}"));
    places
        .find_map(|at| in_part::<Method>(document, &at, &json!({"name": ""})))
        .or_else(|| in_part::<Members>(document, "/protocol_members", &json!({})))
        .or_else(|| {
            let blank = json!({"unit": "", "name": "", "task_name": "", "module": "", "class": ""});
            in_part::<AdapterManifest>(document, "", &blank)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"{
  "unit": "adapter",
  "name": "lab.adapters.LabAdapter",
  "version": "1.2.3",
  "task_name": "lab-task",
  "module": "lab.adapters",
  "class": "LabAdapter",
  "required_tool_protocol": "lab.adapters.LabToolProtocol",
  "protocol_members": {
    "methods": [
      {
        "name": "lab_method",
        "signature": "(self, text: str) -> str",
        "params": [
          "text"
        ]
      }
    ],
    "properties": [
      "name"
    ]
  },
  "generated_at": "2026-11-20T20:22:28.203219+00:00",
  "conda_env": "lab-env",
  "later": {
    "x": 1
  }
}
"#;

    #[test]
    fn an_adapters_manifest_is_written_back_as_it_was() {
        assert!(is_adapter(EXAMPLE));
        let adapter = AdapterManifest::parse(EXAMPLE).expect("an example");
        assert_eq!(adapter.to_file_text(), EXAMPLE);
        assert_eq!(adapter.file_name().as_deref(), Some("adapter-lab-task-LabAdapter.json"));
        assert_eq!(adapter.spec(), "lab.adapters:LabAdapter");
    }

    #[test]
    fn faults_are_named() {
        let with = |from: &str, to: &str| AdapterManifest::parse(&EXAMPLE.replacen(from, to, 1));
        let rounded = with("\"x\": 1", "\"x\": 18446744073709551616").expect_err("it would be rounded");
        assert!(rounded.to_string().contains("does not fit into 64 bits"), "{rounded}");
        assert!(
            matches!(with("\"adapter\"", "\"tool\""), Err(AdapterError::OtherUnit(unit)) if unit == "tool")
        );
        assert!(matches!(with("\"lab-task\"", "\"\""), Err(AdapterError::Empty { key: "task_name" })));
        assert!(matches!(with("\"lab.adapters\",", "7,"), Err(AdapterError::Malformed { line: 6, .. })));
        let pathless = with("\"lab-task\"", "\"a/b\"").expect("a task may have any name");
        assert_eq!(pathless.file_name(), None);
        for text in ["{}", "[]", "oops", r#"{"unit":"capability"}"#] {
            assert!(!is_adapter(text) && AdapterManifest::parse(text).is_err(), "{text}");
        }
    }
}
