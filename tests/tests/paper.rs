//! Pages beside recordings: pictures of known text are read, split into sentences and found in one search with what was
//! said; files go in and out with the hashes of what they hold, and an unchanged one is not worked on twice.

use cjm_tests::world::{COMMAND_MAX, Outcome, World};
use cjm_tests::{journal, repo};
use cjm_wire::cache::relative_dir;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

const ALSA: &str = "/usr/share/sounds/alsa";
const FONT: &str = "/usr/share/fonts/truetype/dejavu/DejaVuSerif.ttf";
/// Of a page's characters, so many may be wrong.
const CHARACTER_ERRORS_MAX: f64 = 0.02;
/// A page that no script of ours has ever drawn, one sentence per line.
const OTHER_PAGE: &str = "\
The lamp was lit at 6 p.m. by Mr. Brandt, i.e. an hour before dusk.
Did anybody see it from the side of the hill?
Prof. Adeyemi did!

She counted 12.5 flashes per minute, and noted them in No. 3 of her diaries.
The left shutter stuck; nobody repaired it.
";
/// What somebody adds to that page later.
const ADDED: &str = "The year after, it was replaced.";

/// What the tests need and the machine may lack; false, said loudly, where it is missing.
fn has_programs(test: &str) -> bool {
    let found = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    };
    for (what, is_there) in [
        ("tesseract (tesseract-ocr)", found("tesseract")),
        ("ffmpeg", found("ffmpeg")),
        ("a font (fonts-dejavu-core)", Path::new(FONT).is_file()),
        ("the recordings of alsa-utils", Path::new(ALSA).join("Noise.wav").is_file()),
    ] {
        if !is_there {
            repo::skip(test, &format!("{what} is missing"));
            return false;
        }
    }
    true
}

/// Draws `text` as the quickstart does.
fn draw(world: &World, picture: &Path, text: &Path) {
    std::fs::create_dir_all(picture.parent().expect("a folder")).expect("a folder");
    let mut command = Command::new(repo::root().join("scripts/draw-page"));
    command.arg(picture).arg(text);
    let _ = world.start_command(command).wait(COMMAND_MAX).expect(0);
}

fn quickstart_page() -> PathBuf {
    repo::root().join("scripts/page.txt")
}

fn sentences_of(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum runs");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace().next().unwrap_or_else(|| panic!("{}: no hash", path.display())).to_owned()
}

/// Levenshtein's distance, in characters.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, left) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, right) in other.iter().enumerate() {
            let best = (diagonal + usize::from(left != *right)).min(row[column] + 1).min(row[column + 1] + 1);
            diagonal = std::mem::replace(&mut row[column + 1], best);
        }
    }
    row[other.len()]
}

#[test]
fn distances_are_levenshteins() {
    for (one, other, expected) in
        [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("é", "e", 1)]
    {
        assert_eq!((distance(one, other), distance(other, one)), (expected, expected), "{one} {other}");
    }
}

#[test]
fn pages_and_recordings_are_found_in_one_search() {
    let test = "pages_and_recordings_are_found_in_one_search";
    let mut world = World::new();
    if !has_programs(test) {
        return;
    }
    if let Err(error) = world.offer_uv() {
        repo::skip(test, &error);
        return;
    }
    let list = repo::root().join("capabilities.yaml").display().to_string();
    let _ = world.run(&["install-all", "--capabilities", &list]).expect(0);
    let known_text = std::fs::read_to_string(quickstart_page()).expect("the page's text");
    assert!(known_text.chars().count() >= 1200, "the page is long enough to tell 2 %");
    let (pages, recordings) = (world.file("pages"), world.file("recordings"));
    draw(&world, &pages.join("k3.png"), &quickstart_page());
    draw(&world, &pages.join("a7.png"), &world.write("other.txt", OTHER_PAGE));
    std::fs::create_dir_all(&recordings).expect("a folder");
    for (name, voice) in [("x.wav", "Rear_Left"), ("y.wav", "Side_Right")] {
        std::fs::copy(Path::new(ALSA).join(format!("{voice}.wav")), recordings.join(name)).expect("a copy");
    }
    let known = BTreeMap::from([("k3.png", known_text.as_str()), ("a7.png", OTHER_PAGE)]);

    let first = run_composition(&world, &pages, &recordings);
    let stored = documents(&first["output"]["pages"]);
    assert_eq!(stored.keys().map(String::as_str).collect::<BTreeSet<_>>(), known.keys().copied().collect());
    let mut versions = BTreeSet::new();
    for (name, text) in &known {
        let page = get(&world, &stored[*name]);
        read_right(&page, text);
        says_where_it_comes_from(&page, &pages.join(name), &first);
        versions.insert(numpy_of(&page, "sentence-splitter"));
    }
    let said = documents(&first["output"]["recordings"]);
    assert_eq!((&said["x.wav"]["text"], &said["y.wav"]["text"]), (&json!("rear left"), &json!("side right")));
    versions.insert(numpy_of(&get(&world, &said["x.wav"]), "speech-detector"));
    assert_eq!(versions.len(), 2, "two versions, side by side: {versions:?}");

    found_together(&world);
    not_worked_on_twice(&world, &pages, &recordings, &first);
    journal::assert_every_job_ended_once(&world.journal());
    world.assert_nothing_left();
}

fn run_composition(world: &World, pages: &Path, recordings: &Path) -> Value {
    let composition = repo::root().join("compositions/paper-and-sound.yaml").display().to_string();
    let pages = format!("pages={}", pages.display());
    let recordings = format!("recordings={}", recordings.display());
    world.json(&["run", &composition, &pages, &recordings, "--json"])
}

/// By file name.
fn documents(list: &Value) -> BTreeMap<String, Value> {
    let name = |document: &Value| {
        let path = PathBuf::from(document["recording"].as_str().unwrap_or_default());
        path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    };
    let list = list.as_array().unwrap_or_else(|| panic!("a list: {list:#}"));
    list.iter().map(|document| (name(document), document.clone())).collect()
}

fn get(world: &World, document: &Value) -> Value {
    let id = format!("id={}", document["id"]);
    world.json(&["call", "transcript-store", "--action", "get", &id, "--json"])["result"].clone()
}

#[track_caller]
fn read_right(page: &Value, known: &str) {
    let sentences: Vec<&str> =
        page["segments"].as_array().expect("segments").iter().filter_map(|s| s["text"].as_str()).collect();
    assert_eq!(sentences, sentences_of(known), "{page:#}");
    let read = page["text"].as_str().expect("a text").split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = sentences_of(known).join(" ");
    let (wrong, all) = (distance(&read, &expected), expected.chars().count());
    #[expect(clippy::cast_precision_loss, reason = "a few thousand characters")]
    let share = wrong as f64 / all as f64;
    repo::measured(&format!(
        "page read: {wrong} of {all} characters wrong ({:.2} %), goal 2 %",
        100.0 * share
    ));
    assert!(share <= CHARACTER_ERRORS_MAX, "{wrong} of {all}: {read}");
}

fn says_where_it_comes_from(page: &Value, picture: &Path, run: &Value) {
    assert_eq!((&page["kind"], &page["speech"]), (&json!("page"), &json!(false)));
    assert_eq!(page["recording_sha256"], sha256(picture));
    assert_eq!(page["run_id"], run["run_id"]);
    let steps = page["steps"].as_array().expect("steps");
    let tools: Vec<&str> = steps.iter().filter_map(|step| step["capability"].as_str()).collect();
    assert_eq!(tools, ["ocr", "sentence-splitter", "transcript-store"]);
    assert_eq!(steps[0]["page_sha256"], page["recording_sha256"]);
    assert_eq!(steps[0]["text_sha256"].as_str().map(str::len), Some(64));
    assert_eq!(steps[1]["engine"], "pysbd 0.3.4");
}

/// Major and minor version.
fn numpy_of(document: &Value, tool: &str) -> String {
    let steps = document["steps"].as_array().expect("steps");
    let step = steps.iter().find(|step| step["capability"] == tool).unwrap_or_else(|| panic!("{document:#}"));
    let version = step["numpy"].as_str().unwrap_or_else(|| panic!("{step:#}"));
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// One question, answered from paper and from sound.
fn found_together(world: &World) {
    let answer =
        world.json(&["call", "transcript-store", "--action", "search", "query=rear OR left", "--json"]);
    let hits = answer["result"]["hits"].as_array().cloned().unwrap_or_else(|| panic!("hits: {answer:#}"));
    let by_file: BTreeMap<String, Value> = documents(&Value::Array(hits));
    let sentence = |file: &str| by_file[file]["sentences"][0]["text"].as_str().unwrap_or_default().to_owned();
    assert!(sentence("k3.png").contains("the rear horn"), "{by_file:#?}");
    assert_eq!(sentence("a7.png"), "The left shutter stuck; nobody repaired it.");
    assert!(by_file["x.wav"]["times"][0]["end"].as_f64().is_some_and(|end| end > 0.5), "{by_file:#?}");
    assert!(!by_file.contains_key("y.wav"));
}

/// The same again, and with one page changed.
fn not_worked_on_twice(world: &World, pages: &Path, recordings: &Path, first: &Value) {
    let again = run_composition(world, pages, recordings);
    assert_eq!(hits_of(world, &again), BTreeMap::from([("ffmpeg-convert", 2), ("ocr", 2)]));
    for kind in ["pages", "recordings"] {
        let (before, after) = (documents(&first["output"][kind]), documents(&again["output"][kind]));
        for (name, document) in &after {
            assert_eq!((&document["id"], &document["new"]), (&before[name]["id"], &json!(false)), "{name}");
        }
    }
    draw(world, &pages.join("a7.png"), &world.write("other.txt", format!("{OTHER_PAGE}{ADDED}\n")));
    let changed = run_composition(world, pages, recordings);
    assert_eq!(hits_of(world, &changed), BTreeMap::from([("ffmpeg-convert", 2), ("ocr", 1)]));
    let page = &documents(&changed["output"]["pages"])["a7.png"];
    assert_eq!(page["new"], true);
    assert!(page["text"].as_str().is_some_and(|text| text.ends_with(ADDED)), "{page:#}");
}

/// How often files were given again in a run, by tool, as the journal has it.
fn hits_of(world: &World, run: &Value) -> BTreeMap<&'static str, usize> {
    let run_id = run["run_id"].as_str().expect("a run");
    let rows = world.json(&["logs", "--journal", "--run", run_id, "-n", "0", "--json"]);
    let mut hits = BTreeMap::new();
    for row in rows.as_array().expect("rows").iter().filter(|row| row["event_type"] == "cache_hit") {
        assert_eq!(row["worker_reported"], true, "{row:#}");
        let tool = ["ocr", "ffmpeg-convert"].into_iter().find(|tool| row["capability_instance_id"] == **tool);
        *hits.entry(tool.unwrap_or_else(|| panic!("{row:#}"))).or_insert(0) += 1;
    }
    hits
}

#[test]
fn files_go_in_and_out_with_the_hashes_of_what_they_hold() {
    let world = World::new();
    if !has_programs("files_go_in_and_out_with_the_hashes_of_what_they_hold") {
        return;
    }
    let manifest =
        std::fs::read_to_string(repo::root().join("capabilities/ocr/manifest.json")).expect("a manifest");
    world.install("ocr", &serde_json::from_str(&manifest).expect("JSON"));
    let picture = world.file("page.png");
    draw(&world, &picture, &quickstart_page());
    let drawn = sha256(&picture);
    draw(&world, &picture, &quickstart_page());
    assert_eq!(sha256(&picture), drawn, "the same text is the same picture");
    // A file that has just changed is not remembered.
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    File::options().write(true).open(&picture).and_then(|file| file.set_modified(hour_ago)).expect("a time");

    // As the issue says it, from the folder in which the picture lies.
    let called = world.run(&["call", "ocr", "page=@page.png", "-o", "out/"]).expect(0);
    let result = called.json();
    assert_eq!(result["text"]["path"], "out/page.txt");
    for (output, file) in [("text", "out/page.txt"), ("words", "out/page.tsv"), ("image", "page.png")] {
        let path = world.file(file);
        assert_eq!(result[output]["sha256"], sha256(&path), "{output}");
        assert_eq!(result[output]["bytes"], path.metadata().expect("a file").len(), "{output}");
    }
    for line in ["wrote out/page.txt (", "wrote out/page.tsv (", "wrote out/result.json ("] {
        assert!(called.stderr.contains(line), "{}", called.describe());
    }
    assert!(!world.file("out/page.png").exists(), "the caller's own file is not copied");
    let kept: Value =
        serde_json::from_str(&std::fs::read_to_string(world.file("out/result.json")).expect("a result"))
            .expect("JSON");
    assert_eq!(kept["text"]["path"], "page.txt");

    lies_where_the_ancestor_would_look(&world, &picture, &drawn);
    from_standard_input(&world, &result);
    world.assert_nothing_left();
}

fn lies_where_the_ancestor_would_look(world: &World, picture: &Path, content: &str) {
    let direct = world.json(&["call", "ocr", "page=@page.png", "--json"]);
    let config = json!({"language": "eng", "layout": 3});
    let config = config.as_object().cloned().unwrap_or_else(Map::new);
    let dir = world.data_dir().join("data/ocr").join(relative_dir("read", picture, content, &config));
    assert_eq!(direct["result"]["text"]["path"], json!(dir.join("page.txt")));
    assert_eq!(hits_of(world, &direct), BTreeMap::from([("ocr", 1)]));
    let forced = world.json(&["call", "ocr", "page=@page.png", "--force", "--json"]);
    assert_eq!((&forced["result"], hits_of(world, &forced)), (&direct["result"], BTreeMap::new()));
    let database =
        rusqlite::Connection::open(world.data_dir().join("input_hash_cache.db")).expect("a database");
    let row: (String, i64, String) = database
        .query_row("SELECT path, size, content_hash FROM input_hash_cache", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .expect("one row");
    let size = picture.metadata().expect("a file").len().cast_signed();
    assert_eq!(row, (picture.display().to_string(), size, format!("sha256:{content}")));
}

fn from_standard_input(world: &World, expected: &Value) {
    let text = &expected["text"]["sha256"];
    let piped = |line: &str| -> Outcome {
        let mut command = Command::new("sh");
        let data_dir = world.data_dir().display().to_string();
        command.args(["-c", line, &repo::binary("cjm-ctl").display().to_string(), &data_dir]);
        world.start_command(command).wait(COMMAND_MAX)
    };
    let result =
        piped("exec \"$0\" --data-dir \"$1\" call ocr page=@- -o from-pipe < page.png").expect(0).json();
    assert_eq!((&result["text"]["sha256"], &result["text"]["path"]), (text, &json!("from-pipe/stdin.txt")));
    let taken = PathBuf::from(result["image"]["path"].as_str().expect("a path"));
    assert!(taken.is_absolute() && !taken.exists(), "gone with the command: {}", taken.display());
    let result = piped("printf '{\"page\": \"page.png\"}' | exec \"$0\" --data-dir \"$1\" call ocr --args -")
        .expect(0)
        .json();
    assert_eq!(&result["text"]["sha256"], text);
    let refused = piped("exec \"$0\" --data-dir \"$1\" call ocr page=@- --args - < page.png").expect(2);
    assert!(refused.stderr.contains("more than once"), "{}", refused.describe());
}
