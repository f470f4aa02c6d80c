//! No circle of files inside a crate: whoever reads one file must not have to read another that needs the first.
//!
//! A file needs another when it names it by a path that begins with `crate`, `super`, `self` or a module of its own, in
//! its code and not in its tests. What a `lib.rs` or `mod.rs` passes on counts as taken from the file that has it; such
//! a file is a member itself only when it has code beside its modules and what it passes on. A method that one file
//! gives a type of another is not seen: it needs no path.

use crate::{all_files, assert_none};
use cjm_tests::source;
use std::collections::{BTreeMap, BTreeSet};

/// Circles that may stay: where all files of one begin so, and why.
const RIGHT: [(&[&str], &str); 8] = [
    (
        &["worker-shim/conformance/src/checks/", "worker-shim/conformance/src/session.rs"],
        "a register of checks and its entries, which all are given the session",
    ),
    (
        &["tests/src/python.rs", "tests/src/world.rs"],
        "a world's tools need an interpreter, and who makes one needs the world's turn",
    ),
    (
        &["host/keeper/src/machine.rs", "host/keeper/src/machine/house.rs"],
        "one machine in two files: its events, and the workers it keeps",
    ),
    (
        &["host/platform/src/tree.rs", "host/platform/src/tree/clear.rs"],
        "one walk in two files: the tree of processes, and the clearing of it",
    ),
    (
        &["host/store/src/diagnostics.rs", "host/store/src/diagnostics_writer.rs"],
        "a store and its thread share the queue between them",
    ),
    (
        &[
            "host/store/src/diagnostics_reader.rs",
            "host/store/src/filters.rs",
            "host/store/src/keeping.rs",
            "host/store/src/payload.rs",
            "host/store/src/reader.rs",
            "host/store/src/retention.rs",
        ],
        "reader and filters are one reader in two files; what is forgotten is found by reading, and bodies are swept by who \
         keeps them",
    ),
    (
        &["wire/src/describe.rs", "wire/src/error.rs"],
        "a failure holds a report, and a report tells what the error object of a failure says",
    ),
    (
        &["worker-shim/src/"],
        "the tool kinds and the surface's routes are registers, and what their entries share still lies in the files \
         above them",
    ),
];

/// How often an item may be passed on from one file to the next.
const PASSED_ON_MAX: usize = 8;

/// One crate: its files by module path.
struct Crate {
    files: BTreeMap<Vec<String>, File>,
}

struct File {
    path: String,
    /// Its module paths are relative to the crate.
    needs: Vec<Vec<String>>,
    /// It is a `lib.rs`, `main.rs` or `mod.rs`.
    is_root: bool,
    has_code: bool,
}

/// Without the tests at the end.
fn product_code(text: &str) -> String {
    let code = source::rust_code_only(text);
    let tests = code.match_indices("#[cfg(test)]").find(|(at, mark)| {
        let next = code[at + mark.len()..].trim_start();
        next.starts_with("mod ") && next.lines().next().is_some_and(|line| line.trim_end().ends_with('{'))
    });
    match tests {
        Some((at, _)) => code[..at].to_owned(),
        None => code,
    }
}

/// `a/b.rs` and `a/b/mod.rs` → `a`, `b`; a crate's own root → nothing. `None` for tests kept in a file of their own.
fn module_of(inside: &str) -> Option<Vec<String>> {
    let mut module: Vec<String> = inside.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let last = module.last()?.as_str();
    if last == "tests" {
        return None;
    }
    if last == "mod" || ["lib", "main"].contains(&inside.trim_end_matches(".rs")) {
        module.pop();
    }
    Some(module)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word(text: &str) -> &str {
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    &text[..end]
}

/// The paths that a path's text goes on with, braces and all: `a::{b, c::D}` → `a::b`, `a::c::D`.
fn branches(text: &str, before: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let start = text.len() - text.trim_start().len();
    let rest = &text[start..];
    if let Some(inner) = rest.strip_prefix('{') {
        let mut at = 0;
        loop {
            at += branches(&inner[at..], before, found);
            let skipped = inner[at..].find([',', '}']).unwrap_or(inner.len() - at);
            at += skipped;
            if inner[at..].starts_with('}') || at >= inner.len() {
                return start + 1 + at + 1;
            }
            at += 1;
            if inner[at..].trim_start().starts_with('}') {
                return start + 1 + at + inner[at..].find('}').unwrap_or(0) + 1;
            }
        }
    }
    let name = word(rest);
    let mut path = before.to_vec();
    if !name.is_empty() && name != "self" {
        path.push(name.to_owned());
    }
    let end = start + name.len();
    match text[end..].strip_prefix("::") {
        Some(further) if further.starts_with(|c| is_word(c) || c == '{' || c == '*') => {
            end + 2 + branches(further, &path, found)
        }
        _ => {
            found.push(path);
            end
        }
    }
}

/// Every path of `code` that begins inside of its crate, from the crate on.
fn needs(code: &str, module: &[String], is_root: bool) -> Vec<Vec<String>> {
    let own: BTreeSet<&str> =
        code.lines().filter_map(|line| line.split_once("mod ")?.1.trim().strip_suffix(';')).collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("::") {
        let start = code[..at].rfind(|c| !is_word(c)).map_or(0, |before| before + 1);
        let first = &code[start..at];
        let before = code[..start].trim_end();
        if before.ends_with("::") {
            continue;
        }
        let parent = |of: &[String]| of[..of.len().saturating_sub(1)].to_vec();
        let (base, mut rest) = match first {
            "crate" => (Vec::new(), &code[at + 2..]),
            "self" => (module.to_vec(), &code[at + 2..]),
            "super" => (parent(module), &code[at + 2..]),
            name if is_root && own.contains(name) => (module.to_vec(), &code[start..]),
            _ => continue,
        };
        let mut base = base;
        while let Some(further) = rest.strip_prefix("super::") {
            (base, rest) = (parent(&base), further);
        }
        branches(rest, &base, &mut found);
    }
    found
}

fn has_code(code: &str) -> bool {
    code.lines().any(|line| {
        let line = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        let line = line.trim_start_matches("async ").trim_start_matches("unsafe ");
        ["fn ", "struct ", "enum ", "trait ", "impl", "const ", "static ", "type ", "macro_rules!"]
            .iter()
            .any(|kind| line.starts_with(kind))
    })
}

fn crates() -> BTreeMap<String, Crate> {
    let mut crates: BTreeMap<String, Crate> = BTreeMap::new();
    let sources = all_files();
    for file in sources.iter().filter(|file| file.extension() == "rs") {
        let Some((folder, inside)) = file.path.split_once("/src/") else { continue };
        // A program beside a library is a crate of its own that nobody can name.
        let beside = inside == "main.rs" && sources.iter().any(|f| f.path == format!("{folder}/src/lib.rs"));
        if beside || inside.starts_with("bin/") {
            continue;
        }
        let Some(module) = module_of(inside) else { continue };
        let is_root = ["lib.rs", "main.rs"].contains(&inside) || inside.ends_with("mod.rs");
        let code = product_code(&file.text);
        let has_children =
            sources.iter().any(|f| f.path.starts_with(&format!("{}/", file.path.trim_end_matches(".rs"))));
        let file = File {
            path: file.path.clone(),
            needs: needs(&code, &module, is_root || has_children),
            is_root: is_root || has_children,
            has_code: has_code(&code),
        };
        crates
            .entry(folder.to_owned())
            .or_insert_with(|| Crate { files: BTreeMap::new() })
            .files
            .insert(module, file);
    }
    crates
}

impl Crate {
    /// The file that has what a path names, through those that only pass it on.
    fn home(&self, path: &[String], passed_on: usize) -> Option<&File> {
        let known = (0..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]))?;
        let (module, item) = path.split_at(known);
        let file = self.files.get(module)?;
        if let Some(item) = item.first().filter(|_| file.is_root && passed_on < PASSED_ON_MAX) {
            let from = file.needs.iter().find(|need| need.last() == Some(item) && need.as_slice() != path);
            if let Some(from) = from {
                return self.home(from, passed_on + 1);
            }
        }
        Some(file)
    }

    /// File → the files it needs.
    fn arrows(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let members = self.files.values().filter(|file| !file.is_root || file.has_code);
        let homes = |file: &File| {
            let needed = file.needs.iter().filter_map(|need| self.home(need, 0));
            let members = needed.filter(|needed| !needed.is_root || needed.has_code);
            members.map(|needed| needed.path.as_str()).collect::<BTreeSet<_>>()
        };
        members
            .map(|file| {
                let mut needed = homes(file);
                needed.remove(file.path.as_str());
                (file.path.as_str(), needed)
            })
            .collect()
    }
}

/// Groups of files each of which is needed, over however many, by all others of its group.
fn circles<'f>(arrows: &BTreeMap<&'f str, BTreeSet<&'f str>>) -> BTreeSet<BTreeSet<&'f str>> {
    let reached = |from: &'f str| {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut open = vec![from];
        while let Some(file) = open.pop() {
            open.extend(arrows.get(file).into_iter().flatten().filter(|next| seen.insert(**next)));
        }
        seen
    };
    let all: BTreeMap<&str, BTreeSet<&str>> = arrows.keys().map(|file| (*file, reached(file))).collect();
    let group = |file: &'f str| -> BTreeSet<&'f str> {
        all[file]
            .iter()
            .copied()
            .filter(|other| all.get(other).is_some_and(|back| back.contains(file)))
            .collect()
    };
    arrows.keys().map(|file| group(file)).filter(|group| group.len() > 1).collect()
}

#[test]
fn no_files_of_a_crate_need_each_other() {
    let mut complaints = Vec::new();
    let mut arrows_seen = 0;
    let mut right: Vec<_> = RIGHT.iter().map(|(places, _)| (places, false)).collect();
    for of_crate in crates().values() {
        let arrows = of_crate.arrows();
        arrows_seen += arrows.values().map(BTreeSet::len).sum::<usize>();
        for circle in circles(&arrows) {
            let known = right.iter_mut().find(|(places, _)| {
                circle.iter().all(|file| places.iter().any(|place| file.starts_with(place)))
            });
            if let Some((_, found)) = known {
                *found = true;
                continue;
            }
            let inner: Vec<String> = circle
                .iter()
                .map(|file| {
                    let needed: Vec<&str> = arrows[file].intersection(&circle).copied().collect();
                    format!("{file} needs {}", needed.join(", "))
                })
                .collect();
            complaints.push(format!("these need each other:\n    {}", inner.join("\n    ")));
        }
    }
    let gone = right.iter().filter(|(_, found)| !found);
    complaints.extend(gone.map(|(places, _)| format!("no circle any more, take it from RIGHT: {places:?}")));
    assert!(arrows_seen > 500, "only {arrows_seen} arrows were found");
    assert_none(&complaints);
}

#[test]
fn paths_are_found_with_their_braces() {
    let paths = |code: &str| {
        let module = ["a".to_owned(), "b".to_owned()];
        let found = needs(code, &module, false);
        found.iter().map(|path| path.join("::")).collect::<Vec<_>>()
    };
    assert_eq!(paths("use crate::x::{self, Y, z::{A, B}};"), ["x", "x::Y", "x::z::A", "x::z::B"]);
    assert_eq!(paths("use super::c::D; fn f() { crate::q::run::<u8>() }"), ["a::c::D", "q::run"]);
    assert_eq!(paths("use super::super::e; use std::fmt; tokio::spawn(self::f::g())"), ["e", "a::b::f::g"]);
}
