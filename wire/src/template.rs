//! Templates of a composition: JSON whose strings hold references (`${node.field[0]}`). Reading them is here;
//! what they stand for is `decide`'s.

use crate::json::{Json, JsonKind};
use indexmap::IndexSet;
use std::borrow::Cow;
use std::fmt;

/// Deepest nesting of a template that holds references; plain data may be nested as any other value.
pub const TEMPLATE_DEPTH_MAX: usize = 128;

/// Most characters of a text that a fault shows.
const SHOWN_CHARS_MAX: usize = 80;

/// A template, read.
#[derive(Debug, Clone, PartialEq)]
pub enum Template {
    /// No reference in it.
    Plain(Json),
    /// One reference and nothing else: it becomes the value itself, of any type.
    Reference(Reference),
    /// Text with references in it.
    Text(Vec<TextPart>),
    /// A list with references in it.
    List(Vec<Template>),
    /// An object with references in it.
    Object(Vec<(String, Template)>),
}

/// One step of a reference's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathStep {
    /// `.name`
    Field(String),
    /// `[3]`
    Index(usize),
}

/// One reference, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `inputs`, `item`, `index`, or a node.
    pub root: String,
    /// What to take of it.
    pub path: Vec<PathStep>,
}

/// One part of a template string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextPart {
    /// As it is.
    Text(String),
    /// `${…}`
    Reference(Reference),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with the first malformed reference, or that it is nested too deeply.
    pub fn parse(json: &Json) -> Result<Self, String> {
        let (template, faults) = Self::read(json);
        faults.into_iter().next().map_or(Ok(template), Err)
    }

    /// Reads what can be read of a template, and everything that is wrong with it, each thing once.
    #[must_use]
    pub fn read(json: &Json) -> (Self, IndexSet<String>) {
        let mut faults = IndexSet::new();
        (Self::read_at(json, 0, &mut faults), faults)
    }

    fn read_at(json: &Json, depth: usize, faults: &mut IndexSet<String>) -> Self {
        // A `$` or `{` may be written as an escape.
        if !json.text().contains("${") && !json.text().contains("\\u00") {
            return Self::Plain(json.clone());
        }
        if depth >= TEMPLATE_DEPTH_MAX {
            faults.insert(format!("references nested deeper than {TEMPLATE_DEPTH_MAX} levels"));
            return Self::Plain(json.clone());
        }
        let read = match json.kind() {
            JsonKind::Text => json.as_text().map(|text| {
                let mut parts = text_parts(&text, faults);
                match parts.as_slice() {
                    [TextPart::Text(text)] => Self::Plain(Json::of(text.as_str())),
                    [TextPart::Reference(_)] => match parts.pop() {
                        Some(TextPart::Reference(reference)) => Self::Reference(reference),
                        Some(TextPart::Text(_)) | None => Self::Plain(json.clone()),
                    },
                    _ => Self::Text(parts),
                }
            }),
            JsonKind::List => json.items().map(|items| {
                Self::List(items.iter().map(|item| Self::read_at(item, depth + 1, faults)).collect())
            }),
            JsonKind::Object => json.fields().map(|fields| {
                let read = |(key, value): (String, Json)| (key, Self::read_at(&value, depth + 1, faults));
                Self::Object(fields.into_iter().map(read).collect())
            }),
            JsonKind::Null | JsonKind::Boolean | JsonKind::Number => Some(Self::Plain(json.clone())),
        };
        read.unwrap_or_else(|| {
            faults.insert("a string in it cannot be read (a lone surrogate)".to_owned());
            Self::Plain(json.clone())
        })
    }

    /// All references in it, in order.
    #[must_use]
    pub fn references(&self) -> Vec<&Reference> {
        let mut found = Vec::new();
        self.collect(&mut found);
        found
    }

    fn collect<'a>(&'a self, into: &mut Vec<&'a Reference>) {
        match self {
            Self::Plain(_) => {}
            Self::Reference(reference) => into.push(reference),
            Self::Text(parts) => into.extend(parts.iter().filter_map(|part| match part {
                TextPart::Reference(reference) => Some(reference),
                TextPart::Text(_) => None,
            })),
            Self::List(items) => items.iter().for_each(|item| item.collect(into)),
            Self::Object(fields) => fields.iter().for_each(|(_, value)| value.collect(into)),
        }
    }
}

/// Splits a string into text and references.
///
/// # Errors
/// What is wrong with the first malformed reference.
pub fn parse_text(text: &str) -> Result<Vec<TextPart>, String> {
    let mut faults = IndexSet::new();
    let parts = text_parts(text, &mut faults);
    faults.into_iter().next().map_or(Ok(parts), Err)
}

/// The parts that can be read; what is wrong with the others goes to `faults`.
fn text_parts(text: &str, faults: &mut IndexSet<String>) -> Vec<TextPart> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut is_unclosed = false;
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            literal.push_str(&rest[..at - 1]);
            literal.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        literal.push_str(&rest[..at]);
        let after = &rest[at + 2..];
        // The `}` behind the next `${` belongs to that one, and is not looked for: a text may hold any number of them.
        let until = after.find("${").unwrap_or(after.len());
        let Some(end) = after[..until].find('}') else {
            is_unclosed = true;
            rest = &after[until..];
            continue;
        };
        if !literal.is_empty() {
            parts.push(TextPart::Text(std::mem::take(&mut literal)));
        }
        match parse_reference(&after[..end]) {
            Ok(reference) => parts.push(TextPart::Reference(reference)),
            Err(fault) => {
                faults.insert(fault);
            }
        }
        rest = &after[end + 1..];
    }
    if is_unclosed {
        faults.insert(format!("a `${{` without its `}}` in \"{}\"", in_short(text)));
    }
    literal.push_str(rest);
    if !literal.is_empty() || parts.is_empty() {
        parts.push(TextPart::Text(literal));
    }
    parts
}

/// A text as a fault tells it.
fn in_short(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]).into(),
        None => text.into(),
    }
}

/// Reads the inside of `${…}`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_reference(inside: &str) -> Result<Reference, String> {
    let wrong = || format!("`${{{}}}` is no reference (write `${{node.field[0]}}`)", in_short(inside));
    let inside_trimmed = inside.trim();
    let root_end = inside_trimmed.find(['.', '[']).unwrap_or(inside_trimmed.len());
    let root = &inside_trimmed[..root_end];
    if !is_name(root) {
        return Err(wrong());
    }
    let mut path = Vec::new();
    let mut rest = &inside_trimmed[root_end..];
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = after.find(']').ok_or_else(wrong)?;
            path.push(PathStep::Index(after[..end].parse().map_err(|_| wrong())?));
            rest = &after[end + 1..];
        } else {
            let after = rest.strip_prefix('.').ok_or_else(wrong)?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            if end == 0 {
                return Err(wrong());
            }
            path.push(PathStep::Field(after[..end].to_owned()));
            rest = &after[end..];
        }
    }
    Ok(Reference { root: root.to_owned(), path })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${{{}", self.root)?;
        for step in &self.path {
            match step {
                PathStep::Field(name) => write!(f, ".{name}")?,
                PathStep::Index(index) => write!(f, "[{index}]")?,
            }
        }
        f.write_str("}")
    }
}

/// Whether `text` may be the name of a node.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_parse_and_print_back() {
        for text in ["${a}", "${a.b}", "${a[0].b-c[12]}", "${inputs.x}"] {
            let parts = parse_text(text).expect(text);
            let [TextPart::Reference(reference)] = parts.as_slice() else {
                panic!("{text} is one reference")
            };
            assert_eq!(reference.to_string(), text);
        }
        for text in ["${", "${}", "${a..b}", "${a[x]}", "${a[1}", "${a b}", "${.a}"] {
            assert!(parse_text(text).is_err(), "{text}");
        }
        assert_eq!(parse_text("cost $${x} now").expect("escaped"), [TextPart::Text("cost ${x} now".into())]);
        assert_eq!(parse_text("").expect("empty"), [TextPart::Text(String::new())]);
    }

    /// A text of a document may be as large as the document. Quadratic work on this one took hours.
    #[test]
    fn a_text_of_nothing_but_beginnings_is_read_in_one_go() {
        let text = "${".repeat(2_000_000);
        let (_, faults) = Template::read(&Json::of(text.as_str()));
        assert_eq!(faults.len(), 1);
        assert!(faults[0].len() < 500, "it is told in short");
    }

    #[test]
    fn what_is_wrong_with_one_reference_hides_no_other() {
        let text = Json::of("${a..b} ${c} ${d[x]} ${e ${f} ${d[x]} ${g");
        let (template, faults) = Template::read(&Json::list(&[Json::of("${"), text]));
        let roots: Vec<&str> =
            template.references().iter().map(|reference| reference.root.as_str()).collect();
        assert_eq!(roots, ["c", "f"]);
        let told: Vec<&str> = faults.iter().map(|fault| fault.split(" (").next().unwrap_or(fault)).collect();
        assert_eq!(
            told,
            [
                "a `${` without its `}` in \"${\"",
                "`${a..b}` is no reference",
                "`${d[x]}` is no reference",
                "a `${` without its `}` in \"${a..b} ${c} ${d[x]} ${e ${f} ${d[x]} ${g\"",
            ]
        );
    }

    #[test]
    fn plain_data_stays_text_and_references_are_found_however_they_are_written() {
        let parse = |text: &str| Template::parse(&Json::parse(text).expect(text));
        let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
        for plain in ["18446744073709551616", "{ \"a\" : 1e400 }", r#""\ud800""#, &deep] {
            assert_eq!(parse(plain), Ok(Template::Plain(Json::parse(plain).expect(plain))), "{plain}");
        }
        let reference = Template::Reference(parse_reference("a.b").expect("one"));
        assert_eq!(parse(r#""${a.b}""#), Ok(reference.clone()));
        assert_eq!(parse(r#""\u0024{a.b}""#), Ok(reference));
        assert_eq!(parse(r#""$${a}""#), Ok(Template::Plain(Json::of("${a}"))));
        let mixed = parse(r#"{"x": [1, "see ${a}"], "y": {"z": "${b[0]}"}}"#).expect("a template");
        let roots: Vec<&str> = mixed.references().iter().map(|reference| reference.root.as_str()).collect();
        assert_eq!(roots, ["a", "b"]);
        let too_deep = format!("{}\"${{a}}\"{}", "[".repeat(129), "]".repeat(129));
        assert_eq!(parse(&too_deep), Err("references nested deeper than 128 levels".to_owned()));
    }
}
