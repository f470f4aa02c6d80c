//! What installations that failed or were interrupted left behind: environments that no manifest names.

use crate::files::own_home;
use cjm_catalog::Catalog;
use cjm_catalog::beginning::Beginning;
use cjm_catalog::installation::used_environments;
use cjm_catalog::installer::Installer;
use cjm_wire::InstanceId;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An environment that belongs to no capability that is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// Its name.
    pub name: String,
    /// Its folder, or the link to it; where nothing was made yet, where it would be.
    pub path: PathBuf,
    /// Who asked for it, where it is not whole.
    pub begun: Option<Beginning>,
}

/// Environments below the data directory that no manifest there is names, sorted, and those that were to be made there. Of
/// a manifest that is broken nobody knows which it names.
#[must_use]
pub fn unused_environments(data_dir: &Path, catalog: &Catalog) -> Vec<Unused> {
    let used = used_environments(catalog);
    let listing = std::fs::read_dir(data_dir.join("envs")).into_iter().flatten().flatten();
    let there = listing
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .filter(|(name, path)| InstanceId::is_valid(name) && (path.is_dir() || path.is_symlink()))
        .map(|(name, path)| (name.clone(), Unused { name, path, begun: None }));
    let mut all: BTreeMap<String, Unused> = there.collect();
    for begun in Beginning::unended(data_dir) {
        let (name, path) = (begun.env_name.clone(), begun.environment.clone());
        all.insert(name.clone(), Unused { name, path, begun: Some(begun) });
    }
    all.into_values().filter(|one| !used.contains(&one.name)).collect()
}

/// Environments that no manifest names yet, since `by` makes them for the first time; they need not be there.
#[must_use]
pub fn environments_at_work(data_dir: &Path, catalog: &Catalog, by: &Installer) -> Vec<Unused> {
    let used = used_environments(catalog);
    let names = by.environments.iter().flatten().filter(|name| by.installs(name) && !used.contains(*name));
    names.map(|name| Unused { name: name.clone(), path: own_home(data_dir, name), begun: None }).collect()
}
