//! The environment of an entry with an `env_file`: conda makes it, uv adds the packages, and what came of it is written
//! down as the lock. A link at `<data_dir>/envs/NAME` leads to it, wherever conda put it.
//!
//! What is there is kept, also when the file has changed since: `--force` makes it anew, as the ancestor does.
//!
//! What must hold: nothing of what is there goes before the new one has an interpreter that will do, nor at all where a tool
//! of another data directory lives in it. `--force` takes it from a directory that is gone, and says so.

use crate::after_a_kill::{make_room, waiting_among};
use crate::conda::{Conda, CondaOptions, Estimate, removal_command};
use crate::constraint::PythonVersion;
use crate::elsewhere::check_not_of_another;
use crate::error::EnvironmentError;
use crate::interpreters::{Interpreter, probe};
use crate::place_lock::{Asker, PlaceLock};
use crate::set_aside::{SetAside, clear_half_made, is_half_made, lead, while_made};
use crate::stamp::Stamp;
use cjm_catalog::installer::INSTALL_ALL;
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
    /// Whose it is to be.
    pub(crate) data_dir: &'a Path,
    options: &'a CondaOptions,
}

/// What conda has of an entry's environment.
#[derive(Debug)]
pub(crate) struct Looked {
    conda: Conda,
    name: String,
    data_dir: PathBuf,
    env_file: String,
    there: There,
    /// Whose it was until now, for people.
    taken_over: Option<String>,
    places: Vec<PlaceLock>,
}

#[derive(Debug)]
enum There {
    Nothing,
    ToKeep(PathBuf, Interpreter),
    ToReplace(PathBuf),
}

/// An environment that is there.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) interpreter: Interpreter,
    /// What was to be fetched, when conda made it now and could say.
    pub(crate) estimate: Option<Estimate>,
    /// What conda had made before, which takes its place again unless it is let go.
    pub(crate) former: Option<SetAside>,
    /// Whose it was until now, for people.
    pub(crate) taken_over: Option<String>,
    /// Whether conda had it before.
    pub(crate) was_there: bool,
    /// Nobody else changes it until these are dropped.
    pub(crate) places: Vec<PlaceLock>,
}

impl Made {
    /// One of which nothing that was there before went.
    pub(crate) fn kept(interpreter: Interpreter, places: Vec<PlaceLock>) -> Self {
        Self { interpreter, estimate: None, former: None, taken_over: None, was_there: true, places }
    }
}

impl<'a> CondaEntry<'a> {
    /// Of an entry that has an `env_file`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read(
        entry: &'a Entry,
        base: &Path,
        data_dir: &'a Path,
        options: &'a CondaOptions,
    ) -> Result<Option<Self>, EnvironmentError> {
        let Some(env_file) = &entry.env_file else { return Ok(None) };
        let name = &entry.env_name;
        if env_file.contains("://") {
            return Ok(Some(Self {
                env_file: env_file.clone(),
                content_hash: None,
                name,
                data_dir,
                options,
            }));
        }
        let path = base.join(env_file);
        let text = read_regular(&path, ENV_FILE_BYTES_MAX).map_err(|error| EnvironmentError::File {
            action: "read the `env_file`",
            path: path.clone(),
            source: std::io::Error::other(error),
        })?;
        let content_hash = Some(crate::files::hash_bytes(&text));
        Ok(Some(Self { env_file: path.display().to_string(), content_hash, name, data_dir, options }))
    }

    /// See [`CondaOptions::names`].
    pub(crate) fn names(&self) -> PathBuf {
        self.options.names()
    }

    /// That an environment was there before, for people.
    pub(crate) fn found_in_words(&self, home: &Path) -> String {
        let removal = removal_command(self.options.kind, home);
        format!(
            "its environment {} was there before, and nothing in it says that an installation made it: `cjm-ctl remove` keeps it, and `{removal}` takes \
             it away",
            home.display()
        )
    }

    /// Where the project's own environments are, where it has a place for them.
    pub(crate) fn prefix(&self) -> Option<&Path> {
        self.options.prefix.as_deref()
    }

    /// Looks what is there, before anything is changed; with `force`, all of it is made anew. What stays is refused here where
    /// `check` refuses its interpreter.
    ///
    /// # Errors
    /// When there is no conda, when the environment holds no Python, is another data directory's or worked on, or what `check`
    /// says of it.
    pub(crate) async fn look(
        &self,
        force: bool,
        check: impl Fn(PythonVersion) -> Result<(), EnvironmentError>,
    ) -> Result<Looked, EnvironmentError> {
        let conda = Conda::find(self.options).await?;
        let asker = Asker { data_dir: self.data_dir, command: INSTALL_ALL, env_name: self.name };
        let mut places = vec![PlaceLock::by_name(asker, &conda.names())?];
        let listed = conda.list().await?;
        let found = conda.find_in(&listed, self.name).await;
        found.as_deref().map_or(Ok(()), |home| PlaceLock::also_at(&mut places, asker, home))?;
        // What waits since an installation was killed may be all that there is.
        let place = found.clone().or_else(|| waiting_among(&listed, self.prefix(), self.name));
        let taken_over =
            place.as_deref().map_or(Ok(None), |home| check_not_of_another(home, self.data_dir, force))?;
        place.filter(|_| force).map_or(Ok(()), |home| make_room(&home))?;
        let there = match found.filter(|home| !is_half_made(home)) {
            None => There::Nothing,
            Some(home) if force => There::ToReplace(home),
            Some(home) => {
                let interpreter = interpreter_in(self.name, &home).await?;
                check(interpreter.version)?;
                There::ToKeep(home, interpreter)
            }
        };
        let (name, env_file) = (self.name.to_owned(), self.env_file.clone());
        Ok(Looked { conda, name, data_dir: self.data_dir.to_owned(), env_file, there, taken_over, places })
    }
}

impl Looked {
    /// Sees that the environment is there, and that `link` leads to it. One that is replaced waits beside the new one, with
    /// `stamp` if the link has led to it. One that was made now and whose interpreter `check` refuses goes again: it would be
    /// found the next time, whatever the file says by then. `note` is told before conda begins what nothing else speaks for, and
    /// when that is gone.
    ///
    /// # Errors
    /// With conda's last lines, when the environment holds no Python, or with what `check` says of it. What was there is there.
    pub(crate) async fn ensure(
        mut self,
        link: &Path,
        stamp: Option<&Stamp>,
        check: impl Fn(PythonVersion) -> Result<(), EnvironmentError>,
        note: impl Fn(bool) -> Result<(), EnvironmentError>,
        on_line: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Made, EnvironmentError> {
        let former = match &self.there {
            There::ToKeep(home, interpreter) => {
                lead(link, home)?;
                return Ok(Made::kept(interpreter.clone(), self.places));
            }
            There::ToReplace(home) => Some(SetAside::take(home, link, stamp)?),
            There::Nothing => None,
        };
        let (conda, name) = (&self.conda, self.name.as_str());
        // Of one that is replaced the place is known, and free.
        let place = if former.is_none() { conda.place_of(name).await } else { None };
        place.as_deref().map_or(Ok(()), clear_half_made)?;
        let estimate = conda.estimate(name, &self.env_file).await;
        if let Some(Estimate { bytes, packages }) = estimate {
            on_line(&format!("{packages} packages to fetch, {} MB", bytes.div_ceil(MB_BYTES)));
        }
        // Of one that is replaced the link speaks, and what was there takes its place again.
        if former.is_none() {
            note(true)?;
        }
        let making = conda.create(name, &self.env_file, on_line);
        let made = match (&former, &place) {
            (Some(former), _) => former.while_made(making).await,
            (None, Some(place)) => while_made(place, making).await,
            (None, None) => making.await,
        };
        if let Err(failed) = made {
            // What somebody makes there later is not ours.
            if former.is_none() && matches!(conda.environment(name).await, Ok(None)) {
                place.as_deref().map_or(Ok(()), clear_half_made)?;
                note(false)?;
            }
            return Err(failed);
        }
        let found = conda.environment(name).await?;
        let home = found.ok_or_else(|| EnvironmentError::EnvironmentMissing { env_name: name.to_owned() })?;
        let asker = Asker { data_dir: &self.data_dir, command: INSTALL_ALL, env_name: name };
        PlaceLock::also_at(&mut self.places, asker, &home)?;
        let interpreter = match interpreter_in(name, &home).await {
            Ok(interpreter) => check(interpreter.version).map(|()| interpreter),
            Err(error) => Err(error),
        };
        if let (Err(refused), None) = (&interpreter, &former) {
            let removed = conda.remove(&home, on_line).await.and_then(|()| note(false));
            if let Err(error) = removed {
                tracing::warn!(%refused, %error, next_step = error.next_step(), "what was refused stays there");
            }
        }
        let interpreter = interpreter?;
        lead(link, &home)?;
        let (taken_over, places) = (self.taken_over, self.places);
        Ok(Made { interpreter, estimate, former, taken_over, was_there: false, places })
    }
}

async fn interpreter_in(env_name: &str, home: &Path) -> Result<Interpreter, EnvironmentError> {
    let python = home.join("bin/python");
    let found = probe(&python, false).await;
    found.ok_or_else(|| EnvironmentError::NoPythonInside { env_name: env_name.to_owned(), python })
}

/// Where an environment is: what a link leads to, or the folder itself.
pub(crate) fn home(environment: &Path) -> PathBuf {
    std::fs::read_link(environment).unwrap_or_else(|_| environment.to_owned())
}
