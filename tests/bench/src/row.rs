//! One line of the table: a figure, the floor it is held against, the goal, and what comes of it.
//!
//! What gates: ratios, counts and memory as they are written; absolute latencies and rates at [`ABSOLUTE_SLACK`] times,
//! because a slow machine is no fault of the product. What is only shown gates nothing.

use serde::{Deserialize, Serialize};

/// An absolute latency or rate misses its gate when it is worse than its goal by this factor.
pub(crate) const ABSOLUTE_SLACK: f64 = 5.0;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    /// Microseconds: lower is better.
    Micros,
    /// Milliseconds: lower is better.
    Millis,
    /// Per second: higher is better.
    PerSecond,
    /// Megabytes (10⁶ bytes): lower is better.
    Megabytes,
    /// Things counted: lower is better.
    Count,
}

/// What a row is held to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Goal {
    /// Figure ÷ floor at most this.
    RatioMax(f64),
    /// Figure ÷ floor at least this.
    RatioMin(f64),
    /// Figure at most this many milliseconds above the floor; absolute.
    MillisAboveFloor(f64),
    /// At most this; absolute.
    LatencyMax(f64),
    /// At least this; absolute.
    RateMin(f64),
    /// At most this, as written: memory and counts.
    Max(f64),
    /// Nothing; the figure is for reading.
    Shown,
}

/// What comes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// The goal is met.
    Met,
    /// An absolute goal is missed, and its gate is not.
    Short,
    /// The gate is missed: the run fails.
    Missed,
    /// There was nothing to meet.
    Shown,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The product's figure.
    pub(crate) figure: f64,
    /// Its unit, and the floor's.
    pub(crate) unit: Unit,
    /// What the floor is, and its figure in the same run.
    pub(crate) floor: Option<(String, f64)>,
    /// Figure ÷ floor: the median of the rounds' ratios where there were rounds.
    pub(crate) ratio: Option<f64>,
    /// What it is held to.
    pub(crate) goal: Goal,
    /// What a reader should know beside it.
    pub(crate) note: String,
}

impl Row {
    /// A row without a floor.
    pub(crate) fn alone(what: impl Into<String>, figure: f64, unit: Unit, goal: Goal) -> Self {
        Self { what: what.into(), figure, unit, floor: None, ratio: None, goal, note: String::new() }
    }

    /// A row against a floor.
    pub(crate) fn against(
        what: impl Into<String>,
        unit: Unit,
        pair: &crate::measure::Pair,
        floor: &str,
        goal: Goal,
    ) -> Self {
        Self {
            what: what.into(),
            figure: pair.figure,
            unit,
            floor: Some((floor.to_owned(), pair.floor)),
            ratio: Some(pair.ratio),
            goal,
            note: String::new(),
        }
    }

    /// Adds what a reader should know.
    #[must_use]
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// What comes of it.
    pub(crate) fn verdict(&self) -> Verdict {
        let ratio = self.ratio.unwrap_or(f64::NAN);
        let above = self.floor.as_ref().map_or(f64::NAN, |(_, floor)| self.figure - floor);
        match self.goal {
            Goal::Shown => Verdict::Shown,
            Goal::RatioMax(max) => as_written(ratio <= max),
            Goal::RatioMin(min) => as_written(ratio >= min),
            Goal::Max(max) => as_written(self.figure <= max),
            Goal::MillisAboveFloor(max) => with_slack(above <= max, above <= max * ABSOLUTE_SLACK),
            Goal::LatencyMax(max) => with_slack(self.figure <= max, self.figure <= max * ABSOLUTE_SLACK),
            Goal::RateMin(min) => with_slack(self.figure >= min, self.figure >= min / ABSOLUTE_SLACK),
        }
    }
}

fn as_written(met: bool) -> Verdict {
    if met { Verdict::Met } else { Verdict::Missed }
}

fn with_slack(met: bool, passed: bool) -> Verdict {
    if met {
        Verdict::Met
    } else if passed {
        Verdict::Short
    } else {
        Verdict::Missed
    }
}
