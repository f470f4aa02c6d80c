//! The README's tour, played as it stands there: its files are written, its commands run, and each answers what the
//! README says after its arrow.

use cjm_tests::document::{blocks, play};
use cjm_tests::repo;
use cjm_tests::world::World;

const README: &str = "README.md";

#[test]
fn the_tour_does_what_it_says() {
    let mut world = World::new();
    if let Err(error) = world.offer_uv() {
        repo::skip("the_tour_does_what_it_says", &error);
        return;
    }
    for block in blocks(README).iter().filter(|block| block.title.starts_with("tools/")) {
        let path = world.file(&block.title);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, &block.text).expect("a file");
    }
    let answers = play(&world, README, "tour");
    assert!(answers >= 6, "only {answers} answers were checked");
}

#[test]
fn the_rust_example_is_the_one_that_a_doc_test_compiles() {
    let source = repo::root().join("worker-shim/src/sdk/capability.rs");
    let comments: String = std::fs::read_to_string(source)
        .expect("the trait's file")
        .lines()
        .filter_map(|line| line.strip_prefix("///"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    let blocks = blocks(README);
    let example = blocks.iter().find(|block| block.language == "rust").expect("a Rust example");
    assert!(
        comments.contains(&example.text),
        "the README's example differs from the trait's:\n{}",
        example.text
    );
}

#[test]
fn the_exit_codes_are_those_of_the_code() {
    let text = std::fs::read_to_string(repo::root().join("README.md")).expect("README.md");
    let source = std::fs::read_to_string(repo::root().join("wire/src/describe.rs")).expect("the exit codes");
    let codes: Vec<&str> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": u8 = ")?.1.strip_suffix(';'))
        .collect();
    assert!(codes.len() >= 11, "{codes:?}");
    for code in codes {
        assert!(text.contains(&format!("| {code} | ")), "README.md lacks exit code {code}");
    }
}
