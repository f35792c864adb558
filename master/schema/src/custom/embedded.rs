//! Whole objects within an object (`x-kubernetes-embedded-resource`).

use serde_json::Value;

use super::schema::Schema;
use crate::errors::{Errors, Path};
use crate::names::dns_1035_label;
use crate::value::Fields;

pub(super) fn check(schema: &Schema, value: &Value, at: Option<&Path<'_>>, errors: &mut Errors) {
    match value {
        Value::Object(object) => {
            if let Some(at) = at.filter(|_| schema.embedded) {
                resource(value, at, errors);
            }
            for (name, value) in object {
                if let Some(inner) = schema.field(name) {
                    let path = at.map_or_else(|| Path::root(name), |at| at.child(name));
                    check(inner, value, Some(&path), errors);
                }
            }
        }
        Value::Array(list) => {
            let (Some(at), Some(items)) = (at, &schema.items) else { return };
            for (index, item) in list.iter().enumerate() {
                check(items, item, Some(&at.index(index)), errors);
            }
        }
        _ => {}
    }
}

fn resource(value: &Value, at: &Path<'_>, errors: &mut Errors) {
    for field in ["apiVersion", "kind"] {
        let path = at.child(field);
        match value.get(field) {
            None => errors.required(&path, ""),
            Some(Value::String(text)) if text.is_empty() => errors.invalid(&path, "", "must not be empty"),
            Some(Value::String(_)) => {}
            Some(other) => errors.invalid(&path, other.clone(), "must be a string"),
        }
    }
    let kind = value.text("kind");
    let wrong = dns_1035_label(&kind.to_ascii_lowercase());
    if !kind.is_empty() && !wrong.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.invalid(&at.child("kind"), kind, &detail);
    }
}
