//! Texts that no number is taken for, nor `true`: names, paths and requirements. The reader makes text of those where text
//! is wanted, and a package "5" would be looked for in a registry.

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use std::fmt;

struct Word(String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordVisitor)
    }
}

struct WordVisitor;

impl Visitor<'_> for WordVisitor {
    type Value = Word;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Word, E> {
        Ok(Word(text.to_owned()))
    }
}

pub(crate) fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Word::deserialize(deserializer).map(|word| word.0)
}

pub(crate) fn maybe_word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::<Word>::deserialize(deserializer).map(|word| word.map(|word| word.0))
}

/// A version is the number that it looks like, as it is written, and never `true`.
pub(crate) fn maybe_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(text) if is_yes_or_no(&text) => Err(Error::custom("expected a version")),
        read => Ok(read),
    }
}

pub(crate) fn is_yes_or_no(text: &str) -> bool {
    ["true", "false"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

pub(crate) fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Vec::<Word>::deserialize(deserializer).map(|words| words.into_iter().map(|word| word.0).collect())
}
