//! What an entry asks of its interpreter, and which one it gets.

use crate::constraint::{Constraint, PythonVersion, SDK_NEEDS, Wanted};
use crate::error::EnvironmentError;
use crate::interpreters::{Interpreter, choose};
use cjm_wire::capabilities_file::Entry;

/// What it asks.
///
/// # Errors
/// When that cannot be read.
pub(crate) fn wanted(entry: &Entry) -> Result<Wanted, EnvironmentError> {
    let text = entry.python_version.as_deref().unwrap_or_default();
    let constraint =
        Constraint::parse(text).ok_or_else(|| EnvironmentError::BadConstraint(text.to_owned()))?;
    Ok(Wanted::new(constraint, entry.worker.is_default()))
}

/// The same, of one that the SDK may run on.
///
/// # Errors
/// As [`wanted`], and when it takes those alone that the SDK does not run on.
pub(crate) fn wanted_of_some(entry: &Entry) -> Result<Wanted, EnvironmentError> {
    wanted(entry)
        .and_then(|wanted| if wanted.takes_old_ones_alone() { Err(too_old(entry, None)) } else { Ok(wanted) })
}

/// The one that it gets.
///
/// # Errors
/// As [`wanted_of_some`], and when none of these is one that it takes.
pub(crate) fn interpreter<'i>(
    entry: &Entry,
    interpreters: &'i [Interpreter],
) -> Result<&'i Interpreter, EnvironmentError> {
    choose(interpreters, &wanted_of_some(entry)?).ok_or_else(|| {
        let wanted = entry.python_version.clone().unwrap_or_default();
        let found: Vec<String> = interpreters.iter().map(|found| found.version.to_string()).collect();
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        EnvironmentError::NoInterpreter { wanted, found }
    })
}

/// Refuses an interpreter that the SDK does not run on before anything is made for it. The ancestor's own worker, which
/// brings a library of its own, is nothing that it is loaded into.
pub(crate) fn check_age(entry: &Entry, version: PythonVersion) -> Result<(), EnvironmentError> {
    if version >= SDK_NEEDS || !entry.worker.is_default() {
        return Ok(());
    }
    Err(too_old(entry, Some(version)))
}

fn too_old(entry: &Entry, version: Option<PythonVersion>) -> EnvironmentError {
    EnvironmentError::OldInterpreter { version, wanted: entry.python_version.clone() }
}
