//! Real worker processes, started as the keeper starts them and spoken to as the host does. One test binary, so
//! that it links once.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod ancestor;
mod channel;
mod executable;
mod harness;
mod http;
mod kept;
mod lifecycle;
mod native;
mod not_begun;
mod python;
mod slow_readers;
mod surface;
