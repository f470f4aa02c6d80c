//! `capabilities.yaml`: what to install. An entry is a Python package for an environment of its own, or a manifest
//! of a tool that needs none. Unknown keys are ignored, as the ancestor does.

use crate::describe::Described;
use crate::runtime::PythonWorker;
use serde::{Deserialize, Serialize};

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitiesFile {
    /// Entries, in order.
    #[serde(default)]
    pub capabilities: Vec<Entry>,
}

/// One capability to install.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Name in this file.
    pub name: String,
    /// Manifest of a tool that needs no environment, relative to this file. Excludes `package`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Name of its environment.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub env_name: String,
    /// Requirement for the installer (`name==1.0`), or a directory relative to this file (`./capabilities/x`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub package: String,
    /// Conda environment file; excludes `python_version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<String>,
    /// `3.11`, or a constraint such as `>=3.9`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python_version: Option<String>,
    /// Further requirements that both sides of a call share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interface_libs: Vec<String>,
    /// Task adapters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<Adapter>,
    /// Who serves its surface: `shim`, or `genuine` for the ancestor's own worker. An addition of ours.
    #[serde(default, skip_serializing_if = "PythonWorker::is_default")]
    pub worker: PythonWorker,
    /// Why it cannot be installed: the rule that it breaks. See [`CapabilitiesFile::parse_each`].
    #[serde(skip)]
    pub fault: Option<CapabilitiesFileError>,
}

/// A task adapter of an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapter {
    /// `module:Class`.
    #[serde(rename = "impl")]
    pub implementation: String,
    /// Requirement it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lib: Option<String>,
}

/// Why the file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilitiesFileError {
    /// Not YAML of this shape; the message carries line and column.
    #[error("{0}")]
    Malformed(String),
    /// An entry breaks a rule.
    #[error("entry {entry}: {message}")]
    Invalid {
        /// Its name, or its place in the list.
        entry: String,
        /// What is wrong.
        message: String,
    },
}

impl Described for CapabilitiesFileError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "capabilities_file.malformed",
            Self::Invalid { .. } => "capabilities_file.invalid",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Malformed(_) => "correct the file where the message points".to_owned(),
            Self::Invalid { entry, .. } => {
                format!("correct entry {entry}; `cjm-ctl install-all` installs the others without it")
            }
        }
    }
}

impl CapabilitiesFile {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// The first fault found, with its entry.
    pub fn parse(text: &str) -> Result<Self, CapabilitiesFileError> {
        let mut file = Self::parse_each(text)?;
        match file.capabilities.iter_mut().find_map(|entry| entry.fault.take()) {
            Some(fault) => Err(fault),
            None => Ok(file),
        }
    }

    /// Reads the file for who takes each entry by itself: one that breaks a rule has its `fault`, and a name to be told by.
    ///
    /// # Errors
    /// When it is no such list.
    pub fn parse_each(text: &str) -> Result<Self, CapabilitiesFileError> {
        let mut file: Self = crate::yaml::from_str(text)
            .map_err(|error| CapabilitiesFileError::Malformed(error.to_string()))?;
        let mut names = std::collections::BTreeSet::new();
        for (index, entry) in file.capabilities.iter_mut().enumerate() {
            let told = if entry.name.is_empty() {
                format!("number {}", index + 1)
            } else {
                format!("\"{}\"", entry.name)
            };
            let twice = "the name stands twice in the file";
            let checked = entry
                .check()
                .and_then(|()| if names.insert(entry.name.clone()) { Ok(()) } else { Err(twice.to_owned()) });
            if let Err(message) = checked {
                if entry.name.is_empty() {
                    entry.name.clone_from(&told);
                }
                entry.fault = Some(CapabilitiesFileError::Invalid { entry: told, message });
            }
        }
        Ok(file)
    }
}

impl Entry {
    fn check(&self) -> Result<(), String> {
        if !crate::InstanceId::is_valid(&self.name) {
            return Err("`name` must be 1 to 64 letters, digits, `-` or `_`".into());
        }
        match (&self.manifest, self.package.is_empty()) {
            (Some(_), true) => Ok(()),
            (Some(_), false) => Err("`manifest` and `package` exclude each other".into()),
            (None, true) => {
                Err("needs a `package` (with `env_name` and `python_version`) or a `manifest`".into())
            }
            (None, false) if !crate::InstanceId::is_valid(&self.env_name) => {
                Err("`env_name` must be 1 to 64 letters, digits, `-` or `_`".into())
            }
            (None, false) if self.env_file.is_some() == self.python_version.is_some() => {
                Err("needs exactly one of `python_version` and `env_file`".into())
            }
            (None, false) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_one_kind_or_the_other() {
        let good = "capabilities:\n- {name: a, manifest: m.json}\n- {name: b, env_name: b, package: p, python_version: '3.11', adapters: [{impl: 'm:C', lib: l}]}\n";
        let file = CapabilitiesFile::parse(good).expect("good");
        assert_eq!(file.capabilities[1].adapters[0].implementation, "m:C");
        assert_eq!(file.capabilities[1].worker, PythonWorker::Shim);
        let genuine = good.replace("package: p", "package: p, worker: genuine");
        let genuine = CapabilitiesFile::parse(&genuine).expect("good");
        assert_eq!(genuine.capabilities[1].worker, PythonWorker::Genuine);
        for (entry, names) in [
            ("{name: a}", "\"a\""),
            ("{name: a, manifest: m, package: p}", "\"a\""),
            ("{name: a, package: p, env_name: e}", "\"a\""),
            ("{name: a, package: p, env_name: e, python_version: '3', env_file: f}", "\"a\""),
            ("{name: '', manifest: m}", "number 1"),
            ("{name: a, manifest: m}\n- {name: a, manifest: m}", "\"a\""),
        ] {
            match CapabilitiesFile::parse(&format!("capabilities:\n- {entry}\n")) {
                Err(CapabilitiesFileError::Invalid { entry: found, .. }) => {
                    assert_eq!(found, names, "{entry}");
                }
                other => panic!("{entry}: {other:?}"),
            }
        }
        let mixed = "capabilities:\n- {name: a, manifest: m}\n- {name: b}\n- {manifest: m, name: ''}\n- {name: c, manifest: m}\n";
        let each = CapabilitiesFile::parse_each(mixed).expect("a list").capabilities;
        let faults: Vec<_> = each.iter().map(|entry| (entry.name.as_str(), entry.fault.is_some())).collect();
        assert_eq!(faults, [("a", false), ("b", true), ("number 3", true), ("c", false)]);
        assert!(matches!(
            CapabilitiesFile::parse("capabilities: 3\n"),
            Err(CapabilitiesFileError::Malformed(_))
        ));
    }
}
