//! Next steps that name `install-all`, for whoever named a list: typed as they stand, they would read another one.

use crate::cli::shell_word;
use crate::output::path_text;
use std::path::Path;

/// The step with the list in each command that installs. One that names a list already stays as it is.
pub(crate) fn with_list(step: &str, list: &Path) -> String {
    let commands = step.replace("run install-all", "run `cjm-ctl install-all`");
    let commands = commands.replace("`install-all`", "`cjm-ctl install-all`");
    let command = "`cjm-ctl install-all";
    let option = format!(" --capabilities {}", shell_word(&path_text(list)));
    let mut parts = commands.split(command);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for rest in parts {
        let is_named = rest.starts_with(" --capabilities ");
        text.push_str(command);
        text.push_str(if is_named { "" } else { &option });
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_installs_names_the_list() {
        for (step, named) in [
            (
                "correct it; then run install-all again",
                "correct it; then run `cjm-ctl install-all --capabilities 'my list'` again",
            ),
            (
                "`cjm-ctl install-all` makes it; or `cjm-ctl install-all --force`",
                "`cjm-ctl install-all --capabilities 'my list'` makes it; or `cjm-ctl install-all --capabilities 'my list' \
                 --force`",
            ),
            (
                "`cjm-ctl install-all --capabilities /x` makes it",
                "`cjm-ctl install-all --capabilities /x` makes it",
            ),
            ("until `install-all` has", "until `cjm-ctl install-all --capabilities 'my list'` has"),
            ("check the path", "check the path"),
        ] {
            assert_eq!(with_list(step, Path::new("my list")), named);
        }
    }
}
