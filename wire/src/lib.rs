//! Everything that crosses a process boundary, and nothing else: manifests, call envelopes, results, errors,
//! journal events, HTTP bodies, frames, compositions and the canonical hash.
//!
//! This crate does no I/O and knows neither a clock (but for formatting an instant) nor a runtime. Types that
//! never leave one process belong to the room that owns them.

pub mod adapter;
pub mod cache;
pub mod canonical;
pub mod capabilities_file;
pub mod channel;
pub mod composition;
pub mod cut;
pub mod describe;
pub mod doubled;
mod each_of_list;
pub mod envelope;
pub mod error;
pub mod event;
mod exact_yaml;
pub mod frame;
pub mod held_back;
pub mod http;
pub mod ids;
mod input_kind;
pub mod inputs_file;
pub mod json;
pub mod keeper;
mod left_out;
pub mod link;
mod list_keys;
mod list_kinds;
pub mod long_numbers;
pub mod manifest;
pub mod ndjson;
pub mod placed;
pub mod python_json;
mod raised;
pub mod result;
pub mod runtime;
pub mod runtime_check;
mod runtime_fault;
pub mod settings_file;
mod settings_keys;
pub mod suggestions;
pub mod template;
pub mod time;
mod type_fault;
mod word;
mod yaml;

pub use adapter::AdapterManifest;
pub use describe::{Described, ErrorReport};
pub use error::{ErrorCategory, JobError};
pub use ids::{CompositionId, EventId, InstanceId, JobId, RunId, WorkerSessionId};
pub use json::{Arguments, Json};
pub use manifest::Manifest;
pub use time::Timestamp;
