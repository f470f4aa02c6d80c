//! The documents tell the truth: what they name exists.

use crate::assert_none;
use cjm_tests::{repo, source};

/// Fewest steps that make a walk.
const WALK_STEPS_MIN: usize = 8;
/// The section of docs/ARCHITECTURE.md that follows one call through the code.
const WALK_TITLE: &str = "A call, walked";

/// A pair written as `` `path` · `Item` ``, as in `` `host/engine/src/host.rs` · `Host::submit` ``.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reference {
    path: String,
    item: String,
    line: usize,
}

fn document(path: &str) -> String {
    std::fs::read_to_string(repo::root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// All pairs of a text.
fn references(text: &str) -> Vec<Reference> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices("` · `") {
            let path = line[..at].rsplit('`').next().unwrap_or_default().to_owned();
            let after = &line[at + "` · `".len()..];
            let item = after.split('`').next().unwrap_or_default().to_owned();
            found.push(Reference { path, item, line: index + 1 });
        }
    }
    found
}

/// Why a pair names nothing; None if it does.
fn fault(reference: &Reference) -> Option<String> {
    let Ok(text) = std::fs::read_to_string(repo::root().join(&reference.path)) else {
        return Some(format!("{} does not exist", reference.path));
    };
    let is_python = reference.path.ends_with(".py");
    let (owner, name) = match reference.item.trim_end_matches("()").rsplit_once("::") {
        Some((owner, name)) => (Some(owner), name),
        None => (None, reference.item.trim_end_matches("()")),
    };
    let (functions, code) = if is_python {
        (source::python_functions(&text), text.clone())
    } else if reference.path.ends_with(".rs") {
        (source::rust_functions(&text), source::rust_code_only(&text))
    } else {
        return (!text.contains(&reference.item)).then(|| format!("{} is not in it", reference.item));
    };
    let defines = |kinds: &[&str], name: &str| {
        kinds.iter().any(|kind| {
            let needle = format!("{kind} {name}");
            code.match_indices(&needle).any(|(at, _)| {
                !code[at + needle.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
            })
        })
    };
    let kinds: &[&str] =
        if is_python { &["class"] } else { &["struct", "enum", "trait", "type", "const", "mod", "fn"] };
    let name_known = functions.iter().any(|f| f.name == name) || (owner.is_none() && defines(kinds, name));
    let owner_known = owner.is_none_or(|owner| {
        defines(kinds, owner) || code.lines().any(|l| l.trim_start().starts_with("impl") && l.contains(owner))
    });
    (!name_known || !owner_known).then(|| format!("no `{}` in {}", reference.item, reference.path))
}

/// The lines below a heading whose text ends with `title`, to the next heading of the same depth or above.
fn section(text: &str, title: &str) -> String {
    let depth = |line: &str| line.chars().take_while(|c| *c == '#').count();
    let mut lines =
        text.lines().skip_while(|line| !(line.starts_with('#') && line.trim_end().ends_with(title)));
    let Some(heading) = lines.next() else { return String::new() };
    lines
        .take_while(|line| !line.starts_with('#') || depth(line) > depth(heading))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_walk_through_the_code_names_what_exists() {
    let steps = references(&section(&document("docs/ARCHITECTURE.md"), WALK_TITLE));
    assert!(
        steps.len() >= WALK_STEPS_MIN,
        "docs/ARCHITECTURE.md: the section \"{WALK_TITLE}\" has {} steps (`` `path` · `Item` ``), fewer than {WALK_STEPS_MIN}",
        steps.len()
    );
    let faults =
        steps.iter().filter_map(fault).map(|fault| format!("docs/ARCHITECTURE.md, the walk: {fault}"));
    assert_none(&faults.collect::<Vec<_>>());
}

#[test]
fn every_promise_says_how_it_is_proved() {
    let text = document("docs/PROMISES.md");
    let mut complaints = Vec::new();
    let mut rows = 0;
    for (index, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [promise, state, proof] = cells.as_slice() else { continue };
        if *promise == "promise" || promise.starts_with("--") {
            continue;
        }
        rows += 1;
        let place = format!("docs/PROMISES.md:{}", index + 1);
        let proofs = references(proof);
        complaints.extend(proofs.iter().filter_map(fault).map(|fault| format!("{place}: {fault}")));
        match *state {
            "pass" if proofs.is_empty() => {
                complaints.push(format!("{place}: names no test (`path` · `test`)"));
            }
            "pass" | "pending" => {}
            other => complaints.push(format!("{place}: state \"{other}\" is neither pass nor pending")),
        }
    }
    assert!(rows >= 20, "docs/PROMISES.md: only {rows} rows found");
    assert_none(&complaints);
}

#[test]
fn every_pair_in_the_other_documents_names_what_exists() {
    let mut complaints = Vec::new();
    for path in ["README.md", "CONTRIBUTING.md", "docs/ARCHITECTURE.md", "docs/glossary.md"] {
        for reference in references(&document(path)) {
            complaints.extend(fault(&reference).map(|fault| format!("{path}:{}: {fault}", reference.line)));
        }
    }
    assert_none(&complaints);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut complaints = Vec::new();
    for file in crate::all_files().iter().filter(|file| file.extension() == "md") {
        let folder =
            repo::root().join(&file.path).parent().map(std::path::Path::to_owned).unwrap_or_default();
        for (index, line) in file.text.lines().enumerate() {
            for (at, _) in line.match_indices("](") {
                let target = line[at + 2..].split([')', '#', ' ']).next().unwrap_or_default();
                if target.is_empty() || target.contains("://") || folder.join(target).exists() {
                    continue;
                }
                complaints.push(format!("{}:{}: {target} does not exist", file.path, index + 1));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn pairs_are_found_and_checked() {
    let text = "# A\n## X. A call, walked\n1. `tests/src/source.rs` · `rust_functions` reads\n### deeper\n- `tests/src/source.rs` · `SourceFile::extension`, then `tests/src/source.rs` · `nothing`\n## B\n`a` · `b`\n";
    let found = references(&section(text, WALK_TITLE));
    assert_eq!(found.len(), 3, "{found:?}");
    let faults: Vec<Option<String>> = found.iter().map(fault).collect();
    assert!(faults[0].is_none() && faults[1].is_none() && faults[2].is_some(), "{faults:?}");
}
