//! The engine: performs what `decide` chose. It starts and owns workers, talks to them, queues jobs, runs compositions,
//! and makes environments. What it remembers goes through `store`; what it chooses comes from `decide`.
//!
//! What must hold: no process it started outlives it; no request leaves before its row is committed; nobody is told of
//! an end before the end is durable.

mod adapters;
mod bring_up;
mod compositions;
mod connections;
mod context;
pub mod error;
pub mod events;
mod frames;
mod genuine;
mod host;
mod instances;
mod jobs;
mod keeper_client;
mod kept;
mod known_inputs;
mod monitor;
pub mod options;
mod own_runtime;
mod plan;
mod proxy;
mod pump;
mod sinks;
mod submission;
mod worker;
pub mod worker_env;
mod worker_life;

pub use adapters::AdapterFault;
pub use cjm_catalog::{Catalog, CatalogEntry};
pub use cjm_decide::queue::Target;
pub use cjm_store::{Event as RowEvent, Subscription as RowSubscription};
pub use compositions::{CompositionOutcome, NodeOutcome};
pub use error::{CallError, HostError, StartError};
pub use events::{HostEvent, NodeState, WorkerState};
pub use host::{ChunkStream, Host, ShutdownReport};
pub use jobs::JobOutcome;
pub use kept::KeptFault;
pub use monitor::NodeUsage;
pub use options::{HostOptions, LoadOptions};
pub use submission::JobRequest;
