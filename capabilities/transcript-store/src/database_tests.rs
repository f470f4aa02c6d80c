//! The database against real files: what is stored once, found again, and refused.

use super::*;
use std::cell::Cell;
use tempfile::TempDir;

const NEVER: &dyn Fn() -> bool = &|| false;

struct Lab {
    folder: TempDir,
    database: Database,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("data")).unwrap();
        Self { folder, database }
    }

    /// A recording with this content.
    fn recording(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn store(&mut self, documents: Value) -> Result<Value, StoreError> {
        let documents: Vec<Document> = serde_json::from_value(documents).unwrap();
        let origin = Origin {
            run_id: Some("run".into()),
            job_id: Some("job".into()),
            stored_by: json!({"capability": "transcript-store"}),
            ..Origin::default()
        };
        self.database.store(&documents, &origin, NEVER)
    }

    fn found(&self, query: &str) -> Vec<i64> {
        let answer = self.database.search(query, 100).unwrap();
        answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_i64().unwrap()).collect()
    }
}

#[test]
fn a_recording_with_the_same_text_is_stored_once_whatever_its_name() {
    let mut lab = Lab::new();
    let (first, copy) = (lab.recording("a.wav", "sound"), lab.recording("b.wav", "sound"));
    let document = |recording: &str, text: &str| json!({"recording": recording, "text": text});
    let answer = lab.store(json!([document(&first, "front left"), document(&first, "front right")])).unwrap();
    assert_eq!((&answer["stored"], &answer["already_there"]), (&json!(2), &json!(0)));
    let ids: Vec<&Value> = answer["documents"].as_array().unwrap().iter().map(|d| &d["id"]).collect();
    let again = lab.store(json!([document(&copy, "front right"), document(&first, "rear left")])).unwrap();
    assert_eq!((&again["stored"], &again["already_there"]), (&json!(1), &json!(1)));
    assert_eq!(&again["documents"][0]["id"], ids[1]);
    assert_eq!(again["documents"][0]["new"], false);
    assert_eq!(lab.database.stats().unwrap()["documents"], 3);
    assert_eq!(lab.database.stats().unwrap()["recordings"], 1);
    assert_eq!(lab.found("right").len(), 1);
}

#[test]
fn provenance_comes_back_whole() {
    let mut lab = Lab::new();
    let recording = lab.recording("a.wav", "abc");
    let answer = lab
        .store(json!([{
            "recording": recording, "audio": "/kept/a.wav", "text": "front left", "speech": true,
            "segments": [{"start": 0.5, "end": 1.25, "text": "front left", "score": 0.75}],
            "steps": [{"capability": "speech-detector", "version": "1"}], "more": "is left out",
        }]))
        .unwrap();
    let document = lab.database.get(answer["documents"][0]["id"].as_i64().unwrap()).unwrap();
    let expected = json!({
        "id": document["id"], "kind": "sound", "recording": recording,
        "recording_sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "audio": "/kept/a.wav", "speech": true, "text": "front left",
        "segments": [{"start": 0.5, "end": 1.25, "text": "front left", "score": 0.75}],
        "steps": [{"capability": "speech-detector", "version": "1"}, {"capability": "transcript-store"}],
        "run_id": "run", "composition_id": null, "node_id": null, "job_id": "job", "actor": null,
        "stored_at": document["stored_at"],
    });
    assert_eq!(document, expected);
    let stored_at = document["stored_at"].as_str().unwrap();
    assert!(stored_at.len() == 29 && stored_at.ends_with("+00:00"), "{stored_at}");
    assert!(matches!(lab.database.get(999), Err(StoreError::NoSuchDocument(999))));
}

#[test]
fn a_search_says_what_where_and_when() {
    let mut lab = Lab::new();
    let (first, second) = (lab.recording("a.wav", "1"), lab.recording("b.wav", "2"));
    lab.store(json!([
        {"recording": first, "text": "Front left. Rear right.", "segments": [
            {"start": 0.0, "end": 1.0, "text": "Front left."}, {"start": 1.5, "end": 2.5, "text": "Rear right."}]},
        {"recording": second, "text": "side left", "segments": []},
    ]))
    .unwrap();
    let answer = lab.database.search("rear AND left", 10).unwrap();
    assert_eq!(answer["total"], 1);
    let hit = &answer["hits"][0];
    assert_eq!(hit["recording"], first);
    assert_eq!(hit["highlighted"], "Front [left]. [Rear] right.");
    assert_eq!(hit["times"].as_array().unwrap().len(), 2);
    assert_eq!(lab.database.search("\"rear right\"", 10).unwrap()["hits"][0]["times"][0]["start"], 1.5);
    assert_eq!(lab.found("left").len(), 2);
    assert_eq!(lab.database.search("left", 1).unwrap()["total"], 2);
    assert_eq!(lab.database.search("left", 1).unwrap()["hits"].as_array().unwrap().len(), 1);
    assert_eq!(lab.found("left NOT front").len(), 1);
    assert_eq!(lab.found("fro*").len(), 1);
    assert!(lab.found("nowhere").is_empty());
}

#[test]
fn a_page_is_found_beside_sound_with_the_sentences_that_match() {
    let mut lab = Lab::new();
    let (page, recording) = (lab.recording("page.png", "picture"), lab.recording("a.wav", "sound"));
    let sentences = json!([
        {"number": 1, "paragraph": 1, "text": "The rear horn sounds."},
        {"number": 2, "paragraph": 2, "text": "Nobody hears it."},
    ]);
    let answer = lab
        .store(json!([
            {"kind": "page", "page": page, "text": "The rear horn sounds.\n\nNobody hears it.",
                "segments": sentences, "steps": [{"capability": "ocr"}], "measures": {}},
            {"recording": recording, "text": "rear left", "segments": [{"start": 0.5, "end": 1.0, "text": "rear left"}]},
        ]))
        .unwrap();
    assert_eq!(
        (&answer["documents"][0]["kind"], &answer["documents"][0]["speech"]),
        (&json!("page"), &json!(false))
    );
    let found = lab.database.search("rear", 10).unwrap();
    let hit = |kind: &str| found["hits"].as_array().unwrap().iter().find(|hit| hit["kind"] == kind).unwrap();
    assert_eq!((&hit("page")["recording"], &hit("page")["times"]), (&json!(page), &json!([])));
    assert_eq!(hit("page")["sentences"], json!([sentences[0]]));
    assert_eq!((&hit("sound")["times"][0]["start"], &hit("sound")["sentences"]), (&json!(0.5), &json!([])));
    let document = lab.database.get(answer["documents"][0]["id"].as_i64().unwrap()).unwrap();
    assert_eq!((&document["kind"], &document["segments"]), (&json!("page"), &sentences));
    let stats = lab.database.stats().unwrap();
    assert_eq!(
        (&stats["documents"], &stats["pages"], &stats["with_speech"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert_eq!(lab.database.list(1, 1).unwrap()["documents"][0]["kind"], "page");
}

#[test]
fn a_database_from_before_there_were_pages_is_brought_up_to_date() {
    let mut lab = Lab::new();
    let recording = lab.recording("a.wav", "1");
    lab.store(json!([{"recording": recording, "text": "front"}])).unwrap();
    lab.database
        .connection
        .execute_batch("ALTER TABLE documents DROP COLUMN kind; PRAGMA user_version = 1;")
        .unwrap();
    let reopened = Database::open(&lab.folder.path().join("data")).unwrap();
    assert_eq!(reopened.list(1, 0).unwrap()["documents"][0]["kind"], "sound");
}

#[test]
fn a_query_that_is_none_is_the_callers_fault_with_a_hint() {
    let lab = Lab::new();
    for query in ["\"front", "front AND", "front-left", "text : (", "^", "'", "nope: x"] {
        match lab.database.search(query, 10) {
            Err(error @ StoreError::BadQuery { .. }) => {
                let text = error.to_string();
                assert!(text.contains(query) && text.contains("double quotes"), "{text}");
            }
            other => panic!("{query}: {other:?}"),
        }
    }
}

#[test]
fn all_or_none_is_stored() {
    let mut lab = Lab::new();
    let recording = lab.recording("a.wav", "1");
    for (second, words) in [
        (json!({"recording": "/nowhere.wav", "text": "x"}), "documents[1]: the recording /nowhere.wav"),
        (json!({"text": "x"}), "documents[1] names no `recording`"),
        (
            json!({"recording": "/x.wav", "text": "x", "segments": [{"start": 1.0, "text": "x"}]}),
            "documents[1].segments[0] needs `start` and `end`",
        ),
    ] {
        let failed = lab.store(json!([{"recording": recording, "text": "front"}, second])).unwrap_err();
        assert!(failed.to_string().contains(words), "{failed}");
        assert_eq!(lab.database.stats().unwrap()["documents"], 0);
    }
    // Asked to stop after both are hashed (two looks each) and one is stored.
    let looks = Cell::new(0);
    let documents: Vec<Document> = serde_json::from_value(
        json!([{"recording": recording, "text": "front"}, {"recording": recording, "text": "rear"}]),
    )
    .unwrap();
    let is_cancelled = || {
        looks.set(looks.get() + 1);
        looks.get() > 5
    };
    let stopped = lab.database.store(&documents, &Origin::default(), &is_cancelled);
    assert!(matches!(stopped, Err(StoreError::Cancelled)), "{stopped:?}");
    assert_eq!(lab.database.stats().unwrap()["documents"], 0);
    assert!(lab.found("front").is_empty());
}

#[test]
fn the_list_goes_backwards_in_pages_and_survives_reopening() {
    let mut lab = Lab::new();
    let recording = lab.recording("a.wav", "1");
    for text in ["one", "two", "three", ""] {
        lab.store(json!([{"recording": recording, "text": text}])).unwrap();
    }
    let reopened = Database::open(&lab.folder.path().join("data")).unwrap();
    let page = reopened.list(2, 1).unwrap();
    assert_eq!(page["total"], 4);
    let texts: Vec<&Value> = page["documents"].as_array().unwrap().iter().map(|d| &d["text"]).collect();
    assert_eq!(texts, ["three", "two"]);
    assert_eq!(reopened.list(1, 0).unwrap()["documents"][0]["speech"], false);
    assert_eq!(reopened.stats().unwrap()["with_speech"], 3);
}

#[test]
fn a_database_of_a_later_version_is_refused() {
    let lab = Lab::new();
    lab.database.connection.pragma_update(None, "user_version", 99).unwrap();
    let refused = Database::open(&lab.folder.path().join("data"));
    assert!(matches!(refused, Err(StoreError::Migration(_))), "{refused:?}");
}
