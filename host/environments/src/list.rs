//! The list of what to install, `capabilities.yaml`, as it is read.

use crate::error::EnvironmentError;
use cjm_platform::files::read_regular_to_string;
use cjm_wire::capabilities_file::CapabilitiesFile;
use std::path::Path;

/// Largest list, in bytes.
const LIST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Reads the list of capabilities.
///
/// # Errors
/// When it cannot be read or is not one.
pub fn read_capabilities(path: &Path) -> Result<CapabilitiesFile, EnvironmentError> {
    let text = read_regular_to_string(path, LIST_BYTES_MAX)
        .map_err(|source| EnvironmentError::CapabilitiesUnreadable { path: path.to_owned(), source })?;
    CapabilitiesFile::parse(&text)
        .map_err(|source| EnvironmentError::CapabilitiesInvalid { path: path.to_owned(), source })
}
