//! The catalog: finds what is there. Manifests in folders, names and their neighbours, programs, settings. It reads; it
//! makes nothing, runs nothing, and knows neither workers nor jobs.

pub mod allowed;
pub mod beginning;
mod broken_name;
pub mod by_hand;
mod catalog;
pub mod elsewhere;
mod folders;
pub mod home;
pub mod installation;
pub mod installer;
mod links;
mod list_steps;
mod may_be_unread;
mod not_yours;
pub mod plain_path;
pub mod programs;
pub mod settings;
mod settings_error;
mod unread;

pub use catalog::{
    Catalog, CatalogEntry, CatalogError, CatalogProblem, MANIFESTS_MAX, NotAllowed, Unheard, allow_step,
};
pub use cjm_wire::manifest::MANIFEST_BYTES_MAX;
pub use cjm_wire::suggestions;
pub use folders::{ManifestFolder, Standing, manifest_folders};
pub use may_be_unread::{MayBeUnread, unread_step};
pub use not_yours::NotYours;
pub use programs::ProgramError;
pub use settings::{CliOverrides, Settings, SettingsError};
