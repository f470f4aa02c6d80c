//! The manifest kind `channel`: the complete tools of docs/RUNTIME-CHANNEL.md, as they stand there, under the real shim.

use crate::harness::{Worker, shim};
use cjm_wire::channel::READY_BYTES_MAX;
use cjm_wire::error::ErrorCategory;
use cjm_wire::link::{Launch, to_host};
use cjm_wire::ndjson::Line;
use serde_json::{Map, Value, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

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
    let unknown = worker.execute("nothing", json!({})).job_error();
    assert_eq!(
        (&unknown["category"], &unknown["original_exc_repr"]),
        (&json!("user_input"), &json!("Unfit()"))
    );
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

/// A tool that answers each call with a frame of this kind and these bytes; hooks it answers properly.
const ANSWERS: &str = r#"
    my ($kind, $answer) = (hex $ARGV[0], pack('H*', $ARGV[1] // ''));
    open(my $c, '+<&=', 3);
    sub take { my ($n, $b) = (shift, ''); while (length $b < $n) { sysread($c, $b, $n - length $b, length $b) or exit 0 } $b }
    sub say_ { my ($k, $id, $b) = @_; syswrite($c, pack('N C x3 Q>', length $b, $k, $id) . $b) }
    while (1) {
        my ($n, $k, $id) = unpack('N C x3 Q>', take(16)); take($n);
        if ($k == 1) { say_(0x81, 0, '{"channel_version":1,"name":"lab","version":"1","supports":[],"concurrency_max":4}') }
        elsif ($k == 0x20) {}
        elsif ($k == 0x21) { exit 0 }
        elsif ($k == 2 || $k == 3) { say_($kind, $id, $answer) }
        else { say_(0x82, $id, '{"status":"ok"}') }
    }
"#;

fn answering(kind: &str, bytes: &[u8]) -> Worker {
    let mut worker = Worker::start(shim());
    let path = worker.dir.path().join("answers.pl");
    std::fs::write(&path, ANSWERS).unwrap();
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let args = [path.to_string_lossy().into_owned(), kind.to_owned(), hex];
    worker
        .send_spec(Launch::Channel { program: "/usr/bin/perl".to_owned(), args: args.to_vec() }, Map::new());
    worker.wait_ready();
    worker
}

#[test]
fn a_result_that_is_no_json_is_the_failure_of_its_call() {
    let foreign: [&[u8]; 7] = [b"NaN", b"{nope", b"", b"\xff", b"\"\xff\"", b"1 2", b"1,\"evil\":2"];
    for bytes in foreign {
        let worker = answering("82", bytes);
        for _ in 0..2 {
            let error = worker.execute("any", json!({})).job_error();
            assert_eq!(error["category"], "fatal", "{error}");
            assert!(error["message"].as_str().unwrap().contains("no JSON"), "{error}");
            assert!(error["original_exc_repr"].as_str().unwrap().starts_with("Unwritable("), "{error}");
        }
    }
    for bytes in [r#"{"a":"\udc80"}"#, " [1e400]", "123456789012345678901234567890"] {
        assert_eq!(answering("82", bytes.as_bytes()).execute("any", json!({})).body, bytes.as_bytes());
    }
}

/// A stream of these chunks, and END.
fn streaming(chunks: &[&str]) -> Worker {
    let mut worker = Worker::start(shim());
    let (path, lines) = (worker.dir.path().join("streams.pl"), worker.dir.path().join("lines"));
    std::fs::write(&lines, chunks.iter().map(|chunk| format!("{chunk}\n")).collect::<String>()).unwrap();
    let all =
        "{ open(my $f, '<', $ARGV[1]); while (<$f>) { chomp; say_(0x84, $id, $_) } say_(0x85, $id, '') }";
    std::fs::write(&path, ANSWERS.replace("{ say_($kind, $id, $answer) }", all)).unwrap();
    worker.send_spec(launch("/usr/bin/perl".to_owned(), &[path, PathBuf::from("84"), lines]), Map::new());
    worker.wait_ready();
    worker
}

#[test]
fn a_chunk_that_reads_like_the_failure_of_a_call_is_a_chunk_wherever_it_stands() {
    let error = |repr: &str| {
        format!(
            r#"{{"_job_error": {{"category": "fatal", "message": "the tool's data", "retriable": false, "original_exc_repr": "{repr}"}}}}"#
        )
    };
    let (failed, cancelled) = (error("E()"), error("CapabilityCancelledError('x')"));
    let chunks =
        [failed.as_str(), "1", cancelled.as_str(), r#"{"_job_error": 1}"#, r#"{"a": 1.50}"#, &failed];
    let lines = streaming(&chunks).stream_lines("any", json!({}));
    assert_eq!(lines.len(), chunks.len(), "{lines:?}");
    for (line, chunk) in lines.iter().zip(chunks) {
        assert!(matches!(Line::read(line.clone()), Ok(Line::Chunk(_))), "{line}");
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(value(line), value(chunk));
    }
    assert_eq!((lines[1].as_str(), lines[4].as_str()), ("1", r#"{"a": 1.50}"#), "all others as they came");
}

#[test]
fn a_chunk_that_is_no_json_ends_its_stream_with_words_about_the_chunk() {
    // The second is looked at on a thread of its own.
    let long = format!("[{}", "1,".repeat(200_000));
    for (chunk, shown) in [("NaN", "NaN"), (long.as_str(), "[1,1,1"), ("", "is empty")] {
        let worker = streaming(&["1", chunk, "2"]);
        for _ in 0..2 {
            let lines = worker.stream_lines("any", json!({}));
            assert_eq!((lines.len(), lines[0].as_str()), (2, "1"), "{lines:?}");
            let Ok(Line::Failed(said)) = Line::read(lines[1].clone()) else { panic!("{lines:?}") };
            let error = said.job_error;
            assert_eq!(error.category, ErrorCategory::Fatal);
            assert!(error.message.starts_with("a chunk of its stream is "), "{}", error.message);
            assert!(error.message.contains("no JSON") && error.message.contains(shown), "{}", error.message);
            assert!(error.original_exc_repr.starts_with("Unwritable("), "{}", error.original_exc_repr);
        }
    }
}

#[test]
fn a_tool_that_shuts_what_it_reads_before_it_is_ready_has_failed_to_start() {
    for way in ["shutdown($c, 0)", "shutdown($c, 2)", "close $c"] {
        let mut worker = Worker::start(shim());
        let mut silent = Worker::start(shim());
        let ready = r#""concurrency_max":4}') }"#;
        assert!(ANSWERS.contains(ready) && ANSWERS.contains("if ($k == 1) { "));
        // With a READY after it, and with none.
        for (worker, then) in [(&mut worker, ""), (&mut silent, "sleep 1000; ")] {
            let path = worker.dir.path().join("shuts.pl");
            let source = ANSWERS.replace("if ($k == 1) { ", &format!("if ($k == 1) {{ {way}; {then}"));
            let source = source.replace(ready, &ready.replace(" }", "; sleep 1000 }"));
            std::fs::write(&path, source).unwrap();
            worker.send_spec(launch("/usr/bin/perl".to_owned(), &[path, PathBuf::from("82")]), Map::new());
        }
        for worker in [&mut worker, &mut silent] {
            let failure = worker.frame(to_host::LOAD_FAILED);
            let message = failure["message"].as_str().unwrap();
            let words =
                if way.ends_with("0)") { "shut down the side that it reads" } else { "before it was ready" };
            assert!(message.contains(words), "{way}: {message}");
            assert_eq!(worker.exit_code(), 1, "{way}");
        }
    }
}

#[test]
fn what_a_tool_said_before_its_end_reaches_its_clients_and_a_call_without_an_answer_gets_none() {
    let mut worker = Worker::start(shim());
    let (path, said) = (worker.dir.path().join("ends.pl"), worker.dir.path().join("said"));
    // Each is looked at on a thread of its own.
    let big = format!("\"{}\"", "x".repeat(4 << 20));
    std::fs::write(&said, &big).unwrap();
    // The third of its calls is a stream.
    let ends = r#"{
        push @ids, $id; next if @ids < 3;
        open(my $f, '<', $ARGV[1]); local $/; my $big = <$f>;
        say_(0x84, $ids[2], $big); say_(0x84, $ids[2], '1'); say_(0x82, $ids[0], $big); exit 0
    }"#;
    let source = ANSWERS.replace("{ say_($kind, $id, $answer) }", ends).replacen("my (", "my @ids; my (", 1);
    std::fs::write(&path, source).unwrap();
    worker.send_spec(launch("/usr/bin/perl".to_owned(), &[path, PathBuf::from("82"), said]), Map::new());
    worker.wait_ready();
    let mut begun = Vec::new();
    for job in ["answered", "silent"] {
        begun.push(worker.execute_beside("any", json!({}), job));
        let running = || worker.get("/health").json()["calls_running"].as_u64();
        worker.wait_for("its call", || (running() == Some(begun.len() as u64)).then_some(()));
    }
    let mut stream = worker.stream("any", json!({}));
    let (mut lines, mut cut) = (Vec::new(), false);
    while !cut {
        match stream.chunk() {
            Ok(Some(chunk)) => lines.extend_from_slice(&chunk),
            Ok(None) => panic!("a stream without its end looks whole"),
            Err(_) => cut = true,
        }
    }
    // What a stream brings is chunked, and ends each piece with a line end.
    let lines: Vec<usize> = String::from_utf8(lines).unwrap().lines().map(str::len).collect();
    let lines: Vec<usize> = lines.into_iter().filter(|length| *length > 0).collect();
    assert_eq!(lines, [big.len(), 1]);
    let answers: Vec<_> = begun.into_iter().map(|call| call.join().unwrap()).collect();
    assert_eq!(answers[0].as_ref().expect("its answer").body.len(), big.len());
    assert!(answers[1].is_none(), "it was not answered");
    assert_eq!(worker.frame(to_host::TOOL_EXIT)["calls_running"], json!(2));
    assert_eq!(worker.exit_code(), 20);
}

#[test]
fn an_answer_in_the_form_of_another_call_is_told_with_the_end_of_the_tool() {
    // END of a call, RESULT of a stream: no answer comes before the word of the breach, nor after it.
    for (kind, streams) in [("85", false), ("84", false), ("82", true)] {
        let mut worker = answering(kind, b"1");
        if streams {
            let mut stream = worker.stream("any", json!({}));
            assert!(!matches!(stream.chunk(), Ok(None)), "a cut stream has no end");
        } else {
            let call = worker.execute_beside("any", json!({}), "job");
            assert!(call.join().unwrap().is_none(), "the connection ends without an answer");
        }
        let exit = worker.frame(to_host::TOOL_EXIT);
        let fault = exit["protocol_fault"].as_str().unwrap_or_default();
        assert!(fault.contains("another kind of call"), "{exit}");
        assert_eq!(worker.exit_code(), 20);
    }
}

#[test]
fn a_call_that_a_tool_left_unread_was_not_given_to_it() {
    // It answers one call and goes; what was written to it meanwhile it has not read.
    for read in [false, true] {
        let mut worker = Worker::start(shim());
        let path = worker.dir.path().join("leaves.pl");
        let go = worker.dir.path().join("go");
        let wait = "select(undef, undef, undef, 0.005) until -e $ARGV[3];";
        let leave = if read { "take((unpack 'N', take(16))[0]);" } else { "" };
        let source = ANSWERS.replace(
            "{ say_($kind, $id, $answer) }",
            &format!("{{ say_(0x86, $id, '{{\"progress\":0.5,\"message\":\"up\"}}'); {wait} say_($kind, $id, $answer); {leave} exit 0 }}"),
        );
        std::fs::write(&path, source).unwrap();
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let args = vec![text(&path), "82".to_owned(), "31".to_owned(), String::new(), text(&go)];
        worker.send_spec(Launch::Channel { program: "/usr/bin/perl".to_owned(), args }, Map::new());
        worker.wait_ready();
        let first = worker.execute_beside("any", json!({}), "first");
        worker.wait_progress("up");
        let second = worker.execute_beside("any", json!({}), "second");
        worker.wait_for("both calls", || (worker.get("/health").json()["calls_running"] == 2).then_some(()));
        std::fs::write(&go, "").unwrap();
        assert_eq!(first.join().unwrap().unwrap().json(), json!(1));
        assert!(second.join().unwrap().is_none());
        let mut given = worker.frame(to_host::LAST_WORDS)["given"].as_array().unwrap().clone();
        given.sort_by_key(ToString::to_string);
        assert_eq!(given, if read { vec![json!("first"), json!("second")] } else { vec![json!("first")] });
        assert_eq!(worker.exit_code(), 20);
    }
}

/// How long a tool that can hear or say nothing more may live on, and what ending it may take on a busy machine.
const ENDS_WITHIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

#[test]
fn a_tool_that_closes_its_channel_or_shuts_it_down_between_calls_is_ended() {
    let ways = ["close $c", "shutdown($c, 0)", "shutdown($c, 1)", "shutdown($c, 2)"];
    // At once after its READY, or when its first call is long over. All at the same time, as each takes the same two seconds.
    let cases = ways.into_iter().flat_map(|way| [(way, false), (way, true)]);
    let mut started = cases.map(|(way, called)| {
        let mut worker = Worker::start(shim());
        let (path, shut) = (worker.dir.path().join("shuts.pl"), worker.dir.path().join("shut"));
        let then = format!("{{ {way}; open(my $f, '>', $ARGV[2]); close $f; sleep 1000 }}");
        let source = if called {
            // Longer than the shim leaves a channel unwatched that has just been read.
            let answers = "{ say_($kind, $id, $answer); select(undef, undef, undef, 0.4); ";
            ANSWERS.replace("{ say_($kind, $id, $answer) }", &then.replacen('{', answers, 1))
        } else {
            let ready = r#""concurrency_max":4}')"#;
            assert!(ANSWERS.contains(ready));
            // Not before the worker has it: it would have failed to start.
            let wait = "select(undef, undef, undef, 0.005) until -e \"$ARGV[2].go\";";
            ANSWERS.replace(&format!("{ready} }}"), &format!("{ready}; {wait} {then} }}"))
        };
        std::fs::write(&path, source).unwrap();
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let args = vec![text(&path), "82".to_owned(), "31".to_owned(), text(&shut)];
        worker.send_spec(Launch::Channel { program: "/usr/bin/perl".to_owned(), args }, Map::new());
        worker.wait_ready();
        if called {
            assert_eq!(worker.execute("any", json!({})).json(), json!(1));
        } else {
            std::fs::write(shut.with_extension("go"), "").unwrap();
        }
        (way, called, shut, worker)
    });
    let mut shut: Vec<_> = started
        .by_ref()
        .map(|(way, called, file, worker)| {
            worker.wait_for(way, || file.exists().then_some(()));
            (way, called, Instant::now(), worker)
        })
        .collect();
    for (way, called, since, worker) in &mut shut {
        let exit = worker.frame(to_host::TOOL_EXIT);
        let took = since.elapsed();
        let fault = exit["protocol_fault"].as_str().unwrap_or_default();
        assert!(fault.contains("closed its channel, or shut it down"), "{way}, {called}: {exit}");
        assert_eq!((&exit["status"], &exit["calls_running"]), (&json!({"signal": 9}), &json!(0)), "{way}");
        assert!(took < ENDS_WITHIN.0 + ENDS_WITHIN.1, "{way}, {called}: {took:?}");
        assert_eq!(worker.exit_code(), 20);
    }
}

#[test]
fn a_tool_that_shuts_what_it_reads_in_the_middle_of_a_call_is_ended() {
    let mut worker = Worker::start(shim());
    let (path, shut) = (worker.dir.path().join("shuts.pl"), worker.dir.path().join("shut"));
    // It has read the head of the call, and some of what follows.
    let takes = "take($n);";
    assert!(ANSWERS.contains(takes));
    let shuts = "if ($k == 2) { take(100000); shutdown($c, 0); open(my $f, '>', $ARGV[1]); close $f; sleep 1000 } take($n);";
    std::fs::write(&path, ANSWERS.replace(takes, shuts)).unwrap();
    let args = [path, PathBuf::from("82"), shut.clone()];
    worker.send_spec(launch("/usr/bin/perl".to_owned(), &args), Map::new());
    worker.wait_ready();
    let call = worker.execute_beside("any", json!({"x": "y".repeat(20 << 20)}), "job");
    worker.wait_for("the half call", || shut.exists().then_some(()));
    let since = Instant::now();
    let exit = worker.frame(to_host::TOOL_EXIT);
    let took = since.elapsed();
    let fault = exit["protocol_fault"].as_str().unwrap_or_default();
    assert!(fault.contains("closed its channel, or shut it down"), "{exit}");
    assert!(took < ENDS_WITHIN.0 + ENDS_WITHIN.1, "{took:?}");
    assert!(call.join().unwrap().is_none(), "it has no answer");
    assert_eq!(worker.exit_code(), 20);
}

#[test]
fn what_a_tool_that_hears_nothing_more_still_answers_counts() {
    let mut worker = Worker::start(shim());
    let path = worker.dir.path().join("deaf.pl");
    // The shim has noticed by then, and waits for its end.
    let deaf = "{ shutdown($c, 0); select(undef, undef, undef, 0.6); say_($kind, $id, $answer); exit 0 }";
    std::fs::write(&path, ANSWERS.replace("{ say_($kind, $id, $answer) }", deaf)).unwrap();
    let args = vec![path.to_string_lossy().into_owned(), "82".to_owned(), "31".to_owned()];
    worker.send_spec(Launch::Channel { program: "/usr/bin/perl".to_owned(), args }, Map::new());
    worker.wait_ready();
    assert_eq!(worker.execute("any", json!({})).json(), json!(1));
    let exit = worker.frame(to_host::TOOL_EXIT);
    assert_eq!((&exit["status"], exit.get("protocol_fault")), (&json!({"code": 0}), None), "{exit}");
}

/// What a tool whose first word has this kind and payload makes of its start.
fn first_word(kind: &str, payload: &str) -> (Worker, Value) {
    let mut worker = Worker::start(shim());
    let (path, said) = (worker.dir.path().join("first.pl"), worker.dir.path().join("said"));
    std::fs::write(&said, payload).unwrap();
    let script = r#"
        open(my $c, '+<&=', 3); open(my $f, '<', $ARGV[1]); local $/; my $body = <$f>;
        my $frame = pack('N C x3 Q>', length $body, hex $ARGV[0], 0) . $body;
        while (length $frame) { my $n = syswrite($c, $frame) or exit 1; substr($frame, 0, $n, '') }
        sleep 1000;
    "#;
    std::fs::write(&path, script).unwrap();
    let args = [&path, &PathBuf::from(kind), &said].map(|arg| arg.to_string_lossy().into_owned());
    worker
        .send_spec(Launch::Channel { program: "/usr/bin/perl".to_owned(), args: args.to_vec() }, Map::new());
    let word =
        if kind == "81" && payload.len() <= READY_BYTES_MAX { to_host::READY } else { to_host::LOAD_FAILED };
    let word = worker.frame(word);
    (worker, word)
}

#[test]
fn a_ready_that_is_too_long_is_refused_with_the_maximum() {
    let ready = |bytes: usize| {
        let head = r#"{"channel_version":1,"name":"lab","version":"1","supports":[""#;
        let tail = r#""],"concurrency_max":4}"#;
        format!("{head}{}{tail}", "x".repeat(bytes - head.len() - tail.len()))
    };
    assert_eq!(first_word("81", &ready(READY_BYTES_MAX)).1["name"], "lab");
    for bytes in [READY_BYTES_MAX + 1, 1 << 20] {
        let (mut worker, failure) = first_word("81", &ready(bytes));
        let message = failure["message"].as_str().unwrap();
        assert!(message.contains(&format!("READY has {bytes} bytes")), "{message}");
        assert!(message.contains(&format!("more than the {READY_BYTES_MAX} allowed")), "{message}");
        assert_eq!(worker.exit_code(), 1);
    }
    let document = include_str!("../../../docs/RUNTIME-CHANNEL.md");
    assert!(
        READY_BYTES_MAX == 64 * 1024 && document.contains("READY, PROGRESS, RECORD, USAGE and ACCOUNT hold")
    );
}

#[test]
fn a_reason_that_is_too_long_arrives_cut() {
    let said =
        json!({"message": "m".repeat(1 << 20), "traceback": format!("{}the end", "ä".repeat(1 << 20))});
    let (_worker, failure) = first_word("8a", &said.to_string());
    let text = |key: &str| failure[key].as_str().unwrap().to_owned();
    assert!(text("message").contains("m[1044480 bytes dropped here]m"), "{}", text("message"));
    assert!(text("traceback").starts_with("[2064392 bytes dropped here]ä"), "{}", &text("traceback")[..40]);
    assert!(text("traceback").ends_with("ääthe end"));
    assert!(failure.to_string().len() < 64 * 1024);
}
