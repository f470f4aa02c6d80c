//! Arguments that a document writes out, held against what the tool says of its parameters: a value that the tool is known to
//! refuse need not wait for the calls before it. What is bound when the node runs may be anything, and null is not given.

use super::declared::{DeclaredAction, DeclaredTools, Meant, meant};
use super::graph::GraphError;
use cjm_wire::Manifest;
use cjm_wire::composition::{Node, in_short};
use cjm_wire::json::{Json, JsonError};
use cjm_wire::runtime::Runtime;
use cjm_wire::template::Template;
use serde_json::Value;

/// The arguments of a node that its tool is known to refuse by its manifest, each with its place; none where that says
/// nothing of them.
#[must_use]
pub fn literal_faults<'a>(
    name: &str,
    node: &'a Node,
    manifest: &Manifest,
    tools: &mut DeclaredTools<'a>,
) -> Vec<GraphError> {
    match tools.actions(&node.capability, manifest).map(|actions| meant(node, actions)) {
        Some(Meant::Action(action)) => argument_faults(name, node, action),
        _ => Vec::new(),
    }
}

/// What is wanted, as the end of a sentence, of a value in a configuration that the tool is known to refuse by its manifest.
/// That is a Python class with actions: it holds its configuration against its schema before it begins. Of other tools only
/// their own code knows what they take.
#[must_use]
pub fn configuration_misfit(manifest: &Manifest, key: &str, value: &Value) -> Option<String> {
    let is_checked = matches!(manifest.runtime(), Runtime::Python { .. });
    let actions = manifest.code.unknown.get("actions")?.as_array().filter(|_| is_checked)?;
    if !actions.iter().any(|action| action.get("arguments").is_some()) {
        return None;
    }
    misfit(manifest.code.config_schema.as_ref()?.get("properties")?.get(key)?, value, true)
}

/// The arguments of a node that the action is known to refuse, each with its place.
fn argument_faults(name: &str, node: &Node, action: &DeclaredAction) -> Vec<GraphError> {
    let misfit = |(key, given): (&String, &Json)| {
        let property = action.schema.get("properties")?.get(key)?;
        let Ok(Template::Plain(value)) = Template::parse(given) else { return None };
        let why = match value.to_value() {
            // To a program null is no value; whether it is one of a tool with code of its own, that code knows.
            Ok(Value::Null) if action.of_program && action.required.contains(key) => {
                Some("the tool needs a value".to_owned())
            }
            Ok(value) => misfit(property, &value, action.strict)
                .or_else(|| action.files.contains(key).then(|| relative(&value))?),
            // A tool with code of its own may take what no parsed value can hold.
            Err(JsonError::Inexact(_)) if action.of_program => {
                Some("the tool takes numbers of 64 bits".to_owned())
            }
            Err(_) => None,
        }?;
        Some(GraphError::ArgumentType {
            place: format!("nodes.{name}.args.{key}"),
            message: format!("{} is given, and {why}", in_short(&value)),
        })
    };
    node.args.iter().filter_map(misfit).collect()
}

/// The same of a file: a program runs in a folder of its own, where a relative path means something else.
fn relative(value: &Value) -> Option<String> {
    let given = value.as_str().filter(|path| !path.starts_with('/'))?;
    // What is made absolute is an input, and only there it is known from which folder.
    Some(format!(
        "the tool takes an absolute path; an input of `type: file` (its default may be {given}) is made one"
    ))
}

/// What is wanted, as the end of a sentence, where the value is known to be something else.
fn misfit(property: &Value, value: &Value, strict: bool) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let types: Vec<&str> = match property.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let kinds: Option<Vec<(bool, &str)>> = types.iter().map(|name| is_of(name, value, strict)).collect();
    // A type that nobody here knows may be any.
    if let Some(kinds) = kinds.filter(|kinds| !kinds.is_empty() && kinds.iter().all(|(fits, _)| !fits)) {
        let wanted = kinds.iter().map(|(_, words)| *words).collect::<Vec<_>>().join(" or ");
        return Some(format!("the tool takes {wanted}"));
    }
    if let Some(choices) = property.get("enum").and_then(Value::as_array)
        && !choices.iter().any(|choice| is_same(choice, value, strict))
    {
        let choices = choices.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
        return Some(format!("the tool takes only {choices}"));
    }
    let (number, limit) = (value.as_f64()?, |key: &str| property.get(key).and_then(Value::as_f64));
    if let Some(minimum) = limit("minimum").filter(|minimum| number < *minimum) {
        return Some(format!("the tool takes {minimum} at least"));
    }
    limit("maximum")
        .filter(|maximum| number > *maximum)
        .map(|maximum| format!("the tool takes {maximum} at most"))
}

fn is_whole(value: &Value, strict: bool) -> bool {
    value.is_i64()
        || value.is_u64()
        || (!strict && value.as_f64().is_some_and(|number| number.fract() == 0.0))
}

fn is_same(choice: &Value, value: &Value, strict: bool) -> bool {
    let as_number = || !strict && choice.as_f64().is_some_and(|choice| value.as_f64() == Some(choice));
    choice == value || as_number()
}

/// Whether the value is of a type of JSON Schema, and what that is for people; none where there is no such type.
fn is_of(name: &str, value: &Value, strict: bool) -> Option<(bool, &'static str)> {
    Some(match name {
        "string" => (value.is_string(), "text"),
        "integer" => (is_whole(value, strict), "a whole number"),
        "number" => (value.is_number(), "a number"),
        "boolean" => (value.is_boolean(), "true or false"),
        "array" => (value.is_array(), "a list"),
        "object" => (value.is_object(), "an object"),
        "null" => (value.is_null(), "null"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(property: &Value, given: &str, expected: &[&str]) {
        let node = format!("{{\"capability\": \"c\", \"args\": {{\"x\": {given}, \"unknown\": 1}}}}");
        let node: Node = serde_json::from_str(&node).expect("a node");
        let arguments = json!({"properties": {"x": property}, "required": ["x"]});
        let code = json!({"name": "c", "version": "1", "module": "m", "class": "C", "actions": [
            {"name": "go", "arguments": arguments}]});
        let manifest =
            json!({"format_version": "2.0", "code": code, "install": {"python_path": "/usr/bin/python3"}})
                .to_string();
        let found = literal_faults(
            "a",
            &node,
            &Manifest::parse(&manifest).expect("a manifest"),
            &mut DeclaredTools::default(),
        );
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{property} {given}");
    }

    #[test]
    fn a_value_that_is_written_out_is_held_against_the_type_of_its_parameter() {
        for (kind, fits, wrong, wanted) in [
            ("string", "\"a\"", "1", "text"),
            ("integer", "1", "1.5", "a whole number"),
            ("number", "1.5", "\"1\"", "a number"),
            ("boolean", "true", "\"true\"", "true or false"),
            ("array", "[]", "{}", "a list"),
            ("object", "{}", "[]", "an object"),
        ] {
            let property = json!({"type": kind});
            check(&property, fits, &[]);
            check(&property, "null", &[]);
            check(&property, "\"${b}\"", &[]);
            let told = format!("nodes.a.args.x: {wrong} is given, and the tool takes {wanted}");
            check(&property, wrong, &[&told]);
        }
    }

    /// To JSON Schema 5.0 is a whole number; a tool in Perl or JavaScript takes it.
    #[test]
    fn a_tool_with_code_of_its_own_may_take_a_whole_number_with_a_point() {
        for (kind, is_refused) in
            [(json!({"kind": "channel", "program": "perl"}), false), (json!({"kind": "python"}), true)]
        {
            let code = json!({"name": "c", "version": "1", "module": "m", "class": "C", "runtime": kind, "actions": [
                {"name": "go", "arguments": {"properties": {"n": {"type": "integer"}, "e": {"enum": [1, 2]}}}}]});
            let manifest = json!({"format_version": "2.0", "code": code, "install": {"python_path": "/usr/bin/python3"}});
            let manifest = Manifest::parse(&manifest.to_string()).expect("a manifest");
            let node = |args: &str| -> Node {
                serde_json::from_str(&format!("{{\"capability\": \"c\", \"args\": {args}}}")).expect("a node")
            };
            for args in [r#"{"n": 5.0}"#, r#"{"n": 1e3}"#, r#"{"e": 1.0}"#] {
                assert_eq!(
                    literal_faults("a", &node(args), &manifest, &mut DeclaredTools::default()).len(),
                    usize::from(is_refused),
                    "{args}"
                );
            }
            for args in [r#"{"n": 5.5}"#, r#"{"e": 3}"#] {
                assert_eq!(
                    literal_faults("a", &node(args), &manifest, &mut DeclaredTools::default()).len(),
                    1,
                    "{args}"
                );
            }
        }
    }

    /// A task's method is the adapter's, and an action that is bound when the node runs may be any.
    #[test]
    fn where_the_action_is_not_known_nothing_is_refused() {
        let actions = json!([{"name": "go", "arguments": {"properties": {"n": {"type": "integer"}}}}]);
        let code = json!({"name": "c", "version": "1", "module": "m", "class": "C", "actions": actions});
        let manifest =
            json!({"format_version": "2.0", "code": code, "install": {"python_path": "/usr/bin/python3"}});
        let manifest = Manifest::parse(&manifest.to_string()).expect("a manifest");
        for (node, faults) in [
            (json!({"capability": "c", "args": {"n": "x"}}), 1),
            (json!({"capability": "c", "args": {"n": "x", "action": "go"}}), 1),
            (json!({"capability": "c", "args": {"n": "x", "action": "${inputs.which}"}}), 0),
            (json!({"capability": "c", "args": {"n": "x"}, "action": "other"}), 0),
            (json!({"capability": "c", "args": {"n": "x"}, "task": "t", "method": "go"}), 0),
        ] {
            let parsed: Node = serde_json::from_str(&node.to_string()).expect("a node");
            assert_eq!(
                literal_faults("a", &parsed, &manifest, &mut DeclaredTools::default()).len(),
                faults,
                "{node}"
            );
        }
        let several = json!([{"name": "go", "arguments": {"properties": {"n": {"type": "integer"}}}}, {"name": "stop"}]);
        let code = json!({"name": "c", "version": "1", "module": "m", "class": "C", "actions": several});
        let manifest =
            json!({"format_version": "2.0", "code": code, "install": {"python_path": "/usr/bin/python3"}});
        let manifest = Manifest::parse(&manifest.to_string()).expect("a manifest");
        let unnamed: Node =
            serde_json::from_str(r#"{"capability": "c", "args": {"n": "x"}}"#).expect("a node");
        assert!(
            literal_faults("a", &unnamed, &manifest, &mut DeclaredTools::default()).is_empty(),
            "it may be the other one"
        );
    }

    #[test]
    fn a_program_is_given_neither_null_for_what_it_needs_nor_more_than_64_bits() {
        let big = "18446744073709551616";
        check(&json!({"type": "integer"}), big, &[]);
        let parameters = json!({"n": {"type": "integer", "required": true}, "o": {"type": "integer"}});
        let runtime = json!({"kind": "executable", "program": "true", "actions": {"go": {"argv": [], "parameters": parameters}}});
        let manifest =
            json!({"format_version": "2.0", "code": {"name": "c", "version": "1", "runtime": runtime}})
                .to_string();
        let manifest = Manifest::parse(&manifest).expect("a manifest");
        for (args, expected) in [
            (r#"{"n": 1, "o": null}"#.to_owned(), None),
            (r#"{"n": null}"#.to_owned(), Some("null is given, and the tool needs a value".to_owned())),
            (r#"{"n": 5.0}"#.to_owned(), Some("5.0 is given, and the tool takes a whole number".to_owned())),
            (
                r#"{"n": 1e30}"#.to_owned(),
                Some("1e30 is given, and the tool takes a whole number".to_owned()),
            ),
            (
                format!("{{\"n\": {big}}}"),
                Some(format!("{big} is given, and the tool takes numbers of 64 bits")),
            ),
        ] {
            let node = format!("{{\"capability\": \"c\", \"args\": {args}}}");
            let node: Node = serde_json::from_str(&node).expect("a node");
            let found: Vec<String> = literal_faults("a", &node, &manifest, &mut DeclaredTools::default())
                .iter()
                .map(ToString::to_string)
                .collect();
            let expected: Vec<String> =
                expected.iter().map(|words| format!("nodes.a.args.n: {words}")).collect();
            assert_eq!(found, expected, "{args}");
        }
    }

    #[test]
    fn a_file_of_a_program_is_written_with_an_absolute_path() {
        let parameters = json!({"f": {"type": "input_file"}, "p": {"type": "path"}, "s": {"type": "string"}});
        let runtime = json!({"kind": "executable", "program": "true", "actions": {"go": {"argv": [], "parameters": parameters}}});
        let manifest =
            json!({"format_version": "2.0", "code": {"name": "c", "version": "1", "runtime": runtime}})
                .to_string();
        let manifest = Manifest::parse(&manifest).expect("a manifest");
        let told = |args: &str| {
            let node = format!("{{\"capability\": \"c\", \"args\": {args}}}");
            let node: Node = serde_json::from_str(&node).expect("a node");
            let faults = literal_faults("a", &node, &manifest, &mut DeclaredTools::default());
            faults.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for fits in [r#"{"f": "/a.wav", "p": "a", "s": "a"}"#, r#"{"f": "${inputs.f}"}"#, r#"{"f": null}"#] {
            assert_eq!(told(fits), [""; 0], "{fits}");
        }
        let wanted = "the tool takes an absolute path; an input of `type: file` (its default may be ./a.wav) is made one";
        assert_eq!(
            told(r#"{"f": "./a.wav"}"#),
            [format!("nodes.a.args.f: \"./a.wav\" is given, and {wanted}")]
        );
    }

    #[test]
    fn several_types_choices_and_limits_count_and_what_is_not_said_is_not_missed() {
        let several = json!({"type": ["string", "null"]});
        check(&several, "\"a\"", &[]);
        check(&several, "1", &["nodes.a.args.x: 1 is given, and the tool takes text or null"]);
        for anything in [json!({}), json!({"type": "path"}), json!({"type": ["string", "path"]}), json!(true)]
        {
            check(&anything, "1", &[]);
        }
        let choice = json!({"type": "string", "enum": ["a", "b"]});
        check(&choice, "\"b\"", &[]);
        check(&choice, "\"c\"", &["nodes.a.args.x: \"c\" is given, and the tool takes only \"a\", \"b\""]);
        let limits = json!({"type": "integer", "minimum": 1, "maximum": 9});
        for fits in ["1", "9"] {
            check(&limits, fits, &[]);
        }
        check(&limits, "0", &["nodes.a.args.x: 0 is given, and the tool takes 1 at least"]);
        check(&limits, "10", &["nodes.a.args.x: 10 is given, and the tool takes 9 at most"]);
    }
}
