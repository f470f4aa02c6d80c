//! `cjm-ctl` with a host behind it: what `call` and `run` print where, deadlines, interruptions, closed pipes; and
//! that an interrupted installation leaves no helper behind.

use cjm_platform::process::Signal;
use cjm_tests::world::{COMMAND_MAX, World, eventually, write_script};
use cjm_tests::{journal, repo};
use cjm_wire::describe::exit;
use serde_json::json;
use std::time::{Duration, Instant};

/// How long a thing may take to begin.
const BEGIN_MAX: Duration = Duration::from_secs(30);

fn world() -> World {
    let world = World::new();
    let actions = json!({
        "say": {"parameters": {"text": {"type": "string", "required": true}}, "argv": ["-c", "printf '%s' \"$0\"", "{text}"],
                "result": "stdout_text"},
        "count": {"argv": ["-c", "echo one; echo two"], "result": "stdout_lines"},
        "wait": {"argv": ["-c", "echo waiting >&2; exec sleep 3600"]},
        "where": {"parameters": {"out": {"type": "path", "required": true}}, "argv": ["-c", "printf '%s' \"$0\"", "{out}"],
                  "result": "stdout_text"},
        "fail": {"argv": ["-c", "echo 'out of ideas' >&2; exit 3"]},
    });
    world.install_executable("shell", "sh", &actions);
    world
}

#[test]
fn a_result_is_json_text_on_request_and_a_document_with_its_story() {
    let world = world();
    let say = ["call", "shell", "--action", "say", "text=a \"b\""];
    assert_eq!(world.run(&say).expect(exit::OK).stdout, "\"a \\\"b\\\"\"\n");
    assert_eq!(world.run(&[&say[..], &["--raw"]].concat()).expect(exit::OK).stdout, "a \"b\"\n");
    let document = world.json(&[&say[..], &["--json"]].concat());
    assert_eq!(document["result"], "a \"b\"", "{document}");
    assert_eq!(document["status"], "completed", "{document}");
    let job = document["job_id"].as_str().expect("a job").to_owned();
    let story = world.json(&["logs", "--journal", "--json", "--job", &job]);
    assert!(story.as_array().is_some_and(|rows| rows.len() >= 3), "{story}");
    let forced = ["call", "shell", "--action", "say", "--args", "{\"text\": \"x\"}", "text:=\"7\"", "-r"];
    assert_eq!(world.run(&forced).expect(exit::OK).stdout, "7\n");
    let path = world.run(&["call", "shell", "--action", "where", "out=later/x", "-r"]).expect(exit::OK);
    assert!(
        path.stdout.starts_with('/') && path.stdout.ends_with("/later/x\n"),
        "made absolute: {}",
        path.describe()
    );
    world.assert_nothing_left();
}

#[test]
fn a_stream_is_one_document_a_line() {
    let world = world();
    world.install_python(
        "ticker",
        "Ticker",
        "
from cjm_sdk import Capability, action

class Ticker(Capability):
    name = 'ticker'
    version = '1.0.0'

    @action
    def tick(self, n=3):
        for i in range(n):
            yield {'i': i}
",
    );
    let outcome = world.run(&["call", "ticker", "n=3", "--action", "tick", "--stream"]).expect(exit::OK);
    let ticks: Vec<_> = outcome.json_lines().into_iter().map(|line| line["i"].clone()).collect();
    assert_eq!(ticks, [0, 1, 2], "{}", outcome.describe());
    world.assert_nothing_left();
}

#[test]
fn a_tool_that_ends_in_its_stream_is_told_to_have_been_called() {
    let world = world();
    world.install_python(
        "quitter",
        "Quitter",
        "
import os

from cjm_sdk import Capability, action

class Quitter(Capability):
    name = 'quitter'
    version = '1.0.0'

    @action
    def tick(self):
        yield {'i': 0}
        os._exit(4)
",
    );
    let outcome =
        world.run(&["call", "quitter", "--action", "tick", "--stream", "--json"]).expect(exit::WORKER_DIED);
    let told = outcome.describe();
    assert!(told.contains("in the middle of a call") && !told.contains("while it was idle"), "{told}");
    world.assert_nothing_left();
}

#[test]
fn a_deadline_ends_the_call_and_its_processes() {
    let world = world();
    // Long enough for the start on a busy machine, which counts, too.
    let outcome =
        world.run(&["call", "shell", "--action", "wait", "--timeout", "2", "--json"]).expect(exit::TIMED_OUT);
    let error = outcome.json()["error"].clone();
    assert_eq!(
        (&error["code"], &error["retriable"]),
        (&"call.deadline".into(), &true.into()),
        "{}",
        outcome.describe()
    );
    let rows = journal::rows(&world.journal());
    let ended =
        rows.iter().find(|row| row.payload["to"] == "failed").expect("the journal tells of a failure");
    assert_eq!(ended.payload["report"]["code"], "call.deadline", "and of a deadline: {ended:?}");
    world.assert_nothing_left();
    journal::assert_every_job_ended_once(&world.journal());
    let _ = world.run(&["call", "shell", "--action", "wait", "--timeout", "0"]).expect(exit::USAGE);
}

/// Somebody else's lock on a directory is waited for, and whoever waits can leave.
#[test]
fn whoever_waits_for_the_locks_of_a_directory_can_leave() {
    let world = world();
    let say = ["call", "shell", "--action", "say", "text=x"];
    let _ = world.run(&say).expect(exit::OK);
    let file = world.write("w.yaml", "name: w\nnodes:\n  w: {capability: shell, action: wait}\n");
    let run = ["run", &file.display().to_string()];
    let held = std::fs::File::open(world.data_dir()).expect("it opens");
    held.lock().expect("locked");
    for command in [&say[..], &run] {
        let late = world.run(&[command, &["--timeout", "1", "--json"]].concat()).expect(exit::TIMED_OUT);
        let error = &late.json()["error"];
        assert_eq!(error["code"], "host.start_deadline", "{}", late.describe());
        assert_eq!(
            (&error["category"], &error["retriable"]),
            (&json!("transient"), &json!(true)),
            "{error:#}"
        );
        let waiting = world.start(command);
        eventually("the host to have its own lock", BEGIN_MAX, || {
            let holder = cjm_platform::lock::holder(&world.data_dir().join("host.lock"))?;
            holder.contains(&format!("pid {} ", waiting.pid().as_raw())).then_some(())
        });
        waiting.signal(Signal::INT);
        let left = waiting.wait(Duration::from_secs(5)).expect(130);
        assert!(left.stderr.contains("interrupted"), "{}", left.describe());
    }
    drop(held);
    let _ = world.run(&say).expect(exit::OK);
    world.assert_nothing_left();
}

#[test]
fn a_deadline_covers_what_is_read_from_standard_input() {
    let world = world();
    let never = world.file("never");
    assert!(std::process::Command::new("mkfifo").arg(never).status().expect("mkfifo").success());
    let file = world
        .write("w.yaml", "name: w\nnodes:\n  w: {capability: shell, action: wait}\n")
        .display()
        .to_string();
    for command in [
        &["call", "shell", "--args", "-"][..],
        &["call", "shell", "text=@-"],
        &["run", &file, "--inputs", "-"],
    ] {
        // Open for writing as well, so that it never ends.
        let mut late = std::process::Command::new("sh");
        late.args(["-c", "exec \"$0\" \"$@\" <> never"]).arg(repo::binary("cjm-ctl")).args(command);
        late.args(["--timeout", "1", "--json", "--data-dir", &world.data_dir().display().to_string()]);
        let late = world.start_command(late).wait(BEGIN_MAX).expect(exit::TIMED_OUT);
        assert_eq!(late.json()["error"]["code"], "ctl.stdin_deadline", "{}", late.describe());
    }
    world.assert_nothing_left();
}

/// A refusal names the unit, and the step the help of the command that was meant.
#[test]
fn a_number_with_its_unit_is_refused_with_the_unit_that_is_meant() {
    let world = world();
    for (command, option, unit) in [
        ("call", "--timeout", "seconds, as in 5 or 0.5"),
        ("run", "--timeout", "seconds, as in 5 or 0.5"),
        ("retention", "--max-age-days", "days, as in 7 or 0.5"),
        ("retention", "--jobs-max-age-days", "days, as in 7 or 0.5"),
        ("retention", "--max-total-mb", "megabytes, as in 500 or 0.5"),
    ] {
        let name = if command == "retention" { None } else { Some("shell") };
        let arguments: Vec<&str> =
            [command].into_iter().chain(name).chain([option, "5s", "--json"]).collect();
        let refused = world.run(&arguments).expect(exit::USAGE);
        let error = &refused.json()["error"];
        let says = |key: &str, words: &str| error[key].as_str().is_some_and(|text| text.contains(words));
        assert!(says("message", unit), "{}", refused.describe());
        assert!(says("next_step", &format!("`cjm-ctl {command} --help`")), "{}", refused.describe());
    }
}

#[test]
fn a_configuration_is_read_from_where_arguments_are() {
    let world = world();
    world.write("text.json", "{\"text\": \"x\"}");
    world.write("broken.json", "{");
    let say = ["call", "shell", "--action", "say"];
    for option in ["--args", "--config"] {
        let with = |given| world.run(&[&say[..], &["text=y", "--json", option, given]].concat());
        let read = with("@text.json");
        // A program takes no configuration, and says what it was given.
        let told = if option == "--args" { "\"result\":\"y\"" } else { "`text` was given" };
        assert!(read.stdout.contains(told), "{option}: {}", read.describe());
        for (given, told) in
            [("@missing.json", "missing.json"), ("@broken.json", "is not JSON"), ("@-", "is not JSON")]
        {
            let refused = with(given);
            assert!(
                refused.code != Some(0) && refused.stdout.contains(told),
                "{option}: {}",
                refused.describe()
            );
        }
    }
    let twice = world.run(&[&say[..], &["--args", "-", "--config", "-"]].concat()).expect(exit::USAGE);
    assert!(twice.stderr.contains("standard input is asked for more than once"), "{}", twice.describe());
}

/// What tools said is not worth a command that does not end.
#[test]
fn whoever_holds_the_diagnostics_holds_no_command() {
    let world = world();
    let count = ["call", "shell", "--action", "fail"];
    let _ = world.run(&count).expect(exit::TOOL_FAILED);
    let other = rusqlite::Connection::open(world.data_dir().join("diagnostics.db")).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let held = world.start(&count).wait(COMMAND_MAX).expect(exit::TOOL_FAILED);
    let holder = format!("process {})", std::process::id());
    for words in
        ["not kept", "database is locked (diagnostics.db, by ", &holder, "end what holds diagnostics.db"]
    {
        assert!(held.stderr.contains(words), "{words}: {}", held.describe());
    }
    assert!(!held.stderr.contains("has not ended yet"), "nobody waits for it: {}", held.describe());
    world.assert_nothing_left();
}

/// Neither what is to be written nor what is to be forgotten waits long for somebody who holds the journal.
#[test]
fn whoever_holds_the_journal_is_told_of_after_seconds() {
    let world = world();
    let call = ["call", "shell", "--action", "fail"];
    let _ = world.run(&call).expect(exit::TOOL_FAILED);
    let other = rusqlite::Connection::open(world.journal()).expect("opens");
    for holds in ["BEGIN IMMEDIATE", "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE"] {
        other.execute_batch(holds).expect("locked");
        let held = world.start(&call).wait(Duration::from_secs(12)).expect(exit::STORE);
        assert!(
            held.stderr.contains("database is locked") && held.stderr.contains("end the other program"),
            "{}",
            held.describe()
        );
        let holder = format!("process {})", std::process::id());
        let forget = ["retention", "--jobs-max-age-days", "0.0000001"];
        let archive = ["retention", "--archive-journal", "0s"];
        let run =
            |arguments: &[&str]| world.start(arguments).wait(Duration::from_secs(12)).expect(exit::STORE);
        for held in [held, run(&forget), run(&archive)] {
            assert!(
                held.stderr.contains("(journal.db, by ") && held.stderr.contains(&holder),
                "{}",
                held.describe()
            );
        }
        other.execute_batch("ROLLBACK").expect("let go");
    }
    drop(other);
    let left = std::fs::read_dir(world.data_dir().join("archives")).into_iter().flatten().flatten();
    let unfinished =
        |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|ending| ending == "new");
    assert!(!left.into_iter().any(|entry| unfinished(&entry)));
    let _ = world.run(&call).expect(exit::TOOL_FAILED);
    world.assert_nothing_left();
}

/// What is late is told as that, also where its end cannot be written.
#[test]
fn a_deadline_is_told_where_somebody_holds_the_journal() {
    let world = world();
    let composition = "name: w\nnodes:\n  w: {capability: shell, action: wait}\n";
    let file = world.write("w.yaml", composition).display().to_string();
    let late = ["--timeout", "3"];
    let call = ["call", "shell", "--action", "wait"];
    for (round, command) in [&call[..], &["run", &file]].into_iter().enumerate() {
        let running = world.start(&[command, &late].concat());
        eventually("the job to run", BEGIN_MAX, || {
            let rows = journal::rows(&world.journal());
            (rows.iter().filter(|row| row.payload["to"] == "running").count() > round).then_some(())
        });
        let other = rusqlite::Connection::open(world.journal()).expect("opens");
        other.execute_batch("BEGIN IMMEDIATE").expect("locked");
        let held = running.wait(COMMAND_MAX).expect(exit::TIMED_OUT);
        for words in ["did not end within 3 s", "database is locked", "end the other program"] {
            assert!(held.stderr.contains(words), "{}", held.describe());
        }
        let warnings = held.stderr.lines().filter(|line| line.starts_with("warning: ")).count();
        assert!(warnings <= 2, "that it is locked, and that rows were given up: {}", held.describe());
        world.assert_nothing_left();
    }
}

#[test]
fn a_signal_cancels_clears_and_gives_its_exit_code() {
    let composition = "name: w\nnodes:\n  w: {capability: shell, action: wait}\n";
    for (signal, code, composed) in
        [(Signal::INT, 130, false), (Signal::TERM, 143, false), (Signal::TERM, 143, true)]
    {
        let world = world();
        let file = world.write("w.yaml", composition).display().to_string();
        let call: &[&str] = if composed { &["run", &file] } else { &["call", "shell", "--action", "wait"] };
        let running = world.start(call);
        eventually("the job to run", BEGIN_MAX, || {
            let rows = journal::rows(&world.journal());
            rows.into_iter()
                .find(|row| row.event_type == "state_transition" && row.payload["to"] == "running")
        });
        running.signal(signal);
        let outcome = running.wait(COMMAND_MAX).expect(code);
        assert!(
            outcome.stderr.contains("interrupted") && outcome.stdout.is_empty(),
            "{}",
            outcome.describe()
        );
        world.assert_nothing_left();
        let rows = journal::rows(&world.journal());
        assert!(rows.iter().any(|row| row.payload["to"] == "cancelled"), "{}", journal::tell(&rows));
        journal::assert_every_job_ended_once(&world.journal());
    }
}

/// A tool that does not obey: it is told what is waited for, and a second Ctrl-C waits no longer.
#[test]
fn a_second_ctrl_c_kills_a_tool_that_does_not_obey_at_once() {
    // A program that does not obey is killed by its shim 2 s after it was asked, one in Python by the host after 3 s.
    const PATIENT_MIN: Duration = Duration::from_millis(1_700);
    let world = world();
    let deaf = world.file("deaf");
    let script = format!("trap '' TERM INT HUP; touch '{}'; while :; do sleep 0.1; done", deaf.display());
    world.install_executable(
        "deaf",
        "sh",
        &json!({"wait": {"argv": ["-c", script], "result": "stdout_text"}}),
    );
    let of_ctrl_c = (Signal::INT, "; Ctrl-C again ends it at once", 130, true);
    for (signal, would_do, code, twice) in [of_ctrl_c, (Signal::TERM, "; Ctrl-C ends it at once", 143, false)]
    {
        let _ = std::fs::remove_file(&deaf);
        let running = world.start(&["call", "deaf", "--action", "wait"]);
        eventually("the tool to be deaf", BEGIN_MAX, || deaf.exists().then_some(()));
        let asked = Instant::now();
        running.signal(signal);
        eventually("a word of what is waited for", BEGIN_MAX, || {
            running.stderr_so_far().contains(would_do).then_some(())
        });
        let told = asked.elapsed();
        assert!(told < Duration::from_secs(1), "told after {told:?}");
        if twice {
            running.signal(Signal::INT);
        }
        let outcome = running.wait(COMMAND_MAX).expect(code);
        let words = "\"deaf\" is cancelled and has not ended yet: it is killed within 3 s";
        assert!(outcome.stderr.contains(words) && outcome.stdout.is_empty(), "{}", outcome.describe());
        assert_eq!(asked.elapsed() < PATIENT_MIN, twice, "{:?}", asked.elapsed());
        world.assert_nothing_left();
    }
    let rows = journal::rows(&world.journal());
    assert_eq!(
        rows.iter().filter(|row| row.payload["to"] == "cancelled").count(),
        2,
        "{}",
        journal::tell(&rows)
    );
    journal::assert_every_job_ended_once(&world.journal());
    let late = world.run(&["call", "deaf", "--action", "wait", "--timeout", "1"]).expect(exit::TIMED_OUT);
    let words = "\"deaf\" is late and has not ended yet: it is killed within 3 s";
    assert!(late.stderr.contains(words), "{}", late.describe());
    world.assert_nothing_left();
}

/// `nohup cjm-ctl run … &` goes on when its terminal is gone.
#[test]
fn a_signal_that_whoever_started_it_ignores_is_ignored() {
    let world = world();
    let go_on = world.file("go-on");
    let script = format!("until [ -e '{}' ]; do sleep 0.05; done; echo done", go_on.display());
    let action = json!({"wait": {"argv": ["-c", script], "result": "stdout_text"}});
    world.install_executable("patient", "sh", &action);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP INT; exec \"$@\"", "sh"]).arg(repo::binary("cjm-ctl"));
    command.arg("--data-dir").arg(world.data_dir()).args(["call", "patient", "-r"]);
    let running = world.start_command(command);
    eventually("the job to run", BEGIN_MAX, || {
        journal::rows(&world.journal()).into_iter().find(|row| row.payload["to"] == "running")
    });
    running.signal(Signal::HUP);
    running.signal(Signal::INT);
    std::fs::write(&go_on, "").expect("written");
    assert_eq!(running.wait(COMMAND_MAX).expect(exit::OK).stdout, "done\n");
}

const COMPOSITION: &str = "
name: greetings
inputs:
  names: {description: whom to greet}
nodes:
  greet: {capability: shell, action: say, map: '${inputs.names}', args: {text: 'hello ${item}'}}
  all: {capability: shell, action: say, args: {text: '${greet[0]}, ${greet[1]}'}}
output: ${all}
";

#[test]
fn a_run_gives_its_output_and_tells_its_nodes_apart() {
    let world = world();
    let file = world.write("c.yaml", COMPOSITION).display().to_string();
    let outcome = world.run(&["run", &file, "names=[\"a\", \"b\"]"]).expect(exit::OK);
    assert_eq!(
        outcome.stdout,
        "hello a, hello b\n",
        "text as it is, and nothing else\n{}",
        outcome.describe()
    );
    for word in ["greet: running", "greet: completed (2/2)", "NODE", "all"] {
        assert!(outcome.stderr.contains(word), "{word}\n{}", outcome.describe());
    }
    let quiet = world.run(&["run", &file, "names=[\"a\", \"b\"]", "--quiet"]).expect(exit::OK);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("hello a, hello b\n", ""));
    let document = world.json(&["run", &file, "names=[\"a\", \"b\"]", "--json"]);
    assert_eq!((&document["status"], &document["output"]), (&"completed".into(), &"hello a, hello b".into()));
    assert_eq!(document["nodes"][0]["name"], "greet", "{document}");
    assert_eq!(document["nodes"][0]["elements_completed"], 2, "{document}");
    for (arguments, code) in [
        (vec!["run", &file], "composition.input_missing"),
        (vec!["run", &file, "names=[]", "nmaes=1"], "composition.input_unknown"),
    ] {
        let error = world.run(&[&arguments[..], &["--json"]].concat()).expect(exit::DOMAIN).json();
        assert_eq!(error["error"]["code"], code, "{error}");
        assert!(error["error"]["next_step"].as_str().is_some_and(|step| step.contains("names")), "{error}");
    }
    world.assert_nothing_left();
}

#[test]
fn a_failed_run_exits_16_with_the_first_error_in_full() {
    let world = world();
    let text = "name: f\nnodes:\n  bad: {capability: shell, action: fail}\n  after: {capability: shell, action: say, args: {text: '${bad}'}}\n";
    let file = world.write("f.yaml", text).display().to_string();
    let outcome = world.run(&["run", &file]).expect(exit::COMPOSITION_FAILED);
    for word in ["composition \"f\" failed", "out of ideas", "next: ", "skipped"] {
        assert!(outcome.stderr.contains(word), "{word}\n{}", outcome.describe());
    }
    let document = world.run(&["run", &file, "--json"]).expect(exit::COMPOSITION_FAILED).json();
    assert_eq!(document["status"], "failed", "{document}");
    assert!(document["error"]["stderr_tail"].to_string().contains("out of ideas"), "{document}");
    assert_eq!(document["nodes"][1]["status"], "skipped", "{document}");
    world.assert_nothing_left();
}

#[test]
fn an_interrupted_installation_leaves_no_helper_behind() {
    let mut world = World::new();
    // A uv that answers and then never ends, with a grandchild in its group.
    let folder = world.file("bin");
    std::fs::create_dir_all(&folder).expect("a folder");
    let started = world.file("started");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'uv 0.13.8' && exit 0\nsleep 3600 &\necho > '{}'\nwait\n",
        started.display()
    );
    write_script(&folder.join("uv"), &script);
    let path = std::env::var("PATH").unwrap_or_default();
    world.set("PATH", format!("{}:{path}", folder.display()));
    let list = "capabilities:\n- {name: x, package: nothing==1, env_name: x, python_version: '3'}\n";
    let file = world.write("capabilities.yaml", list).display().to_string();
    let running = world.start(&["install-all", "--capabilities", &file]);
    eventually("uv to begin", BEGIN_MAX, || started.exists().then_some(()));
    let second =
        world.run(&["install-all", "--capabilities", &file, "--json"]).expect(exit::DIRECTORY_IN_USE);
    assert_eq!(second.json()["error"]["code"], "install.in_use", "{}", second.describe());
    running.signal(Signal::TERM);
    let outcome = running.wait(COMMAND_MAX).expect(143);
    assert!(outcome.stderr.contains("interrupted"), "{}", outcome.describe());
    world.assert_nothing_left();
}

/// Runs a program on a terminal of 80 columns, and prints what it wrote there.
const ON_A_TERMINAL: &str = "
import fcntl, os, pty, struct, sys, termios
pid, fd = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    try:
        data = os.read(fd, 65536)
    except OSError:
        break
    if not data:
        break
    os.write(1, data)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[test]
fn a_failed_installation_on_a_terminal_is_in_colour_and_its_table_fits() {
    let mut world = World::new();
    world.set("TERM", "xterm");
    world.set("NO_COLOR", "");
    let long = "an-entry-whose-name-is-as-long-as-a-name-may-ever-be-and-longer";
    let list = format!(
        "capabilities:\n- {{name: {long}, manifest: absent.json}}\n- {{name: b, manifest: c.json}}\n"
    );
    world.write("capabilities.yaml", list);
    let mut command = std::process::Command::new("/usr/bin/python3");
    command.args(["-c", ON_A_TERMINAL]).arg(cjm_tests::repo::binary("cjm-ctl"));
    command.arg("--data-dir").arg(world.data_dir()).arg("install-all");
    let outcome = world.start_command(command).wait(cjm_tests::world::COMMAND_MAX).expect(1);
    let said = &outcome.stdout;
    fits(said);
    assert!(said.contains(&format!("{long}: \u{1b}[1;31merror:\u{1b}[0m ")), "{}", outcome.describe());
    assert!(!said.contains("\\x1b"), "{}", outcome.describe());
    let into_a_file = world.run(&["install-all"]).expect(1);
    fits(&into_a_file.stdout);
}

/// Whether the lines of the table are no longer than a line is where nobody says how long.
#[track_caller]
fn fits(said: &str) {
    let table: Vec<&str> = said.lines().skip_while(|line| !line.contains("RESULT")).take(4).collect();
    assert!(table.len() == 4 && table[0].contains("SECONDS"), "{said}");
    assert!(table[1..].iter().all(|line| line.chars().count() <= 80), "{table:#?}");
}

/// A person reads it in lines; no digit of it is another one for that.
#[test]
fn a_result_keeps_its_digits_on_a_terminal() {
    let world = World::new();
    let numbers = r#"{"id":12345678901234567890123,"part":0.1000000000000000055511151231257827}"#;
    let in_braces = |text: &str| text.replace('{', "{{").replace('}', "}}");
    let say = |text: &str| json!({"argv": ["%s", in_braces(text)], "result": "stdout_json"});
    let actions = json!({"long": say(numbers), "short": say(r#"{"id":1}"#)});
    world.install_executable("numbers", "printf", &actions);
    for (action, told) in [("long", numbers), ("short", "{\r\n  \"id\": 1\r\n}")] {
        let mut command = std::process::Command::new("/usr/bin/python3");
        command.args(["-c", ON_A_TERMINAL]).arg(cjm_tests::repo::binary("cjm-ctl"));
        command.arg("--data-dir").arg(world.data_dir()).args(["call", "numbers", "--action", action]);
        let outcome = world.start_command(command).wait(cjm_tests::world::COMMAND_MAX).expect(0);
        assert!(outcome.stdout.contains(told), "{}", outcome.describe());
    }
}

/// Whatever is in it, and however it came to be: nobody reads the characters of a file from a terminal.
#[test]
fn the_output_of_a_run_is_what_its_nodes_gave_byte_for_byte_in_a_file_or_pipe() {
    let world = World::new();
    let text = "page\u{c}one\r\n\u{1b}[1m \\x1b \u{200f}\u{2028}\u{202e}\u{85}\u{7f}";
    world.install_executable(
        "say",
        "printf",
        &json!({"it": {"argv": ["%s", "{text}"], "parameters": {"text": {"type": "string"}}, "result": "stdout_text"}}),
    );
    let composition = |output: &str| {
        let nodes = "nodes: { e: { capability: say, action: it, args: { text: \"${inputs.text}\" } } }";
        let of = |text: &str| format!("name: w\ninputs: {{ text: {{}} }}\n{nodes}\noutput: {text}\n");
        world.write("w.yaml", of(output))
    };
    let given = world.write("text.json", json!({"text": text}).to_string());
    let run = |output: &str| {
        let of = composition(output);
        world.run(&["run", of.to_str().unwrap(), "--inputs", given.to_str().unwrap(), "-q"]).expect(0).stdout
    };
    assert_eq!(run("\"${e}\""), format!("{text}\n"));
    let document = run("{ x: \"${e}\" }");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&document).expect("JSON"), json!({"x": text}));
}

#[test]
fn an_argument_in_the_place_of_the_capability_is_told_with_the_order() {
    let world = World::new();
    let swapped = world.run(&["call", "--action", "greet", "name=A B", "greeter", "who=C"]).expect(2);
    assert!(swapped.stderr.contains("`name=A B` is an argument"), "{}", swapped.describe());
    assert!(swapped.stderr.contains("call greeter 'name=A B' who=C`"), "{}", swapped.describe());
    let alone = world.run(&["call", "name=A"]).expect(2);
    assert!(alone.stderr.contains("call CAPABILITY name=A`"), "{}", alone.describe());
}
