//! Protobuf against bytes that Go made (`runtime/serializer/protobuf` over `client-go/kubernetes/scheme`), and both
//! directions against each other.
// Helpers of tests: clippy.toml excepts only the test functions themselves.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Read as _;
use std::sync::LazyLock;

use proptest::prelude::*;
use schema::{FieldValidation, Kind, Registry, protobuf};
use serde_json::{Value, json};

/// Of each kind an object with every field set, one whose every struct is there and empty, and one that has only a name:
/// `{"json": …, "hex": …}` as Go writes it, one case a line.
static CASES: &[u8] = include_bytes!("golden/protobuf.jsonl.gz");

/// The same of what is only answered.
const STATUS: &str = "6b3873000a0c0a0276311206537461747573124b0a070a0012001a016312074661696c7572651a026e6f22084e6f74466f756e642a260a01611204617070731a0b6465706c6f796d656e747322090a017212016d1a016628033201753094031a002200";
const LIST: &str = "6b3873000a130a027631120d436f6e6669674d61704c69737412520a0a0a001201391a01782004122f0a190a016112001a0022002a0032003800420808a5ebdcca06100012060a016b1201761a080a01621203000102200012130a110a016212001a0022002a003200380042001a002200";
const METADATA: &str = "6b3873000a2b0a0e6d6574612e6b38732e696f2f763112195061727469616c4f626a6563744d657461646174614c697374121e0a070a001201391a0012130a110a016112001a0022002a003200380042001a002200";

struct Case {
    kind: &'static Kind,
    json: Value,
    bytes: Vec<u8>,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cases() -> Vec<Case> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(CASES).read_to_string(&mut text).unwrap();
    let case = |line: &str| {
        let mut case: Value = serde_json::from_str(line).unwrap();
        let json = case["json"].take();
        let said = |field: &str| json[field].as_str().unwrap();
        let kind = Registry::builtin().by_kind(said("apiVersion"), said("kind")).unwrap();
        Case { kind, bytes: unhex(case["hex"].as_str().unwrap()), json }
    };
    text.lines().map(case).collect()
}

/// As the server takes a body in.
fn read(kind: &Kind, bytes: &[u8]) -> Value {
    let value = protobuf::decode(bytes, &kind.api_version(), kind.kind).unwrap();
    let decoded = kind.decode_value(value, FieldValidation::Strict).unwrap();
    decoded.value
}

#[test]
fn what_go_writes_is_read_as_go_reads_it() {
    let cases = cases();
    for case in &cases {
        let taken = case.kind.decode(case.json.to_string().as_bytes(), FieldValidation::Strict).unwrap().value;
        assert_eq!(read(case.kind, &case.bytes), taken, "{:?}", case.kind);
    }
    let covered = |kind: &Kind| cases.iter().any(|case| std::ptr::eq(case.kind, kind));
    assert!(Registry::builtin().kinds().all(covered));
}

#[test]
fn what_is_written_is_read_back() {
    for case in cases() {
        assert_eq!(read(case.kind, &protobuf::encode(&case.json).unwrap()), read(case.kind, &case.bytes));
    }
}

/// The object written from its text, whose fields come in another order, read as JSON again.
fn transcoded(object: &Value) -> Value {
    let bytes = protobuf::transcode(said(object, "apiVersion"), said(object, "kind"), object.to_string().as_bytes());
    protobuf::decode(&bytes.unwrap(), "", "").unwrap()
}

#[test]
fn an_object_is_the_same_written_from_its_text() {
    for case in cases() {
        let wanted = protobuf::decode(&protobuf::encode(&case.json).unwrap(), "", "").unwrap();
        assert_eq!(transcoded(&case.json), wanted);
    }
    let object =
        json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": "a\n\u{e9}\"", "other": [1] } });
    assert_eq!(transcoded(&object)["metadata"], json!({ "name": "a\n\u{e9}\"" }));
}

#[test]
fn text_that_is_no_such_object_is_refused() {
    let refused = |json: &str| protobuf::transcode("v1", "ConfigMap", json.as_bytes()).unwrap_err().to_string();
    let of = "io.k8s.api.core.v1.ConfigMap cannot be written as protobuf: ";
    assert_eq!(refused("{"), format!("{of}EOF while parsing an object at line 1 column 1"));
    assert_eq!(refused("{}{}"), format!("{of}trailing characters at line 1 column 3"));
    assert_eq!(refused("[]"), format!("{of}invalid type: sequence, expected an object at line 1 column 0"));
    let wrong = refused(r#"{"immutable":"x"}"#);
    assert!(wrong.contains("immutable of io.k8s.api.core.v1.ConfigMap") && wrong.contains("true or false"), "{wrong}");
}

/// Without zero values, which Go writes where JSON leaves them out.
fn sparse(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().map(|(k, v)| (k, sparse(v))).filter(|(_, v)| !is_zero(v)).collect(),
        Value::Array(list) => list.into_iter().map(sparse).collect(),
        other => other,
    }
}

fn is_zero(value: &Value) -> bool {
    *value == json!(null) || *value == json!("") || *value == json!(0) || *value == json!({})
}

#[test]
fn answers_look_as_those_of_go() {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": { "continue": "c" }, "status": "Failure", "message": "no",
        "reason": "NotFound", "code": 404, "details": {
            "name": "a", "group": "apps", "kind": "deployments", "uid": "u", "retryAfterSeconds": 3,
            "causes": [{ "reason": "r", "message": "m", "field": "f" }],
        },
    });
    let list = json!({
        "kind": "ConfigMapList", "apiVersion": "v1",
        "metadata": { "resourceVersion": "9", "continue": "x", "remainingItemCount": 4 },
        "items": [
            { "metadata": { "name": "a", "creationTimestamp": "2026-01-02T03:04:05Z" }, "data": { "k": "v" },
              "binaryData": { "b": "AAEC" }, "immutable": false },
            { "metadata": { "name": "b" } },
        ],
    });
    let metadata = json!({
        "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": { "resourceVersion": "9" },
        "items": [{ "metadata": { "name": "a" } }],
    });
    for (object, go) in [(status, STATUS), (list, LIST), (metadata, METADATA)] {
        let own = protobuf::encode(&object).unwrap();
        assert_eq!(sparse(protobuf::decode(&own, "", "").unwrap()), sparse(object.clone()));
        assert_eq!(transcoded(&object), protobuf::decode(&own, "", "").unwrap());
        assert_eq!(sparse(protobuf::decode(&unhex(go), "", "").unwrap()), sparse(object));
    }
}

#[test]
fn a_list_of_texts_is_a_list() {
    let items = [json!({ "metadata": { "name": "a" }, "data": { "k": "v" } }), json!({ "metadata": { "name": "b" } })];
    let metadata = json!({ "resourceVersion": "9" });
    let texts: Vec<String> = items.iter().map(Value::to_string).collect();
    let texts = texts.iter().map(String::as_bytes);
    let bytes = protobuf::transcode_list("v1", "ConfigMapList", &metadata, texts.clone()).unwrap();
    let list = json!({ "kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items });
    let read = |bytes: &[u8]| protobuf::decode(bytes, "", "").unwrap();
    assert_eq!(read(&bytes), read(&protobuf::encode(&list).unwrap()));
    protobuf::transcode_list("v1", "ConfigMap", &metadata, texts).unwrap_err();
}

/// Bytes for bytes: Go decodes these to the event that they were made of.
#[test]
fn a_watch_event_is_a_frame_around_a_whole_body() {
    let object = json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": "a" }, "data": { "k": "v" } });
    let body = protobuf::encode(&object).unwrap();
    let wanted = "6b3873000a0f0a0276311209436f6e6669674d6170120d0a030a016112060a016b1201761a002200";
    assert_eq!(hex(&body), wanted);
    let frame = protobuf::watch_event("ADDED", &body).unwrap();
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
    assert_eq!(length, frame.len() - 4);
    // type = 1, object = 2, and in that raw = 1.
    let sizes = [body.len() as u8 + 2, body.len() as u8];
    let head = [b"\x0a\x05ADDED\x12".as_slice(), &sizes[..1], b"\x0a", &sizes[1..]].concat();
    assert_eq!(&frame[4..], [head, body].concat());
}

static ALL: LazyLock<Vec<Case>> = LazyLock::new(cases);

/// JSON pointers of everything inside a value.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    let mut inside = |name: &str, value: &Value| {
        let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        places(value, &at, out);
        out.push(at);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| inside(name, value)),
        Value::Array(list) => list.iter().enumerate().for_each(|(index, value)| inside(&index.to_string(), value)),
        _ => {}
    }
}

fn replacement() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
        proptest::sample::select(vec!["1m", "0", "1.5Gi", "AA==", "1960-02-29T23:59:59.999999Z"]).prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
    ]
}

/// A full object, or an empty one, of any kind with parts taken out or replaced, as far as it is still valid.
fn objects() -> impl Strategy<Value = (&'static Kind, Value)> {
    let change = (any::<prop::sample::Index>(), replacement());
    (any::<prop::sample::Index>(), proptest::collection::vec(change, 0..12)).prop_map(|(case, changes)| {
        let case = case.get(&ALL);
        let mut object = case.json.clone();
        for (place, value) in changes {
            let mut pointers = Vec::new();
            places(&object, "", &mut pointers);
            let mut changed = object.clone();
            let pointer: &String = place.get(&pointers);
            *changed.pointer_mut(pointer).unwrap() = value;
            let Ok(decoded) = case.kind.decode_value(changed, FieldValidation::Ignore) else { continue };
            if protobuf::describes(said(&decoded.value, "apiVersion"), said(&decoded.value, "kind")) {
                object = decoded.value;
            }
        }
        (case.kind, case.kind.decode_value(object, FieldValidation::Ignore).unwrap().value)
    })
}

fn said<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

/// What no protobuf can tell apart: an empty list or map from none.
fn without_empties(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().map(|(k, v)| (k, without_empties(v))).filter(|(_, v)| !is_empty(v)).collect()
        }
        Value::Array(list) => list.into_iter().map(without_empties).collect(),
        other => other,
    }
}

fn is_empty(value: &Value) -> bool {
    *value == json!(null) || *value == json!([]) || *value == json!({})
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn any_object_is_written_and_read_back((kind, object) in objects()) {
        let bytes = protobuf::encode(&object).unwrap();
        prop_assert_eq!(transcoded(&object), protobuf::decode(&bytes, "", "").unwrap());
        prop_assert_eq!(without_empties(read(kind, &bytes)), without_empties(object));
    }

    /// Go's bytes with some of them changed, cut short.
    #[test]
    fn damaged_bytes_do_not_panic(
        case in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let case = case.get(&ALL);
        let mut bytes = case.bytes.clone();
        for (place, byte) in changes {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        if let Ok(value) = protobuf::decode(&bytes, &case.kind.api_version(), case.kind.kind) {
            let _ = case.kind.decode_value(value, FieldValidation::Ignore);
        }
    }
}
