//! What to do when a tool ended while it was loaded, or could not be: the advice follows the cause.

use crate::environment;
use cjm_catalog::installation::install_all_command;
use cjm_wire::link::Launch;
use std::path::{Path, PathBuf};

/// What is wrong with an interpreter that is not there: no name is looked up, though the PATH may have one.
pub(crate) fn absent(python: &Path) -> &'static str {
    match python.is_absolute() {
        true => "does not exist",
        false => "is no absolute path, and no name is looked up on the PATH",
    }
}

/// What to do when a signal ended a tool while it was loaded: nothing that it lacks does that.
pub(crate) fn after_signal(signal: i32) -> &'static str {
    const SIGKILL: i32 = 9;
    match signal {
        SIGKILL => {
            "find out who killed it: itself, somebody, a limit of its processor time (`ulimit -t`), or the kernel for lack \
             of memory (`dmesg`)"
        }
        _ => {
            "see under which limits it runs (`ulimit -a`: a small stack or address space ends a process so), and what \
             crashes in it (`dmesg`)"
        }
    }
}

/// What to do when a tool could not be loaded, as its `words` say, whose manifest somebody wrote: `place` is where it is
/// corrected.
pub(crate) fn by_hand(place: &str, launch: &Launch, words: &str) -> Option<String> {
    let Launch::Python { python_path, module, class, .. } = launch else { return None };
    let missing = words.split_once("No module named '").and_then(|(_, rest)| rest.split('\'').next());
    let is_its_own = |name: &str| module == name || module.starts_with(&format!("{name}."));
    Some(match missing {
        Some(name) if is_its_own(name) => format!(
            "correct `code.module` {place}; or name the folder that holds `{name}` as PYTHONPATH of `install.env_vars` there"
        ),
        Some(name) => format!("install `{name}` for {python_path}; or correct `install.python_path` {place}"),
        None if words.contains(&format!("has no attribute '{class}'")) => {
            format!("correct `code.class` {place}")
        }
        None => format!(
            "read what it said last; `install.python_path`, `code.module` and `code.class` are corrected {place}"
        ),
    })
}

/// What bears on what to do when a tool ended while it started or could not be loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Variables that the host has and the worker did not get, and that the failure speaks of.
    pub not_passed: Vec<String>,
    /// What to do where somebody wrote its manifest.
    pub by_hand: Option<String>,
    /// The list that it was installed from.
    pub list: Option<PathBuf>,
}

/// What to do when a tool ended or could not be loaded.
pub(crate) fn last_lines(hints: &Hints) -> String {
    let Some(name) = hints.not_passed.first() else {
        if let Some(by_hand) = &hints.by_hand {
            return by_hand.clone();
        }
        let command = install_all_command(hints.list.as_deref());
        return format!(
            "read what it said last; if a module is missing, `{command} --force` makes its environment anew"
        );
    };
    if environment::is_secret_name(name) {
        return format!(
            "declare {name} in the manifest as a secret (`code.worker_env`, with `secret: true`), then set it with \
             `cjm-ctl set-secret`: a variable of this name is not passed on"
        );
    }
    if environment::is_forbidden(name) {
        return format!(
            "set {name} in the manifest (`install.env_vars`): a variable of this name is not passed on"
        );
    }
    format!(
        "name {name} in `cjm.yaml` (`substrate: {{worker_env_pass: [{name}]}}`), or set it in the manifest \
         (`install.env_vars`)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_that_is_told_by_its_name_alone_is_refused_for_that() {
        assert_eq!(absent(Path::new("/none/python3")), "does not exist");
        for name in ["python3", "env/bin/python"] {
            assert!(absent(Path::new(name)).starts_with("is no absolute path"), "{name}");
        }
    }
}
