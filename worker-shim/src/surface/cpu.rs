//! Processor use between two questions to `/stats`.

use cjm_platform::usage::UsageSample;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Processor use between two questions.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    last: Mutex<(Instant, f64)>,
}

impl CpuMeter {
    /// The first question is measured from now.
    pub(crate) fn new() -> Self {
        Self { last: Mutex::new((Instant::now(), 0.0)) }
    }

    /// Percent of one core since the previous question, one decimal.
    pub(crate) fn percent(&self, sample: &UsageSample) -> f64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let elapsed = now.duration_since(last.0).as_secs_f64();
        // A process that ended unseen takes its time with it, so the sum can fall.
        let used = (sample.cpu_seconds - last.1).max(0.0);
        *last = (now, sample.cpu_seconds);
        if elapsed > 0.0 { (used / elapsed * 1000.0).round() / 10.0 } else { 0.0 }
    }
}
