//! How far the installation of a Python tool is, as a look at the disk tells it: whole, at work, or broken off. Installing
//! is the business of `cjm-environments`; the names that it goes by are here, since who calls a tool must know them too.
//!
//! What must hold: an environment with a stamp is whole, whoever holds the lock, so an installation of one tool is in no
//! other's way; a process that ended holds no lock, however it ended.

use crate::beginning::{Beginning, STAMP_FILE, is_whole};
use crate::catalog::{Catalog, CatalogEntry};
use crate::elsewhere::Holder;
use crate::installer::Installer;
pub use crate::list_steps::{install_all_command, install_all_step, is_gone, taken_away_step};
use crate::plain_path::is_same_file;
use cjm_platform::files::read_regular_to_string;
use cjm_wire::InstanceId;
use cjm_wire::describe::{Described, ErrorDetails, exit, shell_word};
use cjm_wire::error::ErrorCategory;
use cjm_wire::manifest::{MANIFEST_BYTES_MAX, Manifest};
use cjm_wire::runtime::Runtime;
use cjm_wire::suggestions::in_words;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What `install.installer_version` of a manifest begins with that our installation wrote: such an environment has a
/// stamp once it is whole.
pub const INSTALLER: &str = "cjm-ctl ";

/// In section `install` of a manifest that our installation wrote: the list that its tool came from.
pub const LIST_KEY: &str = "capabilities_file";

/// That a tool was replaced which another list had installed; none where it was the same one, or nobody knows.
#[must_use]
pub fn replaced_in_words(capability: &str, before: Option<&Path>, list: &Path) -> Option<String> {
    let before = before.filter(|before| !is_same_file(before, list))?;
    Some(format!(
        "{capability} was installed from {} before, and is from {} now",
        before.display(),
        list.display()
    ))
}

/// The list that an installed tool came from, where its manifest says so.
#[must_use]
pub fn list_of(manifest: &Manifest) -> Option<PathBuf> {
    manifest.install.unknown.get(LIST_KEY)?.as_str().map(PathBuf::from)
}

/// Where the environment of one Python tool is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    capability: String,
    data_dir: PathBuf,
    environment: PathBuf,
    /// Its interpreter by its manifest, whoever made it.
    python: PathBuf,
    /// The same, where our installation made it.
    made_by_us: Option<PathBuf>,
    /// The list that it came from, by its manifest.
    list: Option<PathBuf>,
}

/// Why a Python tool cannot be called that is installed, or was to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfinished {
    /// Somebody works on it.
    #[error("\"{capability}\" is being {} by {by}", .by.verb())]
    AtWork {
        /// The tool.
        capability: String,
        /// Who.
        by: Box<Installer>,
    },
    /// Somebody installs tools whose names nobody knows before they are there, and this may be one of them.
    #[error(
        "no capability \"{capability}\" is installed yet; it may be one that is being installed by {by}, for names are known \
         only once tools are there{}",
        in_words(.suggestions)
    )]
    MayBeAtWork {
        /// The name that was asked for.
        capability: String,
        /// Who.
        by: Box<Installer>,
        /// Names like it of what is installed.
        suggestions: Vec<String>,
    },
    /// Whether it is whole this user may not see.
    #[error("\"{capability}\" cannot be called: this user may not look at {}: {message}", path.display())]
    Unseen {
        /// The tool.
        capability: String,
        /// Its interpreter, or a file of its environment.
        path: PathBuf,
        /// The system's answer.
        message: String,
    },
    /// Another data directory has its environment now.
    #[error(
        "\"{capability}\" cannot be called: its environment holds \"{other}\" of the data directory {}",
        data_dir.display()
    )]
    OfAnother {
        /// The tool.
        capability: String,
        /// The tool that lives there now.
        other: String,
        /// The data directory whose that is.
        data_dir: PathBuf,
        /// The list that the first one came from.
        list: Option<PathBuf>,
    },
    /// Nobody works on it any more, and it did not come to its end.
    #[error("the installation of \"{capability}\" was broken off")]
    BrokenOff {
        /// The tool.
        capability: String,
        /// The list that it came from.
        list: Option<PathBuf>,
    },
    /// Likewise, of a tool that was not installed before: a failure leaves the same behind.
    #[error("\"{capability}\" is not installed: its installation failed or was broken off")]
    FirstBrokenOff {
        /// The tool.
        capability: String,
        /// The list that asks for it.
        list: Option<PathBuf>,
        /// Whether it still does.
        is_asked_for: bool,
    },
    /// Likewise, of tools whose names nobody knows before they are there, and this may be one of them.
    #[error(
        "no capability \"{capability}\" is installed; it may be that of {}, whose installation failed or was broken off, for \
         names are known only once tools are there{}",
        in_short(.entries),
        in_words(.suggestions)
    )]
    MayBeBrokenOff {
        /// The name that was asked for.
        capability: String,
        /// The entries that ask for such tools.
        entries: Vec<String>,
        /// The list of the first of them that is asked for still; none where no list asks for any.
        list: Option<Option<PathBuf>>,
        /// Names like it of what is installed.
        suggestions: Vec<String>,
    },
}

/// `"one", "two" and 3 more`.
fn in_short(entries: &[String]) -> String {
    const NAMED_MAX: usize = 3;
    let named: Vec<String> = entries.iter().take(NAMED_MAX).map(|entry| format!("\"{entry}\"")).collect();
    let more = entries.len().saturating_sub(NAMED_MAX);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", named.join(", "))
}

impl Described for Unfinished {
    fn code(&self) -> &'static str {
        match self {
            Self::AtWork { .. } | Self::MayBeAtWork { .. } => "installation.at_work",
            Self::Unseen { .. } => "installation.unseen",
            Self::OfAnother { .. } => "installation.of_another",
            Self::BrokenOff { .. } | Self::FirstBrokenOff { .. } => "installation.broken_off",
            Self::MayBeBrokenOff { .. } => "installation.may_be_broken_off",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::AtWork { by, .. } => by.next_step("wait for its end (`cjm-ctl status`), then try again"),
            Self::MayBeAtWork { by, .. } => {
                by.next_step("correct the name, or wait for its end (`cjm-ctl status`), then try again")
            }
            Self::Unseen { path, .. } => format!(
                "run it as the user whose that is (`namei -l {}` shows it), or let this user look there",
                shell_word(&path.display().to_string())
            ),
            Self::OfAnother { list, .. } => format!(
                "give its entry another `env_name`; then {} makes it there",
                install_all_step(list.as_deref())
            ),
            Self::BrokenOff { list, .. } => format!(
                "{} puts back what was there before, where that was kept, and goes on",
                install_all_step(list.as_deref())
            ),
            Self::FirstBrokenOff { list, is_asked_for: true, .. } => {
                format!("{} goes on with it", install_all_step(list.as_deref()))
            }
            Self::FirstBrokenOff { capability, list, .. } => taken_away_step(capability, list.as_deref()),
            Self::MayBeBrokenOff { list: Some(list), .. } => {
                format!("correct the name; or {} goes on with it", install_all_step(list.as_deref()))
            }
            Self::MayBeBrokenOff { list: None, .. } => {
                "correct the name; no list asks for the other any more, or its list is gone, and `cjm-ctl list` says what takes it away"
                    .to_owned()
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::AtWork { .. } | Self::MayBeAtWork { .. } => exit::DIRECTORY_IN_USE,
            Self::Unseen { .. }
            | Self::OfAnother { .. }
            | Self::BrokenOff { .. }
            | Self::FirstBrokenOff { .. } => exit::WORKER_START,
            // Most often it is a name that nobody has.
            Self::MayBeBrokenOff { .. } => exit::DOMAIN,
        }
    }

    fn details(&self) -> ErrorDetails {
        let (category, retriable) = self.kind();
        ErrorDetails { category: Some(category), retriable: Some(retriable), ..ErrorDetails::default() }
    }
}

impl Unfinished {
    /// It in the taxonomy: its category, and whether waiting helps.
    #[must_use]
    pub fn kind(&self) -> (ErrorCategory, bool) {
        match self {
            Self::AtWork { .. } | Self::MayBeAtWork { .. } => (ErrorCategory::Transient, true),
            Self::Unseen { .. }
            | Self::OfAnother { .. }
            | Self::BrokenOff { .. }
            | Self::FirstBrokenOff { .. }
            | Self::MayBeBrokenOff { .. } => (ErrorCategory::Fatal, false),
        }
    }
}

impl Installation {
    /// That of an installed tool; none of a program, which needs no environment.
    #[must_use]
    pub fn of(entry: &CatalogEntry) -> Option<Self> {
        let Manifest { code, install, .. } = &entry.manifest;
        let env_name = env_name_of(&entry.manifest)?;
        let is_python = matches!(entry.manifest.runtime(), Runtime::Python { .. });
        // Its manifest lies where its environment does: in `manifests/` of a data directory.
        let data_dir = entry.path.parent().and_then(Path::parent)?;
        let made_by_us =
            install.installer_version.starts_with(INSTALLER).then(|| PathBuf::from(&install.python_path));
        let python = PathBuf::from(&install.python_path);
        let list = list_of(&entry.manifest);
        let found = Self { made_by_us, list, python, ..Self::named(data_dir, &env_name)? };
        is_python.then(|| Self { capability: code.name.clone(), ..found })
    }

    /// That of a tool which may not be installed yet, in an environment of its name; none where no environment can have
    /// it.
    #[must_use]
    pub fn named(data_dir: &Path, name: &str) -> Option<Self> {
        InstanceId::is_valid(name).then(|| Self {
            capability: name.to_owned(),
            environment: data_dir.join("envs").join(name),
            data_dir: data_dir.to_owned(),
            python: PathBuf::new(),
            made_by_us: None,
            list: None,
        })
    }

    /// Why the tool cannot be called now, as far as its installation goes; none where it is whole, or was made by others
    /// and nothing of an installation lies there.
    #[must_use]
    pub fn unfinished(&self) -> Option<Unfinished> {
        let capability = self.capability.clone();
        // A stamp is no word of an interpreter that a link of the environment leads to.
        if let Some((path, message)) = self.refused() {
            return Some(Unfinished::Unseen { capability, path, message });
        }
        if let Some(Holder { capability: other, data_dir, .. }) =
            Holder::other_behind(&self.environment, &self.data_dir)
        {
            let list = self.list.clone();
            return Some(Unfinished::OfAnother { capability, other, data_dir, list });
        }
        if self.is_whole() {
            return None;
        }
        let half_made = former_of(&self.environment).is_dir()
            || (self.made_by_us.is_some() && self.environment.symlink_metadata().is_ok());
        let is_gone = self.made_by_us.as_ref().is_some_and(|python| !python.exists());
        if !half_made && !is_gone {
            return None;
        }
        match self.installer() {
            Some(by) => Some(Unfinished::AtWork { capability, by }),
            // It may have come to its end between the two looks.
            None => (half_made && !self.is_whole())
                .then(|| Unfinished::BrokenOff { capability, list: self.list.clone() }),
        }
    }

    /// Why a tool was not found whose first installation has begun; none where none has, or the environment is whole.
    #[must_use]
    pub fn first(&self) -> Option<Unfinished> {
        // Also before its environment is made, and where that has another name.
        if let Some(by) = Installer::at_work(&self.data_dir).filter(|by| by.installs(&self.capability)) {
            return Some(Unfinished::AtWork { capability: self.capability.clone(), by: Box::new(by) });
        }
        let begun =
            Beginning::unended(&self.data_dir).into_iter().find(|one| one.goes_by(&self.capability))?;
        let capability = self.capability.clone();
        match self.installer_of(&begun.environment) {
            Some(by) => Some(Unfinished::AtWork { capability, by }),
            // It may have come to its end between the two looks.
            None => (!is_whole(&begun.environment)).then(|| {
                let is_asked_for = begun.is_asked_for();
                Unfinished::FirstBrokenOff { capability, list: begun.list, is_asked_for }
            }),
        }
    }

    /// Why a tool was not found that may be among those which are being installed here, or were to be: whose name no
    /// manifest has yet. `used` says whether a manifest names an environment, and `suggestions` which names are like it.
    #[must_use]
    pub fn may_be(&self, used: impl Fn(&str) -> bool, suggestions: Vec<String>) -> Option<Unfinished> {
        let capability = self.capability.clone();
        let is_first = |by: &Installer| {
            by.is_install_all() && by.environments.as_ref().is_none_or(|all| all.iter().any(|one| !used(one)))
        };
        if let Some(by) = Installer::at_work(&self.data_dir).filter(is_first) {
            return Some(Unfinished::MayBeAtWork { capability, by: Box::new(by), suggestions });
        }
        let begun = Beginning::unended(&self.data_dir).into_iter();
        let nameless: Vec<Beginning> =
            begun.filter(|one| one.is_noted && one.capability.is_none() && !used(&one.env_name)).collect();
        if nameless.is_empty() {
            return None;
        }
        let list = nameless.iter().find(|one| one.is_asked_for()).map(|one| one.list.clone());
        let entries = nameless.iter().map(|one| one.label().to_owned()).collect();
        Some(Unfinished::MayBeBrokenOff { capability, entries, list, suggestions })
    }

    /// Its interpreter, where our installation made it and it is there no more; with the list that it came from.
    #[must_use]
    pub fn lost_interpreter(&self) -> Option<(&Path, Option<&Path>)> {
        let python = self.made_by_us.as_deref().filter(|python| !python.exists())?;
        Some((python, self.list.as_deref()))
    }

    /// What of it the kernel does not let this user see: what is hidden is not gone.
    fn refused(&self) -> Option<(PathBuf, String)> {
        let stamp = self.made_by_us.is_some().then(|| self.environment.join(STAMP_FILE));
        let looked_at = stamp.into_iter().chain([self.python.clone()]);
        looked_at.into_iter().find_map(|path| {
            let error = path.metadata().err()?;
            (error.kind() == ErrorKind::PermissionDenied).then(|| (path, error.to_string()))
        })
    }

    fn is_whole(&self) -> bool {
        is_whole(&self.environment)
    }

    /// Who works on this environment, or will. That somebody works on others finishes nothing here.
    fn installer(&self) -> Option<Box<Installer>> {
        self.installer_of(&self.environment)
    }

    fn installer_of(&self, environment: &Path) -> Option<Box<Installer>> {
        let name = environment.file_name()?.to_str()?;
        Installer::at_work(&self.data_dir).filter(|by| by.concerns(name)).map(Box::new)
    }
}

/// Where what was installed is kept while an installation works on an environment. No environment has such a name:
/// theirs have no dot.
#[must_use]
pub fn former_of(environment: &Path) -> PathBuf {
    let name = environment.file_name().unwrap_or_default().to_string_lossy();
    environment.with_file_name(format!(".{name}.former"))
}

/// Names of the environments that manifests name, also those that are withheld or shadowed.
#[must_use]
pub fn used_environments(catalog: &Catalog) -> BTreeSet<String> {
    let read =
        |path: &Path| Manifest::parse(&read_regular_to_string(path, MANIFEST_BYTES_MAX as u64).ok()?).ok();
    let withheld = catalog.withheld().iter().filter_map(|withheld| read(&withheld.path));
    let shadowed = catalog
        .entries()
        .flat_map(|entry| catalog.shadowed_by(&entry.manifest.code.name))
        .filter_map(|path| read(path));
    let unseen: Vec<Manifest> = withheld.chain(shadowed).collect();
    catalog
        .entries()
        .map(|entry| &entry.manifest)
        .chain(&unseen)
        .filter_map(env_name_of)
        .chain(catalog.adapters().iter().map(|adapter| adapter.conda_env.clone()))
        .collect()
}

/// The name of the environment that a manifest's tool lives in.
#[must_use]
pub fn env_name_of(manifest: &Manifest) -> Option<String> {
    let install = &manifest.install;
    if !install.conda_env.is_empty() {
        return Some(install.conda_env.clone());
    }
    let mut parts = Path::new(&install.python_path).iter().skip_while(|part| *part != "envs");
    parts.nth(1).map(|name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::installer::{INSTALL_LOCK, Signature};
    use cjm_platform::lock::FileLock;
    use std::time::Duration;

    /// A data directory, and the tool of it.
    struct Tool {
        data: tempfile::TempDir,
        entry: CatalogEntry,
    }

    impl Tool {
        fn new(installer: &str) -> Self {
            let data = tempfile::tempdir().expect("tempdir");
            let python = data.path().join("envs/its-env/bin/python");
            std::fs::create_dir_all(python.parent().expect("a folder")).expect("mkdir");
            std::fs::write(&python, "").expect("written");
            let text = format!(
                r#"{{"format_version":"2.0","install":{{"python_path":"{}","conda_env":"its-env","installer_version":
                "{installer}"}},"code":{{"name":"t","version":"1","module":"m","class":"C"}}}}"#,
                python.display()
            );
            let manifest = Manifest::parse(&text).expect("a manifest");
            Self { entry: CatalogEntry { path: data.path().join("manifests/t.json"), manifest }, data }
        }

        fn environment(&self) -> PathBuf {
            self.data.path().join("envs/its-env")
        }

        fn told(&self) -> Option<&'static str> {
            Installation::of(&self.entry).expect("of Python").unfinished().map(|unfinished| unfinished.code())
        }

        /// Held as an installation of this process would.
        fn lock(&self) -> FileLock {
            let owner = format!("pid {}", std::process::id());
            // A process that another test starts has the lock for a moment.
            FileLock::acquire(&self.data.path().join(INSTALL_LOCK), &owner, Duration::from_secs(20))
                .expect("free")
        }
    }

    #[test]
    fn a_stamp_says_that_it_is_whole_whoever_is_at_work() {
        let tool = Tool::new("cjm-ctl 0.1.0");
        std::fs::write(tool.environment().join(STAMP_FILE), "{}").expect("written");
        assert_eq!(tool.told(), None);
        let _other_tool = tool.lock();
        assert_eq!(tool.told(), None, "an installation of another tool is in nobody's way");
    }

    #[test]
    fn without_a_stamp_it_is_being_installed_while_somebody_holds_the_lock_and_broken_off_else() {
        let tool = Tool::new("cjm-ctl 0.1.0");
        assert_eq!(tool.told(), Some("installation.broken_off"));
        let lock = tool.lock();
        let told = Installation::of(&tool.entry).and_then(|known| known.unfinished()).expect("at work");
        let us = format!("is being installed by process {}", std::process::id());
        assert!(told.to_string().ends_with(&us), "{told}");
        assert_eq!(
            (told.exit_code(), told.kind()),
            (exit::DIRECTORY_IN_USE, (ErrorCategory::Transient, true))
        );
        // While it is made anew nothing lies there.
        std::fs::remove_dir_all(tool.environment()).expect("removed");
        assert_eq!(tool.told(), Some("installation.at_work"));
        drop(lock);
        drop(tool.lock());
        let patience = std::time::Instant::now();
        while tool.told().is_some() {
            assert!(patience.elapsed() < Duration::from_secs(20), "what is gone is told as that elsewhere");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_others_made_has_no_stamp_and_only_a_copy_that_waits_says_that_it_was_broken_off() {
        let tool = Tool::new("");
        assert_eq!(tool.told(), None);
        std::fs::create_dir(former_of(&tool.environment())).expect("mkdir");
        assert_eq!(tool.told(), Some("installation.broken_off"));
    }

    #[test]
    fn what_was_broken_off_is_told_as_that_while_another_tool_is_installed() {
        let tool = Tool::new("cjm-ctl 0.1.0");
        let lock = tool.lock();
        for (environments, told) in [
            (vec!["other"], "installation.broken_off"),
            (vec![], "installation.broken_off"),
            (vec!["other", "its-env"], "installation.at_work"),
        ] {
            lock.set_owner(&Signature::new("install-all").text(environments)).expect("written");
            assert_eq!(tool.told(), Some(told));
        }
    }

    #[test]
    fn a_name_that_no_manifest_has_may_be_that_of_a_first_installation() {
        let tool = Tool::new("cjm-ctl 0.1.0");
        let known = Installation::named(tool.data.path(), "any").expect("a name");
        let may_be = || known.may_be(|environment| environment == "its-env", vec!["many".to_owned()]);
        assert_eq!(may_be(), None, "nobody is at work");
        let lock = tool.lock();
        for (command, environments, is_told) in [
            ("install-all", vec!["its-env=t"], false),
            ("install-all", vec!["its-env=t", "other=o"], true),
            ("install-all", vec![], false),
            ("remove", vec!["other"], false),
        ] {
            lock.set_owner(&Signature::new(command).text(environments)).expect("written");
            let told = may_be();
            assert_eq!(told.is_some(), is_told, "{told:?}");
            let words = told.map(|told| told.to_string()).unwrap_or_default();
            assert_eq!(words.contains("(did you mean \"many\"?)"), is_told, "{words}");
        }
    }

    #[test]
    fn a_first_installation_is_known_by_the_environment_of_that_name() {
        let tool = Tool::new("");
        let first = |name: &str| Installation::named(tool.data.path(), name).and_then(|known| known.first());
        assert!(matches!(first("its-env"), Some(Unfinished::FirstBrokenOff { .. })));
        assert_eq!((first("other"), first("../envs/its-env")), (None, None));
        let _lock = tool.lock();
        assert!(matches!(first("its-env"), Some(Unfinished::AtWork { .. })));
        std::fs::write(tool.environment().join(STAMP_FILE), "{}").expect("written");
        assert_eq!(first("its-env"), None, "it is whole: its tool has another name");
    }
}
