//! The environment of a worker: not the host's, but what is on a list. Secrets never stand in it; they travel over
//! the host link and are set in the tool alone.

use std::collections::BTreeMap;

/// Variables that pass from the host to every worker, by exact name.
const PASS_EXACT: [&str; 26] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "HF_HOME",
    "TORCH_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];
/// Variables that pass, by prefix.
const PASS_PREFIX: [&str; 11] =
    ["LC_", "XDG_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "OMP_", "MKL_", "OPENBLAS_", "HF_HUB_", "OTEL_"];
/// Never pass, whatever a list says.
const NEVER_CONTAINS: [&str; 4] = ["TOKEN", "KEY", "SECRET", "PASSWORD"];
const NEVER_PREFIX: [&str; 2] = ["PYTHON", "CONDA_"];
const NEVER_EXACT: [&str; 1] = ["VIRTUAL_ENV"];
/// Variables that are nobody's business when a start fails: shells set them, tools do not read them.
const NOT_WORTH_NAMING: [&str; 8] =
    ["PWD", "OLDPWD", "SHLVL", "_", "TERM", "HOSTNAME", "LS_COLORS", "CJM_DATA_DIR"];

/// What a worker gets of the host's variables.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerEnvironment {
    /// Passed variables.
    pub(crate) variables: BTreeMap<String, String>,
    /// Names of variables that the host has and the worker did not get.
    pub(crate) not_passed: Vec<String>,
}

/// Chooses among `host`'s variables; `extra` are further exact names.
pub(crate) fn choose(
    host: impl IntoIterator<Item = (String, String)>,
    extra: &[String],
) -> WorkerEnvironment {
    let mut chosen = WorkerEnvironment::default();
    for (name, value) in host {
        let wanted = PASS_EXACT.contains(&name.as_str())
            || PASS_PREFIX.iter().any(|prefix| name.starts_with(prefix))
            || extra.contains(&name);
        if wanted && !is_forbidden(&name) {
            chosen.variables.insert(name, value);
        } else if !NOT_WORTH_NAMING.contains(&name.as_str()) {
            chosen.not_passed.push(name);
        }
    }
    chosen.not_passed.sort();
    chosen
}

/// The host's own variables, those that are text.
pub(crate) fn host_variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Whether a variable of this name is passed to no tool, whatever a list says.
pub(crate) fn is_forbidden(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    NEVER_EXACT.contains(&upper.as_str())
        || NEVER_PREFIX.iter().any(|prefix| upper.starts_with(prefix))
        || is_secret_name(&upper)
}

/// Whether a name says that its value is nobody's business.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    // Telemetry is sent with headers, of which one says who sends it.
    NEVER_CONTAINS.iter().any(|part| upper.contains(part))
        || (upper.starts_with("OTEL_") && upper.contains("HEADERS"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_list_passes_and_secrets_never() {
        let host = [
            "PATH",
            "LC_ALL",
            "CUDA_VISIBLE_DEVICES",
            "HF_HUB_TOKEN",
            "OPENAI_API_KEY",
            "PYTHONPATH",
            "VIRTUAL_ENV",
            "CONDA_PREFIX",
            "MY_VAR",
            "MY_SECRET",
            "https_proxy",
            "OTEL_SERVICE_NAME",
            "OTEL_EXPORTER_OTLP_HEADERS",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
            "PWD",
        ];
        let extra = ["MY_VAR".to_owned(), "MY_SECRET".to_owned()];
        let chosen = choose(host.map(|name| (name.to_owned(), "v".to_owned())), &extra);
        let passed: Vec<&str> = chosen.variables.keys().map(String::as_str).collect();
        assert_eq!(
            passed,
            ["CUDA_VISIBLE_DEVICES", "LC_ALL", "MY_VAR", "OTEL_SERVICE_NAME", "PATH", "https_proxy"]
        );
        assert_eq!(
            chosen.not_passed,
            [
                "CONDA_PREFIX",
                "HF_HUB_TOKEN",
                "MY_SECRET",
                "OPENAI_API_KEY",
                "OTEL_EXPORTER_OTLP_HEADERS",
                "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
                "PYTHONPATH",
                "VIRTUAL_ENV"
            ]
        );
    }

    #[test]
    fn the_page_on_manifests_lists_what_passes() {
        let page = include_str!("../../../docs/MANIFESTS.md");
        let (_, list) = page.split_once("**Variables.**").expect("a paragraph");
        let (list, _) = list.split_once("\n## ").expect("its end");
        for name in PASS_EXACT {
            assert!(list.contains(&format!("`{name}`")), "{name} passes, and the page does not say so");
        }
        for prefix in PASS_PREFIX {
            assert!(list.contains(&format!("`{prefix}*`")), "{prefix}* passes, and the page does not say so");
        }
        for part in NEVER_CONTAINS.into_iter().chain(NEVER_PREFIX).chain(NEVER_EXACT) {
            assert!(list.contains(&format!("`{part}")), "{part} never passes, and the page does not say so");
        }
    }

    #[test]
    fn no_list_lets_pass_what_would_change_another_interpreter_or_give_a_secret_away() {
        let names = ["PYTHONPATH", "pythonstartup", "VIRTUAL_ENV", "CONDA_PREFIX", "MY_TOKEN", "MY_VAR"];
        let names = names.map(str::to_owned);
        let chosen = choose(names.clone().map(|name| (name, "x".to_owned())), &names);
        assert_eq!(chosen.variables.into_keys().collect::<Vec<_>>(), ["MY_VAR"]);
        assert_eq!(chosen.not_passed.len(), 5, "{:?}", chosen.not_passed);
    }
}
