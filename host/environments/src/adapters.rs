//! Manifests of the adapters that an installation brings: under which names they lie, and whose place they take.

use crate::error::EnvironmentError;
use crate::former::Former;
use crate::manifests::{keep_adapter_that_is_not_ours, link_in_words};
use crate::steps::TASK_STEP;
use cjm_wire::{AdapterManifest, Timestamp};
use std::path::Path;

/// The manifest of an adapter that was found in an environment, with the name of its file.
///
/// # Errors
/// When its task cannot be part of one.
pub(crate) fn named(
    mut adapter: AdapterManifest,
    env_name: &str,
) -> Result<(String, AdapterManifest), EnvironmentError> {
    adapter.generated_at = Timestamp::now().to_string();
    env_name.clone_into(&mut adapter.conda_env);
    let name = adapter.file_name().ok_or_else(|| EnvironmentError::Introspection {
        message: format!(
            "the task \"{}\" of the adapter {} cannot be part of a file name",
            adapter.task_name, adapter.name
        ),
        next_step: TASK_STEP.into(),
        stderr_tail: Vec::new(),
    })?;
    Ok((name, adapter))
}

/// Writes them, and returns the names of their files. `told` gets what somebody had written or linked there, which is kept.
///
/// # Errors
/// At the first that cannot be written, or in whose place something stands that cannot be kept.
pub(crate) fn write(
    adapters: Vec<(String, AdapterManifest)>,
    manifests: &Path,
    former: Option<&Former>,
    told: &mut Vec<String>,
) -> Result<Vec<String>, EnvironmentError> {
    let mut names = Vec::new();
    for (name, adapter) in adapters {
        let path = manifests.join(&name);
        told.extend(keep_adapter_that_is_not_ours(&path)?);
        told.extend(link_in_words(&path));
        Former::write(former, &path, adapter.to_file_text().as_bytes())?;
        names.push(name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(class: &str) -> AdapterManifest {
        let text = json!({"unit": "adapter", "name": format!("m.{class}"), "version": "1.0", "task_name": "t", "module": "m",
            "class": class});
        AdapterManifest::parse(&text.to_string()).expect("an adapter")
    }

    #[test]
    fn what_somebody_wrote_or_linked_where_an_adapter_goes_is_kept_and_named() {
        let folder = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| folder.path().join(name);
        let [mine, broken, linked] =
            ["Mine", "Broken", "Linked"].map(|class| format!("adapter-t-{class}.json"));
        let by_hand = found("Mine").to_file_text();
        for (name, text) in [(&mine, by_hand.as_str()), (&broken, "{"), (&"source".to_owned(), "theirs")] {
            std::fs::write(at(name), text).expect("written");
        }
        std::os::unix::fs::symlink("source", at(&linked)).expect("linked");
        let install = || {
            let mut told = Vec::new();
            let all = ["Mine", "Broken", "Linked", "New"]
                .map(|class| named(found(class), "its-env").expect("named"));
            let names = write(all.to_vec(), folder.path(), None, &mut told).expect("written");
            assert_eq!(names.len(), 4);
            told
        };
        let told = install();
        let kept = |name: &str, why: &str| {
            let begins = format!("{name}.{why}-");
            let beside = std::fs::read_dir(folder.path()).expect("listed").flatten();
            let mut all = beside.filter(|one| one.file_name().to_string_lossy().starts_with(&begins));
            let path = all.next().expect("it is kept").path();
            assert!(told.iter().any(|line| line.contains(&path.display().to_string())), "{told:?}");
            std::fs::read_to_string(path).expect("text")
        };
        assert_eq!((kept(&mine, "replaced"), kept(&broken, "broken")), (by_hand, "{".to_owned()));
        assert!(told[0].contains("m.Mine 1.0 stood there, which no installation made"), "{told:?}");
        assert!(told[2].contains("Linked.json: was a link to ") && told.len() == 3, "{told:?}");
        assert_eq!(std::fs::read_to_string(at("source")).expect("there"), "theirs");
        assert!(std::fs::symlink_metadata(at(&linked)).expect("there").is_file());
        assert_eq!(install(), Vec::<String>::new(), "they are an installation's now");
    }
}
