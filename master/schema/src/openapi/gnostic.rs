//! The v2 document in protobuf, as clients of before `/openapi/v3` ask for it, and kubectl still where v3 has not got what it
//! looks for (`openapi.v2.Document` of gnostic-models; the numbers below are its fields').

use std::convert::Infallible;

use serde_json::Value;

use crate::protobuf::wire::{put_bytes, put_double, put_integer, put_message};
use crate::value::Object;

/// Fields of a `Schema` by what they hold.
const TEXTS: [(&str, u32); 6] =
    [("$ref", 1), ("format", 2), ("title", 3), ("description", 4), ("pattern", 13), ("discriminator", 26)];
const NUMBERS: [(&str, u32); 3] = [("multipleOf", 6), ("maximum", 7), ("minimum", 9)];
const COUNTS: [(&str, u32); 6] = [
    ("maxLength", 11),
    ("minLength", 12),
    ("maxItems", 14),
    ("minItems", 15),
    ("maxProperties", 17),
    ("minProperties", 18),
];
const FLAGS: [(&str, u32); 4] =
    [("exclusiveMaximum", 8), ("exclusiveMinimum", 10), ("uniqueItems", 16), ("readOnly", 27)];
const VERBS: [(&str, u32); 7] =
    [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("options", 6), ("head", 7), ("patch", 8)];

/// Encodes a document of [`super::v2`].
pub(super) fn document(document: &Object) -> Vec<u8> {
    let mut out = Vec::new();
    text(document, "swagger", 1, &mut out);
    within(document, "info", 2, &mut out, |info, out| {
        text(info, "title", 1, out);
        text(info, "version", 2, out);
    });
    within(document, "paths", 8, &mut out, |paths, out| named_each(paths, 2, out, path_item));
    within(document, "definitions", 9, &mut out, |definitions, out| named_each(definitions, 1, out, schema));
    out
}

fn path_item(item: &Object, out: &mut Vec<u8>) {
    for (verb, field) in VERBS {
        within(item, verb, field, out, operation);
    }
    parameters(item, 9, out);
    extensions(item, 10, out);
}

fn operation(operation: &Object, out: &mut Vec<u8>) {
    text(operation, "description", 3, out);
    text(operation, "operationId", 5, out);
    texts(operation, "produces", 6, out);
    texts(operation, "consumes", 7, out);
    parameters(operation, 8, out);
    within(operation, "responses", 9, out, |responses, out| {
        named_each(responses, 1, out, |response, out| {
            message(out, 1, |out| {
                text(response, "description", 1, out);
                within(response, "schema", 2, out, |of, out| message(out, 1, |out| schema(of, out)));
            });
        });
    });
    extensions(operation, 13, out);
}

/// Each is a `ParametersItem` of a `Parameter`: one of a body, of a query or of the path.
fn parameters(of: &Object, field: u32, out: &mut Vec<u8>) {
    for parameter in list(of, "parameters").filter_map(Value::as_object) {
        let place = parameter.get("in").and_then(Value::as_str).unwrap_or_default();
        message(out, field, |out| {
            message(out, 1, |out| match place {
                "body" => message(out, 1, |out| body_parameter(parameter, out)),
                "path" => message(out, 2, |out| message(out, 4, |out| plain_parameter(parameter, 5, out))),
                _ => message(out, 2, |out| message(out, 3, |out| plain_parameter(parameter, 6, out))),
            });
        });
    }
}

fn body_parameter(parameter: &Object, out: &mut Vec<u8>) {
    text(parameter, "description", 1, out);
    text(parameter, "name", 2, out);
    text(parameter, "in", 3, out);
    flag(parameter, "required", 4, out);
    within(parameter, "schema", 5, out, schema);
}

/// Of a query, where the type is field 6, or of the path, where it is 5.
fn plain_parameter(parameter: &Object, type_field: u32, out: &mut Vec<u8>) {
    flag(parameter, "required", 1, out);
    text(parameter, "in", 2, out);
    text(parameter, "description", 3, out);
    text(parameter, "name", 4, out);
    text(parameter, "type", type_field, out);
}

fn schema(schema: &Object, out: &mut Vec<u8>) {
    TEXTS.iter().for_each(|(name, field)| text(schema, name, *field, out));
    for (name, field) in NUMBERS {
        if let Some(number) = schema.get(name).and_then(Value::as_f64) {
            put_double(out, field, number);
        }
    }
    for (name, field) in COUNTS {
        if let Some(count) = schema.get(name).and_then(Value::as_i64) {
            put_integer(out, field, count);
        }
    }
    FLAGS.iter().for_each(|(name, field)| flag(schema, name, *field, out));
    if let Some(default) = schema.get("default") {
        message(out, 5, |out| any(default, out));
    }
    texts(schema, "required", 19, out);
    for value in list(schema, "enum") {
        message(out, 20, |out| any(value, out));
    }
    match schema.get("additionalProperties") {
        Some(Value::Object(of)) => message(out, 21, |out| message(out, 1, |out| self::schema(of, out))),
        Some(Value::Bool(allowed)) => message(out, 21, |out| put_integer(out, 2, i64::from(*allowed))),
        _ => {}
    }
    if schema.contains_key("type") {
        message(out, 22, |out| text(schema, "type", 1, out));
    }
    if let Some(items) = schema.get("items").and_then(Value::as_object) {
        message(out, 23, |out| message(out, 1, |out| self::schema(items, out)));
    }
    for part in list(schema, "allOf").filter_map(Value::as_object) {
        message(out, 24, |out| self::schema(part, out));
    }
    within(schema, "properties", 25, out, |properties, out| named_each(properties, 1, out, self::schema));
    extensions(schema, 31, out);
}

/// The members whose names begin with `x-`, each a `NamedAny`.
fn extensions(of: &Object, field: u32, out: &mut Vec<u8>) {
    for (name, value) in of.iter().filter(|(name, _)| name.starts_with("x-")) {
        message(out, field, |out| {
            put_bytes(out, 1, name.as_bytes());
            message(out, 2, |out| any(value, out));
        });
    }
}

/// An `Any` says its value as YAML; every JSON is one.
fn any(value: &Value, out: &mut Vec<u8>) {
    put_bytes(out, 2, value.to_string().as_bytes());
}

/// Each member as a message of its name and what `write` makes of it.
fn named_each(of: &Object, field: u32, out: &mut Vec<u8>, write: impl Fn(&Object, &mut Vec<u8>)) {
    for (name, value) in of.iter().filter_map(|(name, value)| Some((name, value.as_object()?))) {
        message(out, field, |out| {
            put_bytes(out, 1, name.as_bytes());
            message(out, 2, |out| write(value, out));
        });
    }
}

fn within(of: &Object, name: &str, field: u32, out: &mut Vec<u8>, write: impl FnOnce(&Object, &mut Vec<u8>)) {
    if let Some(object) = of.get(name).and_then(Value::as_object) {
        message(out, field, |out| write(object, out));
    }
}

fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let Ok(()) = put_message(out, field, |out| {
        write(out);
        Ok::<_, Infallible>(())
    });
}

fn list<'a>(of: &'a Object, name: &str) -> impl Iterator<Item = &'a Value> {
    of.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn text(of: &Object, name: &str, field: u32, out: &mut Vec<u8>) {
    if let Some(text) = of.get(name).and_then(Value::as_str) {
        put_bytes(out, field, text.as_bytes());
    }
}

fn texts(of: &Object, name: &str, field: u32, out: &mut Vec<u8>) {
    list(of, name).filter_map(Value::as_str).for_each(|text| put_bytes(out, field, text.as_bytes()));
}

fn flag(of: &Object, name: &str, field: u32, out: &mut Vec<u8>) {
    if of.get(name).and_then(Value::as_bool) == Some(true) {
        put_integer(out, field, 1);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_written_as_gnostic_writes_it() {
        let a = json!({ "$ref": "#/definitions/A" });
        let parameters = json!([
            { "name": "q", "in": "query", "type": "string" },
            { "name": "p", "in": "path", "required": true, "type": "string" },
            { "name": "body", "in": "body", "schema": a },
        ]);
        let answers = json!({ "200": { "description": "OK", "schema": a } });
        let small = json!({
            "swagger": "2.0",
            "info": { "title": "T", "version": "v1" },
            "paths": { "/a": { "get": { "operationId": "getA", "parameters": parameters, "responses": answers } } },
            "definitions": { "A": {
                "minimum": 0.5, "maxItems": 3, "required": ["b"], "additionalProperties": true, "type": "object",
                "properties": { "b": { "type": "array", "items": a } },
            } },
        });
        let written: String = document(small.as_object().unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(written, GOLDEN);
    }

    #[test]
    fn extensions_are_yaml() {
        let mut out = Vec::new();
        extensions(json!({ "x-a": { "b": "c" }, "y": 1 }).as_object().unwrap(), 31, &mut out);
        assert_eq!(out, b"\xfa\x01\x12\x0a\x03x-a\x12\x0b\x12\x09{\"b\":\"c\"}");
    }

    /// `proto.Marshal(openapi_v2.ParseDocument(…))` of gnostic-models 0.7.0.
    const GOLDEN: &str = "0a03322e3012070a0154120276314293011290010a022f611289011286012a046765744142180a1612141a12120571756572792201713206\
         737472696e6742190a171215221308011204706174682201702a06737472696e6742230a210a1f1204626f64791a04626f64792a110a0f23\
         2f646566696e6974696f6e732f414a240a220a03323030121b0a190a024f4b12130a110a0f232f646566696e6974696f6e732f414a500a4e\
         0a0141124949000000000000e03f70039a010162aa01021001b201080a066f626a656374ca01270a250a01621220b201070a056172726179\
         ba01130a110a0f232f646566696e6974696f6e732f41";
}
