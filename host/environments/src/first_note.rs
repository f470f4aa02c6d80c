//! The note of an installation that makes an environment for the first time: there before anything of it is made, and until it
//! is whole or nothing of it is left.
//!
//! What must hold: no failure takes the note from what an earlier run has begun; what conda has begun lies where conda alone
//! finds it, and is noted by the run that asked for it.

use crate::error::EnvironmentError;
use crate::files::write_whole;
use crate::owners::is_home;
use crate::set_aside::keep_what_stands_in;
use cjm_catalog::beginning::{Beginning, note_beside, note_text};
use cjm_catalog::installation::former_of;
use std::path::Path;

/// The note of one environment, and who asks for that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirstNote<'a> {
    pub(crate) list: &'a Path,
    /// The name of the entry.
    pub(crate) entry: &'a str,
    pub(crate) environment: &'a Path,
}

impl FirstNote<'_> {
    /// Says that this environment is made for the first time, before anything of it is. What stands in its place, where
    /// neither a note nor one of the `manifests` speaks for it, is somebody's and is kept beside it: from now on it is ours.
    /// Where conda makes it, by an `env_file`, what conda has made there is gone on with.
    ///
    /// # Errors
    /// When it cannot be said or kept; nothing was made then.
    pub(crate) fn begin(self, manifests: &Path, of_conda: bool) -> Result<(), EnvironmentError> {
        // What an earlier run of the same entry has found out stays known, and what one of any entry has had conda begin.
        let known = self.read();
        if !known.is_noted && !is_home(&known.env_name, manifests) {
            keep_what_stands_in(self.environment, of_conda)?;
        }
        let same = known.entry.as_deref() == Some(self.entry);
        self.write(known.capability.as_deref().filter(|_| same), known.of_conda)
    }

    /// Says what its tool is called.
    ///
    /// # Errors
    /// When it cannot be said.
    pub(crate) fn tell_capability(self, capability: &str) -> Result<(), EnvironmentError> {
        self.write(Some(capability), self.read().of_conda)
    }

    /// Says that conda is asked to make it, or has removed it. Of one that a manifest speaks for there is no note.
    ///
    /// # Errors
    /// When it cannot be said.
    pub(crate) fn tell_conda(self, of_conda: bool) -> Result<(), EnvironmentError> {
        let known = self.read();
        if known.is_noted { self.write(known.capability.as_deref(), of_conda) } else { Ok(()) }
    }

    /// Takes it back after a failure that left nothing which an installation could go on with, or somebody take away.
    pub(crate) fn forget(self) {
        let is_there = |path: &Path| path.symlink_metadata().is_ok();
        if !self.read().of_conda && !is_there(self.environment) && !is_there(&former_of(self.environment)) {
            self.remove();
        }
    }

    /// Removes it: from now on the manifest says what it has said. One that stays is told, and taken away by hand.
    pub(crate) fn remove(self) {
        let _ = std::fs::remove_file(note_beside(self.environment));
    }

    fn read(self) -> Beginning {
        Beginning::read(self.environment)
    }

    fn write(self, capability: Option<&str>, of_conda: bool) -> Result<(), EnvironmentError> {
        let text = note_text(self.list, self.entry, capability, of_conda);
        write_whole(&note_beside(self.environment), text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_takes_the_note_from_nothing_that_is_there() {
        let nothing = |_: FirstNote<'_>| {};
        let makes = |path: &Path| std::fs::create_dir(path).expect("made");
        type Deed<'d> = &'d dyn Fn(FirstNote<'_>);
        let cases: [(&str, bool, Deed<'_>); 8] = [
            ("nothing was made", false, &nothing),
            ("its folder is there", true, &|note| makes(note.environment)),
            ("a copy of what was there before is there", true, &|note| makes(&former_of(note.environment))),
            ("a link is there that leads nowhere", true, &|note| {
                std::os::unix::fs::symlink("/nonexistent/of-conda", note.environment).expect("linked");
            }),
            ("conda was asked for it", true, &|note| note.tell_conda(true).expect("told")),
            ("conda was asked for it by an earlier run, of another entry", true, &|note| {
                note.tell_conda(true).expect("told");
                FirstNote { entry: "other", ..note }.begin(Path::new("/none"), false).expect("begun");
            }),
            ("conda has begun it, and its tool is known", true, &|note| {
                note.tell_conda(true).and_then(|()| note.tell_capability("tool")).expect("told");
            }),
            ("conda has removed it again", false, &|note| {
                note.tell_conda(true).and_then(|()| note.tell_conda(false)).expect("told");
            }),
        ];
        for (what, stays, deed) in cases {
            let data = tempfile::tempdir().expect("tempdir");
            let environment = data.path().join("its-env");
            let note = FirstNote { list: Path::new("/l.yaml"), entry: "entry", environment: &environment };
            note.begin(Path::new("/none"), false).expect("begun");
            deed(note);
            note.forget();
            assert_eq!(note.read().is_noted, stays, "{what}");
        }
    }

    #[test]
    fn what_is_known_of_a_tool_stays_with_its_entry_and_what_a_manifest_speaks_for_gets_no_note() {
        let data = tempfile::tempdir().expect("tempdir");
        let environment = data.path().join("its-env");
        let note = FirstNote { list: Path::new("/l.yaml"), entry: "entry", environment: &environment };
        note.tell_conda(true).expect("nothing to tell");
        assert!(!note.read().is_noted);
        note.begin(Path::new("/none"), false).and_then(|()| note.tell_capability("tool")).expect("told");
        note.begin(Path::new("/none"), false).expect("begun again");
        assert_eq!(note.read().capability.as_deref(), Some("tool"));
        let other = FirstNote { entry: "other", ..note };
        other.begin(Path::new("/none"), false).expect("begun by another");
        assert_eq!((other.read().capability, other.read().entry.as_deref()), (None, Some("other")));
    }
}
