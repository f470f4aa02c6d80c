//! An installation and a call of the same tool that begin in one moment: one of them has to go without.

use cjm_tests::journal;
use cjm_tests::package::{world_with_uv, write_package};
use cjm_tests::world::{COMMAND_MAX, World, eventually, write_script};
use cjm_wire::describe::exit;

/// From now on, a Python that is looked for on the PATH stands still until `go` is there.
fn hold_the_search_for_python(world: &mut World) {
    let [begun, go, real] = ["begun", "go", "bin/python3"].map(|name| world.file(name));
    std::fs::create_dir_all(world.file("bin")).expect("a folder");
    let script = format!(
        "#!/bin/sh\n: > '{}'\nuntil [ -e '{}' ]; do sleep 0.02; done\nexec /usr/bin/python3 \"$@\"\n",
        begun.display(),
        go.display()
    );
    write_script(&real, &script);
    world.offer_first(&world.file("bin"));
}

/// The installation has looked who runs, and found nobody; then a call begins. Its environment stays until it has ended.
#[test]
fn an_environment_stays_that_a_call_has_begun_to_use_while_an_installation_prepared() {
    const NAME: &str = "an_environment_stays_that_a_call_has_begun_to_use_while_an_installation_prepared";
    let Some(mut world) = world_with_uv(NAME) else { return };
    write_package(&world.file(""), "slow");
    let module = world.file("slow/slow/capability.py");
    let source = std::fs::read_to_string(&module).expect("written above");
    let waits = "    @action\n    def wait(self, until: str):\n        import os, time\n        while not os.path.exists(until):\n            time.sleep(0.02)\n        import slow.late\n        return slow.late.WORD\n";
    std::fs::write(&module, format!("{source}\n{waits}")).expect("a module");
    std::fs::write(world.file("slow/slow/late.py"), "WORD = 'as it was'\n").expect("a module");
    let list = "capabilities: [{name: slow, package: ./slow, env_name: slow, python_version: \">=3.9\"}]\n";
    world.write("capabilities.yaml", list);
    let _ = world.run(&["install-all"]).expect(exit::OK);
    std::fs::write(world.file("slow/slow/late.py"), "WORD = 'anew'\n").expect("a module");
    hold_the_search_for_python(&mut world);

    let installing = world.start(&["install-all", "--json"]);
    eventually("it looks for Python", COMMAND_MAX, || world.file("begun").exists().then_some(()));
    let done = world.file("done").display().to_string();
    let calling = world.start(&["call", "slow", "--action", "wait", &format!("until={done}"), "-r"]);
    eventually("the call to run", COMMAND_MAX, || {
        assert!(!calling.has_ended(), "{}", calling.stderr_so_far());
        journal::rows(&world.journal()).into_iter().find(|row| row.payload["to"] == "running")
    });
    world.write("go", "");
    let refused = installing.wait(COMMAND_MAX).expect(exit::DOMAIN).json();
    assert_eq!(refused["entries"][0]["error"]["code"], "install.host_runs", "{refused:#}");
    world.write("done", "");
    assert_eq!(calling.wait(COMMAND_MAX).expect(exit::OK).stdout.trim(), "as it was");

    // Nothing of it was changed; now it is.
    assert!(world.run(&["list"]).expect(exit::OK).stderr.is_empty());
    let wait = ["call", "slow", "--action", "wait", &format!("until={done}"), "-r"];
    assert_eq!(world.run(&wait).expect(exit::OK).stdout.trim(), "as it was");
    let _ = world.run(&["install-all"]).expect(exit::OK);
    assert_eq!(world.run(&wait).expect(exit::OK).stdout.trim(), "anew");
    world.assert_nothing_left();
}
