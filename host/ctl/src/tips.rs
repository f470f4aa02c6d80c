//! Tips of the command line's parser: none is shown that fails when it is followed, and those that it cannot know are added.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _, Error};
use std::ffi::OsString;

/// How the parser's tip goes by which an option would be an argument of ours. None of ours may begin with `-`, but for names
/// of files, and those can be written with their folder.
const AS_A_VALUE: &str = "as a value, use";
/// Letters that are wrong in an option that was meant all the same, at most.
const SLIPS_MAX: usize = 2;
/// Letters of an option's beginning that stand for it, at least.
const BEGINNING_CHARS_MIN: usize = 3;

/// The error that these words of a command line gave, with tips that help.
pub(crate) fn with_good_tips(mut error: Error, words: &[OsString]) -> Error {
    let tips = match error.remove(ContextKind::Suggested) {
        Some(ContextValue::StyledStrs(tips)) => tips,
        _ => Vec::new(),
    };
    let given = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(given)) => given.clone(),
        _ => String::new(),
    };
    let is_meant = |option: &str| !option.starts_with("--") || is_misspelled(&given, option);
    if let Some(ContextValue::String(option)) = error.get(ContextKind::SuggestedArg)
        && !is_meant(option)
    {
        error.remove(ContextKind::SuggestedArg);
        // It shows the option as one of those that were given.
        error.insert(ContextKind::Usage, ContextValue::StyledStr(usage_of(words)));
    }
    let has_similar =
        [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    let has_similar = has_similar.into_iter().any(|kind| error.get(kind).is_some());
    let ours = if has_similar { None } else { meant(&error, words) };
    let is_good = |tip: &StyledStr| {
        let text = tip.to_string();
        // Of another command: 'call --action' exists.
        let option = text.strip_suffix("' exists").and_then(|text| text.rsplit([' ', '\'']).next());
        !text.contains(AS_A_VALUE) && option.is_none_or(is_meant)
    };
    let good = tips.into_iter().filter(is_good);
    let good: Vec<StyledStr> = good.chain(ours.map(StyledStr::from)).collect();
    if !good.is_empty() {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(good));
    }
    error
}

/// What was meant by an argument that the command does not have.
fn meant(error: &Error, words: &[OsString]) -> Option<String> {
    let (ErrorKind::UnknownArgument, Some(ContextValue::String(given))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    else {
        return None;
    };
    let all = crate::cli::Cli::command();
    let command = command_in(&all, words)?;
    let name = given.strip_prefix("--").filter(|name| !name.is_empty());
    let takes_list = command.get_arguments().any(|arg| arg.get_id() == "capabilities");
    let is_file = given.contains(['.', '/']);
    match (command.get_name(), name) {
        ("call", Some(name)) => Some(format!("an argument of the tool is written KEY=VALUE: '{name}=VALUE'")),
        ("run", Some(name)) => {
            Some(format!("an input of the composition is written KEY=VALUE: '{name}=VALUE'"))
        }
        (command, _) if !given.starts_with('-') && takes_list && (command == "install-all" || is_file) => {
            Some("the list is named by an option: '--capabilities FILE'".to_owned())
        }
        _ => None,
    }
}

/// The name of the command that these words of a command line name.
pub(crate) fn command_of(words: &[OsString]) -> Option<String> {
    command_in(&crate::cli::Cli::command(), words).map(|command| command.get_name().to_owned())
}

fn usage_of(words: &[OsString]) -> StyledStr {
    let mut all = crate::cli::Cli::command();
    all.build();
    let command = command_in(&all, words).cloned();
    command.unwrap_or(all).render_usage()
}

fn command_in<'c>(all: &'c Command, words: &[OsString]) -> Option<&'c Command> {
    all.find_subcommand(command_word(all, words)?)
}

/// Whether this option was likely meant by what was given: it has a slip or two, few beside what is right, or is the
/// beginning of the word. The parser calls similar what shares some letters, as `--seconds` and `--json`.
fn is_misspelled(given: &str, option: &str) -> bool {
    let (given, option) = (given.trim_start_matches('-'), option.trim_start_matches('-'));
    let slips = slips_between(given, option);
    let is_beginning = given.len() >= BEGINNING_CHARS_MIN && option.starts_with(given);
    is_beginning || slips <= SLIPS_MAX && slips * 3 <= given.chars().count()
}

/// How many letters are wrong, missing, too many, or have changed places with the next one.
fn slips_between(given: &str, meant: &str) -> usize {
    let (given, meant): (Vec<char>, Vec<char>) = (given.chars().collect(), meant.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=meant.len()).collect()];
    for row in 1..=given.len() {
        let mut next = vec![row];
        for column in 1..=meant.len() {
            let wrong = usize::from(given[row - 1] != meant[column - 1]);
            let mut least =
                (rows[row - 1][column] + 1).min(next[column - 1] + 1).min(rows[row - 1][column - 1] + wrong);
            let is_swapped = row > 1
                && column > 1
                && given[row - 1] == meant[column - 2]
                && given[row - 2] == meant[column - 1];
            if is_swapped {
                least = least.min(rows[row - 2][column - 2] + 1);
            }
            next.push(least);
        }
        rows.push(next);
    }
    rows[given.len()][meant.len()]
}

/// The word that names the command: the first one that is no option, and no value of one.
fn command_word<'w>(all: &Command, words: &'w [OsString]) -> Option<&'w OsString> {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if !text.starts_with('-') {
            return Some(word);
        }
        let is_it = |arg: &&clap::Arg| match text.strip_prefix("--") {
            Some(long) => arg.get_long() == Some(long),
            None => {
                arg.get_short().is_some_and(|short| text.get(1..) == Some(short.encode_utf8(&mut [0; 4])))
            }
        };
        if all.get_arguments().find(is_it).is_some_and(|arg| arg.get_action().takes_values()) {
            words.next();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn told(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let error = crate::cli::Cli::try_parse_from(&words).expect_err(line);
        with_good_tips(error, &words).to_string()
    }

    #[test]
    fn letters_that_changed_places_are_one_slip() {
        for (given, meant, slips) in [
            ("raw", "raw", 0),
            ("arw", "raw", 1),
            ("rw", "raw", 1),
            ("raaw", "raw", 1),
            ("wra", "raw", 2),
            ("", "raw", 3),
        ] {
            assert_eq!(slips_between(given, meant), slips, "{given}");
        }
    }

    #[test]
    fn a_long_option_has_no_more_slips_than_a_short_one() {
        for (given, option, is_meant) in [
            ("--abcdefghi", "--abcdefgyz", true),
            ("--abcdefghi", "--abcdefxyz", false),
            ("--abc", "--abd", true),
            ("--abc", "--ade", false),
            ("--ab", "--abcdef", false),
            ("--abc", "--abcdef", true),
        ] {
            assert_eq!(is_misspelled(given, option), is_meant, "{given} {option}");
        }
    }

    #[test]
    fn no_tip_is_shown_that_fails_and_what_was_meant_is_told() {
        for (line, tip) in [
            (
                "cjm-ctl call greet --name Ada",
                Some("tip: an argument of the tool is written KEY=VALUE: 'name=VALUE'"),
            ),
            ("cjm-ctl --data-dir /d run f.yaml --name=Ada", Some("is written KEY=VALUE: 'name=VALUE'")),
            ("cjm-ctl --data-dir run call greet --name Ada", Some("an argument of the tool is written")),
            ("cjm-ctl --data-dir=run call greet --name Ada", Some("an argument of the tool is written")),
            (
                "cjm-ctl install-all tools.yaml",
                Some("tip: the list is named by an option: '--capabilities FILE'"),
            ),
            ("cjm-ctl remove greet tools.yaml", Some("'--capabilities FILE'")),
            ("cjm-ctl call greet --actoin go", Some("a similar argument exists: '--action'")),
            ("cjm-ctl call greet --timout 5", Some("a similar argument exists: '--timeout'")),
            ("cjm-ctl call greet --act go", Some("a similar argument exists: '--action'")),
            // These share letters with an option, and nobody means it.
            ("cjm-ctl call greet --seconds 5", Some("is written KEY=VALUE: 'seconds=VALUE'")),
            ("cjm-ctl call greet --a 5", Some("is written KEY=VALUE: 'a=VALUE'")),
            ("cjm-ctl run f.yaml --n 5", Some("is written KEY=VALUE: 'n=VALUE'")),
            ("cjm-ctl list --seconds 5", None),
            ("cjm-ctl --n 5 run f.yaml", None),
            ("cjm-ctl --raww call greet", Some("'call --raw' exists")),
            ("cjm-ctl instal-all", Some("a similar subcommand exists: 'install-all'")),
            ("cjm-ctl nothing-like-it", None),
            ("cjm-ctl call greet -x", None),
            ("cjm-ctl validate f -x", None),
            ("cjm-ctl remove greet other", None),
            ("cjm-ctl install-all -x", None),
            ("cjm-ctl list tools.yaml --nothing", Some("'--capabilities FILE'")),
            ("cjm-ctl status now", None),
        ] {
            let told = told(line);
            assert!(!told.contains(AS_A_VALUE), "{line}: {told}");
            assert!(!told.contains("Usage: cjm-ctl call --json"), "{line}: {told}");
            assert_eq!(told.contains("tip:"), tip.is_some(), "{line}: {told}");
            assert!(tip.is_none_or(|tip| told.contains(tip)), "{line}: {told}");
        }
    }
}
