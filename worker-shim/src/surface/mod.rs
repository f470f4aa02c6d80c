//! The uniform HTTP surface: which path does what, and how answers look. What the tool does is `tool`'s.

mod answer;
mod body;
mod calls;
mod cpu;
mod document;
mod guard;
mod hooks;
mod identity;
mod routes;
mod state;
mod status;
mod stream;

pub(crate) use cpu::CpuMeter;
pub(crate) use guard::only_this_machine;
pub(crate) use identity::Identity;
pub(crate) use routes::router;
pub(crate) use state::Surface;
