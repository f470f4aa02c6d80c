//! The pages of the Python SDK and of manifests, played as they stand there: their files are written, their commands run,
//! and each answers what the page says after its arrow. The page of the Rust SDK is compiled as a doc test of `cjm-worker`,
//! that of programs which embed the host as one of `cjm-host`.

use cjm_tests::document::{blocks, play};
use cjm_tests::repo;
use cjm_tests::world::World;

#[test]
fn the_tool_of_the_python_page_does_what_it_says() {
    assert_eq!(play_page("docs/PYTHON-SDK.md", "sdk_tour"), 4);
}

#[test]
fn the_tests_of_the_python_page_find_the_sdk() {
    assert_eq!(play_page("docs/PYTHON-SDK.md", "sdk_test"), 1);
}

#[test]
fn the_program_of_the_page_of_manifests_does_what_it_says() {
    assert_eq!(play_page("docs/MANIFESTS.md", "manifest_tour"), 4);
}

/// Writes the files that have a title, and runs the commands of the block `tour`; how many answers were promised.
fn play_page(page: &str, tour: &str) -> usize {
    let mut world = World::new();
    world.set("CJM_SOURCE", repo::root().display().to_string());
    // Other tours are no files.
    for block in blocks(page).iter().filter(|block| !block.title.is_empty() && block.language != "sh") {
        let path = world.file(&block.title);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, &block.text).expect("a file");
    }
    play(&world, page, tour)
}
