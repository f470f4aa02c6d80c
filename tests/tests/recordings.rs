//! The main job on recordings whose names say nothing: shuffled, renamed and joined, through the shipped composition
//! and the shipped tools. No answer can come from a file name.

use cjm_tests::world::World;
use cjm_tests::{journal, repo};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian's alsa-utils has its recordings.
const ALSA: &str = "/usr/share/sounds/alsa";
const VOICES: [&str; 8] = [
    "Front_Center",
    "Front_Left",
    "Front_Right",
    "Rear_Center",
    "Rear_Left",
    "Rear_Right",
    "Side_Left",
    "Side_Right",
];
/// Positions that are spoken one after the other in one file.
const JOINED: [&[&str]; 2] = [&["Rear_Right", "Front_Left"], &["Side_Left", "Front_Center", "Rear_Left"]];
/// The names under which the voices are heard, in an order of no meaning.
const DISGUISES: [&str; 8] = ["k7", "a3", "z1", "m4", "q9", "b2", "x5", "d8"];

fn words(voice: &str) -> String {
    voice.to_lowercase().replace('_', " ")
}

/// Writes the recordings; file name → what is said in it.
fn disguise(folder: &Path) -> BTreeMap<String, String> {
    let source = |voice: &str| PathBuf::from(format!("{ALSA}/{voice}.wav"));
    let mut said = BTreeMap::new();
    for (index, name) in DISGUISES.iter().enumerate() {
        // Neighbours in one order are no neighbours in the other.
        let voice = VOICES[(index * 3 + 1) % VOICES.len()];
        std::fs::copy(source(voice), folder.join(format!("{name}.wav"))).expect("a copy");
        said.insert(format!("{name}.wav"), words(voice));
    }
    std::fs::copy(source("Noise"), folder.join("Front_Left.wav")).expect("a copy");
    said.insert("Front_Left.wav".to_owned(), String::new());
    for (index, voices) in JOINED.iter().enumerate() {
        let name = format!("joined-{index}.wav");
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-loglevel", "error", "-y"]);
        for voice in *voices {
            command.arg("-i").arg(source(voice));
        }
        let filter = format!("concat=n={}:v=0:a=1", voices.len());
        let status =
            command.args(["-filter_complex", &filter]).arg(folder.join(&name)).status().expect("ffmpeg runs");
        assert!(status.success(), "ffmpeg joined {voices:?}");
        said.insert(name, voices.iter().map(|voice| words(voice)).collect::<Vec<_>>().join(" "));
    }
    said
}

/// Installs the shipped tools; false, said loudly, where that cannot be.
fn install(world: &mut World, test: &str) -> bool {
    if !Path::new(ALSA).join("Noise.wav").is_file() {
        repo::skip(test, "the recordings of alsa-utils are missing");
        return false;
    }
    if let Err(error) = world.offer_uv() {
        repo::skip(test, &error);
        return false;
    }
    let list = repo::root().join("capabilities.yaml").display().to_string();
    let _ = world.run(&["install-all", "--capabilities", &list]).expect(0);
    true
}

#[test]
fn recordings_under_other_names_and_joined_are_understood() {
    let test = "recordings_under_other_names_and_joined_are_understood";
    let mut world = World::new();
    if !install(&mut world, test) {
        return;
    }
    let folder = world.file("recordings");
    std::fs::create_dir_all(&folder).expect("a folder");
    let said = disguise(&folder);
    let composition = repo::root().join("compositions/recordings.yaml").display().to_string();
    let input = format!("recordings={}", folder.display());
    let answer = world.json(&["run", &composition, &input, "--json"]);

    let documents = answer["output"].as_array().cloned().unwrap_or_else(|| panic!("a list: {answer:#}"));
    let heard: BTreeMap<String, String> = documents.iter().map(heard_in).collect();
    assert_eq!(heard, said);
    let noise =
        documents.iter().find(|d| d["recording"].to_string().contains("Front_Left")).expect("the noise");
    assert_eq!(noise["speech"], false, "{noise:#}");

    two_transcribers_overlap(&world);
    found_by_search(&world, &said);
    usage_was_reported(&answer);
    journal::assert_every_job_ended_once(&world.journal());
    world.assert_nothing_left();
}

fn heard_in(document: &Value) -> (String, String) {
    let path = PathBuf::from(document["recording"].as_str().unwrap_or_default());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = document["text"].as_str().unwrap_or_default();
    (name, text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn two_transcribers_overlap(world: &World) {
    let rows = journal::rows(&world.journal());
    let spans = journal::spans(&rows, "transcribe");
    assert_eq!(spans.len(), DISGUISES.len() + 1 + JOINED.len(), "{spans:?}");
    let workers: BTreeSet<&String> = spans.iter().map(|span| &span.worker).collect();
    assert_eq!(workers.len(), 2, "two transcribers: {spans:?}");
    let pids: BTreeSet<String> = rows
        .iter()
        .filter(|row| {
            row.event_type == "worker_spawned" && row.worker.as_ref().is_some_and(|w| workers.contains(w))
        })
        .map(|row| row.payload["pid"].to_string())
        .collect();
    assert_eq!(pids.len(), 2, "two processes: {pids:?}");
    assert!(journal::overlap(&spans), "they worked at the same time: {spans:?}");
}

/// A later command, another host: what was stored is found by what was said.
fn found_by_search(world: &World, said: &BTreeMap<String, String>) {
    let answer = world.json(&["call", "transcript-store", "--action", "search", "query=rear", "--json"]);
    let hits = answer["result"]["hits"].as_array().cloned().unwrap_or_else(|| panic!("hits: {answer:#}"));
    let found: BTreeSet<String> = hits.iter().map(|hit| heard_in(hit).0).collect();
    let expected: BTreeSet<String> =
        said.iter().filter(|(_, text)| text.contains("rear")).map(|(name, _)| name.clone()).collect();
    assert_eq!(found, expected);
}

/// The monitor says what each step used.
fn usage_was_reported(answer: &Value) {
    for node in answer["nodes"].as_array().expect("nodes") {
        let usage = &node["usage"];
        assert!(usage["peak_rss_mb"].as_f64().is_some_and(|mb| mb > 0.5), "{node:#}");
        assert!(node["pids"].as_array().is_some_and(|pids| !pids.is_empty()), "{node:#}");
    }
}

/// The README's program (see `library.rs` for its text), as its reader would run it.
#[test]
fn the_readmes_program_runs() {
    let test = "the_readmes_program_runs";
    let mut world = World::new();
    if !install(&mut world, test) {
        return;
    }
    let mut program = Command::new(repo::binary("examples/pipeline"));
    program.arg(format!("{ALSA}/Rear_Left.wav")).env("CJM_WORKER", repo::binary("cjm-worker"));
    world.set("CJM_DATA_DIR", world.data_dir().display().to_string());
    let outcome = world.start_command(program).wait(cjm_tests::world::COMMAND_MAX).expect(0);
    let speech: Value = outcome.json();
    assert_eq!(speech["speech"], true, "{speech}");
    assert!(outcome.stderr.contains("state_transition"), "its events are shown: {}", outcome.stderr);
    world.assert_nothing_left();
}
