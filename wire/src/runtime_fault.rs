//! What in the `code.runtime` of a manifest is not of its type: [`crate::type_fault`] for the forms that `runtime` has.

use crate::runtime::{Action, Argument, CancelRule, Executable, Parameter, ProgressPattern, Runtime};
use crate::type_fault::{TypeFault, escaped, in_part};
use serde_json::{Value, json};

const AT: &str = "/code/runtime";

/// The innermost value of a manifest's runtime that is at fault.
pub(crate) fn in_runtime(document: &Value) -> Option<TypeFault> {
    match document.pointer(AT)?.get("kind").and_then(Value::as_str) {
        Some("executable") => in_executable(document.clone()),
        Some(kind @ ("native" | "channel")) => {
            in_part::<Runtime>(document, AT, &json!({"kind": kind, "program": ""}))
        }
        Some(kind @ "python") => in_part::<Runtime>(document, AT, &json!({"kind": kind})),
        _ => {
            let TypeFault { words, .. } = in_part::<Runtime>(document, AT, &json!({}))?;
            // Without a kind that there is, no other key can be judged.
            let kind = format!("{AT}/kind");
            let pointer = if document.pointer(&kind).is_some() { kind } else { AT.to_owned() };
            Some(TypeFault { pointer, words })
        }
    }
}

fn in_executable(mut document: Value) -> Option<TypeFault> {
    // It is the tag of the form, and no key of it.
    document.pointer_mut(AT)?.as_object_mut()?.remove("kind");
    let actions = document.pointer(AT)?.get("actions").and_then(Value::as_object);
    let names = actions.into_iter().flat_map(|actions| actions.keys());
    names
        .map(|name| format!("{AT}/actions/{}", escaped(name)))
        .find_map(|action| in_action(&document, &action))
        .or_else(|| in_part::<Executable>(&document, AT, &json!({"program": "", "actions": {}})))
}

fn in_action(document: &Value, action: &str) -> Option<TypeFault> {
    let of = |key: &str| format!("{action}/{key}");
    let below = |holder: String| -> Vec<String> {
        match document.pointer(&holder) {
            Some(Value::Object(fields)) => {
                fields.keys().map(|key| format!("{holder}/{}", escaped(key))).collect()
            }
            Some(Value::Array(items)) => (0..items.len()).map(|index| format!("{holder}/{index}")).collect(),
            _ => Vec::new(),
        }
    };
    let parameter = |at: &String| in_part::<Parameter>(document, at, &json!({"type": "string"}));
    let argument = |at: &String| in_part::<Argument>(document, at, &json!({"when": "", "args": []}));
    below(of("parameters"))
        .iter()
        .find_map(parameter)
        .or_else(|| below(of("argv")).iter().find_map(argument))
        .or_else(|| {
            let blank = json!({"stream": "stdout", "pattern": ""});
            // Null stands for one that is left out.
            document.pointer(&of("progress")).filter(|value| !value.is_null())?;
            in_part::<ProgressPattern>(document, &of("progress"), &blank)
        })
        .or_else(|| {
            document.pointer(&of("cancel")).filter(|value| !value.is_null())?;
            in_part::<CancelRule>(document, &of("cancel"), &json!({}))
        })
        .or_else(|| in_part::<Action>(document, action, &json!({"argv": []})))
}

#[cfg(test)]
mod tests {
    use crate::manifest::{Manifest, ManifestError};

    const WHOLE: &str = r#"{
  "format_version": "2.0",
  "install": {
    "env_vars": { "A": "b" }
  },
  "code": {
    "name": "word-count",
    "version": "1.0.0",
    "runtime": {
      "kind": "executable",
      "program": "wc",
      "actions": {
        "count": {
          "parameters": {
            "text": { "type": "string", "required": true }
          },
          "argv": ["-w"],
          "stdin": "{text}",
          "result": "stdout_json"
        }
      }
    }
  },
  "overrides": {}
}"#;

    #[test]
    fn a_fault_of_form_is_told_at_the_line_where_it_stands() {
        Manifest::parse(WHOLE).expect("a manifest");
        let action = "code.runtime.actions.count";
        for (written, wrong, line, column, words) in [
            ("stdout_json", "stdout_jsn", 19, 21, format!("{action}.result: unknown variant `stdout_jsn`")),
            ("\"string\"", "\"strin\"", 15, 31, format!("{action}.parameters.text.type: unknown variant")),
            ("\"stdin\"", "\"stdn\"", 18, 19, format!("{action}.stdn: unknown field `stdn`")),
            ("[\"-w\"]", "\"-w\"", 17, 19, format!("{action}.argv: invalid type: string \"-w\"")),
            ("[\"-w\"]", "[\"-w\", 7]", 17, 26, format!("{action}.argv.1: data did not match")),
            ("true }", "\"yes\" }", 15, 53, format!("{action}.parameters.text.required: invalid type")),
            ("    \"name\": \"word-count\",\n", "", 6, 11, "code: missing field `name`".to_owned()),
            ("\"word-count\"", "7", 7, 13, "code.name: invalid type: integer `7`".to_owned()),
            ("\"wc\"", "[]", 11, 18, "code.runtime.program: invalid type".to_owned()),
            ("\"executable\"", "\"executible\"", 10, 15, "code.runtime.kind: unknown variant".to_owned()),
            ("\"executable\"", "\"native\"", 12, 18, "code.runtime.actions: unknown field".to_owned()),
            ("\"b\"", "2", 4, 17, "install.env_vars: invalid type: integer `2`".to_owned()),
            ("\"overrides\": {}", "\"overrides\": []", 24, 16, "overrides: invalid type".to_owned()),
            ("\"stdin\"", "\"argv\": [], \"stdin\"", 18, 11, "duplicate field `argv`".to_owned()),
            ("\"2.0\"", "2.0", 2, 21, "format_version: invalid type: floating point".to_owned()),
            ("\"2.0\",", "\"2.0\"", 3, 3, "expected `,` or `}`".to_owned()),
        ] {
            let error = Manifest::parse(&WHOLE.replacen(written, wrong, 1)).expect_err(wrong);
            let ManifestError::Malformed { line: found, column: at, message } = error else {
                panic!("{wrong}: {error}");
            };
            assert_eq!((found, at), (line, column), "{wrong}: {message}");
            assert!(message.starts_with(&words), "{wrong}: {message}");
        }
    }
}
