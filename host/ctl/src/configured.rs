//! A list of capabilities beside what is installed: which entry gives which tool.

use crate::fault::Fault;
use cjm_catalog::plain_path::is_same_file;
use cjm_catalog::{Catalog, CatalogEntry};
use cjm_environments::{env_name_of, is_of_package, read_each_capability};
use cjm_wire::capabilities_file::{CapabilitiesFile, Entry};
use std::path::{Path, PathBuf};

/// A list that was named.
pub(crate) struct Configured {
    /// As it was named.
    pub(crate) path: PathBuf,
    /// The same from the root: its paths start from its folder.
    list: PathBuf,
    file: CapabilitiesFile,
}

impl Configured {
    /// Reads it. One entry that breaks a rule hides nothing of the others.
    pub(crate) fn read(path: &Path) -> Result<Self, Fault> {
        let file = read_each_capability(path)?;
        let list = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self { path: path.to_owned(), list, file })
    }

    /// The entry that gives an installed tool: of its name, else of its environment or its manifest, for an entry may
    /// have another name than what it gives.
    pub(crate) fn entry_of(&self, installed: &CatalogEntry) -> Option<&Entry> {
        let entries = || self.file.capabilities.iter();
        let named = entries().find(|entry| entry.name == installed.manifest.code.name);
        named.or_else(|| entries().find(|entry| self.gives(entry, installed)))
    }

    /// Entries that nothing here was installed from: by the name, the environment, or the manifest that they ask for.
    pub(crate) fn not_installed(&self, catalog: &Catalog) -> Vec<&Entry> {
        let absent = |entry: &&Entry| !catalog.entries().any(|installed| self.gives(entry, installed));
        self.file.capabilities.iter().filter(absent).collect()
    }

    fn gives(&self, entry: &Entry, installed: &CatalogEntry) -> bool {
        let source = Path::new(&installed.manifest.install.package_source);
        let base = self.list.parent().unwrap_or(Path::new("/"));
        let named = entry.manifest.as_ref().map(|manifest| base.join(manifest));
        installed.manifest.code.name == entry.name
            || self.fills(entry, installed)
            || named.is_some_and(|named| is_same_file(source, &named))
    }

    /// Whether a tool that calls itself something else is what the entry's environment was to hold: made from its package,
    /// as far as its manifest says from what. An entry that failed may name the environment of another tool.
    fn fills(&self, entry: &Entry, installed: &CatalogEntry) -> bool {
        let manifest = &installed.manifest;
        env_name_of(installed).as_ref() == Some(&entry.env_name)
            && (manifest.install.package_source.is_empty() || is_of_package(manifest, entry, &self.list))
    }
}
