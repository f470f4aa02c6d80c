//! The caller's settings of pip (`pip.conf` in its places): what of them reaches the registry is passed on to the pip that
//! fetches uv, the rest (a target, `user`, `require-virtualenv`, `no-binary`) would break that. Nothing of it is written
//! anywhere: an address of a registry may hold a password.

use crate::command::{command, run};
use std::path::Path;
use std::time::Duration;

/// How long pip may take to say what it is set to.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// Settings that say how the registry is reached.
const KEPT: [&str; 11] = [
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "trusted-host",
    "cert",
    "client-cert",
    "proxy",
    "timeout",
    "retries",
    "keyring-provider",
];

/// What pip is to be given in place of its files: variables by name. Empty where pip cannot say; its files count then.
pub(crate) async fn for_registry_alone(python: &Path) -> Vec<(String, String)> {
    let mut question = command(python);
    question.args(["-m", "pip", "config", "list"]);
    let Ok(answer) = run(question, "asking pip for its settings", ASK_TIMEOUT, &|_| {}).await else {
        return Vec::new();
    };
    if !answer.success {
        return Vec::new();
    }
    let mut variables = vec![("PIP_CONFIG_FILE".to_owned(), "/dev/null".to_owned())];
    variables.extend(kept(&String::from_utf8_lossy(&answer.stdout)));
    // What the environment says goes before what files say, for pip too.
    variables.retain(|(name, _)| name == "PIP_CONFIG_FILE" || std::env::var_os(name).is_none());
    variables
}

/// Of lines `section.key='value'`, as Python writes a text.
fn kept(listing: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in listing.lines() {
        let Some((place, value)) = line.split_once('=') else { continue };
        let Some((section, key)) = place.rsplit_once('.') else { continue };
        // Of the environment itself: it is passed on already.
        if section == ":env:" || !KEPT.contains(&key) {
            continue;
        }
        let name = format!("PIP_{}", key.to_ascii_uppercase().replace('-', "_"));
        let Some(value) = text_of(value.trim()) else { continue };
        // The command's own section is more special than the global one, whichever comes first.
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) if section == "install" => *known = value,
            Some(_) => {}
            None => found.push((name, value)),
        }
    }
    found
}

/// A text as Python writes it; several values are on lines of their own, and variables part them by spaces.
fn text_of(written: &str) -> Option<String> {
    let quote = written.chars().next().filter(|quote| ['\'', '"'].contains(quote))?;
    let inner = written.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut text = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                'n' | 'r' | 't' => text.push(' '),
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_the_registry_is_taken_over_and_the_rest_is_not() {
        let listing = ":env:.index-url='https://env/'\nglobal.index-url='https://a/simple'\nglobal.target='/x'\n\
                       global.extra-index-url='\\nhttps://b\\nhttps://c'\ninstall.user='true'\n\
                       install.index-url=\"https://it's/\"\nglobal.require-virtualenv='true'\nno line\n";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected =
            [pair("PIP_INDEX_URL", "https://it's/"), pair("PIP_EXTRA_INDEX_URL", "https://b https://c")];
        assert_eq!(kept(listing), expected);
    }
}
