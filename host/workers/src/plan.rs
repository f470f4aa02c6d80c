//! From a manifest to what a worker needs: program, arguments, environment, configuration. Looks at the disk (is the
//! interpreter there?), starts nothing. Every failure here names the capability and what to do.

use crate::binding::{self, BoundAdapter};
use crate::declared_default::expand;
use crate::environment::{self, WorkerEnvironment};
use crate::error::StartError;
use crate::genuine;
use crate::options::{HostOptions, LoadOptions};
use crate::required::{Missing, keys_missing};
use crate::start_advice::{self, absent};
use crate::stored_settings::{NOTES, check_required, stored_settings};
use cjm_catalog::by_hand::place_to_correct;
use cjm_catalog::installation::{Installation, install_all_step, list_of};
use cjm_catalog::{CatalogEntry, ProgramError, programs};
use cjm_wire::link::Launch;
use cjm_wire::manifest::{DeclaredVariable, DriftTracking, MODELS_VARIABLE, Manifest};
use cjm_wire::runtime::Runtime;
use cjm_wire::runtime_check::no_configuration;
use cjm_wire::{AdapterManifest, InstanceId};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest value of a configuration that the journal keeps, in bytes.
const SHOWN_BYTES_MAX: usize = 1024;

/// All that is needed to start the worker of one instance, again and again.
#[derive(Debug, Clone)]
pub struct WorkerPlan {
    /// The capability.
    pub capability: String,
    /// Its version.
    pub version: String,
    /// The instance whose worker it is.
    pub instance: InstanceId,
    pub(crate) program: PathBuf,
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    /// Names (names only) of what the manifest and the host add to the environment; for the journal.
    pub overlay_keys: Vec<String>,
    /// Names of the variables that are set for this tool on purpose; what it makes may depend on them.
    pub(crate) own_variables: BTreeSet<String>,
    /// Names of variables that the host has and the worker does not get; for errors.
    pub(crate) not_passed: Vec<String>,
    /// What its manifest declares and has no value; for errors.
    pub(crate) unset: Vec<Missing>,
    pub(crate) launch: Launch,
    /// It is the ancestor's own worker, which has no link; `launch` says what it is told on its command line.
    pub(crate) genuine: bool,
    /// What the manifest was made from.
    pub(crate) drift: DriftTracking,
    /// Task adapters that the worker binds.
    pub adapters: Vec<BoundAdapter>,
    /// Of a Python tool: where its environment is made, which may be made anew while a host is up.
    pub(crate) installation: Option<Installation>,
    /// Of a Python tool whose manifest somebody wrote: where that is corrected; for errors.
    pub(crate) place_to_correct: Option<String>,
    /// The list that it was installed from; for errors.
    pub(crate) list: Option<PathBuf>,
    /// They were asked for, not only found.
    pub(crate) adapters_named: bool,
    pub(crate) data_dir: PathBuf,
    /// The configuration that the worker gets.
    pub config: Map<String, Value>,
    /// Its manifest says what that may be; for errors.
    pub(crate) has_config_schema: bool,
    /// Its keys that must be given and were not: the tool refuses it, also where it is empty.
    pub(crate) keys_missing: Box<[String]>,
    /// Its canonical hash; for the journal.
    pub config_hash: String,
    pub(crate) secrets: Map<String, Value>,
    /// How long its calls may take to notice a cancel.
    pub cancel_grace: Duration,
}

impl WorkerPlan {
    /// `python`, `executable`, `native`, `channel`.
    #[must_use]
    pub fn runtime_kind(&self) -> &'static str {
        match self.launch {
            Launch::Python { .. } => "python",
            Launch::Executable { .. } => "executable",
            Launch::Native {} => "native",
            Launch::Channel { .. } => "channel",
        }
    }

    /// The configuration as the journal keeps it: what looks like a secret, or is long, is left out of it.
    #[must_use]
    pub fn config_to_show(&self) -> Value {
        let shown = |(key, value): (&String, &Value)| {
            let length = value.to_string().len();
            let shown = match () {
                () if environment::is_secret_name(key) => "(hidden)".into(),
                () if length > SHOWN_BYTES_MAX => format!("({length} bytes)").into(),
                () => value.clone(),
            };
            (key.clone(), shown)
        };
        self.config.iter().map(shown).collect()
    }

    /// What to do about a tool that could not be loaded, as its words say, where somebody wrote its manifest.
    pub(crate) fn cure_by_hand(&self, words: &str) -> Option<String> {
        if let Launch::Channel { .. } = self.launch {
            // No installation of ours has made anything that it lacks.
            let words = "read what it said last; what is started, and with which arguments, stands in `code.runtime` of its manifest";
            return Some(words.to_owned());
        }
        let place = self.place_to_correct.as_deref()?;
        start_advice::by_hand(place, &self.launch, words)
    }

    /// What the journal names as the module: the Python module, or the program.
    #[must_use]
    pub fn module(&self) -> &str {
        match &self.launch {
            Launch::Python { module, .. } => module,
            Launch::Executable { program, .. } | Launch::Channel { program, .. } => program,
            Launch::Native {} => self.argv.first().map_or("", String::as_str),
        }
    }
}

/// Plans the worker of `instance`.
///
/// # Errors
/// When a program is missing, an adapter that was named does not fit, or its configuration is not right.
pub fn plan(
    entry: &CatalogEntry,
    known_adapters: &[AdapterManifest],
    instance: InstanceId,
    load: &LoadOptions,
    options: &HostOptions,
    worker_binary: &Path,
) -> Result<WorkerPlan, StartError> {
    let manifest = &entry.manifest;
    let name = &manifest.code.name;
    let adapters =
        binding::bind(manifest, known_adapters, load.adapters.as_deref()).map_err(StartError::Adapter)?;
    let installation = Installation::of(entry);
    refuse_unfinished(installation.as_ref())?;
    let (program, argv, launch) = launch(entry, &adapters, worker_binary)?;
    let not_to_be_had = |fault| StartError::StoredSettings(std::sync::Arc::new(fault));
    let stored = stored_settings(entry, &instance, options).map_err(not_to_be_had)?;
    let config = configuration(manifest, load, stored.config)?;
    let data_dir = data_dir_of(manifest, options);
    let mut own_variables = manifest.own_variables();
    own_variables.extend(stored.worker_env.keys().cloned());
    let Surroundings { env, overlay_keys, not_passed } =
        surroundings(manifest, options, &data_dir, stored.worker_env)?;
    let has = |variable: &str| env.contains_key(variable) || stored.secrets.contains_key(variable);
    let unset = check_required(entry, options, has).map_err(not_to_be_had)?;
    let not_passed = not_passed.into_iter().filter(|name| !env.contains_key(name)).collect();
    let config_hash = cjm_wire::canonical::canonical_hash_of(&Value::Object(config.clone()));
    Ok(WorkerPlan {
        capability: name.clone(),
        version: manifest.code.version.clone(),
        instance,
        program,
        argv,
        env,
        overlay_keys,
        own_variables,
        not_passed,
        unset,
        launch,
        genuine: genuine::is_asked_for(manifest),
        drift: match manifest.runtime() {
            Runtime::Python { .. } if options.drift_detection => manifest.drift_tracking.clone(),
            _ => DriftTracking::default(),
        },
        adapters,
        installation,
        place_to_correct: place_to_correct(manifest, &entry.path),
        list: list_of(manifest),
        adapters_named: load.adapters.is_some(),
        data_dir,
        keys_missing: keys_missing(manifest.code.config_schema.as_ref(), &config),
        config,
        has_config_schema: manifest.code.config_schema.is_some(),
        config_hash,
        secrets: stored.secrets,
        cancel_grace: cjm_decide::queue::cancel_grace(&manifest.runtime()),
    })
}

/// What its manifest declares and has no value: what is required, too.
///
/// # Errors
/// When what is stored for it cannot be read.
pub fn unset_variables(
    entry: &CatalogEntry,
    options: &HostOptions,
) -> Result<Vec<DeclaredVariable>, StartError> {
    let manifest = &entry.manifest;
    if manifest.code.worker_env.iter().flatten().next().is_none() {
        return Ok(Vec::new());
    }
    let not_to_be_had = |fault| StartError::StoredSettings(std::sync::Arc::new(fault));
    let instance = InstanceId::from_text(&manifest.code.name);
    let stored = stored_settings(entry, &instance, options).map_err(not_to_be_had)?;
    let data_dir = data_dir_of(manifest, options);
    let Surroundings { env, .. } = surroundings(manifest, options, &data_dir, stored.worker_env)?;
    let has = |name: &String| env.contains_key(name) || stored.secrets.contains_key(name);
    let declared = manifest.code.worker_env.iter().flatten();
    Ok(declared.filter(|variable| !has(&variable.name)).cloned().collect())
}

fn data_dir_of(manifest: &Manifest, options: &HostOptions) -> PathBuf {
    options.data_dir.join("data").join(&manifest.code.name)
}

/// The variables of a worker, without its secrets.
struct Surroundings {
    env: BTreeMap<String, String>,
    overlay_keys: Vec<String>,
    not_passed: Vec<String>,
}

fn surroundings(
    manifest: &Manifest,
    options: &HostOptions,
    data_dir: &Path,
    stored: BTreeMap<String, String>,
) -> Result<Surroundings, ProgramError> {
    let WorkerEnvironment { variables: mut env, not_passed } =
        environment::choose(environment::host_variables(), &options.worker_env_pass);
    let mut overlay = overlay(manifest, options, data_dir)?;
    overlay.extend(stored);
    let overlay_keys = overlay.keys().cloned().collect();
    env.extend(overlay);
    Ok(Surroundings { env, overlay_keys, not_passed })
}

fn launch(
    entry: &CatalogEntry,
    adapters: &[BoundAdapter],
    worker_binary: &Path,
) -> Result<(PathBuf, Vec<String>, Launch), StartError> {
    let manifest = &entry.manifest;
    let name = &manifest.code.name;
    let shim = |launch: Launch| {
        let argv = vec![programs::as_text(worker_binary)?, "shim".to_owned()];
        Ok((worker_binary.to_owned(), argv, launch))
    };
    match manifest.runtime() {
        Runtime::Python { .. } => {
            let python = PathBuf::from(manifest.interpreter());
            check_interpreter(entry, &python)?;
            let launch = Launch::Python {
                python_path: manifest.interpreter().to_owned(),
                module: manifest.code.module.clone(),
                class: manifest.code.class.clone(),
                adapters: adapters.iter().map(|adapter| adapter.spec.clone()).collect(),
            };
            if genuine::is_asked_for(manifest) {
                return Ok((python, genuine::argv(manifest, adapters), launch));
            }
            shim(launch)
        }
        Runtime::Executable(executable) => {
            let program = programs::capability_program(name, &executable.program, &entry.path)?;
            shim(Launch::Executable { program: programs::as_text(&program)?, executable })
        }
        Runtime::Channel { program, args } => {
            let program = programs::capability_program(name, &program, &entry.path)?;
            shim(Launch::Channel { program: programs::as_text(&program)?, args })
        }
        Runtime::Native { program, args } => {
            let program = programs::capability_program(name, &program, &entry.path)?;
            let argv = std::iter::once(programs::as_text(&program)?).chain(args).collect();
            Ok((program, argv, Launch::Native {}))
        }
    }
}

/// What half an installation would say of itself is a missing module, or nothing at all.
pub(crate) fn refuse_unfinished(installation: Option<&Installation>) -> Result<(), StartError> {
    installation.and_then(Installation::unfinished).map_or(Ok(()), |unfinished| Err(unfinished.into()))
}

/// Likewise, once a worker has started: an environment that was removed meanwhile, and by whom nobody knows any more.
pub(crate) fn refuse_changed(plan: &WorkerPlan) -> Result<(), StartError> {
    let installation = plan.installation.as_ref();
    refuse_unfinished(installation)?;
    let lost = installation.and_then(Installation::lost_interpreter);
    lost.map_or(Ok(()), |(path, list)| {
        Err(StartError::InterpreterMissing {
            capability: plan.capability.clone(),
            path: path.to_owned(),
            problem: "was removed while its worker started".to_owned(),
            next_step: made_anew(&plan.capability, list),
        })
    })
}

fn made_anew(capability: &str, list: Option<&Path>) -> String {
    format!("run {}, which makes the environment of \"{capability}\" anew", install_all_step(list))
}

fn check_interpreter(entry: &CatalogEntry, python: &Path) -> Result<(), StartError> {
    let manifest = &entry.manifest;
    let missing = |problem: &str| StartError::InterpreterMissing {
        capability: manifest.code.name.clone(),
        next_step: match place_to_correct(manifest, &entry.path) {
            Some(place) => format!("correct `install.python_path` {place}"),
            None => made_anew(&manifest.code.name, list_of(manifest).as_deref()),
        },
        path: python.to_owned(),
        problem: problem.to_owned(),
    };
    use std::os::unix::fs::PermissionsExt;
    match std::fs::metadata(python) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing(absent(python))),
        Err(error) => Err(missing(&format!("cannot be used: {error}"))),
        Ok(meta) if !meta.is_file() => Err(missing("is no file")),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => {
            Err(StartError::Program(ProgramError::NotExecutable {
                what: format!("the interpreter of \"{}\"", manifest.code.name),
                path: python.to_owned(),
            }))
        }
        Ok(_) => Ok(()),
    }
}

/// What the caller gives, else what is stored, else the defaults. What is stored may be of an older version of the tool,
/// whose keys are left out.
fn configuration(
    manifest: &Manifest,
    load: &LoadOptions,
    stored: Option<Map<String, Value>>,
) -> Result<Map<String, Value>, StartError> {
    let nothing_given = load
        .config
        .as_ref()
        .is_none_or(|config| config.is_null() || config.as_object().is_some_and(Map::is_empty));
    match stored.filter(|_| nothing_given) {
        Some(stored) => effective_config(manifest, Some(&Value::Object(stored)), true),
        None => effective_config(manifest, load.config.as_ref(), load.ignore_unknown_config_keys),
    }
}

/// The configuration that a worker gets: the schema's defaults, overlaid by what the caller gives.
///
/// # Errors
/// When it is no object, or has a key that the schema does not know and `ignore_unknown` does not leave out. Whether a value
/// is right the tool says: its code may take more than its manifest knows, or know more than that by now.
pub fn effective_config(
    manifest: &Manifest,
    given: Option<&Value>,
    ignore_unknown: bool,
) -> Result<Map<String, Value>, StartError> {
    let bad = |message: String, key: Option<&String>| StartError::BadConfiguration {
        capability: manifest.code.name.clone(),
        message,
        has_schema: manifest.code.config_schema.is_some(),
        keys_missing: Box::default(),
        fields: key.into_iter().cloned().collect(),
        stderr_tail: Vec::new(),
    };
    let given = match given {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(map)) => map.clone(),
        Some(other) => return Err(bad(format!("a configuration is a JSON object, not {other}"), None)),
    };
    if let (Some(Runtime::Executable(_)), Some(key)) = (&manifest.code.runtime, given.keys().next()) {
        return if ignore_unknown { Ok(Map::new()) } else { Err(bad(no_configuration(key), Some(key))) };
    }
    let properties = manifest
        .code
        .config_schema
        .as_ref()
        .and_then(|schema| schema.get("properties"))
        .and_then(Value::as_object);
    let Some(properties) = properties else { return Ok(given) };
    if let Some(unknown) = given.keys().find(|key| !properties.contains_key(*key)) {
        let known: Vec<&str> = properties.keys().map(String::as_str).collect();
        if ignore_unknown {
            tracing::warn!(key = %unknown, capability = %manifest.code.name, "an unknown configuration key is left out");
        } else {
            let message = format!("there is no key \"{unknown}\" (there are: {})", known.join(", "));
            return Err(bad(message, Some(unknown)));
        }
    }
    let mut config = Map::new();
    for (key, property) in properties {
        if let Some(value) = given.get(key).or_else(|| property.get("default")) {
            config.insert(key.clone(), value.clone());
        }
    }
    Ok(config)
}

fn overlay(
    manifest: &Manifest,
    options: &HostOptions,
    data_dir: &Path,
) -> Result<BTreeMap<String, String>, ProgramError> {
    let mut env: BTreeMap<String, String> =
        manifest.install.env_vars.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let shared_data = programs::as_text(&options.data_dir.join("data"))?;
    let own_data = programs::as_text(data_dir)?;
    let models_dir = options.models_dir.as_deref().map(programs::as_text).transpose()?;
    let models = models_dir.or_else(|| std::env::var(MODELS_VARIABLE).ok());
    let lookup = |name: &str| match name {
        MODELS_VARIABLE => models.clone(),
        "CJM_CAPABILITY_DATA_DIR" => Some(shared_data.clone()),
        "CAPABILITY_DATA_DIR" => Some(own_data.clone()),
        "CAPABILITY_NAME" => Some(manifest.code.name.clone()),
        _ => None,
    };
    for declared in manifest.code.worker_env.iter().flatten().filter(|declared| !declared.secret) {
        if env.contains_key(&declared.name) {
            continue;
        }
        let Some(template) = &declared.default else { continue };
        match expand(template, &lookup) {
            Ok(value) => {
                env.insert(declared.name.clone(), value);
            }
            // One that is required is refused, with what to do.
            Err(_) if declared.required => {}
            Err(unset) => tracing::warn!(
                target: NOTES, "\"{}\" does not get {}: its default `{template}` names {}", manifest.code.name,
                declared.name, unset.text()
            ),
        }
    }
    env.insert("CJM_CAPABILITY_DATA_DIR".to_owned(), shared_data.clone());
    env.insert("CAPABILITY_DATA_DIR".to_owned(), own_data.clone());
    env.insert("CJM_LOG_LEVEL".to_owned(), options.log_level.clone());
    if let Some(models) = models {
        env.insert(MODELS_VARIABLE.to_owned(), models);
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(code: &Value) -> Manifest {
        let mut full = json!({"format_version": "2.0", "code": {"name": "t", "version": "1",
            "runtime": {"kind": "native", "program": "x"}}});
        for (key, value) in code.as_object().expect("object") {
            full["code"][key] = value.clone();
        }
        Manifest::parse(&full.to_string()).expect("manifest")
    }

    #[test]
    fn configuration_is_defaults_overlaid_and_unknown_keys_are_refused() {
        let manifest = manifest(
            &json!({"config_schema": {"properties": {"a": {"default": 1}, "b": {"default": 2}, "c": {}}}}),
        );
        let merged = effective_config(&manifest, Some(&json!({"b": 3})), false).expect("good");
        assert_eq!(Value::Object(merged), json!({"a": 1, "b": 3}));
        let refused = effective_config(&manifest, Some(&json!({"z": 1})), false).expect_err("unknown key");
        let lenient = effective_config(&manifest, Some(&json!({"z": 1, "a": 7})), true).expect("left out");
        assert_eq!(Value::Object(lenient), json!({"a": 7, "b": 2}));
        assert!(
            refused.to_string().contains("\"z\"") && refused.to_string().contains("a, b, c"),
            "{refused}"
        );
        assert!(effective_config(&manifest, Some(&json!([1])), true).is_err());
    }

    #[test]
    fn declared_variables_expand_in_one_pass() {
        let manifest = manifest(&json!({"worker_env": [
            {"name": "HOME_DIR", "default": "${CAPABILITY_DATA_DIR}/home of ${CAPABILITY_NAME}"},
            {"name": "ODD", "default": "${NOPE}/x"},
            {"name": "PLAIN", "default": "static"},
            {"name": "A_KEY", "secret": true, "default": "never"}
        ]}));
        let options = HostOptions { models_dir: Some("/m".into()), ..HostOptions::new("/d") };
        let env = overlay(&manifest, &options, Path::new("/d/data/t")).expect("text");
        assert_eq!(env.get("CJM_MODELS_DIR").map(String::as_str), Some("/m"));
        assert_eq!(env.get("HOME_DIR").map(String::as_str), Some("/d/data/t/home of t"));
        assert_eq!(env.get("PLAIN").map(String::as_str), Some("static"));
        assert!(!env.contains_key("ODD") && !env.contains_key("A_KEY"));
        // A path that is no text would reach the tool as another one.
        use std::os::unix::ffi::OsStrExt as _;
        let strange = Path::new(std::ffi::OsStr::from_bytes(b"/d\xff"));
        let models = HostOptions { models_dir: Some(strange.to_owned()), ..HostOptions::new("/d") };
        for (options, data_dir) in [(&models, "/d/data/t".as_ref()), (&HostOptions::new(strange), strange)] {
            let refused = overlay(&manifest, options, data_dir).expect_err("no text");
            assert!(matches!(refused, ProgramError::NotText { .. }), "{refused}");
        }
    }

    #[test]
    fn a_plan_has_what_is_stored_and_what_its_caller_gives_comes_before_that() {
        use cjm_store::{Configs as _, FileSecrets, InstanceConfig, Secrets as _, SqliteConfigs};
        // Variables that no worker gets of its host: cargo gives every test some.
        let of_host = environment::choose(environment::host_variables(), &[]).not_passed;
        let one = of_host.first().cloned().unwrap_or_else(|| "ONE".to_owned());
        let folder = tempfile::tempdir().expect("tempdir");
        let mut manifest = manifest(&json!({
            "runtime": {"kind": "native", "program": "/bin/true"},
            "config_schema": {"properties": {"a": {"default": 1}, "b": {"default": 2}}},
            "worker_env": [{"name": "A_KEY", "secret": true, "required": true}, {"name": "NEEDED", "required": true}],
        }));
        manifest.install.env_vars.insert("REGION".to_owned(), "eu".to_owned());
        let entry = CatalogEntry { path: folder.path().join("manifests/t.json"), manifest };
        let options = HostOptions::new(folder.path());
        let plan = |config: Option<Value>| {
            let load = LoadOptions { config, ..LoadOptions::default() };
            plan(&entry, &[], InstanceId::from_text("t"), &load, &options, Path::new("/w"))
        };
        assert!(matches!(plan(None), Err(StartError::StoredSettings(_))), "what it needs is not there");
        FileSecrets::of(folder.path()).set(None, "t", "A_KEY", "v").expect("set");
        let object = |value: Value| value.as_object().cloned().expect("object");
        let row = InstanceConfig {
            config: object(json!({"a": 5, "old": 1})),
            worker_env: object(json!({"NEEDED": "x", one.as_str(): "y"})),
            ..InstanceConfig::default()
        };
        SqliteConfigs::of(folder.path()).set("t", &row).expect("set");
        let stored = plan(None).expect("planned");
        assert_eq!((&stored.env["NEEDED"], &stored.env[&one]), (&"x".to_owned(), &"y".to_owned()));
        assert!(!stored.env.contains_key("A_KEY") && stored.secrets.contains_key("A_KEY"));
        let others: Vec<String> = of_host.into_iter().filter(|name| *name != one).collect();
        assert_eq!(stored.not_passed, others, "it gets one of that name");
        assert!(stored.overlay_keys.iter().any(|name| name == "NEEDED"));
        let own = ["A_KEY", "NEEDED", one.as_str(), "REGION", "CJM_MODELS_DIR"].map(str::to_owned);
        assert_eq!(stored.own_variables, own.into(), "and nothing that merely passes");
        assert_eq!(
            Value::Object(stored.config),
            json!({"a": 5, "b": 2}),
            "a key of an older version is left out"
        );
        for nothing in [json!(null), json!({})] {
            assert_eq!(plan(Some(nothing)).expect("planned").config["a"], 5);
        }
        let given = plan(Some(json!({"b": 7}))).expect("planned");
        assert_eq!(
            Value::Object(given.config.clone()),
            json!({"a": 1, "b": 7}),
            "what is given stands alone"
        );
        assert_ne!(given.config_hash, stored.config_hash);
        let config = json!({"api_key": "v", "long": "x".repeat(SHOWN_BYTES_MAX), "short": "x"});
        let shown = WorkerPlan { config: object(config), ..given }.config_to_show();
        let length = SHOWN_BYTES_MAX + 2;
        assert_eq!(shown, json!({"api_key": "(hidden)", "long": format!("({length} bytes)"), "short": "x"}));
    }

    #[test]
    fn an_interpreter_is_a_file_that_may_be_run() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("tempdir");
        let file = folder.path().join("python");
        let manifest = manifest(&json!({"module": "m", "class": "C"}));
        let tool = CatalogEntry { path: folder.path().join("tool.json"), manifest };
        let told = |path: &Path| check_interpreter(&tool, path).expect_err("none").to_string();
        assert!(told(&file).contains("does not exist"));
        std::fs::write(&file, "").expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("set");
        assert!(told(folder.path()).contains("is no file"), "{}", told(folder.path()));
        assert!(told(&file).contains("is there and is not executable"), "{}", told(&file));
        assert!(told(&file.join("below")).contains("cannot be used"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("set");
        check_interpreter(&tool, &file).expect("one");
    }
}
