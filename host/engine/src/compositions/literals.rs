//! Arguments and keys of configurations that a document writes out and that a tool is known to refuse by its manifest, before
//! anything is started. Of what a manifest does not tell, only the tool's own code knows whether it is taken.

use crate::error::HostError;
use crate::host::Host;
use cjm_decide::composition::{DeclaredTools, literal_faults};
use cjm_wire::composition::Composition;
use cjm_wire::describe::Described;
use cjm_workers::effective_config;

/// Refuses the first of them.
pub(super) fn check_literals(host: &Host, composition: &Composition) -> Result<(), HostError> {
    let mut tools = DeclaredTools::default();
    for (name, node) in &composition.nodes {
        let Some(entry) = host.catalog().get(&node.capability) else { continue };
        if let Some(error) = literal_faults(name, node, &entry.manifest, &mut tools).first() {
            return Err(HostError::Graph {
                message: error.to_string(),
                code: error.code(),
                next_step: error.next_step(),
            });
        }
    }
    for (name, wanted) in &composition.capabilities {
        if let Some(entry) = host.catalog().get(name) {
            effective_config(&entry.manifest, wanted.config.as_ref(), false)?;
        }
    }
    Ok(())
}
