//! What a tool's manifest declares (`worker_env`) and has no value here, as its worker would find it.

use crate::output::Output;
use crate::visible::one_line;
use cjm_catalog::{CatalogEntry, Settings};
use cjm_engine::{HostOptions, unset_variables};
use cjm_store::{FileSecrets, Secrets as _};
use cjm_wire::manifest::DeclaredVariable;
use serde_json::{Value, json};

/// A line for each, with the way to set it, as it must be typed here: elsewhere it would set it for another tool.
pub(crate) fn lines(entry: &CatalogEntry, settings: &Settings, output: &Output) -> String {
    let name = one_line(&entry.manifest.code.name);
    // One that is there and not this tool's is another manifest's of this name.
    let kept = FileSecrets::of(&settings.data_dir).names(None, &entry.manifest.code.name).unwrap_or_default();
    let force = |variable: &DeclaredVariable| if kept.contains(&variable.name) { " --force" } else { "" };
    let line = |variable: &DeclaredVariable| {
        let required = if variable.required { ", required" } else { "" };
        let variable_name = one_line(&variable.name);
        match variable.secret {
            true => output.typed(&format!(
                "  {variable_name} (secret{required}): not set; `cjm-ctl set-secret {name} {variable_name}{}` sets it\n",
                force(variable)
            )),
            false => format!(
                "  {variable_name}{}: not set; set it in {} (`install.env_vars`)\n",
                if variable.required { " (required)" } else { "" },
                one_line(&entry.path.display().to_string())
            ),
        }
    };
    match unset_variables(entry, &HostOptions::from(settings)) {
        Ok(unset) => unset.iter().map(line).collect(),
        Err(error) => format!("  Variables: {}\n", one_line(&error.to_string())),
    }
}

/// As a document has them; null where what is stored cannot be read.
pub(crate) fn document(entry: &CatalogEntry, settings: &Settings) -> Value {
    let as_json = |variable: &DeclaredVariable| json!({"name": variable.name, "secret": variable.secret, "required": variable.required});
    match unset_variables(entry, &HostOptions::from(settings)) {
        Ok(unset) => unset.iter().map(as_json).collect(),
        Err(_) => Value::Null,
    }
}
