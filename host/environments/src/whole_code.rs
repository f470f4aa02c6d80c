//! All of `code` of a `manifest:` entry, which both its source and the user may write: settled value by value as
//! `user_values` says.
//!
//! What must hold: what comes out is a manifest; and nothing that the user wrote goes without a word.

use crate::user_values::{
    DECLARED, Section, Settled, Tells, WORDS, declared, said_before, take_record, write_record,
};
use cjm_wire::Manifest;
use cjm_wire::manifest::{Code, MANIFEST_BYTES_MAX};
use serde_json::{Map, Value};
use std::path::Path;

/// The largest `code` that is written down a second time, as text: the manifest must stay one that can be read.
const RECORD_BYTES_MAX: usize = MANIFEST_BYTES_MAX / 4;

/// Settles all of `code` of a `manifest:` entry, which is as its source has it and as an installation completes it, but for
/// its name, which the file has. What the source said is written down; two halves that make no manifest are not joined.
pub(crate) fn settle_whole_code(
    manifest: &mut Manifest,
    installed: Option<&Manifest>,
    target: &Path,
) -> Settled {
    let mut settled = Settled::default();
    let theirs = tree_of(&manifest.code);
    // What was written down of a class is not all of it.
    let known = |installed: &Manifest| {
        said_before(installed, WORDS, &theirs).is_some_and(|said| said.contains_key("version"))
    };
    // Another kind of tool of which nothing is known was another tool: nothing in it is anybody's change of this one.
    let is_this = |of: &&Manifest| known(of) || of.runtime().kind() == manifest.runtime().kind();
    if let Some(installed) = installed.filter(is_this) {
        let section = Section { section: WORDS, target, tells: Tells::WhatTheUserLoses, is_deep: true };
        let mine = tree_of(&installed.code);
        let before = said_before(installed, WORDS, &theirs).filter(|_| known(installed));
        let result = section.settle("", before, &mine, theirs.clone(), &mut settled);
        if result != theirs {
            match joined(manifest, result) {
                Ok(code) => manifest.code = code,
                Err(reason) => {
                    settled = Settled::default();
                    settled.replaced.push(format!(
                        "{WORDS}: what was set by hand makes no manifest with what the source says now ({reason}): the \
                         source's is taken"
                    ));
                    section.settle("", None, &mine, theirs.clone(), &mut settled);
                }
            }
        }
    }
    let mut record = take_record(manifest);
    if Value::Object(theirs.clone()).to_string().len() <= RECORD_BYTES_MAX {
        record.insert(WORDS.to_owned(), Value::Object(theirs));
    }
    write_record(manifest, record);
    settled
}

/// The section as keys and values, its variables by their names.
fn tree_of(code: &Code) -> Map<String, Value> {
    let mut tree = match serde_json::to_value(code) {
        Ok(Value::Object(tree)) => tree,
        _ => Map::new(),
    };
    tree.shift_remove("name");
    if let Some(variables) = tree.get_mut(DECLARED) {
        *variables = Value::Object(declared(code));
    }
    tree
}

/// The section of a tree, where the manifest is one with it.
fn joined(manifest: &Manifest, mut tree: Map<String, Value>) -> Result<Code, String> {
    if let Some(Value::Object(variables)) = tree.get_mut(DECLARED).map(Value::take) {
        tree.insert(DECLARED.to_owned(), variables.into_iter().map(|(_, variable)| variable).collect());
    }
    tree.insert("name".to_owned(), Value::from(manifest.code.name.clone()));
    let code = serde_json::from_value(Value::Object(tree)).map_err(|error| error.to_string())?;
    let whole = Manifest { code, ..manifest.clone() };
    let read = Manifest::parse(&whole.to_file_text()).map_err(|error| error.to_string())?;
    Ok(read.code)
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals are passed")]
mod tests {
    use super::*;
    use serde_json::json;

    fn program(actions: Value, description: &str) -> Manifest {
        let text = json!({"format_version": "2.0", "code": {"name": "shy", "version": "1", "description": description,
            "runtime": {"kind": "executable", "program": "/bin/sh", "actions": actions}}});
        Manifest::parse(&text.to_string()).expect("a manifest")
    }

    fn action(argv: &[&str], seconds: Option<f64>) -> Value {
        match seconds {
            Some(seconds) => json!({"argv": argv, "timeout_seconds": seconds}),
            None => json!({"argv": argv}),
        }
    }

    /// Installs a source over what is installed: the manifest then, and what is told.
    fn installed_again(mut source: Manifest, installed: &Manifest) -> (Manifest, Settled) {
        let told = settle_whole_code(&mut source, Some(installed), Path::new("/m/shy.json"));
        (source, told)
    }

    fn seconds(manifest: &Manifest, action: &str) -> Value {
        tree_of(&manifest.code)["runtime"]["actions"][action]["timeout_seconds"].clone()
    }

    #[test]
    fn what_was_written_by_hand_into_the_code_of_a_copy_stays_until_its_source_changes_the_same() {
        let source = || program(json!({"go": action(&["-c", "sleep 3"], Some(2.0))}), "It waits.");
        let mut installed = source();
        assert_eq!(settle_whole_code(&mut installed, None, Path::new("m")), Settled::default());
        assert_eq!(installed_again(source(), &installed), (installed.clone(), Settled::default()));
        let mut edited = installed.clone();
        edited.code = program(
            json!({"go": action(&["-c", "sleep 3"], Some(4.0)), "mine": action(&["-c", "true"], None)}),
            "Mine.",
        )
        .code;
        let (again, told) = installed_again(source(), &edited);
        assert_eq!((&again, told.replaced.len()), (&edited, 0));
        assert_eq!(
            told.kept,
            [
                "code description: Mine. stays, which was set by hand (the source says It waits.); change it under `code` in \
                 /m/shy.json",
                "code runtime.actions.go.timeout_seconds: 4 stays, which was set by hand (the source says 2); change it under \
                 `code` in /m/shy.json"
            ]
        );
        // Another key of the source changes: that is taken over, and no other.
        let other = || program(json!({"go": action(&["-c", "sleep 1"], Some(2.0))}), "It waits.");
        let (again, told) = installed_again(other(), &edited);
        assert_eq!(
            (seconds(&again, "go"), told.kept.len(), told.replaced.len()),
            (json!(4.0), 2, 0),
            "{told:?}"
        );
        let expected = program(
            json!({"go": action(&["-c", "sleep 1"], Some(4.0)), "mine": action(&["-c", "true"], None)}),
            "Mine.",
        );
        assert_eq!(again.code, expected.code);
        // The source changes the same.
        let same = || program(json!({"go": action(&["-c", "sleep 1"], Some(9.0))}), "It waits.");
        let (again, told) = installed_again(same(), &again);
        assert_eq!((seconds(&again, "go"), told.kept.len()), (json!(9.0), 1), "{told:?}");
        assert_eq!(told.replaced, ["code runtime.actions.go.timeout_seconds: 4 -> 9"]);
        // What was taken out stays out, and what nobody touched changes without a word.
        let (mut without, _) = installed_again(source(), &installed);
        without.code = program(json!({"go": action(&["-c", "sleep 3"], None)}), "It waits.").code;
        let (again, told) = installed_again(other(), &without);
        assert_eq!((seconds(&again, "go"), told.replaced.len()), (Value::Null, 0), "{told:?}");
        assert!(
            told.kept[0].contains("timeout_seconds: it stays left out") && told.kept.len() == 1,
            "{told:?}"
        );
        // Until the source changes it: then it comes back, which is told as any other loss.
        let (back, told) = installed_again(same(), &without);
        assert_eq!(seconds(&back, "go"), json!(9.0));
        assert_eq!(told.replaced, ["code runtime.actions.go.timeout_seconds: nothing -> 9"]);
    }

    #[test]
    fn what_was_replaced_wherever_it_stands_in_a_copy_stays_as_what_was_replaced_where_it_is_read() {
        let source = || program(json!({"go": action(&["-c", "sleep 3"], Some(2.0))}), "It waits.");
        let mut installed = source();
        assert_eq!(settle_whole_code(&mut installed, None, Path::new("m")), Settled::default());
        let text = serde_json::to_string(&installed).expect("text");
        assert_eq!(text.matches("\"timeout_seconds\":2.0").count(), 2, "{text}");
        let edited = Manifest::parse(&text.replace("\"timeout_seconds\":2.0", "\"timeout_seconds\":4.0"));
        let (again, told) = installed_again(source(), &edited.expect("a manifest"));
        assert_eq!(
            (seconds(&again, "go"), told.kept.len(), told.replaced.len()),
            (json!(4.0), 1, 0),
            "{told:?}"
        );
        // What is written down is the source's again.
        let changed = program(json!({"go": action(&["-c", "sleep 3"], Some(9.0))}), "It waits.");
        let (again, told) = installed_again(changed, &again);
        assert_eq!((seconds(&again, "go"), told.replaced.len()), (json!(9.0), 1), "{told:?}");
    }

    #[test]
    fn what_makes_no_manifest_together_is_not_joined_and_of_an_older_copy_the_source_has_all_of_the_code() {
        let with = |parameter: bool, stdin: Option<&str>| {
            let mut go = action(&["-c", "cat"], None);
            if parameter {
                go["parameters"] = json!({"text": {"type": "string"}});
            }
            if let Some(stdin) = stdin {
                go["stdin"] = stdin.into();
            }
            program(json!({"go": go}), "It says.")
        };
        let mut installed = with(true, None);
        settle_whole_code(&mut installed, None, Path::new("m"));
        let mut edited = installed.clone();
        edited.code = with(true, Some("{text}")).code;
        let (now, told) = installed_again(with(true, None), &edited);
        assert_eq!((&now.code, told), (&edited.code, Settled::default()), "a key of the copy alone");
        let (now, told) = installed_again(with(false, None), &edited);
        assert_eq!(now.code, with(false, None).code);
        assert!(told.replaced[0].contains("makes no manifest with what the source says now"), "{told:?}");
        assert!(told.replaced.iter().any(|line| line.contains("go.stdin: {text} is gone")), "{told:?}");
        // Nothing was written down: what the source does not name was its own as well as the user's.
        let older = program(
            json!({"go": action(&["-c", "x"], Some(4.0)), "old": action(&["-c", "x"], None)}),
            "It says.",
        );
        let (now, told) =
            installed_again(program(json!({"go": action(&["-c", "x"], Some(2.0))}), "It says."), &older);
        assert_eq!(now.code, program(json!({"go": action(&["-c", "x"], Some(2.0))}), "It says.").code);
        assert_eq!((told.replaced.len(), told.kept.len()), (2, 0), "{told:?}");
        let native = json!({"format_version": "2.0", "code": {"name": "shy", "version": "1", "description": "Mine.",
            "runtime": {"kind": "native", "program": "x"}}});
        let another = Manifest::parse(&native.to_string()).expect("a manifest");
        assert_eq!(
            installed_again(program(json!({"go": action(&["-c", "x"], None)}), "It says."), &another).1,
            Settled::default()
        );
    }
}
