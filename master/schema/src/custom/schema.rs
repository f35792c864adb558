//! A structural schema (`openAPIV3Schema` of a CustomResourceDefinition), read once for all objects that it judges.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use crate::value::Fields;

/// One node of a structural schema.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`; empty where nothing is asked of the type.
    pub kind: String,
    pub nullable: bool,
    pub int_or_string: bool,
    /// Fields that nobody declared stay.
    pub preserve: bool,
    /// The object is a whole Kubernetes object.
    pub embedded: bool,
    pub properties: BTreeMap<String, Schema>,
    pub additional: Additional,
    pub items: Option<Box<Schema>>,
    pub default: Option<Value>,
    /// `x-kubernetes-list-type`: `atomic`, `set` or `map`.
    pub list_type: String,
    pub list_keys: Vec<String>,
    /// `x-kubernetes-map-type: atomic`
    pub atomic_map: bool,
    pub checks: Checks,
}

/// What fields may there be that are not declared by name.
#[derive(Debug, Default)]
pub(crate) enum Additional {
    /// None.
    #[default]
    Unsaid,
    /// `additionalProperties: true`
    Any,
    /// Of this schema.
    Of(Box<Schema>),
}

/// What values must look like, beside their type.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub format: String,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<u64>,
    pub min_length: Option<u64>,
    pub pattern: Option<Regex>,
    pub max_items: Option<u64>,
    pub min_items: Option<u64>,
    pub max_properties: Option<u64>,
    pub min_properties: Option<u64>,
    pub required: Vec<String>,
    pub allowed: Option<Vec<Value>>,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
}

impl Schema {
    /// Reads a schema that was validated with its definition; what is no schema asks for nothing.
    pub fn parse(raw: &Value) -> Schema {
        let child = |field: &str| raw.has(field).then(|| Box::new(Schema::parse(raw.at(field))));
        Schema {
            kind: raw.text("type").to_owned(),
            nullable: raw.flag("nullable"),
            int_or_string: raw.flag("x-kubernetes-int-or-string"),
            preserve: raw.flag("x-kubernetes-preserve-unknown-fields"),
            embedded: raw.flag("x-kubernetes-embedded-resource"),
            properties: raw.entries("properties").map(|(name, raw)| (name.clone(), Schema::parse(raw))).collect(),
            additional: match raw.at("additionalProperties") {
                Value::Bool(true) => Additional::Any,
                schema @ Value::Object(_) => Additional::Of(Box::new(Schema::parse(schema))),
                _ => Additional::Unsaid,
            },
            items: child("items"),
            default: raw.has("default").then(|| raw.at("default").clone()),
            list_type: raw.text("x-kubernetes-list-type").to_owned(),
            list_keys: texts(raw, "x-kubernetes-list-map-keys"),
            atomic_map: raw.text("x-kubernetes-map-type") == "atomic",
            checks: Checks::parse(raw),
        }
    }

    /// The schema of the values of a map, if this is one.
    pub fn values(&self) -> Option<&Schema> {
        match &self.additional {
            Additional::Of(schema) => Some(schema),
            Additional::Unsaid | Additional::Any => None,
        }
    }

    /// The schema of a field.
    pub fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or_else(|| self.values())
    }
}

impl Checks {
    fn parse(raw: &Value) -> Checks {
        let list = |field: &str| raw.list(field).iter().map(Schema::parse).collect();
        let float = |field: &str| raw.at(field).as_f64();
        let count = |field: &str| raw.at(field).as_u64();
        Checks {
            format: supported_format(raw.text("type"), raw.text("format")),
            maximum: float("maximum"),
            exclusive_maximum: raw.flag("exclusiveMaximum"),
            minimum: float("minimum"),
            exclusive_minimum: raw.flag("exclusiveMinimum"),
            multiple_of: float("multipleOf"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: Some(raw.text("pattern")).filter(|p| !p.is_empty()).and_then(|p| Regex::new(p).ok()),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: texts(raw, "required"),
            allowed: raw.at("enum").as_array().filter(|list| !list.is_empty()).cloned(),
            all_of: list("allOf"),
            any_of: list("anyOf"),
            one_of: list("oneOf"),
            not: raw.has("not").then(|| Box::new(Schema::parse(raw.at("not")))),
        }
    }
}

fn texts(raw: &Value, field: &str) -> Vec<String> {
    raw.list(field).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Formats that say nothing to this type count as none (`StripUnsupportedFormatsPostProcess`).
fn supported_format(kind: &str, format: &str) -> String {
    let known = match kind {
        "" | "string" => super::formats::is_known(format),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    };
    if known { format.to_owned() } else { String::new() }
}
