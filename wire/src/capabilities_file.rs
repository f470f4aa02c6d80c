//! `capabilities.yaml`: what to install. An entry is a Python package for an environment of its own, or a manifest
//! of a tool that needs none. Keys that nobody reads are no errors, as with the ancestor, and are told.

use crate::describe::Described;
use crate::each_of_list::read_each;
use crate::list_keys::{self, Unread};
pub use crate::list_kinds::WrongKind;
use crate::list_kinds::{shown, wrong_kinds};
use crate::placed::Placed;
use crate::runtime::PythonWorker;
use crate::suggestions::{in_words, suggestions};
use crate::word::{maybe_version, maybe_word, word, words};
use serde::{Deserialize, Serialize};

/// Most keys of a file that is no list that are told.
const KEYS_TOLD_MAX: usize = 8;
/// The key that makes it a list.
const LIST: &str = "capabilities";

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitiesFile {
    /// Entries, in order.
    #[serde(default)]
    pub capabilities: Vec<Entry>,
    /// Its own keys that nobody reads, in words. See [`CapabilitiesFile::parse_each`].
    #[serde(skip)]
    pub unread: Vec<String>,
}

/// One capability to install.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Name in this file.
    #[serde(default, deserialize_with = "word")]
    pub name: String,
    /// Manifest of a tool that needs no environment, relative to this file. Excludes `package`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe_word")]
    pub manifest: Option<String>,
    /// Name of its environment.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "word")]
    pub env_name: String,
    /// Requirement for the installer (`name==1.0`), or a directory relative to this file (`./capabilities/x`).
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "word")]
    pub package: String,
    /// Conda environment file; excludes `python_version`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe_word")]
    pub env_file: Option<String>,
    /// `3.11`, or a constraint such as `>=3.9`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe_version")]
    pub python_version: Option<String>,
    /// Further requirements that both sides of a call share.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "words")]
    pub interface_libs: Vec<String>,
    /// Task adapters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<Adapter>,
    /// Who serves its surface: `shim`, or `genuine` for the ancestor's own worker. An addition of ours.
    #[serde(default, skip_serializing_if = "PythonWorker::is_default")]
    pub worker: PythonWorker,
    /// Why it cannot be installed: the rule that it breaks. See [`CapabilitiesFile::parse_each`].
    #[serde(skip)]
    pub fault: Option<CapabilitiesFileError>,
    /// Keys that nobody reads, in words; those that a `fault` names are not told twice.
    #[serde(skip)]
    pub unread: Vec<String>,
}

/// A task adapter of an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapter {
    /// `module:Class`.
    #[serde(rename = "impl", deserialize_with = "word")]
    pub implementation: String,
    /// Requirement it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe_word")]
    pub lib: Option<String>,
}

/// Why the file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilitiesFileError {
    /// Not YAML of this shape; the message carries line and column.
    #[error("{0}")]
    Malformed(String),
    /// There is no list in it; the keys that there are.
    #[error("it is no list of capabilities: it has no key `capabilities`{}", keys(.0))]
    NoList(Vec<String>),
    /// There are entries, and nothing above them.
    #[error("it is a list without the key `capabilities`")]
    NoKey,
    /// The key is there, and what it holds is no list.
    #[error("`capabilities` is {0}, and must be a list of entries")]
    NotAList(String),
    /// Values of an entry are of another kind than their keys take.
    #[error("entry {entry}: {}", in_a_row(.faults))]
    WrongKind {
        /// Its name, or its place in the list.
        entry: String,
        /// All of them.
        faults: Vec<WrongKind>,
    },
    /// An entry breaks a rule.
    #[error("entry {entry}: {message}")]
    Invalid {
        /// Its name, or its place in the list.
        entry: String,
        /// What is wrong.
        message: String,
        /// What to write instead.
        cure: &'static str,
    },
}

fn in_a_row(faults: &[WrongKind]) -> String {
    faults.iter().map(WrongKind::in_words).collect::<Vec<_>>().join("; ")
}

fn keys(found: &[String]) -> String {
    let Some(first) = found.iter().find(|key| is_like(key, LIST)) else {
        return if found.is_empty() { String::new() } else { format!(" (its keys: {})", found.join(", ")) };
    };
    format!(" (its keys: {}); did you mean \"{LIST}\" by `{first}`?", found.join(", "))
}

fn is_like(key: &str, meant: &str) -> bool {
    !suggestions(key, std::iter::once(meant)).is_empty()
}

impl Described for CapabilitiesFileError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "capabilities_file.malformed",
            Self::NoList(_) | Self::NoKey => "capabilities_file.no_list",
            Self::NotAList(_) => "capabilities_file.not_a_list",
            Self::WrongKind { .. } => "capabilities_file.wrong_kind",
            Self::Invalid { .. } => "capabilities_file.invalid",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Malformed(_) => "correct the file where the message points".to_owned(),
            Self::NoKey => "write `capabilities:` in a line of its own above the first entry".to_owned(),
            Self::NoList(_) | Self::NotAList(_) => {
                "write the entries as a list below `capabilities:`; an empty list is `capabilities: []`"
                    .to_owned()
            }
            Self::WrongKind { entry, faults } => format!(
                "correct entry {entry}: {}; `cjm-ctl install-all` installs the others without it",
                cures(faults)
            ),
            Self::Invalid { entry, cure, .. } => {
                format!("correct entry {entry}: {cure}; `cjm-ctl install-all` installs the others without it")
            }
        }
    }
}

fn cures(faults: &[WrongKind]) -> String {
    let mut cures: Vec<&str> = faults.iter().map(|fault| fault.cure).collect();
    cures.dedup();
    cures.join(", and ")
}

impl CapabilitiesFile {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// The first fault found, with its entry.
    pub fn parse(text: &str) -> Result<Self, CapabilitiesFileError> {
        let mut file = Self::parse_each(text)?;
        match file.capabilities.iter_mut().find_map(|entry| entry.fault.take()) {
            Some(fault) => Err(fault),
            None => Ok(file),
        }
    }

    /// Reads the file for who takes each entry by itself: one that breaks a rule has its `fault`, and a name to be told by.
    ///
    /// # Errors
    /// When it is no such list.
    pub fn parse_each(text: &str) -> Result<Self, CapabilitiesFileError> {
        let mut file = Self::list(text)?;
        let unread = list_keys::unread(text);
        let mut names = std::collections::BTreeSet::new();
        for (index, entry) in file.capabilities.iter_mut().enumerate() {
            let unread: Vec<&Unread> = unread.iter().filter(|key| key.entry == Some(index)).collect();
            let told = told_by(&entry.name, index);
            let twice = ("the name stands twice in the file".to_owned(), "give it a name of its own");
            if entry.fault.is_none() {
                let checked = entry
                    .check()
                    .map_err(|broken| broken.with_misspelt(&unread))
                    .and_then(|()| if names.insert(entry.name.clone()) { Ok(()) } else { Err(twice) });
                let invalid =
                    |(message, cure)| CapabilitiesFileError::Invalid { entry: told.clone(), message, cure };
                entry.fault = checked.err().map(invalid);
            }
            if entry.name.is_empty() {
                entry.name = told;
            }
            let named = entry.fault.as_ref().map(ToString::to_string).unwrap_or_default();
            let others = unread.iter().filter(|key| !named.contains(&format!("`{}`", key.name)));
            entry.unread = others.map(|key| key.in_words()).collect();
        }
        file.unread = unread.iter().filter(|key| key.entry.is_none()).map(Unread::in_words).collect();
        Ok(file)
    }

    /// A file without the key is something else, and no empty list.
    fn list(text: &str) -> Result<Self, CapabilitiesFileError> {
        #[derive(Deserialize)]
        struct File {
            capabilities: Option<Vec<Entry>>,
        }
        // An empty file is read as nothing at all.
        let (capabilities, error) = match crate::yaml::from_str::<Option<File>>(text) {
            Ok(file) => (file.and_then(|file| file.capabilities), None),
            Err(error) => (Self::each(text), Some(error)),
        };
        if let Some(capabilities) = capabilities {
            return Ok(Self { capabilities, unread: Vec::new() });
        }
        let document = Placed::parse(text).map(|document| document.value).unwrap_or_default();
        if document.is_array() {
            return Err(CapabilitiesFileError::NoKey);
        }
        let found = document.get(LIST).filter(|found| !found.is_array());
        Err(match (found, error) {
            (Some(found), _) => CapabilitiesFileError::NotAList(shown(found)),
            (None, Some(error)) => CapabilitiesFileError::Malformed(error),
            (None, None) => {
                let keys = document.as_object().into_iter().flatten().map(|(key, _)| key.clone());
                CapabilitiesFileError::NoList(keys.take(KEYS_TOLD_MAX).collect())
            }
        })
    }

    /// The entries where some are of a wrong kind: those have their `fault`, and of the rest what others know them by.
    fn each(text: &str) -> Option<Vec<Entry>> {
        let read = read_each::<Entry>(text, LIST).ok()??;
        let document = Placed::parse(text).ok();
        let mut salvaged = salvaged(text);
        let mut entries = Vec::new();
        for (index, entry) in read.into_iter().enumerate() {
            entries.push(entry.unwrap_or_else(|words| {
                let document = document.as_ref();
                let salvaged = salvaged.get_mut(index).map(std::mem::take).unwrap_or_default();
                let faults = document.map(|document| wrong_kinds(document, index)).unwrap_or_default();
                let entry = told_by(&salvaged.name, index);
                let fault = if faults.is_empty() {
                    let message = words.lines().next().unwrap_or_default().to_owned();
                    CapabilitiesFileError::Invalid {
                        entry,
                        message,
                        cure: "mend it where the message points",
                    }
                } else {
                    CapabilitiesFileError::WrongKind { entry, faults }
                };
                Entry { fault: Some(fault), ..salvaged }
            }));
        }
        Some(entries)
    }
}

/// What an entry is called in words.
fn told_by(name: &str, index: usize) -> String {
    if name.is_empty() { format!("number {}", index + 1) } else { format!("\"{name}\"") }
}

/// What an entry with a fault is known by, so that what was installed from it stays its own: of each entry of the list. Each key is
/// read by itself; `env_name: 310`, which is refused now, was the text that it looks like.
fn salvaged(text: &str) -> Vec<Entry> {
    #[derive(Deserialize)]
    struct Name {
        name: Option<String>,
    }
    #[derive(Deserialize)]
    struct Source {
        manifest: Option<String>,
    }
    #[derive(Deserialize)]
    struct Environment {
        env_name: Option<String>,
    }
    #[derive(Deserialize)]
    struct Package {
        package: Option<String>,
    }
    fn each<T: serde::de::DeserializeOwned>(
        text: &str,
        entries: &mut Vec<Entry>,
        take: impl Fn(&mut Entry, T),
    ) {
        let read = read_each::<T>(text, LIST).ok().flatten().unwrap_or_default();
        entries.resize_with(entries.len().max(read.len()), Entry::default);
        for (entry, element) in entries.iter_mut().zip(read) {
            let _ = element.map(|element| take(entry, element));
        }
    }
    let mut entries = Vec::new();
    each(text, &mut entries, |entry, read: Name| entry.name = read.name.unwrap_or_default());
    each(text, &mut entries, |entry, read: Source| entry.manifest = read.manifest);
    each(text, &mut entries, |entry, read: Environment| entry.env_name = read.env_name.unwrap_or_default());
    each(text, &mut entries, |entry, read: Package| entry.package = read.package.unwrap_or_default());
    entries
}

/// A rule that an entry breaks.
struct Broken {
    message: String,
    /// Keys whose absence breaks it: one that is like them was meant.
    missing: &'static [&'static str],
    cure: &'static str,
}

impl Broken {
    /// In words, with the key by which the missing one was meant, and what to write instead.
    fn with_misspelt(self, unread: &[&Unread]) -> (String, &'static str) {
        let known = || self.missing.iter().copied();
        let misspelt = unread.iter().find_map(|key| {
            let meant = suggestions(&key.name, known());
            (!meant.is_empty()).then(|| format!(", and has `{}`{}", key.name, in_words(&meant)))
        });
        (format!("{}{}", self.message, misspelt.unwrap_or_default()), self.cure)
    }
}

impl Entry {
    fn check(&self) -> Result<(), Broken> {
        let broken =
            |message: &str, missing, cure| Err(Broken { message: message.to_owned(), missing, cure });
        if self.name.is_empty() {
            return broken("needs a `name`", &["name"], "write `name: NAME`, by which it is told");
        }
        if !crate::InstanceId::is_valid(&self.name) {
            return broken("`name` must be 1 to 64 letters, digits, `-` or `_`", &[], "write another `name`");
        }
        match (&self.manifest, self.package.is_empty()) {
            (Some(_), true) => Ok(()),
            (Some(_), false) => {
                broken("`manifest` and `package` exclude each other", &[], "remove one of the two")
            }
            (None, true) => broken(
                "needs a `package` (with `env_name` and `python_version`) or a `manifest`",
                &["package", "manifest"],
                "write `package: ./FOLDER`, `env_name: NAME` and `python_version: \">=3.10\"`, or `manifest: FILE`",
            ),
            (None, false) => self.check_environment(),
        }
    }

    /// What a package needs beside itself.
    fn check_environment(&self) -> Result<(), Broken> {
        let broken =
            |message: &str, missing, cure| Err(Broken { message: message.to_owned(), missing, cure });
        let name_it = "write `env_name: NAME`, the name of its environment";
        if self.env_name.is_empty() {
            return broken("needs an `env_name`", &["env_name"], name_it);
        }
        // Programs are told the name, and would take it for an option.
        if !crate::InstanceId::is_valid(&self.env_name) || self.env_name.starts_with('-') {
            let found = shown(&self.env_name.as_str().into());
            let rule = "must be 1 to 64 letters, digits, `-` or `_`, and not begin with `-`";
            return broken(&format!("`env_name` is {found}, and {rule}"), &[], name_it);
        }
        match (self.env_file.is_some(), self.python_version.is_some()) {
            (true, true) => broken(
                "needs exactly one of `python_version` and `env_file`, and has both",
                &[],
                "remove `python_version`, which conda's file says, or `env_file`",
            ),
            (false, false) => broken(
                "needs exactly one of `python_version` and `env_file`",
                &["python_version", "env_file"],
                "write `python_version: \">=3.10\"`, or `env_file: FILE` for conda, and not both",
            ),
            (true, false) | (false, true) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_one_kind_or_the_other() {
        let good = "capabilities:\n- {name: a, manifest: m.json}\n- {name: b, env_name: b, package: p, python_version: '3.11', adapters: [{impl: 'm:C', lib: l}]}\n";
        let file = CapabilitiesFile::parse(good).expect("good");
        assert_eq!(file.capabilities[1].adapters[0].implementation, "m:C");
        assert_eq!(file.capabilities[1].worker, PythonWorker::Shim);
        let quoted = good.replace("adapters:", "interface_libs: ['5', \"1.10\", a==1], adapters:");
        let quoted = CapabilitiesFile::parse(&quoted).expect("good");
        assert_eq!(quoted.capabilities[1].interface_libs, ["5", "1.10", "a==1"]);
        let genuine = good.replace("package: p", "package: p, worker: genuine");
        let genuine = CapabilitiesFile::parse(&genuine).expect("good");
        assert_eq!(genuine.capabilities[1].worker, PythonWorker::Genuine);
        for (entry, names) in [
            ("{name: a}", "\"a\""),
            ("{name: a, manifest: m, package: p}", "\"a\""),
            ("{name: a, package: p, env_name: e}", "\"a\""),
            ("{name: a, package: p, env_name: e, python_version: '3', env_file: f}", "\"a\""),
            ("{name: a, package: p, env_name: -rf, python_version: '3'}", "\"a\""),
            ("{name: '', manifest: m}", "number 1"),
            ("{name: a, manifest: m}\n- {name: a, manifest: m}", "\"a\""),
        ] {
            match CapabilitiesFile::parse(&format!("capabilities:\n- {entry}\n")) {
                Err(CapabilitiesFileError::Invalid { entry: found, .. }) => {
                    assert_eq!(found, names, "{entry}");
                }
                other => panic!("{entry}: {other:?}"),
            }
        }
        for (text, keys) in [("capabilites: []\nfoo: 1\n", &["capabilites", "foo"][..]), ("", &[])] {
            let refused = CapabilitiesFile::parse(text).expect_err("no list");
            let told = keys.iter().map(|key| (*key).to_owned()).collect();
            assert_eq!(refused, CapabilitiesFileError::NoList(told), "{text}");
        }
        for (text, found) in [("capabilities:\n", "empty"), ("capabilities: 3\n", "3")] {
            let refused = CapabilitiesFile::parse(text).expect_err("no list");
            assert_eq!(refused, CapabilitiesFileError::NotAList(found.to_owned()));
        }
        let bare = CapabilitiesFile::parse("- {name: a, manifest: m}\n").expect_err("no list");
        assert_eq!(bare, CapabilitiesFileError::NoKey);
        let later = CapabilitiesFile::parse("capabilities: []\nlater: 1\n").expect("a list");
        assert_eq!(later.unread, ["line 2, column 1: `later`: there is no such key, and nobody reads it"]);
        let mixed = "capabilities:\n- {name: a, manifest: m}\n- {name: b}\n- {manifest: m, name: ''}\n- {name: c, manifest: m}\n";
        let each = CapabilitiesFile::parse_each(mixed).expect("a list").capabilities;
        let faults: Vec<_> = each.iter().map(|entry| (entry.name.as_str(), entry.fault.is_some())).collect();
        assert_eq!(faults, [("a", false), ("b", true), ("number 3", true), ("c", false)]);
        assert!(matches!(
            CapabilitiesFile::parse("capabilities: [\n"),
            Err(CapabilitiesFileError::Malformed(_))
        ));
    }

    /// Keys of a package that are right.
    const PYTHON: &str = "env_name: e, package: p, python_version: 3.10";

    /// An entry, what it is called, the column of what is wrong with it, words of that, and of what to write.
    const WRONG_KINDS: &[(&str, &str, u32, &str, &str)] = &[
        ("{name: a, PYTHON, worker: genuin}", "a", 68, "did you mean \"genuine\"", "worker: shim"),
        ("{name: a, PYTHON, worker: }", "a", 66, "`worker` is empty", "worker: shim"),
        ("{name: a, PYTHON, adapters: word}", "a", 70, "`adapters` is \"word\"", "adapters: [{impl:"),
        ("{name: a, PYTHON, adapters: [word]}", "a", 71, "holds \"word\"", "adapters: [{impl:"),
        ("{name: a, PYTHON, adapters: [{lib: l}]}", "a", 71, "needs an `impl`", "adapters: [{impl:"),
        ("{name: a, PYTHON, adapters: [{impl: m, lib: []}]}", "a", 86, "`lib` is []", "adapters: ["),
        ("{name: a, PYTHON, interface_libs: l}", "a", 76, "must be a list", "interface_libs: ["),
        ("{name: a, PYTHON, interface_libs: [{}]}", "a", 77, "must hold texts", "interface_libs: ["),
        (
            "{name: a, PYTHON, interface_libs: [5]}",
            "a",
            77,
            "holds 5, and must hold texts",
            "interface_libs: [",
        ),
        ("{name: a, PYTHON, interface_libs: [l, true]}", "a", 80, "holds true", "interface_libs: ["),
        ("{name: a, PYTHON, interface_libs: [1.10]}", "a", 77, "must hold texts", "interface_libs: ["),
        (
            "{name: a, PYTHON, adapters: [{impl: 5}]}",
            "a",
            78,
            "`impl` is 5, and must be",
            "adapters: [{impl:",
        ),
        ("{name: a, PYTHON, adapters: [{impl: m, lib: 5}]}", "a", 86, "`lib` is 5", "adapters: [{impl:"),
        ("{name: a, manifest: [m]}", "a", 23, "`manifest` is [\"m\"]", "manifest: FILE"),
        ("{name: a, package: {}}", "a", 22, "`package` is {}", "package: ./FOLDER"),
        ("{name: a, env_name: }", "a", 21, "`env_name` is empty", "env_name: NAME"),
        ("{name: a, env_file: []}", "a", 23, "`env_file` is []", "env_file: FILE"),
        ("{name: a, python_version: [3]}", "a", 29, "`python_version` is [3]", "python_version: \""),
        ("{name: [a], manifest: m}", "number 2", 10, "`name` is [\"a\"]", "name: NAME"),
        ("{name: 5, manifest: m}", "5", 10, "`name` is 5, and must be one text", "name: NAME"),
        ("{name: true, manifest: m}", "true", 10, "`name` is true", "name: NAME"),
        ("{name: a, manifest: 5}", "a", 23, "`manifest` is 5", "manifest: FILE"),
        ("{name: a, env_name: 310, package: p}", "a", 23, "`env_name` is 310", "env_name: NAME"),
        ("{name: a, package: 1.10}", "a", 22, "`package` is 1.1", "package: ./FOLDER"),
        ("{name: a, package: p, env_file: 5}", "a", 35, "`env_file` is 5", "env_file: FILE"),
        ("{name: a, python_version: true}", "a", 29, "`python_version` is true", "python_version: \""),
        ("word", "number 2", 3, "it is \"word\"", "{name: NAME"),
    ];

    #[test]
    fn a_value_of_a_wrong_kind_is_the_fault_of_its_entry_and_every_one_is_told_with_its_place() {
        for (entry, name, column, words, cure) in WRONG_KINDS {
            let entry = entry.replace("PYTHON", PYTHON);
            let text = format!(
                "capabilities:\n- {{name: good, manifest: m}}\n- {entry}\n- {{name: b, manifest: m}}\n"
            );
            let read = CapabilitiesFile::parse_each(&text).expect("a list").capabilities;
            let names: Vec<_> =
                read.iter().map(|entry| (entry.name.as_str(), entry.fault.is_some())).collect();
            assert_eq!(names, [("good", false), (*name, true), ("b", false)], "{entry}");
            let fault = read[1].fault.as_ref().expect("a fault");
            let (told, step) = (fault.to_string(), fault.next_step());
            assert!(told.contains(&format!("line 3, column {column}: ")) && told.contains(words), "{told}");
            assert!(step.contains(&format!("write `{cure}")), "{entry}: {step}");
        }
    }

    #[test]
    fn an_entry_of_a_wrong_kind_is_known_by_what_can_be_read_of_it() {
        let faults = |entry: &str| {
            let read = CapabilitiesFile::parse_each(&format!("capabilities:\n- {entry}\n")).expect("a list");
            let entry = read.capabilities.into_iter().next().expect("an entry");
            let fault = entry.fault.as_ref().map(ToString::to_string).unwrap_or_default();
            (entry, fault)
        };
        let (entry, told) = faults(&format!("{{name: a, {PYTHON}, worker: [], adapters: 3}}"));
        assert_eq!((entry.name.as_str(), entry.env_name.as_str()), ("a", "e"));
        assert!(told.contains("`worker` is []") && told.contains("; line 2, "), "{told}");
        let (entry, _) = faults("{name: a, manifest: m, worker: x}");
        assert_eq!(entry.manifest.as_deref(), Some("m"));
        // What looks like a number is the text by which it was known when that was none.
        let (entry, _) = faults("{name: 7, manifest: 1.10, env_name: 310, package: 0x1, worker: []}");
        let Entry { name, manifest, env_name, package, .. } = entry;
        assert_eq!([name, manifest.unwrap_or_default(), env_name, package], ["7", "1.10", "310", "0x1"]);
        let (entry, _) = faults("{name: [], manifest: , env_name: 1, package: {}}");
        assert_eq!((entry.env_name.as_str(), entry.package.as_str(), entry.manifest), ("1", "", None));
        // What only the reader can say of one is told in its words.
        let (entry, told) = faults("{name: b, manifest: m, ? [x] : 1}");
        assert_eq!(entry.name, "number 1");
        assert!(told.starts_with("entry number 1: line 2 column "), "{told}");
    }

    /// Each entry's fault, and its keys that nobody reads.
    fn told(entries: &str) -> Vec<(String, Vec<String>)> {
        let file = CapabilitiesFile::parse_each(&format!("capabilities:\n{entries}")).expect("a list");
        let told = |entry: &Entry| {
            let fault = entry.fault.as_ref().map(ToString::to_string).unwrap_or_default();
            (fault, entry.unread.clone())
        };
        file.capabilities.iter().map(told).collect()
    }

    #[test]
    fn a_key_that_nobody_reads_is_told_and_one_that_was_meant_for_a_missing_one_is_named_there() {
        let python = "package: p, env_name: e, python_version: 3.11";
        for (entry, fault) in [
            ("{name: a, manfest: m}", "or a `manifest`, and has `manfest` (did you mean \"manifest\"?)"),
            (
                "{name: a, package: p, env_nam: e}",
                "needs an `env_name`, and has `env_nam` (did you mean \"env_name\"?)",
            ),
            ("{nam: a, manifest: m}", "needs a `name`, and has `nam` (did you mean \"name\"?)"),
            (
                "{name: a, package: p, env_name: e, python: 3.11}",
                "`env_file`, and has `python` (did you mean \"python_version\"?)",
            ),
            ("{name: a, package: p, env_name: e, python_versoin: 3}", "(did you mean \"python_version\"?)"),
            (
                "{name: a, package: p, env_name: e, python_version: 3, env_file: f}",
                "`env_file`, and has both",
            ),
            (
                "{name: a, package: p, env_name: ../x, python_version: 3}",
                "`env_name` is \"../x\", and must be 1 to 64 letters, digits, `-` or `_`, and not begin with `-`",
            ),
        ] {
            let told = told(&format!("- {entry}\n"));
            assert!(told[0].0.ends_with(fault), "{entry}: {told:?}");
            assert!(told[0].1.is_empty() || entry.contains("python:"), "told once: {told:?}");
        }
        let entries = format!(
            "- {{name: a, {python},\n   adaptors: [x], adapters: [{{impl: 'm:C', libs: l}}]}}\n\
             - {{name: b, {python}, interface_libs: [l], worker: genuine}}\n"
        );
        let keys = [
            "line 3, column 4: `adaptors`: there is no such key (did you mean \"adapters\"?), and nobody reads it",
            "line 3, column 44: `libs`: there is no such key (did you mean \"lib\"?), and nobody reads it",
        ];
        assert_eq!(
            told(&entries),
            [(String::new(), keys.map(str::to_owned).to_vec()), (String::new(), vec![])]
        );
        let refused = CapabilitiesFile::parse("capabilites: []\n").expect_err("no list").to_string();
        assert!(refused.ends_with("did you mean \"capabilities\" by `capabilites`?"), "{refused}");
    }
}
