//! Links in a data directory that came with a folder from elsewhere.

use crate::folders::{Standing, manifest_folders};
use crate::settings_error::SettingsError;
use cjm_platform::files::read_regular_to_string;
use cjm_wire::cache::safe_name;
use cjm_wire::manifest::MANIFEST_BYTES_MAX;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What a host writes, replaces and removes must be in the directory itself where that came with a folder from elsewhere: a
/// link at the name of `envs` would have an installation clear away what it leads to, one below `data` would have results of
/// tools forgotten elsewhere, and one at the name of an action would have files kept there. What tools and environments hold
/// has links of its own, and is not listed: each name of the host's is looked at.
pub(crate) fn refuse_links(data_dir: &Path, working_dir: &Path, file: &Path) -> Result<(), SettingsError> {
    let data = data_dir.join("data");
    let untold = |path: &Path| {
        let (path, data_dir) = (path.to_owned(), data_dir.to_owned());
        move |source| SettingsError::LinksUntold { path, data_dir, source }
    };
    // One that cannot be listed is told as that by whoever uses it.
    let mut all = links_in(data_dir).unwrap_or_default();
    // Of a link none is looked at behind it.
    let tools = if is_link(&data) { Vec::new() } else { entries(&data).map_err(untold(&data))? };
    let work = tools.iter().map(|tool| (tool.clone(), tool.join("work")));
    let kept = if tools.is_empty() { Vec::new() } else { kept_by_actions(data_dir, working_dir) };
    let leads_out =
        |(tool, link): &(PathBuf, PathBuf)| is_link(link) && link.exists() && !leads_into(link, tool);
    all.extend(work.chain(kept).filter(leads_out).map(|(_, link)| link));
    // No folder is made through one that leads nowhere, and programs leave such links.
    all.extend(tools.iter().filter(|tool| is_link(tool) && tool.exists()).cloned());
    let Some(path) = all.into_iter().next() else { return Ok(()) };
    let target = std::fs::read_link(&path).unwrap_or_default();
    Err(SettingsError::LinkInside { path, target, data_dir: data_dir.to_owned(), file: file.to_owned() })
}

/// Where files of actions are kept: the folder of each tool that any manifest here describes, and in it that of each action.
fn kept_by_actions(data_dir: &Path, working_dir: &Path) -> Vec<(PathBuf, PathBuf)> {
    let folders = manifest_folders(data_dir, Standing::Found, Some(working_dir));
    let manifests = folders.iter().flat_map(|folder| entries(&folder.path).unwrap_or_default());
    let mut kept = Vec::new();
    for path in manifests {
        let text = read_regular_to_string(&path, MANIFEST_BYTES_MAX as u64).unwrap_or_default();
        let manifest: Value = serde_json::from_str(&text).unwrap_or_default();
        let name = manifest.pointer("/code/name").and_then(Value::as_str);
        let actions = manifest.pointer("/code/runtime/actions").and_then(Value::as_object);
        let Some((name, actions)) = name.zip(actions).filter(|(name, _)| !name.contains('/')) else {
            continue;
        };
        let tool = data_dir.join("data").join(name);
        kept.extend(actions.keys().map(|action| (tool.clone(), tool.join(safe_name(action)))));
    }
    kept
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_a_link_in_the_place_of_data_nothing_is_looked_at_and_no_tool_is_named_by_a_path() {
        let project = tempfile::tempdir().expect("tempdir");
        let data_dir = project.path().join(".cjm");
        let (data, file) = (data_dir.join("data"), project.path().join("cjm.yaml"));
        for folder in ["manifests", "x", "data/tool"] {
            std::fs::create_dir_all(data_dir.join(folder)).expect("mkdir");
        }
        let is_refused_for_a_link = || match refuse_links(&data_dir, project.path(), &file) {
            Ok(()) => false,
            Err(SettingsError::LinkInside { .. }) => true,
            Err(other) => panic!("{other}"),
        };
        for link in ["x/convert", "data/tool/convert"] {
            std::os::unix::fs::symlink("/", data_dir.join(link)).expect("link");
        }
        // The first leads to no folder of a tool's, whatever a manifest says.
        for (name, expected) in [("../x", false), ("x", false), ("tool", true)] {
            let code = serde_json::json!({"name": name, "runtime": {"actions": {"convert": {}}}});
            let manifest = serde_json::json!({"code": code}).to_string();
            std::fs::write(data_dir.join("manifests/any.json"), manifest).expect("write");
            assert_eq!(is_refused_for_a_link(), expected, "{name}");
        }
        std::fs::remove_dir_all(&data).expect("removed");
        // It leads to itself: whoever looked behind it would be told of that.
        std::os::unix::fs::symlink(&data, &data).expect("link");
        assert!(is_refused_for_a_link());
    }
}
