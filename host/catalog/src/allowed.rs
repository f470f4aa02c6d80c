//! The user's word about manifests that lie where nobody set them up: in the present folder, or in a data directory that
//! only a file of that folder names. The word is kept outside such folders, in the user's own state directory, and holds
//! for one file with one content: a manifest that changed needs a new word.
//!
//! What must hold: nothing that lies in such a folder can give the word; a register that cannot be read allows nothing.

use crate::home::{HOME, variable};
use cjm_platform::files::{FileError, create_fresh, read_regular};
use cjm_platform::lock::{FileLock, LockError};
use cjm_wire::canonical::hex;
use cjm_wire::describe::{Described, shell_word};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Variable that names the folder of a user's state, as the XDG base directories have it.
const STATE_VARIABLE: &str = "XDG_STATE_HOME";
/// Below the home directory, when that variable is not set.
const STATE_DEFAULT: &str = ".local/state";
/// Folder and file of the register below it.
const FOLDER: &str = "cjm";
const FILE: &str = "allowed.json";
const LOCK_FILE: &str = "allowed.lock";
/// Largest register that is read, in bytes: a hundred thousand manifests.
const REGISTER_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// How long a writer waits for another one.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// The form of the file.
const FORMAT: u32 = 1;

/// Manifests that the user allowed: real path and hash of the content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    format: u32,
    manifests: BTreeMap<String, String>,
}

/// The file that keeps them.
#[derive(Debug, Clone)]
pub struct Register {
    folder: PathBuf,
}

/// Why the user's word cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum AllowedError {
    /// There is no place for it.
    #[error("what you allow cannot be kept: neither XDG_STATE_HOME nor HOME is an absolute path")]
    NoPlace,
    /// The file cannot be read or written.
    #[error("the register of what you allowed, {}, cannot be {action}", path.display())]
    File {
        /// The register.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is no register.
    #[error("the register of what you allowed, {}, is damaged: {problem}", path.display())]
    Damaged {
        /// The register.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It is a link; it would become a file here, and what it leads to would stay as it is.
    #[error("the register of what you allowed, {}, is a link to {}, which is not ours to write", path.display(), leads_to.display())]
    Linked {
        /// The register.
        path: PathBuf,
        /// What it leads to.
        leads_to: PathBuf,
    },
    /// A path that JSON text cannot hold.
    #[error("{} has a name that is not UTF-8 text, and cannot be kept in the register", path.display())]
    Name {
        /// The manifest.
        path: PathBuf,
    },
}

impl Described for AllowedError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoPlace => "allowed.no_place",
            Self::File { .. } => "allowed.file",
            Self::Damaged { .. } => "allowed.damaged",
            Self::Linked { .. } => "allowed.linked",
            Self::Name { .. } => "allowed.name",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::NoPlace => "set HOME to your home directory".to_owned(),
            Self::File { .. } => "see that the folder is yours and its disk has space".to_owned(),
            Self::Damaged { path, .. } => {
                format!(
                    "remove it (`rm {}`) and allow again what you trust",
                    shell_word(&path.to_string_lossy())
                )
            }
            Self::Linked { path, leads_to } => format!(
                "put that file in the place of the link (`cp --remove-destination {} {}`), and try again",
                shell_word(&leads_to.to_string_lossy()),
                shell_word(&path.to_string_lossy())
            ),
            Self::Name { .. } => "rename the folder or the file".to_owned(),
        }
    }
}

impl Allowed {
    /// Whether the word was given for the manifest at `path` with this content.
    #[must_use]
    pub fn covers(&self, path: &Path, content: &[u8]) -> bool {
        key(path).and_then(|key| self.manifests.get(&key)).is_some_and(|hash| *hash == fingerprint(content))
    }

    /// Whether the word was given for this file, with whatever content.
    #[must_use]
    pub fn knows(&self, path: &Path) -> bool {
        key(path).is_some_and(|key| self.manifests.contains_key(&key))
    }

    /// Paths of all of them.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.manifests.keys().map(Path::new)
    }
}

impl Register {
    /// This user's.
    ///
    /// # Errors
    /// When the environment names no place for it.
    pub fn of_user() -> Result<Self, AllowedError> {
        let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = absolute(STATE_VARIABLE).or_else(|| absolute(HOME).map(|home| home.join(STATE_DEFAULT)));
        state.map(|state| Self::at(state.join(FOLDER))).ok_or(AllowedError::NoPlace)
    }

    /// In this folder, which is made with the first word.
    #[must_use]
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// What is allowed; nothing when there is no register yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self) -> Result<Allowed, AllowedError> {
        let path = self.path();
        let damaged = |problem: String| AllowedError::Damaged { path: path.clone(), problem };
        let bytes = match read_regular(&path, REGISTER_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.io_kind() == Some(std::io::ErrorKind::NotFound) => {
                return Ok(Allowed::default());
            }
            Err(FileError::Io { action, source, .. }) => {
                return Err(AllowedError::File { path: path.clone(), action, source });
            }
            Err(other) => return Err(damaged(other.to_string())),
        };
        let allowed: Allowed = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if allowed.format != FORMAT {
            return Err(damaged(format!("its format is {}, and {FORMAT} is known", allowed.format)));
        }
        Ok(allowed)
    }

    /// Keeps the word for manifests with the content they have.
    ///
    /// # Errors
    /// When the register cannot be read or written; nothing is allowed then that was not before.
    pub fn allow<'m>(
        &self,
        manifests: impl IntoIterator<Item = (&'m Path, &'m [u8])>,
    ) -> Result<(), AllowedError> {
        let mut given = Vec::new();
        for (path, content) in manifests {
            let key = key(path).ok_or_else(|| AllowedError::Name { path: path.to_owned() })?;
            given.push((key, fingerprint(content)));
        }
        self.change(|allowed| allowed.manifests.extend(given))
    }

    /// Takes the word back for every manifest at or below `place`; says for which.
    ///
    /// # Errors
    /// When the register cannot be read or written.
    pub fn revoke(&self, place: &Path) -> Result<Vec<PathBuf>, AllowedError> {
        let of_file = if place.is_dir() { None } else { key(place).map(PathBuf::from) };
        let place =
            of_file.unwrap_or_else(|| std::fs::canonicalize(place).unwrap_or_else(|_| place.to_owned()));
        let mut taken = Vec::new();
        self.change(|allowed| {
            allowed.manifests.retain(|path, _| {
                let stays = !Path::new(path).starts_with(&place);
                if !stays {
                    taken.push(PathBuf::from(path));
                }
                stays
            });
        })?;
        Ok(taken)
    }

    fn change(&self, change: impl FnOnce(&mut Allowed)) -> Result<(), AllowedError> {
        let failed = |action| move |source| AllowedError::File { path: self.path(), action, source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed("made"))?;
        let owner = format!("pid {}", std::process::id());
        let lock = FileLock::acquire(&self.folder.join(LOCK_FILE), &owner, LOCK_WAIT);
        let _lock = lock.map_err(|error| match error {
            LockError::Io { source, .. } => failed("locked")(source),
            held @ LockError::Held { .. } => failed("locked")(std::io::Error::other(held.to_string())),
        })?;
        let before = self.read()?;
        let mut after = before.clone();
        change(&mut after);
        after.format = FORMAT;
        // What is gone from the disk is forgotten, so that the register does not grow for ever.
        after.manifests.retain(|path, _| Path::new(path).exists());
        if after == before {
            return Ok(());
        }
        if let Ok(leads_to) = std::fs::read_link(self.path()) {
            return Err(AllowedError::Linked { path: self.path(), leads_to: self.folder.join(leads_to) });
        }
        self.write(&after).map_err(failed("written"))
    }

    fn write(&self, allowed: &Allowed) -> std::io::Result<()> {
        let beside = self.folder.join(format!(".{FILE}.new"));
        let mut file = create_fresh(&beside)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(serde_json::to_string_pretty(allowed)?.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, self.path())
    }
}

/// The name of a manifest in the register: its folder without links, and its own name as it stands there. A link that
/// lies in a folder is a file of that folder, wherever it leads.
fn key(path: &Path) -> Option<String> {
    let folder = std::fs::canonicalize(path.parent()?).ok()?;
    folder.join(path.file_name()?).to_str().map(str::to_owned)
}

fn fingerprint(content: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_register_that_is_a_link_is_read_and_stays_one() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (register, kept) = (Register::at(folder.path().join("state")), folder.path().join("kept.json"));
        let (one, other) = (folder.path().join("one.json"), folder.path().join("other.json"));
        for manifest in [&one, &other] {
            std::fs::write(manifest, "{}").expect("write");
        }
        register.allow([(one.as_path(), &b"{}"[..])]).expect("allowed");
        std::fs::rename(register.path(), &kept).expect("moved");
        symlink(&kept, register.path()).expect("linked");
        let before = std::fs::read(&kept).expect("there");
        let refused = register.allow([(other.as_path(), &b"{}"[..])]).expect_err("a link");
        assert!(refused.to_string().contains(&format!("is a link to {}", kept.display())), "{refused}");
        assert_eq!(
            (std::fs::read_link(register.path()).ok(), std::fs::read(&kept).ok()),
            (Some(kept), Some(before))
        );
        // Where a link leads is said from its own folder, not from the present one.
        std::fs::remove_file(register.path()).expect("removed");
        symlink("../kept.json", register.path()).expect("linked");
        let refused = register.allow([(other.as_path(), &b"{}"[..])]).expect_err("a link");
        let leads_to = folder.path().join("state/../kept.json");
        assert!(refused.to_string().contains(&format!("is a link to {}", leads_to.display())), "{refused}");
        // What changes nothing is not refused.
        register.allow([(one.as_path(), &b"{}"[..])]).expect("allowed");
        assert!(register.read().expect("read").covers(&one, b"{}"));
    }

    #[test]
    fn the_word_holds_for_one_file_with_one_content() {
        let folder = tempfile::tempdir().expect("tempdir");
        let register = Register::at(folder.path().join("state/cjm"));
        let (tool, link) = (folder.path().join("tool.json"), folder.path().join("link.json"));
        std::fs::write(&tool, "one").expect("write");
        symlink(&tool, &link).expect("link");
        assert!(!register.read().expect("none yet").covers(&tool, b"one"));
        register.allow([(&*tool, b"one".as_slice())]).expect("allow");
        let allowed = register.read().expect("read");
        assert!(allowed.covers(&tool, b"one"));
        assert!(!allowed.covers(&tool, b"two"), "another content");
        assert!(!allowed.covers(&link, b"one"), "another file");
        let mode = std::fs::metadata(register.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(register.revoke(folder.path()).expect("revoke").len(), 1);
        assert!(!register.read().expect("read").covers(&tool, b"one"));
    }

    #[test]
    fn what_is_gone_is_forgotten_and_a_damaged_register_allows_nothing() {
        let folder = tempfile::tempdir().expect("tempdir");
        let register = Register::at(folder.path().join("cjm"));
        let (first, second) = (folder.path().join("a.json"), folder.path().join("b.json"));
        for path in [&first, &second] {
            std::fs::write(path, "x").expect("write");
            register.allow([(&**path, b"x".as_slice())]).expect("allow");
        }
        std::fs::remove_file(&first).expect("remove");
        register.allow([(&*second, b"y".as_slice())]).expect("allow");
        let allowed = register.read().expect("read");
        assert_eq!(allowed.paths().collect::<Vec<_>>(), [std::fs::canonicalize(&second).expect("real")]);
        for (text, says) in [("{", "EOF"), (r#"{"format":2,"manifests":{}}"#, "format is 2")] {
            std::fs::write(register.path(), text).expect("write");
            let error = register.read().expect_err("damaged");
            assert!(error.to_string().contains(says) && error.next_step().contains("rm "), "{error}");
            assert!(
                register.allow([(&*second, b"x".as_slice())]).is_err(),
                "a damaged file is not written over"
            );
        }
    }
}
