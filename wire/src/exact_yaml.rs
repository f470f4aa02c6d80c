//! Integers beyond 64 bits in YAML, digit by digit. The YAML reader makes floating-point numbers of them; here the
//! document is read a second time with the place of each number, and the digits are taken from there.

use crate::json::{Json, numbers};
use indexmap::IndexMap;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// 2^63: below it every integer of a document is read as an integer.
const ROUNDED_FROM: f64 = 9_223_372_036_854_775_808.0;

/// Whether a value holds a number that may have been written with more digits: a float as large as such integers.
pub(crate) fn may_be_rounded(value: &Json) -> bool {
    numbers(value.text()).any(|number| {
        number.contains(['.', 'e', 'E']) && number.parse::<f64>().is_ok_and(|number| is_large(&number))
    })
}

fn is_large(number: &f64) -> bool {
    number.abs() >= ROUNDED_FROM
}

/// The whole document as one value, large numbers as they are written. `None` when one of them cannot be found in the
/// text or is written in a way that JSON has not.
pub(crate) fn parse(text: &str) -> Option<Json> {
    let document: Spanned<Part> = crate::yaml::from_str(text).ok()?;
    exact(&document, text)
}

fn exact(part: &Spanned<Part>, text: &str) -> Option<Json> {
    match &part.value {
        Part::Plain(json) => Some(json.clone()),
        Part::LargeFloat => {
            let span = part.defined.span();
            let start = usize::try_from(span.byte_offset()?).ok()?;
            let end = start + usize::try_from(span.byte_len()?).ok()?;
            let written = text.get(start..end)?.trim();
            Json::parse(&written.strip_prefix('+').unwrap_or(written).replace('_', "")).ok()
        }
        Part::List(items) => {
            let items: Vec<Json> = items.iter().map(|item| exact(item, text)).collect::<Option<_>>()?;
            Some(Json::list(&items))
        }
        Part::Object(fields) => {
            let fields: Vec<(&str, Json)> = fields
                .iter()
                .map(|(key, value)| Some((key.as_str(), exact(value, text)?)))
                .collect::<Option<_>>()?;
            Some(Json::object(fields.iter().map(|(key, value)| (*key, value))))
        }
    }
}

/// A part of a document.
enum Part {
    Plain(Json),
    LargeFloat,
    List(Vec<Spanned<Part>>),
    Object(IndexMap<String, Spanned<Part>>),
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartVisitor)
    }
}

struct PartVisitor;

impl<'de> Visitor<'de> for PartVisitor {
    type Value = Part;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Part, E> {
        Ok(Part::Plain(Json::null()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Part, E> {
        Ok(Part::Plain(Json::of(value)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Part, E> {
        Ok(Part::Plain(Json::of(value)))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Part, E> {
        Ok(Part::Plain(Json::of(value)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Part, E> {
        Ok(if is_large(&value) { Part::LargeFloat } else { Part::Plain(Json::of(value)) })
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Part, E> {
        Ok(Part::Plain(Json::of(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Part, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Part::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part, A::Error> {
        let mut fields = IndexMap::new();
        while let Some((key, value)) = map.next_entry()? {
            fields.insert(key, value);
        }
        Ok(Part::Object(fields))
    }
}
