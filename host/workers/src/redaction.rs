//! Strikes out the secrets of a capability from what its tool says, before it is written or shown: lines, frames of the
//! link, answers. A tool may print its settings, and a library put a token into its exception.
//!
//! What must hold: whoever reads from a worker hands on [`Said`], which nobody can look into. There are two ways out of it:
//! through a [`Redaction`], or as a result, which is its caller's as it is.
//!
//! Values are looked for as they are, with the escapes of any writer (JSON, Python's `repr`, addresses, one in the other), line by
//! line, and as what begins one at the end of a line. Values and lines shorter than [`SECRET_BYTES_MIN`] would strike out innocent words and are left; whoever sets such
//! a one is told by [`is_struck_out`].

use crate::bare::{Letter, readings, spellings};
use crate::line_end;
use crate::secret_parts::{Parts, Rows};
use bytes::Bytes;
use cjm_wire::cut;
use cjm_wire::error::{JobErrorBody, MESSAGE_BYTES_MAX};
use cjm_wire::http::DetailBody;
use cjm_wire::long_numbers::long_numbers_as_text;
use cjm_wire::ndjson::Line;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::ops::Range;

/// Shortest value that is struck out, and shortest line of one.
pub const SECRET_BYTES_MIN: usize = 8;
/// Shortest part of a value that is struck out where a text was cut through it.
const PART_BYTES_MIN: usize = 4;
/// Most that quoting makes of one letter: four bytes, each with eight backslashes in front of it. A pair of surrogates, or
/// what addresses in one another make of a byte, is less.
const QUOTED_BYTES_MAX: usize = 4 * (8 + 3);
/// Most methods that are taken of a list of them, and most of the name of one.
const METHODS_MAX: usize = 32;
const METHOD_BYTES_MAX: usize = 100;
/// What an escape begins with: that of a text, or that of an address; and what an address has for a blank.
const QUOTES: [u8; 3] = [b'\\', b'%', b'+'];
/// What stands in its place.
const MARK: &str = "[secret]";

/// Whether a value of a secret, or a line of one, is struck out of what its tool says.
#[must_use]
pub fn is_struck_out(text: &str) -> bool {
    text.trim().len() >= SECRET_BYTES_MIN
}

/// What a worker said, as it came.
pub(crate) struct Said(Bytes);

impl Said {
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// What a call brought, for its caller alone, also where the tool gives a secret back on purpose; or what is compared
    /// and never shown.
    pub(crate) fn result(self) -> Bytes {
        self.0
    }

    /// Whether it is UTF-8.
    pub(crate) fn is_text(&self) -> bool {
        std::str::from_utf8(&self.0).is_ok()
    }

    /// The chunk of a stream, which is a result; itself if it is none.
    pub(crate) fn chunk(self) -> Result<Box<RawValue>, Self> {
        let line = std::str::from_utf8(&self.0).map(|line| Line::read(line.to_owned()));
        match line {
            Ok(Ok(Line::Chunk(chunk))) => Ok(chunk),
            _ => Err(self),
        }
    }
}

/// What ended a stream.
pub(crate) enum LastLine {
    Cancelled,
    Failed(Box<JobErrorBody>),
}

/// The values of one worker, longest first.
#[derive(Default)]
pub(crate) struct Redaction {
    values: Vec<String>,
    parts: Parts<u8>,
    rows: Rows<PART_BYTES_MIN>,
    /// The same without their escapes, and as each reader of an address has them.
    bare: Parts<char>,
    /// Letters of the longest of them, as it is.
    letters_max: usize,
    /// What the text of a value may have instead of it.
    quotes: [u8; 3],
}

impl Redaction {
    pub(crate) fn of(secrets: &Map<String, Value>) -> Self {
        let secrets = secrets.values().filter_map(Value::as_str);
        let each_line = secrets.flat_map(|secret| std::iter::once(secret).chain(secret.split(['\n', '\r'])));
        let as_they_are: Vec<&str> = each_line.map(str::trim).filter(|value| is_struck_out(value)).collect();
        let mut values = Vec::new();
        for value in &as_they_are {
            let quoted = Value::from(*value).to_string();
            let escaped = quoted[1..quoted.len() - 1].to_owned();
            values.extend([ascii_only(&escaped), escaped, (*value).to_owned()]);
        }
        values.sort_unstable_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        values.dedup();
        let mut bare: Vec<Vec<char>> = as_they_are.iter().flat_map(|value| spellings(value)).collect();
        bare.sort_unstable();
        bare.dedup();
        bare.retain(|value| value.iter().map(|letter| letter.len_utf8()).sum::<usize>() >= SECRET_BYTES_MIN);
        let (parts, rows) = (Parts::of(&values), Rows::of(&values));
        let has_blank = values.iter().any(|value| value.contains(' '));
        let quotes = if has_blank { QUOTES } else { [b'\\', b'%', b'%'] };
        let letters_max = as_they_are.iter().map(|value| value.chars().count()).max().unwrap_or(0);
        Self { parts, rows, bare: Parts::of(&bare), letters_max, quotes, values }
    }

    /// The words, as text.
    pub(crate) fn words(&self, said: &Said) -> String {
        self.text(&String::from_utf8_lossy(&said.0)).into_owned()
    }

    /// The first of them, and how many bytes more there are. What they are of has no maximum, and is looked at only so far.
    pub(crate) fn first_words(&self, said: &Said, bytes_max: usize) -> String {
        let is_letter = |at: &usize| said.0.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
        let at = said.0.len().min(bytes_max);
        let at = (at.saturating_sub(3)..=at).rev().find(is_letter).unwrap_or(at);
        let (first, rest) = said.0.split_at(at);
        let mut words = String::from_utf8_lossy(first).into_owned();
        if !rest.is_empty() {
            words.push_str(&cut::mark(rest.len()));
        }
        self.text(&words).into_owned()
    }

    /// The failure that it tells; none where it tells something else. A tool says as much as it likes: first it is made as
    /// long as a failure may be, and only then are values looked for.
    pub(crate) fn failure(&self, said: &Said) -> Option<JobErrorBody> {
        self.struck(serde_json::from_slice(&said.0).ok()?)
    }

    fn struck(&self, body: JobErrorBody) -> Option<JobErrorBody> {
        let body = JobErrorBody { job_error: body.job_error.shortened() };
        if self.values.is_empty() {
            return Some(body);
        }
        self.typed(serde_json::to_value(body).ok()?).ok()
    }

    /// The detail that it tells, likewise, and the methods that it lists.
    pub(crate) fn detail(&self, said: &Said) -> Option<DetailBody> {
        let body: DetailBody = serde_json::from_slice(&said.0).ok()?;
        let short = |text: &str, max| self.text(&cut::without_middle(text, max)).into_owned();
        let methods =
            body.methods.iter().take(METHODS_MAX).map(|name| short(name, METHOD_BYTES_MAX)).collect();
        Some(DetailBody { detail: short(&body.detail, MESSAGE_BYTES_MAX), methods })
    }

    /// The last line of a stream, likewise.
    ///
    /// # Errors
    /// When it is neither a failure nor a cancellation, with what is wrong if it is no JSON either.
    pub(crate) fn last_line(&self, said: &Said) -> Result<LastLine, Option<serde_json::Error>> {
        match Line::read(String::from_utf8_lossy(&said.0).into_owned()) {
            Ok(Line::Cancelled) => Ok(LastLine::Cancelled),
            Ok(Line::Failed(body)) => self.struck(*body).map(Box::new).map(LastLine::Failed).ok_or(None),
            Ok(Line::Chunk(_)) => Err(None),
            Err(fault) => Err(Some(fault)),
        }
    }

    /// The words of a JSON text. They are struck out after it was read, because a writer may escape any character. No number
    /// is rounded: a secret may be one.
    ///
    /// # Errors
    /// When it is no JSON, or not that of a `T`.
    pub(crate) fn read<T: DeserializeOwned>(&self, said: &Said) -> serde_json::Result<T> {
        let json = long_numbers_as_text(&said.0);
        if self.values.is_empty() {
            return serde_json::from_slice(&json);
        }
        self.typed(serde_json::from_slice(&json)?)
    }

    /// A number that holds a secret becomes text; where it can be a number alone it is left out, or 0, as a share that is done:
    /// nothing else that a tool says is lost for it.
    fn typed<T: DeserializeOwned>(&self, said: Value) -> serde_json::Result<T> {
        let as_text = |struck: Cow<'_, str>| struck.into_owned().into();
        serde_json::from_value(self.value(said.clone(), &as_text))
            .or_else(|_| serde_json::from_value(self.value(said.clone(), &|_| Value::Null)))
            .or_else(|_| serde_json::from_value(self.value(said, &|_| 0.into())))
    }

    /// What may be shown of it: JSON stays JSON.
    pub(crate) fn answer(&self, said: &Said) -> Bytes {
        if self.values.is_empty() {
            return said.0.clone();
        }
        let json: serde_json::Result<Value> = serde_json::from_slice(&long_numbers_as_text(&said.0));
        let words = json.map(|value| self.value(value, &|struck| struck.into_owned().into()).to_string());
        words.unwrap_or_else(|_| self.words(said)).into()
    }

    /// The text without the values, and without the parts of one wherever it was cut.
    pub(crate) fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut struck = self.whole_at_the_cuts(text);
        if self.values.iter().any(|value| struck.contains(value.as_str())) {
            let places = self.parts.places(struck.as_bytes(), |byte| *byte);
            struck = without_places(&struck, places).map_or(struck, Cow::Owned);
        }
        if self.may_quote(&struck)
            && let Some(without) = without_places(&struck, self.escaped_places(&struck))
        {
            struck = Cow::Owned(without);
        }
        match self.without_begun(&struck) {
            Some(without) => Cow::Owned(without),
            None => struck,
        }
    }

    /// The text without what begins a value at the end of a line, as long as a value has to be; None where nothing does. Who
    /// is killed, or ends without a newline, has written no more of it, and somebody may have quoted the line.
    fn without_begun(&self, text: &str) -> Option<String> {
        let mut places = Vec::new();
        let mut begin = 0;
        for line in text.split_inclusive('\n').filter(|_| !self.values.is_empty()) {
            places.extend(self.begun(line).map(|place| begin + place.start..begin + place.end));
            begin += line.len();
        }
        without_places(text, places)
    }

    /// What begins a value in front of the signs that a line ends with, or of some of them: a value has signs of its own.
    fn begun(&self, line: &str) -> Option<Range<usize>> {
        let words = line_end::words(line).len();
        let of_escape = line.as_bytes()[..words].iter().rev().take(QUOTED_BYTES_MAX);
        let of_escape = of_escape.take_while(|byte| is_of_escape(byte)).count();
        // The line may end inside an escape, which then begins with one of the last signs.
        let half = (words - of_escape..words).find(|at| begins_escape(line.as_bytes()[*at]));
        let first_end = half.unwrap_or(words);
        let plain = self.parts.begun(line.as_bytes(), first_end, |byte| *byte);
        // Another letter may begin with the same bytes.
        let plain = plain.filter(|place| line.is_char_boundary(place.end));
        let is_long = |place: &Range<usize>| place.len() >= SECRET_BYTES_MIN;
        let mut begun = plain.filter(is_long).reduce(both);
        let window = line.ceil_char_boundary(first_end.saturating_sub(self.window()));
        if self.may_quote(&line[window..]) {
            for letters in readings(&line[window..]) {
                let before = letters.partition_point(|letter| window + letter.end < first_end);
                let places = self.bare.begun(&letters, before + 1, |letter| letter.character);
                let places = places.filter(|place| place.len() >= PART_BYTES_MIN);
                let places = places
                    .map(|place| window + letters[place.start].begin..window + letters[place.end - 1].end);
                begun = places.filter(is_long).chain(begun).reduce(both);
            }
        }
        begun
    }

    /// How much of the end of `head` and of the beginning of `rest` is part of a value that was cut between them.
    pub(crate) fn cut(&self, head: &[u8], rest: &[u8]) -> (usize, usize) {
        let before = self.parts.at_end(head, |byte| *byte);
        let behind = self.parts.at_beginning(rest, |byte| *byte);
        let before = long_enough(before).unwrap_or(0).max(self.escaped_before(head));
        let behind = long_enough(behind).unwrap_or(0).max(self.escaped_behind(rest));
        // A whole value of which only the end, or the beginning, went with the cut would be known by nobody.
        let window = self.window();
        let head = &head[head.len().saturating_sub(before + window)..];
        let rest = &rest[..rest.len().min(behind + window)];
        let at = head.len() - before;
        (
            self.whole_at(head, at).map_or(before, |whole| head.len() - whole.start),
            self.whole_at(rest, behind).map_or(behind, |whole| whole.end),
        )
    }

    /// The value, or those that overlap, on both sides of this place; as it is or escaped.
    fn whole_at(&self, text: &[u8], at: usize) -> Option<Range<usize>> {
        let is_there = |whole: &Range<usize>| whole.start < at && at < whole.end;
        let plain = self.parts.places(text, |byte| *byte).into_iter().find(is_there);
        let skipped = text.iter().take_while(|byte| is_inside_a_letter(**byte)).count();
        let escaped = || {
            let text = valid_utf8(&text[skipped..]);
            let places = self.may_quote(text).then(|| self.escaped_places(text))?;
            let places = places.into_iter().map(|place| skipped + place.start..skipped + place.end);
            places.filter(is_there).reduce(both)
        };
        plain.or_else(escaped)
    }

    /// Where values stand in the text with escapes.
    fn escaped_places(&self, text: &str) -> Vec<Range<usize>> {
        let places = |letters: Vec<Letter>| {
            let places = self.bare.places(&letters, |letter| letter.character).into_iter();
            places.map(move |place| letters[place.start].begin..letters[place.end - 1].end)
        };
        readings(text).flat_map(places).collect()
    }

    /// The same of the end of `head` where a writer has escaped the value, perhaps with half an escape at the cut.
    fn escaped_before(&self, head: &[u8]) -> usize {
        let window = &head[head.len().saturating_sub(self.window())..];
        let begin = window.iter().take_while(|byte| is_inside_a_letter(**byte)).count();
        let Ok(window) = std::str::from_utf8(&window[begin..]) else { return 0 };
        // The text may end inside an escape, which then begins with one of its last signs.
        let of_escape = window.bytes().rev().take(QUOTED_BYTES_MAX).take_while(is_of_escape).count();
        let is_begin = |at: &usize| begins_escape(window.as_bytes()[*at]);
        let ends = (window.len() - of_escape..window.len()).filter(is_begin);
        let ends = ends.chain(self.may_quote(window).then_some(window.len()));
        let struck = ends.flat_map(|end| readings(&window[..end])).filter_map(|letters| {
            let length = self.bare.at_end(&letters, |letter| letter.character);
            let part = &letters[letters.len() - length..];
            is_long_enough(part).then(|| window.len() - part[0].begin)
        });
        struck.max().unwrap_or(0)
    }

    /// The same of the beginning of `rest`.
    fn escaped_behind(&self, rest: &[u8]) -> usize {
        let window = &rest[..rest.len().min(self.window())];
        let end = std::str::from_utf8(window).map_or_else(|error| error.valid_up_to(), str::len);
        let Ok(window) = std::str::from_utf8(&window[..end]) else { return 0 };
        let ends_escape = |byte: &u8| is_of_escape(byte) || matches!(byte, b'n' | b'r' | b't');
        let skipped_max = window.bytes().take(QUOTED_BYTES_MAX).take_while(ends_escape).count();
        if skipped_max == 0 && !self.may_quote(window) {
            return 0;
        }
        let readings = (0..=skipped_max)
            .flat_map(|skipped| readings(&window[skipped..]).map(move |letters| (skipped, letters)));
        let struck = readings.filter_map(|(skipped, letters)| {
            let length = self.bare.at_beginning(&letters, |letter| letter.character);
            is_long_enough(&letters[..length]).then(|| skipped + letters[length - 1].end)
        });
        struck.max().unwrap_or(0)
    }

    /// Whether a text may have something else instead of what is in a value. Most have nothing, so many bytes are looked at at
    /// once.
    fn may_quote(&self, text: &str) -> bool {
        let [one, another, third] = self.quotes;
        let is_any = |any, byte: &u8| any | (*byte == one) | (*byte == another) | (*byte == third);
        text.as_bytes().chunks(64).any(|bytes| bytes.iter().fold(false, is_any))
    }

    /// In so many bytes stands all of a value, however it is quoted.
    fn window(&self) -> usize {
        self.letters_max * QUOTED_BYTES_MAX
    }

    /// The text without the parts of values that stand at any of the marks which say that it was cut.
    fn whole_at_the_cuts<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.values.is_empty() {
            return Cow::Borrowed(text);
        }
        let cuts: Vec<cut::Cut> = cut::cuts(text).collect();
        if cuts.is_empty() {
            return Cow::Borrowed(text);
        }
        // What stands between the marks, and how much of its beginning and of its end is to go.
        let begins = std::iter::once(0).chain(cuts.iter().map(|cut| cut.place.end));
        let ends = cuts.iter().map(|cut| cut.place.start).chain([text.len()]);
        let pieces: Vec<&str> = begins.zip(ends).map(|(begin, end)| &text[begin..end]).collect();
        let last = pieces.len() - 1;
        let gone = |(at, piece): (usize, &&str)| {
            let bytes = piece.as_bytes();
            let (before, _) = self.cut(if at < last { bytes } else { b"" }, b"");
            let (_, behind) = self.cut(b"", if at > 0 { bytes } else { b"" });
            let is_inside = at > 0 && at < last && self.rows.hold(piece);
            // What both are part of goes whole, and what lies between two cuts inside a value.
            if is_inside || before + behind > piece.len() { (piece.len(), 0) } else { (behind, before) }
        };
        let gone: Vec<(usize, usize)> = pieces.iter().enumerate().map(gone).collect();
        let mut out = String::with_capacity(text.len());
        for (at, (piece, (first, behind))) in pieces.iter().zip(&gone).enumerate() {
            out.push_str(&piece[*first..piece.len() - behind]);
            if let Some(cut) = cuts.get(at) {
                out.push_str(&cut::mark(cut.dropped.saturating_add(behind + gone[at + 1].0)));
            }
        }
        Cow::Owned(out)
    }

    /// `of_number` makes of a number that was struck what it is shown as.
    fn value(&self, value: Value, of_number: &dyn Fn(Cow<'_, str>) -> Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text).into_owned()),
            Value::Number(number) => match self.text(&number.to_string()) {
                struck @ Cow::Owned(_) => of_number(struck),
                Cow::Borrowed(_) => Value::Number(number),
            },
            Value::Array(items) => items.into_iter().map(|item| self.value(item, of_number)).collect(),
            Value::Object(map) => {
                let struck = |(name, value): (String, Value)| {
                    (self.text(&name).into_owned(), self.value(value, of_number))
                };
                map.into_iter().map(struck).collect()
            }
            other => other,
        }
    }
}

/// Both places, and what lies between them.
fn both(one: Range<usize>, other: Range<usize>) -> Range<usize> {
    one.start.min(other.start)..one.end.max(other.end)
}

/// The text with a mark in each of these places; None where there are none.
fn without_places(text: &str, mut places: Vec<Range<usize>>) -> Option<String> {
    if places.is_empty() {
        return None;
    }
    places.sort_unstable_by_key(|place| place.start);
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for place in places {
        // Two that overlap are one.
        if place.start >= copied {
            out.push_str(&text[copied..place.start]);
            out.push_str(MARK);
        }
        copied = copied.max(place.end);
    }
    Some(out + &text[copied..])
}

/// What an escape begins with.
fn begins_escape(byte: u8) -> bool {
    matches!(byte, b'\\' | b'%')
}

/// What a number of a character may be written with.
fn is_of_escape(byte: &u8) -> bool {
    matches!(byte, b'\\' | b'%' | b'u' | b'U' | b'x') || byte.is_ascii_hexdigit()
}

fn is_inside_a_letter(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// As much of it as is text: the rest may be half a letter.
fn valid_utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes)
        .unwrap_or_else(|error| std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default())
}

/// A part that is not any word's.
fn long_enough(length: usize) -> Option<usize> {
    Some(length).filter(|length| *length >= PART_BYTES_MIN)
}

/// The same of letters: their bytes count, however they are written.
fn is_long_enough(letters: &[Letter]) -> bool {
    letters.iter().map(|letter| letter.character.len_utf8()).sum::<usize>() >= PART_BYTES_MIN
}

/// As writers do that write ASCII alone: every other character by its number.
fn ascii_only(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii
}

impl std::fmt::Debug for Redaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redaction of {} values", self.values.len())
    }
}

#[cfg(test)]
mod tests;
