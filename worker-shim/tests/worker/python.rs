//! Python classes behind the shim, with the SDK that it embeds, in the system's interpreter.

use crate::harness::{ANSWER_MAX, Worker, lives, shim, tools, wait_number, wait_until_stopped};
use cjm_wire::link::{Launch, to_host};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// The interpreter all of Debian has.
const PYTHON: &str = "/usr/bin/python3";

fn launch(module: &str, class: &str) -> Launch {
    Launch::Python {
        python_path: PYTHON.to_owned(),
        module: module.to_owned(),
        class: class.to_owned(),
        adapters: Vec::new(),
    }
}

/// A worker that is told what to load, but not yet ready.
fn told(launch: Launch, secrets: &Value) -> Worker {
    let mut worker = Worker::start_with(shim(), |dir| {
        let lab_dir = dir.join("data").to_string_lossy().into_owned();
        vec![("PYTHONPATH", tools()), ("LAB_DIR", lab_dir), ("PYTHONDONTWRITEBYTECODE", "1".to_owned())]
    });
    worker.send_spec(launch, secrets.as_object().cloned().unwrap_or_default());
    worker
}

pub(crate) fn lab() -> Worker {
    let mut worker = told(launch("lab", "Lab"), &json!({}));
    worker.wait_ready();
    worker
}

fn path(worker: &Worker, name: &str) -> String {
    worker.data_dir().join(name).to_string_lossy().into_owned()
}

#[test]
fn a_class_is_hosted_in_its_own_group_with_its_secrets_and_nothing_else() {
    let mut worker = told(launch("lab", "Lab"), &json!({"LAB_KEY": "s3cret"}));
    let ready = worker.wait_ready();
    assert_eq!((ready.name.as_str(), ready.version.as_str()), ("python-lab", "4.5.6"));
    let tool = ready.tool_pid.unwrap();
    let place = worker.execute("where", json!({})).json();
    assert_eq!(
        (&place["pid"], &place["pgid"], &place["sid"]),
        (&json!(tool), &json!(tool), &json!(worker.pid.as_raw()))
    );
    assert_eq!((&place["stdin"], &place["secret"]), (&json!("/dev/null"), &json!("s3cret")));
    assert_eq!(place["start_environment"], false, "no other process can read it from /proc");
    // 3 is the listing itself, and the SDK has its channel out of the way.
    let fds: Vec<u64> = serde_json::from_value(place["fds"].clone()).unwrap();
    assert!(fds.iter().filter(|fd| **fd > 3).count() <= 1, "{fds:?}");
    let health = worker.get("/health").json();
    assert_eq!((&health["name"], &health["tool_pid"]), (&json!("python-lab"), &json!(tool)));
    assert_eq!(worker.execute("echo", json!({"a": [1, "é"]})).text(), r#"{"a":[1,"é"]}"#);
    assert_eq!(worker.get("/stats").json()["subtree_pids"], json!([worker.pid.as_raw(), tool]));
}

#[test]
fn hooks_and_failures_pass_as_the_tool_says_them() {
    let worker = lab();
    for (path, body, status, expected) in [
        ("/initialize", r#"{"a":1}"#, 200, r#"{"status":"ok"}"#),
        ("/cancel", "", 200, r#"{"status":"cancelled"}"#),
        ("/execute", "{broken", 500, "Internal Server Error"),
    ] {
        let answer = worker.post(path, body);
        assert_eq!((answer.status, answer.text()), (status, expected), "{path} {body}");
    }
    let refused = worker.post("/initialize", r#"{"bad":1}"#);
    assert_eq!((refused.status, &refused.json()["detail"]), (400, &json!("a bad configuration")));
    let beside = &refused.json()["_job_error"];
    assert_eq!(beside["original_exc_repr"], "ValueError('a bad configuration')");
    assert!(beside["traceback"].as_str().unwrap().contains("in initialize"), "{beside}");
    worker.post("/initialize", "{}");
    for (kind, category) in [
        ("input", "user_input"),
        ("value", "user_input"),
        ("os", "transient"),
        ("runtime", "fatal"),
        ("memory", "resource"),
    ] {
        let error = worker.execute("fail", json!({"kind": kind})).job_error();
        assert_eq!(error["category"], category, "{error}");
        assert!(error["traceback"].as_str().unwrap().contains("do_fail"), "{error}");
    }
    let answer = worker.execute("account", json!({}));
    let expected = r#"[{"event_type": "cache_hit", "payload": {"k": "\u00e9"}}]"#;
    assert_eq!(answer.header("x-cjm-accounts"), Some(expected));
    assert_eq!(worker.get("/stats").json()["usage"], json!({"tokens": 7}));
}

#[test]
fn the_surface_answers_while_the_tool_holds_the_interpreter_lock() {
    let worker = lab();
    let file = path(&worker, "holding");
    let call = worker.execute_beside("hold", json!({"seconds": 1.0, "file": file}), "job");
    wait_number(file.as_ref());
    let mut times = Vec::new();
    while !call.is_finished() {
        for path in ["/health", "/progress"] {
            let began = Instant::now();
            assert_eq!(worker.get(path).status, 200);
            times.push(began.elapsed());
        }
    }
    assert_eq!(call.join().unwrap().unwrap().json(), json!("held"));
    times.sort();
    // Single answers may wait for a processor; a surface that waited for the lock would give one in all.
    let median = times[times.len() / 2];
    assert!(times.len() > 10 && median < ANSWER_MAX, "median {median:?} of {}", times.len());
    assert_eq!(worker.get("/progress").json(), json!({"progress": 0.5, "message": "holding"}));
}

#[test]
fn cancel_is_per_call_and_ends_cancelled() {
    let worker = lab();
    let one = worker.execute_beside("wait", json!({}), "one");
    let two = worker.execute_beside("wait", json!({}), "two");
    worker.wait_for("both", || (worker.get("/health").json()["calls_running"] == 2).then_some(()));
    worker.post("/cancel", r#"{"job_id":"one"}"#);
    let answer = one.join().unwrap().unwrap();
    assert_eq!(
        (answer.status, answer.text()),
        (409, r#"{"detail":"Capability 'python-lab' cancelled by operator"}"#)
    );
    assert!(!two.is_finished());
    worker.post("/cancel", "");
    assert_eq!(two.join().unwrap().unwrap().status, 409);
}

#[test]
fn streams_flow_as_they_are_read_and_end_as_they_should() {
    let worker = lab();
    let lines = worker.stream_lines("count", json!({"to": 300}));
    assert_eq!(lines.len(), 300);
    assert_eq!(lines[299], r#"{"n": 299, "\u00e9": 1.0}"#);
    let lines = worker.stream_lines("count", json!({"to": 1, "then_fail": true}));
    assert!(lines[1].starts_with(r#"{"_job_error": {"category": "transient""#), "{}", lines[1]);

    let mut endless = worker.stream("count", json!({}));
    endless.chunk().unwrap().unwrap();
    drop(endless);
    worker.wait_for("the end", || (worker.get("/health").json()["calls_running"] == 0).then_some(()));

    let mut cancelled = worker.stream("count", json!({}));
    cancelled.chunk().unwrap().unwrap();
    worker.post("/cancel", r#"{"job_id":"stream"}"#);
    let mut text = String::new();
    while let Some(chunk) = cancelled.chunk().unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let last = text.lines().last().unwrap();
    assert!(last.contains(r#""original_exc_repr": "CapabilityCancelledError("#), "{last}");
}

#[test]
fn records_carry_their_job_and_yield_to_results() {
    let mut worker = lab();
    worker.execute_beside("flood", json!({"records": 3}), "the-job").join().unwrap().unwrap();
    for number in 0..3 {
        let record = worker.frame(to_host::RECORD);
        assert_eq!(record["message"], format!("record {number}"));
        assert_eq!((&record["job_id"], &record["logger_name"]), (&json!("the-job"), &json!("lab")));
        assert!(record["ts"].is_string());
    }
    // A record of another's job is not believed.
    let forged = r#"{"level":"INFO","message":"forged","job_id":"another"}"#;
    worker.execute("say", json!({"kind": 0x87, "call_id": 0, "payload": forged}));
    let record = worker.frame(to_host::RECORD);
    assert_eq!((&record["message"], record.get("job_id")), (&json!("forged"), None));
    // One that is no record is counted.
    worker.execute("say", json!({"kind": 0x87, "call_id": 0, "payload": "garbage", "repeat": 5}));
    let mut dropped = 0;
    while dropped < 5 {
        dropped += worker.frame(to_host::DROPPED)["records"].as_u64().unwrap();
    }
    assert_eq!(dropped, 5);
}

#[test]
fn large_bodies_pass_both_ways() {
    let worker = lab();
    assert_eq!(worker.execute("big", json!({"size": 20 << 20})).body.len(), (20 << 20) + 2);
    let answer = worker.execute("echo", json!({"x": "y".repeat(20 << 20)}));
    assert_eq!(answer.body.len(), (20 << 20) + 8);
}

#[test]
fn a_tool_that_dies_is_reported_before_its_callers_are_let_go() {
    for (how, status) in
        [("exit", json!({"code": 7})), ("11", json!({"signal": 11})), ("9", json!({"signal": 9}))]
    {
        let mut worker = lab();
        let escaped = path(&worker, "escaped");
        worker.execute("children", json!({"file": escaped}));
        let escaped = wait_number(escaped.as_ref());
        let tool = worker.get("/health").json()["tool_pid"].clone();
        let other = worker.execute_beside("wait", json!({}), "other");
        worker.wait_progress("waiting");
        let answer = worker.execute_beside("die", json!({"how": how}), "job");
        let exit = worker.frame(to_host::TOOL_EXIT);
        assert_eq!(exit, json!({"pid": tool, "status": status, "calls_running": 2}));
        assert_eq!(worker.exit_code(), 20);
        assert!(answer.join().unwrap().is_none() && other.join().unwrap().is_none());
        assert!(!lives(escaped), "what left the group is cleared");
        worker.wait_stderr("last words");
    }
}

#[test]
fn an_answer_larger_than_a_socket_counts_though_its_tool_ends_right_after_it() {
    let mut worker = lab();
    let other = worker.execute_beside("echo", json!({}), "other");
    other.join().unwrap().unwrap();
    let call = worker.execute_beside("big_then_die", json!({"size": 20 << 20}), "job");
    let exit = worker.frame(to_host::TOOL_EXIT);
    assert_eq!(exit["status"], json!({"code": 7}));
    assert_eq!(call.join().unwrap().expect("its answer").body.len(), (20 << 20) + 2);
    assert_eq!(worker.exit_code(), 20);
}

#[test]
fn a_tool_that_breaks_the_channel_is_killed_and_the_reason_said() {
    for (action, kwargs, words) in [
        ("garbage", json!({}), "reserved bytes"),
        ("close", json!({}), "closed its channel"),
        ("say", json!({"kind": 0x82, "call_id": 4711, "payload": "1"}), "was not asked"),
        ("say", json!({"kind": 0x84, "call_id": 4711, "payload": "1"}), "was not asked"),
        ("say", json!({"kind": 0x42, "call_id": 0, "payload": ""}), "unknown kind 0x42"),
        ("say", json!({"kind": 0x81, "call_id": 0, "payload": "{}"}), "after it was ready"),
    ] {
        let mut worker = lab();
        let call = worker.execute_beside(action, kwargs.clone(), "job");
        let exit = worker.frame(to_host::TOOL_EXIT);
        assert_eq!(exit["status"], json!({"signal": 9}), "{action} {kwargs}");
        assert!(exit["protocol_fault"].as_str().is_some_and(|why| why.contains(words)), "{action}: {exit}");
        assert_eq!(worker.exit_code(), 20);
        let record = worker.frame(to_host::RECORD);
        assert!(record["message"].as_str().unwrap().contains(words), "{action} {kwargs}: {record}");
        worker.wait_stderr(words);
        let _ = call.join();
    }
}

#[test]
fn a_python_tool_that_hears_nothing_more_ends_by_itself() {
    let mut worker = lab();
    // Its answer may still come.
    let _ = worker.execute_beside("deafen", json!({}), "job").join();
    let exit = worker.frame(to_host::TOOL_EXIT);
    assert!(exit.get("protocol_fault").is_none(), "{exit}");
    assert_eq!(worker.exit_code(), 20);
}

#[test]
fn an_answer_behind_a_breach_of_the_channel_does_not_count() {
    let mut worker = lab();
    let call = worker.execute_beside("breach_and_answer", json!({}), "job");
    let exit = worker.frame(to_host::TOOL_EXIT);
    assert_eq!(exit["protocol_fault"], "it sent a frame of the unknown kind 0x42");
    assert_eq!(worker.exit_code(), 20);
    assert!(call.join().unwrap().is_none(), "the call has no answer");
}

/// Reads a stream to what ends it: lines, and whether it ended as a whole one does.
fn read_out(mut stream: crate::http::Streaming) -> (usize, bool) {
    let mut lines = 0;
    loop {
        match stream.chunk() {
            Ok(Some(chunk)) => lines += chunk.iter().filter(|byte| **byte == b'\n').count(),
            Ok(None) => return (lines, true),
            Err(_) => return (lines, false),
        }
    }
}

#[test]
fn a_stream_whose_tool_is_gone_is_broken_off_and_never_looks_whole() {
    for how in ["exit", "11", "9"] {
        let mut worker = lab();
        let stream = worker.stream("count", json!({"to": 5, "then_die": how}));
        assert_eq!(read_out(stream), (5, false), "{how}");
        assert_eq!(worker.exit_code(), 20);
    }
    // The same while the worker ends, which lets running calls end first.
    let mut worker = lab();
    let mut stream = worker.stream("count", json!({"die_on_cancel": true}));
    stream.chunk().unwrap().unwrap();
    worker.shutdown(Duration::from_secs(20));
    assert!(!read_out(stream).1);
    assert_eq!(worker.exit_code(), 0);
    // And one that is whole ends as such.
    let worker = lab();
    assert_eq!(read_out(worker.stream("count", json!({"to": 5}))), (5, true));
}

#[test]
fn words_that_no_reader_can_decode_are_shown() {
    let mut worker = lab();
    for (kind, payload) in [
        (0x87, r#"{"level":"INFO","message":"saw caf\udce9.txt"}"#),
        (0x86, r#"{"progress":0.5,"message":"at caf\udce9.txt"}"#),
    ] {
        worker.execute("say", json!({"kind": kind, "call_id": 0, "payload": payload}));
    }
    assert_eq!(worker.frame(to_host::RECORD)["message"], r"saw caf\udce9.txt");
    worker.wait_progress(r"at caf\udce9.txt");
}

#[test]
fn a_tool_that_stops_reading_costs_its_callers_and_not_the_surface() {
    let worker = lab();
    let stopped = worker.execute_beside("stop_reading", json!({}), "stopped");
    let tool = worker.get("/health").json()["tool_pid"].as_i64().unwrap() as i32;
    wait_until_stopped(tool);
    // Far more than the socket's buffer, so that it waits in the shim.
    let filler = worker.execute_beside("echo", json!({"x": "y".repeat(4 << 20)}), "filler");
    let running = |count: usize| {
        worker.wait_for("calls", || (worker.get("/health").json()["calls_running"] == count).then_some(()));
    };
    // The first to be queued is the one that is being written from then on.
    running(2);
    let doomed = worker.execute_beside("echo", json!({"x": "y".repeat(4 << 20)}), "doomed");
    running(3);
    worker.post("/cancel", r#"{"job_id":"doomed"}"#);
    assert_eq!(doomed.join().unwrap().unwrap().status, 409, "a call that never left is answered here");
    assert!(!filler.is_finished() && !stopped.is_finished());
    let tool = cjm_platform::Pid::from_raw(tool).unwrap();
    cjm_platform::PidFd::open(tool).unwrap().send_signal(cjm_platform::Signal::CONT).unwrap();
    assert_eq!(filler.join().unwrap().unwrap().status, 200);
    assert_eq!(stopped.join().unwrap().unwrap().status, 200);
}

#[test]
fn a_tool_that_cannot_be_loaded_says_why() {
    for (module, class, words, signal) in [
        ("no_such_module", "Lab", "ModuleNotFoundError: No module named 'no_such_module'", Value::Null),
        ("lab", "Nothing", "AttributeError", Value::Null),
        ("lab", "Broken", "RuntimeError: cannot be made", Value::Null),
        ("exits", "Lab", "ended before it was ready (exit code 3)", Value::Null),
        ("crashes", "Lab", "was ended by SIGSEGV before it was ready", json!(11)),
    ] {
        let mut worker = told(launch(module, class), &Value::Null);
        let failure = worker.frame(to_host::LOAD_FAILED);
        assert!(failure["message"].as_str().unwrap().contains(words), "{failure}");
        assert_eq!(failure["signal"], signal, "{failure}");
        assert_eq!(worker.exit_code(), 1);
        assert!(!worker.stderr().contains(words), "what the host is told is none of its last lines");
    }
    let mut worker = Worker::start(shim());
    let Launch::Python { module, class, adapters, .. } = launch("lab", "Lab") else { unreachable!() };
    let python_path = "/nonexistent/python3".to_owned();
    worker.send_spec(Launch::Python { python_path, module, class, adapters }, Map::new());
    let failure = worker.frame(to_host::LOAD_FAILED);
    assert!(failure["message"].as_str().unwrap().contains("cannot start /nonexistent/python3"), "{failure}");
    assert_eq!(worker.exit_code(), 1);
}

#[test]
fn a_shutdown_cleans_up_once_and_a_stopped_tool_is_killed_at_its_end() {
    let mut worker = lab();
    let call = worker.execute_beside("wait", json!({}), "job");
    worker.wait_progress("waiting");
    worker.shutdown(Duration::from_secs(20));
    assert_eq!(call.join().unwrap().unwrap().status, 409);
    assert_eq!(worker.exit_code(), 0);
    assert_eq!(std::fs::read_to_string(path(&worker, "cleanups")).unwrap(), "x");
    assert_eq!(worker.frame(to_host::TOOL_EXIT)["status"], json!({"code": 0}));

    let mut worker = lab();
    worker.post("/cleanup", "");
    worker.shutdown(Duration::from_secs(20));
    assert_eq!(worker.exit_code(), 0);
    assert_eq!(std::fs::read_to_string(path(&worker, "cleanups")).unwrap(), "x", "once, whoever asks");

    let mut worker = lab();
    let _call = worker.execute_beside("stop_reading", json!({}), "job");
    let tool = worker.get("/health").json()["tool_pid"].as_i64().unwrap() as i32;
    wait_until_stopped(tool);
    worker.shutdown(Duration::from_millis(200));
    assert_eq!(worker.exit_code(), 24);
    assert!(!lives(tool));
}

#[test]
fn the_end_of_the_lifeline_clears_the_tool_and_what_left_it() {
    let mut worker = lab();
    let escaped = path(&worker, "escaped");
    worker.execute("children", json!({"file": escaped}));
    let escaped = wait_number(escaped.as_ref());
    let tool = worker.get("/health").json()["tool_pid"].as_i64().unwrap() as i32;
    worker.lifeline = None;
    assert_eq!(worker.exit_code(), 22);
    assert!(!lives(tool) && !lives(escaped));
}
