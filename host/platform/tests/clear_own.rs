//! A process clears its own tree, as a shim does at its end. One test alone in this file: the test process is
//! the root, and another test's children would be killed with the rest.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and tells its timings"
)]

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use cjm_platform::process::{self, ChildPeek, WaitStatus};
use cjm_platform::spawn::{SessionMode, SpawnRequest, Spawned, spawn};
use cjm_platform::tree::{self, Clear, ClearReport, Clearing, Look, ProcessInfo};
use cjm_platform::{Pid, PidFd, fds};

const READY_WAIT: Duration = Duration::from_secs(20);
const CLEAR_LIMIT: Duration = Duration::from_secs(20);

/// Each line starts one descendant that writes its pid and then does what it can to be forgotten.
const HOSTILE: &str = r#"
sh -c 'echo $$; exec sleep 1000' &
setsid sh -c 'echo $$; exec sleep 1000' &
env -i /usr/bin/setsid /bin/sh -c 'echo $$; exec /bin/sleep 1000' &
(setsid sh -c 'echo $$; exec sleep 1000' &)
(setsid sh -c '(env -i /usr/bin/setsid /bin/sh -c "echo \$\$; exec /bin/sleep 1000" &) ' &)
setsid sh -c 'trap "" TERM HUP INT QUIT; echo $$; while :; do sleep 1000; done' &
sh -c 'echo $$; kill -STOP $$' &
exec sleep 1000
"#;
const HOSTILE_COUNT: usize = 7;

fn start(script: &str, session: SessionMode) -> (Spawned, OwnedFd) {
    let pipe = fds::pipe_cloexec().unwrap();
    let spawned = spawn(SpawnRequest {
        argv: ["sh", "-c", script].map(Into::into).to_vec(),
        env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        fds: vec![(pipe.write, 1)],
        session,
        ..SpawnRequest::new("/bin/sh")
    })
    .unwrap();
    (spawned, pipe.read)
}

fn read_pids(pipe: OwnedFd, count: usize) -> Vec<PidFd> {
    let mut text = String::new();
    let mut file = std::fs::File::from(pipe);
    while text.matches('\n').count() < count {
        assert!(process::poll_readable(file.as_fd(), READY_WAIT).unwrap(), "only {text:?} came");
        let mut bytes = [0; 512];
        let read = file.read(&mut bytes).unwrap();
        text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
    text.lines().map(|line| PidFd::open(Pid::from_raw(line.parse().unwrap()).unwrap()).unwrap()).collect()
}

#[test]
fn nothing_is_left_but_what_was_spared() {
    process::become_subreaper().unwrap();
    // Where the kernel lists no children, the best look is a scan, and both rounds are the same.
    for look in [Look::best(), Look::Scan] {
        for session in [SessionMode::NewSession, SessionMode::NewGroup, SessionMode::Inherit] {
            hostile_descendants_are_cleared(session, look);
        }
        a_spared_tree_lives_and_its_neighbour_is_cleared(look);
        a_kept_zombie_tells_its_status(look);
        forking_faster_than_one_can_look_does_not_help(look);
    }
    a_sweep_waits_for_nobody_and_costs_what_is_doomed();
    adopted_zombies_are_reaped_and_own_ones_kept();
}

/// Clears everything below this process.
fn clear_all(look: Look) -> ClearReport {
    Clear { look, ..Clear::own(CLEAR_LIMIT) }.run().unwrap()
}

fn hostile_descendants_are_cleared(session: SessionMode, look: Look) {
    let (spawned, pipe) = start(HOSTILE, session);
    let hostile = read_pids(pipe, HOSTILE_COUNT);
    assert!(tree::descendants(Pid::current()).unwrap().len() > HOSTILE_COUNT);
    let report = clear_all(look);
    println!("{session:?} by {look:?}: {report:?}");
    assert!(report.complete && report.survivors.is_empty());
    assert!(report.killed as usize > HOSTILE_COUNT);
    for pidfd in hostile.iter().chain([&spawned.pidfd]) {
        assert!(pidfd.has_exited().unwrap());
    }
    assert_eq!(process::peek_any_exit().unwrap(), ChildPeek::NoChildren);
}

fn a_spared_tree_lives_and_its_neighbour_is_cleared(look: Look) {
    let (spared, spared_pipe) = start(HOSTILE, SessionMode::NewSession);
    let spared_tree = read_pids(spared_pipe, HOSTILE_COUNT);
    // Its children in the same group; what has daemonised away fell to us and cannot be told from a stranger.
    let same_session = &spared_tree[..];
    let before = tree::descendants(spared.pid).unwrap();
    let (doomed, doomed_pipe) = start(HOSTILE, SessionMode::NewSession);
    let doomed_tree = read_pids(doomed_pipe, HOSTILE_COUNT);
    let report = Clear { spare: &[spared.pid], look, ..Clear::own(CLEAR_LIMIT) }.run().unwrap();
    assert!(report.complete, "{report:?}");
    for pidfd in doomed_tree.iter().chain([&doomed.pidfd]) {
        assert!(pidfd.has_exited().unwrap());
    }
    assert!(!spared.pidfd.has_exited().unwrap());
    let after = tree::descendants(spared.pid).unwrap();
    assert!(before.len() >= 4, "{before:?}");
    // One of them may have started another meanwhile.
    let lives = |info: &ProcessInfo| {
        after.iter().any(|now| (now.pid, now.start_ticks) == (info.pid, info.start_ticks))
    };
    assert!(before.iter().all(lives), "all that hang below the spared one live: {before:?}, {after:?}");
    assert!(clear_all(look).complete);
    for pidfd in same_session {
        assert!(pidfd.has_exited().unwrap());
    }
}

fn a_kept_zombie_tells_its_status(look: Look) {
    let (kept, _pipe) = start("exec sleep 1000", SessionMode::NewSession);
    let report = Clear { keep_zombies: &[kept.pid], look, ..Clear::own(CLEAR_LIMIT) }.run().unwrap();
    assert!(report.complete && report.killed == 1, "{report:?}");
    let killed = Some(WaitStatus::Signaled { signal: 9, core_dumped: false });
    assert_eq!(process::peek_exit(kept.pid).unwrap(), killed);
    assert_eq!(process::reap(kept.pid).unwrap(), killed);
}

fn forking_faster_than_one_can_look_does_not_help(look: Look) {
    // Four chains in sessions of their own, each process of which forks the next and ends, beside sixty that
    // only wait. Each chain ends by itself when its fuel is burnt, should the test fail.
    let storm = r#"
    hop() { [ "$1" -gt 0 ] && hop $(($1 - 1)) & }
    for i in 1 2 3 4; do setsid sh -c 'hop() { [ "$1" -gt 0 ] && hop $(($1 - 1)) & }; hop 20000' & done
    i=0; while [ $i -lt 60 ]; do setsid sleep 1000 & i=$((i + 1)); done
    echo $$
    exec sleep 1000
    "#;
    let (storm, pipe) = start(storm, SessionMode::NewSession);
    read_pids(pipe, 1);
    let report = clear_all(look);
    println!(
        "storm by {look:?}: {} killed in {} sweeps, {:?}, complete {}",
        report.killed, report.sweeps, report.elapsed, report.complete
    );
    assert!(report.complete, "{report:?}");
    assert!(storm.pidfd.has_exited().unwrap());
}

fn a_sweep_waits_for_nobody_and_costs_what_is_doomed() {
    const SPARED: usize = 60;
    let (spared, _pipes): (Vec<Pid>, Vec<OwnedFd>) = (0..SPARED)
        .map(|_| start("exec sleep 1000", SessionMode::NewSession))
        .map(|(spawned, pipe)| (spawned.pid, pipe))
        .unzip();
    let (doomed, pipe) = start("sh -c 'echo $$; exec sleep 1000' & exec sleep 1000", SessionMode::NewSession);
    let below = read_pids(pipe, 1);
    for look in [Look::best(), Look::Scan] {
        let quiet = Clearing::new(look).sweep(&[&spared[..], &[doomed.pid]].concat(), &[]).unwrap();
        assert!(quiet.doomed.is_empty(), "{quiet:?}");
        if look == Look::Children {
            assert_eq!(quiet.looked_at, 0, "what is spared is not looked at");
        }
    }
    let mut clearing = Clearing::new(Look::best());
    let first = clearing.sweep(&spared, &[]).unwrap();
    assert_eq!(first.doomed.iter().filter(|doomed| doomed.was_struck).count(), 2, "{first:?}");
    assert!(first.doomed.iter().all(|one| one.top == doomed.pid || one.info.pid == one.top));
    if Look::best() == Look::Children {
        assert!(first.looked_at < SPARED / 2, "{} looked at", first.looked_at);
    }
    assert!(below[0].wait_exit(READY_WAIT).unwrap() && doomed.pidfd.wait_exit(READY_WAIT).unwrap());
    let second = clearing.sweep(&spared, &[]).unwrap();
    assert!(second.doomed.iter().all(|one| !one.was_struck && !one.is_left), "{second:?}");
    assert!(clear_all(Look::best()).killed as usize == SPARED);
}

fn adopted_zombies_are_reaped_and_own_ones_kept() {
    let (own, pipe) = start("(sh -c 'echo $$' &) ; (sh -c 'echo $$' &) ; exit 3", SessionMode::Inherit);
    let adopted = read_pids_that_may_be_gone(pipe);
    assert_eq!(adopted, 2);
    assert!(own.pidfd.wait_exit(READY_WAIT).unwrap());
    let start = std::time::Instant::now();
    let mut reaped = 0;
    while reaped < adopted && start.elapsed() < READY_WAIT {
        reaped += tree::reap_adopted(&[own.pid]).unwrap();
    }
    assert_eq!(reaped, adopted);
    assert_eq!(process::reap(own.pid).unwrap(), Some(WaitStatus::Exited { code: 3 }));
    assert_eq!(process::peek_any_exit().unwrap(), ChildPeek::NoChildren);
}

fn read_pids_that_may_be_gone(pipe: OwnedFd) -> usize {
    let mut text = String::new();
    std::fs::File::from(pipe).read_to_string(&mut text).unwrap();
    text.lines().count()
}
