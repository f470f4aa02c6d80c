//! A project whose tool lives in an environment of conda's. No conda is to be had here: a stand-in on the PATH records how it is
//! called and makes a plain virtual environment.

use crate::ancestor::{Ancestor, PYTHON_MIN, VERSIONS};
use crate::both::{Both, Said};
use crate::world::World;
use crate::{python, repo};
use serde_json::Value;

/// Of the package `my-tool`.
pub const PYPROJECT: &str = "[project]\nname = \"my-tool\"\nversion = \"0.1.0\"\ndescription = \"Says where it runs.\"\n\n\
    [build-system]\nrequires = [\"uv_build\"]\nbuild-backend = \"uv_build\"\n\n[tool.uv.build-backend]\nmodule-root = \"\"\n";
/// A tool that says where it runs.
pub const MODULE: &str = "import sys\nfrom cjm_sdk import Capability, action\n\n\nclass Tool(Capability):\n    name = \"my-tool\"\n    \
    version = \"1.0.0\"\n\n    @action\n    def where(self):\n        return sys.prefix\n";
/// It, in an environment that conda makes.
pub const LIST: &str =
    "capabilities:\n- name: my-tool\n  env_name: my-env\n  package: ./my-tool\n  env_file: env.yml\n";

/// A project in a place with stand-ins, and uv on the PATH; None, said loudly, where one cannot be had.
///
/// # Panics
/// Where a file of it cannot be written.
#[must_use]
pub fn project(world: &World, test: &str) -> Option<Both> {
    let ancestor = Ancestor::find(world, test, VERSIONS[0])?;
    let python = python::at_least(PYTHON_MIN.0, PYTHON_MIN.1)?;
    let uv = match python::uv(world) {
        Ok(uv) => uv,
        Err(error) => {
            repo::skip(test, &error);
            return None;
        }
    };
    let both = Both::new(world, ancestor, &python);
    both.add_program("uv", &uv);
    both.empty();
    both.write("my-tool/pyproject.toml", PYPROJECT);
    both.write("my-tool/my_tool/__init__.py", MODULE);
    both.write("env.yml", "name: x\ndependencies: [python=3.12]\n");
    both.write("capabilities.yaml", LIST);
    Some(both)
}

/// What was said, of a command that ended with this code.
///
/// # Panics
/// Where it ended otherwise, or said no document.
#[must_use]
#[track_caller]
pub fn document(said: &Said, code: i32) -> Value {
    assert_eq!(said.code, Some(code), "{said:#?}");
    serde_json::from_str(&said.stdout).unwrap_or_else(|e| panic!("{e}: {said:#?}"))
}
