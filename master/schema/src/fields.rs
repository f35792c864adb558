//! Fields that lists and watches select by.

use serde_json::Value;

use crate::errors::UnsupportedField;
use crate::kind::Kind;

const NAME: &str = "metadata.name";
const NAMESPACE: &str = "metadata.namespace";

pub(crate) fn of(kind: &Kind, object: &Value) -> Vec<(&'static str, String)> {
    let mut fields = vec![(NAME, read(object, "/metadata/name", ""))];
    if kind.namespaced {
        fields.push((NAMESPACE, read(object, "/metadata/namespace", "")));
    }
    fields.extend(kind.fields.iter().map(|f| (f.label, read(object, f.pointer, f.absent))));
    fields
}

pub(crate) fn check(kind: &Kind, label: &str) -> Result<(), UnsupportedField> {
    let known =
        label == NAME || (kind.namespaced && label == NAMESPACE) || kind.fields.iter().any(|f| f.label == label);
    if known { Ok(()) } else { Err(UnsupportedField(label.to_string())) }
}

fn read(object: &Value, pointer: &str, absent: &str) -> String {
    match object.pointer(pointer) {
        None | Some(Value::Null) => absent.to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
