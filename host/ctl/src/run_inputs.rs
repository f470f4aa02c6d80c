//! The inputs of a composition, from the command line and its defaults: checked by kind, files found and made
//! absolute. Runs nothing.

use crate::assign::{Declared, absolute_text, existing_file};
use crate::fault::Fault;
use cjm_wire::composition::{Composition, Input, InputKind, MAP_ELEMENTS_MAX, in_short};
use cjm_wire::json::{Arguments, Json, JsonKind};
use std::path::{Path, PathBuf};

/// How the value of an input is read from `key=value`.
pub(crate) fn declared(composition: &Composition, name: &str) -> Declared {
    match composition.inputs.get(name).map(|input| input.kind) {
        Some(InputKind::String | InputKind::File | InputKind::Path) => Declared::Text,
        Some(InputKind::Number) => Declared::Number,
        Some(InputKind::Boolean) => Declared::Boolean,
        // A list of files may be given as JSON.
        Some(InputKind::Files | InputKind::Any) | None => Declared::Unknown,
    }
}

/// Every input of `composition`, from `given` and its defaults; relative paths start at `cwd`.
///
/// # Errors
/// When one is missing, unknown, of the wrong type, or names files that are not there.
pub(crate) fn resolve(composition: &Composition, given: &Arguments, cwd: &Path) -> Result<Arguments, Fault> {
    let known = || {
        let names: Vec<String> =
            composition.inputs.iter().map(|(name, input)| described(name, input)).collect();
        if names.is_empty() { "it takes none".to_owned() } else { format!("it takes {}", names.join(", ")) }
    };
    if let Some(name) = given.keys().find(|name| !composition.inputs.contains_key(*name)) {
        let message = format!("composition \"{}\" has no input `{name}`", composition.name);
        return Err(Fault::new("composition.input_unknown", message, known()));
    }
    let missing = |(name, input): &(&String, &Input)| !given.contains_key(*name) && input.default.is_none();
    let missing: Vec<(&String, &Input)> = composition.inputs.iter().filter(missing).collect();
    if !missing.is_empty() {
        return Err(not_given(&composition.name, &missing));
    }
    let mut resolved = Arguments::new();
    for (name, input) in &composition.inputs {
        if let Some(value) = given.get(name).or(input.default.as_ref()) {
            resolved.insert(name.clone(), of_kind(name, input.kind, value, cwd)?);
        }
    }
    Ok(resolved)
}

/// All that are missing, so that nobody asks for one after the other.
fn not_given(composition: &str, missing: &[(&String, &Input)]) -> Fault {
    let named = missing.iter().map(|(name, input)| format!("`{}`", described(name, input)));
    let forms = missing.iter().map(|(name, input)| form(name, input.kind));
    let (inputs, them) = if missing.len() == 1 { ("input", "it") } else { ("inputs", "them") };
    Fault::new(
        "composition.input_missing",
        format!("composition \"{composition}\" needs the {inputs} {}", named.collect::<Vec<_>>().join(", ")),
        format!("give {them}: {}", forms.collect::<Vec<_>>().join(" ")),
    )
}

/// How an input is given.
fn form(name: &str, kind: InputKind) -> String {
    match kind {
        InputKind::File | InputKind::Path => format!("{name}=PATH"),
        InputKind::Files => format!("{name}=FOLDER (or a pattern such as {name}='*.wav')"),
        InputKind::Number => format!("{name}=NUMBER"),
        InputKind::Boolean => format!("{name}=true (or false)"),
        InputKind::String => format!("{name}=TEXT"),
        InputKind::Any => format!("{name}=VALUE (or {name}:=JSON)"),
    }
}

fn described(name: &str, input: &Input) -> String {
    if input.description.is_empty() { name.to_owned() } else { format!("{name} ({})", input.description) }
}

fn of_kind(name: &str, kind: InputKind, value: &Json, cwd: &Path) -> Result<Json, Fault> {
    let wrong = |wanted: &str| {
        Err(Fault::new(
            "composition.input_type",
            format!("the input `{name}` must be {wanted}, and is {}", in_short(value)),
            format!("give {}", form(name, kind)),
        ))
    };
    if kind == InputKind::Files {
        return files(name, value, cwd);
    }
    if let Some(wanted) = kind.misses(value) {
        return wrong(wanted);
    }
    match (kind, path_text(value)) {
        (InputKind::String, _) if value.kind() != JsonKind::Text => Ok(Json::of(value.text())),
        (InputKind::File, Some(path)) if cwd.join(&path).is_dir() => wrong("one file, not a folder"),
        (InputKind::File, Some(path)) => existing_file(name, &path, cwd).map(Json::of),
        (InputKind::Path, Some(path)) => absolute_text(name, &cwd.join(path)).map(Json::of),
        _ => Ok(value.clone()),
    }
}

/// A path that is all digits reads as a number.
fn path_text(value: &Json) -> Option<String> {
    match value.kind() {
        JsonKind::Text => value.as_text(),
        JsonKind::Number => Some(value.text().to_owned()),
        _ => None,
    }
}

fn files(name: &str, value: &Json, cwd: &Path) -> Result<Json, Fault> {
    let parts: Vec<String> = match value.items() {
        Some(items) => items.iter().filter_map(path_text).collect(),
        None => path_text(value).into_iter().collect(),
    };
    if parts.is_empty() {
        return Err(Fault::new(
            "composition.input_type",
            format!("the input `{name}` must be files, and is {}", in_short(value)),
            format!("give {name}=FOLDER, a pattern such as '*.wav', or {name}:='[\"a\", \"b\"]'"),
        ));
    }
    let mut found = Vec::new();
    for part in &parts {
        let path = cwd.join(part);
        if path.is_dir() {
            found.extend(files_in(&path).map_err(|error| unreadable(name, &path, &error))?);
        } else if part.contains(['*', '?']) && !path.exists() {
            let matching = matching(&path).map_err(|error| unreadable(name, &path, &error))?;
            if matching.is_empty() {
                return Err(none_found(name, &path, "no file matches"));
            }
            found.extend(matching);
        } else {
            existing_file(name, part, cwd)?;
            found.push(path.clone());
        }
        if found.len() > MAP_ELEMENTS_MAX {
            return Err(none_found(name, &path, &format!("there are more than {MAP_ELEMENTS_MAX} files in")));
        }
    }
    if found.is_empty() {
        return Err(none_found(name, &cwd.join(&parts[0]), "there is no file in"));
    }
    let mut texts: Vec<String> =
        found.iter().map(|path| absolute_text(name, path)).collect::<Result<_, _>>()?;
    texts.sort();
    texts.dedup();
    Ok(Json::of(texts))
}

fn none_found(name: &str, path: &Path, what: &str) -> Fault {
    Fault::new(
        "composition.input_files",
        format!("the input `{name}`: {what} {}", path.display()),
        "correct the path or the pattern (it is relative to the present directory)",
    )
}

fn unreadable(name: &str, path: &Path, error: &std::io::Error) -> Fault {
    none_found(name, path, "cannot read").caused_by(error)
}

/// Plain files of a folder, hidden ones left out.
fn files_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Files whose path matches; `*` and `?` stand for what lies between two slashes.
fn matching(pattern: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let text = part.as_os_str().to_string_lossy().into_owned();
        if !text.contains(['*', '?']) {
            for path in &mut found {
                path.push(part);
            }
            continue;
        }
        let mut next = Vec::new();
        for folder in &found {
            let listing = match std::fs::read_dir(folder) {
                Ok(listing) => listing,
                // Only the pattern's own beginning must be there; what it matched may be a file.
                Err(error) if found.len() == 1 => return Err(error),
                Err(_) => continue,
            };
            for entry in listing {
                let entry = entry?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if matches_pattern(&name, &text) && (!name.starts_with('.') || text.starts_with('.')) {
                    next.push(entry.path());
                }
            }
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    Ok(found)
}

/// `*` any run of characters, `?` any one.
fn matches_pattern(name: &str, pattern: &str) -> bool {
    let (name, pattern): (Vec<char>, Vec<char>) = (name.chars().collect(), pattern.chars().collect());
    let (mut at, mut star) = ((0, 0), None);
    while at.0 < name.len() {
        match pattern.get(at.1) {
            Some('*') => {
                star = Some(at);
                at.1 += 1;
            }
            Some(c) if *c == '?' || *c == name[at.0] => at = (at.0 + 1, at.1 + 1),
            _ => match star {
                Some((name_at, pattern_at)) => {
                    star = Some((name_at + 1, pattern_at));
                    at = (name_at + 1, pattern_at + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at.1..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn composition(inputs: &str) -> Composition {
        Composition::parse(&format!("name: t\ninputs: {inputs}\nnodes: {{}}\n")).expect("composition")
    }

    fn resolved(inputs: &str, given: Value, cwd: &Path) -> Result<Value, String> {
        let given = Json::from(given).fields().expect("an object");
        resolve(&composition(inputs), &given, cwd).map(|found| json!(found)).map_err(|fault| match fault {
            Fault::Shown(report) => format!("{}: {} → {}", report.code, report.message, report.next_step),
            Fault::OutputClosed => "closed".to_owned(),
        })
    }

    #[test]
    fn inputs_are_checked_by_kind_and_defaults_fill_in() {
        let root = Path::new("/");
        let inputs = "{s: {type: string}, n: {type: number, default: 3}, b: {type: boolean, default: false}, a: {default: [1]}}";
        assert_eq!(
            resolved(inputs, json!({"s": 7}), root),
            Ok(json!({"s": "7", "n": 3, "b": false, "a": [1]}))
        );
        for (given, part) in [
            (json!({}), "needs the input `s` → give it: s=TEXT"),
            (json!({"s": "x", "n": "x"}), " → give n=NUMBER"),
            (json!({"s": "x", "zzz": 1}), "no input `zzz` → it takes s, n, b, a"),
            (json!({"s": "x", "n": "x"}), "must be a number"),
            (json!({"s": "x", "b": 1}), "must be true or false"),
            (json!({"s": [1]}), "must be text"),
        ] {
            let error = resolved(inputs, given.clone(), root).expect_err("refused");
            assert!(error.contains(part), "{given}: {error}");
        }
    }

    #[test]
    fn all_inputs_that_are_missing_are_named_at_once() {
        let inputs =
            "{s: {type: string, description: what}, f: {type: file}, d: {default: 1}, n: {type: number}}";
        let error = resolved(inputs, json!({"n": 1}), Path::new("/")).expect_err("refused");
        assert!(error.contains("needs the inputs `s (what)`, `f` → give them: s=TEXT f=PATH"), "{error}");
    }

    #[test]
    fn files_come_from_folders_patterns_and_lists_sorted_and_absolute() {
        let folder = tempfile::tempdir().expect("tempdir");
        for name in ["b.wav", "a.wav", "c.txt", ".hidden.wav"] {
            std::fs::write(folder.path().join(name), "").expect("write");
        }
        std::fs::create_dir(folder.path().join("sub")).expect("mkdir");
        std::fs::write(folder.path().join("sub/d.wav"), "").expect("write");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let check = |given: Value, expected: &[&str]| {
            let expected: Vec<String> = expected.iter().map(|name| path(name)).collect();
            let found = resolved("{f: {type: files}}", json!({"f": given}), folder.path());
            assert_eq!(found, Ok(json!({"f": expected})), "{given}");
        };
        check(json!("."), &["./a.wav", "./b.wav", "./c.txt"].map(|name| &name[2..]));
        check(json!("*.wav"), &["a.wav", "b.wav"]);
        check(json!("?.wav"), &["a.wav", "b.wav"]);
        check(json!("*/*.wav"), &["sub/d.wav"]);
        check(json!(["c.txt", "*.wav", "a.wav"]), &["a.wav", "b.wav", "c.txt"]);
        for (given, part) in [
            (json!("nothing-*"), "no file matches"),
            (json!("missing.wav"), "is not there"),
            (json!([]), "must be files"),
            (json!("nowhere/*"), "cannot read"),
        ] {
            let error =
                resolved("{f: {type: files}}", json!({"f": given}), folder.path()).expect_err("refused");
            assert!(error.contains(part), "{error}");
        }
        let one = resolved("{f: {type: file}}", json!({"f": "a.wav"}), folder.path());
        assert_eq!(one, Ok(json!({"f": path("a.wav")})));
        assert!(resolved("{f: {type: file}}", json!({"f": "sub"}), folder.path()).is_err());
        let path_only = resolved("{f: {type: path}}", json!({"f": "later/x"}), folder.path());
        assert_eq!(path_only, Ok(json!({"f": path("later/x")})));
    }

    #[test]
    fn patterns_match_like_a_shells() {
        for (name, pattern, matched) in [
            ("Front_Left.wav", "*.wav", true),
            ("Front_Left.wav", "Front*", true),
            ("Front_Left.wav", "F*t_L?ft.*", true),
            ("a", "?", true),
            ("", "*", true),
            ("ab", "?", false),
            ("x.wave", "*.wav", false),
        ] {
            assert_eq!(matches_pattern(name, pattern), matched, "{name} {pattern}");
        }
    }
}
