//! Whether there is a program to run, asked before anything waits for it.

use crate::tool::failures::failure;
use cjm_wire::channel::LoadFailure;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Fails with what to do about it.
pub(crate) fn check_program(program: &Path) -> Result<(), LoadFailure> {
    let shown = program.display();
    if !program.is_absolute() {
        return Err(failure(&format!("the program {shown} is not an absolute path")));
    }
    let meta = std::fs::metadata(program).map_err(|error| {
        failure(&format!("the program {shown} cannot be used ({error}); install it, or correct the manifest"))
    })?;
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return Err(failure(&format!("{shown} is no executable file; correct the manifest, or chmod +x it")));
    }
    Ok(())
}
