//! Why settings cannot be had, and what to do about it.

use crate::home::HomeError;
use cjm_platform::files::FileError;
use cjm_wire::describe::{Described, shell_word};
use cjm_wire::settings_file::SettingsFileError;
use std::path::PathBuf;

/// Why settings cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file that was named, or found, cannot be read.
    #[error("cannot read the settings file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: FileError,
    },
    /// The directory that relative paths are of, and where a settings file is looked for, is gone.
    #[error("the present directory cannot be used")]
    NoDirectory {
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is no `cjm.yaml`.
    #[error("the settings file {} is not right: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SettingsFileError,
    },
    /// The file that was named has keys, and none of them is one of settings.
    #[error("{} is no settings file: it has {}, and no key of settings", path.display(), keys.join(", "))]
    NoSettings {
        /// The file.
        path: PathBuf,
        /// Some of its keys.
        keys: Vec<String>,
    },
    /// A data directory that only a found file names leads out of itself.
    #[error("{} is a link to {}, in a data directory that nobody but {} names", path.display(), target.display(), file.display())]
    LinkInside {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
        /// The data directory.
        data_dir: PathBuf,
        /// The settings file.
        file: PathBuf,
    },
    /// Whether a data directory that only a found file names leads out of itself cannot be told.
    #[error("whether links lead out of the data directory {} cannot be told: cannot list {}: {source}", data_dir.display(), path.display())]
    LinksUntold {
        /// The folder.
        path: PathBuf,
        /// The data directory.
        data_dir: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The data directory is no text, and manifests and workers are told of it as text.
    #[error("the data directory {} has a name that is not UTF-8", path.display())]
    NotText {
        /// The directory.
        path: PathBuf,
    },
    /// Nobody names the data directory, and it has no home: another one in each folder would be nobody's wish.
    #[error("there is no place for the data directory: {problem}")]
    NoDataDir {
        /// What is wrong with the home.
        problem: String,
    },
    /// A path begins with `~`, and leads nowhere.
    #[error("{place} is \"{}\": {source}", path.display())]
    Home {
        /// Where it was said.
        place: &'static str,
        /// What was said.
        path: PathBuf,
        /// Why not.
        source: HomeError,
    },
    /// There is no such type.
    #[error("{place} is \"{value}\", and not micromamba, miniforge or conda")]
    CondaType {
        /// Where it was said.
        place: &'static str,
        /// What was said.
        value: String,
    },
}

impl Described for SettingsError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "settings.unreadable",
            Self::File { source, .. } => source.code(),
            Self::NoSettings { .. } => "settings.no_settings",
            Self::LinkInside { .. } => "settings.link_inside",
            Self::LinksUntold { .. } => "settings.links_untold",
            Self::NotText { .. } => "settings.path_not_text",
            Self::Home { source, .. } => source.code(),
            Self::NoDataDir { .. } => "settings.no_data_dir",
            Self::NoDirectory { .. } => "settings.no_directory",
            Self::CondaType { .. } => "settings.conda_type",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Unreadable { .. } => {
                "name an existing file with --cjm-config, or remove what lies there under this name"
                    .to_owned()
            }
            Self::File { source, .. } => source.next_step(),
            Self::NoSettings { .. } => {
                "name a cjm.yaml with --cjm-config; docs/CONFIGURATION.md lists its keys".to_owned()
            }
            Self::LinkInside { data_dir, .. } => {
                let directory = shell_word(&data_dir.to_string_lossy());
                format!("remove the link; or, if you made it, name the directory: --data-dir {directory}")
            }
            Self::LinksUntold { path, data_dir, .. } => {
                let [path, data_dir] = [path, data_dir].map(|path| shell_word(&path.to_string_lossy()));
                format!("let this user list it (`chmod u+r {path}`); or, if it is yours, name it: --data-dir {data_dir}")
            }
            Self::NotText { .. } => {
                "name another one with --data-dir, or give its folder a name in UTF-8".to_owned()
            }
            Self::Home { source, .. } => source.next_step(),
            Self::NoDataDir { .. } => {
                "set HOME to your home directory, or name the data directory: --data-dir, CJM_DATA_DIR, or `data_dir` in \
                 cjm.yaml"
                    .to_owned()
            }
            Self::NoDirectory { .. } => "change into another one".to_owned(),
            Self::CondaType { place, .. } => format!("set {place} to micromamba, miniforge or conda"),
        }
    }
}
