//! Objects between bytes and values.

use bytes::Bytes;
use http::HeaderMap;
use schema::{DecodeError, FieldValidation, Kind, protobuf};
use serde_json::{Map, Value};
use store::Encoded;

use crate::problem::{Problem, Result};
use crate::request::{Format, body_format};

/// Any body as a value. One in protobuf that does not say what it is counts as `kind` of `version`.
pub(crate) fn parse(headers: &HeaderMap, body: &Bytes, (version, kind): (&str, &str)) -> Result<Value> {
    match body_format(headers)? {
        Format::Json => serde_json::from_slice(body).map_err(|error| Problem::bad_request(error.to_string())),
        Format::Yaml => serde_saphyr::from_slice(body)
            .map_err(|error| Problem::bad_request(format!("error converting YAML to JSON: {error}"))),
        Format::Protobuf => {
            protobuf::decode(body, version, kind).map_err(|error| Problem::bad_request(error.to_string()))
        }
    }
}

/// A body as an object of `kind`; `warnings` gets what the client must be told.
pub(crate) fn decode(
    kind: &Kind,
    headers: &HeaderMap,
    body: &Bytes,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value> {
    let decoded = if body_format(headers)? == Format::Json {
        kind.decode(body, validation)
    } else {
        kind.decode_value(parse(headers, body, (&kind.api_version(), kind.kind))?, validation)
    };
    let decoded = decoded.map_err(|error| refused(kind, &error))?;
    warnings.extend(decoded.warnings);
    must_be(kind, &decoded.value)?;
    Ok(decoded.value)
}

/// A patched object, checked as a body is.
pub(super) fn decode_value(
    kind: &Kind,
    value: Value,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value> {
    let decoded = kind.decode_value(value, validation).map_err(|error| refused(kind, &error))?;
    warnings.extend(decoded.warnings);
    must_be(kind, &decoded.value)?;
    Ok(decoded.value)
}

fn refused(kind: &Kind, error: &DecodeError) -> Problem {
    let (name, version) = (kind.kind, kind.version);
    Problem::bad_request(format!("{name} in version \"{version}\" cannot be handled as a {name}: {error}"))
}

fn must_be(kind: &Kind, object: &Value) -> Result<()> {
    let said = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let (version, name) = (said("apiVersion"), said("kind"));
    if version == kind.api_version() && name == kind.kind {
        return Ok(());
    }
    let group = |version: &str| version.rsplit_once('/').map_or("", |(group, _)| group).to_owned();
    if name == kind.kind && group(version) == kind.group {
        let expected = kind.api_version();
        return Err(Problem::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    Err(Problem::bad_request(format!(
        "{version}, Kind={name}: the object provided is unrecognized (must be of type {}): couldn't get version/kind; it is no {}",
        kind.kind,
        kind.api_version(),
    )))
}

/// An object as it is stored: kind, apiVersion and metadata first, so that the place of the resourceVersion is known and
/// a list can leave the first two out.
pub(crate) fn encode(object: &Value) -> Encoded {
    let empty = Map::new();
    let members = object.as_object().unwrap_or(&empty);
    let text = |name: &str| members.get(name).cloned().unwrap_or_default();
    let mut out = Vec::with_capacity(1_024);
    out.extend_from_slice(prefix(&text("kind"), &text("apiVersion")).as_bytes());
    out.extend_from_slice(b"\"metadata\":{");
    let splice = out.len();
    let metadata = members.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    members_of(&mut out, metadata.iter().filter(|(name, _)| name.as_str() != "resourceVersion"));
    out.push(b'}');
    let rest = members.iter().filter(|(name, _)| !matches!(name.as_str(), "kind" | "apiVersion" | "metadata"));
    let before = out.len();
    out.push(b',');
    members_of(&mut out, rest);
    if out.len() == before + 1 {
        out.truncate(before);
    }
    out.push(b'}');
    Encoded { json: out.into(), splice: u32::try_from(splice).unwrap_or_default() }
}

fn prefix(kind: &Value, version: &Value) -> String {
    format!("{{\"kind\":{kind},\"apiVersion\":{version},")
}

/// The bytes of a stored object that a list leaves out, `{` apart.
pub(super) fn item_offset(kind: &Kind) -> usize {
    prefix(&kind.kind.into(), &kind.api_version().into()).len()
}

fn members_of<'a>(out: &mut Vec<u8>, members: impl Iterator<Item = (&'a String, &'a Value)>) {
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        // Writing to a Vec cannot fail, and neither can a value that was parsed.
        let _ = serde_json::to_writer(&mut *out, name);
        out.push(b':');
        let _ = serde_json::to_writer(&mut *out, value);
    }
}

/// A stored object as `kind` shows it, where no webhook converts it (`crate::conversion`) or what it would convert is not
/// looked at.
pub(crate) fn stored(kind: &Kind, json: &[u8]) -> Result<Value> {
    Ok(kind.from_storage(parse_stored(kind, json)?))
}

/// An object as it is stored.
pub(crate) fn parse_stored(kind: &Kind, json: &[u8]) -> Result<Value> {
    serde_json::from_slice(json).map_err(|error| {
        tracing::error!(kind = kind.kind, %error, "stored object is damaged");
        Problem::internal("a stored object cannot be read")
    })
}

/// Whether objects are stored as this very kind, so that stored bytes can be sent as they are.
pub(super) fn is_own_storage(kind: &Kind) -> bool {
    let storage = &kind.storage;
    // What was stored under another schema shows today's defaults.
    kind.custom.is_none() && (storage.group, storage.version, storage.plural) == (kind.group, kind.version, kind.plural)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::encode;

    #[test]
    fn metadata_comes_first_and_has_room_for_the_revision() {
        let object = json!({ "apiVersion": "v1", "data": { "a": "b" }, "kind": "ConfigMap",
            "metadata": { "name": "x", "resourceVersion": "7" } });
        let encoded = encode(&object);
        let text = std::str::from_utf8(&encoded.json).unwrap();
        assert_eq!(text, r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x"},"data":{"a":"b"}}"#);
        assert!(text[..encoded.splice as usize].ends_with(r#""metadata":{"#));
        let bare = encode(&json!({ "kind": "X", "apiVersion": "v1", "metadata": { "name": "x" } }));
        assert!(serde_json::from_slice::<Value>(&bare.json).is_ok());
    }
}
