//! Whom a secret or a stored configuration belongs to: the manifest file it was set for. A tool of the same name in
//! another folder gets nothing of it.

use std::path::{Path, PathBuf};

/// Folder of the data directory's own manifests.
const MANIFESTS_DIR: &str = "manifests";

/// Whether what was set for `recorded` belongs to the manifest file at `manifest`. What has no recorded owner (it was set
/// by the ancestor, or for nobody in particular) belongs to the manifests of the data directory itself.
#[must_use]
pub fn belongs_to(data_dir: &Path, recorded: Option<&Path>, manifest: &Path) -> bool {
    match recorded {
        Some(owner) => real(owner) == real(manifest),
        None => manifest.parent().is_some_and(|folder| real(folder) == real(&data_dir.join(MANIFESTS_DIR))),
    }
}

/// Without links, as far as the file is there.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
