//! Manifests written by an installation: what the user changed by hand survives every rewrite.

use cjm_wire::Manifest;
use std::path::Path;

/// The manifest at `path`, if there is one that can be read; a broken one is replaced.
pub(crate) fn read_existing(path: &Path) -> Option<Manifest> {
    Manifest::parse(&std::fs::read_to_string(path).ok()?).ok()
}

/// Takes over what belongs to the user: overrides, variables, and the date of the first installation.
pub(crate) fn keep_from(manifest: &mut Manifest, existing: &Manifest) {
    for (key, value) in &existing.overrides {
        manifest.overrides.insert(key.clone(), value.clone());
    }
    for (name, value) in &existing.install.env_vars {
        manifest.install.env_vars.insert(name.clone(), value.clone());
    }
    if existing.install.installed_at.is_some() {
        manifest.install.installed_at.clone_from(&existing.install.installed_at);
    }
    if manifest.install.db_path.is_empty() {
        manifest.install.db_path.clone_from(&existing.install.db_path);
    }
}
