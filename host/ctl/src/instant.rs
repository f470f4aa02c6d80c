//! Points in time, as options name them.

use crate::fault::Fault;
use cjm_wire::Timestamp;

/// The instant that the value of an option names: a time before now (`90s`, `10m`, `2h`, `1d`), or a date with or without
/// a time, in UTC where it names no zone.
///
/// # Errors
/// When it is no time.
pub(crate) fn instant(option: &str, text: &str) -> Result<Timestamp, Fault> {
    instant_before(option, text, jiff::Timestamp::now())
}

fn instant_before(option: &str, text: &str, now: jiff::Timestamp) -> Result<Timestamp, Fault> {
    let before = || {
        let span: jiff::Span = text.parse().ok()?;
        // `1h ago` is negative to the parser, and means what `1h` does.
        if text.trim_start().starts_with('-') {
            return None;
        }
        let ago = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
        now.checked_sub(ago.abs()).ok()
    };
    let at = || {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    };
    let instant = text.parse::<jiff::Timestamp>().ok().or_else(before).or_else(at).ok_or_else(|| {
        Fault::usage(
            format!("{option} {text} is no time"),
            "give how long ago (90s, 10m, 2h, 1d), or an instant (2026-11-28, '2026-11-28 14:30', in UTC)",
        )
    })?;
    if instant > now {
        return Err(Fault::usage(
            format!("{option} {text} is still to come"),
            "give how long ago (90s, 10m, 2h, 1d), or an instant that has passed, in UTC",
        ));
    }
    Ok(Timestamp::from_micros(instant.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_how_long_ago_or_an_instant() {
        let now: jiff::Timestamp = "2026-11-28T08:00:00Z".parse().expect("an instant");
        for (text, expected) in [
            ("10m", "2026-11-28T07:50:00+00:00"),
            ("2h", "2026-11-28T06:00:00+00:00"),
            ("1d", "2026-11-27T08:00:00+00:00"),
            ("90s", "2026-11-28T07:58:30+00:00"),
            ("1h 30m", "2026-11-28T06:30:00+00:00"),
            ("2026-11-20", "2026-11-20T00:00:00+00:00"),
            ("2026-11-20 20:27", "2026-11-20T20:27:00+00:00"),
            ("2026-11-20T20:27:03", "2026-11-20T20:27:03+00:00"),
            ("2026-11-20T20:27:03+02:00", "2026-11-20T18:27:03+00:00"),
        ] {
            assert_eq!(instant_before("--since", text, now).expect(text).as_str(), expected, "{text}");
        }
        for text in ["yesterday", "10", "", "-", "1x", "-1h", "-PT1H", "2026-11-28T08:00:01Z", "2100-01-01"] {
            assert!(
                matches!(instant_before("--since", text, now), Err(Fault::Shown(report)) if report.exit_code == 2),
                "{text}"
            );
        }
    }
}
