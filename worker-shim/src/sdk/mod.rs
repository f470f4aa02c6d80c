//! The Rust SDK: what the author of a capability in Rust sees.

mod call;
mod capability;
mod error;
mod fields;
mod setup;

pub use call::{Call, Sink};
pub use capability::{Action, Capability};
pub use error::ToolError;
pub use setup::{Level, Logger, Setup};

pub(crate) use call::chunk_line;
pub(crate) use error::Kind;
