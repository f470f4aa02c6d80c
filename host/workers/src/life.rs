//! Accompanies a worker from its spawn to its death: reads its link and its pipes, and when the keeper tells its end,
//! gathers the evidence and has the verdict made. Nothing here sends the worker anything.

use crate::death::{Death, FirstWord};
use crate::flood::Meter;
use crate::frames;
use crate::keeper_client::table::WorkerEnd;
use crate::phase::Phases;
use crate::pump::{Tail, pump};
use crate::redaction::{Redaction, Said};
use crate::sinks::{OutputStreamName, Sinks, StoredLines, StoredRecords};
use cjm_decide::death::{Evidence, OwnKill, verdict};
use cjm_wire::channel::{LoadFailure, Record};
use cjm_wire::frame::SMALL_PAYLOAD_BYTES_MAX;
use cjm_wire::link::{Dropped, LastWords, ProgressReport, ToolExit, to_host};
use cjm_wire::{InstanceId, WorkerSessionId};
use serde::de::DeserializeOwned;
use std::os::fd::OwnedFd;
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

/// The host's end of a link, to read.
pub(crate) struct LinkEnd {
    pub(crate) read: OwnedReadHalf,
    /// A descriptor of its own, to close it for more words while it is read. Without it somebody who holds the other end
    /// would hold the death, so that it is made before the worker is.
    pub(crate) closing: OwnedFd,
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
        link: Option<LinkEnd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
        first_word: oneshot::Sender<FirstWord>,
        death: watch::Sender<Option<Arc<Death>>>,
    ) {
        let (dead_sender, dead) = watch::channel(false);
        let news = Arc::new(Mutex::new(LinkNews::default()));
        let (link, closing) = link.map(|link| (link.read, link.closing)).unzip();
        let link_task = link.map(|link| tokio::spawn(self.link_reader(link, first_word, Arc::clone(&news))));
        let pumps = [
            tokio::spawn(self.pump(stdout, OutputStreamName::Stdout, dead.clone())),
            tokio::spawn(self.pump(stderr, OutputStreamName::Stderr, dead)),
        ];
        let end = end.await.unwrap_or(WorkerEnd { status: None, descendants_killed: 0, clear_ms: 0 });
        // Nobody listens when both pumps have ended.
        let _ = dead_sender.send(true);
        if let Some(link) = closing {
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
            let mut records = StoredRecords { sinks: Arc::clone(&sinks), session: session.clone() };
            let mut meter = Meter::new();
            while let Some(frame) = next_frame(&mut link, &mut meter, &mut records).await {
                let payload = Payload { said: frame.payload, redaction: &redaction };
                match frame.kind {
                    to_host::READY => payload.read().map(|ready| say(FirstWord::Ready(ready))),
                    to_host::LOAD_FAILED => payload.read::<LoadFailure>().map(|failure| {
                        // The tool says it over the link alone, and may have printed nothing.
                        sinks.record(&session, load_failure_record(&failure));
                        news.lock().unwrap_or_else(PoisonError::into_inner).load_failure =
                            Some(failure.clone());
                        say(FirstWord::LoadFailed(failure));
                    }),
                    to_host::RECORD => {
                        payload.read::<Record>().map(|record| meter.take(record, &mut records))
                    }
                    to_host::PROGRESS => {
                        payload.read::<ProgressReport>().map(|report| sinks.progress(&instance, report))
                    }
                    to_host::TOOL_EXIT => payload.read::<ToolExit>().map(|exit| {
                        news.lock().unwrap_or_else(PoisonError::into_inner).tool_exit = Some(exit);
                    }),
                    to_host::LAST_WORDS => payload.read::<LastWords>().map(|words| {
                        news.lock().unwrap_or_else(PoisonError::into_inner).last_words = Some(words);
                    }),
                    to_host::DROPPED => payload.read::<Dropped>().map(|dropped| {
                        meter.count(dropped.records, dropped.job_id.as_deref(), &mut records);
                    }),
                    // A later shim may say more than this host understands.
                    _ => Some(()),
                };
            }
            meter.end(&mut records).await;
        }
    }
}

/// The next frame; None when the link has ended. A flood of records may be over meanwhile, and its last words come.
async fn next_frame(
    link: &mut OwnedReadHalf,
    meter: &mut Meter<StoredRecords>,
    records: &mut StoredRecords,
) -> Option<frames::Frame> {
    let reading = frames::read(link, LINK_PAYLOAD_BYTES_MAX);
    tokio::pin!(reading);
    loop {
        tokio::select! {
            frame = &mut reading => return frame.ok().flatten(),
            () = tokio::time::sleep_until(meter.release_at().into()), if meter.holds() => meter.release(records),
        }
    }
}

fn load_failure_record(failure: &LoadFailure) -> Record {
    Record {
        ts: None,
        level: "ERROR".to_owned(),
        logger_name: "cjm.load".to_owned(),
        message: format!("the tool could not be loaded: {}", failure.message),
        exc_text: failure.traceback.clone(),
        job_id: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::HostEvent;
    use cjm_decide::death::Cause;
    use cjm_platform::fds;
    use cjm_store::{DiagnosticRecord, Diagnostics, DroppedCounts, StreamChunk};
    use cjm_wire::held_back::HELD_BACK_MAX;
    use cjm_wire::link::ExitStatus;
    use serde_json::{Value, json};
    use std::time::Duration;
    use tokio::sync::broadcast;

    const SECRET: &str = "tok-12345678";

    /// Keeps words in memory. Has no room for records that can wait once there are so many, until it is asked to settle.
    #[derive(Debug, Default)]
    struct Words(Mutex<Vec<String>>);

    /// Words for which there is room.
    const ROOM: usize = 100;

    impl Diagnostics for Words {
        fn record(&self, record: DiagnosticRecord) -> bool {
            self.0.lock().expect("lock").push(format!("{record:?}"));
            true
        }

        fn chunk(&self, chunk: StreamChunk) -> bool {
            self.0.lock().expect("lock").push(format!("{}: {}", chunk.stream, chunk.content));
            true
        }

        fn has_room_for_records(&self) -> bool {
            self.0.lock().expect("lock").len() < ROOM
        }

        fn dropped(&self) -> DroppedCounts {
            DroppedCounts::default()
        }

        fn flush(&self) -> futures_util::future::BoxFuture<'static, ()> {
            Box::pin(async {})
        }

        fn close(&self) {}
    }

    /// A life, and what its worker holds of it.
    struct Stage {
        words: Arc<Words>,
        events: broadcast::Receiver<HostEvent>,
        first_word: oneshot::Receiver<FirstWord>,
        death: watch::Receiver<Option<Arc<Death>>>,
        keeper: oneshot::Sender<WorkerEnd>,
        own_kill: Arc<Mutex<Option<OwnKill>>>,
        socket: tempfile::TempPath,
        link: tokio::net::UnixStream,
        stdout: std::fs::File,
        stderr: OwnedFd,
    }

    fn into_stream(fd: OwnedFd) -> tokio::net::UnixStream {
        let stream = std::os::unix::net::UnixStream::from(fd);
        stream.set_nonblocking(true).expect("set");
        tokio::net::UnixStream::from_std(stream).expect("stream")
    }

    fn stage() -> Stage {
        let words = Arc::new(Words::default());
        let (sender, events) = broadcast::channel(16);
        let sinks = Sinks { diagnostics: Arc::<Words>::clone(&words), events: sender };
        let secrets = json!({"TOKEN": SECRET});
        let tail = Tail::default();
        let own_kill = Arc::default();
        let socket = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        let life = Life {
            session: WorkerSessionId::from_text("w"),
            instance: InstanceId::from_text("i"),
            sinks: Arc::new(sinks),
            tail: tail.clone(),
            redaction: Arc::new(Redaction::of(secrets.as_object().expect("an object"))),
            own_kill: Arc::clone(&own_kill),
            phases: Phases::starting(tail),
            socket: socket.to_path_buf(),
        };
        let (here, there) = fds::stream_pair().expect("pair");
        let (stdout, stderr) = (fds::pipe_cloexec().expect("pipe"), fds::pipe_cloexec().expect("pipe"));
        let (keeper, end) = oneshot::channel();
        let (first_sender, first_word) = oneshot::channel();
        let (death_sender, death) = watch::channel(None);
        let closing = here.try_clone().expect("a descriptor");
        let link = Some(LinkEnd { read: into_stream(here).into_split().0, closing });
        tokio::spawn(life.watch(end, link, stdout.read, stderr.read, first_sender, death_sender));
        let (link, stdout, stderr) = (into_stream(there), stdout.write.into(), stderr.write);
        Stage { words, events, first_word, death, keeper, own_kill, socket, link, stdout, stderr }
    }

    async fn say(link: &mut tokio::net::UnixStream, kind: u8, words: Value) {
        frames::write(link, kind, words.to_string().as_bytes()).await.expect("written");
    }

    async fn died(stage: &mut Stage, status: Option<ExitStatus>) -> Arc<Death> {
        let (closed, _) = oneshot::channel();
        let keeper = std::mem::replace(&mut stage.keeper, closed);
        keeper.send(WorkerEnd { status, descendants_killed: 0, clear_ms: 0 }).expect("it listens");
        let told = tokio::time::timeout(Duration::from_secs(20), stage.death.wait_for(Option::is_some)).await;
        told.expect("a death is told").expect("by its life").clone().expect("one")
    }

    #[tokio::test]
    async fn no_word_of_a_worker_shows_a_secret() {
        let mut stage = stage();
        let link = &mut stage.link;
        let record = json!({"level": "INFO", "logger_name": "x", "message": SECRET, "exc_text": SECRET});
        say(link, to_host::RECORD, record).await;
        say(link, to_host::PROGRESS, json!({"job_id": "j", "progress": 0.5, "message": SECRET})).await;
        say(link, to_host::LOAD_FAILED, json!({"message": SECRET, "traceback": SECRET})).await;
        let status = serde_json::to_value(ExitStatus::Code(1)).expect("writes");
        let exit = json!({"pid": 1, "status": status, "calls_running": 0, "protocol_fault": SECRET});
        say(link, to_host::TOOL_EXIT, exit).await;
        std::io::Write::write_all(&mut stage.stdout, format!("{SECRET}\n").as_bytes()).expect("written");
        let death = died(&mut stage, Some(ExitStatus::Code(9))).await;
        let Ok(FirstWord::LoadFailed(failure)) = stage.first_word.await else { panic!("another word") };
        let told = format!("{death:?} {failure:?} {:?} {:?}", stage.words, stage.events.recv().await);
        assert!(!told.contains("tok-"), "{told}");
        // Message and text of the record, progress, the failure's two, its record's two, its cause, fault, two lines.
        assert!(told.matches("[secret]").count() >= 10, "{told}");
    }

    #[tokio::test]
    async fn a_link_that_somebody_else_holds_and_floods_does_not_hold_a_death() {
        let mut stage = stage();
        say(&mut stage.link, to_host::LAST_WORDS, json!({"signal": null, "given": ["j"]})).await;
        let (_, unused) = fds::stream_pair().expect("pair");
        let mut link = std::mem::replace(&mut stage.link, into_stream(unused));
        let flood = tokio::spawn(async move {
            // Until the host's end takes no more.
            while frames::write(&mut link, to_host::PROGRESS, b"{}").await.is_ok() {}
            link
        });
        let death = died(&mut stage, Some(ExitStatus::Code(9))).await;
        assert_eq!(death.given, Some(vec!["j".to_owned()]), "what was said before is heard");
        drop(flood.await.expect("no panic"));
    }

    #[tokio::test]
    async fn all_that_is_known_of_an_end_reaches_its_verdict() {
        let killed = || Some(ExitStatus::Signal(9));
        let exit = |fault: Value| {
            let status = serde_json::to_value(ExitStatus::Code(3)).expect("writes");
            json!({"pid": 1, "status": status, "calls_running": 0, "protocol_fault": fault})
        };
        let mut lost = stage();
        assert_eq!(died(&mut lost, None).await.verdict.cause, Cause::KeeperLost);
        let mut faulty = stage();
        say(&mut faulty.link, to_host::TOOL_EXIT, exit(json!("it spoke out of turn"))).await;
        let cause = died(&mut faulty, killed()).await.verdict.cause.clone();
        assert_eq!(cause, Cause::Protocol { fault: "it spoke out of turn".to_owned() });
        let mut ended = stage();
        say(&mut ended.link, to_host::TOOL_EXIT, exit(Value::Null)).await;
        let cause = died(&mut ended, killed()).await.verdict.cause.clone();
        assert!(matches!(cause, Cause::LoadFailed { .. }), "how its tool ended counts: {cause:?}");
        let mut signalled = stage();
        say(&mut signalled.link, to_host::LAST_WORDS, json!({"signal": 15, "given": []})).await;
        let death = died(&mut signalled, Some(ExitStatus::Code(0))).await;
        assert_eq!(
            (&death.verdict.cause, &death.given),
            (&Cause::Signalled { signal: 15 }, &Some(Vec::new()))
        );
        let mut ours = stage();
        *ours.own_kill.lock().expect("lock") = Some(OwnKill::Evicted);
        assert_eq!(
            died(&mut ours, killed()).await.verdict.cause,
            Cause::HostKill { reason: OwnKill::Evicted }
        );
        assert!(!ours.socket.exists(), "the socket of a dead worker goes");
    }

    #[tokio::test]
    async fn records_that_a_worker_dropped_and_lines_of_both_streams_are_told() {
        let mut stage = stage();
        say(&mut stage.link, 250, json!("a later shim says more")).await;
        say(&mut stage.link, to_host::DROPPED, json!({"records": 7, "job_id": "j"})).await;
        let of_its_own_time =
            json!({"ts": "2020-01-02T03:04:05+00:00", "level": "INFO", "logger_name": "x", "message": "m"});
        say(&mut stage.link, to_host::RECORD, of_its_own_time).await;
        let to_come = json!({"ts": "9998-01-02T03:04:05+00:00", "level": "INFO", "logger_name": "x", "message": "ahead"});
        say(&mut stage.link, to_host::RECORD, to_come).await;
        std::io::Write::write_all(&mut stage.stdout, b"on stdout\n").expect("written");
        rustix::io::write(&stage.stderr, b"on stderr\n").expect("written");
        let death = died(&mut stage, Some(ExitStatus::Code(0))).await;
        let words = stage.words.0.lock().expect("lock").clone();
        for told in ["stdout: on stdout", "stderr: on stderr"] {
            assert!(words.iter().any(|word| word == told), "{words:?}");
        }
        assert!(words.iter().any(|word| word.contains("2020-01-02T03:04:05")), "{words:?}");
        assert!(words.iter().any(|word| word.contains("ahead")), "{words:?}");
        assert!(
            !words.iter().any(|word| word.contains("9998")),
            "a clock that is ahead keeps no row: {words:?}"
        );
        // As a record: whoever asks for those of a job, or of its worker, sees that some are missing.
        let is_told = |word: &String| {
            word.starts_with("DiagnosticRecord")
                && word.contains("[7 log records dropped here")
                && word.contains(r#"job_id: Some("j")"#)
                && word.contains("WARNING")
        };
        assert!(words.iter().any(is_told), "{words:?}");
        assert_eq!(death.stderr_tail.len(), 2, "{:?}", death.stderr_tail);
    }

    #[tokio::test]
    async fn of_records_for_which_the_store_has_no_room_the_last_are_kept_and_the_loss_is_told() {
        let mut stage = stage();
        let record = |level: &str, message: &str| json!({"level": level, "logger_name": "x", "message": message, "job_id": "j"});
        for _ in 0..10 * ROOM {
            say(&mut stage.link, to_host::RECORD, record("INFO", "flood")).await;
        }
        say(&mut stage.link, to_host::RECORD, record("ERROR", "THE CAUSE")).await;
        for _ in 0..10 * ROOM {
            say(&mut stage.link, to_host::RECORD, record("INFO", "flood")).await;
        }
        say(&mut stage.link, to_host::RECORD, record("INFO", "last words")).await;
        died(&mut stage, Some(ExitStatus::Code(0))).await;
        let words = stage.words.0.lock().expect("lock").clone();
        let at = |said: &str| words.iter().position(|word| word.contains(said)).expect(said);
        let dropped = 20 * ROOM + 2 - ROOM - HELD_BACK_MAX - 1;
        assert_eq!(at(&format!("[{dropped} log records dropped here")), ROOM);
        assert_eq!((at("THE CAUSE"), at("last words")), (ROOM + 1, words.len() - 1));
    }

    #[tokio::test]
    async fn the_last_records_of_a_flood_come_when_there_is_room_again() {
        let mut stage = stage();
        let record = |message: &str| json!({"level": "INFO", "logger_name": "x", "message": message});
        for _ in 0..2 * ROOM {
            say(&mut stage.link, to_host::RECORD, record("flood")).await;
        }
        say(&mut stage.link, to_host::RECORD, record("last words")).await;
        let told = async {
            loop {
                let words = std::mem::take(&mut *stage.words.0.lock().expect("lock"));
                if words.iter().any(|word| word.contains("last words")) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), told).await.expect("while the worker lives");
    }
}
