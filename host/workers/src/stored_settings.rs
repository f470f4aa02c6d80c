//! What is stored for an instance beside its manifest: the secrets it declares, and the configuration that a host was
//! last left with (ours or the ancestor's). Reads files; keeps nothing itself.
//!
//! What must hold: a secret goes to nobody who did not declare it; what cannot be read fails the start and is not taken
//! for nothing.

use crate::options::HostOptions;
use cjm_store::{Configs, FileSecrets, InstanceConfig, Secrets, SecretsError, SqliteConfigs, StoreError};
use cjm_wire::InstanceId;
use cjm_wire::describe::{Described, Facts, exit};
use cjm_wire::manifest::{DeclaredVariable, Manifest};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

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
    manifest: &Manifest,
    instance: &InstanceId,
    options: &HostOptions,
) -> Result<StoredSettings, StoredSettingsFault> {
    let configuration = SqliteConfigs::of(&options.data_dir)
        .get(instance.as_str())
        .map_err(|source| StoredSettingsFault::Configuration { instance: instance.to_string(), source })?;
    let mut stored = StoredSettings { secrets: secrets(manifest, options)?, ..StoredSettings::default() };
    let Some(InstanceConfig { config, enabled, worker_env, .. }) = configuration else { return Ok(stored) };
    if !enabled {
        return Err(StoredSettingsFault::Disabled { instance: instance.to_string() });
    }
    stored.config = Some(config).filter(|config| !config.is_empty());
    stored.worker_env =
        worker_env.into_iter().filter_map(|(name, value)| Some((name, text(&value)?))).collect();
    Ok(stored)
}

fn secrets(manifest: &Manifest, options: &HostOptions) -> Result<Map<String, Value>, StoredSettingsFault> {
    let declared: Vec<&DeclaredVariable> =
        manifest.code.worker_env.iter().flatten().filter(|declared| declared.secret).collect();
    let mut found = Map::new();
    let store = FileSecrets::of(&options.data_dir);
    for variable in declared {
        let capability = &manifest.code.name;
        let value = store
            .get(None, capability, &variable.name)
            .map_err(|source| StoredSettingsFault::Secrets { capability: capability.clone(), source })?;
        match value {
            Some(value) => {
                found.insert(variable.name.clone(), value.into());
            }
            None if variable.required => tracing::warn!(
                %capability, secret = %variable.name,
                "a required secret is not set; `cjm-ctl set-secret` sets it"
            ),
            None => {}
        }
    }
    Ok(found)
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
    use serde_json::json;
    use std::path::Path;

    fn stored(data_dir: &Path) -> Result<StoredSettings, StoredSettingsFault> {
        let manifest = json!({"format_version": "2.0", "code": {"name": "lab", "version": "1",
            "runtime": {"kind": "native", "program": "x"},
            "worker_env": [{"name": "A_KEY", "secret": true, "required": true}, {"name": "PLAIN"}]}});
        let manifest = Manifest::parse(&manifest.to_string()).expect("manifest");
        stored_settings(&manifest, &InstanceId::from_text("lab"), &HostOptions::new(data_dir))
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
