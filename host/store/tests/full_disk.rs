//! A real disk of 6 MB that is filled to the last byte: the ends of running jobs are kept, a commit that does not fit
//! fails alone, nobody hangs, and retention makes room again. Only root can make such a disk; for others these tests say
//! so and do nothing, and `wedge` shows the same with a disk that is told to fail.

mod common;

use cjm_store::*;
use cjm_wire::Described;
use cjm_wire::event::JobStatus;
use common::*;
use rusqlite::Connection;
use serde_json::json;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DISK_BYTES: u64 = 6 * 1024 * 1024;
/// Longest time any caller may wait.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Ends of jobs that the reserve must hold, each in a transaction of its own.
const ENDS_IN_RESERVE_MIN: usize = 16;

/// A file system of its own in memory.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mounted() -> Option<Self> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "tmpfs"])
            .arg(dir.path())
            .output();
        if mounted.is_ok_and(|done| done.status.success()) {
            return Some(Self(dir));
        }
        eprintln!("not shown here: only root can mount a small disk");
        None
    }

    fn data_dir(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    /// Takes all that is free but `left` bytes.
    fn fill(&self, left: u64) {
        let mut file = File::create(self.filler()).expect("created");
        let block = [b'x'; 4096];
        while file.write_all(&block).is_ok() {}
        let length = fs::metadata(self.filler()).expect("there").len();
        file.set_len(length.saturating_sub(left)).expect("shortened");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// What the commit is answered, which must not take long.
async fn answered(journal: &Arc<SqliteJournal>, commit: Commit) -> Result<Receipt, StoreError> {
    let before = Instant::now();
    let answer = tokio::time::timeout(ANSWER_MAX, journal.commit(commit)).await;
    answer.unwrap_or_else(|_| panic!("no answer within {:?}", before.elapsed()))
}

async fn running_jobs(journal: &Arc<SqliteJournal>, count: usize) -> Vec<JobRecord> {
    let mut jobs = Vec::new();
    for _ in 0..count {
        let job = job("asr");
        journal.commit(accept(&job, &json!({"kwargs": {"x": 1}}))).await.expect("accepted");
        let running = started(&job, 1);
        journal.commit(begin(&running, JobStatus::Pending)).await.expect("begun");
        jobs.push(running);
    }
    jobs
}

fn is_sound(data_dir: &Path) {
    for file in [JOURNAL_FILE, DIAGNOSTICS_FILE] {
        if data_dir.join(file).exists() {
            let verdict: String = Connection::open(data_dir.join(file))
                .and_then(|db| db.query_row("PRAGMA integrity_check", [], |row| row.get(0)))
                .expect("reads");
            assert_eq!(verdict, "ok", "{file}");
        }
    }
}

#[tokio::test]
async fn a_result_larger_than_the_disk_fails_its_job_alone() {
    let Some(disk) = SmallDisk::mounted() else { return };
    let journal = open(&disk.data_dir());
    let jobs = running_jobs(&journal, 2).await;
    let done = ended(&jobs[0], JobStatus::Completed);
    let big = json!("x".repeat(8 * 1024 * 1024));
    let error = answered(&journal, finish(&done, Some(&big))).await.expect_err("8 MB on 6 MB");
    assert_eq!((error.code(), error.exit_code()), ("store.no_room", 17));
    assert_eq!(fs::read_dir(disk.data_dir().join("payloads")).map_or(0, Iterator::count), 0);
    let (failed, end) = end_without_result(&done, JobStatus::Running, &error, &cjm_wire::Timestamp::now());
    answered(&journal, end).await.expect("a small end fits");
    answered(&journal, finish(&ended(&jobs[1], JobStatus::Completed), Some(&json!("small"))))
        .await
        .expect("the other job is not touched");
    assert!(journal.gate().borrow().is_open());
    let reader = JournalReader::open(&disk.data_dir()).expect("opens");
    assert_eq!(reader.job(&failed.job_id).expect("reads").expect("there").status, JobStatus::Failed);
}

#[tokio::test]
async fn at_every_fill_level_running_jobs_end_and_nobody_hangs() {
    for left_kb in [0, 4, 16, 64, 128, 256, 512, 768, 1024, 2048] {
        let Some(disk) = SmallDisk::mounted() else { return };
        let journal = open(&disk.data_dir());
        let mut gate = journal.gate();
        let jobs = running_jobs(&journal, 4).await;
        disk.fill(left_kb * 1024);
        for job in &jobs {
            let row = account("told", 0);
            let end = finish(&ended(job, JobStatus::Completed), Some(&json!("front"))).row(row);
            answered(&journal, end).await.unwrap_or_else(|error| panic!("{left_kb} kB free: {error}"));
        }
        let large = json!("x".repeat(200_000));
        for arguments in [json!({}), large, json!("x".repeat(3_000_000))] {
            if let Err(error) = answered(&journal, accept(&job("asr"), &arguments)).await {
                assert_eq!(error.exit_code(), 17, "{left_kb} kB free: {error}");
            }
        }
        fs::remove_file(disk.filler()).expect("removed");
        let opening = gate.wait_for(Gate::is_open);
        tokio::time::timeout(ANSWER_MAX, opening).await.expect("opens again").expect("alive");
        answered(&journal, accept(&job("asr"), &json!({}))).await.expect("accepted again");
        journal.close();
        is_sound(&disk.data_dir());
        let reader = JournalReader::open(&disk.data_dir()).expect("opens");
        for job in &jobs {
            let found = reader.job(&job.job_id).expect("reads").expect("there");
            assert_eq!(found.status, JobStatus::Completed, "{left_kb} kB free");
        }
    }
}

#[test]
fn a_flood_of_output_leaves_room_for_the_journal_and_retention_gives_the_disk_back() {
    let Some(disk) = SmallDisk::mounted() else { return };
    let data_dir = disk.data_dir();
    let journal = open(&data_dir);
    let store = SqliteDiagnostics::open(&data_dir).expect("opens");
    for n in 0..5000 {
        let content = format!("{n} {}", "x".repeat(10_000));
        let ts = cjm_wire::Timestamp::now();
        store.chunk(StreamChunk { ts, worker_session_id: None, stream: "stdout".into(), content });
    }
    let before = Instant::now();
    store.flush_blocking();
    assert!(before.elapsed() < ANSWER_MAX, "{:?}", before.elapsed());
    let dropped = store.dropped();
    assert!(dropped.chunks > 0, "50 MB do not fit on 6 MB");
    journal.commit_blocking(accept(&job("asr"), &json!({}))).expect("the journal goes on");
    assert!(journal.gate().borrow().is_open());
    store.close();
    journal.close();

    disk.fill(0);
    let size = |file: &str| fs::metadata(data_dir.join(file)).expect("there").len();
    let held = size(DIAGNOSTICS_FILE);
    let all = Retention { age_max_days: None, size_max_mb: Some(0.1) };
    let forgotten = apply_retention(&data_dir, &all).expect("works on a full disk");
    assert!(forgotten.chunks > 0);
    assert!(size(DIAGNOSTICS_FILE) < held / 4, "{} of {held} bytes", size(DIAGNOSTICS_FILE));
    assert!(data_dir.join(cjm_store::room::RESERVE_FILE).exists(), "the reserve is there again");
    is_sound(&data_dir);
}

#[test]
fn old_jobs_are_forgotten_on_a_full_disk_and_the_reserve_is_there_again() {
    let Some(disk) = SmallDisk::mounted() else { return };
    let journal = open(&disk.data_dir());
    for _ in 0..50 {
        let job = job("asr");
        journal.commit_blocking(accept(&job, &json!({"x": "x".repeat(1000)}))).expect("accepted");
        let running = started(&job, 1);
        journal.commit_blocking(begin(&running, JobStatus::Pending)).expect("begun");
        journal.commit_blocking(finish(&ended(&running, JobStatus::Completed), None)).expect("ended");
    }
    journal.close();
    disk.fill(0);
    let forgotten = forget_jobs(&disk.data_dir(), 30.0).expect("works on a full disk");
    assert_eq!(forgotten.jobs, 50);
    assert!(disk.data_dir().join(cjm_store::room::RESERVE_FILE).exists(), "the reserve is there again");
    fs::remove_file(disk.filler()).expect("removed");
    is_sound(&disk.data_dir());
}

#[tokio::test]
async fn the_reserve_holds_the_ends_of_many_jobs() {
    let Some(disk) = SmallDisk::mounted() else { return };
    let journal = open(&disk.data_dir());
    let jobs = running_jobs(&journal, 200).await;
    disk.fill(0);
    let mut kept = 0;
    for job in &jobs {
        match answered(&journal, finish(&ended(job, JobStatus::Completed), Some(&json!("front")))).await {
            Ok(_) => kept += 1,
            Err(error) => {
                assert_eq!(error.code(), "store.unwritten");
                break;
            }
        }
    }
    eprintln!("{kept} ends of jobs were kept on a full disk");
    assert!(kept >= ENDS_IN_RESERVE_MIN, "{kept}");
    let before = Instant::now();
    journal.close();
    assert!(before.elapsed() < ANSWER_MAX, "{:?}", before.elapsed());
    is_sound(&disk.data_dir());
}
