//! The page of the Python SDK, played as it stands there: its tool is written, its commands run, and each answers what the
//! page says after its arrow. The page of the Rust SDK is compiled as a doc test of `cjm-worker`.

use cjm_tests::document::{blocks, play};
use cjm_tests::world::World;

const PAGE: &str = "docs/PYTHON-SDK.md";
const TOUR: &str = "sdk_tour";

#[test]
fn the_tool_of_the_python_page_does_what_it_says() {
    let world = World::new();
    for block in blocks(PAGE).iter().filter(|block| block.title.starts_with("sdk_tour/")) {
        let path = world.file(&block.title);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, &block.text).expect("a file");
    }
    assert_eq!(play(&world, PAGE, TOUR), 4);
}
