//! The worker side of cjm-substrate: what every worker process runs, and what authors of capabilities in Rust
//! link.
//!
//! A capability in Rust implements [`Capability`] and its `main` returns [`serve`]. All other tools are served
//! by the binary `cjm-worker`, which calls [`run_shim`]. It knows nothing of hosts beyond the link to one, and
//! of stores nothing at all.

mod ancestor;
mod calls;
mod children;
mod context;
mod descriptors;
pub mod exit;
mod frames;
#[cfg(fuzzing)]
pub mod fuzzing;
mod given;
mod json_text;
mod link;
mod owner;
mod quiet_listener;
mod sdk;
mod serve;
mod surface;
mod tcp;
mod tool;
mod unwritten;
mod watch;
mod worker;

pub use ancestor::is_its_command_line as is_ancestors_command_line;
pub use cjm_wire::error::{Resource, ResourceShortfall};
pub use sdk::{Action, Call, Capability, Level, Logger, Setup, Sink, ToolError};
pub use serve::{run_for_ancestor, run_shim, serve};

/// The page of the Rust SDK: its programs are compiled as doc tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/RUST-SDK.md")]
pub struct RustSdkPage;

/// Unpacks the Python SDK where that has not been done: below the user's cache folder, else below `fallback`.
/// Returns the folder that holds the package `cjm_sdk`.
///
/// # Errors
/// When neither can be written.
pub fn unpack_python_sdk(fallback: &std::path::Path) -> std::io::Result<std::path::PathBuf> {
    let mut folder = tool::channel::sdk_files::unpack(fallback)?;
    // From the script, past the package.
    folder.pop();
    folder.pop();
    Ok(folder)
}
