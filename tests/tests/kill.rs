//! SIGKILL for the host, the shim, the keeper, and two of them at once, while a tool runs whose processes try to
//! outlive it. Watched by pidfd from outside; then the next run, and the journal.
//!
//! What must hold: nothing lives on; no committed row is lost; every job has exactly one terminal row.

use cjm_platform::process::{Pid, Signal};
use cjm_tests::hostile::{self, Ear};
use cjm_tests::watch::{Watch, command_line};
use cjm_tests::world::{COMMAND_MAX, World, eventually};
use cjm_tests::{journal, python, repo};
use cjm_wire::describe::exit;
use serde_json::json;
use std::time::{Duration, Instant};

/// After the blow nothing may live longer than this.
const CLEAR_GOAL: Duration = Duration::from_millis(100);
/// A busy machine may take so many times the goal before the test fails (latencies are goals, not gates).
const CLEAR_SLACK: u32 = 5;
/// Repeats each case so often; `cargo xtask soak kill` sets it.
const ROUNDS_VARIABLE: &str = "CJM_SOAK_ROUNDS";

/// Who is killed, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Host,
    Shim,
    Keeper,
    HostAndShim,
    HostAndKeeper,
}

/// How the tool runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Described by its manifest, called directly.
    Executable,
    /// A Python class, as a node of a composition.
    Python,
    /// A program that links the worker library: shim and tool in one process.
    Native,
}

impl Victim {
    fn host_dies(self) -> bool {
        matches!(self, Self::Host | Self::HostAndShim | Self::HostAndKeeper)
    }
}

fn rounds() -> usize {
    std::env::var(ROUNDS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

#[test]
fn the_host_dies_and_an_executable_with_it() {
    check(Victim::Host, Kind::Executable);
}

#[test]
fn the_host_dies_and_a_python_tool_with_it() {
    check(Victim::Host, Kind::Python);
}

#[test]
fn the_shim_dies_and_an_executable_with_it() {
    check(Victim::Shim, Kind::Executable);
}

#[test]
fn the_shim_dies_and_a_python_tool_with_it() {
    check(Victim::Shim, Kind::Python);
}

#[test]
fn the_keeper_dies_and_an_executable_with_it() {
    check(Victim::Keeper, Kind::Executable);
}

#[test]
fn the_keeper_dies_and_a_python_tool_with_it() {
    check(Victim::Keeper, Kind::Python);
}

#[test]
fn host_and_shim_die_and_an_executable_with_them() {
    check(Victim::HostAndShim, Kind::Executable);
}

#[test]
fn host_and_shim_die_and_a_python_tool_with_them() {
    check(Victim::HostAndShim, Kind::Python);
}

#[test]
fn host_and_keeper_die_and_an_executable_with_them() {
    check(Victim::HostAndKeeper, Kind::Executable);
}

#[test]
fn host_and_keeper_die_and_a_python_tool_with_them() {
    check(Victim::HostAndKeeper, Kind::Python);
}

#[test]
fn the_host_dies_and_a_native_tool_with_it() {
    check(Victim::Host, Kind::Native);
}

#[test]
fn the_native_worker_dies_and_what_it_started_with_it() {
    check(Victim::Shim, Kind::Native);
}

#[test]
fn the_keeper_dies_and_a_native_tool_with_it() {
    check(Victim::Keeper, Kind::Native);
}

#[test]
fn host_and_native_worker_die_and_what_they_started_with_them() {
    check(Victim::HostAndShim, Kind::Native);
}

#[test]
fn host_and_keeper_die_and_a_native_tool_with_them() {
    check(Victim::HostAndKeeper, Kind::Native);
}

/// Plays one case through, as often as asked, on one data directory.
fn check(victim: Victim, kind: Kind) {
    let world = World::new();
    match kind {
        Kind::Executable => hostile::install_executable(&world),
        Kind::Python => hostile::install_python(&world),
        Kind::Native => hostile::install_native(&world),
    }
    install_echo(&world);
    let floor = hostile::floor(&world);
    let mut slowest = Duration::ZERO;
    for _ in 0..rounds() {
        slowest = slowest.max(strike(&world, victim, kind));
        let echoed = world.json(&["call", "echo", "text=still here", "--json"]);
        assert!(echoed.to_string().contains("still here"), "the next run works: {echoed}");
        journal::assert_every_job_ended_once(&world.journal());
    }
    world.assert_nothing_left();
    repo::measured(&format!(
        "kill {victim:?}, {kind:?} tool: all ended within {slowest:?}; the kernel alone {floor:?}, goal {CLEAR_GOAL:?}"
    ));
}

/// Starts the family, strikes, and returns how long the last of it lived.
fn strike(world: &World, victim: Victim, kind: Kind) -> Duration {
    let ear = Ear::open(world);
    let ear_argument = format!("ear={}", ear.path.display());
    let composition = world.write("hostile.yaml", COMPOSITION);
    let running = match kind {
        Kind::Executable => world.start(&["call", "hostile", &ear_argument, "--json"]),
        Kind::Native => {
            let argv = format!("argv:={}", json!(hostile::command(&ear)));
            world.start(&["call", "hostile", "--action", "run", &argv, "--json"])
        }
        Kind::Python => world.start(&["run", &composition.display().to_string(), &ear_argument, "--json"]),
    };
    let family = ear.hear_all(|| {
        let text = format!(
            "{} {:?} {:?}",
            running.stderr_so_far() + &running.stdout_so_far(),
            Watch::below(running.pid()),
            command_line(running.pid())
        );
        if running.has_ended() { Err(text) } else { Ok(text) }
    });
    let host = running.pid();
    let watch = Watch::below(host);
    for (role, pid) in &family {
        assert!(watch.all().iter().any(|w| w.pid == *pid), "{role} ({pid}) is not below the host: {watch:?}");
    }
    let (keeper, shim) = (only_child(&watch, host), only_child(&watch, only_child(&watch, host)));
    let committed = journal::rows(&world.journal());

    let signal = |pid: Pid| watch.all().iter().find(|w| w.pid == pid).expect("watched").signal(Signal::KILL);
    let start = Instant::now();
    match victim {
        Victim::Host => running.signal(Signal::KILL),
        Victim::Shim => signal(shim),
        Victim::Keeper => signal(keeper),
        Victim::HostAndShim => {
            running.signal(Signal::KILL);
            signal(shim);
        }
        Victim::HostAndKeeper => {
            running.signal(Signal::KILL);
            signal(keeper);
        }
    }
    let doomed = if victim == Victim::Shim { watch.without(keeper) } else { watch };
    let elapsed = doomed
        .gone_after(start, CLEAR_GOAL * CLEAR_SLACK)
        .unwrap_or_else(|living| panic!("{victim:?}, {kind:?}: still alive: {living:#?}"));

    let outcome = running.wait(COMMAND_MAX);
    if victim.host_dies() {
        assert_eq!(outcome.signal, Some(Signal::KILL.as_raw()), "{}", outcome.describe());
    } else {
        let code = if kind == Kind::Python { exit::COMPOSITION_FAILED } else { exit::WORKER_DIED };
        let outcome = outcome.expect(code);
        let text = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(text.contains("next_step"), "an error says what to do\n{}", outcome.describe());
    }
    world.assert_nothing_left();
    journal::assert_nothing_lost(&committed, &journal::rows(&world.journal()));
    elapsed
}

const COMPOSITION: &str = "
name: hostile
inputs: {ear: {type: string}}
nodes:
  raise: {capability: hostile, action: raise, args: {ear: '${inputs.ear}'}}
";

fn only_child(watch: &Watch, parent: Pid) -> Pid {
    let children: Vec<Pid> = watch.children_of(parent);
    let [child] = children.as_slice() else { panic!("{parent} has the children {children:?}: {watch:?}") };
    *child
}

fn install_echo(world: &World) {
    let actions = json!({"echo": {
        "parameters": {"text": {"type": "string", "required": true}},
        "argv": ["-c", "import sys; print(sys.argv[1])", "{text}"], "result": "stdout_text",
    }});
    world.install_executable("echo", &python::interpreter().display().to_string(), &actions);
}

/// A file that is being copied, and one that is copied already.
#[test]
fn a_call_that_is_killed_while_it_copies_leaves_the_folder_to_the_next_one() {
    let world = World::new();
    let size = world.file("size").display().to_string();
    let script = format!(
        "n=$(cat '{size}') && printf %s $n > a.txt && truncate -s $n big && \
         printf '{{{{\"a\": {{{{\"path\": \"%s/a.txt\", \"bytes\": %d}}}}, \"b\": {{{{\"path\": \"%s/big\", \"bytes\": %d}}}}}}}}' \
         \"$PWD\" ${{{{#n}}}} \"$PWD\" $n"
    );
    world.install_executable(
        "maker",
        "sh",
        &json!({"make": {"argv": ["-c", script], "result": "stdout_json"}}),
    );
    let out = world.file("out");
    let parts = || {
        let entries = std::fs::read_dir(&out).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part")).collect::<Vec<_>>()
    };
    world.write("size", "4000000000");
    let killed = world.start(&["call", "maker", "-o", "out"]);
    eventually("the large file is being copied", COMMAND_MAX, || {
        assert!(!killed.has_ended(), "{}", killed.stderr_so_far());
        let is_begun = |part: &std::fs::DirEntry| part.metadata().is_ok_and(|found| found.len() > 0);
        (out.join("a.txt").exists() && parts().iter().any(is_begun)).then_some(())
    });
    killed.signal(Signal::KILL);
    let _ = killed.wait(COMMAND_MAX);
    assert_eq!(parts().len(), 1, "it was killed while it copied");
    for size in ["17", "200"] {
        world.write("size", size);
        let _ = world.run(&["call", "maker", "-o", "out"]).expect(exit::OK);
        assert_eq!(std::fs::read_to_string(out.join("a.txt")).expect("there"), size);
        assert_eq!(std::fs::metadata(out.join("big")).expect("there").len().to_string(), size);
    }
    assert!(parts().is_empty());
    world.assert_nothing_left();
}
