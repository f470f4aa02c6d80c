//! Workers: owns one worker from its plan to its death. It spawns it by the keeper, talks to it, reads what it prints, and
//! says with evidence why it died. It knows no job, no queue, no journal.
//!
//! What must hold: no process outlives its worker; no request can be sent to a worker that is not ready; a worker dies
//! once, and whoever waits for it is told with a verdict.
//!
//! What others use is little: a [`plan()`] is made, [`NotStarted::spawn`] and [`Spawned::ready`] start it,
//! [`Worker::call`], [`Worker::stream`] and [`Worker::cancel`] talk to it, [`Worker::unload`] and [`Worker::kill`] end it,
//! and [`Worker::death`] says how it ended.

mod binding;
mod connections;
mod death;
mod environment;
mod error;
pub mod events;
mod frames;
mod genuine;
mod keeper_client;
mod known_inputs;
mod life;
pub mod options;
mod plan;
mod proxy;
mod pump;
mod sinks;
mod stored_settings;
mod worker;

pub use binding::{AdapterFault, BoundAdapter};
pub use death::Death;
pub use error::{CallError, StartError};
pub use events::{HostEvent, NodeState, WorkerState};
pub use keeper_client::{Keeper, SpawnRefusal};
pub use known_inputs::with_known_hashes;
pub use options::{HostOptions, LoadOptions};
pub use plan::{WorkerPlan, plan};
pub use proxy::Reply;
pub use sinks::Sinks;
pub use stored_settings::StoredSettingsFault;
pub use worker::{ChunkStream, GenuineFacts, NotStarted, Spawned, Worker};
