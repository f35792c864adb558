//! From a request body to an object: types checked, unknown fields dropped, values made canonical, and zero values
//! left out or filled in as a round trip through upstream's Go structs would.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{DecodeError, Path, quote};
use crate::json;
use crate::kind::{Decoded, FieldValidation, Kind};
use crate::quantity;
use crate::types::{Definition, Else, Field, Type, Types, types};
use crate::value::{DEEPEST, Object, float, is_deeper, is_zero};

/// How many unknown and duplicate fields are told of (`sigs.k8s.io/json`: `strictErrors`).
const MOST_NOTED: usize = 100;
/// Fields with longer paths come last.
const LONGEST_ORDERED: usize = 1_024;

pub(crate) fn from_json(kind: &Kind, body: &[u8], validation: FieldValidation) -> Result<Decoded, DecodeError> {
    let (value, duplicates) = json::parse(body).map_err(|e| DecodeError::Syntax(e.to_string()))?;
    let mut decoded = from_value(kind, value, duplicates, validation);
    match &mut decoded {
        // What a schema says of a custom object is said after all that its text says.
        Ok(Decoded { warnings, .. }) | Err(DecodeError::Strict(warnings)) if kind.custom.is_none() => {
            as_they_come(warnings, body);
        }
        _ => {}
    }
    decoded
}

/// Notes what is wrong with a field, unless so much was noted that nobody reads on: a body may hold a million such fields,
/// with paths as long as itself.
pub(crate) fn note(warnings: &mut Vec<String>, what: impl FnOnce() -> String) {
    if warnings.len() < MOST_NOTED {
        warnings.push(what());
    }
}

/// Brings unknown and duplicate fields into the order of the text, each named once, as Go's decoder meets them.
fn as_they_come(warnings: &mut Vec<String>, body: &[u8]) {
    if warnings.len() < 2 {
        return;
    }
    let mut places: HashMap<String, usize> = warnings.iter().map(|warning| (warning.clone(), usize::MAX)).collect();
    let mut place = 0;
    json::each_field(body, |field| {
        place += 1;
        if field.len() > LONGEST_ORDERED {
            return;
        }
        let field = quote(field);
        if let Some(first) = places.get_mut(&format!("unknown field {field}")) {
            *first = place.min(*first);
        }
        if let Some(last) = places.get_mut(&format!("duplicate field {field}")) {
            *last = place;
        }
    });
    warnings.sort_by_key(|warning| places.get(warning).copied().unwrap_or(usize::MAX));
    warnings.dedup();
}

pub(crate) fn from_value(
    kind: &Kind,
    value: Value,
    duplicates: Vec<String>,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    // Of metadata only managed fields are deep, and those follow the rest.
    let mut fields = value.as_object().into_iter().flatten().filter(|(name, _)| *name != "metadata");
    if fields.any(|(_, inner)| is_deeper(inner, DEEPEST - 1)) {
        return Err(DecodeError::Syntax("exceeded max depth".into()));
    }
    if let Some(custom) = kind.custom {
        return custom.decode(value, duplicates, validation);
    }
    let tables = types();
    let root = tables.root(kind.definition).unwrap_or(Type::Any);
    let mut decoder = Decoder { tables, warnings: duplicates };
    let name = format!("{}.{}", kind.version, kind.kind);
    let mut value = decoder.value(root, value, &Place { path: None, owner: "", go: &name })?;
    if let Value::Object(object) = &mut value {
        object.entry("apiVersion").or_insert_with(|| kind.api_version().into());
        object.entry("kind").or_insert_with(|| kind.kind.into());
    }
    match validation {
        FieldValidation::Strict if !decoder.warnings.is_empty() => Err(DecodeError::Strict(decoder.warnings)),
        FieldValidation::Ignore => Ok(Decoded { value, warnings: Vec::new() }),
        _ => Ok(Decoded { value, warnings: decoder.warnings }),
    }
}

/// Reads the metadata of a custom resource as all metadata is read.
pub(crate) fn metadata(value: Value, path: &Path, warnings: &mut Vec<String>) -> Result<Value, DecodeError> {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let tables = types();
    let mut decoder = Decoder { tables, warnings: Vec::new() };
    let place = Place { path: Some(path), owner: "", go: "" };
    let value = decoder.value(tables.root(META).unwrap_or(Type::Any), value, &place)?;
    warnings.append(&mut decoder.warnings);
    Ok(value)
}

/// The value that a field of a kind has when nothing is said about it, or null.
pub(crate) fn zero(kind: &Kind, field: &str) -> Value {
    let tables = types();
    let Some(Type::Object(index)) = tables.root(kind.definition) else { return Value::Null };
    let Some(field) = tables.get(index).and_then(|d| d.field(field)) else { return Value::Null };
    let mut decoder = Decoder { tables, warnings: Vec::new() };
    decoder.value(field.kind, Value::Null, &Place { path: None, owner: "", go: "" }).unwrap_or_default()
}

/// Where the decoder is, as Go would name it.
struct Place<'a> {
    path: Option<&'a Path<'a>>,
    /// The Go struct that holds the field; empty at the root.
    owner: &'a str,
    /// The Go type of the value; empty where it follows from the type.
    go: &'a str,
}

impl Place<'_> {
    /// `json: cannot unmarshal string into Go struct field PodSpec.spec.hostPID of type bool`
    fn mismatch(&self, found: &str, wanted: &str) -> DecodeError {
        let wanted = if self.go.is_empty() { wanted } else { self.go };
        DecodeError::Type(match self.path {
            Some(path) => format!(
                "json: cannot unmarshal {found} into Go struct field {}.{} of type {wanted}",
                self.owner,
                path.fields()
            ),
            None => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
        })
    }
}

struct Decoder {
    tables: &'static Types,
    warnings: Vec<String>,
}

impl Decoder {
    fn value(&mut self, kind: Type, value: Value, place: &Place) -> Result<Value, DecodeError> {
        match (kind, value) {
            (Type::Any, value) => Ok(value),
            (Type::Object(index), value) => match self.tables.get(index) {
                Some(definition) => self.object(definition, value, place),
                None => Ok(value),
            },
            (_, Value::Null) => Ok(Value::Null),
            (Type::Either(index, other), value) => self.either(Type::Object(index), other, value, place),
            (Type::List(item), Value::Array(list)) => self.list(*item, list, place),
            (Type::Map(item), Value::Object(map)) => self.map(*item, map, place),
            (Type::List(_), other) => Err(place.mismatch(&found(&other), "[]interface {}")),
            (Type::Map(_), other) => Err(place.mismatch(&found(&other), "map[string]interface {}")),
            (kind, value) => scalar(kind, value, place),
        }
    }

    fn either(&mut self, object: Type, other: Else, value: Value, place: &Place) -> Result<Value, DecodeError> {
        match (other, value) {
            (_, value @ Value::Object(_)) => self.value(object, value, place),
            (Else::Bool, value @ Value::Bool(_)) => Ok(value),
            (Else::Objects, Value::Array(list)) => self.list(object, list, place),
            (Else::Texts, Value::Array(list)) => self.list(Type::Text, list, place),
            (_, value) => Err(place.mismatch(&found(&value), "v1.JSONSchemaProps")),
        }
    }

    fn list(&mut self, item: Type, list: Vec<Value>, place: &Place) -> Result<Value, DecodeError> {
        let go = place.go.strip_prefix("[]").unwrap_or_default().trim_start_matches('*');
        let mut out = Vec::with_capacity(list.len());
        for (index, value) in list.into_iter().enumerate() {
            let path = place.path.map(|p| p.index(index));
            let value = self.value(item, value, &Place { path: path.as_ref(), owner: place.owner, go })?;
            out.push(if value.is_null() { zero_of(item).unwrap_or(value) } else { value });
        }
        Ok(Value::Array(out))
    }

    fn map(&mut self, item: Type, map: Object, place: &Place) -> Result<Value, DecodeError> {
        let go = place.go.strip_prefix("map[").and_then(|rest| rest.split_once(']')).map_or("", |(_, value)| value);
        let go = if item == Type::Base64 { "[]uint8" } else { go };
        let mut out = Object::new();
        for (key, value) in map {
            let path = place.path.map(|p| p.key(&key));
            let value = self.value(item, value, &Place { path: path.as_ref(), owner: place.owner, go })?;
            let value = match (value, item) {
                // Of no bytes, and none, only one can be stored.
                (Value::Null, Type::Base64) => "".into(),
                (Value::Null, _) => zero_of(item).unwrap_or_default(),
                (value, _) => value,
            };
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }

    fn object(&mut self, definition: &Definition, value: Value, place: &Place) -> Result<Value, DecodeError> {
        let map = match value {
            Value::Object(map) => map,
            Value::Null => Object::new(),
            other => return Err(place.mismatch(&found(&other), definition.go)),
        };
        let mut out = Object::new();
        for (key, value) in map {
            let path = match place.path {
                Some(path) => path.child(&key),
                None => Path::root(&key),
            };
            let Some(field) = definition.field(&key) else {
                note(&mut self.warnings, || format!("unknown field {}", quote(&path.to_string())));
                continue;
            };
            if value.is_null() {
                continue;
            }
            let go = if field.go.is_empty() { plain_go(field.kind) } else { field.go };
            let value = self.value(field.kind, value, &Place { path: Some(&path), owner: definition.go, go })?;
            // An empty list of owners asks to forget them.
            if !left_out(field, &value) || (field.name == "managedFields" && value.is_array()) {
                out.insert(key, value);
            }
        }
        self.fill(definition, &mut out)?;
        Ok(Value::Object(out))
    }

    /// Adds what Go encodes even where the client said nothing: `resources: {}`, `restartCount: 0`.
    fn fill(&mut self, definition: &Definition, out: &mut Object) -> Result<(), DecodeError> {
        for field in definition.fields.iter().filter(|f| !f.pointer && !f.omit_empty) {
            if out.contains_key(field.name) {
                continue;
            }
            let zero = match field.kind {
                Type::Object(index) => match self.tables.get(index) {
                    Some(inner) => Some(self.object(inner, Value::Null, &Place { path: None, owner: "", go: "" })?),
                    None => None,
                },
                other => zero_of(other),
            };
            if let Some(zero) = zero {
                out.insert(field.name.to_string(), zero);
            }
        }
        Ok(())
    }
}

/// Whether Go's `omitempty` (or `omitzero`) drops the value.
fn left_out(field: &Field, value: &Value) -> bool {
    if value.is_null() {
        return true;
    }
    if field.pointer || !field.omit_empty {
        return false;
    }
    match value {
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        other => is_zero(other),
    }
}

/// The zero value that JSON can show; lists, maps and times have none.
fn zero_of(kind: Type) -> Option<Value> {
    match kind {
        Type::Text => Some("".into()),
        Type::Bool => Some(false.into()),
        Type::Int32 | Type::Int64 | Type::Float | Type::IntOrString => Some(0.into()),
        Type::Quantity => Some("0".into()),
        _ => None,
    }
}

fn plain_go(kind: Type) -> &'static str {
    match kind {
        Type::Text => "string",
        Type::Bool => "bool",
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Float => "float64",
        _ => "",
    }
}

fn scalar(kind: Type, value: Value, place: &Place) -> Result<Value, DecodeError> {
    match (kind, value) {
        (Type::Text, Value::String(text)) => Ok(text.into()),
        (Type::Bool, Value::Bool(flag)) => Ok(flag.into()),
        (Type::Int32, Value::Number(n)) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(n.into()),
        (Type::Int64, Value::Number(n)) if n.is_i64() => Ok(n.into()),
        (Type::Float, Value::Number(n)) => Ok(n.as_f64().map_or_else(|| n.clone().into(), float)),
        (Type::Int32 | Type::Int64, Value::Number(n)) => Err(place.mismatch(&format!("number {n}"), plain_go(kind))),
        (Type::Base64, Value::String(text)) => base64_text(&text),
        (Type::Quantity, Value::String(text)) => quantity_text(&text),
        (Type::Quantity, Value::Number(n)) => quantity_text(&n.to_string()),
        (Type::Quantity, _) => Err(DecodeError::Type(quantity::ParseError::Format.to_string())),
        (Type::IntOrString, Value::String(text)) => Ok(text.into()),
        (Type::IntOrString, Value::Number(n)) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(n.into()),
        (Type::IntOrString, Value::Number(n)) => Err(unmarshal(&format!("number {n}"), "int32")),
        (Type::IntOrString, other) => Err(unmarshal(&found(&other), "int32")),
        (Type::Time, Value::String(text)) => time(&text, "2006-01-02T15:04:05Z07:00", 0),
        (Type::MicroTime, Value::String(text)) => time(&text, "2006-01-02T15:04:05.000000Z07:00", 6),
        (Type::Time | Type::MicroTime, other) => Err(unmarshal(&found(&other), "string")),
        (kind, other) => Err(place.mismatch(&found(&other), plain_go(kind))),
    }
}

/// The error of a type that reads itself: Go names no field then.
fn unmarshal(found: &str, wanted: &str) -> DecodeError {
    DecodeError::Type(format!("json: cannot unmarshal {found} into Go value of type {wanted}"))
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
    .to_string()
}

fn quantity_text(text: &str) -> Result<Value, DecodeError> {
    quantity::canonical(text).map(Value::from).map_err(|e| DecodeError::Type(e.to_string()))
}

/// Go skips line breaks in base64, and so do we.
fn base64_text(text: &str) -> Result<Value, DecodeError> {
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&compact) {
        Ok(_) => Ok(compact.into()),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                _ => compact.len() / 4 * 4,
            };
            Err(DecodeError::Type(format!("illegal base64 data at input byte {at}")))
        }
    }
}

/// A time in UTC with `digits` decimals of a second, as upstream encodes it.
fn time(text: &str, layout: &str, digits: usize) -> Result<Value, DecodeError> {
    let parsed: Option<Timestamp> = if text.contains('T') && !text.contains('[') { text.parse().ok() } else { None };
    match parsed {
        Some(time) => Ok(format!("{time:.digits$}").into()),
        None => Err(DecodeError::Type(format!(
            "parsing time {} as {}: cannot parse {} as \"2006\"",
            quote(text),
            quote(layout),
            quote(text)
        ))),
    }
}
