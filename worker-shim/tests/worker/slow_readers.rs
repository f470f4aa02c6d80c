//! What becomes of answers that were given when a worker ends, and are read slowly.

use crate::harness::{Worker, call};
use crate::http::{Streaming, open};
use crate::python::lab;
use cjm_platform::Signal;
use cjm_wire::link::to_host;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Much more than a socket holds.
const BIG: u64 = 20 << 20;
const PIECE: u64 = 1 << 20;
/// With the quotes around it.
const ANSWER: u64 = BIG + 2;

/// A big answer that is there, of which the head alone was read.
fn answered(worker: &Worker, action: &str) -> Streaming {
    let body = call(action, json!({"size": BIG}), Some("big")).to_string();
    open(&worker.socket(), "POST", "/execute", body.as_bytes()).unwrap()
}

#[test]
fn what_was_answered_before_a_worker_is_to_end_is_written_while_it_is_read() {
    for by_signal in [true, false] {
        let mut worker = lab();
        let answer = answered(&worker, "big");
        if by_signal {
            worker.kill(Signal::TERM);
        } else {
            worker.shutdown(Duration::from_secs(20));
        }
        assert_eq!(answer.read_slowly(PIECE, Duration::from_millis(40)), ANSWER, "by a signal: {by_signal}");
        assert_eq!(worker.exit_code(), 0);
    }
}

#[test]
fn what_was_answered_is_written_also_beside_a_call_that_a_signal_cannot_end() {
    let mut worker = lab();
    let other = worker.execute_beside("deaf", json!({}), "deaf");
    worker.wait_progress("deaf");
    let answer = answered(&worker, "big");
    worker.kill(Signal::TERM);
    // Longer than the grace of a signal, and not as long as it and what follows.
    assert_eq!(answer.read_slowly(PIECE, Duration::from_millis(150)), ANSWER);
    assert_eq!(worker.exit_code(), 24);
    assert!(other.join().unwrap().is_none());
}

#[test]
fn who_orders_an_end_waits_for_slow_readers_no_longer_than_the_grace_that_he_gives() {
    for (before, code) in [("", 0), ("the tool died", 20), ("a signal", 24)] {
        let mut worker = lab();
        let tool_died = code == 20;
        let answer = answered(&worker, if tool_died { "big_then_die" } else { "big" });
        let reading = std::thread::spawn(move || answer.read_slowly(PIECE / 8, Duration::from_millis(100)));
        if tool_died {
            assert_ne!(worker.frame(to_host::TOOL_EXIT), Value::Null);
        } else if code == 24 {
            worker.kill(Signal::TERM);
            let cleanups = worker.data_dir().join("cleanups");
            worker.wait_for("its end to begin", || cleanups.exists().then_some(()));
        }
        let began = Instant::now();
        worker.shutdown(Duration::from_millis(100));
        assert_eq!(worker.exit_code(), code, "{before}");
        // Reading all of it takes sixteen.
        assert!(began.elapsed() < Duration::from_secs(8), "{before}: {:?}", began.elapsed());
        assert!(reading.join().unwrap() < ANSWER);
    }
}
