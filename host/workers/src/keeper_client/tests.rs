//! The host's side against a process in the place of a keeper, which says what a test makes it say.

use super::held::Held;
use super::held::tests::Process;
use super::table::Running;
use super::*;
use cjm_platform::tree::{descendants, process_info};
use cjm_wire::keeper::ExitWord;
use cjm_wire::link::ExitStatus;

/// A process in the place of a keeper, which neither reads nor writes, and its end of the socket. It ends with this.
pub(crate) struct Mute {
    pub(crate) keeper: Arc<Keeper>,
    socket: SeqPacket,
}

impl Mute {
    pub(crate) fn new() -> Self {
        let (keeper, socket) = mute_keeper();
        Self { keeper: Arc::new(keeper), socket }
    }

    /// The next thing it was told; waits for it.
    pub(crate) fn hears(&self) -> HostToKeeper {
        hear(&self.socket)
    }

    /// Stops it, as a debugger would.
    pub(crate) async fn stop(&self) {
        self.keeper.pidfd.send_signal(Signal::STOP).unwrap();
        while !self.keeper.is_stopped() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        let _ = self.keeper.pidfd.send_signal(Signal::KILL);
    }
}

fn mute_keeper() -> (Keeper, SeqPacket) {
    mute_keeper_with("exec sleep 1000")
}

/// It runs this script of the shell.
fn mute_keeper_with(script: &str) -> (Keeper, SeqPacket) {
    let (ours, theirs) = SeqPacket::pair().unwrap();
    let null = cjm_platform::fds::dev_null().unwrap();
    let child = spawn_small("/bin/sh".as_ref(), &["-c".into(), script.into()], &[], null).unwrap();
    let writer = ours.try_clone().unwrap();
    (Keeper::serve(Unready(Some(child)), ours, writer).unwrap(), theirs)
}

fn spawn_request(worker: &str) -> SpawnWorker {
    SpawnWorker {
        worker: worker.to_owned(),
        program: "/bin/true".to_owned(),
        argv: Vec::new(),
        env: Vec::new(),
        cwd: "/".to_owned(),
        fd_targets: Vec::new(),
        dies_with_keeper: false,
    }
}

/// Processes that end with this.
struct Killed(Vec<PidFd>);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.iter().for_each(|pidfd| drop(pidfd.send_signal(Signal::KILL)));
    }
}

/// A keeper with one worker, which has a child of its own, and with one more process below it; the worker's process; and all
/// below the keeper.
fn keeper_of_one_worker() -> (Keeper, SeqPacket, Pid, Killed) {
    let script = "sleep 1001 & sh -c 'sleep 1002 & exec sleep 1003' & exec sleep 1004";
    let (keeper, theirs) = mute_keeper_with(script);
    let worker = loop {
        let below = descendants(keeper.pid).unwrap();
        match below.iter().find(|info| info.ppid != keeper.pid.as_raw()) {
            Some(deepest) if below.len() == 3 => break Pid::from_raw(deepest.ppid).unwrap(),
            _ => std::thread::yield_now(),
        }
    };
    let below = descendants(keeper.pid).unwrap();
    let killed = Killed(below.iter().map(|info| PidFd::open(info.pid).unwrap()).collect());
    (keeper, theirs, worker, killed)
}

/// Asks for a worker and answers with this process.
async fn spawned(keeper: &Keeper, theirs: &SeqPacket, pid: Pid) -> SpawnedWorker {
    let answer = async {
        tokio::task::yield_now().await;
        assert!(matches!(hear(theirs), HostToKeeper::Spawn(_)));
        say(theirs, &KeeperToHost::Spawned { worker: "w".to_owned(), pid: pid.as_raw() });
    };
    tokio::join!(keeper.spawn(spawn_request("w"), Vec::new()), answer).0.unwrap()
}

/// A start is refused without being sent, and the next one gets another keeper.
async fn refused_at_once(keeper: &Keeper) {
    let start = keeper.spawn(spawn_request("late"), Vec::new());
    let refusal = tokio::time::timeout(KEEPER_STOPPED_MAX / 2, start).await.expect("at once");
    assert_eq!(refusal.err().unwrap().message, "the keeper is gone");
    assert!(keeper.is_gone());
}

fn hear(socket: &SeqPacket) -> HostToKeeper {
    match socket.recv_timeout(KEEPER_ANSWER_MAX).unwrap() {
        Some(Received::Message(message)) => serde_json::from_slice(&message.bytes).unwrap(),
        other => panic!("instead of a message came {other:?}"),
    }
}

fn say(socket: &SeqPacket, message: &KeeperToHost) {
    socket.send(&serde_json::to_vec(message).unwrap(), &[]).unwrap();
}

#[tokio::test]
async fn what_a_stopped_keeper_does_not_read_is_refused_with_what_to_do() {
    const REQUESTS: usize = 100_000;
    let (keeper, _theirs) = mute_keeper();
    keeper.pidfd.send_signal(Signal::STOP).unwrap();
    while !keeper.is_stopped() {
        tokio::task::yield_now().await;
    }
    let request = || keeper.request(HostToKeeper::Kill { worker: "w".to_owned() }, Vec::new());
    let refusal = (0..REQUESTS).find_map(|_| request().err()).expect("the queue has a maximum");
    let pid = keeper.pid();
    assert!(refusal.message.contains(&format!("process {pid}")), "{refusal:?}");
    assert!(refusal.message.contains("it is stopped"), "{refusal:?}");
    assert!(refusal.next_step.contains(&format!("kill -CONT {pid}")), "{refusal:?}");
    let start = keeper.spawn(spawn_request("late"), Vec::new()).await;
    assert!(start.is_err_and(|refusal| refusal.next_step.contains("kill -CONT")), "not even tried");
    let start = Instant::now();
    assert!(!keeper.shutdown().await, "nobody confirms that all is cleared");
    assert!(start.elapsed() < KEEPER_END_MAX, "a stopped one is not waited for as long");
    // Its socket is still open here, as if by another process; the process itself is gone.
    assert!(keeper.pidfd.wait_exit(KEEPER_KILLED_MAX).unwrap());
}

#[tokio::test]
async fn a_worker_that_nobody_waits_for_any_more_is_killed() {
    let (keeper, theirs) = mute_keeper();
    let abandoned =
        tokio::time::timeout(Duration::from_millis(20), keeper.spawn(spawn_request("abandoned"), Vec::new()));
    assert!(abandoned.await.is_err(), "nobody answers");
    assert!(matches!(hear(&theirs), HostToKeeper::Spawn(_)));
    say(&theirs, &KeeperToHost::Spawned { worker: "abandoned".to_owned(), pid: 7 });
    assert_eq!(hear(&theirs), HostToKeeper::Kill { worker: "abandoned".to_owned() });
    let _ = keeper.pidfd.send_signal(Signal::KILL);
}

#[tokio::test]
async fn the_workers_of_a_keeper_that_was_told_to_end_are_lost_with_it() {
    let (keeper, theirs) = mute_keeper();
    let start = keeper.spawn(spawn_request("w"), Vec::new());
    let answer = async {
        tokio::task::yield_now().await;
        assert!(matches!(hear(&theirs), HostToKeeper::Spawn(_)));
        say(&theirs, &KeeperToHost::Spawned { worker: "w".to_owned(), pid: 7 });
    };
    let (spawned, ()) = tokio::join!(start, answer);
    let spawned = spawned.unwrap();
    say(&theirs, &KeeperToHost::Ending { cause: "told to".to_owned() });
    let killed = ExitWord::Signaled { signal: 9, core_dumped: false };
    say(
        &theirs,
        &KeeperToHost::Exited {
            worker: "w".to_owned(),
            pid: 7,
            status: killed,
            descendants_killed: 1,
            clear_ms: 2,
            survivors: Vec::new(),
        },
    );
    let end = spawned.end.await.unwrap();
    assert_eq!(end, WorkerEnd { status: None, descendants_killed: 1, clear_ms: 2 });
    assert!(keeper.is_gone(), "the next start gets another keeper");
    refused_at_once(&keeper).await;
    let _ = keeper.pidfd.send_signal(Signal::KILL);
}

#[tokio::test]
async fn the_end_of_a_keeper_is_that_of_all_it_had_and_nobody_waits_on() {
    let (keeper, theirs) = mute_keeper();
    let pid = keeper.pid;
    let request = async {
        tokio::task::yield_now().await;
        for _ in 0..2 {
            assert!(matches!(hear(&theirs), HostToKeeper::Spawn(_)));
        }
        say(&theirs, &KeeperToHost::Spawned { worker: "runs".to_owned(), pid: 7 });
        let failed = KeeperToHost::SpawnFailed {
            worker: "nobody's".to_owned(),
            errno: 0,
            message: "m".to_owned(),
            next_step: "n".to_owned(),
        };
        say(&theirs, &failed);
        // It answers no more.
        let _ = keeper.pidfd.send_signal(Signal::KILL);
        drop(theirs);
    };
    let starts = (
        keeper.spawn(spawn_request("runs"), Vec::new()),
        keeper.spawn(spawn_request("starts"), Vec::new()),
        request,
    );
    let told = async {
        let (runs, starts, ()) = tokio::join!(starts.0, starts.1, starts.2);
        (runs.unwrap().end.await.unwrap(), starts)
    };
    // Less than a keeper that lives is waited for.
    let told = tokio::time::timeout(KEEPER_ANSWER_MAX / 2, told).await;
    let (end, starts) = told.expect("both are told");
    assert_eq!(end, WorkerEnd { status: None, descendants_killed: 0, clear_ms: 0 });
    assert_eq!(starts.err().unwrap().message, "the keeper died");
    assert!(keeper.shutdown().await, "it is gone already");
    assert!(keeper.is_gone() && process_info(pid).is_none(), "and is no zombie of the host's");
    assert!(
        keeper
            .spawn(spawn_request("late"), Vec::new())
            .await
            .is_err_and(|refusal| refusal.message.contains("gone"))
    );
}

/// What a worker does not end by itself is ended for it, and nobody can ask a lost keeper for another one meanwhile.
#[tokio::test]
async fn a_worker_that_lives_on_after_its_keeper_is_ended_and_no_start_is_taken_meanwhile() {
    let (keeper, theirs, pid, _killed) = keeper_of_one_worker();
    let mut worker = spawned(&keeper, &theirs, pid).await;
    let unanswered = async {
        let start = keeper.spawn(spawn_request("starts"), Vec::new());
        let (start, ()) = tokio::join!(start, async {
            tokio::task::yield_now().await;
            assert!(matches!(hear(&theirs), HostToKeeper::Spawn(_)));
            let _ = keeper.pidfd.send_signal(Signal::KILL);
            drop(theirs);
        });
        assert_eq!(start.err().unwrap().message, "the keeper died");
    };
    unanswered.await;
    refused_at_once(&keeper).await;
    assert!(worker.end.try_recv().is_err(), "its worker lives, so that this was asked in between");
    let end = tokio::time::timeout(KEEPER_ANSWER_MAX, worker.end).await.expect("it is told").unwrap();
    assert_eq!((end.status, end.descendants_killed), (None, 1));
    assert!(process_info(pid).is_none_or(|info| info.state == 'Z'));
}

#[tokio::test]
async fn what_fell_to_a_stopped_keeper_is_counted_with_the_end_that_it_does_not_tell() {
    let (keeper, theirs, pid, _killed) = keeper_of_one_worker();
    let worker = spawned(&keeper, &theirs, pid).await;
    let mute = Mute { keeper: Arc::new(keeper), socket: theirs };
    mute.stop().await;
    PidFd::open(pid).unwrap().send_signal(Signal::KILL).unwrap();
    let end = tokio::time::timeout(KEEPER_ANSWER_MAX, worker.end).await.expect("it is told").unwrap();
    assert_eq!((end.status, end.descendants_killed), (Some(ExitStatus::Signal(9)), 1));
}

#[tokio::test]
async fn a_worker_that_is_killed_again_is_ended_once() {
    let mute = Mute::new();
    mute.stop().await;
    let (shown, told) = (Process::sleeper(), Process::sleeper());
    let held = Arc::new(Held::beyond_signals(shown.pid(), told.pid()));
    let (sender, end) = oneshot::channel();
    let worker = WorkerSessionId::from_text("w");
    let running = Running::new(sender, Some(Arc::clone(&held)));
    lock(&mute.keeper.table).running.insert(worker.to_string(), running);
    mute.keeper.kill(&worker);
    let is_begun = |session: &str| lock(&mute.keeper.table).begin_ending(session).is_none();
    assert!(lock(&mute.keeper.table).running.contains_key(worker.as_str()), "it takes its time");
    assert!(is_begun(worker.as_str()));
    for _ in 0..5 {
        mute.keeper.kill(&worker);
    }
    // The table, the reader and this test hold it, and one who ends it has two.
    assert!(Arc::strong_count(&held) <= 5, "{}", Arc::strong_count(&held));
    tokio::time::timeout(KEEPER_ANSWER_MAX, end).await.expect("it is told").unwrap();
}

#[tokio::test]
async fn a_start_that_is_larger_than_a_message_is_refused_at_once_with_what_is_large() {
    let (keeper, _theirs) = mute_keeper();
    let env =
        vec![("PATH".to_owned(), "/bin".to_owned()), ("BULKY".to_owned(), "x".repeat(MESSAGE_BYTES_MAX))];
    let request = SpawnWorker { env, ..spawn_request("w") };
    let spawning = keeper.spawn(request, Vec::new());
    let refused = tokio::time::timeout(Duration::from_secs(2), spawning).await.expect("nobody is asked");
    let refused = refused.map(|_| ()).expect_err("it is too large");
    assert!(refused.message.contains("BULKY with 131072 bytes"), "{}", refused.message);
    assert!(lock(&keeper.table).spawning.is_empty());
}

#[tokio::test]
async fn a_start_that_was_given_up_is_forgotten_and_not_sent_any_more() {
    let (keeper, theirs) = mute_keeper();
    let spawn = keeper.spawn(spawn_request("abandoned"), Vec::new());
    assert!(tokio::time::timeout(Duration::from_millis(1), spawn).await.is_err());
    assert!(lock(&keeper.table).spawning.is_empty());
    let outgoing =
        |worker: &str| Outgoing { message: HostToKeeper::Spawn(spawn_request(worker)), fds: Vec::new() };
    assert!(is_given_up(&keeper.table, &outgoing("abandoned")));
    let (answer, _receiver) = oneshot::channel();
    lock(&keeper.table).spawning.insert("wanted".to_owned(), PendingSpawn { answer });
    assert!(!is_given_up(&keeper.table, &outgoing("wanted")));
    let kill = Outgoing { message: HostToKeeper::Kill { worker: "x".to_owned() }, fds: Vec::new() };
    assert!(!is_given_up(&keeper.table, &kill), "what is no start is always sent");
    let _ = keeper.pidfd.send_signal(Signal::KILL);
    drop(theirs);
}

#[tokio::test]
async fn a_host_that_is_dropped_without_a_shutdown_asks_for_one() {
    let (keeper, theirs) = mute_keeper();
    let pidfd = keeper.pidfd.try_clone().unwrap();
    drop(keeper);
    assert_eq!(hear(&theirs), HostToKeeper::Shutdown);
    let _ = pidfd.send_signal(Signal::KILL);
}

#[test]
fn a_keeper_that_never_showed_that_it_is_one_is_killed_and_reaped() {
    let null = cjm_platform::fds::dev_null().unwrap();
    let child = spawn_small("/bin/sleep".as_ref(), &["1000".into()], &[], null).unwrap();
    let pid = child.pid;
    let begun = Instant::now();
    drop(Unready(Some(child)));
    assert!(process_info(pid).is_none());
    assert!(begun.elapsed() < KEEPER_END_MAX);
}

#[test]
fn a_keeper_that_ends_before_it_is_ready_is_told_with_its_end_and_fitting_advice() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("cjm-worker");
    for (script, message, advice) in [
        ("kill -KILL $$", "its process was ended by SIGKILL before it was ready", "find out who ends it"),
        ("exit 3", "its process ended with exit code 3 before it was ready", "of this version"),
    ] {
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let lock = FileLock::acquire(&dir.path().join("tree.lock"), "me", Duration::from_secs(30)).unwrap();
        let refusal = Keeper::start(&program, lock).err().expect("it is no keeper");
        assert_eq!(refusal.message, message);
        assert!(refusal.next_step.contains(advice), "{refusal:?}");
    }
}
