//! The keeper: parent of every worker, and the one who survives the host to clear what is left.
//!
//! A small single-threaded process, one for each host. It starts workers on the host's word, reports their
//! ends, and kills whatever falls to it. It decides nothing else: it knows no manifests, no jobs, no HTTP. It
//! must stay small (3 MB resident at most) and must not die of anything but SIGKILL before its tree is gone.
//!
//! `machine` is the state machine, without I/O; `shell` performs its effects.

pub mod machine;
mod outbox;
mod shell;
mod timers;

pub use shell::run;
