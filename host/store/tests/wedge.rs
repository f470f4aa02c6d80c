//! A disk that fails: who is refused, who waits, and that nothing is lost or changes place.

mod common;

use cjm_store::fault::DiskStep;
use cjm_store::*;
use cjm_wire::error::{ErrorCategory, Resource};
use cjm_wire::event::JobStatus;
use cjm_wire::{Described, Timestamp};
use common::faulty::{Plan, faulty};
use common::*;
use rusqlite::{Connection, ffi};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::watch;

async fn until(gate: &mut watch::Receiver<Gate>, open: bool) -> Gate {
    let waiting = gate.wait_for(|gate| gate.is_open() == open);
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("in time").expect("alive").clone()
}

/// The disk fails by `plan` while a job runs; afterwards the story must be whole.
async fn wedge(plan: Plan, reason: &str) {
    let (dir, disk, journal) = faulty();
    let mut gate = journal.gate();
    let job = job("asr");
    journal.commit(accept(&job, &json!({}))).await.expect("accepted");
    let running = started(&job, 1);
    journal.commit(begin(&running, JobStatus::Pending)).await.expect("begun");

    disk.set(plan);
    for n in 0..50 {
        let mut row = account("direct", n);
        // Every row needs new pages, so that a full database takes not even the first.
        row.payload.insert("text".into(), "x".repeat(20_000).into());
        journal.commit_detached(Commit::telling().row(row)).expect("waits in memory");
    }
    let done = ended(&running, JobStatus::Completed);
    let ending = tokio::spawn(journal.commit(finish(&done, Some(&json!("front")))));
    let Gate::Closed { reason: said, .. } = until(&mut gate, false).await else { panic!("open") };
    assert!(said.contains(reason), "{said}");

    let refused = journal.commit(accept(&common::job("asr"), &json!({}))).await.expect_err("closed");
    assert_eq!(refused.code(), "store.closed");
    assert!(refused.to_string().contains(reason), "{refused}");
    let twice = tokio::spawn(journal.commit(finish(&done, None)));
    assert!(!ending.is_finished() && !twice.is_finished(), "accepted work waits");
    assert_eq!(last_seq(dir.path()), 2, "nothing half-written");

    disk.set(Plan::Healthy);
    until(&mut gate, true).await;
    let receipt = ending.await.expect("no panic").expect("written after all");
    assert_eq!(receipt.first_seq, 53, "after the rows that were queued before it");
    assert_eq!(twice.await.expect("no panic").expect_err("its own fault").code(), "store.refused");
    journal.commit(accept(&common::job("asr"), &json!({}))).await.expect("new work is accepted again");
    let reader = JournalReader::open(dir.path()).expect("opens");
    assert_eq!(reader.job(&job.job_id).expect("reads"), Some(done));
    let direct = JournalFilter { job: Some("direct".into()), ..JournalFilter::default() };
    let parts: Vec<_> =
        reader.page(&direct, 0, 100).expect("reads").iter().map(|r| r.row.payload["part"].clone()).collect();
    assert_eq!(parts, (0..50).map(|n| json!(n)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_busy_database_closes_the_gate() {
    wedge(Plan::Fail(DiskStep::Begin, ffi::SQLITE_BUSY), "locked").await;
}

#[tokio::test]
async fn a_full_disk_closes_the_gate() {
    wedge(Plan::Fail(DiskStep::Write, ffi::SQLITE_FULL), "full").await;
}

#[tokio::test]
async fn a_database_that_sqlite_itself_finds_full_closes_the_gate() {
    wedge(Plan::Full, "full").await;
}

#[tokio::test]
async fn an_io_error_at_the_end_of_a_transaction_closes_the_gate() {
    wedge(Plan::Fail(DiskStep::Commit, ffi::SQLITE_IOERR_FSYNC), "I/O").await;
}

#[tokio::test]
async fn another_process_that_keeps_the_lock_closes_the_gate_until_it_lets_go() {
    let (dir, disk, journal) = faulty();
    let mut gate = journal.gate();
    disk.set(Plan::Impatient);
    let other = Connection::open(dir.path().join(JOURNAL_FILE)).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let waiting = tokio::spawn(journal.commit(Commit::telling().row(account("j", 0))));
    until(&mut gate, false).await;
    other.execute_batch("ROLLBACK").expect("released");
    waiting.await.expect("no panic").expect("written");
    until(&mut gate, true).await;
}

#[tokio::test]
async fn a_damaged_file_is_told_and_not_tried_for_ever() {
    let (_dir, disk, journal) = faulty();
    disk.set(Plan::Fail(DiskStep::Begin, ffi::SQLITE_CORRUPT));
    let error = journal.commit(Commit::telling().row(account("j", 0))).await.expect_err("damaged");
    assert_eq!(error.code(), "store.damaged");
    let error = journal.commit(accept(&job("asr"), &json!({}))).await.expect_err("closed");
    assert_eq!(error.code(), "store.closed");
}

#[tokio::test]
async fn a_body_that_cannot_be_written_fails_its_own_commit_and_holds_up_no_other() {
    let (dir, disk, journal) = faulty();
    let gate = journal.gate();
    let job = job("asr");
    journal.commit(accept(&job, &json!({}))).await.expect("accepted");
    let running = started(&job, 1);
    journal.commit(begin(&running, JobStatus::Pending)).await.expect("begun");
    let big = json!("x".repeat(INLINE_BYTES_MAX));
    disk.set(Plan::NoPayloads);
    let error = journal.commit(accept(&common::job("asr"), &big)).await.expect_err("no room");
    assert_eq!(error.code(), "store.no_room");
    let done = ended(&running, JobStatus::Completed);
    let error = journal.commit(finish(&done, Some(&big))).await.expect_err("no room");
    assert_eq!((error.code(), error.exit_code()), ("store.no_room", 17));
    assert!(is_too_large_to_keep(&error));
    journal.commit(accept(&common::job("asr"), &json!({}))).await.expect("others go on");
    assert!(gate.borrow().is_open());

    let (failed, commit) =
        end_without_result(&done, JobStatus::Running, &error, &Timestamp::from_micros(4_000_000));
    journal.commit(commit).await.expect("a small end is kept");
    let reader = JournalReader::open(dir.path()).expect("opens");
    assert_eq!(reader.job(&job.job_id).expect("reads"), Some(failed.clone()));
    let failure = failed.failure.expect("failed");
    assert_eq!(failure.report.exit_code, 17);
    assert_eq!(failure.error.category, ErrorCategory::Resource);
    assert_eq!(failure.error.resource_shortfall.expect("disk").resource, Resource::Disk);
}

#[tokio::test]
async fn a_commit_that_does_not_fit_fails_alone_while_small_ones_are_written() {
    let (dir, disk, journal) = faulty();
    disk.set(Plan::PagesLeft(40));
    let mut big = account("big", 0);
    big.payload.insert("text".into(), "x".repeat(500_000).into());
    let (before, own, after) = tokio::join!(
        journal.commit(Commit::telling().row(account("j", 0))),
        journal.commit(Commit::telling().row(big)),
        journal.commit(Commit::telling().row(account("j", 1))),
    );
    let error = own.expect_err("does not fit");
    assert_eq!(error.code(), "store.no_room");
    before.expect("fits");
    after.expect("fits");
    assert!(journal.gate().borrow().is_open(), "small rows are written, so new work is accepted");
    journal.commit(accept(&job("asr"), &json!({}))).await.expect("accepted");
    assert_eq!(last_seq(dir.path()), 3);
    let probes: i64 = Connection::open(dir.path().join(JOURNAL_FILE))
        .and_then(|db| db.query_row("SELECT count(*) FROM room_probe", [], |row| row.get(0)))
        .expect("reads");
    assert_eq!(probes, 0, "what was tried is taken away again");
}

/// A checkpoint would spend the room of the reserve on the pages of the database.
#[tokio::test]
async fn no_checkpoint_runs_while_the_reserve_is_given_up() {
    let (_dir, disk, journal) = faulty();
    let mut gate = journal.gate();
    let tell = |n| journal.commit(Commit::telling().row(account("j", n)));
    tell(0).await.expect("written");
    disk.set(Plan::Fail(DiskStep::Write, ffi::SQLITE_FULL));
    let waiting = tokio::spawn(tell(1));
    until(&mut gate, false).await;
    // One attempt found the disk full, and the next one is made in the room of the reserve.
    disk.has_begun(4).await;
    disk.set(Plan::Healthy);
    waiting.await.expect("no panic").expect("written after all");
    until(&mut gate, true).await;
    tell(2).await.expect("written");
    let seen = disk.checkpoints.lock().expect("lock").clone();
    let given_up: Vec<_> = seen.iter().filter(|(has_reserve, _)| !has_reserve).collect();
    assert!(!given_up.is_empty() && given_up.iter().all(|(_, pages)| *pages == 0), "{seen:?}");
    assert!(seen[0].1 > 0 && seen.last() == seen.first(), "they go on as before: {seen:?}");
}

#[tokio::test]
async fn who_waits_for_a_disk_is_told_in_time_and_the_commit_waits_on() {
    let (dir, disk, journal) = faulty();
    disk.set(Plan::Fail(DiskStep::Write, ffi::SQLITE_FULL));
    let before = Instant::now();
    let error = journal.commit(Commit::telling().row(account("j", 0))).await.expect_err("told");
    assert_eq!((error.code(), error.exit_code()), ("store.unwritten", 17));
    assert!(before.elapsed() >= COMMIT_WAIT_MAX, "{:?}", before.elapsed());
    assert!(before.elapsed() < COMMIT_WAIT_MAX * 2 + Duration::from_secs(1), "{:?}", before.elapsed());
    assert_eq!(last_seq(dir.path()), 0);
    disk.set(Plan::Healthy);
    until(&mut journal.gate(), true).await;
    assert_eq!(last_seq(dir.path()), 1, "written after all");
}

#[tokio::test]
async fn a_store_that_closes_on_a_failing_disk_gives_up_and_says_so() {
    let (_dir, disk, journal) = faulty();
    let mut gate = journal.gate();
    disk.set(Plan::Fail(DiskStep::Begin, ffi::SQLITE_FULL));
    let waiting = tokio::spawn(journal.commit(Commit::telling().row(account("j", 0))));
    until(&mut gate, false).await;
    let before = Instant::now();
    let closing = journal.clone();
    tokio::task::spawn_blocking(move || closing.close()).await.expect("no panic");
    assert!(before.elapsed() < Duration::from_secs(15), "{:?}", before.elapsed());
    let error = waiting.await.expect("no panic").expect_err("given up");
    assert_eq!(error.code(), "store.shut_down");
    assert!(error.to_string().contains("full"), "{error}");
}

#[tokio::test]
async fn what_waits_for_one_transaction_shares_the_next() {
    let (dir, disk, journal) = faulty();
    let (release, word) = mpsc::channel();
    disk.set(Plan::Hold(word));
    const COMMITS: usize = 1000;
    let mut waiting = Vec::new();
    for n in 0..COMMITS {
        let mut commit =
            Commit::telling().row(account(&format!("job-{n}"), 0)).row(account(&format!("job-{n}"), 1));
        if n % 100 == 7 {
            let twin = commit.rows[0].clone();
            commit = commit.row(twin);
        }
        waiting.push(journal.commit(commit));
    }
    // Polled once, each has queued its commit and waits for the writer, which is held.
    let queue_all = std::future::poll_fn(|context| {
        let early = waiting.iter_mut().position(|commit| commit.as_mut().poll(context).is_ready());
        Poll::Ready(early)
    });
    assert_eq!(tokio::task::unconstrained(queue_all).await, None, "answered while the writer is held");
    release.send(()).expect("the writer waits");
    for (n, commit) in waiting.into_iter().enumerate() {
        let outcome = commit.await;
        assert_eq!(outcome.is_err(), n % 100 == 7, "{n}: {outcome:?}");
    }
    let transactions = disk.ends.load(Ordering::Relaxed);
    let least = COMMITS.div_ceil(BATCH_COMMITS_MAX);
    assert!((least..=least + 2).contains(&transactions), "{transactions} transactions");
    let rows = JournalReader::open(dir.path())
        .and_then(|r| r.page(&JournalFilter::default(), 0, 10_000))
        .expect("reads");
    assert_eq!(rows.len(), 2 * (COMMITS - COMMITS / 100), "no row of a refused commit");
}

#[tokio::test]
async fn detached_rows_beyond_their_maximum_are_refused_and_awaited_ones_are_not() {
    let (_dir, disk, journal) = faulty();
    let mut gate = journal.gate();
    disk.set(Plan::Fail(DiskStep::Begin, ffi::SQLITE_FULL));
    let mut row = account("direct", 0);
    row.payload.insert("text".into(), "x".repeat(50_000).into());
    let refused = (0..1000).find_map(|_| {
        row.event_id = cjm_wire::EventId::new();
        journal.commit_detached(Commit::telling().row(row.clone())).err()
    });
    assert_eq!(refused.expect("bounded").code(), "store.overloaded");
    let terminal = tokio::spawn(journal.commit(Commit::telling().row(account("j", 1))));
    until(&mut gate, false).await;
    disk.set(Plan::Healthy);
    terminal.await.expect("no panic").expect("written");
}

#[tokio::test]
async fn what_may_wait_in_memory_is_bounded_and_nobody_waits_for_a_share_of_it() {
    let (_dir, disk, journal) = faulty();
    disk.set(Plan::Fail(DiskStep::Begin, ffi::SQLITE_BUSY));
    let mut row = account("j", 0);
    row.payload.insert("text".into(), "x".repeat(1_000_000).into());
    let commit = || {
        let mut row = row.clone();
        row.event_id = cjm_wire::EventId::new();
        journal.commit(Commit::telling().row(row))
    };
    let waiting: Vec<_> = (0..80).map(|_| tokio::spawn(commit())).collect();
    let mut overloaded = 0;
    for commit in waiting {
        let error = commit.await.expect("no panic").expect_err("the disk takes nothing");
        overloaded += usize::from(error.code() == "store.overloaded");
    }
    let held_max = journal::WAITING_BYTES_MAX / 1_000_000;
    assert!((80 - held_max..=80 - held_max + 2).contains(&overloaded), "{overloaded} were refused");
    disk.set(Plan::Healthy);
    until(&mut journal.gate(), true).await;
    commit().await.expect("there is room in memory again");
}
