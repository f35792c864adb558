//! What becomes of an object when it is read by its schema: undeclared fields go, nulls that may not be go, and defaults
//! come (`apiextensions-apiserver/pkg/apiserver/schema/{pruning,defaulting}`).

use serde_json::Value;

use super::schema::{Additional, Schema};
use crate::decode;
use crate::errors::{DecodeError, Path, quote};
use crate::value::Object;

/// What every object has, whatever its schema says.
const IMPLIED: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops undeclared fields, and reads metadata as all objects' metadata is read. `warnings` names what was dropped.
pub(super) fn prune(schema: &Schema, object: &mut Value, warnings: &mut Vec<String>) -> Result<(), DecodeError> {
    Pruner { warnings }.value(schema, object, None, true)
}

struct Pruner<'a> {
    warnings: &'a mut Vec<String>,
}

impl Pruner<'_> {
    fn value(
        &mut self,
        schema: &Schema,
        value: &mut Value,
        at: Option<&Path<'_>>,
        is_root: bool,
    ) -> Result<(), DecodeError> {
        match value {
            Value::Object(object) => self.object(schema, object, at, is_root || schema.embedded),
            Value::Array(list) => {
                let Some(items) = &schema.items else { return Ok(()) };
                for (index, item) in list.iter_mut().enumerate() {
                    let path = at.map(|at| at.index(index));
                    self.value(items, item, path.as_ref(), false)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn object(
        &mut self,
        schema: &Schema,
        object: &mut Object,
        at: Option<&Path<'_>>,
        is_resource: bool,
    ) -> Result<(), DecodeError> {
        let mut dropped = Vec::new();
        for (name, value) in object.iter_mut() {
            let path = at.map_or_else(|| Path::root(name), |at| at.child(name));
            if is_resource && IMPLIED.contains(&name.as_str()) {
                if name == "metadata" && value.is_object() {
                    *value = decode::metadata(value.take(), &path, self.warnings)?;
                }
                continue;
            }
            match schema.field(name) {
                Some(inner) => self.value(inner, value, Some(&path), false)?,
                None if schema.preserve || matches!(schema.additional, Additional::Any) => {}
                None => {
                    decode::note(self.warnings, || format!("unknown field {}", quote(&path.to_string())));
                    dropped.push(name.clone());
                }
            }
        }
        dropped.iter().for_each(|name| {
            object.remove(name);
        });
        Ok(())
    }
}

/// Drops nulls where there may be none and no default stands for them.
pub(super) fn drop_nulls(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|name, value| {
                let Some(schema) = schema.field(name) else { return true };
                if value.is_null() {
                    return schema.nullable || schema.default.is_some();
                }
                drop_nulls(schema, value);
                true
            });
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                list.iter_mut().for_each(|item| drop_nulls(items, item));
            }
        }
        _ => {}
    }
}

/// Fills in defaults, from the outside in.
pub(super) fn default(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (name, inner) in &schema.properties {
                if !object.contains_key(name)
                    && let Some(default) = &inner.default
                {
                    object.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in object.iter_mut() {
                if let Some(inner) = schema.field(name) {
                    instead_of_null(inner, value);
                    default(inner, value);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            for item in list {
                instead_of_null(items, item);
                default(items, item);
            }
        }
        _ => {}
    }
}

fn instead_of_null(schema: &Schema, value: &mut Value) {
    if let Some(default) = schema.default.as_ref().filter(|_| value.is_null() && !schema.nullable) {
        *value = default.clone();
    }
}
