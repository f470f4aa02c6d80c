//! Ends of elements on their way to the driver, with their results read. A long result takes its time; what else the driver
//! hears, a cancel before all, it hears meanwhile.

use crate::queue::state::{ElementEnd, JobOutcome};
use cjm_decide::composition::ElementOutcome;
use cjm_wire::event::JobStatus;
use cjm_wire::json::Json;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Results up to so long are read in the driver's own task: that takes milliseconds.
const RESULT_READ_AT_ONCE_BYTES_MAX: usize = 256 * 1024;

type Read = (ElementEnd, ElementOutcome);

pub(crate) struct Ends {
    told: mpsc::UnboundedReceiver<ElementEnd>,
    reading: FuturesUnordered<BoxFuture<'static, Read>>,
}

impl Ends {
    pub(crate) fn new(told: mpsc::UnboundedReceiver<ElementEnd>) -> Self {
        Self { told, reading: FuturesUnordered::new() }
    }

    /// The next one. Nothing is lost where this is given up.
    pub(super) async fn next(&mut self) -> Option<Read> {
        loop {
            tokio::select! {
                biased;
                Some(read) = self.reading.next() => return Some(read),
                Some(end) = self.told.recv() => {
                    if !is_long(&end.outcome) {
                        let read = element_outcome(&end.outcome);
                        return Some((end, read));
                    }
                    self.reading.push(Box::pin(read_beside(end)));
                }
                else => return None,
            }
        }
    }
}

/// Whether it takes so long to read a result that nobody should wait behind it.
fn is_long(outcome: &JobOutcome) -> bool {
    outcome.result.as_ref().is_some_and(|body| body.len() > RESULT_READ_AT_ONCE_BYTES_MAX)
}

/// Reads the result of an element's job where no task waits for its turn.
async fn read_beside(end: ElementEnd) -> (ElementEnd, ElementOutcome) {
    let outcome = Arc::clone(&end.outcome);
    let read = tokio::task::spawn_blocking(move || element_outcome(&outcome)).await;
    let read =
        read.unwrap_or_else(|error| ElementOutcome::Failed(format!("its result was not read: {error}")));
    (end, read)
}

pub(crate) fn element_outcome(outcome: &JobOutcome) -> ElementOutcome {
    match (outcome.status, &outcome.result) {
        (JobStatus::Completed, Some(body)) => match Json::from_slice(body) {
            Ok(value) => ElementOutcome::Completed(value),
            Err(error) => ElementOutcome::Failed(format!("its result does not pass: {error}")),
        },
        (JobStatus::Cancelled, _) => ElementOutcome::Cancelled { begun: outcome.started_at.is_some() },
        _ => ElementOutcome::Failed(
            outcome
                .failure
                .as_ref()
                .map_or_else(|| "failed".to_owned(), |failure| failure.report.message.clone()),
        ),
    }
}

/// A job that brought this.
#[cfg(test)]
pub(crate) fn completed_with(result: impl Into<bytes::Bytes>) -> JobOutcome {
    JobOutcome {
        job_id: cjm_wire::JobId::new(),
        status: JobStatus::Completed,
        result: Some(result.into()),
        failure: None,
        submitted_at: cjm_wire::Timestamp::now(),
        started_at: None,
        completed_at: None,
        instance_id: None,
        worker_session_id: None,
        worker_pid: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_result_is_read_beside_the_driver() {
        // The one thread that reads long results is busy until the gate opens.
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
        let runtime = runtime.expect("a runtime");
        let (gate, closed) = std::sync::mpsc::channel::<()>();
        runtime.spawn_blocking(move || closed.recv());
        let outcome = |bytes: usize| Arc::new(completed_with(format!("\"{}\"", "r".repeat(bytes - 2))));
        assert!(!is_long(&outcome(RESULT_READ_AT_ONCE_BYTES_MAX)));
        let outcome = outcome(RESULT_READ_AT_ONCE_BYTES_MAX + 1);
        assert!(is_long(&outcome));
        let (sender, told) = mpsc::unbounded_channel();
        let mut ends = Ends::new(told);
        let end = |element, outcome| ElementEnd { node: "n".to_owned(), element, outcome };
        assert!(sender.send(end(3, Arc::clone(&outcome))).is_ok());
        runtime.block_on(async {
            use futures_util::FutureExt as _;
            assert!(ends.next().now_or_never().is_none(), "its task does not wait for it");
        });
        // What comes meanwhile is not kept waiting, and what was given up is not lost.
        let failed = JobOutcome { status: JobStatus::Failed, result: None, ..(*outcome).clone() };
        assert!(sender.send(end(4, Arc::new(failed))).is_ok());
        let (meanwhile, read) = runtime.block_on(ends.next()).expect("what came meanwhile");
        assert_eq!((meanwhile.element, read), (4, ElementOutcome::Failed("failed".to_owned())));
        drop(gate);
        let (long, read) = runtime.block_on(ends.next()).expect("the long one");
        assert_eq!((long.element, read), (3, element_outcome(&outcome)));
    }

    #[test]
    fn a_result_that_is_no_json_is_a_failure_of_its_element() {
        assert!(matches!(element_outcome(&completed_with("[1]")), ElementOutcome::Completed(_)));
        let ElementOutcome::Failed(why) = element_outcome(&completed_with("[1")) else { panic!("it is cut") };
        assert!(why.starts_with("its result does not pass: "), "{why}");
        let cancelled = JobOutcome { status: JobStatus::Cancelled, ..completed_with("1") };
        assert_eq!(element_outcome(&cancelled), ElementOutcome::Cancelled { begun: false });
        let cut_off = JobOutcome { started_at: Some(cjm_wire::Timestamp::now()), ..cancelled };
        assert_eq!(element_outcome(&cut_off), ElementOutcome::Cancelled { begun: true });
        let failed = JobOutcome { status: JobStatus::Failed, result: None, ..completed_with("1") };
        assert_eq!(element_outcome(&failed), ElementOutcome::Failed("failed".to_owned()));
    }
}
