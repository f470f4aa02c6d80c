//! What a manifest says of the arguments of a tool's actions, whatever kind of tool it is.

use crate::assign::Declared;
use cjm_catalog::CatalogEntry;
use cjm_wire::runtime::{Action, Executable, ParameterKind, Runtime};
use serde_json::Value;

/// The type of the argument `key` of an action; without a name the only one.
pub(crate) fn declared(entry: &CatalogEntry, action: Option<&str>, key: &str) -> Declared {
    match entry.manifest.runtime() {
        Runtime::Executable(executable) => {
            let parameter = action_of(&executable, action).and_then(|action| action.parameters.get(key));
            parameter.map_or(Declared::Unknown, |parameter| of_kind(parameter.kind))
        }
        _ => schema_of(entry.manifest.code.unknown.get("actions"), action)
            .and_then(|schema| schema.get("properties")?.get(key)?.get("type"))
            .map_or(Declared::Unknown, of_schema),
    }
}

/// The action that a call means.
pub(crate) fn action_of<'a>(executable: &'a Executable, name: Option<&str>) -> Option<&'a Action> {
    match (name, executable.actions.len()) {
        (Some(name), _) => executable.actions.get(name),
        (None, 1) => executable.actions.values().next(),
        (None, _) => None,
    }
}

fn of_kind(kind: ParameterKind) -> Declared {
    match kind {
        ParameterKind::String | ParameterKind::InputFile | ParameterKind::Path => Declared::Text,
        ParameterKind::Integer | ParameterKind::Number => Declared::Number,
        ParameterKind::Boolean => Declared::Boolean,
    }
}

/// The JSON Schema of an action's arguments, where the tool's manifest has one.
fn schema_of<'a>(actions: Option<&'a Value>, name: Option<&str>) -> Option<&'a Value> {
    let actions = actions?.as_array()?;
    let action = match (name, actions.as_slice()) {
        (Some(name), all) => all.iter().find(|action| action["name"] == name)?,
        (None, [only]) => only,
        (None, _) => return None,
    };
    action.get("arguments").or_else(|| action.get("parameters"))
}

/// One type alone says how a value is to be read.
fn of_schema(kind: &Value) -> Declared {
    match kind.as_str() {
        Some("string") => Declared::Text,
        Some("integer" | "number") => Declared::Number,
        Some("boolean") => Declared::Boolean,
        _ => Declared::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_schema_of_an_action_says_how_its_arguments_are_read() {
        let arguments = json!({"properties": {
            "text": {"type": "string"}, "n": {"type": "integer"}, "b": {"type": "boolean"}, "x": {"type": ["string", "null"]},
        }});
        let actions = json!([{"name": "a", "arguments": arguments}, "b"]);
        let kind = |action: Option<&str>, key: &str| {
            schema_of(Some(&actions), action)
                .and_then(|schema| schema.get("properties")?.get(key)?.get("type"))
                .map_or(Declared::Unknown, of_schema)
        };
        assert_eq!(kind(Some("a"), "text"), Declared::Text);
        assert_eq!(kind(Some("a"), "n"), Declared::Number);
        assert_eq!(kind(Some("a"), "b"), Declared::Boolean);
        for (action, key) in [(Some("a"), "x"), (Some("a"), "nope"), (Some("b"), "text"), (None, "text")] {
            assert_eq!(kind(action, key), Declared::Unknown, "{action:?} {key}");
        }
    }
}
