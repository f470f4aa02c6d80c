//! A real keeper with real workers: whatever dies, nothing is left. Seen by pidfd from outside.

use std::time::{Duration, Instant};

use crate::support::{CLEAR_GATE, HOSTILE, HOSTILE_COUNT, Host, WAIT, all_gone};
use cjm_platform::lock::FileLock;
use cjm_platform::process::{Signal, WaitStatus};
use cjm_platform::{Pid, PidFd, tree, usage};
use cjm_wire::keeper::{ExitWord, HostToKeeper, KeeperToHost};

const KILLED: ExitWord = ExitWord::Signaled { signal: 9, core_dumped: false };

fn check_gate(what: &str, took: Duration) {
    println!("{what}: {} ms until nothing was left", took.as_millis());
    assert!(took <= CLEAR_GATE, "{what} took {took:?}");
}

#[test]
fn a_killed_worker_leaves_nothing_and_the_others_live_on() {
    let host = Host::start(None);
    let mut worker = host.spawn("a", HOSTILE);
    let other = host.spawn("b", "exec sleep 1000");
    let descendants = worker.descendants(HOSTILE_COUNT);
    let start = Instant::now();
    worker.pidfd.send_signal(Signal::KILL).unwrap();
    let exit = host.exited();
    check_gate("worker killed", start.elapsed());
    assert_eq!((exit.worker.as_str(), exit.pid, exit.status), ("a", worker.pid, KILLED));
    assert!(exit.descendants_killed as usize >= HOSTILE_COUNT, "{exit:?}");
    assert!(descendants.iter().all(|pidfd| pidfd.has_exited().unwrap()), "Exited comes after clearing");
    assert!(worker.pidfd.send_signal(Signal::KILL).is_err(), "and after reaping");
    assert!(!other.pidfd.has_exited().unwrap());
}

#[test]
fn a_dead_host_takes_all_with_it_and_the_tree_lock_lives_as_long() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tree.lock");
    let lock = FileLock::try_acquire(&path, "first host").unwrap();
    let mut host = Host::start(Some(&lock.share().unwrap()));
    drop(lock);
    let mut handles = Vec::new();
    for name in ["a", "b"] {
        let mut worker = host.spawn(name, HOSTILE);
        handles.extend(worker.descendants(HOSTILE_COUNT));
        handles.push(worker.pidfd);
    }
    assert_eq!(FileLock::try_acquire(&path, "second host").unwrap_err().code(), "lock.held");
    let start = Instant::now();
    host.control = None;
    all_gone(&handles);
    check_gate("host gone", start.elapsed());
    FileLock::acquire(&path, "second host", WAIT).unwrap();
    assert_eq!(host.keeper_status(), WaitStatus::Exited { code: 0 });
}

#[test]
fn a_host_that_dies_with_words_unread_and_unsent_leaves_nothing() {
    let mut host = Host::start(None);
    let mut worker = host.spawn("a", HOSTILE);
    let mut handles = worker.descendants(HOSTILE_COUNT);
    handles.push(worker.pidfd);
    for n in 0..20 {
        drop(host.request(&format!("late-{n}"), "/bin/sh", "exec sleep 1000"));
    }
    host.control = None;
    all_gone(&handles);
    let keeper = host.keeper;
    assert_eq!(host.keeper_status(), WaitStatus::Exited { code: 0 });
    assert!(tree::descendants(keeper).unwrap().is_empty());
}

#[test]
fn a_killed_keeper_is_seen_by_every_worker() {
    let mut host = Host::start(None);
    // A worker that ends at EOF of its lifeline, as the shim does.
    let lifeline = "echo ready; cat <&5 >/dev/null; exit 0";
    let mut workers = [host.spawn("a", lifeline), host.spawn("b", lifeline)];
    for worker in &mut workers {
        worker.read_lines(1);
    }
    host.keeper_fd.send_signal(Signal::KILL).unwrap();
    all_gone(&workers.map(|worker| worker.pidfd));
    assert_eq!(host.keeper_status(), WaitStatus::Signaled { signal: 9, core_dumped: false });
}

#[test]
fn a_worker_gets_its_lifeline_its_limit_and_a_session_of_its_own() {
    let host = Host::start(None);
    let script = "echo $$; ulimit -Sn; ls /proc/self/fd | tr '\\n' ' '; echo; exec sleep 1000";
    let mut worker = host.spawn("a", script);
    let lines = worker.read_lines(3);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines[0], worker.pid.to_string());
    assert_eq!(lines[1], "512");
    // ls has one more, for the directory it lists, at the lowest free number.
    assert_eq!(lines[2].trim(), "0 1 2 3 5");
    let info = tree::process_info(Pid::from_raw(worker.pid).unwrap()).unwrap();
    assert_eq!((info.ppid, info.sid, info.pgid), (host.keeper.as_raw(), worker.pid, worker.pid));
}

#[test]
fn signals_kills_exits_and_failed_starts_are_told_as_they_are() {
    let host = Host::start(None);
    let name = |name: &str| name.to_owned();
    let mut caught = host.spawn("a", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done");
    caught.read_lines(1);
    host.send(&HostToKeeper::Signal { worker: name("a"), signal: 15 });
    assert_eq!(host.exited().status, ExitWord::Exited { code: 7 });
    host.spawn("b", "exec sleep 1000");
    host.send(&HostToKeeper::Kill { worker: name("b") });
    assert_eq!(host.exited().status, KILLED);
    host.send(&HostToKeeper::Kill { worker: name("b") });

    drop(host.request("c", "/nonexistent/tool", ""));
    let told = host.recv().0;
    let KeeperToHost::SpawnFailed { worker, errno: 2, message, next_step } = told else {
        panic!("a missing program is told, and not {told:?}");
    };
    assert_eq!(worker, "c");
    assert!(message.contains("/nonexistent/tool") && !next_step.is_empty());
    // The same worker session may be tried again, since nothing of it has ever lived.
    host.spawn("c", "exec sleep 1000");
}

#[test]
fn nonsense_is_answered_and_survived() {
    let host = Host::start_ungreeted();
    host.send(&HostToKeeper::Shutdown);
    let trouble = |host: &Host| match host.recv().0 {
        KeeperToHost::Trouble { message } => message,
        other => panic!("instead of Trouble came {other:?}"),
    };
    assert!(trouble(&host).contains("waiting for Hello, cannot take Shutdown"));
    host.control().send(b"{\"type\":\"dance\"}", &[]).unwrap();
    assert!(trouble(&host).contains("cannot be read"));
    // A terminal's signals are not for it.
    for signal in [Signal::INT, Signal::HUP, Signal::QUIT, Signal::PIPE] {
        host.keeper_fd.send_signal(signal).unwrap();
    }
    host.control().send(b"[]", &[]).unwrap();
    assert!(trouble(&host).contains("cannot be read"));
}

#[test]
fn another_protocol_is_refused_with_its_own_exit_code() {
    let mut host = Host::start_ungreeted();
    host.send(&HostToKeeper::Hello { protocol: 999, tree_lock: false, nofile_soft: None });
    assert!(matches!(host.recv().0, KeeperToHost::Trouble { message } if message.contains("999")));
    assert_eq!(host.keeper_status(), WaitStatus::Exited { code: 11 });
}

#[test]
fn shutdown_reports_every_end_and_leaves_nothing() {
    let mut host = Host::start(None);
    let mut worker = host.spawn("a", HOSTILE);
    let descendants = worker.descendants(HOSTILE_COUNT);
    host.spawn("b", "exec sleep 1000");
    host.send(&HostToKeeper::Shutdown);
    let mut exits = [host.exited(), host.exited()];
    exits.sort_by(|left, right| left.worker.cmp(&right.worker));
    let [first, second] = exits;
    assert_eq!((first.worker.as_str(), second.worker.as_str()), ("a", "b"));
    assert_eq!((first.status, second.status), (KILLED, KILLED));
    assert!(first.descendants_killed as usize >= HOSTILE_COUNT, "{first:?}");
    assert!(descendants.iter().all(|pidfd| pidfd.has_exited().unwrap()));
    assert_eq!(host.keeper_status(), WaitStatus::Exited { code: 0 });
}

/// Among them is how the last workers ended.
#[test]
fn a_host_that_is_behind_still_reads_the_last_words() {
    let mut host = Host::start(None);
    host.spawn("a", "exec sleep 1000");
    // Each is answered, and a socket holds fewer answers.
    let count = 2000;
    for _ in 0..count {
        host.control().send(b"[]", &[]).unwrap();
    }
    host.send(&HostToKeeper::Shutdown);
    // From the end of its last worker on, nothing but what was not read keeps the keeper.
    let start = Instant::now();
    while !tree::descendants(host.keeper).unwrap().is_empty() {
        assert!(start.elapsed() < WAIT, "the worker stays");
        std::thread::yield_now();
    }
    for n in 0..count {
        let told = host.recv().0;
        assert!(matches!(told, KeeperToHost::Trouble { .. }), "message {n} is {told:?}");
    }
    assert_eq!(host.exited().status, KILLED);
    assert_eq!(host.keeper_status(), WaitStatus::Exited { code: 0 });
}

#[test]
fn a_keeper_told_to_end_says_so_kills_all_and_ends() {
    let mut host = Host::start(None);
    let mut worker = host.spawn("a", HOSTILE);
    let descendants = worker.descendants(HOSTILE_COUNT);
    host.keeper_fd.send_signal(Signal::TERM).unwrap();
    match host.recv().0 {
        KeeperToHost::Ending { cause } => assert!(cause.contains("SIGTERM"), "{cause}"),
        other => panic!("instead of Ending came {other:?}"),
    }
    let exit = host.exited();
    assert_eq!((exit.worker.as_str(), exit.status), ("a", KILLED));
    assert!(descendants.iter().all(|pidfd| pidfd.has_exited().unwrap()));
    assert_eq!(host.keeper_status(), WaitStatus::Exited { code: 0 });
}

#[test]
fn a_fork_storm_ends_with_its_host() {
    let mut host = Host::start(None);
    // Four chains in sessions of their own, each process of which forks the next and ends; their fuel ends
    // them should the keeper fail.
    let storm = r#"
    for i in 1 2 3 4; do setsid sh -c 'hop() { [ "$1" -gt 0 ] && hop $(($1 - 1)) & }; hop 20000' & done
    i=0; while [ $i -lt 60 ]; do setsid sleep 1000 & i=$((i + 1)); done
    echo ready
    exec sleep 1000
    "#;
    let mut worker = host.spawn("storm", storm);
    worker.read_lines(1);
    let start = Instant::now();
    host.control = None;
    assert_eq!(host.keeper_status(), WaitStatus::Exited { code: 0 }, "not 12, which says: survivors");
    println!("fork storm: {} ms", start.elapsed().as_millis());
    assert!(worker.pidfd.has_exited().unwrap());
}

#[test]
fn orphans_of_a_living_worker_are_reaped_but_not_killed() {
    let host = Host::start(None);
    // A worker that is no subreaper: what it daemonises falls to the keeper.
    let script = r#"
    (sh -c 'echo $$; exec sleep 1000' &)
    for i in 1 2 3 4 5; do (sh -c 'exit 0' &) ; done
    echo ready; exec sleep 1000"#;
    let mut worker = host.spawn("a", script);
    let lines = worker.read_lines(2);
    let orphan = lines.lines().find_map(|line| line.parse().ok()).and_then(Pid::from_raw).unwrap();
    let orphan = PidFd::open(orphan).unwrap();
    // Another worker's end clears nothing of this one's session, and sweeps what has ended.
    host.spawn("b", "exit 0");
    assert_eq!(host.exited().descendants_killed, 0);
    assert!(!orphan.has_exited().unwrap() && !worker.pidfd.has_exited().unwrap());
    let start = Instant::now();
    while tree::descendants(host.keeper).unwrap().len() > 2 {
        assert!(start.elapsed() < WAIT, "zombies stay");
        std::thread::yield_now();
    }
    host.send(&HostToKeeper::Kill { worker: "a".to_owned() });
    assert_eq!(host.exited().descendants_killed, 1);
    assert!(orphan.has_exited().unwrap());
}

#[test]
fn many_starts_leave_no_descriptor_and_little_memory_behind() {
    const STARTS: usize = 100;
    let host = Host::start(None);
    let count = || std::fs::read_dir(format!("/proc/{}/fd", host.keeper)).unwrap().count();
    // What it opens only for its start is closed by the time of the first end.
    host.spawn("first", "exit 0");
    host.exited();
    let before = count();
    for n in 0..STARTS {
        host.spawn(&format!("w{n}"), "exit 0");
        host.exited();
    }
    assert_eq!(count(), before);
    let sample = usage::sample_processes(&[host.keeper]);
    println!("keeper: {} KiB resident, {} descriptors", sample.rss_bytes / 1024, before);
    // The goal is 3 MB for the release build; this guards against growth.
    assert!(sample.rss_bytes < 6 * 1024 * 1024, "{sample:?}");
}
