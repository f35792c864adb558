//! Kubernetes' protobuf encoding (`application/vnd.kubernetes.protobuf`) as a transcoding to and from JSON values.
//!
//! One table says of every message which number and type each field has; there is no second set of types. What
//! [`decode`] gives is JSON as a client would have sent it, zero values included, and goes down the same road:
//! [`Kind::decode_value`](crate::Kind::decode_value).

mod decode;
mod encode;
mod table;
#[cfg(test)]
mod tests;
mod transcode;
pub(crate) mod wire;

use serde_json::Value;

use table::{Message, table};

/// The media type of a body.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// The media type of a watch: [`watch_event`]s, one behind the other.
pub const WATCH_MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// What every body begins with (`runtime/serializer/protobuf`).
const MAGIC: &[u8] = b"k8s\0";
const ENVELOPE: &str = "runtime.Unknown";

/// Why something cannot be transcoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Prefix,
    #[error("no kind {kind:?} is registered for version {version:?} in protobuf")]
    Unknown { version: String, kind: String },
    #[error("{0} is not an encoding that is understood here")]
    Encoding(String),
    #[error("protobuf message {message} is damaged: {damage}")]
    Damaged { message: String, damage: wire::Damage },
    #[error("protobuf field {field} of {message} holds {what}")]
    Content { message: String, field: String, what: &'static str },
    #[error("field {field} of {message} cannot be written as protobuf: {found} where {wanted} is wanted")]
    Value { message: String, field: String, found: String, wanted: &'static str },
    #[error("{message} cannot be written as protobuf: {reason}")]
    Json { message: String, reason: String },
    #[error("watch event is too large: {0} bytes")]
    TooLarge(usize),
}

/// Whether objects of this version and kind have a protobuf encoding.
pub fn describes(api_version: &str, kind: &str) -> bool {
    message(api_version, kind).is_some()
}

/// Reads a body, `k8s\0` and envelope included. A body that does not say what it is counts as `api_version` and `kind`.
pub fn decode(body: &[u8], api_version: &str, kind: &str) -> Result<Value, Error> {
    decode::body(body, api_version, kind)
}

/// Writes an object, a list or a Status, with the envelope that its `apiVersion` and `kind` ask for.
pub fn encode(object: &Value) -> Result<Vec<u8>, Error> {
    encode::body(object)
}

/// As [`encode`], of an object of which only the JSON is there: it is written as it is read, without a value between.
pub fn transcode(api_version: &str, kind: &str, json: &[u8]) -> Result<Vec<u8>, Error> {
    transcode::body(api_version, kind, json)
}

/// As [`transcode`], of a list: `kind` is the list's, `items` are its objects.
pub fn transcode_list<'a>(
    api_version: &str,
    kind: &str,
    metadata: &Value,
    items: impl Iterator<Item = &'a [u8]> + Clone,
) -> Result<Vec<u8>, Error> {
    transcode::list(api_version, kind, metadata, items)
}

/// One frame of a watch: its length in four bytes, then a `meta/v1` WatchEvent that holds a whole body.
pub fn watch_event(change: &str, body: &[u8]) -> Result<Vec<u8>, Error> {
    encode::watch_event(change, body)
}

fn message(api_version: &str, kind: &str) -> Option<&'static Message> {
    let table = table();
    let meta = |name: &str| table.named(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"));
    match (api_version, kind) {
        // Every group has these, so that clients may say its version.
        (_, "DeleteOptions") | ("v1" | "meta.k8s.io/v1", "Status") => meta(kind),
        ("meta.k8s.io/v1", "PartialObjectMetadata" | "PartialObjectMetadataList") => meta(kind),
        _ => {
            let registry = crate::Registry::builtin();
            if let Some(kind) = registry.by_kind(api_version, kind) {
                return table.named(kind.definition);
            }
            let item = registry.kinds().find(|k| k.list_kind == kind && k.api_version() == api_version)?;
            table.named(&format!("{}List", item.definition))
        }
    }
}
