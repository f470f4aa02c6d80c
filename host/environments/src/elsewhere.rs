//! Environments that conda keeps for all data directories of a machine: whose one is, where that is another data directory.
//!
//! The stamp in it names the data directory that it was made for, and so does what stands for the stamp while it is not whole. That counts until the very directory has it no more: where
//! another one lies in its place, or none, it may have been moved, and its calls run there still.

use crate::error::EnvironmentError;
use crate::set_aside::aside_of;
use crate::stamp::{Stamp, version_in};
use crate::steps::Whence;
use cjm_catalog::elsewhere::{Holder, identity_of};
use cjm_catalog::plain_path::is_same_file;
use std::path::{Path, PathBuf};

/// Who has the environment at `home`, where that is not `data_dir`.
fn holder(home: &Path, data_dir: &Path) -> Option<Holder> {
    let holder = Holder::read(home).or_else(|| waiting_for(home))?;
    Some(holder).filter(|holder| !holder.is(data_dir) && !holder.has_given_up())
}

/// Who made what waits beside a place, since an installation was killed that was to make it anew.
fn waiting_for(home: &Path) -> Option<Holder> {
    Holder::read_beside(home, &aside_of(home))
}

/// Whether what waits beside a place is another data directory's.
pub(crate) fn waits_for_another(home: &Path, data_dir: &Path) -> bool {
    waiting_for(home).is_some_and(|holder| !holder.is(data_dir) && !holder.has_given_up())
}

/// The tool of another data directory that lives in the environment at `home`, and that directory.
pub(crate) fn tool_of_another(home: &Path, data_dir: &Path) -> Option<(String, PathBuf)> {
    holder(home, data_dir).map(|holder| (holder.capability, holder.data_dir))
}

/// Whether the environment at `home` was there before a tool of this data directory came into it, and is somebody's.
pub(crate) fn is_found(home: &Path, data_dir: &Path) -> bool {
    Holder::read(home).is_some_and(|holder| holder.is_found && holder.is(data_dir))
}

/// Refuses to change an environment in which a tool of another data directory lives. One of a directory that is not where it
/// was is taken with `force`: what is told then is whose it was.
///
/// # Errors
/// Whose it is.
pub(crate) fn check_not_of_another(
    home: &Path,
    data_dir: &Path,
    force: bool,
) -> Result<Option<String>, EnvironmentError> {
    let Some(holder) = holder(home, data_dir) else { return Ok(None) };
    let is_gone = !holder.lives();
    let Holder { capability, data_dir: theirs, .. } = holder;
    let env_name = home.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if is_gone && force {
        return Ok(Some(format!(
            "its environment was that of \"{capability}\" of the data directory {}, which was moved or removed since: where it \
             was moved, its tool cannot be called any more",
            theirs.display()
        )));
    }
    let whence = if is_gone { Whence::GoneDataDir(theirs) } else { Whence::DataDir(theirs) };
    Err(EnvironmentError::EnvironmentOfAnotherList { env_name, capability, whence })
}

/// Whether a link of a data directory leads to an environment of conda's that is its own, or waits for it.
pub(crate) fn is_own_behind(link: &Path) -> bool {
    let (Ok(home), Some(data_dir)) = (std::fs::read_link(link), link.ancestors().nth(2)) else {
        return false;
    };
    let holder = Holder::read(&home).or_else(|| waiting_for(&home));
    holder.is_some_and(|holder| holder.is(data_dir))
}

/// The stamp behind `environment`, of `envs/` of a data directory, unless another one has that by now: then nothing is installed
/// there.
pub(crate) fn own_stamp(environment: &Path) -> Option<Stamp> {
    let data_dir = environment.ancestors().nth(2)?;
    Stamp::read(environment).filter(|_| Holder::other_behind(environment, data_dir).is_none())
}

/// Name and version of what is installed in an environment, while it is whole.
pub(crate) fn installed_in(environment: &Path, manifests: &Path) -> Option<(String, String)> {
    let capability = own_stamp(environment)?.capability;
    let version = version_in(manifests, &capability)?;
    Some((capability, version))
}

/// Writes down which data directory the one of a conda environment is, and where: it may have been moved.
pub(crate) fn renew_place(stamp: &Stamp, environment: &Path, data_dir: &Path) {
    let home = std::fs::read_link(environment).unwrap_or_else(|_| environment.to_owned());
    // A copy runs what its original made, and takes it from nobody.
    if Holder::read(&home).is_some_and(|holder| !holder.is(data_dir)) {
        return;
    }
    let is_same_place = stamp.data_dir.as_deref().is_some_and(|known| is_same_file(known, data_dir));
    if is_same_place && stamp.data_dir_identity == identity_of(data_dir) {
        return;
    }
    let mut renewed = stamp.clone();
    renewed.belongs_to(Some(data_dir));
    if let Err(error) = renewed.write(environment) {
        let next_step = "let this user write there, and run install-all again";
        tracing::warn!(%error, next_step, "that its data directory is another one now could not be written down");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::own_home;
    use cjm_wire::describe::Described as _;

    #[test]
    fn an_environment_is_that_of_the_data_directory_that_its_stamp_names_while_a_link_there_leads_to_it() {
        let folder = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| folder.path().join(name);
        let (home, ours, theirs) = (at("conda/shared"), at("ours"), at("theirs"));
        std::fs::create_dir_all(&home).expect("mkdir");
        std::fs::create_dir_all(theirs.join("envs")).expect("mkdir");
        let stamp = r#"{"request":"r","python_path":"p","python_version":"3","python_file":"f","lock_hash":"l","capability":"c"}"#;
        let mut stamp: Stamp = serde_json::from_str(stamp).expect("one of an older version");
        let link = own_home(&theirs, "shared");
        std::os::unix::fs::symlink(&home, &link).expect("linked");
        let refused = |force| check_not_of_another(&home, &ours, force).err();
        assert!(refused(false).is_none(), "it is not whole");
        stamp.write(&home).expect("written");
        assert!(refused(false).is_none(), "of an older one nothing is known");
        stamp.data_dir = Some(theirs.clone());
        stamp.write(&home).expect("written");
        let theirs_word = theirs.display().to_string();
        for force in [false, true] {
            let told = refused(force).expect("a tool lives there");
            assert!(told.to_string().contains("\"c\"") && told.to_string().contains(&theirs_word), "{told}");
            assert!(told.next_step().contains(&theirs_word), "{}", told.next_step());
        }
        assert!(check_not_of_another(&home, &theirs, false).is_ok(), "it is its own");
        std::fs::rename(&theirs, at("moved")).expect("moved");
        let told = refused(false).expect("it may have been moved");
        assert!(told.to_string().contains(&theirs_word) && told.next_step().contains("--force"), "{told}");
        let whose = check_not_of_another(&home, &ours, true).expect("taken").expect("told");
        assert!(whose.contains("\"c\"") && whose.contains(&theirs_word), "{whose}");
        assert_eq!(tool_of_another(&home, &ours), Some(("c".to_owned(), theirs.clone())));
        // Another one in its place says nothing of it, nor does what is no directory.
        stamp.data_dir_identity = identity_of(&at("moved"));
        stamp.write(&home).expect("written");
        std::fs::create_dir(&theirs).expect("another one");
        if stamp.data_dir_identity.is_some() {
            assert!(refused(false).is_some() && check_not_of_another(&home, &theirs, false).is_err());
        }
        std::fs::remove_dir(&theirs).expect("removed");
        std::fs::write(&theirs, "").expect("a file");
        assert!(refused(false).is_some() && refused(true).is_none());
        std::fs::remove_file(&theirs).expect("removed");
        std::fs::rename(at("moved"), &theirs).expect("moved back");
        std::fs::remove_file(&link).expect("removed");
        assert!(refused(false).is_none(), "it was taken away there");
        std::os::unix::fs::symlink(at("elsewhere"), &link).expect("linked");
        assert!(refused(false).is_none(), "its tool lives in another one by now");
    }
}
