//! Finds capabilities and adapters: manifests dropped into directories. It reads and checks them; it runs nothing, and
//! a broken manifest is reported beside the good ones, never instead of them. What lies in a folder that nobody named
//! is withheld until the user allows it, and takes no place of what may run.

use crate::allowed::{Allowed, AllowedError, Register};
use crate::broken_name::named_in;
use crate::folders::{ManifestFolder, Standing};
use crate::may_be_unread::{MayBeUnread, unread_step};
use cjm_platform::files::{FileError, read_regular_to_string};
use cjm_wire::adapter::{AdapterError, AdapterManifest, is_adapter};
use cjm_wire::describe::{Described, shell_word};
use cjm_wire::manifest::{MANIFEST_BYTES_MAX, Manifest, ManifestError};
use cjm_wire::suggestions::suggestions;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

/// Most manifests read from one directory.
pub const MANIFESTS_MAX: usize = 10_000;

/// A capability that was found.
#[derive(Debug, Clone)]
pub struct CatalogEntry {
    /// The manifest's file.
    pub path: PathBuf,
    /// What it says.
    pub manifest: Manifest,
}

/// A file that should have been a manifest.
#[derive(Debug)]
pub struct CatalogProblem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: CatalogError,
}

impl std::fmt::Display for CatalogProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for CatalogProblem {}

impl CatalogProblem {
    /// Whether nobody knows what it says, since it cannot be read.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        matches!(self.error, CatalogError::Unreadable(_))
    }
}

impl Described for CatalogProblem {
    fn code(&self) -> &'static str {
        self.error.code()
    }

    fn next_step(&self) -> String {
        match &self.error {
            CatalogError::Manifest(error) => error.next_step_at(&self.path),
            CatalogError::Unreadable(_) => unread_step(&self.path),
            other => other.next_step(),
        }
    }
}

/// Why a file is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// It is something else than a file.
    #[error("is {what}, not a regular file; nothing was read of it")]
    NotRegular {
        /// What it is.
        what: &'static str,
    },
    /// It is not text.
    #[error("is not UTF-8 text: byte {offset} begins no character")]
    NotText {
        /// How many bytes are good.
        offset: usize,
    },
    /// The directory holds more than is read.
    #[error("holds more than {MANIFESTS_MAX} manifests; the others are not read")]
    TooMany,
    /// What the user allowed cannot be read, so nothing that was found counts as allowed.
    #[error(transparent)]
    Allowed(#[from] AllowedError),
    /// It is not a manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It says that it is an adapter's manifest, and is none.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
}

impl Described for CatalogError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "manifest.unreadable",
            Self::NotRegular { .. } => "manifest.not_regular",
            Self::NotText { .. } => "manifest.not_text",
            Self::TooMany => "manifest.too_many",
            Self::Allowed(error) => error.code(),
            Self::Manifest(error) => error.code(),
            Self::Adapter(error) => error.code(),
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Unreadable(_) => "make the file readable, or remove it from the directory".to_owned(),
            Self::NotRegular { what: "a directory" } => "remove it from the directory (`rm -r`)".to_owned(),
            Self::NotRegular { .. } => "remove it from the directory (`rm`)".to_owned(),
            Self::NotText { .. } => "save it as UTF-8, or remove it from the directory".to_owned(),
            Self::TooMany => "move manifests that are not needed to another directory".to_owned(),
            Self::Allowed(error) => error.next_step(),
            Self::Manifest(error) => error.next_step(),
            Self::Adapter(error) => error.next_step(),
        }
    }
}

/// A manifest that was found where nobody set it up, and that the user has not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the manifest {} of \"{name}\" lies in a folder that you did not set up, and you have not allowed it{}",
    path.display(), why(*was_allowed, unheard.as_ref())
)]
pub struct NotAllowed {
    /// The capability, or the adapter.
    pub name: String,
    /// The manifest.
    pub path: PathBuf,
    /// The user allowed this file when it held something else.
    pub was_allowed: bool,
    /// Why nothing that the user allowed is known.
    pub unheard: Option<Unheard>,
}

/// Why the user's word cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unheard {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub next_step: String,
}

fn why(was_allowed: bool, unheard: Option<&Unheard>) -> String {
    match unheard {
        Some(unheard) => format!(", as far as is known: {}", unheard.message),
        None if was_allowed => " as it is now: it has changed since".to_owned(),
        None => String::new(),
    }
}

impl Described for NotAllowed {
    fn code(&self) -> &'static str {
        "manifest.not_allowed"
    }

    fn next_step(&self) -> String {
        self.unheard.as_ref().map_or_else(|| allow_step(&self.path), |unheard| unheard.next_step.clone())
    }
}

/// What to do about a manifest, or a folder of them, that was found and is not allowed.
#[must_use]
pub fn allow_step(path: &Path) -> String {
    let path = shell_word(&path.display().to_string());
    format!(
        "`cjm-ctl allow --dry-run {path}` shows what it starts; if you trust it, `cjm-ctl allow {path}` allows it as it is now"
    )
}

/// All that was found, by name.
#[derive(Debug, Default)]
pub struct Catalog {
    entries: BTreeMap<String, CatalogEntry>,
    /// Manifests of a name that another one has already, by name.
    shadowed: BTreeMap<String, Vec<PathBuf>>,
    /// In the order found, which is the order they are bound in.
    adapters: Vec<AdapterManifest>,
    withheld: Vec<NotAllowed>,
    unheard: Option<Unheard>,
    problems: Vec<CatalogProblem>,
    folders: Vec<PathBuf>,
}

impl Catalog {
    /// Reads `*.json` of each directory in order; the first manifest of a name wins, a missing directory is empty.
    /// So it does among adapters (`"unit": "adapter"`). Of a directory that was only found, what this user allowed
    /// is taken and the rest withheld.
    #[must_use]
    pub fn discover(folders: &[ManifestFolder]) -> Self {
        Self::discover_allowing(folders, || Register::of_user().and_then(|register| register.read()))
    }

    /// As [`Catalog::discover`], with the user's word given; it is asked for when the first manifest needs it.
    pub fn discover_allowing(
        folders: &[ManifestFolder],
        word: impl Fn() -> Result<Allowed, AllowedError>,
    ) -> Self {
        let mut catalog =
            Self { folders: folders.iter().map(|f| f.path.clone()).collect(), ..Self::default() };
        let allowed = OnceCell::new();
        for ManifestFolder { path: folder, standing } in folders {
            let files = match manifest_files(folder) {
                Ok(files) => files,
                Err(error) => {
                    catalog.problems.push(CatalogProblem { path: folder.clone(), error });
                    continue;
                }
            };
            if files.len() > MANIFESTS_MAX {
                let error = CatalogError::TooMany;
                catalog.problems.push(CatalogProblem { path: folder.clone(), error });
            }
            for path in files.into_iter().take(MANIFESTS_MAX) {
                match read(&path) {
                    Ok((found, text)) if *standing == Standing::Found => {
                        let allowed = allowed.get_or_init(|| catalog.heard(folder, word()));
                        catalog.weigh(path, found, &text, allowed);
                    }
                    Ok((found, _)) => catalog.take(path, found),
                    // It was removed after the folder had been listed.
                    Err(_) if is_gone(&path) => {}
                    Err(error) => catalog.problems.push(CatalogProblem { path, error }),
                }
            }
        }
        catalog
    }

    /// The user's word; none where it cannot be had.
    fn heard(&mut self, folder: &Path, word: Result<Allowed, AllowedError>) -> Allowed {
        word.unwrap_or_else(|error| {
            self.unheard = Some(Unheard { message: error.to_string(), next_step: error.next_step() });
            self.problems.push(CatalogProblem { path: folder.to_owned(), error: error.into() });
            Allowed::default()
        })
    }

    fn weigh(&mut self, path: PathBuf, found: Found, text: &str, allowed: &Allowed) {
        if allowed.covers(&path, text.as_bytes()) {
            return self.take(path, found);
        }
        let name = match found {
            Found::Capability(manifest) => manifest.code.name.clone(),
            Found::Adapter(adapter) => adapter.name.clone(),
        };
        let (was_allowed, unheard) = (allowed.knows(&path), self.unheard.clone());
        self.withheld.push(NotAllowed { was_allowed, unheard, name, path });
    }

    fn take(&mut self, path: PathBuf, found: Found) {
        match found {
            Found::Capability(manifest) => {
                let name = manifest.code.name.clone();
                match self.entries.entry(name) {
                    Entry::Occupied(known) => {
                        self.shadowed.entry(known.key().clone()).or_default().push(path);
                    }
                    Entry::Vacant(place) => {
                        place.insert(CatalogEntry { path, manifest: *manifest });
                    }
                }
            }
            Found::Adapter(adapter) => {
                if !self.adapters.iter().any(|known| known.name == adapter.name) {
                    self.adapters.push(*adapter);
                }
            }
        }
    }

    /// What was found, sorted by name.
    pub fn entries(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.entries.values()
    }

    /// One capability by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&CatalogEntry> {
        self.entries.get(name)
    }

    /// Manifests of this name that another one of the same name stands before.
    #[must_use]
    pub fn shadowed_by(&self, name: &str) -> &[PathBuf] {
        self.shadowed.get(name).map_or(&[], Vec::as_slice)
    }

    /// What the user has not allowed.
    #[must_use]
    pub fn withheld(&self) -> &[NotAllowed] {
        &self.withheld
    }

    /// The manifest of `name` that the user has not allowed, if there is one.
    #[must_use]
    pub fn withheld_of(&self, name: &str) -> Option<&NotAllowed> {
        self.withheld.iter().find(|withheld| withheld.name == name)
    }

    /// The adapters that were found.
    #[must_use]
    pub fn adapters(&self) -> &[AdapterManifest] {
        &self.adapters
    }

    /// Files that are no manifests.
    #[must_use]
    pub fn problems(&self) -> &[CatalogProblem] {
        &self.problems
    }

    /// The broken file that would have been `name`, if there is one: that is called so, or that says so of itself.
    #[must_use]
    pub fn problem_of(&self, name: &str) -> Option<&CatalogProblem> {
        let is_called = |problem: &&CatalogProblem| problem.path.file_stem().is_some_and(|stem| stem == name);
        let says_so = |problem: &&CatalogProblem| named_in(&problem.path).is_some_and(|said| said == name);
        self.problems.iter().find(is_called).or_else(|| self.problems.iter().find(says_so))
    }

    /// Broken files that do not say whose they are: each may be that of a capability which was not found.
    #[must_use]
    pub fn nameless(&self) -> Vec<PathBuf> {
        let broken = self.problems.iter().filter(|problem| !problem.is_unread() && problem.path.is_file());
        broken.map(|problem| problem.path.clone()).filter(|path| named_in(path).is_none()).collect()
    }

    /// Directories and files that are there and cannot be read, and why: nobody knows what they say.
    pub fn unreadable(&self) -> impl Iterator<Item = (&Path, &std::io::Error)> {
        self.problems.iter().filter_map(|problem| match &problem.error {
            CatalogError::Unreadable(error) => Some((problem.path.as_path(), error)),
            _ => None,
        })
    }

    /// That a capability which was not found may be in what could not be read; none where all was read.
    #[must_use]
    pub fn may_be_unread(&self, name: &str) -> Option<MayBeUnread> {
        let own = |path: &Path| path.file_stem().is_some_and(|stem| stem == name);
        let likely = self.unreadable_folder().or_else(|| self.unreadable().find(|(path, _)| own(path)));
        let (path, error) = likely.or_else(|| self.unreadable().next())?;
        Some(MayBeUnread {
            name: name.to_owned(),
            suggestions: suggestions(name, self.entries.keys().map(String::as_str)),
            path: path.to_owned(),
            message: error.to_string(),
            more: self.unreadable().count() - 1,
        })
    }

    /// The first directory that is there and cannot be looked at, and why: it may hold any capability.
    #[must_use]
    pub fn unreadable_folder(&self) -> Option<(&Path, &std::io::Error)> {
        self.unreadable().find(|(path, _)| self.folders.iter().any(|folder| folder == path))
    }

    /// The directories that were looked at.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }
}

/// At most one more than is read, so that what is left out can be told.
fn manifest_files(directory: &Path) -> Result<Vec<PathBuf>, CatalogError> {
    let listing = match std::fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut files: Vec<PathBuf> = listing
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .take(MANIFESTS_MAX + 1)
        .collect();
    files.sort();
    Ok(files)
}

fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

enum Found {
    Capability(Box<Manifest>),
    Adapter(Box<AdapterManifest>),
}

/// What a file says, and its text.
fn read(path: &Path) -> Result<(Found, String), CatalogError> {
    let text = read_regular_to_string(path, MANIFEST_BYTES_MAX as u64).map_err(|error| match error {
        FileError::NotRegular { what, .. } => CatalogError::NotRegular { what },
        FileError::TooLarge { .. } => {
            let bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).max(MANIFEST_BYTES_MAX + 1);
            ManifestError::TooLarge(bytes).into()
        }
        FileError::NotText { offset, .. } => CatalogError::NotText { offset },
        FileError::Io { source, .. } => source.into(),
    })?;
    let found = if is_adapter(&text) {
        Found::Adapter(Box::new(AdapterManifest::parse(&text)?))
    } else {
        Found::Capability(Box::new(Manifest::parse(&text)?))
    };
    Ok((found, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_name_wins_and_broken_files_stand_beside() {
        let first = tempfile::tempdir().expect("tempdir");
        let second = tempfile::tempdir().expect("tempdir");
        let manifest = |name: &str, version: &str| {
            format!(
                r#"{{"format_version":"2.0","code":{{"name":"{name}","version":"{version}","runtime":{{"kind":"native","program":"x"}}}}}}"#
            )
        };
        std::fs::write(first.path().join("a.json"), manifest("a", "1")).expect("write");
        std::fs::write(first.path().join("broken.json"), "{").expect("write");
        let adapter = |version: &str| {
            format!(
                r#"{{"unit":"adapter","name":"m.A","version":"{version}","task_name":"t","module":"m","class":"A"}}"#
            )
        };
        std::fs::write(first.path().join("adapter-t-A.json"), adapter("1")).expect("write");
        std::fs::write(second.path().join("adapter-t-A.json"), adapter("2")).expect("write");
        std::fs::write(second.path().join("adapter-x.json"), r#"{"unit":"adapter"}"#).expect("write");
        std::fs::write(first.path().join("notes.txt"), "not a manifest").expect("write");
        std::fs::write(second.path().join("a.json"), manifest("a", "2")).expect("write");
        std::fs::write(second.path().join("b.json"), manifest("b", "1")).expect("write");
        let directories =
            [first.path(), second.path(), Path::new("/nowhere/at/all")].map(ManifestFolder::named);
        let catalog = Catalog::discover(&directories);
        let found: Vec<_> = catalog
            .entries()
            .map(|e| (e.manifest.code.name.as_str(), e.manifest.code.version.as_str()))
            .collect();
        assert_eq!(found, [("a", "1"), ("b", "1")]);
        assert_eq!(catalog.shadowed_by("a"), [second.path().join("a.json")]);
        let adapters: Vec<_> = catalog.adapters().iter().map(|a| (a.name.as_str(), &*a.version)).collect();
        assert_eq!(adapters, [("m.A", "1")]);
        let broken: Vec<_> = catalog.problems().iter().map(|problem| problem.error.code()).collect();
        assert_eq!(broken, ["manifest.malformed", "adapter.malformed"]);
        assert_eq!(catalog.problem_of("broken").map(|p| p.error.code()), Some("manifest.malformed"));
    }

    const TOOL: &str = r#"{"format_version":"2.0","code":{"name":"a","version":"1","runtime":{"kind":"native","program":"x"}}}"#;

    #[test]
    fn what_was_only_found_is_withheld_until_it_is_allowed_and_takes_no_name() {
        let (found, own) = (tempfile::tempdir().expect("tempdir"), tempfile::tempdir().expect("tempdir"));
        let state = tempfile::tempdir().expect("tempdir");
        let register = Register::at(state.path().to_owned());
        let (stranger, mine) = (found.path().join("wc.json"), own.path().join("a.json"));
        std::fs::write(&stranger, TOOL).expect("write");
        std::fs::write(&mine, TOOL).expect("write");
        let adapter =
            r#"{"unit":"adapter","name":"m.A","version":"1","task_name":"t","module":"m","class":"A"}"#;
        std::fs::write(found.path().join("adapter-t-A.json"), adapter).expect("write");
        let folders = [ManifestFolder::found(found.path()), ManifestFolder::named(own.path())];
        let look = || Catalog::discover_allowing(&folders, || register.read());
        let chosen = |catalog: &Catalog| catalog.get("a").map(|entry| entry.path.clone());

        let before = look();
        assert_eq!(chosen(&before), Some(mine.clone()), "the user's own tool stays");
        assert!(before.adapters().is_empty() && before.shadowed_by("a").is_empty());
        let withheld = before.withheld_of("a").expect("withheld");
        assert!(withheld.to_string().contains("wc.json") && !withheld.was_allowed, "{withheld}");
        assert!(withheld.next_step().contains(&format!("cjm-ctl allow {}", found.path().display())));

        register.allow([(&*stranger, TOOL.as_bytes())]).expect("allow");
        let allowed = look();
        assert_eq!(chosen(&allowed), Some(stranger.clone()));
        assert_eq!(allowed.shadowed_by("a"), std::slice::from_ref(&mine));

        std::fs::write(&stranger, TOOL.replace("\"x\"", "\"sh\"")).expect("write");
        let changed = look();
        assert_eq!(chosen(&changed), Some(mine));
        assert!(changed.withheld_of("a").is_some_and(|withheld| withheld.was_allowed));
    }

    #[test]
    fn without_a_register_nothing_that_was_found_runs_and_that_is_told() {
        let found = tempfile::tempdir().expect("tempdir");
        let folders = [ManifestFolder::found(found.path())];
        let look = || Catalog::discover_allowing(&folders, || Err(AllowedError::NoPlace));
        assert!(look().problems().is_empty(), "nobody needs the word");
        std::fs::write(found.path().join("a.json"), TOOL).expect("write");
        let catalog = look();
        assert_eq!(
            catalog.problems().iter().map(|p| p.error.code()).collect::<Vec<_>>(),
            ["allowed.no_place"]
        );
        assert!(catalog.get("a").is_none());
        let withheld = catalog.withheld_of("a").expect("it is withheld");
        assert!(withheld.to_string().contains("HOME"), "{withheld}");
        assert!(withheld.next_step().contains("set HOME"), "{}", withheld.next_step());
    }

    #[test]
    fn a_folder_is_taken_away_as_a_folder() {
        let step = |what| CatalogError::NotRegular { what }.next_step();
        assert!(step("a directory").contains("`rm -r`") && step("a FIFO").contains("`rm`"));
    }

    #[test]
    fn what_is_no_file_is_named_and_takes_no_tool_away() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("good.json"), TOOL).expect("write");
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe.json"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .expect("fifo");
        std::os::unix::fs::symlink("/dev/zero", path("device.json")).expect("link");
        std::fs::create_dir(path("folder.json")).expect("mkdir");
        std::os::unix::fs::symlink("nowhere", path("gone.json")).expect("link");
        std::fs::write(path("binary.json"), b"{\xff").expect("write");
        let huge = std::fs::File::create(path("huge.json")).expect("create");
        huge.set_len(1 << 40).expect("a hole takes no room");
        let catalog = Catalog::discover(&[ManifestFolder::named(folder.path())]);
        assert!(catalog.get("a").is_some());
        let told: Vec<_> = catalog
            .problems()
            .iter()
            .map(|problem| {
                assert!(!problem.error.next_step().is_empty());
                let name = problem.path.file_name().and_then(|name| name.to_str()).expect("name");
                (name.trim_end_matches(".json"), problem.error.code())
            })
            .collect();
        let expected = [
            ("binary", "manifest.not_text"),
            ("device", "manifest.not_regular"),
            ("folder", "manifest.not_regular"),
            ("gone", "manifest.unreadable"),
            ("huge", "manifest.too_large"),
            ("pipe", "manifest.not_regular"),
        ];
        assert_eq!(told, expected);
        let no_folder = Catalog::discover(&[ManifestFolder::named(path("good.json"))]);
        assert_eq!(
            no_folder.problems().iter().map(|p| p.error.code()).collect::<Vec<_>>(),
            ["manifest.unreadable"]
        );
        assert_eq!(no_folder.unreadable_folder().map(|(place, _)| place), Some(path("good.json").as_path()));
    }

    #[test]
    fn a_manifest_that_cannot_be_read_hides_no_other_and_is_no_folder_that_may_hold_any() {
        let folder = tempfile::tempdir().expect("tempdir");
        let unreadable = folder.path().join("tool.json");
        std::os::unix::fs::symlink(&unreadable, &unreadable).expect("a link to itself");
        let catalog = Catalog::discover(&[ManifestFolder::named(folder.path())]);
        let problem = catalog.problem_of("tool").expect("it is told");
        assert!(matches!(problem.error, CatalogError::Unreadable(_)), "{problem:?}");
        assert!(catalog.unreadable_folder().is_none());
    }

    #[test]
    fn what_is_not_found_may_be_in_what_cannot_be_read_and_the_likeliest_is_named() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = |name: &str| folder.path().join(name);
        let text = r#"{"format_version":"2.0","code":{"name":"tool","version":"1","runtime":{"kind":"native","program":"x"}}}"#;
        std::fs::write(path("tool.json"), text).expect("write");
        let look = || Catalog::discover(&[ManifestFolder::named(folder.path())]);
        assert_eq!(look().may_be_unread("tol"), None);
        for name in ["a.json", "tol.json"] {
            std::os::unix::fs::symlink(path(name), path(name)).expect("a link to itself");
        }
        let unread = look().may_be_unread("tol").expect("two are unread");
        assert_eq!((&unread.path, unread.more), (&path("tol.json"), 1));
        let words = unread.to_string();
        let told = "cannot be told (did you mean \"tool\"?): cannot read ";
        assert!(words.contains(told) && words.ends_with("; nor can 1 more be read"), "{words}");
        assert_eq!(look().may_be_unread("other").expect("the same").path, path("a.json"));
        let file = Catalog::discover(&[
            ManifestFolder::named(path("tool.json")),
            ManifestFolder::named(folder.path()),
        ]);
        assert_eq!(file.may_be_unread("tol").expect("a file is no folder").path, path("tool.json"));
    }
}
