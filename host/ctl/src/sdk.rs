//! Where the Python SDK lies: `install-all` runs its introspection inside the environments it makes.

use crate::fault::Fault;
use std::path::PathBuf;

/// Variable that names the folder holding `cjm_sdk`, for those who change the SDK.
const SDK_VARIABLE: &str = "CJM_PYTHON_SDK";

/// The folder that holds the package `cjm_sdk`.
///
/// # Errors
/// When it is not there.
pub(crate) fn python_sdk() -> Result<PathBuf, Fault> {
    let told = std::env::var_os(SDK_VARIABLE).map(PathBuf::from);
    let folder = told
        .unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../worker-shim/python")));
    if folder.join("cjm_sdk/introspect.py").is_file() {
        return Ok(folder);
    }
    let message = format!("the Python SDK is not in {}", folder.display());
    Err(Fault::new("ctl.no_sdk", message, format!("point {SDK_VARIABLE} to the folder that holds cjm_sdk")))
}
