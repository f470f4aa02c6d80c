//! `install-all`: brings everything `capabilities.yaml` names onto this machine, side by side, and leaves alone what
//! is there already. An entry that fails harms no other. One installation at a time works on a data directory.

use crate::asked_python::wanted;
use crate::constraint::Wanted;
use crate::elsewhere::installed_in;
use crate::ended::{MADE_ANEW, PUT_BACK, blank, failed, tell_what_was_installed};
use crate::error::EnvironmentError;
use crate::files::{Claim, hash_folder, lock, own_home, remove_begun_writes};
use crate::interpreters;
use crate::manifests::{read_existing, remember_installed};
use crate::owners::{homes, owners};
use crate::python_entry::{Common, Done, PythonEntry, Reporter, Tools};
use crate::report::{AskInUse, EntryReport, InstallEvent, InstallOptions, InstallReport};
use crate::tool_entry::{self, Asked, Copied};
use crate::uv::Uv;
use cjm_catalog::installation::{is_gone, list_of};
use cjm_catalog::installer::{INSTALL_ALL, word_of};
use cjm_catalog::plain_path::{is_same_file, plain_path};
use cjm_wire::ErrorReport;
use cjm_wire::capabilities_file::{CapabilitiesFile, Entry};
use futures_util::{StreamExt, stream};
use std::collections::{BTreeMap, HashMap, hash_map};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Environments made side by side: enough to hide waiting for the network, few enough for two cores.
pub const ENTRIES_AT_ONCE: usize = 3;
/// The code of an entry that gives the name of what another one of the list has installed.
const CAPABILITY_TWICE: &str = "install.capability_twice";

/// Installs every entry of the list; `tell` hears what happens, from this task. Dropping the future stops the
/// helpers that run; the next call goes on from there.
///
/// # Errors
/// Only what concerns all entries: the list, or the data directory.
pub async fn install_all(
    options: &InstallOptions,
    file: &CapabilitiesFile,
    tell: &(dyn Fn(InstallEvent) + Send + Sync),
) -> Result<InstallReport, EnvironmentError> {
    let started = Instant::now();
    let data_dir = absolute(&options.data_dir);
    // For its user alone, as the host makes it.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&data_dir)
        .map_err(|source| EnvironmentError::writing("create", data_dir.clone(), source))?;
    let wanted = file.capabilities.iter().filter(|entry| entry.manifest.is_none() && entry.fault.is_none());
    let wanted: Vec<String> = wanted.map(word).collect();
    let claim = lock(&data_dir, INSTALL_ALL, wanted.iter().map(String::as_str))?;
    let list = plain_path(&options.capabilities_file);
    let common = Common {
        list: list.clone(),
        base: list.parent().unwrap_or(Path::new("/")).to_owned(),
        sdk_hash: hash_folder(&options.python_sdk)?,
        sdk: absolute(&options.python_sdk),
        substrate_source: options.substrate_source.clone(),
        conda: options.conda.clone(),
        data_dir,
    };
    let manifests = common.data_dir.join("manifests");
    remove_begun_writes(&manifests);
    let owners = owners(&file.capabilities, &common.list, &manifests);
    let homes = homes(&file.capabilities, &common.list, &manifests);
    let installation = Installation {
        common,
        claim: &claim,
        to_change: Mutex::default(),
        claims: Mutex::default(),
        owners,
        homes,
        force: options.force,
        offline: options.offline,
        in_use: options.in_use.clone(),
        tell,
    };
    let entries = claim.during(installation.install(&file.capabilities)).await;
    Ok(InstallReport { entries, seconds: started.elapsed().as_secs_f64() })
}

struct Installation<'a> {
    common: Common,
    force: bool,
    offline: bool,
    in_use: Option<AskInUse>,
    claim: &'a Claim,
    /// The environments that are not what they are to be yet, as the lock names them.
    to_change: Mutex<Vec<String>>,
    /// Capability → entry that gives it.
    claims: Mutex<HashMap<String, String>>,
    /// Capability → entry that gave it before.
    owners: HashMap<String, String>,
    /// Environment → place in the list of the entry whose it is.
    homes: HashMap<String, usize>,
    tell: &'a (dyn Fn(InstallEvent) + Send + Sync),
}

/// An entry after the quick look that needs neither network nor processes.
enum FirstLook<'a> {
    Settled(Box<EntryReport>),
    ToInstall(Box<PythonEntry<'a>>),
}

impl FirstLook<'_> {
    fn to_change(&self) -> Option<String> {
        match self {
            Self::ToInstall(entry) => Some(word(entry.entry)),
            Self::Settled(_) => None,
        }
    }

    fn wanted(&self) -> Option<Wanted> {
        match self {
            Self::ToInstall(entry) => wanted(entry.entry).ok(),
            Self::Settled(_) => None,
        }
    }
}

/// Whether a name of a tool is free that was not before.
fn gives_up_a_name(report: &EntryReport) -> bool {
    report.renamed_from.is_some() || report.displaced.is_some()
}

/// Whether an entry failed because another one has the name of its tool.
fn is_name_taken(report: &EntryReport) -> bool {
    report.error.as_ref().is_some_and(|error| error.code == CAPABILITY_TWICE)
}

impl Installation<'_> {
    async fn install(&self, entries: &[Entry]) -> Vec<EntryReport> {
        let look = |index| (index, self.look(entries, index, &entries[index]));
        let mut looked: Vec<_> = (0..entries.len()).map(look).collect();
        let mut tools = None;
        let mut reports = BTreeMap::new();
        // An entry may give the name that another tool has had until now, which of a Python tool is known only once it is made:
        // it is looked at again once that one has its new name, however the list is ordered.
        loop {
            let to_change = looked.iter().filter_map(|(_, look)| look.to_change()).collect();
            self.tell_to_change(|environments| *environments = to_change);
            if tools.is_none() {
                tools = self.prepare_for(&looked).await;
            }
            let installed = self.install_looked_at(looked, tools.as_ref()).await;
            let has_given_up_a_name = installed.values().any(gives_up_a_name);
            reports.extend(installed);
            let waiting = reports.iter().filter(|(_, report)| is_name_taken(report)).map(|(index, _)| *index);
            looked = match has_given_up_a_name {
                true => waiting.map(look).collect(),
                false => Vec::new(),
            };
            if looked.is_empty() {
                break;
            }
        }
        for (index, report) in reports.iter().filter(|(_, report)| is_name_taken(report)) {
            self.tell_finished(*index, report);
        }
        reports.into_values().collect()
    }

    /// What makes the environments, where one is to be made.
    async fn prepare_for(&self, looked: &[(usize, FirstLook<'_>)]) -> Option<Result<Tools, ErrorReport>> {
        let is_to_install = |(_, look): &(usize, FirstLook<'_>)| matches!(look, FirstLook::ToInstall(_));
        if !looked.iter().any(is_to_install) {
            return None;
        }
        let wanted: Vec<Wanted> = looked.iter().filter_map(|(_, look)| look.wanted()).collect();
        Some(self.prepare(&wanted).await.map_err(|error| ErrorReport::of(&error)))
    }

    /// Installs what is to be installed, a few at a time. The end of one whose name another one has is not told: that one
    /// may come to give it up.
    async fn install_looked_at(
        &self,
        looked: Vec<(usize, FirstLook<'_>)>,
        tools: Option<&Result<Tools, ErrorReport>>,
    ) -> BTreeMap<usize, EntryReport> {
        let installed = stream::iter(looked).map(|(index, looked)| async move {
            let report = match looked {
                FirstLook::Settled(report) => *report,
                FirstLook::ToInstall(entry) => {
                    let report = self.install_python(index, &entry, tools).await;
                    self.tell_to_change(|all| all.retain(|one| *one != word(entry.entry)));
                    report
                }
            };
            if !is_name_taken(&report) {
                self.tell_finished(index, &report);
            }
            (index, report)
        });
        installed.buffer_unordered(ENTRIES_AT_ONCE).collect().await
    }

    fn tell_finished(&self, entry: usize, report: &EntryReport) {
        (self.tell)(InstallEvent::Finished { entry, report: Box::new(report.clone()) });
    }

    /// Changes which environments are still to be changed, for whoever asks.
    fn tell_to_change(&self, change: impl FnOnce(&mut Vec<String>)) {
        let mut all = self.to_change.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut all);
        self.claim.works_on(all.iter().map(String::as_str));
    }

    /// Ends every entry that needs no interpreter: tools without an environment, unchanged ones, hopeless ones.
    fn look<'e>(&'e self, entries: &[Entry], index: usize, entry: &'e Entry) -> FirstLook<'e> {
        let started = Instant::now();
        let ended = |result: Result<EntryReport, EnvironmentError>| {
            let mut report = result.unwrap_or_else(|error| failed(entry, &ErrorReport::of(&error)));
            report.seconds = started.elapsed().as_secs_f64();
            FirstLook::Settled(Box::new(report))
        };
        if let Some(source) = entry.fault.clone() {
            let error = EnvironmentError::CapabilitiesInvalid { path: self.common.list.clone(), source };
            return ended(Ok(self.faulty(entry, &error)));
        }
        if let Some(manifest) = &entry.manifest {
            return ended(Ok(self.install_tool(entry, manifest)));
        }
        let home = self.homes.get(&entry.env_name).filter(|home| **home != index);
        let shared = home.map(|home| &entries[*home]);
        if let Some(other) = shared {
            // One that names no environment only has its tool there: what is wrong with this one is said first.
            if let (true, Err(error)) = (other.env_name.is_empty(), PythonEntry::read(entry, &self.common)) {
                return ended(Err(error));
            }
            return ended(Err(EnvironmentError::SharedEnvironment {
                env_name: entry.env_name.clone(),
                other: other.name.clone(),
            }));
        }
        let mut python = match PythonEntry::read(entry, &self.common) {
            Ok(python) => python,
            Err(error) => return ended(Ok(self.refused(entry, &error, Vec::new()))),
        };
        if let Err(error) = python.recover() {
            return ended(Ok(self.refused(entry, &error, python.found())));
        }
        if let Some(done) = (!self.force).then(|| python.current()).flatten() {
            let before = done.version.clone();
            return ended(Ok(match self.claim(entry, &done.capability, &mut None) {
                Ok(()) => EntryReport { version_before: before, ..report(&python, done) },
                Err(error) => self.refused(entry, &error, python.found()),
            }));
        }
        let may_begin = match python.held() {
            Some(held) => AskInUse::check(self.in_use.as_ref(), &held),
            None => python.begin(),
        };
        match may_begin {
            Err(error) => ended(Ok(self.refused(entry, &error, python.found()))),
            Ok(()) => FirstLook::ToInstall(Box::new(python)),
        }
    }

    /// A Python entry of which nothing was changed: what it gave before is there as it was.
    fn refused(&self, entry: &Entry, error: &EnvironmentError, found: Vec<String>) -> EntryReport {
        let data_dir = &self.common.data_dir;
        let installed = || installed_in(&own_home(data_dir, &entry.env_name), &data_dir.join("manifests"));
        let mut refused = failed(entry, &ErrorReport::of(error));
        tell_what_was_installed(&mut refused, installed(), installed, MADE_ANEW);
        refused.warnings.extend(found);
        refused
    }

    /// An entry that cannot be read: what this list installed from it is there as it was.
    fn faulty(&self, entry: &Entry, error: &EnvironmentError) -> EntryReport {
        let mut report = failed(entry, &ErrorReport::of(error));
        let given = self.given_by(entry).min();
        if let Some(given) = given.and_then(|name| tool_entry::installed_as(name, &self.common.data_dir)) {
            let before = Some((given.capability, given.version));
            let what_is_needed = if given.env_name.is_some() { MADE_ANEW } else { PUT_BACK };
            tell_what_was_installed(
                &mut report,
                before.clone(),
                || before.filter(|_| given.is_whole),
                what_is_needed,
            );
        }
        report
    }

    fn install_tool(&self, entry: &Entry, manifest: &str) -> EntryReport {
        let manifests = self.common.data_dir.join("manifests");
        let source = plain_path(&self.common.base.join(manifest));
        let mut claimed = None;
        let claim = |capability: &str, renamed: Option<&str>| {
            self.claim(entry, capability, &mut claimed)?;
            renamed.map_or(Ok(()), |old| AskInUse::check(self.in_use.as_ref(), old))
        };
        let given = self.given_by(entry).cloned().collect();
        let asked = Asked { list: &self.common.list, given };
        match tool_entry::install(&source, &manifests, Some(&asked), self.force, claim) {
            Ok(Copied { manifest, outcome, version_before, values, warnings, renamed_from }) => {
                let path = manifests.join(manifest.file_name());
                remember_installed(std::slice::from_ref(&path));
                EntryReport {
                    outcome,
                    manifest: Some(path),
                    capability: Some(manifest.code.name),
                    version: Some(manifest.code.version),
                    version_before,
                    renamed_from,
                    values,
                    warnings: [entry.unread.clone(), warnings].concat(),
                    ..blank(entry)
                }
            }
            Err(error) => {
                self.give_up(claimed);
                let mut report = failed(entry, &ErrorReport::of(&error));
                let installed = tool_entry::installed_from(&source, &manifests);
                let is_whole = installed.as_ref().is_some_and(|installed| installed.is_whole);
                let before = installed.map(|installed| (installed.capability, installed.version));
                tell_what_was_installed(
                    &mut report,
                    before.clone(),
                    || before.filter(|_| is_whole),
                    PUT_BACK,
                );
                report
            }
        }
    }

    async fn install_python(
        &self,
        index: usize,
        entry: &PythonEntry<'_>,
        tools: Option<&Result<Tools, ErrorReport>>,
    ) -> EntryReport {
        let started = Instant::now();
        let step = |step| (self.tell)(InstallEvent::Step { entry: index, step });
        let line = |text: &str| (self.tell)(InstallEvent::Line { entry: index, text: text.to_owned() });
        let before = entry.installed();
        let mut ended = match tools {
            Some(Ok(tools)) => {
                let reporter = Reporter { step: &step, line: &line };
                let mut claimed = None;
                let claim = |capability: &str| self.claim(entry.entry, capability, &mut claimed);
                let check_unused = |capability: &str| AskInUse::check(self.in_use.as_ref(), capability);
                match entry.install(tools, self.force, self.offline, &reporter, check_unused, claim).await {
                    Ok(done) => report(entry, done),
                    Err(error) => {
                        self.give_up(claimed);
                        entry.note().forget();
                        failed(entry.entry, &ErrorReport::of(&error))
                    }
                }
            }
            Some(Err(error)) => {
                entry.note().forget();
                failed(entry.entry, error)
            }
            None => blank(entry.entry),
        };
        tell_what_was_installed(&mut ended, before, || entry.installed(), MADE_ANEW);
        ended.warnings.extend(entry.rests());
        ended.seconds = started.elapsed().as_secs_f64();
        ended
    }

    async fn prepare(&self, wanted: &[Wanted]) -> Result<Tools, EnvironmentError> {
        (self.tell)(InstallEvent::Preparing("looking for Python and uv".to_owned()));
        let (mut interpreters, uv) =
            tokio::join!(interpreters::discover_for(wanted), Uv::find(&self.common.data_dir));
        let uv = match uv {
            Some(uv) => uv,
            None if self.offline => {
                return Err(EnvironmentError::NoUv {
                    reason: "installing it needs the network".to_owned(),
                    next_step: "run install-all once without --offline, or install uv yourself".to_owned(),
                    stderr_tail: Vec::new(),
                });
            }
            None => {
                (self.tell)(InstallEvent::Preparing("installing uv".to_owned()));
                // The plain one may lack venv and pip where another has them.
                interpreters = interpreters::discover().await;
                Uv::bootstrap(&self.common.data_dir, &interpreters, &|_| {}).await?
            }
        };
        Ok(Tools {
            uv: uv.with_usable_cache(&self.common.data_dir),
            interpreters,
            conda_turn: tokio::sync::Mutex::default(),
        })
    }

    /// The first entry that gives a capability has it, but what is installed stays with its entry: that may have failed,
    /// and its tool, whose secrets are of that name, is still there.
    fn claim(
        &self,
        entry: &Entry,
        capability: &str,
        claimed: &mut Option<String>,
    ) -> Result<(), EnvironmentError> {
        let mut claims = self.claims();
        let gives_another = |owner: &String| claims.values().any(|by| by == owner);
        let owner =
            self.owners.get(capability).filter(|owner| **owner != entry.name && !gives_another(owner));
        if let Some(owner) = owner {
            return Err(EnvironmentError::CapabilityOfAnotherEntry {
                capability: capability.to_owned(),
                other: owner.clone(),
            });
        }
        if let Some(taken) = self.of_another_list(entry, capability) {
            return Err(taken);
        }
        match claims.entry(capability.to_owned()) {
            hash_map::Entry::Vacant(place) => {
                place.insert(entry.name.clone());
                *claimed = Some(capability.to_owned());
                Ok(())
            }
            hash_map::Entry::Occupied(place) => Err(EnvironmentError::CapabilityTwice {
                capability: capability.to_owned(),
                other: place.get().clone(),
            }),
        }
    }

    /// The tools that were installed from this entry.
    fn given_by(&self, entry: &Entry) -> impl Iterator<Item = &String> {
        self.owners.iter().filter(|(_, owner)| **owner == entry.name).map(|(name, _)| name)
    }

    /// Whether an entry whose tool has another name now would take the tool of a list that is there still. A list may take
    /// over what another one installed; a change of name is no word of that.
    fn of_another_list(&self, entry: &Entry, capability: &str) -> Option<EnvironmentError> {
        let mut given = self.given_by(entry);
        let before =
            given.find(|name| *name != capability).filter(|_| !self.owners.contains_key(capability))?;
        let manifests = self.common.data_dir.join("manifests");
        let installed = read_existing(&manifests.join(format!("{capability}.json")))?;
        let list =
            list_of(&installed).filter(|list| !is_gone(list) && !is_same_file(list, &self.common.list))?;
        let (capability, before) = (capability.to_owned(), before.clone());
        Some(EnvironmentError::CapabilityOfAnotherList { capability, list, before })
    }

    /// The entry that had claimed it has failed: another one may give it.
    fn give_up(&self, claimed: Option<String>) {
        if let Some(capability) = claimed {
            self.claims().remove(&capability);
        }
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the lock names the environment of an entry.
fn word(entry: &Entry) -> String {
    word_of(&entry.env_name, &entry.name)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn report(entry: &PythonEntry<'_>, done: Done) -> EntryReport {
    let manifests: Vec<_> = done.adapters.iter().chain([&done.manifest]).cloned().collect();
    remember_installed(&manifests);
    EntryReport {
        outcome: done.outcome,
        capability: Some(done.capability),
        version: done.version,
        manifest: Some(done.manifest),
        environment: Some(entry.environment.clone()),
        python_version: Some(done.python_version),
        lock_hash: Some(done.lock_hash),
        to_fetch: done.estimate,
        renamed_from: done.renamed_from,
        displaced: done.displaced,
        values: done.values,
        warnings: [entry.entry.unread.clone(), done.warnings].concat(),
        ..blank(entry.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_whole;

    /// The first of them is refused as well, for its package is missing, so that nothing is installed here.
    #[tokio::test]
    async fn a_second_entry_of_one_environment_is_refused_and_harms_not_the_first() {
        let folder = tempfile::tempdir().expect("tempdir");
        let sdk = folder.path().join("sdk");
        std::fs::create_dir(&sdk).expect("a folder");
        let list = "capabilities:\n\
                    - {name: faulty, env_name: one, package: ./missing}\n\
                    - {name: tool, env_name: one, manifest: missing.json}\n\
                    - {name: first, env_name: one, package: ./missing, python_version: '3.12'}\n\
                    - {name: second, env_name: one, package: ./missing, python_version: '3.12'}\n";
        let options = InstallOptions {
            data_dir: folder.path().join("data"),
            capabilities_file: folder.path().join("capabilities.yaml"),
            python_sdk: sdk,
            substrate_source: None,
            conda: crate::conda::CondaOptions::default(),
            force: false,
            offline: true,
            in_use: None,
        };
        let install = async |list: &str| {
            let file = CapabilitiesFile::parse_each(list).expect("a list");
            install_all(&options, &file, &|_| {}).await.expect("it looks at each")
        };
        let report = install(list).await;
        let mut errors = report.entries.iter().filter_map(|entry| entry.error.as_ref());
        let codes: Vec<&str> = errors.clone().map(|error| error.code.as_str()).collect();
        assert_eq!(
            codes,
            ["install.capabilities_invalid", "install.file", "install.file", "install.shared_environment"]
        );
        assert!(errors.next_back().is_some_and(|error| error.message.contains("\"first\"")), "{report:?}");

        // An entry without a name has what was installed there, and no environment of its own.
        let greeter = folder.path().join("greeter");
        write_whole(&greeter.join("pyproject.toml"), b"[project]\nname = 'greeter'\nversion = '1'\n")
            .expect("written");
        let installed = serde_json::json!({"format_version": "2.0", "code": {"name": "greeter", "version": "1",
            "module": "greeter", "class": "C"}, "install": {"conda_env": "two", "python_path": "/none",
            "package_source": greeter, "capabilities_file": options.capabilities_file}});
        let manifest = options.data_dir.join("manifests/greeter.json");
        write_whole(&manifest, installed.to_string().as_bytes()).expect("written");
        let named = "- {name: greeter, env_name: two, package: PACKAGE, python_version: '3.12'}\n- {package: ./greeter}\n";
        let told = [("greeter", "install.folder_as_name"), ("lab==1", "install.shared_environment")];
        for (package, code) in told {
            let report = install(&format!("capabilities:\n{}", named.replace("PACKAGE", package))).await;
            let error = report.entries[0].error.as_ref().expect("an error");
            assert_eq!(error.code, code, "{error:?}");
        }
        // Of an installation that was killed; no process has such a number.
        let begun = manifest.with_file_name("greeter.json.new-4294967295");
        write_whole(&begun, b"half").expect("written");
        let source = folder.path().join("gone.json");
        let gone = serde_json::json!({"format_version": "2.0", "install": {"package_source": source},
            "code": {"name": "gone", "version": "1", "runtime": {"kind": "native", "program": "/none"}}});
        write_whole(&manifest.with_file_name("gone.json"), gone.to_string().as_bytes()).expect("written");
        let told =
            install("capabilities: [{name: gone, manifest: gone.json}]").await.entries.remove(0).warnings;
        assert!(told[0].ends_with("until its program is there again"), "{told:?}");
        assert!(!begun.exists() && manifest.exists(), "what was begun goes, and nothing else");
    }
}
