//! The one timestamp format of journal, diagnostics, manifests and errors: UTC, microseconds,
//! `2026-11-20T20:27:12.224970+00:00`, the fraction dropped when it is zero (as Python's isoformat does).
//! Instants here are formatted, never compared against a clock: deciding on time is `decide`'s, with a `now`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An instant as the stores write it. Lexical order is time order but for a dropped zero fraction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(String);

impl Timestamp {
    /// The present instant.
    #[must_use]
    pub fn now() -> Self {
        Self::from_micros(jiff::Timestamp::now().as_microsecond())
    }

    /// From microseconds since the Unix epoch. Instants outside the years 1–9999 become the epoch.
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        let instant = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let fraction = instant.subsec_microsecond();
        let zoned = instant.to_zoned(jiff::tz::TimeZone::UTC);
        let seconds = zoned.strftime("%Y-%m-%dT%H:%M:%S");
        if fraction == 0 {
            Self(format!("{seconds}+00:00"))
        } else {
            Self(format!("{seconds}.{:06}+00:00", fraction.unsigned_abs()))
        }
    }

    /// Takes text somebody else wrote, as it is.
    #[must_use]
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Microseconds since the Unix epoch, or `None` when the text is not an instant.
    #[must_use]
    pub fn as_micros(&self) -> Option<i64> {
        self.0.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
    }

    /// The text as stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `YYYY-MM-DD HH:MM:SS`, as `cjm-ctl logs` prints it.
    #[must_use]
    pub fn for_people(&self) -> String {
        self.0.get(..19).unwrap_or(&self.0).replace('T', " ")
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micros_become_the_ancestors_text_and_back() {
        for (micros, text) in [
            (1_795_206_432_224_970, "2026-11-20T20:27:12.224970+00:00"),
            (1_795_206_432_000_000, "2026-11-20T20:27:12+00:00"),
            (0, "1970-01-01T00:00:00+00:00"),
        ] {
            let stamp = Timestamp::from_micros(micros);
            assert_eq!(stamp.as_str(), text);
            assert_eq!(stamp.as_micros(), Some(micros));
        }
        assert_eq!(Timestamp::from_text("2026-11-20T20:27:12.2+00:00").for_people(), "2026-11-20 20:27:12");
        assert_eq!(Timestamp::from_text("yesterday").as_micros(), None);
    }
}
