//! Values of a manifest that both its source and the user may set (`install.env_vars`, `overrides`; of a Python tool
//! `code.worker_env` and `code.description`, whose source is the class): who wins when the source is installed again.
//!
//! What must hold: what the source says wins where the source has changed since it was installed; what the user set by
//! hand stays where it has not; and whatever is replaced, or kept although the source says otherwise, is told. What the
//! source said is written down in the installed manifest; of one that was written before this was so, nothing is known,
//! and the source wins where it names a key.

use cjm_wire::Manifest;
use cjm_wire::manifest::Code;
use serde_json::{Map, Value};
use std::path::Path;

/// In `install`: what the source said when it was installed.
const SOURCE_VALUES: &str = "source_values";
/// Sections of what a class says.
const DECLARED: &str = "worker_env";
const WORDS: &str = "code";
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
                let before = said_before(installed, section);
                let tells = Tells::EveryChange;
                Section { section, before, mine, target, tells }.settle(theirs, &mut settled)
            }
            None => theirs,
        });
    }
    manifest.overrides = results.pop().unwrap_or_default();
    let variables = results.pop().unwrap_or_default();
    manifest.install.env_vars =
        variables.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect();
    // A manifest that is installed from an installed one brings that one's record along.
    manifest.install.unknown.remove(SOURCE_VALUES);
    if !record.is_empty() {
        manifest.install.unknown.insert(SOURCE_VALUES.to_owned(), Value::Object(record));
    }
    settled
}

/// Settles what `manifest`, which is as the class has it, says of the worker's variables and of the tool in a sentence with what
/// the `installed` one says, which lies at `target`; and writes down what the class said. A class that changes is told where
/// it takes the place of what the user wrote, and not otherwise.
pub(crate) fn settle_code(manifest: &mut Manifest, installed: Option<&Manifest>, target: &Path) -> Settled {
    let mut settled = Settled::default();
    let mut record = match manifest.install.unknown.remove(SOURCE_VALUES) {
        Some(Value::Object(record)) => record,
        _ => Map::new(),
    };
    for (section, of) in [(DECLARED, declared as fn(&Code) -> Map<String, Value>), (WORDS, words)] {
        let theirs = of(&manifest.code);
        match theirs.is_empty() {
            true => record.remove(section),
            false => record.insert(section.to_owned(), Value::Object(theirs.clone())),
        };
        let Some(installed) = installed else { continue };
        let (before, tells) = (said_before(installed, section), Tells::WhatTheUserLoses);
        let section = Section { section, before, mine: of(&installed.code), target, tells };
        let result = section.settle(theirs, &mut settled);
        if of(&manifest.code) != result {
            write_down(&mut manifest.code, &installed.code, section.section, result);
        }
    }
    if !record.is_empty() {
        manifest.install.unknown.insert(SOURCE_VALUES.to_owned(), Value::Object(record));
    }
    settled
}

/// The variables that a worker wants, by their names.
fn declared(code: &Code) -> Map<String, Value> {
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

/// What the source of an installed manifest said in one section when it was installed.
fn said_before<'m>(installed: &'m Manifest, section: &str) -> Option<&'m Map<String, Value>> {
    installed.install.unknown.get(SOURCE_VALUES)?.get(section)?.as_object()
}

fn as_values(manifest: &Manifest) -> Map<String, Value> {
    let variables = &manifest.install.env_vars;
    variables.iter().map(|(name, value)| (name.clone(), Value::from(value.clone()))).collect()
}

/// Which of the values that the source replaces are told.
#[derive(Clone, Copy, PartialEq)]
enum Tells {
    EveryChange,
    WhatTheUserLoses,
}

struct Section<'a> {
    section: &'a str,
    /// What the source said when it was installed.
    before: Option<&'a Map<String, Value>>,
    /// What is installed.
    mine: Map<String, Value>,
    target: &'a Path,
    tells: Tells,
}

impl Section<'_> {
    fn settle(&self, theirs: Map<String, Value>, settled: &mut Settled) -> Map<String, Value> {
        let Self { section, before, mine, target, tells } = self;
        let before = |name: &str| before.and_then(|before| before.get(name));
        let is_told = |name: &str, mine: Option<&Value>| {
            *tells == Tells::EveryChange || mine.is_some_and(|mine| before(name) != Some(mine))
        };
        let place = match *section {
            "env_vars" => format!("install.{section}"),
            DECLARED => format!("code.{section}"),
            other => other.to_owned(),
        };
        let stays = |name: &str, mine: &Value, of_source: &str| {
            format!(
                "{section} {name}: {} stays, which was set by hand ({of_source}); change it under `{place}` in {}",
                shown(name, mine),
                target.display()
            )
        };
        let mut result = Map::new();
        for (name, theirs) in theirs {
            let value = match mine.get(&name) {
                Some(mine) if *mine == theirs => theirs,
                Some(mine) if before(&name) == Some(&theirs) => {
                    let of_source = format!("the source says {}", shown(&name, &theirs));
                    settled.kept.push(stays(&name, mine, &of_source));
                    mine.clone()
                }
                mine if !is_told(&name, mine) => theirs,
                mine => {
                    // The first time that it is named, nothing of anybody's is replaced.
                    if mine.is_some() || before(&name).is_some() {
                        let from = mine.map_or_else(|| "nothing".to_owned(), |mine| shown(&name, mine));
                        settled
                            .replaced
                            .push(format!("{section} {name}: {from} -> {}", shown(&name, &theirs)));
                    } else {
                        settled.replaced.push(format!("{section} {name}: {} is new", shown(&name, &theirs)));
                    }
                    theirs
                }
            };
            result.insert(name, value);
        }
        for (name, mine) in mine {
            if result.contains_key(name) {
                continue;
            }
            match before(name) {
                Some(before) if before == mine => {
                    if is_told(name, Some(mine)) {
                        let shown = shown(name, mine);
                        settled
                            .replaced
                            .push(format!("{section} {name}: {shown} is gone, as from the source"));
                    }
                    continue;
                }
                Some(_) => settled.kept.push(stays(name, mine, "the source no longer names it")),
                None => {}
            }
            result.insert(name.clone(), mine.clone());
        }
        result
    }
}

/// A value in a line: of what is named like a secret, not the value.
fn shown(name: &str, value: &Value) -> String {
    let upper = name.to_ascii_uppercase();
    match value {
        _ if SECRET_PARTS.iter().any(|part| upper.contains(part)) => "(hidden)".to_owned(),
        Value::String(text) if !text.is_empty() => text.clone(),
        other => other.to_string(),
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
