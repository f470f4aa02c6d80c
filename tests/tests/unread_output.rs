//! Output that nobody reads: a pipe that stays full holds neither a deadline nor a signal, and no worker, keeper or lock
//! lives on behind it; what is read slowly comes whole and in order. Nor does a large file that is copied with `-o`.

use cjm_platform::process::Signal;
use cjm_tests::repo;
use cjm_tests::world::{COMMAND_MAX, Running, World, eventually};
use cjm_wire::describe::exit;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a pipe may take to fill, a tool to start included.
const FULL_MAX: Duration = Duration::from_secs(30);
/// How long an ending may take: what was asked to end has its grace, and a loaded machine its share.
const END_MAX: Duration = Duration::from_secs(15);
/// A pipe holds 64 KiB, less where its pages are not filled.
const FULL_BYTES: u64 = 40 * 1024;

const TOOL: &str = "
from cjm_sdk import Capability, action

class Talker(Capability):
    name = 'talker'
    version = '1.0.0'

    @action
    def forever(self):
        while True:
            yield 'x' * 1000

    @action
    def count(self, n):
        for i in range(n):
            yield i

    @action
    def large(self, n):
        return 'x' * n
";

const ONE_STREAM: &str = ">\"$1\"";
const BOTH_STREAMS: &str = ">\"$1\" 2>&1";
const ERRORS: &str = "2>\"$1\"";

/// A pipe without a reader who reads: this test holds its end.
struct Pipe {
    file: File,
    path: String,
}

impl Pipe {
    fn new(world: &World) -> Self {
        let path = world.file("pipe").display().to_string();
        let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo");
        assert!(made.success());
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("a pipe");
        Self { file, path }
    }

    fn start(&self, world: &World, redirected: &str, arguments: &[&str]) -> Running {
        let mut command = Command::new("sh");
        let script =
            format!("pipe=$1; shift; set -- \"$pipe\" \"$@\"; exec {redirected}; shift; exec \"$@\"");
        command.args(["-c", &script, "sh", &self.path]).arg(repo::binary("cjm-ctl"));
        command.arg("--data-dir").arg(world.data_dir()).args(arguments);
        world.start_command(command)
    }

    fn wait_until_full(&self) {
        let mut before = 0;
        eventually("the pipe to be full", FULL_MAX, || {
            let held = rustix::io::ioctl_fionread(&self.file).expect("a pipe");
            // Full is what grows no more.
            (held >= FULL_BYTES && std::mem::replace(&mut before, held) == held).then_some(())
        });
    }
}

fn world() -> World {
    let world = World::new();
    world.install_python("talker", "Talker", TOOL);
    world
}

/// The data directory can be used again: no lock is held.
fn assert_over(world: &World) {
    world.assert_nothing_left();
    let again = ["call", "talker", "--action", "large", "n:=1"];
    assert_eq!(world.run(&again).expect(exit::OK).stdout, "\"x\"\n");
}

#[test]
fn a_deadline_holds_where_a_stream_is_not_read() {
    let world = world();
    for (redirected, more) in [(ONE_STREAM, &[][..]), (ONE_STREAM, &["--json"]), (BOTH_STREAMS, &[])] {
        let pipe = Pipe::new(&world);
        let call = ["call", "talker", "--action", "forever", "--stream", "--timeout", "3"];
        let call = [&call[..], more].concat();
        let ended = pipe.start(&world, redirected, &call).wait(COMMAND_MAX).expect(exit::TIMED_OUT);
        let told = redirected == ONE_STREAM;
        assert_eq!(ended.stderr.contains("did not end within 3 s"), told, "{}", ended.describe());
        assert_eq!(ended.stderr.contains("nothing read them"), told, "{}", ended.describe());
        assert_over(&world);
        std::fs::remove_file(&pipe.path).expect("removed");
    }
}

#[test]
fn a_deadline_holds_where_a_large_result_is_not_read() {
    let world = world();
    let pipe = Pipe::new(&world);
    let call = ["call", "talker", "--action", "large", "n:=5000000", "--timeout", "5"];
    let ended = pipe.start(&world, ONE_STREAM, &call).wait(COMMAND_MAX).expect(exit::TIMED_OUT);
    assert!(ended.stderr.contains("nothing read them"), "{}", ended.describe());
    assert_over(&world);
}

#[test]
fn one_signal_ends_what_nobody_reads() {
    let world = world();
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let pipe = Pipe::new(&world);
        let call = ["call", "talker", "--action", "forever", "--stream"];
        let running = pipe.start(&world, ONE_STREAM, &call);
        pipe.wait_until_full();
        running.signal(signal);
        let _ = running.wait(END_MAX).expect(code);
        assert_over(&world);
        std::fs::remove_file(&pipe.path).expect("removed");
    }
}

#[test]
fn progress_that_nobody_reads_holds_no_signal_and_no_run() {
    let world = world();
    let names = (0..600).map(|i| format!("node-{i:03}-{}", "n".repeat(100)));
    let nodes: serde_json::Map<_, _> = names
        .map(|name| (name, json!({"capability": "shell", "action": "say"})))
        .chain([("zz".to_owned(), json!({"capability": "shell", "action": "wait"}))])
        .collect();
    world.install_executable(
        "shell",
        "sh",
        &json!({"say": {"argv": ["-c", "true"]}, "wait": {"argv": ["-c", "exec sleep 3600"]}}),
    );
    let file =
        world.write("w.json", json!({"name": "w", "failure": "best_effort", "nodes": nodes}).to_string());
    let pipe = Pipe::new(&world);
    let running = pipe.start(&world, ERRORS, &["run", &file.display().to_string()]);
    pipe.wait_until_full();
    running.signal(Signal::TERM);
    let _ = running.wait(END_MAX).expect(143);
    assert_over(&world);
}

#[test]
fn one_signal_ends_logs_that_nobody_reads() {
    let world = world();
    let call = ["call", "talker", "--action", "large", "n:=1"];
    let _ = world.run(&call).expect(exit::OK);
    let rows = (0..800).map(|_| row()).collect();
    assert!(cjm_store::note_command(&world.data_dir(), rows).expect("rows are written"));
    for more in [&[][..], &["--follow"], &["--json"]] {
        let pipe = Pipe::new(&world);
        let arguments = [&["logs", "--journal", "-n", "0"], more].concat();
        let running = pipe.start(&world, ONE_STREAM, &arguments);
        pipe.wait_until_full();
        running.signal(Signal::INT);
        let _ = running.wait(END_MAX).expect(130);
        std::fs::remove_file(&pipe.path).expect("removed");
    }
}

fn row() -> cjm_wire::event::JournalRow {
    let payload = json!({"text": "x".repeat(150)});
    let payload = payload.as_object().cloned().expect("an object");
    cjm_wire::event::JournalRow::new(cjm_wire::event::EventType::SecretSet, payload)
}

#[test]
fn what_is_read_slowly_comes_whole_and_memory_stays_bounded() {
    let world = world();
    let pipe = Pipe::new(&world);
    let call = ["call", "talker", "--action", "count", "n:=300000", "--stream"];
    let running = pipe.start(&world, ONE_STREAM, &call);
    pipe.wait_until_full();
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).expect("it lives");
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).expect("a peak").to_owned();
    let kilobytes: u64 = peak.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number");
    assert!(kilobytes < 100_000, "what nobody reads is not kept: {peak}");
    let lines = BufReader::new(pipe.file.try_clone().expect("a descriptor")).lines();
    for (expected, line) in lines.take(300_000).enumerate() {
        assert_eq!(line.expect("text"), expected.to_string());
    }
    let _ = running.wait(END_MAX).expect(exit::OK);
    world.assert_nothing_left();
}

#[test]
fn both_streams_into_one_pipe_keep_their_order() {
    let world = world();
    world.install_executable(
        "shell",
        "sh",
        &json!({"say": {"argv": ["-c", "echo said"], "result": "stdout_text"}}),
    );
    let file =
        world.write("w.yaml", "name: w\nnodes:\n  one: {capability: shell, action: say}\noutput: ${one}\n");
    let pipe = Pipe::new(&world);
    let running = pipe.start(&world, BOTH_STREAMS, &["run", &file.display().to_string()]);
    let _ = running.wait(COMMAND_MAX).expect(exit::OK);
    let lines = BufReader::new(pipe.file.try_clone().expect("a descriptor")).lines();
    let lines: Vec<String> =
        lines.map(|line| line.expect("text")).take_while(|line| !line.starts_with("composition ")).collect();
    let at = |wanted: &str| {
        lines.iter().position(|line| line.contains(wanted)).unwrap_or_else(|| panic!("{wanted}: {lines:#?}"))
    };
    assert!(at("one: running") < at("one: completed"), "{lines:#?}");
    assert!(at("one: completed") < at("said") && at("said") < at("NODE"), "{lines:#?}");
}

#[test]
fn following_ends_with_its_reader_and_goes_on_with_a_directory_made_anew() {
    let world = world();
    let call = ["call", "talker", "--action", "large", "n:=1"];
    let _ = world.run(&call).expect(exit::OK);
    let follow = ["logs", "--journal", "--follow", "-n", "1"];
    let following = world.start(&follow);
    eventually("a first row", FULL_MAX, || (!following.stdout_so_far().is_empty()).then_some(()));
    let manifests = std::fs::read_dir(world.data_dir().join("manifests")).expect("a folder");
    let manifest = manifests.flatten().next().expect("a manifest").path();
    let text = std::fs::read(&manifest).expect("text");
    let moved = world.file("moved");
    std::fs::rename(world.data_dir(), &moved).expect("renamed");
    std::fs::create_dir_all(manifest.parent().expect("a folder")).expect("made");
    std::fs::write(&manifest, text).expect("written");
    let _ = world.run(&call).expect(exit::OK);
    eventually("the end of the call in the new store", FULL_MAX, || {
        (following.stdout_so_far().matches("talker completed {").count() >= 1
            && following.stderr_so_far().contains("made anew"))
        .then_some(())
    });
    following.signal(Signal::INT);
    let _ = following.wait(END_MAX).expect(130);

    let pipe = Pipe::new(&world);
    let following = pipe.start(&world, ONE_STREAM, &follow);
    eventually("a first row", FULL_MAX, || {
        (rustix::io::ioctl_fionread(&pipe.file).expect("a pipe") > 0).then_some(())
    });
    // Its only reader goes, and nothing happens that it could write.
    drop(pipe);
    let _ = following.wait(END_MAX).expect(141);
}

#[test]
fn an_argument_that_is_no_text_has_its_next_step() {
    let world = world();
    let mut command = Command::new("bash");
    command.args(["-c", "exec \"$0\" call talker --action large f=@/tmp/n$'\\xff' \"$@\""]);
    command.arg(repo::binary("cjm-ctl")).arg("--data-dir").arg(world.data_dir());
    let ended = world.start_command(command).wait(COMMAND_MAX).expect(exit::USAGE);
    assert!(
        ended.stderr.contains("not UTF-8") && ended.stderr.contains("rename that or give a link to it"),
        "{}",
        ended.describe()
    );
}

#[test]
fn a_command_whose_output_cannot_be_written_says_so_and_what_it_was_to_say() {
    let world = world();
    let fails = ["call", "talker", "--action", "no-such-action"];
    let works = ["call", "talker", "--action", "large", "n:=1"];
    let usage = ["call"];
    for (redirected, cause) in [(">/dev/full", "No space left"), (">&-", "Bad file descriptor")] {
        for (arguments, told, code) in [
            (&fails[..], Some("no-such-action"), None),
            (&works[..], None, Some(exit::DOMAIN)),
            (&usage[..], Some("NAME"), None),
            (&["--help"][..], None, Some(exit::DOMAIN)),
            (&["list"][..], None, Some(exit::DOMAIN)),
        ] {
            for json in [true, false] {
                let mut command = Command::new("sh");
                command.args(["-c", &format!("exec \"$@\" {redirected}"), "sh"]);
                command.arg(repo::binary("cjm-ctl")).arg("--data-dir").arg(world.data_dir()).args(arguments);
                if json {
                    command.arg("--json");
                }
                let ended = world.start_command(command).wait(COMMAND_MAX);
                let what = ended.describe();
                // Who reads words was told of the failure on stderr, and its code says of what.
                let own_code = told.is_some() && !json;
                let times = ended.stderr.matches("cannot write to stdout").count();
                assert_eq!(times, usize::from(!own_code), "{what}");
                assert_eq!(ended.stderr.contains(cause), !own_code, "{what}");
                assert!(told.is_none_or(|told| ended.stderr.contains(told)), "{what}");
                assert!(ended.stderr.contains("next: ") || own_code, "{what}");
                let code = code.or((!own_code).then_some(exit::DOMAIN));
                assert!(code.is_none_or(|code| ended.code == Some(i32::from(code))), "{what}");
                assert_ne!(ended.code, Some(0), "{what}");
            }
        }
    }
}

/// Makes a file of four gigabytes that takes no room.
const SPARSE: &str = r#"
import os
from cjm_sdk import Capability, action

class Sparse(Capability):
    name = "sparse"
    version = "1.0.0"

    @action
    def make(self):
        path = os.path.abspath("large.bin")
        with open(path, "wb") as file:
            file.truncate(4 << 30)
        return {"path": path, "bytes": 4 << 30}
"#;

/// The call is made then, and its result is told.
#[test]
fn a_large_file_of_a_result_holds_no_signal_and_no_deadline() {
    let world = World::new();
    world.install_python("sparse", "Sparse", SPARSE);
    let out = world.file("out");
    let folder = out.display().to_string();
    let call = ["call", "sparse", "--action", "make", "-o", &folder, "--json"];
    let is_told = |result: &Value| result["path"].as_str().is_some_and(|path| Path::new(path).is_file());
    let parts = || {
        let found = std::fs::read_dir(&out).into_iter().flatten().flatten();
        found.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|ending| ending == "part"))
    };
    let is_at_work = || parts().filter(|part| part.metadata().is_ok_and(|part| part.len() > 0));
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let running = world.start(&call);
        eventually("a part of the file", COMMAND_MAX, is_at_work);
        running.signal(signal);
        let ended = running.wait(END_MAX).expect(code);
        assert!(is_told(&ended.json()["result"]), "{}", ended.describe());
        assert_eq!(ended.json()["error"]["code"], "ctl.interrupted", "{}", ended.describe());
        assert!(parts().is_none() && !out.join("large.bin").exists());
    }
    // Enough for the call. It stands still until its time is over, lest the file be copied by then.
    let (began, timeout) = (Instant::now(), Duration::from_secs(10));
    let running = world.start(&[&call[..], &["--timeout", "10"]].concat());
    eventually("a part of the file", timeout, is_at_work);
    running.signal(Signal::STOP);
    std::thread::sleep(timeout.saturating_sub(began.elapsed()));
    running.signal(Signal::CONT);
    let timed = running.wait(COMMAND_MAX).expect(exit::TIMED_OUT).json();
    assert_eq!(timed["error"]["code"], "ctl.output_deadline", "{timed}");
    assert!(timed["status"] == "completed" && is_told(&timed["result"]), "{timed}");
    assert!(parts().is_none());
    world.assert_nothing_left();
}
