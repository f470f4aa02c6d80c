//! The library as a program meets it: from any runtime and none, from a thread that ends, from a large process, with
//! capabilities that do not load. Real hosts in this process, real workers.

use cjm_host::{CapabilitySpec, PipelineBuilder, PipelineError, PipelineEvent, create_pipeline};
use cjm_platform::Signal;
use cjm_tests::repo;
use cjm_tests::world::{World, eventually, manifest};
use cjm_wire::describe::Described;
use cjm_wire::error::ErrorCategory;
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

fn world() -> World {
    let world = World::new();
    let echo = json!({
        "say": {"parameters": {"text": {"type": "string", "required": true}}, "argv": ["-c", "printf %s \"$0\"", "{text}"], "result": "stdout_text"},
        "wait": {"argv": ["-c", "sleep 60"], "cancel": {"signal": "SIGTERM", "grace_ms": 1000}},
    });
    world.install_executable("echo", "sh", &echo);
    world.install_executable(
        "count",
        "sh",
        &json!({"count": {"argv": ["-c", "echo 1; echo 2; echo 3"], "result": "stdout_lines"}}),
    );
    world.install_executable("absent", "no-such-program-anywhere", &json!({"go": {"argv": []}}));
    world
}

fn builder(world: &World, names: &[&str]) -> PipelineBuilder {
    create_pipeline(names.iter().copied())
        .data_dir(world.data_dir())
        .worker_binary(repo::binary("cjm-worker"))
}

/// Two capabilities, jobs, a direct call, a stream, events, a cancel, a clean end.
async fn use_everything(world: &World) -> Result<(), PipelineError> {
    let pipeline =
        builder(world, &["echo"]).capability(CapabilitySpec::new("count").instances(2)).start().await?;
    let mut events = pipeline.events();
    let echo = pipeline.binding("echo")?;
    let job = echo.submit("say", json!({"text": "durable"})).await?;
    assert_eq!(job.result::<String>().await?, "durable");
    assert_eq!(echo.call::<String>("say", json!({"text": "direct"})).await?, "direct");
    assert_eq!(pipeline.binding("count")?.call::<Vec<String>>("count", ()).await?, ["1", "2", "3"]);
    let mut stream = pipeline.binding("count")?.stream("", ()).await?;
    let mut lines = Vec::new();
    while let Some(chunk) = stream.next().await {
        lines.push(chunk?.get().to_owned());
    }
    assert_eq!(lines, ["\"1\"", "\"2\"", "\"3\""]);
    let waiting = echo.submit("wait", ()).await?;
    let started = loop {
        match events.next().await {
            Some(PipelineEvent::Row { row, .. }) if row.job_id.as_deref() == Some(waiting.id().as_str()) => {
                if row.payload.get("to") == Some(&json!("running")) {
                    break true;
                }
            }
            Some(_) => {}
            None => break false,
        }
    };
    assert!(started, "events tell that the job runs");
    waiting.cancel();
    let error = waiting.result::<Value>().await.expect_err("cancelled");
    assert_eq!(error.exit_code(), cjm_wire::describe::exit::CANCELLED, "{error}");
    let report = pipeline.shutdown().await;
    assert!(report.tree_cleared && report.workers_ended == 3, "{report:?}");
    while let Some(event) = events.next().await {
        drop(event);
    }
    Ok(())
}

#[test]
fn from_a_runtime_with_threads_and_from_one_without() {
    let world = world();
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    threads.block_on(use_everything(&world)).expect("with threads");
    world.assert_nothing_left();
    let current = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    current.block_on(use_everything(&world)).expect("on one thread");
    world.assert_nothing_left();
}

#[test]
fn without_a_runtime_and_from_a_thread_that_ends() {
    let world = world();
    let start = builder(&world, &["echo"]);
    let pipeline =
        std::thread::spawn(move || start.start_blocking()).join().expect("a thread").expect("a pipeline");
    assert_eq!(pipeline.call::<String>("echo", "say", json!({"text": "after"})).expect("a call"), "after");
    let job = pipeline.submit("echo", "say", json!({"text": "queued"})).expect("a job");
    assert_eq!(pipeline.result::<String>(&job).expect("a result"), "queued");
    // A worker that dies is noticed though nobody polls anything, and the next call starts another.
    let watch = cjm_tests::watch::Watch::below(cjm_platform::Pid::current());
    let shim = watch.all().iter().find(|watched| watched.command.contains("shim")).expect("a shim").pid;
    cjm_platform::PidFd::open(shim).and_then(|pidfd| pidfd.send_signal(Signal::KILL)).expect("a kill");
    eventually("the death is journaled", LONG, || {
        cjm_tests::journal::rows(&world.journal())
            .iter()
            .any(|row| row.event_type == "worker_died")
            .then_some(())
    });
    assert_eq!(pipeline.call::<String>("echo", "say", json!({"text": "again"})).expect("a call"), "again");
    assert!(pipeline.shutdown().tree_cleared);
    world.assert_nothing_left();
}

#[test]
fn a_pipeline_that_is_dropped_leaves_nothing() {
    let world = world();
    let pipeline = builder(&world, &["echo", "count"]).start_blocking().expect("a pipeline");
    assert!(!world.leftovers().is_empty());
    drop(pipeline);
    eventually("everything is gone", LONG, || world.leftovers().is_empty().then_some(()));
}

#[test]
fn a_capability_that_does_not_load_fails_the_start_or_is_named() {
    let world = world();
    let error = builder(&world, &["echo", "absent"]).start_blocking().expect_err("it is absent");
    assert_eq!(error.code(), "worker.program_missing");
    assert!(!error.next_step().is_empty());
    world.assert_nothing_left();
    let pipeline =
        builder(&world, &["echo", "absent"]).require_all(false).start_blocking().expect("without it");
    assert_eq!(pipeline.pipeline().failures().keys().collect::<Vec<_>>(), ["absent"]);
    let error = pipeline.call::<Value>("absent", "go", ()).expect_err("no binding");
    assert!(matches!(error, PipelineError::NoBinding { reason: Some(_), .. }), "{error}");
    assert_eq!(pipeline.call::<String>("echo", "say", json!({"text": "x"})).expect("the other works"), "x");
    let missing = pipeline.call::<String>("echo", "say", ()).expect_err("no text");
    assert_eq!(missing.code(), "call.arguments_refused");
    pipeline.shutdown();
}

#[test]
fn a_program_with_four_gigabytes_resident_starts_workers() {
    const RESIDENT_BYTES: usize = 4 << 30;
    let available = cjm_platform::usage::sample_machine().expect("/proc").memory_available_bytes;
    if available < 2 * RESIDENT_BYTES as u64 {
        repo::skip(
            "a_program_with_four_gigabytes_resident_starts_workers",
            "less than 8 GiB of memory are free",
        );
        return;
    }
    let world = world();
    let small = std::time::Instant::now();
    builder(&world, &["echo"]).start_blocking().expect("small").shutdown();
    let small = small.elapsed();
    let resident = vec![1u8; RESIDENT_BYTES];
    let large = std::time::Instant::now();
    let pipeline = builder(&world, &["echo"]).start_blocking().expect("large");
    assert_eq!(pipeline.call::<String>("echo", "say", json!({"text": "big"})).expect("a call"), "big");
    pipeline.shutdown();
    let large = large.elapsed();
    assert_eq!(
        resident.iter().step_by(4096).map(|byte| usize::from(*byte)).sum::<usize>(),
        RESIDENT_BYTES / 4096
    );
    repo::measured(&format!(
        "pipeline up and down: {small:?} small, {large:?} with 4 GiB resident (and one call)"
    ));
}

/// Looks a key up that is not there.
const LOOKUP: &str = r#"
from cjm_sdk import Capability, action


class Lookup(Capability):
    name = "lookup"
    version = "1.0.0"

    @action
    def look(self):
        return {}["nokey"]
"#;

#[tokio::test]
async fn an_error_says_all_that_is_known_of_a_tools_failure() {
    let world = World::new();
    let _ = world.install_python("lookup", "Lookup", LOOKUP);
    let pipeline = builder(&world, &["lookup"]).start().await.expect("a pipeline");
    let lookup = pipeline.binding("lookup").expect("a binding");
    let called = lookup.call::<Value>("look", ()).await.expect_err("a failure");
    let job = lookup.submit("look", ()).await.expect("a job");
    let waited = job.result::<Value>().await.expect_err("a failure");
    for error in [called, waited] {
        let details = error.report().details;
        assert_eq!(details.category, Some(ErrorCategory::UserInput), "{error:?}");
        assert_eq!(
            (details.retriable, details.exception.as_deref()),
            (Some(true), Some("KeyError")),
            "{error:?}"
        );
        // What a `main` that returns it prints.
        let printed = format!("{error:?}");
        for words in ["in look", "KeyError: 'nokey'", "\n  next: ", "[call.tool_failed]"] {
            assert!(printed.contains(words), "no \"{words}\" in {printed}");
        }
    }
    pipeline.shutdown().await;
}

/// Side by side they flood the same pipe, and each says last why it failed.
#[tokio::test]
async fn each_failed_call_of_a_program_has_its_own_last_words() {
    let world = World::new();
    let flood = "yes 'one more record' | head -n 500000 >&2; echo \"last words of $0\" >&2; exit 1";
    let fail = json!({"parameters": {"name": {"type": "string"}}, "argv": ["-c", flood, "{name}"]});
    let runtime =
        json!({"kind": "executable", "program": "sh", "concurrency_max": 2, "actions": {"fail": fail}});
    world.install("flood", &manifest("flood", &json!({"runtime": runtime}), &json!({})));
    let pipeline = builder(&world, &["flood"]).start().await.expect("a pipeline");
    let flood = pipeline.binding("flood").expect("a binding");
    let call = async |name: &'static str| {
        let job = flood.submit("fail", json!({"name": name})).await.expect("a job");
        (name, job.result::<Value>().await.expect_err("a failure"))
    };
    for (name, error) in <[_; 2]>::from(tokio::join!(call("a"), call("b"))) {
        let tail = error.report().stderr_tail;
        let (last, before) = tail.split_last().expect("last lines");
        assert_eq!(*last, format!("last words of {name}"), "{error:?}");
        assert!(before.iter().all(|line| line == "one more record"), "{tail:?}");
    }
    pipeline.shutdown().await;
}

#[test]
fn the_readme_shows_the_example_as_it_is() {
    let readme = std::fs::read_to_string(repo::root().join("README.md")).expect("README");
    let example =
        std::fs::read_to_string(repo::root().join("host/examples/pipeline.rs")).expect("the example");
    assert!(
        readme.contains(&format!("```rust title=host/examples/pipeline.rs\n{example}```")),
        "README and example differ"
    );
    let main =
        example.split("async fn main").nth(1).and_then(|rest| rest.split("\n}\n").next()).expect("main");
    assert!(main.lines().count() < 30, "a program of under 30 lines");
}

/// A program that is this test once more, in another folder.
fn program_there(world: &World, folder: &std::path::Path, name: &str) -> cjm_tests::world::Outcome {
    let mut command = std::process::Command::new("/bin/sh");
    command.arg("-c").arg("cd \"$0\" && exec \"$@\"").arg(folder);
    command.arg(std::env::current_exe().expect("this test"));
    command.args(["program_and_command_line_agree_on_the_data_directory", "--exact", "--nocapture"]);
    command.env("HOME", world.file("home")).env("CJM_WORKER", repo::binary("cjm-worker")).env(LOADS, name);
    world.start_command(command).wait(cjm_tests::world::COMMAND_MAX)
}

/// Set: this test is the program that it starts in another folder, and this is what the program loads.
const LOADS: &str = "CJM_TEST_LOADS";

#[expect(clippy::print_stdout, reason = "what it says is what the test reads")]
fn program(name: &str) {
    match create_pipeline([name]).start_blocking() {
        Ok(pipeline) => {
            let said: String = pipeline.call(name, "say", json!({})).expect("said");
            pipeline.shutdown();
            println!("said {said}");
        }
        Err(error) => println!("refused {error:?}"),
    }
}

#[test]
fn program_and_command_line_agree_on_the_data_directory() {
    if let Ok(name) = std::env::var(LOADS) {
        return program(&name);
    }
    let world = World::new();
    let project = world.file("project");
    let inner = project.join("src");
    std::fs::create_dir_all(&inner).expect("mkdir");
    std::fs::create_dir_all(world.file("home")).expect("mkdir");
    let write = |path: std::path::PathBuf, text: &str| std::fs::write(path, text).expect("write");
    let say = json!({"say": {"argv": ["-c", "echo hello"], "result": "stdout_text"}});
    let runtime = json!({"kind": "executable", "program": "sh", "actions": say});
    let tool = cjm_tests::world::manifest("greeter", &json!({"runtime": runtime}), &json!({}));
    write(project.join("greeter.json"), &tool.to_string());
    write(project.join("cjm.yaml"), "data_dir: kept\n");
    write(project.join("capabilities.yaml"), "capabilities: [{name: greeter, manifest: greeter.json}]\n");
    let ctl = |arguments: &str| {
        let mut command = std::process::Command::new("/bin/sh");
        command.arg("-c").arg(format!("cd \"$0\" && exec \"$1\" {arguments}")).arg(&project);
        command.arg(repo::binary("cjm-ctl")).env("HOME", world.file("home"));
        world.start_command(command).wait(cjm_tests::world::COMMAND_MAX)
    };
    let refused = program_there(&world, &inner, "greeter").expect(0);
    assert!(
        refused.stdout.contains("refused") && refused.stdout.contains("project/kept/manifests"),
        "{refused:?}"
    );
    assert!(!project.join("kept").exists() && !world.file("home/.cjm").exists(), "asking makes nothing");
    let _ = ctl("install-all").expect(0);
    let said = program_there(&world, &inner, "greeter").expect(0);
    assert!(said.stdout.contains("said hello"), "{}", said.describe());
    let logs = ctl("logs --journal --json").expect(0);
    assert!(logs.stdout.contains("worker_spawned"), "the command line sees what the program did: {logs:?}");
    assert!(!world.file("home/.cjm").exists(), "all of it is in the project's directory");

    // What merely lies in the folder does not run for a program either, until it is allowed.
    let strange = project.join(".cjm/manifests");
    std::fs::create_dir_all(&strange).expect("mkdir");
    let stranger = cjm_tests::world::manifest("stranger", &json!({"runtime": runtime}), &json!({}));
    write(strange.join("stranger.json"), &stranger.to_string());
    let refused = program_there(&world, &project, "stranger").expect(0);
    assert!(refused.stdout.contains("manifest.not_allowed"), "{}", refused.describe());
    assert!(refused.stdout.contains("cjm-ctl allow"), "{}", refused.describe());
    let _ = ctl("allow").expect(0);
    assert!(program_there(&world, &project, "stranger").expect(0).stdout.contains("said hello"));
    world.assert_nothing_left();
}
