//! Turns named arguments into a type, and a failure into the name of the argument that was wrong.

use super::error::ToolError;
use serde::de::DeserializeOwned;
use serde::de::value::MapDeserializer;
use serde_json::{Map, Value};
use std::cell::RefCell;

/// Reads `arguments` as a `T`; the error names the field and says what it should have been.
pub(crate) fn parse<T: DeserializeOwned>(arguments: &Map<String, Value>) -> Result<T, ToolError> {
    let current = RefCell::new(None);
    let entries = arguments.iter().map(|(name, value)| {
        *current.borrow_mut() = Some(name.clone());
        (name.clone(), value.clone())
    });
    let entries = entries.fuse().chain(std::iter::from_fn(|| {
        // All arguments were read: what fails from here on is a field that is missing.
        *current.borrow_mut() = None;
        None
    }));
    let result = T::deserialize(MapDeserializer::<_, serde_json::Error>::new(entries));
    let message = match result {
        Ok(value) => return Ok(value),
        Err(error) => error.to_string(),
    };
    let named = |prefix: &str| {
        let rest = message.strip_prefix(prefix)?;
        Some(rest.split_once('`')?.0.to_owned())
    };
    if let Some(field) = named("missing field `").or_else(|| named("unknown field `")) {
        return Err(ToolError::user_input(message).fields([field]));
    }
    match current.take() {
        Some(field) => Err(ToolError::user_input(format!("argument `{field}`: {message}")).fields([field])),
        None => Err(ToolError::user_input(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        path: String,
        #[serde(default)]
        count: Option<u8>,
    }

    #[test]
    fn the_wrong_argument_is_named() {
        for (arguments, field, words) in [
            (json!({"path": "p", "count": "x"}), "count", "invalid type"),
            (json!({"path": "p", "count": 300}), "count", "300"),
            (json!({"count": 1}), "path", "missing field"),
            (json!({"path": 1}), "path", "expected a string"),
            (json!({"path": "p", "other": 1}), "other", "unknown field"),
        ] {
            let error =
                parse::<Arguments>(arguments.as_object().expect("an object")).expect_err("is refused");
            let job_error = error.job_error("lab");
            assert_eq!(
                job_error.fields_invalid.as_deref(),
                Some([field.to_owned()].as_slice()),
                "{arguments}"
            );
            assert!(error.to_string().contains(words), "{error}");
        }
        let arguments = json!({"count": 7, "path": "p"});
        let good: Arguments = parse(arguments.as_object().expect("an object")).expect("is taken");
        assert_eq!((good.path.as_str(), good.count), ("p", Some(7)));
    }
}
