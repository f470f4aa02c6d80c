//! The inputs of a run: what was given, completed by the defaults of the document.

use super::graph::list;
use cjm_wire::composition::Composition;
use cjm_wire::describe::Described;
use cjm_wire::json::Arguments;

/// Why a run cannot have these inputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputsError {
    /// It has no default and was not given.
    #[error("input `{name}` is missing and has no default")]
    Missing {
        /// The input.
        name: String,
    },
    /// The document declares no such input.
    #[error("there is no input `{name}` (there is {known})")]
    Unknown {
        /// What was given.
        name: String,
        /// What is declared.
        known: String,
    },
}

impl Described for InputsError {
    fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "composition.input_missing",
            Self::Unknown { .. } => "composition.input_unknown",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Missing { name } => format!("give it: {name}=VALUE"),
            Self::Unknown { name, .. } => format!("leave `{name}` out, or declare it under `inputs`"),
        }
    }
}

/// All declared inputs, in the order of the document. Types are the caller's business: it knows files.
pub(super) fn complete(composition: &Composition, mut given: Arguments) -> Result<Arguments, InputsError> {
    if let Some(name) = given.keys().find(|name| !composition.inputs.contains_key(*name)) {
        return Err(InputsError::Unknown { name: name.clone(), known: list(composition.inputs.keys()) });
    }
    composition
        .inputs
        .iter()
        .map(|(name, input)| {
            let value = given.swap_remove(name).or_else(|| input.default.clone());
            value
                .map(|value| (name.clone(), value))
                .ok_or_else(|| InputsError::Missing { name: name.clone() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(given: &Value, expected: Result<&Value, &str>) {
        let composition =
            Composition::parse("name: t\ninputs: {a: {}, b: {default: 2}}\nnodes: {}\n").expect("parses");
        let found = complete(&composition, serde_json::from_value(given.clone()).expect("object"));
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                assert_eq!(&serde_json::to_value(found).expect("an object"), expected);
            }
            (Err(error), Err(message)) => assert_eq!(error.to_string(), message),
            (found, expected) => panic!("{given}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn defaults_fill_in_and_strays_are_named() {
        check(&json!({"a": null}), Ok(&json!({"a": null, "b": 2})));
        check(&json!({"b": 3, "a": 1}), Ok(&json!({"a": 1, "b": 3})));
        check(&json!({}), Err("input `a` is missing and has no default"));
        check(&json!({"a": 1, "c": 1}), Err("there is no input `c` (there is a, b)"));
    }
}
