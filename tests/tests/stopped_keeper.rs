//! A keeper that stands still (SIGSTOP) while its host needs it: nobody hangs, the error says what to do, the host ends
//! by itself, and nothing is left, although the one who would clear cannot.

use cjm_platform::process::{Pid, Signal};
use cjm_platform::tree::process_info;
use cjm_tests::watch::Watch;
use cjm_tests::world::{Running, World, eventually};
use cjm_tests::{journal, repo};
use cjm_wire::describe::exit;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Longest wait for what takes moments.
const SOON: Duration = Duration::from_secs(20);
/// Longest time for a command whose keeper stands still: a second until that is believed, and the grace of a cancel. It
/// took 10 s and more where the host waited for its keeper.
const END_MAX: Duration = Duration::from_secs(8);

/// A world with two tools: `first` says by a file that it runs and waits for another file, `second` prints a word.
struct Scene {
    world: World,
    runs: PathBuf,
    go_on: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let (runs, go_on) = (world.file("runs"), world.file("go-on"));
        let script = format!(
            "touch '{}'; until [ -e '{}' ]; do sleep 0.05; done; echo done",
            runs.display(),
            go_on.display()
        );
        let action = |script: &str| json!({"run": {"argv": ["-c", script], "result": "stdout_text"}});
        world.install_executable("first", "sh", &action(&script));
        world.install_executable("second", "sh", &action("echo second"));
        Self { world, runs, go_on }
    }

    /// Starts the command, and waits until `first` runs; also its keeper.
    fn start(&self, arguments: &[&str]) -> (Running, Watch, Pid) {
        let running = self.world.start(arguments);
        eventually("the first tool runs", SOON, || self.runs.exists().then_some(()));
        let watch = Watch::below(running.pid());
        let [keeper] = watch.children_of(running.pid())[..] else {
            panic!("a host has one child: {watch:?}")
        };
        (running, watch, keeper)
    }

    /// The host itself has written how each of its workers ended: none is left for the next one to guess about.
    fn assert_every_end_is_told(&self) {
        let rows = journal::rows(&self.world.journal());
        let sessions = |event: &str| -> BTreeSet<String> {
            rows.iter().filter(|row| row.event_type == event).filter_map(|row| row.worker.clone()).collect()
        };
        let spawned = sessions("worker_spawned");
        assert!(!spawned.is_empty() && spawned == sessions("worker_died"), "{}", journal::tell(&rows));
    }
}

fn signal(watch: &Watch, pid: Pid, signal: Signal) {
    watch.all().iter().find(|watched| watched.pid == pid).expect("watched").signal(signal);
}

#[test]
fn a_start_is_refused_with_what_to_do_and_the_host_ends_by_itself() {
    let scene = Scene::new();
    let composition = scene.world.write(
        "two.yaml",
        "name: two\nnodes:\n  a: {capability: first, action: run}\n  b: {capability: second, action: run, after: [a]}\n",
    );
    let (running, watch, keeper) = scene.start(&["run", &composition.display().to_string(), "--json"]);
    // The second tool's worker, which is idle, dies: its next call has to start it anew.
    let idle = watch.children_of(keeper).into_iter().find(|worker| watch.children_of(*worker).is_empty());
    let idle = idle.expect("the worker of the second tool has started nothing yet");
    signal(&watch, idle, Signal::KILL);
    eventually("its end is told", SOON, || process_info(idle).is_none().then_some(()));
    signal(&watch, keeper, Signal::STOP);
    let start = Instant::now();
    std::fs::write(&scene.go_on, "").expect("a file is written");
    let outcome = running.wait(END_MAX).expect(exit::COMPOSITION_FAILED);
    repo::measured(&format!("a run whose keeper stands still ended after {:?}", start.elapsed()));
    let text = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(text.contains(&format!("kill -CONT {keeper}")), "{}", outcome.describe());
    scene.world.assert_nothing_left();
    scene.assert_every_end_is_told();
}

#[test]
fn a_host_that_is_told_to_end_does_so_and_leaves_nothing() {
    let scene = Scene::new();
    let (running, watch, keeper) = scene.start(&["call", "first", "--action", "run"]);
    signal(&watch, keeper, Signal::STOP);
    let start = Instant::now();
    running.signal(Signal::TERM);
    let _ = running.wait(END_MAX).expect(143);
    repo::measured(&format!("a call whose keeper stands still ended after {:?}", start.elapsed()));
    scene.world.assert_nothing_left();
    scene.assert_every_end_is_told();
}

#[test]
fn a_deadline_is_kept_where_keeper_and_worker_stand_still() {
    let scene = Scene::new();
    // The time covers the start, which takes a while where processors are busy.
    let (running, watch, keeper) = scene.start(&["call", "first", "--action", "run", "--timeout", "6"]);
    let [worker] = watch.children_of(keeper)[..] else { panic!("one worker: {watch:?}") };
    signal(&watch, worker, Signal::STOP);
    signal(&watch, keeper, Signal::STOP);
    let _ = running.wait(END_MAX + Duration::from_secs(6)).expect(exit::TIMED_OUT);
    scene.world.assert_nothing_left();
    scene.assert_every_end_is_told();
}

/// It does not see that its host is gone, and holds the directory. Whoever comes next can read what to do, do it, and go on.
#[test]
fn a_stopped_keeper_of_a_killed_host_is_named_by_the_next_command_with_what_to_do() {
    let scene = Scene::new();
    let (running, watch, keeper) = scene.start(&["call", "first", "--action", "run"]);
    signal(&watch, keeper, Signal::STOP);
    eventually("the keeper is stopped", SOON, || {
        process_info(keeper).filter(|info| info.state == 'T').map(drop)
    });
    let host = running.pid();
    running.signal(Signal::KILL);
    eventually("the host is gone", SOON, || running.has_ended().then_some(()));
    let refused = scene.world.run(&["call", "second", "--action", "run"]).expect(exit::DIRECTORY_IN_USE);
    let text = format!("{}{}", refused.stdout, refused.stderr);
    assert!(text.contains(&format!("the keeper, process {keeper}, of host process {host}")), "{text}");
    let advice = format!("kill -CONT {keeper}");
    assert!(text.contains("the keeper is stopped") && text.contains(&advice), "{text}");
    // The advice, taken.
    signal(&watch, keeper, Signal::CONT);
    let outcome = scene.world.run(&["call", "second", "--action", "run"]).expect(0);
    assert!(outcome.stdout.contains("second"), "{}", outcome.describe());
    assert_eq!(watch.living(), Vec::<String>::new());
    let _ = running.wait(END_MAX);
    scene.world.assert_nothing_left();
}

/// Whatever stands still cannot clear its tree, or be cleared by a signal that it may ignore.
#[test]
fn what_stands_still_ends_with_its_keeper() {
    for is_tool in [false, true] {
        let scene = Scene::new();
        let (running, watch, keeper) = scene.start(&["call", "first", "--action", "run"]);
        let [worker] = watch.children_of(keeper)[..] else { panic!("one worker: {watch:?}") };
        let [tool] = watch.children_of(worker)[..] else { panic!("one tool: {watch:?}") };
        signal(&watch, if is_tool { tool } else { worker }, Signal::STOP);
        let start = Instant::now();
        signal(&watch, keeper, Signal::KILL);
        // The command ends after the death is told: whatever lived on then would still be there.
        let outcome = running.wait(END_MAX).expect(exit::WORKER_DIED);
        assert_eq!(watch.without(keeper).living(), Vec::<String>::new(), "{}", outcome.describe());
        repo::measured(&format!(
            "a call whose keeper was killed beside what stands still ended after {:?}",
            start.elapsed()
        ));
        scene.world.assert_nothing_left();
        scene.assert_every_end_is_told();
    }
}

/// A keeper that stands still cannot clear what fell to it, and the host that kills it is the last one who can.
#[test]
fn what_fell_to_a_keeper_that_stands_still_ends_too() {
    let scene = Scene::new();
    let script =
        format!("sleep 7774 & setsid sleep 7775 & sleep 7776 & touch '{}'; wait", scene.runs.display());
    let action = json!({"run": {"argv": ["-c", script], "result": "stdout_text"}});
    scene.world.install_executable("first", "sh", &action);
    let (running, watch, keeper) = scene.start(&["call", "first", "--action", "run"]);
    let [worker] = watch.children_of(keeper)[..] else { panic!("one worker: {watch:?}") };
    signal(&watch, keeper, Signal::STOP);
    signal(&watch, worker, Signal::KILL);
    let _ = running.wait(END_MAX).expect(exit::WORKER_DIED);
    scene.world.assert_nothing_left();
    scene.assert_every_end_is_told();
    let rows = journal::rows(&scene.world.journal());
    let died = rows.iter().find(|row| row.event_type == "worker_died").expect("a death");
    assert!(
        died.payload["descendants_killed"].as_u64().is_some_and(|count| count >= 3),
        "{:?}",
        died.payload
    );
}
