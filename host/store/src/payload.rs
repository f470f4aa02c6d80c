//! Large bodies as files named by their content, under `<data_dir>/payloads/`. A file is complete and on disk before
//! any commit names it; identical content is one file. What no commit names any more is retention's to remove.

use crate::error::StoreError;
use crate::not_ours::refuse_no_folder;
use crate::records::Body;
use crate::room::{LEFT_FREE_BYTES, available};
use cjm_platform::files::open_own_to_write;
use cjm_wire::canonical::hex;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Bodies up to this many bytes are kept in the database.
pub const INLINE_BYTES_MAX: usize = 256 * 1024;
/// Largest body.
pub const BODY_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Folder of the payload files.
pub const PAYLOADS_DIR: &str = "payloads";

/// The payload files of one data directory.
#[derive(Debug, Clone)]
pub struct Payloads {
    dir: PathBuf,
}

/// A large body on its way into a file.
#[derive(Debug)]
pub(crate) struct PendingPayload {
    pub(crate) hash: String,
    pub(crate) content: Vec<u8>,
}

/// Names of bodies in a folder that is being read; None where it cannot be.
#[derive(Debug)]
pub(crate) struct Names(Option<fs::ReadDir>);

impl Names {
    /// So many more of them; fewer once all were read.
    pub(crate) fn next_of(&mut self, count: usize) -> BTreeSet<String> {
        let names =
            self.0.iter_mut().flatten().flatten().filter_map(|file| file.file_name().into_string().ok());
        names.filter(|name| is_hash(name)).take(count).collect()
    }
}

impl Payloads {
    /// The payloads of `data_dir`; creates nothing.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self { dir: data_dir.join(PAYLOADS_DIR) }
    }

    /// Path of the file with this hash.
    #[must_use]
    pub fn path(&self, hash: &str) -> PathBuf {
        self.dir.join(hash)
    }

    /// The content of `body`, checked against its name. Blocks.
    ///
    /// # Errors
    /// When its file is missing, unreadable or holds something else.
    pub fn load(&self, body: &Body) -> Result<Vec<u8>, StoreError> {
        let (hash, length) = match body {
            Body::Inline(bytes) => return Ok(bytes.clone()),
            Body::File { hash, bytes } => (hash, *bytes),
        };
        if !is_hash(hash) {
            return Err(StoreError::unreadable(format!("`{hash}` is not the name of a payload")));
        }
        let path = self.path(hash);
        let mut content = Vec::new();
        let is_file = fs::metadata(&path).map(|found| found.is_file());
        let file = is_file.and_then(|is_file| match is_file {
            true => File::open(&path),
            false => Err(std::io::Error::other("it is not a regular file")),
        });
        file.and_then(|file| file.take(length + 1).read_to_end(&mut content))
            .map_err(|error| StoreError::unreadable(format!("payload {}: {error}", path.display())))?;
        if content.len() as u64 != length || hex(&Sha256::digest(&content)) != *hash {
            return Err(StoreError::unreadable(format!(
                "payload {} does not hold what its name says",
                path.display()
            )));
        }
        Ok(content)
    }

    /// Makes sure that the file is there, complete and on disk. Blocks; may be repeated.
    pub(crate) fn ensure(&self, payload: &PendingPayload) -> Result<(), StoreError> {
        self.ensure_on(|| available(&self.dir), payload)
    }

    /// The same on a disk with so much room.
    fn ensure_on(
        &self,
        free: impl FnOnce() -> Option<u64>,
        payload: &PendingPayload,
    ) -> Result<(), StoreError> {
        // Several writers of one content in one process must not share a temporary file.
        static UNIQUE: AtomicU64 = AtomicU64::new(0);
        let path = self.path(&payload.hash);
        let bytes = payload.content.len();
        if open_own_to_write(&path).is_ok_and(|file| is_kept(&file, &path, bytes as u64)) {
            return self.sync_dir();
        }
        refuse_no_folder("write", &self.dir)?;
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(StoreError::writing("create", &self.dir, bytes, &error));
            }
            _ => {}
        }
        // Others must not find the disk full for the time it takes to find out that this does not fit.
        if let Some(free) = free()
            && free < bytes as u64 + LEFT_FREE_BYTES
        {
            return Err(StoreError::NoRoom { bytes, reason: format!("{free} bytes are free") });
        }
        let turn = UNIQUE.fetch_add(1, Ordering::Relaxed);
        let temporary = self.dir.join(format!(".{}.{}.{turn}", payload.hash, std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(&payload.content)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written {
            // Best effort: what stays is removed when the next host opens the store.
            let _ = fs::remove_file(&temporary);
            return Err(StoreError::writing("write", &path, bytes, &error));
        }
        self.sync_dir()
    }

    /// Removes what killed writers left half-written. To be called before anything is written.
    pub(crate) fn remove_half_written(&self) {
        let Ok(files) = fs::read_dir(&self.dir) else { return };
        for file in files.flatten().filter(|file| file.file_name().as_encoded_bytes().starts_with(b".")) {
            if let Err(error) = fs::remove_file(file.path()) {
                tracing::debug!(%error, path = %file.path().display(), "a half-written body stays");
            }
        }
    }

    /// Names of the files, to be read some at a time.
    pub(crate) fn names(&self) -> Names {
        Names(fs::read_dir(&self.dir).ok())
    }

    /// True when nobody wrote or used the file for so long.
    pub(crate) fn was_left_alone(&self, hash: &str, rest: Duration) -> bool {
        is_at_rest(&self.path(hash), rest)
    }

    /// Says that somebody needs the file, where nobody has said so for that long.
    pub(crate) fn keep(&self, hash: &str, rest: Duration) {
        let path = self.path(hash);
        if is_at_rest(&path, rest)
            && let Err(error) = open_own_to_write(&path).and_then(|file| file.set_modified(SystemTime::now()))
        {
            tracing::warn!(%error, path = %path.display(), "a body that is needed may go with old ones");
        }
    }

    /// Takes a file out of sight.
    pub(crate) fn hide(&self, hash: &str) -> Option<Hidden> {
        let path = self.path(hash);
        let hidden = self.dir.join(format!(".{hash}.going"));
        fs::rename(&path, &hidden).ok().map(|()| Hidden { path, hidden })
    }

    fn sync_dir(&self) -> Result<(), StoreError> {
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| StoreError::file("sync", &self.dir, &error))
    }
}

/// A body's file under a name that no record uses.
pub(crate) struct Hidden {
    path: PathBuf,
    pub(crate) hidden: PathBuf,
}

impl Hidden {
    pub(crate) fn was_left_alone(&self, rest: Duration) -> bool {
        is_at_rest(&self.hidden, rest)
    }

    pub(crate) fn put_back(&self) {
        if let Err(error) = fs::rename(&self.hidden, &self.path) {
            tracing::error!(%error, path = %self.path.display(), "a body's file could not be put back");
        }
    }

    pub(crate) fn remove(&self) -> Option<u64> {
        let bytes = fs::metadata(&self.hidden).ok()?.len();
        fs::remove_file(&self.hidden).ok().map(|()| bytes)
    }
}

/// True when the file was not written or used for so long.
fn is_at_rest(path: &Path, rest: Duration) -> bool {
    fs::metadata(path)
        .and_then(|found| found.modified())
        .is_ok_and(|used| SystemTime::now().duration_since(used).is_ok_and(|since| since >= rest))
}

/// True when the file, opened at its path, is whole, marked as just used, so that retention leaves it for now, and still
/// there.
fn is_kept(file: &File, path: &Path, bytes: u64) -> bool {
    file.metadata().is_ok_and(|found| found.len() == bytes)
        && file.set_modified(SystemTime::now()).is_ok()
        // Retention takes a file out of sight before it looks at its time again.
        && path.exists()
}

fn is_hash(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Splits a body that is too large for the database from its content.
pub(crate) fn spill(body: Body) -> Result<(Body, Option<PendingPayload>), StoreError> {
    match body {
        Body::Inline(content) if content.len() > BODY_BYTES_MAX => {
            Err(StoreError::TooLarge { what: "the body", bytes: content.len(), bytes_max: BODY_BYTES_MAX })
        }
        Body::Inline(content) if content.len() > INLINE_BYTES_MAX => {
            let hash = hex(&Sha256::digest(&content));
            let body = Body::File { hash: hash.clone(), bytes: content.len() as u64 };
            Ok((body, Some(PendingPayload { hash, content })))
        }
        body => Ok((body, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A data directory may come from elsewhere.
    #[test]
    fn a_pipe_in_the_place_of_a_body_is_waited_for_by_nobody_and_gives_way() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let payloads = Payloads::of(dir.path());
        let (body, pending) = spill(Body::Inline(vec![b'x'; INLINE_BYTES_MAX + 1])).expect("fits");
        let pending = pending.expect("too large for the database");
        fs::create_dir(dir.path().join(PAYLOADS_DIR)).expect("made");
        let pipe = payloads.path(&pending.hash);
        let mode = rustix::fs::Mode::from(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("made");
        payloads.keep(&pending.hash, Duration::ZERO);
        payloads.ensure(&pending).expect("written");
        payloads.load(&body).expect("kept");
    }

    #[test]
    fn content_is_kept_once_privately_and_checked_when_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let payloads = Payloads::of(dir.path());
        let content = vec![b'x'; INLINE_BYTES_MAX + 1];
        let (body, pending) = spill(Body::Inline(content.clone())).expect("fits");
        let pending = pending.expect("too large for the database");
        payloads.ensure(&pending).expect("written");
        payloads.ensure(&pending).expect("written again");
        let files: Vec<_> = fs::read_dir(dir.path().join(PAYLOADS_DIR)).expect("folder").collect();
        assert_eq!(files.len(), 1);
        let path = payloads.path(&pending.hash);
        assert_eq!(fs::metadata(&path).expect("file").permissions().mode() & 0o777, 0o600);
        assert_eq!(payloads.load(&body).expect("reads"), content);

        fs::write(&path, vec![b'y'; content.len()]).expect("damaged");
        assert!(matches!(payloads.load(&body), Err(StoreError::Unreadable { .. })));
        fs::remove_file(&path).expect("removed");
        assert!(matches!(payloads.load(&body), Err(StoreError::Unreadable { .. })));
        let outside = Body::File { hash: "../../etc/passwd".into(), bytes: 1 };
        assert!(matches!(payloads.load(&outside), Err(StoreError::Unreadable { .. })));
    }

    /// Who finds the disk full otherwise are the ends of running jobs.
    #[test]
    fn a_body_is_written_only_where_it_leaves_room_for_the_journal() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let payloads = Payloads::of(dir.path());
        let body = PendingPayload { hash: "a".repeat(64), content: b"body".to_vec() };
        let needed = body.content.len() as u64 + LEFT_FREE_BYTES;
        let told = payloads.ensure_on(|| Some(needed - 1), &body).expect_err("it takes what is to stay free");
        assert!(matches!(told, StoreError::NoRoom { bytes: 4, .. }), "{told:?}");
        assert!(!payloads.path(&body.hash).exists(), "nothing of it was written");
        payloads.ensure_on(|| Some(needed), &body).expect("it leaves enough");
        payloads.ensure_on(|| Some(0), &body).expect("one that is there takes no more room");
        fs::remove_file(payloads.path(&body.hash)).expect("removed");
        payloads.ensure_on(|| None, &body).expect("a disk that does not say so is tried");
    }

    /// Retention has looked at its time before it was used, and takes it away.
    #[test]
    fn a_body_that_goes_while_it_is_looked_at_is_not_kept() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let payloads = Payloads::of(dir.path());
        let body = PendingPayload { hash: "a".repeat(64), content: b"body".to_vec() };
        payloads.ensure(&body).expect("written");
        let path = payloads.path(&body.hash);
        let file = OpenOptions::new().write(true).open(&path).expect("there");
        assert!(is_kept(&file, &path, 4) && !is_kept(&file, &path, 5));
        let hidden = payloads.hide(&body.hash).expect("there");
        assert!(!is_kept(&file, &path, 4), "its record would name what is gone");
        hidden.remove().expect("removed");
        assert!(!is_kept(&file, &path, 4));
        payloads.ensure(&body).expect("written anew");
        assert_eq!(fs::read(&path).expect("there"), b"body");
    }

    #[test]
    fn small_bodies_stay_in_the_database() {
        let (body, pending) = spill(Body::Inline(vec![0; INLINE_BYTES_MAX])).expect("fits");
        assert!(pending.is_none());
        assert_eq!(body.bytes(), INLINE_BYTES_MAX as u64);
    }
}
