//! What the fuzz targets reach of this crate: the frame reader, and the whole surface on streams in memory, served as
//! a worker serves it. Compiled with `--cfg fuzzing` only; no part of the product.

use crate::calls::Calls;
use crate::frames::FrameReader;
use crate::link::{HostLink, LinkWriter};
use crate::sdk::{Call, Capability, Setup, ToolError};
use crate::surface::{CpuMeter, Identity, Surface, router};
use crate::tool::Tool;
use crate::tool::native::NativeTool;
use bytes::Bytes;
use cjm_wire::link::{Launch, WorkerSpec};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, DuplexStream};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// Connections that wait to be accepted at most.
const CONNECTIONS_MAX: usize = 16;

/// The frames of a stream.
pub struct Frames<R>(FrameReader<R>);

impl<R: AsyncRead + Unpin> Frames<R> {
    /// Of `stream`.
    pub fn new(stream: R) -> Self {
        Self(FrameReader::new(stream))
    }

    /// The next one's kind, call and payload; None at the end.
    ///
    /// # Errors
    /// What is wrong with the stream.
    pub async fn next(&mut self) -> Result<Option<(u8, u64, Bytes)>, String> {
        let frame = self.0.next().await.map_err(|error| error.to_string())?;
        Ok(frame.map(|frame| (frame.kind, frame.call_id, frame.payload)))
    }

    /// Bytes that memory is held for.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

/// A surface that is served, with a capability behind it that answers with its arguments.
pub struct Served {
    calls: Calls,
    connections: mpsc::Sender<DuplexStream>,
}

impl Served {
    /// Starts serving on the present runtime.
    ///
    /// # Errors
    /// When the capability cannot be loaded.
    pub async fn start() -> Result<Self, ToolError> {
        let link = HostLink::default();
        let (ours, mut host) =
            UnixStream::pair().map_err(|error| ToolError::fatal(format!("no host link: {error}")))?;
        let (reading, writing) = ours.into_split();
        tokio::spawn(link.clone().run_writer(LinkWriter::Host(writing)));
        // A host that takes whatever it is told.
        tokio::spawn(async move {
            let _still_open = reading;
            let _ = tokio::io::copy(&mut host, &mut tokio::io::sink()).await;
        });
        let spec = WorkerSpec {
            capability_name: "echo".to_owned(),
            capability_version: "1".to_owned(),
            instance_id: "echo".to_owned(),
            worker_session_id: "session".to_owned(),
            launch: Launch::Native {},
            data_dir: "/nonexistent".to_owned(),
            log_level: "INFO".to_owned(),
            secrets: Map::new(),
            own_variables: BTreeSet::new(),
        };
        let (tool, facts) = NativeTool::load::<Echo>(Setup::new(spec, link.clone())).await?;
        let calls = Calls::new(link);
        let surface = Arc::new(Surface {
            identity: Identity::default(),
            name: facts.name,
            version: facts.version,
            tool_pid: None,
            tool: Tool::Native(tool),
            calls: calls.clone(),
            cpu: CpuMeter::new(),
        });
        let (connections, incoming) = mpsc::channel(CONNECTIONS_MAX);
        tokio::spawn(async move { axum::serve(InMemory(incoming), router(surface)).await });
        Ok(Self { calls, connections })
    }

    /// A new connection, with `bytes` of buffer on the way.
    pub async fn connect(&self, bytes: usize) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(bytes);
        // A server that is gone shows at once: the stream ends without an answer.
        let _ = self.connections.send(theirs).await;
        ours
    }

    /// Calls that run, questions not counted.
    pub fn calls_running(&self) -> usize {
        self.calls.running()
    }

    /// Waits until no call runs; false when that takes longer than `limit`.
    pub async fn is_idle_within(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.calls.wait_until_idle()).await.is_ok()
    }
}

/// Accepts what [`Served::connect`] sends.
struct InMemory(mpsc::Receiver<DuplexStream>);

impl axum::serve::Listener for InMemory {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(stream) => (stream, ()),
            // Nobody can connect any more.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers with its arguments, and fails or accounts when they say so.
struct Echo;

impl Capability for Echo {
    fn load(_: Setup) -> Result<Self, ToolError> {
        Ok(Self)
    }

    fn initialize(&self, _: Map<String, Value>) -> Result<(), ToolError> {
        Ok(())
    }

    fn reconfigure(&self, old: Map<String, Value>, new: Map<String, Value>) -> Result<(), ToolError> {
        if old == new { Err(ToolError::user_input("nothing changed").fields(new.keys())) } else { Ok(()) }
    }

    fn execute(&self, call: Call) -> Result<Value, ToolError> {
        call.report_progress(0.5, "half");
        match call.action() {
            Some("fail") => Err(ToolError::user_input("as asked").fields(call.kwargs().keys())),
            _ => Ok(json!({"kwargs": call.kwargs()})),
        }
    }
}
