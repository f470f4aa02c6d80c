//! One entry that is a Python package: interpreter, environment, lock, packages, introspection, manifest, stamp, in
//! this order. Each step finds what an interrupted run left and goes on with it.

use crate::adapters;
use crate::after_a_kill::{origin_of, put_back_of_conda};
use crate::asked_python::{check_age, interpreter};
use crate::conda::{CondaOptions, Estimate};
use crate::conda_entry::{CondaEntry, Looked, Made, home};
use crate::elsewhere::{installed_in, is_found, own_stamp, renew_place};
use crate::error::EnvironmentError;
use crate::files::{check_nothing_mounted, hash_bytes, own_home};
use crate::first_note::FirstNote;
use crate::former::{Former, clear_place, names_touched, recover, rests_of};
use crate::interpreters::{Interpreter, probe};
use crate::introspection;
use crate::lock::{self, Lock};
use crate::manifests::{keep_from, keep_promises, keep_what_is_not_ours, link_in_words, read_existing};
use crate::owners::{check_own_environment, is_of_package};
use crate::package::Requirements;
use crate::report::{INSTALLER_VERSION, Outcome, Step};
use crate::set_aside::{SetAside, forget_made, found_in_its_place, note_made};
use crate::stamp::{Origin, Stamp, version_in};
use crate::steps::WORDS_STEP;
use crate::tool_entry::remove_old;
use crate::user_values::settle_code;
use crate::uv::Uv;
use cjm_catalog::installation::{LIST_KEY, list_of, replaced_in_words};
use cjm_catalog::plain_path::as_written_before;
use cjm_wire::capabilities_file::Entry;
use cjm_wire::describe::shell_word;
use cjm_wire::manifest::{Code, DriftTracking, FORMAT_VERSION, Install};
use cjm_wire::runtime::Runtime;
use cjm_wire::{Manifest, Timestamp};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Interpreter and installer, found once for all entries.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) uv: Uv,
    pub(crate) interpreters: Vec<Interpreter>,
    /// conda makes one environment at a time.
    pub(crate) conda_turn: tokio::sync::Mutex<()>,
}

/// What all entries of one installation share.
#[derive(Debug)]
pub(crate) struct Common {
    /// The list that is installed.
    pub(crate) list: PathBuf,
    /// Its folder.
    pub(crate) base: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) sdk: PathBuf,
    pub(crate) sdk_hash: String,
    /// A requirement of every environment.
    pub(crate) substrate_source: Option<String>,
    pub(crate) conda: CondaOptions,
}

/// One Python entry and where its parts go.
#[derive(Debug)]
pub(crate) struct PythonEntry<'a> {
    pub(crate) entry: &'a Entry,
    pub(crate) requirements: Requirements,
    /// Hash over everything that decides what is installed.
    request: String,
    pub(crate) environment: PathBuf,
    manifests: PathBuf,
    list: &'a Path,
    sdk: &'a Path,
    conda: Option<CondaEntry<'a>>,
    /// What was found when an installation that was killed was put back, for people.
    found: Vec<String>,
}

/// An entry that is installed.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) outcome: Outcome,
    pub(crate) capability: String,
    /// Its version.
    pub(crate) version: Option<String>,
    pub(crate) manifest: PathBuf,
    /// Manifests of its adapters.
    pub(crate) adapters: Vec<PathBuf>,
    pub(crate) python_version: String,
    pub(crate) lock_hash: String,
    /// What became of values that its class and the installed manifest had differently.
    pub(crate) values: Vec<String>,
    pub(crate) warnings: Vec<String>,
    /// The name that its capability had before, whose manifest is gone.
    pub(crate) renamed_from: Option<String>,
    /// The tool of another package that had its environment before, whose manifest is gone.
    pub(crate) displaced: Option<String>,
    /// What conda had to fetch.
    pub(crate) estimate: Option<Estimate>,
}

/// The tool that had an environment under another name until now.
struct Earlier {
    manifest: Manifest,
    /// Whether it was made from the same package, and has only another name.
    is_same_tool: bool,
}

/// How an entry tells what it does.
pub(crate) struct Reporter<'a> {
    pub(crate) step: &'a (dyn Fn(Step) + Send + Sync),
    pub(crate) line: &'a (dyn Fn(&str) + Send + Sync),
}

impl<'a> PythonEntry<'a> {
    /// Reads what the entry asks for.
    ///
    /// # Errors
    /// When the entry asks for what cannot be had.
    pub(crate) fn read(entry: &'a Entry, common: &'a Common) -> Result<Self, EnvironmentError> {
        let conda = CondaEntry::read(entry, &common.base, &common.data_dir, &common.conda)?;
        let mut requirements = Requirements::of(entry, &common.base)?;
        if let Some(substrate) = &common.substrate_source {
            requirements = requirements.with(substrate, &common.base)?;
        }
        let whole = serde_json::json!({
            "entry": entry,
            "folders": requirements.folder_hashes(),
            "installer": INSTALLER_VERSION,
            "sdk": common.sdk_hash,
            "substrate": common.substrate_source,
            "env_file": conda.as_ref().and_then(|conda| conda.content_hash.clone()),
        });
        Ok(Self {
            request: hash_bytes(whole.to_string().as_bytes()),
            environment: own_home(&common.data_dir, &entry.env_name),
            manifests: common.data_dir.join("manifests"),
            entry,
            requirements,
            sdk: &common.sdk,
            list: &common.list,
            conda,
            found: Vec::new(),
        })
    }

    /// What is installed already, if nothing has changed since.
    pub(crate) fn current(&self) -> Option<Done> {
        let stamp = own_stamp(&self.environment)?;
        if !stamp.is_current(&self.request, &home(&self.environment), &self.manifests) {
            return None;
        }
        let of_conda = self.conda.as_ref();
        of_conda.inspect(|conda| renew_place(&stamp, &self.environment, conda.data_dir));
        Some(Done {
            outcome: Outcome::Unchanged,
            version: self.version_of(&stamp.capability),
            manifest: self.manifests.join(format!("{}.json", stamp.capability)),
            adapters: stamp.adapters.iter().map(|name| self.manifests.join(name)).collect(),
            python_version: stamp.python_version,
            lock_hash: stamp.lock_hash,
            values: Vec::new(),
            warnings: self.found(),
            capability: stamp.capability,
            renamed_from: None,
            displaced: None,
            estimate: None,
        })
    }

    /// The capability that its environment holds, as it is on the disk now.
    pub(crate) fn held(&self) -> Option<String> {
        own_stamp(&self.environment).map(|stamp| stamp.capability)
    }

    /// Name and version of what is installed, while its environment is whole.
    pub(crate) fn installed(&self) -> Option<(String, String)> {
        installed_in(&self.environment, &self.manifests)
    }

    fn version_of(&self, capability: &str) -> Option<String> {
        version_in(&self.manifests, capability)
    }

    /// What of earlier environments could not be deleted, for people.
    pub(crate) fn rests(&self) -> Vec<String> {
        let told = |rest: &PathBuf| {
            let word = shell_word(&rest.to_string_lossy());
            format!(
                "{} was part of its environment before and cannot be deleted: `rm -rf {word}` takes it away, run by its owner",
                rest.display()
            )
        };
        rests_of(&self.environment).iter().map(told).chain(self.found()).collect()
    }

    /// What somebody has put where something was put back after a kill, and where it is now, for people.
    pub(crate) fn found(&self) -> Vec<String> {
        let of_conda = std::fs::read_link(&self.environment).map(|home| found_in_its_place(&home));
        let beside = found_in_its_place(&self.environment).into_iter().chain(of_conda.into_iter().flatten());
        self.found.iter().cloned().chain(beside).collect()
    }

    /// Puts back what an installation that was killed had kept.
    ///
    /// # Errors
    /// When it cannot.
    pub(crate) fn recover(&mut self) -> Result<(), EnvironmentError> {
        put_back_of_conda(&self.environment, self.conda.as_ref().map(CondaEntry::names).as_deref())?;
        recover(&self.environment, &self.manifests, &mut self.found)
    }

    /// Installs it; with `force`, from nothing.
    ///
    /// # Errors
    /// At the step that failed. What was installed before is there again; of a first installation, what was done stays
    /// and is used next time.
    pub(crate) async fn install(
        &self,
        tools: &Tools,
        force: bool,
        offline: bool,
        reporter: &Reporter<'_>,
        check_unused: impl Fn(&str) -> Result<(), EnvironmentError>,
        claim: impl FnOnce(&str) -> Result<(), EnvironmentError>,
    ) -> Result<Done, EnvironmentError> {
        self.check_place()?;
        let of_conda = self.look_at_conda(force).await?;
        let before = own_stamp(&self.environment);
        // Nothing was changed until here. Dropped before the new one has its stamp, it takes its place again.
        let former = Former::keep(&self.environment, &self.manifests)?;
        self.take_from_calls(before.as_ref(), check_unused)?;
        (reporter.step)(Step::Environment);
        let made = self.environment(tools, of_conda, force, before.as_ref(), reporter).await?;
        self.say_whose(made.was_there)?;
        let Made { places: _places, interpreter, estimate, former: former_of_conda, taken_over, .. } = made;
        let version = interpreter.version.to_string();
        let lock = self.packages(&tools.uv, &version, offline, reporter).await?;
        (reporter.step)(Step::Introspecting);
        let found = introspection::introspect(
            &self.environment,
            self.sdk,
            self.entry,
            &self.requirements,
            reporter.line,
        )
        .await?;
        let of_found = self.found_in_words();
        let mut warnings: Vec<String> =
            taken_over.into_iter().chain(of_found).chain(found.warnings.clone()).collect();
        // Before anything of it takes the place of what another entry gives.
        check_own_environment(self.entry, Some(&found.code.name), self.list, &self.manifests)?;
        claim(&found.code.name)?;
        self.tell_made(before.is_none(), &found.code.name, former_of_conda)?;
        (reporter.step)(Step::Writing);
        let (capability, new_version) = (found.code.name.clone(), found.code.version.clone());
        let adapters = found.adapters.into_iter().map(|found| adapters::named(found, &self.entry.env_name));
        let adapters = adapters.collect::<Result<Vec<_>, _>>()?;
        if let Some(former) = &former {
            former.keep_manifests(&names_touched(&adapters, &capability, before.as_ref()))?;
        }
        let adapters = adapters::write(adapters, &self.manifests, former.as_ref(), &mut warnings)?;
        warnings.extend(self.replaced(&capability)?);
        let earlier = before.and_then(|before| self.earlier(&before, &capability));
        let (manifest, values) =
            self.write_manifest(former.as_ref(), found.code, &lock, &version, &tools.uv, earlier.as_ref())?;
        let (renamed_from, displaced) = self.remove_earlier(earlier, &mut warnings);
        let adapter_files = adapters.iter().map(|name| self.manifests.join(name)).collect();
        self.say_whole(&interpreter, &lock, &capability, adapters)?;
        // The manifest says it from now on.
        self.note().remove();
        former.into_iter().for_each(Former::let_go);
        Ok(Done {
            outcome: Outcome::Installed,
            version: Some(new_version),
            python_version: version,
            lock_hash: lock.hash,
            capability,
            manifest,
            adapters: adapter_files,
            values,
            warnings,
            renamed_from,
            displaced,
            estimate,
        })
    }

    /// Refuses where nothing may be changed at all.
    fn check_place(&self) -> Result<(), EnvironmentError> {
        check_nothing_mounted(&self.environment)?;
        // Of what conda made no copy is kept while packages are added, by which it would be as it was once the tool's name is known.
        if self.conda.is_some() {
            check_own_environment(self.entry, None, self.list, &self.manifests)?;
        }
        Ok(())
    }

    /// From here on no call begins with what is there.
    fn take_from_calls(
        &self,
        before: Option<&Stamp>,
        check_unused: impl Fn(&str) -> Result<(), EnvironmentError>,
    ) -> Result<(), EnvironmentError> {
        if let (Some(conda), Some(stamp)) = (&self.conda, before) {
            // The stamp of an older version does not say whose it is, which must still be known when the stamp is gone.
            renew_place(stamp, &self.environment, conda.data_dir);
        }
        Stamp::remove(&self.environment)?;
        let Some(stamp) = before else { return Ok(()) };
        // A call that began before the stamp was gone is seen now; one that begins later sees that it is gone.
        check_unused(&stamp.capability).or_else(|in_use| {
            stamp.write(&self.environment)?;
            Err(in_use)
        })
    }

    /// Says in an environment of conda's whose it is, before its packages change.
    fn say_whose(&self, was_there: bool) -> Result<(), EnvironmentError> {
        let Some(conda) = &self.conda else { return Ok(()) };
        let home = home(&self.environment);
        let is_found = was_there && origin_of(&self.environment, &home) == Origin::Unsaid;
        if !was_there {
            note_made(&home);
        }
        Stamp::begin(&home, &self.entry.name, conda.data_dir, is_found)
    }

    /// That its environment was there before anything of ours, for people.
    fn found_in_words(&self) -> Option<String> {
        let (conda, home) = (self.conda.as_ref()?, home(&self.environment));
        is_found(&home, conda.data_dir).then(|| conda.found_in_words(&home))
    }

    /// Says that it is whole, of what, and whose.
    fn say_whole(
        &self,
        interpreter: &Interpreter,
        lock: &Lock,
        capability: &str,
        adapters: Vec<String>,
    ) -> Result<(), EnvironmentError> {
        let (request, hash) = (self.request.clone(), lock.hash.clone());
        let mut stamp = Stamp::new(request, interpreter, hash, capability.to_owned(), adapters);
        stamp.belongs_to(self.conda.as_ref().map(|conda| conda.data_dir));
        let home = home(&self.environment);
        stamp.is_found = Origin::said_in(&home) == Origin::Found;
        stamp.write(&self.environment)?;
        // The stamp says it from now on.
        let _ = forget_made(&home);
        Ok(())
    }

    /// Says that it is made for the first time.
    pub(crate) fn begin(&self) -> Result<(), EnvironmentError> {
        self.note().begin(&self.manifests, self.conda.is_some())
    }

    /// What says that it is made for the first time.
    pub(crate) fn note(&self) -> FirstNote<'_> {
        FirstNote { list: self.list, entry: &self.entry.name, environment: &self.environment }
    }

    /// Of the environment itself, where a link leads to one of conda's.
    fn python(&self) -> PathBuf {
        home(&self.environment).join("bin/python")
    }

    /// What conda has of it, before anything is changed: none of an entry that needs no conda.
    async fn look_at_conda(&self, force: bool) -> Result<Option<Looked>, EnvironmentError> {
        let Some(conda) = &self.conda else { return Ok(None) };
        conda.look(force, |version| check_age(self.entry, version)).await.map(Some)
    }

    /// Sees that the environment is there, whoever makes it: conda, where it was looked at.
    async fn environment(
        &self,
        tools: &Tools,
        of_conda: Option<Looked>,
        force: bool,
        before: Option<&Stamp>,
        reporter: &Reporter<'_>,
    ) -> Result<Made, EnvironmentError> {
        if let Some(looked) = of_conda {
            let _turn = tools.conda_turn.lock().await;
            let check = |version| check_age(self.entry, version);
            let note = |of_conda| self.note().tell_conda(of_conda);
            let made = looked.ensure(&self.environment, before, check, note, reporter.line).await;
            // Also of one that conda does not know: nothing of it was changed.
            if let (Err(_), Some(stamp)) = (&made, before.filter(|_| self.environment.is_dir())) {
                stamp.write(&self.environment)?;
            }
            return made;
        }
        if force || self.environment.is_symlink() {
            clear_place(&self.environment)?;
        }
        let interpreter = interpreter(self.entry, &tools.interpreters)?;
        check_age(self.entry, interpreter.version)?;
        self.ensure_environment(&tools.uv, interpreter, reporter).await?;
        Ok(Made::kept(interpreter.clone(), Vec::new()))
    }

    /// Its tool loads: what is written from now on speaks of it, and what conda had made before is not needed any more.
    fn tell_made(
        &self,
        is_first: bool,
        capability: &str,
        former: Option<SetAside>,
    ) -> Result<(), EnvironmentError> {
        if is_first {
            self.note().tell_capability(capability)?;
        }
        former.map_or(Ok(()), SetAside::let_go)
    }

    /// Sees that the packages are in it. What conda put there stays, so that only what is ours can be resolved first.
    async fn packages(
        &self,
        uv: &Uv,
        version: &str,
        offline: bool,
        reporter: &Reporter<'_>,
    ) -> Result<Lock, EnvironmentError> {
        let (environment, requirements) = (&self.environment, &self.requirements);
        if self.conda.is_some() {
            (reporter.step)(Step::Installing);
            lock::add(uv, environment, requirements, offline, reporter.line).await?;
            return lock::take_down(uv, environment, requirements, version).await;
        }
        (reporter.step)(Step::Resolving);
        let lock = lock::ensure(uv, environment, requirements, version, offline, reporter.line).await?;
        (reporter.step)(Step::Installing);
        lock::sync(uv, environment, &lock, requirements, offline, reporter.line).await?;
        Ok(lock)
    }

    /// Keeps an environment that answers with the wanted interpreter; makes it anew otherwise.
    async fn ensure_environment(
        &self,
        uv: &Uv,
        interpreter: &Interpreter,
        reporter: &Reporter<'_>,
    ) -> Result<(), EnvironmentError> {
        if self.environment.join("pyvenv.cfg").is_file()
            && let Some(there) = probe(&self.python(), false).await
            && there.version == interpreter.version
            && same_file(&there.path, &interpreter.path)
        {
            return Ok(());
        }
        clear_place(&self.environment)?;
        if let Some(parent) = self.environment.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|source| EnvironmentError::writing("create", parent.to_owned(), source))?;
        }
        let mut command = uv.command(&["venv", "--no-project", "--quiet"], true);
        command.arg(format!("--prompt={}", self.entry.env_name));
        command.arg("--python").arg(&interpreter.path).arg(&self.environment);
        uv.run(command, "making the environment", reporter.line).await.map(|_| ())
    }

    fn write_manifest(
        &self,
        former: Option<&Former>,
        code: Code,
        lock: &Lock,
        python_version: &str,
        uv: &Uv,
        earlier: Option<&Earlier>,
    ) -> Result<(PathBuf, Vec<String>), EnvironmentError> {
        let unknown = [
            ("lock_hash", lock.hash.clone()),
            (LIST_KEY, self.list.display().to_string()),
            ("lock_path", lock.path.display().to_string()),
            ("python_version", python_version.to_owned()),
            ("resolver", uv.version.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), Value::from(value)));
        let package_source = match self.requirements.folders().next() {
            Some(folder)
                if !matches!(self.requirements.packages.first(), Some(crate::package::Package::Named(_))) =>
            {
                folder.path.display().to_string()
            }
            _ => self.entry.package.clone(),
        };
        let now = Timestamp::now();
        let mut manifest = Manifest {
            format_version: FORMAT_VERSION.to_owned(),
            install: Install {
                python_path: self.python().display().to_string(),
                conda_env: self.entry.env_name.clone(),
                installed_at: Some(now.clone()),
                installer_version: INSTALLER_VERSION.to_owned(),
                package_source,
                unknown: unknown.into_iter().collect(),
                ..Install::default()
            },
            code,
            drift_tracking: DriftTracking::default(),
            overrides: Map::new(),
            unknown: Map::new(),
        };
        manifest.code.regenerated_at = Some(now);
        if !self.entry.worker.is_default() {
            manifest.code.runtime = Some(Runtime::Python { worker: self.entry.worker });
        }
        let path = self.manifests.join(manifest.file_name());
        let there = read_existing(&path);
        let existing = self.goes_along(there.as_ref(), earlier);
        let mut values = settle_code(&mut manifest, existing, &path).lines();
        if let Some(existing) = existing {
            keep_from(&mut manifest, existing);
            keep_promises(&mut manifest.code, &existing.code);
            let list_before = list_of(existing);
            let list = as_written_before(list_before.as_deref(), self.list).display().to_string();
            manifest.install.unknown.insert(LIST_KEY.to_owned(), list.into());
        }
        manifest.seal();
        let text = manifest.to_file_text();
        // The name became a file's name and the rest is foreign too: what we write must be what we would read.
        Manifest::parse(&text).map_err(|error| EnvironmentError::Introspection {
            message: error.to_string(),
            next_step: WORDS_STEP.into(),
            stderr_tail: Vec::new(),
        })?;
        values.extend(link_in_words(&path));
        Former::write(former, &path, text.as_bytes())?;
        Ok((path, values))
    }

    /// What is replaced that came from no installation, which is kept, or from another list.
    fn replaced(&self, capability: &str) -> Result<Option<String>, EnvironmentError> {
        let path = self.manifests.join(format!("{capability}.json"));
        let kept = keep_what_is_not_ours(&path)?;
        let list = read_existing(&path).and_then(|existing| list_of(&existing));
        Ok(kept.or_else(|| replaced_in_words(capability, list.as_deref(), self.list)))
    }

    /// What the user set in a tool goes along with its new name, unless it has been here under that one.
    fn goes_along<'m>(
        &self,
        there: Option<&'m Manifest>,
        earlier: Option<&'m Earlier>,
    ) -> Option<&'m Manifest> {
        let renamed = earlier.filter(|earlier| earlier.is_same_tool).map(|earlier| &earlier.manifest);
        there.filter(|there| self.is_here(there)).or(renamed).or(there)
    }

    fn is_here(&self, manifest: &Manifest) -> bool {
        Path::new(&manifest.install.python_path) == self.python()
    }

    /// The tool that the environment held until now, where it has another name than what it holds `now`.
    fn earlier(&self, before: &Stamp, now: &str) -> Option<Earlier> {
        let held = Some(&before.capability).filter(|held| *held != now)?;
        let manifest = read_existing(&self.manifests.join(format!("{held}.json")))?;
        let is_same_tool = is_of_package(&manifest, self.entry, self.list);
        self.is_here(&manifest).then_some(Earlier { manifest, is_same_tool })
    }

    /// Its manifest would lead into an environment that no longer holds it. Its name, where that is gone now: of the same
    /// tool, or of another one.
    fn remove_earlier(
        &self,
        earlier: Option<Earlier>,
        warnings: &mut Vec<String>,
    ) -> (Option<String>, Option<String>) {
        let Some(Earlier { manifest, is_same_tool }) = earlier else { return (None, None) };
        let gone = remove_old(&self.manifests, &manifest, warnings);
        if is_same_tool { (gone, None) } else { (None, gone) }
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
