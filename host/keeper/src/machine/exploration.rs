//! The machine in every order in which things can happen to it, beside a small world of processes: no order is left
//! out, up to the stated number of workers.
//!
//! Each worker is started at most once and may have a child: one that dies when it is killed or one that cannot be
//! killed, in the worker's session or escaped from it. What is asserted holds in every state that can be reached.

#![expect(clippy::print_stdout, reason = "a test tells what it has explored")]

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use super::*;

const KILLED: ExitWord = ExitWord::Signaled { signal: 9, core_dumped: false };
const NAMES: [&str; 3] = ["a", "b", "c"];
/// Far more than any exploration here reaches: a machine whose states do not end fails instead of running on.
const STATES_MAX: usize = 3_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Child {
    can_be_killed: bool,
    has_escaped: bool,
    /// It has its SIGKILL.
    is_struck: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
enum Life {
    #[default]
    Unborn,
    Running,
    /// A zombie that the keeper has not noticed yet.
    Ended,
    /// A zombie whose end the machine was told.
    Noticed,
    /// Reaped.
    Buried,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Slot {
    life: Life,
    child: Option<Child>,
    /// It had ended when the last sweep was made, so the next turn notices it before it sweeps again.
    is_overlooked: bool,
    /// Its child has outlived a deadline.
    has_survivor: bool,
    /// Whose children had outlived a deadline when its own end was noticed, one bit for each.
    remembered: u8,
}

/// What there is beside the keeper.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct World {
    slots: Vec<Slot>,
    host_lives: bool,
    /// What the keeper has asked for.
    end_deadline: bool,
    sweep_soon: bool,
    is_over: bool,
    /// The event under way is a worker's deadline, or that of the end.
    deadline: bool,
}

/// What happens next.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    /// The host asks for a worker; this comes of it, if the keeper tries.
    Spawn(usize, Outcome),
    Kill(usize),
    Die(usize),
    Notice,
    ChildEnds(usize),
    SweepDue,
    SweepFails,
    ClearDeadline(usize),
    EndDeadline,
    HostReads,
    Shutdown,
    Terminated,
    HostGone,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Fails,
    Starts(Option<Child>),
}

/// What is explored.
struct Scope {
    name: &'static str,
    workers: usize,
    children: Vec<Option<Child>>,
    limits: Limits,
    /// Otherwise it reads each message at once.
    host_is_slow: bool,
    sweeps_fail: bool,
}

fn child(can_be_killed: bool, has_escaped: bool) -> Option<Child> {
    Some(Child { can_be_killed, has_escaped, is_struck: false })
}

fn pid(slot: usize) -> i32 {
    10 + slot as i32
}

fn child_pid(slot: usize) -> i32 {
    100 + slot as i32
}

fn slot_of(worker: &str) -> usize {
    NAMES.iter().position(|name| *name == worker).expect("only these are spawned")
}

impl World {
    fn running(&self) -> usize {
        self.slots.iter().filter(|slot| !matches!(slot.life, Life::Unborn | Life::Buried)).count()
    }

    /// What can happen now.
    fn steps(&self, scope: &Scope, keeper: &Keeper) -> Vec<Step> {
        let mut steps = vec![Step::Terminated];
        let all_noticed = !self.slots.iter().any(|slot| slot.is_overlooked);
        if self.host_lives {
            steps.extend([Step::Shutdown, Step::HostGone]);
            if scope.host_is_slow && keeper.unsent > 0 {
                steps.push(Step::HostReads);
            }
        }
        for (n, slot) in self.slots.iter().enumerate() {
            if self.host_lives && slot.life == Life::Unborn {
                let starts = scope.children.iter().map(|child| Step::Spawn(n, Outcome::Starts(*child)));
                steps.extend(starts.chain([Step::Spawn(n, Outcome::Fails)]));
            } else if self.host_lives {
                steps.push(Step::Kill(n));
            }
            match slot.life {
                Life::Running => steps.push(Step::Die(n)),
                Life::Noticed if all_noticed => steps.push(Step::ClearDeadline(n)),
                Life::Noticed | Life::Unborn | Life::Ended | Life::Buried => {}
            }
            if slot.child.is_some_and(|child| child.is_struck && child.can_be_killed) {
                steps.push(Step::ChildEnds(n));
            }
        }
        if self.slots.iter().any(|slot| slot.life == Life::Ended) {
            steps.push(Step::Notice);
        }
        if self.sweep_soon && all_noticed {
            steps.push(Step::SweepDue);
            if scope.sweeps_fail {
                steps.push(Step::SweepFails);
            }
        }
        if self.end_deadline && all_noticed {
            steps.push(Step::EndDeadline);
        }
        steps
    }

    /// The event a step is for the keeper, if it is one.
    fn event(&mut self, step: &Step) -> Option<Event> {
        let host = |message, fd_count| Some(Event::Host { message, fd_count });
        match step {
            Step::Spawn(n, _) => host(HostToKeeper::Spawn(spawn(NAMES[*n])), 0),
            Step::Kill(n) => host(HostToKeeper::Kill { worker: NAMES[*n].to_owned() }, 0),
            Step::Shutdown => host(HostToKeeper::Shutdown, 0),
            Step::HostGone => {
                self.host_lives = false;
                Some(Event::HostGone)
            }
            Step::Terminated => Some(Event::Terminated),
            Step::HostReads => Some(Event::Sent { count: 1 }),
            Step::SweepDue | Step::SweepFails => {
                self.sweep_soon = false;
                Some(Event::SweepDue)
            }
            Step::EndDeadline => Some(Event::EndDeadline),
            Step::ClearDeadline(n) => Some(Event::ClearDeadline { worker: NAMES[*n].to_owned() }),
            Step::Die(n) => {
                self.slots[*n].life = Life::Ended;
                None
            }
            Step::ChildEnds(n) => {
                self.slots[*n].child = None;
                None
            }
            Step::Notice => {
                let survivors = self.slots.iter().enumerate().filter(|(_, slot)| slot.has_survivor);
                let remembered = survivors.fold(0, |bits, (n, _)| bits | 1 << n);
                let mut ended = Vec::new();
                for (n, slot) in
                    self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.life == Life::Ended)
                {
                    *slot = Slot { life: Life::Noticed, is_overlooked: false, remembered, ..*slot };
                    ended.push((pid(n), KILLED));
                }
                Some(Event::WorkersEnded { ended })
            }
        }
    }

    /// Kills what a sweep kills, and says what it finds.
    fn sweep(&mut self, spare: &[i32], keep: &[i32]) -> Event {
        self.sweep_soon = false;
        let mut doomed = Vec::new();
        for (n, slot) in self.slots.iter_mut().enumerate() {
            let is_spared = spare.contains(&pid(n));
            match slot.life {
                Life::Running => assert!(is_spared || keep.contains(&pid(n)), "a living worker is known"),
                Life::Ended => slot.is_overlooked = true,
                Life::Noticed => assert!(keep.contains(&pid(n)), "its zombie is needed until it is buried"),
                Life::Unborn | Life::Buried => {}
            }
            let lives = slot.life == Life::Running;
            if lives && !is_spared {
                doomed.push(found(pid(n), pid(n), pid(n), true));
            }
            let Some(child) = &mut slot.child else { continue };
            // Below its living worker, or in its session, a child shares its fate.
            if is_spared && (lives || !child.has_escaped) {
                continue;
            }
            let session = if child.has_escaped { child_pid(n) } else { pid(n) };
            let top = if lives { pid(n) } else { child_pid(n) };
            doomed.push(found(child_pid(n), session, top, !child.is_struck));
            child.is_struck = true;
        }
        Event::Swept { doomed }
    }

    /// Performs one effect, asserts that it is right, and returns its outcome.
    fn perform(&mut self, scope: &Scope, effect: Effect, step: &Step) -> Option<Event> {
        assert!(!self.is_over, "nothing is done after the end");
        let sent = (!scope.host_is_slow).then_some(Event::Sent { count: 1 });
        match effect {
            Effect::Start(spawn) => {
                assert!(self.host_lives && !self.end_deadline, "nothing is started for nobody");
                assert!(self.running() < scope.limits.workers_max, "no more workers than the maximum");
                let Step::Spawn(n, outcome) = step else { panic!("{step:?} started a worker") };
                let Outcome::Starts(child) = outcome else {
                    let (message, next_step) = ("no such file".to_owned(), "install it".to_owned());
                    return Some(Event::StartFailed { worker: spawn.worker, errno: 2, message, next_step });
                };
                self.slots[*n] = Slot { life: Life::Running, child: *child, ..Slot::default() };
                Some(Event::Started { worker: spawn.worker, pid: pid(*n) })
            }
            Effect::Signal { pid: target, .. } => {
                let slot = &self.slots[usize::try_from(target - 10).unwrap()];
                assert!(matches!(slot.life, Life::Running | Life::Ended), "no signal to a buried one");
                None
            }
            Effect::Sweep { .. } if *step == Step::SweepFails => {
                self.sweep_soon = false;
                Some(Event::SweepFailed { message: "out of descriptors".to_owned() })
            }
            Effect::Sweep { spare, keep } => Some(self.sweep(&spare, &keep)),
            Effect::SweepSoon => {
                self.sweep_soon = true;
                None
            }
            Effect::SetEndDeadline => {
                self.end_deadline = true;
                None
            }
            Effect::Bury(burial) => {
                assert!(self.host_lives, "nobody is told of an end without a host");
                assert_eq!(burial.pid, pid(slot_of(&burial.worker)));
                self.bury(slot_of(&burial.worker), Some(&burial.survivors), scope);
                sent
            }
            Effect::Release { pid: zombie } => {
                self.bury(usize::try_from(zombie - 10).unwrap(), None, scope);
                None
            }
            Effect::Send(_) | Effect::SendReady => {
                assert!(self.host_lives);
                sent
            }
            Effect::End { code } => {
                self.check_end(code);
                None
            }
            Effect::SetClearDeadline { .. } | Effect::HoldTreeLock | Effect::LimitWorkerFiles { .. } => None,
        }
    }

    fn bury(&mut self, n: usize, survivors: Option<&[i32]>, scope: &Scope) {
        let slot = &mut self.slots[n];
        assert_eq!(slot.life, Life::Noticed, "only a noticed zombie is buried, and once");
        slot.life = Life::Buried;
        if !self.deadline {
            assert_eq!(slot.child, None, "nothing is buried before its tree is cleared");
            assert!(survivors.is_none_or(<[i32]>::is_empty));
        } else if slot.child.is_some() {
            slot.has_survivor = survivors.is_none_or(|survivors| survivors.contains(&child_pid(n)));
            assert!(slot.has_survivor || scope.sweeps_fail, "who outlives a deadline is named");
        }
    }

    fn check_end(&mut self, code: u8) {
        self.is_over = true;
        let unborn_or_buried = |slot: &Slot| matches!(slot.life, Life::Unborn | Life::Buried);
        let is_clean = self.slots.iter().all(|slot| unborn_or_buried(slot) && slot.child.is_none());
        assert!(is_clean || code != exit_code::DONE, "the exit code says that something is left");
        if !self.deadline {
            assert_eq!(is_clean, code == exit_code::DONE, "and that nothing is");
            let may_go = |slot: &Slot| unborn_or_buried(slot) && (slot.child.is_none() || slot.has_survivor);
            assert!(self.slots.iter().all(may_go), "the lock is let go when all is cleared");
        }
    }

    /// Nobody waits for what certainly is another's, or had outlived a deadline before.
    fn check_after_sweep(&self) {
        for (n, slot) in self.slots.iter().enumerate() {
            let may_be_its = |(other, stranger): (usize, &Slot)| {
                let escaped = stranger.child.is_some_and(|child| child.has_escaped);
                other != n && escaped && slot.remembered & 1 << other == 0
            };
            if slot.life == Life::Noticed && slot.child.is_none() {
                assert!(self.slots.iter().enumerate().any(may_be_its), "{} waits for nothing", NAMES[n]);
            }
        }
    }
}

fn found(pid: i32, session: i32, top: i32, was_struck: bool) -> DoomedProcess {
    DoomedProcess { pid, start_ticks: 1, session, top, was_struck, is_left: true }
}

fn spawn(worker: &str) -> SpawnWorker {
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

/// The way to a state, told if it ends in a failed assertion.
struct Way {
    step: Step,
    before: Option<Rc<Way>>,
}

struct ToldOnPanic<'a>(&'a Way);

impl Drop for ToldOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut way = vec![&self.0.step];
            let mut at = &self.0.before;
            while let Some(before) = at {
                way.push(&before.step);
                at = &before.before;
            }
            way.reverse();
            println!("the way there: {way:?}");
        }
    }
}

/// Takes one step, with all that follows from it.
fn take(scope: &Scope, keeper: &mut Keeper, world: &mut World, step: &Step) {
    let Some(event) = world.event(step) else { return };
    world.deadline = matches!(step, Step::ClearDeadline(_) | Step::EndDeadline);
    let mut effects = VecDeque::from(keeper.step(event).expect("a legal event"));
    while let Some(effect) = effects.pop_front() {
        if let Some(outcome) = world.perform(scope, effect, step) {
            let is_sweep = matches!(outcome, Event::Swept { .. });
            effects.extend(keeper.step(outcome).expect("an outcome always fits"));
            if is_sweep {
                let ends = |effect: &Effect| matches!(effect, Effect::Bury(_) | Effect::Release { .. });
                // What is buried by this sweep is still to be performed.
                if !effects.iter().any(ends) {
                    world.check_after_sweep();
                }
            }
        }
        assert!(keeper.unsent <= scope.limits.outgoing_max, "no more messages wait than the maximum");
    }
    match step {
        Step::ClearDeadline(n) => {
            assert_eq!(world.slots[*n].life, Life::Buried, "a deadline ends the waiting");
        }
        Step::EndDeadline => assert!(world.is_over, "and so does that of the end"),
        _ => {}
    }
    // A host that does not read counts as gone, and says nothing more that is heeded.
    world.host_lives &= !keeper.host_gone;
    world.deadline = false;
}

fn explore(scope: &Scope) {
    let mut keeper = Keeper::new(scope.limits);
    let hello = HostToKeeper::Hello { protocol: KEEPER_PROTOCOL, tree_lock: false, nofile_soft: None };
    let ready = keeper.step(Event::Host { message: hello, fd_count: 0 });
    assert_eq!(ready, Ok(vec![Effect::SendReady]));
    let _ = keeper.step(Event::Sent { count: 1 }).expect("it was sent");
    let world = World { slots: vec![Slot::default(); scope.workers], host_lives: true, ..World::default() };
    let mut seen = HashSet::new();
    let mut open = vec![(keeper, world, None::<Rc<Way>>)];
    let (mut transitions, mut ends) = (0_u64, 0_u64);
    while let Some((keeper, world, before)) = open.pop() {
        for step in world.steps(scope, &keeper) {
            let (mut keeper, mut world) = (keeper.clone(), world.clone());
            let way = Rc::new(Way { step: step.clone(), before: before.clone() });
            let told = ToldOnPanic(&way);
            take(scope, &mut keeper, &mut world, &step);
            drop(told);
            transitions += 1;
            let mut hasher = DefaultHasher::new();
            (&keeper, &world).hash(&mut hasher);
            if !seen.insert(hasher.finish()) {
                continue;
            }
            assert!(seen.len() < STATES_MAX, "the states do not end");
            if world.is_over {
                ends += 1;
            } else {
                open.push((keeper, world, Some(way)));
            }
        }
    }
    assert!(ends > 0, "the keeper can end");
    println!(
        "EXPLORED keeper, {}: {} states, {transitions} transitions, {ends} ends",
        scope.name,
        seen.len()
    );
}

const SMALL: Limits = Limits { workers_max: 3, outgoing_max: 8 };

#[test]
fn three_workers_with_what_cannot_be_killed_in_every_order() {
    let children = vec![None, child(false, false)];
    let name = "3 workers, some with a child that cannot be killed";
    explore(&Scope { name, workers: 3, children, limits: SMALL, host_is_slow: false, sweeps_fail: false });
}

#[test]
fn three_workers_with_escaped_children_in_every_order() {
    let children = vec![child(true, true)];
    let name = "3 workers with escaped children";
    explore(&Scope { name, workers: 3, children, limits: SMALL, host_is_slow: false, sweeps_fail: false });
}

#[test]
fn two_workers_with_children_of_all_kinds_and_failing_sweeps_in_every_order() {
    let children = vec![None, child(true, false), child(true, true), child(false, false), child(false, true)];
    let name = "2 workers with children of all kinds, sweeps that fail";
    explore(&Scope { name, workers: 2, children, limits: SMALL, host_is_slow: false, sweeps_fail: true });
}

#[test]
fn three_workers_of_two_allowed_and_a_host_that_hardly_reads_in_every_order() {
    let limits = Limits { workers_max: 2, outgoing_max: 2 };
    let name = "3 workers of 2 allowed, 2 unread messages allowed";
    let children = vec![None, child(true, false)];
    explore(&Scope { name, workers: 3, children, limits, host_is_slow: true, sweeps_fail: false });
}
