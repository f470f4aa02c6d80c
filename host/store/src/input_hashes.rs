//! Content hashes of files, kept by path, time of change and size, so that an unchanged file is read once
//! (`input_hash_cache.db`). The table is the ancestor's, whose workers write the same file; beside it stands which inode
//! was read, since another file with the same size and time may be moved into the place of the first.
//!
//! It saves time and is nobody's truth: where the database fails, the file is read. What must hold: a hash is given out
//! only if the file had the same size and time before it was read and after; and one is remembered only when the file
//! had rested, because a change within one tick of the clock leaves no trace in its time.

use crate::error::StoreError;
use crate::schema::{self, INPUT_HASHES_FILE};
use cjm_wire::cache::{FileState, HASH_PREFIX};
use cjm_wire::canonical::hex;
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Most files remembered; the oldest entries go first.
pub const INPUT_HASHES_MAX: i64 = 200_000;
/// How long a file must have rested before its hash is remembered.
pub const RESTED_MS_MIN: u64 = 1_000;
/// How often a file that changes while it is read is read again.
pub const READS_MAX: u32 = 3;
/// How far the change of an inode may lie behind that of its content in a row that says nothing of the inode: whoever
/// sets the time of a file back leaves a larger gap.
const INODE_CHANGE_LATER_NS_MAX: i64 = 2_000_000_000;
/// Which inode a row of the ancestor's table was read from.
const INODES_TABLE: &str = "CREATE TABLE IF NOT EXISTS input_inodes (
    path TEXT PRIMARY KEY, mtime_ns INTEGER NOT NULL, size INTEGER NOT NULL,
    inode INTEGER NOT NULL, ctime_ns INTEGER NOT NULL)";
/// Bytes read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// The hashes of one data directory. The file is made with the first hash.
#[derive(Debug)]
pub struct InputHashes {
    data_dir: PathBuf,
    connection: Mutex<Opened>,
}

#[derive(Debug)]
enum Opened {
    NotYet,
    Yes(Connection),
    /// It failed once, was told of, and is not tried again.
    Without,
}

impl InputHashes {
    /// The hashes of `data_dir`; touches nothing.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), connection: Mutex::new(Opened::NotYet) }
    }

    /// What the file is now. Blocks, for as long as reading the file takes when it is new or changed, or until nobody waits.
    ///
    /// # Errors
    /// When the file is none, cannot be read, changes all the time, or nobody waits any more.
    pub fn state(&self, path: &Path, is_given_up: &dyn Fn() -> bool) -> io::Result<FileState> {
        let path = std::path::absolute(path)?;
        let before = metadata(&path)?;
        if let Some(content_hash) = self.look_up(&path, &before) {
            return Ok(state(&before, content_hash));
        }
        let mut before = before;
        for _ in 0..READS_MAX {
            let content_hash = content_hash(&path, is_given_up)?;
            let after = metadata(&path)?;
            if identity(&before) == identity(&after) {
                if has_rested(&after) {
                    self.remember(&path, &after, &content_hash);
                }
                return Ok(state(&after, content_hash));
            }
            before = after;
        }
        Err(io::Error::other("the file changes while it is read"))
    }

    fn look_up(&self, path: &Path, found: &Metadata) -> Option<String> {
        let Identity { mtime_ns, size, inode, ctime_ns } = identity(found);
        let row = self.with(|connection| {
            connection
                .prepare_cached(
                    "SELECT content_hash, inode, ctime_ns FROM input_hash_cache AS hash
                     LEFT JOIN input_inodes AS node ON node.path = hash.path
                        AND node.mtime_ns = hash.mtime_ns AND node.size = hash.size
                     WHERE hash.path = ?1 AND hash.mtime_ns = ?2 AND hash.size = ?3",
                )?
                .query_row(params![path.to_str(), mtime_ns, size], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?, row.get(2)?))
                })
                .optional()
        });
        let (hash, known_inode, known_ctime_ns) = row.flatten()?;
        let is_same = match (known_inode, known_ctime_ns) {
            (Some(known_inode), Some(known_ctime_ns)) => (known_inode, known_ctime_ns) == (inode, ctime_ns),
            // The ancestor's: nobody has touched the file since its content was written.
            _ => (0..=INODE_CHANGE_LATER_NS_MAX).contains(&ctime_ns.saturating_sub(mtime_ns)),
        };
        Some(hash)
            .filter(|hash| is_same && hash.strip_prefix(HASH_PREFIX).is_some_and(|digits| digits.len() == 64))
    }

    fn remember(&self, path: &Path, found: &Metadata, content_hash: &str) {
        // A name that is no text cannot be a key that the ancestor reads.
        let Some(text) = path.to_str() else { return };
        let Identity { mtime_ns, size, inode, ctime_ns } = identity(found);
        self.with(|connection| {
            let transaction = connection.unchecked_transaction()?;
            // What the file was before it is no more.
            transaction.execute("DELETE FROM input_hash_cache WHERE path = ?1", [text])?;
            transaction.execute(
                "INSERT OR REPLACE INTO input_hash_cache (path, mtime_ns, size, content_hash) VALUES (?1, ?2, ?3, ?4)",
                params![text, mtime_ns, size, content_hash],
            )?;
            transaction.execute(
                "INSERT OR REPLACE INTO input_inodes (path, mtime_ns, size, inode, ctime_ns)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![text, mtime_ns, size, inode, ctime_ns],
            )?;
            for table in ["input_hash_cache", "input_inodes"] {
                transaction.execute(
                    &format!("DELETE FROM {table} WHERE rowid <= (SELECT max(rowid) FROM {table}) - ?1"),
                    [INPUT_HASHES_MAX],
                )?;
            }
            transaction.commit()
        });
    }

    /// Runs `work` on the database, if there is one.
    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        let mut opened = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*opened, Opened::NotYet) {
            let connection = schema::open_input_hashes(&self.data_dir).and_then(|connection| {
                let made = connection.execute_batch(INODES_TABLE);
                made.map_err(|error| StoreError::database(INPUT_HASHES_FILE.to_owned(), &error))?;
                Ok(connection)
            });
            *opened = match connection {
                Ok(connection) => Opened::Yes(connection),
                Err(error) => {
                    tracing::warn!(%error, "{INPUT_HASHES_FILE} cannot be used; input files are read each time");
                    Opened::Without
                }
            };
        }
        let Opened::Yes(connection) = &*opened else { return None };
        match work(connection) {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::warn!(%error, "{INPUT_HASHES_FILE} fails; the file is read instead");
                None
            }
        }
    }
}

/// `sha256:` and the digits, of a file's content.
fn content_hash(path: &Path, is_given_up: &dyn Fn() -> bool) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        if is_given_up() {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        match file.read(&mut chunk) {
            Ok(0) => return Ok(format!("{HASH_PREFIX}{}", hex(&hasher.finalize()))),
            Ok(count) => hasher.update(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn metadata(path: &Path) -> io::Result<Metadata> {
    let found = std::fs::metadata(path)?;
    // Reading a pipe would wait for ever, and its content is gone afterwards.
    if found.is_file() { Ok(found) } else { Err(io::Error::other("not a file")) }
}

/// What is the same as long as a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    mtime_ns: i64,
    size: i64,
    inode: i64,
    ctime_ns: i64,
}

fn identity(found: &Metadata) -> Identity {
    let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
    Identity {
        mtime_ns: ns(found.mtime(), found.mtime_nsec()),
        size: i64::try_from(found.len()).unwrap_or(i64::MAX),
        // SQLite has no unsigned numbers; the same bits are the same file.
        inode: found.ino().cast_signed(),
        ctime_ns: ns(found.ctime(), found.ctime_nsec()),
    }
}

fn state(found: &Metadata, content_hash: String) -> FileState {
    let Identity { mtime_ns, ctime_ns, .. } = identity(found);
    FileState {
        size: found.len(),
        mtime_ns,
        inode: Some(found.ino()),
        ctime_ns: Some(ctime_ns),
        content_hash,
    }
}

fn has_rested(found: &Metadata) -> bool {
    let age = found.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age >= Duration::from_millis(RESTED_MS_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    /// A file that has rested since `age_seconds` ago.
    fn file(folder: &TempDir, name: &str, content: &str, age_seconds: u64) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let changed = SystemTime::now() - Duration::from_secs(age_seconds);
        File::options().write(true).open(&path).unwrap().set_modified(changed).unwrap();
        path
    }

    fn rows(folder: &TempDir) -> Vec<(String, i64, i64, String)> {
        let connection = Connection::open(folder.path().join(INPUT_HASHES_FILE)).unwrap();
        let mut statement = connection.prepare("SELECT * FROM input_hash_cache").unwrap();
        let rows =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_file_is_read_no_longer_than_somebody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, "a", "abc", 100);
        let hashes = InputHashes::of(folder.path());
        let asked = std::cell::Cell::new(0);
        let given_up = || asked.replace(asked.get() + 1) > 0;
        let error = hashes.state(&path, &given_up).unwrap_err();
        assert_eq!((error.to_string().as_str(), asked.get()), ("nobody waits for it any more", 2));
        assert!(rows(&folder).is_empty(), "half of it is no content");
        assert_eq!(hashes.state(&path, &|| false).unwrap().content_hash, ABC);
    }

    #[test]
    fn an_unchanged_file_is_not_read_again_and_a_changed_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, "a", "abc", 100);
        let hashes = InputHashes::of(folder.path());
        let first = hashes.state(&path, &|| false).unwrap();
        assert_eq!((first.content_hash.as_str(), first.size), (ABC, 3));
        assert_eq!(
            rows(&folder),
            [(path.display().to_string(), first.mtime_ns, 3, ABC.to_owned())],
            "as the ancestor writes it"
        );
        let planted = format!("sha256:{}", "5".repeat(64));
        let plant = |path: &Path| {
            let connection = Connection::open(folder.path().join(INPUT_HASHES_FILE)).unwrap();
            let change = "UPDATE input_hash_cache SET content_hash = ?1 WHERE path = ?2";
            connection.execute(change, [&planted, path.to_str().unwrap()]).unwrap()
        };
        assert_eq!(plant(&path), 1);
        assert_eq!(hashes.state(&path, &|| false).unwrap().content_hash, planted, "it was not read");
        // As archives and copies with times leave it: same size and time of change, other content.
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(folder.path().join("b"), "xyz").unwrap();
        File::options().write(true).open(folder.path().join("b")).unwrap().set_modified(modified).unwrap();
        std::fs::rename(folder.path().join("b"), &path).unwrap();
        let replaced = hashes.state(&path, &|| false).unwrap();
        assert_eq!((replaced.size, replaced.mtime_ns), (first.size, first.mtime_ns));
        assert!(replaced.content_hash != planted && replaced.content_hash != ABC, "{replaced:?}");
        let path = file(&folder, "a", "xyz", 50);
        assert_ne!(hashes.state(&path, &|| false).unwrap().content_hash, ABC);
        assert_eq!(rows(&folder).len(), 1, "what the file was is forgotten");
        assert_eq!(
            InputHashes::of(folder.path()).state(&path, &|| false).unwrap(),
            hashes.state(&path, &|| false).unwrap()
        );
    }

    #[test]
    fn a_file_that_has_just_changed_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        // Far in the future: the clocks of file servers differ, and a test must not wait.
        std::fs::write(&path, "abc").unwrap();
        let later = SystemTime::now() + Duration::from_secs(3600);
        File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        let hashes = InputHashes::of(folder.path());
        assert_eq!(hashes.state(&path, &|| false).unwrap().content_hash, ABC);
        assert!(rows(&folder).is_empty());
    }

    #[test]
    fn a_damaged_database_costs_time_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, "a", "abc", 100);
        std::fs::write(folder.path().join(INPUT_HASHES_FILE), "no database at all, but long enough").unwrap();
        let hashes = InputHashes::of(folder.path());
        for _ in 0..2 {
            assert_eq!(hashes.state(&path, &|| false).unwrap().content_hash, ABC);
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let hashes = InputHashes::of(folder.path());
        assert_eq!(
            hashes.state(&folder.path().join("missing"), &|| false).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        assert!(hashes.state(folder.path(), &|| false).is_err());
    }
}
