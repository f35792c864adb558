//! Reading and writing an object's metadata.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// Changes the object's metadata, made if need be. Does nothing to a value that is no JSON object.
pub(super) fn edit(object: &mut Value, change: impl FnOnce(&mut Map<String, Value>)) {
    let Value::Object(object) = object else { return };
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    if let Value::Object(metadata) = metadata {
        change(metadata);
    }
}

pub(super) fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    edit(object, |metadata| {
        metadata.insert(field.to_owned(), value.into());
    });
}

pub(super) fn clear(object: &mut Value, fields: &[&str]) {
    edit(object, |metadata| {
        for field in fields {
            metadata.remove(*field);
        }
    });
}

/// Empty when it is absent or no text.
pub(super) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn integer(object: &Value, field: &str) -> Option<i64> {
    object.get("metadata")?.get(field)?.as_i64()
}

pub(super) fn is_deleting(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

pub(super) fn finalizers(object: &Value) -> Vec<&str> {
    let list = object.get("metadata").and_then(|m| m.get("finalizers")).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// A time as `metav1.Time` is encoded: whole seconds.
pub(super) fn time(at: Timestamp) -> Value {
    format!("{at:.0}").into()
}
