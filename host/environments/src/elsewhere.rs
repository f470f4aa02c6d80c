//! Environments that conda keeps for all data directories of a machine: whose one is, where that is another data directory.
//!
//! The stamp in it names the data directory that it was made for. That counts while a link there leads to it: a directory that
//! is gone, or whose tool was taken away, owns nothing.

use crate::error::EnvironmentError;
use crate::files::own_home;
use crate::stamp::Stamp;
use crate::steps::Whence;
use cjm_catalog::plain_path::is_same_file;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The tool of another data directory that lives in the environment at `home`, and that directory.
pub(crate) fn tool_of_another(home: &Path, data_dir: &Path) -> Option<(String, PathBuf)> {
    let stamp = Stamp::read(home)?;
    let theirs = stamp.data_dir.filter(|theirs| !is_same_file(theirs, data_dir))?;
    let name = home.file_name()?.to_string_lossy();
    let lives_there = match std::fs::read_link(own_home(&theirs, &name)) {
        Ok(led_to) => is_same_file(&led_to, home),
        // What another user has hidden may be there.
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    };
    lives_there.then_some((stamp.capability, theirs))
}

/// Refuses to change an environment in which a tool of another data directory lives.
///
/// # Errors
/// Whose it is.
pub(crate) fn check_not_of_another(home: &Path, data_dir: &Path) -> Result<(), EnvironmentError> {
    let Some((capability, theirs)) = tool_of_another(home, data_dir) else { return Ok(()) };
    let env_name = home.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(EnvironmentError::EnvironmentOfAnotherList { env_name, capability, whence: Whence::DataDir(theirs) })
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let refused = || check_not_of_another(&home, &ours).err();
        assert!(refused().is_none(), "it is not whole");
        stamp.write(&home).expect("written");
        assert!(refused().is_none(), "of an older one nothing is known");
        stamp.data_dir = Some(theirs.clone());
        stamp.write(&home).expect("written");
        let told = refused().expect("a tool lives there");
        let theirs_word = theirs.display().to_string();
        assert!(told.to_string().contains("\"c\"") && told.to_string().contains(&theirs_word), "{told}");
        assert!(told.next_step().contains(&theirs_word), "{}", told.next_step());
        assert!(check_not_of_another(&home, &theirs).is_ok(), "it is its own");
        std::fs::remove_file(&link).expect("removed");
        assert!(refused().is_none(), "it was taken away there");
        std::os::unix::fs::symlink(at("elsewhere"), &link).expect("linked");
        assert!(refused().is_none(), "its tool lives in another one by now");
    }
}
