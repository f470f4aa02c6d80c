//! Unit tests of Python as the finders of faults: how one is run in the copy, and what became of it.
//!
//! What must hold: the interpreter reads the source as it is now, never what it compiled before a fault was planted or
//! taken away; a file that does not compile is told as that, for any test fails by it.

use super::entries::Mutation;
use super::run::{Run, limited, to_its_end};
use anyhow::{Context as _, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

/// The interpreter, unless `CJM_TEST_PYTHON` names another.
const PYTHON: &str = "/usr/bin/python3";
/// Parses the file it is given, and runs nothing of it.
const COMPILE: &str = "import ast, sys; ast.parse(open(sys.argv[1], encoding='utf-8').read(), sys.argv[1])";

/// Runs the test of a mutation on the copy at `tree`.
pub(super) fn run(tree: &Path, mutation: &Mutation) -> Result<Run> {
    let planted = tree.join(&mutation.file);
    let interpreter = std::env::var("CJM_TEST_PYTHON").unwrap_or_else(|_| PYTHON.to_owned());
    let compiled = Command::new(&interpreter).args(["-c", COMPILE]).arg(&planted).output();
    let compiled = compiled.with_context(|| format!("{interpreter} did not start"))?;
    if !compiled.status.success() {
        return Ok(Run::NotBuilt(String::from_utf8_lossy(&compiled.stderr).into_owned()));
    }
    // What was compiled is told from newer source by seconds and size: faults are planted faster than that.
    match fs::remove_dir_all(planted.with_file_name("__pycache__")) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let folder = tree.join(&mutation.package);
    let mut test = limited(&interpreter);
    test.args(["-B", "-m", "unittest", &mutation.test]).current_dir(folder.join("tests"));
    let ran = to_its_end(test.env("PYTHONPATH", &folder))?;
    Ok(Run::of(ran.status, tests_passed(&ran.stderr)))
}

/// How many tests passed, as unittest says where none failed; one that was skipped has not.
fn tests_passed(output: &str) -> usize {
    let number_after = |line: &str, before: &str| {
        let rest = line.split_once(before)?.1;
        rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse::<usize>().ok()
    };
    let count = |before| output.lines().rev().find_map(|line| number_after(line, before)).unwrap_or_default();
    count("Ran ").saturating_sub(count("skipped="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_tests_have_not_passed() {
        assert_eq!(tests_passed("..\n-----\nRan 2 tests in 0.1s\n\nOK\n"), 2);
        assert_eq!(tests_passed("s.\n-----\nRan 2 tests in 0.1s\n\nOK (skipped=1)\n"), 1);
        assert_eq!(tests_passed("Ran 0 tests in 0.000s\n\nNO TESTS RAN\n"), 0);
        assert_eq!(tests_passed(""), 0);
    }
}
