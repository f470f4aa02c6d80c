//! What installations and removals that failed or were interrupted left behind: environments that no manifest names.

use crate::after_a_kill::origin_of;
use crate::conda_entry::home;
use crate::elsewhere::is_own_behind;
use crate::files::own_home;
use crate::former::removed_name;
use crate::stamp::{Origin, Stamp};
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
    /// It is what a removal could not delete; a tool of this name may have an environment by now.
    pub is_rest: bool,
}

impl Unused {
    /// Whether `remove` takes it away by its name. What a link leads to is conda's, and may be somebody's own: it goes where a
    /// note or a stamp says that it was made here.
    #[must_use]
    pub fn can_be_removed(&self) -> bool {
        self.is_of_conda() || !self.path.is_symlink() || is_own_behind(&self.path)
    }

    /// Whether `remove` leaves the environment itself, since it was there before anything of ours.
    #[must_use]
    pub fn stays(&self) -> bool {
        let home = home(&self.path);
        let is_condas = home.is_dir() && (self.path.is_symlink() || home.join("conda-meta").is_dir());
        self.can_be_removed() && is_condas && origin_of(&self.path, &home) != Origin::Installation
    }

    pub(crate) fn is_of_conda(&self) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.of_conda)
    }
}

/// Environments below the data directory that no manifest there is names, sorted, and those that were to be made there. Of
/// a manifest that is broken nobody knows which it names, but an environment says whose it is.
#[must_use]
pub fn unused_environments(data_dir: &Path, catalog: &Catalog) -> Vec<Unused> {
    // Where a manifest cannot be read, any of them may be its tool's.
    if catalog.unreadable().next().is_some() {
        return Vec::new();
    }
    let used = used_environments(catalog);
    let listing = std::fs::read_dir(data_dir.join("envs")).into_iter().flatten().flatten();
    let there = listing
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .filter(|(_, path)| path.is_dir() || path.is_symlink())
        .filter_map(|(file, path)| {
            let (name, is_rest) = removed_name(&file).map_or((file.as_str(), false), |name| (name, true));
            let name = InstanceId::is_valid(name).then(|| name.to_owned())?;
            Some(((name.clone(), is_rest, path.clone()), Unused { name, path, begun: None, is_rest }))
        });
    let mut all: BTreeMap<(String, bool, PathBuf), Unused> = there.collect();
    for begun in Beginning::unended(data_dir) {
        let (name, path) = (begun.env_name.clone(), begun.environment.clone());
        let key = (name.clone(), false, path.clone());
        all.insert(key, Unused { name, path, begun: Some(begun), is_rest: false });
    }
    let is_of_broken = |one: &Unused| {
        Stamp::read(&one.path).is_some_and(|stamp| catalog.problem_of(&stamp.capability).is_some())
    };
    all.into_values().filter(|one| one.is_rest || !used.contains(&one.name) && !is_of_broken(one)).collect()
}

/// Environments that no manifest names yet, since `by` makes them for the first time; they need not be there.
#[must_use]
pub fn environments_at_work(data_dir: &Path, catalog: &Catalog, by: &Installer) -> Vec<Unused> {
    let used = used_environments(catalog);
    let names = by.environments.iter().flatten().filter(|name| by.installs(name) && !used.contains(*name));
    let unmade = |name: &String| {
        let path = own_home(data_dir, name);
        Unused { name: name.clone(), path, begun: None, is_rest: false }
    };
    names.map(unmade).collect()
}
