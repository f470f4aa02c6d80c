//! The queue's shell: what surrounds `decide`'s queue.

pub(crate) mod attempt;
pub(crate) mod owner;
pub(crate) mod state;
pub(crate) mod submission;
