//! Accompanies a worker from its spawn to its death: reads its link and its pipes, and when the keeper tells its end,
//! gathers the evidence and has the verdict made. Nothing here sends the worker anything.

use crate::death::{Death, FirstWord};
use crate::frames;
use crate::keeper_client::WorkerEnd;
use crate::phase::Phases;
use crate::pump::{Tail, pump};
use crate::redaction::{Redaction, Said};
use crate::sinks::{OutputStreamName, Sinks, StoredLines};
use cjm_decide::death::{Evidence, OwnKill, verdict};
use cjm_wire::channel::{LoadFailure, Record};
use cjm_wire::frame::SMALL_PAYLOAD_BYTES_MAX;
use cjm_wire::link::{LastWords, ProgressReport, ToolExit, to_host};
use cjm_wire::{InstanceId, WorkerSessionId};
use serde::de::DeserializeOwned;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{oneshot, watch};

/// Largest frame on the host link.
const LINK_PAYLOAD_BYTES_MAX: usize = 4 * SMALL_PAYLOAD_BYTES_MAX;

/// The task that accompanies a worker to its end.
pub(crate) struct Life {
    pub(crate) session: WorkerSessionId,
    pub(crate) instance: InstanceId,
    pub(crate) sinks: Arc<Sinks>,
    pub(crate) tail: Tail,
    pub(crate) redaction: Arc<Redaction>,
    pub(crate) own_kill: Arc<Mutex<Option<OwnKill>>>,
    pub(crate) phases: Phases,
    pub(crate) socket: PathBuf,
}

#[derive(Default)]
struct LinkNews {
    tool_exit: Option<ToolExit>,
    last_words: Option<LastWords>,
    load_failure: Option<LoadFailure>,
}

impl Life {
    pub(crate) async fn watch(
        self,
        end: oneshot::Receiver<WorkerEnd>,
        link: Option<OwnedReadHalf>,
        stdout: OwnedFd,
        stderr: OwnedFd,
        first_word: oneshot::Sender<FirstWord>,
        death: watch::Sender<Option<Arc<Death>>>,
    ) {
        let (dead_sender, dead) = watch::channel(false);
        let news = Arc::new(Mutex::new(LinkNews::default()));
        // A descriptor of its own, to close it for more words while it is read.
        let link_end = link.as_ref().and_then(|link| link.as_ref().as_fd().try_clone_to_owned().ok());
        let link_task = link.map(|link| tokio::spawn(self.link_reader(link, first_word, Arc::clone(&news))));
        let pumps = [
            tokio::spawn(self.pump(stdout, OutputStreamName::Stdout, dead.clone())),
            tokio::spawn(self.pump(stderr, OutputStreamName::Stderr, dead)),
        ];
        let end = end.await.unwrap_or(WorkerEnd { status: None, descendants_killed: 0, clear_ms: 0 });
        // Nobody listens when both pumps have ended.
        let _ = dead_sender.send(true);
        if let Some(link) = link_end {
            // What was said until now is read, and then it ends, whoever else holds the other end. An error means that it
            // has ended.
            let _ = rustix::net::shutdown(&link, rustix::net::Shutdown::Read);
        }
        for task in pumps.into_iter().chain(link_task) {
            // A panicking pump must not hide the death it accompanied.
            let _ = task.await;
        }
        // The path is of no use any more; the runtime directory is wiped at the next start anyway.
        let _ = std::fs::remove_file(&self.socket);
        let LinkNews { tool_exit, last_words, load_failure } =
            std::mem::take(&mut *news.lock().unwrap_or_else(PoisonError::into_inner));
        let stderr_tail = self.tail.lines();
        let (phase, since_phase_began, memory) = self.phases.at_death();
        let evidence = Evidence {
            protocol_fault: tool_exit.as_ref().and_then(|exit| exit.protocol_fault.clone()),
            own_kill: self.own_kill.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            signalled: last_words.as_ref().and_then(|words| words.signal),
            keeper_lost: end.status.is_none(),
            worker: end.status,
            tool: tool_exit.as_ref().map(|exit| exit.status),
            load_failure: load_failure.map(|failure| failure.message),
            memory,
            ..Evidence::new(phase, since_phase_began)
        };
        let verdict = verdict(&evidence);
        let given = last_words.and_then(|words| words.given);
        death.send_replace(Some(Arc::new(Death { end, tool_exit, given, verdict, stderr_tail })));
    }

    fn pump(
        &self,
        pipe: OwnedFd,
        stream: OutputStreamName,
        dead: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (sinks, session, tail) = (Arc::clone(&self.sinks), self.session.clone(), self.tail.clone());
        // The tail of an error is what the tool complained of, and programs complain on either stream.
        let redaction = Arc::clone(&self.redaction);
        let store = StoredLines { sinks, session, stream };
        async move { pump(pipe, tail, redaction, dead, store).await }
    }

    fn link_reader(
        &self,
        mut link: OwnedReadHalf,
        first_word: oneshot::Sender<FirstWord>,
        news: Arc<Mutex<LinkNews>>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (sinks, session, instance) =
            (Arc::clone(&self.sinks), self.session.clone(), self.instance.clone());
        let redaction = Arc::clone(&self.redaction);
        async move {
            let mut first_word = Some(first_word);
            let mut say = |word: FirstWord| {
                if let Some(sender) = first_word.take() {
                    // The start may have been given up meanwhile.
                    let _ = sender.send(word);
                }
            };
            while let Ok(Some(frame)) = frames::read(&mut link, LINK_PAYLOAD_BYTES_MAX).await {
                let payload = Payload { said: frame.payload, redaction: &redaction };
                match frame.kind {
                    to_host::READY => payload.read().map(|ready| say(FirstWord::Ready(ready))),
                    to_host::LOAD_FAILED => payload.read::<LoadFailure>().map(|failure| {
                        news.lock().unwrap_or_else(PoisonError::into_inner).load_failure =
                            Some(failure.clone());
                        say(FirstWord::LoadFailed(failure));
                    }),
                    to_host::RECORD => {
                        payload.read::<Record>().map(|record| sinks.record(&session, record))
                    }
                    to_host::PROGRESS => payload.read::<ProgressReport>()
                        .map(|report| sinks.progress(&instance, report)),
                    to_host::TOOL_EXIT => payload.read::<ToolExit>().map(|exit| {
                        news.lock().unwrap_or_else(PoisonError::into_inner).tool_exit = Some(exit);
                    }),
                    to_host::LAST_WORDS => payload.read::<LastWords>().map(|words| {
                        news.lock().unwrap_or_else(PoisonError::into_inner).last_words = Some(words);
                    }),
                    to_host::DROPPED => payload.read::<cjm_wire::link::Dropped>().map(|dropped| {
                        sinks.chunk(
                            &session,
                            OutputStreamName::Stderr,
                            &format!("[{} log records dropped here]", dropped.records),
                        );
                    }),
                    // A later shim may say more than this host understands.
                    _ => Some(()),
                };
            }
        }
    }
}

/// Of a frame.
struct Payload<'r> {
    said: Said,
    redaction: &'r Redaction,
}

impl Payload<'_> {
    fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let read = self.redaction.read(&self.said);
        read.inspect_err(|error| tracing::warn!(%error, "a link frame cannot be read")).ok()
    }
}
