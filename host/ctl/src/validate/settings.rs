//! Checks a `cjm.yaml`: by the parser that reads it, and for keys that it reads past. Those are warnings, since a file may be
//! shared with programs that know more of them.

use crate::validate::document::Checked;
use crate::validate::finding::Finding;
use cjm_catalog::home::expand_home;
use cjm_catalog::settings::Unread;
use cjm_wire::placed::{Place, Placed};
use cjm_wire::settings_file::{SettingsFile, SettingsFileError};
use std::path::Path;

/// Errors of the file, and warnings.
pub(super) fn check(text: &str) -> Checked {
    let parsed = SettingsFile::parse(text);
    let finding = |error: &SettingsFileError| {
        let found = Finding::of(error, place_in_words(&error.to_string()));
        let message = found.place.map(|place| without_place(&found.message, place).to_owned());
        Finding { message: message.unwrap_or_else(|| found.message.clone()), ..found }
    };
    let homes = parsed.as_ref().map(|settings| without_home(text, settings)).unwrap_or_default();
    (SettingsFile::faults(text).iter().map(finding).chain(homes).collect(), Unread::of(text).told)
}

/// The words of a reader without the place before them, which is told in another way.
fn without_place(words: &str, (line, column): Place) -> &str {
    let words = words.strip_prefix("error: ").unwrap_or(words);
    words.strip_prefix(&format!("line {line} column {column}: ")).unwrap_or(words)
}

/// Paths whose `~` leads nowhere on any machine: the home of another user.
fn without_home(text: &str, settings: &SettingsFile) -> Vec<Finding> {
    let document = Placed::parse(text).ok();
    let prefix = settings.runtime.as_ref().and_then(|runtime| runtime.prefix.as_ref());
    let binaries = settings.runtime.iter().flat_map(|runtime| runtime.binaries.iter().flatten());
    let paths = [
        ("data_dir", settings.data_dir.as_ref()),
        ("capabilities_config", settings.capabilities_config.as_ref()),
        ("models_dir", settings.models_dir.as_ref()),
        ("runtime.prefix", prefix),
    ];
    let named = paths.into_iter().filter_map(|(key, path)| Some((key.to_owned(), path?)));
    let all = named.chain(binaries.map(|(platform, path)| (format!("runtime.binaries.{platform}"), path)));
    all.filter_map(|(key, path)| {
        let error = expand_home(path, Some(Path::new("/"))).err()?;
        let place = document.as_ref().and_then(|document| document.place_of_keys(&key));
        let message = format!("{key} is \"{}\": {error}", path.display());
        Some(Finding { message, ..Finding::of(&error, place) })
    })
    .collect()
}

/// Where a reader of YAML says it ended: `line 3 column 5`.
fn place_in_words(words: &str) -> Option<Place> {
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    let (_, from_line) = words.split_once("line ")?;
    let (_, from_column) = from_line.split_once("column ")?;
    Some((number(from_line)?, number(from_column)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_is_read_is_known_and_others_are_told_with_place_and_what_is_like_them() {
        let all = "runtime: {mode: local, conda_type: conda, prefix: p, binaries: {anything-x64: b}}\ndata_dir: d\n\
                   capabilities_config: c\nmodels_dir: m\nsubstrate: {drift_detection: true, empirical_tracking: true, \
                   prefetch_stall_threshold_seconds: 1, diagnostics_retention_days: 1, diagnostics_retention_max_mb: 1, \
                   jobs_retention_days: 1, worker_env_pass: []}\n";
        assert_eq!(check(all), (vec![], vec![]));
        let (errors, warnings) = check("data_dirr: d\nsubstrate:\n  drift_detecton: false\nzzz:\n- 1\n");
        assert!(errors.is_empty(), "{errors:?}");
        let expected = [
            "line 1, column 1: data_dirr: there is no such key (did you mean \"data_dir\"?), and nobody reads it",
            "line 4, column 1: zzz: there is no such key, and nobody reads it",
            "line 3, column 3: substrate.drift_detecton: there is no such key (did you mean \"drift_detection\"?), and \
             nobody reads it",
        ];
        assert_eq!(warnings, expected);
    }

    #[test]
    fn every_wrong_key_has_its_place_and_what_belongs_there() {
        let (errors, _) =
            check("data_dir: [1]\nsubstrate:\n  drift_detection: yes\n  jobs_retention_days: x\n");
        let told: Vec<_> = errors.iter().map(|error| (error.place, error.message.as_str())).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].1.starts_with("`data_dir` is not a path"), "{told:?}");
        assert!(told[1].1.starts_with("`substrate.jobs_retention_days` is not a number of days"), "{told:?}");
        assert_eq!((told[0].0, told[1].0), (Some((1, 11)), Some((4, 24))));
    }
}
