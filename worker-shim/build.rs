//! Embeds the Python SDK: writes a list of its files for `tool::channel::sdk_files` to include.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    let root = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("python");
    let mut files = Vec::new();
    collect(&root.join("cjm_sdk"), &mut files);
    files.sort();
    let mut code = String::from("&[\n");
    for file in &files {
        // Each file, and not the folder: Python writes its caches there, and cargo would build again.
        println!("cargo:rerun-if-changed={}", file.display());
        let name = file.strip_prefix(&root).expect("below the root");
        writeln!(code, "    (\"{}\", include_bytes!(\"{}\")),", name.display(), file.display())
            .expect("a string");
    }
    code.push(']');
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    std::fs::write(out.join("python_sdk.rs"), code).expect("the output folder is writable");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "py") {
            files.push(path);
        }
    }
}
