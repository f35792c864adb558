//! Strategic merge patch, as `k8s.io/apimachinery/pkg/util/strategicpatch` applies it: merge keys and strategies come
//! from the type tables, directives from the patch.

use serde_json::Value;

use crate::errors::PatchError;
use crate::kind::Kind;
use crate::types::{Definition, Field, Type, types};
use crate::value::{Fields, Object};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

pub(crate) fn merge(kind: &Kind, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(PatchError::Invalid("a strategic merge patch must be a JSON object".into()));
    };
    let root = types().root(kind.definition).unwrap_or(Type::Any);
    merge_map(root, original.clone(), patch.clone()).map(Value::Object)
}

fn invalid<T>(text: String) -> Result<T, PatchError> {
    Err(PatchError::Invalid(text))
}

fn definition(kind: Type) -> Option<&'static Definition> {
    match kind {
        Type::Object(index) => types().get(index),
        _ => None,
    }
}

/// How one field of a map is merged.
#[derive(Clone, Copy)]
struct Rule {
    /// Of the field, or of the elements where it is a list.
    kind: Type,
    merge_list: bool,
    merge_key: Option<&'static str>,
}

fn rule(kind: Type, field: &str) -> Rule {
    let found: Option<&'static Field> = definition(kind).and_then(|d| d.field(field));
    let inner = match (kind, found) {
        (Type::Map(value), _) => *value,
        (_, Some(field)) => field.kind,
        _ => Type::Any,
    };
    let element = match inner {
        Type::List(item) => *item,
        other => other,
    };
    Rule { kind: element, merge_list: found.is_some_and(|f| f.merge), merge_key: found.and_then(|f| f.merge_key) }
}

fn merge_map(kind: Type, mut original: Object, mut patch: Object) -> Result<Object, PatchError> {
    match patch.remove(PATCH).as_ref().map(|d| d.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("replace") => return Ok(clean_map(patch)),
        Some("delete") => return Ok(Object::new()),
        Some(other) => return invalid(format!("unknown patch type found: {other}")),
    }
    retain_keys(&mut original, &mut patch)?;
    ordered_lists(kind, &mut original, &mut patch)?;
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            delete_primitives(&mut original, field, &value)?;
            continue;
        }
        let Some(old) = original.remove(&key) else {
            if !value.is_null() {
                original.insert(key, clean(value));
            }
            continue;
        };
        let rule = rule(kind, &key);
        let merged = match (old, value) {
            (_, Value::Null) => continue,
            (Value::Object(old), Value::Object(new)) => Value::Object(merge_map(rule.kind, old, new)?),
            (Value::Array(old), Value::Array(new)) if rule.merge_list => Value::Array(merge_list(rule, old, new)?),
            (_, new) => clean(new),
        };
        original.insert(key, merged);
    }
    Ok(original)
}

/// `$retainKeys`: only the named fields of the original survive.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = keys else {
        return invalid("invalid value of $retainKeys: it must be a list of field names".into());
    };
    let kept = |field: &str| keys.iter().any(|key| key == field);
    if let Some(stray) = patch.iter().find(|(key, value)| !key.starts_with('$') && !value.is_null() && !kept(key)) {
        return invalid(format!("$retainKeys does not name the patched field {}", stray.0));
    }
    original.retain(|key, _| kept(key));
    Ok(())
}

fn delete_primitives(original: &mut Object, field: &str, gone: &Value) -> Result<(), PatchError> {
    let Value::Array(gone) = gone else { return invalid(format!("{DELETE_FROM}{field} must be a list")) };
    if let Some(Value::Array(list)) = original.get_mut(field) {
        list.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// Lists whose order the patch sets; taken out of the patch, which then only holds what is left to do.
fn ordered_lists(kind: Type, original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return invalid(format!("{directive} must be a list"));
        };
        let field = directive.strip_prefix(SET_ORDER).unwrap_or_default();
        let rule = rule(kind, field);
        let new = match patch.remove(field) {
            Some(Value::Array(list)) => Some(list),
            Some(other) => {
                // Null, or another type: the order does not matter then.
                patch.insert(field.to_string(), other);
                continue;
            }
            None => None,
        };
        check_order(&order, new.as_deref().unwrap_or_default(), rule.merge_key)?;
        let gone = patch.remove(&format!("{DELETE_FROM}{field}"));
        if let Some(gone) = gone {
            delete_primitives(original, field, &gone)?;
        }
        let old = match original.get(field) {
            Some(Value::Array(list)) => Some(list.clone()),
            _ => None,
        };
        let merged = match (old.clone(), new) {
            (Some(old), Some(new)) if rule.merge_list => merge_list(rule, old, new)?,
            (_, Some(new)) => clean_list(new),
            (Some(old), None) => old,
            (None, None) => continue,
        };
        let sorted = arrange(merged, &order, &old.unwrap_or_default(), rule.merge_key);
        original.insert(field.to_string(), Value::Array(sorted));
    }
    Ok(())
}

/// Everything the patch adds or changes must have its place.
fn check_order(order: &[Value], patch: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let missing = patch
        .iter()
        .filter(|item| !matches!(item.text(PATCH), "delete" | "replace"))
        .any(|item| position(order, item, key).is_none());
    if missing {
        return invalid("the order in patch list doesn't match the setElementOrder list".into());
    }
    Ok(())
}

fn merge_list(rule: Rule, original: Vec<Value>, patch: Vec<Value>) -> Result<Vec<Value>, PatchError> {
    let maps = original.iter().chain(&patch).any(Value::is_object);
    if !maps {
        let mut merged = original.clone();
        merged.extend(patch.iter().cloned());
        return Ok(arrange(without_duplicates(merged), &patch, &original, None));
    }
    let Some(key) = rule.merge_key else {
        return invalid("cannot merge lists without merge key".into());
    };
    let (mut merged, patch) = match directives(key, original.clone(), patch)? {
        Directed::Replaced(list) => return Ok(list),
        Directed::Merge { original, patch } => (original, patch),
    };
    for item in &patch {
        let Value::Object(new) = item else {
            return invalid(format!("expected a map with the merge key {key}, found {item}"));
        };
        if !new.contains_key(key) {
            return invalid(format!("map: {item} does not contain declared merge key: {key}"));
        }
        match merged.iter_mut().find(|old| old.at(key) == item.at(key)) {
            Some(slot) => {
                let old = slot.as_object().cloned().unwrap_or_default();
                *slot = Value::Object(merge_map(rule.kind, old, new.clone())?);
            }
            None => merged.push(clean(item.clone())),
        }
    }
    Ok(arrange(merged, &patch, &original, Some(key)))
}

enum Directed {
    /// `$patch: replace` stood in the list.
    Replaced(Vec<Value>),
    Merge {
        original: Vec<Value>,
        patch: Vec<Value>,
    },
}

/// Obeys the elements of a patch that carry `$patch`, and takes them out.
fn directives(key: &str, mut original: Vec<Value>, patch: Vec<Value>) -> Result<Directed, PatchError> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        match item.get(PATCH).map(|d| d.as_str().unwrap_or_default()) {
            None => plain.push(item),
            Some("delete") if item.has(key) => original.retain(|old| old.at(key) != item.at(key)),
            Some("delete") => return invalid("delete patch type with no merge key defined".into()),
            Some("replace") => replace = true,
            Some("merge") => return invalid("merging lists cannot yet be specified in the patch".into()),
            Some(other) => return invalid(format!("unknown patch type found: {other}")),
        }
    }
    if replace {
        return Ok(Directed::Replaced(clean_list(plain)));
    }
    Ok(Directed::Merge { original, patch: plain })
}

fn without_duplicates(list: Vec<Value>) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::with_capacity(list.len());
    for item in list {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    list.iter().position(|other| match key {
        Some(key) => other.at(key) == item.at(key),
        None => other == item,
    })
}

/// Orders a merged list: what the patch names stands as the patch says, what only the server has stays where it was
/// before what followed it.
fn arrange(merged: Vec<Value>, patch: &[Value], server: &[Value], key: Option<&str>) -> Vec<Value> {
    let (mut ours, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(patch, item, key).is_some());
    ours.sort_by_key(|item| position(patch, item, key));
    others.sort_by_key(|item| position(server, item, key));
    let mut out = Vec::with_capacity(ours.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in ours {
        let place = position(server, &item, key);
        while let Some(other) = others.next_if(|other| {
            let before = position(server, other, key);
            before.is_some() && place.is_some() && before < place
        }) {
            out.push(other);
        }
        out.push(item);
    }
    out.extend(others);
    out
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM)
}

/// A new value as it is stored: no directives, no nulls.
fn clean(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(clean_map(map)),
        Value::Array(list) => Value::Array(clean_list(list)),
        other => other,
    }
}

fn clean_map(map: Object) -> Object {
    map.into_iter()
        .filter(|(key, value)| !is_directive(key) && !value.is_null())
        .map(|(key, value)| (key, clean(value)))
        .collect()
}

fn clean_list(list: Vec<Value>) -> Vec<Value> {
    list.into_iter().filter(|item| item.text(PATCH) != "delete").map(clean).collect()
}

#[cfg(test)]
mod tests;
