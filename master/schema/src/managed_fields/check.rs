//! Whether a configuration fits the schema: types, undeclared fields, items that cannot be told apart. Texts are
//! structured-merge-diff's, Go's way of printing values included.

use std::collections::BTreeSet;

use serde_json::Value;

use super::set::shown;
use super::shape::{Shape, list, object};
use crate::errors::quote;
use crate::kind::Kind;
use crate::types::{Definition, Topology, Type, types};

/// Everything that is wrong, in one text.
pub(super) fn check(kind: &Kind, config: &Value) -> Result<(), String> {
    let mut errors = Vec::new();
    if let Some(root) = kind.root_type() {
        value(root, Topology::Plain, config, "", &mut errors);
    }
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn value(kind: Type, topology: Topology, found: &Value, path: &str, errors: &mut Vec<String>) {
    let mut say = |text: String| errors.push(if path.is_empty() { text } else { format!("{path}: {text}") });
    if found.is_null() {
        return;
    }
    match kind {
        Type::Object(_) | Type::Map(_) | Type::Custom(_) if !found.is_object() => {
            say(format!("expected map, got &{{{}}}", go(found)))
        }
        Type::List(_) if !found.is_array() => say(format!("expected list, got &{{{}}}", go(found))),
        Type::Object(index) => {
            if let Some(definition) = types().get(index) {
                fields(definition, found, path, errors);
            }
        }
        Type::Custom(definition) => fields(definition, found, path, errors),
        Type::Map(item) => {
            for (name, inner) in object(found) {
                value(*item, Topology::Plain, inner, &format!("{path}.{name}"), errors);
            }
        }
        Type::List(item) => items(*item, Shape::of(kind, topology), found, (path, errors)),
        Type::Text | Type::Base64 | Type::Time | Type::MicroTime if !found.is_string() => {
            say(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(found)));
        }
        Type::Bool if !found.is_boolean() => say(format!("expected boolean, got &{{{}}}", go(found))),
        Type::Int32 | Type::Int64 | Type::Float if !found.is_number() => {
            say(format!("expected numeric (int or float), got {}", go_type(found)));
        }
        Type::Quantity | Type::IntOrString if found.is_object() || found.is_array() => {
            say(format!("expected any scalar, got &{{{}}}", go(found)));
        }
        _ => {}
    }
}

fn fields(definition: &Definition, found: &Value, path: &str, errors: &mut Vec<String>) {
    for (name, inner) in object(found) {
        let path = format!("{path}.{name}");
        match definition.field(name) {
            Some(field) => value(field.kind, field.topology, inner, &path, errors),
            None if definition.open => {}
            None => errors.push(format!("{path}: field not declared in schema")),
        }
    }
}

fn items(item: Type, shape: Shape, found: &Value, (path, errors): (&str, &mut Vec<String>)) {
    let mut seen = BTreeSet::new();
    for (index, inner) in list(found).iter().enumerate() {
        let mut step = format!("[{index}]");
        if matches!(shape, Shape::Keyed(..) | Shape::Set(_)) {
            match shape.element(inner) {
                Ok(element) => {
                    step = shown(&element);
                    if !seen.insert(element) {
                        errors.push(format!("{path}: duplicate entries for key {step}"));
                    }
                }
                Err(why) => return errors.push(format!("{path}: element {index}: {}", why.0)),
            }
        }
        value(item, Topology::Plain, inner, &format!("{path}{step}"), errors);
    }
}

/// Go's `%v`.
fn go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(name, value)| format!("{name}:{}", go(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

/// Go's `%#v`.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Array(list) => {
            format!("[]interface {{}}{{{}}}", list.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(name, value)| format!("{}:{}", quote(name), go_syntax(value))).collect();
            format!("map[string]interface {{}}{{{}}}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

/// Go's `%T` of a decoded value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
