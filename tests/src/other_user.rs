//! Commands of a user who may not read everything, though the tests may be root's.

use crate::repo;
use crate::world::{COMMAND_MAX, Outcome, World};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

/// Sets the rights of a file or folder.
///
/// # Panics
/// When it is not ours.
pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
}

/// Makes all of a world that of whom [`run_without_rights`] runs as, but this folder.
///
/// # Panics
/// When it cannot be given away.
pub fn give_away(world: &World, but: &Path) {
    if is_root() {
        let all = world.data_dir();
        let all = all.parent().expect("a folder");
        let given = Command::new("chown").args(["-R", "65534:65534"]).arg(all).status();
        assert!(given.is_ok_and(|done| done.success()));
        chown(but, Some(0), Some(0)).expect("root may");
    }
}

/// Whether these tests are root's.
#[must_use]
pub fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n")
}

/// As somebody who may go to the data directory, and whom the rights of what lies there hold back.
///
/// # Panics
/// When that user cannot be given what he needs.
#[must_use]
pub fn run_without_rights(world: &World, arguments: &[&str]) -> Outcome {
    if !is_root() {
        return world.run(arguments);
    }
    let above = world.data_dir().ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>();
    above
        .iter()
        .filter(|folder| folder.starts_with(world.file("")))
        .for_each(|folder| set_mode(folder, 0o755));
    let mut other = Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(repo::binary("cjm-ctl"));
    other.arg("--data-dir").arg(world.data_dir()).args(arguments);
    // Where ours lies this user may not look.
    let worker = world.file("cjm-worker");
    if !worker.exists() {
        fs::copy(repo::binary("cjm-worker"), &worker).expect("copied");
    }
    other.env("CJM_WORKER", worker);
    world.start_command(other).wait(COMMAND_MAX)
}
