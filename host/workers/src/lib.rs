//! Workers: owns one worker from its plan to its death. It spawns it by the keeper, talks to it, reads what it prints, and
//! says with evidence why it died. It knows no job, no queue, no journal.
//!
//! What must hold: no process outlives its worker; no request can be sent to a worker that is not ready; a worker dies
//! once, and whoever waits for it is told with a verdict.
//!
//! What others use is little: a [`plan()`] is made, and three traits do the rest: [`Workers`] starts one, [`StartingWorker`]
//! waits until it is ready, [`Worker`] is called, ended, and asked how it ended.

mod api;
mod bare;
mod binding;
mod bring_up;
mod cancelled;
mod client;
mod connections;
mod death;
mod declared_default;
mod drift;
mod environment;
mod error;
pub mod events;
mod flood;
mod frames;
mod genuine;
mod in_life;
mod keeper_client;
mod known_inputs;
mod life;
mod line_end;
mod no_folder;
pub mod options;
mod phase;
mod plan;
mod proxy;
mod pump;
mod redaction;
mod required;
mod secret_parts;
mod sinks;
mod start_advice;
mod stored_settings;
mod tool_failure;
mod unsent;
mod worker;

pub use api::{
    ChunkStream, GenuineFacts, NewsOfDeath, StartKiller, Started, StartingWorker, Worker, WorkerFacts,
    Workers,
};
pub use binding::{AdapterFault, BoundAdapter};
pub use bring_up::NotStarted;
pub use death::Death;
pub use error::{CallError, StartError};
pub use events::{HostEvent, NodeState, WorkerState};
pub use keeper_client::{Keeper, SpawnRefusal, stopped_keeper};
pub use known_inputs::with_known_hashes;
pub use no_folder::NoFolder;
pub use options::{HostOptions, LoadOptions, UNLOAD_GRACE_DEFAULT, actor};
pub use plan::{WorkerPlan, effective_config, plan, unset_variables};
pub use proxy::Reply;
pub use redaction::{SECRET_BYTES_MIN, is_struck_out};
pub use required::{Missing, keys_missing};
pub use sinks::Sinks;
pub use start_advice::Hints;
pub use stored_settings::{NOTES, StoredSettingsFault};
