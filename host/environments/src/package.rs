//! What an entry asks for, as requirements of the installer: names with versions, or folders relative to
//! `capabilities.yaml`. A folder needs a `pyproject.toml` (or `setup.py`): it is built and installed like any
//! package, so that the environment does not change when the folder does, until it is installed again.

use crate::error::EnvironmentError;
use crate::files::{check_holds_files_alone, hash_bytes, hash_folder};
use cjm_platform::files::read_regular_to_string;
use cjm_wire::capabilities_file::Entry;
use serde::Deserialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Largest `pyproject.toml` or `setup.py`, in bytes.
const PROJECT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Everything an environment is made of.
#[derive(Debug)]
pub(crate) struct Requirements {
    /// The entry's own package, first.
    pub(crate) packages: Vec<Package>,
}

/// One requirement.
#[derive(Debug)]
pub(crate) enum Package {
    /// `name==1.0`, or a URL, as the installer reads it.
    Named(String),
    /// A folder with the source of a package.
    Folder(Folder),
}

/// A folder with the source of a package.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Absolute.
    pub(crate) path: PathBuf,
    /// Name of the distribution, where the folder says it plainly.
    pub(crate) distribution: Option<String>,
    /// Of all its source files.
    content_hash: String,
    /// Of what decides its dependencies.
    metadata_hash: String,
}

#[derive(Deserialize, Default)]
struct PyProject {
    project: Option<Project>,
}

#[derive(Deserialize, Default)]
struct Project {
    name: Option<String>,
    version: Option<toml::Value>,
    #[serde(default)]
    dynamic: Vec<String>,
}

impl PyProject {
    /// The name, where the table `project` is there; whoever builds the package refuses one without name and version.
    fn distribution(self) -> Result<Option<String>, String> {
        let Some(project) = self.project else { return Ok(None) };
        if project.name.is_none() {
            return Err("`project.name` is missing".to_owned());
        }
        if project.version.is_none() && !project.dynamic.iter().any(|field| field == "version") {
            return Err("`project.version` is missing".to_owned());
        }
        Ok(project.name)
    }
}

/// Line and column of a byte, from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

impl Requirements {
    /// Reads the entry; folders are relative to `base`.
    ///
    /// # Errors
    /// When a folder is not a package, or a requirement is not one.
    pub(crate) fn of(entry: &Entry, base: &Path) -> Result<Self, EnvironmentError> {
        let adapters = entry.adapters.iter().filter_map(|adapter| adapter.lib.as_ref());
        let texts = std::iter::once(&entry.package).chain(&entry.interface_libs).chain(adapters);
        let packages = texts.map(|text| Package::parse(text, base)).collect::<Result<_, _>>()?;
        Ok(Self { packages })
    }

    /// With one more; `-e FOLDER` is a folder too.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn with(mut self, text: &str, base: &Path) -> Result<Self, EnvironmentError> {
        let text = text.trim().strip_prefix("-e ").unwrap_or(text);
        self.packages.push(Package::parse(text, base)?);
        Ok(self)
    }

    /// The input of the resolver, one requirement a line.
    pub(crate) fn lines(&self) -> String {
        self.packages.iter().fold(String::new(), |mut lines, package| {
            match package {
                Package::Named(text) => lines.push_str(text),
                Package::Folder(folder) => {
                    if let Some(name) = &folder.distribution {
                        // Writing to a String cannot fail.
                        let _ = write!(lines, "{name} @ ");
                    }
                    lines.push_str(&file_url(&folder.path));
                }
            }
            lines.push('\n');
            lines
        })
    }

    /// Changes when another resolution may be needed.
    pub(crate) fn resolution_hash(&self, python: &str) -> String {
        let mut text = format!("{python}\n{}", self.lines());
        for folder in self.folders() {
            text.push_str(&folder.metadata_hash);
        }
        hash_bytes(text.as_bytes())
    }

    /// The folders, with the hash of their content.
    pub(crate) fn folder_hashes(&self) -> Vec<(&Path, &str)> {
        self.folders().map(|folder| (folder.path.as_path(), folder.content_hash.as_str())).collect()
    }

    pub(crate) fn folders(&self) -> impl Iterator<Item = &Folder> {
        self.packages.iter().filter_map(|package| match package {
            Package::Folder(folder) => Some(folder),
            Package::Named(_) => None,
        })
    }
}

impl Package {
    fn parse(text: &str, base: &Path) -> Result<Self, EnvironmentError> {
        let text = text.trim();
        if let Some(folder) = folder_of(text, base) {
            return Folder::read(&folder).map(Self::Folder);
        }
        // Written into a file of requirements: a line of its own could smuggle in options of the installer.
        if text.starts_with('-') || text.contains(['\n', '\r']) {
            return Err(EnvironmentError::Unsupported(format!("the requirement {text:?}")));
        }
        check_is_no_folder(text, base)?;
        Ok(Self::Named(text.to_owned()))
    }
}

/// The folder that a requirement is, where it is one.
pub(crate) fn folder_of(text: &str, base: &Path) -> Option<PathBuf> {
    let text = text.trim();
    let is_folder = text == "." || ["./", "../", "/"].iter().any(|start| text.starts_with(start));
    is_folder.then(|| base.join(text))
}

/// Refuses what looks like a folder and would be looked for in a registry, where somebody else's package may have that name.
fn check_is_no_folder(text: &str, base: &Path) -> Result<(), EnvironmentError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let looks_like_path = text.contains('/') && text.chars().all(|c| is_name(c) || c == '/');
    let folder = base.join(text);
    let holds_package = || ["pyproject.toml", "setup.py"].iter().any(|file| folder.join(file).is_file());
    if looks_like_path || (text.chars().all(is_name) && holds_package()) {
        return Err(EnvironmentError::FolderAsName { text: text.to_owned() });
    }
    Ok(())
}

impl Folder {
    /// Reads what the folder says of its package.
    ///
    /// # Errors
    /// When it holds none.
    pub(crate) fn read(path: &Path) -> Result<Self, EnvironmentError> {
        let bad = |problem: String| EnvironmentError::BadFolder { path: path.to_owned(), problem };
        let path = path.canonicalize().map_err(|source| EnvironmentError::File {
            action: "open the folder",
            path: path.to_owned(),
            source,
        })?;
        let project = read_regular_to_string(&path.join("pyproject.toml"), PROJECT_BYTES_MAX);
        let setup = read_regular_to_string(&path.join("setup.py"), PROJECT_BYTES_MAX);
        let distribution = match (&project, &setup) {
            (Err(_), Err(_)) => return Err(bad("has no pyproject.toml".to_owned())),
            (Err(_), Ok(_)) => None,
            (Ok(text), _) => {
                let broken = |(line, column), message: String| EnvironmentError::BrokenProject {
                    path: path.join("pyproject.toml"),
                    line,
                    column,
                    message,
                };
                let parsed: PyProject = toml::from_str(text).map_err(|error| {
                    let start = error.span().map_or(0, |span| span.start);
                    broken(place(text, start), error.message().to_owned())
                })?;
                let table = text.find("[project]").unwrap_or(0);
                parsed.distribution().map_err(|message| broken(place(text, table), message))?
            }
        };
        check_holds_files_alone(&path)?;
        let metadata = format!("{}\0{}", project.unwrap_or_default(), setup.unwrap_or_default());
        Ok(Self {
            content_hash: hash_folder(&path)?,
            metadata_hash: hash_bytes(metadata.as_bytes()),
            distribution,
            path,
        })
    }
}

/// `file:///a%20b`.
fn file_url(path: &Path) -> String {
    path.as_os_str().as_encoded_bytes().iter().fold("file://".to_owned(), |mut url, byte| {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(byte) {
            url.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
        url
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(package: &str) -> Entry {
        Entry { name: "x".into(), package: package.into(), ..Entry::default() }
    }

    #[test]
    fn folders_become_named_urls_and_their_content_counts() {
        let base = tempfile::tempdir().expect("tempdir");
        let folder = base.path().join("a tool");
        std::fs::create_dir(&folder).expect("mkdir");
        let missing = Requirements::of(&entry("./a tool"), base.path());
        assert!(matches!(missing, Err(EnvironmentError::BadFolder { .. })), "{missing:?}");
        std::fs::write(folder.join("pyproject.toml"), "[project]\nname = 'a-tool'\nversion = '1'\n")
            .expect("write");
        let first = Requirements::of(&entry("./a tool"), base.path()).expect("a package");
        let lines = first.lines();
        assert!(lines.starts_with("a-tool @ file:///") && lines.ends_with("/a%20tool\n"), "{lines}");
        std::fs::write(folder.join("code.py"), "1").expect("write");
        let second = Requirements::of(&entry("./a tool"), base.path()).expect("a package");
        assert_ne!(first.folder_hashes(), second.folder_hashes());
        assert_eq!(first.resolution_hash("3.11"), second.resolution_hash("3.11"));
        assert_ne!(first.resolution_hash("3.11"), second.resolution_hash("3.12"));
        std::fs::write(folder.join("pyproject.toml"), "[project\n").expect("write");
        let broken = Requirements::of(&entry("./a tool"), base.path());
        assert!(matches!(broken, Err(EnvironmentError::BrokenProject { line: 1, .. })), "{broken:?}");
        std::fs::write(folder.join("pyproject.toml"), "\n[project]\nname = 'a'\n").expect("write");
        let unnamed = Requirements::of(&entry("./a tool"), base.path());
        let Err(EnvironmentError::BrokenProject { line: 2, message, .. }) = unnamed else {
            panic!("{unnamed:?}")
        };
        assert!(message.contains("project.version"), "{message}");
    }

    #[test]
    fn a_folder_that_holds_a_device_or_a_socket_is_refused_wherever_a_builder_would_look() {
        let base = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| base.path().join(name);
        for folder in ["data/.deep", ".git", "node_modules/x", ".venv"] {
            std::fs::create_dir_all(at(folder)).expect("a folder");
        }
        std::fs::write(at("pyproject.toml"), "[project]\nname = 'a'\nversion = '1'\n").expect("written");
        // A link to a folder leads out of it, and one to nothing is what it is to a builder as well.
        for (target, link) in [("/dev", "dev"), ("/proc/nonexistent", "nothing"), ("pyproject.toml", "file")]
        {
            std::os::unix::fs::symlink(target, at(link)).expect("linked");
        }
        let read = || Folder::read(base.path());
        for skipped in [".git/zero", "node_modules/x/zero", ".venv/zero"] {
            std::os::unix::fs::symlink("/dev/zero", at(skipped)).expect("linked");
        }
        assert!(read().is_ok(), "{:?}", read());
        let refused = |name: &str, kind: &str| {
            let error = read().expect_err("it holds no file");
            let EnvironmentError::NoFileInFolder { path, what, .. } = &error else { panic!("{error}") };
            assert_eq!((path, *what), (&at(name), kind), "{error}");
            std::fs::remove_file(at(name)).expect("removed");
        };
        std::os::unix::fs::symlink("/dev/zero", at("data/.deep/zero")).expect("linked");
        refused("data/.deep/zero", "a device");
        let _listener = std::os::unix::net::UnixListener::bind(at("socket")).expect("bound");
        refused("socket", "a socket");
        assert!(read().is_ok());
    }

    #[test]
    fn requirements_stay_as_they_are_and_options_are_refused() {
        let mut whole = entry("lab==1.0");
        whole.interface_libs = vec!["shared>=2".into()];
        let requirements = Requirements::of(&whole, Path::new("/")).expect("requirements");
        assert_eq!(requirements.lines(), "lab==1.0\nshared>=2\n");
        for smuggled in ["--index-url=http://x", "a\n--pre"] {
            assert!(Requirements::of(&entry(smuggled), Path::new("/")).is_err(), "{smuggled:?}");
        }
        assert!(Requirements::of(&entry("./nowhere"), Path::new("/nowhere")).is_err());
    }
}
