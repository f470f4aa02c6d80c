//! One thing that is wrong with a file, as people and programs are told.

use crate::output::path_text;
use cjm_catalog::unread_step;
use cjm_wire::describe::Described;
use cjm_wire::placed::Place;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Most faults of one document, or of one folder's source, that are listed.
const LISTED_MAX: usize = 50;
/// A document has more faults than are listed
const MORE: &str = "validate.more";

/// Those that are listed, and how many are not.
pub(crate) fn listed(findings: Vec<Finding>) -> Vec<Finding> {
    let left_out = findings.len().saturating_sub(LISTED_MAX);
    let mut listed: Vec<Finding> = findings.into_iter().take(LISTED_MAX).collect();
    if left_out > 0 {
        listed.push(Finding {
            code: MORE.to_owned(),
            message: format!("{left_out} more of this kind are not listed"),
            next_step: "correct those that are, then look again".to_owned(),
            file: None,
            place: None,
        });
    }
    listed
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Stable.
    pub(crate) code: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) next_step: String,
    /// The file, where another than the one that was named, or one of many.
    pub(crate) file: Option<PathBuf>,
    /// Line and column, from 1.
    pub(crate) place: Option<Place>,
}

impl Finding {
    /// From what a parser says.
    pub(crate) fn of(error: &dyn Described, place: Option<Place>) -> Self {
        Self {
            code: error.code().to_owned(),
            message: error.to_string(),
            next_step: error.next_step(),
            file: None,
            place,
        }
    }

    /// A file or a folder that cannot be read: that nothing is wrong with it nobody can say.
    pub(crate) fn unread(path: &Path, message: String) -> Self {
        let (code, next_step) = ("validate.unreadable".to_owned(), unread_step(path));
        Self { code, message, next_step, file: Some(path.to_owned()), place: None }
    }

    /// A folder that cannot be listed.
    pub(crate) fn unread_folder(folder: &Path, error: &std::io::Error) -> Self {
        Self::unread(folder, format!("what lies in it cannot be read: {error}"))
    }

    /// The same, in this file.
    pub(crate) fn in_file(self, file: &Path) -> Self {
        Self { file: Some(self.file.unwrap_or_else(|| file.to_owned())), ..self }
    }

    /// For people, with its place.
    pub(crate) fn text(&self) -> String {
        let message = self.message.trim_end().replace('\n', "\n    ");
        match (&self.file, self.place) {
            (Some(file), Some((line, column))) => format!("{}:{line}:{column}: {message}", file.display()),
            (Some(file), None) => format!("{}: {message}", file.display()),
            (None, Some((line, column))) => format!("line {line}, column {column}: {message}"),
            (None, None) => message,
        }
    }

    /// For programs.
    pub(crate) fn document(&self) -> Value {
        json!({
            "code": self.code,
            "message": self.message,
            "file": self.file.as_ref().map(path_text),
            "line": self.place.map(|(line, _)| line),
            "column": self.place.map(|(_, column)| column),
            "next_step": self.next_step,
        })
    }
}
