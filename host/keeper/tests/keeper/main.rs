//! A real keeper with real workers, seen from outside.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and tells its timings"
)]

mod clearing;
mod lifecycle;
mod support;
