//! What to do next about what can go wrong when an environment is made, where that takes more than a line.

use crate::constraint::{Constraint, PythonVersion, SDK_NEEDS};
use cjm_catalog::installation::install_all_step;
use cjm_platform::files::FileError;
use cjm_wire::describe::{Described as _, shell_word};
use cjm_wire::manifest::ManifestError;
use cjm_wire::settings_file::CondaType;
use std::fmt;
use std::path::{Path, PathBuf};

/// What to do where two entries come to one name.
pub(crate) const ONE_NAME_STEP: &str = "give one of the two another name (`code.name` in its manifest, `name` in its class), or remove its entry";

/// What to do where another version of a package is installed.
pub(crate) const OTHER_VERSION_STEP: &str = "name the version that is there, or none; another one is installed by `cjm-ctl install-all`, once the list asks for it";

/// What to do about a list that cannot be read.
pub(crate) fn list_step(error: &FileError) -> String {
    match error {
        FileError::NotText { .. } | FileError::TooLarge { .. } => error.next_step().to_owned(),
        FileError::NotRegular { .. } | FileError::Io { .. } => {
            "name the file with --capabilities FILE, or run the command where capabilities.yaml lies"
                .to_owned()
        }
    }
}

/// What to do when the program of a manifest is nowhere.
pub(crate) fn install_step(program: &str) -> String {
    if program.contains('/') {
        return format!(
            "put a program at `{program}`, or correct the path in the manifest (one that is not absolute starts at the \
             manifest's folder); then run install-all again"
        );
    }
    format!(
        "install `{program}` (on Debian often `apt-get install {program}`), or give its absolute path in the manifest; then \
         run install-all again"
    )
}

/// What an entry comes to, as the end of a sentence.
pub(crate) fn gets(version: Option<PythonVersion>) -> String {
    version.map_or_else(|| "takes none of those".to_owned(), |version| format!("gets {version}"))
}

/// What to do where no interpreter is one that an entry takes.
pub(crate) fn interpreter_step(wanted: &str) -> String {
    format!(
        "install a Python that satisfies `{wanted}` (Debian: `apt-get install python3`), or widen `python_version` in the \
         entry"
    )
}

/// What to do where the interpreter that an entry comes to is too old: this is what it says of it now, or that of its conda
/// environment is meant. A newer one is taken where there is one, so that what is left is to allow it, or to install it.
pub(crate) fn old_interpreter_step(wanted: Option<&str>) -> String {
    let Some(wanted) = wanted else {
        return "write `python>=3.9` among the dependencies of the `env_file`, then run `cjm-ctl install-all --force`"
            .to_owned();
    };
    let at_least = format!(">={}.{}", SDK_NEEDS.0, SDK_NEEDS.1);
    if !Constraint::parse(wanted).is_some_and(|wanted| wanted.accepts_some_from(SDK_NEEDS)) {
        return format!(
            "write `python_version: \"{at_least}\"` in the entry; where only older ones are found, install a newer Python"
        );
    }
    // A lower bound that an older one satisfies says less than this.
    let others = wanted.split(',').map(str::trim).filter(|clause| !clause.starts_with(">="));
    let bounds = std::iter::once(&*at_least).chain(others).collect::<Vec<_>>().join(",");
    format!(
        "install a Python that satisfies `{bounds}` (Debian: `apt-get install python3`), then run install-all again"
    )
}

/// What to do where a package does not import, or says what cannot be read.
pub(crate) const LOOK_STEP: &str =
    "read the last lines: the module must import in its own environment; then run the same command again";
/// What to do where a package imports what nobody installed: where what it requires is said, in its folder or in its entry.
pub(crate) fn requirement_step(module: &str, folder: Option<&Path>) -> String {
    let first = module.split('.').next().unwrap_or(module);
    let brings = format!("add the package that brings `{first}`");
    let again = "then run install-all again";
    let Some(folder) = folder else {
        return format!("{brings} to `interface_libs` of its entry in the list; {again}");
    };
    let project = folder.join("pyproject.toml");
    match project.exists() {
        true => format!("{brings} to `dependencies` in {}; {again}", project.display()),
        false => format!("{brings} to `install_requires` in {}; {again}", folder.join("setup.py").display()),
    }
}

/// What to do about a host that has a worker of what would go.
pub(crate) fn host_step(pid: Option<i32>) -> String {
    let ends = pid.map_or_else(|| "end that host".to_owned(), |pid| format!("`kill {pid}` ends that host"));
    format!("{ends}, or let it unload the capability; `--while-running` does it all the same")
}

/// What to do where a module holds no capability class, or several.
pub(crate) const CLASS_STEP: &str = "see that the module itself defines one capability class, whose methods are all there; then run the same command again";
/// What to do where what is named as an adapter is none.
pub(crate) const ADAPTER_STEP: &str = "name it as MODULE:CLASS, by a class of that module which has `task_name` and `required_tool_protocol`; then run the \
     same command again";
/// What to do where the words that a tool says of itself may not stand in a manifest.
pub(crate) const WORDS_STEP: &str = "correct that in the class or in the package's pyproject.toml, whichever says it; then run the same command again";
/// What to do where the task of an adapter is no name.
pub(crate) const TASK_STEP: &str = "give the adapter a `task_name` of letters, digits, `-` and `_` (64 at most); then run the same command again";
/// What to do where it cannot be told which module of a package is meant.
pub(crate) const MODULES_STEP: &str = "call the module with the capability class as the package is called, or leave it alone in the package; then run the same \
     command again";
/// What to do where the standard library has a module of the same name.
pub(crate) const SHADOWED_STEP: &str =
    "rename the package, its module as well as `name` in its pyproject.toml; then run the same command again";

/// What to do about a folder that is written as a package's name is.
pub(crate) fn folder_step(text: &str) -> String {
    format!(
        "write `./{text}` for the folder; for the package of a registry, name its version: `NAME==VERSION`"
    )
}

/// What to do about something in a package's folder that is no file.
pub(crate) fn out_of_folder_step(path: &Path) -> String {
    let word = shell_word(&path.to_string_lossy());
    format!(
        "remove it (`rm {word}`) or put it elsewhere, for it is part of no package; then run install-all again"
    )
}

/// What to do about something of a removed tool that could not be deleted.
pub(crate) fn rest_step(path: &Path) -> String {
    let word = shell_word(&path.to_string_lossy());
    format!(
        "no tool needs it any more: `rm -rf {word}` takes it away, run by its owner; unmount first what is mounted in it"
    )
}

/// What to do about what is mounted in an environment that was to go.
pub(crate) fn mounted_step(mount: &Path) -> String {
    format!("`umount {}`, then run it again", shell_word(&mount.to_string_lossy()))
}

/// What to do where a tool would take the name of another list's.
pub(crate) fn another_name_step(capability: &str) -> String {
    let word = shell_word(capability);
    format!("give it another name; where it is to take that place, `cjm-ctl remove {word}` first")
}

/// What another command is changing.
#[derive(Debug)]
pub enum Changed {
    /// A data directory.
    DataDir(PathBuf),
    /// One environment of conda's: its name or place, and the data directory that it is changed for, where that is known.
    Conda(PathBuf, Option<PathBuf>),
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataDir(folder) => write!(f, "{}", folder.display()),
            Self::Conda(environment, data_dir) => {
                write!(f, "the conda environment {}", environment.display())?;
                let data_dir = data_dir.as_deref();
                data_dir.map_or(Ok(()), |folder| write!(f, " for the data directory {}", folder.display()))
            }
        }
    }
}

/// What to do while another command is at work.
pub(crate) fn changed_step(what: &Changed) -> String {
    let status = match what {
        Changed::DataDir(_) => " (`cjm-ctl status`)".to_owned(),
        Changed::Conda(_, None) => String::new(),
        Changed::Conda(_, Some(folder)) => {
            format!(" (`status` with `--data-dir {}`)", shell_word(&folder.to_string_lossy()))
        }
    };
    format!("wait for its end{status}, then run this again")
}

/// Where a tool came from whose environment another entry names.
#[derive(Debug)]
pub enum Whence {
    /// Another list.
    List(PathBuf),
    /// Another data directory.
    DataDir(PathBuf),
    /// Another one, where nothing lies any more.
    GoneDataDir(PathBuf),
}

impl fmt::Display for Whence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(list) => write!(f, "from {}", list.display()),
            Self::DataDir(folder) => write!(f, "in the data directory {}", folder.display()),
            Self::GoneDataDir(folder) => {
                write!(f, "in the data directory {}, which was moved or removed since", folder.display())
            }
        }
    }
}

/// What to do where an entry names the environment of another tool.
pub(crate) fn environment_step(capability: &str, whence: &Whence) -> String {
    let word = shell_word(capability);
    match whence {
        Whence::List(_) => {
            format!(
                "give the entry another `env_name`; where it is to take that place, `cjm-ctl remove {word}` first"
            )
        }
        Whence::GoneDataDir(_) => {
            "give the entry another `env_name`; where nobody needs that tool any more, `cjm-ctl install-all --force` makes the \
             environment anew"
                .to_owned()
        }
        Whence::DataDir(folder) => {
            let folder = shell_word(&folder.to_string_lossy());
            format!(
                "give the entry another `env_name`; where it is to take that place, take that tool away first: `remove {word}` \
                 with `--data-dir {folder}`"
            )
        }
    }
}

/// What to do where an entry gives the name of what another one has installed.
pub(crate) fn another_entry_step(capability: &str, other: &str) -> String {
    let word = shell_word(capability);
    format!(
        "remove one of the two entries, or give it another name; where \"{other}\" has another name by now, `cjm-ctl remove \
         {word}`, then run install-all again"
    )
}

/// What to do when what makes conda's environments is nowhere.
pub(crate) fn conda_step(kind: CondaType) -> String {
    let place = match kind {
        CondaType::Micromamba => {
            "`cjm-ctl setup-runtime` fetches it where cjm.yaml says where to (`runtime.prefix`); or put `micromamba` on the \
             PATH, or"
                .to_owned()
        }
        CondaType::Miniforge | CondaType::Conda => format!("put `{}` on the PATH, or", kind.program()),
    };
    format!("{place} choose another with --conda-type, CJM_CONDA_TYPE or `runtime.conda_type` in cjm.yaml")
}

/// What to do about a manifest that an entry names: whoever wrote it, no installation writes it anew.
pub(crate) fn source_step(error: &ManifestError, path: &Path) -> String {
    match error {
        ManifestError::UnsupportedVersion { version, .. } => {
            ManifestError::UnsupportedVersion { version: version.clone(), is_installed: false }.next_step()
        }
        other => other.next_step_at(path),
    }
}

/// What to do where what a tool was made from calls itself otherwise now.
pub(crate) fn own_name_step(list: Option<&Path>) -> String {
    format!("{} does that, and the old name goes; or give it its old name again", install_all_step(list))
}

/// What to do about a manifest that is broken.
pub(crate) fn broken_step(capability: &str) -> String {
    format!("correct the file; or `cjm-ctl remove {}` takes it away", shell_word(capability))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_about_an_old_interpreter_keeps_what_the_entry_says_of_it_where_it_can() {
        for (wanted, told) in [
            (Some(">=3.8"), "a Python that satisfies `>=3.9` "),
            (Some(">=3.6, <3.13"), "a Python that satisfies `>=3.9,<3.13` "),
            (Some("<3.13,!=3.11"), "a Python that satisfies `>=3.9,<3.13,!=3.11` "),
            (Some("3.8"), "`python_version: \">=3.9\"` in the entry"),
            (Some("<3.9"), "`python_version: \">=3.9\"` in the entry"),
            (None, "`python>=3.9` among the dependencies of the `env_file`"),
        ] {
            let step = old_interpreter_step(wanted);
            assert!(step.contains(told), "{wanted:?}: {step}");
        }
    }

    #[test]
    fn what_a_host_uses_is_refused_with_the_command_that_ends_the_host() {
        assert!(host_step(Some(7)).starts_with("`kill 7` ends that host, or"), "{}", host_step(Some(7)));
        assert!(host_step(None).starts_with("end that host, or"));
    }
}
