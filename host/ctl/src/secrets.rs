//! `set-secret`, `list-secrets`, `remove-secret`: asks for values where nobody reads along, and prints names only.

use crate::cli::{Global, ListSecretsArgs, RemoveSecretArgs, SetSecretArgs};
use crate::fault::{CommandResult, Fault};
use crate::output::{Output, quoted};
use cjm_platform::terminal::Hidden;
use cjm_store::secrets::SECRET_BYTES_MAX;
use cjm_store::{FileSecrets, Secrets as _};
use cjm_wire::describe::exit;
use serde_json::json;
use std::io::Read;

/// How the command line says "read it from standard input".
const STDIN_MARK: &str = "-";
/// What must happen before a running worker knows.
const RELOAD_HINT: &str =
    "Reload the capability (or restart the host) so its worker respawns with the new env.";

/// Runs `set-secret`.
pub(crate) async fn set(global: &Global, args: &SetSecretArgs, output: &Output) -> CommandResult {
    let store = FileSecrets::of(&global.settings()?.data_dir);
    let value = value(args, output).await?;
    store.set(args.scope.as_deref(), &args.capability, &args.key, &value)?;
    if output.json {
        output.document(&json!({
            "capability": args.capability, "key": args.key, "scope": args.scope, "path": store.path(),
        }))?;
        return Ok(exit::OK);
    }
    output.line(&format!(
        "Stored secret {} for capability {} at {} (0600).",
        quoted(&args.key),
        quoted(&args.capability),
        store.path().display()
    ))?;
    output.line(RELOAD_HINT)?;
    Ok(exit::OK)
}

/// Runs `list-secrets`.
pub(crate) fn list(global: &Global, args: &ListSecretsArgs, output: &Output) -> CommandResult {
    let store = FileSecrets::of(&global.settings()?.data_dir);
    let names = store.names(args.scope.as_deref(), &args.capability)?;
    if output.json {
        output.document(&json!({"capability": args.capability, "scope": args.scope, "keys": names}))?;
        return Ok(exit::OK);
    }
    let capability = quoted(&args.capability);
    if names.is_empty() {
        output.line(&format!("No secrets stored for {capability}."))?;
        return Ok(exit::OK);
    }
    output.line(&format!("Secrets for {capability} ({}):", names.len()))?;
    for name in names {
        output.line(&format!("  - {name}"))?;
    }
    Ok(exit::OK)
}

/// Runs `remove-secret`.
pub(crate) fn remove(global: &Global, args: &RemoveSecretArgs, output: &Output) -> CommandResult {
    let store = FileSecrets::of(&global.settings()?.data_dir);
    let capability = quoted(&args.capability);
    if !store.remove(args.scope.as_deref(), &args.capability, &args.key)? {
        let message = format!("no secret {} is stored for {capability}", quoted(&args.key));
        let next = format!("`cjm-ctl list-secrets {}` shows which there are", args.capability);
        return Err(Fault::new("secrets.not_there", message, next));
    }
    if output.json {
        output.document(&json!({"capability": args.capability, "key": args.key, "scope": args.scope}))?;
        return Ok(exit::OK);
    }
    output.line(&format!("Removed secret {} of capability {capability}.", quoted(&args.key)))?;
    output.line(RELOAD_HINT)?;
    Ok(exit::OK)
}

async fn value(args: &SetSecretArgs, output: &Output) -> Result<String, Fault> {
    match (args.source.as_deref(), args.value.as_deref()) {
        (Some(STDIN_MARK), None) | (None, Some(STDIN_MARK)) => from_stdin().await,
        (Some(_), _) => Err(Fault::usage(
            "a value does not stand on the command line by itself",
            "leave it out to be asked for it, or give `-` and the value on standard input",
        )),
        (None, Some(value)) => {
            output.note(
                "note: a value given with --value stands in the shell's history and in the process list",
            );
            Ok(value.to_owned())
        }
        (None, None) => asked(args).await,
    }
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
async fn from_stdin() -> Result<String, Fault> {
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
        let message = "standard input was empty; no secret was stored";
        return Err(Fault::new("secrets.empty", message, "give the value on standard input"));
    }
    Ok(text.to_owned())
}
