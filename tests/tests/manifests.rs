//! `manifests/`: every example is accepted by the parser and by the published schema, every invalid one refused by
//! both. What one of them accepts and the other refuses would be a rule that users cannot know.

use cjm_wire::Manifest;
use cjm_wire::adapter::AdapterManifest;
use cjm_wire::capabilities_file::CapabilitiesFile;
use cjm_wire::composition::Composition;
use cjm_wire::placed::Placed;
use std::path::{Path, PathBuf};

fn files(folder: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory)
        .expect("the folder")
        .map(|entry| entry.expect("entry").path())
        .collect();
    files.sort();
    files
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("the file")
}

fn schema() -> jsonschema::Validator {
    schema_of("manifest-2.0")
}

fn schema_of(name: &str) -> jsonschema::Validator {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/schema");
    let text = read(&folder.join(format!("{name}.schema.json")));
    jsonschema::validator_for(&serde_json::from_str(&text).expect("JSON")).expect("a schema")
}

#[test]
fn examples_are_accepted_by_parser_and_schema() {
    let schema = schema();
    let shipped = ["ffmpeg-convert", "ocr", "transcript-store", "system-monitor"].map(|name| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../capabilities").join(name).join("manifest.json")
    });
    let examples = files("examples");
    assert!(examples.len() >= 3, "{examples:?}");
    for path in examples.iter().chain(&shipped) {
        let text = read(path);
        Manifest::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let value = serde_json::from_str(&text).expect("JSON");
        schema.validate(&value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[test]
fn invalid_ones_are_refused_by_parser_and_schema() {
    let schema = schema();
    let invalid = files("invalid");
    assert!(invalid.len() >= 10, "{invalid:?}");
    for path in &invalid {
        let text = read(path);
        assert!(Manifest::parse(&text).is_err(), "the parser accepts {}", path.display());
        let value = serde_json::from_str(&text).expect("JSON");
        assert!(!schema.is_valid(&value), "the schema accepts {}", path.display());
    }
}

/// Parser and schema must say the same of each text.
#[track_caller]
fn check(schema: &str, parse: impl Fn(&str) -> Result<(), String>, good: &[&str], bad: &[&str]) {
    let validator = schema_of(schema);
    let document = |text: &str| Placed::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).value;
    for text in good {
        parse(text).unwrap_or_else(|error| panic!("the parser refuses {text}: {error}"));
        validator
            .validate(&document(text))
            .unwrap_or_else(|error| panic!("the schema refuses {text}: {error}"));
    }
    for text in bad {
        assert!(parse(text).is_err(), "the parser accepts {text}");
        assert!(!validator.is_valid(&document(text)), "the schema accepts {text}");
    }
}

#[test]
fn lists_of_capabilities_are_told_from_others_by_parser_and_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let parse = |text: &str| CapabilitiesFile::parse(text).map(|_| ()).map_err(|error| error.to_string());
    let entry = |fields: &str| format!("capabilities:\n- {{name: a, {fields}}}\n");
    let good = [
        read(&root.join("capabilities.yaml")),
        entry("manifest: m.json"),
        entry("env_name: e, package: p, python_version: '3.11', later: 1"),
        entry("env_name: e, package: p, python_version: 3.11"),
        entry(
            "env_name: e, package: p, env_file: e.yml, interface_libs: [l], adapters: [{impl: 'm:C', lib: l}]",
        ),
        "capabilities: []".to_owned(),
    ];
    let bad = [
        "capabilities: 3".to_owned(),
        "capabilites: []".to_owned(),
        "capabilities:\n- {manifest: m}\n".to_owned(),
        "capabilities:\n- {name: 'a b', manifest: m}\n".to_owned(),
        entry("manifest: m, package: p"),
        entry("package: p, python_version: '3'"),
        entry("env_name: e, package: p"),
        entry("env_name: e, package: p, python_version: '3', env_file: f"),
        entry("env_name: e, package: p, python_version: '3', interface_libs: l"),
        entry("env_name: e, package: p, python_version: '3', adapters: [{lib: l}]"),
        entry("env_name: e/f, package: p, python_version: '3'"),
        "capabilities:\n- {name: 5, manifest: m}\n".to_owned(),
        "capabilities:\n- {name: true, manifest: m}\n".to_owned(),
        entry("manifest: 5"),
        entry("env_name: 310, package: p, python_version: '3'"),
        entry("env_name: e, package: 5, python_version: '3'"),
        entry("env_name: e, package: p, env_file: 5"),
        entry("env_name: e, package: p, python_version: true"),
    ];
    check("capabilities", parse, &good.each_ref().map(String::as_str), &bad.each_ref().map(String::as_str));
}

#[test]
fn adapters_and_compositions_are_told_from_others_by_parser_and_schema() {
    let parse = |text: &str| AdapterManifest::parse(text).map(|_| ()).map_err(|error| error.to_string());
    let whole = r#"{"unit": "adapter", "name": "m.C", "task_name": "t", "module": "m", "class": "C",
        "protocol_members": {"methods": [{"name": "go", "params": ["x"]}], "properties": ["p"]}, "later": 1}"#;
    let bad = [
        whole.replace("\"adapter\"", "\"other\""),
        whole.replace("\"task_name\": \"t\",", ""),
        whole.replace("\"module\": \"m\"", "\"module\": \"\""),
        whole.replace("[\"x\"]", "[1]"),
        whole.replace("\"name\": \"go\",", ""),
    ];
    check("adapter-manifest", parse, &[whole], &bad.each_ref().map(String::as_str));

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compositions");
    let parse = |text: &str| Composition::parse(text).map(|_| ()).map_err(|error| error.to_string());
    let shipped = ["recordings.yaml", "paper-and-sound.yaml"].map(|name| read(&root.join(name)));
    let node = |fields: &str| format!("name: f\nnodes:\n  a: {{{fields}}}\n");
    let small =
        node("capability: c, priority: -1, map: [1], args: {x: '${item}'}, after: [], allow_partial: true");
    // A key with nothing after it counts as left out.
    let whole = "name: f\nnodes:\n  a: {capability: c}\n";
    let empty = ["description", "inputs", "failure", "monitor", "capabilities", "output"]
        .map(|key| format!("{whole}{key}:\n"));
    let keys = ["action", "task", "method", "map", "args", "after", "allow_partial", "priority"];
    let of_node = keys.map(|key| format!("name: f\nnodes:\n  a:\n    capability: c\n    {key}:\n"));
    let deeper = [
        format!("{whole}inputs:\n  i:\n"),
        format!("{whole}inputs:\n  i:\n    type:\n    default:\n    description:\n"),
        format!("{whole}capabilities:\n  c:\n"),
        format!("{whole}capabilities:\n  c:\n    instances:\n    config:\n"),
    ];
    let empty: Vec<String> = empty.into_iter().chain(of_node).chain(deeper).collect();
    for text in &empty {
        let read = Composition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let node = &read.nodes["a"];
        assert!(node.args.is_empty() && node.after.is_empty() && !node.allow_partial, "{text}");
        assert_eq!((read.description.as_str(), node.priority), ("", 0), "{text}");
    }
    let others = [shipped[0].as_str(), &shipped[1], &small, "name: f\nnodes:\n"];
    let good: Vec<&str> = others.into_iter().chain(empty.iter().map(String::as_str)).collect();
    let bad = [
        "name: f".to_owned(),
        node("action: x"),
        "name:\nnodes: {a: {capability: c}}\n".to_owned(),
        "name: f\nnodes:\n  a:\n".to_owned(),
        node("capability: null"),
        node("capability: c, after: [null]"),
        node("capability: c, oops: 1"),
        node("capability: c, after: b"),
        node("capability: c, priority: high"),
        node("capability: c, allow_partial: perhaps"),
        node("capability: c").replace("  a:", "  inputs:"),
        format!("{}failure: sometimes\n", node("capability: c")),
        format!("{}inputs: {{i: {{type: folder}}}}\n", node("capability: c")),
        format!("{}later: 1\n", node("capability: c")),
    ];
    check("composition", parse, &good, &bad.each_ref().map(String::as_str));
}
