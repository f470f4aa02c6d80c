//! `remove`: says what will go, asks, and takes a capability away.

use crate::cli::{Global, RemoveArgs};
use crate::confirm::confirm;
use crate::fault::{CommandResult, Fault};
use crate::journaled;
use crate::output::{Output, path_text};
use cjm_environments::{Claim, InUse, Place, Removal, plan_removal};
use cjm_wire::describe::exit;
use cjm_wire::event::EventType;
use serde_json::json;

/// Runs the command.
pub(crate) async fn run(global: &Global, args: &RemoveArgs, output: &Output) -> CommandResult {
    let settings = global.settings()?;
    let removal = plan_removal(&settings, &args.capability, args.capabilities.as_deref()).await?;
    let takes_environment = removal.takes_environment() && !args.keep_env;
    let spare_what_runs = || match takes_environment && !args.while_running {
        true => Ok(InUse::check(journaled::in_use(&settings.data_dir)?.as_ref(), &args.capability)?),
        false => Ok::<(), Fault>(()),
    };
    spare_what_runs()?;
    if !output.json {
        show(&removal, args.keep_env, output)?;
    }
    if !args.yes && !confirm("Proceed with removal?", output).await? {
        output.line("Aborted.")?;
        return Ok(exit::OK);
    }
    let claim = removal.claim()?;
    // The question may have stood there for hours.
    spare_what_runs()?;
    if takes_environment {
        take_environment(&removal, &claim, output).await?;
    }
    say(output, &format!("Removing manifest: {}...", removal.manifest.display()))?;
    removal.remove_manifest()?;
    let payload = json!({
        "manifest": path_text(&removal.manifest), "environment": removal.environment.path().map(path_text),
        "environment_removed": takes_environment,
    });
    let row = journaled::row(EventType::CapabilityRemoved, Some(&removal.capability), payload);
    journaled::note(&settings.data_dir, vec![row], output);
    let file = removal.manifest.file_name().unwrap_or_default().to_string_lossy().into_owned();
    say(output, &format!("  Removed: {file}"))?;
    say(output, &format!("\nCapability '{}' removed successfully.", args.capability))?;
    if output.json {
        output.document(&json!({
            "capability": removal.capability,
            "manifest": path_text(&removal.manifest),
            "env_name": removal.env_name,
            "environment": removal.environment.path().map(path_text),
            "environment_removed": takes_environment,
            "shared_with": removal.shared_with,
            "adapters_removed": removal.adapters.iter().filter(|_| takes_environment).map(path_text).collect::<Vec<_>>(),
        }))?;
    }
    Ok(exit::OK)
}

fn show(removal: &Removal, keep: bool, output: &Output) -> Result<(), Fault> {
    output.line(&format!("=== Remove Capability: {} ===\n", removal.capability))?;
    output.line(&format!("Manifest: {}", removal.manifest.display()))?;
    let (label, _) = words(removal);
    let text = match &removal.env_name {
        None => "(not specified)".to_owned(),
        Some(name) if !removal.environment.exists() => format!("{name} (does not exist)"),
        Some(name) if keep => format!("{name} (will be kept)"),
        Some(name) if !removal.shared_with.is_empty() => {
            format!("{name} (will be kept: {} lives there too)", removal.shared_with.join(", "))
        }
        Some(name) => format!("{name} (will be removed)"),
    };
    output.line(&format!("{label}: {text}"))?;
    if removal.takes_environment() && !keep {
        for adapter in &removal.adapters {
            output.line(&format!("Adapter: {} (will be removed)", adapter.display()))?;
        }
    }
    output.line("")
}

async fn take_environment(removal: &Removal, claim: &Claim, output: &Output) -> Result<(), Fault> {
    let name = removal.env_name.as_deref().unwrap_or_default();
    let (_, what) = words(removal);
    say(output, &format!("Removing {what}: {name}..."))?;
    removal.remove_environment(claim, &|line| output.note(line)).await?;
    say(output, &format!("  Removed: {name}"))
}

/// What an environment is called: the ancestor knows conda's alone.
fn words(removal: &Removal) -> (&'static str, &'static str) {
    match removal.environment {
        Place::Own(_) => ("Environment", "environment"),
        Place::Conda(..) | Place::Missing => ("Conda env", "conda environment"),
    }
}

fn say(output: &Output, text: &str) -> Result<(), Fault> {
    if output.json { Ok(()) } else { output.line(text) }
}
