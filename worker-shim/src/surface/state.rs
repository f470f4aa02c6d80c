//! What all handlers of the surface share.

use super::Identity;
use super::cpu::CpuMeter;
use crate::calls::Calls;
use crate::tool::Tool;

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
