//! Calls that did not reach their worker and wait until another one can be in its place. Nobody can ask their tool to stop
//! them, so a cancel ends the waiting.

use cjm_wire::JobId;
use std::future::pending;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Those of one worker.
#[derive(Default)]
pub(crate) struct UnsentCalls(Mutex<Vec<Waiting>>);

/// One of them. It hears of its cancel by the end of the sender.
struct Waiting {
    job: String,
    waits: oneshot::Sender<()>,
}

impl UnsentCalls {
    /// Resolves when the call of this job is cancelled; never, where it has none.
    pub(crate) async fn cancelled(&self, job: Option<&str>) {
        let Some(job) = job else { return pending().await };
        let (waits, cancelled) = oneshot::channel();
        self.begin(Waiting { job: job.to_owned(), waits });
        let _ = cancelled.await;
    }

    fn begin(&self, call: Waiting) {
        let mut waiting = self.waiting();
        waiting.retain(|call| !call.waits.is_closed());
        waiting.push(call);
    }

    /// Ends the waiting of a job's call; nothing where it does not wait.
    pub(crate) fn cancel(&self, job: &JobId) {
        self.waiting().retain(|call| call.job != job.as_str());
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::pin::pin;

    #[test]
    fn a_cancel_ends_the_waiting_of_its_call_alone_and_who_left_is_forgotten() {
        let calls = UnsentCalls::default();
        let (mut one, mut other) = (pin!(calls.cancelled(Some("j"))), pin!(calls.cancelled(Some("k"))));
        let mut of_none = pin!(calls.cancelled(None));
        assert!(calls.cancelled(Some("m")).now_or_never().is_none(), "and leaves");
        for waits in [&mut one, &mut other] {
            assert!(waits.as_mut().now_or_never().is_none());
        }
        assert_eq!(calls.waiting().len(), 2, "who left is forgotten");
        calls.cancel(&JobId::from_text("j"));
        assert!(one.now_or_never().is_some());
        assert!(other.as_mut().now_or_never().is_none() && of_none.as_mut().now_or_never().is_none());
        calls.cancel(&JobId::from_text("k"));
        assert!(other.now_or_never().is_some());
    }
}
