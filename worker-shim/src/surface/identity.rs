//! What `/health` says for the version handshake of later hosts of the ancestor: they refuse a worker whose
//! `substrate_version` is not their own.
//!
//! What must hold: nothing is claimed that nobody said: a version comes from the user, or from the package that is
//! installed beside the tool.

use cjm_wire::link::Launch;
use cjm_wire::manifest::SUBSTRATE_VERSION_VARIABLE;
use std::path::Path;

/// Entries of one folder looked at.
const ENTRIES_MAX: usize = 10_000;

/// Read once, when the worker starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The release of the ancestor whose contract the user wants spoken.
    pub(crate) substrate_version: Option<String>,
    /// The interpreter of a Python tool.
    pub(crate) python_executable: Option<String>,
}

impl Identity {
    /// The variable wins; without it, what the environment of a Python tool has installed.
    pub(crate) fn of(launch: &Launch) -> Self {
        let told = std::env::var(SUBSTRATE_VERSION_VARIABLE).ok().filter(|version| !version.is_empty());
        let Launch::Python { python_path, .. } = launch else {
            return Self { substrate_version: told, python_executable: None };
        };
        Self {
            substrate_version: told.or_else(|| installed(Path::new(python_path))),
            python_executable: Some(python_path.clone()),
        }
    }
}

/// The version of the ancestor's package in the environment of an interpreter, by the folder that names it.
fn installed(python: &Path) -> Option<String> {
    // Not the target of a link: the environment is where the link is.
    let libraries = python.parent()?.parent()?.join("lib");
    let pythons = std::fs::read_dir(libraries).ok()?.take(ENTRIES_MAX).flatten();
    let folders = pythons.filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
    let packages = folders.filter_map(|entry| std::fs::read_dir(entry.path().join("site-packages")).ok());
    packages.flat_map(|entries| entries.take(ENTRIES_MAX)).flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some(name.strip_prefix("cjm_substrate-")?.strip_suffix(".dist-info")?.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installed_package_is_found_beside_the_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let python = folder.path().join("bin/python");
        assert_eq!(installed(&python), None);
        let packages = folder.path().join("lib/python3.12/site-packages");
        std::fs::create_dir_all(packages.join("other-1.dist-info")).unwrap();
        assert_eq!(installed(&python), None);
        std::fs::create_dir(packages.join("cjm_substrate-0.0.74.dist-info")).unwrap();
        assert_eq!(installed(&python).as_deref(), Some("0.0.74"));
    }
}
