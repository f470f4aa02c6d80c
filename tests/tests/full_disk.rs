//! A data directory on a disk of 6 MB, filled to ten levels, through the command line: every command ends by itself and
//! soon, says in one error what to do, and leaves sound databases; a deadline and a signal are obeyed on the full disk;
//! and when there is room again, all works.

use cjm_platform::process::Signal;
use cjm_tests::small_disk::SmallDisk;
use cjm_tests::world::{Outcome, World, eventually};
use cjm_tests::{journal, repo};
use rusqlite::Connection;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest time any command may take on a full disk.
const COMMAND_MAX: Duration = Duration::from_secs(5);
/// The room that is left, in kB.
const LEVELS_KB: [u64; 10] = [0, 4, 16, 64, 256, 512, 1024, 1536, 2048, 4096];
/// Could not be written.
const STORE: i32 = 17;
/// A tool failed.
const TOOL: i32 = 12;

const FLOW: &str = "name: flow\nnodes:\n  one: {capability: tool, action: small}\n  two: {capability: tool, action: small, after: [one]}\n";
const LIST: &str = "capabilities: [{name: added, manifest: added.json}]\n";

/// A world on a small disk, with tools in it; None where there can be none, which is said.
fn small(test: &str) -> Option<(SmallDisk, World)> {
    let world = World::new();
    let disk = match SmallDisk::under(&world) {
        Ok(disk) => disk,
        Err(reason) => {
            repo::skip(test, &reason);
            return None;
        }
    };
    let begun = begun(&world).display().to_string();
    let sh = |script: &str| json!({"argv": ["-c", script], "result": "stdout_text"});
    let actions = json!({
        "small": sh("echo small"),
        "middling": sh("head -c 30000 /dev/zero | tr '\\0' x"),
        "big": sh("head -c 3000000 /dev/zero | tr '\\0' x"),
        "flood": sh("head -c 9000000 /dev/zero | tr '\\0' x >&2; echo flooded"),
        "file": {"argv": ["-c", "head -c 3000000 /dev/zero > \"$0\"", "{out}"], "outputs": {"out": "out"}, "result": "files"},
        "short": sh("sleep 0.1; echo short"),
        "slow": sh(&format!("echo begun >&2; : > {begun}; exec sleep 600")),
        "deaf": sh(&format!("trap '' TERM INT; echo begun >&2; : > {begun}; while :; do sleep 1; done")),
    });
    world.install_executable("tool", "/bin/sh", &actions);
    let added =
        json!({"runtime": {"kind": "executable", "program": "/bin/true", "actions": {"go": {"argv": []}}}});
    world.write("added.json", cjm_tests::world::manifest("added", &added, &json!({})).to_string());
    world.write("flow.yaml", FLOW);
    world.write("capabilities.yaml", LIST);
    Some((disk, world))
}

/// What the tools that last make once they run. It lies on no small disk.
fn begun(world: &World) -> PathBuf {
    world.file("begun")
}

/// What a person does with a data directory.
fn commands() -> Vec<Vec<&'static str>> {
    vec![
        vec!["list"],
        vec!["call", "tool", "--action", "small"],
        vec!["call", "tool", "--action", "big"],
        vec!["call", "tool", "--action", "file"],
        vec!["call", "tool", "--action", "small", "--stream"],
        vec!["run", "flow.yaml"],
        vec!["call", "tool", "--action", "flood"],
        vec!["logs"],
        vec!["logs", "--chunks"],
        vec!["logs", "--journal"],
        vec!["set-secret", "tool", "KEY", "--value", "hush"],
        vec!["list-secrets", "tool"],
        vec!["install-all"],
        vec!["remove-secret", "tool", "OTHER"],
        vec!["call", "tool", "--action", "small", "--json"],
        vec!["retention", "--archive-journal", "2000-01-01"],
        vec!["retention", "--max-total-mb", "0.1"],
        vec!["call", "tool", "--action", "small"],
    ]
}

/// What only reads, or makes room, does so on a full disk too.
fn must_work(arguments: &[&str]) -> bool {
    ["list", "logs", "list-secrets", "retention"].contains(&arguments[0])
        && !arguments.contains(&"--archive-journal")
}

/// What is wrong with the way a command ended on a full disk.
fn faults_of(outcome: &Outcome, must_work: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let mut wrong = |what: String| faults.push(format!("{what}: {}", outcome.describe()));
    if outcome.elapsed > COMMAND_MAX {
        wrong(format!("took {:?}", outcome.elapsed));
    }
    match outcome.code {
        Some(0) => {}
        code if must_work => wrong(format!("ended with {code:?}, and needs no room")),
        Some(STORE) => {
            let errors = outcome.stderr.lines().filter(|line| line.starts_with("error:")).count();
            let in_json = outcome.stdout.contains("\"next_step\"");
            if !in_json && (errors != 1 || !outcome.stderr.contains("next: ")) {
                wrong("does not say in one error what to do".to_owned());
            }
        }
        // The tool itself could not write, and says so.
        Some(TOOL) if outcome.stderr.contains("| head: error writing") => {}
        // What was not set before cannot be removed.
        Some(1) if outcome.stderr.contains("no secret 'OTHER' is stored") => {}
        other => wrong(format!("ended with {other:?}")),
    }
    // Lines of a log are for whoever asked for one.
    if outcome.stderr.contains("ERROR") || outcome.stderr.contains("WARN") {
        wrong("speaks as a log".to_owned());
    }
    faults
}

fn assert_databases_are_sound(data_dir: &Path) {
    let mut checked = 0;
    for entry in std::fs::read_dir(data_dir).expect("readable").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "db") {
            let verdict: String = Connection::open(&path)
                .and_then(|db| db.query_row("PRAGMA integrity_check", [], |row| row.get(0)))
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(verdict, "ok", "{}", path.display());
            checked += 1;
        }
    }
    assert!(checked > 0, "no database in {}", data_dir.display());
}

/// Sessions of workers that were started and whose end is in no row.
fn unended(path: &Path) -> BTreeSet<String> {
    let rows = journal::rows(path);
    let of = |kind: &str| -> BTreeSet<String> {
        rows.iter().filter(|row| row.event_type == kind).filter_map(|row| row.worker.clone()).collect()
    };
    of("worker_spawned").difference(&of("worker_died")).cloned().collect()
}

/// All of it once on a disk with so much left; `used`: things have run there before.
fn at_level(left_kb: u64, used: bool) -> Vec<String> {
    let Some((disk, world)) = small("full_disk") else { return Vec::new() };
    if used {
        let _ = world.run(&["call", "tool", "--action", "small"]).expect(0);
        for key in ["KEPT", "OTHER"] {
            let _ = world.run(&["set-secret", "tool", key, "--value", "kept"]).expect(0);
        }
    }
    disk.fill(left_kb * 1024);
    let mut faults = Vec::new();
    for arguments in commands() {
        let outcome = world.start(&arguments).wait(COMMAND_MAX * 4);
        if std::env::var_os("CJM_TEST_TELL").is_some() {
            eprintln!("{left_kb} kB {used}: {:?} {:?} {}", outcome.code, outcome.elapsed, outcome.command);
        }
        faults.extend(
            faults_of(&outcome, used && must_work(&arguments))
                .into_iter()
                .map(|fault| format!("{left_kb} kB left, used {used}: {fault}")),
        );
        world.assert_nothing_left();
    }
    disk.free();
    let _ = world.run(&["retention", "--max-total-mb", "0.1"]);
    for action in ["small", "small"] {
        let _ = world.run(&["call", "tool", "--action", action]).expect(0);
    }
    let _ = world.run(&["run", "flow.yaml"]).expect(0);
    let _ = world.run(&["set-secret", "tool", "KEY", "--value", "hush"]).expect(0);
    let _ = world.run(&["install-all"]).expect(0);
    if used {
        let names = world.run(&["list-secrets", "tool"]).expect(0).stdout;
        assert!(names.contains("KEPT"), "a secret from before was lost: {names}");
    }
    assert_databases_are_sound(&world.data_dir());
    let left = unended(&world.journal());
    if !left.is_empty() {
        faults.push(format!("{left_kb} kB left: started and never ended: {left:?}"));
    }
    journal::assert_every_job_ended_once(&world.journal());
    faults
}

#[test]
fn at_every_fill_level_every_command_ends_and_says_what_to_do() {
    let faults: Vec<String> = LEVELS_KB.iter().flat_map(|level| at_level(*level, true)).collect();
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n\n"));
}

#[test]
fn a_disk_that_is_full_before_anything_ran_is_told_too() {
    let faults: Vec<String> =
        [0, 16, 64, 256, 1024].iter().flat_map(|level| at_level(*level, false)).collect();
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n\n"));
}

/// A refusal gives no room to the next host, which would accept a larger call in the place of the ends of running jobs.
#[test]
fn what_is_refused_for_want_of_room_is_refused_again_and_leaves_the_reserve() {
    for left_kb in [64, 128, 256, 384] {
        let Some((disk, world)) = small("full_disk") else { return };
        let reserve = world.data_dir().join("journal.reserve");
        let _ = world.run(&["call", "tool", "--action", "small"]).expect(0);
        disk.fill(left_kb * 1024);
        for action in ["small", "middling", "small", "middling"] {
            let refused = world.run(&["call", "tool", "--action", action]);
            let what = format!("{left_kb} kB left\n{}", refused.describe());
            assert_eq!(refused.code, Some(STORE), "{what}");
            // Beside the reserve there may be no room to open anything.
            assert!(left_kb == 64 || refused.stderr.contains("new work is not accepted"), "{what}");
            assert!(reserve.exists(), "{what}");
        }
        assert_well_again(&disk, &world, &format!("{left_kb} kB left"));
    }
}

#[test]
fn a_disk_that_fills_while_a_call_runs_keeps_nobody_from_ending_it() {
    for left_kb in [0, 64, 1024] {
        for (action, signal, code) in [
            ("slow", Some(Signal::TERM), 143),
            ("slow", Some(Signal::INT), 130),
            ("deaf", Some(Signal::TERM), 143),
            ("slow", None, 13),
            ("deaf", None, 13),
        ] {
            let Some((disk, world)) = small("full_disk") else { return };
            let mut arguments = vec!["call", "tool", "--action", action];
            if signal.is_none() {
                arguments.extend(["--timeout", "2"]);
            }
            let running = world.start(&arguments);
            // Not only its row: what its tool needs to begin is made after that.
            eventually("the tool runs", Duration::from_secs(20), || begun(&world).exists().then_some(()));
            disk.fill(left_kb * 1024);
            if let Some(signal) = signal {
                running.signal(signal);
            }
            let outcome = running.wait(Duration::from_secs(30));
            let what = format!("{left_kb} kB left\n{}", outcome.describe());
            if std::env::var_os("CJM_TEST_TELL").is_some() {
                eprintln!("{what}");
            }
            assert_eq!(outcome.code, Some(code), "{what}");
            assert!(outcome.elapsed < COMMAND_MAX + Duration::from_secs(4), "{what}");
            assert!(!outcome.stderr.contains("ERROR"), "{what}");
            assert_well_again(&disk, &world, &what);
        }
    }
}

/// Nothing is left of what was tried, and all works once there is room.
fn assert_well_again(disk: &SmallDisk, world: &World, what: &str) {
    world.assert_nothing_left();
    disk.free();
    let _ = world.run(&["call", "tool", "--action", "small"]).expect(0);
    assert_databases_are_sound(&world.data_dir());
    assert_eq!(unended(&world.journal()), BTreeSet::new(), "{what}");
    journal::assert_every_job_ended_once(&world.journal());
}

/// A run of many calls, of which most wait when the disk fills.
#[test]
fn a_disk_that_fills_while_a_run_is_at_work_ends_it() {
    for (policy, signal, code) in [
        ("best_effort", None, 16),
        ("fail_fast", None, 16),
        ("best_effort", Some(Signal::TERM), 143),
        ("fail_fast", Some(Signal::INT), 130),
    ] {
        let Some((disk, world)) = small("full_disk") else { return };
        let items: Vec<usize> = (0..200).collect();
        let nodes = json!({"many": {"capability": "tool", "action": "short", "map": items}});
        world.write("many.yaml", json!({"name": "many", "failure": policy, "nodes": nodes}).to_string());
        let running = world.start(&["run", "many.yaml"]);
        eventually("some calls have ended", Duration::from_secs(20), || {
            let rows = journal::rows(&world.journal());
            (rows.iter().filter(|row| row.text("to") == "completed").count() > 2).then_some(())
        });
        disk.fill(0);
        let full = Instant::now();
        if let Some(signal) = signal {
            running.signal(signal);
        }
        let outcome = running.wait(Duration::from_secs(60));
        let took = full.elapsed();
        let what = format!("{took:?} after {policy} {signal:?}\n{}", outcome.describe());
        assert_eq!(outcome.code, Some(code), "{what}");
        assert!(took < COMMAND_MAX, "{what}");
        assert_well_again(&disk, &world, &what);
    }
}

/// Bytes that are free where the world's data lie.
fn free_bytes(world: &World) -> u64 {
    let found = rustix::fs::statvfs(world.data_dir()).expect("a disk says so");
    found.f_bavail * found.f_frsize
}

fn running_compositions(world: &World) -> i64 {
    let database = Connection::open(world.journal()).expect("opens");
    let count = "SELECT COUNT(*) FROM compositions WHERE status IN ('pending', 'running')";
    database.query_row(count, [], |row| row.get(0)).expect("reads")
}

/// The disk holds nothing but what calls and a run gave back, so only forgetting makes room.
fn a_run_fills(disk_kb: u64, result_bytes: u64, elements: usize, is_killed: bool) {
    let world = World::new();
    let _disk = match SmallDisk::of(&world, &format!("size={disk_kb}k")) {
        Ok(disk) => disk,
        Err(reason) => return repo::skip("a_run_fills", &reason),
    };
    let sh = |script: &str| json!({"argv": ["-c", script], "result": "stdout_text"});
    let big = format!("od -An -tx1 -v -w64 -N {result_bytes} /dev/urandom | head -c {result_bytes}");
    world.install_executable("tool", "/bin/sh", &json!({"small": sh("echo small"), "big": sh(&big)}));
    for _ in 0..4 {
        let _ = world.run(&["call", "tool", "--action", "big"]).expect(0);
    }
    let items: Vec<usize> = (0..elements).collect();
    let nodes = json!({"many": {"capability": "tool", "action": "big", "map": items}});
    world.write("many.yaml", json!({"name": "many", "failure": "best_effort", "nodes": nodes}).to_string());
    let reserve = world.data_dir().join("journal.reserve");
    let running = world.start(&["run", "many.yaml"]);
    if is_killed {
        eventually("the reserve is given up", Duration::from_secs(60), || (!reserve.exists()).then_some(()));
        running.signal(Signal::KILL);
    }
    let ran = running.wait(Duration::from_secs(120));
    let what = format!("{disk_kb} kB, results of {result_bytes} bytes\n{}", ran.describe());
    assert!(is_killed || matches!(ran.code, Some(12 | 16 | 17)), "the disk was not full: {what}");
    world.assert_nothing_left();
    let (left, left_running) = (free_bytes(&world), running_compositions(&world));
    let age = ["retention", "--jobs-max-age-days", "0.0000001", "--json"];
    let first = world.run(&age);
    let what = format!("{left} bytes free, {left_running} running; {what}\n{}", first.describe());
    assert_eq!(first.code, Some(0), "{what}");
    let first = first.json();
    assert!(first["jobs_deleted"].as_u64() >= Some(4), "{what}");
    // In the file, or beside it.
    let freed = first["journal_free_bytes"].as_u64().unwrap_or_default() + free_bytes(&world);
    assert!(freed > left + 4 * result_bytes / 2, "{what}");
    let _ = world.run(&["call", "tool", "--action", "small"]).expect(0);
    assert_eq!(running_compositions(&world), 0, "the next host ends it: {what}");
    let _ = world.run(&age).expect(0);
    let _ = world.run(&["retention", "--max-total-mb", "0"]).expect(0);
    let again = world.run(&["call", "tool", "--action", "big"]);
    assert_eq!(again.code, Some(0), "{} bytes free; {what}\n{}", free_bytes(&world), again.describe());
    assert_databases_are_sound(&world.data_dir());
    assert_eq!(unended(&world.journal()), BTreeSet::new(), "{what}");
    journal::assert_every_job_ended_once(&world.journal());
}

/// Such a disk never had room for the reserve; what others put there is in nobody's hand here.
#[test]
fn where_forgetting_finds_no_room_either_the_word_is_not_to_forget() {
    let world = World::new();
    let disk = match SmallDisk::of(&world, "size=1500k") {
        Ok(disk) => disk,
        Err(reason) => return repo::skip("full_disk", &reason),
    };
    world.install_executable("tool", "/bin/sh", &json!({"small": {"argv": ["-c", "echo small"]}}));
    let _ = world.run(&["call", "tool"]).expect(0);
    disk.fill(0);
    for forget in [["retention", "--max-total-mb", "0"], ["retention", "--jobs-max-age-days", "0.00001"]] {
        let refused = world.run(&forget).expect(cjm_wire::describe::exit::STORE);
        let next = refused.stderr.lines().find(|line| line.contains("next: ")).unwrap_or_default();
        assert!(
            next.contains("make 1 MB free") && !next.contains("cjm-ctl retention"),
            "{}",
            refused.describe()
        );
    }
    disk.free();
    for forget in [["retention", "--max-total-mb", "0"], ["retention", "--jobs-max-age-days", "0.00001"]] {
        let _ = world.run(&forget).expect(0);
    }
    let _ = world.run(&["call", "tool"]).expect(0);
    assert_databases_are_sound(&world.data_dir());
}

/// Kept files are a tool's own, and go by nobody's age.
#[test]
fn what_tools_keep_on_a_full_disk_is_named_by_retention() {
    let Some((disk, world)) = small("full_disk") else { return };
    let kept = world.data_dir().join("data/tool/kept/of/one");
    std::fs::create_dir_all(&kept).expect("made");
    std::fs::write(kept.join("page"), vec![b'x'; 1024 * 1024]).expect("written");
    let forget = ["retention", "--max-total-mb", "0"];
    let _ = world.run(&["call", "tool", "--action", "small"]).expect(0);
    assert!(!world.run(&forget).expect(0).stdout.contains("nearly full"));
    disk.fill(64 * 1024);
    let told = world.run(&forget).expect(0).stdout;
    let folder = world.data_dir().join("data/tool").display().to_string();
    let words = format!("{folder} holds 1.0 MB that its tool keeps (`rm -r {folder}` takes it away)");
    assert!(told.contains(&words), "{told}");
    // Nor is the next word to forget once more, but what else takes the room.
    let disk_word = world.data_dir().display().to_string();
    assert!(told.contains("nearly full still: 0.1 MB of it are free"), "{told}");
    assert!(told.contains(&format!("(`du -xah {disk_word} | sort -h")), "{told}");
    assert!(
        told.contains(&format!("{disk_word}/filler holds ")) && !told.contains("cjm-ctl retention"),
        "{told}"
    );
    let document = world.run(&["retention", "--max-total-mb", "0", "--json"]).expect(0).json();
    let largest = document["disk_nearly_full"]["largest"][0]["path"].clone();
    assert_eq!(largest, json!(world.data_dir().join("filler")), "{document:#}");
    // Results of jobs are none of what the tool keeps: they go with their jobs.
    disk.free();
    std::fs::remove_dir_all(world.data_dir().join("data/tool/kept")).expect("removed");
    let session = "01a22857-1886-7071-832b-98ab3cc0675c";
    let call = world.data_dir().join("data/tool").join("work").join(session).join("1");
    std::fs::create_dir_all(&call).expect("made");
    std::fs::write(call.join("page"), vec![b'x'; 1024 * 1024]).expect("written");
    disk.fill(64 * 1024);
    let told = world.run(&forget).expect(0).stdout;
    assert!(told.contains("1.0 MB of it are results of jobs; `cjm-ctl"), "{told}");
    assert!(told.contains("retention --jobs-max-age-days 7` forgets") && !told.contains("rm -r"), "{told}");
    let asked = world.run(&["retention", "--jobs-max-age-days", "300"]).expect(0).stdout;
    assert!(!asked.contains("results of jobs") && !asked.contains("rm -r"), "{asked}");
}

/// The kernel calls it full, and there is nothing to be seen of that in its bytes.
#[test]
fn where_no_inode_is_free_secrets_and_folders_of_results_say_so() {
    let world = World::new();
    let _disk = match SmallDisk::of(&world, "size=20m,nr_inodes=60") {
        Ok(disk) => disk,
        Err(reason) => return repo::skip("full_disk", &reason),
    };
    world.install_executable("tool", "/bin/sh", &json!({"small": {"argv": ["-c", "echo small"]}}));
    let _ = world.run(&["set-secret", "tool", "KEY", "--value", "kept"]).expect(0);
    let (out, new) = (world.data_dir().join("out"), world.data_dir().join("new"));
    std::fs::create_dir(&out).expect("made");
    let empty = |number: usize| std::fs::write(world.data_dir().join(format!("empty-{number}")), "");
    assert!((0..60).any(|number| empty(number).is_err()), "there are inodes still");
    let refused = |arguments: &[&str]| {
        let refused = world.run(arguments);
        assert_ne!(refused.code, Some(0), "{}", refused.describe());
        let says =
            refused.stderr.contains("no inode is free") && refused.stderr.contains("next: remove files");
        assert!(says, "{}", refused.describe());
    };
    for folder in [out, new] {
        refused(&["call", "tool", "-o", &folder.display().to_string()]);
    }
    refused(&["set-secret", "tool", "KEY", "--value", "other"]);
    refused(&["remove-secret", "tool", "KEY"]);
}

/// What is not whole holds secrets, too.
#[test]
fn a_secret_that_is_not_kept_or_removed_for_want_of_room_leaves_no_file() {
    let Some((disk, world)) = small("full_disk") else { return };
    for key in ["ONE", "TWO"] {
        let _ = world.run(&["set-secret", "tool", key, "--value", &key.repeat(20_000)]).expect(0);
    }
    disk.fill(16 * 1024);
    let files = || {
        let entries = std::fs::read_dir(world.data_dir().join("secrets")).expect("there").flatten();
        entries.map(|entry| entry.file_name()).collect::<BTreeSet<_>>()
    };
    let before = files();
    for arguments in [&["remove-secret", "tool", "ONE"][..], &["set-secret", "tool", "TWO", "--value", "x"]] {
        let refused = world.run(arguments).expect(cjm_wire::describe::exit::STORE);
        assert_eq!(files(), before, "{}", refused.describe());
    }
}

#[test]
fn a_run_that_filled_the_disk_leaves_room_to_retention_and_to_the_next_call() {
    for (disk_kb, result_bytes, elements) in [
        (1100, 100_000, 30),
        (1700, 100_000, 30),
        (1700, 20_000, 100),
        (3000, 60_000, 100),
        (5500, 100_000, 80),
        (5500, 250_000, 60),
        (5500, 600_000, 20),
    ] {
        a_run_fills(disk_kb, result_bytes, elements, false);
    }
}

#[test]
fn a_run_that_filled_the_disk_and_was_killed_leaves_room_to_retention_too() {
    for result_bytes in [30_000, 100_000, 200_000] {
        a_run_fills(5500, result_bytes, 250, true);
    }
}
