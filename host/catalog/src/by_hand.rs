//! Manifests of Python tools that somebody wrote: what is wrong in one is corrected there. No installation makes it anew.

use crate::installation::{install_all_step, list_of};
use cjm_wire::manifest::Manifest;
use std::path::Path;

/// Where a manifest that was written by hand is corrected: `in FILE`, and what is to follow where `path` is a copy of that
/// file. None where an installation has made it.
#[must_use]
pub fn place_to_correct(manifest: &Manifest, path: &Path) -> Option<String> {
    let install = &manifest.install;
    let list = list_of(manifest);
    if install.installer_version.is_empty() && list.is_none() {
        return Some(format!("in {}", path.display()));
    }
    // The source of a package is its folder, or what an index calls it.
    let source = Path::new(&install.package_source);
    let is_manifest = source.is_absolute() && source.extension().is_some_and(|kind| kind == "json");
    is_manifest.then(|| format!("in {}, then run {}", source.display(), install_all_step(list.as_deref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_corrected_is_the_file_that_somebody_wrote() {
        let place = |install: &str| {
            let code = r#"{"name":"t","version":"1","module":"m","class":"C"}"#;
            let text = format!(
                r#"{{"format_version":"2.0","install":{{"python_path":"/p"{install}}},"code":{code}}}"#
            );
            place_to_correct(&Manifest::parse(&text).expect("a manifest"), Path::new("/data/t.json"))
        };
        assert_eq!(place("").as_deref(), Some("in /data/t.json"));
        let by_us = r#","installer_version":"cjm-ctl 0.1.0","package_source""#;
        for source in ["/src/t", "t==1.0", "t.json", "https://x/t.json"] {
            assert_eq!(place(&format!(r#"{by_us}:"{source}""#)), None, "{source}");
        }
        let copied = place(&format!(r#"{by_us}:"/src/t.json""#));
        assert_eq!(copied.as_deref(), Some("in /src/t.json, then run `cjm-ctl install-all`"));
        assert_eq!(place(r#","capabilities_file":"/l.yaml""#), None);
    }
}
