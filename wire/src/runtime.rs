//! The optional `code.runtime` object of a manifest: which kind of tool this is, and what that kind needs. A
//! manifest without it is a Python class, as the ancestor wrote it.
//!
//! An executable needs no code at all: its actions are argv templates (never a shell), typed parameters, and how
//! to read result, progress and cancellation.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How the template of an output begins that is kept for the next call like this one.
pub const CACHE_DIR_PREFIX: &str = "{cache_dir}/";

/// Which kind of tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Runtime {
    /// A Python class (`code.module`, `code.class`) in `install.python_path`.
    Python {
        /// Who serves its surface.
        #[serde(default, skip_serializing_if = "PythonWorker::is_default")]
        worker: PythonWorker,
    },
    /// A program described by its actions; every call is one process.
    Executable(Executable),
    /// A program that links the worker library and serves the surface itself.
    Native {
        /// Absolute path, a path relative to the manifest (it holds a `/`), or a name to look up beside the host's
        /// own binaries and on the PATH.
        program: String,
        /// Arguments before ours.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        args: Vec<String>,
    },
    /// A program in any language that speaks the runtime channel (`docs/RUNTIME-CHANNEL.md`) and lives for many calls.
    Channel {
        /// Absolute path, a path relative to the manifest (it holds a `/`), or a name to look up on the PATH.
        program: String,
        /// Its arguments, as they are: none of them is a path relative to the manifest.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        args: Vec<String>,
    },
}

/// Who serves the surface of a Python class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PythonWorker {
    /// Our shim: nothing of the ancestor has to be installed beside the tool.
    #[default]
    Shim,
    /// The ancestor's own worker, from the tool's environment. What it cannot give (redaction, cancel of one call,
    /// answers while the tool is busy) nobody adds.
    Genuine,
}

impl PythonWorker {
    /// Whether it need not be said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self::Python { worker: PythonWorker::default() }
    }
}

impl Runtime {
    /// `python`, `executable`, `native`, `channel`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Python { .. } => "python",
            Self::Executable(_) => "executable",
            Self::Native { .. } => "native",
            Self::Channel { .. } => "channel",
        }
    }
}

/// A program that knows nothing of us.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Executable {
    /// Absolute path, a path relative to the manifest (it holds a `/`), or a name to look up on the PATH.
    pub program: String,
    /// Calls that may run side by side in one instance; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_max: Option<u32>,
    /// What it can do, by name. A call without an action takes the only one, or fails naming them.
    pub actions: IndexMap<String, Action>,
}

/// One thing an executable does.
///
/// Templates (in `argv`, `stdin`, `outputs`) may hold `{NAME}` for a parameter or an output, and
/// `{work_dir}` (a fresh directory of this call, below the capability's data directory), `{data_dir}`,
/// `{NAME.stem}` and `{NAME.name}` (of a path), `{{` and `}}` for braces.
///
/// An action that writes its outputs into `{cache_dir}` is not run again for an unchanged input with unchanged
/// arguments: the directory is named after both (see [`crate::cache`]). While the program runs it has another name,
/// so that only whole results are ever found in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Typed parameters by name; an argument that is not declared is refused.
    #[serde(default)]
    pub parameters: IndexMap<String, Parameter>,
    /// Arguments after the program.
    pub argv: Vec<Argument>,
    /// Template of what is written to standard input; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Files that the action produces: name → path template. Their directories are made before the start.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub outputs: IndexMap<String, String>,
    /// How to read what it answers.
    #[serde(default)]
    pub result: ResultSource,
    /// Exit codes that mean success; `[0]` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_exit_codes: Option<Vec<i32>>,
    /// How to read how far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressPattern>,
    /// How to stop it; SIGTERM and 2 s when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<CancelRule>,
    /// Seconds after which the call is cancelled and fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
}

/// One element of `argv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Argument {
    /// One argument, always there.
    Always(String),
    /// Arguments that are there only when a parameter has a value (and is not `false`).
    When {
        /// The parameter.
        when: String,
        /// The arguments.
        args: Vec<String>,
    },
}

/// A typed parameter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// What values it takes.
    #[serde(rename = "type")]
    pub kind: ParameterKind,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Must be given.
    #[serde(default)]
    pub required: bool,
    /// Value when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Only these values.
    #[serde(default, rename = "enum", skip_serializing_if = "Option::is_none")]
    pub choices: Option<Vec<Value>>,
    /// Smallest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<f64>,
    /// Largest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<f64>,
}

/// Types of parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParameterKind {
    /// Any text.
    #[default]
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// Path of a file that must exist; made absolute by the caller.
    InputFile,
    /// Path that need not exist.
    Path,
}

/// Where the result of an action is read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultSource {
    /// `{"exit_code": N}`, and the files when there are `outputs`.
    #[default]
    ExitCode,
    /// Standard output as one JSON value.
    StdoutJson,
    /// Standard output as text, final newline off.
    StdoutText,
    /// Standard output as a list of lines.
    StdoutLines,
    /// `{NAME: {"path": …, "bytes": …, "sha256": …}}` of the `outputs`; one that is missing fails the call. A
    /// directory has no `sha256`.
    Files,
}

/// How progress is read from an output stream, line by line (`\r` ends a line too).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgressPattern {
    /// Which stream.
    pub stream: OutputStream,
    /// Regular expression with a group named `fraction` (0–1), `percent` (0–100), or `current` and `total`;
    /// optionally one named `message`.
    pub pattern: String,
}

/// An output stream of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a call is stopped: the signal to its process group, then SIGKILL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CancelRule {
    /// `SIGTERM`, `SIGINT`, `SIGQUIT` or `SIGHUP`.
    pub signal: String,
    /// Milliseconds until SIGKILL.
    pub grace_ms: u64,
}

impl Default for CancelRule {
    fn default() -> Self {
        Self { signal: "SIGTERM".to_owned(), grace_ms: 2_000 }
    }
}

impl Action {
    /// Whether it writes into `{cache_dir}`, so that its files are kept for the next call like this one.
    #[must_use]
    pub fn uses_cache_dir(&self) -> bool {
        self.outputs.values().any(|template| template.starts_with(CACHE_DIR_PREFIX))
    }

    /// The file after whose content `{cache_dir}` is named: the first parameter of type `input_file` that must be given.
    #[must_use]
    pub fn main_input(&self) -> Option<&str> {
        let is_main =
            |parameter: &Parameter| parameter.kind == ParameterKind::InputFile && parameter.required;
        self.parameters.iter().find(|(_, parameter)| is_main(parameter)).map(|(name, _)| name.as_str())
    }
}

/// `format` of a property whose text is the path of a file.
pub const PATH_FORMAT: &str = "path";

impl Executable {
    /// The JSON Schema of an action's arguments, for `list --json`, and later for other faces.
    #[must_use]
    pub fn arguments_schema(action: &Action) -> Value {
        let mut properties = Map::new();
        for (name, parameter) in &action.parameters {
            let json_type = match parameter.kind {
                ParameterKind::String | ParameterKind::InputFile | ParameterKind::Path => "string",
                ParameterKind::Integer => "integer",
                ParameterKind::Number => "number",
                ParameterKind::Boolean => "boolean",
            };
            let mut property = Map::new();
            property.insert("type".into(), json_type.into());
            if matches!(parameter.kind, ParameterKind::InputFile | ParameterKind::Path) {
                property.insert("format".into(), PATH_FORMAT.into());
            }
            for (key, value) in [
                (
                    "description",
                    (!parameter.description.is_empty()).then(|| parameter.description.clone().into()),
                ),
                ("default", parameter.default.clone()),
                ("enum", parameter.choices.clone().map(Value::Array)),
                ("minimum", parameter.minimum.map(Value::from)),
                ("maximum", parameter.maximum.map(Value::from)),
            ] {
                if let Some(value) = value {
                    property.insert(key.into(), value);
                }
            }
            properties.insert(name.clone(), Value::Object(property));
        }
        let required: Vec<&String> = action
            .parameters
            .iter()
            .filter(|(_, parameter)| parameter.required)
            .map(|(name, _)| name)
            .collect();
        serde_json::json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    }
}
