//! Reads YAML that somebody else wrote: with fewer values behind its aliases than the reader would allow by itself, since
//! a few lines of aliases of aliases stand for millions and keep it busy for seconds.

use serde::de::{DeserializeOwned, DeserializeSeed};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, NonFiniteFloatPolicy, Options, UserMessageFormatter};

/// Deepest nesting of a document, in YAML as in JSON. The reader recurses: at twice this a thread's usual stack of 2 MiB
/// overflows in a debug build.
pub const DOCUMENT_DEPTH_MAX: usize = 64;

/// Values that all aliases of a document together may stand for.
const ALIASED_VALUES_MAX: usize = 20_000;
/// What is said of a number that no double holds.
pub(crate) const NOT_FINITE: &str = " is not a finite number";
/// Most characters of a number in a message.
const NUMBER_CHARS_MAX: usize = 40;
/// What the reader says where nesting is too deep even for the part of it that reads no values.
const READER_TOO_DEEP: &str = "recursion limit exceeded";

/// The document, as `T`.
///
/// # Errors
/// With line and column in its words, which speak of the document and not of the reader's options.
pub(crate) fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    read(text, NonFiniteFloatPolicy::Reject, Booleans::TrueAndFalse).map_err(|error| words(&error))
}

/// [`from_str`] into what the seed makes of it.
pub(crate) fn from_str_as<'de, S: DeserializeSeed<'de>>(text: &'de str, seed: S) -> Result<S::Value, String> {
    let options = options(NonFiniteFloatPolicy::Reject, Booleans::TrueAndFalse);
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |reader| seed.deserialize(reader))
        .map_err(|error| words(&error))
}

/// [`from_str`] for a file that the ancestor reads as well, and for it `yes` and `on` are true.
pub(crate) fn from_str_as_the_ancestor<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    read(text, NonFiniteFloatPolicy::Reject, Booleans::AlsoYesAndNo).map_err(|error| words(&error))
}

/// What counts as a boolean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Booleans {
    /// As YAML 1.2 says: `no` is a word, also the code of a language and of a country.
    TrueAndFalse,
    /// As YAML 1.1 says.
    AlsoYesAndNo,
}

/// [`from_str`] for who takes large numbers from the text itself: one that no double holds comes as infinity. With it comes
/// what [`from_str`] would have said of such a number, or of `.inf`, which comes as the same.
pub(crate) fn with_infinite<T: DeserializeOwned>(text: &str) -> Result<(T, Option<String>), String> {
    let read = |infinite| read(text, infinite, Booleans::TrueAndFalse);
    match read(NonFiniteFloatPolicy::Reject) {
        Ok(document) => Ok((document, None)),
        Err(error) if matches!(error.without_snippet(), Error::NonFiniteFloat { .. }) => {
            let document = read(NonFiniteFloatPolicy::PassThrough).map_err(|error| words(&error))?;
            Ok((document, Some(words(&error))))
        }
        Err(error) => Err(words(&error)),
    }
}

fn read<T: DeserializeOwned>(
    text: &str,
    infinite: NonFiniteFloatPolicy,
    booleans: Booleans,
) -> Result<T, Error> {
    serde_saphyr::from_str_with_options(text, options(infinite, booleans))
}

fn options(infinite: NonFiniteFloatPolicy, booleans: Booleans) -> Options {
    let mut options = Options::default();
    options.strict_booleans = booleans == Booleans::TrueAndFalse;
    options.non_finite_float_policy = infinite;
    options.alias_limits.max_total_replayed_events = ALIASED_VALUES_MAX;
    if let Some(budget) = &mut options.budget {
        budget.max_depth = DOCUMENT_DEPTH_MAX;
    }
    options
}

/// The error, in words of the document.
fn words(error: &Error) -> String {
    let at = |what: &str| match error.location() {
        Some(location) => format!("line {} column {}: {what}", location.line(), location.column()),
        None => what.to_owned(),
    };
    let too_deep = || at(&format!("nested deeper than the {DOCUMENT_DEPTH_MAX} levels allowed"));
    match error.without_snippet() {
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => return too_deep(),
        Error::NonFiniteFloat { value, .. } => {
            let shown: String = value.chars().take(NUMBER_CHARS_MAX).collect();
            let more = if shown.len() < value.len() { "…" } else { "" };
            return at(&format!("the value `{shown}{more}`{NOT_FINITE}"));
        }
        _ => {}
    }
    let words = error.render_with_formatter(&UserMessageFormatter);
    if words.lines().next().is_some_and(|line| line.ends_with(READER_TOO_DEEP)) {
        return too_deep();
    }
    // Whoever tells it says that it is one.
    words.strip_prefix("error: ").map(str::to_owned).unwrap_or(words)
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
    fn what_is_too_deep_is_told_with_the_limit_however_deep_it_is() {
        for levels in [65, 250, 256, 500, 5_000] {
            let flow = format!("v: {}1{}", "[".repeat(levels), "]".repeat(levels));
            let objects = format!("v: {}1{}", "{a: ".repeat(levels), "}".repeat(levels));
            for text in [flow, objects, format!("v:\n  {}1\n", "- ".repeat(levels))] {
                let error = from_str::<serde_json::Value>(&text).expect_err("too deep");
                assert!(error.starts_with("line ") && error.contains("deeper than the 64 levels"), "{error}");
            }
        }
    }

    #[test]
    fn a_number_that_is_none_is_told_in_short() {
        let long = format!("v: {}", "9".repeat(10_000));
        for (text, told) in
            [("v: .inf", "line 1 column 4: the value `.inf` is not a finite number"), (&long, "…`")]
        {
            let error = from_str::<serde_json::Value>(text).expect_err("none");
            assert!(error.contains(told) && error.len() < 120, "{error}");
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
