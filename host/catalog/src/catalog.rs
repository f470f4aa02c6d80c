//! Finds capabilities and adapters: manifests dropped into directories. It reads and checks them; it runs nothing, and
//! a broken manifest is reported beside the good ones, never instead of them.

use cjm_wire::adapter::{AdapterError, AdapterManifest, is_adapter};
use cjm_wire::describe::Described;
use cjm_wire::manifest::{MANIFEST_BYTES_MAX, Manifest, ManifestError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Most manifests read from one directory.
pub const MANIFESTS_MAX: usize = 10_000;

/// A capability that was found.
#[derive(Debug, Clone)]
pub struct CatalogEntry {
    /// The manifest's file.
    pub path: PathBuf,
    /// What it says.
    pub manifest: Manifest,
}

/// A file that should have been a manifest.
#[derive(Debug)]
pub struct CatalogProblem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: CatalogError,
}

/// Why a file is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// It is not a manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It says that it is an adapter's manifest, and is none.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
}

impl Described for CatalogError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "manifest.unreadable",
            Self::Manifest(error) => error.code(),
            Self::Adapter(error) => error.code(),
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Unreadable(_) => "make the file readable, or remove it from the directory".to_owned(),
            Self::Manifest(error) => error.next_step(),
            Self::Adapter(error) => error.next_step(),
        }
    }
}

/// All that was found, by name.
#[derive(Debug, Default)]
pub struct Catalog {
    entries: BTreeMap<String, CatalogEntry>,
    /// In the order found, which is the order they are bound in.
    adapters: Vec<AdapterManifest>,
    problems: Vec<CatalogProblem>,
}

impl Catalog {
    /// Reads `*.json` of each directory in order; the first manifest of a name wins, a missing directory is empty.
    /// So it does among adapters (`"unit": "adapter"`).
    #[must_use]
    pub fn discover(directories: &[PathBuf]) -> Self {
        let mut catalog = Self::default();
        for directory in directories {
            for path in manifest_files(directory) {
                match read(&path) {
                    Ok(Found::Capability(manifest)) => {
                        let name = manifest.code.name.clone();
                        catalog.entries.entry(name).or_insert(CatalogEntry { path, manifest: *manifest });
                    }
                    Ok(Found::Adapter(adapter)) => {
                        if !catalog.adapters.iter().any(|known| known.name == adapter.name) {
                            catalog.adapters.push(*adapter);
                        }
                    }
                    Err(error) => catalog.problems.push(CatalogProblem { path, error }),
                }
            }
        }
        catalog
    }

    /// What was found, sorted by name.
    pub fn entries(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.entries.values()
    }

    /// One capability by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&CatalogEntry> {
        self.entries.get(name)
    }

    /// The adapters that were found.
    #[must_use]
    pub fn adapters(&self) -> &[AdapterManifest] {
        &self.adapters
    }

    /// Files that are no manifests.
    #[must_use]
    pub fn problems(&self) -> &[CatalogProblem] {
        &self.problems
    }

    /// The broken file that would have been `name`, if there is one.
    #[must_use]
    pub fn problem_of(&self, name: &str) -> Option<&CatalogProblem> {
        self.problems.iter().find(|problem| problem.path.file_stem().is_some_and(|stem| stem == name))
    }
}

fn manifest_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(listing) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = listing
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .take(MANIFESTS_MAX)
        .collect();
    files.sort();
    files
}

enum Found {
    Capability(Box<Manifest>),
    Adapter(Box<AdapterManifest>),
}

fn read(path: &Path) -> Result<Found, CatalogError> {
    let bytes = std::fs::metadata(path)?.len();
    if bytes > MANIFEST_BYTES_MAX as u64 {
        return Err(ManifestError::TooLarge(usize::try_from(bytes).unwrap_or(usize::MAX)).into());
    }
    let text = std::fs::read_to_string(path)?;
    if is_adapter(&text) {
        return Ok(Found::Adapter(Box::new(AdapterManifest::parse(&text)?)));
    }
    Ok(Found::Capability(Box::new(Manifest::parse(&text)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_name_wins_and_broken_files_stand_beside() {
        let first = tempfile::tempdir().expect("tempdir");
        let second = tempfile::tempdir().expect("tempdir");
        let manifest = |name: &str, version: &str| {
            format!(
                r#"{{"format_version":"2.0","code":{{"name":"{name}","version":"{version}","runtime":{{"kind":"native","program":"x"}}}}}}"#
            )
        };
        std::fs::write(first.path().join("a.json"), manifest("a", "1")).expect("write");
        std::fs::write(first.path().join("broken.json"), "{").expect("write");
        let adapter = |version: &str| {
            format!(
                r#"{{"unit":"adapter","name":"m.A","version":"{version}","task_name":"t","module":"m","class":"A"}}"#
            )
        };
        std::fs::write(first.path().join("adapter-t-A.json"), adapter("1")).expect("write");
        std::fs::write(second.path().join("adapter-t-A.json"), adapter("2")).expect("write");
        std::fs::write(second.path().join("adapter-x.json"), r#"{"unit":"adapter"}"#).expect("write");
        std::fs::write(first.path().join("notes.txt"), "not a manifest").expect("write");
        std::fs::write(second.path().join("a.json"), manifest("a", "2")).expect("write");
        std::fs::write(second.path().join("b.json"), manifest("b", "1")).expect("write");
        let directories =
            [first.path().to_owned(), second.path().to_owned(), PathBuf::from("/nowhere/at/all")];
        let catalog = Catalog::discover(&directories);
        let found: Vec<_> = catalog
            .entries()
            .map(|e| (e.manifest.code.name.as_str(), e.manifest.code.version.as_str()))
            .collect();
        assert_eq!(found, [("a", "1"), ("b", "1")]);
        let adapters: Vec<_> = catalog.adapters().iter().map(|a| (a.name.as_str(), &*a.version)).collect();
        assert_eq!(adapters, [("m.A", "1")]);
        let broken: Vec<_> = catalog.problems().iter().map(|problem| problem.error.code()).collect();
        assert_eq!(broken, ["manifest.malformed", "adapter.malformed"]);
        assert_eq!(catalog.problem_of("broken").map(|p| p.error.code()), Some("manifest.malformed"));
    }
}
