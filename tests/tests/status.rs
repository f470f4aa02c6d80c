//! `cjm-ctl status`: who uses a data directory, and what runs there; and that what it says to stop a host does.

use cjm_platform::Signal;
use cjm_platform::lock::FileLock;
use cjm_tests::journal;
use cjm_tests::repo;
use cjm_tests::world::{COMMAND_MAX, Running, World, eventually};
use cjm_wire::describe::exit;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// How long a thing may take to begin.
const BEGIN_MAX: Duration = Duration::from_secs(30);

const COMPOSITION: &str =
    "name: two\nnodes:\n  first: {capability: sleeper}\n  other: {capability: sleeper}\n";

/// A host that runs one job while another waits for the same worker.
fn busy(world: &World) -> Running {
    world.install_executable("sleeper", "sleep", &json!({"wait": {"argv": ["3600"]}}));
    let file = world.write("two.yaml", COMPOSITION).display().to_string();
    let first = world.start(&["run", &file]);
    eventually("a job to run and one to wait", BEGIN_MAX, || {
        assert!(!first.has_ended(), "{}", first.stderr_so_far());
        let status = world.json(&["status", "--json"]);
        (status["running_count"] == 1 && status["pending_count"] == 1).then_some(())
    });
    first
}

#[test]
fn it_shows_who_uses_the_directory_and_what_runs_there() {
    let world = World::new();
    let nobody = world.run(&["status"]).expect(exit::OK).stdout;
    assert!(nobody.starts_with("no host uses "), "{nobody}");
    assert_eq!(world.json(&["status", "--json"])["pid"], Value::Null);
    let first = busy(&world);
    let status = world.json(&["status", "--json"]);
    let pid = first.pid().as_raw();
    assert_eq!(status["pid"], pid, "{status:#}");
    assert!(status["command"].as_str().is_some_and(|command| command.contains(" run ")), "{status:#}");
    let (running, pending) = (&status["running"][0], &status["pending"][0]);
    assert_eq!(running["capability_name"], "sleeper", "{status:#}");
    assert_eq!(running["worker_pid"], status["workers"][0]["pid"], "{status:#}");
    assert_eq!(pending["block_reason"], "instance_busy", "{status:#}");
    assert!(running["started_at"].is_string() && pending["started_at"].is_null(), "{status:#}");
    let text = world.run(&["status"]).expect(exit::OK);
    for words in [
        format!("pid {pid}, since 20"),
        "two.yaml".to_owned(),
        "running  job ".to_owned(),
        "pending  job ".to_owned(),
        "of sleeper, node first[0], for ".to_owned(),
        "of sleeper, node other[0], for ".to_owned(),
        format!("(worker pid {})", running["worker_pid"]),
    ] {
        assert!(text.stdout.contains(&words), "{words}\n{}", text.describe());
    }
    assert!(text.stderr.contains(&format!("`kill {pid}`")), "{}", text.describe());
    // A worker whose job is shown is not shown once more.
    assert!(!text.stdout.contains("without a job"), "{}", text.describe());
    // Who it is can be told also where nobody can read what it does.
    let journal = rusqlite::Connection::open(world.journal()).expect("opens");
    journal.execute_batch("ALTER TABLE jobs RENAME COLUMN status TO elsewhere").expect("altered");
    let unreadable = world.run(&["status"]).expect(exit::STORE);
    let names_it = unreadable.stdout.contains(&format!("pid {pid}"))
        && unreadable.stderr.contains(&format!("`kill {pid}`"));
    assert!(names_it && unreadable.stderr.contains("error: "), "{}", unreadable.describe());
    let document = world.run(&["status", "--json"]).expect(exit::STORE).json();
    assert_eq!(
        (&document["pid"], &document["error"]["exit_code"]),
        (&pid.into(), &exit::STORE.into()),
        "{document:#}"
    );
    journal.execute_batch("ALTER TABLE jobs RENAME COLUMN elsewhere TO status").expect("altered");
    first.signal(cjm_platform::process::Signal::TERM);
    let _ = first.wait(COMMAND_MAX).expect(143);
    let ended = world.run(&["status"]).expect(exit::OK).stdout;
    assert!(ended.starts_with("no host uses ") && ended.lines().count() == 1, "{ended}");
    // One that is killed writes no ends.
    let second = busy(&world);
    second.signal(cjm_platform::process::Signal::KILL);
    let _ = second.wait(COMMAND_MAX);
    let died = world.run(&["status"]).expect(exit::OK).stdout;
    assert!(died.contains("its last host died with 2 jobs that had not ended"), "{died}");
    assert_eq!(world.json(&["status", "--json"])["left_by_dead_host_count"], 2);
    world.assert_nothing_left();
}

/// Loading a tool may take minutes, in which no call gets through.
#[test]
fn a_worker_that_loads_its_tool_is_told_as_starting() {
    let world = World::new();
    let held = world.file("held");
    std::fs::write(&held, "").expect("written");
    let tool = format!(
        "import os, time\nwhile os.path.exists({:?}):\n    time.sleep(0.05)\nfrom cjm_sdk import Capability, action\n\n\
         class Slow(Capability):\n    name = \"slow\"\n\n    @action\n    def sleep(self):\n        time.sleep(3600)\n",
        held.display().to_string(),
    );
    world.install_python("slow", "Slow", &tool);
    let call = world.start(&["call", "slow"]);
    let status = |is_starting: bool| {
        eventually("a worker", BEGIN_MAX, || {
            let status = world.json(&["status", "--json"]);
            (status["workers"][0]["is_starting"] == is_starting).then_some(())
        });
        world.run(&["status"]).expect(exit::OK)
    };
    let told = status(true);
    let line =
        told.stdout.lines().find(|line| line.starts_with("worker   slow (pid ")).expect("a line of it");
    assert!(
        line.contains(", for ") && line.contains("), starting: it loads its tool"),
        "{}",
        told.describe()
    );
    std::fs::remove_file(&held).expect("removed");
    let told = status(false);
    assert!(!told.stdout.contains("starting"), "{}", told.describe());
    call.signal(Signal::TERM);
    let _ = call.wait(COMMAND_MAX);
    world.assert_nothing_left();
}

/// A warning's command would do what it says to another directory.
#[test]
fn commands_that_warnings_name_find_the_same_directory() {
    let world = World::new();
    std::fs::create_dir_all(world.data_dir().join("envs/left")).expect("made");
    let list = world.run(&["list"]).expect(exit::OK);
    let here = format!("`cjm-ctl --data-dir {} remove left`", world.data_dir().display());
    assert!(list.stderr.contains(&here), "{}", list.describe());
}

/// A number that was left behind, or comes from another container, is somebody else's here.
#[test]
fn nobody_is_told_to_kill_a_process_that_is_not_the_host() {
    let world = World::new();
    world.install_executable("sleeper", "sleep", &json!({"wait": {"argv": ["3600"]}}));
    std::fs::create_dir_all(world.data_dir()).expect("made");
    let path = world.data_dir().join("host.lock");
    for pid in ["0", "1", "-1"] {
        let lock = FileLock::try_acquire(&path, &format!("pid {pid} since 2026-11-28T20:17:35+00:00"))
            .expect("free");
        let status = world.run(&["status"]).expect(exit::OK);
        assert!(
            status.stdout.starts_with("a host uses ") && !status.stderr.contains("kill"),
            "{}",
            status.describe()
        );
        assert_eq!(world.json(&["status", "--json"])["pid"], Value::Null);
        let refused = world.run(&["call", "sleeper"]).expect(exit::DIRECTORY_IN_USE);
        assert!(!refused.stderr.contains("kill"), "{}", refused.describe());
        drop(lock);
    }
}

/// With a host beside it and without one.
#[test]
fn an_installation_that_is_at_work_is_named() {
    let world = World::new();
    std::fs::create_dir_all(world.data_dir()).expect("made");
    assert_eq!(world.json(&["status", "--json"])["installation"], Value::Null);
    let us = std::process::id();
    let text = format!("pid {us} since 2026-11-28T20:17:35+00:00, install-all (one two)");
    let lock = FileLock::try_acquire(&world.data_dir().join("install.lock"), &text).expect("free");
    let host = busy(&world);
    for host_lives in [true, false] {
        let status = world.run(&["status"]).expect(exit::OK);
        let words = format!(
            "what is installed is being changed by process {us} (install-all of one, two, since 2026-11-28 20:17:35 UTC)"
        );
        assert!(status.stdout.contains(&words), "{}", status.describe());
        let document = world.json(&["status", "--json"]);
        assert_eq!(document["pid"].is_null(), !host_lives, "{document:#}");
        let expected = json!({
            "pid": us, "since": "2026-11-28T20:17:35+00:00", "command": "install-all", "environments": ["one", "two"],
            "was_killed": false, "helper_pids": [],
        });
        assert_eq!(document["installation"], expected, "{document:#}");
        host.signal(Signal::TERM);
        eventually("the host to end", BEGIN_MAX, || {
            world.json(&["status", "--json"])["pid"].is_null().then_some(())
        });
    }
    let _ = host.wait(COMMAND_MAX).expect(143);
    drop(lock);
    assert_eq!(world.json(&["status", "--json"])["installation"], Value::Null);
}

#[test]
fn where_nobody_can_tell_whether_a_host_runs_it_is_no_confident_no() {
    let world = World::new();
    std::fs::create_dir_all(world.data_dir()).expect("made");
    std::fs::create_dir(world.data_dir().join("host.lock")).expect("made");
    let told = world.run(&["status"]).expect(1);
    assert!(told.stderr.contains("host.lock") && !told.stdout.contains("no host"), "{}", told.describe());
}

#[test]
fn whoever_is_refused_is_told_how_to_look_and_how_to_stop_it() {
    let world = World::new();
    let first = busy(&world);
    let refused = world.run(&["call", "sleeper"]).expect(exit::DIRECTORY_IN_USE);
    let steps: Vec<&str> = refused.stderr.split('`').skip(1).step_by(2).collect();
    let kill = steps.iter().find(|step| step.starts_with("kill ")).expect("it says how to stop it");
    let look = steps.iter().find(|step| step.ends_with(" status")).expect("it says how to look");
    let binary = repo::binary("cjm-ctl");
    let path = format!(
        "{}:{}",
        binary.parent().expect("a folder").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let status = world.run(&["status"]).expect(exit::OK);
    let logs = status.stderr.split('`').find(|step| step.contains(" logs ")).expect("a command").to_owned();
    let here = format!("--data-dir {}", world.data_dir().display());
    assert!(look.contains(&here) && logs.contains(&here), "{look}, {logs}");
    let follow = |step: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", step]).env("PATH", &path);
        world.start_command(shell).wait(COMMAND_MAX).expect(0)
    };
    assert!(follow(look).stdout.contains("running  job "), "{look}");
    let _ = follow(kill);
    let _ = first.wait(COMMAND_MAX).expect(143);
    world.assert_nothing_left();
    journal::assert_every_job_ended_once(&world.journal());
}

/// A host that stands still ends by no wait, and no signal but that to go on reaches it.
#[test]
fn a_stopped_host_is_told_as_that_with_steps_that_end_it() {
    let world = World::new();
    let first = busy(&world);
    let pid = first.pid();
    first.signal(Signal::STOP);
    eventually("the host to stand still", BEGIN_MAX, || {
        (world.json(&["status", "--json"])["stopped"] == true).then_some(())
    });
    let (go_on, end) = (format!("`kill -CONT {pid}`"), format!("`kill {pid}`"));
    for told in [world.run(&["status"]).expect(exit::OK), world.run(&["call", "sleeper"]).expect(15)] {
        let (go_on, end) = (told.stderr.find(&go_on), told.stderr.find(&end));
        assert!(go_on.is_some() && go_on < end, "{}", told.describe());
    }
    first.signal(Signal::CONT);
    first.signal(Signal::TERM);
    let _ = first.wait(COMMAND_MAX).expect(143);
    world.assert_nothing_left();
}

/// The kernel knows who holds the directory, whatever became of the files in it.
#[test]
fn a_host_whose_lock_was_removed_is_told_as_that_and_the_next_call_begins_nothing() {
    for names in [&["host.lock"][..], &["host.lock", "tree.lock"], &["host.lock", "payloads"]] {
        let world = World::new();
        let first = busy(&world);
        for path in names.iter().map(|name| world.data_dir().join(name)) {
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            removed.expect("removed");
        }
        let who = format!("pid {}, whose host.lock was removed", first.pid());
        let step = format!("`kill {}`", first.pid());
        let refused = world.run(&["call", "sleeper", "--action", "wait"]).expect(exit::DIRECTORY_IN_USE);
        assert!(refused.stderr.contains(&who) && refused.stderr.contains(&step), "{}", refused.describe());
        // Also beside the file that the refused call has made.
        let status = world.run(&["status"]).expect(exit::OK);
        assert!(status.stdout.contains(&who) && status.stderr.contains(&step), "{}", status.describe());
        assert_eq!(world.json(&["status", "--json"])["pid"], first.pid().as_raw());
        let kept = world.run(&["remove", "sleeper"]).expect(exit::DIRECTORY_IN_USE);
        assert!(kept.stderr.contains(&who), "{}", kept.describe());
        first.signal(Signal::TERM);
        let _ = first.wait(COMMAND_MAX);
        assert!(world.run(&["status"]).expect(exit::OK).stdout.starts_with("no host uses "));
        world.assert_nothing_left();
    }
}

/// As a backup that locks what it reads.
#[test]
fn a_program_that_locks_a_folder_and_is_no_host_is_not_told_as_one_to_be_killed() {
    let world = World::new();
    world.install_executable(
        "tool",
        "sh",
        &json!({"tell": {"argv": ["-c", "echo done"], "result": "stdout_text"}}),
    );
    let _ = world.run(&["call", "tool"]).expect(exit::OK);
    for name in ["payloads", "data", "manifests"] {
        let folder = std::fs::File::open(world.data_dir().join(name)).expect("a folder");
        folder.lock().expect("locked");
        let who =
            format!("a program that is no host and has locked a folder there (pid {})", std::process::id());
        let refused = world.run(&["call", "tool"]).expect(exit::DIRECTORY_IN_USE);
        assert!(refused.stderr.contains(&format!("is in use by {who}")), "{}", refused.describe());
        assert!(!refused.stderr.contains("kill"), "{}", refused.describe());
        let status = world.run(&["status"]).expect(exit::OK);
        assert!(status.stdout.contains(&format!("is in use by {who}")), "{}", status.describe());
        assert!(!status.stderr.contains("kill"), "{}", status.describe());
    }
    let _ = world.run(&["call", "tool"]).expect(exit::OK);
}
