//! One way of writing a path, so that a file is known again however its path was written: `./a`, `../here/a`, `a`.

use std::path::{Component, Path, PathBuf};

/// Absolute, without `.` and without `..`. What is behind a link keeps the link's name, as long as no `..` goes through it:
/// where that leads only the disk knows.
#[must_use]
pub fn plain_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if !absolute.components().any(|part| part == Component::ParentDir) {
        // Put together anew, since a join keeps its `.` and doubled slashes.
        return absolute.components().collect();
    }
    let folder = absolute.parent().and_then(|folder| folder.canonicalize().ok());
    match (folder, absolute.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => absolute,
    }
}

/// Whether two paths lead to one file; of files that are not there, whether they are written alike.
#[must_use]
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| plain_path(path));
    one == other || real(one) == real(other)
}

/// The path as it was written before, where that leads to the same file: what was installed through a linked folder does not
/// change because somebody comes by the real one.
#[must_use]
pub fn as_written_before<'p>(before: Option<&'p Path>, path: &'p Path) -> &'p Path {
    before.filter(|before| is_same_file(before, path)).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_path_however_it_is_written() {
        let folder = tempfile::tempdir().expect("tempdir");
        let base = folder.path().canonicalize().expect("there");
        std::fs::create_dir(base.join("t")).expect("a folder");
        std::fs::write(base.join("t/l.yaml"), "").expect("a file");
        std::os::unix::fs::symlink(base.join("t"), base.join("link")).expect("a link");
        let plain = base.join("t/l.yaml");
        for written in ["t/l.yaml", "t/./l.yaml", "t/../t/l.yaml", "./t//l.yaml", "link/../t/l.yaml"] {
            assert_eq!(plain_path(&base.join(written)), plain, "{written}");
        }
        assert_eq!(plain_path(&base.join("link/l.yaml")), base.join("link/l.yaml"), "as it was named");
        let linked = base.join("link/l.yaml");
        assert!(is_same_file(&linked, &plain));
        assert_eq!(as_written_before(Some(&linked), &plain), linked);
        let other = base.join("none");
        assert_eq!(
            (as_written_before(None, &plain), as_written_before(Some(&other), &plain)),
            (&*plain, &*plain)
        );
        assert!(is_same_file(&base.join("./none"), &base.join("none")));
        assert!(!is_same_file(&base.join("none"), &plain));
    }
}
