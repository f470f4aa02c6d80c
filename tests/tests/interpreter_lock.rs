//! A Python tool holds its interpreter's lock for five seconds; its worker answers all the while, because the shim
//! serves the surface and not the tool.

use cjm_tests::world::{COMMAND_MAX, World, eventually};
use cjm_tests::{journal, repo};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the tool holds the lock.
const HOLD: Duration = Duration::from_secs(5);
/// The goal for each answer.
const ANSWER_GOAL: Duration = Duration::from_millis(20);
/// How many times the goal all but one answer in a hundred may take.
const ANSWER_SLACK: u32 = 5;
/// What no answer may take. On a busy machine a single one waits for a processor; one that waited for the lock would
/// take seconds.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(5);

/// `PyDLL` keeps the lock during the call, as a C extension that never lets go of it does.
const TOOL: &str = r#"
import ctypes

from cjm_sdk import Capability, action


class Holder(Capability):
    name = "holder"
    version = "1.0.0"

    @action
    def hold(self, seconds):
        self.report_progress(0.25, "holding")
        ctypes.PyDLL(None).sleep(int(seconds))
        return {"held": seconds}
"#;

#[test]
fn health_and_progress_answer_while_a_tool_holds_the_interpreter_lock() {
    let world = World::new();
    world.install_python("holder", "Holder", TOOL);
    let seconds = format!("seconds={}", HOLD.as_secs());
    let running = world.start(&["call", "holder", &seconds, "--json"]);
    let socket = eventually("worker_spawned row", Duration::from_secs(20), || {
        assert!(!running.has_ended(), "{}", running.stderr_so_far());
        let rows = journal::rows(&world.journal());
        let row = rows.into_iter().find(|row| row.event_type == "worker_spawned")?;
        Some(PathBuf::from(row.text("socket")))
    });
    eventually("progress of the call", Duration::from_secs(20), || {
        assert!(!running.has_ended(), "{}", running.stderr_so_far());
        (ask(&socket, "/progress").1["message"] == "holding").then_some(())
    });

    let bare = Echo::start(&world);
    let start = Instant::now();
    let (mut answers, mut floors) = (Vec::new(), Vec::new());
    // A little less than the tool holds on, so that every question falls into that time.
    while start.elapsed() < HOLD - Duration::from_millis(500) {
        for path in ["/health", "/progress"] {
            let (elapsed, body) = ask(&socket, path);
            match path {
                "/health" => assert_eq!(body["status"], "running", "{body}"),
                _ => assert_eq!(
                    (&body["progress"], &body["message"]),
                    (&0.25.into(), &"holding".into()),
                    "{body}"
                ),
            }
            answers.push(elapsed);
        }
        floors.push(bare.exchange());
        std::thread::sleep(PAUSE);
    }
    assert!(!running.has_ended(), "the tool held on for as long as was asked");
    let outcome = running.wait(COMMAND_MAX).expect(0);
    assert!(outcome.stdout.contains("held"), "{}", outcome.describe());

    bare.end();
    let (answers, floors) = (Times::of(answers), Times::of(floors));
    repo::measured(&format!(
        "answers of a worker whose tool holds the interpreter lock: {answers}; bare socket: {floors}; goal {ANSWER_GOAL:?}"
    ));
    assert!(answers.median <= ANSWER_GOAL, "{answers}");
    assert!(answers.of_99 <= ANSWER_GOAL * ANSWER_SLACK, "{answers}");
    assert!(answers.slowest <= ANSWER_MAX, "{answers}");
    world.assert_nothing_left();
}

/// One request on a fresh connection, as a stranger makes it.
fn ask(socket: &Path, path: &str) -> (Duration, Value) {
    let start = Instant::now();
    let mut stream = UnixStream::connect(socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let request = format!("GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let elapsed = start.elapsed();
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    (elapsed, serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}")))
}

/// What many times come to.
struct Times {
    median: Duration,
    /// 99 in 100 took no longer.
    of_99: Duration,
    slowest: Duration,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        assert!(times.len() > 100, "only {} answers in {HOLD:?}", times.len());
        times.sort();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        Self { median: at(50), of_99: at(99), slowest: at(100) }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "median {:?}, 99 % within {:?}, slowest {:?}", self.median, self.of_99, self.slowest)
    }
}

/// A thread that echoes one word per connection: what any answer costs at least.
struct Echo {
    path: PathBuf,
    server: std::thread::JoinHandle<()>,
}

impl Echo {
    fn start(world: &World) -> Self {
        let path = world.file("bare");
        let listener = UnixListener::bind(&path).expect("a socket");
        let server = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut word = [0_u8; 4];
                // A connection without a word ends the thread.
                if stream.read_exact(&mut word).is_err() {
                    return;
                }
                stream.write_all(&word).expect("an echo");
            }
        });
        Self { path, server }
    }

    fn exchange(&self) -> Duration {
        let start = Instant::now();
        let mut stream = UnixStream::connect(&self.path).expect("a connection");
        stream.write_all(b"word").expect("a word");
        stream.read_to_end(&mut Vec::new()).expect("an echo");
        start.elapsed()
    }

    fn end(self) {
        drop(UnixStream::connect(&self.path).expect("a connection"));
        self.server.join().expect("the echo ends");
    }
}
