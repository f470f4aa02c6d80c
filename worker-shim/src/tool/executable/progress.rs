//! Reads how far a program is from a line it wrote. Pure.

use regex_lite::{Captures, Regex};

/// A line that told progress.
#[derive(Debug, PartialEq)]
pub(crate) struct Reading {
    /// 0 to 1.
    pub(crate) fraction: f64,
    pub(crate) message: String,
}

/// What `line` says by `pattern`; None when it does not match or holds no usable number.
pub(crate) fn read(pattern: &Regex, line: &str) -> Option<Reading> {
    let found = pattern.captures(line)?;
    let fraction =
        number(&found, "fraction").or_else(|| Some(number(&found, "percent")? / 100.0)).or_else(|| {
            let total = number(&found, "total").filter(|total| *total > 0.0)?;
            Some(number(&found, "current")? / total)
        })?;
    let message = found.name("message").map(|message| message.as_str().trim().to_owned()).unwrap_or_default();
    Some(Reading { fraction: fraction.clamp(0.0, 1.0), message })
}

fn number(found: &Captures<'_>, group: &str) -> Option<f64> {
    found.name(group)?.as_str().trim().parse::<f64>().ok().filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_group_is_read() {
        for (pattern, line, expected) in [
            (r"(?P<percent>[0-9.]+)%", "done 42.5% of it", Some((0.425, ""))),
            (r"f=(?P<fraction>\S+)", "f=0.25", Some((0.25, ""))),
            (r"(?P<current>\d+)/(?P<total>\d+) (?P<message>.*)", "3/4 files ", Some((0.75, "files"))),
            (r"(?P<current>\d+)/(?P<total>\d+)", "3/0", None),
            (r"(?P<percent>[0-9.]+)%", "250%", Some((1.0, ""))),
            (r"f=(?P<fraction>\S+)", "f=NaN", None),
            (r"f=(?P<fraction>\S+)", "nothing", None),
        ] {
            let pattern = Regex::new(pattern).expect("a pattern");
            let found = read(&pattern, line).map(|reading| (reading.fraction, reading.message));
            assert_eq!(found, expected.map(|(fraction, message)| (fraction, message.to_owned())), "{line}");
        }
    }
}
