//! Manifests: any text is read or refused in words, and what was read is written back without a change. Not about
//! files: where they lie is the catalogue's.
#![no_main]

use cjm_wire::Manifest;
use cjm_wire::describe::Described;
use cjm_wire::runtime_check::{TemplatePart, parse_template};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    template(text);
    let manifest = match Manifest::parse(text) {
        Ok(manifest) => manifest,
        Err(error) => {
            assert!(
                !error.to_string().is_empty() && !error.code().is_empty() && !error.next_step().is_empty()
            );
            return;
        }
    };
    let written = manifest.to_file_text();
    let read = Manifest::parse(&written).unwrap_or_else(|error| panic!("its own text: {error}\n{written}"));
    assert_eq!(read, manifest, "{written}");
    assert_eq!(read.to_file_text(), written, "a second rewrite changes it");
    let (mut first, mut second) = (manifest, read);
    first.seal();
    second.seal();
    assert_eq!(first.drift_tracking, second.drift_tracking, "a rewrite changes the witness hashes");
    assert_eq!(first.file_name().components().count(), 1, "the name leads out of its folder");
});

/// What is split is put together again.
fn template(text: &str) {
    let Ok(parts) = parse_template(text) else { return };
    let escaped = |text: &str| text.replace('{', "{{").replace('}', "}}");
    let again: String = parts
        .iter()
        .map(|part| match part {
            TemplatePart::Text(text) => escaped(text),
            TemplatePart::Name { name, part: None } => format!("{{{name}}}"),
            TemplatePart::Name { name, part: Some(part) } => format!("{{{name}.{part}}}"),
        })
        .collect();
    assert_eq!(parse_template(&again).as_ref(), Ok(&parts), "{again}");
}
