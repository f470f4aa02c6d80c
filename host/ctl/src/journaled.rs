//! Rows of what commands do without a host: who installed, removed, allowed or kept what, in the journal of the data
//! directory, if it has one. And the other way round: what a running host has in use.

use crate::assign::lock_not_asked;
use crate::fault::Fault;
use crate::output::Output;
use cjm_catalog::Settings;
use cjm_engine::actor;
use cjm_environments::{InUse, running_host};
use cjm_platform::lock::host_process;
use cjm_store::{JournalReader, StoreError, note_command};
use cjm_wire::event::{EventType, JournalRow};
use serde_json::Value;
use std::path::Path;

/// One row: what was done to a capability, if to one, and the rest.
pub(crate) fn row(kind: EventType, capability: Option<&str>, payload: Value) -> JournalRow {
    let payload = match payload {
        Value::Object(payload) => payload,
        _ => serde_json::Map::new(),
    };
    let mut row = JournalRow::new(kind, payload);
    row.capability_name = capability.map(str::to_owned);
    row.actor = Some(actor("cjm-ctl"));
    row
}

/// Writes them down. What was done is done: where it cannot be written down, that is told and no failure.
pub(crate) fn note(data_dir: &Path, rows: Vec<JournalRow>, output: &Output) {
    if rows.is_empty() {
        return;
    }
    if let Err(error) = note_command(data_dir, rows) {
        output.error(&format!("warning: the journal has no row of this: {error}"));
    }
}

/// Whoever installs with the settings of a project has allowed the programs they name, as they stand there now.
pub(crate) fn remember_settings(settings: &Settings, output: &Output) {
    if let Err(error) = settings.allow_programs() {
        output.note(&format!("note: that these settings were used cannot be kept: {error}"));
    }
}

/// The host that runs on this directory, and the capabilities whose workers it has now.
///
/// # Errors
/// When its journal cannot be read.
pub(crate) fn in_use(data_dir: &Path) -> Result<Option<InUse>, Fault> {
    let holder = running_host(data_dir).map_err(|error| lock_not_asked(&error))?;
    let Some(holder) = holder else { return Ok(None) };
    let workers = match JournalReader::open(data_dir).and_then(|reader| reader.living_workers()) {
        Ok(workers) => workers,
        Err(StoreError::NothingYet { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let capabilities = workers.into_iter().map(|worker| worker.capability_name).collect();
    let pid = host_process(data_dir, &holder).map(|pid| pid.as_raw());
    Ok(Some(InUse { holder, pid, capabilities }))
}
