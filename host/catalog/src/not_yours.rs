//! What a folder that was only found has beside manifests and could make this user run: its environments' interpreters, and
//! the programs that its settings name.

use crate::catalog::allow_step;
use crate::folders::Standing;
use crate::settings::Settings;
use cjm_wire::describe::{Described, shell_word};
use std::path::{Path, PathBuf};

/// What was not run, since it lies in a folder that the user did not set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotYours {
    /// An environment in which no tool lives that the user installed or allowed.
    #[error(
        "the environment {} lies in a folder that you did not set up, and none of its tools is one that you installed or \
         allowed", path.display()
    )]
    Environment {
        /// Its folder.
        path: PathBuf,
        /// The data directory it is in.
        data_dir: PathBuf,
    },
    /// A settings file that names programs.
    #[error("{} names programs, lies in a folder that you did not set up, and you have not allowed it", file.display())]
    Programs {
        /// The settings file.
        file: PathBuf,
    },
}

impl NotYours {
    /// Looks at the settings that name the conda to be run.
    ///
    /// # Errors
    /// When they were only found, name programs, and nobody allowed them.
    pub fn check_programs(settings: &Settings) -> Result<(), Self> {
        match &settings.file {
            Some(file) if !settings.programs_are_allowed() => Err(Self::Programs { file: file.clone() }),
            _ => Ok(()),
        }
    }

    /// Looks at an environment of the data directory whose interpreter is to be run. `has_tool`: one that may run lives there.
    ///
    /// # Errors
    /// When the directory was only found, and no such tool lives there.
    pub fn check_environment(settings: &Settings, path: &Path, has_tool: bool) -> Result<(), Self> {
        let may_be_run = settings.data_dir_standing == Standing::Named || has_tool;
        let refused = || Self::Environment { path: path.to_owned(), data_dir: settings.data_dir.clone() };
        if may_be_run { Ok(()) } else { Err(refused()) }
    }
}

impl Described for NotYours {
    fn code(&self) -> &'static str {
        match self {
            Self::Environment { .. } => "install.environment_not_yours",
            Self::Programs { .. } => "settings.not_allowed",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Programs { file } => allow_step(file.parent().unwrap_or(Path::new("/"))),
            Self::Environment { data_dir, .. } => format!(
                "if you trust all that lies there, name its data directory: `--data-dir {}`",
                shell_word(&data_dir.display().to_string())
            ),
        }
    }
}
