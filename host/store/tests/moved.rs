//! Files taken away under a running host: no success is told for rows that end with the process.

mod common;

use cjm_store::fault::DiskStep;
use cjm_store::*;
use cjm_wire::Described;
use common::faulty::{Plan, faulty};
use common::*;
use rusqlite::ffi;
use serde_json::json;
use std::fs;
use std::path::Path;

/// Takes something away from the data directory; the journal must tell so instead of a success.
async fn check(what: &str, take_away: impl Fn(&Path), put_back: Option<&dyn Fn(&Path)>) {
    let parent = tempfile::tempdir().expect("temporary directory");
    let data_dir = parent.path().join("data");
    let journal = open(&data_dir);
    journal.commit(accept(&job("asr"), &json!({}))).await.expect("accepted");
    journal.check_files().expect("all is well");
    take_away(&data_dir);
    if data_dir.join(JOURNAL_FILE).exists() {
        // The log is looked at once a second, and when it is asked for; the journal itself each time.
        let _ = journal.check_files();
    }
    let error = journal.commit(Commit::telling().row(account("j", 0))).await.expect_err(what);
    assert_eq!((error.code(), error.exit_code()), ("store.moved", 17), "{what}");
    let Gate::Closed { reason, .. } = journal.gate().borrow().clone() else { panic!("{what}: open") };
    assert!(reason.contains("was removed, replaced or emptied"), "{what}: {reason}");
    let error = journal.commit(accept(&job("asr"), &json!({}))).await.expect_err("no new work");
    assert_eq!(error.code(), "store.moved", "{what}");
    if let Some(put_back) = put_back {
        put_back(&data_dir);
        journal.commit(Commit::telling().row(account("j", 1))).await.expect("written where it belongs");
        journal.commit(accept(&job("asr"), &json!({}))).await.expect("accepted again");
    }
}

#[tokio::test]
async fn a_journal_that_was_removed_replaced_or_moved_is_told() {
    let journal = |dir: &Path| dir.join(JOURNAL_FILE);
    check("removed", |dir| fs::remove_file(journal(dir)).expect("removed"), None).await;
    let replace = |dir: &Path| {
        fs::copy(journal(dir), dir.join("copy")).expect("copied");
        fs::rename(dir.join("copy"), journal(dir)).expect("replaced");
    };
    check("replaced", replace, None).await;
    check("emptied", |dir| fs::write(journal(dir), "").expect("emptied"), None).await;
    check("without its log", |dir| fs::remove_file(dir.join("journal.db-wal")).expect("removed"), None).await;
    check("without its directory", |dir| fs::remove_dir_all(dir).expect("removed"), None).await;
    let away = |dir: &Path| fs::rename(dir, dir.with_extension("away")).expect("moved");
    let back = |dir: &Path| fs::rename(dir.with_extension("away"), dir).expect("moved back");
    check("moved and put back", away, Some(&back)).await;
}

#[tokio::test]
async fn a_lock_that_was_removed_is_told_when_it_is_looked_at() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let lock = dir.path().join("host.lock");
    fs::write(&lock, "").expect("written");
    let absent = dir.path().join("absent.lock");
    let options = JournalOptions { guarded: vec![lock.clone(), absent], ..JournalOptions::default() };
    let journal = SqliteJournal::open(dir.path(), options).expect("opens");
    journal.check_files().expect("all is well");
    fs::write(&lock, "the same file, other words").expect("written");
    journal.check_files().expect("all is well");
    fs::remove_file(&lock).expect("removed");
    let error = journal.check_files().expect_err("removed");
    assert!(error.to_string().contains("host.lock"), "{error}");
    assert!(!journal.gate().borrow().is_open());
    // What was accepted goes on: its rows are kept.
    journal.commit(Commit::telling().row(account("j", 1))).await.expect("it is in the journal");
    let error = journal.commit(accept(&job("asr"), &json!({}))).await.expect_err("no new work");
    assert_eq!(error.code(), "store.moved");
    assert!(!journal.gate().borrow().is_open());
    let reader = JournalReader::open(dir.path()).expect("opens");
    assert_eq!(reader.last(&JournalFilter::default(), 9).expect("read").len(), 1);
}

/// Also where nobody asks: it is looked at beside what is written.
#[tokio::test]
async fn a_lock_that_was_removed_is_noticed_by_who_writes() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let lock = dir.path().join("host.lock");
    fs::write(&lock, "").expect("written");
    let options = JournalOptions { guarded: vec![lock.clone()], ..JournalOptions::default() };
    let journal = SqliteJournal::open(dir.path(), options).expect("opens");
    fs::remove_file(&lock).expect("removed");
    let begun = std::time::Instant::now();
    while journal.gate().borrow().is_open() {
        journal.commit(Commit::telling().row(account("j", 1))).await.expect("it is in the journal");
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "nobody notices");
    }
    let error = journal.commit(accept(&job("asr"), &json!({}))).await.expect_err("no new work");
    assert_eq!(error.code(), "store.moved");
}

#[tokio::test]
async fn a_journal_that_was_removed_while_the_disk_failed_takes_no_work_once_the_disk_is_well() {
    let (dir, disk, journal) = faulty();
    let mut gate = journal.gate();
    disk.set(Plan::Fail(DiskStep::Begin, ffi::SQLITE_BUSY));
    journal.commit_detached(Commit::telling().row(account("j", 0))).expect("waits in memory");
    gate.wait_for(|gate| !gate.is_open()).await.expect("alive");
    fs::remove_file(dir.path().join(JOURNAL_FILE)).expect("removed");
    disk.set(Plan::Healthy);
    let told = |gate: &Gate| match gate {
        Gate::Open => true,
        Gate::Closed { reason, .. } => reason.contains("was removed, replaced or emptied"),
    };
    gate.wait_for(told).await.expect("alive");
    // Joins the writer, which says nothing after that.
    journal.close();
    assert!(!gate.borrow().is_open(), "what it takes ends with the process");
}
