//! JSON values that pass through us unchanged: kept as text, looked into one level at a time, never rounded.
//!
//! A parsed `serde_json::Value` has three bounds that a tool's data need not have: integers of 64 bits, numbers
//! below 1e309, and 127 levels of nesting. [`Json`] has none of them but [`JSON_DEPTH_MAX`], and nothing here recurses,
//! so that no depth exhausts a stack. Where a `Value` is needed, [`Json::to_value`] refuses what it would have to round.

use crate::describe::Described;
use indexmap::IndexMap;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;
use std::sync::Arc;

/// Deepest nesting of a value that passes.
pub const JSON_DEPTH_MAX: usize = 10_000;
/// Deepest nesting of what [`Json::to_value`] gives (`serde_json` parses no deeper).
pub const VALUE_DEPTH_MAX: usize = 127;
/// Longest number quoted in an error, in characters.
const NUMBER_SHOWN_MAX: usize = 40;
/// A number that no double holds, where another format gives nothing but that it is infinite.
const BEYOND_DOUBLES: &str = "1e999";
/// The name by which `serde_json` hands over a value as text. A test notices if a later version changes it.
const RAW_TOKEN: &str = "$serde_json::private::RawValue";

/// Named arguments of a call.
pub type Arguments = IndexMap<String, Json>;

/// One JSON value as the text it came as. A clone shares the text.
#[derive(Clone)]
pub struct Json(Arc<RawValue>);

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonKind {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean,
    /// A number.
    Number,
    /// A string.
    Text,
    /// A list.
    List,
    /// An object.
    Object,
}

/// Why a text is no value that passes, or cannot be given in another form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is not JSON.
    #[error("not JSON: {0}")]
    Malformed(String),
    /// Nested too deeply.
    #[error("nested {depth} levels deep, more than the {max} allowed")]
    TooDeep {
        /// How deep it is.
        depth: usize,
        /// The limit.
        max: usize,
    },
    /// A number that would have to be rounded.
    #[error("the number {0} does not fit into 64 bits")]
    Inexact(String),
}

impl Described for JsonError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "json.malformed",
            Self::TooDeep { .. } => "json.too_deep",
            Self::Inexact(_) => "json.inexact",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Malformed(_) => "correct the text where the message points".to_owned(),
            Self::TooDeep { max, .. } => {
                format!("flatten the value to at most {max} levels, or pass it as a file")
            }
            Self::Inexact(_) => "pass the number as text".to_owned(),
        }
    }
}

impl Json {
    /// Takes one value in JSON text, blanks around it aside.
    ///
    /// # Errors
    /// What is not JSON, or is nested deeper than [`JSON_DEPTH_MAX`].
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        let raw: Box<RawValue> = serde_json::from_str(text).map_err(|error| malformed(&error))?;
        Self::of_raw(raw)
    }

    /// [`Self::parse`] of bytes.
    ///
    /// # Errors
    /// As there; and bytes that are not UTF-8.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, JsonError> {
        let raw: Box<RawValue> = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
        Self::of_raw(raw)
    }

    fn of_raw(raw: Box<RawValue>) -> Result<Self, JsonError> {
        match depth(raw.get()) {
            depth if depth > JSON_DEPTH_MAX => Err(JsonError::TooDeep { depth, max: JSON_DEPTH_MAX }),
            _ => Ok(Self(raw.into())),
        }
    }

    /// `null`.
    #[must_use]
    pub fn null() -> Self {
        Self(RawValue::NULL.to_owned().into())
    }

    /// A plain value: text, a number that fits into 64 bits, a boolean.
    #[must_use]
    pub fn of(value: impl Into<Value>) -> Self {
        Self::from(&value.into())
    }

    /// A list of values.
    #[must_use]
    pub fn list<'a>(items: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut text = String::from("[");
        for item in items {
            separate(&mut text);
            text.push_str(item.text());
        }
        text.push(']');
        Self::of_written(text)
    }

    /// An object of values.
    #[must_use]
    pub fn object<'a>(fields: impl IntoIterator<Item = (&'a str, &'a Self)>) -> Self {
        let mut text = String::from("{");
        for (key, value) in fields {
            separate(&mut text);
            text.push_str(&escaped(key));
            text.push(':');
            text.push_str(value.text());
        }
        text.push('}');
        Self::of_written(text)
    }

    /// A string made of pieces: literals as they are, text values without their quotes, all else as compact JSON. The
    /// pieces stay as they are escaped, so that a lone surrogate in a tool's text passes too.
    #[must_use]
    pub fn text_of<'a>(pieces: impl IntoIterator<Item = Piece<'a>>) -> Self {
        let mut text = String::from("\"");
        for piece in pieces {
            let escaped = match piece {
                Piece::Literal(literal) => escaped(literal),
                Piece::Value(value) if value.kind() == JsonKind::Text => value.text().to_owned(),
                Piece::Value(value) => escaped(&value.compact()),
            };
            text.push_str(&escaped[1..escaped.len() - 1]);
        }
        text.push('"');
        Self::of_written(text)
    }

    /// Text that this module wrote.
    fn of_written(text: String) -> Self {
        // Built of valid values, so it is one.
        RawValue::from_string(text).map_or_else(|_| Self::null(), |raw| Self(raw.into()))
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> JsonKind {
        match self.text().as_bytes().first() {
            Some(b'{') => JsonKind::Object,
            Some(b'[') => JsonKind::List,
            Some(b'"') => JsonKind::Text,
            Some(b't' | b'f') => JsonKind::Boolean,
            Some(b'n') | None => JsonKind::Null,
            Some(_) => JsonKind::Number,
        }
    }

    /// The characters of a string; `None` for anything else, and for a string with a lone surrogate.
    #[must_use]
    pub fn as_text(&self) -> Option<String> {
        (self.kind() == JsonKind::Text).then(|| serde_json::from_str(self.text()).ok()).flatten()
    }

    /// The elements of a list.
    #[must_use]
    pub fn items(&self) -> Option<Vec<Self>> {
        if self.kind() != JsonKind::List {
            return None;
        }
        let items: Vec<Box<RawValue>> = serde_json::from_str(self.text()).ok()?;
        Some(items.into_iter().map(|raw| Self(raw.into())).collect())
    }

    /// The fields of an object; of a key that stands twice the last one.
    #[must_use]
    pub fn fields(&self) -> Option<IndexMap<String, Self>> {
        if self.kind() != JsonKind::Object {
            return None;
        }
        let fields: IndexMap<String, Box<RawValue>> = serde_json::from_str(self.text()).ok()?;
        Some(fields.into_iter().map(|(key, raw)| (key, Self(raw.into()))).collect())
    }

    /// The text without blanks between the tokens.
    #[must_use]
    pub fn compact(&self) -> String {
        let mut compact = String::with_capacity(self.text().len());
        let mut strings = Strings::default();
        compact.extend(self.text().chars().filter(|c| {
            let inside = strings.inside(*c);
            inside || !c.is_ascii_whitespace()
        }));
        compact
    }

    /// How deeply it is nested: 0 for a number or a string, 1 for `[]`.
    #[must_use]
    pub fn depth(&self) -> usize {
        depth(self.text())
    }

    /// As a parsed value.
    ///
    /// # Errors
    /// What a parsed value cannot hold: deeper than [`VALUE_DEPTH_MAX`], numbers that would be rounded, lone surrogates.
    pub fn to_value(&self) -> Result<Value, JsonError> {
        match self.depth() {
            depth if depth > VALUE_DEPTH_MAX => {
                return Err(JsonError::TooDeep { depth, max: VALUE_DEPTH_MAX });
            }
            _ => {}
        }
        if let Some((_, error)) = inexact(self.text()) {
            return Err(error);
        }
        serde_json::from_str(self.text()).map_err(|error| malformed(&error))
    }
}

/// A piece of a text.
#[derive(Debug, Clone, Copy)]
pub enum Piece<'a> {
    /// As it is.
    Literal(&'a str),
    /// Written out.
    Value(&'a Json),
}

fn malformed(error: &serde_json::Error) -> JsonError {
    JsonError::Malformed(error.to_string())
}

fn separate(text: &mut String) {
    if text.len() > 1 {
        text.push(',');
    }
}

/// A JSON string of `text`, quotes included.
fn escaped(text: &str) -> String {
    Value::from(text).to_string()
}

/// Tells what is inside a string of JSON text, fed character by character.
#[derive(Default)]
struct Strings {
    inside: bool,
    escaped: bool,
}

impl Strings {
    /// Whether `c` belongs to a string, its quotes included.
    fn inside(&mut self, c: char) -> bool {
        if !self.inside {
            self.inside = c == '"';
            return self.inside;
        }
        match c {
            _ if self.escaped => self.escaped = false,
            '\\' => self.escaped = true,
            '"' => self.inside = false,
            _ => {}
        }
        true
    }
}

fn depth(text: &str) -> usize {
    let mut strings = Strings::default();
    let (mut depth, mut deepest) = (0_usize, 0);
    for c in text.chars() {
        match c {
            _ if strings.inside(c) => {}
            '[' | '{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The numbers in valid JSON text.
pub(crate) fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let mut strings = Strings::default();
    text.split(move |c: char| {
        let inside = strings.inside(c);
        inside || !(c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E'))
    })
    .filter(|part| part.bytes().any(|b| b.is_ascii_digit()))
}

/// The first number in valid JSON text that a parsed value would not hold as it is, and what is said of it.
pub(crate) fn inexact(text: &str) -> Option<(&str, JsonError)> {
    let number = numbers(text).find(|number| !is_exact(number))?;
    Some((number, JsonError::Inexact(number.chars().take(NUMBER_SHOWN_MAX).collect())))
}

/// Whether a parsed value holds this number as it is: an integer digit by digit, any other as the nearest double.
fn is_exact(number: &str) -> bool {
    if number.contains(['.', 'e', 'E']) {
        return number.parse::<f64>().is_ok_and(f64::is_finite);
    }
    number.parse::<u64>().is_ok() || number.parse::<i64>().is_ok()
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        Self::of_written(value.to_string())
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self::from(&value)
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::null()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text() || self.compact() == other.compact()
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// From JSON the text itself, whatever its numbers; from other formats what they make of their scalars.
impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(RAW_TOKEN, OfJson)
    }
}

/// The visitor that a JSON deserializer answers with the text, and any other with itself.
struct OfJson;

impl<'de> Visitor<'de> for OfJson {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Json, A::Error> {
        let raw = Box::<RawValue>::deserialize(MapAccessDeserializer::new(map))?;
        Json::of_raw(raw).map_err(de::Error::custom)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(OfScalars)
    }
}

struct OfScalars;

impl<'de> Visitor<'de> for OfScalars {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::null())
    }

    fn visit_none<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::null())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::of(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::of(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::of(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        match value {
            _ if value.is_finite() => Ok(Json::of(value)),
            // Whoever lets its reader give such a one takes the digits from the text.
            _ if value == f64::INFINITY => Json::parse(BEYOND_DOUBLES).map_err(E::custom),
            _ if value == f64::NEG_INFINITY => Json::parse(&format!("-{BEYOND_DOUBLES}")).map_err(E::custom),
            _ => Err(E::custom("not a finite number")),
        }
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::of(value))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        Json::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
        let mut items: Vec<Json> = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Json::list(&items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut fields: IndexMap<String, Json> = IndexMap::new();
        while let Some((key, value)) = map.next_entry()? {
            fields.insert(key, value);
        }
        Ok(Json::object(fields.iter().map(|(key, value)| (key.as_str(), value))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nested(levels: usize) -> String {
        format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn what_a_parsed_value_cannot_hold_passes_as_text() {
        let deep = nested(JSON_DEPTH_MAX);
        for text in [
            "18446744073709551616",
            "-9223372036854775809",
            "1e400",
            "123456789012345678901234567890.5e-3",
            r#""\ud800""#,
            r#"{"a":[18446744073709551616,1e400,{"b":"\udc00"}]}"#,
            &deep,
        ] {
            let value = Json::parse(text).expect(text);
            assert_eq!(value.text(), text);
            // Through serde too, alone and inside something: the token of `serde_json` still means what it did.
            let held: IndexMap<String, Json> =
                serde_json::from_str(&format!("{{\"v\":{text}}}")).expect(text);
            assert_eq!(serde_json::to_string(&held).expect("writes"), format!("{{\"v\":{text}}}"));
            assert_eq!(Json::list([&value, &value]).text(), format!("[{text},{text}]"));
            let fields = Json::object([("a \"key\"", &value)]).fields().expect("an object");
            assert_eq!(fields["a \"key\""].text(), text);
        }
    }

    #[test]
    fn what_does_not_pass_is_refused_with_a_reason() {
        let too_deep = Json::parse(&nested(JSON_DEPTH_MAX + 1)).expect_err("too deep");
        assert_eq!(too_deep.to_string(), "nested 10001 levels deep, more than the 10000 allowed");
        for text in ["", "{", "NaN", "1 2", "[1e]", "\"\u{1}\"", "'a'"] {
            assert!(matches!(Json::parse(text), Err(JsonError::Malformed(_))), "{text}");
        }
        for (text, reason) in [
            ("[18446744073709551616]", "the number 18446744073709551616 does not fit into 64 bits"),
            ("{\"a\": -9223372036854775809}", "the number -9223372036854775809 does not fit into 64 bits"),
            ("1e400", "the number 1e400 does not fit into 64 bits"),
            (&nested(VALUE_DEPTH_MAX + 1), "nested 128 levels deep, more than the 127 allowed"),
        ] {
            assert_eq!(Json::parse(text).expect(text).to_value().expect_err(text).to_string(), reason);
        }
        let lone = Json::parse(r#""\ud800""#).expect("passes");
        assert!(matches!(lone.to_value(), Err(JsonError::Malformed(_))) && lone.as_text().is_none());
        assert!(Json::parse(&nested(VALUE_DEPTH_MAX)).expect("deep").to_value().is_ok());
        assert!(Json::parse("\"18446744073709551616 [1e400\"").expect("text").to_value().is_ok());
    }

    #[test]
    fn texts_are_joined_without_being_read() {
        let text = |pieces: &[Piece<'_>]| Json::text_of(pieces.iter().copied()).text().to_owned();
        let [lone, big, object] =
            [r#""\ud800""#, "18446744073709551616", "{ \"a b\" : [ 1, \"x \\\" y\" ] }"]
                .map(|text| Json::parse(text).expect(text));
        assert_eq!(
            text(&[Piece::Literal("a\"\n"), Piece::Value(&lone), Piece::Value(&big)]),
            r#""a\"\n\ud80018446744073709551616""#
        );
        assert_eq!(object.compact(), r#"{"a b":[1,"x \" y"]}"#);
        assert_eq!(text(&[Piece::Value(&object)]), r#""{\"a b\":[1,\"x \\\" y\"]}""#);
        assert_eq!(text(&[]), "\"\"");
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_goes_through_and_comes_back(value in any_value()) {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).expect("writes")] {
                let json = Json::parse(&text).expect("valid");
                prop_assert_eq!(json.text(), &text);
                prop_assert_eq!(json.compact(), value.to_string());
                prop_assert_eq!(&json, &Json::from(&value));
                prop_assert_eq!(json.to_value().expect("exact"), value.clone());
                if let Some(items) = json.items() {
                    prop_assert_eq!(Json::list(&items), json.clone());
                }
                if let Some(fields) = json.fields() {
                    prop_assert_eq!(Json::object(fields.iter().map(|(k, v)| (k.as_str(), v))), json.clone());
                }
                let shape = (value.is_array(), value.is_object(), value.is_string(), value.is_number());
                let kind = json.kind();
                let found = [JsonKind::List, JsonKind::Object, JsonKind::Text, JsonKind::Number].map(|k| k == kind);
                prop_assert_eq!(<[bool; 4]>::from(shape), found);
            }
        }

        #[test]
        fn any_text_is_taken_as_it_is_or_refused(text in "[\\[\\]{}\", :0-9eE.+\\\\nulltrafs-]{0,24}") {
            match Json::parse(&text) {
                Ok(json) => prop_assert_eq!(json.text(), text.trim()),
                Err(error) => prop_assert!(!error.to_string().is_empty() && !error.next_step().is_empty()),
            }
        }
    }
}
