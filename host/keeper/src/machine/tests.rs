//! The keeper's machine against single cases: the words it uses, the limits it keeps, who is waited for.

use super::*;

const KILLED: ExitWord = ExitWord::Signaled { signal: 9, core_dumped: false };

fn hello(protocol: u32, tree_lock: bool, fd_count: usize) -> Event {
    host(HostToKeeper::Hello { protocol, tree_lock, nofile_soft: None }, fd_count)
}

fn host(message: HostToKeeper, fd_count: usize) -> Event {
    Event::Host { message, fd_count }
}

fn spawn(worker: &str) -> SpawnWorker {
    SpawnWorker {
        worker: worker.to_owned(),
        program: "/bin/true".to_owned(),
        argv: Vec::new(),
        env: Vec::new(),
        cwd: "/".to_owned(),
        fd_targets: vec![1, 2],
        dies_with_keeper: false,
    }
}

fn serving(workers: &[(&str, i32)]) -> Keeper {
    let mut keeper = Keeper::default();
    assert_eq!(keeper.step(hello(KEEPER_PROTOCOL, false, 0)), Ok(vec![Effect::SendReady]));
    for (worker, pid) in workers {
        let start = keeper.step(host(HostToKeeper::Spawn(spawn(worker)), 2));
        assert_eq!(start, Ok(vec![Effect::Start(spawn(worker))]));
        let worker = (*worker).to_owned();
        let told = keeper.step(Event::Started { worker: worker.clone(), pid: *pid });
        assert_eq!(told, Ok(vec![Effect::Send(KeeperToHost::Spawned { worker, pid: *pid })]));
    }
    keeper
}

fn doomed(pid: i32, session: i32, was_struck: bool) -> DoomedProcess {
    DoomedProcess { pid, start_ticks: 1, session, top: pid, was_struck, is_left: true }
}

fn bury(worker: &str, pid: i32, killed: u32, survivors: &[i32]) -> Effect {
    Effect::Bury(Burial {
        worker: worker.to_owned(),
        pid,
        status: KILLED,
        descendants_killed: killed,
        survivors: survivors.to_vec(),
    })
}

fn ended(pids: &[i32]) -> Event {
    Event::WorkersEnded { ended: pids.iter().map(|pid| (*pid, KILLED)).collect() }
}

fn deadline(worker: &str) -> Effect {
    Effect::SetClearDeadline { worker: worker.to_owned() }
}

fn sweep(spare: &[i32], keep: &[i32]) -> Effect {
    Effect::Sweep { spare: spare.to_vec(), keep: keep.to_vec() }
}

fn swept(keeper: &mut Keeper, found: &[DoomedProcess]) -> Vec<Effect> {
    keeper.step(Event::Swept { doomed: found.to_vec() }).expect("a sweep is under way")
}

fn check_illegal(keeper: &mut Keeper, event: Event, expected: &str) {
    let before = keeper.clone();
    assert_eq!(keeper.step(event).unwrap_err().to_string(), expected);
    assert_eq!(*keeper, before, "an illegal event changes nothing");
}

#[test]
fn one_sweep_serves_all_that_ended_in_a_turn() {
    let mut keeper = serving(&[("a", 10), ("b", 20), ("c", 30)]);
    let effects = keeper.step(ended(&[10, 30]));
    assert_eq!(effects, Ok(vec![deadline("a"), deadline("c"), sweep(&[20], &[10, 30])]));
    assert_eq!(swept(&mut keeper, &[]), [bury("a", 10, 0, &[]), bury("c", 30, 0, &[])]);
    check_illegal(
        &mut keeper,
        ended(&[10]),
        "the keeper, serving 1 workers, cannot take WorkersEnded for process 10, which is no running worker",
    );
    check_illegal(
        &mut keeper,
        ended(&[20, 20]),
        "the keeper, serving 1 workers, cannot take WorkersEnded for process 20 twice",
    );
}

#[test]
fn a_worker_waits_for_its_own_and_counts_it() {
    let mut keeper = serving(&[("a", 10), ("b", 20)]);
    let _ = keeper.step(ended(&[10, 20])).unwrap();
    // One in the session of b, one that has escaped and may be anybody's.
    assert_eq!(swept(&mut keeper, &[doomed(21, 20, true), doomed(99, 99, true)]), [Effect::SweepSoon]);
    assert_eq!(keeper.step(Event::SweepDue), Ok(vec![sweep(&[], &[10, 20])]));
    assert_eq!(swept(&mut keeper, &[doomed(21, 20, false)]), [bury("a", 10, 1, &[]), Effect::SweepSoon]);
    let _ = keeper.step(Event::SweepDue).unwrap();
    assert_eq!(swept(&mut keeper, &[]), [bury("b", 20, 1, &[])]);
}

#[test]
fn what_outlived_a_deadline_is_named_once_and_waited_for_by_nobody_else() {
    let mut keeper = serving(&[("a", 10), ("b", 20), ("c", 30)]);
    let stuck = doomed(11, 10, false);
    let _ = keeper.step(ended(&[10])).unwrap();
    assert_eq!(swept(&mut keeper, &[DoomedProcess { was_struck: true, ..stuck }]), [Effect::SweepSoon]);
    // Another ends while the first is still waited for.
    let _ = keeper.step(ended(&[20])).unwrap();
    assert_eq!(swept(&mut keeper, &[stuck]), [bury("b", 20, 0, &[]), Effect::SweepSoon]);
    let overdue = keeper.step(Event::ClearDeadline { worker: "a".to_owned() });
    assert_eq!(overdue, Ok(vec![bury("a", 10, 1, &[11])]));
    assert_eq!(keeper.step(Event::SweepDue), Ok(Vec::new()), "nobody waits for it");
    let _ = keeper.step(ended(&[30])).unwrap();
    assert_eq!(swept(&mut keeper, &[stuck]), [bury("c", 30, 0, &[])]);
    // Nor does the end, which says so.
    let end = keeper.step(Event::HostGone);
    assert_eq!(end, Ok(vec![Effect::SetEndDeadline, sweep(&[], &[])]));
    assert_eq!(swept(&mut keeper, &[stuck]), [Effect::End { code: exit_code::SURVIVORS }]);
}

#[test]
fn the_tree_lock_is_held_before_ready_is_said() {
    let mut keeper = Keeper::default();
    assert_eq!(
        keeper.step(hello(KEEPER_PROTOCOL, true, 1)),
        Ok(vec![Effect::HoldTreeLock, Effect::SendReady])
    );
}

#[test]
fn another_protocol_ends_it() {
    let mut keeper = Keeper::default();
    let effects = keeper.step(hello(KEEPER_PROTOCOL + 1, false, 0)).unwrap();
    assert!(matches!(
        effects.as_slice(),
        [Effect::Send(KeeperToHost::Trouble { .. }), Effect::End { code: exit_code::PROTOCOL }]
    ));
}

#[test]
fn misfits_are_named() {
    let mut waiting = Keeper::default();
    check_illegal(
        &mut waiting,
        host(HostToKeeper::Spawn(spawn("a")), 2),
        "the keeper, waiting for Hello, cannot take Spawn of a",
    );
    check_illegal(
        &mut waiting,
        hello(KEEPER_PROTOCOL, true, 0),
        "the keeper, waiting for Hello, cannot take Hello whose tree_lock does not match its descriptors",
    );
    let mut serving = serving(&[("a", 10)]);
    let cannot = |event: &str| format!("the keeper, serving 1 workers, cannot take {event}");
    check_illegal(&mut serving, hello(KEEPER_PROTOCOL, false, 0), &cannot("Hello"));
    check_illegal(&mut serving, Event::Swept { doomed: Vec::new() }, &cannot("Swept"));
    check_illegal(&mut serving, Event::SweepDue, &cannot("SweepDue"));
    check_illegal(&mut serving, Event::EndDeadline, &cannot("EndDeadline"));
    check_illegal(
        &mut serving,
        Event::ClearDeadline { worker: "a".to_owned() },
        &cannot("ClearDeadline for worker a, which is Running { pid: 10, killed: 0 }"),
    );
    check_illegal(&mut serving, Event::Sent { count: 99 }, &cannot("Sent of 99 with 2 unsent"));
}

#[test]
fn a_bad_spawn_is_refused_and_the_others_live_on() {
    let mut keeper = serving(&[("a", 10)]);
    for (worker, fd_count) in [("a", 2), ("b", 1)] {
        let effects = keeper.step(host(HostToKeeper::Spawn(spawn(worker)), fd_count)).unwrap();
        assert!(matches!(
            effects.as_slice(),
            [Effect::Send(KeeperToHost::SpawnFailed { errno: EINVAL, .. })]
        ));
    }
    assert_eq!(
        keeper.step(host(HostToKeeper::Kill { worker: "a".to_owned() }, 0)),
        Ok(vec![Effect::Signal { pid: 10, signal: 9 }])
    );
}

#[test]
fn one_worker_more_than_the_maximum_is_refused() {
    let mut keeper = serving(&[]);
    for n in 0..WORKERS_MAX {
        let started = keeper.step(host(HostToKeeper::Spawn(spawn(&n.to_string())), 2)).unwrap();
        assert!(matches!(started.as_slice(), [Effect::Start(_)]), "worker {n} of {WORKERS_MAX}");
    }
    let refused = keeper.step(host(HostToKeeper::Spawn(spawn("more")), 2)).unwrap();
    let [Effect::Send(KeeperToHost::SpawnFailed { errno: EAGAIN, message, next_step, .. })] =
        refused.as_slice()
    else {
        panic!("{refused:?}");
    };
    assert!(message.contains("4096 workers") && next_step.contains("unload"), "{message}: {next_step}");
}

#[test]
fn a_host_that_leaves_one_message_more_than_the_maximum_unread_counts_as_gone() {
    let mut keeper = serving(&[("a", 10)]);
    let trouble = || Event::Trouble { message: "x".to_owned() };
    // Ready and Spawned are unread already.
    for n in 2..OUTGOING_MAX {
        let told = keeper.step(trouble()).unwrap();
        assert!(matches!(told.as_slice(), [Effect::Send(_)]), "message {n} of {OUTGOING_MAX}");
    }
    let mut reading = keeper.clone();
    assert_eq!(keeper.step(trouble()), Ok(vec![Effect::SetEndDeadline, sweep(&[], &[10])]));
    assert_eq!(keeper.step(trouble()), Ok(Vec::new()), "it is told nothing more");
    assert_eq!(reading.step(Event::Sent { count: 1 }), Ok(Vec::new()));
    assert!(matches!(reading.step(trouble()).unwrap().as_slice(), [Effect::Send(_)]), "it has read one");
}

#[test]
fn a_signal_that_comes_too_late_is_ignored() {
    let mut keeper = serving(&[("a", 10)]);
    let late = |worker: &str| host(HostToKeeper::Signal { worker: worker.to_owned(), signal: 15 }, 0);
    assert_eq!(keeper.step(late("gone")), Ok(Vec::new()));
    let _ = keeper.step(ended(&[10])).unwrap();
    assert_eq!(keeper.step(late("a")), Ok(Vec::new()));
}

#[test]
fn shutdown_reports_every_worker() {
    let mut keeper = serving(&[("a", 10), ("b", 20)]);
    let end = keeper.step(host(HostToKeeper::Shutdown, 0));
    assert_eq!(end, Ok(vec![Effect::SetEndDeadline, sweep(&[], &[10, 20])]));
    let below = DoomedProcess { top: 10, ..doomed(11, 99, true) };
    let found = [doomed(10, 10, true), below, doomed(20, 20, true)];
    assert_eq!(swept(&mut keeper, &found), [Effect::SweepSoon]);
    let refused = keeper.step(host(HostToKeeper::Spawn(spawn("c")), 2)).unwrap();
    assert!(matches!(refused.as_slice(), [Effect::Send(KeeperToHost::SpawnFailed { .. })]), "{refused:?}");
    let _ = keeper.step(ended(&[10, 20])).unwrap();
    let done = [bury("a", 10, 1, &[]), bury("b", 20, 0, &[]), Effect::End { code: exit_code::DONE }];
    assert_eq!(swept(&mut keeper, &[]), done);
    assert_eq!(keeper.step(Event::HostGone), Ok(Vec::new()));
}

#[test]
fn a_keeper_told_to_end_says_so_and_reports_every_worker() {
    let mut keeper = serving(&[("a", 10)]);
    let effects = keeper.step(Event::Terminated).unwrap();
    assert!(
        matches!(
            effects.as_slice(),
            [Effect::Send(KeeperToHost::Ending { .. }), Effect::SetEndDeadline, Effect::Sweep { .. }]
        ),
        "{effects:?}"
    );
    assert_eq!(swept(&mut keeper, &[doomed(10, 10, true)]), [Effect::SweepSoon]);
    let _ = keeper.step(ended(&[10])).unwrap();
    assert_eq!(swept(&mut keeper, &[]), [bury("a", 10, 0, &[]), Effect::End { code: exit_code::DONE }]);
    let greeted = Keeper::default().step(Event::Terminated);
    assert_eq!(greeted, Ok(vec![Effect::End { code: exit_code::DONE }]), "before it had anything to clear");
}

#[test]
fn a_dead_host_is_told_nothing_and_survivors_show_in_the_exit_code() {
    let mut keeper = serving(&[("a", 10)]);
    let end = keeper.step(Event::HostGone);
    assert_eq!(end, Ok(vec![Effect::SetEndDeadline, sweep(&[], &[10])]));
    assert_eq!(swept(&mut keeper, &[doomed(10, 10, true), doomed(99, 99, true)]), [Effect::SweepSoon]);
    let _ = keeper.step(ended(&[10])).unwrap();
    assert_eq!(swept(&mut keeper, &[doomed(99, 99, false)]), [Effect::SweepSoon]);
    let over = keeper.step(Event::EndDeadline);
    assert_eq!(over, Ok(vec![Effect::Release { pid: 10 }, Effect::End { code: exit_code::SURVIVORS }]));
}

#[test]
fn a_sweep_that_fails_is_told_once_and_tried_again() {
    let mut keeper = serving(&[("a", 10)]);
    let _ = keeper.step(ended(&[10])).unwrap();
    let failed = || Event::SweepFailed { message: "out of descriptors".to_owned() };
    let told = keeper.step(failed()).unwrap();
    assert!(matches!(told.as_slice(), [Effect::Send(KeeperToHost::Trouble { .. }), Effect::SweepSoon]));
    let _ = keeper.step(Event::SweepDue).unwrap();
    assert_eq!(keeper.step(failed()), Ok(vec![Effect::SweepSoon]));
    let _ = keeper.step(Event::SweepDue).unwrap();
    assert_eq!(swept(&mut keeper, &[]), [bury("a", 10, 0, &[])]);
}
