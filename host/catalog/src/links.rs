//! Links in a data directory that came with a folder from elsewhere.

use crate::settings_error::SettingsError;
use cjm_platform::files::read_regular_to_string;
use cjm_wire::manifest::MANIFEST_BYTES_MAX;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What a host writes, replaces and removes must be in the directory itself where that came with a folder from elsewhere: a
/// link at the name of `envs` would have an installation clear away what it leads to, one below `data` would have results of
/// tools forgotten elsewhere, and one at the name of an action would have files kept there. What tools and environments hold
/// has links of its own.
pub(crate) fn refuse_links(data_dir: &Path, file: &Path) -> Result<(), SettingsError> {
    let data = data_dir.join("data");
    let untold = |path: &Path| {
        let (path, data_dir) = (path.to_owned(), data_dir.to_owned());
        move |source| SettingsError::LinksUntold { path, data_dir, source }
    };
    // One that cannot be listed is told as that by whoever uses it.
    let mut all = links_in(data_dir).unwrap_or_default();
    // Of a link none is looked at behind it.
    let tools = if is_link(&data) { Vec::new() } else { entries(&data).map_err(untold(&data))? };
    for tool in tools.iter().filter(|tool| !is_link(tool)) {
        let links = links_in(tool).map_err(untold(tool))?;
        let is_the_hosts = |link: &PathBuf| link.ends_with("work") || is_action(data_dir, tool, link);
        let leads_out = |link: &PathBuf| link.exists() && !leads_into(link, tool) && is_the_hosts(link);
        all.extend(links.into_iter().filter(leads_out));
    }
    // No folder is made through one that leads nowhere, and programs leave such links.
    all.extend(tools.into_iter().filter(|tool| is_link(tool) && tool.exists()));
    let Some(path) = all.into_iter().next() else { return Ok(()) };
    let target = std::fs::read_link(&path).unwrap_or_default();
    Err(SettingsError::LinkInside { path, target, data_dir: data_dir.to_owned(), file: file.to_owned() })
}

/// Whether a link in the folder of a tool has the name of an action of its, where files are kept.
fn is_action(data_dir: &Path, tool: &Path, link: &Path) -> bool {
    let manifests = entries(&data_dir.join("manifests")).unwrap_or_default();
    let of_tool = manifests.iter().filter_map(|path| {
        let text = read_regular_to_string(path, MANIFEST_BYTES_MAX as u64).ok()?;
        let manifest: Value = serde_json::from_str(&text).ok()?;
        tool.ends_with(manifest.pointer("/code/name")?.as_str()?).then_some(manifest)
    });
    let action = link.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let mut actions =
        of_tool.filter_map(|mut manifest| manifest.pointer_mut("/code/runtime/actions").map(Value::take));
    actions.any(|actions| actions.get(&action).is_some())
}

fn links_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let listing = match std::fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut links = Vec::new();
    for entry in listing {
        let entry = entry?;
        if entry.file_type()?.is_symlink() {
            links.push(entry.path());
        }
    }
    Ok(links)
}

/// What is in a folder; nothing where there is none.
fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether there is something in the folder to which the link leads.
fn leads_into(link: &Path, folder: &Path) -> bool {
    link.canonicalize()
        .is_ok_and(|target| folder.canonicalize().is_ok_and(|folder| target.starts_with(folder)))
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

fn is_link(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}
