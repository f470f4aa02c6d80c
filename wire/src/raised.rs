//! What a Python traceback says was raised besides its last exception: those before it in its chain, and those it groups.

use crate::cut::{cuts, without_middle};

/// What Python writes between two exceptions of a chain.
const CHAIN_WORDS: [&str; 2] = [
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
];
/// What it writes above the frames of one, and of a group.
const TRACEBACK_BEGINS: [&str; 2] =
    ["Traceback (most recent call last)", "Exception Group Traceback (most recent call last)"];
/// Most exceptions of a chain that are told beside the last one, and the longest line of one, in bytes.
const CHAIN_MAX: usize = 6;
const RAISED_BYTES_MAX: usize = 300;
/// Most members of a group that are told.
const MEMBERS_MAX: usize = 3;
/// How the words end that stand for exceptions that are left out; before them stands `[` and their number. The Python SDK
/// writes the same where it leaves out the middle of a long chain: `LEFT_OUT_END` in its `errors.py`.
const LEFT_OUT_END: &str = " exceptions left out here]";
/// How Python parts the members of a group: the first one, all others, and those of a member that is a group itself.
const FIRST_MEMBER: &str = "  +-+---------------- ";
const NEXT_MEMBER: &str = "    +---------------- ";
const INNER_MEMBER: &str = "    +-+---------------- ";
/// As wide as what stands before each line of a group.
const GROUP_MARGIN: &str = "  | ";
/// How the words of a group end, behind their number.
const GROUP_ENDS: [&str; 2] = [" sub-exceptions)", " sub-exception)"];

/// The last line of each exception of a chain but of the last one, as Python writes chains; the nearest first. Of a long chain
/// the middle is left out: what was raised first is what most often says why.
pub(crate) fn before_the_last(traceback: &str) -> Vec<String> {
    let lines: Vec<&str> = traceback.lines().collect();
    let parts = chain(&lines);
    let Some((_, before)) = parts.split_last() else { return Vec::new() };
    let mut raised: Vec<String> = before.iter().rev().filter_map(|part| what_was_raised(part)).collect();
    if raised.len() > CHAIN_MAX {
        let half = CHAIN_MAX / 2;
        let end = raised.split_off(raised.len() - half);
        let number: usize = raised.drain(half..).map(|line| left_out(&line).unwrap_or(1)).sum();
        // Where the text was cut, some may be missing that nobody counted.
        let at_least = if cuts(traceback).next().is_some() { "at least " } else { "" };
        raised.push(format!("[{at_least}{number}{LEFT_OUT_END}"));
        raised.extend(end);
    }
    raised
}

/// The last line of the first members of the group that the last exception is, and how many members it has besides.
pub(crate) fn members(traceback: &str) -> Vec<String> {
    let lines: Vec<&str> = traceback.lines().collect();
    let parts = chain(&lines);
    let lines = parts.last().copied().unwrap_or_default();
    let Some(first) = lines.iter().position(|line| line.starts_with(FIRST_MEMBER)) else { return Vec::new() };
    let bodies = lines[first + 1..].split(|line| line.starts_with(NEXT_MEMBER));
    let mut told: Vec<String> = bodies.take(MEMBERS_MAX).filter_map(member).collect();
    let number = lines[..first].iter().rev().find_map(|line| number_of_members(line)).unwrap_or(told.len());
    if number > told.len() {
        told.push(format!("[{}{LEFT_OUT_END}", number - told.len()));
    }
    told
}

/// The parts of a chain, the oldest first.
fn chain<'a, 'b>(lines: &'b [&'a str]) -> Vec<&'b [&'a str]> {
    lines.split(|line| CHAIN_WORDS.contains(line)).collect()
}

/// What a member of a group is, which may be the last one of a chain of its own.
fn member(lines: &[&str]) -> Option<String> {
    let own = lines.iter().take_while(|line| !line.starts_with(INNER_MEMBER));
    let lines: Vec<&str> = own.map(|line| line.strip_prefix("    | ").unwrap_or_default()).collect();
    chain(&lines).last().and_then(|part| what_was_raised(part))
}

/// `KeyError: 'x'`: the first line behind the frames, which are indented. Its words may have further lines, and notes follow.
/// Of a group the lines stand behind a margin, down to its members.
fn what_was_raised(lines: &[&str]) -> Option<String> {
    let group = lines.iter().position(|line| line.starts_with(FIRST_MEMBER));
    let margin = group.map_or(0, |_| GROUP_MARGIN.len());
    let own = &lines[..group.unwrap_or(lines.len())];
    let lines: Vec<&str> = own.iter().map(|line| line.get(margin..).unwrap_or_default()).collect();
    let is_indented = |line: &str| line.starts_with([' ', '\t']);
    let behind = lines.iter().rposition(|line| line.starts_with("  File \"")).map_or(0, |frame| frame + 1);
    let begins = |line: &str| TRACEBACK_BEGINS.iter().any(|begin| line.starts_with(begin));
    let is_raised = |line: &&&str| !line.trim().is_empty() && !is_indented(line) && !begins(line);
    lines[behind..].iter().find(is_raised).map(|line| without_middle(line, RAISED_BYTES_MAX).into_owned())
}

/// `[7 exceptions left out here]`
fn left_out(line: &str) -> Option<usize> {
    line.strip_prefix('[')?.strip_suffix(LEFT_OUT_END)?.parse().ok()
}

/// `ExceptionGroup: many (200 sub-exceptions)`
fn number_of_members(line: &str) -> Option<usize> {
    let line = GROUP_ENDS.iter().find_map(|end| line.strip_suffix(end))?;
    line.rsplit('(').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised(class: &str) -> String {
        let frame = "  File \"t.py\", line 7, in go\n    raise it\n";
        format!("Traceback (most recent call last):\n{frame}{class}\n")
    }

    fn chain_of(parts: &[String], words: &str) -> String {
        parts.join(&format!("\n{words}\n\n"))
    }

    #[test]
    fn of_a_chain_of_exceptions_each_is_told_and_of_a_long_one_its_ends() {
        let two = [raised("FileNotFoundError: '/nope'\nsecond line"), raised("RuntimeError: cannot load")];
        for words in CHAIN_WORDS {
            assert_eq!(before_the_last(&chain_of(&two, words)), ["FileNotFoundError: '/nope'"], "{words}");
        }
        let bare = format!("KeyError: 'x'\n\n{}\n\n{}", CHAIN_WORDS[0], two[1]);
        assert_eq!(before_the_last(&bare), ["KeyError: 'x'"]);
        assert_eq!(before_the_last(&two[1]), Vec::<String>::new());
        let many: Vec<String> = (0..12).map(|number| raised(&format!("E: {number}"))).collect();
        let expected = ["E: 10", "E: 9", "E: 8", "[5 exceptions left out here]", "E: 2", "E: 1", "E: 0"];
        assert_eq!(before_the_last(&chain_of(&many, CHAIN_WORDS[1])), expected);
        assert_eq!(before_the_last(&chain_of(&many[..7], CHAIN_WORDS[1])).len(), 6);
    }

    #[test]
    fn what_the_tool_left_out_of_a_chain_is_counted_as_well() {
        let mut many: Vec<String> = (0..16).map(|number| raised(&format!("E: {number}"))).collect();
        many.insert(8, "[4984 exceptions left out here]\n".to_owned());
        let told = before_the_last(&chain_of(&many, CHAIN_WORDS[0]));
        let expected = ["E: 14", "E: 13", "E: 12", "[4993 exceptions left out here]", "E: 2", "E: 1", "E: 0"];
        assert_eq!(told, expected);
        // Nobody counts what a cut of the text took along.
        many[5] = raised(&format!("E: x{}y", crate::cut::mark(5_000)));
        let told = before_the_last(&chain_of(&many, CHAIN_WORDS[0]));
        assert_eq!(told[3], "[at least 4993 exceptions left out here]");
    }

    #[test]
    fn of_a_long_line_the_ends_are_told() {
        let line = format!("E: {}END", "x".repeat(1_000));
        let told = before_the_last(&chain_of(&[raised(&line), raised("F")], CHAIN_WORDS[0]));
        let half = RAISED_BYTES_MAX / 2;
        let dropped = line.len() - 2 * half;
        assert_eq!(RAISED_BYTES_MAX, 300, "a line of people's screens");
        assert_eq!(
            told,
            [format!("{}[{dropped} bytes dropped here]{}", &line[..half], &line[line.len() - half..])]
        );
    }

    /// As Python 3.11 and later write a group.
    fn group(number: usize) -> String {
        let head = "  + Exception Group Traceback (most recent call last):\n  |   File \"t.py\", line 7, in go\n  |     \
                    raise it\n";
        let of_inner = "    | Exception Group Traceback (most recent call last):\n    |   File \"t.py\", line 3, in m\n    \
                        | ExceptionGroup: inner (1 sub-exception)\n    +-+---------------- 1 ----------------\n      | \
                        KeyError: 1\n      +------------------------------------\n";
        let of_chain =
            format!("    | KeyError: 'x'\n    | \n    | {}\n    | \n    | ValueError: two\n", CHAIN_WORDS[0]);
        let with_frames = "    | Traceback (most recent call last):\n    |   File \"t.py\", line 3, in m\n    | OSError: 4\n";
        format!(
            "{head}  | ExceptionGroup: many ({number} sub-exceptions)\n  +-+---------------- 1 ----------------\n{of_inner}    \
             +---------------- 2 ----------------\n{of_chain}    +---------------- 3 ----------------\n{with_frames}    \
             +---------------- ... ----------------\n    | and {} more exceptions\n    \
             +------------------------------------\n",
            number - 3
        )
    }

    #[test]
    fn of_a_group_the_first_members_are_told_and_the_number_of_the_others() {
        let first = ["ExceptionGroup: inner (1 sub-exception)", "ValueError: two", "OSError: 4"];
        assert_eq!(members(&group(200))[..3], first);
        assert_eq!(members(&group(200))[3..], ["[197 exceptions left out here]"]);
        assert_eq!(members(&group(3)), first);
        assert_eq!(members(&raised("E: x")), Vec::<String>::new());
    }

    #[test]
    fn a_group_within_a_chain_is_told_by_its_own_words() {
        let chain = chain_of(&[group(200), raised("E: x")], CHAIN_WORDS[1]);
        assert_eq!(before_the_last(&chain), ["ExceptionGroup: many (200 sub-exceptions)"]);
        assert_eq!(members(&chain), Vec::<String>::new(), "it is not the last one");
    }
}
