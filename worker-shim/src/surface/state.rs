//! What all handlers of the surface share.

use super::Identity;
use super::cpu::CpuMeter;
use crate::calls::Calls;
use crate::tool::{CancelScope, Tool};
use cjm_wire::envelope::CancelRequest;

/// What the handlers of one worker share.
#[derive(Debug)]
pub(crate) struct Surface {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) identity: Identity,
    /// The tool's own process, where it has one that lives as long as the worker.
    pub(crate) tool_pid: Option<u32>,
    pub(crate) tool: Tool,
    pub(crate) calls: Calls,
    pub(crate) cpu: CpuMeter,
}

impl Surface {
    /// Asks the tool to stop the call of a job, or all.
    pub(crate) fn cancel(&self, request: &CancelRequest) {
        let job_id = request.job_id.as_ref().map(|job| job.as_str());
        let calls = self.calls.cancel(job_id);
        let scope = if job_id.is_none() { CancelScope::All } else { CancelScope::These };
        self.tool.cancel(&calls, scope);
    }
}
