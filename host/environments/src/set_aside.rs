//! A conda environment that is made anew: what was there waits beside the new one, under a name of ours, until that is known to
//! be good. It cannot be copied, since its files hold its path; under its old path it is what it was.
//!
//! What must hold: the link in the data directory leads to the place before anything is moved, so that whoever comes after a
//! kill finds what waits; what waits goes in one step, so that nothing half deleted takes its place again; after a kill nothing is
//! deleted in its place but the folder that was seen to come there while our conda ran.

use crate::error::EnvironmentError;
use crate::files::{check_nothing_mounted, remove_dir, write_whole};
use crate::former::{clear_place, free_place, gone, rests_of};
use crate::stamp::{Origin, Stamp};
use cjm_catalog::plain_path::is_same_file;
use cjm_platform::files::read_regular_to_string;
use cjm_wire::describe::shell_word;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often it is looked what has come to the place while conda works: nobody tells when.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Longest note of it: three numbers.
const MADE_BYTES_MAX: u64 = 256;

/// The environment that waits; it takes its place again unless it is [let go](SetAside::let_go).
#[derive(Debug)]
pub(crate) struct SetAside {
    home: PathBuf,
    /// Made for this alone.
    link: Option<PathBuf>,
}

impl SetAside {
    /// Moves what is at `home`, and gives it `stamp` where `link` has led there: by that it is whole once it is back.
    ///
    /// # Errors
    /// When it cannot be moved; it is where it was then.
    pub(crate) fn take(home: &Path, link: &Path, stamp: Option<&Stamp>) -> Result<Self, EnvironmentError> {
        check_nothing_mounted(home)?;
        rests_of(home).iter().for_each(|rest| drop(remove_dir(rest)));
        // One that an earlier run left speaks of what is gone.
        forget_made(home)?;
        let is_led_to = std::fs::read_link(link).is_ok_and(|known| known == home);
        if !is_led_to {
            lead(link, home)?;
        }
        let (aside, link) = (aside_of(home), (!is_led_to).then(|| link.to_owned()));
        if let Err(source) = std::fs::rename(home, &aside) {
            // One that stays is told, and leads to what is there.
            link.map(std::fs::remove_file);
            return Err(EnvironmentError::writing("set aside", home.to_owned(), source));
        }
        // Only now does something wait: what is put back takes the place of what is there.
        let taken = Self { home: home.to_owned(), link };
        stamp.filter(|_| is_led_to).map_or(Ok(()), |stamp| stamp.write(&aside))?;
        Ok(taken)
    }

    /// Has conda make the new one. The folder that comes to the place meanwhile is written down: after a kill it is known as ours.
    pub(crate) async fn while_made<T>(&self, making: impl Future<Output = T>) -> T {
        while_made(&self.home, making).await
    }

    /// The new one is good: this one is not needed any more, and goes. One that is somebody's is kept under another name.
    ///
    /// # Errors
    /// When it cannot be taken out of the way; then it takes its place again.
    pub(crate) fn let_go(mut self) -> Result<(), EnvironmentError> {
        let (aside, rest) = (aside_of(&self.home), free_place(&self.home));
        if Origin::said_in(&aside) != Origin::Installation {
            self.link = None;
            let _ = forget_made(&self.home);
            return keep_aside(&self.home);
        }
        std::fs::rename(&aside, &rest).map_err(|source| EnvironmentError::removing(aside, source))?;
        self.link = None;
        // One that stays is in nobody's way: nothing waits.
        let _ = forget_made(&self.home);
        // From here on nothing finds it but the next one that is made anew, or removed.
        let _ = remove_dir(&rest);
        Ok(())
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        if let Err(error) = put_back(&self.home) {
            let next_step = "run install-all again, which puts it back first";
            tracing::error!(%error, next_step, "the conda environment as it was could not be put back");
        } else if let Some(link) = &self.link {
            // One that stays is told, and leads to what is there.
            let _ = std::fs::remove_file(link);
        }
    }
}

/// As [`SetAside::while_made`], of one for which nothing was set aside. A folder that is there already is somebody's.
pub(crate) async fn while_made<T>(home: &Path, making: impl Future<Output = T>) -> T {
    // Before anything of conda's runs.
    let mut known = identity(home);
    let watching = async move {
        loop {
            tokio::time::sleep(LOOK_PAUSE).await;
            let now = identity(home);
            if now != known {
                write_made(home, now.as_deref());
                known = now;
            }
        }
    };
    tokio::select! {
        made = making => made,
        () = watching => unreachable!("it looks as long as it is asked"),
    }
}

/// Whether our conda began what lies there and was not seen to end it: nobody knows what of it is missing.
pub(crate) fn is_half_made(home: &Path) -> bool {
    is_made_by_us(home) && Origin::said_in(home) == Origin::Unsaid
}

/// Takes away what is half made: conda would refuse to make another one there.
///
/// # Errors
/// When it stays.
pub(crate) fn clear_half_made(home: &Path) -> Result<(), EnvironmentError> {
    if is_half_made(home) {
        clear_place(home)?;
        forget_made(home)?;
    }
    Ok(())
}

/// Puts back what waits beside the place of a conda environment, if something does.
///
/// # Errors
/// When it stays there.
pub(crate) fn put_back(home: &Path) -> Result<(), EnvironmentError> {
    let aside = aside_of(home);
    if !aside.is_dir() {
        return Ok(());
    }
    clear_place(home)?;
    // Before another one can come to the place.
    forget_made(home)?;
    std::fs::rename(&aside, home)
        .map_err(|source| EnvironmentError::writing("put back", home.to_owned(), source))
}

/// As [`put_back`], of a run that was killed: what has come to stand in the place since may be somebody's, and is kept unless
/// our conda was seen to make it.
///
/// # Errors
/// When it stays there.
pub(crate) fn put_back_after_a_kill(home: &Path) -> Result<(), EnvironmentError> {
    if aside_of(home).is_dir() && home.symlink_metadata().is_ok() && !is_made_by_us(home) {
        keep(home)?;
    }
    put_back(home)
}

/// Gives what stands in the place of an environment that is made for the first time another name: it is somebody's. What a
/// link leads to is in nobody's way, an empty folder is nothing to keep, and what is `of_conda` works in its place alone.
///
/// # Errors
/// When it stays there.
pub(crate) fn keep_what_stands_in(home: &Path, of_conda: bool) -> Result<(), EnvironmentError> {
    let is_in_the_way = home.symlink_metadata().is_ok_and(|found| !found.is_symlink());
    let is_empty = || std::fs::read_dir(home).is_ok_and(|mut listing| listing.next().is_none());
    let stays = of_conda && home.join("conda-meta").is_dir();
    if is_in_the_way && !stays && !is_empty() { keep(home) } else { Ok(()) }
}

fn keep(home: &Path) -> Result<(), EnvironmentError> {
    keep_as_found(home, home)
}

/// As for what stands in the place of an environment, for what waits beside it.
///
/// # Errors
/// When it stays there.
pub(crate) fn keep_aside(home: &Path) -> Result<(), EnvironmentError> {
    keep_as_found(home, &aside_of(home))
}

fn keep_as_found(home: &Path, found: &Path) -> Result<(), EnvironmentError> {
    check_nothing_mounted(found)?;
    let place = |number: u32| home.with_file_name(format!("{}{number}", found_name(home)));
    let is_free = |place: &PathBuf| place.symlink_metadata().is_err();
    let kept = (1..u32::MAX).map(place).find(is_free).unwrap_or_else(|| place(0));
    std::fs::rename(found, kept)
        .map_err(|source| EnvironmentError::writing("set aside", found.to_owned(), source))
}

/// What was found in the place of an environment when that was made or put back after a kill, for people.
pub(crate) fn found_in_its_place(home: &Path) -> Vec<String> {
    let listing = home.parent().map(std::fs::read_dir).into_iter().flatten().flatten().flatten();
    let name = found_name(home);
    let is_one = |path: &PathBuf| {
        path.file_name().is_some_and(|found| found.to_string_lossy().starts_with(name.as_str()))
    };
    let mut found: Vec<PathBuf> = listing.map(|entry| entry.path()).filter(is_one).collect();
    found.sort();
    let told = |path: PathBuf| {
        let word = shell_word(&path.to_string_lossy());
        format!(
            "{} stood in the place of its environment when that was made or put back: `rm -rf {word}` takes it away where \
             nobody needs it",
            path.display()
        )
    };
    found.into_iter().map(told).collect()
}

fn found_name(home: &Path) -> String {
    format!(".{}.cjm-found-", home.file_name().unwrap_or_default().to_string_lossy())
}

/// Which folder lies there. Its number alone may be that of a later one.
fn identity(path: &Path) -> Option<String> {
    let found = path.symlink_metadata().ok().filter(std::fs::Metadata::is_dir)?;
    let born = found.created().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(format!("{} {} {}", found.dev(), found.ino(), born.as_nanos()))
}

/// Whether what lies there has come while our conda made it.
pub(crate) fn is_made_by_us(home: &Path) -> bool {
    let known = read_regular_to_string(&made_of(home), MADE_BYTES_MAX).ok();
    known.is_some() && known == identity(home)
}

pub(crate) fn forget_made(home: &Path) -> Result<(), EnvironmentError> {
    let note = made_of(home);
    gone(std::fs::remove_file(&note)).map_err(|source| EnvironmentError::removing(note, source))
}

/// Beside the place: which folder has come there.
fn made_of(home: &Path) -> PathBuf {
    let name = home.file_name().unwrap_or_default().to_string_lossy();
    home.with_file_name(format!(".{name}.cjm-made"))
}

/// Makes `link` lead to `home`, which may be its very place.
pub(crate) fn lead(link: &Path, home: &Path) -> Result<(), EnvironmentError> {
    let is_home = !link.is_symlink() && is_same_file(link, home);
    if is_home || std::fs::read_link(link).is_ok_and(|known| known == home) {
        return Ok(());
    }
    let failed = |source| EnvironmentError::writing("link", link.to_owned(), source);
    // A link is removed and not followed; a folder there is an environment that this one takes the place of.
    if link.is_symlink() {
        std::fs::remove_file(link).map_err(failed)?;
    } else {
        clear_place(link)?;
    }
    std::fs::create_dir_all(link.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    std::os::unix::fs::symlink(home, link).map_err(failed)
}

/// Deletes what of an environment that is removed waits beside its place, or could not be deleted earlier. What is somebody's
/// takes its place again, or another name where something stands there.
///
/// # Errors
/// When it stays.
pub(crate) fn forget(home: &Path) -> Result<(), EnvironmentError> {
    rests_of(home).iter().try_for_each(|rest| remove_dir(rest))?;
    forget_made(home)?;
    let aside = aside_of(home);
    if !aside.is_dir() || Origin::said_in(&aside) == Origin::Installation {
        return remove_dir(&aside);
    }
    if home.symlink_metadata().is_ok() { keep_aside(home) } else { put_back(home) }
}

/// Says that our conda has made what lies there, for as long as nothing in it can be believed to say so.
pub(crate) fn note_made(home: &Path) {
    write_made(home, identity(home).as_deref());
}

/// What is not written down is kept after a kill, and by a removal, as what is not ours.
fn write_made(home: &Path, made: Option<&str>) {
    let _ = write_whole(&made_of(home), made.unwrap_or_default().as_bytes());
}

/// Whether something says which folder our conda has made there.
pub(crate) fn has_note_of_made(home: &Path) -> bool {
    made_of(home).is_file()
}

/// Where an environment waits.
pub(crate) fn aside_of(home: &Path) -> PathBuf {
    let name = home.file_name().unwrap_or_default().to_string_lossy();
    home.with_file_name(format!(".{name}.cjm-former"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: &str = r#"{"request":"r","python_path":"p","python_version":"3","python_file":"f",
                            "lock_hash":"l","capability":"c"}"#;

    /// The home of an environment that conda made, with a file, and a link that leads there; its stamp is taken away.
    fn environment(folder: &Path) -> (PathBuf, PathBuf, Stamp) {
        let (home, link) = (folder.join("conda/its-env"), folder.join("envs/its-env"));
        std::fs::create_dir_all(&home).expect("mkdir");
        std::fs::write(home.join("old"), "").expect("written");
        lead(&link, &home).expect("linked");
        std::fs::write(home.join("cjm-stamp.json"), STAMP).expect("written");
        let stamp = Stamp::read(&home).expect("a stamp");
        Stamp::remove(&home).expect("removed");
        (home, link, stamp)
    }

    fn names(home: &Path) -> Vec<String> {
        let listing = std::fs::read_dir(home.parent().expect("a folder")).expect("listed").flatten();
        listing.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Half of the new one.
    fn make(home: &Path) {
        std::fs::create_dir(home).expect("its place is free");
        std::fs::write(home.join("new"), "").expect("written");
    }

    #[test]
    fn what_waits_takes_its_place_again_whole_also_after_a_kill_unless_it_was_let_go() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (home, link, stamp) = environment(folder.path());
        let is_as_it_was = || {
            let is_old = home.join("old").exists() && !home.join("new").exists();
            is_old && Stamp::read(&link).is_some() && names(&home) == ["its-env"]
        };
        for is_made in [false, true] {
            for is_killed in [false, true] {
                Stamp::remove(&home).expect("removed");
                let waits = SetAside::take(&home, &link, Some(&stamp)).expect("set aside");
                assert!(Stamp::read(&link).is_none(), "no call begins with it");
                if is_made {
                    make(&home);
                }
                if is_killed {
                    std::mem::forget(waits);
                    put_back_after_a_kill(&home).expect("put back");
                    // It may be somebody's who came meanwhile.
                    let kept = folder.path().join("conda/.its-env.cjm-found-1");
                    assert_eq!(kept.join("new").exists(), is_made);
                    let told = found_in_its_place(&home);
                    assert_eq!(told.len(), usize::from(is_made));
                    assert!(told.iter().all(|told| told.contains(&kept.display().to_string())), "{told:?}");
                    let _ = std::fs::remove_dir_all(kept);
                } else {
                    drop(waits);
                }
                assert!(is_as_it_was(), "made: {is_made}, killed: {is_killed}");
            }
        }
        let waits = SetAside::take(&home, &link, Some(&stamp)).expect("set aside");
        make(&home);
        waits.let_go().expect("let go");
        put_back(&home).expect("nothing waits");
        assert!(home.join("new").exists() && names(&home) == ["its-env"] && link.exists());
    }

    #[tokio::test]
    async fn what_our_conda_was_seen_to_make_goes_after_a_kill_and_what_came_in_its_place_stays() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (home, link, _) = environment(folder.path());
        for is_replaced in [false, true] {
            let waits = SetAside::take(&home, &link, None).expect("set aside");
            assert!(!made_of(&home).exists(), "nothing is known of it");
            let conda = async {
                make(&home);
                while !std::fs::read(made_of(&home)).is_ok_and(|text| !text.is_empty()) {
                    tokio::task::yield_now().await;
                }
            };
            waits.while_made(conda).await;
            std::mem::forget(waits);
            if is_replaced {
                std::fs::rename(&home, folder.path().join("conda/away")).expect("moved");
                make(&home);
            }
            put_back_after_a_kill(&home).expect("put back");
            assert!(home.join("old").exists() && !made_of(&home).exists());
            assert_eq!(found_in_its_place(&home).len(), usize::from(is_replaced));
        }
    }

    #[test]
    fn what_no_link_of_ours_led_to_is_found_after_a_kill_and_gets_no_stamp() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (home, link, stamp) = environment(folder.path());
        std::fs::remove_file(&link).expect("removed");
        drop(SetAside::take(&home, &link, Some(&stamp)).expect("set aside"));
        assert!(home.join("old").exists() && Stamp::read(&home).is_none());
        assert!(link.symlink_metadata().is_err(), "there was none");
        std::mem::forget(SetAside::take(&home, &link, None).expect("set aside"));
        put_back(&std::fs::read_link(&link).expect("a link")).expect("put back");
        assert!(home.join("old").exists());
        // One that cannot be moved stays, and so does what was there.
        std::fs::remove_file(&link).expect("removed");
        std::fs::create_dir_all(aside_of(&home).join("in the way")).expect("mkdir");
        assert!(SetAside::take(&home, &link, None).is_err());
        assert!(home.join("old").exists(), "it was never moved");
    }

    #[test]
    fn what_stands_in_the_place_of_a_new_environment_is_kept_and_what_conda_made_there_stays_in_its_place() {
        let folder = tempfile::tempdir().expect("tempdir");
        let home = folder.path().join("envs/its-env");
        std::fs::create_dir_all(home.join("conda-meta")).expect("mkdir");
        keep_what_stands_in(&home, true).expect("looked at");
        lead(&home, &home).expect("there already");
        assert!(home.join("conda-meta").is_dir() && !home.is_symlink(), "it works in its place alone");
        for number in [1, 2] {
            keep_what_stands_in(&home, false).expect("kept");
            let kept = home.with_file_name(format!(".its-env.cjm-found-{number}"));
            assert!(kept.exists() && !home.exists() && found_in_its_place(&home).len() == number);
            // A file may stand there as well.
            std::fs::write(&home, "a list of mine").expect("written");
        }
        std::fs::remove_file(&home).expect("removed");
        std::fs::create_dir(&home).expect("mkdir");
        keep_what_stands_in(&home, false).expect("nothing to keep");
        assert!(home.exists());
    }

    #[test]
    fn what_is_removed_leaves_nothing_that_waits() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (home, _, stamp) = environment(folder.path());
        std::fs::rename(&home, aside_of(&home)).expect("moved");
        stamp.write(&aside_of(&home)).expect("written");
        std::fs::create_dir(free_place(&home)).expect("mkdir");
        forget(&home).expect("deleted");
        assert_eq!(names(&home), [""; 0]);
        // What is somebody's, by what lies in it, takes its place again; or another name where something stands there.
        let mut found = stamp;
        found.is_found = true;
        for (is_stamped, is_taken) in [(false, false), (true, false), (false, true)] {
            std::fs::create_dir(aside_of(&home)).expect("made");
            std::fs::write(aside_of(&home).join("precious"), "").expect("written");
            is_stamped.then(|| found.write(&aside_of(&home)).expect("written"));
            is_taken.then(|| std::fs::create_dir(&home).expect("made"));
            forget(&home).expect("kept");
            let kept = if is_taken { home.with_file_name(".its-env.cjm-found-1") } else { home.clone() };
            assert!(kept.join("precious").is_file() && !aside_of(&home).exists());
            std::fs::remove_dir_all(&home).expect("removed");
        }
    }
}
