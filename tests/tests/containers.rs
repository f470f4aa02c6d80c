//! A machine within the machine: containers give processes a PID namespace of their own, in which the kernel names
//! whatever is outside by the number 0.

use cjm_tests::repo;
use cjm_tests::world::{COMMAND_MAX, World};
use cjm_wire::describe::exit;
use serde_json::json;
use std::process::{Command, Stdio};

/// Runs what follows as process 1 of a new namespace, whose session and process group were made outside.
const OWN_PIDS: [&str; 5] = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];

#[test]
fn a_call_in_a_pid_namespace_of_its_own_is_like_any_other() {
    let made = Command::new("unshare").args(OWN_PIDS).arg("true").stderr(Stdio::piped()).output();
    if !made.as_ref().is_ok_and(|output| output.status.success()) {
        repo::skip("a_call_in_a_pid_namespace_of_its_own_is_like_any_other", &format!("{made:?}"));
        return;
    }
    let world = World::new();
    let actions = json!({"where": {"argv": ["-c", "echo $$ $(cut -d' ' -f5,6 /proc/$$/stat)"], "result": "stdout_text"}});
    world.install_executable("shell", "sh", &actions);
    let mut call = Command::new("unshare");
    call.args(OWN_PIDS).arg(repo::binary("cjm-ctl")).arg("--data-dir").arg(world.data_dir());
    call.args(["call", "shell", "--action", "where", "--raw"]);
    let outcome = world.start_command(call).wait(COMMAND_MAX).expect(exit::OK);
    let ids: Vec<u32> = outcome.stdout.split_whitespace().map(|id| id.parse().expect("a number")).collect();
    // The tool is in the group and the session of its shim, which are of this namespace: known, so not 0.
    assert!(ids.len() == 3 && ids.iter().all(|id| (2..100).contains(id)), "{}", outcome.describe());
    world.assert_nothing_left();
}
