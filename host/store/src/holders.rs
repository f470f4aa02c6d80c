//! Who holds a database, so that it is locked for us.

use rustix::fs::{major, minor};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What SQLite says of a database that another process holds.
pub(crate) const LOCKED: &str = "database is locked";

/// Where SQLite's `message` says that `database` is locked: with the file's name and whoever the kernel says holds it. A
/// lock that was given back meanwhile, and one of another container's, have no holder that could be told.
pub(crate) fn with_holders(message: String, database: &Path) -> String {
    if !message.contains(LOCKED) {
        return message;
    }
    let file = database.file_name().unwrap_or_default().to_string_lossy();
    let holders: Vec<String> = holders(database).iter().map(|pid| named(*pid)).collect();
    if holders.is_empty() {
        return format!("{message} ({file})");
    }
    format!("{message} ({file}, by {})", holders.join(" and "))
}

fn named(pid: u32) -> String {
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{}, process {pid}", name.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}

/// The other processes with a lock for writing on the database, or on the index of its log.
fn holders(database: &Path) -> Vec<u32> {
    let mut index: OsString = database.as_os_str().to_owned();
    index.push("-shm");
    let files: Vec<String> = [database, Path::new(&index)]
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|found| id_of(&found))
        .collect();
    let Ok(locks) = fs::read_to_string("/proc/locks") else { return Vec::new() };
    let mut holders: Vec<u32> = locks.lines().filter_map(|line| holder(line, &files)).collect();
    holders.sort_unstable();
    holders.dedup();
    holders.retain(|pid| *pid != std::process::id());
    holders
}

/// A file as the table of locks names it (proc_locks(5)).
fn id_of(file: &fs::Metadata) -> String {
    format!("{:02x}:{:02x}:{}", major(file.dev()), minor(file.dev()), file.ino())
}

/// The process of a line such as `3: POSIX  ADVISORY  WRITE 24520 fe:00:10084385 120 120`, if it has one of `files`. One
/// that waits for a lock has an arrow in its second place; one of another container's has no number here.
fn holder(line: &str, files: &[String]) -> Option<u32> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, _, _, "WRITE", pid, file, ..] = words[..] else { return None };
    if !files.iter().any(|one| one == file) {
        return None;
    }
    pid.parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_writes_is_told_from_who_reads_waits_or_lives_elsewhere() {
        let files = ["fe:00:7".to_owned()];
        for (line, pid) in [
            ("3: POSIX  ADVISORY  WRITE 24520 fe:00:7 120 120", Some(24520)),
            ("3: POSIX  ADVISORY  READ 24520 fe:00:7 120 120", None),
            ("3: -> POSIX  ADVISORY  WRITE 24520 fe:00:7 120 120", None),
            ("3: POSIX  ADVISORY  WRITE 24520 fe:00:71 120 120", None),
            ("3: POSIX  ADVISORY  WRITE 0 fe:00:7 120 120", None),
            ("3: OFDLCK ADVISORY  WRITE -1 fe:00:7 0 EOF", None),
            ("", None),
        ] {
            assert_eq!(holder(line, &files), pid, "{line}");
        }
    }

    /// What this process holds is in nobody's way.
    #[test]
    fn a_process_does_not_name_itself() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("journal.db");
        let ours = rusqlite::Connection::open(&file).expect("opens");
        ours.execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE t (x); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)",
        )
        .expect("held");
        assert_eq!(with_holders(LOCKED.to_owned(), &file), "database is locked (journal.db)");
    }

    #[test]
    fn what_is_locked_is_named_also_without_a_holder() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("journal.db");
        assert_eq!(with_holders(LOCKED.to_owned(), &file), "database is locked (journal.db)");
        assert_eq!(with_holders("disk I/O error".to_owned(), &file), "disk I/O error");
    }
}
