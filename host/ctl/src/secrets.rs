//! `set-secret`, `list-secrets`, `remove-secret`: asks for values where nobody reads along, and prints names only.

use crate::cli::{Global, ListSecretsArgs, RemoveSecretArgs, SetSecretArgs};
use crate::fault::{CommandResult, Fault};
use crate::journaled;
use crate::output::{Output, path_text, quoted};
use cjm_catalog::suggestions::{in_words, suggestions};
use cjm_catalog::{Catalog, CatalogEntry, ManifestFolder, Settings};
use cjm_engine::{HostError, SECRET_BYTES_MIN, is_struck_out};
use cjm_platform::terminal::Hidden;
use cjm_store::owners::belongs_to;
use cjm_store::secrets::SECRET_BYTES_MAX;
use cjm_store::{FileSecrets, Secrets as _};
use cjm_wire::describe::{Described as _, exit, shell_word};
use cjm_wire::event::EventType;
use serde_json::json;
use std::io::Read;
use std::path::Path;

/// How the command line says "read it from standard input".
const STDIN_MARK: &str = "-";
/// Of a value on the command line.
const IN_HISTORY: &str =
    "note: a value given with --value stands in the shell's history and in the process list";
/// A running worker keeps the variables that it was started with.
const NEXT_START_HINT: &str = "A tool that runs now knows of it from its next start on.";

/// Runs `set-secret`.
pub(crate) async fn set(global: &Global, args: &SetSecretArgs, output: &Output) -> CommandResult {
    let settings = global.settings_to_write()?;
    let store = FileSecrets::of(&settings.data_dir);
    // Asked before the value is: nobody types a secret in vain.
    let owner = owner(&settings, args)?;
    store.refuse_links()?;
    let mut notes = Vec::new();
    if let Ok(entry) = &owner {
        spare_another(&settings, &store, entry, args)?;
        notes.extend(undeclared(entry, &args.key));
    }
    if args.scope.is_some() {
        notes.push(
            "note: a tool that is called here gets secrets without a scope, and not this one".to_owned(),
        );
    }
    let reaches_a_tool = notes.is_empty();
    if let Err(why) = &owner {
        let manifests = settings.manifests_dir();
        notes.push(format!(
            "note: {why}; the tool of {} gets the secret once it is there",
            manifests.display()
        ));
    }
    let owner = owner.ok();
    let is_asked_for = args.source.is_none() && args.value.is_none();
    if is_asked_for {
        notes.drain(..).for_each(|note| output.note(&note));
    }
    let value = value(args).await?;
    notes.extend(args.value.as_deref().filter(|value| *value != STDIN_MARK).map(|_| IN_HISTORY.to_owned()));
    notes.extend(told_short(&value));
    let (scope, manifest) = (args.scope.as_deref(), owner.as_ref().map(|entry| &entry.path));
    match manifest {
        Some(path) => store.set_for(scope, &args.capability, &args.key, &value, path)?,
        None => store.set(scope, &args.capability, &args.key, &value)?,
    }
    // Of what was refused there is nothing to note.
    notes.iter().for_each(|note| output.note(note));
    let payload = json!({"key": args.key, "scope": args.scope, "manifest": manifest.map(path_text)});
    let row = journaled::row(EventType::SecretSet, Some(&args.capability), payload);
    journaled::note(&settings.data_dir, vec![row], output);
    if output.json {
        output.document(&json!({
            "capability": args.capability, "key": args.key, "scope": args.scope, "path": path_text(store.path()),
            "manifest": manifest.map(path_text),
        }))?;
        return Ok(exit::OK);
    }
    output.line(&format!(
        "Stored secret {} for capability {} at {} (0600).",
        quoted(&args.key),
        quoted(&args.capability),
        store.path().display()
    ))?;
    if reaches_a_tool {
        output.line(NEXT_START_HINT)?;
    }
    Ok(exit::OK)
}

/// The manifest that the secret is for; why there is none, where the user keeps one for what is to come.
fn owner(settings: &Settings, args: &SetSecretArgs) -> Result<Result<CatalogEntry, String>, Fault> {
    let name = &args.capability;
    let folders = match &args.manifest {
        Some(file) => {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            vec![ManifestFolder::named(file.parent().unwrap_or(Path::new("/")))]
        }
        None => settings.manifest_dirs(),
    };
    let catalog = Catalog::discover(&folders);
    let is_meant = |entry: &&CatalogEntry| {
        args.manifest.as_ref().is_none_or(|file| file.file_name() == entry.path.file_name())
    };
    if let Some(entry) = catalog.get(name).filter(is_meant) {
        return Ok(Ok(entry.clone()));
    }
    let unread = catalog.may_be_unread(name);
    if let Some(file) = &args.manifest {
        // Another manifest beside it is not meant.
        let is_meant = |path: &Path| path.is_dir() || path.file_name() == file.file_name();
        if let Some(unread) = unread.filter(|unread| is_meant(&unread.path)) {
            return Err(unread.into());
        }
        let message = format!("{} is not the manifest of a capability {}", file.display(), quoted(name));
        let next = format!("`cjm-ctl validate {}` says what it is", shell_word(&file.to_string_lossy()));
        return Err(Fault::new("secrets.manifest", message, next));
    }
    if args.force {
        let absent = format!("{} is not installed", quoted(name));
        return Ok(Err(unread.map_or(absent, |unread| unread.to_string())));
    }
    let next =
        "`cjm-ctl list` shows what is installed; `--force` keeps the secret for what is to be installed";
    Err(unknown(&catalog, name, next))
}

fn unknown(catalog: &Catalog, name: &str, next: &str) -> Fault {
    if let Some(withheld) = catalog.withheld_of(name) {
        return withheld.clone().into();
    }
    if let Some(problem) = catalog.problem_of(name).filter(|problem| !problem.is_unread()) {
        let (path, message) = (problem.path.clone(), problem.error.to_string());
        return HostError::BrokenManifest { name: name.to_owned(), path, message }.into();
    }
    if let Some(unread) = catalog.may_be_unread(name) {
        return unread.into();
    }
    let near = suggestions(name, catalog.entries().map(|entry| entry.manifest.code.name.as_str()));
    let message = format!("there is no capability {}{}", quoted(name), in_words(&near));
    Fault::new("secrets.unknown_capability", message, next)
}

/// There is one value of a name and key: one that is kept for another manifest is not lost by the way.
fn spare_another(
    settings: &Settings,
    store: &FileSecrets,
    entry: &CatalogEntry,
    args: &SetSecretArgs,
) -> Result<(), Fault> {
    let scope = args.scope.as_deref();
    if args.force || !store.names(scope, &args.capability)?.contains(&args.key) {
        return Ok(());
    }
    let recorded = store.owner_of(scope, &args.capability, &args.key)?;
    // One whose manifest is gone, as of a project that was moved, is nobody's.
    let is_gone = recorded.as_ref().is_some_and(|owner| !owner.exists());
    if is_gone || belongs_to(&settings.data_dir, recorded.as_deref(), &entry.path) {
        return Ok(());
    }
    let (key, name) = (quoted(&args.key), quoted(&args.capability));
    let other = recorded.unwrap_or_else(|| settings.manifests_dir());
    let message = format!("{key} of {name} is kept for another manifest of that name, {}", other.display());
    let next = format!("`--force` takes it over for {}; the other tool then has none", entry.path.display());
    Err(Fault::new("secrets.of_another", message, next))
}

/// What is told of a secret that the manifest does not declare: it reaches nobody.
fn undeclared(entry: &CatalogEntry, key: &str) -> Option<String> {
    let declared = || entry.manifest.code.worker_env.iter().flatten();
    let secrets: Vec<&str> =
        declared().filter(|variable| variable.secret).map(|variable| variable.name.as_str()).collect();
    if secrets.contains(&key) {
        return None;
    }
    let known = if secrets.is_empty() { "none".to_owned() } else { secrets.join(", ") };
    let what = match declared().any(|variable| variable.name == key) {
        true => "declares it as a variable that is no secret",
        false => "does not declare it",
    };
    Some(format!(
        "note: {} {what}, so its tool does not get it (declared secrets: {known}){}",
        entry.path.display(),
        in_words(&suggestions(key, secrets.into_iter()))
    ))
}

/// Runs `list-secrets`.
pub(crate) fn list(global: &Global, args: &ListSecretsArgs, output: &Output) -> CommandResult {
    let settings = global.settings()?;
    let store = FileSecrets::of(&settings.data_dir);
    let scope = args.scope.as_deref();
    let names = store.names(scope, &args.capability)?;
    let catalog = Catalog::discover(&settings.manifest_dirs());
    let entry = catalog.get(&args.capability);
    if entry.is_none() && names.is_empty() {
        // What is kept for a tool that is gone, or to come, is shown; a name that nobody knows is a slip.
        return Err(unknown(&catalog, &args.capability, "`cjm-ctl list` shows what is installed"));
    }
    if entry.is_none()
        && let Some(unread) = catalog.may_be_unread(&args.capability)
    {
        output.error(&format!("warning: {unread}\n  next: {}", unread.next_step()));
    }
    let undeclared: Vec<&String> = names.iter().filter(|name| is_undeclared(entry, name)).collect();
    let owner = |name: &String| store.owner_of(scope, &args.capability, name);
    let owners = names.iter().map(owner).collect::<Result<Vec<_>, _>>()?;
    if output.json {
        let manifests: serde_json::Map<_, _> = names
            .iter()
            .zip(&owners)
            .map(|(name, owner)| (name.clone(), json!(owner.as_ref().map(path_text))))
            .collect();
        output.document(&json!({
            "capability": args.capability, "scope": args.scope, "keys": names, "manifests": manifests,
            "undeclared": undeclared,
        }))?;
        return Ok(exit::OK);
    }
    let capability = quoted(&args.capability);
    if names.is_empty() {
        output.line(&format!("No secrets stored for {capability}."))?;
        return Ok(exit::OK);
    }
    output.line(&format!("Secrets for {capability} ({}):", names.len()))?;
    for (name, owner) in names.iter().zip(&owners) {
        let whose = whose(&settings, entry, owner.as_deref());
        let reach = match undeclared.contains(&name) {
            true => "  (not declared as a secret by the manifest: its tool does not get it)",
            false => "",
        };
        output.line(&format!("  - {name}{whose}{reach}"))?;
    }
    Ok(exit::OK)
}

/// Of a tool that is installed, a name that reaches nobody.
fn is_undeclared(entry: Option<&CatalogEntry>, name: &str) -> bool {
    let is_declared = |entry: &CatalogEntry| {
        entry.manifest.code.worker_env.iter().flatten().any(|known| known.secret && known.name == name)
    };
    entry.is_some_and(|entry| !is_declared(entry))
}

/// Said where it is not the tool's that has the name now.
fn whose(settings: &Settings, entry: Option<&CatalogEntry>, owner: Option<&Path>) -> String {
    match (owner, entry) {
        (Some(owner), _) if !owner.exists() => format!("  (set for {}, which is gone)", owner.display()),
        (_, Some(entry)) if belongs_to(&settings.data_dir, owner, &entry.path) => String::new(),
        (Some(owner), _) => format!("  (set for {})", owner.display()),
        (None, Some(_)) => format!("  (set for a manifest in {})", settings.manifests_dir().display()),
        (None, None) => String::new(),
    }
}

/// Runs `remove-secret`.
pub(crate) fn remove(global: &Global, args: &RemoveSecretArgs, output: &Output) -> CommandResult {
    let settings = global.settings_to_write()?;
    let store = FileSecrets::of(&settings.data_dir);
    let capability = quoted(&args.capability);
    let kept_for = store.owner_of(args.scope.as_deref(), &args.capability, &args.key)?;
    if !store.remove(args.scope.as_deref(), &args.capability, &args.key)? {
        let message = format!("no secret {} is stored for {capability}", quoted(&args.key));
        let next = format!("`cjm-ctl list-secrets {}` shows which there are", args.capability);
        return Err(Fault::new("secrets.not_there", message, next));
    }
    let payload = json!({"key": args.key, "scope": args.scope});
    let row = journaled::row(EventType::SecretRemoved, Some(&args.capability), payload);
    journaled::note(&settings.data_dir, vec![row], output);
    if output.json {
        output.document(&json!({"capability": args.capability, "key": args.key, "scope": args.scope}))?;
        return Ok(exit::OK);
    }
    let kept_for =
        kept_for.map(|manifest| format!(", which was kept for {}", manifest.display())).unwrap_or_default();
    output.line(&format!("Removed secret {} of capability {capability}{kept_for}.", quoted(&args.key)))?;
    let catalog = Catalog::discover(&settings.manifest_dirs());
    let entry = catalog.get(&args.capability);
    if entry.is_some() && !is_undeclared(entry, &args.key) {
        output.line(NEXT_START_HINT)?;
    }
    Ok(exit::OK)
}

/// Of a value that the tool may print in the clear: all of it, or lines of it, since a tool prints line by line.
fn told_short(value: &str) -> Option<String> {
    let lines = || value.lines().filter(|line| !line.trim().is_empty());
    let (all, short) = (lines().count(), lines().filter(|line| !is_struck_out(line)).count());
    let what = match (all, short) {
        (1.., 0) => return None,
        (0 | 1, _) => format!("the value has fewer than {SECRET_BYTES_MIN} bytes, so it is"),
        (all, short) if all == short => {
            format!("each line of the value has fewer than {SECRET_BYTES_MIN} bytes, so they are")
        }
        (all, 1) => {
            format!("1 of the {all} lines of the value has fewer than {SECRET_BYTES_MIN} bytes, so it is")
        }
        (all, short) => {
            format!(
                "{short} of the {all} lines of the value have fewer than {SECRET_BYTES_MIN} bytes, so they are"
            )
        }
    };
    Some(format!("note: {what} not struck out of what the tool prints"))
}

async fn value(args: &SetSecretArgs) -> Result<String, Fault> {
    match (args.source.as_deref(), args.value.as_deref()) {
        (Some(STDIN_MARK), None) | (None, Some(STDIN_MARK)) => from_stdin(args).await,
        (Some(_), _) => Err(Fault::usage(
            "a value does not stand on the command line by itself",
            "leave it out to be asked for it, or give `-` and the value on standard input",
        )),
        (None, Some("")) => Err(nothing_given("the value is empty", args)),
        (None, Some(value)) => Ok(value.to_owned()),
        (None, None) => asked(args).await,
    }
}

/// Where no value was given: nothing stands in place of a secret but its removal.
fn nothing_given(what: &str, args: &SetSecretArgs) -> Fault {
    let (name, key) = (shell_word(&args.capability), shell_word(&args.key));
    let scope = args.scope.as_ref().map(|scope| format!(" --scope {}", shell_word(scope)));
    let scope = scope.unwrap_or_default();
    let next = format!("give a value; `cjm-ctl remove-secret {name} {key}{scope}` takes one away");
    Fault::new("secrets.empty", format!("{what}; no secret was stored"), next)
}

/// On the terminal, without echo. Dropping this brings the echo back.
async fn asked(args: &SetSecretArgs) -> Result<String, Fault> {
    let failed = |error: &std::io::Error| {
        Fault::new(
            "secrets.terminal",
            "the value cannot be read from the terminal",
            "give `-` and the value on standard input",
        )
        .caused_by(error)
    };
    let question = format!("Value for {}/{}: ", args.capability, args.key);
    let Some(hidden) = Hidden::ask(&question).map_err(|error| failed(&error))? else {
        let next = "give `-` and the value on standard input: `… | cjm-ctl set-secret CAPABILITY KEY -`";
        return Err(Fault::usage("there is no terminal to ask for the value on", next));
    };
    let answer = hidden.reader().map_err(|error| failed(&error))?;
    let line = tokio::task::spawn_blocking(move || answer.line()).await;
    drop(hidden);
    match line {
        Ok(Ok(line)) if line.is_empty() => {
            Err(Fault::new("secrets.empty", "nothing was typed; no secret was stored", "run it again"))
        }
        Ok(line) => line.map_err(|error| failed(&error)),
        Err(error) => Err(failed(&std::io::Error::other(error))),
    }
}

/// All of standard input, without the line's end that `echo` leaves.
async fn from_stdin(args: &SetSecretArgs) -> Result<String, Fault> {
    let reading = tokio::task::spawn_blocking(|| {
        let mut text = String::new();
        // One more than is accepted, so that what is too long is refused and not cut off.
        std::io::stdin().lock().take(SECRET_BYTES_MAX as u64 + 3).read_to_string(&mut text).map(|_| text)
    });
    let text = reading.await.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(|error| {
        Fault::new("secrets.stdin", "the value cannot be read from standard input", "see that it is text")
            .caused_by(&error)
    })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(nothing_given("standard input was empty", args));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_of_a_value_a_tool_may_print_in_the_clear_is_told() {
        for (value, told) in [
            ("long enough", None),
            ("long enough\n\nthis one, too\n", None),
            ("hush", Some("the value has fewer than 8 bytes, so it is")),
            ("  hush         ", Some("the value has fewer than 8 bytes, so it is")),
            ("          ", Some("the value has fewer than 8 bytes, so it is")),
            ("pin1234\npin5678", Some("each line of the value has fewer than 8 bytes, so they are")),
            ("user\nlong enough", Some("1 of the 2 lines of the value has fewer than 8 bytes, so it is")),
            (
                "a\r\nb\r\nlong enough",
                Some("2 of the 3 lines of the value have fewer than 8 bytes, so they are"),
            ),
        ] {
            let told = told.map(|told| format!("note: {told} not struck out of what the tool prints"));
            assert_eq!(told_short(value), told, "{value:?}");
        }
    }
}
