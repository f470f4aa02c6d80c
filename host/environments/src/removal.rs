//! Takes a capability away: its environment, its manifest, and the manifests of the adapters that lived there.
//!
//! An environment of ours gets another name first, in one step; it is deleted once the manifest is gone. So a removal that
//! fails leaves the tool whole, or gone with something that lies about and is named.
//!
//! What must hold: no folder is deleted but `<data_dir>/envs/NAME` and what lies beside it under names of ours; what conda
//! made, conda removes, before the manifest goes; an environment that another capability lives in stays, also one of another
//! data directory.

use crate::after_a_kill::{forget_what_waits, origin_of};
use crate::conda::{Conda, CondaOptions, removal_command};
use crate::elsewhere::{tool_of_another, waits_for_another};
use crate::error::EnvironmentError;
use crate::files::{Claim, check_nobody_installs, check_nothing_mounted, lock, own_home, remove_dir};
use crate::former::{forget, free_place, gone, removed_name, rests_of};
use crate::leftovers::{Unused, unused_environments};
use crate::list::read_capabilities;
use crate::manifests::{env_name_of, is_adapter_installed_in, kept_of};
use crate::place_lock::{Asker, PlaceLock};
use crate::set_aside;
use crate::stamp::{Origin, Stamp};
use cjm_catalog::installation::used_environments;
use cjm_catalog::installer::REMOVE;
use cjm_catalog::suggestions::{in_words, suggestions};
use cjm_catalog::{Catalog, CatalogEntry, MANIFEST_BYTES_MAX, Settings, installation};
use cjm_platform::files::read_regular_to_string;
use cjm_wire::InstanceId;
use cjm_wire::Manifest;
use cjm_wire::manifest::ManifestError;
use cjm_wire::runtime::Runtime;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What there is to take away.
#[derive(Debug, Clone)]
pub struct Removal {
    /// The capability; of an environment that belongs to none, its own name.
    pub capability: String,
    /// Its manifest; none of an environment that a failed installation left.
    pub manifest: Option<PathBuf>,
    /// Where it is kept: one that no installation made may be the only one of its user.
    pub kept: Option<PathBuf>,
    /// Why that manifest cannot be read, if it cannot.
    pub broken: Option<String>,
    /// Whether its tool needs an environment at all.
    pub needs_environment: bool,
    /// Name of its environment, if it has one.
    pub env_name: Option<String>,
    /// Where that is.
    pub environment: Place,
    /// Other capabilities that live there.
    pub shared_with: Vec<String>,
    /// Manifests of adapters that live there.
    pub adapters: Vec<PathBuf>,
    /// Of an environment that was there before its tool, and stays: the command that takes it away.
    pub found: Option<String>,
    /// It is what an earlier removal could not delete, and a tool lives in an environment of its name, which stays.
    pub spares_namesake: bool,
    data_dir: PathBuf,
}

/// Where an environment is.
#[derive(Debug, Clone)]
pub enum Place {
    /// A folder of ours.
    Own(PathBuf),
    /// One that conda made.
    Conda(PathBuf, Conda),
    /// Nowhere.
    Missing,
}

impl Place {
    /// Whether there is one.
    #[must_use]
    pub fn exists(&self) -> bool {
        !matches!(self, Self::Missing)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Own(path) | Self::Conda(path, _) => Some(path),
            Self::Missing => None,
        }
    }

    /// What takes it away, where it is somebody's: it was there before a tool of ours came into it, or nothing of
    /// ours is in it though an installation of `ours` would have left something.
    fn found_command(&self, link: &Path, ours: bool) -> Option<String> {
        let Self::Conda(home, conda) = self else { return None };
        let is_somebodys = match origin_of(link, home) {
            Origin::Found => true,
            Origin::Unsaid => ours,
            Origin::Installation => false,
        };
        is_somebodys.then(|| removal_command(conda.kind(), home))
    }

    /// The tool of another data directory than this one that lives there, in words.
    fn sharer_elsewhere(&self, data_dir: &Path) -> Option<String> {
        let Self::Conda(home, _) = self else { return None };
        let (capability, theirs) = tool_of_another(home, data_dir)?;
        Some(format!("{capability} of {}", theirs.display()))
    }
}

/// Finds the environment of this name: ours first, then conda's, if there is a conda.
///
/// # Errors
/// When conda is there and cannot say.
pub async fn find_environment(settings: &Settings, env_name: &str) -> Result<Place, EnvironmentError> {
    if !InstanceId::is_valid(env_name) {
        return Ok(Place::Missing);
    }
    let own = own_home(&settings.data_dir, env_name);
    match own.symlink_metadata() {
        // Also one of which an update that was killed has left a part; what conda made has this folder.
        Ok(found) if found.is_dir() && !own.join("conda-meta").exists() => return Ok(Place::Own(own)),
        Err(source) if source.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(EnvironmentError::File { action: "look at", path: own, source });
        }
        _ => {}
    }
    let conda = match Conda::find(&CondaOptions::of(settings)).await {
        Ok(conda) => conda,
        Err(refused @ EnvironmentError::NotYours(_)) => return Err(refused),
        // Nothing that conda could have made can be found without it.
        Err(_) => return Ok(Place::Missing),
    };
    Ok(match conda.environment(env_name).await? {
        Some(path) => Place::Conda(path, conda),
        None => Place::Missing,
    })
}

/// Looks at what taking `capability` away would mean; changes nothing. `list` is asked for the environment's name when
/// the manifest does not know it. What a failed installation left, a broken manifest or an environment that belongs to
/// nobody, can be taken away by its name as well.
///
/// # Errors
/// When there is no such thing.
pub async fn plan_removal(
    settings: &Settings,
    capability: &str,
    list: Option<&Path>,
) -> Result<Removal, EnvironmentError> {
    check_nobody_installs(&settings.data_dir)?;
    let catalog = Catalog::discover(&settings.manifest_dirs());
    if let Some((path, error)) = catalog.unreadable_folder() {
        return Err(unread(capability, path, error));
    }
    let Some(entry) = catalog.get(capability) else { return remains(settings, &catalog, capability).await };
    let mut env_name = env_name_of(entry);
    if env_name.is_none()
        && let Some(list) = list
    {
        let file = read_capabilities(list)?;
        let named = file.capabilities.into_iter().find(|known| known.name == capability);
        env_name = named.map(|known| known.env_name).filter(|name| !name.is_empty());
    }
    check_env_name(entry, env_name.as_deref())?;
    let environment = match &env_name {
        Some(name) => find_environment(settings, name).await?,
        None => Place::Missing,
    };
    let mut shared_with = sharers(&catalog, &entry.path, env_name.as_deref());
    shared_with.extend(environment.sharer_elsewhere(&settings.data_dir));
    let link = own_home(&settings.data_dir, env_name.as_deref().unwrap_or_default());
    let is_of_us = entry.manifest.install.installer_version.starts_with(installation::INSTALLER);
    let found = environment.found_command(&link, is_of_us);
    if environment.exists() {
        check_all_read(&catalog, capability)?;
    }
    let manifests = entry.path.parent().unwrap_or(Path::new("/"));
    // What lies there may be another one than was found: of another environment, or somebody's own.
    let is_of_it =
        |path: &PathBuf| env_name.as_deref().is_some_and(|name| is_adapter_installed_in(path, name));
    let adapters = catalog
        .adapters()
        .iter()
        .filter_map(|adapter| Some(manifests.join(adapter.file_name()?)))
        .filter(is_of_it)
        .collect();
    Ok(Removal {
        capability: capability.to_owned(),
        manifest: Some(entry.path.clone()),
        kept: kept_of(&entry.path),
        broken: None,
        needs_environment: matches!(entry.manifest.runtime(), Runtime::Python { .. }),
        env_name,
        environment,
        shared_with,
        adapters,
        found,
        spares_namesake: false,
        data_dir: settings.data_dir.clone(),
    })
}

/// Refuses where a manifest that our installation wrote names what cannot be an environment any more: its own would stay, and
/// nobody be told.
fn check_env_name(entry: &CatalogEntry, env_name: Option<&str>) -> Result<(), EnvironmentError> {
    let is_ours = entry.manifest.install.installer_version.starts_with(installation::INSTALLER);
    let Some(name) = env_name.filter(|name| is_ours && !InstanceId::is_valid(name)) else { return Ok(()) };
    let key = ["install", "conda_env"].join(".");
    let message = format!(
        "\"{name}\" is no name of an environment (1 to 64 letters, digits, `-` or `_`), so which one goes with the tool is not \
         known, and nothing was removed"
    );
    Err(EnvironmentError::Manifest {
        path: entry.path.clone(),
        source: ManifestError::Invalid { key, message },
    })
}

/// The capabilities that live in an environment by other manifests than this one: also by one that it shadows, which is
/// used once it is gone.
fn sharers(catalog: &Catalog, but: &Path, env_name: Option<&str>) -> Vec<String> {
    let Some(env_name) = env_name else { return Vec::new() };
    let lives_there =
        |entry: &CatalogEntry| entry.path != but && env_name_of(entry).as_deref() == Some(env_name);
    let mut names = BTreeSet::new();
    for entry in catalog.entries() {
        let name = &entry.manifest.code.name;
        let shadowed = catalog.shadowed_by(name).iter().filter(|path| *path != but);
        if lives_there(entry) || shadowed.into_iter().any(|path| names_environment(path, env_name)) {
            names.insert(name.clone());
        }
    }
    names.into_iter().collect()
}

/// Whether the manifest that lies there names this environment; one that cannot be read may.
fn names_environment(manifest: &Path, env_name: &str) -> bool {
    let Ok(text) = read_regular_to_string(manifest, MANIFEST_BYTES_MAX as u64) else { return true };
    Manifest::parse(&text).is_ok_and(|read| installation::env_name_of(&read).as_deref() == Some(env_name))
}

/// Refuses where a manifest cannot be read: its tool may live in the environment that goes.
fn check_all_read(catalog: &Catalog, capability: &str) -> Result<(), EnvironmentError> {
    let own = catalog.problem_of(capability).map(|problem| problem.path.as_path());
    match catalog.unreadable().find(|(path, _)| Some(*path) != own) {
        Some((path, error)) => Err(unread(capability, path, error)),
        None => Ok(()),
    }
}

fn unread(capability: &str, path: &Path, error: &std::io::Error) -> EnvironmentError {
    let (capability, path) = (capability.to_owned(), path.to_owned());
    EnvironmentError::ManifestsUnread { capability, path, message: error.to_string() }
}

/// What there is of a capability that is not installed.
async fn remains(settings: &Settings, catalog: &Catalog, name: &str) -> Result<Removal, EnvironmentError> {
    let problem = catalog.problem_of(name).filter(|_| catalog.withheld_of(name).is_none());
    let unused = unused_environments(&settings.data_dir, catalog);
    let own: Vec<Unused> = unused.into_iter().filter(Unused::can_be_removed).collect();
    let by_name = own.iter().find(|unused| unused.name == name);
    let by_other = || own.iter().find(|one| one.begun.as_ref().is_some_and(|begun| begun.goes_by(name)));
    let environment = by_name.or_else(by_other).cloned();
    if environment.is_some() {
        check_all_read(catalog, name)?;
    }
    if problem.is_none() && environment.is_none() || catalog.withheld_of(name).is_some() {
        return Err(not_installed(settings, catalog, name));
    }
    let is_used = |one: &Unused| used_environments(catalog).contains(&one.name);
    let begun = environment.as_ref();
    let env_name = begun.map(|environment| environment.name.clone());
    let spares_namesake = begun.is_some_and(|one| one.is_rest && is_used(one));
    let environment = match environment {
        Some(unused) if unused.is_of_conda() => place_of_begun(settings, unused).await?,
        Some(unused) if unused.path.is_symlink() => match place_of_begun(settings, unused).await? {
            // What the link says is all that is known.
            Place::Own(_) => Place::Missing,
            place => place,
        },
        Some(unused) => Place::Own(unused.path),
        None => Place::Missing,
    };
    let link = own_home(&settings.data_dir, env_name.as_deref().unwrap_or_default());
    let found = environment.found_command(&link, true);
    Ok(Removal {
        capability: name.to_owned(),
        manifest: problem.map(|problem| problem.path.clone()),
        kept: problem.and_then(|problem| kept_of(&problem.path)),
        broken: problem.map(|problem| problem.error.to_string()),
        needs_environment: env_name.is_some(),
        env_name,
        spares_namesake,
        shared_with: environment.sharer_elsewhere(&settings.data_dir).into_iter().collect(),
        environment,
        adapters: Vec::new(),
        found,
        data_dir: settings.data_dir.clone(),
    })
}

/// Where that is which conda has begun. It can be found by conda alone: without it the note stays.
async fn place_of_begun(settings: &Settings, unused: Unused) -> Result<Place, EnvironmentError> {
    let conda = Conda::find(&CondaOptions::of(settings)).await?;
    Ok(match conda.environment(&unused.name).await? {
        Some(home) => Place::Conda(home, conda),
        None => Place::Own(unused.path),
    })
}

/// An environment with which no call begins any more.
#[derive(Debug)]
pub struct Taken(Option<(Stamp, PathBuf)>);

impl Taken {
    /// Calls begin with it again, where it is whole.
    fn give_back(&self) -> Result<(), EnvironmentError> {
        match &self.0 {
            Some((stamp, home)) if home.is_dir() => stamp.write(home),
            _ => Ok(()),
        }
    }
}

impl Removal {
    /// Whether it is what an earlier removal could not delete.
    #[must_use]
    pub fn is_rest(&self) -> bool {
        let name = self.environment.path().and_then(Path::file_name).and_then(|name| name.to_str());
        name.is_some_and(|name| removed_name(name).is_some())
    }

    /// Whether the environment goes too, when it is not to be kept.
    #[must_use]
    pub fn takes_environment(&self) -> bool {
        self.environment.exists() && self.shared_with.is_empty() && self.found.is_none()
    }

    /// Refuses to take an environment in which others have come to live since it was looked at. To be asked when
    /// installations are kept away.
    ///
    /// # Errors
    /// Who lives there.
    pub fn check_alone(&self, catalog: &Catalog) -> Result<(), EnvironmentError> {
        check_all_read(catalog, &self.capability)?;
        if self.spares_namesake {
            return Ok(());
        }
        let own = self.manifest.as_deref().unwrap_or(Path::new(""));
        let elsewhere = self.environment.sharer_elsewhere(&self.data_dir);
        match sharers(catalog, own, self.env_name.as_deref()).into_iter().chain(elsewhere).next() {
            Some(other) => Err(EnvironmentError::SharedSince { capability: self.capability.clone(), other }),
            None => Ok(()),
        }
    }

    /// Keeps installations away until it is dropped, from what conda made also those of other data directories.
    ///
    /// # Errors
    /// When one is at work.
    pub fn claim(&self) -> Result<Claim, EnvironmentError> {
        let mut claim = lock(&self.data_dir, REMOVE, self.env_name.as_deref())?;
        if let (Place::Conda(home, conda), Some(env_name)) = (&self.environment, &self.env_name) {
            let asker = Asker { data_dir: &self.data_dir, command: REMOVE, env_name };
            claim.keep(PlaceLock::of(asker, &conda.names(), Some(home))?);
        }
        Ok(claim)
    }

    /// From here on no call begins with the environment that goes; one that had begun before is seen by `check_unused`,
    /// which is asked once that is so. Then environment and manifest go, unless conda has to be asked for that. Where
    /// anything of it fails, everything is as it was.
    ///
    /// # Errors
    /// What was answered, or that environment or manifest cannot be taken away.
    pub fn take_from_calls<E: From<EnvironmentError>>(
        &self,
        check_unused: impl FnOnce() -> Result<(), E>,
    ) -> Result<Taken, E> {
        if let Some(path) = self.environment.path() {
            check_nothing_mounted(path)?;
        }
        let take = || check_unused().and_then(|()| Ok(self.set_aside()?));
        let home = self.env_name.as_deref().map(|name| own_home(&self.data_dir, name));
        let home = home.filter(|_| !self.spares_namesake);
        let whole = home.and_then(|home| Some((Stamp::read(&home)?, home)));
        // What others made has no stamp, and nothing by which a call could see that it goes.
        let Some((stamp, home)) = whole else { return take().map(|()| Taken(None)) };
        Stamp::remove(&home)?;
        let taken = Taken(Some((stamp, home)));
        match take() {
            Ok(()) => Ok(taken),
            Err(refused) => {
                taken.give_back()?;
                Err(refused)
            }
        }
    }

    /// Gives an environment of ours another name, and removes the manifest.
    fn set_aside(&self) -> Result<(), EnvironmentError> {
        let Place::Own(path) = &self.environment else { return Ok(()) };
        if self.is_rest() {
            return self.remove_manifest();
        }
        let aside = free_place(path);
        let failed = |source| EnvironmentError::File { action: "remove", path: path.clone(), source };
        // Of one that was to be made there may be nothing but the note.
        let is_there = path.symlink_metadata().is_ok();
        if is_there {
            std::fs::rename(path, &aside).map_err(failed)?;
        }
        self.remove_manifest().or_else(|refused| {
            if is_there {
                std::fs::rename(&aside, path).map_err(failed)?;
            }
            Err(refused)
        })
    }

    /// Has conda remove what it made.
    ///
    /// # Errors
    /// When it stays; then the manifest should stay as well.
    pub async fn remove_of_conda(
        &self,
        taken: &Taken,
        claim: &Claim,
        on_line: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), EnvironmentError> {
        let Place::Conda(home, conda) = &self.environment else { return Ok(()) };
        let name = self.env_name.as_deref().unwrap_or_default();
        if let Err(failed) = claim.during(conda.remove(home, on_line)).await {
            return taken.give_back().and(Err(failed));
        }
        if !waits_for_another(home, &self.data_dir) {
            set_aside::forget(home)?;
        }
        let link = own_home(&self.data_dir, name);
        if link.is_symlink() { remove_file(&link) } else { Ok(()) }
    }

    /// Takes away what leads to an environment that stays, since a tool of another data directory lives in it, or since it was
    /// there before. What that one says of us goes as well.
    ///
    /// # Errors
    /// When it stays.
    pub fn leave_to_others(&self) -> Result<(), EnvironmentError> {
        let Some(name) = &self.env_name else { return Ok(()) };
        if let (Place::Conda(home, _), Some(_), true) =
            (&self.environment, &self.found, self.shared_with.is_empty())
        {
            Stamp::forget(home)?;
        } else if self.environment.sharer_elsewhere(&self.data_dir).is_none() {
            return Ok(());
        }
        let link = own_home(&self.data_dir, name);
        forget(&link)?;
        if let Place::Conda(home, _) = &self.environment
            && !waits_for_another(home, &self.data_dir)
        {
            set_aside::forget(home)?;
        }
        if link.is_symlink() { remove_file(&link) } else { Ok(()) }
    }

    /// Removes the manifest, if it is still there; one that is [kept](Self::kept) gets its other name.
    ///
    /// # Errors
    /// When it stays.
    pub fn remove_manifest(&self) -> Result<(), EnvironmentError> {
        match (&self.manifest, &self.kept) {
            (Some(manifest), Some(kept)) => gone(std::fs::rename(manifest, kept))
                .map_err(|source| EnvironmentError::removing(manifest.clone(), source)),
            (manifest, _) => manifest.as_deref().map_or(Ok(()), remove_file),
        }
    }

    /// Deletes what nothing speaks for any more: the environment that was set aside, what was kept beside it, and the
    /// manifests of its adapters. It needs the right to.
    ///
    /// # Errors
    /// What could not be deleted. The tool is gone all the same.
    pub fn delete_rest(&self) -> Result<(), EnvironmentError> {
        // What is small goes first: whatever stops this later, no command would find it again.
        let mut all: Vec<_> = self.adapters.iter().map(|path| remove_file(path)).collect();
        if let Some(home) = self.env_name.as_deref().map(|name| own_home(&self.data_dir, name)) {
            // A copy of the namesake is its own.
            if !self.spares_namesake {
                all.push(forget(&home));
                // An installation that was killed had set aside what conda had made, and nothing was in its place yet.
                all.push(forget_what_waits(&home));
            }
            all.extend(rests_of(&home).iter().map(|rest| remove_dir(rest)));
        }
        all.into_iter().collect::<Result<(), _>>().map_err(|error| {
            let (path, source) = match error {
                EnvironmentError::File { path, source, .. } => (path, source),
                EnvironmentError::Mounted { path, mount } => {
                    (path, std::io::Error::other(format!("{} is mounted in it", mount.display())))
                }
                EnvironmentError::MountedOver { path, .. } => {
                    (path, std::io::Error::other("something is mounted in its place"))
                }
                other => return other,
            };
            EnvironmentError::RestStays { capability: self.capability.clone(), path, source }
        })
    }
}

pub(crate) fn not_installed(settings: &Settings, catalog: &Catalog, capability: &str) -> EnvironmentError {
    if let Some(withheld) = catalog.withheld_of(capability) {
        return withheld.clone().into();
    }
    let broken = catalog.problem_of(capability).filter(|problem| !problem.is_unread());
    if broken.is_none()
        && let Some(unread) = catalog.may_be_unread(capability)
    {
        return unread.into();
    }
    let broken = broken.map(|problem| problem.error.to_string());
    let expected = settings.manifests_dir().join(format!("{capability}.json"));
    let names = catalog.entries().map(|entry| entry.manifest.code.name.as_str());
    let like = if broken.is_none() { in_words(&suggestions(capability, names)) } else { String::new() };
    EnvironmentError::NotInstalled { capability: capability.to_owned(), like, expected, broken }
}

fn remove_file(path: &Path) -> Result<(), EnvironmentError> {
    gone(std::fs::remove_file(path)).map_err(|source| EnvironmentError::removing(path.to_owned(), source))
}

#[cfg(test)]
mod tests;
