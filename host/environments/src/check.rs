//! What `install-all` would refuse of a list on any machine, found without making, fetching or running anything of it. What
//! this machine alone lacks (a program, an interpreter, conda) is not looked for.

use crate::asked_python::wanted_of_some;
use crate::conda::CondaOptions;
use crate::conda_entry::CondaEntry;
use crate::error::EnvironmentError;
use crate::owners::owners;
use crate::package::{Folder, Requirements};
use crate::tool_entry;
use cjm_catalog::plain_path::plain_path;
use cjm_wire::capabilities_file::{CapabilitiesFile, Entry};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// One entry that would not be installed.
#[derive(Debug)]
pub struct Refusal {
    /// Its place in the list.
    pub entry: usize,
    /// Why not, as `install-all` would say it.
    pub error: EnvironmentError,
}

/// What is wrong with each entry of `list` that has no `fault` already; `manifests` are those of what is installed, where
/// that is known.
#[must_use]
pub fn refusals(file: &CapabilitiesFile, list: &Path, manifests: Option<&Path>) -> Vec<Refusal> {
    let base = list.parent().unwrap_or(Path::new("/"));
    let mut tools: Vec<(usize, String)> = Vec::new();
    let mut environments: HashMap<&str, &str> = HashMap::new();
    let mut found = Vec::new();
    for (index, entry) in file.capabilities.iter().enumerate().filter(|(_, entry)| entry.fault.is_none()) {
        let looked = match &entry.manifest {
            Some(manifest) => tool_entry::read(&plain_path(&base.join(manifest)))
                .map(|manifest| tools.push((index, manifest.code.name))),
            None => package(entry, base, &mut environments),
        };
        if let Err(error) = looked {
            found.push(Refusal { entry: index, error });
        }
    }
    let owners = manifests.map(|manifests| owners(&file.capabilities, list, manifests)).unwrap_or_default();
    found.extend(names_taken(&file.capabilities, tools, &owners));
    found.sort_by_key(|refusal| refusal.entry);
    found
}

/// The folders of source that the entries name, with what each asks of Python; those that are no packages are left out.
#[must_use]
pub fn package_folders(file: &CapabilitiesFile, base: &Path) -> Vec<(PathBuf, Option<String>)> {
    let packages = file.capabilities.iter().filter(|entry| entry.manifest.is_none() && entry.fault.is_none());
    let folders = packages.filter_map(|entry| {
        let requirements = Requirements::of(entry, base).ok()?;
        let folders: Vec<_> = requirements.folders().map(|folder| folder.path.clone()).collect();
        Some(folders.into_iter().map(|folder| (folder, entry.python_version.clone())))
    });
    let mut folders: Vec<_> = folders.flatten().collect();
    folders.sort();
    folders.dedup();
    folders
}

/// Why the package in this folder would not be installed, if it would not.
#[must_use]
pub fn package_refusal(folder: &Path) -> Option<EnvironmentError> {
    Folder::read(folder).err()
}

/// Of the `tools` that entries give, those whose names others have: what is installed under a name keeps it as long as its
/// entry gives it no other one, and of the rest the first has it. As an installation does, it looks again at who waits.
fn names_taken(
    entries: &[Entry],
    mut tools: Vec<(usize, String)>,
    owners: &HashMap<String, String>,
) -> Vec<Refusal> {
    let mut given: HashMap<String, &str> = HashMap::new();
    let mut refused = Vec::new();
    loop {
        let before = tools.len();
        tools.retain(|(index, capability)| {
            let name = entries[*index].name.as_str();
            let gives = |owner: &String| given.values().any(|by| by == owner);
            if owners.get(capability).is_some_and(|owner| owner != name && !gives(owner)) {
                return true;
            }
            match given.get(capability) {
                None => drop(given.insert(capability.clone(), name)),
                Some(other) => {
                    let (capability, other) = (capability.clone(), (*other).to_owned());
                    let error = EnvironmentError::CapabilityTwice { capability, other };
                    refused.push(Refusal { entry: *index, error });
                }
            }
            false
        });
        if tools.len() == before {
            break;
        }
    }
    let waits = |(entry, capability): (usize, String)| {
        let other = owners.get(&capability).cloned().unwrap_or_default();
        Refusal { entry, error: EnvironmentError::CapabilityOfAnotherEntry { capability, other } }
    };
    refused.into_iter().chain(tools.into_iter().map(waits)).collect()
}

fn package<'e>(
    entry: &'e Entry,
    base: &Path,
    environments: &mut HashMap<&'e str, &'e str>,
) -> Result<(), EnvironmentError> {
    if let Some(other) = environments.insert(&entry.env_name, &entry.name) {
        let (env_name, other) = (entry.env_name.clone(), other.to_owned());
        return Err(EnvironmentError::SharedEnvironment { env_name, other });
    }
    CondaEntry::read(entry, base, base, &CondaOptions::default())?;
    // What conda makes has the interpreter that its file names.
    if entry.env_file.is_none() {
        wanted_of_some(entry)?;
    }
    Requirements::of(entry, base).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_wire::describe::Described;

    #[test]
    fn each_entry_is_looked_at_as_an_installation_would() {
        let folder = tempfile::tempdir().expect("tempdir");
        let base = folder.path();
        let write = |name: &str, text: &str| {
            let path = base.join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        };
        let tool = r#"{"format_version":"2.0","code":{"name":"tool","version":"1","runtime":{"kind":"native","program":"/no"}}}"#;
        write("tool.json", tool);
        write("broken.json", "{");
        write("good/pyproject.toml", "[project]\nname = 'good'\nversion = '1'\n");
        write("bad/pyproject.toml", "[project\n");
        let text = "capabilities:\n\
                    - {name: a, manifest: tool.json}\n\
                    - {name: b, manifest: tool.json}\n\
                    - {name: c, manifest: broken.json}\n\
                    - {name: d, manifest: missing.json}\n\
                    - {name: e, env_name: one, package: ./good, python_version: '3.12'}\n\
                    - {name: f, env_name: one, package: named, python_version: '3.12'}\n\
                    - {name: g, env_name: g, package: ./bad, python_version: '3.12'}\n\
                    - {name: h, env_name: h, package: ./missing, python_version: '3.12'}\n\
                    - {name: i, env_name: i, package: named, python_version: newest}\n\
                    - {name: j, env_name: j, package: '--pre', python_version: '3.12'}\n\
                    - {name: k, env_name: k, package: named, env_file: missing.yml}\n";
        let file = CapabilitiesFile::parse(text).expect("a list");
        let found: Vec<_> = refusals(&file, &base.join("list.yaml"), None)
            .iter()
            .map(|found| (found.entry, found.error.code()))
            .collect();
        assert_eq!(
            found,
            [
                (1, "install.capability_twice"),
                (2, "manifest.malformed"),
                (3, "install.file"),
                (5, "install.shared_environment"),
                (6, "install.broken_project"),
                (7, "install.file"),
                (8, "install.bad_python_version"),
                (9, "install.unsupported"),
                (10, "install.file"),
            ]
        );
        let good = base.join("good").canonicalize().expect("there");
        assert_eq!(package_folders(&file, base), [(good, Some("3.12".to_owned()))]);
    }
}
