//! How long jobs are kept: their records, arguments, results, compositions, large bodies, and what is known of hosts and
//! workers that ended; also what programs left in their calls' directories. The journal's rows are not touched.
//!
//! What must hold: nothing unfinished goes, nor a job whose composition is unfinished while a host runs; each turn is one
//! short transaction; a body's file goes only when no record names it and nobody used it a moment ago.

use crate::error::StoreError;
use crate::lent_reserve::with_reserve;
use crate::payload::{Hidden, Names, Payloads};
use crate::retention::{cutoff, give_back};
use crate::room::{SMALL_DISK_BYTES, available};
use crate::schema::{Durability, JOURNAL_FILE, open_journal};
use crate::work_dirs;
use cjm_platform::files::open_regular;
use cjm_platform::lock::is_folder_of_host_held;
use cjm_wire::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// How many days jobs are kept where nobody says otherwise.
pub const JOBS_DAYS_DEFAULT: f64 = 30.0;
/// Jobs or compositions that one transaction looks at; hosts or workers that it removes.
const TURN_ROWS: i64 = 64;
/// A body's file is left alone for so long after its last use: a commit that names it may be on its way. One that waits for
/// longer says so again.
pub(crate) const PAYLOAD_REST: Duration = Duration::from_secs(3600);
/// Held by a host while it runs.
const HOST_LOCK_FILE: &str = "host.lock";
/// The times of files are coarser than those of the clock.
const CLOCK_GRAIN: Duration = Duration::from_millis(100);
/// Free pages of the journal that one transaction gives back to a small disk: each may be another that moves.
const TIGHT_VACUUM_PAGES: i64 = 8;
/// Files of bodies that one turn looks at.
const TURN_FILES: usize = 256;
/// How often a host looks for what is old.
const LOOK_INTERVAL: Duration = Duration::from_secs(3600);
/// The pause between two turns, in which others write.
const TURN_INTERVAL: Duration = Duration::from_millis(100);

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForgottenJobs {
    /// Jobs, with arguments and results.
    pub jobs: u64,
    /// Compositions, with documents, inputs and outputs.
    pub compositions: u64,
    /// Files of large bodies.
    pub files: u64,
    /// Bytes in those files.
    pub file_bytes: u64,
    /// Directories in which calls of programs ran.
    pub work_dirs: u64,
    /// Bytes in those directories.
    pub work_bytes: u64,
    /// Such directories that could not be removed, each with the reason.
    pub work_dirs_left: Vec<(PathBuf, String)>,
    /// Runs and jobs that have no end, and stay.
    pub unfinished: u64,
    /// How much of the journal's file is free for new rows.
    pub free_bytes: u64,
}

/// Forgets jobs and compositions of `data_dir` that ended more than `days` ago. Works beside a host, and on a full disk in
/// the room of the reserve. Blocks.
///
/// # Errors
/// [`StoreError::NothingYet`] when there is no journal; others when it cannot be read or written.
pub fn forget_jobs(data_dir: &Path, days: f64) -> Result<ForgottenJobs, StoreError> {
    let path = data_dir.join(JOURNAL_FILE);
    if !path.exists() {
        return Err(StoreError::NothingYet { path });
    }
    with_reserve(data_dir, || forget_all(data_dir, days))
}

fn forget_all(data_dir: &Path, days: f64) -> Result<ForgottenJobs, StoreError> {
    let connection = open_journal(data_dir, Durability::Process)?;
    let mut keeping = Keeping { rest: rest_of_bodies(data_dir), ..Keeping::new(data_dir, days) };
    let failed = |error| StoreError::database_of("forget old jobs of", &connection, &error);
    while !keeping.turn(&connection).map_err(failed)? {
        // A log of many turns would need as much room as what goes.
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(failed)?;
    }
    let before = keeping.oldest_needed(&connection).map_err(failed)?;
    let work_dirs::Gone { directories, bytes, left } = work_dirs::forget(data_dir, before);
    if available(data_dir).is_some_and(|bytes| bytes < SMALL_DISK_BYTES)
        && let Err(error) = give_back(&connection, TIGHT_VACUUM_PAGES)
    {
        tracing::debug!(%error, "what is free in the journal stays there");
    }
    let count = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(failed);
    let unfinished = count(
        "SELECT (SELECT COUNT(*) FROM jobs WHERE status IN ('pending', 'running')) \
         + (SELECT COUNT(*) FROM compositions WHERE status IN ('pending', 'running'))",
    )?;
    let free = count("PRAGMA freelist_count")?.saturating_mul(count("PRAGMA page_size")?);
    Ok(ForgottenJobs {
        work_dirs: directories,
        work_bytes: bytes,
        work_dirs_left: left,
        unfinished: unfinished.unsigned_abs(),
        free_bytes: free.unsigned_abs(),
        ..keeping.forgotten
    })
}

/// Since when a body's file must not have been used to go. Where no host runs, no commit that names it is on its way; a
/// host that starts from here on says so of what it uses.
fn rest_of_bodies(data_dir: &Path) -> Rest {
    // Asked as whoever only wants to know who runs asks; a host that starts waits for that.
    let lock = open_regular(&data_dir.join(HOST_LOCK_FILE));
    if lock.is_ok_and(|lock| lock.try_lock_shared().is_ok()) && !is_folder_of_host_held(data_dir) {
        Rest::Since(Instant::now())
    } else {
        Rest::For(PAYLOAD_REST)
    }
}

/// How long a body's file must have been left alone.
#[derive(Debug, Clone, Copy)]
enum Rest {
    For(Duration),
    /// Since that instant, when no host ran.
    Since(Instant),
}

impl Rest {
    fn duration(self) -> Duration {
        match self {
            Self::For(duration) => duration,
            Self::Since(instant) => instant.elapsed() + CLOCK_GRAIN,
        }
    }
}

/// Where a sweep stands, turn by turn.
#[derive(Debug)]
pub(crate) struct Keeping {
    data_dir: PathBuf,
    payloads: Payloads,
    days: f64,
    cutoff: Timestamp,
    step: Step,
    forgotten: ForgottenJobs,
    due: Instant,
    rest: Rest,
}

#[derive(Debug)]
enum Step {
    /// After this place.
    Jobs(i64),
    /// After this place.
    Compositions(i64),
    /// Hosts and workers that ended.
    Ended,
    /// Files that no record names, from here on.
    Bodies(Names),
}

/// Records of one turn and the bodies they named.
#[derive(Debug, Default)]
struct Turn {
    gone: u64,
    last_seq: Option<i64>,
    hashes: BTreeSet<String>,
}

impl Keeping {
    pub(crate) fn new(data_dir: &Path, days: f64) -> Self {
        let (cutoff, due) = (cutoff(days), Instant::now());
        let (data_dir, payloads) = (data_dir.to_owned(), Payloads::of(data_dir));
        Self {
            data_dir,
            payloads,
            days,
            cutoff,
            step: Step::Jobs(0),
            forgotten: ForgottenJobs::default(),
            due,
            rest: Rest::For(PAYLOAD_REST),
        }
    }

    /// When the next turn is to be.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// No turn for a while.
    pub(crate) fn put_off(&mut self) {
        self.due = Instant::now() + LOOK_INTERVAL;
    }

    /// One turn, if it is time for one. For the writer, between two transactions.
    pub(crate) fn turn_if_due(&mut self, connection: &Connection) {
        if Instant::now() < self.due {
            return;
        }
        self.due = Instant::now() + TURN_INTERVAL;
        match self.turn(connection) {
            Ok(false) => {}
            Ok(true) => {
                if self.forgotten != ForgottenJobs::default() {
                    tracing::info!(forgotten = ?self.forgotten, "forgot old jobs");
                }
                self.forget_work_dirs(connection);
                *self = Self::new(&self.data_dir, self.days);
                self.due += LOOK_INTERVAL;
            }
            Err(error) => {
                tracing::warn!(%error, "old jobs could not be forgotten");
                self.due += LOOK_INTERVAL;
            }
        }
    }

    /// Beside the writer: there may be much in them. A process that ends meanwhile leaves the rest to the next.
    fn forget_work_dirs(&self, connection: &Connection) {
        let Ok(before) = self.oldest_needed(connection) else { return };
        let data_dir = self.data_dir.clone();
        let thread = std::thread::Builder::new().name("cjm-forget".to_owned()).spawn(move || {
            let gone = work_dirs::forget(&data_dir, before);
            if gone != work_dirs::Gone::default() {
                tracing::info!(?gone, "forgot old directories of calls");
            }
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "old directories of calls could not be forgotten");
        }
    }

    /// What was left before that, nobody needs: older than the cutoff, and than anything unfinished, which may still read it.
    fn oldest_needed(&self, connection: &Connection) -> rusqlite::Result<SystemTime> {
        let unfinished = "SELECT MIN(submitted_at) FROM (\
             SELECT submitted_at FROM jobs WHERE status IN ('pending', 'running') UNION ALL \
             SELECT submitted_at FROM compositions WHERE status IN ('pending', 'running'))";
        let oldest: Option<String> = connection.query_row(unfinished, [], |row| row.get(0))?;
        let oldest = oldest.map(|text| Timestamp::from_text(&text)).filter(|oldest| *oldest < self.cutoff);
        let micros = oldest.unwrap_or_else(|| self.cutoff.clone()).as_micros().unwrap_or_default();
        Ok(SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or_default()))
    }

    /// Does a little; true when nothing is left to do.
    fn turn(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        match &mut self.step {
            &mut Step::Jobs(after) => {
                let turn = one_transaction(connection, || self.old_jobs(connection, after))?;
                self.forgotten.jobs += turn.gone;
                self.remove_unnamed(connection, &turn.hashes)?;
                self.step = turn.last_seq.map_or(Step::Compositions(0), Step::Jobs);
            }
            &mut Step::Compositions(after) => {
                let turn = one_transaction(connection, || self.old_compositions(connection, after))?;
                self.forgotten.compositions += turn.gone;
                self.remove_unnamed(connection, &turn.hashes)?;
                self.step = turn.last_seq.map_or(Step::Ended, Step::Compositions);
            }
            Step::Ended => {
                if one_transaction(connection, || self.ended(connection))? == 0 {
                    self.step = Step::Bodies(self.payloads.names());
                }
            }
            Step::Bodies(names) => {
                let some = names.next_of(TURN_FILES);
                self.remove_unnamed(connection, &some)?;
                return Ok(some.is_empty());
            }
        }
        Ok(false)
    }

    /// Jobs stand in the order of acceptance: the first one accepted after the cutoff ends the search.
    fn old_jobs(&self, connection: &Connection, after: i64) -> rusqlite::Result<Turn> {
        let mut select = connection.prepare_cached(
            "SELECT seq, job_id, submitted_at, completed_at < ?2 AND NOT EXISTS (SELECT 1 FROM compositions \
             WHERE compositions.composition_id = jobs.composition_id AND status IN ('pending', 'running')), \
             completed_at < ?2 FROM jobs WHERE seq > ?1 ORDER BY seq LIMIT ?3",
        )?;
        let mut turn = Turn::default();
        // Where no host runs, nobody goes on with a composition: its results alone may be what fills the disk.
        let is_old_column = if matches!(self.rest, Rest::Since(_)) { 4 } else { 3 };
        for (seq, job, submitted_at, is_old) in old_rows(&mut select, after, &self.cutoff, is_old_column)? {
            if submitted_at.as_str() >= self.cutoff.as_str() {
                return Ok(Turn { last_seq: None, ..turn });
            }
            turn.last_seq = Some(seq);
            if is_old {
                for table in ["arguments", "results"] {
                    let named = format!("SELECT payload_hash FROM {table} WHERE job_id = ?1");
                    let hash: Option<Option<String>> =
                        connection.prepare_cached(&named)?.query_row([&job], |row| row.get(0)).optional()?;
                    turn.hashes.extend(hash.flatten());
                    let delete = format!("DELETE FROM {table} WHERE job_id = ?1");
                    connection.prepare_cached(&delete)?.execute([&job])?;
                }
                connection.prepare_cached("DELETE FROM jobs WHERE job_id = ?1")?.execute([&job])?;
                turn.gone += 1;
            }
        }
        Ok(turn)
    }

    /// Removes some of the hosts and workers that ended; how many.
    fn ended(&self, connection: &Connection) -> rusqlite::Result<usize> {
        let mut gone = 0;
        for table in ["workers", "hosts"] {
            let delete = format!(
                "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE ended_at < ?1 LIMIT ?2)"
            );
            gone += connection.prepare_cached(&delete)?.execute(params![self.cutoff.as_str(), TURN_ROWS])?;
        }
        Ok(gone)
    }

    fn old_compositions(&self, connection: &Connection, after: i64) -> rusqlite::Result<Turn> {
        let mut select = connection.prepare_cached(
            "SELECT seq, composition_id, submitted_at, completed_at < ?2 AND NOT EXISTS (SELECT 1 FROM jobs \
             WHERE jobs.composition_id = compositions.composition_id) \
             FROM compositions WHERE seq > ?1 ORDER BY seq LIMIT ?3",
        )?;
        let mut turn = Turn::default();
        for (seq, id, submitted_at, is_old) in old_rows(&mut select, after, &self.cutoff, 3)? {
            if submitted_at.as_str() >= self.cutoff.as_str() {
                return Ok(Turn { last_seq: None, ..turn });
            }
            turn.last_seq = Some(seq);
            if is_old {
                let mut named = connection.prepare_cached(
                    "SELECT payload_hash FROM composition_bodies WHERE composition_id = ?1",
                )?;
                for hash in named.query_map([&id], |row| row.get::<_, Option<String>>(0))? {
                    turn.hashes.extend(hash?);
                }
                for table in ["composition_bodies", "compositions"] {
                    let delete = format!("DELETE FROM {table} WHERE composition_id = ?1");
                    connection.prepare_cached(&delete)?.execute([&id])?;
                }
                turn.gone += 1;
            }
        }
        Ok(turn)
    }

    /// Removes the files of those bodies that no record names any more.
    fn remove_unnamed(&mut self, connection: &Connection, hashes: &BTreeSet<String>) -> rusqlite::Result<()> {
        for hash in hashes {
            if is_named(connection, hash)? || !self.payloads.was_left_alone(hash, self.rest.duration()) {
                continue;
            }
            // Out of sight first: who uses it from here on finds it missing, and writes it again.
            let Some(hidden) = self.payloads.hide(hash) else { continue };
            self.remove_hidden(connection, hash, &hidden)?;
        }
        Ok(())
    }

    /// Removes the file of a body that is out of sight, unless somebody used or named it just before. One of which that is
    /// not known comes back: what is hidden goes when the store is next opened.
    fn remove_hidden(
        &mut self,
        connection: &Connection,
        hash: &str,
        hidden: &Hidden,
    ) -> rusqlite::Result<()> {
        let named = is_named(connection, hash);
        if !matches!(named, Ok(false)) || !hidden.was_left_alone(self.rest.duration()) {
            hidden.put_back();
            return named.map(drop);
        }
        if let Some(bytes) = hidden.remove() {
            self.forgotten.files += 1;
            self.forgotten.file_bytes += bytes;
        }
        Ok(())
    }
}

/// Place, id, time of acceptance, and whether it may go.
type OldRow = (i64, String, String, bool);

fn old_rows(
    select: &mut rusqlite::Statement<'_>,
    after: i64,
    cutoff: &Timestamp,
    is_old_column: usize,
) -> rusqlite::Result<Vec<OldRow>> {
    let rows = select.query_map(params![after, cutoff.as_str(), TURN_ROWS], |row| {
        Ok((
            row.get(0)?,
            row.get(1)?,
            row.get(2)?,
            row.get::<_, Option<bool>>(is_old_column)?.unwrap_or_default(),
        ))
    })?;
    rows.collect()
}

fn is_named(connection: &Connection, hash: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM arguments WHERE payload_hash = ?1) \
             OR EXISTS (SELECT 1 FROM results WHERE payload_hash = ?1) \
             OR EXISTS (SELECT 1 FROM composition_bodies WHERE payload_hash = ?1)",
        )?
        .query_row([hash], |row| row.get(0))
}

fn one_transaction<T>(
    connection: &Connection,
    work: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let done = work().and_then(|value| connection.execute_batch("COMMIT").map(|()| value));
    if done.is_err() && !connection.is_autocommit() {
        // The first error says what is wrong.
        let _ = connection.execute_batch("ROLLBACK");
    }
    done
}

#[cfg(test)]
#[path = "keeping_tests.rs"]
mod tests;
