//! Texts without what quotes their letters: two that differ in quoting alone are the same here.

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
pub(crate) fn readings(text: &str) -> impl Iterator<Item = Vec<Letter>> + use<> {
    std::iter::successors(Some(bare(text)), |letters| read_address(letters)).take(1 + ADDRESSES_MAX)
}

/// A text without escapes, however many writers have quoted what another had quoted: a run of backslashes is none, and
/// `\n`, `\xe4`, `\u00e4` are what they stand for.
fn bare(text: &str) -> Vec<Letter> {
    let mut letters = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let begin = text.len() - rest.len();
        let after = rest.trim_start_matches('\\');
        let (character, length) = match after.chars().next() {
            // At the end of the text they quote nothing.
            None => break,
            Some(next) if first == '\\' => unquoted(after).unwrap_or((next, next.len_utf8())),
            Some(next) => (next, next.len_utf8()),
        };
        rest = &after[length..];
        letters.push(Letter { character: no_blank(character), begin, end: text.len() - rest.len() });
    }
    letters
}

/// The same with what the bytes of an address stand for; None where it has none.
fn read_address(letters: &[Letter]) -> Option<Vec<Letter>> {
    let first = (0..letters.len()).find(|at| of_an_address(&letters[*at..]).is_some())?;
    let mut read = letters[..first].to_vec();
    let mut rest = &letters[first..];
    while let Some(next) = rest.first() {
        let (character, length) = of_an_address(rest).unwrap_or((next.character, 1));
        // A backslash of an address quotes as well.
        if character != '\\' {
            read.push(Letter {
                character: no_blank(character),
                begin: next.begin,
                end: rest[length - 1].end,
            });
        }
        rest = &rest[length..];
    }
    Some(read)
}

/// What a byte is written as in an address: `%2B`.
fn of_an_address(letters: &[Letter]) -> Option<(char, usize)> {
    let [Letter { character: '%', .. }, high, low, ..] = letters else { return None };
    let byte = high.character.to_digit(16)? * 16 + low.character.to_digit(16)?;
    Some((char::from_u32(byte)?, 3))
}

/// An address writes `+` for a blank: here both are the same.
fn no_blank(character: char) -> char {
    if character == ' ' { '+' } else { character }
}

/// What stands behind a backslash, and its length there; None where that is only a character.
fn unquoted(text: &str) -> Option<(char, usize)> {
    let number = |digits: usize| {
        let digits =
            text.get(1..=digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        u32::from_str_radix(digits, 16).ok()
    };
    match text.as_bytes().first()? {
        b'n' => Some(('\n', 1)),
        b'r' => Some(('\r', 1)),
        b't' => Some(('\t', 1)),
        b'x' => Some((char::from_u32(number(2)?)?, 3)),
        b'U' => Some((char::from_u32(number(8)?)?, 9)),
        b'u' => {
            let high = number(4)?;
            if let Some(character) = char::from_u32(high) {
                return Some((character, 5));
            }
            // A pair of surrogates is one character.
            let low = text.get(5..)?;
            let quotes = low.len() - low.trim_start_matches('\\').len();
            let low = low.get(quotes..)?.strip_prefix('u')?.get(..4)?;
            let low = u32::from_str_radix(low, 16).ok()?.checked_sub(0xdc00)?;
            let character = char::from_u32(0x10000 + (high.checked_sub(0xd800)? << 10) + low)?;
            Some((character, 5 + quotes + 5))
        }
        _ => None,
    }
}
