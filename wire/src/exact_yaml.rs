//! Integers in YAML, digit by digit. The YAML reader makes floating-point numbers of those beyond 64 bits and of those
//! with a leading zero, which are integers in YAML 1.2; here the document is read a second time with the place of each
//! number, and the digits are taken from there.

use crate::input_kind::InputKind;
use crate::json::{Json, JsonKind, numbers};
use indexmap::IndexMap;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::cell::OnceCell;
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
    number.is_nan() || number.abs() >= ROUNDED_FROM
}

/// Whether a text may have an integer with a leading zero in it.
pub(crate) fn may_have_leading_zeros(text: &str) -> bool {
    let begins = |c: char| c.is_whitespace() || matches!(c, '[' | '{' | ',' | ':');
    text.split(begins).any(|token| {
        let digits = token.strip_prefix(['-', '+']).unwrap_or(token).as_bytes();
        digits.first() == Some(&b'0') && digits.get(1).is_some_and(u8::is_ascii_digit)
    })
}

/// `10` of `010`, as YAML 1.2 reads it; none where the text is no integer with a leading zero.
fn without_leading_zeros(written: &str) -> Option<String> {
    let (sign, digits) = match written.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", written.strip_prefix('+').unwrap_or(written)),
    };
    if !digits.starts_with('0') || digits.len() < 2 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match digits.trim_start_matches('0') {
        "" => Some("0".to_owned()),
        digits => Some(format!("{sign}{digits}")),
    }
}

/// The whole document as one value, large numbers as they are written. `None` when one of them cannot be found in the
/// text or is written in a way that JSON has not.
pub(crate) fn parse(text: &str) -> Option<Json> {
    let (document, _): (Spanned<Part>, _) = crate::yaml::with_infinite(text).ok()?;
    exact(&document, text)
}

/// A document with the places of its parts, which is read when the first of them is asked for, and once.
pub(crate) struct Written<'a> {
    text: &'a str,
    document: OnceCell<Option<Spanned<Part>>>,
}

impl<'a> Written<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        Self { text, document: OnceCell::new() }
    }

    /// Makes text of a number that stands where text is wanted, as it is written: `007` is no 7 there; so of each in a list
    /// of files. `path` is where it stands.
    pub(crate) fn keep_text(&self, value: &mut Json, path: &[&str], kind: InputKind) {
        let is_number = |value: &Json| value.kind() == JsonKind::Number;
        let items = value.items().filter(|_| kind == InputKind::Files);
        if !is_number(value) && !items.iter().flatten().any(is_number) {
            return;
        }
        let read = || crate::yaml::with_infinite(self.text).ok().map(|(document, _)| document);
        let Some(document) = self.document.get_or_init(read) else { return };
        let field = |part, key: &&str| match part {
            &Spanned { value: Part::Object(ref fields), .. } => fields.get(*key),
            _ => None,
        };
        let Some(part) = path.iter().try_fold(document, field) else { return };
        match (items, &part.value) {
            (Some(mut items), Part::List(parts)) => {
                let numbers = items.iter_mut().zip(parts).filter(|(item, _)| is_number(item));
                numbers.for_each(|(item, part)| self.take_text(item, part));
                *value = Json::list(&items);
            }
            _ => self.take_text(value, part),
        }
    }

    /// The number as it is written; one with a tag or an anchor before it is the number that it was read as.
    fn take_text(&self, value: &mut Json, part: &Spanned<Part>) {
        let is_plain =
            |written: &&str| written.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
        if let Some(written) = written(part, self.text).filter(is_plain) {
            *value = Json::of(written);
        }
    }
}

/// The part of the document as it is written.
fn written<'a>(part: &Spanned<Part>, text: &'a str) -> Option<&'a str> {
    let span = part.defined.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let end = start + usize::try_from(span.byte_len()?).ok()?;
    text.get(start..end).map(str::trim)
}

fn exact(part: &Spanned<Part>, text: &str) -> Option<Json> {
    match &part.value {
        Part::Plain(json) => Some(json.clone()),
        Part::Float(value) => {
            let written = written(part, text);
            if let Some(digits) = written.and_then(without_leading_zeros) {
                return Json::parse(&digits).ok();
            }
            if !is_large(value) {
                return Some(Json::of(*value));
            }
            let written = written?;
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
    Float(f64),
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
        Ok(Part::Float(value))
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

#[cfg(test)]
mod tests {
    use crate::composition::{Composition, CompositionError};
    use crate::input_kind::InputKind;
    use crate::inputs_file::parse_inputs;

    /// The argument of a composition whose file says `written`.
    fn argument(written: &str) -> Result<String, CompositionError> {
        let text = format!("name: t\nnodes: {{a: {{capability: c, args: {{v: {written}}}}}}}\n");
        Composition::parse(&text).map(|read| read.nodes["a"].args["v"].compact())
    }

    #[test]
    fn integers_of_any_length_keep_their_digits_and_what_is_no_number_is_told() {
        for digits in [308, 309, 310, 10_000] {
            let number = "9".repeat(digits);
            for (written, read) in [
                (number.clone(), number.clone()),
                (format!("-{number}"), format!("-{number}")),
                (format!("+{number}"), number.clone()),
                (format!("00{number}"), number.clone()),
                (format!("[1, {number}, 0.5, '{number}']"), format!("[1,{number},0.5,\"{number}\"]")),
            ] {
                assert_eq!(argument(&written).expect("a number"), read);
            }
            let inputs =
                parse_inputs(&format!("n: {number}\nm:\n- {number}\n"), |_| InputKind::Any).expect("inputs");
            assert_eq!((inputs["n"].text(), inputs["m"].compact()), (&*number, format!("[{number}]")));
        }
        assert_eq!(argument("1e400").expect("a number"), "1e400");
        let config = |written: &str| {
            let head = "name: t\nnodes: {a: {capability: c}}\ncapabilities:\n  c: {config: {v: ";
            Composition::parse(&format!("{head}{written}}}}}\n"))
        };
        let refused = config(&"9".repeat(400)).expect_err("it would be rounded").to_string();
        assert!(refused.contains("capabilities.c.config") && refused.len() < 150, "{refused}");
        for none in [".inf", "-.inf", ".nan", "[.inf]"] {
            for error in [argument(none).expect_err(none), config(none).expect_err(none)] {
                let told = error.to_string();
                assert!(matches!(error, CompositionError::Malformed(_)), "{none}: {told}");
                assert!(told.starts_with("line ") && told.contains("not a finite number"), "{told}");
            }
            assert!(parse_inputs(&format!("n: {none}\n"), |_| InputKind::Any).is_err(), "{none}");
        }
    }

    #[test]
    fn an_integer_with_a_leading_zero_is_an_integer() {
        for (written, read) in [
            ("010", "10"),
            ("007", "7"),
            ("-010", "-10"),
            ("+010", "10"),
            ("00", "0"),
            ("-00", "0"),
            ("010.0", "10.0"),
            ("0.5", "0.5"),
            ("10.0", "10.0"),
            ("'010'", "\"010\""),
            ("[010, {k: 08}]", "[10,{\"k\":8}]"),
            ("2026-01-02", "\"2026-01-02\""),
        ] {
            assert_eq!(argument(written).expect(written), read, "{written}");
        }
        let inputs = parse_inputs("n: 010\nm: [007]\n", |_| InputKind::Any).expect("inputs");
        assert_eq!((inputs["n"].text(), inputs["m"].compact()), ("10", "[7]".to_owned()));
        let text = "name: 007\ninputs: {n: {default: 010}}\ncapabilities: {c: {config: {n: 010}}}\n\
                    nodes: {a: {capability: c, map: [08]}}\noutput: 09\n";
        let read = Composition::parse(text).expect("a good one");
        assert_eq!(read.name, "007");
        assert_eq!(read.inputs["n"].default.as_ref().expect("given").text(), "10");
        assert_eq!(read.capabilities["c"].config, Some(serde_json::json!({"n": 10})));
        assert_eq!(read.nodes["a"].map.as_ref().expect("given").compact(), "[8]");
        assert_eq!(read.output.expect("given").text(), "9");
    }
}
