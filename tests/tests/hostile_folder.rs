//! A folder as it comes out of a clone, hostile in all it holds, and a person who does everyday things in it with their own
//! tools. Nothing of the folder runs, no secret is shown or given away, nothing outside is changed, no command hangs, no
//! terminal is told anything, and what is refused says what to do.

use cjm_tests::python;
use cjm_tests::world::{Outcome, World, manifest, write_script};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Longest time any command may take; what hangs, hangs for ever.
const COMMAND_MAX: Duration = Duration::from_secs(5);
const SECRET: &str = "hush-3f9a-never-shown";
/// Moves the cursor, changes the title, beeps, comes as one character, and turns the text around.
const ESCAPES: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}";
/// Larger than any file of these kinds may be. It takes no room.
const HUGE_BYTES: u64 = 100 * 1024 * 1024;
const USAGE: i32 = 2;

/// Everything a test of this kind needs.
struct Scene {
    world: World,
    clone: PathBuf,
    /// Made by whatever of the folder runs.
    marker: PathBuf,
    /// A file of the user's that links of the folder lead to.
    victim: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let mut world = World::new();
        // Without a user's version shims, which take seconds to say which Python they mean.
        world.set("PATH", "/usr/local/bin:/usr/bin:/bin");
        let clone = world.file("clone");
        fs::create_dir_all(&clone).expect("mkdir");
        let (marker, victim) = (world.file("marker"), world.file("victim"));
        fs::write(&victim, "mine").expect("write");
        let scene = Self { world, clone, marker, victim };
        scene.home();
        scene
    }

    /// The user's own tools: one with a secret, one in Python that imports what the folder shadows, one that reads a file.
    fn home(&self) {
        let own = self.world.file("home/.cjm/manifests");
        fs::create_dir_all(&own).expect("mkdir");
        fs::set_permissions(self.world.file("home/.cjm"), fs::Permissions::from_mode(0o700)).expect("chmod");
        let secret = json!([{"name": "API_KEY", "secret": true, "required": false}]);
        let put = |name: &str, manifest: Value| {
            fs::write(own.join(format!("{name}.json")), manifest.to_string()).expect("write");
        };
        let words =
            json!({"go": {"argv": ["-c", "echo mine; test -n \"$API_KEY\""], "result": "stdout_text"}});
        let runtime = json!({"kind": "executable", "program": "/bin/sh", "actions": words});
        put("words", manifest("words", &json!({"runtime": runtime, "worker_env": secret}), &json!({})));
        let show = json!({"show": {
            "parameters": {"file": {"type": "file", "required": true}},
            "argv": ["{file}"], "result": "stdout_text",
        }});
        let runtime = json!({"kind": "executable", "program": "cat", "actions": show});
        put("reader", manifest("reader", &json!({"runtime": runtime}), &json!({})));
        let source = "import json\nimport secrets\n\n\nclass Own:\n    def execute(self, **kwargs):\n        return json.dumps([len(secrets.token_hex(4)), sorted(kwargs)])\n";
        fs::write(self.world.python_dir().join("own_tool.py"), source).expect("write");
        let install = json!({
            "python_path": python::interpreter().display().to_string(),
            "env_vars": {"PYTHONPATH": self.world.python_dir().display().to_string()},
        });
        put("own", manifest("own", &json!({"module": "own_tool", "class": "Own"}), &install));
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.clone.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
        path
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    fn program(&self, name: &str) {
        write_script(&self.path(name), &format!("#!/bin/sh\ntouch {}\necho 3.12\n", self.marker.display()));
    }

    fn fifo(&self, name: &str) {
        assert!(Command::new("mkfifo").arg(self.path(name)).status().expect("mkfifo").success(), "{name}");
    }

    fn link(&self, name: &str, to: impl AsRef<Path>) {
        symlink(to, self.path(name)).expect(name);
    }

    fn huge(&self, name: &str) {
        File::create(self.path(name)).and_then(|file| file.set_len(HUGE_BYTES)).expect(name);
    }

    /// Runs `cjm-ctl` in the folder, with the user's own home.
    fn start(&self, arguments: &[&str]) -> Outcome {
        self.start_in(&self.clone, arguments)
    }

    fn start_in(&self, folder: &Path, arguments: &[&str]) -> Outcome {
        let mut command = Command::new("/bin/sh");
        // One that hangs is ended, so that the others are looked at too.
        let script = "cd \"$0\" && exec timeout -k 1 20 \"$@\"";
        command.arg("-c").arg(script).arg(folder).arg(cjm_tests::repo::binary("cjm-ctl")).args(arguments);
        command.env("HOME", self.world.file("home"));
        self.world.start_command(command).wait(COMMAND_MAX * 12)
    }

    /// Runs it, and says what was wrong about the way it went.
    fn faults(&self, what: &str, arguments: &[&str]) -> Vec<String> {
        self.faults_in(&self.clone, what, arguments)
    }

    fn faults_in(&self, folder: &Path, what: &str, arguments: &[&str]) -> Vec<String> {
        let outcome = self.start_in(folder, arguments);
        let mut faults = Vec::new();
        let mut wrong = |fault: String| faults.push(format!("{what}: {fault}\n{}", outcome.describe()));
        if outcome.elapsed > COMMAND_MAX {
            wrong(format!("took {:?}", outcome.elapsed));
        }
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        if let Some(c) = said.chars().find(|c| c.is_control() && !"\n\t".contains(*c) || *c == '\u{202e}') {
            wrong(format!("tells a terminal {c:?}"));
        }
        if said.contains(SECRET) {
            wrong("shows a secret".to_owned());
        }
        if said.contains("panicked") {
            wrong("panics".to_owned());
        }
        match outcome.code {
            Some(0 | USAGE) => {}
            Some(_) if said.contains("next: ") || said.contains("\"next_step\":\"") => {}
            other => wrong(format!("ended with {other:?} and does not say what to do")),
        }
        if self.marker.exists() {
            wrong("something of the folder ran".to_owned());
            fs::remove_file(&self.marker).expect("remove");
        }
        if fs::read(&self.victim).ok().as_deref() != Some(b"mine") {
            wrong("a file outside was changed".to_owned());
            fs::remove_file(&self.victim).ok();
            fs::write(&self.victim, "mine").expect("write");
        }
        self.world.assert_nothing_left();
        faults
    }

    /// Manifests of every kind, each of which would make the marker.
    fn manifests(&self) {
        let touch = format!("touch {}", self.marker.display());
        self.program("bin/evil");
        self.program(".cjm/bin/evil");
        let sh = |extra: &str| json!({"argv": ["-c", format!("{touch}; {extra}")], "result": "stdout_text"});
        let executable = |name: &str| {
            let code = json!({
                "runtime": {"kind": "executable", "program": "/bin/sh", "actions": {"go": sh("echo $API_KEY")}},
                "worker_env": [{"name": "API_KEY", "secret": true}],
            });
            manifest(name, &code, &json!({}))
        };
        let program = self.clone.join("bin/evil").display().to_string();
        let of_kind = |name: &str, kind: &str| {
            manifest(name, &json!({"runtime": {"kind": kind, "program": program}}), &json!({}))
        };
        let python = json!({"python_path": ".cjm/envs/own/bin/python"});
        let folder = ".cjm/manifests";
        for (file, content) in [
            ("words.json", executable("words")),
            ("reader.json", of_kind("reader", "native")),
            ("channel.json", of_kind("channel", "channel")),
            ("own.json", manifest("own", &json!({"module": "evil", "class": "Evil"}), &python)),
            (
                "title.json",
                manifest(
                    "title",
                    &json!({"description": ESCAPES, "module": ESCAPES, "class": "C"}),
                    &json!({"python_path": ESCAPES}),
                ),
            ),
            ("named.json", executable(&format!("named{ESCAPES}"))),
            (
                "adapter.json",
                json!({
                    "unit": "adapter", "name": "evil.A", "version": "1", "task_name": "t", "module": "evil", "class": "A",
                    "required_tool_protocol": "m.P", "protocol_members": {"methods": [], "properties": []},
                }),
            ),
        ] {
            self.write(&format!("{folder}/{file}"), content.to_string());
        }
        self.write(&format!("{folder}/words-too.json"), executable("words").to_string());
        self.write(&format!("{folder}/deep.json"), "[".repeat(200_000));
        self.write(&format!("{folder}/deep-key.json"), "{\"code\":".repeat(100_000));
        self.write(&format!("{folder}/bomb.json"), bomb());
        self.write(&format!("{folder}/escapes.json"), format!("{{\"{ESCAPES}\": {ESCAPES}"));
        self.fifo(&format!("{folder}/pipe.json"));
        self.link(&format!("{folder}/zero.json"), "/dev/zero");
        self.link(&format!("{folder}/tty.json"), "/dev/tty");
        self.link(&format!("{folder}/ptmx.json"), "/dev/ptmx");
        self.link(&format!("{folder}/loop.json"), "loop.json");
        self.link(&format!("{folder}/around"), ".");
        self.huge(&format!("{folder}/huge.json"));
        fs::create_dir_all(self.clone.join(folder).join("folder.json")).expect("mkdir");
        for name in [b"\x1b[31mred\n.json".as_slice(), b"bytes\xff\xfe.json"] {
            fs::write(self.clone.join(folder).join(OsStr::from_bytes(name)), "{}").expect("write");
        }
        let locked = self.path(&format!("{folder}/locked.json"));
        fs::write(&locked, "{}").expect("write");
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).expect("chmod");
    }

    /// What Python, pip, uv and git would read in the present folder.
    fn shadows(&self) {
        let python = format!("open({:?}, 'w').close()\n", self.marker.display().to_string());
        for name in [
            "secrets.py",
            "json.py",
            "sitecustomize.py",
            "usercustomize.py",
            "cjm_sdk.py",
            "evil.py",
            "own_tool.py",
            "encodings.py",
            "cjm_sdk/__init__.py",
            "site-packages/evil.pth",
        ] {
            self.write(
                name,
                if name.ends_with(".pth") { format!("import os; {python}") } else { python.clone() },
            );
        }
        self.write("pip.conf", "[global]\nindex-url = http://127.0.0.1:9/\n");
        self.write("uv.toml", "index-url = \"http://127.0.0.1:9/\"\n");
        self.write("pyproject.toml", "[tool.uv]\nindex-url = \"http://127.0.0.1:9/\"\n");
        self.write(".python-version", "2.7\n");
        self.write("pyvenv.cfg", "home = .\n");
        for name in ["python3", "python", "uv", "sh", "cat", "cjm-worker", "git"] {
            self.program(name);
        }
    }

    /// A data directory with everything in it that a host would trust in its own.
    fn data_dir(&self) {
        for name in [
            "envs/own/bin/python",
            "envs/own/bin/python3",
            "bin/micromamba",
            "uv/bin/uv",
            "runtime/bin/micromamba",
        ] {
            self.program(&format!(".cjm/{name}"));
        }
        let stamp = json!({"request": "x", "capability": "own", "adapters": [], "python_version": ESCAPES, "lock_hash": "x"});
        self.write(".cjm/envs/own/.cjm-stamp.json", stamp.to_string());
        self.write(".cjm/secrets/secrets.json", json!({"words": {"API_KEY": ESCAPES}}).to_string());
    }
}

/// Anchors that double with each line.
fn bomb() -> String {
    let mut text = "a0: &a0 [lol, lol]\n".to_owned();
    for level in 1..40 {
        text.push_str(&format!("a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1));
    }
    text
}

/// What one does in a project.
fn everyday() -> Vec<Vec<&'static str>> {
    vec![
        vec!["list"],
        vec!["list", "--long", "--envs"],
        vec!["list", "--json"],
        vec!["call", "words", "-r"],
        vec!["call", "own", "a=1"],
        vec!["call", "reader", "file=@README"],
        vec!["call", "channel"],
        vec!["call", "title"],
        vec!["call", "own", "--task", "t", "--method", "m"],
        vec!["run", "flow.yaml"],
        vec!["validate", ".cjm/manifests/words.json"],
        vec!["validate", "capabilities.yaml"],
        vec!["validate", "."],
        vec!["logs"],
        vec!["logs", "--chunks"],
        vec!["logs", "--journal"],
        vec!["logs", "--journal", "--json"],
        vec!["retention", "--max-total-mb", "1"],
        vec!["list-secrets", "words"],
        vec!["set-secret", "own", "OTHER", "--value", "x", "--force"],
        vec!["remove-secret", "own", "OTHER"],
        vec!["allow", "--list"],
        vec!["regenerate-manifest", "own"],
        vec!["generate-adapter-manifest", "theirs", "a:B"],
        vec!["remove", "channel", "-y"],
        vec!["setup-runtime", "--dry-run"],
        vec!["setup-host", "--dry-run"],
        vec!["install-all", "--offline"],
    ]
}

/// The part of it that settings can change.
fn some() -> Vec<Vec<&'static str>> {
    let all = [
        "list --json",
        "call words",
        "run flow.yaml",
        "logs",
        "generate-adapter-manifest theirs a:B",
        // From then on the programs that its settings name are the user's own.
        "install-all --offline",
        "setup-runtime --dry-run",
        "retention --max-total-mb 1",
        "set-secret own OTHER --value x --force",
    ];
    all.iter().map(|line| line.split(' ').collect()).collect()
}

#[track_caller]
fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults\n\n{}", faults.len(), faults.join("\n\n"));
}

/// A list that may be installed from without harm, and a composition of the user's own tools.
fn good_documents(scene: &Scene) {
    scene.write("README", "text");
    scene.write("flow.yaml", "name: flow\nnodes:\n  a: {capability: words}\n");
    scene.write("capabilities.yaml", "capabilities: [{name: w, manifest: .cjm/manifests/deep.json}]\n");
}

#[test]
fn a_cloned_folder_with_everything_hostile_in_it_harms_nobody() {
    let scene = Scene::new();
    let set = scene.start(&["set-secret", "words", "API_KEY", "--value", SECRET]).expect(0);
    assert!(!set.stdout.contains(SECRET));
    good_documents(&scene);
    scene.manifests();
    scene.shadows();
    scene.data_dir();
    scene.program(".cjm/envs/theirs/bin/python");
    let mut faults: Vec<String> =
        everyday().iter().flat_map(|arguments| scene.faults("in the folder", arguments)).collect();
    // The user's own tools went on working in it.
    assert_eq!(scene.start(&["call", "words", "-r"]).expect(0).stdout.trim(), "mine");
    assert!(scene.start(&["call", "own", "-r", "a=1"]).expect(0).stdout.contains("[8, [\"a\"]]"));
    // And with the folder's own data directory in the place of the user's.
    scene.write("cjm.yaml", "data_dir: ./.cjm\n");
    faults.extend(everyday().iter().flat_map(|arguments| scene.faults("data_dir: ./.cjm", arguments)));
    faults.extend(scene.faults("allowing all of it", &["allow"]));
    faults.extend(scene.faults("allowing all of it", &["allow", "--list", "--json"]));
    faults.extend(scene.faults("allowing all of it", &["allow", "--revoke", "--json"]));
    faults.extend(names_that_are_no_text(&scene));
    assert_none(&faults);
}

/// Documents hold text alone; a path of other bytes must not break them.
fn names_that_are_no_text(scene: &Scene) -> Vec<String> {
    let odd = scene.clone.join(OsStr::from_bytes(b"odd\xff"));
    fs::create_dir_all(odd.join(".cjm/manifests")).expect("mkdir");
    let runtime = json!({"kind": "executable", "program": "/bin/true", "actions": {"go": {"argv": []}}});
    let tool = manifest("tool", &json!({"runtime": runtime}), &json!({})).to_string();
    fs::write(odd.join("tool.json"), &tool).expect("write");
    fs::write(odd.join(".cjm/manifests/found.json"), &tool).expect("write");
    fs::write(odd.join("capabilities.yaml"), "capabilities: [{name: tool, manifest: tool.json}]\n")
        .expect("write");
    fs::write(odd.join("cjm.yaml"), "data_dir: data\n").expect("write");
    let lines = [
        "validate . --json",
        "install-all --json",
        "list --json",
        "call tool --json",
        "allow --json",
        "allow --list --json",
        "set-secret tool KEY --value x --json --force",
        "setup-host --dry-run --json",
        "setup-runtime --dry-run --json",
        "regenerate-manifest tool --json",
        "remove tool -y --json",
        "logs --journal --json",
    ];
    lines
        .iter()
        .flat_map(|line| {
            scene.faults_in(&odd, "in a folder without text for a name", &line.split(' ').collect::<Vec<_>>())
        })
        .collect()
}

#[test]
fn no_settings_of_a_cloned_folder_lead_astray() {
    let scene = Scene::new();
    let _ = scene.start(&["set-secret", "words", "API_KEY", "--value", SECRET]).expect(0);
    good_documents(&scene);
    scene.program("bin/micromamba");
    let elsewhere = scene.world.file("elsewhere");
    let programs = "binaries: {linux-x64: bin/micromamba, linux-arm64: bin/micromamba}";
    let mut faults = Vec::new();
    for (what, text) in [
        ("absolute", format!("data_dir: {}\n", elsewhere.display())),
        ("above", "data_dir: ../../above\n".to_owned()),
        ("a file", "data_dir: README\n".to_owned()),
        ("a device", "data_dir: /dev/zero\n".to_owned()),
        ("proc", "data_dir: /proc/self\n".to_owned()),
        ("programs", format!("runtime: {{conda_type: micromamba, mode: local, prefix: ., {programs}}}\n")),
        ("lists", "capabilities_config: /dev/zero\nmodels_dir: ../../..\n".to_owned()),
        ("variables", "substrate: {worker_env_pass: [HOME, PATH, LD_PRELOAD, '=']}\n".to_owned()),
        (
            "odd numbers",
            "substrate: {diagnostics_retention_days: .nan, diagnostics_retention_max_mb: -.inf}\n".to_owned(),
        ),
        ("raw escapes", format!("data_dir: \"x{}\"\n", "\\e[2J\\a")),
        ("unknown key", format!("? \"{}\"\n: 1\n", "\\e[2J\\a")),
        ("bomb", bomb()),
        ("deep", "[".repeat(100_000)),
        ("deep keys", "data_dir: ".repeat(20_000)),
        ("aliases", "data_dir: &a [*a]\n".to_owned()),
        ("bytes", "\u{0}\u{1}\u{2}".to_owned()),
    ] {
        scene.write("cjm.yaml", text);
        for arguments in some() {
            faults.extend(scene.faults(&format!("cjm.yaml, {what}"), &arguments));
        }
    }
    let config = scene.clone.join("cjm.yaml");
    let odd: [(&str, &dyn Fn()); 6] = [
        ("FIFO", &|| scene.fifo("cjm.yaml")),
        ("zero", &|| scene.link("cjm.yaml", "/dev/zero")),
        ("tty", &|| scene.link("cjm.yaml", "/dev/tty")),
        ("loop", &|| scene.link("cjm.yaml", "cjm.yaml")),
        ("huge", &|| scene.huge("cjm.yaml")),
        ("folder", &|| fs::create_dir(&config).expect("mkdir")),
    ];
    for (what, make) in odd {
        let _ = fs::remove_file(&config);
        make();
        for line in ["list", "call words", "run flow.yaml", "install-all", "logs", "allow"] {
            let arguments: Vec<&str> = line.split(' ').collect();
            faults.extend(scene.faults(&format!("cjm.yaml, {what}"), &arguments));
        }
    }
    assert_none(&faults);
}

/// Shapes of a file that is none.
const SHAPES: [&str; 5] = ["a link outside", "a link to nothing", "a FIFO", "a folder", "garbage"];

impl Scene {
    fn shape(&self, name: &str, shape: &str) {
        match shape {
            "a link outside" => self.link(name, &self.victim),
            "a link to nothing" => self.link(name, self.world.file("made-outside")),
            "a FIFO" => self.fifo(name),
            "a folder" => fs::create_dir_all(self.path(name)).expect("mkdir"),
            _ => self.write(name, format!("{ESCAPES}garbage")),
        }
    }
}

#[test]
fn a_data_directory_that_came_along_gives_nothing_away_and_touches_nothing_outside() {
    let scene = Scene::new();
    good_documents(&scene);
    scene.write("capabilities.yaml", "capabilities: [{name: tool, manifest: tool.json}]\n");
    let runtime = json!({"kind": "executable", "program": "/bin/true", "actions": {"go": {"argv": []}}});
    scene.write("tool.json", manifest("tool", &json!({"runtime": runtime}), &json!({})).to_string());
    let outside = scene.world.file("made-outside");
    let commands = [
        &["install-all"][..],
        &["call", "tool"],
        &["logs", "--journal"],
        &["set-secret", "tool", "KEY", "--value", SECRET, "--force"],
        &["retention", "--max-total-mb", "1"],
    ];
    let mut faults: Vec<String> = Vec::new();
    for file in [
        "host.lock",
        "tree.lock",
        "install.lock",
        "journal.db",
        "journal.db-wal",
        "journal.reserve",
        "diagnostics.db",
        "input_hash_cache.db",
        "secrets/secrets.json",
        "secrets/secrets.owners.json",
        "manifests",
        "data",
        "manifests/tool.json",
    ] {
        for shape in SHAPES {
            let _ = fs::remove_dir_all(scene.clone.join(".cjm"));
            scene.shape(&format!(".cjm/{file}"), shape);
            for command in commands {
                // Named, or links in it would be refused before anything else is.
                let arguments: Vec<&str> = ["--data-dir", ".cjm"].iter().chain(command).copied().collect();
                faults.extend(scene.faults(&format!("{file} is {shape}"), &arguments));
                if outside.symlink_metadata().is_ok() {
                    faults.push(format!("{file} is {shape}: {arguments:?} made a file outside"));
                    let _ = fs::remove_file(&outside).or_else(|_| fs::remove_dir_all(&outside));
                }
            }
        }
    }
    // Where only a file of the folder names the directory, no link leads out of it.
    scene.write("cjm.yaml", "data_dir: ./.cjm\n");
    for name in ["envs", "manifests", "data", "payloads", "journal.db", "data/words", "data/words/work"] {
        let _ = fs::remove_dir_all(scene.clone.join(".cjm"));
        let folder = scene.clone.join(".cjm").join(name);
        fs::create_dir_all(folder.parent().expect("a parent")).expect("a folder");
        scene.link(&format!(".cjm/{name}"), scene.world.file("home"));
        for command in commands {
            faults.extend(scene.faults(&format!("{name} leads out"), command));
            let refused = scene.start(command).expect(1);
            let step = format!("--data-dir {}\n", scene.clone.join(".cjm").display());
            let says = [&format!("{name} is a link to"), &step].map(|words| refused.stderr.contains(words));
            assert_eq!(says, [true; 2], "{}", refused.describe());
        }
    }
    assert_none(&faults);
}

#[test]
fn documents_and_inputs_that_are_traps_are_refused_at_once() {
    let scene = Scene::new();
    good_documents(&scene);
    let flow = "name: flow\ninputs: {x: {}}\nnodes:\n  a: {capability: words}\n";
    scene.write("flow.yaml", flow);
    scene.fifo("pipe.yaml");
    scene.link("zero.yaml", "/dev/zero");
    scene.link("tty.yaml", "/dev/tty");
    scene.link("loop.yaml", "loop.yaml");
    scene.huge("huge.yaml");
    fs::create_dir(scene.clone.join("folder.yaml")).expect("mkdir");
    scene.write("bomb.yaml", bomb());
    scene.write("deep.yaml", "[".repeat(100_000));
    scene.write("keys.yaml", "nodes: {".repeat(50_000));
    scene.write("named.yaml", format!("name: x\nnodes:\n  \"{0}\": {{capability: \"{0}\"}}\n", "\\e[2J\\a"));
    scene.write("escapes.yaml", format!("# {ESCAPES}\n{ESCAPES}: {ESCAPES}\n"));
    scene.write(
        "entries.yaml",
        format!("capabilities:\n- {{name: \"{0}\", manifest: \"{0}\"}}\n", "\\e[2J\\a"),
    );
    scene.write(
        "place.yaml",
        "capabilities:\n- {name: a, env_name: ../../x, package: ./p, python_version: '3'}\n",
    );
    scene.write(
        "option.yaml",
        "capabilities:\n- {name: a, env_name: a, package: '-r /etc/passwd', python_version: '3'}\n",
    );
    scene.write("fifo.yaml", "capabilities: [{name: a, manifest: pipe.yaml}, {name: b, manifest: zero.yaml}, {name: c, manifest: folder.yaml}]\n");
    scene.write("packages.yaml", "capabilities: [{name: a, env_name: a, package: ./pipe.yaml, python_version: '3'}, {name: b, env_name: b, package: ./odd, python_version: '3'}]\n");
    scene.fifo("odd/pyproject.toml");
    scene.link("odd/setup.py", "/dev/zero");
    scene.link("odd/around", ".");
    let mut faults = Vec::new();
    for name in [
        "pipe", "zero", "tty", "loop", "huge", "folder", "bomb", "deep", "keys", "named", "escapes",
        "entries", "place", "option", "fifo", "packages", "missing",
    ] {
        let file = format!("{name}.yaml");
        let (at, argument) = (format!("@{file}"), format!("file=@{file}"));
        for arguments in [
            &["run", &file][..],
            &["run", "flow.yaml", "--inputs", &file],
            &["validate", &file],
            &["validate", "--format", "manifest", &file],
            &["validate", "--format", "source", &file],
            &["install-all", "--offline", "--capabilities", &file],
            &["setup-host", "--dry-run", "--capabilities", &file],
            &["list", "--capabilities", &file],
            &["call", "own", "--args", &at],
            &["call", "own", "--output", &file],
            &["allow", &file],
            &["allow", "--revoke", &file],
            &["--cjm-config", &file, "list"],
            &["--data-dir", &file, "list"],
            &["--data-dir", &file, "call", "words"],
        ] {
            faults.extend(scene.faults(name, arguments));
        }
        if !["named", "escapes"].contains(&name) {
            faults.extend(scene.faults(name, &["call", "reader", &argument]));
        }
    }
    assert_none(&faults);
}
