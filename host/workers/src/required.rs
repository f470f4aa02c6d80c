//! Variables, and keys of its configuration, that a tool cannot do without and that have no value: each is told with the
//! way to give it one.
//!
//! What must hold: a secret is never advised into a file that is no store of secrets. The manifest and `cjm.yaml` are
//! for plain variables alone.

use cjm_wire::describe::shell_word;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

/// A required variable without a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// The manifest says that it is a secret.
    pub secret: bool,
    /// The manifest that declares it.
    pub manifest: PathBuf,
    /// It is set, but for this other manifest of the same name.
    pub of_others: Option<PathBuf>,
}

/// `A, B, which are not set; C, which is set for another manifest of this name, PATH`.
pub(crate) struct InWords<'a>(pub(crate) &'a [Missing]);

impl Display for InWords<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let unset: Vec<&str> = names(self.0.iter().filter(|missing| missing.of_others.is_none()));
        let mut parts = Vec::new();
        if !unset.is_empty() {
            let verb = if unset.len() == 1 { "is" } else { "are" };
            parts.push(format!("{}, which {verb} not set", unset.join(", ")));
        }
        parts.extend(self.0.iter().filter_map(|missing| {
            let owner = missing.of_others.as_ref()?;
            let (name, owner) = (&missing.name, owner.display());
            Some(format!("{name}, which is set for another manifest of this name, {owner}"))
        }));
        formatter.write_str(&parts.join("; "))
    }
}

/// Keys that a schema requires and a configuration, which holds all defaults already, has not.
#[must_use]
pub fn keys_missing(schema: Option<&Value>, config: &Map<String, Value>) -> Box<[String]> {
    let required = schema.and_then(|schema| schema.get("required")).and_then(Value::as_array);
    let keys = required.into_iter().flatten().filter_map(Value::as_str);
    keys.filter(|key| !config.contains_key(*key)).map(str::to_owned).collect()
}

/// What to do about a configuration that is refused: where the keys are given that it lacks.
pub(crate) fn cure_of_configuration(has_schema: bool, keys: &[String]) -> String {
    if !has_schema {
        return "correct the configuration as the message says; its manifest has no schema of it".to_owned();
    }
    if keys.is_empty() {
        return "correct the configuration; `cjm-ctl list --json` shows its schema".to_owned();
    }
    format!("correct the configuration: give {}; `cjm-ctl list --json` shows its schema", ways_to_give(keys))
}

/// Where keys of a configuration are given.
pub(crate) fn ways_to_give(keys: &[String]) -> String {
    let names: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    let object: Vec<String> = keys.iter().map(|key| format!("{}: …", Value::String(key.clone()))).collect();
    format!(
        "{} in it, as in `--config '{{{}}}'`, or under `capabilities:` of a composition",
        names.join(", "),
        object.join(", ")
    )
}

/// Those that a failure speaks of.
pub(crate) fn spoken_of<'a>(unset: &[Missing], words: impl IntoIterator<Item = &'a str>) -> Box<[Missing]> {
    let said = names_in(words);
    unset.iter().filter(|missing| said.contains(missing.name.as_str())).cloned().collect()
}

/// The names that stand in words.
pub(crate) fn names_in<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_';
    words.into_iter().flat_map(|words| words.split(|c| !is_of_name(c))).collect()
}

/// What to do about a failure that speaks of them; none where it does not.
pub(crate) fn cure_of_failure(capability: &str, unset: &[Missing]) -> Option<String> {
    let names = names(unset.iter());
    let (verb, all) = (if names.len() == 1 { "has" } else { "have" }, and(&names));
    (!names.is_empty()).then(|| {
        format!(
            "{}; the failure speaks of {all}, which its manifest declares and which {verb} no value",
            cure(capability, unset)
        )
    })
}

/// What to do about all of them.
pub(crate) fn cure(capability: &str, missing: &[Missing]) -> String {
    let (secrets, plain): (Vec<&Missing>, Vec<&Missing>) = missing.iter().partition(|missing| missing.secret);
    let mut steps = Vec::new();
    let (taken, unset): (Vec<&Missing>, Vec<&Missing>) =
        secrets.into_iter().partition(|secret| secret.of_others.is_some());
    if !unset.is_empty() {
        let verbs = if unset.len() == 1 {
            "asks for the value and keeps it"
        } else {
            "ask for the values and keep them"
        };
        steps.push(format!("{} {verbs}", commands(capability, &unset, "")));
    }
    if !taken.is_empty() {
        let words = if taken.len() == 1 {
            "asks for the value and keeps it for this manifest; the other one has none then"
        } else {
            "ask for the values and keep them for this manifest; the other one has none then"
        };
        steps.push(format!("{} {words}", commands(capability, &taken, " --force")));
    }
    if !plain.is_empty() {
        let manifests: BTreeSet<String> =
            plain.iter().map(|plain| shell_word(&plain.manifest.display().to_string())).collect();
        let manifests = manifests.into_iter().collect::<Vec<_>>().join(", ");
        let names = names(plain.into_iter());
        let (them, all) = (if names.len() == 1 { "it" } else { "them" }, names.join(", "));
        steps.push(format!(
            "set {} in {manifests} (`install.env_vars`), or set {them} for the host and name {them} in `cjm.yaml` \
             (`substrate: {{worker_env_pass: [{all}]}}`)",
            and(&names)
        ));
    }
    steps.join("; and ")
}

fn commands(capability: &str, secrets: &[&Missing], flags: &str) -> String {
    let commands: Vec<String> = secrets
        .iter()
        .map(|secret| format!("`cjm-ctl set-secret {capability} {}{flags}`", secret.name))
        .collect();
    and(&commands.iter().map(String::as_str).collect::<Vec<_>>())
}

fn names<'a>(missing: impl Iterator<Item = &'a Missing>) -> Vec<&'a str> {
    missing.map(|missing| missing.name.as_str()).collect()
}

/// `a`, `a and b`, `a, b and c`.
fn and(parts: &[&str]) -> String {
    match parts {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(name: &str, secret: bool, of_others: Option<&str>) -> Missing {
        let manifest = "/d/manifests/key.json".into();
        Missing { name: name.to_owned(), secret, manifest, of_others: of_others.map(PathBuf::from) }
    }

    #[test]
    fn a_key_that_is_required_and_has_no_value_is_missing() {
        let given = |text: &str| serde_json::from_str::<Map<String, Value>>(text).expect("an object");
        let schema = serde_json::json!({"properties": {"a": {}, "b": {}}, "required": ["a", "b", "c"]});
        assert_eq!(*keys_missing(Some(&schema), &given("{\"b\": 1}")), ["a", "c"]);
        assert!(keys_missing(Some(&Value::Null), &given("{}")).is_empty());
        assert!(keys_missing(None, &given("{}")).is_empty());
        let step = cure_of_configuration(true, &["a".to_owned(), "c".to_owned()]);
        assert!(step.contains("give `a`, `c` in it, as in `--config '{\"a\": …, \"c\": …}'`"), "{step}");
    }

    #[test]
    fn secrets_and_plain_variables_that_are_missing_together_are_each_told_their_own_way() {
        let all = [
            missing("A_KEY", true, None),
            missing("B_URL", false, None),
            missing("C_KEY", true, None),
            missing("D_URL", false, None),
            missing("E_KEY", true, Some("/x/m.json")),
        ];
        assert_eq!(
            InWords(&all).to_string(),
            "A_KEY, B_URL, C_KEY, D_URL, which are not set; E_KEY, which is set for another manifest of this name, /x/m.json"
        );
        assert_eq!(
            cure("key", &all),
            "`cjm-ctl set-secret key A_KEY` and `cjm-ctl set-secret key C_KEY` ask for the values and keep them; and \
             `cjm-ctl set-secret key E_KEY --force` asks for the value and keeps it for this manifest; the other one has none \
             then; and set B_URL and D_URL in /d/manifests/key.json (`install.env_vars`), or set them for the host and name them in \
             `cjm.yaml` (`substrate: {worker_env_pass: [B_URL, D_URL]}`)"
        );
        for secret in ["A_KEY", "C_KEY", "E_KEY"] {
            let of_plain = cure("key", &all);
            let of_plain = of_plain.split("set B_URL").nth(1).expect("the plain way");
            assert!(!of_plain.contains(secret), "{of_plain}");
        }
    }

    #[test]
    fn a_failure_that_speaks_of_one_is_told_the_way_to_set_it() {
        let unset = [missing("WORDS_TOKEN", true, None), missing("TOKEN", true, None)];
        let spoken = spoken_of(&unset, ["'WORDS_TOKEN'", "KeyError('WORDS_TOKEN')"]);
        assert_eq!(*spoken, unset[..1]);
        let step = cure_of_failure("words", &spoken).expect("a way");
        assert!(step.starts_with("`cjm-ctl set-secret words WORDS_TOKEN` asks for the value"), "{step}");
        assert!(step.ends_with("WORDS_TOKEN, which its manifest declares and which has no value"), "{step}");
        assert_eq!(cure_of_failure("words", &spoken_of(&unset, ["MY_WORDS_TOKEN2"])), None);
    }

    #[test]
    fn one_that_is_missing_alone_is_told_alone() {
        let secret = [missing("A_KEY", true, None)];
        assert_eq!(InWords(&secret).to_string(), "A_KEY, which is not set");
        assert_eq!(cure("t", &secret), "`cjm-ctl set-secret t A_KEY` asks for the value and keeps it");
        let plain = cure("t", &[missing("B_URL", false, None)]);
        assert!(
            plain.starts_with("set B_URL in /d/manifests/key.json (") && !plain.contains("set-secret"),
            "{plain}"
        );
    }
}
