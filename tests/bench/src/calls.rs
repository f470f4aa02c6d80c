//! Warm direct calls, and results of every size, from a program that says `#[tokio::main]`.

use crate::floor_http::{FloorClient, FloorServer, SMALL_ANSWER};
use crate::measure::{Pair, median, micros, moved_and_peak};
use crate::row::{Goal, Row, Unit};
use crate::world::{self, World};
use anyhow::{Context as _, Result, ensure};
use cjm_host::Host;
use cjm_host::wire::InstanceId;
use cjm_host::wire::envelope::ExecuteRequest;
use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Calls that are not counted: pools fill, caches warm.
const WARM_UP: usize = 200;
const MEGABYTE: usize = 1_000_000;
const FILE_BYTES: u64 = 1 << 30;
/// A file-backed result may move this much through the processes that pass it on: headers, not contents.
const FILE_MOVED_BYTES_MAX: f64 = 64_000.0;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Rounds in which figure and floor take turns.
    pub(crate) rounds: usize,
    /// Calls in each round.
    pub(crate) calls: usize,
}

/// Rows of warm calls. `pinned` says only what the table says: the process was pinned before it had threads.
#[tokio::main]
pub(crate) async fn warm(pinned: bool, effort: Effort) -> Result<Vec<Row>> {
    let world = World::new()?;
    let host = world.host().await?;
    let server = FloorServer::start(world.dir())?;
    let floor = server.client();
    let rust = world::load(&host, world::RUST, "rust").await?;
    let python = world::load(&host, world::PYTHON, "python").await?;
    let request = world::request("echo", &json!({"text": "hello"}));
    let body = world::body(&host, &request)?;
    let mut ping = PingPong::start()?;

    calls(&host, &rust, &request, WARM_UP).await?;
    calls(&host, &python, &request, WARM_UP).await?;
    floor.ask("/execute", &body, WARM_UP)?;
    let mut own = crate::floor_http::connect(&world.path("floor.sock")).await?;
    let (mut of_rust, mut of_python, mut in_place) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let hyper = median(floor.ask("/execute", &body, effort.calls)?);
        let rust_call = median(calls(&host, &rust, &request, effort.calls).await?);
        let python_call = median(calls(&host, &python, &request, effort.calls).await?);
        let raw = median(ping.times(&body, effort.calls)?);
        of_rust.push((rust_call, hyper));
        of_python.push((python_call, raw + rust_call));
        let mut taken = Vec::with_capacity(effort.calls);
        for _ in 0..effort.calls {
            let start = Instant::now();
            crate::floor_http::call(&mut own, "/execute", body.clone().into()).await?;
            taken.push(micros(start.elapsed()));
        }
        in_place.push((rust_call, median(taken)));
    }
    drop(own);
    host.shutdown().await;

    let (how, goals) = if pinned {
        ("pinned to one core", [Goal::RatioMax(2.0), Goal::RatioMax(1.5)])
    } else {
        ("unpinned", [Goal::Shown, Goal::Shown])
    };
    let row = |what: &str, rounds: &[(f64, f64)], floor: &str, goal| {
        Row::against(format!("{what}, {how}"), Unit::Micros, &Pair::of(rounds), floor, goal)
    };
    let [rust_goal, python_goal] = goals;
    Ok(vec![
        row("warm direct call, Rust tool, p50", &of_rust, "hyper to hyper, Unix socket", rust_goal),
        row("the same", &in_place, "hyper in the same #[tokio::main]", Goal::Shown),
        row(
            "warm direct call, Python tool, p50",
            &of_python,
            "raw JSON ping-pong with CPython + the Rust call",
            python_goal,
        ),
    ])
}

/// Microseconds of each of `times` calls.
async fn calls(host: &Host, id: &InstanceId, request: &ExecuteRequest, times: usize) -> Result<Vec<f64>> {
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let request = request.clone();
        let start = Instant::now();
        let answer = host.call(id, request, None).await?;
        taken.push(micros(start.elapsed()));
        ensure!(answer == SMALL_ANSWER.as_bytes() || answer.len() < 20, "an unexpected answer: {answer:?}");
    }
    Ok(taken)
}

/// CPython at the other end of a socketpair: reads a line of JSON, answers one.
struct PingPong {
    child: Child,
    stream: UnixStream,
}

const PING_PONG: &str = r#"
import json, socket
peer = socket.socket(fileno=0)
while True:
    text = peer.recv(65536)
    if not text:
        break
    json.loads(text)
    peer.sendall(json.dumps({"ok": True}).encode())
"#;

impl PingPong {
    fn start() -> Result<Self> {
        let (stream, theirs) = UnixStream::pair()?;
        let child = Command::new(world::interpreter())
            .args(["-I", "-c", PING_PONG])
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .spawn()
            .context("start CPython for the ping-pong")?;
        let mut started = Self { child, stream };
        started.times(b"{}", WARM_UP)?;
        Ok(started)
    }

    fn times(&mut self, body: &[u8], times: usize) -> Result<Vec<f64>> {
        let mut taken = Vec::with_capacity(times);
        let mut answer = [0_u8; 4096];
        for _ in 0..times {
            let start = Instant::now();
            self.stream.write_all(body)?;
            let read = self.stream.read(&mut answer)?;
            taken.push(micros(start.elapsed()));
            ensure!(read > 0, "CPython ended the ping-pong");
        }
        Ok(taken)
    }
}

impl Drop for PingPong {
    fn drop(&mut self) {
        // It also ends by itself when the socket does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rows of large results: in the body, and in a file that is only named.
#[tokio::main]
pub(crate) async fn payloads(effort: Effort) -> Result<Vec<Row>> {
    let world = World::new()?;
    let host = world.host().await?;
    let server = FloorServer::start(world.dir())?;
    let floor = server.client();
    let rust = world::load(&host, world::RUST, "rust").await?;
    let mut rows = Vec::new();
    for (name, bytes, times) in [("1 MB", MEGABYTE, 20), ("64 MB", 64 * MEGABYTE, 2)] {
        rows.extend(one_size(&host, &rust, &floor, name, bytes, effort.rounds, times).await?);
    }
    rows.extend(file_backed(&world, &host, &rust, effort).await?);
    host.shutdown().await;
    Ok(rows)
}

async fn one_size(
    host: &Host,
    tool: &InstanceId,
    floor: &FloorClient,
    name: &str,
    bytes: usize,
    rounds: usize,
    times: usize,
) -> Result<Vec<Row>> {
    let request = world::request("bytes", &json!({"bytes": bytes}));
    let body = world::body(host, &request)?;
    // The tool's JSON text has two quotes around it; the floor sends as many bytes.
    let path = format!("/bytes/{}", bytes + 2);
    let source = vec![b'x'; bytes + 2];
    let mut target = vec![0_u8; bytes + 2];
    let (mut of_hyper, mut of_copy) = (Vec::new(), Vec::new());
    // The first round warms up: the tool makes the text, the floor its body.
    for round in 0..=rounds {
        let hyper = median(floor.ask(&path, &body, times)?);
        let mut taken = Vec::with_capacity(times);
        let mut copies = Vec::with_capacity(times);
        for _ in 0..times {
            let asked = request.clone();
            let start = Instant::now();
            let answer = host.call(tool, asked, None).await?;
            taken.push(micros(start.elapsed()));
            ensure!(answer.len() == bytes + 2, "a result of {} bytes", answer.len());
            let start = Instant::now();
            target.copy_from_slice(std::hint::black_box(&source));
            std::hint::black_box(&mut target);
            copies.push(micros(start.elapsed()));
        }
        if round > 0 {
            of_hyper.push((median(taken.iter().copied()), hyper));
            of_copy.push((median(taken), median(copies)));
        }
    }
    let row = |rounds: &[(f64, f64)], floor: &str, goal| {
        Row::against(format!("result of {name}"), Unit::Micros, &Pair::of(rounds), floor, goal)
    };
    Ok(vec![
        row(&of_hyper, "same body, hyper to hyper", Goal::RatioMax(3.0)),
        row(&of_copy, "one memory copy", Goal::Shown),
    ])
}

async fn file_backed(world: &World, host: &Host, tool: &InstanceId, effort: Effort) -> Result<Vec<Row>> {
    let path = world.path("result.bin");
    // Its blocks need not be on the disk to be somebody's result.
    std::fs::File::create(&path)?.set_len(FILE_BYTES)?;
    let request = world::request("size", &json!({"path": path}));
    let calls_each = effort.calls.max(20);
    calls_of_file(host, tool, &request, WARM_UP).await?;
    let worker = worker_pid(host, tool).await?;
    let own = i32::try_from(std::process::id()).context("a process id")?;
    let before = [moved_and_peak(own)?, moved_and_peak(worker)?];
    let taken = calls_of_file(host, tool, &request, calls_each).await?;
    let after = [moved_and_peak(own)?, moved_and_peak(worker)?];
    let moved: f64 = before.iter().zip(&after).map(|(b, a)| a.0 - b.0).sum();
    let grown: f64 = before.iter().zip(&after).map(|(b, a)| a.1 - b.1).sum();
    let each = moved / f64::from(u32::try_from(calls_each)?);
    Ok(vec![
        Row::alone(
            "result of 1 GiB in a file: bytes moved by host and tool, each call",
            each,
            Unit::Count,
            Goal::Max(FILE_MOVED_BYTES_MAX),
        )
        .note(format!("p50 {:.0} µs a call; memory grew by {:.1} MB", median(taken), grown / 1e6)),
    ])
}

async fn calls_of_file(
    host: &Host,
    tool: &InstanceId,
    request: &ExecuteRequest,
    times: usize,
) -> Result<Vec<f64>> {
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let asked = request.clone();
        let start = Instant::now();
        let answer = host.call(tool, asked, None).await?;
        taken.push(micros(start.elapsed()));
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        ensure!(answer["bytes"] == FILE_BYTES, "an unexpected answer: {answer}");
    }
    Ok(taken)
}

/// Microseconds of warm calls of a Python tool, and what shim and tool hold resident, for the rows of peers.
#[tokio::main]
pub(crate) async fn python_calls(times: usize) -> Result<(Vec<f64>, f64)> {
    let world = World::new()?;
    let host = world.host().await?;
    let python = world::load(&host, world::PYTHON, "python").await?;
    let request = world::request("echo", &json!({"text": "hello"}));
    calls(&host, &python, &request, WARM_UP).await?;
    let taken = calls(&host, &python, &request, times).await?;
    let shim = worker_pid(&host, &python).await?;
    let pid = cjm_platform::process::Pid::from_raw(shim).context("a process id")?;
    let mut resident = crate::measure::resident_mb(shim)?;
    for below in cjm_platform::tree::descendants(pid)? {
        resident += crate::measure::resident_mb(below.pid.as_raw())?;
    }
    host.shutdown().await;
    Ok((taken, resident))
}

/// The process of an instance's worker, as its surface tells it.
pub(crate) async fn worker_pid(host: &Host, id: &InstanceId) -> Result<i32> {
    let health =
        host.question(id, cjm_host::wire::http::HEALTH).await.context("the worker does not answer")?;
    let health: serde_json::Value = serde_json::from_slice(&health)?;
    let pid = health["pid"].as_i64().context("the worker names no process")?;
    Ok(i32::try_from(pid)?)
}
