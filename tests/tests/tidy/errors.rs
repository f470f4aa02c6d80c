//! Every error says what to do next: each error enum answers `next_step`, and no answer is empty.

use crate::{all_files, assert_none};
use cjm_tests::source;
use cjm_wire::describe::{Described, ErrorReport, exit};
use std::collections::BTreeSet;

/// Error enums that no person ever sees, with the reason why.
const INTERNAL: [(&str, &str); 12] = [
    ("IllegalEvent", "a fault of the keeper's own; the keeper logs it and the host reports the worker's end"),
    ("LockError", "the host answers with its own error, which names the holder"),
    ("SeqPacketError", "keeper and host wrap it in what they were doing"),
    ("CanonicalError", "the caller names the value that cannot be hashed"),
    ("FrameError", "the reader of the frame names the peer that sent it"),
    ("Broken", "the worker's owner turns it into the worker's death, or into a connection error"),
    ("ReadError", "the shim turns it into the failure of the call"),
    ("ToolError", "the tool's own words, which the host wraps"),
    ("StoreError in capabilities/transcript-store", "a tool's own words, which the host wraps"),
    ("NotStartedByHost", "its message is two sentences, and the second is the next step"),
    ("Offence", "why the shim ended a tool; it becomes the evidence of a verdict"),
    ("Misfit", "why the shim ended a tool; it becomes the evidence of a verdict"),
];

/// Codes that a verdict and an error share, because they say the same.
const SHARED_CODES: [&str; 2] = ["worker.load_failed", "worker.never_ready"];

/// Name, crate folder and file of each enum with `thiserror::Error`.
fn error_enums() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for file in all_files().iter().filter(|file| file.extension() == "rs" && file.path.contains("/src/")) {
        let code = source::rust_code_only(&file.text);
        let mut derives = false;
        for line in code.lines().map(str::trim) {
            if line.starts_with("#[derive(") {
                derives = line.contains("Error");
            } else if derives && (line.contains("enum ") || line.contains("struct ")) {
                let after =
                    line.split_once("enum ").or_else(|| line.split_once("struct ")).map(|(_, rest)| rest);
                let name: String =
                    after.unwrap_or("").chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let room = file.path.split("/src/").next().unwrap_or_default().to_owned();
                found.push((name, room, file.path.clone()));
                derives = false;
            }
        }
    }
    found
}

/// What an enum answers as its next step: `fn next_step`, with `fn facts` where that has it.
fn next_step_of(name: &str, room: &str) -> Option<String> {
    let next_step = method_of("next_step", name, room)?;
    match next_step.contains("self.facts()") {
        true => method_of("facts", name, room),
        false => Some(next_step),
    }
}

/// The text of a method in an `impl` of `name` somewhere in `room`.
fn method_of(method: &str, name: &str, room: &str) -> Option<String> {
    let head_of_method = format!("fn {method}(");
    let prefix = format!("{room}/src/");
    for file in all_files().iter().filter(|file| file.path.starts_with(&prefix)) {
        let code = source::rust_code_only(&file.text);
        for (at, _) in code.match_indices("impl") {
            let head = code[at..].split('{').next().unwrap_or_default();
            let subject = head.rsplit(" for ").next().unwrap_or(head).trim_start_matches("impl").trim();
            if subject.trim_start_matches("crate::").split('<').next() != Some(name) {
                continue;
            }
            let block_end = code[at..].find("\n}").map_or(code.len(), |end| at + end);
            if let Some(start) = code[at..block_end].find(&head_of_method) {
                let body = &code[at + start..block_end];
                let length = body[3..].find("\n    fn ").map_or(body.len(), |end| end + 3);
                return Some(file.text[at + start..at + start + length].to_owned());
            }
        }
    }
    None
}

#[test]
fn every_error_enum_answers_what_to_do_next() {
    let enums = error_enums();
    assert!(enums.len() >= 10, "only {} error types found: {enums:?}", enums.len());
    let mut complaints = Vec::new();
    for (name, room, path) in &enums {
        let in_room = format!("{name} in {room}");
        if INTERNAL.iter().any(|(internal, reason)| {
            [name, &in_room].contains(&&(*internal).to_owned()) && !reason.is_empty()
        }) {
            continue;
        }
        match next_step_of(name, room) {
            None => complaints.push(format!("{path}: {name} has no `next_step`")),
            Some(body) if body.contains("\"\"") || body.contains("String::new()") => {
                complaints.push(format!("{path}: {name} answers an empty next step"));
            }
            Some(_) => {}
        }
    }
    assert_none(&complaints);
}

/// The codes that a file's errors answer: all texts of `fn code`, and of `fn facts` each first argument of a call.
fn codes_in<'t>(text: &'t str, code: &str) -> Vec<&'t str> {
    let mut found = Vec::new();
    for (method, first_arguments_only) in [("fn code(&self)", false), ("fn facts(&self)", true)] {
        for (at, _) in code.match_indices(method) {
            let end = code[at..].find("\n    }").map_or(code.len(), |end| at + end);
            let pieces: Vec<&str> = text[at..end].split('"').collect();
            // Code and text by turns.
            for pair in pieces.chunks_exact(2) {
                let before = pair[0].trim_end();
                if !first_arguments_only || (before.ends_with('(') && !before.ends_with("!(")) {
                    found.push(pair[1]);
                }
            }
        }
    }
    found
}

#[test]
fn codes_are_dotted_stable_and_used_once() {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut complaints = Vec::new();
    for file in all_files().iter().filter(|file| file.extension() == "rs" && file.path.contains("/src/")) {
        let code = source::rust_code_only(&file.text);
        for text in codes_in(&file.text, &code) {
            let dotted = text.split('.').count() >= 2
                && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c));
            if !dotted {
                complaints.push(format!("{}: code \"{text}\" is not `room.what`", file.path));
            } else if !seen.insert(text.to_owned()) && !SHARED_CODES.contains(&text) {
                complaints.push(format!("{}: code \"{text}\" has two meanings", file.path));
            }
        }
    }
    assert!(seen.len() >= 30, "only {} codes found", seen.len());
    assert_none(&complaints);
}

#[test]
fn errors_made_from_bad_input_are_complete() {
    let manifest = |text: &str| cjm_wire::Manifest::parse(text).err().map(|e| ErrorReport::of(&e));
    let composition =
        |text: &str| cjm_wire::composition::Composition::parse(text).err().map(|e| ErrorReport::of(&e));
    let minimal = r#"{"format_version":"2.0","code":{"name":"a","version":"1","module":"m","class":"C"},"install":{"python_path":"p"}}"#;
    assert!(manifest(minimal).is_none(), "the minimal manifest is good");
    let reports = [
        manifest("{"),
        manifest(&minimal.replace("2.0", "9.9")),
        manifest(&minimal.replace("\"a\"", "\"a b\"")),
        manifest(&" ".repeat(cjm_wire::manifest::MANIFEST_BYTES_MAX + 1)),
        composition("nodes: ["),
        composition("name: x\nnodes: {inputs: {capability: c}}"),
        composition("name: x\nnodes: {a: {capability: c, args: {x: '${inputs.nope}'}}}"),
    ];
    for (index, report) in reports.into_iter().enumerate() {
        let report = report.unwrap_or_else(|| panic!("input {index} was accepted"));
        assert!(report.code.contains('.'), "{report:?}");
        assert!(!report.message.is_empty() && report.next_step.len() > 10, "{report:?}");
        assert_eq!(report.exit_code, exit::DOMAIN, "{report:?}");
    }
}

#[test]
fn causes_are_told_outermost_first_and_never_twice() {
    #[derive(Debug, thiserror::Error)]
    #[error("the disk is full")]
    struct Inner;
    #[derive(Debug, thiserror::Error)]
    #[error("the file could not be written")]
    struct Outer(#[source] Inner);
    impl Described for Outer {
        fn code(&self) -> &'static str {
            "test.outer"
        }
        fn next_step(&self) -> String {
            "free some space".to_owned()
        }
    }
    let report = ErrorReport::of(&Outer(Inner));
    assert_eq!(report.causes, ["the disk is full"]);
    assert_eq!(report.next_step, "free some space");
}
