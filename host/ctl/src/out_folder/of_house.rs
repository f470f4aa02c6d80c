//! Folders in which no result may be written, since a host has its own things there: it locks some of them, reads what lies
//! in others, and removes from others again.

use crate::fault::Fault;
use std::path::{Component, Path, PathBuf};

/// What a data directory holds in folders.
const OF_HOUSE: [&str; 8] =
    [".cjm-sdk", "archives", "data", "envs", "manifests", "payloads", "secrets", "tools"];
/// What stands in a data directory that a host has used, and in one where something was only installed.
const MARKS: [[&str; 2]; 2] = [["host.lock", "journal.db"], ["install.lock", "manifests"]];

/// Refuses a folder that is `data_dir` or another data directory, or lies in a folder that is a host's own there.
///
/// # Errors
/// Which it is.
pub(super) fn refuse(folder: &Path, data_dir: &Path) -> Result<(), Fault> {
    let (folder_there, data_dir) = (there(folder), there(data_dir));
    let is_data_dir = |path: &Path| path == data_dir || has_marks(path);
    let shown = folder.display();
    let what = if is_data_dir(&folder_there) {
        format!("{shown} is a data directory, in which a host keeps what is its own")
    } else {
        let ours = folder_there.ancestors().find(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| OF_HOUSE.contains(&name)) && path.parent().is_some_and(is_data_dir)
        });
        let Some(ours) = ours else { return Ok(()) };
        let data_dir = ours.parent().unwrap_or(ours).display();
        let own = ours.file_name().unwrap_or_default().display();
        format!("{shown} is for a host's own things: `{own}` of the data directory {data_dir}")
    };
    Err(Fault::new("ctl.output", what, "name another folder with --output; one that is not there is made"))
}

fn has_marks(path: &Path) -> bool {
    MARKS.iter().any(|marks| marks.iter().all(|mark| path.join(mark).exists()))
}

/// The path without links, as far as it is there; what is not there yet will be folders.
fn there(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = path.ancestors().find_map(|up| Some((up, up.canonicalize().ok()?)));
    let Some((up, real)) = found else { return path };
    let Ok(rest) = path.strip_prefix(up) else { return path };
    rest.components().fold(real, |so_far, part| match part {
        Component::ParentDir => so_far.parent().map_or_else(|| so_far.clone(), Path::to_owned),
        part => so_far.join(part),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(folder: &Path, data_dir: &Path) -> Option<String> {
        match refuse(folder, data_dir) {
            Ok(()) => None,
            Err(Fault::Shown(report)) => Some(report.message.clone()),
            Err(Fault::OutputClosed) => Some("closed".to_owned()),
        }
    }

    #[test]
    fn what_is_a_hosts_own_is_refused_by_whatever_name_and_what_is_beside_it_is_not() {
        let lab = tempfile::tempdir().expect("tempdir");
        let (ours, theirs) = (lab.path().join("ours"), lab.path().join("theirs"));
        let installed = lab.path().join("installed");
        std::fs::create_dir_all(installed.join("manifests")).expect("made");
        std::fs::create_dir_all(ours.join("manifests")).expect("made");
        std::fs::create_dir(&theirs).expect("made");
        for mark in MARKS[0] {
            assert_eq!(
                told(&theirs.join("manifests"), &ours),
                None,
                "nothing says that it is a data directory"
            );
            std::fs::write(theirs.join(mark), "").expect("written");
        }
        assert_eq!(told(&installed.join("manifests"), &ours), None, "nor here");
        std::fs::write(installed.join("install.lock"), "").expect("written");
        let link = lab.path().join("link");
        std::os::unix::fs::symlink(ours.join("manifests"), &link).expect("linked");
        for data_dir in [&ours, &theirs, &installed, &ours.join("none/.."), &lab.path().join("none/../ours")]
        {
            let said = told(data_dir, &ours).expect("refused");
            assert!(said.ends_with("is a data directory, in which a host keeps what is its own"), "{said}");
        }
        for (folder, own) in [
            (ours.join("manifests"), "manifests"),
            (link.join("out"), "manifests"),
            (ours.join("data/tool/out"), "data"),
            (theirs.join("payloads"), "payloads"),
            (installed.join("manifests"), "manifests"),
            (ours.join("none/../manifests"), "manifests"),
        ] {
            let said = told(&folder, &ours).unwrap_or_default();
            assert!(
                said.contains(&format!("is for a host's own things: `{own}` of the data directory")),
                "{said}"
            );
        }
        let beside =
            [ours.join("out"), ours.join("out/data"), lab.path().join("data"), lab.path().to_owned()];
        for folder in beside {
            assert_eq!(told(&folder, &ours), None, "{}", folder.display());
        }
    }
}
