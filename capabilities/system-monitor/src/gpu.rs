//! What the machine's GPUs have and use. Without a vendor's library there is none, and every figure says so.
//!
//! Everything else asks only here: a library that can answer is one more branch of [`sample`].

/// All GPUs of the machine, together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GpuSample {
    /// `none`, or who made them.
    pub(crate) kind: &'static str,
    /// MB (2^20 bytes) that are free.
    pub(crate) free_memory_mb: f64,
    /// MB that there are.
    pub(crate) total_memory_mb: f64,
    /// How busy they are, 0 to 100; None where nobody says.
    pub(crate) load_percent: Option<f64>,
}

/// What one process has on a GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GpuShare {
    /// MB it holds.
    pub(crate) memory_mb: f64,
    /// On which GPU; None when on none.
    pub(crate) index: Option<u32>,
}

/// The GPUs now.
pub(crate) fn sample() -> GpuSample {
    GpuSample { kind: "none", free_memory_mb: 0.0, total_memory_mb: 0.0, load_percent: None }
}

/// What process `_pid` has on them now.
pub(crate) fn share_of(_pid: u32) -> GpuShare {
    GpuShare { memory_mb: 0.0, index: None }
}
