//! A schema as types: how objects of a custom kind are taken apart for server-side apply.
//!
//! Types live as long as the process, as those of the built-in kinds do; what that costs is in
//! `docs/adr` (custom kinds are interned).

use super::schema::{Additional, Schema};
use crate::types::{Definition, Field, Topology, Type, types};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The definition of the objects of a kind.
pub(super) fn root(schema: &Schema, kind: &'static str) -> &'static Definition {
    let meta = types().root(META).unwrap_or(Type::Any);
    let own = schema.properties.iter().filter(|(name, _)| !is_implied(name));
    let mut fields: Vec<Field> = own.map(|(name, schema)| field(name, schema)).collect();
    fields.push(plain("apiVersion", Type::Text));
    fields.push(plain("kind", Type::Text));
    fields.push(plain("metadata", meta));
    definition(kind, fields, schema)
}

fn is_implied(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

fn definition(name: &'static str, mut fields: Vec<Field>, schema: &Schema) -> &'static Definition {
    fields.sort_by_key(|field| field.name);
    let open = schema.preserve;
    Box::leak(Box::new(Definition { name, go: name, atomic: schema.atomic_map, open, fields: fields.into() }))
}

fn plain(name: &'static str, kind: Type) -> Field {
    Field {
        name,
        kind,
        pointer: true,
        omit_empty: false,
        go: "",
        default: None,
        merge_key: None,
        merge: false,
        topology: Topology::Plain,
    }
}

fn field(name: &str, schema: &Schema) -> Field {
    let topology = match schema.list_type.as_str() {
        "map" => {
            let keys: Vec<&'static str> = schema.list_keys.iter().map(|key| intern(key)).collect();
            Topology::Keyed(Vec::leak(keys))
        }
        "set" => Topology::Set,
        _ if schema.atomic_map || schema.kind == "array" => Topology::Atomic,
        _ => Topology::Plain,
    };
    Field { topology, default: schema.default.clone(), ..plain(intern(name), of(schema)) }
}

fn of(schema: &Schema) -> Type {
    if schema.int_or_string {
        return Type::IntOrString;
    }
    match schema.kind.as_str() {
        "object" => object(schema),
        "array" => Type::List(leak(schema.items.as_deref().map_or(Type::Any, of))),
        "string" => Type::Text,
        "boolean" => Type::Bool,
        "integer" => Type::Int64,
        "number" => Type::Float,
        _ => Type::Any,
    }
}

fn object(schema: &Schema) -> Type {
    match &schema.additional {
        Additional::Of(values) => Type::Map(leak(of(values))),
        Additional::Any => Type::Map(leak(Type::Any)),
        Additional::Unsaid if schema.embedded => Type::Custom(root(schema, "object")),
        Additional::Unsaid if schema.preserve && schema.properties.is_empty() => Type::Any,
        Additional::Unsaid => {
            let fields = schema.properties.iter().map(|(name, schema)| field(name, schema)).collect();
            Type::Custom(definition("object", fields, schema))
        }
    }
}

fn leak(kind: Type) -> &'static Type {
    Box::leak(Box::new(kind))
}

pub(super) fn intern(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}
