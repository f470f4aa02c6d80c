//! Looks into what is installed once more: a capability's manifest is written anew, or an adapter's for the first time.
//! Nothing is installed or made.
//!
//! What must hold: what belongs to the user (`overrides`, `env_vars`, what they wrote into `code`) and to the installation (`installed_at`, the
//! interpreter, the lock) is as it was, but for what a source manifest has changed since; only what the code says of
//! itself is new.

use crate::adapters;
use crate::error::EnvironmentError;
use crate::files::{check_nobody_installs, lock, write_whole};
use crate::introspection::{self, Introspected, Subject, is_path};
use crate::list::read_capabilities;
use crate::manifests::{
    env_name_of, keep_adapter_that_is_not_ours, keep_promises, link_in_words, remember_installed,
};
use crate::removal::{Place, find_environment, not_installed};
use crate::report::INSTALLER_VERSION;
use crate::steps::{ADAPTER_STEP, WORDS_STEP};
use crate::tool_entry::{self, Copied};
use crate::user_values::settle_code;
use cjm_catalog::Settings;
use cjm_catalog::installation::{Installation, list_of};
use cjm_catalog::plain_path::plain_path;
use cjm_catalog::{Catalog, CatalogEntry, NotYours};
use cjm_wire::runtime::Runtime;
use cjm_wire::{AdapterManifest, Manifest, Timestamp};
use std::path::{Path, PathBuf};

/// What the lock says while this works.
const REGENERATE: &str = "regenerate-manifest";

/// Where the name of the package came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageSource {
    /// It was told.
    Told,
    /// The manifest knows it.
    Manifest,
    /// The list of capabilities does.
    List,
    /// Nobody does; the manifest's module is looked into.
    Unknown,
}

impl PackageSource {
    /// As the ancestor calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Told => "--package override",
            Self::Manifest => "manifest.install.package_source",
            Self::List => "capabilities.yaml lookup",
            Self::Unknown => "code.module of the manifest",
        }
    }
}

/// A capability to look into once more.
#[derive(Debug, Clone)]
pub struct Regeneration {
    entry: CatalogEntry,
    /// What it was installed from.
    pub package: String,
    /// Who says so.
    pub source: PackageSource,
    data_dir: PathBuf,
    python: PathBuf,
}

/// A manifest that was written anew.
#[derive(Debug, Clone)]
pub struct Regenerated {
    /// The file.
    pub path: PathBuf,
    /// What stands in it.
    pub manifest: Manifest,
    /// Whether the schema or the surface is another than before.
    pub changed: bool,
    /// What became of values that its source and the installed manifest had differently: replaced, or kept.
    pub values: Vec<String>,
    /// What is odd, and no error.
    pub warnings: Vec<String>,
}

/// Finds the capability, its interpreter and its package.
///
/// # Errors
/// When it is not installed, or its environment is gone.
pub async fn plan_regeneration(
    settings: &Settings,
    capability: &str,
    package: Option<&str>,
    list: Option<&Path>,
) -> Result<Regeneration, EnvironmentError> {
    check_nobody_installs(&settings.data_dir)?;
    let catalog = Catalog::discover(&settings.manifest_dirs());
    let entry = catalog.get(capability).ok_or_else(|| not_installed(settings, &catalog, capability))?;
    let (package, source) = match package {
        Some(told) => (told_package(entry, told)?, PackageSource::Told),
        None => package_of(entry, list)?,
    };
    let python = match entry.manifest.runtime() {
        Runtime::Python { .. } => interpreter(settings, entry).await?,
        // What it was copied from is all there is to look into.
        Runtime::Executable(_) | Runtime::Native { .. } | Runtime::Channel { .. } if package.is_empty() => {
            return Err(by_hand(entry));
        }
        Runtime::Executable(_) | Runtime::Native { .. } | Runtime::Channel { .. } => PathBuf::new(),
    };
    Ok(Regeneration { entry: entry.clone(), package, source, data_dir: settings.data_dir.clone(), python })
}

impl Regeneration {
    /// The list that it was installed from, where its manifest knows it.
    #[must_use]
    pub fn installed_by(&self) -> Option<PathBuf> {
        list_of(&self.entry.manifest)
    }

    /// Looks, and writes the manifest.
    ///
    /// # Errors
    /// When the package cannot be looked into, or calls itself something else now.
    pub async fn regenerate(
        &self,
        sdk: &Path,
        on_line: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Regenerated, EnvironmentError> {
        // It changes no environment.
        let claim = lock(&self.data_dir, REGENERATE, [])?;
        // A manifest of half an update would stay where the update is put back.
        if let Some(unfinished) = Installation::of(&self.entry).and_then(|known| known.unfinished()) {
            return Err(unfinished.into());
        }
        let regenerated = match self.entry.manifest.runtime() {
            Runtime::Python { .. } => claim.during(self.look_into_python(sdk, on_line)).await,
            Runtime::Executable(_) | Runtime::Native { .. } | Runtime::Channel { .. } => self.copy_again(),
        }?;
        remember_installed(std::slice::from_ref(&regenerated.path));
        Ok(regenerated)
    }

    async fn look_into_python(
        &self,
        sdk: &Path,
        on_line: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Regenerated, EnvironmentError> {
        let environment = self.python.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
        let existing = &self.entry.manifest;
        let module = match self.source {
            PackageSource::Told => introspection::module_of_package(environment, &self.package)?,
            _ => existing.code.module.clone(),
        };
        let set = existing.install.env_vars.iter();
        let variables = set.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let folder =
            Some(Path::new(&self.package)).filter(|package| package.is_absolute() && package.is_dir());
        let module = Some(module.as_str());
        let subject = Subject { python: &self.python, directory: environment, module, variables, folder };
        let Introspected { code, mut warnings, .. } = introspection::ask(&subject, sdk, &[], on_line).await?;
        self.check_name(&code.name)?;
        let mut manifest = existing.clone();
        manifest.code = code;
        manifest.code.runtime.clone_from(&existing.code.runtime);
        keep_promises(&mut manifest.code, &existing.code);
        let values = settle_code(&mut manifest, Some(existing), &self.entry.path).lines();
        manifest.code.regenerated_at = Some(Timestamp::now());
        manifest.install.installer_version = INSTALLER_VERSION.to_owned();
        manifest.install.package_source.clone_from(&self.package);
        if manifest.install.python_path.is_empty() {
            manifest.install.python_path = self.python.display().to_string();
        }
        manifest.seal();
        warnings.extend(link_in_words(&self.entry.path));
        write_whole(&self.entry.path, checked_text(&manifest)?.as_bytes())?;
        let changed = manifest.drift_tracking != existing.drift_tracking;
        Ok(Regenerated { path: self.entry.path.clone(), manifest, changed, values, warnings })
    }

    /// Another name would take the manifest, and with it the secrets, of the tool that has it.
    fn check_name(&self, now: &str) -> Result<(), EnvironmentError> {
        let existing = &self.entry.manifest;
        if now == existing.code.name {
            return Ok(());
        }
        Err(EnvironmentError::AnotherName {
            capability: existing.code.name.clone(),
            now: now.to_owned(),
            list: list_of(existing),
        })
    }

    /// A tool without an environment says what it is in the manifest it was installed from.
    fn copy_again(&self) -> Result<Regenerated, EnvironmentError> {
        let manifests = self.entry.path.parent().unwrap_or(Path::new("/"));
        let claim = |name: &str, _: Option<&str>| self.check_name(name);
        let Copied { manifest, values, .. } =
            tool_entry::install(Path::new(&self.package), manifests, None, true, claim)?;
        let changed = manifest.code != self.entry.manifest.code;
        Ok(Regenerated {
            path: manifests.join(manifest.file_name()),
            manifest,
            changed,
            values,
            warnings: Vec::new(),
        })
    }
}

/// The manifest of an adapter that was written.
#[derive(Debug)]
pub struct GeneratedAdapter {
    /// Its file.
    pub path: PathBuf,
    /// What it says.
    pub adapter: AdapterManifest,
    /// What stood in its place and is kept, for people.
    pub warnings: Vec<String>,
}

/// Writes the manifest of one adapter that lives in an environment.
///
/// # Errors
/// When there is no such environment, or the adapter cannot be looked into.
pub async fn generate_adapter_manifest(
    settings: &Settings,
    env_name: &str,
    target: &str,
    sdk: &Path,
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<GeneratedAdapter, EnvironmentError> {
    let whole =
        target.rsplit_once(':').is_some_and(|(module, class)| !module.is_empty() && !class.is_empty());
    if !whole || target.contains(',') {
        return Err(EnvironmentError::AdapterTarget(target.to_owned()));
    }
    let place = find_environment(settings, env_name).await?;
    let environment =
        place.path().ok_or_else(|| EnvironmentError::EnvironmentMissing { env_name: env_name.to_owned() })?;
    if matches!(place, Place::Own(_)) {
        let catalog = Catalog::discover(&settings.manifest_dirs());
        let has_tool = catalog.entries().any(|entry| env_name_of(entry).as_deref() == Some(env_name));
        NotYours::check_environment(settings, environment, has_tool)?;
    }
    let python = environment.join("bin/python");
    let subject = Subject {
        python: &python,
        directory: environment,
        module: None,
        variables: Vec::new(),
        folder: None,
    };
    let found = introspection::ask_adapters(&subject, sdk, &[target], on_line).await?;
    let adapter = found.into_iter().next().ok_or_else(|| EnvironmentError::Introspection {
        message: "it described no adapter".to_owned(),
        next_step: ADAPTER_STEP.into(),
        stderr_tail: Vec::new(),
    })?;
    let (name, adapter) = adapters::named(adapter, env_name)?;
    let path = settings.manifests_dir().join(name);
    let mut warnings = Vec::new();
    warnings.extend(keep_adapter_that_is_not_ours(&path)?);
    warnings.extend(link_in_words(&path));
    write_whole(&path, adapter.to_file_text().as_bytes())?;
    remember_installed(std::slice::from_ref(&path));
    Ok(GeneratedAdapter { path, adapter, warnings })
}

/// A folder or a file that was told, by its whole path: whoever reads the manifest later stands somewhere else. The name
/// of a package is what it is.
fn told_package(entry: &CatalogEntry, told: &str) -> Result<String, EnvironmentError> {
    let text = told.trim();
    let text = text.strip_prefix("-e ").map_or(text, str::trim);
    let is_python = matches!(entry.manifest.runtime(), Runtime::Python { .. });
    // Any other tool is told by its manifest.
    if is_python && !is_path(text) {
        return Ok(told.to_owned());
    }
    let path = plain_path(Path::new(text));
    match path.metadata() {
        Ok(_) => Ok(path.display().to_string()),
        Err(source) => Err(EnvironmentError::File { action: "find the package", path, source }),
    }
}

fn package_of(
    entry: &CatalogEntry,
    list: Option<&Path>,
) -> Result<(String, PackageSource), EnvironmentError> {
    let known = &entry.manifest.install.package_source;
    if !known.is_empty() {
        return Ok((known.clone(), PackageSource::Manifest));
    }
    let Some(list) = list else { return Ok((String::new(), PackageSource::Unknown)) };
    let file = read_capabilities(list)?;
    let listed = file.capabilities.into_iter().find(|known| known.name == entry.manifest.code.name);
    Ok(match listed {
        Some(listed) => (listed.manifest.unwrap_or(listed.package), PackageSource::List),
        None => (String::new(), PackageSource::Unknown),
    })
}

/// The one of the manifest, or of the environment it names.
async fn interpreter(settings: &Settings, entry: &CatalogEntry) -> Result<PathBuf, EnvironmentError> {
    let named = PathBuf::from(&entry.manifest.install.python_path);
    if named.is_file() {
        return Ok(named);
    }
    let Some(env_name) = env_name_of(entry) else { return Err(by_hand(entry)) };
    let place = find_environment(settings, &env_name).await?;
    let python = place.path().map(|path| path.join("bin/python")).filter(|python| python.is_file());
    match python {
        Some(python) => Ok(python),
        None => {
            // An installation that is at work makes it at this moment.
            lock(&settings.data_dir, REGENERATE, [])?;
            Err(EnvironmentError::EnvironmentMissing { env_name })
        }
    }
}

fn by_hand(entry: &CatalogEntry) -> EnvironmentError {
    let capability = entry.manifest.code.name.clone();
    EnvironmentError::ByHand { capability, path: entry.path.clone() }
}

/// The rest is foreign, so that what is written must be what would be read.
fn checked_text(manifest: &Manifest) -> Result<String, EnvironmentError> {
    let text = manifest.to_file_text();
    Manifest::parse(&text).map(|_| ()).map_err(|error| EnvironmentError::Introspection {
        message: error.to_string(),
        next_step: WORDS_STEP.into(),
        stderr_tail: Vec::new(),
    })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_catalog::settings::CliOverrides;
    use cjm_wire::describe::Described as _;
    use std::ffi::OsString;

    /// A data directory with one manifest that no installation wrote, and what regenerating it is answered with.
    async fn planned(
        manifest: &str,
        during_installation: bool,
    ) -> (Result<Regeneration, EnvironmentError>, PathBuf) {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("manifests/lab.json");
        std::fs::create_dir_all(folder.path().join("manifests")).expect("mkdir");
        std::fs::write(&path, manifest).expect("write");
        let told = CliOverrides { data_dir: Some(folder.path().to_owned()), ..CliOverrides::default() };
        let variable = |name: &str| (name == "HOME").then(|| OsString::from(folder.path()));
        let settings = Settings::resolve_from(&told, &variable, folder.path()).expect("settings");
        let claim = during_installation.then(|| lock(folder.path(), REGENERATE, []).expect("a claim"));
        let planned = plan_regeneration(&settings, "lab", None, None).await;
        drop(claim);
        (planned, path)
    }

    #[tokio::test]
    async fn a_manifest_put_there_by_hand_is_to_be_edited() {
        let program = r#"{"format_version":"2.0","code":{"name":"lab","version":"1","runtime":{"kind":"native","program":"x"}}}"#;
        let python = r#"{"format_version":"2.0","code":{"name":"lab","version":"1","module":"m","class":"C"},"install":{"python_path":"/none/python"}}"#;
        for manifest in [program, python] {
            let (planned, path) = planned(manifest, false).await;
            let refused = planned.expect_err("there is nothing to look into");
            assert!(
                matches!(&refused, EnvironmentError::ByHand { path: told, .. } if *told == path),
                "{refused}"
            );
            assert!(refused.next_step().contains(&path.display().to_string()), "{}", refused.next_step());
            assert_eq!(refused.exit_code(), 1);
        }
    }

    #[tokio::test]
    async fn an_environment_that_is_being_made_is_no_missing_one() {
        let manifest = r#"{"format_version":"2.0","code":{"name":"lab","version":"1","module":"m","class":"C"},"install":{"conda_env":"lab-that-is-nowhere","python_path":"/none/python"}}"#;
        let (missing, _) = planned(manifest, false).await;
        assert!(matches!(missing, Err(EnvironmentError::EnvironmentMissing { .. })), "{missing:?}");
        let (made_now, _) = planned(manifest, true).await;
        assert!(matches!(made_now, Err(EnvironmentError::InUse { .. })), "{made_now:?}");
    }
}
