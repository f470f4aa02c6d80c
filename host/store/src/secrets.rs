//! Secrets of capabilities, in one file that only its owner can read (`secrets/secrets.json`, the ancestor's format):
//! `{scope: {capability: {KEY: value}}}`. Values leave it for the tool that declared them and for nobody else; no error
//! and no log holds one.
//!
//! For which manifest a secret was set stands beside it (`secrets.owners.json`): a name alone gives no right to it.
//!
//! What must hold: the folder is 0700 and the file 0600, from their first instant; a reader sees the old file or the
//! new one; a file that is not what it should be is refused and kept, never written over.

use crate::room::said_of;
use cjm_platform::files::open_to_lock;
use cjm_wire::canonical::hex;
use cjm_wire::describe::{Described, exit, shell_word};
use cjm_wire::error::NO_INODE;
use cjm_wire::ids::{INSTANCE_ID_BYTES_MAX, InstanceId};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Folder below the data directory.
pub const SECRETS_DIR: &str = "secrets";
/// The file in it.
pub const SECRETS_FILE: &str = "secrets.json";
/// Beside it, ours alone: for which manifest a secret was set.
pub const OWNERS_FILE: &str = "secrets.owners.json";
/// The scope of whoever names none.
pub const DEFAULT_SCOPE: &str = "__default__";
/// Largest file that is read, in bytes.
pub const SECRETS_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Longest value, in bytes: what a process can be given as one variable.
pub const SECRET_BYTES_MAX: usize = 128 * 1024 - 1;
/// How long a writer waits for another one.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often it looks.
const LOCK_POLL: Duration = Duration::from_millis(5);
/// How often a file that is no JSON is read before it counts as damaged.
const READS_MAX: u32 = 5;
/// The pause between two reads.
const READ_PAUSE: Duration = Duration::from_millis(20);
const LOCK_FILE: &str = ".secrets.lock";
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Keeps secrets.
///
/// Promises: what was set is there for every later reader, whatever is killed when; two writers lose nothing of each
/// other's.
pub trait Secrets: Send + Sync + std::fmt::Debug {
    /// One value, if there is one.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, scope: Option<&str>, capability: &str, key: &str) -> Result<Option<String>, SecretsError>;
    /// Names of a capability's secrets, sorted; never values.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn names(&self, scope: Option<&str>, capability: &str) -> Result<Vec<String>, SecretsError>;
    /// Keeps a value, in place of the one there was, for the data directory's own manifests.
    ///
    /// # Errors
    /// When the store cannot be read or written, or name or value cannot become a variable.
    fn set(&self, scope: Option<&str>, capability: &str, key: &str, value: &str) -> Result<(), SecretsError>;
    /// Keeps a value for the manifest at `owner`, an absolute path, and for no other of the same name.
    ///
    /// # Errors
    /// As [`Self::set`].
    fn set_for(
        &self,
        scope: Option<&str>,
        capability: &str,
        key: &str,
        value: &str,
        owner: &Path,
    ) -> Result<(), SecretsError>;
    /// The manifest that a value was set for. None where nobody said so: it was set without one, or by the ancestor; then
    /// it belongs to the data directory's own manifests. [`belongs_to`](crate::owners::belongs_to) answers both.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn owner_of(
        &self,
        scope: Option<&str>,
        capability: &str,
        key: &str,
    ) -> Result<Option<PathBuf>, SecretsError>;
    /// Forgets a value. False when there was none.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    fn remove(&self, scope: Option<&str>, capability: &str, key: &str) -> Result<bool, SecretsError>;
}

/// The file of one data directory. It is made with the first secret.
#[derive(Debug, Clone)]
pub struct FileSecrets {
    folder: PathBuf,
}

/// Why secrets cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// Not JSON, or not of this shape. The text is not quoted: it may hold secrets.
    #[error("{} is damaged: {problem}; it was left as it is", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its place and without its text.
        problem: String,
    },
    /// The file system could not do it.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The folder is a link to one that others may enter; a link must not lead to another mode of what it leads to.
    #[error("{} is a link to a folder that others may enter", path.display())]
    LinkedOpen {
        /// The link.
        path: PathBuf,
    },
    /// A file in the folder is a link; it would become a file here, and what it leads to would stay as it is.
    #[error("{} is a link to {}, which is not ours to write; nothing was changed", path.display(), leads_to.display())]
    Linked {
        /// The link.
        path: PathBuf,
        /// What it leads to.
        leads_to: PathBuf,
    },
    /// Another process writes, and does not end.
    #[error("another process has been writing {} for {} s", path.display(), LOCK_WAIT_MAX.as_secs())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// It could not become a variable of a process.
    #[error("{what}")]
    Unusable {
        /// What, without the value.
        what: String,
    },
}

impl Described for SecretsError {
    fn code(&self) -> &'static str {
        match self {
            Self::Damaged { .. } => "secrets.damaged",
            Self::File { .. } => "secrets.file",
            Self::LinkedOpen { .. } => "secrets.linked_open",
            Self::Linked { .. } => "secrets.linked",
            Self::Busy { .. } => "secrets.busy",
            Self::Unusable { .. } => "secrets.unusable",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Damaged { path, .. } => format!(
                "correct it by hand, or move it away (`mv {} {}`) and set the secrets again",
                shell_word(&path.to_string_lossy()),
                shell_word(&format!("{}.damaged", path.display()))
            ),
            Self::File { source, .. } if source.to_string().contains(NO_INODE) => {
                "remove files that are not needed from that disk, or give it more inodes (`df -i` counts them); then try again"
                    .to_owned()
            }
            Self::File { .. } => "see that the data directory is yours and its disk has space".to_owned(),
            Self::LinkedOpen { path } => format!(
                "close it yourself (`chmod 700 {}/`), or remove the link, and set the secret again",
                shell_word(&path.to_string_lossy())
            ),
            Self::Linked { path, leads_to } => format!(
                "change it there yourself, or put that file in the place of the link (`cp --remove-destination {} {}`), and \
                 try again",
                shell_word(&leads_to.to_string_lossy()),
                shell_word(&path.to_string_lossy())
            ),
            Self::Busy { .. } => "end that process, or wait for it, then try again".to_owned(),
            Self::Unusable { .. } => "give another name or value".to_owned(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Unusable { .. } => exit::DOMAIN,
            _ => exit::STORE,
        }
    }
}

type Scopes = Map<String, Value>;

impl FileSecrets {
    /// The secrets of `data_dir`; touches nothing.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self { folder: data_dir.join(SECRETS_DIR) }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join(SECRETS_FILE)
    }

    fn failed(&self, doing: &'static str) -> impl Fn(std::io::Error) -> SecretsError {
        self.failed_at(doing, SECRETS_FILE)
    }

    fn failed_at(&self, doing: &'static str, file: &str) -> impl Fn(std::io::Error) -> SecretsError {
        let path = self.folder.join(file);
        move |source| {
            let said = said_of(&source, &path);
            SecretsError::File { doing, path: path.clone(), source: std::io::Error::new(source.kind(), said) }
        }
    }

    /// Reads the file; where it is no JSON, a few times: somebody may be writing it in place.
    fn read(&self) -> Result<Scopes, SecretsError> {
        for _ in 1..READS_MAX {
            match self.read_once(&self.path()) {
                Err(SecretsError::Damaged { .. }) => std::thread::sleep(READ_PAUSE),
                done => return done,
            }
        }
        self.read_once(&self.path())
    }

    fn read_once(&self, path: &Path) -> Result<Scopes, SecretsError> {
        let damaged = |problem: String| SecretsError::Damaged { path: path.to_owned(), problem };
        let meta = match std::fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Scopes::new()),
            other => other.map_err(self.failed("read"))?,
        };
        if !meta.is_file() {
            return Err(damaged("not a regular file".to_owned()));
        }
        if meta.len() > SECRETS_BYTES_MAX {
            return Err(damaged(format!("{} bytes long, more than {SECRETS_BYTES_MAX}", meta.len())));
        }
        if meta.permissions().mode() & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "others may read the secrets; the next set-secret corrects it");
        }
        let text = std::fs::read(path).map_err(self.failed("read"))?;
        let value: Value = serde_json::from_slice(&text).map_err(|error| {
            damaged(format!("not JSON from line {}, column {}", error.line(), error.column()))
        })?;
        let well_formed = value.as_object().is_some_and(|scopes| {
            scopes.values().all(|scope| scope.as_object().is_some_and(|s| s.values().all(Value::is_object)))
        });
        match value {
            Value::Object(scopes) if well_formed => Ok(scopes),
            _ => Err(damaged("not of the shape {scope: {capability: {KEY: value}}}".to_owned())),
        }
    }

    /// Makes the folder, or closes it to others. What a link leads to is not ours to change.
    fn make_folder(&self) -> Result<(), SecretsError> {
        let failed = || self.failed("make the folder of");
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(&self.folder).map_err(failed())?;
        let found = std::fs::symlink_metadata(&self.folder).map_err(failed())?;
        if !found.is_symlink() {
            let mode = Permissions::from_mode(DIR_MODE);
            return std::fs::set_permissions(&self.folder, mode).map_err(failed());
        }
        let target = std::fs::metadata(&self.folder).map_err(failed())?;
        if target.permissions().mode() & !DIR_MODE & 0o777 != 0 {
            return Err(SecretsError::LinkedOpen { path: self.folder.clone() });
        }
        Ok(())
    }

    fn lock(&self) -> Result<File, SecretsError> {
        self.make_folder()?;
        let path = self.folder.join(LOCK_FILE);
        if std::fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(SecretsError::Damaged { path, problem: "not a regular file".to_owned() });
        }
        let file = open_to_lock(&path).map_err(self.failed("lock"))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_WAIT_MAX => {
                    std::thread::sleep(LOCK_POLL);
                }
                Err(TryLockError::WouldBlock) => return Err(SecretsError::Busy { path: self.path() }),
                Err(TryLockError::Error(source)) => return Err(self.failed("lock")(source)),
            }
        }
    }

    /// Refuses to write where one of the files is a link: who keeps secrets in another place means them to be there. Reading
    /// follows it.
    ///
    /// # Errors
    /// Which it is.
    pub fn refuse_links(&self) -> Result<(), SecretsError> {
        let linked = [SECRETS_FILE, OWNERS_FILE].into_iter().find_map(|file| {
            let path = self.folder.join(file);
            let leads_to = self.folder.join(std::fs::read_link(&path).ok()?);
            Some(SecretsError::Linked { path, leads_to })
        });
        linked.map_or(Ok(()), Err)
    }

    /// Beside them, to the disk, then in their places.
    fn write(&self, files: &[(&str, &Scopes)]) -> Result<(), SecretsError> {
        self.refuse_links()?;
        // All are on the disk before one takes its place: where there is no room for one of them, none is changed.
        for (file, scopes) in files {
            let text = serde_json::to_string_pretty(scopes).unwrap_or_default();
            self.write_beside(file, &text).map_err(|error| {
                // What cannot be removed was not written either, and holds nothing that was not there before.
                files.iter().for_each(|(file, _)| drop(std::fs::remove_file(self.beside(file))));
                self.failed_at("write", file)(error)
            })?;
        }
        for (file, _) in files {
            std::fs::rename(self.beside(file), self.folder.join(file))
                .map_err(self.failed_at("write", file))?;
        }
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(self.failed("write"))
    }

    fn write_beside(&self, file: &str, text: &str) -> std::io::Result<()> {
        let beside = self.beside(file);
        // What an earlier writer left may be anybody's to read.
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut new = OpenOptions::new().create_new(true).write(true).mode(FILE_MODE).open(&beside)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()
    }

    fn beside(&self, file: &str) -> PathBuf {
        self.folder.join(format!(".{file}.new"))
    }

    fn keep(
        &self,
        scope: Option<&str>,
        capability: &str,
        key: &str,
        value: &str,
        owner: Option<&Path>,
    ) -> Result<(), SecretsError> {
        check(capability, key, value)?;
        let _lock = self.lock()?;
        let mut scopes = self.read()?;
        put(&mut scopes, scope, capability, key, value.into());
        let mut owners = self.owners()?;
        match owner {
            Some(owner) => {
                // With the hash of the value, so that what others set later in its place is not taken for the owner's.
                let record = json!({"manifest": owner, "value_sha256": fingerprint(value)});
                put(&mut owners, scope, capability, key, record);
            }
            None => {
                take(&mut owners, scope, capability, key);
            }
        }
        if owner.is_some() || self.folder.join(OWNERS_FILE).exists() {
            // First the owner: a value without one would belong to others.
            return self.write(&[(OWNERS_FILE, &owners), (SECRETS_FILE, &scopes)]);
        }
        self.write(&[(SECRETS_FILE, &scopes)])
    }

    fn owners(&self) -> Result<Scopes, SecretsError> {
        self.read_once(&self.folder.join(OWNERS_FILE))
    }
}

impl Secrets for FileSecrets {
    fn get(&self, scope: Option<&str>, capability: &str, key: &str) -> Result<Option<String>, SecretsError> {
        let scopes = self.read()?;
        let value = scopes.get(scope_name(scope)).and_then(|s| s.get(capability)).and_then(|c| c.get(key));
        Ok(value.and_then(Value::as_str).map(str::to_owned))
    }

    fn names(&self, scope: Option<&str>, capability: &str) -> Result<Vec<String>, SecretsError> {
        let scopes = self.read()?;
        let secrets =
            scopes.get(scope_name(scope)).and_then(|s| s.get(capability)).and_then(Value::as_object);
        let mut names: Vec<String> = secrets.into_iter().flat_map(Map::keys).cloned().collect();
        names.sort();
        Ok(names)
    }

    fn set(&self, scope: Option<&str>, capability: &str, key: &str, value: &str) -> Result<(), SecretsError> {
        self.keep(scope, capability, key, value, None)
    }

    fn set_for(
        &self,
        scope: Option<&str>,
        capability: &str,
        key: &str,
        value: &str,
        owner: &Path,
    ) -> Result<(), SecretsError> {
        if owner.to_str().is_none() || !owner.is_absolute() {
            let what = format!("{} cannot be kept as the path of a manifest", owner.display());
            return Err(SecretsError::Unusable { what });
        }
        self.keep(scope, capability, key, value, Some(owner))
    }

    fn owner_of(
        &self,
        scope: Option<&str>,
        capability: &str,
        key: &str,
    ) -> Result<Option<PathBuf>, SecretsError> {
        let Some(value) = self.get(scope, capability, key)? else { return Ok(None) };
        let owners = self.owners()?;
        let record = owners.get(scope_name(scope)).and_then(|s| s.get(capability)).and_then(|c| c.get(key));
        let text = |name: &str| record.and_then(|record| record.get(name)).and_then(Value::as_str);
        let is_of_this_value = text("value_sha256") == Some(fingerprint(&value).as_str());
        Ok(text("manifest").filter(|_| is_of_this_value).map(PathBuf::from))
    }

    fn remove(&self, scope: Option<&str>, capability: &str, key: &str) -> Result<bool, SecretsError> {
        if !self.path().exists() {
            return Ok(false);
        }
        let _lock = self.lock()?;
        let mut scopes = self.read()?;
        if !take(&mut scopes, scope, capability, key) {
            return Ok(false);
        }
        let mut owners = self.owners()?;
        if take(&mut owners, scope, capability, key) {
            self.write(&[(SECRETS_FILE, &scopes), (OWNERS_FILE, &owners)])?;
        } else {
            self.write(&[(SECRETS_FILE, &scopes)])?;
        }
        Ok(true)
    }
}

fn put(scopes: &mut Scopes, scope: Option<&str>, capability: &str, key: &str, value: Value) {
    let capabilities = scopes.entry(scope_name(scope)).or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(capabilities) = capabilities else { return };
    let keys = capabilities.entry(capability).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(keys) = keys {
        keys.insert(key.to_owned(), value);
    }
}

/// False when there was none.
fn take(scopes: &mut Scopes, scope: Option<&str>, capability: &str, key: &str) -> bool {
    let scope = scope_name(scope);
    let Some(Value::Object(capabilities)) = scopes.get_mut(scope) else { return false };
    let Some(Value::Object(keys)) = capabilities.get_mut(capability) else { return false };
    // `remove` would move the last one into its place, and people compare files.
    if keys.shift_remove(key).is_none() {
        return false;
    }
    if keys.is_empty() {
        capabilities.shift_remove(capability);
    }
    if capabilities.is_empty() {
        scopes.shift_remove(scope);
    }
    true
}

fn fingerprint(value: &str) -> String {
    hex(&Sha256::digest(value.as_bytes()))
}

fn scope_name(scope: Option<&str>) -> &str {
    scope.filter(|scope| !scope.is_empty()).unwrap_or(DEFAULT_SCOPE)
}

fn check(capability: &str, key: &str, value: &str) -> Result<(), SecretsError> {
    let unusable = |what: String| Err(SecretsError::Unusable { what });
    if !InstanceId::is_valid(capability) {
        return unusable(format!(
            "{capability:?} cannot be the name of a capability (letters, digits, `.`, `_`, `-`; at most \
             {INSTANCE_ID_BYTES_MAX} bytes)"
        ));
    }
    if !is_variable_name(key) {
        return unusable(format!(
            "{key:?} cannot be the name of a variable (letters, digits and `_`, and no digit first)"
        ));
    }
    if value.contains('\0') || value.len() > SECRET_BYTES_MAX {
        return unusable(format!(
            "the value cannot be that of a variable (a zero byte, or more than {SECRET_BYTES_MAX} bytes)"
        ));
    }
    Ok(())
}

fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
