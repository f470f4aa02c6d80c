//! Finds a capability by its name among the manifests, or says why it cannot be had. It needs no running host, so a
//! caller can ask before anything is made.

use crate::error::HostError;
use cjm_catalog::installation::{Installation, used_environments};
use cjm_catalog::suggestions::suggestions;
use cjm_catalog::{Catalog, CatalogEntry};
use cjm_workers::{HostOptions, StartError};
use std::path::PathBuf;

/// Whether all of these capabilities can be found; nothing is made or started.
///
/// # Errors
/// For the first that cannot.
pub fn check_known<'n>(
    options: &HostOptions,
    names: impl IntoIterator<Item = &'n str>,
) -> Result<(), HostError> {
    let catalog = Catalog::discover(&options.manifest_dirs);
    names.into_iter().try_for_each(|name| find(&catalog, name).map(|_| ()))
}

/// The capability of this name.
pub(crate) fn find<'c>(catalog: &'c Catalog, name: &str) -> Result<&'c CatalogEntry, HostError> {
    if let Some(entry) = catalog.get(name) {
        if let Some(withheld) = catalog.withheld_of(name) {
            tracing::warn!(used = %entry.path.display(), next = %cjm_wire::Described::next_step(withheld), "{withheld}");
        }
        return Ok(entry);
    }
    if let Some(withheld) = catalog.withheld_of(name) {
        return Err(withheld.clone().into());
    }
    let unread = catalog.may_be_unread(name);
    if let Some(problem) = catalog.problem_of(name).filter(|problem| !problem.is_unread()) {
        return Err(HostError::BrokenManifest {
            name: name.to_owned(),
            path: problem.path.clone(),
            message: problem.error.to_string(),
        });
    }
    if let Some(unread) = unread.clone().filter(|_| catalog.unreadable_folder().is_some()) {
        return Err(unread.into());
    }
    let first = |folder: &PathBuf| Installation::named(folder.parent()?, name)?.first();
    if let Some(unfinished) = catalog.folders().iter().find_map(first) {
        return Err(StartError::Unfinished(unfinished).into());
    }
    if let Some(unread) = unread {
        return Err(unread.into());
    }
    let names = catalog.entries().map(|entry| entry.manifest.code.name.as_str());
    let suggestions = suggestions(name, names);
    let all_used = used_environments(catalog);
    let used = |environment: &str| all_used.contains(environment);
    let may_be =
        |folder: &PathBuf| Installation::named(folder.parent()?, name)?.may_be(used, suggestions.clone());
    if let Some(unfinished) = catalog.folders().iter().find_map(may_be) {
        return Err(StartError::Unfinished(unfinished).into());
    }
    Err(HostError::UnknownCapability {
        name: name.to_owned(),
        suggestions,
        searched: catalog.folders().to_vec(),
        nameless: catalog.nameless(),
    })
}
