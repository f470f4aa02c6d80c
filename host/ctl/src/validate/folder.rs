//! A folder as a whole: its list, its manifests, its compositions, its settings, its package, and all Python below it.

use crate::cli::Format;
use crate::fault::Fault;
use crate::validate::document::{self, Checked};
use crate::validate::finding::Finding;
use crate::validate::format::{FILE_BYTES_MAX, detect, has_nodes};
use crate::validate::source;
use cjm_catalog::Catalog;
use cjm_environments::{EnvironmentError, package_folders, package_refusal};
use cjm_platform::files::read_regular_to_string;
use cjm_wire::adapter::is_adapter;
use cjm_wire::capabilities_file::CapabilitiesFile;
use cjm_wire::placed::Place;
use cjm_wire::settings_file::{SETTINGS_FILE, SettingsFile, SettingsFileError};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The list of a project, by its usual name.
const LIST: &str = "capabilities.yaml";
/// A manifest by its usual name: one that cannot be read is a fault, and not somebody else's file.
const MANIFEST: &str = "manifest.json";
/// Most files directly in the folder that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// Errors and warnings, and whether anything but source was looked at.
pub(crate) async fn check(folder: &Path, catalog: Result<Catalog, Fault>) -> (Checked, bool) {
    let mut found = Found::default();
    // Settings that are broken are found below, and are no reason to look at nothing else.
    let catalog = catalog.unwrap_or_else(|_| Catalog::discover(&[]));
    let mut listed = Vec::new();
    let (paths, left_out) = entries(folder, ENTRIES_MAX);
    found.warnings.extend(left_out);
    for path in paths {
        match what(&path) {
            What::Nothing => {}
            What::Unreadable(finding) => found.add(&path, (vec![finding], Vec::new())),
            What::Settings(text) => found.add(&path, settings(&text)),
            What::Document(Format::CapabilitiesYaml, text) => {
                found.add(&path, document::capabilities(&path, &text));
                listed.extend(packages(&path, &text));
            }
            What::Document(Format::Composition, text) => {
                found.add(&path, document::composition(&text, &catalog));
            }
            What::Document(Format::Adapter, text) => found.add(&path, document::adapter(&path, &text)),
            What::Document(_, text) => found.add(&path, document::manifest(&path, &text)),
        }
    }
    if ["pyproject.toml", "setup.py"].iter().any(|name| folder.join(name).symlink_metadata().is_ok()) {
        let refused = package_refusal(folder);
        found.add(folder, (refused.iter().map(refusal).collect(), Vec::new()));
    }
    let only_source = !found.any;
    found.sources(folder, listed).await;
    ((found.errors, found.warnings), !only_source)
}

/// The source of the packages that a list names: errors, warnings.
pub(crate) async fn sources_of_list(path: &Path, text: &str) -> Checked {
    let mut found = Found::default();
    for (folder, python_version) in packages(path, text) {
        found.source(&folder, python_version.as_deref(), &mut BTreeSet::new()).await;
    }
    (found.errors, found.warnings)
}

/// The error of a package's own description, with its place.
fn refusal(error: &EnvironmentError) -> Finding {
    match error {
        EnvironmentError::BrokenProject { path, line, column, message } => {
            let finding = Finding::of(error, Some((*line, *column)));
            Finding { message: message.clone(), ..finding }.in_file(path)
        }
        _ => Finding::of(error, None),
    }
}

#[derive(Default)]
struct Found {
    errors: Vec<Finding>,
    warnings: Vec<String>,
    /// Something else than source was looked at.
    any: bool,
}

impl Found {
    fn add(&mut self, path: &Path, (errors, warnings): Checked) {
        self.any = true;
        self.errors.extend(errors.into_iter().map(|finding| finding.in_file(path)));
        let path = path.display();
        self.warnings.extend(warnings.into_iter().map(|warning| format!("{path}: {warning}")));
    }

    /// Packages of the list with the Python they ask for, then what is left below the folder.
    async fn sources(&mut self, folder: &Path, listed: Vec<(PathBuf, Option<String>)>) {
        let mut seen = BTreeSet::new();
        for (package, python_version) in listed {
            self.source(&package, python_version.as_deref(), &mut seen).await;
        }
        self.source(folder, None, &mut seen).await;
    }

    async fn source(&mut self, folder: &Path, python_version: Option<&str>, seen: &mut BTreeSet<PathBuf>) {
        let (mut files, warnings) = source::files(folder);
        self.warnings.extend(warnings);
        files.retain(|file| seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())));
        for (errors, warnings) in [source::syntax(&files, python_version).await, source::logging(&files)] {
            self.errors.extend(errors);
            self.warnings.extend(warnings);
        }
    }
}

enum What {
    /// Somebody else's.
    Nothing,
    Unreadable(Finding),
    Settings(String),
    Document(Format, String),
}

/// What lies directly in the folder, in the order of its names, and a warning of what is not looked at.
fn entries(folder: &Path, count_max: usize) -> (Vec<PathBuf>, Option<String>) {
    let place = folder.display();
    let listed = std::fs::read_dir(folder)
        .and_then(|files| files.map(|file| file.map(|file| file.path())).collect::<std::io::Result<_>>());
    let mut paths: Vec<PathBuf> = match listed {
        Ok(paths) => paths,
        Err(error) => return (Vec::new(), Some(format!("{place}: what lies in it cannot be read: {error}"))),
    };
    paths.sort();
    let left_out = paths.len().saturating_sub(count_max);
    let warning = (left_out > 0).then(|| {
        let last = paths[count_max - 1].display();
        format!("{place}: {left_out} files were not looked at, those behind {last}: more than {count_max} are there")
    });
    paths.truncate(count_max);
    (paths, warning)
}

fn what(path: &Path) -> What {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let in_manifests = path.parent().is_some_and(|folder| folder.ends_with("manifests"));
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_named = [LIST, MANIFEST, SETTINGS_FILE].contains(&&*name) || (in_manifests && extension == "json");
    if !is_named && !["json", "yaml", "yml"].contains(&extension) {
        return What::Nothing;
    }
    let text = match read_regular_to_string(path, FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(error) if is_named => {
            return What::Unreadable(Finding {
                code: error.code().to_owned(),
                message: error.to_string(),
                next_step: error.next_step().to_owned(),
                file: None,
                place: None,
            });
        }
        Err(_) => return What::Nothing,
    };
    let speaks_of_itself = is_named || text.contains("\"format_version\"") || is_adapter(&text);
    match (&*name, detect(path, &text)) {
        (SETTINGS_FILE, _) => What::Settings(text),
        (LIST, _) => What::Document(Format::CapabilitiesYaml, text),
        (_, Some(Format::Composition)) if has_nodes(&text) => What::Document(Format::Composition, text),
        (_, Some(format @ (Format::Manifest | Format::Adapter))) if speaks_of_itself => {
            What::Document(format, text)
        }
        _ => What::Nothing,
    }
}

/// Checks a `cjm.yaml`.
pub(crate) fn settings(text: &str) -> Checked {
    let error = SettingsFile::parse(text).err();
    let finding = |error: &SettingsFileError| Finding::of(error, place_in_words(&error.to_string()));
    (error.iter().map(finding).collect(), Vec::new())
}

/// Where a reader of YAML says it ended: `line 3 column 5`.
fn place_in_words(words: &str) -> Option<Place> {
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    let (_, from_line) = words.split_once("line ")?;
    let (_, from_column) = from_line.split_once("column ")?;
    Some((number(from_line)?, number(from_column)?))
}

fn packages(path: &Path, text: &str) -> Vec<(PathBuf, Option<String>)> {
    let Ok(file) = CapabilitiesFile::parse(text) else { return Vec::new() };
    package_folders(&file, &document::base_of(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_looked_at_is_named() {
        let folder = tempfile::tempdir().expect("tempdir");
        for name in ["c", "a", "d", "b"] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        let path = |name: &str| folder.path().join(name);
        assert_eq!(entries(folder.path(), 4), (["a", "b", "c", "d"].map(path).to_vec(), None));
        let (paths, warning) = entries(folder.path(), 3);
        assert_eq!(paths, ["a", "b", "c"].map(path));
        let warning = warning.expect("one is left out");
        assert!(warning.contains("1 files were not looked at"), "{warning}");
        assert!(warning.contains(&path("c").display().to_string()), "{warning}");
        let (paths, warning) = entries(&path("a"), 3);
        assert!(paths.is_empty() && warning.is_some_and(|words| words.contains("cannot be read")));
    }
}
