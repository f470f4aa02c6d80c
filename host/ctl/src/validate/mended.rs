//! What a composition is without what is wrong with its form, so that one fault of it does not hide what is wrong with the
//! rest. Nothing of this is run.

use crate::validate::schema::{Mend, SchemaFault, all_faults};
use cjm_wire::composition::Composition;
use serde_json::Value;

/// What is mended in each round. A value that was put in the place of another may lack a key of its own, and a number that
/// is too large is often told better by whoever reads it.
const ROUNDS: [fn(&Mend) -> bool; 3] = [|mend| *mend != Mend::Limit, |mend| *mend != Mend::Limit, |_| true];

/// The composition; none where not even this has its form.
pub(super) fn mended(document: &Value, schema: &str) -> Option<Composition> {
    let mut value = document.clone();
    for of_this_round in ROUNDS {
        // The last of a list first, so that the others keep their places.
        for SchemaFault { pointer, mend, .. } in all_faults(&value, schema).into_iter().rev() {
            if let Some(mend) = mend.filter(of_this_round) {
                apply(&mut value, &pointer, mend);
            }
        }
        // Read as it will be, where a number may stand for text.
        if let Ok(composition) = Composition::read(&value.to_string()) {
            return Some(composition);
        }
    }
    None
}

/// A fault that another one has taken away needs no mending.
fn apply(document: &mut Value, pointer: &str, mend: Mend) {
    match mend {
        Mend::Stray { meant } => {
            let stray = remove(document, pointer);
            let holder = pointer.rsplit_once('/').and_then(|(holder, _)| document.pointer_mut(holder));
            if let (Some(stray), Some(meant), Some(Value::Object(holder))) = (stray, meant, holder) {
                holder.entry(meant).or_insert(stray);
            }
        }
        Mend::Missing { name, blank } => {
            if let Some(Value::Object(holder)) = document.pointer_mut(pointer) {
                holder.entry(name).or_insert(blank);
            }
        }
        Mend::Other { blank: Some(blank) } if !is_in_list(document, pointer) => {
            if let Some(value) = document.pointer_mut(pointer) {
                *value = blank;
            }
        }
        Mend::Other { .. } | Mend::Limit => {
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
