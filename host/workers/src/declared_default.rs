//! What the default of a declared variable becomes: `${NAME}` in it stands for one of a few values.

use cjm_wire::manifest::MODELS_VARIABLE;

/// Why a default has no value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unset {
    /// It names a variable that is known and has no value.
    Variable(String),
    /// It names what nobody knows, or does not end.
    Unknown(String),
}

impl Unset {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Variable(name) => format!("{name}, which is not set (`models_dir` in cjm.yaml sets it)"),
            Self::Unknown(name) => format!("`{name}`, which there is not"),
        }
    }
}

/// Replaces `${NAME}` in one pass.
pub(crate) fn expand(template: &str, lookup: &impl Fn(&str) -> Option<String>) -> Result<String, Unset> {
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find("${") {
        let end = rest[at..].find('}').ok_or_else(|| Unset::Unknown(rest[at..].to_owned()))? + at;
        out.push_str(&rest[..at]);
        let name = &rest[at + 2..end];
        out.push_str(&lookup(name).ok_or_else(|| match name {
            MODELS_VARIABLE => Unset::Variable(name.to_owned()),
            _ => Unset::Unknown(name.to_owned()),
        })?);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_default_names_and_has_no_value_is_told() {
        let without = |template: &str| expand(template, &|_| None).expect_err("unset").text();
        assert!(without("${CJM_MODELS_DIR}/hf").contains("CJM_MODELS_DIR, which is not set"));
        assert!(without("a ${NOPE}").contains("`NOPE`") && without("a ${NO").contains("`${NO`"));
    }
}
