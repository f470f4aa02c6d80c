//! A streamed call, and what becomes of it when its reader goes away before its end: what still comes is read and thrown
//! away, and the call is cancelled as a direct call is, first by asking, then by force. The connection stays open for that:
//! only its end says that the tool has stopped. A call that is not over at its deadline is stopped likewise, whether or not
//! anybody reads.

use crate::deadlines::Limit;
use crate::direct_call::{Called, Calling};
use crate::instances::DirectCallCount;
use bytes::Bytes;
use cjm_decide::queue::NOT_TAKEN_MAX;
use cjm_workers::{CallError, ChunkStream};
use futures_util::stream::Fuse;
use futures_util::{Stream, StreamExt};
use serde_json::value::RawValue;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

/// Results of a call as they come. Dropping it ends the call.
pub(crate) struct StreamedCall {
    open: Arc<Mutex<Slot>>,
    /// Wakes the reader once the call was taken away.
    late: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Where the call is brought to its end.
    runtime: Handle,
}

/// Where the call is, as its reader finds it.
enum Slot {
    Open(Box<Open>),
    /// Its deadline has passed, and it was taken to be brought to its end; its reader is to be told.
    Late(CallError),
    Over,
}

impl Slot {
    /// What was open is taken, and this stands in its place.
    fn take(&mut self, leave: impl FnOnce(&Open) -> Self) -> Option<Box<Open>> {
        let Self::Open(open) = self else { return None };
        let left = leave(open);
        match std::mem::replace(self, left) {
            Self::Open(open) => Some(open),
            Self::Late(_) | Self::Over => None,
        }
    }
}

/// A call that is not over.
struct Open {
    called: Called,
    /// Fused: it is read on after its end where that says nothing.
    chunks: Fuse<ChunkStream>,
    /// The connection has failed, so that nothing that follows says whether the tool has stopped.
    broken: bool,
    /// That it brought no proper end is in the journal.
    told: bool,
    _counted: DirectCallCount,
    /// Nobody need look at the deadline any more.
    _over: DropGuard,
}

impl StreamedCall {
    /// Begins it. Once `abandoned` nobody waits for it.
    pub(crate) async fn open(
        calling: Calling,
        body: Vec<u8>,
        abandoned: CancellationToken,
    ) -> Result<Self, CallError> {
        let limit = calling.limit;
        let (counted, runtime) = (DirectCallCount::on(&calling.instance), calling.runtime.clone());
        let body = Bytes::from(body);
        let mut called = calling.begin(&abandoned).await?;
        let mut attempts_left = NOT_TAKEN_MAX;
        let opened = loop {
            attempts_left -= 1;
            match Self::opened(&called, body.clone(), &abandoned).await {
                // As with a job: nothing of it was done.
                Err(CallError::NotTaken { .. }) if attempts_left > 0 && !abandoned.is_cancelled() => {
                    called = called.again(&runtime).begin(&abandoned).await?;
                }
                opened => break opened,
            }
        };
        let chunks = opened.inspect_err(|error| called.tell(error, abandoned.is_cancelled()))?;
        let (late, over) = (CancellationToken::new(), CancellationToken::new());
        let ended = over.clone();
        let open = Open {
            called,
            chunks: chunks.fuse(),
            broken: false,
            told: false,
            _counted: counted,
            _over: over.drop_guard(),
        };
        let open = Arc::new(Mutex::new(Slot::Open(Box::new(open))));
        tokio::spawn(stop_at(limit, Arc::clone(&open), late.clone(), ended, runtime.clone()));
        Ok(Self { open, late: Box::pin(late.cancelled_owned()), runtime })
    }

    async fn opened(
        called: &Called,
        body: Bytes,
        abandoned: &CancellationToken,
    ) -> Result<ChunkStream, CallError> {
        let mut opening = Arc::clone(&called.worker).stream(body);
        tokio::select! {
            biased;
            chunks = &mut opening => chunks.map_err(|error| called.instance.told(error, false)),
            // Nobody takes what comes of it, so that is dropped, and ended.
            () = abandoned.cancelled() => tokio::select! {
                biased;
                chunks = &mut opening => chunks,
                () = called.stop() => opening.await,
            },
        }
    }
}

/// Takes a call away from its reader that is not over in time. What its tool has still to say is read, so that one that
/// stops when it is asked, or had ended long before, is known to be over.
async fn stop_at(
    limit: Limit,
    open: Arc<Mutex<Slot>>,
    late: CancellationToken,
    over: CancellationToken,
    runtime: Handle,
) {
    tokio::select! {
        biased;
        () = over.cancelled() => {}
        () = tokio::time::sleep_until(limit.at) => {
            let taken = locked(&open).take(|open| Slot::Late(open.called.late()));
            // Whoever is woken may look at once.
            late.cancel();
            bring_to_end(taken, &runtime);
        }
    }
}

/// Brings a call to its end where its reader does not wait for it; the host does.
fn bring_to_end(open: Option<Box<Open>>, runtime: &Handle) {
    if let Some(open) = open {
        let tasks = open.called.runner.services.tasks.clone();
        tasks.spawn_on(open.end(), runtime);
    }
}

fn locked(open: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Writes, once, that it brought no proper end.
    fn tell(&mut self, error: &CallError, was_taken_away: bool) {
        if !std::mem::replace(&mut self.told, true) {
            self.called.tell(error, was_taken_away);
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
    async fn end(mut self) {
        let called = self.called.clone();
        self.tell(&called.cancelled(), true);
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
        let this = &mut *self;
        // Before the look: what is taken away after it wakes who waits.
        let _ = this.late.as_mut().poll(context);
        let mut slot = locked(&this.open);
        let open = match &mut *slot {
            Slot::Open(open) => open,
            Slot::Late(_) | Slot::Over => {
                let last = match std::mem::replace(&mut *slot, Slot::Over) {
                    Slot::Late(error) => Some(Err(error)),
                    Slot::Open(_) | Slot::Over => None,
                };
                return Poll::Ready(last);
            }
        };
        let item = ready!(open.chunks.poll_next_unpin(context));
        // A reader asks for the end by going away, and in no other way.
        let item = item.map(|item| item.map_err(|error| open.called.instance.told(error, false)));
        if let Some(Err(error)) = &item {
            open.tell(error, false);
        }
        if open.is_over_after(item.as_ref()) {
            *slot = Slot::Over;
        }
        Poll::Ready(item)
    }
}

impl Drop for StreamedCall {
    fn drop(&mut self) {
        let taken = locked(&self.open).take(|_| Slot::Over);
        bring_to_end(taken, &self.runtime);
    }
}
