//! What the tests of the whole product share: a place to install tools and run `cjm-ctl` in, a watch on real
//! processes from outside, the journal as a stranger reads it, and a reader of source text for the tidy test.
//!
//! It is not a test double of anything: every process here is real. What must hold: a helper fails the test
//! with the facts at hand (command line, both outputs, what still lives), because nobody can look afterwards.

pub mod ancestor;
pub mod both;
pub mod conda_project;
pub mod document;
pub mod hostile;
pub mod journal;
pub mod other_user;
pub mod package;
pub mod python;
pub mod repo;
pub mod small_disk;
pub mod source;
pub mod tool_lists;
pub mod watch;
pub mod world;
