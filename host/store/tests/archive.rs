//! Archives beside what still lives, and beside a host that is at work.

mod common;

use cjm_store::*;
use cjm_wire::Timestamp;
use cjm_wire::event::{EventType, JobStatus, JournalRow};
use cjm_wire::ids::WorkerSessionId;
use common::*;
use serde_json::{Map, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// After everything that these tests write.
fn future() -> Timestamp {
    Timestamp::from_micros(Timestamp::now().as_micros().expect("now") + 3_600_000_000)
}

fn row_of(kind: EventType, session: &str) -> JournalRow {
    let mut row = JournalRow::new(kind, Map::new());
    row.worker_session_id = Some(session.to_owned());
    row
}

fn worker_begins(session: &str) -> Commit {
    let worker = WorkerRecord {
        worker_session_id: WorkerSessionId::from_text(session),
        host_session_id: "H".into(),
        instance_id: "asr".into(),
        capability_name: "asr".into(),
        pid: 7,
        spawned_at: Timestamp::now(),
        ended_at: None,
    };
    let row = row_of(EventType::WorkerSpawned, session);
    Commit::telling().write(Write::WorkerSpawned(Box::new(worker))).row(row)
}

fn worker_ends(session: &str) -> Commit {
    let ended = Write::WorkerEnded(WorkerSessionId::from_text(session), Timestamp::now());
    Commit::telling().write(ended).row(row_of(EventType::WorkerDied, session))
}

fn rows(reader: &JournalReader) -> Vec<SeqRow> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let page = reader.page(&JournalFilter::default(), after, 1000).expect("reads");
        let Some(last) = page.last() else { return found };
        after = last.seq;
        found.extend(page);
    }
}

fn in_journal(data_dir: &Path) -> Vec<SeqRow> {
    rows(&JournalReader::open(data_dir).expect("opens"))
}

#[test]
fn what_still_lives_keeps_its_rows_in_the_journal() {
    let (dir, journal) = fresh();
    let composition = composition("c");
    let id = composition.composition_id.clone();
    let (document, inputs) = (Body::of_json(&json!({})), Body::of_json(&json!({})));
    let insert = Write::InsertComposition(Box::new(composition), document, inputs);
    let mut of_composition = account("none", 0);
    (of_composition.job_id, of_composition.composition_id) = (None, Some(id.to_string()));
    journal.commit_blocking(Commit::admitting().write(insert).row(of_composition)).expect("accepted");
    journal.commit_blocking(worker_begins("w")).expect("written");
    let waiting = job("asr");
    journal.commit_blocking(accept(&waiting, &json!({}))).expect("accepted");
    journal.commit_blocking(Commit::telling().row(account("gone", 0))).expect("written");

    let archived = |rows| {
        assert_eq!(archive_journal(dir.path(), &future()).expect("archives").rows, rows);
        let left = in_journal(dir.path());
        left.into_iter().map(|found| found.seq).collect::<Vec<_>>()
    };
    assert_eq!(archived(1), [1, 2, 3], "composition, worker and job");
    journal.commit_blocking(worker_ends("w")).expect("written");
    assert_eq!(archived(2), [1, 3]);
    let end = CompositionEnd {
        composition_id: id,
        status: JobStatus::Completed,
        completed_at: Timestamp::now(),
        failure: None,
        output: None,
    };
    journal.commit_blocking(Commit::telling().write(Write::EndComposition(Box::new(end)))).expect("ended");
    assert_eq!(archived(1), [3]);
    journal.commit_blocking(begin(&started(&waiting, 1), JobStatus::Pending)).expect("begun");
    assert_eq!(archived(0).len(), 2, "a running job keeps its rows too");
}

/// So that what they said long ago is found by the name of their capability.
#[test]
fn workers_whose_rows_were_archived_are_known_by_their_capability() {
    let (dir, journal) = fresh();
    let spawned = |session: &str| {
        let mut begins = worker_begins(session);
        begins.rows[0].capability_name = Some("asr".to_owned());
        begins
    };
    journal.commit_blocking(spawned("then")).expect("written");
    journal.commit_blocking(worker_ends("then")).expect("written");
    assert_eq!(archive_journal(dir.path(), &future()).expect("archives").rows, 2);
    journal.commit_blocking(spawned("now")).expect("written");
    let sessions =
        |reader: Result<JournalReader, StoreError>| reader.and_then(|r| r.sessions_of("asr")).expect("reads");
    assert_eq!(sessions(JournalReader::open(dir.path())), ["now"]);
    assert_eq!(sessions(JournalReader::open_with_archives(dir.path())), ["now", "then"]);
}

#[test]
fn an_archive_of_the_future_beside_a_busy_host_loses_and_doubles_nothing() {
    const ARCHIVES: usize = 6;
    let (dir, journal) = fresh();
    // More than one batch, so that each archive takes a while.
    for n in 0..1500 {
        journal.commit_detached(Commit::telling().row(account("old", n))).expect("queued");
    }
    let is_over = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            let mut count = 1500;
            // Bounded: an archive that follows the host would not end before it.
            for n in 0..1000 {
                let session = format!("w{n}");
                journal.commit_blocking(worker_begins(&session)).expect("written");
                journal.commit_blocking(Commit::telling().row(account("new", n))).expect("written");
                journal.commit_blocking(worker_ends(&session)).expect("written");
                count += 3;
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
            count
        });
        for _ in 0..ARCHIVES {
            archive_journal(dir.path(), &future()).expect("archives");
            let reader = JournalReader::open_with_archives(dir.path()).expect("opens");
            let seen: Vec<i64> = rows(&reader).iter().map(|found| found.seq).collect();
            let last = i64::try_from(seen.len()).expect("fits");
            assert!(seen.into_iter().eq(1..=last), "each once, none missing");
            // What ended meanwhile stays whole: a death that moved alone would leave a worker that seems to live.
            let left = in_journal(dir.path());
            let of = |kind: &str| {
                let of_kind = left.iter().filter(|found| found.row.event_type == kind);
                of_kind.filter_map(|found| found.row.worker_session_id.clone()).collect::<BTreeSet<_>>()
            };
            let without_end: Vec<String> =
                of("worker_spawned").difference(&of("worker_died")).cloned().collect();
            assert!(without_end.len() <= 1, "only the present one lives: {without_end:?}");
        }
        is_over.store(true, Ordering::Relaxed);
        host.join().expect("no panic")
    });
    let reader = JournalReader::open_with_archives(dir.path()).expect("opens");
    assert_eq!(rows(&reader).len(), usize::try_from(written).expect("fits"));
}
