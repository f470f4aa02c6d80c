//! The engine: performs what `decide` chose, with workers. It keeps instances, queues jobs, runs compositions, and brings a
//! host up and down. What it remembers goes through `store`; what it chooses comes from `decide`.
//!
//! What must hold: no process it started outlives it; no request leaves before its row is committed; nobody is told of
//! an end before the end is durable.

mod bring_up;
mod compositions;
mod data_folder;
mod deadlines;
mod direct_call;
mod error;
mod host;
mod instances;
mod lookup;
mod own_runtime;
mod process_workers;
mod queue;
mod services;
#[cfg(test)]
mod simulation;
mod streamed_call;
mod task_calls;

pub use cjm_catalog::{Catalog, CatalogEntry, ManifestFolder, NotAllowed, SettingsError, Standing};
pub use cjm_decide::queue::Target;
pub use cjm_store::{Event as RowEvent, Subscription as RowSubscription};
pub use cjm_workers::{
    AdapterFault, CallError, ChunkStream, HostEvent, HostOptions, LoadOptions, NOTES, NodeState,
    SECRET_BYTES_MIN, StartError, UNLOAD_GRACE_DEFAULT, WorkerState, actor, effective_config, is_struck_out,
    keys_missing, unset_variables,
};
pub use compositions::state::{CompositionOutcome, NodeOutcome, NodeUsage};
pub use deadlines::Timeout;
pub use error::HostError;
pub use host::{Host, ShutdownReport};
pub use lookup::check_known;
pub use own_runtime::check_room;
pub use queue::state::JobOutcome;
pub use queue::submission::JobRequest;
