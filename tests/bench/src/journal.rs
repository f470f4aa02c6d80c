//! Rows of the journal a second, through the store and by a bare inserter, in turns on one and the same file.

use crate::bare::{self, Inserter};
use crate::measure::Pair;
use crate::row::{Goal, Row, Unit};
use anyhow::{Context as _, Result};
use cjm_host::wire::event::{EventType, JournalRow};
use cjm_store::{Commit, JOURNAL_FILE, Journal, JournalOptions, SqliteJournal};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Map, Value};
use std::path::Path;
use std::time::Instant;

/// Rows of one turn of one side.
const TURN_ROWS: usize = 50_000;
/// Commits of one row that wait at once: enough that no transaction holds fewer than [`BATCH_ROWS`].
const WAITING: usize = 1024;
/// Rows in one transaction: the bare inserter's, and the store's when it is busy.
const BATCH_ROWS: usize = 256;

/// Rows against a bare inserter, on a file that already holds `filled` rows.
pub(crate) fn rows(rounds: usize, filled: usize, name: &str) -> Result<Vec<Row>> {
    let dir = tempfile::Builder::new().prefix("cjm-bench-").tempdir()?;
    // The store makes its own tables; the bare inserter then has the same ones.
    SqliteJournal::open(dir.path(), JournalOptions::default())?.close();
    let file = dir.path().join(JOURNAL_FILE);
    let mut inserter = Inserter::open(&file)?;
    let mut left = filled.saturating_sub(TURN_ROWS);
    while left > 0 {
        let turn = left.min(TURN_ROWS);
        inserter.insert(&made(turn), BATCH_ROWS)?;
        left -= turn;
    }
    drop(inserter);
    let mut pairs = Vec::new();
    for round in 0..rounds {
        // Who goes first changes, so that neither side always pays for what the other left in the log.
        let pair = if round % 2 == 0 {
            let store = through_the_store(dir.path())?;
            (store, by_hand(&file)?)
        } else {
            let bare = by_hand(&file)?;
            (through_the_store(dir.path())?, bare)
        };
        pairs.push(pair);
    }
    let what = format!("journal rows, {name} rows in it, batches of 256");
    Ok(vec![Row::against(
        what,
        Unit::PerSecond,
        &Pair::of(&pairs),
        "bare inserter, same schema, ids, batches",
        Goal::RatioMin(0.6),
    )])
}

fn through_the_store(dir: &Path) -> Result<f64> {
    let rows = made(TURN_ROWS);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let journal = SqliteJournal::open(dir, JournalOptions::default())?;
    let start = Instant::now();
    runtime.block_on(async {
        let mut waiting = FuturesUnordered::new();
        for row in rows {
            if waiting.len() >= WAITING {
                waiting.next().await.context("nothing waits")??;
            }
            waiting.push(journal.commit(Commit::telling().row(row)));
        }
        while let Some(written) = waiting.next().await {
            written?;
        }
        anyhow::Ok(())
    })?;
    let rate = bare::rate(TURN_ROWS, start.elapsed());
    journal.close();
    Ok(rate)
}

fn by_hand(file: &Path) -> Result<f64> {
    let rows = made(TURN_ROWS);
    let mut inserter = Inserter::open(file)?;
    let start = Instant::now();
    inserter.insert(&rows, BATCH_ROWS)?;
    Ok(bare::rate(TURN_ROWS, start.elapsed()))
}

/// Rows as jobs leave them: every fourth one tells of another job.
fn made(count: usize) -> Vec<JournalRow> {
    let run = cjm_host::wire::RunId::new().to_string();
    let session = cjm_host::wire::WorkerSessionId::new().to_string();
    let mut job = String::new();
    (0..count)
        .map(|n| {
            if n % 4 == 0 {
                job = cjm_host::wire::JobId::new().to_string();
            }
            let mut payload = Map::new();
            payload.insert("from".to_owned(), Value::String("pending".to_owned()));
            payload.insert("to".to_owned(), Value::String("running".to_owned()));
            payload.insert("attempt".to_owned(), Value::from(1));
            let mut row = JournalRow::new(EventType::StateTransition, payload);
            row.run_id = Some(run.clone());
            row.job_id = Some(job.clone());
            row.capability_instance_id = Some("asr-1".to_owned());
            row.capability_name = Some("asr".to_owned());
            row.worker_session_id = Some(session.clone());
            row.actor = Some("host:bench".to_owned());
            row
        })
        .collect()
}
