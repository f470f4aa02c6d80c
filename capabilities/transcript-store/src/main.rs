//! A capability that keeps transcripts with their provenance in one SQLite file and searches them by full text.
//!
//! It does not transcribe, and it never changes a document: what is stored stays as it was said. What must hold: a
//! call stores all of its documents or none, and storing the same recording with the same text again stores nothing.

mod capability;
mod database;
mod document;
mod error;

fn main() -> std::process::ExitCode {
    cjm_worker::serve::<capability::TranscriptStore>()
}
