//! Tests of single turns. A sweep ends whatever this process has started, so that only one of them runs at a time.

use super::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Longest wait for a process that ends by itself.
const WAIT: Duration = Duration::from_secs(20);
/// Longer ago than any time that is waited for here.
const LONG: Duration = Duration::from_secs(10);

static SWEEPS: Mutex<()> = Mutex::new(());

/// A shell that has been greeted, and its host's end.
fn serving() -> (Shell, SeqPacket, MutexGuard<'static, ()>) {
    let guard = SWEEPS.lock().unwrap_or_else(PoisonError::into_inner);
    let (host, control) = SeqPacket::pair().expect("a pair");
    let mut shell = Shell {
        control,
        signals: SignalFd::block(&[]).expect("a descriptor"),
        machine: Keeper::default(),
        workers: BTreeMap::new(),
        outbox: Outbox::default(),
        clearing: Clearing::new(Look::best()),
        timers: Timers::default(),
        nofile: fds::nofile_limit(),
        tree_lock: None,
        host_gone: false,
        end: None,
    };
    let hello = HostToKeeper::Hello {
        protocol: cjm_wire::keeper::KEEPER_PROTOCOL,
        tree_lock: false,
        nofile_soft: None,
    };
    shell.feed(Event::Host { message: hello, fd_count: 0 }, Vec::new());
    (shell, host, guard)
}

/// Starts a worker that ends at once, and waits until it has.
fn start_one_that_ends(shell: &mut Shell) {
    let spawn = SpawnWorker {
        worker: "a".to_owned(),
        program: "/bin/sh".to_owned(),
        argv: ["sh", "-c", "exit 0"].map(str::to_owned).to_vec(),
        env: Vec::new(),
        cwd: "/".to_owned(),
        fd_targets: Vec::new(),
        dies_with_keeper: false,
    };
    shell.feed(Event::Host { message: HostToKeeper::Spawn(spawn), fd_count: 0 }, Vec::new());
    let held = shell.workers.values().next().expect("it has started");
    assert!(held.pidfd.wait_exit(WAIT).expect("it can be waited for"), "it runs on");
}

/// A turn that found nothing but these.
fn turn(signals: &[Signal]) -> Turn {
    Turn { control: Readiness::default(), signals: signals.to_vec() }
}

/// What the host has been told and has not read.
fn told(host: &SeqPacket) -> Vec<KeeperToHost> {
    let next = || match host.try_recv() {
        Ok(Received::Message(message)) => Some(serde_json::from_slice(&message.bytes).expect("a message")),
        _ => None,
    };
    std::iter::from_fn(next).collect()
}

/// Who had ended when the sweep was made, and was not noticed before it, waits for what the sweep found: what is due says
/// that all of them have been noticed.
#[test]
fn what_is_due_waits_a_turn_after_a_sweep() {
    let hung_up = Turn { control: Readiness { hung_up: true, ..Readiness::default() }, signals: Vec::new() };
    let causes = [
        ("a worker's end", turn(&[Signal::CHLD])),
        ("a signal", turn(&[Signal::TERM])),
        ("the host's end", hung_up),
    ];
    for (cause, found) in causes {
        let (mut shell, _host, _guard) = serving();
        start_one_that_ends(&mut shell);
        let long_ago = Instant::now().checked_sub(LONG).expect("the machine has run for longer");
        shell.timers.set_clear("late".to_owned(), long_ago);
        shell.turn(&found).expect("a turn");
        assert_eq!(shell.timers.wait(Instant::now()), Some(Duration::ZERO), "{cause}: it is still due");
        shell.turn(&turn(&[])).expect("a turn");
        assert!(shell.timers.overdue_clears(Instant::now()).is_empty(), "{cause}: the next turn takes it");
    }
}

#[test]
fn a_sweep_fulfils_the_wish_for_one() {
    let (mut shell, host, _guard) = serving();
    start_one_that_ends(&mut shell);
    // Something of another worker was still there when it was last looked for.
    shell.timers.sweep_soon(Instant::now());
    shell.turn(&turn(&[Signal::CHLD])).expect("a turn");
    shell.turn(&turn(&[Signal::CHLD])).expect("a turn");
    let told = told(&host);
    assert!(
        matches!(
            told.as_slice(),
            [KeeperToHost::Ready { .. }, KeeperToHost::Spawned { .. }, KeeperToHost::Exited { .. }]
        ),
        "{told:?}"
    );
    assert_eq!(shell.timers.wait(Instant::now()), None, "nobody wants another");
}
