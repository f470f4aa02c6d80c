//! What a user gets when something is wrong: the right exit code, a stable code, what happened, what to do next,
//! the tool's last words, and no process left over.

use cjm_platform::process::Signal;
use cjm_tests::world::{COMMAND_MAX, Outcome, World, eventually, manifest};
use cjm_tests::{journal, python, repo};
use cjm_wire::describe::exit;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Runs a command with `--json` and without, and checks both faces of its error. Returns the error's document.
#[track_caller]
fn check(world: &World, arguments: &[&str], code: &str, exit_code: u8) -> Value {
    let plain = world.run(arguments).expect(exit_code);
    assert!(plain.stderr.contains("error: "), "what happened\n{}", plain.describe());
    assert!(plain.stderr.contains("next: "), "what to do next\n{}", plain.describe());
    assert!(plain.stdout.is_empty(), "results alone go to stdout\n{}", plain.describe());
    world.assert_nothing_left();

    let mut with_json = arguments.to_vec();
    with_json.push("--json");
    let outcome = world.run(&with_json).expect(exit_code);
    let error = outcome.json()["error"].clone();
    assert_eq!(error["code"], code, "{}", outcome.describe());
    assert_eq!(error["exit_code"], exit_code, "{}", outcome.describe());
    for key in ["message", "next_step"] {
        assert!(error[key].as_str().is_some_and(|text| text.len() > 5), "{key}\n{}", outcome.describe());
    }
    world.assert_nothing_left();
    error
}

#[track_caller]
fn assert_last_words(error: &Value, words: &str) {
    let tail = error["stderr_tail"].to_string();
    assert!(tail.contains(words), "the tool's last lines hold \"{words}\": {error:#}");
}

fn python_tool(body: &str) -> String {
    format!("import ctypes, os, stat, sys, time\nfrom cjm_sdk import Capability, action\n{body}\n")
}

const GOOD_CLASS: &str = "
class Tool(Capability):
    name = 'tool'
    version = '1.0.0'

    @action
    def go(self, **kwargs):
        return 'gone'
";

#[test]
fn a_malformed_manifest_is_named_with_line_and_column() {
    let world = World::new();
    let path = world.data_dir().join("manifests/broken.json");
    std::fs::write(&path, "{\n  \"format_version\": \"2.0\",\n  \"code\": {\"name\": \"broken\",, }\n}\n")
        .expect("written");
    let error = check(&world, &["call", "broken"], "host.broken_manifest", exit::DOMAIN);
    assert!(
        error["message"].as_str().is_some_and(|m| m.contains("broken.json") && m.contains("line 3")),
        "{error:#}"
    );

    let text = path.display().to_string();
    let outcome = world.run(&["validate", &text, "--json"]).expect(exit::DOMAIN);
    let verdict = outcome.json();
    assert_eq!(verdict["valid"], false, "{verdict:#}");
    assert!(verdict["errors"][0].to_string().contains("manifest.malformed"), "{verdict:#}");
    assert!(world.run(&["validate", &text]).expect(exit::DOMAIN).stderr.contains('3'), "the line is named");
    // One broken file does not take the others away.
    world.install_python("tool", "Tool", &python_tool(GOOD_CLASS));
    assert!(world.run(&["call", "tool"]).expect(exit::OK).stdout.contains("gone"));
}

#[test]
fn a_manifest_that_breaks_a_rule_names_the_key() {
    let world = World::new();
    let path = world.install(
        "odd",
        &manifest("odd", &json!({"module": "", "class": "C"}), &json!({"python_path": "/usr/bin/python3"})),
    );
    let verdict = world.run(&["validate", &path.display().to_string(), "--json"]).expect(exit::DOMAIN).json();
    assert!(verdict["errors"][0].to_string().contains("code.module"), "{verdict:#}");
}

#[test]
fn an_unknown_capability_is_answered_with_its_neighbours() {
    let world = World::new();
    world.install_python("tool", "Tool", &python_tool(GOOD_CLASS));
    let error = check(&world, &["call", "tol"], "host.unknown_capability", exit::DOMAIN);
    assert!(error["message"].as_str().is_some_and(|m| m.contains("tool")), "did you mean: {error:#}");
    let composition = world.write("c.yaml", "name: c\nnodes: {a: {capability: nowhere}}\n");
    let outcome = world.run(&["run", &composition.display().to_string(), "--json"]).expect(exit::DOMAIN);
    assert_eq!(outcome.json()["error"]["code"], "host.unknown_capability", "{}", outcome.describe());
}

#[test]
fn a_missing_interpreter_or_program_is_named() {
    let world = World::new();
    let install = json!({"python_path": "/nowhere/bin/python"});
    world.install("lost", &manifest("lost", &json!({"module": "m", "class": "C"}), &install));
    let error = check(&world, &["call", "lost"], "worker.interpreter_missing", exit::WORKER_START);
    assert!(error["message"].as_str().is_some_and(|m| m.contains("/nowhere/bin/python")), "{error:#}");
    world.install_executable("gone", "no-such-program-anywhere", &json!({"a": {"argv": []}}));
    let error = check(&world, &["call", "gone"], "worker.program_missing", exit::WORKER_START);
    assert!(error["message"].as_str().is_some_and(|m| m.contains("no-such-program-anywhere")), "{error:#}");
}

#[test]
fn a_program_that_is_there_and_may_not_be_executed_is_told_as_that_wherever_it_is_looked_for() {
    let mut world = World::new();
    let plain = |name: &str| {
        let path = world.file(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, "#!/bin/sh\n").expect("written");
        path.display().to_string()
    };
    let (tool, python, on_path) = (plain("a tool"), plain("python"), plain("bin/of-the-path"));
    let path = format!("{}:/usr/bin:/bin", world.file("bin").display());
    world.set("PATH", &path);
    world.install_executable("tool", &tool, &json!({"go": {"argv": []}}));
    world.install_executable("named", "of-the-path", &json!({"go": {"argv": []}}));
    let code = json!({"module": "m", "class": "C"});
    world.install("py", &manifest("py", &code, &json!({"python_path": python})));
    let listed = world.run(&["list"]).expect(0);
    for (name, program) in [("tool", format!("'{tool}'")), ("py", python), ("named", on_path)] {
        let chmod = format!("`chmod +x {program}`");
        let error = check(&world, &["call", name], "worker.program_not_executable", exit::WORKER_START);
        assert!(error["message"].to_string().contains("is there and is not executable"), "{error:#}");
        assert!(error["next_step"].to_string().contains(&chmod), "{error:#}");
        assert!(listed.stderr.contains(&chmod), "{}", listed.describe());
        let file = world.data_dir().join(format!("manifests/{name}.json")).display().to_string();
        let warning = world.json(&["validate", &file, "--json"])["warnings"].to_string();
        assert!(warning.contains(&chmod), "{warning}");
        if name != "py" {
            let entry = format!("capabilities:\n- {{name: other-{name}, manifest: '{file}'}}\n");
            std::fs::write(world.file("capabilities.yaml"), entry).expect("written");
            let refused = world.run(&["install-all"]).expect(1);
            assert!(refused.stderr.contains(&chmod), "{}", refused.describe());
            assert!(!refused.stderr.contains("apt-get"), "{}", refused.describe());
        }
    }
}

#[test]
fn garbage_where_json_was_promised_is_the_tools_failure() {
    let world = World::new();
    let script = "import sys; sys.stderr.write('warming up\\nout of cheese\\n'); print('<<< not json >>>')";
    let actions = json!({"go": {"argv": ["-c", script], "result": "stdout_json"}});
    world.install_executable("babbler", &python::interpreter().display().to_string(), &actions);
    let error = check(&world, &["call", "babbler"], "call.tool_failed", exit::TOOL_FAILED);
    assert_last_words(&error, "out of cheese");
}

#[test]
fn what_a_python_tool_prints_is_not_mistaken_for_its_answer() {
    let world = World::new();
    let class = "
print('{\"garbage\": at import', flush=True)
class Tool(Capability):
    name = 'tool'
    version = '1.0.0'

    @action
    def go(self):
        sys.stdout.write('HTTP/1.1 500 nonsense\\r\\n\\r\\n')
        sys.stdout.flush()
        os.write(2, b'\\xff\\xfe\\x00 bytes that are no text\\n')
        return {'fine': True}
";
    world.install_python("tool", "Tool", &python_tool(class));
    let outcome = world.run(&["call", "tool", "--json"]).expect(exit::OK);
    assert_eq!(outcome.json()["result"]["fine"], true, "{}", outcome.describe());
    let chunks = world.run(&["logs", "--chunks", "--json"]).expect(exit::OK).stdout;
    assert!(chunks.contains("nonsense") && chunks.contains("no text"), "its output was kept: {chunks}");
}

#[test]
fn garbage_on_the_runtime_channel_ends_the_worker_and_not_the_host() {
    let world = World::new();
    let class = "
class Tool(Capability):
    name = 'tool'
    version = '1.0.0'

    @action
    def go(self):
        sys.stderr.write('about to lie\\n')
        sys.stderr.flush()
        for number in map(int, os.listdir('/proc/self/fd')):
            try:
                if stat.S_ISSOCK(os.fstat(number).st_mode):
                    os.write(number, b'\\xff' * 4096)
            except OSError:
                pass
        time.sleep(60)
";
    world.install_python("tool", "Tool", &python_tool(class));
    let outcome = world.run(&["call", "tool", "--json"]);
    let error = outcome.json()["error"].clone();
    assert!(
        outcome.code == Some(exit::WORKER_DIED.into()) || outcome.code == Some(exit::TOOL_FAILED.into()),
        "{}",
        outcome.describe()
    );
    assert!(outcome.elapsed < Duration::from_secs(30), "it is not waited for\n{}", outcome.describe());
    assert_last_words(&error, "about to lie");
    world.assert_nothing_left();
}

#[test]
fn a_tool_that_exits_at_import_leaves_its_last_words() {
    for (how, status) in [("sys.exit(3)", "3"), ("os._exit(4)", "4"), ("os.kill(os.getpid(), 11)", "SIGSEGV")]
    {
        let world = World::new();
        let body = format!("sys.stderr.write('no model found\\n')\nsys.stderr.flush()\n{how}\n{GOOD_CLASS}");
        world.install_python("tool", "Tool", &python_tool(&body));
        let outcome = world.run(&["call", "tool", "--json"]).expect(exit::WORKER_START);
        let error = outcome.json()["error"].clone();
        let code = error["code"].as_str().unwrap_or_default();
        assert!(["worker.died_at_start", "worker.load_failed"].contains(&code), "{how}: {error:#}");
        assert!(error["message"].as_str().is_some_and(|m| m.contains(status)), "{how}: {error:#}");
        assert_last_words(&error, "no model found");
        world.assert_nothing_left();
    }
}

#[test]
fn a_tool_that_cannot_be_imported_shows_why() {
    let world = World::new();
    world.install_python("tool", "Tool", "import a_module_that_is_not_there\n");
    let error = check(&world, &["call", "tool"], "worker.load_failed", exit::WORKER_START);
    assert!(error.to_string().contains("a_module_that_is_not_there"), "{error:#}");
}

#[test]
fn a_tool_that_is_never_ready_is_stopped() {
    let world = World::new();
    let body = format!(
        "sys.stderr.write('downloading the internet\\n')\nsys.stderr.flush()\ntime.sleep(3600)\n{GOOD_CLASS}"
    );
    world.install_python("tool", "Tool", &python_tool(&body));
    let outcome = world.run(&["call", "tool", "--json"]).expect(exit::WORKER_START);
    let error = outcome.json()["error"].clone();
    assert_eq!(error["code"], "worker.never_ready", "{}", outcome.describe());
    assert_last_words(&error, "downloading the internet");
    world.assert_nothing_left();
    let rows = journal::rows(&world.journal());
    assert!(rows.iter().any(|row| row.event_type == "worker_died"), "{}", journal::tell(&rows));
}

#[test]
fn a_tool_that_dies_at_work_is_told_from_one_that_fails() {
    let world = World::new();
    let class = "
class Tool(Capability):
    name = 'tool'
    version = '1.0.0'

    @action
    def die(self):
        sys.stderr.write('goodbye\\n')
        sys.stderr.flush()
        ctypes.string_at(0)

    @action
    def fail(self):
        sys.stderr.write('I tried\\n')
        sys.stderr.flush()
        raise RuntimeError('the tool is out of ideas')
";
    world.install_python("tool", "Tool", &python_tool(class));
    let died = check(&world, &["call", "tool", "--action", "die"], "call.worker_died", exit::WORKER_DIED);
    assert!(died["message"].as_str().is_some_and(|m| m.contains("SIGSEGV")), "{died:#}");
    assert_last_words(&died, "goodbye");
    let failed = check(&world, &["call", "tool", "--action", "fail"], "call.tool_failed", exit::TOOL_FAILED);
    assert!(failed["message"].as_str().is_some_and(|m| m.contains("out of ideas")), "{failed:#}");
    assert_last_words(&failed, "I tried");
}

#[test]
fn a_missing_input_file_is_noticed_before_the_tool_runs() {
    let world = World::new();
    let actions = json!({"show": {
        "parameters": {"input": {"type": "input_file", "required": true}},
        "argv": ["{input}"], "result": "stdout_text",
    }});
    world.install_executable("show", "cat", &actions);
    check(&world, &["call", "show", "input=@nowhere.txt"], "ctl.file_missing", exit::DOMAIN);
    let error =
        check(&world, &["call", "show", "input=/nowhere.txt"], "call.arguments_refused", exit::DOMAIN);
    assert!(error["message"].as_str().is_some_and(|m| m.contains("/nowhere.txt")), "{error:#}");
    let composition = world.write(
        "c.yaml",
        "name: c\ninputs: {file: {type: file}}\nnodes: {a: {capability: show, args: {input: '${inputs.file}'}}}\n",
    );
    let text = composition.display().to_string();
    let outcome = world.run(&["run", &text, "file=nowhere.txt", "--json"]).expect(exit::DOMAIN);
    assert!(outcome.json()["error"]["message"].to_string().contains("nowhere.txt"), "{}", outcome.describe());
    let outcome = world.run(&["run", "no-such-composition.yaml", "--json"]).expect(exit::DOMAIN);
    assert!(
        outcome.json()["error"]["next_step"].as_str().is_some_and(|t| !t.is_empty()),
        "{}",
        outcome.describe()
    );
}

#[test]
fn a_store_that_is_no_file_is_told_and_waited_for_by_nobody() {
    for (name, arguments) in [("journal.db", &["logs", "--journal"][..]), ("diagnostics.db", &["logs"])] {
        type Make<'a> = &'a dyn Fn(&Path) -> bool;
        let shapes: [(&str, Make<'_>); 3] = [
            ("a FIFO", &|path| Command::new("mkfifo").arg(path).status().is_ok_and(|made| made.success())),
            ("a device", &|path| std::os::unix::fs::symlink("/dev/zero", path).is_ok()),
            ("a folder", &|path| std::fs::create_dir(path).is_ok()),
        ];
        for (shape, make) in shapes {
            let world = World::new();
            std::fs::create_dir_all(world.data_dir()).expect("made");
            assert!(make(&world.data_dir().join(name)), "{shape}");
            let error = check(&world, arguments, "store.file", exit::STORE);
            assert!(
                error["message"].as_str().is_some_and(|m| m.contains("not a regular file")),
                "{shape}: {error:#}"
            );
        }
    }
}

/// Whoever made it, an archive or a secret waits for nobody.
#[test]
fn a_lock_that_is_no_file_is_told_and_waited_for_by_nobody() {
    let world = World::new();
    world.install_executable("tool", "/bin/true", &json!({"go": {"argv": []}}));
    let _ = world.run(&["call", "tool"]).expect(exit::OK);
    let archive = ["retention", "--archive-journal", "0s"];
    let set = ["set-secret", "tool", "KEY", "--value", "x"];
    for (lock, arguments, code) in [
        ("archives/lock", &archive[..], "store.file"),
        ("secrets/.secrets.lock", &set[..], "secrets.damaged"),
    ] {
        let lock = world.data_dir().join(lock);
        std::fs::create_dir_all(lock.parent().expect("a folder")).expect("made");
        assert!(Command::new("mkfifo").arg(&lock).status().is_ok_and(|made| made.success()));
        let error = check(&world, arguments, code, exit::STORE);
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains("not a regular file") && message.contains("lock"), "{error:#}");
        let next_step = error["next_step"].as_str().unwrap_or_default();
        assert!(next_step.contains("move it away"), "{error:#}");
        std::fs::remove_file(&lock).expect("removed");
        let _ = world.run(arguments).expect(exit::OK);
    }
}

#[test]
fn a_written_file_is_named_on_one_line() {
    let world = World::new();
    let source = "
import os
import pathlib

from cjm_sdk import Capability, action

class Writer(Capability):
    name = 'writer'
    version = '1.0.0'

    @action
    def write(self):
        path = pathlib.Path(os.environ['CJM_CAPABILITY_DATA_DIR']) / 'a\\nb.txt'
        path.write_text('x')
        return {'path': str(path), 'bytes': 1}
";
    world.install_python("writer", "Writer", source);
    let outcome = world.run(&["call", "writer", "--output", "out"]).expect(exit::OK);
    let wrote: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("wrote ")).collect();
    assert!(wrote.iter().any(|line| line.contains("a\\nb.txt (1 bytes)")), "{}", outcome.describe());
    assert_eq!(outcome.stderr.lines().count(), wrote.len(), "{}", outcome.describe());
    world.assert_nothing_left();
}

#[test]
fn arguments_that_make_no_sense_are_a_usage_error() {
    let world = World::new();
    check(&world, &["call", "tool", "no-equals-sign"], "ctl.usage", exit::USAGE);
    let nonsense: Outcome = world.run(&["frobnicate"]).expect(exit::USAGE);
    assert!(nonsense.stdout.is_empty(), "{}", nonsense.describe());
}

#[test]
fn a_second_host_is_refused_with_the_first_ones_name_and_readers_are_not() {
    let world = World::new();
    let actions = json!({"wait": {"argv": ["3600"]}});
    world.install_executable("sleeper", "sleep", &actions);
    let first = world.start(&["call", "sleeper", "--json"]);
    eventually("worker_ready row", Duration::from_secs(20), || {
        assert!(!first.has_ended(), "{}", first.stderr_so_far());
        journal::rows(&world.journal()).into_iter().find(|row| row.event_type == "worker_ready")
    });
    let second = world.run(&["call", "sleeper", "--json"]).expect(exit::DIRECTORY_IN_USE);
    let error = second.json()["error"].clone();
    assert_eq!(error["code"], "host.directory_in_use", "{error:#}");
    assert_eq!((&error["category"], &error["retriable"]), (&json!("transient"), &json!(true)), "{error:#}");
    assert!(error["message"].as_str().is_some_and(|m| m.contains(&first.pid().to_string())), "{error:#}");
    assert!(error["next_step"].as_str().is_some_and(|t| t.len() > 5), "{error:#}");
    for reading in [
        &["list", "--json"][..],
        &["logs", "--json"],
        &["logs", "--journal", "--json"],
        &["logs", "--chunks"],
    ] {
        let _ = world.run(reading).expect(exit::OK);
    }
    assert!(!first.has_ended(), "the first host went on: {}", first.stderr_so_far());
    // Ctrl-C: the first host stops its work, clears its tree, and says that it was interrupted.
    first.signal(Signal::INT);
    let outcome = first.wait(COMMAND_MAX);
    assert!(
        outcome.code == Some(130) || outcome.code == Some(exit::CANCELLED.into()),
        "interrupted\n{}",
        outcome.describe()
    );
    world.assert_nothing_left();
    journal::assert_every_job_ended_once(&world.journal());
}

/// What a command would find at another place, nobody put there for it.
#[test]
fn a_mistyped_key_of_the_settings_is_told_once_by_every_command_and_what_is_no_settings_file_is_refused() {
    let world = World::new();
    world.install_executable("tool", "/bin/true", &json!({"go": {"argv": []}}));
    let settings = world.file("cjm.yaml");
    std::fs::write(&settings, "modls_dir: m\nsubstrate:\n  drift_detecton: false\n").expect("written");
    std::fs::write(world.file("flow.yaml"), "name: f\nnodes: {a: {capability: tool}}\n").expect("written");
    for command in [
        &["list"][..],
        &["call", "tool"],
        &["run", "flow.yaml"],
        &["status"],
        &["logs"],
        &["validate", "flow.yaml"],
    ] {
        let ran = world.run(command);
        for told in
            ["modls_dir: there is no such key (did you mean \"models_dir\"?)", "substrate.drift_detecton: "]
        {
            assert_eq!(ran.stderr.matches(told).count(), 1, "{}", ran.describe());
        }
        assert!(ran.stderr.contains(&format!("warning: {}", settings.display())), "{}", ran.describe());
    }
    // What `validate` looks at, it tells by itself.
    for looked_at in [".", "cjm.yaml"] {
        let ran = world.run(&["validate", looked_at]).expect(0);
        assert_eq!(ran.stderr.matches("modls_dir").count(), 1, "{}", ran.describe());
    }
    std::fs::write(&settings, "models_dir: m\n").expect("written");
    assert_eq!(world.run(&["list"]).expect(0).stderr, "");
    for (text, code, words) in [
        ("- data_dir\n", "settings_file.malformed", "is not keys with values"),
        ("data_dir\n", "settings_file.malformed", "is not keys with values"),
        ("name: f\nnodes: {}\n", "settings.no_settings", "it has name, nodes, and no key of settings"),
    ] {
        std::fs::write(world.file("other.yaml"), text).expect("written");
        let error = check(&world, &["--cjm-config", "other.yaml", "list"], code, 1);
        assert!(error["message"].to_string().contains(words), "{error}");
        assert!(error["next_step"].to_string().contains("docs/CONFIGURATION.md"), "{error}");
    }
}

#[test]
fn in_a_directory_that_is_gone_nothing_is_looked_for_elsewhere() {
    let world = World::new();
    for command in ["install-all", "allow .", "allow", "validate .", "list", "call tool"] {
        let gone = world.file("gone");
        std::fs::create_dir(&gone).expect("made");
        let mut shell = Command::new("sh");
        let script = format!(
            "cd {0} && rmdir {0} && exec {1} {command}",
            gone.display(),
            repo::binary("cjm-ctl").display()
        );
        shell.args(["-c", &script]);
        let told = world.start_command(shell).wait(COMMAND_MAX).expect(1);
        let words = ["the present directory cannot be used", "change into another one"];
        assert!(words.iter().all(|words| told.stderr.contains(words)), "{command}: {}", told.describe());
    }
}

/// Two would take each other's files for somebody else's.
#[test]
fn a_call_holds_its_folder_of_results_until_they_are_written() {
    let world = World::new();
    let (begun, go) = (world.file("begun"), world.file("go"));
    let waits =
        format!("touch {}; while [ ! -e {} ]; do sleep 0.02; done; echo done", begun.display(), go.display());
    world.install_executable(
        "tool",
        "sh",
        &json!({"wait": {"argv": ["-c", waits], "result": "stdout_text"}}),
    );
    let out = world.file("out");
    let call = ["call", "tool", "-o", out.to_str().expect("text")];
    let running = world.start(&call);
    eventually("the tool runs", Duration::from_secs(30), || begun.exists().then_some(()));
    let folder = std::fs::File::open(&out).expect("it is there");
    assert!(matches!(folder.try_lock(), Err(std::fs::TryLockError::WouldBlock)));
    std::fs::write(&go, "").expect("written");
    let _ = running.wait(COMMAND_MAX).expect(0);
    assert!(out.join("result.txt").exists());
    folder.try_lock().expect("nobody holds it any more");
    let refused = world.run(&call).expect(1);
    assert!(refused.stderr.contains("another call writes into"), "{}", refused.describe());
}

/// The lock of a folder of results would keep the very host of the call out, or be taken for one that is to be ended.
#[test]
fn no_result_goes_into_a_folder_that_a_host_has_for_itself() {
    let world = World::new();
    let ran = world.file("ran");
    let runs = format!("touch {}; echo done", ran.display());
    world.install_executable("tool", "sh", &json!({"tell": {"argv": ["-c", runs], "result": "stdout_text"}}));
    for folder in ["", "manifests", "data", "payloads/new"] {
        let out = world.data_dir().join(folder);
        let refused = world.run(&["call", "tool", "-o", out.to_str().expect("text")]).expect(1);
        assert!(refused.stderr.contains("name another folder with --output"), "{}", refused.describe());
        assert!(refused.stderr.contains("the tool was not run"), "{}", refused.describe());
        assert!(!ran.exists() && !refused.stderr.contains("kill"), "{folder}: {}", refused.describe());
    }
    // Beside them there is room.
    let beside = world.data_dir().join("results");
    let _ = world.run(&["call", "tool", "-o", beside.to_str().expect("text")]).expect(0);
    assert!(ran.exists() && beside.join("result.txt").exists());
}
