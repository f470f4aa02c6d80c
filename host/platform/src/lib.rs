//! Everything that touches the Linux kernel: processes and their trees, descriptors that cross processes,
//! locks, private directories, usage samples. All unsafe code of the product is here.
//!
//! It is not a place for policy: it knows neither workers nor jobs, depends on none of our crates, starts no
//! thread and uses no async runtime, so that the keeper can link it and stay small. It needs Linux 5.9
//! (`close_range`; pidfds are older).
//!
//! What must hold: a signal is only sent to a process that was verified through a pidfd or that is a child
//! not yet reaped; no descriptor reaches a spawned program unless the request names it.

pub mod child;
pub mod disk;
pub mod fds;
pub mod files;
pub mod limits;
pub mod lock;
pub mod memory;
pub mod mounts;
pub mod poll;
mod proc_stat;
pub mod process;
pub mod programs;
pub mod read;
pub mod runtime_dir;
pub mod seqpacket;
pub mod signals;
pub mod spawn;
pub mod stdio;
pub mod terminal;
pub mod tree;
pub mod usage;
pub mod user;

pub use process::{Pid, PidFd, Signal, WaitStatus};
