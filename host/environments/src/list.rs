//! The list of what to install, `capabilities.yaml`, as it is read.

use crate::error::EnvironmentError;
use cjm_wire::capabilities_file::CapabilitiesFile;
use std::path::Path;

/// Reads the list of capabilities.
///
/// # Errors
/// When it cannot be read or is not one.
pub fn read_capabilities(path: &Path) -> Result<CapabilitiesFile, EnvironmentError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| EnvironmentError::CapabilitiesUnreadable { path: path.to_owned(), source })?;
    CapabilitiesFile::parse(&text)
        .map_err(|source| EnvironmentError::CapabilitiesInvalid { path: path.to_owned(), source })
}
