//! What installations that failed or were interrupted left behind: environments that no manifest names.

use crate::files::own_home;
use cjm_catalog::Catalog;
use cjm_catalog::installation::used_environments;
use cjm_catalog::installer::Installer;
use cjm_wire::InstanceId;
use std::path::{Path, PathBuf};

/// An environment that belongs to no capability that is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// Its name.
    pub name: String,
    /// Its folder, or the link to it.
    pub path: PathBuf,
}

/// Environments below the data directory that no manifest there is names, sorted. Of a manifest that is broken nobody
/// knows which it names.
#[must_use]
pub fn unused_environments(data_dir: &Path, catalog: &Catalog) -> Vec<Unused> {
    let used = used_environments(catalog);
    let listing = std::fs::read_dir(data_dir.join("envs")).into_iter().flatten().flatten();
    let mut unused: Vec<Unused> = listing
        .filter_map(|entry| Some(Unused { name: entry.file_name().into_string().ok()?, path: entry.path() }))
        .filter(|found| InstanceId::is_valid(&found.name) && !used.contains(&found.name))
        .filter(|found| found.path.is_dir() || found.path.is_symlink())
        .collect();
    unused.sort_by(|one, other| one.name.cmp(&other.name));
    unused
}

/// Environments that no manifest names yet, since `by` makes them for the first time; they need not be there.
#[must_use]
pub fn environments_at_work(data_dir: &Path, catalog: &Catalog, by: &Installer) -> Vec<Unused> {
    let used = used_environments(catalog);
    let names = by.environments.iter().flatten().filter(|name| by.installs(name) && !used.contains(*name));
    names.map(|name| Unused { name: name.clone(), path: own_home(data_dir, name) }).collect()
}
