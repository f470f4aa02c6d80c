//! What a manifest is without what is wrong with its form, so that a key that is unknown or of another type hides no rule
//! that the rest breaks. Nothing of this is installed.

use crate::validate::mended::{Readable, readable};
use crate::validate::schema::Mend;
use cjm_wire::Manifest;
use cjm_wire::manifest::ManifestError;
use cjm_wire::runtime::{Action, Argument, Runtime};
use cjm_wire::runtime_check::{BUILT_IN_NAMES, TemplatePart, parse_template};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What is mended in each round: what was put in the place of something else may lack keys of its own, and a number that is
/// too small for its type is told better by whoever reads it.
const ROUNDS: [fn(&Mend) -> bool; 5] = [
    |mend| *mend != Mend::Limit,
    |mend| *mend != Mend::Limit,
    |mend| *mend != Mend::Limit,
    |_| true,
    |_| true,
];
/// Keys of an action whose rules, but for those of templates, speak of its parameters and outputs.
const OF_NAMES: [&str; 3] = ["outputs", "result", "parameters"];

/// The rules that a manifest breaks whose form is none; nothing where not even the rest can be read.
pub(super) fn rules_broken(document: &Value, schema: &str) -> Vec<ManifestError> {
    let read = |value: &Value| Manifest::read(&value.to_string()).ok();
    let of_no_kind = || {
        // Which kind of tool it is cannot be read: the rest is judged as the kind that has the fewest rules.
        let mut document = document.clone();
        *document.pointer_mut("/code/runtime")? = json!({"kind": "native", "program": "-"});
        readable(&document, schema, &ROUNDS, read)
    };
    let found = readable(document, schema, &ROUNDS, read).or_else(of_no_kind);
    let Some(Readable { value: mut manifest, put_in, mends }) = found else { return Vec::new() };
    let guessed = Guessed::of(&put_in, &mends);
    if let Some(Runtime::Executable(executable)) = &mut manifest.code.runtime {
        let nameless = |name: &str| guessed.nameless.contains(&format!("code.runtime.actions.{name}"));
        executable
            .actions
            .iter_mut()
            .filter(|(name, _)| nameless(name))
            .for_each(|(_, action)| declare_all(action));
    }
    let is_written = |error: &ManifestError| match error {
        ManifestError::Invalid { key, .. } => !guessed.is_about(key),
        _ => true,
    };
    manifest.faults().into_iter().filter(is_written).collect()
}

/// Which names an action declares is not known: whatever its templates name may be one.
fn declare_all(action: &mut Action) {
    let mut names = Vec::new();
    let mut take = |text: &str| {
        for part in parse_template(text).unwrap_or_default() {
            if let TemplatePart::Name { name, .. } = part
                && !BUILT_IN_NAMES.contains(&name.as_str())
            {
                names.push(name);
            }
        }
    };
    for argument in &action.argv {
        match argument {
            Argument::Always(text) => take(text),
            Argument::When { when, args } => {
                take(&format!("{{{when}}}"));
                args.iter().for_each(|text| take(text));
            }
        }
    }
    action.stdin.iter().chain(action.outputs.values()).for_each(|text| take(text));
    names.retain(|name| !action.outputs.contains_key(name));
    for name in names {
        action.parameters.entry(name).or_default();
    }
}

/// What nobody wrote: a rule that it breaks is no fault of the manifest.
struct Guessed {
    /// Dotted keys of what was put in.
    put_in: Vec<String>,
    /// Dotted keys of what was taken out.
    taken_out: Vec<String>,
    /// Actions, by their dotted keys, of which it is not known what names they declare.
    nameless: Vec<String>,
}

impl Guessed {
    fn of(put_in: &BTreeSet<String>, mends: &[(String, Mend)]) -> Self {
        let dotted = |pointer: &str| {
            pointer.trim_start_matches('/').replace('/', ".").replace("~1", "/").replace("~0", "~")
        };
        let declares = |name: &str| ["parameters", "outputs"].contains(&name);
        let misspelt = mends.iter().filter_map(|(pointer, mend)| match mend {
            Mend::Stray { meant: Some(meant) } if declares(meant) => Some(pointer.rsplit_once('/')?.0),
            _ => None,
        });
        let replaced = put_in.iter().filter_map(|pointer| {
            let (holder, name) = pointer.rsplit_once('/')?;
            declares(name).then_some(holder)
        });
        Self {
            nameless: misspelt.chain(replaced).map(dotted).collect(),
            put_in: put_in.iter().map(|pointer| dotted(pointer)).collect(),
            taken_out: mends.iter().map(|(pointer, _)| dotted(pointer)).collect(),
        }
    }

    fn is_about(&self, key: &str) -> bool {
        let rest = |key: &str, holder: &str| -> Option<String> {
            if key == holder {
                return Some(String::new());
            }
            key.strip_prefix(holder)?.strip_prefix('.').map(str::to_owned)
        };
        let of_names = |rest: String| OF_NAMES.iter().any(|name| rest.split('.').next() == Some(name));
        // A parameter is judged whole, so that a part of it that nobody wrote makes it unknown.
        let is_parameter = key.split('.').any(|step| step == "parameters");
        self.put_in.iter().any(|put| rest(key, put).is_some() || (is_parameter && rest(put, key).is_some()))
            || self.taken_out.iter().any(|taken| rest(key, taken).is_some())
            || self.nameless.iter().any(|action| rest(key, action).is_some_and(of_names))
    }
}
