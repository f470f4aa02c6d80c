//! One line of a stream of results, as the host understands it: a chunk, or the error that ended the call. Cutting the
//! stream into lines is the reader's; what must hold there is that no line is longer than [`LINE_BYTES_MAX`].

use crate::error::JobErrorBody;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Longest chunk, in bytes.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest line, in bytes, without its newline: a chunk, and the blank that [`chunk_text`] may put into it.
pub const LINE_BYTES_MAX: usize = CHUNK_BYTES_MAX + 1;
/// How a line begins that is no chunk, in the ancestor's exact spelling. A tool's own object with this key further
/// behind stays a chunk.
const ERROR_PREFIX: &str = "{\"_job_error\"";
/// How the exception's name begins by which a stream tells of a cancellation: it has no status line any more.
const CANCELLED_PREFIX: &str = "CapabilityCancelledError";

/// The text of a chunk as a worker writes it: with a blank after its brace where it would be taken for the error that ends
/// a call. The same JSON, in a spelling that no worker uses for its own errors.
#[must_use]
pub fn chunk_text(chunk: &[u8]) -> Cow<'_, [u8]> {
    match chunk.strip_prefix(b"{") {
        Some(rest) if chunk.starts_with(ERROR_PREFIX.as_bytes()) => Cow::Owned([b"{ ", rest].concat()),
        _ => Cow::Borrowed(chunk),
    }
}

/// What a line says.
#[derive(Debug)]
pub enum Line {
    /// A result, JSON as it came.
    Chunk(Box<RawValue>),
    /// The call was cancelled.
    Cancelled,
    /// The call failed.
    Failed(Box<JobErrorBody>),
}

impl Line {
    /// Reads a line without its newline. A chunk is not copied.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn read(line: String) -> Result<Self, serde_json::Error> {
        if line.starts_with(ERROR_PREFIX)
            && let Ok(body) = serde_json::from_str::<JobErrorBody>(&line)
        {
            let cancelled = body.job_error.original_exc_repr.starts_with(CANCELLED_PREFIX);
            return Ok(if cancelled { Self::Cancelled } else { Self::Failed(Box::new(body)) });
        }
        RawValue::from_string(line).map(Self::Chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_never_written_as_an_end() {
        let error = |key: &str, repr: &str| {
            format!(
                r#"{{"{key}": {{"category": "fatal", "message": "m", "retriable": false, "original_exc_repr": "{repr}"}}}}"#
            )
        };
        for chunk in [
            error("_job_error", "ValueError('x')"),
            error("_job_error", "CapabilityCancelledError('stop')"),
            error("other", "E()"),
            r#"{"_job_error": 1}"#.to_owned(),
            r#"{"_job_errors": 1}"#.to_owned(),
            r#"[{"_job_error": 1}]"#.to_owned(),
            "{}".to_owned(),
        ] {
            let written = String::from_utf8(chunk_text(chunk.as_bytes()).into_owned()).expect("text");
            let Ok(Line::Chunk(read)) = Line::read(written.clone()) else { panic!("{written}") };
            assert!(
                written.len() - chunk.len() <= LINE_BYTES_MAX - CHUNK_BYTES_MAX,
                "the longest one fits into a line: {written}"
            );
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
            assert_eq!(value(read.get()), value(&chunk));
            assert_eq!(
                written == chunk,
                !chunk.starts_with(ERROR_PREFIX),
                "as it came, but for these: {written}"
            );
        }
    }

    #[test]
    fn a_line_is_a_chunk_an_end_or_a_fault() {
        let error = |repr: &str| {
            format!(
                r#"{{"_job_error": {{"category": "fatal", "message": "m", "retriable": false, "original_exc_repr": "{repr}"}}}}"#
            )
        };
        let read = |line: &str| Line::read(line.to_owned());
        assert!(
            matches!(read(r#" {"a": [1.50]} "#), Ok(Line::Chunk(raw)) if raw.get() == r#"{"a": [1.50]}"#)
        );
        assert!(matches!(read(&error("CapabilityCancelledError('stop')")), Ok(Line::Cancelled)));
        assert!(matches!(read(&error("ValueError('x')")), Ok(Line::Failed(_))));
        // Not the error's shape: a tool may use the word.
        assert!(matches!(read(r#"{"_job_error": 1}"#), Ok(Line::Chunk(_))));
        for broken in ["", "nope", "{\"_job_error\": {", "1 2", "NaN"] {
            assert!(read(broken).is_err(), "{broken}");
        }
    }
}
