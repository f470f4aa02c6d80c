//! `regenerate-manifest` and `generate-adapter-manifest`: what is installed says once more what it is.

use crate::cli::{GenerateAdapterArgs, Global, RegenerateArgs};
use crate::fault::{CommandResult, Fault};
use crate::journaled;
use crate::output::{Output, path_text};
use crate::sdk;
use cjm_catalog::installation::install_all_step;
use cjm_environments::{GeneratedAdapter, generate_adapter_manifest, plan_regeneration};
use cjm_wire::describe::exit;
use cjm_wire::event::EventType;
use serde_json::json;
use std::path::Path;

/// Runs `regenerate-manifest`.
pub(crate) async fn manifest(global: &Global, args: &RegenerateArgs, output: &Output) -> CommandResult {
    let settings = global.settings_to_write()?;
    let (package, list) = (args.package.as_deref(), args.capabilities.as_deref());
    // A folder has the name of its package, which `.` does not tell.
    if let Some(folder) = package.filter(|package| Path::new(package).file_name().is_none()) {
        return Err(Fault::usage(
            format!("--package takes the name of an installed package, and `{folder}` is none"),
            "name the package as its pyproject.toml does, or leave --package out",
        ));
    }
    let planned = plan_regeneration(&settings, &args.capability, package, list).await?;
    // Only a Python tool has a module; of any other, what has no source was refused.
    let from = if planned.package.is_empty() { "its module" } else { &planned.package };
    output.note(&format!("Regenerating {} from {from} ({})...", args.capability, planned.source.as_str()));
    if Path::new(&planned.package).is_absolute() && !planned.package.ends_with(".json") {
        output.note(&format!(
            "what is installed of it is looked at: {} takes over what has changed in the folder since",
            install_all_step(planned.installed_by().as_deref())
        ));
    }
    let sdk = sdk::python_sdk(&settings.data_dir)?;
    let done = planned.regenerate(&sdk, &|_| {}).await?;
    let payload = json!({"manifest": path_text(&done.path), "changed": done.changed, "version": done.manifest.code.version});
    let row = journaled::row(EventType::ManifestRegenerated, Some(&args.capability), payload);
    journaled::note(&settings.data_dir, vec![row], output);
    for warning in &done.warnings {
        output.note(&format!("warning: {warning}"));
    }
    if output.json {
        output.document(&json!({
            "capability": done.manifest.code.name,
            "version": done.manifest.code.version,
            "manifest": path_text(&done.path),
            "package": planned.package,
            "package_from": planned.source.as_str(),
            "changed": done.changed,
            "values": done.values,
            "warnings": done.warnings,
        }))?;
    } else {
        output.line(&format!("✓ Regenerated manifest at {}", done.path.display()))?;
        for value in &done.values {
            output.line(&format!("  {value}"))?;
        }
    }
    Ok(exit::OK)
}

/// Runs `generate-adapter-manifest`.
pub(crate) async fn adapter(global: &Global, args: &GenerateAdapterArgs, output: &Output) -> CommandResult {
    let settings = global.settings_to_write()?;
    let sdk = sdk::python_sdk(&settings.data_dir)?;
    let GeneratedAdapter { path, adapter, warnings } =
        generate_adapter_manifest(&settings, &args.env_name, &args.target, &sdk, &|_| {}).await?;
    for warning in &warnings {
        output.note(&format!("warning: {warning}"));
    }
    if output.json {
        output.document(&json!({"manifest": path_text(&path), "adapter": adapter, "warnings": warnings}))?;
        return Ok(exit::OK);
    }
    output.line(&format!("Adapter manifest written: {}", path.display()))?;
    output.line(&format!("  task: {}  protocol: {}", adapter.task_name, adapter.required_tool_protocol))?;
    let members = &adapter.protocol_members;
    output.line(&format!(
        "  methods: {}  properties: {}",
        members.methods.len(),
        members.properties.len()
    ))?;
    Ok(exit::OK)
}
