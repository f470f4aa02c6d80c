//! What may be asked of the command line: words that a shell completes, and filters of `logs` that would otherwise answer
//! with nothing, or with something else.

use cjm_store::{JournalOptions, SqliteJournal, note_command};
use cjm_wire::event::{EventType, JournalRow};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The command line, above the folder of its tests: `scripts/test` copies both to where another user may read them.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("the test's own path");
    own.ancestors().nth(2).expect("a target folder").join("cjm-ctl")
}

/// What bash offers for the last of these words.
fn offered(words: &[&str]) -> Vec<String> {
    let script = Command::new(program()).args(["completions", "bash"]).output().expect("runs");
    let mut ask = String::from_utf8(script.stdout).expect("UTF-8");
    let last = words.len() - 1;
    let quoted = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let (current, previous) = (words[last], words[last - 1]);
    ask.push_str(&format!(
        "\nCOMP_WORDS=({quoted}); COMP_CWORD={last}\n_cjm__ctl cjm-ctl '{current}' '{previous}'\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    ));
    let mut bash = Command::new("bash");
    let answer = bash.args(["--norc", "-c", &ask]).stdin(Stdio::null()).output().expect("bash");
    assert!(answer.status.success(), "{answer:?}");
    String::from_utf8(answer.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_what_follows_a_command() {
    assert_eq!(offered(&["cjm-ctl", "regen"]), ["regenerate-manifest"]);
    assert_eq!(offered(&["cjm-ctl", "logs", "--st"]), ["--status"]);
    assert_eq!(offered(&["cjm-ctl", "generate-adapter-manifest", "--js"]), ["--json"]);
    assert_eq!(
        offered(&["cjm-ctl", "validate", "--format", ""]),
        ["manifest", "adapter", "source", "capabilities_yaml", "composition", "settings"]
    );
    assert_eq!(offered(&["cjm-ctl", "logs", "--status", "c"]), ["completed", "cancelled"]);
    assert_eq!(offered(&["cjm-ctl", "logs", "--type", "worker_d"]), ["worker_died"]);
    assert_eq!(offered(&["cjm-ctl", "logs", "--type", "worker_e"]), ["worker_ended"]);
    assert_eq!(offered(&["cjm-ctl", "logs", "--level", "E"]), ["ERROR"]);
}

fn in_folder(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).current_dir(data).env("CJM_DATA_DIR", data).stdin(Stdio::null());
    command
}

/// What the command says in a data directory of its own, and its exit code.
#[track_caller]
fn refused(arguments: &[&str], code: i32, words: &str) {
    let data = tempfile::tempdir().expect("tempdir");
    refused_in(data.path(), arguments, code, words);
}

#[track_caller]
fn refused_in(data: &Path, arguments: &[&str], code: i32, words: &str) {
    let answer = in_folder(data, arguments).output().expect("runs");
    let said = String::from_utf8_lossy(&answer.stderr);
    assert_eq!(answer.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(answer.stdout.is_empty() && said.contains(words), "{arguments:?}: {answer:?}");
}

#[test]
fn a_level_is_refused_with_everything_that_asks_for_the_journal() {
    for option in [["--run", "x"], ["--type", "worker_died"], ["--status", "failed"], ["--node", "n"]] {
        let words = format!("{} asks for the journal", option[0]);
        refused(&[&["logs", "--level", "ERROR"][..], &option].concat(), 2, &words);
    }
}

#[test]
fn an_age_of_jobs_below_nothing_is_told_as_that() {
    for age in ["-1", "0"] {
        refused(&["retention", "--jobs-max-age-days", age], 2, "--jobs-max-age-days is 0 or less");
    }
}

fn row(event_type: EventType, payload: Value) -> JournalRow {
    let Value::Object(payload) = payload else { panic!("an object") };
    JournalRow::new(event_type, payload)
}

/// A data directory whose journal has these rows.
fn journal_of(rows: Vec<JournalRow>) -> tempfile::TempDir {
    let data = tempfile::tempdir().expect("tempdir");
    drop(SqliteJournal::open(data.path(), JournalOptions::default()).expect("a journal"));
    assert!(note_command(data.path(), rows).expect("written"));
    data
}

#[test]
fn a_follower_refuses_what_nobody_knows_and_says_what_it_waits_for() {
    let data = journal_of(vec![row(EventType::RunStarted, json!({}))]);
    for option in ["--job", "--run", "--session", "--capability"] {
        let words = format!("{option} zzz: nothing is known of it");
        refused_in(data.path(), &["logs", "--journal", "--follow", option, "zzz"], 1, &words);
    }
    for (arguments, words) in [
        (&["logs", "--journal", "--follow", "--node", "zzz"][..], "nothing of that yet; this waits"),
        (&["logs", "--follow", "--job", "zzz"], "no store at"),
    ] {
        let mut follower = in_folder(data.path(), arguments).stderr(Stdio::piped()).spawn().expect("starts");
        let mut said = String::new();
        let mut stderr = BufReader::new(follower.stderr.take().expect("piped"));
        stderr.read_line(&mut said).expect("a line");
        follower.kill().expect("it waits");
        follower.wait().expect("ends");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn deaths_of_workers_and_their_orderly_ends_are_asked_for_apart() {
    let verdicts = ["ended by the host: unloaded", "crashed in the middle of a call (SIGSEGV)"];
    let mut rows: Vec<JournalRow> =
        (0..8).map(|n| row(EventType::WorkerDied, json!({"verdict": verdicts[n % 2], "n": n}))).collect();
    // As the ancestor writes it.
    rows.push(row(EventType::WorkerDied, json!({"returncode": -9})));
    rows.push(row(EventType::RunStarted, json!({})));
    let data = journal_of(rows);
    let shown = |arguments: &[&str]| {
        let answer = in_folder(data.path(), &[&["logs"][..], arguments].concat()).output().expect("runs");
        assert!(answer.status.success(), "{arguments:?}: {answer:?}");
        String::from_utf8(answer.stdout).expect("UTF-8")
    };
    let counted = |arguments: &[&str]| {
        let shown = shown(arguments);
        let of = |word: &str| shown.lines().filter(|line| line.contains(word)).count();
        (of(" worker_died "), of(" worker ended "), shown.lines().count())
    };
    assert_eq!(counted(&["--type", "worker_died"]), (5, 0, 5));
    assert_eq!(counted(&["--type", "worker_died", "-n", "3"]), (3, 0, 3));
    for name in ["worker ended", "worker_ended"] {
        assert_eq!(counted(&["--type", name]), (0, 4, 4));
        assert_eq!(counted(&["--type", name, "-n", "3"]), (0, 3, 3));
        assert_eq!(counted(&["--type", name, "--type", "run_started"]), (0, 4, 5));
    }
    assert_eq!(counted(&["--type", "worker_died,worker_ended"]), (5, 4, 9));
    assert_eq!(counted(&["--journal"]), (5, 4, 10));
    let json: Value = serde_json::from_str(&shown(&["--type", "worker_ended", "--json"])).expect("JSON");
    let types: Vec<&Value> = json.as_array().expect("rows").iter().map(|row| &row["event_type"]).collect();
    assert_eq!(types, [&json!("worker_died"); 4]);
}

#[test]
fn direct_calls_that_failed_and_those_that_were_cancelled_are_asked_for_as_they_are_shown() {
    let ended = |status: &str| row(EventType::DirectCallFailed, json!({"call": "c", "status": status}));
    let rows = [ended("failed"), ended("cancelled"), ended("failed"), row(EventType::RunStarted, json!({}))];
    let data = journal_of(rows.into());
    let counted = |name: &str| {
        let answer = in_folder(data.path(), &["logs", "--type", name]).output().expect("runs");
        assert!(answer.status.success(), "{name}: {answer:?}");
        let shown = String::from_utf8(answer.stdout).expect("UTF-8");
        let of = |word: &str| shown.lines().filter(|line| line.contains(word)).count();
        (of(" direct call failed "), of(" direct call cancelled "), shown.lines().count())
    };
    for (name, expected) in [
        ("direct call failed", (2, 0, 2)),
        ("direct_call_failed", (2, 0, 2)),
        ("direct call cancelled", (0, 1, 1)),
        ("direct_call_cancelled", (0, 1, 1)),
        ("direct_call_cancelled,direct_call_failed", (2, 1, 3)),
        ("direct call cancelled,run_started", (0, 1, 2)),
    ] {
        assert_eq!(counted(name), expected, "{name}");
    }
    refused_in(data.path(), &["logs", "--type", "direct call faild"], 2, "did you mean");
}

#[test]
fn an_id_that_means_many_says_how_many_and_a_part_of_what_is_shown_is_enough() {
    let of_job = |id: String| {
        let mut row = row(EventType::StateTransition, json!({"to": "failed"}));
        row.job_id = Some(id);
        row
    };
    let many = |n: u32| (0..n).map(|n| of_job(format!("01a22132-941d-738b-b016-e73fef30c0{n:02}"))).collect();
    let job = ["logs", "--journal", "--job"];
    let data = journal_of(many(20));
    refused_in(data.path(), &[&job[..], &["0"]].concat(), 1, "--job 0 means 20 things: ");
    let data = journal_of(many(21));
    refused_in(data.path(), &[&job[..], &["0"]].concat(), 1, "--job 0 means more than 20 things: ");
    let answer = in_folder(data.path(), &[&job[..], &["ef30c01"]].concat()).output().expect("runs");
    let said = String::from_utf8_lossy(&answer.stderr);
    assert!(said.contains("--job ef30c01 means 10 things: "), "{answer:?}");
    let data = journal_of(many(1));
    let answer = in_folder(data.path(), &[&job[..], &["ef30c00"]].concat()).output().expect("runs");
    assert!(String::from_utf8_lossy(&answer.stdout).contains("[job=ef30c000 "), "{answer:?}");
}
