//! Diagnostics that nobody keeps, for hosts without a store: those of tests.

use crate::diagnostics::{Diagnostics, DroppedCounts, Flushing};
use crate::records::{DiagnosticRecord, StreamChunk};

/// Takes everything and keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDiagnostics;

impl Diagnostics for NoDiagnostics {
    fn record(&self, _: DiagnosticRecord) -> bool {
        true
    }

    fn chunk(&self, _: StreamChunk) -> bool {
        true
    }

    fn dropped(&self) -> DroppedCounts {
        DroppedCounts::default()
    }

    fn flush(&self) -> Flushing {
        Box::pin(async {})
    }

    fn close(&self) {}
}
