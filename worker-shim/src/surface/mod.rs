//! The uniform HTTP surface: which path does what, and how answers look. What the tool does is `tool`'s.

mod answer;
mod body;
mod calls;
mod document;
mod hooks;
mod identity;
mod routes;
mod status;
mod stream;

pub(crate) use identity::Identity;
pub(crate) use routes::{Surface, router};
pub(crate) use status::CpuMeter;
