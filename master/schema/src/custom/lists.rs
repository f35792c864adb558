//! Items of lists that are sets or maps are there once (`apiextensions-apiserver/pkg/apiserver/schema/listtype`).

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::schema::Schema;
use crate::errors::{Errors, Path};

pub(super) fn check(schema: &Schema, value: &Value, at: Option<&Path<'_>>, errors: &mut Errors) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                if let Some(inner) = schema.properties.get(name) {
                    let path = at.map_or_else(|| Path::root(name), |at| at.child(name));
                    check(inner, value, Some(&path), errors);
                } else if let (Some(inner), Some(at)) = (schema.values(), at) {
                    check(inner, value, Some(&at.key(name)), errors);
                }
            }
        }
        Value::Array(list) => {
            let Some(at) = at else { return };
            match schema.list_type.as_str() {
                "set" => set(list, at, errors),
                "map" => map(schema, list, at, errors),
                _ => {}
            }
            for (index, item) in list.iter().enumerate() {
                if let Some(items) = &schema.items {
                    check(items, item, Some(&at.index(index)), errors);
                }
            }
        }
        _ => {}
    }
}

/// The places of what stands there a second time; what stands there more often is named once.
fn repeated(elements: impl Iterator<Item = Value>) -> Vec<(usize, Value)> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut out = Vec::new();
    for (index, element) in elements.enumerate() {
        let times = seen.entry(element.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            out.push((index, element));
        }
    }
    out
}

fn set(list: &[Value], at: &Path<'_>, errors: &mut Errors) {
    for (index, item) in repeated(list.iter().cloned()) {
        errors.duplicate(&at.index(index), item);
    }
}

fn map(schema: &Schema, list: &[Value], at: &Path<'_>, errors: &mut Errors) {
    for (index, item) in list.iter().enumerate() {
        if !item.is_object() && !item.is_null() {
            let detail = "must be an object for an array of list-type map";
            return errors.invalid(&at.index(index), item.clone(), detail);
        }
    }
    let key = |item: &Value| -> Value {
        let part = |name: &String| Some((name.clone(), item.get(name)?.clone()));
        schema.list_keys.iter().filter_map(part).collect::<Map<String, Value>>().into()
    };
    for (index, key) in repeated(list.iter().map(key)) {
        errors.duplicate(&at.index(index), key);
    }
}
