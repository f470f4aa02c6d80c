//! The list of what to install, `capabilities.yaml`, as it is read.

use crate::error::EnvironmentError;
use cjm_platform::files::read_regular_to_string;
use cjm_wire::capabilities_file::{CapabilitiesFile, CapabilitiesFileError};
use std::path::Path;

/// Largest list, in bytes.
const LIST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Reads the list of capabilities.
///
/// # Errors
/// When it cannot be read or is not one.
pub fn read_capabilities(path: &Path) -> Result<CapabilitiesFile, EnvironmentError> {
    read(path, CapabilitiesFile::parse)
}

/// Reads it for who takes each entry by itself: what is wrong with one is its own `fault`.
///
/// # Errors
/// When it cannot be read or is no list.
pub fn read_each_capability(path: &Path) -> Result<CapabilitiesFile, EnvironmentError> {
    read(path, CapabilitiesFile::parse_each)
}

fn read(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<CapabilitiesFile, CapabilitiesFileError>,
) -> Result<CapabilitiesFile, EnvironmentError> {
    let text = read_regular_to_string(path, LIST_BYTES_MAX)
        .map_err(|source| EnvironmentError::CapabilitiesUnreadable { path: path.to_owned(), source })?;
    parse(&text).map_err(|source| EnvironmentError::CapabilitiesInvalid { path: path.to_owned(), source })
}
