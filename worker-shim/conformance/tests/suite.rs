//! The suite itself is examined: a good worker passes; one that breaks a single rule fails the checks of that rule and
//! no other. A proxy breaks the rules, in front of the fixture in Rust.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use cjm_conformance::{Endpoint, Options, Report, Verdict, checks, known};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Broken workers examined side by side.
const SIDE_BY_SIDE: usize = 4;

/// A binary of this crate, above the folder of its tests: `scripts/test` copies both to where another user may read them.
fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(2).unwrap().join(name)
}

/// The fixture, served on a port.
struct Fixture {
    process: Child,
    port: u16,
}

impl Fixture {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ppid = std::process::id().to_string();
        let process = Command::new(binary("cjm-conformance-fixture"))
            .args(["-m", "cjm_substrate.core.worker", "--module", "", "--class", "Fixture", "--fd", "0"])
            .args(["--ppid", &ppid])
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, port }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(format!("127.0.0.1:{}", self.port))
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A request as it came, and what is to be sent on.
struct Request {
    method: String,
    path: String,
    head: Vec<u8>,
    body: String,
}

/// One rule that is broken.
#[derive(Clone, Copy)]
struct Breach {
    name: &'static str,
    /// Checks that must fail, no other may.
    fails: &'static [&'static str],
    /// Changes what is asked.
    request: fn(&mut Request),
    /// Changes what is answered; false where the answer is none of its business.
    answer: Option<fn(&Request, &mut Answer) -> bool>,
}

/// An answer on its way back.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

fn leave(_: &mut Request) {}

const fn answers(
    name: &'static str,
    fails: &'static [&'static str],
    answer: fn(&Request, &mut Answer) -> bool,
) -> Breach {
    Breach { name, fails, request: leave, answer: Some(answer) }
}

const fn asks(name: &'static str, fails: &'static [&'static str], request: fn(&mut Request)) -> Breach {
    Breach { name, fails, request, answer: None }
}

/// Replaces text in the answers of a path.
fn replace(request: &Request, answer: &mut Answer, path: &str, from: &str, to: &str) -> bool {
    if request.path == path {
        answer.body = answer.body.replace(from, to);
    }
    request.path == path
}

/// A stream that ends by itself.
fn is_whole_stream(request: &Request) -> bool {
    request.path == "/execute_stream" && request.body.contains("\"stream")
}

/// The one rule that is broken by the proxy itself.
const SERVES_ONCE: &str = "a connection serves once";
const FAILURES: &[&str] = &["failure.input", "failure.transient", "failure.resource", "failure.fatal"];

const BREACHES: &[Breach] = &[
    answers("no version in /health", &["health.shape"], |request, answer| {
        replace(request, answer, "/health", "\"version\"", "\"release\"")
    }),
    answers("unknown paths are fine", &["serve.unknown_path"], |request, answer| {
        answer.status = 200;
        request.path == "/no/such/path"
    }),
    answers("HEAD is answered", &["serve.wrong_method"], |request, answer| {
        answer.status = 200;
        request.method == "HEAD"
    }),
    answers(SERVES_ONCE, &["serve.keep_alive"], |_, _| false),
    answers("a failing hook is a 500", &["hooks.failing"], |request, answer| {
        answer.status = if answer.body.contains("cannot be disabled") { 500 } else { answer.status };
        request.path == "/on_disable"
    }),
    answers("a path is not described", &["serve.described"], |request, answer| {
        replace(request, answer, "/openapi.json", "\"/task\"", "\"/tasks\"")
    }),
    answers("a failure under another name", FAILURES, |request, answer| {
        replace(request, answer, "/execute", "_job_error", "error")
    }),
    answers("keys of a failure in another order", FAILURES, |request, answer| {
        let swapped =
            answer.body.replace("\"retriable\":", "\"X\":").replace("\"message\":", "\"retriable\":");
        answer.body = swapped.replace("\"X\":", "\"message\":");
        request.path == "/execute" && answer.status == 500
    }),
    answers("a fatal failure is retriable", &["failure.fatal"], |request, answer| {
        if answer.body.contains("\"category\":\"fatal\"") {
            answer.body = answer.body.replace("\"retriable\":false", "\"retriable\":true");
        }
        request.path == "/execute"
    }),
    answers("a cancelled call is a failure", &["cancel.running", "cancel.one_call"], |request, answer| {
        answer.status = if answer.status == 409 { 500 } else { answer.status };
        request.path == "/execute"
    }),
    answers(
        "a stream ends with a word",
        &["stream.lines", "stream.form", "stream.empty", "stream.failure"],
        |request, answer| {
            answer.body.push_str("{\"done\": true}\n");
            is_whole_stream(request)
        },
    ),
    answers("lines of a stream are compact", &["stream.form", "stream.failure"], |request, answer| {
        answer.body = answer.body.replace("\": ", "\":");
        is_whole_stream(request)
    }),
    answers("a failed stream is a 500", &["stream.failure"], |request, answer| {
        answer.status = if answer.body.contains("_job_error") { 500 } else { 200 };
        is_whole_stream(request)
    }),
    answers("results are ASCII", &["result.text", "result.compact"], |request, answer| {
        answer.body = answer.body.replace('é', "\\u00e9").replace('☃', "\\u2603");
        request.path == "/execute"
    }),
    answers("accounts are lost", &["accounts.header"], |_, answer| {
        let before = answer.headers.len();
        answer.headers.retain(|(name, _)| name != "x-cjm-accounts");
        answer.headers.len() < before
    }),
    answers("usage stays", &["usage.new_call"], |request, answer| {
        replace(request, answer, "/stats", "\"usage\":null", "\"usage\":{\"tokens\":7}")
    }),
    asks("a cancel stops all calls", &["cancel.one_call"], |request| {
        if request.path == "/cancel" {
            request.body = String::new();
        }
    }),
    asks("the envelope is among the arguments", &["call.envelope_apart"], |request| {
        request.body = request.body.replace(
            "\"kwargs\":{\"action\":\"received\"",
            "\"kwargs\":{\"action\":\"received\",\"job_id\":\"j\"",
        );
    }),
    asks("no job reaches the tool", &["call.job"], |request| {
        request.body = request.body.replace("\"job_id\":\"a-job\"", "\"job\":\"a-job\"");
    }),
];

/// Serves one breach on a socket until the test ends.
fn break_rules(breach: Breach, fixture: &Fixture, folder: &TempDir) -> Endpoint {
    let path: PathBuf = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let (endpoint, port) = (fixture.endpoint(), fixture.port);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, endpoint) = (client.unwrap(), endpoint.clone());
            // A client may go away at any time; that is its check's business.
            std::thread::spawn(move || drop(pass_on(breach, client, &endpoint, port)));
        }
    });
    Endpoint::Unix(path)
}

fn pass_on(breach: Breach, client: UnixStream, endpoint: &Endpoint, port: u16) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    loop {
        let mut request = read(&mut reader)?;
        (breach.request)(&mut request);
        let is_last = String::from_utf8_lossy(&request.head).contains("Connection: close");
        // What waits until it is cancelled cannot be held back until it is whole.
        let passes = breach.answer.is_none() || request.body.contains("stream_wait");
        if is_last && passes {
            return tunnel(&request, client, port);
        }
        let body = request.body.as_bytes();
        let whole = endpoint.exchange(&request.method, &request.path, "application/json", body);
        let whole = whole.map_err(std::io::Error::other)?;
        let copy = || Answer { status: whole.status, headers: whole.headers.clone(), body: whole.text() };
        let mut changed = copy();
        let is_meant = breach.answer.is_some_and(|change| change(&request, &mut changed));
        write(&client, &if is_meant { changed } else { copy() })?;
        if is_last || breach.name == SERVES_ONCE {
            return Ok(());
        }
    }
}

fn read(reader: &mut impl BufRead) -> std::io::Result<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let length =
        text.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = text.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    Ok(Request { method, path, head, body: String::from_utf8_lossy(&body).into_owned() })
}

/// Byte for byte, both ways, so that a client that goes away is seen behind.
fn tunnel(request: &Request, mut client: UnixStream, port: u16) -> std::io::Result<()> {
    let mut worker = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    // On a port a worker answers to its own name alone.
    let own = format!("Host: 127.0.0.1:{port}");
    let head = String::from_utf8_lossy(&request.head).replace("Host: worker", &own);
    let kept: Vec<&str> =
        head.lines().filter(|line| !line.is_empty() && !line.starts_with("Content-Length")).collect();
    let head = format!("{}\r\nContent-Length: {}\r\n\r\n", kept.join("\r\n"), request.body.len());
    worker.write_all(head.as_bytes())?;
    worker.write_all(request.body.as_bytes())?;
    let (mut from_client, to_worker) = (client.try_clone()?, worker.try_clone()?);
    std::thread::spawn(move || {
        let mut byte = [0];
        let _ = from_client.read(&mut byte);
        let _ = to_worker.shutdown(Shutdown::Both);
    });
    std::io::copy(&mut worker, &mut client)?;
    client.shutdown(Shutdown::Both)
}

fn write(mut client: &UnixStream, answer: &Answer) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {} Word\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        if !["content-length", "transfer-encoding", "connection"].contains(&name.as_str()) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    client.write_all(format!("{text}\r\n{}", answer.body).as_bytes())
}

fn examine(endpoint: &Endpoint) -> Report {
    cjm_conformance::run(endpoint, &Options::default()).unwrap()
}

#[test]
fn a_good_worker_passes() {
    let fixture = Fixture::start();
    let report = examine(&fixture.endpoint());
    assert!(report.is_good() && report.fixture, "{}", report.to_text());
    // What Rust has no word for: types that register themselves, adapters, results that JSON cannot hold.
    let skipped = ["result.typed", "task.runs", "task.method", "failure.not_json"];
    assert_eq!(report.ids(Verdict::Skipped), skipped, "{}", report.to_text());
}

#[test]
fn a_broken_worker_fails_the_checks_of_the_rule_it_breaks_and_no_other() {
    for side_by_side in BREACHES.chunks(SIDE_BY_SIDE) {
        std::thread::scope(|scope| {
            for breach in side_by_side {
                scope.spawn(|| {
                    let (fixture, folder) = (Fixture::start(), tempfile::tempdir().unwrap());
                    let report = examine(&break_rules(*breach, &fixture, &folder));
                    let failed: BTreeSet<&str> = report.ids(Verdict::Fail).into_iter().collect();
                    let expected: BTreeSet<&str> = breach.fails.iter().copied().collect();
                    assert_eq!(failed, expected, "{}\n{}", breach.name, report.to_text());
                });
            }
        });
    }
}

#[test]
fn a_tool_that_is_not_the_fixture_is_never_called() {
    let (fixture, folder) = (Fixture::start(), tempfile::tempdir().unwrap());
    let breach = answers("another name", &[], |request, answer| {
        assert!(
            request.method == "GET" || request.method == "HEAD" || answer.status >= 400,
            "{} {} {}",
            request.method,
            request.path,
            request.body
        );
        replace(request, answer, "/health", "conformance-fixture", "somebody-elses")
    });
    let report = examine(&break_rules(breach, &fixture, &folder));
    assert!(!report.fixture && report.is_good(), "{}", report.to_text());
    assert_eq!(report.ids(Verdict::Pass).len(), 12, "{}", report.to_text());
}

#[test]
fn checks_name_sections_that_there_are_and_known_defects_name_checks() {
    let contract = include_str!("../CONTRACT.md");
    let ids: BTreeSet<&str> = checks::all().map(|check| check.id).collect();
    assert_eq!(ids.len(), checks::all().count(), "ids are unique");
    for check in checks::all() {
        let begins = |line: &str| line.starts_with(&format!("{} ", check.section));
        assert!(contract.lines().any(begins), "{}: there is no section {}", check.id, check.section);
    }
    for section in contract.lines().filter_map(|line| line.split_once(' ')).map(|(first, _)| first) {
        let is_section =
            section.split_once('.').is_some_and(|(a, b)| a.parse::<u8>().is_ok() && b.parse::<u8>().is_ok());
        // 6.1 is looked at by every check of a failure.
        if is_section && section != "6.1" {
            assert!(checks::all().any(|check| check.section == section), "no check looks at {section}");
        }
    }
    for defect in known::DEFECTS {
        assert!(ids.contains(defect.check), "{defect:?}");
        assert!(defect.releases.iter().all(|release| known::RELEASES.contains(release)), "{defect:?}");
    }
}

#[test]
fn the_program_answers_with_its_exit_code() {
    let program = binary("cjm-conformance");
    let fixture = Fixture::start();
    let good = fixture.endpoint().to_string();
    for (arguments, code, word) in [
        (vec!["--only", "health.shape", good.as_str()], 0, "1 passed, 0 failed"),
        (vec!["--json", "--only", "serve", good.as_str()], 0, "\"pass\":4"),
        (vec!["--list"], 0, "stream.abandoned"),
        (vec!["--list", "--json"], 0, "\"section\":\"7.6\""),
        (vec![], 2, "Usage"),
        (vec!["somewhere"], 2, "no address of a worker"),
        (vec!["--known-defects-of", "0.0.1", good.as_str()], 2, "0.0.51"),
        (vec!["unix:/no/such/socket"], 10, "Next: start the worker"),
    ] {
        let output = Command::new(&program).args(&arguments).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}
