//! The catalog: finds what is there. Manifests in folders, names and their neighbours, programs, settings. It reads; it
//! makes nothing, runs nothing, and knows neither workers nor jobs.

mod catalog;
pub mod programs;
pub mod settings;
pub mod suggestions;

pub use catalog::{Catalog, CatalogEntry, CatalogError, CatalogProblem, MANIFESTS_MAX};
pub use programs::ProgramError;
pub use settings::{CliOverrides, Settings, SettingsError};
