//! A folder as a whole: its list, its manifests, its compositions, its settings, its package, and all Python below it.
//! Which files of it are meant is in `project`.

use crate::cli::Format;
use crate::fault::Fault;
use crate::validate::document::{self, Checked};
use crate::validate::finding::Finding;
use crate::validate::format::{FILE_BYTES_MAX, detect, has_nodes};
use crate::validate::project::{COMPOSITIONS, MANIFESTS, Project, entries};
use crate::validate::settings;
use crate::validate::source;
use cjm_catalog::Catalog;
use cjm_catalog::plain_path::is_same_file;
use cjm_environments::{EnvironmentError, package_folders, package_refusal};
use cjm_platform::files::{FileError, read_regular_to_string};
use cjm_wire::adapter::is_adapter;
use cjm_wire::capabilities_file::CapabilitiesFile;
use cjm_wire::describe::shell_word;
use cjm_wire::settings_file::SETTINGS_FILE;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The list of a project, by its usual name.
const LIST: &str = "capabilities.yaml";
/// Most entries of one folder that are asked for whether there is something to look at, and most such folders that are named.
const HELD_MAX: usize = 1_000;
const NOT_LOOKED_AT_NAMED_MAX: usize = 5;
/// A manifest by its usual name: one that cannot be read is a fault, and not somebody else's file.
const MANIFEST: &str = "manifest.json";

/// Errors and warnings, and whether anything but source was looked at.
pub(crate) async fn check(
    folder: &Path,
    data_dir: Option<&Path>,
    manifests: Option<&Path>,
    catalog: Result<Catalog, Fault>,
) -> (Checked, bool) {
    let mut found = Found::default();
    let catalog = found.known(catalog, folder);
    let mut listed = Vec::new();
    let project = Project::of(folder, data_dir);
    found.errors.extend(project.left_out.0);
    found.warnings.extend(project.left_out.1);
    for path in project.paths {
        let is_list = project.list.as_ref().is_some_and(|list| is_same_file(list, &path));
        match what(&path, is_list) {
            What::Nothing => {}
            What::NoComposition => found.warnings.push(format!(
                "{}: it has no key `nodes`, and so was not looked at as a composition",
                path.display()
            )),
            What::OtherList => found.warnings.push(format!(
                "{}: it reads like a list of capabilities and was not looked at, since {LIST} is the list here; \
                 `cjm-ctl validate {}` checks it (`capabilities_config` in {SETTINGS_FILE} names another list)",
                path.display(),
                shell_word(&path.to_string_lossy())
            )),
            What::Unseen(why) => found.errors.push(Finding::unread(&path, why)),
            What::Unreadable(finding) => found.add(&path, (vec![finding], Vec::new())),
            What::Settings(text) => found.add(&path, settings::check(&text)),
            What::Document(Format::CapabilitiesYaml, text) => {
                found.add(&path, document::capabilities(&path, &text, manifests));
                listed.extend(packages(&path, &text));
            }
            What::Document(Format::Composition, text) => {
                found.add(&path, document::composition(&text, catalog.as_ref()));
            }
            What::Document(Format::Adapter, text) => found.add(&path, document::adapter(&path, &text)),
            What::Document(_, text) => found.add(&path, document::manifest(&path, &text)),
        }
    }
    let packages = listed.iter().map(|(package, _)| package.clone());
    let looked_at: Vec<PathBuf> = project.folders.into_iter().chain(packages).collect();
    found.warnings.extend(not_looked_at(folder, &looked_at));
    if ["pyproject.toml", "setup.py"].iter().any(|name| folder.join(name).symlink_metadata().is_ok()) {
        let refused = package_refusal(folder);
        found.add(folder, (refused.iter().map(refusal).collect(), Vec::new()));
    }
    let only_source = !found.any;
    found.sources(folder, listed).await;
    if only_source && found.sources == 0 && found.errors.is_empty() && found.warnings.is_empty() {
        found.warnings.push(format!(
            "{}: there is nothing to check: no list, manifest, composition, settings, package or Python source",
            folder.display()
        ));
    }
    found.tell_each_once();
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
    /// Files of source that were looked at.
    sources: usize,
}

impl Found {
    /// What is installed, where that is known; what of it cannot be read is told, since a composition may call it.
    fn known(&mut self, catalog: Result<Catalog, Fault>, folder: &Path) -> Option<Catalog> {
        let is_found_here = |code: &str| {
            let of_file = code.starts_with("settings_file.") && folder.join(SETTINGS_FILE).exists();
            of_file || code.starts_with("settings.")
        };
        match catalog {
            Ok(catalog) => {
                self.warnings.extend(catalog.unreadable().map(|(path, error)| {
                    format!("what is installed is not known: {} cannot be read: {error}", path.display())
                }));
                Some(catalog)
            }
            // Settings that are broken are found with the folder, and are no reason to look at nothing else.
            Err(Fault::Shown(report)) if !is_found_here(&report.code) => {
                self.warnings.push(format!("what is installed is not known: {}", report.message));
                None
            }
            Err(_) => None,
        }
    }

    fn add(&mut self, path: &Path, (errors, warnings): Checked) {
        self.any = true;
        self.errors.extend(errors.into_iter().map(|finding| finding.in_file(path)));
        let path = path.display();
        self.warnings.extend(warnings.into_iter().map(|warning| format!("{path}: {warning}")));
    }

    /// A list tells what is wrong with the manifests it names, which lie in the folder as well.
    fn tell_each_once(&mut self) {
        let mut told = BTreeSet::new();
        self.errors.retain(|finding| {
            let file = finding.file.as_ref().map(|file| file.canonicalize().unwrap_or_else(|_| file.clone()));
            told.insert((file, finding.place, finding.code.clone(), finding.message.clone()))
        });
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
        let (mut files, left_out) = source::files(folder);
        self.errors.extend(left_out.0);
        self.warnings.extend(left_out.1);
        files.retain(|file| seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())));
        self.sources += files.len();
        for (errors, warnings) in [source::syntax(&files, python_version).await, source::logging(&files)] {
            self.errors.extend(errors);
            self.warnings.extend(warnings);
        }
    }
}

/// Folders in this one that hold such files as are looked at here, and were not.
fn not_looked_at(folder: &Path, looked_at: &[PathBuf]) -> Option<String> {
    let holds = |inner: &PathBuf| {
        let files = entries(inner, HELD_MAX, &mut Checked::default());
        files.iter().any(|file| matches!(what(file, false), What::Document(..) | What::OtherList))
    };
    let is_hidden =
        |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let inner = entries(folder, HELD_MAX, &mut Checked::default()).into_iter();
    let inner = inner.filter(|path| path.is_dir() && !is_hidden(path));
    let others = inner.filter(|path| !looked_at.iter().any(|known| is_same_file(known, path)));
    let found: Vec<String> = others.filter(holds).map(|path| path.to_string_lossy().into_owned()).collect();
    let (first, more) = (found.first()?, found.len().saturating_sub(NOT_LOOKED_AT_NAMED_MAX));
    let named = found.iter().take(NOT_LOOKED_AT_NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    Some(format!(
        "{named}{more}: such files lie there and were not looked at (of a folder, those in it, in {MANIFESTS} and in \
         {COMPOSITIONS} are); `cjm-ctl validate {}` checks them",
        shell_word(first)
    ))
}

enum What {
    /// Somebody else's.
    Nothing,
    /// It lies among compositions and has none of their keys.
    NoComposition,
    /// A list by its keys, and not by its name.
    OtherList,
    /// Nobody knows what it is: this user may not read it.
    Unseen(String),
    Unreadable(Finding),
    Settings(String),
    Document(Format, String),
}

/// `is_list`: the settings name it as the list, whatever it is called.
fn what(path: &Path, is_list: bool) -> What {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Also where the folder is named `.`.
    let lies_in = |folder: &str| {
        std::path::absolute(path)
            .is_ok_and(|path| path.parent().is_some_and(|parent| parent.ends_with(folder)))
    };
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let in_compositions = lies_in(COMPOSITIONS) && ["yaml", "yml"].contains(&extension);
    let is_named = is_list
        || [LIST, MANIFEST, SETTINGS_FILE].contains(&&*name)
        || (lies_in(MANIFESTS) && extension == "json")
        || in_compositions;
    if !is_named && !["json", "yaml", "yml"].contains(&extension) {
        return What::Nothing;
    }
    let text = match read_regular_to_string(path, FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(error) if error.io_kind() == Some(ErrorKind::PermissionDenied) => {
            return What::Unseen(error.to_string());
        }
        Err(error) if is_named => {
            return What::Unreadable(Finding {
                code: error.code().to_owned(),
                message: error.to_string(),
                next_step: match error {
                    FileError::NotRegular { .. } => "remove it from the folder".to_owned(),
                    _ => error.next_step().to_owned(),
                },
                file: None,
                place: None,
            });
        }
        Err(_) => return What::Nothing,
    };
    let speaks_of_itself = is_named || text.contains("\"format_version\"") || is_adapter(&text);
    match (&*name, detect(path, &text)) {
        _ if is_list => What::Document(Format::CapabilitiesYaml, text),
        (SETTINGS_FILE, _) => What::Settings(text),
        (LIST, _) => What::Document(Format::CapabilitiesYaml, text),
        (_, Some(Format::Composition)) if in_compositions || has_nodes(&text) => {
            What::Document(Format::Composition, text)
        }
        (_, Some(format @ (Format::Manifest | Format::Adapter))) if speaks_of_itself => {
            What::Document(format, text)
        }
        (_, None) if in_compositions => What::NoComposition,
        (_, Some(Format::CapabilitiesYaml)) => What::OtherList,
        _ => What::Nothing,
    }
}

fn packages(path: &Path, text: &str) -> Vec<(PathBuf, Option<String>)> {
    let Ok(file) = CapabilitiesFile::parse_each(text) else { return Vec::new() };
    package_folders(&file, &document::base_of(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_hold_what_is_looked_at_are_named_up_to_some_and_counted_beyond() {
        let place = tempfile::tempdir().expect("tempdir");
        let folder = place.path();
        assert_eq!(not_looked_at(folder, &[]), None);
        let list = "capabilities:\n- name: a\n  package: ./a\n";
        for number in 0..NOT_LOOKED_AT_NAMED_MAX + 2 {
            let inner = folder.join(format!("part-{number}"));
            std::fs::create_dir(&inner).expect("made");
            // Under its own name, and under another one.
            let name = if number % 2 == 0 { LIST } else { "tools.yaml" };
            std::fs::write(inner.join(name), list).expect("written");
            let told = not_looked_at(folder, &[]).expect("one is there");
            let named = (0..=number).filter(|at| told.contains(&format!("part-{at}")));
            assert_eq!(named.count(), (number + 1).min(NOT_LOOKED_AT_NAMED_MAX), "{told}");
            let more = (number + 1).saturating_sub(NOT_LOOKED_AT_NAMED_MAX);
            assert_eq!(told.contains(&format!(" and {more} more: such files")), more > 0, "{told}");
        }
        let all: Vec<_> =
            (0..NOT_LOOKED_AT_NAMED_MAX + 2).map(|at| folder.join(format!("part-{at}"))).collect();
        assert_eq!(not_looked_at(folder, &all), None, "they were looked at");
        let other = folder.join("other");
        std::fs::create_dir(&other).expect("made");
        std::fs::write(other.join("notes.yaml"), "a: 1\n").expect("written");
        assert_eq!(not_looked_at(folder, &all), None, "somebody else's");
    }
}
