//! Causes of death: what is known, what it is held to be, and the words for it.

mod judge;
mod types;
mod words;

pub use judge::{PLENTY_FREE_MB, TAIL_LINES_MAX, verdict};
pub use types::{Cause, Confidence, Evidence, LifePhase, MemoryEvidence, OwnKill, SincePhaseBegan, Verdict};
