//! `capabilities.yaml`: what to install. An entry is a Python package for an environment of its own, or a manifest
//! of a tool that needs none. Unknown keys are ignored, as the ancestor does.

use crate::describe::Described;
use crate::runtime::PythonWorker;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most keys of a file that is no list that are told.
const KEYS_TOLD_MAX: usize = 8;

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
    /// There is no list in it; the keys that there are.
    #[error("it is no list of capabilities: it has no key `capabilities`{}", keys(.0))]
    NoList(Vec<String>),
    /// An entry breaks a rule.
    #[error("entry {entry}: {message}")]
    Invalid {
        /// Its name, or its place in the list.
        entry: String,
        /// What is wrong.
        message: String,
        /// What to write instead.
        cure: &'static str,
    },
}

fn keys(found: &[String]) -> String {
    if found.is_empty() { String::new() } else { format!(" (its keys: {})", found.join(", ")) }
}

impl Described for CapabilitiesFileError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "capabilities_file.malformed",
            Self::NoList(_) => "capabilities_file.no_list",
            Self::Invalid { .. } => "capabilities_file.invalid",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Malformed(_) => "correct the file where the message points".to_owned(),
            Self::NoList(_) => {
                "write the entries as a list below `capabilities:`; an empty list is `capabilities: []`"
                    .to_owned()
            }
            Self::Invalid { entry, cure, .. } => {
                format!("correct entry {entry}: {cure}; `cjm-ctl install-all` installs the others without it")
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
        let mut file = Self::list(text)?;
        let mut names = std::collections::BTreeSet::new();
        for (index, entry) in file.capabilities.iter_mut().enumerate() {
            let told = if entry.name.is_empty() {
                format!("number {}", index + 1)
            } else {
                format!("\"{}\"", entry.name)
            };
            let twice = ("the name stands twice in the file", "give it a name of its own");
            let checked = entry
                .check()
                .and_then(|()| if names.insert(entry.name.clone()) { Ok(()) } else { Err(twice) });
            if let Err((message, cure)) = checked {
                if entry.name.is_empty() {
                    entry.name.clone_from(&told);
                }
                entry.fault =
                    Some(CapabilitiesFileError::Invalid { entry: told, message: message.to_owned(), cure });
            }
        }
        Ok(file)
    }

    /// A file without the key is something else, and no empty list.
    fn list(text: &str) -> Result<Self, CapabilitiesFileError> {
        #[derive(Deserialize)]
        struct File {
            capabilities: Option<Vec<Entry>>,
        }
        // An empty file is read as nothing at all.
        let file: Option<File> = crate::yaml::from_str(text).map_err(CapabilitiesFileError::Malformed)?;
        if let Some(File { capabilities: Some(capabilities) }) = file {
            return Ok(Self { capabilities });
        }
        let keys: Option<BTreeMap<String, IgnoredAny>> = crate::yaml::from_str(text).unwrap_or_default();
        let told =
            keys.unwrap_or_default().into_keys().filter(|key| key != "capabilities").take(KEYS_TOLD_MAX);
        Err(CapabilitiesFileError::NoList(told.collect()))
    }
}

impl Entry {
    /// What is wrong, and what to write instead.
    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if !crate::InstanceId::is_valid(&self.name) {
            let cure = "write another `name`";
            return Err(("`name` must be 1 to 64 letters, digits, `-` or `_`", cure));
        }
        match (&self.manifest, self.package.is_empty()) {
            (Some(_), true) => Ok(()),
            (Some(_), false) => Err(("`manifest` and `package` exclude each other", "remove one of the two")),
            (None, true) => Err((
                "needs a `package` (with `env_name` and `python_version`) or a `manifest`",
                "write `package: ./FOLDER`, `env_name: NAME` and `python_version: \">=3.10\"`, or `manifest: FILE`",
            )),
            (None, false) if !crate::InstanceId::is_valid(&self.env_name) => Err((
                "`env_name` must be 1 to 64 letters, digits, `-` or `_`",
                "write `env_name: NAME`, the name of its environment",
            )),
            (None, false) if self.env_file.is_some() == self.python_version.is_some() => Err((
                "needs exactly one of `python_version` and `env_file`",
                "write `python_version: \">=3.10\"`, or `env_file: FILE` for conda, and not both",
            )),
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
        for (text, keys) in
            [("capabilites: []\nfoo: 1\n", &["capabilites", "foo"][..]), ("", &[]), ("capabilities:\n", &[])]
        {
            let refused = CapabilitiesFile::parse(text).expect_err("no list");
            let told = keys.iter().map(|key| (*key).to_owned()).collect();
            assert_eq!(refused, CapabilitiesFileError::NoList(told), "{text}");
        }
        assert_eq!(CapabilitiesFile::parse("capabilities: []\nlater: 1\n"), Ok(CapabilitiesFile::default()));
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
