//! A direct call, and what becomes of it when its caller goes away: it is cancelled as a job is, first by asking, then by
//! force.

use crate::instances::{DirectCallCount, Instance};
use crate::queue::attempt::{CANCEL_REPEAT, Runner};
use bytes::Bytes;
use cjm_decide::death::OwnKill;
use cjm_decide::queue::CANCEL_GRACE_MS;
use cjm_wire::JobId;
use cjm_wire::event::{EventType, JournalRow};
use cjm_workers::{CallError, Reply, Worker};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A call that is no job, and whom it was sent to.
#[derive(Clone)]
pub(crate) struct Called {
    pub(crate) runner: Runner,
    pub(crate) instance: Arc<Instance>,
    pub(crate) worker: Arc<dyn Worker>,
    /// The id under which the worker can be asked to stop it.
    pub(crate) call: JobId,
}

/// One with one answer.
pub(crate) struct DirectCall {
    pub(crate) called: Called,
    pub(crate) path: &'static str,
}

impl DirectCall {
    /// Calls, and journals what the tool accounted for. Once `abandoned` nobody waits for the answer, and the call is
    /// brought to its end.
    pub(crate) async fn run(self, body: Vec<u8>, abandoned: CancellationToken) -> Result<Bytes, CallError> {
        let called = &self.called;
        let _counted = DirectCallCount::on(&called.instance);
        let mut calling = pin!(called.worker.call(self.path, body));
        let answer = tokio::select! {
            biased;
            answer = &mut calling => {
                let asked = self.called.instance.is_retired();
                answer.map_err(|error| if asked { error } else { error.where_nobody_asked() })
            }
            () = abandoned.cancelled() => {
                let _open = called.runner.services.tasks.token();
                tokio::select! {
                    biased;
                    answer = &mut calling => answer,
                    () = called.stop() => calling.await,
                }
            }
        };
        called.account(answer)
    }
}

impl Called {
    /// Asks the tool to stop until its grace is over, then kills its worker.
    pub(crate) async fn stop(&self) {
        let ask = async {
            loop {
                self.worker.cancel(&self.call).await;
                tokio::time::sleep(CANCEL_REPEAT).await;
            }
        };
        // The call itself says when it is over; nothing else ends the asking.
        let _ = tokio::time::timeout(Duration::from_millis(CANCEL_GRACE_MS), ask).await;
        let reason = OwnKill::ForceCancel { job: self.call.clone() };
        let Runner { services, jobs, .. } = &self.runner;
        self.instance.recycle(services, jobs, &self.worker.facts().session, reason);
    }

    fn account(&self, answer: Result<Reply, CallError>) -> Result<Bytes, CallError> {
        let (accounts, outcome) = match answer {
            Ok(reply) => (reply.accounts, Ok(reply.body)),
            Err(error) => (error.accounts().to_vec(), Err(error)),
        };
        for account in accounts {
            let mut row = JournalRow::new(EventType::TaskAccount, account.payload);
            row.event_type = account.event_type;
            row.worker_reported = true;
            row.capability_instance_id = Some(self.instance.id.to_string());
            row.worker_session_id = Some(self.worker.facts().session.to_string());
            self.runner.services.note(row);
        }
        outcome
    }
}

/// A task that ends with whoever waits for it.
pub(crate) struct AbortOnDrop(pub(crate) JoinHandle<()>);

impl Future for AbortOnDrop {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // A task that was aborted is over, too.
        Pin::new(&mut self.0).poll(context).map(|_| ())
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
