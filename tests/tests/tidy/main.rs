//! The house rules that a machine can check, as tests: run them with `cargo test -p cjm-tests --test tidy`.
//!
//! A rule that a lint can check is a lint (root Cargo.toml, clippy.toml), not repeated here. What must hold:
//! every complaint names the file, the line and what to do.

mod circles;
mod dependencies;
mod documents;
mod error_index;
mod errors;
mod files;
mod ratchet;

use cjm_tests::{repo, source};

/// Every text file of the repository.
fn all_files() -> Vec<source::SourceFile> {
    source::files(&repo::root())
}

/// Fails with all complaints at once, so that one run shows all there is to do.
#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaint(s):\n  {}\n", complaints.len(), complaints.join("\n  "));
}
