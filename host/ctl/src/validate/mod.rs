//! `validate`: says what is wrong with a file or a folder, with its place, and what on this machine it would lack. It runs
//! nothing of what it looks at. What is looked for is in `document`, `folder`, `machine` and `source`.

mod document;
mod finding;
mod folder;
mod format;
mod known;
mod machine;
mod mended;
mod mended_manifest;
mod project;
mod schema;
mod settings;
mod source;

use crate::assign::text_of_file;
use crate::cli::{Format, Global, ValidateArgs};
use crate::fault::{CommandResult, Fault, current_dir};
use crate::output::{Output, path_text};
use crate::validate::finding::Finding;
use crate::validate::format::FILE_BYTES_MAX;
pub(crate) use crate::validate::format::detect;
use crate::visible::one_line;
use cjm_catalog::suggestions::{in_words, suggestions};
use cjm_catalog::{Catalog, unread_step};
use cjm_wire::describe::exit;
use serde_json::{Value, json};
use std::path::Path;

/// Most keys of a file that is nothing we know that are told.
const KEYS_TOLD_MAX: usize = 8;

/// Runs the command.
pub(crate) async fn run(global: &Global, args: &ValidateArgs, output: &Output) -> CommandResult {
    let path = &args.path;
    if path.is_relative() {
        current_dir()?;
    }
    let (format, text) = read(path, args.format)?;
    let catalog = || -> Result<Catalog, Fault> { Ok(Catalog::discover(&global.settings()?.manifest_dirs())) };
    // Where the settings are broken nothing is known of what is installed; a list needs neither.
    let manifests = || global.settings().ok().map(|settings| settings.manifests_dir());
    let mut kind = kind(format);
    let (mut errors, mut warnings) = match format {
        Format::Manifest => document::manifest(path, &text),
        Format::Adapter => document::adapter(path, &text),
        Format::CapabilitiesYaml => {
            let (list, sources) = (
                document::capabilities(path, &text, manifests().as_deref()),
                folder::sources_of_list(path, &text).await,
            );
            ([list.0, sources.0].concat(), [list.1, sources.1].concat())
        }
        Format::Composition => document::composition(&text, Some(&catalog()?)),
        Format::Settings => settings::check(&text),
        Format::Source if path.is_dir() && args.format.is_none() => {
            let (checked, more_than_source) =
                folder::check(path, global.data_dir.as_deref(), manifests().as_deref(), catalog()).await;
            if more_than_source {
                kind = "folder";
            }
            checked
        }
        Format::Source => {
            let (files, left_out) = source::files(path);
            let logging = source::logging(&files);
            let syntax = source::syntax(&files, None).await;
            let errors = [left_out.0, syntax.0, logging.0].concat();
            (errors, [left_out.1, syntax.1, logging.1].concat())
        }
    };
    errors.iter_mut().for_each(name_from_here);
    warnings.dedup();
    let code = if errors.is_empty() { exit::OK } else { exit::DOMAIN };
    if output.json {
        let list = |findings: &[Finding]| findings.iter().map(Finding::document).collect::<Value>();
        output.document(&json!({
            "path": path_text(path),
            "kind": kind,
            "valid": errors.is_empty(),
            "errors": list(&errors),
            "warnings": warnings,
        }))?;
        return Ok(code);
    }
    show(output, path, kind, &errors, &warnings)?;
    Ok(code)
}

/// As a person in this folder would name the file.
fn name_from_here(finding: &mut Finding) {
    let Ok(cwd) = std::env::current_dir() else { return };
    if let Some(file) = &mut finding.file
        && let Ok(from_here) = file.strip_prefix(&cwd)
    {
        *file = from_here.to_owned();
    }
}

fn show(
    output: &Output,
    path: &Path,
    kind: &str,
    errors: &[Finding],
    warnings: &[String],
) -> Result<(), Fault> {
    let path = path.display();
    if errors.is_empty() {
        let qualified = if warnings.is_empty() { "" } else { " (with warnings)" };
        output.line(&format!("✓ {path} ({kind}): valid{qualified}"))?;
    } else {
        let mut text = format!("✗ {path} ({kind}): {} error(s)", errors.len());
        for error in errors {
            text.push_str(&format!("\n  - {}\n    next: {}", error.text(), error.next_step));
        }
        output.error(&text);
    }
    if !warnings.is_empty() {
        let mut text = format!("⚠ {path} ({kind}): {} warning(s)", warnings.len());
        for warning in warnings {
            text.push_str(&format!("\n  - {warning}"));
        }
        output.error(&text);
    }
    Ok(())
}

/// What the file is, and its text; a package's text is read file by file later.
fn read(path: &Path, asked: Option<Format>) -> Result<(Format, String), Fault> {
    let meta = std::fs::metadata(path).map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let what = if missing { "File not found" } else { "cannot read" };
        Fault::new("validate.unreadable", format!("{what}: {}", path.display()), "check the path")
            .caused_by(&error)
    })?;
    if meta.is_dir() {
        // Nothing that lies there was looked at; that nothing is wrong with it nobody can say.
        if let Err(error) = std::fs::read_dir(path) {
            return Err(Fault::new(
                "validate.unreadable",
                format!("cannot read: {}", path.display()),
                unread_step(path),
            )
            .caused_by(&error));
        }
        return match asked {
            None | Some(Format::Source) => Ok((Format::Source, String::new())),
            Some(_) => Err(Fault::new(
                "validate.directory",
                format!("{} is a directory", path.display()),
                "name a manifest, a capabilities.yaml or a composition in it",
            )),
        };
    }
    let is_source = asked == Some(Format::Source)
        || (asked.is_none() && path.extension().is_some_and(|extension| extension == "py"));
    if is_source {
        return Ok((Format::Source, String::new()));
    }
    let text = text_of_file(path, FILE_BYTES_MAX)?;
    let bare = || format::is_bare_list(path, &text).then_some(Format::CapabilitiesYaml);
    match asked.or_else(|| detect(path, &text)).or_else(bare) {
        Some(format) => Ok((format, text)),
        None => {
            let keys: Vec<String> = format::keys(&text).into_iter().take(KEYS_TOLD_MAX).collect();
            if format::is_empty(path, &text) {
                return Err(Fault::new(
                    "validate.unknown_format",
                    format!("{} is empty", path.display()),
                    "write a list (`capabilities:`) or a composition (`nodes:`) into it",
                ));
            }
            let what = match keys.as_slice() {
                [] => "by its name".to_owned(),
                keys => format!(
                    "by its keys ({}): a list has `capabilities`, a composition has `nodes`{}",
                    one_line(&keys.join(", ")),
                    one_line(&meant(keys))
                ),
            };
            Err(Fault::new(
                "validate.unknown_format",
                format!("cannot tell what {} is {what}", path.display()),
                "say what it is with --format manifest, adapter, capabilities_yaml, composition, settings or source",
            ))
        }
    }
}

/// What the keys of a file that is nothing we know may have been meant for.
fn meant(keys: &[String]) -> String {
    let like = |key: &String| {
        let like = suggestions(key, ["capabilities", "nodes"].into_iter());
        (!like.is_empty()).then(|| format!("; it has `{key}`{}", in_words(&like)))
    };
    keys.iter().filter_map(like).collect()
}

fn kind(format: Format) -> &'static str {
    match format {
        Format::Manifest => "manifest",
        Format::Adapter => "adapter manifest",
        Format::Source => "capability source",
        Format::CapabilitiesYaml => "capabilities.yaml",
        Format::Composition => "composition",
        Format::Settings => "settings",
    }
}
