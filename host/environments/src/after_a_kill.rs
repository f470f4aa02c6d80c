//! What waits beside the place of a conda environment since an installation with `--force` was killed, while other data
//! directories have come to that place, or come to it now.
//!
//! What must hold: nothing takes the place of an environment that is whole, since that is newer than what waits; what waits
//! for another data directory is neither put back nor deleted.

use crate::elsewhere::waits_for_another;
use crate::error::EnvironmentError;
use crate::former::{clear_place, gone};
use crate::place_lock::{Asker, PlaceLock};
use crate::set_aside::{
    aside_of, forget, has_note_of_made, is_made_by_us, keep_aside, put_back_after_a_kill,
};
use crate::stamp::Origin;
use cjm_catalog::beginning::{Beginning, is_whole};
use cjm_catalog::installer::{INSTALL_ALL, REMOVE};
use std::path::{Path, PathBuf};

/// Puts back what waits for this data directory where its `link` leads to; `names` are those of its conda.
///
/// # Errors
/// When somebody works on it, or it stays where it is.
pub(crate) fn put_back_of_conda(link: &Path, names: Option<&Path>) -> Result<(), EnvironmentError> {
    let Some((home, data_dir)) = waiting_behind(link) else { return Ok(()) };
    let asker = asker(link, data_dir, INSTALL_ALL);
    let _places = match names {
        Some(names) => PlaceLock::of(asker, names, Some(&home))?,
        None => vec![PlaceLock::at(asker, &home)?],
    };
    // Whose the whole one is, is asked by who changes it.
    if is_whole(&home) || waits_for_another(&home, data_dir) {
        return Ok(());
    }
    put_back_after_a_kill(&home)
}

/// Where the environment at `home` came from. Where nothing in it says so, an installation that was killed may: by the note of
/// which folder conda made, or, where that was not seen any more, by the one that conda was asked.
pub(crate) fn origin_of(link: &Path, home: &Path) -> Origin {
    let is_begun = || is_made_by_us(home) || (Beginning::read(link).of_conda && !has_note_of_made(home));
    match Origin::said_in(home) {
        Origin::Unsaid if is_begun() => Origin::Installation,
        said => said,
    }
}

/// Gives what waits, and is not put back, another name: its place is needed. It is told as found from then on.
///
/// # Errors
/// When it stays where it is.
pub(crate) fn make_room(home: &Path) -> Result<(), EnvironmentError> {
    if aside_of(home).is_dir() { keep_aside(home) } else { Ok(()) }
}

/// Where conda would have the environment of this name that waits for somebody, of those places where it has others.
pub(crate) fn waiting_among(listed: &[PathBuf], prefix: Option<&Path>, name: &str) -> Option<PathBuf> {
    let beside = listed.iter().filter_map(|path| path.parent()).map(Path::to_owned);
    let below = listed.iter().map(|path| path.join("envs"));
    let folders = beside.chain(below).chain(prefix.map(|prefix| prefix.join("envs")));
    folders.map(|folder| folder.join(name)).find(|home| aside_of(home).is_dir())
}

/// Deletes what of an environment that is removed waits beside its place; the place itself, where conda does not know it and
/// it is ours; and the link. What stands there else is another's.
///
/// # Errors
/// When it stays, or somebody works on it.
pub(crate) fn forget_what_waits(link: &Path) -> Result<(), EnvironmentError> {
    let (Ok(home), Some(data_dir)) = (std::fs::read_link(link), link.ancestors().nth(2)) else {
        return Ok(());
    };
    if home.exists() && !aside_of(&home).is_dir() {
        return Ok(());
    }
    let _place = PlaceLock::at(asker(link, data_dir, REMOVE), &home)?;
    if !waits_for_another(&home, data_dir) {
        if is_made_by_us(&home) && !is_whole(&home) {
            clear_place(&home)?;
        }
        forget(&home)?;
    }
    gone(std::fs::remove_file(link)).map_err(|source| EnvironmentError::removing(link.to_owned(), source))
}

/// Where something waits behind a link of a data directory.
fn waiting_behind(link: &Path) -> Option<(PathBuf, &Path)> {
    let home = std::fs::read_link(link).ok().filter(|home| aside_of(home).is_dir())?;
    Some((home, link.ancestors().nth(2)?))
}

fn asker<'a>(link: &'a Path, data_dir: &'a Path, command: &'static str) -> Asker<'a> {
    let env_name = link.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
    Asker { data_dir, command, env_name }
}
