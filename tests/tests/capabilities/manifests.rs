//! Manifests both ways: what the genuine command line writes about a tool is what ours writes, each reads the other's with
//! the same hashes, and both have the same opinion on every pair of adapter and capability.

use super::{FOUR, GRAPH, MONITOR, PYSBD, install, task, world};
use cjm_decide::adapters::{Fit, fit, surface_of};
use cjm_host::{Catalog, ManifestFolder};
use cjm_tests::ancestor::{Ancestor, VERSIONS};
use cjm_tests::repo;
use cjm_tests::world::{World, write_script};
use cjm_wire::canonical::canonical_hash_of;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The genuine command line of a tool's own environment, on a folder of its own. It asks conda for environments; a
/// stand-in gives it those that are there.
fn their_ctl(world: &World, environment: &str, arguments: &[&str]) {
    let envs = world.data_dir().join("envs");
    let tools = world.file("tools");
    std::fs::create_dir_all(&tools).expect("a folder");
    let script = "#!/bin/sh\n[ \"$1 $2\" = 'run -n' ] && [ \"$4\" = python ] || exit 2\nenvironment=$3\nshift 4\nexec ENVS/$environment/bin/python \"$@\"\n";
    write_script(&tools.join("conda"), &script.replace("ENVS", &envs.display().to_string()));
    let output = Command::new(envs.join(environment).join("bin/cjm-ctl"))
        .args(arguments)
        .env("PATH", format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default()))
        .env("CJM_DATA_DIR", theirs(world))
        .env("NO_COLOR", "1")
        .current_dir(&tools)
        .output()
        .expect("it runs");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {text}");
}

fn theirs(world: &World) -> PathBuf {
    world.file("theirs")
}

/// Without what says when and by whom.
fn content(mut manifest: Value) -> Value {
    if let Some(map) = manifest.as_object_mut() {
        map.remove("generated_at");
        // Later releases write an empty one where there is none.
        if map.get("config_schema").is_some_and(|schema| *schema == json!({})) {
            map.remove("config_schema");
        }
        map.remove("install");
    }
    if let Some(code) = manifest.get_mut("code").and_then(Value::as_object_mut) {
        code.remove("regenerated_at");
    }
    manifest
}

#[test]
fn their_command_line_describes_a_tool_as_ours_does() {
    let test = "their_command_line_describes_a_tool_as_ours_does";
    let Some(world) = world(test) else { return };
    let adapter = repo::root().join("capabilities/media-adapter").display().to_string();
    let Some(()) = install(&world, test, &FOUR.replace("ADAPTER", &adapter)) else { return };
    let (ours, theirs) = (world.data_dir().join("manifests"), theirs(&world).join("manifests"));
    std::fs::create_dir_all(&theirs).expect("a folder");
    for (capability, environment) in [(PYSBD, "pysbd"), (GRAPH, "graph"), (MONITOR, "monitor")] {
        let name = format!("{capability}.json");
        // It regenerates what is there, so it reads ours first.
        std::fs::copy(ours.join(&name), theirs.join(&name)).expect("a copy");
        their_ctl(&world, environment, &["regenerate-manifest", capability, "--package", capability]);
        let (mine, other) = (read(&ours.join(&name)), read(&theirs.join(&name)));
        assert_eq!(content(mine.clone()), content(other.clone()), "{capability}");
        assert_eq!(keys(&mine["code"]), keys(&other["code"]), "{capability}: the order of the keys");
        assert_eq!(mine["install"]["python_path"], other["install"]["python_path"]);
    }
    for (environment, spec, name) in [
        (
            "pysbd",
            "cjm_sentence_segmentation_adapter_interface.generic:GenericSentenceSegmentationAdapter",
            "adapter-sentence_segmentation-GenericSentenceSegmentationAdapter.json",
        ),
        (
            "graph",
            "cjm_graph_storage_adapter_interface.generic:GenericGraphStorageAdapter",
            "adapter-graph-storage-GenericGraphStorageAdapter.json",
        ),
        ("ffmpeg", "cjm_media_adapter.adapter:MediaAdapter", "adapter-media-MediaAdapter.json"),
    ] {
        their_ctl(&world, environment, &["generate-adapter-manifest", environment, spec]);
        assert_eq!(content(read(&ours.join(name))), content(read(&theirs.join(name))), "{name}");
    }
    // Theirs in place of ours: the same host runs them.
    for entry in std::fs::read_dir(&theirs).expect("a folder").flatten() {
        std::fs::copy(entry.path(), ours.join(entry.file_name())).expect("a copy");
    }
    let answer = task(&world, PYSBD, "sentence_segmentation", "segment_text", &json!({"text": "One. Two."}));
    assert_eq!(answer["data"]["metadata"]["sentence_count"], 2, "{answer}");
    assert_eq!(task(&world, GRAPH, "graph-storage", "get_schema", &json!({}))["edge_count"], 0);
    opinions(&world, test, &ours);
    world.assert_nothing_left();
}

fn keys(value: &Value) -> Vec<&String> {
    value.as_object().map(|map| map.keys().collect()).unwrap_or_default()
}

#[test]
fn both_have_the_same_opinion_on_every_pair() {
    let world = World::new();
    let folder = world.file("manifests");
    std::fs::create_dir_all(&folder).expect("a folder");
    let method = |name: &str, params: Value| json!({"name": name, "signature": "(…)", "params": params});
    let surfaces = [
        ("none", Value::Null),
        ("empty", json!({})),
        ("nothing", json!({"methods": [], "properties": [], "attributes": []})),
        (
            "plain",
            json!({"methods": [method("a", json!(["x", "y"])), method("b", json!([]))], "properties": ["name"]}),
        ),
        (
            "unrecorded",
            json!({"methods": [{"name": "a"}, method("c", json!(["kwargs"]))], "properties": ["b"]}),
        ),
        (
            "twice",
            json!({"methods": [method("a", json!(["q"])), method("a", json!(["x"]))], "properties": []}),
        ),
        ("unicode", json!({"methods": [method("é", json!(["ß"]))], "properties": ["\u{1f600}", "name"]})),
    ];
    for (name, surface) in &surfaces {
        let mut code = json!({"name": name, "version": "1", "module": "m", "class": "C"});
        if !surface.is_null() {
            code["structural_surface"] = surface.clone();
        }
        code["config_schema"] = json!({"properties": {"t": {"default": [1.0, 1e16, 1e-7, -0.0, 100000000000000000000u128 as f64]}}});
        let text =
            json!({"format_version": "2.0", "install": {"python_path": "/x"}, "code": code}).to_string();
        let mut manifest = cjm_wire::Manifest::parse(&text).expect("a manifest");
        manifest.seal();
        std::fs::write(folder.join(manifest.file_name()), manifest.to_file_text()).expect("a file");
    }
    for (index, (methods, properties)) in [
        (json!([]), json!([])),
        (json!([method("a", json!(["x"]))]), json!(["name"])),
        (json!([method("a", json!(["x", "y", "z"]))]), json!([])),
        (json!([method("a", json!([])), method("b", json!(["n"]))]), json!(["missing"])),
        (json!([{"name": "a"}, method("zz", json!(["x"]))]), json!(["name", "b"])),
        (json!([method("é", json!(["ß"]))]), json!(["\u{1f600}"])),
    ]
    .into_iter()
    .enumerate()
    {
        let class = format!("A{index}");
        let adapter = json!({
            "unit": "adapter", "name": format!("m.{class}"), "version": "1", "task_name": "t", "module": "m",
            "class": class, "protocol_members": {"methods": methods, "properties": properties},
        });
        std::fs::write(folder.join(format!("adapter-t-{class}.json")), adapter.to_string()).expect("a file");
    }
    let pairs = opinions(&world, "both_have_the_same_opinion_on_every_pair", &folder);
    assert!(pairs.is_none_or(|pairs| pairs == 42), "{pairs:?}");
}

/// Compares what both make of a folder, for each release; returns how many pairs there were.
fn opinions(world: &World, test: &str, folder: &Path) -> Option<usize> {
    let catalog = Catalog::discover(&[ManifestFolder::named(folder)]);
    assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
    let mut pairs = None;
    for version in VERSIONS {
        let Some(ancestor) = Ancestor::find(world, test, version) else { continue };
        let script = repo::root().join("tests/fixtures/laboratory/verdicts.py");
        let output = Command::new(ancestor.python()).arg(script).arg(folder).output().expect("it runs");
        let said: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{version}: {e}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(said["capabilities"], capabilities(&catalog), "{version}");
        assert_eq!(said["adapters"], adapters(&catalog), "{version}");
        let (other, mine) = (said["verdicts"].as_object().expect("verdicts"), verdicts(&catalog));
        for (pair, verdict) in other {
            let mut verdict = verdict.clone();
            // Their words for a missing surface are theirs.
            verdict["reason"] = (!verdict["reason"].is_null()).into();
            assert_eq!(Some(&verdict), mine.get(pair), "{version}: {pair}");
        }
        assert_eq!(other.len(), mine.len(), "{version}");
        pairs = Some(mine.len());
    }
    pairs
}

fn capabilities(catalog: &Catalog) -> Value {
    let described = catalog.entries().map(|entry| {
        let (code, drift) = (&entry.manifest.code, &entry.manifest.drift_tracking);
        // Python's falsehood: nothing, or nothing in it.
        let surface = code.structural_surface.clone().filter(|surface| !surface.is_null());
        let surface_hash = match &surface {
            Some(surface) if *surface == json!({}) => json!({}),
            Some(surface) => canonical_hash_of(surface).into(),
            None => Value::Null,
        };
        let about = json!({
            "version": code.version, "module": code.module, "class": code.class,
            "config_schema_hash": canonical_hash_of(code.config_schema.as_ref().unwrap_or(&Value::Null)),
            "recorded_config_schema_hash": drift.config_schema_hash,
            "surface_hash": surface_hash,
            "recorded_surface_hash": drift.structural_surface_hash,
        });
        (code.name.clone(), about)
    });
    Value::Object(described.collect())
}

fn adapters(catalog: &Catalog) -> Value {
    let known = catalog.adapters().iter();
    Value::Object(known.map(|a| (a.name.clone(), json!([a.task_name, a.module, a.class]))).collect())
}

fn verdicts(catalog: &Catalog) -> Map<String, Value> {
    let mut all = Map::new();
    for adapter in catalog.adapters() {
        for entry in catalog.entries() {
            let code = &entry.manifest.code;
            let verdict = fit(&adapter.protocol_members, surface_of(code).as_ref());
            all.insert(format!("{} | {}", adapter.name, code.name), shape(&verdict));
        }
    }
    all
}

/// As the ancestor's function says it.
fn shape(verdict: &Fit) -> Value {
    let mismatches = verdict.param_mismatches.iter().map(|mismatch| {
        json!({
            "method": mismatch.method, "protocol_params": mismatch.protocol_params,
            "surface_params": mismatch.surface_params,
        })
    });
    json!({
        "compatible": verdict.is_compatible(),
        "missing_methods": verdict.missing_methods,
        "missing_properties": verdict.missing_properties,
        "param_mismatches": mismatches.collect::<Vec<_>>(),
        "reason": verdict.reason.is_some(),
    })
}
