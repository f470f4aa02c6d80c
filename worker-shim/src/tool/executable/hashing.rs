//! What the files of one call hold: each is read at most once, and not at all when the host knows it already.
//!
//! What must hold: a hash is believed only for the very file, unchanged, of which it was made; nothing but regular files
//! is opened; reading stops when the call is cancelled.

use super::arguments::kind_of_file;
use crate::sdk::ToolError;
use cjm_platform::files::{FileError, open_regular};
use cjm_wire::cache::{FileState, HASH_PREFIX, KnownInputs};
use cjm_wire::canonical::hex;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// What says that something of this machine's has run out, as the system numbers it: ENOMEM, ENFILE, EMFILE.
const SHORTAGES: [i32; 3] = [12, 23, 24];
/// Bytes read between two looks at the cancel flag.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Why a file was not read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The file is not as whoever names it should name one; what is the matter, as the end of a sentence.
    File(PathBuf, String, ToolError),
    /// It was not the file.
    Other(ToolError),
}

impl Unread {
    fn of(path: &Path, error: io::Error) -> Self {
        let (code, words) = (error.raw_os_error(), format!("which cannot be read: {error}"));
        let error = ToolError::from(error).context(&format!("reading {}", path.display()));
        match code {
            Some(code) if SHORTAGES.contains(&code) => Self::Other(error),
            _ => Self::File(path.to_owned(), words, error),
        }
    }

    /// It as what is wrong with an argument.
    pub(crate) fn of_argument(self, name: &str) -> ToolError {
        match self {
            Self::File(path, words, _) => {
                ToolError::unfit(format!("argument `{name}` is {}, {words}", path.display())).fields([name])
            }
            Self::Other(error) => error,
        }
    }
}

impl From<Unread> for ToolError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::File(_, _, error) | Unread::Other(error) => error,
        }
    }
}

/// The files of one call.
#[derive(Debug)]
pub(crate) struct Hashes {
    known: Mutex<HashMap<PathBuf, FileState>>,
    cancel: CancellationToken,
}

impl Hashes {
    pub(crate) fn new(known: KnownInputs, cancel: CancellationToken) -> Self {
        let known = known.input_files.into_iter().map(|(path, state)| (path.into(), state)).collect();
        Self { known: Mutex::new(known), cancel }
    }

    /// What the file is now; it must be a plain file.
    pub(crate) async fn state(&self, path: &Path) -> Result<FileState, Unread> {
        let failed = |error: io::Error| Unread::of(path, error);
        let found = std::fs::metadata(path).map_err(failed)?;
        if !found.is_file() {
            let kind = kind_of_file(found.file_type());
            let error = ToolError::user_input(format!("{} is a {kind} and no file", path.display()));
            return Err(Unread::File(path.to_owned(), format!("which is a {kind} and no file"), error));
        }
        let known = self.lock().get(path).cloned();
        if let Some(known) = known.filter(|known| is_unchanged(known, &found)) {
            return Ok(known);
        }
        let (file, cancel) = (path.to_owned(), self.cancel.clone());
        let read = tokio::task::spawn_blocking(move || read(&file, &cancel)).await;
        let content_hash =
            read.map_err(|_| Unread::Other(ToolError::transient("a file could not be read to its end")))?;
        let content_hash =
            content_hash.map_err(failed)?.ok_or_else(|| Unread::Other(ToolError::cancelled()))?;
        let state = state_of(&found, content_hash);
        self.lock().insert(path.to_owned(), state.clone());
        Ok(state)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, FileState>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time of change in nanoseconds since 1970.
pub(crate) fn mtime_ns(found: &Metadata) -> i64 {
    found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec())
}

/// The digits of a hash, without what stands before them.
pub(crate) fn digits(content_hash: &str) -> &str {
    content_hash.strip_prefix(HASH_PREFIX).unwrap_or(content_hash)
}

/// Whether this is still the file that it was, and unchanged.
pub(crate) fn is_unchanged(known: &FileState, found: &Metadata) -> bool {
    *known == state_of(found, known.content_hash.clone())
}

/// Which file lies there, as far as that can be told without reading it; None where none does, or a folder.
pub(crate) fn unread_state(path: &Path) -> Option<FileState> {
    let found = std::fs::metadata(path).ok().filter(Metadata::is_file)?;
    Some(state_of(&found, String::new()))
}

/// All that the system says of a file, with what it is known to hold.
pub(crate) fn state_of(found: &Metadata, content_hash: String) -> FileState {
    let ctime_ns = found.ctime().saturating_mul(1_000_000_000).saturating_add(found.ctime_nsec());
    FileState {
        size: found.len(),
        mtime_ns: mtime_ns(found),
        inode: Some(found.ino()),
        ctime_ns: Some(ctime_ns),
        content_hash,
    }
}

/// None when the call was cancelled meanwhile.
fn read(path: &Path, cancel: &CancellationToken) -> io::Result<Option<String>> {
    let mut file = open_regular(path).map_err(|error| match error {
        // Its kind says whose fault it is.
        FileError::Io { source, .. } => source,
        other => io::Error::other(other),
    })?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    while !cancel.is_cancelled() {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(Some(format!("{HASH_PREFIX}{}", hex(&hasher.finalize())))),
            Ok(count) => hasher.update(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[tokio::test]
    async fn what_the_host_knows_is_believed_while_the_file_is_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "abc").unwrap();
        let found = std::fs::metadata(&path).unwrap();
        let same = state_of(&found, "sha256:told".to_owned());
        for (state, told) in [
            (same.clone(), "sha256:told"),
            (FileState { size: 4, ..same.clone() }, ABC),
            (FileState { inode: same.inode.map(|number| number + 1), ..same.clone() }, ABC),
            (FileState { ctime_ns: same.ctime_ns.map(|time| time - 1), ..same.clone() }, ABC),
            (FileState { inode: None, ctime_ns: None, ..same.clone() }, ABC),
        ] {
            let known = KnownInputs { input_files: BTreeMap::from([(path.display().to_string(), state)]) };
            let hashes = Hashes::new(known, CancellationToken::new());
            assert_eq!(hashes.state(&path).await.unwrap().content_hash, told);
        }
        let hashes = Hashes::new(KnownInputs::default(), CancellationToken::new());
        assert_eq!(hashes.state(&path).await.unwrap().content_hash, ABC);
        std::fs::write(&path, "abcd").unwrap();
        assert_ne!(hashes.state(&path).await.unwrap().content_hash, ABC);
    }

    #[tokio::test]
    async fn a_cancelled_call_reads_nothing() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let hashes = Hashes::new(KnownInputs::default(), cancel);
        let error = ToolError::from(hashes.state(Path::new("/proc/self/exe")).await.unwrap_err());
        assert_eq!(error.kind(), crate::sdk::ToolError::cancelled().kind());
    }
}
