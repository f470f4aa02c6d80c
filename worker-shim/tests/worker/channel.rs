//! The manifest kind `channel`: the complete tools of docs/RUNTIME-CHANNEL.md, as they stand there, under the real shim.

use crate::harness::{Worker, shim};
use cjm_wire::link::{Launch, to_host};
use serde_json::{Map, Value, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// The program of the document in this language, written into a folder.
fn written(worker: &Worker, language: &str) -> PathBuf {
    let document = include_str!("../../../docs/RUNTIME-CHANNEL.md");
    let begin = format!("```{language}\n");
    let source = document.split(&begin).nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let path = worker.dir.path().join(format!("tool.{language}"));
    std::fs::write(&path, source).unwrap();
    path
}

fn on_the_path(name: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())?;
    Some(found.to_string_lossy().into_owned())
}

fn launch(program: String, args: &[PathBuf]) -> Launch {
    let args = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    Launch::Channel { program, args }
}

/// What the page promises of either example.
fn keeps_the_page(program: String, language: &str, side_by_side: bool) {
    let mut worker = Worker::start(shim());
    let source = written(&worker, language);
    worker.send_spec(launch(program, &[source]), Map::new());
    let ready = worker.wait_ready();
    assert_eq!((ready.name.as_str(), ready.version.as_str()), ("lab", "1.0.0"));
    assert!(ready.tool_pid.is_some());
    assert_eq!(worker.execute("upper", json!({"text": "abc"})).json(), json!("ABC"));
    let error = worker.execute("upper", json!({})).job_error();
    assert!(error["message"].as_str().unwrap().contains("text is missing"), "{error}");
    assert_eq!(worker.execute("nothing", json!({})).job_error()["category"], "user_input");
    assert_eq!(worker.post("/initialize", "{}").json(), json!({"status": "ok"}));
    assert_eq!(worker.post("/prefetch", "").json(), json!({"status": "not_supported"}));

    // More than the credit of the start.
    let lines = worker.stream_lines("count", json!({"n": 200}));
    let numbers: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(numbers, (0..200).map(|i| json!({"i": i})).collect::<Vec<_>>());

    let waiting = worker.execute_beside("wait", json!({}), "job");
    worker.wait_progress("waiting");
    assert_eq!(worker.get("/health").json()["calls_running"], 1);
    if side_by_side {
        assert_eq!(worker.execute("upper", json!({"text": "beside"})).json(), json!("BESIDE"));
    }
    worker.post("/cancel", r#"{"job_id":"job"}"#);
    assert_eq!(waiting.join().unwrap().unwrap().status, 409);

    let mut cancelled = worker.stream("count", json!({"n": 1_000_000}));
    cancelled.chunk().unwrap().unwrap();
    worker.post("/cancel", r#"{"job_id":"stream"}"#);
    let mut text = String::new();
    while let Some(chunk) = cancelled.chunk().unwrap() {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(text.lines().last().unwrap().contains("CapabilityCancelledError("), "a cancelled stream says so");

    worker.shutdown(Duration::from_secs(20));
    assert_eq!(worker.exit_code(), 0);
    assert_eq!(worker.frame(to_host::TOOL_EXIT)["status"], json!({"code": 0}));
}

#[test]
fn the_example_in_perl_keeps_its_page() {
    keeps_the_page("/usr/bin/perl".to_owned(), "perl", false);
}

#[test]
fn the_example_in_javascript_keeps_its_page() {
    match on_the_path("node").or_else(|| on_the_path("nodejs")) {
        Some(node) => keeps_the_page(node, "javascript", true),
        // Past the harness, which keeps to itself what a test that passes has printed.
        None => std::io::stderr()
            .write_all(b"\nSKIPPED the_example_in_javascript_keeps_its_page: there is no node\n")
            .unwrap(),
    }
}

#[test]
fn secrets_come_in_the_first_frame_and_no_module_is_named() {
    let mut worker = Worker::start(shim());
    // Says what it was told, as the reason why it does not load.
    let script = r#"
        open(my $c, '+<&=', 3); sysread($c, my $head, 16); sysread($c, my $said, unpack('N', $head));
        $said =~ s/(["\\])/\\$1/g; my $body = '{"message":"' . $said . '"}';
        syswrite($c, pack('N C x3 Q>', length $body, 0x8a, 0) . $body); exit 1;
    "#;
    let path = worker.dir.path().join("told.pl");
    std::fs::write(&path, script).unwrap();
    let secrets = Map::from_iter([("LAB_KEY".to_owned(), json!("hush"))]);
    worker.send_spec(launch("/usr/bin/perl".to_owned(), &[path]), secrets);
    let failure = worker.frame(to_host::LOAD_FAILED);
    let start: Value = serde_json::from_str(failure["message"].as_str().unwrap()).unwrap();
    assert_eq!((&start["module"], &start["class"], &start["adapters"]), (&json!(""), &json!(""), &json!([])));
    assert_eq!(start["secrets"], json!({"LAB_KEY": "hush"}));
    assert_eq!(worker.exit_code(), 1);
}

#[test]
fn a_program_that_is_none_is_told_before_it_is_waited_for() {
    for (program, words) in [("/nonexistent/tool", "cannot be used"), ("/etc/passwd", "no executable file")] {
        let mut worker = Worker::start(shim());
        worker.send_spec(launch(program.to_owned(), &[]), Map::new());
        let failure = worker.frame(to_host::LOAD_FAILED);
        assert!(failure["message"].as_str().unwrap().contains(words), "{failure}");
    }
    let mut silent = Worker::start(shim());
    silent.send_spec(launch("/bin/true".to_owned(), &[]), Map::new());
    let failure = silent.frame(to_host::LOAD_FAILED);
    assert!(failure["message"].as_str().unwrap().contains("before it was ready"), "{failure}");
}
