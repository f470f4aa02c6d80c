//! The ancestor's capabilities as PyPI has them, unmodified on our host: installed by `install-all`, each in an
//! environment of its own, and called through their task adapters and by their methods.

mod manifests;

use cjm_tests::document::{blocks, play};
use cjm_tests::world::{Outcome, World};
use cjm_tests::{journal, python, repo};
use cjm_wire::describe::exit;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const GUIDE: &str = "docs/CAPABILITIES-OF-THE-ANCESTOR.md";
/// From an empty folder to the first answer, as a new user.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(60);

/// A world in which `install-all` finds uv and a Python that the ancestor runs on; None, said loudly, elsewhere.
fn world(test: &str) -> Option<World> {
    let mut world = World::new();
    if python::at_least(3, 12).is_none() {
        repo::skip(test, "no Python >= 3.12 answers here");
        return None;
    }
    if let Err(error) = world.offer_uv() {
        repo::skip(test, &error);
        return None;
    }
    Some(world)
}

/// Installs a list; None, said loudly, where packages cannot be had.
fn install(world: &World, test: &str, list: &str) -> Option<()> {
    let file = world.write("capabilities.yaml", list).display().to_string();
    let outcome = world.run(&["install-all", "--capabilities", &file, "--json"]);
    if outcome.code == Some(i32::from(exit::OK)) {
        return Some(());
    }
    assert!(no_network(&outcome), "{}", outcome.describe());
    repo::skip(test, "the packages are neither in uv's cache nor to be fetched");
    None
}

fn no_network(outcome: &Outcome) -> bool {
    ["dns error", "error sending request", "Network connectivity", "Failed to fetch"]
        .iter()
        .any(|words| outcome.stdout.contains(words))
}

fn task(world: &World, capability: &str, task: &str, method: &str, arguments: &Value) -> Value {
    let arguments = arguments.to_string();
    let command = ["call", capability, "--task", task, "--method", method, "--args", &arguments, "--json"];
    world.json(&command)["result"].clone()
}

fn action(world: &World, capability: &str, action: &str, arguments: &Value) -> Value {
    let arguments = arguments.to_string();
    world.json(&["call", capability, "--action", action, "--args", &arguments, "--json"])["result"].clone()
}

#[test]
fn a_newcomer_gets_from_an_empty_folder_to_an_answer_within_a_minute() {
    let test = "a_newcomer_gets_from_an_empty_folder_to_an_answer_within_a_minute";
    let Some(world) = world(test) else { return };
    let began = Instant::now();
    let list = blocks(GUIDE).into_iter().find(|block| block.title == "capabilities.yaml").expect("the list");
    world.write("capabilities.yaml", &list.text);
    let probe = world.run(&["install-all", "--json"]);
    if probe.code != Some(0) && no_network(&probe) {
        repo::skip(test, "the packages are neither in uv's cache nor to be fetched");
        return;
    }
    assert!(play(&world, GUIDE, "tour") >= 3);
    assert!(began.elapsed() < FIRST_ANSWER_MAX, "{:?}", began.elapsed());
    let rows = journal::rows(&world.journal());
    let bound = rows.iter().find(|row| row.event_type == "adapter_bound").expect("adapter_bound");
    let spec = "cjm_sentence_segmentation_adapter_interface.generic:GenericSentenceSegmentationAdapter";
    assert_eq!(bound.payload, json!({"specs": [spec]}));
    let account = rows.iter().find(|row| row.event_type == "task_account").expect("task_account");
    assert_eq!((account.text("task"), account.text("method")), ("sentence_segmentation", "segment_text"));
    assert_eq!(account.payload["ok"], true);
    journal::assert_every_job_ended_once(&world.journal());
}

/// What the issue names, in the releases that were looked at.
const FOUR: &str = "capabilities:
- name: pysbd
  package: cjm-capability-pysbd==0.0.1
  env_name: pysbd
  python_version: '>=3.12'
  adapters:
  - impl: cjm_sentence_segmentation_adapter_interface.generic:GenericSentenceSegmentationAdapter
    lib: cjm-sentence-segmentation-adapter-interface==0.0.2
- name: graph
  package: cjm-capability-graph-sqlite==0.0.34
  env_name: graph
  python_version: '>=3.12'
  adapters:
  - impl: cjm_graph_storage_adapter_interface.generic:GenericGraphStorageAdapter
    lib: cjm-graph-storage-adapter-interface==0.0.11
- name: ffmpeg
  package: cjm-capability-ffmpeg==0.0.28
  env_name: ffmpeg
  python_version: '>=3.12'
  adapters:
  - impl: cjm_media_adapter.adapter:MediaAdapter
    lib: ADAPTER
- name: monitor
  package: cjm-capability-monitor-nvidia==0.0.26
  env_name: monitor
  python_version: '>=3.12'
";

const PYSBD: &str = "cjm-capability-pysbd";
const GRAPH: &str = "cjm-capability-graph-sqlite";
const FFMPEG: &str = "cjm-capability-ffmpeg";
const MONITOR: &str = "cjm-capability-monitor-nvidia";

#[test]
fn the_published_capabilities_run_unmodified() {
    let test = "the_published_capabilities_run_unmodified";
    let Some(world) = world(test) else { return };
    let adapter = repo::root().join("capabilities/media-adapter").display().to_string();
    let Some(()) = install(&world, test, &FOUR.replace("ADAPTER", &adapter)) else { return };
    each_has_its_own_environment(&world);
    sentences(&world);
    a_composition(&world);
    graph(&world);
    media(&world);
    monitor(&world);
    what_does_not_fit_is_refused(&world);
    journal::assert_every_job_ended_once(&world.journal());
    world.assert_nothing_left();
}

fn each_has_its_own_environment(world: &World) {
    let manifest = |name: &str| -> Value {
        let path = world.data_dir().join("manifests").join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).expect("JSON")
    };
    for (capability, environment) in
        [(PYSBD, "pysbd"), (GRAPH, "graph"), (FFMPEG, "ffmpeg"), (MONITOR, "monitor")]
    {
        let python = world.data_dir().join("envs").join(environment).join("bin/python");
        let manifest = manifest(&format!("{capability}.json"));
        assert_eq!(manifest["install"]["python_path"], python.display().to_string());
        assert!(manifest["drift_tracking"]["structural_surface_hash"].is_string(), "{manifest:#}");
    }
    for (name, environment) in [
        ("adapter-sentence_segmentation-GenericSentenceSegmentationAdapter.json", "pysbd"),
        ("adapter-graph-storage-GenericGraphStorageAdapter.json", "graph"),
        ("adapter-media-MediaAdapter.json", "ffmpeg"),
    ] {
        let manifest = manifest(name);
        assert_eq!((&manifest["unit"], &manifest["conda_env"]), (&json!("adapter"), &json!(environment)));
        assert!(manifest["generated_at"].as_str().is_some_and(|at| at.len() > 20), "{manifest:#}");
    }
}

fn sentences(world: &World) {
    let text = json!({"text": "Dr. Smith came at 5 p.m. He left. Why?"});
    let through = task(world, PYSBD, "sentence_segmentation", "segment_text", &text);
    let spans: Vec<(u64, u64)> = through["data"]["spans"]
        .as_array()
        .expect("spans")
        .iter()
        .map(|span| (span["start_char"].as_u64().expect("start"), span["end_char"].as_u64().expect("end")))
        .collect();
    assert_eq!(spans, [(0, 24), (25, 33), (34, 38)], "{through}");
    assert_eq!(through["__wire__"], "sentence_segmentation.result");
    assert_eq!(action(world, PYSBD, "segment_text", &text), through);
    // What is no method of the author's is no action.
    for wrong in ["initialize", "check_cancel", "_tool", "nope"] {
        let outcome = world.run(&["call", PYSBD, "--action", wrong]).expect(exit::DOMAIN);
        assert!(outcome.stderr.contains("is_available, segment_text"), "{}", outcome.describe());
    }
}

fn a_composition(world: &World) {
    let text = "name: c
inputs: {text: {type: string}}
nodes:
  split:
    capability: cjm-capability-pysbd
    task: sentence_segmentation
    method: segment_text
    args: {text: '${inputs.text}'}
  again:
    capability: cjm-capability-pysbd
    action: segment_text
    args: {text: 'There were ${split.data.metadata.sentence_count}. So be it.'}
";
    let file = world.write("c.yaml", text).display().to_string();
    let document = world.json(&["run", &file, "text=One. Two. Three.", "--json"]);
    assert_eq!(document["output"]["split"]["data"]["metadata"]["sentence_count"], 3, "{document}");
    assert_eq!(document["output"]["again"]["data"]["metadata"]["sentence_count"], 2, "{document}");
    let file = world.write("bad.yaml", text.replace("sentence_segmentation", "media")).display().to_string();
    let outcome = world.run(&["run", &file, "text=x", "--json"]).expect(exit::COMPOSITION_FAILED);
    assert!(outcome.stdout.contains("missing methods: convert, get_info"), "{}", outcome.describe());
}

fn graph(world: &World) {
    let nodes = json!({"nodes": [
        {"id": "a", "label": "Word", "properties": {"text": "one"}}, {"id": "b", "label": "Word", "properties": {}},
    ]});
    let graph = |method: &str, arguments: &Value| task(world, GRAPH, "graph-storage", method, arguments);
    assert_eq!(graph("add_nodes", &nodes), json!(["a", "b"]));
    let edge = json!({"edges": [{"id": "e", "source_id": "a", "target_id": "b", "relation_type": "NEXT"}]});
    assert_eq!(graph("add_edges", &edge), json!(["e"]));
    // Every call was a worker of its own: what they wrote is in the capability's data directory.
    let context = graph("get_context", &json!({"node_id": "a"}));
    assert_eq!(context["data"]["nodes"].as_array().map(Vec::len), Some(2), "{context}");
    assert_eq!(context["data"]["edges"][0]["relation_type"], "NEXT");
    let schema = action(world, GRAPH, "get_schema", &json!({}));
    assert_eq!((&schema["counts"]["Word"], &schema["edge_count"]), (&json!(2), &json!(1)), "{schema}");
    assert!(world.data_dir().join("data").join(GRAPH).is_dir());
    let bad = world
        .run(&["call", GRAPH, "--task", "graph-storage", "--method", "get_node", "--json"])
        .expect(exit::DOMAIN);
    assert!(bad.stdout.contains("node_id"), "{}", bad.describe());
    let rows = journal::rows(&world.journal());
    let failed = rows.iter().rfind(|row| row.event_type == "task_account").expect("an account");
    assert_eq!((&failed.payload["ok"], failed.text("error_category")), (&json!(false), "user_input"));
}

fn media(world: &World) {
    let tone: PathBuf = world.file("tone.wav");
    let made = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-f", "lavfi", "-i", "sine=d=1:r=16000", "-y"])
        .arg(&tone)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        repo::skip("the_published_capabilities_run_unmodified (ffmpeg)", "there is no ffmpeg");
        return;
    }
    let described = task(world, FFMPEG, "media", "describe", &json!({"path": tone}));
    assert_eq!((&described["duration"], &described["format"]), (&json!(1.0), &json!("wav")), "{described}");
    let request = json!({"path": tone, "folder": world.file("made"), "to": "mp3", "rate": 8000});
    let converted = task(world, FFMPEG, "media", "convert", &request);
    let path = converted["path"].as_str().expect("a path");
    let again = action(world, FFMPEG, "get_info", &json!({"file_path": path}));
    assert_eq!(again["data"]["audio_streams"][0]["sample_rate"], 8000, "{again}");
}

fn monitor(world: &World) {
    let status = action(world, MONITOR, "get_system_status", &json!({}));
    assert!(status["data"]["memory_total_mb"].as_f64().is_some_and(|mb| mb > 100.0), "{status}");
    if !std::path::Path::new("/dev/nvidiactl").exists() {
        assert_eq!(
            (&status["data"]["gpu_type"], &status["data"]["gpu_total_memory_mb"]),
            (&json!("None"), &json!(0.0))
        );
        assert_eq!(action(world, MONITOR, "list_processes", &json!({})), json!([]));
    }
}

fn what_does_not_fit_is_refused(world: &World) {
    let before = journal::rows(&world.journal()).len();
    for name in
        ["cjm_media_adapter.adapter.MediaAdapter", "MediaAdapter", "cjm_media_adapter.adapter:MediaAdapter"]
    {
        let outcome = world
            .run(&["call", PYSBD, "--task", "media", "--method", "describe", "--adapter", name, "--json"])
            .expect(exit::WORKER_START);
        let error = &outcome.json()["error"];
        assert_eq!(error["code"], "adapter.incompatible", "{}", outcome.describe());
        assert!(
            error["message"].as_str().is_some_and(|text| text.contains("missing methods: convert, get_info"))
        );
    }
    let outcome = world
        .run(&["call", PYSBD, "--adapter", "MediaAdaptor", "--action", "is_available"])
        .expect(exit::WORKER_START);
    assert!(outcome.stderr.contains("MediaAdapt"), "{}", outcome.describe());
    assert_eq!(journal::rows(&world.journal()).len(), before, "nothing was started for it");
    let outcome =
        world.run(&["call", PYSBD, "--task", "media", "--method", "describe", "--json"]).expect(exit::DOMAIN);
    let error = &outcome.json()["error"];
    assert_eq!(error["code"], "adapter.not_bound", "{}", outcome.describe());
    let message = error["message"].as_str().expect("a message");
    assert!(
        message.contains("it has: sentence_segmentation") && message.contains("convert, get_info"),
        "{message}"
    );
    // Asked for and fitting is bound alone.
    let arguments =
        ["call", PYSBD, "--task", "sentence_segmentation", "--method", "segment_text", "text=One. Two."];
    let outcome = world
        .run(&[&arguments[..], &["--adapter", "GenericSentenceSegmentationAdapter"]].concat())
        .expect(exit::OK);
    assert!(outcome.stdout.contains("\"sentence_count\":2"), "{}", outcome.describe());
}

/// Served by the ancestor's own worker; the graph store by its oldest release that we know.
const GENUINE: &str = "capabilities:
- name: pysbd
  package: cjm-capability-pysbd==0.0.1
  env_name: pysbd
  python_version: '>=3.12'
  worker: genuine
  interface_libs: [cjm-substrate==0.0.74]
  adapters:
  - impl: cjm_sentence_segmentation_adapter_interface.generic:GenericSentenceSegmentationAdapter
    lib: cjm-sentence-segmentation-adapter-interface==0.0.2
- name: graph
  package: cjm-capability-graph-sqlite==0.0.34
  env_name: graph
  python_version: '>=3.12'
  worker: genuine
  interface_libs: [cjm-substrate==0.0.51]
  adapters:
  - impl: cjm_graph_storage_adapter_interface.generic:GenericGraphStorageAdapter
    lib: cjm-graph-storage-adapter-interface==0.0.11
- name: monitor
  package: cjm-capability-monitor-nvidia==0.0.26
  env_name: monitor
  python_version: '>=3.12'
  worker: genuine
  interface_libs: [cjm-substrate==0.0.51]
";

#[test]
fn they_run_in_the_ancestors_own_worker_where_the_list_says_so() {
    let test = "they_run_in_the_ancestors_own_worker_where_the_list_says_so";
    let Some(world) = world(test) else { return };
    let Some(()) = install(&world, test, GENUINE) else { return };
    let text = json!({"text": "It rained. We left."});
    let answer = task(&world, PYSBD, "sentence_segmentation", "segment_text", &text);
    assert_eq!(answer["data"]["metadata"]["sentence_count"], 2, "{answer}");
    // Here its methods are no actions.
    let outcome = world.run(&["call", PYSBD, "--action", "segment_text"]).expect(exit::TOOL_FAILED);
    assert!(outcome.stderr.contains("has no attribute 'execute'"), "{}", outcome.describe());

    let nodes = json!({"nodes": [{"id": "a", "label": "Word", "properties": {}}]});
    assert_eq!(task(&world, GRAPH, "graph-storage", "add_nodes", &nodes), json!(["a"]));
    let schema = task(&world, GRAPH, "graph-storage", "get_schema", &json!({}));
    assert_eq!(schema["counts"]["Word"], 1, "{schema}");
    let outcome = world.run(&["call", MONITOR, "--action", "x"]).expect(exit::TOOL_FAILED);
    assert!(outcome.stderr.contains("has no attribute 'execute'"), "{}", outcome.describe());

    let rows = journal::rows(&world.journal());
    let ready = |instance: &str| {
        let of_it = |row: &&journal::Row| {
            row.event_type == "worker_ready" && row.instance.as_deref() == Some(instance)
        };
        rows.iter().find(of_it).unwrap_or_else(|| panic!("{instance} was never ready")).payload.clone()
    };
    assert_eq!(ready(PYSBD)["substrate_version"], "0.0.74");
    assert_eq!(ready(GRAPH)["substrate_version"], Value::Null);
    assert!(rows.iter().all(|row| row.payload.get("drifted").is_none()), "{}", journal::tell(&rows));
    journal::assert_every_job_ended_once(&world.journal());
    world.assert_nothing_left();
}
