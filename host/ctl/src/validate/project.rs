//! Which files of a folder `validate` looks at: those directly in it, those in its folders of manifests and compositions,
//! and the list that its settings name.

use crate::validate::document::Checked;
use crate::validate::finding::Finding;
use crate::validate::format::FILE_BYTES_MAX;
use cjm_catalog::home::{HOME, expand_home, variable};
use cjm_catalog::plain_path::is_same_file;
use cjm_platform::files::read_regular_to_string;
use cjm_wire::settings_file::{SETTINGS_FILE, SettingsFile};
use std::path::{Path, PathBuf};

/// Folder of manifests, in a project and in what the host keeps.
pub(crate) const MANIFESTS: &str = "manifests";
/// Folder of compositions in a project.
pub(crate) const COMPOSITIONS: &str = "compositions";
/// What the host keeps, by its usual name.
const DATA_DIR: &str = ".cjm";
/// Most files directly in one folder that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// What is looked at.
pub(crate) struct Project {
    /// The list that the settings name, whether it is there or not.
    pub(crate) list: Option<PathBuf>,
    /// Each file once.
    pub(crate) paths: Vec<PathBuf>,
    /// Folders whose files are looked at.
    pub(crate) folders: Vec<PathBuf>,
    /// What cannot be read, and warnings of what is not looked at.
    pub(crate) left_out: Checked,
}

impl Project {
    /// `data_dir`: one that was named beside the settings; it counts where it lies in the folder.
    pub(crate) fn of(folder: &Path, data_dir: Option<&Path>) -> Self {
        // Settings that cannot be read are a fault of their own, and name nothing.
        let settings = read_regular_to_string(&folder.join(SETTINGS_FILE), FILE_BYTES_MAX)
            .ok()
            .and_then(|text| SettingsFile::parse(&text).ok())
            .unwrap_or_default();
        // A path whose `~` leads nowhere is told of when the settings are used.
        let home = variable(HOME).map(PathBuf::from);
        let named = |path: PathBuf| Some(folder.join(expand_home(&path, home.as_deref()).ok()?));
        let list = settings.capabilities_config.and_then(named);
        let mut left_out = Checked::default();
        let mut paths = entries(folder, ENTRIES_MAX, &mut left_out);
        let mut add = |path: PathBuf| {
            if !paths.iter().any(|known| is_same_file(known, &path)) {
                paths.push(path);
            }
        };
        if let Some(list) = &list {
            add(list.clone());
        }
        let kept = settings.data_dir.and_then(named).map(|data_dir| data_dir.join(MANIFESTS));
        let mut folders = vec![folder.join(MANIFESTS), folder.join(COMPOSITIONS)];
        folders.push(folder.join(DATA_DIR).join(MANIFESTS));
        folders.extend(kept);
        let is_inside = |data_dir: &&Path| {
            let real = |path: &Path| path.canonicalize();
            real(data_dir).is_ok_and(|inner| real(folder).is_ok_and(|outer| inner.starts_with(outer)))
        };
        folders.extend(data_dir.filter(is_inside).map(|data_dir| data_dir.join(MANIFESTS)));
        let mut seen = vec![folder.to_owned()];
        for folder in folders {
            if !folder.is_dir() || seen.iter().any(|known| is_same_file(known, &folder)) {
                continue;
            }
            let files = entries(&folder, ENTRIES_MAX, &mut left_out);
            let list = list.as_deref().filter(|list| list.parent() == Some(&folder));
            paths.extend(files.into_iter().filter(|file| !list.is_some_and(|list| is_same_file(list, file))));
            seen.push(folder);
        }
        Self { list, paths, folders: seen, left_out }
    }
}

/// What lies directly in the folder, in the order of its names; what is not looked at is added to `left_out`.
pub(crate) fn entries(folder: &Path, count_max: usize, left_out: &mut Checked) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(folder)
        .and_then(|files| files.map(|file| file.map(|file| file.path())).collect::<std::io::Result<_>>());
    let mut paths: Vec<PathBuf> = match listed {
        Ok(paths) => paths,
        Err(error) => {
            left_out.0.push(Finding::unread_folder(folder, &error));
            return Vec::new();
        }
    };
    paths.sort();
    let more = paths.len().saturating_sub(count_max);
    if more > 0 {
        let (place, last) = (folder.display(), paths[count_max - 1].display());
        left_out.1.push(format!(
            "{place}: {more} files were not looked at, those behind {last}: more than {count_max} are there"
        ));
    }
    paths.truncate(count_max);
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_looked_at_is_named() {
        let folder = tempfile::tempdir().expect("tempdir");
        for name in ["c", "a", "d", "b"] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        let path = |name: &str| folder.path().join(name);
        let mut left_out = Checked::default();
        assert_eq!(entries(folder.path(), 4, &mut left_out), ["a", "b", "c", "d"].map(path));
        assert_eq!(left_out, Checked::default());
        assert_eq!(entries(folder.path(), 3, &mut left_out), ["a", "b", "c"].map(path));
        let [warning] = left_out.1.as_slice() else { panic!("{left_out:?}") };
        assert!(warning.contains("1 files were not looked at"), "{warning}");
        assert!(warning.contains(&path("c").display().to_string()), "{warning}");
        assert!(entries(&path("a"), 3, &mut left_out).is_empty());
        assert!(left_out.0.iter().any(|found| found.text().contains("cannot be read")), "{left_out:?}");
    }
}
