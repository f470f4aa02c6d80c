//! Compositions, performed.

pub(crate) mod driver;
pub(crate) mod monitor;
pub(crate) mod state;
pub(crate) mod tally;
