//! Arguments that a document writes out and that a program described by its manifest is known to refuse, before anything is
//! started. What a tool with code of its own takes, only that code knows.

use crate::error::HostError;
use crate::host::Host;
use cjm_decide::composition::argument_faults;
use cjm_wire::composition::Composition;
use cjm_wire::describe::Described;
use cjm_wire::runtime::{Executable, Runtime};

/// Refuses the first of them.
pub(super) fn check_literals(host: &Host, composition: &Composition) -> Result<(), HostError> {
    for (name, node) in composition.nodes.iter().filter(|(_, node)| node.task.is_none()) {
        let Some(entry) = host.catalog().get(&node.capability) else { continue };
        let Runtime::Executable(executable) = entry.manifest.runtime() else { continue };
        let actions = &executable.actions;
        let action = match &node.action {
            Some(named) => actions.get(named),
            None => actions.values().next().filter(|_| actions.len() == 1),
        };
        let Some(action) = action else { continue };
        let faults = argument_faults(name, node, &Executable::arguments_schema(action));
        if let Some(error) = faults.first() {
            return Err(HostError::Graph {
                message: error.to_string(),
                code: error.code(),
                next_step: error.next_step(),
            });
        }
    }
    Ok(())
}
