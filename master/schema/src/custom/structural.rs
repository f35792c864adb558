//! Whether a schema is structural, as CustomResourceDefinitions need it (KEP-1152,
//! `apiextensions-apiserver/pkg/apiserver/schema/validation.go` and `pkg/apis/apiextensions/validation`).

use regex::Regex;
use serde_json::{Value, json};

use super::check::{self, Place};
use super::prune;
use super::schema::Schema;
use crate::errors::{Errors, Path};
use crate::value::{Fields, same};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const JUNCTIONS: [&str; 3] = ["anyOf", "allOf", "oneOf"];
/// What a schema may not say of alternatives of itself.
const ONLY_STRUCTURE: [(&str, &str); 11] = [
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
];

/// Where in an object the value of a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Everything wrong with the schema of a version.
pub(crate) fn check(raw: &Value, path: &Path<'_>, errors: &mut Errors) {
    let before = errors.len();
    if raw.flag("nullable") {
        errors.forbidden(&path.child("nullable"), "nullable cannot be true at the root");
    }
    invariants(raw, Level::Root, path, errors);
    complete(raw, raw, path, errors);
    if errors.len() == before {
        defaults(raw, path, errors);
    }
    let context = Context { is_root: true, in_meta: false, no_defaults: None };
    declared(raw, path, &context, errors);
}

fn invariants(raw: &Value, level: Level, path: &Path<'_>, errors: &mut Errors) {
    let kind = raw.text("type");
    if kind == "array" && !raw.has("items") {
        errors.required(&path.child("items"), "must be specified");
    }
    if raw.at("items").is_object() {
        invariants(raw.at("items"), Level::Item, &path.child("items"), errors);
    }
    for (name, inner) in raw.entries("properties") {
        invariants(inner, Level::Field, &path.child("properties").key(name), errors);
    }
    let additional = raw.at("additionalProperties");
    if level == Level::Root && raw.has("additionalProperties") {
        errors.forbidden(&path.child("additionalProperties"), "must not be used at the root");
    }
    if additional.is_object() {
        invariants(additional, Level::Field, &path.child("additionalProperties"), errors);
    }
    extensions(raw, path, errors);
    values(raw, level, path, errors);
    typed(raw, level, path, errors);
    if level == Level::Root || raw.flag("x-kubernetes-embedded-resource") {
        metadata(raw, level, path, errors);
    }
}

fn extensions(raw: &Value, path: &Path<'_>, errors: &mut Errors) {
    if !raw.flag("x-kubernetes-int-or-string") {
        return;
    }
    for field in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if raw.flag(field) {
            errors.invalid(&path.child(field), true, "must be false if x-kubernetes-int-or-string is true");
        }
    }
}

fn typed(raw: &Value, level: Level, path: &Path<'_>, errors: &mut Errors) {
    let (kind, place) = (raw.text("type"), path.child("type"));
    let embedded = raw.flag("x-kubernetes-embedded-resource");
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        if kind.is_empty() { errors.required(&place, detail) } else { errors.invalid(&place, kind, detail) }
    } else if kind.is_empty()
        && !raw.flag("x-kubernetes-int-or-string")
        && !raw.flag("x-kubernetes-preserve-unknown-fields")
    {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.required(&place, detail);
    }
    if embedded && raw.has("additionalProperties") {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.forbidden(&path.child("additionalProperties"), detail);
    }
    if embedded && !raw.flag("x-kubernetes-preserve-unknown-fields") && raw.entries("properties").next().is_none() {
        let detail =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.required(&path.child("properties"), detail);
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.invalid(&place, kind, "must be object at the root");
    }
}

/// What every object has may not be declared as something else.
fn metadata(raw: &Value, level: Level, path: &Path<'_>, errors: &mut Errors) {
    let properties = raw.at("properties");
    let path = path.child("properties");
    for name in ["kind", "apiVersion"] {
        let declared = properties.at(name);
        if !declared.is_null() && declared.text("type") != "string" {
            errors.invalid(&path.key(name).child("type"), declared.text("type"), "must be string");
        }
    }
    let declared = properties.at("metadata");
    if declared.is_null() {
        return;
    }
    let path = path.key("metadata");
    if declared.text("type") != "object" {
        errors.invalid(&path.child("type"), declared.text("type"), "must be object");
    }
    let only_names = |(field, value): (&String, &Value)| match field.as_str() {
        "type" => true,
        "properties" => {
            value.as_object().into_iter().flatten().all(|(n, _)| matches!(n.as_str(), "name" | "generateName"))
        }
        _ => false,
    };
    if level == Level::Root && !declared.as_object().into_iter().flatten().all(only_names) {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.forbidden(&path, detail);
    }
}

/// The two ways in which an int-or-string may repeat that it is one.
fn is_int_or_string(alternatives: &Value) -> bool {
    same(alternatives, &json!([{ "type": "integer" }, { "type": "string" }]))
}

fn values(raw: &Value, level: Level, path: &Path<'_>, errors: &mut Errors) {
    for junction in JUNCTIONS {
        if junction == "anyOf" && is_int_or_string(raw.at("anyOf")) {
            continue;
        }
        let path = path.child(junction);
        for (index, inner) in raw.list(junction).iter().enumerate() {
            nested(inner, level, &path.index(index), errors);
        }
    }
    if raw.has("not") {
        nested(raw.at("not"), level, &path.child("not"), errors);
    }
    let pattern = raw.text("pattern");
    if let Err(error) = Regex::new(pattern) {
        let why = error.to_string().replace('\n', " ");
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        errors.invalid(&path.child("pattern"), pattern, &detail);
    }
}

/// An alternative may only narrow values.
fn nested(raw: &Value, level: Level, path: &Path<'_>, errors: &mut Errors) {
    values(raw, level, path, errors);
    if raw.at("items").is_object() {
        nested(raw.at("items"), level, &path.child("items"), errors);
    }
    for (name, inner) in raw.entries("properties") {
        nested(inner, Level::Field, &path.child("properties").key(name), errors);
    }
    let is_set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false)) && *value != "";
    for (field, detail) in ONLY_STRUCTURE.iter().filter(|(field, _)| is_set(raw.at(field))) {
        errors.forbidden(&path.child(field), detail);
    }
    for (field, detail) in [
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ] {
        if raw.has(field) {
            errors.forbidden(&path.child(field), detail);
        }
    }
    if raw.at("properties").has("metadata") {
        errors.forbidden(&path.child("properties").key("metadata"), "must not be specified in a nested context");
    }
}

/// What alternatives speak of must be declared beside them.
fn complete(raw: &Value, structure: &Value, path: &Path<'_>, errors: &mut Errors) {
    for junction in JUNCTIONS {
        let from = path.child(junction);
        for (index, inner) in raw.list(junction).iter().enumerate() {
            declared_in(inner, structure, path, &from.index(index), errors);
        }
    }
    if raw.has("not") {
        declared_in(raw.at("not"), structure, path, &path.child("not"), errors);
    }
    for (name, inner) in raw.entries("properties") {
        complete(inner, inner, &path.child("properties").key(name), errors);
    }
    for field in ["items", "additionalProperties"] {
        if raw.at(field).is_object() {
            complete(raw.at(field), raw.at(field), &path.child(field), errors);
        }
    }
}

fn declared_in(inner: &Value, structure: &Value, path: &Path<'_>, from: &Path<'_>, errors: &mut Errors) {
    let because = |what: &Path<'_>| format!("because it is defined in {what}");
    for (name, value) in inner.entries("properties") {
        let (properties, from) = (path.child("properties"), from.child("properties"));
        let (place, from) = (properties.key(name), from.key(name));
        match structure.at("properties").at(name) {
            Value::Null => errors.required(&place, &because(&from)),
            declared => declared_in(value, declared, &place, &from, errors),
        }
    }
    if inner.has("items") {
        let (place, from) = (path.child("items"), from.child("items"));
        match structure.at("items") {
            Value::Null => errors.required(&place, &because(&from)),
            declared => declared_in(inner.at("items"), declared, &place, &from, errors),
        }
    }
    for junction in JUNCTIONS {
        let from = from.child(junction);
        for (index, deeper) in inner.list(junction).iter().enumerate() {
            declared_in(deeper, structure, path, &from.index(index), errors);
        }
    }
}

/// Defaults must fit their schemas and say nothing that is pruned.
fn defaults(raw: &Value, path: &Path<'_>, errors: &mut Errors) {
    if raw.has("default") {
        let (schema, default, place) = (Schema::parse(raw), raw.at("default"), path.child("default"));
        let mut pruned = json!({ "default": default.clone() });
        let mut wrapper = Schema::default();
        wrapper.properties.insert("default".into(), Schema::parse(raw));
        if prune::prune(&wrapper, &mut pruned, &mut Vec::new()).is_ok() && pruned.at("default") != default {
            errors.invalid(&place, default.clone(), "must not have unknown fields");
        }
        check::check(&schema, Place { value: default, old: None, path: Some(&place) }, errors);
    }
    for (name, inner) in raw.entries("properties") {
        defaults(inner, &path.child("properties").key(name), errors);
    }
    for field in ["items", "additionalProperties"] {
        if raw.at(field).is_object() {
            defaults(raw.at(field), &path.child(field), errors);
        }
    }
}

/// What the surroundings of a schema forbid it.
#[derive(Clone, Copy)]
struct Context {
    is_root: bool,
    in_meta: bool,
    /// Why there may be no defaults.
    no_defaults: Option<&'static str>,
}

fn declared(raw: &Value, path: &Path<'_>, context: &Context, errors: &mut Errors) {
    unsupported(raw, path, context, errors);
    if raw.flag("uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&path.child("uniqueItems"), detail);
    }
    let additional = raw.at("additionalProperties");
    if !additional.is_null() && raw.entries("properties").next().is_some() && *additional != true {
        let detail = "additionalProperties and properties are mutual exclusive";
        errors.forbidden(&path.child("additionalProperties"), detail);
    }
    let inner = Context { is_root: false, ..*context };
    if additional.is_object() {
        let reason = "inside additionalProperties applying to object metadata";
        let inner = if context.in_meta { Context { no_defaults: Some(reason), ..inner } } else { inner };
        declared(additional, &path.child("additionalProperties"), &inner, errors);
    }
    for (name, schema) in raw.entries("properties") {
        let is_meta = context.is_root || raw.flag("x-kubernetes-embedded-resource");
        let reason = match name.as_str() {
            "metadata" => "in top-level metadata",
            "kind" => "in top-level kind",
            "apiVersion" => "in top-level apiVersion",
            _ => "",
        };
        let mut inner = inner;
        if is_meta && !reason.is_empty() {
            inner.in_meta = true;
            inner.no_defaults = if context.is_root { Some(reason) } else { inner.no_defaults };
        }
        declared(schema, &path.child("properties").key(name), &inner, errors);
    }
    for junction in JUNCTIONS {
        let path = path.child(junction);
        for (index, schema) in raw.list(junction).iter().enumerate() {
            declared(schema, &path.index(index), &inner, errors);
        }
    }
    for field in ["not", "items"] {
        if raw.at(field).is_object() {
            declared(raw.at(field), &path.child(field), &inner, errors);
        }
    }
    extension_values(raw, path, errors);
    list_type(raw, path, errors);
}

fn unsupported(raw: &Value, path: &Path<'_>, context: &Context, errors: &mut Errors) {
    let kind = raw.text("type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, &TYPES);
    }
    if let Some(reason) = context.no_defaults.filter(|_| raw.has("default")) {
        errors.forbidden(&path.child("default"), &format!("must not be set {reason}"));
    }
    for field in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if raw.has(field) {
            errors.forbidden(&path.child(field), &format!("{field} is not supported"));
        }
    }
    if kind == "null" {
        errors.forbidden(&path.child("type"), "type cannot be set to null, use nullable as an alternative");
    }
    if raw.at("items").is_array() {
        errors.forbidden(&path.child("items"), "items must be a schema object and not an array");
    }
    if context.in_meta && raw.flag("x-kubernetes-embedded-resource") {
        errors.forbidden(&path.child("x-kubernetes-embedded-resource"), "must not be used inside of resource meta");
    }
}

fn extension_values(raw: &Value, path: &Path<'_>, errors: &mut Errors) {
    if *raw.at("x-kubernetes-preserve-unknown-fields") == false {
        errors.invalid(&path.child("x-kubernetes-preserve-unknown-fields"), false, "must be true or undefined");
    }
    let kind = raw.text("type");
    for (field, wanted, allowed) in [
        ("x-kubernetes-map-type", "object", &["atomic", "granular"][..]),
        ("x-kubernetes-list-type", "array", &["atomic", "set", "map"][..]),
    ] {
        let said = raw.text(field);
        if said.is_empty() {
            continue;
        }
        if kind != wanted {
            let detail = format!("must be {wanted} if {field} is specified");
            let place = path.child("type");
            if kind.is_empty() { errors.required(&place, &detail) } else { errors.invalid(&place, kind, &detail) }
        }
        if !allowed.contains(&said) {
            errors.not_supported(&path.child(field), said, allowed);
        }
    }
}

/// The rules of sets and maps.
fn list_type(raw: &Value, path: &Path<'_>, errors: &mut Errors) {
    const KEYS: &str = "x-kubernetes-list-map-keys";
    let (said, items) = (raw.text("x-kubernetes-list-type"), raw.at("items"));
    let (keys, in_items) = (raw.list(KEYS), path.child("items"));
    if said == "set" && items.text("type") == "object" && items.text("x-kubernetes-map-type") != "atomic" {
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        errors.invalid(&in_items.child("x-kubernetes-map-type"), Value::Null, detail);
    }
    if matches!(said, "set" | "map") && items.flag("nullable") {
        errors.forbidden(&in_items.child("nullable"), "cannot be nullable when x-kubernetes-list-type is set or map");
    }
    if !keys.is_empty() && said != "map" {
        let place = path.child("x-kubernetes-list-type");
        let detail = format!("must be map if {KEYS} is non-empty");
        if said.is_empty() { errors.required(&place, &detail) } else { errors.invalid(&place, said, &detail) }
    }
    if said != "map" {
        return;
    }
    if keys.is_empty() {
        errors.required(&path.child(KEYS), "must not be empty if x-kubernetes-list-type is map");
    }
    if items.text("type") != "object" {
        errors.invalid(
            &in_items.child("type"),
            items.text("type"),
            "must be object if parent array's x-kubernetes-list-type is map",
        );
    }
    for (index, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        let (place, properties) = (path.child(KEYS), in_items.child("properties"));
        let declared = items.at("properties").at(key);
        let shown = || raw.at(KEYS).clone();
        if keys.iter().take(index).any(|earlier| *earlier == key) {
            errors.invalid(&place, shown(), "must not contain duplicate entries");
        }
        if declared.is_null() {
            errors.invalid(&place, shown(), "entries must all be names of item properties");
            continue;
        }
        if matches!(declared.text("type"), "array" | "object") {
            let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.invalid(&properties.key(key).child("type"), declared.text("type"), detail);
        }
        let required = items.list("required").iter().any(|name| *name == key);
        if !required && !declared.has("default") {
            let detail =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&properties.key(key).child("default"), detail);
        }
    }
}
