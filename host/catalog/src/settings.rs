//! Settings: the command line, the environment and `cjm.yaml`, in this order, over the defaults. Every path is absolute.

use crate::allowed::{AllowedError, Register};
use crate::folders::{ManifestFolder, Standing, manifest_folders};
use crate::home::{HOME, expand_home, variable};
use crate::links::refuse_links;
pub use crate::settings_error::SettingsError;
pub use crate::unread::Unread;
use cjm_platform::files::{read_regular, read_regular_to_string};
use cjm_store::{JOBS_DAYS_DEFAULT, Retention};
use cjm_wire::settings_file::{
    CondaType, RuntimeMode, RuntimeSection, SETTINGS_BYTES_MAX, SETTINGS_FILE, SettingsFile, SubstrateSection,
};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

// When nothing else is said: below the home directory, and in the present one.
const DATA_DIR_DEFAULT: &str = ".cjm";
const CAPABILITIES_DEFAULT: &str = "capabilities.yaml";
/// Most keys of a file that is none of settings that are told.
const KEYS_TOLD_MAX: usize = 8;
/// How long records and output are kept, in days.
pub const RETENTION_DAYS_DEFAULT: f64 = 30.0;
/// How long a preparation may stand still, in seconds.
pub const PREFETCH_STALL_SECONDS_DEFAULT: f64 = 60.0;

/// What the command line says, over everything else.
#[derive(Debug, Clone, Default)]
pub struct CliOverrides {
    /// `--cjm-config`.
    pub cjm_config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--conda-prefix`.
    pub conda_prefix: Option<PathBuf>,
    /// `--conda-type`.
    pub conda_type: Option<String>,
}

/// Everything, decided.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `cjm.yaml` that was read.
    pub file: Option<PathBuf>,
    /// Whether the user named that file.
    pub file_standing: Standing,
    /// Its keys that nobody reads, in words.
    pub unread_keys: Vec<String>,
    /// Everything the host keeps.
    pub data_dir: PathBuf,
    /// Whether the user named the data directory, or a `cjm.yaml` that was found did.
    pub data_dir_standing: Standing,
    /// The list of what to install.
    pub capabilities_config: PathBuf,
    /// Where tools keep models.
    pub models_dir: Option<PathBuf>,
    /// Where conda environments go.
    pub mode: RuntimeMode,
    /// Which program makes them.
    pub conda_type: CondaType,
    /// Folder of the project's own conda environments.
    pub conda_prefix: Option<PathBuf>,
    /// Platform → program.
    pub binaries: BTreeMap<String, PathBuf>,
    /// How the host behaves.
    pub behaviour: Behaviour,
    working_dir: PathBuf,
}

/// Section `substrate`, with defaults for what it leaves out.
#[derive(Debug, Clone, PartialEq)]
pub struct Behaviour {
    /// Compare a tool's schema and surface with its manifest at each load.
    pub drift_detection: bool,
    /// Remember what each call used.
    pub empirical_tracking: bool,
    /// How long a preparation may stand still.
    pub prefetch_stall_threshold_seconds: f64,
    /// How long records and output are kept; `None`: for ever.
    pub diagnostics_retention_days: Option<f64>,
    /// Most that `diagnostics.db` may hold.
    pub diagnostics_retention_max_mb: Option<f64>,
    /// How long ended jobs and compositions are kept; `None`: for ever.
    pub jobs_retention_days: Option<f64>,
    /// Names of variables that workers get beyond the fixed list.
    pub worker_env_pass: Vec<String>,
}

impl Settings {
    /// Decides from the command line, this process' environment and the present directory.
    ///
    /// # Errors
    /// When a settings file is named or found and cannot be used, or a value is none.
    pub fn resolve(cli: &CliOverrides) -> Result<Self, SettingsError> {
        // Another one in its place would be searched for settings and manifests that nobody put here.
        let cwd = std::env::current_dir().map_err(|source| SettingsError::NoDirectory { source })?;
        Self::resolve_from(cli, &variable, &cwd)
    }

    /// As [`Settings::resolve`], with the environment and the directory given.
    ///
    /// # Errors
    /// As there.
    pub fn resolve_from(
        cli: &CliOverrides,
        variable: &dyn Fn(&str) -> Option<OsString>,
        cwd: &Path,
    ) -> Result<Self, SettingsError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = set(HOME).map(PathBuf::from);
        // The one place where a path becomes absolute: `~` is the home directory, whoever said it.
        let at = |place: &'static str, base: &Path, path: PathBuf| {
            expand_home(&path, home.as_deref())
                .map(|path| base.join(path))
                .map_err(|source| SettingsError::Home { place, path, source })
        };
        let told = cli.cjm_config.clone().map(|path| at("--cjm-config", cwd, path)).transpose()?;
        let found = told.or_else(|| find_upwards(cwd));
        let is_named = cli.cjm_config.is_some();
        let (file, unread_keys) =
            found.as_deref().map(|path| read(path, is_named)).transpose()?.unwrap_or_default();
        let base = found.as_deref().and_then(Path::parent).unwrap_or(cwd);
        let in_file = |key: &'static str, path: Option<PathBuf>| {
            path.map(|path| at(key, base, path)).transpose().map(|path| path.map(|path| clean(&path)))
        };
        let runtime = file.runtime.unwrap_or_default();
        let conda_type = conda_type(cli, set("CJM_CONDA_TYPE"), &runtime)?;
        let first_said =
            |[option, name, key]: [&'static str; 3], cli: &Option<PathBuf>, kept: Option<PathBuf>| {
                let cli = cli.clone().filter(|path| !path.as_os_str().is_empty()).map(|path| (option, path));
                match cli.or_else(|| set(name).map(|path| (name, path.into()))) {
                    Some((place, path)) => at(place, cwd, path).map(|path| Some(clean(&path))),
                    None => in_file(key, kept),
                }
            };
        let data_dir_named = cli.data_dir.as_ref().is_some_and(|path| !path.as_os_str().is_empty())
            || set("CJM_DATA_DIR").is_some()
            || (if file.data_dir.is_some() { cli.cjm_config.is_some() } else { home.is_some() });
        let data_dir = first_said(["--data-dir", "CJM_DATA_DIR", "data_dir"], &cli.data_dir, file.data_dir)?
            .map_or_else(|| default_data_dir(home.as_deref()), Ok)?;
        if let (false, Some(found)) = (data_dir_named, &found) {
            refuse_links(&data_dir, cwd, found)?;
        }
        if data_dir.to_str().is_none() {
            return Err(SettingsError::NotText { path: data_dir });
        }
        Ok(Self {
            data_dir_standing: if data_dir_named { Standing::Named } else { Standing::Found },
            data_dir,
            capabilities_config: in_file("capabilities_config", file.capabilities_config)?
                .unwrap_or_else(|| cwd.join(CAPABILITIES_DEFAULT)),
            models_dir: in_file("models_dir", file.models_dir)?,
            mode: runtime.mode.unwrap_or_default(),
            conda_type,
            conda_prefix: first_said(
                ["--conda-prefix", "CJM_CONDA_PREFIX", "runtime.prefix"],
                &cli.conda_prefix,
                runtime.prefix,
            )?,
            binaries: runtime
                .binaries
                .into_iter()
                .flatten()
                .map(|(platform, path)| Ok((platform, clean(&at("runtime.binaries", base, path)?))))
                .collect::<Result<_, SettingsError>>()?,
            behaviour: Behaviour::of(file.substrate.unwrap_or_default()),
            file_standing: if cli.cjm_config.is_some() { Standing::Named } else { Standing::Found },
            file: found.clone(),
            unread_keys,
            working_dir: cwd.to_owned(),
        })
    }

    /// Where manifests are found, first match first: the present folder's, then the data directory's.
    #[must_use]
    pub fn manifest_dirs(&self) -> Vec<ManifestFolder> {
        manifest_folders(&self.data_dir, self.data_dir_standing, Some(&self.working_dir))
    }

    /// Whether programs that the settings file names may be run without the user's asking for it: there is no such
    /// file, the user named it, or allowed it as it is.
    #[must_use]
    pub fn programs_are_allowed(&self) -> bool {
        if self.file_standing == Standing::Named || !self.names_programs() {
            return true;
        }
        let Some(file) = &self.file else { return true };
        let allowed = Register::of_user().and_then(|register| register.read()).unwrap_or_default();
        read_regular(file, SETTINGS_BYTES_MAX as u64).is_ok_and(|content| allowed.covers(file, &content))
    }

    /// Whether there are programs, or a folder of programs, that this project names.
    #[must_use]
    pub fn names_programs(&self) -> bool {
        !self.binaries.is_empty() || self.conda_prefix.is_some()
    }

    /// Keeps the user's word for the settings file, given by a command that works with the programs it names.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn allow_programs(&self) -> Result<(), AllowedError> {
        let Some(file) = &self.file else { return Ok(()) };
        let Ok(content) = read_regular(file, SETTINGS_BYTES_MAX as u64) else { return Ok(()) };
        Register::of_user()?.allow([(file.as_path(), content.as_slice())])
    }

    /// Where manifests are written.
    #[must_use]
    pub fn manifests_dir(&self) -> PathBuf {
        self.data_dir.join("manifests")
    }

    /// Where conda environments of this project go, if it keeps its own.
    #[must_use]
    pub fn own_prefix(&self) -> Option<&Path> {
        match self.mode {
            RuntimeMode::Local => self.conda_prefix.as_deref(),
            RuntimeMode::System => None,
        }
    }
}

/// Where the data directory is when nobody names it.
fn default_data_dir(home: Option<&Path>) -> Result<PathBuf, SettingsError> {
    let problem = match home {
        Some(home) if home.is_absolute() => return Ok(home.join(DATA_DIR_DEFAULT)),
        Some(home) => format!("HOME is \"{}\", which is no absolute path", home.display()),
        None => "HOME is not set, and the user database has no home for this user".to_owned(),
    };
    Err(SettingsError::NoDataDir { problem })
}

impl Behaviour {
    /// What is old among records and output.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention {
            age_max_days: self.diagnostics_retention_days,
            size_max_mb: self.diagnostics_retention_max_mb,
        }
    }

    fn of(section: SubstrateSection) -> Self {
        let days = |said: Option<f64>, default| Some(said.unwrap_or(default)).filter(|days| *days > 0.0);
        Self {
            drift_detection: section.drift_detection.unwrap_or(true),
            empirical_tracking: section.empirical_tracking.unwrap_or(true),
            prefetch_stall_threshold_seconds: section
                .prefetch_stall_threshold_seconds
                .unwrap_or(PREFETCH_STALL_SECONDS_DEFAULT),
            diagnostics_retention_days: days(section.diagnostics_retention_days, RETENTION_DAYS_DEFAULT),
            diagnostics_retention_max_mb: section.diagnostics_retention_max_mb,
            jobs_retention_days: days(section.jobs_retention_days, JOBS_DAYS_DEFAULT),
            worker_env_pass: section.worker_env_pass.unwrap_or_default(),
        }
    }
}

/// The platform as `runtime.binaries` names it: `linux-x64`.
#[must_use]
pub fn platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}-{arch}", std::env::consts::OS)
}

/// A link of that name that leads nowhere was meant to be read, and is told by reading it.
fn find_upwards(cwd: &Path) -> Option<PathBuf> {
    cwd.ancestors().map(|folder| folder.join(SETTINGS_FILE)).find(|path| path.symlink_metadata().is_ok())
}

/// The settings of a file, and its keys that nobody reads.
fn read(path: &Path, is_named: bool) -> Result<(SettingsFile, Vec<String>), SettingsError> {
    let text = read_regular_to_string(path, SETTINGS_BYTES_MAX as u64)
        .map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
    let file =
        SettingsFile::parse(&text).map_err(|source| SettingsError::File { path: path.to_owned(), source })?;
    let Unread { told, all } = Unread::of(&text);
    // One that was found has the name of settings, and may be another program's as well.
    if is_named && !all.is_empty() {
        let keys = all.into_iter().take(KEYS_TOLD_MAX).collect();
        return Err(SettingsError::NoSettings { path: path.to_owned(), keys });
    }
    Ok((file, told))
}

fn conda_type(
    cli: &CliOverrides,
    variable: Option<OsString>,
    runtime: &RuntimeSection,
) -> Result<CondaType, SettingsError> {
    let named = |place: &'static str, value: &str| {
        CondaType::named(value).ok_or_else(|| SettingsError::CondaType { place, value: value.to_owned() })
    };
    match (cli.conda_type.as_deref().filter(|value| !value.is_empty()), variable) {
        (Some(value), _) => named("--conda-type", value),
        (None, Some(variable)) => named("CJM_CONDA_TYPE", &variable.to_string_lossy()),
        (None, None) => Ok(runtime.conda_type.unwrap_or_default()),
    }
}

/// Without `.` components; `..` stays, because a link may stand before it.
fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_platform::files::FileError;
    use cjm_wire::describe::Described as _;
    use std::collections::HashMap;
    use std::os::unix::fs::PermissionsExt as _;

    const FILE: &str = "data_dir: ./.cjm\ncapabilities_config: tools.yaml\nmodels_dir: /models\nruntime: {mode: local, \
                        conda_type: miniforge, prefix: rt, binaries: {linux-x64: ./bin/mm}}\nsubstrate: \
                        {diagnostics_retention_days: 0, diagnostics_retention_max_mb: 2, jobs_retention_days: 7.5}\n";

    fn resolve(
        cli: &CliOverrides,
        variables: &[(&str, &str)],
        cwd: &Path,
    ) -> Result<Settings, SettingsError> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Settings::resolve_from(cli, &|name| variables.get(name).map(OsString::from), cwd)
    }

    #[test]
    fn a_data_directory_that_is_no_text_is_refused_wherever_it_is_named() {
        use std::os::unix::ffi::OsStrExt as _;
        let project = tempfile::tempdir().expect("tempdir");
        let strange = Path::new(std::ffi::OsStr::from_bytes(b"/tmp/d\xff"));
        let named = CliOverrides { data_dir: Some(strange.to_owned()), ..CliOverrides::default() };
        for (cli, variable) in [(&named, "NONE"), (&CliOverrides::default(), "CJM_DATA_DIR")] {
            let set = |name: &str| (name == variable).then(|| strange.as_os_str().to_owned());
            let refused = Settings::resolve_from(cli, &set, project.path()).expect_err("it is no text");
            assert_eq!(refused.code(), "settings.path_not_text");
            assert!(refused.next_step().contains("--data-dir"), "{}", refused.next_step());
        }
        assert!(!strange.exists() && !Path::new("/tmp/d\u{fffd}").exists());
    }

    #[test]
    fn the_command_line_wins_over_the_environment_over_the_file_over_the_defaults() {
        let project = tempfile::tempdir().expect("tempdir");
        let inner = project.path().join("a/b");
        std::fs::create_dir_all(&inner).expect("mkdir");
        let home = [("HOME", "/home/u")];
        let defaults = resolve(&CliOverrides::default(), &home, &inner).expect("defaults");
        assert_eq!(defaults.data_dir, Path::new("/home/u/.cjm"));
        assert_eq!(defaults.capabilities_config, inner.join("capabilities.yaml"));
        assert_eq!((defaults.mode, defaults.conda_type), (RuntimeMode::System, CondaType::Conda));
        assert_eq!(defaults.behaviour.diagnostics_retention_days, Some(RETENTION_DAYS_DEFAULT));
        assert_eq!(defaults.behaviour.jobs_retention_days, Some(JOBS_DAYS_DEFAULT));

        std::fs::write(project.path().join("cjm.yaml"), FILE).expect("write");
        let file = resolve(&CliOverrides::default(), &home, &inner).expect("file");
        assert_eq!(file.file, Some(project.path().join("cjm.yaml")));
        assert_eq!(file.data_dir, project.path().join(".cjm"));
        assert_eq!(file.capabilities_config, project.path().join("tools.yaml"));
        assert_eq!(file.models_dir, Some("/models".into()));
        assert_eq!(
            (file.conda_type, file.own_prefix()),
            (CondaType::Miniforge, Some(&*project.path().join("rt")))
        );
        assert_eq!(file.binaries.get("linux-x64"), Some(&project.path().join("bin/mm")));
        assert_eq!(
            (file.behaviour.diagnostics_retention_days, file.behaviour.diagnostics_retention_max_mb),
            (None, Some(2.0))
        );
        assert_eq!(file.behaviour.jobs_retention_days, Some(7.5));

        let variables =
            [("CJM_DATA_DIR", "/env"), ("CJM_CONDA_PREFIX", "p"), ("CJM_CONDA_TYPE", "micromamba")];
        let environment = resolve(&CliOverrides::default(), &variables, &inner).expect("environment");
        assert_eq!(environment.data_dir, Path::new("/env"));
        assert_eq!(
            (environment.conda_type, environment.own_prefix()),
            (CondaType::Micromamba, Some(&*inner.join("p")))
        );
        let cli = CliOverrides {
            data_dir: Some("told".into()),
            conda_prefix: Some("/q".into()),
            conda_type: Some("conda".into()),
            cjm_config: None,
        };
        let resolved = resolve(&cli, &variables, &inner).expect("the command line");
        assert_eq!(resolved.data_dir, inner.join("told"));
        assert_eq!((resolved.conda_type, resolved.own_prefix()), (CondaType::Conda, Some(Path::new("/q"))));
        let expected = [
            ManifestFolder::found(inner.join(".cjm/manifests")),
            ManifestFolder::named(inner.join("told/manifests")),
        ];
        assert_eq!(resolved.manifest_dirs(), expected);
    }

    #[test]
    fn a_data_directory_that_only_a_found_file_names_is_nobodys_word() {
        let project = tempfile::tempdir().expect("tempdir");
        std::fs::write(project.path().join("cjm.yaml"), FILE).expect("write");
        let standing = |cli: &CliOverrides, variables: &[(&str, &str)], cwd: &Path| {
            resolve(cli, variables, cwd).expect("settings").data_dir_standing
        };
        let nothing = CliOverrides::default();
        let home = [("HOME", "/home/u")];
        assert_eq!(standing(&nothing, &home, project.path()), Standing::Found);
        assert_eq!(standing(&nothing, &[("CJM_DATA_DIR", ".cjm")], project.path()), Standing::Named);
        let told = CliOverrides { data_dir: Some(".cjm".into()), ..CliOverrides::default() };
        assert_eq!(standing(&told, &home, project.path()), Standing::Named);
        let file = CliOverrides { cjm_config: Some("cjm.yaml".into()), ..CliOverrides::default() };
        assert_eq!(standing(&file, &home, project.path()), Standing::Named);
        std::fs::write(project.path().join("cjm.yaml"), "").expect("write");
        assert_eq!(standing(&nothing, &home, project.path()), Standing::Named, "the user's own home");
        for (variables, problem) in [
            (&[][..], "HOME is not set, and the user database has no home"),
            (&[("HOME", "")][..], "HOME is not set, and the user database has no home"),
            (&[("HOME", "h")][..], "HOME is \"h\", which is no absolute path"),
        ] {
            let refused = resolve(&nothing, variables, project.path()).expect_err("there is no home");
            assert_eq!(refused.code(), "settings.no_data_dir");
            assert!(refused.to_string().contains(problem), "{refused}");
            assert!(refused.next_step().contains("set HOME"), "{}", refused.next_step());
            assert_eq!(standing(&told, variables, project.path()), Standing::Named, "and none is needed");
        }

        std::fs::write(project.path().join("cjm.yaml"), FILE).expect("write");
        std::fs::create_dir(project.path().join(".cjm")).expect("mkdir");
        std::os::unix::fs::symlink("/home/u", project.path().join(".cjm/envs")).expect("link");
        let refused = resolve(&nothing, &home, project.path()).expect_err("it leads out of the folder");
        assert_eq!(refused.code(), "settings.link_inside");
        assert_eq!(standing(&told, &home, project.path()), Standing::Named, "the user's own link");
        // A link is told by its name, and what cannot be listed, if only by some, as that.
        std::fs::remove_file(project.path().join(".cjm/envs")).expect("removed");
        let data = project.path().join(".cjm/data");
        std::fs::create_dir(&data).expect("mkdir");
        assert_eq!(standing(&nothing, &home, project.path()), Standing::Found);
        std::os::unix::fs::symlink("/home/u/nowhere", data.join("lock")).expect("link");
        assert_eq!(standing(&nothing, &home, project.path()), Standing::Found, "nobody goes there");
        std::os::unix::fs::symlink("/", data.join("tool")).expect("link");
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o300)).expect("chmod");
        let can_list = std::fs::read_dir(&data).is_ok();
        let refused = resolve(&nothing, &home, project.path()).expect_err("it may lead out of the folder");
        let code = if can_list { "settings.link_inside" } else { "settings.links_untold" };
        assert_eq!(refused.code(), code);
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).expect("chmod");
    }

    #[test]
    fn a_link_in_the_folder_of_a_tool_that_was_found_leads_nowhere_else() {
        let project = tempfile::tempdir().expect("tempdir");
        std::fs::write(project.path().join("cjm.yaml"), FILE).expect("write");
        let data = project.path().join(".cjm/data");
        for folder in ["tool/runs/3", "other"] {
            std::fs::create_dir_all(data.join(folder)).expect("mkdir");
        }
        let (beside, own) =
            (project.path().join("beside/.cjm/manifests"), project.path().join(".cjm/manifests"));
        let manifest =
            r#"{"code": {"name": "tool", "runtime": {"actions": {"convert": {}, "a:b": {}, "../up": {}}}}}"#;
        // A tool's own, or its user's; the other one has no actions.
        for links in ["tool/models", "other/convert", "tool/a:b"] {
            std::os::unix::fs::symlink("/", data.join(links)).expect("link");
        }
        // Wherever the catalog finds what describes it.
        for manifests in [own, beside] {
            std::fs::create_dir_all(&manifests).expect("mkdir");
            std::fs::write(manifests.join("any.json"), manifest).expect("write");
            let present = manifests.ancestors().nth(2).expect("a folder");
            for (target, is_refused) in
                [("runs/3", false), ("/", true), ("../other", true), ("../..", true), ("nowhere", false)]
            {
                for action in ["convert", "a_b", "_up"].map(|name| data.join("tool").join(name)) {
                    std::os::unix::fs::symlink(target, &action).expect("link");
                    let resolved = resolve(&CliOverrides::default(), &[("HOME", "/home/u")], present);
                    let code = resolved.as_ref().err().map(|refused| refused.code());
                    let expected = is_refused.then_some("settings.link_inside");
                    assert_eq!(code, expected, "{} {target}", action.display());
                    std::fs::remove_file(&action).expect("removed");
                }
            }
            std::fs::remove_dir_all(&manifests).expect("removed");
        }
    }

    #[test]
    fn links_of_tools_cost_no_time_whatever_their_number() {
        let project = tempfile::tempdir().expect("tempdir");
        std::fs::write(project.path().join("cjm.yaml"), FILE).expect("write");
        let (tool, manifests) =
            (project.path().join(".cjm/data/tool"), project.path().join(".cjm/manifests"));
        for folder in [&tool, &manifests] {
            std::fs::create_dir_all(folder).expect("mkdir");
        }
        for n in 0..2000 {
            std::os::unix::fs::symlink("/", tool.join(n.to_string())).expect("link");
        }
        for n in 0..100 {
            let manifest = r#"{"code": {"name": "tool", "runtime": {"actions": {"convert": {}}}}}"#;
            std::fs::write(manifests.join(format!("{n}.json")), manifest).expect("write");
        }
        let begun = std::time::Instant::now();
        resolve(&CliOverrides::default(), &[("HOME", "/home/u")], project.path())
            .expect("nothing of the host's");
        assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_leading_tilde_is_the_home_wherever_a_path_is_said() {
        let project = tempfile::tempdir().expect("tempdir");
        let text = "data_dir: ~/d\ncapabilities_config: ~/c.yaml\nmodels_dir: ~/m\nruntime: {mode: local, prefix: \
                    ~/p, binaries: {linux-x64: ~/b}}\n";
        std::fs::write(project.path().join("cjm.yaml"), text).expect("write");
        let (nothing, home) = (CliOverrides::default(), ("HOME", "/home/u"));
        let file = resolve(&nothing, &[home], project.path()).expect("settings");
        assert_eq!((&*file.data_dir, file.data_dir_standing), (Path::new("/home/u/d"), Standing::Found));
        assert_eq!(file.capabilities_config, Path::new("/home/u/c.yaml"));
        assert_eq!(file.models_dir, Some("/home/u/m".into()));
        assert_eq!(file.conda_prefix, Some("/home/u/p".into()));
        assert_eq!(file.binaries.get("linux-x64"), Some(&"/home/u/b".into()));
        let variables = [home, ("CJM_DATA_DIR", "~/e"), ("CJM_CONDA_PREFIX", "~")];
        let variable = resolve(&nothing, &variables, project.path()).expect("settings");
        assert_eq!(variable.data_dir, Path::new("/home/u/e"));
        assert_eq!(variable.conda_prefix, Some("/home/u".into()));
        let told = CliOverrides { data_dir: Some("~/f".into()), ..CliOverrides::default() };
        let told = resolve(&told, &variables, project.path()).expect("settings");
        assert_eq!(told.data_dir, Path::new("/home/u/f"));

        let homeless = resolve(&nothing, &[], project.path()).expect_err("there is no home");
        assert_eq!(homeless.code(), "settings.home_not_set");
        let said = homeless.to_string();
        assert!(said.contains("HOME is not set") && said.contains("data_dir is \"~/d\""), "{said}");
        let others = CliOverrides { data_dir: Some("~root/f".into()), ..CliOverrides::default() };
        let refused = resolve(&others, &[home], project.path()).expect_err("another user's home");
        assert!(refused.to_string().contains("another user"), "{refused}");
        assert!(refused.next_step().contains("./"), "{}", refused.next_step());
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let folder = tempfile::tempdir().expect("tempdir");
        let cli = CliOverrides { cjm_config: Some("none.yaml".into()), ..CliOverrides::default() };
        assert!(matches!(resolve(&cli, &[], folder.path()), Err(SettingsError::Unreadable { .. })));
        let file = folder.path().join("cjm.yaml");
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .expect("fifo");
        let hanging = resolve(&CliOverrides::default(), &[], folder.path()).expect_err("a FIFO");
        assert!(matches!(hanging, SettingsError::Unreadable { source: FileError::NotRegular { .. }, .. }));
        std::fs::remove_file(&file).expect("remove");
        std::os::unix::fs::symlink("nowhere.yaml", &file).expect("linked");
        let nowhere = resolve(&CliOverrides::default(), &[], folder.path()).expect_err("it leads nowhere");
        let named = matches!(&nowhere, SettingsError::Unreadable { path, .. } if *path == file);
        assert!(named, "{nowhere}");
        std::fs::remove_file(&file).expect("remove");
        std::fs::write(folder.path().join("cjm.yaml"), "runtime: {mode: 3}\n").expect("write");
        assert!(matches!(
            resolve(&CliOverrides::default(), &[], folder.path()),
            Err(SettingsError::File { .. })
        ));
        std::fs::write(folder.path().join("cjm.yaml"), "").expect("write");
        for (told, variable) in [(Some("pip"), "conda"), (None, "pip")] {
            let cli = CliOverrides { conda_type: told.map(str::to_owned), ..CliOverrides::default() };
            let error = resolve(&cli, &[("CJM_CONDA_TYPE", variable)], folder.path()).expect_err("pip");
            assert!(error.to_string().contains("\"pip\"") && !error.next_step().is_empty(), "{error}");
        }
    }
}
