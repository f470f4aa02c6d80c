//! The queue's shell: one task owns `decide`'s queue, each attempt is a task of its own, and what both share lies below
//! them.

pub(crate) mod attempt;
pub(crate) mod owner;
pub(crate) mod state;
pub(crate) mod submission;
