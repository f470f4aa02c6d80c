//! Which capability to load and how: a name, a name with a configuration, or a record.

use crate::PipelineError;
use cjm_engine::LoadOptions;
use cjm_wire::InstanceId;
use cjm_wire::json::{Arguments, Json};
use serde_json::{Map, Value};

/// One capability to load.
///
/// ```
/// use cjm_host::CapabilitySpec;
/// use serde_json::json;
///
/// let plain = CapabilitySpec::from("speech-detector");
/// let configured = CapabilitySpec::from(("speech-recognizer", json!({"sample_rate": 16000})));
/// let twice = CapabilitySpec::new("speech-recognizer").instances(2);
/// let record = CapabilitySpec::from_record(json!({"name": "speech-recognizer", "sample_rate": 16000})).unwrap();
/// assert_eq!(record, configured);
/// # assert_ne!(plain, twice);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct CapabilitySpec {
    pub(crate) name: String,
    pub(crate) config: Option<Value>,
    pub(crate) instances: u32,
    pub(crate) concurrency_max: Option<u32>,
    pub(crate) adapters: Option<Vec<String>>,
}

impl CapabilitySpec {
    /// One instance with the tool's own defaults.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), config: None, instances: 1, concurrency_max: None, adapters: None }
    }

    /// From a JSON object with `name`; its configuration stands under `config`, or is the object itself without
    /// `name`.
    ///
    /// # Errors
    /// When it is no object, or `name` is missing.
    pub fn from_record(record: Value) -> Result<Self, PipelineError> {
        let Value::Object(mut map) = record else {
            return Err(PipelineError::Spec { message: format!("a record is a JSON object, not {record}") });
        };
        let Some(Value::String(name)) = map.remove("name") else {
            return Err(PipelineError::Spec { message: "a record needs a `name`".to_owned() });
        };
        let config = match map.remove("config") {
            Some(config) => Some(config),
            None if map.is_empty() => None,
            None => Some(Value::Object(map)),
        };
        Ok(Self { config, ..Self::new(name) })
    }

    /// Configures every instance: a JSON object, checked against the manifest's schema.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = Some(config);
        self
    }

    /// How many instances to load, at least one and at most [`INSTANCES_MAX`](cjm_wire::composition::INSTANCES_MAX). The first is named like the capability, the others `NAME-2`, …
    #[must_use]
    pub fn instances(mut self, instances: u32) -> Self {
        self.instances = instances.max(1);
        self
    }

    /// Calls that each instance may run side by side through the queue.
    #[must_use]
    pub fn concurrency_max(mut self, calls: u32) -> Self {
        self.concurrency_max = Some(calls.max(1));
        self
    }

    /// Binds these task adapters (name, class or `module:Class`) and no others; one that does not fit the capability
    /// fails the load with what is missing. Without this, every installed adapter that fits is bound.
    #[must_use]
    pub fn adapters<A: Into<String>>(mut self, adapters: impl IntoIterator<Item = A>) -> Self {
        self.adapters = Some(adapters.into_iter().map(Into::into).collect());
        self
    }

    pub(crate) fn instance_ids(&self) -> Vec<InstanceId> {
        (1..=self.instances).map(|number| InstanceId::numbered(&self.name, number)).collect()
    }

    pub(crate) fn load_options(&self, id: InstanceId, strict: bool) -> LoadOptions {
        LoadOptions {
            instance_id: Some(id),
            config: self.config.clone(),
            concurrency_max: self.concurrency_max,
            adapters: self.adapters.clone(),
            ignore_unknown_config_keys: !strict,
        }
    }
}

impl From<&str> for CapabilitySpec {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for CapabilitySpec {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl<N: Into<String>> From<(N, Value)> for CapabilitySpec {
    fn from((name, config): (N, Value)) -> Self {
        Self::new(name).config(config)
    }
}

/// Arguments of a call: anything that serialises to a JSON object, or to null for none.
pub(crate) fn arguments(args: impl serde::Serialize) -> Result<Map<String, Value>, PipelineError> {
    match serde_json::to_value(args) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(other) => {
            Err(PipelineError::Arguments { message: format!("they are {other}, not a JSON object") })
        }
        Err(error) => Err(PipelineError::Arguments { message: error.to_string() }),
    }
}

/// The same arguments as jobs carry them.
pub(crate) fn exact(arguments: &Map<String, Value>) -> Arguments {
    arguments.iter().map(|(name, value)| (name.clone(), Json::from(value))).collect()
}
