//! `manifests/`: every example is accepted by the parser and by the published schema, every invalid one refused by
//! both. What one of them accepts and the other refuses would be a rule that users cannot know.

use cjm_wire::Manifest;
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
    let text =
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/schema/manifest-2.0.schema.json"));
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
