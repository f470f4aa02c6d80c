//! Manifests written by an installation: what the user changed by hand survives every rewrite, and that the user
//! installed them is remembered outside the data directory, which may be a folder that came from elsewhere.

use crate::error::EnvironmentError;
use crate::files::write_whole;
use cjm_catalog::allowed::Register;
use cjm_catalog::plain_path::is_same_file;
use cjm_catalog::{CatalogEntry, MANIFEST_BYTES_MAX, installation};
use cjm_platform::files::{read_regular, read_regular_to_string};
use cjm_wire::manifest::Code;
use cjm_wire::{AdapterManifest, Manifest, Timestamp};
use std::path::{Path, PathBuf};

/// Keys of `code` beyond those of the type that only looking into a class gives.
const SAID_BY_CLASS: [&str; 1] = ["actions"];

/// A key that belongs into `code`: at the top it makes a manifest of some kinds none.
const MISPLACED: &str = "runtime";
/// In the name under which something is kept that is no manifest.
const BROKEN: &str = "broken";
/// In the name under which something is kept that another one takes the place of.
const REPLACED: &str = "replaced";
/// Largest of those that are compared with what is to be kept, in bytes.
const KEPT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Whoever installs something has allowed it. Where that cannot be kept, the manifests still run from a data directory
/// that the user names, so it fails no installation; anywhere else the next call says what is missing.
pub(crate) fn remember_installed(manifests: &[PathBuf]) {
    let read = |path: &PathBuf| Some((path.clone(), read_regular(path, MANIFEST_BYTES_MAX as u64).ok()?));
    let contents: Vec<_> = manifests.iter().filter_map(read).collect();
    give_word(contents.iter().map(|(path, content)| (path.as_path(), content.as_slice())));
}

/// Writes a manifest with the word for it. A new one has it first, so that no call beside the installation finds it and
/// asks for what is being given; one that takes another's place has it at once after, for the old one has it until then.
pub(crate) fn write_installed(path: &Path, text: &[u8]) -> Result<(), EnvironmentError> {
    if !path.exists() {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|source| EnvironmentError::writing("create", folder.to_owned(), source))?;
        }
        give_word([(path, text)]);
        return write_whole(path, text);
    }
    write_whole(path, text)?;
    give_word([(path, text)]);
    Ok(())
}

/// Gives a copy the word that its original has, so that what was withheld stays so.
pub(crate) fn pass_word_on(original: &Path, copy: &Path, content: &[u8]) {
    let allowed = Register::of_user().and_then(|register| register.read());
    if allowed.is_ok_and(|allowed| allowed.covers(original, content)) {
        give_word([(copy, content)]);
    }
}

fn give_word<'m>(given: impl IntoIterator<Item = (&'m Path, &'m [u8])>) {
    if let Err(error) = Register::of_user().and_then(|register| register.allow(given)) {
        tracing::warn!(%error, "it cannot be kept that these manifests were installed");
    }
}

/// The manifest at `path`, if there is one that can be read; a broken one is replaced.
pub(crate) fn read_existing(path: &Path) -> Option<Manifest> {
    Manifest::parse(&read_regular_to_string(path, MANIFEST_BYTES_MAX as u64).ok()?).ok()
}

/// A name beside a manifest under which it is none, for what is kept of it.
fn kept_name(path: &Path, why: &str) -> PathBuf {
    let mut kept = path.as_os_str().to_owned();
    kept.push(format!(".{why}-{}", Timestamp::now().as_micros().unwrap_or_default()));
    PathBuf::from(kept)
}

/// Whether an installation made it: that says from what.
pub(crate) fn is_installed(manifest: &Manifest) -> bool {
    !manifest.install.package_source.is_empty()
}

/// Where a manifest is kept when its tool is taken away, if no installation made it from another file; it need not be one.
pub(crate) fn kept_of(path: &Path) -> Option<PathBuf> {
    // One that was installed where it lies is what it was installed from.
    let is_copy = |manifest: &Manifest| {
        is_installed(manifest) && !is_same_file(Path::new(&manifest.install.package_source), path)
    };
    let is_installed = read_existing(path).as_ref().is_some_and(is_copy);
    let is_file = std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir());
    (is_file && !is_installed).then(|| kept_name(path, "removed"))
}

/// Keeps what stands in the place of a manifest and no installation made under a second name, for whoever wrote it; says
/// which. What an installation that failed had kept so is not kept again.
///
/// # Errors
/// When it cannot be kept; nothing has changed then.
pub(crate) fn keep_what_is_not_ours(path: &Path) -> Result<Option<String>, EnvironmentError> {
    let there = read_existing(path).map(|there| {
        let is_installed = is_installed(&there);
        let Code { name, version, .. } = there.code;
        Standing { name, version, is_installed }
    });
    keep_unless_installed(path, there)
}

/// The same of the manifest of an adapter.
///
/// # Errors
/// As there.
pub(crate) fn keep_adapter_that_is_not_ours(path: &Path) -> Result<Option<String>, EnvironmentError> {
    let there = read_adapter(path).map(|there| {
        let is_installed = is_installed_adapter(&there);
        let AdapterManifest { name, version, .. } = there;
        Standing { name, version, is_installed }
    });
    keep_unless_installed(path, there)
}

/// Whether an installation wrote the adapter's manifest that lies there, of this environment.
pub(crate) fn is_adapter_installed_in(path: &Path, env_name: &str) -> bool {
    read_adapter(path).is_some_and(|there| is_installed_adapter(&there) && there.conda_env == env_name)
}

fn read_adapter(path: &Path) -> Option<AdapterManifest> {
    AdapterManifest::parse(&read_regular_to_string(path, MANIFEST_BYTES_MAX as u64).ok()?).ok()
}

/// Whoever looks at one in an environment says when, and in which.
fn is_installed_adapter(adapter: &AdapterManifest) -> bool {
    !adapter.generated_at.is_empty() && !adapter.conda_env.is_empty()
}

/// What stands in the place of a manifest, and is one.
struct Standing {
    name: String,
    version: String,
    is_installed: bool,
}

fn keep_unless_installed(path: &Path, there: Option<Standing>) -> Result<Option<String>, EnvironmentError> {
    // What a link leads to stays where it is.
    let has_words = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0);
    if !has_words || there.as_ref().is_some_and(|there| there.is_installed) {
        return Ok(None);
    }
    let (why, what) = match there {
        None => (BROKEN, "what stood there was no manifest".to_owned()),
        Some(Standing { name, version, .. }) => {
            (REPLACED, format!("{name} {version} stood there, which no installation made"))
        }
    };
    let kept = match kept_already(path, why) {
        Some(kept) => kept,
        None => keep_once(path, why)?,
    };
    Ok(Some(format!(
        "{}: {what}, and is kept as {}: copy from it what you need",
        path.display(),
        kept.display()
    )))
}

/// What is told where the place of a manifest that is about to be written is a link: what it leads to is not ours to write,
/// and may be the very source of the tool.
pub(crate) fn link_in_words(path: &Path) -> Option<String> {
    let leads_to = std::fs::read_link(path).ok()?;
    let leads_to = path.parent().unwrap_or(Path::new("/")).join(leads_to);
    Some(format!(
        "{}: was a link to {}, and is a file of its own now; what it led to stays as it is",
        path.display(),
        leads_to.display()
    ))
}

fn keep_once(path: &Path, why: &str) -> Result<PathBuf, EnvironmentError> {
    let kept = kept_name(path, why);
    // That needs no room on the disk; manifests are replaced and never written into.
    let done = std::fs::hard_link(path, &kept).or_else(|_| std::fs::copy(path, &kept).map(|_| ()));
    done.map_err(|source| {
        // Half a copy is of no use; that it stays is no second error.
        let _ = std::fs::remove_file(&kept);
        EnvironmentError::writing("keep", kept.clone(), source)
    })?;
    Ok(kept)
}

/// Where the very same is kept.
fn kept_already(path: &Path, why: &str) -> Option<PathBuf> {
    let words = read_regular(path, KEPT_BYTES_MAX).ok()?;
    let begins = format!("{}.{why}-", path.file_name()?.to_string_lossy());
    let beside = std::fs::read_dir(path.parent()?).ok()?.flatten();
    let mut kept = beside.filter(|one| one.file_name().to_string_lossy().starts_with(&begins));
    kept.find(|one| read_regular(&one.path(), KEPT_BYTES_MAX).is_ok_and(|kept| kept == words))
        .map(|one| one.path())
}

/// Gives what stands in the place of a manifest another name, since what an installation that was killed had kept takes its
/// place again; says which.
///
/// # Errors
/// When it stays there.
pub(crate) fn keep_replaced(path: &Path) -> Result<String, EnvironmentError> {
    let kept = kept_name(path, REPLACED);
    std::fs::rename(path, &kept).map_err(|source| EnvironmentError::writing("keep", kept.clone(), source))?;
    Ok(format!(
        "{}: what was written there after an update had been killed is kept as {}: copy from it what you need",
        path.display(),
        kept.display()
    ))
}

/// Takes over what belongs to the user where no source says otherwise: overrides, variables, and the date of the first
/// installation.
pub(crate) fn keep_from(manifest: &mut Manifest, existing: &Manifest) {
    for (key, value) in &existing.overrides {
        manifest.overrides.insert(key.clone(), value.clone());
    }
    for (name, value) in &existing.install.env_vars {
        manifest.install.env_vars.insert(name.clone(), value.clone());
    }
    keep_installation(manifest, existing);
}

/// Takes over what a class cannot say of itself, and who wrote into the manifest has promised.
pub(crate) fn keep_promises(code: &mut Code, existing: &Code) {
    code.idempotent = code.idempotent.or(existing.idempotent);
    code.resources = code.resources.take().or_else(|| existing.resources.clone());
    for (key, value) in existing.unknown.iter().filter(|(key, _)| !SAID_BY_CLASS.contains(&key.as_str())) {
        code.unknown.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

/// Takes over what an installation says of itself and no source can, and top-level keys that nobody but the user knows.
pub(crate) fn keep_installation(manifest: &mut Manifest, existing: &Manifest) {
    if existing.install.installed_at.is_some() {
        manifest.install.installed_at.clone_from(&existing.install.installed_at);
    }
    if manifest.install.db_path.is_empty() {
        manifest.install.db_path.clone_from(&existing.install.db_path);
    }
    for (key, value) in existing.unknown.iter().filter(|(key, _)| *key != MISPLACED) {
        manifest.unknown.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

/// What the manifest calls its environment; a manifest from elsewhere may only have the interpreter's path.
#[must_use]
pub fn env_name_of(entry: &CatalogEntry) -> Option<String> {
    installation::env_name_of(&entry.manifest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn what_is_no_manifest_is_kept_once_and_takes_no_room_however_often_an_installation_fails() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("tool.json");
        std::fs::write(&path, "mine").expect("written");
        let keep = || keep_what_is_not_ours(&path).expect("kept").expect("told");
        let told = keep();
        assert_eq!(keep(), told, "the same name is told again");
        assert_eq!(path.metadata().expect("there").nlink(), 2, "no half of a copy on a full disk");
        write_whole(&path, b"").expect("replaced");
        assert!(keep_what_is_not_ours(&path).expect("nothing to keep").is_none());
        write_whole(&path, b"other").expect("replaced");
        assert_ne!(keep(), told);
        let linked = folder.path().join("linked.json");
        std::os::unix::fs::symlink("tool.json", &linked).expect("linked");
        let words = format!("linked.json: was a link to {}, and", path.display());
        assert!(link_in_words(&linked).expect("told").contains(&words) && link_in_words(&path).is_none());
        std::fs::remove_file(linked).expect("removed");
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 3);
    }
}
