//! Whether an adapter fits a capability, from their manifests alone: nothing has to be loaded, and nothing imported.
//!
//! An adapter asks for the members of its protocol. A method fits when the capability has one of that name whose
//! parameters begin with those asked for, if both sides recorded any; a property fits by its name. Types are not
//! compared: two environments write the same type differently. A capability without a recorded surface fits none.

use cjm_wire::adapter::{AdapterManifest, Members};
use cjm_wire::manifest::Code;

/// What the ancestor says of a capability without a surface.
const NO_SURFACE: &str = "the capability's manifest has no structural_surface (made by an old version; \
                          `cjm-ctl install-all` makes it anew)";

/// What came of comparing an adapter with a capability. Compatible when nothing stands in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fit {
    /// Methods that the capability has not.
    pub missing_methods: Vec<String>,
    /// Properties that the capability has not.
    pub missing_properties: Vec<String>,
    /// Methods whose parameters begin otherwise.
    pub param_mismatches: Vec<ParamMismatch>,
    /// Why no comparison was possible.
    pub reason: Option<String>,
}

/// A method whose parameters begin otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamMismatch {
    /// Its name.
    pub method: String,
    /// What the adapter passes.
    pub protocol_params: Vec<String>,
    /// What the capability takes.
    pub surface_params: Vec<String>,
}

impl Fit {
    /// Whether the adapter can be bound.
    #[must_use]
    pub fn is_compatible(&self) -> bool {
        *self == Self::default()
    }

    /// What is missing, for people; empty when it is compatible.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut parts: Vec<String> = self.reason.iter().cloned().collect();
        for (what, names) in [("methods", &self.missing_methods), ("properties", &self.missing_properties)] {
            if !names.is_empty() {
                parts.push(format!("missing {what}: {}", names.join(", ")));
            }
        }
        parts.extend(self.param_mismatches.iter().map(|mismatch| {
            format!(
                "`{}` takes ({}), and ({}) is asked for",
                mismatch.method,
                mismatch.surface_params.join(", "),
                mismatch.protocol_params.join(", ")
            )
        }));
        parts.join("; ")
    }
}

/// Compares what a protocol asks for with what a capability has.
#[must_use]
pub fn fit(protocol: &Members, surface: Option<&Members>) -> Fit {
    let Some(surface) = surface else {
        return Fit { reason: Some(NO_SURFACE.to_owned()), ..Fit::default() };
    };
    let mut fit = Fit::default();
    for asked in &protocol.methods {
        // The last of a name counts, as in a table by name.
        let Some(there) = surface.methods.iter().rev().find(|method| method.name == asked.name) else {
            fit.missing_methods.push(asked.name.clone());
            continue;
        };
        if let (Some(asked_params), Some(params)) = (&asked.params, &there.params)
            && !params.starts_with(asked_params)
        {
            fit.param_mismatches.push(ParamMismatch {
                method: asked.name.clone(),
                protocol_params: asked_params.clone(),
                surface_params: params.clone(),
            });
        }
    }
    fit.missing_properties =
        protocol.properties.iter().filter(|name| !surface.properties.contains(name)).cloned().collect();
    fit
}

/// The recorded surface of a capability; `None` when there is none, nothing stands in it, or it has another shape.
#[must_use]
pub fn surface_of(code: &Code) -> Option<Members> {
    let recorded = code.structural_surface.as_ref()?;
    if recorded.as_object().is_some_and(serde_json::Map::is_empty) {
        return None;
    }
    serde_json::from_value(recorded.clone()).ok()
}

/// Why an adapter that was asked for by name cannot be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No manifest has this name.
    Unknown {
        /// The name.
        name: String,
    },
    /// The capability has not what it asks for.
    Incompatible {
        /// The adapter.
        name: String,
        /// What is missing.
        fit: Fit,
    },
}

/// Which adapters a worker of the capability is told to bind: those named, or without names all that fit. An adapter
/// is known by its name (`module.Class`), its class, or its `module:Class`.
///
/// # Errors
/// The first named adapter that is unknown or does not fit.
pub fn choose<'a>(
    code: &Code,
    known: &'a [AdapterManifest],
    named: Option<&[String]>,
) -> Result<Vec<&'a AdapterManifest>, Refusal> {
    let surface = surface_of(code);
    let fits = |adapter: &AdapterManifest| fit(&adapter.protocol_members, surface.as_ref());
    let Some(named) = named else {
        return Ok(known.iter().filter(|adapter| fits(adapter).is_compatible()).collect());
    };
    let find = |name: &String| {
        known.iter().find(|adapter| [&adapter.name, &adapter.class, &adapter.spec()].contains(&name))
    };
    named
        .iter()
        .map(|name| {
            let adapter = find(name).ok_or_else(|| Refusal::Unknown { name: name.clone() })?;
            let fit = fits(adapter);
            if fit.is_compatible() {
                Ok(adapter)
            } else {
                Err(Refusal::Incompatible { name: adapter.name.clone(), fit })
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cjm_wire::adapter::Method;
    use serde_json::{Value, json};

    fn members(value: Value) -> Members {
        serde_json::from_value(value).expect("members")
    }

    #[test]
    fn parameters_begin_with_those_asked_for_and_types_do_not_count() {
        let surface = members(json!({
            "methods": [
                {"name": "a", "signature": "(self, x: int, y)", "params": ["x", "y"]},
                {"name": "b", "signature": "(self)", "params": []},
                {"name": "c", "signature": "(...)"},
            ],
            "properties": ["name"], "attributes": [{"name": "k", "type": "int"}],
        }));
        for (methods, properties, expected) in [
            (json!([{"name": "a", "signature": "(self, x: 'int')", "params": ["x"]}]), json!(["name"]), ""),
            (json!([{"name": "a"}, {"name": "c", "params": ["q"]}]), json!([]), ""),
            (json!([{"name": "b", "params": []}]), json!([]), ""),
            (json!([{"name": "a", "params": ["y"]}]), json!([]), "`a` takes (x, y), and (y) is asked for"),
            (json!([{"name": "b", "params": ["x"]}]), json!([]), "`b` takes (), and (x) is asked for"),
            (
                json!([{"name": "z"}, {"name": "a"}, {"name": "q"}]),
                json!(["k"]),
                "missing methods: z, q; missing properties: k",
            ),
        ] {
            let protocol = members(json!({"methods": methods, "properties": properties}));
            let found = fit(&protocol, Some(&surface));
            assert_eq!(found.describe(), expected);
            assert_eq!(found.is_compatible(), expected.is_empty());
        }
        let nothing = Members::default();
        assert!(fit(&nothing, Some(&surface)).is_compatible());
        assert!(!fit(&nothing, None).is_compatible());
        for (recorded, found) in [(json!({}), false), (json!({"methods": []}), true), (json!([1]), false)] {
            let code = json!({"name": "c", "version": "1", "structural_surface": recorded});
            let code: Code = serde_json::from_value(code).expect("code");
            assert_eq!(surface_of(&code).is_some(), found, "{code:?}");
        }
    }

    #[test]
    fn named_adapters_are_refused_loudly_and_others_left_out_silently() {
        let adapter = |class: &str, method: &str| {
            let text = json!({
                "unit": "adapter", "name": format!("m.{class}"), "task_name": "t", "module": "m", "class": class,
                "protocol_members": {"methods": [Method { name: method.into(), ..Method::default() }]},
            });
            AdapterManifest::parse(&text.to_string()).expect("an adapter")
        };
        let known = [adapter("Good", "a"), adapter("Bad", "z")];
        let code: Code = serde_json::from_value(json!({
            "name": "c", "version": "1", "structural_surface": {"methods": [{"name": "a"}], "properties": []},
        }))
        .expect("code");
        let names = |named: Option<&[String]>| {
            choose(&code, &known, named)
                .map(|found| found.iter().map(|adapter| adapter.class.clone()).collect::<Vec<_>>())
        };
        assert_eq!(names(None), Ok(vec!["Good".to_owned()]));
        assert_eq!(names(Some(&[])), Ok(Vec::new()));
        for name in ["m.Good", "Good", "m:Good"] {
            assert_eq!(names(Some(&[name.to_owned()])), Ok(vec!["Good".to_owned()]));
        }
        let Err(Refusal::Incompatible { name, fit }) = names(Some(&["Bad".to_owned()])) else {
            panic!("it must be refused")
        };
        assert_eq!((name.as_str(), fit.describe().as_str()), ("m.Bad", "missing methods: z"));
        assert_eq!(names(Some(&["no".to_owned()])), Err(Refusal::Unknown { name: "no".to_owned() }));
    }
}
