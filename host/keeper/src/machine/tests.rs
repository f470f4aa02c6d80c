//! The keeper's machine against single cases, and against a small model of the world under random events.

use super::*;
use proptest::prelude::*;

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

fn exited(worker: &str, pid: i32, killed: u32) -> Effect {
    Effect::Send(KeeperToHost::Exited {
        worker: worker.to_owned(),
        pid,
        status: KILLED,
        descendants_killed: killed,
        clear_ms: if killed > 0 { 3 } else { 0 },
        survivors: Vec::new(),
    })
}

fn check_illegal(keeper: &mut Keeper, event: Event, expected: &str) {
    let before = keeper.clone();
    assert_eq!(keeper.step(event).unwrap_err().to_string(), expected);
    assert_eq!(*keeper, before, "an illegal event changes nothing");
}

#[test]
fn a_worker_is_cleared_then_reaped_then_reported() {
    let mut keeper = serving(&[("a", 10), ("b", 20)]);
    assert_eq!(
        keeper.step(Event::WorkerEnded { pid: 10, status: KILLED }),
        Ok(vec![Effect::Clear { worker: "a".to_owned(), pid: 10, spare: vec![20] }])
    );
    let outcome = ClearOutcome { killed: 2, clear_ms: 3, ..ClearOutcome::default() };
    assert_eq!(
        keeper.step(Event::Cleared { worker: "a".to_owned(), outcome }),
        Ok(vec![Effect::Release { pid: 10 }, exited("a", 10, 2)])
    );
    check_illegal(
        &mut keeper,
        Event::WorkerEnded { pid: 10, status: KILLED },
        "the keeper, serving 1 workers, cannot take WorkerEnded for process 10, which is no running worker",
    );
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
    check_illegal(
        &mut serving(&[("a", 10)]),
        hello(KEEPER_PROTOCOL, false, 0),
        "the keeper, serving 1 workers, cannot take Hello",
    );
    check_illegal(
        &mut serving(&[("a", 10)]),
        Event::Cleared { worker: "a".to_owned(), outcome: ClearOutcome::default() },
        "the keeper, serving 1 workers, cannot take Cleared for worker a, which is Running { pid: 10 }",
    );
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
fn a_signal_that_comes_too_late_is_ignored() {
    let mut keeper = serving(&[("a", 10)]);
    let late = |worker: &str| host(HostToKeeper::Signal { worker: worker.to_owned(), signal: 15 }, 0);
    assert_eq!(keeper.step(late("gone")), Ok(Vec::new()));
    let _ = keeper.step(Event::WorkerEnded { pid: 10, status: KILLED }).unwrap();
    assert_eq!(keeper.step(late("a")), Ok(Vec::new()));
}

#[test]
fn shutdown_reports_every_worker() {
    let mut keeper = serving(&[("a", 10), ("b", 20)]);
    assert_eq!(
        keeper.step(host(HostToKeeper::Shutdown, 0)),
        Ok(vec![Effect::ClearAll { keep: vec![10, 20] }])
    );
    assert_eq!(keeper.step(Event::HostGone), Ok(Vec::new()));
    let outcome = ClearOutcome { killed: 5, clear_ms: 3, ..ClearOutcome::default() };
    assert_eq!(
        keeper.step(Event::AllCleared { outcome, ended: vec![(10, KILLED), (20, KILLED)] }),
        Ok(vec![
            Effect::Release { pid: 10 },
            exited("a", 10, 3),
            Effect::Release { pid: 20 },
            exited("b", 20, 0),
            Effect::End { code: exit_code::DONE },
        ])
    );
    assert_eq!(keeper, Keeper::Ended);
}

#[test]
fn a_dead_host_is_told_nothing_and_survivors_show_in_the_exit_code() {
    let mut keeper = serving(&[("a", 10)]);
    assert_eq!(keeper.step(Event::HostGone), Ok(vec![Effect::ClearAll { keep: Vec::new() }]));
    let outcome = ClearOutcome { killed: 1, clear_ms: 9, survivors: vec![99], incomplete: true };
    assert_eq!(
        keeper.step(Event::AllCleared { outcome, ended: Vec::new() }),
        Ok(vec![Effect::End { code: exit_code::SURVIVORS }])
    );
}

/// What the outside world does; the harness answers every effect at once, as the shell does.
#[derive(Clone, Debug)]
enum Happening {
    Spawn { worker: u8, starts: bool },
    Kill { worker: u8 },
    End { nth: usize },
    Shutdown,
    HostGone,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0..6_u8, prop::bool::weighted(0.8))
            .prop_map(|(worker, starts)| Happening::Spawn { worker, starts }),
        2 => (0..6_u8).prop_map(|worker| Happening::Kill { worker }),
        4 => (0..6_usize).prop_map(|nth| Happening::End { nth }),
        1 => Just(Happening::Shutdown),
        1 => Just(Happening::HostGone),
    ]
}

/// The world beyond the keeper: which processes live, which are zombies, what the host was told.
#[derive(Default)]
struct World {
    pid_last: i32,
    starts: bool,
    living: Vec<i32>,
    zombies: Vec<i32>,
    started: Vec<String>,
    ended: Vec<String>,
    is_over: bool,
}

impl World {
    /// Performs one effect and returns its outcome.
    fn perform(&mut self, effect: Effect) -> Option<Event> {
        assert!(!self.is_over, "nothing is done after the end");
        match effect {
            Effect::Start(spawn) if self.starts => {
                self.pid_last += 1;
                self.living.push(self.pid_last);
                Some(Event::Started { worker: spawn.worker, pid: self.pid_last })
            }
            Effect::Start(spawn) => Some(Event::StartFailed {
                worker: spawn.worker,
                errno: 2,
                message: "no such file".to_owned(),
                next_step: "install it".to_owned(),
            }),
            Effect::Signal { pid, signal } => {
                assert_eq!(signal, SIGKILL);
                assert!(self.living.contains(&pid), "only an unreaped worker is signalled");
                None
            }
            Effect::Clear { worker, pid, mut spare } => {
                assert!(self.zombies.contains(&pid));
                spare.sort_unstable();
                assert_eq!(spare, self.living, "every other worker is spared");
                Some(Event::Cleared { worker, outcome: ClearOutcome::default() })
            }
            Effect::Release { pid } => {
                let at = self.zombies.iter().position(|zombie| *zombie == pid);
                self.zombies.remove(at.expect("only a zombie is reaped, and once"));
                None
            }
            Effect::ClearAll { keep } => {
                let dead = std::mem::take(&mut self.living);
                self.zombies.extend(dead.iter().filter(|pid| keep.contains(pid)));
                let ended = keep.into_iter().map(|pid| (pid, KILLED)).collect();
                Some(Event::AllCleared { outcome: ClearOutcome::default(), ended })
            }
            Effect::Send(KeeperToHost::Spawned { worker, .. }) => {
                self.started.push(worker);
                None
            }
            Effect::Send(KeeperToHost::Exited { worker, pid, .. }) => {
                assert!(!self.living.contains(&pid) && !self.zombies.contains(&pid));
                self.ended.push(worker);
                None
            }
            Effect::End { .. } => {
                self.is_over = true;
                None
            }
            Effect::SendReady | Effect::Send(_) | Effect::HoldTreeLock | Effect::LimitWorkerFiles { .. } => {
                None
            }
        }
    }

    fn feed(&mut self, keeper: &mut Keeper, event: Event) {
        let mut effects = std::collections::VecDeque::from(keeper.step(event).expect("a legal event"));
        while let Some(effect) = effects.pop_front() {
            if let Some(outcome) = self.perform(effect) {
                effects.extend(keeper.step(outcome).expect("an outcome always fits"));
            }
        }
    }
}

proptest! {
    #[test]
    fn every_start_has_one_end(happenings in prop::collection::vec(happening(), 0..60)) {
        let mut keeper = serving(&[]);
        let mut world = World::default();
        let mut is_told = true;
        for happening in happenings {
            if world.is_over {
                break;
            }
            let event = match happening {
                Happening::Spawn { worker, starts } => {
                    world.starts = starts;
                    host(HostToKeeper::Spawn(spawn(&format!("w{worker}"))), 2)
                }
                Happening::Kill { worker } => {
                    host(HostToKeeper::Kill { worker: format!("w{worker}") }, 0)
                }
                Happening::End { nth } if world.living.is_empty() => {
                    prop_assert!(nth < 6);
                    continue;
                }
                Happening::End { nth } => {
                    let pid = world.living.remove(nth % world.living.len());
                    world.zombies.push(pid);
                    Event::WorkerEnded { pid, status: KILLED }
                }
                Happening::Shutdown => host(HostToKeeper::Shutdown, 0),
                Happening::HostGone => {
                    is_told = false;
                    Event::HostGone
                }
            };
            world.feed(&mut keeper, event);
        }
        if !world.is_over {
            world.feed(&mut keeper, host(HostToKeeper::Shutdown, 0));
        }
        prop_assert!(world.is_over && world.living.is_empty());
        if is_told {
            world.started.sort();
            world.ended.sort();
            prop_assert_eq!(world.started, world.ended);
            prop_assert!(world.zombies.is_empty());
        }
    }
}
