//! Entries with `manifest:`: tools that need no environment (executables, Rust capabilities). Their manifest is
//! checked, their program found, and the manifest copied with the program's absolute path written in.

use crate::error::EnvironmentError;
use crate::files::{own_home, write_whole};
use crate::manifests::{keep_installation, keep_what_is_not_ours, link_in_words, read_existing};
use crate::report::{INSTALLER_VERSION, Outcome};
use crate::stamp::Stamp;
use crate::user_values::settle;
use crate::whole_code::settle_whole_code;
use cjm_catalog::installation::{LIST_KEY, env_name_of, list_of, replaced_in_words};
use cjm_catalog::plain_path::{as_written_before, is_same_file};
use cjm_catalog::programs::Lost;
use cjm_catalog::{MANIFEST_BYTES_MAX, programs};
use cjm_platform::files::read_regular_to_string;
use cjm_wire::describe::shell_word;
use cjm_wire::runtime::Runtime;
use cjm_wire::{Manifest, Timestamp};
use std::path::{Path, PathBuf};

/// Reads the manifest at `source`.
///
/// # Errors
/// When it is not a manifest.
pub(crate) fn read(source: &Path) -> Result<Manifest, EnvironmentError> {
    let text = read_regular_to_string(source, MANIFEST_BYTES_MAX as u64).map_err(|error| {
        EnvironmentError::File {
            action: "read the manifest",
            path: source.to_owned(),
            source: std::io::Error::other(error),
        }
    })?;
    Manifest::parse(&text)
        .map_err(|error| EnvironmentError::Manifest { path: source.to_owned(), source: error })
}

/// A manifest that was installed from its source.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) manifest: Manifest,
    pub(crate) outcome: Outcome,
    /// The version that was installed before.
    pub(crate) version_before: Option<String>,
    /// What became of values that source and installed manifest had differently.
    pub(crate) values: Vec<String>,
    /// What is odd, and no error.
    pub(crate) warnings: Vec<String>,
    /// The name that it had before, whose manifest is gone.
    pub(crate) renamed_from: Option<String>,
}

/// Who asks for a tool.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) list: &'a Path,
    /// The tools that were installed from its entry until now.
    pub(crate) given: Vec<String>,
}

/// A tool that is installed, as far as its manifest and program go.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) capability: String,
    pub(crate) version: String,
    /// Its environment, where it lives in one.
    pub(crate) env_name: Option<String>,
    /// Whether its program is there.
    pub(crate) is_whole: bool,
}

/// What is installed already of the manifest at `source`, which may be broken now: what came from this file.
pub(crate) fn installed_from(source: &Path, manifests: &Path) -> Option<Installed> {
    let files = std::fs::read_dir(manifests).ok()?.flatten();
    let mut all = files.filter_map(|file| read_existing(&file.path()));
    let mut found = all.find(|manifest| is_same_file(Path::new(&manifest.install.package_source), source))?;
    let is_whole = resolve_program(&mut found, Path::new("/")).is_ok();
    let env_name = env_name_of(&found);
    Some(Installed { capability: found.code.name, version: found.code.version, env_name, is_whole })
}

/// What is installed under this name: of a tool that lives in an environment, it is whole where that is.
pub(crate) fn installed_as(name: &str, data_dir: &Path) -> Option<Installed> {
    let mut found = read_existing(&file_of(&data_dir.join("manifests"), name))?;
    let env_name = env_name_of(&found);
    let is_whole = match &env_name {
        Some(env_name) => Stamp::read(&own_home(data_dir, env_name)).is_some(),
        None => resolve_program(&mut found, Path::new("/")).is_ok(),
    };
    Some(Installed { capability: found.code.name, version: found.code.version, env_name, is_whole })
}

/// Installs the manifest at `source` into `manifests`, in the place of the name that it had before. `claim` hears its name
/// and that one. It is asked for by a list; without one, that of the installed manifest stays.
///
/// # Errors
/// When it is not a manifest, its program is not on this machine, or its name is refused; nothing was written then.
pub(crate) fn install(
    source: &Path,
    manifests: &Path,
    asked: Option<&Asked<'_>>,
    force: bool,
    claim: impl FnOnce(&str, Option<&str>) -> Result<(), EnvironmentError>,
) -> Result<Copied, EnvironmentError> {
    let mut manifest = read(source)?;
    let target = manifests.join(manifest.file_name());
    let there = read_existing(&target);
    let given = asked.map(|asked| asked.given.as_slice()).unwrap_or_default();
    let Names { renamed, mut warnings } =
        names_before(source, manifests, &manifest.code.name, there.as_ref(), given);
    // What the user set in a tool goes along with it.
    let existing = renamed.as_ref().or(there.as_ref());
    let source_before = existing.map(|existing| Path::new(&existing.install.package_source));
    // The program's path begins with it as well.
    let source = as_written_before(source_before, source);
    resolve_program(&mut manifest, source)?;
    warnings.extend(programs::arguments_beside(&manifest.runtime(), source));
    claim(&manifest.code.name, renamed.as_ref().map(|renamed| renamed.code.name.as_str()))?;
    let version_before = existing.map(|existing| existing.code.version.clone());
    manifest.install.package_source = source.display().to_string();
    manifest.install.installer_version = INSTALLER_VERSION.to_owned();
    manifest.install.installed_at = Some(Timestamp::now());
    let list = asked.map(|asked| asked.list);
    let list_before = existing.and_then(list_of);
    name_list(&mut manifest, list_before.as_deref().or(list));
    let mut settled = settle(&mut manifest, existing, &target);
    // What it fills in is nobody's change.
    manifest.complete_for_the_ancestor();
    settled.join(settle_whole_code(&mut manifest, existing, &target));
    if let Some(existing) = existing {
        keep_installation(&mut manifest, existing);
    }
    if manifest.install.python_path.is_empty()
        && let Ok(worker) = programs::worker_binary(None)
    {
        // Not an interpreter: what the ancestor's host is to start, which serves this tool there too.
        manifest.install.python_path = worker.display().to_string();
    }
    manifest.seal();
    let outcome = match existing {
        // Another list that asks for the very same changes nothing.
        Some(existing) if !force && *existing == manifest => match settled.kept.is_empty() {
            true => Outcome::Unchanged,
            false => Outcome::Kept,
        },
        _ => {
            if let Some(list) = list {
                name_list(&mut manifest, Some(as_written_before(list_before.as_deref(), list)));
                let before = there.as_ref().and_then(list_of);
                warnings.extend(replaced_in_words(&manifest.code.name, before.as_deref(), list));
            }
            // Of one that is installed where it lies nothing is replaced that its writer did not name.
            if !is_same_file(source, &target) {
                warnings.extend(keep_what_is_not_ours(&target)?);
            }
            warnings.extend(link_in_words(&target));
            write_whole(&target, manifest.to_file_text().as_bytes())?;
            Outcome::Installed
        }
    };
    let renamed_from = renamed.and_then(|renamed| remove_old(manifests, &renamed, &mut warnings));
    Ok(Copied { manifest, outcome, version_before, values: settled.lines(), warnings, renamed_from })
}

/// Under which names a tool was installed before.
#[derive(Default)]
struct Names {
    /// Its manifest under the one name that it had.
    renamed: Option<Manifest>,
    warnings: Vec<String>,
}

/// What was installed from `source` under another name than `name`, of the tools that its entry gave.
fn names_before(
    source: &Path,
    manifests: &Path,
    name: &str,
    there: Option<&Manifest>,
    given: &[String],
) -> Names {
    let came_from = |manifest: &Manifest| is_same_file(Path::new(&manifest.install.package_source), source);
    // What lies beside it from the same file was copied by hand, and told when the name changed; or an installation was killed
    // between the two names. Nobody can tell them apart, and what may be the user's stays.
    if there.is_some_and(came_from) {
        return Names::default();
    }
    let others = given.iter().filter(|given| *given != name);
    let mut others: Vec<Manifest> =
        others.filter_map(|other| read_existing(&file_of(manifests, other))).filter(came_from).collect();
    if others.len() < 2 {
        return Names { renamed: others.pop(), warnings: Vec::new() };
    }
    // Which of them the user made nobody knows.
    let stays = |other: Manifest| {
        let old = other.code.name;
        let word = shell_word(&old);
        format!(
            "{old} came from the same file, and stays beside {name}: `cjm-ctl remove {word}` takes it away"
        )
    };
    Names { renamed: None, warnings: others.into_iter().map(stays).collect() }
}

fn file_of(manifests: &Path, capability: &str) -> PathBuf {
    manifests.join(format!("{capability}.json"))
}

/// Removes the manifest of the name that a tool had before, and returns that name.
pub(crate) fn remove_old(manifests: &Path, renamed: &Manifest, warnings: &mut Vec<String>) -> Option<String> {
    let old = renamed.code.name.clone();
    let path = file_of(manifests, &old);
    match std::fs::remove_file(&path) {
        Ok(()) => Some(old),
        Err(error) => {
            warnings.push(format!(
                "{old}, as it was called before, can be called still: {} cannot be removed: {error}; `cjm-ctl remove {}` \
                 takes it away",
                path.display(),
                shell_word(&old)
            ));
            None
        }
    }
}

/// Writes down the list that asks for it. A manifest that is installed from an installed one brings that one's along.
fn name_list(manifest: &mut Manifest, list: Option<&Path>) {
    manifest.install.unknown.remove(LIST_KEY);
    if let Some(list) = list {
        manifest.install.unknown.insert(LIST_KEY.to_owned(), list.display().to_string().into());
    }
}

fn resolve_program(manifest: &mut Manifest, source: &Path) -> Result<(), EnvironmentError> {
    let base = source.parent().unwrap_or(Path::new("/"));
    let found = |program: &str| -> Result<String, EnvironmentError> {
        programs::find(program, Some(base)).map(|path: PathBuf| path.display().to_string()).map_err(|lost| {
            match lost {
                Lost::Nowhere(searched) => {
                    EnvironmentError::ProgramMissing { program: program.to_owned(), searched }
                }
                Lost::NotExecutable(path) => EnvironmentError::NotExecutable { path },
            }
        })
    };
    match &mut manifest.code.runtime {
        None | Some(Runtime::Python { .. }) => {
            let python = found(&manifest.install.python_path)?;
            manifest.install.python_path = python;
        }
        Some(Runtime::Executable(executable)) => executable.program = found(&executable.program)?,
        Some(Runtime::Native { program, .. } | Runtime::Channel { program, .. }) => {
            *program = found(program)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn copy(source: &Path, manifests: &Path, force: bool) -> Result<Copied, EnvironmentError> {
        install(source, manifests, None, force, |_, _| Ok(()))
    }

    #[test]
    fn what_stands_in_the_place_of_a_manifest_and_is_none_is_kept_and_told() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (source, manifests) = (folder.path().join("m.json"), folder.path().join("manifests"));
        let text = r#"{"format_version":"2.0","code":{"name":"tool","version":"1","runtime":{"kind":"native","program":"sh"}}}"#;
        std::fs::write(&source, text).expect("write");
        let target = manifests.join("tool.json");
        assert_eq!(copy(&source, &manifests, false).expect("installs").warnings, Vec::<String>::new());
        for (turn, words) in
            ["{\"code\": {\"description\": \"mine\",}}", "another fault", ""].iter().enumerate()
        {
            std::fs::write(&target, words).expect("write");
            let told = copy(&source, &manifests, false).expect("installs").warnings;
            assert!(read_existing(&target).is_some());
            let broken = |path: &PathBuf| path.to_string_lossy().contains("tool.json.broken-");
            let listing = std::fs::read_dir(&manifests).expect("listed").flatten().map(|entry| entry.path());
            let kept: Vec<PathBuf> = listing.filter(broken).collect();
            // Nobody wrote into an empty one.
            assert_eq!(
                (kept.len(), told.len()),
                ((turn + 1).min(2), usize::from(!words.is_empty())),
                "{told:?}"
            );
            let is_told =
                |path: &&PathBuf| told.iter().any(|told| told.contains(&path.display().to_string()));
            for path in kept.iter().filter(is_told) {
                assert_eq!(std::fs::read_to_string(path).expect("read"), *words);
            }
        }
    }

    #[test]
    fn a_manifest_is_copied_with_its_program_and_what_the_user_changed_stays() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (source, manifests) = (folder.path().join("m.json"), folder.path().join("manifests"));
        let text = r#"{"format_version":"2.0","code":{"name":"tool","version":"1","runtime":{"kind":"native","program":"./bin/tool"}}}"#;
        std::fs::write(&source, text).expect("write");
        let missing = copy(&source, &manifests, false);
        assert!(matches!(missing, Err(EnvironmentError::ProgramMissing { .. })), "{missing:?}");
        let program = folder.path().join("bin/tool");
        write_whole(&program, b"#!/bin/sh\n").expect("write");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let Copied { manifest, outcome, .. } = copy(&source, &manifests, false).expect("installs");
        assert_eq!(outcome, Outcome::Installed);
        let Some(Runtime::Native { program: written, .. }) = &manifest.code.runtime else { panic!("native") };
        assert_eq!(Path::new(written), program);
        assert_eq!(copy(&source, &manifests, false).expect("again").outcome, Outcome::Unchanged);
        let target = manifests.join("tool.json");
        let mut changed = read_existing(&target).expect("readable");
        changed.overrides.insert("k".into(), 1.into());
        changed.install.env_vars.insert("A".into(), "b".into());
        changed.unknown.insert("notes".into(), "mine".into());
        write_whole(&target, changed.to_file_text().as_bytes()).expect("write");
        assert_eq!(copy(&source, &manifests, false).expect("again").outcome, Outcome::Unchanged);
        std::fs::write(&source, text.replace("\"1\"", "\"2\"")).expect("write");
        assert_eq!(copy(&source, &manifests, false).expect("again").outcome, Outcome::Installed);
        let updated = read_existing(&target).expect("readable");
        assert_eq!((updated.code.version.as_str(), &updated.overrides), ("2", &changed.overrides));
        assert_eq!(updated.install.env_vars, changed.install.env_vars);
        assert_eq!(updated.unknown, changed.unknown);
        assert_eq!(updated.install.installed_at, changed.install.installed_at);
    }

    #[test]
    fn an_edited_source_is_not_called_unchanged_and_neither_is_a_value_that_is_kept() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (source, manifests) = (folder.path().join("need.json"), folder.path().join("manifests"));
        let target = manifests.join("need.json");
        let write = |region: &str| {
            let text = format!(
                r#"{{"format_version":"2.0","install":{{"env_vars":{{"REGION":"{region}"}}}},
                     "code":{{"name":"need","version":"1","runtime":{{"kind":"native","program":"/bin/true"}}}}}}"#
            );
            std::fs::write(&source, text).expect("write");
        };
        let again = |force| {
            let copied = copy(&source, &manifests, force).expect("installs");
            let region = read_existing(&target).expect("readable").install.env_vars["REGION"].clone();
            (copied.outcome, region, copied.values)
        };
        write("eu");
        assert_eq!(again(false), (Outcome::Installed, "eu".to_owned(), vec![]));
        assert_eq!(again(false), (Outcome::Unchanged, "eu".to_owned(), vec![]));
        write("us");
        let told = vec!["env_vars REGION: eu -> us".to_owned()];
        assert_eq!(again(false), (Outcome::Installed, "us".to_owned(), told));
        assert_eq!(again(false), (Outcome::Unchanged, "us".to_owned(), vec![]));
        let mut by_hand = read_existing(&target).expect("readable");
        by_hand.install.env_vars.insert("REGION".to_owned(), "my".to_owned());
        write_whole(&target, by_hand.to_file_text().as_bytes()).expect("write");
        for (force, expected) in [(false, Outcome::Kept), (true, Outcome::Installed)] {
            let (outcome, region, told) = again(force);
            assert_eq!((outcome, region.as_str(), told.len()), (expected, "my", 1), "{told:?}");
            assert!(told[0].contains(&target.display().to_string()), "{told:?}");
        }
    }

    #[test]
    fn what_was_written_by_hand_into_a_copy_is_kept_and_told_whoever_installs_it_again() {
        let folder = tempfile::tempdir().expect("tempdir");
        let (source, manifests) = (folder.path().join("shy.json"), folder.path().join("manifests"));
        let target = manifests.join("shy.json");
        let write = |script: &str| {
            let text = format!(
                r#"{{"format_version":"2.0","code":{{"name":"shy","version":"1","runtime":{{"kind":"executable",
                     "program":"/bin/sh","actions":{{"go":{{"argv":["-c","{script}"],"timeout_seconds":2}}}}}}}}}}"#
            );
            std::fs::write(&source, text).expect("write");
        };
        write("true");
        assert_eq!(copy(&source, &manifests, false).expect("installs").outcome, Outcome::Installed);
        let mut by_hand = read_existing(&target).expect("readable");
        let Some(Runtime::Executable(program)) = &mut by_hand.code.runtime else { panic!("an executable") };
        program.actions["go"].timeout_seconds = Some(4.0);
        write_whole(&target, by_hand.to_file_text().as_bytes()).expect("write");
        for (script, force, expected) in [
            ("true", false, Outcome::Kept),
            ("true", true, Outcome::Installed),
            ("false", false, Outcome::Installed),
        ] {
            write(script);
            let copied = copy(&source, &manifests, force).expect("installs");
            assert_eq!((copied.outcome, copied.values.len()), (expected, 1), "{:?}", copied.values);
            assert!(copied.values[0].contains("timeout_seconds: 4 stays"), "{:?}", copied.values);
            let Some(Runtime::Executable(now)) = read_existing(&target).expect("readable").code.runtime
            else {
                panic!("an executable")
            };
            assert_eq!(now.actions["go"].timeout_seconds, Some(4.0));
        }
    }
}
