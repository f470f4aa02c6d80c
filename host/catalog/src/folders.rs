//! Folders in which manifests are looked for, and whose word it is that those may run.

use std::path::{Path, PathBuf};

/// Why a folder is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The user or the embedding program named it, or it is the user's own data directory: what lies there runs.
    Named,
    /// It lies in the present folder, or a file there names it: what lies there runs only if the user allowed it.
    Found,
}

/// A folder in which manifests are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFolder {
    /// The folder.
    pub path: PathBuf,
    /// Why it is looked at.
    pub standing: Standing,
}

impl ManifestFolder {
    /// A folder that somebody named.
    #[must_use]
    pub fn named(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), standing: Standing::Named }
    }

    /// A folder that was found.
    #[must_use]
    pub fn found(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), standing: Standing::Found }
    }
}

impl From<PathBuf> for ManifestFolder {
    fn from(path: PathBuf) -> Self {
        Self::named(path)
    }
}

/// The folders of a data directory and of the present folder, first match first: what lies in the present folder goes
/// before, as with the ancestor. Where both are one, it is the data directory's.
#[must_use]
pub fn manifest_folders(
    data_dir: &Path,
    standing: Standing,
    working_dir: Option<&Path>,
) -> Vec<ManifestFolder> {
    let own = ManifestFolder { path: data_dir.join("manifests"), standing };
    let local = working_dir.map(|folder| folder.join(".cjm/manifests"));
    let local = local.filter(|local| real(local) != real(&own.path)).map(ManifestFolder::found);
    local.into_iter().chain([own]).collect()
}

/// Without links, as far as it is there.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_is_not_found_twice() {
        let project = tempfile::tempdir().expect("tempdir");
        let data = project.path().join(".cjm");
        std::fs::create_dir_all(data.join("manifests")).expect("mkdir");
        let dotted = project.path().join("./.cjm/../.cjm");
        let both = manifest_folders(&dotted, Standing::Named, Some(project.path()));
        assert_eq!(both, [ManifestFolder::named(dotted.join("manifests"))]);
        let elsewhere = manifest_folders(Path::new("/data"), Standing::Named, Some(project.path()));
        let expected =
            [ManifestFolder::found(data.join("manifests")), ManifestFolder::named("/data/manifests")];
        assert_eq!(elsewhere, expected);
    }
}
