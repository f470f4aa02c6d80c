//! Calls of programs that fail before their program has run: nobody is told that the tool failed.

use crate::harness::{Worker, shim};
use crate::lifecycle::script;
use serde_json::{Value, json};
use std::fs;

/// Leaves a file where it has run.
fn worker(more: &Value) -> Worker {
    let mut action = json!({
        "argv": ["-c", "echo ran > {data_dir}/ran", "sh"],
        "parameters": {"f": {"type": "input_file"}},
    });
    action.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Worker::ready(shim(), script(json!({ "run": action }))).0
}

/// The error's class and category; nothing has run.
fn refused(worker: &Worker, kwargs: Value, words: &str) -> (String, String, bool) {
    let error = worker.execute("run", kwargs).job_error();
    assert!(error["message"].as_str().unwrap().contains(words), "{error}");
    assert!(!worker.data_dir().join("ran").exists(), "{error}");
    let class = error["original_exc_repr"].as_str().unwrap().split('(').next().unwrap();
    let category = error["category"].as_str().unwrap();
    (class.to_owned(), category.to_owned(), error["retriable"] == true)
}

fn told(class: &str, category: &str, retriable: bool) -> (String, String, bool) {
    (class.to_owned(), category.to_owned(), retriable)
}

#[test]
fn an_input_that_cannot_be_read_is_a_bad_argument_wherever_that_is_seen() {
    let kept = worker(&json!({"outputs": {"out": "{cache_dir}/{f.name}"}, "result": "files"}));
    // A regular file that opens and does not read.
    let unreadable = refused(
        &kept,
        json!({"f": "/proc/self/mem"}),
        "argument `f` is /proc/self/mem, which cannot be read",
    );
    assert_eq!(unreadable, told("Unfit", "user_input", true));
    let missing = refused(
        &kept,
        json!({"f": "/proc/self/none"}),
        "argument `f` is /proc/self/none, which cannot be read",
    );
    assert_eq!(missing, told("Unfit", "user_input", true));
    let error = kept.execute("run", json!({"f": "/proc/self/mem"})).job_error();
    assert_eq!(error["fields_invalid"], json!(["f"]));
}

#[test]
fn what_stands_in_the_place_of_the_calls_directory_is_the_machines_trouble_and_no_retry_helps() {
    let worker = worker(&json!({}));
    fs::write(worker.data_dir().join("work"), "a file").unwrap();
    let found = refused(&worker, json!({}), "cannot be made: Not a directory");
    assert_eq!(found, told("NotBegun", "fatal", false));
    fs::remove_file(worker.data_dir().join("work")).unwrap();
    worker.execute("run", json!({})).json();
    assert!(worker.data_dir().join("ran").exists());
}

#[test]
fn a_program_that_cannot_be_executed_has_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    fs::copy("/bin/sh", &program).unwrap();
    let mut launch = script(json!({"run": {"argv": ["-c", "true"]}}));
    if let cjm_wire::link::Launch::Executable { program: path, .. } = &mut launch {
        *path = program.display().to_string();
    }
    let worker = Worker::ready(shim(), launch).0;
    worker.execute("run", json!({})).json();
    fs::remove_file(&program).unwrap();
    let found = refused(&worker, json!({}), "program");
    assert_eq!(found, told("NotBegun", "fatal", false));
}
