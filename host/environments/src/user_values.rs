//! Values of a manifest that both its source and the user may set (`install.env_vars`, `overrides`, of a `manifest:` entry
//! all of `code`; of a Python tool `code.worker_env` and `code.description`, whose source is the class): who wins when
//! the source is installed again.
//!
//! What must hold: what the source says wins where the source has changed since it was installed; what the user set by
//! hand, or took out, stays where it has not; and whatever of the user's is replaced, or kept although the source says
//! otherwise, is told. What the source said is written down in the installed manifest; of one that was written before this
//! was so, nothing is known, and the source wins where it names a key (of `code` as a whole: a key that it no longer names
//! would be taken for the user's).

use cjm_wire::Manifest;
use cjm_wire::canonical::canonical_hash_of;
use cjm_wire::manifest::Code;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::path::Path;

/// In `install`: what the source said when it was installed.
const SOURCE_VALUES: &str = "source_values";
/// In there: the hash of the rest. A record that was changed by hand, as by who replaces a value wherever it stands, says
/// nothing of the source.
const SEAL: &str = "sha256";
/// Sections of what a class says.
pub(crate) const DECLARED: &str = "worker_env";
pub(crate) const WORDS: &str = "code";
/// Longest value other than a text that is shown whole, in characters.
const SHOWN_MAX: usize = 80;
/// In place of what is shown to nobody.
const HIDDEN: &str = "(hidden)";
/// Parts of names whose values are shown to nobody.
const SECRET_PARTS: [&str; 4] = ["TOKEN", "KEY", "SECRET", "PASSWORD"];

/// What became of values that differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// A value of the source has taken the place of another, or is gone with the source's.
    pub(crate) replaced: Vec<String>,
    /// A value that the user set stays, and the source has another.
    pub(crate) kept: Vec<String>,
}

impl Settled {
    pub(crate) fn join(&mut self, other: Self) {
        self.replaced.extend(other.replaced);
        self.kept.extend(other.kept);
    }

    /// All of it, in words.
    pub(crate) fn lines(self) -> Vec<String> {
        self.replaced.into_iter().chain(self.kept).collect()
    }
}

/// Settles the values of `manifest`, which is as its source has it, with those of the `installed` one, which lies at
/// `target`; and writes down what the source said.
pub(crate) fn settle(manifest: &mut Manifest, installed: Option<&Manifest>, target: &Path) -> Settled {
    let mut settled = Settled::default();
    let source = [("env_vars", as_values(manifest)), ("overrides", std::mem::take(&mut manifest.overrides))];
    let mut record = Map::new();
    let mut results = Vec::new();
    for (section, theirs) in source {
        if !theirs.is_empty() {
            record.insert(section.to_owned(), Value::Object(theirs.clone()));
        }
        results.push(match installed {
            Some(installed) => {
                let mine = match section {
                    "env_vars" => as_values(installed),
                    _ => installed.overrides.clone(),
                };
                let same = theirs.clone();
                let before = said_before(installed, section, &same);
                let section = Section { section, target, tells: Tells::EveryChange, is_deep: false };
                section.settle("", before, &mine, theirs, &mut settled)
            }
            None => theirs,
        });
    }
    manifest.overrides = results.pop().unwrap_or_default();
    let variables = results.pop().unwrap_or_default();
    manifest.install.env_vars =
        variables.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect();
    if installed.and_then(record_of).is_some_and(is_changed) {
        settled.kept.push(format!(
            "install.{SOURCE_VALUES}: it was changed by hand, and only says what the source said; values are set under \
             `code`, `overrides` and `install.env_vars` in {}",
            target.display()
        ));
    }
    // A manifest that is installed from an installed one brings that one's record along.
    write_record(manifest, record);
    settled
}

fn record_of(manifest: &Manifest) -> Option<&Map<String, Value>> {
    manifest.install.unknown.get(SOURCE_VALUES)?.as_object()
}

/// Takes out what is written down, to be written anew.
pub(crate) fn take_record(manifest: &mut Manifest) -> Map<String, Value> {
    match manifest.install.unknown.remove(SOURCE_VALUES) {
        Some(Value::Object(record)) => record,
        _ => Map::new(),
    }
}

/// Writes down what the source said, with the hash of it.
pub(crate) fn write_record(manifest: &mut Manifest, mut record: Map<String, Value>) {
    record.remove(SEAL);
    manifest.install.unknown.remove(SOURCE_VALUES);
    if !record.is_empty() {
        record.insert(SEAL.to_owned(), Value::from(hash_of(&record)));
        manifest.install.unknown.insert(SOURCE_VALUES.to_owned(), Value::Object(record));
    }
}

/// Whether it is not as it was written. Of one without a hash, which is older, that is not known.
fn is_changed(record: &Map<String, Value>) -> bool {
    let mut rest = record.clone();
    rest.remove(SEAL).is_some_and(|seal| seal.as_str() != Some(&hash_of(&rest)))
}

fn hash_of(record: &Map<String, Value>) -> String {
    canonical_hash_of(&Value::Object(record.clone()))
}

/// Settles what `manifest`, which is as the class has it, says of the worker's variables and of the tool in a sentence with what
/// the `installed` one says, which lies at `target`; and writes down what the class said. A class that changes is told where
/// it takes the place of what the user wrote, and not otherwise.
pub(crate) fn settle_code(manifest: &mut Manifest, installed: Option<&Manifest>, target: &Path) -> Settled {
    let mut settled = Settled::default();
    let mut record = take_record(manifest);
    for (section, of) in [(DECLARED, declared as fn(&Code) -> Map<String, Value>), (WORDS, words)] {
        let theirs = of(&manifest.code);
        match theirs.is_empty() {
            true => record.remove(section),
            false => record.insert(section.to_owned(), Value::Object(theirs.clone())),
        };
        let Some(installed) = installed else { continue };
        let same = theirs.clone();
        let before = said_before(installed, section, &same);
        let section = Section { section, target, tells: Tells::WhatTheUserLoses, is_deep: false };
        let result = section.settle("", before, &of(&installed.code), theirs, &mut settled);
        if of(&manifest.code) != result {
            write_down(&mut manifest.code, &installed.code, section.section, result);
        }
    }
    write_record(manifest, record);
    settled
}

/// The variables that a worker wants, by their names.
pub(crate) fn declared(code: &Code) -> Map<String, Value> {
    let all = code.worker_env.iter().flatten();
    all.filter_map(|one| Some((one.name.clone(), serde_json::to_value(one).ok()?))).collect()
}

/// What it says for people.
fn words(code: &Code) -> Map<String, Value> {
    let said = Some(&code.description).filter(|words| !words.is_empty());
    said.map(|words| ("description".to_owned(), Value::from(words.clone()))).into_iter().collect()
}

fn write_down(code: &mut Code, installed: &Code, section: &str, mut values: Map<String, Value>) {
    if section == WORDS {
        let said = values.get("description").and_then(Value::as_str);
        said.unwrap_or_default().clone_into(&mut code.description);
        return;
    }
    // In the order of the class, and then of who added to it.
    let names = code.worker_env.iter().chain(&installed.worker_env).flatten().map(|one| one.name.clone());
    let settled = names.filter_map(|name| serde_json::from_value(values.remove(&name)?).ok());
    code.worker_env = Some(settled.collect());
}

/// What the source of an installed manifest said in one section when it was installed. Where that is not known any more, it is
/// taken to have said what it says now: then all that differs is the user's, and stays.
pub(crate) fn said_before<'m>(
    installed: &'m Manifest,
    section: &str,
    now: &'m Map<String, Value>,
) -> Option<&'m Map<String, Value>> {
    let record = record_of(installed)?;
    if is_changed(record) { Some(now) } else { record.get(section)?.as_object() }
}

fn as_values(manifest: &Manifest) -> Map<String, Value> {
    let variables = &manifest.install.env_vars;
    variables.iter().map(|(name, value)| (name.clone(), Value::from(value.clone()))).collect()
}

/// Which of the values that the source replaces are told.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Tells {
    EveryChange,
    WhatTheUserLoses,
}

pub(crate) struct Section<'a> {
    pub(crate) section: &'a str,
    pub(crate) target: &'a Path,
    pub(crate) tells: Tells,
    /// Whether what is an object on both sides is settled key by key, and the source is all where nothing is known of it.
    pub(crate) is_deep: bool,
}

/// One value: where it stands in its section, what the source said when it was installed, and what is installed.
struct One<'a> {
    name: String,
    before: Option<&'a Value>,
    mine: Option<&'a Value>,
}

impl Section<'_> {
    /// Settles the values below `at`, which ends with a dot or is the section itself.
    pub(crate) fn settle(
        &self,
        at: &str,
        before: Option<&Map<String, Value>>,
        mine: &Map<String, Value>,
        theirs: Map<String, Value>,
        settled: &mut Settled,
    ) -> Map<String, Value> {
        let one = |name: &str| One {
            name: format!("{at}{name}"),
            before: before.and_then(|before| before.get(name)),
            mine: mine.get(name),
        };
        let named_by_source: HashSet<String> = theirs.keys().cloned().collect();
        let mut result = Map::new();
        for (name, theirs) in theirs {
            if let Some(value) = self.named_by_source(&one(&name), theirs, settled) {
                result.insert(name, value);
            }
        }
        for (name, mine) in mine.iter().filter(|(name, _)| !named_by_source.contains(*name)) {
            if self.stays_alone(&one(name), mine, before.is_some(), settled) {
                result.insert(name.clone(), mine.clone());
            }
        }
        result
    }

    /// What becomes of a value that the source names; none where the user took it out.
    fn named_by_source(&self, one: &One<'_>, theirs: Value, settled: &mut Settled) -> Option<Value> {
        let One { name, before, mine } = one;
        match mine {
            Some(mine) if **mine == theirs => return Some(theirs),
            Some(Value::Object(mine)) if self.is_deep && of_one_kind(mine, &theirs) => {
                let Value::Object(theirs) = theirs else { return Some(theirs) };
                // Of a key that is new in the source nothing was said, which is known.
                let nothing = Map::new();
                let known = before.map(|before| before.as_object().unwrap_or(&nothing));
                return Some(Value::Object(self.settle(&format!("{name}."), known, mine, theirs, settled)));
            }
            mine if *before == Some(&theirs) => {
                let of_source = format!("the source says {}", self.shown(name, &theirs));
                settled.kept.push(self.stays(name, *mine, &of_source));
                return mine.cloned();
            }
            mine if !self.is_told(one, *mine) => {}
            // The first time that it is named, nothing of anybody's is replaced.
            None if before.is_none() => {
                settled.replaced.push(format!(
                    "{} {name}: {} is new",
                    self.section,
                    self.shown(name, &theirs)
                ));
            }
            mine => {
                let from = mine.map_or_else(|| "nothing".to_owned(), |mine| self.shown(name, mine));
                let to = self.shown(name, &theirs);
                settled.replaced.push(format!("{} {name}: {from} -> {to}", self.section));
            }
        }
        Some(theirs)
    }

    /// Whether a value stays that the source does not name. `is_known`: what it said before is.
    fn stays_alone(&self, one: &One<'_>, mine: &Value, is_known: bool, settled: &mut Settled) -> bool {
        let One { name, before, .. } = one;
        let is_of_source = if is_known { *before == Some(mine) } else { self.is_deep };
        if is_of_source {
            if self.is_told(one, Some(mine)) {
                let shown = self.shown(name, mine);
                settled
                    .replaced
                    .push(format!("{} {name}: {shown} is gone, as from the source", self.section));
            }
            return false;
        }
        if before.is_some() {
            settled.kept.push(self.stays(name, Some(mine), "the source no longer names it"));
        }
        true
    }

    fn is_told(&self, one: &One<'_>, mine: Option<&Value>) -> bool {
        // What was taken out is the user's as what was written is.
        self.tells == Tells::EveryChange || mine != one.before
    }

    fn stays(&self, name: &str, mine: Option<&Value>, of_source: &str) -> String {
        let place = match self.section {
            section @ "env_vars" => format!("install.{section}"),
            section @ DECLARED => format!("code.{section}"),
            section => section.to_owned(),
        };
        let what = match mine {
            Some(mine) => format!("{} stays, which was set", self.shown(name, mine)),
            None => "it stays left out, which was done".to_owned(),
        };
        format!(
            "{} {name}: {what} by hand ({of_source}); change it under `{place}` in {}",
            self.section,
            self.target.display()
        )
    }

    /// A value in a line: of what is named like a secret, not the value; of what stands below such a name, numbers alone.
    fn shown(&self, name: &str, value: &Value) -> String {
        // Of the path of a value only the names of variables and the last key say what a number is: `max_tokens.default`.
        let named = match self.is_deep && !name.starts_with(DECLARED) {
            true => name.rsplit('.').next().unwrap_or(name),
            false => name,
        };
        match value {
            _ if is_named_like_a_secret(named) => HIDDEN.to_owned(),
            Value::String(_) | Value::Array(_) | Value::Object(_) if is_named_like_a_secret(name) => {
                HIDDEN.to_owned()
            }
            Value::String(text) if !text.is_empty() => text.clone(),
            // As people write it: a number of a type that has fractions need not have one.
            Value::Number(number) => {
                let text = number.to_string();
                text.strip_suffix(".0").unwrap_or(&text).to_owned()
            }
            other => match without_secrets(other).to_string() {
                text if text.chars().count() > SHOWN_MAX => {
                    text.chars().take(SHOWN_MAX).chain(['…']).collect()
                }
                text => text,
            },
        }
    }
}

fn is_named_like_a_secret(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    SECRET_PARTS.iter().any(|part| upper.contains(part))
}

/// A value without what stands below keys that are named like secrets, or beside such a name.
fn without_secrets(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let is_one = object.get("name").and_then(Value::as_str).is_some_and(is_named_like_a_secret);
            let shown = |(key, value): (&String, &Value)| match is_named_like_a_secret(key)
                || is_one && key != "name"
            {
                true => (key.clone(), Value::from(HIDDEN)),
                false => (key.clone(), without_secrets(value)),
            };
            Value::Object(object.iter().map(shown).collect())
        }
        Value::Array(values) => values.iter().map(without_secrets).collect(),
        other => other.clone(),
    }
}

/// Whether the keys of two objects mean the same, so that those of one can stand beside those of the other.
fn of_one_kind(mine: &Map<String, Value>, theirs: &Value) -> bool {
    let Value::Object(theirs) = theirs else { return false };
    match (mine.get("kind"), theirs.get("kind")) {
        (Some(Value::String(mine)), Some(Value::String(theirs))) => mine == theirs,
        _ => true,
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals are passed")]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(variables: Value, overrides: Value) -> Manifest {
        let text = json!({"format_version": "2.0", "install": {"env_vars": variables}, "overrides": overrides,
            "code": {"name": "need", "version": "1", "runtime": {"kind": "native", "program": "x"}}});
        Manifest::parse(&text.to_string()).expect("a manifest")
    }

    fn installed(variables: Value) -> Manifest {
        let mut manifest = manifest(variables, json!({}));
        assert_eq!(settle(&mut manifest, None, Path::new("m")), Settled::default());
        manifest
    }

    /// Installs a source over what is installed: the variables then, and what is told.
    fn settled(source: Value, installed: &Manifest) -> (Value, Vec<String>) {
        let mut manifest = manifest(source, json!({}));
        let told = settle(&mut manifest, Some(installed), Path::new("/m/need.json")).lines();
        (Value::Object(as_values(&manifest)), told)
    }

    fn by_hand(mut manifest: Manifest, name: &str, value: &str) -> Manifest {
        manifest.install.env_vars.insert(name.to_owned(), value.to_owned());
        manifest
    }

    #[test]
    fn a_source_that_changed_wins_and_one_that_did_not_leaves_what_was_set_by_hand() {
        let eu = || installed(json!({"REGION": "eu"}));
        assert_eq!(settled(json!({"REGION": "eu"}), &eu()), (json!({"REGION": "eu"}), vec![]));
        assert_eq!(
            settled(json!({"REGION": "us"}), &eu()),
            (json!({"REGION": "us"}), vec!["env_vars REGION: eu -> us".to_owned()])
        );
        let edited = by_hand(eu(), "REGION", "my");
        let (kept, told) = settled(json!({"REGION": "eu"}), &edited);
        assert_eq!(kept, json!({"REGION": "my"}));
        assert_eq!(
            told,
            [
                "env_vars REGION: my stays, which was set by hand (the source says eu); change it under `install.env_vars` in \
              /m/need.json"
            ]
        );
        let (replaced, told) = settled(json!({"REGION": "us"}), &edited);
        assert_eq!((replaced, told[0].as_str()), (json!({"REGION": "us"}), "env_vars REGION: my -> us"));
        let (gone, told) = settled(json!({}), &eu());
        assert_eq!((gone, told.len()), (json!({}), 1), "{told:?}");
        let (stays, told) = settled(json!({}), &edited);
        assert_eq!((stays, told.len()), (json!({"REGION": "my"}), 1), "{told:?}");
        let mine_alone = by_hand(eu(), "MINE", "1");
        assert_eq!(
            settled(json!({"REGION": "eu"}), &mine_alone),
            (json!({"REGION": "eu", "MINE": "1"}), vec![])
        );
    }

    #[test]
    fn where_what_the_source_said_was_changed_by_hand_what_differs_is_the_users_and_stays() {
        let text = serde_json::to_string(&installed(json!({"REGION": "eu"}))).expect("text");
        let edited = Manifest::parse(&text.replace("\"eu\"", "\"us\"")).expect("a manifest");
        let (kept, told) = settled(json!({"REGION": "eu"}), &edited);
        assert_eq!((kept, told.len()), (json!({"REGION": "us"}), 2), "{told:?}");
        assert!(told[0].starts_with("env_vars REGION: us stays, which was set by hand"), "{told:?}");
        assert!(told[1].starts_with("install.source_values: it was changed by hand"), "{told:?}");
        // Of one that an earlier version wrote this is not known.
        let mut older = installed(json!({"REGION": "eu"}));
        older.install.unknown[SOURCE_VALUES].as_object_mut().expect("a record").remove(SEAL);
        assert_eq!(settled(json!({"REGION": "us"}), &older).1, ["env_vars REGION: eu -> us"]);
    }

    #[test]
    fn where_nothing_is_known_of_the_former_source_it_wins_for_what_it_names_and_secrets_are_not_shown() {
        let unknown = manifest(json!({"REGION": "eu", "MINE": "1", "A_KEY": "x"}), json!({"grace": 3}));
        let mut now = manifest(json!({"REGION": "us", "A_KEY": "y"}), json!({"grace": 5}));
        let told = settle(&mut now, Some(&unknown), Path::new("m")).lines();
        assert_eq!(Value::Object(as_values(&now)), json!({"REGION": "us", "A_KEY": "y", "MINE": "1"}));
        assert_eq!(Value::Object(now.overrides), json!({"grace": 5}));
        assert_eq!(
            told,
            ["env_vars REGION: eu -> us", "env_vars A_KEY: (hidden) -> (hidden)", "overrides grace: 3 -> 5"]
        );
    }

    #[test]
    fn of_what_is_named_like_a_secret_no_value_is_shown_and_below_such_a_name_no_text() {
        let section =
            Section { section: "code", target: Path::new("m"), tells: Tells::EveryChange, is_deep: true };
        for (name, value, shown) in [
            ("runtime.environment.API_KEY", json!(7), HIDDEN),
            ("runtime.secrets.db", json!("x"), HIDDEN),
            ("runtime.secrets.db", json!(["x"]), HIDDEN),
            ("runtime.secrets.db", json!({"dsn": "x"}), HIDDEN),
            ("runtime.deep", json!({"a": {"password": "x"}}), "{\"a\":{\"password\":\"(hidden)\"}}"),
            (
                "runtime.list",
                json!([{"name": "API_KEY", "value": "x"}]),
                "[{\"name\":\"API_KEY\",\"value\":\"(hidden)\"}]",
            ),
            ("worker_env.A_KEY.default", json!(7), HIDDEN),
            ("actions.say.max_tokens.default", json!(512), "512"),
            (
                "runtime.environment",
                json!({"REGION": "eu", "A_TOKEN": ["x"]}),
                "{\"REGION\":\"eu\",\"A_TOKEN\":\"(hidden)\"}",
            ),
            ("runtime.list", json!([{"password": "x"}]), "[{\"password\":\"(hidden)\"}]"),
            ("worker_env.A_KEY", json!({"name": "A_KEY", "default": "x"}), HIDDEN),
            ("worker_env.REGION", json!({"default": "eu"}), "{\"default\":\"eu\"}"),
        ] {
            assert_eq!(section.shown(name, &value), shown, "{name}");
        }
    }

    fn class(declared: Value, description: &str) -> Manifest {
        let text = json!({"format_version": "2.0", "code": {"name": "need", "version": "1", "description": description,
            "worker_env": declared, "runtime": {"kind": "native", "program": "x"}}});
        Manifest::parse(&text.to_string()).expect("a manifest")
    }

    #[test]
    fn variables_and_words_that_the_user_wrote_into_a_manifest_stay_beside_those_of_its_class() {
        let looked_at = |declared: Value, description: &str, installed: Option<&Manifest>| {
            let mut now = class(declared, description);
            let told = settle_code(&mut now, installed, Path::new("/m/need.json")).lines();
            let names = now.code.worker_env.iter().flatten().map(|one| one.name.clone()).collect::<Vec<_>>();
            (names, now.code.description.clone(), told, now)
        };
        let (_, _, told, installed) =
            looked_at(json!([{"name": "OLD"}, {"name": "URL"}]), "It speaks.", None);
        assert_eq!(told, [""; 0]);
        let mut edited = installed.clone();
        edited
            .code
            .worker_env
            .get_or_insert_default()
            .push(serde_json::from_value(json!({"name": "MINE", "default": "x"})).expect("a variable"));
        edited.code.description = "Mine.".to_owned();
        // What the class no longer names goes, and what it names anew comes.
        let (names, words, told, again) =
            looked_at(json!([{"name": "URL"}, {"name": "NEW"}]), "It speaks.", Some(&edited));
        assert_eq!((names.join(" ").as_str(), words.as_str(), told.len()), ("URL NEW MINE", "Mine.", 1));
        assert!(
            told[0].starts_with("code description: Mine. stays") && told[0].contains("under `code` in"),
            "{told:?}"
        );
        let (names, words, told, _) = looked_at(Value::Null, "It sings.", Some(&again));
        assert_eq!((names.join(" ").as_str(), words.as_str()), ("MINE", "It sings."));
        assert_eq!(told, ["code description: Mine. -> It sings."]);
        let (names, words, told, _) = looked_at(Value::Null, "It sings.", Some(&installed));
        assert_eq!((names.len(), words.as_str(), told.len()), (0, "It sings.", 0), "only the class changed");
        // Of what an earlier version installed nothing is known of the class.
        let (names, ..) = looked_at(Value::Null, "", Some(&class(json!([{"name": "MINE"}]), "Mine.")));
        assert_eq!(names, ["MINE"]);
    }
}
