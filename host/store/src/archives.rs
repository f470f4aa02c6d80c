//! The archives of a data directory as a reader knows them: new ones are looked for with each question.
//!
//! What must hold: an archive that is not read is named, whatever the reason.

use crate::archive::archives;
use crate::error::StoreError;
use crate::query;
use crate::schema::{has_table, open_named_reader, open_reader};
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Archives that are read together; of more, the oldest are left out and counted.
const READ_MAX: usize = 2000;
/// Of these, how many stay open; each takes a descriptor.
const OPEN_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Archives {
    data_dir: PathBuf,
    known: BTreeMap<PathBuf, Archive>,
    /// Why there may be others.
    left_out: Option<StoreError>,
}

#[derive(Debug)]
enum Archive {
    Open(Connection),
    /// To be opened for each question.
    Closed,
    Unreadable(StoreError),
}

impl Archives {
    pub(crate) fn of(data_dir: &Path) -> Self {
        let mut archives = Self { data_dir: data_dir.to_owned(), known: BTreeMap::new(), left_out: None };
        archives.look();
        archives
    }

    /// Asks every one that can be read.
    pub(crate) fn ask_each(&mut self, mut ask: impl FnMut(&Connection) -> Result<(), StoreError>) {
        self.look();
        for (path, archive) in &mut self.known {
            let asked = match archive {
                Archive::Open(connection) => ask(connection),
                Archive::Closed => open_file(path).and_then(|connection| ask(&connection)),
                Archive::Unreadable(_) => Ok(()),
            };
            // One row that cannot be read keeps nobody from those of others.
            if let Err(error) = asked {
                *archive = Archive::Unreadable(of_archive(path, &error));
            }
        }
    }

    /// Whether rows were moved here out of more than one journal, or out of another one: each gives a place once.
    pub(crate) fn are_of_another_than(&mut self, journal: &Connection) -> Result<bool, StoreError> {
        let last_seq = query::last_seq(journal)?;
        let mut places: BTreeSet<(i64, String)> = query::outer_places(journal)?.into_iter().collect();
        self.ask_each(|archive| {
            places.extend(query::outer_places(archive)?);
            Ok(())
        });
        let mut are = places.iter().any(|(seq, _)| *seq > last_seq);
        let mut look = |file: &Connection| {
            let outer = query::outer_places(file)?;
            let (Some((first, _)), Some((last, _))) = (outer.iter().min(), outer.iter().max()) else {
                return Ok(());
            };
            // Those of one journal have few places between those of another file.
            for (seq, event) in places.range((*first, String::new())..(last + 1, String::new())) {
                are |= query::has_other_at(file, *seq, event)?;
            }
            Ok(())
        };
        look(journal)?;
        self.ask_each(look);
        Ok(are)
    }

    /// Whether there are any, or may be.
    pub(crate) fn holds_something(&self) -> bool {
        !self.known.is_empty() || self.left_out.is_some()
    }

    /// Why some are not read.
    pub(crate) fn unreadable(&self) -> Vec<StoreError> {
        let unreadable = self.known.values().filter_map(|archive| match archive {
            Archive::Unreadable(error) => Some(error),
            _ => None,
        });
        self.left_out.iter().chain(unreadable).cloned().collect()
    }

    fn look(&mut self) {
        let paths = archives(&self.data_dir);
        let left_out = paths.as_ref().map_or(0, |paths| paths.len().saturating_sub(READ_MAX));
        self.left_out = match &paths {
            Err(error) => Some(error.clone()),
            Ok(paths) if left_out > 0 => {
                Some(StoreError::LeftOut { count: left_out, last: paths[left_out - 1].clone() })
            }
            Ok(_) => None,
        };
        let Ok(paths) = paths else { return };
        let read: BTreeSet<&PathBuf> = paths[left_out..].iter().collect();
        // One that was moved away, or is left out now, is neither read nor missed.
        self.known.retain(|path, _| read.contains(path));
        for path in paths[left_out..].iter().cloned() {
            if !self.known.contains_key(&path) {
                let archive = match open_file(&path) {
                    Ok(connection) if self.known.len() < OPEN_MAX => Archive::Open(connection),
                    Ok(_) => Archive::Closed,
                    Err(error) => Archive::Unreadable(of_archive(&path, &error)),
                };
                self.known.insert(path, archive);
            }
        }
    }
}

/// An archive has its name once it is whole: one without rows has lost them.
fn of_archive(path: &Path, error: &StoreError) -> StoreError {
    let reason = match error {
        StoreError::NothingYet { .. } => "it holds no journal".to_owned(),
        other => other.to_string(),
    };
    StoreError::Archive { path: path.to_owned(), reason }
}

pub(crate) fn open_journal_table(data_dir: &Path, file: &str) -> Result<Connection, StoreError> {
    with_journal_table(open_reader(data_dir, file)?, data_dir, file)
}

fn with_journal_table(connection: Connection, data_dir: &Path, file: &str) -> Result<Connection, StoreError> {
    if !has_table(&connection, "journal")? {
        return Err(StoreError::NothingYet { path: data_dir.join(file) });
    }
    Ok(connection)
}

pub(crate) fn open_file(path: &Path) -> Result<Connection, StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().unwrap_or(path);
    with_journal_table(open_named_reader(folder, &name)?, folder, &name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::archive_journal;
    use crate::commit::Commit;
    use crate::filters::JournalFilter;
    use crate::journal::{Journal as _, JournalOptions, SqliteJournal};
    use crate::reader::{JournalReader, collect};
    use cjm_wire::Timestamp;
    use cjm_wire::event::{EventType, JournalRow};
    use serde_json::Map;
    use std::fs;

    /// A journal of a long time ago.
    fn rows_of(data_dir: &Path, count: usize, micros: i64) {
        let journal = SqliteJournal::open(data_dir, JournalOptions::default()).expect("opens");
        for _ in 0..count {
            let mut row = JournalRow::new(EventType::TaskAccount, Map::new());
            row.ts = Timestamp::from_micros(micros);
            journal.commit_blocking(Commit::telling().row(row)).expect("written");
        }
    }

    fn all(reader: &JournalReader) -> Vec<i64> {
        let rows = reader.page(&JournalFilter::default(), 0, 1000).expect("reads");
        rows.into_iter().map(|found| found.seq).collect()
    }

    #[test]
    fn a_row_that_moves_while_it_is_asked_for_is_found() {
        let dir = tempfile::tempdir().expect("temporary directory");
        rows_of(dir.path(), 3, 1);
        archive_journal(dir.path(), &Timestamp::from_micros(2)).expect("archives");
        rows_of(dir.path(), 4, 3);
        let reader = JournalReader::open_with_archives(dir.path()).expect("opens");
        let mut asked = 0;
        let mut found = Vec::new();
        reader
            .ask_each(|file| {
                found.extend(collect(file, "SELECT event_id FROM journal", &[], query::text)?);
                asked += 1;
                if asked == 1 {
                    // All that is left moves now.
                    archive_journal(dir.path(), &Timestamp::from_micros(4))?;
                }
                Ok(())
            })
            .expect("reads");
        found.sort();
        found.dedup();
        assert_eq!(found.len(), 7);
        assert_eq!(all(&reader), [1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn an_archive_that_is_made_under_a_reader_is_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        rows_of(dir.path(), 5, 1);
        let reader = JournalReader::open_with_archives(dir.path()).expect("opens");
        assert_eq!(archive_journal(dir.path(), &Timestamp::from_micros(2)).expect("archives").rows, 5);
        assert_eq!(all(&reader), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_journal_that_is_not_the_one_of_its_archives_is_told_as_long_as_it_is_so() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let lost = || {
            let reader = JournalReader::open_with_archives(dir.path()).expect("opens");
            reader.unreadable().iter().map(|error| error.to_string()).collect::<Vec<_>>()
        };
        let journal = dir.path().join("journal.db");
        rows_of(dir.path(), 3, 1);
        fs::copy(&journal, dir.path().join("backup")).expect("copied");
        rows_of(dir.path(), 1, 3);
        archive_journal(dir.path(), &Timestamp::from_micros(2)).expect("archives");
        assert!(lost().is_empty(), "{:?}", lost());
        // As a move leaves it that was cut off: the same rows stand in both.
        fs::rename(&journal, dir.path().join("whole")).expect("moved");
        fs::copy(dir.path().join("backup"), &journal).expect("copied");
        assert!(lost().is_empty(), "{:?}", lost());
        fs::rename(dir.path().join("whole"), &journal).expect("moved");
        archive_journal(dir.path(), &Timestamp::from_micros(4)).expect("archives");
        assert!(lost().is_empty(), "nothing is left, and nothing is lost: {:?}", lost());
        let another = |when: &str| {
            let lost = lost();
            let told = lost.iter().any(|words| words.contains("not the one whose rows stand in `archives`"));
            assert!(told && lost.len() == 1, "{when}: {lost:?}");
        };
        let other = |name: &str| fs::rename(dir.path().join(name), &journal).expect("moved");
        other("backup");
        another("older than what was moved");
        rows_of(dir.path(), 9, 5);
        another("and longer by now than what was moved");
        fs::remove_file(&journal).expect("removed");
        let told = lost();
        assert!(
            told.len() == 1 && told[0].contains("is missing or empty"),
            "missing, and not another: {told:?}"
        );
        rows_of(dir.path(), 2, 5);
        another("begun anew");
        rows_of(dir.path(), 20, 5);
        another("and longer than what was moved");
        archive_journal(dir.path(), &Timestamp::from_micros(6)).expect("archives");
        another("and moved as well");
    }

    #[test]
    fn an_archive_that_is_no_file_is_named_and_not_waited_for() {
        let dir = tempfile::tempdir().expect("temporary directory");
        rows_of(dir.path(), 1, 1);
        let folder = dir.path().join("archives");
        fs::create_dir_all(folder.join("journal-before-2020-1.db")).expect("made");
        let pipe = folder.join("journal-before-2020-2.db");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo(1)").success());
        let reader = JournalReader::open_with_archives(dir.path()).expect("opens");
        assert_eq!(all(&reader), [1]);
        let unreadable: Vec<String> = reader.unreadable().iter().map(ToString::to_string).collect();
        assert_eq!(unreadable.len(), 2, "{unreadable:?}");
        assert!(unreadable.iter().all(|words| words.ends_with("it is not a regular file")), "{unreadable:?}");
    }

    #[test]
    fn of_any_number_of_archives_each_is_read_or_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        rows_of(dir.path(), 2, 1);
        let oldest = archive_journal(dir.path(), &Timestamp::from_micros(2)).expect("archives").path;
        rows_of(dir.path(), 3, 3);
        let next = archive_journal(dir.path(), &Timestamp::from_micros(2_000_000)).expect("archives").path;
        assert!(oldest < next);
        let more = |number: usize| next.with_file_name(format!("journal-before-2020-{number:05}.db"));
        for number in 2..READ_MAX {
            fs::hard_link(&next, more(number)).expect("linked");
        }
        let reader = JournalReader::open_with_archives(dir.path()).expect("opens");
        assert_eq!(archives(dir.path()).expect("lists").len(), READ_MAX);
        assert_eq!(all(&reader), [1, 2, 3, 4, 5]);
        assert!(reader.unreadable().is_empty());
        fs::write(more(READ_MAX), "no database").expect("written");
        let reader = JournalReader::open_with_archives(dir.path()).expect("opens");
        assert_eq!(all(&reader), [3, 4, 5]);
        let unreadable: Vec<String> = reader.unreadable().iter().map(ToString::to_string).collect();
        assert_eq!(unreadable.len(), 2, "{unreadable:?}");
        assert!(unreadable[0].starts_with("1 archives are left out"), "{unreadable:?}");
        assert!(unreadable[0].ends_with(&*oldest.to_string_lossy()), "{unreadable:?}");
        // A folder that cannot be read is no empty one.
        let folder = dir.path().join("archives");
        fs::rename(&folder, dir.path().join("elsewhere")).expect("moved");
        fs::write(&folder, "no folder").expect("written");
        let reader = JournalReader::open_with_archives(dir.path()).expect("opens");
        assert_eq!(reader.unreadable().len(), 1);
        assert!(archives(dir.path()).is_err());
    }

    #[test]
    fn a_bounded_number_of_archives_is_open_and_each_that_breaks_later_is_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        rows_of(dir.path(), 1, 1);
        let first = archive_journal(dir.path(), &Timestamp::from_micros(2)).expect("archives").path;
        let path = |number: usize| first.with_file_name(format!("journal-before-2020-{number:03}.db"));
        for number in 0..OPEN_MAX {
            fs::copy(&first, path(number)).expect("copied");
        }
        let mut archives = Archives::of(dir.path());
        let open = archives.known.values().filter(|one| matches!(one, Archive::Open(_))).count();
        assert_eq!((open, archives.known.len()), (OPEN_MAX, OPEN_MAX + 1), "each takes a descriptor");
        let asked = |archives: &mut Archives| {
            let mut asked = 0;
            archives.ask_each(|file| {
                asked += query::last_seq(file)?;
                Ok(())
            });
            asked
        };
        assert_eq!(asked(&mut archives), OPEN_MAX as i64 + 1, "also those that are not open");
        // Both, one that is open and one that is not.
        for broken in [&first, &path(OPEN_MAX - 1)] {
            fs::write(broken, "no database at all, whatever its name says").expect("written");
        }
        let _ = asked(&mut archives);
        let named: Vec<String> = archives.unreadable().iter().map(ToString::to_string).collect();
        assert_eq!(named.len(), 2, "{named:?}");
        for broken in [&first, &path(OPEN_MAX - 1)] {
            assert!(named.iter().any(|words| words.contains(&*broken.to_string_lossy())), "{named:?}");
        }
        // What is not there any more is no archive that cannot be read; a folder that cannot be read takes none away.
        for broken in [&first, &path(OPEN_MAX - 1)] {
            fs::remove_file(broken).expect("removed");
        }
        assert_eq!(asked(&mut archives), OPEN_MAX as i64 - 1);
        assert!(archives.unreadable().is_empty(), "{:?}", archives.unreadable());
        assert_eq!(archives.known.len(), OPEN_MAX - 1);
        let folder = dir.path().join("archives");
        fs::rename(&folder, dir.path().join("elsewhere")).expect("moved");
        fs::write(&folder, "no folder").expect("written");
        let _ = asked(&mut archives);
        assert_eq!(archives.known.len(), OPEN_MAX - 1);
        assert!(!archives.unreadable().is_empty());
    }
}
