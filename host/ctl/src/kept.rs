//! What takes room in the data directory and on its disk that no retention takes away, and how its user can.
//!
//! What must hold: nothing that is mounted or linked is counted, and no command is named that would empty what is mounted.

use crate::cli::shell_word;
use crate::output::path_text;
use cjm_platform::mounts::mounted_at_or_below;
use cjm_wire::cache::is_session_directory;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What the system counts the room of a file in.
const BLOCK_BYTES: u64 = 512;

/// A folder or file and what it holds on its own disk.
pub(crate) struct Kept {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// The largest of what lies in a folder, each of so many bytes at least; none of a link.
pub(crate) fn largest_in(folder: &Path, count_max: usize, bytes_min: u64) -> Vec<Kept> {
    largest(folder, count_max, bytes_min, own_bytes)
}

/// The largest folders of tools by what the tools keep there themselves: results of jobs go with their jobs.
pub(crate) fn largest_of_tools(data_dir: &Path, count_max: usize, bytes_min: u64) -> Vec<Kept> {
    let without_results = |tool: &Path| own_bytes(tool).saturating_sub(results_of(tool));
    largest(&data_dir.join("data"), count_max, bytes_min, without_results)
}

/// The room that results of programs take in the folders in which their calls ran.
pub(crate) fn results_in(data_dir: &Path) -> u64 {
    let tools = fs::read_dir(data_dir.join("data")).into_iter().flatten().flatten();
    tools.map(|tool| results_of(&tool.path())).sum()
}

fn results_of(tool: &Path) -> u64 {
    let work = tool.join("work");
    if !fs::symlink_metadata(&work).is_ok_and(|found| found.is_dir()) {
        return 0;
    }
    let sessions = fs::read_dir(work).into_iter().flatten().flatten().map(|entry| entry.path());
    sessions.filter(|path| is_session_directory(path)).map(|path| own_bytes(&path)).sum()
}

fn largest(folder: &Path, count_max: usize, bytes_min: u64, bytes_of: impl Fn(&Path) -> u64) -> Vec<Kept> {
    if !fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir()) {
        return Vec::new();
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sized = entries.map(|entry| Kept { bytes: bytes_of(&entry.path()), path: entry.path() });
    let mut kept: Vec<Kept> = sized.filter(|kept| kept.bytes >= bytes_min).collect();
    kept.sort_by_key(|kept| std::cmp::Reverse(kept.bytes));
    kept.truncate(count_max);
    kept
}

/// The room that a file, or all files in a folder and below it, take. Where it cannot be known what is mounted there, it is
/// nothing that could be told.
pub(crate) fn own_bytes(path: &Path) -> u64 {
    let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    let (Ok(real), Ok(mounted)) = (path.canonicalize(), mounted_at_or_below(path)) else { return 0 };
    let mut bytes = 0;
    let mut next = if is_link { Vec::new() } else { vec![real] };
    while let Some(path) = next.pop() {
        if mounted.contains(&path) {
            continue;
        }
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.is_dir() {
            next.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if found.is_file() {
            bytes += found.blocks() * BLOCK_BYTES;
        }
    }
    bytes
}

/// The commands that take a folder away, and nothing that is not in it itself.
pub(crate) fn way_to_remove(folder: &Path) -> String {
    let word = |path: &Path| shell_word(&path_text(path));
    let folder_word = word(folder);
    if fs::symlink_metadata(folder).is_ok_and(|found| found.is_symlink()) {
        return format!("`rm {folder_word}` takes the link away, and nothing of what it leads to");
    }
    match mounted_at_or_below(folder) {
        Ok(mounted) if mounted.is_empty() => format!("`rm -r {folder_word}` takes it away"),
        Ok(mut mounted) => {
            // What is mounted in something that is mounted goes first.
            mounted.reverse();
            let places: Vec<String> = mounted.iter().map(|place| word(place)).collect();
            format!(
                "`umount {}` first, for what is mounted there would be emptied; then `rm -r {folder_word}` takes it away",
                places.join(" ")
            )
        }
        Err(error) => format!("take it away when nothing is mounted in it, which cannot be known: {error}"),
    }
}

/// Where the disk of a path is mounted: all below it that is on this disk takes its room.
pub(crate) fn disk_of(path: &Path) -> PathBuf {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let own = device(&real);
    real.ancestors().take_while(|above| device(above) == own).last().unwrap_or(&real).to_owned()
}
