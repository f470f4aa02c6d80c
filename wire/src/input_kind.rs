//! Types of the inputs of a composition, and which values are of them.

use crate::json::{Json, JsonKind};
use serde::{Deserialize, Serialize};

/// Most characters of a value in a message.
const EXCERPT_CHARS_MAX: usize = 80;

/// Types of inputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputKind {
    /// Any JSON value; text that is not JSON is a string.
    #[default]
    Any,
    /// Text as it is.
    String,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One file, made absolute; must exist.
    File,
    /// A list of files: a list of paths, one path, a directory, or a pattern with `*`; sorted by name, absolute.
    Files,
    /// One path, made absolute; need not exist.
    Path,
}

impl InputKind {
    /// Whether a value of it is text, whatever that looks like; of files also a list of such.
    #[must_use]
    pub fn is_text(self) -> bool {
        matches!(self, Self::String | Self::File | Self::Files | Self::Path)
    }

    /// What a value of this kind is, for people.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Any => "any value",
            Self::String => "text",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::File => "the path of a file",
            Self::Files => "files",
            Self::Path => "a path",
        }
    }

    /// What is wanted where the value is none of this kind. Whether files are there is not looked at.
    #[must_use]
    pub fn misses(self, value: &Json) -> Option<&'static str> {
        // A path that is all digits reads as a number.
        let is_path = |value: &Json| matches!(value.kind(), JsonKind::Text | JsonKind::Number);
        let fits = match self {
            Self::Any => true,
            // What a file gives as a number or as `true` is text all the same where text is wanted.
            Self::String => matches!(value.kind(), JsonKind::Text | JsonKind::Number | JsonKind::Boolean),
            Self::Number => value.kind() == JsonKind::Number,
            Self::Boolean => value.kind() == JsonKind::Boolean,
            Self::File | Self::Path => is_path(value),
            Self::Files => match value.items() {
                Some(items) => items.iter().any(is_path),
                None => is_path(value),
            },
        };
        (!fits).then_some(self.in_words())
    }
}

/// The beginning of a value, for a message.
#[must_use]
pub fn in_short(value: &Json) -> String {
    beginning_of(value.text())
}

/// The beginning of a text, for a message.
pub(crate) fn beginning_of(text: &str) -> String {
    let mut beginning: String = text.chars().take(EXCERPT_CHARS_MAX).collect();
    if beginning.len() < text.len() {
        beginning.push('…');
    }
    beginning
}
