//! Durable jobs a second: four lanes, 64 in flight, 1 kB of arguments, one subscriber; and a bare SQLite loop that
//! writes the very rows of those jobs, read back from the journal they were written to.

use crate::bare::Replay;
use crate::measure::Pair;
use crate::row::{Goal, Row, Unit};
use crate::world::{self, World};
use anyhow::{Context as _, Result, ensure};
use cjm_host::{Host, HostOptions, JobRequest, Target};
use cjm_store::JOURNAL_FILE;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const LANES: usize = 4;
const IN_FLIGHT: usize = 64;
const ARGUMENT_BYTES: usize = 1000;
/// Jobs before those that count.
const WARM_UP: usize = 200;
/// Commits in one transaction of the second floor: what the journal's writer has before it when 64 jobs are in flight.
const BATCH_COMMITS: usize = 16;

/// Rows of durable jobs.
#[tokio::main]
pub(crate) async fn rows(rounds: usize, jobs: usize) -> Result<Vec<Row>> {
    let (mut single, mut batched) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let world = World::new()?;
        let rate = measure(&world, world::RUST, jobs).await?;
        let path = world.data_dir().join(JOURNAL_FILE);
        let target = world.path("bare");
        let (each, together) = tokio::task::spawn_blocking(move || {
            let replay = Replay::read(&path)?;
            ensure!(replay.jobs() >= jobs, "only {} jobs are in the journal", replay.jobs());
            let each = replay.run(&target.join("single"), 1)?;
            let together = replay.run(&target.join("batched"), BATCH_COMMITS)?;
            Ok((each, together))
        })
        .await
        .context("the bare loop panicked")??;
        single.push((rate, each));
        batched.push((rate, together));
    }
    let what = "durable jobs, 4 lanes, 64 in flight, 1 kB, one subscriber";
    let pair = Pair::of(&single);
    Ok(vec![
        Row::against(what, Unit::PerSecond, &pair, "bare SQLite, same rows and commits", Goal::RatioMin(0.5)),
        Row::against(
            "the same",
            Unit::PerSecond,
            &Pair::of(&batched),
            "bare SQLite, 16 commits in each transaction",
            Goal::Shown,
        ),
        Row::alone("the same, as a rate", pair.figure, Unit::PerSecond, Goal::RateMin(5000.0))
            .note("the goal is for an idle machine with two cores"),
    ])
}

/// Durable jobs a second of a Python tool, for the rows of peers.
#[tokio::main]
pub(crate) async fn python_rate(jobs: usize) -> Result<f64> {
    measure(&World::new()?, world::PYTHON, jobs).await
}

/// Jobs a second through a host of their own.
async fn measure(world: &World, tool: &str, jobs: usize) -> Result<f64> {
    let mut options = HostOptions::new(world.data_dir());
    options.lanes = LANES;
    let host = Host::start(options).await?;
    world::load(&host, tool, tool).await?;
    let seen = Arc::new(AtomicU64::new(0));
    let mut subscription = host.rows();
    let counted = Arc::clone(&seen);
    let subscriber = tokio::spawn(async move {
        while subscription.next().await.is_some() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    submit(&host, tool, WARM_UP).await?;
    let start = Instant::now();
    submit(&host, tool, jobs).await?;
    let rate = crate::bare::rate(jobs, start.elapsed());
    subscriber.abort();
    host.shutdown().await;
    ensure!(seen.load(Ordering::Relaxed) > 0, "the subscriber saw nothing");
    Ok(rate)
}

/// Submits jobs and awaits each, so many at a time.
async fn submit(host: &Host, tool: &str, jobs: usize) -> Result<()> {
    let mut request = JobRequest::new(Target::Instance(cjm_host::wire::InstanceId::from_text(tool)));
    request.action = Some("echo".to_owned());
    request.kwargs.insert("text".to_owned(), Value::String("a".repeat(ARGUMENT_BYTES)).into());
    let one = async |request: JobRequest| -> Result<()> {
        let job = host.submit(request).await?;
        let outcome = host.wait(&job).await?;
        ensure!(outcome.result.is_some(), "a job ended {}", outcome.status);
        Ok(())
    };
    let mut running = FuturesUnordered::new();
    for _ in 0..jobs {
        if running.len() >= IN_FLIGHT {
            running.next().await.context("nothing runs")??;
        }
        running.push(one(request.clone()));
    }
    while let Some(ended) = running.next().await {
        ended?;
    }
    Ok(())
}
