//! Rules about single files: headers, lint switches, unsafe, words that do not belong here.

use crate::{all_files, assert_none};
use cjm_tests::{repo, source};

/// Lines above an unsafe block in which its SAFETY comment must stand.
const SAFETY_LINES_MAX: usize = 6;

#[test]
fn every_rust_file_says_what_it_is() {
    let headless = all_files().into_iter().filter(|file| file.extension() == "rs").filter(|file| {
        let header: String =
            file.text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join(" ");
        header.len() < 40
    });
    assert_none(
        &headless
            .map(|f| format!("{}: begin with `//!` lines: what it is, is not, must hold", f.path))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn every_python_file_has_a_docstring() {
    let headless = all_files().into_iter().filter(|file| file.extension() == "py").filter(|file| {
        let first = file.text.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or("");
        !(first.starts_with("\"\"\"") || first.starts_with("r\"\"\""))
    });
    assert_none(&headless.map(|f| format!("{}: begin with a docstring", f.path)).collect::<Vec<_>>());
}

/// Largest file of the repository: the lists of planted faults grow, and what is made by an experiment does not belong here.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// What lies at the root. A new entry is added on purpose.
const AT_THE_ROOT: [&str; 22] = [
    ".cargo",
    ".ci",
    ".git",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "capabilities",
    "capabilities.yaml",
    "clippy.toml",
    "compositions",
    "docs",
    "host",
    "manifests",
    "rustfmt.toml",
    "scripts",
    "tests",
    "wire",
    "worker-shim",
];

#[test]
fn nothing_lies_here_that_was_not_put_here_on_purpose() {
    let mut complaints = Vec::new();
    for entry in std::fs::read_dir(repo::root()).expect("the root").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "target" && !AT_THE_ROOT.contains(&name.as_str()) {
            complaints.push(format!("{name}: remove it, or name it in AT_THE_ROOT"));
        }
    }
    let mut open: Vec<_> =
        AT_THE_ROOT.iter().filter(|name| **name != ".git").map(|name| repo::root().join(name)).collect();
    while let Some(path) = open.pop() {
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() && path.file_name().is_none_or(|name| name != "target" && name != "__pycache__") {
            open.extend(std::fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
        } else if meta.is_file() && meta.len() > FILE_BYTES_MAX {
            complaints.push(format!(
                "{}: {} bytes are more than {FILE_BYTES_MAX}",
                path.display(),
                meta.len()
            ));
        }
    }
    assert_none(&complaints);
}

#[test]
fn work_left_open_is_an_issue_and_not_a_comment() {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let mut complaints = Vec::new();
    for file in all_files().iter().filter(|file| file.path != "Cargo.lock") {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| contains_word(line, word)) {
                complaints.push(format!("{}:{}: {word}: do it, or open an issue", file.path, index + 1));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn the_repository_names_no_machinery_that_wrote_it_and_no_machine_it_was_written_on() {
    let words = [
        concat!("cla", "ude"),
        concat!("anthro", "pic"),
        concat!("chat", "gpt"),
        concat!("co", "pilot"),
        concat!("sub", "agent"),
        concat!("/work", "/main"),
        concat!("/work", "/shared"),
        concat!("../", "shared/"),
    ];
    let mut complaints = Vec::new();
    for file in all_files() {
        for (index, line) in file.text.to_lowercase().lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                complaints.push(format!("{}:{}: `{word}` does not belong here", file.path, index + 1));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn unsafe_code_lives_in_platform_and_says_why_it_is_sound() {
    let mut complaints = Vec::new();
    for file in all_files().iter().filter(|file| file.extension() == "rs") {
        let code = source::rust_code_only(&file.text);
        let lines: Vec<&str> = file.text.lines().collect();
        for (index, line) in code.lines().enumerate() {
            if !contains_word(line, "unsafe") {
                continue;
            }
            if !file.path.starts_with("host/platform/") {
                complaints.push(format!("{}:{}: unsafe outside host/platform", file.path, index + 1));
                continue;
            }
            let above = &lines[index.saturating_sub(SAFETY_LINES_MAX)..=index];
            let declared = line.contains("unsafe fn") || line.contains("unsafe extern");
            if !declared && !above.iter().any(|line| line.contains("SAFETY:")) {
                complaints.push(format!("{}:{}: unsafe without `// SAFETY:`", file.path, index + 1));
            }
        }
    }
    assert_none(&complaints);
}

/// Deleting a folder goes through what a tool, or somebody else, has mounted in it.
#[test]
fn folders_are_deleted_in_one_place_that_spares_what_is_mounted_in_them() {
    let mut complaints = Vec::new();
    for file in all_files().iter().filter(|file| file.extension() == "rs" && file.path.contains("/src/")) {
        let is_of_tests = file.path.starts_with("tests/") || file.path.starts_with("scripts/");
        let is_of_tests = is_of_tests || file.path.ends_with("/tests.rs") || file.path.contains("/tests/");
        if is_of_tests || file.path == "host/platform/src/mounts.rs" {
            continue;
        }
        let code = source::rust_code_only(&file.text);
        let product = code.split("#[cfg(test)]").next().unwrap_or_default();
        for (index, _) in product.lines().enumerate().filter(|(_, line)| line.contains("remove_dir_all")) {
            complaints.push(format!("{}:{}: use `mounts::remove_tree`", file.path, index + 1));
        }
    }
    assert_none(&complaints);
}

#[test]
fn lints_are_silenced_only_where_they_fire_and_with_a_reason() {
    let mut complaints = Vec::new();
    for file in all_files().iter().filter(|file| file.extension() == "rs") {
        let code = source::rust_code_only(&file.text);
        for (at, _) in code.match_indices("#[allow(").chain(code.match_indices("#![allow(")) {
            // A module that several test programs share is not used in full by each: an expectation would not fire.
            if file.path.contains("/tests/") && file.text[at..].starts_with("#![allow(dead_code, reason") {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            complaints.push(format!("{}:{line}: use `#[expect(lint, reason = \"…\")]`", file.path));
        }
    }
    assert_none(&complaints);
}

#[test]
fn every_crate_follows_the_workspace_lints() {
    let complaints: Vec<String> = all_files()
        .iter()
        .filter(|file| file.path.ends_with("Cargo.toml") && file.path != "Cargo.toml")
        .filter(|file| !file.text.replace(' ', "").contains("[lints]\nworkspace=true"))
        .map(|file| format!("{}: add `[lints]` with `workspace = true`", file.path))
        .collect();
    assert_none(&complaints);
}

#[test]
fn decides_clippy_configuration_repeats_the_shared_keys_and_bans_the_world() {
    let read = |path: &str| {
        std::fs::read_to_string(repo::root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let own = read("host/decide/clippy.toml");
    let missing = read("clippy.toml");
    let missing = missing
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#') && !own.lines().any(|l| l.trim() == *line));
    assert_none(&missing.map(|l| format!("host/decide/clippy.toml: repeat `{l}`")).collect::<Vec<_>>());
    let bans = ["std::time::Instant::now", "std::time::SystemTime::now", "std::thread::spawn", "std::fs::"];
    let unbanned = bans.iter().filter(|path| !own.contains(**path));
    assert_none(&unbanned.map(|p| format!("host/decide/clippy.toml: ban `{p}`")).collect::<Vec<_>>());
}

fn contains_word(line: &str, word: &str) -> bool {
    let is_part = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    line.match_indices(word).any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|at| line.as_bytes().get(at));
        let after = line.as_bytes().get(at + word.len());
        !is_part(before) && (!is_part(after) || word.ends_with(':'))
    })
}
