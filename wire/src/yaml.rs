//! Reads YAML that somebody else wrote: with fewer values behind its aliases than the reader would allow by itself, since
//! a few lines of aliases of aliases stand for millions and keep it busy for seconds.

use serde::de::DeserializeOwned;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, Options, UserMessageFormatter};

/// Deepest nesting of a document, in YAML as in JSON. The reader recurses: at twice this a thread's usual stack of 2 MiB
/// overflows in a debug build.
pub const DOCUMENT_DEPTH_MAX: usize = 64;

/// Values that all aliases of a document together may stand for.
const ALIASED_VALUES_MAX: usize = 20_000;

/// The document, as `T`.
///
/// # Errors
/// With line and column in its words, which speak of the document and not of the reader's options.
pub(crate) fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut options = Options::default();
    options.alias_limits.max_total_replayed_events = ALIASED_VALUES_MAX;
    if let Some(budget) = &mut options.budget {
        budget.max_depth = DOCUMENT_DEPTH_MAX;
    }
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        if let Error::Budget { breach: BudgetBreach::Depth { .. }, location } = error.without_snippet() {
            let (line, column) = (location.line(), location.column());
            return format!(
                "line {line} column {column}: nested deeper than the {DOCUMENT_DEPTH_MAX} levels allowed"
            );
        }
        let words = error.render_with_formatter(&UserMessageFormatter);
        // Whoever tells it says that it is one.
        words.strip_prefix("error: ").map(str::to_owned).unwrap_or(words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn errors_speak_of_the_document() {
        for (text, words) in [
            ("a: 1\na: 2\n", "duplicate mapping key"),
            ("a: [1\n", "line 1"),
            ("a: *x\n", "unknown"),
            ("a: &a [*a]\n", "Recursive"),
        ] {
            let error = from_str::<serde_json::Value>(text).expect_err(text);
            assert!(error.contains(words), "{error}");
            assert!(!error.starts_with("error"), "{error}");
            assert!(!error.contains("Options") && !error.contains("Policy"), "{error}");
        }
    }

    #[test]
    fn aliases_work_and_aliases_of_aliases_end_at_once() {
        let value: serde_json::Value = from_str("a: &a [1, 2]\nb: *a\n").expect("reads");
        assert_eq!(value["b"], serde_json::json!([1, 2]));
        let mut bomb = "a0: &a0 [lol, lol]\n".to_owned();
        for level in 1..40 {
            bomb.push_str(&format!("a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1));
        }
        let before = Instant::now();
        from_str::<serde_json::Value>(&bomb).expect_err("too many");
        assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    }
}
