//! What a composition is without what is wrong with its form, so that one fault of it does not hide what is wrong with the
//! rest. Nothing of this is run.

use crate::validate::schema::{Mend, SchemaFault, all_faults};
use cjm_decide::composition::{Graph, GraphError};
use cjm_wire::composition::{Composition, CompositionError};
use cjm_wire::template::{PathStep, Template};
use serde_json::Value;
use std::collections::BTreeSet;

/// What is mended in each round. A value that was put in the place of another may lack a key of its own, and a number that
/// is too large is often told better by whoever reads it.
const ROUNDS: [fn(&Mend) -> bool; 3] =
    [is_of_form, is_of_form, |mend| is_of_form(mend) || *mend == Mend::Limit];

fn is_of_form(mend: &Mend) -> bool {
    !matches!(mend, Mend::Limit | Mend::NoForm)
}

/// A composition that was made readable.
pub(super) struct Mended {
    pub(super) composition: Composition,
    /// JSON pointers of what stands there now and was not written there.
    put_in: BTreeSet<String>,
    /// The nodes that are not as they were written: what their tools would say of them is not known.
    pub(super) changed: BTreeSet<String>,
}

impl Mended {
    /// Everything that is wrong with what was written: not with what was put in, and not for want of what was taken out.
    pub(super) fn faults(&self) -> Vec<GraphError> {
        let has_its_nodes = !self.put_in.contains("/nodes");
        let is_written = |error: &GraphError| match error {
            GraphError::UnknownNode { .. } => has_its_nodes,
            GraphError::Uncalled { .. } => has_its_nodes && self.has_all_calls(),
            GraphError::Document(CompositionError::Invalid { place, .. }) => !self.is_put_in(place),
            _ => true,
        };
        Graph::faults(&self.composition).into_iter().filter(is_written).collect()
    }

    /// Whether each node calls what was written there.
    fn has_all_calls(&self) -> bool {
        let is_call = |pointer: &String| pointer.starts_with("/nodes/") && pointer.ends_with("/capability");
        let nodes = &self.composition.nodes;
        self.changed.iter().all(|node| nodes.contains_key(node)) && !self.put_in.iter().any(is_call)
    }

    fn is_put_in(&self, place: &str) -> bool {
        self.put_in.contains(&format!("/{}", place.replace('.', "/")))
    }
}

/// The composition; none where not even this has its form.
pub(super) fn mended(document: &Value, schema: &str) -> Option<Mended> {
    // Read as it will be, where a number may stand for text.
    let read = |value: &Value| Composition::read(&value.to_string()).ok();
    let Readable { value: mut composition, mut put_in, mends } = readable(document, schema, &ROUNDS, read)?;
    let mut changed = BTreeSet::new();
    for (pointer, mend) in mends {
        let mut steps = pointer.split('/').skip(1);
        if let (Some("nodes"), Some(node)) = (steps.next(), steps.next()) {
            changed.insert(node.replace("~1", "/").replace("~0", "~"));
        }
        // The rest of the document may refer to what is in a stray key.
        if let Mend::Stray { meant: Some(meant) } = mend
            && ["inputs", "nodes"].contains(&meant.as_str())
            && pointer.matches('/').count() == 1
        {
            put_in.insert(format!("/{meant}"));
        }
    }
    if put_in.contains("/inputs") {
        declare_all(&mut composition);
    }
    Some(Mended { composition, put_in, changed })
}

/// What was read of a document once its form was mended.
pub(super) struct Readable<T> {
    pub(super) value: T,
    /// JSON pointers of what stands there now and was not written there.
    pub(super) put_in: BTreeSet<String>,
    /// What was mended, by its JSON pointer.
    pub(super) mends: Vec<(String, Mend)>,
}

/// Mends the form of a document, in rounds, until it can be read.
pub(super) fn readable<T>(
    document: &Value,
    schema: &str,
    rounds: &[fn(&Mend) -> bool],
    read: impl Fn(&Value) -> Option<T>,
) -> Option<Readable<T>> {
    let (mut mended, mut put_in, mut mends) = (document.clone(), BTreeSet::new(), Vec::new());
    for of_this_round in rounds {
        // The last of a list first, so that the others keep their places.
        for SchemaFault { pointer, mend, .. } in all_faults(&mended, schema).into_iter().rev() {
            if let Some(mend) = mend.filter(of_this_round) {
                apply(&mut mended, &pointer, mend.clone(), &mut put_in);
                mends.push((pointer, mend));
            }
        }
        if let Some(value) = read(&mended) {
            return Some(Readable { value, put_in, mends });
        }
    }
    None
}

/// Which inputs there are is not known: whatever is referred to may be one.
fn declare_all(composition: &mut Composition) {
    let nodes = composition.nodes.values().flat_map(|node| node.args.values().chain(&node.map));
    let names: Vec<String> = nodes
        .chain(&composition.output)
        .flat_map(|template| {
            let template = Template::read(template).0;
            let inputs = template.references().into_iter().filter(|reference| reference.root == "inputs");
            inputs.filter_map(|reference| reference.path.first().cloned()).collect::<Vec<_>>()
        })
        .filter_map(|step| if let PathStep::Field(name) = step { Some(name) } else { None })
        .collect();
    for name in names {
        composition.inputs.entry(name).or_default();
    }
}

/// A fault that another one has taken away needs no mending. What a stray key holds is not judged as if it stood under
/// another key, which would tell of faults that nobody wrote.
fn apply(document: &mut Value, pointer: &str, mend: Mend, put_in: &mut BTreeSet<String>) {
    match mend {
        Mend::Missing { name, blank } => {
            if let Some(Value::Object(holder)) = document.pointer_mut(pointer) {
                put_in.insert(format!("{pointer}/{name}"));
                holder.entry(name).or_insert(blank);
            }
        }
        Mend::Other { blank: Some(blank) } if !is_in_list(document, pointer) => {
            if let Some(value) = document.pointer_mut(pointer) {
                put_in.insert(pointer.to_owned());
                *value = blank;
            }
        }
        Mend::NoForm if !is_in_list(document, pointer) => {}
        Mend::Stray { .. } | Mend::Other { .. } | Mend::Limit | Mend::NoForm => {
            let _ = remove(document, pointer);
        }
    }
}

/// A list may be shorter; one with an empty name in it would have a fault of its own.
fn is_in_list(document: &Value, pointer: &str) -> bool {
    pointer.rsplit_once('/').and_then(|(holder, _)| document.pointer(holder)).is_some_and(Value::is_array)
}

fn remove(document: &mut Value, pointer: &str) -> Option<Value> {
    let (holder, key) = pointer.rsplit_once('/')?;
    let key = key.replace("~1", "/").replace("~0", "~");
    match document.pointer_mut(holder)? {
        Value::Object(fields) => fields.shift_remove(&key),
        Value::Array(items) => {
            let index = key.parse().ok().filter(|index| *index < items.len())?;
            Some(items.remove(index))
        }
        _ => None,
    }
}
