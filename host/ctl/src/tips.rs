//! Tips of the command line's parser: none is shown that fails when it is followed, and those that it cannot know are added.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _, Error};
use std::ffi::OsString;

/// How the parser's tip goes by which an option would be an argument of ours. None of ours may begin with `-`, but for names
/// of files, and those can be written with their folder.
const AS_A_VALUE: &str = "as a value, use";

/// The error that these words of a command line gave, with tips that help.
pub(crate) fn with_good_tips(mut error: Error, words: &[OsString]) -> Error {
    let tips = match error.remove(ContextKind::Suggested) {
        Some(ContextValue::StyledStrs(tips)) => tips,
        _ => Vec::new(),
    };
    let has_similar =
        [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    let has_similar = has_similar.into_iter().any(|kind| error.get(kind).is_some());
    let ours = if has_similar { None } else { meant(&error, words) };
    let good = tips.into_iter().filter(|tip| !tip.to_string().contains(AS_A_VALUE));
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
    let command = all.find_subcommand(command_word(&all, words)?)?;
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
            assert_eq!(told.contains("tip:"), tip.is_some(), "{line}: {told}");
            assert!(tip.is_none_or(|tip| told.contains(tip)), "{line}: {told}");
        }
    }
}
