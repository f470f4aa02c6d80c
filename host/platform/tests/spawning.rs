//! What a spawned program is given, and what it is not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use cjm_platform::fds::{self, NofileLimit};
use cjm_platform::process::{self, Signal, WaitStatus};
use cjm_platform::spawn::{SessionMode, SpawnError, SpawnRequest, Spawned, spawn, spawn_small};
use cjm_platform::{Pid, tree};

const WAIT: Duration = Duration::from_secs(20);

fn sh(script: &str) -> SpawnRequest {
    SpawnRequest {
        argv: ["sh", "-c", script].map(Into::into).to_vec(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        ..SpawnRequest::new("/bin/sh")
    }
}

fn finish(spawned: &Spawned) -> WaitStatus {
    assert!(spawned.pidfd.wait_exit(WAIT).unwrap());
    process::reap(spawned.pid).unwrap().unwrap()
}

/// Runs the request with its standard output on a pipe and returns what it wrote.
fn output(mut request: SpawnRequest) -> String {
    let pipe = fds::pipe_cloexec().unwrap();
    request.fds.push((pipe.write, 1));
    let spawned = spawn(request).unwrap();
    let mut text = String::new();
    File::from(pipe.read).read_to_string(&mut text).unwrap();
    assert_eq!(finish(&spawned), WaitStatus::Exited { code: 0 });
    text
}

#[test]
fn it_has_the_arguments_environment_and_directory_named_and_no_other() {
    let request = SpawnRequest {
        env: vec![("A".into(), "1 2".into()), ("PATH".into(), "/usr/bin:/bin".into())],
        ..SpawnRequest::new("env")
    };
    assert_eq!(output(request), "A=1 2\nPATH=/usr/bin:/bin\n");
    let mut request = sh("echo $0 $1; pwd");
    request.argv.extend(["zero", "one"].map(Into::into));
    request.cwd = Some("/usr".into());
    assert_eq!(output(request), "zero one\n/usr\n");
}

#[test]
fn numbers_may_collide_and_nothing_else_is_open() {
    let leak = fds::pipe_cloexec().unwrap();
    let (first, second) = (fds::pipe_cloexec().unwrap(), fds::pipe_cloexec().unwrap());
    let (a, b) = (first.write.as_raw_fd(), second.write.as_raw_fd());
    let mut request = sh(&format!(
        "echo to-a > /proc/self/fd/{a}; echo to-b > /proc/self/fd/{b}; ls /proc/self/fd; readlink /proc/self/fd/0 /proc/self/fd/2"
    ));
    // Each at the number of the other.
    request.fds = vec![(first.write, b), (second.write, a)];
    let listing = output(request);
    let mut open: Vec<i32> = listing.lines().filter_map(|line| line.parse().ok()).collect();
    open.sort_unstable();
    // ls holds one more for the directory it lists.
    let expected = [0, 1, 2, a, b];
    let others = open.iter().filter(|fd| !expected.contains(fd)).count();
    assert_eq!((open.len(), others), (6, 1), "{listing}");
    assert_eq!(listing.matches("/dev/null").count(), 2);
    for (pipe, expected) in [(first.read, "to-b\n"), (second.read, "to-a\n")] {
        let mut text = String::new();
        File::from(pipe).read_to_string(&mut text).unwrap();
        assert_eq!(text, expected);
    }
    drop(leak);
}

#[test]
fn signals_are_as_a_program_expects_them() {
    // The Rust runtime of this test ignores SIGPIPE.
    let text = output(sh("grep -E 'Sig(Blk|Ign)' /proc/self/status"));
    assert_eq!(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[test]
fn sessions_and_groups_are_as_asked() {
    let own = tree::process_info(Pid::current()).unwrap();
    for (session, check) in [
        (SessionMode::Inherit, (false, false)),
        (SessionMode::NewGroup, (true, false)),
        (SessionMode::NewSession, (true, true)),
    ] {
        let spawned = spawn(SpawnRequest { session, ..sh("exec sleep 1000") }).unwrap();
        let info = tree::process_info(spawned.pid).unwrap();
        let pid = spawned.pid.as_raw();
        let expected = (if check.0 { pid } else { own.pgid }, if check.1 { pid } else { own.sid });
        assert_eq!((info.pgid, info.sid), expected, "{session:?}");
        spawned.pidfd.send_signal(Signal::KILL).unwrap();
        finish(&spawned);
    }
}

#[test]
fn limits_on_files_are_the_programs_own() {
    let nofile = Some(NofileLimit { soft: Some(321), hard: Some(654) });
    let text = output(SpawnRequest { nofile, ..sh("ulimit -Sn; ulimit -Hn") });
    assert_eq!(text, "321\n654\n");
}

#[test]
fn it_dies_with_the_thread_that_spawned_it() {
    let request = SpawnRequest { parent_death: Some(Signal::KILL), ..sh("exec sleep 1000") };
    let spawned = std::thread::spawn(|| spawn(request).unwrap()).join().unwrap();
    assert_eq!(finish(&spawned), WaitStatus::Signaled { signal: 9, core_dumped: false });
}

fn check_refused(request: SpawnRequest, code: &str, errno: i32, part: &str) {
    let err = spawn(request).unwrap_err();
    assert_eq!((err.code(), err.errno()), (code, errno), "{err}");
    assert!(err.to_string().contains(part), "{err}");
    assert!(!err.next_step().is_empty());
}

#[test]
fn what_cannot_run_is_an_error_and_no_child() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    let orphan = dir.path().join("orphan");
    std::fs::write(&orphan, "#!/nonexistent/interpreter\n").unwrap();
    std::fs::set_permissions(&orphan, PermissionsExt::from_mode(0o755)).unwrap();
    let exec = "spawn.exec";
    check_refused(
        SpawnRequest::new("/proc/nonexistent/tool"),
        exec,
        2,
        "cannot start /proc/nonexistent/tool: exec",
    );
    check_refused(SpawnRequest::new(&orphan), exec, 2, "orphan");
    check_refused(SpawnRequest::new(&plain), exec, 13, "plain");
    check_refused(SpawnRequest { cwd: Some("/proc/nonexistent".into()), ..sh("true") }, exec, 2, "chdir");
    check_refused(SpawnRequest::new("no-such-program-anywhere"), "spawn.not_in_path", 2, "PATH=");
    let bad = "spawn.invalid_request";
    check_refused(SpawnRequest { argv: vec!["a\0b".into()], ..sh("") }, bad, 22, "NUL");
    check_refused(SpawnRequest { env: vec![("A=B".into(), "".into())], ..sh("") }, bad, 22, "A=B");
    let null = || fds::dev_null().unwrap();
    check_refused(SpawnRequest { fds: vec![(null(), 3), (null(), 3)], ..sh("") }, bad, 22, "mapped twice");
    check_refused(SpawnRequest { fds: vec![(null(), -1)], ..sh("") }, bad, 22, "-1");
}

#[test]
fn a_program_still_open_for_writing_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tool");
    std::fs::copy("/bin/true", &path).unwrap();
    let writer = File::options().append(true).open(&path).unwrap();
    std::thread::scope(|scope| {
        let spawned = scope.spawn(|| spawn(SpawnRequest::new(&path)));
        std::thread::yield_now();
        drop(writer);
        assert_eq!(finish(&spawned.join().unwrap().unwrap()), WaitStatus::Exited { code: 0 });
    });
}

#[test]
fn the_small_spawn_gives_one_socket_and_nothing_more() {
    let (ours, theirs) = fds::stream_pair().unwrap();
    // Above the number that `ls` gets for the folder it reads, whichever are free here.
    let leaks: Vec<OwnedFd> = (0..20).map(|_| fds::dev_null().unwrap()).collect();
    let leak = leaks.iter().map(OwnedFd::as_raw_fd).max().unwrap();
    let script = "ls /proc/self/fd >&0; env >&0; read line; exit $line";
    let env = [("ONLY".into(), "this".into())];
    let spawned = spawn_small("/bin/sh".as_ref(), &["-c".into(), script.into()], &env, theirs).unwrap();
    let mut socket = File::from(ours);
    socket.write_all(b"7\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert_eq!(finish(&spawned), WaitStatus::Exited { code: 7 });
    let (numbers, variables): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.parse::<i32>().is_ok());
    assert!(!numbers.contains(&leak.to_string().as_str()), "{text}");
    // The shell adds PWD to what it passes on.
    assert!(variables.contains(&"ONLY=this") && !text.contains("HOME="), "{text}");
    drop(leaks);

    let relative = spawn_small("sh".as_ref(), &[], &[], fds::dev_null().unwrap());
    assert!(matches!(relative, Err(SpawnError::Invalid { .. })));
    let missing = spawn_small("/proc/nonexistent".as_ref(), &[], &[], fds::dev_null().unwrap());
    assert!(matches!(missing, Err(err @ SpawnError::Child { .. }) if err.errno() == 2));
}
