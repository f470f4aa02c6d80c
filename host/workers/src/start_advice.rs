//! What to do when a tool ended while it was loaded, or could not be: the advice follows the cause.

use crate::environment;

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

/// What to do when a tool ended or could not be loaded.
pub(crate) fn last_lines(not_passed: &[String]) -> String {
    let Some(name) = not_passed.first() else {
        return "read what it said last; if a module is missing, run `cjm-ctl install-all` again".to_owned();
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
