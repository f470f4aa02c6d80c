//! Compositions, performed: what one is to others, what is known of its nodes, what they used, and the driver that
//! does what `decide` asks for.

pub(crate) mod begin;
pub(crate) mod driver;
mod ending;
pub(crate) mod ends;
mod failures;
pub(crate) mod literals;
pub(crate) mod loading;
pub(crate) mod monitor;
pub(crate) mod state;
pub(crate) mod stored;
pub(crate) mod submitting;
pub(crate) mod tally;
