//! The capability host as a library: what a program embeds.
//!
//! [`create_pipeline`] discovers manifests, starts one host, loads the capabilities it is given, and hands out a
//! [`Binding`] for each. A binding is called directly ([`Binding::call`], warm, in your own task) or through the durable
//! queue ([`Binding::submit`]). Every tool runs as its own process group; all of them are gone when the pipeline is,
//! however your program ends.
//!
//! ```no_run
//! use cjm_host::create_pipeline;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), cjm_host::PipelineError> {
//!     let pipeline = create_pipeline(["transcript-store"]).data_dir("/tmp/cjm-example").start().await?;
//!     let store = pipeline.binding("transcript-store")?;
//!     let job = store.submit("stats", serde_json::json!({})).await?;
//!     println!("{}", job.result::<serde_json::Value>().await?);
//!     pipeline.shutdown().await;
//!     Ok(())
//! }
//! ```
//!
//! It works from any runtime, multi-threaded or not, and without one ([`PipelineBuilder::start_blocking`]): the host
//! has its own threads. The embedding process is never forked.
//!
//! This crate adds nothing to the engine but this face; what a host can do stands in [`Host`].

#![warn(rustdoc::broken_intra_doc_links)]

mod binding;
mod blocking;
mod builder;
mod error;
mod events;
mod job;
mod pipeline;
mod spec;

pub use binding::Binding;
pub use blocking::BlockingPipeline;
pub use builder::{PipelineBuilder, Scheduler, create_pipeline};
pub use cjm_engine::{
    AdapterFault, CallError, Catalog, CatalogEntry, ChunkStream, CompositionOutcome, Host, HostError,
    HostEvent, HostOptions, JobOutcome, JobRequest, LoadOptions, ManifestFolder, NodeOutcome, NodeState,
    NodeUsage, NotAllowed, SettingsError, ShutdownReport, Standing, StartError, Target, WorkerState,
};
pub use cjm_wire as wire;
pub use cjm_wire::composition::Composition;
pub use cjm_wire::{ErrorReport, InstanceId, JobId};
pub use error::PipelineError;
pub use events::{Events, PipelineEvent};
pub use job::{JobHandle, JobProgress, SubmitOptions};
pub use pipeline::Pipeline;
pub use spec::CapabilitySpec;

/// The page for programs that embed the host: its programs are compiled as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/EMBEDDING.md")]
pub struct EmbeddingPage;
