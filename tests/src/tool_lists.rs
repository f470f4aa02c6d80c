//! Lists of capabilities and manifests of programs to put into them.

use crate::world::{World, manifest};
use serde_json::json;

/// A manifest of a program that says a word.
pub fn write_tool(world: &World, file: &str, name: &str, program: &str, version: &str) {
    let actions = json!({"say": {"argv": ["-c", "echo hi"], "result": "stdout_text"}});
    let runtime = json!({"kind": "executable", "program": program, "actions": actions});
    let text = manifest(name, &json!({"runtime": runtime, "version": version}), &json!({})).to_string();
    world.write(file, text);
}

/// A list of this text; its path.
pub fn write_list(world: &World, name: &str, text: &str) -> String {
    world.write(name, text).display().to_string()
}
