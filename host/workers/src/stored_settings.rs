//! What is stored for an instance beside its manifest: the secrets it declares, and the configuration that a host was
//! last left with (ours or the ancestor's). Reads files; keeps nothing itself.
//!
//! What must hold: a secret goes to nobody who did not declare it, and to no other manifest than the one it was set for,
//! whatever its name; what cannot be read fails the start and is not taken for nothing.

use crate::options::HostOptions;
use crate::required::{InWords, Missing, cure};
use cjm_catalog::CatalogEntry;
use cjm_store::owners::belongs_to;
use cjm_store::{Configs, FileSecrets, InstanceConfig, Secrets, SecretsError, SqliteConfigs, StoreError};
use cjm_wire::InstanceId;
use cjm_wire::describe::{Described, Facts, exit};
use cjm_wire::manifest::DeclaredVariable;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// Target of log lines that are for the user, not for whoever looks for a fault: `cjm-ctl` shows them as notes.
pub const NOTES: &str = "cjm_note";

/// What is stored for one instance.
#[derive(Debug, Default)]
pub(crate) struct StoredSettings {
    /// Declared secrets that there are.
    pub(crate) secrets: Map<String, Value>,
    /// The configuration, when one is stored.
    pub(crate) config: Option<Map<String, Value>>,
    /// Variables of the worker beyond the manifest's.
    pub(crate) worker_env: BTreeMap<String, String>,
}

/// Why an instance cannot be started with what is stored for it.
#[derive(Debug, thiserror::Error)]
pub enum StoredSettingsFault {
    /// Its secrets cannot be read.
    #[error("the secrets of \"{capability}\" cannot be read: {source}")]
    Secrets {
        /// The capability.
        capability: String,
        /// Why not.
        source: SecretsError,
    },
    /// Its configuration cannot be read.
    #[error("the kept configuration of \"{instance}\" cannot be read: {source}")]
    Configuration {
        /// The instance.
        instance: String,
        /// Why not.
        source: StoreError,
    },
    /// A variable that it cannot do without has no value.
    #[error("\"{capability}\" needs {}", InWords(missing))]
    RequiredMissing {
        /// The capability.
        capability: String,
        /// The variables.
        missing: Vec<Missing>,
    },
    /// Somebody disabled it.
    #[error("\"{instance}\" is disabled")]
    Disabled {
        /// The instance.
        instance: String,
    },
}

impl StoredSettingsFault {
    fn facts(&self) -> Facts {
        match self {
            Self::Secrets { source, .. } => Facts::of(source),
            Self::Configuration { source, .. } => Facts::of(source),
            Self::RequiredMissing { capability, missing } => {
                Facts::new("worker.required_missing", exit::WORKER_START, cure(capability, missing))
            }
            Self::Disabled { instance } => Facts::new(
                "worker.disabled",
                exit::WORKER_START,
                format!(
                    "enable it in the program that disabled it, or delete the row of \"{instance}\" from \
                     capability_configs.db"
                ),
            ),
        }
    }
}

impl Described for StoredSettingsFault {
    fn code(&self) -> &'static str {
        self.facts().code
    }

    fn next_step(&self) -> String {
        self.facts().next_step
    }

    fn exit_code(&self) -> u8 {
        self.facts().exit_code
    }
}

/// Looks up what is stored for an instance of a capability.
pub(crate) fn stored_settings(
    entry: &CatalogEntry,
    instance: &InstanceId,
    options: &HostOptions,
) -> Result<StoredSettings, StoredSettingsFault> {
    let unreadable = |source| StoredSettingsFault::Configuration { instance: instance.to_string(), source };
    let mut stored = StoredSettings { secrets: secrets(entry, options)?, ..StoredSettings::default() };
    let configs = SqliteConfigs::of(&options.data_dir);
    let Some(found) = configs.get(instance.as_str()).map_err(unreadable)? else { return Ok(stored) };
    let owner = configs.owner_of(instance.as_str()).map_err(unreadable)?;
    if !belongs_to(&options.data_dir, owner.as_deref(), &entry.path) {
        tracing::warn!(
            target: NOTES, "the kept configuration of \"{instance}\" belongs to {}, not to {}, and is not used",
            owner_text(&options.data_dir, owner.as_deref()), entry.path.display()
        );
        return Ok(stored);
    }
    let InstanceConfig { config, enabled, worker_env, .. } = found;
    if !enabled {
        return Err(StoredSettingsFault::Disabled { instance: instance.to_string() });
    }
    stored.config = Some(config);
    stored.worker_env =
        worker_env.into_iter().filter_map(|(name, value)| Some((name, text(&value)?))).collect();
    Ok(stored)
}

fn secrets(entry: &CatalogEntry, options: &HostOptions) -> Result<Map<String, Value>, StoredSettingsFault> {
    let capability = &entry.manifest.code.name;
    let mut found = Map::new();
    let unreadable = |source| StoredSettingsFault::Secrets { capability: capability.clone(), source };
    let store = FileSecrets::of(&options.data_dir);
    for variable in declared(entry).filter(|variable| variable.secret) {
        let name = &variable.name;
        let Some(value) = store.get(None, capability, name).map_err(unreadable)? else { continue };
        let owner = store.owner_of(None, capability, name).map_err(unreadable)?;
        if belongs_to(&options.data_dir, owner.as_deref(), &entry.path) {
            found.insert(name.clone(), value.into());
        } else {
            tracing::warn!(
                target: NOTES,
                "the secret {name} of \"{capability}\" belongs to {}, not to {}, which does not get it; next: \
                 `cjm-ctl set-secret {capability} {name} --force` keeps one for it instead",
                owner_text(&options.data_dir, owner.as_deref()), entry.path.display()
            );
        }
    }
    Ok(found)
}

fn declared(entry: &CatalogEntry) -> impl Iterator<Item = &DeclaredVariable> {
    entry.manifest.code.worker_env.iter().flatten()
}

fn owner_text(data_dir: &Path, owner: Option<&Path>) -> String {
    owner.map_or_else(
        || format!("the manifests in {}", data_dir.join("manifests").display()),
        |owner| owner.display().to_string(),
    )
}

/// Refuses to start what lacks a variable that its manifest calls required; `has` says whether its tool will see one.
/// Gives the others that have no value: a tool that fails may speak of them.
pub(crate) fn check_required(
    entry: &CatalogEntry,
    options: &HostOptions,
    has: impl Fn(&str) -> bool,
) -> Result<Vec<Missing>, StoredSettingsFault> {
    let capability = &entry.manifest.code.name;
    let store = FileSecrets::of(&options.data_dir);
    // That it is there for somebody else is only an explanation: where it cannot be had, there is none.
    let of_others = |name: &str| {
        store.get(None, capability, name).ok().flatten()?;
        let owner = store.owner_of(None, capability, name).ok().flatten();
        Some(owner.unwrap_or_else(|| options.data_dir.join("manifests")))
    };
    let as_missing = |DeclaredVariable { name, secret, .. }: &DeclaredVariable| Missing {
        name: name.clone(),
        secret: *secret,
        manifest: entry.path.clone(),
        of_others: if *secret { of_others(name) } else { None },
    };
    let unset = || declared(entry).filter(|variable| !has(&variable.name));
    let missing: Vec<Missing> = unset().filter(|variable| variable.required).map(as_missing).collect();
    match missing.is_empty() {
        true => Ok(unset().map(as_missing).collect()),
        false => Err(StoredSettingsFault::RequiredMissing { capability: capability.clone(), missing }),
    }
}

/// As an environment holds it.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_wire::manifest::Manifest;
    use serde_json::json;

    fn entry(path: &Path) -> CatalogEntry {
        let manifest = json!({"format_version": "2.0", "code": {"name": "lab", "version": "1",
            "runtime": {"kind": "native", "program": "x"},
            "worker_env": [{"name": "A_KEY", "secret": true, "required": true}, {"name": "PLAIN"}]}});
        let manifest = Manifest::parse(&manifest.to_string()).expect("manifest");
        CatalogEntry { path: path.to_owned(), manifest }
    }

    fn stored_for(data_dir: &Path, manifest: &Path) -> Result<StoredSettings, StoredSettingsFault> {
        stored_settings(&entry(manifest), &InstanceId::from_text("lab"), &HostOptions::new(data_dir))
    }

    /// Of the manifest in the data directory.
    fn stored(data_dir: &Path) -> Result<StoredSettings, StoredSettingsFault> {
        stored_for(data_dir, &data_dir.join("manifests/lab.json"))
    }

    #[test]
    fn what_was_set_for_one_manifest_is_not_for_another_of_its_name() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (data, mine) = (folder.path(), folder.path().join("manifests/lab.json"));
        let stranger = folder.path().join("repo/.cjm/manifests/lab.json");
        for path in [&mine, &stranger] {
            std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            std::fs::write(path, "{}").expect("write");
        }
        let secrets = FileSecrets::of(data);
        let configs = SqliteConfigs::of(data);
        let row =
            InstanceConfig { config: Map::from_iter([("a".to_owned(), json!(1))]), ..Default::default() };
        let given = |path: &Path| {
            let stored = stored_for(data, path).expect("readable");
            (stored.secrets.contains_key("A_KEY"), stored.config.is_some())
        };
        secrets.set(None, "lab", "A_KEY", "v").expect("set");
        configs.set("lab", &row).expect("set");
        assert_eq!(
            (given(&mine), given(&stranger)),
            ((true, true), (false, false)),
            "set for nobody in particular"
        );
        secrets.set_for(None, "lab", "A_KEY", "v", &stranger).expect("set");
        configs.set_for("lab", &row, &stranger).expect("set");
        assert_eq!((given(&mine), given(&stranger)), ((false, false), (true, true)), "set for the other one");
    }

    #[test]
    fn a_required_variable_without_a_value_is_refused_with_its_cure() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (data, options) = (folder.path(), HostOptions::new(folder.path()));
        let entry = entry(&data.join("repo/lab.json"));
        let refused = || check_required(&entry, &options, |_| false).expect_err("missing");
        let error = refused();
        assert_eq!((error.code(), error.exit_code()), ("worker.required_missing", exit::WORKER_START));
        assert!(error.to_string().ends_with("needs A_KEY, which is not set"), "{error}");
        assert!(error.next_step().starts_with("`cjm-ctl set-secret lab A_KEY`"), "{}", error.next_step());
        let unset = check_required(&entry, &options, |name| name == "A_KEY").expect("all that is required");
        assert_eq!(
            unset,
            [Missing {
                name: "PLAIN".to_owned(),
                secret: false,
                manifest: entry.path.clone(),
                of_others: None
            }]
        );
        FileSecrets::of(data).set(None, "lab", "A_KEY", "v").expect("set");
        assert!(refused().to_string().contains("for another manifest of this name"), "{}", refused());
    }

    #[test]
    fn declared_secrets_and_the_last_configuration_are_found() {
        let folder = tempfile::tempdir().expect("tempdir");
        let nothing = stored(folder.path()).expect("nothing is kept");
        assert!(nothing.secrets.is_empty() && nothing.config.is_none());
        let secrets = FileSecrets::of(folder.path());
        for key in ["A_KEY", "PLAIN", "OTHER"] {
            secrets.set(None, "lab", key, "v").expect("set");
        }
        let configs = SqliteConfigs::of(folder.path());
        let object = |value: Value| value.as_object().cloned().expect("object");
        let mut row = InstanceConfig {
            config: object(json!({"a": 1})),
            worker_env: object(json!({"N": 2, "S": "x", "NONE": null})),
            ..InstanceConfig::default()
        };
        configs.set("lab", &row).expect("set");
        let found = stored(folder.path()).expect("all of it");
        assert_eq!(Value::Object(found.secrets), json!({"A_KEY": "v"}));
        assert_eq!(found.config.map(Value::Object), Some(json!({"a": 1})));
        let variables: Vec<_> =
            found.worker_env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(variables, [("N", "2"), ("S", "x")]);
        row.enabled = false;
        configs.set("lab", &row).expect("set");
        assert!(matches!(stored(folder.path()), Err(StoredSettingsFault::Disabled { .. })));
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_nothing() {
        let folder = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir(folder.path().join("secrets")).expect("mkdir");
        std::fs::write(folder.path().join("secrets/secrets.json"), "{").expect("write");
        let error = stored(folder.path()).expect_err("damaged");
        assert_eq!((error.code(), error.exit_code()), ("secrets.damaged", exit::STORE));
        std::fs::remove_dir_all(folder.path().join("secrets")).expect("remove");
        std::fs::write(folder.path().join("capability_configs.db"), "no database at all, but long enough")
            .expect("write");
        assert!(matches!(stored(folder.path()), Err(StoredSettingsFault::Configuration { .. })));
    }
}
