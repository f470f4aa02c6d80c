//! What a line ends with that is no word of it.

/// What ESC is written as where a line is quoted.
const ESC_QUOTED: [&str; 6] = ["\x1b", "\\x1b", "\\u001b", "\\u{1b}", "\\033", "\\e"];

/// The line up to its last letter or digit, of any alphabet: who quotes a line, or colours it, writes signs behind it.
pub(crate) fn words(line: &str) -> &str {
    let mut line = line;
    loop {
        line = line.trim_end_matches(|sign: char| !sign.is_alphanumeric());
        match without_sequence(line) {
            Some(shorter) => line = shorter,
            None => return line,
        }
    }
}

/// Without a sequence for a terminal: `ESC[0m`, `ESC(B`.
fn without_sequence(line: &str) -> Option<&str> {
    let sequence = line.strip_suffix(|last: char| last.is_ascii_alphabetic())?;
    let sequence = sequence.trim_end_matches(|sign: char| sign.is_ascii_digit() || ";:?".contains(sign));
    let escape = sequence.strip_suffix(['[', '('])?;
    ESC_QUOTED.iter().find_map(|quoted| {
        let at = escape.len().checked_sub(quoted.len())?;
        escape.get(at..).filter(|end| end.eq_ignore_ascii_case(quoted)).map(|_| &escape[..at])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_with_its_last_letter_or_digit() {
        for (line, end) in [
            ("it is é1", "it is é1"),
            ("it is é1…\u{201d} \r\n", "it is é1"),
            ("it is 1\u{1b}[0m", "it is 1"),
            ("it is 1\u{1b}[38;5;1m.\u{1b}(B\u{1b}[m", "it is 1"),
            (r#"it is 1\\x1B[0m\u001b[K""#, "it is 1"),
            ("it is [0m", "it is [0m"),
            ("it is x[0m", "it is x[0m"),
            ("\u{1b}[0m", ""),
            ("…", ""),
        ] {
            assert_eq!(words(line), end, "{line:?}");
        }
    }
}
