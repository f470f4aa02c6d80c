//! The manifest v2.0 of a capability: read, checked, written back. Unknown keys survive a rewrite at every level;
//! the written form has the ancestor's key order and two-space indent.
//!
//! Reading checks shape and meaning and reports the first fault with its place; it does not look at the disk:
//! whether an interpreter exists is asked when it is needed.

use crate::describe::{Described, shell_word};
use crate::runtime::Runtime;
use crate::runtime_fault::in_runtime;
use crate::type_fault::{TypeFault, first_inexact, in_part, told};
use crate::{InstanceId, Timestamp, canonical};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where tools keep models: the one variable of a declared default that may have no value.
pub const MODELS_VARIABLE: &str = "CJM_MODELS_DIR";
/// The only format version there is.
pub const FORMAT_VERSION: &str = "2.0";
/// Largest manifest file, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// In `install.env_vars`: the interpreter of a Python tool whose `install.python_path` names our worker, so that the
/// ancestor's host starts it.
pub const WORKER_PYTHON_VARIABLE: &str = "CJM_WORKER_PYTHON";
/// In `install.env_vars` or the environment: the release of the ancestor whose contract `/health` says is spoken.
pub const SUBSTRATE_VERSION_VARIABLE: &str = "CJM_SUBSTRATE_VERSION";

/// A capability's manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format_version: String,
    /// Where and how it was installed.
    #[serde(default)]
    pub install: Install,
    /// What it is.
    pub code: Code,
    /// Witness hashes, to notice that code and manifest have parted.
    #[serde(default)]
    pub drift_tracking: DriftTracking,
    /// What the user changed by hand; survives every regeneration.
    #[serde(default)]
    pub overrides: Map<String, Value>,
    /// Keys this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Section `install`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Install {
    /// Interpreter that imports the module; empty for tools that are not Python.
    #[serde(default)]
    pub python_path: String,
    /// Name of the environment.
    #[serde(default)]
    pub conda_env: String,
    /// Unused by this version; kept.
    #[serde(default)]
    pub db_path: String,
    /// Variables set for the worker.
    #[serde(default)]
    pub env_vars: IndexMap<String, String>,
    /// When it was installed.
    #[serde(default)]
    pub installed_at: Option<Timestamp>,
    /// By what.
    #[serde(default)]
    pub installer_version: String,
    /// From what: a requirement, a path, or a manifest.
    #[serde(default)]
    pub package_source: String,
    /// Keys this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Section `code`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Code {
    /// Unique name; the file is named like it.
    pub name: String,
    /// Version of the tool.
    pub version: String,
    /// One sentence.
    #[serde(default)]
    pub description: String,
    /// Python module; empty for tools that are not Python.
    #[serde(default)]
    pub module: String,
    /// Python class in it.
    #[serde(default)]
    pub class: String,
    /// What kind of tool it is; absent: a Python class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// Resources it declares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Value>,
    /// JSON Schema of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<Value>,
    /// Variables its worker wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_env: Option<Vec<DeclaredVariable>>,
    /// When this section was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regenerated_at: Option<Timestamp>,
    /// Its public methods, properties and attributes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structural_surface: Option<Value>,
    /// Whether a call may safely run twice; unset follows the ancestor's rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
    /// Keys this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// A variable that a worker declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredVariable {
    /// Its name.
    pub name: String,
    /// Kept in the secret store, set in the tool only.
    #[serde(default)]
    pub secret: bool,
    /// The tool cannot work without it.
    #[serde(default)]
    pub required: bool,
    /// For people.
    #[serde(default)]
    pub label: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Template with `${CJM_MODELS_DIR}`, `${CJM_CAPABILITY_DATA_DIR}`, `${CAPABILITY_DATA_DIR}`, `${CAPABILITY_NAME}`.
    #[serde(default)]
    pub default: Option<String>,
    /// Choices to offer.
    #[serde(default)]
    pub options: Option<Value>,
    /// Keys this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Section `drift_tracking`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftTracking {
    /// Canonical hash of `code.config_schema`.
    #[serde(default)]
    pub config_schema_hash: Option<String>,
    /// Canonical hash of `code.structural_surface`; absent skips the check.
    #[serde(default)]
    pub structural_surface_hash: Option<String>,
    /// Keys this version does not know.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Why a manifest is not one.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a key has the wrong type.
    #[error("line {line}, column {column}: {message}")]
    Malformed {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// Another `format_version`.
    #[error("format_version is \"{version}\", and only \"{FORMAT_VERSION}\" is supported")]
    UnsupportedVersion {
        /// The one that it names.
        version: String,
        /// Whether an installation wrote it, which can do so again.
        is_installed: bool,
    },
    /// A rule beyond the types is broken.
    #[error("{key}: {message}")]
    Invalid {
        /// Dotted path of the key.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// Above [`MANIFEST_BYTES_MAX`].
    #[error("{0} bytes long, more than the {MANIFEST_BYTES_MAX} allowed")]
    TooLarge(usize),
}

impl Described for ManifestError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "manifest.malformed",
            Self::UnsupportedVersion { .. } => "manifest.unsupported_version",
            Self::Invalid { .. } => "manifest.invalid",
            Self::TooLarge(_) => "manifest.too_large",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Malformed { line, .. } => {
                format!("correct the file at line {line}")
            }
            Self::UnsupportedVersion { is_installed: true, .. } => {
                "run `cjm-ctl install-all` again for this entry, which writes the present format".to_owned()
            }
            Self::UnsupportedVersion { is_installed: false, .. } => format!(
                "write `\"format_version\": \"{FORMAT_VERSION}\"` and what docs/MANIFESTS.md says of that format"
            ),
            Self::Invalid { key, .. } => format!("correct `{key}`; docs/MANIFESTS.md describes every key"),
            Self::TooLarge(_) => {
                "move bulky data out of the manifest into the capability's data directory".to_owned()
            }
        }
    }
}

impl ManifestError {
    /// What to do about the file at `path`, with the command that checks it.
    #[must_use]
    pub fn next_step_at(&self, path: &Path) -> String {
        match self {
            Self::Malformed { .. } => format!(
                "{}; `cjm-ctl validate {}` checks it without running anything",
                self.next_step(),
                shell_word(&path.display().to_string())
            ),
            other => other.next_step(),
        }
    }
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// The first fault found, with its place.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let manifest = Self::read(text)?;
        manifest.faults().into_iter().next().map_or(Ok(manifest), Err)
    }

    /// [`Self::parse`] without the checks beyond the types, for who wants all [`Self::faults`].
    ///
    /// # Errors
    /// When it is no document of this shape.
    pub fn read(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge(text.len()));
        }
        let malformed = |error: &serde_json::Error| {
            let (line, column, message) = told(text, error, type_fault);
            ManifestError::Malformed { line, column, message }
        };
        // The version first: a manifest of another version may differ in any other key.
        #[derive(Deserialize)]
        struct Version {
            format_version: String,
            #[serde(default)]
            install: Value,
        }
        let version: Version = serde_json::from_str(text).map_err(|error| malformed(&error))?;
        if version.format_version != FORMAT_VERSION {
            let installer = version.install["installer_version"].as_str();
            let is_installed = installer.is_some_and(|installer| !installer.is_empty());
            return Err(ManifestError::UnsupportedVersion { version: version.format_version, is_installed });
        }
        let manifest = serde_json::from_str(text).map_err(|error| malformed(&error))?;
        match first_inexact(text) {
            Some((line, column, message)) => Err(ManifestError::Malformed { line, column, message }),
            None => Ok(manifest),
        }
    }

    /// Names of the variables that are set for this tool on purpose, so that what it makes may depend on them: those of
    /// `env_vars`, those that it declares, and where models are. What merely passes is no matter of the tool's.
    #[must_use]
    pub fn own_variables(&self) -> BTreeSet<String> {
        let declared = self.code.worker_env.iter().flatten().map(|declared| &declared.name);
        let named = self.install.env_vars.keys().chain(declared).cloned();
        named.chain([MODELS_VARIABLE.to_owned()]).collect()
    }

    /// The text of the file: the ancestor's key order, two spaces, a final newline.
    #[must_use]
    pub fn to_file_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The kind of tool; a Python class when the manifest does not say.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        self.code.runtime.clone().unwrap_or_default()
    }

    /// The interpreter of a Python tool: as [`WORKER_PYTHON_VARIABLE`] says, else `install.python_path`.
    #[must_use]
    pub fn interpreter(&self) -> &str {
        let named = self.install.env_vars.get(WORKER_PYTHON_VARIABLE).filter(|path| !path.is_empty());
        named.unwrap_or(&self.install.python_path)
    }

    /// The file name below a `manifests` directory.
    #[must_use]
    pub fn file_name(&self) -> PathBuf {
        PathBuf::from(format!("{}.json", self.code.name))
    }

    /// Fills in what the ancestor insists on and a tool that is no Python class does not need: a description, a module and
    /// a class. Its host passes the last two on to whatever `install.python_path` names, and asks no more of them.
    pub fn complete_for_the_ancestor(&mut self) {
        let kind = match self.runtime() {
            Runtime::Python { .. } => return,
            Runtime::Executable(_) => "Executable",
            Runtime::Native { .. } => "Native",
            Runtime::Channel { .. } => "Channel",
        };
        let words = [
            (&mut self.code.description, self.code.name.as_str()),
            (&mut self.code.module, "cjm_worker"),
            (&mut self.code.class, kind),
        ];
        for (word, filling) in words.into_iter().filter(|(word, _)| word.is_empty()) {
            filling.clone_into(word);
        }
    }

    /// Fills in both witness hashes from the sections they witness. A capability without a configuration has the hash of
    /// an empty schema, which is what its worker answers and the ancestor's host compares.
    pub fn seal(&mut self) {
        let schema = self.code.config_schema.as_ref().unwrap_or(&Value::Null);
        self.drift_tracking.config_schema_hash = Some(canonical::canonical_hash_of(schema));
        self.drift_tracking.structural_surface_hash =
            self.code.structural_surface.as_ref().map(canonical::canonical_hash_of);
    }

    /// Everything that [`Self::parse`] finds beyond the types, each with its key.
    #[must_use]
    pub fn faults(&self) -> Vec<ManifestError> {
        let mut faults = Vec::new();
        let mut invalid =
            |key: &str, message: String| faults.push(ManifestError::Invalid { key: key.to_owned(), message });
        if !InstanceId::is_valid(&self.code.name) {
            invalid(
                "code.name",
                format!("\"{}\" must be 1 to 64 letters, digits, `-` or `_`", self.code.name),
            );
        }
        if self.code.version.is_empty() {
            invalid("code.version", "is empty".to_owned());
        }
        for name in self.install.env_vars.keys().filter(|name| name.is_empty() || name.contains(['=', '\0']))
        {
            invalid(
                "install.env_vars",
                format!("{name:?} is no name of a variable: it is empty, or has a `=`"),
            );
        }
        match self.runtime() {
            Runtime::Python { .. } if self.unknown.contains_key("runtime") => {
                invalid("runtime", "belongs into `code`".to_owned());
            }
            Runtime::Python { .. } => {
                for (key, value) in [
                    ("code.module", &self.code.module),
                    ("code.class", &self.code.class),
                    ("install.python_path", &self.install.python_path),
                ] {
                    if value.is_empty() {
                        invalid(key, "a Python capability needs it".to_owned());
                    }
                }
            }
            Runtime::Native { program, .. } | Runtime::Channel { program, .. } => {
                if program.is_empty() {
                    invalid("code.runtime.program", "is empty".to_owned());
                }
            }
            Runtime::Executable(executable) => {
                for (key, message) in crate::runtime_check::faults(&executable) {
                    invalid(&format!("code.runtime.{key}"), message);
                }
                let schema = self.code.config_schema.as_ref();
                let declared = schema.and_then(|schema| schema.get("properties")?.as_object());
                if let Some(key) = declared.and_then(|declared| declared.keys().next()) {
                    invalid("code.config_schema", crate::runtime_check::no_configuration(key));
                }
            }
        }
        faults
    }
}

/// What in a manifest is not of its type.
fn type_fault(document: &Value) -> Option<TypeFault> {
    let code = json!({"name": "a", "version": "1"});
    in_runtime(document)
        .or_else(|| {
            let declared = document.pointer("/code/worker_env")?.as_array()?.len();
            let mut places = (0..declared).map(|index| format!("/code/worker_env/{index}"));
            places.find_map(|at| in_part::<DeclaredVariable>(document, &at, &json!({"name": ""})))
        })
        .or_else(|| in_part::<Code>(document, "/code", &code))
        .or_else(|| in_part::<Install>(document, "/install", &json!({})))
        .or_else(|| in_part::<DriftTracking>(document, "/drift_tracking", &json!({})))
        .or_else(|| in_part::<Manifest>(document, "", &json!({"format_version": "", "code": code})))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> Value {
        json!({
            "format_version": "2.0",
            "install": {"python_path": "/opt/envs/lab/bin/python", "mode": "editable"},
            "code": {"name": "lab", "version": "1", "module": "m", "class": "C", "observability_class": "full"},
            "drift_tracking": {}, "overrides": {"k": [1]}, "later": {"x": 1.50}
        })
    }

    #[test]
    fn unknown_keys_survive_a_rewrite_at_every_level() {
        let read = Manifest::parse(&minimal().to_string()).expect("minimal");
        let written = read.to_file_text();
        assert_eq!(Manifest::parse(&written).expect("own text"), read);
        let value: Value = serde_json::from_str(&written).expect("json");
        assert_eq!(value["later"], json!({"x": 1.5}));
        assert_eq!(value["install"]["mode"], "editable");
        assert_eq!(value["code"]["observability_class"], "full");
        assert_eq!(value["overrides"]["k"], json!([1]));
    }

    #[test]
    fn numbers_survive_a_rewrite_and_hash_as_the_text_does() {
        // Found by fuzzing: a parser that is one digit off drifts on, rewrite by rewrite.
        let schema = r#"{"default":1.234567834567e-300,"minimum":2.2250738585072011e-308,"x":[0.1,1e23]}"#;
        let text = minimal().to_string().replacen(
            r#""version":"#,
            &format!(r#""config_schema":{schema},"version":"#),
            1,
        );
        let mut read = Manifest::parse(&text).expect("a schema with long numbers");
        let written = read.to_file_text();
        assert_eq!(Manifest::parse(&written).expect("own text").to_file_text(), written);
        read.seal();
        let hash = canonical::canonical_hash(schema).expect("JSON");
        assert_eq!(read.drift_tracking.config_schema_hash, Some(hash));
    }

    #[test]
    fn faults_name_their_place() {
        let text = json!({"format_version": "2.0", "install": {"env_vars": {"A=B": "1", "C": "2"}},
            "code": {"name": "a", "version": "1", "runtime": {"kind": "native", "program": "x"}}});
        let told = Manifest::parse(&text.to_string()).expect_err("no name").to_string();
        assert!(told.contains("install.env_vars") && told.contains("\"A=B\" is no name"), "{told}");
        let broken = |pointer: &str, value: Value| {
            let mut manifest = minimal();
            *manifest.pointer_mut(pointer).expect(pointer) = value;
            Manifest::parse(&manifest.to_string())
        };
        for (pointer, value, key) in [
            ("/code/name", json!("a b"), "code.name"),
            ("/code/version", json!(""), "code.version"),
            ("/code/module", json!(""), "code.module"),
            ("/install/python_path", json!(""), "install.python_path"),
        ] {
            match broken(pointer, value) {
                Err(ManifestError::Invalid { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{pointer}: {other:?}"),
            }
        }
        assert!(
            matches!(broken("/format_version", json!("3.0")), Err(ManifestError::UnsupportedVersion { version, .. }) if version == "3.0")
        );
        assert!(matches!(broken("/code/name", json!(7)), Err(ManifestError::Malformed { line: 1, .. })));
        match Manifest::parse("{\n  \"format_version\": \"2.0\",\n  oops\n}") {
            Err(ManifestError::Malformed { line: 3, column, message }) => {
                assert_eq!(column, 3);
                assert!(!message.contains(" at line "), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_byte_order_mark_which_nobody_sees_is_told_as_that() {
        let marked = format!("\u{feff}{}", minimal());
        let of_manifest = Manifest::parse(&marked).expect_err("no JSON").to_string();
        let of_adapter = crate::AdapterManifest::parse(&marked).expect_err("no JSON").to_string();
        for told in [of_manifest, of_adapter] {
            assert!(told.contains("byte order mark") && told.contains("UTF-8 without one"), "{told}");
        }
    }

    #[test]
    fn one_that_is_too_deep_is_told_with_the_limit() {
        for levels in [200, 500, 50_000] {
            let deep = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
            let text = minimal().to_string().replacen('{', &format!("{{\"later\": {deep},"), 1);
            let error = Manifest::parse(&text).expect_err("too deep").to_string();
            assert!(error.contains("nested deeper than the 127 levels allowed"), "{error}");
        }
    }

    #[test]
    fn executables_are_checked_beyond_their_types() {
        let with_action = |action: Value| {
            let mut manifest = minimal();
            manifest["code"]["runtime"] =
                json!({"kind": "executable", "program": "cat", "actions": {"a": action}});
            Manifest::parse(&manifest.to_string())
        };
        with_action(json!({
            "parameters": {"input": {"type": "input_file", "required": true}, "n": {"type": "integer", "default": 1}},
            "argv": ["-n", "{n}", {"when": "n", "args": ["{input.stem}", "{{literal}}"]}],
            "outputs": {"out": "{work_dir}/{input.name}"}, "result": "files",
            "cancel": {"signal": "SIGINT", "grace_ms": 100},
            "progress": {"stream": "stderr", "pattern": "(?<percent>[0-9]+)%"}
        }))
        .expect("a good action");
        let kept = with_action(json!({
            "parameters": {"text": {"type": "input_file"}, "page": {"type": "input_file", "required": true}},
            "argv": ["{page}", "{out}"], "result": "files",
            "outputs": {"out": "{cache_dir}/{page.stem}.txt", "image": "{page}"}
        }))
        .expect("an action whose files are kept");
        let Runtime::Executable(executable) = kept.runtime() else { panic!("an executable") };
        assert!(executable.actions["a"].uses_cache_dir());
        assert_eq!(executable.actions["a"].main_input(), Some("page"));
        for (cancel, signal, grace_ms) in
            [(json!({"grace_ms": 5000}), "SIGTERM", 5000), (json!({"signal": "SIGINT"}), "SIGINT", 2000)]
        {
            let stopped = with_action(json!({"argv": [], "cancel": cancel})).expect("a good action");
            let Runtime::Executable(executable) = stopped.runtime() else { panic!("an executable") };
            let rule = executable.actions["a"].cancel.clone().expect("a rule");
            assert_eq!((rule.signal.as_str(), rule.grace_ms), (signal, grace_ms));
        }
        for (action, key) in [
            (json!({"argv": ["{nope}"]}), "argv"),
            (json!({"argv": ["{open"]}), "argv"),
            (json!({"argv": [{"when": "x", "args": []}]}), "argv"),
            (json!({"argv": [], "outputs": {"work_dir": "x"}}), "outputs.work_dir"),
            (json!({"argv": [], "parameters": {"n": {"type": "integer", "default": "1"}}}), "parameters.n"),
            (json!({"argv": [], "parameters": {"action": {"type": "string"}}}), "parameters.action"),
            (json!({"argv": [], "cancel": {"signal": "SIGKILL", "grace_ms": 1}}), "cancel.signal"),
            (json!({"argv": [], "cancel": {"signal": "SIGINT", "grace_ms": 60_001}}), "cancel.grace_ms"),
            (json!({"argv": [], "progress": {"stream": "stdout", "pattern": "(x"}}), "progress.pattern"),
            (json!({"argv": [], "progress": {"stream": "stdout", "pattern": "x"}}), "progress.pattern"),
            (json!({"argv": [], "timeout_seconds": 0.0}), "timeout_seconds"),
            (json!({"argv": [], "parameters": {"cache_dir": {"type": "string"}}}), "parameters.cache_dir"),
            (json!({"argv": ["{cache_dir}"], "result": "files"}), "parameters"),
            (
                json!({"argv": ["{cache_dir}/x"], "result": "files",
                    "parameters": {"f": {"type": "input_file", "required": true}}}),
                "result",
            ),
            (
                json!({"argv": [], "outputs": {"o": "{cache_dir}/o"},
                    "parameters": {"f": {"type": "input_file", "required": true}}}),
                "result",
            ),
            (
                json!({"argv": [], "outputs": {"o": "{cache_dir}/o", "p": "{work_dir}/p"}, "result": "files",
                    "parameters": {"f": {"type": "input_file", "required": true}}}),
                "outputs.p",
            ),
        ] {
            match with_action(action.clone()) {
                Err(ManifestError::Invalid { key: found, .. }) => {
                    assert_eq!(found, format!("code.runtime.actions.a.{key}"));
                }
                other => panic!("{action}: {other:?}"),
            }
        }
    }
}
