//! What is mounted where, as the kernel lists it for this process. Deleting a folder goes through what is mounted in it: to
//! the home of a user, or to a share. The device numbers of files do not tell it, since a folder can be mounted a second
//! time on its own disk.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// The kernel's list.
const LIST: &str = "/proc/self/mountinfo";
/// Where a line of it names the place.
const PLACE_FIELD: usize = 4;

/// The first place at `folder` or below it where something is mounted. A link is not followed: deleting it deletes nothing
/// else.
///
/// # Errors
/// When the list or the way to the folder cannot be read; a folder that is not there holds nothing.
pub fn mounted_within(folder: &Path) -> io::Result<Option<PathBuf>> {
    let real = match folder.symlink_metadata() {
        Ok(found) if found.is_dir() => folder.canonicalize()?,
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(first_within(&std::fs::read(LIST)?, &real))
}

/// All places at `folder` or below it where something is mounted, sorted; a link is not followed.
///
/// # Errors
/// As [`mounted_within`].
pub fn mounted_at_or_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(first) = mounted_within(folder)? else { return Ok(Vec::new()) };
    let real = folder.canonicalize()?;
    let mut all: Vec<PathBuf> =
        places(&std::fs::read(LIST)?).filter(|place| place.starts_with(&real)).collect();
    all.push(first);
    all.sort();
    all.dedup();
    Ok(all)
}

/// Removes a folder with all it holds, unless something is mounted at it or in it: then nothing of it goes.
///
/// # Errors
/// As [`std::fs::remove_dir_all`]; `ResourceBusy` with the place where something is mounted.
pub fn remove_tree(folder: &Path) -> io::Result<()> {
    match mounted_within(folder)? {
        Some(place) => {
            let words = format!("something is mounted at {}", place.display());
            Err(io::Error::new(io::ErrorKind::ResourceBusy, words))
        }
        None => std::fs::remove_dir_all(folder),
    }
}

/// Whether something is mounted in the place of this file, which can then be neither replaced nor removed.
#[must_use]
pub fn is_mounted_over(file: &Path) -> bool {
    let folder = file.parent().and_then(|folder| folder.canonicalize().ok());
    let (Some(folder), Some(name)) = (folder, file.file_name()) else { return false };
    let place = folder.join(name);
    std::fs::read(LIST).is_ok_and(|list| places(&list).any(|mounted| mounted == place))
}

/// The names of what lies in a folder and is a place where something is mounted. The list is read once for all of them.
#[must_use]
pub fn mounted_in(folder: &Path) -> Vec<OsString> {
    let (Ok(real), Ok(list)) = (folder.canonicalize(), std::fs::read(LIST)) else { return Vec::new() };
    let inside = places(&list).filter(|place| place.parent() == Some(&real));
    inside.filter_map(|place| place.file_name().map(OsStr::to_owned)).collect()
}

fn first_within(list: &[u8], folder: &Path) -> Option<PathBuf> {
    places(list)
        .filter(|place| place.starts_with(folder))
        .min_by(|one, other| one.as_os_str().as_bytes().cmp(other.as_os_str().as_bytes()))
}

fn places(list: &[u8]) -> impl Iterator<Item = PathBuf> {
    list.split(|byte| *byte == b'\n').filter_map(|line| {
        let place = line.split(|byte| *byte == b' ').nth(PLACE_FIELD)?;
        Some(PathBuf::from(OsString::from_vec(plain(place))))
    })
}

/// A name as it is: the list writes blanks and backslashes as three octal digits after a backslash.
fn plain(escaped: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((first, more)) = rest.split_first() {
        let code = (*first == b'\\').then(|| octal(more.get(..3)?)).flatten();
        name.push(code.unwrap_or(*first));
        rest = if code.is_some() { more.get(3..).unwrap_or_default() } else { more };
    }
    name
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_in_a_folder_is_found_by_its_real_name_and_nothing_beside_it() {
        let list = b"1 0 8:1 / / rw - ext4 /dev/sda rw\n\
            2 1 8:1 /home /d/envs/tool/lib/home rw - ext4 /dev/sda rw\n\
            3 1 0:9 / /d/envs/tool-two rw - tmpfs tmpfs rw\n\
            4 1 0:9 / /d/with\\040blank\\134040/x rw - tmpfs tmpfs rw\n";
        let found = |folder: &str| first_within(list, Path::new(folder));
        assert_eq!(found("/d/envs/tool").as_deref(), Some(Path::new("/d/envs/tool/lib/home")));
        assert_eq!(found("/d/envs/tool-two").as_deref(), Some(Path::new("/d/envs/tool-two")));
        assert_eq!(found("/d/with blank\\040").as_deref(), Some(Path::new("/d/with blank\\040/x")));
        assert_eq!((found("/d/envs/to"), found("/d/with")), (None, None));
    }

    #[test]
    fn a_folder_that_is_a_place_of_the_kernels_list_is_found_and_a_link_to_it_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        assert_eq!(mounted_within(&link).unwrap(), None);
        assert_eq!(mounted_within(&dir.path().join("nowhere")).unwrap(), None);
        assert_eq!(mounted_within(dir.path()).unwrap(), None);
        assert!(is_mounted_over(Path::new("/proc")));
        assert!(!is_mounted_over(&dir.path().join("proc")) && !is_mounted_over(&link));
        assert_eq!(mounted_within(Path::new("/")).unwrap().as_deref(), Some(Path::new("/")));
        let all = mounted_at_or_below(Path::new("/")).unwrap();
        assert!(all.len() > 1 && all.is_sorted() && all[0] == Path::new("/"), "{all:?}");
        assert!(all.contains(&PathBuf::from("/proc")), "{all:?}");
        assert!(
            mounted_at_or_below(dir.path()).unwrap().is_empty()
                && mounted_at_or_below(&link).unwrap().is_empty()
        );
    }
}
