//! The steps of a task: cargo and scripts, in the repository's root, each named when it fails.

use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Cargo as it was called, in the repository's root, building where `scripts/test` builds.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    if std::env::var_os("CARGO_TARGET_DIR").is_none()
        && let Some(home) = std::env::var_os("HOME")
    {
        command.env("CARGO_TARGET_DIR", PathBuf::from(home).join(".cache/cjm-substrate/target"));
    }
    command
}

/// Where [`cargo`] builds.
pub(crate) fn target_folder() -> PathBuf {
    let cargo = cargo();
    let told = cargo.get_envs().find(|(name, _)| *name == "CARGO_TARGET_DIR").and_then(|(_, value)| value);
    // Its own default is a folder of the repository.
    told.map(PathBuf::from)
        .or_else(|| std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from))
        .map_or_else(|| root().join("target"), |path| root().join(path))
}

pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_owned()
}

pub(crate) fn step(name: &str, command: &mut Command) -> Result<()> {
    let start = Instant::now();
    let status = command.status().with_context(|| format!("{name}: {command:?} did not start"))?;
    if !status.success() {
        bail!("{name} failed ({status}): {command:?}");
    }
    eprintln!("{name}: ok, {:.1} s", start.elapsed().as_secs_f32());
    Ok(())
}
