//! Functions and names that Kubernetes' environment has on and the engine lacks, and those that macros call.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::cel::extractors::This;
use kube_cel::cel::objects::{Key, Map, Opaque, OptionalValue};
use kube_cel::cel::{Context, ExecutionError, ResolveResult, Value};

use crate::macros::{INSERT, INSERT_ENTRIES, SORT_BY};
use crate::objects::PAIRS;

/// The names of types, which are values of their own.
const TYPES: [&str; 13] = [
    "bool",
    "bytes",
    "double",
    "google.protobuf.Duration",
    "google.protobuf.Timestamp",
    "int",
    "list",
    "map",
    "null_type",
    "optional_type",
    "string",
    "type",
    "uint",
];

/// A type as a value.
#[derive(Debug, PartialEq, Eq)]
struct TypeValue(String);

impl Opaque for TypeValue {
    fn runtime_type_name(&self) -> &str {
        "type"
    }
}

fn type_value(name: &str) -> Value {
    Value::Opaque(Arc::new(TypeValue(name.to_owned())))
}

pub(crate) fn register(context: &mut Context<'_>) {
    for name in TYPES {
        context.add_variable_from_value(name, type_value(name));
    }
    context.add_function("type", |value: Value| -> ResolveResult { Ok(type_value(type_of(&value))) });
    context.add_function("dyn", |value: Value| -> ResolveResult { Ok(value) });
    context.add_function("bool", to_bool);
    context.add_function("optional.unwrap", |list: Arc<Vec<Value>>| unwrapped(&list));
    context.add_function("unwrapOpt", |This(list): This<Arc<Vec<Value>>>| unwrapped(&list));
    context.add_function(PAIRS, pairs);
    context.add_function(INSERT, |map: Value, key: Value, value: Value| insert(map, [(key, value)]));
    context.add_function(INSERT_ENTRIES, |map: Value, entries: Value| match entries {
        Value::Map(entries) => insert(map, entries.map.iter().map(|(key, value)| (key.into(), value.clone()))),
        _ => Err(ExecutionError::NoSuchOverload),
    });
    context.add_function(SORT_BY, sort_by);
}

fn type_of(value: &Value) -> &str {
    match value {
        Value::List(_) => "list",
        Value::Map(_) => "map",
        Value::Function(..) => "function",
        Value::Int(_) => "int",
        Value::UInt(_) => "uint",
        Value::Float(_) => "double",
        Value::String(_) => "string",
        Value::Bytes(_) => "bytes",
        Value::Bool(_) => "bool",
        Value::Duration(_) => "google.protobuf.Duration",
        Value::Timestamp(_) => "google.protobuf.Timestamp",
        Value::Null => "null_type",
        Value::Opaque(opaque) => opaque.runtime_type_name(),
    }
}

fn to_bool(value: Value) -> ResolveResult {
    match &value {
        Value::Bool(_) => Ok(value),
        Value::String(text) => match text.as_str() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            _ => Err(ExecutionError::function_error("bool", "type conversion error from 'string' to 'bool'")),
        },
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

/// What is there of a list of optional values.
fn unwrapped(list: &[Value]) -> ResolveResult {
    let there = list.iter().map(|value| <&OptionalValue>::try_from(value).map(|one| one.value().cloned()));
    let there: Vec<Option<Value>> = there.collect::<Result<_, _>>()?;
    Ok(Value::List(Arc::new(there.into_iter().flatten().collect())))
}

/// Index and item of a list, or key and value of a map, each a list of two.
fn pairs(of: Value) -> ResolveResult {
    let pair = |first: Value, second: &Value| Value::List(Arc::new(vec![first, second.clone()]));
    let all: Vec<Value> = match &of {
        Value::List(list) => (0..).zip(list.iter()).map(|(index, item)| pair(Value::Int(index), item)).collect(),
        Value::Map(map) => map.map.iter().map(|(key, value)| pair(key.into(), value)).collect(),
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    Ok(Value::List(Arc::new(all)))
}

fn insert(map: Value, entries: impl IntoIterator<Item = (Value, Value)>) -> ResolveResult {
    let Value::Map(map) = map else { return Err(ExecutionError::NoSuchOverload) };
    let mut all: HashMap<Key, Value> = map.map.as_ref().clone();
    for (key, value) in entries {
        let key: Key = key.try_into().map_err(|_| ExecutionError::NoSuchOverload)?;
        let shown = key.to_string();
        if all.insert(key, value).is_some() {
            let text = format!("insert failed: key {shown} already exists");
            return Err(ExecutionError::function_error(INSERT, text));
        }
    }
    Ok(Value::Map(Map { map: Arc::new(all) }))
}

/// A list in the order of the keys of its items.
fn sort_by(list: Arc<Vec<Value>>, keys: Arc<Vec<Value>>) -> ResolveResult {
    let mut keyed: Vec<(&Value, &Value)> = keys.iter().zip(list.iter()).collect();
    let is_ordered = |pair: &[(&Value, &Value)]| match pair {
        [(a, _), (b, _)] => a.partial_cmp(b).is_some(),
        _ => true,
    };
    if !keyed.windows(2).all(is_ordered) {
        return Err(ExecutionError::NoSuchOverload);
    }
    keyed.sort_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    Ok(Value::List(Arc::new(keyed.into_iter().map(|(_, item)| item.clone()).collect())))
}
