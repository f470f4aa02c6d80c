//! How a text that is too long is shortened, wherever that is done before its host has looked at it.
//!
//! What must hold: every cut leaves the one mark, with how much is missing. The host strikes out what a tool must not say,
//! and of a value that was cut in two it finds the parts by the mark alone; a cut that left none would show all but a
//! letter of a password.

use std::borrow::Cow;
use std::ops::Range;

/// How the mark ends; before it stands `[` and the number.
const MARK_END: &str = " bytes dropped here]";
/// Most digits of a number.
const DIGITS_MAX: usize = 20;
/// Longest mark.
pub const MARK_BYTES_MAX: usize = 1 + DIGITS_MAX + MARK_END.len();

/// Where a text was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Where the mark stands.
    pub place: Range<usize>,
    /// How many bytes are missing.
    pub dropped: usize,
}

/// What stands for so many bytes.
#[must_use]
pub fn mark(dropped: usize) -> String {
    format!("[{dropped}{MARK_END}")
}

/// Where a text was cut, from its beginning on.
pub fn cuts(text: &str) -> impl Iterator<Item = Cut> + '_ {
    text.match_indices(MARK_END).filter_map(|(at, _)| {
        let before = &text.as_bytes()[..at];
        let digits = before.iter().rev().take(DIGITS_MAX).take_while(|byte| byte.is_ascii_digit()).count();
        let begin = at.checked_sub(digits + 1).filter(|begin| before[*begin] == b'[')?;
        let dropped = text[begin + 1..at].parse().ok()?;
        Some(Cut { place: begin..at + MARK_END.len(), dropped })
    })
}

/// The text; of one that is longer its beginning and its end, as many bytes as are allowed, and between them how many are
/// missing. What was cut so is not cut again, though it is longer by the mark; a mark is never cut in two, and what one says
/// that goes is counted.
#[must_use]
pub fn without_middle(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max + MARK_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let half = bytes_max / 2;
    let gap = text.floor_char_boundary(half)..text.ceil_char_boundary(text.len() - half);
    Cow::Owned(without(text, gap))
}

/// The text; of one that is longer its beginning, and how many bytes are missing behind it.
#[must_use]
pub fn beginning(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max + MARK_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    Cow::Owned(without(text, text.floor_char_boundary(bytes_max)..text.len()))
}

/// The text; of one that is longer its end, and how many bytes are missing before it.
#[must_use]
pub fn end(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max + MARK_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    Cow::Owned(without(text, 0..text.ceil_char_boundary(text.len() - bytes_max)))
}

/// Of bytes that were cut between these two: how many at the end of the one and at the beginning of the other are half of a
/// mark, which would tell nobody any more that the text was cut there before.
#[must_use]
pub fn halves(head: &[u8], rest: &[u8]) -> (usize, usize) {
    let is_number = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_digit);
    let begins = |bytes: &&[u8]| {
        let digits = bytes[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        bytes[0] == b'[' && MARK_END.as_bytes().starts_with(&bytes[1 + digits..])
    };
    let ends = |bytes: &&[u8]| match bytes.strip_suffix(MARK_END.as_bytes()) {
        Some(number) => is_number(number),
        None => MARK_END.as_bytes().ends_with(bytes),
    };
    let before =
        (1..MARK_BYTES_MAX.min(head.len() + 1)).map(|length| &head[head.len() - length..]).find(begins);
    let behind = (1..MARK_BYTES_MAX.min(rest.len() + 1)).rev().map(|length| &rest[..length]).find(ends);
    (before.map_or(0, <[u8]>::len), behind.map_or(0, <[u8]>::len))
}

/// The text without what stands there, and the marks that this would touch as one.
fn without(text: &str, gap: Range<usize>) -> String {
    let (mut begin, mut end, mut dropped, mut marks) = (gap.start, gap.end, 0_usize, 0);
    for cut in cuts(text).filter(|cut| cut.place.start <= gap.end && cut.place.end >= gap.start) {
        (begin, end) = (begin.min(cut.place.start), end.max(cut.place.end));
        dropped = dropped.saturating_add(cut.dropped);
        marks += cut.place.len();
    }
    // A mark may be longer than what it stands for.
    let dropped = dropped.saturating_add(end - begin - marks);
    format!("{}{}{}", &text[..begin], mark(dropped), &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_says_how_much_is_missing_and_a_mark_is_never_cut_in_two() {
        let long = format!("{}é{}", "a".repeat(100), "b".repeat(101));
        assert_eq!(without_middle(&long, 20), format!("{}{}{}", "a".repeat(10), mark(183), "b".repeat(10)));
        assert_eq!(without_middle(&long, 203), long);
        assert_eq!(beginning(&long, 101), format!("{}{}", "a".repeat(100), mark(103)), "no half of a letter");
        assert_eq!(end(&long, 102), format!("{}{}", mark(102), "b".repeat(101)));
        let short = format!("{}{}{}", "a".repeat(50), mark(5), "b".repeat(50));
        assert_eq!(without_middle(&short, 40), format!("{}{}{}", "a".repeat(20), mark(65), "b".repeat(20)));
        let once = without_middle(&long, 20);
        assert_eq!(without_middle(&once, 20), once, "what was cut is not cut again");
        for shorten in [without_middle, beginning, end] {
            let longest = "a".repeat(20 + MARK_BYTES_MAX);
            assert_eq!(shorten(&longest, 20), longest, "no longer than what is left of a longer one");
            assert_eq!(cuts(&shorten(&format!("{longest}a"), 20)).count(), 1);
        }
        // Wherever the second cut falls, what is left and what is missing make the whole.
        for at in 0..200 {
            let said = format!("{}{}{}", "x".repeat(at), mark(1000), "y".repeat(200 - at));
            for shown in [without_middle(&said, 100), beginning(&said, 100), end(&said, 100)] {
                let left: usize = cuts(&shown).map(|cut| cut.place.len()).sum();
                let dropped: usize = cuts(&shown).map(|cut| cut.dropped).sum();
                assert_eq!(shown.len() - left + dropped, 1200, "{at}: {shown}");
                assert_eq!(shown.matches('[').count(), cuts(&shown).count(), "{at}: {shown}");
            }
        }
    }

    #[test]
    fn half_a_mark_is_found_wherever_it_was_cut() {
        let mark = mark(1234);
        for at in 1..mark.len() {
            let (head, rest) = (format!("it is [1] {}", &mark[..at]), format!("{} and more", &mark[at..]));
            assert_eq!(halves(head.as_bytes(), rest.as_bytes()), (at, mark.len() - at), "{at}");
        }
        assert_eq!(halves(b"words", b"bytes dropped"), (0, 0));
        assert_eq!(halves(b"", b""), (0, 0));
    }

    #[test]
    fn a_mark_is_one_with_a_number_alone() {
        let found = |text: &str| cuts(text).map(|cut| (cut.place, cut.dropped)).collect::<Vec<_>>();
        assert_eq!(
            found("[5 bytes dropped here][67 bytes dropped here]"),
            [(0..22, 5), (22..45, 67)],
            "each of them"
        );
        for none in [
            "5 bytes dropped here]",
            "[é bytes dropped here]",
            "[ bytes dropped here]",
            "[99999999999999999999 bytes dropped here]",
            "",
        ] {
            assert_eq!(found(none), [], "{none}");
        }
        let largest = mark(usize::MAX);
        assert_eq!(found(&largest), [(0..MARK_BYTES_MAX, usize::MAX)]);
    }
}
