//! That a tool which was not found may be in what could not be read. Whoever looks for a tool by its name says this, and
//! not that there is none.

use cjm_wire::describe::{Described, shell_word};
use cjm_wire::suggestions::in_words;
use std::path::{Path, PathBuf};

/// A capability that was not found where not everything could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "whether there is a capability named \"{name}\" cannot be told{}: cannot read {}: {message}{}",
    in_words(suggestions), path.display(), others(*more)
)]
pub struct MayBeUnread {
    /// The name that was asked for.
    pub name: String,
    /// Names like it of what could be read.
    pub suggestions: Vec<String>,
    /// A manifest, or a folder of them.
    pub path: PathBuf,
    /// The system's answer.
    pub message: String,
    /// How many more could not be read.
    pub more: usize,
}

fn others(more: usize) -> String {
    if more == 0 { String::new() } else { format!("; nor can {more} more be read") }
}

impl Described for MayBeUnread {
    fn code(&self) -> &'static str {
        "host.manifests_unreadable"
    }

    fn next_step(&self) -> String {
        unread_step(&self.path)
    }
}

/// What to do about a manifest, or a folder of them, that cannot be read.
#[must_use]
pub fn unread_step(path: &Path) -> String {
    let word = shell_word(&path.to_string_lossy());
    format!("let this user read it, or move it away (`namei -l {word}` shows whose it is)")
}
