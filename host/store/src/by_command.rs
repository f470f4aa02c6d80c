//! Rows of what commands do without a host: installs, removals, secrets. They need no lock: beside a host that runs, the
//! database lets one write after the other.

use crate::apply::{NotApplied, apply};
use crate::commit::{Commit, Prepared};
use crate::error::{NOT_OURS, StoreError};
use crate::schema::{Durability, JOURNAL_FILE, open_journal};
use cjm_wire::event::JournalRow;
use rusqlite::TransactionBehavior;
use std::path::Path;

/// Adds rows to the journal of a data directory that has one; false where nothing has run yet. Blocks, as long as
/// another writer may hold the database.
///
/// # Errors
/// When the journal cannot be opened or written; it has none of the rows then.
pub fn note_command(data_dir: &Path, rows: Vec<JournalRow>) -> Result<bool, StoreError> {
    let path = data_dir.join(JOURNAL_FILE);
    // A journal that is a link is not written, whatever it leads to.
    match path.symlink_metadata() {
        Ok(found) if !found.is_file() => {
            return Err(StoreError::File { doing: "write", path, message: NOT_OURS.to_owned() });
        }
        Ok(found) if found.len() > 0 => {}
        _ => return Ok(false),
    }
    let commit = Prepared::of(rows.into_iter().fold(Commit::telling(), Commit::row))?;
    let failed = |error: &rusqlite::Error| StoreError::database_at("write", &path, error);
    let mut connection = open_journal(data_dir, Durability::Process)?;
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|error| failed(&error))?;
    apply(&transaction, &commit).map_err(|error| match error {
        NotApplied::Own(error) => error,
        NotApplied::Whole(error) => failed(&error),
    })?;
    transaction.commit().map_err(|error| failed(&error))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::JournalFilter;
    use crate::journal::{Journal, JournalOptions, SqliteJournal};
    use crate::reader::JournalReader;
    use cjm_wire::event::EventType;
    use serde_json::Map;

    #[test]
    fn a_command_writes_beside_a_host_and_makes_no_journal() {
        let folder = tempfile::tempdir().expect("tempdir");
        let row = || JournalRow::new(EventType::SecretSet, Map::new());
        assert!(!note_command(folder.path(), vec![row()]).expect("nothing to do"));
        assert!(!folder.path().join(JOURNAL_FILE).exists());
        let host = SqliteJournal::open(folder.path(), JournalOptions::default()).expect("a host");
        let host_row = || JournalRow::new(EventType::RunStarted, Map::new());
        host.commit_blocking(Commit::telling().row(host_row())).expect("committed");
        assert!(note_command(folder.path(), vec![row(), row()]).expect("written"));
        host.commit_blocking(Commit::telling().row(host_row())).expect("committed");
        host.close();
        let reader = JournalReader::open(folder.path()).expect("reader");
        let rows = reader.page(&JournalFilter::default(), 0, 10).expect("rows");
        let kinds: Vec<&str> = rows.iter().map(|found| found.row.event_type.as_str()).collect();
        assert_eq!(kinds, ["run_started", "secret_set", "secret_set", "run_started"]);
    }

    #[test]
    fn what_stands_in_the_place_of_the_journal_is_told_and_not_waited_for() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join(JOURNAL_FILE);
        let refused = || {
            let row = JournalRow::new(EventType::SecretSet, Map::new());
            note_command(folder.path(), vec![row]).expect_err("no journal").to_string()
        };
        let words = format!("write {}: {NOT_OURS}", path.display());
        std::fs::create_dir(&path).expect("made");
        assert_eq!(refused(), words);
        std::fs::remove_dir(&path).expect("removed");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo");
        assert!(made.success());
        assert_eq!(refused(), words);
    }
}
