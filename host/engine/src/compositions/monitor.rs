//! What each step used: listens to a monitor capability's stream of samples while a composition runs, and answers for
//! a worker and a span of time. The monitor sees processes; which of them belong to which worker is told by their
//! parents, and which job a worker had is told by the jobs' own times.

use crate::compositions::state::NodeUsage;
use crate::host::Host;
use cjm_wire::envelope::ExecuteRequest;
use cjm_wire::{CompositionId, InstanceId, Timestamp};
use cjm_workers::LoadOptions;
use futures_util::StreamExt;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// Milliseconds between samples.
pub(crate) const SAMPLE_INTERVAL_MS: u64 = 50;
/// Samples kept of one worker; beyond it every second one is dropped, so that a long run stays bounded and whole.
pub(crate) const SAMPLES_PER_WORKER_MAX: usize = 16_384;
/// A span is answered for by samples this far outside it: short calls fall between two samples.
const SLACK_MICROS: i64 = 1000 * 2 * SAMPLE_INTERVAL_MS as i64;

/// One sample of one worker's tree.
#[derive(Debug, Clone, Copy)]
struct Point {
    at_micros: i64,
    cpu_seconds: f64,
    rss_mb: f64,
}

#[derive(Debug, Deserialize)]
struct Sample {
    #[serde(default)]
    processes: Vec<ProcessRow>,
}

#[derive(Debug, Deserialize)]
struct ProcessRow {
    pid: u32,
    ppid: u32,
    #[serde(default)]
    cpu_seconds: f64,
    #[serde(default)]
    memory_rss_mb: f64,
}

/// A running monitor.
pub(crate) struct Monitor {
    book: Arc<Mutex<Book>>,
    /// Dropping it closes the stream, which ends its call.
    _listening: AbortOnDropHandle<()>,
    _instance: OwnInstance,
}

/// The instance of one run's monitor. Whatever becomes of the run, also where it is refused: the instance goes with this.
struct OwnInstance {
    host: Host,
    id: InstanceId,
}

#[derive(Default)]
struct Book {
    workers: HashMap<u32, Vec<Point>>,
}

impl Monitor {
    /// Loads the monitor and starts listening. A monitor that does not work is no reason to fail a run: the run goes on,
    /// and tells why nothing was measured.
    pub(crate) async fn start(host: &Host, capability: &str) -> Result<Self, String> {
        let fault = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, capability, "the monitor does not work; the run goes on without it");
            error.to_string()
        };
        // An instance of its own: another composition, or whoever loaded the capability, ends theirs at another time.
        let id = InstanceId::from_text(format!("monitor-{}", CompositionId::new()));
        let own = LoadOptions { instance_id: Some(id.clone()), ..LoadOptions::default() };
        let instance = OwnInstance { host: host.clone(), id: id.clone() };
        host.load(capability, own).await.map_err(|error| fault(&error))?;
        let root_pid = host.services().workers.root_pid().await.map_err(|error| fault(&error))?;
        let mut request = ExecuteRequest::default();
        for (key, value) in [
            ("action", serde_json::Value::from("watch")),
            ("root_pid", root_pid.into()),
            ("interval_ms", SAMPLE_INTERVAL_MS.into()),
        ] {
            request.kwargs.insert(key.to_owned(), value);
        }
        // The run ends it, however long it takes.
        let stream = host.call_stream_within(&id, request, Duration::MAX).await;
        let mut stream = stream.map_err(|error| fault(&error))?;
        let book = Arc::new(Mutex::new(Book::default()));
        let writing = Arc::clone(&book);
        let listening = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(Ok(chunk)) = stream.next().await {
                if let Ok(sample) = serde_json::from_str::<Sample>(chunk.get()) {
                    let at = Timestamp::now().as_micros().unwrap_or_default();
                    writing.lock().unwrap_or_else(PoisonError::into_inner).enter(root_pid, at, &sample);
                }
            }
        }));
        Ok(Self { book, _listening: listening, _instance: instance })
    }

    /// What one worker's tree used over some spans of time (microseconds since the epoch, start and end).
    pub(crate) fn usage(&self, worker_pid: u32, spans: &[(i64, i64)]) -> Option<NodeUsage> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).usage(worker_pid, spans)
    }
}

impl Drop for OwnInstance {
    fn drop(&mut self) {
        let (host, id) = (self.host.clone(), self.id.clone());
        let unload = async move {
            if let Err(error) = host.unload(&id).await {
                tracing::debug!(%error, "the monitor was gone already");
            }
        };
        // Without a runtime the host has ended, and the instance with it.
        if let Ok(runtime) = self.host.runtime().handle() {
            self.host.services().tasks.spawn_on(unload, runtime);
        }
    }
}

impl Book {
    /// Sums each worker's tree. Workers are the children of the keeper.
    fn enter(&mut self, keeper: u32, at_micros: i64, sample: &Sample) {
        let parents: BTreeMap<u32, u32> = sample.processes.iter().map(|row| (row.pid, row.ppid)).collect();
        let mut sums: HashMap<u32, (f64, f64)> = HashMap::new();
        for row in &sample.processes {
            let Some(worker) = worker_of(row.pid, keeper, &parents) else { continue };
            let sum = sums.entry(worker).or_default();
            sum.0 += row.cpu_seconds;
            sum.1 += row.memory_rss_mb;
        }
        for (worker, (cpu_seconds, rss_mb)) in sums {
            let points = self.workers.entry(worker).or_default();
            if points.len() == SAMPLES_PER_WORKER_MAX {
                let mut index = 0;
                points.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
            }
            points.push(Point { at_micros, cpu_seconds, rss_mb });
        }
    }

    fn usage(&self, worker: u32, spans: &[(i64, i64)]) -> Option<NodeUsage> {
        let points = self.workers.get(&worker)?;
        let mut usage = NodeUsage::default();
        for (start, end) in spans {
            let first = points.partition_point(|point| point.at_micros < start - SLACK_MICROS);
            let last = points.partition_point(|point| point.at_micros <= end + SLACK_MICROS);
            let Some(within) = points.get(first..last).filter(|within| !within.is_empty()) else { continue };
            for point in within {
                usage.peak_rss_mb = usage.peak_rss_mb.max(point.rss_mb);
            }
            let (from, to) = (cpu_at(points, *start), cpu_at(points, *end));
            usage.cpu_seconds += (to - from).max(0.0);
        }
        Some(usage)
    }
}

/// Processor time at an instant, between the two samples around it.
fn cpu_at(points: &[Point], at: i64) -> f64 {
    let after = points.partition_point(|point| point.at_micros < at);
    match (after.checked_sub(1).and_then(|index| points.get(index)), points.get(after)) {
        (Some(before), Some(next)) => {
            let span = (next.at_micros - before.at_micros).max(1) as f64;
            let share = (at - before.at_micros) as f64 / span;
            before.cpu_seconds + (next.cpu_seconds - before.cpu_seconds) * share
        }
        (Some(only), None) | (None, Some(only)) => only.cpu_seconds,
        (None, None) => 0.0,
    }
}

fn worker_of(pid: u32, keeper: u32, parents: &BTreeMap<u32, u32>) -> Option<u32> {
    let mut current = pid;
    // A tree cannot be deeper than it has members.
    for _ in 0..=parents.len() {
        let parent = *parents.get(&current)?;
        if parent == keeper {
            return Some(current);
        }
        current = parent;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rows: &[(u32, u32, f64, f64)]) -> Sample {
        let processes = rows
            .iter()
            .map(|(pid, ppid, cpu_seconds, memory_rss_mb)| ProcessRow {
                pid: *pid,
                ppid: *ppid,
                cpu_seconds: *cpu_seconds,
                memory_rss_mb: *memory_rss_mb,
            })
            .collect();
        Sample { processes }
    }

    #[test]
    fn a_tree_is_summed_under_its_worker_and_asked_by_span() {
        let mut book = Book::default();
        // Keeper 1, workers 10 and 20; 11 is a tool of 10, 99 belongs to nobody.
        for (second, cpu, rss) in [(0, 1.0, 10.0), (1, 2.0, 50.0), (2, 4.0, 20.0)] {
            let rows = [(10, 1, cpu, 1.0), (11, 10, cpu, rss), (20, 1, 0.5, 3.0), (99, 98, 9.0, 9.0)];
            book.enter(1, second * 1_000_000, &sample(&rows));
        }
        let usage = book.usage(10, &[(1_000_000, 2_000_000)]).expect("known");
        assert!((usage.cpu_seconds - 4.0).abs() < 1e-9, "{usage:?}");
        assert!((usage.peak_rss_mb - 51.0).abs() < 1e-9, "{usage:?}");
        let half = book.usage(10, &[(0, 500_000)]).expect("known");
        assert!((half.cpu_seconds - 1.0).abs() < 1e-9, "{half:?}");
        assert_eq!(book.usage(99, &[(0, 1)]), None);
        assert!(book.usage(20, &[(0, 2_000_000)]).expect("known").cpu_seconds.abs() < 1e-9);
    }
    /// The longer a run, the fewer samples of each second; but they reach from its beginning to its end.
    #[test]
    fn samples_of_a_long_run_are_bounded_and_whole() {
        let mut book = Book::default();
        let count = 3 * SAMPLES_PER_WORKER_MAX as i64;
        for second in 0..count {
            let rss = if second == count - 1 { 99.0 } else { 1.0 };
            book.enter(1, second * 1_000_000, &sample(&[(10, 1, second as f64, rss)]));
            assert!(book.workers[&10].len() <= SAMPLES_PER_WORKER_MAX);
        }
        let points = &book.workers[&10];
        assert!(points.len() > SAMPLES_PER_WORKER_MAX / 3, "{} are left", points.len());
        assert!(points[0].at_micros < 10_000_000, "the beginning is there");
        let last = (count - 1) * 1_000_000;
        let usage = book.usage(10, &[(0, last)]).expect("known");
        assert!((usage.cpu_seconds - (count - 1) as f64).abs() < 10.0, "{usage:?}");
        assert!((usage.peak_rss_mb - 99.0).abs() < 1e-9, "the newest is there: {usage:?}");
    }

    /// A short call falls between two samples; one that was over long before has used nothing of it.
    #[test]
    fn samples_beside_a_span_count_and_those_far_from_it_do_not() {
        let mut book = Book::default();
        for (millis, rss) in [(0, 5.0), (1_000, 7.0), (2_000, 9.0)] {
            book.enter(1, millis * 1_000, &sample(&[(10, 1, 0.0, rss)]));
        }
        let peak =
            |from: i64, to: i64| book.usage(10, &[(from * 1_000, to * 1_000)]).expect("known").peak_rss_mb;
        assert_eq!((peak(1_020, 1_040), peak(960, 980), peak(400, 500)), (7.0, 7.0, 0.0));
        assert_eq!(peak(950, 2_050), 9.0);
    }
}
