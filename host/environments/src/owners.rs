//! Whose the installed tools are: the entry of the list that each came from.

use crate::manifests::read_existing;
use cjm_catalog::installation::env_name_of;
use cjm_catalog::plain_path::is_same_file;
use cjm_wire::Manifest;
use cjm_wire::capabilities_file::Entry;
use std::collections::HashMap;
use std::path::Path;

/// Capability → entry of `entries` that it came from, of all whose manifests are in `manifests`. `base` is the list's folder.
pub(crate) fn owners(entries: &[Entry], base: &Path, manifests: &Path) -> HashMap<String, String> {
    let files = std::fs::read_dir(manifests).into_iter().flatten().flatten();
    let installed = files.filter_map(|file| read_existing(&file.path()));
    let owned = |manifest: Manifest| {
        let mut from = entries.iter().filter(|entry| came_from(&manifest, entry, base));
        // One with a fault of its own gives nothing now, and another one may name the same file.
        let owner = from.clone().find(|entry| entry.fault.is_none()).or_else(|| from.next())?;
        Some((manifest.code.name, owner.name.clone()))
    };
    installed.filter_map(owned).collect()
}

fn came_from(manifest: &Manifest, entry: &Entry, base: &Path) -> bool {
    match &entry.manifest {
        Some(source) => is_same_file(Path::new(&manifest.install.package_source), &base.join(source)),
        None => env_name_of(manifest).is_some_and(|name| name == entry.env_name),
    }
}
