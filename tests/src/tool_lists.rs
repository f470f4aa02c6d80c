//! Lists of capabilities and manifests of programs to put into them.

use crate::world::{World, manifest};
use serde_json::{Value, json};

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

/// The texts of a list in a document, a line each.
///
/// # Panics
/// When it is no list.
#[must_use]
pub fn words(value: &Value) -> String {
    value
        .as_array()
        .expect("words")
        .iter()
        .map(|word| word.as_str().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}
