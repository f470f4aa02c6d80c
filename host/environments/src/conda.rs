//! Environments that conda makes: micromamba, `mamba` of miniforge, or `conda`, called as the ancestor calls them. It
//! makes, lists and removes them and asks what one would fetch; Python packages on top are uv's.
//!
//! What must hold: in a project's own prefix nothing outside it is listed or removed; of all that it lists an environment counts
//! by its place, and not by its last name: the one that `-n NAME` or our `-p` makes. What is removed goes by its path.

use crate::command::{Answer, command, run, run_well};
use crate::error::EnvironmentError;
use cjm_catalog::NotYours;
use cjm_catalog::plain_path::is_same_file;
use cjm_catalog::settings::{Settings, platform};
use cjm_wire::describe::shell_word;
use cjm_wire::settings_file::CondaType;
use serde::Deserialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(120);
/// How long making or removing an environment may take: gigabytes over a slow line.
const WORK_TIMEOUT: Duration = Duration::from_secs(3 * 3600);
/// How long looking for what would be fetched may take.
const ESTIMATE_TIMEOUT: Duration = Duration::from_secs(600);

/// Which program, and where its environments go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CondaOptions {
    /// Which program.
    pub kind: CondaType,
    /// A project's own prefix; environments go into `envs` below it.
    pub prefix: Option<PathBuf>,
    /// Where the program is, when the PATH is not to be asked.
    pub program: Option<PathBuf>,
    /// Why nothing of it is run: settings that were only found name it, and the user has not allowed them.
    pub not_yours: Option<NotYours>,
}

/// A program that answers.
#[derive(Debug, Clone)]
pub struct Conda {
    program: PathBuf,
    kind: CondaType,
    prefix: Option<PathBuf>,
}

/// What making an environment would fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Bytes of all packages that are not here yet.
    pub bytes: u64,
    /// How many they are.
    pub packages: usize,
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    envs: Vec<PathBuf>,
}

/// What it says of itself. micromamba, and mamba since it is the same program, call it otherwise.
#[derive(Deserialize, Default)]
struct Info {
    #[serde(default, alias = "envs directories")]
    envs_dirs: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct DryRun {
    #[serde(default)]
    actions: Actions,
}

#[derive(Deserialize, Default)]
struct Actions {
    #[serde(default, rename = "FETCH")]
    fetch: Vec<Fetch>,
}

#[derive(Deserialize)]
struct Fetch {
    #[serde(default)]
    size: u64,
}

impl CondaOptions {
    /// From the settings. micromamba may be named, or lie in the prefix where `setup-runtime` puts it.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let program = match settings.conda_type {
            CondaType::Micromamba => micromamba_home(settings).filter(|path| path.is_file()),
            CondaType::Miniforge | CondaType::Conda => None,
        };
        let not_yours = NotYours::check_programs(settings).err();
        Self {
            kind: settings.conda_type,
            prefix: settings.own_prefix().map(Path::to_owned),
            program,
            not_yours,
        }
    }
}

/// Where the micromamba of these settings is, or would be put; none when they name no place.
#[must_use]
pub fn micromamba_home(settings: &Settings) -> Option<PathBuf> {
    let named = settings.binaries.get(&platform()).cloned();
    named.or_else(|| settings.conda_prefix.as_ref().map(|prefix| prefix.join("bin/micromamba")))
}

impl CondaOptions {
    /// What tells names of environments from others: the folder that they are in; empty where conda alone knows that, whichever
    /// conda it is.
    pub(crate) fn names(&self) -> PathBuf {
        names_in(self.prefix.as_deref())
    }
}

/// What takes an environment away that is somebody's own.
#[must_use]
pub(crate) fn removal_command(kind: CondaType, home: &Path) -> String {
    format!("{} env remove -p {}", kind.program(), shell_word(&home.to_string_lossy()))
}

impl Conda {
    /// Which program it is.
    pub(crate) fn kind(&self) -> CondaType {
        self.kind
    }

    /// Finds the program and sees that it answers.
    ///
    /// # Errors
    /// When it is not there or does not answer.
    pub async fn find(options: &CondaOptions) -> Result<Self, EnvironmentError> {
        if let Some(refused) = &options.not_yours {
            return Err(refused.clone().into());
        }
        let name = options.kind.program();
        let missing = |reason: String| EnvironmentError::NoConda { kind: options.kind, reason };
        let program = match &options.program {
            Some(program) => program.clone(),
            None => on_path(name).ok_or_else(|| missing(format!("`{name}` is not on the PATH")))?,
        };
        let mut question = command(&program);
        question.arg("--version");
        match run(question, "looking for conda", QUESTION_TIMEOUT, &|_| {}).await {
            Ok(answer) if answer.success => {
                Ok(Self { program, kind: options.kind, prefix: options.prefix.clone() })
            }
            Ok(answer) => Err(missing(format!("{} ended with {}", program.display(), answer.ending))),
            Err(error) => Err(missing(error.to_string())),
        }
    }

    /// See [`CondaOptions::names`].
    pub(crate) fn names(&self) -> PathBuf {
        names_in(self.prefix.as_deref())
    }

    /// Paths of its environments; with a prefix of the project's own, those below it alone.
    ///
    /// # Errors
    /// When it does not answer with a list.
    pub async fn list(&self) -> Result<Vec<PathBuf>, EnvironmentError> {
        let answer = self.ask(&["env", "list", "--json"], "listing the conda environments").await?;
        let listing: Listing = self.parse(&answer)?;
        let within = |path: &PathBuf| match &self.prefix {
            // The program answers with real paths.
            Some(prefix) => {
                path.starts_with(prefix) || prefix.canonicalize().is_ok_and(|real| path.starts_with(real))
            }
            None => true,
        };
        Ok(listing.envs.into_iter().filter(within).collect())
    }

    /// Path of the environment of this name, if there is one.
    ///
    /// # Errors
    /// When it does not answer with a list.
    pub async fn environment(&self, name: &str) -> Result<Option<PathBuf>, EnvironmentError> {
        Ok(self.find_in(&self.list().await?, name).await)
    }

    /// As [`Conda::environment`], of what it has listed.
    pub(crate) async fn find_in(&self, listed: &[PathBuf], name: &str) -> Option<PathBuf> {
        let is_named = |path: &&PathBuf| path.file_name().is_some_and(|last| last == name);
        // Others lie in it; nobody's tool lives there.
        let is_root = |path: &PathBuf| listed.iter().any(|other| other.starts_with(path.join("envs")));
        let named: Vec<_> = listed.iter().filter(is_named).filter(|path| !is_root(path)).collect();
        if named.is_empty() {
            return None;
        }
        let folders = match &self.prefix {
            Some(prefix) => vec![prefix.join("envs")],
            None => self.envs_dirs().await,
        };
        let folder_of = |path: &PathBuf| path.parent().map(Path::to_owned).unwrap_or_default();
        if folders.is_empty() {
            let is_usual = |path: &&&PathBuf| folder_of(path).file_name().is_some_and(|last| last == "envs");
            return named.iter().find(is_usual).map(|path| (*path).clone());
        }
        // The first of its folders counts, as for a name.
        let in_folder = |folder| named.iter().find(|path| is_same_file(folder, &folder_of(path)));
        folders.iter().find_map(|folder| in_folder(folder)).map(|path| (*path).clone())
    }

    /// Where it makes the environment of this name; None where it does not say.
    pub(crate) async fn place_of(&self, name: &str) -> Option<PathBuf> {
        let folder = match &self.prefix {
            Some(prefix) => Some(prefix.join("envs")),
            None => self.envs_dirs().await.into_iter().next(),
        };
        Some(folder?.join(name))
    }

    /// Where it makes those that are given a name alone; empty where it does not say.
    async fn envs_dirs(&self) -> Vec<PathBuf> {
        let asked = self.ask(&["info", "--json"], "asking where the conda environments are").await;
        asked.and_then(|answer| self.parse::<Info>(&answer)).unwrap_or_default().envs_dirs
    }

    /// Makes an environment of a file or URL.
    ///
    /// # Errors
    /// With its last lines.
    pub async fn create(
        &self,
        name: &str,
        env_file: &str,
        on_line: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), EnvironmentError> {
        let mut arguments = self.create_arguments(name, env_file);
        if self.kind == CondaType::Micromamba {
            arguments.push("-y".into());
        }
        self.work(&arguments, "making the conda environment", on_line).await
    }

    /// Removes the environment at `home`, which was found by [`Conda::environment`].
    ///
    /// # Errors
    /// With its last lines.
    pub async fn remove(
        &self,
        home: &Path,
        on_line: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), EnvironmentError> {
        let arguments =
            ["env".into(), "remove".into(), "-p".into(), home.as_os_str().to_owned(), "-y".into()];
        self.work(&arguments, "removing the conda environment", on_line).await
    }

    /// What [`Conda::create`] would fetch; none when it cannot say.
    pub async fn estimate(&self, name: &str, env_file: &str) -> Option<Estimate> {
        let mut arguments = self.create_arguments(name, env_file);
        arguments.extend(["--dry-run".into(), "--json".into()]);
        let answer = run(self.command(&arguments), "asking what would be fetched", ESTIMATE_TIMEOUT, &|_| {})
            .await
            .ok()
            .filter(|answer| answer.success)?;
        let fetch = self.parse::<DryRun>(&answer).ok()?.actions.fetch;
        let bytes = fetch.iter().fold(0_u64, |sum, package| sum.saturating_add(package.size));
        Some(Estimate { bytes, packages: fetch.len() })
    }

    fn create_arguments(&self, name: &str, env_file: &str) -> Vec<OsString> {
        let verb: &[&str] = match self.kind {
            CondaType::Micromamba => &["create"],
            CondaType::Miniforge | CondaType::Conda => &["env", "create"],
        };
        let mut arguments: Vec<OsString> = verb.iter().map(OsString::from).collect();
        arguments.extend(["-f".into(), env_file.into()]);
        arguments.extend(self.place(name));
        arguments
    }

    /// How it is told which environment is meant. micromamba has a root for all of its environments; the others take
    /// the path of each.
    fn place(&self, name: &str) -> [OsString; 2] {
        match (&self.prefix, self.kind) {
            (Some(prefix), CondaType::Miniforge | CondaType::Conda) => {
                ["-p".into(), prefix.join("envs").join(name).into_os_string()]
            }
            _ => ["-n".into(), name.into()],
        }
    }

    fn command(&self, arguments: &[OsString]) -> tokio::process::Command {
        let mut command = command(&self.program);
        if let (Some(prefix), CondaType::Micromamba) = (&self.prefix, self.kind) {
            command.arg("-r").arg(prefix);
        }
        command.args(arguments);
        command
    }

    async fn ask(&self, arguments: &[&str], what: &str) -> Result<Answer, EnvironmentError> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        run_well(self.command(&arguments), what, QUESTION_TIMEOUT, &|_| {}).await
    }

    async fn work(
        &self,
        arguments: &[OsString],
        what: &str,
        on_line: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), EnvironmentError> {
        run_well(self.command(arguments), what, WORK_TIMEOUT, on_line).await.map(|_| ())
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self, answer: &Answer) -> Result<T, EnvironmentError> {
        // Some print a banner first.
        let text = String::from_utf8_lossy(&answer.stdout);
        let json = text.find('{').map_or(&*text, |start| &text[start..]);
        serde_json::from_str(json).map_err(|error| EnvironmentError::CondaAnswer {
            program: self.program.display().to_string(),
            message: error.to_string(),
        })
    }
}

fn names_in(prefix: Option<&Path>) -> PathBuf {
    prefix.map(|prefix| prefix.join("envs")).unwrap_or_default()
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conda(kind: CondaType, prefix: Option<&str>) -> Conda {
        Conda { program: "/bin/prog".into(), kind, prefix: prefix.map(PathBuf::from) }
    }

    fn words(conda: &Conda, arguments: &[OsString]) -> String {
        let command = conda.command(arguments);
        let words = command.as_std().get_args().map(|word| word.to_string_lossy().into_owned());
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_is_called_as_it_wants_to_be() {
        for (kind, prefix, expected) in [
            (CondaType::Micromamba, None, "create -f e.yml -n lab"),
            (CondaType::Micromamba, Some("/p"), "-r /p create -f e.yml -n lab"),
            (CondaType::Conda, None, "env create -f e.yml -n lab"),
            (CondaType::Conda, Some("/p"), "env create -f e.yml -p /p/envs/lab"),
            (CondaType::Miniforge, Some("/p"), "env create -f e.yml -p /p/envs/lab"),
        ] {
            let conda = conda(kind, prefix);
            assert_eq!(words(&conda, &conda.create_arguments("lab", "e.yml")), expected);
        }
    }

    #[tokio::test]
    async fn an_environment_is_found_by_its_place_and_not_by_its_last_name() {
        let place = tempfile::tempdir().expect("tempdir");
        let says = |name: &str, said: &str| {
            let program = place.path().join(name);
            let script = format!("#!/bin/sh\n[ \"$*\" = 'info --json' ] && echo '{said}'\n");
            std::fs::write(&program, script).expect("written");
            let may_run = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&program, may_run).expect("set");
            Conda { program, kind: CondaType::Conda, prefix: None }
        };
        let [of_conda, of_micromamba] = ["envs_dirs", "envs directories"].map(|key| {
            says(&key.replace(' ', "-"), &format!("{{\"{key}\": [\"/home/u/.conda/envs\", \"/c/envs\"]}}"))
        });
        let (silent, own) = (conda(CondaType::Conda, None), conda(CondaType::Conda, Some("/p/lab")));
        let project = "/project/lab";
        for (who, listed, name, found) in [
            (&of_conda, &["/c", project, "/c/envs/lab"][..], "lab", Some("/c/envs/lab")),
            (&of_micromamba, &["/c", project, "/c/envs/lab"], "lab", Some("/c/envs/lab")),
            (&of_conda, &["/c/envs/lab", "/home/u/.conda/envs/lab"], "lab", Some("/home/u/.conda/envs/lab")),
            (&of_conda, &["/project/envs/lab"], "lab", None),
            (&of_conda, &["/c", "/c/envs/lab"], "c", None),
            (&silent, &[project, "/c/envs/lab"], "lab", Some("/c/envs/lab")),
            (&silent, &[project], "lab", None),
            (&silent, &["/x/envs/lab", "/x/envs/lab/envs/other"], "lab", None),
            (&own, &["/p/lab", project, "/p/lab/envs/other"], "lab", None),
            (&own, &["/p/lab", "/p/lab/envs/lab"], "lab", Some("/p/lab/envs/lab")),
            (&own, &["/p/lab/deeper/envs/lab"], "lab", None),
        ] {
            let listed: Vec<PathBuf> = listed.iter().map(PathBuf::from).collect();
            let told = who.find_in(&listed, name).await;
            assert_eq!(told.as_deref(), found.map(Path::new), "{listed:?} of {who:?}");
        }
    }

    #[test]
    fn answers_are_read_past_a_banner() {
        let conda = conda(CondaType::Conda, None);
        let answer = |stdout: &str| Answer {
            success: true,
            ending: String::new(),
            stdout: stdout.as_bytes().to_vec(),
            stderr_tail: Vec::new(),
        };
        let dry: DryRun = conda
            .parse(&answer("hello\n{\"actions\": {\"FETCH\": [{\"size\": 5}, {\"name\": \"x\"}]}}"))
            .expect("parsed");
        assert_eq!(dry.actions.fetch.iter().map(|fetch| fetch.size).sum::<u64>(), 5);
        assert!(conda.parse::<DryRun>(&answer("{}")).expect("parsed").actions.fetch.is_empty());
        assert!(matches!(conda.parse::<Listing>(&answer("no")), Err(EnvironmentError::CondaAnswer { .. })));
    }
}
