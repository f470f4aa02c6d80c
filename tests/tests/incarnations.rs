//! Workers that die while others wait for them, callers who go away, handles that are asked late: the engine keeps its word
//! with real processes. `CJM_ELEMENTS`, `CJM_ROUNDS`, `CJM_COMMANDS`, `CJM_JOBS` make it long.

use cjm_host::{BlockingPipeline, JobHandle, JobOutcome, Pipeline, PipelineBuilder, create_pipeline};
use cjm_platform::runtime_dir::{effective_uid, name_for};
use cjm_tests::journal::{self, Row};
use cjm_tests::repo;
use cjm_tests::world::World;
use cjm_wire::event::JobStatus;
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

/// A Python tool that does as it is told.
const FLAKY: &str = r#"
import os, time
from cjm_sdk import Capability, action

class Flaky(Capability):
    name = "flaky"
    version = "1.0.0"

    @action
    def work(self, how):
        if how == "die":
            os._exit(7)
        while how == "hang":
            self.report_progress(0.5, "at it")
            time.sleep(0.05)
        return how
"#;

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn flaky() -> World {
    let world = World::new();
    world.install_python("flaky", "Flaky", FLAKY);
    world
}

fn builder(world: &World, name: &str) -> PipelineBuilder {
    create_pipeline([name]).data_dir(world.data_dir()).worker_binary(repo::binary("cjm-worker"))
}

fn sessions(rows: &[Row], event: &str) -> Vec<String> {
    let of = rows.iter().filter(|row| row.event_type == event);
    of.map(|row| row.worker.clone().expect("a session")).collect()
}

/// Every worker that was spawned has died, once, and no id was used twice.
fn assert_each_spawned_worker_died_once(rows: &[Row]) {
    let (spawned, died) = (sessions(rows, "worker_spawned"), sessions(rows, "worker_died"));
    let (spawned_ids, died_ids): (BTreeSet<_>, BTreeSet<_>) =
        (spawned.iter().collect(), died.iter().collect());
    assert_eq!(spawned.len(), spawned_ids.len(), "a session was used twice");
    assert_eq!(died.len(), died_ids.len(), "a session died twice");
    assert_eq!(spawned_ids, died_ids, "spawned without an end, or ended without a beginning");
}

#[test]
fn a_tool_that_dies_on_every_second_element_takes_no_innocent_with_it() {
    let elements = number("CJM_ELEMENTS", 120);
    let world = flaky();
    let items: Vec<&str> = (0..elements).map(|n| if n % 2 == 0 { "die" } else { "live" }).collect();
    world.write(
        "race.yaml",
        format!(
            "name: race\nfailure: best_effort\nnodes:\n  m: {{ capability: flaky, action: work, map: {}, args: {{ how: \"${{item}}\" }} }}\n",
            json!(items)
        ),
    );
    let path = world.file("race.yaml");
    let limit = LONG + Duration::from_millis(500) * u32::try_from(elements).expect("some");
    let outcome = world.start(&["run", &path.display().to_string()]).wait(limit);
    assert_eq!(outcome.code, Some(16), "it ends in part");
    let ends = journal::assert_every_job_ended_once(&world.journal());
    let completed = ends.values().filter(|status| *status == "completed").count();
    assert_eq!((ends.len(), completed), (elements, elements / 2), "exactly the innocent complete");
    let rows = journal::rows(&world.journal());
    assert_each_spawned_worker_died_once(&rows);
    assert_eq!(
        sessions(&rows, "worker_spawned").len(),
        elements.div_ceil(2) + usize::from(elements.is_multiple_of(2))
    );
    world.assert_nothing_left();
}

/// A channel tool that answers one call and exits.
const LEAVES: &str = r#"
    open(my $c, '+<&=', 3);
    sub take { my ($n, $b) = (shift, ''); while (length $b < $n) { sysread($c, $b, $n - length $b, length $b) or exit 0 } $b }
    sub say_ { my ($k, $id, $b) = @_; syswrite($c, pack('N C x3 Q>', length $b, $k, $id) . $b) }
    while (1) {
        my ($n, $k, $id) = unpack('N C x3 Q>', take(16)); take($n);
        if ($k == 1) { say_(0x81, 0, '{"channel_version":1,"name":"leaves","version":"1","supports":[],"concurrency_max":4}') }
        elsif ($k == 0x21) { exit 0 }
        elsif ($k == 2) { say_(0x82, $id, '1'); exit 0 }
        else { say_(0x82, $id, '{"status":"ok"}') }
    }
"#;

#[test]
fn a_tool_that_leaves_after_each_answer_fails_no_element() {
    let world = World::new();
    world.write("leaves.pl", LEAVES);
    let script = world.file("leaves.pl").display().to_string();
    world.install(
        "leaves",
        &json!({"format_version": "2.0", "code": {"name": "leaves", "version": "1", "runtime": {
            "kind": "channel", "program": "/usr/bin/perl", "args": [script],
        }}}),
    );
    let items: Vec<u32> = (0..40).collect();
    world.write(
            "run.yaml",
            format!("name: r\nfailure: best_effort\nnodes:\n  m: {{ capability: leaves, map: {}, args: {{ n: \"${{item}}\" }} }}\n", json!(items)),
        );
    let path = world.file("run.yaml");
    let outcome = world.start(&["run", &path.display().to_string()]).wait(LONG);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let ends = journal::assert_every_job_ended_once(&world.journal());
    assert!(ends.len() == 40 && ends.values().all(|status| status == "completed"), "{ends:?}");
    assert_each_spawned_worker_died_once(&journal::rows(&world.journal()));
    world.assert_nothing_left();
}

/// Two of its calls run side by side, and what it clears away is where its own socket is.
fn clearing() -> World {
    let world = World::new();
    let runtime = json!({"kind": "executable", "program": "/bin/sh", "concurrency_max": 2, "actions": {"go": {
        "parameters": {"script": {"type": "string", "required": true}}, "argv": ["-c", "{script}"], "result": "stdout_text",
    }}});
    for name in ["first", "second"] {
        let code = json!({"name": name, "version": "1", "runtime": runtime});
        world.install(name, &json!({"format_version": "2.0", "code": code}));
    }
    world
}

#[test]
fn workers_come_back_after_a_logout_has_taken_their_sockets_away() {
    for what in ["$XDG_RUNTIME_DIR/cjm", "$XDG_RUNTIME_DIR"] {
        let world = clearing();
        let run = format!(
            "name: r\nfailure: best_effort\nnodes:\n  a: {{ capability: first, action: go, args: {{ script: 'rm -rf {what}' }} }}\n  \
             b: {{ capability: second, action: go, after: [a], map: [1, 2], args: {{ script: 'sleep 0.3; echo ${{item}}' }} }}\n  \
             c: {{ capability: first, action: go, after: [b], map: [1, 2], args: {{ script: 'sleep 0.3; echo ${{item}}' }} }}\n"
        );
        let path = world.write("run.yaml", run);
        let outcome = world.start(&["run", &path.display().to_string()]).wait(LONG);
        assert_eq!(outcome.code, Some(0), "{what}: {}", outcome.stderr);
        let ends = journal::assert_every_job_ended_once(&world.journal());
        assert!(ends.len() == 5 && ends.values().all(|status| status == "completed"), "{what}: {ends:?}");
        let rows = journal::rows(&world.journal());
        assert_each_spawned_worker_died_once(&rows);
        let died = rows.iter().filter(|row| row.event_type == "worker_died");
        let verdicts: Vec<_> = died.map(|row| row.payload["verdict"].as_str().unwrap_or_default()).collect();
        assert!(verdicts.iter().any(|verdict| verdict.contains("its socket was removed")), "{verdicts:?}");
        world.assert_nothing_left();
        // Where they were while there was no directory of a login.
        let in_tmp = PathBuf::from(format!("/tmp/cjm-{}", effective_uid())).join(name_for(&world.data_dir()));
        assert!(!in_tmp.exists(), "{what}");
    }
}

#[test]
fn a_signal_to_a_worker_fails_what_ran_on_it_and_nothing_else() {
    let world = flaky();
    let pipeline = builder(&world, "flaky").start_blocking().expect("a pipeline");
    let hanging = pipeline.submit("flaky", "work", json!({"how": "hang"})).expect("accepted");
    is_at_work(&pipeline, &hanging);
    let next = pipeline.submit("flaky", "work", json!({"how": "live"})).expect("accepted");
    let rows = journal::rows(&world.journal());
    let spawned = rows.iter().find(|row| row.event_type == "worker_spawned").expect("a worker");
    let pid = spawned.payload["pid"].as_i64().expect("its process");
    assert!(Command::new("kill").args(["-TERM", &pid.to_string()]).status().expect("kill").success());
    let told = end_of(&pipeline, &hanging);
    let why = told.failure.clone().map(|failure| failure.report.message).unwrap_or_default();
    assert_eq!(told.status, JobStatus::Failed, "{why}");
    assert!(why.contains("by a signal to its worker (signal 15)"), "{why}");
    let told = end_of(&pipeline, &next);
    assert_eq!(told.status, JobStatus::Completed, "{:?}", told.failure);
    assert!(pipeline.shutdown().tree_cleared);
    let rows = journal::rows(&world.journal());
    let died = rows.iter().find(|row| row.event_type == "worker_died").expect("a death");
    assert_eq!(died.payload["reason"], "killed", "{:?}", died.payload);
    assert_each_spawned_worker_died_once(&rows);
    world.assert_nothing_left();
}

#[test]
fn a_cancel_after_a_death_is_forced_within_its_grace() {
    let rounds = number("CJM_ROUNDS", 5);
    let world = flaky();
    let pipeline = builder(&world, "flaky").start_blocking().expect("a pipeline");
    for round in 0..rounds {
        pipeline.submit("flaky", "work", json!({"how": "die"})).expect("accepted");
        let hanging = pipeline.submit("flaky", "work", json!({"how": "hang"})).expect("accepted");
        is_at_work(&pipeline, &hanging);
        let asked = Instant::now();
        hanging.cancel();
        let outcome = end_of(&pipeline, &hanging);
        assert_eq!(outcome.status, JobStatus::Cancelled, "round {round}");
        assert!(asked.elapsed() < Duration::from_secs(6), "round {round} took {:?}", asked.elapsed());
    }
    assert!(pipeline.shutdown().tree_cleared);
    assert_each_spawned_worker_died_once(&journal::rows(&world.journal()));
    world.assert_nothing_left();
}

/// Waits until the tool itself is at a job that hangs. A job that is `running` may not have reached its tool yet; when
/// its worker ends before it does, it runs on the next one.
fn is_at_work(pipeline: &BlockingPipeline, job: &JobHandle) {
    let told = async { tokio::time::timeout(LONG, pin!(job.progress()).next()).await };
    let told = pipeline.pipeline().host().block_on(told).expect("a host");
    assert!(told.expect("the tool begins").is_some(), "it ended before it began");
}

/// How a job ended, which it must do in time.
fn end_of(pipeline: &BlockingPipeline, job: &JobHandle) -> Arc<JobOutcome> {
    let ended = async { tokio::time::timeout(LONG, job.outcome()).await };
    pipeline.pipeline().host().block_on(ended).expect("a host").expect("in time").expect("an end")
}

#[test]
fn commands_on_busy_processors_leave_no_worker_without_its_end() {
    let commands = number("CJM_COMMANDS", 24);
    let world = World::new();
    world.install_executable("echo", "true", &json!({"go": {"argv": []}}));
    let busy: Vec<Child> = (0..3)
        .map(|_| {
            Command::new("sh")
                // It ends with the test, however that ends.
                .args(["-c", "while kill -0 $PPID 2> /dev/null; do :; done"])
                .stdin(Stdio::null())
                .spawn()
                .expect("a loop")
        })
        .collect();
    let each: Vec<_> = (0..commands).map(|_| world.run(&["call", "echo"])).collect();
    for mut child in busy {
        child.kill().expect("it ran");
        child.wait().expect("it is ours");
    }
    for outcome in each {
        let _ = outcome.expect(0);
    }
    let rows = journal::rows(&world.journal());
    assert_eq!(sessions(&rows, "worker_spawned").len(), commands);
    assert_each_spawned_worker_died_once(&rows);
}

/// A pipeline over a program that answers at once, eight at a time.
async fn echo_pipeline(world: &World) -> Pipeline {
    let action = json!({"say": {"parameters": {"n": {"type": "integer", "required": true}}, "argv": ["{n}"], "result": "stdout_json"}});
    world.install_executable("echo", "echo", &action);
    builder(world, "echo").lanes(8).start().await.expect("a pipeline")
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_are_answered_in_the_order_of_submission_however_old_they_are() {
    let jobs = number("CJM_JOBS", 1_500);
    let world = World::new();
    let pipeline = echo_pipeline(&world).await;
    let echo = pipeline.binding("echo").expect("bound");
    let mut handles = Vec::new();
    for n in 0..jobs {
        handles.push(echo.submit("say", json!({"n": n})).await.expect("accepted"));
    }
    // The last first, so that the others have long ended when they are asked.
    assert_eq!(handles.last().expect("one").result::<usize>().await.expect("the last"), jobs - 1);
    for (n, handle) in handles.iter().enumerate() {
        assert_eq!(handle.result::<usize>().await.expect("kept"), n);
        assert_eq!(handle.status().await.expect("known"), JobStatus::Completed);
    }
    pipeline.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_that_is_dropped_is_not_begun_or_runs() {
    let jobs = number("CJM_JOBS", 1_000);
    let world = World::new();
    let pipeline = echo_pipeline(&world).await;
    let echo = pipeline.binding("echo").expect("bound");
    for n in 0..jobs {
        poll_at_most(n % 4, echo.submit("say", json!({"n": n}))).await;
    }
    // Whatever was begun is ahead of this one.
    let last = echo.submit("say", json!({"n": jobs})).await.expect("the queue has room");
    last.result::<usize>().await.expect("it runs");
    let ends = tokio::time::timeout(LONG, async {
        loop {
            let rows = journal::rows(&world.journal());
            let begun: BTreeSet<_> =
                rows.iter().filter(|row| row.text("to") == "pending").map(|row| row.job_id.clone()).collect();
            let ended: BTreeSet<_> =
                rows.iter().filter(|row| row.terminal().is_some()).map(|row| row.job_id.clone()).collect();
            if begun == ended {
                return ended.len();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let ended = ends.await.expect("every job that was begun ends");
    assert!((2..=jobs + 1).contains(&ended), "{ended} of {jobs} were begun");
    journal::assert_every_job_ended_once(&world.journal());
    pipeline.shutdown().await;
}

/// Polls a future so often, then drops it.
async fn poll_at_most<T>(times: usize, future: impl Future<Output = T>) {
    let (mut left, mut future) = (times, std::pin::pin!(future));
    std::future::poll_fn(|context| {
        if left == 0 || future.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        left -= 1;
        Poll::Pending
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_call_that_is_dropped_is_stopped_and_a_deadline_is_told() {
    let world = flaky();
    let pipeline = builder(&world, "flaky").start().await.expect("a pipeline");
    let flaky = pipeline.binding("flaky").expect("bound");
    let hang = json!({"how": "hang"});
    let error = flaky
        .call_within::<Value>(Duration::from_millis(300), "work", &hang)
        .await
        .expect_err("it never answers");
    assert_eq!(cjm_wire::describe::Described::code(&error), "call.deadline");
    // The tool does not stop when it is asked, so its worker is killed; the next call meets another.
    deaths(&world, 1).await;
    assert_eq!(flaky.call::<String>("work", json!({"how": "live"})).await.expect("another worker"), "live");
    let dropped = tokio::time::timeout(Duration::from_millis(300), flaky.call::<Value>("work", &hang)).await;
    assert!(dropped.is_err(), "it never answers");
    deaths(&world, 2).await;
    pipeline.shutdown().await;
    let rows = journal::rows(&world.journal());
    assert_eq!(sessions(&rows, "worker_spawned").len(), 2, "{}", journal::tell(&rows));
    assert_each_spawned_worker_died_once(&rows);
}

/// Waits until so many workers have died.
async fn deaths(world: &World, count: usize) {
    let waited = tokio::time::timeout(LONG, async {
        while sessions(&journal::rows(&world.journal()), "worker_died").len() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("a worker that does not stop is killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_a_job_ends_with_it_and_loses_no_last_word() {
    let world = World::new();
    let steps = "for step in 10 20 30; do echo at $step% reading >&2; done; sleep 0.1; echo done";
    let progress = json!({"stream": "stderr", "pattern": r"at (?P<percent>[0-9.]+)% (?P<message>\w+)"});
    let actions = json!({"go": {"argv": ["-c", steps], "result": "stdout_text", "progress": progress}});
    world.install_executable("steps", "sh", &actions);
    let pipeline = builder(&world, "steps").start().await.expect("a pipeline");
    let job = pipeline.binding("steps").expect("bound").submit("go", ()).await.expect("accepted");
    let told = tokio::time::timeout(LONG, job.progress().collect::<Vec<_>>()).await.expect("it ends");
    assert_eq!(job.status().await.expect("known"), JobStatus::Completed);
    assert!(told.last().is_some_and(|last| (last.progress - 0.3).abs() < 1e-9), "{told:?}");
    // Of one that has ended nothing more is said.
    assert_eq!(tokio::time::timeout(LONG, job.progress().count()).await.expect("it ends"), 0);
    let waits = pipeline.binding("steps").expect("bound").submit("go", ()).await.expect("accepted");
    let progress = waits.progress();
    pipeline.shutdown().await;
    tokio::time::timeout(LONG, progress.count()).await.expect("it ends with the host");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_past_its_deadline_ends_failed_and_says_so() {
    let world = flaky();
    let pipeline = builder(&world, "flaky").start().await.expect("a pipeline");
    let flaky = pipeline.binding("flaky").expect("bound");
    let options = || cjm_host::SubmitOptions::new().timeout(Duration::from_millis(300));
    let running = flaky.submit_with("work", json!({"how": "hang"}), options()).await.expect("accepted");
    let waiting = flaky.submit_with("work", json!({"how": "hang"}), options()).await.expect("accepted");
    for job in [running, waiting] {
        let outcome = job.outcome().await.expect("an end");
        assert_eq!(outcome.status, JobStatus::Failed);
        assert_eq!(outcome.failure.as_ref().expect("why").report.code, "call.deadline");
    }
    pipeline.shutdown().await;
    let rows = journal::rows(&world.journal());
    let failed = rows.iter().filter(|row| row.terminal() == Some("failed")).count();
    assert_eq!(failed, 2, "{}", journal::tell(&rows));
}
