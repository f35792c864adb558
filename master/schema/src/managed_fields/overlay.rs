//! What a MutatingAdmissionPolicy lays over an object: merged as an apply would, but nobody owns it
//! (`policy/mutating/patch.ApplyStructuredMergeDiff`).

use serde_json::Value;

use super::shape::{Shape, list, object};
use super::{check, merge};
use crate::kind::Kind;

/// The object with the configuration laid over it, neither decoded nor defaulted.
pub(crate) fn overlay(kind: &Kind, live: &Value, config: &Value) -> Result<Value, String> {
    check::check(kind, config).map_err(|why| format!("failed to convert patch object to typed object: {why}"))?;
    let shape = Shape::root(kind);
    let mut atomics = Vec::new();
    find_atomics(shape, config, "", &mut atomics);
    if !atomics.is_empty() {
        let all = atomics.join(", ");
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {all}"));
    }
    Ok(merge::merge(shape, Some(live), Some(config)).unwrap_or_default())
}

/// What would be replaced whole, so that a configuration could take away what it does not mention.
fn find_atomics(shape: Shape, value: &Value, path: &str, found: &mut Vec<String>) {
    match (shape, value) {
        (Shape::Leaf, Value::Object(_) | Value::Array(_)) | (Shape::Free, Value::Array(_)) => {
            found.push(path.to_owned())
        }
        (_, Value::Object(_)) => {
            for (name, inner) in object(value) {
                find_atomics(shape.member(name), inner, &format!("{path}.{name}"), found);
            }
        }
        (Shape::Keyed(..) | Shape::Set(_), Value::Array(_)) => {
            for (index, inner) in list(value).iter().enumerate() {
                find_atomics(shape.item(), inner, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}
