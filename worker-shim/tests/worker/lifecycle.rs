//! How a worker begins and ends: descriptors, specification, lifelines, shutdown.

use crate::harness::{Worker, binary, lives, native, shim, wait_number, wait_until_dead};
use cjm_platform::Signal;
use cjm_wire::link::{Launch, to_host, to_shim};
use serde_json::{Map, json};
use std::process::Command;
use std::time::{Duration, Instant};

/// An executable whose one action runs a script with `sh`.
pub(crate) fn script(actions: serde_json::Value) -> Launch {
    let mut executable = json!({"program": "/bin/sh"});
    executable["actions"] = actions;
    Launch::Executable {
        program: "/bin/sh".to_owned(),
        executable: serde_json::from_value(executable).unwrap(),
    }
}

/// Writes its own pid and that of a descendant which left session and group, then waits.
fn hostile() -> Launch {
    script(json!({"run": {"argv": ["-c", concat!(
        "echo $$ > {data_dir}/tool; setsid sh -c 'echo $$ > {data_dir}/escaped; trap \"\" TERM; exec sleep 1000' & ",
        "while [ ! -s {data_dir}/escaped ]; do sleep 0.01; done; echo x > {data_dir}/up; sleep 1000",
    )]}}))
}

/// Starts the hostile tool and returns its processes.
fn with_hostile_tool() -> (Worker, [i32; 2], std::thread::JoinHandle<Option<crate::http::Answer>>) {
    let (worker, _) = Worker::ready(shim(), hostile());
    let call = worker.execute_beside("run", json!({}), "job");
    let pids = ["tool", "escaped"].map(|name| wait_number(&worker.data_dir().join(name)));
    assert!(pids.iter().all(|pid| lives(*pid)));
    (worker, pids, call)
}

#[test]
fn started_by_hand_it_says_who_starts_it() {
    for (program, args, words) in [
        ("cjm-worker", vec!["shim"], "cjm-ctl call NAME"),
        ("cjm-test-native", vec![], "cjm-ctl call NAME"),
        ("cjm-worker", vec![], "a mode is missing"),
        ("cjm-worker", vec!["fly"], "there is no mode fly"),
        ("cjm-worker", vec!["shim", "--fast"], "takes no arguments"),
    ] {
        let output = Command::new(binary(program)).args(&args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
    let help = Command::new(binary("cjm-worker")).arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("keeper"));
}

#[test]
fn the_end_of_lifeline_or_link_clears_the_tree_at_once() {
    for end in ["lifeline", "link"] {
        let (mut worker, pids, call) = with_hostile_tool();
        let began = Instant::now();
        if end == "lifeline" {
            worker.lifeline = None;
        } else {
            let link = worker.link.take().unwrap();
            link.shutdown(std::net::Shutdown::Both).unwrap();
        }
        let code = worker.exit_code();
        assert_eq!(code, if end == "lifeline" { 22 } else { 21 });
        assert!(!pids.iter().any(|pid| lives(*pid)), "{end}: {pids:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{end}: {:?}", began.elapsed());
        assert!(call.join().unwrap().is_none(), "no answer is invented");
    }
}

#[test]
fn a_worker_that_hears_nothing_ends_with_its_host() {
    let mut worker = Worker::start(shim());
    worker.link.take().unwrap().shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(worker.exit_code(), 21);
}

#[test]
fn a_broken_link_and_a_wrong_first_frame_are_refused() {
    let mut garbage = Worker::start(shim());
    std::io::Write::write_all(garbage.link.as_mut().unwrap(), b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(garbage.exit_code(), 23);
    let mut early = Worker::start(shim());
    early.send(to_shim::SHUTDOWN, b"{}");
    assert_eq!(early.exit_code(), 23);
    let mut empty = Worker::start(shim());
    empty.send(to_shim::SPEC, b"{}");
    assert_eq!(empty.exit_code(), 23);
    empty.wait_stderr("no specification");
    let mut wrong = Worker::start(shim());
    wrong.send_spec(Launch::Native {}, Map::new());
    let failure = wrong.frame(to_host::LOAD_FAILED);
    assert!(failure["message"].as_str().unwrap().contains("serves itself"), "{failure}");
    assert_eq!(wrong.exit_code(), 1);
}

#[test]
fn a_shutdown_cancels_cleans_up_once_and_ends_well() {
    let (mut worker, _) = Worker::ready(native(), Launch::Native {});
    let call = worker.execute_beside("wait", json!({}), "job");
    worker.wait_progress("waiting");
    worker.shutdown(Duration::from_secs(20));
    assert_eq!(call.join().unwrap().unwrap().status, 409, "its answer still arrives");
    assert_eq!(worker.exit_code(), 0);
    assert_eq!(std::fs::read_to_string(worker.data_dir().join("cleanups")).unwrap(), "x");
}

#[test]
fn a_shutdown_ends_a_running_program_by_its_cancel_rule() {
    let (mut worker, pids, call) = with_hostile_tool();
    worker.shutdown(Duration::from_secs(20));
    assert_eq!(worker.exit_code(), 0);
    assert!(!pids.iter().any(|pid| lives(*pid)));
    assert_eq!(call.join().unwrap().unwrap().status, 409);
}

#[test]
fn a_grace_that_is_over_kills() {
    let (mut worker, _) = Worker::ready(native(), Launch::Native {});
    let call = worker.execute_beside("stubborn", json!({}), "job");
    worker.wait_progress("stubborn");
    worker.shutdown(Duration::from_millis(100));
    assert_eq!(worker.exit_code(), 24);
    assert!(call.join().unwrap().is_none());
}

#[test]
fn sigterm_is_a_shutdown() {
    let (mut worker, _) = Worker::ready(native(), Launch::Native {});
    worker.kill(Signal::TERM);
    assert_eq!(worker.exit_code(), 0);
    assert_eq!(std::fs::read_to_string(worker.data_dir().join("cleanups")).unwrap(), "x");
}

#[test]
fn a_signal_cancels_nothing_and_the_last_words_say_what_had_begun() {
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2)] {
        let mut actions = json!({"run": {"argv": ["-c", "echo x > {data_dir}/up; exec sleep 1000"]}});
        actions["quick"] = json!({"argv": ["-c", "exit 0"]});
        let (mut worker, _) = Worker::ready(shim(), script(actions));
        let begun = worker.execute_beside("run", json!({}), "begun");
        worker.wait_for("the program", || worker.data_dir().join("up").exists().then_some(()));
        // One at a time: it waits for the first.
        let waiting = worker.execute_beside("quick", json!({}), "waiting");
        worker.wait_for("both calls", || (worker.get("/health").json()["calls_running"] == 2).then_some(()));
        worker.kill(signal);
        let words = worker.frame(to_host::LAST_WORDS);
        assert_eq!(words, json!({"signal": number, "given": ["begun"]}));
        for call in [begun, waiting] {
            assert!(call.join().unwrap().is_none(), "no answer: nobody asked for a cancel");
        }
        assert_eq!(worker.exit_code(), 0);
    }
}

#[test]
fn what_the_host_asked_to_end_is_cancelled_also_while_a_signal_ends_the_worker() {
    let (mut worker, _) = Worker::ready(
        shim(),
        script(json!({"run": {"argv": ["-c", "trap '' TERM; echo x > {data_dir}/up; sleep 1000"]}})),
    );
    let call = worker.execute_beside("run", json!({}), "job");
    worker.wait_for("the program", || worker.data_dir().join("up").exists().then_some(()));
    worker.post("/cancel", r#"{"job_id":"job"}"#);
    worker.kill(Signal::TERM);
    let answer = call.join().unwrap();
    assert!(answer.is_none_or(|answer| answer.status == 409), "its cancel, or the end of the worker");
    assert_eq!(worker.frame(to_host::LAST_WORDS)["given"], json!(["job"]));
}

#[test]
fn a_killed_worker_takes_its_program_along() {
    let (mut worker, pids, call) = with_hostile_tool();
    worker.kill(Signal::KILL);
    worker.wait_exit();
    // The program has a parent-death signal. What left its group falls to the keeper, which is not here.
    wait_until_dead(pids[0]);
    assert!(call.join().unwrap().is_none());
    cjm_platform::PidFd::open(cjm_platform::Pid::from_raw(pids[1]).unwrap())
        .and_then(|escaped| escaped.send_signal(Signal::KILL))
        .unwrap();
}

#[test]
fn a_tcp_socket_serves_as_well() {
    use cjm_platform::fds::{dev_null, pipe_cloexec, stream_pair};
    use cjm_platform::spawn::{SessionMode, SpawnRequest, spawn};
    use std::io::{Read as _, Write as _};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (link, theirs) = stream_pair().unwrap();
    let lifeline = pipe_cloexec().unwrap();
    let mut request = SpawnRequest::new(binary("cjm-test-native"));
    request.fds = vec![(dev_null().unwrap(), 1), (listener.into(), 3), (theirs, 4), (lifeline.read, 5)];
    request.session = SessionMode::NewSession;
    let spawned = spawn(request).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let spec = json!({"capability_name": "lab", "capability_version": "1", "instance_id": "lab",
        "worker_session_id": "s", "launch": {"kind": "native"}, "data_dir": dir.path(), "log_level": "INFO"});
    let payload = spec.to_string();
    let header =
        cjm_wire::frame::FrameHeader { payload_bytes: payload.len(), kind: to_shim::SPEC, call_id: 0 };
    let mut link = std::os::unix::net::UnixStream::from(link);
    link.write_all(&header.encode()).unwrap();
    link.write_all(payload.as_bytes()).unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(r#""status":"running""#),
        "{answer}"
    );
    drop(lifeline.write);
    assert!(spawned.pidfd.wait_exit(crate::harness::WAIT).unwrap());
    cjm_platform::process::reap(spawned.pid).unwrap();
}
