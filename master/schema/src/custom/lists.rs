//! Items of lists that are sets or maps are there once (`apiextensions-apiserver/pkg/apiserver/schema/listtype`); those of maps are
//! known again by their keys.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::schema::Schema;
use crate::errors::{Errors, Path};

/// The old items that the new ones of a list go on from: only those of maps can be told.
pub(super) struct Counterparts<'a> {
    keys: &'a [String],
    old: HashMap<String, &'a Value>,
}

impl<'a> Counterparts<'a> {
    /// `keys` are those of a map.
    pub(super) fn new(keys: Option<&'a [String]>, old: Option<&'a Value>) -> Self {
        let mut found = Counterparts { keys: keys.unwrap_or_default(), old: HashMap::new() };
        let old = keys.and(old).and_then(Value::as_array);
        for item in old.into_iter().flatten() {
            let key = found.key(item);
            found.old.entry(key).or_insert(item);
        }
        found
    }

    pub(super) fn of(&self, item: &Value) -> Option<&'a Value> {
        if self.old.is_empty() { None } else { self.old.get(&self.key(item)).copied() }
    }

    /// No value is written with a line break in it.
    fn key(&self, item: &Value) -> String {
        let parts = self.keys.iter().map(|key| item.get(key).map(Value::to_string).unwrap_or_default());
        parts.collect::<Vec<_>>().join("\n")
    }
}

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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Counterparts;

    #[test]
    fn items_of_maps_are_known_by_their_keys() {
        let keys = ["name".to_owned(), "port".to_owned()];
        let old =
            json!([{ "name": "a", "port": 1, "x": 1 }, { "name": "a", "port": 1, "x": 2 }, { "name": "a", "x": 3 }, 4]);
        let found = |keys, item: &Value| Counterparts::new(keys, Some(&old)).of(item).map(|item| item["x"].clone());
        assert_eq!(found(Some(&keys), &json!({ "port": 1, "name": "a" })), Some(json!(1)));
        assert_eq!(found(Some(&keys), &json!({ "name": "a" })), Some(json!(3)));
        assert_eq!(found(Some(&keys), &json!({ "name": "a", "port": null })), None);
        assert_eq!(found(Some(&keys), &json!({ "name": "a\n1" })), None);
        assert_eq!(found(None, &json!({ "name": "a" })), None);
    }

    #[test]
    fn long_lists_take_no_longer_an_item() {
        let keys = ["name".to_owned()];
        let list: Value = (0..200_000).map(|name| json!({ "name": name })).collect();
        let old = Counterparts::new(Some(&keys), Some(&list));
        assert!(list.as_array().unwrap().iter().all(|item| old.of(item) == Some(item)));
    }
}
