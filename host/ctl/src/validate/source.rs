//! Looks through a capability's source: for what is no Python, and for `logging.basicConfig`. A worker configures logging before it imports its
//! tool: a plain call then does nothing, and one with `force=True` takes away the handler that carries the records.
//!
//! It reads Python as far as comments, strings and names go; what is called by another way (`getattr`, a variable) is
//! not found.

use crate::validate::document::Checked;
use crate::validate::finding::{Finding, listed};
use cjm_environments::{SyntaxFault, interpreter_for, syntax_faults};
use cjm_platform::files::{FileError, read_regular};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Most files that are looked at.
pub(crate) const FILES_MAX: usize = 20_000;
/// Deepest folder that is looked at.
const DEPTH_MAX: usize = 32;
/// Largest file that is looked at, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Folders of scripts that run in the host, and configure its logging as they like; and of what was built or fetched.
const NOT_LOOKED_AT: [&str; 4] = ["tests_manual", "_proc", "node_modules", "target"];
const METHOD: &str = "basicConfig";

/// The files of a package, or the file itself; and what cannot be read, and a word if there are more than are looked at.
pub(crate) fn files(path: &Path) -> (Vec<PathBuf>, Checked) {
    let (mut files, mut unread, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    if path.is_dir() {
        collect(path, 0, &mut files, &mut unread);
    } else {
        files.push(path.to_owned());
    }
    files.sort();
    if files.len() == FILES_MAX {
        warnings.push(format!("only the first {FILES_MAX} files were looked at"));
    }
    (files, (unread, warnings))
}

/// How these files configure logging: errors, warnings.
pub(crate) fn logging(files: &[PathBuf]) -> (Vec<Finding>, Vec<String>) {
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    for file in files {
        let text = match read_regular(file, FILE_BYTES_MAX) {
            Err(FileError::TooLarge { .. }) => {
                warnings.push(format!("{}: too large to be source", file.display()));
                continue;
            }
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.io_kind() == Some(ErrorKind::PermissionDenied) => {
                errors.push(Finding::unread(file, error.to_string()));
                continue;
            }
            Err(error) => {
                warnings.push(format!("{}: cannot be read: {error}", file.display()));
                continue;
            }
        };
        for call in calls(&text) {
            if call.forced {
                errors.push(Finding {
                    code: "source.logging_forced".to_owned(),
                    message: "logging.basicConfig(force=True) takes away the handler that carries this tool's records"
                        .to_owned(),
                    next_step: "remove the call; log with logging.getLogger(__name__)".to_owned(),
                    file: Some(file.clone()),
                    place: Some((call.line, call.column)),
                });
            } else {
                let place = format!("{}:{}:{}", file.display(), call.line, call.column);
                warnings.push(format!(
                    "{place}: logging.basicConfig does nothing in a worker, which has configured logging; remove it"
                ));
            }
        }
    }
    (errors, warnings)
}

/// What in these files is no Python to the interpreter that an installation would take, which compiles them and runs
/// nothing of them.
pub(crate) async fn syntax(files: &[PathBuf], python_version: Option<&str>) -> (Vec<Finding>, Vec<String>) {
    // What cannot be read is told elsewhere, and is no reason to look for an interpreter.
    let files: Vec<PathBuf> = files.iter().filter(|file| file.is_file()).cloned().collect();
    if files.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let Some(interpreter) = interpreter_for(python_version).await else {
        let wanted = python_version.map_or_else(|| "Python".to_owned(), |wanted| format!("Python {wanted}"));
        return (Vec::new(), vec![format!("no {wanted} on this machine: the syntax was not looked at")]);
    };
    let finding = |fault: SyntaxFault| Finding {
        code: "source.syntax".to_owned(),
        message: format!("{} (Python {})", fault.message, interpreter.version),
        next_step: "correct the source; the tool cannot be imported".to_owned(),
        file: Some(fault.file),
        place: fault.place,
    };
    match syntax_faults(&interpreter, &files).await {
        Ok(faults) => (listed(faults.into_iter().map(finding).collect()), Vec::new()),
        Err(error) => (Vec::new(), vec![format!("the syntax was not looked at: {error}")]),
    }
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>, unread: &mut Vec<Finding>) {
    let listing = match std::fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) => {
            unread.push(Finding::unread_folder(folder, &error));
            return;
        }
    };
    for entry in listing.filter_map(Result::ok) {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') || NOT_LOOKED_AT.contains(&name.as_str()) || files.len() >= FILES_MAX {
            continue;
        }
        // A link may lead in a circle, or out of the package.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // What others wrote is theirs to correct.
            if depth < DEPTH_MAX && !path.join("pyvenv.cfg").exists() {
                collect(&path, depth + 1, files, unread);
            }
        } else if path.extension().is_some_and(|extension| extension == "py") {
            files.push(path);
        }
    }
}

/// One use of the function. Line and column from 1.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    line: usize,
    column: usize,
    forced: bool,
}

fn calls(text: &str) -> Vec<Call> {
    let code = without_comments_and_strings(text);
    let words = words(&code);
    let word = |index: usize| words.get(index).map_or("", |word| word.1);
    let (modules, functions) = imported(&words);
    let mut found = Vec::new();
    for (index, (offset, text)) in words.iter().enumerate() {
        let dotted = *text == METHOD && index >= 2 && word(index - 1) == ".";
        let of_module = dotted && modules.iter().any(|module| *module == word(index - 2));
        let of_import =
            functions.contains(text) && (index == 0 || word(index - 1) != ".") && word(index + 1) == "(";
        if !of_module && !of_import {
            continue;
        }
        let start = if of_module { words[index - 2].0 } else { *offset };
        let before = &code[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        found.push(Call {
            line: before.matches('\n').count() + 1,
            column: code[line_start..start].chars().count() + 1,
            forced: is_forced(&words[index + 1..]),
        });
    }
    found
}

/// Names that mean the module, and names that mean the function.
fn imported<'a>(words: &[(usize, &'a str)]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut modules, mut functions) = (vec!["logging"], Vec::new());
    let word = |index: usize| words.get(index).map_or("", |word| word.1);
    for index in 0..words.len() {
        if word(index) == "logging" && word(index + 1) == "as" {
            modules.push(word(index + 2));
        }
        if word(index) == METHOD && index > 0 && ["import", ",", "("].contains(&word(index - 1)) {
            let head = words[..index].iter().rposition(|word| word.1 == "import");
            if head.is_some_and(|head| head >= 2 && word(head - 1) == "logging" && word(head - 2) == "from") {
                functions.push(if word(index + 1) == "as" { word(index + 2) } else { METHOD });
            }
        }
    }
    (modules, functions)
}

/// Whether the arguments that follow hold `force=True` itself.
fn is_forced(after: &[(usize, &str)]) -> bool {
    let mut depth = 0_usize;
    for (index, (_, word)) in after.iter().enumerate() {
        match *word {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            "force" if depth == 1 => {
                let next = |ahead: usize| after.get(index + ahead).map_or("", |word| word.1);
                if next(1) == "=" && next(2) == "True" {
                    return true;
                }
            }
            _ => {}
        }
        if depth == 0 {
            return false;
        }
    }
    false
}

/// Names and signs, with their offsets.
fn words(code: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut rest = code.char_indices().peekable();
    while let Some((start, c)) = rest.next() {
        if c.is_whitespace() {
            continue;
        }
        let mut end = start + c.len_utf8();
        if c.is_alphanumeric() || c == '_' {
            while let Some((at, next)) = rest.next_if(|(_, next)| next.is_alphanumeric() || *next == '_') {
                end = at + next.len_utf8();
            }
        }
        words.push((start, &code[start..end]));
    }
    words
}

/// Of the same length in lines and columns: what is no code becomes spaces. What stands in the braces of an f-string
/// goes with it.
fn without_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    let mut at = 0;
    while at < chars.len() {
        match chars[at] {
            '#' => {
                while at < chars.len() && chars[at] != '\n' {
                    out.push(' ');
                    at += 1;
                }
            }
            quote @ ('"' | '\'') => {
                let triple = chars.get(at + 1) == Some(&quote) && chars.get(at + 2) == Some(&quote);
                let marks = if triple { 3 } else { 1 };
                let end = end_of_string(&chars, at + marks, quote, triple);
                out.extend(chars[at..end].iter().map(|c| blank(*c)));
                at = end;
            }
            c => {
                out.push(c);
                at += 1;
            }
        }
    }
    out
}

fn end_of_string(chars: &[char], start: usize, quote: char, triple: bool) -> usize {
    let mut at = start;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 1,
            // One that is not closed ends with its line.
            '\n' if !triple => return at,
            c if c == quote && !triple => return at + 1,
            c if c == quote && chars[at..].starts_with(&[quote; 3]) => return at + 3,
            _ => {}
        }
        at += 1;
    }
    chars.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_calls(source: &str, expected: &[(usize, usize, bool)]) {
        let found: Vec<_> = calls(source).iter().map(|call| (call.line, call.column, call.forced)).collect();
        assert_eq!(found, expected, "{source}");
    }

    #[test]
    fn calls_are_found_by_whatever_name_and_only_where_they_are_code() {
        check_calls("import logging\nlogging.basicConfig(level=1)\n", &[(2, 1, false)]);
        check_calls("def f():\n    logging.basicConfig(level=1, force=True)", &[(2, 5, true)]);
        check_calls("logging.basicConfig(\n  format='%(x)s',\n\n\n\n\n  force = True,\n)", &[(1, 1, true)]);
        check_calls(
            "logging.basicConfig(force=False)\nlogging.basicConfig(force=x)",
            &[(1, 1, false), (2, 1, false)],
        );
        check_calls("logging.basicConfig(level=f(force=True))", &[(1, 1, false)]);
        check_calls("import logging as L\nL . basicConfig (force=True)", &[(2, 1, true)]);
        check_calls("from logging import getLogger, basicConfig\nbasicConfig()", &[(2, 1, false)]);
        check_calls("from logging import (\n basicConfig as bc)\nx = bc(force=True)", &[(3, 5, true)]);
        check_calls("f = logging.basicConfig\ng(force=True)", &[(1, 5, false)]);
        for clean in [
            "# logging.basicConfig(force=True)",
            "s = 'logging.basicConfig(force=True)'",
            "\"\"\"\nlogging.basicConfig(force=True)\n\"\"\"",
            "s = 'it\\'s' + \"logging.basicConfig()\"",
            "other.basicConfig(force=True)\nbasicConfig()",
            "logging.getLogger(__name__).info('x')",
        ] {
            check_calls(clean, &[]);
        }
    }

    #[test]
    fn folders_are_walked_but_for_what_is_hidden_or_the_hosts() {
        let folder = tempfile::tempdir().expect("tempdir");
        for name in ["a.py", "sub/b.py", ".git/c.py", "tests_manual/d.py", "sub/_proc/e.py", "f.txt"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            std::fs::write(path, "import logging\nlogging.basicConfig(force=True)\n").expect("write");
        }
        let (errors, warnings) = logging(&files(folder.path()).0);
        assert_eq!((errors.len(), warnings.len()), (2, 0), "{errors:?}");
        assert!(errors[0].text().contains("a.py:2:1: "), "{errors:?}");
    }
}
