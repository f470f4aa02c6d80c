//! One worker whose keeper, socket, link and death are this test's to play.

use super::*;
use crate::death::Death;
use crate::keeper_client::tests::Mute;
use crate::redaction::Redaction;
use cjm_decide::death::{Evidence, SincePhaseBegan, verdict};
use cjm_platform::fds;
use cjm_wire::keeper::HostToKeeper;
use cjm_wire::link::WorkerReady;
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// More than anything here may take, on a clock that moves when nothing else does.
const LONG: Duration = Duration::from_secs(60);

struct Stage {
    worker: Arc<ProcessWorker>,
    mute: Mute,
    dying: watch::Sender<Option<Arc<Death>>>,
    link: UnixStream,
    listener: UnixListener,
    _dir: tempfile::TempDir,
}

fn into_stream(fd: OwnedFd) -> UnixStream {
    let stream = std::os::unix::net::UnixStream::from(fd);
    stream.set_nonblocking(true).unwrap();
    UnixStream::from_std(stream).unwrap()
}

/// Of a worker `w` of the capability `t`, and who says that it is dead.
pub(crate) fn common_of(
    mute: &Mute,
    socket: &std::path::Path,
    calls_have_tails: bool,
) -> (Common, watch::Sender<Option<Arc<Death>>>) {
    let (dying, death) = watch::channel(None);
    let tail = Tail::default();
    tail.push("its last line");
    let common = Common {
        session: WorkerSessionId::from_text("w"),
        capability: "t".to_owned(),
        keeper: Arc::clone(&mute.keeper),
        death,
        own_kill: Arc::default(),
        phases: Phases::starting(tail.clone()),
        tail,
        calls_have_tails,
        unset: vec![Missing {
            name: "WORDS_TOKEN".to_owned(),
            secret: true,
            manifest: "/m.json".into(),
            of_others: None,
        }],
        socket: socket.to_owned(),
    };
    (common, dying)
}

fn stage(calls_have_tails: bool) -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let mute = Mute::new();
    let (common, dying) = common_of(&mute, &socket, calls_have_tails);
    let session = common.session.clone();
    let (here, there) = fds::stream_pair().unwrap();
    let ready = WorkerReady {
        tool_pid: None,
        name: "t".to_owned(),
        version: "1".to_owned(),
        supports: Vec::new(),
        concurrency_max: 0,
    };
    let facts = WorkerFacts { session, pid: 1, ready, wait_seconds: 0.0, drifted: Vec::new(), genuine: None };
    let proxy = Proxy::new("t", &socket, Arc::new(Redaction::default())).unwrap();
    let link = Some(tokio::sync::Mutex::new(into_stream(here).into_split().1));
    let unsent = UnsentCalls::default();
    let worker = Arc::new(ProcessWorker { common, facts, proxy, link, jobs: None, unsent });
    Stage { worker, mute, dying, link: into_stream(there), listener, _dir: dir }
}

fn a_death(given: Option<&[&str]>) -> Option<Arc<Death>> {
    let since = SincePhaseBegan { output: Vec::new(), elapsed_ms: 0 };
    let death = Death::told(verdict(&Evidence::new(LifePhase::Idle, since)), Vec::new());
    let given = given.map(|given| given.iter().map(|job| (*job).to_owned()).collect());
    Some(Arc::new(Death { given, ..death }))
}

fn request(job: &str) -> Bytes {
    json!({"args": [], "kwargs": {}, "envelope": {"job_id": job}}).to_string().into()
}

impl Stage {
    fn own_kill(&self) -> Option<OwnKill> {
        self.worker.common.own_kill.lock().unwrap().clone()
    }

    /// Takes one request; the connection stays open as long as what is returned.
    async fn take(&self) -> UnixStream {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream
    }

    async fn fails_with(&self, status: u16, body: Value) -> CallError {
        let body = body.to_string();
        let answer = async {
            let mut stream = self.take().await;
            let head = format!(
                "HTTP/1.1 {status} It\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        };
        let (told, ()) = tokio::join!(self.worker.call(http::EXECUTE, request("j")), answer);
        told.expect_err("a failure")
    }
}

pub(crate) fn is_kill_of(heard: &HostToKeeper, expected: &str) -> bool {
    matches!(heard, HostToKeeper::Kill { worker } if worker == expected)
}

#[tokio::test(start_paused = true)]
async fn a_question_without_an_answer_ends_in_time() {
    let stage = stage(false);
    let begun = Instant::now();
    let asked = tokio::time::timeout(LONG, stage.worker.question(http::STATS)).await;
    assert_eq!(asked.expect("it gives up"), None);
    let job = JobId::from_text("j");
    tokio::time::timeout(LONG, stage.worker.cancel(&job)).await.expect("it gives up");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_the_answer_of_a_dead_worker() {
    let stage = stage(false);
    stage.dying.send_replace(a_death(None));
    assert!(stage.worker.is_dead());
    let begun = Instant::now();
    let called = tokio::time::timeout(LONG, stage.worker.call(http::EXECUTE, request("j"))).await;
    assert!(
        matches!(called, Ok(Err(CallError::Died { .. }))),
        "its socket takes the request, and says nothing"
    );
    let opened = tokio::time::timeout(LONG, Arc::clone(&stage.worker).stream(request("j"))).await;
    assert!(matches!(opened, Ok(Err(CallError::Died { .. }))));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_a_dead_worker_had_not_begun_is_told_as_that() {
    let stage = stage(false);
    stage.dying.send_replace(a_death(Some(&["begun"])));
    for (job, is_told) in [("begun", false), ("waiting", true)] {
        for broken in [true, false] {
            let take = async {
                let stream = stage.take().await;
                (!broken).then_some(stream)
            };
            let (told, _open) = tokio::join!(stage.worker.call(http::EXECUTE, request(job)), take);
            let told = told.expect_err("it is dead");
            assert_eq!(
                matches!(told, CallError::NotTaken { others: true, .. }),
                is_told,
                "{job} {broken}: {told}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_waits_for_the_news_of_a_death_and_not_for_ever() {
    let stage = stage(false);
    for dies in [false, true] {
        let call = tokio::time::timeout(LONG, stage.worker.call(http::EXECUTE, request("j")));
        let breaks = async {
            drop(stage.take().await);
            if dies {
                tokio::time::sleep(DEATH_NEWS_MAX / 2).await;
                stage.dying.send_replace(a_death(None));
            }
        };
        let (told, ()) = tokio::join!(call, breaks);
        let told = told.expect("it ends").expect_err("it failed");
        assert!(
            matches!((&told, dies), (CallError::Connection { .. }, false) | (CallError::Died { .. }, true)),
            "{told}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_socket_was_removed_is_ended_by_the_call_that_does_not_reach_it() {
    let mut stage = stage(false);
    let worker = Arc::clone(&stage.worker);
    std::fs::remove_file(&worker.common.socket).unwrap();
    // Nor can it be called by what somebody has put there.
    std::fs::write(&worker.common.socket, "").unwrap();
    // Two that find it so at one moment hold each other up in nothing.
    let calls = ["j", "k"].map(|job| worker.call(http::EXECUTE, request(job)));
    let obeys = async {
        let asked = frames::read(&mut stage.link, 4096).await.unwrap().expect("a request");
        assert_eq!((asked.kind, stage.own_kill()), (to_shim::SHUTDOWN, Some(OwnKill::SocketGone)));
        let request: Value = Redaction::default().read(&asked.payload).unwrap();
        assert_eq!(request["grace_ms"], 2_000, "it may clean up");
        stage.dying.send_replace(a_death(None));
    };
    let called =
        async { tokio::join!(tokio::time::timeout(LONG, futures_util::future::join_all(calls)), obeys) };
    let (told, ()) = tokio::time::timeout(LONG, called).await.expect("it is asked to end");
    for told in told.expect("they end") {
        assert!(matches!(told, Err(CallError::NotTaken { others: false, .. })), "{told:?}");
    }
}

const ENDED_WELL: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

#[tokio::test(start_paused = true)]
async fn a_worker_whose_socket_was_removed_stays_while_a_call_may_end_well_and_who_came_too_late_waits() {
    let mut stage = stage(false);
    let worker = Arc::clone(&stage.worker);
    let mut first = worker.call(http::EXECUTE, request("j"));
    let mut taken = tokio::select! {
        _ = &mut first => panic!("nobody answers yet"),
        taken = stage.take() => taken,
    };
    std::fs::remove_file(&worker.common.socket).unwrap();
    let mut late = ["k", "l"].map(|job| worker.call(http::EXECUTE, request(job)));
    let mut streamed = Arc::clone(&worker).stream(request("s"));
    let waited = tokio::time::timeout(LONG, async {
        tokio::select! {
            _ = futures_util::future::select_all(&mut late) => panic!("told before the first one has ended"),
            _ = &mut streamed => panic!("told before the first one has ended"),
        }
    });
    assert!(waited.await.is_err() && stage.own_kill().is_none(), "it is left to its call");
    taken.write_all(ENDED_WELL).await.unwrap();
    let ends = async {
        let asked = frames::read(&mut stage.link, 4096).await.unwrap().expect("a request");
        assert_eq!((asked.kind, stage.own_kill()), (to_shim::SHUTDOWN, Some(OwnKill::SocketGone)));
        stage.dying.send_replace(a_death(None));
    };
    let ended = async {
        assert_eq!(first.await.expect("it ended well").body, "{}");
        // Its connection is free now; who comes later is sent nothing over it.
        let later = worker.call(http::EXECUTE, request("m"));
        tokio::join!(later, ends)
    };
    let called = async { tokio::join!(ended, futures_util::future::join_all(late), streamed) };
    let ((later, ()), late, streamed) = tokio::time::timeout(LONG, called).await.expect("they end with it");
    for told in late.into_iter().chain([later]) {
        assert!(matches!(told, Err(CallError::NotTaken { others: false, .. })), "{told:?}");
    }
    assert!(matches!(streamed, Err(CallError::NotTaken { .. })));
    let read = taken.try_read(&mut [0; 64]);
    assert!(
        matches!(read, Err(ref error) if error.kind() == std::io::ErrorKind::WouldBlock),
        "{read:?} was sent"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_another_worker_ends_when_it_is_cancelled_or_the_worker_dies() {
    let mut stage = stage(false);
    let worker = Arc::clone(&stage.worker);
    let mut first = worker.call(http::EXECUTE, request("j"));
    let taken = tokio::select! {
        _ = &mut first => panic!("nobody answers"),
        taken = stage.take() => taken,
    };
    std::fs::remove_file(&worker.common.socket).unwrap();
    let cancelled = worker.call(http::EXECUTE, request("k"));
    let streamed = Arc::clone(&worker).stream(request("s"));
    let mut waits = worker.call(http::EXECUTE, request("l"));
    let cancels = async {
        tokio::time::sleep(2 * DEATH_NEWS_MAX).await;
        worker.cancel(&JobId::from_text("k")).await;
        worker.cancel(&JobId::from_text("s")).await;
    };
    let ended = tokio::time::timeout(LONG, async { tokio::join!(cancelled, streamed, cancels) });
    let (told, streamed, ()) = tokio::select! {
        told = ended => told.expect("it ends"),
        told = &mut waits => panic!("{told:?}"),
    };
    assert!(matches!(told, Err(CallError::Cancelled { .. })), "{told:?}");
    assert!(matches!(streamed, Err(CallError::Cancelled { .. })));
    assert_eq!(stage.own_kill(), None, "its worker has a call that may end well");
    // The tool hears of it over the link: nothing else leads there.
    worker.cancel(&JobId::from_text("j")).await;
    for job in ["k", "s", "j"] {
        let asked = tokio::time::timeout(LONG, frames::read(&mut stage.link, 4096)).await;
        let asked = asked.expect("it is asked").unwrap().expect("a request");
        let request: Value = Redaction::default().read(&asked.payload).unwrap();
        assert_eq!((asked.kind, request), (to_shim::CANCEL, json!({"job_id": job})));
    }
    // Its death breaks the connection before it is told; the host has not ended it.
    drop(taken);
    let dies = async {
        tokio::time::sleep(DEATH_NEWS_MAX / 2).await;
        stage.dying.send_replace(a_death(Some(&["j"])));
    };
    let (first, waits, ()) = tokio::join!(first, waits, dies);
    assert!(matches!(first, Err(CallError::Died { .. })), "{first:?}");
    assert!(matches!(waits, Err(CallError::NotTaken { others: true, .. })), "{waits:?}");
    assert_eq!(stage.own_kill(), None);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_cancelled_waits_for_no_other_worker_and_nobody_for_ever() {
    let stage = stage(false);
    let mut first = stage.worker.call(http::EXECUTE, request("j"));
    let _taken = tokio::select! {
        _ = &mut first => panic!("nobody answers"),
        taken = stage.take() => taken,
    };
    std::fs::remove_file(&stage.worker.common.socket).unwrap();
    for (body, waits_max) in [(Bytes::new(), 2 * DEATH_NEWS_MAX), (request("k"), Duration::from_secs(3_600))]
    {
        let begun = Instant::now();
        let told = tokio::time::timeout(waits_max, stage.worker.call(http::GET_SYSTEM_STATUS, body)).await;
        let told = told.expect("it does not wait on").expect_err("it was not sent");
        assert!(
            matches!(&told, CallError::Connection { message, .. } if message.contains(NO_SOCKET)),
            "{told}"
        );
        assert_eq!(begun.elapsed() >= LAST_CALL_MAX, waits_max > LONG);
    }
    assert_eq!(stage.own_kill(), None);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_does_not_stop_the_end_of_a_worker_without_a_socket() {
    let mut stage = stage(false);
    let worker = Arc::clone(&stage.worker);
    std::fs::remove_file(&worker.common.socket).unwrap();
    let called = worker.call(http::EXECUTE, request("j"));
    let obeys = async {
        let asked = frames::read(&mut stage.link, 4096).await.unwrap().expect("a request");
        assert_eq!(asked.kind, to_shim::SHUTDOWN);
        worker.cancel(&JobId::from_text("j")).await;
        tokio::time::sleep(NO_SOCKET_GRACE / 2).await;
        stage.dying.send_replace(a_death(None));
    };
    let (told, ()) =
        tokio::time::timeout(LONG, async { tokio::join!(called, obeys) }).await.expect("it ends");
    assert!(matches!(told, Err(CallError::NotTaken { .. })), "{told:?}");
}

#[tokio::test]
async fn a_stream_counts_as_a_call_before_it_is_answered_and_until_it_is_dropped() {
    let stage = stage(false);
    stage.worker.common.phases.set(LifePhase::Idle);
    let phase = || stage.worker.common.phases.at_death().0;
    let mut opening = Arc::clone(&stage.worker).stream(request("j"));
    let mut taken = tokio::select! {
        _ = &mut opening => panic!("nobody answers yet"),
        taken = stage.take() => taken,
    };
    assert_eq!(phase(), LifePhase::Calling);
    taken.write_all(b"HTTP/1.1 200 OK\r\n\r\n1\n").await.unwrap();
    let mut stream = opening.await.unwrap();
    assert_eq!(stream.next().await.expect("a line").unwrap().get(), "1");
    assert_eq!(phase(), LifePhase::Calling);
    drop(stream);
    assert_eq!(phase(), LifePhase::Idle);
}

/// It was sent: whether its tool did it nobody knows.
#[tokio::test(start_paused = true)]
async fn a_call_whose_connection_broke_where_the_socket_was_removed_is_told_so() {
    let stage = stage(false);
    let first = stage.worker.call(http::EXECUTE, request("j"));
    let second = stage.worker.call(http::EXECUTE, request("k"));
    let breaks = async {
        let mut taken = stage.take().await;
        drop(stage.take().await);
        std::fs::remove_file(&stage.worker.common.socket).unwrap();
        tokio::time::sleep(2 * DEATH_NEWS_MAX).await;
        taken.write_all(ENDED_WELL).await.unwrap();
        taken
    };
    let (first, second, _open) = tokio::join!(first, second, breaks);
    let told = match (first, second) {
        (Ok(reply), Err(told)) | (Err(told), Ok(reply)) if reply.body == "{}" => told,
        (first, second) => panic!("{first:?} {second:?}"),
    };
    let is_told = |message: &str| message.contains(NO_SOCKET);
    assert!(matches!(&told, CallError::Connection { message, .. } if is_told(message)), "{told}");
    assert_eq!(stage.own_kill(), None);
}

#[tokio::test]
async fn a_tools_last_lines_come_with_each_failure_of_a_call_that_it_saw() {
    let failure = |category: &str, traceback: Value| {
        json!({"_job_error": {"category": category, "message": "m", "retriable": false, "original_exc_repr": "E()",
            "traceback": traceback}})
    };
    let of_worker = stage(false);
    for category in ["user_input", "fatal", "resource", "transient"] {
        let told = of_worker.fails_with(500, failure(category, Value::Null)).await;
        assert_eq!(told.stderr_tail().len(), 1, "{category}");
    }
    for class in ["Unfit('x')", "WrongConfiguration('x')"] {
        let mut refused = failure("user_input", Value::Null);
        refused["_job_error"]["original_exc_repr"] = json!(class);
        assert_eq!(of_worker.fails_with(500, refused).await.stderr_tail().len(), 0, "{class}");
    }
    let told = of_worker.fails_with(500, json!("no answer of the contract")).await;
    assert_eq!(told.stderr_tail(), ["its last line"]);
    // Where each call is a program, its words come with its failure.
    let of_program = stage(true);
    let told = of_program.fails_with(500, failure("fatal", json!("one\ntwo"))).await;
    assert_eq!(told.stderr_tail(), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn an_unload_is_noted_before_its_worker_hears_of_it_and_one_that_obeys_is_not_killed() {
    let mut stage = stage(false);
    let obeys = async {
        let asked = frames::read(&mut stage.link, 4096).await.unwrap().expect("a request");
        assert_eq!(asked.kind, to_shim::SHUTDOWN);
        let request: Value = Redaction::default().read(&asked.payload).unwrap();
        assert_eq!(request["grace_ms"], 1000);
        assert_eq!(*stage.worker.common.own_kill.lock().unwrap(), Some(OwnKill::Unload));
        assert_eq!(stage.worker.common.phases.at_death().0, LifePhase::Stopping);
        stage.dying.send_replace(a_death(None));
    };
    tokio::join!(stage.worker.unload(Duration::from_secs(1), OwnKill::Unload), obeys);
    stage.worker.common.keeper.kill(&WorkerSessionId::from_text("another"));
    assert!(is_kill_of(&stage.mute.hears(), "another"), "nothing was said of this one before");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_end_when_it_is_asked_is_killed_after_its_grace_at_once_if_it_cannot_be_asked()
{
    let grace = Duration::from_secs(3);
    for is_reachable in [true, false] {
        let Stage { worker, mute, dying: _dying, link, .. } = stage(false);
        let kept = is_reachable.then_some(link);
        let begun = Instant::now();
        tokio::time::timeout(LONG, worker.unload(grace, OwnKill::Evicted)).await.expect("it gives up");
        // Its keeper does not say that it is dead.
        let killed_after = begun.elapsed().saturating_sub(CLEAR_MAX);
        assert!(is_kill_of(&mute.hears(), "w"));
        assert_eq!(killed_after >= grace, is_reachable, "{killed_after:?}");
        assert!(killed_after < grace + Duration::from_secs(1), "{killed_after:?}");
        assert_eq!(*worker.common.own_kill.lock().unwrap(), Some(OwnKill::Evicted));
        drop(kept);
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_has_its_reason_before_it_is_sent_and_a_stopped_keeper_is_not_waited_for() {
    let stage = stage(false);
    let begun = Instant::now();
    stage.worker.kill(OwnKill::Unresponsive).await;
    assert_eq!(stage.own_kill(), Some(OwnKill::Unresponsive));
    assert!(is_kill_of(&stage.mute.hears(), "w"));
    assert!(
        begun.elapsed() <= CLEAR_MAX + Duration::from_secs(1),
        "a keeper that says nothing holds nobody for ever"
    );
    stage.mute.stop().await;
    let begun = Instant::now();
    stage.worker.kill(OwnKill::Evicted).await;
    assert!(begun.elapsed() <= 2 * STOPPED_KEEPER_MAX, "{:?}", begun.elapsed());
    assert_eq!(stage.own_kill(), Some(OwnKill::Unresponsive), "the first reason is why it dies");
}

#[tokio::test(start_paused = true)]
async fn the_ancestors_worker_is_asked_to_clean_up_then_to_end_and_then_is_killed() {
    let grace = Duration::from_secs(3);
    for ends in [true, false] {
        let Stage { worker, mute, dying, listener, _dir, .. } = stage(false);
        let worker = Arc::into_inner(worker).map(|worker| ProcessWorker { link: None, ..worker }).unwrap();
        let begun = Instant::now();
        let unload = tokio::time::timeout(LONG, worker.unload(grace, OwnKill::Unload));
        let ending = async {
            let (mut stream, _) =
                tokio::time::timeout(2 * LONG, listener.accept()).await.expect("it is asked").unwrap();
            let mut request = [0; 64];
            let count = stream.read(&mut request).await.unwrap();
            assert!(request[..count].starts_with(b"POST /cleanup "), "{}", String::from_utf8_lossy(&request));
            if ends {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
                tokio::time::sleep(grace / 2).await;
                dying.send_replace(a_death(None));
            }
            (stream, dying)
        };
        let (unloaded, _open) = tokio::join!(unload, ending);
        assert!(unloaded.is_ok());
        let heard = mute.hears();
        assert!(
            matches!(&heard, HostToKeeper::Signal { worker, signal: SIGTERM } if worker == "w"),
            "{heard:?}"
        );
        if ends {
            assert!(begun.elapsed() < grace, "{:?}", begun.elapsed());
            worker.common.keeper.kill(&WorkerSessionId::from_text("another"));
            assert!(is_kill_of(&mute.hears(), "another"));
        } else {
            assert!(is_kill_of(&mute.hears(), "w"));
            assert!(begun.elapsed() >= 2 * grace, "{:?}", begun.elapsed());
        }
    }
}

#[tokio::test]
async fn of_a_call_that_was_stopped_the_words_are_told_that_came_while_it_ran() {
    let stage = stage(true);
    let (worker, tail) = (Arc::clone(&stage.worker), stage.worker.common.tail.clone());
    let stopped = async {
        let mut stream = stage.take().await;
        tail.push("said meanwhile");
        let answer = b"HTTP/1.1 409 It\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(answer).await.unwrap();
    };
    let (told, ()) = tokio::join!(worker.call(http::EXECUTE, request("j")), stopped);
    let told = told.expect_err("it was stopped");
    assert!(matches!(told, CallError::Cancelled { .. }), "{told:?}");
    assert_eq!(cjm_wire::describe::Described::stderr_tail(&told), ["said meanwhile"]);
}

#[tokio::test]
async fn of_a_call_whose_worker_the_host_ended_the_words_are_told_that_came_while_it_ran() {
    for (own_kill, expected) in [
        (Some(OwnKill::Deadline { job: JobId::from_text("j") }), &["said meanwhile"][..]),
        // Why it died by itself may have been said before.
        (None, &["its last line", "said meanwhile"][..]),
    ] {
        for is_stream in [false, true] {
            let stage = stage(false);
            let (worker, tail) = (Arc::clone(&stage.worker), stage.worker.common.tail.clone());
            let ended = async {
                let _open = stage.take().await;
                tail.push("said meanwhile");
                let since = SincePhaseBegan { output: Vec::new(), elapsed_ms: 0 };
                let evidence =
                    Evidence { own_kill: own_kill.clone(), ..Evidence::new(LifePhase::Calling, since) };
                let death = Death::told(verdict(&evidence), tail.lines());
                stage.dying.send_replace(Some(Arc::new(death)));
            };
            let called = async {
                match is_stream {
                    false => worker.call(http::EXECUTE, request("j")).await.map(drop),
                    true => Arc::clone(&worker).stream(request("j")).await.map(drop),
                }
            };
            let (told, ()) = tokio::join!(called, ended);
            let told = told.expect_err("it is dead");
            assert!(matches!(told, CallError::Died { .. }), "{told:?}");
            assert_eq!(cjm_wire::describe::Described::stderr_tail(&told), expected, "{told}");
        }
    }
}

#[tokio::test]
async fn nothing_that_a_tool_said_is_told_of_a_method_that_it_does_not_have() {
    let stage = stage(false);
    for (status, tail) in [(404, &[][..]), (500, &["its last line"][..])] {
        let told = stage.fails_with(status, json!({"detail": "words"})).await;
        assert!(matches!(told, CallError::BadAnswer { .. }), "{told:?}");
        assert_eq!(cjm_wire::describe::Described::stderr_tail(&told), tail, "{status}");
    }
}
