//! Looking things up: shortened ids, filters by time, capability, node and status, and what dead hosts left open.

mod common;

use cjm_store::lookup::CANDIDATES_MAX;
use cjm_store::*;
use cjm_wire::Timestamp;
use cjm_wire::event::{EventType, JobStatus, JournalRow};
use cjm_wire::ids::{JobId, WorkerSessionId};
use common::*;
use serde_json::{Map, json};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_shortened_id_means_one_or_is_answered_with_what_it_may_mean() {
    let (dir, journal) = fresh();
    let ours = "01a22132-941d-738b-b016-e73fef30c72f";
    for id in [ours, "0193aaaa-1111", "0193aaaa-2222", "0193bbbb-2222", "77", "777"] {
        let mut row = account(id, 0);
        row.run_id = Some(format!("run-{id}"));
        journal.commit(Commit::telling().row(row)).await.expect("written");
    }
    for n in 0..30 {
        journal.commit(Commit::telling().row(account(&format!("many-{n:02}"), 0))).await.expect("written");
    }
    let reader = JournalReader::open(dir.path()).expect("opens");
    let one = |id: &str| ResolvedId::One(id.to_owned());
    let several = |ids: &[&str]| ResolvedId::Several(ids.iter().map(|id| (*id).to_owned()).collect(), false);
    for (shortened, expected) in [
        ("0193b", one("0193bbbb-2222")),
        ("0193aaaa", several(&["0193aaaa-1111", "0193aaaa-2222"])),
        ("0193…2222", several(&["0193aaaa-2222", "0193bbbb-2222"])),
        ("0193aa..22", one("0193aaaa-2222")),
        ("1111", one("0193aaaa-1111")),
        ("…2222", several(&["0193aaaa-2222", "0193bbbb-2222"])),
        ("77", one("77")),
        // What is shown of ours is ef30c72f.
        ("ef30c72f", one(ours)),
        ("ef30c72", one(ours)),
        ("ef30", one(ours)),
        ("ef3", ResolvedId::Unknown),
        ("f30c72", ResolvedId::Unknown),
        ("nobody", ResolvedId::Unknown),
        ("%", ResolvedId::Unknown),
    ] {
        assert_eq!(reader.resolve_id(IdKind::Job, shortened).expect("reads"), expected, "{shortened}");
    }
    let ResolvedId::Several(many, true) = reader.resolve_id(IdKind::Job, "many").expect("reads") else {
        panic!("not several");
    };
    assert_eq!(many.len(), CANDIDATES_MAX);
    assert_eq!(reader.resolve_id(IdKind::Run, "run-0193b").expect("reads"), one("run-0193bbbb-2222"));
    let ids = reader.ids_with_prefix(IdKind::Job, "0193", 2).expect("reads");
    assert_eq!(ids, ["0193aaaa-1111", "0193aaaa-2222"]);
    assert_eq!(reader.resolve_id(IdKind::Session, "0").expect("reads"), ResolvedId::Unknown);
}

#[tokio::test]
async fn every_row_of_a_job_is_one_of_its_element() {
    let (dir, journal) = fresh();
    for element in [1, 2] {
        let mut job = JobRecord::new(JobId::from_text(format!("job-{element}")), "tool", Timestamp::now());
        (job.node_id, job.element_index) = (Some("each".to_owned()), Some(element));
        let mut admission = JournalRow::new(EventType::AdmissionDecided, Map::new());
        rows::describe_job(&mut admission, &job);
        assert_eq!(admission.payload["element"], element, "a line of it names the element");
        // What the tool reports has its own payload, which may have such a word too.
        let payload = Map::from_iter([("pages".to_owned(), json!(7))]);
        let mut reported = JournalRow::new(EventType::TaskAccount, payload.clone());
        reported.worker_reported = true;
        rows::describe_job(&mut reported, &job);
        assert_eq!(reported.payload, payload);
        let begun = rows::running(&job, JobStatus::Pending);
        let commit = Commit::telling().row(admission).row(begun).row(reported);
        journal.commit(commit).await.expect("written");
    }
    let reader = JournalReader::open(dir.path()).expect("opens");
    let filter = JournalFilter { node: Some("each".into()), element: Some(2), ..JournalFilter::default() };
    let found = reader.last(&filter, 100).expect("reads");
    let jobs: Vec<_> = found.iter().filter_map(|found| found.row.job_id.as_deref()).collect();
    assert_eq!(jobs, ["job-2"; 3], "{found:#?}");
}

#[tokio::test]
async fn rows_are_selected_by_time_capability_node_and_status() {
    let (dir, journal) = fresh();
    let second = 1_000_000;
    let base = 1_700_000_000 * second;
    for n in 0..10 {
        let mut row = account("j", n);
        row.ts = Timestamp::from_micros(base + n * 3600 * second);
        row.capability_name = Some(if n % 2 == 0 { "asr" } else { "ocr" }.to_owned());
        row.node_id = (n < 4).then(|| "first".to_owned());
        journal.commit(Commit::telling().row(row)).await.expect("written");
    }
    let mut waited = account("j", 10);
    waited.ts = Timestamp::from_micros(base + 2 * 3600 * second);
    journal.commit(Commit::telling().row(waited)).await.expect("a row that waited");
    run_through(&journal, JobStatus::Failed).await;
    // How a cancel ended says nothing of its job.
    let phase = json!({"from": "cooperative", "to": "failed"}).as_object().cloned().expect("an object");
    let phase = JournalRow::new(EventType::CancelPhaseChanged, phase);
    journal.commit(Commit::telling().row(phase)).await.expect("written");
    let odd =
        "INSERT INTO journal (event_id, ts, event_type, payload) VALUES ('odd', '1', 'x', '{\"to\": NaN}')";
    rusqlite::Connection::open(dir.path().join(JOURNAL_FILE))
        .and_then(|db| db.execute_batch(odd))
        .expect("as the ancestor writes");
    let reader = JournalReader::open(dir.path()).expect("opens");
    let parts = |filter: JournalFilter| -> Vec<i64> {
        let rows = reader.page(&filter, 0, 100).expect("reads");
        rows.iter().filter_map(|found| found.row.payload.get("part")?.as_i64()).collect()
    };
    let all = JournalFilter::default;
    let since = |hours: i64| Some(Timestamp::from_micros(base + hours * 3600 * second));
    assert_eq!(parts(JournalFilter { since: since(8), ..all() }), [8, 9]);
    assert_eq!(parts(JournalFilter { since: since(2), node: Some("first".into()), ..all() }), [2, 3]);
    assert_eq!(parts(JournalFilter { capability: Some("ocr".into()), since: since(6), ..all() }), [7, 9]);
    assert!(
        parts(JournalFilter { since: since(1), ..all() }).contains(&10),
        "a row that waited is as old as it is"
    );
    let failed = JournalFilter { statuses: vec![JobStatus::Failed], ..all() };
    let rows = reader.page(&failed, 0, 100).expect("reads, whatever other rows hold");
    assert_eq!(rows.iter().map(|found| found.row.payload["to"].clone()).collect::<Vec<_>>(), ["failed"]);

    let mut job = job("asr");
    job.node_id = Some("n".into());
    job.submitted_at = Timestamp::from_micros(base);
    journal.commit(accept(&job, &json!({}))).await.expect("accepted");
    for (filter, count) in [
        (JobFilter { node: Some("n".into()), ..JobFilter::default() }, 1),
        (JobFilter { since: Some(Timestamp::from_micros(base)), ..JobFilter::default() }, 1),
        (JobFilter { since: since(1), ..JobFilter::default() }, 0),
    ] {
        assert_eq!(reader.jobs(&filter, 0, 10).expect("reads").len(), count, "{filter:?}");
    }
}

#[test]
fn records_and_output_are_selected_by_time_and_capability() {
    let (dir, journal) = fresh();
    let spawned = |session: &str, capability: &str| {
        let mut row = JournalRow::new(EventType::WorkerSpawned, Map::new());
        row.worker_session_id = Some(session.to_owned());
        row.capability_name = Some(capability.to_owned());
        Commit::telling().row(row)
    };
    for (session, capability) in [("A", "asr"), ("B", "ocr"), ("C", "asr")] {
        journal.commit_blocking(spawned(session, capability)).expect("written");
    }
    let store = SqliteDiagnostics::open(dir.path()).expect("opens");
    for (n, session) in ["A", "B", "C"].into_iter().enumerate() {
        let ts = Timestamp::from_micros(1_700_000_000_000_000 + i64::try_from(n).expect("small") * 1_000_000);
        let session = Some(session.to_owned());
        store.chunk(StreamChunk {
            ts: ts.clone(),
            worker_session_id: session.clone(),
            stream: "stdout".into(),
            content: "c".into(),
        });
        store.record(DiagnosticRecord {
            ts,
            worker_session_id: session,
            job_id: None,
            level: "INFO".into(),
            logger_name: "x".into(),
            message: "m".into(),
            exc_text: None,
        });
    }
    store.close();
    let sessions = JournalReader::open(dir.path()).and_then(|r| r.sessions_of("asr")).expect("reads");
    assert_eq!(sessions, ["A", "C"]);
    let reader = DiagnosticsReader::open(dir.path()).expect("opens");
    let since = Some(Timestamp::from_micros(1_700_000_001_000_000));
    for (sessions, since, expected) in [
        (Some(sessions.clone()), None, 2),
        (Some(sessions), since.clone(), 1),
        (None, since, 2),
        (Some(Vec::new()), None, 0),
    ] {
        let filter = DiagnosticsFilter { sessions, since, ..DiagnosticsFilter::default() };
        assert_eq!(reader.records(&filter, 0, 10).expect("reads").len(), expected, "{filter:?}");
        assert_eq!(reader.last_chunks(&filter, 10).expect("reads").len(), expected, "{filter:?}");
    }
}

#[test]
fn looking_back_a_day_does_not_read_a_journal_of_years() {
    let (dir, journal) = fresh();
    drop(journal);
    let connection = rusqlite::Connection::open(dir.path().join(JOURNAL_FILE)).expect("opens");
    connection
        .execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) \
             INSERT INTO journal (event_id, ts, event_type, job_id, payload) \
             SELECT i, strftime('%Y-%m-%dT%H:%M:%S+00:00', 1000000000 + i * 600, 'unixepoch'), 'x', 'j' || i, \
             '{\"part\": 1}' FROM n",
        )
        .expect("filled");
    let reader = JournalReader::open(dir.path()).expect("opens");
    let timed = |since: i64| {
        let since = Some(Timestamp::from_micros((1_000_000_000 + since * 600) * 1_000_000));
        let filter = JournalFilter { since, ..JournalFilter::default() };
        let start = Instant::now();
        let rows = reader.page(&filter, 0, 100).expect("reads");
        (rows.first().map(|row| row.seq), start.elapsed())
    };
    let (first, whole) = timed(1);
    assert_eq!(first, Some(1));
    let (first, late) = timed(199_990);
    assert_eq!(first, Some(199_990));
    // The whole table takes a hundred times as long.
    assert!(late < whole * 5 + Duration::from_millis(20), "{late:?} against {whole:?}");
}

#[test]
fn every_spawned_worker_of_a_dead_host_gets_its_end_once() {
    let (dir, journal) = fresh();
    let row = |kind: EventType, session: &str| {
        let mut row = JournalRow::new(kind, Map::new());
        row.worker_session_id = Some(session.to_owned());
        row.capability_name = Some("asr".to_owned());
        Commit::telling().row(row)
    };
    let record = |session: &str, host: &str| {
        Commit::telling().write(Write::WorkerSpawned(Box::new(WorkerRecord {
            worker_session_id: WorkerSessionId::from_text(session),
            host_session_id: host.to_owned(),
            instance_id: "asr".into(),
            capability_name: "asr".into(),
            pid: 7,
            spawned_at: Timestamp::from_micros(1),
            ended_at: None,
        })))
    };
    for session in ["told", "untold", "unknown"] {
        journal.commit_blocking(row(EventType::WorkerSpawned, session)).expect("written");
    }
    journal.commit_blocking(row(EventType::WorkerDied, "told")).expect("written");
    journal.commit_blocking(record("told", "dead")).expect("written");
    journal.commit_blocking(record("untold", "dead")).expect("written");
    journal.commit_blocking(record("mine", "living")).expect("written");
    let reader = JournalReader::open(dir.path()).expect("opens");
    let now = Timestamp::from_micros(9_000_000);
    assert_eq!(end_dead_workers(&*journal, &reader, "living", &now).expect("ends"), 2);
    let living: Vec<String> =
        reader.living_workers().expect("reads").iter().map(|w| w.worker_session_id.to_string()).collect();
    assert_eq!(living, ["mine"], "its own workers live");
    let died = JournalFilter { event_types: vec!["worker_died".into()], ..JournalFilter::default() };
    let found = reader.page(&died, 0, 10).expect("reads");
    let told: Vec<_> = found.iter().map(|found| found.row.worker_session_id.as_deref()).collect();
    assert_eq!(told, [Some("told"), Some("untold"), Some("unknown")]);
    assert_eq!(found[1].row.payload["reason"], "host_gone");
    assert_eq!((found[1].row.capability_name.as_deref(), &found[1].row.ts), (Some("asr"), &now));
    assert_eq!(end_dead_workers(&*journal, &reader, "living", &now).expect("again"), 0);
    // The host that was taken for dead lives, its directory was taken from it, and its worker ends now.
    let mut late = JournalRow::new(EventType::WorkerDied, Map::new());
    late.worker_session_id = Some("untold".to_owned());
    late.event_id = rows::died_id("untold");
    let refused = journal.commit_blocking(Commit::telling().row(late));
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "{refused:?}");
    assert_eq!(reader.page(&died, 0, 10).expect("reads").len(), 3);
}

/// Long-lived workers are older than any number of others.
#[test]
fn a_worker_of_a_dead_host_gets_its_end_however_many_came_after_it() {
    let (dir, journal) = fresh();
    let spawned = |session: &str| {
        let mut row = JournalRow::new(EventType::WorkerSpawned, Map::new());
        row.worker_session_id = Some(session.to_owned());
        let record = WorkerRecord {
            worker_session_id: WorkerSessionId::from_text(session),
            host_session_id: "dead".into(),
            instance_id: "asr".into(),
            capability_name: "asr".into(),
            pid: 7,
            spawned_at: Timestamp::from_micros(1),
            ended_at: None,
        };
        Commit::telling().row(row).write(Write::WorkerSpawned(Box::new(record)))
    };
    let ended = |session: &str| {
        let mut row = JournalRow::new(EventType::WorkerDied, Map::new());
        row.worker_session_id = Some(session.to_owned());
        let ended = Write::WorkerEnded(WorkerSessionId::from_text(session), Timestamp::from_micros(2));
        Commit::telling().row(row).write(ended)
    };
    journal.commit_blocking(spawned("old")).expect("written");
    for n in 0..1_200 {
        journal.commit_blocking(spawned(&format!("short-{n}"))).expect("written");
        if n % 2 == 0 {
            journal.commit_blocking(ended(&format!("short-{n}"))).expect("written");
        }
    }
    let reader = JournalReader::open(dir.path()).expect("opens");
    let now = Timestamp::from_micros(9_000_000);
    assert_eq!(end_dead_workers(&*journal, &reader, "living", &now).expect("ends"), 601);
    assert!(reader.living_workers().expect("reads").is_empty());
    let died = JournalFilter { event_types: vec!["worker_died".into()], ..JournalFilter::default() };
    let old = |found: &SeqRow| found.row.worker_session_id.as_deref() == Some("old");
    assert!(reader.page(&died, 0, 10_000).expect("reads").iter().any(old));
}

#[test]
fn a_job_that_never_began_is_told_to_be_submitted_again_and_one_that_did_is_looked_at_first() {
    let (dir, journal) = fresh();
    let (never, begun) = (job("asr"), job("asr"));
    for job in [&never, &begun] {
        journal.commit_blocking(accept(job, &json!({}))).expect("accepted");
    }
    journal.commit_blocking(begin(&started(&begun, 1), JobStatus::Pending)).expect("begun");
    let reader = JournalReader::open(dir.path()).expect("opens");
    let host = HostRecord { host_session_id: "H".into(), pid: 1, started_at: Timestamp::now() };
    begin_host(&*journal, &reader, &host, &Timestamp::now()).expect("recovers");
    let next_step = |job: &JobId| {
        let job = reader.job(job).expect("reads").expect("there");
        job.failure.expect("failed").report.next_step
    };
    assert!(next_step(&never.job_id).contains("had not begun"), "{}", next_step(&never.job_id));
    assert!(next_step(&begun.job_id).contains("look first"), "{}", next_step(&begun.job_id));
}
