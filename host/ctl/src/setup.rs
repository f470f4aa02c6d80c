//! `setup-host` and `setup-runtime`: say what they would do, and do it.

use crate::cli::{Global, SetupHostArgs, SetupRuntimeArgs};
use crate::confirm::confirm;
use crate::fault::{CommandResult, Fault};
use crate::journaled;
use crate::output::{Output, path_text};
use cjm_environments::{HostSetup, RuntimeSetup, read_capabilities};
use cjm_wire::describe::exit;
use cjm_wire::settings_file::CondaType;
use serde_json::json;
use std::path::Path;

/// Runs `setup-host`.
pub(crate) async fn host(global: &Global, args: &SetupHostArgs, output: &Output) -> CommandResult {
    let settings = global.settings()?;
    let list = args.capabilities.as_ref().unwrap_or(&settings.capabilities_config);
    let file = read_capabilities(list)?;
    let setup = HostSetup::of(&file, list)?;
    let document = |installed: bool| json!({"capabilities": path_text(list), "libraries": setup.libraries, "python": path_text(&setup.python), "installed": installed});
    if setup.libraries.is_empty() {
        say(output, "No interface libraries found in config.")?;
        return finish(output, &document(false));
    }
    say(output, &format!("Reading {}...", from_here(list).display()))?;
    say(output, &format!("Found {} unique interface libraries:", setup.libraries.len()))?;
    for library in &setup.libraries {
        say(output, &format!("  - {library}"))?;
    }
    say(output, "")?;
    output.note(&format!("They go into the environment of {}.", setup.python.display()));
    if args.dry_run {
        return finish(output, &document(false));
    }
    if !args.yes {
        confirm("Install these in the current Python environment?", output).await?;
    }
    setup.install(&|line| output.note(line)).await?;
    say(output, "\nHost environment setup complete.")?;
    finish(output, &document(true))
}

/// Runs `setup-runtime`.
pub(crate) async fn runtime(global: &Global, args: &SetupRuntimeArgs, output: &Output) -> CommandResult {
    let settings = global.settings()?;
    if settings.conda_type != CondaType::Micromamba {
        say(output, "Runtime setup is only needed for micromamba mode.")?;
        say(output, &format!("Current conda_type: {}", settings.conda_type.as_str()))?;
        say(output, "Set 'conda_type: micromamba' in cjm.yaml to use project-local runtime.")?;
        // The line above is the ancestor's, whose key stands below another.
        output.note("next: write `runtime: {conda_type: micromamba}` into cjm.yaml");
        return finish(
            output,
            &json!({
                "conda_type": settings.conda_type, "needed": false, "fetched": false, "platform": null,
                "destination": null, "url": null,
            }),
        );
    }
    let setup = RuntimeSetup::of(&settings)?;
    let document = |fetched: bool| {
        json!({
            "conda_type": settings.conda_type, "needed": true, "fetched": fetched,
            "platform": setup.platform, "destination": path_text(&setup.destination), "url": setup.url,
        })
    };
    if setup.destination.exists() && !args.force {
        say(output, &format!("Micromamba already installed at: {}", setup.destination.display()))?;
        say(output, "Use --force to re-download.")?;
        return finish(output, &document(false));
    }
    say(output, "=== Setup Runtime ===\n")?;
    say(output, &format!("Platform: {}", setup.platform))?;
    say(output, &format!("Destination: {}", setup.destination.display()))?;
    say(output, "")?;
    output.note(&format!("It comes from {}.", setup.url));
    if args.dry_run {
        return finish(output, &document(false));
    }
    setup.fetch(&|line| output.note(line)).await?;
    journaled::remember_settings(&settings, output);
    say(output, &format!("Micromamba installed to {}", setup.destination.display()))?;
    say(output, "\nRuntime setup complete!")?;
    finish(output, &document(true))
}

/// As a person in this folder would name it.
fn from_here(path: &Path) -> &Path {
    let Ok(cwd) = std::env::current_dir() else { return path };
    path.strip_prefix(cwd).unwrap_or(path)
}

fn say(output: &Output, text: &str) -> Result<(), Fault> {
    if output.json { Ok(()) } else { output.line(text) }
}

fn finish(output: &Output, document: &serde_json::Value) -> CommandResult {
    if output.json {
        output.document(document)?;
    }
    Ok(exit::OK)
}
