//! Python source as the interpreter of an installation would read it: compiled and thrown away, never run.

use crate::command::{command, run};
use crate::constraint::{Constraint, Wanted};
use crate::error::EnvironmentError;
use crate::interpreters::{Interpreter, choose, discover_for, usual};
use serde::Deserialize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files of one question; their names are its arguments, of which the kernel takes so many bytes.
const FILES_AT_ONCE: usize = 500;
const NAMES_BYTES_MAX: usize = 100_000;
/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Compiles each file that its arguments name and prints what is wrong, one JSON line each. `-I` and `-S` keep the folder,
/// the caller's packages and their start-up files out of it.
const QUESTION: &str = include_str!("syntax.py");

/// Something that is no Python.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxFault {
    /// The file.
    pub file: PathBuf,
    /// Line and column, from 1; of a file that could not be read there is none.
    pub place: Option<(usize, usize)>,
    /// In Python's words.
    pub message: String,
}

#[derive(Deserialize)]
struct Said {
    index: usize,
    line: Option<usize>,
    column: Option<usize>,
    message: String,
}

/// The interpreter that an entry with this `python_version` would get here, or the usual one.
pub async fn interpreter_for(python_version: Option<&str>) -> Option<Interpreter> {
    let Some(constraint) = python_version.and_then(Constraint::parse) else { return usual().await };
    let wanted = Wanted::new(constraint, true);
    let found = discover_for(std::slice::from_ref(&wanted)).await;
    choose(&found, &wanted).cloned()
}

/// What in these files does not compile, in their order.
///
/// # Errors
/// When the interpreter does not answer.
pub async fn syntax_faults(
    interpreter: &Interpreter,
    files: &[PathBuf],
) -> Result<Vec<SyntaxFault>, EnvironmentError> {
    let mut faults = Vec::new();
    let mut rest = files;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(at_once(rest));
        faults.extend(ask(&interpreter.path, now).await?);
        rest = later;
    }
    Ok(faults)
}

fn at_once(files: &[PathBuf]) -> usize {
    let mut bytes = 0;
    let fits = |file: &&PathBuf| {
        bytes += file.as_os_str().as_bytes().len() + 1;
        bytes <= NAMES_BYTES_MAX
    };
    files.iter().take(FILES_AT_ONCE).take_while(fits).count().max(1)
}

async fn ask(python: &Path, files: &[PathBuf]) -> Result<Vec<SyntaxFault>, EnvironmentError> {
    let what = "reading Python source";
    let mut question = command(python);
    question.args(["-I", "-S", "-B", "-W", "ignore", "-c", QUESTION]);
    // It runs elsewhere.
    question.args(files.iter().map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone())));
    let answer = run(question, what, TIMEOUT, &|_| {}).await?;
    if !answer.success {
        let (program, ending) = (python.display().to_string(), answer.ending);
        let what = what.to_owned();
        return Err(EnvironmentError::HelperFailed {
            what,
            program,
            ending,
            stderr_tail: answer.stderr_tail,
        });
    }
    let said = String::from_utf8_lossy(&answer.stdout).into_owned();
    let faults = said.lines().filter_map(|line| serde_json::from_str::<Said>(line).ok());
    let fault = |said: Said| {
        let place = said.line.map(|line| (line.max(1), said.column.unwrap_or(1).max(1)));
        Some(SyntaxFault { file: files.get(said.index)?.clone(), place, message: said.message })
    };
    Ok(faults.filter_map(fault).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_compile_is_named_with_its_place_and_nothing_runs() {
        let folder = tempfile::tempdir().expect("tempdir");
        let Some(python) = interpreter_for(None).await else { panic!("tests need a Python") };
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("write");
            path
        };
        let ran = folder.path().join("ran");
        let files = [
            write("good.py", format!("open({ran:?}, 'w')\n").as_bytes()),
            write("bad.py", b"x = 1\ndef f(:\n    pass\n"),
            write("indent.py", b"if True:\nx = 1\n"),
            write("outside.py", b"return 1\n"),
            write("nul.py", b"x = 1\n\0\n"),
            write("latin.py", b"# -*- coding: latin-1 -*-\nx = '\xe4'\n"),
            write("no-text.py", b"x = '\xe4'\n"),
            write("deep.py", format!("x = {}1\n", "(".repeat(5000)).as_bytes()),
            folder.path().join("missing.py"),
        ];
        let found = syntax_faults(&python, &files).await.expect("answers");
        let places: Vec<_> = found
            .iter()
            .map(|fault| (fault.file.file_stem().and_then(|stem| stem.to_str()).unwrap_or(""), fault.place))
            .collect();
        let names: Vec<_> = places.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["bad", "indent", "outside", "nul", "no-text", "deep", "missing"], "{found:?}");
        assert_eq!(places[0], ("bad", Some((2, 7))), "{found:?}");
        let lines: Vec<_> = places[1..3].iter().map(|(_, place)| place.map(|(line, _)| line)).collect();
        assert_eq!(lines, [Some(2), Some(1)], "{found:?}");
        assert_eq!(places.last(), Some(&("missing", None)), "{found:?}");
        assert!(!ran.exists());
    }
}
