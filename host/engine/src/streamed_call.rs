//! A streamed call, and what becomes of it when its reader goes away before its end: what still comes is read and thrown
//! away, and the call is cancelled as a direct call is, first by asking, then by force. The connection stays open for that:
//! only its end says that the tool has stopped.

use crate::direct_call::Called;
use crate::instances::DirectCallCount;
use cjm_workers::{CallError, ChunkStream};
use futures_util::{Stream, StreamExt};
use serde_json::value::RawValue;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Results of a call as they come. Dropping it ends the call.
pub(crate) struct StreamedCall {
    /// None once the call is over.
    open: Option<Open>,
    /// Where the call is brought to its end.
    runtime: Handle,
}

/// A call that is not over.
struct Open {
    called: Called,
    chunks: ChunkStream,
    /// The connection has failed, so that nothing that follows says whether the tool has stopped.
    broken: bool,
    _counted: DirectCallCount,
}

impl StreamedCall {
    /// Begins it. Once `abandoned` nobody waits for it.
    pub(crate) async fn open(
        called: Called,
        body: Vec<u8>,
        abandoned: CancellationToken,
        runtime: Handle,
    ) -> Result<Self, CallError> {
        let counted = DirectCallCount::on(&called.instance);
        let mut opening = Arc::clone(&called.worker).stream(body);
        let chunks = tokio::select! {
            biased;
            chunks = &mut opening => chunks?,
            () = abandoned.cancelled() => {
                let _open = called.runner.services.tasks.token();
                tokio::select! {
                    biased;
                    // Nobody takes it, so it is dropped, and ended.
                    chunks = &mut opening => chunks?,
                    () = called.stop() => {
                        let capability = called.instance.plan.capability.clone();
                        return Err(CallError::Cancelled { capability });
                    }
                }
            }
        };
        Ok(Self { open: Some(Open { called, chunks, broken: false, _counted: counted }), runtime })
    }
}

impl Open {
    /// Whether the call is over, after this came of it.
    fn is_over_after(&mut self, item: Option<&Result<Box<RawValue>, CallError>>) -> bool {
        match item {
            None => !self.broken,
            Some(Err(CallError::Connection { .. })) => {
                self.broken = true;
                false
            }
            Some(Err(CallError::Tool { .. } | CallError::Cancelled { .. } | CallError::Died { .. })) => true,
            Some(_) => false,
        }
    }

    /// Reads until the call is over.
    async fn drain(mut self) {
        loop {
            let item = self.chunks.next().await;
            if self.is_over_after(item.as_ref()) {
                return;
            }
            if item.is_none() {
                // Whether it is over is not to be known; the worker's death will do.
                return drop(self.called.worker.death().await);
            }
        }
    }

    /// Brings the call to its end.
    async fn end(self) {
        let called = self.called.clone();
        let _open = called.runner.services.tasks.token();
        let mut drained = pin!(self.drain());
        tokio::select! {
            biased;
            () = &mut drained => return,
            () = called.stop() => {}
        }
        tokio::select! {
            biased;
            () = drained => {}
            // A connection that somebody else holds open is not waited for.
            _ = called.worker.death() => {}
        }
    }
}

impl Stream for StreamedCall {
    type Item = Result<Box<RawValue>, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(open) = &mut self.open else { return Poll::Ready(None) };
        let item = ready!(open.chunks.as_mut().poll_next(context));
        if open.is_over_after(item.as_ref()) {
            self.open = None;
        }
        Poll::Ready(item)
    }
}

impl Drop for StreamedCall {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            self.runtime.spawn(open.end());
        }
    }
}
