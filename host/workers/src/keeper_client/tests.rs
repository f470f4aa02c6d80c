//! The host's side against a process in the place of a keeper, which says what a test makes it say.

use super::*;
use cjm_platform::tree::process_info;
use cjm_wire::keeper::ExitWord;

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
    let (ours, theirs) = SeqPacket::pair().unwrap();
    let null = cjm_platform::fds::dev_null().unwrap();
    let child = spawn_small("/bin/sleep".as_ref(), &["1000".into()], &[], null).unwrap();
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
    assert!(keeper.spawn(spawn_request("x"), Vec::new()).await.is_err());
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
