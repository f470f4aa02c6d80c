//! One thing that is wrong with a file, as people and programs are told.

use cjm_wire::describe::Described;
use cjm_wire::placed::Place;
use serde_json::{Value, json};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Stable.
    pub(crate) code: String,
    /// What is wrong. Of source, with its place.
    pub(crate) message: String,
    /// What to do.
    pub(crate) next_step: String,
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
            place,
        }
    }

    /// For people, with its place.
    pub(crate) fn text(&self) -> String {
        match self.place {
            // Of source, the message begins with the file and the place.
            Some((line, column)) if !self.code.starts_with("source.") => {
                format!("line {line}, column {column}: {}", self.message.trim_end().replace('\n', "\n    "))
            }
            _ => self.message.trim_end().replace('\n', "\n    "),
        }
    }

    /// For programs.
    pub(crate) fn document(&self) -> Value {
        json!({
            "code": self.code,
            "message": self.message,
            "line": self.place.map(|(line, _)| line),
            "column": self.place.map(|(_, column)| column),
            "next_step": self.next_step,
        })
    }
}
