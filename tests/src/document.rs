//! Documents as their readers use them: the files they show are written, the commands they show are run, and each must
//! answer what the document says after its arrow (`# → `).

use crate::repo;
use crate::world::{COMMAND_MAX, World};
use std::process::Command;

/// A fenced block of a document.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its language.
    pub language: String,
    /// Its `title=`.
    pub title: String,
    /// What is inside.
    pub text: String,
}

/// The fenced blocks of a file of the repository.
///
/// # Panics
/// If there is no such file.
#[must_use]
pub fn blocks(file: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(repo::root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(fence) = line.strip_prefix("```").filter(|fence| !fence.is_empty()) else { continue };
        let inside: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let (language, rest) = fence.split_once(' ').unwrap_or((fence, ""));
        let title = rest.strip_prefix("title=").unwrap_or_default();
        found.push(Block { language: language.into(), title: title.into(), text: inside.join("\n") + "\n" });
    }
    found
}

/// Runs the commands of the block with this title, line by line, and looks for each promised answer in what the last
/// command said. Returns how many answers were promised.
///
/// # Panics
/// When a command fails, or says something else.
pub fn play(world: &World, file: &str, title: &str) -> usize {
    let blocks = blocks(file);
    let tour =
        blocks.iter().find(|block| block.title == title).unwrap_or_else(|| panic!("{file}: no {title}"));
    let binary = repo::binary("cjm-ctl");
    let folder = binary.parent().expect("a folder").display();
    let mut last = String::new();
    let mut answers = 0;
    for line in tour.text.lines() {
        if let Some(expected) = line.strip_prefix("# → ") {
            assert!(last.contains(expected), "{file} promises \"{expected}\"\n{last}");
            answers += 1;
            continue;
        }
        let mut command = Command::new("sh");
        let data_dir = world.data_dir().display().to_string();
        command.args(["-c", &format!("export PATH={folder}:$PATH CJM_DATA_DIR={data_dir}; {line}")]);
        last = world.start_command(command).wait(COMMAND_MAX).expect(0).describe();
        world.assert_nothing_left();
    }
    answers
}
