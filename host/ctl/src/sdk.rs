//! Where the Python SDK lies: `install-all` runs its introspection inside the environments it makes.

use crate::fault::Fault;
use std::path::{Path, PathBuf};

/// Variable that names the folder holding `cjm_sdk`, for those who change the SDK.
const SDK_VARIABLE: &str = "CJM_PYTHON_SDK";
/// Where it goes below the data directory when the user has no cache that can be written.
const FALLBACK: &str = "tools";

/// The folder that holds the package `cjm_sdk`; unpacked first where that is needed.
///
/// # Errors
/// When it cannot be written anywhere.
pub(crate) fn python_sdk(data_dir: &Path) -> Result<PathBuf, Fault> {
    if let Some(told) = std::env::var_os(SDK_VARIABLE).map(PathBuf::from) {
        if told.join("cjm_sdk/introspect.py").is_file() {
            return Ok(told);
        }
        let message = format!("{SDK_VARIABLE} is {}, which does not hold cjm_sdk", told.display());
        return Err(Fault::new("ctl.no_sdk", message, "correct the variable, or unset it"));
    }
    cjm_worker::unpack_python_sdk(&data_dir.join(FALLBACK)).map_err(|error| {
        Fault::new(
            "ctl.no_sdk",
            "the Python SDK cannot be unpacked",
            "make ~/.cache or the data directory writable",
        )
        .caused_by(&error)
    })
}
