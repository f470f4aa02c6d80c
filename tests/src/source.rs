//! Source text, read just well enough to check house rules: which files there are, code without its comments
//! and strings, where functions begin and end.
//!
//! It is not a parser and need not be one: rules that only a compiler can judge are lints, not tidy checks.

use std::path::{Path, PathBuf};

/// Most files the walk visits; more means that it went into a build folder.
const FILES_MAX: usize = 5_000;
/// Folders that hold no source of ours.
const SKIPPED_FOLDERS: [&str; 5] = ["target", "__pycache__", "node_modules", "build", "dist"];

/// A text file of the repository.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Relative to the root, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl SourceFile {
    /// `rs`, `py`, `md`, …; empty without one.
    #[must_use]
    pub fn extension(&self) -> &str {
        Path::new(&self.path).extension().and_then(|e| e.to_str()).unwrap_or("")
    }

    /// How many lines.
    #[must_use]
    pub fn line_count(&self) -> usize {
        self.text.lines().count()
    }
}

/// One function of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its bare name.
    pub name: String,
    /// Line of its `fn` or `def`, from 1.
    pub line: usize,
    /// Lines from there to its end, both included.
    pub length: usize,
}

/// All UTF-8 text files below `root`, sorted by path, without hidden and build folders.
#[must_use]
pub fn files(root: &Path) -> Vec<SourceFile> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries {
            let entry = entry.expect("a readable entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("a file type");
            let hidden_folder = kind.is_dir() && name.starts_with('.') && name != ".ci" && name != ".cargo";
            if hidden_folder || name.ends_with(".egg-info") || SKIPPED_FOLDERS.contains(&name.as_str()) {
                continue;
            }
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                found.extend(read(root, &entry.path()));
            }
        }
        assert!(found.len() < FILES_MAX, "more than {FILES_MAX} files below {}", root.display());
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn read(root: &Path, path: &PathBuf) -> Option<SourceFile> {
    let text = String::from_utf8(std::fs::read(path).ok()?).ok()?;
    let path = path.strip_prefix(root).ok()?.to_str()?.to_owned();
    Some(SourceFile { path, text })
}

/// Rust text of the same length in bytes and lines, with comments and the insides of strings blanked.
#[must_use]
pub fn rust_code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match &bytes[at..] {
            [b'/', b'/', ..] => at + bytes[at..].iter().position(|b| *b == b'\n').unwrap_or(bytes.len() - at),
            [b'/', b'*', ..] => block_comment_end(bytes, at),
            [b'"', ..] => string_end(bytes, at + 1),
            [b'r' | b'b' | b'c', ..] if starts_word(bytes, at) => prefixed_string_end(bytes, at),
            [b'\'', ..] => char_end(bytes, at),
            _ => at,
        };
        if end == at {
            code.push(bytes[at]);
            at += 1;
        } else {
            code.extend(bytes[at..end].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    String::from_utf8_lossy(&code).into_owned()
}

fn starts_word(bytes: &[u8], at: usize) -> bool {
    at == 0 || !(bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// End of a string whose inside starts at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// End of `r"…"`, `br##"…"##`, `b"…"`, `c"…"`; `start` itself if no string starts there.
fn prefixed_string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while at < bytes.len() && matches!(bytes[at], b'r' | b'b' | b'c') && at - start < 2 {
        at += 1;
    }
    let raw = bytes[start..at].contains(&b'r');
    let hashes = bytes[at..].iter().take_while(|b| **b == b'#').count();
    if bytes.get(at + hashes) != Some(&b'"') || (hashes > 0 && !raw) {
        return start;
    }
    let inside = at + hashes + 1;
    if !raw {
        return string_end(bytes, inside);
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    bytes[inside..]
        .windows(close.len())
        .position(|window| window == close)
        .map_or(bytes.len(), |found| inside + found + close.len())
}

/// End of a character literal; `start` itself for a lifetime.
fn char_end(bytes: &[u8], start: usize) -> usize {
    if bytes.get(start + 1) == Some(&b'\\') {
        let from = start + 3;
        return bytes[from.min(bytes.len())..]
            .iter()
            .position(|b| *b == b'\'')
            .map_or(start, |n| from + n + 1);
    }
    // One character of up to four bytes, then the closing quote.
    (2..=5)
        .find(|n| bytes.get(start + n) == Some(&b'\''))
        .filter(|n| std::str::from_utf8(&bytes[start + 1..start + n]).is_ok_and(|s| s.chars().count() == 1))
        .map_or(start, |n| start + n + 1)
}

/// The functions of Rust text that have a body, nested ones too.
#[must_use]
pub fn rust_functions(text: &str) -> Vec<Function> {
    let code = rust_code_only(text);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if !starts_word(code.as_bytes(), at) {
            continue;
        }
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(length) = body_lines(&code[at..]).filter(|_| !name.is_empty()) else { continue };
        found.push(Function { name, line: code[..at].matches('\n').count() + 1, length });
    }
    found
}

/// Lines from a `fn` to the end of its body; None for a declaration without one.
fn body_lines(code: &str) -> Option<usize> {
    let (mut round, mut curly) = (0_i32, 0_i32);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' if curly == 0 => round += 1,
            ')' | ']' if curly == 0 => round -= 1,
            ';' if curly == 0 && round == 0 => return None,
            '{' if round == 0 => curly += 1,
            '}' if round == 0 => {
                curly -= 1;
                if curly == 0 {
                    return Some(code[..at].matches('\n').count() + 1);
                }
            }
            _ => {}
        }
        if round < 0 {
            return None;
        }
    }
    None
}

/// The functions of Python text, by indentation.
#[must_use]
pub fn python_functions(text: &str) -> Vec<Function> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let start = line.trim_start();
        let Some(rest) = start.strip_prefix("def ").or_else(|| start.strip_prefix("async def ")) else {
            continue;
        };
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let mut last = index;
        let mut header = !line.trim_end().ends_with(':');
        for (offset, next) in lines[index + 1..].iter().enumerate() {
            if header {
                header = !next.trim_end().ends_with(':');
            } else if !next.trim().is_empty() && indent(next) <= indent(line) {
                break;
            }
            if !next.trim().is_empty() {
                last = index + 1 + offset;
            }
        }
        found.push(Function { name, line: index + 1, length: last - index + 1 });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_blanked_and_lines_kept() {
        let text = "let a = \"un\\\"safe { \"; // unsafe\nlet b = r#\"}\"unsafe\"#; /* { /* x */ } */ let c = '\"';\nlet d: &'static str = b\"x\";";
        let code = rust_code_only(text);
        assert_eq!(code.len(), text.len());
        assert_eq!(code.matches('\n').count(), 2);
        assert!(!code.contains("unsafe") && !code.contains('{') && !code.contains('"'), "{code}");
        assert!(code.contains("&'static str") && code.contains("let c ="), "{code}");
    }

    #[test]
    fn functions_are_measured() {
        let text = "trait T { fn declared(&self, x: [u8; 3]); }\nimpl T for U {\n    fn one(&self) { \"}\"; }\n    fn two(\n        a: u8,\n    ) -> u8 {\n        if a { 1 } else { '}' as u8 }\n    }\n}\n";
        let found = rust_functions(text);
        let expected = [("one", 3, 1), ("two", 4, 5)];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (function, (name, line, length)) in found.iter().zip(expected) {
            assert_eq!((function.name.as_str(), function.line, function.length), (name, line, length));
        }
    }

    #[test]
    fn python_functions_end_with_their_indentation() {
        let text =
            "def one(\n    a,\n):\n    return a\n\n\nclass C:\n    def two(self):\n        pass\n    x = 1\n";
        let found = python_functions(text);
        let lengths: Vec<(&str, usize)> = found.iter().map(|f| (f.name.as_str(), f.length)).collect();
        assert_eq!(lengths, [("one", 4), ("two", 2)]);
    }
}
