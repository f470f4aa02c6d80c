//! The lock of an environment: the exact packages it is made of, with hashes, and the content of the folders among
//! them. It is resolved once and kept until the request changes; the hash of its text names the environment.

use crate::error::EnvironmentError;
use crate::files::{hash_bytes, write_whole};
use crate::package::Requirements;
use crate::uv::Uv;
use cjm_platform::files::read_regular_to_string;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Longest lock that is read, in bytes.
const LOCK_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Name of the lock in its environment.
pub(crate) const LOCK_FILE: &str = "cjm-lock.txt";
const REQUEST_FILE: &str = "cjm-requirements.txt";
const RESOLVED_FILE: &str = "cjm-resolved.txt";
const REQUEST_MARK: &str = "# request: ";

/// A lock on the disk.
#[derive(Debug)]
pub(crate) struct Lock {
    /// The file.
    pub(crate) path: PathBuf,
    /// Hash of its text.
    pub(crate) hash: String,
}

/// The lock of `environment`: the one there is if it answers this request, else a new resolution that keeps its
/// versions where it can.
///
/// # Errors
/// When the request cannot be resolved.
pub(crate) async fn ensure(
    uv: &Uv,
    environment: &Path,
    requirements: &Requirements,
    python_version: &str,
    offline: bool,
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<Lock, EnvironmentError> {
    let path = environment.join(LOCK_FILE);
    let request = requirements.resolution_hash(python_version);
    let existing = read_regular_to_string(&path, LOCK_BYTES_MAX).ok();
    let answers = existing
        .as_deref()
        .filter(|text| text.lines().any(|line| line == format!("{REQUEST_MARK}{request}")));
    let body = match answers {
        Some(text) => body_of(text).to_owned(),
        None => {
            let known = existing.as_deref().map(body_of).unwrap_or_default();
            resolve(uv, environment, requirements, known, offline, on_line).await?
        }
    };
    let text = with_header(&body, &request, requirements, python_version);
    if existing.as_deref() != Some(&text) {
        write_whole(&path, text.as_bytes())?;
    }
    Ok(Lock { hash: hash_bytes(text.as_bytes()), path })
}

/// Makes the environment hold exactly what the lock says. From the cache if it can, so that it needs no network
/// where everything was fetched before.
///
/// # Errors
/// When something cannot be fetched or built.
pub(crate) async fn sync(
    uv: &Uv,
    environment: &Path,
    lock: &Lock,
    requirements: &Requirements,
    offline: bool,
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<(), EnvironmentError> {
    let command = |offline: bool| {
        let mut command = uv.command(&["pip", "sync", "--allow-empty-requirements"], offline);
        command.arg("--python").arg(environment.join("bin/python"));
        // The installer's cache knows a folder by the age of its metadata; we know its content.
        for folder in requirements.folders() {
            match &folder.distribution {
                Some(name) => command.args(["--reinstall-package", name]),
                None => command.arg("--reinstall"),
            };
        }
        command.arg(&lock.path);
        command
    };
    const WHAT: &str = "installing the locked packages";
    let cached = uv.run(command(true), WHAT, on_line).await;
    match cached {
        Err(EnvironmentError::HelperFailed { .. }) if !offline => {
            uv.run(command(false), WHAT, on_line).await.map(|_| ())
        }
        other => other.map(|_| ()),
    }
}

/// Adds the requested packages to an environment that others made, and takes nothing away from it.
///
/// # Errors
/// When something cannot be fetched or built.
pub(crate) async fn add(
    uv: &Uv,
    environment: &Path,
    requirements: &Requirements,
    offline: bool,
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<(), EnvironmentError> {
    let request = environment.join(REQUEST_FILE);
    write_whole(&request, requirements.lines().as_bytes())?;
    let command = |offline: bool| {
        let mut command = uv.command(&["pip", "install"], offline);
        command.arg("--python").arg(environment.join("bin/python"));
        for folder in requirements.folders() {
            match &folder.distribution {
                Some(name) => command.args(["--reinstall-package", name]),
                None => command.arg("--reinstall"),
            };
        }
        command.arg("-r").arg(&request);
        command
    };
    const WHAT: &str = "adding the packages";
    let outcome = match uv.run(command(true), WHAT, on_line).await {
        Err(EnvironmentError::HelperFailed { .. }) if !offline => uv.run(command(false), WHAT, on_line).await,
        other => other,
    };
    // It is written anew each time; one that stays does no harm.
    let _ = std::fs::remove_file(&request);
    outcome.map(|_| ())
}

/// Writes down what an environment holds that others made.
///
/// # Errors
/// When it cannot be listed or written.
pub(crate) async fn take_down(
    uv: &Uv,
    environment: &Path,
    requirements: &Requirements,
    python_version: &str,
) -> Result<Lock, EnvironmentError> {
    let mut command = uv.command(&["pip", "freeze"], true);
    command.arg("--python").arg(environment.join("bin/python"));
    let answer = uv.run(command, "listing the packages", &|_| {}).await?;
    let body = String::from_utf8_lossy(&answer.stdout).into_owned();
    let request = requirements.resolution_hash(python_version);
    let text = with_header(&body, &request, requirements, python_version);
    let path = environment.join(LOCK_FILE);
    write_whole(&path, text.as_bytes())?;
    Ok(Lock { hash: hash_bytes(text.as_bytes()), path })
}

async fn resolve(
    uv: &Uv,
    environment: &Path,
    requirements: &Requirements,
    known: &str,
    offline: bool,
    on_line: &(dyn Fn(&str) + Send + Sync),
) -> Result<String, EnvironmentError> {
    let (request, resolved) = (environment.join(REQUEST_FILE), environment.join(RESOLVED_FILE));
    write_whole(&request, requirements.lines().as_bytes())?;
    // What the resolver finds in its output file it keeps where it can.
    write_whole(&resolved, known.as_bytes())?;
    let command = |offline: bool| {
        let mut command = uv.command(
            &["pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"],
            offline,
        );
        command.arg("--python").arg(environment.join("bin/python"));
        command.arg(&request).arg("-o").arg(&resolved);
        command
    };
    const WHAT: &str = "resolving the packages";
    let outcome = match uv.run(command(offline), WHAT, on_line).await {
        // Without a network what was fetched before may do; if it does not, the first complaint is the useful one.
        Err(error @ EnvironmentError::HelperFailed { .. }) if !offline => {
            uv.run(command(true), WHAT, on_line).await.map_err(|_| error)
        }
        other => other,
    };
    let text = outcome.and_then(|_| {
        std::fs::read_to_string(&resolved).map_err(|source| EnvironmentError::File {
            action: "read",
            path: resolved.clone(),
            source,
        })
    });
    for scratch in [&request, &resolved] {
        // Both are written anew each time; one that stays does no harm.
        let _ = std::fs::remove_file(scratch);
    }
    text
}

fn with_header(body: &str, request: &str, requirements: &Requirements, python_version: &str) -> String {
    let mut text = format!(
        "# The exact packages of this environment (Python {python_version}). Written by install-all; to resolve \
         anew: install-all --force.\n{REQUEST_MARK}{request}\n"
    );
    for (path, hash) in requirements.folder_hashes() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# folder {}: {hash}", path.display());
    }
    text.push_str(body);
    text
}

/// Without the comments at the top.
fn body_of(text: &str) -> &str {
    let mut rest = text;
    while rest.starts_with('#') {
        rest = rest.split_once('\n').map_or("", |(_, after)| after);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_comes_off_and_the_body_stays() {
        let requirements = Requirements { packages: Vec::new() };
        let body = "six==1.17.0 \\\n    --hash=sha256:00\n# inner\n";
        let text = with_header(body, "sha256:r", &requirements, "3.11.7");
        assert!(text.lines().any(|line| line == "# request: sha256:r"), "{text}");
        assert_eq!(body_of(&text), body);
        assert_eq!(body_of("# only"), "");
    }
}
