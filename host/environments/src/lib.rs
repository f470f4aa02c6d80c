//! Environments: what `install-all` makes of `capabilities.yaml`. One virtual environment per Python package, with a
//! lock, an introspected manifest and a stamp; tools that need none get their manifest checked and copied.
//!
//! It knows no running host: the command line uses it directly.

mod adapters;
mod after_a_kill;
mod asked_python;
mod check;
mod command;
mod conda;
mod conda_entry;
mod constraint;
mod elsewhere;
mod ended;
mod error;
mod files;
mod first_note;
mod former;
mod installer;
mod interpreters;
mod introspection;
mod left_running;
mod leftovers;
mod list;
mod lock;
mod manifests;
mod owners;
mod package;
mod pip_settings;
mod place_lock;
mod python_entry;
mod regenerate;
mod removal;
mod report;
mod set_aside;
mod setup;
mod stamp;
mod steps;
mod syntax;
mod system_answers;
mod tool_entry;
mod user_values;
mod uv;
mod version;
mod whole_code;

pub use check::{Refusal, package_folders, package_refusal, refusals};
pub use conda::{Conda, CondaOptions, Estimate, micromamba_home};
pub use constraint::{Constraint, PythonVersion};
pub use error::EnvironmentError;
pub use files::{Claim, running_host};
pub use installer::{ENTRIES_AT_ONCE, install_all};
pub use interpreters::{Interpreter, discover as discover_interpreters};
pub use leftovers::{Unused, environments_at_work, unused_environments};
pub use list::{read_capabilities, read_each_capability};
pub use manifests::env_name_of;
pub use owners::is_of_package;
pub use regenerate::{
    GeneratedAdapter, PackageSource, Regenerated, Regeneration, generate_adapter_manifest, plan_regeneration,
};
pub use removal::{Place, Removal, find_environment, plan_removal};
pub use report::{
    AskInUse, EntryReport, INSTALLER_VERSION, InUse, InstallEvent, InstallOptions, InstallReport, Outcome,
    Step,
};
pub use setup::{HostSetup, RuntimeSetup};
pub use syntax::{SyntaxFault, interpreter_for, syntax_faults};
