//! Length limits, with a list of exceptions that can only shrink: an entry states the length of today, so that
//! growth fails, and shrinking fails too until the entry follows.

use crate::{all_files, assert_none};
use cjm_tests::{repo, source};
use std::collections::BTreeMap;

const FILE_LINES_MAX: usize = 600;
const FILE_LINES_HARD_MAX: usize = 1000;
const FUNCTION_LINES_MAX: usize = 70;
/// How many exceptions there are. Lower it when one goes; it is never raised.
const EXCEPTIONS: usize = 0;
/// `LENGTH WHERE REASON…` per line; WHERE is `path` or `path::function`.
const EXCEPTIONS_FILE: &str = "tests/length-exceptions.txt";

/// Where → (length, reason).
type Exceptions = BTreeMap<String, (usize, String)>;

#[test]
fn files_and_functions_stay_short() {
    let mut exceptions = read_exceptions();
    assert_eq!(
        exceptions.len(),
        EXCEPTIONS,
        "{EXCEPTIONS_FILE}: its entries are counted, and only ever fewer"
    );
    let mut complaints = Vec::new();
    for file in all_files() {
        let functions = match file.extension() {
            "rs" => source::rust_functions(&file.text),
            "py" => source::python_functions(&file.text),
            "sh" => Vec::new(),
            _ => continue,
        };
        let length = file.line_count();
        if length > FILE_LINES_HARD_MAX {
            complaints.push(format!("{}: {length} lines, never more than {FILE_LINES_HARD_MAX}", file.path));
        }
        check(&mut exceptions, &file.path, length, FILE_LINES_MAX, &mut complaints);
        for function in functions {
            let place = format!("{}::{}", file.path, function.name);
            check(&mut exceptions, &place, function.length, FUNCTION_LINES_MAX, &mut complaints);
        }
    }
    for (place, _) in exceptions {
        complaints.push(format!("{EXCEPTIONS_FILE}: {place} needs no exception any more; remove the line"));
    }
    assert_none(&complaints);
}

fn check(
    exceptions: &mut Exceptions,
    place: &str,
    length: usize,
    length_max: usize,
    complaints: &mut Vec<String>,
) {
    if length <= length_max {
        return;
    }
    match exceptions.remove(place) {
        Some((known, reason)) if known == length && !reason.is_empty() => {}
        Some((_, reason)) if reason.is_empty() => {
            complaints.push(format!("{place}: the exception lacks a reason"));
        }
        Some((known, _)) if known > length => {
            complaints.push(format!("{place}: shorter now, write {length} instead of {known}"));
        }
        Some((known, _)) => complaints.push(format!("{place}: grew from {known} to {length} lines")),
        None => complaints.push(format!("{place}: {length} lines, more than {length_max}; split it")),
    }
}

fn read_exceptions() -> Exceptions {
    let text = std::fs::read_to_string(repo::root().join(EXCEPTIONS_FILE)).unwrap_or_default();
    text.lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut parts = line.splitn(3, ' ');
            let length = parts.next().and_then(|n| n.parse().ok());
            let length = length.unwrap_or_else(|| panic!("{EXCEPTIONS_FILE}: no length in \"{line}\""));
            let place = parts.next().unwrap_or_default().to_owned();
            (place, (length, parts.next().unwrap_or_default().to_owned()))
        })
        .collect()
}
