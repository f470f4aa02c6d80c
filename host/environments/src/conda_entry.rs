//! The environment of an entry with an `env_file`: conda makes it, uv adds the packages, and what came of it is written
//! down as the lock. A link at `<data_dir>/envs/NAME` leads to it, wherever conda put it.
//!
//! What is there is kept, also when the file has changed since: `--force` makes it anew, as the ancestor does.

use crate::conda::{Conda, CondaOptions, Estimate};
use crate::constraint::PythonVersion;
use crate::error::EnvironmentError;
use crate::files::check_nothing_mounted;
use crate::former::clear_place;
use crate::interpreters::{Interpreter, probe};
use cjm_platform::files::read_regular;
use cjm_wire::capabilities_file::Entry;
use cjm_wire::describe::Described as _;
use std::path::{Path, PathBuf};

/// Largest `env_file`, in bytes.
const ENV_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

const MB_BYTES: u64 = 1_000_000;

/// What an entry says of its conda environment.
#[derive(Debug)]
pub(crate) struct CondaEntry<'a> {
    /// Path or URL of the file.
    env_file: String,
    /// Hash of a file's content; a URL's is not known before conda has read it.
    pub(crate) content_hash: Option<String>,
    name: &'a str,
    options: &'a CondaOptions,
}

/// A conda environment that is there.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) interpreter: Interpreter,
    /// What was to be fetched, when it was made now and conda could say.
    pub(crate) estimate: Option<Estimate>,
}

impl<'a> CondaEntry<'a> {
    /// Of an entry that has an `env_file`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read(
        entry: &'a Entry,
        base: &Path,
        options: &'a CondaOptions,
    ) -> Result<Option<Self>, EnvironmentError> {
        let Some(env_file) = &entry.env_file else { return Ok(None) };
        let name = &entry.env_name;
        if env_file.contains("://") {
            return Ok(Some(Self { env_file: env_file.clone(), content_hash: None, name, options }));
        }
        let path = base.join(env_file);
        let text = read_regular(&path, ENV_FILE_BYTES_MAX).map_err(|error| EnvironmentError::File {
            action: "read the `env_file`",
            path: path.clone(),
            source: std::io::Error::other(error),
        })?;
        let content_hash = Some(crate::files::hash_bytes(&text));
        Ok(Some(Self { env_file: path.display().to_string(), content_hash, name, options }))
    }

    /// Sees that the environment is there, and that `link` leads to it; with `force`, makes it anew. One that was made now and
    /// whose interpreter `check` refuses goes again: it would be found the next time, whatever the file says by then.
    ///
    /// # Errors
    /// With conda's last lines, when the environment holds no Python, or with what `check` says of it.
    pub(crate) async fn ensure(
        &self,
        link: &Path,
        force: bool,
        check: impl Fn(PythonVersion) -> Result<(), EnvironmentError>,
        on_line: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Made, EnvironmentError> {
        let conda = Conda::find(self.options).await?;
        let mut found = conda.environment(self.name).await?;
        if let Some(there) = found.as_deref().filter(|_| force) {
            check_nothing_mounted(there)?;
            conda.remove(self.name, on_line).await?;
            found = None;
        }
        let mut estimate = None;
        let is_new = found.is_none();
        if is_new {
            estimate = conda.estimate(self.name, &self.env_file).await;
            if let Some(Estimate { bytes, packages }) = estimate {
                on_line(&format!("{packages} packages to fetch, {} MB", bytes.div_ceil(MB_BYTES)));
            }
            conda.create(self.name, &self.env_file, on_line).await?;
            found = conda.environment(self.name).await?;
        }
        let home =
            found.ok_or_else(|| EnvironmentError::EnvironmentMissing { env_name: self.name.to_owned() })?;
        let interpreter = match self.interpreter(&home).await {
            Ok(interpreter) => check(interpreter.version).map(|()| interpreter),
            Err(error) => Err(error),
        };
        if let (Err(refused), true) = (&interpreter, is_new)
            && let Err(error) = conda.remove(self.name, on_line).await
        {
            tracing::warn!(%refused, %error, next_step = error.next_step(), "what was refused stays there");
        }
        let interpreter = interpreter?;
        lead(link, &home)?;
        Ok(Made { interpreter, estimate })
    }

    async fn interpreter(&self, home: &Path) -> Result<Interpreter, EnvironmentError> {
        let python = home.join("bin/python");
        let found = probe(&python, false).await;
        found.ok_or_else(|| EnvironmentError::NoPythonInside { env_name: self.name.to_owned(), python })
    }
}

/// Makes `link` lead to `home`.
fn lead(link: &Path, home: &Path) -> Result<(), EnvironmentError> {
    if std::fs::read_link(link).is_ok_and(|known| known == home) {
        return Ok(());
    }
    let failed = |source| EnvironmentError::writing("link", link.to_owned(), source);
    // A link is removed and not followed; a folder there is an environment that this one takes the place of.
    if link.is_symlink() {
        std::fs::remove_file(link).map_err(failed)?;
    } else {
        clear_place(link)?;
    }
    std::fs::create_dir_all(link.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    std::os::unix::fs::symlink(home, link).map_err(failed)
}

/// Where an environment is: what a link leads to, or the folder itself.
pub(crate) fn home(environment: &Path) -> PathBuf {
    std::fs::read_link(environment).unwrap_or_else(|_| environment.to_owned())
}
