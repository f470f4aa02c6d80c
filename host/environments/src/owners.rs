//! Whose the installed tools are: the entry of the list that each came from.

use crate::error::EnvironmentError;
use crate::introspection::requirement_name;
use crate::manifests::{is_installed, read_existing};
use crate::package::{Folder, folder_of};
use crate::steps::Whence;
use cjm_catalog::installation::{env_name_of, is_gone, list_of};
use cjm_catalog::plain_path::is_same_file;
use cjm_wire::Manifest;
use cjm_wire::capabilities_file::Entry;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Capability → entry of the list that it came from, of all whose manifests are in `manifests`.
pub(crate) fn owners(entries: &[Entry], list: &Path, manifests: &Path) -> HashMap<String, String> {
    let owned = |manifest: Manifest| {
        let (_, owner) = origins(&manifest, entries, list).min()?;
        Some((manifest.code.name, entries[owner].name.clone()))
    };
    installed(manifests).filter_map(owned).collect()
}

/// Environment → place in the list of the entry whose it is, of all that entries make. What is installed there stays with
/// its entry: that may have a fault now, and another one must not take its environment for it.
pub(crate) fn homes(entries: &[Entry], list: &Path, manifests: &Path) -> HashMap<String, usize> {
    let installed: Vec<Manifest> = installed(manifests).collect();
    let makes = |entry: &Entry| entry.manifest.is_none() || !entry.package.is_empty();
    let mut homes = HashMap::new();
    for manifest in &installed {
        let origins = origins(manifest, entries, list).filter(|(_, index)| makes(&entries[*index]));
        if let (Some(env_name), Some(origin)) = (env_name_of(manifest), origins.min()) {
            let nearest = homes.entry(env_name).or_insert(origin);
            *nearest = origin.min(*nearest);
        }
    }
    let mut homes: HashMap<String, usize> =
        homes.into_iter().map(|(name, (_, index))| (name, index)).collect();
    for (index, entry) in entries.iter().enumerate() {
        if entry.fault.is_none() && entry.manifest.is_none() {
            homes.entry(entry.env_name.clone()).or_insert(index);
        }
    }
    homes
}

/// How likely a tool came from an entry that may have made it; the first is the likeliest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    SameSource,
    /// One with a fault gives nothing now, and another one may name the same source.
    SameSourceWithFault,
    /// So may one with a fault that names no environment, and names the source of another entry's tool.
    SameSourceWithoutHome,
    /// What it names cannot be read.
    NoSource,
    OtherSource,
}

/// The places in the list of the entries that an installed tool may have come from.
fn origins(manifest: &Manifest, entries: &[Entry], list: &Path) -> impl Iterator<Item = (Likeness, usize)> {
    let base = list.parent().unwrap_or(Path::new("/"));
    let from = entries.iter().enumerate().filter(move |(_, entry)| came_from(manifest, entry, list));
    from.map(move |(index, entry)| {
        let is_same = is_copied(manifest, entry, base) || is_from(manifest, &entry.package, base);
        let likeness = match (is_same, entry.fault.is_some()) {
            (true, false) => Likeness::SameSource,
            (true, true) if entry.manifest.is_none() && entry.env_name.is_empty() => {
                Likeness::SameSourceWithoutHome
            }
            (true, true) => Likeness::SameSourceWithFault,
            (false, true) if entry.package.is_empty() => Likeness::NoSource,
            (false, _) => Likeness::OtherSource,
        };
        (likeness, index)
    })
}

fn installed(manifests: &Path) -> impl Iterator<Item = Manifest> {
    let files = std::fs::read_dir(manifests).into_iter().flatten().flatten();
    files.filter_map(|file| read_existing(&file.path()))
}

/// Whether an installed tool lives in the environment of this name.
pub(crate) fn is_home(env_name: &str, manifests: &Path) -> bool {
    installed(manifests).any(|one| is_installed(&one) && env_name_of(&one).as_deref() == Some(env_name))
}

fn came_from(manifest: &Manifest, entry: &Entry, list: &Path) -> bool {
    let base = list.parent().unwrap_or(Path::new("/"));
    // It takes nothing over from another list.
    if entry.fault.is_some() && other_list(manifest, list).is_some() {
        return false;
    }
    // Only one with a fault has both.
    if entry.manifest.is_some() && entry.package.is_empty() {
        return is_copied(manifest, entry, base);
    }
    let Some(env_name) = env_name_of(manifest) else { return false };
    if entry.fault.is_some() && entry.env_name.is_empty() {
        return is_from(manifest, &entry.package, base);
    }
    env_name == entry.env_name
        && (other_list(manifest, list).is_none() || is_from(manifest, &entry.package, base))
}

/// Whether its manifest is that of the entry.
fn is_copied(manifest: &Manifest, entry: &Entry, base: &Path) -> bool {
    let is_source =
        |source: &String| is_same_file(Path::new(&manifest.install.package_source), &base.join(source));
    entry.manifest.as_ref().is_some_and(is_source)
}

/// The list that the tool came from, where that is another one, and is there still.
fn other_list(manifest: &Manifest, list: &Path) -> Option<PathBuf> {
    list_of(manifest).filter(|other| !is_gone(other) && !is_same_file(other, list))
}

/// Whether the tool was made from this package, of whatever version.
fn is_from(manifest: &Manifest, package: &str, base: &Path) -> bool {
    let source = &manifest.install.package_source;
    match folder_of(package, base) {
        Some(folder) => is_same_file(Path::new(source), &folder),
        None => {
            !source.starts_with('/') && is_named_alike(requirement_name(source), requirement_name(package))
        }
    }
}

/// Whether it was made from a package of the same name, wherever that lies.
fn is_from_namesake(manifest: &Manifest, package: &str, base: &Path) -> bool {
    let name_of = |text: &str| match folder_of(text, base) {
        Some(folder) => Folder::read(&folder).ok()?.distribution,
        None => Some(requirement_name(text).to_owned()),
    };
    let names = (name_of(&manifest.install.package_source), name_of(package));
    matches!(names, (Some(one), Some(other)) if is_named_alike(&one, &other))
}

/// Whether an installed tool was made from the package that the entry names, wherever that lies now: under another name it
/// is the same tool then.
#[must_use]
pub fn is_of_package(manifest: &Manifest, entry: &Entry, list: &Path) -> bool {
    let base = list.parent().unwrap_or(Path::new("/"));
    is_from(manifest, &entry.package, base) || is_from_namesake(manifest, &entry.package, base)
}

fn is_named_alike(one: &str, other: &str) -> bool {
    !one.is_empty() && one.eq_ignore_ascii_case(other)
}

/// Refuses to put the tool `now` of an entry into the environment that another list's tool lives in. The same tool may be
/// taken over, and so may what the same package calls otherwise. Before the name is known, a package of that name is taken
/// for the same.
///
/// # Errors
/// Whose it is.
pub(crate) fn check_own_environment(
    entry: &Entry,
    now: Option<&str>,
    list: &Path,
    manifests: &Path,
) -> Result<(), EnvironmentError> {
    let base = list.parent().unwrap_or(Path::new("/"));
    let is_same = |manifest: &Manifest| match now {
        Some(now) => manifest.code.name == now,
        None => is_from_namesake(manifest, &entry.package, base),
    };
    let theirs = installed(manifests).find_map(|manifest| {
        let lives_there = env_name_of(&manifest).is_some_and(|name| name == entry.env_name);
        let is_ours = || is_same(&manifest) || is_from(&manifest, &entry.package, base);
        let other = other_list(&manifest, list).filter(|_| lives_there && !is_ours())?;
        Some((manifest.code.name, other))
    });
    match theirs {
        None => Ok(()),
        Some((capability, list)) => {
            let (env_name, whence) = (entry.env_name.clone(), Whence::List(list));
            Err(EnvironmentError::EnvironmentOfAnotherList { env_name, capability, whence })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_whole;
    use cjm_wire::capabilities_file::CapabilitiesFileError;
    use cjm_wire::describe::Described as _;

    fn entry(package: &str) -> Entry {
        let (name, env_name) = ("entry".to_owned(), "shared".to_owned());
        Entry { name, env_name, package: package.to_owned(), ..Entry::default() }
    }

    /// The manifest of "theirs", which a list of this path installed from `source`.
    fn install(manifests: &Path, list: &Path, source: &str) {
        let text = format!(
            r#"{{"format_version":"2.0","install":{{"conda_env":"shared","python_path":"/p","package_source":"{source}",
            "capabilities_file":"{}"}},"code":{{"name":"theirs","version":"1","module":"m","class":"C"}}}}"#,
            list.display()
        );
        write_whole(&manifests.join("theirs.json"), text.as_bytes()).expect("written");
    }

    #[test]
    fn an_environment_is_that_of_the_list_whose_tool_lives_there_unless_it_is_the_same_tool() {
        let folder = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| folder.path().join(name);
        let (manifests, own, theirs) = (at("manifests"), at("own.yaml"), at("theirs.yaml"));
        for (name, text) in [
            ("own.yaml", ""),
            ("theirs.yaml", ""),
            ("here/pyproject.toml", "[project]\nname = 'tool'\nversion = '1'\n"),
            ("there/pyproject.toml", "[project]\nname = 'Tool'\nversion = '2'\n"),
            ("other/pyproject.toml", "[project]\nname = 'other'\nversion = '1'\n"),
        ] {
            write_whole(&at(name), text.as_bytes()).expect("written");
        }
        // One that cannot be looked at may be there, and keeps its tools.
        let hidden = at("hidden.yaml");
        std::os::unix::fs::symlink(&hidden, &hidden).expect("a link to itself");
        let of = |other: &Path| {
            install(&manifests, other, "x");
            other_list(&read_existing(&manifests.join("theirs.json")).expect("a manifest"), &own)
        };
        assert_eq!(
            (of(&hidden), of(&theirs), of(&at("gone.yaml"))),
            (Some(hidden), Some(theirs.clone()), None)
        );
        let here = at("here").display().to_string();
        let allows = |package: &str, now: Option<&str>| {
            let checked = check_own_environment(&entry(package), now, &own, &manifests);
            checked.map_err(|error| assert_eq!(error.code(), "install.environment_of_another_list")).is_ok()
        };
        // Of each: known by its name, by another name, and not known yet.
        let looks = |package: &str| [Some("theirs"), Some("another"), None].map(|now| allows(package, now));
        install(&manifests, &theirs, &here);
        assert_eq!(looks("./here"), [true, true, true]);
        assert_eq!(looks("./there"), [true, false, true], "the same package from elsewhere");
        assert_eq!(looks("./other"), [true, false, false]);
        assert_eq!(looks("tool==2"), [true, false, true]);
        install(&manifests, &theirs, "lab==1.0");
        assert_eq!(looks("lab>=2"), [true, true, true]);
        assert_eq!(looks("laboratory"), [true, false, false]);
        let owned = |list: &Path| owners(&[entry("laboratory")], list, &manifests);
        assert_eq!(
            (owned(&own).len(), owned(&theirs).len()),
            (0, 1),
            "it stays with the list that it came from"
        );
        let faulty = |name: &str, env_name: &str| {
            let (name, env_name) = (name.to_owned(), env_name.to_owned());
            Entry { name, env_name, fault: Some(CapabilitiesFileError::NoKey), ..entry("lab>=2") }
        };
        let both = [faulty("homeless", ""), faulty("at home", "shared")];
        let owned = |list: &Path| owners(&both, list, &manifests).remove("theirs");
        assert_eq!(
            (owned(&own), owned(&theirs).as_deref()),
            (None, Some("at home")),
            "of its own list alone"
        );
        let owned = |list: &Path| owners(&[entry("laboratory")], list, &manifests);
        std::fs::remove_file(&theirs).expect("removed");
        assert_eq!(looks("laboratory"), [true, true, true], "nobody is robbed");
        assert_eq!(owned(&own).len(), 1);
    }
}
