//! The journal as the engine uses it: what a commit does, to whom its errors go, and what readers see.

mod common;

use cjm_store::*;
use cjm_wire::event::{EventType, JobStatus};
use cjm_wire::ids::{CompositionId, JobId, RunId};
use cjm_wire::{Described, Timestamp};
use common::*;
use serde_json::{Map, json};
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn a_job_lives_through_its_commits_and_reads_back() {
    let (dir, journal) = fresh();
    let job = job("asr");
    let receipt = journal.commit(accept(&job, &json!({"kwargs": {"x": 1}}))).await.expect("accepted");
    assert_eq!(receipt, Receipt { first_seq: 1, last_seq: 1 });

    let reader = JournalReader::open(dir.path()).expect("opens beside the writer");
    assert_eq!(reader.job(&job.job_id).expect("reads"), Some(job.clone()));
    let arguments = reader.arguments(&job.job_id).expect("reads").expect("kept");
    assert_eq!(reader.load(&arguments).expect("inline"), br#"{"kwargs":{"x":1}}"#);

    let running = started(&job, 1);
    journal.commit(begin(&running, JobStatus::Pending)).await.expect("begun");
    let done = ended(&running, JobStatus::Completed);
    journal.commit(finish(&done, Some(&json!({"text": "front"})))).await.expect("ended");

    assert_eq!(reader.job(&job.job_id).expect("reads"), Some(done));
    let result = reader.result(&job.job_id).expect("reads").expect("kept");
    assert_eq!(result, Body::of_json(&json!({"text": "front"})));
    let steps: Vec<String> = reader
        .history(&job.job_id)
        .expect("reads")
        .iter()
        .map(|found| format!("{}→{}", found.row.payload["from"], found.row.payload["to"]))
        .collect();
    assert_eq!(steps, ["null→\"pending\"", "\"pending\"→\"running\"", "\"running\"→\"completed\""]);
}

#[tokio::test]
async fn a_job_whose_call_was_not_taken_waits_again_and_its_attempt_is_used() {
    let (dir, journal) = fresh();
    let job = job("asr");
    journal.commit(accept(&job, &json!({}))).await.expect("accepted");
    let waits_again = |job: &JobRecord, attempt| {
        let write = Write::JobWaitsAgain { job_id: job.job_id.clone(), attempt };
        Commit::telling().write(write).row(rows::waits_again(job, "its worker died", Timestamp::now()))
    };
    let early = journal.commit(waits_again(&job, 0)).await.expect_err("it has not begun");
    assert_eq!(early.code(), "store.refused");
    let first = started(&job, 1);
    journal.commit(begin(&first, JobStatus::Pending)).await.expect("begun");
    assert_eq!(journal.commit(waits_again(&first, 2)).await.expect_err("another").code(), "store.refused");
    journal.commit(waits_again(&first, 1)).await.expect("it waits again");
    let reader = JournalReader::open(dir.path()).expect("opens");
    let found = reader.job(&job.job_id).expect("reads").expect("kept");
    assert_eq!((found.status, found.attempt, found.started_at), (JobStatus::Pending, 1, None));
    assert!(journal.commit(begin(&first, JobStatus::Pending)).await.is_err(), "its number is used");
    let second = started(&job, 2);
    journal.commit(begin(&second, JobStatus::Pending)).await.expect("begun again");
    // Somebody who knows only of the first attempt, such as a host that was taken for dead.
    let late = journal.commit(waits_again(&first, 1)).await.expect_err("it runs a second time");
    assert_eq!(late.code(), "store.refused");
    assert_eq!(reader.job(&job.job_id).expect("reads").expect("kept"), second);
    journal.commit(finish(&ended(&second, JobStatus::Completed), None)).await.expect("ended");
    let ended = journal.commit(waits_again(&second, 2)).await.expect_err("it has ended");
    assert_eq!(ended.code(), "store.refused");
}

#[tokio::test]
async fn a_commit_that_breaks_a_rule_is_refused_to_its_caller_alone() {
    let (dir, journal) = fresh();
    let first = run_through(&journal, JobStatus::Completed).await;
    let second = job("asr");
    let mut ended_again = started(&first, 2);
    ended_again.status = JobStatus::Failed;

    // Queued together, so that they share a transaction where the writer is quick enough to take them so.
    let before = last_seq(dir.path());
    let (good, terminal_twice, started_late, same_job, unknown) = tokio::join!(
        journal.commit(accept(&second, &json!({}))),
        journal.commit(finish(&ended_again, None)),
        journal.commit(begin(&started(&first, 2), JobStatus::Running)),
        journal.commit(accept(&first, &json!({}))),
        journal.commit(finish(&ended(&job("asr"), JobStatus::Failed), None)),
    );
    good.expect("innocent");
    for (name, outcome) in [
        ("a second end", terminal_twice),
        ("a start after the end", started_late),
        ("the same job again", same_job),
        ("an unknown job", unknown),
    ] {
        let error = outcome.expect_err(name);
        assert_eq!(error.code(), "store.refused", "{name}: {error}");
    }
    let reader = JournalReader::open(dir.path()).expect("opens");
    assert_eq!(reader.last_seq().expect("reads"), before + 1);
    assert_eq!(reader.job(&first.job_id).expect("reads"), Some(first));
    assert!(journal.gate().borrow().is_open(), "a row's own error is not the disk's");
}

#[tokio::test]
async fn a_second_terminal_row_is_refused_by_its_id_alone() {
    let (dir, journal) = fresh();
    let job = run_through(&journal, JobStatus::Cancelled).await;
    let again = rows::terminal(&job, JobStatus::Running);
    let error = journal.commit(Commit::telling().row(again)).await.expect_err("second");
    assert!(error.to_string().contains(&format!("{}:terminal", job.job_id)), "{error}");
    let reader = JournalReader::open(dir.path()).expect("opens");
    let terminal: Vec<_> = reader
        .history(&job.job_id)
        .expect("reads")
        .into_iter()
        .filter(|found| found.row.payload.contains_key("job_snapshot"))
        .collect();
    assert_eq!(terminal.len(), 1);
}

#[tokio::test]
async fn commits_share_transactions_and_each_is_whole() {
    let (dir, journal) = fresh();
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..2000 {
        let mut commit = Commit::telling();
        for part in 0..3 {
            commit = commit.row(account(&format!("job-{n}"), part));
        }
        if n % 10 == 0 {
            let twin = commit.rows[0].clone();
            commit = commit.row(twin);
        }
        let outcome = journal.commit(commit);
        waiting.spawn(async move { (n, outcome.await) });
    }
    while let Some(done) = waiting.join_next().await {
        let (n, outcome) = done.expect("no panic");
        match outcome {
            Ok(receipt) => assert_eq!(receipt.last_seq - receipt.first_seq, 2, "{n}: rows stand together"),
            Err(error) => assert!(n % 10 == 0 && error.code() == "store.refused", "{n}: {error}"),
        }
    }
    let reader = JournalReader::open(dir.path()).expect("opens");
    let all = reader.page(&JournalFilter::default(), 0, 10_000).expect("reads");
    assert_eq!(all.len(), 1800 * 3);
    for n in [0, 1] {
        let filter = JournalFilter { job: Some(format!("job-{n}")), ..JournalFilter::default() };
        assert_eq!(reader.page(&filter, 0, 10).expect("reads").len(), n * 3);
    }
}

#[tokio::test]
async fn large_bodies_become_files_and_read_back() {
    let (dir, journal) = fresh();
    let job = job("asr");
    let big = json!({"kwargs": {"text": "x".repeat(INLINE_BYTES_MAX)}});
    journal.commit(accept(&job, &big)).await.expect("accepted");
    let running = started(&job, 1);
    journal.commit(begin(&running, JobStatus::Pending)).await.expect("begun");
    let done = ended(&running, JobStatus::Completed);
    journal.commit(finish(&done, Some(&big))).await.expect("ended");

    let reader = JournalReader::open(dir.path()).expect("opens");
    let arguments = reader.arguments(&job.job_id).expect("reads").expect("kept");
    let result = reader.result(&job.job_id).expect("reads").expect("kept");
    assert!(matches!(arguments, Body::File { .. }));
    assert_eq!(arguments, result, "identical content is one file");
    assert_eq!(reader.load(&result).expect("reads"), big.to_string().into_bytes());
    assert_eq!(std::fs::read_dir(dir.path().join("payloads")).expect("folder").count(), 1);
}

#[tokio::test]
async fn too_much_in_one_commit_is_refused_before_it_is_queued() {
    let (_dir, journal) = fresh();
    let mut row = account("j", 0);
    row.payload.insert("text".into(), "x".repeat(commit::ROW_PAYLOAD_BYTES_MAX).into());
    let error = journal.commit(Commit::telling().row(row.clone())).await.expect_err("row");
    assert_eq!(error.code(), "store.too_large");
    row.payload.insert("text".into(), "x".repeat(commit::ROW_PAYLOAD_BYTES_MAX / 2).into());
    let many = (0..40).fold(Commit::telling(), |commit, _| commit.row(row.clone()));
    assert_eq!(journal.commit_detached(many).expect_err("commit").code(), "store.too_large");
}

#[tokio::test]
async fn detached_rows_are_written_in_order_before_a_later_commit() {
    let (dir, journal) = fresh();
    for n in 0..100 {
        journal.commit_detached(Commit::telling().row(account("j", n))).expect("queued");
    }
    journal.commit(Commit::telling()).await.expect("an empty commit is a barrier");
    let rows = JournalReader::open(dir.path()).expect("opens").last(&JournalFilter::default(), 1000);
    let parts: Vec<i64> = rows
        .expect("reads")
        .iter()
        .map(|found| found.row.payload["part"].as_i64().expect("number"))
        .collect();
    assert_eq!(parts, (0..100).collect::<Vec<_>>());
}

#[test]
fn threads_without_a_runtime_commit_too() {
    let (dir, journal) = fresh();
    let job = job("asr");
    let big = json!("x".repeat(INLINE_BYTES_MAX));
    journal.commit_blocking(accept(&job, &big)).expect("accepted");
    journal.close();
    journal.close();
    let error = journal.commit_blocking(Commit::telling()).expect_err("closed");
    assert_eq!(error.code(), "store.shut_down");
    let reader = JournalReader::open(dir.path()).expect("opens without a writer");
    assert_eq!(reader.job(&job.job_id).expect("reads"), Some(job));
}

#[tokio::test]
async fn filters_select_and_pages_continue() {
    let (dir, journal) = fresh();
    for n in 0..20 {
        let mut row = account(if n % 2 == 0 { "even" } else { "odd" }, n);
        row.run_id = Some(format!("run-{}", n % 4));
        row.composition_id = (n < 5).then(|| "comp".to_owned());
        row.worker_session_id = Some(format!("session-{}", n / 10));
        row.event_type = if n < 3 { EventType::CacheHit.as_str() } else { "later_type" }.to_owned();
        journal.commit(Commit::telling().row(row)).await.expect("written");
    }
    let reader = JournalReader::open(dir.path()).expect("opens");
    let parts = |rows: Vec<SeqRow>| -> Vec<i64> {
        rows.iter().map(|found| found.row.payload["part"].as_i64().expect("number")).collect()
    };
    let filter = |job: &str, run: &str, session: &str, composition: &str, kind: &str| {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        JournalFilter {
            job: some(job),
            run: some(run),
            session: some(session),
            composition: some(composition),
            event_types: some(kind).into_iter().collect(),
            ..JournalFilter::default()
        }
    };
    for (filter, expected) in [
        (filter("even", "run-0", "", "", ""), vec![0, 4, 8, 12, 16]),
        (filter("odd", "", "session-1", "", ""), vec![11, 13, 15, 17, 19]),
        (filter("", "", "", "comp", ""), vec![0, 1, 2, 3, 4]),
        (filter("", "", "", "comp", "later_type"), vec![3, 4]),
        (filter("", "run-1", "session-0", "", "cache_hit"), vec![1]),
        (filter("nobody", "", "", "", ""), vec![]),
    ] {
        assert_eq!(parts(reader.page(&filter, 0, 100).expect("reads")), expected, "{filter:?}");
        let tail = expected[expected.len().saturating_sub(2)..].to_vec();
        assert_eq!(parts(reader.last(&filter, 2).expect("reads")), tail, "{filter:?}");
    }
    let mut after = 0;
    let mut seen = Vec::new();
    loop {
        let page = reader.page(&JournalFilter::default(), after, 7).expect("reads");
        let Some(last) = page.last() else { break };
        after = last.seq;
        seen.extend(parts(page));
    }
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn jobs_are_listed_by_state_run_and_capability() {
    let (dir, journal) = fresh();
    let done = run_through(&journal, JobStatus::Completed).await;
    let mut waiting = job("ocr");
    waiting.run_id = Some(RunId::from_text("R"));
    waiting.idempotent = Some(false);
    waiting.element_index = Some(3);
    waiting.control = Map::from_iter([("force".to_owned(), json!(true))]);
    journal.commit(accept(&waiting, &json!({}))).await.expect("accepted");
    let reader = JournalReader::open(dir.path()).expect("opens");
    let ids = |filter: JobFilter| -> Vec<JobId> {
        reader.jobs(&filter, 0, 10).expect("reads").into_iter().map(|found| found.job.job_id).collect()
    };
    let all = JobFilter::default();
    assert_eq!(ids(all.clone()), [done.job_id.clone(), waiting.job_id.clone()]);
    let pending = JobFilter { statuses: vec![JobStatus::Pending, JobStatus::Running], ..all.clone() };
    assert_eq!(ids(pending), std::slice::from_ref(&waiting.job_id));
    assert_eq!(
        ids(JobFilter { run: Some("R".into()), ..all.clone() }),
        std::slice::from_ref(&waiting.job_id)
    );
    assert_eq!(ids(JobFilter { capability: Some("asr".into()), ..all.clone() }), [done.job_id]);
    let last = reader.last_jobs(&all, 1).expect("reads");
    assert_eq!(last[0].job, waiting);
    assert_eq!(reader.jobs(&all, last[0].seq, 10).expect("reads"), []);
}

#[tokio::test]
async fn compositions_keep_their_document_inputs_and_output() {
    let (dir, journal) = fresh();
    let composition = composition("c");
    let id = composition.composition_id.clone();
    let (document, inputs) = (Body::of_json(&json!({"name": "c"})), Body::of_json(&json!({"files": []})));
    let insert = Write::InsertComposition(Box::new(composition.clone()), document.clone(), inputs.clone());
    let started = rows::composition_started(&composition);
    journal.commit(Commit::admitting().write(insert).row(started)).await.expect("accepted");
    journal.commit(Commit::telling().write(Write::StartComposition(id.clone()))).await.expect("started");
    let again = journal.commit(Commit::telling().write(Write::StartComposition(id.clone()))).await;
    assert_eq!(again.expect_err("started before").code(), "store.refused");
    let end = CompositionEnd {
        composition_id: id.clone(),
        status: JobStatus::Completed,
        completed_at: Timestamp::from_micros(5_000_000),
        failure: None,
        output: Some(Body::of_json(&json!([1, 2]))),
    };
    let row = rows::composition_finished(&composition, &end);
    journal
        .commit(Commit::telling().write(Write::EndComposition(Box::new(end))).row(row))
        .await
        .expect("ended");
    let reader = JournalReader::open(dir.path()).expect("opens");
    let found = reader.composition(&id).expect("reads").expect("there");
    assert_eq!(
        (found.status, found.completed_at),
        (JobStatus::Completed, Some(Timestamp::from_micros(5_000_000)))
    );
    for (kind, expected) in [
        (CompositionBody::Document, document),
        (CompositionBody::Inputs, inputs),
        (CompositionBody::Output, Body::of_json(&json!([1, 2]))),
    ] {
        assert_eq!(reader.composition_body(&id, kind).expect("reads"), Some(expected));
    }
    assert_eq!(reader.composition(&CompositionId::from_text("no")).expect("reads"), None);
}

#[tokio::test]
async fn files_are_private_from_the_start_even_where_the_ancestor_made_them_public() {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::write(dir.path().join(JOURNAL_FILE), "").expect("made public");
    let public = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(dir.path().join(JOURNAL_FILE), public).expect("made public");
    let journal = open(dir.path());
    run_through(&journal, JobStatus::Completed).await;
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        let mode = std::fs::metadata(dir.path().join(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_directory_where_nothing_ran_says_so() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for path in [dir.path().to_owned(), dir.path().join("not/there")] {
        let error = JournalReader::open(&path).expect_err("nothing");
        assert_eq!(error.code(), "store.nothing_yet");
        assert!(error.to_string().contains(&path.join(JOURNAL_FILE).display().to_string()), "{error}");
    }
    std::fs::write(dir.path().join(JOURNAL_FILE), "this is no database, whatever it is called")
        .expect("written");
    let error = JournalReader::open(dir.path()).expect_err("garbage");
    assert_eq!(error.code(), "store.damaged");
    let error = SqliteJournal::open(dir.path(), JournalOptions::default()).expect_err("garbage");
    assert_eq!(error.code(), "store.damaged");
}

#[tokio::test]
async fn subscribers_get_rows_after_their_commit_and_the_slow_are_told_what_they_missed() {
    let (dir, journal) = fresh();
    journal.commit(Commit::telling().row(account("j", 0))).await.expect("before the subscription");
    let mut quick = journal.subscribe();
    let mut slow = journal.subscribe();
    assert_eq!(quick.seen_seq(), 1);
    journal.announce(account("live", 0));
    assert!(matches!(quick.next().await, Some(Event::Live(row)) if row.job_id.as_deref() == Some("live")));
    let total = events::SUBSCRIBER_EVENTS_MAX as i64 + 500;
    for n in 1..=total {
        journal.commit_detached(Commit::telling().row(account("j", n))).expect("queued");
        let Some(Event::Row { seq, row }) = quick.next().await else { panic!("closed") };
        assert_eq!((seq, row.payload["part"].as_i64()), (n + 1, Some(n)));
    }
    let Some(Event::Lost { count, after_seq }) = slow.next().await else { panic!("not told") };
    assert_eq!((count, after_seq), (501, 1), "500 rows and one live event");
    let reader = JournalReader::open(dir.path()).expect("opens");
    let Some(Event::Row { seq, .. }) = slow.next().await else { panic!("closed") };
    let missed = reader.page(&JournalFilter::default(), after_seq, 10_000).expect("reads");
    assert_eq!(missed.iter().filter(|found| found.seq < seq).count(), 500);
    journal.close();
}

#[tokio::test]
async fn a_job_ends_once_also_without_a_row() {
    let (dir, journal) = fresh();
    let job = job("asr");
    journal.commit(accept(&job, &json!({}))).await.expect("accepted");
    let end = |status| {
        Commit::telling().write(Write::EndJob(Box::new(JobEnd {
            job_id: job.job_id.clone(),
            status,
            completed_at: Timestamp::now(),
            failure: None,
            result: None,
        })))
    };
    journal.commit(end(JobStatus::Cancelled)).await.expect("ended");
    let error = journal.commit(end(JobStatus::Completed)).await.expect_err("a second time");
    assert_eq!(error.code(), "store.refused");
    let reader = JournalReader::open(dir.path()).expect("opens");
    let kept = reader.job(&job.job_id).expect("reads").expect("there");
    assert_eq!(kept.status, JobStatus::Cancelled);
}
