//! Numbers, as options take them. Each stands alone, without its unit: a refusal says which that is.

/// Of a time.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    number(text, "seconds, as in 5 or 0.5")
}

/// Of a long time.
pub(crate) fn days(text: &str) -> Result<f64, String> {
    number(text, "days, as in 7 or 0.5")
}

/// Of what takes room.
pub(crate) fn megabytes(text: &str) -> Result<f64, String> {
    number(text, "megabytes, as in 500 or 0.5")
}

fn number(text: &str, of_what: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("give a number of {of_what}"))
}
