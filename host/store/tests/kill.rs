//! A host killed at random instants: what it was told is durable is there, nothing is there by half, and the next
//! host finds and ends what was left.

mod common;

use cjm_store::*;
use cjm_wire::Timestamp;
use cjm_wire::error::ErrorCategory;
use cjm_wire::event::JobStatus;
use cjm_wire::ids::{JobId, WorkerSessionId};
use common::*;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Where the writing process writes; without it that test does nothing.
const DIR_VARIABLE: &str = "CJM_STORE_KILL_DIR";
const ROUNDS: usize = 20;
const TASKS: usize = 8;
/// Says this far each job has certainly come.
const STEPS: [&str; 3] = ["accepted", "begun", "ended"];

/// Not a test of its own: the process that is killed. Tells on stdout what was acknowledged.
#[test]
fn writing_process() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let journal = open(Path::new(&dir));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("runtime");
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            tasks.spawn(write_for_ever(Arc::clone(&journal), task));
        }
        while tasks.join_next().await.is_some() {}
    });
}

async fn write_for_ever(journal: Arc<SqliteJournal>, task: usize) {
    for turn in task.. {
        let job = job("asr");
        // Some arguments and results are files.
        let length = if turn % 8 == 0 { INLINE_BYTES_MAX + turn } else { turn };
        let body = json!({"job": job.job_id, "text": "x".repeat(length)});
        let running = started(&job, 1);
        let done = ended(&running, JobStatus::Completed);
        journal.commit(accept(&job, &body)).await.expect("accepted");
        say(STEPS[0], &job.job_id);
        journal.commit(begin(&running, JobStatus::Pending).row(account("beside", 0))).await.expect("begun");
        say(STEPS[1], &job.job_id);
        journal.commit(finish(&done, Some(&body))).await.expect("ended");
        say(STEPS[2], &job.job_id);
    }
}

/// One write, so that a kill cuts no line in two.
fn say(step: &str, job: &JobId) {
    std::io::stderr().write_all(format!("{step} {job}\n").as_bytes()).expect("the reader lives");
}

/// Starts a writing process, kills it after `lines` acknowledgements, returns how far each job was acknowledged.
fn killed_after(dir: &Path, lines: usize) -> HashMap<JobId, usize> {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["writing_process", "--exact", "--nocapture"])
        .env(DIR_VARIABLE, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut acknowledged = HashMap::new();
    for (n, line) in BufReader::new(child.stderr.take().expect("piped")).lines().enumerate() {
        if n == lines {
            child.kill().expect("SIGKILL");
        }
        let line = line.expect("text");
        let (step, job) = line.split_once(' ').unwrap_or_else(|| panic!("the writer said: {line}"));
        let step = STEPS.iter().position(|known| *known == step);
        let step = step.unwrap_or_else(|| panic!("the writer said: {line}"));
        acknowledged.insert(JobId::from_text(job), step);
    }
    child.wait().expect("reaped");
    acknowledged
}

/// How far each job has come in the tables, checked against its rows, and its bodies unless they were `verified`
/// in an earlier round.
fn check(dir: &Path, verified: &mut HashSet<(JobId, usize)>) -> HashMap<JobId, usize> {
    let reader = JournalReader::open(dir).expect("opens after a kill");
    let mut rows_of: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut after = 0;
    loop {
        let page = reader.page(&JournalFilter::default(), after, 5000).expect("reads");
        let Some(last) = page.last() else { break };
        after = last.seq;
        for found in page.into_iter().filter(|found| found.row.job_id.as_deref() != Some("beside")) {
            let to = found.row.payload["to"].as_str().expect("a transition").to_owned();
            rows_of.entry(found.row.job_id.expect("a job")).or_default().push(to);
        }
    }
    let mut come = HashMap::new();
    let mut after = 0;
    loop {
        let page = reader.jobs(&JobFilter::default(), after, 1000).expect("reads");
        let Some(last) = page.last() else { break };
        after = last.seq;
        for found in page {
            let job = found.job;
            let rows = rows_of.remove(job.job_id.as_str()).unwrap_or_default();
            let expected: &[&str] = match job.status {
                JobStatus::Pending => &["pending"],
                JobStatus::Running => &["pending", "running"],
                JobStatus::Completed => &["pending", "running", "completed"],
                JobStatus::Failed if job.attempt == 0 => &["pending", "failed"],
                JobStatus::Failed => &["pending", "running", "failed"],
                JobStatus::Cancelled => panic!("nobody cancelled"),
            };
            assert_eq!(rows, expected, "{}", job.job_id);
            let step = expected.len() - 1;
            come.insert(job.job_id.clone(), step);
            if !verified.insert((job.job_id.clone(), step)) {
                continue;
            }
            let arguments = reader.arguments(&job.job_id).expect("reads").expect("kept");
            check_body(&reader, &job.job_id, &arguments);
            let result = reader.result(&job.job_id).expect("reads");
            assert_eq!(result.is_some(), job.status == JobStatus::Completed, "{}", job.job_id);
            result.iter().for_each(|result| check_body(&reader, &job.job_id, result));
        }
    }
    assert_eq!(rows_of.len(), 0, "rows without a job");
    come
}

fn check_body(reader: &JournalReader, job: &JobId, body: &Body) {
    let content = reader.load(body).expect("a payload that a commit names is there, whole");
    let content: Value = serde_json::from_slice(&content).expect("JSON");
    assert_eq!(content["job"], json!(job));
}

#[test]
fn a_host_killed_at_random_instants_loses_nothing_it_acknowledged() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let random = |n: usize| usize::try_from(RandomState::new().hash_one(n) % 400).expect("small");
    let mut all = 0;
    let mut verified = HashSet::new();
    for round in 0..ROUNDS {
        let lines = random(round) + 1;
        let acknowledged = killed_after(dir.path(), lines);
        assert!(acknowledged.len() * STEPS.len() >= lines, "round {round}: killed before its time");
        all += acknowledged.len();
        let come = check(dir.path(), &mut verified);
        for (job, step) in &acknowledged {
            let there =
                come.get(job).unwrap_or_else(|| panic!("round {round}: {job} was acknowledged and is gone"));
            assert!(there >= step, "round {round}: {job} was {}, now {}", STEPS[*step], STEPS[*there]);
        }
        // At most what was in flight is there without its acknowledgement.
        assert!(come.len() <= all + TASKS * (round + 1), "{} jobs for {all} acknowledged", come.len());
        let verdict: String = Connection::open(dir.path().join(JOURNAL_FILE))
            .and_then(|db| db.query_row("PRAGMA integrity_check", [], |row| row.get(0)))
            .expect("reads");
        assert_eq!(verdict, "ok", "round {round}");
    }
    recover_and_check(dir.path());
}

fn recover_and_check(dir: &Path) {
    let journal = open(dir);
    let reader = JournalReader::open(dir).expect("opens");
    let host = HostRecord { host_session_id: "H".into(), pid: 1, started_at: Timestamp::now() };
    let recovered = begin_host(&*journal, &reader, &host, &Timestamp::now()).expect("recovers");
    assert!(!recovered.jobs.is_empty(), "{ROUNDS} kills left nothing unfinished");
    let unfinished =
        JobFilter { statuses: vec![JobStatus::Pending, JobStatus::Running], ..JobFilter::default() };
    assert_eq!(reader.jobs(&unfinished, 0, 10).expect("reads"), []);
    check(dir, &mut HashSet::new());
}

#[test]
fn the_next_host_ends_what_a_dead_one_left() {
    let (dir, journal) = fresh();
    let host = |name: &str| HostRecord {
        host_session_id: name.into(),
        pid: 7,
        started_at: Timestamp::from_micros(1),
    };
    let reader = JournalReader::open(dir.path()).expect("opens");
    let nothing = begin_host(&*journal, &reader, &host("first"), &Timestamp::from_micros(1)).expect("begins");
    assert_eq!(nothing, Recovered::default());

    let pending = accept_jobs_and_a_composition(&journal);
    let running = started(&pending[149], 2);
    journal.commit_blocking(begin(&running, JobStatus::Pending)).expect("begun");
    let worker = WorkerRecord {
        worker_session_id: WorkerSessionId::from_text("W"),
        host_session_id: "first".into(),
        instance_id: "asr".into(),
        capability_name: "asr".into(),
        pid: 9,
        spawned_at: Timestamp::from_micros(2),
        ended_at: None,
    };
    journal
        .commit_blocking(Commit::telling().write(Write::WorkerSpawned(Box::new(worker.clone()))))
        .expect("noted");
    journal.close();

    let journal = open(dir.path());
    let now = Timestamp::from_micros(9_000_001);
    let recovered = begin_host(&*journal, &reader, &host("second"), &now).expect("recovers");
    assert_eq!(recovered.jobs.len(), 150);
    assert_eq!(recovered.workers, std::slice::from_ref(&worker));
    assert_eq!(recovered.compositions[0].status, JobStatus::Failed);
    let ended = reader.job(&running.job_id).expect("reads").expect("there");
    assert_eq!(recovered.jobs.iter().find(|job| job.job_id == ended.job_id), Some(&ended));
    let error = &ended.failure.as_ref().expect("failed").error;
    assert_eq!(
        (error.category, error.retriable, error.message.as_str()),
        (ErrorCategory::Transient, true, "host restarted")
    );
    let history = reader.history(&ended.job_id).expect("reads");
    let terminal = &history.last().expect("rows").row;
    assert_eq!(terminal.event_id, cjm_wire::EventId::terminal_of(&ended.job_id));
    let snapshot = &terminal.payload["job_snapshot"];
    assert_eq!(snapshot["retry_count"], 1);
    assert_eq!(snapshot["error"]["occurred_at"], "1970-01-01 00:00:09.000001+00:00");
    let first = reader.history(&pending[0].job_id).expect("reads");
    assert_eq!(first.last().expect("rows").row.payload["from"], "pending");
    let filter = JournalFilter { event_types: vec!["run_finished".into()], ..JournalFilter::default() };
    let finished = &reader.last(&filter, 9).expect("reads")[0].row;
    assert_eq!(
        (&finished.payload["status"], &finished.payload["error"]["message"]),
        (&json!("failed"), &json!("host restarted"))
    );
    // The element that a tool was at, and not the one that waited.
    assert_eq!(finished.payload["report"]["element"], 149);
    assert_documented_end(finished, &json!("each"), [148, 149]);
    assert_eq!(finished.payload["report"]["job_id"], json!(running.job_id));

    journal
        .commit_blocking(Commit::telling().write(Write::WorkerEnded(worker.worker_session_id, now.clone())))
        .expect("noted");
    let again = begin_host(&*journal, &reader, &host("third"), &now).expect("begins");
    assert_eq!(again, Recovered::default(), "nothing is ended twice");
}

/// Accepts 150 jobs and a composition whose elements the last two are.
fn accept_jobs_and_a_composition(journal: &SqliteJournal) -> Vec<JobRecord> {
    let whole = composition("c");
    let mut pending: Vec<JobRecord> = (0..150).map(|_| job("asr")).collect();
    for (element, job) in pending.iter_mut().enumerate().skip(148) {
        job.composition_id = Some(whole.composition_id.clone());
        job.node_id = Some("each".to_owned());
        job.element_index = u32::try_from(element).ok();
    }
    let insert =
        Write::InsertComposition(Box::new(whole), Body::of_json(&json!({})), Body::of_json(&json!({})));
    journal.commit_blocking(Commit::admitting().write(insert)).expect("accepted");
    for job in &pending {
        journal.commit_blocking(accept(job, &json!({}))).expect("accepted");
    }
    pending
}

/// The keys that the page on compositions promises of every end.
fn assert_documented_end(finished: &cjm_wire::event::JournalRow, node: &Value, elements: [u32; 2]) {
    let message = &finished.payload["report"]["message"];
    let failed = elements.map(|element| json!({"node": node, "element": element, "message": message}));
    let documented =
        json!({"outcome": "failed", "partial": false, "failures_left_out": 0, "failures": failed});
    for (key, value) in documented.as_object().expect("an object") {
        assert_eq!(finished.payload.get(key), Some(value), "{key}");
    }
}

/// A run that fails fast is told before what it had begun has ended; its host may die in between.
#[test]
fn a_composition_whose_failure_was_told_keeps_it_when_its_host_dies() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let journal = open(dir.path());
    let now = Timestamp::from_micros(9_000_001);
    let composition = composition("c");
    let id = composition.composition_id.clone();
    let insert =
        Write::InsertComposition(Box::new(composition), Body::of_json(&json!({})), Body::of_json(&json!({})));
    journal.commit_blocking(Commit::admitting().write(insert)).expect("accepted");
    let mut told = host_restarted("asr", None, &now);
    told.report.message = "node read[3]: no such page".to_owned();
    let fails = || Commit::telling().write(Write::CompositionFails(id.clone(), Box::new(told.clone())));
    journal.commit_blocking(fails()).expect("kept");
    journal.close();

    let journal = open(dir.path());
    let reader = JournalReader::open(dir.path()).expect("opens");
    let host = HostRecord { host_session_id: "second".into(), pid: 1, started_at: now.clone() };
    let recovered = begin_host(&*journal, &reader, &host, &now).expect("recovers");
    assert_eq!(recovered.compositions[0].failure, Some(told.clone()));
    let filter = JournalFilter { event_types: vec!["run_finished".into()], ..JournalFilter::default() };
    let finished = &reader.last(&filter, 9).expect("reads")[0].row;
    assert_eq!(finished.payload["status"], "failed");
    assert_eq!(finished.payload["report"]["message"], "node read[3]: no such page");
    let of_no_job = json!([{"node": null, "element": null, "message": told.error.message}]);
    assert_eq!(finished.payload["failures"], of_no_job);
    assert!(journal.commit_blocking(fails()).is_err(), "it has ended");
}

/// Accepts a run that makes all it can, and its jobs: `good` and one of `bad` completed, two of `bad` failed by themselves,
/// one of `long` runs, and one waits. So many more of `bad` failed.
fn accept_a_run(journal: &SqliteJournal, id: &CompositionRecord, policy: &str, words: &str, more: u32) {
    let document = json!({"name": "c", "failure": policy, "nodes": {
        "good": {"capability": "t"}, "bad": {"capability": "t", "map": [0, 1, 2]}, "long": {"capability": "t", "map": [0, 1]}}});
    let insert =
        Write::InsertComposition(Box::new(id.clone()), Body::of_json(&document), Body::of_json(&json!({})));
    journal.commit_blocking(Commit::admitting().write(insert)).expect("accepted");
    let jobs = [
        ("long", 0, None),
        ("long", 1, None),
        ("good", 0, Some(JobStatus::Completed)),
        ("bad", 0, Some(JobStatus::Failed)),
        ("bad", 1, Some(JobStatus::Completed)),
        ("bad", 2, Some(JobStatus::Failed)),
    ];
    let more = (3..3 + more).map(|element| ("bad", element, Some(JobStatus::Failed)));
    for (node, element, end) in jobs.into_iter().chain(more) {
        let mut job = job("t");
        job.composition_id = Some(id.composition_id.clone());
        (job.node_id, job.element_index) = (Some(node.to_owned()), Some(element));
        journal.commit_blocking(accept(&job, &json!({}))).expect("accepted");
        if (node, element) == ("long", 1) {
            continue;
        }
        let mut running = started(&job, 1);
        journal.commit_blocking(begin(&running, JobStatus::Pending)).expect("begun");
        let Some(end) = end else { continue };
        if end == JobStatus::Failed {
            let mut failure = host_restarted("t", None, &Timestamp::from_micros(3));
            failure.report.message = words.to_owned();
            running.failure = Some(failure);
        }
        let result = (end == JobStatus::Completed).then(|| json!(1));
        journal.commit_blocking(finish(&ended(&running, end), result.as_ref())).expect("ended");
    }
}

fn end_of_run(dir: &Path, id: &CompositionRecord) -> serde_json::Map<String, Value> {
    let reader = JournalReader::open(dir).expect("opens");
    let filter = JournalFilter {
        event_types: vec!["run_finished".into()],
        composition: Some(id.composition_id.to_string()),
        ..JournalFilter::default()
    };
    reader.last(&filter, 9).expect("reads")[0].row.payload.clone()
}

#[test]
fn the_end_of_a_dead_hosts_run_is_told_from_its_jobs() {
    let (dir, journal) = fresh();
    let [whole, fast] = [composition("c"), composition("c")];
    accept_a_run(&journal, &whole, "best_effort", "no such page", 0);
    accept_a_run(&journal, &fast, "fail_fast", "no such page", 0);
    let long = composition("c");
    // Of each message 64 KiB are kept, and a row holds a mebibyte.
    accept_a_run(&journal, &long, "best_effort", &"w".repeat(65 * 1024), 16);
    let reader = JournalReader::open(dir.path()).expect("opens");
    let host = HostRecord { host_session_id: "second".into(), pid: 1, started_at: Timestamp::from_micros(1) };
    begin_host(&*journal, &reader, &host, &Timestamp::from_micros(9_000_001)).expect("recovers");
    let of = |node: &str, element: usize, message: &str| json!({"node": node, "element": element, "message": message});
    let failures = json!([
        of("bad", 0, "no such page"),
        of("bad", 2, "no such page"),
        of("long", 0, "host restarted"),
        of("long", 1, "host restarted"),
    ]);
    for (run, outcome, failures, left_out) in [
        (&whole, "partial", &failures, 0),
        (&fast, "failed", &failures, 0),
        (&long, "partial", &json!([]), 20),
    ] {
        let told = end_of_run(dir.path(), run);
        assert_eq!((&told["outcome"], &told["partial"]), (&json!(outcome), &json!(outcome == "partial")));
        assert!(&told["failures"] == failures, "{outcome}");
        assert_eq!(told["failures_left_out"], left_out);
        assert_eq!((&told["status"], &told["report"]["node"]), (&json!("failed"), &json!("long")));
    }
}

/// No job says then why it has no result.
#[test]
fn the_end_of_a_run_that_its_host_left_between_two_calls_says_so() {
    let (dir, journal) = fresh();
    let runs = [("fail_fast", 1, "failed"), ("best_effort", 2, "partial"), ("fail_fast", 0, "failed")];
    let runs = runs.map(|(policy, calls, outcome)| {
        let id = composition("c");
        let document = json!({"name": "c", "failure": policy, "nodes": {
            "first": {"capability": "t", "map": [0, 1]}, "second": {"capability": "t"}}});
        let insert = Write::InsertComposition(
            Box::new(id.clone()),
            Body::of_json(&document),
            Body::of_json(&json!({})),
        );
        journal.commit_blocking(Commit::admitting().write(insert)).expect("accepted");
        for element in 0..calls {
            let mut job = job("t");
            job.composition_id = Some(id.composition_id.clone());
            (job.node_id, job.element_index) = (Some("first".to_owned()), Some(element));
            journal.commit_blocking(accept(&job, &json!({}))).expect("accepted");
            let running = started(&job, 1);
            journal.commit_blocking(begin(&running, JobStatus::Pending)).expect("begun");
            let done = ended(&running, JobStatus::Completed);
            journal.commit_blocking(finish(&done, Some(&json!(1)))).expect("ended");
        }
        (id, calls, outcome)
    });
    let reader = JournalReader::open(dir.path()).expect("opens");
    let host = HostRecord { host_session_id: "second".into(), pid: 1, started_at: Timestamp::from_micros(1) };
    begin_host(&*journal, &reader, &host, &Timestamp::from_micros(9_000_001)).expect("recovers");
    for (id, calls, outcome) in runs {
        let told = end_of_run(dir.path(), &id);
        let when = match calls {
            0 => "before the first call of this run".to_owned(),
            _ => format!("when {calls} of this run's calls had completed, and before the next"),
        };
        let message = format!("host restarted: the host ended {when}");
        let failures = json!([{"node": null, "element": null, "message": message}]);
        assert_eq!((&told["outcome"], &told["failures"]), (&json!(outcome), &failures));
        assert_eq!(told["failures_left_out"], 0);
    }
}

/// What it was submitted with is needed for its best words, and not for a start.
#[test]
fn a_host_starts_where_the_document_of_a_dead_ones_run_is_lost() {
    for lose in [|path: &Path| std::fs::remove_file(path), |path: &Path| std::fs::write(path, "half")] {
        let (dir, journal) = fresh();
        let id = composition("c");
        // So long that it is a file.
        let document = json!({"name": "c", "failure": "best_effort", "more": "x".repeat(INLINE_BYTES_MAX)});
        let insert = Write::InsertComposition(
            Box::new(id.clone()),
            Body::of_json(&document),
            Body::of_json(&json!({})),
        );
        journal.commit_blocking(Commit::admitting().write(insert)).expect("accepted");
        let [mut done, mut cut_off] = [job("t"), job("t")];
        for (job, element) in [(&mut done, 0), (&mut cut_off, 1)] {
            job.composition_id = Some(id.composition_id.clone());
            (job.node_id, job.element_index) = (Some("each".to_owned()), Some(element));
            journal.commit_blocking(accept(job, &json!({}))).expect("accepted");
            journal.commit_blocking(begin(&started(job, 1), JobStatus::Pending)).expect("begun");
        }
        let done = ended(&started(&done, 1), JobStatus::Completed);
        journal.commit_blocking(finish(&done, Some(&json!(1)))).expect("ended");
        let files: Vec<_> = std::fs::read_dir(dir.path().join("payloads")).expect("a folder").collect();
        assert_eq!(files.len(), 1, "the document");
        lose(&files[0].as_ref().expect("read").path()).expect("lost");

        let reader = JournalReader::open(dir.path()).expect("opens");
        let host =
            HostRecord { host_session_id: "second".into(), pid: 1, started_at: Timestamp::from_micros(1) };
        let recovered = begin_host(&*journal, &reader, &host, &Timestamp::from_micros(9_000_001));
        let recovered = recovered.expect("a host must start");
        assert_eq!((recovered.jobs.len(), recovered.compositions.len()), (1, 1));
        let told = end_of_run(dir.path(), &id);
        // Whether it was to go on after a failure is not known, so that nothing of it is promised.
        assert_eq!((&told["status"], &told["outcome"]), (&json!("failed"), &json!("failed")));
        let of_cut_off = json!({"node": "each", "element": 1, "message": "host restarted"});
        assert_eq!(told["failures"], json!([of_cut_off]));
        assert_eq!((&told["report"]["node"], &told["report"]["element"]), (&json!("each"), &json!(1)));
    }
}

/// At most so many are named as a living host names, and a plain call is no element of a list.
#[test]
fn the_end_of_a_dead_hosts_run_names_its_first_failures_and_counts_the_rest() {
    let (dir, journal) = fresh();
    let id = composition("c");
    let document =
        json!({"name": "c", "nodes": {"one": {"capability": "t"}, "each": {"capability": "t", "map": []}}});
    let insert =
        Write::InsertComposition(Box::new(id.clone()), Body::of_json(&document), Body::of_json(&json!({})));
    journal.commit_blocking(Commit::admitting().write(insert)).expect("accepted");
    for element in 0..=120 {
        let mut job = job("t");
        job.composition_id = Some(id.composition_id.clone());
        let (node, element) = if element == 0 { ("one", 0) } else { ("each", element - 1) };
        (job.node_id, job.element_index) = (Some(node.to_owned()), Some(element));
        journal.commit_blocking(accept(&job, &json!({}))).expect("accepted");
    }
    let mut told = host_restarted("t", None, &Timestamp::from_micros(3));
    told.error.message = "there is no such page".to_owned();
    told.report = told.report.at_node("two", None);
    let fails = Write::CompositionFails(id.composition_id.clone(), Box::new(told));
    journal.commit_blocking(Commit::telling().write(fails)).expect("kept");
    let reader = JournalReader::open(dir.path()).expect("opens");
    let host = HostRecord { host_session_id: "second".into(), pid: 1, started_at: Timestamp::from_micros(1) };
    begin_host(&*journal, &reader, &host, &Timestamp::from_micros(9_000_001)).expect("recovers");
    let told = end_of_run(dir.path(), &id);
    let failures = told["failures"].as_array().expect("a list");
    assert_eq!((failures.len(), &told["failures_left_out"]), (100, &json!(22)));
    // What was told of a node that no job carries is known from that alone.
    assert_eq!(failures[0], json!({"node": "two", "element": null, "message": "there is no such page"}));
    assert_eq!(failures[1], json!({"node": "one", "element": null, "message": "host restarted"}));
    assert_eq!(failures[2], json!({"node": "each", "element": 0, "message": "host restarted"}));
}
