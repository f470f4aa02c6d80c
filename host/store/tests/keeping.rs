//! What is forgotten of jobs, what is never forgotten, and what is moved into archives.

mod common;

use cjm_store::*;
use cjm_wire::event::JobStatus;
use cjm_wire::ids::CompositionId;
use cjm_wire::{Described, Timestamp};
use common::*;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const DAY_MICROS: i64 = 86_400_000_000;

fn days_ago(days: i64) -> Timestamp {
    Timestamp::from_micros(Timestamp::now().as_micros().expect("now") - days * DAY_MICROS)
}

/// A job accepted, and ended unless `ended` is None, so many days ago, with this result.
fn put(
    journal: &SqliteJournal,
    composition: Option<&CompositionId>,
    submitted: i64,
    ended_days: Option<i64>,
    result: &Value,
) -> JobRecord {
    let mut job = job("asr");
    job.submitted_at = days_ago(submitted);
    job.composition_id = composition.cloned();
    journal.commit_blocking(accept(&job, &json!({"n": submitted}))).expect("accepted");
    let Some(days) = ended_days else { return job };
    let running = started(&job, 1);
    journal.commit_blocking(begin(&running, JobStatus::Pending)).expect("begun");
    let mut done = ended(&running, JobStatus::Completed);
    done.completed_at = Some(days_ago(days));
    journal.commit_blocking(finish(&done, Some(result))).expect("ended");
    done
}

fn put_composition(journal: &SqliteJournal, days: i64) -> CompositionId {
    let mut composition = composition("c");
    composition.submitted_at = days_ago(days);
    let id = composition.composition_id.clone();
    let (document, inputs) = (Body::of_json(&json!({})), Body::of_json(&json!({})));
    let insert = Write::InsertComposition(Box::new(composition), document, inputs);
    journal.commit_blocking(Commit::admitting().write(insert)).expect("accepted");
    id
}

fn end_composition(journal: &SqliteJournal, id: &CompositionId, days: i64) {
    let end = CompositionEnd {
        composition_id: id.clone(),
        status: JobStatus::Completed,
        completed_at: days_ago(days),
        failure: None,
        output: None,
    };
    journal.commit_blocking(Commit::telling().write(Write::EndComposition(Box::new(end)))).expect("ended");
}

fn files(data_dir: &Path) -> usize {
    fs::read_dir(data_dir.join("payloads")).map_or(0, Iterator::count)
}

/// Files of bodies look as if nobody had used them for a long time.
fn rest(data_dir: &Path) {
    for file in fs::read_dir(data_dir.join("payloads")).expect("folder") {
        let file = fs::File::options().write(true).open(file.expect("file").path()).expect("opens");
        file.set_modified(SystemTime::now() - Duration::from_secs(7200)).expect("set");
    }
}

/// The directory of a program's call that was over so many days ago.
fn work_dir(data_dir: &Path, days: u64) -> PathBuf {
    let call = data_dir.join("data/sort").join("work").join(format!("01a22857-1886-7071-832b-{days:012}/1"));
    fs::create_dir_all(&call).expect("made");
    fs::write(call.join("made"), "made").expect("written");
    let changed = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
    fs::File::open(&call).expect("opens").set_modified(changed).expect("set");
    call
}

#[test]
fn old_jobs_go_with_all_they_left_and_nothing_else_does() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let journal = open(dir.path());
    let (running, over) = (put_composition(&journal, 60), put_composition(&journal, 60));
    let old_body = json!("o".repeat(INLINE_BYTES_MAX));
    let shared_body = json!("s".repeat(INLINE_BYTES_MAX));
    let small = json!(1);
    let gone = [
        put(&journal, None, 50, Some(40), &old_body),
        put(&journal, None, 50, Some(40), &shared_body),
        put(&journal, Some(&over), 50, Some(45), &small),
    ];
    end_composition(&journal, &over, 44);
    let kept = [
        put(&journal, None, 50, None, &small),
        put(&journal, None, 50, Some(10), &small),
        put(&journal, Some(&running), 50, Some(40), &small),
        put(&journal, None, 5, Some(5), &shared_body),
    ];
    assert_eq!(files(dir.path()), 2);
    rest(dir.path());
    // What is unfinished was submitted 60 days ago, and may read what was made since.
    let [of_the_gone, of_the_running] = [70, 55].map(|days| work_dir(dir.path(), days));
    let forgotten = forget_jobs(dir.path(), 30.0).expect("forgets");
    assert_eq!((forgotten.jobs, forgotten.compositions, forgotten.files), (3, 1, 1), "{forgotten:?}");
    assert!(forgotten.file_bytes > INLINE_BYTES_MAX as u64);
    assert_eq!((forgotten.work_dirs, forgotten.work_bytes), (1, 4), "{forgotten:?}");
    assert!(!of_the_gone.exists() && of_the_running.join("made").exists());

    let reader = JournalReader::open(dir.path()).expect("opens");
    for job in &gone {
        assert_eq!(reader.job_outcome(&job.job_id).expect("reads"), None);
        assert_eq!(reader.arguments(&job.job_id).expect("reads"), None);
        assert!(!reader.history(&job.job_id).expect("reads").is_empty(), "the journal keeps its rows");
    }
    for job in &kept {
        let found = reader.job_outcome(&job.job_id).expect("reads").expect("kept");
        assert_eq!(found.job.status, job.status);
        assert_eq!(found.result.is_some(), job.status == JobStatus::Completed);
    }
    let outcome = reader.job_outcome(&kept[3].job_id).expect("reads").expect("kept");
    assert_eq!(outcome.result, Some(shared_body.to_string().into_bytes()));
    assert!(reader.composition(&running).expect("reads").is_some());
    assert_eq!(reader.composition(&over).expect("reads"), None);
    let again = forget_jobs(dir.path(), 30.0).expect("again");
    let ForgottenJobs { free_bytes, .. } = again;
    // One job, and the composition that runs.
    assert_eq!(again, ForgottenJobs { unfinished: 2, free_bytes, ..ForgottenJobs::default() });
    let nothing = forget_jobs(&dir.path().join("none"), 30.0).expect_err("nothing there");
    assert_eq!(nothing.code(), "store.nothing_yet");
}

/// What runs reads what is older than itself, and does not make what is young old.
#[test]
fn a_job_that_waits_makes_no_young_directory_of_a_call_old() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let journal = open(dir.path());
    put(&journal, None, 0, None, &json!(1));
    let [old, young] = [31, 29].map(|days| work_dir(dir.path(), days));
    let forgotten = forget_jobs(dir.path(), 30.0).expect("forgets");
    assert_eq!(forgotten.work_dirs, 1, "{forgotten:?}");
    assert!(!old.exists() && young.join("made").exists());
}

#[test]
fn a_composition_stays_as_long_as_a_job_of_it_and_workers_and_hosts_go_when_they_ended_long_ago() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let journal = open(dir.path());
    let over = put_composition(&journal, 60);
    let late = put(&journal, Some(&over), 59, Some(1), &json!(1));
    end_composition(&journal, &over, 58);
    drop(journal);
    let database = Connection::open(dir.path().join("journal.db")).expect("opens");
    let worker = "INSERT INTO workers (worker_session_id, host_session_id, instance_id, capability_name, pid, spawned_at, \
                  ended_at) VALUES (?1, 'h', 'i', 'c', 1, ?2, ?3)";
    for (id, ended) in [("old", Some(50)), ("young", Some(1)), ("lives", None)] {
        let ended = ended.map(|days| days_ago(days).as_str().to_owned());
        database.execute(worker, rusqlite::params![id, days_ago(60).as_str(), ended]).expect("written");
    }
    let forgotten = forget_jobs(dir.path(), 30.0).expect("works");
    assert_eq!((forgotten.jobs, forgotten.compositions), (0, 0));
    let reader = JournalReader::open(dir.path()).expect("opens");
    assert!(
        reader.composition(&over).expect("reads").is_some()
            && reader.job(&late.job_id).expect("reads").is_some()
    );
    let workers: String = database
        .query_row(
            "SELECT group_concat(worker_session_id, ' ' ORDER BY worker_session_id) FROM workers",
            [],
            |row| row.get(0),
        )
        .expect("reads");
    assert_eq!(workers, "lives young");
    let all = forget_jobs(dir.path(), 0.5).expect("works");
    assert_eq!((all.jobs, all.compositions), (1, 1), "both go in one sweep");
}

#[test]
fn a_body_that_was_used_a_moment_ago_stays_and_half_written_ones_go() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let payloads = dir.path().join("payloads");
    fs::create_dir(&payloads).expect("folder");
    let unnamed = payloads.join("a".repeat(64));
    fs::write(&unnamed, "named by no record so far").expect("written");
    let half = payloads.join(format!(".{}.7.0", "b".repeat(64)));
    fs::write(&half, "half").expect("written");
    let journal = open(dir.path());
    assert!(!half.exists(), "what a killed writer left goes when the store is opened");
    journal.commit_blocking(Commit::telling().row(account("j", 0))).expect("written");
    journal.close();
    forget_jobs(dir.path(), 30.0).expect("forgets");
    assert!(unnamed.exists(), "a commit that names it may be on its way");
    rest(dir.path());
    forget_jobs(dir.path(), 30.0).expect("forgets");
    assert!(!unnamed.exists());
}

#[test]
fn a_host_forgets_old_jobs_while_it_writes() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let journal = open(dir.path());
    for _ in 0..100 {
        put(&journal, None, 50, Some(40), &json!(1));
    }
    let kept = put(&journal, None, 1, Some(1), &json!(1));
    // What is unfinished keeps what is older than the cutoff, and never less.
    let unfinished = put(&journal, None, 0, None, &json!(1));
    journal.close();
    let journal = SqliteJournal::open(dir.path(), JournalOptions::default()).expect("opens");
    let reader = JournalReader::open(dir.path()).expect("opens");
    let left = || reader.jobs(&JobFilter::default(), 0, 1000).expect("reads");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let (old, new) = (work_dir(dir.path(), 31), work_dir(dir.path(), 29));
    while left().len() > 2 || old.exists() {
        assert!(std::time::Instant::now() < deadline, "{} jobs are left", left().len());
        journal.commit_blocking(Commit::telling().row(account("j", 0))).expect("written");
    }
    assert_eq!([&left()[0].job.job_id, &left()[1].job.job_id], [&kept.job_id, &unfinished.job_id]);
    assert!(new.exists());
}

#[test]
fn a_host_in_which_nothing_happens_forgets_old_jobs() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let journal = open(dir.path());
    for _ in 0..100 {
        put(&journal, None, 50, Some(40), &json!(1));
    }
    journal.close();
    let _idle = SqliteJournal::open(dir.path(), JournalOptions::default()).expect("opens");
    let reader = JournalReader::open(dir.path()).expect("opens");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !reader.jobs(&JobFilter::default(), 0, 1000).expect("reads").is_empty() {
        assert!(std::time::Instant::now() < deadline, "they stay for as long as nothing is written");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// All rows with their ids, from journal and archives.
fn all_rows(data_dir: &Path) -> Vec<(i64, String)> {
    let reader = JournalReader::open_with_archives(data_dir).expect("opens");
    let rows = reader.page(&JournalFilter::default(), 0, 10_000).expect("reads");
    rows.into_iter().map(|found| (found.seq, found.row.event_id.to_string())).collect()
}

fn in_journal(data_dir: &Path) -> usize {
    let reader = JournalReader::open(data_dir).expect("opens");
    reader.page(&JournalFilter::default(), 0, 10_000).expect("reads").len()
}

#[test]
fn old_rows_move_into_an_archive_that_is_read_as_if_they_had_stayed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let journal = open(dir.path());
    let unfinished = put(&journal, None, 50, None, &json!(1));
    for n in 0..1300 {
        let mut row = account("old", n);
        row.ts = days_ago(40);
        journal.commit_detached(Commit::telling().row(row)).expect("queued");
    }
    journal.commit_blocking(Commit::telling().row(account("new", 0))).expect("written");
    let before = all_rows(dir.path());
    let archived = archive_journal(dir.path(), &days_ago(30)).expect("archives");
    assert_eq!(archived.rows, 1300);
    assert_eq!(archives(dir.path()).expect("lists"), std::slice::from_ref(&archived.path));
    assert_eq!(in_journal(dir.path()), 2, "rows of unfinished jobs stay");
    assert_eq!(all_rows(dir.path()), before);
    let reader = JournalReader::open_with_archives(dir.path()).expect("opens");
    let last = reader.last(&JournalFilter::default(), 3).expect("reads");
    assert_eq!(last.iter().map(|row| row.seq).collect::<Vec<_>>(), [1300, 1301, 1302]);
    assert_eq!(reader.history(&unfinished.job_id).expect("reads").len(), 1);
    let alone = JournalReader::open_archive(&archived.path).expect("opens");
    assert_eq!(alone.page(&JournalFilter::default(), 0, 10_000).expect("reads").len(), 1300);
    // Places are not given twice, whatever left.
    journal.commit_blocking(Commit::telling().row(account("new", 1))).expect("written");
    assert_eq!(last_seq(dir.path()), 1303);
    assert_eq!(archive_journal(dir.path(), &days_ago(30)).expect("again").rows, 0);
    let error = archive_journal(dir.path(), &Timestamp::from_text("soon")).expect_err("no instant");
    assert_eq!(error.code(), "store.refused");
}

#[test]
fn a_move_that_was_cut_off_loses_no_row_and_tells_none_twice() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let journal = open(dir.path());
    for n in 0..10 {
        let mut row = account("old", n);
        row.ts = days_ago(40);
        journal.commit_blocking(Commit::telling().row(row)).expect("written");
    }
    let before = all_rows(dir.path());
    let month = days_ago(30);
    let archived = archive_journal(dir.path(), &month).expect("archives");
    // As if the process had died between the archive's commit and the journal's: half of the rows stand in both.
    let connection = Connection::open(dir.path().join(JOURNAL_FILE)).expect("opens");
    let attach = format!("ATTACH '{}' AS archive", archived.path.display());
    connection.execute_batch(&attach).expect("attached");
    connection
        .execute_batch("INSERT INTO journal SELECT * FROM archive.journal WHERE seq > 5")
        .expect("put back");
    assert_eq!(in_journal(dir.path()), 5);
    assert_eq!(all_rows(dir.path()), before);
    assert_eq!(archive_journal(dir.path(), &month).expect("goes on").rows, 5);
    assert_eq!(all_rows(dir.path()), before);

    // Another journal with the same places: its rows are not lost by taking them for the archive's.
    connection
        .execute_batch(
            "INSERT INTO journal SELECT seq, 'other-' || event_id, ts, event_type, run_id, job_id, composition_id, \
             node_id, capability_instance_id, capability_name, config_hash, task_name, method, worker_session_id, \
             actor, worker_reported, payload FROM archive.journal WHERE seq = 3",
        )
        .expect("put in");
    assert_eq!(all_rows(dir.path()).len(), before.len() + 1);
    assert_eq!(archive_journal(dir.path(), &month).expect("another journal's row").rows, 1);
    assert_eq!(in_journal(dir.path()), 0);
    assert_eq!(all_rows(dir.path()).len(), before.len() + 1);
}

#[test]
fn an_archive_that_was_never_finished_hides_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let journal = open(dir.path());
    let mut row = account("old", 0);
    row.ts = days_ago(40);
    journal.commit_blocking(Commit::telling().row(row)).expect("written");
    let before = all_rows(dir.path());
    let folder = dir.path().join("archives");
    std::fs::create_dir(&folder).expect("mkdir");
    std::fs::write(folder.join("journal-before-20200101T000000.db"), "").expect("written");
    std::fs::write(folder.join("journal-before-20200102T000000.new"), "half of one").expect("written");
    assert_eq!(all_rows(dir.path()), before);
    std::fs::write(folder.join("journal-before-20200103T000000.db"), "no database").expect("written");
    assert_eq!(all_rows(dir.path()), before, "one that is damaged takes only its own rows away");
    let reader = JournalReader::open_with_archives(dir.path()).expect("opens");
    let unreadable: Vec<String> = reader.unreadable().iter().map(ToString::to_string).collect();
    let [empty, damaged] = unreadable.as_slice() else { panic!("{unreadable:?}") };
    assert!(empty.contains("20200101T000000.db cannot be read: it holds no journal"), "{empty}");
    assert!(damaged.contains("20200103"), "{damaged}");
    assert_eq!(archive_journal(dir.path(), &days_ago(30)).expect("archives").rows, 1);
    assert_eq!(all_rows(dir.path()), before);
    assert!(!folder.join("journal-before-20200102T000000.new").exists(), "what is half made goes");
}

#[test]
fn two_do_not_make_an_archive_at_once() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let journal = open(dir.path());
    let mut row = account("old", 0);
    row.ts = days_ago(40);
    journal.commit_blocking(Commit::telling().row(row)).expect("written");
    std::fs::create_dir(dir.path().join("archives")).expect("mkdir");
    let lock = std::fs::File::create(dir.path().join("archives/lock")).expect("made");
    lock.lock().expect("locked");
    let error = archive_journal(dir.path(), &days_ago(30)).expect_err("somebody does");
    assert_eq!(error.code(), "store.busy");
    assert_eq!(in_journal(dir.path()), 1);
    drop(lock);
    assert_eq!(archive_journal(dir.path(), &days_ago(30)).expect("archives").rows, 1);
}
