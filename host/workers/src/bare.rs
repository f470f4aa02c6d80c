//! Texts without what quotes their letters: two that differ in quoting alone are the same here.
//!
//! What must hold: a writer's spelling of a text reads as the text does, in the same reading or in the next one. A secret is
//! read as what its tool says is, so what looks like an escape and is not, in a path of Windows, is undone in both.

/// Most addresses that are read in one another: a secret may itself be one, and a library puts it into its own.
const ADDRESSES_MAX: usize = 4;

/// A character of a text whose escapes were undone, and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct Letter {
    pub(crate) character: char,
    pub(crate) begin: usize,
    pub(crate) end: usize,
}

/// The text as each reader has it: without escapes, and then with one address after the other read (`%252B`, `%2B`, `+`).
/// What was an address may have escapes of its own (`%5Cu00e4`), so they are undone in each.
pub(crate) fn readings(text: &str) -> impl Iterator<Item = Vec<Letter>> + use<> {
    readings_with(text, with_bytes_joined)
}

/// What a value may read as in a text that holds it, or a part of it.
pub(crate) fn spellings(value: &str) -> impl Iterator<Item = Vec<char>> {
    // A backslash in front of it, as of a path, seems to quote its first letter.
    let texts = [value.to_owned(), format!("\\{value}")];
    // Of letters that look like the bytes of another a text may have lost one at a cut.
    let in_part = |text: &str| readings_with(text, |letters| letters);
    let read = texts.into_iter().flat_map(move |text| readings(&text).chain(in_part(&text)));
    read.map(|letters| letters.iter().map(|letter| letter.character).collect())
}

fn readings_with(
    text: &str,
    finish: fn(Vec<Letter>) -> Vec<Letter>,
) -> impl Iterator<Item = Vec<Letter>> + use<> {
    let letter =
        |(begin, character): (usize, char)| Letter { character, begin, end: begin + character.len_utf8() };
    let as_it_is: Vec<Letter> = text.char_indices().map(letter).collect();
    let next = move |letters: &Vec<Letter>| read_address(letters).map(without_escapes).map(finish);
    std::iter::successors(Some(finish(without_escapes(as_it_is))), next).take(1 + ADDRESSES_MAX)
}

/// Without escapes, however many writers have quoted what another had quoted: a run of backslashes is none, and `\n`,
/// `\xe4`, `\u00e4` are what they stand for.
fn without_escapes(mut letters: Vec<Letter>) -> Vec<Letter> {
    // They become fewer, and those that are done stand in front.
    let (mut done, mut at) = (0, 0);
    while let Some((letter, length)) = next_letter(&letters[at..]) {
        at += length;
        letters[done] = Letter { character: no_blank(letter.character), ..letter };
        done += 1;
    }
    letters.truncate(done);
    letters
}

/// With one letter in place of its bytes, of which each was a character: Python shows bytes as `b'p\xc3\xa4ss'`, and an
/// address is of bytes. What that makes may be such bytes again.
fn with_bytes_joined(mut letters: Vec<Letter>) -> Vec<Letter> {
    let Some(first) = letters.iter().position(|letter| is_inside(letter.character)) else { return letters };
    let mut done = first;
    for at in first..letters.len() {
        letters[done] = letters[at];
        done += 1;
        while let Some((letter, length)) = last_of_bytes(&letters[..done]) {
            done -= length - 1;
            letters[done - 1] = letter;
        }
    }
    letters.truncate(done);
    letters
}

/// The first letter that is no backslash, with those in front of it; None where they quote nothing.
fn next_letter(letters: &[Letter]) -> Option<(Letter, usize)> {
    let mut at = 0;
    loop {
        let next = letters.get(at)?;
        let is_quoted = at > 0;
        let unquoted = if is_quoted { unquoted(&letters[at..]) } else { None };
        let (character, length) = unquoted.unwrap_or((next.character, 1));
        at += length;
        // Also one that is quoted by its number is one of the run.
        if character != '\\' {
            return Some((Letter { character, begin: letters[0].begin, end: letters[at - 1].end }, at));
        }
    }
}

/// The letter whose bytes, each as a character, these end with, and how many they are.
fn last_of_bytes(letters: &[Letter]) -> Option<(Letter, usize)> {
    let last = letters.last().filter(|last| is_inside(last.character))?;
    let begin =
        letters.iter().rev().take(4).position(|letter| matches!(letter.character, '\u{c2}'..='\u{f4}'))?;
    let of_letter = &letters[letters.len() - 1 - begin..];
    let mut bytes = [0; 4];
    for (byte, letter) in bytes.iter_mut().zip(of_letter) {
        *byte = u8::try_from(letter.character).ok()?;
    }
    let mut characters = str::from_utf8(&bytes[..of_letter.len()]).ok()?.chars();
    let (character, None) = (characters.next()?, characters.next()) else { return None };
    Some((Letter { character, begin: of_letter[0].begin, end: last.end }, of_letter.len()))
}

/// Whether it may be a byte of a letter, behind the first.
fn is_inside(character: char) -> bool {
    matches!(character, '\u{80}'..='\u{bf}')
}

/// The same with what the bytes of an address stand for; None where it has none.
fn read_address(letters: &[Letter]) -> Option<Vec<Letter>> {
    let first = (0..letters.len()).find(|at| of_an_address(&letters[*at..]).is_some())?;
    let mut read = letters[..first].to_vec();
    let mut rest = &letters[first..];
    while let Some(next) = rest.first() {
        let (character, length) = of_an_address(rest).unwrap_or((next.character, 1));
        read.push(Letter { character, begin: next.begin, end: rest[length - 1].end });
        rest = &rest[length..];
    }
    Some(read)
}

/// What a byte is written as in an address: `%2B`.
fn of_an_address(letters: &[Letter]) -> Option<(char, usize)> {
    let [Letter { character: '%', .. }, digits @ ..] = letters else { return None };
    Some((char::from_u32(number(digits, 2)?)?, 3))
}

/// An address writes `+` for a blank: here both are the same.
fn no_blank(character: char) -> char {
    if character == ' ' { '+' } else { character }
}

/// What stands behind a backslash, and its length there; None where that is only a character.
fn unquoted(letters: &[Letter]) -> Option<(char, usize)> {
    let (first, rest) = letters.split_first()?;
    match first.character {
        'n' => Some(('\n', 1)),
        'r' => Some(('\r', 1)),
        't' => Some(('\t', 1)),
        'b' => Some(('\u{8}', 1)),
        'f' => Some(('\u{c}', 1)),
        'x' => Some((char::from_u32(number(rest, 2)?)?, 3)),
        'U' => Some((char::from_u32(number(rest, 8)?)?, 9)),
        'u' => {
            let high = number(rest, 4)?;
            if let Some(character) = char::from_u32(high) {
                return Some((character, 5));
            }
            // A pair of surrogates is one character.
            let low = &rest[4..];
            let quotes = low.iter().take_while(|letter| letter.character == '\\').count();
            let [Letter { character: 'u', .. }, low @ ..] = &low[quotes..] else { return None };
            let low = number(low, 4)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
            let character = char::from_u32(0x10000 + (high.checked_sub(0xd800)? << 10) + low)?;
            Some((character, 5 + quotes + 5))
        }
        _ => None,
    }
}

/// The number that the first letters are, in hexadecimal digits.
fn number(letters: &[Letter], digits: usize) -> Option<u32> {
    let digits = letters.get(..digits)?.iter();
    digits
        .map(|digit| digit.character.to_digit(16))
        .try_fold(0u32, |number, digit| Some(number << 4 | digit?))
}
