//! Readies the machine for others than our workers: the libraries that both sides of a call share, for a Python program
//! of the user's, and the micromamba that makes a project's own conda environments.

use crate::command::{command, run_well};
use crate::conda::micromamba_home;
use crate::error::EnvironmentError;
use cjm_catalog::settings::{Settings, platform};
use cjm_wire::capabilities_file::CapabilitiesFile;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long fetching may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(1800);
/// Where the project of micromamba publishes it.
const MICROMAMBA_URL: &str = "https://micro.mamba.pm/api/micromamba";
/// The library that the ancestor's own environment has already.
const ANCESTOR: &str = "cjm-substrate";

/// Libraries for a Python program that calls capabilities.
#[derive(Debug, Clone)]
pub struct HostSetup {
    /// Requirements, sorted; folders are absolute.
    pub libraries: Vec<String>,
    /// The interpreter of the present environment.
    pub python: PathBuf,
}

/// A micromamba to be put into its place.
#[derive(Debug, Clone)]
pub struct RuntimeSetup {
    /// As `linux-x64`.
    pub platform: String,
    /// Where it belongs.
    pub destination: PathBuf,
    /// The project's prefix, whose folders are made as well.
    pub prefix: Option<PathBuf>,
    /// Where it comes from.
    pub url: String,
}

impl HostSetup {
    /// The libraries that the entries of a list share with their callers; `list` is the list's file.
    ///
    /// # Errors
    /// When there is no Python in the present environment.
    pub fn of(file: &CapabilitiesFile, list: &Path) -> Result<Self, EnvironmentError> {
        let base = std::path::absolute(list).unwrap_or_else(|_| list.to_owned());
        let base = base.parent().unwrap_or(Path::new("/"));
        let wanted = |library: &&String| *library != ANCESTOR && !library.contains("cjm-substrate.git");
        let absolute = |library: &String| {
            let is_folder = ["./", "../"].iter().any(|start| library.starts_with(start));
            if is_folder { base.join(library).display().to_string() } else { library.clone() }
        };
        let libraries: BTreeSet<String> = file
            .capabilities
            .iter()
            .flat_map(|entry| &entry.interface_libs)
            .filter(wanted)
            .map(absolute)
            .collect();
        Ok(Self { libraries: libraries.into_iter().collect(), python: present_python()? })
    }

    /// Installs them there.
    ///
    /// # Errors
    /// With pip's last lines.
    pub async fn install(&self, on_line: &(dyn Fn(&str) + Send + Sync)) -> Result<(), EnvironmentError> {
        let mut pip = command(&self.python);
        pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--"]);
        pip.args(&self.libraries);
        run_well(pip, "installing the shared libraries", FETCH_TIMEOUT, on_line).await.map(|_| ())
    }
}

impl RuntimeSetup {
    /// Where the settings want micromamba to be.
    ///
    /// # Errors
    /// When they name no place, or there is no micromamba for this platform.
    pub fn of(settings: &Settings) -> Result<Self, EnvironmentError> {
        let destination = micromamba_home(settings).ok_or(EnvironmentError::NoPlaceForMicromamba)?;
        let platform = platform();
        let theirs = match platform.as_str() {
            "linux-x64" => "linux-64",
            "linux-arm64" => "linux-aarch64",
            _ => return Err(EnvironmentError::Unsupported(format!("micromamba on {platform}"))),
        };
        let url = format!("{MICROMAMBA_URL}/{theirs}/latest");
        Ok(Self { platform, destination, prefix: settings.conda_prefix.clone(), url })
    }

    /// Makes the folders and fetches the program, with `curl` and `tar`.
    ///
    /// # Errors
    /// With the last lines of what failed; what was there stays.
    pub async fn fetch(&self, on_line: &(dyn Fn(&str) + Send + Sync)) -> Result<(), EnvironmentError> {
        let file = |action: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| EnvironmentError::writing(action, path, source)
        };
        let parent = self.destination.parent().unwrap_or(Path::new("/")).to_owned();
        let folders = self.prefix.iter().flat_map(|prefix| [prefix.join("bin"), prefix.join("envs")]);
        for folder in folders.chain([parent.clone()]) {
            std::fs::create_dir_all(&folder).map_err(file("create", &folder))?;
        }
        // Beside its place, so that it comes there in one step.
        let scratch = parent.join(format!(".micromamba-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).map_err(file("create", &scratch))?;
        let fetched = self.fetch_into(&scratch, on_line).await;
        let placed = fetched.and_then(|program| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
                .and_then(|()| std::fs::rename(&program, &self.destination))
                .map_err(file("put in place", &self.destination))
        });
        // A scratch folder that stays is of no further use, and no second error.
        let _ = cjm_platform::mounts::remove_tree(&scratch);
        placed
    }

    async fn fetch_into(
        &self,
        scratch: &Path,
        on_line: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<PathBuf, EnvironmentError> {
        let archive = scratch.join("micromamba.tar.bz2");
        let mut curl = command(Path::new("curl"));
        curl.args(["--fail", "--silent", "--show-error", "--location", "--proto", "=https", "--output"]);
        curl.arg(&archive).arg(&self.url);
        run_well(curl, "downloading micromamba", FETCH_TIMEOUT, on_line).await?;
        let mut tar = command(Path::new("tar"));
        tar.arg("-xjf").arg(&archive).arg("-C").arg(scratch).arg("bin/micromamba");
        run_well(tar, "extracting micromamba", FETCH_TIMEOUT, on_line).await?;
        Ok(scratch.join("bin/micromamba"))
    }
}

/// Of the environment that is active, else the one on the PATH.
fn present_python() -> Result<PathBuf, EnvironmentError> {
    let active = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(std::env::var_os);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::split_paths(&path).map(|folder| folder.join("python3"));
    active
        .map(|home| PathBuf::from(home).join("bin/python"))
        .chain(named)
        .find(|python| python.is_file())
        .ok_or_else(|| EnvironmentError::NoInterpreter {
            wanted: "in the present environment".to_owned(),
            found: "none".to_owned(),
        })
}
