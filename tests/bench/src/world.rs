//! A data directory with the bench's tools installed in it, and a host over it.
//!
//! Three kinds of tools, each as small as its kind can be, so that what is measured is the host: a capability in Rust,
//! a Python class (once with no imports of its own, once with those an ordinary tool has), and an executable.

use crate::measure::beside;
use anyhow::{Context as _, Result};
use cjm_host::wire::InstanceId;
use cjm_host::wire::envelope::{ACTION_KEY, ExecuteRequest};
use cjm_host::{Host, HostOptions, LoadOptions};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The capability in Rust.
pub(crate) const RUST: &str = "bench-rust";
/// The Python class without imports.
pub(crate) const PYTHON: &str = "bench-python";
/// The Python class with imports.
pub(crate) const PYTHON_IMPORTS: &str = "bench-python-imports";
/// The executable.
pub(crate) const EXECUTABLE: &str = "bench-executable";

/// What an ordinary Python tool imports, from the standard library alone.
pub(crate) const IMPORTS: &str =
    "import asyncio, dataclasses, json, logging, pathlib, sqlite3, subprocess, typing, urllib.request";

const PYTHON_CLASS: &str = r#"
class Tool:
    name = "bench"
    version = "1.0.0"

    def initialize(self, config=None):
        pass

    def execute(self, action="echo", **kwargs):
        return {"ok": True}

    def cleanup(self):
        pass
"#;

/// A directory of its own, gone when dropped.
#[derive(Debug)]
pub(crate) struct World {
    dir: TempDir,
}

impl World {
    /// Installs the tools.
    pub(crate) fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("cjm-bench-").tempdir()?;
        let world = Self { dir };
        std::fs::create_dir_all(world.data_dir().join("manifests"))?;
        std::fs::create_dir_all(world.path("python"))?;
        std::fs::write(world.path("python/bench_plain.py"), PYTHON_CLASS)?;
        std::fs::write(world.path("python/bench_imports.py"), format!("{IMPORTS}\n{PYTHON_CLASS}"))?;
        let tool = beside("cjm-bench-tool")?;
        world.install(RUST, &json!({"runtime": {"kind": "native", "program": tool}}), &json!({}))?;
        let python = json!({
            "python_path": interpreter(),
            "env_vars": {"PYTHONPATH": world.path("python")},
        });
        world.install(PYTHON, &json!({"module": "bench_plain", "class": "Tool"}), &python)?;
        world.install(PYTHON_IMPORTS, &json!({"module": "bench_imports", "class": "Tool"}), &python)?;
        let actions = json!({"run": {"argv": []}});
        let runtime = json!({"kind": "executable", "program": "/bin/true", "actions": actions});
        world.install(EXECUTABLE, &json!({"runtime": runtime}), &json!({}))?;
        Ok(world)
    }

    fn install(&self, name: &str, code: &Value, install: &Value) -> Result<()> {
        let mut section = Map::new();
        section.insert("name".into(), name.into());
        section.insert("version".into(), "1.0.0".into());
        section.extend(code.as_object().cloned().unwrap_or_default());
        let manifest = json!({"format_version": "2.0", "install": install, "code": section});
        let path = self.data_dir().join(format!("manifests/{name}.json"));
        std::fs::write(&path, manifest.to_string()).with_context(|| path.display().to_string())
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// A path beside it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory of everything.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts a host.
    pub(crate) async fn host(&self) -> Result<Host> {
        Ok(Host::start(HostOptions::new(self.data_dir())).await?)
    }
}

/// The interpreter of the Python tools, and of their floors.
pub(crate) fn interpreter() -> PathBuf {
    std::env::var_os("CJM_TEST_PYTHON").map_or_else(|| PathBuf::from("/usr/bin/python3"), PathBuf::from)
}

/// A call of one action.
pub(crate) fn request(action: &str, arguments: &Value) -> ExecuteRequest {
    let mut kwargs = arguments.as_object().cloned().unwrap_or_default();
    kwargs.insert(ACTION_KEY.to_owned(), action.into());
    ExecuteRequest { kwargs, ..ExecuteRequest::default() }
}

/// The body such a call has on the wire, as the host sends it.
pub(crate) fn body(host: &Host, request: &ExecuteRequest) -> Result<Vec<u8>> {
    let mut request = request.clone();
    request.envelope.run_id = Some(host.run_id().clone());
    request.envelope.actor = Some(HostOptions::new("/").actor);
    Ok(serde_json::to_vec(&request)?)
}

/// Loads one more instance of a capability, whose calls may run side by side.
pub(crate) async fn load(host: &Host, capability: &str, instance: &str) -> Result<InstanceId> {
    let options = LoadOptions {
        instance_id: Some(InstanceId::from_text(instance)),
        concurrency_max: Some(4),
        ..LoadOptions::default()
    };
    Ok(host.load(capability, options).await?)
}
