//! What each step used: listens to a monitor capability's stream of samples while a composition runs, and answers for
//! a worker and a span of time. The monitor sees processes; which of them belong to which worker is told by their
//! parents, and which job a worker had is told by the jobs' own times.

use crate::compositions::state::NodeUsage;
use crate::host::Host;
use cjm_wire::envelope::ExecuteRequest;
use cjm_wire::{CompositionId, InstanceId, Timestamp};
use cjm_workers::{CallError, LoadOptions};
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Milliseconds between samples.
pub(crate) const SAMPLE_INTERVAL_MS: u64 = 50;
/// Samples kept of one worker; beyond it every second one is dropped, so that a long run stays bounded and whole.
pub(crate) const SAMPLES_PER_WORKER_MAX: usize = 16_384;
/// How long a run waits for the first word of its monitor: one that works needs milliseconds.
const FIRST_WORD_MAX: Duration = Duration::from_secs(1);
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
    processes: Vec<ProcessRow>,
}

#[derive(Debug, Deserialize)]
struct ProcessRow {
    pid: u32,
    ppid: u32,
    cpu_seconds: Option<f64>,
    memory_rss_mb: Option<f64>,
}

/// A running monitor.
pub(crate) struct Monitor {
    host: Host,
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
    /// Why no more is entered.
    fault: Option<String>,
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
        let stream = host.call_stream_within(&id, request, Duration::MAX.into()).await;
        let stream = stream.map_err(|error| fault(&error))?;
        let book = Arc::new(Mutex::new(Book::default()));
        let (said, mut heard) = watch::channel(false);
        let listening = listen(stream, root_pid, Arc::clone(&book), said);
        let listening = AbortOnDropHandle::new(tokio::spawn(listening));
        // So that what is no monitor is known as that, however short the run. One that says nothing holds no run for long.
        let _ = tokio::time::timeout(FIRST_WORD_MAX, heard.wait_for(|said| *said)).await;
        let early = lock(&book).fault.take();
        match early {
            Some(error) => Err(fault(&error)),
            None => Ok(Self { host: host.clone(), book, _listening: listening, _instance: instance }),
        }
    }

    /// Why figures are missing, if some are.
    pub(crate) fn fault(&self) -> Option<String> {
        // A host that ends takes the monitor with it; that is no fault of it.
        if self.host.services().closing.is_cancelled() {
            return None;
        }
        lock(&self.book).fault()
    }

    /// What one worker's tree used over some spans of time (microseconds since the epoch, start and end).
    pub(crate) fn usage(&self, worker_pid: u32, spans: &[(i64, i64)]) -> Option<NodeUsage> {
        lock(&self.book).usage(worker_pid, spans)
    }
}

/// Enters what the monitor says for as long as it says what can be entered. `said` becomes true with its first word.
async fn listen(
    mut stream: impl Stream<Item = Result<Box<RawValue>, CallError>> + Unpin,
    keeper: u32,
    book: Arc<Mutex<Book>>,
    said: watch::Sender<bool>,
) {
    let fault = loop {
        match stream.next().await {
            Some(Ok(chunk)) => match read(&chunk) {
                Ok(sample) => {
                    let at = Timestamp::now().as_micros().unwrap_or_default();
                    lock(&book).enter(keeper, at, &sample);
                    said.send_replace(true);
                }
                Err(why) => break format!("what it says is no sample of processes: {why}"),
            },
            Some(Err(error)) => break error.to_string(),
            None => break "it stopped watching before the run ended".to_owned(),
        }
    };
    tracing::debug!(fault, "the monitor is not listened to any more");
    lock(&book).fault = Some(fault);
    said.send_replace(true);
}

/// A sample with figures; else why it is none.
fn read(chunk: &RawValue) -> Result<Sample, String> {
    let sample: Sample = serde_json::from_str(chunk.get()).map_err(|error| error.to_string())?;
    let has_figures = |row: &ProcessRow| row.cpu_seconds.is_some() || row.memory_rss_mb.is_some();
    if !sample.processes.is_empty() && !sample.processes.iter().any(has_figures) {
        return Err("none of them has `cpu_seconds` or `memory_rss_mb`".to_owned());
    }
    Ok(sample)
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Why figures are missing. A monitor that works sees at least its own worker.
    fn fault(&self) -> Option<String> {
        let is_empty = self.workers.is_empty();
        self.fault.clone().or_else(|| is_empty.then(|| "it named no process of a worker".to_owned()))
    }

    /// Sums each worker's tree. Workers are the children of the keeper.
    fn enter(&mut self, keeper: u32, at_micros: i64, sample: &Sample) {
        let parents: BTreeMap<u32, u32> = sample.processes.iter().map(|row| (row.pid, row.ppid)).collect();
        let mut sums: HashMap<u32, (f64, f64)> = HashMap::new();
        for row in &sample.processes {
            let Some(worker) = worker_of(row.pid, keeper, &parents) else { continue };
            let sum = sums.entry(worker).or_default();
            sum.0 += row.cpu_seconds.unwrap_or_default();
            sum.1 += row.memory_rss_mb.unwrap_or_default();
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
                cpu_seconds: Some(*cpu_seconds),
                memory_rss_mb: Some(*memory_rss_mb),
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

    /// What a monitor that says these chunks and then ends is found to be at the end of the run.
    async fn heard(chunks: Vec<Result<&str, CallError>>) -> (Option<String>, Book) {
        let chunks = chunks.into_iter();
        let chunks =
            chunks.map(|chunk| chunk.map(|text| RawValue::from_string(text.to_owned()).expect("JSON")));
        let book = Arc::new(Mutex::new(Book::default()));
        let (said, heard) = watch::channel(false);
        listen(futures_util::stream::iter(chunks), 1, Arc::clone(&book), said).await;
        assert!(*heard.borrow(), "nobody waits for what has ended");
        let book = std::mem::take(&mut *lock(&book));
        (book.fault(), book)
    }

    #[tokio::test]
    async fn what_is_no_monitor_is_told_as_that() {
        let refused =
            CallError::Connection { capability: "kit".to_owned(), message: "no `watch`".to_owned() };
        let good = r#"{"processes": [{"pid": 10, "ppid": 1, "memory_rss_mb": 3}]}"#;
        for (chunks, words) in [
            (vec![Err(refused)], "no `watch`"),
            (vec![], "stopped watching"),
            (vec![Ok("{}")], "missing field `processes`"),
            (vec![Ok("\"word\"")], "no sample"),
            (vec![Ok(r#"{"processes": [{"pid": 10, "ppid": 1}]}"#)], "none of them has `cpu_seconds`"),
            (vec![Ok(good), Ok("3")], "no sample"),
        ] {
            let is_good_first = chunks.len() == 2;
            let (fault, book) = heard(chunks).await;
            assert!(fault.as_ref().is_some_and(|fault| fault.contains(words)), "{words}: {fault:?}");
            assert_eq!(book.workers.contains_key(&10), is_good_first, "what came before is kept");
        }
    }

    #[test]
    fn a_monitor_that_names_no_worker_gives_no_figures_and_one_that_names_one_has_no_fault() {
        let mut book = Book::default();
        book.enter(1, 0, &sample(&[(99, 98, 1.0, 1.0)]));
        assert!(book.fault().is_some_and(|fault| fault.contains("no process of a worker")));
        book.enter(1, 1, &sample(&[(10, 1, 1.0, 1.0)]));
        assert_eq!(book.fault(), None);
    }
}
