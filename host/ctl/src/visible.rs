//! Characters that a terminal obeys are shown instead: what tools, names and errors say must not move the cursor, change
//! a title or hide text. JSON has its own escapes and does not come through here.

use std::borrow::Cow;
use std::fmt::Write;

/// The text with every control character but newline and tab shown as an escape (`\x1b`, `\u{202e}`), also those that
/// turn the direction of writing.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    shown(text, |c| is_obeyed(c) && c != '\n' && c != '\t')
}

/// [`visible`], and newlines and tabs shown too: for names and other text that has one line.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    shown(text, is_obeyed)
}

/// A JSON text whose strings hold no character that a terminal obeys: the same value, written with escapes.
pub(crate) fn visible_json(text: &str) -> Cow<'_, str> {
    // Looked for by the bytes that they begin with first: a result may have tens of megabytes.
    let may_begin = |byte: u8| matches!(byte, 0..=9 | 11..=31 | 0x7f | 0xc2 | 0xe2);
    if !text.bytes().any(may_begin) || !text.chars().any(|c| is_obeyed(c) && c != '\n') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) && c != '\n' {
            // If writing to a string failed, it would only be shorter. All of them have four digits.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn shown(text: &str, is_hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        // If writing to a string failed, it would only be shorter.
        let _ = match c {
            _ if !is_hidden(c) => write!(out, "{c}"),
            '\n' => out.write_str("\\n"),
            '\t' => out.write_str("\\t"),
            '\r' => out.write_str("\\r"),
            _ if u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c)),
            _ => write!(out, "\\u{{{:x}}}", u32::from(c)),
        };
    }
    Cow::Owned(out)
}

/// Control characters of both ranges, and those that reorder what follows them.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_and_all_else_stays() {
        for (text, shown) in [
            ("plain ☃ äöü", "plain ☃ äöü"),
            ("two\nlines\tand a tab", "two\nlines\tand a tab"),
            ("\u{1b}[31mred\u{1b}]0;title\u{7}", "\\x1b[31mred\\x1b]0;title\\x07"),
            ("over\rwritten", "over\\rwritten"),
            ("c1 \u{9b}2J", "c1 \\x9b2J"),
            ("exe\u{202e}gnp.x", "exe\\u{202e}gnp.x"),
        ] {
            assert_eq!(visible(text), shown, "{text:?}");
        }
        assert_eq!(one_line("a\nb\tc"), "a\\nb\\tc");
        assert!(matches!(visible("as it is"), Cow::Borrowed(_)), "nothing is copied without need");
    }

    /// Each of them, alone: none is missed by the bytes that it begins with.
    #[test]
    fn every_character_that_a_terminal_obeys_is_seen_in_json() {
        let obeyed = ('\0'..=char::MAX).filter(|c| is_obeyed(*c) && *c != '\n');
        for c in obeyed {
            assert!(matches!(visible_json(&c.to_string()), Cow::Owned(_)), "{c:?}");
        }
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({"a\u{9b}": "x\u{7f}\u{202e}y", "b": ["\u{1b}", 1]});
        let text = serde_json::to_string_pretty(&value).expect("writes");
        let shown = visible_json(&text);
        assert!(!shown.chars().any(|c| is_obeyed(c) && c != '\n'), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("reads"), value);
    }
}
