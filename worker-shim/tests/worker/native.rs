//! A capability in Rust: its errors, its panics, its threads, its cancels.

use crate::harness::{ANSWER_MAX, Worker, native, wait_until_dead};
use crate::http::exchange;
use cjm_wire::link::{Launch, to_host};
use serde_json::{Map, json};
use std::time::{Duration, Instant};

fn lab() -> Worker {
    Worker::ready(native(), Launch::Native {}).0
}

#[test]
fn failures_say_whose_they_are() {
    let worker = lab();
    assert_eq!(worker.execute("add", json!({"left": 2, "right": 40})).text(), "42");
    let error = worker.execute("add", json!({"left": 2, "right": "x"})).job_error();
    assert_eq!((&error["category"], &error["fields_invalid"]), (&json!("user_input"), &json!(["right"])));
    // The tool itself read its arguments, and may have done anything before.
    assert!(error["original_exc_repr"].as_str().unwrap().starts_with("ToolError::UserInput("), "{error}");
    assert!(error["message"].as_str().unwrap().starts_with("argument `right`: invalid type"), "{error}");
    let error = worker.execute("add", json!({"left": 2})).job_error();
    assert_eq!(
        (&error["message"], &error["fields_invalid"]),
        (&json!("missing field `right`"), &json!(["right"]))
    );
    let error = worker.execute("nothing", json!({})).job_error();
    assert_eq!(error["fields_invalid"], json!(["action"]));
    assert!(error["original_exc_repr"].as_str().unwrap().starts_with("Unfit("), "{error}");
    let error = worker.execute("fail", json!({})).job_error();
    assert_eq!(
        (&error["category"], &error["retriable"], &error["retry_after_seconds"], &error["capability_name"]),
        (&json!("resource"), &json!(true), &json!(2.0), &json!("lab"))
    );
}

#[test]
fn a_panic_fails_the_call_and_the_worker_lives() {
    let worker = lab();
    for _ in 0..5 {
        let error = worker.execute("panic", json!({})).job_error();
        assert_eq!((&error["category"], &error["retriable"]), (&json!("fatal"), &json!(false)));
        assert_eq!(error["message"], "the tool panicked: the lab exploded");
        assert!(error["traceback"].as_str().unwrap().contains("native_tool.rs:"), "{error}");
    }
    assert_eq!(worker.execute("add", json!({"left": 1, "right": 1})).text(), "2");
    assert_eq!(worker.get("/health").json()["calls_running"], 0);
}

#[test]
fn cancel_reaches_one_call_or_all_and_ends_them_cancelled() {
    let mut worker = lab();
    let first = worker.execute_beside("wait", json!({}), "one");
    let second = worker.execute_beside("wait", json!({}), "two");
    worker.wait_for("both", || (worker.get("/health").json()["calls_running"] == 2).then_some(()));
    worker.post("/cancel", r#"{"job_id":"one"}"#);
    let answer = first.join().unwrap().unwrap();
    assert_eq!(answer.status, 409);
    assert_eq!(answer.text(), r#"{"detail":"Capability 'lab' cancelled by operator"}"#);
    assert!(!second.is_finished(), "the other call goes on");
    assert_eq!(worker.get("/health").json()["calls_running"], 1);
    worker.post("/cancel", "");
    assert_eq!(second.join().unwrap().unwrap().status, 409);
    worker.wait_for("the hook", || (worker.execute("cancels", json!({})).json() == 2).then_some(()));
    let progress = worker.frame(to_host::PROGRESS);
    assert_eq!((&progress["progress"], &progress["message"]), (&json!(0.5), &json!("waiting")));
}

#[test]
fn calls_beyond_the_limit_wait_and_can_be_cancelled_before_they_begin() {
    let worker = lab();
    let running: Vec<_> = (0..3).map(|_| worker.execute_beside("wait", json!({}), "running")).collect();
    worker.wait_for("three", || (worker.get("/health").json()["calls_running"] == 3).then_some(()));
    let waiting = worker.execute_beside("add", json!({"left": 1, "right": 1}), "waiting");
    let doomed = worker.execute_beside("add", json!({"left": 1, "right": 1}), "doomed");
    worker.wait_for("five", || (worker.get("/health").json()["calls_running"] == 5).then_some(()));
    worker.post("/cancel", r#"{"job_id":"doomed"}"#);
    assert!(!waiting.is_finished());
    worker.post("/cancel", r#"{"job_id":"running"}"#);
    assert_eq!(waiting.join().unwrap().unwrap().text(), "2");
    assert_eq!(doomed.join().unwrap().unwrap().status, 409);
    for call in running {
        assert_eq!(call.join().unwrap().unwrap().status, 409);
    }
}

#[test]
fn the_surface_answers_while_every_thread_is_busy() {
    let worker = lab();
    let calls: Vec<_> = (0..3).map(|_| worker.execute_beside("busy", json!({}), "busy")).collect();
    worker.wait_progress("busy");
    let mut times = Vec::new();
    while !calls.iter().all(std::thread::JoinHandle::is_finished) {
        for path in ["/health", "/progress"] {
            let began = Instant::now();
            assert_eq!(worker.get(path).status, 200);
            times.push(began.elapsed());
        }
    }
    times.sort();
    // Three threads spin on what may be two processors, so single answers may wait for a turn.
    let median = times[times.len() / 2];
    assert!(median < ANSWER_MAX, "median {median:?} of {}", times.len());
}

#[test]
fn a_stream_waits_for_its_reader_and_ends_with_it() {
    let worker = lab();
    let mut stream = worker.stream("count", json!({}));
    for number in 0..10 {
        let line = String::from_utf8(stream.chunk().unwrap().unwrap()).unwrap();
        assert!(line.starts_with(&format!(r#"{{"n": {number}, "#)), "{line}");
    }
    assert_eq!(worker.get("/health").json()["calls_running"], 1, "it has no end and waits");
    drop(stream);
    worker.wait_for("the end", || (worker.get("/health").json()["calls_running"] == 0).then_some(()));

    let mut stream = worker.stream("count", json!({}));
    stream.chunk().unwrap().unwrap();
    worker.post("/cancel", r#"{"job_id":"stream"}"#);
    let mut last = Vec::new();
    while let Some(chunk) = stream.chunk().unwrap() {
        last = chunk;
    }
    let last: serde_json::Value = serde_json::from_slice(last.trim_ascii()).unwrap_or_else(|_| {
        // Several lines may come in one chunk of the encoding.
        serde_json::from_slice(last.trim_ascii().rsplit(|byte| *byte == b'\n').next().unwrap()).unwrap()
    });
    let error = &last["_job_error"];
    assert!(error["original_exc_repr"].as_str().unwrap().starts_with("CapabilityCancelledError"), "{error}");
    assert_eq!((&error["category"], &error["retriable"]), (&json!("transient"), &json!(false)));
}

#[test]
fn secrets_reach_the_tool_and_stand_in_no_environment() {
    let mut worker = Worker::start(native());
    let secrets = Map::from_iter([("LAB_KEY".to_owned(), json!("s3cret"))]);
    worker.send_spec(Launch::Native {}, secrets);
    worker.wait_ready();
    let answer = worker.execute("secret", json!({}));
    assert_eq!(answer.text(), r#"{"secret":"s3cret","environment":null}"#);
}

#[test]
fn a_tool_that_does_not_load_says_why() {
    let mut worker = Worker::start(native());
    worker.send_spec(Launch::Native {}, Map::from_iter([("LAB_REFUSES".to_owned(), json!("1"))]));
    assert_eq!(worker.frame(to_host::LOAD_FAILED)["message"], "the lab refuses to load");
    assert_eq!(worker.exit_code(), 1);
}

#[test]
fn large_bodies_pass_both_ways() {
    let worker = lab();
    let text = "y".repeat(8 << 20);
    let body =
        json!({"kwargs": {"action": "echo", "text": text}, "envelope": {"job_id": "large"}}).to_string();
    let answer = exchange(&worker.socket(), "POST", "/execute", body.as_bytes()).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["kwargs"]["text"].as_str().map(str::len), Some(8 << 20));
    assert_eq!(answer.json()["job"], "large", "a large body is looked into as well");
    assert_eq!(worker.execute("big", json!({"bytes": 20 << 20})).body.len(), (20 << 20) + 2);
    let mut head = crate::http::open(&worker.socket(), "POST", "/execute", b"x").unwrap();
    assert_eq!(head.status, 500);
    let _ = head.chunk();
}

#[test]
fn what_the_tool_started_ends_with_it() {
    let mut worker = lab();
    let child = worker.execute("child", json!({})).json().as_i64().unwrap() as i32;
    worker.shutdown(Duration::from_secs(10));
    assert_eq!(worker.exit_code(), 0);
    wait_until_dead(child);
}
