//! The capability host as a library: what a program embeds. It re-exports the engine's public face and adds nothing;
//! `create_pipeline()` comes with its own issue.
//!
//! ```no_run
//! # async fn run() -> Result<(), cjm_host::HostError> {
//! use cjm_host::{Host, HostOptions, JobRequest, LoadOptions, Target};
//!
//! let host = Host::start(HostOptions::new("/tmp/cjm-example")).await?;
//! host.load("transcript-store", LoadOptions::default()).await?;
//! let mut request = JobRequest::new(Target::Capability("transcript-store".into()));
//! request.action = Some("stats".into());
//! let job = host.submit(request).await?;
//! println!("{:?}", host.wait(&job).await?.result);
//! host.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub use cjm_engine::{
    CallError, Catalog, CatalogEntry, ChunkStream, CompositionOutcome, Host, HostError, HostEvent,
    HostOptions, JobOutcome, JobRequest, LoadOptions, NodeOutcome, NodeState, NodeUsage, ShutdownReport,
    StartError, Target, WorkerState,
};
pub use cjm_wire as wire;
