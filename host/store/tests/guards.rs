//! One test for each guard that stands in a single line of the store and that nothing else would miss: what is guarded,
//! and what would happen without it. Retention's ORDER BY has its own test beside it
//! (`the_oldest_go_first_whatever_index_is_shorter`).

mod common;

use cjm_store::fault::DiskStep;
use cjm_store::room::RESERVE_FILE;
use cjm_store::rows::ERROR_TEXT_BYTES_MAX;
use cjm_store::*;
use cjm_wire::error::{ErrorCategory, Failure, JobError};
use cjm_wire::event::JobStatus;
use cjm_wire::ids::WorkerSessionId;
use cjm_wire::{Described, ErrorReport, Timestamp};
use common::faulty::{Plan, faulty, faulty_in};
use common::*;
use rusqlite::ffi;
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::task::Poll;

/// Guards `attempt < ?` of a start: without it one attempt could begin twice, and its request reach the tool twice.
#[tokio::test]
async fn an_attempt_begins_once() {
    let (_dir, journal) = fresh();
    let job = job("asr");
    journal.commit(accept(&job, &json!({}))).await.expect("accepted");
    journal.commit(begin(&started(&job, 2), JobStatus::Pending)).await.expect("begun");
    for attempt in [2, 1] {
        let error =
            journal.commit(begin(&started(&job, attempt), JobStatus::Running)).await.expect_err("again");
        assert_eq!(error.code(), "store.refused", "attempt {attempt}");
    }
    journal.commit(begin(&started(&job, 3), JobStatus::Running)).await.expect("the next one begins");
}

/// Guards that a large body is hashed beside: without it, each task of a runtime waits for that. What is too large is known
/// at once, or, of a commit with a large body, after it was looked at elsewhere.
#[tokio::test]
async fn a_commit_with_a_large_body_is_made_ready_beside_who_asks() {
    let (_dir, journal) = fresh();
    for (bytes, is_beside) in [(INLINE_BYTES_MAX, false), (INLINE_BYTES_MAX + 1, true)] {
        let mut row = account("j", 0);
        row.payload.insert("words".into(), "w".repeat(1024 * 1024).into());
        let insert = Write::InsertJob(Box::new(job("asr")), Body::Inline(vec![b'1'; bytes]));
        let mut commit = journal.commit(Commit::admitting().row(row).write(insert));
        let first = std::future::poll_fn(|context| Poll::Ready(commit.as_mut().poll(context))).await;
        let error = match first {
            Poll::Pending => {
                assert!(is_beside, "{bytes}");
                commit.await
            }
            Poll::Ready(told) => {
                assert!(!is_beside, "{bytes}: whoever else has a turn waits");
                told
            }
        };
        assert_eq!(error.expect_err("its row is too large").code(), "store.too_large");
    }
}

/// Guards the list of errors that pass: without one of them, a directory that is made read-only for a moment would lose
/// what was accepted.
#[tokio::test]
async fn errors_that_may_pass_are_waited_for() {
    for code in [
        ffi::SQLITE_BUSY,
        ffi::SQLITE_LOCKED,
        ffi::SQLITE_READONLY,
        ffi::SQLITE_CANTOPEN,
        ffi::SQLITE_PERM,
        ffi::SQLITE_PROTOCOL,
        ffi::SQLITE_NOMEM,
        ffi::SQLITE_SCHEMA,
        ffi::SQLITE_FULL,
        ffi::SQLITE_IOERR,
    ] {
        let (dir, disk, journal) = faulty();
        disk.set(Plan::FailTimes(3, code));
        journal.commit(Commit::telling().row(account("j", 0))).await.unwrap_or_else(|error| {
            panic!("result code {code}: {error}");
        });
        assert_eq!(last_seq(dir.path()), 1, "result code {code}");
    }
}

/// Guards BATCH_BYTES_MAX: without it, all that waits would become one transaction of any size.
#[tokio::test]
async fn a_transaction_takes_no_more_than_its_bytes() {
    let (_dir, disk, journal) = faulty();
    let (release, word) = mpsc::channel();
    disk.set(Plan::Hold(word));
    const COMMITS: usize = 40;
    let mut row = account("j", 0);
    row.payload.insert("text".into(), "x".repeat(1_000_000).into());
    let mut waiting: Vec<Committing> = (0..COMMITS)
        .map(|_| {
            row.event_id = cjm_wire::EventId::new();
            journal.commit(Commit::telling().row(row.clone()))
        })
        .collect();
    let queue_all = std::future::poll_fn(|context| {
        waiting.iter_mut().for_each(|commit| assert!(commit.as_mut().poll(context).is_pending()));
        Poll::Ready(())
    });
    tokio::task::unconstrained(queue_all).await;
    release.send(()).expect("the writer waits");
    for commit in waiting {
        commit.await.expect("written");
    }
    let transactions = disk.ends.load(Ordering::Relaxed);
    let least = COMMITS * 1_000_000 / (BATCH_BYTES_MAX + 1_001_000);
    assert!(transactions >= least && least > 1, "{transactions} transactions, at least {least}");
}

/// Guards the bound on what is kept of a failure: without it, a tool could make its job's record of any size, and the
/// commit too large to be written.
#[tokio::test]
async fn a_failure_is_kept_in_bounds() {
    let (dir, journal) = fresh();
    let job = job("asr");
    journal.commit(accept(&job, &json!({}))).await.expect("accepted");
    let mut done = ended(&started(&job, 1), JobStatus::Failed);
    let mut error = JobError::new(ErrorCategory::Fatal, "m".repeat(1 << 20));
    error.traceback = Some("t".repeat(1 << 20));
    let report = ErrorReport {
        code: "tool.failed".into(),
        message: "m".repeat(1 << 20),
        causes: vec!["c".repeat(1 << 20)],
        next_step: "n".into(),
        stderr_tail: vec!["s".repeat(1 << 20)],
        exit_code: 12,
        details: Box::default(),
    };
    done.failure = Some(Failure { error, report });
    journal.commit(begin(&started(&job, 1), JobStatus::Pending)).await.expect("begun");
    journal.commit(finish(&done, None)).await.expect("ended");
    let reader = JournalReader::open(dir.path()).expect("opens");
    let kept = reader.job(&job.job_id).expect("reads").expect("there").failure.expect("failed");
    let bytes = serde_json::to_string(&kept).expect("writes").len();
    assert!(bytes < 8 * ERROR_TEXT_BYTES_MAX, "{bytes} bytes");
}

/// Guards CLOSING_ATTEMPTS_MAX: without it, a host that ends while another process holds the lock for an instant would
/// lose what it had accepted.
#[tokio::test]
async fn a_store_that_closes_tries_more_than_once() {
    let (dir, disk, journal) = faulty();
    disk.set(Plan::FailTimes(u32::MAX, ffi::SQLITE_BUSY));
    let waiting = tokio::spawn(journal.commit(Commit::telling().row(account("j", 0))));
    journal.gate().wait_for(|gate| !gate.is_open()).await.expect("alive");
    disk.set(Plan::FailTimes(CLOSING_ATTEMPTS_MAX - 1, ffi::SQLITE_BUSY));
    let closing = journal.clone();
    tokio::task::spawn_blocking(move || closing.close()).await.expect("no panic");
    waiting.await.expect("no panic").expect("written at the last");
    assert_eq!(last_seq(dir.path()), 1);
}

/// Guards the busy timeouts of a disk that fails: with the usual one, whoever waits for a commit is told late that another
/// process has the lock; with the short one ever after, an instant of somebody else's lock closes the gate.
#[tokio::test]
async fn others_are_waited_for_shortly_while_the_disk_fails_and_as_usual_afterwards() {
    let (_dir, disk, journal) = faulty();
    disk.set(Plan::FailTimes(3, ffi::SQLITE_BUSY));
    for part in 0..2 {
        journal.commit(Commit::telling().row(account("j", part))).await.expect("written");
        journal.gate().wait_for(Gate::is_open).await.expect("alive");
    }
    let patience_ms = disk.patience_ms.lock().expect("lock").clone();
    let [usual, short @ .., afterwards] = patience_ms.as_slice() else { panic!("{patience_ms:?}") };
    assert!(short.len() >= 3 && usual == afterwards, "{patience_ms:?}");
    let told_ms = i64::try_from(COMMIT_WAIT_MAX.as_millis()).expect("small");
    assert!(short.iter().all(|short| *short < told_ms) && *usual > told_ms, "{patience_ms:?}");
}

/// Guards the look at what came while the disk was tried: without it, new work that was handed in just before the gate
/// closed is accepted on a disk that fails, and takes the room in which the ends of running jobs are to be written.
#[tokio::test]
async fn new_work_that_was_handed_in_just_before_the_gate_closed_is_refused() {
    let (dir, disk, journal) = faulty();
    let (release, word) = mpsc::channel();
    disk.set(Plan::Hold(word));
    journal.commit_detached(Commit::telling().row(account("j", 0))).expect("queued");
    disk.has_begun(1).await;
    disk.set(Plan::FailTimes(1, ffi::SQLITE_BUSY));
    let mut new = journal.commit(accept(&job("asr"), &json!({})));
    let handed_in = std::future::poll_fn(|context| Poll::Ready(new.as_mut().poll(context).is_pending()));
    assert!(handed_in.await && journal.gate().borrow().is_open());
    release.send(()).expect("the writer waits");
    assert_eq!(new.await.expect_err("refused").code(), "store.closed");
    journal.gate().wait_for(Gate::is_open).await.expect("alive");
    assert_eq!(last_seq(dir.path()), 1, "what was told of earlier work is written");
}

/// Guards the probe before the gate opens: without it, a disk on which nothing waits is believed to be well again, and
/// whoever hands in new work is the one to find out that it is not.
#[tokio::test]
async fn the_gate_stays_closed_until_the_disk_takes_something_though_nothing_waits() {
    let (_dir, disk, journal) = faulty();
    disk.set(Plan::Fail(DiskStep::Begin, ffi::SQLITE_FULL));
    let refused = journal.commit(accept(&job("asr"), &json!({}))).await.expect_err("full");
    assert_eq!(refused.code(), "store.closed");
    let mut gate = journal.gate();
    let tried = *disk.begins.borrow();
    tokio::select! {
        biased;
        _ = gate.wait_for(Gate::is_open) => panic!("it opened on a disk that takes nothing"),
        () = disk.has_begun(tried + 3) => {}
    }
    disk.set(Plan::Healthy);
    gate.wait_for(Gate::is_open).await.expect("alive");
    journal.commit(accept(&job("asr"), &json!({}))).await.expect("accepted");
}

/// Guards the probe before a large commit fails alone: without it, the result of a job is given up on a full disk that has
/// room again a moment later, and new work is accepted meanwhile.
#[tokio::test]
async fn a_large_commit_waits_where_and_only_where_a_small_one_finds_no_room_either() {
    let dir = tempfile::tempdir().expect("temporary directory");
    // Without a reserve, whose room is for small commits alone.
    std::fs::create_dir(dir.path().join(RESERVE_FILE)).expect("mkdir");
    let (disk, journal) = faulty_in(dir.path());
    disk.set(Plan::Fail(DiskStep::Write, ffi::SQLITE_FULL));
    let mut row = account("j", 0);
    row.payload.insert("text".into(), "x".repeat(2 * SMALL_COMMIT_BYTES).into());
    let mut waiting = journal.commit(Commit::telling().row(row));
    let mut gate = journal.gate();
    tokio::select! {
        biased;
        told = &mut waiting => panic!("told before the gate closed: {told:?}"),
        _ = gate.wait_for(|gate| !gate.is_open()) => {}
    }
    disk.set(Plan::Healthy);
    waiting.await.expect("written after all");
    assert_eq!(last_seq(dir.path()), 1);
    // And the other way about: where a small one would fit, it holds up nobody.
    disk.set(Plan::PagesLeft(40));
    let mut row = account("j", 1);
    row.payload.insert("text".into(), "x".repeat(500_000).into());
    let error = journal.commit(Commit::telling().row(row)).await.expect_err("it does not fit");
    assert_eq!(error.code(), "store.no_room");
    journal.commit(Commit::telling().row(account("j", 2))).await.expect("it fits");
    assert_eq!(last_seq(dir.path()), 2);
}

/// Guards the bodies of commits that wait for long: without it, whoever makes room on a full disk by `retention` takes the
/// results away of jobs whose ends are still to be written.
#[tokio::test]
async fn the_body_of_a_commit_that_waits_for_hours_is_not_forgotten() {
    let (dir, disk, journal) = faulty();
    let job = job("asr");
    journal.commit(accept(&job, &json!({}))).await.expect("accepted");
    let running = started(&job, 1);
    journal.commit(begin(&running, JobStatus::Pending)).await.expect("begun");
    disk.set(Plan::Fail(DiskStep::Begin, ffi::SQLITE_BUSY));
    let result = json!("r".repeat(INLINE_BYTES_MAX));
    let end = finish(&ended(&running, JobStatus::Completed), Some(&result));
    journal.commit(end).await.expect_err("it waits on");
    let mut bodies = std::fs::read_dir(dir.path().join("payloads")).expect("a folder");
    let body = bodies.next().expect("a body").expect("reads").path();
    let used = std::time::SystemTime::now() - std::time::Duration::from_secs(3 * 3600);
    std::fs::File::options().write(true).open(&body).and_then(|file| file.set_modified(used)).expect("set");
    // Between two attempts it is looked at.
    let tried = *disk.begins.borrow();
    disk.has_begun(tried + 2).await;
    forget_jobs(dir.path(), 30.0).expect("forgets");
    assert!(body.exists());
    disk.set(Plan::Healthy);
    journal.gate().wait_for(Gate::is_open).await.expect("alive");
    let reader = JournalReader::open(dir.path()).expect("opens");
    let outcome = reader.job_outcome(&job.job_id).expect("reads").expect("there");
    assert_eq!(outcome.result, Some(result.to_string().into_bytes()));
}

/// Guards the look at a worker's host: without it, a host would take its own workers for leftovers and end them.
#[test]
fn a_hosts_own_workers_are_no_leftovers() {
    let (dir, journal) = fresh();
    let reader = JournalReader::open(dir.path()).expect("opens");
    for (session, host) in [("W1", "dead"), ("W2", "living")] {
        let worker = WorkerRecord {
            worker_session_id: WorkerSessionId::from_text(session),
            host_session_id: host.into(),
            instance_id: "asr".into(),
            capability_name: "asr".into(),
            pid: 9,
            spawned_at: Timestamp::from_micros(2),
            ended_at: None,
        };
        journal
            .commit_blocking(Commit::telling().write(Write::WorkerSpawned(Box::new(worker))))
            .expect("noted");
    }
    let host = HostRecord { host_session_id: "living".into(), pid: 7, started_at: Timestamp::from_micros(1) };
    let recovered = begin_host(&*journal, &reader, &host, &Timestamp::from_micros(3)).expect("begins");
    let left: Vec<&str> = recovered.workers.iter().map(|worker| worker.worker_session_id.as_str()).collect();
    assert_eq!(left, ["W1"]);
}

/// Guards the look at what `journal.db` is: without it SQLite follows a link that came with a folder from elsewhere, and
/// makes a journal of whatever database of the user's it leads to.
#[test]
fn a_database_that_is_a_link_is_refused_and_what_it_leads_to_stays() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let theirs = dir.path().join("theirs.db");
    let other = rusqlite::Connection::open(&theirs).expect("opens");
    other.execute_batch("CREATE TABLE theirs (x)").expect("a database of somebody else's");
    drop(other);
    let before = std::fs::read(&theirs).expect("reads");
    let data_dir = dir.path().join("data");
    std::fs::create_dir(&data_dir).expect("mkdir");
    for file in [JOURNAL_FILE, DIAGNOSTICS_FILE] {
        std::os::unix::fs::symlink(&theirs, data_dir.join(file)).expect("linked");
    }
    let error = SqliteJournal::open(&data_dir, JournalOptions::default()).expect_err("a link");
    assert!(error.to_string().contains("not a regular file"), "{error}");
    SqliteDiagnostics::open(&data_dir).expect_err("a link");
    assert_eq!(std::fs::read(&theirs).expect("reads"), before);

    // Beside a database of ours, too: its log and index are files, whose mode is ours to change.
    let beside = dir.path().join("beside");
    SqliteJournal::open(&beside, JournalOptions::default()).expect("opens").close();
    std::fs::set_permissions(&theirs, std::fs::Permissions::from_mode(0o666)).expect("chmod");
    for side in ["-wal", "-shm"] {
        let link = beside.join(format!("{JOURNAL_FILE}{side}"));
        // The last one to close takes them away.
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&theirs, &link).expect("linked");
        let error = SqliteJournal::open(&beside, JournalOptions::default()).expect_err("a link");
        assert!(error.to_string().contains("not a regular file"), "{error}");
        std::fs::remove_file(&link).expect("removed");
    }
    let mode = std::fs::metadata(&theirs).expect("there").permissions().mode();
    assert_eq!((mode & 0o777, std::fs::read(&theirs).expect("reads")), (0o666, before));
}
