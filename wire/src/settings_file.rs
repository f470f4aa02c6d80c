//! `cjm.yaml`: the settings of a project or a user, as they stand in the file. Every key may be absent; keys that are
//! not known are ignored, as the ancestor does. Which setting wins over which is the engine's to say.

use crate::describe::Described;
use crate::placed::Placed;
use crate::settings_keys;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Name of the file that is looked for.
pub const SETTINGS_FILE: &str = "cjm.yaml";
/// Largest such file, in bytes.
pub const SETTINGS_BYTES_MAX: usize = 1024 * 1024;

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SettingsFile {
    /// Section `runtime`.
    #[serde(default)]
    pub runtime: Option<RuntimeSection>,
    /// Everything the host keeps, relative to the file.
    #[serde(default, deserialize_with = "path")]
    pub data_dir: Option<PathBuf>,
    /// The list of what to install, relative to the file.
    #[serde(default, deserialize_with = "path")]
    pub capabilities_config: Option<PathBuf>,
    /// Where tools keep models, relative to the file.
    #[serde(default, deserialize_with = "path")]
    pub models_dir: Option<PathBuf>,
    /// Section `substrate`.
    #[serde(default)]
    pub substrate: Option<SubstrateSection>,
}

/// Section `runtime`: how conda environments are made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeSection {
    /// Where environments go.
    #[serde(default)]
    pub mode: Option<RuntimeMode>,
    /// Which program makes them.
    #[serde(default)]
    pub conda_type: Option<CondaType>,
    /// Folder of the project's own environments, relative to the file.
    #[serde(default, deserialize_with = "path")]
    pub prefix: Option<PathBuf>,
    /// Platform (`linux-x64`) → program, relative to the file.
    #[serde(default, deserialize_with = "paths")]
    pub binaries: Option<BTreeMap<String, PathBuf>>,
}

/// Where conda environments go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeMode {
    /// Below the project's own prefix.
    Local,
    /// Where conda keeps all of its environments.
    #[default]
    System,
}

/// Programs that make conda environments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CondaType {
    /// One binary that needs no installation.
    Micromamba,
    /// `mamba`.
    Miniforge,
    /// `conda`.
    #[default]
    Conda,
}

/// Section `substrate`: how the host behaves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SubstrateSection {
    /// Compare a tool's schema and surface with its manifest at each load.
    #[serde(default)]
    pub drift_detection: Option<bool>,
    /// Remember what each call used.
    #[serde(default)]
    pub empirical_tracking: Option<bool>,
    /// How long a preparation may stand still.
    #[serde(default, deserialize_with = "seconds")]
    pub prefetch_stall_threshold_seconds: Option<f64>,
    /// How long records and output are kept; 0 or less: for ever.
    #[serde(default, deserialize_with = "days")]
    pub diagnostics_retention_days: Option<f64>,
    /// Most that `diagnostics.db` may hold.
    #[serde(default, deserialize_with = "megabytes")]
    pub diagnostics_retention_max_mb: Option<f64>,
    /// How long ended jobs and compositions are kept; 0 or less: for ever. Ours, not the ancestor's.
    #[serde(default, deserialize_with = "days")]
    pub jobs_retention_days: Option<f64>,
    /// Names of variables that workers get beyond the fixed list. Ours, not the ancestor's.
    #[serde(default, deserialize_with = "variables")]
    pub worker_env_pass: Option<Vec<String>>,
}

/// Longest time that something is kept, in days, where it is not for ever.
pub const RETENTION_DAYS_MAX: f64 = 1_000_000.0;
/// Least and most that records and output may take, in MB: with less, none would be kept.
pub const RETENTION_MB: std::ops::RangeInclusive<f64> = 0.1..=1_000_000_000.0;

fn days<'de, D: Deserializer<'de>>(value: D) -> Result<Option<f64>, D::Error> {
    // 0 or less is for ever, as in the ancestor.
    number(
        value,
        |days| days.is_finite() && days <= RETENTION_DAYS_MAX,
        || format!("a number of days, at most {RETENTION_DAYS_MAX} (0 or less: for ever)"),
    )
}

fn megabytes<'de, D: Deserializer<'de>>(value: D) -> Result<Option<f64>, D::Error> {
    number(
        value,
        |mb| RETENTION_MB.contains(&mb),
        || format!("a number of MB, from {} to {}", RETENTION_MB.start(), RETENTION_MB.end()),
    )
}

fn seconds<'de, D: Deserializer<'de>>(value: D) -> Result<Option<f64>, D::Error> {
    number(value, |seconds| seconds.is_finite() && seconds >= 0.0, || "a number of seconds".to_owned())
}

/// A number that means something; the parser adds line and column to the refusal.
fn number<'de, D: Deserializer<'de>>(
    value: D,
    is_right: impl FnOnce(f64) -> bool,
    wanted: impl FnOnce() -> String,
) -> Result<Option<f64>, D::Error> {
    match Option::<f64>::deserialize(value)? {
        Some(number) if !is_right(number) => Err(D::Error::custom(format!("{number} is not {}", wanted()))),
        said => Ok(said),
    }
}

/// No system takes a path with a zero byte in it, and its refusal would name no key.
fn path<'de, D: Deserializer<'de>>(value: D) -> Result<Option<PathBuf>, D::Error> {
    let said = Option::<PathBuf>::deserialize(value)?;
    said.map(without_zero_byte).transpose()
}

fn paths<'de, D: Deserializer<'de>>(value: D) -> Result<Option<BTreeMap<String, PathBuf>>, D::Error> {
    let said = Option::<BTreeMap<String, PathBuf>>::deserialize(value)?;
    let whole = |all: BTreeMap<String, PathBuf>| {
        all.into_iter().map(|(platform, path)| Ok((platform, without_zero_byte(path)?))).collect()
    };
    said.map(whole).transpose()
}

fn without_zero_byte<E: serde::de::Error>(path: PathBuf) -> Result<PathBuf, E> {
    match path.as_os_str().as_encoded_bytes().contains(&0) {
        true => Err(E::custom(format!("{path:?} is no path: it holds a zero byte"))),
        false => Ok(path),
    }
}

fn variables<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Vec<String>>, D::Error> {
    let said = Option::<Vec<String>>::deserialize(value)?;
    let is_none = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    match said.iter().flatten().find(is_none) {
        Some(name) => Err(D::Error::custom(format!(
            "{name:?} is no name of a variable: give names alone, as in [MY_VARIABLE]"
        ))),
        None => Ok(said),
    }
}

/// Why the file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsFileError {
    /// Not YAML of this shape; the message carries line and column.
    #[error("{0}")]
    Malformed(String),
    /// Empty, the file's own folder would be filled with all that the host keeps.
    #[error("`data_dir` is empty, and names no folder")]
    EmptyDataDir,
    /// Above [`SETTINGS_BYTES_MAX`].
    #[error("{0} bytes long, more than the {SETTINGS_BYTES_MAX} allowed")]
    TooLarge(usize),
}

impl Described for SettingsFileError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "settings_file.malformed",
            Self::EmptyDataDir => "settings_file.empty_data_dir",
            Self::TooLarge(_) => "settings_file.too_large",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Malformed(_) => {
                "correct the file where the message points; docs/CONFIGURATION.md lists the keys".to_owned()
            }
            Self::EmptyDataDir => {
                "name a folder, as in `data_dir: ./.cjm`, or leave the key out for ~/.cjm".to_owned()
            }
            Self::TooLarge(_) => format!("see that this is the {SETTINGS_FILE} you mean"),
        }
    }
}

impl SettingsFile {
    /// Reads the file's text; an empty one sets nothing.
    ///
    /// # Errors
    /// When it is no YAML, or a key holds what it cannot.
    pub fn parse(text: &str) -> Result<Self, SettingsFileError> {
        if text.len() > SETTINGS_BYTES_MAX {
            return Err(SettingsFileError::TooLarge(text.len()));
        }
        let file: Option<Self> = crate::yaml::from_str_as_the_ancestor(text).map_err(|words| {
            // As the file is read: a number stands for text, too.
            let is_file =
                |alone: Value| crate::yaml::from_str_as_the_ancestor::<Self>(&alone.to_string()).is_ok();
            SettingsFileError::Malformed(settings_keys::named(&words, text, is_file))
        })?;
        let file = file.unwrap_or_default();
        if file.data_dir.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(SettingsFileError::EmptyDataDir);
        }
        Ok(file)
    }

    /// Everything that is wrong with the file: each key whose value is none, where [`Self::parse`] ends at the first.
    #[must_use]
    pub fn faults(text: &str) -> Vec<SettingsFileError> {
        let Err(first) = Self::parse(text) else { return Vec::new() };
        let mut faults = vec![first];
        let Ok(document) = Placed::parse(text) else { return faults };
        let mut rest = document.value.clone();
        settings_keys::take_words_for_switches(&mut rest);
        // Each round takes one key out.
        while let Some(key) = faults.last().and_then(SettingsFileError::key)
            && settings_keys::remove(&mut rest, &key)
        {
            match Self::parse(&rest.to_string()) {
                Ok(_) => break,
                Err(SettingsFileError::Malformed(words)) => {
                    let place = document.place_of_keys(&named_key(&words).unwrap_or_default());
                    let (line, column) = place.unwrap_or((1, 1));
                    let head = words.lines().next().unwrap_or_default();
                    let what = head.split_once(": ").map_or(head, |(_, what)| what);
                    faults.push(SettingsFileError::Malformed(format!("line {line} column {column}: {what}")));
                }
                Err(other) => faults.push(other),
            }
        }
        faults
    }
}

/// The key that the words of a refusal name.
fn named_key(words: &str) -> Option<String> {
    let (_, named) = words.split_once(": `")?;
    Some(named.split_once("` is not ")?.0.to_owned())
}

impl SettingsFileError {
    /// The dotted key that it is about.
    fn key(&self) -> Option<String> {
        match self {
            Self::Malformed(words) => named_key(words),
            Self::EmptyDataDir => Some("data_dir".to_owned()),
            Self::TooLarge(_) => None,
        }
    }
}

impl CondaType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Micromamba, Self::Miniforge, Self::Conda];

    /// As the file and the command line name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Micromamba => "micromamba",
            Self::Miniforge => "miniforge",
            Self::Conda => "conda",
        }
    }

    /// The type of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The program it is called by on the PATH.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Micromamba => "micromamba",
            Self::Miniforge => "mamba",
            Self::Conda => "conda",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_data_dir_is_refused_by_its_key() {
        let refused = SettingsFile::parse("data_dir: \"\"\n").expect_err("it names no folder");
        assert_eq!(refused.code(), "settings_file.empty_data_dir");
        assert!(refused.to_string().contains("`data_dir`"), "{refused}");
        assert_eq!(SettingsFile::parse("data_dir:\n").expect("nothing said").data_dir, None);
    }

    #[test]
    fn every_wrong_key_is_told_at_its_place_and_no_right_one() {
        let text = "data_dir: 5\nmodels_dir: [1]\nruntime:\n  mode: globe\n  conda_type: conda\nsubstrate:\n  \
                    drift_detection: yes\n  empirical_tracking: maybe\n  jobs_retention_days: x\n  \
                    worker_env_pass: ['A=B']\n";
        let faults: Vec<String> = SettingsFile::faults(text).iter().map(ToString::to_string).collect();
        let expected = [
            "line 2 column 13: `models_dir` is not a path",
            "line 4 column 9: `runtime.mode` is not local",
            "line 8 column 23: `substrate.empirical_tracking` is not true",
            "line 9 column 24: `substrate.jobs_retention_days` is not a number",
            "line 10 column 20: `substrate.worker_env_pass` is not a list",
        ];
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
        for (fault, words) in faults.iter().zip(expected) {
            assert!(fault.starts_with(words), "{fault}");
        }
        let empty = SettingsFile::faults("data_dir: ''\nmodels_dir: []\n");
        assert_eq!(empty.len(), 2, "{empty:?}");
        assert_eq!(SettingsFile::faults("data_dir: d\nsubstrate: {drift_detection: on}\n"), []);
        assert_eq!(SettingsFile::faults("a: b: c").len(), 1);
    }

    #[test]
    fn every_key_is_read_and_others_are_ignored() {
        let text = "runtime:\n  mode: local\n  conda_type: micromamba\n  prefix: ./.cjm/runtime\n  binaries:\n    \
                    linux-x64: bin/mm\n  later: 1\ndata_dir: ./.cjm\ncapabilities_config: tools.yaml\nmodels_dir: \
                    models\nsubstrate:\n  drift_detection: false\n  diagnostics_retention_days: 7\n  \
                    diagnostics_retention_max_mb: 12.5\n  worker_env_pass: [MY_VAR]\nelse: [1]\n";
        let file = SettingsFile::parse(text).expect("good");
        let runtime = file.runtime.expect("runtime");
        assert_eq!(runtime.mode, Some(RuntimeMode::Local));
        assert_eq!(runtime.conda_type, Some(CondaType::Micromamba));
        assert_eq!(
            runtime.binaries.and_then(|binaries| binaries.get("linux-x64").cloned()),
            Some("bin/mm".into())
        );
        let substrate = file.substrate.expect("substrate");
        assert_eq!(substrate.diagnostics_retention_days, Some(7.0));
        assert_eq!(substrate.diagnostics_retention_max_mb, Some(12.5));
        assert_eq!((substrate.drift_detection, substrate.empirical_tracking), (Some(false), None));
        assert_eq!(file.data_dir, Some("./.cjm".into()));
    }

    #[test]
    fn an_empty_file_sets_nothing_and_a_wrong_one_is_refused_with_its_place() {
        for text in ["", "# nothing\n", "runtime:\nsubstrate:\n"] {
            assert_eq!(SettingsFile::parse(text), Ok(SettingsFile::default()), "{text:?}");
        }
        for text in
            ["runtime: {mode: globe}", "data_dir: [1]", "runtime: {conda_type: pip}", "- a\n", "a: b: c"]
        {
            let error = SettingsFile::parse(text).expect_err(text);
            assert!(error.to_string().contains("line"), "{text}: {error}");
        }
    }

    #[test]
    fn a_refusal_names_the_key_and_what_belongs_there_and_speaks_of_an_error_once_at_most() {
        for (text, line, key, wanted) in [
            ("runtime: {mode: globe}", 1, "runtime.mode", "local or system"),
            ("runtime:\n  conda_type: pip", 2, "runtime.conda_type", "micromamba, miniforge or conda"),
            ("runtime:\n  prefix: {a: b}", 2, "runtime.prefix", "a path"),
            ("runtime:\n  binaries: [x]", 2, "runtime.binaries", "platforms with their programs"),
            (
                "runtime:\n  binaries:\n    linux-x64: [x]",
                3,
                "runtime.binaries",
                "platforms with their programs",
            ),
            ("models_dir: m\nruntime: 3", 2, "runtime", "a section"),
            ("substrate: [1]", 1, "substrate", "a section"),
            ("data_dir: [1]", 1, "data_dir", "a path"),
            ("data_dir:\n  - here", 2, "data_dir", "a path"),
            ("capabilities_config: {}", 1, "capabilities_config", "a path"),
            ("models_dir: []", 1, "models_dir", "a path"),
            ("substrate:\n  drift_detection: maybe", 2, "substrate.drift_detection", "true or false"),
            ("substrate: {empirical_tracking: 3}", 1, "substrate.empirical_tracking", "true or false"),
            ("substrate:\n  jobs_retention_days: x", 2, "substrate.jobs_retention_days", "a number of days"),
            (
                "substrate:\n  diagnostics_retention_days: .nan",
                2,
                "substrate.diagnostics_retention_days",
                "a number of days",
            ),
            (
                "substrate:\n  diagnostics_retention_max_mb: 0",
                2,
                "substrate.diagnostics_retention_max_mb",
                "a number of MB",
            ),
            (
                "substrate:\n  prefetch_stall_threshold_seconds: -1",
                2,
                "substrate.prefetch_stall_threshold_seconds",
                "a number of seconds",
            ),
            ("substrate:\n  worker_env_pass: A", 2, "substrate.worker_env_pass", "a list of names"),
        ] {
            let said = SettingsFile::parse(text).expect_err(text).to_string();
            let words = format!("line {line} ");
            assert!(
                said.starts_with(&words) && said.contains(&format!("`{key}` is not {wanted}")),
                "{text}: {said}"
            );
            assert!(!said.contains("error"), "{text}: {said}");
        }
        for text in ["- a", "hello", "3"] {
            let said = SettingsFile::parse(text).expect_err(text).to_string();
            assert!(said.starts_with("line 1 column 1: the file is not keys with values"), "{text}: {said}");
        }
        for text in ["a: b: c", "runtime:\n\tmode: local", "data_dir: [1"] {
            let said = SettingsFile::parse(text).expect_err(text).to_string();
            assert!(said.starts_with("line ") && !said.contains("error"), "{text}: {said}");
        }
    }

    #[test]
    fn of_several_wrong_values_the_first_is_named_and_numbers_and_paths_that_nothing_holds_are() {
        for (text, line, key, wanted) in [
            (
                "substrate: {jobs_retention_days: 1e400}",
                1,
                "substrate.jobs_retention_days",
                "a number of days",
            ),
            (
                "substrate:\n  jobs_retention_days: 1e400",
                2,
                "substrate.jobs_retention_days",
                "a number of days",
            ),
            ("runtime: {conda_type: pip, mode: globe}", 1, "runtime.conda_type", "micromamba"),
            ("runtime: {\n  prefix: p, mode: globe}", 2, "runtime.mode", "local or system"),
            ("models_dir: [1]\nruntime: {mode: globe}", 1, "models_dir", "a path"),
            ("data_dir: \"a\\0b\"", 1, "data_dir", "a path"),
            ("runtime: {prefix: \"a\\0b\"}", 1, "runtime.prefix", "a path"),
            ("runtime: {binaries: {x: \"a\\0b\"}}", 1, "runtime.binaries", "platforms with their programs"),
        ] {
            let said = SettingsFile::parse(text).expect_err(text).to_string();
            let is_named = said.contains(&format!("`{key}` is not {wanted}"));
            assert!(said.starts_with(&format!("line {line} ")) && is_named, "{text}: {said}");
        }
    }

    #[test]
    fn a_value_without_a_meaning_is_refused_with_its_line() {
        for wrong in [
            "diagnostics_retention_days: .nan",
            "diagnostics_retention_days: .inf",
            "diagnostics_retention_days: 1e300",
            "jobs_retention_days: .nan",
            "jobs_retention_days: 99999999999999999999",
            "diagnostics_retention_max_mb: -1",
            "diagnostics_retention_max_mb: 0",
            "diagnostics_retention_max_mb: 0.0001",
            "diagnostics_retention_max_mb: .nan",
            "prefetch_stall_threshold_seconds: -1",
            "worker_env_pass: ['A=B']",
            "worker_env_pass: ['']",
            "worker_env_pass: [GOOD, \"A\\0B\"]",
        ] {
            let text = format!("substrate:\n  drift_detection: true\n  {wrong}\n");
            let error = SettingsFile::parse(&text).expect_err(wrong).to_string();
            assert!(error.contains("line 3"), "{wrong}: {error}");
        }
        for right in [
            "diagnostics_retention_days: -1",
            "jobs_retention_days: 0",
            "diagnostics_retention_max_mb: 1",
            "diagnostics_retention_max_mb: null",
            "diagnostics_retention_days:",
            "worker_env_pass: []",
        ] {
            assert!(SettingsFile::parse(&format!("substrate:\n  {right}\n")).is_ok(), "{right}");
        }
    }
}
