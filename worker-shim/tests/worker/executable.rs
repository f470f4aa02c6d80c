//! Programs described by their manifest alone.

use crate::harness::{ANSWER_MAX, Worker, lives, shim, wait_number, wait_until_dead};
use crate::lifecycle::script;
use cjm_wire::link::{Launch, to_host, to_shim};
use serde_json::{Map, Value, json};
use std::time::Instant;

fn worker(actions: Value) -> Worker {
    Worker::ready(shim(), script(actions)).0
}

/// One action `run` that runs `text` with sh, with further keys.
fn run(text: &str, mut action: Value) -> Worker {
    action["argv"] = json!(["-c", text, "sh"]);
    worker(json!({ "run": action }))
}

#[test]
fn each_source_of_a_result_is_read() {
    for (text, more, expected) in [
        ("exit 0", json!({}), json!({"exit_code": 0})),
        ("exit 3", json!({"success_exit_codes": [0, 3]}), json!({"exit_code": 3})),
        ("echo '{{\"a\": [1.50, \"é\"]}}'", json!({"result": "stdout_json"}), json!({"a": [1.5, "é"]})),
        ("echo ' one'; echo two", json!({"result": "stdout_text"}), json!(" one\ntwo")),
        (
            "printf 'one\\r\\ntwo\\n\\nlast'",
            json!({"result": "stdout_lines"}),
            json!(["one", "two", "", "last"]),
        ),
        ("cat", json!({"stdin": "read {{me}}", "result": "stdout_text"}), json!("read {me}")),
        ("echo $LAB_VARIABLE $HOME_NOT", json!({"result": "stdout_text"}), json!("from the host")),
    ] {
        let worker = run(text, more);
        let answer = worker.post("/execute", "{}");
        assert_eq!((answer.status, answer.json()), (200, expected), "{text}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

#[test]
fn templates_become_arguments_and_never_a_command_line() {
    let worker = worker(json!({
        "show": {
            "argv": [
                "-c", "for a in \"$@\"; do printf '%s\\n' \"$a\"; done", "sh",
                "{text}", "n={number}", {"when": "flag", "args": ["--flag", "{flag}"]},
                {"when": "absent", "args": ["--absent", "{absent}"]}, "{file.stem}-{file.name}", "{{}}",
            ],
            "parameters": {
                "text": {"type": "string", "required": true}, "number": {"type": "number", "default": 1.5},
                "flag": {"type": "boolean"}, "absent": {"type": "string"}, "file": {"type": "path", "default": "/a/b.tar.gz"},
            },
            "result": "stdout_lines",
        },
    }));
    let nasty = "$(touch /tmp/x); `id` 'q' \"d\" * é";
    let answer = worker.execute("show", json!({"text": nasty, "flag": true}));
    assert_eq!(answer.json(), json!([nasty, "n=1.5", "--flag", "true", "b.tar-b.tar.gz", "{}"]));
    let answer = worker.execute("show", json!({"text": "", "flag": false, "number": 2}));
    assert_eq!(answer.json(), json!(["", "n=2", "b.tar-b.tar.gz", "{}"]));
    let error = worker.execute("show", json!({"text": "a", "typo": 1})).job_error();
    assert_eq!((&error["category"], &error["fields_invalid"]), (&json!("user_input"), &json!(["typo"])));
    assert!(has_not_run(&error), "{error}");
    assert!(
        error["message"].as_str().unwrap().contains("there are: text, number, flag, absent, file"),
        "{error}"
    );
    let error = worker.execute("hide", json!({})).job_error();
    assert_eq!(error["message"], "there is no action `hide`; there are: show");
    assert!(has_not_run(&error), "{error}");
    let error = worker.post("/execute", r#"{"args":[1]}"#).job_error();
    assert_eq!(error["fields_invalid"], json!(["args"]));
    assert!(has_not_run(&error), "{error}");
}

/// Whether the error has the mark of what was refused before a program ran.
fn has_not_run(error: &serde_json::Value) -> bool {
    error["original_exc_repr"].as_str().is_some_and(|repr| repr.starts_with("Unfit("))
}

#[test]
fn files_are_found_made_room_for_and_missed() {
    let worker = worker(json!({
        "write": {
            "argv": ["-c", "printf 12345 > \"$1\"; pwd > where", "sh", "{out}"],
            "parameters": {"name": {"type": "string", "required": true}},
            "outputs": {"out": "{work_dir}/deep/{name}.bin"}, "result": "files",
        },
        "forget": {"argv": ["-c", "exit 0"], "outputs": {"out": "{work_dir}/out"}, "result": "files"},
        "code": {"argv": ["-c", "printf 1 > \"$1\"", "sh", "{out}"], "outputs": {"out": "out"}},
        "nothing": {"argv": ["-c", "exit 0"]},
    }));
    let result = worker.execute("write", json!({"name": "x"})).json();
    let path = result["out"]["path"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "12345");
    assert_eq!(result["out"]["bytes"], 5);
    let work = std::path::Path::new(path).parent().unwrap().parent().unwrap();
    assert!(work.starts_with(worker.data_dir().join("work")));
    assert_eq!(std::fs::read_to_string(work.join("where")).unwrap().trim(), work.to_str().unwrap());
    let error = worker.execute("forget", json!({})).job_error();
    assert!(error["message"].as_str().unwrap().contains("its output `out` is not there"), "{error}");
    let result = worker.execute("code", json!({})).json();
    assert_eq!((&result["exit_code"], &result["files"]["out"]["bytes"]), (&json!(0), &json!(1)));
    assert_eq!(worker.execute("nothing", json!({})).json(), json!({"exit_code": 0}));
    let left = std::fs::read_dir(worker.data_dir().join("work/session")).unwrap().count();
    assert_eq!(left, 2, "only directories that hold results are kept");
}

#[test]
fn numbers_and_depths_pass_as_they_are_or_are_refused_in_words() {
    let worker = worker(json!({
        "say": {"argv": ["-c", "cat \"$1\"", "sh", "{file}"], "parameters": {"file": {"type": "input_file", "required": true}},
            "result": "stdout_json"},
        "take": {"argv": ["-c", "exit 0"], "parameters": {"n": {"type": "number"}}},
    }));
    let deep = format!("{}18446744073709551616{}", "[".repeat(600), "]".repeat(600));
    for said in [deep.as_str(), "[1e400,-123456789012345678901234567890]", r#"{"name":"caf\udce9"}"#] {
        let file = worker.dir.path().join("said.json");
        std::fs::write(&file, said).unwrap();
        let answer = worker.execute("say", json!({"file": file}));
        assert_eq!((answer.status, answer.text()), (200, said));
        let spaced = said.replace(',', ", ").replace(':', ": ");
        assert_eq!(worker.stream_lines("say", json!({"file": file})), [spaced]);
    }
    let nested = format!(r#"{{"kwargs":{{"action":"take","n":{}1{}}}}}"#, "[".repeat(600), "]".repeat(600));
    for (body, words) in [
        (r#"{"kwargs":{"action":"take","n":18446744073709551616}}"#, "the number 18446744073709551616"),
        (r#"{"kwargs":{"action":"take","n":1e400}}"#, "the number 1e400"),
        (nested.as_str(), "nested more deeply"),
        (r#"{"kwargs":{"action":"take","n":"\udce9"}}"#, "surrogate"),
    ] {
        let error = worker.post("/execute", body).job_error();
        assert_eq!(error["category"], "user_input", "{error}");
        assert!(error["message"].as_str().unwrap().contains(words), "{error}");
        assert!(error["message"].as_str().unwrap().starts_with("`n`: "), "{error}");
        assert_eq!(error["fields_invalid"], json!(["n"]), "{error}");
        assert!(has_not_run(&error), "{error}");
        assert!(worker.post("/execute_stream", body).text().contains(words), "{body}");
    }
    assert_eq!(worker.post("/execute", r#"{"kwargs":[]}"#).text(), "Internal Server Error");
}

#[test]
fn what_is_no_regular_file_is_refused_at_once_going_in_and_coming_out() {
    let worker = worker(json!({
        "read": {"argv": ["-c", "cat \"$1\"", "sh", "{file}"],
            "parameters": {"file": {"type": "input_file", "required": true}}, "result": "stdout_text"},
        "make": {"argv": ["-c", "mkfifo \"$1\"", "sh", "{out}"], "outputs": {"out": "{work_dir}/out"}, "result": "files"},
    }));
    let pipe = worker.dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.to_str().unwrap();
    for (file, kind) in [(pipe, "named pipe"), ("/dev/zero", "device"), ("/proc", "directory")] {
        let error = worker.execute("read", json!({"file": file})).job_error();
        assert_eq!((&error["category"], &error["fields_invalid"]), (&json!("user_input"), &json!(["file"])));
        assert!(has_not_run(&error), "{error}");
        assert!(error["message"].as_str().unwrap().contains(&format!("a {kind} and no file")), "{error}");
    }
    let error = worker.execute("make", json!({})).job_error();
    assert!(
        error["message"].as_str().unwrap().contains("output `out` is a named pipe and no file"),
        "{error}"
    );
}

#[test]
fn last_words_survive_a_flood_a_long_line_and_the_end_of_the_worker() {
    for flood in [
        "head -c 20000000 /dev/zero | tr '\\0' z >&2; echo >&2",
        "yes 'one more record of many' | head -n 800000 >&2",
        "i=0; while [ $i -lt 2000 ]; do printf '\\r%s%%' $i >&2; i=$((i+1)); done; echo >&2",
    ] {
        let mut worker = run(
            &format!("echo first words >&2; {flood}; echo last words: no space left >&2; exit 1"),
            json!({}),
        );
        let error = worker.post("/execute", "{}").job_error();
        assert_eq!(error["message"], "sh ended with exit code 1: last words: no space left", "{flood}");
        worker.shutdown(std::time::Duration::from_secs(20));
        assert_eq!(worker.exit_code(), 0);
        worker.wait_stderr("last words: no space left");
        assert!(worker.stderr().starts_with("first words"), "{flood}");
    }
    // A line whose reason stands at its end.
    let worker = run(
        "printf 'error: ' >&2; head -c 50000 /dev/zero | tr '\\0' x >&2; echo ' because of this' >&2; exit 1",
        json!({}),
    );
    let message = worker.post("/execute", "{}").job_error()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("error: xx") && message.ends_with("xx because of this"), "{message}");
}

#[test]
fn failures_tell_the_code_the_last_words_and_the_category() {
    for (text, more, category, words) in [
        ("echo early >&2; echo late >&2; exit 7", json!({}), "fatal", "sh ended with exit code 7: late"),
        ("echo '<html>oops'", json!({"result": "stdout_json"}), "fatal", "\"<html>oops\""),
        ("echo NaN", json!({"result": "stdout_json"}), "fatal", "where JSON was promised"),
        ("true", json!({"result": "stdout_json"}), "fatal", "wrote nothing"),
        (
            "mkdir made",
            json!({"outputs": {"out": "{work_dir}/made"}}),
            "fatal",
            "output `out` is a directory and no file",
        ),
        ("kill -SEGV $$", json!({}), "fatal", "sh was ended by SIGSEGV"),
        ("kill -ABRT $$", json!({}), "fatal", "sh was ended by SIGABRT"),
        ("kill -TERM $$", json!({}), "transient", "sh was ended by SIGTERM, from outside or by itself"),
        ("kill -INT $$", json!({}), "transient", "sh was ended by SIGINT, from outside or by itself"),
        ("kill -HUP $$", json!({}), "transient", "sh was ended by SIGHUP, from outside or by itself"),
        ("kill -QUIT $$", json!({}), "transient", "sh was ended by SIGQUIT, from outside or by itself"),
        (
            "kill -KILL $$",
            json!({}),
            "transient",
            "by itself or at a limit of its processor time; not for lack",
        ),
        (
            "echo half; sleep 100",
            json!({"timeout_seconds": 0.05, "result": "stdout_text"}),
            "transient",
            "ran longer than 0.05 s, which is the `timeout_seconds` of its action",
        ),
        (
            "echo the reason; exit 3",
            json!({"result": "stdout_text"}),
            "fatal",
            "sh ended with exit code 3: the reason",
        ),
        (
            "echo on stdout; echo on stderr >&2; exit 3",
            json!({"result": "stdout_lines"}),
            "fatal",
            "sh ended with exit code 3: on stderr",
        ),
        (
            "head -c 70000000 /dev/zero",
            json!({"result": "stdout_text"}),
            "fatal",
            "wrote more than 67108864 bytes",
        ),
    ] {
        let worker = run(text, more);
        let error = worker.post("/execute", "{}").job_error();
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "{text}: {message}");
        assert_eq!(error["category"], category, "{text}");
        assert_eq!(error["retriable"], error["category"] == "transient" && !text.contains("half"), "{text}");
        match text {
            "echo half; sleep 100" => assert_eq!(error["traceback"], "half"),
            "echo on stdout; echo on stderr >&2; exit 3" => {
                assert_eq!(error["traceback"], "on stdout\non stderr");
            }
            _ => {}
        }
        if text.contains("late") {
            assert_eq!(error["traceback"], "early\nlate");
            worker.wait_for("stderr", || worker.stderr().contains("early\nlate\n").then_some(()));
        }
        assert_eq!(std::fs::read_dir(worker.data_dir().join("work")).unwrap().count(), 0, "{text}");
    }
}

#[test]
fn arguments_that_no_program_can_be_given_are_refused_as_such() {
    let parameters = json!({"text": {"type": "string"}});
    let worker = worker(json!({"run": {"argv": ["-c", "true", "{text}"], "parameters": parameters}}));
    let error = worker.execute("run", json!({"text": "x".repeat(200_000)})).job_error();
    assert_eq!(error["category"], "user_input");
    assert!(error["original_exc_repr"].as_str().is_some_and(|repr| repr.starts_with("Unfit(")), "{error}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("128 KiB")), "{error}");
}

#[test]
fn bytes_that_are_no_text_are_replaced_and_that_is_told() {
    let text = "printf 'one\\ntwo\\377\\nlast\\n'";
    for (result, whole) in [
        ("stdout_text", json!("one\ntwo\u{fffd}\nlast")),
        ("stdout_lines", json!(["one", "two\u{fffd}", "last"])),
    ] {
        let mut worker = run(text, json!({"result": result}));
        assert_eq!(worker.post("/execute", "{}").json(), whole);
        assert_tells_replacement(&mut worker);
    }
    let mut worker = run(text, json!({"result": "stdout_lines"}));
    assert_eq!(worker.stream_lines("run", json!({}))[..3], ["\"one\"", "\"two\\ufffd\"", "\"last\""]);
    assert_tells_replacement(&mut worker);
}

fn assert_tells_replacement(worker: &mut Worker) {
    let record = worker.frame(cjm_wire::link::to_host::RECORD);
    assert_eq!((&record["level"], &record["logger_name"]), (&json!("WARNING"), &json!("cjm_worker.result")));
    assert!(record["message"].as_str().is_some_and(|text| text.contains("not UTF-8")), "{record}");
}

#[test]
fn output_that_is_no_result_goes_to_the_host() {
    let worker = run("echo to the host; echo and this >&2", json!({}));
    worker.post("/execute", "{}");
    worker.wait_for("both", || {
        (worker.stdout() == "to the host\n" && worker.stderr() == "and this\n").then_some(())
    });
}

#[test]
fn progress_is_read_from_lines_that_a_return_ends() {
    let text = "printf 'at 10%% reading\\rat 55.5%% writing\\r' >&2; read line < {data_dir}/gate; echo";
    let progress = json!({"stream": "stderr", "pattern": r"at (?P<percent>[0-9.]+)% (?P<message>\w+)"});
    let mut worker = run(text, json!({ "progress": progress }));
    let gate = worker.data_dir().join("gate");
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let call = worker.execute_beside("run", json!({}), "job");
    worker.wait_progress("writing");
    assert_eq!(worker.get("/progress").json()["progress"], 0.555);
    std::fs::write(&gate, "go\n").unwrap();
    assert_eq!(call.join().unwrap().unwrap().status, 200);
    let report = worker.frame(to_host::PROGRESS);
    assert_eq!(report["job_id"], "job");
    let usage = worker.get("/stats").json()["usage"].clone();
    assert!(
        usage.as_object().unwrap().values().all(serde_json::Value::is_number),
        "hosts add these up: {usage}"
    );
    assert!(usage["wall_seconds"].as_f64().unwrap() > 0.0 && usage["memory_peak_mb"].as_f64().unwrap() > 0.1);
}

#[test]
fn a_cooperative_cancel_sends_the_rules_signal() {
    for signal in ["INT", "TERM", "HUP", "QUIT"] {
        let traps = ["INT", "TERM", "HUP", "QUIT"]
            .map(|name| format!("trap 'echo {name} > {{data_dir}}/stopped; exit 0' {name}; "))
            .concat();
        let text = format!("{traps}echo $$ > {{data_dir}}/up; while :; do sleep 0.01; done");
        let mut worker =
            run(&text, json!({"cancel": {"signal": format!("SIG{signal}"), "grace_ms": 20_000}}));
        let call = worker.execute_beside("run", json!({}), "job");
        let pid = wait_number(&worker.data_dir().join("up"));
        // Its host can ask without the socket, which somebody may have removed.
        let by_link = ["TERM", "QUIT"].contains(&signal);
        for job in ["other", "job"] {
            assert!(lives(pid));
            let request = json!({"job_id": job}).to_string();
            if by_link {
                worker.send(to_shim::CANCEL, request.as_bytes());
            } else {
                worker.post("/cancel", &request);
            }
        }
        let answer = call.join().unwrap().unwrap();
        assert_eq!(
            (answer.status, answer.text()),
            (409, r#"{"detail":"Capability 'lab' cancelled by operator"}"#)
        );
        let stopped = std::fs::read_to_string(worker.data_dir().join("stopped")).unwrap();
        assert_eq!(stopped, format!("{signal}\n"));
    }
}

/// A shell dies of the signal at once, and does not wait for what it was waiting for.
#[test]
fn who_was_asked_to_stop_has_the_grace_also_where_the_first_process_did_not_wait() {
    let inner = |trap: &str| {
        format!("sh -c 'trap \"{trap}\" TERM; echo $$ > {{data_dir}}/up; while :; do sleep 0.01; done'; true")
    };
    let ends_well = inner("sleep 0.3; echo done > {data_dir}/cleaned; exit 0");
    for (text, grace_ms, is_well) in [(ends_well, 20_000, true), (inner(""), 200, false)] {
        let worker = run(&text, json!({"cancel": {"signal": "SIGTERM", "grace_ms": grace_ms}}));
        let call = worker.execute_beside("run", json!({}), "job");
        let pid = wait_number(&worker.data_dir().join("up"));
        worker.post("/cancel", "");
        assert_eq!(call.join().unwrap().unwrap().status, 409);
        assert_eq!((lives(pid), worker.data_dir().join("cleaned").exists()), (false, is_well));
    }
    // Also whom nobody asked but its own limit.
    let rule = json!({"cancel": {"signal": "SIGTERM", "grace_ms": 20_000}, "timeout_seconds": 1});
    let worker = run(&inner("sleep 0.3; echo done > {data_dir}/cleaned; exit 0"), rule);
    let error = worker.post("/execute", "{}").job_error();
    assert!(error["message"].as_str().is_some_and(|message| message.contains("timeout_seconds")), "{error}");
    assert!(worker.data_dir().join("cleaned").exists());
}

#[test]
fn a_cancel_that_is_ignored_kills_and_clears_what_left_the_group() {
    let text = "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > {data_dir}/escaped; sleep 1000' & \
                while [ ! -s {data_dir}/escaped ]; do sleep 0.01; done; echo $$ > {data_dir}/up; while :; do sleep 0.01; done";
    let worker = run(text, json!({"cancel": {"signal": "SIGTERM", "grace_ms": 50}}));
    let call = worker.execute_beside("run", json!({}), "job");
    let pids = ["up", "escaped"].map(|name| wait_number(&worker.data_dir().join(name)));
    worker.post("/cancel", "");
    assert_eq!(call.join().unwrap().unwrap().status, 409);
    assert!(!pids.iter().any(|pid| lives(*pid)), "{pids:?}");
    assert_eq!(worker.get("/stats").json()["subtree_pids"], json!([worker.pid.as_raw()]));
}

#[test]
fn what_a_successful_call_leaves_behind_is_cleared() {
    let text = "sleep 1000 & echo $! > {data_dir}/member; setsid sh -c 'echo $$ > {data_dir}/escaped; sleep 1000' & \
                while [ ! -s {data_dir}/escaped ]; do sleep 0.01; done; echo done";
    // The leftovers hold standard output open; the result must not wait for them.
    let worker = run(text, json!({"result": "stdout_text"}));
    for _ in 0..3 {
        let answer = worker.post("/execute", "{}");
        assert_eq!(answer.json(), json!("done"));
        for name in ["member", "escaped"] {
            let path = worker.data_dir().join(name);
            let pid = wait_number(&path);
            assert!(!lives(pid), "{name}");
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn calls_run_side_by_side_up_to_the_limit() {
    let text = "echo $$ > {data_dir}/$1; read line < {data_dir}/gate-$1; echo $1";
    let actions = json!({"run": {
        "argv": ["-c", text, "sh", "{n}"], "parameters": {"n": {"type": "integer", "required": true}},
        "result": "stdout_text",
    }});
    let executable = json!({"program": "/bin/sh", "concurrency_max": 2, "actions": actions});
    let launch = Launch::Executable {
        program: "/bin/sh".into(),
        executable: serde_json::from_value(executable).unwrap(),
    };
    let (worker, ready) = Worker::ready(shim(), launch);
    assert_eq!(ready.concurrency_max, 2);
    for n in 0..3 {
        let gate = worker.data_dir().join(format!("gate-{n}"));
        assert!(std::process::Command::new("mkfifo").arg(gate).status().unwrap().success());
    }
    let calls: Vec<_> =
        (0..3).map(|n| worker.execute_beside("run", json!({"n": n}), &n.to_string())).collect();
    worker.wait_for("three", || (worker.get("/health").json()["calls_running"] == 3).then_some(()));
    let up = |n: usize| worker.data_dir().join(n.to_string()).exists();
    worker.wait_for("two", || ((0..3).filter(|n| up(*n)).count() == 2).then_some(()));
    let waiting = (0..3).find(|n| !up(*n)).unwrap();
    // One of the running ends by a cancel and leaves the other alone.
    let cancelled = (0..3).find(|n| *n != waiting).unwrap();
    worker.post("/cancel", &json!({"job_id": cancelled.to_string()}).to_string());
    worker.wait_for("the third", || up(waiting).then_some(()));
    for n in (0..3).filter(|n| *n != cancelled) {
        std::fs::write(worker.data_dir().join(format!("gate-{n}")), "go\n").unwrap();
    }
    for (n, call) in calls.into_iter().enumerate() {
        let answer = call.join().unwrap().unwrap();
        let expected = if n == cancelled { 409 } else { 200 };
        assert_eq!(answer.status, expected, "{n}: {}", answer.text());
    }
}

#[test]
fn lines_stream_as_they_come_and_a_reader_that_leaves_ends_the_program() {
    let text = "echo $$ > {data_dir}/pid; i=0; while :; do echo line $i é; i=$((i+1)); done";
    let worker = run(text, json!({"result": "stdout_lines"}));
    let mut stream = worker.stream("run", json!({}));
    let first = stream.chunk().unwrap().unwrap();
    assert!(first.starts_with(b"\"line 0 \\u00e9\"\n"), "{}", String::from_utf8_lossy(&first));
    let pid = wait_number(&worker.data_dir().join("pid"));
    drop(stream);
    wait_until_dead(pid);

    let worker = run("echo a; printf b", json!({"result": "stdout_lines"}));
    assert_eq!(worker.stream_lines("run", json!({})), ["\"a\"", "\"b\""]);
    let worker = run("echo a; echo broken >&2; exit 4", json!({"result": "stdout_lines"}));
    let lines = worker.stream_lines("run", json!({}));
    assert_eq!(lines[0], "\"a\"");
    assert!(lines[1].starts_with(
        r#"{"_job_error": {"category": "fatal", "message": "sh ended with exit code 4: broken""#
    ));
    let worker = run("echo '{{\"a\":1}}'", json!({"result": "stdout_json"}));
    assert_eq!(worker.stream_lines("run", json!({})), [r#"{"a": 1}"#]);
}

#[test]
fn a_cancelled_stream_ends_with_its_error() {
    let worker = run("echo a; echo x > {data_dir}/up; sleep 1000", json!({"result": "stdout_lines"}));
    let mut stream = worker.stream("run", json!({}));
    assert_eq!(stream.chunk().unwrap().unwrap(), b"\"a\"\n");
    worker.post("/cancel", r#"{"job_id":"stream"}"#);
    let last = String::from_utf8(stream.chunk().unwrap().unwrap()).unwrap();
    assert!(last.contains(r#""original_exc_repr": "CapabilityCancelledError("#), "{last}");
    assert_eq!(stream.chunk().unwrap(), None);
}

#[test]
fn a_program_that_is_not_there_is_told_at_the_start() {
    for (program, words) in [
        ("/nonexistent/tool", "install it, or correct the manifest"),
        ("tool", "not an absolute path"),
        ("/etc/passwd", "no executable file"),
    ] {
        let mut worker = Worker::start(shim());
        let executable = json!({"program": program, "actions": {"run": {"argv": []}}});
        let executable = serde_json::from_value(executable).unwrap();
        worker.send_spec(Launch::Executable { program: program.into(), executable }, Map::new());
        let failure = worker.frame(to_host::LOAD_FAILED);
        assert!(failure["message"].as_str().unwrap().contains(words), "{failure}");
        assert_eq!(worker.exit_code(), 1);
    }
}

#[test]
fn secrets_are_set_in_the_program_and_nowhere_else() {
    let mut worker = Worker::start(shim());
    let launch = script(
        json!({"run": {"argv": ["-c", "echo $LAB_KEY; cat /proc/$PPID/environ"], "result": "stdout_text"}}),
    );
    worker.send_spec(launch, Map::from_iter([("LAB_KEY".to_owned(), json!("s3cret"))]));
    worker.wait_ready();
    let answer = worker.post("/execute", "{}").json();
    let text = answer.as_str().unwrap();
    assert!(text.starts_with("s3cret\n") && text.matches("s3cret").count() == 1, "{text:?}");
}

#[test]
fn the_surface_answers_while_programs_write_without_end() {
    let worker = run("yes flood >&2", json!({"timeout_seconds": 0.5}));
    let call = worker.execute_beside("run", json!({}), "job");
    let mut times = Vec::new();
    while !call.is_finished() {
        let began = Instant::now();
        assert_eq!(worker.get("/health").status, 200);
        times.push(began.elapsed());
    }
    times.sort();
    let median = times[times.len() / 2];
    assert!(median < ANSWER_MAX, "median {median:?} of {}", times.len());
    assert_eq!(call.join().unwrap().unwrap().status, 500);
}
