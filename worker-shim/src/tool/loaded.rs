//! A tool that is ready to be served, as whoever loads it hands it over. What it is while it loads is its kind's own
//! business.

use super::Tool;
use cjm_wire::link::WorkerReady;

/// A tool that is ready, and what it says of itself.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) tool: Tool,
    pub(crate) ready: WorkerReady,
}
