//! Environments that no manifest names, as `list --envs` tells them.

use crate::output::path_text;
use crate::status::installation_document;
use crate::visible::one_line;
use cjm_catalog::Catalog;
use cjm_catalog::beginning::note_beside;
use cjm_catalog::installation::{install_all_step, taken_away_step};
use cjm_catalog::installer::Installer;
use cjm_environments::{Unused, environments_at_work, unused_environments};
use cjm_wire::describe::shell_word;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// Environments that no manifest names.
pub(super) struct Nobodys {
    unused: Vec<Unused>,
    /// On which somebody works, so that they may belong to somebody soon.
    pub(super) at_work: Vec<(Unused, Installer)>,
    /// Names of what is installed, wherever it lives.
    names: BTreeSet<String>,
}

impl Nobodys {
    /// `before` worked here before the catalog was read: what it has made since stands in none.
    pub(super) fn look(data_dir: &Path, catalog: &Catalog, before: Option<Installer>) -> Self {
        let mut unused = unused_environments(data_dir, catalog);
        let mut at_work: Vec<(Unused, Installer)> = Vec::new();
        for by in [before, Installer::at_work(data_dir)].into_iter().flatten() {
            let made = unused.extract_if(.., |one| by.concerns(&one.name));
            let coming = environments_at_work(data_dir, catalog, &by);
            let all: Vec<Unused> = made.chain(coming).collect();
            for one in all {
                if !at_work.iter().any(|(known, _)| known.name == one.name) {
                    at_work.push((one, by.clone()));
                }
            }
        }
        let names = catalog.entries().map(|entry| entry.manifest.code.name.clone()).collect();
        Self { unused, at_work, names }
    }

    pub(super) fn add_to(&self, document: &mut Value) {
        let named = |one: &Unused| {
            let begun = one.begun.as_ref();
            json!({
                "name": one.name, "path": path_text(&one.path), "exists": one.path.symlink_metadata().is_ok(),
                "entry": begun.and_then(|begun| begun.entry.as_ref()),
                "capability": begun.and_then(|begun| begun.capability.as_ref()), "is_rest": one.is_rest,
            })
        };
        document["unused_environments"] = self.unused.iter().map(named).collect();
        let at_work = self.at_work.iter().map(|(one, by)| {
            let mut environment = named(one);
            environment["installation"] = installation_document(Some(by));
            environment
        });
        document["environments_at_work"] = at_work.collect();
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let at_work = self.at_work.iter().map(|(one, by)| {
            let next = by.next_step("wait for its end (`cjm-ctl status`), then look again");
            format!(
                "note: {} belongs to no capability yet: {by} works on it\n  next: {next}",
                one.path.display()
            )
        });
        at_work.chain(self.unused.iter().map(|one| self.line_of_unused(one))).collect()
    }

    fn line_of_unused(&self, one: &Unused) -> String {
        let path = &one.path;
        if one.is_rest {
            // A tool of that name would go in its place.
            let step = match self.names.contains(&one.name) || !one.can_be_removed() {
                true => format!("rm -rf {}", shell_word(&path.to_string_lossy())),
                false => format!("cjm-ctl remove {}", shell_word(&one.name)),
            };
            return format!(
                "warning: {} is what is left of an environment that was removed\n  next: `{step}` takes it away",
                path.display(),
            );
        }
        let begun = one.begun.as_ref();
        let names = begun.into_iter().flat_map(|begun| [&begun.capability, &begun.entry]).flatten();
        // A tool of such a name lives elsewhere, and would go in its place; what several have in common names none.
        let is_of_one = |name: &&String| self.unused.iter().filter(|other| begun_as(other, name)).count() < 2;
        let mut free = names.filter(is_of_one).chain([&one.name]).filter(|name| !self.names.contains(*name));
        let word = |path: &Path| shell_word(&path.to_string_lossy());
        let is_noted = begun.is_some_and(|begun| begun.is_noted);
        let step = match free.next().filter(|_| one.can_be_removed()) {
            None if is_noted && !one.can_be_removed() => format!(
                "`rm -f {} {}` takes the link away; what it leads to is conda's, whose own `env remove` takes that away",
                word(path),
                word(&note_beside(path))
            ),
            None if is_noted => format!("`rm -rf {} {}` takes it away", word(path), word(&note_beside(path))),
            None if path.is_symlink() => {
                format!("`rm {}` takes the link away, and nothing of what it leads to", word(path))
            }
            None => format!("`rm -r {}` takes it away", word(path)),
            Some(name) if begun.is_none_or(|begun| begun.list.is_none()) => {
                format!("`cjm-ctl remove {}` takes it away", shell_word(name))
            }
            Some(name) if begun.is_some_and(|begun| !begun.is_asked_for()) => {
                taken_away_step(name, begun.and_then(|begun| begun.list.as_deref()))
            }
            Some(name) => format!(
                "{} goes on with it; `cjm-ctl remove {}` takes it away",
                install_all_step(begun.and_then(|begun| begun.list.as_deref())),
                shell_word(name)
            ),
        };
        let what = match begun.filter(|begun| begun.is_noted) {
            Some(begun) => format!("{} ({})", one_line(&begun.broken_off()), path.display()),
            None => format!(
                "{} belongs to no capability that is installed: an installation failed or was broken off, its manifest is gone, \
                 or its tool lives in another environment by now",
                path.display()
            ),
        };
        let stays = if one.stays() { "; the environment itself was there before, and stays" } else { "" };
        format!("warning: {what}\n  next: {step}{stays}")
    }
}

/// Whether an environment was begun for a tool or an entry of this name.
fn begun_as(one: &Unused, name: &str) -> bool {
    let names = one.begun.iter().flat_map(|begun| [&begun.capability, &begun.entry]).flatten();
    names.into_iter().any(|begun| begun == name)
}
