//! Moves old rows of the journal into files of their own, below `archives/`: the ancestor's `journal` table in its exact
//! form, so that our readers and the ancestor's open them.
//!
//! What must hold: at every instant a row is in an archive or in the journal, or in both; never in neither. An archive is
//! whole before it has its name, and is never written again; rows leave the journal after that, and only those that were
//! found in it. Rows that stand in both after a crash are told once: they have the same place and id. What is written while
//! an archive is made stays in the journal, also where the row it ends is younger than that: no archive holds the death of
//! a worker whose beginning is still in the journal.

use crate::error::{NOT_OURS, StoreError};
use crate::query::{ROW_COLUMNS, last_seq};
use crate::schema::{Durability, JOURNAL_FILE, JOURNAL_TABLES, create_private, open_journal};
use cjm_platform::files::open_to_lock;
use cjm_wire::Timestamp;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OpenFlags, params, params_from_iter};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Folder of the archives in the data directory.
pub const ARCHIVES_DIR: &str = "archives";
/// Rows of one transaction.
const BATCH_ROWS: i64 = 500;
/// Held by whoever makes an archive.
const LOCK_FILE: &str = "lock";
/// How the name of an archive ends, and of one that is being made.
const ENDING: &str = "db";
const UNFINISHED_ENDING: &str = "new";
/// How the name of SQLite's own journal ends beside one that is being made.
const JOURNAL_OF_UNFINISHED_ENDING: &str = "new-journal";

/// What was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// Rows that left the journal.
    pub rows: u64,
    /// The file they are in; it was not made when there were none.
    pub path: PathBuf,
}

/// Moves the rows of `data_dir`'s journal that are older than `before` into a new file `archives/journal-before-….db`.
/// Rows of unfinished jobs and compositions and of living workers stay. Works beside a host. May be repeated, also after
/// it was cut off. Blocks.
///
/// # Errors
/// [`StoreError::NothingYet`] when there is no journal, [`StoreError::Refused`] when `before` is no instant,
/// [`StoreError::Busy`] when somebody else makes an archive now; others when a file cannot be read or written, and then nothing was moved, or what was moved
/// is in an archive.
pub fn archive_journal(data_dir: &Path, before: &Timestamp) -> Result<Archived, StoreError> {
    let journal_path = data_dir.join(JOURNAL_FILE);
    if !journal_path.exists() {
        return Err(StoreError::NothingYet { path: journal_path });
    }
    let micros = before
        .as_micros()
        .ok_or_else(|| StoreError::Refused { what: format!("`{before}` is no instant") })?;
    let before = Timestamp::from_micros(micros);
    let folder = data_dir.join(ARCHIVES_DIR);
    let journal = open_journal(data_dir, Durability::Process)?;
    let last = last_seq(&journal)?;
    let mut batch = old_rows(&journal, &before, 0, last)?;
    if batch.is_empty() {
        if folder.is_dir() {
            // Who was killed may have left something. Somebody who is at it now sees to that, and nothing is lost by it.
            drop(take_turn(&folder));
        }
        return Ok(Archived { rows: 0, path: folder.join(file_name(&before, 1)) });
    }
    let _turn = take_turn(&folder)?;
    let unfinished = folder.join(file_name(&before, 1)).with_extension(UNFINISHED_ENDING);
    let mut archive = open_new(&folder, &unfinished)?;
    let copied = (|| {
        while let Some(Row { seq, .. }) = batch.last() {
            let after_seq = *seq;
            copy(&mut archive, &batch, &unfinished)?;
            batch = old_rows(&journal, &before, after_seq, last)?;
        }
        name(&folder, &unfinished, &before)
    })();
    let path = copied.inspect_err(|_| drop(fs::remove_file(&unfinished)))?;
    let rows = leave(&journal, &archive)
        .map_err(|error| StoreError::database_of("take rows out of", &journal, &error))?;
    Ok(Archived { rows, path })
}

/// The archives of `data_dir`, oldest first.
///
/// # Errors
/// When their folder is there and cannot be read.
pub fn archives(data_dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let folder = data_dir.join(ARCHIVES_DIR);
    let listed = fs::read_dir(&folder).and_then(|files| {
        files.map(|file| file.map(|file| file.path())).collect::<io::Result<Vec<PathBuf>>>()
    });
    let mut paths = match listed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(|error| StoreError::file("read", &folder, &error))?,
    };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == ENDING));
    paths.sort_by_cached_key(|path| age(path));
    Ok(paths)
}

/// What archives are ordered by: of one instant there may be several, the first of which has no number in its name.
fn age(path: &Path) -> (String, u64, PathBuf) {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    // An instant is no number.
    let numbered = name.rsplit_once('-').and_then(|(first, number)| Some((first, number.parse().ok()?)));
    let (first, number) = numbered.unwrap_or((&*name, 1));
    (first.to_owned(), number, path.to_owned())
}

/// One row, column by column.
struct Row {
    seq: i64,
    columns: Vec<Sql>,
}

fn file_name(before: &Timestamp, number: u32) -> String {
    // To the second: `20261029T080738`.
    let instant: String = before.as_str().chars().take(19).filter(char::is_ascii_alphanumeric).collect();
    match number {
        1 => format!("journal-before-{instant}.{ENDING}"),
        _ => format!("journal-before-{instant}-{number}.{ENDING}"),
    }
}

/// Keeps others from making an archive until the file is closed; its holder's death lets go of it. What somebody who died
/// left half made goes.
fn take_turn(folder: &Path) -> Result<File, StoreError> {
    fs::create_dir_all(folder).map_err(|error| StoreError::file("create", folder, &error))?;
    let path = folder.join(LOCK_FILE);
    if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
        return Err(StoreError::File { doing: "lock", path, message: NOT_OURS.to_owned() });
    }
    let lock = open_to_lock(&path).map_err(|error| StoreError::file("open", &path, &error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let what = format!("somebody else is making an archive in {} now", folder.display());
            return Err(StoreError::Busy { what });
        }
        Err(TryLockError::Error(error)) => return Err(StoreError::file("lock", &path, &error)),
    }
    let left = fs::read_dir(folder).map_err(|error| StoreError::file("read", folder, &error))?;
    for path in left.flatten().map(|entry| entry.path()) {
        // SQLite would take the journal of one for that of the next one with its name.
        if path
            .extension()
            .is_some_and(|ending| ending == UNFINISHED_ENDING || ending == JOURNAL_OF_UNFINISHED_ENDING)
        {
            fs::remove_file(&path).map_err(|error| StoreError::file("remove", &path, &error))?;
        }
    }
    Ok(lock)
}

/// Gives an archive that is whole, and on disk, its name. A file of that name is another archive.
fn name(folder: &Path, unfinished: &Path, before: &Timestamp) -> Result<PathBuf, StoreError> {
    let names = (1..).map(|number| folder.join(file_name(before, number)));
    let path = names.into_iter().find(|path| fs::symlink_metadata(path).is_err());
    let path = path.unwrap_or_else(|| unfinished.with_extension(ENDING));
    let named = fs::rename(unfinished, &path).and_then(|()| File::open(folder)?.sync_all());
    named.map_err(|error| StoreError::file("name", &path, &error))?;
    Ok(path)
}

fn old_rows(
    journal: &Connection,
    before: &Timestamp,
    after_seq: i64,
    last_seq: i64,
) -> Result<Vec<Row>, StoreError> {
    select_old_rows(journal, before, after_seq, last_seq)
        .map_err(|error| StoreError::database_of("read", journal, &error))
}

fn select_old_rows(
    journal: &Connection,
    before: &Timestamp,
    after_seq: i64,
    last_seq: i64,
) -> rusqlite::Result<Vec<Row>> {
    let sql = format!(
        "SELECT {ROW_COLUMNS} FROM journal WHERE seq > ?1 AND ts < ?2 AND seq <= ?4 \
         AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.job_id = journal.job_id \
                         AND status IN ('pending', 'running')) \
         AND NOT EXISTS (SELECT 1 FROM compositions AS c WHERE c.composition_id = journal.composition_id \
                         AND status IN ('pending', 'running')) \
         AND NOT EXISTS (SELECT 1 FROM workers AS w WHERE w.worker_session_id = journal.worker_session_id \
                         AND w.ended_at IS NULL) \
         ORDER BY seq LIMIT ?3"
    );
    let mut select = journal.prepare_cached(&sql)?;
    let count = select.column_count();
    let rows = select.query_map(params![after_seq, before.as_str(), BATCH_ROWS, last_seq], |row| {
        let columns = (0..count).map(|column| row.get(column)).collect::<rusqlite::Result<Vec<Sql>>>()?;
        Ok(Row { seq: row.get(0)?, columns })
    })?;
    rows.collect()
}

/// Its journal mode is SQLite's own, so that one file is all of it; what was written is on disk when it is committed.
fn open_new(folder: &Path, path: &Path) -> Result<Connection, StoreError> {
    create_private(folder, path)?;
    let failed = |error: rusqlite::Error| StoreError::database_at("open", path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let archive = Connection::open_with_flags(path, flags).map_err(failed)?;
    archive.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    archive.execute_batch(JOURNAL_TABLES).map_err(failed)?;
    Ok(archive)
}

fn copy(archive: &mut Connection, batch: &[Row], path: &Path) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| StoreError::database_at("write", path, &error);
    let marks = vec!["?"; ROW_COLUMNS.split(',').count()].join(",");
    let insert = format!("INSERT INTO journal ({ROW_COLUMNS}) VALUES ({marks})");
    let transaction = archive.transaction().map_err(failed)?;
    for row in batch {
        transaction
            .prepare_cached(&insert)
            .and_then(|mut insert| insert.execute(params_from_iter(&row.columns)))
            .map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

/// Takes what stands in the archive out of the journal. A place is never given to another row.
fn leave(journal: &Connection, archive: &Connection) -> rusqlite::Result<u64> {
    let mut select = archive.prepare("SELECT seq FROM journal WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
    let (mut gone, mut after_seq) = (0, 0);
    loop {
        let found = select.query_map(params![after_seq, BATCH_ROWS], |row| row.get(0))?;
        let batch = found.collect::<rusqlite::Result<Vec<i64>>>()?;
        let Some(last) = batch.last() else { return Ok(gone as u64) };
        after_seq = *last;
        let transaction = journal.unchecked_transaction()?;
        for seq in &batch {
            gone += transaction.prepare_cached("DELETE FROM journal WHERE seq = ?1")?.execute([seq])?;
        }
        transaction.commit()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Commit;
    use crate::journal::{Journal as _, JournalOptions, SqliteJournal};
    use cjm_wire::event::{EventType, JournalRow};
    use serde_json::Map;

    #[test]
    fn rows_that_came_since_an_archive_was_begun_are_none_of_its() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = SqliteJournal::open(folder.path(), JournalOptions::default()).expect("opens");
        let database = Connection::open(folder.path().join("journal.db")).expect("opens");
        let write = || {
            let row = JournalRow::new(EventType::RunStarted, Map::new());
            journal.commit_blocking(Commit::telling().row(row)).expect("written");
        };
        write();
        let last = last_seq(&database).expect("reads");
        write();
        let future = Timestamp::from_micros(Timestamp::now().as_micros().expect("now") + 3_600_000_000);
        let seqs = |last| -> Vec<i64> {
            let rows = old_rows(&database, &future, 0, last).expect("reads");
            rows.into_iter().map(|row| row.seq).collect()
        };
        assert_eq!((seqs(last), seqs(last + 1)), (vec![last], vec![last, last + 1]));
    }

    #[test]
    fn what_whoever_was_killed_left_half_made_goes_with_its_journal() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = SqliteJournal::open(folder.path(), JournalOptions::default()).expect("opens");
        let archives_dir = folder.path().join(ARCHIVES_DIR);
        fs::create_dir(&archives_dir).expect("made");
        let kept = archives_dir.join("journal-before-mine.db-journal");
        fs::write(&kept, "").expect("written");
        let archive = || {
            let names = ["journal-before-20200101T000000.new", "journal-before-20200101T000000.new-journal"];
            let half = names.map(|name| archives_dir.join(name));
            half.iter().for_each(|path| fs::write(path, "half").expect("written"));
            let archived = archive_journal(folder.path(), &Timestamp::from_micros(2)).expect("moved");
            assert!(half.iter().all(|path| !path.exists()) && kept.exists());
            archived.rows
        };
        assert_eq!(archive(), 0, "also where there is nothing to move");
        let mut row = JournalRow::new(EventType::RunStarted, Map::new());
        row.ts = Timestamp::from_micros(1);
        journal.commit_blocking(Commit::telling().row(row)).expect("written");
        assert_eq!(archive(), 1);
    }

    #[test]
    fn archives_of_one_instant_are_listed_in_the_order_they_were_made_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut made = Vec::new();
        for (before, count) in [(10, 11), (2_000_000, 1)] {
            for _ in 0..count {
                let journal = SqliteJournal::open(folder.path(), JournalOptions::default()).expect("opens");
                let mut row = JournalRow::new(EventType::RunStarted, Map::new());
                row.ts = Timestamp::from_micros(1);
                journal.commit_blocking(Commit::telling().row(row)).expect("written");
                drop(journal);
                let archived =
                    archive_journal(folder.path(), &Timestamp::from_micros(before)).expect("moved");
                assert_eq!(archived.rows, 1);
                made.push(archived.path);
            }
        }
        assert!(made[10].to_string_lossy().ends_with("-11.db"), "{made:?}");
        assert_eq!(archives(folder.path()).expect("lists"), made);
    }
}
